//! Random commands against random mishaps, all of it from a seed: what a host reads is what it wrote last, or, where a
//! write has failed or was cut off since, what that write would have left.

use std::time::Duration;

use hal_fakes::{NvmeConfig, NvmeEffect, NvmeInjection};
use nvme::Status;
use nvme::opcode::io;

use crate::card::Card;
use crate::host::{Host, Payload, blocks};
use crate::{MEMORY, idle, pattern};

const CELL_BLOCKS: u32 = 16;
const CELL_BYTES: usize = CELL_BLOCKS as usize * 512;
const CELLS_PER_HOST: usize = 12;
const STEPS: u32 = 1500;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// A piece of a drive that one host alone uses, one command at a time.
struct Cell {
    nsid: u32,
    start: u64,
    /// Seeds of what may stand there; 0 is zeros.
    allowed: Vec<u32>,
    /// The command under way, and what it writes.
    busy: Option<(u16, Option<u32>)>,
}

fn contents(seed: u32) -> Vec<u8> {
    if seed == 0 { vec![0; CELL_BYTES] } else { pattern(CELL_BYTES, seed.wrapping_mul(7919)) }
}

struct User {
    id: u8,
    host: Host,
    cells: Vec<Cell>,
}

impl User {
    fn start_one(&mut self, card: &mut Card, random: &mut Random, version: &mut u32) {
        let index = random.below(self.cells.len() as u64) as usize;
        let cell = &mut self.cells[index];
        if cell.busy.is_some() {
            return;
        }
        let (opcode, payload, written) = if random.below(2) == 0 {
            (io::READ, Payload::Read(CELL_BYTES as u32), None)
        } else {
            *version += 1;
            let data = contents(*version);
            let payload = if random.below(2) == 0 { Payload::InCapsule(data) } else { Payload::Write(data) };
            (io::WRITE, payload, Some(*version))
        };
        let command = blocks(opcode, cell.nsid, cell.start, CELL_BLOCKS);
        cell.busy = Some((self.host.io.start(card, command, payload), written));
    }

    fn take_ended(&mut self, card: &mut Card) {
        for end in self.host.io.ended(card) {
            let of_command = |cell: &&mut Cell| cell.busy.is_some_and(|(cid, _)| cid == end.cid);
            let cell = self.cells.iter_mut().find(of_command).expect("a command of ours");
            let (_, written) = cell.busy.take().unwrap();
            match (written, end.status.is_success()) {
                (Some(version), true) => cell.allowed = vec![version],
                (Some(version), false) => cell.allowed.push(version),
                (None, true) => {
                    let found = cell.allowed.iter().copied().find(|&seed| contents(seed) == end.data);
                    // What was seen once stays.
                    cell.allowed = vec![found.expect("data that nobody may have written there")];
                }
                (None, false) => assert_ne!(end.status, Status::SUCCESS),
            }
        }
    }

    /// The connections are reset and made anew.
    fn reconnect(&mut self, card: &mut Card) {
        self.host.reset(card);
        for cell in &mut self.cells {
            if let Some((_, Some(version))) = cell.busy.take() {
                cell.allowed.push(version);
            }
        }
        self.host = Host::connect(card, self.id);
    }
}

fn mishap(card: &mut Card, random: &mut Random) {
    let drive = &card.drives[random.below(2) as usize];
    let effect = match random.below(4) {
        0 => NvmeEffect::Never,
        1 => NvmeEffect::Status(0x0281),
        2 => NvmeEffect::Duplicate,
        _ => NvmeEffect::WrongIdentifier,
    };
    let opcode = if random.below(2) == 0 { io::READ } else { io::WRITE };
    match random.below(8) {
        0 => drive.set_fatal(),
        1 => drive.set_removed(true),
        2..=4 => drive.set_removed(false),
        _ => drive.inject(NvmeInjection { queue: Some(1), opcode: Some(opcode), skip: 0, count: 1, effect }),
    }
}

fn run(seed: u64) {
    println!("seed {seed}");
    let random = &mut Random(seed);
    let config = NvmeConfig { latency_polls: (0, 40), seed: seed + 1, ..NvmeConfig::default() };
    let mut card = Card::boot(MEMORY, [config.clone(), config]);
    let before = card.counts();
    let mut users: Vec<User> = Vec::new();
    for id in 0..2u8 {
        let mut host = Host::connect(&mut card, id + 1);
        let namespaces = host.namespaces(&mut card);
        let cell = |index: usize| Cell {
            nsid: namespaces[index % 2],
            start: u64::from(id) * 4096 + index as u64 * u64::from(CELL_BLOCKS),
            allowed: vec![0],
            busy: None,
        };
        users.push(User { id: id + 1, host, cells: (0..CELLS_PER_HOST).map(cell).collect() });
    }
    let mut version = 0;
    for _ in 0..STEPS {
        let user = &mut users[random.below(2) as usize];
        match random.below(1000) {
            0..20 => mishap(&mut card, random),
            20..24 => user.reconnect(&mut card),
            24..60 => card.pass(Duration::from_millis(random.below(3000))),
            60..400 => user.start_one(&mut card, random, &mut version),
            _ => {
                card.turn();
                user.take_ended(&mut card);
            }
        }
    }
    for drive in &card.drives {
        drive.set_removed(false);
        drive.clear_injections();
    }
    for _ in 0..90 {
        card.pass(Duration::from_secs(1));
        users.iter_mut().for_each(|user| user.take_ended(&mut card));
    }
    for user in &mut users {
        assert!(user.cells.iter().all(|cell| cell.busy.is_none()), "a command without an end");
        for index in 0..user.cells.len() {
            let cell = &mut user.cells[index];
            let command = blocks(io::READ, cell.nsid, cell.start, CELL_BLOCKS);
            let end = user.host.io.execute(&mut card, command, Payload::Read(CELL_BYTES as u32));
            assert_eq!(end.status, Status::SUCCESS);
            assert!(cell.allowed.iter().any(|&seed| contents(seed) == end.data), "cell {index}");
        }
        user.host.reset(&mut card);
    }
    assert_eq!(idle(&mut card), before);
    assert_eq!(card.quarantined(), 0);
}

#[test]
fn what_hosts_read_is_what_they_wrote_whatever_drives_do() {
    for seed in 0..16 {
        run(seed);
    }
}
