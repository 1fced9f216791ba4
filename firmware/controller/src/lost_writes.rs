//! Hosts that have to hear of lost writes: acknowledged, not flushed, and gone with a drive's power.
//!
//! Nothing was promised of a write before a Flush has succeeded (NVM 3.2.1), so that the Flush is where its host hears
//! of the loss: the first one of each host to such a namespace fails. Who has written what is not kept: every host
//! that has, or lately had, a controller is told. With several data cores each core knows of each loss, and the core that tells
//! a host says so to the others. A namespace is its key on the card here, in whichever subsystem it is, or will be.

use core::time::Duration;

use hal_api::Instant;
use heapless::{Deque, Vec};
use message::LostList;

use crate::admit::BlockWork;
use crate::config::{MAX_DEPARTED_HOSTS, MAX_NAMESPACES, MAX_RECENTLY_TOLD};
use crate::cores::Message;
use crate::slot::{Controller, ControllerHandle};
use crate::subsystem::Subsystem;

/// So long after a Flush has failed its host has the answer, or has lost the connection: what cannot be sent for 90 s ends it.
const HEARD_AFTER: Duration = Duration::from_secs(120);

/// Namespaces whose next Flush fails.
#[derive(Debug, Clone)]
pub(crate) struct LostWrites {
    untold: Losses,
    /// Those whose Flush has failed, and when it first did: its host may not have got the answer. Other Flushes prove nothing for a
    /// while; they may have been sent before it came.
    told: Losses,
}

/// A few namespaces, and when the latest loss of each was found out.
#[derive(Debug, Clone)]
struct Losses(Vec<(u32, Instant), MAX_NAMESPACES>);

impl Losses {
    fn add(&mut self, key: u32, at: Instant) {
        if let Some((_, known)) = self.0.iter_mut().find(|(lost, _)| *lost == key) {
            *known = at.max(*known);
            return;
        }
        if self.0.is_full() {
            self.0.remove(0);
        }
        let _ = self.0.push((key, at));
    }

    /// Takes the note of a loss until `told`; returns when it was found out.
    fn take(&mut self, key: u32, told: Instant) -> Option<Instant> {
        let found = self.0.iter().position(|&(lost, at)| lost == key && at <= told);
        found.map(|index| self.0.swap_remove(index).1)
    }
}

impl LostWrites {
    pub(crate) const fn new() -> Self {
        Self { untold: Losses(Vec::new()), told: Losses(Vec::new()) }
    }

    pub(crate) fn note(&mut self, key: u32, at: Instant) {
        self.untold.add(key, at);
    }

    /// A Flush has come: takes the note of a loss; returns when it was found out.
    pub(crate) fn take(&mut self, key: u32, now: Instant) -> Option<Instant> {
        let at = self.untold.take(key, Instant::FAR_FUTURE)?;
        // A loss that was told before keeps its time: else one that comes and goes would be told for ever.
        if !self.told.0.contains(&(key, at)) {
            self.told.add(key, at.max(now));
        }
        Some(at)
    }

    /// The host was told of losses until `told` elsewhere.
    fn forget(&mut self, key: u32, told: Instant) {
        self.untold.take(key, told);
        self.told.take(key, told);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.untold.0.iter().for_each(|&(key, at)| self.untold.add(key, at));
        other.told.0.iter().for_each(|&(key, at)| self.told.add(key, at));
    }

    /// What a host that comes back is told: also what it was told lately, as it may not have got the answer.
    pub(crate) fn with_told_lately(mut self, now: Instant) -> Self {
        self.told.0.retain(|&(_, at)| now.since(at) < HEARD_AFTER);
        self.told.0.iter().for_each(|&(key, at)| self.untold.add(key, at));
        self
    }

    /// What fits into a message.
    pub(crate) fn list(&self) -> LostList {
        let mut list = LostList::default();
        self.untold.0.iter().for_each(|&(key, _)| list.note(key));
        list
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
        lost.merge(&self.of(host_id));
        for _ in 0..self.hosts.len() {
            let Some(entry) = self.hosts.pop_front() else { break };
            if entry.0 != host_id {
                let _ = self.hosts.push_back(entry);
            }
        }
        if self.hosts.is_full()
            && let Some((_, forgotten)) = self.hosts.pop_front()
        {
            self.others.get_or_insert(LostWrites::new()).merge(&forgotten);
        }
        let _ = self.hosts.push_back((host_id, lost));
    }

    /// What a host that comes back has not heard yet.
    pub(crate) fn of(&self, host_id: [u8; 16]) -> LostWrites {
        let mut all = LostWrites::new();
        for (_, lost) in self.hosts.iter().filter(|(id, _)| *id == host_id) {
            all.merge(lost);
        }
        all
    }

