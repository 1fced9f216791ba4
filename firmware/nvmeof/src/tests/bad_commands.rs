//! Commands, SGLs and Connects that broke other targets: each gets the status that the specification asks for.

use nvme::opcode::{admin, io};
use nvme::{Command, Status};
use zerocopy::IntoBytes;

use super::bad_pdus::assert_terminated;
use super::card::*;
use super::host::*;
use crate::SETUP_TIMEOUT;
use crate::pdu::{Digests, FatalStatus};

const NO_DIGESTS: Digests = Digests { header: false, data: false };

#[test]
fn sgl_lengths_that_do_not_fit() {
    let mut card = Card::new();
    let (mut admin, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let read = block_command(io::READ, 0, 8);
    for bytes in [0, 1, 512, 4095] {
        let (status, ..) = host.execute(&mut card, read, Payload::Read(bytes));
        assert_eq!(status.code(), Status::SGL_LENGTH_INVALID);
    }
    let identify = admin_command(admin::IDENTIFY, 0, 1);
    assert_eq!(admin.execute(&mut card, identify, Payload::Read(4092)).0.code(), Status::SGL_LENGTH_INVALID);
    // A huge length promises room and moves no more than the command does, as often as the queue is deep.
    for _ in 0..31 {
        let (status, _, data) = admin.execute(&mut card, identify, Payload::Read(0xffff_f000));
        assert_eq!((status, data.len()), (Status::SUCCESS, 4096));
        let log =
            Command { cdw11: 0.into(), ..admin_command(admin::GET_LOG_PAGE, 0xffff_ffff, 2 | 127 << 16) };
        let (status, _, data) = admin.execute(&mut card, log, Payload::Read(0xffff_f000));
        assert!(!status.is_success() || data.len() == 512);
        let mut write = block_command(io::WRITE, 0, 8);
        write.cid.set(77);
        write.set_sgl(transport(0xffff_f000));
        let pdu = host.capsule(&write, &[]);
        card.send(host.index, &pdu);
        card.run();
        let [Reply::ReadyToTransfer { cid, tag, length: 4096, .. }] = host.replies(&mut card)[..] else {
            panic!()
        };
        host.answer(&mut card, cid, tag, &[3; 4096]);
        card.run();
        let [Reply::Response { status: Status::SUCCESS, .. }] = host.replies(&mut card)[..] else { panic!() };
    }
    card.assert_clean();
}

#[test]
fn sgls_of_other_types_and_misplaced_data() {
    let mut card = Card::new();
    let (_, host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let mut expect = |opcode, sgl, data: &[u8], status: Status| {
        let mut command = block_command(opcode, 0, 8);
        command.set_sgl(sgl);
        let pdu = host.capsule(&command, data);
        card.send(host.index, &pdu);
        card.run();
        match host.replies(&mut card)[..] {
            [Reply::Response { status: got, .. }] => assert_eq!(got.code(), status, "{opcode} {sgl:?}"),
            ref other => panic!("{other:?}"),
        }
    };
    for identifier in (0..=255).filter(|identifier| ![0x01, 0x5a].contains(identifier)) {
        let sgl = nvme::SglDescriptor { identifier, ..transport(4096) };
        expect(io::READ, sgl, &[], Status::SGL_TYPE_INVALID);
        expect(io::WRITE, sgl, &[], Status::SGL_TYPE_INVALID);
    }
    let data = [1; 4096];
    expect(io::READ, in_capsule(4096), &[], Status::SGL_TYPE_INVALID);
    expect(io::READ, transport(4096), &data, Status::INVALID_FIELD);
    expect(io::WRITE, transport(4096), &data, Status::INVALID_FIELD);
    expect(io::FLUSH, in_capsule(4096), &data, Status::INVALID_FIELD);
    expect(io::WRITE, in_capsule(0), &[], Status::SGL_LENGTH_INVALID);
    expect(io::WRITE, in_capsule(4096), &[], Status::SGL_LENGTH_INVALID);
    expect(io::WRITE, in_capsule(4096), &data[..512], Status::SGL_LENGTH_INVALID);
    expect(io::WRITE, in_capsule(512), &data, Status::SGL_LENGTH_INVALID);
    expect(io::WRITE, in_capsule(512), &data[..512], Status::SGL_LENGTH_INVALID);
    let offset = nvme::SglDescriptor { address: 8.into(), ..in_capsule(4096) };
    expect(io::WRITE, offset, &data, Status::SGL_OFFSET_INVALID);
    expect(io::WRITE, in_capsule(8192), &[1; 8192], Status::SUCCESS);
    card.assert_clean();
}

/// Status code and result of a Connect of an I/O queue (or, with no CNTLID, an admin queue).
fn connect_with(change: impl FnOnce(&mut Command, &mut Vec<u8>), queue_id: u16) -> (Status, u64) {
    let mut card = Card::new();
    let (_admin, cntlid) = Host::admin(&mut card, NO_DIGESTS);
    let host = Host::open(&mut card);
    host.initialize(&mut card);
    let (mut command, data) = host.connect_parts(queue_id, if queue_id == 0 { 0xffff } else { cntlid });
    let mut data = data.as_bytes().to_vec();
    change(&mut command, &mut data);
    command.set_sgl(in_capsule(data.len() as u32));
    let pdu = host.capsule(&command, &data);
    card.send(host.index, &pdu);
    card.run();
    let [Reply::Response { status, result, .. }] = host.replies(&mut card)[..] else { panic!() };
    // A host that is refused may try again on the same connection, or is put off after the time for set-up.
    if !status.is_success() {
        let later = card.now + SETUP_TIMEOUT;
        card.tick_at(later);
        assert!(card.pipe(host.index).aborted);
    }
    card.assert_clean();
    (status.code(), result)
}

#[test]
fn connect_data_too_short() {
    for bytes in [0, 1, 512, 1023] {
        let (status, _) = connect_with(|_, data| data.truncate(bytes), 0);
        assert_eq!(status, Status::SGL_LENGTH_INVALID);
    }
    // More than needed is no fault.
    assert_eq!(connect_with(|_, data| data.resize(8192, 0xee), 0).0, Status::SUCCESS);
}

#[test]
fn connect_with_wrong_names() {
    let invalid = |offset: u64| (Status::CONNECT_INVALID_PARAMETERS, offset | 1 << 16);
    for (at, queue_id) in [(256, 0), (512, 0), (256, 1), (512, 1)] {
        assert_eq!(connect_with(|_, data| data[at..at + 256].fill(b'a'), queue_id), invalid(at as u64));
        assert_eq!(connect_with(|_, data| data[at] = 0, queue_id), invalid(at as u64));
        assert_eq!(connect_with(|_, data| data[at] = 0xff, queue_id), invalid(at as u64));
        assert!(!connect_with(|_, data| data[at + 20] = 0, queue_id).0.is_success() || at == 512);
    }
}

#[test]
fn connect_of_queues_that_cannot_be() {
    let set = |at: usize, value: u16| {
        move |command: &mut Command, _: &mut Vec<u8>| {
            command.as_mut_bytes()[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    };
    for queue_id in [65, 0x7fff, 0xffff] {
        assert!(!connect_with(set(42, queue_id), 1).0.is_success());
    }
    for sq_size in [0, 128, 0xffff] {
        assert!(!connect_with(set(44, sq_size), 1).0.is_success());
    }
    assert!(!connect_with(set(40, 1), 1).0.is_success(), "RECFMT");
    let other_controller = connect_with(|_, data| data[16..18].copy_from_slice(&0x7777u16.to_le_bytes()), 1);
    assert!(!other_controller.0.is_success());
    assert!(!connect_with(|_, data| data[0] ^= 1, 1).0.is_success(), "another host's HOSTID");
    assert!(!connect_with(|_, data| data[520] ^= 1, 1).0.is_success(), "another host's NQN");
    // SGL kinds that Connect does not take.
    let mut card = Card::new();
    let host = Host::open(&mut card);
    host.initialize(&mut card);
    let (command, data) = host.connect_parts(0, 0xffff);
    let pdu = host.capsule(&command, data.as_bytes());
    card.send(host.index, &pdu);
    card.run();
    let [Reply::Response { status, .. }] = host.replies(&mut card)[..] else { panic!() };
    assert_eq!(status.code(), Status::INVALID_FIELD);
    card.assert_clean();
}

#[test]
fn the_same_queue_twice_and_connect_on_a_live_queue() {
    let mut card = Card::new();
    let (_admin, cntlid) = Host::admin(&mut card, NO_DIGESTS);
    let mut first = Host::open(&mut card);
    first.initialize(&mut card);
    assert_eq!(first.connect(&mut card, 1, cntlid).0, Status::SUCCESS);
    assert_eq!(first.connect(&mut card, 1, cntlid).0.code(), Status::COMMAND_SEQUENCE_ERROR);
    let mut second = Host::open(&mut card);
    second.initialize(&mut card);
    assert!(!second.connect(&mut card, 1, cntlid).0.is_success());
    assert_eq!(first.execute(&mut card, block_command(io::FLUSH, 0, 1), Payload::None).0, Status::SUCCESS);
    card.assert_clean();
}

#[test]
fn connect_data_by_ready_to_transfer_works() {
    let mut card = Card::new();
    let mut host = Host::open(&mut card);
    host.initialize(&mut card);
    let (command, data) = host.connect_parts(0, 0xffff);
    let payload = Payload::Write(data.as_bytes().to_vec());
    assert_eq!(host.execute(&mut card, command, payload).0, Status::SUCCESS);
    card.assert_clean();
}

#[test]
fn other_commands_before_connect() {
    let mut card = Card::new();
    let mut host = Host::open(&mut card);
    host.initialize(&mut card);
    for command in
        [property_set(0x14, 1), admin_command(admin::IDENTIFY, 0, 1), block_command(io::READ, 0, 1)]
    {
        let (status, ..) = host.execute(&mut card, command, Payload::Read(4096));
        assert_eq!(status.code(), Status::COMMAND_SEQUENCE_ERROR);
    }
    card.assert_clean();
}

#[test]
fn duplicate_command_identifiers() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    host.cid -= 1;
    host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    // The same low bits are another identifier.
    host.cid += 255;
    host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    card.run();
    let [Reply::Response { status, cid: 1, .. }] = host.replies(&mut card)[..] else { panic!() };
    assert_eq!(status.code(), Status::COMMAND_ID_CONFLICT);
    card.ram.hold = false;
    card.run();
    assert_eq!(host.replies(&mut card).len(), 4);
    // Free again once it is answered.
    host.cid = 0;
    let read = host.execute(&mut card, block_command(io::READ, 0, 8), Payload::Read(4096));
    assert_eq!(read.0, Status::SUCCESS);
    card.assert_clean();
}

#[test]
fn a_duplicate_of_a_command_that_waits_for_the_drive() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    card.ram.places = 1;
    for n in 0..3 {
        host.start(&mut card, block_command(io::WRITE, n, 1), &Payload::InCapsule(vec![1; 512]));
    }
    host.cid = 2;
    host.start(&mut card, block_command(io::FLUSH, 0, 1), &Payload::None);
    card.run();
    let [Reply::Response { status, cid: 3, .. }] = host.replies(&mut card)[..] else { panic!() };
    assert_eq!(status.code(), Status::COMMAND_ID_CONFLICT);
    card.assert_clean();
}

#[test]
fn two_hundred_commands_on_a_queue_of_32() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    card.ram.hold = true;
    for _ in 0..200 {
        host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    }
    card.run();
    assert_eq!(card.ram.pending.len(), 32);
    assert_terminated(&mut card, &host, FatalStatus::SequenceError, 0);
}

#[test]
fn forty_async_event_requests_then_gone() {
    let mut card = Card::new();
    let (mut host, _) = Host::admin(&mut card, NO_DIGESTS);
    for _ in 0..40 {
        host.start(&mut card, admin_command(admin::ASYNC_EVENT_REQUEST, 0, 0), &Payload::None);
        card.run();
        for reply in host.replies(&mut card) {
            let Reply::Response { status, .. } = reply else { panic!() };
            assert_eq!(status.code(), Status::ASYNC_EVENT_LIMIT_EXCEEDED);
        }
    }
    card.assert_clean();
}
