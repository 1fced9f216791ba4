//! PCIe root complex: finds what is on the buses, numbers the buses, places all BARs (PCI Express Base 4.0).
//!
//! Nothing that stood in the registers before is believed: whether a boot loader has set up the buses or
//! nobody has, everything is assigned anew. Must not depend on any device driver.

mod assign;
pub mod config;
mod function;
mod scan;
mod slot;
#[cfg(test)]
mod slot_tests;
#[cfg(test)]
mod tests;

use core::ptr::NonNull;

use hal_mem::MmioRegion;
use heapless::Vec;

pub use config::Capability;
use config::Ecam;
pub use function::{Function, MsiMessage};
use scan::Node;
pub use slot::Slot;
use slot::SlotParts;

/// Base address registers of a function.
pub const BARS: usize = 6;
/// Functions and bridges that one host bridge can have in all; what is found after them is a [`Problem`].
pub const FUNCTIONS_MAX: usize = 64;
/// Problems that are kept for the report; later ones are dropped.
pub const PROBLEMS_MAX: usize = 16;
/// Bridges one behind another.
pub const DEPTH_MAX: u8 = 8;
/// Bus numbers behind a hot-plug capable port kept free for what may be plugged in.
pub const RESERVED_BUSES: u8 = 2;
/// Buses are kept free only where the host bridge has at least this many.
pub const RESERVING_BUSES_MIN: usize = 64;
/// The smallest 32-bit window behind a hot-plug capable port, in bytes.
pub const RESERVED_MEMORY32: u64 = 2 << 20;
/// The smallest 64-bit prefetchable window behind a hot-plug capable port, in bytes.
pub const RESERVED_MEMORY64: u64 = 64 << 20;

/// Why a function, or what is behind it, is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PciError {
    /// Its BARs do not fit into the windows of the host bridge.
    NoSpace,
    /// A BAR claims a size or a type that cannot be.
    BadBar,
    /// More functions than [`FUNCTIONS_MAX`].
    TooManyFunctions,
    /// No bus number is left for what is behind the bridge.
    NoBus,
    /// More than [`DEPTH_MAX`] bridges one behind another.
    TooDeep,
    /// It answers that it is not ready for configuration yet.
    NotReady,
    /// It is a bridge, which nobody expected here.
    NotAFunction,
    /// The bridge in front of it is not used.
    BridgeUnused,
    /// There is no such MSI-X vector.
    NoVector,
}

impl PciError {
    /// For logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "no space for its BARs",
            Self::BadBar => "impossible BAR",
            Self::TooManyFunctions => "too many functions",
            Self::NoBus => "no bus number left",
            Self::TooDeep => "too many bridges in a row",
            Self::NotReady => "not ready",
            Self::NotAFunction => "a bridge where a function is expected",
            Self::BridgeUnused => "behind an unused bridge",
            Self::NoVector => "no such MSI-X vector",
        }
    }
}

/// A function that was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Requester ID: bus << 8 | device << 3 | function.
    pub address: u16,
    /// Why.
    pub error: PciError,
}

/// A range of addresses that the host bridge passes on to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Where devices see its first byte.
    pub pci_address: u64,
    /// Where the cores see its first byte.
    pub cpu_address: u64,
    /// Its length.
    pub bytes: u64,
}

/// What the device tree says of a host bridge (`pci-host-ecam-generic`).
#[derive(Debug)]
pub struct HostBridge {
    /// Configuration spaces, 1 MiB for each bus, starting with `first_bus`.
    pub ecam: MmioRegion,
    /// The root bus.
    pub first_bus: u8,
    /// The highest bus number that may be given.
    pub last_bus: u8,
    /// Window below 4 GiB on the bus.
    pub memory32: Window,
    /// Window for 64-bit prefetchable BARs, anywhere; `None` where there is none or it is not mapped.
    pub memory64: Option<Window>,
}

/// What was found behind a host bridge: an iterator over all functions that are not bridges, each ready to be
/// driven, with memory decoding and bus mastering off.
#[derive(Debug)]
pub struct Devices {
    ecam: Ecam,
    windows: [Option<Window>; 2],
    nodes: Vec<Node, FUNCTIONS_MAX>,
    next: usize,
    problems: Problems,
}

