//! The target: connections, their command slots, and which of them have something to do.

use core::net::IpAddr;

use controller::{Backend, ControllerHandle, IoCompletion, PortId, QueueContext, Subsystem};
use hal_api::Instant;
use hal_mem::{Arena, OutOfMemory, PAGE_BYTES};
use message::{MeterPage, MeterPlace, TraceLog, TracePage, TraceSettings};

use crate::meters::Meters;
use crate::queue::{Phase, Queue, SETUP_TIMEOUT};
use crate::range_locks::RangeLocks;
use crate::slots::{NONE, Slot, SlotState, Slots};
use crate::stream::Stream;
use crate::turn::{Effects, Environment, Fence, Turn};

/// How much a target may hold; everything is taken from the arena at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections, those included that only wait for their commands to come back from drives.
    pub connections: u16,
    /// Command slots: one for each connection before its Connect, then one for each entry of its queue.
    pub slots: u16,
    /// Pages of data, besides in-capsule data, that the commands of one connection may hold; fewer while the pool
    /// has less than that left. A single command may exceed it, so that a low ceiling delays but never blocks.
    pub data_pages_per_connection: u32,
    /// Connections of hosts with the same address, so that one address cannot keep all others out.
    pub connections_per_address: u16,
    /// Controllers of hosts with the same address, for the same reason.
    pub controllers_per_address: u16,
    /// Namespaces whose commands are counted; those beyond it are not.
    pub namespace_meters: u16,
    /// Commands that are remembered as samples, and as many that were slow.
    pub traces: u16,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// All places are taken.
    Full,
    /// The address has as many connections as one may have.
    AddressLimit,
}

/// A connection of a [`Target`], from [`Target::open`] until it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueIndex(pub u16);

/// Whether a connection lives on after a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Poll it again when bytes or room come, or when it is ready.
    Open,
    /// The target is done with it and told the stream to close or abort; its index is no longer valid.
    Closed,
}

/// What a poll did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What was received and sent, as the budget counts it.
    pub work: u32,
    /// Whether the connection lives on.
    pub state: ConnectionState,
}

/// What is in use, counted from the free lists so that a leak shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Slots on the free list.
    pub slots_free: u16,
    /// All slots.
    pub slots_total: u16,
    /// Connections with a peer.
    pub connections: u16,
    /// Connections without a peer whose commands are still at drives.
    pub draining: u16,
    /// All places for connections.
    pub connections_total: u16,
    /// Connections that are an I/O queue of a controller.
    pub io_queues: u16,
}

/// Events since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections opened.
    pub opened: u64,
    /// Connections refused for want of a place.
    pub refused: u64,
    /// Connections ended with a TermReq of ours.
    pub terminated: u64,
    /// Connections aborted because the host was too slow.
    pub timed_out: u64,
    /// Wrong header and data digests.
    pub digest_errors: u64,
    /// Command capsules.
    pub commands: u64,
    /// Connects that waited until writes of their host's lost connections had ended.
    pub held_connects: u64,
}

/// What a connection takes of what one address may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub peer: Option<IpAddr>,
    /// It is the admin queue of a controller.
    pub is_admin: bool,
    /// Slots that are promised to it.
    pub slots: u16,
}

impl Share {
    const NONE: Self = Self { peer: None, is_admin: false, slots: 0 };
}

/// The NVMe/TCP target of one core.
#[derive(Debug)]
pub struct Target {
    pub(crate) queues: &'static mut [Queue],
    pub(crate) slots: Slots,
    pub(crate) fences: &'static mut [Fence],
    pub(crate) locks: &'static mut RangeLocks,
    shares: &'static mut [Share],
    /// Bit n of the words: connection n has work.
    pub(crate) ready: &'static mut [u64],
    /// Those with commands that wait for pages, for the backend, or for old writes to end.
    waiting: &'static mut [u64],
    scratch: &'static mut [u8; PAGE_BYTES],
    limits: Limits,
    counters: Counters,
    pub(crate) meters: Meters,
    /// Connections lost with writes at drives, so far.
    pub(crate) lost_connections: u32,
    /// The card shuts down: until when commands may be finished.
    finish_by: Option<Instant>,
}

