//! One queue's commands.

use super::{Shared, Stats};
use crate::buffers::{Buffers, Random, fill, mismatch};
use crate::error::Error;
use crate::queue::{COMMAND_LIMIT, Queue};
use nvmeof::initiator::{Completed, SubmitError, Transfer, commands};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the thread sleeps at most where sleep is wanted.
const SLEEP: Duration = Duration::from_millis(100);

/// What stays the same over the phases of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) nsid: u32,
    pub(super) block_shift: u8,
    pub(super) in_capsule_bytes: u32,
    /// Of a command, and of a place.
    pub(super) bytes: u32,
    pub(super) depth: usize,
    /// The queue's part of the area, in places.
    pub(super) first_place: u64,
    pub(super) places: u64,
    pub(super) verify: bool,
    pub(super) seed: u64,
}

/// Which commands a phase has.
#[derive(Debug, Clone, Copy)]
pub enum Pattern {
    /// A write of each place, in order.
    WriteEach,
    /// A read of each place, in order.
    ReadEach,
    /// Reads in so many percent, else writes.
    Mix {
        /// Percent of commands that read.
        reads: u8,
        /// One place after the other, instead of random ones.
        sequential: bool,
    },
}

/// When a phase ends.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After that time; commands submitted in the warm-up do not count.
    Time {
        /// It goes first.
        warm_up: Duration,
        /// It follows.
        measured: Duration,
    },
    /// After so many commands on each queue, or where each place had its turn.
    Commands(u64),
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    place: u64,
    write: bool,
    since: Instant,
}

/// A queue with its memory and its part of the area.
pub struct Worker {
    queue: Queue,
    plan: Plan,
    buffers: Buffers,
    /// By token.
    under_way: Vec<Option<UnderWay>>,
    free: Vec<u64>,
    /// Places with a command under way: two on one place would have no order.
    busy: Vec<bool>,
    /// How often each place was written; what stands in one that never was is not known.
    generations: Vec<u32>,
    random: Random,
    next_place: u64,
}

impl Worker {
    pub(super) fn new(queue: Queue, plan: Plan) -> Self {
        let mut random = Random(plan.seed ^ plan.first_place.rotate_left(17));
        Self {
            queue,
            plan,
            buffers: Buffers::new(plan.depth, plan.bytes as usize, &mut random),
            under_way: vec![None; plan.depth],
            free: (0..plan.depth as u64).collect(),
            busy: vec![false; plan.places as usize],
            generations: vec![0; plan.places as usize],
            random,
            next_place: 0,
        }
    }

    /// How many places its part of the area has.
    pub(super) const fn places(&self) -> u64 {
        self.plan.places
    }

    /// The same queue, for another plan.
    #[must_use]
    pub fn into_queue(self) -> Queue {
        self.queue
    }

    /// Runs a phase to its end; no command is under way afterwards.
    pub(super) fn run(&mut self, pattern: Pattern, limit: Limit, shared: &Shared) -> Result<Stats, Error> {
        let begun = Instant::now();
        let (measured_from, until, mut left) = match limit {
            Limit::Time { warm_up, measured } => {
                (begun + warm_up, Some(begun + warm_up + measured), u64::MAX)
            }
            Limit::Commands(count) => (begun, None, count),
        };
        let mut stats = Stats::new(until.map_or(Duration::ZERO, |until| until - measured_from));
        self.next_place = 0;
        let mut now = begun;
        let mut last_completion = begun;
        loop {
            let ended = until.is_some_and(|until| now >= until) || shared.stop.load(Ordering::Relaxed);
            while left > 0 && !ended && !self.free.is_empty() {
                if !self.submit(pattern, now)? {
                    left = 0;
                    break;
                }
                left -= 1;
            }
            if self.free.len() == self.plan.depth && (ended || left == 0) {
                return Ok(stats);
            }
            self.queue.poll(&mut self.buffers, SLEEP)?;
            now = Instant::now();
            while let Some(completed) = self.queue.host.take_completed() {
                last_completion = now;
                let UnderWay { since, write, .. } = self.completed(&completed)?;
                if since >= measured_from && until.is_none_or(|until| now < until) {
                    let latency = if write { &mut stats.writes } else { &mut stats.reads };
                    latency.saturating_record((now - since).as_nanos() as u64);
                }
                if until.is_none() {
                    stats.measured = now - begun;
                }
                shared.commands.fetch_add(1, Ordering::Relaxed);
            }
            if now - last_completion > COMMAND_LIMIT {
                return Err(Error::Slow("a command".to_owned(), COMMAND_LIMIT));
            }
        }
    }

