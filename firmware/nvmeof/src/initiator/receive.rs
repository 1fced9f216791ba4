//! What a target sends: PDUs out of a stream in fragments of any size.

use core::borrow::BorrowMut;

use nvme::{Completion, Status, opcode};
use zerocopy::FromBytes;

use super::fault::Fault;
use super::frame::frame_of;
use super::queue::{HostQueue, Payload, Phase};
use super::slots::{NONE, Slot, State, Transfer};
use crate::pdu::{
    CommonHeader, DIGEST_BYTES, DataHeader, Digests, Frame, Initialize, ResponseCapsule, Terminate, flags,
    kind, offset,
};

/// Offset of PFV, CPDA, DGST and MAXH2CDATA in ICResp; of R2TO's length in R2T.
const CPDA: u32 = 10;
const DIGESTS: u32 = 11;
const MAX_DATA: u32 = 12;
/// Smallest MAXH2CDATA in bytes (TCP 3.6.2.3).
const MIN_MAX_DATA_BYTES: u32 = 4096;

/// The PDU that is arriving.
#[derive(Debug)]
pub(super) struct Receiver {
    buffer: [u8; 128],
    filled: usize,
    /// Known once the common header is here.
    frame: Option<Frame>,
    /// Padding, data and digest are arriving.
    body: bool,
    slot: u16,
    pad_left: usize,
    data_left: usize,
    crc: u32,
    /// The command ends with this PDU.
    success: bool,
}

impl Receiver {
    pub(super) const fn new() -> Self {
        Self {
            buffer: [0; 128],
            filled: 0,
            frame: None,
            body: false,
            slot: NONE,
            pad_left: 0,
            data_left: 0,
            crc: 0,
            success: false,
        }
    }

    /// Adds bytes until `wanted` are there; returns how many it took.
    fn gather(&mut self, wanted: usize, bytes: &[u8]) -> usize {
        let taken = wanted.saturating_sub(self.filled).min(bytes.len());
        let to = self.buffer.get_mut(self.filled..self.filled + taken);
        if let (Some(to), Some(from)) = (to, bytes.get(..taken)) {
            to.copy_from_slice(from);
            self.filled += taken;
        }
        taken
    }

    /// The header that was gathered, for a TermReq to quote.
    pub(super) fn header(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }
}

