//! How a core's time is spent, for control to look at.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What one core has counted since the start. The core alone writes it; whoever reads it may find one number a turn older
/// than another.
#[derive(Debug, Default)]
#[repr(align(128))] // A line of its own, so that nobody who counts waits for another.
pub struct CoreMeter {
    productive: AtomicU64,
    empty: AtomicU64,
    sleeps: AtomicU64,
    asleep_us: AtomicU64,
    longest_turn_us: AtomicU32,
}

/// What a meter shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreReading {
    /// Turns in which some role had work.
    pub productive: u64,
    /// Turns in which none had.
    pub empty: u64,
    /// How often the core slept.
    pub sleeps: u64,
    /// For how long, in microseconds.
    pub asleep_us: u64,
    /// The longest turn, in microseconds.
    pub longest_turn_us: u32,
}

impl CoreMeter {
    /// A meter of a core that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            productive: AtomicU64::new(0),
            empty: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            asleep_us: AtomicU64::new(0),
            longest_turn_us: AtomicU32::new(0),
        }
    }

    /// A turn is over.
    pub fn note_turn(&self, had_work: bool) {
        add(if had_work { &self.productive } else { &self.empty }, 1);
    }

    /// A turn took so long.
    pub fn note_length(&self, took_us: u64) {
        let took_us = u32::try_from(took_us).unwrap_or(u32::MAX);
        if took_us > self.longest_turn_us.load(Ordering::Relaxed) {
            self.longest_turn_us.store(took_us, Ordering::Relaxed);
        }
    }

    /// The core has slept for so long.
    pub fn note_sleep(&self, took_us: u64) {
        add(&self.sleeps, 1);
        add(&self.asleep_us, took_us);
    }

    /// What it shows now.
    #[must_use]
    pub fn read(&self) -> CoreReading {
        CoreReading {
            productive: self.productive.load(Ordering::Relaxed),
            empty: self.empty.load(Ordering::Relaxed),
            sleeps: self.sleeps.load(Ordering::Relaxed),
            asleep_us: self.asleep_us.load(Ordering::Relaxed),
            longest_turn_us: self.longest_turn_us.load(Ordering::Relaxed),
        }
    }
}

/// Only the owner writes: a read and a write are enough.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}
