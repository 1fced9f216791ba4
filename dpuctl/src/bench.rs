//! `bench`: keeps commands under way at a target, measures them, and judges their data where that is wanted.

mod report;

use std::time::Duration;

use clap::Args;
use nvmeof_host::{Area, Association, Limit, Pattern, phase, queues, workers};

use crate::client::Failure;
use crate::target::TargetArguments;
use report::{Report, Run};

const AFTER_HELP: &str = "\
Examples:
  dpuctl bench --target 10.0.0.1                                      reads, 10 s
  dpuctl bench --target 10.0.0.1 --size 128k --sequential --depth 8
  dpuctl bench --target 10.0.0.1 --read-percent 70 --verify --overwrite";

/// Keep commands under way at any NVMe/TCP target, and measure: reads, unless writing is asked for with --overwrite
///
/// With --verify the area is written first; then each read, and at the end all of the area, is compared with what was written
/// last. The host is of this program's own and needs nothing of the kernel but TCP.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    #[command(flatten)]
    target: TargetArguments,
    /// NSID [default: the smallest]
    #[arg(long)]
    nsid: Option<u32>,
    /// I/O queues, each with a connection and a thread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Commands under way on each connection
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// Bytes of a command, such as 4096, 128k or 1m
    #[arg(long, default_value = "4k", value_parser = command_bytes)]
    size: u32,
    /// Percent of commands that read; the others write
    #[arg(long, visible_alias = "mix", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: u8,
    /// One place after the other, instead of random ones
    #[arg(long, conflicts_with = "random")]
    sequential: bool,
    /// Random places, which is the default
    #[arg(long)]
    random: bool,
    /// Write the area first, then compare all that is read with what was written; takes --overwrite
    #[arg(long)]
    verify: bool,
    /// The area may be overwritten: what is in it now is lost
    #[arg(long)]
    overwrite: bool,
    /// How much of the namespace is used, from its start
    #[arg(long, value_name = "BYTES", default_value = "256m", value_parser = bytes)]
    area: u64,
    /// Seconds of a run [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = crate::seconds, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Commands of a run, on all connections together, instead of a time
    #[arg(long, value_name = "COMMANDS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Seconds before each timed run that do not count
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = warm_up)]
    warm_up: f64,
    /// Runs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Look for answers without end, instead of sleeping until they come: a processor for each connection
    #[arg(long)]
    poll: bool,
    /// Seed of places and contents
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How long a run is where nothing else is said.
const DURATION: Duration = Duration::from_secs(10);

fn warm_up(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.0..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 3600 seconds".to_owned()) }
}

/// A number of bytes, perhaps with a unit of 1024, its square, or its cube.
fn bytes(text: &str) -> Result<u64, String> {
    let shift = match text.trim_end_matches(['i', 'b', 'B']).chars().last() {
        Some('k' | 'K') => 10,
        Some('m' | 'M') => 20,
        Some('g' | 'G') => 30,
        Some('t' | 'T') => 40,
        _ => 0,
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a size such as 4096, 128k or 1g"))?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| "out of range".to_owned())
}

fn command_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(bytes(text)?).map_err(|_| "out of range".to_owned())
}

/// Measures; gives what is to be printed.
pub fn run(options: &Options, limit: Option<Duration>, json: bool) -> Result<String, Failure> {
    let writes = options.verify || options.read_percent < 100;
    if writes && !options.overwrite {
        let why =
            "this writes to the namespace, and what is in it is lost: say so with --overwrite, or read alone";
        return Err(Failure::Usage(why.to_owned()));
    }
    let mut target = options.target.find(limit)?;
    target.sleep = !options.poll;
    let mut association = Association::open(&target, options.connections)?;
    let namespace = association.namespace(options.nsid)?;
    let area = Area {
        bytes: options.area,
        command_bytes: options.size,
        depth: options.depth,
        verify: options.verify,
        seed: options.seed,
    };
    let queues = queues(&association, options.connections, options.depth)?;
    let mut workers = workers(&association, &namespace, queues, &area)?;
    let all = Limit::Commands(u64::MAX);
    if options.verify {
        phase(&mut association, &mut workers, Pattern::WriteEach, all, "writing the area")?;
    }
    let pattern = Pattern::Mix { reads: options.read_percent, sequential: options.sequential };
    let mut report = Report::new(options, &target, namespace.nsid);
    for number in 1..=options.runs {
        let label = format!("run {number} of {}", options.runs);
        let stats = phase(&mut association, &mut workers, pattern, options.limit(), &label)?;
        report.runs.push(Run::new(&stats, options.size));
    }
    if options.verify {
        phase(&mut association, &mut workers, Pattern::ReadEach, all, "reading the area")?;
    }
    Ok(report.show(json))
}

impl Options {
    /// When a run ends.
    fn limit(&self) -> Limit {
        match self.count {
            Some(count) => Limit::Commands(count.div_ceil(u64::from(self.connections))),
            None => Limit::Time {
                warm_up: Duration::from_secs_f64(self.warm_up),
                measured: self.duration.unwrap_or(DURATION),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(["4096", "4k", "128KiB"].map(|text| bytes(text).unwrap()), [4096, 4096, 131_072]);
        assert_eq!(["1m", "2G", "1t"].map(|text| bytes(text).unwrap()), [1 << 20, 2 << 30, 1 << 40]);
        for wrong in ["", "k", "0", "-1", "4x4", "99999999t"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(command_bytes("4g").is_err());
    }
}
