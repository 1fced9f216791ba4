//! GICv3: distributor, redistributors, and the tables of message interrupts (LPIs).

use hal_mem::{DmaRegion, MmioRegion, device_write_fence};

use super::{PRIORITY, WAKE_INTERRUPT, WATCH_PRIORITY, watch_bits};

const GICD_CTLR: usize = 0x0000;
const GICD_TYPER: usize = 0x0004;
const GICD_ICENABLER: usize = 0x0180;

const GICR_CTLR: usize = 0x0000;
const GICR_TYPER: usize = 0x0008;
const GICR_WAKER: usize = 0x0014;
const GICR_PROPBASER: usize = 0x0070;
const GICR_PENDBASER: usize = 0x0078;
const GICR_IGROUPR0: usize = 0x1_0080;
const GICR_ISENABLER0: usize = 0x1_0100;
const GICR_ICENABLER0: usize = 0x1_0180;
const GICR_IPRIORITYR: usize = 0x1_0400;

/// GICD_CTLR and GICR_CTLR (bit 3 there): a write is still taking effect.
const GICD_WRITE_PENDING: u32 = 1 << 31;
/// Non-secure group 1 on, affinity routing on (as seen non-secure, or with one security state).
const GICD_ENABLE: u32 = 1 << 1 | 1 << 4;
/// There is one security state, and so group 0 is nobody else's.
const GICD_ONE_STATE: u32 = 1 << 6;
/// Group 0 on, where there is one security state.
const GICD_ENABLE_GROUP_0: u32 = 1;
/// Message interrupts start here.
pub(super) const FIRST_LPI: u32 = 8192;
/// Width of interrupt numbers that the tables are made for.
const INTERRUPT_BITS: u32 = 14;
/// Polls before giving up on a bit that does not change.
const MOST_POLLS: u32 = 1_000_000;
/// Inner shareable, write-back: cacheability at `inner` and `outer`, shareability at 10.
const fn write_back(inner: u32, outer: u32) -> u64 {
    7 << inner | 7 << outer | 1 << 10
}

/// The distributor.
#[derive(Debug)]
pub struct DistributorV3 {
    registers: MmioRegion,
}

impl DistributorV3 {
    /// A distributor with these registers (64 KiB).
    #[must_use]
    pub const fn new(registers: MmioRegion) -> Self {
        Self { registers }
    }

    /// Turns all shared interrupts off and the distributor on, and says whether group 0 is ours: there is one security
    /// state only. Once, by the core that boots.
    pub fn initialize(&mut self) -> bool {
        self.registers.write32(GICD_CTLR, 0);
        self.wait();
        let words = (self.registers.read32(GICD_TYPER) as usize & 0x1f) + 1;
        for word in 1..words.min(32) {
            self.registers.write32(GICD_ICENABLER + 4 * word, u32::MAX);
        }
        let groups = self.registers.read32(GICD_CTLR) & GICD_ONE_STATE != 0;
        let group_0 = if groups { GICD_ENABLE_GROUP_0 } else { 0 };
        self.registers.write32(GICD_CTLR, GICD_ENABLE | group_0);
        self.wait();
        groups
    }

    /// Whether there are message interrupts.
    #[must_use]
    pub fn has_lpis(&self) -> bool {
        self.registers.read32(GICD_TYPER) & 1 << 17 != 0
    }

    fn wait(&self) {
        for _ in 0..MOST_POLLS {
            if self.registers.read32(GICD_CTLR) & GICD_WRITE_PENDING == 0 {
                return;
            }
        }
    }
}

/// A core's redistributor.
#[derive(Debug)]
pub struct Redistributor {
    registers: MmioRegion,
    address: u64,
}

