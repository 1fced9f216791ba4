//! What stands on the PCIe bus and has a driver here: one walk at boot.

use core::ptr::NonNull;

use hal_api::bus_device_function;
use hal_mem::{DmaRegion, MmioRegion};
use heapless::Vec;

use crate::device_tree::PcieNode;
use crate::nvme::{self, NvmeController};
use crate::pci::{self, Function, HostBridge, MsiMessage};
use crate::virtio::{self, NetOptions, VirtioNetPort};

/// Drives that are taken; more are named in the log and left alone.
pub const MAX_DRIVES: usize = 16;
/// Ethernet ports that are taken.
pub const MAX_PORTS: usize = 2;
/// I/O queue pairs of each drive: one for each data core of the plan.
pub const IO_QUEUES: u16 = 1;
/// Entries of each ring of an Ethernet port.
const NET_RING_ENTRIES: u16 = 256;

/// Devices with a driver, set up as far as they can be without waiting.
#[derive(Debug, Default)]
pub struct Inventory {
    /// NVMe drives in the order of their addresses, not yet enabled.
    pub drives: Vec<NvmeController, MAX_DRIVES>,
    /// Ethernet ports in the order of their addresses, ready to receive.
    pub ports: Vec<VirtioNetPort, MAX_PORTS>,
    /// A port has no interrupt: the core that owns it looks at it at intervals. (A drive without one keeps its core
    /// awake as long as a command is with it.)
    pub polled: bool,
}

/// DMA memory that [`take`] needs at most, in bytes.
#[must_use]
pub const fn memory_bytes(mtu_limit: u16) -> usize {
    let options = NetOptions { mtu_limit, queue_entries: NET_RING_ENTRIES, messages: &[] };
    // A page for each device, because each aligns what it takes.
    MAX_DRIVES * (NvmeController::ring_bytes(IO_QUEUES) + 4096) + MAX_PORTS * (options.memory_bytes() + 4096)
}

/// Numbers the bus behind `node` anew and sets up what has a driver. `message` gives the function with this requester id a
/// message that wakes the core which will own its queues, or `None` where it has to be polled.
///
/// # Safety
/// All ranges of the node are mapped as device memory at their physical addresses, and nobody else uses them.
pub unsafe fn take(
    node: &PcieNode,
    mtu_limit: u16,
    dma: &mut DmaRegion,
    mut message: impl FnMut(u16) -> Option<MsiMessage>,
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
    for function in devices {
        if function.class() == nvme::CLASS {
            inventory.take_drive(function, dma, &mut message);
        } else if is_network(&function) {
            inventory.take_port(function, mtu_limit, dma, &mut message);
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
    inventory
}

impl Inventory {
    fn take_drive(
        &mut self,
        function: Function,
        dma: &mut DmaRegion,
        message: &mut impl FnMut(u16) -> Option<MsiMessage>,
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
        let messages: Vec<MsiMessage, { 1 + IO_QUEUES as usize }> =
            (0..=IO_QUEUES).map_while(|_| message(requester)).collect();
        match NvmeController::new(function, dma, IO_QUEUES, &messages) {
            Ok(drive) => {
                let _ = self.drives.push(drive);
            }
            Err(error) => {
                hal_log::warn!("PCI {:02x}:{:02x}.{}: drive not usable: {}", at.0, at.1, at.2, error.name())
            }
        }
    }

    fn take_port(
        &mut self,
        function: Function,
        mtu_limit: u16,
        dma: &mut DmaRegion,
        message: &mut impl FnMut(u16) -> Option<MsiMessage>,
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
        let messages: Vec<MsiMessage, 1> = message(requester).into_iter().collect();
        let options = NetOptions { mtu_limit, queue_entries: NET_RING_ENTRIES, messages: &messages };
        match VirtioNetPort::new(function, dma, &options) {
            Ok(port) => {
                if !port.has_interrupt(0) {
                    hal_log::warn!(
                        "PCI {:02x}:{:02x}.{}: port has no interrupt: it is polled",
                        at.0,
                        at.1,
                        at.2
                    );
                    self.polled = true;
                }
                let _ = self.ports.push(port);
            }
            Err(error) => {
                hal_log::warn!("PCI {:02x}:{:02x}.{}: port not usable: {}", at.0, at.1, at.2, error.name())
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

fn is_network(function: &Function) -> bool {
    function.vendor() == virtio::VENDOR
        && matches!(function.device(), virtio::NET_DEVICE | virtio::NET_DEVICE_TRANSITIONAL)
}
