//! One drive and several data cores, whose messages are carried by hand in any order that rings allow.
//!
//! The fake stops the test where a doorbell is rung for a controller or queue that is not ready, a CID is used twice, or memory
//! is touched that it was not given.

mod chaos;
mod leaving;
mod sharing;
mod writes;

use std::collections::VecDeque;

use hal_fakes::{Media, NvmeAbort};
use message::CoreSet;
use nvme::Status;
use nvme::opcode::io;

use super::*;
use crate::limits::{COMMAND_TIMEOUT, DRIVE_PAGES, IO_PAGES};
use crate::messages::Body;
use crate::status::INTERRUPTED;

/// Pages of each core: what a drive takes, and a few; they are never given back to the host.
const PAGES: usize = 192;
/// Blocks of the namespace.
const BLOCKS: usize = 256;

/// Tokens of writes, from this one on.
const WRITE: u32 = 8;

type Way = VecDeque<Body<hal_fakes::FakeNvmeQueue>>;

/// What one data core has.
struct Core {
    drive: Drive<FakeNvme>,
    pool: PagePool,
    ended: Vec<IoCompletion>,
    events: Vec<DriveEvent>,
}

/// A drive with its home on core `home`, and cores that have their turns in any order.
struct Rig {
    cores: Vec<Core>,
    home: usize,
    /// Queue pairs that the drive has for them.
    pairs: usize,
    control: NvmeControl,
    /// By sender and receiver.
    ways: Vec<Vec<Way>>,
    /// Messages that each takes.
    ring: usize,
    /// Cores stop when the drive is shut down.
    stops: bool,
    now: Instant,
    random: Random,
    free: Vec<u32>,
}

impl Rig {
    fn new(seed: u64, cores: usize, config: NvmeConfig, media: Vec<Box<dyn Media>>) -> Self {
        println!("seed {seed}, {cores} cores");
        let mut random = Random(seed ^ 0x5eed);
        let mut config = NvmeConfig { queue_pairs: cores as u16 + 1, seed: seed + 1, ..config };
        config.namespaces.iter_mut().for_each(|namespace| namespace.blocks = BLOCKS as u64);
        let pairs = cores.min(usize::from(config.io_queues_granted));
        let (device, control) = FakeNvme::with_media(config, media);
        let home = random.below(cores as u64) as usize;
        let mut device = Some(device);
        let cores: Vec<Core> = (0..cores)
            .map(|core| {
                let region = DmaRegion::leak_for_host(PAGES * PAGE_BYTES);
                control.allow_dma(&region);
                let pool = PagePool::new(region, Box::leak(vec![0; PAGES].into_boxed_slice()));
                let memory = DriveMemory::take(&mut Arena::leak_for_host(1 << 18)).unwrap();
                let place = (core as u8, cores as u8);
                let drive = match core == home {
                    true => Drive::at_home(device.take().unwrap(), place, 1, memory),
                    false => Drive::elsewhere(home as u8, 0x18, place, 1, memory),
                };
                Core { drive, pool, ended: Vec::new(), events: Vec::new() }
            })
            .collect();
        let ways = (0..cores.len()).map(|_| (0..cores.len()).map(|_| Way::new()).collect()).collect();
        let ring = 1 + random.below(16) as usize;
        Self {
            cores,
            home,
            pairs,
            control,
            ways,
            ring,
            stops: false,
            now: Instant::ZERO,
            random,
            free: Vec::new(),
        }
    }

    fn ready(seed: u64, cores: usize, config: NvmeConfig, media: Vec<Box<dyn Media>>) -> Self {
        let mut rig = Self::new(seed, cores, config, media);
        rig.run_until("ready", Self::is_ready);
        rig.run_until("SMART", |rig| rig.cores[rig.home].drive.smart().is_some());
        rig.run(200);
        rig.cores.iter_mut().for_each(|core| core.events.clear());
        rig.free = rig.cores.iter().map(|core| core.pool.free()).collect();
        rig
    }

