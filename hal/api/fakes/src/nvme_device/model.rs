//! Registers and queues of the fake controller.

use std::collections::VecDeque;

use hal_api::{COMMAND_BYTES, COMPLETION_BYTES, QueueLocation};
use hal_mem::DmaRegion;

use super::dma::Dma;
use super::faults::{Faults, has_phase};
use super::lies::Memory;
use super::media::{Media, RamMedia};
use super::pace::QueueNews;
use super::run::{AtMedia, Fetched, disk};
use super::{NvmeConfig, NvmeEffect, NvmeInjection, dword, ring_addresses};

const ASYNC_EVENT_REQUEST: u8 = 0x0c;

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) completion_created: bool,
    pub(super) submission_created: bool,
    /// Fetched and not begun.
    running: Vec<Fetched>,
    /// When the next of `running` is due.
    pub(super) earliest: u64,
    /// How many commands are with a media.
    pub(super) moving: usize,
    pub(super) identifiers: Identifiers,
    pub(super) memory: Memory,
    pub(super) completions: VecDeque<[u8; COMPLETION_BYTES]>,
    pub(super) fetched: u16,
    /// The driver asks for an interrupt.
    pub(super) armed: bool,
    /// Completions since the start.
    pub(super) posted: u64,
    /// The same, when the driver asked for an interrupt last.
    posted_before_arming: u64,
    /// How often a driver that asked for an interrupt found a completion at its second look.
    found_by_arming: u64,
    /// A doorbell went nowhere, or a completion cannot be seen: until it is made anew, the queue is missing something.
    pub(super) has_gap: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            completion_created: false,
            submission_created: false,
            running: Vec::new(),
            earliest: u64::MAX,
            moving: 0,
            identifiers: Identifiers::default(),
            memory: Memory::default(),
            completions: VecDeque::new(),
            fetched: 0,
            armed: false,
            posted: 0,
            posted_before_arming: 0,
            found_by_arming: 0,
            has_gap: false,
        }
    }
}

impl Queue {
    pub(super) fn news(&self) -> QueueNews {
        QueueNews {
            armed: self.armed,
            posted: self.posted,
            posted_before_arming: self.posted_before_arming,
            found_by_arming: self.found_by_arming,
            waiting: self.completions.front().is_some_and(has_phase),
        }
    }

    fn push(&mut self, fetched: Fetched) {
        if fetched.effect != Some(NvmeEffect::Never) {
            self.earliest = self.earliest.min(fetched.due);
        }
        self.running.push(fetched);
    }

    /// Moves what is due to `due`.
    pub(super) fn take_due(&mut self, now: u64, due: &mut Vec<Fetched>) {
        self.earliest = u64::MAX;
        let mut place = 0;
        while let Some(fetched) = self.running.get(place) {
            if fetched.effect == Some(NvmeEffect::Never) {
                place += 1;
            } else if fetched.due <= now {
                due.push(self.running.swap_remove(place));
            } else {
                self.earliest = self.earliest.min(fetched.due);
                place += 1;
            }
        }
    }
}

impl Queue {
    /// Takes back a command that was not begun.
    pub(super) fn take_running(&mut self, cid: u16) -> bool {
        let found = self.running.iter().position(|fetched| fetched.command[2..4] == cid.to_le_bytes());
        found.map(|place| self.running.swap_remove(place)).is_some()
    }

    /// A command that hangs goes on.
    pub(super) fn let_go(&mut self, cid: u16) {
        let found = self.running.iter_mut().find(|fetched| fetched.command[2..4] == cid.to_le_bytes());
        if let Some(fetched) = found {
            (fetched.effect, fetched.due) = (None, 0);
            self.earliest = 0;
        }
    }
}

/// The command identifiers in use on a queue, as a bitmap.
#[derive(Debug, Default)]
pub(super) struct Identifiers {
    words: Vec<u64>,
}

