//! What hostile hosts cost a host that keeps to the rules.
//!
//! The measure is the card's work rather than time: of the same amount of work, which is what a core has in a second, each
//! host gets its share. Nothing depends on the speed of the machine.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hal_fakes::NvmeConfig;
use nvme::Status;
use nvme::opcode::io;

use crate::card::Card;
use crate::host::{Host, Payload, blocks};
use crate::narrow::Narrow;
use crate::wire::Socket;

const MEMORY: usize = 256 << 20;
/// Commands that the well-behaved host keeps under way next to those that are no load.
const DEPTH: usize = 127;
/// Bytes of its reads.
const READ_BYTES: u32 = 4096;
/// The card's work in one measurement, in thousands of instructions as `cargo xtask measure path` counts them: an empty
/// turn, a frame either way, a command.
const WORK: u64 = 40_000;
const TURN_WORK: u64 = 1;
const FRAME_WORK: u64 = 2;
const COMMAND_WORK: u64 = 3;
/// Bytes that a drive moves in a turn where it is what all wait for: less than a turn's shares.
const DRIVE_TURN_BYTES: u64 = 20 << 10;
/// Turns in which its work is counted, and before: as long as what a greedy host had begun alone takes at most.
const NARROW_TURNS: u64 = 4000;
const WAITING_TURNS: u64 = 3000;
/// Work that goes by before it counts: queues fill, sockets settle.
const WARM_UP: u64 = 15_000;
/// Of what a host has alone, what it has next to one that works as well: half, but for what shorter turns cost, and
/// for a load of which no whole number of commands fills its part of a turn.
const HALF_PERCENT: u64 = 45;
/// The same of a host whose commands are so large that few of them end in a measurement.
const GREEDY_PERCENT: u64 = 40;
const LARGEST_BLOCKS: u32 = 2048;
const LARGEST_BYTES: u32 = 1 << 20;

/// A host that keeps some reads under way and takes each answer at once.
struct Reader {
    host: Host,
    nsid: u32,
    under_way: usize,
    done: u64,
    bytes: u32,
}

impl Reader {
    fn connect(card: &mut Card, id: u8, entries_zero_based: u16, bytes: u32) -> Self {
        let mut host = Host::connect_with(card, id, entries_zero_based);
        let nsid = host.namespaces(card)[0];
        Self { host, nsid, under_way: 0, done: 0, bytes }
    }

    fn go_on(&mut self, card: &mut Card, depth: usize) {
        while self.under_way < depth {
            let read = blocks(io::READ, self.nsid, 0, self.bytes / 512);
            self.host.io.start(card, read, Payload::Read(self.bytes));
            self.under_way += 1;
        }
        for end in self.host.io.ended(card) {
            assert_eq!((end.status, end.data.len()), (Status::SUCCESS, self.bytes as usize));
            self.under_way -= 1;
            self.done += 1;
        }
    }
}

fn card() -> Card {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    card.wire.widen();
    card
}

fn spent(card: &Card) -> u64 {
    let commands: u64 = [io::READ, io::WRITE].iter().map(|&opcode| card.drives[0].io_commands(opcode)).sum();
    card.wire.frames * FRAME_WORK + commands * COMMAND_WORK
}

/// Lets the hosts work until the card has done [`WORK`] after the time that does not count; gives what `done` has counted in it.
fn during_work(card: &mut Card, mut hosts: impl FnMut(&mut Card), done: impl Fn() -> [u64; 2]) -> [u64; 2] {
    let mut work = |card: &mut Card, amount: u64| {
        let (before, end) = (done(), spent(card) + amount);
        let mut turns = 0;
        while spent(card) + turns * TURN_WORK < end {
            hosts(card);
            card.turn();
            turns += 1;
        }
        let after = done();
        [after[0] - before[0], after[1] - before[1]]
    };
    work(card, WARM_UP);
    work(card, WORK)
}

/// Reads that the host has had of [`WORK`] of the card's work, while `others` do what they do.
fn served(card: &mut Card, reader: &mut Reader, mut others: impl FnMut(&mut Card)) -> u64 {
    let done = Cell::new(0);
    let hosts = |card: &mut Card| {
        reader.go_on(card, DEPTH);
        done.set(reader.done);
        others(card);
    };
    during_work(card, hosts, || [done.get(), 0])[0]
}

/// What the host has with nobody else on the card.
fn alone() -> u64 {
    static ALONE: OnceLock<u64> = OnceLock::new();
    *ALONE.get_or_init(|| {
        let mut card = card();
        let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
        let served = served(&mut card, &mut reader, |_| {});
        assert!(served > 500, "{served} reads are too few to measure");
        served
    })
}

#[track_caller]
fn assert_share(name: &str, served: u64, alone: u64, percent: u64) {
    println!("{name}: {served} of {alone}, {} %", served * 100 / alone);
    assert!(served * 100 >= alone * percent, "{name}: {served} of {alone}, less than {percent} %");
}

#[test]
fn a_host_that_never_reads_its_responses_costs_others_next_to_nothing() {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut hostile = Host::connect_with(&mut card, 2, 127);
    for _ in 0..128 {
        let read = blocks(io::READ, reader.nsid, 0, LARGEST_BLOCKS);
        hostile.io.start(&mut card, read, Payload::Read(LARGEST_BYTES));
    }
    card.wire.shut(hostile.io.socket);
    let served = served(&mut card, &mut reader, |_| {});
    assert_share("a host that never reads", served, alone(), 95);
}

