//! A connection, which is an NVMe queue: what is known of it between two polls.

use core::net::IpAddr;
use core::time::Duration;

use controller::{PortId, QueueContext, SubsystemPlace};
use hal_api::Instant;
use hal_mem::Cursor;
use message::LostList;

use crate::fused::LastCapsule;
use crate::outgoing::Outgoing;
use crate::pdu::{Digests, Fatal};
use crate::slots::{Fifo, NONE};

/// How long a new connection may take until its ICReq, and from there until its Connect, is complete.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a PDU may take from its first byte to its last: at most 128 KiB, so that a byte a second is no progress.
pub const PDU_TIMEOUT: Duration = Duration::from_secs(30);
/// How long all data that one R2T asked for may take. A Linux host gives its own command up after 30 s.
pub const DATA_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a host may take to accept one PDU. A host that takes nothing for a minute is endured.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a host may take to close a connection after a TermReq.
pub const TERMINATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not in use.
    Free,
    /// Open, nothing heard.
    AwaitingInitialize,
    /// Digests are agreed, the host has not connected to a controller.
    AwaitingConnect,
    /// A queue of a controller.
    Live,
    /// The card shuts down: no command is taken any more, those inside are finished, then it is closed.
    Finishing,
    /// Everything queued is sent, then the connection is closed.
    Closing,
    /// A TermReq is sent; the host has to close.
    Terminating,
    /// The connection is gone; commands at drives are not.
    Draining,
}

/// What a parked Connect waits for, on other cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectStep {
    /// Nobody was asked yet.
    First,
    /// The arrivals of this number: all frames that came before the Connect are taken in, or passed on to the cores that they belong to.
    Passing(u32),
    /// They are: the fence can begin.
    Passed,
    /// The fence of this number: what was passed on is taken in, and lost connections have no writes at drives.
    Fencing(u32),
    /// Nothing more: no other core has writes of the host's lost connections.
    Fenced,
    /// The answer of the controller's home to this ticket.
    Asking(u32),
}

/// What of a PDU comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Header,
    /// Padding, data, data digest, as [`Receiver`] counts them.
    Body,
    /// Nothing is looked at any more.
    Ignore,
}

/// The PDU that is arriving.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub stage: Stage,
    /// A header in pieces, or a data digest in pieces.
    pub buffer: [u8; 128],
    pub filled: u8,
    /// The command that the body belongs to, or [`NONE`]: then it is thrown away.
    pub slot: u16,
    pub pad_left: u8,
    pub data_left: u32,
    /// How many of the bytes are stored; the rest is thrown away.
    pub keep_left: u32,
    pub digest: bool,
    pub crc: u32,
    /// The body is the last of its command's data.
    pub last: bool,
    /// The body ends a TermReq, after which the connection is closed.
    pub ends_connection: bool,
}

/// What is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    Nothing,
    Initialize,
    Terminate,
    ReadyToTransfer,
    /// Data; `complete` when no response capsule follows.
    Data {
        complete: bool,
    },
    Response,
}

