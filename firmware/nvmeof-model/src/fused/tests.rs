//! Histories that can be, and such that cannot.

use super::*;

const SUCCESS: [u16; 2] = [0, 0];
const FAILURE: [u16; 2] = [COMPARE_FAILURE, ABORTED_FAILED_FUSED];

/// A judge who has seen one write, which has ended: number 1.
fn judge() -> Judge {
    let mut judge = Judge::default();
    let first = judge.write_begins();
    judge.write_ended(first).unwrap();
    judge
}

/// A pair that is sent, and expects what a read has just found.
fn pair(judge: &mut Judge, expects: u32) -> u32 {
    let read = judge.read_begins();
    judge.read_found(read, expects).unwrap();
    judge.pair_begins(read, expects)
}

/// A read from its beginning to its end.
fn read(judge: &mut Judge, id: u32) -> Result<(), String> {
    let read = judge.read_begins();
    let judged = judge.read_found(read, id);
    judge.read_over(read);
    judged
}

fn is_refused(judged: Result<(), String>, with: &str) {
    let why = judged.expect_err("this cannot be");
    assert!(why.contains(with), "{why}");
}

#[test]
fn pairs_one_behind_the_other_are_atomic() {
    let mut judge = judge();
    let mut stands = 1;
    for _ in 0..1000 {
        let id = pair(&mut judge, stands);
        judge.pair_ended(id, SUCCESS).unwrap();
        stands = id;
    }
    read(&mut judge, stands).unwrap();
    assert_eq!(judge.tally(), Tally { writes: 1, successes: 1000, failures: 0, contested: 0 });
    assert!(judge.values.len() < 2 * WRITES_BETWEEN_LOOKS as usize);
}

#[test]
fn a_write_under_way_may_come_before_a_pair_or_after_it() {
    for written_last in [false, true] {
        let mut judge = judge();
        let id = pair(&mut judge, 1);
        let write = judge.write_begins();
        judge.write_ended(write).unwrap();
        if written_last {
            judge.pair_ended(id, SUCCESS).unwrap();
            read(&mut judge, write).unwrap();
        } else {
            judge.pair_ended(id, FAILURE).unwrap();
            read(&mut judge, write).unwrap();
            is_refused(read(&mut judge, id), "of a pair that failed");
        }
        assert_eq!(judge.tally().contested, 1);
    }
}

#[test]
fn a_write_that_came_into_a_pair_is_found() {
    let mut judge = judge();
    let id = pair(&mut judge, 1);
    // Sent after value 1 had its place, so it comes after the pair; and both have ended.
    let write = judge.write_begins();
    judge.write_ended(write).unwrap();
    judge.pair_ended(id, SUCCESS).unwrap();
    is_refused(read(&mut judge, id), "was lost");
}

#[test]
fn a_pair_of_another_that_came_into_a_pair_is_found() {
    let mut judge = judge();
    let [one, two] = [pair(&mut judge, 1), pair(&mut judge, 1)];
    judge.pair_ended(one, SUCCESS).unwrap();
    is_refused(judge.pair_ended(two, SUCCESS), "have both found 1");
}

#[test]
fn a_compare_that_found_what_was_replaced_before_is_found() {
    let mut judge = judge();
    let first_read = judge.read_begins();
    judge.read_found(first_read, 1).unwrap();
    let write = judge.write_begins();
    judge.write_ended(write).unwrap();
    let id = judge.pair_begins(first_read, 1);
    is_refused(judge.pair_ended(id, SUCCESS), "was lost");
}

#[test]
fn a_pair_that_failed_has_an_excuse_and_leaves_nothing() {
    let mut judge = judge();
    let id = pair(&mut judge, 1);
    is_refused(judge.pair_ended(id, FAILURE), "nobody wrote since");

    let mut judge = self::judge();
    let id = pair(&mut judge, 1);
    read(&mut judge, id).unwrap();
    judge.write_begins();
    is_refused(judge.pair_ended(id, FAILURE), "was seen");
}

#[test]
fn other_statuses_and_values_that_nobody_wrote_are_found() {
    let mut judge = judge();
    let id = pair(&mut judge, 1);
    is_refused(judge.pair_ended(id, [0, ABORTED_FAILED_FUSED]), "ended with 0x0 and 0x9");
    is_refused(read(&mut judge, 77), "nobody wrote it");
    is_refused(judge.write_ended(1), "not under way");
}

#[test]
fn what_was_forgotten_is_still_found_when_it_comes_back() {
    let mut judge = judge();
    // Something that never ends, and a pair's value that is followed by many.
    judge.write_begins();
    let id = pair(&mut judge, 1);
    judge.pair_ended(id, SUCCESS).unwrap();
    for _ in 0..10 * WRITES_BETWEEN_LOOKS {
        let write = judge.write_begins();
        judge.write_ended(write).unwrap();
    }
    assert!(judge.values.len() < 2 * WRITES_BETWEEN_LOOKS as usize);
    is_refused(read(&mut judge, id), "it was replaced");
}

#[test]
fn nothing_is_forgotten_that_a_slow_read_may_find() {
    let mut judge = judge();
    let slow = judge.read_begins();
    for _ in 0..10 * WRITES_BETWEEN_LOOKS {
        let write = judge.write_begins();
        judge.write_ended(write).unwrap();
    }
    judge.read_found(slow, 1).unwrap();
    let id = judge.pair_begins(slow, 1);
    judge.pair_ended(id, FAILURE).unwrap();
    assert!(judge.open.is_empty());
}

#[test]
fn what_a_pair_expected_counts_after_it_was_forgotten() {
    let mut judge = judge();
    let id = pair(&mut judge, 1);
    // It has its place already, and its answer comes late.
    for _ in 0..2 * WRITES_BETWEEN_LOOKS {
        let write = judge.write_begins();
        judge.write_ended(write).unwrap();
    }
    judge.open.clear();
    judge.forget();
    assert!(!judge.values.contains_key(&1));
    is_refused(read(&mut judge, id), "was lost");
}

#[test]
fn contents_tell_writes_and_places_apart() {
    let data = contents(3, 7, 4096);
    assert_eq!(id_of(3, &data), Some(7));
    assert_eq!(id_of(4, &data), None);
    let mut torn = contents(3, 8, 4096);
    torn[..64].copy_from_slice(&data[..64]);
    assert_eq!(id_of(3, &torn), None);
    assert_eq!(id_of(3, &[]), None);
}
