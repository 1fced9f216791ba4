//! Log pages: contents, offsets, lengths.

use super::*;
use crate::testing::{Bench, NQN, admin_command, get_log, read};
use crate::{Listener, PortId};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use nvme::log_page::{DiscoveryEntry, DiscoveryHeader, discovery_flag, effect};
use nvme::opcode::admin;
use zerocopy::{FromBytes, FromZeros};

fn drive_log(temperature_k: u16, spare_percent: u8, reads: u128) -> SmartLog {
    let mut log = SmartLog::new_zeroed();
    log.temperature_k.set(temperature_k);
    log.spare_percent = spare_percent;
    log.spare_threshold_percent = 10;
    log.used_percent = 100 - spare_percent;
    log.host_reads = reads.to_le_bytes();
    log.power_on_hours = reads.to_le_bytes();
    log
}

fn smart(bench: &mut Bench, nsid: u32) -> SmartLog {
    let mut command = get_log(id::SMART, 512, 0);
    command.nsid.set(nsid);
    SmartLog::read_from_bytes(&bench.data_of(&command)).unwrap()
}

#[test]
fn health_is_that_of_all_drives_or_of_one() {
    let mut bench = Bench::ready();
    assert_eq!(smart(&mut bench, 0).spare_percent, 100);
    let mut worn = drive_log(320, 40, 5);
    worn.critical_warning = 1 << 3;
    bench.backend.smart = std::vec![(0, drive_log(300, 90, 7)), (1, worn), (2, drive_log(340, 1, 1000))];
    for all in [0, NSID_ALL] {
        let log = smart(&mut bench, all);
        assert_eq!((log.temperature_k.get(), log.spare_percent, log.used_percent), (320, 40, 60));
        assert_eq!((log.critical_warning, log.host_reads[0], log.power_on_hours[0]), (8, 12, 7));
    }
    let one = smart(&mut bench, 3);
    assert_eq!((one.temperature_k.get(), one.critical_warning, one.host_reads[0]), (300, 0, 7));
    let mut command = get_log(id::SMART, 512, 0);
    command.nsid.set(4);
    assert_eq!(bench.refusal_of(&command), Status::INVALID_NAMESPACE);
}

#[test]
fn a_drive_with_two_namespaces_counts_once_and_heat_is_a_warning() {
    let mut bench = Bench::ready();
    bench.subsystem.attach(crate::testing::namespace(4)).unwrap();
    bench.backend.smart = std::vec![(0, drive_log(343, 90, u128::MAX)), (1, drive_log(300, 90, 7))];
    let log = smart(&mut bench, 0);
    assert_eq!(log.host_reads, [0xff; 16], "sums saturate");
    assert_eq!(log.critical_warning, 1 << 1);
    bench.backend.smart = std::vec![(0, drive_log(342, 90, 7))];
    let log = smart(&mut bench, 0);
    assert_eq!((log.critical_warning, log.host_reads[0]), (0, 7));
}

#[test]
fn errors_are_logged_and_counted_in_health() {
    let mut bench = Bench::ready();
    bench.subsystem.record_error(&bench.io, &read(7, 4, 1), Status::UNRECOVERED_READ_ERROR);
    let data = bench.data_of(&get_log(id::ERROR, 128, 0));
    let (first, rest) = ErrorEntry::read_from_prefix(&data).unwrap();
    assert_eq!((first.error_count.get(), first.sq_id.get(), first.start_block.get()), (1, 1, 4));
    assert_eq!((first.nsid.get(), first.transport, first.location.get()), (7, 3, 0xffff));
    assert_eq!(rest, [0; 64]);
    assert_eq!(smart(&mut bench, 0).error_entries[0], 1);
}

