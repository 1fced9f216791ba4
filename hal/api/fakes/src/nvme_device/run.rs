//! A command's way through the model: fetched, begun when it is due, with the media for a while, then posted.

use hal_api::{COMMAND_BYTES, COMPLETION_BYTES};
use hal_mem::DmaRegion;

use super::lies::Ended;
use super::media::{Media, MediaEnd, MediaOperation, MediaRequest, Segment};
use super::model::Model;
use super::{NvmeEffect, dword, media};

const COMPARE_FAILURE: u16 = 0x0285;

/// A command that the device has fetched and not begun.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) command: [u8; COMMAND_BYTES],
    pub(super) due: u64,
    pub(super) effect: Option<NvmeEffect>,
    /// Check of what PRP2 named when the doorbell was rung: a device may read a PRP list from then on.
    pub(super) list_check: u64,
}

/// Where a completion goes, and what happens to it on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) qid: u16,
    pub(super) cid: u16,
    pub(super) effect: Option<NvmeEffect>,
}

/// A command of which the media works on one operation or several.
#[derive(Debug)]
struct Moving {
    home: Home,
    parts: u32,
    status: u16,
    compare: Option<Compare>,
}

/// The blocks that a Compare reads, and its command, which names what they are held against.
#[derive(Debug)]
struct Compare {
    command: [u8; COMMAND_BYTES],
    blocks: DmaRegion,
    bytes: usize,
}

/// All commands that are with a media. The tag of an operation is the place of its command.
#[derive(Debug, Default)]
pub(super) struct AtMedia {
    places: Vec<Option<Moving>>,
    free: Vec<u32>,
    count: usize,
}

impl AtMedia {
    fn tag(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        })
    }

    fn keep(&mut self, tag: u32, moving: Moving) {
        self.places[tag as usize] = Some(moving);
        self.count += 1;
    }

    /// The tag of a command.
    fn tag_of(&self, qid: u16, cid: u16) -> Option<u32> {
        let is_it = |moving: &Moving| (moving.home.qid, moving.home.cid) == (qid, cid);
        self.places.iter().position(|place| place.as_ref().is_some_and(is_it)).map(|place| place as u32)
    }

    /// One part has ended. The command, once all have.
    fn end(&mut self, end: MediaEnd) -> Option<Moving> {
        let place = self.places.get_mut(end.tag as usize).expect("a tag that was given out");
        let moving = place.as_mut().expect("an operation ends once");
        if moving.status == 0 {
            moving.status = end.status;
        }
        moving.parts -= 1;
        if moving.parts > 0 {
            return None;
        }
        self.count -= 1;
        self.free.push(end.tag);
        place.take()
    }
}

impl Model {
    /// Takes commands further as far as they go now.
    pub(super) fn run(&mut self, qid: u16) {
        let index = usize::from(qid);
        let now = self.now;
        if self.queues[index].earliest <= now {
            let mut due = core::mem::take(&mut self.due);
            self.queues[index].take_due(now, &mut due);
            while !due.is_empty() {
                let place = self.random() as usize % due.len();
                let fetched = due.swap_remove(place);
                self.begin(qid, &fetched);
            }
            self.due = due;
            for (_, disk) in &mut self.disks {
                disk.commit();
            }
        }
        if self.at_media.count > 0 {
            for place in 0..self.disks.len() {
                while let Some(end) = self.disks[place].1.poll() {
                    if let Some(moving) = self.at_media.end(end) {
                        self.finish_moving(moving);
                    }
                }
            }
        }
    }

    fn begin(&mut self, qid: u16, fetched: &Fetched) {
        let command = &fetched.command;
        let same = fetched.list_check == self.dma.list_check(command);
        assert!(qid == 0 || same, "what PRP2 names was changed after the doorbell was rung");
        let home = Home { qid, cid: u16::from_le_bytes([command[2], command[3]]), effect: fetched.effect };
        if matches!(fetched.effect, Some(NvmeEffect::Late | NvmeEffect::Stranger)) {
            self.lie_first(home.qid, home.cid, home.effect);
        }
        match fetched.effect {
            Some(NvmeEffect::Status(status)) => self.finish(home, status, 0),
            _ if qid == 0 => {
                let (status, result) = self.execute_admin(command);
                self.finish(home, status, result);
            }
            _ => {
                if let Some(status) = self.execute_io(home, command) {
                    self.finish(home, status, 0);
                }
            }
        }
    }

    /// Gives an operation on one range to the media, with the memory that the command names. The command's status where
    /// it has ended.
    pub(super) fn start_one(
        &mut self,
        home: Home,
        command: &[u8; COMMAND_BYTES],
        operation: MediaOperation,
        offset_bytes: u64,
        bytes: u64,
    ) -> Option<u16> {
        let memory = match operation {
            MediaOperation::Read => self.dma.segments_for_input(command, bytes as usize),
            MediaOperation::Write => self.dma.segments(command, bytes as usize),
            _ => &[],
        };
        let tag = self.at_media.tag();
        let fua = dword(command, 12) & 1 << 30 != 0;
        let disk = disk(&mut self.disks, dword(command, 1));
        let status = disk.start(&MediaRequest { tag, operation, fua, offset_bytes, bytes, memory });
        match status {
            Some(_) => self.at_media.free.push(tag),
            None => self.keep(tag, Moving { home, parts: 1, status: 0, compare: None }),
        }
        status
    }

