//! The interrupt translation service (IHI 0069, chapter 5): a device's write becomes an interrupt of one core.

use hal_mem::{DmaRegion, MmioRegion, device_write_fence};
use heapless::Vec;

use super::MAX_CORES;
use super::v3::{FIRST_LPI, LpiTables, Redistributor};
use crate::pci::MsiMessage;

const GITS_CTLR: usize = 0x0000;
const GITS_TYPER: usize = 0x0008;
const GITS_CBASER: usize = 0x0080;
const GITS_CWRITER: usize = 0x0088;
const GITS_CREADR: usize = 0x0090;
const GITS_BASER: usize = 0x0100;
/// Where devices write the event's number, from the start of the registers.
const GITS_TRANSLATER: u64 = 0x1_0040;

/// GITS_CTLR: nothing is going on any more.
const GITS_QUIESCENT: u32 = 1 << 31;

const TABLE_DEVICES: u64 = 1;
const TABLE_COLLECTIONS: u64 = 4;
const VALID: u64 = 1 << 63;
/// Inner shareable, write-back, in GITS_BASER and GITS_CBASER.
const WRITE_BACK: u64 = 7 << 59 | 7 << 53 | 1 << 10;

const COMMAND_BYTES: usize = 32;
/// Size of the command queue.
const QUEUE_BYTES: usize = 4096;
/// Events of each device, as a power of two: more than a device of ours has queues.
const EVENT_BITS: u32 = 6;
/// Most devices that get events.
const MAX_DEVICES: usize = 64;
/// Device ids beyond this width (PCI requester ids have it) are not served.
const DEVICE_BITS: u32 = 16;
const MOST_POLLS: u32 = 1_000_000;

const INT: u64 = 0x03;
const SYNC: u64 = 0x05;
const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;
const INV: u64 = 0x0c;

/// Why there is no translation service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItsError {
    /// The memory set aside for its tables is too small.
    Memory,
    /// It does not take commands.
    Stuck,
}

#[derive(Debug)]
struct Device {
    id: u32,
    events: u32,
}

/// A translation service and what has been given out by it.
#[derive(Debug)]
pub struct Its {
    registers: MmioRegion,
    translater: u64,
    queue: DmaRegion,
    write_offset: usize,
    /// Memory for the tables of devices yet to come.
    memory: DmaRegion,
    device_ids: u64,
    devices: Vec<Device, MAX_DEVICES>,
    next_interrupt: u32,
    end_interrupt: u32,
    /// How each core's redistributor is named in commands; `None` for a core that is absent.
    targets: [Option<u64>; MAX_CORES],
}

impl Its {
    /// Memory that the service, its redistributors and [`LpiTables`] need in all.
    pub const MEMORY_BYTES: usize = 2 << 20;

    /// Sets up the service with these registers (128 KiB), which devices reach at `address`. `redistributors`
    /// has one element for each core; their message interrupts are on already. What is left of `memory` is
    /// kept for tables of devices.
    ///
    /// # Errors
    /// [`ItsError`].
    pub fn new(
        registers: MmioRegion,
        address: u64,
        tables: &LpiTables,
        redistributors: &[Option<Redistributor>; MAX_CORES],
        mut memory: DmaRegion,
    ) -> Result<Self, ItsError> {
        let kind = registers.read64(GITS_TYPER);
        let by_address = kind & 1 << 19 != 0;
        let device_bits = ((kind >> 13 & 0x1f) as u32 + 1).min(DEVICE_BITS);
        stop(&registers)?;
        // The memory of the tables is zero before the service hears of them.
        device_write_fence();
        for index in 0..8 {
            let base = GITS_BASER + 8 * index;
            let entries = match registers.read64(base) >> 56 & 7 {
                TABLE_DEVICES => 1u64 << device_bits,
                TABLE_COLLECTIONS => MAX_CORES as u64,
                _ => continue,
            };
            set_table(&registers, base, entries, &mut memory)?;
        }
        let queue = memory.split_off(QUEUE_BYTES, 1 << 16).ok_or(ItsError::Memory)?;
        registers.write64(
            GITS_CBASER,
            queue.device_address().0 | WRITE_BACK | VALID | (QUEUE_BYTES / 4096 - 1) as u64,
        );
        registers.write64(GITS_CWRITER, 0);
        registers.write32(GITS_CTLR, 1);
        let targets = core::array::from_fn(|core| {
            redistributors.get(core).and_then(|r| r.as_ref()).map(|r| r.target(by_address))
        });
        let mut its = Self {
            registers,
            translater: address + GITS_TRANSLATER,
            queue,
            write_offset: 0,
            memory,
            device_ids: 1 << device_bits,
            devices: Vec::new(),
            next_interrupt: FIRST_LPI,
            end_interrupt: tables.end(),
            targets,
        };
        for (core, target) in targets.iter().enumerate() {
            if let Some(target) = target {
                its.command([MAPC, 0, VALID | target | core as u64, 0])?;
                its.command([SYNC, 0, *target, 0])?;
            }
        }
        Ok(its)
    }

