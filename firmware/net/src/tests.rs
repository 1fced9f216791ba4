//! A stack against a second smoltcp on the other end of a wire in memory.

mod connect;
mod connections;
mod control_packets;
mod dhcp;
mod hostile;
mod many;
mod peer;

use core::time::Duration;
use std::net::IpAddr;

use hal_api::{Instant, PortInfo};
use hal_fakes::{FakeFrameQueue, frame_queue_pair};
use hal_mem::Arena;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::{Addressing, Config, ConnectionId, Stack, StreamState};
use peer::Peer;

const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const PORT: u16 = 4420;
const STEP: Duration = Duration::from_micros(50);

fn port_info(last: u8, mtu: u16, offload: bool) -> PortInfo {
    PortInfo {
        mac: [2, 0, 0, 0, 0, last],
        mtu,
        receive_checksums_verified: offload,
        transmit_checksum_offload: offload,
    }
}

fn small() -> Config<'static> {
    Config {
        addressing: Addressing::Static { address: OURS, prefix: 24, gateway: None },
        sockets: 6,
        receive_bytes: 64 * 1024,
        transmit_bytes: 64 * 1024,
        ports: &[PORT],
        ..Config::default()
    }
}

/// The stack, the peer, the wire and the clock.
struct World {
    stack: Stack<FakeFrameQueue>,
    peer: Peer,
    now: Instant,
}

impl World {
    fn new(config: &Config<'_>, mtu: u16, offload: bool) -> Self {
        let (ours, theirs) = frame_queue_pair(port_info(1, mtu, offload), port_info(2, mtu, false), 64);
        let mut arena = Arena::leak_for_host(config.memory_bytes());
        let now = Instant::from_millis(5);
        let stack = Stack::new(ours, config, &mut arena, 1, now).unwrap();
        Self { stack, peer: Peer::new(theirs), now }
    }

    fn step(&mut self) {
        self.stack.poll(self.now, 32);
        self.stack.flush();
        self.peer.poll(self.now);
        self.now = self.now + STEP;
    }

    /// Steps until `done`, or fails after `limit` of simulated time.
    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not done after {limit:?}");
            self.step();
        }
    }

    /// Lets time go by in larger steps.
    fn idle(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            self.now = self.now + Duration::from_millis(5);
        }
    }

    fn connect(&mut self) -> (SocketHandle, ConnectionId) {
        let handle = self.peer.connect(OURS, PORT);
        let mut accepted = None;
        self.run_until(Duration::from_secs(10), |world| {
            accepted = accepted.or_else(|| world.stack.accept());
            accepted.is_some()
        });
        let (id, info) = accepted.unwrap();
        assert_eq!((info.address, info.local_port), (peer::ADDRESS.into(), PORT));
        assert_eq!(info.port, self.peer.socket(handle).local_endpoint().unwrap().port);
        (handle, id)
    }

    /// Sends `bytes` from the peer, echoes them in the stack, and checks what comes back.
    fn echo(&mut self, bytes: usize, limit: Duration) {
        let (handle, id) = self.connect();
        let pattern = |at: usize| (at ^ (at >> 8) ^ (at >> 16)) as u8;
        let (mut sent, mut returned) = (0, 0);
        self.run_until(limit, |world| {
            let mut stream = world.stack.stream(id).unwrap();
            let mut kept = [0; 8192];
            let room = stream.send_room().min(kept.len());
            let taken = stream.receive(|bytes| {
                let taken = bytes.len().min(room);
                kept[..taken].copy_from_slice(&bytes[..taken]);
                taken
            });
            let mut put = 0;
            while put < taken {
                put += stream.send(|place| {
                    let now = place.len().min(taken - put);
                    place[..now].copy_from_slice(&kept[put..put + now]);
                    now
                });
            }
            world.stack.transmit(world.now, 32);
            let socket = world.peer.socket(handle);
            while sent < bytes && socket.can_send() {
                sent += socket
                    .send(|place| {
                        let now = place.len().min(bytes - sent);
                        for (at, byte) in place[..now].iter_mut().enumerate() {
                            *byte = pattern(sent + at);
                        }
                        (now, now)
                    })
                    .unwrap();
            }
            while socket.can_recv() {
                socket
                    .recv(|got| {
                        for byte in got.iter() {
                            assert_eq!(*byte, pattern(returned), "at {returned}");
                            returned += 1;
                        }
                        (got.len(), ())
                    })
                    .unwrap();
            }
            returned == bytes
        });
        self.peer.socket(handle).close();
        self.run_until(Duration::from_secs(5), |world| {
            world.stack.stream(id).unwrap().state() == StreamState::PeerClosed
        });
        self.stack.release(id);
        assert!(self.stack.stream(id).is_none());
        self.run_until(Duration::from_secs(30), |world| {
            world.peer.socket(handle).state() == tcp::State::TimeWait || !world.peer.socket(handle).is_open()
        });
        self.run_until(Duration::from_secs(6), |world| world.stack.counters().sockets_free == 6);
    }
}

#[test]
fn echoes_one_mebibyte() {
    World::new(&small(), 1500, false).echo(1 << 20, Duration::from_secs(10));
}

