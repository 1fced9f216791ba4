//! Queues of several cores over one or more wires in memory, at the level of frames.

use std::cell::RefCell;
use std::rc::Rc;

use hal_api::Moved;
use hal_fakes::{FakeFrameQueue, frame_queue_pair};

use super::*;

const PORT: u16 = 4420;
const RING_FRAMES: usize = 16;

type Wake = Box<dyn FnMut(usize)>;

/// The cores' queues, the far ends of the device's, and who has been woken.
struct Bench {
    queues: Vec<SteeredQueue<FakeFrameQueue, Wake>>,
    wires: Vec<FakeFrameQueue>,
    woken: Rc<RefCell<Vec<usize>>>,
    steering: &'static Steering,
}

impl Bench {
    fn new(cores: usize, pairs: usize, depth: usize) -> Self {
        let info = PortInfo {
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            receive_checksums_verified: true,
            transmit_checksum_offload: true,
        };
        let (devices, wires): (Vec<_>, _) = (0..pairs).map(|_| frame_queue_pair(info, info, depth)).unzip();
        let steering: &'static Steering = Box::leak(Box::new(Steering::new(&Steering::key_from(5), cores)));
        let woken = Rc::new(RefCell::new(Vec::new()));
        let mut arena = Arena::leak_for_host(steered_queues_bytes(cores, pairs, RING_FRAMES, info.mtu));
        let wake = || {
            let woken = Rc::clone(&woken);
            Box::new(move |core| woken.borrow_mut().push(core)) as Wake
        };
        let queues = steered_queues(devices, steering, RING_FRAMES, &mut arena, wake).unwrap();
        Self { queues: queues.into_iter().collect(), wires, woken, steering }
    }

    /// A segment of `peer` with a number in its payload, and the core that it belongs to.
    fn segment(&self, peer: u16, number: u32) -> (Vec<u8>, usize) {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        frame.extend(peer.to_be_bytes());
        frame.extend(PORT.to_be_bytes());
        frame.extend([0; 16]);
        frame.extend(number.to_be_bytes());
        let core = self.steering.core_of(([10, 0, 0, 2], peer).into(), ([10, 0, 0, 1], PORT).into());
        assert_eq!(self.steering.core_of_frame(&frame), Steer::Core(core));
        (frame, core)
    }

    fn inject(&mut self, wire: usize, frame: &[u8]) {
        self.wires[wire].inject(frame);
    }

    fn receive(&mut self, core: usize) -> Option<Vec<u8>> {
        self.queues[core].halves().0.receive(<[u8]>::to_vec)
    }

    fn transmit(&mut self, core: usize, frame: &[u8]) -> bool {
        self.queues[core].halves().1.transmit(frame.len(), |to| to.copy_from_slice(frame), |_| None).is_ok()
    }

    /// All that each core gets in a turn of all cores.
    fn turn(&mut self) -> Vec<Vec<Vec<u8>>> {
        let cores = self.queues.len();
        let receive_all = |core| {
            let frames = std::iter::from_fn(|| self.receive(core)).collect();
            self.queues[core].flush();
            frames
        };
        (0..cores).map(receive_all).collect()
    }
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[frame.len() - 4..].try_into().unwrap())
}

/// An ARP reply, as far as it is looked at.
fn arp_reply() -> Vec<u8> {
    let mut frame = vec![0; 42];
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame
}

#[test]
fn each_segment_reaches_its_core_once_and_in_order_whichever_queue_it_came_to() {
    for (cores, pairs) in [(1, 1), (2, 1), (7, 1), (3, 2), (7, 4), (4, 4)] {
        let mut bench = Bench::new(cores, pairs, 64);
        let mut expected = vec![Vec::new(); cores];
        let mut got = vec![Vec::new(); cores];
        for at in 0..200 {
            let (frame, core) = bench.segment(40_000 + at % 16, u32::from(at));
            // All segments of a connection come to one queue, be it the right one or not.
            bench.inject(usize::from(at % 16) % pairs, &frame);
            expected[core].push((at % 16, u32::from(at)));
            for (core, frames) in bench.turn().into_iter().enumerate() {
                got[core].extend(
                    frames
                        .iter()
                        .map(|frame| (u16::from_be_bytes([frame[34], frame[35]]) - 40_000, number(frame))),
                );
            }
        }
        for (core, frames) in bench.turn().into_iter().enumerate() {
            got[core].extend(
                frames
                    .iter()
                    .map(|frame| (u16::from_be_bytes([frame[34], frame[35]]) - 40_000, number(frame))),
            );
        }
        for core in 0..cores {
            for peer in 0..16 {
                let of = |list: &[(u16, u32)]| {
                    list.iter().filter(|(from, _)| *from == peer).copied().collect::<Vec<_>>()
                };
                assert_eq!(of(&got[core]), of(&expected[core]), "{cores} cores, {pairs} pairs, core {core}");
            }
        }
        let counters: Vec<_> = bench.queues.iter().map(SteeredQueue::counters).collect();
        assert!(counters.iter().all(|counters| counters.dropped == 0));
        assert_eq!(counters.iter().any(|counters| counters.passed_on > 0), cores > 1);
    }
}