impl Identifiers {
    /// False where it is in use already.
    fn insert(&mut self, cid: u16) -> bool {
        let (word, bit) = (usize::from(cid) / 64, 1 << (cid % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let free = self.words[word] & bit == 0;
        self.words[word] |= bit;
        free
    }

    pub(super) fn has(&self, cid: u16) -> bool {
        self.words.get(usize::from(cid) / 64).is_some_and(|word| word & 1 << (cid % 64) != 0)
    }

    pub(super) fn remove(&mut self, cid: u16) {
        if let Some(word) = self.words.get_mut(usize::from(cid) / 64) {
            *word &= !(1 << (cid % 64));
        }
    }
}

/// The controller.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: NvmeConfig,
    pub(super) dma: Dma,
    pub(super) injections: Vec<NvmeInjection>,
    pub(super) fatal: bool,
    pub(super) removed: bool,
    /// Plugged in again, and CC was not written since: the driver may not have noticed.
    pub(super) returned: bool,
    pub(super) ready_stuck: bool,
    pub(super) faults: Faults,
    pub(super) bus_master: bool,
    pub(super) cc: u32,
    pub(super) io_commands: [u64; 256],
    pub(super) disks: Vec<(u32, Box<dyn Media>)>,
    pub(super) at_media: AtMedia,
    /// Blocks that Write Uncorrectable has named, by NSID, and that were not written since.
    pub(super) uncorrectable: Vec<(u32, core::ops::Range<u64>)>,
    /// Scratch of `run`.
    pub(super) due: Vec<Fetched>,
    pub(super) queues: Vec<Queue>,
    pub(super) queues_granted: Option<u16>,
    pub(super) ready: bool,
    polls_until_ready: u32,
    admin_queue_set: bool,
    rings: DmaRegion,
    pub(super) now: u64,
    random: u64,
}

impl Model {
    /// `media` are the namespaces' in the order of the configuration; those for which there is none get RAM.
    pub(super) fn new(config: NvmeConfig, media: Vec<Box<dyn Media>>) -> Self {
        let pairs = usize::from(config.queue_pairs);
        let disks: Vec<_> = config.namespaces.iter().map(|namespace| namespace.nsid).zip(media).collect();
        for (namespace, (nsid, media)) in config.namespaces.iter().zip(&disks) {
            assert_eq!(media.bytes(), namespace.blocks << namespace.block_shift, "size of namespace {nsid}");
        }
        let mut model = Self {
            dma: Dma::default(),
            injections: Vec::new(),
            fatal: false,
            removed: false,
            returned: false,
            ready_stuck: false,
            faults: Faults::default(),
            bus_master: false,
            cc: 0,
            io_commands: [0; 256],
            disks,
            uncorrectable: Vec::new(),
            at_media: AtMedia::default(),
            due: Vec::new(),
            queues: (0..pairs).map(|_| Queue::default()).collect(),
            queues_granted: None,
            ready: false,
            polls_until_ready: 0,
            admin_queue_set: false,
            rings: DmaRegion::leak_for_host(pairs * 2 * 4096),
            now: 0,
            random: config.seed | 1,
            config,
        };
        model.reconfigure(|_| ());
        model
    }

    pub(super) fn reconfigure(&mut self, change: impl FnOnce(&mut NvmeConfig)) {
        change(&mut self.config);
        let mut old = core::mem::take(&mut self.disks);
        for namespace in &self.config.namespaces {
            let bytes = namespace.blocks << namespace.block_shift;
            let kept = old.iter().position(|(nsid, disk)| *nsid == namespace.nsid && disk.bytes() == bytes);
            let disk = kept.map_or_else(
                || Box::new(RamMedia::new(bytes as usize)) as Box<dyn Media>,
                |index| old.swap_remove(index).1,
            );
            self.disks.push((namespace.nsid, disk));
        }
        for (_, disk) in &mut old {
            disk.abandon();
        }
    }

    pub(super) fn disk(&mut self, nsid: u32) -> &mut dyn Media {
        disk(&mut self.disks, nsid)
    }

    /// While the bus is off the device touches no memory.
    pub(super) fn set_bus_master(&mut self, on: bool) {
        if self.bus_master && !on {
            self.abandon_media();
        }
        self.bus_master = on;
    }

    pub(super) fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub(super) fn capabilities(&self) -> u64 {
        if self.removed {
            return u64::MAX;
        }
        let config = &self.config;
        let crms = if config.ready_timeouts.is_some() { 1 << 59 } else { 0 };
        // CQR, CSS bits 0 and 6 (I/O command sets).
        u64::from(config.max_queue_entries - 1)
            | 1 << 16
            | u64::from(config.ready_timeout) << 24
            | 1 << 37
            | 1 << 43
            | u64::from(config.min_page) << 48
            | u64::from(config.min_page) << 52
            | crms
    }

