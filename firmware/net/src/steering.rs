//! Which data core a frame belongs to: one rule, the same in software and in a device with receive-side scaling.
//!
//! A TCP segment belongs to the core that the indirection table names for the Toeplitz hash of its two addresses and two
//! ports (Virtio 1.2, section 5.1.6.5.7, with the hash types TCPv4 and TCPv6). All other frames belong to the first
//! data core of the port; what teaches a neighbour's station address is everybody's. Must not depend on smoltcp.

use core::net::{IpAddr, SocketAddr};

use crate::frame::be16;

/// Bytes of the key (`hash_key_length` of a device that has IPv6).
pub const KEY_BYTES: usize = 40;
/// Entries of the indirection table; a power of two.
pub const TABLE_ENTRIES: usize = 128;
/// Most data cores of a port.
pub const MAX_CORES_OF_PORT: usize = 7;

/// Two IPv6 addresses and two ports: the most that is hashed.
const TUPLE_BYTES: usize = 36;

const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Tags of one frame that are looked past (IEEE 802.1Q, 802.1ad).
const MAX_TAGS: usize = 2;
/// Extension headers of one packet that are looked past (RFC 8200, section 4.1 lists no more kinds).
const MAX_EXTENSION_HEADERS: usize = 8;

/// Where a frame goes. Cores are counted among the data cores, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// To this core, which has the connection or would have it.
    Core(usize),
    /// To the first core: ICMP, DHCP, fragments, and whatever nobody understands.
    First,
    /// To the first core and a copy to every other: ARP, neighbour solicitations and advertisements. A question tells where its
    /// sender is, as an answer does; the first core alone answers it.
    Copy,
}

/// A key and an indirection table. It does not change after boot, so all cores read the same one.
#[derive(PartialEq, Eq)]
pub struct Steering {
    /// What each half of each byte of a tuple adds to the hash. Halves keep the part that IPv4 needs at 1.5 KiB, which
    /// stays in a first-level cache.
    tables: [[[u32; 16]; 2]; TUPLE_BYTES],
    key: [u8; KEY_BYTES],
    indirection: [u8; TABLE_ENTRIES],
    cores: usize,
}

impl Steering {
    /// Spreads connections evenly over `cores` data cores, at least one and at most [`MAX_CORES_OF_PORT`]. A `key` that
    /// nobody knows keeps a host from choosing ports that all lead to one core.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES], cores: usize) -> Self {
        let cores = cores.clamp(1, MAX_CORES_OF_PORT);
        let tables = core::array::from_fn(|byte| {
            core::array::from_fn(|half| {
                core::array::from_fn(|value| {
                    let bits = (0..4).filter(|bit| value & 8 >> bit != 0);
                    bits.fold(0, |sum, bit| sum ^ key_window(key, byte * 8 + half * 4 + bit))
                })
            })
        });
        Self {
            tables,
            key: *key,
            indirection: core::array::from_fn(|entry| entry.checked_rem(cores).unwrap_or(0) as u8),
            cores,
        }
    }

    /// A key of random bytes made from `seed` (SplitMix64).
    #[must_use]
    pub fn key_from(seed: u64) -> [u8; KEY_BYTES] {
        let mut state = seed;
        let mut key = [0; KEY_BYTES];
        for word in key.chunks_exact_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes());
        }
        key
    }

    /// The key, for a device that hashes.
    #[must_use]
    pub const fn key(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// The data core of each remainder of a hash by [`TABLE_ENTRIES`], for a device that steers.
    #[must_use]
    pub const fn indirection(&self) -> &[u8; TABLE_ENTRIES] {
        &self.indirection
    }

    /// How many data cores there are.
    #[must_use]
    pub const fn cores(&self) -> usize {
        self.cores
    }

    /// The core of a connection whose segments come from `source` and go to `destination`. The first one where the
    /// two are of different families.
    #[must_use]
    pub fn core_of(&self, source: SocketAddr, destination: SocketAddr) -> usize {
        let [a, b] = source.port().to_be_bytes();
        let [c, d] = destination.port().to_be_bytes();
        let ports = [a, b, c, d];
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.core_of_tuple([&from.octets()[..], &to.octets(), &ports])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.core_of_tuple([&from.octets()[..], &to.octets(), &ports])
            }
            _ => 0,
        }
    }

    /// Where an Ethernet frame goes. It has not been checked in any way.
    #[must_use]
    pub fn core_of_frame(&self, frame: &[u8]) -> Steer {
        match Finding::of(frame) {
            Some(Finding::Segment { addresses, ports }) => {
                Steer::Core(self.core_of_tuple([addresses, ports, &[]]))
            }
            Some(Finding::Neighbour) => Steer::Copy,
            None => Steer::First,
        }
    }

    /// The Toeplitz hash of the parts of a tuple, one behind the other.
    fn hash(&self, parts: [&[u8]; 3]) -> u32 {
        let bytes = parts.into_iter().flatten();
        bytes.zip(&self.tables).fold(0, |hash, (byte, [high, low])| {
            let added = |table: &[u32; 16], half: u8| table.get(usize::from(half & 15)).copied().unwrap_or(0);
            hash ^ added(high, byte >> 4) ^ added(low, *byte)
        })
    }

    fn core_of_tuple(&self, parts: [&[u8]; 3]) -> usize {
        let entry = self.hash(parts) as usize % TABLE_ENTRIES;
        self.indirection.get(entry).map_or(0, |core| usize::from(*core))
    }
}

