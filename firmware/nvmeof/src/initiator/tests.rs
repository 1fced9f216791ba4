//! A target that does everything wrong, one thing at a time, and one whose bytes are changed at random.

mod bad_target;
mod mutations;
mod readiness;

use nvme::{Completion, Status};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::{Fault, HostQueue, Payload, QueueOptions, Slot};
use crate::Stream;
use crate::pdu::{CommonHeader, DataHeader, Digests, Initialize, ResponseCapsule, flags, kind};

/// Bytes from and to a target that a test writes by hand.
#[derive(Default)]
struct Wire {
    from_target: Vec<u8>,
    to_target: Vec<u8>,
    fragment: usize,
}

impl Stream for Wire {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let shown = self.from_target.len().min(self.fragment);
        let taken = take(&self.from_target[..shown]);
        self.from_target.drain(..taken);
        taken
    }

    fn send_room(&self) -> usize {
        1 << 20
    }

    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut room = [0; 512];
        let sent = fill(&mut room);
        self.to_target.extend(&room[..sent]);
        sent
    }

    fn close(&mut self) {}

    fn abort(&mut self) {}
}

/// Commands' memory of a fixed size each: a byte outside of it fails the test.
struct Bounds {
    bytes: u32,
    stored: Vec<u8>,
}

impl Payload for Bounds {
    fn store(&mut self, _: u64, offset: u32, bytes: &[u8]) {
        assert!(offset as usize + bytes.len() <= self.bytes as usize);
        self.stored.extend(bytes);
    }

    fn load(&mut self, _: u64, offset: u32, room: &mut [u8]) {
        assert!(offset as usize + room.len() <= self.bytes as usize);
        room.fill(0x5a);
    }
}

struct World {
    queue: HostQueue<[Slot; 4]>,
    wire: Wire,
    memory: Bounds,
}

const BYTES: u32 = 4096;

impl World {
    /// A connection whose ICReq is out.
    fn fresh(digests: Digests) -> Self {
        let options = QueueOptions { digests, alignment: 1 };
        let queue = HostQueue::new([Slot::default(); 4], options);
        let wire = Wire { fragment: 1000, ..Wire::default() };
        let memory = Bounds { bytes: BYTES, stored: Vec::new() };
        let mut world = Self { queue, wire, memory };
        world.poll().unwrap();
        assert_eq!(world.wire.to_target.len(), 128);
        world
    }

    /// A connection that is live, with nothing sent but ICReq.
    fn live(digests: Digests) -> Self {
        let mut world = Self::fresh(digests);
        world.say(icresp(digests).as_bytes()).unwrap();
        assert!(world.queue.is_live());
        world.wire.to_target.clear();
        world
    }

    fn poll(&mut self) -> Result<usize, Fault> {
        self.queue.poll(&mut self.wire, &mut self.memory)
    }

    fn say(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.wire.from_target.extend(bytes);
        self.poll()
    }

    /// The CID of the command in the last capsule that was sent, which has no data.
    fn cid(&self) -> u16 {
        let capsule = &self.wire.to_target[self.wire.to_target.len() - 72..];
        u16::from_le_bytes([capsule[10], capsule[11]])
    }
}

fn icresp(digests: Digests) -> Initialize {
    let mut response = Initialize::new_zeroed();
    response.common = CommonHeader {
        kind: kind::INITIALIZE_RESPONSE,
        header_bytes: 128,
        total_bytes: U32::new(128),
        ..CommonHeader::default()
    };
    response.digests = digests.to_field();
    response.limit = U32::new(4096);
    response
}

fn response(cid: u16, status: Status, sq_head: u16) -> ResponseCapsule {
    let mut completion = Completion::new(cid, status, 0);
    completion.sq_head = U16::new(sq_head);
    let common = CommonHeader {
        kind: kind::RESPONSE,
        header_bytes: 24,
        total_bytes: U32::new(24),
        ..CommonHeader::default()
    };
    ResponseCapsule { common, completion }
}

fn data_header(kind: u8, cid: u16, offset: u32, length: u32) -> DataHeader {
    let is_data = kind == kind::CONTROLLER_DATA;
    let common = CommonHeader {
        kind,
        flags: if is_data { flags::LAST } else { 0 },
        header_bytes: 24,
        data_offset: if is_data { 24 } else { 0 },
        total_bytes: U32::new(if is_data { 24 + length } else { 24 }),
    };
    DataHeader {
        common,
        cid: U16::new(cid),
        tag: U16::new(3),
        offset: U32::new(offset),
        length: U32::new(length),
        reserved: [0; 4],
    }
}

/// The header with so much data behind it.
fn with_data(header: &DataHeader, bytes: u32) -> Vec<u8> {
    let mut pdu = header.as_bytes().to_vec();
    pdu.resize(24 + bytes as usize, 0xa5);
    pdu
}
