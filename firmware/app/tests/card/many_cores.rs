//! A whole card with several data cores, whose turns come in an order that a seed gives: a host's queues lie on all of them.

use nvme::opcode;

use super::host::property_get;
use super::*;

const CC: u32 = 0x14;
const CSTS: u32 = 0x1c;
const ENABLED: u32 = 0x0046_0001;
pub const QUEUES: usize = 8;
const SEEDS: u64 = 6;

/// A host whose I/O queues are spread over the cores.
pub struct Spread {
    id: u8,
    pub admin: Queue,
    cntlid: u16,
    pub io: Vec<Queue>,
}

impl Spread {
    pub fn admin(card: &mut Card, id: u8, wire: usize, keep_alive_ms: u32) -> Self {
        card.wire.next = wire;
        let mut admin = Queue::open(card);
        admin.keep_alive_ms = keep_alive_ms;
        Self::by(card, id, admin)
    }

    /// One that has a connection, which names a subsystem.
    pub fn by(card: &mut Card, id: u8, mut admin: Queue) -> Self {
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
        self.connect_io_by(card, |id| id % cores);
    }

    /// The same where I/O queue n goes by wire `wire_of` n.
    pub fn connect_io_by(&mut self, card: &mut Card, wire_of: impl Fn(usize) -> usize) {
        for id in 1..=QUEUES {
            card.wire.next = wire_of(id);
            let mut queue = Queue::open_to(card, &self.admin.subsystem);
            queue.start_connect(card, self.id, id as u16, self.cntlid);
            self.io.push(queue);
        }
        for queue in &mut self.io {
            assert_eq!(queue.wait(card, 1)[0].status, Status::SUCCESS);
        }
    }

    pub fn set(&mut self, card: &mut Card, cc: u32) {
        assert_eq!(self.admin.execute(card, property_set(CC, cc), Payload::None).status, Status::SUCCESS);
    }

    pub fn wait_for_status(&mut self, card: &mut Card, wanted: u32) {
        for _ in 0..1000 {
            if self.admin.execute(card, property_get(CSTS), Payload::None).result == wanted {
                return;
            }
        }
        panic!("CSTS never becomes {wanted:#x}");
    }

    pub fn sockets(&self) -> Vec<wire::Socket> {
        self.io.iter().chain([&self.admin]).map(|queue| queue.socket).collect()
    }

