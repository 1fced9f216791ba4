//! Time-outs, resets and quarantine.
//!
//! A host is told at once; the pages of what may still be at the drive stay in their slots, untouched, until the
//! parts are home or the drive can no longer write ([`IoQueue::release`]).

use controller::Operation;
use hal_api::{CommandQueue, Instant};
use hal_mem::PagePool;
use nvme::Status;

use super::{IoQueue, Mode};
use crate::status::{AWAY, INTERRUPTED};
use crate::tables::Place;

impl<Q: CommandQueue> IoQueue<Q> {
    /// Looks for passed deadlines. True when a command is too long at the drive, which has to be reset then.
    ///
    /// A request that is told as ended must not change blocks later: its host may have written them anew by then. So
    /// the drive is reset too where parts of a late write are still out, although they may be young.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut earliest = Instant::FAR_FUTURE;
        let (mut late_commands, mut late_writes) = (0, false);
        for (_, part) in self.commands.iter() {
            if part.deadline <= now {
                late_commands += 1;
            } else {
                earliest = earliest.min(part.deadline);
            }
        }
        for slot in self.requests.slots() {
            let Some(active) = self.requests.get(slot) else { continue };
            if active.reported || active.place == Place::Done {
                continue;
            }
            if active.deadline <= now {
                self.counters.request_timeouts += 1;
                late_writes |= active.outstanding > 0 && changes_blocks(&active.request.operation);
                self.end_early(slot, INTERRUPTED);
            } else {
                earliest = earliest.min(active.deadline);
            }
        }
        // While the drive is being reset its commands' deadlines were acted upon already.
        let fault = (late_commands > 0 || late_writes) && self.mode == Mode::Running;
        if fault {
            self.counters.command_timeouts += late_commands;
        }
        self.earliest = earliest;
        fault
    }

    /// The drive is about to be reset, or was lost: requests with parts at the drive end, others wait.
    pub fn hold(&mut self) {
        self.mode = Mode::Held;
        for slot in self.requests.slots() {
            let Some(active) = self.requests.get(slot) else { continue };
            if active.outstanding > 0 && !active.reported && active.place != Place::Done {
                self.end_early(slot, INTERRUPTED);
            }
        }
    }

    /// The drive can no longer touch memory: quarantined pages go back to the pool.
    pub fn release(&mut self, pool: &mut PagePool) {
        debug_assert!(self.mode != Mode::Running);
        while let Some(cid) = self.commands.any() {
            let Some(part) = self.commands.end(cid) else { break };
            self.return_list(part.list, pool);
            if let Some(active) = self.requests.get_mut(part.slot) {
                active.outstanding = active.outstanding.saturating_sub(1);
            }
            self.settle(part.slot, pool);
        }
        // An owner that was between two parts goes on after the reset; one that ended lets go.
        if let Some(slot) = self.scratch_owner
            && !self.requests.get(slot).is_some_and(|active| active.issuing)
        {
            self.scratch_owner = None;
        }
    }

    /// The drive is away: what waits ends, what comes is refused. After [`Self::release`].
    pub fn refuse(&mut self) {
        self.mode = Mode::Away;
        self.scratch_owner = None;
        for slot in self.requests.slots() {
            self.end_early(slot, AWAY);
        }
    }

    /// Ends what waits for a namespace that is no longer what it was.
    pub(super) fn end_requests_of(&mut self, nsid: u32) {
        for slot in self.requests.slots() {
            let Some(active) = self.requests.get(slot) else { continue };
            if active.request.namespace.nsid == nsid {
                self.end_early(slot, Status::INVALID_NAMESPACE.do_not_retry());
            }
        }
    }

    /// Ends a request, whatever it waits for, unless it has ended already.
    fn end_early(&mut self, slot: u16, status: Status) {
        let Some(active) = self.requests.get(slot) else { return };
        if active.reported || active.place == Place::Done {
            return;
        }
        self.requests.unlist(slot);
        let Some(active) = self.requests.get_mut(slot) else { return };
        active.issuing = false;
        if active.status.is_success() {
            active.status = status;
        }
        // The slot may soon be another request's. While a part is out the scratch pages stay taken.
        if active.outstanding == 0 && self.scratch_owner == Some(slot) {
            self.scratch_owner = None;
        }
        self.requests.push(Place::Done, slot);
    }
}

/// Whether a part that is still out may change what a host has written since.
const fn changes_blocks(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Write | Operation::WriteZeroes { .. } | Operation::DatasetManagement { .. }
    )
}
