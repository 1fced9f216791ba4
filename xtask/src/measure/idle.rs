//! Host CPU time of an idle card.

use crate::linux::card::{Card, CardPlan};
use crate::linux::wire::Wire;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::time::{Duration, Instant};

/// How long the card may settle before the first sample.
const SETTLE: Duration = Duration::from_secs(3);

/// How to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of cores
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    cores: u32,
    /// Seconds that each sample covers
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Fail when the card uses more than so many percent of one host CPU without a host
    #[arg(long, value_name = "PERCENT")]
    at_most: Option<f64>,
}

/// Measures without a host, then with one that is connected and idle.
pub fn run(options: &Options) -> Result<()> {
    let image = super::image()?;
    let wire = Wire::stream()?;
    let plan = CardPlan { cores: Some(options.cores), ..CardPlan::new(&image, "measure-idle-card") };
    let mut card = Card::start(&plan, &wire)?;
    let process = card.vm.process();
    wait(&mut card, SETTLE)?;
    let sample = Sample::take(process)?;
    wait(&mut card, Duration::from_secs(options.seconds))?;
    let alone = sample.percent()?;
    let mut begun = None;
    let mut connected = None;
    let variables = format!("SECONDS_IDLE={}\n", options.seconds);
    super::play("idle", &variables, 2, &mut card, &wire, &mut |mark| {
        match mark {
            "begin" => begun = Some(Sample::take(process)?),
            "end" => connected = begun.as_ref().map(Sample::percent).transpose()?,
            other => bail!("unknown mark `{other}`"),
        }
        Ok(())
    })?;
    let connected = connected.context("the host's script set no marks")?;
    println!("idle card, {} cores, {} s each, in percent of one host CPU", options.cores, options.seconds);
    println!("  no host           {alone:6.2} %");
    println!("  one idle host     {connected:6.2} %");
    if options.at_most.is_some_and(|limit| alone > limit) {
        bail!("an idle card uses {alone:.2} %, more than allowed");
    }
    Ok(())
}

fn wait(card: &mut Card, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        card.listen(Duration::from_millis(100))?;
    }
    Ok(())
}

/// CPU time of a process at one moment.
struct Sample {
    process: u32,
    ticks: u64,
    at: Instant,
}

impl Sample {
    fn take(process: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let ticks = ticks(&text).context("/proc/PID/stat is not as expected")?;
        Ok(Self { process, ticks, at: Instant::now() })
    }

    /// Percent of one CPU that the process has used since.
    fn percent(&self) -> Result<f64> {
        let now = Self::take(self.process)?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        let used = now.ticks.saturating_sub(self.ticks) as f64 / per_second;
        Ok(100.0 * used / (now.at - self.at).as_secs_f64())
    }
}

/// User and system time of all threads in clock ticks: fields 14 and 15 of `/proc/PID/stat` (proc(5)).
fn ticks(stat: &str) -> Option<u64> {
    // The name, field 2, may hold blanks and parentheses: what follows its last one starts with field 3.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_times_are_counted_whatever_the_name() {
        assert_eq!(ticks("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 200 30 0 0"), Some(230));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
