//! Fused pairs on several cores, whose messages are carried by hand: one that is struck in every state, and who waits for whom.

use std::time::Duration;

use controller::{Namespace, Operation};
use nvme::opcode::io;
use nvme::{Command, Status};

use super::fused::{codes, fused};
use super::host::{Host, Payload, block_command, pattern, property_set};
use super::many_cores::{ALL, Many, Queue};
use crate::lock_home::MAX_RANGE_LOCKS_PER_DRIVE;

pub(super) const BLOCK: usize = 512;

/// Cores with one drive, whose blocks are the same for all of them.
pub(super) struct Shared {
    pub many: Many,
    pub bytes: Vec<u8>,
    pub namespace: Namespace,
}

impl Shared {
    pub fn new(cores: usize) -> Self {
        let mut many = Many::new(cores);
        many.cores.iter_mut().for_each(|card| card.ram.hold = true);
        let bytes = many.cores[0].ram.bytes.clone();
        let namespace = many.cores[0].subsystem.namespaces()[0];
        Self { many, bytes, namespace }
    }

    /// A host with its admin queue on one core and an I/O queue on another.
    pub fn host(&mut self, id: u8, home: usize, core: usize) -> (Queue, Queue) {
        let mut admin = self.many.open(home);
        admin.host.host_id = [id; 16];
        let (status, cntlid) = self.many.connect(&admin, 0, 0xffff);
        assert_eq!(status, Status::SUCCESS);
        self.many.set_cc(&mut admin, 0x0046_0001);
        let mut io = self.many.open(core);
        io.host.host_id = [id; 16];
        assert_eq!(self.many.connect(&io, 1, cntlid as u16).0, Status::SUCCESS);
        (admin, io)
    }

    pub fn blocks(&self, start: u64, blocks: usize) -> Vec<u8> {
        self.bytes[start as usize * BLOCK..][..blocks * BLOCK].to_vec()
    }

    /// Lets a request at a core's drive come home.
    pub fn complete(&mut self, core: usize, position: usize) {
        let card = &mut self.many.cores[core];
        std::mem::swap(&mut self.bytes, &mut card.ram.bytes);
        card.complete(position);
        std::mem::swap(&mut self.bytes, &mut card.ram.bytes);
    }

    /// The first of a kind and place.
    fn complete_one(&mut self, core: usize, operation: Operation, start: u64) {
        let pending = &self.many.cores[core].ram.pending;
        let found = pending.iter().position(|r| (r.operation, r.start_block) == (operation, start));
        self.complete(core, found.unwrap_or_else(|| panic!("{operation:?} of {start} is not at the drive")));
        self.many.run();
    }

    /// Lets everything come home that is at drives, and what follows.
    pub fn come_to_rest(&mut self) {
        for _ in 0..200 {
            self.many.run();
            let cores = 0..self.many.cores.len();
            let Some(core) = cores.into_iter().find(|&core| !self.at_drive(core).is_empty()) else { return };
            self.complete(core, 0);
        }
        panic!("the drives never come to rest");
    }

    pub fn at_drive(&self, core: usize) -> Vec<(Operation, u64)> {
        self.many.cores[core].ram.pending.iter().map(|r| (r.operation, r.start_block)).collect()
    }

    fn start(&mut self, queue: &mut Queue, command: Command, payload: &Payload) -> u16 {
        let card = &mut self.many.cores[queue.core];
        let cid = queue.host.start(card, command, payload);
        card.run();
        cid
    }

    pub fn write(&mut self, queue: &mut Queue, start: u64, data: Vec<u8>) -> u16 {
        let blocks = (data.len() / BLOCK) as u32;
        self.start(queue, block_command(io::WRITE, start, blocks), &Payload::InCapsule(data))
    }

    pub fn pair(&mut self, queue: &mut Queue, start: u64, old: Vec<u8>, new: Vec<u8>) -> u16 {
        let blocks = (old.len() / BLOCK) as u32;
        let card = &mut self.many.cores[queue.core];
        let cid = queue.host.start(card, fused(io::COMPARE, start, blocks), &Payload::InCapsule(old));
        queue.host.start(card, fused(io::WRITE, start, blocks), &Payload::InCapsule(new));
        card.run();
        cid
    }

