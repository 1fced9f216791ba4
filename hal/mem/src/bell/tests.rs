//! The bell in ordinary use, and between two threads of which one sleeps.

use std::sync::Arc;

use super::*;
use crate::Arena;

#[test]
fn it_names_who_rang_once() {
    let bell = Bell::default();
    assert!(!bell.has_rung() && bell.take() == 0);
    assert!(!bell.ring(0) && !bell.ring(31) && !bell.ring(0));
    assert!(bell.has_rung());
    assert_eq!((bell.take(), bell.take()), (1 << 31 | 1, 0));
    assert!(!bell.ring(Bell::RINGS) && !bell.has_rung(), "there is no such ring");
}

#[test]
fn who_rings_is_told_whether_the_core_sleeps() {
    let bell = Bell::default();
    assert!(!bell.arm() && bell.ring(3) && bell.arm());
    bell.disarm();
    assert!(!bell.ring(3));
    assert_eq!(bell.take(), 8);
}

#[test]
fn two_threads_ring_and_the_sleeper_hears_all() {
    const VALUES: u32 = 20_000;
    let bell = Arc::new(Bell::default());
    let rings: Vec<_> =
        (0..2).map(|_| Arena::leak_for_host(1 << 16).ring::<u32, 8>().unwrap().split()).collect();
    let (producers, mut consumers): (Vec<_>, Vec<_>) = rings.into_iter().unzip();
    let heard = Arc::clone(&bell);
    let receiver = std::thread::spawn(move || {
        let mut next = [0; 2];
        while next != [VALUES; 2] {
            let rung = heard.take();
            for (ring, consumer) in consumers.iter_mut().enumerate().filter(|(ring, _)| rung >> ring & 1 == 1)
            {
                while let Some(value) = consumer.pop() {
                    assert_eq!(value, next[ring]);
                    next[ring] += 1;
                }
            }
            if rung == 0 && next != [VALUES; 2] && !heard.arm() {
                // Only the other threads end this.
                std::thread::park();
            }
            heard.disarm();
        }
    });
    std::thread::scope(|scope| {
        for (ring, mut producer) in producers.into_iter().enumerate() {
            let (bell, receiver) = (&bell, receiver.thread());
            scope.spawn(move || {
                for value in 0..VALUES {
                    while producer.push(value).is_err() {
                        std::thread::yield_now();
                    }
                    if bell.ring(ring) {
                        receiver.unpark();
                    }
                }
            });
        }
    });
    receiver.join().unwrap();
}
