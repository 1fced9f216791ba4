//! Where the blocks of a namespace are: what carries out block I/O for the controller.
//!
//! A request goes in with the pages that hold its data, a completion comes out with the same pages. While a
//! request is out, its pages belong to the backend: a drive may be writing them.

use hal_api::Instant;
use hal_mem::{PagePool, Pages};
use nvme::Status;

/// Which blocks: a namespace of one of this core's drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendNamespace {
    /// Number of the drive, given to it when it was added; no other drive has it soon after.
    pub drive: u8,
    /// NSID on that drive.
    pub nsid: u32,
}

/// What is to be done with blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Drive to pages.
    Read,
    /// Pages to drive.
    Write,
    /// What was written is on non-volatile media before completion. No blocks, no pages.
    Flush,
    /// Blocks read as zeros afterwards. No pages.
    WriteZeroes {
        /// DEAC: they may be deallocated.
        deallocate: bool,
    },
    /// The pages hold `ranges` entries of 16 bytes (`nvme::DatasetRange`), bounds already checked.
    DatasetManagement {
        /// How many, 1 to 256.
        ranges: u16,
        /// Bits 2:0 of command dword 11: integral read, integral write, deallocate.
        attributes: u8,
    },
    /// Fails with Compare Failure where the blocks differ from the pages.
    Compare,
    /// Fails where the blocks cannot be read. No pages.
    Verify,
    /// The blocks cannot be read afterwards until they are written. No pages.
    WriteUncorrectable,
    /// Blocks of `ranges` source ranges become those from the first logical block on. The pages hold the ranges
    /// (`nvme::CopyRange`), bounds already checked; FUA is about what is written.
    Copy {
        /// How many, 1 to [`MAX_COPY_RANGES`](crate::config::MAX_COPY_RANGES).
        ranges: u16,
    },
}

impl Operation {
    /// Whether blocks may read differently afterwards: what a host is told has failed must not do so later.
    #[must_use]
    pub const fn changes_blocks(&self) -> bool {
        match self {
            Self::Write
            | Self::WriteZeroes { .. }
            | Self::DatasetManagement { .. }
            | Self::WriteUncorrectable
            | Self::Copy { .. } => true,
            Self::Read | Self::Flush | Self::Compare | Self::Verify => false,
        }
    }
}

/// A block request.
#[derive(Debug)]
pub struct IoRequest {
    /// The caller's name for it, returned in the completion.
    pub token: u32,
    /// Whose it is: a small number of the caller's. Owners share a drive.
    pub owner: u16,
    /// Where.
    pub namespace: BackendNamespace,
    /// What.
    pub operation: Operation,
    /// First logical block.
    pub start_block: u64,
    /// How many logical blocks, 1 to 65536; 0 for Flush, Dataset Management and Copy.
    pub blocks: u32,
    /// Log2 of the block size in bytes.
    pub block_shift: u8,
    /// FUA.
    pub force_unit_access: bool,
    /// Room for all blocks (Read, Write, Compare) or the ranges (Dataset Management, Copy); else [`Pages::NONE`].
    pub pages: Pages,
}

/// The end of a block request.
#[derive(Debug)]
#[must_use = "the pages have to go back to their pool"]
pub struct IoCompletion {
    /// As in the request.
    pub token: u32,
    /// How it went.
    pub status: Status,
    /// The request's pages; `None` while they are quarantined because the drive may still write to them. The
    /// backend then returns them to the pool itself.
    pub pages: Option<Pages>,
}

/// Carries out block requests. Never blocks: completions are collected by the core loop.
pub trait Backend {
    /// Takes a request.
    ///
    /// # Errors
    /// [`Rejected`] gives it back: busy (try again at a later turn) or impossible.
    fn submit(&mut self, request: IoRequest, pool: &mut PagePool, now: Instant) -> Result<(), Rejected>;

    /// SMART / Health data of a drive, as last read; `None` while nothing is known.
    fn smart(&self, drive: u8) -> Option<&nvme::log_page::SmartLog>;
}

/// A request that was not taken.
#[derive(Debug)]
pub struct Rejected {
    /// The request, unchanged.
    pub request: IoRequest,
    /// Why.
    pub reason: RejectReason,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// All places are in use: try again later.
    Busy,
    /// It can never succeed, or not now (the drive is away): complete it with this status.
    Failed(Status),
}