#[test]
fn firmware_effects_and_supported_pages() {
    let mut bench = Bench::ready();
    let slots = bench.data_of(&get_log(id::FIRMWARE_SLOT, 512, 0));
    assert_eq!((slots[0], &slots[8..16]), (1, &bench.subsystem.config().firmware[..]));
    let effects = bench.data_of(&get_log(id::COMMAND_EFFECTS, 4096, 0));
    let of = |at: usize| u32::from_le_bytes(effects[at..at + 4].try_into().unwrap());
    assert_eq!((of(4 * 6), of(4 * 0x0d)), (1 | effect::CONTROLLER_SCOPE, 0));
    let scope = effect::NAMESPACE_SCOPE;
    assert_eq!((of(1024 + 4), of(1024 + 8), of(1024 + 4 * 4)), (3 | scope, 1 | scope, 0));
    let supported = bench.data_of(&get_log(id::SUPPORTED, 1024, 0));
    let found: std::vec::Vec<_> =
        supported.chunks(4).enumerate().filter(|(_, entry)| entry[0] == 1).map(|(page, _)| page).collect();
    assert_eq!(found, [0, 1, 2, 3, 4, 5, 0x0c, 0x12, 0x13]);
}

#[test]
fn a_command_set_that_there_is_not_has_admin_commands_alone() {
    let mut bench = Bench::ready();
    let nvm = bench.data_of(&get_log(id::COMMAND_EFFECTS, 4096, 0));
    let mut zoned = get_log(id::COMMAND_EFFECTS, 4096, 0);
    zoned.cdw14.set(2 << 24);
    let zoned = bench.data_of(&zoned);
    assert_eq!(zoned[..1024], nvm[..1024]);
    assert!(zoned[1024..].iter().all(|&byte| byte == 0) && nvm[1024..].iter().any(|&byte| byte != 0));
}

/// Every command that the effects log claims is admitted as far as its fields, and no other is.
#[test]
fn the_effects_log_tells_the_truth() {
    let mut bench = Bench::ready();
    let effects = bench.data_of(&get_log(id::COMMAND_EFFECTS, 4096, 0));
    for opcode in (0..=255u8).filter(|&opcode| opcode != nvme::opcode::FABRICS) {
        let command = crate::testing::command(opcode, 7);
        for (queue, at) in [(bench.admin, 0), (bench.io, 1024)] {
            let claimed = effects[at + usize::from(opcode) * 4] & 1 != 0;
            let unknown = bench.subsystem.admit(&queue, &command).map_err(Status::code).err()
                == Some(Status::INVALID_OPCODE);
            assert_eq!(claimed, !unknown, "opcode {opcode:#x} at {at}");
        }
    }
}

#[test]
fn offsets_and_lengths_are_honoured() {
    let mut bench = Bench::ready();
    let whole = bench.data_of(&get_log(id::COMMAND_EFFECTS, 4096, 0));
    assert_eq!(bench.data_of(&get_log(id::COMMAND_EFFECTS, 64, 1024)), whole[1024..1088]);
    let beyond = bench.data_of(&get_log(id::COMMAND_EFFECTS, 12288, 1024));
    assert_eq!(beyond[..3072], whole[1024..]);
    assert!(beyond[3072..].iter().all(|&byte| byte == 0));
    assert_eq!(bench.data_of(&get_log(id::COMMAND_EFFECTS, 8, 4096)), [0; 8]);
    for offset in [4100, 2, 1 << 32, 1 << 63, u64::MAX - 3] {
        let command = get_log(id::COMMAND_EFFECTS, 64, offset);
        assert_eq!(bench.refusal_of(&command), Status::INVALID_FIELD, "{offset:#x}");
    }
    assert_eq!(bench.data_of(&get_log(id::ERROR, 1 << 20, 0)).len(), 1 << 20, "NUMDU counts");
    assert_eq!(bench.refusal_of(&get_log(id::ERROR, (1 << 20) + 4, 0)), Status::INVALID_FIELD);
    let longest = admin_command(admin::GET_LOG_PAGE, 0, 0xffff_0001, 0xffff);
    assert_eq!(bench.refusal_of(&longest), Status::INVALID_FIELD);
}

#[test]
fn other_pages_are_refused() {
    let mut bench = Bench::ready();
    for page in (6..=255).filter(|page| ![0x0c, 0x12, 0x13].contains(page)) {
        assert_eq!(bench.refusal_of(&get_log(page, 64, 0)), Status::INVALID_LOG_PAGE, "{page:#x}");
    }
    let mut by_index = get_log(id::ERROR, 64, 0);
    by_index.cdw14.set(1 << 23);
    assert_eq!(bench.refusal_of(&by_index), Status::INVALID_FIELD);
    let mut discovery = Bench::discovery();
    assert_eq!(discovery.refusal_of(&get_log(id::SMART, 64, 0)), Status::INVALID_LOG_PAGE);
}

