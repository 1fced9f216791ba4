//! The interrupt controller as the cores use it: acknowledge what is pending, wake another core; and the watchdog's two
//! interrupts, which are in group 0 and come as FIQ where that group is ours.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use hal_devices::device_tree::{GicNode, Machine};
use hal_devices::gic::{
    CpuInterfaceV2, DistributorV2, DistributorV3, Its, LpiTables, MOST_ACKNOWLEDGED, MsiController,
    Redistributor, STOP_INTERRUPT, V2m, WAKE_INTERRUPT, find_redistributor,
};
use hal_mem::{DmaRegion, MmioRegion};

use crate::MAX_CORES;
use crate::registers::{read_register, write_register};

/// 0, or the version of the controller once it is set up.
static VERSION: AtomicU8 = AtomicU8::new(0);
/// Group 0 is ours.
static WATCH: AtomicBool = AtomicBool::new(false);
static DISTRIBUTOR: AtomicUsize = AtomicUsize::new(0);
static CPU_INTERFACE: AtomicUsize = AtomicUsize::new(0);
/// Version 2: each core's bit in target masks, 0 until the core runs.
static TARGETS: [AtomicU8; MAX_CORES] = [const { AtomicU8::new(0) }; MAX_CORES];
/// Version 3: each core's affinity with bit 63 set, 0 until the core runs.
static AFFINITIES: [AtomicU64; MAX_CORES] = [const { AtomicU64::new(0) }; MAX_CORES];

/// Registers at a physical address that the map covers.
///
/// # Safety
/// `start..start + bytes` is mapped as device memory, and the block's rules for several users are kept.
unsafe fn registers(start: u64, bytes: u64) -> MmioRegion {
    let base = NonNull::new(start as *mut u8).unwrap_or(NonNull::dangling());
    // SAFETY: the caller's promise.
    unsafe { MmioRegion::new(base, bytes as usize) }
}

/// Sets up what the cores share. Once, on the first core, after the map covers the controller.
pub(crate) fn initialize(machine: &Machine) {
    match &machine.gic {
        Some(GicNode::V2 { distributor, cpu_interface, .. }) => {
            DISTRIBUTOR.store(distributor.start as usize, Ordering::Relaxed);
            CPU_INTERFACE.store(cpu_interface.start as usize, Ordering::Relaxed);
            let groups = distributor_v2().initialize();
            WATCH.store(groups, Ordering::Relaxed);
            VERSION.store(2, Ordering::Release);
        }
        Some(GicNode::V3 { distributor, .. }) => {
            // SAFETY: mapped from the tree; only the first core uses it, before the others run.
            let block = unsafe { registers(distributor.start, distributor.end - distributor.start) };
            let groups = DistributorV3::new(block).initialize();
            // A monitor at EL3 may keep the registers of group 0 from us even where it shares the group.
            let monitor = read_register!("id_aa64pfr0_el1") >> 12 & 0xf != 0;
            WATCH.store(groups && !monitor, Ordering::Relaxed);
            VERSION.store(3, Ordering::Release);
        }
        None => {}
    }
}

/// Sets up the calling core's part: its interface, its timer's interrupt, its wake-up.
pub(crate) fn initialize_core(machine: &Machine, index: usize) {
    let watch = watch_available().then_some(machine.watch_interrupt);
    match VERSION.load(Ordering::Acquire) {
        2 => {
            let mask = distributor_v2().initialize_core(machine.timer_interrupt, watch);
            cpu_interface_v2().initialize(watch.is_some());
            if let Some(target) = TARGETS.get(index) {
                target.store(mask, Ordering::Release);
            }
        }
        3 => {
            let mpidr = read_register!("mpidr_el1") & 0xff_00ff_ffff;
            if let Some(mut redistributor) = redistributor(machine, mpidr) {
                redistributor.initialize(machine.timer_interrupt, watch);
            }
            let enable = read_register!("s3_0_c12_c12_5") | 1;
            // SAFETY: this core's interface: system registers on, no priority masked, group 1 on, and the end
            // of an interrupt also deactivates it.
            unsafe {
                write_register!("s3_0_c12_c12_5", enable);
                core::arch::asm!("isb", options(nostack, preserves_flags));
                write_register!("s3_0_c4_c6_0", 0xffu64);
                write_register!("s3_0_c12_c12_4", 0u64);
                write_register!("s3_0_c12_c12_7", 1u64);
                if watch.is_some() {
                    write_register!("s3_0_c12_c12_6", 1u64);
                }
                core::arch::asm!("isb", options(nostack, preserves_flags));
            }
            if let Some(affinity) = AFFINITIES.get(index) {
                affinity.store(mpidr | 1 << 63, Ordering::Release);
            }
        }
        _ => {}
    }
}

