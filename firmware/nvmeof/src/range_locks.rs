//! Blocks that fused pairs have for themselves, as this core knows them, and what its own pairs have asked for.
//!
//! The home of a drive decides who gets which blocks (`lock_home.rs`); all cores enter each lock in a table of their own, so that
//! a command to blocks that nobody has asks nobody. With one core the home is here, and nothing is said to anybody. See
//! docs/design/fused.md.

use controller::{BlockWork, LockNews, Operation, Subsystem};
use hal_log::error;
use heapless::Vec;
use message::{LockName, LockedBlocks, MAX_DATA_CORES, MAX_LOCK_REQUESTS, MAX_RANGE_LOCKS};

use crate::fused::Fused;
use crate::lock_home::{Cleared, LockHome, MAX_RANGE_LOCKS_PER_DRIVE, Returned};
use crate::slots::{Doer, NONE, Slot, SlotState, Slots};

/// Blocks of a namespace that belong to one pair for a while.
#[derive(Debug, Clone, Copy)]
struct RangeLock {
    name: LockName,
    blocks: LockedBlocks,
    /// The slot of this core for whose sake it is held: first the Compare's, then the Write's. [`NONE`] for a pair of another
    /// core, and for one that is no more.
    slot: u16,
    /// Commands that have waited for longer go before it.
    age: u64,
    /// Commands to these blocks that were at drives before, or went before it.
    in_flight: u16,
    /// There may still be commands that have waited for longer.
    has_older: bool,
}

/// What a pair of this core has asked for.
#[derive(Debug, Clone, Copy)]
struct Request {
    ticket: u32,
    home: u8,
    drive: u8,
    /// As in the lock; [`NONE`] once the home was told that the pair is no more.
    slot: u16,
    granted: bool,
}

/// Who is to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    Nobody,
    /// The queue of this slot.
    Slot(u16),
    All,
}

/// What a core knows of locks.
#[derive(Debug)]
pub(crate) struct RangeLocks {
    held: Vec<RangeLock, { MAX_DATA_CORES * MAX_RANGE_LOCKS }>,
    requests: Vec<Request, { MAX_DATA_CORES * MAX_LOCK_REQUESTS }>,
    home: LockHome,
    /// Who begins to wait later has a higher one, so that each gets its turn.
    last_age: u64,
    last_ticket: u32,
}

impl RangeLocks {
    pub(crate) const fn new() -> Self {
        Self { held: Vec::new(), requests: Vec::new(), home: LockHome::new(), last_age: 0, last_ticket: 0 }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.requests.is_empty() && self.home.is_empty()
    }

