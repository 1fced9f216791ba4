//! Random conversations, most of them with mutated PDUs, in random fragments: nothing panics, nothing is lost.
//!
//! `PENSTOCK_FUZZ_ITERATIONS` sets how many conversations there are, `PENSTOCK_FUZZ_SEED` where they start. A
//! failure prints the seed of its conversation; run that one alone with `PENSTOCK_FUZZ_ITERATIONS=1`.

use std::collections::BTreeMap;
use std::time::Duration;

use nvme::opcode::{self, admin, io};
use nvme::{Command, SglDescriptor};

use super::card::*;
use super::host::*;
use crate::pdu::{Digests, kind};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What was sent in which state, and how much of it was mutated and still reached the command layer.
#[derive(Default)]
struct Coverage {
    cells: BTreeMap<(&'static str, u8), [u64; 3]>,
}

impl Coverage {
    fn print(&self) {
        println!("{:16} {:>4} {:>9} {:>9} {:>9}", "state", "type", "valid", "mutated", "reached");
        for ((state, kind), [valid, mutated, reached]) in &self.cells {
            println!("{state:16} {kind:4x} {valid:9} {mutated:9} {reached:9}");
        }
    }

    fn total(&self, column: usize) -> u64 {
        self.cells.values().map(|cell| cell[column]).sum()
    }
}

/// One host connection in a conversation.
struct Talk {
    host: Host,
    state: &'static str,
    /// CID, TTAG, offset and length still to be sent.
    transfers: Vec<(u16, u16, u32, u32)>,
    cntlid: u16,
    queue_id: u16,
}

fn random_sgl(random: &mut Random, bytes: u32) -> SglDescriptor {
    match random.below(8) {
        0 => transport(random.pick(&[0, 1, 512, 4096, 0xffff_f000])),
        1 => in_capsule(random.pick(&[0, 1, 512, 8192, 8196])),
        _ => transport(bytes),
    }
}

/// A command that makes sense more often than not, and the data of its capsule.
fn random_command(random: &mut Random, queue_id: u16) -> (Command, Vec<u8>) {
    let mut data = Vec::new();
    let mut command = if queue_id == 0 {
        let (opcode, cdw10, bytes) = random.pick(&[
            (admin::IDENTIFY, 1, 4096),
            (admin::IDENTIFY, 2, 4096),
            (admin::IDENTIFY, 3, 4096),
            (admin::GET_LOG_PAGE, 2 | 127 << 16, 512),
            (admin::GET_LOG_PAGE, 1 | 15 << 16, 64),
            (admin::ASYNC_EVENT_REQUEST, 0, 0),
            (admin::ABORT, 1, 0),
            (admin::KEEP_ALIVE, 0, 0),
            (admin::GET_FEATURES, 7, 0),
            (admin::SET_FEATURES, 7, 0),
            (opcode::FABRICS, 0, 0),
        ]);
        let mut command = admin_command(opcode, random.pick(&[0, 1, 1, 4]), cdw10);
        command.cdw11.set(random.pick(&[0, 0, 0x14, 0x1c, 8]));
        command.set_sgl(random_sgl(random, bytes));
        command
    } else {
        let opcode = random.pick(&[
            io::READ,
            io::READ,
            io::WRITE,
            io::WRITE,
            io::COMPARE,
            io::FLUSH,
            io::WRITE_ZEROES,
            io::VERIFY,
            io::DATASET_MANAGEMENT,
            io::COPY,
        ]);
        let blocks = random.pick(&[1, 2, 8, 16, 17, 100, 300]);
        let mut command = block_command(opcode, random.next() % (BLOCKS - 300), blocks);
        // Few blocks for all pairs, so that halves of pairs meet, and pairs each other.
        let fuse = [(io::COMPARE, 1), (io::WRITE, 2)].into_iter().find(|(of, _)| *of == opcode);
        let fuse = fuse.filter(|_| !random.one_in(3)).map_or(0, |(_, fuse)| fuse);
        let blocks = if fuse == 0 { blocks } else { 2 };
        if fuse != 0 {
            command = block_command(opcode, random.next() % 2, blocks);
            command.flags = if random.one_in(20) { 3 } else { fuse };
        }
        command.set_sgl(random_sgl(random, blocks * 512));
        let writes = matches!(opcode, io::WRITE | io::COMPARE);
        if writes && blocks <= 16 && !random.one_in(3) {
            data = pattern(blocks as usize * 512, random.next() as u32);
            command.set_sgl(in_capsule(data.len() as u32));
        }
        if opcode == io::DATASET_MANAGEMENT {
            let ranges = random.below(4) as u32;
            command.cdw10.set(ranges);
            data = vec![0; (ranges as usize + 1) * 16];
            command.set_sgl(in_capsule(data.len() as u32));
        }
        if opcode == io::COPY {
            let ranges = random.below(4) as u32;
            command.cdw12.set(ranges);
            data = vec![0; (ranges as usize + 1) * 32];
            data[8] = random.next() as u8;
            data[16] = random.pick(&[0, 1, 255]);
            command.set_sgl(in_capsule(data.len() as u32));
        }
        command
    };
    let any = random.next() as u16;
    command.cid.set(random.pick(&[1, 2, 3, any]));
    (command, data)
}

impl Talk {
    fn open(card: &mut Card, random: &mut Random, queue_id: u16, cntlid: u16) -> Option<Self> {
        let index = card.open()?;
        card.pipe(index).fragment = random.pick(&[1, 2, 7, 64, 1460, 65536, 65536]);
        card.pipe(index).window = random.pick(&[13, 100, 5000, 1 << 20, 1 << 20]);
        let digests = Digests { header: random.one_in(2), data: random.one_in(2) };
        let host = Host {
            index,
            digests,
            alignment: random.pick(&[0, 0, 3, 31]),
            cid: 0,
            disable_flow_control: random.one_in(2),
            sq_size: 31,
            host_id: [7; 16],
            piece: 4096,
        };
        Some(Self { host, state: "awaiting ICReq", transfers: Vec::new(), cntlid, queue_id })
    }

