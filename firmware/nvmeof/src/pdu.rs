//! Wire formats of NVMe/TCP (NVMe/TCP Transport 1.0, section 3.6) and the checks that need nothing but a
//! PDU's common header.
//!
//! All numbers are little-endian, all structures plain bytes without padding, so that any bytes of the right
//! length are one.

use nvme::{Command, Completion};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PDU-Type: what a PDU is.
pub mod kind {
    /// ICReq: a host opens a connection.
    pub const INITIALIZE_REQUEST: u8 = 0x00;
    /// ICResp: the controller agrees.
    pub const INITIALIZE_RESPONSE: u8 = 0x01;
    /// H2CTermReq: the host gives up.
    pub const HOST_TERMINATE: u8 = 0x02;
    /// C2HTermReq: the controller gives up.
    pub const CONTROLLER_TERMINATE: u8 = 0x03;
    /// CapsuleCmd: a command.
    pub const COMMAND: u8 = 0x04;
    /// CapsuleResp: its completion.
    pub const RESPONSE: u8 = 0x05;
    /// H2CData: data of a write.
    pub const HOST_DATA: u8 = 0x06;
    /// C2HData: data of a read.
    pub const CONTROLLER_DATA: u8 = 0x07;
    /// R2T: the controller is ready for the data of a write.
    pub const READY_TO_TRANSFER: u8 = 0x09;
}

/// FLAGS of the common header.
pub mod flags {
    /// HDGSTF: a header digest follows the header.
    pub const HEADER_DIGEST: u8 = 1 << 0;
    /// DDGSTF: a data digest follows the data.
    pub const DATA_DIGEST: u8 = 1 << 1;
    /// LAST_PDU: the last data PDU of an R2T, or of a read.
    pub const LAST: u8 = 1 << 2;
    /// SUCCESS: no response capsule follows; the command succeeded.
    pub const SUCCESS: u8 = 1 << 3;
}

/// Bytes of a header or data digest.
pub const DIGEST_BYTES: usize = 4;
/// Most in-capsule data in bytes, on the admin queue and, by IOCCSZ, on I/O queues.
pub const IN_CAPSULE_BYTES: u32 = 8192;
/// MAXH2CDATA: most data in one H2CData PDU in bytes.
pub const MAX_HOST_DATA_BYTES: u32 = 128 * 1024;
/// Most bytes of a wrong PDU that a TermReq may quote.
pub const MAX_QUOTED_BYTES: usize = 128;

/// The first eight bytes of each PDU (3.6.1).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type, one of [`kind`].
    pub kind: u8,
    /// FLAGS, of [`flags`].
    pub flags: u8,
    /// HLEN: bytes of the header without digest and padding.
    pub header_bytes: u8,
    /// PDO: where data starts, from the start of the PDU; meaningless without data.
    pub data_offset: u8,
    /// PLEN: bytes of the whole PDU.
    pub total_bytes: U32,
}

impl CommonHeader {
    /// Of a PDU that is nothing but a header of so many bytes, without a digest.
    #[must_use]
    pub const fn of(kind: u8, bytes: usize) -> Self {
        Self {
            kind,
            flags: 0,
            header_bytes: bytes as u8,
            data_offset: 0,
            total_bytes: U32::new(bytes as u32),
        }
    }
}

/// Copies what fits and returns how much that was.
pub(crate) fn put(room: &mut [u8], bytes: &[u8]) -> usize {
    let count = room.len().min(bytes.len());
    if let (Some(to), Some(from)) = (room.get_mut(..count), bytes.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

/// ICReq and ICResp (3.6.2.2, 3.6.2.3).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Initialize {
    /// Common header.
    pub common: CommonHeader,
    /// PFV: format version; 0 is the only one.
    pub format: U16,
    /// HPDA or CPDA: alignment of data that the sender wants, in dwords less one, 0 to 31.
    pub alignment: u8,
    /// DGST: bit 0 header digests, bit 1 data digests.
    pub digests: u8,
    /// MAXR2T of an ICReq: R2Ts that may be open for a command, less one. MAXH2CDATA of an ICResp in bytes.
    pub limit: U32,
    /// Zero.
    pub reserved: [u8; 112],
}

/// H2CTermReq and C2HTermReq (3.6.2.4, 3.6.2.5), without the quoted header that follows.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Terminate {
    /// Common header.
    pub common: CommonHeader,
    /// FES: a [`FatalStatus`].
    pub status: U16,
    /// FEI: what it means depends on FES.
    pub information: U32,
    /// Zero.
    pub reserved: [u8; 10],
}

/// CapsuleCmd (3.6.2.6), without data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandCapsule {
    /// Common header.
    pub common: CommonHeader,
    /// CCSQE: the submission queue entry.
    pub command: Command,
}

/// CapsuleResp (3.6.2.7).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ResponseCapsule {
    /// Common header.
    pub common: CommonHeader,
    /// RCCQE: the completion queue entry.
    pub completion: Completion,
}

