//! A host that speaks NVMe/TCP by hand, one command or many at a time.

use nvme::fabrics::{ConnectCommand, ConnectData, kind as fabrics};
use nvme::{Command, SglDescriptor, Status, opcode};
use nvmeof::pdu::{CommonHeader, DataHeader, Initialize, ResponseCapsule, flags, kind};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::card::Card;
use crate::wire::Socket;

/// NQN of the card's default subsystem.
pub const NQN: &str = "nqn.2014-08.org.example:card";
const KEEP_ALIVE_MS: u32 = 600_000;
const MORE: u16 = 1 << 13;
const QUEUE_ENTRIES_ZERO_BASED: u16 = 31;

/// What a command moves.
#[derive(Debug, Clone, Default)]
pub enum Payload {
    #[default]
    None,
    Read(u32),
    /// By R2T.
    Write(Vec<u8>),
    InCapsule(Vec<u8>),
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub cid: u16,
    pub status: Status,
    pub result: u32,
    pub data: Vec<u8>,
}

/// One NVMe queue of a host.
pub struct Queue {
    pub socket: Socket,
    cid: u16,
    /// Commands under way: CID, data to be asked for, data that came.
    pending: Vec<(u16, Vec<u8>, Vec<u8>)>,
    /// Whether R2Ts are answered.
    pub generous: bool,
    /// Largest H2CData, in bytes.
    pub piece: usize,
    /// Asked for with the admin queue's Connect.
    pub keep_alive_ms: u32,
    /// Asked for with Connect.
    pub entries_zero_based: u16,
    /// NQN that Connect names.
    pub subsystem: String,
}

/// A host with an admin queue and an I/O queue.
pub struct Host {
    pub admin: Queue,
    pub io: Queue,
}

impl Host {
    /// Connects to the card; `id` makes it different from other hosts.
    pub fn connect(card: &mut Card, id: u8) -> Self {
        Self::connect_with(card, id, QUEUE_ENTRIES_ZERO_BASED)
    }

    /// The same with so many entries, zero-based, in the I/O queue.
    pub fn connect_with(card: &mut Card, id: u8, entries_zero_based: u16) -> Self {
        let admin = Queue::open(card);
        Self::connect_by(card, id, entries_zero_based, admin)
    }

    /// A host of another subsystem.
    pub fn connect_to(card: &mut Card, id: u8, subsystem: &str) -> Self {
        let admin = Queue::open_to(card, subsystem);
        Self::connect_by(card, id, QUEUE_ENTRIES_ZERO_BASED, admin)
    }

    fn connect_by(card: &mut Card, id: u8, entries_zero_based: u16, mut admin: Queue) -> Self {
        let cntlid = admin.connect(card, id, 0, 0xffff);
        let enable = property_set(0x14, 0x0046_0001);
        assert_eq!(admin.execute(card, enable, Payload::None).status, Status::SUCCESS);
        let mut io = Queue { entries_zero_based, subsystem: admin.subsystem.clone(), ..Queue::open(card) };
        io.connect(card, id, 1, cntlid);
        Self { admin, io }
    }

    /// The active NSIDs.
    pub fn namespaces(&mut self, card: &mut Card) -> Vec<u32> {
        let mut identify = Command { opcode: opcode::admin::IDENTIFY, ..Default::default() };
        identify.cdw10.set(2);
        let list = self.admin.execute(card, identify, Payload::Read(4096)).data;
        let ids = list.chunks_exact(4).map(|entry| u32::from_le_bytes(entry.try_into().unwrap()));
        ids.take_while(|&nsid| nsid != 0).collect()
    }

    /// Ends both queues by RST.
    pub fn reset(&self, card: &mut Card) {
        card.wire.reset(self.io.socket);
        card.wire.reset(self.admin.socket);
    }
}

