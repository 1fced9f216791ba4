//! What a volatile write cache may still hold: writes that no Flush has covered (NVM 3.2.1).
//!
//! Each namespace counts the commands that may have changed blocks and are home. A Flush covers those that were counted
//! when it went out, so that a write which ends beside it is not taken for safe. A write that fails may have changed
//! blocks as well, and hosts may have read them: an orderly end flushes them too, but only what was acknowledged can be
//! lost to a host.
//!
//! A Flush covers other cores' writes as well. They cannot be counted without asking, but time is the same on all cores: a core
//! that flushes tells the others when the turn began in which its Flush was sent, and each knows by when its own last write was
//! home: by the beginning of the turn after that.

use hal_api::{CommandQueue, Instant};
use nvme::opcode::io;
use nvme::{Command, Status};
use zerocopy::FromZeros;

use super::{DriveQueue, Mode};
use crate::limits::COMMAND_TIMEOUT;
use crate::messages::NamespaceSet;
use crate::status::INTERRUPTED;
use crate::tables::{CommandPart, Covered, OWN_COMMAND};
use controller::Operation;

/// Writes to one namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writes {
    nsid: u32,
    /// Commands that may have changed blocks and are home, however they ended.
    ended: u64,
    /// How many had ended when a host was last told of a write's success.
    acknowledged: u64,
    /// Covered by a Flush that succeeded.
    flushed: u64,
    /// By when the latest was home; [`Instant::FAR_FUTURE`] until the next turn.
    by: Instant,
    /// Others are to hear of a Flush that was sent then.
    tell: Option<Instant>,
}

impl Writes {
    const fn new(nsid: u32) -> Self {
        Self { nsid, ended: 0, acknowledged: 0, flushed: 0, by: Instant::ZERO, tell: None }
    }
}

