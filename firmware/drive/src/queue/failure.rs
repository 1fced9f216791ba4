//! Time-outs, resets and quarantine.
//!
//! A host is told at once; the pages of what may still be at the drive stay in their slots, untouched, until the
//! parts are home or the drive can no longer write ([`DriveQueue::release`]).

use hal_api::{CommandQueue, Instant};
use hal_mem::PagePool;
use nvme::Status;

use super::{Abort, DriveQueue, Mode};
use crate::limits::ABORT_TIMEOUT;
use crate::status::{AWAY, INTERRUPTED};
use crate::tables::{Late, OWN_COMMAND, Place};

/// Commands that are late, from the first one until all are home: one story for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LateCommands {
    /// Late and not home.
    pub out: u16,
    /// Late and not told to the caller yet.
    pub untold: u16,
    /// Came home as aborted.
    pub aborted: u16,
    /// Came home otherwise.
    pub ended: u16,
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// Looks for passed deadlines. A command that is late is to be aborted; true when that has not helped, so that the
    /// drive has to be reset.
    ///
    /// A request that is told as ended must not change blocks later: its host may have written them anew by then. So
    /// the drive is reset too where parts of a late write are still out, although they may be young; and where other cores have
    /// queues at the drive, its host is told once they have stopped.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut earliest = Instant::FAR_FUTURE;
        let (mut hopeless, mut late_writes) = (false, false);
        let running = self.mode == Mode::Running;
        let (last_at, last_sent) = self.last_home;
        for (_, part) in self.commands.iter_mut() {
            // A drive that still ends commands which are as old is slow, not stuck.
            let advances = now.since(last_at) <= ABORT_TIMEOUT && last_sent <= part.sent;
            let start_by = self.requests.get(part.slot).map_or(Instant::FAR_FUTURE, |active| active.start_by);
            // While the drive is being reset, deadlines were acted upon already.
            if part.deadline > now || !running {
            } else if advances && (now < start_by || part.late != Late::No) {
                part.deadline = now + ABORT_TIMEOUT;
                if part.late == Late::No {
                    part.deadline = part.deadline.min(start_by);
                }
            } else if part.late == Late::No {
                part.late = Late::ToAbort;
                part.deadline = now + ABORT_TIMEOUT;
                self.late.out += 1;
                self.late.untold += 1;
                self.counters.command_timeouts += 1;
            }
            if part.deadline <= now {
                hopeless = true;
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
                let may_happen = active.outstanding > 0 && active.request.operation.changes_blocks();
                late_writes |= may_happen;
                if may_happen && self.others_send {
                    self.leave_to_reset(slot);
                } else {
                    self.end_early(slot, INTERRUPTED);
                }
            } else {
                earliest = earliest.min(active.deadline);
            }
        }
        self.earliest = earliest;
        (hopeless || late_writes) && running
    }

    /// Says in the log how late commands go on, and wants the next of them aborted. One at a time.
    pub(super) fn care_for_late_commands(&mut self) {
        if self.mode != Mode::Running {
            return;
        }
        let late = core::mem::take(&mut self.late.untold);
        if late > 0 {
            hal_log::warn!(
                "drive {}: {} commands are late, they are being aborted",
                self.name.as_str(),
                late
            );
        }
        let LateCommands { out, aborted, ended, .. } = self.late;
        if out == 0 && aborted + ended > 0 {
            self.late = LateCommands::default();
            hal_log::info!(
                "drive {}: {} late commands were aborted, {} ended by themselves",
                self.name.as_str(),
                aborted,
                ended
            );
        }
        if out == 0 || self.abort != Abort::None {
            return;
        }
        let late = self.commands.iter_mut().find(|(_, part)| part.late == Late::ToAbort);
        let Some((cid, part)) = late else { return };
        part.late = Late::Asked;
        // Else the Abort could hit a younger command of the same name.
        self.commands.hold(cid);
        self.abort = Abort::Wanted(cid);
        // What is not announced yet cannot be aborted.
        self.flush();
    }

    /// A late command has come home after all.
    pub(super) fn late_command_is_home(&mut self, status: Status) {
        self.late.out = self.late.out.saturating_sub(1);
        if status.code() == Status::ABORT_REQUESTED {
            self.late.aborted = self.late.aborted.saturating_add(1);
            self.counters.aborted += 1;
        } else {
            self.late.ended = self.late.ended.saturating_add(1);
        }
    }

    /// The drive is about to be reset, or was lost: requests with parts at the drive end, others wait. A write that waits
    /// between two parts ends as well: the drive may come back without the first ones, which no host was told of.
    pub(super) fn end_begun(&mut self) {
        self.others_send = false;
        for slot in self.requests.slots() {
            let Some(active) = self.requests.get(slot) else { continue };
            let half_done = active.issued_blocks > 0 || active.range > 0;
            let half_written = half_done && active.request.operation.changes_blocks();
            let begun = active.outstanding > 0 || half_written;
            if begun && !active.reported && active.place != Place::Done {
                self.end_early(slot, INTERRUPTED);
            }
        }
    }

    /// The drive can no longer touch memory: quarantined pages go back to the pool.
    pub(super) fn release(&mut self, pool: &mut PagePool) {
        debug_assert!(self.mode != Mode::Running);
        while let Some(cid) = self.commands.any() {
            let Some(part) = self.commands.end(cid) else { break };
            self.return_list(part.list, pool);
            if part.slot == OWN_COMMAND {
                self.own_flush_is_home(INTERRUPTED);
                continue;
            }
            self.note_command_home(part.slot);
            if let Some(active) = self.requests.get_mut(part.slot) {
                active.outstanding = active.outstanding.saturating_sub(1);
                self.sharing.end(active, part.blocks);
            }
            self.settle(part.slot, pool);
        }
        self.late = LateCommands::default();
        self.commands.release_held();
        self.abort = Abort::None;
        // An owner that was between two parts goes on after the reset; one that ended lets go.
        if let Some(slot) = self.scratch_owner
            && !self.requests.get(slot).is_some_and(|active| active.issuing)
        {
            self.scratch_owner = None;
        }
    }

    /// The drive is away: what waits ends, what comes is refused. After [`Self::release`].
    pub(super) fn refuse(&mut self) {
        self.mode = Mode::Away;
        self.scratch_owner = None;
        for slot in self.requests.slots() {
            self.end_early(slot, AWAY);
        }
    }

    /// The request has no more time; it ends when no queue at the drive sends anything.
    fn leave_to_reset(&mut self, slot: u16) {
        self.requests.unlist(slot);
        if let Some(active) = self.requests.get_mut(slot) {
            (active.deadline, active.issuing) = (Instant::FAR_FUTURE, false);
            active.status = INTERRUPTED;
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
    pub(super) fn end_early(&mut self, slot: u16, status: Status) {
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
