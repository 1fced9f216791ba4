//! The order in which fused pairs of all cores get the blocks that they want: kept by the home of the blocks' drive.
//!
//! Who asks first is served first, unless others have the blocks or want them before; who waits for blocks holds up nobody who
//! wants others. It decides; `range_locks.rs` does what follows. See docs/design/fused.md.

use heapless::Vec;
use message::{LockName, LockedBlocks, MAX_DATA_CORES, MAX_LOCK_REQUESTS, MAX_RANGE_LOCKS};

/// Locks at one drive, so that the pairs of one do not hold up those of the others. Also the requests for them that a core may
/// have made and not yet brought to their end.
pub const MAX_RANGE_LOCKS_PER_DRIVE: usize = 4;

/// All requests of all cores, and locks that are begun and whose core has asked anew.
const PLACES: usize = MAX_DATA_CORES * MAX_LOCK_REQUESTS + MAX_RANGE_LOCKS;

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Others have the blocks, or there are too many locks. No other core knows of it.
    Waiting,
    /// All cores were told; not all have confirmed.
    Begun,
    /// The same, and the pair is no more.
    GivenBack,
    /// The pair has them.
    Granted,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: LockName,
    blocks: LockedBlocks,
    state: State,
}

impl Entry {
    fn is_lock(&self) -> bool {
        self.state != State::Waiting
    }
}

/// What becomes of a lock that all cores have confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleared {
    /// Its pair has it from now on.
    Granted,
    /// Its pair is no more: it is over.
    Over,
    /// There is none.
    Unknown,
}

/// What becomes of a request that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// Nobody was told of it.
    Withdrawn,
    /// It is over when all cores have confirmed it.
    Later,
    /// It was granted, and is over.
    Over,
    /// There is none.
    Unknown,
}

/// The requests for blocks of the drives whose home this core is, in the order in which they came.
#[derive(Debug)]
pub(crate) struct LockHome {
    entries: Vec<Entry, PLACES>,
}

impl LockHome {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a request in; false where there cannot be one more, or one of this name is there.
    pub(crate) fn ask(&mut self, name: LockName, blocks: LockedBlocks) -> bool {
        self.place(name).is_none() && self.entries.push(Entry { name, blocks, state: State::Waiting }).is_ok()
    }

    /// The next that may be locked; it counts as begun.
    pub(crate) fn next(&mut self) -> Option<(LockName, LockedBlocks)> {
        let place = (0..self.entries.len()).find(|&place| self.may_begin(place))?;
        let entry = self.entries.get_mut(place)?;
        entry.state = State::Begun;
        Some((entry.name, entry.blocks))
    }

    /// The last that was begun could not be: it waits again.
    pub(crate) fn put_off(&mut self, name: LockName) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.name == name) {
            entry.state = State::Waiting;
        }
    }

    fn may_begin(&self, place: usize) -> bool {
        let Some(entry) = self.entries.get(place).filter(|entry| !entry.is_lock()) else { return false };
        let locks = || self.entries.iter().filter(|other| other.is_lock());
        let of_drive = locks().filter(|other| other.blocks.drive == entry.blocks.drive).count();
        let before = self.entries.iter().take(place).filter(|other| !other.is_lock());
        locks().count() < MAX_RANGE_LOCKS
            && of_drive < MAX_RANGE_LOCKS_PER_DRIVE
            && !locks().chain(before).any(|other| overlap(&other.blocks, &entry.blocks))
    }

    /// All cores have confirmed a lock.
    pub(crate) fn clear(&mut self, name: LockName) -> Cleared {
        let Some(place) = self.place(name) else { return Cleared::Unknown };
        let Some(entry) = self.entries.get_mut(place) else { return Cleared::Unknown };
        match entry.state {
            State::Begun => {
                entry.state = State::Granted;
                Cleared::Granted
            }
            State::GivenBack => {
                self.entries.remove(place);
                Cleared::Over
            }
            State::Waiting | State::Granted => Cleared::Unknown,
        }
    }

    /// A pair that has asked, or was granted its blocks, is no more.
    pub(crate) fn give_back(&mut self, name: LockName) -> Returned {
        let Some(place) = self.place(name) else { return Returned::Unknown };
        let Some(entry) = self.entries.get_mut(place) else { return Returned::Unknown };
        let returned = match entry.state {
            State::Begun => {
                entry.state = State::GivenBack;
                return Returned::Later;
            }
            State::GivenBack => return Returned::Unknown,
            State::Waiting => Returned::Withdrawn,
            State::Granted => Returned::Over,
        };
        self.entries.remove(place);
        returned
    }

    fn place(&self, name: LockName) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name == name)
    }
}

