//! How long a panic keeps a connected Linux host from its data: the card restarts, the host reconnects by itself.

use crate::image::Image;
use crate::linux::card::{Card, CardPlan};
use crate::linux::wire::Wire;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::time::{Duration, Instant};

/// How to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// The card's panic comes so many seconds after its start: the host has to be at work by then
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(10..=600))]
    after: u64,
    /// Seconds that the host waits between two tries to connect; each is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10], value_parser = clap::value_parser!(u64).range(1..=60))]
    reconnect_delay: Vec<u64>,
    /// Panics with each delay, each of a machine of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
}

/// Measures with each delay, and prints.
pub fn run(options: &Options) -> Result<()> {
    let image = super::image()?;
    let mut results = Vec::new();
    for &delay_s in &options.reconnect_delay {
        for _ in 0..options.runs {
            results.push((delay_s, measure(&image, options.after, delay_s)?));
        }
    }
    println!("from a panic of the card, seen from outside, to");
    for (delay_s, Times { ready, io }) in results {
        let (ready, io) = (ready.as_millis(), io.as_millis());
        println!("  ready {ready:5} ms, first I/O of the host {io:6} ms, with --reconnect-delay={delay_s}");
    }
    Ok(())
}

/// What came how long after the panic.
struct Times {
    ready: Duration,
    io: Duration,
}

fn measure(image: &Image, after_s: u64, delay_s: u64) -> Result<Times> {
    let wire = Wire::stream()?;
    let append = format!("selftest=panic@{after_s}");
    let plan = CardPlan { append, ..CardPlan::new(image, "measure-recovery-card") };
    let mut card = Card::start(&plan, &wire)?;
    let before = card.lines.len();
    let (mut at_work, mut again) = (None, None);
    let variables = format!("RECONNECT_DELAY={delay_s}\nAFTER={after_s}\n");
    super::play("recovery", &variables, &mut card, &wire, &mut |mark| {
        let moment = if mark == "at-work" { &mut at_work } else { &mut again };
        *moment = Some(Instant::now());
        Ok(())
    })?;
    let came = |from: usize, text: &str| {
        let place = card.lines.iter().skip(from).position(|line| line.starts_with(text));
        place.map(|place| from + place).with_context(|| format!("the card has said no line `{text}...`"))
    };
    let panic = came(before, "*** panic")?;
    let ready = came(panic, "ready: ")?;
    let since_panic = |moment: Instant| moment.saturating_duration_since(card.heard[panic]);
    let at_work = at_work.context("the host was not at work")?;
    ensure!(at_work < card.heard[panic], "the panic came before the host was at work: a larger --after");
    let io = since_panic(again.context("the host has had no I/O after the panic")?);
    Ok(Times { ready: since_panic(card.heard[ready]), io })
}
