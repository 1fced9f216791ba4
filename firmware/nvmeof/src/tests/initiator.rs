//! The host side and the target of this crate, back to back.

mod fused;

use std::collections::HashMap;

use nvme::{Command, Status};

use super::card::{BLOCKS, Card, NQN, Pipe, UNLIMITED};
use super::host::{HOST_NQN, pattern};
use crate::initiator::{
    BringUp, BringUpError, Completed, ControllerInfo, Fault, HostQueue, Identity, NamespaceInfo, Payload,
    QueueOptions, Slot, Step, SubmitError, Transfer, commands,
};
use crate::pdu::Digests;
use crate::{Limits, QueueIndex, Stream};

/// The host's end of a pipe.
struct HostEnd<'a>(&'a mut Pipe);

impl Stream for HostEnd<'_> {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let shown = self.0.to_host.len().min(self.0.fragment);
        let taken = take(&self.0.to_host[..shown]);
        self.0.to_host.drain(..taken);
        taken
    }

    fn send_room(&self) -> usize {
        self.0.window.saturating_sub(self.0.to_target.len())
    }

    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut room = vec![0xdd; self.send_room().min(self.0.fragment)];
        let sent = fill(&mut room);
        self.0.to_target.extend(&room[..sent]);
        sent
    }

    fn close(&mut self) {}

    fn abort(&mut self) {}
}

/// The data of commands by token.
#[derive(Default)]
struct Memory(HashMap<u64, Vec<u8>>);

impl Payload for Memory {
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]) {
        let data = self.0.get_mut(&token).expect("a command with data");
        data[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]) {
        room.copy_from_slice(&self.0[&token][offset as usize..offset as usize + room.len()]);
    }
}

/// A queue of a host and where its connection is.
struct Connected {
    queue: HostQueue<Vec<Slot>>,
    index: QueueIndex,
    memory: Memory,
    done: Vec<Completed>,
}

impl Connected {
    fn open(card: &mut Card, slots: usize, options: QueueOptions) -> Self {
        let queue = HostQueue::new(vec![Slot::default(); slots], options);
        let index = card.open().expect("a free connection");
        Self { queue, index, memory: Memory::default(), done: Vec::new() }
    }

    fn poll(&mut self, card: &mut Card) {
        let mut end = HostEnd(card.pipe(self.index));
        self.queue.poll(&mut end, &mut self.memory).expect("the target does nothing wrong");
        card.run();
        let mut end = HostEnd(card.pipe(self.index));
        self.queue.poll(&mut end, &mut self.memory).expect("the target does nothing wrong");
        while let Some(completed) = self.queue.take_completed() {
            self.done.push(completed);
        }
    }

    fn bring_up(&mut self, card: &mut Card, mut steps: BringUp) -> Result<ControllerInfo, BringUpError> {
        for _ in 0..100_000 {
            let mut end = HostEnd(card.pipe(self.index));
            self.queue.poll(&mut end, &mut steps).expect("the target does nothing wrong");
            if steps.advance(&mut self.queue, card.now)? {
                return Ok(steps.info().clone());
            }
            card.run();
        }
        panic!("does not come up: {:?}", steps.step());
    }

    fn execute(&mut self, card: &mut Card, command: Command, transfer: Transfer, data: Vec<u8>) -> Completed {
        self.memory.0.insert(7, data);
        self.queue.submit(7, &command, transfer).unwrap();
        for _ in 0..100_000 {
            self.poll(card);
            if let Some(completed) = self.done.pop() {
                assert_eq!(completed.token, 7);
                return completed;
            }
        }
        panic!("no end");
    }

    fn data(&self) -> &[u8] {
        &self.memory.0[&7]
    }
}

fn identity() -> Identity {
    Identity::new([7; 16], HOST_NQN, NQN).unwrap()
}

/// An admin queue and an I/O queue, both up.
fn pair(card: &mut Card, options: QueueOptions, slots: usize) -> (Connected, Connected, ControllerInfo) {
    let mut admin = Connected::open(card, 8, options);
    let info = admin.bring_up(card, BringUp::admin(identity(), 5000, 4)).unwrap();
    let mut io = Connected::open(card, slots, options);
    io.bring_up(card, BringUp::io(identity(), info.controller_id, 1)).unwrap();
    (admin, io, info)
}

