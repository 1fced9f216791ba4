//! What the device tree says of the machine (Devicetree Specification 0.4 and the Linux bindings of each block).
//!
//! Reads what the card uses, ignores everything else, and trusts no length in it. Lists are of fixed size: what
//! does not fit is left out. Buses between a device and the root are taken to map addresses one to one.

use core::ops::Range;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use heapless::{String, Vec};

use crate::pci::Window;

mod power_key;

pub use power_key::PowerKeyNode;

/// Most cores that are listed.
pub const MAX_CORES: usize = 8;
/// Most memory and reserved ranges that are listed, each.
pub const MAX_RANGES: usize = 16;
/// Most bytes of boot arguments; longer ones are cut.
pub const MAX_BOOT_ARGUMENTS: usize = 2048;
/// Deepest level of nodes that is looked at.
const MAX_DEPTH: usize = 6;
/// The interrupt of the virtual timer where the tree names none (Arm BSA).
const DEFAULT_TIMER_INTERRUPT: u32 = 27;
/// The same of the physical timer.
const DEFAULT_WATCH_INTERRUPT: u32 = 30;

/// What the tree says of the machine. Addresses are physical, ranges half open.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// DRAM, in the tree's order.
    pub memory: Vec<Range<u64>, MAX_RANGES>,
    /// Parts of it that belong to someone else: `/reserved-memory` and the reservation block.
    pub reserved: Vec<Range<u64>, MAX_RANGES>,
    /// Affinity (MPIDR_EL1 without flags) of each core that is enabled, at most [`MAX_CORES`].
    pub cores: Vec<u64, MAX_CORES>,
    /// How the firmware below is called to start cores and to restart.
    pub psci: Option<PsciConduit>,
    /// The interrupt controller.
    pub gic: Option<GicNode>,
    /// Registers of the console UART: the PL011 that `/chosen` names, else the first.
    pub uart: Option<Range<u64>>,
    /// The key by which an operator asks for the end.
    pub power_key: Option<PowerKeyNode>,
    gpio: power_key::Gpio,
    /// The flash that the card may keep something in.
    pub flash: Option<FlashNode>,
    /// The first PCIe root complex with ECAM.
    pub pcie: Option<PcieNode>,
    /// Interrupt number of the virtual timer.
    pub timer_interrupt: u32,
    /// Interrupt number of the physical timer, which is the watchdog's.
    pub watch_interrupt: u32,
    /// Randomness that the loader left in `/chosen` (`rng-seed`, `kaslr-seed`), folded; 0 where it left none.
    pub seed: u64,
    /// `/chosen/bootargs`.
    pub boot_arguments: String<MAX_BOOT_ARGUMENTS>,
}

/// The instruction by which PSCI is called (Arm DEN 0022).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PsciConduit {
    /// `hvc`.
    Hvc,
    /// `smc`.
    Smc,
}

/// The interrupt controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GicNode {
    /// GICv2 (Arm IHI 0048).
    V2 {
        /// Distributor.
        distributor: Range<u64>,
        /// CPU interface.
        cpu_interface: Range<u64>,
        /// GICv2m frame, which turns writes into interrupts.
        v2m: Option<Range<u64>>,
    },
    /// GICv3 or later (Arm IHI 0069).
    V3 {
        /// Distributor.
        distributor: Range<u64>,
        /// Regions of redistributors.
        redistributors: Vec<Range<u64>, 4>,
        /// The interrupt translation service.
        its: Option<Range<u64>>,
    },
}

/// A PCIe root complex with memory-mapped configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcieNode {
    /// Configuration space, 1 MiB for each bus from `first_bus` on.
    pub ecam: Range<u64>,
    /// First bus number.
    pub first_bus: u8,
    /// Last bus number, cut to what `ecam` covers.
    pub last_bus: u8,
    /// Non-prefetchable window below 4 GiB of the bus.
    pub memory32: Option<Window>,
    /// Window for 64-bit addresses.
    pub memory64: Option<Window>,
    /// I/O window.
    pub io: Option<Window>,
    /// How requester ids become device ids of the MSI controller; empty for one to one.
    pub msi_map: Vec<MsiMapEntry, 8>,
}

/// One element of `msi-map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMapEntry {
    /// First requester id.
    pub requester: u32,
    /// Device id that it becomes.
    pub device: u32,
    /// How many follow.
    pub count: u32,
}

