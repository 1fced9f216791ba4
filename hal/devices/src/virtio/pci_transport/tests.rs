//! The PCI transport against configuration space and a BAR in plain memory.

use hal_api::FrameQueue;
use hal_mem::DmaRegion;

use super::*;
use crate::virtio::model::Registers;
use crate::virtio::{NetOptions, VirtioNetPort};

/// Where the structures stand in the BAR, as QEMU orders them.
const COMMON_AT: u32 = 0;
const DEVICE_AT: u32 = 0x2000;
const NOTIFY_AT: u32 = 0x3002;
const BAR_BYTES: usize = 0x4000;

/// A function of plain memory: configuration space and BAR 4.
struct Card {
    config: Registers,
    bar: Registers,
}

impl Card {
    fn new() -> Self {
        let card = Self { config: Registers::new(4096), bar: Registers::new(BAR_BYTES) };
        card.config.region().write16(0x06, 0x10);
        card.config.region().write8(0x34, 0x40);
        card.capability(0x40, 0x54, structure::COMMON, COMMON_AT, 0x1000);
        card.capability(0x54, 0x68, structure::DEVICE, DEVICE_AT, 0x1000);
        card.capability(0x68, 0, structure::NOTIFY, NOTIFY_AT, 0xffc);
        card.config.region().write32(0x68 + 16, 4);
        let bar = card.bar.region();
        // Plain memory shows the same word for either half: CSUM and MAC, VERSION_1.
        bar.write32(common::DEVICE_FEATURE, 1 | 1 << 5);
        bar.write16(common::NUM_QUEUES, 3);
        bar.write16(common::QUEUE_SIZE, 64);
        bar.write16(common::QUEUE_NOTIFY_OFF, 2);
        for (at, byte) in [2, 0, 0, 0, 0, 9].into_iter().enumerate() {
            bar.write8(DEVICE_AT as usize + at, byte);
        }
        card
    }

    fn capability(&self, at: usize, next: u8, kind: u8, offset: u32, bytes: u32) {
        let config = self.config.region();
        for (index, byte) in [CAPABILITY_VENDOR, next, 20, kind, 4].into_iter().enumerate() {
            config.write8(at + index, byte);
        }
        config.write32(at + 8, offset);
        config.write32(at + 12, bytes);
    }

    fn function(&self) -> Function {
        Function::new(8, self.config.region(), [None, None, None, None, Some(self.bar.region()), None])
    }

    fn refuses(&self) -> bool {
        PciTransport::new(self.function()).err() == Some(VirtioError::NoModernInterface)
    }
}

#[test]
fn sets_up_a_network_device_through_its_registers() {
    let card = Card::new();
    let options = NetOptions::default();
    let mut dma = DmaRegion::leak_for_host(options.memory_bytes());
    let mut port = VirtioNetPort::new(card.function(), &mut dma, &options).unwrap();
    assert_eq!(port.address(), 8);
    assert_eq!(port.info().mac, [2, 0, 0, 0, 0, 9]);
    let bar = card.bar.region();
    assert_eq!(bar.read8(common::DEVICE_STATUS), 15);
    assert_eq!(bar.read32(common::DRIVER_FEATURE), 1, "the upper half is written last: VERSION_1");
    assert_eq!(bar.read16(common::QUEUE_SIZE), 64);
    assert_eq!(bar.read16(common::QUEUE_SELECT), 1);
    assert_eq!(bar.read16(common::QUEUE_ENABLE), 1);
    assert_eq!(bar.read16(common::CONFIG_MSIX_VECTOR), NO_VECTOR);
    let descriptors =
        u64::from(bar.read32(common::QUEUE_DESC)) | u64::from(bar.read32(common::QUEUE_DESC + 4)) << 32;
    let used =
        u64::from(bar.read32(common::QUEUE_DEVICE)) | u64::from(bar.read32(common::QUEUE_DEVICE + 4)) << 32;
    assert!(descriptors.is_multiple_of(16) && used > descriptors + 64 * 16);
    assert_eq!(card.config.region().read16(4) & 6, 6, "memory decoding and bus mastering");
    let queue = port.take_queue(0).unwrap();
    assert!(!queue.info().receive_checksums_verified && queue.info().transmit_checksum_offload);
}

#[test]
fn notifies_at_the_place_that_the_device_states() {
    let card = Card::new();
    let transport = PciTransport::new(card.function()).unwrap();
    transport.notifier(5).unwrap().kick();
    assert_eq!(card.bar.region().read16(NOTIFY_AT as usize + 8), 5);
    for (number, multiplier, allowed) in
        [(0, 0, true), (1022, 4, true), (1023, 4, false), (0xffff, 0x1_0000, false), (2, 0xffff_fffe, false)]
    {
        card.bar.region().write16(common::QUEUE_NOTIFY_OFF, number);
        card.config.region().write32(0x68 + 16, multiplier);
        let transport = PciTransport::new(card.function()).unwrap();
        assert_eq!(transport.notifier(0).is_some(), allowed, "{number} times {multiplier}");
    }
}

#[test]
fn refuses_structures_outside_their_bar() {
    assert!(!Card::new().refuses());
    for (at, kind) in [(0x40, structure::COMMON), (0x54, structure::DEVICE), (0x68, structure::NOTIFY)] {
        for (offset, bytes) in
            [(0x3ffc, 0x1000), (0x4000, 4), (u32::MAX - 3, 0x1000), (0, u32::MAX), (0, 0), (1, 0x38)]
        {
            let card = Card::new();
            let next = card.config.region().read8(at + 1);
            card.capability(at, next, kind, offset, bytes);
            // Notification registers may start anywhere in the BAR that they fit into.
            let fits = kind == structure::NOTIFY && offset == 1;
            assert_eq!(card.refuses(), !fits, "structure {kind} at {offset:#x}, {bytes:#x} bytes");
        }
        for (field, value) in [(2, 15), (3, 9), (4, 6), (4, 3)] {
            let card = Card::new();
            card.config.region().write8(at + field, value);
            assert!(card.refuses(), "structure {kind}, field {field} is {value}");
        }
    }
}

#[test]
fn takes_the_first_capability_that_is_usable() {
    let card = Card::new();
    card.capability(0x68, 0x80, structure::NOTIFY, NOTIFY_AT, 0xffc);
    card.capability(0x80, 0, structure::COMMON, 0x1000, 0x1000);
    card.bar.region().write8(0x1000 + common::DEVICE_STATUS, 0x55);
    assert_eq!(PciTransport::new(card.function()).unwrap().status(), 0);
    card.capability(0x40, 0x54, structure::COMMON, 0, u32::MAX);
    assert_eq!(PciTransport::new(card.function()).unwrap().status(), 0x55);
}

#[test]
fn a_device_that_a_loader_left_running_is_reset_before_it_gets_the_bus() {
    let card = Card::new();
    card.bar.region().write8(common::DEVICE_STATUS, 0x0f);
    let mut transport = PciTransport::new(card.function()).unwrap();
    assert_eq!(transport.enable(&[]), Ok(0));
    assert_eq!(card.bar.region().read8(common::DEVICE_STATUS), 0);
    assert_eq!(card.config.region().read16(0x04) & 4, 4);
}
