//! The published numbers of the hash, frames of all kinds, and bytes at random.

use std::net::{IpAddr, SocketAddr};

use super::*;

/// The key of Microsoft's "Verifying the RSS hash calculation".
const KEY: [u8; KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Destination, source, and the hash with ports, from the same place.
const PUBLISHED: [(&str, &str, u32); 8] = [
    ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
    ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
    ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
    ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
    ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
    ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
    ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf),
    ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x02d1_feef),
];

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn tuple(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut bytes = octets(source.ip());
    bytes.extend(octets(destination.ip()));
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes
}

fn published() -> impl Iterator<Item = (SocketAddr, SocketAddr, u32)> {
    PUBLISHED.into_iter().map(|(to, from, hash)| (from.parse().unwrap(), to.parse().unwrap(), hash))
}

/// An Ethernet frame with a TCP segment of no payload.
fn segment(source: SocketAddr, destination: SocketAddr, tags: &[u16], extensions: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0x20, 7]);
    }
    let mut tcp = vec![0; 20];
    tcp[..2].copy_from_slice(&source.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&destination.port().to_be_bytes());
    if source.is_ipv4() {
        frame.extend([8, 0, 0x45, 0, 0, 40, 1, 2, 0x40, 0, 64, 6, 0, 0]);
    } else {
        let mut bytes = Vec::new();
        for (index, kind) in extensions.iter().enumerate() {
            // Each names what follows it, and is 16 bytes long.
            bytes.extend([extensions.get(index + 1).copied().unwrap_or(6), 1]);
            bytes.extend([0; 14]);
            assert_ne!(*kind, 6);
        }
        tcp.splice(0..0, bytes);
        let first = extensions.first().copied().unwrap_or(6);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, tcp.len() as u8, first, 64]);
    }
    frame.extend(octets(source.ip()));
    frame.extend(octets(destination.ip()));
    frame.extend(tcp);
    frame
}

#[test]
fn the_hash_is_the_published_one() {
    let steering = Steering::new(&KEY, 4);
    for (source, destination, hash) in published() {
        assert_eq!(steering.hash([&tuple(source, destination), &[], &[]]), hash, "{source} to {destination}");
        assert_eq!(steering.core_of(source, destination), hash as usize % 128 % 4);
    }
}

#[test]
fn a_segment_goes_where_its_connection_is_with_tags_options_and_extension_headers() {
    let steering = Steering::new(&KEY, 7);
    for (source, destination, _) in published() {
        let home = Steer::Core(steering.core_of(source, destination));
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            let frame = segment(source, destination, tags, &[]);
            assert_eq!(
                steering.core_of_frame(&frame),
                home,
                "{source} to {destination}, {} tags",
                tags.len()
            );
        }
        if source.is_ipv6() {
            for extensions in [&[0][..], &[60], &[0, 60, 43, 60]] {
                assert_eq!(steering.core_of_frame(&segment(source, destination, &[], extensions)), home);
            }
        } else {
            let mut frame = segment(source, destination, &[], &[]);
            frame[14] = 0x47;
            frame[17] = 48;
            frame.splice(34..34, [1; 8]);
            assert_eq!(steering.core_of_frame(&frame), home, "with options");
        }
    }
}

#[test]
fn fragments_and_cut_segments_go_to_the_first_core() {
    let steering = Steering::new(&KEY, 7);
    let (source, destination, _) = published().next().unwrap();
    for fragment in [[0x20, 0], [0, 1], [0x3f, 0xff]] {
        let mut frame = segment(source, destination, &[], &[]);
        frame[20..22].copy_from_slice(&fragment);
        assert_eq!(steering.core_of_frame(&frame), Steer::First);
    }
    let (source, destination, _) = published().last().unwrap();
    assert_eq!(steering.core_of_frame(&segment(source, destination, &[], &[44])), Steer::First);
    assert_eq!(
        steering.core_of_frame(&segment(source, destination, &[], &[0; 9])),
        Steer::First,
        "no end of them"
    );
    for (source, destination, _) in published() {
        let whole = segment(source, destination, &[0x8100], &[]);
        for end in 0..whole.len() {
            assert_eq!(steering.core_of_frame(&whole[..end]), Steer::First, "{end} bytes");
        }
    }
}

