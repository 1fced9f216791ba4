//! Bad drives: hosts get an answer in time, pages come back when the drive can no longer write, and not before.

use controller::RejectReason;
use hal_fakes::NvmeNamespace;
use nvme::Status;
use nvme::opcode::io;

use super::*;
use crate::FailReason;
use crate::limits::{ABORT_TIMEOUT, COMMAND_TIMEOUT, LATER_RETRY, RESETS_BEFORE_REST};
use crate::status::{AWAY, INTERRUPTED};

fn read(rig: &mut Rig, token: u32, blocks: u32) {
    let pages = rig.pages_with(&vec![0; blocks as usize * 512]);
    let request = request(Operation::Read, 0, blocks, pages);
    rig.submit(IoRequest { token, ..request }).expect("room");
}

#[test]
fn a_hanging_command_is_answered_quarantined_and_reset() {
    let mut rig = Rig::ready(NvmeConfig { ready_polls: 5, ..NvmeConfig::default() });
    let free = rig.pool.free();
    rig.inject(io::READ, 1, NvmeEffect::Never);
    let late = rig.now + COMMAND_TIMEOUT;
    read(&mut rig, 1, 64);
    rig.turn();
    // The SMART log and the look at CSTS that are due by then come first.
    rig.now = rig.now + Duration::from_millis(14_990);
    rig.turn();
    rig.turn();
    assert_eq!(rig.drive.next_deadline(rig.now), late);
    rig.now = late;
    // The fake's Abort says that it has not helped.
    rig.turn();
    rig.turn();
    rig.now = late + Duration::from_millis(4990);
    rig.turn();
    rig.turn();
    assert!(rig.ended.is_empty());
    assert_eq!(rig.drive.next_deadline(rig.now), late + ABORT_TIMEOUT);
    rig.now = late + ABORT_TIMEOUT;
    rig.turn();
    let ended = rig.ended.pop().expect("answered at once");
    assert_eq!((ended.token, ended.status), (1, INTERRUPTED));
    assert!(ended.pages.is_none());
    assert_eq!((rig.drive.quarantined(), rig.pool.free()), (1, free - 8));
    // While the drive is being reset, new requests wait.
    read(&mut rig, 2, 1);
    rig.run_until(|rig| !rig.ended.is_empty());
    let ended = rig.ended.pop().unwrap();
    assert_eq!((ended.token, ended.status), (2, Status::SUCCESS));
    rig.pool.give_back(ended.pages.unwrap());
    assert_eq!((rig.drive.quarantined(), rig.pool.free()), (0, free));
    assert_eq!((rig.drive.counters().command_timeouts, rig.drive.counters().resets), (1, 1));
    // The namespaces are the same: nobody was told of anything.
    assert_eq!(rig.events, []);
}

#[test]
fn neighbours_of_a_hanging_command_may_be_repeated() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.reconfigure(|config| config.latency_polls = (100_000, 100_000));
    let free = rig.pool.free();
    for token in 0..100 {
        read(&mut rig, token, 1 + token);
    }
    rig.turn();
    rig.be_late();
    let answered: Vec<_> = rig.ended.iter().map(|e| (e.token, e.status, e.pages.is_none())).collect();
    assert!(
        answered.iter().all(|&(_, status, quarantined)| status == INTERRUPTED && quarantined),
        "{answered:?}"
    );
    // The parts that could not go out yet wait for the drive's return.
    let answered = rig.ended.len();
    assert!(answered > 0);
    rig.control.reconfigure(|config| config.latency_polls = (0, 0));
    rig.run_until(|rig| rig.ended.len() == 100);
    for ended in std::mem::take(&mut rig.ended).into_iter().skip(answered) {
        assert_eq!(ended.status, Status::SUCCESS);
        rig.pool.give_back(ended.pages.unwrap());
    }
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
}

#[test]
fn quarantined_pages_leave_their_reservation() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    assert!(rig.pool.reserve(8));
    rig.inject(io::WRITE, 1, NvmeEffect::Never);
    let pages = rig.pool.take_reserved(2).unwrap();
    rig.submit(request(Operation::Write, 0, 16, pages)).expect("room");
    rig.turn();
    rig.be_late();
    assert!(rig.ended.pop().expect("answered").pages.is_none());
    // What nvmeof does: others take their place in the promise.
    assert!(rig.pool.reserve(2));
    rig.run_until(|rig| rig.drive.is_ready());
    assert_eq!((rig.pool.free(), rig.pool.promised()), (free, 8));
}

