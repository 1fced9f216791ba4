//! Fused Compare and Write: pairs, what is no pair, and that nothing comes between the two.

use core::time::Duration;

use controller::{BackendNamespace, Namespace, Operation};
use nvme::opcode::{self, io};
use nvme::{Command, Status};

use super::card::*;
use super::host::*;
use crate::lock_home::MAX_RANGE_LOCKS_PER_DRIVE;
use crate::pdu::Digests;
use crate::queue::DATA_TIMEOUT;

const NO_DIGESTS: Digests = Digests { header: false, data: false };
const BLOCK: usize = 512;

pub(super) fn fused(opcode: u8, start: u64, blocks: u32) -> Command {
    let fuse = if opcode == io::COMPARE { 1 } else { 2 };
    Command { flags: fuse, ..block_command(opcode, start, blocks) }
}

/// Sends both commands of a pair; their CIDs follow each other.
fn start_pair(host: &mut Host, card: &mut Card, start: u64, old: &[u8], new: &[u8]) -> u16 {
    let blocks = (old.len() / BLOCK) as u32;
    let first = host.start(card, fused(io::COMPARE, start, blocks), &Payload::InCapsule(old.to_vec()));
    host.start(card, fused(io::WRITE, start, blocks), &Payload::InCapsule(new.to_vec()));
    first
}

/// Statuses by CID, in the order of arrival.
fn statuses(host: &Host, card: &mut Card) -> Vec<(u16, Status)> {
    card.run();
    codes(host.replies(card))
}

/// The same of these replies.
pub(super) fn codes(replies: Vec<Reply>) -> Vec<(u16, Status)> {
    replies.into_iter().map(ending).map(|(cid, status)| (cid, status.code())).collect()
}

/// CID and status, with its flags, of a command's response.
fn ending(reply: Reply) -> (u16, Status) {
    match reply {
        Reply::Response { cid, status, .. } => (cid, status),
        other => panic!("{other:?}"),
    }
}

fn blocks_of(card: &Card, start: u64, blocks: usize) -> Vec<u8> {
    card.ram.bytes[start as usize * BLOCK..][..blocks * BLOCK].to_vec()
}

#[test]
fn a_pair_that_matches_writes_and_one_that_does_not_leaves_the_blocks() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, Digests { header: true, data: true }, |_| {});
    let old = blocks_of(&card, 40, 8);
    let new = pattern(8 * BLOCK, 1);
    let cid = start_pair(&mut host, &mut card, 40, &old, &new);
    assert_eq!(statuses(&host, &mut card), [(cid, Status::SUCCESS), (cid + 1, Status::SUCCESS)]);
    assert!(blocks_of(&card, 40, 8) == new);
    let cid = start_pair(&mut host, &mut card, 40, &old, &pattern(8 * BLOCK, 2));
    let failed = [(cid, Status::COMPARE_FAILURE), (cid + 1, Status::ABORTED_FAILED_FUSED)];
    assert_eq!(statuses(&host, &mut card), failed);
    assert!(blocks_of(&card, 40, 8) == new);
    card.assert_clean();
}

#[test]
fn data_may_come_by_r2t_and_in_either_order() {
    for reversed in [false, true] {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
        let data = [blocks_of(&card, 40, 32), pattern(32 * BLOCK, 3)];
        for (opcode, data) in [io::COMPARE, io::WRITE].into_iter().zip(&data) {
            host.start(&mut card, fused(opcode, 40, 32), &Payload::Write(data.clone()));
        }
        card.run();
        let mut asked: Vec<_> = host.replies(&mut card).into_iter().zip(&data).collect();
        if reversed {
            asked.reverse();
        }
        for (reply, data) in asked {
            assert_eq!(card.ram.submitted, 0, "nothing begins before all data is here");
            let Reply::ReadyToTransfer { cid, tag, .. } = reply else { panic!("{reply:?}") };
            host.answer(&mut card, cid, tag, data);
            card.run();
        }
        let found = statuses(&host, &mut card);
        assert!(found.len() == 2 && found.iter().all(|(_, status)| status.is_success()), "{found:?}");
        assert!(blocks_of(&card, 40, 32) == data[1]);
        card.assert_clean();
    }
}

