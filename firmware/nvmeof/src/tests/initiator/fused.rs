//! Fused pairs from the project's own host, and its Abort.

use nvme::Status;

use super::*;

const COMPARE: u64 = 1;
const WRITE: u64 = 2;

/// Starts a pair; its tokens are `COMPARE` and `WRITE`, and more by `base`.
fn submit_pair(
    io: &mut Connected,
    info: &ControllerInfo,
    base: u64,
    start: u64,
    data: [Vec<u8>; 2],
) -> Result<(), SubmitError> {
    let bytes = data[0].len() as u32;
    let transfer = commands::send_transfer(bytes, info.in_capsule_bytes);
    for (token, data) in [COMPARE, WRITE].into_iter().zip(data) {
        io.memory.0.insert(base + token, data);
    }
    let compare = commands::compare(1, start, bytes / 512);
    let write = commands::write(1, start, bytes / 512);
    let second = (base + WRITE, &write, transfer);
    io.queue.submit_fused((base + COMPARE, &compare, transfer), second)
}

/// Both ends of the pair, the Compare's first.
fn ends(io: &mut Connected, card: &mut Card, base: u64) -> [Status; 2] {
    for _ in 0..100_000 {
        io.poll(card);
        let of =
            |token| io.done.iter().find(|done| done.token == base + token).map(|done| done.status.code());
        if let (Some(compare), Some(write)) = (of(COMPARE), of(WRITE)) {
            return [compare, write];
        }
    }
    panic!("no end");
}

#[test]
fn a_pair_writes_where_it_finds_what_it_expects_and_nowhere_else() {
    for options in all_options() {
        for blocks in [1, 16, 32] {
            let mut card = Card::new();
            let (_, mut io, info) = pair(&mut card, options, 16);
            let bytes = blocks * 512;
            let old = card.ram.bytes[100 * 512..][..bytes].to_vec();
            let new = pattern(bytes, 5);
            submit_pair(&mut io, &info, 0, 100, [old.clone(), new.clone()]).unwrap();
            assert_eq!(ends(&mut io, &mut card, 0), [Status::SUCCESS; 2], "{blocks} blocks");
            assert!(card.ram.bytes[100 * 512..][..bytes] == new);
            submit_pair(&mut io, &info, 10, 100, [old, pattern(bytes, 6)]).unwrap();
            let failed = [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED];
            assert_eq!(ends(&mut io, &mut card, 10), failed, "{blocks} blocks");
            assert!(card.ram.bytes[100 * 512..][..bytes] == new);
            assert_eq!(io.queue.outstanding(), 0);
            card.assert_clean();
        }
    }
}

#[test]
fn nothing_comes_between_the_capsules_of_pairs_among_other_commands() {
    for (options, fragment) in all_options().zip([1, 7, 100, 4000]) {
        let (mut card, mut io, info) = narrow(options, fragment);
        // By R2T in turn with in capsules, so that data goes out while later pairs wait.
        for index in 0..8u64 {
            let (start, bytes) = (index * 64, if index % 2 == 0 { 32 * 512 } else { 512 });
            let old = card.ram.bytes[start as usize * 512..][..bytes].to_vec();
            submit_pair(&mut io, &info, index * 10, start, [old, pattern(bytes, 70 + index as u32)]).unwrap();
            io.memory.0.insert(1000 + index, pattern(32 * 512, index as u32));
            let write = commands::write(1, 4096 + start, 32);
            io.queue.submit(1000 + index, &write, Transfer::Send(32 * 512)).unwrap();
            io.poll(&mut card);
        }
        for index in 0..8u64 {
            assert_eq!(ends(&mut io, &mut card, index * 10), [Status::SUCCESS; 2], "pair {index}");
            let new = &io.memory.0[&(index * 10 + WRITE)];
            assert!(card.ram.bytes[index as usize * 64 * 512..][..new.len()] == new[..]);
        }
        for _ in 0..100_000 {
            if io.queue.outstanding() == 0 {
                break;
            }
            io.poll(&mut card);
        }
        assert!(io.done.len() == 24 && io.done.iter().all(|done| done.status.is_success()));
        card.assert_clean();
    }
}

#[test]
fn a_pair_that_does_not_fit_is_not_begun() {
    let mut card = Card::new();
    let (_, mut io, info) = pair(&mut card, QueueOptions::default(), 3);
    let data = |seed| [card_block(&card, 40), pattern(512, seed)];
    let (first, second) = (data(1), data(2));
    submit_pair(&mut io, &info, 0, 40, first).unwrap();
    // One slot is left.
    assert_eq!(submit_pair(&mut io, &info, 10, 41, second), Err(SubmitError::Full));
    assert_eq!(io.queue.outstanding(), 2);
    let (compare, write) = (commands::compare(1, 40, 1), commands::write(1, 40, 1));
    let empty = io.queue.submit_fused((20, &compare, Transfer::Send(512)), (21, &write, Transfer::Send(0)));
    assert_eq!(empty, Err(SubmitError::InvalidTransfer));
    assert_eq!(ends(&mut io, &mut card, 0), [Status::SUCCESS; 2]);
    assert_eq!((io.done.len(), io.queue.outstanding()), (2, 0));
    assert!(io.queue.take_abandoned().is_none());
    let (compare, write) = (commands::compare(1, 40, 1), commands::write(1, 40, 1));
    let over = io.queue.submit_fused((30, &compare, Transfer::Send(512)), (31, &write, Transfer::Send(512)));
    assert_eq!(over, Err(SubmitError::Ended));
    card.assert_clean();
}

fn card_block(card: &Card, block: usize) -> Vec<u8> {
    card.ram.bytes[block * 512..][..512].to_vec()
}

#[test]
fn an_abort_ends_a_request_for_events_by_its_cid() {
    let mut card = Card::new();
    let (mut admin, ..) = pair(&mut card, QueueOptions::default(), 4);
    assert_eq!(admin.queue.cid_of(9), None);
    admin.queue.submit(9, &commands::async_event_request(), Transfer::None).unwrap();
    assert_eq!(admin.queue.cid_of(9), None, "not sent yet");
    admin.poll(&mut card);
    let cid = admin.queue.cid_of(9).expect("at the target");
    // Of another queue: it is not found there.
    let done = admin.execute(&mut card, commands::abort(1, cid), Transfer::None, vec![]);
    assert_eq!((done.status, done.result & 1), (Status::SUCCESS, 1));
    admin.queue.submit(7, &commands::abort(0, cid), Transfer::None).unwrap();
    for _ in 0..100 {
        admin.poll(&mut card);
    }
    let found = |token| admin.done.iter().find(|done| done.token == token).copied().expect("an end");
    assert_eq!((found(7).status, found(7).result & 1), (Status::SUCCESS, 0));
    assert_eq!(found(9).status.code(), Status::ABORT_REQUESTED);
    assert_eq!(admin.queue.cid_of(9), None);
    card.assert_clean();
}
