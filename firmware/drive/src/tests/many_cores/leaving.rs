//! Orderly ends and removals with requests on all cores.

use hal_fakes::CachedMedia;

use super::*;
use crate::limits::CLOSING_LIMIT;

fn busy(seed: u64) -> Rig {
    let media: Box<dyn Media> = Box::new(CachedMedia::new(BLOCKS << 9));
    let config = NvmeConfig { latency_polls: (0, 200), ..NvmeConfig::default() };
    let mut rig = Rig::ready(seed, cores_of(seed), config, vec![media]);
    for core in 0..rig.cores.len() {
        (0..8).for_each(|block| rig.begin(core, Operation::Write, core as u64 * 8 + block, 5));
    }
    let steps = rig.random.below(60) as usize;
    rig.run(steps);
    rig
}

fn is_over(rig: &Rig) -> bool {
    rig.cores.iter().all(|core| core.drive.is_shut_down())
}

#[test]
fn an_orderly_end_begins_when_all_cores_want_it_and_flushes_what_all_have_written() {
    for seed in 0..60 {
        let mut rig = busy(seed);
        let cores = rig.cores.len();
        let last = rig.random.below(cores as u64) as usize;
        let now = rig.now;
        (0..cores).filter(|&core| core != last).for_each(|core| rig.cores[core].drive.begin_shutdown(now));
        rig.run(300);
        assert!(!is_over(&rig) && rig.control.bus_master());
        assert!(rig.submit((last + 1) % cores, request(Operation::Flush, 0, 0, Pages::NONE)).is_err());
        assert_eq!(rig.execute(last, Operation::Flush, 0, 0), Status::SUCCESS, "it still serves");
        let now = rig.now;
        rig.cores[last].drive.begin_shutdown(now);
        rig.run_until("it is over", is_over);
        assert!(rig.cores[rig.home].drive.has_ended_well() && !rig.control.bus_master());
        rig.control.lose_power();
        for block in 0..8 * cores {
            assert_eq!(rig.control.read_disk(1, block * 512, 1), [5]);
        }
        assert_eq!(rig.losses(), vec![0; cores]);
        rig.check_quiet();
    }
}

#[test]
fn a_core_on_which_a_drive_is_shut_down_is_needed_by_no_other() {
    for seed in 0..60 {
        let mut rig = busy(seed);
        if seed % 2 == 0 {
            rig.control.inject(NvmeInjection {
                queue: None,
                opcode: Some(io::FLUSH),
                skip: 0,
                count: 9,
                effect: NvmeEffect::Status(0x0280),
            });
        }
        let now = rig.now;
        rig.cores.iter_mut().for_each(|core| core.drive.begin_shutdown(now));
        rig.stops = true;
        rig.run_until("it is over", is_over);
        let losses = rig.losses();
        assert_eq!(losses, vec![losses[0]; rig.cores.len()]);
    }
}

#[test]
fn a_request_that_hangs_on_one_core_does_not_hold_up_the_end_of_the_others() {
    for seed in 0..40 {
        let mut rig = busy(seed);
        let cores = rig.cores.len();
        let culprit = rig.random.below(cores as u64) as usize;
        rig.run_until("all have ended", |rig| rig.outstanding() == 0);
        rig.inject(culprit, io::WRITE, 1, NvmeEffect::Never);
        rig.begin(culprit, Operation::Write, 0, 6);
        rig.run(100);
        let now = rig.now;
        (0..cores).for_each(|core| rig.cores[core].drive.begin_shutdown(now));
        rig.run(2000);
        assert!(!is_over(&rig));
        rig.pass(CLOSING_LIMIT);
        rig.run_until("it is over", is_over);
        assert_eq!(rig.losses(), vec![0; cores], "what was acknowledged was flushed before");
        rig.run(100);
        rig.check_quiet();
    }
}

#[test]
fn a_pulled_drive_ends_all_requests_and_tells_all_cores_of_losses() {
    for seed in 0..100 {
        let mut rig = busy(seed);
        let cores = rig.cores.len();
        let acknowledged = rig.cores.iter().any(|core| core.drive.next_unflushed().is_some());
        rig.control.set_removed(true);
        let (home, now) = (rig.home, rig.now);
        let core = &mut rig.cores[home];
        core.drive.leave(false, now, &mut core.pool);
        assert!(!rig.control.bus_master());
        rig.run_until("it is over", |rig| rig.cores[rig.home].drive.is_shut_down());
        rig.run(100);
        rig.check_quiet();
        let losses = rig.losses();
        assert!(losses == vec![1; cores] || (!acknowledged && losses == vec![0; cores]), "{losses:?}");
        for core in 0..cores {
            assert!(rig.submit(core, request(Operation::Flush, 0, 0, Pages::NONE)).is_err());
        }
    }
}
