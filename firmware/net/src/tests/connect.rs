//! Connections of our own.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use hal_api::Instant;
use hal_fakes::frame_queue_pair;
use hal_mem::Arena;
use smoltcp::socket::tcp;

use super::{PORT, World, peer, port_info, small};
use crate::{Addressing, Config, ConnectError, ConnectionId, Stack, StreamState};

const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(peer::ADDRESS), 4420);
const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn state(&mut self, id: ConnectionId) -> StreamState {
        self.stack.stream(id).unwrap().state()
    }

    fn connect_out(&mut self) -> ConnectionId {
        self.stack.connect(REMOTE, self.now).unwrap()
    }
}

#[test]
fn bytes_go_both_ways_and_the_socket_comes_back() {
    let mut world = World::new(&small(), 1500, false);
    let theirs = world.peer.listen(4420);
    let id = world.connect_out();
    assert_eq!(world.state(id), StreamState::Connecting);
    assert_eq!(world.stack.stream(id).unwrap().send_room(), 0);
    world.run_until(SECOND, |world| world.state(id) == StreamState::Open);
    assert!(world.stack.accept().is_none(), "it is no connection that came in");
    world.stack.stream(id).unwrap().send(|place| {
        place[..5].copy_from_slice(b"hello");
        5
    });
    world.run_until(SECOND, |world| world.peer.socket(theirs).recv_queue() == 5);
    world.peer.socket(theirs).send_slice(b"world!").unwrap();
    world.run_until(SECOND, |world| world.stack.stream(id).unwrap().received_bytes() == 6);
    world.stack.release(id);
    world.run_until(SECOND, |world| world.peer.socket(theirs).state() == tcp::State::CloseWait);
    world.peer.socket(theirs).close();
    world.run_until(6 * SECOND, |world| world.stack.counters().sockets_free == 6);
}

#[test]
fn nobody_listens_nobody_is_there_and_nothing_leaks() {
    let mut world = World::new(&small(), 1500, false);
    let refused = world.connect_out();
    world.run_until(SECOND, |world| world.state(refused) == StreamState::Closed);
    world.stack.release(refused);
    let nobody = "10.0.0.200:4420".parse().unwrap();
    let lost = world.stack.connect(nobody, world.now).unwrap();
    world.idle(10 * SECOND);
    assert_eq!(world.state(lost), StreamState::Connecting);
    world.idle(30 * SECOND);
    assert_eq!(world.state(lost), StreamState::Closed);
    world.stack.release(lost);
    // Given up before there was an answer.
    let released = world.stack.connect(nobody, world.now).unwrap();
    world.stack.release(released);
    let aborted = world.stack.connect(nobody, world.now).unwrap();
    world.stack.stream(aborted).unwrap().abort();
    world.stack.release(aborted);
    world.idle(6 * SECOND);
    assert_eq!(world.stack.counters().sockets_free, 6);
}

#[test]
fn listening_goes_on_and_connections_differ_in_their_ports() {
    let mut world = World::new(&small(), 1500, false);
    let listening: Vec<_> = (0..8).map(|_| world.peer.listen(4420)).collect();
    let mut ours: Vec<_> = (0..2).map(|_| world.connect_out()).collect();
    let (_, theirs) = world.connect();
    ours.extend((0..2).map(|_| world.connect_out()));
    // The last socket listens.
    assert_eq!(world.stack.connect(REMOTE, world.now), Err(ConnectError::NoSocket));
    world.run_until(SECOND, |world| ours.clone().iter().all(|id| world.state(*id) == StreamState::Open));
    let ends = listening.iter().filter_map(|handle| world.peer.socket(*handle).remote_endpoint());
    let mut ports: Vec<_> = ends.map(|end| end.port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() == 4 && ports[0] >= 49_152);
    let (_, last) = world.connect();
    assert_eq!(world.stack.counters().sockets_free, 0);
    for id in ours.into_iter().chain([theirs, last]) {
        world.stack.stream(id).unwrap().abort();
        world.stack.release(id);
    }
    world.run_until(6 * SECOND, |world| world.stack.counters().sockets_free == 6);
    world.connect();
}

#[test]
fn the_first_port_depends_on_the_seed_and_the_last_is_followed_by_the_first() {
    let first_port = |seed| {
        let (ours, theirs) = frame_queue_pair(port_info(1, 1500, false), port_info(2, 1500, false), 64);
        let mut arena = Arena::leak_for_host(small().memory_bytes());
        let stack = Stack::new(ours, &small(), &mut arena, seed, Instant::ZERO).unwrap();
        let mut world = World { stack, peer: peer::Peer::new(theirs), now: Instant::ZERO };
        let handles: Vec<_> = (0..2).map(|_| world.peer.listen(PORT)).collect();
        for _ in 0..2 {
            world.connect_out();
        }
        let mut ports = Vec::new();
        world.run_until(SECOND, |world| {
            ports = Vec::from_iter(
                handles.iter().filter_map(|handle| world.peer.socket(*handle).remote_endpoint()),
            );
            ports.len() == 2
        });
        let mut ports: Vec<_> = ports.iter().map(|end| end.port).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(first_port(7 << 32), [49_159, 49_160]);
    assert_eq!(first_port(u64::MAX), [49_152, 65_535]);
}

#[test]
fn what_cannot_be_connected_to_is_an_error() {
    let mut world = World::new(&small(), 1500, false);
    for remote in ["10.0.0.2:0", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1", "[::]:1"] {
        let said = world.stack.connect(remote.parse().unwrap(), world.now);
        assert_eq!(said, Err(ConnectError::InvalidRemote), "{remote}");
    }
    let said = world.stack.connect("[fd00::2]:4420".parse().unwrap(), world.now);
    assert_eq!(said, Err(ConnectError::NoAddress));
    let (ours, _) = frame_queue_pair(port_info(1, 1500, false), port_info(2, 1500, false), 4);
    let config = Config { addressing: Addressing::Dhcp, ..small() };
    let mut arena = Arena::leak_for_host(config.memory_bytes());
    let mut stack = Stack::new(ours, &config, &mut arena, 1, Instant::ZERO).unwrap();
    assert_eq!(stack.connect(REMOTE, Instant::ZERO), Err(ConnectError::NoAddress));
    assert_eq!(stack.counters().sockets_free, 6);
}