impl Target {
    /// A target without connections.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small for the limits.
    pub fn new(arena: &mut Arena, limits: Limits) -> Result<Self, OutOfMemory> {
        let connections = usize::from(limits.connections);
        Ok(Self {
            queues: arena.slice(connections, |_| Queue::new())?,
            slots: Slots::new(arena.slice(usize::from(limits.slots), |_| Slot::new(NONE))?),
            fences: arena.slice(connections, |_| Fence::default())?,
            locks: arena.value(RangeLocks::new())?,
            shares: arena.slice(connections, |_| Share::NONE)?,
            ready: arena.slice(connections.div_ceil(64), |_| 0)?,
            waiting: arena.slice(connections.div_ceil(64), |_| 0)?,
            scratch: arena.value([0; PAGE_BYTES])?,
            limits,
            counters: Counters::default(),
            meters: Meters::new(arena, &limits)?,
            lost_connections: 0,
            finish_by: None,
        })
    }

    /// A TCP connection was accepted at `port`.
    ///
    /// # Errors
    /// [`Refusal`] when there is no place for it: abort it then.
    pub fn open(&mut self, now: Instant, port: PortId, peer: Option<IpAddr>) -> Result<QueueIndex, Refusal> {
        // Also those that are lost and wait for commands at a drive: else one address could hold all places while a drive hangs.
        let taken = self.queues.iter().filter(|queue| queue.phase != Phase::Free && queue.peer == peer);
        let same_peer = taken.count();
        if peer.is_some() && same_peer >= usize::from(self.limits.connections_per_address) {
            self.counters.refused += 1;
            return Err(Refusal::AddressLimit);
        }
        let free = self.queues.iter_mut().enumerate().find(|(_, queue)| queue.phase == Phase::Free);
        let Some((index, queue)) = free.filter(|_| self.slots.reserve(1)) else {
            self.counters.refused += 1;
            return Err(Refusal::Full);
        };
        *queue = Queue::new();
        queue.phase = Phase::AwaitingInitialize;
        (queue.port, queue.peer) = (port, peer);
        queue.deadline = now + SETUP_TIMEOUT;
        queue.reserved_slots = 1;
        if let Some(share) = self.shares.get_mut(index) {
            *share = Share { peer, is_admin: false, slots: 1 };
        }
        self.counters.opened += 1;
        Ok(QueueIndex(index as u16))
    }

    /// The I/O queues that are open here, by CNTLID and number.
    pub fn io_queues(&self) -> impl Iterator<Item = (u16, u16)> {
        let open = self.queues.iter().filter(|queue| queue.is_open());
        let io = |queue: &Queue| Some((queue.cntlid, queue.context?.queue_id)).filter(|(_, id)| *id > 0);
        open.filter_map(io)
    }

    /// Receives, works and sends for one connection, each way at most about `budget_bytes`, where a PDU counts 1 KiB besides
    /// its data. Call it when the stream has bytes or regained room, and when the connection
    /// [is ready](Self::next_ready).
    pub fn poll<B: Backend>(
        &mut self,
        index: QueueIndex,
        now: Instant,
        stream: &mut impl Stream,
        env: &mut Environment<'_, B>,
        budget_bytes: u32,
    ) -> Progress {
        self.set_ready(index.0, false);
        let closed = Progress { work: 0, state: ConnectionState::Closed };
        let Some(mut turn) = self.turn(index.0, now, env, budget_bytes) else { return closed };
        if !turn.queue.is_open() {
            return closed;
        }
        if turn.overdue() {
            stream.abort();
            self.closed(index, now, env);
            return closed;
        }
        let (work, more) = turn.exchange(stream);
        let ended = turn.queue.is_finished() && !turn.queue.has_output();
        let waits = turn.queue.is_waiting() || turn.queue.parked_connect.is_some();
        let effects = core::mem::take(&mut turn.effects);
        self.fence(index.0);
        set_bit(self.waiting, index.0, waits);
        if more {
            self.set_ready(index.0, true);
        }
        self.apply(effects, now, env);
        if !ended {
            return Progress { work, state: ConnectionState::Open };
        }
        stream.close();
        self.closed(index, now, env);
        Progress { work, state: ConnectionState::Closed }
    }

