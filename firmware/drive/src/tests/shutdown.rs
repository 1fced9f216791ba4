//! The orderly end of a drive: what was acknowledged is flushed, the drive is told, and a bad one does not hold it up.

use controller::RejectReason;
use nvme::Status;
use nvme::opcode::io;

use super::*;
use crate::limits::{CLOSING_LIMIT, HOST_FLUSH_LIMIT, SHUTDOWN_LEAST};
use crate::status::AWAY;

fn write(rig: &mut Rig, start_block: u64) {
    let pages = rig.pages_with(&[0x5a; 4096]);
    rig.submit(request(Operation::Write, start_block, 8, pages)).expect("room");
}

fn end(rig: &mut Rig) {
    rig.drive.begin_shutdown(rig.now);
    rig.run_until(|rig| rig.drive.is_shut_down());
    assert!(!rig.control.bus_master());
    assert_eq!((rig.drive.outstanding(), rig.drive.quarantined()), (0, 0));
}

#[test]
fn requests_end_then_the_cache_is_flushed_then_the_drive_is_told() {
    let mut rig = Rig::ready(NvmeConfig { latency_polls: (50, 60), ..NvmeConfig::default() });
    for index in 0..10 {
        write(&mut rig, index * 8);
    }
    rig.turn();
    assert!(rig.ended.is_empty());
    end(&mut rig);
    assert!(rig.ended.len() == 10 && rig.ended.iter().all(|ended| ended.status == Status::SUCCESS));
    // One that begins before the last write has ended is not the last.
    assert!((1..=3).contains(&rig.control.io_commands(io::FLUSH)));
    assert_eq!(lost(&rig), 0);
    assert_eq!(rig.control.configuration() >> 14 & 0b11, 1);
    assert!(rig.drive.has_ended_well());
    let refused = rig.submit(request(Operation::Flush, 0, 0, Pages::NONE)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Failed(AWAY));
}

#[test]
fn nothing_is_flushed_twice_or_without_need() {
    for volatile_write_cache in [false, true] {
        let mut rig = Rig::ready(NvmeConfig { volatile_write_cache, ..NvmeConfig::default() });
        write(&mut rig, 0);
        rig.run_until(|rig| !rig.ended.is_empty());
        rig.ended.clear();
        if volatile_write_cache {
            assert_eq!(rig.execute_flush(), Status::SUCCESS);
        }
        let before = rig.control.io_commands(io::FLUSH);
        end(&mut rig);
        assert_eq!(rig.control.io_commands(io::FLUSH), before);
    }
}

#[test]
fn a_write_that_failed_is_flushed_too_and_is_no_loss() {
    // Hosts may have read what it wrote before it failed. It fails by its status, or by a time-out.
    for (effect, flush) in [
        (NvmeEffect::Status(0x0080), NvmeEffect::Status(0)),
        (NvmeEffect::Status(0x0080), NvmeEffect::Status(0x0280)),
        (NvmeEffect::Never, NvmeEffect::Status(0)),
    ] {
        let mut rig = Rig::ready(NvmeConfig::default());
        rig.inject(io::WRITE, 1, effect);
        write(&mut rig, 0);
        rig.turn();
        rig.be_late();
        rig.run_until(|rig| !rig.ended.is_empty() && rig.drive.is_ready());
        assert_ne!(rig.ended[0].status, Status::SUCCESS);
        rig.inject(io::FLUSH, 1, flush);
        end(&mut rig);
        assert_eq!((rig.control.io_commands(io::FLUSH), lost(&rig)), (1, 0));
    }
}

#[test]
fn a_write_that_ends_beside_a_flush_is_flushed_again() {
    let mut rig = Rig::ready(NvmeConfig { latency_polls: (40, 40), ..NvmeConfig::default() });
    write(&mut rig, 0);
    // The Flush goes out before the write has ended: it need not cover it.
    rig.submit(IoRequest { token: 8, ..request(Operation::Flush, 0, 0, Pages::NONE) }).expect("room");
    rig.run_until(|rig| rig.ended.len() == 2);
    end(&mut rig);
    assert_eq!(rig.control.io_commands(io::FLUSH), 2);
}

#[test]
fn a_request_that_hangs_does_not_hold_up_the_end() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    rig.inject(io::WRITE, 1, NvmeEffect::Never);
    write(&mut rig, 0);
    rig.turn();
    rig.drive.begin_shutdown(rig.now);
    rig.turn();
    rig.now = rig.now + CLOSING_LIMIT;
    end(&mut rig);
    assert_eq!(rig.control.configuration() >> 14 & 0b11, 1);
    assert_eq!(rig.pool.free(), free);
}

