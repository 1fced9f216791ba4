//! Against plain memory in place of registers: what is written where. That messages arrive is shown under QEMU.

use hal_mem::{DmaRegion, MmioRegion};

use super::*;

fn over(memory: &DmaRegion) -> MmioRegion {
    // SAFETY: the test's own memory, never freed; volatile accesses only.
    unsafe { MmioRegion::new(memory.as_ptr(), memory.len()) }
}

#[test]
fn a_v2m_frame_gives_each_interrupt_once_and_routes_it() {
    let (distributor, frame_memory) = (DmaRegion::leak_for_host(0x1000), DmaRegion::leak_for_host(0x1000));
    let (registers, frame) = (over(&distributor), over(&frame_memory));
    frame.write32(0x008, 80 << 16 | 2);
    let mut targets = [0; MAX_CORES];
    targets[..2].copy_from_slice(&[1, 2]);
    let mut v2m = V2m::new(over(&frame_memory), 0x802_0000, DistributorV2::new(over(&distributor)), targets);
    assert_eq!(v2m.allocate(5), None, "an absent core");
    assert_eq!(v2m.allocate(1), Some(MsiMessage { address: 0x802_0040, data: 80 }));
    assert_eq!(registers.read8(0x800 + 80), 2);
    assert_eq!(registers.read32(0xc00 + 4 * 5) & 3, 2, "edge-triggered");
    assert_eq!(registers.read32(0x100 + 4 * 2), 1 << 16);
    assert_eq!(v2m.allocate(0), Some(MsiMessage { address: 0x802_0040, data: 81 }));
    assert_eq!(v2m.allocate(0), None, "the frame has two");
    v2m.raise(MsiMessage { address: 0x802_0040, data: 81 });
    assert_eq!(frame.read32(0x040), 81);
}

#[test]
fn private_interrupts_that_a_loader_left_on_are_turned_off() {
    let memory = DmaRegion::leak_for_host(0x2_0000);
    let registers = over(&memory);
    assert_eq!(DistributorV2::new(over(&memory)).initialize_core(27, None), 1);
    assert_eq!((registers.read32(0x180), registers.read32(0x100)), (u32::MAX, 1 << 27 | 1 << WAKE_INTERRUPT));
    find_redistributor(&registers, 0, 0).unwrap().initialize(27, None);
    let (off, on) = (registers.read32(0x1_0180), registers.read32(0x1_0100));
    assert_eq!((off, on), (u32::MAX, 1 << 27 | 1 << WAKE_INTERRUPT));
}

#[test]
fn the_watchdogs_interrupts_are_in_group_0_and_ahead_of_the_others() {
    let watched = 1 << STOP_INTERRUPT | 1 << 30;
    let memory = DmaRegion::leak_for_host(0x2_0000);
    let registers = over(&memory);
    // Plain memory keeps what is written to the groups, as a distributor does that nobody else has.
    assert!(DistributorV2::new(over(&memory)).initialize());
    DistributorV2::new(over(&memory)).initialize_core(27, Some(30));
    assert_eq!((registers.read32(0x080), registers.read32(0x000)), (!watched, 3));
    assert_eq!(registers.read32(0x100), watched | 1 << 27 | 1 << WAKE_INTERRUPT);
    assert_eq!((registers.read8(0x400 + 30), registers.read8(0x400 + 27)), (WATCH_PRIORITY, PRIORITY as u8));
    find_redistributor(&registers, 0, 0).unwrap().initialize(27, Some(30));
    assert_eq!(registers.read32(0x1_0080), !watched);
    assert_eq!(registers.read32(0x1_0100), watched | 1 << 27 | 1 << WAKE_INTERRUPT);
    assert_eq!(registers.read8(0x1_0400 + STOP_INTERRUPT as usize), WATCH_PRIORITY);
}

#[test]
fn a_line_that_stays_raised_does_not_hold_the_core() {
    let memory = DmaRegion::leak_for_host(0x1000);
    over(&memory).write32(0x00c, 30);
    assert_eq!(CpuInterfaceV2::new(over(&memory)).acknowledge_all(), (MOST_ACKNOWLEDGED, false));
    over(&memory).write32(0x00c, 1023);
    assert_eq!(CpuInterfaceV2::new(over(&memory)).acknowledge_all(), (0, false));
}

#[test]
fn the_interrupt_that_stops_a_core_is_not_swallowed_with_the_others() {
    let memory = DmaRegion::leak_for_host(0x1000);
    // From core 3.
    over(&memory).write32(0x00c, 3 << 10 | STOP_INTERRUPT);
    assert_eq!(CpuInterfaceV2::new(over(&memory)).acknowledge_all(), (1, true));
    assert_eq!(
        over(&memory).read32(0x010),
        3 << 10 | STOP_INTERRUPT,
        "ended, so that it can be raised again"
    );
}

#[test]
fn redistributors_are_found_by_affinity() {
    let memory = DmaRegion::leak_for_host(0x8_0000);
    let registers = over(&memory);
    registers.write64(0x8, 0);
    // The second has four frames (GICv4), the third is the last.
    registers.write64(0x2_0008, 1 << 32 | 1 << 8 | 1 << 1);
    registers.write64(0x6_0008, 0x0102_0304 << 32 | 7 << 8 | 1 << 4);
    let find = |mpidr| find_redistributor(&registers, 0x80a_0000, mpidr);
    assert_eq!(find(1).unwrap().target(true), 0x80c_0000);
    let last = find(0x01_0002_0304).unwrap();
    assert_eq!((last.target(true), last.target(false)), (0x810_0000, 7 << 16));
    assert!(find(9).is_none());
}

#[test]
fn a_service_that_takes_no_command_or_has_too_little_memory_is_given_up() {
    let registers = DmaRegion::leak_for_host(0x2_0000);
    let service = over(&registers);
    service.write64(0x100, 1 << 56 | 7 << 48);
    let redistributor = DmaRegion::leak_for_host(0x2_0000);
    over(&redistributor).write64(0x8, 1 << 4);
    let attempt = |bytes: usize| {
        let mut memory = DmaRegion::leak_for_host(Its::MEMORY_BYTES);
        let tables = LpiTables::new(&mut memory).unwrap();
        let redistributors = core::array::from_fn(|core| {
            if core == 0 { find_redistributor(&over(&redistributor), 0, 0) } else { None }
        });
        let memory = DmaRegion::leak_for_host(bytes);
        Its::new(over(&registers), 0x808_0000, &tables, &redistributors, memory).map(|_| ())
    };
    assert_eq!(attempt(Its::MEMORY_BYTES), Err(ItsError::Stuck));
    assert_eq!(service.read64(0x88), 32, "one command was offered");
    service.write32(0, 0);
    service.write64(0x8, 15 << 13);
    assert_eq!(attempt(4096), Err(ItsError::Memory));
    // On, and never quiescent: its tables are left alone.
    service.write64(0x100, 1 << 56 | 7 << 48);
    service.write32(0, 1);
    assert_eq!(attempt(Its::MEMORY_BYTES), Err(ItsError::Stuck));
    assert_eq!(service.read64(0x100), 1 << 56 | 7 << 48);
}
