//! `cargo xtask sim`: the simulator over many seeds, in worker processes.
//!
//! A worker says when a seed begins and when it has ended well; a worker that dies in between has found something. Its
//! seed is run once more with its events told, which a seed does bit for bit.

mod results;
mod worker;

use crate::command::{Step, patient, tail};
use crate::{interrupt, paths};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use worker::{Batch, Outcome};

/// Workers at once.
const WORKERS: usize = 2;
/// Seeds that a worker runs before its memory, which cards never give back, is given back by its end.
const BATCH: u64 = 20;
/// Lines of a failed seed's events that are shown.
const SHOWN_EVENTS: usize = 30;
/// In so many seeds every kind of event has to happen.
const COVERED_AFTER: u64 = 1000;
/// What `cargo xtask test` runs.
const TEST_SEEDS: u64 = 1000;

/// Which seeds to run.
#[derive(Args, Debug)]
pub struct Options {
    /// Run so many seeds (1000 where nothing else is said)
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "minutes"])]
    seeds: Option<u64>,
    /// Run this seed and print its events
    #[arg(long, value_name = "S", conflicts_with_all = ["minutes", "seed_base"])]
    seed: Option<u64>,
    /// Run seeds for so long, from where the last such run has ended
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "B")]
    seed_base: Option<u64>,
    /// Have hosts come and go so many times over the worst network (with the seed of --seed-base)
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "seed", "minutes"])]
    cycles: Option<u64>,
    /// With --seed: each frame, turn and drive operation as well
    #[arg(short, long, requires = "seed")]
    verbose: bool,
}

/// What all workers share.
struct Run {
    program: PathBuf,
    next: AtomicU64,
    end: u64,
    deadline: Option<Instant>,
    bar: ProgressBar,
    found: Mutex<Found>,
}

/// What the workers have found.
#[derive(Default)]
struct Found {
    done: u64,
    events: u64,
    /// By name, in the order of the worker's table.
    counts: Vec<u64>,
    /// Seeds that failed, with the end of what they said.
    failures: BTreeMap<u64, String>,
}

/// Runs what the options ask for.
pub fn run(options: &Options) -> Result<()> {
    let program = build()?;
    if let Some(seed) = options.seed {
        return replay(&program, seed, options.verbose);
    }
    if let Some(cycles) = options.cycles {
        let seed = options.seed_base.unwrap_or(0).to_string();
        return stand_alone(&program, &["cycles", &seed, &cycles.to_string()], &format!("seed {seed} fails"));
    }
    match options.minutes {
        Some(minutes) => {
            let file = results::file()?;
            let first = options.seed_base.map_or_else(|| results::next_seed(&file), Ok)?;
            let deadline = Instant::now() + Duration::from_secs(minutes * 60);
            let (count, verdict) = seeds(&program, first, u64::MAX - first, Some(deadline))?;
            results::append(&file, first, count, &verdict)?;
            println!("{} has the results of all such runs", file.display());
            verdict
        }
        None => {
            let first = options.seed_base.unwrap_or(0);
            seeds(&program, first, options.seeds.unwrap_or(TEST_SEEDS), None)?.1
        }
    }
}

/// The part of the tests.
pub fn test() -> Result<()> {
    seeds(&build()?, 0, TEST_SEEDS, None)?.1
}

fn build() -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--profile", "sim", "--package", "sim"]).current_dir(paths::root()?);
    Step::new("building the simulator", patient(command), 1200).run()?;
    Ok(paths::target()?.join("sim").join("sim"))
}

/// Runs `count` seeds, or as many as the time allows; how many there were, and what came of it.
fn seeds(program: &Path, first: u64, count: u64, deadline: Option<Instant>) -> Result<(u64, Result<()>)> {
    let run = Run {
        program: program.to_path_buf(),
        next: AtomicU64::new(first),
        end: first + count,
        deadline,
        bar: bar(if deadline.is_some() { None } else { Some(count) }),
        found: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| run.work())).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker's thread failed")))
    })?;
    run.bar.finish_and_clear();
    interrupt::check()?;
    let found = run.found.into_inner().unwrap_or_default();
    let verdict = judge(program, &found);
    Ok((found.done + found.failures.len() as u64, verdict))
}

