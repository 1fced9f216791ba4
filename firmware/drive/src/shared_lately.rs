//! Whether several wanted the same thing a moment ago: then each has its share of it, else the one has all.

use hal_api::Instant;

use crate::limits::SHARED_FOR;

/// Who had something last, and until when it is shared because another had something just before. Whoever wants one thing at
/// a time is between two of them most of the time, and has to count then as well.
#[derive(Debug)]
pub struct SharedLately<T> {
    last: Option<T>,
    until: Instant,
}

impl<T: Copy + PartialEq> SharedLately<T> {
    /// Nobody had anything yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None, until: Instant::ZERO }
    }

    /// `who` has something now.
    pub fn note(&mut self, who: T, now: Instant) {
        if self.last != Some(who) && self.last.replace(who).is_some() {
            self.until = now + SHARED_FOR;
        }
    }

    /// Whether it is shared.
    #[must_use]
    pub fn is_shared(&self, now: Instant) -> bool {
        now < self.until
    }
}

impl<T: Copy + PartialEq> Default for SharedLately<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_alone_shares_with_nobody() {
        let mut shared = SharedLately::new();
        for at_ms in [0, 1, 1000] {
            shared.note(7, Instant::from_millis(at_ms));
            assert!(!shared.is_shared(Instant::from_millis(at_ms)));
        }
    }

    #[test]
    fn two_in_turn_share_until_one_is_alone_for_a_while() {
        let mut shared = SharedLately::new();
        for (who, at_ms) in [(1, 0), (2, 3), (2, 5), (1, 7), (1, 9)] {
            shared.note(who, Instant::from_millis(at_ms));
        }
        // The last change was at 7 ms.
        let until = Instant::from_millis(7) + SHARED_FOR;
        assert!(shared.is_shared(Instant::from_micros(until.as_micros() - 1)));
        assert!(!shared.is_shared(until));
    }
}