/// Whether a sleeping core can be woken at all.
#[inline]
pub(crate) fn available() -> bool {
    VERSION.load(Ordering::Relaxed) != 0
}

/// The controller's version, 0 for none.
pub(crate) fn version() -> u8 {
    VERSION.load(Ordering::Relaxed)
}

/// Acknowledges what is pending for the calling core, up to a limit.
pub(crate) fn acknowledge_all() {
    match VERSION.load(Ordering::Relaxed) {
        2 => {
            let (_, stopped) = cpu_interface_v2().acknowledge_all();
            if stopped {
                // A core that crashes waits for this one to stop. Raised again, it comes as FIQ.
                stop(crate::core_index());
            }
        }
        3 => {
            for _ in 0..MOST_ACKNOWLEDGED {
                let interrupt = read_register!("s3_0_c12_c12_0");
                if (1020..1024).contains(&interrupt) {
                    break;
                }
                // SAFETY: ends the interrupt that was just acknowledged.
                unsafe { write_register!("s3_0_c12_c12_1", interrupt) };
            }
        }
        _ => {}
    }
}

/// Whether the watchdog has interrupts: group 0 is ours.
#[inline]
pub(crate) fn watch_available() -> bool {
    WATCH.load(Ordering::Relaxed)
}

/// An interrupt of group 0 that was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct WatchInterrupt {
    /// Its number.
    pub(crate) number: u32,
    acknowledged: u64,
}

/// Acknowledges the watchdog's interrupt that is pending for the calling core; `None` where none is.
pub(crate) fn acknowledge_watch() -> Option<WatchInterrupt> {
    let acknowledged = match VERSION.load(Ordering::Relaxed) {
        2 => u64::from(cpu_interface_v2().acknowledge()),
        _ => read_register!("s3_0_c12_c8_0"),
    };
    let interrupt = WatchInterrupt { number: acknowledged as u32 & 0x3ff, acknowledged };
    let is_watch = interrupt.number == STOP_INTERRUPT || (16..32).contains(&interrupt.number);
    if !is_watch && interrupt.number < 1020 {
        // Version 2 has one register for both groups: this was meant to end a sleep, and has to do so still.
        end_watch(interrupt);
        wake(crate::core_index());
    }
    is_watch.then_some(interrupt)
}

/// Ends what was acknowledged.
pub(crate) fn end_watch(interrupt: WatchInterrupt) {
    match VERSION.load(Ordering::Relaxed) {
        2 => cpu_interface_v2().end(interrupt.acknowledged as u32),
        // SAFETY: ends the interrupt that was just acknowledged.
        _ => unsafe { write_register!("s3_0_c12_c8_1", interrupt.acknowledged) },
    }
}

/// Sends core `index` the interrupt that stops it; only where group 0 is ours.
pub(crate) fn stop(index: usize) {
    match VERSION.load(Ordering::Relaxed) {
        2 => {
            let target = TARGETS.get(index).map_or(0, |target| target.load(Ordering::Acquire));
            distributor_v2().stop(target);
        }
        _ => {
            let affinity = AFFINITIES.get(index).map_or(0, |affinity| affinity.load(Ordering::Acquire));
            if affinity >> 63 != 0 {
                let value = generated(affinity, STOP_INTERRUPT);
                // SAFETY: raises an interrupt of group 0, whose handler keeps what it interrupts.
                unsafe {
                    write_register!("s3_0_c12_c11_7", value);
                    core::arch::asm!("isb", options(nostack, preserves_flags));
                }
            }
        }
    }
}

/// The value that has version 3 generate an interrupt for the core with that affinity.
fn generated(affinity: u64, interrupt: u32) -> u64 {
    let level = |shift: u32| affinity >> shift & 0xff;
    let core = level(0);
    level(32) << 48
        | level(16) << 32
        | level(8) << 16
        | (core >> 4) << 44
        | u64::from(interrupt) << 24
        | 1 << (core & 0xf)
}

