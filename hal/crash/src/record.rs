//! The record: a header, then items one behind the other, each a tag, a core, a length and its bytes, all
//! little-endian.
//!
//! It is written item by item while the card is broken. The header says that it is open, and its length grows behind
//! each item; only sealing gives it a checksum. So a record whose writing was cut short is known as such, and what it
//! has is still read.

use core::sync::atomic::{Ordering, compiler_fence};

use hal_simd::crc32c;

use crate::{COUNTERS_BYTES, MOST_FRAMES};

const MAGIC: [u8; 8] = *b"PSCRASH1";
const HEADER_BYTES: usize = 32;
const STATE: usize = COUNTERS_BYTES + 8;
const LENGTH: usize = COUNTERS_BYTES + 12;
const CHECKSUM: usize = COUNTERS_BYTES + 16;
const SHOWN: usize = COUNTERS_BYTES + 20;
/// Where the items begin in the region.
const ITEMS: usize = COUNTERS_BYTES + HEADER_BYTES;
const ITEM_HEAD_BYTES: usize = 4;

const OPEN: u32 = u32::from_le_bytes(*b"OPEN");
const SEALED: u32 = u32::from_le_bytes(*b"SEAL");

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// A [`Kind`], and the core that failed.
    Kind = 1,
    /// Text: what happened, for people.
    Reason = 2,
    /// Microseconds since the start of the card, 64 bits.
    Uptime = 3,
    /// The image's build id.
    Image = 4,
    /// Text: the boot argument that asked for this crash.
    Fault = 5,
    /// The card's start that ended so, counted since it got power, 32 bits.
    Boot = 6,
    /// A [`CoreState`].
    State = 7,
    /// [`Registers`] of a core.
    Registers = 8,
    /// Return addresses of a core, the innermost first, 64 bits each.
    Backtrace = 9,
    /// The last bytes of a core's log.
    Log = 10,
    /// Text: what went wrong while the record was written.
    Nested = 11,
    /// A core's [`Life`].
    Life = 12,
}

/// What kind of bug ended the card's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Code noticed that something cannot be.
    Panic = 1,
    /// The core did what it may not: a bad address, a bad instruction.
    Exception = 2,
    /// A stack met its guard page.
    StackOverflow = 3,
    /// A core made no progress.
    Stuck = 4,
    /// A core did not even answer.
    Silent = 5,
}

impl Kind {
    /// The kind with that number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        [Self::Panic, Self::Exception, Self::StackOverflow, Self::Stuck, Self::Silent]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    /// In a word or two.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Exception => "exception",
            Self::StackOverflow => "stack overflow",
            Self::Stuck => "watchdog",
            Self::Silent => "watchdog, no answer",
        }
    }
}

/// How a core's part of the record was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CoreState {
    /// It is the one that failed.
    Failed = 1,
    /// It was stopped by the one that failed, and gave its registers.
    Stopped = 2,
    /// It was asked and gave no answer.
    Silent = 3,
    /// It was not asked: there is no interrupt for it on this machine.
    Unknown = 4,
}

impl CoreState {
    /// The state with that number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        [Self::Failed, Self::Stopped, Self::Silent, Self::Unknown]
            .into_iter()
            .find(|state| *state as u8 == number)
    }
}

/// Registers of a core (Arm ARM D1): what it was doing when it failed or was stopped. The vectors save them in this
/// order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// x0 to x30.
    pub general: [u64; 31],
    /// SP_EL0, on which everything but handlers runs.
    pub stack_pointer: u64,
    /// ELR_EL1: the next instruction.
    pub return_address: u64,
    /// SPSR_EL1.
    pub saved_state: u64,
    /// ESR_EL1.
    pub syndrome: u64,
    /// FAR_EL1.
    pub fault_address: u64,
}

impl Registers {
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let rest =
            [self.stack_pointer, self.return_address, self.saved_state, self.syndrome, self.fault_address];
        self.general.into_iter().chain(rest)
    }

    /// Reads an item's bytes; `None` where they are too few.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut numbers = numbers(bytes);
        let mut registers = Self::default();
        for place in &mut registers.general {
            *place = numbers.next()?;
        }
        registers.stack_pointer = numbers.next()?;
        registers.return_address = numbers.next()?;
        registers.saved_state = numbers.next()?;
        registers.syndrome = numbers.next()?;
        registers.fault_address = numbers.next()?;
        Some(registers)
    }
}

