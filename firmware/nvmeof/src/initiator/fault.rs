//! Why a connection to a target cannot go on.

use crate::pdu::{Fatal, FatalStatus};

/// What ends a connection. What a target does wrong is answered by an H2CTermReq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A PDU of this PDU-Type does not belong here.
    UnexpectedPdu {
        /// PDU-Type.
        kind: u8,
    },
    /// A field of a header is wrong.
    Field {
        /// PDU-Type.
        kind: u8,
        /// Where the field stands in the PDU.
        offset: u32,
    },
    /// ICResp does not agree to what was asked for.
    Unsupported {
        /// Where the parameter stands in the PDU.
        offset: u32,
    },
    /// The header digest does not fit.
    HeaderDigest {
        /// The digest that came.
        received: u32,
    },
    /// A CID that no command at the target has.
    UnknownCommand {
        /// CCCID or CID.
        cid: u16,
    },
    /// Data, or a request for data, for a command that moves none in this direction.
    WrongDirection {
        /// CCCID.
        cid: u16,
    },
    /// Data, or a request for data, that does not go on where the last one ended, or ends beyond the command's.
    OutOfRange {
        /// CCCID.
        cid: u16,
    },
    /// A request for data while another one of the command is open; ICReq allows one.
    SecondRequest {
        /// CCCID.
        cid: u16,
    },
    /// The command ended while the target still waits for data that it asked for.
    EarlyResponse {
        /// CID.
        cid: u16,
    },
    /// The command succeeded and not all of its data came or was asked for.
    MissingData {
        /// CID.
        cid: u16,
    },
    /// SUCCESS in a data PDU that may not have it: not the last one, or a queue with SQ flow control.
    UnexpectedSuccess {
        /// CCCID.
        cid: u16,
    },
    /// The caller gave the connection up ([`super::HostQueue::take_abandoned`]).
    Abandoned,
    /// The target gave up with a C2HTermReq.
    Terminated {
        /// FES.
        status: u16,
        /// FEI.
        information: u32,
    },
}

impl Fault {
    /// What an H2CTermReq says of it (TCP 3.6.2.4); `None` where none is due.
    pub(super) const fn fatal(self) -> Option<Fatal> {
        Some(match self {
            Self::Abandoned | Self::Terminated { .. } => return None,
            Self::UnexpectedPdu { .. } | Self::EarlyResponse { .. } | Self::SecondRequest { .. } => {
                Fatal::plain(FatalStatus::SequenceError)
            }
            Self::Field { offset, .. } => Fatal::field(offset),
            Self::Unsupported { offset } => {
                Fatal { status: FatalStatus::UnsupportedParameter, information: offset }
            }
            Self::HeaderDigest { received } => {
                Fatal { status: FatalStatus::HeaderDigestError, information: received }
            }
            Self::UnknownCommand { .. } | Self::WrongDirection { .. } => {
                Fatal::field(crate::pdu::offset::CID)
            }
            Self::OutOfRange { .. } | Self::MissingData { .. } => Fatal::plain(FatalStatus::DataOutOfRange),
            Self::UnexpectedSuccess { .. } => Fatal::field(crate::pdu::offset::FLAGS),
        })
    }
}
