//! What a drive can do wrong beside hanging: each is contained, counted, and mended where the drive can be.

use hal_fakes::NvmeAbort;
use nvme::Status;
use nvme::opcode::{admin, io};

use super::*;
use crate::limits::{ABORT_TIMEOUT, COMMAND_TIMEOUT};
use crate::status::INTERRUPTED;

fn read(rig: &mut Rig, token: u32) {
    let pages = rig.pages_with(&[0; 512]);
    rig.submit(IoRequest { token, ..request(Operation::Read, 0, 1, pages) }).expect("room");
}

fn give_back_ended(rig: &mut Rig) -> Vec<(u32, Status)> {
    let ended = std::mem::take(&mut rig.ended);
    let told = ended.iter().map(|ended| (ended.token, ended.status)).collect();
    ended.into_iter().filter_map(|ended| ended.pages).for_each(|pages| rig.pool.give_back(pages));
    told
}

fn inject_admin(rig: &Rig, opcode: u8, count: u32, effect: NvmeEffect) {
    rig.control.inject(NvmeInjection { queue: Some(0), opcode: Some(opcode), skip: 0, count, effect });
}

#[test]
fn an_abort_that_works_spares_the_neighbours() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    rig.control.set_abort(NvmeAbort::Works);
    rig.inject(io::READ, 2, NvmeEffect::Never);
    read(&mut rig, 1);
    read(&mut rig, 2);
    rig.turn();
    rig.now = rig.now + COMMAND_TIMEOUT;
    // A young command at the same time.
    rig.control.reconfigure(|config| config.latency_polls = (50, 50));
    read(&mut rig, 3);
    rig.run_until(|rig| rig.ended.len() == 3);
    let mut ended = give_back_ended(&mut rig);
    ended.sort_by_key(|&(token, _)| token);
    assert_eq!(ended, [(1, INTERRUPTED), (2, INTERRUPTED), (3, Status::SUCCESS)]);
    let counters = rig.drive.counters();
    assert_eq!((counters.command_timeouts, counters.aborted, counters.resets), (2, 2, 0));
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
}

#[test]
fn a_late_command_that_ends_after_its_abort_was_refused_has_ended() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_abort(NvmeAbort::TooLate);
    rig.inject(io::READ, 1, NvmeEffect::Never);
    read(&mut rig, 1);
    rig.turn();
    rig.now = rig.now + COMMAND_TIMEOUT;
    rig.run_until(|rig| !rig.ended.is_empty());
    assert_eq!(give_back_ended(&mut rig), [(1, Status::SUCCESS)]);
    let counters = rig.drive.counters();
    assert_eq!((counters.command_timeouts, counters.aborted, counters.resets), (1, 0, 0));
}

#[test]
fn an_abort_that_hangs_or_lies_ends_in_a_reset() {
    for effect in [NvmeEffect::Never, NvmeEffect::Status(0), NvmeEffect::Status(0x4002)] {
        let mut rig = Rig::ready(NvmeConfig::default());
        inject_admin(&rig, admin::ABORT, 1, effect);
        rig.inject(io::READ, 1, NvmeEffect::Never);
        read(&mut rig, 1);
        rig.turn();
        for wait in [COMMAND_TIMEOUT, ABORT_TIMEOUT] {
            assert_eq!(rig.drive.counters().resets, 0);
            rig.now = rig.now + wait;
            rig.turn();
            rig.turn();
        }
        rig.run_until(|rig| rig.drive.is_ready());
        assert_eq!(rig.drive.counters().resets, 1);
        assert_eq!(give_back_ended(&mut rig), [(1, INTERRUPTED)]);
    }
}

#[test]
fn many_late_commands_are_one_story() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_abort(NvmeAbort::Works);
    rig.inject(io::READ, 100, NvmeEffect::Never);
    for token in 0..100 {
        read(&mut rig, token);
    }
    rig.turn();
    rig.now = rig.now + COMMAND_TIMEOUT;
    rig.run_until(|rig| rig.ended.len() == 100);
    assert_eq!((rig.drive.counters().aborted, rig.drive.counters().resets), (100, 0));
}

