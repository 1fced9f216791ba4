//! The ways between data cores: a ring in each direction between any two.
//!
//! Each core has a bell that the others ring, so that a turn in which nobody has said anything costs it one look.
//!
//! A ring that is full delays messages and loses none: what finds no room waits in a backlog of bounded size and goes in a later
//! turn, in order. Nobody waits for anybody, since a core takes in what there is whatever it has itself to send. Senders see to it
//! that the backlog suffices: of each kind of message a bounded number is under way (`between_cores.rs`).

use hal_mem::{Arena, Bell, Consumer, OutOfMemory, Producer};
use heapless::Vec;

use crate::between_cores::{
    CoreSet, MAX_CHANGES, MAX_CONNECT_REQUESTS, MAX_DATA_CORES, MAX_DRIVES_TOLD, MAX_LOCK_REQUESTS,
    MAX_NAMESPACES, MAX_QUEUES, MAX_RANGE_LOCKS,
};

const _: () = assert!(MAX_DATA_CORES <= Bell::RINGS);

/// Messages in a ring.
pub const MESH_RING_ENTRIES: usize = 16;
/// Messages that wait for room in a ring: Connect requests and answers, queues that are gone, changes and confirmations, namespaces
/// that are found and gone or to be served, drives that have come up, what is said of locks, and what is told late.
pub const BACKLOG_ENTRIES: usize = 2 * MAX_CONNECT_REQUESTS
    + MAX_QUEUES
    + 2 * MAX_CHANGES
    + 2 * MAX_NAMESPACES
    + MAX_DRIVES_TOLD
    + LOCK_MESSAGES
    + NEWS_LIMIT;
/// For each request of the other core: granted, and over. For each of this core: the request, and its end. For each lock of
/// anybody that is over: that it is.
const LOCK_MESSAGES: usize = 4 * MAX_LOCK_REQUESTS + MAX_RANGE_LOCKS;
/// What can be told late keeps off when as many wait: the rest is for what cannot.
const NEWS_LIMIT: usize = 16;

/// Messages of which one can stand for two.
pub trait Merge {
    /// Whether this one, which waits, says what `later` says, wherever either stands among other messages.
    fn absorbs(&self, later: &Self) -> bool;
}

/// What a core has said and heard since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeshCounters {
    /// Messages put into rings.
    pub sent: u64,
    /// Messages taken out.
    pub received: u64,
    /// Messages that one before them has stood for.
    pub merged: u64,
    /// Most messages that ever waited for room towards one core.
    pub deepest_backlog: usize,
}

/// Messages that wait, first in, first out.
struct Backlog<M: 'static> {
    places: &'static mut [Option<M>],
    first: usize,
    count: usize,
}

impl<M> Backlog<M> {
    fn push(&mut self, message: M) -> Result<(), M> {
        let length = self.places.len();
        let place = (self.first + self.count).checked_rem(length);
        let free = place.filter(|_| self.count < length).and_then(|place| self.places.get_mut(place));
        let Some(free) = free else { return Err(message) };
        *free = Some(message);
        self.count += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<M> {
        let message = self.places.get_mut(self.first)?.take()?;
        self.first = (self.first + 1).checked_rem(self.places.len())?;
        self.count -= 1;
        Some(message)
    }

    fn iter(&self) -> impl Iterator<Item = &M> {
        self.places.iter().flatten()
    }
}

/// Into another core's ring.
struct Way<M: 'static> {
    ring: Producer<'static, M, MESH_RING_ENTRIES>,
    /// The other core's, and the number of the ring there.
    bell: &'static Bell,
    number: usize,
}

impl<M> Way<M> {
    fn push(&mut self, message: M) -> Result<(), M> {
        self.ring.push(message)?;
        // Who sleeps is woken when the turn is over: see `Mesh::take_news_for`.
        let _ = self.bell.ring(self.number);
        Ok(())
    }
}

