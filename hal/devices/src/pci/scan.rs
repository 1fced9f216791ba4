//! Finds all functions, numbers the buses, and asks each BAR for its size (PCI Express Base 4.0, 7.5.1).

use heapless::Vec;

use super::config::{
    BAR0, BRIDGE_BUSES, BRIDGE_PREFETCHABLE, CAPABILITY_EXPRESS, CLASS, COMMAND, ConfigSpace, HEADER_TYPE,
    VENDOR, capabilities,
};
use super::{
    BARS, DEPTH_MAX, FUNCTIONS_MAX, PciError, Problems, RESERVED_BUSES, RESERVING_BUSES_MIN, report,
};

/// Which window of the host bridge something lies in; the index into arrays of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Below 4 GiB; behind bridges in their non-prefetchable windows.
    Memory32 = 0,
    /// Anywhere; behind bridges in their 64-bit prefetchable windows.
    Memory64 = 1,
}

impl Class {
    pub const ALL: [Self; 2] = [Self::Memory32, Self::Memory64];
}

/// A memory BAR.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// Where it was placed, on the bus.
    pub address: u64,
    /// Its size is 2 to this power: 4 to 63.
    pub size_log2: u8,
    pub is_64_bit: bool,
    pub class: Class,
}

impl Bar {
    pub const fn bytes(&self) -> u64 {
        1 << self.size_log2
    }
}

/// What a bridge passes on, for each [`Class`].
#[derive(Debug, Clone, Copy, Default)]
pub struct BridgeWindow {
    pub address: u64,
    /// 0 where nothing is passed on.
    pub bytes: u64,
    pub align_log2: u8,
}

/// What only a bridge has.
#[derive(Debug, Clone)]
pub struct Bridge {
    pub hot_plug: bool,
    /// Everything between here and the root passes 64-bit prefetchable addresses on.
    pub passes_64_bit: bool,
    /// A PCIe link, with device 0 alone at its other end.
    single_device: bool,
    kind: BridgeKind,
    /// The bus behind it; 0 until it has one.
    secondary: u8,
    pub windows: [BridgeWindow; 2],
}

impl Bridge {
    /// The number of the bus behind it.
    pub const fn secondary(&self) -> u8 {
        self.secondary
    }
}

/// Under whose name a bridge passes requests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BridgeKind {
    /// PCI Express on both sides: under that of the function that makes them.
    Express,
    /// From PCI to PCI Express: as device 0 of its secondary bus (PCI Express to PCI Bridge 1.0, 2.3).
    ExpressToPci,
    /// Of PCI days, where requests have no name: its own.
    Pci,
}

/// A function or bridge; parents stand before their children in the list.
#[derive(Debug, Clone)]
pub struct Node {
    pub address: u16,
    /// Index of the bridge in front of it; `None` on the root bus.
    pub parent: Option<u8>,
    pub bars: [Option<Bar>; BARS],
    pub bridge: Option<Bridge>,
    pub error: Option<PciError>,
}

/// The requester ID that the host bridge sees in requests, interrupts among them, of the node at `index`.
pub fn requester_id(nodes: &[Node], index: usize) -> u16 {
    let Some(node) = nodes.get(index) else { return 0 };
    let (mut requester, mut parent) = (node.address, node.parent);
    // Parents stand before their children, so this ends; the name given last counts.
    while let Some(node) = parent.and_then(|parent| nodes.get(usize::from(parent))) {
        match node.bridge.as_ref().map(|bridge| (bridge.kind, bridge.secondary)) {
            Some((BridgeKind::Pci, _)) => requester = node.address,
            Some((BridgeKind::ExpressToPci, secondary)) => requester = u16::from(secondary) << 8,
            Some((BridgeKind::Express, _)) | None => {}
        }
        parent = node.parent;
    }
    requester
}

pub(super) const HEADER_MULTI_FUNCTION: u8 = 0x80;
pub(super) const HEADER_FUNCTION: u8 = 0;
const HEADER_BRIDGE: u8 = 1;
/// Expansion ROM of a function that is not a bridge.
const EXPANSION_ROM: u16 = 0x30;
const CLASS_HOST_BRIDGE: u32 = 0x0600;

/// A function in reset that knows of Configuration Request Retry Status shows this vendor (section 2.3.2).
pub(super) const VENDOR_NOT_READY: u16 = 0x0001;

/// PCI Express Capabilities, in the upper half of the capability's first 32 bits (section 7.5.3.2).
const EXPRESS_ROOT_PORT: u32 = 4;
const EXPRESS_DOWNSTREAM_PORT: u32 = 6;
const EXPRESS_TO_PCI: u32 = 7;
const EXPRESS_SLOT_IMPLEMENTED: u32 = 1 << 8;
/// Slot Capabilities (section 7.5.3.9).
const EXPRESS_SLOT_CAPABILITIES: u16 = 0x14;
const EXPRESS_SLOT_HOT_PLUG: u32 = 1 << 6;

