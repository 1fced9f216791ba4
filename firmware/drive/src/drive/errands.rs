//! What a drive that works is asked beside I/O, one admin command at a time: Aborts first, then its health.

use hal_api::{CommandQueue, Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::Completion;

use super::{Drive, State};
use crate::admin::{Progress, abort};
use crate::events::FailReason;
use crate::limits::{ABORT_TIMEOUT, ADMIN_TIMEOUT, SMART_INTERVAL};

/// The admin command that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// None, or one of the bring-up.
    None,
    Abort,
    Smart,
}

impl<D: NvmeDevice> Drive<D> {
    /// Takes an answer, or sends what comes next.
    pub(super) fn poll_errands(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        self.tell_of_late_commands();
        let Some(parts) = &mut self.parts else { return 0 };
        if parts.admin.deadline().is_none() {
            return usize::from(self.next_errand(now, pool));
        }
        match parts.admin.progress(now) {
            Progress::Waiting => 0,
            Progress::Ended(completion) => {
                self.errand_ended(&completion, pool);
                1
            }
            Progress::TimedOut => {
                let reason = match self.errand {
                    Errand::Abort => FailReason::CommandTimeout,
                    _ => FailReason::AdminTimeout,
                };
                self.reset(reason, now, pool);
                1
            }
        }
    }

    fn next_errand(&mut self, now: Instant, pool: &mut PagePool) -> bool {
        let Some(parts) = &mut self.parts else { return false };
        if let Some(cid) = parts.io.take_to_abort() {
            self.errand = Errand::Abort;
            // What is not announced yet cannot be aborted.
            parts.io.queue.flush();
            return parts.admin.send(abort(self.qid, cid), now, ABORT_TIMEOUT);
        }
        if now < self.smart_at || self.state != State::Ready {
            return false;
        }
        self.smart_at = now + SMART_INTERVAL;
        self.errand = Errand::Smart;
        let command = parts.admin.get_smart(pool);
        parts.admin.send(command, now, ADMIN_TIMEOUT)
    }

    fn errand_ended(&mut self, completion: &Completion, pool: &PagePool) {
        let Some(parts) = &mut self.parts else { return };
        match core::mem::replace(&mut self.errand, Errand::None) {
            // Whatever the answer: the command comes home, or the drive is reset at its deadline.
            Errand::Abort | Errand::None => (),
            Errand::Smart if completion.status().is_success() => self.smart = Some(parts.admin.smart(pool)),
            Errand::Smart => (),
        }
    }

    fn tell_of_late_commands(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        let (late, ended) = (parts.io.take_late(), parts.io.take_late_ended());
        let name = self.name();
        if late > 0 {
            hal_log::warn!("drive {}: {} commands are late, they are being aborted", name.as_str(), late);
        }
        if let Some((aborted, by_themselves)) = ended {
            hal_log::info!(
                "drive {}: {} late commands were aborted, {} ended by themselves",
                name.as_str(),
                aborted,
                by_themselves
            );
        }
    }
}