impl core::fmt::Debug for Steering {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Not the key.
        formatter.debug_struct("Steering").field("cores", &self.cores).finish_non_exhaustive()
    }
}

/// The 32 bits of the key that begin at bit `at`.
fn key_window(key: &[u8; KEY_BYTES], at: usize) -> u32 {
    let bit = |at: usize| key.get(at / 8).map_or(0, |byte| u32::from(*byte) >> (7 - at % 8) & 1);
    (at..at + 32).fold(0, |window, at| window << 1 | bit(at))
}

/// What in a frame decides where it goes.
enum Finding<'a> {
    /// A whole TCP segment: source and destination address, and both ports.
    Segment { addresses: &'a [u8], ports: &'a [u8] },
    /// It tells a neighbour's station address, to who asked for it or is asked.
    Neighbour,
}

impl<'a> Finding<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let mut packet = frame.get(ETHERNET_HEADER_BYTES..)?;
        let mut kind = be16(frame, 12)?;
        for _ in 0..MAX_TAGS {
            if !matches!(kind, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
                break;
            }
            kind = be16(packet, 2)?;
            packet = packet.get(4..)?;
        }
        match kind {
            ETHERTYPE_IPV4 => Self::in_ipv4(packet),
            ETHERTYPE_IPV6 => Self::in_ipv6(packet),
            ETHERTYPE_ARP => Some(Self::Neighbour),
            _ => None,
        }
    }

    fn in_ipv4(packet: &'a [u8]) -> Option<Self> {
        let first = *packet.first()?;
        let header_bytes = usize::from(first & 0x0f) * 4;
        // Neither a fragment (more to come, or an offset) nor something that is no TCP.
        let whole = be16(packet, 6)? & 0x3fff == 0;
        if first >> 4 != 4 || header_bytes < 20 || !whole || *packet.get(9)? != PROTOCOL_TCP {
            return None;
        }
        let addresses = packet.get(12..20)?;
        let packet = packet.get(..usize::from(be16(packet, 2)?))?;
        Some(Self::Segment { addresses, ports: packet.get(header_bytes..header_bytes.checked_add(4)?)? })
    }

    fn in_ipv6(packet: &'a [u8]) -> Option<Self> {
        if packet.first()? >> 4 != 6 {
            return None;
        }
        let addresses = packet.get(8..40)?;
        let mut kind = *packet.get(6)?;
        let mut payload = packet.get(40..)?.get(..usize::from(be16(packet, 4)?))?;
        for _ in 0..MAX_EXTENSION_HEADERS {
            match kind {
                PROTOCOL_TCP => return Some(Self::Segment { addresses, ports: payload.get(..4)? }),
                PROTOCOL_ICMPV6 => {
                    let kind = *payload.first()?;
                    return matches!(kind, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)
                        .then_some(Self::Neighbour);
                }
                // Hop-by-hop options, routing, destination options. Fragments are not among them.
                0 | 43 | 60 => {
                    kind = *payload.first()?;
                    payload = payload.get((usize::from(*payload.get(1)?) + 1) * 8..)?;
                }
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
