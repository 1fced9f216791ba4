//! Hosts that have to hear of lost writes: acknowledged, not flushed, and gone with a drive's power.
//!
//! Nothing was promised of a write before a Flush has succeeded (NVM 3.2.1), so that the Flush is where its host hears
//! of the loss: the first one of each host to such a namespace fails. Who has written what is not kept: every host
//! that has, or lately had, a controller is told.

use heapless::{Deque, Vec};

use crate::config::{MAX_DEPARTED_HOSTS, MAX_NAMESPACES};
use crate::slot::{Controller, ControllerHandle};
use crate::subsystem::Subsystem;

/// Namespaces whose next Flush fails.
#[derive(Debug, Clone)]
pub(crate) struct LostWrites {
    untold: Nsids,
    /// Those whose Flush has failed, and no other came since.
    told: Nsids,
}

/// A few namespaces, the latest last.
#[derive(Debug, Clone)]
struct Nsids(Vec<u32, MAX_NAMESPACES>);

impl Nsids {
    fn add(&mut self, nsid: u32) {
        if self.0.contains(&nsid) {
            return;
        }
        if self.0.is_full() {
            self.0.remove(0);
        }
        let _ = self.0.push(nsid);
    }

    fn take(&mut self, nsid: u32) -> bool {
        let found = self.0.iter().position(|&lost| lost == nsid);
        found.map(|index| self.0.swap_remove(index)).is_some()
    }
}

impl LostWrites {
    pub(crate) const fn new() -> Self {
        Self { untold: Nsids(Vec::new()), told: Nsids(Vec::new()) }
    }

    fn note(&mut self, nsid: u32) {
        self.untold.add(nsid);
    }

    fn take(&mut self, nsid: u32) -> bool {
        self.told.take(nsid);
        let lost = self.untold.take(nsid);
        if lost {
            self.told.add(nsid);
        }
        lost
    }

    /// What a host that comes back is told: it may not have got the answer of its last Flush.
    fn note_all_of(&mut self, other: &Self) {
        other.untold.0.iter().chain(&other.told.0).for_each(|&nsid| self.note(nsid));
    }
}

/// Hosts whose controllers with I/O queues have gone, the latest last: they may come back and ask for a Flush.
#[derive(Debug)]
pub(crate) struct DepartedHosts {
    hosts: Deque<([u8; 16], LostWrites), MAX_DEPARTED_HOSTS>,
    /// For all that had no room any more, once there was one: hosts that nobody remembers are told too much, not too little.
    others: Option<LostWrites>,
}

impl DepartedHosts {
    pub(crate) const fn new() -> Self {
        Self { hosts: Deque::new(), others: None }
    }

    /// One entry for each host, so that one that comes and goes does not push out the others.
    pub(crate) fn add(&mut self, host_id: [u8; 16], mut lost: LostWrites) {
        lost.note_all_of(&self.of(host_id));
        for _ in 0..self.hosts.len() {
            let Some(entry) = self.hosts.pop_front() else { break };
            if entry.0 != host_id {
                let _ = self.hosts.push_back(entry);
            }
        }
        if self.hosts.is_full()
            && let Some((_, forgotten)) = self.hosts.pop_front()
        {
            self.others.get_or_insert(LostWrites::new()).note_all_of(&forgotten);
        }
        let _ = self.hosts.push_back((host_id, lost));
    }

    /// What a host that comes back has not heard yet.
    pub(crate) fn of(&self, host_id: [u8; 16]) -> LostWrites {
        let mut all = LostWrites::new();
        for (_, lost) in self.hosts.iter().filter(|(id, _)| *id == host_id) {
            all.note_all_of(lost);
        }
        all
    }

    /// What a host is told that has no other controller: also what it may have missed, where it may have been forgotten.
    fn of_newcomer(&self, host_id: [u8; 16]) -> LostWrites {
        let mut all = self.of(host_id);
        if let Some(others) =
            self.others.as_ref().filter(|_| !self.hosts.iter().any(|(id, _)| *id == host_id))
        {
            all.note_all_of(others);
        }
        all
    }

    fn note(&mut self, nsid: u32) {
        self.hosts
            .iter_mut()
            .map(|(_, lost)| lost)
            .chain(self.others.iter_mut())
            .for_each(|lost| lost.note(nsid));
    }

    /// The host has heard of it.
    fn take(&mut self, host_id: [u8; 16], nsid: u32) {
        for (_, lost) in self.hosts.iter_mut().filter(|(id, _)| *id == host_id) {
            lost.untold.take(nsid);
            lost.told.take(nsid);
        }
    }
}

impl Subsystem {
    /// Acknowledged writes to a namespace are lost: the next Flush of each host to it fails.
    pub fn note_lost_writes(&mut self, nsid: u32) {
        for controller in self.controllers_mut().filter(|controller| !controller.discovery) {
            controller.lost_writes.note(nsid);
        }
        self.departed.note(nsid);
    }

