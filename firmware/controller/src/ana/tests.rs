//! ANA: the log page, I/O in each state, events.

use super::*;
use crate::testing::{
    Bench, HOST, NQN, admin_command, command, connect_parts, get_log, identify, namespace, read,
};
use crate::{ControllerHandle, Origin, Outcome};
use nvme::identify::{IdentifyNamespace, IndependentNamespace, cns};
use nvme::log_page::id;
use nvme::opcode::{admin, io};
use zerocopy::FromBytes;

const STATES: [AnaState; 5] = [
    AnaState::NonOptimized,
    AnaState::Inaccessible,
    AnaState::PersistentLoss,
    AnaState::Change,
    AnaState::Optimized,
];

fn log(bench: &mut Bench, bytes: u32) -> (AnaHeader, AnaGroup, std::vec::Vec<u8>) {
    let data = bench.data_of(&get_log(id::ANA, bytes, 0));
    let (header, rest) = AnaHeader::read_from_prefix(&data).unwrap();
    let (group, rest) = AnaGroup::read_from_prefix(rest).unwrap();
    (header, group, rest.to_vec())
}

#[test]
fn one_group_has_all_namespaces() {
    let mut bench = Bench::ready();
    let (header, group, nsids) = log(&mut bench, 64);
    assert_eq!((header.groups.get(), group.group.get(), group.namespaces.get(), group.state), (1, 1, 2, 1));
    assert_eq!(nsids, [3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for nsid in [3, 7] {
        let page = bench.data_of(&identify(cns::NAMESPACE, nsid));
        assert_eq!(IdentifyNamespace::read_from_bytes(&page).unwrap().ana_group.get(), group.group.get());
        let page = bench.data_of(&identify(cns::INDEPENDENT_NAMESPACE, nsid));
        assert_eq!(IndependentNamespace::read_from_prefix(&page).unwrap().0.ana_group.get(), 1);
    }
    bench.subsystem.attach(namespace(5)).unwrap();
    let (changed, group, nsids) = log(&mut bench, 64);
    assert!(changed.change_count.get() > header.change_count.get());
    assert_eq!((group.namespaces.get(), &nsids[..12]), (3, &[3, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0][..]));
}

#[test]
fn groups_come_alone_where_asked_for_so_and_parts_fit_together() {
    let mut bench = Bench::ready();
    let mut only = get_log(id::ANA, 48, 0);
    only.cdw10.set(only.cdw10.get() | GROUPS_ONLY);
    let data = bench.data_of(&only);
    let (group, _) = AnaGroup::read_from_prefix(&data[16..]).unwrap();
    assert_eq!((group.namespaces.get(), group.state), (0, 1));
    let mut beyond = get_log(id::ANA, 4, 52);
    assert_eq!(bench.data_of(&beyond), 7u32.to_le_bytes());
    beyond.cdw10.set(beyond.cdw10.get() | GROUPS_ONLY);
    assert_eq!(bench.refusal_of(&beyond), Status::INVALID_FIELD, "beyond the end of the shorter page");
    let whole = bench.data_of(&get_log(id::ANA, 56, 0));
    let pieces: std::vec::Vec<u8> =
        (0..7).flat_map(|piece| bench.data_of(&get_log(id::ANA, 8, piece * 8))).collect();
    assert_eq!(whole, pieces);
    assert_eq!(bench.refusal_of(&get_log(id::ANA, 4, 60)), Status::INVALID_FIELD);
}

#[test]
fn io_ends_with_the_status_of_its_path_and_may_be_tried_again() {
    let mut bench = Bench::ready();
    for state in STATES {
        assert!(bench.subsystem.set_ana_state(PortId::FIRST, state));
        let expected = match state {
            AnaState::Optimized | AnaState::NonOptimized => None,
            AnaState::Inaccessible => Some(Status::ANA_INACCESSIBLE),
            AnaState::PersistentLoss => Some(Status::ANA_PERSISTENT_LOSS),
            AnaState::Change => Some(Status::ANA_TRANSITION),
        };
        for command in [read(7, 0, 1), read(7, 5000, 1), command(io::FLUSH, 3)] {
            let found = bench.subsystem.admit(&bench.io, &command).err();
            match expected {
                Some(status) => assert_eq!(found, Some(status), "without DNR"),
                None => assert!(found.is_none_or(|status| status.code() == Status::LBA_OUT_OF_RANGE)),
            }
        }
        let missing = bench.io_refusal(&read(4, 0, 1));
        assert_eq!(missing, Status::INVALID_NAMESPACE, "whatever the path");
        let page = bench.data_of(&identify(cns::NAMESPACE, 7));
        let page = IdentifyNamespace::read_from_bytes(&page).unwrap();
        let used = if expected.is_none() { 1000 } else { 0 };
        assert_eq!((page.size_blocks.get(), page.used_blocks.get()), (1000, used));
        assert_eq!(log(&mut bench, 48).1.state, state as u8);
    }
}

/// A second host by port 2.
fn second_host(bench: &mut Bench) -> ControllerHandle {
    let (command, data) = connect_parts(NQN, HOST, 0, 0xffff);
    bench.subsystem.connect(bench.now, Origin::by(PortId(2)), &command, &data).unwrap().controller
}

#[test]
fn a_change_is_told_to_the_hosts_of_its_port_alone() {
    let mut bench = Bench::ready();
    let other = second_host(&mut bench);
    let feature = u32::from(nvme::features::ASYNC_EVENT_CONFIGURATION);
    for handle in [other, bench.admin.controller] {
        bench.admin.controller = handle;
        if !bench.controller().is_ready() {
            bench.enable();
        }
        bench.result_of(&admin_command(admin::SET_FEATURES, 0, feature, 1 << 11), &[]);
        for cid in 0..2 {
            let mut request = command(admin::ASYNC_EVENT_REQUEST, 0);
            request.cid.set(cid);
            assert_eq!(bench.execute_admin(&request), Outcome::Parked);
        }
    }
    let event = |bench: &mut Bench, handle| bench.subsystem.take_event(handle, bench.now).map(|e| e.result);
    bench.subsystem.attach(namespace(5)).unwrap();
    let first = bench.admin.controller;
    assert_eq!(event(&mut bench, first), None, "namespaces have an event of their own");
    assert!(bench.subsystem.set_ana_state(PortId::FIRST, AnaState::NonOptimized));
    assert!(!bench.subsystem.set_ana_state(PortId::FIRST, AnaState::NonOptimized));
    assert_eq!(event(&mut bench, first), Some(2 | 3 << 8 | 0x0c << 16));
    assert_eq!(event(&mut bench, other), None);
    assert_eq!(bench.subsystem.ana_state(PortId(2)), AnaState::Optimized);
    bench.subsystem.set_ana_state(PortId::FIRST, AnaState::Optimized);
    assert_eq!(event(&mut bench, first), None, "masked until the log is read");
    log(&mut bench, 48);
    assert!(event(&mut bench, first).is_some());
}

#[test]
fn ports_that_are_not_there_have_no_state() {
    let mut bench = Bench::ready();
    for port in [PortId(0), PortId(MAX_LISTENERS as u16 + 1), PortId(u16::MAX)] {
        assert!(!bench.subsystem.set_ana_state(port, AnaState::Inaccessible), "{port:?}");
    }
    assert_eq!(bench.subsystem.ana_state(PortId::FIRST), AnaState::Optimized);
}
