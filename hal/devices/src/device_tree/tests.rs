//! Trees of QEMU's `virt` machine (made by its `dumpdtb` option), whole and damaged.

use super::*;

/// `-M virt,gic-version=3 -cpu max -smp 4 -m 1G`.
const GIC3: &[u8] = include_bytes!("../../tests/data/qemu-virt-gic3.dtb");
/// `-M virt,gic-version=2,virtualization=on -cpu cortex-a72 -smp 2 -m 8G`.
const GIC2: &[u8] = include_bytes!("../../tests/data/qemu-virt-gic2.dtb");

#[test]
fn reads_a_machine_with_gic_version_3() {
    let machine = Machine::parse(GIC3).unwrap();
    assert_eq!((machine.memory.len(), machine.memory.first()), (1, Some(&(0x4000_0000..0x8000_0000))));
    assert_eq!(machine.cores.as_slice(), [0, 1, 2, 3]);
    assert_eq!(machine.psci, Some(PsciConduit::Hvc));
    assert_eq!(machine.uart, Some(0x900_0000..0x900_1000));
    assert_eq!((machine.timer_interrupt, machine.watch_interrupt), (27, 30));
    assert_eq!(machine.boot_arguments, "ip=10.0.0.1/24 plan=pair");
    let Some(GicNode::V3 { distributor, redistributors, its }) = machine.gic else {
        panic!("{:?}", machine.gic)
    };
    assert_eq!(distributor, 0x800_0000..0x801_0000);
    assert_eq!((redistributors.len(), redistributors.first()), (1, Some(&(0x80a_0000..0x900_0000))));
    assert_eq!(its, Some(0x808_0000..0x80a_0000));
}

#[test]
fn reads_a_machine_with_gic_version_2() {
    let machine = Machine::parse(GIC2).unwrap();
    assert_eq!((machine.memory.len(), machine.memory.first()), (1, Some(&(0x4000_0000..0x2_4000_0000))));
    assert_eq!(machine.cores.len(), 2);
    assert_eq!(machine.psci, Some(PsciConduit::Smc));
    let Some(GicNode::V2 { distributor, cpu_interface, v2m }) = machine.gic else {
        panic!("{:?}", machine.gic)
    };
    assert_eq!(distributor.start, 0x800_0000);
    assert_eq!(cpu_interface.start, 0x801_0000);
    assert_eq!(v2m, Some(0x802_0000..0x802_1000));
}

#[test]
fn of_two_banks_of_flash_the_last_is_the_cards() {
    let flash = FlashNode { window: 0x400_0000..0x800_0000, width: 4 };
    assert_eq!(Machine::parse(GIC3).unwrap().flash, Some(flash));
}

#[test]
fn reads_the_power_key() {
    let key = PowerKeyNode { registers: 0x903_0000..0x903_1000, pin: 3, active_low: false };
    assert_eq!(Machine::parse(GIC3).unwrap().power_key, Some(key));
}

#[test]
fn another_key_or_a_pin_that_does_not_exist_is_no_power_key() {
    // A property: its mark, its length, the place of its name, its value.
    let gpios = GIC3.windows(24).position(|property| {
        property[..8] == [0, 0, 0, 3, 0, 0, 0, 12] && property[16..] == [0, 0, 0, 3, 0, 0, 0, 0]
    });
    let code = GIC3
        .windows(16)
        .position(|property| property[..8] == [0, 0, 0, 3, 0, 0, 0, 4] && property[12..] == [0, 0, 0, 116]);
    let (gpios, code) = (gpios.unwrap() + 12, code.unwrap() + 12);
    for (at, value) in [(gpios + 7, 8), (gpios, 0xff), (code + 3, 117)] {
        let mut tree = GIC3.to_vec();
        tree[at] = value;
        assert_eq!(Machine::parse(&tree).unwrap().power_key, None, "{at:#x}");
    }
    let mut tree = GIC3.to_vec();
    tree[gpios + 11] = 1;
    assert!(Machine::parse(&tree).unwrap().power_key.unwrap().active_low);
}

