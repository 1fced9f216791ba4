//! The ring under the model checker: every order in which the two cores' accesses can be seen. `cargo xtask test loom`.
//!
//! loom's cells fail where two threads could touch a slot at once, and its `Arc`s where a value is dropped twice or never.

use std::boxed::Box;

use loom::sync::Arc;
use loom::thread;

use super::*;

/// A ring that both threads reach for as long as they need it.
fn shared<T: Send + 'static, const N: usize>()
-> (Producer<'static, T, N>, Consumer<'static, T, N>, Keeper<T, N>) {
    let ring = Box::into_raw(Box::new(Ring::<T, N>::new()));
    // SAFETY: fresh from a box; `Keeper` frees it when both threads have ended.
    let (producer, consumer) = unsafe { &mut *ring }.split();
    (producer, consumer, Keeper(ring))
}

struct Keeper<T, const N: usize>(*mut Ring<T, N>);

impl<T, const N: usize> Drop for Keeper<T, N> {
    fn drop(&mut self) {
        // SAFETY: made from a box in `shared`; the tests drop the ends and join the threads before.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

#[test]
fn what_arrives_is_what_was_sent() {
    loom::model(|| {
        let (mut producer, mut consumer, keeper) = shared::<Arc<usize>, 2>();
        let sender = thread::spawn(move || {
            let mut refused = 0;
            for value in 0..3 {
                refused += usize::from(producer.push(Arc::new(value)).is_err());
            }
            refused
        });
        let mut received = std::vec::Vec::new();
        for _ in 0..3 {
            received.extend(consumer.pop().map(|value| *value));
        }
        let refused = sender.join().unwrap();
        received.extend(core::iter::from_fn(|| consumer.pop()).map(|value| *value));
        assert_eq!(received.len() + refused, 3);
        assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
        drop(consumer);
        drop(keeper);
    });
}

#[test]
fn a_slot_is_used_again_only_when_it_is_empty() {
    loom::model(|| {
        let (mut producer, mut consumer, keeper) = shared::<Arc<usize>, 1>();
        let sender = thread::spawn(move || {
            for value in 0..2 {
                let mut value = Arc::new(value);
                while let Err(back) = producer.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..2 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        sender.join().unwrap();
        drop(consumer);
        drop(keeper);
    });
}

#[test]
fn what_was_not_taken_out_is_dropped_with_the_ring() {
    loom::model(|| {
        let (mut producer, mut consumer, keeper) = shared::<Arc<usize>, 4>();
        let sender = thread::spawn(move || {
            for value in 0..2 {
                assert!(producer.push(Arc::new(value)).is_ok());
            }
        });
        drop(consumer.pop());
        sender.join().unwrap();
        drop(consumer);
        drop(keeper);
    });
}
