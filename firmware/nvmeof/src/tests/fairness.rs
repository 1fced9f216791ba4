//! What one host may take from the others.

use hal_mem::PAGE_BYTES;
use nvme::opcode::io;
use nvme::{Status, opcode};

use super::card::*;
use super::host::*;
use crate::Limits;
use crate::pdu::Digests;

const LARGEST_BLOCKS: u32 = 2048;
const LARGEST_BYTES: usize = 1 << 20;

/// A host whose I/O queues are full of the largest commands, none of which it lets end.
fn stalled_host(card: &mut Card, queues: u16, opcode: u8) {
    let (_, cntlid) = Host::admin(card, Digests::default());
    let mut hosts: Vec<Host> = (0..queues).map(|_| Host::open(card)).collect();
    for (host, queue_id) in hosts.iter_mut().zip(1..) {
        host.initialize(card);
        assert_eq!(host.connect(card, queue_id, cntlid).0, Status::SUCCESS);
        card.pipe(host.index).window = 100;
    }
    let payload = match opcode {
        io::READ => Payload::Read(LARGEST_BYTES as u32),
        _ => Payload::Write(vec![0; LARGEST_BYTES]),
    };
    for host in &mut hosts {
        for _ in 0..host.sq_size {
            host.start(card, block_command(opcode, 0, LARGEST_BLOCKS), &payload);
        }
        card.run();
    }
}

#[test]
fn stalled_transfers_of_one_host_leave_pages_for_others() {
    for opcode in [io::READ, io::WRITE] {
        let limits = Limits {
            connections: 16,
            slots: 600,
            data_pages_per_connection: POOL_PAGES as u32 / 4,
            ..UNLIMITED
        };
        let mut card = Card::with(limits, POOL_PAGES);
        stalled_host(&mut card, 4, opcode);
        let (_admin, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
        let read = block_command(io::READ, 0, LARGEST_BLOCKS);
        let (status, _, data) = host.execute(&mut card, read, Payload::Read(LARGEST_BYTES as u32));
        assert_eq!((status, data.len()), (Status::SUCCESS, LARGEST_BYTES));
        card.assert_clean();
    }
}

/// Turns in which the connection moves something until it comes to rest, each of them within `bytes` each way.
fn bounded_turns(card: &mut Card, host: &Host, bytes: usize) -> usize {
    let mut turns = 0;
    while card.target.has_work(host.index) || !card.ram.pending.is_empty() {
        if !card.ram.pending.is_empty() {
            card.complete(0);
        }
        let pipe = card.pipe(host.index);
        let before = (pipe.to_target.len(), pipe.to_host.len());
        card.poll(host.index);
        let pipe = card.pipe(host.index);
        let moved = (before.0 - pipe.to_target.len(), pipe.to_host.len() - before.1);
        // The header of the last PDU may come on top.
        assert!(moved.0 <= bytes + 72 && moved.1 <= bytes, "{moved:?}");
        turns += usize::from(moved != (0, 0));
    }
    turns
}

#[test]
fn a_budget_of_bytes_bounds_what_a_large_transfer_has_of_a_turn() {
    const BYTES: usize = 10_000;
    let mut card = Card::new();
    let (_admin, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
    card.budget_bytes = BYTES as u32;
    let least = LARGEST_BYTES / BYTES;
    host.start(&mut card, block_command(io::READ, 0, LARGEST_BLOCKS), &Payload::Read(LARGEST_BYTES as u32));
    let turns = bounded_turns(&mut card, &host, BYTES);
    assert!((least..least + 4).contains(&turns), "{turns} turns for a read");
    assert!(matches!(host.replies(&mut card)[..], [Reply::Data { .. }, Reply::Response { .. }]));

    let data = pattern(LARGEST_BYTES, 1);
    let write = block_command(io::WRITE, 0, LARGEST_BLOCKS);
    let cid = host.start(&mut card, write, &Payload::Write(data.clone()));
    bounded_turns(&mut card, &host, BYTES);
    let [Reply::ReadyToTransfer { tag, .. }] = host.replies(&mut card)[..] else { panic!("no R2T") };
    host.answer(&mut card, cid, tag, &data);
    let turns = bounded_turns(&mut card, &host, BYTES);
    // Each PDU counts as well.
    assert!((least..least + 16).contains(&turns), "{turns} turns for a write");
    assert!(matches!(host.replies(&mut card)[..], [Reply::Response { status: Status::SUCCESS, .. }]));
    assert!(card.ram.bytes.starts_with(&data));
}

#[test]
fn what_the_card_makes_for_an_answer_counts_in_the_turn() {
    const PAGES: u32 = (LARGEST_BYTES / PAGE_BYTES) as u32;
    let limits = Limits { connections: 4, slots: 200, data_pages_per_connection: 8 * PAGES, ..UNLIMITED };
    let mut card = Card::with(limits, 16 * PAGES as usize);
    let (mut admin, _) = Host::admin(&mut card, Digests::default());
    // Health, with nothing but zeros behind it.
    let dwords = LARGEST_BYTES as u32 / 4 - 1;
    let mut log = admin_command(opcode::admin::GET_LOG_PAGE, 0, 2 | dwords << 16);
    log.cdw11.set(dwords >> 16);
    for _ in 0..4 {
        admin.start(&mut card, log, &Payload::Read(LARGEST_BYTES as u32));
    }
    card.pipe(admin.index).window = 8 * LARGEST_BYTES;
    let before = card.pool.available();
    card.poll(admin.index);
    assert_eq!(before - card.pool.available(), PAGES, "one of them in this turn");
    card.run();
    let replies = admin.replies(&mut card);
    let ended = |reply: &&Reply| matches!(reply, Reply::Response { status: Status::SUCCESS, .. });
    assert_eq!(replies.iter().filter(ended).count(), 4);
    card.assert_clean();
}

/// Turns that it takes to read 24 commands whose CIDs are so far apart, while other hosts have many.
fn turns_for_capsules(step: u16) -> usize {
    let limits = Limits { connections: 16, slots: 600, ..UNLIMITED };
    let mut card = Card::with(limits, POOL_PAGES);
    stalled_host(&mut card, 4, io::READ);
    let (_admin, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
    card.ram.hold = true;
    card.budget_bytes = 24 * 1024;
    let before = card.target.counters().commands;
    for number in 0..24 {
        host.cid = number * step;
        host.start(&mut card, block_command(io::READ, 0, 1), &Payload::Read(512));
    }
    let mut turns = 0;
    while card.target.counters().commands < before + 24 {
        card.poll(host.index);
        turns += 1;
    }
    card.assert_clean();
    turns
}

#[test]
fn a_host_whose_cids_make_the_card_look_at_all_slots_pays_for_that() {
    let (cheap, dear) = (turns_for_capsules(1), turns_for_capsules(256));
    assert!(cheap < dear, "{cheap} and {dear} turns");
}