    /// A message that wakes `core` for the device with this id; `None` when there is no such core, no more
    /// interrupt, event or table memory, or the service does not answer.
    pub fn allocate(&mut self, device: u32, core: usize) -> Option<MsiMessage> {
        let target = self.targets.get(core).copied().flatten()?;
        if u64::from(device) >= self.device_ids || self.next_interrupt >= self.end_interrupt {
            return None;
        }
        let index = match self.devices.iter().position(|known| known.id == device) {
            Some(index) => index,
            None => self.add_device(device)?,
        };
        let known = self.devices.get_mut(index)?;
        if known.events >= 1 << EVENT_BITS {
            return None;
        }
        let (event, interrupt) = (known.events, self.next_interrupt);
        known.events += 1;
        self.next_interrupt += 1;
        let id = u64::from(device) << 32;
        self.command([MAPTI | id, u64::from(interrupt) << 32 | u64::from(event), core as u64, 0]).ok()?;
        self.command([INV | id, u64::from(event), 0, 0]).ok()?;
        self.command([SYNC, 0, target, 0]).ok()?;
        Some(MsiMessage { address: self.translater, data: event })
    }

    /// Does what the device does with `message`.
    pub(super) fn raise(&mut self, device: u32, message: MsiMessage) {
        let _ = self.command([INT | u64::from(device) << 32, u64::from(message.data), 0, 0]);
    }

    fn add_device(&mut self, device: u32) -> Option<usize> {
        if self.devices.is_full() {
            return None;
        }
        let entry_bytes = (self.registers.read64(GITS_TYPER) >> 4 & 0xf) as usize + 1;
        let table = self.memory.split_off(entry_bytes << EVENT_BITS, 256)?;
        let table = table.device_address().0;
        self.command([MAPD | u64::from(device) << 32, u64::from(EVENT_BITS - 1), VALID | table, 0]).ok()?;
        self.devices.push(Device { id: device, events: 0 }).ok()?;
        Some(self.devices.len() - 1)
    }

    /// Has the service carry out a command, and waits until it has read it.
    fn command(&mut self, words: [u64; 4]) -> Result<(), ItsError> {
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: the offset is a multiple of 32 below the queue's length; only the service reads it, and
            // only up to what GITS_CWRITER says.
            unsafe {
                self.queue
                    .as_ptr()
                    .add(self.write_offset + 8 * index)
                    .cast::<u64>()
                    .write_volatile(word.to_le());
            }
        }
        self.write_offset = (self.write_offset + COMMAND_BYTES) % QUEUE_BYTES;
        device_write_fence();
        self.registers.write64(GITS_CWRITER, self.write_offset as u64);
        for _ in 0..MOST_POLLS {
            if self.registers.read64(GITS_CREADR) as usize == self.write_offset {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(ItsError::Stuck)
    }
}

/// Turns the service off and waits until it has forgotten what a loader had set up: its tables may be replaced only
/// then (IHI 0069, GITS_CTLR.Quiescent).
fn stop(registers: &MmioRegion) -> Result<(), ItsError> {
    let was_on = registers.read32(GITS_CTLR) & 1 != 0;
    registers.write32(GITS_CTLR, 0);
    for _ in 0..MOST_POLLS {
        if !was_on || registers.read32(GITS_CTLR) & GITS_QUIESCENT != 0 {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(ItsError::Stuck)
}

/// Gives the service a flat table of `entries` entries, in pages of the size that it insists on.
fn set_table(
    registers: &MmioRegion,
    base: usize,
    entries: u64,
    memory: &mut DmaRegion,
) -> Result<(), ItsError> {
    let fixed = registers.read64(base) & (7 << 56 | 0x1f << 48);
    let bytes = (entries * ((fixed >> 48 & 0x1f) + 1)) as usize;
    // Largest pages first: their alignment serves for the others too.
    let table = memory.split_off(bytes, 1 << 16).ok_or(ItsError::Memory)?;
    for (code, page_bytes) in [(2u64, 1usize << 16), (1, 1 << 14), (0, 1 << 12)] {
        let pages = (bytes.div_ceil(page_bytes).min(256) - 1) as u64;
        registers.write64(base, VALID | WRITE_BACK | fixed | table.device_address().0 | code << 8 | pages);
        if registers.read64(base) >> 8 & 3 == code {
            return Ok(());
        }
    }
    Err(ItsError::Stuck)
}