    /// Writes on each queue at once, and reads each by the next one, which is on another core.
    pub fn write_and_read(&mut self, card: &mut Card, nsid: u32, seed: u32) {
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

    pub fn namespaces(&mut self, card: &mut Card) -> Vec<u32> {
        let mut identify = Command { opcode: opcode::admin::IDENTIFY, ..Default::default() };
        identify.cdw10.set(2);
        let list = self.admin.execute(card, identify, Payload::Read(4096)).data;
        let ids = list.chunks_exact(4).map(|entry| u32::from_le_bytes(entry.try_into().unwrap()));
        ids.take_while(|&nsid| nsid != 0).collect()
    }
}

/// Waits until all hosts have gone from all cores; what their pools hold then.
pub fn all_idle(card: &mut Card) -> Vec<PoolCounts> {
    card.run_until("all connections are gone", |card| {
        card.cores_are_quiet()
            && card.quarantined() == 0
            && card.all_counts().iter().all(|counts| counts.connections == 0 && counts.draining == 0)
    });
    card.all_counts()
}

pub fn boot(seed: u64) -> (Card, usize) {
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
        card.drives[0].inject(NvmeInjection {
            queue: Some(slow as u16 + 1),
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

#[test]
fn a_core_whose_hosts_are_done_waits_for_drives_that_others_still_need() {
    let config = NvmeConfig { entry_latency_us: 20_000_000, ..NvmeConfig::default() };
    let cores = 2;
    let mut card = Card::boot_cores(96 << 20, cores, 1, [config]);
    card.pass(Duration::from_millis(300));
    let mut host = Spread::connect(&mut card, 1, 1, cores);
    let nsid = host.namespaces(&mut card)[0];
    // A write on core 1 hangs, and so does the drive's shutdown: each step takes as long as it may.
    card.drives[0].inject(NvmeInjection {
        queue: Some(2),
        opcode: Some(io::WRITE),
        skip: 0,
        count: 1,
        effect: NvmeEffect::Never,
    });
    host.io[0].start(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(pattern(4096, 1)));
    card.pass(Duration::from_millis(5));
    card.drives[0].set_shutdown_stuck(true);
    card.begin_shutdown();
    let began = card.now;
    card.run_until("the card has ended", |card| {
        assert!(
            !card.some_core_is_shut_down() || !card.drives[0].bus_master(),
            "{:?}",
            card.now.since(began)
        );
        card.is_shut_down()
    });
    let took = card.now.since(began);
    assert!((Duration::from_secs(31)..=app::SHUTDOWN_LIMIT).contains(&took), "{took:?}");
}

/// Blocks of a namespace, written by one queue and read by all.
fn read_by_all(card: &mut Card, host: &mut Spread, nsid: u32) -> Vec<(Status, Option<u8>)> {
    let read = |queue: &mut Queue, card: &mut Card| {
        let end = queue.execute(card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
        (end.status, end.data.first().copied())
    };
    host.io.iter_mut().map(|queue| read(queue, card)).collect()
}

#[test]
fn a_drive_that_gives_fewer_queues_than_there_are_cores_is_shared() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let cores = 2 + seed as usize % 3;
        let io_queues_granted = 1 + seed as u16 / 3;
        let config = NvmeConfig { latency_polls: (0, 40), io_queues_granted, ..NvmeConfig::default() };
        let mut card = Card::boot_cores(96 << 20, cores, seed, [config.clone(), config]);
        card.pass(Duration::from_millis(300));
        let before = card.all_counts();
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        for nsid in host.namespaces(&mut card) {
            host.write_and_read(&mut card, nsid, seed as u32);
        }
        host.sockets().into_iter().for_each(|socket| card.wire.reset(socket));
        assert_eq!(all_idle(&mut card), before);
    }
}

#[test]
fn of_two_drives_with_one_identity_all_cores_serve_the_same_one() {
    // In the last two each home finds its drive before it hears of the other's. A card takes 100 MB for each core, which are not given back.
    for seed in [0, 1, 2, 48, 67] {
        println!("seed {seed}");
        let cores = 2 + seed as usize % 3;
        let twin = NvmeConfig { serial: "TWIN".into(), ..NvmeConfig::default() };
        let mut card = Card::boot_cores(96 << 20, cores, seed, [twin.clone(), twin]);
        card.pass(Duration::from_millis(300));
        for (index, drive) in card.drives.iter().enumerate() {
            drive.write_disk(1, 0, &[index as u8 + 1; 4096]);
        }
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        let namespaces = host.namespaces(&mut card);
        assert_eq!(namespaces.len(), 1);
        let found = read_by_all(&mut card, &mut host, namespaces[0]);
        assert!(found.iter().all(|one| *one == found[0] && one.0 == Status::SUCCESS), "{found:?}");
    }
}

#[test]
fn drives_come_and_go_on_all_cores() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let before = card.all_counts();
        let hands = card.add_slots();
        let mut host = Spread::admin(&mut card, 1, seed as usize % cores, 120_000);
        host.connect_io(&mut card, cores);
        let namespaces = host.namespaces(&mut card);
        // One comes, whose home may be any core.
        let (drive, control) = card.spares.pop().unwrap();
        control.write_disk(1, 0, &[7]);
        hands.insert(2, drive);
        card.run_until("all cores have it", |card| card.drives_of_cores() == vec![3; cores]);
        card.pass(Duration::from_secs(3));
        let all = host.namespaces(&mut card);
        let new = *all.iter().find(|nsid| !namespaces.contains(nsid)).expect("it is served");
        assert_eq!(read_by_all(&mut card, &mut host, new), vec![(Status::SUCCESS, Some(7)); QUEUES]);
        // It is pulled and comes back; its namespace stays.
        hands.pull(2);
        control.set_removed(true);
        card.run_until("no core has it", |card| card.drives_of_cores() == vec![2; cores]);
        let away = read_by_all(&mut card, &mut host, new);
        assert!(away.iter().all(|(status, _)| *status == Status::NAMESPACE_NOT_READY), "{away:?}");
        assert_eq!(host.namespaces(&mut card).len(), 3);
        let mut drive = None;
        card.run_until("it was given back", |_| {
            drive = hands.take_out(2);
            drive.is_some()
        });
        control.set_removed(false);
        hands.insert(2, drive.unwrap());
        card.run_until("all cores have it", |card| card.drives_of_cores() == vec![3; cores]);
        card.pass(Duration::from_secs(3));
        assert_eq!(read_by_all(&mut card, &mut host, new), vec![(Status::SUCCESS, Some(7)); QUEUES]);
        // It leaves in order.
        hands.press_button(2);
        card.run_until("it is out", |card| {
            !hands.has_power(2) && card.drives_of_cores() == vec![2; cores] && card.cores_are_quiet()
        });
        assert_eq!(host.namespaces(&mut card), namespaces);
        host.sockets().into_iter().for_each(|socket| card.wire.reset(socket));
        assert_eq!(all_idle(&mut card), before);
    }
}

#[test]
fn a_lost_cache_is_one_error_for_a_host_wherever_it_wrote_and_flushes() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let mut host = Spread::connect(&mut card, 1, seed as usize % cores, cores);
        let nsid = by_mark(&mut card, &mut host);
        for queue in [0, 1, 2] {
            let write = blocks(io::WRITE, nsid, 8 * queue as u64, 8);
            let end = host.io[queue].execute(&mut card, write, Payload::InCapsule(pattern(4096, 1)));
            assert_eq!(end.status, Status::SUCCESS);
        }
        card.drives[0].lose_power();
        for _ in 0..5 {
            // It is reset meanwhile.
            card.pass(Duration::from_secs(2));
            let read = blocks(io::READ, nsid, 0, 8);
            assert_eq!(host.io[0].execute(&mut card, read, Payload::Read(4096)).status, Status::SUCCESS);
        }
        let mut flush = blocks(io::FLUSH, nsid, 0, 1);
        flush.cdw12.set(0);
        let mut failed = Vec::new();
        for queue in (0..QUEUES).rev().chain(0..QUEUES) {
            let end = host.io[queue].execute(&mut card, flush, Payload::None);
            if end.status != Status::SUCCESS {
                failed.push((queue, end.status));
            }
        }
        assert_eq!(
            failed,
            [(QUEUES - 1, Status::WRITE_FAULT.do_not_retry())],
            "the first Flush, and no other"
        );
    }
}

