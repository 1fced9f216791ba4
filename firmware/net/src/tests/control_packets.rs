//! Packets that smoltcp answers or learns from, made badly on purpose: neighbour discovery, ICMP, ARP, IGMP, DHCP. Their
//! lengths are whatever comes; their checksums are right, so that what is wrong with them is looked at.

use core::time::Duration;

use super::hostile::Random;
use super::{OURS, World, small};
use crate::{Addressing, Config};

const TO_US: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 77];

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// Bytes that look like options: kinds and lengths that are often right.
fn options(random: &mut Random, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < most && random.below(4) > 0 {
        let kinds = [0, 1, 2, 3, 4, 5, 0x1e, 0x3e, 0xc2, 53, 54, 61, 0xff, random.below(256) as u8];
        let length = random.below(18) as u8;
        bytes.extend([kinds[random.below(kinds.len())], length]);
        bytes.extend((0..[usize::from(length), 6, 14][random.below(3)]).map(|_| random.below(256) as u8));
    }
    bytes
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&TO_US[..], &STATION, &kind.to_be_bytes(), packet].concat()
}

fn ipv6(random: &mut Random) -> Vec<u8> {
    let address = |random: &mut Random| {
        let mut address = [0; 16];
        match random.below(6) {
            0 => {}
            1 => address.fill_with(|| random.below(256) as u8),
            2 => (address[0], address[1], address[15]) = (0xff, 2, [1, 2, 22][random.below(3)]),
            // Ours, by its station address.
            3 | 4 => address.copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1]),
            _ => (address[0], address[1], address[15]) = (0xfe, 0x80, 77),
        }
        address
    };
    let (source, destination) = (address(random), address(random));
    let kinds = [1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, random.below(256) as u8];
    let mut message = vec![kinds[random.below(kinds.len())], random.below(3) as u8, 0, 0];
    message.extend((0..4).map(|_| random.below(4) as u8));
    for _ in 0..random.below(3) {
        message.extend(address(random));
    }
    message.extend(options(random, 64));
    if random.below(4) == 0 {
        // What an error quotes.
        message.extend([0x60, 0, 0, 0, 0, random.below(80) as u8, [6, 0, 58][random.below(3)], 64]);
        message.extend(destination);
        message.extend(source);
        message.extend((0..random.below(24)).map(|_| random.below(256) as u8));
    }
    message.truncate(message.len() - random.below(3) * random.below(message.len()) / 2);
    let pseudo = sum(&source) + sum(&destination) + message.len() as u32 + 58;
    if let Some(place) = message.get(2..4) {
        let found = folded(pseudo + sum(&message) - sum(place));
        message[2..4].copy_from_slice(&found);
    }
    let mut between = Vec::new();
    if random.below(3) == 0 {
        let mut inner = options(random, 40);
        inner.resize((inner.len() + 2).next_multiple_of(8) - 2, 0);
        let units = (inner.len() + 2) / 8 - 1;
        between.extend([[58, 0, 6, 17][random.below(4)], (units + random.below(5) / 4) as u8]);
        between.extend(inner);
    }
    let first = match random.below(8) {
        0 => [0, 6, 17, 43, 44, 59, 60][random.below(7)],
        _ if between.is_empty() => 58,
        _ => 0,
    };
    let payload = (between.len() + message.len() - random.below(8) / 7) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(payload.to_be_bytes());
    packet.extend([first, [255, 1][random.below(8) / 7]]);
    packet.extend([source, destination].concat());
    packet.extend(between);
    packet.extend(message);
    ethernet(0x86dd, &packet)
}