impl<S: BorrowMut<[Slot]>> HostQueue<S> {
    /// Takes all of `bytes`; what follows a fault is thrown away.
    pub(super) fn parse(&mut self, bytes: &[u8], payload: &mut impl Payload) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.ended() {
            let step = if self.receiver.body { self.body(rest, payload) } else { self.header(rest) };
            match step {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(fault) => self.end(fault),
            }
        }
        bytes.len()
    }

    fn end(&mut self, fault: Fault) {
        self.phase = Phase::Ended(fault);
        if let Some(fatal) = fault.fatal() {
            self.sender.terminate(fatal, self.receiver.header());
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let Some(frame) = self.receiver.frame else {
            let taken = self.receiver.gather(size_of::<CommonHeader>(), bytes);
            if let Ok((common, _)) = CommonHeader::read_from_prefix(self.receiver.header()) {
                self.receiver.frame = Some(self.frame(&common)?);
            }
            return Ok(taken);
        };
        let taken = self.receiver.gather(frame.header_bytes, bytes);
        if self.receiver.filled == frame.header_bytes {
            self.pdu(&frame)?;
        }
        Ok(taken)
    }

    /// Whether such a PDU may come now, and how it is laid out.
    fn frame(&self, common: &CommonHeader) -> Result<Frame, Fault> {
        let first = common.kind == kind::INITIALIZE_RESPONSE;
        if common.kind != kind::CONTROLLER_TERMINATE && first != (self.phase == Phase::Initializing) {
            return Err(Fault::UnexpectedPdu { kind: common.kind });
        }
        frame_of(common, self.digests, (usize::from(self.options.alignment) + 1) * 4)
    }

    /// A whole header, digest included.
    fn pdu(&mut self, frame: &Frame) -> Result<(), Fault> {
        let header = self.receiver.buffer;
        let mut header = header.get(..frame.header_bytes).unwrap_or_default();
        if frame.header_digest {
            let (covered, digest) = header.split_at(header.len().saturating_sub(DIGEST_BYTES));
            let received = u32::from_le_bytes(digest.try_into().unwrap_or_default());
            if hal_simd::crc32c(0, covered) != received {
                return Err(Fault::HeaderDigest { received });
            }
            header = covered;
        }
        match frame.kind {
            kind::INITIALIZE_RESPONSE => match Initialize::ref_from_prefix(header) {
                Ok((response, _)) => self.initialized(response),
                Err(_) => Ok(()),
            },
            kind::RESPONSE => match ResponseCapsule::ref_from_prefix(header) {
                Ok((capsule, _)) => self.response(&capsule.completion),
                Err(_) => Ok(()),
            },
            kind::CONTROLLER_DATA => match DataHeader::ref_from_prefix(header) {
                Ok((data, _)) => return self.data(frame, data),
                Err(_) => Ok(()),
            },
            kind::READY_TO_TRANSFER => match DataHeader::ref_from_prefix(header) {
                Ok((request, _)) => self.ready_to_transfer(request),
                Err(_) => Ok(()),
            },
            _ => match Terminate::ref_from_prefix(header) {
                Ok((request, _)) => Err(Fault::Terminated {
                    status: request.status.get(),
                    information: request.information.get(),
                }),
                Err(_) => Ok(()),
            },
        }?;
        self.next_pdu();
        Ok(())
    }

    fn next_pdu(&mut self) {
        self.receiver.filled = 0;
        self.receiver.frame = None;
        self.receiver.body = false;
        self.receiver.slot = NONE;
    }

    /// ICResp (TCP 3.6.2.3).
    fn initialized(&mut self, response: &Initialize) -> Result<(), Fault> {
        if response.format.get() != 0 {
            return Err(Fault::Unsupported { offset: offset::FORMAT });
        }
        let wrong = |offset| Fault::Field { kind: kind::INITIALIZE_RESPONSE, offset };
        if response.alignment > 31 {
            return Err(wrong(CPDA));
        }
        if response.digests & !0b11 != 0 {
            return Err(wrong(DIGESTS));
        }
        let digests = Digests::from_field(response.digests);
        if digests != self.options.digests {
            return Err(Fault::Unsupported { offset: DIGESTS });
        }
        let limit = response.limit.get();
        if limit < MIN_MAX_DATA_BYTES || !limit.is_multiple_of(4) {
            return Err(wrong(MAX_DATA));
        }
        self.digests = digests;
        self.data_alignment = (usize::from(response.alignment) + 1) * 4;
        self.max_data_bytes = limit;
        self.phase = Phase::Live;
        Ok(())
    }

    /// CapsuleResp (TCP 3.6.2.7).
    fn response(&mut self, completion: &Completion) -> Result<(), Fault> {
        let cid = completion.cid.get();
        let index = self.slots.find(cid).ok_or(Fault::UnknownCommand { cid })?;
        let slot = self.slots.get(index).ok_or(Fault::UnknownCommand { cid })?;
        if slot.state != State::AtTarget {
            return Err(Fault::EarlyResponse { cid });
        }
        let is_connect = slot.command.opcode == opcode::FABRICS
            && nvme::fabrics::fabrics_kind(&slot.command) == nvme::fabrics::kind::CONNECT;
        if is_connect && completion.status().is_success() {
            // FFFFh in Connect's response says that flow control is off (Base 6.3).
            self.flow_control_off = completion.sq_head.get() == 0xffff;
        }
        let result = u64::from(completion.result_high.get()) << 32 | u64::from(completion.result.get());
        self.complete(index, cid, completion.status(), result)
    }

    /// A command ended; its slot is not in a list and no PDU of it is under way.
    fn complete(&mut self, index: u16, cid: u16, status: Status, result: u64) -> Result<(), Fault> {
        let slot = self.slots.get_mut(index).ok_or(Fault::UnknownCommand { cid })?;
        let all_moved = match slot.transfer {
            Transfer::Receive(bytes) | Transfer::Send(bytes) => slot.moved_bytes == bytes,
            Transfer::None | Transfer::SendInCapsule(_) => true,
        };
        if status.is_success() && !all_moved {
            return Err(Fault::MissingData { cid });
        }
        slot.status =
            if status.is_success() && slot.damaged { Status::TRANSIENT_TRANSPORT_ERROR } else { status };
        slot.result = result;
        slot.state = State::Done;
        let mut done = self.done;
        self.slots.push(&mut done, index);
        self.done = done;
        Ok(())
    }

    /// R2T (TCP 3.6.2.10): the next piece of a command's data is wanted.
    fn ready_to_transfer(&mut self, request: &DataHeader) -> Result<(), Fault> {
        let cid = request.cid.get();
        let index = self.slots.find(cid).ok_or(Fault::UnknownCommand { cid })?;
        let slot = self.slots.get_mut(index).ok_or(Fault::UnknownCommand { cid })?;
        let Transfer::Send(bytes) = slot.transfer else { return Err(Fault::WrongDirection { cid }) };
        if slot.state != State::AtTarget {
            return Err(Fault::SecondRequest { cid });
        }
        let (from, length) = (request.offset.get(), request.length.get());
        if length == 0 {
            return Err(Fault::Field { kind: kind::READY_TO_TRANSFER, offset: offset::LENGTH });
        }
        let end = from.checked_add(length).filter(|&end| from == slot.moved_bytes && end <= bytes);
        slot.asked_end = end.ok_or(Fault::OutOfRange { cid })?;
        slot.tag = request.tag.get();
        slot.state = State::DataQueued;
        let mut to_send = self.to_send;
        self.slots.push(&mut to_send, index);
        self.to_send = to_send;
        Ok(())
    }

    /// The header of C2HData (TCP 3.6.2.9).
    fn data(&mut self, frame: &Frame, data: &DataHeader) -> Result<(), Fault> {
        let cid = data.cid.get();
        let index = self.slots.find(cid).ok_or(Fault::UnknownCommand { cid })?;
        let slot = self.slots.get(index).ok_or(Fault::UnknownCommand { cid })?;
        let Transfer::Receive(bytes) = slot.transfer else { return Err(Fault::WrongDirection { cid }) };
        if data.length.get() != frame.data_bytes {
            return Err(Fault::Field { kind: frame.kind, offset: offset::LENGTH });
        }
        let end = slot.moved_bytes.checked_add(frame.data_bytes).filter(|&end| end <= bytes);
        if data.offset.get() != slot.moved_bytes || end.is_none() {
            return Err(Fault::OutOfRange { cid });
        }
        let success = data.common.flags & flags::SUCCESS != 0;
        if success && !(frame.last && self.flow_control_off) {
            return Err(Fault::UnexpectedSuccess { cid });
        }
        let receiver = &mut self.receiver;
        receiver.slot = index;
        receiver.pad_left = usize::from(frame.pad_bytes);
        receiver.data_left = frame.data_bytes as usize;
        receiver.crc = 0;
        receiver.success = success;
        receiver.body = true;
        receiver.filled = 0;
        Ok(())
    }

    /// Padding, data and digest of C2HData.
    fn body(&mut self, bytes: &[u8], payload: &mut impl Payload) -> Result<usize, Fault> {
        let digest = self.digests.data;
        let receiver = &mut self.receiver;
        let pad = receiver.pad_left.min(bytes.len());
        receiver.pad_left -= pad;
        let bytes = bytes.get(pad..).unwrap_or_default();
        let (data, rest) = bytes.split_at(bytes.len().min(receiver.data_left));
        let mut taken = pad + data.len();
        if !data.is_empty() {
            receiver.data_left -= data.len();
            if digest {
                receiver.crc = hal_simd::crc32c(receiver.crc, data);
            }
            if let Some(slot) = self.slots.get_mut(receiver.slot) {
                payload.store(slot.token, slot.moved_bytes, data);
                slot.moved_bytes = slot.moved_bytes.saturating_add(data.len() as u32);
            }
        }
        let receiver = &mut self.receiver;
        if receiver.pad_left > 0 || receiver.data_left > 0 {
            return Ok(taken);
        }
        if digest {
            taken += receiver.gather(DIGEST_BYTES, rest);
            if receiver.filled < DIGEST_BYTES {
                return Ok(taken);
            }
        }
        self.end_of_body(digest)?;
        Ok(taken)
    }

    fn end_of_body(&mut self, digest: bool) -> Result<(), Fault> {
        let received = self.receiver.buffer.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let (index, success) = (self.receiver.slot, self.receiver.success);
        if digest && received != self.receiver.crc {
            // Not fatal (TCP 3.3.1.3): the command fails once it ends.
            if let Some(slot) = self.slots.get_mut(index) {
                slot.damaged = true;
            }
        }
        self.next_pdu();
        if !success {
            return Ok(());
        }
        self.complete(index, self.slots.cid(index), Status::SUCCESS, 0)
    }
}
