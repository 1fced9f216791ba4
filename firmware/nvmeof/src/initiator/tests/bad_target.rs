//! Each field wrong, each PDU at the wrong moment.

use nvme::Status;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::{BYTES, World, data_header, icresp, response, with_data};
use crate::initiator::{Fault, SubmitError, Transfer, commands};
use crate::pdu::{Digests, FatalStatus, Initialize, flags, kind};

const OFF: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

type Change = fn(&mut Initialize);

/// The H2CTermReq that followed, as (FES, FEI, quoted bytes).
fn terminate(world: &World) -> (u16, u32, usize) {
    let sent = &world.wire.to_target;
    let start = (0..sent.len()).rev().find(|&at| {
        sent[at] == kind::HOST_TERMINATE && sent.get(at + 2) == Some(&24) && sent.len() - at >= 24
    });
    let pdu = &sent[start.expect("a TermReq")..];
    let field = |at: usize| u32::from_le_bytes(pdu[at..at + 4].try_into().unwrap());
    assert_eq!(field(4) as usize, pdu.len());
    (field(8) as u16, field(10), pdu.len() - 24)
}

fn live_with(transfer: Transfer) -> (World, u16) {
    let mut world = World::live(OFF);
    world.queue.submit(5, &commands::read(1, 0, 8), transfer).unwrap();
    world.poll().unwrap();
    let cid = world.cid();
    (world, cid)
}

#[test]
fn each_wrong_field_of_the_first_answer() {
    let field = |offset| Fault::Field { kind: kind::INITIALIZE_RESPONSE, offset };
    let cases: &[(Change, Fault)] = &[
        (|it| it.common.kind = kind::RESPONSE, Fault::UnexpectedPdu { kind: kind::RESPONSE }),
        (|it| it.common.kind = kind::COMMAND, Fault::UnexpectedPdu { kind: kind::COMMAND }),
        (|it| it.common.header_bytes = 127, field(2)),
        (|it| it.common.total_bytes = U32::new(132), field(4)),
        (|it| it.format = U16::new(1), Fault::Unsupported { offset: 8 }),
        (|it| it.alignment = 32, field(10)),
        (|it| it.digests = 1, Fault::Unsupported { offset: 11 }),
        (|it| it.digests = 4, field(11)),
        (|it| it.limit = U32::new(4092), field(12)),
        (|it| it.limit = U32::new(4098), field(12)),
        (|it| it.limit = U32::new(0), field(12)),
    ];
    for (change, fault) in cases {
        let mut world = World::fresh(OFF);
        let mut answer = icresp(OFF);
        change(&mut answer);
        assert_eq!(world.say(answer.as_bytes()), Err(*fault));
        assert_eq!(world.poll(), Err(*fault), "it stays so");
        terminate(&world);
        assert!(!world.queue.has_output() && !world.queue.is_live());
        assert_eq!(world.queue.submit(1, &commands::flush(1), Transfer::None), Err(SubmitError::Ended));
    }
    // Digests that were asked for and are not agreed to.
    let mut world = World::fresh(BOTH);
    assert_eq!(world.say(icresp(OFF).as_bytes()), Err(Fault::Unsupported { offset: 11 }));
    assert_eq!(terminate(&world), (FatalStatus::UnsupportedParameter as u16, 11, 128));
    // A second one.
    let mut world = World::live(OFF);
    let fault = Fault::UnexpectedPdu { kind: kind::INITIALIZE_RESPONSE };
    assert_eq!(world.say(icresp(OFF).as_bytes()), Err(fault));
    assert_eq!(terminate(&world), (FatalStatus::SequenceError as u16, 0, 8));
}