    fn is_ready(&self) -> bool {
        self.cores.iter().all(|core| core.drive.is_ready())
    }

    fn turn(&mut self, index: usize) {
        let core = &mut self.cores[index];
        core.drive.note_time(self.now);
        core.drive.poll(self.now, &mut core.pool);
        let ended: Vec<IoCompletion> = core::iter::from_fn(|| core.drive.complete()).collect();
        // A write that may still happen is told as ended only once no core sends another.
        let may_happen = ended.iter().any(|ended| ended.token >= WRITE && ended.pages.is_none());
        let nobody_sends = self.cores.iter().all(|core| !core.drive.queue_is_running());
        assert!(
            !may_happen || nobody_sends || !self.control.bus_master(),
            "a write may come after a later one"
        );
        let core = &mut self.cores[index];
        core.ended.extend(ended);
        core.drive.flush();
        core.events.extend(core::iter::from_fn(|| core.drive.take_event()));
        while let room = self.room(index)
            && let Some((to, body)) = self.cores[index].drive.take_message(0, room)
        {
            self.ways[index][usize::from(to)].push_back(body);
        }
        while self.room(index) == CoreSet::all_but(index as u8, self.cores.len() as u8)
            && let Some((nsid, sent)) = self.cores[index].drive.take_flushed()
        {
            for to in (0..self.ways.len()).filter(|&to| to != index) {
                self.ways[index][to].push_back(Body::Flushed { nsid, sent });
            }
        }
    }

    /// The cores whose rings are not full.
    fn room(&self, from: usize) -> CoreSet {
        let mut room = CoreSet::NONE;
        let others = (0..self.cores.len()).filter(|&to| to != from);
        others.filter(|&to| self.ways[from][to].len() < self.ring).for_each(|to| room.insert(to as u8));
        room
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(body) = self.ways[from][to].pop_front() else { return };
        let core = &mut self.cores[to];
        match body {
            Body::Joined { .. } | Body::Leaving | Body::Leave => {}
            body => {
                core.drive.note_time(self.now);
                core.drive.hear(from as u8, body, self.now, &mut core.pool);
            }
        }
    }

    /// Something happens on some core.
    fn step(&mut self) {
        let cores = self.cores.len() as u64;
        let (one, other) = (self.random.below(cores) as usize, self.random.below(cores) as usize);
        let is_over = |core: usize| self.stops && self.cores[core].drive.is_shut_down();
        let (one_is_over, other_is_over) = (is_over(one), is_over(other));
        match self.random.below(3) {
            0 if !one_is_over => self.turn(one),
            1 | 2 if !other_is_over => self.deliver(one, other),
            _ => {}
        }
        self.now = self.now + Duration::from_micros(self.random.below(30));
    }

    fn run(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..400_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("still waiting until {what}");
    }

