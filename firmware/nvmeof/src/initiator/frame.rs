//! What the common header of a PDU from a target tells, and the checks that need nothing else (TCP 3.6).

use super::fault::Fault;
use crate::pdu::{
    CommonHeader, DIGEST_BYTES, DataHeader, Digests, Frame, Initialize, MAX_QUOTED_BYTES, ResponseCapsule,
    Terminate, flags, kind, offset,
};

/// Lays a PDU out. `alignment_bytes` is what HPDA asked for.
pub(super) fn frame_of(
    common: &CommonHeader,
    digests: Digests,
    alignment_bytes: usize,
) -> Result<Frame, Fault> {
    let header_bytes = match common.kind {
        kind::INITIALIZE_RESPONSE => size_of::<Initialize>(),
        kind::CONTROLLER_TERMINATE => size_of::<Terminate>(),
        kind::RESPONSE => size_of::<ResponseCapsule>(),
        kind::CONTROLLER_DATA | kind::READY_TO_TRANSFER => size_of::<DataHeader>(),
        kind => return Err(Fault::UnexpectedPdu { kind }),
    };
    let wrong = |offset| Fault::Field { kind: common.kind, offset };
    if usize::from(common.header_bytes) != header_bytes {
        return Err(wrong(offset::HEADER_BYTES));
    }
    let total = common.total_bytes.get() as usize;
    let frame = Frame {
        kind: common.kind,
        last: common.flags & flags::LAST != 0,
        header_bytes,
        header_digest: false,
        pad_bytes: 0,
        data_bytes: 0,
        data_digest: false,
    };
    match common.kind {
        kind::INITIALIZE_RESPONSE if total == header_bytes => return Ok(frame),
        kind::CONTROLLER_TERMINATE if (header_bytes..=header_bytes + MAX_QUOTED_BYTES).contains(&total) => {
            return Ok(Frame { data_bytes: (total - header_bytes) as u32, ..frame });
        }
        kind::INITIALIZE_RESPONSE | kind::CONTROLLER_TERMINATE => return Err(wrong(offset::TOTAL_BYTES)),
        _ => {}
    }
    if (common.flags & flags::HEADER_DIGEST != 0) != digests.header {
        return Err(wrong(offset::FLAGS));
    }
    let header_bytes = header_bytes + if digests.header { DIGEST_BYTES } else { 0 };
    let frame = Frame { header_bytes, header_digest: digests.header, ..frame };
    if common.kind != kind::CONTROLLER_DATA {
        return if total == header_bytes { Ok(frame) } else { Err(wrong(offset::TOTAL_BYTES)) };
    }
    if (common.flags & flags::DATA_DIGEST != 0) != digests.data {
        return Err(wrong(offset::FLAGS));
    }
    let data_at = usize::from(common.data_offset);
    if data_at < header_bytes || !data_at.is_multiple_of(alignment_bytes) {
        return Err(wrong(offset::DATA_OFFSET));
    }
    let around = data_at + if digests.data { DIGEST_BYTES } else { 0 };
    let Some(data_bytes) = total.checked_sub(around).filter(|&bytes| bytes > 0) else {
        return Err(wrong(offset::TOTAL_BYTES));
    };
    let pad_bytes = (data_at - header_bytes) as u8;
    Ok(Frame { pad_bytes, data_bytes: data_bytes as u32, data_digest: digests.data, ..frame })
}
