//! Faults of a whole drive, besides effects on single commands: what [`NvmeControl`] can do to it.

use hal_api::COMPLETION_BYTES;

use super::model::Model;
use super::run::Home;
use super::{NvmeControl, dword, lock};

const ABORT_REQUESTED: u16 = 0x0007;

/// What an Abort does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NvmeAbort {
    /// Nothing: it says that the command was not aborted.
    #[default]
    Refused,
    /// A command that was not begun, or hangs, ends with Command Abort Requested.
    Works,
    /// It says that the command was not aborted, and the command ends as if nothing had been.
    TooLate,
}

/// Faults, and what the drive remembers over them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    abort: NvmeAbort,
    pub(super) shutdown_stuck: bool,
    /// Doorbells go nowhere.
    pub(super) deaf: bool,
    /// What latencies are multiplied with, less 1.
    pub(super) slowness: u32,
    /// One I/O command after another.
    pub(super) serial: bool,
    /// When the last of them is due.
    pub(super) last_due: u64,
    pub(super) critical_warning: u8,
    /// The SMART log counts neither power cycles nor unsafe shutdowns.
    pub(super) counts_nothing: bool,
    pub(super) power_cycles: u64,
    pub(super) unsafe_shutdowns: u64,
    events: Vec<u32>,
    /// Asynchronous Event Requests, by CID.
    waiting: Vec<u16>,
}

impl NvmeControl {
    /// Whether the drive is there and ready, no fault that was asked for is left, and no queue is missing anything.
    #[must_use]
    pub fn behaves(&self) -> bool {
        let model = lock(&self.model);
        let there = model.ready && !model.removed && !model.returned && !model.fatal && !model.ready_stuck;
        let injected = model.injections.iter().any(|injection| injection.count > 0);
        let gap = model.queues.iter().any(|queue| queue.has_gap);
        there && !injected && !gap && !model.faults.deaf && model.faults.slowness == 0
    }

    /// What Aborts do from now on.
    pub fn set_abort(&self, abort: NvmeAbort) {
        lock(&self.model).faults.abort = abort;
    }

    /// While set, a shutdown that was asked for (CC.SHN) goes on for ever.
    pub fn set_shutdown_stuck(&self, stuck: bool) {
        lock(&self.model).faults.shutdown_stuck = stuck;
    }

    /// While set, doorbells go nowhere: commands are lost until the queue is made anew.
    pub fn set_deaf(&self, deaf: bool) {
        lock(&self.model).faults.deaf = deaf;
    }

    /// Multiplies the latency of commands to come by `factor`, at least 1.
    pub fn set_slow(&self, factor: u32) {
        lock(&self.model).faults.slowness = factor.saturating_sub(1);
    }

    /// The power fails and returns at once: registers and queues are as new, and so is what the media keeps in a cache.
    pub fn lose_power(&self) {
        let mut model = lock(&self.model);
        model.set_removed(true);
        model.set_removed(false);
    }

    /// While set, I/O commands are carried out one after another, each with its latency.
    pub fn set_serial(&self, serial: bool) {
        lock(&self.model).faults.serial = serial;
    }

    /// Takes the link down (as [`NvmeControl::set_removed`], but the drive keeps its power) or up again.
    pub fn set_link_down(&self, down: bool) {
        lock(&self.model).set_unreachable(down);
    }

    /// Whether the SMART log counts power cycles and unsafe shutdowns, as it does from the start.
    pub fn set_counts_power(&self, counts: bool) {
        lock(&self.model).faults.counts_nothing = !counts;
    }

    /// Sets the critical warnings of the SMART log; the drive tells of them by an event if it was asked to.
    pub fn set_critical_warning(&self, bits: u8) {
        let mut model = lock(&self.model);
        model.faults.critical_warning = bits;
        if bits != 0 {
            model.raise_event(0x02_0001);
        }
    }

    /// Ends an Asynchronous Event Request, now or when there is one, with this dword 0: log page in bits 23:16,
    /// information in 15:8, type in 2:0.
    pub fn raise_event(&self, event: u32) {
        lock(&self.model).raise_event(event);
    }
}

impl Model {
    fn raise_event(&mut self, event: u32) {
        if self.removed {
            return;
        }
        self.faults.events.push(event);
        self.tell_events();
    }

    /// An Asynchronous Event Request has come.
    pub(super) fn await_event(&mut self, cid: u16) {
        assert!(self.faults.waiting.len() < 4, "more Asynchronous Event Requests than AERL allows");
        self.faults.waiting.push(cid);
        self.tell_events();
    }

    fn tell_events(&mut self) {
        while !self.faults.events.is_empty() && !self.faults.waiting.is_empty() {
            let (event, cid) = (self.faults.events.remove(0), self.faults.waiting.remove(0));
            self.finish(Home { qid: 0, cid, effect: None }, 0, event);
        }
    }

    /// A reset: requests for events and their events are forgotten.
    pub(super) fn forget_events(&mut self) {
        self.faults.events.clear();
        self.faults.waiting.clear();
    }

    /// Status and dword 0 of an Abort.
    pub(super) fn abort(&mut self, command: &[u8; 64]) -> (u16, u32) {
        let (qid, cid) = (dword(command, 10) as u16, (dword(command, 10) >> 16) as u16);
        let Some(queue) = self.queues.get_mut(usize::from(qid)) else { return (0, 1) };
        match self.faults.abort {
            NvmeAbort::Refused => (0, 1),
            NvmeAbort::Works if queue.take_running(cid) => {
                self.finish(Home { qid, cid, effect: None }, ABORT_REQUESTED, 0);
                (0, 0)
            }
            NvmeAbort::Works => (0, u32::from(!self.abort_at_media(qid, cid, ABORT_REQUESTED))),
            NvmeAbort::TooLate => {
                queue.let_go(cid);
                self.let_go_at_media(qid, cid);
                (0, 1)
            }
        }
    }

    /// Fills in what the SMART log counts.
    pub(super) fn put_health(&self, log: &mut [u8; 512]) {
        let faults = &self.faults;
        log[0] = faults.critical_warning;
        if !faults.counts_nothing {
            log[112..120].copy_from_slice(&(1 + faults.power_cycles).to_le_bytes());
            log[144..152].copy_from_slice(&faults.unsafe_shutdowns.to_le_bytes());
        }
    }
}

/// Whether a driver that looks at the phase tag would see the entry.
pub(super) const fn has_phase(entry: &[u8; COMPLETION_BYTES]) -> bool {
    entry[14] & 1 == 1
}
