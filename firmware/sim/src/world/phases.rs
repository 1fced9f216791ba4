//! The course of a run: the card starts, faults strike, faults end and all must mend, all blocks are read, and at the
//! end everything is back.

use std::time::Duration;

use hal_api::Instant;

use super::World;
use crate::card::Card;
use crate::chaos::Schedule;
use crate::faults::Faults;
use crate::host::Host;
use crate::kinds::Kind;

/// In this time all drives are ready after the start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// In this time all mends once the faults are over: a failed drive is tried every 30 s, a lost write is waited for, and
/// hosts try again.
const MEND_LIMIT: Duration = Duration::from_secs(240);
/// In this time a drive's state and a host's connections have been looked at.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// In this time all blocks are read.
const AUDIT_LIMIT: Duration = Duration::from_secs(60);
/// In this time everything is back once the hosts have gone: a silent one is noticed after a minute or so.
const RETURN_LIMIT: Duration = Duration::from_secs(150);
/// In this time the card is off after its power button was pressed.
const OFF_LIMIT: Duration = Duration::from_secs(60);
/// Blocks of an audit's read.
const AUDIT_BLOCKS: u32 = 32;

/// Counts how often hosts that had an association lost it and have one again.
struct Returns {
    /// Each host's state; `None` before its first association.
    ready: Vec<Option<bool>>,
    count: u64,
}

impl Returns {
    fn new(hosts: usize) -> Self {
        Self { ready: vec![None; hosts], count: 0 }
    }

    /// Looks at a host; whether it has just come back.
    fn note(&mut self, host: usize, ready: bool) -> bool {
        let before = self.ready[host];
        if ready || before.is_some() {
            self.ready[host] = Some(ready);
        }
        let back = ready && before == Some(false);
        self.count += u64::from(back);
        back
    }
}

impl World {
    /// The whole run.
    pub fn run(&mut self) {
        self.start();
        let end = self.now() + Duration::from_millis(self.settings.faulty_ms);
        while self.now() < end {
            self.step();
        }
        self.finish();
    }

    /// Hosts go in every way that there is and come back, so many times in all.
    pub fn run_cycles(&mut self, cycles: u64) {
        self.start();
        let mut returns = Returns::new(self.hosts.len());
        let mut last = self.now();
        while returns.count < cycles {
            self.step();
            for index in 0..self.hosts.len() {
                let ready = self.hosts[index].is_ready();
                if returns.note(index, ready) {
                    last = self.now();
                }
                // A stall counts only where the connection is lost over it.
                if ready && self.random.u32(0..200) == 0 {
                    self.strike_host(index);
                    returns.note(index, self.hosts[index].is_ready());
                }
            }
            assert!(self.now() < last + MEND_LIMIT, "VIOLATION: no host has come back for {MEND_LIMIT:?}");
        }
        self.finish();
    }

    /// Until all drives that are there are ready, and the pools are whole then.
    fn start(&mut self) {
        // Nobody connects before it is known what an idle card holds.
        self.common.over = true;
        self.until("all drives are ready", START_LIMIT, |world| {
            let Some(card) = &world.card else { return false };
            let drives = world.drives.all.len();
            card.drives_ready() == (0..drives).filter(|&index| world.drives.is_there(index)).count()
        });
        // A drive that is not there has not taken its pages.
        if self.settings.drives.iter().all(|drive| !drive.absent) {
            let whole = |world: &Self| world.card.as_ref().is_some_and(Card::is_whole);
            self.until("the pools are whole", START_LIMIT, whole);
        }
        self.common.over = false;
        self.begin_faults();
    }

    /// Faults end, all mends, all blocks are read, all hosts go, and all is back.
    fn finish(&mut self) {
        self.mend();
        self.await_mended();
        if self.settings.ends {
            self.press_power_button();
            self.until("the card is off", OFF_LIMIT, |world| world.card.is_none());
            self.await_mended();
        }
        if self.settings.farewell {
            self.bid_farewell();
        }
        self.audit();
        self.part();
        self.until("everything is back", RETURN_LIMIT, |world| {
            world.card.as_ref().is_some_and(Card::is_whole)
        });
        let counts = self.card.as_ref().map(Card::counts);
        self.common.trace.event(Kind::Quiet, &[], format_args!("{counts:?}"));
    }