    /// What a host is told that has no other controller: also what it may have missed, where it may have been forgotten.
    fn of_newcomer(&self, host_id: [u8; 16]) -> LostWrites {
        let mut all = self.of(host_id);
        if let Some(others) =
            self.others.as_ref().filter(|_| !self.hosts.iter().any(|(id, _)| *id == host_id))
        {
            all.merge(others);
        }
        all
    }

    fn note(&mut self, key: u32, at: Instant) {
        self.hosts
            .iter_mut()
            .map(|(_, lost)| lost)
            .chain(self.others.iter_mut())
            .for_each(|lost| lost.note(key, at));
    }

    /// The host has heard of it.
    fn take(&mut self, host_id: [u8; 16], key: u32, told: Instant) {
        for (_, lost) in self.hosts.iter_mut().filter(|(id, _)| *id == host_id) {
            lost.forget(key, told);
        }
    }
}

/// Hosts that another core has told of a loss lately. The drive may be yet to tell this core of that loss.
#[derive(Debug)]
pub(crate) struct RecentlyTold(Deque<Told, MAX_RECENTLY_TOLD>);

/// A host was told of all losses of a namespace until then.
#[derive(Debug, Clone, Copy)]
struct Told {
    cntlid: u16,
    host_id: [u8; 16],
    key: u32,
    until: Instant,
}

impl RecentlyTold {
    pub(crate) const fn new() -> Self {
        Self(Deque::new())
    }

    fn add(&mut self, told: Told) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        let _ = self.0.push_back(told);
    }

    /// Those after the first `skip` who have heard of a loss that was found out then: the next of them, and its place.
    fn next(&self, skip: usize, key: u32, at: Instant) -> Option<(usize, Told)> {
        let has_heard = |(_, told): &(usize, &Told)| told.key == key && at <= told.until;
        self.0.iter().enumerate().skip(skip).find(has_heard).map(|(place, told)| (place, *told))
    }
}

impl Subsystem {
    /// Acknowledged writes to a namespace are lost: the next Flush of each host to it fails. With several data cores each
    /// hears of it from the drive's home, and some perhaps after others have told hosts.
    pub fn note_lost_writes(&mut self, key: u32, at: Instant) {
        for controller in self.controllers_mut().filter(|controller| !controller.is_discovery()) {
            controller.lost_writes.note(key, at);
        }
        self.departed.note(key, at);
        let mut seen = 0;
        while let Some((place, told)) = self.recently_told.next(seen, key, at) {
            self.forget_lost_writes(&told);
            seen = place + 1;
        }
    }

    /// A host was told of losses until `until`, on another core.
    pub(crate) fn losses_were_told(&mut self, cntlid: u16, host_id: [u8; 16], key: u32, until: Instant) {
        let told = Told { cntlid, host_id, key, until };
        self.recently_told.add(told);
        self.forget_lost_writes(&told);
    }

    fn forget_lost_writes(&mut self, told: &Told) {
        let is_it =
            |controller: &&mut Controller| (controller.id, controller.host_id) == (told.cntlid, told.host_id);
        for controller in self.controllers_mut().filter(is_it) {
            controller.lost_writes.forget(told.key, told.until);
        }
        self.departed.take(told.host_id, told.key, told.until);
    }

    /// What a host that connects has not heard yet, or may not have: its old controller may not have gone yet.
    pub(crate) fn lost_writes_of(&self, host_id: [u8; 16]) -> LostWrites {
        let of_host = |controller: &&Controller| controller.host_id == host_id && !controller.is_discovery();
        let is_new = !self.controllers().any(|controller| of_host(&controller));
        let mut all = if is_new { self.departed.of_newcomer(host_id) } else { self.departed.of(host_id) };
        self.controllers().filter(of_host).for_each(|old| all.merge(&old.lost_writes));
        all
    }

    /// Whether this Flush of the controller has to fail; true once for each loss of its namespace.
    pub fn has_lost_writes(&mut self, handle: ControllerHandle, flush: &BlockWork) -> bool {
        let key = self.namespace_of(flush).map(|namespace| namespace.key);
        key.is_some_and(|key| self.take_lost_writes(handle, key))
    }

    pub(crate) fn take_lost_writes(&mut self, handle: ControllerHandle, key: u32) -> bool {
        let now = self.now;
        let Some(controller) = self.controller_mut(handle) else { return false };
        let (cntlid, host_id) = (controller.id, controller.host_id);
        let Some(at) = controller.lost_writes.take(key, now) else { return false };
        self.departed.take(host_id, key, Instant::FAR_FUTURE);
        let at = at.max(now);
        self.tell_others(&Message::LossTold { cntlid, host_id, key, at });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, HOST, NQN};

    const NOW: Instant = Instant::from_millis(5);