    /// What a host that connects has not heard yet, or may not have: its old controller may not have gone yet.
    pub(crate) fn lost_writes_of(&self, host_id: [u8; 16]) -> LostWrites {
        let of_host = |controller: &&Controller| controller.host_id == host_id && !controller.discovery;
        let is_new = !self.controllers().any(|controller| of_host(&controller));
        let mut all = if is_new { self.departed.of_newcomer(host_id) } else { self.departed.of(host_id) };
        self.controllers().filter(of_host).for_each(|old| all.note_all_of(&old.lost_writes));
        all
    }

    /// Whether a Flush of this controller to the namespace has to fail; true once for each loss.
    pub fn take_lost_writes(&mut self, handle: ControllerHandle, nsid: u32) -> bool {
        let Some(controller) = self.controller_mut(handle) else { return false };
        let host_id = controller.host_id;
        let lost = controller.lost_writes.take(nsid);
        if lost {
            self.departed.take(host_id, nsid);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, HOST, NQN};

    #[test]
    fn a_loss_is_told_once_for_each_namespace() {
        let mut bench = Bench::connected();
        let handle = bench.admin.controller;
        assert!(!bench.subsystem.take_lost_writes(handle, 3));
        bench.subsystem.note_lost_writes(3);
        bench.subsystem.note_lost_writes(3);
        assert!(!bench.subsystem.take_lost_writes(handle, 4));
        assert!(bench.subsystem.take_lost_writes(handle, 3));
        assert!(!bench.subsystem.take_lost_writes(handle, 3));
    }

    #[test]
    fn a_host_that_may_not_have_got_the_answer_is_told_again() {
        let mut lost = LostWrites::new();
        lost.note(9);
        assert!(lost.take(9));
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], lost.clone());
        assert!(departed.of([1; 16]).take(9));
        // With another Flush it has shown that it went on.
        assert!(!lost.take(9));
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], lost);
        assert!(!departed.of([1; 16]).take(9));
    }

    #[test]
    fn a_host_that_comes_back_before_its_old_controller_has_gone_is_told() {
        let mut bench = Bench::connected();
        let handle = bench.admin.controller;
        let host_id = bench.subsystem.controller(handle).map(|controller| controller.host_id);
        bench.subsystem.note_lost_writes(3);
        assert!(bench.subsystem.lost_writes_of(host_id.unwrap_or_default()).take(3));
        assert!(!bench.subsystem.lost_writes_of([0x77; 16]).take(3));
    }

    #[test]
    fn a_host_that_was_away_is_told_when_it_comes_back() {
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], LostWrites::new());
        departed.add([2; 16], LostWrites::new());
        departed.note(9);
        assert!(departed.of([1; 16]).take(9) && !departed.of([3; 16]).take(9));
        departed.take([1; 16], 9);
        assert!(!departed.of([1; 16]).take(9) && departed.of([2; 16]).take(9));
    }

    #[test]
    fn hosts_that_never_had_an_io_queue_do_not_push_out_those_that_had() {
        let mut bench = Bench::ready();
        let (host, others) = (bench.controller().host_id, MAX_DEPARTED_HOSTS as u8);
        bench.subsystem.disconnect_queue(bench.admin.controller, 0);
        for other in 0..=others {
            let (command, mut data) = crate::testing::connect_parts(NQN, HOST, 0, 0xffff);
            data.host_id = [100 + other; 16];
            let connected =
                bench.subsystem.connect(bench.now, crate::PortId::FIRST, &command, &data).unwrap();
            bench.subsystem.disconnect_queue(connected.controller, 0);
        }
        bench.subsystem.note_lost_writes(7);
        assert!(bench.subsystem.departed.of(host).take(7));
    }

    #[test]
    fn a_host_that_strangers_pushed_out_is_told_all_the_same() {
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], LostWrites::new());
        departed.note(8);
        assert!(!departed.of_newcomer([2; 16]).take(8), "nobody was forgotten");
        for stranger in 0..MAX_DEPARTED_HOSTS as u8 {
            departed.add([100 + stranger; 16], LostWrites::new());
        }
        departed.note(9);
        let mut told = departed.of_newcomer([1; 16]);
        assert!(told.take(8) && told.take(9));
        assert!(!departed.of_newcomer([100; 16]).take(8), "remembered, and was not there then");
    }

    #[test]
    fn a_host_that_comes_and_goes_does_not_push_out_the_others() {
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], LostWrites::new());
        departed.note(9);
        for _ in 0..2 * MAX_DEPARTED_HOSTS {
            departed.add([2; 16], LostWrites::new());
        }
        departed.add([1; 16], LostWrites::new());
        assert!(departed.of([1; 16]).take(9));
    }
}
