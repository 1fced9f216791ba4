//! Fused Compare and Write (Base 3.4.2): two commands that follow each other in one queue and take effect as one.
//!
//! The pair waits until the data of both is here. Then its blocks are locked for it (`range_locks.rs`), what is at
//! drives for them already comes home, the Compare goes out, and where it succeeds the Write. All other commands to these
//! blocks wait that long, from whichever queue and core they come. A pair holds one lock, and waits for nothing but commands at
//! drives while it does. `docs/design/fused.md` says more.

use controller::{Backend, BackendNamespace};
use hal_api::Instant;
use hal_log::debug;
use message::Waits;
use nvme::{Command, Status};

use crate::queue::DATA_TIMEOUT;
use crate::slots::{Direction, Doer, Fifo, NONE, SlotState};
use crate::turn::Turn;

/// FUSE of the first and the second command.
const FIRST: u8 = 1;
const SECOND: u8 = 2;

/// A command's place in a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fused {
    /// In none, or its pair has been broken up.
    #[default]
    No,
    First,
    Second,
}

/// What came last on a queue: a pair's second command follows its first at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastCapsule {
    /// No first command.
    Other,
    /// A first command, in this slot.
    First(u16),
    /// A first command that has failed already.
    FailedFirst,
}

impl<B: Backend> Turn<'_, '_, B> {
    /// Finds a command's place in a pair, once it has been judged, and breaks up what is no pair.
    pub(crate) fn pair_up(
        &mut self,
        slot: u16,
        command: &Command,
        verdict: Result<Direction, Status>,
    ) -> Result<Direction, Status> {
        let last = core::mem::replace(&mut self.queue.last_capsule, LastCapsule::Other);
        let fuse =
            if self.queue.queue_id().is_some_and(|queue_id| queue_id != 0) { command.fuse() } else { 0 };
        match (fuse, last) {
            (SECOND, LastCapsule::First(first)) => match verdict {
                Ok(direction) if self.is_pair(first, slot) => {
                    self.link(first, slot);
                    Ok(direction)
                }
                Ok(_) => {
                    let status = self.why_no_pair(first, slot);
                    self.break_off(first, status);
                    Err(status)
                }
                Err(status) => {
                    self.break_off(first, Status::ABORTED_FAILED_FUSED);
                    Err(status)
                }
            },
            (SECOND, LastCapsule::FailedFirst) => Err(Status::ABORTED_FAILED_FUSED),
            (SECOND, LastCapsule::Other) => Err(Status::ABORTED_MISSING_FUSED.do_not_retry()),
            (_, last) => {
                if let LastCapsule::First(first) = last {
                    self.break_off(first, Status::ABORTED_MISSING_FUSED.do_not_retry());
                }
                if fuse == FIRST {
                    let failed = verdict.is_err();
                    self.queue.last_capsule =
                        if failed { LastCapsule::FailedFirst } else { LastCapsule::First(slot) };
                    self.slots.at_mut(slot).fused = if failed { Fused::No } else { Fused::First };
                }
                verdict
            }
        }
    }

    /// Both commands are for the same blocks.
    fn is_pair(&self, first: u16, second: u16) -> bool {
        self.name_same_blocks(first, second) && self.namespace_of(first) == self.namespace_of(second)
    }

    fn name_same_blocks(&self, first: u16, second: u16) -> bool {
        let (first, second) = (self.slots.at(first), self.slots.at(second));
        match (&first.doer, &second.doer) {
            (Doer::Block(compare), Doer::Block(write)) => {
                compare.start_block == write.start_block
                    && compare.blocks == write.blocks
                    && first.command.nsid == second.command.nsid
            }
            _ => false,
        }
    }

    fn namespace_of(&self, slot: u16) -> Option<BackendNamespace> {
        match &self.slots.at(slot).doer {
            Doer::Block(block) => Some(block.namespace),
            _ => None,
        }
    }

    fn why_no_pair(&self, first: u16, second: u16) -> Status {
        if self.name_same_blocks(first, second) {
            // Its drive went between the two commands, and has come back in another place: the host may send them again.
            Status::NAMESPACE_NOT_READY
        } else {
            Status::INVALID_FIELD.do_not_retry()
        }
    }

    fn link(&mut self, first: u16, second: u16) {
        self.slots.at_mut(first).partner = second;
        let second = self.slots.at_mut(second);
        (second.fused, second.partner) = (Fused::Second, first);
    }

    /// The other command of a pair has failed, or is none: this one ends as soon as its data has passed.
    fn break_off(&mut self, slot: u16, status: Status) {
        let entry = self.slots.at_mut(slot);
        (entry.fused, entry.partner) = (Fused::No, NONE);
        if entry.state == SlotState::AwaitingPartner {
            self.finish(slot, status, 0);
        } else if entry.status.is_success() {
            entry.status = status;
        }
    }

    /// All data of a command of a pair is here; the pair begins with the later one.
    pub(crate) fn run_fused(&mut self, slot: u16) {
        self.slots.at_mut(slot).state = SlotState::AwaitingPartner;
        let entry = self.slots.at(slot);
        let (partner, first) = match entry.fused {
            Fused::First => (entry.partner, slot),
            _ => (entry.partner, entry.partner),
        };
        if partner == NONE {
            // The host has as long for the second command as for data.
            let entry = self.slots.at_mut(slot);
            entry.asked_at = self.now;
            entry.waits.add(Waits::PAIR);
            self.queue.data_deadline = self.queue.data_deadline.min(self.now + DATA_TIMEOUT);
            return;
        }
        if self.slots.at(partner).state != SlotState::AwaitingPartner {
            return;
        }
        let mut in_line = self.drives_with_pairs_in_line();
        if !self.try_in_line(first, &mut in_line) {
            self.wait_as_pair(first);
        }
    }

