//! What is sent: one PDU after the other, each in as many pieces as the send buffer has room for.
//!
//! Data goes from the caller's memory straight into the send buffer.

use core::borrow::BorrowMut;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::queue::{HostQueue, Payload, Phase, QueueOptions};
use super::slots::{NONE, Slot, State, Transfer};
use crate::outgoing::Outgoing;
use crate::pdu::{
    CommandCapsule, CommonHeader, DIGEST_BYTES, DataHeader, Fatal, Initialize, MAX_QUOTED_BYTES, Terminate,
    flags, kind, put,
};

/// The PDU that is being sent, and one that ends the connection.
#[derive(Debug)]
pub(super) struct Sender {
    pdu: Outgoing,
    /// Whose PDU it is.
    slot: u16,
    /// A TermReq waits for the end of the PDU before it; nothing follows it.
    terminate: Option<Terminate>,
    quote: [u8; MAX_QUOTED_BYTES],
    quote_bytes: usize,
}

impl Sender {
    /// Begins with an ICReq (TCP 3.6.2.2) that allows one open R2T for a command.
    pub(super) fn initialize(options: QueueOptions) -> Self {
        let mut sender =
            Self { pdu: Outgoing::NONE, slot: NONE, terminate: None, quote: [0; _], quote_bytes: 0 };
        let request = Initialize {
            common: CommonHeader::of(kind::INITIALIZE_REQUEST, size_of::<Initialize>()),
            format: U16::new(0),
            alignment: options.alignment,
            digests: options.digests.to_field(),
            limit: U32::new(0),
            reserved: [0; 112],
        };
        sender.start(NONE, &request, false);
        sender
    }

    /// Lets an H2CTermReq (TCP 3.6.2.4) with the wrong header follow the PDU that is under way.
    pub(super) fn terminate(&mut self, fatal: Fatal, quote: &[u8]) {
        self.quote_bytes = put(&mut self.quote, quote);
        let mut common = CommonHeader::of(kind::HOST_TERMINATE, size_of::<Terminate>());
        common.total_bytes = U32::new((size_of::<Terminate>() + self.quote_bytes) as u32);
        self.terminate = Some(Terminate {
            common,
            status: U16::new(fatal.status as u16),
            information: U32::new(fatal.information),
            reserved: [0; 10],
        });
    }

    /// Forgets what is under way.
    pub(super) fn stop(&mut self) {
        self.terminate = None;
        self.slot = NONE;
        self.pdu.stop();
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.pdu.is_done() || self.terminate.is_some()
    }

    fn start(&mut self, slot: u16, header: &(impl IntoBytes + Immutable), digest: bool) {
        self.slot = slot;
        self.pdu.start(header, digest);
    }
}

impl<S: BorrowMut<[Slot]>> HostQueue<S> {
    /// Fills `room` with what is to be sent and returns how many bytes that was.
    pub(super) fn fill_room(&mut self, room: &mut [u8], payload: &mut impl Payload) -> usize {
        let mut at = 0;
        loop {
            if !self.sender.pdu.is_done() {
                let Some(rest) = room.get_mut(at..) else { break };
                at += self.emit(rest, payload);
                if !self.sender.pdu.is_done() {
                    break;
                }
                self.sent();
            }
            if at >= room.len() || !self.start_next() {
                break;
            }
        }
        at
    }

    /// Puts as much of the current PDU into `room` as fits.
    fn emit(&mut self, room: &mut [u8], payload: &mut impl Payload) -> usize {
        let Self { sender, slots, .. } = self;
        let index = sender.slot;
        sender.pdu.emit(room, |rest| {
            if let Some(slot) = slots.get_mut(index) {
                payload.load(slot.token, slot.moved_bytes, rest);
                slot.moved_bytes = slot.moved_bytes.saturating_add(rest.len() as u32);
            }
        })
    }

    /// The last byte of the current PDU is in the send buffer.
    fn sent(&mut self) {
        let index = core::mem::replace(&mut self.sender.slot, NONE);
        let Some(slot) = self.slots.get_mut(index) else { return };
        match slot.state {
            State::DataSending if slot.moved_bytes < slot.asked_end => {
                slot.state = State::DataQueued;
                let mut to_send = self.to_send;
                self.slots.push(&mut to_send, index);
                self.to_send = to_send;
            }
            _ => slot.state = State::AtTarget,
        }
    }

    /// Prepares the next PDU; false when there is none.
    fn start_next(&mut self) -> bool {
        if let Some(request) = self.sender.terminate.take() {
            let (quote, bytes) = (self.sender.quote, self.sender.quote_bytes);
            self.sender.start(NONE, &request, false);
            self.sender.pdu.append(quote.get(..bytes).unwrap_or_default());
            return true;
        }
        if self.phase != Phase::Live {
            return false;
        }
        let mut to_send = self.to_send;
        let next = self.slots.pop(&mut to_send);
        self.to_send = to_send;
        let Some(index) = next else { return false };
        let Some(slot) = self.slots.get(index).copied() else { return false };
        let state = if slot.state == State::DataQueued {
            self.start_data(index, &slot);
            State::DataSending
        } else {
            self.start_capsule(index, &slot);
            State::CapsuleSending
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = state;
        }
        true
    }

    /// CapsuleCmd (TCP 3.6.2.6), with its data where that goes along.
    fn start_capsule(&mut self, index: u16, slot: &Slot) {
        let bytes = match slot.transfer {
            Transfer::SendInCapsule(bytes) => bytes,
            _ => 0,
        };
        let (common, data_at) = self.common(kind::COMMAND, size_of::<CommandCapsule>(), bytes);
        let capsule = CommandCapsule { common, command: slot.command };
        self.sender.start(index, &capsule, self.digests.header);
        if bytes > 0 {
            self.sender.pdu.add_data(data_at, bytes, self.digests.data);
        }
    }

    /// H2CData (TCP 3.6.2.8): as much of what the R2T asked for as one PDU may have.
    fn start_data(&mut self, index: u16, slot: &Slot) {
        let left = slot.asked_end.saturating_sub(slot.moved_bytes);
        let bytes = left.min(self.max_data_bytes);
        let (mut common, data_at) = self.common(kind::HOST_DATA, size_of::<DataHeader>(), bytes);
        if bytes == left {
            common.flags |= flags::LAST;
        }
        let data = DataHeader {
            common,
            cid: slot.command.cid,
            tag: U16::new(slot.tag),
            offset: U32::new(slot.moved_bytes),
            length: U32::new(bytes),
            reserved: [0; 4],
        };
        self.sender.start(index, &data, self.digests.header);
        self.sender.pdu.add_data(data_at, bytes, self.digests.data);
    }

    /// The common header of a PDU with so much data, and where the data stands.
    fn common(&self, kind: u8, bytes: usize, data_bytes: u32) -> (CommonHeader, usize) {
        let mut common = CommonHeader::of(kind, bytes);
        let mut header_bytes = bytes;
        if self.digests.header {
            common.flags |= flags::HEADER_DIGEST;
            header_bytes += DIGEST_BYTES;
        }
        if data_bytes == 0 {
            common.total_bytes = U32::new(header_bytes as u32);
            return (common, header_bytes);
        }
        let data_at = header_bytes.next_multiple_of(self.data_alignment);
        let mut total = data_at as u32 + data_bytes;
        if self.digests.data {
            common.flags |= flags::DATA_DIGEST;
            total += DIGEST_BYTES as u32;
        }
        common.data_offset = data_at as u8;
        common.total_bytes = U32::new(total);
        (common, data_at)
    }
}
