//! Tables of a drive's requests and commands, in memory set aside at boot.

use controller::IoRequest;
use hal_api::Instant;
use hal_mem::{Arena, Cursor, OutOfMemory, Pages};
use nvme::Status;

use crate::limits::{COMMANDS_PER_DRIVE, OWNERS, REQUESTS_PER_DRIVE};
use crate::plan::Plan;

const NONE: u16 = u16::MAX;
/// In place of a request: a command of the card's own.
pub(crate) const OWN_COMMAND: u16 = u16::MAX - 1;

/// Memory of one drive's tables.
#[derive(Debug)]
pub struct DriveMemory {
    pub(crate) requests: &'static mut [RequestSlot],
    pub(crate) commands: &'static mut [CommandSlot],
    pub(crate) at_drive: &'static mut [u32; OWNERS],
}

impl DriveMemory {
    /// Takes it from the memory that the board has.
    ///
    /// # Errors
    /// [`OutOfMemory`] when too little is left.
    pub fn take(arena: &mut Arena) -> Result<Self, OutOfMemory> {
        Ok(Self {
            requests: arena.slice(REQUESTS_PER_DRIVE, |_| RequestSlot { active: None, next: NONE })?,
            commands: arena.slice(COMMANDS_PER_DRIVE, |_| CommandSlot::FREE)?,
            at_drive: arena.value([0; OWNERS])?,
        })
    }
}

/// Where in the lists a request stands; in at most one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In none: all its parts are at the drive, or the card works on it.
    Out,
    /// Has parts that wait for room at the drive.
    Pending,
    /// Waits for the scratch pages.
    Scratch,
    /// Its end waits to be collected.
    Done,
}

/// What a Flush covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    /// So many writes of its core.
    pub count: u64,
    /// Writes of other cores that were acknowledged by then.
    pub sent: Instant,
}

impl Covered {
    pub const NOTHING: Self = Self { count: 0, sent: Instant::ZERO };
}

/// A request that was taken.
#[derive(Debug)]
pub(crate) struct Active {
    pub request: IoRequest,
    pub plan: Plan,
    /// Where the data of the next part starts.
    pub cursor: Cursor,
    /// Blocks given to the drive; within the current range for Dataset Management.
    pub issued_blocks: u32,
    /// The next range of Dataset Management.
    pub range: u16,
    /// Not all parts were given to the drive.
    pub issuing: bool,
    /// Parts at the drive.
    pub outstanding: u16,
    /// The first error.
    pub status: Status,
    pub deadline: Instant,
    /// No part goes out after this.
    pub start_by: Instant,
    /// For a Flush: what it covers.
    pub flush_covers: Covered,
    pub place: Place,
    /// The host was told while parts were still out: the pages are quarantined.
    pub reported: bool,
}

/// A place for a request.
#[derive(Debug)]
pub struct RequestSlot {
    active: Option<Active>,
    next: u16,
}

/// A list through the slots, first in first out.
#[derive(Debug, Clone, Copy)]
struct List {
    first: u16,
    last: u16,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };
}

/// All requests of a drive.
#[derive(Debug)]
pub(crate) struct Requests {
    slots: &'static mut [RequestSlot],
    free: List,
    pending: List,
    scratch: List,
    done: List,
    used: usize,
    using_scratch: usize,
}

impl Requests {
    pub fn new(slots: &'static mut [RequestSlot]) -> Self {
        let empty = List::EMPTY;
        let mut requests = Self {
            slots,
            free: empty,
            pending: empty,
            scratch: empty,
            done: empty,
            used: 0,
            using_scratch: 0,
        };
        for slot in 0..requests.slots.len() as u16 {
            let mut free = requests.free;
            requests.append(&mut free, slot);
            requests.free = free;
        }
        requests
    }

    /// The memory, for the tables of another drive. Nothing may be in use.
    pub fn into_slots(self) -> &'static mut [RequestSlot] {
        debug_assert!(self.used == 0);
        self.slots
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// Requests that need the scratch pages, their ends not collected.
    pub fn using_scratch(&self) -> usize {
        self.using_scratch
    }

    pub fn slots(&self) -> core::ops::Range<u16> {
        0..self.slots.len() as u16
    }

    pub fn is_full(&self) -> bool {
        self.free.first == NONE
    }

    /// Takes a place; the caller has asked [`Self::is_full`].
    pub fn insert(&mut self, active: Active) -> Option<u16> {
        let mut free = self.free;
        let slot = self.take_first(&mut free)?;
        self.free = free;
        self.using_scratch += usize::from(active.plan.needs_scratch());
        self.slots.get_mut(usize::from(slot))?.active = Some(active);
        self.used += 1;
        Some(slot)
    }

