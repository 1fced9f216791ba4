//! The simulated drives' blocks: a durable layer, a volatile cache before it, operations that take virtual time, end out
//! of order, fail or hang, and a watch over the memory that a drive was given.
//!
//! While an operation runs, its memory is the drive's: nobody else may change it, and no other operation may write
//! there. Both are checked, also for operations that a reset ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use hal_api::Instant;
use hal_fakes::{Media, MediaEnd, MediaOperation, MediaRequest, Segment, gather, scatter};

use crate::kinds::Kind;
use crate::trace::{Trace, digest};
use crate::watch::{Over, Watch};

/// What ends within so many microseconds may end in the middle of a turn.
const TURN_US: u64 = 20;
/// A hang that no Abort ends is one of so many.
const STUBBORN_ONE_IN: u32 = 3;

/// The virtual clock, as devices see it.
#[derive(Debug, Clone, Default)]
pub struct Time {
    now: Arc<AtomicU64>,
    /// A core is in the middle of a turn, which takes a while.
    in_turn: Arc<AtomicBool>,
}

impl Time {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_micros(self.now.load(Ordering::Relaxed))
    }

    /// Time goes on.
    pub fn set(&self, now: Instant) {
        self.now.store(now.as_micros(), Ordering::Relaxed);
    }

    /// A core begins a turn, or ends it: devices work on meanwhile.
    pub fn set_in_turn(&self, in_turn: bool) {
        self.in_turn.store(in_turn, Ordering::Relaxed);
    }

    fn is_in_turn(&self) -> bool {
        self.in_turn.load(Ordering::Relaxed)
    }
}

/// How a drive behaves now.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// Shortest time of an operation in microseconds.
    pub least_us: u64,
    /// Longest time of most operations.
    pub most_us: u64,
    /// Times are multiplied by this.
    pub slowness: u64,
    /// Operations of a thousand that fail.
    pub failing: u32,
    /// Operations of ten thousand that never end.
    pub hanging: u32,
    /// No operation takes much longer than the others.
    pub even: bool,
}

/// What the namespaces of a drive share.
#[derive(Debug)]
struct Shared {
    next: Arc<AtomicU64>,
    time: Time,
    trace: Trace,
    watch: Watch,
    over: Over,
    random: Rng,
    temper: Temper,
    volatile: bool,
    sequence: u64,
    /// When an operation has begun last, as [`Over`] counts.
    begun: u64,
    power_losses: u32,
    /// Of the controller that is in use: others are pulled and do nothing.
    epoch: u32,
    /// How often something has hung, was given up, or a flush has failed since the power came on.
    troubles: u32,
    stores: Vec<Store>,
}