#[test]
fn a_host_that_never_sends_its_data_costs_others_next_to_nothing() {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut hostile = Host::connect_with(&mut card, 2, 127);
    hostile.io.generous = false;
    for _ in 0..128 {
        let write = blocks(io::WRITE, reader.nsid, 4096, LARGEST_BLOCKS);
        hostile.io.start(&mut card, write, Payload::Write(vec![0; LARGEST_BYTES as usize]));
    }
    let served = served(&mut card, &mut reader, |card| drop(hostile.io.ended(card)));
    assert_share("a host that never sends its data", served, alone(), 95);
}

/// A host that keeps many commands of 1 MiB under way.
struct Greedy {
    host: Host,
    nsid: u32,
    opcode: u8,
    under_way: usize,
    done: u64,
}

impl Greedy {
    fn connect(card: &mut Card, opcode: u8) -> Self {
        let mut host = Host::connect_with(card, 2, 127);
        let nsid = host.namespaces(card)[0];
        Self { host, nsid, opcode, under_way: 0, done: 0 }
    }

    fn go_on(&mut self, card: &mut Card, depth: usize) {
        let payload = match self.opcode {
            io::WRITE => Payload::Write(vec![7; LARGEST_BYTES as usize]),
            io::READ => Payload::Read(LARGEST_BYTES),
            _ => Payload::None,
        };
        while self.under_way < depth {
            self.host.io.start(card, blocks(self.opcode, self.nsid, 4096, LARGEST_BLOCKS), payload.clone());
            self.under_way += 1;
        }
        let ended = self.host.io.ended(card);
        assert!(ended.iter().all(|end| end.status == Status::SUCCESS));
        self.under_way -= ended.len();
        self.done += ended.len() as u64;
    }
}

/// Neither has less than its half: the greedy host keeps to the rules as well.
#[track_caller]
fn assert_halves(name: &str, opcode: u8) {
    const DEPTHS: [usize; 3] = [16, 32, 127];
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut greedy = Greedy::connect(&mut card, opcode);
    // What each has of the same work.
    let mut measure = |depth: usize, greedy_depth: usize| {
        let done = Cell::new([0; 2]);
        let hosts = |card: &mut Card| {
            reader.go_on(card, depth);
            greedy.go_on(card, greedy_depth);
            done.set([reader.done, greedy.done]);
        };
        during_work(&mut card, hosts, || done.get())
    };
    let alone = DEPTHS.map(|depth| measure(depth, 0)[0]);
    let beside = DEPTHS.map(|depth| measure(depth, 128));
    let [_, greedy_alone] = measure(0, 128);
    for ((depth, alone), [beside, greedy]) in DEPTHS.into_iter().zip(alone).zip(beside) {
        assert_share(&format!("at depth {depth} next to 128 {name} of 1 MiB"), beside, alone, HALF_PERCENT);
        let name = format!("128 {name} of 1 MiB next to depth {depth}");
        assert_share(&name, greedy, greedy_alone, GREEDY_PERCENT);
    }
}

#[test]
fn a_host_with_128_reads_of_1_mib_leaves_another_its_half() {
    assert_halves("reads", io::READ);
}

#[test]
fn a_host_that_writes_128_times_1_mib_leaves_another_its_half() {
    assert_halves("writes", io::WRITE);
}

#[test]
fn silent_sockets_that_come_again_whenever_they_are_put_off_cost_others_little() {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut crowd: Vec<Socket> = (0..500).map(|_| card.wire.connect()).collect();
    let served = served(&mut card, &mut reader, |card| {
        // Whoever is put off comes again, one in each turn.
        if let Some(ended) = crowd.iter_mut().find(|socket| card.wire.has_ended(**socket)) {
            *ended = card.wire.connect();
        }
    });
    assert_share("500 silent sockets that come again", served, alone(), 90);
}

#[test]
fn five_hundred_sockets_that_never_send_icreq_cost_others_next_to_nothing() {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    for _ in 0..500 {
        card.wire.connect();
    }
    let served = served(&mut card, &mut reader, |_| {});
    assert_share("500 sockets that never send ICReq", served, alone(), 95);
}

#[test]
fn a_drive_that_all_wait_for_is_shared_by_bytes() {
    const DEPTHS: [usize; 2] = [32, 127];
    for opcode in [io::READ, io::WRITE, io::WRITE_ZEROES] {
        let granted = Arc::new(AtomicU64::new(0));
        let mut card = Card::boot_media(MEMORY, Box::new(Narrow::new(16384 << 9, &granted)));
        card.wire.widen();
        let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
        let mut greedy = Greedy::connect(&mut card, opcode);
        let mut measure = |depth: usize, greedy_depth: usize| {
            let mut before = [0; 2];
            for turn in 0..WAITING_TURNS + NARROW_TURNS {
                if turn == WAITING_TURNS {
                    before = [reader.done, greedy.done];
                }
                reader.go_on(&mut card, depth);
                greedy.go_on(&mut card, greedy_depth);
                granted.fetch_add(DRIVE_TURN_BYTES, Ordering::Relaxed);
                card.turn();
            }
            [reader.done - before[0], greedy.done - before[1]]
        };
        let alone = DEPTHS.map(|depth| measure(depth, 0)[0]);
        let beside = DEPTHS.map(|depth| measure(depth, 128));
        for ((depth, alone), [beside, greedy]) in DEPTHS.into_iter().zip(alone).zip(beside) {
            assert_share(&format!("at a drive, depth {depth}, opcode {opcode:#x}"), beside, alone, 48);
            let all = NARROW_TURNS * DRIVE_TURN_BYTES;
            assert_share("the greedy host there", greedy * u64::from(LARGEST_BYTES), all, HALF_PERCENT);
        }
    }
}
