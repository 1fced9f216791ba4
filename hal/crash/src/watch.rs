//! The watchdog's judgement: a core that made no progress for a number of looks in a row is stuck.
//!
//! Looks are counted, not time: a machine that was paused or starved finds one look due when it runs again, and not the
//! many that it has missed.

/// Looks, a second apart, after which a core without progress is stuck.
pub const STUCK_LOOKS: u32 = 5;
/// The same for the first core before its loop has begun: devices take their time.
pub const BOOT_LOOKS: u32 = 60;
/// Looks after which a core whose own watchdog does not look any more is taken for lost by its neighbour.
pub const BUDDY_LOOKS: u32 = 20;
/// How long after its alarm a core may sleep on, in microseconds.
const OVERSLEEP_US: u64 = 2_000_000;

/// What a look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// A count that moves when the core makes progress.
    pub count: u32,
    /// Until when it sleeps, in microseconds; 0 where it is awake.
    pub asleep_until_us: u64,
    /// Now.
    pub now_us: u64,
}

/// What the looks at one core have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// The count at the last look.
    pub count: u32,
    /// Looks in a row without progress.
    pub still: u32,
}

impl Look {
    /// One look more.
    #[must_use]
    pub const fn next(self, sample: Sample) -> Self {
        let asleep = sample.asleep_until_us != 0
            && sample.now_us <= sample.asleep_until_us.saturating_add(OVERSLEEP_US);
        let still = if sample.count != self.count || asleep { 0 } else { self.still.saturating_add(1) };
        Self { count: sample.count, still }
    }

    /// In one number, for an atomic.
    #[must_use]
    pub const fn packed(self) -> u64 {
        (self.still as u64) << 32 | self.count as u64
    }

    /// Out of [`Look::packed`].
    #[must_use]
    pub const fn unpacked(packed: u64) -> Self {
        Self { count: packed as u32, still: (packed >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(samples: &[(u32, u64, u64)]) -> Look {
        samples.iter().fold(Look::default(), |look, (count, asleep_until_us, now_us)| {
            let next =
                look.next(Sample { count: *count, asleep_until_us: *asleep_until_us, now_us: *now_us });
            Look::unpacked(next.packed())
        })
    }

    #[test]
    fn a_core_without_progress_is_counted_and_progress_begins_anew() {
        assert_eq!(looks(&[(1, 0, 1), (1, 0, 2), (1, 0, 3), (1, 0, 4)]).still, 3);
        assert_eq!(looks(&[(1, 0, 1), (1, 0, 2), (2, 0, 3), (2, 0, 4)]).still, 1);
    }

    #[test]
    fn a_pause_counts_as_one_look() {
        assert_eq!(looks(&[(1, 0, 1), (1, 0, 1_000_000_000)]).still, 1);
    }

    #[test]
    fn sleep_is_no_fault_until_its_alarm_is_long_past() {
        assert_eq!(looks(&[(1, u64::MAX, 1), (1, u64::MAX, u64::MAX)]).still, 0);
        let late = OVERSLEEP_US + 11;
        assert_eq!(looks(&[(1, 10, 5), (1, 10, late - 1), (1, 10, late), (1, 10, late + 1)]).still, 2);
    }
}
