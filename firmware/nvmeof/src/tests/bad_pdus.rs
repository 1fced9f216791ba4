//! PDUs that broke other targets: each gets the answer that the specification asks for, only its own
//! connection suffers, and nothing is lost.

use std::time::Duration;

use nvme::Status;
use nvme::opcode::{admin, io};

use super::card::*;
use super::host::*;
use crate::TERMINATE_TIMEOUT;
use crate::pdu::{Digests, FatalStatus, MAX_HOST_DATA_BYTES, kind};

const NO_DIGESTS: Digests = Digests { header: false, data: false };
const BOTH_DIGESTS: Digests = Digests { header: true, data: true };

/// The connection was told why it ends, is left time to close, and is then aborted; a witness lives on.
#[track_caller]
pub(super) fn assert_terminated(card: &mut Card, host: &Host, status: FatalStatus, information: u32) {
    card.run();
    let replies = host.replies(card);
    match replies.last() {
        Some(Reply::Terminate { status: got, information: about, quoted }) => {
            assert_eq!((*got, *about), (status as u16, information));
            assert!((8..=128).contains(quoted));
        }
        other => panic!("no TermReq but {other:?}"),
    }
    assert!(card.is_open(host.index));
    // What comes after is not even looked at.
    card.send(host.index, &[0xff; 300]);
    card.run();
    assert_eq!(host.replies(card), []);
    let later = card.now + TERMINATE_TIMEOUT;
    card.tick_at(later);
    assert!(card.pipe(host.index).aborted);
    card.assert_clean();
}

#[track_caller]
fn first_bytes_end_in(bytes: &[u8], status: FatalStatus, information: u32) {
    for fragment in [1, 5, 4096] {
        let mut card = Card::new();
        let host = Host::open(&mut card);
        card.pipe(host.index).fragment = fragment;
        card.send(host.index, bytes);
        assert_terminated(&mut card, &host, status, information);
    }
}

