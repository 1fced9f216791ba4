//! The way by which control asks the data cores for their orderly end, and hears that it is over.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

/// Flags of which each side sets its own, once and for good: an end is not taken back, so there is nothing to queue.
#[derive(Debug)]
pub struct OrderlyEnd {
    asked_for: AtomicBool,
    cores: AtomicU8,
    /// A bit for each data core.
    over: AtomicU16,
}

impl OrderlyEnd {
    /// Nobody has asked, and there is one data core.
    #[must_use]
    pub const fn new() -> Self {
        Self { asked_for: AtomicBool::new(false), cores: AtomicU8::new(1), over: AtomicU16::new(0) }
    }

    /// There are so many data cores, 16 at most. Before they run.
    pub fn set_cores(&self, cores: u8) {
        self.cores.store(cores.clamp(1, 16), Ordering::Relaxed);
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

    /// The data core of this number is done. Release: what it has logged until now is there for who sees this.
    pub fn tell_over(&self, core: u8) {
        self.over.fetch_or(1u16.checked_shl(u32::from(core)).unwrap_or(0), Ordering::Release);
    }

    /// Whether all data cores are done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let all = u16::MAX >> (16 - self.cores.load(Ordering::Relaxed));
        self.over.load(Ordering::Acquire) & all == all
    }
}

impl Default for OrderlyEnd {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_all_cores_say_so() {
        for cores in [1, 3, 16] {
            let end = OrderlyEnd::new();
            end.set_cores(cores);
            for core in (0..cores).rev() {
                assert!(!end.is_over());
                end.tell_over(core);
                end.tell_over(core);
            }
            assert!(end.is_over());
        }
    }
}
