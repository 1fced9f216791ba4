//! Flushes and lost caches, with writes on any core.

use hal_fakes::CachedMedia;

use super::*;
use crate::limits::HOST_FLUSH_LIMIT;
use crate::status::AWAY;

fn cached(seed: u64) -> Rig {
    let media: Box<dyn Media> = Box::new(CachedMedia::new(BLOCKS << 9));
    Rig::ready(seed, cores_of(seed), NvmeConfig::default(), vec![media])
}

fn lose_power(rig: &mut Rig) {
    rig.control.lose_power();
    rig.pass(Duration::from_secs(2));
    rig.run_until("it is back", |rig| !rig.is_ready() || rig.resets() > 0);
    rig.now = rig.now + Duration::from_secs(6);
    rig.run_until("it is back", Rig::is_ready);
    rig.run(100);
}

#[test]
fn a_flush_by_one_core_covers_what_others_had_acknowledged() {
    for seed in 0..60 {
        let mut rig = cached(seed);
        let cores = rig.cores.len();
        for core in 0..cores {
            assert_eq!(rig.execute(core, Operation::Write, core as u64, 1), Status::SUCCESS);
        }
        // A host hears of its write after the turn in which that has ended.
        (0..cores).for_each(|core| rig.turn(core));
        let flusher = rig.random.below(cores as u64) as usize;
        assert_eq!(rig.execute(flusher, Operation::Flush, 0, 0), Status::SUCCESS);
        let is_clean = |core: &Core| core.drive.next_unflushed().is_none();
        rig.run_until("all have heard of it", |rig| rig.cores.iter().all(is_clean));
        lose_power(&mut rig);
        assert_eq!(rig.losses(), vec![0; cores]);
        assert_eq!(rig.control.read_disk(1, 0, 1), [1]);
    }
}

#[test]
fn what_ends_beside_a_flush_of_another_core_is_not_covered() {
    for seed in 0..60 {
        let mut rig = cached(seed);
        let cores = rig.cores.len();
        rig.control.reconfigure(|config| config.latency_polls = (20, 20));
        let (flusher, writer) = (0, cores - 1);
        // Something to flush, and a write that is acknowledged while the Flush is at the drive.
        rig.begin(flusher, Operation::Flush, 0, 0);
        rig.turn(flusher);
        rig.now = rig.now + Duration::from_micros(1);
        rig.begin(writer, Operation::Write, 3, 9);
        while rig.cores[writer].ended.is_empty() {
            rig.turn(writer);
        }
        rig.run_until("the Flush has ended", |rig| !rig.cores[flusher].ended.is_empty());
        rig.run(100);
        assert_eq!(rig.cores[writer].drive.next_unflushed(), Some(1));
    }
}

#[test]
fn a_loss_is_told_once_on_each_core_and_found_at_the_same_time() {
    for seed in 0..60 {
        let mut rig = cached(seed);
        let cores = rig.cores.len();
        let writer = rig.random.below(cores as u64) as usize;
        assert_eq!(rig.execute(writer, Operation::Write, 0, 1), Status::SUCCESS);
        // Others flush nothing, since they flush before.
        if seed % 2 == 0 {
            let too = (writer + 1) % cores;
            assert_eq!(rig.execute(too, Operation::Write, 1, 2), Status::SUCCESS);
        }
        lose_power(&mut rig);
        assert_eq!(rig.losses(), vec![1; cores]);
        let found = rig.cores[0].drive.loss_found_at();
        assert!(rig.cores.iter().all(|core| core.drive.loss_found_at() == found));
        assert_eq!(rig.cores[rig.home].drive.counters().lost_caches, 1);
        // The next is another one.
        rig.execute(writer, Operation::Write, 0, 3);
        lose_power(&mut rig);
        assert_eq!(rig.losses(), vec![2; cores]);
        assert!(rig.cores[0].drive.loss_found_at() > found);
    }
}

