//! What other data cores tell of controllers and hosts whose connections are here (docs/design/many-cores.md).

use controller::{
    AnaState, Backend, BackendNamespace, BlockWork, Heard, Mark, Message, Owed, PortId, Subsystem,
};
use hal_api::Instant;
use message::{Change, EndReason, QueueGrant};

use crate::queue::{ConnectStep, Phase};
use crate::range_locks::Wake;
use crate::slots::{Doer, Slot, SlotState};
use crate::target::{Target, set_bit};
use crate::turn::Environment;
use crate::waiting::leave_lines;

/// How far changes of other cores can be taken up now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settling {
    /// This turn of the core, counted from its start.
    pub turn: u64,
    /// All frames that had come when that turn began are taken in. A fence that is heard of in a turn is taken up only when that is so
    /// of it: a connection that its host has ended before it came back is known to be lost then.
    pub frames_in_until: u64,
    /// Look at every command as well. Not in each turn.
    pub thoroughly: bool,
}

impl Target {
    /// Takes in what another core says; returns what does not concern connections.
    pub fn hear<B: Backend>(
        &mut self,
        from: u8,
        message: Message,
        now: Instant,
        env: &mut Environment<'_, B>,
    ) -> Heard {
        match env.subsystem.heed(from, message, now) {
            Heard::Granted { home, grant } => self.granted(home, &grant, now, env),
            Heard::Refused { ticket, failure } => {
                if let Some(index) = self.waiting_at(ConnectStep::Asking(ticket)) {
                    if let Some(mut turn) = self.turn(index, now, env, 0) {
                        turn.connect_refused(failure);
                    }
                    self.set_ready(index, true);
                }
            }
            Heard::Confirmed { number, lost, complete } => {
                let waiting = self.waiting_at(ConnectStep::Passing(number));
                let waiting = waiting.or_else(|| self.waiting_at(ConnectStep::Fencing(number)));
                if let Some(queue) = waiting.and_then(|index| self.queues.get_mut(usize::from(index))) {
                    queue.inherited.merge(&lost);
                    queue.connect_step = match queue.connect_step {
                        ConnectStep::Passing(_) if complete => ConnectStep::Passed,
                        ConnectStep::Fencing(_) if complete => ConnectStep::Fenced,
                        step => step,
                    };
                }
                if complete {
                    // The one that has waited, and others of its host whose turn has come.
                    self.wake_waiting();
                }
            }
            Heard::Ended => self.wake_waiting(),
            Heard::Lock(news) => match self.locks.hear(news, env.subsystem, &self.slots) {
                Wake::Nobody => {}
                Wake::Slot(slot) => self.set_ready(self.slots.at(slot).queue, true),
                Wake::All => self.wake_waiting(),
            },
            other => return other,
        }
        Heard::Nothing
    }

    fn granted<B: Backend>(
        &mut self,
        home: u8,
        grant: &QueueGrant,
        now: Instant,
        env: &mut Environment<'_, B>,
    ) {
        let Some(index) = self.waiting_at(ConnectStep::Asking(grant.ticket)) else {
            // The connection went while home was asked.
            return env.subsystem.give_back_queue(home, grant.cntlid, grant.queue_id);
        };
        if let Some(mut turn) = self.turn(index, now, env, 0) {
            turn.connect_granted(home, grant);
        }
        self.set_ready(index, true);
    }

    /// The connection whose Connect waits for this.
    fn waiting_at(&self, step: ConnectStep) -> Option<u16> {
        let found = self.queues.iter().position(|queue| queue.is_open() && queue.connect_step == step);
        found.map(|index| index as u16)
    }

    /// Goes on with the changes that other cores wait for, and confirms those that are made.
    pub fn settle(&mut self, now: Instant, subsystem: &mut Subsystem, settling: Settling) {
        if subsystem.owes() {
            subsystem.settle(|subsystem, owed| self.is_settled(now, subsystem, owed, settling));
        }
    }

