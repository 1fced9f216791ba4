//! The network driver against a model of its device: negotiation, frames both ways, and a device that breaks the rules.

use std::cell::RefCell;
use std::rc::Rc;

use hal_api::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit};
use hal_mem::DmaRegion;

use super::*;
use crate::virtio::model::{ModelState, ModelTransport};
use crate::virtio::{FEATURE_ACCESS_PLATFORM, FEATURE_VERSION_1};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const BASE: u64 = FEATURE_VERSION_1 | feature::MAC | feature::STATUS;
const RX: u16 = 0;
const TX: u16 = 1;

struct Bench {
    queue: VirtioNetQueue,
    state: Rc<RefCell<ModelState>>,
    info: PortInfo,
}

fn configuration(mtu: u16) -> [u8; 12] {
    let [low, high] = mtu.to_le_bytes();
    [MAC[0], MAC[1], MAC[2], MAC[3], MAC[4], MAC[5], 1, 0, 1, 0, low, high]
}

fn bench_with(features: u64, entries: u16, mtu: u16) -> Bench {
    let transport = ModelTransport::new(features, entries, &configuration(mtu));
    let state = transport.state.clone();
    let options = NetOptions::default();
    let mut dma = DmaRegion::leak_for_host(options.memory_bytes());
    let mut port = VirtioNetPort::over(transport, &mut dma, &options, 1).unwrap();
    let queue = port.take_queue(0).unwrap();
    assert!(port.take_queue(0).is_none() && port.take_queue(1).is_none());
    Bench { queue, state, info: port.info() }
}

fn bench(features: u64) -> Bench {
    bench_with(BASE | features, 8, 1500)
}

impl Bench {
    /// Delivers buffers that together are one frame.
    fn deliver(&self, flags: u8, buffers: u16, parts: &[&[u8]]) {
        for (index, part) in parts.iter().enumerate() {
            let bytes = if index == 0 { with_header(flags, buffers, part) } else { part.to_vec() };
            self.state.borrow_mut().queue(RX).deliver(&bytes);
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.queue.halves().0.receive(<[u8]>::to_vec)
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.queue.halves().1.transmit(frame.len(), |to| to.copy_from_slice(frame), |_| None).is_ok()
    }

    /// The next frame at the device, without its header, which must be empty.
    fn take_sent(&self) -> Option<Vec<u8>> {
        let mut state = self.state.borrow_mut();
        let (id, bytes) = state.queue(TX).fetch_frame()?;
        state.queue(TX).complete(id, 0);
        assert_eq!(bytes[..12], [0; 12]);
        Some(bytes[12..].to_vec())
    }
}

fn with_header(flags: u8, buffers: u16, part: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags, 0, 0, 0, 0, 0, 34, 0, 16, 0];
    bytes.extend(buffers.to_le_bytes());
    bytes.extend(part);
    bytes
}

