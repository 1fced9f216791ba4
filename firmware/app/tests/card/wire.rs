//! The far end of the card's wire: ARP, IPv4 and TCP (RFC 826, 791, 9293), as little of them as a host on a wire
//! without loss needs. It opens connections, sends, acknowledges and resets; it never repeats a segment.

use std::collections::VecDeque;

use hal_api::{FrameQueue, FrameReceive, FrameTransmit};
use hal_fakes::FakeFrameQueue;

const CARD_PORT: u16 = 4420;
const SEGMENT_BYTES: usize = 1400;
const WINDOW: u16 = 0xffff;
/// MSS of 1460 bytes; window scale of 7 (RFC 7323).
const WIDE: [u8; 8] = [2, 4, 5, 180, 1, 3, 3, 7];

/// Where connections come from unless a test says otherwise.
const OWN_STATION: u8 = 2;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A TCP connection of ours, by its wire and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    wire: usize,
    index: usize,
}

/// The wires to the card: one for each port of each core.
pub struct Wires {
    wires: Vec<Wire>,
    /// The wire that the next connection goes by. Where each core has one port, it is the core.
    pub next: usize,
    /// The station, the last byte of its address, that the next connection comes from.
    pub station: u8,
    /// Frames that have gone by, both ways.
    pub frames: u64,
}

impl Wires {
    /// Wires to ports in the networks 10.0.N.0/24.
    pub fn new(queues: Vec<(u8, FakeFrameQueue)>) -> Self {
        Self {
            wires: queues.into_iter().map(|(net, queue)| Wire::new(net, queue)).collect(),
            next: 0,
            station: OWN_STATION,
            frames: 0,
        }
    }

    /// Connections from now on have segments as large as the wire takes, and windows larger than what a turn can fill.
    pub fn widen(&mut self) {
        self.wires.iter_mut().for_each(|wire| wire.options = WIDE.to_vec());
    }

    /// Begins a connection.
    pub fn connect(&mut self) -> Socket {
        Socket { wire: self.next, index: self.wires[self.next].connect(self.station) }
    }

    pub fn is_open(&self, socket: Socket) -> bool {
        self.wires[socket.wire].is_open(socket.index)
    }

    pub fn has_ended(&self, socket: Socket) -> bool {
        self.wires[socket.wire].connections[socket.index].ended
    }

    pub fn send(&mut self, socket: Socket, bytes: &[u8]) {
        self.wires[socket.wire].connections[socket.index].outgoing.extend(bytes);
    }

    /// What has arrived and was not taken.
    pub fn incoming(&mut self, socket: Socket) -> &mut Vec<u8> {
        &mut self.wires[socket.wire].connections[socket.index].incoming
    }

    /// Ends a connection by RST.
    pub fn reset(&mut self, socket: Socket) {
        self.wires[socket.wire].reset(socket.index);
    }

    /// The host of a connection dies without a word.
    pub fn silence(&mut self, socket: Socket) {
        self.wires[socket.wire].connections[socket.index].silent = true;
    }

    /// The host of a connection reads nothing any more: its window is shut.
    pub fn shut(&mut self, socket: Socket) {
        self.wires[socket.wire].connections[socket.index].shut = true;
    }

    /// Takes the link of a wire down, which loses all frames, or up.
    pub fn set_link(&mut self, wire: usize, up: bool) {
        self.wires[wire].queue.set_link(up);
    }

    pub fn poll(&mut self) -> usize {
        let moved = self.wires.iter_mut().map(Wire::poll).sum();
        self.frames += moved as u64;
        moved
    }
}

#[derive(Debug, Default)]
struct Connection {
    own: [u8; 4],
    port: u16,
    open: bool,
    /// The card has ended it, by FIN or RST.
    ended: bool,
    next_to_send: u32,
    acknowledged: u32,
    next_to_receive: u32,
    window: u32,
    /// What the card's windows are to be shifted by.
    shift: u8,
    outgoing: VecDeque<u8>,
    incoming: Vec<u8>,
    owes_ack: bool,
    /// Nothing is taken in or acknowledged any more: the host is dead.
    silent: bool,
    /// Nothing more is wanted: the window is 0.
    shut: bool,
}

/// All connections to the card over one port.
struct Wire {
    queue: FakeFrameQueue,
    /// The card's address on this wire.
    card: [u8; 4],
    card_mac: Option<[u8; 6]>,
    /// What is told in SYN: nothing, so that segments are of 536 bytes and windows of 64 KiB, or what a real host tells.
    options: Vec<u8>,
    connections: Vec<Connection>,
}

impl Wire {
    fn new(net: u8, queue: FakeFrameQueue) -> Self {
        Self { queue, card: [10, 0, net, 1], card_mac: None, options: Vec::new(), connections: Vec::new() }
    }

    fn connect(&mut self, station: u8) -> usize {
        let index = self.connections.len();
        let port = 40_000 + index as u16;
        let start = 1000 * index as u32;
        let [a, b, c, _] = self.card;
        let own = [a, b, c, station];
        let connection =
            Connection { own, port, next_to_send: start, acknowledged: start, ..Default::default() };
        self.connections.push(connection);
        if self.card_mac.is_some() {
            self.segment(index, SYN, &[]);
        } else {
            self.ask_for_card();
        }
        index
    }

    fn is_open(&self, index: usize) -> bool {
        self.connections[index].open && !self.connections[index].ended
    }

    fn reset(&mut self, index: usize) {
        self.segment(index, RST | ACK, &[]);
        self.connections[index].ended = true;
    }