#[test]
fn half_a_pair_is_aborted() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let data = Payload::InCapsule(vec![1; BLOCK]);
    let second = host.start(&mut card, fused(io::WRITE, 0, 1), &data);
    assert_eq!(statuses(&host, &mut card), [(second, Status::ABORTED_MISSING_FUSED)]);
    // A first one waits, until something else comes.
    let first = host.start(&mut card, fused(io::COMPARE, 0, 1), &data);
    assert_eq!(statuses(&host, &mut card), []);
    let flush = host.start(&mut card, block_command(io::FLUSH, 0, 1), &Payload::None);
    let found = statuses(&host, &mut card);
    assert_eq!(found, [(first, Status::ABORTED_MISSING_FUSED), (flush, Status::SUCCESS)]);
    let first = host.start(&mut card, fused(io::COMPARE, 0, 1), &data);
    let (old, new) = (blocks_of(&card, 8, 1), pattern(BLOCK, 4));
    let cid = start_pair(&mut host, &mut card, 8, &old, &new);
    let found = statuses(&host, &mut card);
    let pair = [(cid, Status::SUCCESS), (cid + 1, Status::SUCCESS)];
    assert_eq!(found, [&[(first, Status::ABORTED_MISSING_FUSED)], &pair[..]].concat());
    let write = host.start(&mut card, fused(io::WRITE, 8, 1), &data);
    assert_eq!(statuses(&host, &mut card), [(write, Status::ABORTED_MISSING_FUSED)], "one pair, one second");
    card.assert_clean();
}

#[test]
fn a_pair_of_different_blocks_is_none() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    for (start, blocks) in [(9u64, 1u32), (8, 2)] {
        let data = |blocks: u32| Payload::InCapsule(vec![0; blocks as usize * BLOCK]);
        let first = host.start(&mut card, fused(io::COMPARE, 8, 1), &data(1));
        let second = host.start(&mut card, fused(io::WRITE, start, blocks), &data(blocks));
        let found = statuses(&host, &mut card);
        assert_eq!(found, [(first, Status::INVALID_FIELD), (second, Status::INVALID_FIELD)]);
    }
    assert_eq!(card.ram.submitted, 0);
    card.assert_clean();
}

#[test]
fn a_pair_whose_namespace_comes_to_another_drive_between_its_commands_may_be_sent_again() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let data = Payload::InCapsule(vec![0; BLOCK]);
    let first = host.start(&mut card, fused(io::COMPARE, 8, 1), &data);
    card.run();
    let namespace = card.subsystem.namespaces()[0];
    assert!(card.subsystem.detach(1));
    let backend = BackendNamespace { drive: namespace.backend.drive + 1, ..namespace.backend };
    card.subsystem.attach(Namespace { backend, ..namespace }).unwrap();
    let second = host.start(&mut card, fused(io::WRITE, 8, 1), &data);
    card.run();
    // Without DNR.
    let again = Status::NAMESPACE_NOT_READY.with_more();
    let found: Vec<_> = host.replies(&mut card).into_iter().map(ending).collect();
    assert_eq!(found, [(first, again), (second, again)]);
    card.assert_clean();
}

#[test]
fn a_command_that_is_refused_takes_the_other_with_it() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let data = Payload::InCapsule(vec![0; BLOCK]);
    let first = host.start(&mut card, fused(io::COMPARE, BLOCKS, 1), &data);
    let second = host.start(&mut card, fused(io::WRITE, BLOCKS - 1, 1), &data);
    let found = statuses(&host, &mut card);
    assert_eq!(found, [(first, Status::LBA_OUT_OF_RANGE), (second, Status::ABORTED_FAILED_FUSED)]);
    let first = host.start(&mut card, fused(io::COMPARE, 8, 1), &data);
    let mut directive = fused(io::WRITE, 8, 1);
    directive.cdw12.set(1 << 20);
    let second = host.start(&mut card, directive, &data);
    let found = statuses(&host, &mut card);
    assert_eq!(found, [(first, Status::ABORTED_FAILED_FUSED), (second, Status::INVALID_FIELD)]);
    assert_eq!(card.ram.submitted, 0);
    card.assert_clean();
}

