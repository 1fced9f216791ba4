//! Frames that no honest peer sends: the stack stays up, and its sockets come back.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use hal_api::FrameQueue;
use smoltcp::socket::tcp;

use super::connections::request;
use super::{OURS, PORT, World, small};

/// xorshift, so that a failure repeats.
pub(super) struct Random(pub(super) u32);

impl Random {
    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }
}

/// The same request over IPv6, in a frame to `destination`, with the next-header value of what comes first and that behind
/// the header. Checksums are left out.
fn request_6(destination: Ipv6Addr, first: u8, between: &[u8]) -> Vec<u8> {
    let segment = request(40_001, 7).split_off(34);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 77, 0x86, 0xdd, 0x60, 0, 0, 0, 0];
    frame.extend([(between.len() + segment.len()) as u8, first, 64]);
    frame.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 77).octets());
    frame.extend(destination.octets());
    frame.extend(between);
    frame.extend(segment);
    frame
}

/// The request over IPv4, to `destination`.
pub(super) fn request_4(destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = request(40_001, 7);
    frame[24..26].fill(0);
    frame[30..34].copy_from_slice(&destination.octets());
    let pairs = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = pairs.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame
}

const PROTOCOL_TCP: u8 = 6;
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);

#[test]
fn requests_to_ourselves_take_a_socket() {
    // The frames of the next tests are refused for their addresses, not because something else is wrong with them.
    for frame in [request_6(LINK_LOCAL, PROTOCOL_TCP, &[]), request_4(Ipv4Addr::new(10, 0, 0, 1))] {
        let mut world = World::new(&small(), 1500, true);
        world.peer.queue.inject(&frame);
        world.stack.poll(world.now, 32);
        assert_eq!(world.stack.counters().sockets_free, 5);
    }
}

/// The frame is dropped without a word, and no socket is the worse for it.
fn is_dropped(frame: &[u8]) {
    let mut world = World::new(&small(), 1500, true);
    for _ in 0..20 {
        world.peer.queue.inject(frame);
    }
    let sent = world.stack.counters().frames_sent;
    world.stack.poll(world.now, 32);
    world.stack.transmit(world.now, 32);
    assert_eq!(world.stack.counters().frames_sent, sent, "answered: {frame:x?}");
    assert_eq!(world.stack.counters().sockets_free, 6, "{frame:x?}");
    world.connect();
}

#[test]
fn segments_to_many_stations_are_dropped() {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
    for destination in [all_nodes, solicited, Ipv6Addr::LOCALHOST] {
        let mut frame = request_6(destination, PROTOCOL_TCP, &[]);
        is_dropped(&frame);
        // Something other than a request would be answered with a reset from that address.
        frame[54 + 13] = 0x10;
        is_dropped(&frame);
    }
    for destination in [[224, 0, 0, 1], [10, 0, 0, 255], [255; 4]] {
        let mut frame = request_4(destination.into());
        is_dropped(&frame);
        frame[34 + 13] = 0x10;
        is_dropped(&frame);
    }
}

#[test]
fn segments_behind_an_extension_header_are_dropped() {
    let padding = [PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0];
    is_dropped(&request_6(LINK_LOCAL, 0, &padding));
    let mut longer = [0; 16];
    longer[..4].copy_from_slice(&[PROTOCOL_TCP, 1, 1, 12]);
    is_dropped(&request_6(LINK_LOCAL, 0, &longer));
}

#[test]
fn a_question_behind_hop_by_hop_options_is_answered() {
    // An echo request with a router alert, as questions for group members have one (RFC 2710, section 3).
    let mut world = World::new(&small(), 1500, false);
    let handle = world.peer.connect(LINK_LOCAL.into(), PORT);
    world.run_until(Duration::from_secs(5), |world| world.stack.accept().is_some());
    world.peer.forget(handle);
    let mut frame = request_6(LINK_LOCAL, 0, &[]);
    frame[18..20].copy_from_slice(&[0, 16]);
    frame[37] = 2;
    frame.truncate(54);
    frame.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    // The checksum covers the addresses of fe80::2 and fe80::ff:fe00:1 and eight bytes of ICMPv6.
    let sum: u32 = 0xfe80 + 2 + 0xfe80 + 0xff + 0xfe00 + 1 + 8 + 58 + 0x8000 + 1 + 2;
    let folded = (sum & 0xffff) + (sum >> 16);
    frame.extend([128, 0]);
    frame.extend((!(folded as u16)).to_be_bytes());
    frame.extend([0, 1, 0, 2]);
    world.peer.queue.inject(&frame);
    world.stack.poll(world.now, 32);
    let answers = world.stack.queue().queued_frames();
    assert!(answers.iter().any(|answer| answer.get(54) == Some(&129)), "{answers:x?}");
}

