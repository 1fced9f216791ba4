//! What happens when a drive does not do what it should: reset first, rest after that, and try again.

use hal_api::{Instant, NvmeDevice};

use super::{DriveHome, State, Then};
use crate::events::{DriveEvent, FailReason};
use crate::limits::{FIRST_RETRY, LATER_RETRY, RESETS_BEFORE_REST};

impl<D: NvmeDevice> DriveHome<D> {
    /// Resets the controller, once all queues have stopped: requests at the drive end, their pages stay until RDY is 0, others
    /// wait. In an orderly end the drive is told of its shutdown instead.
    pub(super) fn reset(&mut self, reason: FailReason, now: Instant) {
        if self.is_ending() {
            return self.begin_telling();
        }
        if self.device.status() == u32::MAX {
            return self.fail(FailReason::Removed, now);
        }
        self.check_registers();
        if self.is_stable(now) {
            self.recent_resets = 0;
        }
        self.recent_resets += 1;
        self.counters.resets += 1;
        hal_log::warn!("drive {}: reset, because {}", self.name().as_str(), reason.text());
        if self.recent_resets > RESETS_BEFORE_REST {
            self.recent_resets = 0;
            return self.fail(FailReason::TooManyResets, now);
        }
        self.stop_before(Then::Reset);
    }

    /// Stops all queues, and all admin commands.
    pub(super) fn stop_before(&mut self, then: Then) {
        if let Some(admin) = &mut self.admin {
            admin.forget();
        }
        self.state = State::Stopping(then);
        self.stop_queues(false);
    }

    /// Gives the drive up for a while: it may touch no memory any more, so all pages come back.
    pub(super) fn fail(&mut self, reason: FailReason, now: Instant) {
        self.let_go();
        if self.known && !self.lost {
            self.counters.failures += 1;
        }
        if reason == FailReason::Removed {
            self.registers_lost = true;
        }
        let rest = if self.attempts == 0 { FIRST_RETRY } else { LATER_RETRY };
        self.attempts = self.attempts.saturating_add(1);
        self.state = State::Failed { retry_at: now + rest };
        if self.known && !self.lost {
            self.lost = true;
            let _ = self.events.push_back(DriveEvent::Lost);
        }
        // The same failure of each attempt is told once.
        if self.last_failure != Some(reason) {
            self.last_failure = Some(reason);
            hal_log::error!(
                "drive {}: not usable: {}; it is tried again from time to time",
                self.name().as_str(),
                reason.text()
            );
            let _ = self.events.push_back(DriveEvent::Failed { reason });
        }
    }
}