    /// The TCP connection is gone without the target's doing. The index is not valid any more afterwards, but
    /// its commands at drives still come home through [`Target::complete`].
    pub fn closed<B: Backend>(&mut self, index: QueueIndex, now: Instant, env: &mut Environment<'_, B>) {
        let Some(mut turn) = self.turn(index.0, now, env, 0) else { return };
        if !turn.queue.is_open() {
            return;
        }
        let context = turn.queue.context;
        turn.abandon();
        self.note_lost(index.0);
        if let Some(context) = context {
            if context.queue_id == 0 {
                env.subsystem.forget_parked(context.controller);
            }
            env.subsystem.disconnect_queue(context.controller, context.queue_id);
            if context.queue_id == 0 {
                self.wake_controller(context.controller);
            }
        }
        self.set_ready(index.0, false);
        set_bit(self.waiting, index.0, false);
        self.release_if_drained(index.0, env);
        self.wake_waiting();
    }

    /// A block request came back from the backend.
    pub fn complete<B: Backend>(
        &mut self,
        completion: IoCompletion,
        now: Instant,
        env: &mut Environment<'_, B>,
    ) {
        let slot = completion.token as u16;
        let queue = match self.slots.get(slot) {
            Some(slot) if slot.state == SlotState::AtBackend => slot.queue,
            _ => {
                debug_assert!(false, "a completion for a command that is not at the backend");
                if let Some(pages) = completion.pages {
                    env.pool.give_back(pages);
                }
                return;
            }
        };
        let Some(mut turn) = self.turn(queue, now, env, 0) else { return };
        turn.completed(slot, completion);
        let drains = turn.queue.phase == Phase::Draining;
        let effects = core::mem::take(&mut turn.effects);
        self.fence(queue);
        self.apply(effects, now, env);
        if !drains {
            self.set_ready(queue, true);
            return;
        }
        self.release_if_drained(queue, env);
    }

    /// Keep alive, asynchronous events, deadlines, and another try for whoever waits. Call it a few times a
    /// second, and after namespaces or listeners have changed; afterwards poll what is ready.
    pub fn tick<B: Backend>(&mut self, now: Instant, env: &mut Environment<'_, B>) {
        env.subsystem.tick(now);
        env.subsystem.watch_health(&*env.backend);
        for index in 0..self.queues.len() as u16 {
            let Some(mut turn) = self.turn(index, now, env, 0) else { continue };
            if !turn.queue.is_open() {
                continue;
            }
            if turn.queue.parked > 0 {
                turn.take_events();
            }
            let live =
                turn.queue.context.is_none_or(|context| turn.env.subsystem.is_live(context.controller));
            let due = !live || now >= turn.queue.next_deadline() || turn.queue.has_output();
            if !live {
                self.note_lost(index);
            }
            if due {
                self.set_ready(index, true);
            }
        }
        self.wake_waiting();
        self.finish_queues(now, env.subsystem);
    }

    /// The card shuts down: no command is taken from I/O queues any more; those inside are finished until `deadline`
    /// at the latest, then the connections are closed, those of admin queues last. [`Target::tick`] goes on with it;
    /// it is over when [`Target::counts`] has no connections. The caller opens no new ones.
    pub fn begin_shutdown(&mut self, now: Instant, deadline: Instant, subsystem: &Subsystem) {
        self.finish_by = Some(deadline);
        self.finish_queues(now, subsystem);
    }

