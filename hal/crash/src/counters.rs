//! Counters that survive a reset: how often the card has started and crashed since it got power.

use hal_simd::crc32c;

/// Size of the counters in bytes, at the start of the region.
pub const COUNTERS_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"PSCOUNT1";
/// The check stands behind this many bytes.
const CHECKED_BYTES: usize = 20;

/// Since the card got power. Where the region holds nothing sensible, the card has just got it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Starts, this one included.
    pub boots: u32,
    /// Crashes.
    pub crashes: u32,
    /// Crashes one after the other, without having served for a while in between.
    pub in_a_row: u32,
}

impl Counters {
    /// Reads them from the start of a region; zeros where they are damaged or absent.
    #[must_use]
    pub fn read(region: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = region.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let checked = region.get(..CHECKED_BYTES).unwrap_or_default();
        if !checked.starts_with(&MAGIC) || crc32c(0, checked) != number(CHECKED_BYTES) {
            return Self::default();
        }
        Self { boots: number(8), crashes: number(12), in_a_row: number(16) }
    }

    /// Writes them to the start of a region, which has at least [`COUNTERS_BYTES`].
    pub fn write(self, region: &mut [u8]) {
        let mut bytes = [0; COUNTERS_BYTES];
        let fields = [
            MAGIC.as_slice(),
            &self.boots.to_le_bytes(),
            &self.crashes.to_le_bytes(),
            &self.in_a_row.to_le_bytes(),
        ];
        for (place, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        let check = crc32c(0, bytes.get(..CHECKED_BYTES).unwrap_or_default());
        for (place, byte) in bytes.iter_mut().skip(CHECKED_BYTES).zip(check.to_le_bytes()) {
            *place = byte;
        }
        if let Some(place) = region.get_mut(..COUNTERS_BYTES) {
            place.copy_from_slice(&bytes);
        }
    }

    /// After one more crash. `served`: the card had been serving for long enough for this not to be a row.
    #[must_use]
    pub fn after_crash(self, served: bool) -> Self {
        let in_a_row = if served { 1 } else { self.in_a_row.saturating_add(1) };
        Self { crashes: self.crashes.saturating_add(1), in_a_row, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_and_garbage_counts_as_power_on() {
        let mut region = [0xa5; 64];
        assert_eq!(Counters::read(&region), Counters::default());
        let counters = Counters { boots: 3, crashes: 2, in_a_row: 1 };
        counters.write(&mut region);
        assert_eq!(Counters::read(&region), counters);
        for at in 0..CHECKED_BYTES + 4 {
            let mut damaged = region;
            damaged[at] ^= 4;
            assert_eq!(Counters::read(&damaged), Counters::default(), "byte {at}");
        }
        assert_eq!(Counters::read(&region[..10]), Counters::default());
    }

    #[test]
    fn a_row_ends_when_the_card_has_served() {
        let counters = Counters { boots: 9, crashes: 5, in_a_row: 2 };
        assert_eq!(counters.after_crash(false), Counters { boots: 9, crashes: 6, in_a_row: 3 });
        assert_eq!(counters.after_crash(true), Counters { boots: 9, crashes: 6, in_a_row: 1 });
    }
}
