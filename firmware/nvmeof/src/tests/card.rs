//! A target with everything around it that it needs: wires, a drive in memory, a clock that is told.

use std::collections::VecDeque;
use std::net::IpAddr;

use controller::{
    Backend, BackendNamespace, ControllerSlot, IoCompletion, IoRequest, Namespace, Operation, PortId,
    RejectReason, Rejected, Subsystem, SubsystemConfig, SubsystemPlace,
};
use hal_api::Instant;
use hal_mem::{Arena, PagePool};
use nvme::{CopyRange, Status};
use zerocopy::IntoBytes;

use crate::{ConnectionState, Counts, Environment, Limits, QueueIndex, Stream, Target};

pub(super) const NQN: &str = "nqn.2026-01.example:card";
pub(super) const BLOCKS: u64 = 8192;
pub(super) const POOL_PAGES: usize = 4096;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    pub to_target: VecDeque<u8>,
    pub to_host: Vec<u8>,
    /// What the host has taken off the wire and not yet understood.
    pub taken: Vec<u8>,
    /// Largest piece shown to the target in either direction.
    pub fragment: usize,
    /// How much may lie unread at the host.
    pub window: usize,
    pub closed: bool,
    pub aborted: bool,
}

impl Stream for Pipe {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let bytes: Vec<u8> = self.to_target.iter().take(self.fragment).copied().collect();
        let taken = take(&bytes);
        assert!(taken <= bytes.len());
        self.to_target.drain(..taken);
        taken
    }

    fn send_room(&self) -> usize {
        self.window.saturating_sub(self.to_host.len())
    }

    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut room = vec![0xee; self.send_room().min(self.fragment)];
        let sent = fill(&mut room);
        self.to_host.extend(&room[..sent]);
        sent
    }

    fn close(&mut self) {
        self.closed = true;
    }

    fn abort(&mut self) {
        self.aborted = true;
    }
}

/// A drive of 512-byte blocks in memory.
pub(super) struct Ram {
    pub bytes: Vec<u8>,
    pub pending: Vec<IoRequest>,
    /// Requests stay until they are asked for.
    pub hold: bool,
    /// Requests taken at a time.
    pub places: usize,
    pub submitted: usize,
}

impl Backend for Ram {
    fn submit(&mut self, request: IoRequest, _: &mut PagePool, _: Instant) -> Result<(), Rejected> {
        if self.pending.len() >= self.places {
            return Err(Rejected { request, reason: RejectReason::Busy });
        }
        self.submitted += 1;
        self.pending.push(request);
        Ok(())
    }

    fn smart(&self, _: u8) -> Option<&nvme::log_page::SmartLog> {
        None
    }
}

impl Ram {
    fn copy(&mut self, request: &IoRequest, ranges: u16, pool: &PagePool) {
        let mut cursor = request.pages.start();
        let mut gathered = Vec::new();
        for _ in 0..ranges {
            let mut range = CopyRange::default();
            pool.read(&mut cursor, range.as_mut_bytes());
            let start = (range.start_block.get() << request.block_shift) as usize;
            gathered
                .extend(&self.bytes[start..start + ((range.block_count() as usize) << request.block_shift)]);
        }
        let at = (request.start_block << request.block_shift) as usize;
        self.bytes[at..at + gathered.len()].copy_from_slice(&gathered);
    }

    fn carry_out(&mut self, request: IoRequest, pool: &mut PagePool) -> IoCompletion {
        let start = (request.start_block << request.block_shift) as usize;
        let bytes = (request.blocks as usize) << request.block_shift;
        let area = self.bytes.get_mut(start..start + bytes).expect("bounds were checked at admission");
        let mut status = Status::SUCCESS;
        match request.operation {
            Operation::Read => assert_eq!(pool.write(&mut request.pages.start(), area), bytes),
            Operation::Write => assert_eq!(pool.read(&mut request.pages.start(), area), bytes),
            Operation::WriteZeroes { .. } => area.fill(0),
            Operation::Copy { ranges } => self.copy(&request, ranges, pool),
            Operation::Compare => {
                let mut theirs = vec![0; bytes];
                pool.read(&mut request.pages.start(), &mut theirs);
                if theirs != *area {
                    status = Status::COMPARE_FAILURE;
                }
            }
            Operation::Flush | Operation::DatasetManagement { .. } => {}
            Operation::Verify | Operation::WriteUncorrectable => {}
        }
        IoCompletion { token: request.token, status, pages: Some(request.pages) }
    }
}

/// No limits: the base of those that tests give.
pub(crate) const UNLIMITED: Limits = Limits {
    connections: u16::MAX,
    slots: u16::MAX,
    data_pages_per_connection: u32::MAX,
    connections_per_address: u16::MAX,
    controllers_per_address: u16::MAX,
    namespace_meters: 4,
    traces: 16,
};

/// A card with one namespace, NSID 1.
pub(super) struct Card {
    pub target: Target,
    pub subsystem: Subsystem,
    pub pool: PagePool,
    pub ram: Ram,
    pub now: Instant,
    pub pipes: Vec<(QueueIndex, Pipe)>,
    /// Where the next connection comes from.
    pub peer: Option<IpAddr>,
    pub port: PortId,
    pub budget_bytes: u32,
    /// Largest piece that the next connection shows to the target.
    pub fragment: usize,
    /// Completions come newest first.
    pub reverse: bool,
}

macro_rules! environment {
    ($card:expr) => {
        Environment { subsystem: &mut $card.subsystem, pool: &mut $card.pool, backend: &mut $card.ram }
    };
}

impl Card {
    pub fn new() -> Self {
        Self::with(
            Limits { connections: 16, slots: 600, data_pages_per_connection: 512, ..UNLIMITED },
            POOL_PAGES,
        )
    }

