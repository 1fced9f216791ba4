//! The orderly end of a drive, and flushes of its cache that no host has asked for by a command.
//!
//! What is dirty is flushed at once, so that a request that hangs does not stand in its way; the requests inside end, and
//! what they wrote is flushed; then the drive is told (CC.SHN, Base 3.6.1) and waited for (CSTS.SHST), then it loses the
//! bus. Every step has a limit: a drive that does not end loses the bus all the same. What could not be flushed by then
//! counts as lost, whatever the drive says of its shutdown.

use core::time::Duration;

use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::registers::{Configuration, ControllerStatus};

use super::{Drive, State};
use crate::limits::{CLOSING_LIMIT, HOST_FLUSH_LIMIT, SHUTDOWN_LEAST, SHUTDOWN_MOST};

/// Flushes of everything that is dirty, one after another: one under way at most, and one that begins behind it. Who asks
/// waits for one that begins afterwards. Each has its own limit, so that a later one does not prolong the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlushRounds {
    /// The last tickets that were asked for, that the round under way covers, and that are over.
    asked: u32,
    started: u32,
    done: u32,
    /// The last ticket of a round that could not flush everything.
    not_flushed: u32,
    /// The namespace flushed last in this round.
    last: u32,
    /// Something of what is asked for could not be flushed.
    failed: bool,
    /// Until when the round under way has to be over, if there is one.
    running: Option<Instant>,
    /// The same of the one that begins next.
    wanted: Option<Instant>,
}

impl FlushRounds {
    pub(super) const NONE: Self = Self {
        asked: 0,
        started: 0,
        done: 0,
        not_flushed: 0,
        last: 0,
        failed: false,
        running: None,
        wanted: None,
    };

    /// Whether some round was asked for that is not over.
    pub(super) fn are_open(&self) -> bool {
        self.running.is_some() || self.wanted.is_some()
    }

    /// When what is asked for is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.running.into_iter().chain(self.wanted).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// A round is to begin, and to be over by `until`.
    fn want(&mut self, until: Instant) {
        if !self.are_open() {
            self.failed = false;
        }
        self.wanted = self.wanted.max(Some(until));
    }

    fn ask(&mut self, ticket: u32, until: Instant) {
        self.want(until);
        self.asked = self.asked.max(ticket);
    }

    /// The round that is wanted begins.
    fn start(&mut self) {
        (self.running, self.started, self.last) = (self.wanted.take(), self.asked, 0);
        self.failed = false;
    }

    /// The drive is being reset: a round begins anew when it is back.
    pub(super) fn start_over(&mut self) {
        self.wanted = self.wanted.max(self.running.take());
    }

    /// What was to be flushed is gone, or the drive does not flush it.
    pub(super) fn fail(&mut self) {
        if self.are_open() {
            (self.failed, self.not_flushed) = (true, self.asked);
        }
    }

    /// The round under way did not flush everything.
    fn fail_round(&mut self) {
        (self.failed, self.not_flushed) = (true, self.not_flushed.max(self.started));
    }

    fn end_round(&mut self) {
        (self.running, self.done) = (None, self.started);
    }

    /// All that was asked is over.
    pub(super) fn end(&mut self) {
        (self.running, self.wanted) = (None, None);
        (self.started, self.done) = (self.asked, self.asked);
    }
}

impl<D: NvmeDevice> Drive<D> {
    /// Asks for a flush of all acknowledged writes, within [`HOST_FLUSH_LIMIT`]; a drive that is being reset is waited for.
    /// `ticket` rises from call to call; [`Self::flushed`] takes it. A round that others have begun may go before, for as
    /// long as its own limit allows.
    pub fn ask_flush(&mut self, ticket: u32, now: Instant) {
        self.rounds.ask(ticket, now + HOST_FLUSH_LIMIT);
        if self.state == State::ShutDown || !self.is_dirty() {
            self.give_up_flush();
        }
    }

    /// Whether everything was flushed, once the flush asked for with this ticket is over.
    #[must_use]
    pub fn flushed(&self, ticket: u32) -> Option<bool> {
        (self.rounds.done >= ticket.min(self.rounds.asked)).then_some(ticket > self.rounds.not_flushed)
    }