/// A Flush of the card's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnFlush {
    nsid: u32,
    covers: Covered,
    status: Option<Status>,
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// The namespaces are others now: counts stay with those that stay.
    pub(super) fn keep_writes_of_namespaces(&mut self) {
        let old = core::mem::take(&mut self.writes);
        for namespace in &self.namespaces {
            let nsid = namespace.nsid;
            let known = old.iter().find(|writes| writes.nsid == nsid).copied();
            // As many as there are namespaces.
            let _ = self.writes.push(known.unwrap_or(Writes::new(nsid)));
        }
    }

    /// A namespace with writes that may be in the cache only, with an NSID above `after`.
    pub fn next_unflushed(&self, after: u32) -> Option<u32> {
        let unflushed = self.writes.iter().filter(|writes| writes.ended > writes.flushed);
        unflushed.map(|writes| writes.nsid).filter(|&nsid| nsid > after).min()
    }

    /// Whether writes may be in the drive's cache only.
    pub(super) fn is_dirty(&self) -> bool {
        self.next_unflushed(0).is_some()
    }

    /// Whether some of those were acknowledged.
    pub(super) fn owes_writes(&self) -> bool {
        self.writes.iter().any(|writes| writes.acknowledged > writes.flushed)
    }

    /// What the cache held is gone: says which namespaces had acknowledged writes there, and forgets them all.
    pub(super) fn take_dirty(&mut self) -> NamespaceSet {
        let mut dirty = 0;
        for (place, writes) in self.writes.iter_mut().enumerate() {
            if writes.acknowledged > writes.flushed {
                dirty |= 1 << place;
            }
            writes.flushed = writes.ended;
        }
        if dirty != 0 {
            self.rounds.fail();
        }
        dirty
    }

    /// Acknowledged writes to these namespaces are gone, this core's or others'.
    pub(super) fn note_lost(&mut self, namespaces: NamespaceSet, at: Instant) {
        for place in 0..self.namespaces.len() {
            let Some(nsid) = self.namespaces.get(place).map(|namespace| namespace.nsid) else { return };
            if namespaces & 1 << place == 0 {
                continue;
            }
            // The host repeats it, and that one fails: once for each loss.
            self.fail_waiting_flushes(nsid, INTERRUPTED);
            // At most one entry for each namespace, and as much room.
            if !self.lost_writes.contains(&nsid) {
                let _ = self.lost_writes.push(nsid);
            }
        }
        self.lost_at = at;
    }

    /// A namespace with a loss that the caller was not told.
    pub fn take_lost_writes(&mut self) -> Option<u32> {
        self.lost_writes.pop()
    }

    /// Whether there are losses that the caller was not told.
    pub fn has_lost_writes(&self) -> bool {
        !self.lost_writes.is_empty()
    }

    /// When the latest loss was found out: the same on all cores.
    pub fn lost_at(&self) -> Instant {
        self.lost_at
    }

    /// Ends Flushes that wait: what they were to cover is gone.
    fn fail_waiting_flushes(&mut self, nsid: u32, status: Status) {
        for slot in self.requests.slots() {
            let Some(active) = self.requests.get(slot) else { continue };
            if active.request.namespace.nsid == nsid && active.request.operation == Operation::Flush {
                self.end_early(slot, status);
            }
        }
    }

    fn writes_of(&mut self, nsid: u32) -> Option<&mut Writes> {
        self.writes.iter_mut().find(|writes| writes.nsid == nsid)
    }

    /// What a Flush that goes out now covers.
    pub(super) fn flush_covers(&self, nsid: u32, now: Instant) -> Covered {
        let found = self.writes.iter().find(|writes| writes.nsid == nsid);
        Covered { count: found.map_or(0, |writes| writes.ended), sent: now }
    }

    fn cover(&mut self, nsid: u32, covered: Covered) {
        let has_others = self.has_others;
        if let Some(writes) = self.writes_of(nsid) {
            writes.flushed = writes.flushed.max(covered.count);
            if has_others {
                writes.tell = writes.tell.max(Some(covered.sent));
            }
        }
    }

    /// What is home now was home before this, which is the beginning of a turn.
    pub fn note_time(&mut self, now: Instant) {
        if core::mem::take(&mut self.has_young_writes) {
            let young = self.writes.iter_mut().filter(|writes| writes.by == Instant::FAR_FUTURE);
            young.for_each(|writes| writes.by = now);
        }
    }

    /// A namespace that this core has flushed, and when: the others' writes before that are safe, too.
    pub fn take_flushed(&mut self) -> Option<(u32, Instant)> {
        if !self.has_others {
            return None;
        }
        self.writes.iter_mut().find_map(|writes| Some((writes.nsid, writes.tell.take()?)))
    }

    /// Whether [`Self::take_flushed`] has one.
    pub fn has_flushed(&self) -> bool {
        self.has_others && self.writes.iter().any(|writes| writes.tell.is_some())
    }

    /// Another core has flushed a namespace.
    pub fn others_flushed(&mut self, nsid: u32, sent: Instant) {
        if let Some(writes) = self.writes_of(nsid).filter(|writes| writes.by <= sent) {
            writes.flushed = writes.ended;
        }
    }

    /// A command of this request has ended, or is the drive's no longer: its blocks may be in the cache.
    pub(super) fn note_command_home(&mut self, slot: u16) {
        if let Some(writes) = self.cached_writes_of(slot) {
            writes.ended += 1;
            writes.by = Instant::FAR_FUTURE;
            self.has_young_writes = self.has_others;
        }
    }

    /// A request of a host has succeeded and its host is about to be told.
    pub(super) fn note_success(&mut self, slot: u16) {
        if let Some(writes) = self.cached_writes_of(slot) {
            writes.acknowledged = writes.ended;
        }
        let Some(active) = self.requests.get(slot) else { return };
        if active.request.operation == Operation::Flush {
            let (nsid, covers) = (active.request.namespace.nsid, active.flush_covers);
            self.cover(nsid, covers);
        }
    }

    /// The counts that a request belongs to, if what it writes may stay in a cache.
    fn cached_writes_of(&mut self, slot: u16) -> Option<&mut Writes> {
        let request = &self.requests.get(slot)?.request;
        let is_cached = request.operation.changes_blocks() && !request.force_unit_access;
        let nsid = request.namespace.nsid;
        if is_cached && self.limits.volatile_write_cache { self.writes_of(nsid) } else { None }
    }

    /// Sends a Flush of the card's own; false when there is no room now. One at a time.
    pub fn start_own_flush(&mut self, nsid: u32, now: Instant) -> bool {
        if self.mode != Mode::Running || self.own_flush.is_some() || !self.commands.has_room() {
            return false;
        }
        let covers = self.flush_covers(nsid, now);
        let deadline = now + COMMAND_TIMEOUT;
        let part = CommandPart { slot: OWN_COMMAND, deadline, sent: now, ..CommandPart::NONE };
        let Some(cid) = self.commands.begin(part) else { return false };
        let mut command = Command::new_zeroed();
        command.opcode = io::FLUSH;
        command.nsid.set(nsid);
        command.cid.set(cid);
        let bytes: [u8; 64] = zerocopy::transmute!(command);
        if self.pair.as_mut().is_none_or(|pair| pair.submit(&bytes).is_err()) {
            self.commands.end(cid);
            return false;
        }
        self.earliest = self.earliest.min(deadline);
        self.counters.commands += 1;
        self.own_flush = Some(OwnFlush { nsid, covers, status: None });
        true
    }

    /// The card's own Flush has ended, or can no longer.
    pub(super) fn own_flush_is_home(&mut self, status: Status) {
        let Some(flush) = &mut self.own_flush else { return };
        flush.status = Some(status);
        let OwnFlush { nsid, covers, .. } = *flush;
        if status.is_success() {
            self.cover(nsid, covers);
        }
    }

    /// Whether the next Flush of the card's own can go out, or one is home.
    pub fn can_flush(&self) -> bool {
        match self.own_flush {
            Some(flush) => flush.status.is_some(),
            None => {
                let depth = self.pair.as_ref().map_or(0, CommandQueue::depth);
                let has_room = self.commands.has_room() && self.commands.outstanding() < depth;
                self.mode == Mode::Running && has_room
            }
        }
    }

    /// Whether the card's own Flush is out.
    pub fn is_flushing(&self) -> bool {
        self.own_flush.is_some_and(|flush| flush.status.is_none())
    }

    /// How the card's own Flush went, once.
    pub fn take_own_flush(&mut self) -> Option<Status> {
        let status = self.own_flush?.status?;
        self.own_flush = None;
        Some(status)
    }
}
