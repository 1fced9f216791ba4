//! What can go wrong, a sentence for each, and what kind of thing it is.

use nvme::Status;
use nvmeof::initiator::{BringUpError, Fault, Step, SubmitError};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a target could not be used, or what it did wrong. The sentences say what to do where something can be done.
#[derive(Debug)]
pub enum Error {
    /// No connection to that address.
    Unreachable(SocketAddr, io::Error),
    /// The connection broke.
    Broken(io::Error),
    /// The target closed the connection.
    Closed,
    /// Something took too long.
    Slow(String, Duration),
    /// The connection came up, the controller did not.
    NoController(BringUpError),
    /// The target broke the protocol, or said that this host has.
    Fault(Fault),
    /// An NQN without a byte, or with too many.
    Nqn(String),
    /// The controller grants fewer I/O queues than wanted.
    Queues {
        /// So many it grants.
        granted: u16,
        /// So many were wanted.
        wanted: u16,
    },
    /// The controller's queues hold fewer commands than wanted.
    Depth {
        /// So many they hold.
        most: u32,
        /// So many were wanted.
        wanted: u16,
    },
    /// There is no such namespace; these there are.
    Namespace(Option<u32>, Vec<u32>),
    /// The wanted load does not fit the namespace or the controller.
    Load(String),
    /// A command ended with this status.
    Command(String, Status),
    /// A command could not be started.
    NotTaken(SubmitError),
    /// An answer has not the form that it must have.
    Malformed(&'static str),
    /// What was read is not what was written.
    Mismatch {
        /// The namespace.
        nsid: u32,
        /// The first block of the command.
        start_block: u64,
        /// The block with the first wrong byte.
        block: u64,
        /// That byte, from the block's start.
        offset: usize,
        /// The seed of what was written.
        seed: u64,
    },
    /// A thread of this program panicked.
    Panicked,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The target is not there, does not answer, or has gone.
    Unavailable,
    /// It answers and does not do what was asked for.
    Refused,
    /// It does not keep to the protocol.
    Protocol,
    /// Data is wrong.
    Data,
    /// What was asked for makes no sense there.
    Usage,
}

impl Error {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Unreachable(..) | Self::Broken(_) | Self::Closed | Self::Slow(..) | Self::Panicked => {
                Kind::Unavailable
            }
            Self::NoController(BringUpError::Refused { .. })
            | Self::Queues { .. }
            | Self::Depth { .. }
            | Self::Command(..) => Kind::Refused,
            Self::NoController(BringUpError::FatalStatus | BringUpError::NotReady) => Kind::Unavailable,
            Self::NoController(_) | Self::Fault(_) | Self::NotTaken(_) | Self::Malformed(_) => Kind::Protocol,
            Self::Mismatch { .. } => Kind::Data,
            Self::Nqn(_) | Self::Namespace(..) | Self::Load(_) => Kind::Usage,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(address, error) => {
                write!(to, "no connection to {address}: {error}; is this the target's address and port?")
            }
            Self::Broken(error) => write!(to, "the connection broke: {error}"),
            Self::Closed => to.write_str("the target closed the connection: its log may say why"),
            Self::Slow(what, limit) => write!(to, "{what} takes longer than {limit:?}"),
            Self::NoController(error) => no_controller(*error, to),
            Self::Fault(Fault::Unsupported { offset: 11 }) => {
                to.write_str("the target does not agree to these digests: try others, or none")
            }
            Self::Fault(fault) => write!(to, "the target does not keep to NVMe/TCP: {fault:?}"),
            Self::Nqn(nqn) => write!(to, "`{nqn}` is no NQN: it has 1 to 223 bytes"),
            Self::Queues { granted, wanted } => {
                write!(to, "the controller grants {granted} I/O queues, not {wanted}: use fewer connections")
            }
            Self::Depth { most, wanted } => {
                write!(to, "the controller's queues hold {most} commands, not {wanted}: use a smaller depth")
            }
            Self::Namespace(nsid, there) => no_namespace(*nsid, there, to),
            Self::Load(why) => to.write_str(why),
            Self::Command(what, status) => write!(to, "{what}: the target ends it with {status:?}"),
            Self::NotTaken(error) => write!(to, "a command could not be started: {error:?}"),
            Self::Malformed(what) => write!(to, "{what} of the target makes no sense"),
            Self::Mismatch { nsid, start_block, block, offset, seed } => write!(
                to,
                "wrong data: block {block} of namespace {nsid} is not what was written there, from byte {offset} on \
                 (read from block {start_block} on, seed {seed})"
            ),
            Self::Panicked => to.write_str("a thread of this program panicked"),
        }
    }
}

fn no_controller(error: BringUpError, to: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        BringUpError::Refused { step: Step::Connect, status, .. } => {
            let what = match status.code() {
                Status::CONNECT_INVALID_HOST => "is this host allowed to use the subsystem?",
                Status::CONNECT_INVALID_PARAMETERS => "is this the NQN of one of its subsystems?",
                Status::CONNECT_CONTROLLER_BUSY => "it has no room now, try again later",
                _ => "its log may say why",
            };
            write!(to, "the target refuses the connection with {status:?}: {what}")
        }
        BringUpError::Refused { step, status, .. } => {
            write!(to, "the controller does not come up: it ends {step:?} with {status:?}")
        }
        BringUpError::FatalStatus => to.write_str("the controller has failed (CSTS.CFS)"),
        BringUpError::NotReady => {
            to.write_str("the controller does not become ready in the time it promises")
        }
        BringUpError::Invalid { step } => write!(to, "what the controller says makes no sense ({step:?})"),
        BringUpError::NotTaken => to.write_str("the connection took no command"),
    }
}

fn no_namespace(nsid: Option<u32>, there: &[u32], to: &mut fmt::Formatter<'_>) -> fmt::Result {
    let there: Vec<String> = there.iter().map(u32::to_string).collect();
    match nsid {
        Some(nsid) if !there.is_empty() => {
            write!(to, "there is no namespace {nsid}: there are {}", there.join(", "))
        }
        _ => to.write_str("the subsystem has no namespace that this host can see"),
    }
}
