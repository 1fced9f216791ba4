//! The ring in ordinary use: order, borders, ownership, and two threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn values_come_out_in_order_and_a_full_ring_gives_them_back() {
    let mut ring = Ring::<u32, 4>::new();
    let (mut producer, mut consumer) = ring.split();
    assert_eq!(consumer.pop(), None);
    for round in 0..100 {
        assert!(consumer.is_empty());
        for value in 0..4 {
            assert!(producer.has_room());
            assert_eq!(producer.push(round * 4 + value), Ok(()));
        }
        assert!(!producer.has_room());
        assert_eq!(producer.push(7), Err(7));
        for value in 0..4 {
            assert!(!consumer.is_empty());
            assert_eq!(consumer.pop(), Some(round * 4 + value));
        }
        assert_eq!(consumer.pop(), None);
    }
}

#[test]
fn a_ring_of_one_place_works() {
    let mut ring = Ring::<&str, 1>::new();
    let (mut producer, mut consumer) = ring.split();
    assert_eq!((producer.push("one"), producer.push("two")), (Ok(()), Err("two")));
    assert_eq!((consumer.pop(), producer.push("two"), consumer.pop()), (Some("one"), Ok(()), Some("two")));
}

#[test]
fn positions_wrap_at_the_end_of_their_range() {
    let mut ring = Ring::<usize, 4>::new();
    ring.tail.0.store(usize::MAX - 1, Ordering::Relaxed);
    ring.head.0.store(usize::MAX - 1, Ordering::Relaxed);
    let (mut producer, mut consumer) = ring.split();
    for value in 0..20 {
        assert_eq!(producer.push(value), Ok(()));
        assert_eq!(producer.push(100 + value), Ok(()));
        assert_eq!((consumer.pop(), consumer.pop()), (Some(value), Some(100 + value)));
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_value_is_dropped_once_taken_out_or_not() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut ring = Ring::<Counted, 4>::new();
    let (mut producer, mut consumer) = ring.split();
    for _ in 0..5 {
        let _ = producer.push(Counted(Arc::clone(&dropped)));
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 1, "the one that did not fit");
    drop(consumer.pop());
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    let (_, mut consumer) = ring.split();
    drop(consumer.pop());
    assert_eq!(dropped.load(Ordering::Relaxed), 3, "what was in the ring stays in it when it is split again");
    drop(ring);
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
}

#[test]
fn the_two_ends_share_no_cache_line() {
    let ring = Ring::<u8, 2>::new();
    let [tail, head] = [&raw const ring.tail, &raw const ring.head].map(|place| place as usize);
    assert!(tail.is_multiple_of(128) && head.is_multiple_of(128) && tail.abs_diff(head) >= 128);
}

#[test]
fn two_threads_pass_every_value_in_order() {
    const COUNT: u64 = 200_000;
    let mut ring = Ring::<Box<u64>, 8>::new();
    let (mut producer, mut consumer) = ring.split();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for value in 0..COUNT {
                let mut value = Box::new(value);
                while let Err(back) = producer.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            match consumer.pop() {
                Some(value) => {
                    assert_eq!(*value, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        assert!(consumer.pop().is_none());
    });
}