#[test]
fn a_write_that_was_given_up_never_lands() {
    let config = NvmeConfig { queue_entries: 4, latency_polls: (200, 200), ..NvmeConfig::default() };
    let mut rig = Rig::ready(config);
    for token in 0..3 {
        read(&mut rig, token, 1);
    }
    let old = rig.pages_with(&[0x0d; 512]);
    rig.submit(IoRequest { token: 3, ..request(Operation::Write, 0, 1, old) }).expect("room");
    rig.turn();
    // The write goes out ten seconds late, so that its request is overdue before its command is.
    rig.pass(10);
    rig.control.reconfigure(|config| config.latency_polls = (20_000, 20_000));
    rig.run_until(|rig| rig.ended.len() == 3);
    rig.turn();
    rig.pass(15);
    rig.control.reconfigure(|config| config.latency_polls = (0, 0));
    rig.run_until(|rig| rig.ended.len() == 4);
    assert_eq!((rig.ended[3].token, rig.ended[3].status), (3, INTERRUPTED));
    assert_eq!(rig.drive.counters().resets, 1);
    let new = rig.pages_with(&[0x0e; 512]);
    rig.submit(IoRequest { token: 4, ..request(Operation::Write, 0, 1, new) }).expect("room");
    rig.run_until(|rig| rig.ended.len() == 5);
    assert_eq!(rig.ended[4].status, Status::SUCCESS);
    for _ in 0..30_000 {
        rig.turn();
    }
    assert_eq!(rig.control.read_disk(1, 0, 512), [0x0e; 512]);
    assert_eq!(rig.drive.outstanding(), 0);
}

#[test]
fn a_pause_of_the_card_is_no_fault_of_the_drive() {
    let mut rig = Rig::ready(NvmeConfig { queue_entries: 256, ..NvmeConfig::default() });
    for token in 0..200 {
        read(&mut rig, token, 1);
    }
    rig.turn();
    rig.pass(24);
    rig.run_until(|rig| rig.ended.len() == 200);
    assert!(rig.ended.iter().all(|ended| ended.status == Status::SUCCESS));
    assert_eq!(rig.drive.counters().resets, 0);
}

#[test]
fn a_drive_that_does_not_stop_loses_the_bus_before_pages_return() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    rig.inject(io::READ, 1, NvmeEffect::Never);
    read(&mut rig, 1, 8);
    rig.turn();
    rig.control.set_ready_stuck(true);
    rig.be_late();
    for _ in 0..20 {
        rig.turn();
    }
    assert_eq!((rig.drive.quarantined(), rig.pool.free()), (1, free - 1));
    assert!(rig.control.bus_master());
    rig.pass(10);
    rig.run_until(|rig| !rig.events.is_empty());
    rig.turn();
    assert!(!rig.control.bus_master());
    assert_eq!((rig.drive.quarantined(), rig.pool.free()), (0, free));
    assert_eq!(rig.events, [DriveEvent::Lost, DriveEvent::Failed { reason: FailReason::StuckReady }]);
    let refused = rig.submit(request(Operation::Flush, 0, 0, Pages::NONE)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Failed(AWAY));
    rig.control.set_ready_stuck(false);
    rig.pass(6);
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    assert_eq!(rig.events.last(), Some(&DriveEvent::Back));
}

#[test]
fn pages_of_a_hanging_read_are_not_reused_while_the_drive_may_write_them() {
    // The fake scribbles into the buffers of hanging reads at the moment of the reset.
    let mut rig = Rig::ready(NvmeConfig { ready_polls: 50, ..NvmeConfig::default() });
    rig.inject(io::READ, 16, NvmeEffect::Never);
    for token in 0..16 {
        read(&mut rig, token, 8);
    }
    rig.turn();
    rig.be_late();
    let all = rig.pool.take(rig.pool.available()).unwrap();
    let mine = vec![0x11; all.capacity_bytes()];
    rig.pool.write(&mut all.start(), &mine);
    rig.run_until(|rig| rig.drive.is_ready());
    let mut back = vec![0; mine.len()];
    rig.pool.read(&mut all.start(), &mut back);
    assert!(back == mine);
    rig.pool.give_back(all);
}

#[test]
fn wrong_and_repeated_completions_are_counted_and_end_in_a_reset() {
    for effect in [NvmeEffect::WrongIdentifier, NvmeEffect::Duplicate, NvmeEffect::Stranger] {
        let mut rig = Rig::ready(NvmeConfig::default());
        rig.inject(io::READ, 3, effect);
        for token in 0..3 {
            read(&mut rig, token, 1);
        }
        rig.run_until(|rig| rig.ended.len() == 3);
        assert_eq!(rig.drive.counters().unknown_completions, 3);
        assert_eq!(rig.drive.counters().resets, 0);
        rig.inject(io::READ, 20, effect);
        for token in 0..20 {
            read(&mut rig, token, 1);
        }
        rig.run_until(|rig| rig.ended.len() == 23 && rig.drive.is_ready());
        assert_eq!(rig.drive.counters().resets, 1);
    }
}

#[test]
fn an_old_completion_ends_no_command_that_has_its_place_now() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.inject(io::READ, 3, NvmeEffect::Status(0x0281));
    (0..3).for_each(|token| read(&mut rig, token, 1));
    rig.run_until(|rig| rig.ended.len() == 3);
    rig.inject(io::READ, 3, NvmeEffect::Late);
    (3..6).for_each(|token| read(&mut rig, token, 1));
    rig.run_until(|rig| rig.ended.len() == 6);
    assert_eq!(rig.drive.counters().unknown_completions, 3);
    assert!(rig.ended[..3].iter().all(|end| !end.status.is_success()));
    assert!(rig.ended[3..].iter().all(|end| end.status.is_success()));
}

