//! A counter's ticks as microseconds and back: the arithmetic of the generic timer, apart from its registers.

use core::num::NonZero;

/// How fast a counter runs. Both ways use the same fraction, so that they agree however long the card has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickRate {
    /// Microseconds per tick, as a fraction of 2^32.
    micros_per_tick: NonZero<u64>,
}

const FRACTION_BITS: u32 = 32;

impl TickRate {
    /// The rate of a counter with this many ticks in a second; 1 where the counter says 0.
    #[must_use]
    pub const fn of(frequency_hz: u64) -> Self {
        let frequency_hz = if frequency_hz == 0 { 1 } else { frequency_hz };
        let micros_per_tick = match NonZero::new((1_000_000 << FRACTION_BITS) / frequency_hz) {
            Some(fraction) => fraction,
            None => NonZero::<u64>::MIN,
        };
        Self { micros_per_tick }
    }

    /// Microseconds that `ticks` take, rounded down.
    #[inline]
    #[must_use]
    pub const fn micros(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.micros_per_tick.get() as u128) >> FRACTION_BITS) as u64
    }

    /// The first tick at which [`TickRate::micros`] has reached `micros`; all ones where that is out of range.
    #[must_use]
    pub fn ticks_until(self, micros: u64) -> u64 {
        let micros_per_tick = NonZero::<u128>::from(self.micros_per_tick);
        let wanted = u128::from(micros) << FRACTION_BITS;
        // 96 bits at most, so that rounding up does not overflow.
        let ticks = (wanted + (micros_per_tick.get() - 1)) / micros_per_tick;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_neither_early_nor_late_after_years() {
        const YEAR: u64 = 365 * 86_400 * 1_000_000;
        for hz in [1_000_000_000, 62_500_000, 54_000_000, 24_000_000, 19_200_000, 1_000_000, 32_768, 1] {
            let rate = TickRate::of(hz);
            for micros in [0, 1, 7, 999_999, 86_400_000_003, YEAR + 1, 10 * YEAR + 12_345] {
                let tick = rate.ticks_until(micros);
                assert!(rate.micros(tick) >= micros, "early: {hz} Hz, {micros}");
                assert!(tick == 0 || rate.micros(tick - 1) < micros, "late: {hz} Hz, {micros}");
            }
        }
    }

    #[test]
    fn impossible_frequencies_and_moments_are_taken() {
        assert_eq!(TickRate::of(0), TickRate::of(1));
        assert!(TickRate::of(u64::MAX).micros(u64::MAX) > 0);
        assert_eq!(TickRate::of(1_000_000).micros(5), 5);
        assert_eq!(TickRate::of(1_000_000_000).ticks_until(u64::MAX), u64::MAX);
    }
}
