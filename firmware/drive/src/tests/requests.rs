//! Requests: data is right whatever the sizes, and what a drive does not claim the card does.

use controller::RejectReason;
use hal_fakes::NvmeNamespace;
use nvme::Status;
use nvme::opcode::io;

use super::*;
use crate::limits::{REQUESTS_PER_DRIVE, SCRATCH_REQUESTS_PER_DRIVE};

/// Sizes in blocks around every border: page, two pages, MDTS, one list page, NLB.
fn corners(block_shift: u8, mdts: u8) -> Vec<u32> {
    let page = 4096u32 >> block_shift;
    let mdts_blocks = if mdts == 0 { 512 * page } else { page << mdts };
    let mut sizes = vec![1, 2, 3];
    for border in [page, 2 * page, 3 * page, mdts_blocks, 2 * mdts_blocks, 512 * page, 513 * page] {
        sizes.extend([border - 1, border, border + 1]);
    }
    sizes.retain(|&size| size > 0 && size <= 600 * page);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[test]
fn every_size_corner_reads_what_was_written() {
    for (shift, mdts) in [(9, 0), (9, 1), (9, 7), (12, 0), (12, 1), (12, 8)] {
        let blocks = (4u64 << 20) >> shift;
        let config = NvmeConfig {
            mdts,
            namespaces: vec![NvmeNamespace::new(1, blocks, shift)],
            latency_polls: (0, 7),
            queue_entries: 16,
            ..NvmeConfig::default()
        };
        let mut rig = Rig::ready(config);
        let free = rig.pool.free();
        let mut random = Random(u64::from(shift) << 8 | u64::from(mdts));
        for size in corners(shift, mdts) {
            let data = random.bytes((size as usize) << shift);
            let start = random.below(blocks - u64::from(size));
            let pages = rig.pages_with(&data);
            let write = IoRequest { block_shift: shift, ..request(Operation::Write, start, size, pages) };
            assert_eq!(rig.execute(write).0, 0, "write of {size} blocks");
            assert_eq!(rig.control.read_disk(1, (start as usize) << shift, data.len()), data);
            let pages = rig.pages_with(&vec![0xee; data.len().next_multiple_of(PAGE_BYTES)]);
            let read = IoRequest { block_shift: shift, ..request(Operation::Read, start, size, pages) };
            let (status, read) = rig.execute(read);
            assert_eq!(status, 0);
            assert!(read.starts_with(&data), "read of {size} blocks");
            assert!(read[data.len()..].iter().all(|&byte| byte == 0xee), "written beyond the end");
        }
        assert_eq!(rig.pool.free(), free);
        assert_eq!(rig.drive.outstanding(), 0);
    }
}

/// Many requests at once, in any mixture, against a model in memory. Requests that are out at the same time touch
/// different blocks, as their order is not defined.
fn random_against_model(seed: u64, config: NvmeConfig) {
    println!("seed {seed}");
    const LANES: u64 = SCRATCH_REQUESTS_PER_DRIVE as u64;
    const LANE_BLOCKS: u64 = 600;
    let namespaces = vec![NvmeNamespace::new(1, LANES * LANE_BLOCKS, 9)];
    let mut rig = Rig::ready(NvmeConfig { namespaces, seed, ..config });
    let free = rig.pool.free();
    let mut random = Random(seed);
    let mut model = vec![0u8; (LANES * LANE_BLOCKS) as usize * 512];
    let mut out: Vec<Option<(Operation, usize, Vec<u8>)>> = (0..LANES).map(|_| None).collect();
    let mut ended = 0;
    let mut begun = 0;
    while ended < 1500 {
        let lane = random.below(LANES);
        if out[lane as usize].is_none() && begun < 1500 {
            let blocks = if random.below(3) == 0 { 1 + random.below(500) } else { 1 + random.below(24) };
            let start = lane * LANE_BLOCKS + random.below(LANE_BLOCKS - blocks + 1);
            let (at, bytes) = (start as usize * 512, blocks as usize * 512);
            let operation = [
                Operation::Read,
                Operation::Write,
                Operation::Write,
                Operation::WriteZeroes { deallocate: true },
                Operation::Compare,
                Operation::Verify,
                Operation::Flush,
            ][random.below(7) as usize];
            let data = match operation {
                Operation::Read => vec![0xaa; bytes],
                Operation::Write => random.bytes(bytes),
                Operation::Compare => {
                    let mut data = model[at..at + bytes].to_vec();
                    if random.below(2) == 0 {
                        data[random.below(bytes as u64) as usize] ^= 1;
                    }
                    data
                }
                _ => Vec::new(),
            };
            let pages = if data.is_empty() { Pages::NONE } else { rig.pages_with(&data) };
            let is_flush = operation == Operation::Flush;
            let request = request(operation, start, if is_flush { 0 } else { blocks as u32 }, pages);
            // Some share the drive, some wait for their own share.
            let owner = lane as u16 % 3;
            rig.submit(IoRequest { token: lane as u32, owner, ..request }).expect("room");
            if let Operation::WriteZeroes { .. } = operation {
                out[lane as usize] = Some((operation, at, vec![0; bytes]));
            } else {
                out[lane as usize] = Some((operation, at, data));
            }
            begun += 1;
        }
        if random.below(4) == 0 || begun >= 1500 {
            rig.turn();
        }
        for completion in std::mem::take(&mut rig.ended) {
            let (operation, at, data) = out[completion.token as usize].take().expect("out");
            let pages = completion.pages.expect("not quarantined");
            let expected = match operation {
                Operation::Compare if model[at..at + data.len()] != data[..] => Status::COMPARE_FAILURE,
                _ => Status::SUCCESS,
            };
            assert_eq!(completion.status, expected, "{operation:?}");
            match operation {
                Operation::Write | Operation::WriteZeroes { .. } => {
                    model[at..at + data.len()].copy_from_slice(&data);
                }
                Operation::Read => {
                    let mut read = vec![0; data.len()];
                    rig.pool.read(&mut pages.start(), &mut read);
                    assert!(read == model[at..at + data.len()], "wrong data at {at}");
                }
                _ => (),
            }
            rig.pool.give_back(pages);
            ended += 1;
        }
    }
    assert!(rig.control.read_disk(1, 0, model.len()) == model);
    assert_eq!((rig.pool.free(), rig.drive.outstanding()), (free, 0));
    assert_eq!(rig.drive.counters().resets, 0);
}

#[test]
fn random_requests_agree_with_a_model() {
    let plain = || NvmeConfig { latency_polls: (0, 20), ..NvmeConfig::default() };
    random_against_model(1, plain());
    random_against_model(2, NvmeConfig { mdts: 1, queue_entries: 4, ..plain() });
    // Nothing optional: the card compares, verifies and writes zeros.
    random_against_model(3, NvmeConfig { optional_commands: 0, ..plain() });
    random_against_model(
        4,
        NvmeConfig { optional_commands: 0, mdts: 1, volatile_write_cache: false, ..plain() },
    );
    // Everything claimed, with limits.
    let limits = NvmeConfig { optional_commands: 0x0ff, verify_limit: 1, write_zeroes_limit: 2, ..plain() };
    random_against_model(5, limits);
    random_against_model(6, NvmeConfig { max_queue_entries: 2, mdts: 3, ..plain() });
}

#[test]
fn datasets_are_cut_to_the_drives_limits() {
    let plain = NvmeConfig::default;
    let configs = [
        plain(),
        NvmeConfig { dataset_ranges: 1, ..plain() },
        NvmeConfig { dataset_ranges: 3, dataset_range_blocks: 10, ..plain() },
        NvmeConfig { dataset_blocks: 25, ..plain() },
        NvmeConfig { dataset_ranges: 8, dataset_range_blocks: 7, dataset_blocks: 11, ..plain() },
    ];
    for config in configs {
        let mut rig = Rig::ready(config);
        rig.control.write_disk(1, 0, &vec![0xff; 1000 * 512]);
        let ranges = [(3u64, 40u32), (100, 1), (200, 0), (300, 26), (400, 100)];
        let mut list = Vec::new();
        let mut expected = vec![0xff; 1000 * 512];
        for (start, blocks) in ranges {
            list.extend([0; 4]);
            list.extend(blocks.to_le_bytes());
            list.extend(start.to_le_bytes());
            expected[start as usize * 512..(start as usize + blocks as usize) * 512].fill(0);
        }
        let pages = rig.pages_with(&list);
        let operation = Operation::DatasetManagement { ranges: 5, attributes: 0b100 };
        assert_eq!(rig.execute(request(operation, 0, 0, pages)).0, 0);
        assert!(rig.control.read_disk(1, 0, expected.len()) == expected);
    }
}

#[test]
fn what_is_no_work_is_not_sent() {
    let config = NvmeConfig { optional_commands: 0, volatile_write_cache: false, ..NvmeConfig::default() };
    let mut rig = Rig::ready(config);
    let pages = rig.pages_with(&[0; 16]);
    let dataset = Operation::DatasetManagement { ranges: 1, attributes: 4 };
    assert_eq!(rig.execute(request(dataset, 0, 0, pages)).0, 0);
    assert_eq!(rig.execute(request(Operation::Flush, 0, 0, Pages::NONE)).0, 0);
    assert_eq!(rig.drive.counters().commands, 0);
}

#[test]
fn the_largest_write_zeroes_and_verify_work() {
    for optional_commands in [0, 0x75d | 0x80] {
        let namespaces = vec![NvmeNamespace::new(1, 65536, 9)];
        let mut rig = Rig::ready(NvmeConfig { optional_commands, namespaces, ..NvmeConfig::default() });
        rig.control.write_disk(1, 0, &vec![0x77; 65536 * 512]);
        let zeroes = Operation::WriteZeroes { deallocate: false };
        assert_eq!(rig.execute(request(zeroes, 0, 65536, Pages::NONE)).0, 0);
        assert!(rig.control.read_disk(1, 0, 65536 * 512).iter().all(|&byte| byte == 0));
        assert_eq!(rig.execute(request(Operation::Verify, 0, 65536, Pages::NONE)).0, 0);
    }
}

#[test]
fn an_error_of_one_part_is_the_requests_when_all_are_home() {
    let mut rig = Rig::ready(NvmeConfig { mdts: 1, latency_polls: (1, 9), ..NvmeConfig::default() });
    rig.control.inject(NvmeInjection {
        queue: Some(1),
        opcode: Some(io::READ),
        skip: 3,
        count: 1,
        effect: NvmeEffect::Status(0x0281),
    });
    let pages = rig.pages_with(&vec![0; 64 * 512]);
    assert_eq!(rig.execute(request(Operation::Read, 0, 64, pages)).0, 0x0281);
    assert_eq!(rig.drive.counters().media_errors, 1);
    rig.inject(io::READ, 1, NvmeEffect::Status(0x0008));
    let pages = rig.pages_with(&[0; 512]);
    assert_eq!(rig.execute(request(Operation::Read, 0, 1, pages)).0, Status::INTERNAL_ERROR.to_field());
}

#[test]
fn a_slow_request_is_answered_without_a_reset() {
    let mut rig = Rig::ready(NvmeConfig { mdts: 1, max_queue_entries: 2, ..NvmeConfig::default() });
    let free = rig.pool.free();
    rig.control.reconfigure(|config| config.latency_polls = (3, 3));
    let pages = rig.pages_with(&vec![0; 512 * 512]);
    rig.submit(request(Operation::Read, 0, 512, pages)).expect("room");
    // One part after another, each in good time.
    for _ in 0..3 {
        rig.pass(8);
        for _ in 0..4 {
            rig.turn();
        }
    }
    assert!(rig.ended.is_empty());
    rig.pass(2);
    rig.turn();
    let ended = rig.ended.pop().expect("answered after 25 s");
    assert_eq!(ended.status, crate::status::INTERRUPTED);
    // No part went out when there was no time left for it.
    rig.pool.give_back(ended.pages.expect("nothing is at the drive"));
    assert_eq!(rig.drive.outstanding(), 0);
    assert_eq!((rig.pool.free(), rig.drive.counters().resets), (free, 0));
}

#[test]
fn requests_outside_of_the_namespace_are_refused() {
    let mut rig = Rig::ready(NvmeConfig::default());
    for (start, blocks) in [(16384, 1), (16383, 2), (u64::MAX, 2)] {
        let refused = rig.submit(request(Operation::Verify, start, blocks, Pages::NONE)).unwrap_err();
        assert_eq!(refused.reason, RejectReason::Failed(Status::LBA_OUT_OF_RANGE.do_not_retry()));
    }
    let mut other = request(Operation::Flush, 0, 0, Pages::NONE);
    other.namespace.nsid = 2;
    assert!(rig.submit(other).is_err());
}

#[test]
fn a_full_table_is_busy_and_recovers() {
    let mut rig = Rig::ready(NvmeConfig::default());
    for _ in 0..REQUESTS_PER_DRIVE {
        let pages = rig.pages_with(&[1; 512]);
        rig.submit(request(Operation::Write, 0, 1, pages)).expect("room");
    }
    let refused = rig.submit(request(Operation::Flush, 0, 0, Pages::NONE)).unwrap_err();
    assert_eq!(refused.reason, RejectReason::Busy);
    rig.run_until(|rig| rig.ended.len() == REQUESTS_PER_DRIVE);
    rig.submit(request(Operation::Flush, 0, 0, Pages::NONE)).expect("room again");
}

#[test]
fn write_zeroes_keeps_to_mdts_where_the_drive_states_no_limit_of_its_own() {
    let plain = || NvmeConfig { mdts: 1, ..NvmeConfig::default() };
    for (config, commands) in [
        (plain(), 4),
        (NvmeConfig { nvm_controller_data: false, ..plain() }, 4),
        (NvmeConfig { write_zeroes_limit: 2, ..plain() }, 2),
        (NvmeConfig { mdts: 0, ..plain() }, 1),
    ] {
        let mut rig = Rig::ready(config);
        let zeroes = Operation::WriteZeroes { deallocate: false };
        assert_eq!(rig.execute(request(zeroes, 0, 64, Pages::NONE)).0, 0);
        assert_eq!(rig.control.io_commands(io::WRITE_ZEROES), commands);
    }
}
