//! The bell under the model checker, with a ring of frames behind it. `cargo xtask test loom`.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::{Arena, FrameConsumer, FrameProducer, frame_ring, frame_ring_bytes};

/// A ring of its own for each execution of a model; its memory is never freed.
fn ring() -> (FrameProducer, FrameConsumer) {
    frame_ring(&mut Arena::leak_for_host(frame_ring_bytes(2, 8)), 2, 8).unwrap()
}

fn put(producer: &mut FrameProducer, value: u8) {
    assert!(producer.push(1, |place| place.fill(value), |_| 0).is_ok());
    assert!(producer.publish());
}

fn count(consumer: &mut FrameConsumer) -> usize {
    core::iter::from_fn(|| consumer.pop(|_, _| ())).count()
}

#[test]
fn whoever_is_named_has_something_and_nothing_is_forgotten() {
    loom::model(|| {
        let bell = Arc::new(Bell::default());
        let (mut producer, mut consumer) = ring();
        let heard = Arc::clone(&bell);
        let sender = thread::spawn(move || {
            for value in 1..3 {
                put(&mut producer, value);
                bell.ring(4);
            }
        });
        let mut received = 0;
        if heard.take() == 1 << 4 {
            received = count(&mut consumer);
            assert!(received > 0, "the frame is seen with the bit");
        }
        sender.join().unwrap();
        if received < 2 {
            assert_eq!(heard.take(), 1 << 4, "what came after the look rings again");
            received += count(&mut consumer);
        }
        assert_eq!(received, 2);
    });
}

#[test]
fn two_that_ring_at_once_are_both_named() {
    loom::model(|| {
        let bell = Arc::new(Bell::default());
        let others: std::vec::Vec<_> = (0..2)
            .map(|ring| {
                let bell = Arc::clone(&bell);
                thread::spawn(move || bell.ring(ring))
            })
            .collect();
        let first = bell.take();
        others.into_iter().for_each(|other| _ = other.join().unwrap());
        assert_eq!(first | bell.take(), 0b11);
    });
}

#[test]
fn who_sleeps_is_woken() {
    loom::model(|| {
        let bell = Arc::new(Bell::default());
        let rung = Arc::clone(&bell);
        let sender = thread::spawn(move || rung.ring(1));
        let waits = bell.arm();
        let woken = sender.join().unwrap();
        assert!(waits || woken, "asleep while somebody has rung");
    });
}