    /// Time passes, in which all cores have their turns.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.run(30 * self.cores.len());
    }

    fn submit(&mut self, core: usize, request: IoRequest) -> Result<(), Rejected> {
        let core = &mut self.cores[core];
        core.drive.submit(request, &mut core.pool, self.now)
    }

    fn pages_with(&mut self, core: usize, byte: u8) -> Pages {
        let pool = &mut self.cores[core].pool;
        let pages = pool.take(1).expect("pages");
        pool.write(&mut pages.start(), &[byte; 512]);
        pages
    }

    fn begin(&mut self, core: usize, operation: Operation, block: u64, byte: u8) {
        let request = match operation {
            Operation::Flush => request(operation, 0, 0, Pages::NONE),
            _ => request(operation, block, 1, self.pages_with(core, byte)),
        };
        let token = if operation == Operation::Write { WRITE } else { 7 };
        let request = IoRequest { token, ..request };
        assert!(self.submit(core, request).is_ok(), "{operation:?} on core {core}");
    }

    /// One request to its end.
    fn execute(&mut self, core: usize, operation: Operation, block: u64, byte: u8) -> Status {
        self.begin(core, operation, block, byte);
        self.run_until("a request has ended", |rig| !rig.cores[core].ended.is_empty());
        self.end_of(core)
    }

    /// The end of one request, its pages given back.
    fn end_of(&mut self, core: usize) -> Status {
        let core = &mut self.cores[core];
        let ended = core.ended.pop().expect("an end");
        if let Some(pages) = ended.pages {
            core.pool.give_back(pages);
        }
        ended.status
    }

    fn ends_of_all(&mut self) -> Vec<Status> {
        let cores = 0..self.cores.len();
        cores
            .flat_map(|core| (0..self.cores[core].ended.len()).map(move |_| core))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|core| self.end_of(core))
            .collect()
    }

    fn outstanding(&self) -> usize {
        self.cores.iter().map(|core| core.drive.outstanding()).sum()
    }

    fn inject(&self, core: usize, opcode: u8, count: u32, effect: NvmeEffect) {
        let queue = Some((core % self.pairs) as u16 + 1);
        self.control.inject(NvmeInjection { queue, opcode: Some(opcode), skip: 0, count, effect });
    }

    fn resets(&self) -> u64 {
        self.cores[self.home].drive.counters().resets
    }

    /// All pages are back where they came from, and nobody has said what makes no sense.
    fn check_quiet(&mut self) {
        self.ends_of_all();
        let free: Vec<u32> = self.cores.iter().map(|core| core.pool.free()).collect();
        assert_eq!((free, self.outstanding()), (self.free.clone(), 0));
        assert!(self.cores.iter().all(|core| core.drive.faults() == 0));
    }

    fn losses(&self) -> Vec<usize> {
        let is_loss = |event: &&DriveEvent| matches!(event, DriveEvent::WritesLost { nsid: 1 });
        self.cores.iter().map(|core| core.events.iter().filter(is_loss).count()).collect()
    }
}

/// 2 to 4 cores in turn.
fn cores_of(seed: u64) -> usize {
    2 + (seed % 3) as usize
}

#[test]
fn each_core_gets_a_queue_of_its_own() {
    for seed in 0..30 {
        let cores = cores_of(seed);
        let mut rig = Rig::ready(seed, cores, NvmeConfig::default(), Vec::new());
        for core in 0..cores {
            rig.inject(core, io::READ, 1, NvmeEffect::Status(0x0281));
            assert_eq!(rig.execute(core, Operation::Write, core as u64, core as u8 + 1), Status::SUCCESS);
            let error = rig.execute(core, Operation::Read, core as u64, 0);
            assert_eq!(error, Status::UNRECOVERED_READ_ERROR, "its own queue");
            assert_eq!(rig.control.read_disk(1, core * 512, 512), vec![core as u8 + 1; 512]);
            let own = if core == rig.home { DRIVE_PAGES } else { IO_PAGES };
            assert_eq!(rig.cores[core].pool.free(), PAGES as u32 - own);
        }
        rig.check_quiet();
    }
}

#[test]
fn namespaces_are_known_on_all_cores_before_home_tells_of_them() {
    for seed in 0..30 {
        let namespaces = (1..=9).map(|nsid| hal_fakes::NvmeNamespace::new(nsid, 64, 9)).collect();
        let config = NvmeConfig { namespaces, ..NvmeConfig::default() };
        let cores = cores_of(seed);
        let mut rig = Rig::new(seed, cores, config, Vec::new());
        let home = rig.home;
        rig.run_until("a namespace is found", |rig| !rig.cores[home].events.is_empty());
        for core in 0..cores {
            let namespace = BackendNamespace { drive: 0, nsid: 9 };
            rig.submit(core, IoRequest { namespace, ..request(Operation::Flush, 0, 0, Pages::NONE) })
                .unwrap();
        }
        rig.run_until("all have ended", |rig| rig.cores.iter().all(|core| core.ended.len() == 1));
        assert!(rig.ends_of_all().iter().all(|status| status.is_success()));
        assert!(rig.cores.iter().enumerate().all(|(core, of)| core == home || of.events.is_empty()));
    }
}

