//! Flushes that no host has asked for by a command, and the queue's part of the drive's orderly end.
//!
//! In an orderly end what is dirty is flushed at once, so that a request that hangs does not stand in its way; the requests
//! inside end, and what they wrote is flushed.

use hal_api::{CommandQueue, Instant};

use super::{DriveQueue, Mode};

/// Flushes of everything that is dirty, one after another: one under way at most, and one that begins behind it. Who asks
/// waits for one that begins afterwards. Each has its own limit, so that a later one does not prolong the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlushRounds {
    /// The last tickets that were asked for, that the round under way covers, and that are over. They are compared, and so are not
    /// to wrap.
    asked: u64,
    started: u64,
    done: u64,
    /// The last ticket of a round that could not flush everything.
    not_flushed: u64,
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
    pub const NONE: Self = Self {
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
    pub fn are_open(&self) -> bool {
        self.running.is_some() || self.wanted.is_some()
    }

    /// When what is asked for is given up.
    pub fn deadline(&self) -> Instant {
        self.running.into_iter().chain(self.wanted).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// A round is to begin, and to be over by `until`.
    fn want(&mut self, until: Instant) {
        if !self.are_open() {
            self.failed = false;
        }
        self.wanted = self.wanted.max(Some(until));
    }

    fn ask(&mut self, until: Instant) -> u64 {
        self.want(until);
        self.asked += 1;
        self.asked
    }

    /// Whether everything was flushed, once the round of this ticket is over.
    fn outcome(&self, ticket: u64) -> Option<bool> {
        (self.done >= ticket).then_some(ticket > self.not_flushed)
    }

    /// The round that is wanted begins.
    fn start(&mut self) {
        (self.running, self.started, self.last) = (self.wanted.take(), self.asked, 0);
        self.failed = false;
    }

    /// The drive is being reset: a round begins anew when it is back.
    fn start_over(&mut self) {
        self.wanted = self.wanted.max(self.running.take());
    }

    /// What was to be flushed is gone, or the drive does not flush it.
    pub fn fail(&mut self) {
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
    fn end(&mut self) {
        (self.running, self.wanted) = (None, None);
        (self.started, self.done) = (self.asked, self.asked);
    }
}

/// The queue's part of the orderly end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Nothing new is taken; the home has not said that the drive ends.
    Refusing,
    /// The drive ends; until when requests and flushes have to be over.
    Until(Instant),
    /// The first flush was begun.
    Flushing(Instant),
    /// All is over, and the home is to hear of it.
    Over,
    /// The home was told.
    Told,
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// Asks for a flush of all writes that are home at this core, to be over by `until`; a drive that is being reset is waited for.
    /// Gives a ticket for [`Self::flushed`]. A round that others have begun may go before, for as long as its own limit allows.
    pub fn ask_flush(&mut self, until: Instant) -> u64 {
        let ticket = self.rounds.ask(until);
        if !self.is_dirty() {
            self.give_up_flush();
        }
        ticket
    }

    /// Whether everything was flushed, once the flush asked for with this ticket is over.
    pub fn flushed(&self, ticket: u64) -> Option<bool> {
        self.rounds.outcome(ticket)
    }

    /// The drive cannot flush any more, or there is nothing left to flush: all that was asked is over.
    fn give_up_flush(&mut self) {
        if self.owes_writes() {
            self.rounds.fail();
        }
        self.rounds.end();
    }

    /// The drive stops: a round begins anew when it is back, unless it ends.
    pub(super) fn interrupt_flush(&mut self) {
        match self.closing {
            None | Some(Closing::Refusing) => self.rounds.start_over(),
            Some(_) => self.give_up_flush(),
        }
    }

    /// One step of a flush round, and of the orderly end. While the drive is being reset or tried again, both wait.
    pub fn poll_flush(&mut self, now: Instant) -> usize {
        self.advance_round(now) + usize::from(self.advance_closing(now))
    }

    fn advance_round(&mut self, now: Instant) -> usize {
        if !self.rounds.are_open() {
            return 0;
        }
        let works = self.mode == Mode::Running;
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
        if !works || self.is_flushing() {
            return 0;
        }
        let status = self.take_own_flush();
        if self.rounds.running.is_none() {
            self.rounds.start();
        } else if status.is_some_and(|status| !status.is_success()) {
            self.rounds.fail_round();
        }
        match self.next_unflushed(self.rounds.last) {
            Some(nsid) => {
                if !self.start_own_flush(nsid, now) {
                    return 0;
                }
                self.rounds.last = nsid;
            }
            None => self.rounds.end_round(),
        }
        1
    }

    /// No request is taken any more.
    pub fn refuse_new(&mut self) {
        self.closing.get_or_insert(Closing::Refusing);
    }

    /// The orderly end begins.
    pub(super) fn close(&mut self, until: Instant) {
        self.closing = Some(Closing::Until(until));
    }

    /// Whether the drive is off the bus for good, and the home waits for no answer of this queue.
    pub fn is_over(&self) -> bool {
        self.over && !self.has_message()
    }

    /// Whether time matters to the orderly end.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.closing, Some(Closing::Until(_) | Closing::Flushing(_)))
    }

    fn advance_closing(&mut self, now: Instant) -> bool {
        if self.mode != Mode::Running {
            return false;
        }
        match self.closing {
            Some(Closing::Until(until)) => {
                self.rounds.want(until);
                self.closing = Some(Closing::Flushing(until));
            }
            Some(Closing::Flushing(until)) => {
                if now < until {
                    if self.rounds.are_open() {
                        return false;
                    }
                    if self.is_dirty() && !self.rounds.failed {
                        self.rounds.want(until);
                        return true;
                    }
                    if self.outstanding() > 0 {
                        return false;
                    }
                }
                self.give_up_flush();
                self.closing = Some(Closing::Over);
            }
            _ => return false,
        }
        true
    }

    /// Whether the home is to hear that all is over, once.
    pub(super) fn take_closed(&mut self) -> bool {
        let is_over = self.closing == Some(Closing::Over);
        if is_over {
            self.closing = Some(Closing::Told);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_over_when_its_own_round_is_however_many_were_before() {
        let last = u64::from(u32::MAX);
        let mut rounds =
            FlushRounds { asked: last, started: last, done: last, not_flushed: last, ..FlushRounds::NONE };
        for complete in [true, false, true] {
            let ticket = rounds.ask(Instant::FAR_FUTURE);
            assert_eq!(rounds.outcome(ticket), None);
            rounds.start();
            if !complete {
                rounds.fail_round();
            }
            rounds.end_round();
            assert_eq!(rounds.outcome(ticket), Some(complete), "ticket {ticket}");
        }
    }
}
