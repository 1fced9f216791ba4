//! Several targets, one for each data core, whose messages are carried in chosen order.

use std::time::Duration;

use controller::Cores;
use hal_api::Instant;
use hal_mem::Arena;
use message::{Mesh, Roster};
use nvme::opcode::io;
use nvme::{Command, Status};

use super::card::{Card, UNLIMITED};
use super::host::{Host, Payload, Reply, block_command, pattern, property_set};
use crate::pdu::Digests;
use crate::{Environment, Limits, QueueIndex, SETUP_TIMEOUT, Settling};

mod ana;

const ENABLED: u32 = 0x0046_0001;
pub const ALL: Settling = Settling { turn: 1, frames_in_until: 1, thoroughly: true };

/// Data cores, each with a card's parts; all of them have the same blocks of their own.
pub(super) struct Many {
    pub cores: Vec<Card>,
}

/// A queue of a host, on a core.
pub(super) struct Queue {
    pub core: usize,
    pub host: Host,
}

impl Many {
    pub fn new(count: usize) -> Self {
        let limits = Limits { connections: 16, slots: 600, data_pages_per_connection: 512, ..UNLIMITED };
        Self::with(count, limits)
    }

    pub fn with(count: usize, limits: Limits) -> Self {
        let mut arena = Arena::leak_for_host(8 << 20);
        let meshes = Mesh::split(&mut arena, count).unwrap();
        let mut rosters = Roster::split(&mut arena, count, 8).unwrap().into_iter();
        let core = |mesh| {
            let mut card = Card::with(limits, 1024);
            card.subsystem.join(Cores::new(mesh, rosters.next().unwrap(), &mut arena).unwrap());
            card
        };
        Self { cores: meshes.into_iter().map(core).collect() }
    }

    /// Takes one message in at `core`; false when there is none.
    pub fn hear(&mut self, core: usize) -> bool {
        let card = &mut self.cores[core];
        card.subsystem.send_messages();
        let Some((from, message)) = card.subsystem.take_message() else { return false };
        let mut env =
            Environment { subsystem: &mut card.subsystem, pool: &mut card.pool, backend: &mut card.ram };
        card.target.hear(from, message, card.now, &mut env);
        true
    }

    pub fn settle(&mut self, core: usize, settling: Settling) {
        let card = &mut self.cores[core];
        card.target.settle(card.now, &mut card.subsystem, settling);
    }

    /// One turn of a core, with all messages taken in.
    pub fn turn(&mut self, core: usize) {
        while self.hear(core) {}
        self.settle(core, ALL);
        self.cores[core].run();
        self.settle(core, ALL);
        self.cores[core].subsystem.send_messages();
    }

    /// Lets everything happen that can without time going by.
    pub fn run(&mut self) {
        for _ in 0..1000 {
            for core in 0..self.cores.len() {
                self.turn(core);
            }
            if !self.cores.iter_mut().any(|card| card.subsystem.has_messages()) {
                return;
            }
        }
        panic!("the cores never come to rest");
    }

    pub fn tick_at(&mut self, now: Instant) {
        self.cores.iter_mut().for_each(|card| card.tick_at(now));
        self.run();
    }

    pub fn open(&mut self, core: usize) -> Queue {
        let host = Host::open(&mut self.cores[core]);
        host.initialize(&mut self.cores[core]);
        Queue { core, host }
    }

    pub fn start_connect(&mut self, queue: &Queue, queue_id: u16, cntlid: u16) {
        let pdu = queue.host.connect_pdu(queue_id, cntlid);
        self.cores[queue.core].send(queue.host.index, &pdu);
        self.cores[queue.core].run();
    }

    pub fn replies(&mut self, queue: &Queue) -> Vec<Reply> {
        queue.host.replies(&mut self.cores[queue.core])
    }

    pub fn response(&mut self, queue: &Queue) -> (Status, u64) {
        match self.replies(queue)[..] {
            [Reply::Response { status, result, .. }] => (status, result),
            ref other => panic!("{other:?}"),
        }
    }

