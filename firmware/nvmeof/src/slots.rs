//! Command slots: one for each command that a host has outstanding, from a pool of fixed size.
//!
//! Slots are promised to a connection before it may use them, and are linked into at most one list at a time:
//! the free list, or one of their queue's first-in-first-out lists.

use controller::BlockWork;
use hal_api::Instant;
use hal_mem::{Cursor, Pages};
use message::Waits;
use nvme::{Command, Status};

use crate::fused::Fused;

/// No slot.
pub(crate) const NONE: u16 = u16::MAX;

/// Where a command is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SlotState {
    /// On the free list.
    #[default]
    Free,
    /// Its capsule, perhaps with data, is arriving.
    Arriving,
    /// In the FIFO of those that wait for pages.
    WaitingForPages,
    /// Its R2T is queued to be sent.
    SendReadyToTransfer,
    /// The R2T is out; H2CData PDUs are expected.
    ReceivingData,
    /// A command of a fused pair: its data is here, and its other command or its turn is awaited.
    AwaitingPartner,
    /// In the FIFO of those whose blocks a pair has.
    WaitingForBlocks,
    /// In the FIFO of those that the backend had no place for, or of the pairs whose blocks others have.
    WaitingForBackend,
    /// With the backend, which also has the pages.
    AtBackend,
    /// An Asynchronous Event Request.
    Parked,
    /// A Connect that waits until writes of an old association have ended.
    ConnectParked,
    /// Its data, then its response, is queued to be sent.
    SendData,
    /// Its response is queued to be sent.
    SendResponse,
}

/// Which way a command moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Direction {
    #[default]
    None,
    ToHost,
    /// Arrived with the capsule.
    InCapsule,
    /// Asked for by R2T.
    ReadyToTransfer,
}

/// What carries the command out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Doer {
    /// Nobody: the status is already known.
    #[default]
    Nobody,
    /// This crate.
    Connect,
    /// The controller.
    Card,
    /// A drive.
    Block(BlockWork),
}

/// A command.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Next in the list that the slot is in.
    next: u16,
    /// The queue that it belongs to.
    pub queue: u16,
    pub state: SlotState,
    pub direction: Direction,
    pub doer: Doer,
    /// A write as far as fencing is concerned: it changes blocks.
    pub changes_blocks: bool,
    /// The pages come from the connection's in-capsule reservation.
    pub reserved_pages: bool,
    pub command: Command,
    pub status: Status,
    pub result: u64,
    pub fused: Fused,
    /// The slot of the pair's other command, while both have not ended.
    pub partner: u16,
    /// Its place among those that wait for blocks, by [`RangeLocks::next_age`](crate::range_locks::RangeLocks); 0 while it has none.
    pub age: u64,
    /// Bytes that the command moves.
    pub transfer_bytes: u32,
    /// Bytes that have arrived by H2CData.
    pub arrived_bytes: u32,
    /// When the R2T went out, or a first command of a pair had its data.
    pub asked_at: Instant,
    /// When its capsule was there.
    pub received_at: Instant,
    /// When its pages and all its data were there, when the backend took it, and when it came home from there: [`Instant::ZERO`] before.
    pub ready_at: Instant,
    pub submitted_at: Instant,
    pub completed_at: Instant,
    /// What it has waited for.
    pub waits: Waits,
    /// Pages that the command holds or has lent to the backend.
    pub page_count: u32,
    pub pages: Pages,
    /// Where the next byte that arrives goes.
    pub cursor: Cursor,
}

impl Slot {
    /// Whether it is a command for a drive that has not ended there yet.
    pub(crate) const fn is_io_under_way(&self) -> bool {
        use SlotState as State;
        let before_its_end = matches!(
            self.state,
            State::Arriving
                | State::WaitingForPages
                | State::SendReadyToTransfer
                | State::ReceivingData
                | State::AwaitingPartner
                | State::WaitingForBlocks
                | State::WaitingForBackend
                | State::AtBackend
        );
        before_its_end && matches!(self.doer, Doer::Block(_))
    }

    pub(crate) fn new(next: u16) -> Self {
        Self {
            next,
            queue: NONE,
            state: SlotState::Free,
            direction: Direction::None,
            doer: Doer::Nobody,
            changes_blocks: false,
            reserved_pages: false,
            command: Command::default(),
            status: Status::SUCCESS,
            result: 0,
            fused: Fused::No,
            partner: NONE,
            age: 0,
            transfer_bytes: 0,
            arrived_bytes: 0,
            asked_at: Instant::ZERO,
            received_at: Instant::ZERO,
            ready_at: Instant::ZERO,
            submitted_at: Instant::ZERO,
            completed_at: Instant::ZERO,
            waits: Waits::NONE,
            page_count: 0,
            pages: Pages::NONE,
            cursor: Cursor::NONE,
        }
    }
}

/// A first-in-first-out list of slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fifo {
    first: u16,
    last: u16,
}

impl Fifo {
    pub(crate) const EMPTY: Self = Self { first: NONE, last: NONE };

    pub(crate) const fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub(crate) const fn first(&self) -> Option<u16> {
        if self.first == NONE { None } else { Some(self.first) }
    }
}

