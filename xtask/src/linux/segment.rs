//! TCP segments over IPv4 and Ethernet, as far as a wire in the middle looks at them and makes its own.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of an IPv4 header without options.
const IP_BYTES: usize = 20;
/// Bytes of a TCP header without options.
const TCP_BYTES: usize = 20;
/// The smallest Ethernet frame, without its checksum.
const MIN_FRAME_BYTES: usize = 60;

/// SYN (RFC 9293, 3.1).
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
const ACK: u8 = 0x10;

/// What a segment says, but for its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Station addresses: destination, source.
    pub stations: [[u8; 6]; 2],
    /// Who sends it.
    pub from: SocketAddrV4,
    /// Who gets it.
    pub to: SocketAddrV4,
    /// Number of its first byte.
    pub sequence: u32,
    /// Number of the byte that is expected next; counts with ACK alone.
    pub acknowledged: u32,
    /// Control bits.
    pub flags: u8,
    /// Bytes of data.
    pub data_bytes: u32,
}

impl Segment {
    /// What a frame carries; `None` where it is no TCP segment over IPv4.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET_BYTES..)?;
        let is_tcp = frame.get(12..ETHERNET_BYTES)? == [8, 0] && ip.first()? >> 4 == 4 && *ip.get(9)? == 6;
        if !is_tcp {
            return None;
        }
        let ip_header = usize::from(ip.first()? & 15) * 4;
        let total = usize::from(u16::from_be_bytes(*ip.get(2..)?.first_chunk()?));
        let tcp = ip.get(ip_header..total)?;
        let tcp_header = usize::from(*tcp.get(12)? >> 4) * 4;
        let address = |at: usize| Some(Ipv4Addr::from(*ip.get(at..)?.first_chunk::<4>()?));
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        let number = |at: usize| Some(u32::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        Some(Self {
            stations: [*frame.first_chunk()?, *frame.get(6..)?.first_chunk()?],
            from: SocketAddrV4::new(address(12)?, port(0)?),
            to: SocketAddrV4::new(address(16)?, port(2)?),
            sequence: number(4)?,
            acknowledged: number(8)?,
            flags: *tcp.get(13)?,
            data_bytes: tcp.len().checked_sub(tcp_header)? as u32,
        })
    }

    /// The number of the byte behind its data.
    pub fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.data_bytes)
    }

    /// The segment with which the same sender would end the connection behind this one (RFC 9293, 3.5.2).
    pub fn reset_behind(&self) -> Self {
        Self { sequence: self.end(), flags: RST | ACK, data_bytes: 0, ..*self }
    }

    /// The frame of a segment without data and options.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.stations.concat();
        frame.extend([8, 0]);
        // IPv4 (RFC 791, 3.1): do not fragment, 64 hops, TCP.
        let mut ip = vec![0x45, 0, 0, (IP_BYTES + TCP_BYTES) as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
        ip.extend(self.from.ip().octets());
        ip.extend(self.to.ip().octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        // TCP (RFC 9293, 3.1): a window, no checksum yet, nothing urgent.
        let mut tcp = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([(TCP_BYTES as u8 / 4) << 4, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        let mut covered = [self.from.ip().octets(), self.to.ip().octets()].concat();
        covered.extend([0, 6, 0, TCP_BYTES as u8]);
        covered.extend(&tcp);
        let sum = checksum(&covered);
        tcp[16..18].copy_from_slice(&sum);
        frame.extend(ip);
        frame.extend(tcp);
        frame.resize(MIN_FRAME_BYTES, 0);
        frame
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        Segment {
            stations: [[2; 6], [4; 6]],
            from: "10.0.0.2:1024".parse().unwrap(),
            to: "10.0.0.1:4420".parse().unwrap(),
            sequence: u32::MAX - 1,
            acknowledged: 77,
            flags: SYN,
            data_bytes: 0,
        }
    }

    #[test]
    fn a_frame_has_right_checksums_and_says_what_it_was_made_of() {
        let frame = segment().frame();
        assert_eq!((frame.len(), &frame[..6]), (60, &[2; 6][..]));
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
        let mut covered = [&frame[26..34], &[0, 6, 0, 20]].concat();
        covered.extend(&frame[34..54]);
        assert_eq!(checksum(&covered), [0, 0]);
        assert_eq!(Segment::read(&frame), Some(segment()));
    }

    #[test]
    fn data_is_what_the_packet_says_and_a_reset_follows_it() {
        let mut frame = segment().frame();
        frame[17] += 6;
        let read = Segment::read(&frame).unwrap();
        assert_eq!((read.data_bytes, read.end()), (6, 4));
        let reset = Segment::read(&read.reset_behind().frame()).unwrap();
        assert_eq!((reset.sequence, reset.flags, reset.data_bytes), (4, RST | ACK, 0));
    }

    #[test]
    fn what_is_no_segment_is_passed_over() {
        let mut frame = segment().frame();
        frame[23] = 17;
        assert_eq!(Segment::read(&frame), None);
        assert_eq!(Segment::read(&[0; 20]), None);
        let mut cut = segment().frame();
        cut[17] = 200;
        assert_eq!(Segment::read(&cut), None);
    }
}