    pub fn with(limits: Limits, pages: usize) -> Self {
        let controllers = Box::leak(Box::new([const { ControllerSlot::EMPTY }; 16]));
        let config = SubsystemConfig::new(NQN.try_into().unwrap(), "PEN0001");
        let mut subsystem = Subsystem::new(config, controllers);
        let namespace = Namespace {
            key: 1,
            subsystem: SubsystemPlace::DEFAULT,
            stamp: 0,
            nsid: 1,
            attachment: 0,
            backend: BackendNamespace { drive: 0, nsid: 1 },
            block_shift: 9,
            blocks: BLOCKS,
            nguid: [1; 16],
            eui64: [1; 8],
            uuid: [1; 16],
            volatile_write_cache: true,
            optimal: Default::default(),
            deallocate_features: 0,
            write_uncorrectable: false,
        };
        subsystem.attach(namespace).unwrap();
        let mut arena = Arena::leak_for_host(4 << 20);
        let bytes = (0..(BLOCKS as usize) << 9).map(|i| (i ^ i >> 9) as u8).collect();
        Self {
            target: Target::new(&mut arena, limits).unwrap(),
            subsystem,
            pool: PagePool::leak_for_host(pages),
            ram: Ram { bytes, pending: Vec::new(), hold: false, places: 1000, submitted: 0 },
            now: Instant::from_millis(1000),
            pipes: Vec::new(),
            peer: None,
            port: PortId::FIRST,
            budget_bytes: 128 * 1024,
            fragment: 65536,
            reverse: false,
        }
    }

    pub fn open(&mut self) -> Option<QueueIndex> {
        let index = self.target.open(self.now, self.port, self.peer).ok()?;
        let pipe = Pipe {
            to_target: VecDeque::new(),
            to_host: Vec::new(),
            taken: Vec::new(),
            fragment: self.fragment,
            window: 1 << 22,
            closed: false,
            aborted: false,
        };
        self.pipes.push((index, pipe));
        Some(index)
    }

    pub fn pipe(&mut self, index: QueueIndex) -> &mut Pipe {
        &mut self.pipes.iter_mut().rev().find(|(at, _)| *at == index).unwrap().1
    }

    pub fn is_open(&mut self, index: QueueIndex) -> bool {
        let pipe = self.pipe(index);
        !pipe.closed && !pipe.aborted
    }

    pub fn send(&mut self, index: QueueIndex, bytes: &[u8]) {
        self.pipe(index).to_target.extend(bytes);
        if self.is_open(index) {
            self.target.wake(index);
        }
    }

    /// Lets everything happen that can without time going by.
    pub fn run(&mut self) {
        for (index, pipe) in &self.pipes {
            if !pipe.closed && !pipe.aborted {
                self.target.wake(*index);
            }
        }
        for _ in 0..100_000 {
            let mut idle = true;
            let mut from = QueueIndex(0);
            for _ in 0..self.pipes.len().max(1) {
                let Some(index) = self.target.next_ready(from) else { break };
                idle = false;
                from = QueueIndex(index.0 + 1);
                self.poll(index);
            }
            if !self.ram.hold && !self.ram.pending.is_empty() {
                idle = false;
                self.complete(if self.reverse { self.ram.pending.len() - 1 } else { 0 });
            }
            if idle {
                return;
            }
        }
        panic!("the card never comes to rest");
    }

    pub fn poll(&mut self, index: QueueIndex) {
        let mut env = environment!(self);
        let pipe = &mut self.pipes.iter_mut().rev().find(|(at, _)| *at == index).unwrap().1;
        let unread = pipe.to_host.len();
        let progress = self.target.poll(index, self.now, pipe, &mut env, self.budget_bytes);
        assert!(pipe.to_host.len() - unread <= self.budget_bytes as usize);
        assert_eq!(progress.state == ConnectionState::Closed, pipe.closed || pipe.aborted);
    }

    pub fn complete(&mut self, position: usize) {
        let request = self.ram.pending.remove(position);
        let completion = self.ram.carry_out(request, &mut self.pool);
        self.complete_with(completion);
    }

    pub fn complete_with(&mut self, completion: IoCompletion) {
        let mut env = environment!(self);
        self.target.complete(completion, self.now, &mut env);
    }

    pub fn tick_at(&mut self, now: Instant) {
        self.now = now;
        let mut env = environment!(self);
        self.target.tick(now, &mut env);
        for position in 0..self.pipes.len() {
            let (index, pipe) = &self.pipes[position];
            if !pipe.closed && !pipe.aborted && self.target.has_work(*index) {
                self.poll(*index);
            }
        }
        self.run();
    }

    /// The host's side of the connection vanishes.
    pub fn cut(&mut self, index: QueueIndex) {
        if self.is_open(index) {
            let mut env = environment!(self);
            self.target.closed(index, self.now, &mut env);
            self.pipe(index).aborted = true;
        }
    }

    /// Ends all connections and checks that everything came back.
    pub fn assert_clean(&mut self) {
        for position in 0..self.pipes.len() {
            self.cut(self.pipes[position].0);
        }
        while !self.ram.pending.is_empty() {
            self.complete(0);
        }
        let Counts { slots_free, slots_total, connections, draining, .. } = self.target.counts();
        assert_eq!((slots_free, connections, draining), (slots_total, 0, 0));
        assert_eq!((self.pool.free(), self.pool.promised()), (self.pool.available(), 0));
        assert!(self.target.next_ready(QueueIndex(0)).is_none());
        assert!(!self.target.holds_locks(), "blocks are still locked for a pair");
        self.pipes.clear();
    }
}
