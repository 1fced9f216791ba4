//! Enumeration against a model of buses that routes by what stands in the bridges' registers, as hardware does.

use std::vec::Vec;

use hal_mem::DmaRegion;

use super::config::{BAR0, BRIDGE_MEMORY, BRIDGE_PREFETCHABLE, ConfigSpace};
use super::scan::{Bar, Class};
use super::*;

const WINDOW32: Window = Window { pci_address: 0x1000_0000, cpu_address: 0x1000_0000, bytes: 0x2eff_0000 };
const WINDOW64: Window =
    Window { pci_address: 0x80_0000_0000, cpu_address: 0x80_0000_0000, bytes: 0x80_0000_0000 };

/// A memory BAR of a model: 2 to the power of `log2` bytes.
#[derive(Clone, Copy)]
enum ModelBar {
    Memory32(u32),
    Memory64(u32),
    Prefetchable64(u32),
    Io,
    /// These bits can be set, whatever that means.
    Raw(u32, u32),
}

struct Device {
    parent: Option<usize>,
    device_and_function: u16,
    words: [u32; 64],
    writable: [u32; 64],
}

#[derive(Default)]
struct Model {
    devices: Vec<Device>,
}

impl Model {
    fn add(&mut self, parent: Option<usize>, device: u16, id: u32, class: u32, header: u32) -> usize {
        let (mut words, mut writable) = ([0; 64], [0; 64]);
        words[0] = id;
        words[1] = 1 << 20;
        words[2] = class << 8;
        words[3] = header << 16;
        words[0x34 / 4] = 0x40;
        writable[1] = 0x407;
        self.devices.push(Device { parent, device_and_function: device << 3, words, writable });
        self.devices.len() - 1
    }

    fn endpoint(&mut self, parent: Option<usize>, device: u16, bars: &[ModelBar]) -> usize {
        let index = self.add(parent, device, 0x0010_1b36, 0x01_0802, 0);
        let mut register = 4;
        for bar in bars {
            let mask = |log2: u32, flags: u32| (1u64 << log2).wrapping_neg() | u64::from(flags);
            let (bits, words) = match *bar {
                ModelBar::Memory32(log2) => (mask(log2, 0), 1),
                ModelBar::Memory64(log2) => (mask(log2, 4), 2),
                ModelBar::Prefetchable64(log2) => (mask(log2, 0xc), 2),
                ModelBar::Io => (mask(5, 1), 1),
                ModelBar::Raw(low, high) => (u64::from(high) << 32 | u64::from(low), 2),
            };
            let device = &mut self.devices[index];
            device.words[register] = bits as u32 & 0xf;
            device.writable[register] = bits as u32 & !0xf;
            if words == 2 {
                device.writable[register + 1] = (bits >> 32) as u32;
            }
            register += words;
        }
        index
    }

    fn root_port(&mut self, parent: Option<usize>, device: u16, hot_plug: bool) -> usize {
        let index = self.add(parent, device, 0x000c_1b36, 0x06_0400, 1);
        let port = &mut self.devices[index];
        // What a boot loader may have left: bus numbers that contradict all others.
        port.words[0x18 / 4] = 0x00_05_01_00;
        port.writable[0x18 / 4] = u32::MAX;
        port.writable[0x1c / 4] = 0xf0f0;
        port.writable[0x20 / 4] = 0xfff0_fff0;
        port.words[0x24 / 4] = 0x0001_0001;
        port.writable[0x24 / 4] = 0xfff0_fff0;
        port.writable[0x28 / 4] = u32::MAX;
        port.writable[0x2c / 4] = u32::MAX;
        // BAR 0 of 4 KiB, PCI Express capability: root port, slot.
        port.writable[4] = 0xffff_f000;
        port.words[0x40 / 4] = (1 << 8 | 4 << 4 | 2) << 16 | 0x10;
        port.words[0x54 / 4] = u32::from(hot_plug) << 6;
        index
    }

