//! A whole card with several data cores, whose turns come in an order that a seed gives: a host's queues lie on all of them.

use nvme::opcode;

use super::host::property_get;
use super::*;

const CC: u32 = 0x14;
const CSTS: u32 = 0x1c;
const ENABLED: u32 = 0x0046_0001;
const QUEUES: usize = 8;
const SEEDS: u64 = 6;

/// A host whose I/O queues are spread over the cores.
struct Spread {
    id: u8,
    admin: Queue,
    cntlid: u16,
    io: Vec<Queue>,
}

impl Spread {
    fn admin(card: &mut Card, id: u8, core: usize, keep_alive_ms: u32) -> Self {
        card.wire.core = core;
        let mut admin = Queue::open(card);
        admin.keep_alive_ms = keep_alive_ms;
        let cntlid = admin.connect(card, id, 0, 0xffff);
        let mut host = Self { id, admin, cntlid, io: Vec::new() };
        host.set(card, ENABLED);
        host
    }

    fn connect(card: &mut Card, id: u8, core: usize, cores: usize) -> Self {
        let mut host = Self::admin(card, id, core, 5_000);
        host.connect_io(card, cores);
        host
    }

    /// All I/O queues at once, as hosts do it.
    fn connect_io(&mut self, card: &mut Card, cores: usize) {
        for id in 1..=QUEUES {
            card.wire.core = id % cores;
            let mut queue = Queue::open(card);
            queue.start_connect(card, self.id, id as u16, self.cntlid);
            self.io.push(queue);
        }
        for queue in &mut self.io {
            assert_eq!(queue.wait(card, 1)[0].status, Status::SUCCESS);
        }
    }

    fn set(&mut self, card: &mut Card, cc: u32) {
        assert_eq!(self.admin.execute(card, property_set(CC, cc), Payload::None).status, Status::SUCCESS);
    }

    fn wait_for_status(&mut self, card: &mut Card, wanted: u32) {
        for _ in 0..1000 {
            if self.admin.execute(card, property_get(CSTS), Payload::None).result == wanted {
                return;
            }
        }
        panic!("CSTS never becomes {wanted:#x}");
    }

    fn sockets(&self) -> Vec<wire::Socket> {
        self.io.iter().chain([&self.admin]).map(|queue| queue.socket).collect()
    }

    /// Writes on each queue at once, and reads each by the next one, which is on another core.
    fn write_and_read(&mut self, card: &mut Card, nsid: u32, seed: u32) {
        const BLOCKS: u32 = 24;
        let data = |index: usize| pattern(BLOCKS as usize * 512, seed + index as u32);
        let place = |index: usize| blocks(io::WRITE, nsid, index as u64 * u64::from(BLOCKS), BLOCKS);
        for (index, queue) in self.io.iter_mut().enumerate() {
            queue.start(card, place(index), Payload::Write(data(index)));
        }
        for queue in &mut self.io {
            assert_eq!(queue.wait(card, 1)[0].status, Status::SUCCESS);
        }
        for index in 0..self.io.len() {
            let read = Command { opcode: io::READ, ..place(index) };
            let reader = (index + 1) % self.io.len();
            let end = self.io[reader].execute(card, read, Payload::Read(BLOCKS * 512));
            assert!((end.status, end.data) == (Status::SUCCESS, data(index)), "queue {index}");
        }
    }

    fn namespaces(&mut self, card: &mut Card) -> Vec<u32> {
        let mut identify = Command { opcode: opcode::admin::IDENTIFY, ..Default::default() };
        identify.cdw10.set(2);
        let list = self.admin.execute(card, identify, Payload::Read(4096)).data;
        let ids = list.chunks_exact(4).map(|entry| u32::from_le_bytes(entry.try_into().unwrap()));
        ids.take_while(|&nsid| nsid != 0).collect()
    }
}

/// Waits until all hosts have gone from all cores; what their pools hold then.
fn all_idle(card: &mut Card) -> Vec<PoolCounts> {
    card.run_until("all connections are gone", |card| {
        card.cores_are_quiet()
            && card.all_counts().iter().all(|counts| counts.connections == 0 && counts.draining == 0)
    });
    card.all_counts()
}

fn boot(seed: u64) -> (Card, usize) {
    let cores = 2 + seed as usize % 3;
    let config = NvmeConfig { latency_polls: (0, 40), ..NvmeConfig::default() };
    let mut card = Card::boot_cores(96 << 20, cores, seed, [config.clone(), config]);
    // The drives' homes have told the other cores of their namespaces.
    card.pass(Duration::from_millis(300));
    (card, cores)
}

