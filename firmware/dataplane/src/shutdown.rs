//! The orderly end of a data core: hosts' commands are finished, connections closed, drives flushed and told.
//!
//! Each step has a limit, so that a host or a drive that does not end holds up nothing. Hosts see their connections
//! closed in order and repeat elsewhere, or later, what was not answered; CC and CSTS of a fabrics controller go with
//! its connection, so that there is no state left in which to show them a shutdown (Base 3.6.2). The notice of a normal
//! subsystem shutdown (Base 5.2, OAES bit 16) belongs to version 2.0, which the card does not claim.

use core::time::Duration;

use controller::ShutdownFlush;
use drive::limits::HOST_FLUSH_LIMIT;
use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::OrderlyEnd;

use crate::data_core::DataCore;

/// How long hosts' commands may take to be finished.
pub const HOSTS_LIMIT: Duration = Duration::from_secs(10);
/// How long drives may take to be flushed and to shut down.
pub const DRIVES_LIMIT: Duration = Duration::from_secs(30);
/// All of it.
pub const SHUTDOWN_LIMIT: Duration = HOSTS_LIMIT.checked_add(DRIVES_LIMIT).expect("some seconds");

/// Where the orderly end stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has not begun.
    No,
    /// Hosts' commands are being finished.
    Hosts { until: Instant },
    /// Drives are being flushed and told.
    Drives { until: Instant },
    /// All is done that can be done.
    Over,
}

/// The flush of all caches that a host's own shutdown waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostFlush {
    ticket: u64,
    running: bool,
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// A host that has set CC.SHN may lose interest in the card, and so in what it wrote: CSTS.SHST is complete only once
    /// the drives' caches are flushed (Base 3.6.2), or cannot be in time. All drives, since every controller has every
    /// namespace. Each host has the whole time from when it has asked, and no more, whatever flush of another's is under way.
    pub(crate) fn flush_for_hosts(&mut self, now: Instant) {
        if self.host_flush.running {
            let drives = &self.drives;
            self.host_flush.running = self.subsystem.complete_shutdowns(|controller, flush| {
                let answered = drives.iter().all(|drive| drive.flushed(flush.ticket).is_some());
                if !answered && now < flush.until {
                    return false;
                }
                for drive in drives.iter().filter(|drive| drive.flushed(flush.ticket) != Some(true)) {
                    hal_log::warn!(
                        "controller {}: shut down although drive {} has not flushed its writes",
                        controller,
                        drive.name().as_str()
                    );
                }
                true
            });
        }
        let ticket = self.host_flush.ticket + 1;
        if self.subsystem.begin_shutdowns(ShutdownFlush { ticket, until: now + HOST_FLUSH_LIMIT }) {
            self.host_flush = HostFlush { ticket, running: true };
            self.drives.iter_mut().for_each(|drive| drive.ask_flush(ticket, now));
        }
    }

    /// From now on control may ask for the orderly end by `end`, and is told there when it is over.
    pub fn end_when_asked(&mut self, end: &'static OrderlyEnd) {
        self.asked_by = Some(end);
    }

    /// Does as control asks.
    pub(crate) fn hear_of_end(&mut self, now: Instant) {
        let Some(end) = self.asked_by else { return };
        if end.is_asked_for() {
            self.begin_shutdown(now);
        }
        if self.is_shut_down() {
            end.tell_over(self.subsystem.core());
        }
    }

    /// Begins the orderly end, for good. The core is polled as always until [`Self::is_shut_down`], which takes
    /// [`SHUTDOWN_LIMIT`] at most.
    pub fn begin_shutdown(&mut self, now: Instant) {
        if self.ending != Ending::No {
            return;
        }
        let requests: usize = self.drives.iter().map(drive::Drive::outstanding).sum();
        let connections = self.target.counts().connections;
        hal_log::info!("shutdown: begun, {} connections, {} requests at drives", connections, requests);
        let until = now + HOSTS_LIMIT;
        self.ending = Ending::Hosts { until };
        self.target.begin_shutdown(now, until, &self.subsystem);
    }

    /// Whether the orderly end has begun.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.ending != Ending::No
    }

    /// Whether the orderly end is over: nothing is lost if the power goes now, or the log has said what is.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.ending == Ending::Over
    }

    /// One step of the orderly end.
    pub(crate) fn advance_shutdown(&mut self, now: Instant) {
        match self.ending {
            Ending::No | Ending::Over => {}
            Ending::Hosts { until } => {
                let counts = self.target.counts();
                if counts.connections == 0 && counts.draining == 0 {
                    hal_log::info!("shutdown: hosts are done");
                } else if now >= until {
                    let unfinished = counts.slots_total - counts.slots_free;
                    hal_log::warn!("shutdown: hosts were cut off, {} commands were not finished", unfinished);
                    self.cut_off(now, |_| true);
                } else {
                    return;
                }
                // Drives end together on all cores, when the last of them is done with its hosts.
                let hosts_are_done = if self.subsystem.has_others() { until } else { now };
                self.ending = Ending::Drives { until: hosts_are_done + DRIVES_LIMIT };
                self.drives.iter_mut().for_each(|drive| drive.begin_shutdown(now));
            }
            Ending::Drives { until } => {
                // Also those that this core has heard of since.
                self.drives.iter_mut().for_each(|drive| drive.begin_shutdown(now));
                let ended = self.drives.iter().filter(|drive| drive.has_ended_well()).count();
                // Those of other cores are told, and counted, there.
                let drives = self.drives.iter().filter(|drive| drive.is_home()).count();
                let all = self.drives.iter().all(drive::Drive::is_shut_down);
                if !all && now < until {
                    return;
                }
                if ended == drives {
                    hal_log::info!("shutdown: complete, {} drives are shut down", ended);
                } else {
                    hal_log::warn!("shutdown: complete, {} of {} drives are shut down", ended, drives);
                }
                self.ending = Ending::Over;
            }
        }
    }
}