#[test]
fn wrong_phases_and_ignored_doorbells_end_in_a_reset_that_mends() {
    for deaf in [false, true] {
        let mut rig = Rig::ready(NvmeConfig::default());
        let free = rig.pool.free();
        rig.control.set_deaf(deaf);
        if !deaf {
            rig.inject(io::READ, 1, NvmeEffect::WrongPhase);
        }
        for token in 0..3 {
            read(&mut rig, token);
        }
        rig.turn();
        rig.turn();
        rig.be_late();
        assert_eq!(rig.drive.counters().resets, 1);
        rig.control.set_deaf(false);
        rig.run_until(|rig| rig.drive.is_ready());
        // What was seen before the wrong phase has succeeded.
        assert!(give_back_ended(&mut rig).iter().any(|&(_, status)| status == INTERRUPTED));
        read(&mut rig, 9);
        rig.run_until(|rig| !rig.ended.is_empty());
        assert_eq!(give_back_ended(&mut rig), [(9, Status::SUCCESS)]);
        assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
    }
}

#[test]
fn heads_beyond_the_queue_mean_nothing() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.inject(io::READ, 50, NvmeEffect::WrongHead);
    for token in 0..50 {
        read(&mut rig, token);
    }
    rig.run_until(|rig| rig.ended.len() == 50);
    assert!(give_back_ended(&mut rig).iter().all(|&(_, status)| status == Status::SUCCESS));
}

#[test]
fn a_drive_that_stays_deaf_is_tried_again_until_it_hears() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_deaf(true);
    read(&mut rig, 1);
    rig.turn();
    rig.be_late();
    for _ in 0..20 {
        rig.pass(31);
        for _ in 0..20 {
            rig.turn();
        }
        assert!(!rig.drive.is_ready());
    }
    // Lost, and why: once.
    assert_eq!(rig.events.len(), 2, "{:?}", rig.events);
    assert_eq!(rig.drive.counters().failures, 1);
    rig.control.set_deaf(false);
    for _ in 0..100 {
        rig.pass(1);
        for _ in 0..20 {
            rig.turn();
        }
    }
    assert!(rig.drive.is_ready());
}

/// Keeps 200 requests at a drive that ends one after another, about four in a second: how many succeeded and failed.
fn load_slow_drive(rig: &mut Rig, operation: Operation) -> (usize, usize) {
    let (mut token, mut succeeded, mut failed) = (0, 0, 0);
    rig.control.set_serial(true);
    rig.control.reconfigure(|config| config.latency_polls = (2, 2));
    let end = rig.now + Duration::from_secs(300);
    while rig.now < end {
        while rig.drive.outstanding() < 200 {
            let pages = rig.pages_with(&[0; 512]);
            rig.submit(IoRequest { token, ..request(operation, 0, 1, pages) }).expect("room");
            token += 1;
        }
        // The fake counts time in polls, of which there are about three in a turn.
        rig.now = rig.now + Duration::from_millis(250);
        rig.turn();
        for (_, status) in give_back_ended(rig) {
            let count = if status == Status::SUCCESS { &mut succeeded } else { &mut failed };
            *count += 1;
        }
    }
    (succeeded, failed)
}

#[test]
fn a_slow_drive_is_not_reset() {
    let mut rig = Rig::ready(NvmeConfig { queue_entries: 256, ..NvmeConfig::default() });
    let (succeeded, failed) = load_slow_drive(&mut rig, Operation::Read);
    let counters = rig.drive.counters();
    assert_eq!((counters.resets, counters.failures), (0, 0), "{counters:?}");
    // What waits too long in the card is told so; the drive works all the time.
    assert!(succeeded > 500, "{succeeded} succeeded, {failed} failed, {counters:?}");
}

#[test]
fn writes_to_a_slow_drive_cost_one_reset_at_most() {
    let mut rig = Rig::ready(NvmeConfig { queue_entries: 256, ..NvmeConfig::default() });
    let (succeeded, failed) = load_slow_drive(&mut rig, Operation::Write);
    let counters = rig.drive.counters();
    // What was at the drive before it was known to be slow; what a host was told of must not be written later.
    assert!(counters.resets <= 1 && counters.failures == 0, "{counters:?}");
    assert!(succeeded > 500, "{succeeded} succeeded, {failed} failed, {counters:?}");
}