/// A live I/O queue without digests gets these bytes.
#[track_caller]
fn live_bytes_end_in(bytes: &[u8], status: FatalStatus, information: u32) {
    for fragment in [1, 4096] {
        let mut card = Card::new();
        let (_, host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
        card.pipe(host.index).fragment = fragment;
        card.send(host.index, bytes);
        assert_terminated(&mut card, &host, status, information);
    }
}

fn changed(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

fn plain_host() -> Host {
    Host::open(&mut Card::new())
}

#[test]
fn icreq_with_a_wrong_length() {
    let icreq = plain_host().icreq();
    first_bytes_end_in(&changed(icreq.clone(), 4, &[129]), FatalStatus::InvalidHeaderField, 4);
    first_bytes_end_in(&changed(icreq.clone(), 4, &[0xff; 4]), FatalStatus::InvalidHeaderField, 4);
    first_bytes_end_in(&changed(icreq, 2, &[127]), FatalStatus::InvalidHeaderField, 2);
}

#[test]
fn icreq_with_an_unknown_format_or_alignment() {
    let icreq = plain_host().icreq();
    first_bytes_end_in(&changed(icreq.clone(), 8, &[1]), FatalStatus::UnsupportedParameter, 8);
    first_bytes_end_in(&changed(icreq.clone(), 10, &[32]), FatalStatus::InvalidHeaderField, 10);
    first_bytes_end_in(&changed(icreq, 10, &[255]), FatalStatus::InvalidHeaderField, 10);
}

#[test]
fn commands_and_data_before_icreq() {
    let host = plain_host();
    first_bytes_end_in(&host.connect_pdu(0, 0xffff), FatalStatus::SequenceError, 0);
    first_bytes_end_in(&host.host_data(0, 0, 0, true, &[1; 8]), FatalStatus::SequenceError, 0);
}

#[test]
fn a_second_icreq() {
    live_bytes_end_in(&plain_host().icreq(), FatalStatus::SequenceError, 0);
}

#[test]
fn a_second_icreq_behind_the_first_gets_nothing_but_a_termination() {
    let icreq = plain_host().icreq();
    let mut card = Card::new();
    let host = Host::open(&mut card);
    card.send(host.index, &[icreq.clone(), icreq].concat());
    card.run();
    let replies = host.replies(&mut card);
    assert!(matches!(replies[..], [Reply::Terminate { status: 2, .. }]), "{replies:?}");
    card.assert_clean();
}

#[test]
fn unknown_pdu_types_and_those_of_controllers() {
    for kind in [1, 3, 5, 7, 8, 9, 10, 0x80, 0xff] {
        live_bytes_end_in(&[kind, 0, 24, 0, 24, 0, 0, 0], FatalStatus::InvalidHeaderField, 0);
    }
}

#[test]
fn reset_during_set_up_with_digests() {
    let mut card = Card::new();
    let host = Host { digests: BOTH_DIGESTS, ..Host::open(&mut card) };
    host.initialize(&mut card);
    let pdu = host.connect_pdu(0, 0xffff);
    card.send(host.index, &pdu[..200]);
    card.run();
    card.cut(host.index);
    card.assert_clean();
}

#[test]
fn capsule_with_a_wrong_length_or_offset() {
    let host = plain_host();
    let flush = host.capsule(&block_command(io::FLUSH, 0, 1), &[]);
    for total in [8u32, 71, u32::MAX, 0] {
        let pdu = changed(flush.clone(), 4, &total.to_le_bytes());
        // With more than a header, the offset of the data is looked at first, and it is 0 here.
        let field = if total > 72 { 3 } else { 4 };
        live_bytes_end_in(&pdu, FatalStatus::InvalidHeaderField, field);
    }
    let write = host.capsule(&block_command(io::WRITE, 0, 1), &[0; 512]);
    for offset in [0, 71, 73, 8] {
        live_bytes_end_in(&changed(write.clone(), 3, &[offset]), FatalStatus::InvalidHeaderField, 3);
    }
    live_bytes_end_in(&changed(write.clone(), 2, &[64]), FatalStatus::InvalidHeaderField, 2);
    // One byte more than IOCCSZ allows.
    live_bytes_end_in(
        &changed(write.clone(), 4, &(72 + 8193u32).to_le_bytes()),
        FatalStatus::InvalidHeaderField,
        4,
    );
    // Digests that were not agreed on.
    live_bytes_end_in(&changed(write.clone(), 1, &[1]), FatalStatus::InvalidHeaderField, 1);
    live_bytes_end_in(&changed(write, 1, &[2]), FatalStatus::InvalidHeaderField, 1);
}

/// A live queue with an R2T for 200 KiB; `pdu` makes bytes from (host, CID, TTAG).
#[track_caller]
fn data_ends_in(status: FatalStatus, information: u32, pdu: impl FnOnce(&Host, u16, u16) -> Vec<u8>) {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    // A read that waits at the drive has slot and CID of its own.
    card.ram.hold = true;
    host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    host.start(&mut card, block_command(io::WRITE, 0, 400), &Payload::Write(vec![0; 400 * 512]));
    card.run();
    let (cid, tag) = match host.replies(&mut card)[..] {
        [Reply::ReadyToTransfer { cid, tag, offset: 0, length: 204_800 }] => (cid, tag),
        ref other => panic!("{other:?}"),
    };
    let bytes = pdu(&host, cid, tag);
    card.send(host.index, &bytes);
    assert_terminated(&mut card, &host, status, information);
}

#[test]
fn host_data_with_wrong_lengths() {
    use FatalStatus::{DataLimitExceeded, DataOutOfRange, InvalidHeaderField};
    let sane = |host: &Host, cid, tag| host.host_data(cid, tag, 0, false, &[5; 4096]);
    for total in [8u32, 24] {
        data_ends_in(InvalidHeaderField, 4, |h, c, t| changed(sane(h, c, t), 4, &total.to_le_bytes()));
    }
    // DATAL 0, and one that is not what PLEN leaves.
    data_ends_in(InvalidHeaderField, 16, |h, c, t| changed(sane(h, c, t), 16, &[0; 4]));
    data_ends_in(InvalidHeaderField, 4, |h, c, t| changed(sane(h, c, t), 16, &4095u32.to_le_bytes()));
    data_ends_in(DataLimitExceeded, 0, |h, c, t| {
        h.host_data(c, t, 0, false, &vec![0; MAX_HOST_DATA_BYTES as usize + 4])
    });
    // Beyond the end, not in order, and with an end that wraps.
    data_ends_in(DataOutOfRange, 0, |h, c, t| {
        let mut bytes = h.host_data(c, t, 0, false, &vec![0; 128 * 1024]);
        bytes.extend(h.host_data(c, t, 128 * 1024, true, &vec![0; 128 * 1024]));
        bytes
    });
    data_ends_in(DataOutOfRange, 0, |h, c, t| h.host_data(c, t, 4096, false, &[0; 4096]));
    data_ends_in(DataOutOfRange, 0, |h, c, t| h.host_data(c, t, 0xffff_f000, false, &[0; 4096]));
    data_ends_in(DataOutOfRange, 0, |h, c, t| h.host_data(c, t, 0xffff_fffc, false, &[0; 4096]));
}

#[test]
fn host_data_for_nobody() {
    use FatalStatus::InvalidHeaderField;
    // Of the read, of idle slots, and of no slot.
    for wrong in [1u16, 200, 599, 600, 0x7fff, 0xffff] {
        data_ends_in(InvalidHeaderField, 10, |host, cid, tag| {
            let wrong = if wrong == 1 { tag.wrapping_sub(1) } else { wrong };
            host.host_data(cid, wrong, 0, false, &[0; 64])
        });
    }
    data_ends_in(InvalidHeaderField, 8, |host, cid, tag| host.host_data(cid + 1, tag, 0, false, &[0; 64]));
}

#[test]
fn host_data_before_connect() {
    let mut card = Card::new();
    let host = Host::open(&mut card);
    host.initialize(&mut card);
    let pdu = host.host_data(0, 0, 0, true, &[0; 64]);
    card.send(host.index, &pdu);
    assert_terminated(&mut card, &host, FatalStatus::InvalidHeaderField, 10);
}

#[test]
fn host_data_of_another_connection() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, NO_DIGESTS, |_| {});
    let mut other = Host::open(&mut card);
    other.host_id = [9; 16];
    other.initialize(&mut card);
    other.connect(&mut card, 0, 0xffff);
    host.start(&mut card, block_command(io::WRITE, 0, 100), &Payload::Write(vec![0; 51_200]));
    card.run();
    let [Reply::ReadyToTransfer { cid, tag, .. }] = host.replies(&mut card)[..] else { panic!() };
    let pdu = other.host_data(cid, tag, 0, false, &[0; 64]);
    card.send(other.index, &pdu);
    assert_terminated(&mut card, &other, FatalStatus::InvalidHeaderField, 10);
}