    /// A bridge as in PCI days: all 32 devices, 32-bit windows only.
    fn old_bridge(&mut self, parent: Option<usize>, device: u16) -> usize {
        let index = self.root_port(parent, device, false);
        self.devices[index].words[0x34 / 4] = 0;
        self.devices[index].words[0x24 / 4] = 0;
        index
    }

    fn buses(&self, bridge: usize) -> [u8; 4] {
        self.devices[bridge].words[0x18 / 4].to_le_bytes()
    }

    fn find(&self, function: u16) -> Option<usize> {
        let bus = (function >> 8) as u8;
        let (mut behind, mut current) = (None, 0);
        while current != bus {
            let mut bridges = self.devices.iter().enumerate().filter(|(index, device)| {
                let [_, secondary, subordinate, _] = self.buses(*index);
                let is_bridge = device.words[3] >> 16 & 0x7f == 1;
                device.parent == behind
                    && is_bridge
                    && secondary != 0
                    && (secondary..=subordinate).contains(&bus)
            });
            let (index, _) = bridges.next()?;
            assert!(bridges.next().is_none(), "two bridges answer for bus {bus}");
            (behind, current) = (Some(index), self.buses(index)[1]);
        }
        let place = |d: &Device| d.parent == behind && d.device_and_function == function & 0xff;
        self.devices.iter().position(place)
    }

    fn bar(&self, index: usize, bar: usize) -> u64 {
        let words = &self.devices[index].words;
        let high = if words[4 + bar] & 4 != 0 { words[5 + bar] } else { 0 };
        u64::from(high) << 32 | u64::from(words[4 + bar] & !0xf)
    }

    fn window(&self, bridge: usize, class: Class) -> Option<(u64, u64)> {
        let words = &self.devices[bridge].words;
        let (register, base, limit) = match class {
            Class::Memory32 => (BRIDGE_MEMORY, 0, 0),
            Class::Memory64 => (BRIDGE_PREFETCHABLE, words[0x28 / 4], words[0x2c / 4]),
        };
        let word = words[usize::from(register) / 4];
        let base = u64::from(base) << 32 | u64::from((word & 0xfff0) << 16);
        let limit = u64::from(limit) << 32 | u64::from(word & 0xfff0_0000) | 0xf_ffff;
        (base < limit).then_some((base, limit + 1))
    }
}

impl ConfigSpace for Model {
    fn read(&self, function: u16, offset: u16) -> u32 {
        let device = self.find(function).map(|index| &self.devices[index]);
        device.map_or(u32::MAX, |device| device.words.get(usize::from(offset) / 4).copied().unwrap_or(0))
    }

    fn write(&mut self, function: u16, offset: u16, value: u32) {
        let Some(index) = self.find(function) else { return };
        let device = &mut self.devices[index];
        let register = usize::from(offset) / 4;
        let writable = device.writable[register];
        device.words[register] = device.words[register] & !writable | value & writable;
    }
}

struct Outcome {
    model: Model,
    nodes: Vec<Node>,
    problems: Problems,
}

fn run(mut model: Model, last_bus: u8, windows: [Option<Window>; 2]) -> Outcome {
    let mut problems = Problems::new();
    let mut nodes = scan::scan(&mut model, 0, last_bus, &mut problems);
    assign::assign(&mut model, &mut nodes, windows, &mut problems);
    let outcome = Outcome { model, nodes: nodes.iter().cloned().collect(), problems };
    outcome.check(windows);
    outcome
}

