//! Subsystems and allowed hosts: limits, names, and who may stay.

use super::*;
use crate::testing::{Bench, HOST, NQN};
use hal_api::Instant;
use nvme::Status;

const OTHER: &str = "nqn.2026-01.example:other";

fn bench() -> Bench {
    let mut bench = Bench::connected();
    bench.subsystem.make_room(DirectoryRoom::new(&mut Arena::leak_for_host(1 << 20)).unwrap());
    bench
}

fn setting(nqn: &str) -> SubsystemSetting {
    SubsystemSetting {
        nqn: nqn.try_into().unwrap(),
        serial: "S".try_into().unwrap(),
        model: "M".try_into().unwrap(),
        any_host: false,
    }
}

fn nqn(text: &str) -> Nqn {
    text.try_into().unwrap()
}

#[test]
fn a_card_without_room_has_the_default_subsystem_alone() {
    let mut bench = Bench::connected();
    assert_eq!(bench.subsystem.create_subsystem(&setting(OTHER)), Err(ChangeError::NotHere));
    assert_eq!(bench.subsystem.allow_host(NQN, &nqn(HOST)), Err(ChangeError::NotHere));
    assert_eq!(bench.subsystem.subsystems(SubsystemPlace::DEFAULT).count(), 1);
}

#[test]
fn names_are_those_that_hosts_can_say() {
    let mut bench = bench();
    for wrong in ["", "nqn.with\0zero", DISCOVERY_NQN] {
        assert_eq!(bench.subsystem.create_subsystem(&setting(wrong)), Err(ChangeError::InvalidName));
        assert_eq!(bench.subsystem.allow_host(NQN, &nqn(wrong)), Err(ChangeError::InvalidName));
    }
    for wrong in ["\u{e9}", "a\n", "blank "] {
        let serial = wrong.try_into().unwrap();
        let wrong = SubsystemSetting { serial, ..setting(OTHER) };
        assert_eq!(bench.subsystem.create_subsystem(&wrong), Err(ChangeError::InvalidName));
    }
}

#[test]
fn there_is_a_limit_of_subsystems_and_a_deleted_one_keeps_its_place_until_all_has_ended() {
    let mut bench = bench();
    for number in 1..MAX_SUBSYSTEMS {
        assert_eq!(bench.subsystem.create_subsystem(&setting(&std::format!("nqn.{number}"))), Ok(true));
    }
    assert_eq!(bench.subsystem.create_subsystem(&setting(OTHER)), Err(ChangeError::TooManySubsystems));
    assert_eq!(bench.subsystem.create_subsystem(&setting("nqn.7")), Ok(false), "it is there");
    assert_eq!(bench.subsystem.delete_subsystem("nqn.7"), Ok(Some(SubsystemPlace(7))));
    assert_eq!(bench.subsystem.delete_subsystem("nqn.7"), Ok(None));
    assert_eq!(bench.subsystem.create_subsystem(&setting(OTHER)), Err(ChangeError::TooManySubsystems));
    bench.subsystem.forget_deleted();
    assert_eq!(bench.subsystem.create_subsystem(&setting(OTHER)), Ok(true));
    assert_eq!(bench.subsystem.find_subsystem(OTHER), Some(SubsystemPlace(7)));
}

#[test]
fn a_host_takes_one_place_however_many_subsystems_allow_it_and_gives_it_back_with_the_last() {
    let mut bench = bench();
    bench.subsystem.create_subsystem(&setting(OTHER)).unwrap();
    let host = |number: usize| nqn(&std::format!("nqn.host{number}"));
    for number in 0..MAX_ALLOWED_HOSTS {
        assert_eq!(bench.subsystem.allow_host(OTHER, &host(number)), Ok(true));
        assert_eq!(bench.subsystem.allow_host(NQN, &host(number)), Ok(true));
    }
    assert_eq!(bench.subsystem.allow_host(OTHER, &host(5)), Ok(false));
    assert_eq!(bench.subsystem.allow_host(OTHER, &host(99)), Err(ChangeError::TooManyHosts));
    assert_eq!(bench.subsystem.disallow_host(NQN, &host(5)), Ok(true));
    assert_eq!(bench.subsystem.disallow_host(NQN, &host(5)), Ok(false));
    assert_eq!(bench.subsystem.allow_host(OTHER, &host(99)), Err(ChangeError::TooManyHosts));
    assert_eq!(bench.subsystem.disallow_host(OTHER, &host(5)), Ok(true));
    assert_eq!(bench.subsystem.allow_host(OTHER, &host(99)), Ok(true));
    let place = bench.subsystem.find_subsystem(OTHER).unwrap();
    assert!(bench.subsystem.allowed_hosts(place).any(|(number, known)| number == 5 && *known == host(99)));
    assert_eq!(bench.subsystem.allowed_hosts(place).count(), MAX_ALLOWED_HOSTS);
}

#[test]
fn only_controllers_of_hosts_that_may_not_stay_end() {
    let mut bench = bench();
    bench.subsystem.create_subsystem(&setting(OTHER)).unwrap();
    bench.subsystem.allow_host(OTHER, &nqn(HOST)).unwrap();
    let other = bench.connect(OTHER, HOST, 0, 0xffff).unwrap().controller;
    let refused = bench.connect(OTHER, "nqn.another", 0, 0xffff).unwrap_err();
    assert_eq!(refused.status, Status::CONNECT_INVALID_HOST.do_not_retry());
    assert_eq!(bench.subsystem.end_unwelcome(), 0);
    bench.subsystem.disallow_host(OTHER, HOST).unwrap();
    assert_eq!(bench.subsystem.end_unwelcome(), 1);
    assert!(!bench.subsystem.is_live(other) && bench.subsystem.is_live(bench.admin.controller));
    bench.subsystem.set_any_host(NQN, false).unwrap();
    assert_eq!(bench.subsystem.end_unwelcome(), 1);
}

#[test]
fn a_loss_is_told_wherever_the_namespace_is() {
    let mut bench = bench();
    bench.subsystem.create_subsystem(&SubsystemSetting { any_host: true, ..setting(OTHER) }).unwrap();
    let place = bench.subsystem.find_subsystem(OTHER).unwrap();
    let moved = crate::Namespace { subsystem: place, nsid: 1, ..crate::testing::namespace(900) };
    bench.subsystem.attach(moved).unwrap();
    let connected = bench.connect(OTHER, HOST, 0, 0xffff).unwrap();
    bench.subsystem.note_lost_writes(900, Instant::from_millis(5));
    assert!(!bench.subsystem.take_lost_writes(connected.controller, 1), "that is an NSID, not a key");
    assert!(bench.subsystem.take_lost_writes(connected.controller, 900));
}
