//! Changes that this core has begun, and those of others that it makes and confirms.

use core::net::IpAddr;

use message::configuration::SubsystemPlace;
use message::{Change, EndReason, LostList, MAX_CHANGES, MAX_RANGE_LOCKS};

use super::{Begun, FenceStart, Message, Owed};
use crate::slot::{Controller, ControllerHandle, Part};
use crate::subsystem::Subsystem;

/// Fences that may be pending at a time: one for each host that comes.
const MAX_FENCES: usize = 32;
/// Of them, for hosts of one address.
const MAX_FENCES_PER_ADDRESS: usize = 8;
/// Namespaces that may be on their way out at a time.
pub(super) const MAX_DETACHES: usize = crate::config::MAX_NAMESPACES;
/// Ports whose ANA state may be changing at a time.
pub(super) const MAX_ANA_CHANGES: usize = 4;
/// Changes of one core in which it takes part itself.
pub(super) const MAX_OWN_CHANGES: usize = MAX_FENCES + MAX_ANA_CHANGES + MAX_RANGE_LOCKS + MAX_DETACHES;
/// Ends of controllers that may be pending: each controller may be reset and removed.
const MAX_ENDS: usize = MAX_CHANGES - MAX_OWN_CHANGES;
/// Of them, for hosts of one address: a quarter is left to others, as of command slots.
const MAX_ENDS_PER_ADDRESS: usize = MAX_ENDS / 4 * 3;

impl Subsystem {
    /// Looks at each change that other cores wait for: `done` makes it, as far as it can, and says whether it is made. Those that
    /// are get confirmed.
    pub fn settle(&mut self, mut done: impl FnMut(&mut Self, &mut Owed) -> bool) {
        let mut left = self.cores.as_ref().map_or(0, |cores| cores.owed_count);
        let mut next = 0;
        while left > 0 {
            let place = next;
            next += 1;
            let owed = self.cores.as_ref().and_then(|cores| cores.owed.get(place));
            let Some(owed) = owed.copied() else { return };
            let Some(mut owed) = owed else { continue };
            left -= 1;
            let is_done = done(self, &mut owed);
            let lost = match owed.change {
                Change::Fence { host_id } if is_done => {
                    self.departed.of(host_id).with_told_lately(self.now).list()
                }
                _ => LostList::default(),
            };
            let Some(cores) = self.cores.as_mut() else { return };
            if let Some(entry) = cores.owed.get_mut(place) {
                *entry = (!is_done).then_some(owed);
            }
            if is_done {
                cores.owed_count = cores.owed_count.saturating_sub(1);
                if owed.from == cores.mesh.core() {
                    // As many as there may be of those in which it takes part.
                    let _ = cores.own_confirmations.push_back(owed.number);
                } else {
                    cores.post(owed.from, Message::Confirm { number: owed.number, lost });
                }
            }
        }
    }