impl PcieNode {
    /// The id by which the MSI controller knows the function with this requester id; `None` where the tree
    /// leaves the function without a controller.
    #[must_use]
    pub fn msi_device_id(&self, requester: u16) -> Option<u32> {
        if self.msi_map.is_empty() {
            return Some(u32::from(requester));
        }
        self.msi_map.iter().find_map(|entry| {
            let offset = u32::from(requester).checked_sub(entry.requester).filter(|o| *o < entry.count)?;
            entry.device.checked_add(offset)
        })
    }
}

/// A bank of parallel NOR flash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlashNode {
    /// What it is seen through: of several banks the last, since a loader stands in the first.
    pub window: Range<u64>,
    /// Bytes of a word of its bus.
    pub width: usize,
}

/// The tree is damaged, or not a device tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADeviceTree;

/// Length of the tree that starts with these bytes; `None` where it is none or not between 40 bytes and 2 MiB
/// (the limit of the arm64 boot protocol).
#[must_use]
pub fn length_bytes(header: &[u8; 8]) -> Option<usize> {
    let [m0, m1, m2, m3, l0, l1, l2, l3] = *header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    (u32::from_be_bytes([m0, m1, m2, m3]) == 0xd00d_feed && (40..=2 << 20).contains(&length))
        .then_some(length)
}

impl Machine {
    /// Reads a flattened tree.
    ///
    /// # Errors
    /// [`NotADeviceTree`]; a sound tree that lacks something gives a `Machine` that lacks it.
    pub fn parse(tree: &[u8]) -> Result<Self, NotADeviceTree> {
        let tree = Fdt::new(tree).map_err(|_| NotADeviceTree)?;
        let mut machine = Self {
            timer_interrupt: DEFAULT_TIMER_INTERRUPT,
            watch_interrupt: DEFAULT_WATCH_INTERRUPT,
            ..Self::default()
        };
        for reservation in tree.memory_reservations() {
            machine.reserve(reservation.address(), reservation.size());
        }
        let root = tree.root();
        let mut console = Console::default();
        if let Some(chosen) = root.child("chosen") {
            machine.read_chosen(&chosen);
            console.read(&root, &chosen);
        }
        machine.visit(&root, &console, 0);
        machine.power_key = machine.gpio.power_key();
        Ok(machine)
    }

    /// Notes memory that belongs to someone else. Where the list is full, its last range grows to cover what is
    /// between, too: too much is left alone rather than too little.
    fn reserve(&mut self, start: u64, bytes: u64) {
        let Some(range) = start.checked_add(bytes).filter(|_| bytes > 0).map(|end| start..end) else {
            return;
        };
        if let Err(range) = self.reserved.push(range)
            && let Some(last) = self.reserved.last_mut()
        {
            *last = last.start.min(range.start)..last.end.max(range.end);
        }
    }

    fn read_chosen(&mut self, chosen: &FdtNode<'_>) {
        for name in ["rng-seed", "kaslr-seed"] {
            if let Some(property) = chosen.property(name) {
                self.seed = folded(self.seed, property.value());
            }
        }
        let Some(property) = chosen.property("bootargs") else { return };
        for character in text(property.value()).chars() {
            if self.boot_arguments.push(character).is_err() {
                break;
            }
        }
    }

    fn visit(&mut self, parent: &FdtNode<'_>, console: &Console<'_>, depth: usize) {
        let space = Space::of_children(parent);
        for node in parent.children() {
            if disabled(&node) {
                continue;
            }
            self.read_node(&node, space, console);
            let inside = matches!(node.name_without_address(), "cpus" | "reserved-memory" | "soc")
                || ["simple-bus", power_key::KEYS].iter().any(|name| is_compatible(&node, name));
            if inside && depth < MAX_DEPTH {
                self.visit(&node, console, depth + 1);
            }
        }
    }

