//! The way by which control asks a data core for its orderly end, and hears that it is over.

use core::sync::atomic::{AtomicBool, Ordering};

/// Two flags, of which each side sets one, once and for good: an end is not taken back, so there is nothing to queue.
#[derive(Debug, Default)]
pub struct OrderlyEnd {
    asked_for: AtomicBool,
    over: AtomicBool,
}

impl OrderlyEnd {
    /// Nobody has asked.
    #[must_use]
    pub const fn new() -> Self {
        Self { asked_for: AtomicBool::new(false), over: AtomicBool::new(false) }
    }

    /// Control asks.
    pub fn ask(&self) {
        self.asked_for.store(true, Ordering::Relaxed);
    }

    /// Whether control has asked.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.asked_for.load(Ordering::Relaxed)
    }

    /// The data core is done. Release: what it has logged until now is there for who sees this.
    pub fn tell_over(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether the data core is done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}
