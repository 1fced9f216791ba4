//! Flash that is erased in blocks and programmed in small units (NOR): where a board keeps what must survive a reset.
//!
//! Operations are begun and polled, because a real part takes up to seconds for an erase.

use core::task::Poll;

/// How a flash is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlashShape {
    /// Erase blocks, all of one size.
    pub blocks: u32,
    /// Bytes of an erase block.
    pub block_bytes: u32,
    /// What is programmed begins and ends at a multiple of this, a power of two that divides the block.
    pub unit_bytes: u32,
    /// Most bytes of one operation that programs.
    pub program_bytes: u32,
}

impl FlashShape {
    /// Bytes of the whole flash.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks as u64 * self.block_bytes as u64
    }
}

/// Why a flash has not done what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashError {
    /// The place is beyond the flash, or not at a multiple of its unit.
    OutOfRange,
    /// An operation is under way.
    Busy,
    /// A block could not be erased.
    EraseFailed,
    /// Bytes could not be programmed.
    ProgramFailed,
    /// The block is locked, or the whole flash may only be read.
    Protected,
    /// It does not answer.
    NoAnswer,
}

impl FlashError {
    /// For logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfRange => "the place is beyond the flash",
            Self::Busy => "an operation is under way",
            Self::EraseFailed => "a block could not be erased",
            Self::ProgramFailed => "bytes could not be programmed",
            Self::Protected => "it may only be read",
            Self::NoAnswer => "it does not answer",
        }
    }
}

/// A flash, or the part of it that is given away. One operation is under way at a time, from its beginning until
/// [`Self::poll`] is ready; nothing is read meanwhile.
pub trait NorFlash {
    /// How it is divided.
    fn shape(&self) -> FlashShape;

    /// Reads from `offset` on. An erased byte is FFh.
    ///
    /// # Errors
    /// [`FlashError`]; what `into` holds then is nothing that stands in the flash.
    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), FlashError>;

    /// Begins to erase the block of this number.
    ///
    /// # Errors
    /// [`FlashError`]; nothing has begun then.
    fn begin_erase(&mut self, block: u32) -> Result<(), FlashError>;

    /// Begins to program whole units, of one block and each at most once since that was erased.
    ///
    /// # Errors
    /// [`FlashError`]; nothing has begun then.
    fn begin_program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError>;

    /// Looks how the operation goes; ready when it has ended, and when there is none. What has ended well survives the
    /// loss of power.
    fn poll(&mut self) -> Poll<Result<(), FlashError>>;
}
