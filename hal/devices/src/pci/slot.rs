//! A hot-plug capable port: what its slot shows, its power and lamps, and setting up what was plugged in
//! (PCI Express Base 5.0, 6.7 and 7.5.3.9 to 7.5.3.11).
//!
//! Bus number and windows behind the port were set aside when the bus was numbered, so that nothing else moves. Must not
//! depend on any device driver; what to do with the slot is the business of `firmware/control`.

use hal_api::{Indicator, SlotView};
use hal_mem::MmioRegion;

use super::config::{CAPABILITY_EXPRESS, CLASS, ConfigSpace, HEADER_TYPE, VENDOR};
use super::scan::{self, BridgeWindow};
use super::{Function, PciError, Window, assign, map_bar};

/// Registers of the PCI Express capability, by their offset in it.
const LINK_CAPABILITIES: u16 = 0x0c;
const LINK_STATUS: u16 = 0x12;
const SLOT_CAPABILITIES: u16 = 0x14;
const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;

/// Link Capabilities: the port tells whether its link is up.
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
/// Link Status: it is.
const LINK_ACTIVE: u16 = 1 << 13;
/// Slot Capabilities: there is a power controller; Slot Control is obeyed at once, and nothing tells of it.
const POWER_CONTROLLER: u32 = 1 << 1;
const NO_COMMAND_COMPLETED: u32 = 1 << 18;
/// Slot Control: no interrupts; lamps in two bits each; power off.
const ATTENTION_SHIFT: u16 = 6;
const POWER_SHIFT: u16 = 8;
const POWER_OFF: u16 = 1 << 10;
/// Slot Status. The events are cleared by writing ones.
const BUTTON_PRESSED: u16 = 1 << 0;
const POWER_FAULT: u16 = 1 << 1;
const LATCH_CHANGED: u16 = 1 << 2;
const PRESENCE_CHANGED: u16 = 1 << 3;
const COMMAND_COMPLETED: u16 = 1 << 4;
const PRESENT: u16 = 1 << 6;
const LINK_CHANGED: u16 = 1 << 8;
const EVENTS: u16 =
    BUTTON_PRESSED | POWER_FAULT | LATCH_CHANGED | PRESENCE_CHANGED | COMMAND_COMPLETED | LINK_CHANGED;

/// Looks after which a command of Slot Control is taken for completed: a second at least.
const COMPLETION_LOOKS: u8 = 20;

/// A slot in which devices come and go.
#[derive(Debug)]
pub struct Slot {
    port: Function,
    /// Offset of the port's PCI Express capability.
    express: u16,
    /// Function 0 behind the port, where something stands there.
    device_address: u16,
    requester_id: u16,
    device: MmioRegion,
    /// What the port passes on, and where the cores see it.
    behind: [BridgeWindow; 2],
    windows: [Option<Window>; 2],
    /// What Slot Control is to be, and is.
    wanted: u16,
    written: u16,
    /// Looks until the next command may be given whether the last one was reported as completed or not.
    busy_looks: u8,
}

/// Where the slot is and what it has.
pub(super) struct SlotParts {
    pub port: Function,
    pub device_address: u16,
    pub requester_id: u16,
    pub device: MmioRegion,
    pub behind: [BridgeWindow; 2],
    pub windows: [Option<Window>; 2],
}

impl Slot {
    /// `None` where the port has no PCI Express capability. Its interrupts are off, what has happened is forgotten.
    pub(super) fn new(parts: SlotParts) -> Option<Self> {
        let SlotParts { port, device_address, requester_id, device, behind, windows } = parts;
        let express = port.capabilities().find(|capability| capability.id == CAPABILITY_EXPRESS)?.offset;
        // As it is, without interrupts.
        let control = port.read16(express + SLOT_CONTROL) & (0xf << ATTENTION_SHIFT | POWER_OFF);
        let mut slot = Self {
            port,
            express,
            device_address,
            requester_id,
            device,
            behind,
            windows,
            wanted: control,
            written: control,
            busy_looks: 0,
        };
        slot.write(SLOT_CONTROL, control);
        slot.write(SLOT_STATUS, EVENTS);
        Some(slot)
    }

    /// The port's address: bus << 8 | device << 3 | function.
    #[must_use]
    pub const fn address(&self) -> u16 {
        self.port.address()
    }

    /// The address of function 0 of what stands in the slot.
    #[must_use]
    pub const fn device_address(&self) -> u16 {
        self.device_address
    }

    /// The requester ID that it will have.
    #[must_use]
    pub const fn requester_id(&self) -> u16 {
        self.requester_id
    }

