//! Copy, which the card does itself, and Write Uncorrectable, which only the drive can.

use controller::RejectReason;
use controller::config::{MAX_COPY_BYTES, MAX_COPY_RANGES};
use hal_fakes::NvmeNamespace;
use nvme::opcode::io;
use nvme::{CopyRange, Status};
use zerocopy::IntoBytes;

use super::*;
use crate::limits::SCRATCH_REQUESTS_PER_DRIVE;

fn list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut list = Vec::new();
    for &(start, blocks) in ranges {
        let mut range = CopyRange::default();
        range.start_block.set(start);
        range.blocks.set((blocks - 1) as u16);
        list.extend(range.as_bytes());
    }
    list
}

fn copy(rig: &mut Rig, shift: u8, ranges: &[(u64, u32)], to: u64) -> IoRequest {
    let pages = rig.pages_with(&list(ranges));
    let operation = Operation::Copy { ranges: ranges.len() as u16 };
    IoRequest { block_shift: shift, ..request(operation, to, 0, pages) }
}

/// As many blocks in as many ranges as the limits allow, or fewer.
fn any_ranges(random: &mut Random, shift: u8, blocks: u64) -> Vec<(u64, u32)> {
    let mut left = u64::from(MAX_COPY_BYTES >> shift);
    let mut ranges = Vec::new();
    for _ in 0..1 + random.below(u64::from(MAX_COPY_RANGES)) {
        if left > 0 {
            let most = if random.below(2) == 0 { left.min(9) } else { left };
            let length = 1 + random.below(most);
            left -= length;
            ranges.push((random.below(blocks - length + 1), length as u32));
        }
    }
    ranges
}

#[test]
fn copies_agree_with_a_model_even_where_they_overlap() {
    for (seed, shift, mdts) in [(1, 9, 0), (2, 9, 1), (3, 12, 1), (4, 12, 7)] {
        println!("seed {seed}");
        let blocks = 200u64;
        let namespaces = vec![NvmeNamespace::new(1, blocks, shift)];
        let config = NvmeConfig { mdts, namespaces, latency_polls: (0, 5), ..NvmeConfig::default() };
        let mut rig = Rig::ready(config);
        let free = rig.pool.free();
        let mut random = Random(seed);
        let mut model = random.bytes((blocks as usize) << shift);
        rig.control.write_disk(1, 0, &model);
        for _ in 0..60 {
            let ranges = any_ranges(&mut random, shift, blocks);
            let total: u64 = ranges.iter().map(|(_, length)| u64::from(*length)).sum();
            let to = random.below(blocks - total + 1);
            let request = copy(&mut rig, shift, &ranges, to);
            assert_eq!(rig.execute(request).0, 0, "{ranges:?} to {to}");
            let source = ranges.iter().flat_map(|&(start, length)| {
                let at = (start as usize) << shift;
                model[at..at + ((length as usize) << shift)].to_vec()
            });
            let source: Vec<u8> = source.collect();
            model[(to as usize) << shift..][..source.len()].copy_from_slice(&source);
        }
        assert!(rig.control.read_disk(1, 0, model.len()) == model);
        assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
    }
}

#[test]
fn a_copy_that_cannot_read_all_writes_nothing() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let free = rig.pool.free();
    rig.control.inject(NvmeInjection {
        queue: Some(1),
        opcode: Some(io::READ),
        skip: 2,
        count: 1,
        effect: NvmeEffect::Status(0x0281),
    });
    let request = copy(&mut rig, 9, &[(0, 1), (10, 1), (20, 1)], 100);
    assert_eq!(rig.execute(request).0, Status::UNRECOVERED_READ_ERROR.to_field());
    assert_eq!(rig.control.io_commands(io::WRITE), 0);
    assert_eq!(rig.pool.free(), free);
}

#[test]
fn copies_take_turns_with_others_that_need_the_scratch_pages() {
    let config = NvmeConfig { optional_commands: 0, latency_polls: (1, 9), ..NvmeConfig::default() };
    let mut rig = Rig::ready(config);
    rig.control.write_disk(1, 0, &[7; 512 * 64]);
    let free = rig.pool.free();
    for turn in 0..8 {
        let request = copy(&mut rig, 9, &[(0, 5), (turn, 3)], 1000 + turn * 8);
        rig.submit(request).expect("room");
        rig.submit(request_of_verify(turn)).expect("room");
    }
    rig.run_until(|rig| rig.ended.len() == 16);
    for completion in std::mem::take(&mut rig.ended) {
        assert!(completion.status.is_success());
        rig.pool.give_back(completion.pages.expect("not quarantined"));
    }
    assert_eq!(rig.control.read_disk(1, 1000 * 512, 64 * 512), [7; 64 * 512]);
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
}

