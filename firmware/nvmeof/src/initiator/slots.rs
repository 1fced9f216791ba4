//! The commands of a queue, in a table that the caller gives.

use core::borrow::BorrowMut;

use nvme::{Command, Status};

/// Most slots of a queue: a CID has 12 bits of slot and 4 of generation.
pub const MAX_SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 12;
/// No slot.
pub(super) const NONE: u16 = u16::MAX;

/// How the data of a command moves. The byte counts are never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transfer {
    /// There is none.
    #[default]
    None,
    /// So many bytes come from the target.
    Receive(u32),
    /// So many bytes go to the target when it asks for them by R2T.
    Send(u32),
    /// So many bytes go with the command; at most [`crate::pdu::IN_CAPSULE_BYTES`].
    SendInCapsule(u32),
}

impl Transfer {
    /// How many bytes move.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Receive(bytes) | Self::Send(bytes) | Self::SendInCapsule(bytes) => bytes,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Free,
    /// The capsule waits to be sent.
    CapsuleQueued,
    /// The capsule is being sent.
    CapsuleSending,
    /// The next word is the target's.
    AtTarget,
    /// Data that the target asked for waits to be sent, or the next piece of it.
    DataQueued,
    /// A piece of it is being sent.
    DataSending,
    /// It ended and the caller has not been told.
    Done,
}

/// A place for one command. What it holds is the queue's business.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub(super) state: State,
    /// Counts the uses of the slot, so that a second answer to an old command is found out.
    pub(super) generation: u8,
    /// The next one in whichever list the slot is.
    next: u16,
    pub(super) token: u64,
    pub(super) command: Command,
    pub(super) transfer: Transfer,
    /// Bytes of data that came, or went.
    pub(super) moved_bytes: u32,
    /// Where the data ends that the target asked for.
    pub(super) asked_end: u32,
    /// TTAG of the open R2T.
    pub(super) tag: u16,
    /// A data digest did not fit.
    pub(super) damaged: bool,
    pub(super) status: Status,
    pub(super) result: u64,
}

impl Slot {
    /// Its capsule has been sent, and it has not ended.
    const fn is_at_target(&self) -> bool {
        matches!(self.state, State::AtTarget | State::DataQueued | State::DataSending)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            state: State::Free,
            generation: 0,
            next: NONE,
            token: 0,
            command: Command::default(),
            transfer: Transfer::None,
            moved_bytes: 0,
            asked_end: 0,
            tag: 0,
            damaged: false,
            status: Status::SUCCESS,
            result: 0,
        }
    }
}

/// A list of slots, first in, first out.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    head: u16,
    tail: u16,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE };

    pub(super) const fn is_empty(self) -> bool {
        self.head == NONE
    }
}

/// The slots, and which of them are free.
#[derive(Debug)]
pub(super) struct Slots<S> {
    table: S,
    free: List,
    in_use: usize,
}

impl<S: BorrowMut<[Slot]>> Slots<S> {
    /// Takes the table over, whatever stands in it. Slots beyond [`MAX_SLOTS`] are not used.
    pub(super) fn new(mut table: S) -> Self {
        for slot in table.borrow_mut().iter_mut() {
            let generation = slot.generation;
            *slot = Slot { generation, ..Slot::default() };
        }
        let count = table.borrow().len().min(MAX_SLOTS);
        let mut slots = Self { table, free: List::EMPTY, in_use: 0 };
        let mut free = List::EMPTY;
        for index in 0..count {
            slots.push(&mut free, index as u16);
        }
        slots.free = free;
        slots
    }

    pub(super) fn into_table(self) -> S {
        self.table
    }

    pub(super) fn total(&self) -> usize {
        self.table.borrow().len().min(MAX_SLOTS)
    }

    pub(super) const fn in_use(&self) -> usize {
        self.in_use
    }

    pub(super) fn get(&self, index: u16) -> Option<&Slot> {
        self.table.borrow().get(usize::from(index))
    }

    pub(super) fn get_mut(&mut self, index: u16) -> Option<&mut Slot> {
        self.table.borrow_mut().get_mut(usize::from(index))
    }

    pub(super) fn push(&mut self, list: &mut List, index: u16) {
        let Some(slot) = self.get_mut(index) else { return };
        slot.next = NONE;
        match self.get_mut(list.tail) {
            Some(tail) => tail.next = index,
            None => list.head = index,
        }
        list.tail = index;
    }

    pub(super) fn pop(&mut self, list: &mut List) -> Option<u16> {
        let index = list.head;
        list.head = self.get(index)?.next;
        if list.head == NONE {
            list.tail = NONE;
        }
        Some(index)
    }

    /// A free slot with a new generation; it is in no list.
    pub(super) fn take(&mut self) -> Option<u16> {
        let mut free = self.free;
        let index = self.pop(&mut free)?;
        self.free = free;
        self.in_use += 1;
        let slot = self.get_mut(index)?;
        let generation = slot.generation.wrapping_add(1) & 0xf;
        *slot = Slot { generation, ..Slot::default() };
        Some(index)
    }

    pub(super) fn give_back(&mut self, index: u16) {
        let Some(slot) = self.get_mut(index) else { return };
        slot.state = State::Free;
        let mut free = self.free;
        self.push(&mut free, index);
        self.free = free;
        self.in_use = self.in_use.saturating_sub(1);
    }

    pub(super) fn cid(&self, index: u16) -> u16 {
        let generation = self.get(index).map_or(0, |slot| slot.generation);
        index | u16::from(generation) << SLOT_BITS
    }

    /// The slot of a command at the target.
    pub(super) fn find(&self, cid: u16) -> Option<u16> {
        let index = cid & (MAX_SLOTS as u16 - 1);
        let slot = self.get(index).filter(|_| usize::from(index) < self.total())?;
        (slot.is_at_target() && self.cid(index) == cid).then_some(index)
    }

    /// The slot of a command at the target that was submitted with this token.
    pub(super) fn of_token(&self, token: u64) -> Option<u16> {
        let mut slots = self.table.borrow().iter();
        let position = slots.position(|slot| slot.token == token && slot.is_at_target())?;
        u16::try_from(position).ok()
    }

    /// A slot in use, whatever its state.
    pub(super) fn any_in_use(&self) -> Option<u16> {
        let position = self.table.borrow().iter().position(|slot| slot.state != State::Free)?;
        u16::try_from(position).ok()
    }
}