#[test]
fn a_request_that_hangs_does_not_keep_the_cache_from_being_flushed() {
    let mut rig = Rig::ready(NvmeConfig { latency_polls: (20, 20), ..NvmeConfig::default() });
    acknowledged_write(&mut rig);
    rig.inject(io::READ, 1, NvmeEffect::Never);
    let pages = rig.pages_with(&[0; 4096]);
    rig.submit(request(Operation::Read, 0, 8, pages)).expect("room");
    write(&mut rig, 8);
    rig.drive.begin_shutdown(rig.now);
    // What is in the cache by then, and what comes to it afterwards.
    rig.run_until(|rig| rig.control.io_commands(io::FLUSH) == 2);
    assert_eq!(rig.ended.len(), 1);
    (0..60).for_each(|_| rig.turn());
    rig.pass(1);
    rig.turn();
    assert!(!rig.drive.is_shut_down());
    rig.now = rig.now + CLOSING_LIMIT;
    end(&mut rig);
    assert_eq!(lost(&rig), 0);
}

#[test]
fn what_is_not_flushed_before_the_end_counts_as_lost() {
    // The Flush hangs, or fails, or the drive is away.
    for case in 0..3 {
        let mut rig = Rig::ready(NvmeConfig::default());
        acknowledged_write(&mut rig);
        match case {
            0 => rig.inject(io::FLUSH, 1, NvmeEffect::Never),
            1 => rig.inject(io::FLUSH, 1, NvmeEffect::Status(0x0280)),
            _ => {
                rig.control.set_removed(true);
                rig.pass(2);
                rig.run_until(|rig| !rig.drive.is_at_work());
            }
        }
        rig.drive.begin_shutdown(rig.now);
        rig.turn();
        if case == 0 {
            rig.now = rig.now + CLOSING_LIMIT;
        }
        end(&mut rig);
        assert_eq!(rig.drive.has_ended_well(), case < 2);
        assert_eq!(lost(&rig), 1, "case {case}");
    }
}

/// How often a loss was told.
fn lost(rig: &Rig) -> usize {
    rig.events.iter().filter(|event| matches!(event, DriveEvent::WritesLost { nsid: 1 })).count()
}

#[test]
fn a_drive_that_hangs_altogether_loses_the_bus() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.inject(io::FLUSH, 1, NvmeEffect::Never);
    write(&mut rig, 0);
    rig.run_until(|rig| !rig.ended.is_empty());
    rig.drive.begin_shutdown(rig.now);
    for _ in 0..10 {
        rig.turn();
    }
    rig.control.set_shutdown_stuck(true);
    rig.now = rig.now + CLOSING_LIMIT;
    rig.turn();
    assert!(!rig.drive.is_shut_down() && rig.control.bus_master());
    rig.now = rig.now + SHUTDOWN_LEAST;
    end(&mut rig);
    assert!(!rig.drive.has_ended_well());
}

#[test]
fn drives_that_are_away_or_on_their_way_end_too() {
    let mut rig = Rig::new(NvmeConfig::default());
    end(&mut rig);
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.control.set_removed(true);
    end(&mut rig);
    let mut rig = Rig::ready(NvmeConfig::default());
    write(&mut rig, 0);
    rig.run_until(|rig| !rig.ended.is_empty());
    rig.control.set_fatal();
    rig.pass(2);
    rig.run_until(|rig| !rig.drive.is_ready());
    // What the cache still holds after the reset is flushed as well.
    end(&mut rig);
    assert_eq!(rig.control.io_commands(io::FLUSH), 1);
    assert!(rig.drive.has_ended_well());
}

/// A write that the drive's cache holds.
fn acknowledged_write(rig: &mut Rig) {
    write(rig, 0);
    rig.run_until(|rig| !rig.ended.is_empty());
    for ended in rig.ended.drain(..) {
        assert_eq!(ended.status, Status::SUCCESS);
        rig.pool.give_back(ended.pages.expect("not quarantined"));
    }
}

#[test]
fn a_flush_that_was_asked_for_covers_what_was_acknowledged_before() {
    let mut rig = Rig::ready(NvmeConfig::default());
    rig.drive.ask_flush(1, rig.now);
    assert_eq!(rig.drive.flushed(1), Some(true), "there is nothing to flush");
    acknowledged_write(&mut rig);
    rig.drive.ask_flush(2, rig.now);
    assert_eq!(rig.drive.flushed(2), None);
    rig.run_until(|rig| rig.drive.flushed(2) == Some(true));
    assert_eq!(rig.control.io_commands(io::FLUSH), 1);
    rig.control.set_removed(true);
    rig.pass(2);
    rig.turn();
    rig.drive.ask_flush(3, rig.now);
    assert_eq!(rig.drive.flushed(3), Some(true));
}