#[test]
fn each_wrong_field_of_data() {
    let (good, kind) = (data_header(kind::CONTROLLER_DATA, 0, 0, BYTES), kind::CONTROLLER_DATA);
    let field = |offset| Fault::Field { kind, offset };
    let change = |change: fn(&mut crate::pdu::DataHeader), fault: fn(u16) -> Fault| {
        let (mut world, cid) = live_with(Transfer::Receive(BYTES));
        let mut header = good;
        header.cid = U16::new(cid);
        change(&mut header);
        assert_eq!(world.say(header.as_bytes()), Err(fault(cid)));
        assert!(world.memory.stored.is_empty());
        terminate(&world);
    };
    change(|it| it.common.header_bytes = 25, |_| Fault::Field { kind: 7, offset: 2 });
    assert_eq!(field(2), Fault::Field { kind: 7, offset: 2 });
    change(|it| it.common.flags |= flags::HEADER_DIGEST, |_| Fault::Field { kind: 7, offset: 1 });
    change(|it| it.common.flags |= flags::DATA_DIGEST, |_| Fault::Field { kind: 7, offset: 1 });
    change(|it| it.common.data_offset = 20, |_| Fault::Field { kind: 7, offset: 3 });
    // HPDA asked for eight bytes.
    change(|it| it.common.data_offset = 28, |_| Fault::Field { kind: 7, offset: 3 });
    change(|it| it.common.total_bytes = U32::new(24), |_| Fault::Field { kind: 7, offset: 4 });
    change(|it| it.common.total_bytes = U32::new(7), |_| Fault::Field { kind: 7, offset: 4 });
    change(|it| it.common.total_bytes = U32::new(u32::MAX), |_| Fault::Field { kind: 7, offset: 16 });
    change(|it| it.length = U32::new(BYTES - 4), |_| Fault::Field { kind: 7, offset: 16 });
    change(|it| it.cid.set(it.cid.get() ^ 1), |cid| Fault::UnknownCommand { cid: cid ^ 1 });
    change(|it| it.cid.set(it.cid.get() ^ 0x1000), |cid| Fault::UnknownCommand { cid: cid ^ 0x1000 });
    change(|it| it.cid.set(0xffff), |_| Fault::UnknownCommand { cid: 0xffff });
    change(|it| it.offset = U32::new(4), |cid| Fault::OutOfRange { cid });
    change(|it| it.offset = U32::new(u32::MAX), |cid| Fault::OutOfRange { cid });
    change(
        |it| {
            it.common.total_bytes = U32::new(24 + BYTES + 4);
            it.length = U32::new(BYTES + 4);
        },
        |cid| Fault::OutOfRange { cid },
    );
    change(|it| it.common.flags |= flags::SUCCESS, |cid| Fault::UnexpectedSuccess { cid });
}

#[test]
fn data_for_a_command_that_reads_none_and_data_twice() {
    for transfer in [Transfer::None, Transfer::Send(BYTES)] {
        let (mut world, cid) = live_with(transfer);
        let header = data_header(kind::CONTROLLER_DATA, cid, 0, 512);
        assert_eq!(world.say(header.as_bytes()), Err(Fault::WrongDirection { cid }));
    }
    let (mut world, cid) = live_with(Transfer::Receive(BYTES));
    let header = data_header(kind::CONTROLLER_DATA, cid, 0, BYTES);
    world.say(&with_data(&header, BYTES)).unwrap();
    assert_eq!(world.say(&with_data(&header, BYTES)), Err(Fault::OutOfRange { cid }));
    assert_eq!(world.memory.stored.len(), BYTES as usize);
}

#[test]
fn a_request_for_data_that_is_not_the_next() {
    let ask = |offset, length| data_header(kind::READY_TO_TRANSFER, 0, offset, length);
    for (offset, length, fault) in [
        (0, 0, None),
        (4, 512, Some(())),
        (0, BYTES + 1, Some(())),
        (u32::MAX, 1, Some(())),
        (0, u32::MAX, Some(())),
    ] {
        let (mut world, cid) = live_with(Transfer::Send(BYTES));
        let mut request = ask(offset, length);
        request.cid = U16::new(cid);
        let zero = Fault::Field { kind: kind::READY_TO_TRANSFER, offset: 16 };
        let fault = fault.map_or(zero, |()| Fault::OutOfRange { cid });
        assert_eq!(world.say(request.as_bytes()), Err(fault));
        terminate(&world);
    }
    // Two at once, though ICReq allowed one.
    let (mut world, cid) = live_with(Transfer::Send(BYTES));
    let mut both = data_header(kind::READY_TO_TRANSFER, cid, 0, 512).as_bytes().to_vec();
    both.extend(data_header(kind::READY_TO_TRANSFER, cid, 512, 512).as_bytes());
    assert_eq!(world.say(&both), Err(Fault::SecondRequest { cid }));
    // For a command that has none, and one that took it along.
    for transfer in [Transfer::None, Transfer::Receive(BYTES)] {
        let (mut world, cid) = live_with(transfer);
        let request = data_header(kind::READY_TO_TRANSFER, cid, 0, 512);
        assert_eq!(world.say(request.as_bytes()), Err(Fault::WrongDirection { cid }));
    }
    // With data behind it.
    let (mut world, cid) = live_with(Transfer::Send(BYTES));
    let mut request = data_header(kind::READY_TO_TRANSFER, cid, 0, 512);
    request.common.total_bytes = U32::new(536);
    assert_eq!(world.say(request.as_bytes()), Err(Fault::Field { kind: 9, offset: 4 }));
}

