//! Hosts that talk to a target, most of the time as the specification asks, and hold what it answers against the model.

use crate::Card;
use crate::command_rules::Queue;
use crate::model::{Fate, Model, Phase, View};
use crate::mutation::mutate;
use crate::pdu_rules::OpenR2t;
use crate::random::Random;
use crate::wire::{self, Command, Connect, Digests};

/// A target, and a wire to it. Connections are counted from 0 in each conversation.
pub trait Peer {
    /// A new TCP connection.
    fn open(&mut self);
    /// The host of a connection sends these bytes; the target does all that it can.
    fn exchange(&mut self, id: usize, bytes: &[u8]);
    /// What a connection's host has received since it was last asked.
    fn received(&mut self, id: usize) -> Vec<u8>;
    /// Whether the target has closed or aborted the connection.
    fn is_open(&mut self, id: usize) -> bool;
    /// The host ends the connection; the target does all that it can.
    fn cut(&mut self, id: usize);
}

/// How much was said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// PDUs sent.
    pub pdus: u64,
    /// Those of them that were changed, out of their place or cut off.
    pub mutated: u64,
    /// C2HTermReqs, as the model asked for.
    pub terminated: u64,
    /// Responses and data.
    pub answers: u64,
    /// Conversations that ended early, because the model could not tell what was right.
    pub unsure: u64,
}

const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:host";

struct Host {
    id: usize,
    digests: Digests,
    queue_id: u16,
    cntlid: u16,
    taken: Vec<u8>,
}

struct Talk<'a, P> {
    peer: &'a mut P,
    model: Model,
    card: Card,
    random: Random,
    hosts: Vec<Host>,
    last_cid: u16,
    tally: Tally,
    /// What happened, for who looks at a divergence.
    trail: Vec<String>,
}

/// One conversation of `steps` steps.
///
/// # Errors
/// Where the target and the model differ: in words, with what came before.
pub fn converse(peer: &mut impl Peer, card: &Card, seed: u64, steps: usize) -> Result<Tally, String> {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let last_cid = random.any() as u16;
    let (model, card) = (Model::new(card.clone()), card.clone());
    let (hosts, tally, trail) = (Vec::new(), Tally::default(), Vec::new());
    let mut talk = Talk { peer, model, card, random, hosts, last_cid, tally, trail };
    for _ in 0..steps {
        let result = talk.step();
        if talk.model.is_unsure() {
            talk.tally.unsure += 1;
            break;
        }
        if let Err(what) = result {
            let from = talk.trail.len().saturating_sub(12);
            return Err(format!("seed {seed}: {what}\n  {}", talk.trail[from..].join("\n  ")));
        }
    }
    for host in std::mem::take(&mut talk.hosts) {
        talk.peer.cut(host.id);
    }
    Ok(talk.tally)
}

