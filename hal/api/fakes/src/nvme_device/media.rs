//! Where the blocks of a namespace are: the storage behind the controller model.
//!
//! The model checks commands and moves them through queues; a [`Media`] moves data. [`RamMedia`] answers at once; a file
//! answers later; a simulator's own may hold unflushed blocks apart and lose them. Memory is given as [`Segment`]s,
//! which the model has checked. Must not depend on queues or registers.

use core::fmt::Debug;
use core::hint::black_box;
use std::collections::TryReserveError;

use hal_mem::{DmaRegion, PAGE_BYTES};

/// Status of an operation that has worked.
pub const MEDIA_SUCCESS: u16 = 0;
/// Write Fault (SCT 2h, SC 80h).
pub const MEDIA_WRITE_FAULT: u16 = 0x0280;
/// Unrecovered Read Error (SCT 2h, SC 81h).
pub const MEDIA_UNRECOVERED_READ: u16 = 0x0281;
/// Internal Error (SCT 0h, SC 06h).
pub const MEDIA_INTERNAL_ERROR: u16 = 0x0006;

/// A piece of memory that a device may reach. It stays valid for the rest of the program; as with hardware, whoever
/// else uses it at the same time sees a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    address: u64,
    bytes: usize,
}

impl Segment {
    /// Only for memory inside a `DmaRegion`, which is never freed: [`Segment::read`] and [`Segment::write`] rely on it.
    pub(super) const fn new(address: u64, bytes: usize) -> Self {
        Self { address, bytes }
    }

    /// The first byte, for a system call that moves the data itself.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Copies the first bytes out of the segment, as many as `into` has.
    pub fn read(&self, into: &mut [u8]) {
        assert!(into.len() <= self.bytes, "read beyond a segment");
        // SAFETY: inside a `DmaRegion` (the constructor's promise), which is valid for the rest of the program and into
        // which nobody holds references; `into` is the caller's own.
        unsafe { core::ptr::copy_nonoverlapping(self.as_ptr(), into.as_mut_ptr(), into.len()) }
    }

    /// Copies `from` to the start of the segment.
    pub fn write(&self, from: &[u8]) {
        assert!(from.len() <= self.bytes, "write beyond a segment");
        // SAFETY: as in `read`.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), self.as_ptr(), from.len()) }
    }
}

/// The whole pages of a region, for those who test a [`Media`] by itself.
pub fn segments_of(region: &DmaRegion) -> impl Iterator<Item = Segment> + '_ {
    let address = region.device_address().0;
    (0..region.len() / PAGE_BYTES)
        .map(move |page| Segment::new(address + (page * PAGE_BYTES) as u64, PAGE_BYTES))
}

/// Copies all of `data` into the segments, in order.
pub fn scatter(segments: &[Segment], mut data: &[u8]) {
    for segment in segments {
        let (now, rest) = data.split_at(segment.len().min(data.len()));
        segment.write(now);
        data = rest;
    }
    assert!(data.is_empty(), "segments are shorter than the data");
}

/// Fills `data` from the segments, in order.
pub fn gather(segments: &[Segment], mut data: &mut [u8]) {
    for segment in segments {
        let (now, rest) = data.split_at_mut(segment.len().min(data.len()));
        segment.read(now);
        data = rest;
    }
    assert!(data.is_empty(), "segments are shorter than the data");
}

/// What a media is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaOperation {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write,
    /// All writes that have ended become durable. Has no range.
    Flush,
    /// Blocks become zeros; with `deallocate` their space may be given up.
    WriteZeroes {
        /// DEAC of the command.
        deallocate: bool,
    },
    /// Blocks are given up, and read as zeros from then on.
    Deallocate,
}

/// One operation on a range of bytes, which is whole blocks inside the namespace.
#[derive(Debug, Clone, Copy)]
pub struct MediaRequest<'a> {
    /// Comes back in [`MediaEnd`].
    pub tag: u32,
    /// What to do.
    pub operation: MediaOperation,
    /// FUA of the command: what is written is durable when the operation ends.
    pub fua: bool,
    /// First byte.
    pub offset_bytes: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Memory for reads and writes, `bytes` bytes in all; else empty.
    pub memory: &'a [Segment],
}

/// An operation that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaEnd {
    /// The request's tag.
    pub tag: u32,
    /// 0 or the 15 bits above the phase tag.
    pub status: u16,
}

/// The storage of one namespace. Operations may run at the same time and end in any order; the tag of one that runs is
/// not used for another.
pub trait Media: Debug + Send {
    /// Size in bytes; it never changes.
    fn bytes(&self) -> u64;