    pub fn connect(&mut self, queue: &Queue, queue_id: u16, cntlid: u16) -> (Status, u64) {
        self.start_connect(queue, queue_id, cntlid);
        self.run();
        self.response(queue)
    }

    /// An enabled controller whose admin queue is on `core`.
    pub fn admin(&mut self, core: usize) -> (Queue, u16) {
        let mut queue = self.open(core);
        let (status, cntlid) = self.connect(&queue, 0, 0xffff);
        assert_eq!(status, Status::SUCCESS);
        self.set_cc(&mut queue, ENABLED);
        (queue, cntlid as u16)
    }

    pub fn io(&mut self, core: usize, queue_id: u16, cntlid: u16) -> Queue {
        let queue = self.open(core);
        assert_eq!(self.connect(&queue, queue_id, cntlid), (Status::SUCCESS, u64::from(cntlid)));
        queue
    }

    pub fn set_cc(&mut self, admin: &mut Queue, value: u32) {
        let card = &mut self.cores[admin.core];
        assert_eq!(admin.host.execute(card, property_set(0x14, value), Payload::None).0, Status::SUCCESS);
    }

    /// CSTS.
    pub fn status(&mut self, admin: &mut Queue) -> u64 {
        let mut get = property_set(0x1c, 0);
        get.nsid.set(u32::from(nvme::fabrics::kind::PROPERTY_GET));
        let card = &mut self.cores[admin.core];
        admin.host.execute(card, get, Payload::None).1
    }

    pub fn is_open(&mut self, queue: &Queue) -> bool {
        self.cores[queue.core].is_open(queue.host.index)
    }

    pub fn cut(&mut self, queue: &Queue) {
        self.cores[queue.core].cut(queue.host.index);
    }

    /// A write that stays at the drive.
    pub fn hold_write(&mut self, queue: &mut Queue) {
        let card = &mut self.cores[queue.core];
        card.ram.hold = true;
        let write = block_command(io::WRITE, 8, 1);
        queue.host.start(card, write, &Payload::InCapsule(pattern(512, 1)));
        card.run();
        assert!(!card.ram.pending.is_empty());
    }

    /// Everything came back, on every core.
    pub fn assert_clean(&mut self) {
        for core in &mut self.cores {
            let all: Vec<QueueIndex> = core.pipes.iter().map(|(index, _)| *index).collect();
            all.into_iter().for_each(|index| core.cut(index));
            core.ram.hold = false;
        }
        self.run();
        for card in &mut self.cores {
            card.assert_clean();
            assert_eq!((card.subsystem.counters().live, card.subsystem.mesh_faults()), (0, 0));
            assert_eq!(card.subsystem.pending_changes(), (0, 0));
        }
    }
}

fn later(many: &Many, time: Duration) -> Instant {
    many.cores[0].now + time
}

#[test]
fn the_queues_of_a_controller_serve_on_all_cores() {
    let mut many = Many::new(4);
    let (mut admin, cntlid) = many.admin(1);
    let mut queues: Vec<Queue> = (1..=8).map(|id| many.io(usize::from(id) % 4, id, cntlid)).collect();
    for queue in &mut queues {
        let card = &mut many.cores[queue.core];
        let data = pattern(4096, u32::from(queue.host.index.0));
        let write = block_command(io::WRITE, 16, 8);
        assert_eq!(queue.host.execute(card, write, Payload::Write(data.clone())).0, Status::SUCCESS);
        let read = block_command(io::READ, 16, 8);
        let (status, _, found) = queue.host.execute(card, read, Payload::Read(4096));
        assert_eq!((status, found), (Status::SUCCESS, data));
    }
    many.cut(&queues[4]);
    many.run();
    queues.push(many.io(3, 5, cntlid));
    assert_eq!(many.status(&mut admin), 1);
    many.assert_clean();
}