    /// Frees a place that is in no list.
    pub fn remove(&mut self, slot: u16) -> Option<Active> {
        let active = self.slots.get_mut(usize::from(slot))?.active.take()?;
        debug_assert!(active.place == Place::Out);
        let mut free = self.free;
        self.append(&mut free, slot);
        self.free = free;
        self.used -= 1;
        self.using_scratch -= usize::from(active.plan.needs_scratch());
        Some(active)
    }

    pub fn get(&self, slot: u16) -> Option<&Active> {
        self.slots.get(usize::from(slot))?.active.as_ref()
    }

    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Active> {
        self.slots.get_mut(usize::from(slot))?.active.as_mut()
    }

    /// The last of a list.
    pub fn last(&self, place: Place) -> Option<u16> {
        let slot = self.list(place).last;
        (slot != NONE).then_some(slot)
    }

    /// The first of a list.
    pub fn first(&self, place: Place) -> Option<u16> {
        let slot = self.list(place).first;
        (slot != NONE).then_some(slot)
    }

    /// Appends to a list a request that is in none.
    pub fn push(&mut self, place: Place, slot: u16) {
        let Some(active) = self.get_mut(slot) else { return };
        debug_assert!(active.place == Place::Out && place != Place::Out);
        active.place = place;
        let mut list = self.list(place);
        self.append(&mut list, slot);
        self.set_list(place, list);
    }

    /// Takes the first out of a list.
    pub fn pop(&mut self, place: Place) -> Option<u16> {
        let mut list = self.list(place);
        let slot = self.take_first(&mut list)?;
        self.set_list(place, list);
        if let Some(active) = self.get_mut(slot) {
            active.place = Place::Out;
        }
        Some(slot)
    }

    /// Takes a request out of whatever list it is in. Walks the list: for failures only.
    pub fn unlist(&mut self, slot: u16) {
        let Some(place) = self.get(slot).map(|active| active.place) else { return };
        if place == Place::Out {
            return;
        }
        let mut old = self.list(place);
        let mut kept = List::EMPTY;
        while let Some(other) = self.take_first(&mut old) {
            if other != slot {
                self.append(&mut kept, other);
            }
        }
        self.set_list(place, kept);
        if let Some(active) = self.get_mut(slot) {
            active.place = Place::Out;
        }
    }

    fn list(&self, place: Place) -> List {
        match place {
            Place::Pending => self.pending,
            Place::Scratch => self.scratch,
            Place::Done => self.done,
            Place::Out => List::EMPTY,
        }
    }

    fn set_list(&mut self, place: Place, list: List) {
        match place {
            Place::Pending => self.pending = list,
            Place::Scratch => self.scratch = list,
            Place::Done => self.done = list,
            Place::Out => (),
        }
    }

    fn append(&mut self, list: &mut List, slot: u16) {
        if let Some(element) = self.slots.get_mut(usize::from(slot)) {
            element.next = NONE;
        }
        match self.slots.get_mut(usize::from(list.last)) {
            Some(last) => last.next = slot,
            None => list.first = slot,
        }
        list.last = slot;
    }

    fn take_first(&mut self, list: &mut List) -> Option<u16> {
        let slot = list.first;
        let element = self.slots.get_mut(usize::from(slot))?;
        list.first = element.next;
        if list.first == NONE {
            list.last = NONE;
        }
        element.next = NONE;
        Some(slot)
    }
}

/// A place for a command at the drive.
#[derive(Debug)]
pub struct CommandSlot {
    /// Changes with each use, so that a late or repeated completion is told from the right one.
    generation: u8,
    busy: bool,
    next_free: u16,
    pub(crate) part: CommandPart,
}

impl CommandSlot {
    const FREE: Self = Self { generation: 0, busy: false, next_free: NONE, part: CommandPart::NONE };
}

/// Which part of which request a command is.
#[derive(Debug)]
pub(crate) struct CommandPart {
    /// The request.
    pub slot: u16,
    /// Blocks of this part.
    pub blocks: u32,
    /// The page that holds its PRP list or ranges.
    pub list: Option<Pages>,
    pub sent: Instant,
    /// When it is late; when the drive is reset, once it is.
    pub deadline: Instant,
    pub late: Late,
}

impl CommandPart {
    pub const NONE: Self = Self {
        slot: NONE,
        blocks: 0,
        list: None,
        sent: Instant::ZERO,
        deadline: Instant::ZERO,
        late: Late::No,
    };
}

/// Whether a command has been at the drive for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    No,
    /// It is, and an Abort for it is to be sent.
    ToAbort,
    /// The Abort was sent.
    Asked,
}