/// Sends core `index` the wake-up interrupt, after all stores made before.
pub(crate) fn wake(index: usize) {
    // SAFETY: a barrier touches neither registers nor memory.
    unsafe { core::arch::asm!("dsb ishst", options(nostack, preserves_flags)) };
    match VERSION.load(Ordering::Relaxed) {
        2 => {
            let target = TARGETS.get(index).map_or(0, |target| target.load(Ordering::Acquire));
            if target != 0 {
                distributor_v2().wake(target);
            }
        }
        3 => {
            let affinity = AFFINITIES.get(index).map_or(0, |affinity| affinity.load(Ordering::Acquire));
            if affinity >> 63 != 0 {
                let value = generated(affinity, WAKE_INTERRUPT);
                // SAFETY: raises an interrupt that only wakes.
                unsafe {
                    write_register!("s3_0_c12_c11_5", value);
                    core::arch::asm!("isb", options(nostack, preserves_flags));
                }
            }
        }
        _ => {}
    }
}

/// The way devices wake cores by messages; `None` where the machine has none. Once, when the other cores are
/// up; `memory` gives zeroed memory for the tables of a translation service.
pub(crate) fn message_controller(
    machine: &Machine,
    memory: impl FnOnce(usize) -> Option<DmaRegion>,
) -> Option<MsiController> {
    match machine.gic.as_ref()? {
        GicNode::V2 { v2m, .. } => {
            let frame = v2m.as_ref()?;
            // SAFETY: mapped from the tree; nobody else uses the frame.
            let block = unsafe { registers(frame.start, frame.end - frame.start) };
            let targets =
                core::array::from_fn(|core| TARGETS.get(core).map_or(0, |t| t.load(Ordering::Acquire)));
            Some(MsiController::V2m(V2m::new(block, frame.start, distributor_v2(), targets)))
        }
        GicNode::V3 { distributor, its, .. } => {
            let its = its.as_ref()?;
            // SAFETY: mapped from the tree; only read here.
            let block = unsafe { registers(distributor.start, distributor.end - distributor.start) };
            if !DistributorV3::new(block).has_lpis() {
                return None;
            }
            let mut memory = memory(Its::MEMORY_BYTES)?;
            let mut tables = LpiTables::new(&mut memory)?;
            let redistributors: [Option<Redistributor>; MAX_CORES] = core::array::from_fn(|core| {
                let affinity = AFFINITIES.get(core)?.load(Ordering::Acquire);
                let mut found =
                    (affinity >> 63 != 0).then(|| redistributor(machine, affinity & !(1 << 63)))??;
                found.enable_lpis(&mut tables, &mut memory).then_some(found)
            });
            // SAFETY: mapped from the tree; nobody else uses the service.
            let block = unsafe { registers(its.start, its.end - its.start) };
            Its::new(block, its.start, &tables, &redistributors, memory).ok().map(MsiController::Its)
        }
    }
}

fn redistributor(machine: &Machine, mpidr: u64) -> Option<Redistributor> {
    let Some(GicNode::V3 { redistributors, .. }) = &machine.gic else { return None };
    redistributors.iter().find_map(|range| {
        // SAFETY: mapped from the tree; each core sets up its own, and the first core turns on message
        // interrupts while the others are parked.
        let block = unsafe { registers(range.start, range.end - range.start) };
        find_redistributor(&block, range.start, mpidr)
    })
}

fn distributor_v2() -> DistributorV2 {
    // SAFETY: mapped from the tree; the registers used after boot are banked or take single writes.
    DistributorV2::new(unsafe { registers(DISTRIBUTOR.load(Ordering::Relaxed) as u64, 0x1000) })
}

fn cpu_interface_v2() -> CpuInterfaceV2 {
    // SAFETY: mapped from the tree; all registers are banked for each core.
    CpuInterfaceV2::new(unsafe { registers(CPU_INTERFACE.load(Ordering::Relaxed) as u64, 0x1000) })
}

/// The vectors call this where interrupts are not masked.
#[unsafe(no_mangle)]
extern "C" fn acknowledge_interrupts() {
    acknowledge_all();
}
