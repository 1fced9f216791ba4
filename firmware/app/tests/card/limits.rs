//! As many controllers, queues and commands as one address may have, on one data core and on each of several.

use app::sizes::{MAX_CONNECTIONS_PER_ADDRESS, MAX_CONTROLLERS_PER_ADDRESS};

use super::many_cores::all_idle;
use super::*;

const ENABLED: u32 = 0x0046_0001;
const CONTROLLERS: usize = 32;
const IO_QUEUES: usize = 2;
/// With flow control one entry of a submission queue stays free.
const DEPTH: usize = 127;
/// For each core: the entries of all these queues, and pages for as many.
const MEMORY: usize = 260 << 20;

const _: () = assert!(CONTROLLERS == MAX_CONTROLLERS_PER_ADDRESS as usize);
const _: () = assert!(CONTROLLERS * (1 + IO_QUEUES) == MAX_CONNECTIONS_PER_ADDRESS as usize);

/// A controller, whose host's number is its index, and its queues.
struct Association {
    id: u8,
    admin: Queue,
    cntlid: u16,
    io: Vec<Queue>,
}

impl Association {
    fn begin(card: &mut Card, id: u8, core: usize) -> Self {
        card.wire.next = core;
        let mut admin = Queue::open(card);
        let cntlid = admin.connect(card, id, 0, 0xffff);
        assert_eq!(admin.execute(card, property_set(0x14, ENABLED), Payload::None).status, Status::SUCCESS);
        Self { id, admin, cntlid, io: Vec::new() }
    }

    /// A queue of 128 entries on a core.
    fn add_queue(&mut self, card: &mut Card, core: usize) {
        card.wire.next = core;
        let mut queue = Queue::open(card);
        queue.entries_zero_based = DEPTH as u16;
        self.io.push(queue);
        let queue_id = self.io.len() as u16;
        let queue = self.io.last_mut().expect("just added");
        queue.connect(card, self.id, queue_id, self.cntlid);
    }
}

/// Connects once more to each core, from the same address: a controller too many.
fn one_controller_too_many(card: &mut Card, cores: usize) {
    for core in 0..cores {
        card.wire.next = core;
        let mut admin = Queue::open(card);
        admin.start_connect(card, 0xfe, 0, 0xffff);
        // Base 2.0, figure 29: command specific, and another try may succeed.
        assert_eq!(admin.wait(card, 1)[0].status, Status::CONNECT_CONTROLLER_BUSY);
        card.wire.reset(admin.socket);
    }
    let admins = (cores * CONTROLLERS) as u16;
    card.run_until("they are gone", |card| {
        card.all_counts().iter().map(|counts| counts.connections).sum::<u16>() == admins
    });
}

fn one_connection_too_many(card: &mut Card, cores: usize) {
    for core in 0..cores {
        card.wire.next = core;
        let socket = card.wire.connect();
        card.run_until("the card has reset it", |card| card.wire.has_ended(socket));
    }
}

