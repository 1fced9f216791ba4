//! What arrives: PDUs out of a stream in fragments of any size.
//!
//! A header that lies whole in the stream is read in place; only one in pieces is gathered. Data goes from the
//! stream into pages in one copy.

use controller::Backend;
use zerocopy::FromBytes;

use crate::pdu::{
    self, CommandCapsule, CommonHeader, DIGEST_BYTES, DataHeader, Digests, Fatal, FatalStatus, Frame,
    Initialize, MAX_HOST_DATA_BYTES, Terminate, kind,
};
use crate::queue::{PDU_TIMEOUT, Phase, SETUP_TIMEOUT, Stage};
use crate::slots::{NONE, SlotState};
use crate::turn::{PDU_COST_BYTES, Turn};

impl<B: Backend> Turn<'_, '_, B> {
    /// Takes what it can of `bytes` and returns how much that was.
    pub(crate) fn parse(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.queue.receiver.stage {
                Stage::Ignore => return bytes.len(),
                _ if self.budget_bytes == 0 => break,
                Stage::Header => {
                    if self.queue.receiver.filled == 0 {
                        self.queue.pdu_deadline = self.now + PDU_TIMEOUT;
                    }
                    at += self.header(rest);
                }
                Stage::Body => {
                    let most = rest.len().min(self.budget_bytes as usize);
                    let taken = self.body(rest.get(..most).unwrap_or_default());
                    self.budget_bytes = self.budget_bytes.saturating_sub(taken as u32);
                    at += taken;
                }
            }
        }
        at
    }

    /// A header, or a piece of one; never called with no bytes.
    fn header(&mut self, bytes: &[u8]) -> usize {
        let digests = self.queue.digests;
        if self.queue.receiver.filled == 0
            && let Ok((common, _)) = CommonHeader::ref_from_prefix(bytes)
        {
            match self.frame(common, digests) {
                Ok(frame) => {
                    if let Some(header) = bytes.get(..frame.header_bytes) {
                        self.pdu(frame, header);
                        return frame.header_bytes;
                    }
                }
                Err(fatal) => {
                    self.fatal(fatal, bytes.get(..size_of::<CommonHeader>()).unwrap_or_default());
                    return size_of::<CommonHeader>();
                }
            }
        }
        self.gather_header(bytes, digests)
    }

    fn gather_header(&mut self, bytes: &[u8], digests: Digests) -> usize {
        let receiver = &mut self.queue.receiver;
        let filled = usize::from(receiver.filled);
        let buffer = receiver.buffer;
        let have = buffer.get(..filled).unwrap_or_default();
        let frame = match CommonHeader::ref_from_prefix(have) {
            Ok((common, _)) => match self.frame(common, digests) {
                Ok(frame) => Some(frame),
                Err(fatal) => {
                    self.fatal(fatal, have);
                    return 0;
                }
            },
            Err(_) => None,
        };
        let wanted = frame.map_or(size_of::<CommonHeader>(), |frame| frame.header_bytes);
        let taken = wanted.saturating_sub(filled).min(bytes.len());
        let receiver = &mut self.queue.receiver;
        if let (Some(to), Some(from)) = (receiver.buffer.get_mut(filled..filled + taken), bytes.get(..taken))
        {
            to.copy_from_slice(from);
        }
        receiver.filled += taken as u8;
        if filled + taken < wanted {
            return taken;
        }
        match frame {
            Some(frame) => {
                let header = receiver.buffer;
                receiver.filled = 0;
                self.pdu(frame, header.get(..wanted).unwrap_or_default());
            }
            None => {
                // Judged as soon as it is there: what comes next may never come.
                let common = receiver.buffer;
                if let Ok((header, _)) = CommonHeader::ref_from_prefix(&common)
                    && let Err(fatal) = self.frame(header, digests)
                {
                    self.fatal(fatal, common.get(..wanted).unwrap_or_default());
                }
            }
        }
        taken
    }

    /// Whether such a PDU may come now, and how it is laid out.
    fn frame(&self, common: &CommonHeader, digests: Digests) -> Result<Frame, Fatal> {
        let expected = match common.kind {
            kind::INITIALIZE_REQUEST => self.queue.phase == Phase::AwaitingInitialize,
            kind::COMMAND | kind::HOST_DATA => self.queue.phase != Phase::AwaitingInitialize,
            _ => true,
        };
        if !expected {
            return Err(Fatal::plain(FatalStatus::SequenceError));
        }
        Frame::of_host_pdu(common, digests)
    }

    /// A whole header, digest included.
    fn pdu(&mut self, frame: Frame, header: &[u8]) {
        self.budget_bytes = self.budget_bytes.saturating_sub(PDU_COST_BYTES);
        if frame.header_digest {
            let (covered, digest) = header.split_at(header.len().saturating_sub(DIGEST_BYTES));
            let received = u32::from_le_bytes(digest.try_into().unwrap_or_default());
            if hal_simd::crc32c(0, covered) != received {
                self.counters.digest_errors += 1;
                let fatal = Fatal { status: FatalStatus::HeaderDigestError, information: received };
                return self.fatal(fatal, covered);
            }
        }
        let verdict = match frame.kind {
            kind::INITIALIZE_REQUEST => match Initialize::ref_from_prefix(header) {
                Ok((request, _)) => self.initialize(request),
                Err(_) => Ok(()),
            },
            kind::COMMAND => match CommandCapsule::ref_from_prefix(header) {
                Ok((capsule, _)) => self.capsule(&frame, &capsule.command),
                Err(_) => Ok(()),
            },
            kind::HOST_DATA => match DataHeader::ref_from_prefix(header) {
                Ok((data, _)) => self.host_data(&frame, data),
                Err(_) => Ok(()),
            },
            _ => {
                if let Ok((request, _)) = Terminate::ref_from_prefix(header) {
                    self.terminated_by_host(&frame, request);
                }
                Ok(())
            }
        };
        if let Err(fatal) = verdict {
            self.fatal(fatal, header);
        }
    }

    /// ICReq (3.6.2.2): agrees on digests and alignment.
    fn initialize(&mut self, request: &Initialize) -> Result<(), Fatal> {
        if request.format.get() != 0 {
            return Err(Fatal {
                status: FatalStatus::UnsupportedParameter,
                information: pdu::offset::FORMAT,
            });
        }
        if request.alignment > 31 {
            return Err(Fatal::field(pdu::offset::ALIGNMENT));
        }
        // MAXR2T needs no keeping: a command never has more than one R2T open, which every host allows.
        self.queue.alignment = (request.alignment + 1) * 4;
        self.queue.digests = Digests::from_field(request.digests);
        self.queue.phase = Phase::AwaitingConnect;
        self.queue.deadline = self.now + SETUP_TIMEOUT;
        self.queue.sender.initialize = true;
        Ok(())
    }

    /// H2CTermReq (3.6.2.4): the connection ends, without an answer, once the rest of the PDU is here.
    fn terminated_by_host(&mut self, frame: &Frame, request: &Terminate) {
        let (status, information) = (request.status.get(), request.information.get());
        if self.may_say() {
            hal_log::warn!(
                "connection {}: host terminates, error {} at {:#x}",
                self.index,
                status,
                information
            );
        }
        let receiver = &mut self.queue.receiver;
        receiver.ends_connection = true;
        self.start_body(NONE, frame, 0);
    }

    /// H2CData (3.6.2.8): a piece, in order, of the data that an R2T asked for.
    fn host_data(&mut self, frame: &Frame, data: &DataHeader) -> Result<(), Fatal> {
        let tag = data.tag.get();
        let slot = self
            .slots
            .get(tag)
            .filter(|slot| slot.state == SlotState::ReceivingData && slot.queue == self.index);
        let slot = slot.ok_or(Fatal::field(pdu::offset::TAG))?;
        if slot.command.cid != data.cid {
            return Err(Fatal::field(pdu::offset::CID));
        }
        let (offset, length) = (data.offset.get(), data.length.get());
        if length == 0 {
            return Err(Fatal::field(pdu::offset::LENGTH));
        }
        if length > MAX_HOST_DATA_BYTES {
            return Err(Fatal::plain(FatalStatus::DataLimitExceeded));
        }
        if length != frame.data_bytes {
            return Err(Fatal::field(pdu::offset::TOTAL_BYTES));
        }
        let end = offset.checked_add(length);
        if offset != slot.arrived_bytes || end.is_none_or(|end| end > slot.transfer_bytes) {
            return Err(Fatal::plain(FatalStatus::DataOutOfRange));
        }
        if frame.last != (end == Some(slot.transfer_bytes)) {
            return Err(Fatal::field(pdu::offset::FLAGS));
        }
        self.slots.at_mut(tag).arrived_bytes += length;
        self.queue.receiver.last = frame.last;
        self.start_body(tag, frame, length);
        Ok(())
    }

    /// From here the bytes are padding, data (of which `keep` are stored at the slot's cursor) and digest.
    pub(crate) fn start_body(&mut self, slot: u16, frame: &Frame, keep: u32) {
        let receiver = &mut self.queue.receiver;
        receiver.slot = slot;
        receiver.pad_left = frame.pad_bytes;
        receiver.data_left = frame.data_bytes;
        receiver.keep_left = keep;
        receiver.digest = frame.data_digest;
        receiver.crc = 0;
        receiver.filled = 0;
        receiver.stage = Stage::Body;
        if frame.data_bytes == 0 {
            self.end_body();
        }
    }

    fn body(&mut self, bytes: &[u8]) -> usize {
        let receiver = &mut self.queue.receiver;
        let pad = usize::from(receiver.pad_left).min(bytes.len());
        receiver.pad_left -= pad as u8;
        let bytes = bytes.get(pad..).unwrap_or_default();
        let (data, rest) = bytes.split_at(bytes.len().min(receiver.data_left as usize));
        if receiver.digest {
            receiver.crc = hal_simd::crc32c(receiver.crc, data);
        }
        receiver.data_left -= data.len() as u32;
        let (kept, _) = data.split_at(data.len().min(receiver.keep_left as usize));
        if !kept.is_empty() {
            receiver.keep_left -= kept.len() as u32;
            let slot = self.slots.at_mut(receiver.slot);
            let written = self.env.pool.write(&mut slot.cursor, kept);
            debug_assert_eq!(written, kept.len());
        }
        let mut used = pad + data.len();
        if receiver.data_left > 0 || receiver.pad_left > 0 {
            return used;
        }
        if receiver.digest {
            let filled = usize::from(receiver.filled);
            let now = DIGEST_BYTES.saturating_sub(filled).min(rest.len());
            if let (Some(to), Some(from)) = (receiver.buffer.get_mut(filled..filled + now), rest.get(..now)) {
                to.copy_from_slice(from);
            }
            receiver.filled += now as u8;
            used += now;
            if filled + now < DIGEST_BYTES {
                return used;
            }
        }
        self.end_body();
        used
    }

    /// All of the PDU is here.
    fn end_body(&mut self) {
        let receiver = &mut self.queue.receiver;
        receiver.stage = Stage::Header;
        receiver.filled = 0;
        if core::mem::take(&mut receiver.ends_connection) {
            return self.start_closing();
        }
        let received = receiver.buffer.first_chunk().map_or(0, |digest| u32::from_le_bytes(*digest));
        let intact = !receiver.digest || receiver.crc == received;
        let (slot, last) = (receiver.slot, receiver.last);
        receiver.slot = NONE;
        if slot == NONE {
            return;
        }
        if !intact {
            self.counters.digest_errors += 1;
            // Not fatal (3.3.1.3): the command fails once all of its data has passed by.
            self.slots.at_mut(slot).status = nvme::Status::TRANSIENT_TRANSPORT_ERROR;
        }
        if self.slots.at(slot).state == SlotState::ReceivingData {
            if !last {
                return;
            }
            self.queue.receiving = self.queue.receiving.saturating_sub(1);
            if self.queue.receiving == 0 {
                self.queue.data_deadline = self.second_deadline();
            }
        }
        self.run(slot);
    }
}