#[test]
fn the_discovery_log_has_an_entry_for_each_listener() {
    let mut bench = Bench::discovery();
    let v6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4);
    bench.subsystem.set_listeners(&[
        Listener { port_id: PortId::FIRST, address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port: 4420 },
        Listener { port_id: PortId(2), address: IpAddr::V6(v6), port: 65535 },
    ]);
    let data = bench.data_of(&get_log(id::DISCOVERY, 4096, 0));
    let (header, rest) = DiscoveryHeader::read_from_prefix(&data).unwrap();
    assert_eq!((header.records.get(), header.generation.get(), header.format.get()), (4, 2, 0));
    let (first, rest) = DiscoveryEntry::read_from_prefix(rest).unwrap();
    assert_eq!((first.transport, first.address_family, first.subsystem_type), (3, 1, 2));
    assert_eq!(
        (first.requirements, first.controller_id.get()),
        (0b100, 0xffff),
        "a host that reads more asks for TLS"
    );
    assert!(first.admin_queue_entries.get() >= 32);
    assert_eq!(&first.transport_address[..10], b"10.0.0.1  ");
    assert_eq!(&first.service_id[..6], b"4420  ");
    assert_eq!(nvme::fabrics::nqn_text(&first.subsystem_nqn), Some(NQN));
    let (second, rest) = DiscoveryEntry::read_from_prefix(rest).unwrap();
    assert_eq!((second.address_family, &second.service_id[..6]), (2, &b"65535 "[..]));
    assert_eq!(&second.transport_address[..15], b"fe80::1:2:3:4  ");
    assert_ne!(first.port_id, second.port_id);
    assert_eq!(rest.len(), 1024);
    let tail = bench.data_of(&get_log(id::DISCOVERY, 4096, 1024 * 3));
    let (own, rest) = DiscoveryEntry::read_from_prefix(&tail).unwrap();
    let persistent = discovery_flag::DUPLICATE | discovery_flag::PERSISTENT;
    assert_eq!((own.subsystem_type, own.flags.get()), (3, persistent));
    assert_eq!(nvme::fabrics::nqn_text(&own.subsystem_nqn), Some(nvme::fabrics::DISCOVERY_NQN));
    assert_eq!((own.transport_address, own.port_id), (first.transport_address, first.port_id));
    assert_eq!(&own.service_id[..6], b"8009  ", "not the port for data");
    let (other, _) = DiscoveryEntry::read_from_prefix(rest).unwrap();
    assert_eq!((other.transport_address, &other.service_id[..6]), (second.transport_address, &b"8009  "[..]));
    assert!(rest[1024..].iter().all(|&byte| byte == 0));
    assert_eq!(bench.data_of(&get_log(id::DISCOVERY, 1024, 2048)), data[2048..3072]);
    assert_eq!(bench.refusal_of(&get_log(id::DISCOVERY, 4, 5124)), Status::INVALID_FIELD);
}

#[test]
fn pages_of_the_controller_take_no_namespace() {
    let mut bench = Bench::ready();
    for page in IO_PAGES.into_iter().filter(|&page| page != id::SMART) {
        let mut command = get_log(page, 64, 0);
        command.nsid.set(7);
        assert_eq!(bench.refusal_of(&command), Status::INVALID_FIELD, "{page:#x}");
        command.nsid.set(NSID_ALL);
        bench.data_of(&command);
    }
}

#[test]
fn the_log_of_features_says_which_there_are() {
    let mut bench = Bench::ready();
    let log = bench.data_of(&get_log(id::FEATURE_EFFECTS, 1024, 0));
    let of = |feature: u8| u32::from_le_bytes(log[usize::from(feature) * 4..][..4].try_into().unwrap());
    assert_eq!(of(nvme::features::ARBITRATION), effect::SUPPORTED | effect::CONTROLLER_SCOPE);
    assert_eq!(of(nvme::features::ERROR_RECOVERY), effect::SUPPORTED | effect::NAMESPACE_SCOPE);
    assert_eq!((of(nvme::features::INTERRUPT_VECTOR), of(0)), (0, 0));
    assert_eq!(bench.data_of(&get_log(id::MANAGEMENT_EFFECTS, 4096, 0)), [0; 4096]);
}