fn all_at_once(cores: usize) {
    let config = NvmeConfig { latency_polls: (0, 40), ..NvmeConfig::default() };
    let mut card = Card::boot_cores(cores * MEMORY, cores, 1, [config.clone(), config]);
    card.pass(Duration::from_millis(300));
    let before = card.all_counts();
    let places = (0..cores * CONTROLLERS).map(|index| (index as u8, index % cores));
    let mut all: Vec<Association> =
        places.map(|(id, core)| Association::begin(&mut card, id, core)).collect();
    one_controller_too_many(&mut card, cores);
    for (index, association) in all.iter_mut().enumerate() {
        // On other cores than the controller, where there are some.
        (1..=IO_QUEUES).for_each(|queue| association.add_queue(&mut card, (index + queue) % cores));
    }
    one_connection_too_many(&mut card, cores);
    let mut sum = 0;
    for counts in card.all_counts() {
        assert_eq!(counts.connections, MAX_CONNECTIONS_PER_ADDRESS);
        sum += usize::from(counts.connections);
    }
    assert_eq!(sum, cores * CONTROLLERS * (1 + IO_QUEUES));
    // All of them are used to the full, at the same time.
    let nsid = namespace(&mut card, &mut all[0]);
    for queue in all.iter_mut().flat_map(|association| &mut association.io) {
        (0..DEPTH as u64).for_each(|at| {
            queue.start(&mut card, blocks(io::READ, nsid, at, 1), Payload::Read(512));
        });
    }
    let mut ended = 0;
    card.run_until("all commands have ended", |card| {
        for queue in all.iter_mut().flat_map(|association| &mut association.io) {
            let ends = queue.ended(card);
            assert!(ends.iter().all(|end| end.status == Status::SUCCESS && end.data.len() == 512));
            ended += ends.len();
        }
        ended == cores * CONTROLLERS * IO_QUEUES * DEPTH
    });
    // Whoever comes from elsewhere finds room for the same on each core.
    card.wire.station += 1;
    for core in 0..cores {
        let mut other = Association::begin(&mut card, 0xf0 + core as u8, core);
        (1..=IO_QUEUES).for_each(|queue| other.add_queue(&mut card, (core + queue) % cores));
        all.push(other);
    }
    for association in &all {
        card.wire.reset(association.admin.socket);
        association.io.iter().for_each(|queue| card.wire.reset(queue.socket));
    }
    assert_eq!(all_idle(&mut card), before);
}

fn namespace(card: &mut Card, association: &mut Association) -> u32 {
    let mut identify = Command { opcode: nvme::opcode::admin::IDENTIFY, ..Default::default() };
    identify.cdw10.set(2);
    let list = association.admin.execute(card, identify, Payload::Read(4096)).data;
    u32::from_le_bytes(list[..4].try_into().expect("four bytes"))
}

#[test]
fn an_address_has_32_controllers_with_two_queues_of_128_entries_on_one_core_and_no_more() {
    all_at_once(1);
}

#[test]
fn an_address_has_as_many_on_each_of_four_cores_and_no_more() {
    all_at_once(4);
}

#[test]
fn an_address_leaves_command_slots_to_others_however_long_its_queues_are() {
    let mut card = Card::boot_cores(MEMORY, 1, 1, [NvmeConfig::default()]);
    card.pass(Duration::from_millis(300));
    let before = card.all_counts();
    let mut all = Vec::new();
    let mut refused = 0;
    for id in 0..CONTROLLERS as u8 {
        let mut cntlid = 0xffff;
        for queue_id in 0..=IO_QUEUES as u16 {
            // All 96 queues have 128 entries: as many as there are slots.
            let mut queue = Queue::open(&mut card);
            queue.entries_zero_based = DEPTH as u16;
            queue.start_connect(&mut card, id, queue_id, cntlid);
            let end = queue.wait(&mut card, 1).remove(0);
            match end.status {
                Status::SUCCESS => cntlid = end.result as u16,
                status => refused += usize::from(status == Status::CONNECT_CONTROLLER_BUSY),
            }
            if end.status == Status::SUCCESS && queue_id == 0 {
                let enabled = queue.execute(&mut card, property_set(0x14, ENABLED), Payload::None);
                assert_eq!(enabled.status, Status::SUCCESS);
            }
            all.push(queue.socket);
        }
    }
    assert_eq!(refused, 8, "the admin queues of controllers beyond three quarters");
    card.wire.station += 1;
    let mut other = Association::begin(&mut card, 0xf0, 0);
    (0..IO_QUEUES).for_each(|_| other.add_queue(&mut card, 0));
    all.extend(other.io.iter().map(|queue| queue.socket));
    all.push(other.admin.socket);
    all.into_iter().for_each(|socket| card.wire.reset(socket));
    assert_eq!(all_idle(&mut card), before);
}