#[test]
fn a_reset_closes_the_queues_on_all_cores_and_is_complete_only_then() {
    let mut many = Many::new(3);
    let (mut admin, cntlid) = many.admin(0);
    let (one, mut two) = (many.io(1, 1, cntlid), many.io(2, 2, cntlid));
    let elsewhere = many.admin(1);
    many.hold_write(&mut two);
    many.set_cc(&mut admin, 0);
    assert_eq!(many.status(&mut admin), 1);
    many.turn(1);
    assert!(!many.is_open(&one));
    many.turn(0);
    assert_eq!(many.status(&mut admin), 1, "core 2 has not confirmed");
    many.run();
    assert_eq!(many.status(&mut admin), 0);
    assert!(!many.is_open(&two) && many.is_open(&elsewhere.0));
    // The write is still at the drive: the host's next queue waits for it, wherever it comes.
    many.set_cc(&mut admin, ENABLED);
    let again = many.open(1);
    many.start_connect(&again, 1, cntlid);
    many.run();
    assert!(many.replies(&again).is_empty());
    many.cores[2].complete(0);
    many.run();
    assert_eq!(many.response(&again).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn a_host_whose_admin_connection_is_lost_comes_back_after_its_last_write_on_any_core() {
    let mut many = Many::new(3);
    let (admin, cntlid) = many.admin(0);
    let mut queue = many.io(1, 1, cntlid);
    many.hold_write(&mut queue);
    many.cut(&admin);
    let back = many.open(2);
    many.start_connect(&back, 0, 0xffff);
    // The fence overtakes the end of the controller: its home confirms only when that is over.
    many.hear(1);
    many.run();
    assert!(many.replies(&back).is_empty() && !many.is_open(&queue));
    many.cores[1].complete(0);
    many.run();
    assert_eq!(many.response(&back).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn a_fence_that_overtakes_the_end_of_a_controller_waits_for_its_writes_all_the_same() {
    let mut many = Many::new(3);
    let (admin, cntlid) = many.admin(0);
    let mut queue = many.io(1, 1, cntlid);
    many.hold_write(&mut queue);
    let back = many.open(2);
    many.start_connect(&back, 0, 0xffff);
    // Core 1 knows of no loss yet, and confirms. Home has seen the reset of the admin queue when it hears of the fence.
    many.turn(1);
    many.cut(&admin);
    many.run();
    assert!(many.replies(&back).is_empty() && !many.is_open(&queue));
    many.cores[1].complete(0);
    many.run();
    assert_eq!(many.response(&back).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn queues_of_a_controller_that_has_gone_count_as_lost_before_they_are_served() {
    let mut card = Card::new();
    let (admin, mut queue) = Host::pair(&mut card, Digests::default(), |_| {});
    card.ram.hold = true;
    let write = block_command(io::WRITE, 8, 1);
    queue.start(&mut card, write, &Payload::InCapsule(pattern(512, 1)));
    card.run();
    let back = Host::open(&mut card);
    back.initialize(&mut card);
    let pdu = back.connect_pdu(0, 0xffff);
    card.send(back.index, &pdu);
    card.cut(admin.index);
    card.poll(back.index);
    assert!(back.replies(&mut card).is_empty());
    card.run();
    card.complete(0);
    card.run();
    let replies = back.replies(&mut card);
    assert!(matches!(replies[..], [Reply::Response { status: Status::SUCCESS, .. }]), "{replies:?}");
    card.assert_clean();
}

#[test]
fn a_fence_waits_for_writes_of_connections_lost_before_and_for_no_others() {
    let mut many = Many::new(2);
    let (_admin, cntlid) = many.admin(1);
    let (mut first, mut second) = (many.io(1, 1, cntlid), many.io(1, 2, cntlid));
    let (mut other_admin, other) = (many.open(1), 1);
    other_admin.host.host_id = [8; 16];
    assert_eq!(many.connect(&other_admin, 0, 0xffff).0, Status::SUCCESS);
    many.hold_write(&mut first);
    many.hold_write(&mut second);
    many.cut(&first);
    let back = many.open(0);
    many.start_connect(&back, 0, 0xffff);
    many.run();
    many.cut(&second);
    many.run();
    assert!(many.replies(&back).is_empty());
    // Another host is not concerned.
    let mut stranger = many.open(0);
    stranger.host.host_id = [6; 16];
    assert_eq!(many.connect(&stranger, 0, 0xffff).0, Status::SUCCESS);
    many.cores[1].complete(0);
    many.run();
    assert_eq!((many.response(&back).0, other), (Status::SUCCESS, 1));
    many.cores[1].complete(0);
    many.assert_clean();
}

#[test]
fn a_fence_loses_connections_that_the_host_has_closed() {
    let mut many = Many::new(2);
    let (admin, cntlid) = many.admin(1);
    let mut queue = many.io(1, 1, cntlid);
    many.hold_write(&mut queue);
    for closed in [&queue, &admin] {
        let card = &mut many.cores[1];
        card.target.peer_closed(closed.host.index, card.now);
    }
    let back = many.open(0);
    many.start_connect(&back, 0, 0xffff);
    many.run();
    assert!(!many.cores[1].is_open(queue.host.index));
    assert!(many.replies(&back).is_empty(), "a write is at a drive");
    many.cores[1].complete(0);
    many.run();
    assert_eq!(many.response(&back).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn a_fence_begins_when_all_frames_that_came_before_are_in() {
    let mut many = Many::new(2);
    let (_admin, cntlid) = many.admin(1);
    let mut queue = many.io(1, 1, cntlid);
    many.hold_write(&mut queue);
    let back = many.open(0);
    many.start_connect(&back, 0, 0xffff);
    // The reset of the old connection is still in the receive ring of core 1.
    for _ in 0..4 {
        while many.hear(1) {}
        many.settle(1, Settling { frames_in_until: 0, ..ALL });
        many.turn(0);
    }
    assert!(many.replies(&back).is_empty());
    many.cut(&queue);
    many.run();
    assert!(many.replies(&back).is_empty());
    many.cores[1].complete(0);
    many.run();
    assert_eq!(many.response(&back).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn a_fence_waits_for_frames_of_its_own_core_too() {
    let mut many = Many::new(2);
    let (_admin, cntlid) = many.admin(0);
    let mut queue = many.io(0, 1, cntlid);
    many.hold_write(&mut queue);
    let back = many.open(0);
    // It came by another core's ring, while the reset of the old connection waits at this core's device queue.
    many.start_connect(&back, 0, 0xffff);
    for _ in 0..4 {
        while many.hear(0) {}
        many.cores[0].run();
        many.settle(0, Settling { frames_in_until: 0, ..ALL });
        many.turn(1);
    }
    assert!(many.replies(&back).is_empty());
    many.cut(&queue);
    many.run();
    assert!(many.replies(&back).is_empty());
    many.cores[0].complete(0);
    many.run();
    assert_eq!(many.response(&back).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn home_hears_that_the_connection_went_while_it_was_asked() {
    for lose in [true, false] {
        let mut many = Many::new(2);
        let (_admin, cntlid) = many.admin(0);
        let queue = many.open(1);
        many.start_connect(&queue, 1, cntlid);
        // Arrivals, then the fence.
        for _ in 0..2 {
            while many.hear(0) {}
            many.settle(0, ALL);
            many.settle(1, ALL);
            while many.hear(1) {}
            many.cores[1].run();
        }
        // Home is asked now, and does not answer at once.
        if lose {
            many.cut(&queue);
        } else {
            let now = later(&many, SETUP_TIMEOUT);
            many.cores[1].tick_at(now);
            assert!(!many.is_open(&queue), "home has not answered in time");
        }
        many.run();
        let again = many.io(1, 1, cntlid);
        assert!(many.is_open(&again));
        many.assert_clean();
    }
}

#[test]
fn a_core_without_room_gives_the_queue_back() {
    let limits = Limits { connections: 8, slots: 60, data_pages_per_connection: 64, ..UNLIMITED };
    let mut many = Many::with(2, limits);
    let (_admin, cntlid) = many.admin(0);
    let (first, second) = (many.io(1, 1, cntlid), many.open(1));
    let (status, _) = many.connect(&second, 2, cntlid);
    assert_eq!(status.code(), Status::CONNECT_CONTROLLER_BUSY);
    many.cut(&first);
    many.run();
    assert_eq!(many.connect(&second, 2, cntlid).0, Status::SUCCESS);
    many.assert_clean();
}

#[test]
fn a_refusal_of_home_is_the_hosts_answer() {
    let mut many = Many::new(2);
    let (_admin, cntlid) = many.admin(0);
    let queue = many.open(1);
    let (status, result) = many.connect(&queue, 1, cntlid + 2);
    assert_eq!((status.code(), result), (Status::CONNECT_INVALID_PARAMETERS, 1 << 16 | 16));
    assert_eq!(many.connect(&queue, 1, cntlid).0, Status::SUCCESS, "it may try again");
    many.assert_clean();
}

#[test]
fn a_host_that_falls_silent_loses_its_queues_on_all_cores() {
    let mut many = Many::new(2);
    let (admin, cntlid) = many.admin(0);
    let queue = many.io(1, 1, cntlid);
    for _ in 0..4 {
        let now = later(&many, Duration::from_secs(3));
        many.cores.iter_mut().for_each(|card| card.now = now);
        let mut host = queue.host.clone();
        let read = Command { ..block_command(io::READ, 0, 1) };
        assert_eq!(host.execute(&mut many.cores[1], read, Payload::Read(512)).0, Status::SUCCESS);
        many.tick_at(now);
        assert!(many.is_open(&admin), "I/O on another core shows that the host is alive");
    }
    let now = later(&many, Duration::from_secs(6));
    many.tick_at(now);
    many.tick_at(now);
    assert!(!many.is_open(&admin) && !many.is_open(&queue));
    assert_eq!(many.cores[0].subsystem.counters().keep_alive_expired, 1);
    many.assert_clean();
}

#[test]
fn a_namespace_is_detached_when_no_core_has_a_command_for_it() {
    let mut many = Many::new(2);
    let (_admin, cntlid) = many.admin(0);
    let mut queue = many.io(1, 1, cntlid);
    many.hold_write(&mut queue);
    assert!(many.cores[0].subsystem.detach_everywhere(1));
    many.run();
    assert!(many.cores[1].subsystem.namespaces().is_empty());
    assert_eq!(many.cores[0].subsystem.pending_changes().0, 1);
    many.cores[1].complete(0);
    many.run();
    assert_eq!(many.cores[0].subsystem.pending_changes().0, 0);
    many.assert_clean();
}

#[test]
fn an_orderly_end_closes_admin_queues_after_the_io_queues_of_all_cores() {
    let mut many = Many::new(2);
    let (admin, cntlid) = many.admin(0);
    let mut queue = many.io(1, 1, cntlid);
    many.hold_write(&mut queue);
    let (now, deadline) = (many.cores[0].now, later(&many, Duration::from_secs(10)));
    for card in &mut many.cores {
        card.target.begin_shutdown(now, deadline, &card.subsystem);
    }
    many.tick_at(now);
    assert!(many.is_open(&admin) && many.is_open(&queue));
    many.cores[1].complete(0);
    many.tick_at(now);
    assert!(matches!(many.replies(&queue)[..], [Reply::Response { status: Status::SUCCESS, .. }]));
    many.tick_at(now);
    many.tick_at(now);
    assert!(!many.is_open(&admin) && !many.is_open(&queue));
    many.assert_clean();
}

#[test]
fn digests_are_agreed_as_on_one_core() {
    let mut many = Many::new(2);
    let (_admin, cntlid) = many.admin(0);
    let mut queue = Queue { core: 1, host: Host::open(&mut many.cores[1]) };
    queue.host.digests = Digests { header: true, data: true };
    queue.host.initialize(&mut many.cores[1]);
    assert_eq!(many.connect(&queue, 1, cntlid).0, Status::SUCCESS);
    let read = block_command(io::READ, 0, 1);
    let (status, ..) = queue.host.execute(&mut many.cores[1], read, Payload::Read(512));
    assert_eq!(status, Status::SUCCESS);
    many.assert_clean();
}