/// What others can see of a core without asking it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// Turns of its loop, and sleeps.
    pub turns: u64,
    /// How often its own watchdog has looked.
    pub looks: u64,
    /// Until when it sleeps, in microseconds since the start; 0 where it is awake.
    pub asleep_until: u64,
}

impl Life {
    /// Reads an item's bytes; `None` where they are too few.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut numbers = numbers(bytes);
        Some(Self { turns: numbers.next()?, looks: numbers.next()?, asleep_until: numbers.next()? })
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Writes a record into a region. What does not fit is left out.
#[derive(Debug)]
pub struct Writer<'a> {
    region: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    /// Opens a new record; the one before is gone.
    pub fn begin(region: &'a mut [u8]) -> Self {
        let mut writer = Self { region, length: 0 };
        writer.put(STATE, &0u32.to_le_bytes());
        compiler_fence(Ordering::SeqCst);
        for at in [LENGTH, CHECKSUM, SHOWN] {
            writer.put(at, &0u32.to_le_bytes());
        }
        writer.put(COUNTERS_BYTES, &MAGIC);
        compiler_fence(Ordering::SeqCst);
        writer.put(STATE, &OPEN.to_le_bytes());
        writer
    }

    /// Goes on behind what an open record has; `None` where the region has none.
    pub fn resume(region: &'a mut [u8]) -> Option<Self> {
        let head = Head::read(region)?;
        (head.state == OPEN).then_some(Self { length: head.length, region })
    }

    /// Appends an item, cut to what there is room for; nothing where there is not even room for its head.
    pub fn item(&mut self, tag: Tag, core: usize, bytes: &[u8]) {
        self.item_of(tag, core, bytes.iter().copied());
    }

    /// As [`Writer::item`], from an iterator.
    pub fn item_of(&mut self, tag: Tag, core: usize, bytes: impl IntoIterator<Item = u8>) {
        let head = ITEMS + self.length;
        let start = head + ITEM_HEAD_BYTES;
        if start > self.region.len() {
            return;
        }
        let mut end = start;
        for byte in bytes.into_iter().take(usize::from(u16::MAX)) {
            let Some(place) = self.region.get_mut(end) else { break };
            *place = byte;
            end += 1;
        }
        let [low, high] = ((end - start) as u16).to_le_bytes();
        self.put(head, &[tag as u8, core as u8, low, high]);
        self.length = end - ITEMS;
        // The item stands before the length says so: the writer may be cut off anywhere.
        compiler_fence(Ordering::SeqCst);
        self.put(LENGTH, &(self.length as u32).to_le_bytes());
        compiler_fence(Ordering::SeqCst);
    }

    /// Appends what `text` writes, cut at `most` bytes.
    pub fn text(&mut self, tag: Tag, core: usize, most: usize, text: core::fmt::Arguments<'_>) {
        // Written in place, behind an empty item whose length is set afterwards: no buffer on a broken stack.
        let head = ITEMS + self.length;
        let start = head + ITEM_HEAD_BYTES;
        let limit = self.region.len().min(start.saturating_add(most));
        let Some(room) = self.region.get_mut(start..limit) else { return };
        let mut cut = Cut { room, used: 0 };
        let _ = core::fmt::Write::write_fmt(&mut cut, text);
        let used = cut.used;
        let [low, high] = (used as u16).to_le_bytes();
        self.put(head, &[tag as u8, core as u8, low, high]);
        self.length += ITEM_HEAD_BYTES + used;
        compiler_fence(Ordering::SeqCst);
        self.put(LENGTH, &(self.length as u32).to_le_bytes());
    }

    /// Appends a core's registers.
    pub fn registers(&mut self, core: usize, registers: &Registers) {
        self.item_of(Tag::Registers, core, registers.numbers().flat_map(u64::to_le_bytes));
    }

    /// Appends a core's backtrace.
    pub fn backtrace(&mut self, core: usize, addresses: impl Iterator<Item = u64>) {
        self.item_of(Tag::Backtrace, core, addresses.take(MOST_FRAMES).flat_map(u64::to_le_bytes));
    }

    /// Appends what can be seen of a core from outside.
    pub fn life(&mut self, core: usize, life: Life) {
        let numbers = [life.turns, life.looks, life.asleep_until];
        self.item_of(Tag::Life, core, numbers.into_iter().flat_map(u64::to_le_bytes));
    }

