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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use results::{Progress, Record};
use worker::{Batch, Outcome};

/// Workers at once.
const WORKERS: usize = 2;
/// Seeds that a worker runs before its memory, which cards never give back, is given back by its end.
const BATCH: u64 = 20;
/// A failed seed that is run again and goes on for longer hangs.
const REPLAY_LIMIT: Duration = Duration::from_secs(600);
/// Lines of a failed seed's events that are shown.
const SHOWN_EVENTS: usize = 30;
/// In so many seeds every kind of event has to happen.
const COVERED_AFTER: u64 = 1000;
/// What `cargo xtask test` runs.
const TEST_SEEDS: u64 = 1000;
/// After so many seeds a long run notes that it has come so far.
const RECORD_EVERY: u64 = 500;
/// A year.
const MOST_MINUTES: u64 = 525_600;

/// Which seeds to run.
#[derive(Args, Debug)]
pub struct Options {
    /// Run so many seeds (1000 where nothing else is said)
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "minutes"],
        value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Run this seed and print its events
    #[arg(long, value_name = "S", conflicts_with_all = ["minutes", "seed_base"])]
    seed: Option<u64>,
    /// Run seeds for so long, from the lowest one that no such run has done
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=MOST_MINUTES))]
    minutes: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "B")]
    seed_base: Option<u64>,
    /// Have hosts go and come back so many times over the worst network (with the seed of --seed-base)
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "seed", "minutes"],
        value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Of a long run.
    record: Option<Mutex<Record>>,
}

/// What the workers have found.
struct Found {
    progress: Progress,
    done: u64,
    events: u64,
    /// By name, in the order of the worker's table.
    counts: Vec<u64>,
    /// Seeds that failed, with the end of what they said.
    failures: BTreeMap<u64, String>,
}

impl Found {
    fn new(first: u64) -> Self {
        Self {
            progress: Progress::new(first),
            done: 0,
            events: 0,
            counts: Vec::new(),
            failures: BTreeMap::new(),
        }
    }
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
            let record = Record::new(file.clone(), first)?;
            let verdict = seeds(&program, first, u64::MAX - first, Some((deadline, record)));
            println!("{} has the results of all such runs", file.display());
            verdict
        }
        None => {
            let first = options.seed_base.unwrap_or(0);
            seeds(&program, first, options.seeds.unwrap_or(TEST_SEEDS), None)
        }
    }
}

/// The part of the tests.
pub fn test() -> Result<()> {
    seeds(&build()?, 0, TEST_SEEDS, None)
}

fn build() -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--locked", "--profile", "sim", "--package", "sim"]).current_dir(paths::root()?);
    Step::new("building the simulator", patient(command), 1200).run()?;
    Ok(paths::target()?.join("sim").join("sim"))
}

/// Runs `count` seeds; a long run as many as the time allows, with a record of them.
fn seeds(program: &Path, first: u64, count: u64, long: Option<(Instant, Record)>) -> Result<()> {
    let Some(end) = first.checked_add(count) else {
        bail!("there are no {count} seeds from {first} on: the last one is {}", u64::MAX - 1);
    };
    let (deadline, record) = long.unzip();
    let run = Run {
        program: program.to_path_buf(),
        next: AtomicU64::new(first),
        end,
        deadline,
        bar: bar(if deadline.is_some() { None } else { Some(count) }),
        found: Mutex::new(Found::new(first)),
        record: record.map(Mutex::new),
    };
    let worked = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| run.work())).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker's thread failed")))
    });
    run.bar.finish_and_clear();
    let found = run.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verdict = worked.and_then(|()| interrupt::check()).and_then(|()| judge(program, &found));
    if let Some(record) = run.record {
        let mut record = record.into_inner().unwrap_or_else(PoisonError::into_inner);
        record.end(found.progress.next(), &verdict)?;
    }
    verdict
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
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late || interrupt::pending() || self.has_failed() {
                return Ok(());
            }
            let Some(batch) = self.take_batch() else { return Ok(()) };
            batch.run(&self.program, |outcome| self.note(outcome))?;
            self.record()?;
        }
    }

    /// The next seeds, until there are no more.
    fn take_batch(&self) -> Option<Batch> {
        let after = |first: u64| (first < self.end).then(|| first.saturating_add(BATCH).min(self.end));
        let first = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).ok()?;
        Some(Batch { first, count: BATCH.min(self.end - first) })
    }

    /// Notes how far a long run has come.
    fn record(&self) -> Result<()> {
        let (Some(record), Ok(found)) = (&self.record, self.found.lock()) else { return Ok(()) };
        // The seeds are read under both locks: the other worker must not have noted more meanwhile.
        record.lock().map_or(Ok(()), |mut record| record.go_on(found.progress.next(), RECORD_EVERY))
    }

    fn has_failed(&self) -> bool {
        self.found.lock().is_ok_and(|found| !found.failures.is_empty())
    }

    fn note(&self, outcome: Outcome) {
        let Ok(mut found) = self.found.lock() else { return };
        match outcome {
            Outcome::Done { seed, events, counts } => {
                found.progress.done(seed);
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

/// Runs a failed seed again for its events. One that ends well then is a failure of its own: a seed has to replay.
fn failure(program: &Path, seed: u64, words: &str) -> Result<anyhow::Error> {
    let log = paths::logs()?.join(format!("sim-{seed}.log"));
    let file = std::fs::File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
    let mut command = Command::new(program);
    command.args(["trace", &seed.to_string(), "all"]).env("RUST_BACKTRACE", "0").env("PENSTOCK_LOG", "off");
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
    let again = crate::command::Guarded::spawn(&mut command)?.wait(REPLAY_LIMIT);
    interrupt::check()?;
    if again.is_ok_and(|status| status.success()) {
        return Ok(anyhow::anyhow!(
            "seed {seed} does not replay: it failed, and ended well when it was run again by itself\nwhat was said:\n{words}\nthe events of the run that ended well: {}",
            log.display()
        ));
    }
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

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn runs_of_nothing_are_refused() {
        for nothing in ["--seeds", "--minutes", "--cycles"] {
            assert!(<Line as clap::Parser>::try_parse_from(["sim", nothing, "0"]).is_err(), "{nothing}");
            let line = <Line as clap::Parser>::try_parse_from(["sim", nothing, "1"]).unwrap();
            assert!(line.options.seed.is_none());
        }
    }

    #[test]
    fn the_last_seeds_end_a_run() {
        let error = seeds(Path::new("true"), u64::MAX, 1, None).unwrap_err();
        assert!(error.to_string().contains("there are no 1 seeds"), "{error}");
        let run = Run {
            program: PathBuf::new(),
            next: AtomicU64::new(u64::MAX - 25),
            end: u64::MAX,
            deadline: None,
            bar: ProgressBar::hidden(),
            found: Mutex::new(Found::new(0)),
            record: None,
        };
        let batches: Vec<_> = std::iter::from_fn(|| run.take_batch()).take(5).collect();
        let ranges: Vec<_> = batches.iter().map(|batch| (batch.first, batch.count)).collect();
        assert_eq!(ranges, [(u64::MAX - 25, 20), (u64::MAX - 5, 5)]);
    }

    #[test]
    fn a_failed_seed_that_ends_well_does_not_replay() {
        let told = |program: &str| failure(Path::new(program), u64::MAX, "VIOLATION").unwrap().to_string();
        assert!(told("true").starts_with("seed 18446744073709551615 does not replay"));
        assert!(told("false").starts_with("seed 18446744073709551615 failed:\nVIOLATION"));
    }
}
