//! Why the card does not do what it was asked for.

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use super::Edition;
use crate::configuration::ChangeError;

/// Nothing was changed; the sentence says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Error {
    /// The two sides were built from different editions. Stays the first of the list, and as it is, so that all understand it.
    Edition {
        /// What the card speaks.
        card: Edition,
        /// What the client has said that it speaks.
        client: Edition,
    },
    /// Something was asked before [`super::Call::Hello`].
    NoHello,
    /// The bytes are no request.
    Malformed,
    /// More bytes than a request can have.
    TooLong,
    /// The card has no means to do what was asked.
    NotHere,
    /// There is no data core of this number.
    NoSuchCore {
        /// The number.
        core: u8,
        /// How many there are.
        cores: u8,
    },
    /// A data core has not answered.
    CoreSilent {
        /// Which.
        core: u8,
    },
    /// What is declared does not allow the change.
    Change(ChangeError),
    /// There is no room for what is declared.
    ConfigurationFull,
    /// The change is begun, and what it ends has not ended yet on a data core.
    ChangeUnderWay {
        /// Which.
        core: u8,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Edition { card, client } => write!(
                formatter,
                "the card speaks {card} of the mailbox, this tool {client}: use the tool that came with the card's firmware"
            ),
            Self::NoHello => {
                formatter.write_str("the card was asked before it was greeted: ask again from the beginning")
            }
            Self::Malformed => formatter.write_str(
                "the card could not read the request: another program may talk to it by the same line",
            ),
            Self::NotHere => formatter.write_str("this card cannot do that: a hosted card is a process, which whoever has started it starts again"),
            Self::NoSuchCore { core, cores } => {
                write!(formatter, "there is no data core {core}: the card has {cores}, counted from 0")
            }
            Self::CoreSilent { core } => write!(
                formatter,
                "data core {core} does not answer: it may be about to be restarted by the watchdog; try again, and look at the card's log"
            ),
            Self::Change(error) => error.fmt(formatter),
            Self::ConfigurationFull => formatter.write_str(
                "there is no room for more configuration: delete subsystems, or disallow hosts, that nobody needs",
            ),
            Self::ChangeUnderWay { core } => write!(
                formatter,
                "the change is begun, but commands that it ends are still at a drive of data core {core}: say it again until it is complete"
            ),
            Self::TooLong => {
                formatter.write_str("the request is longer than a mailbox slot: ask for less at once")
            }
        }
    }
}

impl core::error::Error for Error {}
