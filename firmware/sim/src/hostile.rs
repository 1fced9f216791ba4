//! A host that keeps to no rule: connections that say nothing, garbage or half of a PDU, that never read, that ask for
//! data and never send it, byte by byte; and frames that no stack would make.
//!
//! What it asks for never changes blocks: its writes never bring all their data, so that what others read is theirs.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::QueueStream;
use fastrand::Rng;
use hal_api::{Instant, PortInfo};
use hal_fakes::{FakeFrameQueue, FarEnd, frame_queue_pair};
use hal_mem::Arena;
use net::{Addressing, Config, ConnectionId, Stack, StreamState};
use nvme::{Command, SglDescriptor, opcode};
use nvmeof::initiator::{BringUp, HostQueue, Identity, QueueOptions, Slot, commands as make};
use nvmeof::pdu::{CommonHeader, kind};
use zerocopy::IntoBytes;

use crate::card;
use crate::host::Common;
use crate::kinds::Kind;
use crate::network::Network;

const SOCKETS: usize = 12;
const MOST_CONNECTIONS: usize = 8;
const SOCKET_BYTES: usize = 16 * 1024;
const CARD: ([u8; 4], u16) = ([10, 0, 0, 1], 4420);
const BUDGET: usize = 64;
/// Mean time between two acts in microseconds.
const PAUSE_US: u64 = 4000;
/// Where a capsule's PDU has the opcode.
const OPCODE_PLACE: usize = 8;
/// The I/O commands that change blocks (NVM 3.2). No admin command of the card does.
const CHANGES_BLOCKS: [u8; 5] = [
    opcode::io::WRITE,
    opcode::io::WRITE_UNCORRECTABLE,
    opcode::io::WRITE_ZEROES,
    opcode::io::DATASET_MANAGEMENT,
    opcode::io::COPY,
];

/// How far a connection plays by the rules.
enum Part {
    /// As the admin queue of an association, until that is up.
    Admin(Box<HostQueue<Vec<Slot>>>, Box<BringUp>),
    /// As an I/O queue, until that is up.
    Io(Box<HostQueue<Vec<Slot>>>, Box<BringUp>),
    /// No longer.
    Wild,
}

struct Evil {
    stream: ConnectionId,
    part: Part,
    /// Bytes that go out, so many at a time.
    outgoing: Vec<u8>,
    rate: usize,
    /// Whether it takes in what comes.
    reads: bool,
}

/// The host.
pub struct Hostile {
    index: usize,
    port: usize,
    stack: Stack<FakeFrameQueue>,
    news: FarEnd,
    random: Rng,
    evils: Vec<Evil>,
    next_act: Instant,
    /// The last association's controller and namespaces.
    controller_id: u16,
    namespaces: Vec<u32>,
    over: bool,
}

impl Hostile {
    /// Hostile host `index`, plugged into the network.
    #[must_use]
    pub fn new(index: usize, network: &mut Network, mut random: Rng, common: &Common) -> Self {
        let now = common.time.now();
        let mac = [2, 0, 0, 0, 2, index as u8];
        let info =
            PortInfo { mac, mtu: 1500, receive_checksums_verified: false, transmit_checksum_offload: false };
        let (queue, far) = frame_queue_pair(info, info, 64);
        let config = Config {
            addressing: Addressing::Static {
                address: [10, 0, 0, 100 + index as u8].into(),
                prefix: 24,
                gateway: None,
            },
            mtu_limit: 1500,
            sockets: SOCKETS,
            receive_bytes: SOCKET_BYTES,
            transmit_bytes: SOCKET_BYTES,
            ports: &[],
            ..Config::default()
        };
        let mut arena = Arena::leak_for_host(config.memory_bytes() + (64 << 10));
        let stack = Stack::new(queue, &config, &mut arena, random.u64(..), now).expect("enough memory");
        let port = network.plug(far, mac, false);
        let news = network.watch(port);
        Self {
            index,
            port,
            stack,
            news,
            random,
            evils: Vec::new(),
            next_act: now,
            controller_id: 0,
            namespaces: Vec::new(),
            over: false,
        }
    }

