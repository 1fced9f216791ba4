//! What stands on the PCIe bus and has a driver here: one walk at boot.

use core::ptr::NonNull;

use hal_api::bus_device_function;
use hal_mem::{DmaRegion, MmioRegion};
use heapless::Vec;

use crate::device_tree::PcieNode;
use crate::drive_slots::{DriveSlot, Messages, PciDriveSlots};
use crate::nvme::{self, NvmeController, QUEUE_PAIRS_MAX, RingMemory};
use crate::pci::{self, Function, HostBridge, MsiMessage, Slot};
use crate::virtio::{self, DeviceSteering, MAX_QUEUE_PAIRS, NetOptions, VirtioConsole, VirtioNetPort};

/// Drives that are taken; more are named in the log and left alone.
pub const MAX_DRIVES: usize = 16;
/// Ethernet ports that are taken.
pub const MAX_PORTS: usize = 2;
/// Entries of each ring of an Ethernet port.
const NET_RING_ENTRIES: u16 = 256;

/// Devices with a driver, set up as far as they can be without waiting.
#[derive(Debug, Default)]
pub struct Inventory {
    /// NVMe drives in the order of their addresses, not yet enabled.
    pub drives: Vec<NvmeController, MAX_DRIVES>,
    /// Slots in which drives can come and go; places for those of empty slots follow the drives.
    pub slots: PciDriveSlots,
    /// Ethernet ports in the order of their addresses, ready to receive.
    pub ports: Vec<VirtioNetPort, MAX_PORTS>,
    /// The operator's line, ready to be read.
    pub console: Option<VirtioConsole>,
    /// A port has no interrupt: the core that owns it looks at it at intervals. (A drive without one keeps its core
    /// awake as long as a command is with it.)
    pub polled: bool,
}

/// Who polls a queue of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The data core of this number.
    DataCore(usize),
    /// The core with role `control`.
    Control,
}

/// What the board decides about all devices.
#[derive(Debug, Clone, Copy)]
pub struct DeviceOptions<'a> {
    /// Data cores: each has a queue pair of each port and of each drive, where there are so many.
    pub data_cores: u16,
    /// Largest IP packet wanted of the ports in bytes.
    pub mtu_limit: u16,
    /// Which core a received segment belongs to.
    pub steering: Option<DeviceSteering<'a>>,
}

