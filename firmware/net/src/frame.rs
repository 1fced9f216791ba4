//! The few fields of a frame that are read outside of smoltcp: where a TCP segment goes and whether it is a connection
//! request on its way in, and the pseudo-header sum on the way out. Getters never panic; a frame that is too short has no fields.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hal_api::ChecksumRequest;

const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const TCP_SYN_ACK_RST: u8 = 0x16;
const TCP_SYN: u8 = 0x02;
const TCP_CHECKSUM_OFFSET: u16 = 16;
const UDP_CHECKSUM_OFFSET: u16 = 6;

/// Whence a TCP segment comes and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The peer.
    pub(crate) source: SocketAddr,
    /// The address and port it wants.
    pub(crate) destination: SocketAddr,
}

/// A TCP segment on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// One that asks for a connection (SYN without ACK).
    Request(Ends),
    /// Any other.
    Other(Ends),
    /// One behind hop-by-hop options, which no honest host puts before TCP.
    Hidden,
}

impl Segment {
    /// The segment in `frame`, if there is one. smoltcp finds one nowhere else.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let packet = IpPacket::of(frame)?;
        let payload = frame.get(packet.payload_at..)?;
        match packet.protocol {
            PROTOCOL_TCP => {}
            // In IPv4 the number has no such meaning, and smoltcp answers that it is not known.
            PROTOCOL_HOP_BY_HOP if packet.is_ipv6() => {
                return (*payload.first()? == PROTOCOL_TCP).then_some(Self::Hidden);
            }
            _ => return None,
        }
        let (source, destination) = packet.addresses(frame)?;
        let ends = Ends {
            source: SocketAddr::new(source, be16(payload, 0)?),
            destination: SocketAddr::new(destination, be16(payload, 2)?),
        };
        let is_request = payload.get(13)? & TCP_SYN_ACK_RST == TCP_SYN;
        Some(if is_request { Self::Request(ends) } else { Self::Other(ends) })
    }

    /// Its ends; `None` for a hidden one.
    pub(crate) fn ends(&self) -> Option<&Ends> {
        match self {
            Self::Request(ends) | Self::Other(ends) => Some(ends),
            Self::Hidden => None,
        }
    }
}

/// The IPv4 address that an ARP packet asks for, or tells its own to (RFC 826); `None` for other frames.
pub(crate) fn arp_target(frame: &[u8]) -> Option<IpAddr> {
    let packet = frame.get(ETHERNET_HEADER_BYTES..).filter(|_| be16(frame, 12) == Some(ETHERTYPE_ARP))?;
    address(packet.get(24..28)?)
}

/// Leaves the checksum of a finished TCP or UDP frame to the device: writes the sum of the pseudo-header
/// into the field (RFC 9293, section 3.1) and says what is left to do. `None` for other frames.
pub(crate) fn leave_checksum(frame: &mut [u8]) -> Option<ChecksumRequest> {
    let packet = IpPacket::of(frame)?;
    let offset = match packet.protocol {
        PROTOCOL_TCP => TCP_CHECKSUM_OFFSET,
        PROTOCOL_UDP => UDP_CHECKSUM_OFFSET,
        _ => return None,
    };
    let payload_bytes = u32::try_from(frame.len().checked_sub(packet.payload_at)?).ok()?;
    let mut sum = u32::from(packet.protocol) + payload_bytes;
    for pair in frame.get(packet.addresses_at..packet.addresses_at + packet.addresses_bytes)?.chunks_exact(2)
    {
        sum += u32::from(be16(pair, 0)?);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let field = packet.payload_at + usize::from(offset);
    frame.get_mut(field..field + 2)?.copy_from_slice(&(sum as u16).to_be_bytes());
    Some(ChecksumRequest { start: u16::try_from(packet.payload_at).ok()?, offset })
}

struct IpPacket {
    protocol: u8,
    addresses_at: usize,
    addresses_bytes: usize,
    payload_at: usize,
}

impl IpPacket {
    /// The IP packet in an Ethernet frame; for IPv6 only without extension headers.
    fn of(frame: &[u8]) -> Option<Self> {
        let header = frame.get(ETHERNET_HEADER_BYTES..)?;
        match be16(frame, 12)? {
            ETHERTYPE_IPV4 => {
                // Not of a fragment other than the first, which has no transport header.
                if be16(header, 6)? & 0x1fff != 0 {
                    return None;
                }
                let header_bytes = usize::from(header.first()? & 0x0f) * 4;
                Some(Self {
                    protocol: *header.get(9)?,
                    addresses_at: ETHERNET_HEADER_BYTES + 12,
                    addresses_bytes: 8,
                    payload_at: ETHERNET_HEADER_BYTES + header_bytes.max(20),
                })
            }
            ETHERTYPE_IPV6 => Some(Self {
                protocol: *header.get(6)?,
                addresses_at: ETHERNET_HEADER_BYTES + 8,
                addresses_bytes: 32,
                payload_at: ETHERNET_HEADER_BYTES + 40,
            }),
            _ => None,
        }
    }

    fn is_ipv6(&self) -> bool {
        self.addresses_bytes == 32
    }

    fn addresses(&self, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
        let bytes = frame.get(self.addresses_at..self.addresses_at + self.addresses_bytes)?;
        let (source, destination) = bytes.split_at(self.addresses_bytes / 2);
        Some((address(source)?, address(destination)?))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).into())
}

/// The 16-bit number at `at` in network order.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&[10, 0, 0, 2]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
        frame[34..38].copy_from_slice(&[0x9c, 0x40, 0x11, 0x44]);
        frame[46] = 0x50;
        frame[47] = 0x02;
        frame
    }

    #[test]
    fn a_request_is_found_and_an_answer_is_none() {
        let Some(Segment::Request(request)) = Segment::of(&syn()) else { panic!() };
        assert_eq!(request.source, "10.0.0.2:40000".parse().unwrap());
        assert_eq!(request.destination, "10.0.0.1:4420".parse().unwrap());
        let mut answer = syn();
        answer[47] = 0x12;
        assert_eq!(Segment::of(&answer), Some(Segment::Other(request)));
    }

    #[test]
    fn an_arp_packet_has_a_target() {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[38..].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(arp_target(&frame), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(arp_target(&frame[..41]), None);
        assert_eq!(arp_target(&syn()), None);
    }

    #[test]
    fn cut_frames_have_no_fields() {
        for end in 0..48 {
            let mut frame = syn();
            frame.truncate(end);
            assert_eq!(Segment::of(&frame), None, "{end}");
            let _ = leave_checksum(&mut frame);
        }
    }

    #[test]
    fn the_pseudo_header_is_summed() {
        let mut frame = syn();
        let request = leave_checksum(&mut frame).unwrap();
        assert_eq!((request.start, request.offset), (34, 16));
        // 0a00 + 0002 + 0a00 + 0001 + protocol 6 + length 20
        assert_eq!(frame[50..52], [0x14, 0x1d]);
    }
}
