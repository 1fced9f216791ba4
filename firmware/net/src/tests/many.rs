//! Stacks of several data cores on one port, against one peer.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use hal_api::{FrameQueue, FrameReceive, FrameTransmit, Instant};
use hal_fakes::{FakeFrameQueue, frame_queue_pair};
use hal_mem::Arena;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::EthernetAddress;

use super::dhcp::{LEASED, answer};
use super::{OURS, PORT, STEP, peer, port_info, small};
use crate::{
    Addressing, Config, ConnectionId, PortAddress, Stack, Steer, SteeredQueue, Steering, StreamState,
    steered_queues, steered_queues_bytes,
};

const SECOND: Duration = Duration::from_secs(1);
const FRAMES: usize = 32;
const OURS_6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

const FIXED: Addressing = Addressing::Static { address: OURS, prefix: 24, gateway: None };

type Wake = fn(usize);

/// The cores' stacks, a device that steers to as many queues as it has, and the peer behind it.
struct World {
    stacks: Vec<Stack<SteeredQueue<FakeFrameQueue, Wake>>>,
    /// The device's side of each of its queues.
    wires: Vec<FakeFrameQueue>,
    /// The peer's wire at the device.
    uplink: FakeFrameQueue,
    peer: peer::Peer,
    steering: &'static Steering,
    now: Instant,
    /// The device loses everything that the card sends.
    mute: bool,
    /// Answers to the peer's questions where we are.
    arp_replies: usize,
    advertisements: usize,
    /// The card's frames are tagged; the peer behind the device knows nothing of it.
    vlan: Option<u16>,
}

impl World {
    fn new(cores: usize, pairs: usize, addressing: Addressing, vlan: Option<u16>) -> Self {
        let depth = 64;
        let pair = || frame_queue_pair(port_info(1, 1500, true), port_info(1, 1500, true), depth);
        let (devices, wires): (Vec<_>, _) = (0..pairs).map(|_| pair()).unzip();
        let (uplink, theirs) =
            frame_queue_pair(port_info(1, 1500, false), port_info(2, 1500, false), depth * cores);
        let steering: &'static Steering = Box::leak(Box::new(Steering::new(&Steering::key_from(9), cores)));
        let mut arena = Arena::leak_for_host(steered_queues_bytes(cores, pairs, FRAMES, 1500));
        let queues = steered_queues(devices, steering, FRAMES, &mut arena, || (|_| {}) as Wake).unwrap();
        let now = Instant::from_millis(5);
        let stacks = queues.into_iter().enumerate().map(|(core, queue)| {
            let gateway = None;
            let config = Config {
                addressing: if core == 0 { addressing } else { Addressing::Follow },
                ipv6: Some(PortAddress { address: OURS_6, prefix: 64, gateway }),
                vlan,
                sockets: 24,
                receive_bytes: 16 * 1024,
                transmit_bytes: 16 * 1024,
                ..small()
            };
            let mut arena = Arena::leak_for_host(config.memory_bytes());
            Stack::new(queue, &config, &mut arena, core as u64, now).unwrap()
        });
        Self {
            stacks: stacks.collect(),
            wires,
            uplink,
            peer: peer::Peer::new(theirs),
            steering,
            now,
            mute: false,
            arp_replies: 0,
            advertisements: 0,
            vlan,
        }
    }

    fn fixed(cores: usize, pairs: usize) -> Self {
        Self::new(cores, pairs, FIXED, None)
    }

