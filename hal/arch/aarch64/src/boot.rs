//! From the entry code to the board's main function: the device tree, the memory map, interrupts, the other cores.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use hal_api::Clock;
use hal_devices::device_tree::{self, FlashNode, GicNode, Machine, PcieNode};
use hal_devices::gic::MsiController;
use hal_devices::pci::Window;
use hal_devices::{CfiError, CfiFlash, Pl011, PowerKey};
use hal_mem::MmioRegion;

use crate::cores::{self, OtherCores};
use crate::cpu::Cpu;
use crate::memory::FreeMemory;
use crate::mmu::{Kind, MapError, Tables};
use crate::registers::read_register;
use crate::timer::Timer;
use crate::{console, crash, image, interrupts, psci, watchdog};

/// What the board's main function gets.
#[derive(Debug)]
pub struct Boot {
    /// What the device tree says. Core 0 is first in its list of cores.
    pub machine: &'static Machine,
    /// DRAM that nobody uses yet.
    pub memory: FreeMemory,
    /// The clock; copies may go anywhere.
    pub timer: Timer,
    /// This core.
    pub cpu: Cpu,
    /// The other cores, parked asleep.
    pub others: OtherCores,
    /// Messages by which devices wake cores; `None` where there is no controller for them: poll.
    pub msi: Option<MsiController>,
    /// The console UART.
    pub uart: Option<Pl011>,
    /// The key by which an operator asks for the end.
    pub power_key: Option<PowerKey>,
    /// The flash that the card may keep something in, or why it is not driven; `None` where the tree has none.
    pub flash: Option<Result<CfiFlash, CfiError>>,
    /// Version of the interrupt controller; 0 where there is none, and no core can sleep.
    pub gic_version: u8,
    /// Each core is watched by an interrupt of its own; else cores watch each other in their turns.
    pub watched_by_interrupt: bool,
}

unsafe extern "Rust" {
    safe fn card_main(boot: Boot) -> !;
}

/// What the first core knows and the others read once they start.
pub(crate) struct Shared {
    pub(crate) machine: Machine,
    pub(crate) timer: Timer,
    pub(crate) tables: Tables,
}

struct SharedCell(UnsafeCell<MaybeUninit<Shared>>);

// SAFETY: written once, by the first core before any other runs, and only read after that.
unsafe impl Sync for SharedCell {}

static SHARED: SharedCell = SharedCell(UnsafeCell::new(MaybeUninit::uninit()));
static SHARED_SET: AtomicBool = AtomicBool::new(false);

/// What the first core left; only after it did.
pub(crate) fn shared() -> &'static Shared {
    shared_if_set().expect("a core runs before the first has read the device tree")
}

/// What the first core left, if it did already.
pub(crate) fn shared_if_set() -> Option<&'static Shared> {
    // SAFETY: initialised where it is set, and not written again.
    SHARED_SET.load(Ordering::Acquire).then(|| unsafe { (*SHARED.0.get()).assume_init_ref() })
}

/// Microseconds since the first core started, from any core.
#[must_use]
pub fn micros() -> u64 {
    shared().timer.now().as_micros()
}

/// The same, or 0 before there is a clock: for crashes.
pub(crate) fn micros_or_zero() -> u64 {
    shared_if_set().map_or(0, |shared| shared.timer.now().as_micros())
}

#[unsafe(no_mangle)]
extern "C" fn first_core(device_tree: usize) -> ! {
    console::set_base(image::early_console());
    let timer = Timer::start();
    let (mut machine, tree) = read_tree(device_tree);
    psci::set_conduit(machine.psci);
    own_core_first(&mut machine);
    crash::check_region(&machine, &tree);
    let tables = build_map(&mut machine, &tree).unwrap_or_else(|error| panic!("memory map: {error:?}"));
    // SAFETY: no other core runs, and nobody has read it yet.
    unsafe { (*SHARED.0.get()).write(Shared { machine, timer, tables }) };
    SHARED_SET.store(true, Ordering::Release);
    let shared = shared();
    // SAFETY: `build_map` covers the image, the stacks, all DRAM that may be used and the devices.
    unsafe { shared.tables.activate() };
    let machine = &shared.machine;
    if let Some(uart) = &machine.uart {
        console::set_base(uart.start as usize);
    }
    let uart = machine.uart.as_ref().and_then(|range| NonNull::new(range.start as *mut u8)).map(|base| {
        // SAFETY: mapped as device memory; the raw console shares it, and at worst their text mixes.
        let mut uart = Pl011::new(unsafe { MmioRegion::new(base, Pl011::BYTES) });
        uart.enable();
        uart
    });
    let power_key = machine.power_key.as_ref().and_then(|node| {
        let base = NonNull::new(node.registers.start as *mut u8)?;
        // SAFETY: mapped as device memory, and nobody else uses it.
        Some(PowerKey::new(unsafe { MmioRegion::new(base, PowerKey::BYTES) }, node))
    });
    let flash = machine.flash.as_ref().map(take_flash);
    crash::begin_boot();
    let mut memory = FreeMemory::new(machine, &[image::whole(), image::crash(), tree]);
    interrupts::initialize(machine);
    interrupts::initialize_core(machine, 0);
    watchdog::start_core(0);
    let others = cores::start_all(shared);
    let msi = interrupts::message_controller(machine, |bytes| memory.dma(bytes, 1 << 16));
    let cpu = Cpu::new(0, timer);
    let (gic_version, watched_by_interrupt) = (interrupts::version(), interrupts::watch_available());
    card_main(Boot {
        machine,
        memory,
        timer,
        cpu,
        others,
        msi,
        uart,
        power_key,
        flash,
        gic_version,
        watched_by_interrupt,
    })
}