    /// Whether a command has to wait for the sake of some pair that it does not belong to.
    pub(crate) fn excludes(&self, slot: u16, work: &BlockWork, slots: &Slots) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let entry = slots.at(slot);
        let has_waited = entry.fused == Fused::No && entry.age != 0;
        let age = if has_waited { entry.age } else { u64::MAX };
        self.held.iter().any(|lock| lock.slot != slot && lock.age < age && touches(work, &lock.blocks))
    }

    /// A place behind all that wait already. Not 0.
    pub(crate) fn next_age(&mut self) -> u64 {
        self.last_age += 1;
        self.last_age
    }

    /// A command that had waited since `age`, in no pair, has gone to a drive, before younger locks.
    pub(crate) fn went_before(&mut self, age: u64, work: &BlockWork) {
        for lock in self.held.iter_mut().filter(|lock| lock.age > age && touches(work, &lock.blocks)) {
            lock.in_flight = lock.in_flight.saturating_add(1);
        }
    }

    /// A command has come home.
    pub(crate) fn came_home(&mut self, slot: u16, work: &BlockWork) {
        for lock in self.held.iter_mut().filter(|lock| lock.slot != slot && touches(work, &lock.blocks)) {
            debug_assert!(lock.in_flight > 0, "a command to locked blocks was at a drive");
            lock.in_flight = lock.in_flight.saturating_sub(1);
        }
    }

    /// Whether a pair has asked for its blocks.
    pub(crate) fn has_asked(&self, slot: u16) -> bool {
        self.requests.iter().any(|request| request.slot == slot)
    }

    /// Asks for the blocks of a pair; false where others come first, or too much is asked already.
    pub(crate) fn ask(
        &mut self,
        slot: u16,
        work: &BlockWork,
        subsystem: &mut Subsystem,
        slots: &Slots,
    ) -> bool {
        let drive = work.namespace.drive;
        let home = subsystem.lock_home(drive);
        let of_home = self.requests.iter().filter(|request| request.home == home).count();
        if of_home >= MAX_LOCK_REQUESTS
            || self.has_share(drive)
            || self.is_behind(slot, home, subsystem, slots)
        {
            return false;
        }
        self.last_ticket = self.last_ticket.wrapping_add(1);
        let ticket = self.last_ticket;
        if self.requests.push(Request { ticket, home, drive, slot, granted: false }).is_err() {
            return false;
        }
        let blocks = blocks_of(work);
        if home == subsystem.core() {
            let asked = self.home.ask(LockName { core: home, ticket }, blocks);
            debug_assert!(asked, "more requests than a core may have");
            self.advance(subsystem, slots);
        } else {
            subsystem.ask_for_blocks(home, ticket, blocks);
        }
        true
    }

    /// Whether as much is asked of a drive as a core may.
    fn has_share(&self, drive: u8) -> bool {
        let of_drive = self.requests.iter().filter(|request| request.drive == drive).count();
        of_drive >= MAX_RANGE_LOCKS_PER_DRIVE
    }

    /// Whether some pair that could ask has waited for longer.
    fn is_behind(&self, slot: u16, home: u8, subsystem: &Subsystem, slots: &Slots) -> bool {
        let age = slots.at(slot).age;
        slots.taken().any(|(index, other)| {
            let waits = other.state == SlotState::WaitingForBackend && other.fused != Fused::No;
            waits
                && (1..age).contains(&other.age)
                && !self.has_asked(index)
                && matches!(&other.doer, Doer::Block(work)
                    if subsystem.lock_home(work.namespace.drive) == home && !self.has_share(work.namespace.drive))
        })
    }

    /// Whether a pair has its blocks, and nothing of others' is at a drive there.
    pub(crate) fn may_begin(&mut self, slot: u16, core: u8, slots: &Slots) -> bool {
        let request = self.requests.iter().find(|request| request.slot == slot && request.granted);
        let name = request.map(|request| LockName { core, ticket: request.ticket });
        name.is_some_and(|name| self.is_clear(name, slots))
    }

    /// A lock goes on with the other command of its pair.
    pub(crate) fn pass_on(&mut self, from: u16, to: u16) {
        if let Some(request) = self.requests.iter_mut().find(|request| request.slot == from) {
            request.slot = to;
        }
        if let Some(lock) = self.held.iter_mut().find(|lock| lock.slot == from) {
            lock.slot = to;
        }
    }

    /// A pair is no more: what it has asked for, or has, is given back. True where there was something.
    pub(crate) fn release(&mut self, slot: u16, subsystem: &mut Subsystem, slots: &Slots) -> bool {
        let found = self.requests.iter_mut().find(|request| request.slot == slot);
        let Some(request) = found else { return false };
        request.slot = NONE;
        let Request { ticket, home, granted, .. } = *request;
        let name = LockName { core: subsystem.core(), ticket };
        if granted {
            // Nobody else has the blocks before the home hears of it: this core need not wait for its word.
            self.forget(name);
        } else if let Some(lock) = self.held.iter_mut().find(|lock| lock.name == name) {
            lock.slot = NONE;
        }
        if home == name.core {
            self.requests.retain(|request| request.ticket != ticket);
            self.given_back(name, subsystem, slots);
        } else {
            // Its place is kept until the home has done with it, so that a bounded number is under way.
            subsystem.give_blocks_back(home, ticket);
        }
        true
    }

    /// Locks blocks on this core: from now on new commands to them wait.
    pub(crate) fn enter(&mut self, name: LockName, blocks: LockedBlocks, core: u8, slots: &Slots) {
        let own = self.requests.iter().find(|request| name == LockName { core, ticket: request.ticket });
        let slot = own.map_or(NONE, |request| request.slot);
        let age = self.next_age();
        // One look at each command of the core, of which there are 12,288 at most (`app::sizes`). A home has
        // `MAX_RANGE_LOCKS` locks under way, and each lasts as long as what was at drives before and a message there and back:
        // so 16 walks for each home in that time are the most that hosts can bring about.
        let (mut in_flight, mut has_older) = (0u16, false);
        for (_, slot) in slots.taken() {
            in_flight = in_flight.saturating_add(u16::from(is_at_drive_in(slot, &blocks)));
            has_older |= goes_before(slot, age, &blocks);
        }
        let lock = RangeLock { name, blocks, slot, age, in_flight, has_older };
        let entered = self.held.push(lock).is_ok();
        debug_assert!(entered, "more locks than all homes give");
    }

    /// Whether nothing is at a drive, nor goes there before, that the lock has to wait for.
    pub(crate) fn is_clear(&mut self, name: LockName, slots: &Slots) -> bool {
        let Some(lock) = self.held.iter_mut().find(|lock| lock.name == name) else { return true };
        if lock.in_flight > 0 {
            return false;
        }
        lock.has_older =
            lock.has_older && slots.taken().any(|(_, slot)| goes_before(slot, lock.age, &lock.blocks));
        !lock.has_older
    }

    /// Takes in what other cores say.
    pub(crate) fn hear(&mut self, news: LockNews, subsystem: &mut Subsystem, slots: &Slots) -> Wake {
        match news {
            LockNews::Asked(name, blocks) => {
                if self.home.ask(name, blocks) {
                    self.advance(subsystem, slots);
                } else {
                    fault(subsystem, name);
                }
                Wake::Nobody
            }
            LockNews::GivenBack(name) => {
                self.given_back(name, subsystem, slots);
                Wake::All
            }
            LockNews::Clear(name) => match self.home.clear(name) {
                Cleared::Granted if name.core == subsystem.core() => self.granted(name, subsystem),
                Cleared::Granted => {
                    subsystem.grant_blocks(name);
                    Wake::Nobody
                }
                Cleared::Over => {
                    self.over(name, subsystem, slots);
                    Wake::All
                }
                Cleared::Unknown => {
                    fault(subsystem, name);
                    Wake::Nobody
                }
            },
            LockNews::Granted { ticket } => {
                let name = LockName { core: subsystem.core(), ticket };
                self.granted(name, subsystem)
            }
            LockNews::Over(name) => {
                self.forget(name);
                if name.core == subsystem.core() {
                    let place = self.requests.iter().position(|request| request.ticket == name.ticket);
                    match place {
                        Some(place) => _ = self.requests.swap_remove(place),
                        None => fault(subsystem, name),
                    }
                }
                Wake::All
            }
        }
    }

    /// A pair of this core has its blocks. One that is no more has given them back already.
    fn granted(&mut self, name: LockName, subsystem: &mut Subsystem) -> Wake {
        match self.requests.iter_mut().find(|request| request.ticket == name.ticket) {
            Some(request) if request.slot != NONE => {
                request.granted = true;
                Wake::Slot(request.slot)
            }
            Some(_) => Wake::Nobody,
            None => {
                fault(subsystem, name);
                Wake::Nobody
            }
        }
    }

    /// At the home: a request is over, or will be.
    fn given_back(&mut self, name: LockName, subsystem: &mut Subsystem, slots: &Slots) {
        match self.home.give_back(name) {
            Returned::Over => self.over(name, subsystem, slots),
            Returned::Withdrawn => {
                if name.core != subsystem.core() {
                    subsystem.tell_withdrawn(name);
                }
                self.advance(subsystem, slots);
            }
            Returned::Later => {}
            Returned::Unknown => fault(subsystem, name),
        }
    }

    /// At the home: nobody has these blocks any more.
    fn over(&mut self, name: LockName, subsystem: &mut Subsystem, slots: &Slots) {
        self.forget(name);
        subsystem.tell_unlocked(name);
        self.advance(subsystem, slots);
    }

    /// At the home: begins what can be begun.
    fn advance(&mut self, subsystem: &mut Subsystem, slots: &Slots) {
        while let Some((name, blocks)) = self.home.next() {
            if subsystem.has_others() {
                if !subsystem.begin_lock(name, blocks) {
                    debug_assert!(false, "there is a place for each lock among the changes");
                    self.home.put_off(name);
                    return fault(subsystem, name);
                }
            } else {
                self.enter(name, blocks, name.core, slots);
                self.home.clear(name);
                self.granted(name, subsystem);
            }
        }
    }

    fn forget(&mut self, name: LockName) {
        if let Some(place) = self.held.iter().position(|lock| lock.name == name) {
            self.held.swap_remove(place);
        }
    }
}