/// One namespace.
#[derive(Debug)]
struct Store {
    name: u16,
    block_bytes: usize,
    durable: Vec<u8>,
    /// Blocks that only the cache has, by number.
    cache: BTreeMap<u64, Cached>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Cached {
    data: Vec<u8>,
    /// When it was first dirty.
    sequence: u64,
}

/// An operation under way.
#[derive(Debug)]
struct Running {
    due_us: u64,
    /// It hangs, and an Abort changes nothing.
    stubborn: bool,
    sequence: u64,
    tag: u32,
    operation: MediaOperation,
    forced: bool,
    first: u64,
    blocks: u64,
    memory: Vec<Segment>,
    /// What stood in the memory when the operation began.
    digest: u64,
    /// What a write writes.
    data: Vec<u8>,
}

/// The hand of the simulator on a drive's blocks.
#[derive(Debug, Clone)]
pub struct Blocks {
    shared: Arc<Mutex<Shared>>,
    /// When the next operation ends, in microseconds.
    next: Arc<AtomicU64>,
}

/// One namespace's blocks as the drive's controller sees them.
#[derive(Debug)]
struct SimMedia {
    shared: Arc<Mutex<Shared>>,
    index: usize,
    epoch: u32,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Blocks {
    /// Namespaces of zeros, given by the world's name, the blocks and the block size in bytes of each.
    #[must_use]
    pub fn new(
        namespaces: &[(u16, u64, usize)],
        volatile: bool,
        temper: Temper,
        random: Rng,
        time: &Time,
        trace: &Trace,
        (watch, over): (&Watch, &Over),
    ) -> Self {
        let store = |&(name, blocks, block_bytes): &(u16, u64, usize)| Store {
            name,
            block_bytes,
            durable: vec![0; blocks as usize * block_bytes],
            cache: BTreeMap::new(),
            running: Vec::new(),
        };
        let next = Arc::new(AtomicU64::new(u64::MAX));
        let shared = Shared {
            next: Arc::clone(&next),
            time: time.clone(),
            trace: trace.clone(),
            watch: watch.clone(),
            over: over.clone(),
            random,
            temper,
            volatile,
            sequence: 0,
            begun: 0,
            power_losses: 0,
            epoch: 0,
            troubles: 0,
            stores: namespaces.iter().map(store).collect(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), next }
    }

    /// The media of all namespaces, in order, for a controller; the one before must be gone or pulled for good.
    #[must_use]
    pub fn media(&self) -> Vec<Box<dyn Media>> {
        let mut shared = lock(&self.shared);
        shared.epoch += 1;
        shared.troubles = 0;
        let epoch = shared.epoch;
        let media =
            |index| Box::new(SimMedia { shared: Arc::clone(&self.shared), index, epoch }) as Box<dyn Media>;
        (0..shared.stores.len()).map(media).collect()
    }

    /// How often something has hung, was given up, or a flush has failed since the power came on.
    #[must_use]
    pub fn troubles(&self) -> u32 {
        lock(&self.shared).troubles
    }

    /// When the next operation ends.
    #[must_use]
    pub fn next_end(&self) -> Instant {
        Instant::from_micros(self.next.load(Ordering::Relaxed))
    }

    /// What runs, except what hangs, takes longer: each operation by lot up to `most`.
    pub fn delay_running(&self, most: Duration) {
        let shared = &mut *lock(&self.shared);
        for running in shared.stores.iter_mut().flat_map(|store| &mut store.running) {
            running.due_us = running.due_us.saturating_add(shared.random.u64(0..=most.as_micros() as u64));
        }
        shared.note_next();
    }

    /// Changes how the drive behaves; what runs already keeps its time.
    pub fn set_temper(&self, change: impl FnOnce(&mut Temper)) {
        change(&mut lock(&self.shared).temper);
    }

    /// Whether operations take their usual time, end well, and all that run are due by then.
    #[must_use]
    pub fn behave(&self, by: Instant) -> bool {
        let shared = lock(&self.shared);
        let temper = shared.temper;
        let mut running = shared.stores.iter().flat_map(|store| &store.running);
        let late = running.any(|running| running.due_us > by.as_micros());
        !late && temper.failing == 0 && temper.hanging == 0 && temper.slowness == 1
    }

    /// How often the volatile cache was lost since the last call.
    #[must_use]
    pub fn take_power_losses(&self) -> u32 {
        core::mem::take(&mut lock(&self.shared).power_losses)
    }

    /// The power of the whole card goes: what runs is forgotten, and the cache is lost.
    pub fn cut_power(&self) {
        let mut shared = lock(&self.shared);
        for index in 0..shared.stores.len() {
            shared.abandon(index);
            shared.lose(index);
        }
    }
}

impl Shared {
    fn note_next(&self) {
        let running = self.stores.iter().flat_map(|store| &store.running);
        let next = running.map(|running| running.due_us).min().unwrap_or(u64::MAX);
        self.next.store(next, Ordering::Relaxed);
    }