/// H2CData, C2HData and R2T (3.6.2.8 to 3.6.2.10), which share a layout.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataHeader {
    /// Common header.
    pub common: CommonHeader,
    /// CCCID: the command that the data belongs to.
    pub cid: U16,
    /// TTAG: the R2T that the data answers; zero in C2HData.
    pub tag: U16,
    /// DATAO or R2TO: offset in the command's data in bytes.
    pub offset: U32,
    /// DATAL or R2TL in bytes.
    pub length: U32,
    /// Zero.
    pub reserved: [u8; 4],
}

const _: () = {
    assert!(size_of::<CommonHeader>() == 8);
    assert!(size_of::<Initialize>() == 128);
    assert!(size_of::<Terminate>() == 24);
    assert!(size_of::<CommandCapsule>() == 72);
    assert!(size_of::<ResponseCapsule>() == 24);
    assert!(size_of::<DataHeader>() == 24);
};

/// FES: why a connection cannot go on (3.6.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FatalStatus {
    /// A field of a header is wrong; FEI is its offset in the PDU.
    InvalidHeaderField = 1,
    /// The PDU does not belong here.
    SequenceError = 2,
    /// The header digest does not fit; FEI is the digest that came.
    HeaderDigestError = 3,
    /// Data outside what the R2T asked for.
    DataOutOfRange = 4,
    /// More data in one PDU than MAXH2CDATA.
    DataLimitExceeded = 5,
    /// A parameter of the connection that is not supported; FEI is its offset.
    UnsupportedParameter = 6,
}

/// An error that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fatal {
    /// FES.
    pub status: FatalStatus,
    /// FEI.
    pub information: u32,
}

impl Fatal {
    /// A wrong field at `offset` of the PDU.
    #[must_use]
    pub const fn field(offset: u32) -> Self {
        Self { status: FatalStatus::InvalidHeaderField, information: offset }
    }

    /// An error that needs no more words.
    #[must_use]
    pub const fn plain(status: FatalStatus) -> Self {
        Self { status, information: 0 }
    }
}

/// Offsets of fields, for FEI.
pub mod offset {
    /// PDU-Type.
    pub const KIND: u32 = 0;
    /// FLAGS.
    pub const FLAGS: u32 = 1;
    /// HLEN.
    pub const HEADER_BYTES: u32 = 2;
    /// PDO.
    pub const DATA_OFFSET: u32 = 3;
    /// PLEN.
    pub const TOTAL_BYTES: u32 = 4;
    /// PFV of ICReq.
    pub const FORMAT: u32 = 8;
    /// HPDA of ICReq.
    pub const ALIGNMENT: u32 = 10;
    /// CCCID of H2CData.
    pub const CID: u32 = 8;
    /// TTAG of H2CData.
    pub const TAG: u32 = 10;
    /// DATAL of H2CData.
    pub const LENGTH: u32 = 16;
}

/// Which digests a connection uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digests {
    /// HDGST_ENABLE.
    pub header: bool,
    /// DDGST_ENABLE.
    pub data: bool,
}

impl Digests {
    /// From DGST of ICReq or ICResp.
    #[must_use]
    pub const fn from_field(field: u8) -> Self {
        Self { header: field & 1 != 0, data: field & 2 != 0 }
    }

    /// As DGST of ICReq or ICResp.
    #[must_use]
    pub const fn to_field(self) -> u8 {
        self.header as u8 | (self.data as u8) << 1
    }
}

/// Where the parts of a PDU lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// PDU-Type.
    pub kind: u8,
    /// LAST_PDU.
    pub last: bool,
    /// Header with its digest, in bytes; at most 128.
    pub header_bytes: usize,
    /// Whether the header's last four bytes are its digest.
    pub header_digest: bool,
    /// Padding between header and data in bytes.
    pub pad_bytes: u8,
    /// Data in bytes.
    pub data_bytes: u32,
    /// Whether a digest follows the data.
    pub data_digest: bool,
}

impl Frame {
    /// Reads what the common header of a PDU from a host tells.
    ///
    /// # Errors
    /// [`Fatal`] names the first field that cannot be right, in the order type, HLEN, flags, PDO, PLEN.
    pub fn of_host_pdu(common: &CommonHeader, digests: Digests) -> Result<Self, Fatal> {
        let header = usize::from(common.header_bytes);
        let expected = match common.kind {
            kind::INITIALIZE_REQUEST => size_of::<Initialize>(),
            kind::HOST_TERMINATE => size_of::<Terminate>(),
            kind::COMMAND => size_of::<CommandCapsule>(),
            kind::HOST_DATA => size_of::<DataHeader>(),
            _ => return Err(Fatal::field(offset::KIND)),
        };
        if header != expected {
            return Err(Fatal::field(offset::HEADER_BYTES));
        }
        let total = common.total_bytes.get();
        let frame = Self {
            kind: common.kind,
            last: common.flags & flags::LAST != 0,
            header_bytes: header,
            header_digest: false,
            pad_bytes: 0,
            data_bytes: 0,
            data_digest: false,
        };
        match common.kind {
            kind::INITIALIZE_REQUEST if total == header as u32 => Ok(frame),
            kind::HOST_TERMINATE if total >= header as u32 && total <= (header + MAX_QUOTED_BYTES) as u32 => {
                Ok(Self { data_bytes: total - header as u32, ..frame })
            }
            kind::INITIALIZE_REQUEST | kind::HOST_TERMINATE => Err(Fatal::field(offset::TOTAL_BYTES)),
            _ => frame.with_data(common, digests),
        }
    }