/// The flash, which `build_map` has mapped.
fn take_flash(node: &FlashNode) -> Result<CfiFlash, CfiError> {
    let base = NonNull::new(node.window.start as *mut u8).ok_or(CfiError::NoAnswer)?;
    let bytes = (node.window.end - node.window.start) as usize;
    // SAFETY: mapped as device memory, and nobody else uses it.
    CfiFlash::new(unsafe { MmioRegion::new(base, bytes) }, node.width)
}

/// Parses the tree that the loader left at `address`; also where it lies.
fn read_tree(address: usize) -> (Machine, Range<u64>) {
    assert!(address != 0 && address.is_multiple_of(8), "no device tree at {address:#x}");
    // SAFETY: the boot protocol gives the address of a tree; the entry code has mapped its first 2 MiB.
    let header = unsafe { &*(address as *const [u8; 8]) };
    let bytes = device_tree::length_bytes(header).unwrap_or_else(|| panic!("no device tree at {address:#x}"));
    // SAFETY: as above; at most 2 MiB.
    let tree = unsafe { core::slice::from_raw_parts(address as *const u8, bytes) };
    let machine =
        Machine::parse(tree).unwrap_or_else(|_| panic!("the device tree at {address:#x} is damaged"));
    (machine, address as u64..(address + bytes) as u64)
}

/// Puts the running core at index 0.
fn own_core_first(machine: &mut Machine) {
    let own = read_register!("mpidr_el1") & 0xff_00ff_ffff;
    match machine.cores.iter().position(|mpidr| *mpidr == own) {
        Some(index) => {
            if let Some(all) = machine.cores.get_mut(..=index) {
                all.rotate_right(1);
            }
        }
        None => {
            if machine.cores.is_full() {
                machine.cores.pop();
            }
            let _ = machine.cores.push(own);
            machine.cores.rotate_right(1);
        }
    }
    machine.cores.truncate(image::cores_maximum());
}

/// Maps what the card uses. A root complex, a window of it, a power key or a flash that is out of reach is taken out of `machine`.
fn build_map(machine: &mut Machine, tree: &Range<u64>) -> Result<Tables, MapError> {
    let mut tables = Tables::new()?;
    map_image(&mut tables)?;
    // Not what is reserved: a core may read ahead from whatever is mapped Normal, and a secure world's memory
    // answers that with an error.
    for range in FreeMemory::new(machine, &[image::whole(), image::crash(), tree.clone()]).ranges() {
        tables.map(range.start, range.end, Kind::Memory)?;
    }
    tables.map(tree.start, tree.end, Kind::ReadOnly)?;
    let mut device = |range: &Range<u64>| tables.map(range.start, range.end, Kind::Device);
    machine.uart.as_ref().map(&mut device).transpose()?;
    match &machine.gic {
        Some(GicNode::V2 { distributor, cpu_interface, v2m }) => {
            device(distributor)?;
            device(cpu_interface)?;
            v2m.as_ref().map(&mut device).transpose()?;
        }
        Some(GicNode::V3 { distributor, redistributors, its }) => {
            device(distributor)?;
            redistributors.iter().try_for_each(&mut device)?;
            its.as_ref().map(&mut device).transpose()?;
        }
        None => {}
    }
    machine.power_key = machine.power_key.take().filter(|key| {
        let start = key.registers.start;
        tables.map(start, start.saturating_add(PowerKey::BYTES as u64), Kind::Device).is_ok()
    });
    machine.flash = machine.flash.take().filter(|flash| {
        let fits = usize::try_from(flash.window.end).is_ok() && flash.window.start > 0;
        fits && tables.map(flash.window.start, flash.window.end, Kind::Device).is_ok()
    });
    machine.pcie = machine.pcie.take().and_then(|pcie| map_pcie(&mut tables, pcie));
    Ok(tables)
}

/// The root complex with those of its windows that can be mapped; `None` where its configuration space cannot. I/O
/// space stays out: nobody uses it.
fn map_pcie(tables: &mut Tables, mut pcie: PcieNode) -> Option<PcieNode> {
    tables.map(pcie.ecam.start, pcie.ecam.end, Kind::Configuration).ok()?;
    for window in [&mut pcie.memory32, &mut pcie.memory64] {
        *window = window.filter(|Window { cpu_address, bytes, .. }| {
            tables.map(*cpu_address, cpu_address.saturating_add(*bytes), Kind::Device).is_ok()
        });
    }
    Some(pcie)
}

/// The image's parts with their permissions, and stacks with nothing mapped below them.
fn map_image(tables: &mut Tables) -> Result<(), MapError> {
    for (range, kind) in
        [(image::text(), Kind::Text), (image::rodata(), Kind::ReadOnly), (image::data(), Kind::Memory)]
    {
        tables.map(range.start, range.end, kind)?;
    }
    if let Some(range) = crash::region_address() {
        tables.map(range.start, range.end, Kind::Memory)?;
    }
    for core in 0..image::cores_maximum() {
        for stack in image::stacks_of(core) {
            tables.map(stack.start, stack.end, Kind::Memory)?;
        }
    }
    Ok(())
}