#[test]
fn answers_that_come_too_early_twice_or_to_nothing() {
    let mut world = World::live(OFF);
    let fault = Fault::UnknownCommand { cid: 0 };
    assert_eq!(world.say(response(0, Status::SUCCESS, 0).as_bytes()), Err(fault));
    // Success without the data.
    for transfer in [Transfer::Receive(BYTES), Transfer::Send(BYTES)] {
        let (mut world, cid) = live_with(transfer);
        let answer = response(cid, Status::SUCCESS, 0);
        assert_eq!(world.say(answer.as_bytes()), Err(Fault::MissingData { cid }));
    }
    // While data is on its way that was asked for.
    let (mut world, cid) = live_with(Transfer::Send(BYTES));
    let mut both = data_header(kind::READY_TO_TRANSFER, cid, 0, 512).as_bytes().to_vec();
    both.extend(response(cid, Status::INTERNAL_ERROR, 0).as_bytes());
    assert_eq!(world.say(&both), Err(Fault::EarlyResponse { cid }));
    // Twice; and to a command whose slot has a new one by now.
    let (mut world, cid) = live_with(Transfer::None);
    let answer = response(cid, Status::SUCCESS, 0);
    world.say(answer.as_bytes()).unwrap();
    assert_eq!(world.queue.take_completed().unwrap().token, 5);
    for token in 0..4 {
        world.queue.submit(token, &commands::flush(1), Transfer::None).unwrap();
    }
    world.poll().unwrap();
    assert_eq!(world.say(answer.as_bytes()), Err(Fault::UnknownCommand { cid }));
    assert_eq!(core::iter::from_fn(|| world.queue.take_abandoned()).count(), 4);
}

#[test]
fn a_failed_command_may_end_without_its_data() {
    for transfer in [Transfer::Receive(BYTES), Transfer::Send(BYTES)] {
        let (mut world, cid) = live_with(transfer);
        world.say(response(cid, Status::LBA_OUT_OF_RANGE, 0).as_bytes()).unwrap();
        let completed = world.queue.take_completed().unwrap();
        assert_eq!((completed.token, completed.status), (5, Status::LBA_OUT_OF_RANGE));
        assert_eq!(world.queue.outstanding(), 0);
    }
}

#[test]
fn success_with_the_data_needs_a_queue_without_flow_control() {
    for (sq_head, allowed) in [(0xffff, true), (0, false)] {
        let mut world = World::live(OFF);
        world.queue.submit(1, &commands::connect(1, 4, 0, false), Transfer::None).unwrap();
        world.poll().unwrap();
        let answer = response(world.cid(), Status::SUCCESS, sq_head);
        world.say(answer.as_bytes()).unwrap();
        assert!(world.queue.take_completed().is_some());
        world.queue.submit(2, &commands::read(1, 0, 1), Transfer::Receive(512)).unwrap();
        world.poll().unwrap();
        let cid = world.cid();
        let mut data = data_header(kind::CONTROLLER_DATA, cid, 0, 512);
        data.common.flags |= flags::SUCCESS;
        let said = world.say(&with_data(&data, 512));
        if allowed {
            assert_eq!(world.queue.take_completed().map(|done| done.token), Some(2));
        } else {
            assert_eq!(said, Err(Fault::UnexpectedSuccess { cid }));
        }
    }
}

