//! The oracle by examples, one block each.

use super::*;
use crate::pattern::fill;

const RANGE: Range = Range { namespace: 0, lba: 5, blocks: 1 };

fn block(version: Version) -> Vec<u8> {
    let mut block = vec![0; 512];
    if version != 0 {
        fill(&mut block, 0, 5, version);
    }
    block
}

fn read(oracle: &mut Oracle, version: Version) -> bool {
    let sent = oracle.moment();
    oracle.judge(RANGE, 5, sent, &block(version)).is_ok()
}

fn write(oracle: &mut Oracle) -> Version {
    let version = oracle.write_sent(RANGE, false, 0);
    oracle.write_done(RANGE, version, false, true);
    version
}

fn flush(oracle: &mut Oracle) {
    let sent = oracle.moment();
    oracle.flushed(0, sent, 0);
}

#[test]
fn an_answered_write_replaces_and_a_sent_one_may() {
    let mut oracle = Oracle::new(&[false], Over::default());
    let first = write(&mut oracle);
    assert!(!read(&mut oracle, 0) && read(&mut oracle, first));
    let second = oracle.write_sent(RANGE, false, 0);
    assert_eq!(oracle.certain(0, 5), None);
    let sent = oracle.moment();
    assert!(oracle.judge(RANGE, 5, sent, &block(second)).is_ok());
    oracle.write_done(RANGE, second, false, true);
    assert!(!read(&mut oracle, first) && read(&mut oracle, second));
    assert_eq!(oracle.certain(0, 5), Some((second, false)));
}

#[test]
fn a_failed_write_may_have_happened_until_the_next_one() {
    let mut oracle = Oracle::new(&[false], Over::default());
    let first = write(&mut oracle);
    let failed = oracle.write_sent(RANGE, false, 0);
    oracle.write_ended(RANGE, failed);
    assert!(read(&mut oracle, first));
    // Once the old block was seen after the failure, the failed write must not land any more.
    assert!(!read(&mut oracle, failed));
}

#[test]
fn lost_power_shows_what_no_flush_has_covered() {
    let mut oracle = Oracle::new(&[true], Over::default());
    let first = write(&mut oracle);
    flush(&mut oracle);
    let second = write(&mut oracle);
    let third = write(&mut oracle);
    assert!(!read(&mut oracle, second));
    oracle.power_lost(0);
    assert!(!read(&mut oracle, 0));
    assert!(read(&mut oracle, first));
    assert!(!read(&mut oracle, third) && !read(&mut oracle, second));
}

#[test]
fn a_flush_after_the_loss_vouches_for_what_was_lost_unless_hosts_were_told() {
    for told in [false, true] {
        let mut oracle = Oracle::new(&[true], Over::default());
        let first = write(&mut oracle);
        oracle.power_lost(0);
        if told {
            oracle.loss_is_known(0, None);
        }
        flush(&mut oracle);
        assert_eq!(read(&mut oracle, 0), told);
        assert_eq!(read(&mut oracle, first), !told);
    }
}

#[test]
fn a_flush_of_a_host_that_may_be_told_by_another_vouches_for_nothing_that_is_lost() {
    let mut oracle = Oracle::new(&[true], Over::default());
    let first = write(&mut oracle);
    oracle.power_lost(0);
    let sent = oracle.moment();
    oracle.flushed(0, sent, NOBODY);
    assert!(read(&mut oracle, 0));
    let second = write(&mut oracle);
    let sent = oracle.moment();
    oracle.flushed(0, sent, NOBODY);
    oracle.power_lost(0);
    assert!(!read(&mut oracle, first) && read(&mut oracle, second));
}

#[test]
fn forced_writes_are_durable_and_hints_replace_nothing() {
    let mut oracle = Oracle::new(&[true], Over::default());
    let first = oracle.write_sent(RANGE, false, 0);
    oracle.write_done(RANGE, first, true, true);
    oracle.power_lost(0);
    assert!(!read(&mut oracle, 0) && read(&mut oracle, first));
    let hint = oracle.write_sent(RANGE, true, 0);
    oracle.write_done(RANGE, hint, false, false);
    assert!(read(&mut oracle, first));
}

#[test]
fn a_flush_leaves_what_stands_there() {
    let mut oracle = Oracle::new(&[true], Over::default());
    let version = oracle.write_sent(RANGE, false, 0);
    flush(&mut oracle);
    assert!(read(&mut oracle, 0) || read(&mut oracle, version));
    oracle.write_ended(RANGE, version);
    flush(&mut oracle);
    assert!(read(&mut oracle, 0));
}

/// A write that was sent before a loss of power and answered after it, then a Flush.
fn answered_late(tell: impl Fn(&mut Oracle)) -> Vec<bool> {
    let mut oracle = Oracle::new(&[true], Over::default());
    let version = oracle.write_sent(RANGE, false, 0);
    oracle.power_lost(0);
    tell(&mut oracle);
    oracle.write_done(RANGE, version, false, true);
    flush(&mut oracle);
    vec![read(&mut oracle, 0), read(&mut oracle, version)]
}