impl<'a> DeviceOptions<'a> {
    const fn of_port(&self, messages: &'a [MsiMessage]) -> NetOptions<'a> {
        let Self { mtu_limit, data_cores, steering } = *self;
        NetOptions { mtu_limit, queue_entries: NET_RING_ENTRIES, pairs: data_cores, steering, messages }
    }

    /// The data core whose interrupt a drive's queue pair raises: the admin pair's is the drive's home.
    fn core_of_queue(&self, place: usize, qid: u16) -> usize {
        match usize::from(qid).checked_sub(1) {
            Some(core) => core,
            None => place % usize::from(self.data_cores.max(1)),
        }
    }

    /// The messages of the queue pairs of the drive in this place.
    fn messages(
        &self,
        place: usize,
        requester: u16,
        message: &mut impl FnMut(u16, Owner) -> Option<MsiMessage>,
    ) -> Messages {
        let pairs = 0..=self.data_cores.min(QUEUE_PAIRS_MAX - 1);
        let owner = |qid| Owner::DataCore(self.core_of_queue(place, qid));
        pairs.map_while(|qid| message(requester, owner(qid))).collect()
    }
}

/// DMA memory that [`take`] needs at most, in bytes.
#[must_use]
pub const fn memory_bytes(options: &DeviceOptions<'_>) -> usize {
    let port = options.of_port(&[]);
    // A page for each device, because each aligns what it takes.
    MAX_DRIVES * (NvmeController::ring_bytes(options.data_cores) + 4096)
        + MAX_PORTS * (port.memory_bytes() + 4096)
        + VirtioConsole::MEMORY_BYTES
        + 4096
}

/// Numbers the bus behind `node` anew and sets up what has a driver. `message` gives the function with this requester id a
/// message that wakes the core that will own one of its queues, or `None` where that has to be polled.
///
/// # Safety
/// All ranges of the node are mapped as device memory at their physical addresses, and nobody else uses them.
#[inline(never)] // Its frame is large.
pub unsafe fn take(
    node: &PcieNode,
    options: &DeviceOptions<'_>,
    dma: &mut DmaRegion,
    mut message: impl FnMut(u16, Owner) -> Option<MsiMessage>,
) -> Inventory {
    let mut inventory = Inventory::default();
    // SAFETY: the caller's promise.
    let Some(bridge) = (unsafe { host_bridge(node) }) else {
        hal_log::error!("the PCIe root complex has no window for devices below 4 GiB");
        return inventory;
    };
    // SAFETY: the caller's promise.
    let devices = unsafe { pci::enumerate(bridge) };
    for problem in devices.problems() {
        let at = bus_device_function(problem.address);
        hal_log::warn!("PCI {:02x}:{:02x}.{}: {}", at.0, at.1, at.2, problem.error.name());
    }
    let mut slots: Vec<Slot, MAX_DRIVES> = devices.slots().take(MAX_DRIVES).collect();
    for function in devices {
        let slot = slots.iter().position(|slot| slot.device_address() == function.address());
        let slot = slot.map(|index| slots.remove(index));
        if function.class() == nvme::CLASS {
            inventory.take_drive(function, slot, options, dma, &mut message);
        } else if is_network(&function) {
            inventory.take_port(function, options, dma, &mut message);
        } else if is_console(&function) {
            inventory.take_console(function, dma, &mut message);
        } else {
            let at = bus_device_function(function.address());
            hal_log::debug!(
                "PCI {:02x}:{:02x}.{}: no driver for class {:06x}",
                at.0,
                at.1,
                at.2,
                function.class()
            );
        }
    }
    inventory.reserve_slots(slots, options, dma, &mut message);
    inventory
}

impl Inventory {
    fn take_drive(
        &mut self,
        function: Function,
        slot: Option<Slot>,
        options: &DeviceOptions<'_>,
        dma: &mut DmaRegion,
        message: &mut impl FnMut(u16, Owner) -> Option<MsiMessage>,
    ) {
        let (at, requester) = (bus_device_function(function.address()), function.requester_id());
        if self.drives.is_full() {
            hal_log::warn!(
                "PCI {:02x}:{:02x}.{}: drive left alone: {} are the most",
                at.0,
                at.1,
                at.2,
                MAX_DRIVES
            );
            return;
        }
        let place = self.drives.len() as u8;
        let messages = options.messages(usize::from(place), requester, message);
        let Some(rings) = RingMemory::take(dma, options.data_cores) else {
            hal_log::warn!("PCI {:02x}:{:02x}.{}: no memory for the drive's queues", at.0, at.1, at.2);
            return;
        };
        let rings = match NvmeController::new(function, rings, &messages) {
            Ok(drive) => {
                let _ = self.drives.push(drive);
                None
            }
            Err((error, rings)) => {
                hal_log::warn!("PCI {:02x}:{:02x}.{}: drive not usable: {}", at.0, at.1, at.2, error.name());
                // Its place is given away with those of the empty slots.
                Some(rings)
            }
        };
        if let Some(slot) = slot {
            let _ = self.slots.slots.push(DriveSlot { slot, rings, messages, place });
        }
    }

    /// Sets aside for each empty slot what a drive needs, and numbers the places that are not taken.
    fn reserve_slots(
        &mut self,
        mut slots: Vec<Slot, MAX_DRIVES>,
        options: &DeviceOptions<'_>,
        dma: &mut DmaRegion,
        message: &mut impl FnMut(u16, Owner) -> Option<MsiMessage>,
    ) {
        // Taken from the end, one by one.
        slots.reverse();
        while let Some(slot) = slots.pop() {
            let at = bus_device_function(slot.address());
            let rings = if slot.has_addresses() { RingMemory::take(dma, options.data_cores) } else { None };
            let Some(rings) = rings else {
                hal_log::warn!("slot {:02x}:{:02x}.{}: nothing is left for a drive in it", at.0, at.1, at.2);
                continue;
            };
            let messages = Messages::new();
            let _ = self.slots.slots.push(DriveSlot { slot, rings: Some(rings), messages, place: 0 });
        }
        let mut next = self.drives.len();
        self.slots.slots.retain_mut(|slot| {
            if slot.rings.is_some() {
                slot.place = next as u8;
                slot.messages = options.messages(next, slot.slot.requester_id(), message);
                next += 1;
            }
            usize::from(slot.place) < MAX_DRIVES
        });
        let empty = self.slots.slots.iter().filter(|slot| slot.rings.is_some()).count();
        if !self.slots.slots.is_empty() {
            hal_log::info!("{} slots for drives, {} without one", self.slots.slots.len(), empty);
        }
    }