    /// All hosts shut their controllers down, and nobody is there to miss what the drives' caches lose then.
    fn bid_farewell(&mut self) {
        self.common.over = true;
        self.hosts.iter_mut().for_each(|host| host.shut_down(&mut self.common));
        self.until("all controllers are shut down", MEND_LIMIT, |world| {
            world.hosts.iter().all(Host::is_away)
        });
        self.cut_power();
        self.common.over = false;
        self.await_mended();
    }

    fn await_mended(&mut self) {
        // The second time after all have had a look at each other: a fatal drive is noticed after a second only.
        for _ in 0..2 {
            self.until("hosts and drives have mended", MEND_LIMIT, |world| {
                let Some(card) = &world.card else { return false };
                // A command of a lost connection may still hang at a drive, which is reset in the end.
                let ready = card.drives_ready() == world.drives.all.len() && card.at_drives() == (0, 0);
                let knows = |host: &Host| host.is_idle() && host.knows_all(&world.common);
                ready && world.drives.nobody_leaves() && world.hosts.iter().all(knows)
            });
            let looked = self.now() + LOOK_AROUND;
            while self.now() < looked {
                self.step();
            }
        }
    }

    fn begin_faults(&mut self) {
        let now = self.now();
        self.drives.begin_faults();
        for index in 0..self.drives.all.len() {
            let (failing, hanging) = self.drives.is_faulty(index);
            if failing {
                self.common.faults.fail(index);
            }
            if hanging || failing || !self.drives.is_there(index) {
                self.common.faults.disturb(index);
            }
        }
        self.drives.let_absent_come(now);
        let random = self.random.fork();
        self.chaos = Schedule::new(&self.settings.chaos, now, random);
    }

    fn mend(&mut self) {
        self.chaos.end();
        self.network.clear_up();
        self.drives.mend(self.card.as_ref());
        for hostile in &mut self.hostile {
            hostile.stop(&mut self.network);
        }
        self.note_losses();
        self.common.quiet = true;
    }

    /// Reads every block of every namespace, each by a host.
    fn audit(&mut self) {
        self.common.faults = Faults::new(self.drives.all.len(), self.settings.slots);
        // All reads are sent at once.
        self.common.patience = Duration::MAX;
        let targets: Vec<_> = self.common.targets.values().copied().collect();
        for target in targets {
            let mut lba = 0;
            while lba < target.blocks {
                let blocks = AUDIT_BLOCKS.min((target.blocks - lba) as u32);
                let host = self.random.usize(0..self.hosts.len());
                let taken = self.hosts[host].read_all(&mut self.common, target, lba, blocks);
                if taken {
                    lba += u64::from(blocks);
                    self.hosts[host].step(&mut self.common, &mut self.network);
                } else {
                    self.step();
                }
            }
        }
        self.until("all blocks are read", AUDIT_LIMIT, |world| world.hosts.iter().all(Host::is_idle));
    }

    /// All hosts leave for good.
    fn part(&mut self) {
        self.common.over = true;
        for host in &mut self.hosts {
            if self.random.bool() {
                host.shut_down(&mut self.common);
            } else {
                host.leave(&mut self.common);
            }
        }
    }

    /// Lets time pass until something has come true.
    fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end: Instant = self.now() + limit;
        while !done(self) {
            if self.now() >= end {
                let hosts: Vec<String> = self.hosts.iter().map(Host::describe).collect();
                let card =
                    self.card.as_ref().map(|card| (card.counts(), card.at_drives(), card.pending_changes()));
                panic!(
                    "VIOLATION: after {limit:?} it is not true that {what}\n{}\n{card:?}",
                    hosts.join("\n")
                );
            }
            self.step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_association_that_is_followed_by_another_counts() {
        let mut returns = Returns::new(2);
        // It connects for the first time, and stalls without losing anything.
        let first: Vec<bool> = [false, true, true, true].map(|ready| returns.note(0, ready)).into();
        assert_eq!(first, [false; 4]);
        // The other one has lost its association.
        returns.note(1, true);
        returns.note(1, false);
        assert_eq!(returns.count, 0);
        assert!(!returns.note(1, false));
        assert!(returns.note(1, true));
        assert!(!returns.note(1, true));
        assert_eq!(returns.count, 1);
    }
}
