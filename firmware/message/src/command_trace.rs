//! What became of single commands, and when: samples, and those that were slow.

use heapless::Vec;
use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// Traces that one page has at most.
pub const TRACES_OF_PAGE: usize = 8;

/// Which commands are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct TraceSettings {
    /// One of so many is a sample; 0 for none.
    pub sample_one_in: u32,
    /// Those are slow that take longer, in microseconds.
    pub slow_us: u32,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { sample_one_in: 64, slow_us: 100_000 }
    }
}

/// Which of a core's two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum TraceLog {
    /// Samples.
    Sampled,
    /// Slow commands.
    Slow,
}

/// A command that has ended, and when it was where. Moments are those of the turns of its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct CommandTrace {
    /// Its number in the log; each is one more than the last.
    pub sequence: u64,
    /// CNTLID of the controller; 0 before Connect has succeeded.
    pub controller: u16,
    /// Queue of the controller; 0 is the admin queue.
    pub queue: u16,
    /// Command identifier.
    pub cid: u16,
    /// Its opcode.
    pub opcode: u8,
    /// NSID as it stands in the command.
    pub nsid: u32,
    /// First logical block; 0 where it names none.
    pub first_block: u64,
    /// Logical blocks; 0 where it names none.
    pub blocks: u32,
    /// How it ended.
    pub end: TraceEnd,
    /// Stages on its way.
    pub stages: Stages,
    /// What it had to wait for.
    pub waits: Waits,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum TraceEnd {
    /// Its response was handed to the connection.
    Answered {
        /// Status code type in bits 10:8, status code in bits 7:0.
        status: u16,
    },
    /// Its connection had gone.
    ConnectionLost,
}

/// Stages of a command, in microseconds since its capsule was there; `None` for those that it has not passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Stages {
    /// When the capsule was there, in microseconds since the start of the card.
    pub received_us: u64,
    /// The host was asked for data (R2T).
    pub asked_us: Option<u32>,
    /// It had its buffers, and all data from the host was there.
    pub ready_us: Option<u32>,
    /// It was handed to the drive.
    pub submitted_us: Option<u32>,
    /// The drive had ended it.
    pub completed_us: Option<u32>,
    /// The last byte of its response was handed to the connection.
    pub ended_us: u32,
}

/// What a command had to wait for: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Schema)]
pub struct Waits(pub u8);

impl Waits {
    /// For nothing.
    pub const NONE: Self = Self(0);
    /// Data pages.
    pub const PAGES: Self = Self(1);
    /// Data that the host was asked for by R2T.
    pub const HOST_DATA: Self = Self(1 << 1);
    /// A place at the drive.
    pub const DRIVE: Self = Self(1 << 2);
    /// Blocks that a fused pair had for itself.
    pub const BLOCKS: Self = Self(1 << 3);
    /// The other command of its fused pair, or that pair's turn.
    pub const PAIR: Self = Self(1 << 4);
    /// Writes of its host's lost connections, or another core: a Connect.
    pub const FENCE: Self = Self(1 << 5);

    /// All kinds, with what an operator reads.
    pub const NAMES: [(Self, &'static str); 6] = [
        (Self::PAGES, "pages"),
        (Self::HOST_DATA, "host data"),
        (Self::DRIVE, "drive queue"),
        (Self::BLOCKS, "block lock"),
        (Self::PAIR, "fused pair"),
        (Self::FENCE, "fence"),
    ];

    /// Whether all of `other` are among them.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// One more.
    pub const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The names of all that it waited for.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(kind, _)| self.has(*kind)).map(|(_, name)| *name)
    }
}

/// Some traces of a log, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Schema)]
pub struct TracePage {
    /// None where there are no more.
    pub traces: Vec<CommandTrace, TRACES_OF_PAGE>,
    /// Traces between the one asked for and the first of these that are forgotten already.
    pub missed: u64,
    /// The number to ask for next.
    pub next: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::MESSAGE_BYTES;

    #[test]
    fn the_longest_page_is_well_within_a_message() {
        let late = Some(u32::MAX);
        let trace = CommandTrace {
            sequence: u64::MAX,
            controller: u16::MAX,
            queue: u16::MAX,
            cid: u16::MAX,
            opcode: u8::MAX,
            nsid: u32::MAX,
            first_block: u64::MAX,
            blocks: u32::MAX,
            end: TraceEnd::Answered { status: u16::MAX },
            stages: Stages {
                received_us: u64::MAX,
                asked_us: late,
                ready_us: late,
                submitted_us: late,
                completed_us: late,
                ended_us: u32::MAX,
            },
            waits: Waits(u8::MAX),
        };
        let traces = Vec::from_slice(&[trace; TRACES_OF_PAGE]).unwrap();
        let page = TracePage { traces, missed: u64::MAX, next: u64::MAX };
        assert!(postcard::to_stdvec(&page).unwrap().len() < MESSAGE_BYTES - 64);
    }

    #[test]
    fn waits_are_named() {
        let mut waits = Waits::NONE;
        waits.add(Waits::PAGES);
        waits.add(Waits::DRIVE);
        assert!(waits.names().eq(["pages", "drive queue"]));
        assert!(!waits.has(Waits::FENCE));
    }
}