/// The ends towards one other core.
struct Link<M: 'static> {
    out: Option<Way<M>>,
    incoming: Option<Consumer<'static, M, MESH_RING_ENTRIES>>,
    backlog: Backlog<M>,
}

/// One core's ends towards all others.
pub struct Mesh<M: 'static> {
    core: u8,
    /// By core; the own place is empty.
    links: &'static mut [Link<M>],
    /// What the others ring, and the cores whose rings may hold something.
    bell: &'static Bell,
    heard: u32,
    /// Whom to listen to first, so that nobody is kept waiting.
    next: u32,
    /// Messages in all backlogs.
    waiting: usize,
    /// Who has been sent something since this was last asked for.
    news_for: CoreSet,
    counters: MeshCounters,
}

impl<M> core::fmt::Debug for Mesh<M> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (core, cores) = (self.core, self.links.len());
        formatter.debug_struct("Mesh").field("core", &core).field("cores", &cores).finish_non_exhaustive()
    }
}

impl<M: Merge> Mesh<M> {
    /// The meshes of `cores` data cores, at most [`MAX_DATA_CORES`], in their order.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small.
    pub fn split(arena: &mut Arena, cores: usize) -> Result<Vec<Self, MAX_DATA_CORES>, OutOfMemory> {
        Self::with_backlog(arena, cores, BACKLOG_ENTRIES)
    }

    /// The same for other messages, of which `entries` may wait for room.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small.
    pub fn with_backlog(
        arena: &mut Arena,
        cores: usize,
        entries: usize,
    ) -> Result<Vec<Self, MAX_DATA_CORES>, OutOfMemory> {
        let cores = cores.clamp(1, MAX_DATA_CORES);
        let mut backlogs: Vec<&'static mut [Option<M>], { MAX_DATA_CORES * MAX_DATA_CORES }> = Vec::new();
        for place in 0..cores * cores {
            let entries = if place / cores == place % cores { 0 } else { entries };
            let _ = backlogs.push(arena.slice(entries, |_| None)?);
        }
        let bells: &'static [Bell] = arena.slice(cores, |_| Bell::default())?;
        let links = arena.slice(cores * cores, |place| {
            let places = backlogs.get_mut(place).map(core::mem::take).unwrap_or_default();
            Link { out: None, incoming: None, backlog: Backlog { places, first: 0, count: 0 } }
        })?;
        for from in 0..cores {
            for to in (0..cores).filter(|&to| to != from) {
                let (producer, consumer) = arena.ring()?.split();
                if let (Some(link), Some(bell)) = (links.get_mut(from * cores + to), bells.get(to)) {
                    link.out = Some(Way { ring: producer, bell, number: from });
                }
                if let Some(link) = links.get_mut(to * cores + from) {
                    link.incoming = Some(consumer);
                }
            }
        }
        let mut meshes = Vec::new();
        let mut rest = links;
        for (bell, core) in bells.iter().zip(0..) {
            let Some((links, others)) = rest.split_at_mut_checked(cores) else { break };
            rest = others;
            // As many as there are cores.
            let _ = meshes.push(Self {
                core,
                links,
                bell,
                heard: 0,
                next: 0,
                waiting: 0,
                news_for: CoreSet::NONE,
                counters: MeshCounters::default(),
            });
        }
        Ok(meshes)
    }

    /// Which of the data cores this one is.
    #[must_use]
    pub const fn core(&self) -> u8 {
        self.core
    }

    /// How many data cores there are.
    #[must_use]
    pub const fn cores(&self) -> u8 {
        self.links.len() as u8
    }

    /// All other cores.
    #[must_use]
    pub fn others(&self) -> CoreSet {
        CoreSet::all_but(self.core, self.cores())
    }

