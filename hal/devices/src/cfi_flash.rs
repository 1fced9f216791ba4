//! Parallel NOR flash that describes itself by the Common Flash Interface (JEDEC JESD68.01) and takes Intel's commands (JEP137, set 1).
//!
//! One part of 16 data lines, or two side by side: a command goes to all of them at once, and all have to end. QEMU's `virt`
//! has two such banks. Regions with blocks of several sizes are not driven.

use core::task::Poll;

use hal_api::{FlashError, FlashShape, NorFlash};
use hal_mem::MmioRegion;

/// Query: what the part is.
const QUERY: u32 = 0x98;
/// Where the query is written to, in words of the bus.
const QUERY_AT: usize = 0x55;
/// Array: reads give what is stored.
const READ_ARRAY: u32 = 0xff;
const CLEAR_STATUS: u32 = 0x50;
const PROGRAM: u32 = 0x40;
const ERASE: u32 = 0x20;
/// Parts that come up locked take this before an erase; others do not mind.
const UNLOCK: u32 = 0x60;
const CONFIRM: u32 = 0xd0;

/// Status register, one in each part.
const READY: u32 = 0x80;
const ERASE_ERROR: u32 = 0x20;
const PROGRAM_ERROR: u32 = 0x10;
const VOLTAGE_ERROR: u32 = 0x08;
const LOCKED: u32 = 0x02;

/// Most bytes of an operation: words are programmed one by one as the part takes them.
const PROGRAM_BYTES: usize = 64;

/// Why a flash is not driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CfiError {
    /// Nothing answers the query.
    NoAnswer,
    /// It takes other commands than Intel's.
    OtherCommands,
    /// Its blocks are of several sizes, or do not fill the window that it is seen through.
    OtherShape,
}

impl CfiError {
    /// For logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "it does not answer a CFI query",
            Self::OtherCommands => "it does not take Intel's commands",
            Self::OtherShape => "its blocks are of several sizes, or beyond its window",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reads give what is stored.
    Idle,
    /// The block at this offset is unlocked, then erased.
    Unlocking(usize),
    Erasing(usize),
    /// The words from this offset to that one are programmed; the first of them is under way.
    Programming(usize, usize),
}

/// The words of a bank, 2 or 4 bytes each, at offsets in bytes.
pub trait FlashBus {
    /// Bytes that are seen.
    fn bytes(&self) -> usize;
    /// Reads a word.
    fn read(&self, offset: usize, width: usize) -> u32;
    /// Writes one.
    fn write(&self, offset: usize, width: usize, value: u32);
}

impl FlashBus for MmioRegion {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn read(&self, offset: usize, width: usize) -> u32 {
        if width == 4 { self.read32(offset) } else { self.read16(offset).into() }
    }

    fn write(&self, offset: usize, width: usize, value: u32) {
        if width == 4 {
            self.write32(offset, value);
        } else {
            self.write16(offset, value as u16);
        }
    }
}

/// A bank of flash.
#[derive(Debug)]
pub struct CfiFlash<B = MmioRegion> {
    window: B,
    /// Bytes of a word of the bus: 2 or 4.
    width: usize,
    shape: FlashShape,
    state: State,
    /// What is being programmed.
    bytes: [u8; PROGRAM_BYTES],
}

impl<B: FlashBus> CfiFlash<B> {
    /// Asks what stands behind `window`, whose bus has `width` bytes: 2 or 4.
    ///
    /// # Errors
    /// [`CfiError`].
    pub fn new(window: B, width: usize) -> Result<Self, CfiError> {
        if !matches!(width, 2 | 4) || window.bytes() < 0x80 * width {
            return Err(CfiError::OtherShape);
        }
        let shape = FlashShape {
            blocks: 0,
            block_bytes: 0,
            unit_bytes: width as u32,
            program_bytes: PROGRAM_BYTES as u32,
        };
        let mut flash = Self { window, width, shape, state: State::Idle, bytes: [0; PROGRAM_BYTES] };
        flash.command(0, READ_ARRAY);
        flash.command(QUERY_AT * width, QUERY);
        let shape = flash.query();
        flash.command(0, READ_ARRAY);
        flash.shape = shape?;
        Ok(flash)
    }

    /// Reads what the part says of itself (JESD68.01, tables 1 to 4).
    fn query(&self) -> Result<FlashShape, CfiError> {
        // The parts of a bank are of one kind, or it is none that can be driven.
        let byte = |at: usize| {
            let word = self.read_word(at * self.width);
            let all_lanes = self.lanes(word & 0xff);
            if word == all_lanes { Ok(word & 0xff) } else { Err(CfiError::NoAnswer) }
        };
        if [byte(0x10)?, byte(0x11)?, byte(0x12)?] != [b'Q', b'R', b'Y'].map(u32::from) {
            return Err(CfiError::NoAnswer);
        }
        if byte(0x13)? | byte(0x14)? << 8 != 1 {
            return Err(CfiError::OtherCommands);
        }
        let (size_power, regions) = (byte(0x27)?, byte(0x2c)?);
        let blocks = 1 + (byte(0x2d)? | byte(0x2e)? << 8);
        // In units of 256 bytes, where 0 stands for 128 bytes.
        let block_bytes = (byte(0x2f)? | byte(0x30)? << 8) << 8;
        let parts = self.width as u32 / 2;
        let shape = FlashShape { blocks, block_bytes: block_bytes.saturating_mul(parts), ..self.shape };
        let says = 1u64.checked_shl(size_power).unwrap_or(0).saturating_mul(parts.into());
        let fits = block_bytes > 0 && regions == 1 && shape.bytes() == says;
        if fits && says <= self.window.bytes() as u64 { Ok(shape) } else { Err(CfiError::OtherShape) }
    }

