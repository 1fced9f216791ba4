//! A drive with a volatile cache that loses its power: the next Flush tells, and only where something may be gone.

use hal_fakes::{CachedMedia, Media};
use nvme::Status;
use nvme::opcode::io;

use super::*;
use crate::status::INTERRUPTED;

const LOST: DriveEvent = DriveEvent::WritesLost { nsid: 1 };

fn rig() -> Rig {
    let media: Box<dyn Media> = Box::new(CachedMedia::new(16384 << 9));
    Rig::ready_with_media(NvmeConfig::default(), vec![media])
}

fn write(rig: &mut Rig, byte: u8, force_unit_access: bool) {
    let pages = rig.pages_with(&[byte; 512]);
    let request = IoRequest { force_unit_access, ..request(Operation::Write, 0, 1, pages) };
    assert_eq!(rig.execute(request).0, 0);
}

/// Until the drive has noticed what was done to it, and works again.
fn settle(rig: &mut Rig) {
    rig.pass(2);
    for _ in 0..3 {
        rig.turn();
    }
    rig.pass(6);
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
}

#[test]
fn a_quick_loss_of_power_is_told() {
    for counts in [true, false] {
        let mut rig = rig();
        rig.control.set_counts_power(counts);
        write(&mut rig, 1, false);
        rig.control.lose_power();
        assert_eq!(rig.control.read_disk(1, 0, 1), [0], "the cache is gone");
        settle(&mut rig);
        assert!(rig.events.contains(&LOST), "{:?}", rig.events);
        assert_eq!(rig.drive.counters().lost_caches, 1);
        // It was told: what is written from now on is safe again.
        rig.events.clear();
        write(&mut rig, 2, false);
        assert_eq!(rig.execute_flush(), Status::SUCCESS);
        rig.control.lose_power();
        settle(&mut rig);
        assert!(!rig.events.contains(&LOST));
        assert_eq!(rig.control.read_disk(1, 0, 1), [2]);
    }
}

#[test]
fn a_deallocation_that_is_lost_is_told() {
    let mut rig = rig();
    let mut range = [0; 16];
    range[4] = 1;
    let pages = rig.pages_with(&range);
    let deallocate = Operation::DatasetManagement { ranges: 1, attributes: 0b100 };
    assert_eq!(rig.execute(request(deallocate, 0, 0, pages)).0, 0);
    rig.control.lose_power();
    settle(&mut rig);
    assert!(rig.events.contains(&LOST), "{:?}", rig.events);
}

#[test]
fn what_is_flushed_or_forced_is_not_lost() {
    let mut rig = rig();
    write(&mut rig, 1, false);
    assert_eq!(rig.execute_flush(), Status::SUCCESS);
    write(&mut rig, 2, true);
    rig.control.set_removed(true);
    rig.pass(2);
    rig.turn();
    rig.control.set_removed(false);
    settle(&mut rig);
    assert!(!rig.events.contains(&LOST), "{:?}", rig.events);
    assert_eq!(rig.control.read_disk(1, 0, 1), [2]);
}

#[test]
fn a_reset_keeps_the_cache_and_so_does_a_link_that_was_down() {
    let mut rig = rig();
    write(&mut rig, 1, false);
    rig.control.set_fatal();
    settle(&mut rig);
    assert_eq!(rig.drive.counters().resets, 1);
    rig.control.set_link_down(true);
    rig.pass(2);
    rig.turn();
    rig.control.set_link_down(false);
    settle(&mut rig);
    assert!(!rig.events.contains(&LOST), "{:?}", rig.events);
    assert_eq!(rig.control.read_disk(1, 0, 1), [1]);
    // A drive that does not count may have lost its power while it was away.
    rig.control.set_counts_power(false);
    rig.control.set_fatal();
    settle(&mut rig);
    rig.events.clear();
    write(&mut rig, 3, false);
    rig.control.set_link_down(true);
    rig.pass(2);
    rig.turn();
    rig.control.set_link_down(false);
    settle(&mut rig);
    assert!(rig.events.contains(&LOST), "{:?}", rig.events);
}

#[test]
fn a_flush_that_waited_over_the_loss_is_to_be_repeated() {
    let mut rig = rig();
    write(&mut rig, 1, false);
    rig.control.set_fatal();
    rig.pass(2);
    rig.turn();
    assert!(!rig.drive.is_ready());
    rig.submit(request(Operation::Flush, 0, 0, Pages::NONE)).expect("it waits");
    rig.control.lose_power();
    rig.run_until(|rig| rig.drive.is_ready());
    rig.run_until(|rig| !rig.ended.is_empty());
    // Its host's next Flush is told of the loss: this one must not be a second error.
    assert_eq!(rig.ended[0].status, INTERRUPTED);
    assert!(rig.events.contains(&LOST), "{:?}", rig.events);
    assert_eq!(rig.control.io_commands(io::FLUSH), 0);
}

#[test]
fn another_drive_in_the_place_leaves_word_of_the_old_ones_writes() {
    let mut rig = rig();
    write(&mut rig, 1, false);
    rig.control.set_removed(true);
    rig.pass(2);
    rig.turn();
    rig.control.reconfigure(|config| config.serial = "OTHER".into());
    rig.control.set_removed(false);
    settle(&mut rig);
    let lost = rig.events.iter().position(|event| *event == LOST).expect("told");
    let gone = rig.events.iter().position(|event| *event == DriveEvent::NamespaceGone { nsid: 1 });
    assert!(Some(lost) < gone, "{:?}", rig.events);
}

#[test]
fn an_orderly_end_leaves_nothing_in_the_cache() {
    let mut rig = rig();
    write(&mut rig, 7, false);
    rig.drive.begin_shutdown(rig.now);
    rig.run_until(|rig| rig.drive.is_shut_down());
    rig.control.lose_power();
    assert_eq!(rig.control.read_disk(1, 0, 1), [7]);
}

#[test]
fn a_write_that_was_half_done_is_not_acknowledged_after_the_loss() {
    let media: Box<dyn Media> = Box::new(CachedMedia::new(16384 << 9));
    let config = NvmeConfig { mdts: 1, queue_entries: 5, ..NvmeConfig::default() };
    let mut rig = Rig::ready_with_media(config, vec![media]);
    rig.inject(io::READ, 3, NvmeEffect::Never);
    for token in 1..4 {
        let pages = rig.pages_with(&[0; 512]);
        rig.submit(IoRequest { token, ..request(Operation::Read, 0, 1, pages) }).expect("room");
    }
    // There is room for its first part alone; the second waits behind commands that have become slow.
    let pages = rig.pages_with(&[1; 16384]);
    rig.submit(request(Operation::Write, 0, 32, pages)).expect("room");
    rig.turn();
    rig.pass(3);
    rig.turn();
    assert_eq!(rig.control.io_commands(io::WRITE), 1);
    rig.control.lose_power();
    settle(&mut rig);
    let write = rig.ended.iter().find(|ended| ended.token == 7).expect("it has ended");
    assert_eq!(write.status, INTERRUPTED);
}
