//! The memory map: identity, 4 KiB granule, 48 bits, one table tree for all cores (Arm ARM D8).
//!
//! The entry code runs on a tree of two pages that maps whole GiB with ASID 0. [`Tables`] builds the real one,
//! which runs as ASID 1: no entry of the first can be mistaken for one of the second, whatever their sizes.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::registers::{dsb_isb, write_register};

const PAGE: u64 = 4096;
const ENTRIES: usize = 512;
/// Enough for an image, 16 memory regions and devices anywhere.
const POOL_TABLES: usize = 64;

const VALID: u64 = 1;
/// A table at levels 0 to 2, a page at level 3.
const TABLE_OR_PAGE: u64 = 2;
const ATTRIBUTE_NORMAL: u64 = 2 << 2;
const ATTRIBUTE_DEVICE: u64 = 1 << 2;
const ATTRIBUTE_CONFIGURATION: u64 = 0;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const NEVER_EXECUTE: u64 = 1 << 53 | 1 << 54;
const UNPRIVILEGED_NEVER_EXECUTE: u64 = 1 << 54;
const ADDRESS_MASK: u64 = 0x0000_ffff_ffff_f000;

/// MAIR_EL1: 0 Device-nGnRnE, 1 Device-nGnRE, 2 Normal write-back.
pub(crate) const MAIR_VALUE: u64 = 0x00ff_0400;
/// TCR_EL1: T0SZ 16, write-back inner-shareable walks, no TTBR1. The entry code adds IPS.
pub(crate) const TCR_VALUE: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;
/// SCTLR_EL1 with what reads as one, MMU, caches and alignment checks off.
pub(crate) const SCTLR_MMU_OFF: u64 = 0x30d0_0800;
/// SCTLR_EL1 with MMU and caches on, and stack alignment checked.
pub(crate) const SCTLR_MMU_ON: u64 = SCTLR_MMU_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12;
/// A GiB block of the entry code's tree: Normal, executable.
pub(crate) const BLOCK_NORMAL: u64 =
    VALID | ATTRIBUTE_NORMAL | INNER_SHAREABLE | ACCESSED | NOT_GLOBAL | UNPRIVILEGED_NEVER_EXECUTE;
/// A GiB block of the entry code's tree: registers.
pub(crate) const BLOCK_DEVICE: u64 = VALID | ATTRIBUTE_DEVICE | ACCESSED | NOT_GLOBAL | NEVER_EXECUTE;

/// What a range of addresses is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Code: read, execute.
    Text,
    /// Constants: read.
    ReadOnly,
    /// Memory: read, write; write-back, shared with the other cores and with devices.
    Memory,
    /// Registers: read, write; Device-nGnRE.
    Device,
    /// Configuration space, whose writes are answered by the function itself (PCI Express Base 4.0, 2.1): read,
    /// write; Device-nGnRnE.
    Configuration,
}

impl Kind {
    const fn attributes(self) -> u64 {
        let normal = VALID | ACCESSED | ATTRIBUTE_NORMAL | INNER_SHAREABLE;
        match self {
            Self::Text => normal | READ_ONLY | UNPRIVILEGED_NEVER_EXECUTE,
            Self::ReadOnly => normal | READ_ONLY | NEVER_EXECUTE,
            Self::Memory => normal | NEVER_EXECUTE,
            Self::Device => VALID | ACCESSED | ATTRIBUTE_DEVICE | NEVER_EXECUTE,
            Self::Configuration => VALID | ACCESSED | ATTRIBUTE_CONFIGURATION | NEVER_EXECUTE,
        }
    }
}

/// Why a range cannot be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// The pool of table pages is used up.
    NoTables,
    /// The range, or a part of it, is mapped already or ends beyond 48 bits.
    Taken,
}

#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

struct Pool(UnsafeCell<[Table; POOL_TABLES]>);

// SAFETY: the tables' entries are atomics; a table is given out once, by an atomic counter.
unsafe impl Sync for Pool {}

static POOL: Pool =
    Pool(UnsafeCell::new([const { Table([const { AtomicU64::new(0) }; ENTRIES]) }; POOL_TABLES]));
static POOL_NEXT: AtomicUsize = AtomicUsize::new(0);

/// A tree of translation tables under construction or in use.
pub struct Tables {
    root: &'static Table,
}

impl Tables {
    /// An empty tree.
    ///
    /// # Errors
    /// [`MapError::NoTables`].
    pub fn new() -> Result<Self, MapError> {
        Ok(Self { root: new_table()? })
    }

    /// Maps `start..end` to itself; both are widened to whole pages, registers included.
    ///
    /// # Errors
    /// [`MapError`]; what was mapped before the error stays.
    pub fn map(&mut self, start: u64, end: u64, kind: Kind) -> Result<(), MapError> {
        let mut at = start & !(PAGE - 1);
        let end = end.checked_next_multiple_of(PAGE).filter(|end| *end <= 1 << 48).ok_or(MapError::Taken)?;
        while at < end {
            at += self.map_one(at, end - at, kind)?;
        }
        Ok(())
    }

    /// The value of TTBR0_EL1 for this tree.
    #[must_use]
    pub fn root(&self) -> u64 {
        (self.root as *const Table as u64) | 1 << 48
    }

    /// Runs the calling core on this tree.
    ///
    /// # Safety
    /// The tree maps the image, the stacks and everything that is in use, with the permissions it needs.
    pub unsafe fn activate(&self) {
        dsb_isb();
        // SAFETY: the caller's promise; the other ASID keeps the two trees' entries apart.
        unsafe { write_register!("ttbr0_el1", self.root()) };
        dsb_isb();
        // SAFETY: drops entries of the tree that is no longer in use.
        unsafe { core::arch::asm!("tlbi vmalle1", "dsb nsh", "isb", options(nostack, preserves_flags)) };
    }

    /// Maps the largest block that fits at `at`, and returns its size.
    fn map_one(&self, at: u64, left: u64, kind: Kind) -> Result<u64, MapError> {
        let mut table = self.root;
        for level in 0..4 {
            let shift = 39 - 9 * level;
            let size = 1u64 << shift;
            let index = (at >> shift) as usize % ENTRIES;
            let entry = table.0.get(index).ok_or(MapError::Taken)?;
            let old = entry.load(Ordering::Relaxed);
            let block_fits = level > 0 && at.is_multiple_of(size) && left >= size && old == 0;
            if level == 3 || block_fits {
                if old != 0 {
                    return Err(MapError::Taken);
                }
                let page = if level == 3 { TABLE_OR_PAGE } else { 0 };
                entry.store(at | kind.attributes() | page, Ordering::Relaxed);
                return Ok(size);
            }
            table = if old == 0 {
                let fresh = new_table()?;
                entry.store(fresh as *const Table as u64 | VALID | TABLE_OR_PAGE, Ordering::Relaxed);
                fresh
            } else if old & TABLE_OR_PAGE == 0 {
                return Err(MapError::Taken);
            } else {
                // SAFETY: a table entry's address is that of a table of the pool, which lives for ever and
                // holds only atomics.
                unsafe { &*((old & ADDRESS_MASK) as *const Table) }
            };
        }
        Err(MapError::Taken)
    }
}

fn new_table() -> Result<&'static Table, MapError> {
    let index = POOL_NEXT.fetch_add(1, Ordering::Relaxed);
    if index >= POOL_TABLES {
        return Err(MapError::NoTables);
    }
    // SAFETY: in range, and given out once (the counter only rises).
    Ok(unsafe { &*POOL.0.get().cast::<Table>().add(index) })
}
