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