    /// The whole set-up without a fault.
    fn set_up(&mut self, card: &mut Card) {
        let pdus = [self.host.icreq(), self.host.connect_pdu(self.queue_id, self.cntlid)];
        for pdu in pdus {
            card.send(self.host.index, &pdu);
            card.run();
            self.listen(card);
        }
        if self.state == "live" && self.queue_id == 0 {
            let mut enable = property_set(0x14, 0x0046_0001);
            enable.set_sgl(transport(0));
            let pdu = self.host.capsule(&enable, &[]);
            card.send(self.host.index, &pdu);
            card.run();
            self.listen(card);
        }
    }

    /// The next PDU that a well-behaved host would send, more or less.
    fn next_pdu(&mut self, random: &mut Random) -> Vec<u8> {
        match self.state {
            "awaiting ICReq" => self.host.icreq(),
            "awaiting Connect" => {
                if random.one_in(10) {
                    let (command, data) = random_command(random, self.queue_id);
                    return self.host.capsule(&command, &data);
                }
                self.host.connect_pdu(self.queue_id, self.cntlid)
            }
            _ => {
                if !self.transfers.is_empty() && !random.one_in(4) {
                    return self.next_data(random);
                }
                let (command, data) = random_command(random, self.queue_id);
                self.host.capsule(&command, &data)
            }
        }
    }

    fn next_data(&mut self, random: &mut Random) -> Vec<u8> {
        let at = random.below(self.transfers.len());
        let (cid, tag, offset, left) = self.transfers[at];
        let bytes = left.min(random.pick(&[512, 4096, 65536]));
        if bytes == left {
            self.transfers.swap_remove(at);
        } else {
            self.transfers[at] = (cid, tag, offset + bytes, left - bytes);
        }
        self.host.host_data(cid, tag, offset, bytes == left, &pattern(bytes as usize, cid.into()))
    }