#[test]
fn echoes_with_jumbo_frames_and_checksums_left_to_the_device() {
    // The peer verifies in software what the fake device filled in.
    let mut world = World::new(&small(), 9000, true);
    world.echo(1 << 20, Duration::from_secs(10));
    assert!(world.stack.queue().checksums_filled() > 100);
}

#[test]
fn echoes_over_a_wire_that_loses_frames() {
    let mut world = World::new(&small(), 1500, false);
    world.stack.queue().lose_every(41);
    world.peer.queue.lose_every(53);
    world.echo(256 << 10, Duration::from_secs(120));
    assert!(world.stack.queue().frames_lost() > 2 && world.peer.queue.frames_lost() > 2);
}

#[test]
fn connects_over_ipv6() {
    let ours = "fd00::1".parse::<IpAddr>().unwrap();
    for offload in [false, true] {
        let addressing = Addressing::Static { address: ours, prefix: 64, gateway: None };
        let mut world = World::new(&Config { addressing, ..small() }, 1500, offload);
        assert_eq!(world.stack.address(), Some(ours));
        let handle = world.peer.connect(ours, PORT);
        let mut accepted = None;
        world.run_until(Duration::from_secs(5), |world| {
            accepted = accepted.or_else(|| world.stack.accept());
            accepted.is_some()
        });
        let (id, info) = accepted.unwrap();
        assert_eq!(info.address, IpAddr::from(peer::ADDRESS_6));
        world.stack.stream(id).unwrap().send(|place| {
            place[..5].copy_from_slice(b"hello");
            5
        });
        world.run_until(Duration::from_secs(1), |world| world.peer.socket(handle).recv_queue() == 5);
    }
}

#[test]
fn answers_an_echo_request() {
    let mut world = World::new(&small(), 1500, false);
    // The stack learns the peer's station address.
    world.connect();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 30, 0, 0, 0, 0, 64, 1, 0x66, 0xdd, 10, 0, 0, 2, 10, 0, 0, 1]);
    frame.extend([8, 0, 0xf6, 0xf9, 0, 1, 0, 2, 1, 3]);
    world.peer.queue.inject(&frame);
    world.stack.poll(world.now, 32);
    let answers = world.stack.queue().queued_frames();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][34..44], [0, 0, 0xfe, 0xf9, 0, 1, 0, 2, 1, 3]);
}

#[test]
fn an_invalid_station_address_or_ip_address_is_no_reason_to_stop() {
    for address in ["255.255.255.255", "224.0.0.1", "0.0.0.0"] {
        let mut info = port_info(1, 68, false);
        info.mac = [0xff; 6];
        let (ours, _) = frame_queue_pair(info, port_info(2, 1500, false), 4);
        let address = address.parse().unwrap();
        let addressing = Addressing::Static { address, prefix: 77, gateway: Some(address) };
        let config = Config { addressing, ..small() };
        let mut arena = Arena::leak_for_host(config.memory_bytes());
        let mut stack = Stack::new(ours, &config, &mut arena, 1, Instant::ZERO).unwrap();
        stack.poll(Instant::from_millis(200), 8);
        assert_eq!(stack.address(), None);
    }
}

#[test]
fn a_router_that_is_no_single_station_is_no_reason_to_stop() {
    for gateway in ["224.0.0.1", "255.255.255.255", "0.0.0.0"] {
        let gateway = Some(gateway.parse().unwrap());
        let addressing = Addressing::Static { address: OURS, prefix: 24, gateway };
        let mut world = World::new(&Config { addressing, ..small() }, 1500, false);
        assert!(world.stack.connect("10.9.9.9:4420".parse().unwrap(), world.now).is_ok());
        world.idle(Duration::from_secs(1));
        world.connect();
    }
}

#[test]
fn an_idle_stack_has_nothing_to_do_and_says_when_it_will() {
    let mut world = World::new(&small(), 1500, false);
    world.connect();
    world.idle(Duration::from_millis(300));
    world.stack.poll(world.now, 32);
    world.stack.flush();
    assert_eq!((world.stack.poll(world.now, 32), world.stack.transmit(world.now, 32)), (0, 0));
    let sent = world.stack.counters().frames_sent;
    let deadline = world.stack.next_deadline(world.now).unwrap();
    assert!(deadline > world.now && deadline <= world.now + Duration::from_millis(100));
    assert!(!world.stack.arm());
    world.stack.disarm();
    // The peer answers the probes of an idle connection, which therefore stays.
    world.idle(Duration::from_secs(60));
    assert!(world.stack.counters().frames_sent > sent);
    assert_eq!(world.stack.counters().sockets_free, 5);
}

#[test]
fn too_little_memory_is_an_error_and_fit_halves_the_buffers() {
    let (ours, _) = frame_queue_pair(port_info(1, 1500, false), port_info(2, 1500, false), 4);
    let mut arena = Arena::leak_for_host(100_000);
    assert!(Stack::new(ours, &small(), &mut arena, 1, Instant::ZERO).is_err());
    let fitted = Config::default().fit(8 << 20);
    assert!(fitted.memory_bytes() <= 8 << 20 && fitted.receive_bytes >= 16 * 1024);
}