fn bar(count: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match count {
        Some(count) => (ProgressBar::new(count), "{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {pos} seeds, {per_sec}, {elapsed} {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

impl Run {
    /// Takes batches until there are no more, or something was found.
    fn work(&self) -> Result<()> {
        loop {
            let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if first >= self.end || late || interrupt::pending() || self.has_failed() {
                return Ok(());
            }
            let batch = Batch { first, count: BATCH.min(self.end - first) };
            batch.run(&self.program, |outcome| self.note(outcome))?;
        }
    }

    fn has_failed(&self) -> bool {
        self.found.lock().is_ok_and(|found| !found.failures.is_empty())
    }

    fn note(&self, outcome: Outcome) {
        let Ok(mut found) = self.found.lock() else { return };
        match outcome {
            Outcome::Done { events, counts } => {
                found.done += 1;
                found.events += events;
                found.counts.resize(counts.len(), 0);
                found.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                self.bar.inc(1);
            }
            Outcome::Failed { seed, words } => {
                found.failures.insert(seed, words);
                self.bar.set_message("a seed failed");
            }
        }
    }
}

fn judge(program: &Path, found: &Found) -> Result<()> {
    let names = worker::names(program)?;
    println!("{}", table(&names, &found.counts));
    println!("{} seeds without a failure, {} events", found.done, found.events);
    if let Some((&seed, words)) = found.failures.iter().next() {
        return Err(failure(program, seed, words)?);
    }
    let never: Vec<&str> = names
        .iter()
        .zip(&found.counts)
        .filter(|(_, count)| **count == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    if found.done >= COVERED_AFTER && !never.is_empty() {
        bail!("never happened in {} seeds, so that nothing is known of it: {}", found.done, never.join(", "));
    }
    Ok(())
}

/// The counters, in three columns.
fn table(names: &[String], counts: &[u64]) -> String {
    let cells: Vec<String> =
        names.iter().zip(counts).map(|(name, count)| format!("{count:>12} {name:<22}")).collect();
    let rows: Vec<String> = cells.chunks(3).map(|row| row.concat().trim_end().to_owned()).collect();
    rows.join("\n")
}

/// Runs a failed seed again for its events.
fn failure(program: &Path, seed: u64, words: &str) -> Result<anyhow::Error> {
    let log = paths::logs()?.join(format!("sim-{seed}.log"));
    let file = std::fs::File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
    let mut command = Command::new(program);
    command.args(["trace", &seed.to_string(), "all"]).env("RUST_BACKTRACE", "0").env("PENSTOCK_LOG", "off");
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    crate::command::Guarded::spawn(&mut command)?.wait(Duration::from_secs(600))?;
    let events = tail(&log, SHOWN_EVENTS).unwrap_or_default();
    Ok(anyhow::anyhow!(
        "seed {seed} failed:\n{words}\nits last events:\n{events}\n(all of them: {})\nto see it again: cargo xtask sim --seed {seed}",
        log.display()
    ))
}

fn replay(program: &Path, seed: u64, verbose: bool) -> Result<()> {
    let seed = seed.to_string();
    let mut arguments = vec!["trace", seed.as_str()];
    if verbose {
        arguments.push("all");
    }
    stand_alone(program, &arguments, &format!("seed {seed} fails"))
}

/// Runs one worker that speaks to the terminal itself.
fn stand_alone(program: &Path, arguments: &[&str], failure: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let status = crate::command::Guarded::spawn(&mut command)?.wait(Duration::from_secs(3600))?;
    if !status.success() {
        bail!("{failure}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_in_three_columns() {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        let text = table(&names, &[1, 20, 300, 0]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("           0 d"));
    }
}
