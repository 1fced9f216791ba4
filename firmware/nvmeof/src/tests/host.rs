//! A host of our own: builds PDUs, understands replies, and runs commands to their end.

use nvme::fabrics::{ConnectCommand, ConnectData};
use nvme::{Command, Completion, SglDescriptor, Status, opcode};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::card::{Card, NQN};
use crate::QueueIndex;
use crate::pdu::{self, CommonHeader, DataHeader, Digests, Initialize, ResponseCapsule, Terminate, kind};

pub(super) const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:host";

/// What a target says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Initialize { digests: u8, max_data: u32 },
    Response { cid: u16, status: Status, result: u64, sq_head: u16 },
    Data { cid: u16, bytes: Vec<u8>, success: bool },
    ReadyToTransfer { cid: u16, tag: u16, offset: u32, length: u32 },
    Terminate { status: u16, information: u32, quoted: usize },
}

/// One connection's host.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub index: QueueIndex,
    pub digests: Digests,
    pub alignment: u8,
    pub cid: u16,
    pub disable_flow_control: bool,
    pub sq_size: u16,
    pub host_id: [u8; 16],
    /// Largest H2CData that it sends.
    pub piece: usize,
}

impl Host {
    pub fn open(card: &mut Card) -> Self {
        Self {
            index: card.open().expect("a free connection"),
            digests: Digests::default(),
            alignment: 0,
            cid: 0,
            disable_flow_control: false,
            sq_size: 31,
            host_id: [7; 16],
            piece: 128 * 1024,
        }
    }

    pub fn icreq(&self) -> Vec<u8> {
        let mut request = Initialize::new_zeroed();
        request.common = CommonHeader {
            kind: kind::INITIALIZE_REQUEST,
            header_bytes: 128,
            total_bytes: U32::new(128),
            ..Default::default()
        };
        request.alignment = self.alignment;
        request.digests = self.digests.to_field();
        request.as_bytes().to_vec()
    }

    pub fn initialize(&self, card: &mut Card) {
        card.send(self.index, &self.icreq());
        card.run();
        let expected = Reply::Initialize { digests: self.digests.to_field(), max_data: 128 * 1024 };
        assert_eq!(self.replies(card), [expected]);
    }

    pub fn connect_parts(&self, queue_id: u16, cntlid: u16) -> (Command, ConnectData) {
        let mut connect = ConnectCommand::new_zeroed();
        connect.opcode = opcode::FABRICS;
        connect.fabrics_kind = nvme::fabrics::kind::CONNECT;
        connect.queue_id.set(queue_id);
        connect.sq_size.set(self.sq_size);
        connect.attributes = u8::from(self.disable_flow_control) << 2;
        connect.keep_alive_ms.set(if queue_id == 0 { 5000 } else { 0 });
        let mut data = ConnectData::new_zeroed();
        data.host_id = self.host_id;
        data.controller_id.set(cntlid);
        data.subsystem_nqn[..NQN.len()].copy_from_slice(NQN.as_bytes());
        data.host_nqn[..HOST_NQN.len()].copy_from_slice(HOST_NQN.as_bytes());
        (Command::read_from_bytes(connect.as_bytes()).unwrap(), data)
    }

    pub fn connect_pdu(&self, queue_id: u16, cntlid: u16) -> Vec<u8> {
        let (mut command, data) = self.connect_parts(queue_id, cntlid);
        command.set_sgl(in_capsule(1024));
        self.capsule(&command, data.as_bytes())
    }

    /// Connects a queue; returns status, result and SQHD.
    pub fn connect(&mut self, card: &mut Card, queue_id: u16, cntlid: u16) -> (Status, u64, u16) {
        let pdu = self.connect_pdu(queue_id, cntlid);
        card.send(self.index, &pdu);
        card.run();
        match self.replies(card)[..] {
            [Reply::Response { status, result, sq_head, .. }] => (status, result, sq_head),
            ref other => panic!("{other:?}"),
        }
    }

    /// An admin queue with an enabled controller, and its CNTLID.
    pub fn admin(card: &mut Card, digests: Digests) -> (Self, u16) {
        let mut host = Self { digests, ..Self::open(card) };
        host.initialize(card);
        let (status, cntlid, _) = host.connect(card, 0, 0xffff);
        assert_eq!(status, Status::SUCCESS);
        let enable = property_set(0x14, 0x0046_0001);
        assert_eq!(host.execute(card, enable, Payload::None).0, Status::SUCCESS);
        (host, cntlid as u16)
    }

