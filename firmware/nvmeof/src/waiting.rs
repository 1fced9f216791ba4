//! Commands on their way to drives, and those that wait: for pages, for a place at a drive, or for blocks that a fused pair
//! has for itself.
//!
//! Commands to one drive wait in line for its places, those that need its scratch pages in a line of their own, which may
//! be long. Who waits for a pair's blocks stands in neither line: others need not wait for that pair.

use controller::{Backend, BlockWork, Operation, RejectReason, Subsystem};
use hal_api::Instant;
use hal_mem::Pages;
use message::Waits;
use nvme::Status;

use crate::fused::Fused;
use crate::queue::Queue;
use crate::range_locks::RangeLocks;
use crate::slots::{Doer, Fifo, SlotState, Slots};
use crate::turn::Turn;

/// What a command has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A fused pair has its blocks.
    Blocks,
    /// The drive has no place.
    Backend,
}

/// Whether a command waits behind others that need the drive's scratch pages. Some drives do a Compare or a Verify
/// themselves; in that line those lose nothing.
const fn needs_scratch(operation: &Operation) -> bool {
    matches!(operation, Operation::Copy { .. } | Operation::Compare | Operation::Verify)
}

impl<B: Backend> Turn<'_, '_, B> {
    /// Hands the command to the backend, behind those that wait in its line.
    pub(crate) fn submit_in_turn(&mut self, slot: u16, work: BlockWork) {
        let result = if self.is_waited_for(&work) { Err(Wait::Backend) } else { self.submit(slot, work) };
        if let Err(wait) = result {
            self.wait(slot, wait);
        }
    }

    /// Hands the command to the backend, or ends it where that is known already.
    ///
    /// # Errors
    /// What it has to wait for.
    pub(crate) fn submit(&mut self, slot: u16, work: BlockWork) -> Result<(), Wait> {
        self.try_submit(slot, work)?;
        let entry = self.slots.at_mut(slot);
        let age = core::mem::take(&mut entry.age);
        if age != 0 {
            if entry.fused == Fused::No && entry.state == SlotState::AtBackend {
                self.locks.went_before(age, &work);
            }
            // Pairs may have let it go before them.
            self.effects.freed = true;
        }
        Ok(())
    }

    fn try_submit(&mut self, slot: u16, work: BlockWork) -> Result<(), Wait> {
        if !self.env.subsystem.still_serves(&work) {
            self.finish(slot, Status::INVALID_NAMESPACE.do_not_retry(), 0);
            return Ok(());
        }
        if work.operation == Operation::Flush
            && let Some(context) = &self.queue.context
            && self.env.subsystem.has_lost_writes(context.controller, &work)
        {
            // With DNR: a repetition would succeed and hide the loss.
            self.finish(slot, Status::WRITE_FAULT.do_not_retry(), 0);
            return Ok(());
        }
        if self.locks.excludes(slot, &work, self.slots) {
            return Err(Wait::Blocks);
        }
        let entry = self.slots.at_mut(slot);
        let pages = core::mem::replace(&mut entry.pages, Pages::NONE);
        entry.state = SlotState::AtBackend;
        entry.submitted_at = self.now;
        let changes = entry.changes_blocks;
        let request = work.into_request(u32::from(slot), self.index, pages);
        match self.env.backend.submit(request, self.env.pool, self.now) {
            Ok(()) => {
                self.queue.at_backend += 1;
                self.queue.writes_at_backend += u16::from(changes);
            }
            Err(rejected) => {
                let entry = self.slots.at_mut(slot);
                entry.pages = rejected.request.pages;
                entry.submitted_at = Instant::ZERO;
                match rejected.reason {
                    RejectReason::Busy => return Err(Wait::Backend),
                    RejectReason::Failed(status) => self.finish(slot, status, 0),
                }
            }
        }
        Ok(())
    }

