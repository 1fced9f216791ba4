//! Hosts that come and go on several cores in random order: no write of an old association is at a drive once a newer one has begun,
//! and a reset is complete only when no core has an I/O queue.
//!
//! A failure names its seed, and whoever has it runs that seed alone (`one_seed`).

use nvme::opcode::io;

use super::host::{Payload, Reply, block_command, pattern};
use super::many_cores::{ALL, Many, Queue};
use super::random::Random;
use crate::{QueueIndex, Settling};

const SEEDS: u64 = 150;
const STEPS: usize = 400;
const HOSTS: usize = 2;
const IO_QUEUES: u16 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting,
    Live,
    Gone,
}

struct Connection {
    queue: Queue,
    /// Where its frames come to.
    device: usize,
    host: usize,
    /// Which of its host's associations.
    epoch: u32,
    queue_id: u16,
    state: State,
}

#[derive(Default)]
struct HostState {
    epoch: u32,
    /// The newest association that has begun, and its CNTLID.
    begun: u32,
    cntlid: u16,
    ready: bool,
    /// CC.EN is 0, and CSTS.RDY not yet.
    resetting: bool,
}

struct World {
    random: Random,
    many: Many,
    connections: Vec<Connection>,
    hosts: [HostState; HOSTS],
    /// The resets in each of the port's device queues: the first cores have one each, and see what comes to it first.
    devices: Vec<Vec<(usize, QueueIndex)>>,
    /// The resets that core `from` has passed on to core `to`, at `[to][from]`.
    rings: Vec<Vec<Vec<QueueIndex>>>,
    /// Host and association of each write, by its first block.
    writes: Vec<(usize, u32)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::of_seed(seed);
        let cores = 2 + random.below(3);
        let device_queues = 1 + random.below(cores);
        let mut many = Many::new(cores);
        many.cores.iter_mut().for_each(|card| card.ram.hold = true);
        Self {
            random,
            many,
            connections: Vec::new(),
            hosts: Default::default(),
            devices: vec![Vec::new(); device_queues],
            rings: vec![vec![Vec::new(); device_queues]; cores],
            writes: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.come_back(),
            1 | 2 => self.connect_io(),
            3..=6 => self.write(),
            7 => self.lose_one(),
            10 => self.reset(),
            8 | 9 => {
                let core = self.random.below(self.many.cores.len());
                let pending = self.many.cores[core].ram.pending.len();
                if pending > 0 {
                    let position = self.random.below(pending);
                    self.many.cores[core].complete(position);
                }
            }
            _ => self.turn(),
        }
        self.take_replies();
        self.go_on_with_resets();
        self.check();
    }

    /// Some of a core's turn: frames, messages, changes, work.
    fn turn(&mut self) {
        let core = self.random.below(self.many.cores.len());
        self.take_some_frames(core);
        for _ in 0..self.random.below(4) {
            self.many.hear(core);
        }
        let frames_are_in = self.rings[core].iter().all(Vec::is_empty)
            && self.devices.get(core).is_none_or(|resets| resets.is_empty());
        self.many.settle(core, Settling { frames_in_until: u64::from(frames_are_in), ..ALL });
        if self.random.below(3) > 0 {
            self.many.cores[core].run();
        }
    }

    /// What has come to a core, in its rings and then at its device queue.
    fn take_frames(&mut self, core: usize) {
        for from in 0..self.devices.len() {
            self.take_from_ring(core, from);
        }
        if core < self.devices.len() {
            self.take_from_device(core);
        }
    }

    /// A turn may be over before all sources have given what they have.
    fn take_some_frames(&mut self, core: usize) {
        for from in 0..self.devices.len() {
            if self.random.below(4) == 0 {
                self.take_from_ring(core, from);
            }
        }
        if core < self.devices.len() && self.random.below(4) == 0 {
            self.take_from_device(core);
        }
    }

    fn take_from_ring(&mut self, core: usize, from: usize) {
        for index in core::mem::take(&mut self.rings[core][from]) {
            self.many.cores[core].cut(index);
        }
    }

    fn take_from_device(&mut self, core: usize) {
        for (owner, index) in core::mem::take(&mut self.devices[core]) {
            if owner == core {
                self.many.cores[core].cut(index);
            } else {
                self.rings[owner][core].push(index);
            }
        }
    }

    fn lose(&mut self, which: usize) {
        let connection = &mut self.connections[which];
        if connection.state != State::Gone {
            connection.state = State::Gone;
            let (core, index) = (connection.queue.core, connection.queue.host.index);
            self.devices[connection.device].push((core, index));
        }
    }

    /// A host loses all connections and begins anew. Of its I/O queues' connections some were lost without a word.
    fn come_back(&mut self) {
        let host = self.random.below(HOSTS);
        let silent = self.random.below(2) == 0;
        for which in 0..self.connections.len() {
            let connection = &mut self.connections[which];
            if connection.host != host {
                continue;
            }
            if silent && connection.queue_id > 0 && connection.state == State::Live {
                connection.state = State::Gone;
            } else {
                self.lose(which);
            }
        }
        self.hosts[host].resetting = false;
        self.hosts[host].epoch += 1;
        self.hosts[host].ready = false;
        self.open(host, 0, 0xffff);
    }

    fn connect_io(&mut self) {
        let host = self.random.below(HOSTS);
        let queue_id = 1 + self.random.below(usize::from(IO_QUEUES)) as u16;
        let state = &self.hosts[host];
        let taken = self
            .connections
            .iter()
            .any(|other| (other.host, other.queue_id) == (host, queue_id) && other.state != State::Gone);
        if state.ready && !taken {
            let cntlid = state.cntlid;
            self.open(host, queue_id, cntlid);
        }
    }

    fn open(&mut self, host: usize, queue_id: u16, cntlid: u16) {
        let core = self.random.below(self.many.cores.len());
        // A connection's frames come to one device queue, be it the right one or not, and lie behind the resets there.
        let device = self.random.below(self.devices.len());
        self.take_from_device(device);
        if device != core {
            self.take_from_ring(core, device);
        }
        if self.many.cores[core].target.counts().connections >= 12 {
            return;
        }
        let mut queue = self.many.open(core);
        queue.host.host_id = [host as u8 + 1; 16];
        self.many.start_connect(&queue, queue_id, cntlid);
        let epoch = self.hosts[host].epoch;
        self.connections.push(Connection { queue, device, host, epoch, queue_id, state: State::Connecting });
    }

    fn write(&mut self) {
        let live: Vec<usize> = (0..self.connections.len())
            .filter(|&at| self.connections[at].state == State::Live && self.connections[at].queue_id > 0)
            .collect();
        if live.is_empty() || self.writes.len() >= 8000 {
            return;
        }
        let connection = &mut self.connections[live[self.random.below(live.len())]];
        let card = &mut self.many.cores[connection.queue.core];
        if !card.is_open(connection.queue.host.index) || card.ram.pending.len() > 20 {
            return;
        }
        let command = block_command(io::WRITE, self.writes.len() as u64, 1);
        self.writes.push((connection.host, connection.epoch));
        connection.queue.host.start(card, command, &Payload::InCapsule(pattern(512, 1)));
        card.run();
    }

    fn admin_of(&self, host: usize) -> Option<usize> {
        self.connections.iter().position(|connection| {
            (connection.host, connection.queue_id, connection.state) == (host, 0, State::Live)
        })
    }

    fn reset(&mut self) {
        let host = self.random.below(HOSTS);
        let Some(admin) = self.admin_of(host).filter(|_| self.hosts[host].ready) else { return };
        self.many.set_cc(&mut self.connections[admin].queue, 0);
        self.hosts[host].ready = false;
        self.hosts[host].resetting = true;
    }

    fn go_on_with_resets(&mut self) {
        for host in 0..HOSTS {
            let Some(admin) = self.admin_of(host).filter(|_| self.hosts[host].resetting) else { continue };
            if self.many.status(&mut self.connections[admin].queue) != 0 {
                continue;
            }
            let home = self.connections[admin].queue.core;
            for connection in &self.connections {
                let is_old = connection.host == host && connection.state == State::Live;
                if is_old && connection.queue_id > 0 && connection.queue.core != home {
                    assert!(
                        !self.many.is_open(&connection.queue),
                        "reset, and core {} serves",
                        connection.queue.core
                    );
                }
            }
            self.many.set_cc(&mut self.connections[admin].queue, 0x0046_0001);
            self.hosts[host].resetting = false;
            self.hosts[host].ready = true;
        }
    }

    fn lose_one(&mut self) {
        if !self.connections.is_empty() {
            let which = self.random.below(self.connections.len());
            if self.connections[which].queue_id > 0 {
                self.lose(which);
            }
        }
    }

    fn take_replies(&mut self) {
        for which in 0..self.connections.len() {
            let connection = &mut self.connections[which];
            if connection.state == State::Gone {
                continue;
            }
            let replies = self.many.replies(&connection.queue);
            for reply in replies {
                let Reply::Response { status, result, .. } = reply else { panic!("{reply:?}") };
                if connection.state != State::Connecting {
                    continue;
                }
                if status.is_success() {
                    connection.state = State::Live;
                    self.begun(which, result as u16);
                } else {
                    assert_ne!(connection.queue_id, 0, "{status:?}");
                    self.lose(which);
                }
                break;
            }
            let connection = &mut self.connections[which];
            if connection.state != State::Gone && !self.many.is_open(&connection.queue) {
                connection.state = State::Gone;
            }
        }
    }

    fn begun(&mut self, which: usize, cntlid: u16) {
        let connection = &mut self.connections[which];
        let host = &mut self.hosts[connection.host];
        if connection.queue_id > 0 || connection.epoch != host.epoch {
            return;
        }
        (host.begun, host.cntlid, host.ready) = (connection.epoch, cntlid, true);
        self.many.set_cc(&mut connection.queue, 0x0046_0001);
    }

    /// The promise to hosts.
    fn check(&self) {
        for (core, card) in self.many.cores.iter().enumerate() {
            for request in &card.ram.pending {
                let (host, epoch) = self.writes[request.start_block as usize];
                assert!(
                    epoch >= self.hosts[host].begun,
                    "core {core} has a write of association {epoch} of host {host} at its drive, and {} has begun",
                    self.hosts[host].begun
                );
            }
            assert_eq!(card.subsystem.mesh_faults(), 0, "core {core}");
        }
    }

    /// All that waits for drives or messages comes to its end, and everything comes back.
    fn finish(&mut self) {
        for _ in 0..50 {
            for core in 0..self.many.cores.len() {
                self.take_frames(core);
                while !self.many.cores[core].ram.pending.is_empty() {
                    self.many.cores[core].complete(0);
                }
            }
            self.many.run();
            let now = self.many.cores[0].now + core::time::Duration::from_millis(10);
            self.many.tick_at(now);
            self.take_replies();
            self.go_on_with_resets();
            self.check();
        }
        let waiting = self.connections.iter().filter(|connection| connection.state == State::Connecting);
        assert_eq!(waiting.count(), 0, "a Connect has no answer");
        self.many.assert_clean();
    }
}

fn one_seed(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.finish();
}

#[test]
fn no_stale_write_lands_whatever_the_order_of_the_cores() {
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| one_seed(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}
