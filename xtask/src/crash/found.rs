//! Finds crash records in a log, among frames, text and whatever else a serial line brings.

use hal_crash::{LINE_BYTES, LINE_START, Line};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// All lines of a record: its bytes.
    Whole(Vec<u8>),
    /// Some lines are missing or damaged.
    Partial {
        /// Sound lines.
        have: usize,
        /// Lines that the record had.
        count: u16,
    },
}

/// The records of a log in their order.
pub fn records(log: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut current: Option<Gathered> = None;
    for text in log.split(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(text);
        let Some(place) = text.find(LINE_START) else { continue };
        let mut room = [0; LINE_BYTES];
        let Some(line) = Line::parse(&text[place..], &mut room) else { continue };
        let goes_on =
            current.as_ref().is_some_and(|record| record.last < line.number && record.count == line.count);
        if !goes_on {
            found.extend(current.take().map(Gathered::finish));
        }
        let record =
            current.get_or_insert(Gathered { count: line.count, last: 0, have: 0, bytes: Vec::new() });
        record.last = line.number;
        record.have += 1;
        record.bytes.extend_from_slice(line.bytes());
    }
    found.extend(current.map(Gathered::finish));
    found
}

/// Lines of one record so far.
struct Gathered {
    count: u16,
    last: u16,
    have: usize,
    bytes: Vec<u8>,
}

impl Gathered {
    fn finish(self) -> Found {
        if self.have == usize::from(self.count) {
            Found::Whole(self.bytes)
        } else {
            Found::Partial { have: self.have, count: self.count }
        }
    }
}