/// Finds the redistributor of the core with affinity `mpidr` in a region of them, which starts at `address`.
#[must_use]
pub fn find_redistributor(region: &MmioRegion, address: u64, mpidr: u64) -> Option<Redistributor> {
    let wanted = (mpidr & 0xff_ffff) | (mpidr >> 32 & 0xff) << 24;
    let mut offset = 0;
    while offset + 0x2_0000 <= region.len() {
        let kind = region.read64(offset + GICR_TYPER);
        let bytes = if kind & 1 << 1 != 0 { 0x4_0000 } else { 0x2_0000 };
        if kind >> 32 == wanted {
            let registers = region.window(offset, 0x2_0000)?;
            return Some(Redistributor { registers, address: address + offset as u64 });
        }
        if kind & 1 << 4 != 0 {
            return None;
        }
        offset += bytes;
    }
    None
}

impl Redistributor {
    /// Wakes the redistributor, and turns on its core's wake-up interrupt and its private interrupt `timer` (16 to 31),
    /// and in group 0 the private interrupt `watch` and the one that stops the core, where group 0 is ours. All other
    /// private ones are off.
    pub fn initialize(&mut self, timer: u32, watch: Option<u32>) {
        let waker = self.registers.read32(GICR_WAKER);
        self.registers.write32(GICR_WAKER, waker & !(1 << 1));
        for _ in 0..MOST_POLLS {
            if self.registers.read32(GICR_WAKER) & 1 << 2 == 0 {
                break;
            }
        }
        // A timer that a loader left running would never fall silent: nobody here serves it.
        self.registers.write32(GICR_ICENABLER0, u32::MAX);
        self.registers.write32(GICR_IGROUPR0, !watch_bits(watch));
        for word in 0..8 {
            self.registers.write32(GICR_IPRIORITYR + 4 * word, PRIORITY * 0x0101_0101);
        }
        for interrupt in (0..32).filter(|interrupt| watch_bits(watch) >> interrupt & 1 != 0) {
            self.registers.write8(GICR_IPRIORITYR + interrupt, WATCH_PRIORITY);
        }
        let on = 1 << WAKE_INTERRUPT | 1 << (timer & 31) | watch_bits(watch);
        self.registers.write32(GICR_ISENABLER0, on);
    }

    /// Turns on message interrupts. False where the redistributor has none or no table memory is left.
    pub fn enable_lpis(&mut self, tables: &mut LpiTables, memory: &mut DmaRegion) -> bool {
        if self.registers.read64(GICR_TYPER) & 1 == 0 {
            return false;
        }
        let Some(pending) = memory.split_off(1 << (INTERRUPT_BITS - 3), 1 << 16) else { return false };
        let properties = tables.properties.device_address().0;
        self.registers
            .write64(GICR_PROPBASER, properties | write_back(7, 56) | u64::from(INTERRUPT_BITS - 1));
        // Pending table zero: the memory was zeroed when it was set aside.
        self.registers.write64(GICR_PENDBASER, pending.device_address().0 | write_back(7, 56) | 1 << 62);
        device_write_fence();
        let control = self.registers.read32(GICR_CTLR);
        self.registers.write32(GICR_CTLR, control | 1);
        true
    }

    /// How the translation service names this redistributor, in place in a command: by address or by number.
    #[must_use]
    pub fn target(&self, by_address: bool) -> u64 {
        if by_address { self.address } else { (self.registers.read64(GICR_TYPER) >> 8 & 0xffff) << 16 }
    }
}

/// What all redistributors share: which message interrupts are enabled, and their priority.
#[derive(Debug)]
pub struct LpiTables {
    properties: DmaRegion,
}

impl LpiTables {
    /// A table with all message interrupts enabled; nothing raises one that was not given out. `None` when
    /// `memory` is too small.
    #[must_use]
    pub fn new(memory: &mut DmaRegion) -> Option<Self> {
        let count = (1 << INTERRUPT_BITS) - FIRST_LPI as usize;
        let properties = memory.split_off(count, 1 << 12)?;
        for index in 0..count {
            // Bit 0 enables, bit 1 reads as one.
            let property = PRIORITY as u8 | 3;
            // SAFETY: within the region; devices alone read it.
            unsafe { properties.as_ptr().add(index).write_volatile(property) };
        }
        Some(Self { properties })
    }

    /// One past the last message interrupt.
    #[must_use]
    pub const fn end(&self) -> u32 {
        1 << INTERRUPT_BITS
    }
}
