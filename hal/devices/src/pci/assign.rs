//! Places BARs and bridge windows, and writes them down in the devices (PCI Express Base 4.0, 7.5.1.2 and 7.5.1.3).
//!
//! Bottom up, each bridge is as large as what is behind it, packed by falling alignment; top down, everything
//! gets its address. What does not fit is left out, the largest first, until the rest does.

use super::config::{
    BAR0, BRIDGE_IO, BRIDGE_MEMORY, BRIDGE_PREFETCHABLE, BRIDGE_PREFETCHABLE_BASE_UPPER,
    BRIDGE_PREFETCHABLE_LIMIT_UPPER, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, ConfigSpace,
};
use super::scan::{BridgeWindow, Class, Node};
use super::{PciError, Problems, RESERVED_MEMORY32, RESERVED_MEMORY64, Window, report};

/// Granularity of a bridge's windows, as a power of 2: 1 MiB.
const BRIDGE_ALIGN_LOG2: u8 = 20;
/// No two BARs share a page.
const BAR_ALIGN_LOG2: u8 = 12;
/// Base above limit, which passes nothing on.
const CLOSED: u32 = 0x0000_fff0;
const CLOSED_IO: u32 = 0x00f0;

/// The part of a window that 32-bit BARs can reach, without the addresses from 0 on, which mean "not placed".
pub fn below_4_gib(window: Window) -> Window {
    let skipped = if window.pci_address == 0 { window.bytes.min(1 << BRIDGE_ALIGN_LOG2) } else { 0 };
    let pci_address = window.pci_address + skipped;
    let room = (1u64 << 32).saturating_sub(pci_address);
    let bytes = (window.bytes - skipped).min(room);
    Window { pci_address, cpu_address: window.cpu_address.saturating_add(skipped), bytes }
}

/// Gives everything in `nodes` its place within `windows` (by [`Class`]) and opens the bridges. Nodes for which
/// there is no space get an error.
pub fn assign<C: ConfigSpace>(
    config: &mut C,
    nodes: &mut [Node],
    windows: [Option<Window>; 2],
    problems: &mut Problems,
) {
    choose_classes(nodes, windows[1].is_some());
    spread_errors(nodes, problems);
    let mut reserved = [RESERVED_MEMORY32, RESERVED_MEMORY64];
    if windows[1].is_none() {
        reserved[1] = 0;
    }
    // Every turn but the last takes a reservation, moves a BAR, or leaves a function out.
    while let Some(class) = place_root(nodes, &windows, &reserved) {
        let Some(reserve) = reserved.get_mut(class as usize) else { break };
        if *reserve != 0 {
            *reserve = 0;
        } else if !leave_out_largest(nodes, class, windows[1].is_some(), problems) {
            break;
        }
        spread_errors(nodes, problems);
    }
    for index in 0..nodes.len() {
        for class in Class::ALL {
            if let Some(window) = nodes.get(index).and_then(|node| window_of(node, class)) {
                pack(nodes, Some(index as u8), class, window.address);
            }
        }
    }
    for node in nodes.iter() {
        program(config, node);
    }
}

/// Gives the BARs of `node`, which was plugged in behind a bridge with these windows, their places.
pub fn assign_behind<C: ConfigSpace>(
    config: &mut C,
    node: &mut Node,
    windows: &[BridgeWindow; 2],
) -> Result<(), PciError> {
    if windows[Class::Memory64 as usize].bytes == 0 {
        node.bars.iter_mut().flatten().for_each(|bar| bar.class = Class::Memory32);
    }
    for (class, window) in Class::ALL.into_iter().zip(windows) {
        let (end, _) = pack(core::slice::from_mut(node), None, class, window.address);
        if end > window.address.saturating_add(window.bytes) {
            return Err(PciError::NoSpace);
        }
    }
    program(config, node);
    Ok(())
}