    /// A value for each part.
    const fn lanes(&self, value: u32) -> u32 {
        if self.width == 4 { value << 16 | value } else { value }
    }

    fn command(&self, offset: usize, command: u32) {
        self.write_word(offset, self.lanes(command));
    }

    fn read_word(&self, offset: usize) -> u32 {
        self.window.read(offset, self.width)
    }

    fn write_word(&self, offset: usize, value: u32) {
        self.window.write(offset, self.width, value);
    }

    /// The status at `offset`: `None` while a part is busy, else the errors of all.
    fn status(&self, offset: usize) -> Option<u32> {
        let status = self.read_word(offset);
        let ready = self.lanes(READY);
        (status & ready == ready).then_some((status | status >> 16) & 0xff)
    }

    /// Begins with the word at `at`.
    fn program_word(&mut self, at: usize, end: usize) {
        self.command(at, PROGRAM);
        let mut word = [0; 4];
        let from = PROGRAM_BYTES.saturating_sub(end - at);
        let bytes = self.bytes.get(from..).unwrap_or_default();
        for (place, byte) in word.iter_mut().zip(bytes.iter().take(self.width)) {
            *place = *byte;
        }
        self.write_word(at, u32::from_le_bytes(word));
        self.state = State::Programming(at, end);
    }

    /// Back to what is stored; errors are forgotten.
    fn end(&mut self, offset: usize) {
        self.command(offset, CLEAR_STATUS);
        self.command(offset, READ_ARRAY);
        self.state = State::Idle;
    }
}

fn check(status: u32) -> Result<(), FlashError> {
    if status & (LOCKED | VOLTAGE_ERROR) != 0 {
        Err(FlashError::Protected)
    } else if status & ERASE_ERROR != 0 {
        Err(FlashError::EraseFailed)
    } else if status & PROGRAM_ERROR != 0 {
        Err(FlashError::ProgramFailed)
    } else {
        Ok(())
    }
}

impl<B: FlashBus> NorFlash for CfiFlash<B> {
    fn shape(&self) -> FlashShape {
        self.shape
    }

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), FlashError> {
        if self.state != State::Idle {
            return Err(FlashError::Busy);
        }
        let start = offset as usize;
        if start as u64 + into.len() as u64 > self.shape.bytes() {
            return Err(FlashError::OutOfRange);
        }
        let mut left = into.iter_mut();
        // The width is a power of two.
        let mut skip = start & (self.width - 1);
        let mut at = start - skip;
        while left.len() > 0 {
            let bytes = self.read_word(at).to_le_bytes();
            for byte in bytes.iter().take(self.width).skip(skip) {
                let Some(place) = left.next() else { break };
                *place = *byte;
            }
            (at, skip) = (at + self.width, 0);
        }
        Ok(())
    }

    fn begin_erase(&mut self, block: u32) -> Result<(), FlashError> {
        if self.state != State::Idle {
            return Err(FlashError::Busy);
        }
        if block >= self.shape.blocks {
            return Err(FlashError::OutOfRange);
        }
        let offset = block as usize * self.shape.block_bytes as usize;
        self.command(offset, UNLOCK);
        self.command(offset, CONFIRM);
        self.state = State::Unlocking(offset);
        Ok(())
    }

    fn begin_program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        if self.state != State::Idle {
            return Err(FlashError::Busy);
        }
        let (start, width) = (offset as usize, self.width);
        let fits = start as u64 + bytes.len() as u64 <= self.shape.bytes();
        let place = PROGRAM_BYTES.checked_sub(bytes.len()).and_then(|from| self.bytes.get_mut(from..));
        let at_words = start.is_multiple_of(width) && bytes.len().is_multiple_of(width) && !bytes.is_empty();
        let place = place.filter(|_| fits && at_words).ok_or(FlashError::OutOfRange)?;
        // At the end of the array, so that where a word stands follows from what is left.
        place.copy_from_slice(bytes);
        self.program_word(start, start + bytes.len());
        Ok(())
    }

    fn poll(&mut self) -> Poll<Result<(), FlashError>> {
        loop {
            let (State::Unlocking(offset) | State::Erasing(offset) | State::Programming(offset, _)) =
                self.state
            else {
                return Poll::Ready(Ok(()));
            };
            let Some(status) = self.status(offset) else { return Poll::Pending };
            let next = match (check(status), self.state) {
                (Ok(()), State::Unlocking(_)) => {
                    self.command(offset, ERASE);
                    self.command(offset, CONFIRM);
                    self.state = State::Erasing(offset);
                    return Poll::Pending;
                }
                (Ok(()), State::Programming(at, end)) if at + self.width < end => {
                    Some((at + self.width, end))
                }
                (result, _) => {
                    self.end(offset);
                    return Poll::Ready(result);
                }
            };
            if let Some((at, end)) = next {
                self.program_word(at, end);
            }
        }
    }
}

#[cfg(test)]
mod tests;