impl Outcome {
    /// Every placed BAR is aligned, overlaps no other, and is reached through all windows on its way.
    fn check(&self, windows: [Option<Window>; 2]) {
        let mut ranges = Vec::new();
        for node in self.nodes.iter().filter(|node| node.error.is_none()) {
            let index = self.model.find(node.address).unwrap();
            for (number, bar) in node.bars.iter().enumerate().filter_map(|(n, bar)| Some((n, bar.as_ref()?)))
            {
                let (start, end) = (bar.address, bar.address + bar.bytes());
                assert_eq!(self.model.bar(index, number), start, "as written in the device");
                assert!(start != 0 && start.is_multiple_of(bar.bytes()));
                let window = windows[bar.class as usize].unwrap();
                assert!(start >= window.pci_address && end <= window.pci_address + window.bytes);
                ranges.push((start, end));
                let mut bridge = self.model.devices[index].parent;
                while let Some(at) = bridge {
                    let (base, limit) = self.model.window(at, bar.class).expect("an open window");
                    assert!(start >= base && end <= limit);
                    assert_eq!(self.model.devices[at].words[1] & 6, 6, "passes memory both ways");
                    bridge = self.model.devices[at].parent;
                }
            }
        }
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:x?}");
        for (index, bridge) in
            self.model.devices.iter().enumerate().filter(|(_, d)| d.words[3] >> 16 & 0x7f == 1)
        {
            for (other, sibling) in self.model.devices.iter().enumerate().skip(index + 1) {
                if sibling.words[3] >> 16 & 0x7f == 1 && sibling.parent == bridge.parent {
                    for class in Class::ALL {
                        let apart = match (self.model.window(index, class), self.model.window(other, class)) {
                            (Some(a), Some(b)) => a.1 <= b.0 || b.1 <= a.0,
                            _ => true,
                        };
                        assert!(apart, "windows of bridges overlap");
                    }
                }
            }
        }
    }

    fn usable(&self) -> Vec<u16> {
        self.nodes.iter().filter(|n| n.error.is_none() && n.bridge.is_none()).map(|n| n.address).collect()
    }
}

#[test]
fn sixteen_drives_behind_root_ports_and_more_on_the_root_bus() {
    let mut model = Model::default();
    model.add(None, 0, 0x0008_1b36, 0x06_0000, 0);
    for device in 1..=16 {
        let port = model.root_port(None, device, true);
        model.endpoint(Some(port), 0, &[ModelBar::Memory64(14)]);
    }
    model.endpoint(
        None,
        17,
        &[ModelBar::Io, ModelBar::Memory32(12), ModelBar::Raw(0, 0), ModelBar::Prefetchable64(14)],
    );
    model.endpoint(None, 18, &[ModelBar::Memory64(14)]);
    let result = run(model, 255, [Some(WINDOW32), Some(WINDOW64)]);
    assert_eq!(result.problems, []);
    assert_eq!(result.usable().len(), 18);
    for port in 0..16 {
        let index = 1 + 2 * port;
        let secondary = 1 + 3 * port as u8;
        assert_eq!(result.model.buses(index), [0, secondary, secondary + 2, 0]);
        let (base, limit) = result.model.window(index, Class::Memory32).unwrap();
        assert_eq!(limit - base, RESERVED_MEMORY32);
        let (base, limit) = result.model.window(index, Class::Memory64).unwrap();
        assert_eq!(limit - base, RESERVED_MEMORY64);
        assert!(base >= WINDOW64.pci_address);
    }
    assert_eq!(result.model.bar(33, 0), 0, "I/O stays at zero");
    assert!(result.model.bar(33, 4) >= WINDOW64.pci_address);
    for index in [33, 34, 2] {
        assert_eq!(result.model.devices[index].words[1] & 7, 0, "endpoints are off");
    }
}

#[test]
fn a_switch_and_an_old_bridge_nest() {
    let mut model = Model::default();
    let port = model.root_port(None, 3, false);
    let upstream = model.root_port(Some(port), 0, false);
    model.devices[upstream].words[0x40 / 4] = (5 << 4 | 2) << 16 | 0x10;
    for device in 0..3 {
        let downstream = model.root_port(Some(upstream), device, false);
        model.devices[downstream].words[0x40 / 4] = (1 << 8 | 6 << 4 | 2) << 16 | 0x10;
        model.endpoint(Some(downstream), 0, &[ModelBar::Memory64(21), ModelBar::Prefetchable64(33)]);
    }
    let old = model.old_bridge(None, 4);
    model.endpoint(Some(old), 9, &[ModelBar::Prefetchable64(16), ModelBar::Memory32(4)]);
    let result = run(model, 15, [Some(WINDOW32), Some(WINDOW64)]);
    assert_eq!(result.problems, []);
    assert_eq!(result.usable(), [0x0300, 0x0400, 0x0500, 0x0648]);
    assert_eq!(result.model.buses(port), [0, 1, 5, 0]);
    assert_eq!(result.model.buses(upstream), [1, 2, 5, 0]);
    assert!(result.model.window(old, Class::Memory64).is_none());
    assert!(result.model.bar(9, 0) < 1 << 32, "an old bridge passes 32 bits only");
}

