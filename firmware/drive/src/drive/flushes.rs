//! A flush of what all cores have written to a drive, which one of them asks for: each flushes its own.

use hal_api::{Instant, NvmeDevice};
use message::{CoreSet, MAX_DATA_CORES};

use super::Drive;
use crate::limits::HOST_FLUSH_LIMIT;
use crate::messages::Body;

/// What this core has asked for, and what others have asked of it.
#[derive(Debug)]
pub(super) struct Flushes {
    others: CoreSet,
    /// The last ticket that was asked for, and until when that has to be over.
    ticket: u64,
    until: Instant,
    /// What the own queue does of it, and its name for that.
    here: Asking,
    own: u64,
    /// The same for the other cores, and those that are still to be asked for the last ticket.
    there: [Asking; MAX_DATA_CORES],
    unsent: CoreSet,
    /// What other cores have asked for: those that wait for the own queue, and those that are to be answered.
    asked: [Asked; MAX_DATA_CORES],
    waiting: CoreSet,
    over: CoreSet,
}

/// A core flushes for one ticket at a time; those that come meanwhile wait, and the last of them stands for all. Tickets rise and
/// are compared: they are 64 bits, which do not wrap in a card's life.
#[derive(Debug, Clone, Copy)]
struct Asking {
    /// The last tickets that it was asked for, that is over, and that could not be flushed.
    sent: u64,
    done: u64,
    not_flushed: u64,
}

impl Asking {
    const NOTHING: Self = Self { sent: 0, done: 0, not_flushed: 0 };

    const fn is_over(&self) -> bool {
        self.done == self.sent
    }

    fn end(&mut self, complete: bool) {
        self.done = self.sent;
        if !complete {
            self.not_flushed = self.sent;
        }
    }
}

/// A flush that another core has asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    ticket: u64,
    /// The own queue's name for it.
    own: u64,
    complete: bool,
}

impl Flushes {
    pub const fn new(others: CoreSet) -> Self {
        Self {
            others,
            ticket: 0,
            until: Instant::FAR_FUTURE,
            here: Asking::NOTHING,
            own: 0,
            there: [Asking::NOTHING; MAX_DATA_CORES],
            unsent: CoreSet::NONE,
            asked: [Asked { ticket: 0, own: 0, complete: false }; MAX_DATA_CORES],
            waiting: CoreSet::NONE,
            over: CoreSet::NONE,
        }
    }

    fn there(&self, core: u8) -> Asking {
        self.there.get(usize::from(core)).copied().unwrap_or(Asking::NOTHING)
    }

    /// The next core of some that can be asked for the last ticket.
    fn next_unsent(&self, room: CoreSet) -> Option<u8> {
        let unsent = self.unsent.and(room);
        if unsent.is_empty() { None } else { unsent.iter().find(|&core| self.there(core).is_over()) }
    }

    /// The next message to another core that has `room`.
    pub fn take_message<Q>(&mut self, room: CoreSet) -> Option<(u8, Body<Q>)> {
        if let Some(to) = self.next_unsent(room) {
            self.unsent.remove(to);
            let (ticket, until) = (self.ticket, self.until);
            self.there.get_mut(usize::from(to))?.sent = ticket;
            return Some((to, Body::AskFlush { ticket, until }));
        }
        let to = self.over.and(room).first()?;
        self.over.remove(to);
        let Asked { ticket, complete, .. } = *self.asked.get(usize::from(to))?;
        Some((to, Body::FlushOver { ticket, complete }))
    }

    /// Whether [`Self::take_message`] has one.
    pub fn has_messages(&self) -> bool {
        self.next_unsent(self.others).is_some() || !self.over.is_empty()
    }

    /// Another core has flushed what it was asked for, or cannot.
    pub fn hear_over(&mut self, from: u8, ticket: u64, complete: bool) {
        if let Some(there) = self.there.get_mut(usize::from(from))
            && there.sent == ticket
            && !there.is_over()
        {
            there.end(complete);
        }
    }

    fn all(&self) -> impl Iterator<Item = Asking> {
        core::iter::once(self.here).chain(self.others.iter().map(|core| self.there(core)))
    }
}

impl<D: NvmeDevice> Drive<D> {
    /// Asks for a flush of what all cores have acknowledged, within [`HOST_FLUSH_LIMIT`]; a drive that is being reset is waited
    /// for. `ticket` rises from call to call; [`Self::flushed`] takes it. A flush that others have asked for may go before, for
    /// as long as its own limit allows.
    pub fn ask_flush(&mut self, ticket: u64, now: Instant) {
        let flushes = &mut self.flushes;
        (flushes.ticket, flushes.until) = (ticket, now + HOST_FLUSH_LIMIT);
        flushes.unsent = flushes.others;
        self.settle_flushes();
    }

    /// Whether everything was flushed, once the flush asked for with this ticket is over.
    #[must_use]
    pub fn flushed(&self, ticket: u64) -> Option<bool> {
        let flushes = &self.flushes;
        let is_over = flushes.all().all(|core| core.done >= ticket.min(flushes.ticket));
        is_over.then(|| flushes.all().all(|core| ticket > core.not_flushed))
    }

    /// Another core wants what is written by this one flushed.
    pub(super) fn hear_ask_flush(&mut self, from: u8, ticket: u64, until: Instant) {
        let own = self.queue.ask_flush(until);
        if let Some(asked) = self.flushes.asked.get_mut(usize::from(from)) {
            *asked = Asked { ticket, own, complete: false };
            self.flushes.waiting.insert(from);
        }
        self.settle_flushes();
    }

    /// Notes which flushes of the own queue are over, and asks it for the next.
    pub(super) fn settle_flushes(&mut self) {
        let Flushes { ticket, until, here, own, asked, waiting, over, .. } = &mut self.flushes;
        while here.done != *ticket {
            if here.is_over() {
                *own = self.queue.ask_flush(*until);
                here.sent = *ticket;
            }
            let Some(complete) = self.queue.flushed(*own) else { break };
            here.end(complete);
        }
        if waiting.is_empty() {
            return;
        }
        for core in waiting.iter() {
            if let Some(asked) = asked.get_mut(usize::from(core))
                && let Some(complete) = self.queue.flushed(asked.own)
            {
                asked.complete = complete;
                waiting.remove(core);
                over.insert(core);
            }
        }
    }
}
