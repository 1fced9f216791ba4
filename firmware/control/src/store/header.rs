//! The header of a copy: 32 bytes before the configuration, programmed after it, little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | `PENSTOCK` |
//! | 8 to 11 | format |
//! | 12 to 15 | sequence number |
//! | 16 to 19 | length of the configuration |
//! | 20 to 23 | CRC32C of the configuration |
//! | 24 to 27 | 0 |
//! | 28 to 31 | CRC32C of bytes 0 to 27 |
//!
//! The mark, the format and the last four bytes stay as they are in all formats, so that each firmware knows a newer one's copy.

use hal_simd::crc32c;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;
const CHECKED_BYTES: usize = HEADER_BYTES - 4;
const MARK: [u8; 8] = *b"PENSTOCK";
/// The format that this firmware writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// A header of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Rises by one with each configuration stored, and wraps.
    pub sequence: u32,
    /// Bytes of the configuration.
    pub length: u32,
    checksum: u32,
}

/// What stands in a header's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// A header.
    Header(Header),
    /// One of a newer format.
    Newer(u32),
    /// Erased flash.
    Blank,
    /// Zeros.
    Zeros,
    /// Anything else.
    Damaged,
}

impl Read {
    pub fn header(&self) -> Option<Header> {
        if let Self::Header(header) = *self { Some(header) } else { None }
    }

    pub fn newer_format(&self) -> Option<u32> {
        if let Self::Newer(format) = *self { Some(format) } else { None }
    }
}

impl Header {
    /// The header of a configuration.
    pub fn of(sequence: u32, configuration: &[u8]) -> Self {
        Self { sequence, length: configuration.len() as u32, checksum: crc32c(0, configuration) }
    }

    /// Whether these are the bytes that it stands before.
    pub fn describes(&self, configuration: &[u8]) -> bool {
        *self == Self::of(self.sequence, configuration)
    }

    /// Numbers wrap: of two that follow each other the second is newer.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence).cast_signed() > 0
    }

    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Read {
        if bytes.iter().all(|byte| *byte == 0xff) {
            return Read::Blank;
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Read::Zeros;
        }
        let (words, _) = bytes.as_chunks::<4>();
        let &[m0, m1, format, sequence, length, checksum, _, own] = words else { return Read::Damaged };
        let checked = bytes.get(..CHECKED_BYTES).map(|checked| crc32c(0, checked));
        if [m0, m1].as_flattened() != MARK || checked != Some(u32::from_le_bytes(own)) {
            return Read::Damaged;
        }
        match u32::from_le_bytes(format) {
            FORMAT => Read::Header(Self {
                sequence: u32::from_le_bytes(sequence),
                length: u32::from_le_bytes(length),
                checksum: u32::from_le_bytes(checksum),
            }),
            newer if newer > FORMAT => Read::Newer(newer),
            _ => Read::Damaged,
        }
    }

    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut place = bytes.iter_mut();
        let fields = [FORMAT, self.sequence, self.length, self.checksum, 0].map(u32::to_le_bytes);
        for (place, byte) in place.by_ref().zip(MARK.iter().chain(fields.as_flattened())) {
            *place = *byte;
        }
        let own = crc32c(0, bytes.get(..CHECKED_BYTES).unwrap_or_default()).to_le_bytes();
        for (place, byte) in bytes.iter_mut().skip(CHECKED_BYTES).zip(own) {
            *place = byte;
        }
        bytes
    }
}