    /// Starts an operation. `Some` is its status where it has ended already; otherwise [`Media::poll`] tells its end.
    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16>;

    /// Called once after a batch of starts.
    fn commit(&mut self) {}

    /// An operation that has ended since the last call.
    fn poll(&mut self) -> Option<MediaEnd> {
        None
    }

    /// The controller was reset or cut off from memory: what runs is forgotten. After the return none of it touches
    /// memory any more; a write among it may or may not have happened.
    fn abandon(&mut self) {}

    /// An Abort names the command that the operations with this tag belong to. How many of them it ends: [`Media::poll`]
    /// tells nothing of those any more, and they touch no memory.
    fn abort(&mut self, _tag: u32) -> u32 {
        0
    }

    /// Operations with this tag that hang go on, because somebody has asked for them.
    fn let_go(&mut self, _tag: u32) {}

    /// The drive has lost its power, after [`Media::abandon`]: what is not durable may be lost.
    fn lose_power(&mut self) {}

    /// What a read would give now: a test's look behind the controller's back.
    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]);

    /// Changes blocks behind the controller's back, durably.
    fn poke(&mut self, offset_bytes: u64, from: &[u8]);
}

/// Blocks in memory, which answer at once and lose nothing while the process lives.
#[derive(Debug)]
pub struct RamMedia {
    blocks: Vec<u8>,
}

impl RamMedia {
    /// Zeros. Memory is taken from the system when blocks are written first.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { blocks: vec![0; bytes] }
    }

    /// As [`new`](Self::new), for a size that the system may not have.
    ///
    /// # Errors
    /// The system gives no such range of memory.
    pub fn try_new(bytes: usize) -> Result<Self, TryReserveError> {
        // Reserved memory would have to be written to become zeros, and so be taken at once: it is a question only.
        let mut asked: Vec<u8> = Vec::new();
        asked.try_reserve_exact(bytes)?;
        // Without this the compiler may leave both the memory and the question out.
        drop(black_box(asked));
        Ok(Self::new(bytes))
    }
}

impl Media for RamMedia {
    fn bytes(&self) -> u64 {
        self.blocks.len() as u64
    }

    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16> {
        let at = request.offset_bytes as usize;
        let range = at..at + request.bytes as usize;
        match request.operation {
            MediaOperation::Read => scatter(request.memory, &self.blocks[range]),
            MediaOperation::Write => gather(request.memory, &mut self.blocks[range]),
            MediaOperation::WriteZeroes { .. } | MediaOperation::Deallocate => self.blocks[range].fill(0),
            MediaOperation::Flush => (),
        }
        Some(MEDIA_SUCCESS)
    }

    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]) {
        let at = offset_bytes as usize;
        into.copy_from_slice(&self.blocks[at..at + into.len()]);
    }

    fn poke(&mut self, offset_bytes: u64, from: &[u8]) {
        let at = offset_bytes as usize;
        self.blocks[at..at + from.len()].copy_from_slice(from);
    }
}

/// Blocks in memory behind a volatile cache: what was neither flushed nor written with FUA is lost with the power.
#[derive(Debug)]
pub struct CachedMedia {
    blocks: RamMedia,
    durable: Vec<u8>,
    /// Ranges written since the last flush.
    dirty: Vec<(usize, usize)>,
}

impl CachedMedia {
    /// Zeros, which are durable.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { blocks: RamMedia::new(bytes), durable: vec![0; bytes], dirty: Vec::new() }
    }

    fn make_durable(&mut self, from: usize, end: usize) {
        self.durable[from..end].copy_from_slice(&self.blocks.blocks[from..end]);
    }
}

impl Media for CachedMedia {
    fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16> {
        let from = request.offset_bytes as usize;
        let end = from + request.bytes as usize;
        let status = self.blocks.start(request);
        match request.operation {
            MediaOperation::Read => (),
            MediaOperation::Flush => {
                for (from, end) in core::mem::take(&mut self.dirty) {
                    self.make_durable(from, end);
                }
            }
            _ if request.fua => self.make_durable(from, end),
            _ => self.dirty.push((from, end)),
        }
        status
    }

    fn lose_power(&mut self) {
        for (from, end) in core::mem::take(&mut self.dirty) {
            self.blocks.blocks[from..end].copy_from_slice(&self.durable[from..end]);
        }
    }

    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]) {
        self.blocks.peek(offset_bytes, into);
    }

    fn poke(&mut self, offset_bytes: u64, from: &[u8]) {
        self.blocks.poke(offset_bytes, from);
        let at = offset_bytes as usize;
        self.make_durable(at, at + from.len());
    }
}
