//! Submission queue entries (Base 3.3.3.1).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A submission queue entry. Any 64 bytes are one; nothing in it is checked.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Command {
    /// OPC: opcode. Bits 1:0 tell the direction of the data.
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// CID: command identifier, unique among the outstanding commands of its queue.
    pub cid: U16,
    /// NSID. In fabrics commands the first byte is FCTYPE.
    pub nsid: U32,
    /// Command dword 2.
    pub cdw2: U32,
    /// Command dword 3.
    pub cdw3: U32,
    /// MPTR: metadata pointer.
    pub metadata: U64,
    /// DPTR: two PRP entries or one SGL descriptor.
    pub data_pointer: [u8; 16],
    /// Command dword 10.
    pub cdw10: U32,
    /// Command dword 11.
    pub cdw11: U32,
    /// Command dword 12.
    pub cdw12: U32,
    /// Command dword 13.
    pub cdw13: U32,
    /// Command dword 14.
    pub cdw14: U32,
    /// Command dword 15.
    pub cdw15: U32,
}

const _: () = assert!(size_of::<Command>() == 64 && align_of::<Command>() == 1);

impl Command {
    /// FUSE: 0 for a command of its own, 1 and 2 for the first and second of a fused pair.
    #[must_use]
    pub const fn fuse(&self) -> u8 {
        self.flags & 0b11
    }

    /// PSDT: 0 PRP, 1 SGL with a plain metadata buffer, 2 SGL with an SGL for metadata.
    #[must_use]
    pub const fn psdt(&self) -> u8 {
        self.flags >> 6
    }

    /// SLBA of Read, Write, Compare, Verify, Write Zeroes: the first logical block.
    #[must_use]
    pub const fn start_block(&self) -> u64 {
        (self.cdw11.get() as u64) << 32 | self.cdw10.get() as u64
    }

    /// NLB + 1 of the same: how many logical blocks, 1 to 65536.
    #[must_use]
    pub const fn block_count(&self) -> u32 {
        (self.cdw12.get() & 0xffff) + 1
    }

    /// FUA: data and metadata are on non-volatile media before completion.
    #[must_use]
    pub const fn force_unit_access(&self) -> bool {
        self.cdw12.get() & (1 << 30) != 0
    }

    /// DEAC of Write Zeroes: the blocks may be deallocated.
    #[must_use]
    pub const fn deallocate(&self) -> bool {
        self.cdw12.get() & (1 << 25) != 0
    }

    /// PRINFO: protection information; zero where none is used.
    #[must_use]
    pub const fn protection_info(&self) -> u8 {
        (self.cdw12.get() >> 26 & 0xf) as u8
    }

    /// Sets SLBA.
    pub fn set_start_block(&mut self, block: u64) {
        self.cdw10.set(block as u32);
        self.cdw11.set((block >> 32) as u32);
    }

    /// Sets both PRP entries (Base 4.1.1).
    pub fn set_prp(&mut self, prp1: u64, prp2: u64) {
        let (first, second) = self.data_pointer.split_at_mut(8);
        first.copy_from_slice(&prp1.to_le_bytes());
        second.copy_from_slice(&prp2.to_le_bytes());
    }

    /// The SGL descriptor in the data pointer.
    #[must_use]
    pub fn sgl(&self) -> SglDescriptor {
        zerocopy::transmute!(self.data_pointer)
    }

    /// Puts an SGL descriptor into the data pointer and says so in PSDT.
    pub fn set_sgl(&mut self, sgl: SglDescriptor) {
        self.flags = self.flags & 0x3f | 1 << 6;
        self.data_pointer = zerocopy::transmute!(sgl);
    }
}

/// An SGL descriptor (Base 4.1.2).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SglDescriptor {
    /// An address, or an offset into in-capsule data.
    pub address: U64,
    /// Length in bytes.
    pub length: U32,
    /// Zero.
    pub reserved: [u8; 3],
    /// SGL identifier: type in bits 7:4, subtype in bits 3:0.
    pub identifier: u8,
}

/// What an SGL descriptor stands for on NVMe/TCP (Base 4.1.2, TCP 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SglKind {
    /// Data Block, Offset: the data is in the capsule, at this offset.
    InCapsule,
    /// Transport Data Block, Transport Specific: the data moves by R2T and H2CData, or C2HData.
    Transport,
    /// Anything else.
    Other,
}

impl SglDescriptor {
    /// Identifier of a Data Block descriptor with an offset: in-capsule data.
    pub const IN_CAPSULE: u8 = 0x01;
    /// Identifier of a Transport Data Block descriptor, transport specific.
    pub const TRANSPORT: u8 = 0x5a;

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> SglKind {
        match self.identifier {
            Self::IN_CAPSULE => SglKind::InCapsule,
            Self::TRANSPORT => SglKind::Transport,
            _ => SglKind::Other,
        }
    }
}

/// One range of Dataset Management (NVM 3.2.3).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DatasetRange {
    /// Context attributes: hints.
    pub attributes: U32,
    /// Length in logical blocks.
    pub blocks: U32,
    /// First logical block.
    pub start_block: U64,
}

/// One source range of Copy, descriptor format 0h (NVM 3.2.2).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CopyRange {
    reserved_0: [u8; 8],
    /// SLBA: first logical block.
    pub start_block: U64,
    /// NLB: how many logical blocks, zero-based.
    pub blocks: U16,
    reserved_18: [u8; 14],
}

const _: () = assert!(size_of::<CopyRange>() == 32);

impl CopyRange {
    /// NLB + 1: how many logical blocks, 1 to 65536.
    #[must_use]
    pub const fn block_count(&self) -> u32 {
        self.blocks.get() as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let mut bytes = [0u8; 64];
        bytes[0] = 2;
        bytes[2..4].copy_from_slice(&0x1234u16.to_le_bytes());
        bytes[4..8].copy_from_slice(&7u32.to_le_bytes());
        bytes[39] = 0x5a;
        bytes[40..48].copy_from_slice(&0x1_0000_0002u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&(1u32 << 30 | 0xffff).to_le_bytes());
        let command = Command::read_from_bytes(&bytes).unwrap();
        assert_eq!((command.opcode, command.cid.get(), command.nsid.get()), (2, 0x1234, 7));
        assert_eq!(command.start_block(), 0x1_0000_0002);
        assert_eq!(command.block_count(), 65536);
        assert!(command.force_unit_access());
        assert_eq!(command.sgl().kind(), SglKind::Transport);
    }
}
