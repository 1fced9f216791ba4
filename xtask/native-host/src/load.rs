//! `load`: keeps a number of commands under way on each queue, and measures.

mod worker;

use worker::Plan;
pub use worker::{Limit, Pattern, Worker};

use crate::arguments::{Load, Target};
use crate::association::{Association, Queue};
use crate::report::Run;
use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the progress bar moves and the keep alive is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Commands that take longer count as that long.
const MAX_LATENCY_NS: u64 = 100_000_000_000;

/// What a phase did on one queue, or on all.
pub struct Stats {
    /// Of each command in nanoseconds.
    pub latency: Histogram<u64>,
    pub commands: u64,
}

impl Stats {
    pub fn new() -> Result<Self> {
        Ok(Self { latency: Histogram::new_with_max(MAX_LATENCY_NS, 3)?, commands: 0 })
    }
}

/// What the threads of a phase share.
#[derive(Default)]
pub struct Shared {
    /// One has failed: the others end.
    pub stop: AtomicBool,
    pub commands: AtomicU64,
}

/// Opens I/O queues 1 and up.
pub fn queues(association: &Association, count: u16, depth: u16) -> Result<Vec<Queue>> {
    (1..=count).map(|queue_id| association.io_queue(queue_id, depth)).collect()
}

/// Gives each queue its part of the area.
pub fn workers(association: &Association, queues: Vec<Queue>, options: &Load) -> Result<Vec<Worker>> {
    let namespace = association.namespace()?;
    let block_bytes = 1u32 << namespace.block_shift;
    let Load { bytes, depth, .. } = *options;
    ensure!(bytes > 0 && bytes % block_bytes == 0, "{bytes} bytes are not whole blocks of {block_bytes}");
    let most = association.info.max_transfer_bytes;
    ensure!(bytes <= most, "the controller takes at most {most} bytes in a command");
    let area_bytes = (options.area_mib << 20).min(namespace.blocks << namespace.block_shift);
    let places = area_bytes / u64::from(bytes) / queues.len().max(1) as u64;
    ensure!(places >= 2 * u64::from(depth), "the area has too few places for that depth");
    let plan = |position: usize| Plan {
        nsid: namespace.nsid,
        block_shift: namespace.block_shift,
        in_capsule_bytes: association.info.in_capsule_bytes,
        bytes,
        depth: usize::from(depth),
        first_place: places * position as u64,
        places,
        verify: options.verify,
        seed: options.seed,
    };
    Ok(queues.into_iter().enumerate().map(|(position, queue)| Worker::new(queue, plan(position))).collect())
}

/// Runs one phase on all queues; the progress bar and the keep alive go on meanwhile.
pub fn phase(
    association: &mut Association,
    workers: &mut [Worker],
    pattern: Pattern,
    limit: Limit,
    label: &str,
) -> Result<Stats> {
    let shared = Shared::default();
    let total = match limit {
        Limit::Time { .. } => None,
        Limit::Commands(each) => Some(each.saturating_mul(workers.len() as u64)),
    };
    let bar = bar(label, limit, total)?;
    let begun = Instant::now();
    let outcomes = std::thread::scope(|scope| {
        let start = |worker| {
            let shared = &shared;
            scope.spawn(move || {
                let outcome = Worker::run(worker, pattern, limit, shared);
                shared.stop.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            })
        };
        let threads: Vec<_> = workers.iter_mut().map(start).collect();
        let mut kept = Ok(());
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(TICK);
            bar.set_position(match total {
                Some(_) => shared.commands.load(Ordering::Relaxed),
                None => begun.elapsed().as_millis() as u64,
            });
            if kept.is_ok() {
                kept = association.tick();
                shared.stop.fetch_or(kept.is_err(), Ordering::Relaxed);
            }
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Stats>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        let outcomes: Vec<Result<Stats>> = threads.into_iter().map(join).collect();
        kept.map(|()| outcomes)
    })?;
    bar.finish_and_clear();
    let mut all = Stats::new()?;
    for outcome in outcomes {
        let stats = outcome?;
        all.latency.add(&stats.latency)?;
        all.commands += stats.commands;
    }
    Ok(all)
}

fn bar(label: &str, limit: Limit, total: Option<u64>) -> Result<ProgressBar> {
    let length = match limit {
        Limit::Time { warm_up, measured } => (warm_up + measured).as_millis() as u64,
        Limit::Commands(_) => total.unwrap_or(0),
    };
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {elapsed}")?;
    Ok(ProgressBar::new(length).with_style(style).with_message(label.to_owned()))
}

/// Runs the load and prints what it measured.
pub fn run(target: &Target, options: &Load) -> Result<()> {
    let mut association = Association::open(target, options.queues)?;
    let queues = queues(&association, options.queues, options.depth)?;
    let mut workers = workers(&association, queues, options)?;
    if options.verify {
        let all = Limit::Commands(u64::MAX);
        phase(&mut association, &mut workers, Pattern::WriteEach, all, "writing the area")?;
    }
    let pattern = Pattern::Mix { reads: options.reads, sequential: options.sequential };
    let limit = Limit::Time {
        warm_up: Duration::try_from_secs_f64(options.warm_up)?,
        measured: Duration::try_from_secs_f64(options.seconds)?,
    };
    for number in 1..=options.runs {
        let label = format!("run {number} of {}", options.runs);
        let stats = phase(&mut association, &mut workers, pattern, limit, &label)?;
        let run = Run::new(options, target.digests, &stats);
        println!("{}", if options.json { serde_json::to_string(&run)? } else { run.to_string() });
    }
    Ok(())
}