#[test]
fn a_wrong_data_digest_of_either_fails_both() {
    let digests = Digests { header: false, data: true };
    for wrong in [0, 1] {
        let mut card = Card::new();
        let (_, host) = Host::pair(&mut card, digests, |_| {});
        for (index, opcode) in [io::COMPARE, io::WRITE].into_iter().enumerate() {
            let mut command = fused(opcode, 8, 1);
            command.cid.set(100 + index as u16);
            command.set_sgl(in_capsule(BLOCK as u32));
            let mut pdu = host.capsule(&command, &blocks_of(&card, 8, 1));
            if index == wrong {
                *pdu.last_mut().unwrap() ^= 1;
            }
            card.send(host.index, &pdu);
        }
        let found = statuses(&host, &mut card);
        let other = (101 - wrong as u16, Status::ABORTED_FAILED_FUSED);
        assert!(found.contains(&(100 + wrong as u16, Status::TRANSIENT_TRANSPORT_ERROR)), "{found:?}");
        assert!(found.contains(&other) && found.len() == 2, "{found:?}");
        assert_eq!(card.ram.submitted, 0);
        card.assert_clean();
    }
}

/// Lets the request to `start` of the given kind come home.
fn complete(card: &mut Card, operation: Operation, start: u64) {
    let found = card.ram.pending.iter().position(|r| (r.operation, r.start_block) == (operation, start));
    card.complete(found.unwrap_or_else(|| panic!("{operation:?} of {start} is not at the drive")));
    card.run();
}

fn at_drive(card: &Card) -> Vec<(Operation, u64)> {
    card.ram.pending.iter().map(|request| (request.operation, request.start_block)).collect()
}

#[test]
fn others_wait_for_the_blocks_of_a_pair_and_it_for_them() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let (_, mut other) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    let stamp = pattern(2 * BLOCK, 7);
    other.start(&mut card, block_command(io::WRITE, 39, 2), &Payload::InCapsule(stamp.clone()));
    card.run();
    let old = [&stamp[BLOCK..], &blocks_of(&card, 41, 1)].concat();
    start_pair(&mut host, &mut card, 40, &old, &pattern(2 * BLOCK, 8));
    card.run();
    assert_eq!(at_drive(&card), [(Operation::Write, 39)], "the pair waits for what is at the drive");
    other.start(&mut card, block_command(io::WRITE, 100, 1), &Payload::InCapsule(vec![0; BLOCK]));
    other.start(&mut card, block_command(io::READ, 41, 1), &Payload::Read(BLOCK as u32));
    card.run();
    assert_eq!(at_drive(&card), [(Operation::Write, 39), (Operation::Write, 100)], "and others for it");
    complete(&mut card, Operation::Write, 39);
    assert!(at_drive(&card).contains(&(Operation::Compare, 40)));
    complete(&mut card, Operation::Compare, 40);
    assert!(at_drive(&card).contains(&(Operation::Write, 40)));
    assert!(!at_drive(&card).contains(&(Operation::Read, 41)));
    complete(&mut card, Operation::Write, 40);
    assert!(at_drive(&card).contains(&(Operation::Read, 41)));
    card.ram.hold = false;
    assert!(statuses(&host, &mut card).iter().all(|(_, status)| status.is_success()));
    card.run();
    other.replies(&mut card);
    card.assert_clean();
}

#[test]
fn pairs_on_two_queues_go_one_after_the_other() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let (_, mut other) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    let old = blocks_of(&card, 40, 1);
    start_pair(&mut host, &mut card, 40, &old, &pattern(BLOCK, 1));
    start_pair(&mut other, &mut card, 40, &old, &pattern(BLOCK, 2));
    card.run();
    assert_eq!(at_drive(&card), [(Operation::Compare, 40)]);
    complete(&mut card, Operation::Compare, 40);
    assert_eq!(at_drive(&card), [(Operation::Write, 40)]);
    complete(&mut card, Operation::Write, 40);
    assert_eq!(at_drive(&card), [(Operation::Compare, 40)]);
    card.ram.hold = false;
    let first: Vec<_> = statuses(&host, &mut card).into_iter().map(|(_, status)| status).collect();
    let second: Vec<_> = statuses(&other, &mut card).into_iter().map(|(_, status)| status).collect();
    assert_eq!(first, [Status::SUCCESS; 2]);
    assert_eq!(second, [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED]);
    card.assert_clean();
}

