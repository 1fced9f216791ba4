//! The PDU stream of a hostile host into the NVMe/TCP target.

use std::collections::VecDeque;
use std::time::Duration;

use controller::{
    Backend, BackendNamespace, ControllerSlot, IoCompletion, IoRequest, Namespace, Operation, RejectReason,
    Rejected, Subsystem, SubsystemConfig, SubsystemPlace,
};
use hal_api::Instant;
use hal_mem::PagePool;
use nvme::Status;
use nvmeof::{ConnectionState, Environment, Limits, QueueIndex, Stream, Target};

use crate::memory::{Input, Memory};

const NQN: &str = "nqn.2026-01.example:card";
const BLOCKS: u64 = 64;
const PAGES: usize = 512;
/// At a time at the drive.
const PLACES: usize = 4;

/// The host's end of a connection.
struct Pipe {
    to_target: VecDeque<u8>,
    to_host: Vec<u8>,
    /// Largest piece that the target sees.
    fragment: usize,
    over: bool,
}

impl Stream for Pipe {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let bytes: Vec<u8> = self.to_target.iter().take(self.fragment).copied().collect();
        let taken = take(&bytes);
        self.to_target.drain(..taken);
        taken
    }
    fn send_room(&self) -> usize {
        (1 << 20) - self.to_host.len()
    }
    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut room = vec![0; self.send_room().min(self.fragment)];
        let sent = fill(&mut room);
        self.to_host.extend(&room[..sent]);
        sent
    }
    fn close(&mut self) {
        self.over = true;
    }
    fn abort(&mut self) {
        self.over = true;
    }
}

/// A drive that takes requests and ends them when it is told to.
struct Drive(VecDeque<IoRequest>);

impl Backend for Drive {
    fn submit(&mut self, request: IoRequest, _: &mut PagePool, _: Instant) -> Result<(), Rejected> {
        if self.0.len() >= PLACES {
            return Err(Rejected { request, reason: RejectReason::Busy });
        }
        let bytes = u64::from(request.blocks) << request.block_shift;
        if matches!(request.operation, Operation::Read | Operation::Write | Operation::Compare) {
            assert!(request.start_block + u64::from(request.blocks) <= BLOCKS, "beyond the namespace");
            assert!(bytes <= request.pages.capacity_bytes() as u64, "more blocks than pages");
        }
        self.0.push_back(request);
        Ok(())
    }
    fn smart(&self, _: u8) -> Option<&nvme::log_page::SmartLog> {
        None
    }
}

struct Card {
    target: Target,
    subsystem: Subsystem,
    pool: PagePool,
    drive: Drive,
    now: Instant,
    connections: Vec<(QueueIndex, Pipe)>,
}

/// The bytes say what happens: which of two connections gets how many of the bytes that follow, when requests end, when
/// a connection is cut, when time passes. The first byte sets the size of fragments and how far the first connection has
/// come before: nothing, ICReq, Connect, enabled.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut memory = Memory::take();
    let mut card = Card::new(&mut memory);
    let setting = input.byte();
    let fragment = [1, 7, 64, 8192][usize::from(setting & 3)];
    for pipe in &mut card.connections {
        pipe.1.fragment = fragment;
    }
    let stages: [&[u8]; 3] = [&initialize(), &connect(0, 0xffff), &enable()];
    for stage in stages.iter().take(usize::from(setting >> 2 & 3)) {
        card.send(0, stage);
    }
    if setting & 0x10 != 0 {
        card.send(1, &initialize());
        card.send(1, &connect(1, 1));
    }
    while !input.0.is_empty() {
        match input.byte() {
            255 => card.complete_one(),
            254 => card.cut(0),
            253 => card.cut(1),
            252 => card.pass(Duration::from_secs(u64::from(input.byte()))),
            control => {
                let bytes = input.bytes(usize::from(control >> 1) * 8 + 8);
                card.send(usize::from(control & 1), bytes);
            }
        }
    }
    card.finish();
}

impl Card {
    fn new(memory: &mut Memory) -> Self {
        let mut arena = memory.arena(2 << 20);
        let controllers = arena.slice(4, |_| ControllerSlot::EMPTY).expect("room for controllers");
        let config = SubsystemConfig::new(NQN.try_into().expect("a short name"), "PEN0001");
        let mut subsystem = Subsystem::new(config, controllers);
        let namespace = Namespace {
            key: 1,
            subsystem: SubsystemPlace::DEFAULT,
            stamp: 0,
            nsid: 1,
            attachment: 0,
            backend: BackendNamespace { drive: 0, nsid: 1 },
            block_shift: 12,
            blocks: BLOCKS,
            nguid: [1; 16],
            eui64: [1; 8],
            uuid: [1; 16],
            volatile_write_cache: true,
            optimal: Default::default(),
            deallocate_features: 0,
            write_uncorrectable: false,
        };
        subsystem.attach(namespace).expect("room for a namespace");
        let limits = Limits {
            connections: 4,
            slots: 200,
            data_pages_per_connection: 64,
            connections_per_address: 4,
            controllers_per_address: 4,
            namespace_meters: 4,
            traces: 16,
        };
        let target = Target::new(&mut arena, limits).expect("room for a target");
        let pool = memory.pool(PAGES);
        let now = Instant::from_millis(1000);
        let drive = Drive(VecDeque::new());
        let mut card = Self { target, subsystem, pool, drive, now, connections: Vec::new() };
        for _ in 0..2 {
            let index = card.target.open(now, controller::PortId::FIRST, None).expect("a free connection");
            let pipe = Pipe { to_target: VecDeque::new(), to_host: Vec::new(), fragment: 1, over: false };
            card.connections.push((index, pipe));
        }
        card
    }