#[test]
fn what_tells_a_station_address_reaches_all_and_the_rest_the_first() {
    for pairs in [1, 3] {
        let mut bench = Bench::new(4, pairs, 8);
        for wire in 0..pairs {
            bench.inject(wire, &arp_reply());
            bench.inject(wire, &[7; 60]);
        }
        let mut got = [0; 4];
        let mut first = 0;
        for _ in 0..2 {
            for (core, frames) in bench.turn().iter().enumerate() {
                got[core] += frames.iter().filter(|frame| **frame == arp_reply()).count();
                first += frames.iter().filter(|frame| **frame == [7; 60]).count();
                assert!(core == 0 || frames.iter().all(|frame| *frame == arp_reply()));
            }
        }
        assert_eq!((got, first), ([pairs; 4], pairs));
    }
}

#[test]
fn a_core_without_a_queue_pair_is_carried_and_its_checksums_are_filled_in() {
    let mut bench = Bench::new(5, 2, 8);
    for core in 0..5 {
        let request = ChecksumRequest { start: 14, offset: 2 };
        let sent = bench.queues[core].halves().1.transmit(20, |to| to.fill(core as u8), |_| Some(request));
        assert!(sent.is_ok());
    }
    for core in (0..5).rev() {
        bench.queues[core].flush();
    }
    for (wire, senders) in [(0, vec![0, 2, 4]), (1, vec![1, 3])] {
        let arrived = std::iter::from_fn(|| bench.wires[wire].halves().0.receive(<[u8]>::to_vec));
        let mut arrived: Vec<_> = arrived.collect();
        arrived.sort();
        assert_eq!(arrived.iter().map(|frame| frame[0]).collect::<Vec<_>>(), senders);
        let word = |core: u8| u16::from_be_bytes([core, core]);
        for frame in arrived {
            let sum = u32::from(word(frame[0])) * 3;
            assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), !(sum as u16), "the device's sum");
        }
    }
    assert_eq!(bench.queues[0].counters().carried, 2);
    assert_eq!(
        (bench.queues[0].take_moved(), bench.queues[0].take_moved()),
        (Moved { carried: 2, ..Moved::default() }, Moved::default())
    );
}

#[test]
fn a_full_ring_drops_and_the_others_go_on() {
    let mut bench = Bench::new(3, 1, 128);
    let peer_of = |bench: &Bench, core| (40_000..).find(|peer| bench.segment(*peer, 0).1 == core).unwrap();
    let (deaf, hearing) = (peer_of(&bench, 1), peer_of(&bench, 2));
    for at in 0..40 {
        let frame = bench.segment(deaf, at).0;
        bench.inject(0, &frame);
    }
    let frame = bench.segment(hearing, 99).0;
    bench.inject(0, &frame);
    assert!(bench.receive(0).is_none());
    let dropped = 40 - RING_FRAMES;
    assert_eq!(bench.queues[0].counters().dropped, dropped as u64);
    assert_eq!(bench.queues[0].take_moved(), Moved { passed_on: 41, dropped, carried: 0 });
    assert_eq!(bench.receive(2).map(|frame| number(&frame)), Some(99));
    let got: Vec<_> = std::iter::from_fn(|| bench.receive(1)).map(|frame| number(&frame)).collect();
    assert_eq!(got, (0..RING_FRAMES as u32).collect::<Vec<_>>());
}