/// All commands at a drive, by CID: index in bits 7:0, generation in bits 15:8.
#[derive(Debug)]
pub(crate) struct Commands {
    slots: &'static mut [CommandSlot],
    first_free: u16,
    outstanding: u16,
    /// A command whose CID must not be used again, and whether it has ended.
    held: Option<(u16, bool)>,
}

impl Commands {
    /// At most 255 slots are used.
    pub fn new(slots: &'static mut [CommandSlot]) -> Self {
        let count = slots.len().min(COMMANDS_PER_DRIVE) as u16;
        for (index, slot) in slots.iter_mut().enumerate() {
            let next = index as u16 + 1;
            slot.next_free = if next < count { next } else { NONE };
        }
        Self { slots, first_free: if count == 0 { NONE } else { 0 }, outstanding: 0, held: None }
    }

    /// The memory, for the tables of another drive. Nothing may be out.
    pub fn into_slots(self) -> &'static mut [CommandSlot] {
        debug_assert!(self.outstanding == 0);
        self.slots
    }

    /// From now on CIDs have these indices alone. Nothing may be out.
    pub fn use_range(&mut self, first: u16, count: u16) {
        debug_assert!(self.outstanding == 0);
        self.held = None;
        let end = (first + count).min(self.slots.len().min(COMMANDS_PER_DRIVE) as u16);
        self.first_free = if first < end { first } else { NONE };
        let range = usize::from(first)..usize::from(end);
        for (index, slot) in (first..end).zip(self.slots.get_mut(range).unwrap_or_default()) {
            slot.next_free = if index + 1 < end { index + 1 } else { NONE };
        }
    }

    pub fn outstanding(&self) -> u16 {
        self.outstanding
    }

    pub fn has_room(&self) -> bool {
        self.first_free != NONE
    }

    /// Takes a place; gives the CID.
    pub fn begin(&mut self, part: CommandPart) -> Option<u16> {
        let index = self.first_free;
        let slot = self.slots.get_mut(usize::from(index))?;
        self.first_free = slot.next_free;
        slot.generation = slot.generation.wrapping_add(1);
        slot.busy = true;
        slot.part = part;
        self.outstanding += 1;
        Some(u16::from(slot.generation) << 8 | index)
    }

    /// The command `cid` is home: frees its place. `None` where it is not out.
    pub fn end(&mut self, cid: u16) -> Option<CommandPart> {
        let index = cid & 0xff;
        let slot = self.slots.get_mut(usize::from(index))?;
        if !slot.busy || slot.generation != (cid >> 8) as u8 {
            return None;
        }
        let part = core::mem::replace(&mut slot.part, CommandPart::NONE);
        slot.busy = false;
        self.outstanding -= 1;
        if let Some((_, has_ended)) = self.held.as_mut().filter(|(held, _)| *held == index) {
            *has_ended = true;
            return Some(part);
        }
        slot.next_free = self.first_free;
        self.first_free = index;
        Some(part)
    }

    /// Keeps the place of a command that is out from being used again until [`Self::release_held`].
    pub fn hold(&mut self, cid: u16) {
        debug_assert!(self.held.is_none());
        self.held = Some((cid & 0xff, false));
    }

    /// The place that was held may be used again.
    pub fn release_held(&mut self) {
        let Some((index, true)) = self.held.take() else { return };
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            slot.next_free = self.first_free;
            self.first_free = index;
        }
    }

    /// All commands that are out, with their CIDs.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &CommandPart)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.busy).map(|(index, slot)| {
            let cid = u16::from(slot.generation) << 8 | index as u16;
            (cid, &slot.part)
        })
    }

    /// The same, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut CommandPart)> {
        self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.busy).map(|(index, slot)| {
            let cid = u16::from(slot.generation) << 8 | index as u16;
            (cid, &mut slot.part)
        })
    }

    /// CID of some command that is out.
    pub fn any(&self) -> Option<u16> {
        self.iter().next().map(|(cid, _)| cid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cid_is_good_once_and_never_ffff() {
        let memory = DriveMemory::take(&mut Arena::leak_for_host(1 << 20)).unwrap();
        let mut commands = Commands::new(memory.commands);
        let part = || CommandPart { slot: 7, ..CommandPart::NONE };
        let first = commands.begin(part()).unwrap();
        assert_eq!(commands.end(first).unwrap().slot, 7);
        assert!(commands.end(first).is_none());
        let again = commands.begin(part()).unwrap();
        assert_ne!(first, again);
        assert_eq!(first & 0xff, again & 0xff);
        assert!(commands.end(first).is_none() && commands.end(0xffff).is_none());
        let mut count = 1;
        while let Some(cid) = commands.begin(part()) {
            assert_ne!(cid, 0xffff);
            count += 1;
        }
        assert_eq!((count, commands.outstanding()), (COMMANDS_PER_DRIVE, COMMANDS_PER_DRIVE as u16));
    }
}