/// `question` is the number of the last question of DHCP.
fn ipv4(random: &mut Random, question: [u8; 4]) -> Vec<u8> {
    let address = |random: &mut Random| match random.below(8) {
        0 => [0; 4],
        1 => [255; 4],
        2 => [224, 0, 0, 1],
        3 => [10, 0, 0, 255],
        4 | 5 => [10, 0, 0, 1],
        _ => [10, 0, 0, 77],
    };
    let (source, destination) = (address(random), address(random));
    let protocol = [1, 1, 2, 17, 17, random.below(256) as u8][random.below(6)];
    let mut message = match protocol {
        17 => {
            let mut datagram = vec![0, 67, 0, 68, 0, 0, 0, 0, 2, 1, 6, 0];
            datagram.extend(question);
            datagram.extend([
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                10,
                0,
                0,
                random.below(256) as u8,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ]);
            datagram.extend(TO_US);
            datagram.resize(8 + 236, 0);
            datagram.extend([0x63, 0x82, 0x53, 0x63, 53, 1, [2, 5, 6, 4][random.below(4)]]);
            datagram.extend([54, 4, 10, 0, 0, 77, 1, 4, 255, 255, [255, 0][random.below(8) / 7], 0]);
            datagram.extend(options(random, 120));
            datagram.truncate(datagram.len() - random.below(8) / 7 * random.below(datagram.len() - 8));
            let length = (datagram.len() - random.below(8) / 7 * random.below(9)) as u16;
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            datagram
        }
        _ => {
            let kinds = [0, 3, 5, 8, 11, 12, 0x11, 0x16, 0x17, random.below(256) as u8];
            let mut message = vec![kinds[random.below(kinds.len())], random.below(5) as u8, 0, 0, 0, 0, 0, 0];
            message.extend(options(random, 60));
            message.truncate(message.len() - random.below(4) / 3 * random.below(message.len()));
            let check = folded(sum(&message) - message.get(2..4).map_or(0, sum));
            if let Some(place) = message.get_mut(2..4) {
                place.copy_from_slice(&check);
            }
            message
        }
    };
    message.extend((0..random.below(3)).map(|_| 0));
    let mut options = options(random, 40);
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    let header = if random.below(4) == 0 { 20 + options.len() } else { 20 };
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + message.len()) as u16).to_be_bytes());
    packet.extend([0, 0, if random.below(8) == 0 { 0x20 } else { 0 }, 0, 64, protocol, 0, 0]);
    packet.extend([source, destination].concat());
    packet.extend(&options[..header - 20]);
    let check = folded(sum(&packet));
    packet[10..12].copy_from_slice(&check);
    packet.extend(message);
    ethernet(0x0800, &packet)
}

fn arp(random: &mut Random) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1 + random.below(3) as u8];
    packet.extend(STATION);
    packet.extend([10, 0, 0, random.below(256) as u8]);
    packet.extend(TO_US);
    packet.extend([10, 0, 0, 1]);
    for _ in 0..random.below(3) {
        let at = random.below(packet.len());
        packet[at] = [0, 255, random.below(256) as u8][random.below(3)];
    }
    packet.truncate(packet.len() - random.below(8) / 7 * random.below(packet.len()));
    ethernet(0x0806, &packet)
}

/// How often there was an address, in tenths of all looks, comes with the card as it is afterwards.
fn storm(config: &Config<'_>, seed: u32) -> (World, u64) {
    let rounds = std::env::var("NET_HOSTILE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_u64);
    let mut world = World::new(config, 1500, false);
    let mut random = Random(seed);
    let (mut question, mut addressed) = ([0; 4], 0);
    for round in 0..rounds {
        let frame = match random.below(5) {
            0 => arp(&mut random),
            1 | 2 => ipv4(&mut random, question),
            _ => ipv6(&mut random),
        };
        world.peer.queue.inject(&frame);
        if round % 8 == 0 {
            world.stack.poll(world.now, 32);
            world.stack.transmit(world.now, 32);
            for frame in world.stack.queue().queued_frames() {
                if frame.get(34..38) == Some(&[0, 68, 0, 67]) {
                    question.copy_from_slice(&frame[46..50]);
                }
            }
            addressed += u64::from(world.stack.address().is_some());
            world.stack.flush();
            world.peer.poll(world.now);
            world.now = world.now + Duration::from_millis(20);
        }
    }
    world.idle(Duration::from_secs(2));
    (world, addressed * 80 / rounds)
}

#[test]
fn badly_made_control_packets_do_no_harm() {
    let (mut world, _) = storm(&small(), 0x0bad_cafe);
    // Many are good enough to be answered.
    assert!(world.stack.counters().frames_sent > 200);
    assert_eq!(world.stack.address(), Some(OURS));
    assert_eq!(world.stack.counters().sockets_free, 6);
    // What they have told of the peer's station address is asked for again, in time.
    world.idle(Duration::from_secs(120));
    world.connect();
}

#[test]
fn badly_made_answers_of_dhcp_do_no_harm() {
    let (world, addressed) = storm(&Config { addressing: Addressing::Dhcp, ..small() }, 0x00c0_ffee);
    assert!((1..10).contains(&addressed), "addresses come and go: {addressed}");
    assert_eq!(world.stack.counters().sockets_free, 6);
}