#[test]
fn a_queue_with_many_pairs_leaves_others_their_turn() {
    const MANY: usize = 15;
    let mut card = Card::new();
    let (_, mut greedy) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let (_, mut other) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    let old = blocks_of(&card, 40, 1);
    for _ in 0..MANY {
        start_pair(&mut greedy, &mut card, 40, &old, &old);
    }
    card.run();
    start_pair(&mut other, &mut card, 40, &old, &old);
    card.run();
    // Those of the first that have asked already, and one that was in line before.
    let mut before = 0;
    while other.replies(&mut card).is_empty() {
        complete(&mut card, Operation::Compare, 40);
        complete(&mut card, Operation::Write, 40);
        before += 1;
        assert!(before <= MAX_RANGE_LOCKS_PER_DRIVE + 2, "others' turn comes after {before} pairs");
    }
    card.ram.hold = false;
    while !at_drive(&card).is_empty() {
        card.complete(0);
        card.run();
    }
    assert_eq!(statuses(&greedy, &mut card).len(), 2 * MANY);
    other.replies(&mut card);
    card.assert_clean();
}

#[test]
fn a_pair_of_a_lost_connection_that_comes_home_lets_the_next_one_begin() {
    for ends in [Operation::Compare, Operation::Write] {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
        let (_, mut other) = Host::pair(&mut card, NO_DIGESTS, |_| {});
        card.ram.hold = true;
        let old = blocks_of(&card, 40, 1);
        start_pair(&mut host, &mut card, 40, &old, &pattern(BLOCK, 1));
        card.run();
        if ends == Operation::Write {
            complete(&mut card, Operation::Compare, 40);
        }
        start_pair(&mut other, &mut card, 40, &old, &pattern(BLOCK, 2));
        card.run();
        card.cut(host.index);
        complete(&mut card, ends, 40);
        assert_eq!(at_drive(&card), [(Operation::Compare, 40)]);
        card.ram.hold = false;
        complete(&mut card, Operation::Compare, 40);
        assert_eq!(statuses(&other, &mut card).len(), 2);
        card.assert_clean();
    }
}

#[test]
fn a_busy_backend_delays_a_pair_and_no_more() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    card.ram.places = 1;
    let old = blocks_of(&card, 40, 1);
    host.start(&mut card, block_command(io::READ, 0, 1), &Payload::Read(BLOCK as u32));
    start_pair(&mut host, &mut card, 40, &old, &pattern(BLOCK, 1));
    host.start(&mut card, block_command(io::READ, 40, 1), &Payload::Read(BLOCK as u32));
    card.run();
    for expected in
        [(Operation::Read, 0), (Operation::Compare, 40), (Operation::Write, 40), (Operation::Read, 40)]
    {
        assert_eq!(at_drive(&card), [expected]);
        complete(&mut card, expected.0, expected.1);
    }
    card.assert_clean();
}

#[test]
fn a_lost_connection_leaves_no_lock_behind() {
    for stage in 0..5 {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
        let (_, mut other) = Host::pair(&mut card, NO_DIGESTS, |_| {});
        card.ram.hold = true;
        let old = blocks_of(&card, 40, 1);
        match stage {
            0 => {
                host.start(&mut card, fused(io::COMPARE, 40, 1), &Payload::InCapsule(old.clone()));
            }
            // The pair waits for a write that is at the drive.
            1 => {
                other.start(&mut card, block_command(io::WRITE, 40, 1), &Payload::InCapsule(old.clone()));
                card.run();
                start_pair(&mut host, &mut card, 40, &old, &pattern(BLOCK, 1));
            }
            _ => {
                start_pair(&mut host, &mut card, 40, &old, &pattern(BLOCK, 1));
            }
        }
        card.run();
        if stage >= 3 {
            complete(&mut card, Operation::Compare, 40);
        }
        if stage == 4 {
            complete(&mut card, Operation::Write, 40);
        }
        card.cut(host.index);
        card.ram.hold = false;
        card.run();
        let write =
            other.start(&mut card, block_command(io::WRITE, 40, 1), &Payload::InCapsule(vec![9; BLOCK]));
        let found = statuses(&other, &mut card);
        assert!(found.contains(&(write, Status::SUCCESS)), "stage {stage}: {found:?}");
        let cid = start_pair(&mut other, &mut card, 40, &[9; BLOCK], &[10; BLOCK]);
        let found = statuses(&other, &mut card);
        assert_eq!(found, [(cid, Status::SUCCESS), (cid + 1, Status::SUCCESS)], "stage {stage}");
        card.assert_clean();
    }
}