#[test]
fn digests_are_held_against_what_came() {
    let header_digest = |header: &[u8]| hal_simd::crc32c(0, header).to_le_bytes();
    for (wrong_header, wrong_data) in [(false, false), (false, true), (true, false)] {
        let mut world = World::live(BOTH);
        world.queue.submit(5, &commands::read(1, 0, 1), Transfer::Receive(512)).unwrap();
        world.poll().unwrap();
        let sent = world.wire.to_target.clone();
        assert_eq!(sent[72..], header_digest(&sent[..72]));
        let mut header = data_header(kind::CONTROLLER_DATA, u16::from_le_bytes([sent[10], sent[11]]), 0, 512);
        header.common.flags |= flags::HEADER_DIGEST | flags::DATA_DIGEST;
        header.common.data_offset = 32;
        header.common.total_bytes = U32::new(32 + 512 + 4);
        let mut pdu = header.as_bytes().to_vec();
        pdu.extend(header_digest(header.as_bytes()));
        pdu[24] ^= u8::from(wrong_header);
        pdu.extend([0; 4]);
        let data = [0x77; 512];
        pdu.extend(data);
        pdu.extend((hal_simd::crc32c(0, &data) ^ u32::from(wrong_data)).to_le_bytes());
        let said = world.say(&pdu);
        if wrong_header {
            assert!(matches!(said, Err(Fault::HeaderDigest { .. })));
            assert_eq!(terminate(&world).0, FatalStatus::HeaderDigestError as u16);
            continue;
        }
        let mut answer = response(header.cid.get(), Status::SUCCESS, 0);
        answer.common.flags = flags::HEADER_DIGEST;
        answer.common.total_bytes = U32::new(28);
        let mut pdu = answer.as_bytes().to_vec();
        pdu.extend(header_digest(answer.as_bytes()));
        world.say(&pdu).unwrap();
        let expected = if wrong_data { Status::TRANSIENT_TRANSPORT_ERROR } else { Status::SUCCESS };
        assert_eq!(world.queue.take_completed().unwrap().status, expected);
    }
}

#[test]
fn data_goes_in_pieces_of_what_the_target_takes_aligned_as_it_wants() {
    let mut world = World::fresh(OFF);
    let mut answer = icresp(OFF);
    answer.alignment = 31;
    world.say(answer.as_bytes()).unwrap();
    world.memory.bytes = 10_000;
    world.queue.submit(1, &commands::write(1, 0, 20), Transfer::Send(10_000)).unwrap();
    world.queue.submit(2, &commands::write(1, 0, 2), Transfer::SendInCapsule(1024)).unwrap();
    world.wire.to_target.clear();
    world.poll().unwrap();
    let sent = core::mem::take(&mut world.wire.to_target);
    assert_eq!(sent.len(), 72 + 128 + 1024);
    assert_eq!((sent[72 + 3], sent[72 + 4..72 + 8].to_vec()), (128, 1152u32.to_le_bytes().to_vec()));
    let cid = u16::from_le_bytes([sent[10], sent[11]]);
    for (offset, length, pieces) in [(0, 9000, vec![4096, 4096, 808]), (9000, 1000, vec![1000])] {
        world.say(data_header(kind::READY_TO_TRANSFER, cid, offset, length).as_bytes()).unwrap();
        let sent = core::mem::take(&mut world.wire.to_target);
        let mut rest = &sent[..];
        let mut at = offset;
        for (position, bytes) in pieces.iter().enumerate() {
            let last = position + 1 == pieces.len();
            assert_eq!((rest[0], rest[1], rest[3]), (kind::HOST_DATA, u8::from(last) << 2, 128));
            assert_eq!(rest[8..20], {
                let mut fields = cid.to_le_bytes().to_vec();
                fields.extend(3u16.to_le_bytes());
                fields.extend(u32::to_le_bytes(at));
                fields.extend(u32::to_le_bytes(*bytes));
                fields
            });
            assert!(rest[128..128 + *bytes as usize].iter().all(|&byte| byte == 0x5a));
            rest = &rest[128 + *bytes as usize..];
            at += bytes;
        }
        assert!(rest.is_empty());
    }
    world.say(response(cid, Status::SUCCESS, 0).as_bytes()).unwrap();
    assert_eq!(world.queue.take_completed().unwrap().token, 1);
}

#[test]
fn a_transfer_that_cannot_be_is_not_taken() {
    let mut world = World::live(OFF);
    let write = commands::write(1, 0, 1);
    for transfer in
        [Transfer::Receive(0), Transfer::Send(0), Transfer::SendInCapsule(0), Transfer::SendInCapsule(8193)]
    {
        assert_eq!(world.queue.submit(1, &write, transfer), Err(SubmitError::InvalidTransfer));
    }
    assert_eq!(world.queue.outstanding(), 0);
}
