//! Frames that no honest peer sends: the stack stays up, and its sockets come back.

use core::time::Duration;

use hal_api::FrameQueue;
use smoltcp::socket::tcp;

use super::connections::request;
use super::{OURS, PORT, World, small};

/// xorshift, so that a failure repeats.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }
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