/// A queue that cannot be closed yet because its host takes no answer, of a controller that is being reset.
fn reset_with_an_answer_left(card: &mut Card, admin: &mut Host, host: &mut Host) {
    card.pipe(host.index).window = 0;
    host.start(card, Command { nsid: 99.into(), ..block_command(io::READ, 0, 1) }, &Payload::Read(512));
    card.run();
    assert_eq!(admin.execute(card, property_set(0x14, 0), Payload::None).0, Status::SUCCESS);
    assert!(card.is_open(host.index));
}

#[test]
fn a_reset_ends_a_pair_between_its_commands() {
    let mut card = Card::new();
    let (mut admin, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    let old = blocks_of(&card, 40, 1);
    start_pair(&mut host, &mut card, 40, &old, &pattern(BLOCK, 1));
    card.run();
    reset_with_an_answer_left(&mut card, &mut admin, &mut host);
    complete(&mut card, Operation::Compare, 40);
    assert!(at_drive(&card).is_empty(), "a write goes out after the reset");
    assert!(!card.target.holds_locks());
    assert!(blocks_of(&card, 40, 1) == old);
    card.assert_clean();
}

#[test]
fn connects_wait_for_the_writes_of_a_queue_that_is_being_closed() {
    let mut card = Card::new();
    let (mut admin, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    host.start(&mut card, block_command(io::WRITE, 40, 1), &Payload::InCapsule(vec![1; BLOCK]));
    card.run();
    reset_with_an_answer_left(&mut card, &mut admin, &mut host);
    let fresh = Host::open(&mut card);
    fresh.initialize(&mut card);
    card.send(fresh.index, &fresh.connect_pdu(0, 0xffff));
    card.run();
    assert!(fresh.replies(&mut card).is_empty(), "connected while an old write is at the drive");
    assert!(card.is_open(host.index));
    complete(&mut card, Operation::Write, 40);
    let replies = fresh.replies(&mut card);
    assert!(matches!(replies[..], [Reply::Response { status: Status::SUCCESS, .. }]), "{replies:?}");
    card.assert_clean();
}

#[test]
fn who_waits_for_a_pair_delays_no_others_and_gets_its_turn() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let (_, mut other) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    let old = |card: &Card, start| blocks_of(card, start, 1);
    let first = old(&card, 40);
    start_pair(&mut host, &mut card, 40, &first, &pattern(BLOCK, 1));
    card.run();
    let mut dataset = Command { opcode: io::DATASET_MANAGEMENT, nsid: 1.into(), ..Default::default() };
    dataset.cdw11.set(4);
    other.start(&mut card, dataset, &Payload::InCapsule(vec![0; 16]));
    other.start(&mut card, block_command(io::READ, 100, 1), &Payload::Read(BLOCK as u32));
    card.run();
    assert_eq!(at_drive(&card), [(Operation::Compare, 40), (Operation::Read, 100)]);
    let second = old(&card, 50);
    start_pair(&mut host, &mut card, 50, &second, &pattern(BLOCK, 2));
    card.run();
    assert!(!at_drive(&card).contains(&(Operation::Compare, 50)), "a later pair goes first");
    complete(&mut card, Operation::Compare, 40);
    complete(&mut card, Operation::Write, 40);
    let trim = Operation::DatasetManagement { ranges: 1, attributes: 4 };
    assert!(at_drive(&card).contains(&(trim, 0)), "{:?}", at_drive(&card));
    complete(&mut card, trim, 0);
    assert!(at_drive(&card).contains(&(Operation::Compare, 50)), "{:?}", at_drive(&card));
    card.ram.hold = false;
    card.run();
    assert!(statuses(&host, &mut card).iter().all(|(_, status)| status.is_success()));
    card.assert_clean();
}

#[test]
fn pairs_of_one_drive_do_not_take_all_locks() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    for pair in 0..=MAX_RANGE_LOCKS_PER_DRIVE as u64 {
        let old = blocks_of(&card, pair, 1);
        start_pair(&mut host, &mut card, pair, &old, &pattern(BLOCK, 1));
    }
    card.run();
    assert_eq!(at_drive(&card).len(), MAX_RANGE_LOCKS_PER_DRIVE);
    complete(&mut card, Operation::Compare, 0);
    complete(&mut card, Operation::Write, 0);
    assert!(at_drive(&card).contains(&(Operation::Compare, MAX_RANGE_LOCKS_PER_DRIVE as u64)));
    card.ram.hold = false;
    assert!(statuses(&host, &mut card).iter().all(|(_, status)| status.is_success()));
    card.assert_clean();
}

