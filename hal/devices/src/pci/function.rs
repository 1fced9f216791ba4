//! One function of a device: its configuration space, its BARs, and MSI-X (PCI Express Base 4.0, 7.5 and 7.7.2).

use hal_mem::{MmioRegion, device_full_fence};

use super::config::{
    self, CAPABILITY_MSIX, CLASS, COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY,
    CONFIG_BYTES, Capability, DEVICE, VENDOR,
};
use super::{BARS, PciError};

/// What a device writes, and where, to raise an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address on the bus; a multiple of 4.
    pub address: u64,
    /// The value written there.
    pub data: u32,
}

/// A PCI function that enumeration found; whoever holds the value drives the device.
#[derive(Debug)]
pub struct Function {
    address: u16,
    requester_id: u16,
    config: MmioRegion,
    bars: [Option<MmioRegion>; BARS],
    msix: Option<Msix>,
}

#[derive(Debug)]
struct Msix {
    /// Offset of the capability.
    capability: u16,
    vectors: u16,
    table: MmioRegion,
}

/// Message Control of MSI-X, two bytes into the capability: on, all vectors masked, entries less one.
const MSIX_CONTROL: u16 = 2;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK_ALL: u16 = 1 << 14;
const MSIX_ENTRIES_MASK: u16 = 0x7ff;
/// Table offset and BAR indicator, four bytes into the capability.
const MSIX_TABLE: u16 = 4;
/// One table entry: address, upper address, data, vector control (section 7.7.2.5).
const MSIX_ENTRY_BYTES: usize = 16;
const MSIX_ENTRY_DATA: usize = 8;
const MSIX_ENTRY_CONTROL: usize = 12;
const MSIX_ENTRY_MASKED: u32 = 1;

impl Function {
    /// A function with its configuration space (4096 bytes) and its memory BARs, each mapped whole; a 64-bit BAR
    /// stands under the lower of its two indices.
    #[must_use]
    pub fn new(address: u16, config: MmioRegion, bars: [Option<MmioRegion>; BARS]) -> Self {
        let mut function = Self { address, requester_id: address, config, bars, msix: None };
        function.msix = function.find_msix();
        function
    }

    /// The function behind a bridge that passes its requests on under another name.
    #[must_use]
    pub(super) fn with_requester_id(self, requester_id: u16) -> Self {
        Self { requester_id, ..self }
    }

    /// Where it stands: bus << 8 | device << 3 | function.
    #[must_use]
    pub const fn address(&self) -> u16 {
        self.address
    }

    /// The requester ID that its requests bear, its interrupts among them, where they leave the bus: its address, or
    /// that of a bridge from the days of PCI in front of it.
    #[must_use]
    pub const fn requester_id(&self) -> u16 {
        self.requester_id
    }

    /// Vendor ID; all ones when the device is gone.
    #[must_use]
    pub fn vendor(&self) -> u16 {
        self.read16(VENDOR)
    }

    /// Device ID.
    #[must_use]
    pub fn device(&self) -> u16 {
        self.read16(DEVICE)
    }

    /// Class code: base class, subclass, programming interface, in 24 bits.
    #[must_use]
    pub fn class(&self) -> u32 {
        self.read32(CLASS) >> 8
    }

    /// Reads 8 bits of configuration space; out of range reads all ones.
    #[must_use]
    pub fn read8(&self, offset: u16) -> u8 {
        self.place(offset, 1).map_or(u8::MAX, |place| self.config.read8(place))
    }

    /// Reads 16 bits of configuration space; out of range or not aligned reads all ones.
    #[must_use]
    pub fn read16(&self, offset: u16) -> u16 {
        self.place(offset, 2).map_or(u16::MAX, |place| self.config.read16(place))
    }

    /// Reads 32 bits of configuration space; out of range or not aligned reads all ones.
    #[must_use]
    pub fn read32(&self, offset: u16) -> u32 {
        self.place(offset, 4).map_or(u32::MAX, |place| self.config.read32(place))
    }