#[test]
fn host_data_sent_twice() {
    data_ends_in(FatalStatus::DataOutOfRange, 0, |host, cid, tag| {
        let pdu = host.host_data(cid, tag, 0, false, &[0; 4096]);
        [pdu.clone(), pdu].concat()
    });
}

#[test]
fn last_early_or_absent() {
    use FatalStatus::InvalidHeaderField;
    data_ends_in(InvalidHeaderField, 1, |host, cid, tag| host.host_data(cid, tag, 0, true, &[0; 64]));
    data_ends_in(InvalidHeaderField, 1, |host, cid, tag| {
        let mut bytes = host.host_data(cid, tag, 0, false, &vec![0; 128 * 1024]);
        bytes.extend(host.host_data(cid, tag, 128 * 1024, false, &vec![0; 204_800 - 128 * 1024]));
        bytes
    });
}

#[test]
fn a_wrong_header_digest() {
    let mut card = Card::new();
    let (_, host) = Host::pair(&mut card, BOTH_DIGESTS, |_| {});
    let mut pdu = host.capsule(&block_command(io::FLUSH, 0, 1), &[]);
    pdu[75] ^= 1;
    let digest = u32::from_le_bytes(pdu[72..76].try_into().unwrap());
    card.send(host.index, &pdu);
    assert_terminated(&mut card, &host, FatalStatus::HeaderDigestError, digest);
}