#[test]
fn a_lost_cache_is_told_though_another_drive_takes_the_namespace_over_at_once() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let cores = 1 + seed as usize % 4;
        let twin = NvmeConfig { serial: "TWIN".into(), ..NvmeConfig::default() };
        let mut card = Card::boot_cores(96 << 20, cores, seed, [twin.clone(), twin]);
        card.pass(Duration::from_millis(300));
        let hands = card.add_slots();
        for (index, drive) in card.drives.iter().enumerate() {
            drive.write_disk(1, 0, &[index as u8 + 1; 512]);
        }
        let mut host = Spread::connect(&mut card, 1, 0, cores);
        let nsid = host.namespaces(&mut card)[0];
        let served = read_by_all(&mut card, &mut host, nsid)[0].1.unwrap() as usize - 1;
        let end = host.io[1].execute(
            &mut card,
            blocks(io::WRITE, nsid, 8, 8),
            Payload::InCapsule(pattern(4096, 1)),
        );
        assert_eq!(end.status, Status::SUCCESS);
        // The one that was found in vain takes over within the 10 s in which it may be the same drive.
        hands.pull(served);
        card.drives[served].set_removed(true);
        card.run_until("no core has it", |card| card.drives_of_cores() == vec![1; cores]);
        card.pass(Duration::from_secs(1));
        let found = read_by_all(&mut card, &mut host, nsid);
        assert_eq!(found, vec![(Status::SUCCESS, Some(2 - served as u8)); QUEUES]);
        let mut flush = blocks(io::FLUSH, nsid, 0, 1);
        flush.cdw12.set(0);
        let statuses = host.io.iter_mut().map(|queue| queue.execute(&mut card, flush, Payload::None).status);
        let failed: Vec<_> = statuses.filter(|status| *status != Status::SUCCESS).collect();
        assert_eq!(failed, [Status::WRITE_FAULT.do_not_retry()]);
    }
}

#[test]
fn hosts_hear_on_any_core_of_what_a_drive_could_not_flush_when_it_left() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut card, cores) = boot(seed);
        let hands = card.add_slots();
        let mut host = Spread::admin(&mut card, 1, seed as usize % cores, 120_000);
        host.connect_io(&mut card, cores);
        let nsid = by_mark(&mut card, &mut host);
        let writer = seed as usize % QUEUES;
        let write = blocks(io::WRITE, nsid, 0, 8);
        let end = host.io[writer].execute(&mut card, write, Payload::InCapsule(pattern(4096, 1)));
        assert_eq!(end.status, Status::SUCCESS);
        let effect = NvmeEffect::Status(Status::INTERNAL_ERROR.to_field());
        card.drives[0].inject(NvmeInjection {
            queue: None,
            opcode: Some(io::FLUSH),
            skip: 0,
            count: 99,
            effect,
        });
        hands.press_button(0);
        let mut drive = None;
        card.run_until("it is out", |card| {
            if !hands.has_power(0) {
                drive = drive.take().or_else(|| hands.take_out(0));
            }
            drive.is_some() && card.drives_of_cores() == vec![1; cores]
        });
        card.drives[0].clear_injections();
        hands.insert(2, drive.unwrap());
        card.run_until("all cores have it", |card| card.drives_of_cores() == vec![2; cores]);
        card.pass(Duration::from_secs(3));
        assert!(host.namespaces(&mut card).contains(&nsid));
        let mut flush = blocks(io::FLUSH, nsid, 0, 1);
        flush.cdw12.set(0);
        let others = (0..QUEUES).map(|step| (writer + 1 + step) % QUEUES);
        let ends: Vec<Status> =
            others.map(|queue| host.io[queue].execute(&mut card, flush, Payload::None).status).collect();
        let told: Vec<usize> = (0..QUEUES).filter(|&at| ends[at] != Status::SUCCESS).collect();
        assert_eq!((told, ends[0].code()), (vec![0], Status::WRITE_FAULT), "once, wherever it flushes");
    }
}
