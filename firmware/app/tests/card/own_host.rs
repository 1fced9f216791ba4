//! The project's own host, `nvmeof::initiator`, on the card's wires.

use std::collections::BTreeMap;

use nvme::Command;
use nvmeof::Stream;
use nvmeof::initiator::{
    BringUp, Completed, ControllerInfo, HostQueue, Identity, Payload, QueueOptions, Slot, SubmitError,
    Transfer,
};

use crate::card::Card;
use crate::wire::{Socket, Wires};

const NQN: &str = "nqn.2014-08.org.example:card";
/// Commands of a queue; an admin queue has no fewer.
const SLOTS: usize = 63;
const KEEP_ALIVE_MS: u32 = 600_000;
/// Most bytes that are sent at once.
const ROOM_BYTES: usize = 8192;

/// The data of commands, by token.
#[derive(Default)]
struct Memory(BTreeMap<u64, Vec<u8>>);

impl Payload for Memory {
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]) {
        let data = self.0.get_mut(&token).expect("a command with data");
        data[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]) {
        room.copy_from_slice(&self.0[&token][offset as usize..][..room.len()]);
    }
}

/// A host's end of a connection.
struct End<'a>(&'a mut Wires, Socket);

impl Stream for End<'_> {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let incoming = self.0.incoming(self.1);
        let taken = take(incoming);
        incoming.drain(..taken);
        taken
    }

    fn send_room(&self) -> usize {
        ROOM_BYTES
    }

    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut room = [0; ROOM_BYTES];
        let sent = fill(&mut room);
        self.0.send(self.1, &room[..sent]);
        sent
    }

    fn close(&mut self) {}

    fn abort(&mut self) {
        self.0.reset(self.1);
    }
}

/// The end of a command, and its data.
pub struct Ended {
    pub completed: Completed,
    pub data: Vec<u8>,
}

/// A queue of the project's own host.
pub struct OwnQueue {
    pub socket: Socket,
    queue: HostQueue<Vec<Slot>>,
    memory: Memory,
}

impl OwnQueue {
    fn open(card: &mut Card, mut steps: BringUp) -> (Self, ControllerInfo) {
        let socket = card.wire.connect();
        card.run_until("a TCP connection opens", |card| card.wire.is_open(socket));
        let mut queue = HostQueue::new(vec![Slot::default(); SLOTS], QueueOptions::default());
        card.run_until("the queue comes up", |card| {
            queue.poll(&mut End(&mut card.wire, socket), &mut steps).expect("the card does nothing wrong");
            steps.advance(&mut queue, card.now).expect("it comes up")
        });
        (Self { socket, queue, memory: Memory::default() }, steps.info().clone())
    }

    /// Starts a command with its data, or with the room for it.
    pub fn start(&mut self, token: u64, command: &Command, transfer: Transfer, data: Vec<u8>) {
        self.memory.0.insert(token, data);
        self.queue.submit(token, command, transfer).expect("room in the queue");
    }

    /// Starts a fused pair; each command has its token and its data.
    pub fn start_fused(
        &mut self,
        transfer: Transfer,
        first: (u64, Command, Vec<u8>),
        second: (u64, Command, Vec<u8>),
    ) -> Result<(), SubmitError> {
        let pair = ((first.0, &first.1, transfer), (second.0, &second.1, transfer));
        self.queue.submit_fused(pair.0, pair.1)?;
        self.memory.0.extend([(first.0, first.2), (second.0, second.2)]);
        Ok(())
    }

    /// Sends and takes in what there is; the commands that have ended.
    pub fn ended(&mut self, card: &mut Card) -> Vec<Ended> {
        let mut end = End(&mut card.wire, self.socket);
        self.queue.poll(&mut end, &mut self.memory).expect("the card does nothing wrong");
        let mut ended = Vec::new();
        while let Some(completed) = self.queue.take_completed() {
            let data = self.memory.0.remove(&completed.token).unwrap_or_default();
            ended.push(Ended { completed, data });
        }
        ended
    }

    /// Runs one command to its end, while no other is under way.
    pub fn execute(
        &mut self,
        card: &mut Card,
        command: &Command,
        transfer: Transfer,
        data: Vec<u8>,
    ) -> Ended {
        self.start(0, command, transfer, data);
        let mut ended = Vec::new();
        card.run_until("a command ends", |card| {
            ended.extend(self.ended(card));
            !ended.is_empty()
        });
        ended.remove(0)
    }
}

/// A host with its queues.
pub struct OwnHost {
    pub admin: OwnQueue,
    pub io: Vec<OwnQueue>,
    pub info: ControllerInfo,
}

impl OwnHost {
    /// Connects with so many I/O queues, which lie on the card's cores in turn; `id` makes it different from other hosts.
    pub fn connect(card: &mut Card, id: u8, queues: u16, cores: usize) -> Self {
        let name = format!("nqn.2014-08.org.example:own{id}");
        let identity = Identity::new([id; 16], &name, NQN).expect("names that fit");
        card.wire.next = usize::from(id) % cores;
        let (admin, info) = OwnQueue::open(card, BringUp::admin(identity, KEEP_ALIVE_MS, queues));
        let mut io = Vec::new();
        for queue in 1..=queues {
            card.wire.next = usize::from(queue) % cores;
            io.push(OwnQueue::open(card, BringUp::io(identity, info.controller_id, queue)).0);
        }
        Self { admin, io, info }
    }

    /// Ends all queues by RST.
    pub fn reset(&self, card: &mut Card) {
        self.io.iter().chain([&self.admin]).for_each(|queue| card.wire.reset(queue.socket));
    }
}