    fn finish_queues(&mut self, now: Instant, subsystem: &Subsystem) {
        let Some(deadline) = self.finish_by else { return };
        // A controller goes with its admin queue, and its I/O queues with it.
        let has_io = self.queues.iter().any(|queue| queue.is_open() && queue.queue_id() != Some(0));
        let elsewhere = |context: QueueContext| subsystem.has_queues_elsewhere(context.controller);
        for (index, queue) in self.queues.iter_mut().enumerate() {
            match (queue.phase, queue.queue_id()) {
                (Phase::Live, Some(0)) if has_io || queue.context.is_some_and(elsewhere) => continue,
                (Phase::Live, _) => {
                    queue.phase = Phase::Finishing;
                    queue.deadline = deadline;
                }
                (Phase::AwaitingInitialize | Phase::AwaitingConnect, _) => queue.start_closing(now),
                _ => continue,
            }
            set_bit(self.ready, index as u16, true);
        }
    }

    /// Bytes or room came for a connection: it will be among the ready ones.
    pub fn wake(&mut self, index: QueueIndex) {
        self.set_ready(index.0, true);
    }

    /// Whether a connection has something to do even if its stream brings nothing.
    #[must_use]
    pub fn has_work(&self, index: QueueIndex) -> bool {
        let (word, bit) = place(index.0);
        self.ready.get(word).is_some_and(|word| word & bit != 0)
    }

    /// The first ready connection at or after `from`, then from the start: call it with one more than the last
    /// result to be fair. `None` when none is ready.
    #[must_use]
    pub fn next_ready(&self, from: QueueIndex) -> Option<QueueIndex> {
        let words = self.ready.len();
        let (first, bit) = place(from.0);
        for step in 0..=words {
            let at = (first + step) % words.max(1);
            let mut word = self.ready.get(at).copied().unwrap_or(0);
            if step == 0 && first < words {
                word &= !(bit - 1);
            }
            if word != 0 {
                return Some(QueueIndex((at * 64) as u16 + word.trailing_zeros() as u16));
            }
        }
        None
    }