#[test]
fn copies_do_not_take_all_places_of_a_drive() {
    let mut rig = Rig::ready(NvmeConfig::default());
    for turn in 0..SCRATCH_REQUESTS_PER_DRIVE as u64 {
        let request = copy(&mut rig, 9, &[(0, 8)], 1000 + turn * 8);
        rig.submit(request).expect("room");
    }
    let request = copy(&mut rig, 9, &[(0, 8)], 2000);
    let refused = rig.submit(request).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Busy);
    let pages = rig.pages_with(&[1; 512]);
    rig.submit(self::request(Operation::Write, 0, 1, pages)).expect("room for others");
    rig.run_until(|rig| rig.ended.len() == SCRATCH_REQUESTS_PER_DRIVE + 1);
    rig.submit(refused.request).expect("room again");
    rig.run_until(|rig| rig.ended.len() == SCRATCH_REQUESTS_PER_DRIVE + 2);
}

fn request_of_verify(start: u64) -> IoRequest {
    request(Operation::Verify, start, 16, Pages::NONE)
}

#[test]
fn a_reset_in_the_middle_of_a_copy_ends_it_and_leaves_the_scratch_pages() {
    for opcode in [io::READ, io::WRITE] {
        let mut rig = Rig::ready(NvmeConfig::default());
        let free = rig.pool.free();
        rig.inject(opcode, 1, NvmeEffect::Never);
        let request = copy(&mut rig, 9, &[(0, 8), (8, 8)], 100);
        rig.submit(request).expect("room");
        rig.turn();
        rig.turn();
        rig.be_late();
        rig.run_until(|rig| rig.drive.is_ready() && !rig.ended.is_empty());
        let ended = rig.ended.pop().unwrap();
        assert_eq!(ended.status, crate::status::INTERRUPTED);
        if let Some(pages) = ended.pages {
            rig.pool.give_back(pages);
        }
        rig.run_until(|rig| rig.drive.outstanding() == 0);
        let request = copy(&mut rig, 9, &[(0, 8), (8, 8)], 100);
        assert_eq!(rig.execute(request).0, 0, "the next one works");
        assert_eq!(rig.pool.free(), free);
    }
}

#[test]
fn ranges_outside_of_the_namespace_are_refused() {
    let mut rig = Rig::ready(NvmeConfig::default());
    for (ranges, to) in [(&[(16384u64, 1u32)][..], 0), (&[(0, 1), (16383, 2)], 0), (&[(0, 8), (8, 8)], 16370)]
    {
        let request = copy(&mut rig, 9, ranges, to);
        let refused = rig.submit(request).unwrap_err();
        assert_eq!(refused.reason, RejectReason::Failed(Status::LBA_OUT_OF_RANGE.do_not_retry()));
        rig.pool.give_back(refused.request.pages);
    }
}

#[test]
fn a_copy_counts_as_a_write_for_the_cache() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let request = copy(&mut rig, 9, &[(0, 1)], 100);
    assert_eq!(rig.execute(request).0, 0);
    assert_eq!(rig.drive.next_unflushed(), Some(1));
    assert!(rig.execute_flush().is_success());
    assert_eq!(rig.drive.next_unflushed(), None);
    let request = copy(&mut rig, 9, &[(0, 1)], 100);
    assert_eq!(rig.execute(IoRequest { force_unit_access: true, ..request }).0, 0);
    assert_eq!(rig.drive.next_unflushed(), None, "on the media already");
}

#[test]
fn uncorrectable_blocks_fail_until_they_are_written() {
    let config = NvmeConfig { optional_commands: 0x75d | 1 << 1, ..NvmeConfig::default() };
    let mut rig = Rig::new(config);
    rig.run_until(|rig| rig.drive.is_ready());
    rig.turn();
    assert!(rig.namespaces()[0].write_uncorrectable);
    let mark = request(Operation::WriteUncorrectable, 10, 4, Pages::NONE);
    assert_eq!(rig.execute(mark).0, 0);
    let read = |rig: &mut Rig| {
        let pages = rig.pages_with(&[0; 512 * 8]);
        rig.execute(request(Operation::Read, 8, 8, pages)).0
    };
    assert_eq!(read(&mut rig), Status::UNRECOVERED_READ_ERROR.to_field());
    let pages = rig.pages_with(&[1; 512 * 4]);
    assert_eq!(rig.execute(request(Operation::Write, 10, 4, pages)).0, 0);
    assert_eq!(read(&mut rig), 0);
}

#[test]
fn a_drive_without_write_uncorrectable_is_not_sent_one() {
    let mut rig = Rig::ready(NvmeConfig::default());
    let refused = rig.submit(request(Operation::WriteUncorrectable, 0, 1, Pages::NONE)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Failed(Status::INVALID_OPCODE.do_not_retry()));
}
