//! Addresses from a DHCP server.

use core::time::Duration;
use std::net::Ipv4Addr;

use hal_api::{FrameQueue, FrameReceive, Instant};
use hal_fakes::{FakeFrameQueue, frame_queue_pair};
use hal_mem::Arena;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::hostile::request_4;
use super::{port_info, small};
use crate::{Addressing, Config, Stack};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
pub(super) const LEASED: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 42);

struct World {
    stack: Stack<FakeFrameQueue>,
    wire: FakeFrameQueue,
    now: Instant,
    serving: bool,
    discovers: usize,
    /// Segments come all the time.
    busy: bool,
}

impl World {
    fn new() -> Self {
        let config = Config { addressing: Addressing::Dhcp, ..small() };
        let (ours, wire) = frame_queue_pair(port_info(1, 1500, false), port_info(2, 1500, false), 64);
        let mut arena = Arena::leak_for_host(config.memory_bytes());
        let now = Instant::from_millis(1);
        let stack = Stack::new(ours, &config, &mut arena, 3, now).unwrap();
        Self { stack, wire, now, serving: true, discovers: 0, busy: false }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            if self.busy {
                self.wire.inject(&request_4(LEASED));
            }
            self.stack.poll(self.now, 16);
            self.stack.flush();
            while let Some(frame) = self.wire.halves().0.receive(<[u8]>::to_vec) {
                let Some((kind, answer)) = answer(&frame) else { continue };
                self.discovers += usize::from(kind == DhcpMessageType::Discover);
                if self.serving {
                    self.wire.inject(&answer);
                }
            }
            self.wire.flush();
            self.now = self.now + Duration::from_millis(10);
        }
    }
}

/// What a server says to a request, and which kind it was.
pub(super) fn answer(frame: &[u8]) -> Option<(DhcpMessageType, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let packet = DhcpPacket::new_checked(udp.payload()).ok()?;
    let request = DhcpRepr::parse(&packet).ok()?;
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => DhcpMessageType::Ack,
        _ => return None,
    };
    let answer = DhcpRepr {
        message_type,
        your_ip: LEASED,
        server_ip: SERVER,
        router: Some(SERVER),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        server_identifier: Some(SERVER),
        lease_duration: Some(60),
        requested_ip: None,
        client_identifier: None,
        parameter_request_list: None,
        max_size: None,
        ..request
    };
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + answer.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
    frame.set_dst_addr(EthernetAddress::BROADCAST);
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &SERVER.into(),
        &Ipv4Addr::BROADCAST.into(),
        answer.buffer_len(),
        |payload| answer.emit(&mut DhcpPacket::new_unchecked(payload)).unwrap(),
        &checksums,
    );
    Some((request.message_type, bytes))
}

#[test]
fn a_lease_gives_the_address_and_renewal_keeps_it() {
    let mut world = World::new();
    assert_eq!(world.stack.address(), None);
    world.run(Duration::from_secs(2));
    assert_eq!(world.stack.address(), Some(LEASED.into()));
    world.run(Duration::from_secs(180));
    assert_eq!(world.stack.address(), Some(LEASED.into()));
}

#[test]
fn segments_without_a_pause_do_not_put_the_renewal_off() {
    let mut world = World::new();
    world.run(Duration::from_secs(2));
    world.busy = true;
    world.run(Duration::from_secs(20));
    world.serving = false;
    world.run(Duration::from_secs(70));
    assert_eq!(world.stack.address(), None, "the lease was for 60 s");
    world.serving = true;
    world.run(Duration::from_secs(20));
    assert_eq!(world.stack.address(), Some(LEASED.into()));
}

#[test]
fn without_a_server_it_keeps_asking_and_takes_a_late_answer() {
    let mut world = World::new();
    world.serving = false;
    world.run(Duration::from_secs(60));
    assert_eq!(world.stack.address(), None);
    assert!(world.discovers > 2);
    world.serving = true;
    world.run(Duration::from_secs(30));
    assert_eq!(world.stack.address(), Some(LEASED.into()));
}

#[test]
fn a_lease_that_is_not_renewed_is_lost() {
    let mut world = World::new();
    world.run(Duration::from_secs(2));
    world.serving = false;
    world.run(Duration::from_secs(90));
    assert_eq!(world.stack.address(), None);
}

#[test]
fn after_a_loss_of_the_link_the_address_is_confirmed() {
    let mut world = World::new();
    world.run(Duration::from_secs(2));
    for (serving, expected) in [(true, Some(LEASED.into())), (false, None)] {
        let before = world.discovers;
        world.wire.set_link(false);
        world.run(Duration::from_secs(1));
        assert_eq!(world.stack.address(), Some(LEASED.into()));
        world.serving = serving;
        world.wire.set_link(true);
        world.run(Duration::from_secs(15));
        assert!(world.discovers > before);
        assert_eq!(world.stack.address(), expected);
    }
}
