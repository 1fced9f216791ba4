//! Tables: which PDU may come when, and which of its fields end the connection.
//!
//! TCP 3.6.1 and 3.6.2 (fields), 3.5 (fatal errors), 3.3.2 (R2T and H2CData). Where a PDU breaks several rules, any of them may be
//! named: the specification sets no order. So each function returns all that are broken.

use crate::Card;
use crate::wire::{
    CAPSULE, DATA_DIGEST, Digests, HEADER_DIGEST, HOST_DATA, HOST_TERM, ICREQ, LAST, u16_at, u32_at,
};

/// FES and, where the specification says what it means, FEI (TCP 3.6.2.5).
pub type Fault = (u16, Option<u32>);

/// Invalid PDU Header Field at this offset.
#[must_use]
pub const fn field(offset: u32) -> Fault {
    (1, Some(offset))
}
/// PDU Sequence Error.
pub const SEQUENCE: Fault = (2, None);
/// Data Transfer Out of Range.
pub const OUT_OF_RANGE: Fault = (4, None);
/// Data Transfer Limit Exceeded.
pub const LIMIT: Fault = (5, None);

/// How far a connection is, as far as PDU types are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Before ICReq.
    New = 0,
    /// After ICResp: a Connect may come, or any command of a live queue.
    Ready = 1,
}

/// One PDU type that a host may send.
struct Kind {
    kind: u8,
    /// HLEN.
    header: u8,
    /// Faults in [`State::New`] and [`State::Ready`].
    when: [Option<Fault>; 2],
    /// Whether the flags speak of digests, and PDO of data.
    has_data: bool,
}

/// TCP 3.6.2: PDU type × connection state.
const KINDS: [Kind; 4] = [
    Kind { kind: ICREQ, header: 128, when: [None, Some(SEQUENCE)], has_data: false },
    Kind { kind: HOST_TERM, header: 24, when: [None, None], has_data: false },
    Kind { kind: CAPSULE, header: 72, when: [Some(SEQUENCE), None], has_data: true },
    Kind { kind: HOST_DATA, header: 24, when: [Some(SEQUENCE), None], has_data: true },
];

/// Where a PDU's parts lie, if the common header is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// Header and header digest.
    pub header: usize,
    /// Whether a header digest is there.
    pub header_digest: bool,
    /// Start of the data.
    pub data_at: usize,
    /// Data in bytes.
    pub data: usize,
    /// Whether a data digest follows.
    pub data_digest: bool,
    /// PLEN.
    pub total: usize,
}

/// Judges the eight bytes of a common header.
///
/// # Errors
/// All rules that it breaks.
pub fn common_header(
    bytes: &[u8],
    state: State,
    digests: Digests,
    card: &Card,
) -> Result<Layout, Vec<Fault>> {
    let &[kind, flags, header, data_at, ..] = bytes else { return Ok(Layout::default()) };
    let Some(rules) = KINDS.iter().find(|rules| rules.kind == kind) else { return Err(vec![field(0)]) };
    let mut faults: Vec<Fault> = rules.when[state as usize].into_iter().collect();
    if header != rules.header {
        faults.push(field(2));
    }
    let total = u32_at(bytes, 4);
    let mut layout = Layout { header: usize::from(rules.header), total: total as usize, ..Layout::default() };
    if !rules.has_data {
        let most = u32::from(rules.header) + if kind == HOST_TERM { 128 } else { 0 };
        if !(u32::from(rules.header)..=most).contains(&total) {
            faults.push(field(4));
        }
        (layout.data_at, layout.data) = (layout.header, layout.total.saturating_sub(layout.header));
        return if faults.is_empty() { Ok(layout) } else { Err(faults) };
    }
    let digest = u32::from(digests.header) * 4;
    let header_end = u32::from(rules.header) + digest;
    if (flags & HEADER_DIGEST != 0) != digests.header {
        faults.push(field(1));
    }
    layout.header += digest as usize;
    layout.header_digest = digests.header;
    let has_data = total != header_end;
    if total < header_end || (kind == HOST_DATA && !has_data) {
        faults.push(field(4));
    }
    if flags & DATA_DIGEST != 0 && !digests.data {
        faults.push(field(1));
    }
    if has_data {
        data_rules(bytes, header_end, data_at, digests, card, &mut layout, &mut faults);
    }
    if faults.is_empty() { Ok(layout) } else { Err(faults) }
}

/// TCP 3.6.1 (PDO, PLEN), 3.6.2.6 and 3.6.2.8: the part with the data.
fn data_rules(
    bytes: &[u8],
    header_end: u32,
    data_at: u8,
    digests: Digests,
    card: &Card,
    layout: &mut Layout,
    faults: &mut Vec<Fault>,
) {
    let (kind, flags, total) = (bytes[0], bytes[1], u32_at(bytes, 4));
    // Our CPDA is 0: data starts at a dword.
    if u32::from(data_at) < header_end || !data_at.is_multiple_of(4) {
        faults.push(field(3));
    }
    if (flags & DATA_DIGEST != 0) != digests.data {
        faults.push(field(1));
    }
    let around = u32::from(data_at) + if digests.data { 4 } else { 0 };
    let data = total.saturating_sub(around);
    if data == 0 {
        // Either of the two is wrong.
        faults.extend([field(3), field(4)]);
    }
    if kind == CAPSULE && data > card.in_capsule {
        faults.push(field(4));
    }
    if kind == HOST_DATA && data > card.max_host_data {
        faults.push(LIMIT);
    }
    (layout.data_at, layout.data, layout.data_digest) = (usize::from(data_at), data as usize, digests.data);
}

/// ICReq (TCP 3.6.2.2): PFV and HPDA.
#[must_use]
pub fn icreq(header: &[u8]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if u16_at(header, 8) != 0 {
        faults.push((6, Some(8)));
    }
    if header[10] > 31 {
        faults.push(field(10));
    }
    faults
}

/// What is still to come for an R2T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenR2t {
    /// CCCID.
    pub cid: u16,
    /// TTAG.
    pub tag: u16,
    /// DATAO of the next H2CData: they come in order (TCP 3.3.2.1).
    pub next: u32,
    /// R2TO + R2TL.
    pub end: u32,
}

/// H2CData (TCP 3.6.2.8) against the R2Ts that are open on its connection.
#[must_use]
pub fn host_data(header: &[u8], layout: &Layout, open: &[OpenR2t], card: &Card) -> Vec<Fault> {
    let (cid, tag) = (u16_at(header, 8), u16_at(header, 10));
    let (offset, length) = (u32_at(header, 12), u32_at(header, 16));
    let mut faults = Vec::new();
    if length == 0 {
        faults.push(field(16));
    }
    if length as usize != layout.data {
        faults.extend([field(4), field(16)]);
    }
    if length > card.max_host_data {
        faults.push(LIMIT);
    }
    let Some(r2t) = open.iter().find(|r2t| r2t.tag == tag) else {
        faults.push(field(10));
        return faults;
    };
    if r2t.cid != cid {
        faults.push(field(8));
    }
    let end = u64::from(offset) + u64::from(length);
    if offset != r2t.next || end > u64::from(r2t.end) {
        faults.push(OUT_OF_RANGE);
    }
    if (header[1] & LAST != 0) != (end == u64::from(r2t.end)) {
        faults.push(field(1));
    }
    faults
}
