//! What hostile hosts cost a host that keeps to the rules.
//!
//! The measure is the card's work rather than time: of the same amount of work, which is what a core has in a second, each
//! host gets its share. Nothing depends on the speed of the machine.

use std::cell::Cell;
use std::sync::OnceLock;

use hal_fakes::NvmeConfig;
use nvme::Status;
use nvme::opcode::io;

use crate::card::Card;
use crate::host::{Host, Payload, blocks};
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

/// A host that keeps 128 commands of 1 MiB under way.
struct Greedy {
    host: Host,
    nsid: u32,
    write: bool,
    under_way: usize,
    done: u64,
}

impl Greedy {
    fn connect(card: &mut Card, write: bool) -> Self {
        let mut host = Host::connect_with(card, 2, 127);
        let nsid = host.namespaces(card)[0];
        Self { host, nsid, write, under_way: 0, done: 0 }
    }

    fn go_on(&mut self, card: &mut Card) {
        let (opcode, payload) = if self.write {
            (io::WRITE, Payload::Write(vec![7; LARGEST_BYTES as usize]))
        } else {
            (io::READ, Payload::Read(LARGEST_BYTES))
        };
        while self.under_way < 128 {
            self.host.io.start(card, blocks(opcode, self.nsid, 4096, LARGEST_BLOCKS), payload.clone());
            self.under_way += 1;
        }
        let ended = self.host.io.ended(card);
        assert!(ended.iter().all(|end| end.status == Status::SUCCESS));
        self.under_way -= ended.len();
        self.done += ended.len() as u64;
    }
}

/// What a host at this depth and a greedy one have of the same work, each of which may be away.
fn side_by_side(depth: Option<usize>, greedy: Option<bool>) -> [u64; 2] {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut greedy = greedy.map(|write| Greedy::connect(&mut card, write));
    let done = Cell::new([0; 2]);
    let hosts = |card: &mut Card| {
        if let Some(depth) = depth {
            reader.go_on(card, depth);
        }
        if let Some(greedy) = &mut greedy {
            greedy.go_on(card);
        }
        done.set([reader.done, greedy.as_ref().map_or(0, |greedy| greedy.done)]);
    };
    during_work(&mut card, hosts, || done.get())
}

/// Neither has less than its half: the greedy host keeps to the rules as well.
#[track_caller]
fn assert_halves(name: &str, write: bool) {
    let [_, greedy_alone] = side_by_side(None, Some(write));
    for depth in [16, 32, 127] {
        let [alone, _] = side_by_side(Some(depth), None);
        let [beside, greedy] = side_by_side(Some(depth), Some(write));
        assert_share(&format!("at depth {depth} next to 128 {name} of 1 MiB"), beside, alone, HALF_PERCENT);
        let name = format!("128 {name} of 1 MiB next to depth {depth}");
        assert_share(&name, greedy, greedy_alone, GREEDY_PERCENT);
    }
}

#[test]
fn a_host_with_128_reads_of_1_mib_leaves_another_its_half() {
    assert_halves("reads", false);
}

#[test]
fn a_host_that_writes_128_times_1_mib_leaves_another_its_half() {
    assert_halves("writes", true);
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
