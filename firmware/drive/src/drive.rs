//! What one data core has of a drive: its queue there, and on one of the cores the drive's home.

mod flushes;
mod others;

use controller::{IoCompletion, IoRequest, Rejected};
use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use message::{CoreSet, mailbox};
use nvme::log_page::SmartLog;

use crate::events::{DriveCounters, DriveEvent, DriveIdentity};
use crate::home::DriveHome;
use crate::limits::REST;
use crate::name::Name;
use crate::queue::DriveQueue;
use crate::report::Report;
use crate::tables::DriveMemory;
use flushes::Flushes;
use others::Others;

/// A data core's part of a drive.
pub struct Drive<D: NvmeDevice> {
    /// Which of the data cores this one is.
    core: u8,
    others: Others,
    flushes: Flushes,
    name: Name,
    home: Option<DriveHome<D>>,
    queue: DriveQueue<D::Queue>,
    report: Report,
    /// When it was last polled, and whether that found something.
    polled_at: Instant,
    worked: bool,
}

impl<D: NvmeDevice> Drive<D> {
    /// A drive of the only data core, which will be brought up by [`Self::poll`]. Takes the admin queue and queue `io_queue`
    /// of `device`.
    #[must_use]
    pub fn new(device: D, io_queue: u16, memory: DriveMemory) -> Self {
        Self::at_home(device, (0, 1), io_queue, memory)
    }

    /// As [`Self::new`], on the drive's home core. `place` is which of the data cores it is, and how many there are;
    /// `io_queue` is the first core's queue, and those of the others follow.
    pub(crate) fn at_home(device: D, place: (u8, u8), io_queue: u16, memory: DriveMemory) -> Self {
        let home = DriveHome::new(device, place.0, place.1, io_queue);
        let name = home.name();
        Self::with(Some(home), name, place, place.0, io_queue, memory)
    }

    /// The part of a drive whose home is another core.
    pub(crate) fn elsewhere(
        home: u8,
        address: u16,
        place: (u8, u8),
        io_queue: u16,
        memory: DriveMemory,
    ) -> Self {
        Self::with(None, Name::of(address), place, home, io_queue, memory)
    }

    fn with(
        home: Option<DriveHome<D>>,
        name: Name,
        (core, cores): (u8, u8),
        home_core: u8,
        io_queue: u16,
        memory: DriveMemory,
    ) -> Self {
        let all = CoreSet::all_but(core, cores);
        let (others, flushes) = (Others::new(all, home_core, home.is_some()), Flushes::new(all));
        let queue = DriveQueue::new(name, io_queue + u16::from(core), cores > 1, memory);
        Self {
            core,
            others,
            flushes,
            name,
            home,
            queue,
            report: Report::default(),
            polled_at: Instant::ZERO,
            worked: true,
        }
    }