    fn start(&mut self, index: usize, request: &MediaRequest<'_>) -> Option<u16> {
        self.sequence += 1;
        self.begun = self.over.moment();
        let due_us = self.due(request.operation);
        let store = &mut self.stores[index];
        let block_bytes = store.block_bytes as u64;
        let (first, blocks) = (request.offset_bytes / block_bytes, request.bytes / block_bytes);
        let mut data = vec![0; request.memory.iter().map(Segment::len).sum()];
        gather(request.memory, &mut data);
        let digest = digest(&data);
        self.watch.claim(request.memory, request.operation == MediaOperation::Read);
        self.trace.detail(
            Kind::MediaStart,
            &[store.name.into(), first, blocks, due_us],
            format_args!(
                "ns {} {:?} {first}+{blocks}{} until {due_us}",
                store.name,
                request.operation,
                if request.fua { " FUA" } else { "" }
            ),
        );
        let stubborn = due_us == u64::MAX && self.random.u32(0..STUBBORN_ONE_IN) == 0;
        store.running.push(Running {
            due_us,
            stubborn,
            sequence: self.sequence,
            tag: request.tag,
            operation: request.operation,
            forced: request.fua,
            first,
            blocks,
            memory: request.memory.to_vec(),
            digest,
            data,
        });
        self.next.fetch_min(due_us, Ordering::Relaxed);
        None
    }

    fn due(&mut self, operation: MediaOperation) -> u64 {
        let temper = self.temper;
        if self.random.u32(0..10_000) < temper.hanging {
            self.trace.event(Kind::CommandHangs, &[], format_args!("{operation:?}"));
            self.troubles += 1;
            return u64::MAX;
        }
        let mut micros = self.random.u64(temper.least_us..=temper.most_us.max(temper.least_us));
        if operation == MediaOperation::Flush {
            micros *= 10;
        }
        // A drive's own housekeeping.
        if !temper.even && self.random.u32(0..200) == 0 {
            micros *= 20;
        }
        if temper.slowness > 1 {
            self.trace.detail(Kind::MediaSlow, &[], format_args!("{operation:?}"));
        }
        self.time.now().as_micros() + micros * temper.slowness
    }

    /// Ends the operation that is due first.
    fn poll(&mut self, index: usize) -> Option<MediaEnd> {
        let next = self.next.load(Ordering::Relaxed);
        let mut now = self.time.now().as_micros();
        if self.time.is_in_turn() && next > now && next <= now + TURN_US && self.random.u32(0..4) == 0 {
            self.trace.detail(Kind::MediaInTurn, &[next], format_args!("until {next}"));
            now = next;
        }
        if next > now {
            return None;
        }
        let store = &mut self.stores[index];
        let due = store.running.iter().enumerate().filter(|(_, running)| running.due_us <= now);
        let (place, _) = due.min_by_key(|(_, running)| (running.due_us, running.sequence))?;
        let running = store.running.swap_remove(place);
        self.note_next();
        let status = self.finish(index, &running);
        self.trace.detail(
            Kind::MediaEnd,
            &[self.stores[index].name.into(), running.first, status.into()],
            format_args!(
                "ns {} {:?} {} status {status:#x}",
                self.stores[index].name, running.operation, running.first
            ),
        );
        Some(MediaEnd { tag: running.tag, status })
    }

    /// An Abort: some of what hangs ends.
    fn abort(&mut self, index: usize, tag: u32) -> u32 {
        let helped =
            |running: &Running| running.tag == tag && running.due_us == u64::MAX && !running.stubborn;
        let mut ended = 0;
        while let Some(place) = self.stores[index].running.iter().position(helped) {
            let running = self.stores[index].running.swap_remove(place);
            self.give_up(index, &running);
            ended += 1;
        }
        ended
    }

    /// An Abort that comes too late: what hangs goes on.
    fn let_go(&mut self, index: usize, tag: u32) {
        let now = self.time.now().as_micros();
        for running in &mut self.stores[index].running {
            if running.tag == tag && running.due_us == u64::MAX && !running.stubborn {
                running.due_us = now;
            }
        }
        self.note_next();
    }

