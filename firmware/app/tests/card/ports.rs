//! Two Ethernet ports of one card: two paths to the same namespaces.

use std::time::Duration;

use hal_api::Instant;
use hal_fakes::{NvmeConfig, NvmeEffect, NvmeInjection};
use nvme::opcode::{admin, io};
use nvme::{Command, Status};

use super::many_cores::{QUEUES, Spread, all_idle};
use super::{MEMORY, idle, pattern};
use crate::card::Card;
use crate::host::{Host, Payload, blocks};

/// A host's association by a port.
fn connect_by(card: &mut Card, port: usize) -> Host {
    card.wire.next = port;
    Host::connect(card, 9)
}

#[test]
fn a_host_reads_by_one_port_what_it_has_written_by_the_other() {
    let mut card = Card::boot_ports(MEMORY, [NvmeConfig::default()]);
    let before = card.counts();
    let mut paths = [0, 1].map(|port| connect_by(&mut card, port));
    let nsid = paths[0].namespaces(&mut card)[0];
    assert_eq!(paths[1].namespaces(&mut card), [nsid], "the same namespace");
    for turn in 0..4 {
        let data = pattern(16 * 512, turn as u32);
        let write = blocks(io::WRITE, nsid, turn * 16, 16);
        let end = paths[turn as usize % 2].io.execute(&mut card, write, Payload::Write(data.clone()));
        assert_eq!(end.status, Status::SUCCESS);
        let read = blocks(io::READ, nsid, turn * 16, 16);
        let end = paths[(turn as usize + 1) % 2].io.execute(&mut card, read, Payload::Read(16 * 512));
        assert_eq!((end.status, end.data), (Status::SUCCESS, data));
    }
    // One path goes: the other does not notice.
    paths[0].reset(&mut card);
    let read = blocks(io::READ, nsid, 0, 16);
    let end = paths[1].io.execute(&mut card, read, Payload::Read(16 * 512));
    assert_eq!((end.status, end.data), (Status::SUCCESS, pattern(16 * 512, 0)));
    paths[1].reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn both_ports_lead_to_one_subsystem() {
    let mut card = Card::boot_ports(MEMORY, [NvmeConfig::default()]);
    let pages = [0, 1].map(|port| {
        let mut host = connect_by(&mut card, port);
        let mut identify = Command { opcode: admin::IDENTIFY, ..Default::default() };
        identify.cdw10.set(1);
        let page = host.admin.execute(&mut card, identify, Payload::Read(4096)).data;
        assert_eq!(page[76] & 1, 1, "CMIC: several ports");
        page
    });
    let (nqn, cntlid) = (768..1024, 78..80);
    assert_eq!(pages[0][nqn.clone()], pages[1][nqn]);
    assert_ne!(pages[0][cntlid.clone()], pages[1][cntlid]);
}

const PORTS: usize = 2;
/// Of the path that loses its link; the others' is longer than the test.
const KEEP_ALIVE_MS: u32 = 5_000;
/// No write is waited for so long at a drive, and none ends earlier that was swallowed there.
const WRITE_LIMIT: Duration = Duration::from_secs(15);
/// Blocks that a fused pair has locked when its path goes.
const LOCKED: u64 = 4000;

/// A card of which each data core has a queue at both ports.
struct Bench {
    card: Card,
    cores: usize,
    seed: usize,
}

impl Bench {
    fn boot(seed: u64) -> Self {
        let cores = 3 + seed as usize % 2;
        let config = NvmeConfig { latency_polls: (0, 40), ..NvmeConfig::default() };
        let mut card = Card::boot_ports_and_cores(96 << 20, cores, seed, [config.clone(), config]);
        card.pass(Duration::from_millis(300));
        Self { card, cores, seed: seed as usize }
    }

    /// A host's association by a port, with I/O queues on all cores.
    fn path(&mut self, id: u8, port: usize, keep_alive_ms: u32) -> Spread {
        let (cores, home) = (self.cores, (self.seed + port) % self.cores);
        let mut path = Spread::admin(&mut self.card, id, home * PORTS + port, keep_alive_ms);
        path.connect_io_by(&mut self.card, |queue| queue % cores * PORTS + port);
        path
    }

    fn set_link(&mut self, port: usize, up: bool) {
        (0..self.cores).for_each(|core| self.card.wire.set_link(core * PORTS + port, up));
    }

    /// The I/O queues that lie on the last core.
    fn of_last_core(&self, path: &Spread) -> Vec<usize> {
        (0..path.io.len()).filter(|at| (at + 1) % self.cores == self.cores - 1).collect()
    }

    /// A plain write and a pair's Write hang at the drive, both from the last core. Returns when they were sent.
    fn swallow_writes(&mut self, path: &mut Spread, nsid: u32) -> Instant {
        let injection = |opcode, skip, count| NvmeInjection {
            queue: Some(self.cores as u16),
            opcode: Some(opcode),
            skip,
            count,
            effect: NvmeEffect::Never,
        };
        self.card.drives.iter().for_each(|drive| drive.inject(injection(io::WRITE, 0, 2)));
        let [first, second, ..] = self.of_last_core(path)[..] else { panic!("two queues on the last core") };
        let write = blocks(io::WRITE, nsid, 0, 8);
        path.io[first].start(&mut self.card, write, Payload::InCapsule(pattern(4096, 99)));
        pair(&mut self.card, path, second, nsid);
        self.card.pass(Duration::from_millis(20));
        self.card.now
    }
}

/// Starts a pair on one of the queues: Compare and Write of blocks that hold zeros, and will.
fn pair(card: &mut Card, path: &mut Spread, queue: usize, nsid: u32) {
    for (opcode, fuse) in [(io::COMPARE, 1), (io::WRITE, 2)] {
        let command = Command { flags: fuse, ..blocks(opcode, nsid, LOCKED, 8) };
        path.io[queue].start(card, command, Payload::InCapsule(vec![0; 4096]));
    }
}

#[test]
fn with_many_cores_a_port_that_goes_takes_its_paths_along_and_nothing_else() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut bench = Bench::boot(seed);
        let before = bench.card.all_counts();
        let mut lost = bench.path(1, 0, KEEP_ALIVE_MS);
        let mut kept = bench.path(1, 1, 120_000);
        let namespaces = lost.namespaces(&mut bench.card);
        assert_eq!((namespaces.len(), &kept.namespaces(&mut bench.card)), (2, &namespaces));
        for (at, nsid) in namespaces.iter().enumerate() {
            lost.write_and_read(&mut bench.card, *nsid, at as u32);
            kept.write_and_read(&mut bench.card, *nsid, at as u32 + 9);
        }
        let nsid = namespaces[seed as usize % 2];
        let written = bench.swallow_writes(&mut lost, nsid);
        bench.set_link(0, false);
        lost.sockets().into_iter().for_each(|socket| bench.card.wire.silence(socket));
        // The other path goes on, on all cores, while the card finds out.
        for second in 0..KEEP_ALIVE_MS as usize / 1000 + 2 {
            bench.card.pass(Duration::from_secs(1));
            let read = blocks(io::READ, nsid, second as u64 * 8, 8);
            let end = kept.io[second % QUEUES].execute(&mut bench.card, read, Payload::Read(4096));
            assert_eq!(end.status, Status::SUCCESS);
        }
        let draining = |card: &Card| card.all_counts().iter().map(|counts| counts.draining).sum::<u16>();
        assert_eq!(draining(&bench.card), 2, "the queues whose writes are at the drive");
        // Another host comes by the other port at once; this one waits until its old writes have ended.
        let other = bench.path(2, 1, 120_000);
        assert!(bench.card.now.since(written) < WRITE_LIMIT);
        let mut back = bench.path(1, 1, 120_000);
        assert!(bench.card.now.since(written) >= WRITE_LIMIT - Duration::from_secs(1));
        assert_eq!(draining(&bench.card), 0);
        // The pair's blocks are free, for every core.
        for queue in 0..QUEUES {
            pair(&mut bench.card, &mut back, queue, nsid);
            let ends = back.io[queue].wait(&mut bench.card, 2);
            assert!(ends.iter().all(|end| end.status == Status::SUCCESS), "{ends:?}");
        }
        back.write_and_read(&mut bench.card, nsid, 7);
        // The link comes back, and so does the path; its reset ends no other.
        bench.set_link(0, true);
        let mut again = bench.path(1, 0, KEEP_ALIVE_MS);
        again.write_and_read(&mut bench.card, nsid, 8);
        again.set(&mut bench.card, 0);
        again.wait_for_status(&mut bench.card, 0);
        bench.card.run_until("its I/O queues are closed", |card| {
            again.io.iter().all(|queue| card.wire.has_ended(queue.socket))
        });
        for path in [&mut kept, &mut back] {
            path.write_and_read(&mut bench.card, nsid, 10);
        }
        for path in [&kept, &back, &again, &other] {
            path.sockets().into_iter().for_each(|socket| bench.card.wire.reset(socket));
        }
        assert_eq!(all_idle(&mut bench.card), before);
    }
}
