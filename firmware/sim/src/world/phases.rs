//! The course of a run: the card starts, faults strike, faults end and all must mend, all blocks are read, and at the
//! end everything is back.

use std::time::Duration;

use hal_api::Instant;

use super::World;
use crate::chaos::Schedule;
use crate::faults::Faults;
use crate::kinds::Kind;

/// In this time all drives are ready after the start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// In this time all mends once the faults are over: a failed drive is tried every 30 s, a lost write is waited for, and
/// hosts try again.
const MEND_LIMIT: Duration = Duration::from_secs(240);
/// In this time all blocks are read.
const AUDIT_LIMIT: Duration = Duration::from_secs(60);
/// In this time everything is back once the hosts have gone: a silent one is noticed after a minute or so.
const RETURN_LIMIT: Duration = Duration::from_secs(150);
/// Blocks of an audit's read.
const AUDIT_BLOCKS: u32 = 32;

impl World {
    /// The whole run.
    pub fn run(&mut self) {
        // Nobody connects before it is known what an idle card holds.
        self.common.over = true;
        self.until("all drives are ready", START_LIMIT, |world| {
            world.card.as_ref().is_some_and(crate::card::Card::drives_are_ready)
        });
        let fresh = self.card.as_ref().map(crate::card::Card::counts);
        self.common.over = false;
        self.begin_faults();
        let end = self.now() + Duration::from_millis(self.settings.faulty_ms);
        while self.now() < end {
            self.step();
        }
        self.mend();
        self.until("hosts and drives have mended", MEND_LIMIT, |world| {
            let Some(card) = &world.card else { return false };
            // A command of a lost connection may still hang at a drive, which is reset in the end.
            let ready = card.drives_are_ready() && card.at_drives() == (0, 0);
            ready && world.hosts.iter().all(crate::host::Host::is_idle)
        });
        self.audit();
        self.part();
        self.until("everything is back", RETURN_LIMIT, |world| {
            let Some(card) = &world.card else { return false };
            Some(card.counts()) == fresh && card.at_drives() == (0, 0)
        });
        self.common.trace.event(Kind::Quiet, &[], format_args!("{fresh:?}"));
    }

    fn begin_faults(&mut self) {
        let now = self.now();
        self.drives.begin_faults();
        for index in 0..self.drives.all.len() {
            let (failing, hanging) = self.drives.is_faulty(index);
            if failing {
                self.common.faults.fail(index);
            }
            if hanging || failing {
                self.common.faults.disturb(index);
            }
        }
        let random = self.random.fork();
        self.chaos = Schedule::new(&self.settings.chaos, now, random);
    }

    fn mend(&mut self) {
        self.chaos.end();
        self.network.clear_up();
        self.drives.mend();
        for hostile in &mut self.hostile {
            hostile.stop(&mut self.network);
        }
        self.note_losses();
        self.common.quiet = true;
    }

    /// Reads every block of every namespace, each by a host.
    fn audit(&mut self) {
        self.common.faults = Faults::new(self.drives.all.len());
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
        self.until("all blocks are read", AUDIT_LIMIT, |world| {
            world.hosts.iter().all(crate::host::Host::is_idle)
        });
    }

    /// All hosts leave for good.
    fn part(&mut self) {
        self.common.over = true;
        for host in &mut self.hosts {
            host.leave(&mut self.common);
        }
    }

    /// Lets time pass until something has come true.
    fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end: Instant = self.now() + limit;
        while !done(self) {
            if self.now() >= end {
                let hosts: Vec<String> = self.hosts.iter().map(crate::host::Host::describe).collect();
                let card = self.card.as_ref().map(|card| (card.counts(), card.at_drives()));
                panic!(
                    "VIOLATION: after {limit:?} it is not true that {what}\n{}\n{card:?}",
                    hosts.join("\n")
                );
            }
            self.step();
        }
    }
}