    fn finish(&mut self, index: usize, running: &Running) -> u16 {
        self.check(running);
        if self.random.u32(0..1000) < self.temper.failing {
            return self.fail(index, running);
        }
        let store = &mut self.stores[index];
        match running.operation {
            MediaOperation::Read => {
                let mut data = Vec::with_capacity(running.blocks as usize * store.block_bytes);
                (0..running.blocks)
                    .for_each(|block| data.extend_from_slice(store.block(running.first + block)));
                scatter(&running.memory, &data);
            }
            MediaOperation::Flush => self.flush(index, running.sequence),
            _ => {
                for block in 0..running.blocks {
                    self.put(index, running, block);
                }
            }
        }
        0
    }

    /// An error status of any class; a write may have happened in part.
    fn fail(&mut self, index: usize, running: &Running) -> u16 {
        let changes = !matches!(running.operation, MediaOperation::Read | MediaOperation::Flush);
        self.troubles += u32::from(running.operation == MediaOperation::Flush);
        for block in 0..running.blocks {
            if changes && self.random.bool() {
                self.put(index, running, block);
            }
        }
        let status = ERRORS[self.random.usize(0..ERRORS.len())];
        let name = self.stores[index].name;
        self.trace.event(
            Kind::MediaError,
            &[name.into(), status.into()],
            format_args!("ns {name} {:?} {} status {status:#x}", running.operation, running.first),
        );
        status
    }

    /// One block of a write reaches the cache or, where it must, what is durable.
    fn put(&mut self, index: usize, running: &Running, block: u64) {
        let lba = running.first + block;
        let (volatile, forced) = (self.volatile, running.forced);
        let through = !volatile || forced || self.random.u32(0..8) == 0;
        let store = &mut self.stores[index];
        let bytes = store.block_bytes;
        let at = block as usize * bytes;
        let zeros = vec![0; bytes];
        let data = running.data.get(at..at + bytes).unwrap_or(&zeros);
        self.over.check(data, lba, self.begun);
        if through {
            store.cache.remove(&lba);
            store.durable[lba as usize * bytes..][..bytes].copy_from_slice(data);
            return;
        }
        self.sequence += 1;
        let cached = Cached { data: data.to_vec(), sequence: self.sequence };
        match store.cache.entry(lba) {
            std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().data = cached.data,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(cached);
                self.trace.detail(Kind::CacheFilled, &[lba], format_args!("ns {} block {lba}", store.name));
            }
        }
    }

    /// What was cached before the flush began becomes durable; what came since may wait.
    fn flush(&mut self, index: usize, since: u64) {
        let store = &mut self.stores[index];
        let bytes = store.block_bytes;
        let due: Vec<u64> =
            store.cache.iter().filter(|(_, cached)| cached.sequence < since).map(|(&lba, _)| lba).collect();
        for lba in &due {
            if let Some(cached) = store.cache.remove(lba) {
                store.durable[*lba as usize * bytes..][..bytes].copy_from_slice(&cached.data);
            }
        }
        if !due.is_empty() {
            self.trace.detail(Kind::CacheFlushed, &[due.len() as u64], format_args!("ns {}", store.name));
        }
    }

    /// The memory of an operation must be as it was.
    fn check(&self, running: &Running) {
        let mut data = vec![0; running.data.len()];
        gather(&running.memory, &mut data);
        assert!(
            digest(&data) == running.digest,
            "VIOLATION: memory of a running {:?} of block {} was changed by somebody else",
            running.operation,
            running.first
        );
        self.watch.release(&running.memory, running.operation == MediaOperation::Read);
    }

