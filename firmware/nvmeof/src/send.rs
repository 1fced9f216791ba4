//! What is sent: one PDU after the other, each in as many pieces as the send buffer has room for.
//!
//! Read data goes from its pages straight into the send buffer: a transfer of any size needs no more room
//! than there happens to be.

use controller::Backend;
use hal_mem::Cursor;
use message::Waits;
use nvme::{Completion, Status};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use crate::pdu::{
    self, CommonHeader, DIGEST_BYTES, DataHeader, Initialize, MAX_HOST_DATA_BYTES, ResponseCapsule,
    Terminate, kind,
};
use crate::queue::{DATA_TIMEOUT, Phase, SEND_TIMEOUT, Sender, Sending};
use crate::slots::{NONE, SlotState};
use crate::turn::{PDU_COST_BYTES, Turn};

impl<B: Backend> Turn<'_, '_, B> {
    /// Fills `room` with what is to be sent and returns how many bytes that was.
    pub(crate) fn fill_room(&mut self, room: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            if self.queue.sender.sending != Sending::Nothing {
                let Some(rest) = room.get_mut(at..) else { break };
                let most = rest.len().min(self.budget_bytes as usize);
                let sent = self.emit(rest.get_mut(..most).unwrap_or_default());
                self.budget_bytes -= sent as u32;
                at += sent;
                if !self.queue.sender.pdu.is_done() {
                    break;
                }
                self.sent();
            }
            // Without room the PDU could only be prepared, and something more urgent may come up.
            if at >= room.len() || self.budget_bytes == 0 || !self.start_next() {
                break;
            }
        }
        at
    }

    /// Puts as much of the current PDU into `room` as fits.
    fn emit(&mut self, room: &mut [u8]) -> usize {
        let Sender { pdu, cursor, .. } = &mut self.queue.sender;
        let pool = &self.env.pool;
        pdu.emit(room, |rest| {
            let read = pool.read(cursor, rest);
            debug_assert_eq!(read, rest.len());
        })
    }

    /// The last byte of the current PDU is in the send buffer.
    fn sent(&mut self) {
        self.budget_bytes = self.budget_bytes.saturating_sub(PDU_COST_BYTES);
        self.queue.send_deadline = self.now + SEND_TIMEOUT;
        let sender = &mut self.queue.sender;
        let slot = core::mem::replace(&mut sender.slot, NONE);
        match core::mem::replace(&mut sender.sending, Sending::Nothing) {
            Sending::Nothing | Sending::Initialize | Sending::Terminate | Sending::ReadyToTransfer => {}
            Sending::Data { complete: true } | Sending::Response => {
                self.note_answered(slot);
                self.free_slot(slot);
            }
            Sending::Data { complete: false } => {
                self.give_back_pages(slot);
                self.slots.at_mut(slot).state = SlotState::SendResponse;
                if self.queue.phase == Phase::Terminating {
                    self.slots.push(&mut self.queue.to_send, slot);
                } else {
                    self.start_response(slot);
                }
            }
        }
    }

    /// Prepares the next PDU; false when there is none.
    fn start_next(&mut self) -> bool {
        if self.queue.sender.sending != Sending::Nothing {
            return true;
        }
        if let Some(fatal) = self.queue.sender.terminate.take() {
            self.start_terminate(fatal);
            return true;
        }
        if core::mem::take(&mut self.queue.sender.initialize) {
            self.start_initialize();
            return true;
        }
        if self.queue.phase == Phase::Terminating {
            return false;
        }
        let Some(slot) = self.slots.pop(&mut self.queue.to_send) else { return false };
        match self.slots.at(slot).state {
            SlotState::SendReadyToTransfer => self.start_ready_to_transfer(slot),
            SlotState::SendData => self.start_data(slot),
            _ => self.start_response(slot),
        }
        true
    }

    fn start_initialize(&mut self) {
        let response = Initialize {
            common: CommonHeader::of(kind::INITIALIZE_RESPONSE, size_of::<Initialize>()),
            format: U16::new(0),
            alignment: 0,
            digests: self.queue.digests.to_field(),
            limit: U32::new(MAX_HOST_DATA_BYTES),
            reserved: [0; 112],
        };
        // The digests apply from the next PDU on.
        self.queue.sender.start(Sending::Initialize, NONE, &response, false);
    }

    fn start_terminate(&mut self, fatal: pdu::Fatal) {
        let queue = &mut *self.queue;
        let quote = queue.receiver.buffer.get(..usize::from(queue.receiver.filled)).unwrap_or_default();
        let mut common = CommonHeader::of(kind::CONTROLLER_TERMINATE, size_of::<Terminate>());
        common.total_bytes = U32::new((size_of::<Terminate>() + quote.len()) as u32);
        let request = Terminate {
            common,
            status: U16::new(fatal.status as u16),
            information: U32::new(fatal.information),
            reserved: [0; 10],
        };
        queue.sender.start(Sending::Terminate, NONE, &request, false);
        queue.sender.pdu.append(quote);
    }

    fn start_ready_to_transfer(&mut self, slot: u16) {
        let entry = self.slots.at_mut(slot);
        entry.state = SlotState::ReceivingData;
        entry.asked_at = self.now;
        entry.waits.add(Waits::HOST_DATA);
        let request = DataHeader {
            common: self.queue.common(kind::READY_TO_TRANSFER, size_of::<DataHeader>()),
            cid: entry.command.cid,
            tag: U16::new(slot),
            offset: U32::new(0),
            length: U32::new(entry.transfer_bytes),
            reserved: [0; 4],
        };
        let digest = self.queue.digests.header;
        self.queue.sender.start(Sending::ReadyToTransfer, slot, &request, digest);
        self.queue.receiving += 1;
        self.queue.data_deadline = self.queue.data_deadline.min(self.now + DATA_TIMEOUT);
    }

    fn start_data(&mut self, slot: u16) {
        let queue = &mut *self.queue;
        let entry = self.slots.at(slot);
        let digests = queue.digests;
        let complete = !queue.flow_control && entry.result == 0 && entry.status == Status::SUCCESS;
        let header_bytes = size_of::<DataHeader>() + if digests.header { DIGEST_BYTES } else { 0 };
        let data_at =
            header_bytes.checked_next_multiple_of(usize::from(queue.alignment)).unwrap_or(header_bytes);
        let tail = if digests.data { DIGEST_BYTES } else { 0 };
        let mut common = queue.common(kind::CONTROLLER_DATA, size_of::<DataHeader>());
        common.flags |= pdu::flags::LAST
            | if complete { pdu::flags::SUCCESS } else { 0 }
            | if digests.data { pdu::flags::DATA_DIGEST } else { 0 };
        common.data_offset = data_at as u8;
        common.total_bytes = U32::new((data_at + tail) as u32 + entry.transfer_bytes);
        let data = DataHeader {
            common,
            cid: entry.command.cid,
            tag: U16::new(0),
            offset: U32::new(0),
            length: U32::new(entry.transfer_bytes),
            reserved: [0; 4],
        };
        let sender = &mut queue.sender;
        sender.start(Sending::Data { complete }, slot, &data, digests.header);
        sender.pdu.add_data(data_at, entry.transfer_bytes, digests.data);
        sender.cursor = entry.pages.start();
    }

    fn start_response(&mut self, slot: u16) {
        let queue = &mut *self.queue;
        let entry = self.slots.at(slot);
        let mut completion = Completion::new(entry.command.cid.get(), entry.status, entry.result);
        let is_connect = matches!(entry.doer, crate::slots::Doer::Connect);
        // FFFFh in Connect's response says that flow control is off, as the host asked (Base 6.3).
        let head = if is_connect && !queue.flow_control { 0xffff } else { queue.sq_head_for_response() };
        completion.sq_head = U16::new(head);
        let response = ResponseCapsule {
            common: queue.common(kind::RESPONSE, size_of::<ResponseCapsule>()),
            completion,
        };
        queue.sender.start(Sending::Response, slot, &response, queue.digests.header);
    }
}

impl crate::queue::Queue {
    /// The common header of a PDU with nothing but a header.
    fn common(&self, kind: u8, bytes: usize) -> CommonHeader {
        let mut common = CommonHeader::of(kind, bytes);
        if self.digests.header {
            common.flags = pdu::flags::HEADER_DIGEST;
            common.total_bytes = U32::new((bytes + DIGEST_BYTES) as u32);
        }
        common
    }
}

impl Sender {
    fn start(&mut self, sending: Sending, slot: u16, header: &(impl IntoBytes + Immutable), digest: bool) {
        (self.sending, self.slot, self.cursor) = (sending, slot, Cursor::NONE);
        self.pdu.start(header, digest);
    }
}
