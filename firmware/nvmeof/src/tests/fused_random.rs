//! Fused pairs, other commands, lost connections, resets and a namespace that comes and goes, in random order on two to four cores:
//! nothing is at any drive beside a pair's command, no pair writes over what its Compare has not seen, and all comes to an end.
//!
//! A failure names its seed, and whoever has it runs that seed alone (`one_seed`).

use std::collections::BTreeMap;

use controller::{IoRequest, Operation};
use nvme::opcode::io;
use nvme::{Command, CopyRange};
use zerocopy::IntoBytes;

use super::fused_cores::{BLOCK, Shared};
use super::host::{Payload, Reply, block_command, property_set};
use super::many_cores::{ALL, Queue};
use super::random::Random;
use crate::Settling;

const SEEDS: u64 = 60;
const STEPS: usize = 1000;
const PLAYERS: usize = 5;
/// Where they fight.
const START: u64 = 40;
/// A command of so many blocks is one of a pair.
const PAIR_BLOCKS: u32 = 2;
/// Commands that a player has under way at most.
const DEPTH: usize = 6;

struct Player {
    admin: Queue,
    io: Queue,
    under_way: usize,
    /// It was reset, or has lost its connection.
    gone: bool,
    /// Its connections, I/O and admin: others may have their places.
    closed: [bool; 2],
}

