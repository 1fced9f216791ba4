//! A record on the serial line: lines of hexadecimal digits, each with its number and a check, so that they are found in
//! a mixed log and a missing or damaged one is noticed.

use core::fmt;

use hal_simd::crc32c;

/// What each line begins with.
pub const LINE_START: &str = "crash-record";
/// Bytes of the record in a line.
pub const LINE_BYTES: usize = 48;

/// One line: `crash-record NUMBER/COUNT HEX CHECK`, numbers from 1, the check a CRC-32C of the number, the count and the
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: u16,
    /// How many lines the record has.
    pub count: u16,
    bytes: &'a [u8],
}

/// The lines of a record's bytes.
pub fn lines_of(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let count = bytes.len().div_ceil(LINE_BYTES) as u16;
    bytes.chunks(LINE_BYTES).zip(1..).map(move |(bytes, number)| Line { number, count, bytes })
}

fn check(number: u16, count: u16, bytes: &[u8]) -> u32 {
    crc32c(crc32c(crc32c(0, &number.to_le_bytes()), &count.to_le_bytes()), bytes)
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINE_START} {}/{} ", self.number, self.count)?;
        for byte in self.bytes {
            write!(f, "{byte:02x}")?;
        }
        write!(f, " {:08x}", check(self.number, self.count, self.bytes))
    }
}

impl<'a> Line<'a> {
    /// Reads a line that begins with [`LINE_START`] into `room`; `None` where it is none or damaged. What stands behind
    /// the check does not matter.
    #[must_use]
    pub fn parse(text: &str, room: &'a mut [u8; LINE_BYTES]) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        (words.next()? == LINE_START).then_some(())?;
        let (number, count) = words.next()?.split_once('/')?;
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        let digits = words.next()?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        for (place, [high, low]) in room.get_mut(..pairs.len())?.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *place = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        let bytes = room.get(..pairs.len())?;
        let found = u32::from_str_radix(words.next()?, 16).ok()?;
        (found == check(number, count, bytes)).then_some(Self { number, count, bytes })
    }

    /// The record's bytes in this line.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_and_damage_is_noticed() {
        let bytes: Vec<u8> = (0..200).map(|i| (i * 7) as u8).collect();
        let lines: Vec<String> = lines_of(&bytes).map(|line| line.to_string()).collect();
        assert_eq!(lines.len(), 5);
        let mut read = Vec::new();
        for line in &lines {
            let mut room = [0; LINE_BYTES];
            let line = Line::parse(&format!("{line} \r"), &mut room).unwrap();
            assert_eq!(line.count, 5);
            read.extend_from_slice(line.bytes());
        }
        assert_eq!(read, bytes);
        let line = &lines[1];
        for at in 0..line.len() {
            let mut damaged = line.clone().into_bytes();
            damaged[at] = if damaged[at] == b'7' { b'6' } else { b'7' };
            let text = String::from_utf8(damaged).unwrap();
            assert_eq!(Line::parse(&text, &mut [0; LINE_BYTES]), None, "{text}");
            assert_eq!(Line::parse(&line[..at], &mut [0; LINE_BYTES]), None);
        }
    }
}
