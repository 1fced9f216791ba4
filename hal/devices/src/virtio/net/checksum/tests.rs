//! Right, wrong, padded, fragmented and cut-off frames against the checksum check.

use super::*;

/// An Ethernet frame of `payload` over IPv4 or IPv6 with a right checksum at `field` of the payload.
fn build(ipv6: bool, extensions: &[u8], protocol: u8, payload: &[u8], field: usize) -> Vec<u8> {
    let addresses: Vec<u8> = (0..if ipv6 { 32 } else { 8 }).map(|at: u8| at.wrapping_mul(37) + 5).collect();
    let mut sum = u32::from(protocol) + payload.len() as u32;
    for pair in addresses.chunks(2).chain(payload.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let mut payload = payload.to_vec();
    let checksum = !(sum as u16);
    let checksum = if checksum == 0 && protocol == PROTOCOL_UDP { 0xffff } else { checksum };
    payload[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0; 12];
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(((payload.len() + extensions.len()) as u16).to_be_bytes());
        frame.extend([if extensions.is_empty() { protocol } else { IPV6_DESTINATION }, 64]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    }
    frame.extend(addresses);
    frame.extend(extensions);
    frame.extend(payload);
    frame
}

fn tcp(ipv6: bool, data: usize) -> Vec<u8> {
    let mut segment: Vec<u8> = (0..20 + data).map(|at| (at * 91) as u8).collect();
    segment[16..18].fill(0);
    build(ipv6, &[], PROTOCOL_TCP, &segment, 16)
}

fn udp(ipv6: bool, data: usize) -> Vec<u8> {
    let mut datagram: Vec<u8> = (0..8 + data).map(|at| (at * 57 + 1) as u8).collect();
    datagram[4..6].copy_from_slice(&(8 + data as u16).to_be_bytes());
    datagram[6..8].fill(0);
    build(ipv6, &[], PROTOCOL_UDP, &datagram, 6)
}

#[test]
fn accepts_right_checksums_of_any_length_and_refuses_any_flipped_bit() {
    for ipv6 in [false, true] {
        for data in (0..20).chain([1460, 8960]) {
            for mut frame in [tcp(ipv6, data), udp(ipv6, data)] {
                assert_eq!(verify(&frame), Verdict::Acceptable, "ipv6 {ipv6}, {data} bytes");
                let header = if ipv6 { 54 } else { 34 };
                for at in (header..frame.len()).step_by(1 + data / 30) {
                    frame[at] ^= 0x20;
                    assert_eq!(verify(&frame), Verdict::Refused, "ipv6 {ipv6}, {data} bytes, byte {at}");
                    frame[at] ^= 0x20;
                }
            }
        }
    }
}

#[test]
fn padding_of_short_frames_is_not_summed() {
    let mut frame = tcp(false, 1);
    frame.extend([0xee; 6]);
    assert_eq!(verify(&frame), Verdict::Acceptable);
}

#[test]
fn zero_means_no_checksum_in_udp_over_ipv4_alone() {
    let mut frame = udp(false, 30);
    frame[40..42].fill(0);
    assert_eq!(verify(&frame), Verdict::Acceptable);
    let mut frame = udp(true, 30);
    frame[60..62].fill(0);
    assert_eq!(verify(&frame), Verdict::Refused);
}

#[test]
fn fragments_are_refused_and_extension_headers_skipped() {
    for field in [0x2000u16, 0x0001, 0x3fff] {
        let mut frame = tcp(false, 10);
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        assert_eq!(verify(&frame), Verdict::Refused);
    }
    let mut segment = [0u8; 25];
    segment[24] = 9;
    let frame = build(true, &[PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0], PROTOCOL_TCP, &segment, 16);
    assert_eq!(verify(&frame), Verdict::Acceptable);
    let frame = build(true, &[IPV6_FRAGMENT, 0, 1, 4, 0, 0, 0, 0], PROTOCOL_TCP, &segment, 16);
    assert_eq!(verify(&frame), Verdict::Refused);
    let frame = build(true, &[IPV6_DESTINATION, 255, 1, 4, 0, 0, 0, 0], PROTOCOL_TCP, &segment, 16);
    assert_eq!(verify(&frame), Verdict::Refused, "runs past the end");
}

#[test]
fn truncation_at_any_byte_is_refused_and_never_panics() {
    for whole in [tcp(false, 40), tcp(true, 40), udp(false, 40), udp(true, 40)] {
        for end in 0..whole.len() {
            let verdict = verify(&whole[..end]);
            assert_eq!(verdict == Verdict::Refused, end >= 14, "cut at {end}");
        }
    }
    for protocol in [1, 58, 2] {
        let mut frame = tcp(false, 40);
        frame[23] = protocol;
        assert_eq!(verify(&frame), Verdict::Acceptable, "not TCP or UDP");
    }
}