    fn statuses(&mut self, queue: &Queue) -> Vec<(u16, Status)> {
        codes(self.many.replies(queue))
    }

    pub fn hold_no_locks(&self) {
        for (core, card) in self.many.cores.iter().enumerate() {
            assert!(!card.target.holds_locks(), "core {core} still knows of a lock, or has asked for one");
        }
    }
}

fn trim() -> Command {
    let mut dataset = Command { opcode: io::DATASET_MANAGEMENT, nsid: 1.into(), ..Default::default() };
    dataset.cdw11.set(4);
    dataset
}

const TRIM: Operation = Operation::DatasetManagement { ranges: 1, attributes: 4 };

#[test]
fn a_pair_waits_for_what_is_at_the_drive_on_all_cores_and_they_for_it() {
    for asker in 0..3 {
        let mut card = Shared::new(3);
        let (_a, mut host) = card.host(1, 0, asker);
        let (_b, mut near) = card.host(2, 0, (asker + 1) % 3);
        let (_c, mut far) = card.host(3, 0, (asker + 2) % 3);
        let stamp = pattern(2 * BLOCK, 7);
        card.write(&mut near, 39, stamp.clone());
        card.write(&mut far, 41, stamp.clone());
        let old = [&stamp[BLOCK..], &stamp[..BLOCK]].concat();
        card.pair(&mut host, 40, old, pattern(2 * BLOCK, 8));
        card.many.run();
        assert!(card.at_drive(asker).is_empty(), "the pair goes before what is at drives");
        // All cores let new commands to these blocks wait, and no others.
        card.write(&mut near, 40, vec![1; BLOCK]);
        card.write(&mut near, 100, vec![1; BLOCK]);
        assert_eq!(card.at_drive(near.core), [(Operation::Write, 39), (Operation::Write, 100)]);
        card.complete_one(near.core, Operation::Write, 39);
        assert!(card.at_drive(asker).is_empty(), "one of two cores has confirmed");
        card.complete_one(far.core, Operation::Write, 41);
        card.complete_one(asker, Operation::Compare, 40);
        assert_eq!(card.at_drive(asker), [(Operation::Write, 40)]);
        assert_eq!(card.at_drive(near.core), [(Operation::Write, 100)]);
        card.complete_one(asker, Operation::Write, 40);
        assert!(card.at_drive(near.core).contains(&(Operation::Write, 40)));
        card.come_to_rest();
        assert!(card.statuses(&host).iter().all(|(_, status)| status.is_success()));
        card.hold_no_locks();
        card.many.assert_clean();
    }
}

#[test]
fn pairs_of_several_cores_for_the_same_blocks_go_one_after_the_other() {
    let mut card = Shared::new(3);
    let mut hosts: Vec<_> = (0..3).map(|core| card.host(core as u8 + 1, 0, core)).collect();
    let old = card.blocks(40, 1);
    for (index, (_, host)) in hosts.iter_mut().enumerate() {
        card.pair(host, 40, old.clone(), pattern(BLOCK, index as u32));
    }
    card.many.run();
    let at_drives: usize = (0..3).map(|core| card.at_drive(core).len()).sum();
    assert_eq!(at_drives, 1, "two pairs at once");
    card.come_to_rest();
    let ends: Vec<Status> = hosts.iter().map(|(_, host)| card.statuses(host)[1].1).collect();
    assert_eq!(ends.iter().filter(|status| status.is_success()).count(), 1, "{ends:?}");
    card.hold_no_locks();
    card.many.assert_clean();
}

#[test]
fn pairs_of_one_drive_have_their_share_of_locks_on_the_whole_card() {
    let mut card = Shared::new(3);
    let mut hosts: Vec<_> = (0..3).map(|core| card.host(core as u8 + 1, 0, core)).collect();
    for round in 0..6 {
        for (core, (_, host)) in hosts.iter_mut().enumerate() {
            let start = round * 10 + core as u64 * 3;
            let old = card.blocks(start, 1);
            card.pair(host, start, old, pattern(BLOCK, start as u32));
        }
    }
    card.many.run();
    let at_drives: usize = (0..3).map(|core| card.at_drive(core).len()).sum();
    assert_eq!(at_drives, MAX_RANGE_LOCKS_PER_DRIVE);
    card.come_to_rest();
    for (_, host) in &hosts {
        let ends = card.statuses(host);
        assert!(ends.len() == 12 && ends.iter().all(|(_, status)| status.is_success()), "{ends:?}");
    }
    card.hold_no_locks();
    card.many.assert_clean();
}