#[test]
fn without_a_64_bit_window_all_is_below_4_gib() {
    let mut model = Model::default();
    let port = model.root_port(None, 1, true);
    let drive = model.endpoint(Some(port), 0, &[ModelBar::Prefetchable64(20)]);
    let result = run(model, 255, [Some(WINDOW32), None]);
    assert_eq!(result.problems, []);
    assert!(result.model.window(port, Class::Memory64).is_none());
    assert!(result.model.bar(drive, 0) >= WINDOW32.pci_address && result.model.bar(drive, 0) < 1 << 32);
}

#[test]
fn what_does_not_fit_is_left_out_and_named() {
    let mut model = Model::default();
    let port = model.root_port(None, 1, true);
    model.endpoint(Some(port), 0, &[ModelBar::Memory64(40)]);
    model.endpoint(None, 2, &[ModelBar::Memory32(31)]);
    model.endpoint(None, 3, &[ModelBar::Memory64(14)]);
    model.endpoint(None, 4, &[ModelBar::Prefetchable64(63)]);
    model.endpoint(None, 5, &[ModelBar::Memory64(32)]);
    let result = run(model, 255, [Some(WINDOW32), Some(WINDOW64)]);
    assert_eq!(result.usable(), [0x18, 0x28]);
    let mut named: Vec<_> = result.problems.iter().map(|problem| (problem.address, problem.error)).collect();
    named.sort_by_key(|(address, _)| *address);
    assert_eq!(named, [(0x10, PciError::NoSpace), (0x20, PciError::NoSpace), (0x100, PciError::NoSpace)]);
    assert!(result.model.bar(5, 0) >= 1 << 32, "moved above 4 GiB");
}

#[test]
fn what_is_plugged_in_gets_its_place_behind_the_port() {
    let mut model = Model::default();
    let port = model.root_port(None, 1, true);
    model.root_port(None, 2, true);
    let result = run(model, 255, [Some(WINDOW32), Some(WINDOW64)]);
    let mut model = result.model;
    let behind = result.nodes[0].bridge.as_ref().unwrap().windows;
    let bars = [ModelBar::Memory64(14), ModelBar::Prefetchable64(24), ModelBar::Memory32(12)];
    for _ in 0..3 {
        let drive = model.endpoint(Some(port), 0, &bars);
        // What is left in its registers does not count.
        model.devices[drive].words[5] = 0x77;
        let mut node = scan::endpoint(&mut model, 0x100).unwrap();
        assign::assign_behind(&mut model, &mut node, &behind).unwrap();
        for (bar, class, bytes) in
            [(0, Class::Memory32, 1 << 14), (4, Class::Memory32, 1 << 12), (2, Class::Memory64, 1 << 24)]
        {
            let (base, limit) = model.window(port, class).unwrap();
            let address = model.bar(drive, bar);
            assert!(
                address >= base && address + bytes <= limit && address.is_multiple_of(bytes),
                "{bar} {address:x}"
            );
        }
        assert_eq!(model.devices[drive].words[1] & 7, 0);
        model.devices.pop();
    }
    model.endpoint(Some(port), 0, &[ModelBar::Memory32(22)]);
    let mut node = scan::endpoint(&mut model, 0x100).unwrap();
    assert_eq!(assign::assign_behind(&mut model, &mut node, &behind), Err(PciError::NoSpace));
}

#[test]
fn reservations_yield_to_what_is_there() {
    let mut model = Model::default();
    for device in 1..=4 {
        let port = model.root_port(None, device, true);
        model.endpoint(Some(port), 0, &[ModelBar::Memory64(14)]);
    }
    let small = Window { bytes: 5 << 20, ..WINDOW32 };
    let result = run(model, 255, [Some(small), None]);
    assert_eq!(result.problems, []);
    assert_eq!(result.usable().len(), 4);
}

