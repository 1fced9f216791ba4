//! Ethernet frames of a hostile neighbour.

use core::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hal_api::{FrameQueue, Instant, PortInfo};
use hal_fakes::frame_queue_pair;
use net::{Addressing, Config, ConnectionId, Stack};

use crate::memory::{Input, Memory};

const CARD: PortInfo = PortInfo {
    mac: [2, 0, 0, 0, 0, 1],
    mtu: 1500,
    // The fuzzer would only rarely find a sum that is right.
    receive_checksums_verified: true,
    transmit_checksum_offload: true,
};
const PEER: PortInfo = PortInfo { mac: [2, 0, 0, 0, 0, 2], ..CARD };
const BUDGET: usize = 64;

/// The bytes are frames, each behind its length of 16 bits; a length of 0 lets a quarter of a second pass. The first byte
/// says how the card has its address: 0 by DHCP, else a static one.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut memory = Memory::take();
    let (card, mut peer) = frame_queue_pair(CARD, PEER, 64);
    let addressing = match input.byte() {
        0 => Addressing::Dhcp,
        _ => {
            Addressing::Static { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), prefix: 24, gateway: None }
        }
    };
    let config = Config {
        addressing,
        sockets: 4,
        receive_bytes: 16 << 10,
        transmit_bytes: 16 << 10,
        ports: &[4420],
        ..Config::default()
    };
    let mut arena = memory.arena(config.memory_bytes());
    let mut now = Instant::from_millis(1000);
    let mut stack = Stack::new(card, &config, &mut arena, 1, now).expect("memory for a stack");
    let mut open: Vec<ConnectionId> = Vec::new();
    loop {
        let length = usize::from(input.word());
        if length > 0 {
            peer.inject(input.bytes(length));
        } else {
            now = now + Duration::from_millis(250);
        }
        stack.poll(now, BUDGET);
        open.extend(std::iter::from_fn(|| stack.accept()).map(|(id, _)| id));
        for id in &open {
            let Some(mut stream) = stack.stream(*id) else { continue };
            // An echo, so that both directions are at work.
            let mut bytes = Vec::new();
            stream.receive(|got| {
                bytes.extend_from_slice(got);
                got.len()
            });
            stream.send(|room| {
                let count = bytes.len().min(room.len());
                room[..count].copy_from_slice(&bytes[..count]);
                count
            });
        }
        stack.transmit(now, BUDGET);
        stack.flush();
        peer.flush();
        while hal_api::FrameReceive::receive(peer.halves().0, |_| ()).is_some() {}
        if input.0.is_empty() {
            break;
        }
    }
    for id in open {
        stack.release(id);
    }
    for _ in 0..8 {
        now = now + Duration::from_secs(20);
        stack.poll(now, BUDGET);
        stack.transmit(now, BUDGET);
        stack.flush();
    }
    assert_eq!(stack.counters().sockets_free, config.sockets, "a socket is lost");
}