#[test]
fn who_waits_for_a_pair_on_another_core_goes_before_later_pairs() {
    let mut card = Shared::new(3);
    let (_a, mut first) = card.host(1, 0, 1);
    let (_b, mut second) = card.host(2, 0, 0);
    let (_c, mut other) = card.host(3, 0, 2);
    let old = card.blocks(40, 1);
    card.pair(&mut first, 40, old, pattern(BLOCK, 1));
    card.many.run();
    card.start(&mut other, trim(), &Payload::InCapsule(vec![0; 16]));
    assert!(card.at_drive(2).is_empty());
    let old = card.blocks(50, 1);
    card.pair(&mut second, 50, old, pattern(BLOCK, 2));
    card.many.run();
    assert!(card.at_drive(0).is_empty(), "a later pair goes first");
    card.complete_one(1, Operation::Compare, 40);
    card.complete_one(1, Operation::Write, 40);
    assert_eq!((card.at_drive(2), card.at_drive(0)), (vec![(TRIM, 0)], vec![]));
    card.complete_one(2, TRIM, 0);
    assert_eq!(card.at_drive(0), [(Operation::Compare, 50)]);
    card.come_to_rest();
    assert!(card.statuses(&second).iter().all(|(_, status)| status.is_success()));
    card.hold_no_locks();
    card.many.assert_clean();
}

#[test]
fn who_waits_on_a_queue_that_a_reset_closes_holds_up_no_pair() {
    let mut card = Shared::new(3);
    let (_a, mut first) = card.host(1, 0, 1);
    let (_b, mut second) = card.host(2, 0, 0);
    let (mut admin, mut other) = card.host(3, 0, 2);
    let old = card.blocks(40, 1);
    card.pair(&mut first, 40, old, pattern(BLOCK, 1));
    card.many.run();
    // An answer that its host does not take keeps the queue open.
    card.many.cores[2].pipe(other.host.index).window = 0;
    let unknown = Command { nsid: 99.into(), ..block_command(io::READ, 0, 1) };
    card.start(&mut other, unknown, &Payload::Read(512));
    card.start(&mut other, trim(), &Payload::InCapsule(vec![0; 16]));
    card.many.set_cc(&mut admin, 0);
    card.many.run();
    assert!(card.many.is_open(&other));
    let old = card.blocks(50, 1);
    card.pair(&mut second, 50, old, pattern(BLOCK, 2));
    card.many.run();
    assert_eq!(card.at_drive(0), [(Operation::Compare, 50)]);
    card.come_to_rest();
    card.hold_no_locks();
    card.many.assert_clean();
}

#[test]
fn a_pair_that_waits_for_the_drive_on_a_queue_that_a_reset_closes_gives_its_blocks_back_at_once() {
    let mut card = Shared::new(3);
    let (mut admin, mut first) = card.host(1, 0, 2);
    let (_b, mut second) = card.host(2, 0, 1);
    card.many.cores[2].ram.places = 0;
    let old = card.blocks(40, 1);
    card.pair(&mut first, 40, old.clone(), pattern(BLOCK, 1));
    card.many.run();
    assert!(card.many.cores[1].target.holds_locks(), "the pair has its blocks, and waits");
    card.pair(&mut second, 40, old, pattern(BLOCK, 2));
    // An answer that its host does not take keeps the queue open.
    card.many.cores[2].pipe(first.host.index).window = 0;
    let unknown = Command { nsid: 99.into(), ..block_command(io::READ, 0, 1) };
    card.start(&mut first, unknown, &Payload::Read(512));
    card.many.set_cc(&mut admin, 0);
    card.many.run();
    assert!(card.many.is_open(&first));
    assert_eq!(card.at_drive(1), [(Operation::Compare, 40)]);
    card.come_to_rest();
    card.hold_no_locks();
    card.many.assert_clean();
}

/// What may befall a pair.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Cut,
    Reset,
    Detach,
    Shutdown,
    KeepAlive,
}

