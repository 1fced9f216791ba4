//! PDUs (TCP 3.6.2), and connections that are silent or slow.

use std::time::Duration;

use super::{BOTH, Data, Link, Outcome, PLAIN, Stand};
use crate::wire::{self, Command, u32_at};

/// FES.
const FIELD: u16 = 1;
const SEQUENCE: u16 = 2;
const HEADER_DIGEST: u16 = 3;
const OUT_OF_RANGE: u16 = 4;
const LIMIT: u16 = 5;
const UNSUPPORTED: u16 = 6;
/// Transient Transport Error.
const TRANSPORT_ERROR: u16 = 0x22;
/// How long a host may take for ICReq.
const SETUP_LIMIT_S: u64 = 10;

fn changed(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// The first bytes of a connection, whole and byte by byte.
fn first_bytes(stand: &mut Stand<'_>, bytes: &[u8], status: u16, information: Option<u32>) -> Outcome {
    let link = stand.connection(PLAIN)?;
    stand.ends_in(&link, bytes, status, information)?;
    let link = stand.connection(PLAIN)?;
    let (last, rest) = bytes.split_last().unwrap_or((&0, &[]));
    for byte in rest {
        stand.bench.send(link.id, &[*byte]);
    }
    stand.ends_in(&link, &[*last], status, information)
}

pub(super) fn icreq_with_a_wrong_plen(stand: &mut Stand<'_>) -> Outcome {
    for plen in [0u32, 8, 127, 129, u32::MAX] {
        let icreq = changed(wire::icreq(0, PLAIN), 4, &plen.to_le_bytes());
        first_bytes(stand, &icreq, FIELD, Some(4))?;
    }
    Ok(())
}

pub(super) fn icreq_with_a_wrong_hlen(stand: &mut Stand<'_>) -> Outcome {
    for hlen in [0, 8, 127, 129, 255] {
        first_bytes(stand, &changed(wire::icreq(0, PLAIN), 2, &[hlen]), FIELD, Some(2))?;
    }
    Ok(())
}

pub(super) fn icreq_with_an_unknown_pfv(stand: &mut Stand<'_>) -> Outcome {
    for pfv in [1u16, 0x8000, 0xffff] {
        let icreq = changed(wire::icreq(0, PLAIN), 8, &pfv.to_le_bytes());
        first_bytes(stand, &icreq, UNSUPPORTED, Some(8))?;
    }
    Ok(())
}

pub(super) fn icreq_with_hpda_above_31(stand: &mut Stand<'_>) -> Outcome {
    for hpda in [32, 255] {
        first_bytes(stand, &wire::icreq(hpda, PLAIN), FIELD, Some(10))?;
    }
    Ok(())
}

pub(super) fn a_reset_during_set_up_with_digests(stand: &mut Stand<'_>) -> Outcome {
    let (command, data) = stand.connect(0, 0xffff);
    let connect = wire::capsule(&command, &data, BOTH);
    for bytes in [0, 1, 75, 76, 200, connect.len() - 1, connect.len()] {
        let link = stand.initialized(BOTH)?;
        stand.bench.send(link.id, &connect[..bytes]);
        stand.bench.close(link.id);
    }
    Ok(())
}

pub(super) fn a_second_icreq(stand: &mut Stand<'_>) -> Outcome {
    let icreq = wire::icreq(0, PLAIN);
    let link = stand.initialized(PLAIN)?;
    stand.ends_in(&link, &icreq, SEQUENCE, None)?;
    let (_, io) = stand.pair(PLAIN)?;
    stand.ends_in(&io, &icreq, SEQUENCE, None)?;
    let link = stand.connection(PLAIN)?;
    stand.ends_in(&link, &[icreq.clone(), icreq].concat(), SEQUENCE, None)
}

pub(super) fn commands_before_icreq(stand: &mut Stand<'_>) -> Outcome {
    let (command, data) = stand.connect(0, 0xffff);
    first_bytes(stand, &wire::capsule(&command, &data, PLAIN)[..72], SEQUENCE, None)?;
    first_bytes(stand, &wire::capsule(&Command::new(0x18), &[], PLAIN), SEQUENCE, None)
}

pub(super) fn data_before_icreq(stand: &mut Stand<'_>) -> Outcome {
    first_bytes(stand, &wire::host_data(0, 0, 0, true, &[1; 64], PLAIN), SEQUENCE, None)
}

/// A queue with an R2T for 400 blocks gets bytes made from it.
fn data_ends_in(
    stand: &mut Stand<'_>,
    status: u16,
    information: Option<u32>,
    bytes: impl Fn(&Link, u16, u16) -> Vec<u8>,
) -> Outcome {
    let (admin, mut io) = stand.pair(PLAIN)?;
    let (cid, tag, _) = stand.asked_for(&mut io, 400)?;
    stand.ends_in(&io, &bytes(&io, cid, tag), status, information)?;
    stand.bench.close(admin.id);
    Ok(())
}

fn sane(cid: u16, tag: u16) -> Vec<u8> {
    wire::host_data(cid, tag, 0, false, &[5; 4096], PLAIN)
}

pub(super) fn host_data_with_a_wrong_plen(stand: &mut Stand<'_>) -> Outcome {
    for plen in [0u32, 8, 23, 24] {
        data_ends_in(stand, FIELD, Some(4), |_, c, t| changed(sane(c, t), 4, &plen.to_le_bytes()))?;
    }
    Ok(())
}

pub(super) fn host_data_of_no_length(stand: &mut Stand<'_>) -> Outcome {
    data_ends_in(stand, FIELD, Some(16), |_, c, t| changed(sane(c, t), 16, &[0; 4]))
}

pub(super) fn host_data_above_the_r2t(stand: &mut Stand<'_>) -> Outcome {
    data_ends_in(stand, OUT_OF_RANGE, None, |_, c, t| {
        let half = vec![0; 128 * 1024];
        let first = wire::host_data(c, t, 0, false, &half, PLAIN);
        [first, wire::host_data(c, t, 128 * 1024, true, &half, PLAIN)].concat()
    })
}

pub(super) fn host_data_above_maxh2cdata(stand: &mut Stand<'_>) -> Outcome {
    data_ends_in(stand, LIMIT, None, |_, c, t| {
        wire::host_data(c, t, 0, false, &vec![0; 128 * 1024 + 4], PLAIN)
    })
}

pub(super) fn host_data_that_is_not_plen_less_header(stand: &mut Stand<'_>) -> Outcome {
    for length in [1u32, 4092, 4095, 4097, 4100] {
        data_ends_in(stand, FIELD, Some(4), |_, c, t| changed(sane(c, t), 16, &length.to_le_bytes()))?;
    }
    Ok(())
}

pub(super) fn host_data_for_other_ttags(stand: &mut Stand<'_>) -> Outcome {
    for other in [1u16, 2, 31, 0x100] {
        data_ends_in(stand, FIELD, Some(10), |_, c, t| sane(c, t.wrapping_add(other)))?;
    }
    for other in [0x7fff, 0xfffe, 0xffff] {
        data_ends_in(stand, FIELD, Some(10), |_, c, _| sane(c, other))?;
    }
    Ok(())
}

/// Reads that are under way, and before them as many writes, whose tags a target is likely to use again.
const READS: u16 = 4;

pub(super) fn host_data_for_reads_under_way(stand: &mut Stand<'_>) -> Outcome {
    for (tag_of, cid) in (0..READS).flat_map(|tag| (1..=READS).map(move |cid| (tag, cid))) {
        let (admin, mut io) = stand.pair(PLAIN)?;
        let mut writes = Vec::new();
        for _ in 0..READS {
            writes.push(stand.asked_for(&mut io, 17)?);
        }
        for (cid, tag, length) in &writes {
            let data = vec![7; *length as usize];
            stand.bench.send(io.id, &wire::host_data(*cid, *tag, 0, true, &data, PLAIN));
            if stand.end(&io, *cid, &[])?.status != 0 {
                return Err("a write has failed".into());
            }
        }
        // In one piece, so that the reads have not ended when the data comes.
        let read = Command::blocks(2, stand.nsid, 0, 256).transport(256 * 512);
        let mut bytes: Vec<u8> =
            (1..=READS).flat_map(|cid| wire::capsule(&read.cid(cid), &[], PLAIN)).collect();
        let (_, tag, _) = writes[usize::from(tag_of)];
        bytes.extend(sane(cid, tag));
        stand.ends_in(&io, &bytes, FIELD, Some(10))?;
        stand.bench.close(admin.id);
    }
    Ok(())
}

pub(super) fn host_data_before_connect(stand: &mut Stand<'_>) -> Outcome {
    let link = stand.initialized(PLAIN)?;
    stand.ends_in(&link, &sane(0, 0), FIELD, Some(10))
}

pub(super) fn host_data_with_a_wrong_cccid(stand: &mut Stand<'_>) -> Outcome {
    data_ends_in(stand, FIELD, Some(8), |_, c, t| sane(c + 1, t))
}

pub(super) fn host_data_twice(stand: &mut Stand<'_>) -> Outcome {
    data_ends_in(stand, OUT_OF_RANGE, None, |_, c, t| [sane(c, t), sane(c, t)].concat())
}

pub(super) fn host_data_in_pieces_that_wrap(stand: &mut Stand<'_>) -> Outcome {
    for offset in [0xffff_f000, 0xffff_fffc, 0x8000_0000] {
        data_ends_in(stand, OUT_OF_RANGE, None, |_, c, t| {
            wire::host_data(c, t, offset, false, &[0; 4096], PLAIN)
        })?;
    }
    data_ends_in(stand, OUT_OF_RANGE, None, |_, c, t| {
        let mut bytes: Vec<u8> =
            (0..64).flat_map(|n| wire::host_data(c, t, n * 64, false, &[1; 64], PLAIN)).collect();
        bytes.extend(wire::host_data(c, t, 64u32.wrapping_sub(4096), false, &[1; 4096], PLAIN));
        bytes
    })
}

pub(super) fn last_early_or_absent(stand: &mut Stand<'_>) -> Outcome {
    data_ends_in(stand, FIELD, Some(1), |_, c, t| wire::host_data(c, t, 0, true, &[0; 64], PLAIN))?;
    data_ends_in(stand, FIELD, Some(1), |_, c, t| {
        let first = wire::host_data(c, t, 0, false, &vec![0; 128 * 1024], PLAIN);
        let rest = vec![0; 204_800 - 128 * 1024];
        [first, wire::host_data(c, t, 128 * 1024, false, &rest, PLAIN)].concat()
    })
}

/// The block that digest errors must not have changed.
fn first_block(stand: &mut Stand<'_>, io: &mut Link) -> Result<Vec<u8>, String> {
    let read = Command::blocks(2, stand.nsid, 0, 1).transport(512);
    Ok(stand.success(io, read, Data::None)?.data)
}

pub(super) fn a_wrong_data_digest_in_a_capsule(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(BOTH)?;
    let before = first_block(stand, &mut io)?;
    let other: Vec<u8> = before.iter().map(|byte| !byte).collect();
    let write = Command::blocks(1, stand.nsid, 0, 1).in_capsule(512).cid(7);
    let mut pdu = wire::capsule(&write, &other, BOTH);
    let last = pdu.len() - 1;
    pdu[last] ^= 1;
    stand.bench.send(io.id, &pdu);
    let answer = stand.end(&io, 7, &[])?;
    let after = first_block(stand, &mut io)?;
    // And then the host goes, in the middle of the next.
    stand.bench.send(io.id, &pdu[..200]);
    if answer.status == TRANSPORT_ERROR && before == after { Ok(()) } else { Err(format!("{answer:?}")) }
}

pub(super) fn a_wrong_data_digest_in_host_data(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(BOTH)?;
    let before = first_block(stand, &mut io)?;
    let other: Vec<u8> = before.iter().map(|byte| !byte).collect();
    let (cid, tag, length) = stand.asked_for(&mut io, 17)?;
    let mut wrong = wire::host_data(cid, tag, 0, false, &other, BOTH);
    let last = wrong.len() - 1;
    wrong[last] ^= 0x80;
    let rest = vec![9; length as usize - 512];
    stand.bench.send(io.id, &wrong);
    stand.bench.send(io.id, &wire::host_data(cid, tag, 512, true, &rest, BOTH));
    let answer = stand.end(&io, cid, &[])?;
    let after = first_block(stand, &mut io)?;
    let (cid, tag, _) = stand.asked_for(&mut io, 17)?;
    stand.bench.send(io.id, &wire::host_data(cid, tag, 0, false, &other, BOTH)[..100]);
    if answer.status == TRANSPORT_ERROR && before == after { Ok(()) } else { Err(format!("{answer:?}")) }
}

pub(super) fn a_wrong_header_digest(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(BOTH)?;
    let mut pdu = wire::capsule(&Command::blocks(0, stand.nsid, 0, 1), &[], BOTH);
    pdu[75] ^= 1;
    stand.ends_in(&io, &pdu, HEADER_DIGEST, Some(u32_at(&pdu, 72)))?;
    (_, io) = stand.pair(BOTH)?;
    let (cid, tag, _) = stand.asked_for(&mut io, 17)?;
    let mut pdu = wire::host_data(cid, tag, 0, false, &[0; 64], BOTH);
    pdu[9] ^= 4;
    stand.ends_in(&io, &pdu, HEADER_DIGEST, Some(u32_at(&pdu, 24)))
}

pub(super) fn capsule_with_a_wrong_plen(stand: &mut Stand<'_>) -> Outcome {
    let flush = wire::capsule(&Command::blocks(0, stand.nsid, 0, 1), &[], PLAIN);
    let write = Command::blocks(1, stand.nsid, 0, 1).in_capsule(512);
    let write = wire::capsule(&write, &[0; 512], PLAIN);
    // Of the first, PDO is wrong as well where there is more than a header.
    for (pdu, plen) in [(&flush, 0u32), (&flush, 8), (&flush, 71), (&write, 72 + 8193), (&write, u32::MAX)] {
        let (_, io) = stand.pair(PLAIN)?;
        stand.ends_in(&io, &changed(pdu.clone(), 4, &plen.to_le_bytes()), FIELD, Some(4))?;
    }
    Ok(())
}

pub(super) fn capsule_with_a_wrong_pdo(stand: &mut Stand<'_>) -> Outcome {
    let write = Command::blocks(1, stand.nsid, 0, 1).in_capsule(512);
    let write = wire::capsule(&write, &[0; 512], PLAIN);
    for pdo in [0, 8, 71, 73, 74] {
        let (_, io) = stand.pair(PLAIN)?;
        stand.ends_in(&io, &changed(write.clone(), 3, &[pdo]), FIELD, Some(3))?;
    }
    Ok(())
}

pub(super) fn host_term_with_any_fes(stand: &mut Stand<'_>) -> Outcome {
    for (fes, quote) in [(0u16, 8), (1, 0), (6, 128), (7, 24), (0x7fff, 24), (0xffff, 128)] {
        let (_, io) = stand.pair(PLAIN)?;
        stand.bench.send(io.id, &wire::host_term(fes, u32::MAX, &vec![0xaa; quote]));
        stand.is_closed(&io)?;
    }
    Ok(())
}

pub(super) fn one_byte_a_second(stand: &mut Stand<'_>) -> Outcome {
    let link = stand.connection(PLAIN)?;
    for byte in &wire::icreq(0, PLAIN)[..SETUP_LIMIT_S as usize + 2] {
        stand.bench.send(link.id, &[*byte]);
        stand.bench.pass(Duration::from_secs(1));
    }
    stand.is_closed(&link)
}

pub(super) fn a_thousand_silent_connections(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(PLAIN)?;
    // Some are refused; where none gets through any more, the others would fare no better.
    let (mut crowd, mut refused): (Vec<Link>, _) = (Vec::new(), 0);
    while crowd.len() < 1000 && refused < 3 {
        match stand.connection(PLAIN) {
            Ok(link) => crowd.push(link),
            Err(_) => refused += 1,
        }
    }
    let served = stand.success(&mut io, Command::blocks(0, stand.nsid, 0, 1), Data::None);
    for link in crowd {
        stand.bench.close(link.id);
    }
    served.map(drop)
}