/// A card that ends commands in reverse, and an I/O queue whose bytes come and go in small pieces.
fn narrow(options: QueueOptions, fragment: usize) -> (Card, Connected, ControllerInfo) {
    let mut card = Card::new();
    card.reverse = true;
    let (_, io, info) = pair(&mut card, options, 32);
    card.pipe(io.index).fragment = fragment;
    card.pipe(io.index).window = 3000;
    (card, io, info)
}

fn all_options() -> impl Iterator<Item = QueueOptions> {
    [(false, false, 0), (true, false, 3), (false, true, 0), (true, true, 31)]
        .into_iter()
        .map(|(header, data, alignment)| QueueOptions { digests: Digests { header, data }, alignment })
}

#[test]
fn a_controller_comes_up_and_says_what_it_has() {
    for options in all_options() {
        let mut card = Card::new();
        let (_, io, info) = pair(&mut card, options, 16);
        assert_eq!(info.namespaces[..], [NamespaceInfo { nsid: 1, block_shift: 9, blocks: BLOCKS }]);
        assert_eq!((info.io_queues, info.in_capsule_bytes), (4, 8192));
        assert!(info.volatile_write_cache && info.max_transfer_bytes >= 1 << 20);
        assert!(io.queue.flow_control_is_off() && io.queue.outstanding() == 0);
        card.assert_clean();
    }
}

#[test]
fn writes_of_each_kind_read_back() {
    for options in all_options() {
        let mut card = Card::new();
        let (_, mut io, info) = pair(&mut card, options, 16);
        for (blocks, start) in [(1, 0), (16, 100), (17, 200), (2048, 1000)] {
            let bytes = blocks * 512;
            let data = pattern(bytes as usize, blocks);
            let transfer = commands::send_transfer(bytes, info.in_capsule_bytes);
            assert_eq!(matches!(transfer, Transfer::SendInCapsule(_)), blocks <= 16);
            let write = commands::write(1, start, blocks);
            let done = io.execute(&mut card, write, transfer, data.clone());
            assert_eq!(done.status, Status::SUCCESS);
            assert_eq!(card.ram.bytes[start as usize * 512..][..bytes as usize], data);
            let read = commands::read(1, start, blocks);
            let done = io.execute(&mut card, read, Transfer::Receive(bytes), vec![0; bytes as usize]);
            assert_eq!((done.status, io.data()), (Status::SUCCESS, &data[..]));
        }
        assert_eq!(io.execute(&mut card, commands::flush(1), Transfer::None, vec![]).status, Status::SUCCESS);
        card.assert_clean();
    }
}

#[test]
fn a_full_queue_in_small_fragments_ends_every_command_once() {
    for (options, fragment) in all_options().zip([1, 7, 100, 4000]) {
        let (mut card, mut io, info) = narrow(options, fragment);
        for token in 0..32u64 {
            let (bytes, start) = (512 << (token % 6) as u32, token * 64);
            let blocks = bytes / 512;
            let data = pattern(bytes as usize, token as u32);
            let (command, transfer) = if token % 3 == 0 {
                (commands::read(1, start, blocks), Transfer::Receive(bytes))
            } else {
                let transfer = commands::send_transfer(bytes, info.in_capsule_bytes);
                (commands::write(1, start, blocks), transfer)
            };
            io.memory.0.insert(token, data);
            io.queue.submit(token, &command, transfer).unwrap();
        }
        let flush = commands::flush(1);
        assert_eq!(io.queue.submit(99, &flush, Transfer::None), Err(SubmitError::Full));
        for _ in 0..1_000_000 {
            if io.queue.outstanding() == 0 {
                break;
            }
            io.poll(&mut card);
        }
        let mut tokens: Vec<_> = io.done.iter().map(|done| done.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, Vec::from_iter(0..32));
        assert!(io.done.iter().all(|done| done.status.is_success()));
        for token in 0..32u64 {
            let data = &io.memory.0[&token];
            assert_eq!(card.ram.bytes[token as usize * 64 * 512..][..data.len()], data[..], "{token}");
        }
        card.assert_clean();
    }
}