/// The pool of slots.
#[derive(Debug)]
pub(crate) struct Slots {
    list: &'static mut [Slot],
    /// Stands in for a slot that does not exist, which only a programmer error can ask for.
    nobody: Slot,
    first_free: u16,
    free: u16,
    /// Promised to connections and not taken.
    promised: u16,
}

impl Slots {
    pub(crate) fn new(list: &'static mut [Slot]) -> Self {
        let count = list.len().min(usize::from(NONE)) as u16;
        for (index, slot) in list.iter_mut().enumerate() {
            slot.next = if index + 1 < usize::from(count) { index as u16 + 1 } else { NONE };
        }
        let first_free = if count == 0 { NONE } else { 0 };
        Self { list, nobody: Slot::new(NONE), first_free, free: count, promised: 0 }
    }

    /// Slots on the free list.
    pub(crate) const fn free(&self) -> u16 {
        self.free
    }

    pub(crate) fn total(&self) -> u16 {
        self.list.len().min(usize::from(NONE)) as u16
    }

    /// Promises slots to a connection; false when too few are left.
    pub(crate) fn reserve(&mut self, count: u16) -> bool {
        if count > self.free - self.promised {
            return false;
        }
        self.promised += count;
        true
    }

    pub(crate) fn unreserve(&mut self, count: u16) {
        debug_assert!(count <= self.promised);
        self.promised = self.promised.saturating_sub(count);
    }

    /// Takes a promised slot for a command of `queue`.
    pub(crate) fn take(&mut self, queue: u16) -> Option<u16> {
        let index = self.first_free;
        let slot = self.list.get_mut(usize::from(index))?;
        debug_assert!(self.promised > 0 && slot.state == SlotState::Free);
        self.first_free = slot.next;
        self.free -= 1;
        self.promised = self.promised.saturating_sub(1);
        slot.next = NONE;
        slot.queue = queue;
        slot.state = SlotState::Arriving;
        Some(index)
    }

    /// Returns a slot to the promise that it came from. Its pages have gone back before.
    pub(crate) fn give_back(&mut self, index: u16) {
        let next = self.first_free;
        let Some(slot) = self.list.get_mut(usize::from(index)) else { return };
        debug_assert!(slot.state != SlotState::Free && slot.pages.is_empty());
        slot.state = SlotState::Free;
        slot.queue = NONE;
        slot.next = next;
        self.first_free = index;
        self.free += 1;
        self.promised += 1;
    }

    pub(crate) fn at(&self, index: u16) -> &Slot {
        debug_assert!(usize::from(index) < self.list.len());
        self.list.get(usize::from(index)).unwrap_or(&self.nobody)
    }

    pub(crate) fn at_mut(&mut self, index: u16) -> &mut Slot {
        debug_assert!(usize::from(index) < self.list.len());
        match self.list.get_mut(usize::from(index)) {
            Some(slot) => slot,
            None => &mut self.nobody,
        }
    }

    /// The slot of that index if it exists: for indices that a peer names.
    pub(crate) fn get(&self, index: u16) -> Option<&Slot> {
        self.list.get(usize::from(index))
    }

    /// The slots that commands have. The look ends with the last of them, and since the ones given back last are taken first, they lie
    /// at the beginning.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (u16, &Slot)> {
        let all = (0u16..).zip(self.list.iter());
        all.filter(|(_, slot)| slot.state != SlotState::Free).take(usize::from(self.total() - self.free))
    }

    /// The taken slots of a queue.
    pub(crate) fn of_queue(&self, queue: u16) -> impl Iterator<Item = (u16, &Slot)> {
        self.taken().filter(move |(_, slot)| slot.queue == queue)
    }

    pub(crate) fn push(&mut self, fifo: &mut Fifo, index: u16) {
        self.at_mut(index).next = NONE;
        if fifo.last == NONE {
            fifo.first = index;
        } else {
            self.at_mut(fifo.last).next = index;
        }
        fifo.last = index;
    }

    /// The slot behind one that is in a list.
    pub(crate) fn after(&self, index: u16) -> Option<u16> {
        Some(self.at(index).next).filter(|&next| next != NONE)
    }

    pub(crate) fn pop(&mut self, fifo: &mut Fifo) -> Option<u16> {
        let index = fifo.first()?;
        fifo.first = self.at(index).next;
        if fifo.first == NONE {
            fifo.last = NONE;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_lists_and_counts() {
        let list = Box::leak((0..4).map(|_| Slot::new(NONE)).collect::<Vec<_>>().into_boxed_slice());
        let mut slots = Slots::new(list);
        assert!(slots.reserve(3) && !slots.reserve(2));
        let (a, b) = (slots.take(7).unwrap(), slots.take(7).unwrap());
        let mut fifo = Fifo::EMPTY;
        slots.push(&mut fifo, a);
        slots.push(&mut fifo, b);
        assert_eq!((slots.after(a), slots.after(b)), (Some(b), None));
        assert_eq!(slots.of_queue(7).count(), 2);
        assert_eq!(
            (slots.pop(&mut fifo), slots.pop(&mut fifo), slots.pop(&mut fifo)),
            (Some(a), Some(b), None)
        );
        slots.give_back(a);
        slots.give_back(b);
        slots.unreserve(3);
        assert!(slots.reserve(4));
        assert_eq!(slots.free(), 4);
    }
}
