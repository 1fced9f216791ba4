//! A drive whose blocks answer later: nothing is lost between its media and the driver.

use std::sync::{Arc, Mutex};

use hal_fakes::{
    MEDIA_UNRECOVERED_READ, Media, MediaEnd, MediaOperation, MediaRequest, NvmeNamespace, RamMedia, Segment,
};

use super::*;

/// A request, kept until it is due.
#[derive(Debug)]
struct Late {
    tag: u32,
    operation: MediaOperation,
    offset_bytes: u64,
    bytes: u64,
    memory: Vec<Segment>,
    polls: u32,
}

#[derive(Debug, Default)]
struct Seen {
    operations: Vec<(MediaOperation, bool)>,
    abandoned: usize,
    stopped: bool,
    fail_reads: bool,
}

/// RAM that takes three polls for each operation.
#[derive(Debug)]
struct LateMedia {
    blocks: RamMedia,
    late: Vec<Late>,
    seen: Arc<Mutex<Seen>>,
}

impl Media for LateMedia {
    fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16> {
        let MediaRequest { tag, operation, fua, offset_bytes, bytes, memory } = *request;
        self.seen.lock().unwrap().operations.push((operation, fua));
        self.late.push(Late { tag, operation, offset_bytes, bytes, memory: memory.to_vec(), polls: 3 });
        None
    }

    fn poll(&mut self) -> Option<MediaEnd> {
        let seen = self.seen.lock().unwrap();
        self.late.iter_mut().for_each(|late| late.polls = late.polls.saturating_sub(1));
        let place = self.late.iter().position(|late| late.polls == 0).filter(|_| !seen.stopped)?;
        let Late { tag, operation, offset_bytes, bytes, memory, .. } = self.late.swap_remove(place);
        if seen.fail_reads && operation == MediaOperation::Read {
            return Some(MediaEnd { tag, status: MEDIA_UNRECOVERED_READ });
        }
        let request = MediaRequest { tag, operation, fua: false, offset_bytes, bytes, memory: &memory };
        let status = self.blocks.start(&request).expect("RAM answers at once");
        Some(MediaEnd { tag, status })
    }

    fn abandon(&mut self) {
        self.seen.lock().unwrap().abandoned += self.late.len();
        self.late.clear();
    }

    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]) {
        self.blocks.peek(offset_bytes, into);
    }

    fn poke(&mut self, offset_bytes: u64, from: &[u8]) {
        self.blocks.poke(offset_bytes, from);
    }
}

fn rig() -> (Rig, Arc<Mutex<Seen>>) {
    let namespace = NvmeNamespace::new(1, 4096, 9);
    let config = NvmeConfig { namespaces: vec![namespace], ..NvmeConfig::default() };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let media = LateMedia { blocks: RamMedia::new(4096 << 9), late: Vec::new(), seen: Arc::clone(&seen) };
    let (device, control) = FakeNvme::with_media(config, vec![Box::new(media)]);
    let mut rig = Rig::over(device, control);
    rig.become_ready();
    (rig, seen)
}

#[test]
fn every_operation_reaches_the_media_and_ends_with_its_status() {
    let (mut rig, seen) = rig();
    let data: Vec<u8> = (0..16 << 9).map(|index| (index / 512 + 1) as u8).collect();
    let pages = rig.pages_with(&data);
    let write = IoRequest { force_unit_access: true, ..request(Operation::Write, 8, 16, pages) };
    assert_eq!(rig.execute(write).0, 0);
    let pages = rig.pages_with(&vec![0; data.len()]);
    let (status, read) = rig.execute(request(Operation::Read, 8, 16, pages));
    assert_eq!(status, 0);
    assert!(read == data);
    assert_eq!(rig.execute(request(Operation::Flush, 0, 0, Pages::NONE)).0, 0);
    let zeroes = Operation::WriteZeroes { deallocate: false };
    assert_eq!(rig.execute(request(zeroes, 8, 4, Pages::NONE)).0, 0);
    let same = rig.pages_with(&data[4 << 9..5 << 9]);
    assert_eq!(rig.execute(request(Operation::Compare, 12, 1, same)).0, 0);
    let other = rig.pages_with(&[0xff; 512]);
    assert_ne!(rig.execute(request(Operation::Compare, 12, 1, other)).0, 0);

    let asked = core::mem::take(&mut seen.lock().unwrap().operations);
    let zeroes = MediaOperation::WriteZeroes { deallocate: false };
    let (read, write) = (MediaOperation::Read, MediaOperation::Write);
    let expected =
        [(write, true), (read, false), (MediaOperation::Flush, false), (zeroes, false), (read, false)];
    assert_eq!(asked[..5], expected);

    seen.lock().unwrap().fail_reads = true;
    let pages = rig.pages_with(&[0; 512]);
    assert_ne!(rig.execute(request(Operation::Read, 8, 1, pages)).0, 0);
}

#[test]
fn a_reset_takes_back_what_the_media_works_on() {
    let (mut rig, seen) = rig();
    let free = rig.pool.free();
    seen.lock().unwrap().stopped = true;
    let pages = rig.pages_with(&[1; 4096]);
    rig.submit(request(Operation::Write, 0, 8, pages)).expect("room");
    rig.turn();
    rig.turn();
    assert_eq!(seen.lock().unwrap().abandoned, 0);
    while seen.lock().unwrap().abandoned == 0 {
        rig.pass(1);
        rig.turn();
        assert!(rig.now < Instant::from_millis(120_000), "no reset");
    }
    seen.lock().unwrap().stopped = false;
    rig.run_until(|rig| rig.drive.is_ready() && !rig.ended.is_empty());
    let ended = rig.ended.pop().unwrap();
    if let Some(pages) = ended.pages {
        rig.pool.give_back(pages);
    }
    rig.run_until(|rig| rig.drive.quarantined() == 0);
    rig.turn();
    assert_eq!(rig.pool.free(), free);
}