fn overlap(one: &LockedBlocks, other: &LockedBlocks) -> bool {
    let end = |blocks: &LockedBlocks| blocks.start_block.saturating_add(u64::from(blocks.blocks));
    (one.drive, one.nsid) == (other.drive, other.nsid)
        && one.start_block < end(other)
        && other.start_block < end(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(core: u8, ticket: u32) -> LockName {
        LockName { core, ticket }
    }

    fn blocks(drive: u8, start_block: u64) -> LockedBlocks {
        LockedBlocks { drive, nsid: 1, start_block, blocks: 2 }
    }

    fn begun(home: &mut LockHome) -> std::vec::Vec<LockName> {
        core::iter::from_fn(|| home.next()).map(|(name, _)| name).collect()
    }

    #[test]
    fn requests_for_the_same_blocks_are_served_in_order_and_hold_up_nobody_else() {
        let mut home = LockHome::new();
        for (core, start) in [(0, 10), (1, 11), (2, 12), (3, 20)] {
            assert!(home.ask(name(core, 7), blocks(0, start)));
        }
        // The third is free of the first, but behind the second.
        assert_eq!(begun(&mut home), [name(0, 7), name(3, 7)]);
        assert_eq!(home.clear(name(0, 7)), Cleared::Granted);
        assert_eq!(home.give_back(name(0, 7)), Returned::Over);
        assert_eq!(begun(&mut home), [name(1, 7)]);
        assert_eq!(home.give_back(name(2, 7)), Returned::Withdrawn);
        assert_eq!(home.give_back(name(1, 7)), Returned::Later);
        assert!(home.ask(name(2, 8), blocks(0, 12)));
        assert_eq!(begun(&mut home), [], "the second is not over before all cores have confirmed it");
        assert_eq!(home.clear(name(1, 7)), Cleared::Over);
        assert_eq!(begun(&mut home), [name(2, 8)]);
    }

    #[test]
    fn a_drive_has_its_share_and_no_more() {
        let mut home = LockHome::new();
        for ticket in 0..5 {
            assert!(home.ask(name(0, ticket), blocks(0, u64::from(ticket) * 10)));
        }
        assert!(home.ask(name(1, 0), blocks(1, 0)));
        let first = begun(&mut home);
        assert_eq!((first.len(), first.contains(&name(0, 4))), (5, false));
        home.clear(name(0, 2));
        home.give_back(name(0, 2));
        assert_eq!(begun(&mut home), [name(0, 4)]);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let mut home = LockHome::new();
        assert!(home.ask(name(0, 1), blocks(0, 0)) && !home.ask(name(0, 1), blocks(0, 9)));
        assert_eq!(home.clear(name(0, 1)), Cleared::Unknown);
        assert_eq!(home.clear(name(1, 1)), Cleared::Unknown);
        assert_eq!(home.give_back(name(0, 2)), Returned::Unknown);
        assert_eq!(begun(&mut home), [name(0, 1)]);
        assert_eq!(home.give_back(name(0, 1)), Returned::Later);
        assert_eq!(home.give_back(name(0, 1)), Returned::Unknown);
        assert_eq!(home.clear(name(0, 1)), Cleared::Over);
        assert!(home.is_empty());
    }
}
