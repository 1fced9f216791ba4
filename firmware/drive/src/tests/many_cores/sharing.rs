//! A drive that gives fewer queues than there are cores is shared.

use super::*;
use crate::limits::LENT_COMMANDS;

fn shared(seed: u64, config: NvmeConfig) -> Rig {
    let cores = cores_of(seed);
    let granted = 1 + (seed / 3 % (cores as u64 - 1)) as u16;
    let config = NvmeConfig { io_queues_granted: granted, ..config };
    Rig::ready(seed, cores, config, Vec::new())
}

#[test]
fn all_cores_read_what_any_has_written() {
    for seed in 0..60 {
        // Some pairs are smaller than the number of those who share them.
        let entries = [2, 4, 128, 1024][(seed / 6 % 4) as usize];
        let config = NvmeConfig { max_queue_entries: entries, queue_entries: 1024, ..NvmeConfig::default() };
        let mut rig = shared(seed, NvmeConfig { latency_polls: (0, 20), ..config });
        let cores = rig.cores.len();
        for core in 0..cores {
            // More than are lent at a time.
            for index in 0..3 * u64::from(LENT_COMMANDS) {
                rig.begin(core, Operation::Write, core as u64 * 60 + index, core as u8 + 1);
            }
        }
        rig.run_until("all have ended", |rig| rig.cores.iter().all(|core| core.ended.len() == 48));
        assert!(rig.ends_of_all().iter().all(|status| status.is_success()));
        for core in 0..cores {
            assert_eq!(rig.control.read_disk(1, core * 60 * 512, 48 * 512), vec![core as u8 + 1; 48 * 512]);
            assert_eq!(rig.execute(core, Operation::Flush, 0, 0), Status::SUCCESS);
            assert_eq!(rig.execute(core, Operation::Read, 0, 0), Status::SUCCESS);
        }
        rig.check_quiet();
    }
}

#[test]
fn an_abort_names_the_command_of_who_has_borrowed() {
    for seed in 0..60 {
        let mut rig = shared(seed, NvmeConfig::default());
        let cores = rig.cores.len();
        rig.control.set_abort(NvmeAbort::Works);
        // One that borrows.
        let borrower = cores - 1;
        rig.inject(borrower, io::READ, 3, NvmeEffect::Never);
        (0..3).for_each(|_| rig.begin(borrower, Operation::Read, 0, 0));
        rig.run(200);
        rig.now = rig.now + COMMAND_TIMEOUT;
        rig.run_until("all are aborted", |rig| rig.cores[borrower].ended.len() == 3);
        assert!(rig.ends_of_all().iter().all(|status| *status == INTERRUPTED));
        assert_eq!((rig.cores[borrower].drive.counters().aborted, rig.resets()), (3, 0));
        rig.check_quiet();
    }
}

#[test]
fn what_was_on_its_way_to_a_lender_never_comes_after_a_reset() {
    for seed in 0..100 {
        let mut rig = shared(seed, NvmeConfig { latency_polls: (0, 40), ..NvmeConfig::default() });
        let cores = rig.cores.len();
        let borrower = cores - 1;
        let lender = borrower % rig.pairs;
        for block in 0..10 {
            rig.begin(borrower, Operation::Write, block, 1);
        }
        // Its commands lie in the way to the lender, which hears nothing of them before the drive is back.
        rig.turn(borrower);
        let stuck: Vec<_> = rig.ways[borrower][lender].drain(..).collect();
        assert!(lender == rig.home || stuck.iter().all(|body| matches!(body, Body::Lane { .. })));
        let (lanes, others): (Vec<_>, Vec<_>) =
            stuck.into_iter().partition(|body| matches!(body, Body::Lane { .. }));
        assert!(!lanes.is_empty());
        rig.ways[borrower][lender].extend(others);
        rig.control.set_fatal();
        rig.pass(Duration::from_secs(2));
        rig.run_until("it was reset", |rig| rig.resets() == 1 && rig.is_ready());
        lanes.into_iter().rev().for_each(|body| rig.ways[borrower][lender].push_front(body));
        rig.run_until("all have ended", |rig| rig.cores[borrower].ended.len() == 10);
        assert!(rig.ends_of_all().iter().all(|status| *status == INTERRUPTED));
        assert_eq!(rig.execute(borrower, Operation::Write, 0, 2), Status::SUCCESS);
        rig.run(2000);
        assert_eq!(rig.control.read_disk(1, 0, 1), [2]);
        assert_eq!(rig.control.read_disk(1, 512, 1), [0]);
        rig.check_quiet();
    }
}