    /// Bring-up, completions, waiting parts, time-outs and resets. Returns how much was done; 0 is idle.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let mut work = self.queue.poll(now, pool);
        work += self.exchange(now, pool);
        if let Some(home) = &mut self.home {
            work += home.poll(now, pool);
        }
        work += self.exchange(now, pool);
        work += self.queue.poll_flush(now);
        work += self.exchange(now, pool);
        self.settle_flushes();
        if self.report.looks(now) {
            let counters = self.counters();
            self.report.tell(self.name, &counters, now);
        }
        (self.polled_at, self.worked) = (now, work > 0);
        work
    }

    /// Lets home and queue of this core talk until neither has anything to say. Returns how many messages that was.
    fn exchange(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let home_speaks = self.home.as_ref().is_some_and(DriveHome::has_messages);
        if home_speaks || self.queue.has_message() { self.talk(now, pool) } else { 0 }
    }

    #[inline(never)] // Seldom, and large.
    fn talk(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let Some(home) = &mut self.home else { return 0 };
        let mut here = CoreSet::NONE;
        here.insert(self.core);
        let mut messages = 0;
        loop {
            if let Some(message) = self.queue.take_message() {
                home.hear(self.core, message, now);
            } else if let Some((_, message)) = home.take_message(here) {
                self.queue.hear(message, pool);
            } else {
                return messages;
            }
            messages += 1;
        }
    }

    /// Takes a block request. While the drive is being reset it waits; while the drive is away it is refused.
    ///
    /// # Errors
    /// [`Rejected`] gives it back.
    pub fn submit(&mut self, request: IoRequest, pool: &mut PagePool, now: Instant) -> Result<(), Rejected> {
        self.queue.submit(request, pool, now)
    }

    /// Collects the end of a request.
    pub fn complete(&mut self) -> Option<IoCompletion> {
        self.queue.complete()
    }

    /// Rings the doorbells for what was submitted and taken since the last call. Once a turn, at its end. Gives the time before
    /// which nothing can happen at the drive unless it is told something, where there is one: until then a turn need not look at it.
    pub fn flush(&mut self) -> Option<Instant> {
        self.queue.flush();
        if let Some(home) = &mut self.home {
            home.flush();
        }
        let is_silent = |home: &DriveHome<D>| home.is_at_rest() && !home.has_messages();
        let says_nothing = !self.queue.has_message() && self.home.as_ref().is_none_or(is_silent);
        let rests = !self.worked && self.queue.is_idle() && says_nothing && !self.has_messages();
        rests.then(|| self.next_deadline(self.polled_at).min(self.polled_at + REST))
    }

    /// The next change that the caller was not told.
    pub fn take_event(&mut self) -> Option<DriveEvent> {
        // Before all others: a namespace may be gone by the next.
        if let Some(nsid) = self.queue.take_lost_writes() {
            return Some(DriveEvent::WritesLost { nsid });
        }
        self.home.as_mut()?.take_event()
    }

    /// When the latest loss of writes was found out: all cores are told the same.
    #[must_use]
    pub fn loss_found_at(&self) -> Instant {
        self.queue.lost_at()
    }

    /// Asks for interrupts. True when something waits already: then the core must not sleep.
    pub fn arm(&mut self) -> bool {
        let waits = self.queue.arm() | self.home.as_mut().is_some_and(DriveHome::arm);
        waits || self.has_work() || self.has_messages()
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        self.queue.disarm();
        if let Some(home) = &mut self.home {
            home.disarm();
        }
    }

    /// Whether a call of [`Self::poll`], [`Self::complete`] or [`Self::take_event`] has something to do that no
    /// interrupt and no deadline tells of.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.home.as_ref().is_some_and(DriveHome::has_work) || self.queue.has_work()
    }

    /// When the drive wants to be polled at the latest.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let home = self.home.as_ref().map_or(Instant::FAR_FUTURE, |home| home.next_deadline(now));
        home.min(self.queue.next_deadline(now))
    }

    /// Whether this core has the drive's registers.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.home.is_some()
    }

    /// Whether requests are carried out now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.home.as_ref().map_or(self.queue.is_running(), DriveHome::is_ready)
    }

    /// Whether the drive works or is on its way up, perhaps with writes in its cache from before a reset.
    pub(crate) fn is_at_work(&self) -> bool {
        self.home.as_ref().is_some_and(DriveHome::is_at_work)
    }

    /// Requests inside, quarantined ones included.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.queue.outstanding()
    }

    /// Requests whose host was told while their pages are still out.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.queue.quarantined()
    }

    /// What happened on this core since the start.
    #[must_use]
    pub fn counters(&self) -> DriveCounters {
        let of_queue = self.queue.counters;
        let of_home = self.home.as_ref().map(DriveHome::counters).unwrap_or_default();
        DriveCounters {
            unknown_completions: of_queue.unknown_completions + of_home.unknown_completions,
            resets: of_home.resets,
            failures: of_home.failures,
            events: of_home.events,
            lost_caches: of_home.lost_caches,
            ..of_queue
        }
    }

    /// Confirmations that nobody has waited for: bugs, all of them.
    pub(crate) fn faults(&self) -> u64 {
        self.home.as_ref().map_or(0, DriveHome::faults)
    }

    /// SMART / Health data, at most `SMART_INTERVAL` old while the drive works.
    #[must_use]
    pub fn smart(&self) -> Option<&SmartLog> {
        self.home.as_ref().map_or(self.others.health(), DriveHome::smart)
    }

    /// Who the drive is; blanks before it was asked.
    #[must_use]
    pub fn identity(&self) -> &DriveIdentity {
        self.home.as_ref().map_or(&DriveIdentity::UNKNOWN, DriveHome::identity)
    }

    /// The PCI address, packed as bus << 8 | device << 3 | function.
    #[must_use]
    pub fn address(&self) -> u16 {
        self.home.as_ref().map_or(0, DriveHome::address)
    }

    /// How logs name the drive.
    #[must_use]
    pub fn name(&self) -> Name {
        self.name
    }

    /// What an operator is told of this core's part of the drive, whose number is `number`.
    #[must_use]
    pub fn tell(&self, number: u8) -> mailbox::Drive {
        mailbox::Drive {
            number,
            outstanding: self.outstanding() as u16,
            quarantined: self.quarantined() as u16,
            counters: self.counters().into(),
            home: self.home.as_ref().map(DriveHome::told),
        }
    }

    /// Begins the orderly end, for good: no new request is taken, those inside end, the cache is flushed, the drive is
    /// told. With several cores it begins when all have called this. The caller goes on polling until [`Self::is_shut_down`].
    pub fn begin_shutdown(&mut self, now: Instant) {
        self.queue.refuse_new();
        match &mut self.home {
            Some(home) => home.want_end(self.core, now),
            None => self.others.want_end(),
        }
    }

    /// The drive leaves: in order, or at once because it is gone, or has to go, without a warning. Then it loses the bus,
    /// requests end, what comes is refused, and what was acknowledged without a Flush counts as lost. The caller collects ends
    /// and events, then calls [`Self::take_apart`].
    pub(crate) fn leave(&mut self, in_order: bool, now: Instant, pool: &mut PagePool) {
        self.queue.refuse_new();
        self.others.tell_leaving();
        let Some(home) = &mut self.home else { return };
        if in_order {
            home.begin_shutdown(now);
        } else {
            home.conclude();
        }
        self.exchange(now, pool);
    }

    /// Whether the drive is off the bus for good, after [`Self::begin_shutdown`]: nothing is at it, and it may lose power. A
    /// core that is not its home asks only whether its own part is over.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.home.as_ref().map_or(self.queue.is_over(), DriveHome::is_shut_down)
    }

    /// Whether the drive has said that it is shut down.
    #[must_use]
    pub fn has_ended_well(&self) -> bool {
        self.home.as_ref().is_some_and(DriveHome::has_ended_well)
    }

    /// Whether there are losses that the caller was not told.
    pub(crate) fn has_lost_writes(&self) -> bool {
        self.queue.has_lost_writes()
    }

    /// The device with its queues, where this is its home, and the memory of the tables; the drive's own pages go back to the
    /// pool. After [`Self::is_shut_down`], with nothing outstanding.
    pub(crate) fn take_apart(self, pool: &mut PagePool) -> (Option<D>, DriveMemory) {
        debug_assert!(self.outstanding() == 0);
        let memory = self.queue.take_apart(pool);
        (self.home.map(|home| home.take_apart(pool)), memory)
    }

    /// Whether the drive can tell of an event.
    #[cfg(test)]
    pub(crate) fn awaits_event(&self) -> bool {
        self.home.as_ref().is_some_and(DriveHome::awaits_event)
    }

    /// Whether this core's queue sends commands.
    #[cfg(test)]
    pub(crate) fn queue_is_running(&self) -> bool {
        self.queue.is_running()
    }

    /// A namespace with writes that are in the drive's cache only.
    #[cfg(test)]
    pub(crate) fn next_unflushed(&self) -> Option<u32> {
        self.queue.next_unflushed(0)
    }
}