#[test]
fn a_host_with_queues_on_all_cores_resets_and_leaves_without_a_trace() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let before = card.all_counts();
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        let namespaces = host.namespaces(&mut card);
        assert_eq!(namespaces.len(), 2, "of whichever home");
        for (index, &nsid) in namespaces.iter().enumerate() {
            host.write_and_read(&mut card, nsid, index as u32);
        }
        host.set(&mut card, 0);
        host.wait_for_status(&mut card, 0);
        card.run_until("the I/O queues are closed", |card| {
            host.io.iter().all(|queue| card.wire.has_ended(queue.socket))
        });
        host.io.clear();
        host.set(&mut card, ENABLED);
        host.connect_io(&mut card, cores);
        host.write_and_read(&mut card, namespaces[0], 9);
        // An orderly end: CC.SHN, and CSTS.SHST once no core takes writes any more.
        host.set(&mut card, ENABLED | 1 << 14);
        host.wait_for_status(&mut card, 0b1001);
        host.sockets().into_iter().for_each(|socket| card.wire.reset(socket));
        assert_eq!(all_idle(&mut card), before);
    }
}

#[test]
fn a_host_whose_admin_connection_goes_loses_its_queues_on_all_cores() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let before = card.all_counts();
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        let nsid = host.namespaces(&mut card)[0];
        for (index, queue) in host.io.iter_mut().enumerate() {
            let write = blocks(io::WRITE, nsid, index as u64 * 64, 64);
            queue.start(&mut card, write, Payload::Write(pattern(64 * 512, 1)));
        }
        (0..seed * 3).for_each(|_| {
            card.turn();
        });
        card.wire.reset(host.admin.socket);
        card.run_until("the card has ended the I/O queues", |card| {
            host.io.iter().all(|queue| card.wire.has_ended(queue.socket))
        });
        assert_eq!(all_idle(&mut card), before);
    }
}

#[test]
fn a_host_that_dies_is_forgotten_on_all_cores_and_one_that_only_does_io_is_not() {
    for seed in 0..3 {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let before = card.all_counts();
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        let nsid = host.namespaces(&mut card)[0];
        for _ in 0..8 {
            card.pass(Duration::from_secs(2));
            let read = blocks(io::READ, nsid, 0, 8);
            assert_eq!(host.io[0].execute(&mut card, read, Payload::Read(4096)).status, Status::SUCCESS);
        }
        assert!(card.wire.is_open(host.admin.socket));
        host.sockets().into_iter().for_each(|socket| card.wire.silence(socket));
        assert_eq!(all_idle(&mut card), before);
    }
}

#[test]
fn a_host_that_comes_back_waits_for_its_old_writes_on_all_cores() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let before = card.all_counts();
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        let nsid = by_mark(&mut card, &mut host);
        // On the last core the drive swallows a write, until it is reset.
        let slow = cores - 1;
        let effect = NvmeEffect::Never;
        card.other_drives[slow - 1][0].inject(NvmeInjection {
            queue: Some(1),
            opcode: Some(io::WRITE),
            skip: 0,
            count: 1,
            effect,
        });
        let writer = host.io.iter_mut().enumerate().find(|(at, _)| (at + 1) % cores == slow).unwrap().1;
        writer.start(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(pattern(4096, 1)));
        card.pass(Duration::from_millis(5));
        let lost = card.now;
        host.sockets().into_iter().for_each(|socket| card.wire.reset(socket));
        // Another host is let in meanwhile.
        let other = Spread::connect(&mut card, 2, 0, cores);
        let back = Spread::admin(&mut card, 1, seed as usize % slow, 5_000);
        assert!(card.now.since(lost) > Duration::from_secs(15), "{:?}", card.now.since(lost));
        for host in [&other, &back] {
            host.sockets().into_iter().for_each(|socket| card.wire.reset(socket));
        }
        assert_eq!(all_idle(&mut card), before);
    }
}

/// The NSID of the first drive.
fn by_mark(card: &mut Card, host: &mut Spread) -> u32 {
    card.drives[0].write_disk(1, 0, &[77]);
    let namespaces = host.namespaces(card);
    let marked = namespaces.into_iter().find(|&nsid| {
        host.io[0].execute(card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096)).data[0] == 77
    });
    marked.expect("a namespace of the first drive")
}

#[test]
fn an_orderly_end_of_all_cores_finishes_what_is_inside() {
    let (mut card, cores) = boot(2);
    let mut host = Spread::connect(&mut card, 1, 0, cores);
    let nsid = host.namespaces(&mut card)[0];
    for (index, queue) in host.io.iter_mut().enumerate() {
        let write = blocks(io::WRITE, nsid, index as u64 * 8, 8);
        queue.start(&mut card, write, Payload::InCapsule(pattern(4096, 1)));
    }
    card.pass(Duration::from_micros(300));
    card.begin_shutdown();
    let mut ended = 0;
    card.run_until("the card has ended", |card| {
        ended += host.io.iter_mut().map(|queue| queue.ended(card).len()).sum::<usize>();
        card.is_shut_down()
    });
    ended += host.io.iter_mut().map(|queue| queue.ended(&mut card).len()).sum::<usize>();
    assert_eq!(ended, QUEUES);
    assert!(host.sockets().into_iter().all(|socket| card.wire.has_ended(socket)));
}