#[test]
fn a_write_that_is_answered_after_the_loss_is_vouched_for_unless_its_host_was_told() {
    assert_eq!(answered_late(|_| ()), [false, true]);
    assert_eq!(answered_late(|oracle| oracle.loss_is_known(0, Some(1))), [false, true]);
    assert!(answered_late(|oracle| oracle.loss_is_known(0, Some(0)))[0]);
    assert!(answered_late(|oracle| oracle.loss_is_known(0, None))[0]);
}

#[test]
fn a_read_that_hung_for_more_writes_than_are_remembered_is_not_judged() {
    let mut oracle = Oracle::new(&[false], Over::default());
    let old = write(&mut oracle);
    let sent = oracle.moment();
    for _ in 0..MOST_GONE + 2 {
        write(&mut oracle);
    }
    assert!(oracle.judge(RANGE, 5, sent, &block(old)).is_ok());
    assert!(!read(&mut oracle, old));
    // Half of it is nobody's.
    let mut torn = block(old);
    torn[256..].fill(7);
    assert!(oracle.judge(RANGE, 5, sent, &torn).is_err());
}

/// A Copy from the block before, which holds `from`.
fn copy(oracle: &mut Oracle) -> Version {
    oracle.copy_sent(RANGE, &[BEFORE], 0).expect("no chain")
}

const BEFORE: Range = Range { lba: 4, ..RANGE };

fn of_before(version: Version) -> Vec<u8> {
    let mut block = vec![0; 512];
    fill(&mut block, 0, 4, version);
    block
}

#[test]
fn a_copy_brings_what_stood_in_its_source_while_it_was_under_way() {
    let mut oracle = Oracle::new(&[false], Over::default());
    let versions: Vec<Version> = (0..2)
        .map(|_| {
            let version = oracle.write_sent(BEFORE, false, 0);
            oracle.write_done(BEFORE, version, false, true);
            version
        })
        .collect();
    let old = write(&mut oracle);
    let copy = copy(&mut oracle);
    let later = oracle.write_sent(BEFORE, false, 0);
    oracle.write_done(RANGE, copy, false, true);
    let after = oracle.write_sent(BEFORE, false, 0);
    let sent = oracle.moment();
    assert!(oracle.judge(RANGE, 5, sent, &of_before(versions[1])).is_ok());
    assert!(oracle.judge(RANGE, 5, sent, &of_before(later)).is_ok());
    for wrong in [of_before(versions[0]), of_before(after), block(old), vec![0; 512]] {
        assert!(oracle.judge(RANGE, 5, sent, &wrong).is_err());
    }
    // Neither is there another place's data where nobody has copied it, nor can chains be followed.
    assert!(oracle.judge(BEFORE, 4, sent, &block(old)).is_err());
    assert_eq!(oracle.copy_sent(BEFORE, &[RANGE], 0), None);
    assert_eq!(oracle.copy_sent(RANGE, &[RANGE], 0), None);
    assert_eq!(oracle.certain(0, 5), None);
}

#[test]
fn lost_power_brings_back_what_a_copy_may_find() {
    let mut oracle = Oracle::new(&[true], Over::default());
    let first = oracle.write_sent(BEFORE, false, 0);
    oracle.write_done(BEFORE, first, false, true);
    let second = oracle.write_sent(BEFORE, false, 0);
    oracle.write_done(BEFORE, second, false, true);
    let copy = copy(&mut oracle);
    oracle.power_lost(0);
    oracle.write_ended(RANGE, copy);
    let sent = oracle.moment();
    assert!(oracle.judge(RANGE, 5, sent, &of_before(first)).is_ok());
}

/// A pair that expects `old`, and a write that is sent and answered while it is under way; what a later read may see.
fn pair_and_write(answered_first: bool) -> (Oracle, Version, Version) {
    let mut oracle = Oracle::new(&[false], Over::default());
    let old = write(&mut oracle);
    let pair = oracle.write_sent(RANGE, false, 0);
    let sent = oracle.moment();
    let other = oracle.write_sent(RANGE, false, 1);
    if answered_first {
        oracle.write_done(RANGE, other, false, true);
    }
    oracle.pair_done(RANGE, pair, false, &[Mark::of(5, old, false)], sent).expect("what stood there");
    if !answered_first {
        oracle.write_done(RANGE, other, false, true);
    }
    (oracle, pair, other)
}

#[test]
fn a_write_that_was_sent_after_what_a_pair_has_found_comes_after_the_pair() {
    for answered_first in [false, true] {
        let (mut oracle, pair, other) = pair_and_write(answered_first);
        assert!(!read(&mut oracle, pair), "a lost update");
        assert!(read(&mut oracle, other));
    }
}

#[test]
fn a_pair_finds_nothing_that_cannot_stand_there() {
    let mut oracle = Oracle::new(&[false], Over::default());
    let (first, second) = (write(&mut oracle), write(&mut oracle));
    let pair = oracle.write_sent(RANGE, false, 0);
    let sent = oracle.moment();
    let mut found = |version| oracle.pair_found(RANGE, pair, &[Mark::of(5, version, false)], sent).is_ok();
    assert!(!found(first) && found(second) && !found(pair) && !found(Version::MAX));
    assert_eq!(oracle.likely(0, 5), (second, false));
}