/// A small part of a core's turn, in an order that leads through all states.
fn small_step(card: &mut Shared, step: usize) {
    let cores = card.many.cores.len();
    let core = step % cores;
    match step / cores % 4 {
        0 => _ = card.many.hear(core),
        1 => card.many.settle(core, ALL),
        2 => card.many.cores[core].run(),
        _ if !card.at_drive(core).is_empty() => card.complete(core, 0),
        _ => {}
    }
}

fn strike(card: &mut Shared, blow: Blow, admin: &mut Queue, io: &Queue) {
    match blow {
        Blow::Cut => card.many.cut(io),
        Blow::Reset => {
            let cc = property_set(0x14, 0);
            admin.host.start(&mut card.many.cores[admin.core], cc, &Payload::None);
            card.many.cores[admin.core].run();
        }
        Blow::Detach => assert!(card.many.cores[0].subsystem.detach_everywhere(1)),
        Blow::Shutdown => {
            let now = card.many.cores[0].now;
            let core = &mut card.many.cores[io.core];
            core.target.begin_shutdown(now, now + Duration::from_secs(10), &core.subsystem);
        }
        Blow::KeepAlive => card.many.cut(admin),
    }
}

fn struck(card: &mut Shared, asker: usize, blow: Blow, at: usize) {
    let (mut admin, mut host) = card.host(1, 2, asker);
    let (_b, mut other) = card.host(2, 0, (asker + 1) % 3);
    let stamp = pattern(BLOCK, 7);
    card.write(&mut other, 40, stamp.clone());
    card.pair(&mut host, 40, stamp, pattern(BLOCK, 8));
    for step in 0..at {
        small_step(card, step);
    }
    strike(card, blow, &mut admin, &host);
    card.come_to_rest();
    let now = card.many.cores[0].now + Duration::from_millis(100);
    card.many.tick_at(now);
    card.come_to_rest();
    card.hold_no_locks();
    if let Blow::Detach = blow {
        let ends = card.statuses(&host);
        assert_eq!(ends.len(), 2, "{ends:?}");
        for core in &mut card.many.cores {
            core.subsystem.attach(card.namespace).unwrap();
        }
    }
    // Others find the blocks free, and in one of two states.
    let found = card.blocks(40, 1);
    assert!(found == pattern(BLOCK, 7) || found == pattern(BLOCK, 8));
    card.statuses(&other);
    let cid = card.pair(&mut other, 40, found, pattern(BLOCK, 9));
    card.come_to_rest();
    assert_eq!(card.statuses(&other), [(cid, Status::SUCCESS), (cid + 1, Status::SUCCESS)]);
    card.hold_no_locks();
    card.many.assert_clean();
    card.many.cores.iter_mut().for_each(|core| core.ram.hold = true);
}

#[test]
fn a_pair_that_is_struck_in_any_state_gives_its_blocks_back_once() {
    for asker in 0..3 {
        for blow in [Blow::Cut, Blow::Reset, Blow::Detach, Blow::KeepAlive, Blow::Shutdown] {
            let mut card = Shared::new(3);
            for at in 0..80 {
                if let Blow::Shutdown = blow {
                    // There is no way back.
                    if at % 7 != asker {
                        continue;
                    }
                    card = Shared::new(3);
                }
                println!("core {asker}, {blow:?} after {at} steps");
                struck(&mut card, asker, blow, at);
            }
        }
    }
}

#[test]
fn a_busy_core_with_many_pairs_asks_for_few_at_a_time() {
    let mut card = Shared::new(2);
    let (_admin, mut host) = card.host(1, 0, 1);
    let mut lost: Vec<Host> = Vec::new();
    for round in 0..20 {
        let old = card.blocks(round, 1);
        card.pair(&mut host, round, old, pattern(BLOCK, round as u32));
        if round % 8 == 7 {
            // The home hears of nothing meanwhile.
            card.many.cut(&host);
            lost.push(host.host.clone());
            let (_, next) = card.host(round as u8 + 2, 1, 1);
            host = next;
        }
    }
    card.come_to_rest();
    let ends = card.statuses(&host);
    assert!(ends.len() == 8 && ends.iter().all(|(_, status)| status.is_success()), "{ends:?}");
    card.hold_no_locks();
    card.many.assert_clean();
}
