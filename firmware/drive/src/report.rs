//! Counters in the log: one line when something has moved, not one for each command.

use core::time::Duration;

use hal_api::Instant;

use crate::events::DriveCounters;
use crate::limits::{COUNTERS_FIRST, COUNTERS_INTERVAL};
use crate::name::Name;

/// What the log was told last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Report {
    told: [u64; 10],
    /// When something was seen to have moved.
    moved_at: Option<Instant>,
    last_at: Option<Instant>,
    look_at: Instant,
}

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(100);

impl Report {
    /// Whether the counters are to be looked at now. Asked in every turn.
    pub fn looks(&self, now: Instant) -> bool {
        now >= self.look_at
    }

    /// What is to be told now. A line waits a moment for what belongs to it, and for a while after the last one.
    fn due(&mut self, counters: &DriveCounters, now: Instant) -> Option<[u64; 10]> {
        self.look_at = now + LOOK;
        let values = values(counters);
        if values == self.told {
            return None;
        }
        let moved_at = *self.moved_at.get_or_insert(now);
        let early = self.last_at.is_some_and(|last| now < last + COUNTERS_INTERVAL);
        if early || now < moved_at + COUNTERS_FIRST {
            return None;
        }
        (self.told, self.moved_at, self.last_at) = (values, None, Some(now));
        Some(values)
    }
}

/// Those counters that should not move; that of busy moves under load, and is told with the others.
const fn values(counters: &DriveCounters) -> [u64; 10] {
    [
        counters.command_timeouts,
        counters.aborted,
        counters.request_timeouts,
        counters.resets,
        counters.unknown_completions,
        counters.media_errors,
        counters.other_errors,
        counters.lost_caches,
        counters.failures,
        counters.events,
    ]
}

impl Report {
    /// Says what has been counted, where something has moved.
    pub fn tell(&mut self, name: Name, counters: &DriveCounters, now: Instant) {
        let Some(values) = self.due(counters, now) else { return };
        let [late, aborted, timeouts, resets, unknown, media, other, lost, failures, events] = values;
        hal_log::info!(
            "drive {}: counters: late {}, aborted {}, requests timed out {}, resets {}, unknown {}, media errors {}, other errors {}, lost caches {}, failures {}, events {}, requests refused as busy {}",
            name.as_str(),
            late,
            aborted,
            timeouts,
            resets,
            unknown,
            media,
            other,
            lost,
            failures,
            events,
            counters.busy
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_waits_for_its_companions_and_never_comes_often() {
        let mut report = Report::default();
        let mut counters = DriveCounters::default();
        let mut lines = Vec::new();
        for millis in 0..30_000 {
            counters.commands += 1;
            // A burst in the first second, then one each second.
            if (5000..5500).contains(&millis) || (millis > 20_000 && millis % 1000 == 0) {
                counters.media_errors += 1;
            }
            if report.looks(Instant::from_millis(millis))
                && let Some(values) = report.due(&counters, Instant::from_millis(millis))
            {
                lines.push((millis / 1000, values[5]));
            }
        }
        assert_eq!(lines, [(6, 500), (22, 502)]);
    }

    #[test]
    fn a_request_that_timed_out_is_told_and_load_alone_is_not() {
        let mut report = Report::default();
        let mut counters = DriveCounters { busy: 1, ..DriveCounters::default() };
        let at = |seconds: u64| Instant::from_millis(seconds * 1000);
        assert!((0..30).all(|seconds| report.due(&counters, at(seconds)).is_none()));
        counters.request_timeouts = 1;
        assert!((30..33).any(|seconds| report.due(&counters, at(seconds)).is_some()));
    }
}