#[test]
fn a_turn_takes_no_more_than_its_share_from_a_source_and_rings_come_between() {
    let mut bench = Bench::new(2, 2, 200);
    let own = (40_000..).find(|peer| bench.segment(*peer, 0).1 == 0).unwrap();
    for at in 0..100 {
        let frame = bench.segment(own, at).0;
        bench.inject(0, &frame);
    }
    // Two frames that came to the wrong queue.
    for at in [500, 501] {
        let frame = bench.segment(own, at).0;
        bench.inject(1, &frame);
    }
    assert!(bench.receive(1).is_none());
    let got: Vec<_> = std::iter::from_fn(|| bench.receive(0)).map(|frame| number(&frame)).collect();
    assert_eq!(got.len(), SOURCE_BUDGET + 2);
    assert_eq!(got[..5], [0, 500, 1, 501, 2]);
    bench.queues[0].flush();
    assert_eq!(std::iter::from_fn(|| bench.receive(0)).count(), 100 - SOURCE_BUDGET);
}

#[test]
fn cores_that_wait_for_the_device_share_it() {
    let mut bench = Bench::new(3, 1, 4);
    let mut arrived = [0; 3];
    for _ in 0..300 {
        for core in 0..3 {
            // Each has more to say than the device takes.
            for _ in 0..8 {
                bench.transmit(core, &[core as u8; 60]);
            }
            bench.queues[core].flush();
        }
        while let Some(core) = bench.wires[0].halves().0.receive(|frame| frame[0]) {
            arrived[usize::from(core)] += 1;
        }
        bench.wires[0].flush();
    }
    let share = arrived.iter().sum::<i32>() / 3;
    assert!(
        share > 200 && arrived.iter().all(|frames| (share / 2..share * 2).contains(frames)),
        "{arrived:?}"
    );
}

#[test]
fn a_carrier_has_room_for_an_answer_however_many_wait() {
    let mut bench = Bench::new(3, 1, 2);
    for core in [0, 0, 1, 1, 2, 2] {
        assert!(bench.transmit(core, &[core as u8; 60]));
    }
    for core in [1, 2, 0] {
        bench.queues[core].flush();
    }
    // The device was full, so that nothing of the others was carried; now it has taken all that it had.
    assert_eq!(bench.queues[0].counters().carried, 0);
    assert!(bench.queues[0].halves().1.has_room());
}

fn wake(bench: &mut Bench, asleep: &mut [bool], core: usize) {
    if std::mem::take(&mut asleep[core]) {
        bench.queues[core].disarm();
    }
}

/// Cores that sleep whenever they may, in an order at random: nothing stays in a ring for ever, because nobody is left
/// who would look.
#[test]
fn no_wake_up_is_lost() {
    for seed in 1..400u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = move |bound: usize| {
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
        };
        let cores = 2 + below(6);
        let pairs = 1 + below(cores);
        let mut bench = Bench::new(cores, pairs, 64);
        let mut asleep = vec![false; cores];
        let (mut injected, mut received, mut sent, mut arrived) = (0, 0, 0, 0);
        for step in 0..2000 {
            let busy = step < 600;
            if busy && below(8) == 0 {
                let frame = bench.segment(40_000 + below(64) as u16, 0).0;
                let wire = below(pairs);
                bench.inject(wire, &frame);
                injected += 1;
            }
            // The device's interrupt.
            for core in 0..pairs {
                if bench.wires[core].far_end().is_armed() && bench.wires[core].far_end().has_frame() {
                    wake(&mut bench, &mut asleep, core);
                }
            }
            let core = below(cores);
            if asleep[core] {
                continue;
            }
            if busy && below(8) == 0 && bench.transmit(core, &[1; 60]) {
                sent += 1;
            }
            while bench.receive(core).is_some() {
                received += 1;
            }
            bench.queues[core].flush();
            // As the loop of a core does: who has work in a turn does not arm.
            let worked = bench.queues[core].take_moved() != Moved::default();
            if !worked && below(2) == 0 {
                asleep[core] = !bench.queues[core].arm();
                // Another may publish between arming and sleeping: its wake-up comes before the sleep and ends it.
                if !asleep[core] {
                    bench.queues[core].disarm();
                }
            }
            let woken = bench.woken.take();
            woken.into_iter().for_each(|core| wake(&mut bench, &mut asleep, core));
            for wire in &mut bench.wires {
                arrived += std::iter::from_fn(|| wire.halves().0.receive(|_| ())).count();
                wire.flush();
            }
        }
        let dropped: u64 = bench.queues.iter().map(|queue| queue.counters().dropped).sum();
        assert_eq!(
            (received + dropped as usize, arrived),
            (injected, sent),
            "seed {seed}: {cores} cores, {pairs} pairs"
        );
        assert!(asleep.iter().all(|asleep| *asleep), "seed {seed}: {asleep:?}");
    }
}