    /// Whether anything can be given an address behind the port.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        self.behind.iter().any(|window| window.bytes != 0)
    }

    /// Looks at the slot and forgets what has happened; gives the port the next command where it takes one.
    pub fn look(&mut self) -> SlotView {
        let status = self.read(SLOT_STATUS);
        if status == u16::MAX {
            // The port itself does not answer.
            return SlotView::default();
        }
        if status & EVENTS != 0 {
            self.write(SLOT_STATUS, status & EVENTS);
        }
        let reports_link = self.port.read32(self.express + LINK_CAPABILITIES) & LINK_ACTIVE_REPORTING != 0;
        let view = SlotView {
            occupied: status & PRESENT != 0,
            link_up: !reports_link || self.read(LINK_STATUS) & LINK_ACTIVE != 0,
            changed: status & PRESENCE_CHANGED != 0,
            button_pressed: status & BUTTON_PRESSED != 0,
            power_fault: status & POWER_FAULT != 0,
        };
        self.busy_looks = match status & COMMAND_COMPLETED {
            0 => self.busy_looks.saturating_sub(1),
            _ => 0,
        };
        self.command();
        view
    }

    /// Power, together with the lamps that are set next; a slot without a power controller always has it.
    pub fn set_power(&mut self, on: bool) {
        let has_controller = self.port.read32(self.express + SLOT_CAPABILITIES) & POWER_CONTROLLER != 0;
        self.wanted &= !POWER_OFF;
        if has_controller && !on {
            self.wanted |= POWER_OFF;
        }
    }

    /// Sets lamps and power, now or when the port has obeyed the last command.
    pub fn set_indicators(&mut self, power: Indicator, attention: Indicator) {
        let bits = |indicator| match indicator {
            Indicator::On => 0b01,
            Indicator::Blink => 0b10,
            Indicator::Off => 0b11,
        };
        let lamps = bits(power) << POWER_SHIFT | bits(attention) << ATTENTION_SHIFT;
        self.wanted = self.wanted & POWER_OFF | lamps;
        self.command();
    }

    /// Sets up function 0 of what stands in the slot, with addresses of the port's windows; what it had before does not
    /// count. Memory decoding and bus mastering are off.
    ///
    /// # Errors
    /// [`PciError::NotReady`] where nothing answers yet; else what stands in the way.
    pub fn set_up(&mut self) -> Result<Function, PciError> {
        let mut config = OneFunction { address: self.device_address, region: &self.device };
        match config.read(self.device_address, VENDOR) as u16 {
            0 | u16::MAX | scan::VENDOR_NOT_READY => return Err(PciError::NotReady),
            _ => {}
        }
        let header = (config.read(self.device_address, HEADER_TYPE & !3) >> 16) as u8;
        if header & !scan::HEADER_MULTI_FUNCTION != scan::HEADER_FUNCTION {
            return Err(PciError::NotAFunction);
        }
        let mut node = scan::endpoint(&mut config, self.device_address)?;
        assign::assign_behind(&mut config, &mut node, &self.behind)?;
        let bars = core::array::from_fn(|index| map_bar(&self.windows, &node, index));
        let config = self.device.window(0, self.device.len()).ok_or(PciError::NotReady)?;
        Ok(Function::new(self.device_address, config, bars).with_requester_id(self.requester_id))
    }

    /// Class code of what stands in the slot; all ones where nothing answers.
    #[must_use]
    pub fn class(&self) -> u32 {
        self.device.read32(CLASS.into()) >> 8
    }

    /// The port obeys one command after another (7.5.3.10).
    fn command(&mut self) {
        if self.busy_looks > 0 || self.wanted == self.written {
            return;
        }
        self.write(SLOT_CONTROL, self.wanted);
        self.written = self.wanted;
        let reports = self.port.read32(self.express + SLOT_CAPABILITIES) & NO_COMMAND_COMPLETED == 0;
        self.busy_looks = if reports { COMPLETION_LOOKS } else { 0 };
    }

    fn read(&self, register: u16) -> u16 {
        self.port.read16(self.express + register)
    }

    fn write(&mut self, register: u16, value: u16) {
        self.port.write16(self.express + register, value);
    }
}

/// The configuration space of the one function that is set up.
struct OneFunction<'a> {
    address: u16,
    region: &'a MmioRegion,
}

impl ConfigSpace for OneFunction<'_> {
    fn read(&self, function: u16, offset: u16) -> u32 {
        debug_assert!(function == self.address);
        self.region.read32(offset.into())
    }

    fn write(&mut self, function: u16, offset: u16, value: u32) {
        debug_assert!(function == self.address);
        self.region.write32(offset.into(), value);
    }
}
