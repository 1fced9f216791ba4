//! A slot against plain memory in the place of its registers.
//!
//! Plain memory keeps what is written, so that events are cleared by the test, and BARs take all bits.

use hal_api::{Indicator, SlotView};
use hal_mem::{DmaRegion, MmioRegion};

use super::config::CONFIG_BYTES;
use super::scan::BridgeWindow;
use super::slot::{Slot, SlotParts};
use super::*;

const EXPRESS: usize = 0x40;
const CONTROL: usize = EXPRESS + 0x18;
const STATUS: usize = EXPRESS + 0x1a;

struct Rig {
    slot: Slot,
    port: MmioRegion,
    device: MmioRegion,
}

fn memory() -> MmioRegion {
    let region = DmaRegion::leak_for_host(CONFIG_BYTES);
    // SAFETY: fresh, leaked, page-aligned memory.
    unsafe { MmioRegion::new(region.as_ptr(), CONFIG_BYTES) }
}

impl Rig {
    fn new(slot_capabilities: u32, memory64_bytes: u64) -> Self {
        let (port, device) = (memory(), memory());
        port.write32(0x04, 1 << 20);
        port.write32(0x34, EXPRESS as u32);
        port.write32(EXPRESS, (1 << 8 | 4 << 4 | 2) << 16 | 0x10);
        port.write32(EXPRESS + 0x0c, 1 << 20);
        port.write32(EXPRESS + 0x14, slot_capabilities);
        // Interrupts on, as a boot loader may leave them, and power off.
        port.write16(CONTROL, 0x3f | 1 << 10);
        let window = |address, bytes| BridgeWindow { address, bytes, align_log2: 20 };
        let parts = SlotParts {
            port: Function::new(0x0008, port.window(0, CONFIG_BYTES).unwrap(), [const { None }; BARS]),
            device_address: 0x0100,
            requester_id: 0x0100,
            device: device.window(0, CONFIG_BYTES).unwrap(),
            behind: [window(0x1000_0000, 1 << 20), window(0x80_0000_0000, memory64_bytes)],
            windows: [None, None],
        };
        Self { slot: Slot::new(parts).unwrap(), port, device }
    }

    fn look(&mut self, status: u16) -> SlotView {
        self.port.write16(STATUS, status);
        self.slot.look()
    }
}

#[test]
fn a_slot_says_what_has_happened_once() {
    let mut rig = Rig::new(1 << 6, 0);
    assert_eq!(rig.port.read16(CONTROL), 1 << 10, "interrupts are off, the rest as it was");
    let nothing = SlotView::default();
    assert_eq!(rig.look(0), nothing);
    rig.port.write16(EXPRESS + 0x12, 1 << 13);
    let view = rig.look(1 << 6 | 1 << 3 | 1 << 0);
    let expected =
        SlotView { occupied: true, link_up: true, changed: true, button_pressed: true, power_fault: false };
    assert_eq!(view, expected);
    assert_eq!(rig.port.read16(STATUS), 1 << 3 | 1 << 0, "what was seen is cleared by writing it");
    assert!(rig.look(1 << 1).power_fault);
    assert_eq!(rig.look(u16::MAX), nothing, "a port that is gone");
    // A port that cannot tell of its link.
    rig.port.write32(EXPRESS + 0x0c, 0);
    rig.port.write16(EXPRESS + 0x12, 0);
    assert!(rig.look(0).link_up);
}

#[test]
fn power_and_lamps_go_out_in_one_command_and_wait_for_its_end() {
    let mut rig = Rig::new(1 << 6 | 1 << 1, 0);
    rig.slot.set_power(true);
    assert_eq!(rig.port.read16(CONTROL), 1 << 10, "not yet");
    rig.slot.set_indicators(Indicator::Blink, Indicator::Off);
    assert_eq!(rig.port.read16(CONTROL), 0b10 << 8 | 0b11 << 6);
    rig.slot.set_power(false);
    rig.slot.set_indicators(Indicator::Off, Indicator::On);
    rig.look(0);
    assert_eq!(rig.port.read16(CONTROL), 0b10 << 8 | 0b11 << 6, "the first command has not ended");
    rig.look(1 << 4);
    assert_eq!(rig.port.read16(CONTROL), 1 << 10 | 0b11 << 8 | 0b01 << 6);
    // A port that forgets to say so does not hold the slot for ever.
    rig.slot.set_power(true);
    rig.slot.set_indicators(Indicator::On, Indicator::Off);
    assert_ne!(rig.port.read16(CONTROL) & 1 << 10, 0);
    for _ in 0..20 {
        rig.look(0);
    }
    assert_eq!(rig.port.read16(CONTROL) & 1 << 10, 0);
}

#[test]
fn a_slot_without_a_power_controller_is_never_told_to_be_off() {
    let mut rig = Rig::new(1 << 6, 0);
    rig.slot.set_power(false);
    rig.slot.set_indicators(Indicator::Off, Indicator::Off);
    assert_eq!(rig.port.read16(CONTROL), 0b11 << 8 | 0b11 << 6);
}

#[test]
fn what_answers_too_early_late_or_as_a_bridge_is_told_apart() {
    let mut rig = Rig::new(1 << 6, 0);
    for vendor in [0u32, 1, u32::MAX] {
        rig.device.write32(0, vendor);
        assert_eq!(rig.slot.set_up().unwrap_err(), PciError::NotReady);
    }
    rig.device.write32(0, 0x0010_1b36);
    rig.device.write32(0x08, 0x01_0802 << 8);
    rig.device.write32(0x0c, 1 << 16);
    assert_eq!(rig.slot.set_up().unwrap_err(), PciError::NotAFunction);
    rig.device.write32(0x0c, 0x80 << 16);
    rig.device.write32(0x04, 0x6);
    let function = rig.slot.set_up().unwrap();
    assert_eq!((function.address(), function.requester_id(), function.class()), (0x100, 0x100, 0x01_0802));
    assert_eq!(rig.device.read16(0x04), 0, "decoding and bus mastering are off");
}