fn fault(subsystem: &mut Subsystem, name: LockName) {
    error!("core {}: request {} for blocks is not what it should be", name.core, name.ticket);
    subsystem.note_lock_fault();
}

fn blocks_of(work: &BlockWork) -> LockedBlocks {
    let BlockWork { namespace, start_block, blocks, .. } = *work;
    LockedBlocks { drive: namespace.drive, nsid: namespace.nsid, start_block, blocks }
}

/// Whether a command may read or change blocks of a pair. Of those with a list of ranges it is not known here which.
fn touches(work: &BlockWork, pair: &LockedBlocks) -> bool {
    if (work.namespace.drive, work.namespace.nsid) != (pair.drive, pair.nsid) {
        return false;
    }
    match work.operation {
        Operation::Flush => false,
        Operation::DatasetManagement { .. } | Operation::Copy { .. } => true,
        _ => {
            work.start_block < pair.start_block.saturating_add(u64::from(pair.blocks))
                && pair.start_block < work.start_block.saturating_add(u64::from(work.blocks))
        }
    }
}

/// Whether a command, in no pair, has waited for blocks of this pair's, or all, since before its lock was entered.
fn goes_before(slot: &Slot, age: u64, pair: &LockedBlocks) -> bool {
    let waits = matches!(slot.state, SlotState::WaitingForBlocks | SlotState::WaitingForBackend);
    waits
        && slot.fused == Fused::No
        && (1..age).contains(&slot.age)
        && matches!(&slot.doer, Doer::Block(work) if touches(work, pair))
}

fn is_at_drive_in(slot: &Slot, pair: &LockedBlocks) -> bool {
    slot.state == SlotState::AtBackend && matches!(&slot.doer, Doer::Block(work) if touches(work, pair))
}