fn window_of(node: &Node, class: Class) -> Option<BridgeWindow> {
    if node.error.is_some() {
        return None;
    }
    let window = node.bridge.as_ref()?.windows.get(class as usize)?;
    (window.bytes != 0).then_some(*window)
}

/// BARs that could lie above 4 GiB stay below where a bridge, or the lack of a window, asks for it.
fn choose_classes(nodes: &mut [Node], has_memory64: bool) {
    for index in 0..nodes.len() {
        let parent = nodes.get(index).and_then(|node| node.parent);
        let bridge = parent.and_then(|parent| nodes.get(usize::from(parent))?.bridge.as_ref());
        if has_memory64 && bridge.is_none_or(|bridge| bridge.passes_64_bit) {
            continue;
        }
        for bar in nodes.get_mut(index).into_iter().flat_map(|node| node.bars.iter_mut().flatten()) {
            bar.class = Class::Memory32;
        }
    }
}

fn spread_errors(nodes: &mut [Node], problems: &mut Problems) {
    for index in 0..nodes.len() {
        let parent = nodes.get(index).and_then(|node| node.parent);
        let parent_error = parent.and_then(|parent| nodes.get(usize::from(parent))?.error);
        if let (Some(_), Some(node)) = (parent_error, nodes.get_mut(index))
            && node.error.is_none()
        {
            node.error = Some(PciError::BridgeUnused);
            report(problems, node.address, PciError::BridgeUnused);
        }
    }
}

/// Measures all bridges and places what is on the root bus. Says which class did not fit.
fn place_root(nodes: &mut [Node], windows: &[Option<Window>; 2], reserved: &[u64; 2]) -> Option<Class> {
    for index in (0..nodes.len()).rev() {
        for (class, reserve) in Class::ALL.into_iter().zip(reserved) {
            measure(nodes, index, class, *reserve);
        }
    }
    Class::ALL.into_iter().zip(windows).find_map(|(class, window)| {
        let window = window.unwrap_or(Window { pci_address: 0, cpu_address: 0, bytes: 0 });
        let (end, _) = pack(nodes, None, class, window.pci_address);
        (end > window.pci_address.saturating_add(window.bytes)).then_some(class)
    })
}

fn measure(nodes: &mut [Node], index: usize, class: Class, reserve: u64) {
    let Some(bridge) = nodes.get(index).filter(|n| n.error.is_none()).and_then(|n| n.bridge.as_ref()) else {
        return;
    };
    let reserves = bridge.hot_plug && (class == Class::Memory32 || bridge.passes_64_bit);
    let (end, align_log2) = pack(nodes, Some(index as u8), class, 0);
    let align_log2 = align_log2.max(BRIDGE_ALIGN_LOG2);
    let bytes = align_up(end, BRIDGE_ALIGN_LOG2).max(if reserves { reserve } else { 0 });
    if let Some(window) = nodes
        .get_mut(index)
        .and_then(|node| node.bridge.as_mut())
        .and_then(|bridge| bridge.windows.get_mut(class as usize))
    {
        *window = BridgeWindow { address: 0, bytes, align_log2 };
    }
}

/// Places everything of one class directly behind `parent` from `start` on, the largest alignment first. Gives
/// where it ends, all ones when that is beyond all addresses, and the largest alignment.
fn pack(nodes: &mut [Node], parent: Option<u8>, class: Class, start: u64) -> (u64, u8) {
    let mut alignments = 0u64;
    each_item(nodes, parent, class, |_, _, align_log2| {
        alignments |= 1u64.checked_shl(align_log2.into()).unwrap_or(0)
    });
    let largest = 63u32.saturating_sub(alignments.leading_zeros()) as u8;
    let mut next = start;
    while alignments != 0 {
        let now = 63 - alignments.leading_zeros();
        alignments &= !(1 << now);
        each_item(nodes, parent, class, |address, bytes, align_log2| {
            if u32::from(align_log2) == now {
                *address = align_up(next, align_log2);
                next = address.saturating_add(bytes);
            }
        });
    }
    (next, largest)
}