impl<P: Peer> Talk<'_, P> {
    fn step(&mut self) -> Result<(), String> {
        if self.hosts.is_empty() || (self.hosts.len() < 4 && self.random.one_in(8)) {
            self.open();
        }
        let at = self.random.below(self.hosts.len());
        let id = self.hosts[at].id;
        let Some(view) = self.model.view(id) else { return Ok(()) };
        if self.random.one_in(150) {
            self.end(id);
            return self.settle();
        }
        // Several at once only where it is certain that the queue has room for them.
        let room = matches!(view.phase, Phase::Live { .. })
            && view.outstanding + 8 < usize::from(view.entries)
            && self.random.one_in(3);
        let count = if room { 1 + self.random.below(3) } else { 1 };
        let mut open = view.open.clone();
        let mut pdus: Vec<_> = (0..count).map(|_| self.next_pdu(at, &view, &mut open)).collect();
        let digests = self.hosts[at].digests;
        let mut how = "valid";
        let rate = if view.phase == Phase::New { 12 } else { 2 };
        if self.random.one_in(rate) {
            let before = pdus.clone();
            how = mutate(&mut self.random, &mut pdus, digests);
            let differ = pdus.iter().zip(&before).filter(|(now, then)| now != then).count();
            self.tally.mutated += (differ + pdus.len().abs_diff(before.len())).max(1) as u64;
        }
        self.tally.pdus += pdus.len() as u64;
        let heads: Vec<_> = pdus.iter().map(|pdu| hex(pdu)).collect();
        self.trail.push(format!("{id} {:?} {how}: {}", view.phase, heads.join(" | ")));
        for segment in self.segments(&pdus.concat()) {
            if self.hosts.iter().all(|host| host.id != id) || self.model.is_unsure() {
                break;
            }
            self.model.begin_exchange();
            self.model.send(id, &segment);
            self.peer.exchange(id, &segment);
            self.settle()?;
        }
        Ok(())
    }

    fn open(&mut self) {
        self.peer.open();
        let id = self.model.open();
        let digests = Digests { header: self.random.one_in(2), data: self.random.one_in(2) };
        let admins = self.live_admins();
        // An I/O queue of a controller that is there, or a controller.
        let (queue_id, cntlid) = match admins.first() {
            Some(&cntlid) if !self.random.one_in(5) => (1 + self.random.below(3) as u16, cntlid),
            _ => (0, 0xffff),
        };
        self.hosts.push(Host { id, digests, queue_id, cntlid, taken: Vec::new() });
    }

    /// CNTLIDs of controllers that are ready.
    fn live_admins(&self) -> Vec<u16> {
        let phases = self.hosts.iter().filter_map(|host| self.model.view(host.id)).map(|view| view.phase);
        let ready = phases.filter_map(|phase| match phase {
            Phase::Live { controller, queue_id: 0 } if self.model.is_ready(controller) => {
                self.model.cntlid(controller)
            }
            _ => None,
        });
        ready.collect()
    }

    /// The whole as it is, or in pieces.
    fn segments(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        if !self.random.one_in(3) {
            return vec![bytes.to_vec()];
        }
        let size = self.random.pick(&[1, 3, 8, 24, 71, 512, 1448, 4096]).max(bytes.len() / 64);
        bytes.chunks(size).map(<[u8]>::to_vec).collect()
    }

    fn end(&mut self, id: usize) {
        self.peer.cut(id);
        self.model.close(id);
        self.hosts.retain(|host| host.id != id);
    }

    /// Reads all answers, and ends what has to end, until nothing more comes of it.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            for at in 0..self.hosts.len() {
                self.listen(at)?;
            }
            if self.model.is_unsure() {
                return Ok(());
            }
            for host in &self.hosts {
                let is_open = self.peer.is_open(host.id);
                self.model.rest(host.id, is_open).map_err(|what| format!("{}: {what}", host.id))?;
            }
            let fate = |host: &&Host| self.model.view(host.id).is_some_and(|view| view.fate != Fate::Lives);
            let ended = self.hosts.iter().find(fate).map(|host| host.id);
            let Some(id) = ended else { return Ok(()) };
            let waits = self.model.view(id).is_some_and(|view| view.fate == Fate::MayClose);
            if waits && self.peer.is_open(id) && !self.random.one_in(4) {
                return Ok(());
            }
            self.end(id);
        }
    }

    fn listen(&mut self, at: usize) -> Result<(), String> {
        let id = self.hosts[at].id;
        let received = self.peer.received(id);
        self.hosts[at].taken.extend(received);
        let bytes = std::mem::take(&mut self.hosts[at].taken);
        let mut rest = &bytes[..];
        while let Some(length) = wire::whole_pdu(rest) {
            let (pdu, after) = rest.split_at(length);
            self.tally.answers += 1;
            self.tally.terminated += u64::from(pdu[0] == wire::CONTROLLER_TERM);
            if !self.model.is_unsure() {
                self.model.reply(id, pdu).map_err(|what| format!("{id}: {what} in {}", hex(pdu)))?;
            }
            rest = after;
        }
        self.hosts[at].taken = rest.to_vec();
        Ok(())
    }

    /// What a host that keeps to the rules might send next.
    fn next_pdu(&mut self, at: usize, view: &View, open: &mut Vec<OpenR2t>) -> Vec<u8> {
        let Host { digests, queue_id, cntlid, .. } = self.hosts[at];
        match view.phase {
            Phase::New => wire::icreq(self.random.pick(&[0, 0, 3, 31]), digests),
            Phase::Initialized if !self.random.one_in(12) => {
                let (command, data) = Connect {
                    queue_id,
                    sq_size: self.random.pick(&[1, 3, 31, 31, 127]),
                    disable_flow_control: self.random.one_in(2),
                    cntlid,
                    host_id: [7; 16],
                    keep_alive_ms: 5000,
                    subsystem: self.card.nqn,
                    host: HOST,
                }
                .parts();
                if self.random.one_in(8) {
                    return wire::capsule(&command.transport(1024), &[], digests);
                }
                wire::capsule(&command, &data, digests)
            }
            Phase::Initialized => {
                let (command, data) = self.io_command(view);
                wire::capsule(&command, &data, digests)
            }
            Phase::Live { controller, queue_id } => {
                if !open.is_empty() && !self.random.one_in(4) {
                    return self.host_data(open, digests);
                }
                if self.random.one_in(300) {
                    return wire::host_term(1, 2, &[4; 72]);
                }
                let queue = if queue_id == 0 {
                    Queue::Admin(Some(self.model.is_ready(controller)))
                } else {
                    Queue::Io(None)
                };
                let (command, data) = match queue {
                    Queue::Admin(Some(false)) if !self.random.one_in(4) => {
                        let cid = self.cid(view);
                        (Command::property_set(0x14, 0x0046_0001).cid(cid), Vec::new())
                    }
                    Queue::Admin(_) => self.admin_command(view),
                    _ => self.io_command(view),
                };
                wire::capsule(&command, &data, digests)
            }
        }
    }

    fn host_data(&mut self, open: &mut Vec<OpenR2t>, digests: Digests) -> Vec<u8> {
        let at = self.random.below(open.len());
        let r2t = &mut open[at];
        let most = self.random.pick(&[4, 512, 4096, 65536, 131_072]);
        let bytes = (r2t.end - r2t.next).min(most);
        let offset = r2t.next;
        let last = offset + bytes == r2t.end;
        r2t.next += bytes;
        let r2t = *r2t;
        if last {
            open.swap_remove(at);
        }
        let seed = u64::from(r2t.cid % 2);
        wire::host_data(r2t.cid, r2t.tag, offset, last, &pattern(bytes as usize, seed), digests)
    }

    /// Free most of the time: twice the same makes it hard to tell whose an answer is.
    fn cid(&mut self, view: &View) -> u16 {
        self.last_cid = self.last_cid.wrapping_add(1);
        if !self.random.one_in(16) {
            return self.last_cid;
        }
        let in_use = view.cids.first().copied().unwrap_or(0xffff);
        self.random.pick(&[in_use, 0, 0xffff, self.last_cid.wrapping_sub(0x100)])
    }

    fn admin_command(&mut self, view: &View) -> (Command, Vec<u8>) {
        let random = &mut self.random;
        let bytes = random.pick(&[4096, 4096, 4096, 0, 4092, 0xffff_f000]);
        let command = match random.below(14) {
            0..=2 => Command::new(0x06).dword(10, random.pick(&[1, 1, 0, 2, 3, 0x10, 0xff])).transport(bytes),
            3 => Command::new(0x02).dword(10, random.pick(&[2, 1, 3]) | 127 << 16).transport(bytes),
            4..=5 => Command::new(0x18),
            6 => Command::new(0x0c),
            7 => Command::new(0x08).dword(10, random.any() as u32),
            8 => Command::new(0x0a).dword(10, random.pick(&[7, 2, 0x0b, 0x81])).transport(bytes),
            9 => Command::new(0x09).dword(10, random.pick(&[7, 0x0f])).dword(11, 0x0003_0003),
            10..=11 => Command::property_get(random.pick(&[0x08, 0x14, 0x1c, 0, 0x20, 0xffff_fffc])),
            12 => Command::property_set(random.pick(&[0x14, 0x14, 0x1c, 0]), 0x0046_0001),
            _ => Command::new(random.any() as u8),
        };
        // An enabled controller is stopped now and then.
        let command = if random.one_in(100) { Command::property_set(0x14, 0x0046_0000) } else { command };
        (command.cid(self.cid(view)), Vec::new())
    }

    fn io_command(&mut self, view: &View) -> (Command, Vec<u8>) {
        let cid = self.cid(view);
        let random = &mut self.random;
        let opcode = random.pick(&[1, 1, 1, 1, 2, 2, 2, 2, 5, 5, 0, 8, 0x0c, 9, 0x19]);
        let any = random.any();
        let opcode = if random.one_in(30) { any as u8 } else { opcode };
        let blocks = random.pick(&[1, 1, 2, 8, 16, 17, 40]);
        let nsid = if random.one_in(40) { random.pick(&[0, 2, u32::MAX]) } else { self.card.nsid };
        let end = self.card.blocks;
        let edge = random.pick(&[end, end - 1, end - u64::from(blocks), u64::MAX]);
        let start = if random.one_in(30) { edge } else { random.below(4) as u64 * 8 };
        let mut command = Command::blocks(opcode, nsid, start, blocks).cid(cid);
        let bytes = blocks * 512;
        let odd = random.pick(&[0, 1, 512, bytes + 4, 0xffff_f000]);
        command = command.transport(if random.one_in(12) { odd } else { bytes });
        let brings = opcode & 3 == 1;
        if matches!(opcode, 9 | 0x19) {
            let ranges = random.below(3) as u32;
            command = command.dword(if opcode == 9 { 10 } else { 12 }, ranges);
            let data = vec![0; (ranges as usize + 1) * if opcode == 9 { 16 } else { 32 }];
            return (command.in_capsule(data.len() as u32), data);
        }
        if brings && random.one_in(60) {
            command = command.with(1, &[0x40 | if opcode == 5 { 1 } else { 2 }]);
        }
        if !brings || bytes > self.card.in_capsule || random.one_in(2) {
            return (command, Vec::new());
        }
        let data = pattern(bytes as usize, u64::from(cid % 2));
        let odd = random.one_in(20);
        (command.in_capsule(if odd { bytes - 4 } else { bytes }), data)
    }
}

/// Bytes of which each block differs, of few kinds, so that a Compare may succeed.
fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at as u64 / 64 * 31 + seed * 97 + at as u64 % 251) as u8).collect()
}

/// The start of a PDU, for people.
fn hex(pdu: &[u8]) -> String {
    let head: String = pdu.iter().take(72).map(|byte| format!("{byte:02x}")).collect();
    format!("{head} ({} bytes)", pdu.len())
}