type Problems = Vec<Problem, PROBLEMS_MAX>;

/// Finds and sets up everything behind `bridge`. Takes no longer than a read of each possible function.
///
/// # Safety
/// Both windows are mapped as device memory at their CPU addresses for the rest of the program, and nobody else
/// uses them, nor the configuration spaces.
#[must_use]
pub unsafe fn enumerate(bridge: HostBridge) -> Devices {
    let mut ecam = Ecam::new(bridge.ecam, bridge.first_bus);
    let covered = usize::from(bridge.first_bus) + ecam.buses();
    let last_bus = usize::from(bridge.last_bus).min(covered.saturating_sub(1)) as u8;
    let mut problems = Vec::new();
    let mut nodes = if ecam.buses() == 0 {
        Vec::new()
    } else {
        scan::scan(&mut ecam, bridge.first_bus, last_bus, &mut problems)
    };
    let windows = [Some(assign::below_4_gib(bridge.memory32)), bridge.memory64];
    assign::assign(&mut ecam, &mut nodes, windows, &mut problems);
    Devices { ecam, windows, nodes, next: 0, problems }
}

impl Devices {
    /// What was skipped, and why; the first [`PROBLEMS_MAX`].
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The hot-plug capable ports with an empty slot or a device of one function, each with what is set aside for what
    /// may be plugged in. Slots with a switch or several functions are left alone.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.nodes.len()).filter_map(|index| self.slot(index))
    }

    fn slot(&self, index: usize) -> Option<Slot> {
        let node = self.nodes.get(index).filter(|node| node.error.is_none())?;
        let bridge = node.bridge.as_ref().filter(|bridge| bridge.hot_plug)?;
        let device_address = u16::from(bridge.secondary()) << 8;
        let mut behind = self.nodes.iter().filter(|node| node.parent == Some(index as u8));
        if behind.any(|node| node.bridge.is_some() || node.address != device_address) {
            return None;
        }
        // A bridge of PCI days in front of the port speaks for what is behind it, too.
        let requester_id = match scan::requester_id(&self.nodes, index) {
            own if own == node.address => device_address,
            others => others,
        };
        let config = self.ecam.function(node.address)?;
        Slot::new(SlotParts {
            port: Function::new(node.address, config, [const { None }; BARS]),
            device_address,
            requester_id,
            device: self.ecam.function(device_address)?,
            behind: bridge.windows,
            windows: self.windows,
        })
    }
}

/// The registers behind a BAR that was given its place in one of the host bridge's windows.
fn map_bar(windows: &[Option<Window>; 2], node: &Node, index: usize) -> Option<MmioRegion> {
    let bar = node.bars.get(index)?.as_ref()?;
    let window = (*windows.get(bar.class as usize)?)?;
    let offset = bar.address.checked_sub(window.pci_address)?;
    let bytes = bar.bytes();
    if offset.checked_add(bytes)? > window.bytes {
        return None;
    }
    let base = NonNull::new((window.cpu_address + offset) as usize as *mut u8)?;
    // SAFETY: inside a window (just checked) that `enumerate`'s caller promised is mapped and ours. BARs are placed
    // without overlap, and a slot's are given out again only when its last device has been given up.
    Some(unsafe { MmioRegion::new(base, usize::try_from(bytes).ok()?) })
}

impl Iterator for Devices {
    type Item = Function;

    fn next(&mut self) -> Option<Function> {
        loop {
            let node = self.nodes.get(self.next)?;
            self.next += 1;
            if node.bridge.is_some() || node.error.is_some() {
                continue;
            }
            if let Some(config) = self.ecam.function(node.address) {
                let bars = core::array::from_fn(|index| map_bar(&self.windows, node, index));
                let requester = scan::requester_id(&self.nodes, self.next - 1);
                return Some(Function::new(node.address, config, bars).with_requester_id(requester));
            }
        }
    }
}

fn report(problems: &mut Problems, address: u16, error: PciError) {
    // A full list has said enough.
    let _ = problems.push(Problem { address, error });
}