#[test]
fn impossible_bars_are_refused() {
    let bad = [
        ModelBar::Raw(0xffff_0006, 0),
        ModelBar::Raw(0xff0f_0000, 0),
        ModelBar::Raw(0xffff_f004, 0),
        ModelBar::Raw(0x0000_0004, 0),
        ModelBar::Raw(0x0000_0008, 0),
    ];
    for (case, bar) in bad.into_iter().enumerate() {
        let mut model = Model::default();
        model.endpoint(None, 1, &[bar]);
        model.endpoint(None, 2, &[ModelBar::Memory32(12)]);
        let result = run(model, 255, [Some(WINDOW32), None]);
        assert_eq!(result.problems, [Problem { address: 8, error: PciError::BadBar }], "case {case}");
        assert_eq!(result.usable(), [0x10]);
    }
    let mut model = Model::default();
    let last = [
        ModelBar::Memory32(12),
        ModelBar::Memory64(12),
        ModelBar::Memory64(12),
        ModelBar::Raw(0xffff_f004, !0),
    ];
    let index = model.endpoint(None, 1, &last);
    assert!(model.devices[index].words[9] & 4 != 0);
    let result = run(model, 255, [Some(WINDOW32), None]);
    assert_eq!(result.usable(), [], "a 64-bit BAR needs two registers");
}

#[test]
fn too_few_buses_too_many_bridges_and_functions() {
    let mut model = Model::default();
    for device in 1..=3 {
        let port = model.root_port(None, device, true);
        model.endpoint(Some(port), 0, &[ModelBar::Memory64(14)]);
    }
    let result = run(model, 2, [Some(WINDOW32), None]);
    assert_eq!(result.problems, [Problem { address: 0x18, error: PciError::NoBus }]);
    assert_eq!(result.usable(), [0x100, 0x200]);

    let mut model = Model::default();
    let mut parent = None;
    for _ in 0..20 {
        parent = Some(model.root_port(parent, 0, false));
    }
    let result = run(model, 255, [Some(WINDOW32), None]);
    assert_eq!(result.problems, [Problem { address: 0x800, error: PciError::TooDeep }]);

    let mut model = Model::default();
    for device in 0..32 {
        for function in 0..8 {
            let index = model.endpoint(None, device, &[ModelBar::Memory32(12)]);
            model.devices[index].device_and_function |= function;
            model.devices[index].words[3] |= 0x80 << 16;
        }
    }
    let result = run(model, 255, [Some(WINDOW32), None]);
    assert_eq!(result.usable().len(), FUNCTIONS_MAX);
    assert!(result.problems.iter().all(|problem| problem.error == PciError::TooManyFunctions));
}

#[test]
fn a_device_that_is_not_ready_and_one_that_answers_zero() {
    let mut model = Model::default();
    model.add(None, 1, 0xffff_0001, 0, 0);
    model.add(None, 2, 0, 0, 0);
    let result = run(model, 255, [Some(WINDOW32), None]);
    assert_eq!(result.problems, [Problem { address: 8, error: PciError::NotReady }]);
    assert!(result.nodes.is_empty());
}

#[test]
fn windows_lose_address_zero_and_all_beyond_4_gib() {
    let whole = Window { pci_address: 0, cpu_address: 0x40_0000_0000, bytes: 1 << 33 };
    let expected = Window { pci_address: 1 << 20, cpu_address: 0x40_0010_0000, bytes: (1 << 32) - (1 << 20) };
    assert_eq!(assign::below_4_gib(whole), expected);
    let high = Window { pci_address: 1 << 33, cpu_address: 1 << 33, bytes: 1 << 20 };
    assert_eq!(assign::below_4_gib(high).bytes, 0);
}

fn memory(bytes: usize) -> MmioRegion {
    let region = DmaRegion::leak_for_host(bytes);
    // SAFETY: fresh, leaked, page-aligned memory.
    unsafe { MmioRegion::new(region.as_ptr(), bytes) }
}

