//! Files as media: the same with io_uring and without.

use hal_fakes::{FakeNvme, NvmeConfig, NvmeNamespace, RamMedia};
use hal_mem::DmaRegion;

use super::*;
use crate::testing::TemporaryFile;

const BLOCKS: usize = 64;

/// Memory for requests, as segments of 4 KiB that a model would have checked.
struct Memory(DmaRegion);

impl Memory {
    fn new() -> Self {
        Self(DmaRegion::leak_for_host(BLOCKS * 4096))
    }

    fn segments(&self, pages: usize) -> Vec<hal_fakes::Segment> {
        hal_fakes::segments_of(&self.0).take(pages).collect()
    }
}

fn both(bytes: u64, test: impl Fn(FileMedia, &std::path::Path)) {
    for by_ring in [true, false] {
        let file = TemporaryFile::new(bytes);
        let drive = DriveFile::open(file.path(), 4096).unwrap();
        let media = if by_ring { FileMedia::new(drive) } else { FileMedia::without_ring(drive) };
        test(media, file.path());
    }
}

/// Performs one request and waits for its end.
fn run(media: &mut dyn Media, request: &MediaRequest<'_>) -> u16 {
    if let Some(status) = media.start(request) {
        return status;
    }
    media.commit();
    loop {
        if let Some(end) = media.poll() {
            assert_eq!(end.tag, request.tag);
            return end.status;
        }
    }
}

fn request(operation: MediaOperation, block: u64, blocks: u64) -> MediaRequest<'static> {
    let (offset_bytes, bytes) = (block * 4096, blocks * 4096);
    MediaRequest { tag: 5, operation, fua: false, offset_bytes, bytes, memory: &[] }
}

#[test]
fn blocks_come_back_as_they_were_written() {
    both(BLOCKS as u64 * 4096, |mut media, path| {
        let memory = Memory::new();
        let data: Vec<u8> = (0..8 * 4096).map(|index| (index / 64 % 251) as u8).collect();
        let segments = memory.segments(8);
        hal_fakes::scatter(&segments, &data);
        for (block, fua) in [(3, false), (40, true)] {
            let write = MediaRequest { fua, memory: &segments, ..request(MediaOperation::Write, block, 8) };
            assert_eq!(run(&mut media, &write), MEDIA_SUCCESS);
        }
        assert_eq!(run(&mut media, &request(MediaOperation::Flush, 0, 0)), MEDIA_SUCCESS);
        hal_fakes::scatter(&segments, &vec![0; data.len()]);
        let read = MediaRequest { memory: &segments, ..request(MediaOperation::Read, 40, 8) };
        assert_eq!(run(&mut media, &read), MEDIA_SUCCESS);
        let mut back = vec![0; data.len()];
        hal_fakes::gather(&segments, &mut back);
        assert!(back == data);
        assert!(std::fs::read(path).unwrap()[3 * 4096..11 * 4096] == data);
    });
}

#[test]
fn zeroed_and_deallocated_blocks_read_as_zeros_and_their_neighbours_stay() {
    both(BLOCKS as u64 * 4096, |mut media, path| {
        media.poke(0, &vec![7; BLOCKS * 4096]);
        let zeroing = [
            (MediaOperation::WriteZeroes { deallocate: false }, 4),
            (MediaOperation::WriteZeroes { deallocate: true }, 12),
            (MediaOperation::Deallocate, 20),
        ];
        for (operation, block) in zeroing {
            for fua in [false, true] {
                let request = MediaRequest { fua, ..request(operation, block, 4) };
                assert_eq!(run(&mut media, &request), MEDIA_SUCCESS);
            }
        }
        let now = std::fs::read(path).unwrap();
        assert_eq!(now.len(), BLOCKS * 4096);
        for (block, bytes) in now.chunks(4096).enumerate() {
            let expected = if matches!(block, 4..8 | 12..16 | 20..24) { 0 } else { 7 };
            assert!(bytes.iter().all(|&byte| byte == expected), "block {block}");
        }
    });
}

#[test]
fn an_error_of_the_system_is_a_status() {
    both(BLOCKS as u64 * 4096, |mut media, path| {
        let memory = Memory::new();
        let segments = memory.segments(2);
        // The file has become shorter behind the drive's back.
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(8 * 4096 + 512).unwrap();
        let read = MediaRequest { memory: &segments, ..request(MediaOperation::Read, 8, 2) };
        assert_eq!(run(&mut media, &read), MEDIA_UNRECOVERED_READ);
        let read = MediaRequest { memory: &segments, ..request(MediaOperation::Read, 6, 2) };
        assert_eq!(run(&mut media, &read), MEDIA_SUCCESS);
    });
}

#[test]
fn more_operations_than_the_ring_has_entries_all_end() {
    both(BLOCKS as u64 * 4096, |mut media, _| {
        let memory = Memory::new();
        let segments = memory.segments(BLOCKS);
        let mut ended = vec![0; 2000];
        let mut waiting = 0;
        for tag in 0..2000 {
            let page = tag as usize % BLOCKS;
            let operation = if tag % 3 == 0 { MediaOperation::Read } else { MediaOperation::Write };
            let memory = &segments[page..page + 1];
            let read = MediaRequest { tag, memory, ..request(operation, page as u64, 1) };
            match media.start(&read) {
                Some(status) => assert_eq!(status, MEDIA_SUCCESS),
                None => waiting += 1,
            }
        }
        media.commit();
        while waiting > 0 {
            let Some(end) = media.poll() else { continue };
            assert_eq!(end.status, MEDIA_SUCCESS);
            ended[end.tag as usize] += 1;
            waiting -= 1;
        }
        assert!(ended.iter().all(|&count| count <= 1));
        // What is abandoned no longer runs.
        let read = MediaRequest { memory: &segments[..8], ..request(MediaOperation::Read, 0, 8) };
        if media.start(&read).is_none() {
            media.abandon();
            assert_eq!(media.poll(), None);
        }
    });
}

/// Old kernels take no entry while there are ends without room in the ring.
#[test]
fn ends_are_taken_while_many_operations_are_started() {
    both(BLOCKS as u64 * 4096, |mut media, _| {
        // In the page cache, so that each read ends as it is started.
        media.poke(0, &[7; BLOCKS * 4096]);
        let memory = Memory::new();
        let segments = memory.segments(1);
        let read = MediaRequest { memory: &segments, ..request(MediaOperation::Read, 0, 1) };
        let mut waiting = (0..1000).filter(|_| media.start(&read).is_none()).count();
        media.commit();
        assert!(!media.ring.as_mut().is_some_and(ring::Ring::has_overflowed));
        while waiting > 0 {
            waiting -= usize::from(media.poll().is_some());
        }
    });
}

#[test]
fn the_model_takes_a_file_of_the_namespaces_size() {
    let file = TemporaryFile::new(1 << 20);
    let media = FileMedia::new(DriveFile::open(file.path(), 4096).unwrap());
    let namespaces = vec![NvmeNamespace::new(1, 256, 12), NvmeNamespace::new(2, 8, 9)];
    let config = NvmeConfig { namespaces, ..NvmeConfig::default() };
    let (_device, control) =
        FakeNvme::with_media(config, vec![Box::new(media), Box::new(RamMedia::new(4096))]);
    control.write_disk(1, 4096, b"here");
    assert_eq!(std::fs::read(file.path()).unwrap()[4096..4100], *b"here");
    assert_eq!(control.read_disk(2, 0, 4), [0; 4]);
}