#[test]
fn reads_the_root_complex() {
    let pcie = Machine::parse(GIC3).unwrap().pcie.unwrap();
    assert_eq!(pcie.ecam, 0x40_1000_0000..0x40_2000_0000);
    assert_eq!((pcie.first_bus, pcie.last_bus), (0, 255));
    let window = |pci_address, cpu_address, bytes| Some(Window { pci_address, cpu_address, bytes });
    assert_eq!(pcie.io, window(0, 0x3eff_0000, 0x1_0000));
    assert_eq!(pcie.memory32, window(0x1000_0000, 0x1000_0000, 0x2eff_0000));
    assert_eq!(pcie.memory64, window(0x80_0000_0000, 0x80_0000_0000, 0x80_0000_0000));
    assert_eq!(pcie.msi_device_id(0x0208), Some(0x0208));
}

#[test]
fn msi_map_translates_requester_ids_and_leaves_others_out() {
    let mut pcie = Machine::parse(GIC3).unwrap().pcie.unwrap();
    pcie.msi_map.clear();
    pcie.msi_map.push(MsiMapEntry { requester: 0x100, device: 0x4000, count: 0x10 }).unwrap();
    assert_eq!(pcie.msi_device_id(0x105), Some(0x4005));
    assert_eq!(pcie.msi_device_id(0x110), None);
    assert_eq!(pcie.msi_device_id(0xff), None);
}

#[test]
fn every_byte_of_the_loaders_seed_counts() {
    assert_eq!(Machine::parse(GIC3).unwrap().seed, 0, "made without");
    let mut tree = GIC3.to_vec();
    let name = tree.windows(9).position(|bytes| bytes == b"bootargs\0").unwrap();
    tree[name..name + 8].copy_from_slice(b"rng-seed");
    let value = tree.windows(3).position(|bytes| bytes == b"ip=").unwrap();
    let mut seeds = vec![Machine::parse(&tree).unwrap().seed];
    for at in 0.."ip=10.0.0.1/24 plan=pair".len() {
        tree[value + at] ^= 0x80;
        seeds.push(Machine::parse(&tree).unwrap().seed);
    }
    let count = seeds.len();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!((seeds.len(), seeds.contains(&0)), (count, false));
}

#[test]
fn reservations_beyond_the_list_widen_its_last_range() {
    let mut machine = Machine::default();
    for index in 0..MAX_RANGES as u64 + 2 {
        machine.reserve(0x1000 + index * 0x10_0000, 0x1000);
    }
    machine.reserve(u64::MAX, 2);
    machine.reserve(0, 0);
    assert_eq!(machine.reserved.len(), MAX_RANGES);
    let end = 0x2000 + (MAX_RANGES as u64 + 1) * 0x10_0000;
    assert_eq!(machine.reserved.last(), Some(&(0x1000 + (MAX_RANGES as u64 - 1) * 0x10_0000..end)));
}

#[test]
fn a_header_tells_the_length_or_nothing() {
    assert_eq!(length_bytes(GIC3[..8].try_into().unwrap()), Some(GIC3.len()));
    assert_eq!(length_bytes(b"\xd0\x0d\xfe\xed\0\0\0\x08"), None);
    assert_eq!(length_bytes(b"\xd0\x0d\xfe\xed\x7f\0\0\0"), None);
    assert_eq!(length_bytes(b"\x7fELF\0\0\x01\0"), None);
}

/// A linear congruential generator: the same mutations in every run.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn damaged_trees_are_refused_or_read_without_a_panic() {
    assert!(Machine::parse(&[]).is_err());
    for tree in [GIC2, GIC3] {
        for length in (0..tree.len()).step_by(97) {
            assert!(Machine::parse(&tree[..length]).is_err(), "cut to {length}");
        }
        let mut state = 1;
        let mut read = 0;
        for _ in 0..2000 {
            let mut damaged = tree.to_vec();
            for _ in 0..1 + next(&mut state) % 4 {
                let at = next(&mut state) % damaged.len();
                damaged[at] = next(&mut state) as u8;
            }
            read += u32::from(Machine::parse(&damaged).is_ok());
        }
        assert!(read > 200, "too few mutations get past the format: {read}");
    }
}
