//! How a request becomes commands: what the drive can do, and how much of it at once.

use controller::{IoRequest, Operation};
use nvme::identify::{IdentifyController, IdentifyNvmController};
use nvme::opcode::io;

use crate::limits::{MAX_PART_BLOCKS, MAX_PART_BYTES, SCRATCH_PAGES};

/// What a drive allows and claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest data of one command in bytes: MDTS and what one PRP list page describes. A multiple of 4096.
    pub transfer_bytes: u32,
    /// WZSL in bytes; where it is 0 or not there, MDTS in bytes. MDTS is about transfers, of which Write Zeroes has
    /// none, so that drives need not hold to it; but hosts, Linux among them, never ask for more, and what nobody asks
    /// for nobody has tried. `u64::MAX` for no limit.
    pub write_zeroes_bytes: u64,
    /// VSL in bytes; `u64::MAX` for no limit.
    pub verify_bytes: u64,
    /// WUSL in bytes; where it is 0 or not there, MDTS in bytes, as with WZSL.
    pub write_uncorrectable_bytes: u64,
    /// ONCS.
    pub optional_commands: u16,
    /// VWC bit 0.
    pub volatile_write_cache: bool,
    /// DMRL; 0 not reported.
    pub dataset_ranges: u8,
    /// DMRSL; 0 not reported.
    pub dataset_range_blocks: u32,
    /// DMSL; 0 not reported.
    pub dataset_blocks: u64,
}

impl Limits {
    /// Before the drive was asked: nothing optional, one page at a time.
    pub const UNKNOWN: Self = Self {
        transfer_bytes: 4096,
        write_zeroes_bytes: 4096,
        verify_bytes: 4096,
        write_uncorrectable_bytes: 4096,
        optional_commands: 0,
        volatile_write_cache: true,
        dataset_ranges: 0,
        dataset_range_blocks: 0,
        dataset_blocks: 0,
    };

    const COMPARE: u16 = 1 << 0;
    const WRITE_UNCORRECTABLE: u16 = 1 << 1;
    const DATASET_MANAGEMENT: u16 = 1 << 2;
    const WRITE_ZEROES: u16 = 1 << 3;
    const VERIFY: u16 = 1 << 7;

    /// What Identify Controller tells; `page_bytes` is CAP.MPSMIN's page.
    pub fn of_controller(data: &IdentifyController, page_bytes: u64) -> Self {
        let transfer = power(page_bytes, data.mdts).min(u64::from(MAX_PART_BYTES));
        Self {
            transfer_bytes: transfer as u32,
            write_zeroes_bytes: power(page_bytes, data.mdts),
            write_uncorrectable_bytes: power(page_bytes, data.mdts),
            verify_bytes: u64::MAX,
            optional_commands: data.optional_commands.get(),
            volatile_write_cache: data.volatile_write_cache & 1 != 0,
            ..Self::UNKNOWN
        }
    }

    /// What Identify Controller of the NVM command set adds.
    pub fn with_nvm(self, data: &IdentifyNvmController, page_bytes: u64) -> Self {
        Self {
            write_zeroes_bytes: match data.write_zeroes_limit {
                0 => self.write_zeroes_bytes,
                limit => power(page_bytes, limit),
            },
            verify_bytes: power(page_bytes, data.verify_limit),
            write_uncorrectable_bytes: match data.write_uncorrectable_limit {
                0 => self.write_uncorrectable_bytes,
                limit => power(page_bytes, limit),
            },
            dataset_ranges: data.dataset_ranges,
            dataset_range_blocks: data.dataset_range_blocks.get(),
            dataset_blocks: data.dataset_blocks.get(),
            ..self
        }
    }

    /// Whether the drive has Write Uncorrectable, which the card cannot do in its place.
    pub const fn has_write_uncorrectable(&self) -> bool {
        self.claims(Self::WRITE_UNCORRECTABLE)
    }

    const fn claims(&self, bit: u16) -> bool {
        self.optional_commands & bit != 0
    }

    const fn limits_datasets(&self) -> bool {
        self.dataset_ranges != 0 || self.dataset_range_blocks != 0 || self.dataset_blocks != 0
    }

    fn blocks(bytes: u64, block_shift: u8) -> u32 {
        // At least one block: a limit below the block size is the drive's mistake and its to refuse.
        (bytes >> block_shift).clamp(1, u64::from(MAX_PART_BLOCKS)) as u32
    }
}

