//! What strikes, and when.

use std::time::Duration;

use fastrand::Rng;
use hal_api::Instant;

use crate::settings::Chaos;

/// Something that strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// A host goes away.
    Host,
    /// A cable is cut.
    Cut,
    /// A drive is pulled.
    Removal,
    /// Somebody is at a slot.
    Slot,
    /// Somebody presses the card's power button.
    End,
    /// Something is wrong with a drive for a while.
    Wrong,
    /// A drive turns fatal.
    Fatal,
    /// A drive lies.
    Lie,
    /// A drive becomes slow, or quick again.
    Slow,
    /// The card loses its power.
    Power,
    /// A core pauses.
    Pause,
}

/// The next strike of each kind.
#[derive(Debug)]
pub struct Schedule {
    next: Vec<(Strike, u64, Instant)>,
    random: Rng,
}

impl Schedule {
    /// From the settings, beginning at `now`.
    #[must_use]
    pub fn new(chaos: &Chaos, now: Instant, random: Rng) -> Self {
        let means = [
            (Strike::Host, chaos.host_ms),
            (Strike::Cut, chaos.cut_ms),
            (Strike::Removal, chaos.removal_ms),
            (Strike::Slot, chaos.slot_ms),
            (Strike::End, chaos.end_ms),
            (Strike::Wrong, chaos.wrong_ms),
            (Strike::Fatal, chaos.fatal_ms),
            (Strike::Lie, chaos.lie_ms),
            (Strike::Slow, chaos.slow_ms),
            (Strike::Power, chaos.power_ms),
            (Strike::Pause, chaos.pause_ms),
        ];
        let mut schedule = Self { next: Vec::new(), random };
        for (strike, mean_ms) in means.into_iter().filter(|(_, mean_ms)| *mean_ms > 0) {
            let at = now + schedule.pause(mean_ms);
            schedule.next.push((strike, mean_ms, at));
        }
        schedule
    }

    fn pause(&mut self, mean_ms: u64) -> Duration {
        Duration::from_micros(self.random.u64(0..=2000 * mean_ms))
    }

    /// When the next one strikes.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next.iter().map(|(_, _, at)| *at).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// What strikes now.
    pub fn take(&mut self, now: Instant) -> Option<Strike> {
        let place = self.next.iter().position(|(_, _, at)| *at <= now)?;
        let (strike, mean_ms, _) = self.next[place];
        let at = now + self.pause(mean_ms);
        self.next[place].2 = at;
        Some(strike)
    }

    /// Nothing strikes any more.
    pub fn end(&mut self) {
        self.next.clear();
    }
}