struct Scanner<'a, C> {
    config: &'a mut C,
    nodes: Vec<Node, FUNCTIONS_MAX>,
    problems: &'a mut Problems,
    next_bus: u16,
    last_bus: u8,
    reserved_buses: u16,
}

/// Everything behind the root bus `first_bus`, with decoding and bus mastering off and all BARs zero.
pub fn scan<C: ConfigSpace>(
    config: &mut C,
    first_bus: u8,
    last_bus: u8,
    problems: &mut Problems,
) -> Vec<Node, FUNCTIONS_MAX> {
    let buses = usize::from(last_bus.saturating_sub(first_bus)) + 1;
    let reserved_buses = if buses >= RESERVING_BUSES_MIN { u16::from(RESERVED_BUSES) } else { 0 };
    let next_bus = u16::from(first_bus) + 1;
    let mut scanner = Scanner { config, nodes: Vec::new(), problems, next_bus, last_bus, reserved_buses };
    scanner.scan_bus(first_bus, None, 0);
    scanner.nodes
}

impl<C: ConfigSpace> Scanner<'_, C> {
    fn scan_bus(&mut self, bus: u8, parent: Option<usize>, depth: u8) {
        let bridge = parent.and_then(|parent| self.nodes.get(parent)?.bridge.as_ref());
        let devices = if bridge.is_some_and(|bridge| bridge.single_device) { 1 } else { 32 };
        let first = self.nodes.len();
        for device in 0..devices {
            self.scan_device(u16::from(bus) << 8 | device << 3, parent);
        }
        // Only now that all bridges of this bus are silent can one of them be given numbers.
        for index in first..self.nodes.len() {
            if self.nodes.get(index).is_some_and(|node| node.bridge.is_some() && node.error.is_none()) {
                self.scan_behind(index, bus, depth);
            }
        }
    }

    fn scan_device(&mut self, address: u16, parent: Option<usize>) {
        let functions = match self.header_type(address) {
            None => return,
            Some(header) if header & HEADER_MULTI_FUNCTION == 0 => 1,
            Some(_) => 8,
        };
        for address in address..address + functions {
            if let Some(header) = self.header_type(address) {
                self.add(address, header & !HEADER_MULTI_FUNCTION, parent);
            }
        }
    }

    fn header_type(&mut self, address: u16) -> Option<u8> {
        match self.config.read(address, VENDOR) as u16 {
            0 | u16::MAX => None,
            VENDOR_NOT_READY => {
                report(self.problems, address, PciError::NotReady);
                None
            }
            _ => Some((self.config.read(address, HEADER_TYPE & !3) >> 16) as u8),
        }
    }

    fn add(&mut self, address: u16, header: u8, parent: Option<usize>) {
        if self.config.read(address, CLASS) >> 16 == CLASS_HOST_BRIDGE {
            return;
        }
        let (bars, rom) = match header {
            HEADER_FUNCTION => (BARS, EXPANSION_ROM),
            HEADER_BRIDGE => (2, 0x38),
            _ => return,
        };
        self.config.write(address, COMMAND, 0);
        self.config.write(address, rom, 0);
        if header == HEADER_BRIDGE {
            self.config.write(address, BRIDGE_BUSES, 0);
        }
        let (bars, error) = match size_bars(self.config, address, bars) {
            Ok(bars) => (bars, None),
            Err(error) => ([None; BARS], Some(error)),
        };
        let bridge = (header == HEADER_BRIDGE).then(|| self.examine_bridge(address, parent));
        let node = Node { address, parent: parent.map(|parent| parent as u8), bars, bridge, error };
        if let Some(error) = error {
            report(self.problems, address, error);
        }
        if self.nodes.push(node).is_err() {
            report(self.problems, address, PciError::TooManyFunctions);
        }
    }

    fn examine_bridge(&mut self, address: u16, parent: Option<usize>) -> Bridge {
        let parent = parent.and_then(|parent| self.nodes.get(parent)?.bridge.as_ref());
        let parent_passes = parent.is_none_or(|bridge| bridge.passes_64_bit);
        let prefetchable = probe(self.config, address, BRIDGE_PREFETCHABLE);
        let passes_64_bit = parent_passes && prefetchable & 0xf == 1;
        let config = &*self.config;
        let express =
            capabilities(|offset| config.read(address, offset)).find(|c| c.id == CAPABILITY_EXPRESS);
        let (mut single_device, mut hot_plug, mut kind) = (false, false, BridgeKind::Pci);
        if let Some(express) = express {
            let flags = config.read(address, express.offset) >> 16;
            let port = flags >> 4 & 0xf;
            kind = if port == EXPRESS_TO_PCI { BridgeKind::ExpressToPci } else { BridgeKind::Express };
            single_device = matches!(port, EXPRESS_ROOT_PORT | EXPRESS_DOWNSTREAM_PORT);
            let slot = config.read(address, express.offset + EXPRESS_SLOT_CAPABILITIES);
            hot_plug =
                single_device && flags & EXPRESS_SLOT_IMPLEMENTED != 0 && slot & EXPRESS_SLOT_HOT_PLUG != 0;
        }
        Bridge { hot_plug, passes_64_bit, single_device, kind, secondary: 0, windows: Default::default() }
    }

    fn scan_behind(&mut self, index: usize, primary: u8, depth: u8) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        let address = node.address;
        let hot_plug = node.bridge.as_ref().is_some_and(|bridge| bridge.hot_plug);
        let error = match u8::try_from(self.next_bus) {
            _ if depth >= DEPTH_MAX => PciError::TooDeep,
            Ok(secondary) if secondary <= self.last_bus => {
                self.next_bus += 1;
                if let Some(bridge) = &mut node.bridge {
                    bridge.secondary = secondary;
                }
                self.set_buses(address, primary, secondary, self.last_bus);
                self.scan_bus(secondary, Some(index), depth + 1);
                if hot_plug {
                    self.next_bus = (self.next_bus + self.reserved_buses).min(u16::from(self.last_bus) + 1);
                }
                self.set_buses(address, primary, secondary, (self.next_bus - 1) as u8);
                return;
            }
            _ => PciError::NoBus,
        };
        node.error = Some(error);
        report(self.problems, address, error);
    }

    fn set_buses(&mut self, address: u16, primary: u8, secondary: u8, subordinate: u8) {
        let value = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        self.config.write(address, BRIDGE_BUSES, value);
    }
}