    /// An admin queue and I/O queue 1.
    pub fn pair(card: &mut Card, digests: Digests, change: impl FnOnce(&mut Self)) -> (Self, Self) {
        let (admin, cntlid) = Self::admin(card, digests);
        let mut io = Self { digests, ..Self::open(card) };
        change(&mut io);
        io.initialize(card);
        let (status, _, sq_head) = io.connect(card, 1, cntlid);
        assert_eq!(status, Status::SUCCESS);
        assert_eq!(sq_head == 0xffff, io.disable_flow_control);
        (admin, io)
    }

    pub fn capsule(&self, command: &Command, data: &[u8]) -> Vec<u8> {
        self.pdu(kind::COMMAND, 0, command.as_bytes(), data)
    }

    pub fn host_data(&self, cid: u16, tag: u16, offset: u32, last: bool, data: &[u8]) -> Vec<u8> {
        let mut header = DataHeader::new_zeroed();
        header.cid.set(cid);
        header.tag.set(tag);
        header.offset.set(offset);
        header.length.set(data.len() as u32);
        let flags = if last { pdu::flags::LAST } else { 0 };
        self.pdu(kind::HOST_DATA, flags, &header.as_bytes()[8..], data)
    }

    pub fn pdu(&self, kind: u8, flags: u8, header: &[u8], data: &[u8]) -> Vec<u8> {
        let hlen = header.len() + 8;
        let pdo = hlen + if self.digests.header { 4 } else { 0 };
        let tail = if self.digests.data && !data.is_empty() { 4 } else { 0 };
        let common = CommonHeader {
            kind,
            flags: flags | u8::from(self.digests.header) | if tail > 0 { 2 } else { 0 },
            header_bytes: hlen as u8,
            data_offset: if data.is_empty() { 0 } else { pdo as u8 },
            total_bytes: U32::new((pdo + data.len() + tail) as u32),
        };
        let mut bytes = common.as_bytes().to_vec();
        bytes.extend(header);
        if self.digests.header {
            bytes.extend(hal_simd::crc32c(0, &bytes).to_le_bytes());
        }
        bytes.extend(data);
        if tail > 0 {
            bytes.extend(hal_simd::crc32c(0, data).to_le_bytes());
        }
        bytes
    }

    /// The whole PDUs that have arrived, digests checked.
    pub fn replies(&self, card: &mut Card) -> Vec<Reply> {
        let mut replies = Vec::new();
        let pipe = card.pipe(self.index);
        pipe.taken.append(&mut pipe.to_host);
        let bytes = &mut pipe.taken;
        while let Ok((common, _)) = CommonHeader::read_from_prefix(&bytes[..]) {
            let total = common.total_bytes.get() as usize;
            if bytes.len() < total {
                break;
            }
            let pdu: Vec<u8> = bytes.drain(..total).collect();
            replies.push(self.reply(&common, &pdu));
        }
        replies
    }

    fn reply(&self, common: &CommonHeader, pdu: &[u8]) -> Reply {
        let hlen = usize::from(common.header_bytes);
        let digested = !matches!(common.kind, kind::INITIALIZE_RESPONSE | kind::CONTROLLER_TERMINATE);
        if self.digests.header && digested {
            assert_eq!(common.flags & 1, 1);
            assert_eq!(pdu[hlen..hlen + 4], hal_simd::crc32c(0, &pdu[..hlen]).to_le_bytes());
        }
        match common.kind {
            kind::INITIALIZE_RESPONSE => {
                let (response, _) = Initialize::read_from_prefix(pdu).unwrap();
                Reply::Initialize { digests: response.digests, max_data: response.limit.get() }
            }
            kind::RESPONSE => {
                let (response, _) = ResponseCapsule::read_from_prefix(pdu).unwrap();
                let completion: Completion = response.completion;
                let result =
                    u64::from(completion.result_high.get()) << 32 | u64::from(completion.result.get());
                let (cid, sq_head) = (completion.cid.get(), completion.sq_head.get());
                Reply::Response { cid, status: completion.status(), result, sq_head }
            }
            kind::CONTROLLER_DATA => {
                let (data, _) = DataHeader::read_from_prefix(pdu).unwrap();
                let at = usize::from(common.data_offset);
                assert_eq!(at % ((usize::from(self.alignment) + 1) * 4), 0);
                let end = at + data.length.get() as usize;
                let bytes = pdu[at..end].to_vec();
                if self.digests.data {
                    assert_eq!(pdu[end..], hal_simd::crc32c(0, &bytes).to_le_bytes());
                } else {
                    assert_eq!(end, pdu.len());
                }
                assert_eq!((data.offset.get(), common.flags & 4), (0, 4));
                Reply::Data { cid: data.cid.get(), bytes, success: common.flags & 8 != 0 }
            }
            kind::READY_TO_TRANSFER => {
                let (request, _) = DataHeader::read_from_prefix(pdu).unwrap();
                Reply::ReadyToTransfer {
                    cid: request.cid.get(),
                    tag: request.tag.get(),
                    offset: request.offset.get(),
                    length: request.length.get(),
                }
            }
            kind::CONTROLLER_TERMINATE => {
                let (request, _) = Terminate::read_from_prefix(pdu).unwrap();
                let (status, information) = (request.status.get(), request.information.get());
                Reply::Terminate { status, information, quoted: pdu.len() - 24 }
            }
            other => panic!("PDU type {other:#x} from a controller"),
        }
    }

