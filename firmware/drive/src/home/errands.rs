//! What a drive that works is asked beside I/O, one admin command at a time: Aborts first, then what its events are
//! about, then its health. One Asynchronous Event Request stays out (Base 5.2).

use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::Completion;
use nvme::log_page::{SmartLog, id};

use super::bring_up::Task;
use super::{DriveHome, State};
use crate::admin::{Progress, abort};
use crate::events::FailReason;
use crate::limits::{ABORT_TIMEOUT, ADMIN_TIMEOUT, EVENT_INTERVAL, SMART_INTERVAL};

/// Types of events (Base figure 146).
const ERROR: u8 = 0;
const HEALTH: u8 = 1;
const NOTICE: u8 = 2;
/// Namespace Attribute Changed, a notice.
const NAMESPACES_CHANGED: u8 = 0;

/// The admin command that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// None, or one of the bring-up.
    None,
    /// For the queue of this core.
    Abort {
        core: u8,
    },
    Health,
    /// The log page that an event names: read so that the drive tells of the next one.
    EventLog {
        rescan: bool,
    },
    Scan(Task),
}

/// An event whose log page is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    page: u8,
    rescan: bool,
}

impl<D: NvmeDevice> DriveHome<D> {
    /// Takes an answer, or sends what comes next.
    pub(super) fn poll_errands(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let Some(admin) = &mut self.admin else { return 0 };
        let progress = admin.progress(now);
        if let Some(event) = admin.take_event() {
            self.take_event_of_drive(&event, now);
        }
        match progress {
            Progress::Waiting => usize::from(self.is_idle() && self.next_errand(now, pool)),
            Progress::Ended(completion) => {
                self.errand_ended(&completion, now, pool);
                1
            }
            Progress::TimedOut => {
                let reason = match self.errand {
                    Errand::Abort { .. } => FailReason::CommandTimeout,
                    _ => FailReason::AdminTimeout,
                };
                self.reset(reason, now);
                1
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.admin.as_ref().is_some_and(|admin| admin.deadline().is_none())
    }

    fn next_errand(&mut self, now: Instant, pool: &mut PagePool) -> bool {
        self.errand = Errand::None;
        if let Some((core, cid)) = self.take_late() {
            self.errand = Errand::Abort { core };
            let command = abort(self.qid(core), cid);
            return self.admin.as_mut().is_some_and(|admin| admin.send(command, now, ABORT_TIMEOUT));
        }
        let Some(admin) = &mut self.admin else { return false };
        if self.state != State::Ready {
            return false;
        }
        if let Some(Event { page, rescan }) = self.event.take() {
            self.errand = Errand::EventLog { rescan };
            let command = admin.get_log_page(pool, page, log_bytes(page));
            return admin.send(command, now, ADMIN_TIMEOUT);
        }
        if now >= self.smart_at {
            self.smart_at = now + SMART_INTERVAL;
            self.errand = Errand::Health;
            let command = admin.get_smart(pool);
            return admin.send(command, now, ADMIN_TIMEOUT);
        }
        if self.wants_events && now >= self.events_from && !admin.awaits_event() {
            return admin.await_event();
        }
        false
    }

    /// The next late command that a core wants aborted.
    fn take_late(&mut self) -> Option<(u8, u16)> {
        let first = self.aborted_last.saturating_add(1);
        let mut cores = (first..self.cores).chain(0..first);
        let (core, cid) =
            cores.find_map(|core| Some((core, self.late.get_mut(usize::from(core))?.take()?)))?;
        self.aborted_last = core;
        Some((core, cid))
    }

    fn errand_ended(&mut self, completion: &Completion, now: Instant, pool: &mut PagePool) {
        let Some(admin) = &mut self.admin else { return };
        match core::mem::replace(&mut self.errand, Errand::None) {
            // Whatever the answer: the command comes home, or the drive is reset at its deadline.
            Errand::Abort { core } => self.abort_over.insert(core),
            Errand::Health if completion.status().is_success() => {
                let health = admin.smart(pool);
                self.note_health(health);
            }
            Errand::None | Errand::Health | Errand::EventLog { rescan: false } => (),
            Errand::EventLog { rescan: true } => {
                let first = self.scan_again(pool);
                self.go_on_scanning(first, now, pool);
            }
            Errand::Scan(task) => {
                if let Ok(next) = self.answer(task, completion, pool) {
                    self.go_on_scanning(next, now, pool);
                }
            }
        }
    }

    fn go_on_scanning(&mut self, next: Option<Task>, now: Instant, pool: &mut PagePool) {
        let Some(task) = next else { return self.take_namespaces() };
        if self.send(task, now, pool) {
            self.errand = Errand::Scan(task);
        }
    }

    /// The Asynchronous Event Request has ended.
    fn take_event_of_drive(&mut self, completion: &Completion, now: Instant) {
        if !completion.status().is_success() {
            // It takes none: its health is read from time to time all the same.
            self.wants_events = false;
            return;
        }
        self.counters.events += 1;
        self.events_from = now + EVENT_INTERVAL;
        let name = self.name();
        let [kind, information, page, _] = completion.result.get().to_le_bytes();
        let kind = kind & 0b111;
        match (kind, information) {
            (ERROR, _) => {
                hal_log::warn!("drive {}: event: error, information {:#04x}", name.as_str(), information)
            }
            // What it is about follows from the log.
            (HEALTH, _) => hal_log::debug!("drive {}: event: health", name.as_str()),
            (NOTICE, NAMESPACES_CHANGED) => {
                hal_log::info!("drive {}: event: namespaces changed", name.as_str())
            }
            _ => hal_log::info!(
                "drive {}: event: type {}, information {:#04x}, log page {:#04x}",
                name.as_str(),
                kind,
                information,
                page
            ),
        }
        if page == id::SMART {
            self.smart_at = Instant::ZERO;
        } else {
            self.event = Some(Event { page, rescan: (kind, information) == (NOTICE, NAMESPACES_CHANGED) });
        }
    }

    /// The drive has told its health: what has changed of its warnings is said.
    pub(super) fn note_health(&mut self, health: SmartLog) {
        let before = self.smart.as_ref().map_or(0, |smart| smart.critical_warning);
        let after = health.critical_warning;
        let name = self.name();
        if after != before && after != 0 {
            hal_log::warn!("drive {}: health warning {:#04x} (was {:#04x})", name.as_str(), after, before);
        } else if after != before {
            hal_log::info!("drive {}: health warning is over (was {:#04x})", name.as_str(), before);
        }
        self.smart = Some(health);
        self.has_health_news = true;
    }
}

/// How much of a log page is read: enough for the drive to take it as read.
const fn log_bytes(page: u8) -> u32 {
    match page {
        id::ERROR => 64,
        id::CHANGED_NAMESPACES => 4096,
        _ => 512,
    }
}