    fn with_data(self, common: &CommonHeader, digests: Digests) -> Result<Self, Fatal> {
        let header_digest = common.flags & flags::HEADER_DIGEST != 0;
        let data_digest = common.flags & flags::DATA_DIGEST != 0;
        if header_digest != digests.header || (data_digest && !digests.data) {
            return Err(Fatal::field(offset::FLAGS));
        }
        let header_bytes = self.header_bytes + if header_digest { DIGEST_BYTES } else { 0 };
        let framed = Self { header_bytes, header_digest, ..self };
        let total = common.total_bytes.get();
        let capsule = common.kind == kind::COMMAND;
        if capsule && total == header_bytes as u32 {
            return Ok(framed);
        }
        if total <= header_bytes as u32 {
            return Err(Fatal::field(offset::TOTAL_BYTES));
        }
        let data_at = usize::from(common.data_offset);
        if data_at < header_bytes || !data_at.is_multiple_of(4) {
            return Err(Fatal::field(offset::DATA_OFFSET));
        }
        if data_digest != digests.data {
            return Err(Fatal::field(offset::FLAGS));
        }
        let around = data_at + if data_digest { DIGEST_BYTES } else { 0 };
        let Some(data_bytes) = total.checked_sub(around as u32).filter(|&bytes| bytes > 0) else {
            return Err(Fatal::field(offset::TOTAL_BYTES));
        };
        if capsule && data_bytes > IN_CAPSULE_BYTES {
            return Err(Fatal::field(offset::TOTAL_BYTES));
        }
        if data_bytes > MAX_HOST_DATA_BYTES {
            return Err(Fatal::plain(FatalStatus::DataLimitExceeded));
        }
        Ok(Self { pad_bytes: (data_at - header_bytes) as u8, data_bytes, data_digest, ..framed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(kind: u8, flags: u8, header: u8, data_offset: u8, total: u32) -> CommonHeader {
        CommonHeader { kind, flags, header_bytes: header, data_offset, total_bytes: U32::new(total) }
    }

    #[test]
    fn frames_of_well_formed_pdus() {
        let both = Digests { header: true, data: true };
        let frame = Frame::of_host_pdu(&common(4, 3, 72, 76, 76 + 512 + 4), both).unwrap();
        assert_eq!((frame.header_bytes, frame.pad_bytes, frame.data_bytes), (76, 0, 512));
        let frame = Frame::of_host_pdu(&common(4, 0, 72, 0, 72), Digests::default()).unwrap();
        assert_eq!((frame.header_bytes, frame.data_bytes), (72, 0));
        let frame = Frame::of_host_pdu(&common(6, 4, 24, 128, 128 + 1000), Digests::default()).unwrap();
        assert_eq!((frame.pad_bytes, frame.data_bytes, frame.last), (104, 1000, true));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let off = Digests::default();
        let check = |header: CommonHeader, digests| Frame::of_host_pdu(&header, digests).unwrap_err();
        assert_eq!(check(common(5, 0, 24, 0, 24), off), Fatal::field(0));
        assert_eq!(check(common(0xff, 0, 24, 0, 24), off), Fatal::field(0));
        assert_eq!(check(common(0, 0, 127, 0, 128), off), Fatal::field(2));
        assert_eq!(check(common(0, 0, 128, 0, 129), off), Fatal::field(4));
        assert_eq!(check(common(4, 0, 72, 0, 8), off), Fatal::field(4));
        assert_eq!(check(common(4, 0, 72, 0, 71), off), Fatal::field(4));
        assert_eq!(check(common(4, 0, 72, 72, u32::MAX), off), Fatal::field(4));
        assert_eq!(check(common(4, 0, 72, 71, 100), off), Fatal::field(3));
        assert_eq!(check(common(4, 0, 72, 74, 100), off), Fatal::field(3));
        assert_eq!(check(common(4, 1, 72, 72, 100), off), Fatal::field(1));
        assert_eq!(check(common(6, 0, 24, 24, 24), off), Fatal::field(4));
        assert_eq!(check(common(6, 0, 24, 24, 25 + MAX_HOST_DATA_BYTES), off).status as u16, 5);
        assert_eq!(check(common(2, 0, 24, 0, 153), off), Fatal::field(4));
    }

    #[test]
    fn no_common_header_panics() {
        for kind in 0..=10 {
            for flags in 0..16 {
                for header in [0, 8, 24, 72, 128, 255] {
                    for data in [0, 8, 24, 28, 72, 76, 128, 255] {
                        for total in [0, 8, 24, 71, 72, 76, 128, 152, 9000, u32::MAX] {
                            let header = common(kind, flags, header, data, total);
                            for digests in [Digests::default(), Digests { header: true, data: true }] {
                                if let Ok(frame) = Frame::of_host_pdu(&header, digests) {
                                    assert!(frame.header_bytes <= 128);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