    #[test]
    fn a_loss_is_told_once_for_each_namespace() {
        let mut bench = Bench::connected();
        let handle = bench.admin.controller;
        assert!(!bench.subsystem.take_lost_writes(handle, 3));
        bench.subsystem.note_lost_writes(3, NOW);
        bench.subsystem.note_lost_writes(3, NOW);
        assert!(!bench.subsystem.take_lost_writes(handle, 4));
        assert!(bench.subsystem.take_lost_writes(handle, 3));
        assert!(!bench.subsystem.take_lost_writes(handle, 3));
    }

    #[test]
    fn a_host_that_may_not_have_got_the_answer_is_told_again() {
        let mut lost = LostWrites::new();
        lost.note(9, NOW);
        assert!(lost.take(9, NOW).is_some());
        // Another Flush may have been sent before the answer came: it proves nothing. Much later it has come.
        for (later, told_again) in [(0, true), (1, true), (119, true), (120, false), (600, false)] {
            let back = NOW + Duration::from_secs(later);
            let mut departed = DepartedHosts::new();
            departed.add([1; 16], lost.clone());
            let mut again = departed.of([1; 16]).with_told_lately(back);
            assert_eq!(again.take(9, back).is_some(), told_again, "{later} s");
            assert!(again.take(9, back).is_none());
            // That it was told again prolongs nothing.
            let much_later = NOW + Duration::from_secs(120);
            departed.add([1; 16], again);
            assert!(departed.of([1; 16]).with_told_lately(much_later).take(9, much_later).is_none());
        }
        // Another loss is another story.
        let found = NOW + Duration::from_secs(110);
        lost.note(9, found);
        assert!(lost.take(9, found).is_some());
        let back = found + Duration::from_secs(30);
        assert!(lost.with_told_lately(back).take(9, back).is_some());
    }

    #[test]
    fn a_host_that_comes_back_before_its_old_controller_has_gone_is_told() {
        let mut bench = Bench::connected();
        let handle = bench.admin.controller;
        let host_id = bench.subsystem.controller(handle).map(|controller| controller.host_id);
        bench.subsystem.note_lost_writes(3, NOW);
        assert!(bench.subsystem.lost_writes_of(host_id.unwrap_or_default()).take(3, NOW).is_some());
        assert!(bench.subsystem.lost_writes_of([0x77; 16]).take(3, NOW).is_none());
    }

    #[test]
    fn a_host_that_was_away_is_told_when_it_comes_back() {
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], LostWrites::new());
        departed.add([2; 16], LostWrites::new());
        departed.note(9, NOW);
        assert!(departed.of([1; 16]).take(9, NOW).is_some() && departed.of([3; 16]).take(9, NOW).is_none());
        departed.take([1; 16], 9, NOW);
        assert!(departed.of([1; 16]).take(9, NOW).is_none() && departed.of([2; 16]).take(9, NOW).is_some());
    }

    #[test]
    fn hosts_that_never_had_an_io_queue_do_not_push_out_those_that_had() {
        let mut bench = Bench::ready();
        let (host, others) = (bench.controller().host_id, MAX_DEPARTED_HOSTS as u8);
        bench.subsystem.disconnect_queue(bench.admin.controller, 0);
        for other in 0..=others {
            let (command, mut data) = crate::testing::connect_parts(NQN, HOST, 0, 0xffff);
            data.host_id = [100 + other; 16];
            let connected = bench
                .subsystem
                .connect(bench.now, crate::Origin::by(crate::PortId::FIRST), &command, &data)
                .unwrap();
            bench.subsystem.disconnect_queue(connected.controller, 0);
        }
        bench.subsystem.note_lost_writes(7, NOW);
        assert!(bench.subsystem.departed.of(host).take(7, NOW).is_some());
    }

    #[test]
    fn a_host_that_strangers_pushed_out_is_told_all_the_same() {
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], LostWrites::new());
        departed.note(8, NOW);
        assert!(departed.of_newcomer([2; 16]).take(8, NOW).is_none(), "nobody was forgotten");
        for stranger in 0..MAX_DEPARTED_HOSTS as u8 {
            departed.add([100 + stranger; 16], LostWrites::new());
        }
        departed.note(9, NOW);
        let mut told = departed.of_newcomer([1; 16]);
        assert!(told.take(8, NOW).is_some() && told.take(9, NOW).is_some());
        assert!(departed.of_newcomer([100; 16]).take(8, NOW).is_none(), "remembered, and was not there then");
    }

    #[test]
    fn a_host_that_comes_and_goes_does_not_push_out_the_others() {
        let mut departed = DepartedHosts::new();
        departed.add([1; 16], LostWrites::new());
        departed.note(9, NOW);
        for _ in 0..2 * MAX_DEPARTED_HOSTS {
            departed.add([2; 16], LostWrites::new());
        }
        departed.add([1; 16], LostWrites::new());
        assert!(departed.of([1; 16]).take(9, NOW).is_some());
    }
}
