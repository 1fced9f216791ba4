//! ELF to flat image: the loadable segments at their physical addresses, gaps zero-filled.

use std::fmt;

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// Larger than any image; keeps a broken ELF from asking for all memory.
const LARGEST_BYTES: u64 = 256 << 20;

/// Why an ELF file has no flat image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlatError {
    /// Not a 64-bit ELF file, or a damaged one.
    Elf(String),
    /// Nothing to load.
    Empty,
    /// The segments are spread over more than 256 MiB.
    TooLarge,
}

impl fmt::Display for FlatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(text) => write!(f, "not a readable 64-bit ELF file: {text}"),
            Self::Empty => f.write_str("the ELF file has nothing to load"),
            Self::TooLarge => f.write_str("the ELF file's segments are spread over more than 256 MiB"),
        }
    }
}

impl std::error::Error for FlatError {}

/// The bytes of all `PT_LOAD` segments, from the lowest physical address that has any. What follows the last
/// byte of the file (bss, stacks) is left out: the image's header tells the loader of it.
///
/// # Errors
/// [`FlatError`].
pub fn flat_image(elf: &[u8]) -> Result<Vec<u8>, FlatError> {
    let damaged = |error: object::Error| FlatError::Elf(error.to_string());
    let header = FileHeader64::<Endianness>::parse(elf).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    let mut parts = Vec::new();
    for segment in header.program_headers(endian, elf).map_err(damaged)? {
        if segment.p_type(endian) != PT_LOAD || segment.p_filesz(endian) == 0 {
            continue;
        }
        let bytes =
            segment.data(endian, elf).map_err(|()| FlatError::Elf("a segment is outside it".into()))?;
        parts.push((segment.p_paddr(endian), bytes));
    }
    let base = parts.iter().map(|(address, _)| *address).min().ok_or(FlatError::Empty)?;
    let mut image = Vec::new();
    for (address, bytes) in parts {
        let start = address - base;
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= LARGEST_BYTES);
        let end = end.ok_or(FlatError::TooLarge)? as usize;
        if image.len() < end {
            image.resize(end, 0);
        }
        if let Some(place) = image.get_mut(start as usize..end) {
            place.copy_from_slice(bytes);
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian ELF64 with two loadable segments: "abc" at 0x1000 and "xy", 16 bytes in memory, at 0x1008.
    fn two_segments() -> Vec<u8> {
        let mut elf = vec![0u8; 64 + 2 * 56];
        elf[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        elf[16] = 2;
        elf[18] = 183;
        elf[20] = 1;
        elf[32] = 64;
        elf[52] = 64;
        elf[54] = 56;
        elf[56] = 2;
        elf.extend_from_slice(b"abcxy");
        for (index, (offset, address, file, memory)) in
            [(176, 0x1000, 3, 3), (179, 0x1008, 2, 16)].iter().enumerate()
        {
            let at = 64 + index * 56;
            elf[at] = 1;
            for (field, value) in
                [(8, *offset), (16, 0xffff_0000u64), (24, *address), (32, *file), (40, *memory)]
            {
                elf[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        elf
    }

    #[test]
    fn segments_stand_at_their_physical_addresses() {
        assert_eq!(flat_image(&two_segments()).unwrap(), b"abc\0\0\0\0\0xy");
    }

    #[test]
    fn damaged_files_are_refused() {
        let elf = two_segments();
        for length in 0..elf.len() {
            assert!(flat_image(&elf[..length]).is_err(), "cut to {length}");
        }
        let mut far = elf;
        far[64 + 56 + 24 + 5] = 1;
        assert_eq!(flat_image(&far), Err(FlatError::TooLarge));
    }
}
