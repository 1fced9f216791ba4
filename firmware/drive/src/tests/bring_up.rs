//! Bring-up: every kind of drive that should work does, the others say why not and come back when mended.

use hal_fakes::{NvmeConfig, NvmeNamespace};

use super::*;
use crate::{FailReason, RefusalReason};

#[test]
fn a_plain_drive_is_found_with_its_identity() {
    let mut rig = Rig::new(NvmeConfig::default());
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    let [found] = rig.namespaces()[..] else { panic!("{:?}", rig.events) };
    let given = NvmeNamespace::new(1, 16384, 9);
    assert_eq!((found.nsid, found.blocks, found.block_shift), (1, 16384, 9));
    assert_eq!((found.nguid, found.uuid), (given.nguid, given.uuid));
    assert!(found.volatile_write_cache && found.drive.serial.starts_with(b"FAKE0001"));
    assert_eq!(rig.drive.smart().unwrap().temperature_k.get(), 310);
    assert_eq!(rig.drive.address(), 0x18);
}

#[test]
fn unusual_but_good_drives_work() {
    let plain = NvmeConfig::default;
    let unusual = [
        NvmeConfig { io_queues_granted: 1, ..plain() },
        NvmeConfig { max_queue_entries: 2, ..plain() },
        NvmeConfig { queue_entries: 1024, ..plain() },
        NvmeConfig { mdts: 0, ..plain() },
        NvmeConfig { nvm_controller_data: false, ..plain() },
        NvmeConfig { ready_timeout: 0, ready_timeouts: Some(20), ready_polls: 50, ..plain() },
        NvmeConfig { version: 0x0001_0000, ..plain() },
        NvmeConfig { latency_polls: (3, 30), ..plain() },
    ];
    for config in unusual {
        let mut rig = Rig::ready(config);
        let data = vec![0x3c; 64 * 512];
        let pages = rig.pages_with(&data);
        assert_eq!(rig.execute(request(Operation::Write, 5, 64, pages)).0, 0);
        assert_eq!(rig.control.read_disk(1, 5 * 512, data.len()), data);
    }
}

#[test]
fn namespaces_that_cannot_be_served_are_refused_by_reason() {
    let mut namespaces: Vec<_> = (1..=6).map(|nsid| NvmeNamespace::new(nsid, 64, 12)).collect();
    namespaces[1].metadata_bytes = 8;
    namespaces[2].protection = 1;
    namespaces[3].command_set = 2;
    namespaces[4].block_shift = 13;
    let mut rig = Rig::new(NvmeConfig { namespaces, ..NvmeConfig::default() });
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    let found: Vec<u32> = rig.namespaces().iter().map(|info| info.nsid).collect();
    assert_eq!(found, [1, 6]);
    let refused = [
        (2, RefusalReason::Metadata),
        (3, RefusalReason::ProtectionInformation),
        (4, RefusalReason::Zoned),
        (5, RefusalReason::BlockSize),
    ];
    for (nsid, reason) in refused {
        assert!(rig.events.contains(&DriveEvent::NamespaceRefused { nsid, reason }), "{nsid}");
    }
}

#[test]
fn holes_are_skipped_and_too_many_are_left_out() {
    let namespaces: Vec<_> = (1..=40).map(|index| NvmeNamespace::new(index * 3, 8, 12)).collect();
    for version in [0x0001_0000, 0x0001_0400] {
        let namespaces = namespaces.clone();
        let mut rig = Rig::new(NvmeConfig { namespaces, version, ..NvmeConfig::default() });
        rig.run_until(|rig| rig.drive.is_ready());
        rig.turn();
        assert_eq!(rig.namespaces().len(), 40);
    }
    // More than one list of 1024, of which the first 64 are kept.
    let namespaces = (1..=1100).map(|nsid| NvmeNamespace::new(nsid, 1, 9)).collect();
    let mut rig = Rig::new(NvmeConfig { namespaces, ..NvmeConfig::default() });
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    assert_eq!(rig.namespaces().len(), crate::limits::NAMESPACES_PER_DRIVE);
}

#[test]
fn a_second_list_is_read() {
    // Empty ones are skipped, so that entry 1025 is kept.
    let mut namespaces: Vec<_> = (1..=63).map(|nsid| NvmeNamespace::new(nsid, 1, 9)).collect();
    namespaces.extend((64..=1024).map(|nsid| NvmeNamespace::new(nsid, 0, 9)));
    namespaces.push(NvmeNamespace::new(5000, 1, 9));
    let mut rig = Rig::new(NvmeConfig { namespaces, ..NvmeConfig::default() });
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    assert_eq!(rig.namespaces().last().unwrap().nsid, 5000);
}

#[test]
fn a_drive_that_does_not_start_comes_back_when_mended() {
    let mut rig = Rig::new(NvmeConfig::default());
    rig.control.set_ready_stuck(true);
    rig.turn();
    rig.turn();
    rig.pass(9);
    rig.run_until(|rig| !rig.events.is_empty());
    assert_eq!(rig.events, [DriveEvent::Failed { reason: FailReason::NotReady }]);
    assert!(!rig.control.bus_master());
    // Told once only, however often it is tried.
    for _ in 0..10 {
        rig.pass(10);
        rig.turn();
    }
    assert_eq!(rig.events.len(), 1);
    rig.control.set_ready_stuck(false);
    rig.pass(60);
    rig.run_until(|rig| rig.drive.is_ready());
}

#[test]
fn a_drive_that_fails_identify_comes_back_when_mended() {
    let mut rig = Rig::new(NvmeConfig::default());
    let identify = |effect| NvmeInjection { queue: Some(0), opcode: Some(6), skip: 0, count: 1, effect };
    rig.control.inject(identify(NvmeEffect::Status(0x0006)));
    rig.run_until(|rig| !rig.events.is_empty());
    assert_eq!(rig.events, [DriveEvent::Failed { reason: FailReason::IdentifyController }]);
    rig.control.inject(identify(NvmeEffect::Never));
    rig.pass(6);
    for _ in 0..100 {
        rig.turn();
    }
    rig.pass(21);
    rig.run_until(|rig| rig.events.len() > 1);
    assert_eq!(rig.events[1], DriveEvent::Failed { reason: FailReason::AdminTimeout });
    rig.pass(31);
    rig.run_until(|rig| rig.drive.is_ready());
}

#[test]
fn drives_that_can_never_work_say_why() {
    let plain = NvmeConfig::default;
    let bad = [
        (NvmeConfig { min_page: 1, ..plain() }, FailReason::PageSize),
        (NvmeConfig { queue_pairs: 1, ..plain() }, FailReason::NoQueues),
    ];
    for (config, reason) in bad {
        let mut rig = Rig::new(config);
        rig.run_until(|rig| !rig.events.is_empty());
        assert_eq!(rig.events, [DriveEvent::Failed { reason }]);
        let refused = rig.submit(request(Operation::Flush, 0, 0, Pages::NONE)).unwrap_err();
        assert_eq!(refused.reason, controller::RejectReason::Failed(crate::status::AWAY));
    }
}

#[test]
fn an_idle_drive_asks_for_nothing_but_its_health() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.turn();
    assert!(!rig.drive.has_work() && !rig.drive.arm());
    assert!(rig.drive.next_deadline(rig.now) > rig.now + Duration::from_millis(900));
    assert_eq!(rig.drive.poll(rig.now, &mut rig.pool), 0);
}