    /// When it wants to be stepped.
    #[must_use]
    pub fn next_step(&mut self, now: Instant) -> Instant {
        if self.over {
            return Instant::FAR_FUTURE;
        }
        if self.news.has_frame() {
            return now;
        }
        let stack = self.stack.next_deadline(now).unwrap_or(Instant::FAR_FUTURE);
        stack.max(now + Duration::from_micros(50)).min(self.next_act)
    }

    /// It is cut off, without a word or with resets.
    pub fn stop(&mut self, network: &mut Network) {
        if self.random.bool() {
            for evil in self.evils.drain(..) {
                if let Some(mut stream) = self.stack.stream(evil.stream) {
                    stream.abort();
                }
            }
            self.stack.transmit(self.next_act, BUDGET);
            self.stack.flush();
            network.collect(self.port);
        }
        self.over = true;
    }

    /// One step: frames in, something bad, frames out.
    pub fn step(&mut self, common: &Common, network: &mut Network) {
        let now = common.time.now();
        self.stack.poll(now, BUDGET);
        for place in (0..self.evils.len()).rev() {
            if !self.go_on(place, common) {
                let evil = self.evils.swap_remove(place);
                self.stack.release(evil.stream);
                common.trace.event(
                    Kind::HostileEnded,
                    &[self.index as u64],
                    format_args!("hostile {}", self.index),
                );
            }
        }
        if now >= self.next_act {
            self.next_act = now + Duration::from_micros(self.random.u64(0..=2 * PAUSE_US));
            self.act(common, network);
        }
        self.stack.transmit(now, BUDGET);
        self.stack.flush();
        network.collect(self.port);
    }