    /// Takes in and answers what has arrived, and sends what the window allows. Returns the frames moved.
    fn poll(&mut self) -> usize {
        let mut moved = 0;
        while let Some(frame) = self.queue.halves().0.receive(<[u8]>::to_vec) {
            self.frame(&frame);
            moved += 1;
        }
        for index in 0..self.connections.len() {
            loop {
                let connection = &mut self.connections[index];
                if !connection.open || connection.ended || connection.silent {
                    break;
                }
                let in_flight = connection.next_to_send.wrapping_sub(connection.acknowledged);
                let room = connection.window.saturating_sub(in_flight) as usize;
                let bytes = connection.outgoing.len().min(room).min(SEGMENT_BYTES);
                if bytes == 0 && !connection.owes_ack {
                    break;
                }
                let data: Vec<u8> = connection.outgoing.drain(..bytes).collect();
                self.segment(index, ACK, &data);
                moved += 1;
            }
        }
        self.queue.flush();
        moved
    }

    fn frame(&mut self, frame: &[u8]) {
        match u16::from_be_bytes([frame[12], frame[13]]) {
            0x0806 => self.resolution(frame),
            0x0800 if frame[23] == 6 => self.receive_segment(frame),
            _ => {}
        }
    }

    fn resolution(&mut self, frame: &[u8]) {
        let asked: [u8; 4] = frame[38..42].try_into().unwrap();
        if asked[..3] != self.card[..3] || asked == self.card {
            return;
        }
        let sender: [u8; 6] = frame[22..28].try_into().unwrap();
        if frame[21] == 1 {
            self.send_resolution(2, asked, sender);
        }
        if self.card_mac.replace(sender).is_none() {
            for index in 0..self.connections.len() {
                self.segment(index, SYN, &[]);
            }
        }
    }

    fn ask_for_card(&mut self) {
        let [a, b, c, _] = self.card;
        self.send_resolution(1, [a, b, c, OWN_STATION], [0xff; 6]);
    }

    fn send_resolution(&mut self, operation: u8, own: [u8; 4], target: [u8; 6]) {
        let mac = self.queue.info().mac;
        let mut frame = Vec::new();
        frame.extend(target);
        frame.extend(mac);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(mac);
        frame.extend(own);
        frame.extend(target);
        frame.extend(self.card);
        self.transmit(&frame);
    }

    fn receive_segment(&mut self, frame: &[u8]) {
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let (packet, header) = (&frame[14..14 + total], usize::from(frame[14] & 15) * 4);
        let segment = &packet[header..];
        let port = u16::from_be_bytes([segment[2], segment[3]]);
        let Some(index) = self.connections.iter().position(|connection| connection.port == port) else {
            return;
        };
        let connection = &mut self.connections[index];
        let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
        let (sequence, flags) = (number(4), segment[13]);
        let data = &segment[usize::from(segment[12] >> 4) * 4..];
        if connection.silent {
            return;
        }
        if flags & RST != 0 {
            connection.ended = true;
            return;
        }
        if flags & ACK != 0 {
            connection.acknowledged = number(8);
            connection.window = u32::from(u16::from_be_bytes([segment[14], segment[15]])) << connection.shift;
        }
        if flags & SYN != 0 {
            let options = &segment[20..usize::from(segment[12] >> 4) * 4];
            let scale = options.windows(3).find(|option| option[..2] == [3, 3]).map_or(0, |option| option[2]);
            connection.shift = scale;
            connection.open = true;
            connection.next_to_receive = sequence.wrapping_add(1);
            connection.owes_ack = true;
        } else if connection.shut && !data.is_empty() {
            // Beyond the window.
            connection.owes_ack = true;
        } else if sequence == connection.next_to_receive {
            connection.incoming.extend(data);
            let fin = u32::from(flags & FIN != 0);
            connection.next_to_receive = sequence.wrapping_add(data.len() as u32 + fin);
            connection.ended |= fin == 1;
            connection.owes_ack |= !data.is_empty();
        } else {
            // A probe or a repetition.
            connection.owes_ack = true;
        }
    }

    fn segment(&mut self, index: usize, flags: u8, data: &[u8]) {
        let Some(card_mac) = self.card_mac else { return };
        let connection = &mut self.connections[index];
        let options = if flags & SYN != 0 { self.options.as_slice() } else { &[] };
        let total = (40 + options.len() + data.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend(connection.own);
        packet.extend(self.card);
        let checksum = header_checksum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(connection.port.to_be_bytes());
        packet.extend(CARD_PORT.to_be_bytes());
        packet.extend(connection.next_to_send.to_be_bytes());
        packet.extend(connection.next_to_receive.to_be_bytes());
        packet.extend([(5 + options.len() as u8 / 4) << 4, flags]);
        packet.extend(if connection.shut { 0 } else { WINDOW }.to_be_bytes());
        // The port's device vouches for TCP checksums.
        packet.extend([0; 4]);
        packet.extend(options);
        packet.extend(data);
        let one = u32::from(flags & (SYN | FIN) != 0);
        connection.next_to_send = connection.next_to_send.wrapping_add(data.len() as u32 + one);
        connection.owes_ack = false;
        let mut frame = card_mac.to_vec();
        frame.extend(self.queue.info().mac);
        frame.extend([8, 0]);
        frame.extend(packet);
        self.transmit(&frame);
    }

    fn transmit(&mut self, frame: &[u8]) {
        let sent = self.queue.halves().1.transmit(frame.len(), |room| room.copy_from_slice(frame), |_| None);
        assert!(sent.is_ok(), "room for a frame");
    }
}

fn header_checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
