//! What several owners have of a drive at the same time.

use nvme::Status;
use nvme::opcode::io;

use super::*;
use crate::limits::{SHARED_DRIVE_BYTES, SHARED_FOR, UNKNOWN_COST_BYTES};

const LARGE_BYTES: usize = 1 << 20;
/// The fake's MDTS lets 512 KiB be one command.
const LARGE_PARTS: u64 = 2;
const SHARED_PARTS: u64 = LARGE_BYTES as u64 / SHARED_DRIVE_BYTES as u64;

fn rig() -> Rig {
    // Commands stay at the drive for some turns.
    Rig::ready(NvmeConfig { latency_polls: (8, 8), ..NvmeConfig::default() })
}

fn read(rig: &mut Rig, owner: u16, token: u32, bytes: usize) {
    let pages = rig.pages_with(&vec![0; bytes]);
    let blocks = (bytes / 512) as u32;
    rig.submit(IoRequest { token, owner, ..request(Operation::Read, 0, blocks, pages) }).expect("room");
}

/// Reads that have gone to the drive since the last call.
fn sent(rig: &mut Rig, before: &mut u64) -> u64 {
    rig.drive.flush();
    let now = rig.control.io_commands(io::READ);
    now - core::mem::replace(before, now)
}

/// Lets all end well, and gives the order in which they did.
fn end_all(rig: &mut Rig, count: usize) -> Vec<u32> {
    rig.run_until(|rig| rig.ended.len() == count);
    let ended = core::mem::take(&mut rig.ended);
    let order = ended.iter().map(|end| (end.token, end.status)).collect::<Vec<_>>();
    ended.into_iter().filter_map(|end| end.pages).for_each(|pages| rig.pool.give_back(pages));
    assert!(order.iter().all(|(_, status)| *status == Status::SUCCESS));
    order.into_iter().map(|(token, _)| token).collect()
}

#[test]
fn an_owner_that_is_alone_gives_the_drive_all_it_has() {
    let mut rig = rig();
    read(&mut rig, 5, 9, 4096);
    end_all(&mut rig, 1);
    rig.now = rig.now + SHARED_FOR;
    let mut before = rig.control.io_commands(io::READ);
    (0..4).for_each(|token| read(&mut rig, 5, token, LARGE_BYTES));
    assert_eq!(sent(&mut rig, &mut before), 4 * LARGE_PARTS);
    end_all(&mut rig, 4);
}

#[test]
fn owners_have_the_same_bytes_at_a_drive() {
    let mut rig = rig();
    let mut before = rig.control.io_commands(io::READ);
    let free = rig.pool.free();
    read(&mut rig, 1, 0, 4096);
    assert_eq!(sent(&mut rig, &mut before), 1);
    (1..4).for_each(|token| read(&mut rig, 2, token, LARGE_BYTES));
    assert_eq!(sent(&mut rig, &mut before), 1, "one part of the share");
    // They do not stand in the way of others, who have a share as well.
    let small = SHARED_DRIVE_BYTES / 4096 + 10;
    (10..10 + small).for_each(|token| read(&mut rig, 1, token, 4096));
    assert_eq!(sent(&mut rig, &mut before), u64::from(SHARED_DRIVE_BYTES) / 4096 - 1);
    let order = end_all(&mut rig, small as usize + 4);
    assert!(order[..small as usize].iter().all(|token| *token == 0 || *token >= 10), "{order:?}");
    assert_eq!(order[small as usize + 1..], [1, 2, 3]);
    // Some of the large ones went on in larger parts once their owner was alone.
    let parts = sent(&mut rig, &mut before);
    assert!((10 + 3 * LARGE_PARTS..=10 + 3 * SHARED_PARTS).contains(&parts), "{parts}");
    assert_eq!(rig.pool.free(), free);
}

#[test]
fn an_owner_is_alone_again_after_a_while() {
    let mut rig = rig();
    let mut before = rig.control.io_commands(io::READ);
    read(&mut rig, 1, 0, 4096);
    end_all(&mut rig, 1);
    sent(&mut rig, &mut before);
    // Whoever has one request at a time is between two of them most of the time.
    read(&mut rig, 2, 1, LARGE_BYTES);
    assert_eq!(sent(&mut rig, &mut before), 1);
    end_all(&mut rig, 1);
    sent(&mut rig, &mut before);
    rig.now = rig.now + SHARED_FOR;
    read(&mut rig, 2, 2, LARGE_BYTES);
    assert_eq!(sent(&mut rig, &mut before), LARGE_PARTS);
    end_all(&mut rig, 1);
}

#[test]
fn a_large_request_is_not_kept_waiting_by_small_ones_of_its_owner() {
    let mut rig = rig();
    read(&mut rig, 1, 0, 4096);
    let small = SHARED_DRIVE_BYTES / 4096;
    (10..10 + small).for_each(|token| read(&mut rig, 2, token, 4096));
    read(&mut rig, 2, 1, LARGE_BYTES);
    let mut next = 100;
    while !rig.ended.iter().any(|end| end.token == 1) {
        // Both owners go on asking.
        for owner in [1, 2] {
            read(&mut rig, owner, next, 4096);
            next += 1;
        }
        rig.turn();
        let ended = core::mem::take(&mut rig.ended);
        let (large, small): (Vec<_>, Vec<_>) = ended.into_iter().partition(|end| end.token == 1);
        small.into_iter().filter_map(|end| end.pages).for_each(|pages| rig.pool.give_back(pages));
        rig.ended = large;
        assert!(next < 1000, "the large request waits for ever");
    }
}

#[test]
fn commands_without_data_count_as_well() {
    let claims = NvmeConfig::default().optional_commands;
    for zeroes in [0, 1 << 3] {
        let mut rig = Rig::ready(NvmeConfig {
            latency_polls: (8, 8),
            optional_commands: claims & !(1 << 3) | zeroes,
            ..NvmeConfig::default()
        });
        let opcode = if zeroes == 0 { io::WRITE } else { io::WRITE_ZEROES };
        read(&mut rig, 1, 0, 4096);
        let write_zeroes = Operation::WriteZeroes { deallocate: false };
        let blocks = (LARGE_BYTES / 512) as u32;
        for token in 1..4 {
            let request = IoRequest { token, owner: 2, ..request(write_zeroes, 0, blocks, Pages::NONE) };
            rig.submit(request).expect("room");
        }
        rig.drive.flush();
        assert_eq!(rig.control.io_commands(opcode), 1, "one part of the share");
        end_all(&mut rig, 4);
    }
}

#[test]
fn of_commands_whose_cost_nobody_knows_an_owner_has_a_few_at_the_drive() {
    let mut rig = rig();
    read(&mut rig, 1, 0, 4096);
    for token in 1..=20 {
        let request = IoRequest { token, owner: 2, ..request(Operation::Flush, 0, 0, Pages::NONE) };
        rig.submit(request).expect("room");
    }
    rig.drive.flush();
    assert_eq!(rig.control.io_commands(io::FLUSH), u64::from(SHARED_DRIVE_BYTES / UNKNOWN_COST_BYTES));
    end_all(&mut rig, 21);
}