/// The PDU that is being sent, and those that are not of a command.
#[derive(Debug)]
pub(crate) struct Sender {
    pub sending: Sending,
    pub slot: u16,
    pub pdu: Outgoing,
    /// Where its data stands.
    pub cursor: Cursor,
    /// An ICResp waits to be sent.
    pub initialize: bool,
    /// A TermReq waits to be sent.
    pub terminate: Option<Fatal>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Queue {
    pub phase: Phase,
    pub peer: Option<IpAddr>,
    /// The port that it has come to.
    pub port: PortId,
    /// When the phase has to be over.
    pub deadline: Instant,
    /// When the PDU that is arriving has to be complete.
    pub pdu_deadline: Instant,
    /// When to look whether data that an R2T asked for, or a pair's second command, is late: not after the oldest has
    /// to be here.
    pub data_deadline: Instant,
    /// When the PDU that is being sent has to be in the send buffer.
    pub send_deadline: Instant,
    pub digests: Digests,
    /// What data in C2HData is aligned to, in bytes: 4 to 128.
    pub alignment: u8,
    pub context: Option<QueueContext>,
    /// The controller's CNTLID, for as long as commands of the queue are at drives.
    pub cntlid: u16,
    pub host_id: [u8; 16],
    /// The subsystem of its controller.
    pub subsystem: SubsystemPlace,
    pub entries: u16,
    pub sq_head: u16,
    pub flow_control: bool,
    /// Slots promised to the connection, taken or not.
    pub reserved_slots: u16,
    /// Slots taken.
    pub outstanding: u16,
    pub at_backend: u16,
    /// Those of them that change blocks.
    pub writes_at_backend: u16,
    pub parked: u16,
    pub parked_connect: Option<u16>,
    pub connect_step: ConnectStep,
    /// Losses that the host that connects has not heard of, from other cores.
    pub inherited: LostList,
    /// Commands whose R2T is out.
    pub receiving: u16,
    /// In-capsule pages promised to the connection, lent to commands or not.
    pub reserved_pages: u32,
    /// Those not lent.
    pub reserved_left: u32,
    /// Pages of the general class that its commands hold.
    pub general_pages: u32,
    pub to_send: Fifo,
    pub waiting_for_pages: Fifo,
    pub waiting_for_backend: Fifo,
    /// Those whose blocks a pair has.
    pub waiting_for_blocks: Fifo,
    /// Fused pairs, each by the command that comes next, that wait for blocks or for the backend.
    pub waiting_pairs: Fifo,
    pub last_capsule: LastCapsule,
    pub receiver: Receiver,
    pub sender: Sender,
    /// How many outstanding commands have a CID that falls there: a duplicate can only be where one is.
    pub cids: [u8; 256],
}

/// Where a CID is counted. Hosts keep an index in the low bits, and a generation, if anything, in the high ones.
pub(crate) const fn cid_place(cid: u16) -> usize {
    cid as u8 as usize
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::Free,
            peer: None,
            port: PortId::FIRST,
            deadline: Instant::FAR_FUTURE,
            pdu_deadline: Instant::FAR_FUTURE,
            data_deadline: Instant::FAR_FUTURE,
            send_deadline: Instant::FAR_FUTURE,
            digests: Digests { header: false, data: false },
            alignment: 4,
            context: None,
            cntlid: 0,
            host_id: [0; 16],
            subsystem: SubsystemPlace::DISCOVERY,
            entries: 0,
            sq_head: 0,
            flow_control: true,
            reserved_slots: 0,
            outstanding: 0,
            at_backend: 0,
            writes_at_backend: 0,
            parked: 0,
            parked_connect: None,
            connect_step: ConnectStep::First,
            inherited: LostList::EMPTY,
            receiving: 0,
            reserved_pages: 0,
            reserved_left: 0,
            general_pages: 0,
            to_send: Fifo::EMPTY,
            waiting_for_pages: Fifo::EMPTY,
            waiting_for_backend: Fifo::EMPTY,
            waiting_for_blocks: Fifo::EMPTY,
            waiting_pairs: Fifo::EMPTY,
            last_capsule: LastCapsule::Other,
            receiver: Receiver {
                stage: Stage::Header,
                buffer: [0; 128],
                filled: 0,
                slot: NONE,
                pad_left: 0,
                data_left: 0,
                keep_left: 0,
                digest: false,
                crc: 0,
                last: false,
                ends_connection: false,
            },
            sender: Sender {
                sending: Sending::Nothing,
                slot: NONE,
                pdu: Outgoing::NONE,
                cursor: Cursor::NONE,
                initialize: false,
                terminate: None,
            },
            cids: [0; 256],
        }
    }

    /// The earliest moment at which something of the connection is overdue.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.deadline.min(self.pdu_deadline).min(self.data_deadline).min(self.send_deadline)
    }

    /// Whether the connection has a peer to talk to.
    pub(crate) const fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Free | Phase::Draining)
    }

    /// Whether commands may still go to drives.
    pub(crate) const fn carries_out(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::Finishing)
    }

    /// Whether writes at drives are of a queue that is, or is about to be, no more.
    pub(crate) const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Terminating | Phase::Draining)
    }

    /// Which queue of its controller it is.
    pub(crate) fn queue_id(&self) -> Option<u16> {
        self.context.map(|context| context.queue_id)
    }

    /// Whether it is an I/O queue.
    pub(crate) fn is_io(&self) -> bool {
        self.queue_id().is_some_and(|queue_id| queue_id > 0)
    }

    /// Nothing more is read; what is queued is sent; then the connection is closed.
    pub(crate) fn start_closing(&mut self, now: Instant) {
        self.receiver.stage = Stage::Ignore;
        self.phase = Phase::Closing;
        self.deadline = now + TERMINATE_TIMEOUT;
    }

    /// Whether it can be closed as soon as all output is sent. Parked event requests never end by themselves.
    pub(crate) fn is_finished(&self) -> bool {
        match self.phase {
            Phase::Closing => true,
            Phase::Finishing => self.outstanding <= self.parked,
            _ => false,
        }
    }

    /// Whether commands wait for pages or for the backend.
    pub(crate) const fn is_waiting(&self) -> bool {
        !self.waiting_for_pages.is_empty()
            || !self.waiting_for_backend.is_empty()
            || !self.waiting_for_blocks.is_empty()
            || !self.waiting_pairs.is_empty()
    }

    /// Whether a PDU is being sent or queued.
    pub(crate) fn has_output(&self) -> bool {
        let sender = &self.sender;
        sender.sending != Sending::Nothing
            || sender.terminate.is_some()
            || sender.initialize
            || (self.phase != Phase::Terminating && !self.to_send.is_empty())
    }

    pub(crate) fn sq_head_for_response(&self) -> u16 {
        // SQHD is reserved once SQ flow control is off (Base 3.3.3.2).
        if self.flow_control { self.sq_head } else { 0 }
    }
}
