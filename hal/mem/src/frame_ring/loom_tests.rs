//! The ring of frames under the model checker. `cargo xtask test loom`.
//!
//! loom's cells fail where two threads could touch a slot at once.

use loom::thread;

use super::*;

/// A ring of its own for each execution of a model; its memory is never freed.
fn ring(frames: usize) -> (FrameProducer, FrameConsumer) {
    frame_ring(&mut Arena::leak_for_host(frame_ring_bytes(frames, 8)), frames, 8).unwrap()
}

fn push(producer: &mut FrameProducer, value: u8) -> bool {
    producer.push(1, |place| place.fill(value), |_| u32::from(value)).is_ok()
}

fn pop(consumer: &mut FrameConsumer) -> Option<u8> {
    consumer.pop(|frame, note| {
        assert_eq!(frame.iter().map(|byte| u32::from(*byte)).sum::<u32>(), note);
        note as u8
    })
}

#[test]
fn what_arrives_is_what_was_sent() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            let mut refused = 0;
            for value in 1..4 {
                refused += usize::from(!push(&mut producer, value));
                let _ = producer.publish();
            }
            refused
        });
        let mut received: std::vec::Vec<u8> = (0..3).filter_map(|_| pop(&mut consumer)).collect();
        let refused = sender.join().unwrap();
        received.extend(core::iter::from_fn(|| pop(&mut consumer)));
        assert_eq!(received.len() + refused, 3);
        assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
    });
}

#[test]
fn a_slot_is_used_again_only_when_it_was_read() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(1);
        let sender = thread::spawn(move || {
            for value in 1..3 {
                while !push(&mut producer, value) {
                    thread::yield_now();
                }
                let _ = producer.publish();
            }
        });
        for expected in 1..3 {
            let value = loop {
                match pop(&mut consumer) {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(value, expected);
        }
        sender.join().unwrap();
    });
}
