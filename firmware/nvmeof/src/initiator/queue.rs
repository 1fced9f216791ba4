//! A connection to a target, which is an NVMe queue.

use core::borrow::BorrowMut;

use nvme::{Command, SglDescriptor, Status};
use zerocopy::little_endian::{U16, U32, U64};

use super::fault::Fault;
use super::receive::Receiver;
use super::send::Sender;
use super::slots::{List, Slot, Slots, State, Transfer};
use crate::pdu::{Digests, IN_CAPSULE_BYTES};
use crate::stream::Stream;

/// The caller's memory: what commands read into and write from. A command is named by the token that it was
/// submitted with; offsets count from the start of its data and never pass its end.
pub trait Payload {
    /// Data came for a command: the next piece, in order.
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]);

    /// Data of a command is to be sent: fill all of `room`. Pieces are asked for in order.
    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]);
}

/// What a host asks for in ICReq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueOptions {
    /// DGST: a target that does not agree to exactly these ends the connection.
    pub digests: Digests,
    /// HPDA: alignment of data from the target, in dwords less one, 0 to 31.
    pub alignment: u8,
}

/// A command that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// What it was submitted with.
    pub token: u64,
    /// Its status; Transient Transport Error where its data came with a wrong digest.
    pub status: Status,
    /// Dwords 0 and 1 of the completion.
    pub result: u64,
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitError {
    /// All slots are in use.
    Full,
    /// The connection is over.
    Ended,
    /// No bytes, or more in the capsule than a capsule holds.
    InvalidTransfer,
}

/// FUSE of the commands of a fused pair (Base 3.3.3.1).
const FUSE_FIRST: u8 = 0b01;
const FUSE_SECOND: u8 = 0b10;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// ICReq goes out, ICResp has not come.
    Initializing,
    /// Capsules travel.
    Live,
    /// Nothing is believed any more.
    Ended(Fault),
}

/// A queue of a controller, seen from the host. `S` is the table of command slots: an array, a slice, a `Vec`.
///
/// A queue needs one entry more than it has slots where SQ flow control is on: with SQSIZE = slots (zero-based) in
/// Connect it cannot overflow, so that SQHD needs no keeping.
#[derive(Debug)]
pub struct HostQueue<S> {
    pub(super) slots: Slots<S>,
    pub(super) phase: Phase,
    pub(super) options: QueueOptions,
    /// Those in force: none before ICResp.
    pub(super) digests: Digests,
    /// What data to the target is aligned to, in bytes.
    pub(super) data_alignment: usize,
    /// MAXH2CDATA.
    pub(super) max_data_bytes: u32,
    /// Connect's response said that there is no SQ flow control.
    pub(super) flow_control_off: bool,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    pub(super) to_send: List,
    pub(super) done: List,
}

impl<S: BorrowMut<[Slot]>> HostQueue<S> {
    /// A queue for a new connection. What stood in the slots is forgotten.
    pub fn new(slots: S, options: QueueOptions) -> Self {
        let options = QueueOptions { alignment: options.alignment.min(31), ..options };
        Self {
            slots: Slots::new(slots),
            phase: Phase::Initializing,
            options,
            digests: Digests::default(),
            data_alignment: 4,
            max_data_bytes: 4096,
            flow_control_off: false,
            receiver: Receiver::new(),
            sender: Sender::initialize(options),
            to_send: List::EMPTY,
            done: List::EMPTY,
        }
    }

    /// Gives the table of slots back, for a new connection.
    pub fn into_slots(self) -> S {
        self.slots.into_table()
    }

    /// Starts a command: it goes out with the next polls. CID, PSDT and the SGL descriptor are filled in here.
    /// Commands may be submitted before the connection is initialised.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing has happened then.
    pub fn submit(&mut self, token: u64, command: &Command, transfer: Transfer) -> Result<(), SubmitError> {
        self.check(&[transfer])?;
        self.queue_capsule(token, command, transfer);
        Ok(())
    }

    /// Starts a fused pair (Base 3.4.2), whose capsules go out one behind the other. FUSE too is filled in here. Each of the two
    /// commands has an end of its own.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing has happened then to either.
    pub fn submit_fused(
        &mut self,
        first: (u64, &Command, Transfer),
        second: (u64, &Command, Transfer),
    ) -> Result<(), SubmitError> {
        self.check(&[first.2, second.2])?;
        for (fuse, (token, command, transfer)) in [(FUSE_FIRST, first), (FUSE_SECOND, second)] {
            let command = Command { flags: fuse, ..*command };
            self.queue_capsule(token, &command, transfer);
        }
        Ok(())
    }