/// A function that is not a bridge and stands alone, with decoding and bus mastering off and all BARs zero.
pub fn endpoint<C: ConfigSpace>(config: &mut C, address: u16) -> Result<Node, PciError> {
    config.write(address, COMMAND, 0);
    config.write(address, EXPANSION_ROM, 0);
    let bars = size_bars(config, address, BARS)?;
    Ok(Node { address, parent: None, bars, bridge: None, error: None })
}

fn size_bars<C: ConfigSpace>(
    config: &mut C,
    address: u16,
    count: usize,
) -> Result<[Option<Bar>; BARS], PciError> {
    let mut bars = [None; BARS];
    let mut index = 0;
    let mut result = Ok(());
    while index < count {
        let offset = BAR0 + 4 * index as u16;
        let low = probe(config, address, offset);
        let is_64_bit = low & 0b111 == 0b100;
        let high = if is_64_bit && index + 1 < count { probe(config, address, offset + 4) } else { u32::MAX };
        match decode_bar(low, high, is_64_bit && index + 1 == count) {
            Ok(bar) => {
                if let Some(place) = bars.get_mut(index) {
                    *place = bar;
                }
            }
            // The other BARs are asked all the same, because asking leaves them zero.
            Err(error) => result = Err(error),
        }
        index += if is_64_bit { 2 } else { 1 };
    }
    result.map(|()| bars)
}

/// Which bits of a register can be set; leaves it zero.
fn probe<C: ConfigSpace>(config: &mut C, address: u16, offset: u16) -> u32 {
    config.write(address, offset, u32::MAX);
    let bits = config.read(address, offset);
    config.write(address, offset, 0);
    bits
}

/// Reads a BAR's kind and size out of the bits that could be set (section 7.5.1.2.1). `Ok(None)` for a BAR that
/// is absent or of I/O, which is left at zero and never enabled.
fn decode_bar(low: u32, high: u32, high_missing: bool) -> Result<Option<Bar>, PciError> {
    const IO: u32 = 1;
    const RESERVED_TYPE: u32 = 0b110;
    const PREFETCHABLE: u32 = 1 << 3;
    if low == 0 || low & IO != 0 {
        return Ok(None);
    }
    if low & RESERVED_TYPE == RESERVED_TYPE || high_missing {
        return Err(PciError::BadBar);
    }
    let bits = u64::from(high) << 32 | u64::from(low & !0xf);
    let size = bits & bits.wrapping_neg();
    // The bits that can be set are all those above the lowest one of them.
    if size == 0 || bits != size.wrapping_neg() {
        return Err(PciError::BadBar);
    }
    let is_64_bit = low & RESERVED_TYPE == 0b100;
    if !is_64_bit && size >= 1 << 32 {
        return Err(PciError::BadBar);
    }
    let class = if is_64_bit && low & PREFETCHABLE != 0 { Class::Memory64 } else { Class::Memory32 };
    Ok(Some(Bar { address: 0, size_log2: size.trailing_zeros() as u8, is_64_bit, class }))
}