#[test]
fn a_first_command_does_not_wait_for_its_second_for_ever() {
    let mut card = Card::new();
    let (mut admin, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    host.start(&mut card, fused(io::COMPARE, 8, 1), &Payload::InCapsule(vec![0; BLOCK]));
    card.run();
    let started = card.now;
    for second in 1..DATA_TIMEOUT.as_secs() {
        card.tick_at(started + Duration::from_secs(second));
        let alive = admin_command(opcode::admin::KEEP_ALIVE, 0, 0);
        assert_eq!(admin.execute(&mut card, alive, Payload::None).0, Status::SUCCESS);
        assert!(card.is_open(host.index));
    }
    card.tick_at(started + DATA_TIMEOUT);
    assert!(!card.is_open(host.index) && card.is_open(admin.index));
    card.assert_clean();
}

#[test]
fn a_first_command_without_its_second_does_not_delay_the_orderly_end() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let first = host.start(&mut card, fused(io::COMPARE, 8, 1), &Payload::InCapsule(vec![0; BLOCK]));
    card.run();
    card.target.begin_shutdown(card.now, card.now + Duration::from_secs(10), &card.subsystem);
    assert_eq!(statuses(&host, &mut card), [(first, Status::ABORTED_MISSING_FUSED)]);
    assert!(!card.is_open(host.index));
    card.assert_clean();
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// Several queues count in one block by pairs, and others write the block behind it: each write of a pair finds the
/// blocks as its compare has seen them.
#[test]
fn nothing_comes_between_the_two_commands_of_a_pair() {
    for seed in 1..=12 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut card = Card::new();
        card.ram.bytes[40 * BLOCK..42 * BLOCK].fill(0);
        let mut hosts: Vec<_> = (0..4).map(|_| Host::pair(&mut card, NO_DIGESTS, |_| {}).1).collect();
        let mut busy = [0usize; 4];
        let (mut counted, mut told) = (0u64, 0u64);
        card.ram.hold = true;
        for step in 0..1500 {
            let index = random.below(hosts.len());
            if busy[index] == 0 {
                let host = &mut hosts[index];
                if index < 3 {
                    let old = blocks_of(&card, 40, 2);
                    let mut new = old.clone();
                    let count = u64::from_le_bytes(old[..8].try_into().unwrap());
                    new[..8].copy_from_slice(&(count + 1).to_le_bytes());
                    start_pair(host, &mut card, 40, &old, &new);
                    busy[index] = 2;
                } else {
                    let stamp = vec![step as u8; BLOCK];
                    host.start(&mut card, block_command(io::WRITE, 41, 1), &Payload::InCapsule(stamp));
                    busy[index] = 1;
                }
            }
            card.run();
            if !card.ram.pending.is_empty() {
                let position = random.below(card.ram.pending.len());
                let request = &card.ram.pending[position];
                let is_pairs = request.operation == Operation::Write && request.blocks == 2;
                let before = blocks_of(&card, 40, 2);
                card.complete(position);
                if is_pairs {
                    counted += 1;
                    let after = blocks_of(&card, 40, 2);
                    assert_eq!(after[..8], counted.to_le_bytes(), "a count was lost");
                    assert!(before[8..] == after[8..], "a write was lost");
                }
                card.run();
            }
            for (host, busy) in hosts.iter().zip(&mut busy) {
                for reply in host.replies(&mut card) {
                    let Reply::Response { status, .. } = reply else { panic!("{reply:?}") };
                    *busy -= 1;
                    told += u64::from(status.is_success() && *busy == 0);
                }
            }
        }
        assert!(counted > 50 && told > 50, "{counted} {told}");
        card.ram.hold = false;
        card.run();
        card.assert_clean();
    }
}