    /// Writes 8 bits of configuration space; out of range does nothing.
    pub fn write8(&mut self, offset: u16, value: u8) {
        if let Some(place) = self.place(offset, 1) {
            self.config.write8(place, value);
        }
    }

    /// Writes 16 bits of configuration space; out of range or not aligned does nothing.
    pub fn write16(&mut self, offset: u16, value: u16) {
        if let Some(place) = self.place(offset, 2) {
            self.config.write16(place, value);
        }
    }

    /// Writes 32 bits of configuration space; out of range or not aligned does nothing.
    pub fn write32(&mut self, offset: u16, value: u32) {
        if let Some(place) = self.place(offset, 4) {
            self.config.write32(place, value);
        }
    }

    /// The capabilities in the order of their list. Ends where the list leaves its region or loops.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> + '_ {
        config::capabilities(|offset| self.read32(offset))
    }

    /// All of memory BAR `index`; `None` for one that is absent, an I/O BAR, or the upper half of a 64-bit one.
    ///
    /// Each call gives a window onto the same registers: the caller keeps them from conflicting.
    #[must_use]
    pub fn bar(&self, index: usize) -> Option<MmioRegion> {
        let bar = self.bars.get(index)?.as_ref()?;
        bar.window(0, bar.len())
    }

    /// Lets the function answer to accesses to its BARs. Off after enumeration.
    pub fn enable_memory(&mut self) {
        self.write16(COMMAND, self.read16(COMMAND) | COMMAND_MEMORY);
    }

    /// Lets the function read and write memory, or stops it; interrupts are such writes. Off after enumeration. When
    /// it has been stopped, its last write has arrived.
    pub fn set_bus_master(&mut self, on: bool) {
        let command = self.read16(COMMAND) & !COMMAND_BUS_MASTER;
        self.write16(COMMAND, if on { command | COMMAND_BUS_MASTER } else { command });
        if !on {
            // The answer to a read overtakes no write of the function (PCI Express Base 4.0, 2.4.1); whoever uses the
            // memory next does so after it.
            let _ = self.read16(COMMAND);
            device_full_fence();
        }
    }

    /// How many MSI-X vectors there are; 0 without MSI-X, and where the table does not lie within a BAR.
    #[must_use]
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, |msix| msix.vectors)
    }

    /// Gives `vector` its message and leaves it masked. Memory decoding must be on.
    ///
    /// # Errors
    /// [`PciError::NoVector`] when there is no such vector.
    pub fn set_msix_vector(&mut self, vector: u16, message: MsiMessage) -> Result<(), PciError> {
        self.mask_vector(vector);
        let (table, entry) = self.entry(vector).ok_or(PciError::NoVector)?;
        table.write32(entry, message.address as u32);
        table.write32(entry + 4, (message.address >> 32) as u32);
        table.write32(entry + MSIX_ENTRY_DATA, message.data);
        Ok(())
    }

    /// Holds the vector's messages back; the device keeps one pending.
    pub fn mask_vector(&mut self, vector: u16) {
        if let Some((table, entry)) = self.entry(vector) {
            table.write32(entry + MSIX_ENTRY_CONTROL, MSIX_ENTRY_MASKED);
        }
    }

    /// Lets the vector's messages out.
    pub fn unmask_vector(&mut self, vector: u16) {
        if let Some((table, entry)) = self.entry(vector) {
            table.write32(entry + MSIX_ENTRY_CONTROL, 0);
        }
    }

    /// Turns MSI-X on, with the vectors' own masks in force, and INTx off.
    pub fn enable_msix(&mut self) {
        let Some(capability) = self.msix.as_ref().map(|msix| msix.capability) else { return };
        let control = self.read16(capability + MSIX_CONTROL) & !MSIX_MASK_ALL;
        self.write16(capability + MSIX_CONTROL, control | MSIX_ENABLE);
        self.write16(COMMAND, self.read16(COMMAND) | COMMAND_INTX_DISABLE);
    }

    fn place(&self, offset: u16, bytes: usize) -> Option<usize> {
        let offset = usize::from(offset);
        let end = CONFIG_BYTES.min(self.config.len());
        (offset.is_multiple_of(bytes) && offset + bytes <= end).then_some(offset)
    }

    fn find_msix(&self) -> Option<Msix> {
        let capability = self.capabilities().find(|capability| capability.id == CAPABILITY_MSIX)?.offset;
        let vectors = (self.read16(capability + MSIX_CONTROL) & MSIX_ENTRIES_MASK) + 1;
        let place = self.read32(capability + MSIX_TABLE);
        let bar = self.bars.get((place & 7) as usize)?.as_ref()?;
        let table = bar.window((place & !7) as usize, usize::from(vectors) * MSIX_ENTRY_BYTES)?;
        Some(Msix { capability, vectors, table })
    }

    fn entry(&self, vector: u16) -> Option<(&MmioRegion, usize)> {
        let msix = self.msix.as_ref()?;
        (vector < msix.vectors).then_some((&msix.table, usize::from(vector) * MSIX_ENTRY_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use hal_mem::DmaRegion;

    use super::*;

    fn memory(bytes: usize) -> MmioRegion {
        let region = DmaRegion::leak_for_host(bytes);
        // SAFETY: fresh, leaked, page-aligned memory.
        unsafe { MmioRegion::new(region.as_ptr(), bytes) }
    }

    #[test]
    fn a_function_keeps_to_its_own_registers() {
        let config = memory(8192);
        config.write32(0, 0x1042_1af4);
        config.write32(8, 0x02_0000 << 8 | 1);
        let mut function = Function::new(0x0018, config.window(0, 8192).unwrap(), [const { None }; BARS]);
        assert_eq!((function.vendor(), function.device(), function.class()), (0x1af4, 0x1042, 0x02_0000));
        function.write32(4096, 7);
        function.write16(0x41, 7);
        assert_eq!(config.read32(4096), 0);
        assert_eq!(
            (function.read32(4096), function.read16(0x41), function.read8(u16::MAX)),
            (u32::MAX, 0xffff, 0xff)
        );
        assert!(function.bar(0).is_none() && function.bar(6).is_none());
        assert_eq!(function.msix_vectors(), 0);
        let message = MsiMessage { address: 0, data: 0 };
        assert_eq!(function.set_msix_vector(0, message), Err(PciError::NoVector));
        function.enable_msix();
        function.set_bus_master(true);
        function.enable_memory();
        assert_eq!(config.read16(COMMAND.into()), 6);
        function.set_bus_master(false);
        assert_eq!(config.read16(COMMAND.into()), 2);
    }

    #[test]
    fn msix_tables_must_lie_in_a_bar() {
        let vectors = |control: u32, table: u32| {
            let config = memory(4096);
            config.write32(0x04, 1 << 20);
            config.write32(0x34, 0x40);
            config.write32(0x40, control << 16 | 0x11);
            config.write32(0x44, table);
            let mut bars = [const { None }; BARS];
            bars[4] = Some(memory(4096));
            Function::new(0, config, bars).msix_vectors()
        };
        assert_eq!(vectors(7, 4), 8);
        assert_eq!(vectors(7, (4096 - 128) | 4), 8);
        assert_eq!(vectors(7, (4096 - 120) | 4), 0, "beyond the end");
        assert_eq!(vectors(7, 0xffff_fff8 | 4), 0);
        assert_eq!(vectors(0x7ff, 4), 0, "2048 vectors need 32 KiB");
        assert_eq!(vectors(7, 0), 0, "no such BAR");
        assert_eq!(vectors(7, 7), 0, "no such BAR can be");
    }
}
