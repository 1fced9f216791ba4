//! A drive against the fake controller: what it proves stands at each test.

mod bring_up;
mod copy;
mod failures;
mod many_cores;
mod media;
mod misbehaviour;
mod power;
mod removal;
mod requests;
mod sharing;
mod shutdown;

use core::time::Duration;

use controller::{BackendNamespace, IoCompletion, IoRequest, Operation, Rejected};
use hal_api::Instant;
use hal_fakes::{FakeNvme, NvmeConfig, NvmeControl, NvmeEffect, NvmeInjection};
use hal_mem::{Arena, DmaRegion, PAGE_BYTES, PagePool, Pages};

use crate::{Drive, DriveEvent, DriveMemory, NamespaceInfo};

const POOL_PAGES: usize = 2048;

/// A drive, its fake, a pool, and a clock that stands still unless it is moved.
struct Rig {
    drive: Drive<FakeNvme>,
    control: NvmeControl,
    pool: PagePool,
    now: Instant,
    ended: Vec<IoCompletion>,
    events: Vec<DriveEvent>,
}

impl Rig {
    fn new(config: NvmeConfig) -> Self {
        let (device, control) = FakeNvme::new(config);
        Self::over(device, control)
    }

    fn over(device: FakeNvme, control: NvmeControl) -> Self {
        let region = DmaRegion::leak_for_host(POOL_PAGES * PAGE_BYTES);
        control.allow_dma(&region);
        let links = Box::leak(vec![0; POOL_PAGES].into_boxed_slice());
        let pool = PagePool::new(region, links);
        let memory = DriveMemory::take(&mut Arena::leak_for_host(1 << 18)).unwrap();
        let drive = Drive::new(device, 1, memory);
        Self { drive, control, pool, now: Instant::ZERO, ended: Vec::new(), events: Vec::new() }
    }

    fn ready_with_media(config: NvmeConfig, media: Vec<Box<dyn hal_fakes::Media>>) -> Self {
        let (device, control) = FakeNvme::with_media(config, media);
        let mut rig = Self::over(device, control);
        rig.become_ready();
        rig
    }

    /// A rig whose drive is ready, its events dropped.
    fn ready(config: NvmeConfig) -> Self {
        let mut rig = Self::new(config);
        rig.become_ready();
        rig
    }

    fn become_ready(&mut self) {
        self.run_until(|rig| rig.drive.is_ready());
        // The first SMART log is read at once.
        self.run_until(|rig| rig.drive.smart().is_some());
        self.events.clear();
    }

    fn turn(&mut self) {
        self.drive.poll(self.now, &mut self.pool);
        self.ended.extend(core::iter::from_fn(|| self.drive.complete()));
        self.drive.flush();
        self.events.extend(core::iter::from_fn(|| self.drive.take_event()));
        self.now = self.now + Duration::from_micros(100);
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("still waiting after 200000 turns; events {:?}", self.events);
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// Lets what is out become late, and its Abort fail.
    fn be_late(&mut self) {
        for seconds in [15, 6] {
            self.pass(seconds);
            self.turn();
            self.turn();
        }
    }

    fn pages_with(&mut self, data: &[u8]) -> Pages {
        let pages = self.pool.take(data.len().div_ceil(PAGE_BYTES) as u32).expect("pages");
        assert_eq!(self.pool.write(&mut pages.start(), data), data.len());
        pages
    }

    fn submit(&mut self, request: IoRequest) -> Result<(), Rejected> {
        self.drive.submit(request, &mut self.pool, self.now)
    }

    /// Runs one request to its end; gives the status and what its pages hold then.
    fn execute(&mut self, request: IoRequest) -> (u16, Vec<u8>) {
        let token = request.token;
        let bytes = request.pages.capacity_bytes();
        self.submit(request).expect("room");
        self.run_until(|rig| !rig.ended.is_empty());
        let completion = self.ended.pop().unwrap();
        assert_eq!(completion.token, token);
        let pages = completion.pages.expect("not quarantined");
        let mut data = vec![0; bytes];
        self.pool.read(&mut pages.start(), &mut data);
        self.pool.give_back(pages);
        (completion.status.to_field(), data)
    }

    fn execute_flush(&mut self) -> nvme::Status {
        nvme::Status::from_field(self.execute(request(Operation::Flush, 0, 0, Pages::NONE)).0)
    }

    fn namespaces(&self) -> Vec<NamespaceInfo> {
        let found = self.events.iter().filter_map(|event| match event {
            DriveEvent::NamespaceFound(info) => Some(*info),
            _ => None,
        });
        found.collect()
    }

    fn inject(&self, opcode: u8, count: u32, effect: NvmeEffect) {
        self.control.inject(NvmeInjection { queue: Some(1), opcode: Some(opcode), skip: 0, count, effect });
    }
}

/// A request to namespace 1 with 512-byte blocks.
fn request(operation: Operation, start_block: u64, blocks: u32, pages: Pages) -> IoRequest {
    IoRequest {
        owner: 0,
        token: 7,
        namespace: BackendNamespace { drive: 0, nsid: 1 },
        operation,
        start_block,
        blocks,
        block_shift: 9,
        force_unit_access: false,
        pages,
    }
}

/// A small generator; the seed is printed by who uses it.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