    fn read_node(&mut self, node: &FdtNode<'_>, space: Space, console: &Console<'_>) {
        let device_type = node.property("device_type");
        match device_type.as_ref().map_or("", |property| text(property.value())) {
            "memory" => return space.ranges(node).for_each(|range| push(&mut self.memory, range)),
            "cpu" => {
                let cell = node.property("reg").and_then(|reg| Cells(reg.value()).take(space.address_cells));
                let _ = cell.map(|mpidr| self.cores.push(mpidr));
                return;
            }
            _ => {}
        }
        let is = |name: &str| is_compatible(node, name);
        if is("arm,psci-1.0") || is("arm,psci-0.2") {
            self.psci = node.property("method").and_then(|method| match text(method.value()) {
                "hvc" => Some(PsciConduit::Hvc),
                "smc" => Some(PsciConduit::Smc),
                _ => None,
            });
        } else if is("arm,gic-v3") {
            self.gic = read_gic_v3(node, space);
        } else if is("arm,cortex-a15-gic") || is("arm,gic-400") {
            self.gic = read_gic_v2(node, space);
        } else if is("arm,pl011") || is("arm,pl061") {
            let range = space.ranges(node).next();
            if is("arm,pl061") {
                self.gpio.add_controller(node, range);
            } else if self.uart.is_none() || console.is(node.name()) {
                self.uart = range.or(self.uart.take());
            }
        } else if is("pci-host-ecam-generic") {
            if self.pcie.is_none() {
                self.pcie = read_pcie(node, space);
            }
        } else if is("cfi-flash") {
            if self.flash.is_none() {
                self.flash = read_flash(node, space);
            }
        } else if is("arm,armv8-timer") {
            self.timer_interrupt = read_timer(node, 2).unwrap_or(self.timer_interrupt);
            self.watch_interrupt = read_timer(node, 1).unwrap_or(self.watch_interrupt);
        } else if self.gpio.add_key(node) {
            // What else its node says does not count.
        } else if space.reserved {
            space.ranges(node).for_each(|range| self.reserve(range.start, range.end - range.start));
        }
    }
}

/// The path of the console's node, and its last part.
#[derive(Default)]
struct Console<'a> {
    name: Option<&'a str>,
}

impl<'a> Console<'a> {
    fn read(&mut self, root: &FdtNode<'a>, chosen: &FdtNode<'a>) {
        let Ok(Some(path)) = string(chosen, "stdout-path") else { return };
        let path = path.split(':').next().unwrap_or(path);
        let path = if path.starts_with('/') {
            path
        } else {
            let aliased = root.child("aliases").and_then(|aliases| string(&aliases, path).ok().flatten());
            aliased.unwrap_or(path)
        };
        self.name = path.rsplit('/').next();
    }

    fn is(&self, name: &str) -> bool {
        self.name == Some(name)
    }
}

fn string<'a>(node: &FdtNode<'a>, name: &str) -> Result<Option<&'a str>, ()> {
    node.property(name).map(|property| property.value_as::<&'a str>().map_err(|_| ())).transpose()
}

/// How many cells addresses and sizes of a node's children have.
#[derive(Debug, Clone, Copy)]
struct Space {
    address_cells: usize,
    size_cells: usize,
    reserved: bool,
}

impl Space {
    fn of_children(node: &FdtNode<'_>) -> Self {
        let cells = |name: &str, default: usize| {
            let property = node.property(name);
            property.and_then(|p| Cells(p.value()).take(1)).map_or(default, |cells| (cells as usize).min(4))
        };
        Self {
            address_cells: cells("#address-cells", 2),
            size_cells: cells("#size-cells", 1),
            reserved: node.name_without_address() == "reserved-memory",
        }
    }

    /// The ranges of a node's `reg`, without those that are empty or wrap.
    fn ranges(self, node: &FdtNode<'_>) -> impl Iterator<Item = Range<u64>> {
        // An array's iterator has no place to panic from, unlike a list's.
        let mut found = [const { None }; MAX_RANGES];
        if let Some(reg) = node.property("reg").filter(|_| self.size_cells > 0) {
            let mut cells = Cells(reg.value());
            for place in &mut found {
                let (Some(start), Some(bytes)) =
                    (cells.take(self.address_cells), cells.take(self.size_cells))
                else {
                    break;
                };
                *place = start.checked_add(bytes).filter(|_| bytes > 0).map(|end| start..end);
            }
        }
        found.into_iter().flatten()
    }
}

/// Big-endian 32-bit cells.
struct Cells<'a>(&'a [u8]);