    fn act(&mut self, common: &Common, network: &mut Network) {
        match self.random.u32(0..10) {
            0..3 if self.evils.len() < MOST_CONNECTIONS => self.open(common),
            3 if !self.evils.is_empty() => {
                let evil = self.evils.swap_remove(self.random.usize(0..self.evils.len()));
                if let Some(mut stream) = self.stack.stream(evil.stream) {
                    stream.abort();
                }
                self.stack.release(evil.stream);
            }
            4 | 5 => {
                for _ in 0..self.random.usize(1..=6) {
                    let frame = self.frame();
                    common.trace.event(
                        Kind::HostileFrame,
                        &[frame.len() as u64],
                        format_args!("{} bytes", frame.len()),
                    );
                    network.route(self.port, &frame);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, common: &Common) {
        let Ok(stream) = self.stack.connect(SocketAddr::from(CARD), common.time.now()) else { return };
        let queue =
            |slots: usize| Box::new(HostQueue::new(vec![Slot::default(); slots], QueueOptions::default()));
        let identity =
            Identity::new([0xee; 16], "nqn.2014-08.org.example:evil", card::NQN).expect("names that fit");
        let keep_alive_ms = [0, 2000, 120_000][self.random.usize(0..3)];
        let play = self.random.u32(0..6);
        let (part, outgoing) = match play {
            0 => (Part::Wild, Vec::new()),
            1 => (Part::Wild, (0..self.random.usize(1..3000)).map(|_| self.random.u8(..)).collect()),
            2 => (Part::Wild, self.spoiled()),
            3 if self.controller_id != 0 => {
                (Part::Io(queue(16), Box::new(BringUp::io(identity, self.controller_id, 1))), Vec::new())
            }
            _ => (Part::Admin(queue(31), Box::new(BringUp::admin(identity, keep_alive_ms, 2))), Vec::new()),
        };
        let rate = [1, 7, usize::MAX][self.random.usize(0..3)];
        let reads = self.random.u32(0..3) > 0;
        self.evils.push(Evil { stream, part, outgoing, rate, reads });
        common.trace.event(
            Kind::HostileOpens,
            &[self.index as u64, play.into()],
            format_args!("hostile {}, play {play}", self.index),
        );
    }

    /// Lets a connection go on; false when it is over.
    fn go_on(&mut self, place: usize, common: &Common) -> bool {
        let evil = &mut self.evils[place];
        let Some(stream) = self.stack.stream(evil.stream) else { return false };
        match stream.state() {
            StreamState::Connecting => return true,
            StreamState::Closed => return false,
            StreamState::Open | StreamState::PeerClosed => {}
        }
        let mut stream = QueueStream(stream);
        match &mut evil.part {
            Part::Admin(queue, bring_up) | Part::Io(queue, bring_up) => {
                if queue.poll(&mut stream, &mut **bring_up).is_err() {
                    return false;
                }
                match bring_up.advance(queue, common.time.now()) {
                    Ok(false) => {}
                    Ok(true) => {
                        let info = bring_up.info();
                        self.controller_id = info.controller_id;
                        if !info.namespaces.is_empty() {
                            self.namespaces =
                                info.namespaces.iter().map(|namespace| namespace.nsid).collect();
                        }
                        let admin = matches!(evil.part, Part::Admin(..));
                        self.evils[place].part = Part::Wild;
                        let wild = self.wild(admin);
                        self.evils[place].outgoing = wild;
                    }
                    Err(_) => return false,
                }
            }
            Part::Wild => {
                let stream = &mut stream.0;
                if evil.reads {
                    stream.receive(<[u8]>::len);
                }
                let count = evil.rate.min(evil.outgoing.len());
                let sent = stream.send(|room| {
                    let count = count.min(room.len());
                    room[..count].copy_from_slice(&evil.outgoing[..count]);
                    count
                });
                evil.outgoing.drain(..sent);
                if sent > 0 {
                    let values = [self.index as u64, sent as u64];
                    common.trace.detail(Kind::HostileSends, &values, format_args!("{sent} bytes"));
                }
            }
        }
        true
    }

    /// Commands after a proper beginning: real ones that it will not see through, and spoiled ones.
    fn wild(&mut self, admin: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let honest = self.random.bool();
        for _ in 0..self.random.u16(1..40) {
            let cid = if honest { bytes.len() as u16 } else { self.random.u16(0..8) };
            let start = bytes.len();
            let command = if admin { self.admin_command() } else { self.io_command() };
            capsule(&mut bytes, command, cid);
            if !honest && self.random.u32(0..3) == 0 {
                spoil(&mut self.random, &mut bytes[start..]);
            }
            if self.random.u32(0..4) == 0 {
                self.host_data(&mut bytes, cid);
            }
        }
        bytes
    }

    fn admin_command(&mut self) -> (Command, u32) {
        match self.random.u32(0..4) {
            0 => (make::async_event_request(), 0),
            1 => (make::property_get(self.random.u32(0..0x40), 4), 0),
            2 => (make::keep_alive(), 0),
            _ => (make::identify(self.random.u8(0..8), self.random.u32(..)), 4096),
        }
    }

    /// Reads as large as they may be, and writes whose data will never all come.
    fn io_command(&mut self) -> (Command, u32) {
        let nsid =
            self.namespaces.get(self.random.usize(0..self.namespaces.len().max(1))).copied().unwrap_or(1);
        let (start, blocks) = (self.random.u64(0..64), self.random.u32(1..=64));
        match self.random.u32(0..5) {
            0 => (make::flush(nsid), 0),
            1 => (make::write(nsid, start, blocks), blocks * 4096),
            _ => (make::read(nsid, start, blocks), blocks * 4096),
        }
    }

    /// H2CData that nobody asked for, or half of it.
    fn host_data(&mut self, bytes: &mut Vec<u8>, cid: u16) {
        let length = self.random.u32(0..200);
        let mut pdu = vec![0xee; 24 + length as usize];
        let header = header(kind::HOST_DATA, 24, if length > 0 { 24 } else { 0 }, pdu.len());
        pdu[..8].copy_from_slice(header.as_bytes());
        pdu[8..10].copy_from_slice(&cid.to_le_bytes());
        pdu[10..12].copy_from_slice(&self.random.u16(0..64).to_le_bytes());
        pdu[12..16].copy_from_slice(&(self.random.u32(0..3) * 100).to_le_bytes());
        pdu[16..20].copy_from_slice(&length.to_le_bytes());
        pdu[20..24].fill(0);
        bytes.extend(pdu);
    }

    /// An ICReq and what may follow it, with bytes changed.
    fn spoiled(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes[..8].copy_from_slice(header(kind::INITIALIZE_REQUEST, 128, 0, 128).as_bytes());
        let first = if self.random.bool() { 128 } else { 0 };
        capsule(&mut bytes, (make::connect(0, 31, 0, true), 1024), 0);
        capsule(&mut bytes, (make::keep_alive(), 0), 1);
        spoil(&mut self.random, &mut bytes[first..]);
        bytes
    }

    /// A request for a connection from somewhere, or rubbish.
    fn frame(&mut self) -> Vec<u8> {
        let own = [2, 0, 0, 0, 2, self.index as u8];
        let mut frame = [card::MAC, own].concat();
        if self.random.u32(0..3) == 0 {
            frame.extend([8, 0]);
            frame.extend((0..self.random.usize(0..200)).map(|_| self.random.u8(..)));
            return frame;
        }
        let source = [10, 0, 0, self.random.u8(200..210)];
        let (port, sequence) = (self.random.u16(1024..), self.random.u32(..));
        let flags = [2, 2, 2, 16, 4, 1, 18][self.random.usize(0..7)];
        frame.extend([8, 0]);
        frame.extend(segment(source, port, sequence, flags));
        frame
    }
}

/// Changes some bytes of a PDU; but no command becomes one that changes blocks.
fn spoil(random: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..random.usize(1..6) {
        let place = random.usize(0..bytes.len());
        bytes[place] = [0, 0xff, 0x80, 2, random.u8(..)][random.usize(0..5)];
    }
    if let Some(byte) = bytes.get_mut(OPCODE_PLACE)
        && CHANGES_BLOCKS.contains(byte)
    {
        *byte = opcode::io::READ;
    }
}

fn header(kind: u8, header_bytes: u8, data_offset: u8, total: usize) -> CommonHeader {
    let mut common = CommonHeader { kind, flags: 0, header_bytes, data_offset, ..CommonHeader::default() };
    common.total_bytes.set(total as u32);
    common
}

/// A command whose data, if it has any, moves outside of the capsule.
fn capsule(bytes: &mut Vec<u8>, (mut command, data): (Command, u32), cid: u16) {
    command.cid.set(cid);
    let mut sgl = SglDescriptor { identifier: SglDescriptor::TRANSPORT, ..SglDescriptor::default() };
    sgl.length.set(data);
    command.set_sgl(sgl);
    bytes.extend(header(kind::COMMAND, 72, 0, 72).as_bytes());
    bytes.extend(command.as_bytes());
}

/// An IPv4 packet with a TCP segment without data, both with their checksums.
fn segment(source: [u8; 4], port: u16, sequence: u32, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(source);
    packet.extend(CARD.0);
    let sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(CARD.1.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    // The pseudo header: both addresses, the protocol, the length.
    let pseudo = u32::from(!checksum(&packet[12..20], 0)) + 6 + 20;
    let sum = checksum(&packet[20..], pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum =
        bytes.chunks(2).fold(start, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spoiled_command_changes_blocks() {
        let mut random = Rng::with_seed(7);
        for _ in 0..100_000 {
            let mut bytes = [opcode::io::READ; OPCODE_PLACE + 1];
            spoil(&mut random, &mut bytes);
            // By number, so that the list is not checked by itself: NVM figure 16.
            assert!(![0x01, 0x04, 0x08, 0x09, 0x19].contains(&bytes[OPCODE_PLACE]), "{bytes:02x?}");
        }
    }
}