#[test]
fn a_wrong_data_digest_fails_the_command_alone() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, BOTH_DIGESTS, |_| {});
    let before = card.ram.bytes.clone();
    let mut write = block_command(io::WRITE, 0, 8);
    write.cid.set(500);
    write.set_sgl(in_capsule(4096));
    let mut pdu = host.capsule(&write, &pattern(4096, 1));
    *pdu.last_mut().unwrap() ^= 1;
    card.send(host.index, &pdu);
    card.run();
    let [Reply::Response { cid: 500, status, .. }] = host.replies(&mut card)[..] else { panic!() };
    assert_eq!(status.code(), Status::TRANSIENT_TRANSPORT_ERROR);

    host.start(&mut card, block_command(io::WRITE, 0, 100), &Payload::Write(vec![0; 51_200]));
    card.run();
    let [Reply::ReadyToTransfer { cid, tag, .. }] = host.replies(&mut card)[..] else { panic!() };
    let mut pdu = host.host_data(cid, tag, 0, false, &[1; 4096]);
    *pdu.last_mut().unwrap() ^= 1;
    pdu.extend(host.host_data(cid, tag, 4096, true, &vec![1; 51_200 - 4096]));
    card.send(host.index, &pdu);
    card.run();
    let [Reply::Response { status, .. }] = host.replies(&mut card)[..] else { panic!() };
    assert_eq!(status.code(), Status::TRANSIENT_TRANSPORT_ERROR);
    assert!(card.ram.bytes == before, "data with a wrong digest reached the drive");
    let read = host.execute(&mut card, block_command(io::READ, 0, 8), Payload::Read(4096));
    assert_eq!(read.0, Status::SUCCESS);
    card.assert_clean();
}

#[test]
fn termination_by_the_host_is_not_answered() {
    for (status, quoted) in [(1u16, 0usize), (6, 128), (0xffff, 24)] {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, BOTH_DIGESTS, |_| {});
        card.ram.hold = true;
        host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
        let mut pdu = vec![kind::HOST_TERMINATE, 0, 24, 0];
        pdu.extend((24 + quoted as u32).to_le_bytes());
        pdu.extend(status.to_le_bytes());
        pdu.resize(24 + quoted, 0xaa);
        card.send(host.index, &pdu);
        card.run();
        assert_eq!(host.replies(&mut card), []);
        assert!(card.pipe(host.index).closed);
        card.assert_clean();
    }
}

#[test]
fn a_byte_a_second_is_cut_off_in_set_up_and_by_keep_alive() {
    let mut card = Card::new();
    let host = Host::open(&mut card);
    for byte in host.icreq() {
        if !card.is_open(host.index) {
            break;
        }
        card.send(host.index, &[byte]);
        card.tick_at(card.now + Duration::from_secs(1));
    }
    assert!(card.pipe(host.index).aborted);
    let (host, _) = Host::admin(&mut card, NO_DIGESTS);
    for byte in host.capsule(&admin_command(admin::KEEP_ALIVE, 0, 0), &[]) {
        if !card.is_open(host.index) {
            break;
        }
        card.send(host.index, &[byte]);
        card.tick_at(card.now + Duration::from_secs(1));
    }
    assert!(card.pipe(host.index).aborted);
    card.assert_clean();
}

#[test]
fn closed_in_every_state_of_a_command() {
    // Cut after each number of bytes of a conversation: whatever was under way comes back.
    let mut card = Card::new();
    let (_admin, cntlid) = Host::admin(&mut card, BOTH_DIGESTS);
    let script = {
        let host = Host { digests: BOTH_DIGESTS, ..Host::open(&mut card) };
        let mut write = block_command(io::WRITE, 0, 8);
        write.set_sgl(in_capsule(4096));
        let mut large = block_command(io::WRITE, 0, 64);
        large.cid.set(2);
        large.set_sgl(transport(32_768));
        let mut read = block_command(io::READ, 0, 2048);
        read.cid.set(3);
        read.set_sgl(transport(1 << 20));
        card.cut(host.index);
        [
            Host { digests: BOTH_DIGESTS, ..host.clone() }.icreq(),
            host.connect_pdu(1, cntlid),
            host.capsule(&write, &[1; 4096]),
            host.capsule(&large, &[]),
            host.capsule(&read, &[]),
        ]
        .concat()
    };
    for end in (0..script.len()).step_by(37) {
        let host = Host::open(&mut card);
        card.pipe(host.index).window = end % 5000;
        card.send(host.index, &script[..end]);
        card.run();
        card.cut(host.index);
        assert_eq!(card.target.counts().connections, 1);
        card.pipes.truncate(1);
    }
    card.assert_clean();
}
