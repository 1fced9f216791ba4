//! The source location that a panic is called with: a constant of the program, whose address stands in a register.
//!
//! Where the compiler has joined the panics of several places, debug information has no line left, but the locations
//! are still there: each branch to the joined panic loads its own.

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Longer than any path of a source file.
const LONGEST_PATH: u64 = 512;

/// What the program has in memory when it starts.
pub struct Memory<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Memory<'a> {
    /// Takes all sections that are loaded.
    pub fn of(elf: &ElfFile64<'a>) -> Self {
        let sections = elf.sections().filter(|section| section.address() != 0);
        Self(sections.filter_map(|section| Some((section.address(), section.data().ok()?))).collect())
    }

    fn bytes(&self, address: u64, count: u64) -> Option<&'a [u8]> {
        self.0.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(at..at.checked_add(usize::try_from(count).ok()?)?)
        })
    }

    fn word(&self, address: u64) -> Option<u32> {
        self.bytes(address, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// The last location whose address is computed in a straight run of code: file and line.
    pub fn location(&self, run: RangeInclusive<u64>) -> Option<(&'a str, u32)> {
        let mut registers: BTreeMap<u32, u64> = BTreeMap::new();
        let mut found = None;
        for address in run.step_by(4) {
            let word = self.word(address)?;
            let (to, from) = (word & 31, word >> 5 & 31);
            // Linkers make one `ADR` of `ADRP` and `ADD` where the constant is near.
            let value = match (word & 0x9f00_0000, word & 0xffc0_0000, registers.get(&from)) {
                (0x9000_0000, _, _) => {
                    registers.insert(to, (address & !0xfff).wrapping_add_signed(displacement(word) << 12));
                    continue;
                }
                (0x1000_0000, _, _) => address.wrapping_add_signed(displacement(word)),
                (_, 0x9100_0000, Some(page)) => page.wrapping_add(u64::from(word >> 10 & 0xfff)),
                _ => continue,
            };
            found = self.location_at(value).or(found);
        }
        found
    }

    /// `core::panic::Location`: the path as address and length, the line, the column.
    fn location_at(&self, address: u64) -> Option<(&'a str, u32)> {
        let number = |at, count| -> Option<u64> {
            let bytes = self.bytes(address + at, count)?;
            Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let length = number(8, 8).filter(|length| *length <= LONGEST_PATH)?;
        let path = std::str::from_utf8(self.bytes(number(0, 8)?, length)?).ok()?;
        let path = path.trim_end_matches('\0');
        path.ends_with(".rs").then_some((path, number(16, 4)? as u32))
    }
}

/// The signed displacement of `ADR` in bytes, of `ADRP` in pages of 4 KiB.
fn displacement(word: u32) -> i64 {
    let low = word >> 29 & 3;
    let high = word >> 5 & 0x7_ffff;
    i64::from(((high << 2 | low) << 11).cast_signed() >> 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_found_by_the_two_instructions_that_make_its_address() {
        // adrp x0, .+0x2000; add x0, x0, #0x10; at 0x3010 the location, whose path stands at 0x3100.
        let code: Vec<u8> =
            [0xd000_0000u32, 0x9100_4000].iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut data = vec![0; 0x200];
        data[0x10..0x18].copy_from_slice(&0x3100u64.to_le_bytes());
        data[0x18..0x20].copy_from_slice(&8u64.to_le_bytes());
        data[0x20] = 42;
        data[0x100..0x108].copy_from_slice(b"a/src.rs");
        let memory = Memory(vec![(0x1000, &code), (0x3000, &data)]);
        assert_eq!(memory.location(0x1000..=0x1004), Some(("a/src.rs", 42)));
        assert_eq!(memory.location(0x1000..=0x1000), None);
        // adr x2, .+0x2010
        let code = 0x1001_0082u32.to_le_bytes();
        let memory = Memory(vec![(0x1000, &code), (0x3000, &data)]);
        assert_eq!(memory.location(0x1000..=0x1000), Some(("a/src.rs", 42)));
    }

    #[test]
    fn displacements_have_a_sign() {
        assert_eq!(displacement(0xb000_0000), 1);
        assert_eq!(displacement(0x90ff_ffe0), -4);
        assert_eq!(displacement(0xf0ff_ffe0), -1);
        assert_eq!(displacement(0x1000_0020), 4);
    }
}
