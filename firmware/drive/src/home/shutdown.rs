//! The orderly end of a drive.
//!
//! The queues flush what is dirty at once, so that a request that hangs does not stand in its way; their requests end, and what
//! they wrote is flushed ([`crate::queue`]); then the drive is told (CC.SHN, Base 3.6.1) and waited for (CSTS.SHST), then it
//! loses the bus. Every step has a limit: a drive that does not end loses the bus all the same. What could not be flushed by
//! then counts as lost, whatever the drive says of its shutdown.

use core::time::Duration;

use hal_api::{Instant, NvmeDevice};
use nvme::registers::{Configuration, ControllerStatus};

use super::steps::Wanted;
use super::{DriveHome, State, Then};
use crate::limits::{CLOSING_LIMIT, SHUTDOWN_LEAST, SHUTDOWN_MOST};

impl<D: NvmeDevice> DriveHome<D> {
    /// A core wants the orderly end, as all do sooner or later: it begins with the last.
    pub fn want_end(&mut self, core: u8, now: Instant) {
        self.end_wanted.insert(core);
        if self.end_wanted == self.steps.all() {
            self.begin_shutdown(now);
        }
    }

    /// Begins the orderly end, for good. The caller goes on polling until [`Self::is_shut_down`].
    pub fn begin_shutdown(&mut self, now: Instant) {
        if self.end_by.is_none() {
            let until = now + CLOSING_LIMIT;
            self.end_by = Some(until);
            self.want(Wanted::Close { until });
        }
    }

    /// Whether the drive is off the bus for good, and all queues know.
    pub fn is_shut_down(&self) -> bool {
        self.state == State::ShutDown && !self.steps.are_under_way()
    }

    /// Whether an orderly end has begun.
    pub(super) fn is_ending(&self) -> bool {
        self.end_by.is_some()
    }

    /// One step of the orderly end.
    pub(super) fn poll_shutdown(&mut self, now: Instant) -> usize {
        let Some(end_by) = self.end_by else { return 0 };
        match self.state {
            State::Ready => {
                self.state = State::Closing;
                self.close(now);
            }
            State::Closing => return usize::from(self.close(now)),
            State::ShuttingDown { deadline } => return self.await_shutdown(deadline, now),
            State::ShutDown | State::Stopping(Then::ShutDown) => return 0,
            State::Start | State::Failed { .. } => self.conclude(),
            // It is on its way up, perhaps with writes in its cache from before a reset.
            _ if now < end_by => return 0,
            _ => {
                hal_log::warn!("drive {}: not shut down, it was on its way up", self.name().as_str());
                self.conclude();
            }
        }
        1
    }

    /// Goes on once all queues are done, or have had their time.
    pub(super) fn close(&mut self, now: Instant) -> bool {
        let is_over = self.closed == self.steps.all() || self.end_by.is_some_and(|end_by| now >= end_by);
        if self.state != State::Closing || !is_over {
            return false;
        }
        self.begin_telling();
        true
    }

    /// Stops the queues: commands that have not ended by now are the drive's to end or to drop.
    pub(super) fn begin_telling(&mut self) {
        self.stop_before(Then::ShutDown);
    }

    /// Sets CC.SHN.
    pub(super) fn tell(&mut self, now: Instant) {
        if self.device.status() == u32::MAX {
            hal_log::warn!("drive {}: is gone, not shut down", self.name().as_str());
            return self.conclude();
        }
        let cc = Configuration(self.device.configuration());
        self.device.set_configuration(cc.with_shutdown().0);
        let wanted = match self.entry_latency_us {
            0 => SHUTDOWN_LEAST,
            us => Duration::from_micros(u64::from(us)).clamp(SHUTDOWN_LEAST, SHUTDOWN_MOST),
        };
        self.state = State::ShuttingDown { deadline: now + wanted };
    }

    fn await_shutdown(&mut self, deadline: Instant, now: Instant) -> usize {
        let raw = self.device.status();
        let status = ControllerStatus::from_bits_retain(raw);
        // Both bits: 10b is complete, 11b is reserved.
        let complete = status.contains(ControllerStatus::SHUTDOWN_COMPLETE)
            && !status.contains(ControllerStatus::SHUTDOWN_OCCURRING);
        if raw == u32::MAX {
            hal_log::warn!("drive {}: is gone, not shut down", self.name().as_str());
        } else if complete {
            hal_log::info!("drive {}: shut down", self.name().as_str());
            self.ended_well = true;
        } else if now >= deadline || status.contains(ControllerStatus::FATAL) {
            hal_log::warn!("drive {}: does not shut down in time", self.name().as_str());
        } else {
            return 0;
        }
        self.conclude();
        1
    }

    /// Takes the bus away for good: everything comes back, and hosts hear of what was not flushed. So does a drive end that is
    /// gone, or has to go, without a warning.
    pub fn conclude(&mut self) {
        self.let_go();
        self.want(Wanted::CacheLost);
        self.want(Wanted::Over);
        self.state = State::ShutDown;
    }

    /// The drive may touch no memory any more, so all pages come back, and requests end.
    pub(super) fn let_go(&mut self) {
        self.device.set_bus_master(false);
        if let Some(admin) = &mut self.admin {
            admin.forget();
        }
        self.stop_queues(true);
    }

    /// Whether the drive has said that it is shut down.
    pub fn has_ended_well(&self) -> bool {
        self.ended_well
    }
}