    /// The drives, a bit for each, for which one of the queue's pairs waits to ask for its blocks.
    fn drives_with_pairs_in_line(&self) -> u64 {
        let mut drives = 0;
        let mut next = self.queue.waiting_pairs.first();
        while let Some(slot) = next {
            if !self.locks.has_asked(slot) {
                drives |= self.drive_bit(slot);
            }
            next = self.slots.after(slot);
        }
        drives
    }

    fn drive_bit(&self, slot: u16) -> u64 {
        self.namespace_of(slot).map_or(0, |namespace| 1 << (namespace.drive % 64))
    }

    /// Tries a pair, which stands in line for its drive only where no other of its queue does that has not asked yet: a queue with many
    /// pairs has no more places there than one with few.
    fn try_in_line(&mut self, slot: u16, in_line: &mut u64) -> bool {
        if self.locks.has_asked(slot) {
            return self.try_fused(slot);
        }
        let drive = self.drive_bit(slot);
        if self.slots.at(slot).age == 0 {
            if *in_line & drive != 0 {
                return false;
            }
            self.slots.at_mut(slot).age = self.locks.next_age();
        }
        let tried = self.try_fused(slot);
        if !tried && !self.locks.has_asked(slot) {
            *in_line |= drive;
        }
        tried
    }

    fn wait_as_pair(&mut self, slot: u16) {
        let entry = self.slots.at_mut(slot);
        entry.state = SlotState::WaitingForBackend;
        entry.waits.add(Waits::PAIR);
        self.slots.push(&mut self.queue.waiting_pairs, slot);
    }

    /// When the second command has to be here, where a first one has all its data and waits for it.
    pub(crate) fn second_deadline(&self) -> Instant {
        let LastCapsule::First(first) = self.queue.last_capsule else { return Instant::FAR_FUTURE };
        let entry = self.slots.at(first);
        let waits = entry.state == SlotState::AwaitingPartner && entry.partner == NONE;
        if waits { entry.asked_at + DATA_TIMEOUT } else { Instant::FAR_FUTURE }
    }

    /// No command is taken any more: a first one's second does not come.
    pub(crate) fn end_lone_first(&mut self) {
        if let LastCapsule::First(first) = self.queue.last_capsule {
            self.queue.last_capsule = LastCapsule::Other;
            self.break_off(first, Status::ABORTED_MISSING_FUSED);
        }
    }

    /// Sends a pair's next command; false where it has to wait.
    fn try_fused(&mut self, slot: u16) -> bool {
        let Doer::Block(work) = self.slots.at(slot).doer else { return false };
        if !self.locks.has_asked(slot) {
            if !self.locks.ask(slot, &work, self.env.subsystem, self.slots) {
                return false;
            }
            // Pairs that came later may ask now.
            self.effects.freed = true;
        }
        let core = self.env.subsystem.core();
        self.locks.may_begin(slot, core, self.slots) && self.submit(slot, work).is_ok()
    }

    /// Tries again the pairs that wait for blocks or for the backend. They do not wait behind other commands, which may
    /// wait for them.
    pub(crate) fn retry_pairs(&mut self) {
        let mut waiting = core::mem::replace(&mut self.queue.waiting_pairs, Fifo::EMPTY);
        let mut in_line = 0;
        while let Some(slot) = self.slots.pop(&mut waiting) {
            if !self.try_in_line(slot, &mut in_line) {
                self.wait_as_pair(slot);
            }
        }
    }

    /// A command is about to be answered: what that means for its pair.
    pub(crate) fn fused_ended(&mut self, slot: u16, succeeded: bool) {
        let entry = self.slots.at_mut(slot);
        let fused = core::mem::take(&mut entry.fused);
        let partner = core::mem::replace(&mut entry.partner, NONE);
        if fused == Fused::No {
            return;
        }
        if partner == NONE {
            if self.queue.last_capsule == LastCapsule::First(slot) {
                self.queue.last_capsule = LastCapsule::FailedFirst;
            }
        } else {
            self.slots.at_mut(partner).partner = NONE;
        }
        // Once the queue is being closed its host has been told, or soon will be, that nothing more comes of its commands.
        let goes_on = succeeded && self.queue.carries_out();
        if fused == Fused::First && goes_on && partner != NONE {
            self.locks.pass_on(slot, partner);
            if !self.try_fused(partner) {
                self.wait_as_pair(partner);
            }
            return;
        }
        self.unlock(slot);
        if partner != NONE {
            debug!("connection {}: a fused command has failed with its other", self.index);
            let closing = Status::ABORTED_SQ_DELETION;
            self.break_off(partner, if succeeded { closing } else { Status::ABORTED_FAILED_FUSED });
        }
    }

    /// A command's slot is given back, perhaps without an answer.
    pub(crate) fn fused_freed(&mut self, slot: u16) {
        let entry = self.slots.at_mut(slot);
        if core::mem::take(&mut entry.fused) == Fused::No {
            return;
        }
        let partner = core::mem::replace(&mut entry.partner, NONE);
        if partner != NONE {
            self.slots.at_mut(partner).partner = NONE;
        }
        self.unlock(slot);
    }

    pub(crate) fn unlock(&mut self, owner: u16) {
        if self.locks.release(owner, self.env.subsystem, self.slots) {
            // Whoever waits for these blocks may try again.
            self.effects.freed = true;
        }
    }
}