    fn take_port(
        &mut self,
        function: Function,
        options: &DeviceOptions<'_>,
        dma: &mut DmaRegion,
        message: &mut impl FnMut(u16, Owner) -> Option<MsiMessage>,
    ) {
        let (at, requester) = (bus_device_function(function.address()), function.requester_id());
        if self.ports.is_full() {
            hal_log::warn!(
                "PCI {:02x}:{:02x}.{}: port left alone: {} are the most",
                at.0,
                at.1,
                at.2,
                MAX_PORTS
            );
            return;
        }
        let wanted = usize::from(options.data_cores).clamp(1, MAX_QUEUE_PAIRS);
        let messages: Vec<MsiMessage, MAX_QUEUE_PAIRS> =
            (0..wanted).map_while(|core| message(requester, Owner::DataCore(core))).collect();
        match VirtioNetPort::new(function, dma, &options.of_port(&messages)) {
            Ok(port) => {
                if !(0..port.pairs()).all(|pair| port.has_interrupt(pair)) {
                    hal_log::warn!(
                        "PCI {:02x}:{:02x}.{}: port has no interrupt: it is polled",
                        at.0,
                        at.1,
                        at.2
                    );
                    self.polled = true;
                }
                if options.data_cores > 1 {
                    let by = if port.steers() { "the device (RSS)" } else { "software" };
                    hal_log::info!(
                        "PCI {:02x}:{:02x}.{}: port {} with {} queue pairs for {} data cores, steered by {}",
                        at.0,
                        at.1,
                        at.2,
                        self.ports.len() + 1,
                        port.pairs(),
                        options.data_cores,
                        by
                    );
                }
                let _ = self.ports.push(port);
            }
            Err(error) => {
                hal_log::warn!("PCI {:02x}:{:02x}.{}: port not usable: {}", at.0, at.1, at.2, error.name())
            }
        }
    }
}

impl Inventory {
    fn take_console(
        &mut self,
        function: Function,
        dma: &mut DmaRegion,
        message: &mut impl FnMut(u16, Owner) -> Option<MsiMessage>,
    ) {
        let (at, requester) = (bus_device_function(function.address()), function.requester_id());
        if self.console.is_some() {
            hal_log::warn!("PCI {:02x}:{:02x}.{}: console left alone: one is the most", at.0, at.1, at.2);
            return;
        }
        match VirtioConsole::new(function, dma, message(requester, Owner::Control)) {
            Ok(console) => self.console = Some(console),
            Err(error) => {
                hal_log::warn!(
                    "PCI {:02x}:{:02x}.{}: console not usable: {}",
                    at.0,
                    at.1,
                    at.2,
                    error.name()
                );
            }
        }
    }
}

/// # Safety
/// As [`take`].
unsafe fn host_bridge(node: &PcieNode) -> Option<HostBridge> {
    let base = NonNull::new(node.ecam.start as *mut u8)?;
    // SAFETY: the caller's promise.
    let ecam = unsafe { MmioRegion::new(base, (node.ecam.end - node.ecam.start) as usize) };
    let (first_bus, last_bus) = (node.first_bus, node.last_bus);
    Some(HostBridge { ecam, first_bus, last_bus, memory32: node.memory32?, memory64: node.memory64 })
}

fn is_console(function: &Function) -> bool {
    function.vendor() == virtio::VENDOR
        && matches!(function.device(), virtio::CONSOLE_DEVICE | virtio::CONSOLE_DEVICE_TRANSITIONAL)
}

fn is_network(function: &Function) -> bool {
    function.vendor() == virtio::VENDOR
        && matches!(function.device(), virtio::NET_DEVICE | virtio::NET_DEVICE_TRANSITIONAL)
}