    /// Whether any change of another core is not confirmed yet.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.cores.as_ref().is_some_and(|cores| cores.owed_count > 0)
    }

    /// Begins to make sure that no write of a lost connection of this host is at a drive on any other core.
    pub fn begin_fence(&mut self, host_id: [u8; 16], peer: Option<IpAddr>) -> FenceStart {
        self.begin_for_host(host_id, peer, Change::Fence { host_id })
    }

    /// Begins to wait until all cores have taken in the frames that have come by now, or have passed them on: before a fence,
    /// so that a connection that the host has ended is known to be lost.
    pub fn begin_arrivals(&mut self, host_id: [u8; 16], peer: Option<IpAddr>) -> FenceStart {
        self.begin_for_host(host_id, peer, Change::Arrivals { host_id })
    }

    fn begin_for_host(&mut self, host_id: [u8; 16], peer: Option<IpAddr>, change: Change) -> FenceStart {
        let Some(cores) = self.cores.as_mut() else { return FenceStart::NotNeeded };
        let is_for_host =
            |begun: &Begun| matches!(begun.change, Change::Fence { .. } | Change::Arrivals { .. });
        // A later connection may have been lost in between, so that an earlier fence does not stand for this one.
        // Old writes may take long to end: those of one address do not hold up everybody's Connect.
        let of_address = cores.count(|begun| is_for_host(begun) && peer.is_some() && begun.peer == peer);
        if cores.count(|begun| begun.change == change) > 0
            || of_address >= MAX_FENCES_PER_ADDRESS
            || cores.count(is_for_host) >= MAX_FENCES
        {
            return FenceStart::Busy;
        }
        // This core too may have frames that it has not looked at.
        cores
            .begin(Begun { host_id, peer, ..Begun::of(change) }, cores.all())
            .map_or(FenceStart::Busy, FenceStart::Begun)
    }

    /// Whether a controller of this host is still ending on other cores.
    #[must_use]
    pub fn has_pending_end(&self, host_id: [u8; 16]) -> bool {
        let is_end = |begun: &Begun| matches!(begun.change, Change::End { .. }) && begun.host_id == host_id;
        self.cores.as_ref().is_some_and(|cores| cores.count(is_end) > 0)
    }

    /// Ends a controller's I/O queues on all cores that have some.
    pub(crate) fn end_elsewhere(&mut self, handle: ControllerHandle, reason: EndReason) {
        let Some(controller) = self.controller_mut(handle) else { return };
        let (cntlid, host_id, peer) = (controller.id, controller.host_id, controller.peer);
        let subsystem = controller.subsystem;
        let delegates = controller.delegates();
        if delegates.is_empty() {
            return;
        }
        if reason == EndReason::Reset
            && let Part::Home { ending, .. } = &mut controller.part
            && core::mem::replace(ending, true)
        {
            return;
        }
        let begun = Begun { change: Change::End { cntlid, reason }, host_id, peer, subsystem };
        let number = self.cores.as_mut().and_then(|cores| cores.begin(begun, delegates));
        debug_assert!(number.is_some(), "there is a place for the end of each controller");
    }

    /// Whether controllers of a subsystem that lived here are still ending on other cores, or namespaces are still being taken
    /// away from some core, or the ANA state of a port is being changed.
    #[must_use]
    pub fn has_unconfirmed(&self, subsystem: SubsystemPlace) -> bool {
        let waits = |begun: &Begun| match begun.change {
            Change::End { reason, .. } => reason == EndReason::Removed && begun.subsystem == subsystem,
            Change::Detach { .. } | Change::Ana { .. } => true,
            _ => false,
        };
        self.cores.as_ref().is_some_and(|cores| cores.count(waits) > 0)
    }

    /// Whether queues of a controller with this CNTLID, which may have gone, are still ending.
    pub(crate) fn is_still_ending(&self, cntlid: u16) -> bool {
        let is_its = |begun: &Begun| matches!(begun.change, Change::End { cntlid: of, .. } if of == cntlid);
        self.cores.as_ref().is_some_and(|cores| cores.count(is_its) > 0)
    }

    /// Whether one more controller of this address may live here: with other cores some places are for delegates, and there
    /// has to be room for the end of each. Ends may wait long for writes at a drive that hangs: those of one address are not to
    /// keep others from connecting.
    pub(crate) fn has_home_place(&self, peer: Option<IpAddr>) -> bool {
        let Some(cores) = self.cores.as_ref() else { return true };
        let homes = |of: &dyn Fn(&Controller) -> bool| {
            self.controllers().filter(|controller| !controller.is_delegate() && of(controller)).count()
        };
        let ends = |of: &dyn Fn(&Begun) -> bool| {
            cores.count(|begun| matches!(begun.change, Change::End { .. }) && of(begun))
        };
        let all_homes = homes(&|_| true);
        let of_address =
            ends(&|begun| begun.peer == peer) + 2 * (homes(&|controller| controller.peer == peer) + 1);
        all_homes < cores.roster.places()
            && ends(&|_| true) + 2 * (all_homes + 1) <= MAX_ENDS
            && (peer.is_none() || of_address <= MAX_ENDS_PER_ADDRESS)
    }
}