/// A frame of a protocol that carries no checksum, `bytes` long.
fn frame(bytes: usize, seed: u8) -> Vec<u8> {
    let mut frame: Vec<u8> =
        (0..bytes).map(|at| (at as u8).wrapping_mul(7) ^ seed ^ (at >> 8) as u8).collect();
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// An IPv4 TCP segment with a right checksum and three bytes of data.
fn tcp_frame() -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 1, 2, 3, 0x52, 0x54, 0, 9, 9, 9, 8, 0];
    frame.extend([0x45, 0, 0, 43, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    frame.extend([0x9c, 0x40, 0x11, 0x44, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(*b"abc");
    let checksum = reference_checksum(&frame);
    frame[50..52].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The TCP checksum of an IPv4 frame without options, one byte at a time.
fn reference_checksum(frame: &[u8]) -> u16 {
    let mut sum = u32::from(frame[23]) + (frame.len() as u32 - 34);
    for (at, byte) in frame.iter().enumerate().skip(26) {
        let is_checksum = at == 50 || at == 51;
        let byte = if is_checksum { 0 } else { u32::from(*byte) };
        sum += if at % 2 == 0 { byte << 8 } else { byte };
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[test]
fn negotiates_what_is_offered_and_known() {
    let unknown = 1 << 17 | 1 << 22 | 1 << 7 | 1 << 34 | 1 << 38;
    let offered = BASE | feature::WANTED | FEATURE_ACCESS_PLATFORM | unknown;
    let bench = bench_with(offered, 1024, 9000);
    let state = bench.state.borrow();
    assert_eq!(state.accepted, offered & !unknown);
    assert_eq!(state.statuses, [1, 3, 11, 15]);
    assert_eq!(state.vectors, [Some(0); 3]);
    let verified = true;
    let info = PortInfo {
        mac: MAC,
        mtu: 9000,
        receive_checksums_verified: verified,
        transmit_checksum_offload: true,
    };
    assert_eq!(bench.info, info);
}

#[test]
fn limits_the_mtu() {
    let transport = ModelTransport::new(BASE | feature::MTU, 8, &configuration(9000));
    let state = transport.state.clone();
    let options = NetOptions { mtu_limit: 1400, queue_entries: 6, ..NetOptions::default() };
    let mut dma = DmaRegion::leak_for_host(options.memory_bytes());
    let port = VirtioNetPort::over(transport, &mut dma, &options, 0).unwrap();
    assert_eq!(port.info().mtu, 1400);
    assert_eq!(state.borrow().accepted & feature::MTU, 0, "its buffers are too small for that promise");
    assert_eq!(state.borrow().vectors, [None; 3]);
    assert_eq!(state.borrow_mut().queue(RX).fetch_all().len(), 4, "a power of two");
    assert_eq!(bench_with(BASE | feature::MTU, 8, 65_535).info.mtu, 9000);
    assert_eq!(bench_with(BASE, 8, 9000).info.mtu, 1500);
    assert!(!bench_with(BASE, 8, 9000).info.receive_checksums_verified);
}

#[test]
fn refuses_devices_that_cannot_be_used() {
    let attempt = |features, entries, mtu, memory: usize, refuses| {
        let transport = ModelTransport::new(features, entries, &configuration(mtu));
        let state = transport.state.clone();
        state.borrow_mut().refuses_features = refuses;
        let mut dma = DmaRegion::leak_for_host(memory);
        let error =
            VirtioNetPort::over(transport, &mut dma, &NetOptions::default(), 0).map(|_| ()).unwrap_err();
        assert_ne!(state.borrow().status & status::FAILED, 0);
        error
    };
    let enough = NetOptions::default().memory_bytes();
    assert_eq!(attempt(feature::MAC, 8, 1500, enough, false), VirtioError::NotVersion1);
    assert_eq!(attempt(BASE, 8, 1500, enough, true), VirtioError::FeaturesRefused);
    assert_eq!(attempt(BASE & !feature::MAC, 8, 1500, enough, false), VirtioError::NoStationAddress);
    assert_eq!(attempt(BASE | feature::MTU, 8, 67, enough, false), VirtioError::BadConfiguration);
    assert_eq!(attempt(BASE, 0, 1500, enough, false), VirtioError::BadQueue);
    assert_eq!(attempt(BASE, 256, 1500, 100_000, false), VirtioError::OutOfMemory);
}

#[test]
fn receives_in_place_and_returns_buffers_by_batch() {
    let mut bench = bench(0);
    assert!(bench.state.borrow_mut().take_kick(RX), "told of the first buffers");
    assert_eq!(bench.state.borrow_mut().queue(RX).fetch_all().len(), 8);
    for round in 0..10_000u32 {
        for seed in 0..8 {
            bench.deliver(0, 1, &[&frame(60 + seed * 207, seed as u8)]);
        }
        for seed in 0..8 {
            assert!(bench.queue.halves().0.has_frame());
            assert_eq!(bench.receive().unwrap(), frame(60 + seed * 207, seed as u8));
        }
        assert!(bench.receive().is_none() && !bench.queue.halves().0.has_frame());
        bench.state.borrow_mut().queue(RX).set_no_notify(round % 2 == 0);
        assert!(bench.state.borrow_mut().queue(RX).fetch().is_none(), "not before the flush");
        bench.queue.flush();
        assert_eq!(bench.state.borrow_mut().take_kick(RX), round % 2 == 1);
        assert_eq!(bench.state.borrow_mut().queue(RX).fetch_all().len(), 8);
    }
    assert_eq!(bench.queue.counters().received, 80_000);
    assert_eq!(bench.queue.counters().kicks, 5_001);
}

#[test]
fn answers_a_frame_that_it_still_holds() {
    let mut bench = bench(FEATURE_EVENT_INDEX);
    bench.deliver(0, 1, &[&frame(300, 9)]);
    let (receive, transmit) = bench.queue.halves();
    let sent =
        receive.receive(|got| transmit.transmit(got.len(), |to| to.copy_from_slice(got), |_| None).is_ok());
    assert_eq!(sent, Some(true));
    assert!(bench.take_sent().is_none(), "not before the flush");
    bench.queue.flush();
    assert_eq!(bench.take_sent().unwrap(), frame(300, 9));
}

#[test]
fn joins_merged_buffers_also_over_several_turns() {
    let mut bench = bench_with(BASE | feature::MRG_RXBUF | feature::MTU, 8, 9000);
    let whole = frame(9018, 3);
    bench.deliver(0, 3, &[&whole[..4000], &whole[4000..4001], &whole[4001..]]);
    assert_eq!(bench.receive().unwrap(), whole);
    bench.queue.flush();

    bench.deliver(0, 2, &[&whole[..100]]);
    assert!(bench.receive().is_none() && !bench.queue.arm());
    bench.queue.disarm();
    bench.state.borrow_mut().queue(RX).deliver(&whole[100..200]);
    assert!(bench.queue.halves().0.has_frame() && bench.queue.arm());
    assert_eq!(bench.receive().unwrap(), whole[..200]);
    assert_eq!(bench.queue.counters().malformed, 0);
}

#[test]
fn drops_frames_that_cannot_be_and_goes_on() {
    let mut bench = bench(feature::MRG_RXBUF);
    let good = frame(100, 1);
    let parts = [good.as_slice(); 3];
    // Larger than any frame; too short for Ethernet; no header; segmentation that was not negotiated.
    let large = frame(1518, 0);
    bench.deliver(0, 3, &[&large, &large, &large]);
    bench.deliver(0, 1, &[&good[..13]]);
    bench.state.borrow_mut().queue(RX).deliver(&[0; 11]);
    let mut segmented = with_header(0, 2, &good);
    segmented[1] = 1;
    bench.state.borrow_mut().queue(RX).deliver(&segmented);
    bench.state.borrow_mut().queue(RX).deliver(&good);
    assert!(bench.receive().is_none());
    assert_eq!(bench.queue.counters().malformed, 4);
    bench.queue.flush();
    bench.deliver(0, 3, &parts);
    assert_eq!(bench.receive().unwrap(), parts.concat());
    assert_eq!(bench.queue.counters().broken_queues, 0);
}

#[test]
fn impossible_numbers_of_buffers_break_the_queue() {
    for buffers in [0, 9, 0xffff] {
        let mut bench = bench(feature::MRG_RXBUF);
        bench.deliver(0, buffers, &[&frame(100, 1)]);
        bench.deliver(0, 1, &[&frame(100, 1)]);
        assert!(bench.receive().is_none());
        assert_eq!(bench.queue.counters().broken_queues, 1);
        assert!(!bench.queue.arm(), "a broken queue keeps no core awake");
    }
}

#[test]
fn hostile_used_entries_end_reception_and_transmission_without_harm() {
    for (id, bytes) in [(8, 0), (u32::MAX, 12), (0, 1531), (0, u32::MAX), (0x1_0000, 100)] {
        let mut bench = bench(FEATURE_EVENT_INDEX);
        bench.state.borrow_mut().queue(RX).put_used(id, bytes);
        assert!(bench.receive().is_none());
        assert!(bench.send(&frame(60, 0)));
        bench.queue.flush();
        bench.state.borrow_mut().queue(TX).put_used(7 - id.min(7), u32::MAX);
        bench.queue.flush();
        for _ in 0..8 {
            bench.send(&frame(60, 0));
        }
        assert!(!bench.queue.halves().1.has_room());
        assert!(!bench.send(&frame(60, 0)));
        bench.queue.flush();
        assert_eq!(bench.queue.counters().broken_queues, 2);
    }
}

#[test]
fn verifies_what_the_device_does_not_vouch_for() {
    let mut wrong = tcp_frame();
    wrong[55] ^= 1;
    let mut queue = bench(feature::GUEST_CSUM);
    queue.deliver(0, 1, &[&tcp_frame()]);
    assert_eq!(queue.receive().unwrap(), tcp_frame());
    for flags in [header::NEEDS_CSUM, header::DATA_VALID] {
        queue.deliver(flags, 1, &[&wrong]);
        assert_eq!(queue.receive().unwrap(), wrong, "the device vouches");
    }
    queue.deliver(0, 1, &[&wrong]);
    assert!(queue.receive().is_none());
    assert_eq!(queue.queue.counters().bad_checksum, 1);
    queue.deliver(0, 1, &[&frame(60, 0)]);
    assert!(queue.receive().is_some(), "nothing to verify");

    let mut merged = bench(feature::GUEST_CSUM | feature::MRG_RXBUF);
    merged.deliver(0, 2, &[&wrong[..40], &wrong[40..]]);
    assert!(merged.receive().is_none());
    merged.deliver(0, 2, &[&tcp_frame()[..41], &tcp_frame()[41..]]);
    assert_eq!(merged.receive().unwrap(), tcp_frame());

    let mut left_to_the_stack = bench(0);
    left_to_the_stack.deliver(header::DATA_VALID, 1, &[&wrong]);
    assert!(left_to_the_stack.receive().is_some());
}

#[test]
fn asks_for_checksums_only_where_negotiated() {
    let request = Some(ChecksumRequest { start: 34, offset: 16 });
    let mut offloading = bench(feature::CSUM);
    let sent = tcp_frame();
    let (_, transmit) = offloading.queue.halves();
    assert!(transmit.transmit(sent.len(), |to| to.copy_from_slice(&sent), |_| request).is_ok());
    assert!(transmit.transmit(sent.len(), |to| to.copy_from_slice(&sent), |_| None).is_ok());
    offloading.queue.flush();
    let mut state = offloading.state.borrow_mut();
    assert!(state.take_kick(TX));
    let (_, first) = state.queue(TX).fetch_frame().unwrap();
    assert_eq!(first[..12], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    assert_eq!(first[12..], sent);
    assert_eq!(state.queue(TX).fetch_frame().unwrap().1[..12], [0; 12]);

    let mut plain = bench(0);
    let (_, transmit) = plain.queue.halves();
    assert!(transmit.transmit(sent.len(), |to| to.copy_from_slice(&sent), |_| request).is_ok());
    plain.queue.flush();
    assert_eq!(plain.take_sent().unwrap(), sent);
}

#[test]
fn a_full_transmit_ring_takes_no_more_until_the_device_has_sent() {
    for features in [0, FEATURE_EVENT_INDEX] {
        let mut bench = bench(features);
        for seed in 0..8 {
            assert!(bench.send(&frame(1518, seed)));
        }
        assert!(!bench.send(&frame(60, 0)));
        assert!(!bench.queue.arm(), "nothing waits");
        let (id, _) = bench.state.borrow_mut().queue(TX).fetch_frame().unwrap();
        assert!(bench.state.borrow_mut().queue(TX).complete(id, 0), "a full ring asks for an interrupt");
        assert!(bench.queue.arm(), "there is room");
        bench.queue.disarm();
        assert!(bench.queue.halves().1.has_room());
        assert!(bench.send(&frame(61, 1)));
        bench.queue.flush();
        let (id, _) = bench.state.borrow_mut().queue(TX).fetch_frame().unwrap();
        assert!(!bench.state.borrow_mut().queue(TX).complete(id, 0), "otherwise sending is quiet");
    }
}

#[test]
fn sends_for_ever_over_the_wrap_of_the_indices() {
    let mut bench = bench_with(BASE | FEATURE_EVENT_INDEX | feature::MTU, 8, 9000);
    assert!(!bench.send(&frame(9019, 0)));
    for round in 0..70_000u32 {
        let sizes = [60, 1514, if round % 1000 == 0 { 9018 } else { 61 }];
        for bytes in sizes {
            assert!(bench.send(&frame(bytes, round as u8)));
        }
        let event = bench.state.borrow_mut().queue(TX).available_seen();
        bench.state.borrow_mut().queue(TX).set_available_event(event);
        bench.queue.flush();
        assert!(bench.state.borrow_mut().take_kick(TX), "one notification for the batch");
        for bytes in sizes {
            assert_eq!(bench.take_sent().unwrap(), frame(bytes, round as u8));
        }
    }
    assert_eq!(bench.queue.counters().transmitted, 210_000);
}

#[test]
fn tells_the_link_state() {
    let mut bench = bench(0);
    assert!(bench.queue.link_is_up());
    bench.queue.link.as_ref().unwrap().write16(configuration::STATUS, 2);
    assert!(!bench.queue.link_is_up());
    let mut silent = bench_with(BASE & !feature::STATUS, 8, 1500);
    assert!(silent.queue.link_is_up());
}

#[test]
fn a_tag_hides_no_wrong_checksum() {
    let mut frame = tcp_frame();
    frame.splice(12..12, [0x81, 0, 0, 5]);
    assert!(checksum_is_acceptable(&frame));
    let last = frame.len() - 1;
    frame[last] ^= 1;
    assert!(!checksum_is_acceptable(&frame));
}

mod pairs;