#[test]
fn a_flush_that_was_asked_for_waits_for_a_drive_that_is_being_reset() {
    // Asked for during the reset, and before it.
    for before in [false, true] {
        let mut rig = Rig::ready(NvmeConfig::default());
        acknowledged_write(&mut rig);
        if before {
            rig.inject(io::FLUSH, 1, NvmeEffect::Never);
            rig.drive.ask_flush(1, rig.now);
            rig.turn();
            rig.turn();
            assert_eq!(rig.control.io_commands(io::FLUSH), 1);
        }
        rig.control.set_fatal();
        rig.pass(2);
        rig.turn();
        assert!(!rig.drive.is_ready());
        if !before {
            rig.drive.ask_flush(1, rig.now);
        }
        rig.turn();
        assert_eq!(rig.drive.flushed(1), None);
        rig.run_until(|rig| rig.drive.flushed(1).is_some());
        assert_eq!(rig.drive.flushed(1), Some(true));
        assert_eq!(rig.control.io_commands(io::FLUSH), 1 + u64::from(before));
    }
}

#[test]
fn a_flush_that_was_asked_for_and_fails_or_takes_too_long_is_told_as_such() {
    for effect in [NvmeEffect::Status(0x0280), NvmeEffect::Never] {
        let mut rig = Rig::ready(NvmeConfig::default());
        acknowledged_write(&mut rig);
        rig.inject(io::FLUSH, 1, effect);
        rig.drive.ask_flush(1, rig.now);
        rig.turn();
        rig.now = rig.now.max(rig.drive.next_deadline(rig.now));
        rig.run_until(|rig| rig.drive.flushed(1).is_some());
        assert_eq!(rig.drive.flushed(1), Some(false));
    }
    // One that does not come back, and one that comes back without its cache.
    for comes_back in [false, true] {
        let media: Box<dyn hal_fakes::Media> = Box::new(hal_fakes::CachedMedia::new(16384 << 9));
        let mut rig = Rig::ready_with_media(NvmeConfig::default(), vec![media]);
        acknowledged_write(&mut rig);
        rig.control.set_removed(true);
        rig.pass(2);
        rig.turn();
        rig.drive.ask_flush(1, rig.now);
        assert_eq!(rig.drive.flushed(1), None);
        rig.control.set_removed(!comes_back);
        rig.run_until(|rig| rig.drive.flushed(1).is_some());
        assert_eq!((rig.drive.flushed(1), rig.drive.is_at_work()), (Some(false), comes_back));
    }
}

#[test]
fn a_flush_that_hangs_keeps_its_limit_when_others_ask() {
    let mut rig = Rig::ready(NvmeConfig::default());
    acknowledged_write(&mut rig);
    rig.inject(io::FLUSH, 1, NvmeEffect::Never);
    rig.drive.ask_flush(1, rig.now);
    let first = rig.now + HOST_FLUSH_LIMIT;
    rig.turn();
    rig.now = rig.now + HOST_FLUSH_LIMIT / 2;
    rig.drive.ask_flush(2, rig.now);
    let second = rig.now + HOST_FLUSH_LIMIT;
    assert!(rig.drive.next_deadline(rig.now) <= first);
    rig.now = first;
    rig.turn();
    assert_eq!((rig.drive.flushed(1), rig.drive.flushed(2)), (Some(false), None));
    rig.now = second;
    rig.turn();
    assert_eq!((rig.drive.flushed(1), rig.drive.flushed(2)), (Some(false), Some(false)));
}

#[test]
fn an_end_of_the_drive_takes_no_ticket_of_a_hosts() {
    let mut rig = Rig::ready(NvmeConfig { latency_polls: (50, 60), ..NvmeConfig::default() });
    acknowledged_write(&mut rig);
    rig.drive.begin_shutdown(rig.now);
    rig.turn();
    rig.turn();
    // The end's own flush is under way: it may not cover what this host was told of since.
    rig.drive.ask_flush(1, rig.now);
    assert_eq!(rig.drive.flushed(1), None);
    end(&mut rig);
    assert_eq!(rig.drive.flushed(1), Some(true));
}

#[test]
fn a_drive_that_is_taken_away_leaves_word_of_what_it_had_not_flushed() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    rig.drive.leave(false, rig.now, &mut rig.pool);
    assert_eq!(rig.drive.take_event(), None);
    let mut rig = Rig::ready(NvmeConfig::default());
    write(&mut rig, 0);
    rig.run_until(|rig| !rig.ended.is_empty());
    rig.inject(io::READ, 1, NvmeEffect::Never);
    let pages = rig.pages_with(&[0; 4096]);
    rig.submit(request(Operation::Read, 0, 8, pages)).expect("room");
    rig.turn();
    rig.drive.leave(false, rig.now, &mut rig.pool);
    assert_eq!(rig.drive.take_event(), Some(DriveEvent::WritesLost { nsid: 1 }));
    assert_eq!(rig.drive.take_event(), None);
    rig.turn();
    for ended in rig.ended.drain(..) {
        rig.pool.give_back(ended.pages.expect("the bus is off"));
    }
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
}