    /// Sends a message, now or in a later turn.
    ///
    /// # Errors
    /// Gives it back where there is no such core, or more waits for it than ever should.
    pub fn send(&mut self, to: u8, message: M) -> Result<(), M> {
        let Some(link) = self.links.get_mut(usize::from(to)) else { return Err(message) };
        let Some(out) = link.out.as_mut() else { return Err(message) };
        if link.backlog.count == 0 {
            match out.push(message) {
                Ok(()) => {
                    self.counters.sent += 1;
                    self.news_for.insert(to);
                    return Ok(());
                }
                Err(message) => return self.delay(to, message),
            }
        }
        self.delay(to, message)
    }

    fn delay(&mut self, to: u8, message: M) -> Result<(), M> {
        let Some(link) = self.links.get_mut(usize::from(to)) else { return Err(message) };
        if link.backlog.iter().any(|earlier| earlier.absorbs(&message)) {
            self.counters.merged += 1;
            return Ok(());
        }
        link.backlog.push(message)?;
        self.waiting += 1;
        self.counters.deepest_backlog = self.counters.deepest_backlog.max(link.backlog.count);
        Ok(())
    }

    /// The cores that a message can go to at once. Who asks before each needs little of the backlog.
    pub fn with_room(&mut self) -> CoreSet {
        let mut cores = CoreSet::NONE;
        for (to, link) in (0u8..).zip(self.links.iter_mut()) {
            if link.backlog.count == 0 && link.out.as_mut().is_some_and(|out| out.ring.has_room()) {
                cores.insert(to);
            }
        }
        cores
    }

    /// Whether what can be told late may be sent there now.
    #[must_use]
    pub fn takes_news(&self, to: u8) -> bool {
        self.links.get(usize::from(to)).is_some_and(|link| link.backlog.count < NEWS_LIMIT)
    }

    /// Sends what has waited, as far as there is room now. Returns how many messages that was.
    pub fn flush(&mut self) -> u32 {
        if self.waiting == 0 {
            return 0;
        }
        let mut moved = 0;
        for (to, link) in self.links.iter_mut().enumerate().filter(|(_, link)| link.backlog.count > 0) {
            let Some(out) = link.out.as_mut() else { continue };
            while out.ring.has_room() {
                let Some(message) = link.backlog.pop() else { break };
                // There is room: nobody else puts anything in.
                let _ = out.push(message);
                self.news_for.insert(to as u8);
                moved += 1;
            }
        }
        self.waiting -= moved as usize;
        self.counters.sent += u64::from(moved);
        moved
    }

    /// The cores that have been sent something since this was last asked: they may be asleep.
    pub fn take_news_for(&mut self) -> CoreSet {
        core::mem::take(&mut self.news_for)
    }

    /// The next message, and who has sent it. Each core has its turn; those of one come in order.
    pub fn receive(&mut self) -> Option<(u8, M)> {
        self.heard |= self.bell.take();
        while self.heard != 0 {
            let behind = self.heard.checked_shr(self.next).unwrap_or(0).checked_shl(self.next).unwrap_or(0);
            let from = if behind == 0 { self.heard } else { behind }.trailing_zeros();
            let link = self.links.get_mut(from as usize);
            if let Some(message) = link.and_then(|link| link.incoming.as_mut()).and_then(Consumer::pop) {
                self.next = from + 1;
                self.counters.received += 1;
                return Some((from as u8, message));
            }
            // What comes from now on rings again.
            self.heard &= !Bell::bit(from as usize);
        }
        None
    }

    /// Whether a message has come, or one waits to be sent: no time to sleep.
    pub fn has_work(&mut self) -> bool {
        self.heard |= self.bell.take();
        if self.heard == 0 {
            return self.waiting > 0;
        }
        let mut links =
            self.links.iter_mut().enumerate().filter(|(from, _)| self.heard & Bell::bit(*from) != 0);
        let has_come = links.any(|(_, link)| link.incoming.as_mut().is_some_and(|ring| !ring.is_empty()));
        has_come || self.waiting > 0
    }

    /// What was said and heard so far.
    #[must_use]
    pub const fn counters(&self) -> MeshCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
