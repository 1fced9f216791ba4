//! Guest instructions per command, counted by a QEMU plugin while a Linux host works.

use super::profile::Profile;
use crate::command::Step;
use crate::linux::card::{Card, CardPlan};
use crate::linux::wire::Wire;
use crate::paths::{self, TemporaryFolder};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The plugin refreshes its file ten times a second: after so long it holds what was counted before.
const FRESH: Duration = Duration::from_millis(250);

/// A wire that figures name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A socket between two QEMUs, no offloads, MTU 1500
    A,
    /// As A, MTU 9000
    B,
    /// TAP in a network namespace, all offloads, MTU 1500
    C,
}

impl Kind {
    fn mtu(self) -> u32 {
        if self == Self::B { 9000 } else { 1500 }
    }
}

/// How to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// The wire between host and card
    #[arg(long, value_enum, ignore_case = true, default_value_t = Kind::A)]
    wire: Kind,
    /// Runs at depth 32, of which the best counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
    /// Commands of each run
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..))]
    commands: u32,
    /// The host's jobs, each on a processor and with a connection of its own; the depth is divided among them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    jobs: u32,
    /// Data cores of the card, by `plan=many`; without it the card is as it is by default
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=7))]
    data_cores: Option<u32>,
    /// Queue pairs of the card's Ethernet port, which spread by RSS; more than one takes wire C
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    queues: u32,
    /// Say where the instructions of the runs at depth 32 go, and write their stacks of inlined functions to FILE (folded, as
    /// flame graph tools take them)
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Fail when the best run takes more instructions per read
    #[arg(long, value_name = "COUNT")]
    at_most: Option<u64>,
}

/// Measures reads at depth 32, and for information reads at depth 1 and writes at depth 32.
pub fn run(options: &Options) -> Result<()> {
    let plugin = plugin()?;
    let image = super::image()?;
    let before = super::sha256(&image.flat)?;
    let folder = TemporaryFolder::for_sockets()?;
    let counts = folder.join("counts");
    let wire = match options.wire {
        Kind::C => Wire::taps_with_queues(options.wire.mtu(), options.queues)?,
        _ if options.queues > 1 => bail!("a port with several queues takes a TAP: say `--wire c` too"),
        _ => Wire::stream()?,
    };
    let mut plan = CardPlan { mtu: options.wire.mtu(), ..CardPlan::new(&image, "measure-instructions-card") };
    let mut profile = options.profile.as_ref().map(|_| Profile::new(folder.join("blocks")));
    let blocks = profile.as_ref().map(|profile| format!(",blocks={}", profile.file().display()));
    let plugin = format!("{},path={}{}", plugin.display(), counts.display(), blocks.unwrap_or_default());
    plan.arguments = vec!["-plugin".to_owned(), plugin];
    if let Some(data_cores) = options.data_cores {
        (plan.cores, plan.append) = (Some(data_cores + 1), "plan=many".to_owned());
    }
    let mut card = Card::start(&plan, &wire)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut begun = None;
    let Options { runs: repeat, commands, jobs, .. } = options;
    let mtu = options.wire.mtu();
    let variables = format!("RUNS={repeat}\nCOMMANDS={commands}\nJOBS={jobs}\nMTU={mtu}\n");
    super::play("instructions", &variables, 2.max(*jobs), &mut card, &wire, &mut |mark| {
        std::thread::sleep(FRESH);
        let now = Counts::read(&counts)?;
        match mark.split(' ').collect::<Vec<_>>()[..] {
            ["begin"] => {
                begun = Some(now);
                profile.as_mut().map_or(Ok(()), Profile::begin)?;
            }
            ["end", kind, commands] => {
                let before = begun.take().context("an end without a begin")?;
                let run = Run::new(kind, commands.parse().context("no number of commands")?, &before, &now)?;
                println!("  counted           {run}");
                if let Some(profile) = profile.as_mut().filter(|_| kind == "read-32") {
                    profile.end(run.commands)?;
                }
                runs.push(run);
            }
            _ => bail!("unknown mark `{mark}`"),
        }
        Ok(())
    })?;
    if super::sha256(&image.flat)? != before {
        bail!("the image has changed during the measurement");
    }
    if let (Some(profile), Some(file)) = (&profile, &options.profile) {
        profile.report(&image.elf, file)?;
    }
    judge(options, &runs)
}

/// Prints the best of each kind, and compares the first kind with the limit.
fn judge(options: &Options, runs: &[Run]) -> Result<()> {
    println!("guest instructions of all cores per 4 KiB command, wire {:?}, data verified", options.wire);
    let mut best_read = None;
    for kind in ["read-32", "read-1", "write-32"] {
        let Some(best) = runs.iter().filter(|run| run.kind == kind).min_by_key(|run| run.total()) else {
            bail!("no run of {kind} was measured");
        };
        let all: Vec<String> =
            runs.iter().filter(|run| run.kind == kind).map(|run| run.total().to_string()).collect();
        println!("  {best}; all runs: {}", all.join(" "));
        best_read = best_read.or(Some(best.total()));
    }
    match (options.at_most, best_read) {
        (Some(limit), Some(best)) if best > limit => {
            bail!("{best} instructions per read at depth 32 are more than {limit}")
        }
        _ => Ok(()),
    }
}

/// Instructions of each core since the machine was built.
struct Counts(Vec<u64>);

impl Counts {
    fn read(file: &Path) -> Result<Self> {
        let text = paths::read(file).context("the plugin writes no counts")?;
        let count = |line: &str| line.split_once(' ').and_then(|(_, count)| count.parse().ok());
        let counts: Option<Vec<u64>> = text.lines().map(count).collect();
        counts.filter(|counts| !counts.is_empty()).map(Self).context("the plugin's counts cannot be read")
    }
}

/// One run of fio.
struct Run {
    kind: String,
    commands: u64,
    /// Instructions per command, by core.
    cores: Vec<u64>,
}

impl Run {
    fn new(kind: &str, commands: u64, before: &Counts, after: &Counts) -> Result<Self> {
        if commands == 0 {
            bail!("fio has run no command");
        }
        let cores = before.0.iter().zip(&after.0);
        let cores = cores.map(|(before, after)| after.saturating_sub(*before) / commands).collect();
        Ok(Self { kind: kind.to_owned(), commands, cores })
    }

    fn total(&self) -> u64 {
        self.cores.iter().sum()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { kind, commands, cores } = self;
        write!(to, "{kind:9} {:8} in {commands} commands, by core:", self.total())?;
        cores.iter().try_for_each(|count| write!(to, " {count}"))
    }
}

/// Builds the plugin for this machine.
fn plugin() -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--release", "--package", "instruction-counter"]);
    command.current_dir(paths::root()?);
    Step::new("building the instruction counter", command, 600).visible().run()?;
    let plugin = paths::target()?.join("release/libinstruction_counter.so");
    if !plugin.is_file() {
        bail!("{} was not built", plugin.display());
    }
    Ok(plugin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_counts_each_core_apart() {
        let run = Run::new("read-32", 10, &Counts(vec![100, 0]), &Counts(vec![150, 4000])).unwrap();
        assert_eq!(run.cores, [5, 400]);
        assert_eq!(run.total(), 405);
        assert!(Run::new("read-32", 0, &Counts(vec![0]), &Counts(vec![1])).is_err());
    }
}
