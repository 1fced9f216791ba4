//! GICv2: distributor, CPU interface, and the GICv2m frame.

use hal_mem::MmioRegion;

use super::{
    MAX_CORES, MOST_ACKNOWLEDGED, PRIORITY, STOP_INTERRUPT, WAKE_INTERRUPT, WATCH_PRIORITY, watch_bits,
};
use crate::pci::MsiMessage;

const GICD_CTLR: usize = 0x000;
const GICD_TYPER: usize = 0x004;
const GICD_IGROUPR: usize = 0x080;
const GICD_ISENABLER: usize = 0x100;
const GICD_ICENABLER: usize = 0x180;
const GICD_IPRIORITYR: usize = 0x400;
const GICD_ITARGETSR: usize = 0x800;
const GICD_ICFGR: usize = 0xc00;
const GICD_SGIR: usize = 0xf00;

const GICC_CTLR: usize = 0x000;
const GICC_PMR: usize = 0x004;
const GICC_IAR: usize = 0x00c;
const GICC_EOIR: usize = 0x010;

/// GICC_CTLR: both groups on, one register acknowledges both (AckCtl), group 0 comes as FIQ.
const BOTH_GROUPS: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3;

/// GICv2m: base and number of interrupts.
const MSI_TYPER: usize = 0x008;
/// GICv2m: writes of an interrupt's number raise it.
const MSI_SETSPI_NS: usize = 0x040;

/// The distributor. Several handles may exist: each core uses only its own banked registers, and the core
/// that boots sets up what is shared before the others run.
#[derive(Debug)]
pub struct DistributorV2 {
    registers: MmioRegion,
}

impl DistributorV2 {
    /// A distributor with these registers (4 KiB).
    #[must_use]
    pub const fn new(registers: MmioRegion) -> Self {
        Self { registers }
    }

    /// Turns all shared interrupts off and the distributor on, and says whether group 0 is ours: where a secure world
    /// has it, the groups cannot be written. Once, by the core that boots.
    pub fn initialize(&mut self) -> bool {
        let words = (self.registers.read32(GICD_TYPER) as usize & 0x1f) + 1;
        self.registers.write32(GICD_CTLR, 0);
        for word in 1..words {
            self.registers.write32(GICD_ICENABLER + 4 * word, u32::MAX);
            self.registers.write32(GICD_IGROUPR + 4 * word, u32::MAX);
        }
        self.registers.write32(GICD_IGROUPR, u32::MAX);
        let groups = self.registers.read32(GICD_IGROUPR) == u32::MAX;
        self.registers.write32(GICD_CTLR, if groups { 3 } else { 1 });
        groups
    }

    /// Turns on the calling core's wake-up interrupt and its private interrupt `timer` (16 to 31), and in group 0 the
    /// private interrupt `watch` and the one that stops the core, where group 0 is ours. All other private ones are
    /// off. Returns the core's bit in target masks.
    pub fn initialize_core(&mut self, timer: u32, watch: Option<u32>) -> u8 {
        self.registers.write32(GICD_ICENABLER, u32::MAX);
        self.registers.write32(GICD_IGROUPR, !watch_bits(watch));
        for word in 0..8 {
            self.registers.write32(GICD_IPRIORITYR + 4 * word, PRIORITY * 0x0101_0101);
        }
        for interrupt in (0..32).filter(|interrupt| watch_bits(watch) >> interrupt & 1 != 0) {
            self.registers.write8(GICD_IPRIORITYR + interrupt, WATCH_PRIORITY);
        }
        let on = 1 << WAKE_INTERRUPT | 1 << (timer & 31) | watch_bits(watch);
        self.registers.write32(GICD_ISENABLER, on);
        // With one core the targets read as zero (IHI 0048, 4.3.12).
        let mask = self.registers.read8(GICD_ITARGETSR);
        if mask == 0 { 1 } else { mask }
    }

    /// Wakes the cores whose bits are set in `targets`.
    pub fn wake(&mut self, targets: u8) {
        self.registers.write32(GICD_SGIR, u32::from(targets) << 16 | WAKE_INTERRUPT);
    }

    /// Stops the cores whose bits are set in `targets`.
    pub fn stop(&mut self, targets: u8) {
        self.registers.write32(GICD_SGIR, u32::from(targets) << 16 | STOP_INTERRUPT);
    }