#[test]
fn statuses_of_every_class_are_answered_and_counted() {
    let mut rig = Rig::ready(NvmeConfig::default());
    for class in 0..8u16 {
        for code in [0x01, 0x20, 0x80, 0x81, 0xff] {
            for flags in [0, 0x4000, 0x2000, 0x1800] {
                let status = flags | class << 8 | code;
                rig.inject(io::READ, 1, NvmeEffect::Status(status));
                read(&mut rig, 1);
                rig.run_until(|rig| !rig.ended.is_empty());
                let [(_, told)] = give_back_ended(&mut rig)[..] else { panic!("one") };
                assert!(!told.is_success(), "{status:#06x}");
                // CRD and MORE are the drive's; DNR is the host's business.
                assert_eq!(told.to_field() & 0x7800, flags & 0x4000, "{status:#06x}");
            }
        }
    }
    let counters = rig.drive.counters();
    assert_eq!((counters.media_errors, counters.other_errors), (20, 140));
}

#[test]
fn a_namespace_that_grows_is_seen_without_a_reset() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.run_until(|rig| rig.drive.awaits_event());
    rig.control.reconfigure(|config| {
        config.namespaces[0].blocks *= 2;
        config.namespaces.push(hal_fakes::NvmeNamespace::new(5, 64, 9));
        config.latency_polls = (2000, 2000);
    });
    // One under way and one that comes meanwhile are not touched.
    read(&mut rig, 1);
    rig.turn();
    rig.control.raise_event(0x04_0002);
    rig.control.reconfigure(|config| config.latency_polls = (0, 0));
    rig.run_until(|rig| rig.events.len() == 3);
    assert_eq!(rig.events[0], DriveEvent::NamespaceGone { nsid: 1 });
    let found: Vec<_> = rig.namespaces().iter().map(|info| (info.nsid, info.blocks)).collect();
    assert_eq!(found, [(1, 32768), (5, 64)]);
    rig.run_until(|rig| !rig.ended.is_empty());
    assert_eq!(give_back_ended(&mut rig), [(1, Status::SUCCESS)]);
    assert_eq!((rig.drive.counters().resets, rig.drive.counters().events), (0, 1));
    // The next one is told as well.
    rig.run_until(|rig| rig.drive.awaits_event());
    rig.control.reconfigure(|config| config.namespaces.truncate(1));
    rig.control.raise_event(0x04_0002);
    rig.run_until(|rig| rig.events.contains(&DriveEvent::NamespaceGone { nsid: 5 }));
}

#[test]
fn a_health_warning_is_read_at_once() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.run_until(|rig| rig.drive.awaits_event());
    rig.control.set_critical_warning(0x04);
    let began = rig.now;
    rig.run_until(|rig| rig.drive.smart().is_some_and(|smart| smart.critical_warning == 0x04));
    assert!(rig.now.since(began) < Duration::from_secs(1));
    rig.control.raise_event(0x01_0000);
    rig.control.raise_event(0xc0_1207);
    rig.run_until(|rig| rig.drive.counters().events == 3);
    rig.run_until(|rig| rig.drive.awaits_event());
}

#[test]
fn a_drive_that_ends_each_event_request_at_once_is_asked_once_a_second() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let began = rig.now;
    while rig.now.since(began) < Duration::from_secs(5) {
        if rig.drive.awaits_event() {
            rig.control.raise_event(0xc0_1207);
        }
        rig.turn();
    }
    assert!((3..=6).contains(&rig.drive.counters().events), "{}", rig.drive.counters().events);
}

#[test]
fn a_drive_that_takes_no_event_requests_works() {
    let mut rig = Rig::new(NvmeConfig::default());
    inject_admin(&rig, admin::ASYNC_EVENT_REQUEST, u32::MAX, NvmeEffect::Status(0x4001));
    inject_admin(&rig, admin::SET_FEATURES, 1, NvmeEffect::Status(0x4002));
    rig.run_until(|rig| rig.drive.is_ready());
    for _ in 0..100 {
        rig.turn();
    }
    assert!(!rig.drive.awaits_event() && rig.drive.is_ready());
    read(&mut rig, 1);
    rig.run_until(|rig| !rig.ended.is_empty());
}