impl Queue {
    /// A TCP connection on which ICReq and ICResp were exchanged.
    pub fn open(card: &mut Card) -> Self {
        let socket = card.wire.connect();
        card.run_until("a TCP connection opens", |card| card.wire.is_open(socket));
        let mut request = Initialize::new_zeroed();
        request.common = common(kind::INITIALIZE_REQUEST, 0, 128, 0, 128);
        card.wire.send(socket, request.as_bytes());
        card.run_until("ICResp comes", |card| card.wire.incoming(socket).len() >= 128);
        let response: Vec<u8> = card.wire.incoming(socket).drain(..128).collect();
        assert_eq!(response[0], kind::INITIALIZE_RESPONSE);
        Self {
            socket,
            cid: 0,
            pending: Vec::new(),
            generous: true,
            piece: 128 * 1024,
            keep_alive_ms: KEEP_ALIVE_MS,
            entries_zero_based: QUEUE_ENTRIES_ZERO_BASED,
            subsystem: NQN.into(),
        }
    }

    /// The same for a Connect that names this subsystem.
    pub fn open_to(card: &mut Card, subsystem: &str) -> Self {
        Self { subsystem: subsystem.into(), ..Self::open(card) }
    }

    pub fn connect(&mut self, card: &mut Card, host: u8, queue_id: u16, cntlid: u16) -> u16 {
        self.start_connect(card, host, queue_id, cntlid);
        let end = self.wait(card, 1).remove(0);
        assert_eq!(end.status, Status::SUCCESS, "Connect");
        end.result as u16
    }

    pub fn start_connect(&mut self, card: &mut Card, host: u8, queue_id: u16, cntlid: u16) {
        let mut connect = ConnectCommand::new_zeroed();
        connect.opcode = opcode::FABRICS;
        connect.fabrics_kind = fabrics::CONNECT;
        connect.queue_id.set(queue_id);
        connect.sq_size.set(self.entries_zero_based);
        connect.keep_alive_ms.set(if queue_id == 0 { self.keep_alive_ms } else { 0 });
        let mut data = ConnectData::new_zeroed();
        data.host_id = [host; 16];
        data.controller_id.set(cntlid);
        data.subsystem_nqn[..self.subsystem.len()].copy_from_slice(self.subsystem.as_bytes());
        let name = host_nqn(host);
        data.host_nqn[..name.len()].copy_from_slice(name.as_bytes());
        let command = Command::read_from_bytes(connect.as_bytes()).unwrap();
        self.start(card, command, Payload::InCapsule(data.as_bytes().to_vec()));
    }

    /// Sends a command; returns its CID.
    pub fn start(&mut self, card: &mut Card, mut command: Command, payload: Payload) -> u16 {
        self.cid = self.cid.wrapping_add(1);
        command.cid.set(self.cid);
        let sgl = |bytes: usize, identifier| {
            let mut sgl = SglDescriptor { identifier, ..Default::default() };
            sgl.length.set(bytes as u32);
            sgl
        };
        let (mut inside, mut later) = (Vec::new(), Vec::new());
        command.set_sgl(match payload {
            Payload::None => sgl(0, SglDescriptor::TRANSPORT),
            Payload::Read(bytes) => sgl(bytes as usize, SglDescriptor::TRANSPORT),
            Payload::Write(bytes) => {
                later = bytes;
                sgl(later.len(), SglDescriptor::TRANSPORT)
            }
            Payload::InCapsule(bytes) => {
                inside = bytes;
                sgl(inside.len(), SglDescriptor::IN_CAPSULE)
            }
        });
        let offset = if inside.is_empty() { 0 } else { 72 };
        let mut pdu = common(kind::COMMAND, 0, 72, offset, 72 + inside.len()).as_bytes().to_vec();
        pdu.extend(command.as_bytes());
        pdu.extend(inside);
        card.wire.send(self.socket, &pdu);
        self.pending.push((self.cid, later, Vec::new()));
        self.cid
    }