    /// Starts a command; false where the pattern has none left.
    fn submit(&mut self, pattern: Pattern, now: Instant) -> Result<bool, Error> {
        let Some((place, write)) = self.choose(pattern) else { return Ok(false) };
        let token = self.free.pop().ok_or(Error::NotTaken(SubmitError::Full))?;
        let Plan { bytes, block_shift, nsid, seed, .. } = self.plan;
        let at = place as usize;
        let start_block = self.start_block(place);
        let blocks = bytes >> block_shift;
        let (command, transfer) = if write {
            self.generations[at] += 1;
            if self.plan.verify {
                let place = self.plan.first_place + place;
                fill(self.buffers.of(token), seed, place, self.generations[at]);
            }
            let transfer = commands::send_transfer(bytes, self.plan.in_capsule_bytes);
            (commands::write(nsid, start_block, blocks), transfer)
        } else {
            if self.plan.verify {
                // What the target does not send must not look like what it should have sent.
                self.buffers.of(token).fill(0);
            }
            (commands::read(nsid, start_block, blocks), Transfer::Receive(bytes))
        };
        self.queue.host.submit(token, &command, transfer).map_err(Error::NotTaken)?;
        self.busy[at] = true;
        self.under_way[token as usize] = Some(UnderWay { place, write, since: now });
        Ok(true)
    }

    /// A place without a command under way, and whether it is written.
    fn choose(&mut self, pattern: Pattern) -> Option<(u64, bool)> {
        let (reads, sequential) = match pattern {
            Pattern::WriteEach | Pattern::ReadEach => {
                let place = self.next_place;
                self.next_place += 1;
                let write = matches!(pattern, Pattern::WriteEach);
                return (place < self.plan.places).then_some((place, write));
            }
            Pattern::Mix { reads, sequential } => (reads, sequential),
        };
        let write = self.random.below(100) >= u64::from(reads);
        loop {
            let place = if sequential {
                self.next_place = (self.next_place + 1) % self.plan.places;
                self.next_place
            } else {
                self.random.below(self.plan.places)
            };
            if !self.busy[place as usize] {
                return Some((place, write));
            }
        }
    }

    /// A command ended: judges it, and returns what it was.
    fn completed(&mut self, completed: &Completed) -> Result<UnderWay, Error> {
        let token = completed.token;
        let command = self.under_way.get_mut(token as usize).and_then(Option::take);
        let command = command.ok_or(Error::Malformed("the end of a command that was not under way"))?;
        if !completed.status.is_success() {
            let what = if command.write { "a write" } else { "a read" };
            let blocks = self.plan.bytes >> self.plan.block_shift;
            let start_block = self.start_block(command.place);
            let what = format!("{what} of {blocks} blocks from block {start_block} on");
            return Err(Error::Command(what, completed.status));
        }
        if !command.write && self.plan.verify {
            self.judge(token, command.place)?;
        }
        self.busy[command.place as usize] = false;
        self.free.push(token);
        Ok(command)
    }

    /// Whether a place was read as it was written last.
    fn judge(&mut self, token: u64, place: u64) -> Result<(), Error> {
        let generation = self.generations[place as usize];
        if generation == 0 {
            return Ok(());
        }
        let Plan { nsid, block_shift, first_place, seed, .. } = self.plan;
        let bytes = self.buffers.of(token);
        let Some(offset) = mismatch(bytes, seed, first_place + place, generation) else { return Ok(()) };
        let start_block = self.start_block(place);
        let block = start_block + (offset >> block_shift) as u64;
        Err(Error::Mismatch { nsid, start_block, block, offset: offset % (1 << block_shift), seed })
    }

    fn start_block(&self, place: u64) -> u64 {
        (self.plan.first_place + place) * u64::from(self.plan.bytes >> self.plan.block_shift)
    }
}