    /// Turns on an edge-triggered shared interrupt (32 and up) for the cores in `targets`.
    fn enable_edge(&mut self, interrupt: u32, targets: u8) {
        let number = interrupt as usize;
        let field = GICD_ICFGR + 4 * (number / 16);
        let configuration = self.registers.read32(field) | 2 << (2 * (number % 16));
        self.registers.write32(field, configuration);
        self.registers.write8(GICD_IPRIORITYR + number, PRIORITY as u8);
        self.registers.write8(GICD_ITARGETSR + number, targets);
        self.registers.write32(GICD_ISENABLER + 4 * (number / 32), 1 << (number % 32));
    }
}

/// A core's interface. Its registers are banked: each core sees its own.
#[derive(Debug)]
pub struct CpuInterfaceV2 {
    registers: MmioRegion,
}

impl CpuInterfaceV2 {
    /// An interface with these registers (8 KiB).
    #[must_use]
    pub const fn new(registers: MmioRegion) -> Self {
        Self { registers }
    }

    /// Lets all interrupts through to the calling core; with `groups`, those of group 0 as FIQ, and acknowledging
    /// those of group 1 through the same register.
    pub fn initialize(&mut self, groups: bool) {
        self.registers.write32(GICC_PMR, 0xff);
        self.registers.write32(GICC_CTLR, if groups { BOTH_GROUPS } else { 1 });
    }

    /// Acknowledges what is pending and says what it is; 1020 and above for nothing.
    pub fn acknowledge(&mut self) -> u32 {
        self.registers.read32(GICC_IAR)
    }

    /// Ends what was acknowledged.
    pub fn end(&mut self, acknowledged: u32) {
        self.registers.write32(GICC_EOIR, acknowledged);
    }

    /// Acknowledges and ends the interrupts pending for the calling core, up to [`MOST_ACKNOWLEDGED`]; returns how
    /// many, and whether the one that stops the core was among them: the register serves both groups, so that it may come
    /// here just before it is taken as FIQ. Nothing is acknowledged after it, and the caller has to raise it again.
    pub fn acknowledge_all(&mut self) -> (u32, bool) {
        for count in 0..MOST_ACKNOWLEDGED {
            let acknowledged = self.registers.read32(GICC_IAR);
            let interrupt = acknowledged & 0x3ff;
            if interrupt >= 1020 {
                return (count, false);
            }
            self.registers.write32(GICC_EOIR, acknowledged);
            if interrupt == STOP_INTERRUPT {
                return (count + 1, true);
            }
        }
        (MOST_ACKNOWLEDGED, false)
    }
}

/// A GICv2m frame: writes to it raise shared interrupts.
#[derive(Debug)]
pub struct V2m {
    frame: MmioRegion,
    distributor: DistributorV2,
    doorbell: u64,
    next: u32,
    end: u32,
    targets: [u8; MAX_CORES],
}

impl V2m {
    /// The frame with these registers (4 KiB), which devices reach at `address`. `targets` holds each core's bit
    /// as [`DistributorV2::initialize_core`] gave it; 0 for a core that is absent.
    #[must_use]
    pub fn new(
        frame: MmioRegion,
        address: u64,
        distributor: DistributorV2,
        targets: [u8; MAX_CORES],
    ) -> Self {
        let kind = frame.read32(MSI_TYPER);
        let first = (kind >> 16 & 0x3ff).max(32);
        let end = (first + (kind & 0x3ff)).min(1020);
        Self { frame, distributor, doorbell: address + MSI_SETSPI_NS as u64, next: first, end, targets }
    }

    /// A message that wakes `core`; `None` when the frame has no more or there is no such core.
    pub fn allocate(&mut self, core: usize) -> Option<MsiMessage> {
        let target = self.targets.get(core).copied().filter(|target| *target != 0)?;
        if self.next >= self.end {
            return None;
        }
        let interrupt = self.next;
        self.next += 1;
        self.distributor.enable_edge(interrupt, target);
        Some(MsiMessage { address: self.doorbell, data: interrupt })
    }

    /// Does what a device does with `message`.
    pub(super) fn raise(&mut self, message: MsiMessage) {
        self.frame.write32(MSI_SETSPI_NS, message.data);
    }
}