    /// Whether writes may be in the drive's cache only.
    fn is_dirty(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.io.next_unflushed(0).is_some())
    }

    /// Whether some of those were acknowledged.
    fn owes_writes(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.io.owes_writes())
    }

    /// The drive cannot flush any more, or there is nothing left to flush: all that was asked is over.
    pub(super) fn give_up_flush(&mut self) {
        if self.owes_writes() {
            self.rounds.fail();
        }
        self.rounds.end();
    }

    /// One step of a flush round. While the drive is being reset or tried again, the round waits.
    pub(super) fn poll_flush(&mut self, now: Instant) -> usize {
        if !self.rounds.are_open() {
            return 0;
        }
        let works = matches!(self.state, State::Ready | State::Closing);
        let is_due = |until: Option<Instant>| until.is_some_and(|until| now >= until);
        if is_due(self.rounds.wanted) || !(works || self.is_dirty()) {
            self.give_up_flush();
            return 1;
        }
        if is_due(self.rounds.running) {
            if self.owes_writes() {
                self.rounds.fail_round();
            }
            self.rounds.end_round();
            return 1;
        }
        let Some(parts) = &mut self.parts else { return 0 };
        if !works || parts.io.is_flushing() {
            return 0;
        }
        let rounds = &mut self.rounds;
        let status = parts.io.take_own_flush();
        if rounds.running.is_none() {
            rounds.start();
        } else if status.is_some_and(|status| !status.is_success()) {
            rounds.fail_round();
        }
        match parts.io.next_unflushed(rounds.last) {
            Some(nsid) => {
                if !parts.io.start_own_flush(nsid, now) {
                    return 0;
                }
                rounds.last = nsid;
            }
            None => rounds.end_round(),
        }
        1
    }

    /// Begins the orderly end, for good: no new request is taken, those inside end, the cache is flushed, the drive is
    /// told. The caller goes on polling until [`Self::is_shut_down`].
    pub fn begin_shutdown(&mut self, now: Instant) {
        if self.end_by.is_none() {
            self.end_by = Some(now + CLOSING_LIMIT);
        }
    }

    /// Whether the drive is off the bus after [`Self::begin_shutdown`]: nothing is outstanding, and it may lose power.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.state == State::ShutDown
    }

    /// Whether an orderly end has begun.
    pub(super) fn is_ending(&self) -> bool {
        self.end_by.is_some()
    }

    /// One step of the orderly end.
    pub(super) fn poll_shutdown(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let Some(end_by) = self.end_by else { return 0 };
        match self.state {
            State::Ready => {
                self.rounds.want(end_by);
                self.state = State::Closing;
                1
            }
            State::Closing => self.close(end_by, now, pool),
            State::ShuttingDown { deadline } => self.await_shutdown(deadline, now, pool),
            State::ShutDown => 0,
            State::Start | State::Failed { .. } => {
                self.conclude(pool);
                1
            }
            // It is on its way up, perhaps with writes in its cache from before a reset.
            State::Disabling { .. } | State::Enabling { .. } | State::Asking(_) if now < end_by => 0,
            _ => {
                hal_log::warn!("drive {}: not shut down, it was on its way up", self.name().as_str());
                self.conclude(pool);
                1
            }
        }
    }

    /// Requests end, and what they wrote is flushed, also while others hang.
    fn close(&mut self, end_by: Instant, now: Instant, pool: &mut PagePool) -> usize {
        if now < end_by {
            if self.rounds.are_open() {
                return 0;
            }
            if self.is_dirty() && !self.rounds.failed {
                self.rounds.want(end_by);
                return 1;
            }
            if self.outstanding() > 0 {
                return 0;
            }
        }
        self.give_up_flush();
        self.tell(now, pool);
        1
    }

    /// Sets CC.SHN. Commands that have not ended by now are the drive's to end or to drop.
    pub(super) fn tell(&mut self, now: Instant, pool: &mut PagePool) {
        let Some(parts) = &mut self.parts else { return };
        parts.io.hold();
        parts.admin.forget();
        if self.device.status() == u32::MAX {
            hal_log::warn!("drive {}: is gone, not shut down", self.name().as_str());
            return self.conclude(pool);
        }
        let cc = Configuration(self.device.configuration());
        self.device.set_configuration(cc.with_shutdown().0);
        let wanted = match self.entry_latency_us {
            0 => SHUTDOWN_LEAST,
            us => Duration::from_micros(u64::from(us)).clamp(SHUTDOWN_LEAST, SHUTDOWN_MOST),
        };
        self.state = State::ShuttingDown { deadline: now + wanted };
    }

    fn await_shutdown(&mut self, deadline: Instant, now: Instant, pool: &mut PagePool) -> usize {
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
        self.conclude(pool);
        1
    }

    /// Takes the bus away; everything comes back, and hosts hear of what was not flushed.
    fn conclude(&mut self, pool: &mut PagePool) {
        self.let_go(pool);
        self.give_up_flush();
        self.lose_writes();
        self.state = State::ShutDown;
    }

    /// The drive may touch no memory any more, so all pages come back, and requests end.
    pub(super) fn let_go(&mut self, pool: &mut PagePool) {
        self.device.set_bus_master(false);
        let Some(parts) = &mut self.parts else { return };
        parts.io.hold();
        parts.admin.forget();
        parts.io.release(pool);
        parts.io.refuse();
    }

    /// Whether the drive has said that it is shut down.
    #[must_use]
    pub fn has_ended_well(&self) -> bool {
        self.ended_well
    }
}