    fn step(&mut self) {
        let addresses = self.stacks[0].addresses();
        for (core, stack) in self.stacks.iter_mut().enumerate() {
            if core > 0 {
                stack.follow(addresses);
            }
            stack.poll(self.now, 32);
            stack.transmit(self.now, 32);
            stack.flush();
        }
        for wire in &mut self.wires {
            while let Some(mut frame) = wire.halves().0.receive(<[u8]>::to_vec) {
                if let Some(vlan) = self.vlan {
                    let tag: Vec<u8> = frame.splice(12..16, []).collect();
                    assert_eq!(tag, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
                }
                self.arp_replies += usize::from(frame[12..14] == [8, 6] && frame[21] == 2);
                self.advertisements +=
                    usize::from(frame[12..14] == [0x86, 0xdd] && (frame[20], frame[54]) == (58, 136));
                if let Some((_, answer)) = answer(&frame) {
                    wire.inject(&answer);
                } else if !self.mute {
                    self.uplink.inject(&frame);
                }
            }
            wire.flush();
        }
        while let Some(mut frame) = self.uplink.halves().0.receive(<[u8]>::to_vec) {
            if let Some(vlan) = self.vlan {
                frame.splice(12..12, [0x81, 0, 0xa0 | (vlan >> 8) as u8, vlan as u8]);
            }
            let queue = match self.steering.core_of_frame(&frame) {
                Steer::Core(core) => core % self.wires.len(),
                Steer::First | Steer::Copy => 0,
            };
            self.wires[queue].inject(&frame);
        }
        self.uplink.flush();
        self.peer.poll(self.now);
        self.now = self.now + STEP;
    }

    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not done after {limit:?}");
            self.step();
        }
    }

    /// The peer connects; whose connection it has become.
    fn connect(&mut self, address: IpAddr) -> (SocketHandle, usize, ConnectionId) {
        let handle = self.peer.connect(address, PORT);
        let mut accepted = None;
        self.run_until(5 * SECOND, |world| {
            let accept = |(core, stack): (usize, &mut Stack<_>)| Some((core, stack.accept()?));
            accepted = accepted.or_else(|| world.stacks.iter_mut().enumerate().find_map(accept));
            accepted.is_some()
        });
        let (core, (id, info)) = accepted.unwrap();
        let (from, to) = (SocketAddr::new(info.address, info.port), SocketAddr::new(address, PORT));
        assert_eq!(core, self.steering.core_of(from, to), "{from} to {to}");
        (handle, core, id)
    }

    /// Bytes from the peer and back.
    fn exchange(&mut self, handle: SocketHandle, core: usize, id: ConnectionId) {
        let sent: Vec<u8> = (0..9000u32).map(|at| (at ^ at >> 8) as u8 ^ core as u8).collect();
        assert_eq!(self.peer.socket(handle).send_slice(&sent), Ok(sent.len()));
        let (mut got, mut back) = (Vec::new(), vec![0; sent.len()]);
        self.run_until(5 * SECOND, |world| {
            let mut stream = world.stacks[core].stream(id).unwrap();
            stream.receive(|bytes| {
                got.extend_from_slice(bytes);
                bytes.len()
            });
            got.len() == sent.len()
        });
        assert_eq!(got, sent);
        let mut put = 0;
        while put < got.len() {
            put += self.stacks[core].stream(id).unwrap().send(|room| {
                let bytes = room.len().min(got.len() - put);
                room[..bytes].copy_from_slice(&got[put..put + bytes]);
                bytes
            });
        }
        self.run_until(5 * SECOND, |world| world.peer.socket(handle).recv_queue() == sent.len());
        assert_eq!(self.peer.socket(handle).recv_slice(&mut back), Ok(sent.len()));
        assert_eq!(back, sent);
    }
}

#[test]
fn connections_land_on_their_core_and_carry_data() {
    for (cores, pairs) in [(2, 1), (3, 2), (7, 1), (7, 4), (7, 7)] {
        let mut world = World::fixed(cores, pairs);
        let mut of_core = vec![0; cores];
        for round in 0..20 {
            let (handle, core, id) = world.connect(if round % 4 == 3 { OURS_6 } else { OURS });
            world.exchange(handle, core, id);
            of_core[core] += 1;
        }
        assert!(of_core.iter().filter(|connections| **connections > 0).count() > cores / 2, "{of_core:?}");
        let dropped: u64 = world.stacks.iter_mut().map(|stack| stack.queue().counters().dropped).sum();
        assert_eq!(
            (dropped, world.arp_replies),
            (0, 1),
            "one core answers the peer's question, {cores} cores"
        );
    }
}

#[test]
fn replies_to_own_connections_come_home() {
    for pairs in [1, 3] {
        let mut world = World::fixed(7, pairs);
        for remote in [IpAddr::from(peer::ADDRESS), peer::ADDRESS_6.into()] {
            for core in (0..7).chain(0..7) {
                let handle = world.peer.listen(4420);
                let remote = SocketAddr::new(remote, 4420);
                world.run_until(SECOND, |world| world.stacks[core].address().is_some());
                let id = world.stacks[core].connect(remote, world.now).unwrap();
                world.run_until(5 * SECOND, |world| {
                    world.stacks[core].stream(id).unwrap().state() == StreamState::Open
                        && world.peer.socket(handle).state() == tcp::State::Established
                });
                world.exchange(handle, core, id);
            }
        }
    }
}

#[test]
fn a_peer_that_moves_to_another_station_is_found_by_all_cores_and_answered_by_one() {
    for (cores, pairs, address) in [(4, 1, OURS), (4, 1, OURS_6), (3, 3, OURS), (3, 3, OURS_6)] {
        let mut world = World::fixed(cores, pairs);
        let mut of_core: Vec<Option<_>> = vec![None; cores];
        while of_core.contains(&None) {
            let (handle, core, id) = world.connect(address);
            world.exchange(handle, core, id);
            of_core[core] = Some((handle, id));
        }
        let answers = |world: &World| (world.arp_replies, world.advertisements);
        let (replies, advertisements) = answers(&world);
        world.peer.move_to(EthernetAddress([2, 0, 0, 0, 0, 9]));
        for (core, connection) in of_core.into_iter().enumerate() {
            let (handle, id) = connection.unwrap();
            world.exchange(handle, core, id);
        }
        let once =
            if address.is_ipv4() { (replies + 1, advertisements) } else { (replies, advertisements + 1) };
        assert_eq!(answers(&world), once, "{cores} cores, {pairs} pairs, {address}");
    }
}