    /// Ends the record with its checksum.
    pub fn seal(mut self) {
        let items = self.region.get(ITEMS..ITEMS + self.length).unwrap_or_default();
        let checksum = crc32c(0, items);
        self.put(CHECKSUM, &checksum.to_le_bytes());
        compiler_fence(Ordering::SeqCst);
        self.put(STATE, &SEALED.to_le_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.region.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// Text that ends where the room does.
struct Cut<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl core::fmt::Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            let Some(place) = self.room.get_mut(self.used) else { return Err(core::fmt::Error) };
            *place = byte;
            self.used += 1;
        }
        Ok(())
    }
}

struct Head {
    state: u32,
    length: usize,
    checksum: u32,
    shown: u32,
}

impl Head {
    fn read(region: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            region.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
        };
        if !region.get(COUNTERS_BYTES..)?.starts_with(&MAGIC) {
            return None;
        }
        let length = number(LENGTH)? as usize;
        (length <= region.len().checked_sub(ITEMS)?).then_some(())?;
        Some(Self { state: number(STATE)?, length, checksum: number(CHECKSUM)?, shown: number(SHOWN)? })
    }
}

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// The region holds none.
    Absent,
    /// It is damaged: its checksum does not match.
    Damaged,
}

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    items: &'a [u8],
    region: &'a [u8],
    /// Its writing came to its end.
    pub whole: bool,
    /// It has been on the serial line already.
    pub shown: bool,
}

impl<'a> Record<'a> {
    /// Finds the record in a region, or in the first bytes of one.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(region: &'a [u8]) -> Result<Self, RecordError> {
        let head = Head::read(region).ok_or(RecordError::Absent)?;
        let end = ITEMS + head.length;
        let items = region.get(ITEMS..end).ok_or(RecordError::Absent)?;
        let whole = match head.state {
            OPEN => false,
            SEALED if crc32c(0, items) == head.checksum => true,
            SEALED => return Err(RecordError::Damaged),
            _ => return Err(RecordError::Absent),
        };
        let region = region.get(..end).ok_or(RecordError::Absent)?;
        Ok(Self { items, region, whole, shown: head.shown != 0 })
    }

    /// Notes in the region that its record has been on the serial line.
    pub fn mark_shown(region: &mut [u8]) {
        if let Some(place) = region.get_mut(SHOWN..SHOWN + 4) {
            place.copy_from_slice(&1u32.to_le_bytes());
        }
    }

    /// Counters, header and items: what goes over the serial line.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.region
    }

    /// Its items in their order; those of unknown tags are left out.
    #[must_use]
    pub fn items(&self) -> Items<'a> {
        Items(self.items)
    }

    /// The first item with that tag.
    #[must_use]
    pub fn item(&self, tag: Tag) -> Option<Item<'a>> {
        self.items().find(|item| item.tag == tag)
    }

    /// The text of the first item with that tag, as far as it is UTF-8.
    #[must_use]
    pub fn text(&self, tag: Tag) -> Option<&'a str> {
        let bytes = self.item(tag)?.bytes;
        match core::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(error) => bytes.get(..error.valid_up_to()).and_then(|bytes| core::str::from_utf8(bytes).ok()),
        }
    }

    /// Kind of the crash and the core that failed.
    #[must_use]
    pub fn kind(&self) -> Option<(Kind, u8)> {
        let item = self.item(Tag::Kind)?;
        Some((Kind::of(*item.bytes.first()?)?, item.core))
    }

    /// A number of up to 64 bits.
    #[must_use]
    pub fn number(&self, tag: Tag) -> Option<u64> {
        let bytes = self.item(tag)?.bytes;
        (bytes.len() <= 8).then(|| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// One part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// What it is.
    pub tag: Tag,
    /// The core that it is about.
    pub core: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Item<'a> {
    /// Its bytes as addresses.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + use<'a> {
        numbers(self.bytes)
    }
}

/// See [`Record::items`].
#[derive(Debug, Clone)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let ([tag, core, low, high], rest) = self.0.split_first_chunk::<ITEM_HEAD_BYTES>()?;
            let (bytes, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
            self.0 = rest;
            if let Some(tag) = TAGS.into_iter().find(|known| *known as u8 == *tag) {
                return Some(Item { tag, core: *core, bytes });
            }
        }
    }
}

const TAGS: [Tag; 12] = [
    Tag::Kind,
    Tag::Reason,
    Tag::Uptime,
    Tag::Image,
    Tag::Fault,
    Tag::Boot,
    Tag::State,
    Tag::Registers,
    Tag::Backtrace,
    Tag::Log,
    Tag::Nested,
    Tag::Life,
];

#[cfg(test)]
mod tests;
