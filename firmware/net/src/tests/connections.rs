//! Sockets are limited and always come back.

use core::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::{OURS, PORT, World, small};
use crate::StreamState;

#[test]
fn connections_beyond_the_limit_are_refused_and_counted() {
    let mut world = World::new(&small(), 1500, false);
    let open: Vec<_> = (0..6).map(|_| world.connect()).collect();
    assert_eq!(world.stack.counters().sockets_free, 0);
    let refused: Vec<_> = (0..4).map(|_| world.peer.connect(OURS, PORT)).collect();
    world.run_until(Duration::from_secs(2), |world| {
        refused.iter().all(|handle| world.peer.socket(*handle).state() == tcp::State::Closed)
    });
    assert_eq!(world.stack.counters().connections_refused, 4);
    assert!(world.stack.accept().is_none());
    for (_, id) in &open {
        world.stack.release(*id);
    }
    for (handle, _) in &open {
        world.peer.socket(*handle).close();
    }
    world.run_until(Duration::from_secs(6), |world| world.stack.counters().sockets_free == 6);
    for (_, id) in open {
        assert!(world.stack.stream(id).is_none());
    }
    world.connect();
}

#[test]
fn released_connections_that_their_peers_do_not_close_give_way() {
    let mut world = World::new(&small(), 1500, false);
    let (kept, _) = world.connect();
    for _ in 0..20 {
        let before = world.now;
        let (_, id) = world.connect();
        world.stack.release(id);
        // The peer acknowledges the FIN, and sends none.
        world.idle(Duration::from_millis(200));
        assert!(world.now.since(before) < Duration::from_secs(3));
    }
    assert_eq!(world.peer.socket(kept).state(), tcp::State::Established);
}

#[test]
fn many_connections_one_after_another() {
    let mut world = World::new(&small(), 1500, false);
    for round in 0..20 {
        let (handle, id) = world.connect();
        if round % 2 == 0 {
            world.stack.release(id);
            world.peer.socket(handle).close();
        } else {
            world.stack.stream(id).unwrap().abort();
            world.stack.release(id);
            world.run_until(Duration::from_secs(1), |world| {
                world.peer.socket(handle).state() == tcp::State::Closed
            });
        }
    }
    world.run_until(Duration::from_secs(6), |world| world.stack.counters().sockets_free == 6);
}

#[test]
fn a_reset_in_mid_stream_closes_and_the_socket_comes_back() {
    let mut world = World::new(&small(), 1500, false);
    let (handle, id) = world.connect();
    world.peer.socket(handle).send_slice(&[1; 5000]).unwrap();
    world.run_until(Duration::from_secs(1), |world| world.stack.stream(id).unwrap().received_bytes() == 5000);
    world.stack.stream(id).unwrap().send(|place| {
        place[..3000].fill(2);
        3000
    });
    world.peer.socket(handle).abort();
    world.run_until(Duration::from_secs(1), |world| {
        world.stack.stream(id).unwrap().state() == StreamState::Closed
    });
    let mut stream = world.stack.stream(id).unwrap();
    assert_eq!((stream.send_room(), stream.send(|place| place.len())), (0, 0));
    world.stack.release(id);
    world.run_until(Duration::from_secs(1), |world| world.stack.counters().sockets_free == 6);
}

#[test]
fn a_peer_that_vanished_is_found_out() {
    let mut world = World::new(&small(), 1500, false);
    let (_, silent) = world.connect();
    let (_, released) = world.connect();
    world.peer.queue.set_link(false);
    world.stack.release(released);
    world.idle(Duration::from_secs(6));
    assert_eq!(world.stack.counters().sockets_free, 5);
    assert!(!world.stack.link_is_up());
    world.idle(Duration::from_secs(60));
    assert_eq!(world.stack.stream(silent).unwrap().state(), StreamState::Closed);
    world.stack.release(silent);
    world.idle(Duration::from_secs(6));
    assert_eq!(world.stack.counters().sockets_free, 6);
}

#[test]
fn half_open_connections_keep_no_socket() {
    let mut world = World::new(&small(), 1500, false);
    world.idle(Duration::from_millis(10));
    for port in 1..200 {
        world.peer.queue.inject(&request(port, 1));
        world.step();
    }
    assert_eq!(world.stack.counters().sockets_free, 0);
    // The oldest of them gives way to a real peer.
    world.idle(Duration::from_millis(600));
    world.connect();
    world.idle(Duration::from_secs(6));
    assert_eq!(world.stack.counters().sockets_free, 5);
}

#[test]
fn a_peer_that_asks_amid_half_open_connections_gets_in_by_asking_again() {
    let mut world = World::new(&small(), 1500, false);
    world.idle(Duration::from_millis(10));
    for port in 1..200 {
        world.peer.queue.inject(&request(port, 1));
        world.step();
    }
    let handle = world.peer.connect(OURS, PORT);
    world.run_until(Duration::from_secs(4), |world| {
        world.peer.socket(handle).state() == tcp::State::Established
    });
}

#[test]
fn a_repeated_request_takes_no_second_socket() {
    let mut world = World::new(&small(), 1500, false);
    // A socket that listens comes to stand before the one in handshake in the set.
    let (_, first) = world.connect();
    world.peer.queue.inject(&request(50_000, 9));
    world.step();
    world.stack.stream(first).unwrap().abort();
    world.stack.release(first);
    world.idle(Duration::from_millis(200));
    world.connect();
    assert_eq!(world.stack.counters().sockets_free, 4);
    for _ in 0..5 {
        world.peer.queue.inject(&request(50_000, 9));
        world.step();
    }
    assert_eq!(world.stack.counters().sockets_free, 4);
    assert_eq!(world.stack.counters().connections_refused, 0);
}

/// A request for a connection from a port of the peer's, from which it knows nothing.
pub(super) fn request(port: u16, sequence: i32) -> Vec<u8> {
    let IpAddress::Ipv4(ours) = IpAddress::from(OURS) else { panic!() };
    let source = Ipv4Address::new(10, 0, 0, 77);
    let tcp = TcpRepr {
        src_port: port,
        dst_port: PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(sequence),
        ack_number: None,
        window_len: 1000,
        window_scale: Some(2),
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: ours,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + ip.buffer_len() + tcp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 77]));
    frame.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut packet, &checksums);
    tcp.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &source.into(), &ours.into(), &checksums);
    bytes
}

#[test]
fn connections_go_on_while_others_come_and_go_in_numbers() {
    let config = crate::Config { sockets: 60, receive_bytes: 4096, transmit_bytes: 4096, ..small() };
    let mut world = World::new(&config, 1500, false);
    let mut open = Vec::new();
    for count in [3, 20, 50, 2, 40, 1] {
        while open.len() > count {
            let (handle, id) = open.swap_remove(1);
            world.stack.release(id);
            world.peer.socket(handle).close();
        }
        while open.len() < count {
            open.push(world.connect());
        }
        for (index, (handle, _)) in open.iter().enumerate() {
            world.peer.socket(*handle).send_slice(&[index as u8; 100]).unwrap();
        }
        for (index, (_, id)) in open.iter().enumerate() {
            let all = |world: &mut World| world.stack.stream(*id).unwrap().received_bytes() == 100;
            world.run_until(Duration::from_secs(1), all);
            world.stack.stream(*id).unwrap().receive(|bytes| {
                assert!(bytes.iter().all(|&byte| byte == index as u8));
                bytes.len()
            });
        }
        // What was released is over by then.
        world.idle(Duration::from_secs(6));
    }
}
