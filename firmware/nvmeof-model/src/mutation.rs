//! PDUs made wrong: bits, fields, lengths, types, digests, order, repeats, gaps.

use crate::random::Random;
use crate::wire::{CAPSULE, Digests, HOST_DATA, ICREQ, crc32c, u16_at, u32_at};

/// Fields of a PDU type: offset and bytes.
const COMMON: &[(usize, usize)] = &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 4)];
const OF_ICREQ: &[(usize, usize)] = &[(8, 2), (10, 1), (11, 1), (12, 4)];
const OF_DATA: &[(usize, usize)] = &[(1, 1), (8, 2), (10, 2), (10, 2), (12, 4), (12, 4), (16, 4)];
const OF_CAPSULE: &[(usize, usize)] = &[
    (8, 1),
    (9, 1),
    (10, 2),
    (12, 4),
    (32, 4),
    (40, 4),
    (40, 4),
    (47, 1),
    (48, 4),
    (50, 2),
    (52, 4),
    (54, 1),
    (56, 4),
    (60, 4),
];

/// Makes one of the PDUs wrong, or their order; says how.
pub(crate) fn mutate(random: &mut Random, pdus: &mut Vec<Vec<u8>>, digests: Digests) -> &'static str {
    let at = random.below(pdus.len());
    match random.below(24) {
        0 => {
            let copy = pdus[at].clone();
            pdus.insert(at, copy);
            "repeated"
        }
        1 if pdus.len() > 1 => {
            pdus.swap(0, at.max(1));
            "reordered"
        }
        2 if pdus.len() > 1 => {
            pdus.remove(at);
            "left out"
        }
        3 => {
            let end = 1 + random.below(pdus[at].len() - 1);
            pdus[at].truncate(end);
            "cut off"
        }
        4 => {
            let more = random.pick(&[1, 4, 8, 72, 500]);
            pdus[at].extend((0..more).map(|_| random.any() as u8));
            "longer than it says"
        }
        5..=8 => {
            length(random, &mut pdus[at], digests);
            "another length"
        }
        9 => {
            pdus[at][0] = random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xff]);
            mend(&mut pdus[at], digests);
            "another type"
        }
        10..=12 => {
            let last = pdus[at].len() - 1;
            let header = usize::from(pdus[at][2]).min(last);
            let hit = header + random.below(last - header + 1);
            pdus[at][hit] ^= 1 << random.below(8);
            "data or digest"
        }
        13 => {
            let last = pdus[at].len() - 1;
            let hit = random.below(last + 1);
            pdus[at][hit] ^= 1 << random.below(8);
            "a bit"
        }
        _ => {
            for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
                field(random, &mut pdus[at]);
            }
            if !random.one_in(12) {
                mend(&mut pdus[at], digests);
            }
            "a field"
        }
    }
}

/// One field gets one of the values that break things.
fn field(random: &mut Random, pdu: &mut [u8]) {
    let own = match pdu[0] {
        ICREQ => OF_ICREQ,
        HOST_DATA => OF_DATA,
        CAPSULE => OF_CAPSULE,
        _ => COMMON,
    };
    let from = if random.one_in(5) { COMMON } else { own };
    // The data of a Connect is as good as its fields.
    let (at, bytes) = if from == OF_CAPSULE && pdu[8] == 0x7f && pdu.len() > 1000 && random.one_in(2) {
        let data = pdu.len() - 1024;
        (data + random.pick(&[0, 15, 16, 17, 256, 257, 300, 511, 512, 513, 767]), 1)
    } else {
        random.pick(from)
    };
    if at + bytes > pdu.len() {
        return;
    }
    let old = u64::from(if bytes == 4 { u32_at(pdu, at) } else { u32::from(u16_at(pdu, at)) });
    let (any, bit) = (random.any(), random.below(bytes * 8));
    let value = random.pick(&[
        0,
        1,
        old ^ 1 << bit,
        old.wrapping_add(1),
        old.wrapping_sub(1),
        old.wrapping_add(4),
        old.wrapping_sub(4),
        old / 2,
        0x7fff,
        0xffff,
        0xffff_f000,
        0xffff_ffff,
        any,
    ]);
    pdu[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

/// PLEN and the bytes both become longer or shorter.
fn length(random: &mut Random, pdu: &mut Vec<u8>, digests: Digests) {
    let by = random.pick(&[1, 4, 4, 8, 512, 4096]);
    let longer = random.one_in(2);
    if longer {
        let more = pdu.len() + by;
        pdu.resize(more, 0x5a);
    } else {
        let less = pdu.len().saturating_sub(by).max(8);
        pdu.truncate(less);
    }
    let total = pdu.len() as u32;
    pdu[4..8].copy_from_slice(&total.to_le_bytes());
    // H2CData says its length twice.
    if pdu[0] == HOST_DATA && pdu.len() >= 24 && random.one_in(2) {
        let old = u32_at(pdu, 16);
        let new = if longer { old.wrapping_add(by as u32) } else { old.wrapping_sub(by as u32) };
        pdu[16..20].copy_from_slice(&new.to_le_bytes());
    }
    mend(pdu, digests);
    let tail = if digests.data { 4 } else { 0 };
    let data_at = usize::from(pdu[3]);
    if tail > 0 && data_at >= 8 && pdu.len() > data_at + tail && !random.one_in(4) {
        let end = pdu.len() - tail;
        let digest = crc32c(&pdu[data_at..end]);
        pdu[end..].copy_from_slice(&digest.to_le_bytes());
    }
}

/// Makes the header digest right.
fn mend(pdu: &mut [u8], digests: Digests) {
    let header = match pdu[0] {
        CAPSULE => 72,
        HOST_DATA => 24,
        _ => return,
    };
    if digests.header && pdu.len() >= header + 4 {
        let digest = crc32c(&pdu[..header]);
        pdu[header..header + 4].copy_from_slice(&digest.to_le_bytes());
    }
}
