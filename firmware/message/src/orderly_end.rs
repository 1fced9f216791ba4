//! The way by which control asks the data cores for their orderly end, and hears that it is over.

use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// What comes after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Then {
    /// The card switches itself off.
    Off,
    /// It starts anew.
    Restart,
}

/// Values of the flag.
const NOBODY: u8 = 0;
const OFF: u8 = 1;
const RESTART: u8 = 2;

/// Flags of which each side sets its own, once and for good: an end is not taken back, so there is nothing to queue.
#[derive(Debug)]
pub struct OrderlyEnd {
    /// [`NOBODY`], or what is to come after it.
    asked_for: AtomicU8,
    cores: AtomicU8,
    /// A bit for each data core.
    over: AtomicU16,
}

impl OrderlyEnd {
    /// Nobody has asked, and there is one data core.
    #[must_use]
    pub const fn new() -> Self {
        Self { asked_for: AtomicU8::new(NOBODY), cores: AtomicU8::new(1), over: AtomicU16::new(0) }
    }

    /// There are so many data cores, 16 at most. Before they run.
    pub fn set_cores(&self, cores: u8) {
        self.cores.store(cores.clamp(1, 16), Ordering::Relaxed);
    }

    /// Control asks. Who has asked first says what comes after it.
    pub fn ask(&self, then: Then) {
        let value = match then {
            Then::Off => OFF,
            Then::Restart => RESTART,
        };
        // Control alone asks: nobody comes between.
        if !self.is_asked_for() {
            self.asked_for.store(value, Ordering::Relaxed);
        }
    }

    /// What comes after the end, where control has asked for it.
    #[must_use]
    pub fn asked_for(&self) -> Option<Then> {
        match self.asked_for.load(Ordering::Relaxed) {
            NOBODY => None,
            RESTART => Some(Then::Restart),
            _ => Some(Then::Off),
        }
    }

    /// Whether control has asked.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.asked_for().is_some()
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
    fn who_asks_first_says_what_comes_after_it() {
        let end = OrderlyEnd::new();
        assert_eq!((end.asked_for(), end.is_asked_for()), (None, false));
        end.ask(Then::Restart);
        end.ask(Then::Off);
        assert_eq!((end.asked_for(), end.is_asked_for()), (Some(Then::Restart), true));
    }

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