impl Cells<'_> {
    /// The next `count` cells as one number, of which the last 64 bits count; `None` at the end.
    fn take(&mut self, count: usize) -> Option<u64> {
        let (now, rest) = self.0.split_at_checked(count.checked_mul(4)?)?;
        self.0 = rest;
        Some(now.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take_u32(&mut self) -> Option<u32> {
        self.take(1).map(|cell| cell as u32)
    }
}

fn push<const N: usize>(list: &mut Vec<Range<u64>, N>, range: Range<u64>) {
    let _ = list.push(range);
}

/// `bytes` folded into `hash` (FNV-1a): no bit of a random input is lost that 64 bits can keep.
fn folded(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The text of a property up to its first NUL, or nothing where it is not UTF-8.
fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    value.get(..end).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
}

/// In a frame of its own: else each of its many uses would have its own copy of the reader.
#[inline(never)]
fn is_compatible(node: &FdtNode<'_>, name: &str) -> bool {
    node.is_compatible(name)
}

fn disabled(node: &FdtNode<'_>) -> bool {
    node.property("status").is_some_and(|status| !matches!(text(status.value()), "ok" | "okay"))
}

fn read_gic_v3(node: &FdtNode<'_>, space: Space) -> Option<GicNode> {
    let regions =
        node.property("#redistributor-regions").and_then(|p| Cells(p.value()).take_u32()).unwrap_or(1);
    let mut ranges = space.ranges(node);
    let distributor = ranges.next()?;
    let redistributors: Vec<_, 4> = ranges.take(regions.min(4) as usize).collect();
    let inner = Space::of_children(node);
    let its = node.children().find(|child| is_compatible(child, "arm,gic-v3-its") && !disabled(child));
    let its = its.and_then(|child| inner.ranges(&child).next());
    Some(GicNode::V3 { distributor, redistributors, its })
}

fn read_gic_v2(node: &FdtNode<'_>, space: Space) -> Option<GicNode> {
    let mut ranges = space.ranges(node);
    let (distributor, cpu_interface) = (ranges.next()?, ranges.next()?);
    let inner = Space::of_children(node);
    let v2m = node.children().find(|child| is_compatible(child, "arm,gic-v2m-frame") && !disabled(child));
    let v2m = v2m.and_then(|child| inner.ranges(&child).next());
    Some(GicNode::V2 { distributor, cpu_interface, v2m })
}

/// One of the timer's interrupts: the second is the physical timer's, the third the virtual one's. PPIs count from 16.
fn read_timer(node: &FdtNode<'_>, place: usize) -> Option<u32> {
    let property = node.property("interrupts")?;
    let mut cells = Cells(property.value().get(place * 12..)?);
    let (kind, number) = (cells.take_u32()?, cells.take_u32()?);
    (kind == 1 && number < 16).then_some(number + 16)
}

/// PCI bus binding (IEEE 1275) and `pci-host-ecam-generic`.
fn read_pcie(node: &FdtNode<'_>, space: Space) -> Option<PcieNode> {
    let ecam = space.ranges(node).next()?;
    let bus_range = node.property("bus-range");
    let mut buses = Cells(bus_range.as_ref().map_or(&[], |property| property.value()));
    let first_bus = buses.take_u32().unwrap_or(0).min(255) as u8;
    let last_bus = buses.take_u32().unwrap_or(255).min(255) as u8;
    let covered = ((ecam.end - ecam.start) >> 20).min(256);
    let last_bus = last_bus.min(u64::from(first_bus).saturating_add(covered.checked_sub(1)?).min(255) as u8);
    if last_bus < first_bus {
        return None;
    }
    let mut pcie =
        PcieNode { ecam, first_bus, last_bus, memory32: None, memory64: None, io: None, msi_map: Vec::new() };
    if let Some(ranges) = node.property("ranges") {
        let mut cells = Cells(ranges.value());
        while let (Some(flags), Some(pci_address), Some(cpu_address), Some(bytes)) =
            (cells.take_u32(), cells.take(2), cells.take(space.address_cells), cells.take(2))
        {
            let window = Some(Window { pci_address, cpu_address, bytes });
            match flags >> 24 & 3 {
                1 => pcie.io = pcie.io.or(window),
                2 => pcie.memory32 = pcie.memory32.or(window),
                3 => pcie.memory64 = pcie.memory64.or(window),
                _ => {}
            }
        }
    }
    if let Some(map) = node.property("msi-map") {
        let mut cells = Cells(map.value());
        while let (Some(requester), Some(_controller), Some(device), Some(count)) =
            (cells.take_u32(), cells.take_u32(), cells.take_u32(), cells.take_u32())
        {
            let _ = pcie.msi_map.push(MsiMapEntry { requester, device, count });
        }
    }
    Some(pcie)
}

/// Linux binding `mtd/mtd-physmap.yaml`.
fn read_flash(node: &FdtNode<'_>, space: Space) -> Option<FlashNode> {
    let width = node.property("bank-width").and_then(|property| Cells(property.value()).take_u32())?;
    Some(FlashNode { window: space.ranges(node).last()?, width: width as usize })
}

#[cfg(test)]
mod tests;