#[test]
fn a_fatal_state_is_noticed_and_reset() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_fatal();
    read(&mut rig, 1, 1);
    rig.pass(2);
    rig.run_until(|rig| !rig.ended.is_empty() && rig.drive.is_ready());
    assert_eq!(rig.ended[0].status, INTERRUPTED);
    assert_eq!(rig.drive.counters().resets, 1);
}

#[test]
fn a_pulled_drive_is_lost_and_comes_back() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    rig.control.set_removed(true);
    read(&mut rig, 1, 8);
    rig.turn();
    rig.pass(2);
    rig.run_until(|rig| !rig.events.is_empty());
    rig.turn();
    assert_eq!(rig.events, [DriveEvent::Lost, DriveEvent::Failed { reason: FailReason::Removed }]);
    let ended = rig.ended.pop().unwrap();
    // The bus is off, so that the pages need not stay behind.
    assert_eq!(ended.status, INTERRUPTED);
    if let Some(pages) = ended.pages {
        rig.pool.give_back(pages);
    }
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
    for _ in 0..5 {
        rig.pass(31);
        rig.turn();
        rig.turn();
    }
    assert_eq!(rig.events.len(), 2);
    rig.control.set_removed(false);
    rig.pass(31);
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    assert_eq!(rig.events[2..], [DriveEvent::Back]);
    read(&mut rig, 2, 8);
    rig.run_until(|rig| !rig.ended.is_empty());
    assert_eq!(rig.ended[0].status, Status::SUCCESS);
}

#[test]
fn another_drive_in_the_same_place_has_other_namespaces() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_removed(true);
    rig.pass(2);
    rig.run_until(|rig| rig.events.len() == 2);
    rig.control.reconfigure(|config| config.serial = "OTHER".into());
    rig.control.set_removed(false);
    rig.pass(10);
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    assert!(rig.events.contains(&DriveEvent::NamespaceGone { nsid: 1 }));
    assert!(rig.namespaces()[0].drive.serial.starts_with(b"OTHER"));
}

#[test]
fn a_namespace_that_changes_over_a_reset_ends_what_waited_for_it() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_fatal();
    rig.pass(2);
    rig.turn();
    read(&mut rig, 1, 8);
    rig.control.reconfigure(|config| config.namespaces = vec![NvmeNamespace::new(1, 2048, 12)]);
    rig.run_until(|rig| !rig.ended.is_empty());
    assert_eq!(rig.ended[0].status, Status::INVALID_NAMESPACE.do_not_retry());
    rig.turn();
    assert_eq!(rig.events[0], DriveEvent::NamespaceGone { nsid: 1 });
    assert_eq!(rig.namespaces()[0].block_shift, 12);
}

#[test]
fn a_drive_that_hangs_again_and_again_is_given_a_rest() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.inject(io::READ, u32::MAX, NvmeEffect::Never);
    for round in 0..=RESETS_BEFORE_REST {
        read(&mut rig, round, 1);
        rig.turn();
        rig.be_late();
        assert!(!rig.drive.is_ready());
        if round < RESETS_BEFORE_REST {
            rig.run_until(|rig| rig.drive.is_ready());
        }
    }
    assert_eq!(rig.events, [DriveEvent::Lost, DriveEvent::Failed { reason: FailReason::TooManyResets }]);
    rig.now = rig.now + LATER_RETRY;
    rig.run_until(|rig| rig.drive.is_ready());
}

#[test]
fn scratch_work_survives_time_outs() {
    let config = NvmeConfig { optional_commands: 0, ..NvmeConfig::default() };
    let mut rig = Rig::ready(config);
    let free = rig.pool.free();
    rig.inject(io::READ, 1, NvmeEffect::Never);
    for token in 0..3 {
        let request = request(Operation::Verify, 0, 1000, Pages::NONE);
        rig.submit(IoRequest { token, ..request }).expect("room");
    }
    rig.turn();
    rig.be_late();
    rig.run_until(|rig| rig.ended.len() == 3);
    let statuses: Vec<_> = rig.ended.iter().map(|ended| (ended.token, ended.status)).collect();
    assert_eq!(statuses, [(0, INTERRUPTED), (1, Status::SUCCESS), (2, Status::SUCCESS)]);
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
}

#[test]
fn a_hanging_smart_log_resets_the_drive() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.inject(NvmeInjection {
        queue: Some(0),
        opcode: Some(2),
        skip: 0,
        count: 1,
        effect: NvmeEffect::Never,
    });
    rig.pass(11);
    rig.turn();
    rig.be_late();
    assert_eq!(rig.drive.counters().resets, 1);
    rig.run_until(|rig| rig.drive.is_ready());
}