    /// Whether commands in the same line wait already: later ones must not overtake them. Others may.
    fn is_waited_for(&self, work: &BlockWork) -> bool {
        let in_line = |other: &BlockWork| {
            other.namespace.drive == work.namespace.drive
                && needs_scratch(&other.operation) == needs_scratch(&work.operation)
        };
        let mut next = self.queue.waiting_for_backend.first();
        while let Some(slot) = next {
            if matches!(&self.slots.at(slot).doer, Doer::Block(other) if in_line(other)) {
                return true;
            }
            next = self.slots.after(slot);
        }
        false
    }

    fn wait(&mut self, slot: u16, wait: Wait) {
        if wait == Wait::Backend {
            let entry = self.slots.at_mut(slot);
            entry.state = SlotState::WaitingForBackend;
            entry.waits.add(Waits::DRIVE);
            return self.slots.push(&mut self.queue.waiting_for_backend, slot);
        }
        let entry = self.slots.at_mut(slot);
        entry.state = SlotState::WaitingForBlocks;
        entry.waits.add(Waits::BLOCKS);
        if entry.age == 0 {
            entry.age = self.locks.next_age();
        }
        self.slots.push(&mut self.queue.waiting_for_blocks, slot);
    }

    /// Tries those whose blocks a pair had. They are older than what waits for a place.
    fn retry_blocks(&mut self) {
        let mut waiting = core::mem::replace(&mut self.queue.waiting_for_blocks, Fifo::EMPTY);
        while let Some(slot) = self.slots.pop(&mut waiting) {
            let Doer::Block(work) = self.slots.at(slot).doer else { continue };
            if let Err(wait) = self.submit(slot, work) {
                self.wait(slot, wait);
            }
        }
    }

    /// Tries each line's commands in order, until the drive has no place.
    fn retry_backend(&mut self) {
        let mut waiting = core::mem::replace(&mut self.queue.waiting_for_backend, Fifo::EMPTY);
        // A bit for each drive that has said so in this turn; a drive's two lines apart.
        let (mut plain, mut scratch) = ([0u64; 4], [0u64; 4]);
        while let Some(slot) = self.slots.pop(&mut waiting) {
            let Doer::Block(work) = self.slots.at(slot).doer else { continue };
            let drive = usize::from(work.namespace.drive);
            let line = if needs_scratch(&work.operation) { &mut scratch } else { &mut plain };
            let (bit, Some(busy)) = (1 << (drive % 64), line.get_mut(drive / 64)) else { continue };
            let result = if *busy & bit != 0 { Err(Wait::Backend) } else { self.submit(slot, work) };
            if let Err(wait) = result {
                if wait == Wait::Backend {
                    *busy |= bit;
                }
                self.wait(slot, wait);
            }
        }
    }

    /// Tries again what found no pages or no place at the backend, in order.
    pub(crate) fn retry_waiting(&mut self) {
        self.retry_pairs();
        self.retry_blocks();
        self.retry_backend();
        while self.budget_bytes > 0
            && let Some(slot) = self.queue.waiting_for_pages.first()
        {
            if !self.take_pages(slot) {
                break;
            }
            self.slots.pop(&mut self.queue.waiting_for_pages);
            self.with_pages(slot);
        }
        if let Some(slot) = self.queue.parked_connect.take() {
            self.connect(slot);
        }
    }

    /// The queue is being closed: its commands do not go to drives any more, and nobody lets them go before him.
    pub(crate) fn leave_lines(&mut self) {
        leave_lines(self.queue, self.slots, self.locks, self.env.subsystem);
        self.effects.freed = true;
    }
}

/// The same from outside of a turn: the caller wakes who waits.
pub(crate) fn leave_lines(
    queue: &Queue,
    slots: &mut Slots,
    locks: &mut RangeLocks,
    subsystem: &mut Subsystem,
) {
    for line in [&queue.waiting_for_blocks, &queue.waiting_for_backend, &queue.waiting_pairs] {
        let mut next = line.first();
        while let Some(slot) = next {
            slots.at_mut(slot).age = 0;
            next = slots.after(slot);
        }
    }
    // Pairs that wait for the drive, or between their commands, may have their blocks already.
    let mut pair = queue.waiting_pairs.first();
    while let Some(slot) = pair {
        locks.release(slot, subsystem, slots);
        pair = slots.after(slot);
    }
}