    /// Takes in what has come, answers R2Ts, and returns the commands that have ended.
    pub fn ended(&mut self, card: &mut Card) -> Vec<End> {
        let mut ended = Vec::new();
        loop {
            let incoming = card.wire.incoming(self.socket);
            let Ok((common, _)) = CommonHeader::read_from_prefix(incoming) else { return ended };
            let total = common.total_bytes.get() as usize;
            if incoming.len() < total {
                return ended;
            }
            let pdu: Vec<u8> = incoming.drain(..total).collect();
            match common.kind {
                kind::RESPONSE => {
                    let (response, _) = ResponseCapsule::read_from_prefix(&pdu).unwrap();
                    let completion = response.completion;
                    let place = self.place(completion.cid.get());
                    let (cid, _, data) = self.pending.remove(place);
                    // MORE only says that the error log has more.
                    let status = Status::from_field(completion.status().to_field() & !MORE);
                    ended.push(End { cid, status, result: completion.result.get(), data });
                }
                kind::CONTROLLER_DATA => {
                    let (header, _) = DataHeader::read_from_prefix(&pdu).unwrap();
                    let place = self.place(header.cid.get());
                    let start = usize::from(common.data_offset);
                    self.pending[place].2.extend(&pdu[start..start + header.length.get() as usize]);
                }
                kind::READY_TO_TRANSFER if self.generous => self.give(card, &pdu),
                kind::READY_TO_TRANSFER => {}
                other => panic!("PDU of type {other:#x}"),
            }
        }
    }

    fn give(&mut self, card: &mut Card, request: &[u8]) {
        let (request, _) = DataHeader::read_from_prefix(request).unwrap();
        let place = self.place(request.cid.get());
        let mut offset = request.offset.get() as usize;
        let end = offset + request.length.get() as usize;
        while offset < end {
            let bytes = (end - offset).min(self.piece);
            let last = if offset + bytes == end { flags::LAST } else { 0 };
            let mut header = request;
            header.common = common(kind::HOST_DATA, last, 24, 24, 24 + bytes);
            header.offset.set(offset as u32);
            header.length.set(bytes as u32);
            card.wire.send(self.socket, header.as_bytes());
            let data = self.pending[place].1[offset..offset + bytes].to_vec();
            card.wire.send(self.socket, &data);
            offset += bytes;
        }
    }

    /// A command that is under way: no response comes twice, and none for a command that was not sent.
    fn place(&self, cid: u16) -> usize {
        let found = self.pending.iter().position(|(pending, ..)| *pending == cid);
        found.unwrap_or_else(|| panic!("CID {cid} is not under way"))
    }

    /// Waits for the end of `count` commands.
    pub fn wait(&mut self, card: &mut Card, count: usize) -> Vec<End> {
        let mut ended = Vec::new();
        card.run_until("commands end", |card| {
            ended.extend(self.ended(card));
            assert!(!card.wire.has_ended(self.socket), "the card has ended the connection");
            ended.len() >= count
        });
        ended
    }

    /// Runs one command to its end, while no other is under way.
    pub fn execute(&mut self, card: &mut Card, command: Command, payload: Payload) -> End {
        self.start(card, command, payload);
        self.wait(card, 1).remove(0)
    }
}

/// NQN of a host.
pub fn host_nqn(id: u8) -> String {
    format!("nqn.2014-08.org.example:host{id}")
}

fn common(kind: u8, flags: u8, header: u8, offset: u8, total: usize) -> CommonHeader {
    let mut common =
        CommonHeader { kind, flags, header_bytes: header, data_offset: offset, ..Default::default() };
    common.total_bytes.set(total as u32);
    common
}

/// Property Set of 4 bytes.
pub fn property_set(offset: u32, value: u32) -> Command {
    let mut command = Command { opcode: opcode::FABRICS, ..Default::default() };
    command.nsid.set(u32::from(fabrics::PROPERTY_SET));
    command.cdw11.set(offset);
    command.cdw12.set(value);
    command
}

/// Property Get of 4 bytes.
pub fn property_get(offset: u32) -> Command {
    let mut command = Command { opcode: opcode::FABRICS, ..Default::default() };
    command.nsid.set(u32::from(fabrics::PROPERTY_GET));
    command.cdw11.set(offset);
    command
}

/// An I/O command with blocks.
pub fn blocks(opcode: u8, nsid: u32, start: u64, count: u32) -> Command {
    let mut command = Command { opcode, ..Default::default() };
    command.nsid.set(nsid);
    command.set_start_block(start);
    command.cdw12.set(count - 1);
    command
}