    /// Gives ranges up.
    pub(super) fn start_deallocate(&mut self, home: Home, nsid: u32, ranges: &[(u64, u64)]) -> Option<u16> {
        let tag = self.at_media.tag();
        let disk = disk(&mut self.disks, nsid);
        let (mut parts, mut status) = (0, 0);
        for &(offset_bytes, bytes) in ranges {
            let operation = MediaOperation::Deallocate;
            match disk.start(&MediaRequest { tag, operation, fua: false, offset_bytes, bytes, memory: &[] }) {
                None => parts += 1,
                Some(bad) if status == 0 => status = bad,
                Some(_) => (),
            }
        }
        if parts == 0 {
            self.at_media.free.push(tag);
            return Some(status);
        }
        self.keep(tag, Moving { home, parts, status, compare: None });
        None
    }

    /// Reads what a Compare has to be held against.
    pub(super) fn start_compare(
        &mut self,
        home: Home,
        command: &[u8; COMMAND_BYTES],
        offset_bytes: u64,
        bytes: usize,
    ) -> Option<u16> {
        let blocks = self.dma.take_spare(bytes);
        let memory = [Segment::new(blocks.device_address().0, bytes)];
        let tag = self.at_media.tag();
        let disk = disk(&mut self.disks, dword(command, 1));
        let request = MediaRequest {
            tag,
            operation: MediaOperation::Read,
            fua: false,
            offset_bytes,
            bytes: bytes as u64,
            memory: &memory,
        };
        let status = disk.start(&request);
        let compare = Compare { command: *command, blocks, bytes };
        match status {
            Some(status) => {
                self.at_media.free.push(tag);
                Some(self.compare(compare, status))
            }
            None => {
                self.keep(tag, Moving { home, parts: 1, status: 0, compare: Some(compare) });
                None
            }
        }
    }

    fn compare(&mut self, compare: Compare, read: u16) -> u16 {
        let Compare { command, blocks, bytes } = compare;
        let mut ours = vec![0; bytes];
        Segment::new(blocks.device_address().0, bytes).read(&mut ours);
        self.dma.give_back_spare(blocks);
        if read != 0 {
            return read;
        }
        if self.dma.gather(&command, bytes) == ours { media::MEDIA_SUCCESS } else { COMPARE_FAILURE }
    }

    fn keep(&mut self, tag: u32, moving: Moving) {
        self.queues[usize::from(moving.home.qid)].moving += 1;
        self.at_media.keep(tag, moving);
    }

    fn finish_moving(&mut self, moving: Moving) {
        let Moving { home, status, compare, .. } = moving;
        self.queues[usize::from(home.qid)].moving -= 1;
        let status = match compare {
            Some(compare) => self.compare(compare, status),
            None => status,
        };
        self.finish(home, status, 0);
    }

    /// Lets the media end a command before its time, with `status`. False where they do not.
    pub(super) fn abort_at_media(&mut self, qid: u16, cid: u16, status: u16) -> bool {
        let Some(tag) = self.at_media.tag_of(qid, cid) else { return false };
        let ended: u32 = self.disks.iter_mut().map(|(_, disk)| disk.abort(tag)).sum();
        for _ in 0..ended {
            if let Some(moving) = self.at_media.end(MediaEnd { tag, status }) {
                self.finish_moving(moving);
            }
        }
        ended > 0
    }

    /// A command that hangs at the media goes on.
    pub(super) fn let_go_at_media(&mut self, qid: u16, cid: u16) {
        let Some(tag) = self.at_media.tag_of(qid, cid) else { return };
        self.disks.iter_mut().for_each(|(_, disk)| disk.let_go(tag));
    }

    /// Forgets what the media work on.
    pub(super) fn abandon_media(&mut self) {
        for (_, disk) in &mut self.disks {
            disk.abandon();
        }
        for moving in self.at_media.places.drain(..).flatten() {
            if let Some(compare) = moving.compare {
                self.dma.give_back_spare(compare.blocks);
            }
        }
        self.at_media.free.clear();
        self.at_media.count = 0;
        for queue in &mut self.queues {
            queue.moving = 0;
        }
    }

    pub(super) fn finish(&mut self, home: Home, status: u16, result: u32) {
        let Home { qid, cid, effect } = home;
        self.queues[usize::from(qid)].identifiers.remove(cid);
        self.queues[usize::from(qid)].memory.note(Ended { cid, status, result });
        if effect == Some(NvmeEffect::WrongIdentifier) {
            self.post(qid, cid ^ 0x0100, status, result);
        }
        self.post(qid, cid, status, result);
        let queue = &mut self.queues[usize::from(qid)];
        queue.has_gap |= effect == Some(NvmeEffect::WrongPhase);
        match (effect, queue.completions.back_mut()) {
            (Some(NvmeEffect::WrongPhase), Some(entry)) => entry[14] ^= 1,
            (Some(NvmeEffect::WrongHead), Some(entry)) => entry[8..10].copy_from_slice(&[0xff; 2]),
            _ => (),
        }
        if effect == Some(NvmeEffect::Duplicate) {
            self.post(qid, cid, status, result);
        }
    }

    pub(super) fn post(&mut self, qid: u16, cid: u16, status: u16, result: u32) {
        let queue = &mut self.queues[usize::from(qid)];
        let mut entry = [0; COMPLETION_BYTES];
        entry[0..4].copy_from_slice(&result.to_le_bytes());
        entry[8..10].copy_from_slice(&queue.fetched.to_le_bytes());
        entry[10..12].copy_from_slice(&qid.to_le_bytes());
        entry[12..14].copy_from_slice(&cid.to_le_bytes());
        entry[14..16].copy_from_slice(&(status << 1 | 1).to_le_bytes());
        queue.posted += 1;
        queue.completions.push_back(entry);
    }
}

/// The media of a namespace.
pub(super) fn disk(disks: &mut [(u32, Box<dyn Media>)], nsid: u32) -> &mut dyn Media {
    let found = disks.iter_mut().find(|(id, _)| *id == nsid);
    &mut *found.expect("a namespace of the fake").1
}
