//! A split virtqueue against the model of its other side, rule-breaking included.

use hal_api::DeviceAddress;
use hal_mem::DmaRegion;

use super::*;
use crate::virtio::model::{ModelQueue, Random};

const ENTRIES: u16 = 8;

/// A queue and the device's side of it, with buffers of 64 bytes.
fn pair(event_index: bool, start: u16) -> (SplitQueue, ModelQueue, DmaRegion) {
    let memory = DmaRegion::leak_for_host(SplitQueue::memory_bytes(ENTRIES));
    let queue = SplitQueue::starting_at(memory, ENTRIES, event_index, start).unwrap();
    let model = ModelQueue::new(&queue, event_index, start);
    (queue, model, DmaRegion::leak_for_host(64 * usize::from(ENTRIES)))
}

fn post(queue: &mut SplitQueue, buffers: &DmaRegion, id: u16) {
    let address = DeviceAddress(buffers.device_address().0 + 64 * u64::from(id));
    queue.post(id, address, 64, Access::Write);
}

#[test]
fn device_sees_buffers_only_when_published() {
    let (mut queue, mut model, buffers) = pair(true, 0);
    post(&mut queue, &buffers, 3);
    assert!(model.fetch().is_none());
    assert!(queue.publish());
    let held = model.fetch().unwrap();
    assert_eq!((held.id, held.bytes, held.writable), (3, 64, true));
    assert!(queue.take().is_none());
    model.complete(3, 60);
    assert_eq!(queue.take(), Some(Used { id: 3, bytes: 60 }));
    assert!(queue.take().is_none());
    assert!(!queue.publish(), "nothing new");
}

#[test]
fn notifies_exactly_when_the_event_index_is_passed() {
    for start in [0u16, 65_526, 65_530, 65_534, 65_535] {
        for batch in 1..=ENTRIES {
            for distance in 0..32u16 {
                let (mut queue, mut model, buffers) = pair(true, start);
                let event = start.wrapping_sub(16).wrapping_add(distance);
                model.set_available_event(event);
                for id in 0..batch {
                    post(&mut queue, &buffers, id);
                }
                let wanted = (0..batch).any(|at| start.wrapping_add(at) == event);
                assert_eq!(queue.publish(), wanted, "start {start}, batch {batch}, event {event}");
                assert_eq!(model.fetch_all().len(), usize::from(batch));
            }
        }
    }
}

#[test]
fn notifies_by_flag_without_event_index() {
    let (mut queue, mut model, buffers) = pair(false, 65_535);
    model.set_no_notify(true);
    post(&mut queue, &buffers, 0);
    assert!(!queue.publish());
    model.set_no_notify(false);
    post(&mut queue, &buffers, 1);
    assert!(queue.publish());
}

#[test]
fn interrupts_come_when_armed_and_only_then() {
    for event_index in [true, false] {
        for start in [0, 65_533] {
            let (mut queue, mut model, buffers) = pair(event_index, start);
            for id in 0..5 {
                post(&mut queue, &buffers, id);
            }
            let _ = queue.publish();
            model.fetch_all();
            assert!(!model.complete(0, 1), "off at first");
            assert!(queue.arm(), "one waits already");
            queue.disarm();
            assert!(queue.take().is_some());
            assert!(!queue.arm());
            assert!(model.complete(1, 1), "armed");
            assert!(queue.take().is_some());
            queue.disarm();
            assert!(!model.complete(2, 1), "off again");
            assert!(!model.complete(3, 1));
        }
    }
}

#[test]
fn indices_wrap_under_random_traffic() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for event_index in [true, false] {
        let (mut queue, mut model, buffers) = pair(event_index, 65_530);
        let mut free: Vec<u16> = (0..ENTRIES).collect();
        let mut held = Vec::new();
        let mut passed = 0u32;
        while passed < 140_000 {
            match random.below(4) {
                0 if !free.is_empty() => {
                    let id = free.swap_remove(random.below(free.len()));
                    post(&mut queue, &buffers, id);
                }
                1 => {
                    let _ = queue.publish();
                    held.extend(model.fetch_all());
                }
                2 if !held.is_empty() => {
                    let buffer = held.swap_remove(random.below(held.len()));
                    model.complete(buffer.id, u32::from(buffer.id));
                }
                _ => {
                    while let Some(used) = queue.take() {
                        assert_eq!(used.bytes, u32::from(used.id));
                        free.push(used.id);
                        passed += 1;
                    }
                }
            }
            assert_eq!(queue.fault(), None);
        }
    }
}

/// A queue of which descriptors 0 to 3 are with the device, 4 is posted only, and the device has returned 0.
fn half_full(start: u16) -> (SplitQueue, ModelQueue) {
    let (mut queue, mut model, buffers) = pair(true, start);
    for id in 0..4 {
        post(&mut queue, &buffers, id);
    }
    let _ = queue.publish();
    model.fetch_all();
    post(&mut queue, &buffers, 4);
    model.complete(0, 64);
    assert!(queue.take().is_some());
    (queue, model)
}

#[test]
fn hostile_used_entries_break_the_queue_and_nothing_else() {
    let cases = [
        (1, 65, QueueFault::TooLong),
        (1, u32::MAX, QueueFault::TooLong),
        (u32::from(ENTRIES), 0, QueueFault::UnknownDescriptor),
        (0x1_0001, 0, QueueFault::UnknownDescriptor),
        (u32::MAX, 0, QueueFault::UnknownDescriptor),
        (0, 0, QueueFault::NotOutstanding),
        (4, 0, QueueFault::NotOutstanding),
        (7, 0, QueueFault::NotOutstanding),
    ];
    for start in [0, 65_533] {
        for (id, bytes, fault) in cases {
            let (mut queue, mut model) = half_full(start);
            model.put_used(id, bytes);
            assert_eq!(queue.take(), None);
            assert_eq!(queue.fault(), Some(fault));
            assert!(!queue.has_used() && !queue.publish() && !queue.arm());
        }
    }
}

#[test]
fn used_index_beyond_what_the_device_has_breaks_the_queue() {
    // Three are with the device: the posted one is not, and going back is going far ahead.
    for ahead in [4, 5, 9, 0x8000, 0xffff] {
        let (mut queue, mut model) = half_full(65_534);
        model.set_used_index(65_535u16.wrapping_add(ahead));
        assert!(!queue.has_used());
        assert_eq!(queue.fault(), Some(QueueFault::IndexTooFar));
    }
    let (mut queue, mut model) = half_full(65_534);
    model.put_used(1, 0);
    model.put_used(1, 0);
    assert!(queue.take().is_some());
    assert!(queue.take().is_none(), "the same buffer twice");
    assert_eq!(queue.fault(), Some(QueueFault::NotOutstanding));
}

#[test]
fn refuses_sizes_that_are_no_queue() {
    let memory = || DmaRegion::leak_for_host(SplitQueue::memory_bytes(512));
    assert!(SplitQueue::new(memory(), 0, true).is_none());
    assert!(SplitQueue::new(memory(), 12, true).is_none());
    assert!(SplitQueue::new(memory(), 512, true).is_none());
    assert!(SplitQueue::new(DmaRegion::leak_for_host(100), 256, true).is_none());
    assert!(SplitQueue::new(memory(), 1, true).is_some());
}