    pub(super) fn status(&mut self) -> u32 {
        if self.removed {
            return u32::MAX;
        }
        let enabled = self.cc & 1 != 0;
        if self.ready != enabled && !self.ready_stuck {
            if self.polls_until_ready > 0 {
                self.polls_until_ready -= 1;
            } else {
                self.ready = enabled;
                if enabled {
                    assert!(self.admin_queue_set, "enabled without AQA, ASQ and ACQ");
                } else {
                    self.reset();
                }
            }
        }
        let shutdown = match (self.cc >> 14 & 0b11 != 0, self.faults.shutdown_stuck) {
            (false, _) => 0,
            (true, true) => 0b01 << 2,
            (true, false) => 0b10 << 2,
        };
        u32::from(self.ready) | u32::from(self.fatal) << 1 | shutdown
    }

    pub(super) fn set_configuration(&mut self, cc: u32) {
        if self.removed {
            return;
        }
        self.returned = false;
        let (was, enabled) = (self.cc & 1 != 0, cc & 1 != 0);
        if !was && enabled {
            assert!(!self.ready, "enabled before CSTS.RDY was 0");
            assert!(self.bus_master, "enabled while the bus is off");
            assert_eq!(cc >> 7 & 0xf, 0, "CC.MPS: 4 KiB pages");
            assert_eq!((cc >> 16 & 0xf, cc >> 20 & 0xf), (6, 4), "CC.IOSQES and CC.IOCQES");
            assert!(matches!(cc >> 4 & 7, 0 | 6), "CC.CSS");
        }
        if was != enabled {
            self.polls_until_ready = self.config.ready_polls;
        }
        // A controller that did not become ready, as a fatal one does not, is reset all the same.
        if was && !enabled && !self.ready {
            self.reset();
        }
        self.cc = cc;
    }

    pub(super) fn set_admin_queue(&mut self) {
        assert!(self.removed || (self.cc & 1 == 0 && !self.ready), "AQA, ASQ, ACQ written while enabled");
        self.admin_queue_set = !self.removed;
    }

    pub(super) fn set_removed(&mut self, removed: bool) {
        let pulled = removed && !self.removed;
        let was_told = self.cc >> 14 & 0b11 != 0;
        self.set_unreachable(removed);
        if pulled {
            self.faults.power_cycles += 1;
            self.faults.unsafe_shutdowns += u64::from(!was_told);
            for (_, disk) in &mut self.disks {
                disk.lose_power();
            }
        }
    }

    /// As removed, with the power kept.
    pub(super) fn set_unreachable(&mut self, removed: bool) {
        if removed && !self.removed {
            self.scribble();
            self.abandon_media();
        }
        if self.removed && !removed {
            self.cc = 0;
            self.ready = false;
            self.bus_master = false;
            self.returned = true;
            self.reset();
        }
        self.removed = removed;
    }

    /// What the reset of a controller does, at the moment when CSTS.RDY falls.
    fn reset(&mut self) {
        self.scribble();
        self.abandon_media();
        self.fatal = false;
        self.admin_queue_set = false;
        self.queues_granted = None;
        self.forget_events();
        self.faults.last_due = 0;
        for queue in &mut self.queues {
            *queue = Queue {
                armed: queue.armed,
                posted: queue.posted,
                posted_before_arming: queue.posted_before_arming,
                found_by_arming: queue.found_by_arming,
                ..Queue::default()
            };
        }
    }

    /// Hanging reads write their buffers once more: what a drive may do until it has been reset.
    fn scribble(&mut self) {
        if !self.bus_master || self.removed {
            return;
        }
        for (qid, queue) in self.queues.iter().enumerate() {
            for fetched in &queue.running {
                let command = &fetched.command;
                if fetched.effect == Some(NvmeEffect::Never) && command[0] == 0x02 && qid > 0 {
                    let nsid = dword(command, 1);
                    let Some(namespace) = self.config.namespaces.iter().find(|n| n.nsid == nsid) else {
                        continue;
                    };
                    let bytes = ((dword(command, 12) & 0xffff) as usize + 1) << namespace.block_shift;
                    self.dma.scatter(command, &vec![0xde; bytes]);
                }
            }
        }
    }

    pub(super) fn location(&self, qid: u16) -> Option<QueueLocation> {
        let index = usize::from(qid);
        if index >= self.queues.len() {
            return None;
        }
        let (submission, completion) = ring_addresses(&self.rings, index);
        let entries = self.config.queue_entries.min(self.config.max_queue_entries);
        Some(QueueLocation { submission, completion, entries, vector: Some(qid) })
    }