    /// Whether commands with these transfers can be taken, all of them.
    fn check(&self, transfers: &[Transfer]) -> Result<(), SubmitError> {
        if self.ended() {
            return Err(SubmitError::Ended);
        }
        let is_wrong = |transfer: &Transfer| match *transfer {
            Transfer::None => false,
            Transfer::SendInCapsule(bytes) => bytes == 0 || bytes > IN_CAPSULE_BYTES,
            Transfer::Receive(bytes) | Transfer::Send(bytes) => bytes == 0,
        };
        if transfers.iter().any(is_wrong) {
            return Err(SubmitError::InvalidTransfer);
        }
        let free = self.slots.total().saturating_sub(self.slots.in_use());
        if free < transfers.len() { Err(SubmitError::Full) } else { Ok(()) }
    }

    /// Puts a command that was checked behind all others that wait to be sent.
    fn queue_capsule(&mut self, token: u64, command: &Command, transfer: Transfer) {
        let Some(index) = self.slots.take() else { return };
        let cid = self.slots.cid(index);
        let in_capsule = matches!(transfer, Transfer::SendInCapsule(_));
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::CapsuleQueued;
            slot.token = token;
            slot.transfer = transfer;
            slot.command = *command;
            slot.command.cid = U16::new(cid);
            slot.command.set_sgl(SglDescriptor {
                address: U64::new(0),
                length: U32::new(transfer.bytes()),
                reserved: [0; 3],
                identifier: if in_capsule { SglDescriptor::IN_CAPSULE } else { SglDescriptor::TRANSPORT },
            });
        }
        self.slots.push(&mut self.to_send, index);
    }

    /// The CID of a command that has been sent and has not ended, for an Abort.
    #[must_use]
    pub fn cid_of(&self, token: u64) -> Option<u16> {
        self.slots.of_token(token).map(|index| self.slots.cid(index))
    }

    /// Receives and sends what there is. Call it when bytes or room came, and after submitting; then take the
    /// completions. Returns how many bytes moved.
    ///
    /// # Errors
    /// [`Fault`], at this and every later call. The connection is to be closed then, once
    /// [`HostQueue::has_output`] is false or patience ends: a TermReq may still be on its way out.
    pub fn poll(&mut self, stream: &mut impl Stream, payload: &mut impl Payload) -> Result<usize, Fault> {
        let mut moved = 0;
        loop {
            let received = stream.receive(|bytes| self.parse(bytes, payload));
            if received == 0 {
                break;
            }
            moved += received;
        }
        loop {
            let sent = stream.send(|room| self.fill_room(room, payload));
            if sent == 0 {
                break;
            }
            moved += sent;
        }
        match self.phase {
            Phase::Ended(fault) => Err(fault),
            _ => Ok(moved),
        }
    }

    /// The next command that ended, in the order in which they did. Its slot is free then.
    pub fn take_completed(&mut self) -> Option<Completed> {
        let mut done = self.done;
        let index = self.slots.pop(&mut done)?;
        self.done = done;
        let slot = self.slots.get(index)?;
        let completed = Completed { token: slot.token, status: slot.status, result: slot.result };
        self.slots.give_back(index);
        Some(completed)
    }

    /// Gives the connection up, where it is not over yet, and names a command without an answer, until there is none
    /// left. Whether the target has carried it out is not known. Nothing is sent any more.
    pub fn take_abandoned(&mut self) -> Option<u64> {
        if !self.ended() {
            self.phase = Phase::Ended(Fault::Abandoned);
        }
        self.sender.stop();
        self.to_send = List::EMPTY;
        self.done = List::EMPTY;
        let index = self.slots.any_in_use()?;
        let token = self.slots.get(index)?.token;
        self.slots.give_back(index);
        Some(token)
    }

    /// Whether ICReq and ICResp have been exchanged and the connection is not over.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether something waits to be sent.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.sender.is_busy() || (self.phase == Phase::Live && !self.to_send.is_empty())
    }

    /// Commands without an answer, and answers that were not taken.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.in_use()
    }

    /// How many commands there can be at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.total()
    }

    /// Whether the target agreed to do without SQ flow control (CATTR bit 2 of Connect).
    #[must_use]
    pub const fn flow_control_is_off(&self) -> bool {
        self.flow_control_off
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }
}