    /// Whether one is ready.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.ready.iter().any(|word| *word != 0)
    }

    /// When [`Target::tick`] has to be called at the latest for the sake of a deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let open = self.queues.iter().filter(|queue| queue.is_open());
        open.map(Queue::next_deadline).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// What is in use now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            slots_free: self.slots.free(),
            slots_total: self.slots.total(),
            connections: 0,
            draining: 0,
            connections_total: self.queues.len() as u16,
            io_queues: 0,
        };
        // Asked for in every tick: one walk, which most places end at once.
        for queue in self.queues.iter().filter(|queue| queue.phase != Phase::Free) {
            counts.connections += u16::from(queue.is_open());
            counts.draining += u16::from(queue.phase == Phase::Draining);
            let is_io = queue.carries_out() && queue.context.is_some_and(|of| of.queue_id > 0);
            counts.io_queues += u16::from(is_io);
        }
        counts
    }

    /// Whether some fused pair has blocks for itself.
    #[cfg(test)]
    pub(crate) fn holds_locks(&self) -> bool {
        !self.locks.is_empty()
    }

    /// Events since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// A piece of what was counted of commands to namespaces: the one at a place, or the first behind it.
    #[must_use]
    pub fn meter_page(&self, from: MeterPlace) -> Option<MeterPage> {
        self.meters.page(from)
    }

    /// Commands that are remembered in a log, from a number on.
    #[must_use]
    pub fn traces(&self, log: TraceLog, from: u64) -> TracePage {
        self.meters.traces(log, from)
    }

    /// Which commands are remembered.
    #[must_use]
    pub const fn trace_settings(&self) -> TraceSettings {
        self.meters.settings()
    }

    /// Says which commands are to be remembered from now on.
    pub const fn set_trace_settings(&mut self, settings: TraceSettings) {
        self.meters.set(settings);
    }

    /// The peer of a connection.
    #[must_use]
    pub fn peer(&self, index: QueueIndex) -> Option<IpAddr> {
        self.queues.get(usize::from(index.0)).and_then(|queue| queue.peer)
    }

    pub(crate) fn turn<'a, 'e, B: Backend>(
        &'a mut self,
        index: u16,
        now: Instant,
        env: &'a mut Environment<'e, B>,
        budget_bytes: u32,
    ) -> Option<Turn<'a, 'e, B>> {
        Some(Turn {
            index,
            now,
            queue: self.queues.get_mut(usize::from(index))?,
            slots: &mut self.slots,
            fences: self.fences,
            locks: self.locks,
            scratch: self.scratch,
            counters: &mut self.counters,
            meters: &mut self.meters,
            env,
            shares: self.shares,
            controllers_per_address: self.limits.controllers_per_address,
            page_ceiling: self.limits.data_pages_per_connection,
            budget_bytes,
            effects: Effects::default(),
        })
    }

    fn apply<B: Backend>(&mut self, effects: Effects, now: Instant, env: &mut Environment<'_, B>) {
        if effects.freed {
            self.wake_waiting();
        }
        if let Some(controller) = effects.reset {
            self.close_io_queues(controller, now, env);
        }
        if let Some(host_id) = effects.returning {
            self.lose_closed(now, env.subsystem, host_id);
        }
    }

    /// A controller was reset: its I/O queues no longer exist.
    fn close_io_queues<B: Backend>(
        &mut self,
        controller: ControllerHandle,
        now: Instant,
        env: &mut Environment<'_, B>,
    ) {
        for index in 0..self.queues.len() as u16 {
            let Some(mut turn) = self.turn(index, now, env, 0) else { continue };
            let is_io = turn
                .queue
                .context
                .is_some_and(|context| context.controller == controller && context.queue_id != 0);
            if is_io && turn.queue.is_open() {
                turn.start_closing();
                self.note_lost(index);
                self.set_ready(index, true);
            }
        }
        self.wake_waiting();
    }

    fn wake_controller(&mut self, controller: ControllerHandle) {
        for index in 0..self.queues.len() as u16 {
            let queue = self.queues.get(usize::from(index));
            let affected = queue.is_some_and(|queue| {
                queue.is_open() && queue.context.is_some_and(|context| context.controller == controller)
            });
            if affected {
                self.note_lost(index);
                self.set_ready(index, true);
            }
        }
    }

    pub(crate) fn wake_waiting(&mut self) {
        for (ready, waiting) in self.ready.iter_mut().zip(self.waiting.iter()) {
            *ready |= waiting;
        }
    }

    fn release_if_drained<B: Backend>(&mut self, index: u16, env: &mut Environment<'_, B>) {
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return };
        if queue.phase != Phase::Draining || queue.at_backend > 0 {
            return;
        }
        debug_assert!(queue.outstanding == 0 && queue.reserved_left == queue.reserved_pages);
        env.pool.unreserve(queue.reserved_pages);
        self.slots.unreserve(queue.reserved_slots);
        if let Some(share) = self.shares.get_mut(usize::from(index)) {
            *share = Share::NONE;
        }
        queue.phase = Phase::Free;
        queue.context = None;
    }

    pub(crate) fn set_ready(&mut self, index: u16, ready: bool) {
        set_bit(self.ready, index, ready);
    }
}

pub(crate) fn set_bit(words: &mut [u64], index: u16, value: bool) {
    let (word, bit) = place(index);
    if let Some(word) = words.get_mut(word) {
        *word = if value { *word | bit } else { *word & !bit };
    }
}

const fn place(index: u16) -> (usize, u64) {
    (index as usize / 64, 1 << (index % 64))
}
