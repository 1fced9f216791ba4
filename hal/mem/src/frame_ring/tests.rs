//! The ring of frames in ordinary use: order, borders, notes, publication, and two threads.

use super::*;

fn ring(frames: usize, frame_bytes: usize) -> (FrameProducer, FrameConsumer) {
    let bytes = frame_ring_bytes(frames, frame_bytes);
    frame_ring(&mut Arena::leak_for_host(bytes), frames, frame_bytes).unwrap()
}

fn push(producer: &mut FrameProducer, frame: &[u8], note: u32) -> bool {
    producer.push(frame.len(), |place| place.copy_from_slice(frame), |_| note).is_ok()
}

fn pop(consumer: &mut FrameConsumer) -> Option<(Vec<u8>, u32)> {
    consumer.pop(|frame, note| (frame.to_vec(), note))
}

#[test]
fn frames_come_out_in_order_with_their_notes_and_a_full_ring_takes_none() {
    let (mut producer, mut consumer) = ring(4, 100);
    assert_eq!(pop(&mut consumer), None);
    for round in 0..50u32 {
        for index in 0..4 {
            assert!(push(&mut producer, &vec![index as u8; round as usize * 2], round << 16 | index));
        }
        assert!(!producer.has_room() && !push(&mut producer, &[1], 0));
        assert!(!consumer.has_frame(), "not published");
        assert!(producer.publish() && !producer.publish());
        for index in 0..4 {
            let expected = (vec![index as u8; round as usize * 2], round << 16 | index);
            assert_eq!(pop(&mut consumer), Some(expected));
        }
        assert_eq!(pop(&mut consumer), None);
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_and_the_longest_fits() {
    let (mut producer, mut consumer) = ring(3, 1518);
    assert!(!push(&mut producer, &[7; 1519], 0) && !push(&mut producer, &[7; 70_000], 0));
    assert!((0..4).all(|_| push(&mut producer, &[7; 1518], 9)), "three become four");
    let _ = producer.publish();
    assert_eq!(pop(&mut consumer), Some((vec![7; 1518], 9)));
    let (mut producer, _) = ring(1, 1 << 17);
    assert!(!push(&mut producer, &[7; 1 << 16], 0) && push(&mut producer, &[7; 65_535], 0));
}

#[test]
fn the_note_is_made_of_the_finished_frame() {
    let (mut producer, mut consumer) = ring(1, 64);
    let note = |frame: &mut [u8]| {
        frame[1] = 5;
        u32::from(frame[0])
    };
    assert!(producer.push(2, |place| place.copy_from_slice(&[3, 4]), note).is_ok());
    let _ = producer.publish();
    assert_eq!(pop(&mut consumer), Some((vec![3, 5], 3)));
}

#[test]
fn positions_wrap_at_the_end_of_their_range() {
    let (mut producer, mut consumer) = ring(2, 64);
    let start = usize::MAX - 2;
    producer.shared.tail.0.store(start, Ordering::Relaxed);
    producer.shared.head.0.store(start, Ordering::Relaxed);
    (producer.tail, producer.published, producer.head_seen) = (start, start, start);
    (consumer.head, consumer.tail_seen) = (start, start);
    for round in 0..10 {
        assert!(push(&mut producer, &[round], 0) && push(&mut producer, &[100 + round], 0));
        assert!(!push(&mut producer, &[0], 0) && producer.publish());
        assert_eq!(
            [pop(&mut consumer), pop(&mut consumer)].map(|frame| frame.unwrap().0[0]),
            [round, 100 + round]
        );
    }
}

#[test]
fn too_little_memory_is_an_error() {
    assert!(frame_ring(&mut Arena::leak_for_host(4096), 8, 1518).is_err());
}

#[test]
fn two_threads_pass_frames() {
    const FRAMES: u32 = 20_000;
    let (mut producer, mut consumer) = ring(8, 256);
    let receiver = std::thread::spawn(move || {
        let mut next = 0;
        while next < FRAMES {
            let popped = consumer.pop(|frame, note| {
                assert_eq!(note, next);
                assert!(frame.len() == next as usize % 200 && frame.iter().all(|byte| *byte == next as u8));
            });
            if popped.is_some() {
                next += 1;
            } else {
                std::thread::yield_now();
            }
        }
    });
    for number in 0..FRAMES {
        while !push(&mut producer, &vec![number as u8; number as usize % 200], number) {
            std::thread::yield_now();
        }
        assert!(producer.publish());
    }
    receiver.join().unwrap();
}