    fn is_settled(
        &mut self,
        now: Instant,
        subsystem: &mut Subsystem,
        owed: &mut Owed,
        settling: Settling,
    ) -> bool {
        let is_new = owed.mark == Mark::New;
        match owed.change {
            Change::End { cntlid, reason } => {
                owed.mark = Mark::Heard(settling.turn);
                if is_new {
                    self.end_queues(now, subsystem, cntlid, reason);
                }
                let is_over = !self.has_queues_of(cntlid, reason);
                if is_over && reason == EndReason::Reset {
                    subsystem.drop_delegate(cntlid);
                }
                is_over
            }
            Change::Arrivals { .. } => frames_are_in(owed, settling),
            Change::Fence { host_id } => {
                if frames_are_in(owed, settling) {
                    self.lose_closed(now, subsystem, host_id);
                    owed.mark = Mark::TakenUp(self.lost_connections);
                }
                let Mark::TakenUp(last) = owed.mark else { return false };
                // Serials count up and wrap: half of their range lies before the last one.
                let is_before = |serial: u32| last.wrapping_sub(serial) < u32::MAX / 2;
                let waits = self
                    .fences
                    .iter()
                    .any(|fence| fence.writes > 0 && fence.host_id == host_id && is_before(fence.serial));
                !waits && !subsystem.has_pending_end(host_id)
            }
            Change::Ana { port, state } => {
                owed.mark = Mark::Heard(settling.turn);
                let Some(state) = AnaState::of_code(state) else { return true };
                if is_new {
                    subsystem.set_ana_state(PortId(port), state);
                }
                state.lets_io_through() || (is_new || settling.thoroughly) && !self.has_io_by(PortId(port))
            }
            Change::Detach { key, drive, nsid } => {
                owed.mark = Mark::Heard(settling.turn);
                // The core that has begun it has detached it before, and may have attached it anew.
                if is_new && !owed.is_own(subsystem) {
                    subsystem.detach(key);
                }
                (is_new || settling.thoroughly)
                    && !self.has_at_backend(BackendNamespace { drive, nsid }, subsystem)
            }
            Change::Lock { name, blocks } => {
                owed.mark = Mark::Heard(settling.turn);
                if is_new {
                    self.locks.enter(name, blocks, subsystem.core(), &self.slots);
                }
                self.locks.is_clear(name, &self.slots)
            }
        }
    }

    /// A controller whose home is another core ends: so do its connections here.
    fn end_queues(&mut self, now: Instant, subsystem: &mut Subsystem, cntlid: u16, reason: EndReason) {
        let Some(handle) = subsystem.end_delegate(cntlid, reason) else { return };
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if !queue.is_open() || queue.context.is_none_or(|context| context.controller != handle) {
                continue;
            }
            // Those of a controller that is gone are cut when they are served.
            if reason == EndReason::Reset && matches!(queue.phase, Phase::Live | Phase::Finishing) {
                queue.start_closing(now);
                leave_lines(queue, &mut self.slots, self.locks, subsystem);
            }
            set_bit(self.ready, index as u16, true);
        }
        self.wake_waiting();
    }

    fn has_queues_of(&self, cntlid: u16, reason: EndReason) -> bool {
        self.queues
            .iter()
            .filter(|queue| queue.cntlid == cntlid && queue.context.is_some())
            .any(|queue| queue.is_open() || reason == EndReason::Removed && queue.writes_at_backend > 0)
    }

    /// Whether I/O that has come by a port is under way.
    fn has_io_by(&self, port: PortId) -> bool {
        let by_port =
            |slot: &Slot| self.queues.get(usize::from(slot.queue)).is_some_and(|queue| queue.port == port);
        self.slots.taken().any(|(_, slot)| slot.is_io_under_way() && by_port(slot))
    }

    /// Whether a command to these blocks is at the drive that was admitted under an attachment that is no more.
    fn has_at_backend(&self, backend: BackendNamespace, subsystem: &Subsystem) -> bool {
        let is_left = |work: &BlockWork| work.namespace == backend && !subsystem.still_serves(work);
        self.slots.taken().any(|(_, slot)| {
            slot.state == SlotState::AtBackend && matches!(&slot.doer, Doer::Block(work) if is_left(work))
        })
    }
}

/// Whether a change that is not taken up can be: all frames are in, or passed on, that had come when this core heard of it.
fn frames_are_in(owed: &mut Owed, settling: Settling) -> bool {
    if owed.mark == Mark::New {
        owed.mark = Mark::Heard(settling.turn);
    }
    matches!(owed.mark, Mark::Heard(turn) if settling.frames_in_until >= turn)
}