#[test]
fn a_loss_is_told_before_any_core_sends_a_flush() {
    for seed in 0..60 {
        let mut rig = cached(seed);
        let cores = rig.cores.len();
        let writer = rig.random.below(cores as u64) as usize;
        assert_eq!(rig.execute(writer, Operation::Write, 0, 1), Status::SUCCESS);
        rig.control.set_fatal();
        rig.pass(Duration::from_secs(2));
        rig.run_until("it is being reset", |rig| rig.cores.iter().all(|core| !core.drive.is_ready()));
        rig.control.lose_power();
        // Those wait on all cores. They must not succeed before the core knows of the loss.
        (0..cores).for_each(|core| rig.begin(core, Operation::Flush, 0, 0));
        // An admin command may have been lost with the power: then the drive is tried again.
        while rig.outstanding() > 0 {
            rig.pass(Duration::from_secs(1));
            rig.run(2000);
        }
        assert!(rig.ends_of_all().iter().all(|status| [INTERRUPTED, AWAY].contains(status)));
        rig.run_until("all are told", |rig| rig.losses().iter().all(|count| *count > 0));
        assert_eq!(rig.losses(), vec![1; cores]);
    }
}

#[test]
fn a_flush_that_one_core_asks_for_is_for_all_writes() {
    for seed in 0..60 {
        let mut rig = cached(seed);
        let cores = rig.cores.len();
        for core in 0..cores {
            assert_eq!(rig.execute(core, Operation::Write, core as u64, 1), Status::SUCCESS);
        }
        let asker = rig.random.below(cores as u64) as usize;
        if seed % 3 == 0 {
            rig.inject((asker + 1) % cores, io::FLUSH, 1, NvmeEffect::Status(0x0280));
        }
        let now = rig.now;
        // Two at a time do not disturb each other.
        rig.cores[asker].drive.ask_flush(1, now);
        rig.cores[(asker + 1) % cores].drive.ask_flush(7, now);
        rig.run_until("all is flushed", |rig| rig.cores[asker].drive.flushed(1).is_some());
        rig.run_until("all is flushed", |rig| rig.cores[(asker + 1) % cores].drive.flushed(7).is_some());
        let failed = rig.cores[asker].drive.flushed(1) == Some(false);
        let dirty = rig.cores.iter().filter(|core| core.drive.next_unflushed().is_some()).count();
        rig.run(100);
        assert!(failed || dirty == 0, "{dirty} cores are dirty");
        if !failed {
            lose_power(&mut rig);
            assert_eq!(rig.control.read_disk(1, 0, 1), [1]);
        }
    }
}

#[test]
fn flushes_that_one_core_asks_for_one_after_another_keep_their_own_limits() {
    for seed in 0..60 {
        let mut rig = cached(seed);
        let cores = rig.cores.len();
        for core in 0..cores {
            assert_eq!(rig.execute(core, Operation::Write, core as u64, 1), Status::SUCCESS);
        }
        let asker = rig.random.below(cores as u64) as usize;
        // On all of them, since a Flush of one core is for the others' writes too.
        (0..cores).for_each(|core| rig.inject(core, io::FLUSH, 1, NvmeEffect::Never));
        let first = rig.now;
        rig.cores[asker].drive.ask_flush(1, first);
        rig.run_until("they hang", |rig| rig.control.io_commands(io::FLUSH) >= cores as u64);
        rig.pass(HOST_FLUSH_LIMIT / 2);
        let later = rig.now;
        for ticket in [2, 3] {
            rig.cores[asker].drive.ask_flush(ticket, later);
        }
        rig.run(300);
        let flushed = |rig: &Rig| [1, 2, 3].map(|ticket| rig.cores[asker].drive.flushed(ticket));
        assert_eq!(flushed(&rig), [None; 3]);
        rig.now = first + HOST_FLUSH_LIMIT;
        rig.run_until("the first is given up", |rig| flushed(rig)[0].is_some());
        assert_eq!(flushed(&rig), [Some(false), None, None]);
        rig.now = later + HOST_FLUSH_LIMIT;
        rig.run_until("the others are given up", |rig| flushed(rig)[2].is_some());
        assert_eq!(flushed(&rig), [Some(false); 3]);
        // The drive is reset meanwhile.
        rig.pass(COMMAND_TIMEOUT);
        rig.pass(COMMAND_TIMEOUT);
        rig.run_until("it is back", Rig::is_ready);
        let now = rig.now;
        rig.cores[asker].drive.ask_flush(4, now);
        rig.run_until("all is flushed", |rig| rig.cores[asker].drive.flushed(4) == Some(true));
        assert!(rig.cores.iter().all(|core| core.drive.next_unflushed().is_none()));
    }
}