#[test]
fn what_tells_a_station_address_is_for_all_and_the_rest_for_the_first() {
    let steering = Steering::new(&KEY, 3);
    let mut arp = vec![0; 42];
    for operation in [1, 2] {
        arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        assert_eq!(steering.core_of_frame(&arp), Steer::Copy);
    }
    let (source, destination, _) = published().last().unwrap();
    let mut icmp = segment(source, destination, &[], &[]);
    icmp[20] = 58;
    for (kind, expected) in [(136, Steer::Copy), (135, Steer::Copy), (128, Steer::First)] {
        icmp[54] = kind;
        assert_eq!(steering.core_of_frame(&icmp), expected);
    }
    let (source, destination, _) = published().next().unwrap();
    let mut udp = segment(source, destination, &[], &[]);
    udp[23] = 17;
    assert_eq!(steering.core_of_frame(&udp), Steer::First);
}

/// The definition: a window of the key for each bit of the input that is set.
fn by_definition(key: &[u8; KEY_BYTES], input: &[u8]) -> u32 {
    let mut window = u64::from_be_bytes(key[..8].try_into().unwrap());
    let mut hash = 0;
    for (index, byte) in input.iter().enumerate() {
        for bit in 0..8 {
            if byte & 0x80 >> bit != 0 {
                hash ^= (window >> 32) as u32;
            }
            window <<= 1;
        }
        window |= u64::from(key.get(index + 8).copied().unwrap_or(0));
    }
    hash
}

#[test]
fn tables_and_definition_agree_for_keys_and_inputs_at_random() {
    let mut random = Random(0x5eed_0001);
    for round in 0..500 {
        let key = Steering::key_from(random.next());
        let steering = Steering::new(&key, 1 + round % 7);
        let input: Vec<u8> = (0..[12, 36][round % 2]).map(|_| random.next() as u8).collect();
        assert_eq!(steering.hash([&input, &[], &[]]), by_definition(&key, &input), "round {round}");
        let (head, tail) = input.split_at(random.next() as usize % input.len());
        assert_eq!(steering.hash([head, tail, &[]]), by_definition(&key, &input), "round {round}");
    }
}

#[test]
fn any_bytes_have_a_core() {
    const SEED: u64 = 0x5eed_0002;
    let mut random = Random(SEED);
    let (steering, mut cores) = (Steering::new(&KEY, 5), [0; 5]);
    let seeds: Vec<_> = published().collect();
    for round in 0..200_000 {
        let (source, destination, _) = seeds[random.next() as usize % seeds.len()];
        let mut frame = segment(source, destination, &[0x8100][..random.next() as usize % 2], &[]);
        for _ in 0..random.next() % 6 {
            let at = random.next() as usize % frame.len();
            frame[at] = random.next() as u8;
        }
        frame.truncate(random.next() as usize % (frame.len() + 8));
        if let Steer::Core(core) = steering.core_of_frame(&frame) {
            assert!(core < 5, "seed {SEED:#x}, round {round}");
            cores[core] += 1;
        }
    }
    assert!(cores.iter().all(|frames| *frames > 100), "{cores:?}");
}

#[test]
fn connections_of_one_host_are_spread_evenly() {
    for cores in 1..=MAX_CORES_OF_PORT {
        let steering = Steering::new(&Steering::key_from(11), cores);
        let mut count = vec![0usize; cores];
        for port in 40_000..47_000 {
            count[steering.core_of(([10, 0, 0, 2], port).into(), ([10, 0, 0, 1], 4420).into())] += 1;
        }
        let share = 7000 / cores;
        assert!(count.iter().all(|count| count.abs_diff(share) < share / 4), "{cores}: {count:?}");
    }
    assert_eq!((Steering::new(&KEY, 0).cores(), Steering::new(&KEY, 9).cores()), (1, MAX_CORES_OF_PORT));
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
}