#[test]
fn damaged_requests_do_no_harm() {
    let mut world = World::new(&small(), 1500, false);
    let mut random = Random(0x1234_5678);
    for round in 0..20_000_usize {
        let mut frame = request(1 + (round % 40_000) as u16, round as i32);
        for _ in 0..round % 4 {
            let at = random.below(frame.len());
            frame[at] = random.next() as u8;
        }
        frame.truncate(frame.len() - random.below(3) * (round % 20));
        world.peer.queue.inject(&frame);
        if round % 16 == 0 {
            world.step();
        }
    }
    world.idle(Duration::from_secs(6));
    assert_eq!(world.stack.counters().sockets_free, 6);
    world.connect();
}

/// Changes one or a few fields of a TCP frame, by little or by much. The IP header stays valid.
fn mutate(frame: &mut Vec<u8>, random: &mut Random) {
    const TCP: usize = 34;
    let nudge = |frame: &mut Vec<u8>, at: usize, random: &mut Random| {
        let Some(field) = frame.get_mut(at..at + 4) else { return };
        let old = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        let delta = [1, u32::MAX, 1460, 0xffff, 0x8000_0000, random.next()][random.below(6)];
        field.copy_from_slice(&old.wrapping_add(delta).to_be_bytes());
    };
    for _ in 0..1 + random.below(3) {
        match random.below(7) {
            0 => nudge(frame, TCP + 4, random),
            1 => nudge(frame, TCP + 8, random),
            2 => frame[TCP + 13] = random.next() as u8,
            3 => frame[TCP + 13] = [0x02, 0x04, 0x11, 0x14, 0x18, 0x12, 0x19][random.below(7)],
            4 => {
                let window = random.next() as u16;
                frame[TCP + 14..TCP + 16].copy_from_slice(&window.to_be_bytes());
            }
            5 => frame[TCP + 12] = random.next() as u8,
            _ => {
                let at = TCP + random.below(frame.len() - TCP);
                frame[at] = random.next() as u8;
            }
        }
    }
}

#[test]
fn damaged_segments_of_a_live_connection_do_no_harm() {
    let rounds = std::env::var("NET_HOSTILE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8_000);
    // Checksums are not verified, so that what is damaged reaches TCP.
    let mut world = World::new(&small(), 1500, true);
    let mut random = Random(0x9e37_79b9);
    let mut live = world.connect();
    let mut connections = 0;
    for round in 0..rounds {
        let (handle, id) = live;
        let dead = world.stack.stream(id).is_none_or(|stream| stream.state() != crate::StreamState::Open);
        if dead || round % 500 == 499 {
            world.stack.release(id);
            world.peer.forget(handle);
            let handle = world.peer.connect(OURS, PORT);
            let mut accepted = None;
            for _ in 0..40_000 {
                world.step();
                if let Some((id, info)) = world.stack.accept() {
                    let ours = world.peer.socket(handle).local_endpoint().map(|end| end.port);
                    if Some(info.port) == ours {
                        accepted = Some(id);
                        break;
                    }
                    world.stack.release(id);
                }
                if !world.peer.socket(handle).is_open() {
                    break;
                }
            }
            if let Some(id) = accepted {
                live = (handle, id);
                connections += 1;
            } else {
                world.peer.forget(handle);
                world.idle(Duration::from_secs(6));
                live = world.connect();
            }
            continue;
        }
        let mut stream = world.stack.stream(id).unwrap();
        stream.receive(|bytes| bytes.len());
        let burst = 1 + random.below(4000);
        stream.send(|place| place.len().min(burst));
        let socket = world.peer.socket(handle);
        while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|taken| taken > 0) {}
        let burst = 1 + random.below(4000);
        let _ = socket.send(|place| (place.len().min(burst), ()));
        world.step();
        for frame in world.peer.sent.clone() {
            if frame.len() >= 54 && frame[23] == 6 && random.below(3) == 0 {
                let mut damaged = frame.clone();
                mutate(&mut damaged, &mut random);
                world.peer.queue.inject(&damaged);
            }
        }
        world.peer.queue.flush();
    }
    println!("{connections} connections");
    assert!(connections > 5);
    world.stack.release(live.1);
    world.peer.forget(live.0);
    world.idle(Duration::from_secs(8));
    while let Some((id, _)) = world.stack.accept() {
        world.stack.release(id);
    }
    world.idle(Duration::from_secs(8));
    assert_eq!(world.stack.counters().sockets_free, 6);
    let (handle, _) = world.connect();
    assert_eq!(world.peer.socket(handle).state(), tcp::State::Established);
}