/// Calls `visit` with the address, size and alignment of all BARs and bridge windows directly behind `parent`.
fn each_item(nodes: &mut [Node], parent: Option<u8>, class: Class, mut visit: impl FnMut(&mut u64, u64, u8)) {
    for node in nodes.iter_mut().filter(|node| node.parent == parent && node.error.is_none()) {
        for bar in node.bars.iter_mut().flatten().filter(|bar| bar.class == class) {
            let bytes = bar.bytes();
            visit(&mut bar.address, bytes, bar.size_log2.max(BAR_ALIGN_LOG2));
        }
        let window = node.bridge.as_mut().and_then(|bridge| bridge.windows.get_mut(class as usize));
        if let Some(window) = window.filter(|window| window.bytes != 0) {
            visit(&mut window.address, window.bytes, window.align_log2);
        }
    }
}

fn align_up(address: u64, align_log2: u8) -> u64 {
    address.checked_next_multiple_of(1u64.checked_shl(align_log2.into()).unwrap_or(1)).unwrap_or(u64::MAX)
}

/// Leaves out the function with the largest BAR of `class`, or moves that BAR above 4 GiB where that is possible.
/// False when there is none.
fn leave_out_largest(nodes: &mut [Node], class: Class, has_memory64: bool, problems: &mut Problems) -> bool {
    let bars = nodes.iter_mut().filter(|node| node.error.is_none()).flat_map(|node| {
        let (address, on_root_bus) = (node.address, node.parent.is_none());
        let error = &mut node.error;
        let largest =
            node.bars.iter_mut().flatten().filter(|bar| bar.class == class).max_by_key(|bar| bar.size_log2);
        largest.map(|bar| (address, on_root_bus, bar, error))
    });
    let Some((address, on_root_bus, bar, error)) = bars.max_by_key(|(_, _, bar, _)| bar.size_log2) else {
        return false;
    };
    // A host bridge's window, other than a bridge's, takes BARs of any kind.
    if class == Class::Memory32 && on_root_bus && bar.is_64_bit && has_memory64 {
        bar.class = Class::Memory64;
    } else {
        *error = Some(PciError::NoSpace);
        report(problems, address, PciError::NoSpace);
    }
    true
}

fn program<C: ConfigSpace>(config: &mut C, node: &Node) {
    let address = node.address;
    for (index, bar) in node.bars.iter().enumerate().filter(|_| node.error.is_none()) {
        if let Some(bar) = bar {
            let register = BAR0 + 4 * index as u16;
            config.write(address, register, bar.address as u32);
            if bar.is_64_bit {
                config.write(address, register + 4, (bar.address >> 32) as u32);
            }
        }
    }
    if node.bridge.is_none() {
        return;
    }
    config.write(address, BRIDGE_IO, CLOSED_IO);
    let memory32 = window_of(node, Class::Memory32);
    config.write(address, BRIDGE_MEMORY, memory32.map_or(CLOSED, |window| base_and_limit(&window)));
    let memory64 = window_of(node, Class::Memory64);
    let last = memory64.map_or(0, |window| window.address + (window.bytes - 1));
    let first = memory64.map_or(0, |window| window.address);
    config.write(address, BRIDGE_PREFETCHABLE, memory64.map_or(CLOSED, |window| base_and_limit(&window)));
    config.write(address, BRIDGE_PREFETCHABLE_BASE_UPPER, (first >> 32) as u32);
    config.write(address, BRIDGE_PREFETCHABLE_LIMIT_UPPER, (last >> 32) as u32);
    if node.error.is_none() {
        config.write(address, COMMAND, u32::from(COMMAND_MEMORY | COMMAND_BUS_MASTER));
    }
}

/// Bits 31:20 of base and limit, in the upper twelve bits of each half.
fn base_and_limit(window: &BridgeWindow) -> u32 {
    let last = window.address + (window.bytes - 1);
    (window.address as u32 >> 16) & 0xfff0 | (last as u32) & 0xfff0_0000
}
