//! How long a panic keeps a connected Linux host from its data: the card restarts, the host reconnects by itself.
//!
//! The harness hears the card's console and the host's, and takes the time of each line. The first completed I/O is
//! told by the host's own clock: the longest time between two completed reads, of which thousands a second come.

use crate::command::note;
use crate::image::Image;
use crate::linux::card::{Card, CardPlan};
use crate::linux::wire::Wire;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::time::{Duration, Instant};

/// For how long the host works on after the latest moment at which it should be connected again.
const AFTERWARDS_S: u64 = 20;

/// So long before the panic the host has to be at work.
const HEAD_START_S: u64 = 2;

/// How to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// The card's panic comes so many seconds after its start: the host has to be at work by then
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(10..=600))]
    after: u64,
    /// Seconds that the host waits before it connects again; each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10], value_parser = clap::value_parser!(u64).range(1..=60))]
    reconnect_delay: Vec<u64>,
    /// Panics with each delay, each of a machine of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
}

/// Measures with each delay, and prints.
pub fn run(options: &Options) -> Result<()> {
    let image = super::image()?;
    let mut results = Vec::new();
    for &delay_s in &options.reconnect_delay {
        for run in 1..=options.runs {
            note(&format!("run {run} of {} with --reconnect-delay={delay_s}", options.runs));
            let times = measure(&image, options.after, delay_s)?;
            println!("  {times}");
            results.push((delay_s, times));
        }
    }
    println!("from a panic of the card under a Linux host's verified I/O, without help, to");
    for (delay_s, times) in results {
        println!("  {times}, with --reconnect-delay={delay_s}");
    }
    Ok(())
}

/// What came how long after the panic.
struct Times {
    /// The first line of the card's next start.
    restarted: Duration,
    /// The card serves.
    ready: Duration,
    /// The host knows that its connection is gone.
    lost: Duration,
    /// The host is connected.
    connected: Duration,
    /// The first read of the host that was completed.
    io: Duration,
}

impl std::fmt::Display for Times {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        let [restarted, ready, lost, connected, io] =
            [self.restarted, self.ready, self.lost, self.connected, self.io].map(|time| time.as_millis());
        write!(to, "restarted {restarted} ms, ready {ready} ms, loss noticed {lost} ms, ")?;
        write!(to, "connected again {connected} ms, first I/O {io} ms")
    }
}

/// What the host's script has told, and when.
#[derive(Default)]
struct Told {
    at_work: Option<Instant>,
    lost: Option<Instant>,
    connected: Option<Instant>,
    pause: Option<Duration>,
}

impl Told {
    fn take(&mut self, mark: &str) -> Result<()> {
        let now = Some(Instant::now());
        match mark.split(' ').collect::<Vec<_>>()[..] {
            ["at-work"] => self.at_work = now,
            ["state", "live"] => self.connected = now,
            ["state", _] => self.lost = self.lost.or(now),
            ["pause", ms] => {
                self.pause = Some(Duration::from_millis(ms.parse().context("no number of milliseconds")?));
            }
            _ => bail!("unknown mark `{mark}`"),
        }
        Ok(())
    }

    /// The times after the panic.
    fn since(&self, panic: Instant, restarted: Instant, ready: Instant) -> Result<Times> {
        let after = |moment: Option<Instant>, what: &str| {
            let moment = moment.with_context(|| format!("the host has not told when {what}"))?;
            Ok::<_, anyhow::Error>(moment.saturating_duration_since(panic))
        };
        let at_work = self.at_work.context("the host was not at work")?;
        ensure!(at_work < panic, "the panic came before the host was at work");
        let io = self.pause.context("the host has not told how long its reads paused")?;
        ensure!(panic + io >= ready, "the host's reads did not pause at the panic");
        Ok(Times {
            restarted: restarted.saturating_duration_since(panic),
            ready: ready.saturating_duration_since(panic),
            lost: after(self.lost, "its connection was lost")?,
            connected: after(self.connected, "it was connected again")?,
            io,
        })
    }
}

fn measure(image: &Image, after_s: u64, delay_s: u64) -> Result<Times> {
    let wire = Wire::stream()?;
    let append = format!("selftest=panic@{after_s}");
    let plan = CardPlan { append, restarts: true, ..CardPlan::new(image, "measure-recovery-card") };
    let started = Instant::now();
    let mut card = Card::start(&plan, &wire)?;
    let before = card.lines.len();
    let mut told = Told::default();
    let work_s = after_s + delay_s + AFTERWARDS_S;
    let variables = format!("RECONNECT_DELAY={delay_s}\nWORK_S={work_s}\n");
    super::play("recovery", &variables, 2, &mut card, &wire, &mut |mark| {
        told.take(mark)?;
        let too_late = started.elapsed().as_secs() + HEAD_START_S > after_s;
        ensure!(!(mark == "at-work" && too_late), "the host was at work too late: a larger --after");
        Ok(())
    })?;
    let came = |from: usize, text: &str| {
        let place = card.lines.iter().skip(from).position(|line| line.text.starts_with(text));
        place.map(|place| from + place).with_context(|| format!("the card has said no line `{text}...`"))
    };
    let panic = came(before, "*** panic")?;
    let restarted = came(panic, "crash-record ")?;
    let ready = came(restarted, "ready: ")?;
    told.since(card.heard[panic], card.heard[restarted], card.heard[ready])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_panic_and_the_first_loss() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut told = Told::default();
        for mark in ["at-work", "state resetting", "state connecting", "state live", "pause 1500"] {
            told.take(mark).unwrap();
        }
        assert!(told.take("pause x").is_err() && told.take("other").is_err());
        assert!(told.lost <= told.connected);
        (told.at_work, told.lost, told.connected) = (Some(start), Some(at(300)), Some(at(1400)));
        let times = told.since(at(100), at(200), at(250)).unwrap();
        assert_eq!((times.lost.as_millis(), times.connected.as_millis()), (200, 1300));
        assert_eq!((times.ready.as_millis(), times.io.as_millis()), (150, 1500));
        assert!(told.since(start, at(200), at(250)).is_err(), "the host was not at work before the panic");
        assert!(
            told.since(at(100), at(200), at(2000)).is_err(),
            "no I/O comes from a card that is not ready"
        );
        assert!(Told::default().since(at(100), at(200), at(250)).is_err());
    }
}
