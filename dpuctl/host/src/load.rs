//! A number of commands under way on each queue, measured, and their data judged where that is wanted.

mod worker;

pub use worker::{Limit, Pattern, Worker};

use crate::association::Association;
use crate::error::Error;
use crate::queue::Queue;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use nvmeof::initiator::NamespaceInfo;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use worker::Plan;

/// How often the progress bar moves and the keep alive is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Commands that take longer count as that long.
const MAX_LATENCY_NS: u64 = 100_000_000_000;

/// What a phase did on one queue, or on all.
pub struct Stats {
    /// Of each read in nanoseconds.
    pub reads: Histogram<u64>,
    /// Of each write.
    pub writes: Histogram<u64>,
    /// How long it was measured.
    pub measured: Duration,
}

impl Stats {
    fn new(measured: Duration) -> Self {
        let histogram = || Histogram::new_with_max(MAX_LATENCY_NS, 3).expect("these bounds have a histogram");
        Self { reads: histogram(), writes: histogram(), measured }
    }

    /// Reads and writes together.
    #[must_use]
    pub fn all(&self) -> Histogram<u64> {
        let mut all = self.reads.clone();
        all.add(&self.writes).expect("both have the same bounds");
        all
    }

    fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads).expect("both have the same bounds");
        self.writes.add(&other.writes).expect("both have the same bounds");
        self.measured = self.measured.max(other.measured);
    }
}

/// What the threads of a phase share.
#[derive(Default)]
struct Shared {
    /// One has failed: the others end.
    stop: AtomicBool,
    commands: AtomicU64,
}

/// Which part of a namespace is used, and by what commands.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// Bytes from the namespace's start; what is behind its end does not count.
    pub bytes: u64,
    /// Bytes of a command.
    pub command_bytes: u32,
    /// Commands under way on each queue.
    pub depth: u16,
    /// Whether reads are compared with what was written.
    pub verify: bool,
    /// Seed of places and contents.
    pub seed: u64,
}

/// Opens I/O queues 1 and up.
///
/// # Errors
/// Where one of them does not come up.
pub fn queues(association: &Association, count: u16, depth: u16) -> Result<Vec<Queue>, Error> {
    (1..=count).map(|queue_id| association.io_queue(queue_id, depth)).collect()
}

/// Gives each queue its part of the area.
///
/// # Errors
/// [`Error::Load`] where the commands do not fit the namespace.
pub fn workers(
    association: &Association,
    namespace: &NamespaceInfo,
    queues: Vec<Queue>,
    area: &Area,
) -> Result<Vec<Worker>, Error> {
    let block_bytes = 1u32 << namespace.block_shift;
    let Area { command_bytes, depth, .. } = *area;
    if command_bytes == 0 || command_bytes % block_bytes != 0 {
        let why = format!("{command_bytes} bytes are not whole blocks of {block_bytes}: use a multiple");
        return Err(Error::Load(why));
    }
    let most = association.info.max_transfer_bytes;
    if command_bytes > most {
        return Err(Error::Load(format!("the controller takes at most {most} bytes in a command")));
    }
    let area_bytes = area.bytes.min(namespace.blocks << namespace.block_shift);
    let places = area_bytes / u64::from(command_bytes) / queues.len().max(1) as u64;
    if places < 2 * u64::from(depth) {
        let why = "the area has too few places: use a larger one, smaller commands, or a smaller depth";
        return Err(Error::Load(why.to_owned()));
    }
    let plan = |position: usize| Plan {
        nsid: namespace.nsid,
        block_shift: namespace.block_shift,
        in_capsule_bytes: association.info.in_capsule_bytes,
        bytes: command_bytes,
        depth: usize::from(depth),
        first_place: places * position as u64,
        places,
        verify: area.verify,
        seed: area.seed,
    };
    Ok(queues.into_iter().enumerate().map(|(position, queue)| Worker::new(queue, plan(position))).collect())
}

/// Runs one phase on all queues; a progress bar and the keep alive go on meanwhile.
///
/// # Errors
/// The first of those that the queues had.
pub fn phase(
    association: &mut Association,
    workers: &mut [Worker],
    pattern: Pattern,
    limit: Limit,
    label: &str,
) -> Result<Stats, Error> {
    let shared = Shared::default();
    let total = total(workers, pattern, limit);
    let bar = bar(label, limit, total);
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
            let commands = shared.commands.load(Ordering::Relaxed);
            bar.set_position(total.map_or(begun.elapsed().as_millis() as u64, |_| commands));
            bar.set_message(format!("{:.0} IOPS", commands as f64 / begun.elapsed().as_secs_f64()));
            if kept.is_ok() {
                kept = association.tick();
                shared.stop.fetch_or(kept.is_err(), Ordering::Relaxed);
            }
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Stats, Error>>| {
            thread.join().unwrap_or(Err(Error::Panicked))
        };
        let outcomes: Vec<Result<Stats, Error>> = threads.into_iter().map(join).collect();
        kept.map(|()| outcomes)
    })?;
    bar.finish_and_clear();
    let mut all = Stats::new(Duration::ZERO);
    for outcome in outcomes {
        all.add(&outcome?);
    }
    Ok(all)
}

/// How many commands a phase has, where that is known.
fn total(workers: &[Worker], pattern: Pattern, limit: Limit) -> Option<u64> {
    let Limit::Commands(each) = limit else { return None };
    let of = |worker: &Worker| match pattern {
        Pattern::WriteEach | Pattern::ReadEach => each.min(worker.places()),
        Pattern::Mix { .. } => each,
    };
    Some(workers.iter().map(of).sum())
}

fn bar(label: &str, limit: Limit, total: Option<u64>) -> ProgressBar {
    let length = match limit {
        Limit::Time { warm_up, measured } => (warm_up + measured).as_millis() as u64,
        Limit::Commands(_) => total.unwrap_or(0),
    };
    let style = ProgressStyle::with_template("{prefix:24} {wide_bar} {percent:>3}% {elapsed} {msg:>14}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_prefix(label.to_owned())
}