    fn environment<'a>(
        subsystem: &'a mut Subsystem,
        pool: &'a mut PagePool,
        backend: &'a mut Drive,
    ) -> Environment<'a, Drive> {
        Environment { subsystem, pool, backend }
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) {
        let (index, pipe) = &mut self.connections[connection];
        if !pipe.over {
            pipe.to_target.extend(bytes);
            self.target.wake(*index);
        }
        self.settle();
    }

    /// Polls until nothing is ready; what the host would read is thrown away.
    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            let Some(ready) = self.target.next_ready(QueueIndex(0)) else { return };
            let Some((index, pipe)) =
                self.connections.iter_mut().find(|(at, pipe)| *at == ready && !pipe.over)
            else {
                panic!("a connection without a peer is ready");
            };
            let mut env = Self::environment(&mut self.subsystem, &mut self.pool, &mut self.drive);
            let progress = self.target.poll(*index, self.now, pipe, &mut env, 128 * 1024);
            pipe.to_host.clear();
            assert_eq!(progress.state == ConnectionState::Closed, pipe.over);
            if !pipe.over && !pipe.to_target.is_empty() && progress.work > 0 {
                self.target.wake(ready);
            }
        }
        panic!("the card never comes to rest");
    }

    fn complete_one(&mut self) {
        if let Some(request) = self.drive.0.pop_front() {
            let completion =
                IoCompletion { token: request.token, status: Status::SUCCESS, pages: Some(request.pages) };
            let mut env = Self::environment(&mut self.subsystem, &mut self.pool, &mut self.drive);
            self.target.complete(completion, self.now, &mut env);
        }
        self.settle();
    }

    fn cut(&mut self, connection: usize) {
        let (index, pipe) = &mut self.connections[connection];
        if !std::mem::replace(&mut pipe.over, true) {
            let mut env = Self::environment(&mut self.subsystem, &mut self.pool, &mut self.drive);
            self.target.closed(*index, self.now, &mut env);
        }
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let mut env = Self::environment(&mut self.subsystem, &mut self.pool, &mut self.drive);
        self.target.tick(self.now, &mut env);
        self.settle();
    }

    /// Everything has to come back once the connections have gone and the drive has ended what it has.
    fn finish(&mut self) {
        self.cut(0);
        self.cut(1);
        while !self.drive.0.is_empty() {
            self.complete_one();
        }
        let counts = self.target.counts();
        assert_eq!((counts.slots_free, counts.connections, counts.draining), (counts.slots_total, 0, 0));
        assert_eq!((self.pool.free(), self.pool.promised()), (self.pool.available(), 0), "pages are lost");
    }
}

/// ICReq without digests (TCP 3.6.2.2).
fn initialize() -> [u8; 128] {
    let mut pdu = [0; 128];
    pdu[2] = 128;
    pdu[4] = 128;
    pdu
}

/// Capsule with a fabrics command.
fn capsule(function: u8, data_bytes: usize) -> Vec<u8> {
    let mut pdu = vec![0; 72 + data_bytes];
    let length = pdu.len() as u32;
    (pdu[0], pdu[2]) = (4, 72);
    pdu[3] = if data_bytes > 0 { 72 } else { 0 };
    pdu[4..8].copy_from_slice(&length.to_le_bytes());
    (pdu[8], pdu[9], pdu[10], pdu[12]) = (0x7f, 0x40, 1, function);
    pdu
}

/// Connect (Base 6.3) of queue `qid` with 16 entries, in a controller of that number.
fn connect(qid: u16, controller: u16) -> Vec<u8> {
    let mut pdu = capsule(1, 1024);
    pdu[8 + 32..8 + 36].copy_from_slice(&1024u32.to_le_bytes());
    pdu[8 + 39] = 0x01;
    pdu[8 + 42..8 + 44].copy_from_slice(&qid.to_le_bytes());
    pdu[8 + 44] = 15;
    pdu[8 + 48..8 + 52].copy_from_slice(&120_000u32.to_le_bytes());
    let data = &mut pdu[72..];
    data[0] = 7;
    data[16..18].copy_from_slice(&controller.to_le_bytes());
    data[256..256 + NQN.len()].copy_from_slice(NQN.as_bytes());
    data[512..512 + 19].copy_from_slice(b"nqn.2026-01.ex:host");
    pdu
}

/// Property Set of CC with EN, 64-byte and 16-byte entries.
fn enable() -> Vec<u8> {
    let mut pdu = capsule(0, 0);
    pdu[8 + 44] = 0x14;
    pdu[8 + 48..8 + 52].copy_from_slice(&0x0046_0001u32.to_le_bytes());
    pdu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_lead_to_a_controller_that_serves() {
        let mut memory = Memory::take();
        let mut card = Card::new(&mut memory);
        for pipe in &mut card.connections {
            pipe.1.fragment = 8192;
        }
        for stage in [initialize().to_vec(), connect(0, 0xffff), enable()] {
            card.send(0, &stage);
        }
        card.send(1, &initialize());
        card.send(1, &connect(1, 1));
        assert!(card.connections.iter().all(|(_, pipe)| !pipe.over), "nobody was turned away");
        // A read of block 0, answered from the card's pages.
        let mut read = capsule(0, 0);
        (read[8], read[9], read[12]) = (2, 0x40, 1);
        read[8 + 32..8 + 36].copy_from_slice(&4096u32.to_le_bytes());
        read[8 + 39] = 0x5a;
        card.send(1, &read);
        assert_eq!(card.drive.0.len(), 1, "the read is at the drive");
        card.finish();
    }
}
