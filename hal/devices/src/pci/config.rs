//! Configuration space: where the registers are and how they are reached (PCI Express Base 4.0, section 7.5).
//!
//! Enumeration runs over [`ConfigSpace`], so that tests put a model of a bus in the place of the hardware.

use hal_mem::MmioRegion;

/// Bytes of configuration space of one function (section 7.2.2).
pub const CONFIG_BYTES: usize = 4096;

/// Vendor ID; the device ID is in the upper half.
pub const VENDOR: u16 = 0x00;
/// Device ID.
pub const DEVICE: u16 = 0x02;
/// Command; Status, whose bits are cleared by writing ones, is the upper half of the same 32 bits.
pub const COMMAND: u16 = 0x04;
/// Status.
pub const STATUS: u16 = 0x06;
/// Revision in the low byte, class code in the upper three.
pub const CLASS: u16 = 0x08;
/// Header type, in the 32 bits that also hold the cache line size and BIST.
pub const HEADER_TYPE: u16 = 0x0e;
/// First base address register.
pub const BAR0: u16 = 0x10;
/// Offset of the first capability.
pub const CAPABILITIES: u16 = 0x34;

/// Bridges: primary, secondary and subordinate bus number, secondary latency timer.
pub const BRIDGE_BUSES: u16 = 0x18;
/// Bridges: I/O base and limit; Secondary Status is the upper half.
pub const BRIDGE_IO: u16 = 0x1c;
/// Bridges: memory base and limit, bits 31:20 of each.
pub const BRIDGE_MEMORY: u16 = 0x20;
/// Bridges: prefetchable memory base and limit, bits 31:20 of each.
pub const BRIDGE_PREFETCHABLE: u16 = 0x24;
/// Bridges: bits 63:32 of the prefetchable base.
pub const BRIDGE_PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Bridges: bits 63:32 of the prefetchable limit.
pub const BRIDGE_PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;

/// Command: answer to I/O addresses.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: answer to memory addresses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: may read and write memory by itself; in a bridge, passes such requests upstream.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: no INTx.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Capability ID of PCI Express (section 7.5.3).
pub const CAPABILITY_EXPRESS: u8 = 0x10;
/// Capability ID of MSI-X (section 7.7.2).
pub const CAPABILITY_MSIX: u8 = 0x11;

/// More capabilities than this do not fit between the header and the end of the first 256 bytes.
const CAPABILITIES_MAX: usize = 48;

/// Access to all configuration spaces behind a host bridge, 32 bits at a time.
///
/// `function` is a requester ID: bus << 8 | device << 3 | function. Where nobody answers, all bits read 1.
pub trait ConfigSpace {
    /// Reads the register at `offset`, a multiple of 4 below 4096.
    fn read(&self, function: u16, offset: u16) -> u32;
    /// Writes the register at `offset`, a multiple of 4 below 4096.
    fn write(&mut self, function: u16, offset: u16, value: u32);
}

/// Memory-mapped configuration spaces (Enhanced Configuration Access Mechanism, section 7.2.2).
#[derive(Debug)]
pub struct Ecam {
    region: MmioRegion,
    first_bus: u8,
}

impl Ecam {
    /// `region` starts with bus `first_bus`.
    #[must_use]
    pub const fn new(region: MmioRegion, first_bus: u8) -> Self {
        Self { region, first_bus }
    }

    /// How many whole buses the region holds.
    #[must_use]
    pub const fn buses(&self) -> usize {
        self.region.len() >> 20
    }

    /// The configuration space of one function; `None` where the region does not cover it.
    #[must_use]
    pub fn function(&self, function: u16) -> Option<MmioRegion> {
        self.region.window(self.offset(function)?, CONFIG_BYTES)
    }

    fn offset(&self, function: u16) -> Option<usize> {
        let relative = function.checked_sub(u16::from(self.first_bus) << 8)?;
        Some(usize::from(relative) * CONFIG_BYTES)
    }

    fn place(&self, function: u16, offset: u16) -> Option<usize> {
        let place = self.offset(function)? + usize::from(offset);
        (usize::from(offset) + 4 <= CONFIG_BYTES && place + 4 <= self.region.len()).then_some(place)
    }
}

impl ConfigSpace for Ecam {
    fn read(&self, function: u16, offset: u16) -> u32 {
        self.place(function, offset).map_or(u32::MAX, |place| self.region.read32(place))
    }

    fn write(&mut self, function: u16, offset: u16, value: u32) {
        if let Some(place) = self.place(function, offset) {
            self.region.write32(place, value);
        }
    }
}

/// One entry of a function's capability list (section 7.5.1.1.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Where in configuration space it starts.
    pub offset: u16,
    /// What it is.
    pub id: u8,
}

/// Walks a capability list through `read`, which reads 32 bits at a multiple of 4. Pointers outside the
/// region where capabilities may stand end the walk, and so does a list longer than that region.
pub fn capabilities(read: impl Fn(u16) -> u32) -> impl Iterator<Item = Capability> {
    const HAS_LIST: u32 = 1 << 20;
    let first = if read(COMMAND) & HAS_LIST == 0 { 0 } else { read(CAPABILITIES) as u8 };
    let mut next = first & !3;
    let mut left = CAPABILITIES_MAX;
    core::iter::from_fn(move || {
        if next < 0x40 || left == 0 {
            return None;
        }
        let offset = u16::from(next);
        let header = read(offset);
        if header as u8 == 0xff {
            return None;
        }
        left -= 1;
        next = (header >> 8) as u8 & !3;
        Some(Capability { offset, id: header as u8 })
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn capability_lists_end() {
        let list = |words: &[(u16, u32)]| {
            let read = |offset| match offset {
                COMMAND => 1 << 20,
                _ => words.iter().find(|(at, _)| *at == offset).map_or(0, |(_, word)| *word),
            };
            capabilities(read).collect::<Vec<_>>()
        };
        assert_eq!(list(&[(0x34, 0x40), (0x40, 0x5009), (0x50, 0x0011)]).len(), 2);
        assert_eq!(list(&[(0x34, 0x43), (0x40, 0x0011)])[0], Capability { offset: 0x40, id: 0x11 });
        assert_eq!(list(&[(0x34, 0x40), (0x40, 0x4009)]).len(), 48, "a loop ends");
        assert_eq!(list(&[(0x34, 0x3c)]), [], "a pointer into the header");
        assert_eq!(list(&[(0x34, 0x40), (0x40, u32::MAX)]), [], "a device that went away");
        assert_eq!(capabilities(|_| 0).count(), 0);
    }
}
