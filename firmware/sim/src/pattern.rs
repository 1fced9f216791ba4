//! What blocks hold: each says where it belongs and which write made it, in every word, so that a block of another
//! place, of another time, or made of two halves shows.

/// Which write made a block; 0 is a block of zeros that nobody has written.
pub type Version = u32;

const WORD_BYTES: usize = 8;
const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills a block.
pub fn fill(block: &mut [u8], namespace: u16, lba: u64, version: Version) {
    let name = name(namespace, lba, version);
    for (index, word) in block.chunks_exact_mut(WORD_BYTES).enumerate() {
        word.copy_from_slice(&value(name, index).to_le_bytes());
    }
}

/// The write that a block names first; 0 where it is none's.
#[must_use]
pub fn version_of(block: &[u8]) -> Version {
    block.first_chunk().map_or(0, |first| Version::from_le_bytes(*first))
}

/// The block that a block names first.
#[must_use]
pub fn place_of(block: &[u8]) -> u64 {
    block.first_chunk().map_or(0, |first| u64::from_le_bytes(*first) >> 32 & 0xf_ffff)
}

/// What a block may hold: zeros, or what a write has made for a block of the same namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    lba: u64,
    version: Version,
}

impl Mark {
    /// Zeros.
    pub const ZEROS: Self = Self { lba: 0, version: 0 };

    /// What a write makes of a block.
    #[must_use]
    pub fn of(lba: u64, version: Version, zeros: bool) -> Self {
        if zeros { Self::ZEROS } else { Self { lba, version } }
    }

    /// What a block of `namespace` that was looked at holds; `None` where it is nothing whole, or of another namespace.
    #[must_use]
    pub fn found(contents: Contents, namespace: u16, lba: u64) -> Option<Self> {
        match contents {
            Contents::Zeros => Some(Self::ZEROS),
            Contents::Of(version) => Some(Self { lba, version }),
            Contents::Foreign { namespace: other, lba, version } if other == namespace => {
                Some(Self { lba, version })
            }
            Contents::Foreign { .. } | Contents::Broken { .. } => None,
        }
    }

    /// The write, where it was one to this block and not of zeros.
    #[must_use]
    pub fn own(self, lba: u64) -> Option<Version> {
        (self != Self::ZEROS && self.lba == lba).then_some(self.version)
    }
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Nothing but zeros.
    Zeros,
    /// A whole block that a write made for this place.
    Of(Version),
    /// A whole block of another place.
    Foreign {
        /// Its namespace.
        namespace: u16,
        /// Its block number.
        lba: u64,
        /// Its write.
        version: Version,
    },
    /// No whole block: torn, or nobody's.
    Broken {
        /// The first word that does not fit.
        word: usize,
    },
}

/// Looks at a block that stands at `lba` of `namespace`.
#[must_use]
pub fn inspect(block: &[u8], namespace: u16, lba: u64) -> Contents {
    let word = |index: usize| {
        let bytes = block.get(index * WORD_BYTES..(index + 1) * WORD_BYTES);
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let words = block.len() / WORD_BYTES;
    let first = word(0);
    if first == 0 {
        return (0..words)
            .find(|&index| word(index) != 0)
            .map_or(Contents::Zeros, |word| Contents::Broken { word });
    }
    if let Some(wrong) = (0..words).find(|&index| word(index) != value(first, index)) {
        return Contents::Broken { word: wrong };
    }
    let version = first as Version;
    let (found, at) = ((first >> 52) as u16, first >> 32 & 0xf_ffff);
    if (found, at) == (namespace, lba) {
        Contents::Of(version)
    } else {
        Contents::Foreign { namespace: found, lba: at, version }
    }
}

/// The first word: namespace (12 bits), block (20 bits), write.
fn name(namespace: u16, lba: u64, version: Version) -> u64 {
    u64::from(namespace) << 52 | (lba & 0xf_ffff) << 32 | u64::from(version)
}

fn value(name: u64, index: usize) -> u64 {
    name ^ SALT.wrapping_mul(index as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_where_it_belongs() {
        let mut block = [0; 512];
        assert_eq!(inspect(&block, 3, 9), Contents::Zeros);
        fill(&mut block, 3, 9, 77);
        assert_eq!(inspect(&block, 3, 9), Contents::Of(77));
        assert_eq!(inspect(&block, 3, 8), Contents::Foreign { namespace: 3, lba: 9, version: 77 });
        let mut other = [0; 512];
        fill(&mut other, 3, 9, 78);
        block[256..].copy_from_slice(&other[256..]);
        assert_eq!(inspect(&block, 3, 9), Contents::Broken { word: 32 });
        fill(&mut block, 3, 9, 77);
        block[511] ^= 1;
        assert_eq!(inspect(&block, 3, 9), Contents::Broken { word: 63 });
    }
}
