//! What hostile hosts cost a host that keeps to the rules.
//!
//! The measure is the card's work (frames, PDUs, completions) rather than time: of the same amount of work, which is what a core
//! has in a second, the well-behaved host gets its share. Nothing depends on the speed of the machine.

use std::sync::OnceLock;

use hal_fakes::NvmeConfig;
use nvme::Status;
use nvme::opcode::io;

use crate::card::Card;
use crate::host::{Host, Payload, blocks};
use crate::wire::Socket;

const MEMORY: usize = 256 << 20;
/// Commands that the well-behaved host keeps under way: as many as the hostile ones, so that it wants its share in each turn.
/// With 32 it has 41 percent next to a host with 128 MiB under way, since each turn has become longer.
const DEPTH: usize = 127;
/// Bytes of its reads.
const READ_BYTES: u32 = 4096;
/// The card's work in one measurement.
const WORK: u64 = 30_000;
/// Work that goes by before it counts: queues fill, sockets settle.
const WARM_UP: u64 = 10_000;
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
    Card::boot(MEMORY, [NvmeConfig::default()])
}

/// Reads that the host has had of [`WORK`] of the card's work, while `others` do what they do.
fn served(card: &mut Card, reader: &mut Reader, mut others: impl FnMut(&mut Card)) -> u64 {
    let mut work = |card: &mut Card, reader: &mut Reader, amount: u64| {
        let before = reader.done;
        let mut spent = 0;
        while spent < amount {
            reader.go_on(card, DEPTH);
            others(card);
            // A turn in which nothing is done costs something as well.
            spent += 1 + u64::from(card.turn());
        }
        reader.done - before
    };
    work(card, reader, WARM_UP);
    work(card, reader, WORK)
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
    println!("{name}: {served} reads of {alone}");
    assert!(served * 100 >= alone * percent, "{name}: {served} of {alone} reads, less than {percent} %");
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

#[test]
fn a_host_with_128_commands_of_1_mib_leaves_another_its_half() {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut hostile = Reader::connect(&mut card, 2, 127, LARGEST_BYTES);
    let served = served(&mut card, &mut reader, |card| hostile.go_on(card, 128));
    assert!(hostile.done > 0, "it is served, too");
    assert_share("a host with 128 MiB under way", served, alone(), 50);
}

#[test]
fn a_host_that_writes_128_times_1_mib_leaves_another_its_half() {
    let mut card = card();
    let mut reader = Reader::connect(&mut card, 1, 127, READ_BYTES);
    let mut hostile = Host::connect_with(&mut card, 2, 127);
    let (nsid, mut under_way, mut done) = (reader.nsid, 0, 0);
    let served = served(&mut card, &mut reader, |card| {
        while under_way < 128 {
            let write = blocks(io::WRITE, nsid, 4096, LARGEST_BLOCKS);
            hostile.io.start(card, write, Payload::Write(vec![7; LARGEST_BYTES as usize]));
            under_way += 1;
        }
        let ended = hostile.io.ended(card).len();
        (under_way, done) = (under_way - ended, done + ended);
    });
    assert!(done > 0, "it is served, too");
    assert_share("a host that writes 128 MiB", served, alone(), 50);
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