#[test]
fn a_late_command_of_any_core_is_aborted_by_home() {
    for seed in 0..60 {
        let cores = cores_of(seed);
        let mut rig = Rig::ready(seed, cores, NvmeConfig::default(), Vec::new());
        rig.control.set_abort(NvmeAbort::Works);
        for core in 0..cores {
            rig.inject(core, io::READ, 3, NvmeEffect::Never);
            (0..3).for_each(|_| rig.begin(core, Operation::Read, 0, 0));
        }
        rig.run(100);
        rig.now = rig.now + COMMAND_TIMEOUT;
        rig.run_until("all are aborted", |rig| rig.cores.iter().all(|core| core.ended.len() == 3));
        assert!(rig.ends_of_all().iter().all(|status| *status == INTERRUPTED));
        for core in 0..cores {
            let counters = rig.cores[core].drive.counters();
            assert_eq!((counters.command_timeouts, counters.aborted), (3, 3));
        }
        assert_eq!(rig.resets(), 0);
        rig.check_quiet();
    }
}

#[test]
fn a_reset_stops_all_cores_and_all_pages_come_back_after_it() {
    for seed in 0..100 {
        let cores = cores_of(seed);
        let config = NvmeConfig { latency_polls: (0, 300), ready_polls: 20, ..NvmeConfig::default() };
        let mut rig = Rig::ready(seed, cores, config, Vec::new());
        let culprit = rig.random.below(cores as u64) as usize;
        rig.inject(culprit, io::READ, 1, NvmeEffect::Never);
        for core in 0..cores {
            for block in 0..20 {
                rig.begin(core, [Operation::Read, Operation::Write][block as usize % 2], block, 7);
            }
        }
        rig.run(20);
        // The culprit's command is late, its Abort does not help, and the others have work at the drive when it is reset.
        for time in [COMMAND_TIMEOUT, crate::limits::ABORT_TIMEOUT] {
            rig.pass(time);
            for core in 0..cores {
                (0..5).for_each(|block| rig.begin(core, Operation::Write, block, 8));
            }
        }
        // Commands that overtake it give it a little more time.
        for _ in 0..10 {
            if rig.resets() == 0 {
                rig.pass(Duration::from_secs(1));
            }
        }
        rig.run_until("it was reset", |rig| rig.resets() == 1 && rig.is_ready());
        rig.run_until("all have ended", |rig| rig.outstanding() == 0);
        let ends = rig.ends_of_all();
        assert_eq!(ends.len(), 30 * cores);
        assert!(ends.iter().all(|status| status.is_success() || *status == INTERRUPTED));
        assert!(ends.contains(&INTERRUPTED));
        rig.check_quiet();
        assert_eq!(rig.execute(culprit, Operation::Read, 0, 0), Status::SUCCESS);
    }
}

#[test]
fn pages_of_any_core_stay_in_quarantine_until_the_drive_is_reset() {
    for seed in 0..30 {
        let cores = cores_of(seed);
        let mut rig = Rig::ready(seed, cores, NvmeConfig::default(), Vec::new());
        rig.control.set_ready_stuck(true);
        for core in 0..cores {
            rig.inject(core, io::READ, 4, NvmeEffect::Never);
            (0..4).for_each(|_| rig.begin(core, Operation::Read, 0, 0));
        }
        rig.run(200);
        rig.pass(COMMAND_TIMEOUT);
        rig.pass(crate::limits::ABORT_TIMEOUT);
        rig.run_until("hosts are told", |rig| rig.cores.iter().all(|core| core.ended.len() == 4));
        for core in &rig.cores {
            assert_eq!(core.drive.quarantined(), 4);
            assert!(core.ended.iter().all(|ended| ended.pages.is_none()));
        }
        rig.ends_of_all();
        // The fake scribbles over what hangs when it is reset: whoever had the pages by then would see it.
        rig.control.set_ready_stuck(false);
        rig.run_until("it is back", |rig| rig.resets() == 1 && rig.is_ready());
        rig.check_quiet();
    }
}
