//! What is said: requests, responses, and what they are made of.

use heapless::{String, Vec};
use postcard_schema::Schema;
use postcard_schema::key::Key;
use serde::{Deserialize, Serialize};

use super::{CoreAnswer, CoreCall, Error};
use crate::Then;
use crate::configuration::ConfigurationChange;

/// Raised when what is said changes its meaning, although it may look the same.
const VERSION: u16 = 1;

/// Names, as far as an operator reads them; the longest is an NQN.
pub type Text = String<224>;

/// Cores that one answer tells of.
pub const MAX_CORES_OF_ANSWER: usize = 8;
/// Changes that one answer tells of.
pub const MAX_CHANGES_OF_ANSWER: usize = 2;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Request {
    /// The client's own; its response has it too.
    pub sequence: u32,
    /// What is asked.
    pub call: Call,
}

/// What the card sends, once for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Response {
    /// The request's; 0 where that could not be read.
    pub sequence: u32,
    /// What was asked for, or why there is none.
    pub result: Result<Answer, Error>,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Call {
    /// Begins to talk. Stays the first of the list, and as it is, so that all editions understand it.
    Hello(Edition),
    /// Who the card is, and how it is.
    Status,
    /// Its cores, from this number on: as many as an answer takes.
    Cores {
        /// The first to be told of.
        first: u8,
    },
    /// Ends the card in order, for good: hosts' commands are finished, caches flushed, drives told.
    End {
        /// What comes after it.
        then: Then,
    },
    /// What a data core has: its answer comes from there.
    Core {
        /// Its number among the data cores.
        core: u8,
        /// What it is asked.
        call: CoreCall,
    },
    /// Changes what is declared; answered when it holds on all data cores and, where there is a store, is stored. Asked again it
    /// does no harm.
    Change(ConfigurationChange),
    /// What is declared, as the changes that lead there.
    Configuration {
        /// The first to be told of, counted from 0.
        first: u16,
    },
}

/// What the card answers.
#[allow(clippy::large_enum_variant, reason = "one exists at a time, and there is no heap to box it in")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Answer {
    /// To [`Call::Hello`].
    Hello(Edition),
    /// To [`Call::Status`].
    Status(Status),
    /// To [`Call::Cores`].
    Cores(Cores),
    /// To [`Call::End`]: it has begun, perhaps by an earlier request, whose is what comes after it.
    Ending {
        /// What that is.
        then: Then,
    },
    /// To [`Call::Core`].
    Core(CoreAnswer),
    /// To [`Call::Change`].
    Changed(Kept),
    /// To [`Call::Configuration`]: none where there are no more.
    Configuration(Vec<ConfigurationChange, MAX_CHANGES_OF_ANSWER>),
}

/// How long a change that was made lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Kept {
    /// It is stored.
    Stored,
    /// Until the next reset: there is no store.
    UntilReset,
    /// Until the next reset: the store has failed, and has the configuration before it.
    StoreFailed,
}

/// Which edition of the mailbox somebody speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Edition {
    /// Its number.
    pub version: u16,
    /// A hash of all that can be said.
    pub fingerprint: u64,
}

impl Edition {
    /// That of this file.
    pub const HERE: Self = Self { version: VERSION, fingerprint: fingerprint() };
}

const fn fingerprint() -> u64 {
    let request = Key::for_path::<Request>("request").to_bytes();
    let response = Key::for_path::<Response>("response").to_bytes();
    u64::from_le_bytes(request) ^ u64::from_le_bytes(response).rotate_left(1)
}

impl core::fmt::Display for Edition {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "version {} ({:016x})", self.version, self.fingerprint)
    }
}

/// Who the card is, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Status {
    /// The firmware's version.
    pub version: String<32>,
    /// The board that it was built for.
    pub board: String<32>,
    /// The core plan.
    pub plan: String<32>,
    /// Time since the card started, in microseconds.
    pub uptime_us: u64,
    /// How many cores the plan has.
    pub cores: u8,
    /// How many of them are data cores.
    pub data_cores: u8,
    /// Crashes since power-on, and of them those in a row that the card has not served after.
    pub crashes: u32,
    /// See [`Self::crashes`].
    pub crashes_in_a_row: u32,
    /// Whether what is set is still so after the next reset.
    pub configuration_is_stored: bool,
}

/// Some of the card's cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Cores {
    /// In the order of their numbers; none where there are no more.
    pub cores: Vec<Core, MAX_CORES_OF_ANSWER>,
}

/// A core, and how its time was spent since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Core {
    /// Its number.
    pub number: u8,
    /// What it runs.
    pub roles: Roles,
    /// Turns in which there was work.
    pub productive_turns: u64,
    /// Turns in which there was none.
    pub empty_turns: u64,
    /// How often it slept.
    pub sleeps: u64,
    /// Time asleep, in microseconds.
    pub asleep_us: u64,
    /// The longest turn, in microseconds.
    pub longest_turn_us: u32,
}

/// What a core runs.
pub type Roles = Vec<Role, 5>;

/// The code that polls one kind of queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Role {
    /// The operator's line, slots, the mailbox.
    Control,
    /// Ethernet ports and hosts.
    Net,
    /// Drives.
    Drive,
    /// A server's PCIe endpoint.
    Host,
    /// Accelerators.
    Offload,
}

impl Role {
    /// As core plans name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Net => "net",
            Self::Drive => "drive",
            Self::Host => "host",
            Self::Offload => "offload",
        }
    }
}