    pub(super) fn reset_queue(&mut self, qid: u16) {
        assert!(
            self.removed || !self.bus_master || (self.cc & 1 == 0 && !self.ready),
            "queue {qid} emptied while the device uses it"
        );
        let queue = &mut self.queues[usize::from(qid)];
        queue.completions.clear();
        queue.running.clear();
        queue.earliest = u64::MAX;
        queue.identifiers = Identifiers::default();
    }

    /// Commands that are not yet home.
    pub(super) fn waiting(&self, qid: u16) -> usize {
        let queue = &self.queues[usize::from(qid)];
        queue.running.len() + queue.moving + queue.completions.len()
    }

    /// The doorbell was rung for `command`.
    pub(super) fn fetch(&mut self, qid: u16, command: [u8; COMMAND_BYTES]) {
        if self.removed || self.returned {
            return;
        }
        if self.faults.deaf {
            // Nobody waits for the end of a request for events.
            self.queues[usize::from(qid)].has_gap |= qid > 0 || command[0] != ASYNC_EVENT_REQUEST;
            return;
        }
        assert!(self.ready && self.cc & 1 != 0, "doorbell of queue {qid} while the controller is not ready");
        let index = usize::from(qid);
        if qid > 0 {
            assert!(self.queues[index].submission_created, "doorbell of queue {qid}, which was not created");
            self.io_commands[usize::from(command[0])] += 1;
        }
        let cid = u16::from_le_bytes([command[2], command[3]]);
        assert_ne!(cid, 0xffff, "CID FFFFh is not for use");
        // A hanging command that the driver gave up cannot be told from one it still waits for.
        assert!(self.queues[index].identifiers.insert(cid), "CID {cid:#06x} is in use");
        let (least, most) = self.config.latency_polls;
        let spread = u64::from(most.saturating_sub(least)) + 1;
        let latency = u64::from(least) + self.random() % spread;
        let begins =
            if self.faults.serial && qid > 0 { self.now.max(self.faults.last_due) } else { self.now };
        let due = begins + latency * u64::from(self.faults.slowness + 1);
        self.faults.last_due = if qid > 0 { due } else { self.faults.last_due };
        let effect = self.effect(qid, command[0]);
        if qid == 0 && command[0] == ASYNC_EVENT_REQUEST && effect.is_none() {
            return self.await_event(cid);
        }
        let list_check = self.dma.list_check(&command);
        let queue = &mut self.queues[index];
        queue.fetched = queue.fetched.wrapping_add(1);
        queue.push(Fetched { command, due, effect, list_check });
    }

    fn effect(&mut self, qid: u16, opcode: u8) -> Option<NvmeEffect> {
        for injection in &mut self.injections {
            let matches = injection.queue.is_none_or(|queue| queue == qid)
                && injection.opcode.is_none_or(|code| code == opcode);
            if !matches || injection.count == 0 {
                continue;
            }
            if injection.skip > 0 {
                injection.skip -= 1;
                continue;
            }
            injection.count -= 1;
            return Some(injection.effect);
        }
        None
    }

    /// Whether commands are carried out now.
    pub(super) fn is_at_work(&self) -> bool {
        !self.removed && !self.fatal && self.bus_master && self.ready
    }

    /// Lets time pass and looks at a completion queue.
    pub(super) fn complete(&mut self, qid: u16) -> Option<[u8; COMPLETION_BYTES]> {
        self.now += 1;
        self.go_on(qid);
        self.queues[usize::from(qid)].completions.pop_front_if(|entry| has_phase(entry))
    }

    /// The driver asks for an interrupt, or no longer.
    pub(super) fn set_armed(&mut self, qid: u16, armed: bool) {
        let queue = &mut self.queues[usize::from(qid)];
        queue.armed = armed;
        queue.posted_before_arming = queue.posted;
    }

    /// Whether a completion is there, or ready to be made.
    pub(super) fn look_once_more(&mut self, qid: u16) -> bool {
        self.go_on(qid);
        let queue = &mut self.queues[usize::from(qid)];
        let found = queue.completions.front().is_some_and(has_phase);
        queue.found_by_arming += u64::from(found);
        found
    }

    /// The device works while its driver looks elsewhere.
    pub(super) fn go_on(&mut self, qid: u16) {
        if self.is_at_work() {
            self.run(qid);
        }
    }
}