    /// Reads what the target says until it says no more.
    fn listen(&mut self, card: &mut Card) {
        while !card.pipe(self.host.index).to_host.is_empty() {
            for reply in self.host.replies(card) {
                self.hear(reply);
            }
            card.run();
        }
        if !card.is_open(self.host.index) {
            self.state = "closed";
        }
    }

    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Initialize { .. } => self.state = "awaiting Connect",
            Reply::Response { status, result, .. } if self.state == "awaiting Connect" => {
                if status.is_success() {
                    self.state = "live";
                    self.cntlid = result as u16;
                }
            }
            Reply::ReadyToTransfer { cid, tag, offset, length } => {
                self.transfers.push((cid, tag, offset, length));
            }
            Reply::Terminate { .. } => self.state = "terminated",
            Reply::Response { .. } | Reply::Data { .. } => {}
        }
    }
}

/// Changes a PDU somewhere; most of the time its digests are made right again.
fn mutate(random: &mut Random, pdu: &mut Vec<u8>, digests: Digests) {
    let header = usize::from(pdu[2]).clamp(8, pdu.len());
    for _ in 0..=random.below(3) {
        // The common header is hit less often than its share: what it breaks never gets far.
        let at = if random.one_in(6) { random.below(8) } else { 8 + random.below(header - 7) };
        let at = at.min(pdu.len() - 1);
        match random.below(6) {
            0 => pdu[at] ^= 1 << random.below(8),
            1 => pdu[at] = random.next() as u8,
            2 => pdu[at] = random.pick(&[0, 0x7f, 0x80, 0xff]),
            3 => {
                let end = (at + 4).min(pdu.len());
                let value = random.pick(&[0, 1, 0x7fff_ffff, 0xffff_ffff, 0xffff_f000u32]).to_le_bytes();
                pdu[at..end].copy_from_slice(&value[..end - at]);
            }
            4 => {
                let last = pdu.len() - 1;
                pdu[last] ^= 1;
            }
            _ => pdu[at] = pdu[at].wrapping_add(1),
        }
    }
    let declared = u32::from_le_bytes([pdu[4], pdu[5], pdu[6], pdu[7]]) as usize;
    if random.one_in(20) && pdu.len() > 9 {
        pdu.truncate(1 + random.below(pdu.len() - 1));
    } else if declared == pdu.len() && digests.header && pdu[0] != 0 && !random.one_in(6) {
        let at = usize::from(pdu[2]);
        if let Some((covered, rest)) = pdu.split_at_mut_checked(at)
            && let Some(digest) = rest.first_chunk_mut::<4>()
        {
            *digest = hal_simd::crc32c(0, covered).to_le_bytes();
        }
    }
}

