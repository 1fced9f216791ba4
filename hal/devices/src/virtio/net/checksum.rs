//! Verification of TCP and UDP checksums, for frames that the device does not vouch for (RFC 1071, 768, 9293,
//! 8200).

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The checksum is right, or the frame carries neither TCP nor UDP directly over IP.
    Acceptable,
    /// The checksum is wrong, or cannot be verified: a fragment, or a packet cut short.
    Refused,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_DESTINATION: u8 = 60;
/// More extension headers than any stack sends.
const MAX_EXTENSIONS: usize = 8;

/// Whether the TCP or UDP checksum of an Ethernet frame is right, or there is none to look at.
#[must_use]
pub fn checksum_is_acceptable(frame: &[u8]) -> bool {
    verify(frame) == Verdict::Acceptable
}

/// Verifies the TCP or UDP checksum of an Ethernet frame, with or without a VLAN tag. Frames with two tags are not looked
/// into, as the stack does not accept them.
pub(super) fn verify(frame: &[u8]) -> Verdict {
    let kind_at = if be16(frame, 12) == Some(ETHERTYPE_VLAN) { 16 } else { 12 };
    let packet = frame.get(kind_at + 2..);
    let acceptable = match be16(frame, kind_at) {
        Some(ETHERTYPE_IPV4) => packet.and_then(ipv4),
        Some(ETHERTYPE_IPV6) => packet.and_then(ipv6),
        _ => Some(true),
    };
    if acceptable == Some(true) { Verdict::Acceptable } else { Verdict::Refused }
}

/// `None` when the packet is cut short.
fn ipv4(packet: &[u8]) -> Option<bool> {
    let protocol = *packet.get(9)?;
    if protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP {
        return Some(true);
    }
    let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
    let total_bytes = usize::from(be16(packet, 2)?);
    let is_fragment = be16(packet, 6)? & 0x3fff != 0;
    if header_bytes < 20 || is_fragment {
        return Some(false);
    }
    let payload = packet.get(header_bytes..total_bytes)?;
    if protocol == PROTOCOL_UDP && be16(payload, 6)? == 0 {
        // The sender computed none (RFC 768).
        return Some(true);
    }
    transport(packet.get(12..20)?, protocol, payload)
}

fn ipv6(packet: &[u8]) -> Option<bool> {
    let mut next = *packet.get(6)?;
    let addresses = packet.get(8..40)?;
    let payload_bytes = usize::from(be16(packet, 4)?);
    let mut payload = packet.get(40..40 + payload_bytes)?;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            PROTOCOL_TCP | PROTOCOL_UDP => return transport(addresses, next, payload),
            IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_DESTINATION => {
                next = *payload.first()?;
                payload = payload.get((usize::from(*payload.get(1)?) + 1) * 8..)?;
            }
            IPV6_FRAGMENT => return Some(false),
            _ => return Some(true),
        }
    }
    Some(false)
}

/// Sums pseudo-header and segment; the right checksum makes the sum all ones.
fn transport(addresses: &[u8], protocol: u8, payload: &[u8]) -> Option<bool> {
    let segment = if protocol == PROTOCOL_UDP {
        let bytes = usize::from(be16(payload, 4)?);
        if bytes < 8 {
            return Some(false);
        }
        if be16(payload, 6)? == 0 {
            // Mandatory over IPv6 (RFC 8200, section 8.1); over IPv4 it was looked at before.
            return Some(false);
        }
        payload.get(..bytes)?
    } else {
        if payload.len() < 20 {
            return Some(false);
        }
        payload
    };
    // Lengths are at most 65,535, so one 16-bit word holds them.
    let fixed = (u64::from(protocol) + segment.len() as u64).to_be_bytes();
    Some(fold(sum(addresses) + sum(&fixed) + sum(segment)) == 0xffff)
}

/// Sum of 32-bit words in the machine's own byte order, zeros appended: folding gives the one's complement sum
/// of 16-bit words, and all ones look the same in either order.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    if !rest.is_empty() {
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        total += u64::from(u32::from_ne_bytes(last));
    }
    total
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

#[cfg(test)]
mod tests;