#[test]
fn devices_are_found_through_ecam() {
    let ecam = memory(1 << 20);
    let registers = ecam.window(0, 1 << 20).unwrap();
    for device in 0..32 * 8 {
        registers.write32(device * config::CONFIG_BYTES, u32::MAX);
    }
    // Plain memory takes all writes, so that BARs look like ones of I/O.
    registers.write32(5 << 15, 0x0010_1b36);
    registers.write32((5 << 15) + 8, 0x01_0802 << 8);
    let bridge = HostBridge { ecam, first_bus: 0, last_bus: 255, memory32: WINDOW32, memory64: None };
    // SAFETY: nothing touches the windows, because no BAR lies in them.
    let mut devices = unsafe { enumerate(bridge) };
    assert_eq!(devices.problems(), []);
    let function = devices.next().unwrap();
    assert_eq!((function.address(), function.class()), (5 << 3, 0x01_0802));
    assert!((0..BARS).all(|index| function.bar(index).is_none()));
    assert!(devices.next().is_none());
    assert_eq!(registers.read32((5 << 15) + usize::from(BAR0)), 0);
}

#[test]
fn bars_are_mapped_where_the_cores_see_the_window() {
    let ecam = memory(1 << 20);
    let backing = DmaRegion::leak_for_host(0x4000);
    let cpu_address = backing.device_address().0;
    let window = Window { pci_address: 0x1000_0000, cpu_address, bytes: 0x4000 };
    let bar = |address| Some(Bar { address, size_log2: 12, is_64_bit: false, class: Class::Memory32 });
    let bars = [bar(0x1000_1000), bar(0x1000_4000), bar(0x0fff_f000), None, None, None];
    let mut nodes = heapless::Vec::new();
    for error in [Some(PciError::NoSpace), None] {
        let _ = nodes.push(Node { address: 8, parent: None, bars, bridge: None, error });
    }
    let ecam = Ecam::new(ecam, 0);
    let windows = [Some(window), None];
    let mut devices = Devices { ecam, windows, nodes, next: 0, problems: Problems::new() };
    let function = devices.next().unwrap();
    assert!(devices.next().is_none(), "the other one was left out");
    function.bar(0).unwrap().write32(0xffc, 0x1234);
    assert_eq!(function.bar(0).unwrap().len(), 4096);
    // SAFETY: inside the backing memory.
    assert_eq!(unsafe { backing.as_ptr().add(0x1ffc).cast::<u32>().read_volatile() }, 0x1234);
    assert!(function.bar(1).is_none() && function.bar(2).is_none(), "outside the window");
}

#[test]
fn functions_behind_bridges_of_pci_days_speak_under_the_bridges_name() {
    let mut model = Model::default();
    let root_port = model.root_port(None, 1, false);
    let express = model.endpoint(Some(root_port), 0, &[ModelBar::Memory64(14)]);
    let to_pci = model.root_port(None, 2, false);
    model.devices[to_pci].words[0x40 / 4] = (7 << 4 | 2) << 16 | 0x10;
    let below = model.endpoint(Some(to_pci), 3, &[ModelBar::Memory32(12)]);
    let nested = model.old_bridge(Some(to_pci), 4);
    let deep = model.endpoint(Some(nested), 5, &[ModelBar::Memory32(12)]);
    let old = model.old_bridge(None, 6);
    let behind_old = model.endpoint(Some(old), 7, &[ModelBar::Memory32(12)]);
    let result = run(model, 255, [Some(WINDOW32), Some(WINDOW64)]);
    assert_eq!(result.problems, []);
    let requester = |device: usize| {
        let found = result.nodes.iter().position(|node| result.model.find(node.address) == Some(device));
        let index = found.unwrap();
        (result.nodes[index].address, scan::requester_id(&result.nodes, index))
    };
    let (address, seen) = requester(express);
    assert_eq!(address, seen);
    let secondary = u16::from(result.model.buses(to_pci)[1]) << 8;
    assert_eq!(requester(below), (secondary | 3 << 3, secondary));
    assert_eq!(requester(deep).1, secondary, "the bridge nearest to the root counts");
    assert_eq!(requester(behind_old).1, 6 << 3);
}