    /// Starts a command; returns its CID. Data of an R2T is sent by [`Host::answer`].
    pub fn start(&mut self, card: &mut Card, mut command: Command, payload: &Payload) -> u16 {
        self.cid += 1;
        command.cid = U16::new(self.cid);
        let mut data = &[][..];
        match payload {
            Payload::None => command.set_sgl(transport(0)),
            Payload::Read(bytes) => command.set_sgl(transport(*bytes)),
            Payload::Write(bytes) => command.set_sgl(transport(bytes.len() as u32)),
            Payload::InCapsule(bytes) => {
                command.set_sgl(in_capsule(bytes.len() as u32));
                data = bytes;
            }
        }
        let pdu = self.capsule(&command, data);
        card.send(self.index, &pdu);
        self.cid
    }

    /// Sends the data that an R2T asks for, in pieces.
    pub fn answer(&self, card: &mut Card, cid: u16, tag: u16, data: &[u8]) {
        let mut offset = 0;
        for piece in data.chunks(self.piece) {
            let end = offset + piece.len();
            let pdu = self.host_data(cid, tag, offset as u32, end == data.len(), piece);
            card.send(self.index, &pdu);
            offset = end;
        }
    }

    /// Runs one command to its end: status, result and data.
    pub fn execute(&mut self, card: &mut Card, command: Command, payload: Payload) -> (Status, u64, Vec<u8>) {
        let ours = self.start(card, command, &payload);
        let mut data = Vec::new();
        for _ in 0..2000 {
            card.run();
            for reply in self.replies(card) {
                match reply {
                    Reply::Response { cid, status, result, .. } if cid == ours => {
                        return (status, result, data);
                    }
                    Reply::Data { cid, bytes, success } if cid == ours => {
                        data = bytes;
                        if success {
                            return (Status::SUCCESS, 0, data);
                        }
                    }
                    Reply::ReadyToTransfer { cid, tag, offset: 0, length } if cid == ours => {
                        let Payload::Write(bytes) = &payload else { panic!("R2T for {payload:?}") };
                        self.answer(card, cid, tag, &bytes[..length as usize]);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("no end");
    }
}

/// What a command moves, and how.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    None,
    Read(u32),
    Write(Vec<u8>),
    InCapsule(Vec<u8>),
}

pub(super) fn transport(bytes: u32) -> SglDescriptor {
    SglDescriptor { length: U32::new(bytes), identifier: SglDescriptor::TRANSPORT, ..Default::default() }
}

pub(super) fn in_capsule(bytes: u32) -> SglDescriptor {
    SglDescriptor { length: U32::new(bytes), identifier: SglDescriptor::IN_CAPSULE, ..Default::default() }
}

pub(super) fn block_command(opcode: u8, start: u64, blocks: u32) -> Command {
    let mut command = Command { opcode, nsid: U32::new(1), ..Default::default() };
    command.set_start_block(start);
    command.cdw12.set(blocks - 1);
    command
}

pub(super) fn property_set(offset: u32, value: u32) -> Command {
    Command {
        opcode: opcode::FABRICS,
        nsid: U32::new(u32::from(nvme::fabrics::kind::PROPERTY_SET)),
        cdw11: U32::new(offset),
        cdw12: U32::new(value),
        ..Default::default()
    }
}

pub(super) fn admin_command(opcode: u8, nsid: u32, cdw10: u32) -> Command {
    Command { opcode, nsid: U32::new(nsid), cdw10: U32::new(cdw10), ..Default::default() }
}

/// Bytes that look like nothing else.
pub(super) fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 23) as u8).collect()
}
