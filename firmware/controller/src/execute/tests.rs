//! Asynchronous events, Abort, and the order of things around a reset.

use super::*;
use crate::EndedRequest;
use crate::config::MAX_CHANGED_NAMESPACES;
use crate::testing::{Bench, admin_command, command, get_log, namespace, property_set, read};
use nvme::log_page::id;
use nvme::registers::offset;
use nvme::{NSID_ALL, features};

const NAMESPACE_CHANGED: u64 = 2 | 4 << 16;
const DISCOVERY_CHANGED: u64 = 2 | 0xf0 << 8 | 0x70 << 16;

fn park(bench: &mut Bench, cid: u16) -> Outcome {
    let mut request = command(admin::ASYNC_EVENT_REQUEST, 0);
    request.cid.set(cid);
    bench.execute_admin(&request)
}

fn enable_events(bench: &mut Bench, mask: u32) {
    let feature = u32::from(features::ASYNC_EVENT_CONFIGURATION);
    let set = admin_command(admin::SET_FEATURES, 0, feature, mask);
    assert_eq!(bench.execute_admin(&set), Outcome::done(0));
}

fn next(bench: &mut Bench) -> Option<EndedRequest> {
    bench.subsystem.take_event(bench.admin.controller, bench.now)
}

#[test]
fn a_namespace_change_is_told_once_until_its_log_is_read() {
    let mut bench = Bench::ready();
    enable_events(&mut bench, 1 << 8);
    assert_eq!(park(&mut bench, 1), Outcome::Parked);
    assert_eq!(park(&mut bench, 2), Outcome::Parked);
    assert_eq!(next(&mut bench), None);
    bench.subsystem.attach(namespace(40)).unwrap();
    let told = EndedRequest { token: 1001, status: Status::SUCCESS, result: NAMESPACE_CHANGED };
    assert_eq!(next(&mut bench), Some(told));
    bench.subsystem.detach(7);
    assert_eq!(next(&mut bench), None, "masked");
    let mut retaining = get_log(id::CHANGED_NAMESPACES, 4096, 0);
    retaining.cdw10.set(retaining.cdw10.get() | 1 << 15);
    for command in [retaining, get_log(id::CHANGED_NAMESPACES, 4096, 0)] {
        assert_eq!(next(&mut bench), None, "reading with RAE does not lift the mask");
        let list = bench.data_of(&command);
        assert_eq!(list[..12], [7, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(next(&mut bench).map(|ended| ended.token), Some(1002));
    assert_eq!(bench.data_of(&get_log(id::CHANGED_NAMESPACES, 4096, 0)), [0; 4096]);
}

#[test]
fn events_that_were_not_asked_for_are_not_told() {
    let mut bench = Bench::ready();
    assert_eq!(park(&mut bench, 1), Outcome::Parked);
    bench.subsystem.attach(namespace(40)).unwrap();
    assert_eq!(next(&mut bench), None);
    assert_eq!(bench.data_of(&get_log(id::CHANGED_NAMESPACES, 8, 0))[0], 40, "the list is kept all the same");
}

#[test]
fn an_event_waits_for_a_request() {
    let mut bench = Bench::ready();
    enable_events(&mut bench, 1 << 8);
    bench.subsystem.detach(3);
    assert_eq!(next(&mut bench), None);
    assert_eq!(park(&mut bench, 9), Outcome::Parked);
    assert_eq!(next(&mut bench).map(|ended| ended.token), Some(1009));
}

#[test]
fn each_host_has_events_of_its_own() {
    let mut bench = Bench::ready();
    let other = bench.connect(crate::testing::NQN, "nqn.other", 0, 0xffff).unwrap().controller;
    enable_events(&mut bench, 1 << 8);
    park(&mut bench, 1);
    bench.subsystem.detach(3);
    assert_eq!(bench.subsystem.take_event(other, bench.now), None);
    assert!(next(&mut bench).is_some());
}

#[test]
fn too_many_changes_are_told_as_such() {
    let mut bench = Bench::ready();
    for nsid in 100..=100 + MAX_CHANGED_NAMESPACES as u32 {
        bench.subsystem.attach(namespace(nsid)).unwrap();
        bench.subsystem.detach(nsid);
    }
    let list = bench.data_of(&get_log(id::CHANGED_NAMESPACES, 4096, 0));
    assert_eq!(list[..4], NSID_ALL.to_le_bytes());
    assert!(list[4..].iter().all(|&byte| byte == 0));
}

#[test]
fn discovery_hosts_hear_of_listeners() {
    let mut bench = Bench::discovery();
    enable_events(&mut bench, 1 << 31);
    park(&mut bench, 5);
    bench.subsystem.detach(7);
    assert_eq!(next(&mut bench), None);
    let address = core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);
    bench.subsystem.set_listeners(&[crate::Listener { port_id: crate::PortId::FIRST, address, port: 1 }]);
    assert_eq!(next(&mut bench).map(|ended| ended.result), Some(DISCOVERY_CHANGED));
}

#[test]
fn the_fifth_request_is_one_too_many() {
    let mut bench = Bench::ready();
    for cid in 0..4 {
        assert_eq!(park(&mut bench, cid), Outcome::Parked);
    }
    let limit = Outcome::failed(Status::ASYNC_EVENT_LIMIT_EXCEEDED.do_not_retry());
    assert_eq!(park(&mut bench, 4), limit);
    bench.subsystem.forget_parked(bench.admin.controller);
    assert_eq!(park(&mut bench, 5), Outcome::Parked);
    assert_eq!(next(&mut bench), None);
}

#[test]
fn abort_ends_a_parked_request_and_nothing_else() {
    let mut bench = Bench::ready();
    park(&mut bench, 3);
    park(&mut bench, 4);
    let abort = |queue: u32, cid: u32| admin_command(admin::ABORT, 0, queue | cid << 16, 0);
    assert_eq!(bench.execute_admin(&abort(0, 9)), Outcome::done(1));
    assert_eq!(bench.execute_admin(&abort(1, 4)), Outcome::done(1));
    assert_eq!(next(&mut bench), None);
    assert_eq!(bench.execute_admin(&abort(0, 4)), Outcome::done(0));
    assert_eq!(bench.execute_admin(&abort(0, 4)), Outcome::done(1), "twice");
    let aborted = EndedRequest { token: 1004, status: Status::ABORT_REQUESTED, result: 0 };
    assert_eq!(next(&mut bench), Some(aborted));
    assert_eq!(next(&mut bench), None);
}

#[test]
fn a_reset_ends_parked_requests_and_forgets_settings() {
    let mut bench = Bench::ready();
    enable_events(&mut bench, 1 << 8);
    park(&mut bench, 1);
    park(&mut bench, 2);
    assert_eq!(bench.execute_admin(&property_set(offset::CC, 4, 0)), Outcome::ControllerReset);
    for token in [1001, 1002] {
        let ended = EndedRequest { token, status: Status::ABORTED_SQ_DELETION, result: 0 };
        assert_eq!(next(&mut bench), Some(ended));
    }
    assert_eq!(next(&mut bench), None);
    bench.enable();
    park(&mut bench, 3);
    bench.subsystem.detach(3);
    assert_eq!(next(&mut bench), None, "events are off again");
}

#[test]
fn data_that_did_not_come_whole_is_an_error() {
    let mut bench = Bench::ready();
    let set = admin_command(admin::SET_FEATURES, 0, u32::from(features::TIMESTAMP), 0);
    let (outcome, _) = bench.run(&set, &[0; 7]);
    assert_eq!(outcome, Outcome::failed(Status::DATA_TRANSFER_ERROR));
}

#[test]
fn what_is_not_the_cards_own_reads_as_zeros() {
    let bench = Bench::ready();
    let mut into = [7u8; 100];
    bench.subsystem.fill(&bench.io, &read(7, 0, 1), 0, &mut into, &bench.backend);
    assert_eq!(into, [0; 100]);
}

/// Health of drive 0 as it tells it.
fn set_health(bench: &mut Bench, critical_warning: u8, temperature_k: u16) {
    let mut log: nvme::log_page::SmartLog = zerocopy::FromZeros::new_zeroed();
    log.critical_warning = critical_warning;
    log.temperature_k.set(temperature_k);
    bench.backend.smart = std::vec![(0, log)];
    bench.subsystem.watch_health(&bench.backend);
}

const SPARE: u64 = 1 | 2 << 8 | 2 << 16;
const TEMPERATURE: u64 = 1 | 1 << 8 | 2 << 16;
const RELIABILITY: u64 = 1 | 2 << 16;

#[test]
fn a_critical_warning_is_told_when_it_comes_and_again_when_it_comes_back() {
    let mut bench = Bench::ready();
    enable_events(&mut bench, 0b1111);
    for cid in 0..4 {
        park(&mut bench, cid);
    }
    set_health(&mut bench, 0, 300);
    assert_eq!(next(&mut bench), None);
    set_health(&mut bench, 1, 300);
    assert_eq!(next(&mut bench).map(|ended| ended.result), Some(SPARE));
    set_health(&mut bench, 1 | 1 << 3, 300);
    assert_eq!(next(&mut bench), None, "all of the log page is masked until it is read");
    bench.data_of(&get_log(id::SMART, 512, 0));
    assert_eq!(next(&mut bench).map(|ended| ended.result), Some(RELIABILITY));
    bench.data_of(&get_log(id::SMART, 512, 0));
    set_health(&mut bench, 1 | 1 << 3, 300);
    assert_eq!(next(&mut bench), None, "nothing has changed");
    set_health(&mut bench, 0, 300);
    assert_eq!(next(&mut bench), None, "that a warning has gone is no event");
    set_health(&mut bench, 1, 300);
    assert_eq!(next(&mut bench).map(|ended| ended.result), Some(SPARE));
}

#[test]
fn temperatures_are_held_against_the_thresholds_of_each_host() {
    let mut bench = Bench::ready();
    enable_events(&mut bench, 0b10);
    park(&mut bench, 0);
    park(&mut bench, 1);
    set_health(&mut bench, 1, 320);
    assert_eq!(next(&mut bench), None, "below the default, and spare was not asked for");
    let feature = u32::from(features::TEMPERATURE_THRESHOLD);
    bench.result_of(&admin_command(admin::SET_FEATURES, 0, feature, 320), &[]);
    set_health(&mut bench, 1, 320);
    assert_eq!(next(&mut bench).map(|ended| ended.result), Some(TEMPERATURE));
    bench.data_of(&get_log(id::SMART, 512, 0));
    set_health(&mut bench, 0, 319);
    bench.result_of(&admin_command(admin::SET_FEATURES, 0, feature, 1 << 20 | 310), &[]);
    set_health(&mut bench, 0, 310);
    assert_eq!(next(&mut bench).map(|ended| ended.result), Some(TEMPERATURE), "too cold");
}

#[test]
fn a_warning_that_is_on_is_told_once_it_is_asked_for() {
    let mut bench = Bench::ready();
    park(&mut bench, 0);
    set_health(&mut bench, 1 << 2, 300);
    assert_eq!(next(&mut bench), None);
    for cid in 1..3 {
        enable_events(&mut bench, 1 << 2);
        set_health(&mut bench, 1 << 2, 300);
        assert_eq!(next(&mut bench).map(|ended| ended.result), Some(RELIABILITY));
        bench.data_of(&get_log(id::SMART, 512, 0));
        // Asked for anew, it is told anew.
        enable_events(&mut bench, 0);
        set_health(&mut bench, 1 << 2, 300);
        park(&mut bench, cid);
    }
}