/// `page_bytes` × 2^`exponent`; no limit for exponent 0.
fn power(page_bytes: u64, exponent: u8) -> u64 {
    if exponent == 0 || u32::from(exponent) >= page_bytes.leading_zeros() {
        return u64::MAX;
    }
    page_bytes << exponent
}

/// How a request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing to do.
    Nothing,
    /// One command without data or blocks.
    Flush,
    /// Commands whose data is in the request's pages, of so many blocks at most.
    Data {
        /// Read, Write or Compare.
        opcode: u8,
        /// Largest part.
        part_blocks: u32,
    },
    /// Commands without data.
    NoData {
        /// Write Zeroes, Verify or Write Uncorrectable.
        opcode: u8,
        /// Largest part.
        part_blocks: u32,
        /// DEAC.
        deallocate: bool,
    },
    /// Write commands with the page of zeros named again and again.
    WriteZeroPage {
        /// Largest part.
        part_blocks: u32,
    },
    /// One Dataset Management command with the request's own page.
    Dataset,
    /// Dataset Management commands whose ranges the card cuts.
    CutDataset,
    /// Reads into the scratch pages, which the card compares or forgets.
    Scratch {
        /// Largest part.
        part_blocks: u32,
        /// Compare with the request's pages.
        compare: bool,
    },
    /// Reads of all source ranges into the scratch pages, then writes from there.
    Copy {
        /// Largest part.
        part_blocks: u32,
    },
}

impl Plan {
    /// Whether the request needs the scratch pages, of which a drive has one set.
    pub(crate) const fn needs_scratch(&self) -> bool {
        matches!(self, Self::Scratch { .. } | Self::Copy { .. })
    }
}

/// Chooses the plan. `zeroes_deallocate`: the namespace takes DEAC in Write Zeroes (DLFEAT bit 3).
pub(crate) fn plan(request: &IoRequest, limits: &Limits, zeroes_deallocate: bool) -> Plan {
    let shift = request.block_shift;
    let part_blocks = Limits::blocks(u64::from(limits.transfer_bytes), shift);
    let scratch_bytes = limits.transfer_bytes.min(SCRATCH_PAGES * 4096);
    let scratch_blocks = Limits::blocks(u64::from(scratch_bytes), shift);
    match request.operation {
        Operation::Read => Plan::Data { opcode: io::READ, part_blocks },
        Operation::Write => Plan::Data { opcode: io::WRITE, part_blocks },
        // Without a volatile write cache Flush has no effect (NVM 3.2.1), so that the way to the drive is saved.
        Operation::Flush if !limits.volatile_write_cache => Plan::Nothing,
        Operation::Flush => Plan::Flush,
        Operation::WriteZeroes { deallocate } if limits.claims(Limits::WRITE_ZEROES) => Plan::NoData {
            opcode: io::WRITE_ZEROES,
            part_blocks: Limits::blocks(limits.write_zeroes_bytes, shift),
            deallocate: deallocate && zeroes_deallocate,
        },
        Operation::WriteZeroes { .. } => Plan::WriteZeroPage { part_blocks },
        // A hint: success without effect is allowed (NVM 3.2.3).
        Operation::DatasetManagement { .. } if !limits.claims(Limits::DATASET_MANAGEMENT) => Plan::Nothing,
        Operation::DatasetManagement { .. } if limits.limits_datasets() => Plan::CutDataset,
        Operation::DatasetManagement { .. } => Plan::Dataset,
        Operation::Compare if limits.claims(Limits::COMPARE) => {
            Plan::Data { opcode: io::COMPARE, part_blocks }
        }
        Operation::Compare => Plan::Scratch { part_blocks: scratch_blocks, compare: true },
        Operation::Verify if limits.claims(Limits::VERIFY) => Plan::NoData {
            opcode: io::VERIFY,
            part_blocks: Limits::blocks(limits.verify_bytes, shift),
            deallocate: false,
        },
        Operation::Verify => Plan::Scratch { part_blocks: scratch_blocks, compare: false },
        Operation::WriteUncorrectable => Plan::NoData {
            opcode: io::WRITE_UNCORRECTABLE,
            part_blocks: Limits::blocks(limits.write_uncorrectable_bytes, shift),
            deallocate: false,
        },
        Operation::Copy { .. } => Plan::Copy { part_blocks: scratch_blocks },
    }
}