#[test]
fn a_refused_command_is_a_status_and_the_queue_lives_on() {
    let mut card = Card::new();
    let (mut admin, mut io, _) = pair(&mut card, QueueOptions::default(), 4);
    let beyond = commands::read(1, BLOCKS, 1);
    let done = io.execute(&mut card, beyond, Transfer::Receive(512), vec![0; 512]);
    assert_eq!(done.status.code(), Status::LBA_OUT_OF_RANGE);
    let unknown = Command { opcode: 0xc5, ..Command::default() };
    let done = admin.execute(&mut card, unknown, Transfer::Receive(512), vec![0; 512]);
    assert_eq!(done.status.code(), Status::INVALID_OPCODE);
    let done = admin.execute(&mut card, commands::keep_alive(), Transfer::None, vec![]);
    assert_eq!(done.status, Status::SUCCESS);
    card.assert_clean();
}

#[test]
fn a_controller_that_refuses_says_at_which_step() {
    let mut card = Card::new();
    let mut admin = Connected::open(&mut card, 4, QueueOptions::default());
    let stranger = Identity::new([7; 16], HOST_NQN, "nqn.2026-01.example:other").unwrap();
    let error = admin.bring_up(&mut card, BringUp::admin(stranger, 0, 1)).unwrap_err();
    let BringUpError::Refused { step: Step::Connect, status, .. } = error else { panic!("{error:?}") };
    assert_eq!(status.code(), Status::CONNECT_INVALID_PARAMETERS);
    assert!(Identity::new([0; 16], "", NQN).is_none());
    assert!(Identity::new([0; 16], &"x".repeat(224), NQN).is_none());
}

#[test]
fn a_discovery_controller_comes_up_and_tells_its_log() {
    let mut card = Card::new();
    let mut admin = Connected::open(&mut card, 4, QueueOptions::default());
    let identity = Identity::new([7; 16], HOST_NQN, nvme::fabrics::DISCOVERY_NQN).unwrap();
    let info = admin.bring_up(&mut card, BringUp::discovery(identity)).unwrap();
    assert_eq!((info.io_queues, info.in_capsule_bytes, info.namespaces.len()), (0, 0, 0));
    let page = |offset, bytes| commands::get_log_page(nvme::log_page::id::DISCOVERY, 0, offset, bytes);
    let whole = admin.execute(&mut card, page(0, 1024), Transfer::Receive(1024), vec![0xee; 1024]);
    assert_eq!(whole.status, Status::SUCCESS);
    let header = admin.data().to_vec();
    // What lies behind the offset, and no more than was asked for.
    let part = admin.execute(&mut card, page(8, 12), Transfer::Receive(12), vec![0xee; 12]);
    assert_eq!((part.status, admin.data()), (Status::SUCCESS, &header[8..20]));
    let beyond = admin.execute(&mut card, page(1 << 40, 4), Transfer::Receive(4), vec![0; 4]);
    assert_eq!(beyond.status.code(), Status::INVALID_FIELD);
}

#[test]
fn a_target_that_gives_up_is_heard_and_commands_are_named() {
    let mut card =
        Card::with(Limits { connections: 4, slots: 64, data_pages_per_connection: 64, ..UNLIMITED }, 1024);
    let (_, mut io, _) = pair(&mut card, QueueOptions::default(), 4);
    card.ram.hold = true;
    let read = commands::read(1, 0, 8);
    for token in 0..3 {
        io.memory.0.insert(token, vec![0; 4096]);
        io.queue.submit(token, &read, Transfer::Receive(4096)).unwrap();
    }
    io.poll(&mut card);
    card.send(io.index, &[0xff; 8]);
    card.run();
    let fault = io.queue.poll(&mut HostEnd(card.pipe(io.index)), &mut io.memory).unwrap_err();
    assert_eq!(fault, Fault::Terminated { status: 1, information: 0 });
    assert_eq!(io.queue.submit(9, &read, Transfer::Receive(4096)), Err(SubmitError::Ended));
    let abandoned: Vec<_> = core::iter::from_fn(|| io.queue.take_abandoned()).collect();
    assert_eq!(abandoned, [0, 1, 2]);
    // The same slots serve a new connection.
    card.ram.hold = false;
    card.cut(io.index);
    while !card.ram.pending.is_empty() {
        card.complete(0);
    }
    io.queue = HostQueue::new(io.queue.into_slots(), QueueOptions::default());
    assert_eq!(io.queue.outstanding(), 0);
}