fn conversation(card: &mut Card, random: &mut Random, coverage: &mut Coverage) {
    card.budget_bytes = random.pick(&[300, 5000, 128 * 1024]);
    card.reverse = random.one_in(2);
    card.ram.hold = random.one_in(3);
    card.ram.places = random.pick(&[1, 4, 1000]);
    let mut talks = Vec::new();
    let mutates = random.pick(&[2, 4, 8]);
    for _ in 0..random.below(60) + 10 {
        talks.retain(|talk: &Talk| talk.state != "closed" && talk.state != "terminated");
        if talks.is_empty() || (talks.len() < 3 && random.one_in(4)) {
            let admin = talks.iter().find(|talk: &&Talk| talk.queue_id == 0 && talk.state == "live");
            let (queue_id, cntlid) =
                admin.map_or((0, 0xffff), |talk| (1 + random.below(3) as u16, talk.cntlid));
            match Talk::open(card, random, queue_id, cntlid) {
                Some(mut talk) => {
                    if !random.one_in(4) {
                        talk.set_up(card);
                    }
                    talks.push(talk);
                }
                None => break,
            }
        }
        let at = random.below(talks.len());
        let Some(talk) = talks.get_mut(at) else { break };
        // A controller of one's own has to be enabled before it serves I/O.
        let mut pdu = if talk.state == "live" && talk.queue_id == 0 && random.one_in(3) {
            let mut enable = property_set(0x14, 0x0046_0001);
            enable.cid.set(random.next() as u16);
            enable.set_sgl(transport(0));
            talk.host.capsule(&enable, &[])
        } else {
            talk.next_pdu(random)
        };
        let mutated = talk.state != "awaiting ICReq" && random.one_in(mutates) || random.one_in(40);
        let sent_kind = pdu[0];
        if mutated {
            mutate(random, &mut pdu, talk.host.digests);
            if let (kind::INITIALIZE_REQUEST, Some(&[alignment, digests])) = (sent_kind, pdu.get(10..12)) {
                // The host means what it says, so that it understands the replies.
                talk.host.alignment = alignment;
                talk.host.digests = Digests::from_field(digests);
            }
        }
        let state = talk.state;
        let before = card.target.counters();
        card.send(talk.host.index, &pdu);
        card.run();
        talk.listen(card);
        let after = card.target.counters();
        let reached = match sent_kind {
            kind::COMMAND => after.commands > before.commands,
            _ => after.terminated == before.terminated,
        };
        let cell = coverage.cells.entry((state, sent_kind)).or_default();
        cell[usize::from(mutated)] += 1;
        cell[2] += u64::from(mutated && reached);
        match random.below(40) {
            0 => card.cut(talk.host.index),
            1 => card.tick_at(card.now + Duration::from_millis(random.next() % 20_000)),
            2 if !card.ram.pending.is_empty() => card.complete(random.below(card.ram.pending.len())),
            _ => {}
        }
        for talk in &mut talks {
            talk.listen(card);
        }
    }
    card.assert_clean();
}

#[test]
fn random_conversations_leave_nothing_behind() {
    let setting = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
    let iterations = setting("PENSTOCK_FUZZ_ITERATIONS").unwrap_or(1500);
    let first = setting("PENSTOCK_FUZZ_SEED").unwrap_or(1);
    let mut coverage = Coverage::default();
    let mut card = Card::new();
    for seed in first..first + iterations {
        let before = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            conversation(&mut card, &mut Random(seed), &mut coverage);
        }));
        if let Err(panic) = before {
            println!("PENSTOCK_FUZZ_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
        assert_eq!(card.pool.free() as usize, POOL_PAGES, "PENSTOCK_FUZZ_SEED={seed}");
    }
    coverage.print();
    let (mutated, reached) = (coverage.total(1), coverage.total(2));
    println!("seeds {first}..{}: {mutated} mutated PDUs, {reached} reached", first + iterations);
    if iterations >= 500 {
        assert!(reached * 100 >= mutated * 30, "too few mutated PDUs get anywhere");
        for cell in [("awaiting ICReq", 0), ("awaiting Connect", 4), ("live", 4), ("live", 6)] {
            let [valid, mutated, reached] = coverage.cells.get(&cell).copied().unwrap_or_default();
            assert!(valid > 0 && mutated > 0 && reached > 0, "{cell:?} was not covered");
        }
    }
}

#[test]
fn random_bytes_are_survived() {
    let mut random = Random(42);
    let mut card = Card::new();
    for _ in 0..300 {
        let host = Host::open(&mut card);
        if random.one_in(2) {
            let icreq = host.icreq();
            card.send(host.index, &icreq);
        }
        let bytes: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
        card.pipe(host.index).fragment = random.pick(&[1, 8, 4096]);
        card.send(host.index, &bytes);
        card.run();
        card.assert_clean();
    }
}