#[test]
fn the_core_that_has_lost_a_connection_resets_it() {
    let mut world = World::fixed(4, 1);
    loop {
        let (handle, core, id) = world.connect(OURS);
        world.stacks[core].stream(id).unwrap().abort();
        world.stacks[core].release(id);
        world.mute = true;
        world.run_until(SECOND, |world| world.stacks[core].counters().sockets_free == 24);
        // What goes through another core leaves a turn later.
        world.step();
        world.mute = false;
        assert_eq!(world.peer.socket(handle).state(), tcp::State::Established, "it knows nothing yet");
        let sent: Vec<_> = world.stacks.iter().map(|stack| stack.counters().frames_sent).collect();
        world.peer.socket(handle).send_slice(b"are you there").unwrap();
        world.run_until(SECOND, |world| world.peer.socket(handle).state() == tcp::State::Closed);
        for (of, stack) in world.stacks.iter().enumerate() {
            assert_eq!(stack.counters().frames_sent - sent[of], u64::from(of == core), "core {of} of {core}");
        }
        if core == 3 {
            break;
        }
    }
}

#[test]
fn an_address_from_dhcp_reaches_all_and_a_loss_too() {
    let mut world = World::new(5, 1, Addressing::Dhcp, None);
    let all = |world: &mut World, address: Option<IpAddr>| {
        world.stacks.iter().all(|stack| stack.address() == address)
    };
    assert!(all(&mut world, None));
    world.run_until(2 * SECOND, |world| all(world, Some(LEASED.into())));
    let addresses = world.stacks[0].addresses();
    assert!(addresses.main.is_some_and(|main| main.prefix == 24 && main.gateway.is_some()));
    assert_eq!(addresses.ipv6.map(|own| own.address), Some(OURS_6));
    let sent: Vec<_> = world.stacks.iter().map(|stack| stack.counters().frames_sent).collect();
    assert!(sent[0] >= 2 && sent[1..] == [0; 4], "only the first asks: {sent:?}");
    for stack in &mut world.stacks[1..] {
        stack.follow(crate::PortAddresses::default());
        assert_eq!(stack.address(), None);
    }
}

#[test]
fn a_port_answers_at_its_link_local_address() {
    let mut world = World::fixed(3, 1);
    let link_local: IpAddr = "fe80::ff:fe00:1".parse().unwrap();
    for _ in 0..6 {
        let (handle, core, id) = world.connect(link_local);
        world.exchange(handle, core, id);
    }
}

#[test]
fn a_port_in_a_vlan_speaks_and_listens_with_its_tag() {
    for (cores, pairs) in [(2, 1), (5, 3)] {
        let mut world = World::new(cores, pairs, FIXED, Some(0x2ab));
        for round in 0..8 {
            let (handle, core, id) = world.connect(if round % 4 == 3 { OURS_6 } else { OURS });
            world.exchange(handle, core, id);
        }
        // Another network's frames on the same wire are no concern of ours.
        let sent: u64 = world.stacks.iter().map(|stack| stack.counters().frames_sent).sum();
        let mut echo = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        echo.extend([0x45, 0, 0, 30, 0, 0, 0, 0, 64, 1, 0x66, 0xdd, 10, 0, 0, 2, 10, 0, 0, 1]);
        echo.extend([8, 0, 0xf6, 0xf9, 0, 1, 0, 2, 1, 3]);
        world.wires[0].inject(&echo);
        echo.splice(12..12, [0x81, 0, 2, 0xac]);
        world.wires[0].inject(&echo);
        world.step();
        assert_eq!(world.stacks.iter().map(|stack| stack.counters().frames_sent).sum::<u64>(), sent);
        echo[15] = 0xab;
        world.wires[0].inject(&echo);
        world.step();
        assert_eq!(world.stacks.iter().map(|stack| stack.counters().frames_sent).sum::<u64>(), sent + 1);
    }
}

#[test]
fn what_a_core_drops_that_cannot_send_goes_on_to_the_others() {
    let mut world = World::fixed(2, 1);
    // Each peer's SYN, as far as steering looks at it.
    let syn = |peer: u16| {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        frame.extend(peer.to_be_bytes());
        frame.extend(PORT.to_be_bytes());
        frame.extend([0; 8]);
        frame.extend([0x50, 2, 0, 0, 0, 0, 0, 0]);
        frame
    };
    let of_core = |core: usize| {
        let frames = (40_000..).map(syn);
        let mut frames = frames.filter(|frame| world.steering.core_of_frame(frame) == Steer::Core(core));
        frames.next().unwrap()
    };
    let (own, others) = (of_core(0), of_core(1));
    let stack = &mut world.stacks[0];
    while stack.queue().halves().1.transmit(60, |_| (), |_| None).is_ok() {}
    for frame in [&own, &others, &own] {
        world.wires[0].inject(frame);
    }
    stack.poll(world.now, 32);
    assert_eq!((stack.frames_taken(), stack.has_frame()), (0, true), "an answer would have no room");
    assert_eq!(stack.drop_frames(16), 2);
    assert_eq!((stack.frames_taken(), stack.has_frame()), (3, false));
    assert!(world.stacks[1].has_frame());
    world.stacks[1].poll(world.now, 32);
    assert_eq!(world.stacks[1].frames_taken(), 1);
}