struct World {
    random: Random,
    shared: Shared,
    players: Vec<Player>,
    last_host: u8,
    /// What the Compare of each pair expects, by the number that its Write has.
    expected: BTreeMap<u32, Vec<u8>>,
    is_attached: bool,
    written: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::of_seed(seed);
        let shared = Shared::new(2 + random.below(3));
        let expected = BTreeMap::new();
        let mut world = Self {
            random,
            shared,
            players: Vec::new(),
            last_host: 0,
            expected,
            is_attached: true,
            written: 0,
        };
        for _ in 0..PLAYERS {
            let player = world.player();
            world.players.push(player);
        }
        world
    }

    fn player(&mut self) -> Player {
        let cores = self.shared.many.cores.len();
        let (home, core) = (self.random.below(cores), self.random.below(cores));
        self.last_host += 1;
        let (admin, io) = self.shared.host(self.last_host, home, core);
        Player { admin, io, under_way: 0, gone: false, closed: [false; 2] }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0 => self.lose(),
            1 if self.random.below(3) == 0 => self.reset(),
            2 if self.random.below(3) == 0 => self.attach_or_detach(),
            3..=8 => self.begin(),
            9..=18 => self.complete(),
            _ => self.turn(),
        }
        self.take_replies();
        self.check();
    }

    /// Some of a core's turn.
    fn turn(&mut self) {
        let core = self.random.below(self.shared.many.cores.len());
        for _ in 0..self.random.below(4) {
            self.shared.many.hear(core);
            // As the data core does, for most of what it hears.
            if self.random.below(4) > 0 {
                self.settle(core);
            }
        }
        self.settle(core);
        if self.random.below(3) > 0 {
            self.shared.many.cores[core].run();
        }
    }

    fn settle(&mut self, core: usize) {
        let thoroughly = self.random.below(2) == 0;
        self.shared.many.settle(core, Settling { thoroughly, ..ALL });
    }

    fn complete(&mut self) {
        let core = self.random.below(self.shared.many.cores.len());
        let pending = self.shared.many.cores[core].ram.pending.len();
        if pending > 0 {
            let position = self.random.below(pending);
            self.come_home(core, position);
        }
    }

    fn come_home(&mut self, core: usize, position: usize) {
        let card = &self.shared.many.cores[core];
        let request = &card.ram.pending[position];
        if is_of_pair(request) && request.operation == Operation::Write {
            let mut number = [0; 4];
            card.pool.read(&mut request.pages.start(), &mut number);
            let expected = &self.expected[&u32::from_le_bytes(number)];
            let found = self.shared.blocks(request.start_block, PAIR_BLOCKS as usize);
            assert!(found == *expected, "a pair writes over what its Compare has not seen");
            self.written += 1;
        }
        self.shared.complete(core, position);
    }

    fn begin(&mut self) {
        let which = self.random.below(self.players.len());
        let core = self.players[which].io.core;
        if self.players[which].gone {
            if self.is_attached {
                self.come_back(which);
            }
            return;
        }
        if self.players[which].under_way >= DEPTH {
            return;
        }
        let start = START + self.random.below(6) as u64;
        let kind = self.random.below(12);
        if kind < 6 {
            return self.pair(which, start);
        }
        let (command, payload) = match kind {
            6..=8 => {
                let blocks = if self.random.below(2) == 0 { 1 } else { 3 };
                // What stands there, half of the time: pairs that begin meanwhile may still succeed.
                let same = self.random.below(2) == 0;
                let other = vec![self.random.below(256) as u8; blocks * BLOCK];
                let data = if same { self.shared.blocks(start, blocks) } else { other };
                (block_command(io::WRITE, start, blocks as u32), Payload::InCapsule(data))
            }
            9 => (block_command(io::READ, start, 1), Payload::Read(BLOCK as u32)),
            10 => {
                let mut dataset =
                    Command { opcode: io::DATASET_MANAGEMENT, nsid: 1.into(), ..Default::default() };
                dataset.cdw11.set(4);
                (dataset, Payload::InCapsule(vec![0; 16]))
            }
            _ => {
                let mut range = CopyRange::default();
                range.start_block.set(START + 20);
                let mut copy = Command { opcode: io::COPY, nsid: 1.into(), ..Default::default() };
                copy.set_start_block(start);
                (copy, Payload::InCapsule(range.as_bytes().to_vec()))
            }
        };
        let player = &mut self.players[which];
        player.under_way += 1;
        player.io.host.start(&mut self.shared.many.cores[core], command, &payload);
        if self.random.below(2) == 0 {
            self.shared.many.cores[core].run();
        }
    }

    /// Another host takes the place of one that has gone.
    fn come_back(&mut self, which: usize) {
        self.cut(which, 0);
        self.cut(which, 1);
        self.shared.many.run();
        self.note_closed();
        self.players[which] = self.player();
    }

    fn cut(&mut self, which: usize, connection: usize) {
        let Player { admin, io, closed, .. } = &mut self.players[which];
        if !core::mem::replace(&mut closed[connection], true) {
            self.shared.many.cut([io, admin][connection]);
        }
    }

    fn note_closed(&mut self) {
        for Player { admin, io, closed, .. } in &mut self.players {
            for (queue, closed) in [io, admin].into_iter().zip(closed) {
                *closed |= !self.shared.many.is_open(queue);
            }
        }
    }

    fn pair(&mut self, which: usize, start: u64) {
        let old = self.shared.blocks(start, PAIR_BLOCKS as usize);
        let number = self.expected.len() as u32 + 1;
        let mut new = vec![0xee; PAIR_BLOCKS as usize * BLOCK];
        new[..4].copy_from_slice(&number.to_le_bytes());
        self.expected.insert(number, old.clone());
        let player = &mut self.players[which];
        player.under_way += 2;
        self.shared.pair(&mut player.io, start, old, new);
    }

    fn lose(&mut self) {
        let which = self.random.below(self.players.len());
        let connection = self.random.below(2);
        self.cut(which, connection);
        self.players[which].gone = true;
    }

    /// A reset, of a queue whose host may take no answers for a while.
    fn reset(&mut self) {
        let which = self.random.below(self.players.len());
        let player = &mut self.players[which];
        if player.gone {
            return;
        }
        if self.random.below(2) == 0 {
            self.shared.many.cores[player.io.core].pipe(player.io.host.index).window = 0;
        }
        let core = player.admin.core;
        player.admin.host.start(&mut self.shared.many.cores[core], property_set(0x14, 0), &Payload::None);
        self.shared.many.cores[core].run();
        player.gone = true;
    }

    fn attach_or_detach(&mut self) {
        if self.is_attached {
            self.is_attached = false;
            assert!(self.shared.many.cores[0].subsystem.detach_everywhere(1));
        } else if self.shared.many.cores.iter().all(|card| card.subsystem.namespaces().is_empty()) {
            let namespace = self.shared.namespace;
            self.shared.many.cores.iter_mut().for_each(|card| card.subsystem.attach(namespace).unwrap());
            self.is_attached = true;
        }
    }

    fn take_replies(&mut self) {
        self.note_closed();
        for player in &mut self.players {
            if player.gone {
                continue;
            }
            for reply in self.shared.many.replies(&player.io) {
                match reply {
                    Reply::Response { .. } => player.under_way -= 1,
                    Reply::Data { success, .. } => player.under_way -= usize::from(success),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// The promise to hosts: beside a pair's command no other to its blocks is at any drive.
    fn check(&self) {
        let cores = || self.shared.many.cores.iter().enumerate();
        let all = || cores().flat_map(|(core, card)| card.ram.pending.iter().map(move |r| (core, r)));
        for (core, pair) in all().filter(|(_, request)| is_of_pair(request)) {
            let at_once = all().filter(|(_, other)| touches(other, pair)).count();
            assert_eq!(at_once, 1, "core {core} has a pair at its drive, and others are there: {pair:?}");
        }
        for (core, card) in cores() {
            assert_eq!(card.subsystem.mesh_faults(), 0, "core {core}");
        }
    }

    /// All comes to an end, whoever is still there is answered, and nobody has blocks for himself.
    fn finish(&mut self) {
        if !self.is_attached {
            self.shared.many.run();
        }
        for _ in 0..500 {
            self.shared.many.run();
            self.take_replies();
            self.check();
            let cores = 0..self.shared.many.cores.len();
            let busy = cores.into_iter().find(|&core| !self.shared.at_drive(core).is_empty());
            let Some(core) = busy else { break };
            self.come_home(core, 0);
        }
        for player in &self.players {
            assert!(player.gone || player.under_way == 0, "{} have no answer", player.under_way);
            let index = player.io.host.index;
            if !player.closed[0] {
                self.shared.many.cores[player.io.core].pipe(index).window = 1 << 22;
            }
        }
        self.shared.come_to_rest();
        self.shared.hold_no_locks();
        self.shared.many.assert_clean();
    }
}

fn is_of_pair(request: &IoRequest) -> bool {
    matches!(request.operation, Operation::Compare | Operation::Write) && request.blocks == PAIR_BLOCKS
}

fn touches(request: &IoRequest, pair: &IoRequest) -> bool {
    let end = |request: &IoRequest| request.start_block + u64::from(request.blocks);
    match request.operation {
        Operation::Flush => false,
        Operation::DatasetManagement { .. } | Operation::Copy { .. } => true,
        _ => request.start_block < end(pair) && pair.start_block < end(request),
    }
}

/// Pairs that have written.
fn one_seed(seed: u64) -> usize {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.finish();
    world.written
}

#[test]
fn pairs_are_atomic_and_all_ends_whatever_the_order_of_the_cores() {
    let mut written = 0;
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| one_seed(seed));
        assert!(result.is_ok(), "seed {seed}");
        written += result.unwrap_or(0);
    }
    println!("{written} pairs have written");
    assert!(written > SEEDS as usize * 5);
}
