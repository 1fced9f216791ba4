//! One queue's commands.

use super::{Shared, Stats};
use crate::association::{COMMAND_LIMIT, Queue};
use crate::buffers::{Buffers, Random, fill, mismatch};
use anyhow::{Result, anyhow, bail, ensure};
use nvmeof::initiator::{Completed, Transfer, commands};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the thread sleeps at most where sleep is wanted.
const SLEEP: Duration = Duration::from_millis(100);

/// What stays the same over the phases of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub nsid: u32,
    pub block_shift: u8,
    pub in_capsule_bytes: u32,
    /// Of a command, and of a place.
    pub bytes: u32,
    pub depth: usize,
    /// The queue's part of the area, in places.
    pub first_place: u64,
    pub places: u64,
    pub verify: bool,
    pub seed: u64,
}

/// Which commands a phase has.
#[derive(Debug, Clone, Copy)]
pub enum Pattern {
    /// A write of each place, in order.
    WriteEach,
    /// A read of each place, in order.
    ReadEach,
    /// Reads in so many percent, else writes.
    Mix { reads: u8, sequential: bool },
}

/// When a phase ends.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After that time; commands submitted in the warm-up do not count.
    Time { warm_up: Duration, measured: Duration },
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
    pub fn new(queue: Queue, plan: Plan) -> Self {
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

    /// The same queue with another plan.
    pub fn into_queue(self) -> Queue {
        self.queue
    }

    /// Runs a phase to its end; no command is under way afterwards.
    pub fn run(&mut self, pattern: Pattern, limit: Limit, shared: &Shared) -> Result<Stats> {
        let mut stats = Stats::new()?;
        let begun = Instant::now();
        let (measured_from, until, mut left) = match limit {
            Limit::Time { warm_up, measured } => {
                (begun + warm_up, Some(begun + warm_up + measured), u64::MAX)
            }
            Limit::Commands(count) => (begun, None, count),
        };
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
                let since = self.completed(&completed)?;
                if since >= measured_from && until.is_none_or(|until| now < until) {
                    stats.commands += 1;
                    stats.latency.saturating_record((now - since).as_nanos() as u64);
                }
                shared.commands.fetch_add(1, Ordering::Relaxed);
            }
            ensure!(now - last_completion < COMMAND_LIMIT, "no command ends within {COMMAND_LIMIT:?}");
        }
    }

    /// Starts a command; false where the pattern has none left.
    fn submit(&mut self, pattern: Pattern, now: Instant) -> Result<bool> {
        let Some((place, write)) = self.choose(pattern) else { return Ok(false) };
        let Some(token) = self.free.pop() else { bail!("no token is free") };
        let Plan { bytes, block_shift, nsid, seed, .. } = self.plan;
        let at = place as usize;
        let start_block = (self.plan.first_place + place) * u64::from(bytes >> block_shift);
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
        let submitted = self.queue.host.submit(token, &command, transfer);
        submitted.map_err(|error| anyhow!("a command was not taken: {error:?}"))?;
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

    /// A command ended: judges it, and returns when it began.
    fn completed(&mut self, completed: &Completed) -> Result<Instant> {
        let token = completed.token;
        let command = self.under_way.get_mut(token as usize).and_then(Option::take);
        let UnderWay { place, write, since } =
            command.ok_or_else(|| anyhow!("a command ended that was not under way"))?;
        let what = if write { "write" } else { "read" };
        let at = place as usize;
        let place = self.plan.first_place + place;
        ensure!(completed.status.is_success(), "{what} of place {place}: {:?}", completed.status);
        if !write && self.plan.verify && self.generations[at] > 0 {
            let bytes = self.buffers.of(token);
            if let Some(offset) = mismatch(bytes, self.plan.seed, place, self.generations[at]) {
                bail!(
                    "place {place} of {} bytes reads wrong from byte {offset} on, seed {}",
                    self.plan.bytes,
                    self.plan.seed
                );
            }
        }
        self.busy[at] = false;
        self.free.push(token);
        Ok(since)
    }
}
