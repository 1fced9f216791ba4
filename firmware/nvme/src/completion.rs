//! Completion queue entries (Base 3.3.3.2).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;

/// A completion queue entry.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Completion {
    /// Command specific, dword 0.
    pub result: U32,
    /// Command specific, dword 1; the upper half of results of fabrics commands.
    pub result_high: U32,
    /// SQHD: submission queue head.
    pub sq_head: U16,
    /// SQID; reserved over fabrics.
    pub sq_id: U16,
    /// CID of the command that ended.
    pub cid: U16,
    /// Status in bits 15:1, phase tag in bit 0 (PCIe only).
    pub status: U16,
}

const _: () = assert!(size_of::<Completion>() == 16);

impl Completion {
    /// A completion of command `cid` without a phase tag.
    #[must_use]
    pub fn new(cid: u16, status: Status, result: u64) -> Self {
        Self {
            result: U32::new(result as u32),
            result_high: U32::new((result >> 32) as u32),
            cid: U16::new(cid),
            status: U16::new(status.to_field() << 1),
            ..Self::default()
        }
    }

    /// The status without the phase tag.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_field(self.status.get() >> 1)
    }
}