    /// A reset: the memory was the drive's until now, and of a write any block may have been written.
    fn abandon(&mut self, index: usize) {
        let running = core::mem::take(&mut self.stores[index].running);
        self.note_next();
        running.iter().for_each(|running| self.give_up(index, running));
        if !running.is_empty() {
            self.troubles += 1;
            let (name, count) = (self.stores[index].name, running.len() as u64);
            self.trace.event(
                Kind::MediaAbandoned,
                &[name.into(), count],
                format_args!("ns {name}, {count} operations"),
            );
        }
    }

    /// An operation that ends before its time: it may still have been writing, to memory or to blocks.
    fn give_up(&mut self, index: usize, running: &Running) {
        self.check(running);
        match running.operation {
            MediaOperation::Read => scatter(&running.memory, &vec![0xde; running.data.len()]),
            MediaOperation::Flush => (),
            _ => {
                for block in 0..running.blocks {
                    if self.random.bool() {
                        self.put(index, running, block);
                    }
                }
            }
        }
    }

    /// Each cached block either has just become durable, or is lost.
    fn lose(&mut self, index: usize) {
        let store = &mut self.stores[index];
        let bytes = store.block_bytes;
        let mut lost = 0;
        for (lba, cached) in core::mem::take(&mut store.cache) {
            if self.random.bool() {
                store.durable[lba as usize * bytes..][..bytes].copy_from_slice(&cached.data);
            } else {
                lost += 1;
            }
        }
        self.power_losses += 1;
        if lost > 0 {
            self.trace.event(Kind::CacheLost, &[lost], format_args!("ns {}, {lost} blocks", store.name));
        }
    }
}

impl Store {
    fn block(&self, lba: u64) -> &[u8] {
        match self.cache.get(&lba) {
            Some(cached) => &cached.data,
            None => &self.durable[lba as usize * self.block_bytes..][..self.block_bytes],
        }
    }
}

impl SimMedia {
    /// The blocks, unless another controller has them.
    fn ours(&self) -> Option<MutexGuard<'_, Shared>> {
        Some(lock(&self.shared)).filter(|shared| shared.epoch == self.epoch)
    }
}

impl Media for SimMedia {
    fn bytes(&self) -> u64 {
        lock(&self.shared).stores[self.index].durable.len() as u64
    }

    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16> {
        lock(&self.shared).start(self.index, request)
    }

    fn poll(&mut self) -> Option<MediaEnd> {
        self.ours()?.poll(self.index)
    }

    fn abandon(&mut self) {
        if let Some(mut shared) = self.ours() {
            shared.abandon(self.index);
        }
    }

    fn abort(&mut self, tag: u32) -> u32 {
        self.ours().map_or(0, |mut shared| shared.abort(self.index, tag))
    }

    fn let_go(&mut self, tag: u32) {
        if let Some(mut shared) = self.ours() {
            shared.let_go(self.index, tag);
        }
    }

    fn lose_power(&mut self) {
        if let Some(mut shared) = self.ours() {
            shared.lose(self.index);
        }
    }

    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]) {
        let shared = lock(&self.shared);
        let store = &shared.stores[self.index];
        for (index, byte) in into.iter_mut().enumerate() {
            let at = offset_bytes as usize + index;
            *byte = store.block((at / store.block_bytes) as u64)[at % store.block_bytes];
        }
    }

    fn poke(&mut self, offset_bytes: u64, from: &[u8]) {
        let mut shared = lock(&self.shared);
        let store = &mut shared.stores[self.index];
        store.cache.clear();
        store.durable[offset_bytes as usize..][..from.len()].copy_from_slice(from);
    }
}

/// Statuses of every class, with and without DNR (Base 4.2.3): what a drive may answer.
const ERRORS: [u16; 16] = [
    0x0004, 0x0006, 0x0007, 0x0021, 0x0022, 0x0080, 0x0082, 0x4006, 0x0105, 0x0180, 0x0280, 0x0281, 0x4281,
    0x0286, 0x0301, 0x0770,
];
