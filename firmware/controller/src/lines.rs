//! How many log lines hosts may cause: whoever connects and breaks off again, or breaks the rules, as fast as he can, does not
//! fill the log. What is said of drives and ports is not limited.

use core::time::Duration;

use hal_api::Instant;
use hal_log::warn;

use crate::subsystem::Subsystem;

/// Lines of a kind that may come at once: more than all controllers of a core that come back at the same time.
const BURST: u32 = 128;
/// Between two lines beyond that.
const PERIOD: Duration = Duration::from_millis(500);
/// Between two lines that say how many were left out.
const TOLD_PERIOD: Duration = Duration::from_secs(10);

/// What lines are about. Each kind has its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// How connections end, and those that find no room.
    Connections,
    /// Connects that are refused.
    Connects,
    /// Controllers that come, go, and are reset.
    Controllers,
}

impl LineKind {
    const ALL: [Self; 3] = [Self::Connections, Self::Connects, Self::Controllers];

    const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Connects => "refused connects",
            Self::Controllers => "controllers",
        }
    }
}

/// The lines of one core.
#[derive(Debug)]
pub(crate) struct Lines {
    limits: [Limit; LineKind::ALL.len()],
}

#[derive(Debug)]
struct Limit {
    /// Lines that may come now.
    left: u32,
    /// When there will be one more, unless there are enough.
    next: Instant,
    /// Lines left out since this was said last.
    left_out: u32,
    next_told: Instant,
}

impl Limit {
    const NEW: Self = Self { left: BURST, next: Instant::ZERO, left_out: 0, next_told: Instant::ZERO };

    fn allows(&mut self, now: Instant) -> bool {
        while self.left < BURST && now >= self.next {
            self.left += 1;
            self.next = self.next + PERIOD;
        }
        if self.left == BURST {
            self.next = now + PERIOD;
        }
        let allows = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.left_out = self.left_out.saturating_add(u32::from(!allows));
        allows
    }

    /// How many were left out, if that is to be said now.
    fn take_left_out(&mut self, now: Instant) -> Option<u32> {
        if self.left_out == 0 || now < self.next_told {
            return None;
        }
        self.next_told = now + TOLD_PERIOD;
        Some(core::mem::take(&mut self.left_out))
    }
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Self { limits: [Limit::NEW; LineKind::ALL.len()] }
    }

    fn of(&mut self, kind: LineKind) -> Option<&mut Limit> {
        self.limits.get_mut(kind as usize)
    }

    /// At each tick.
    pub(crate) fn tell_left_out(&mut self, now: Instant) {
        for kind in LineKind::ALL {
            if let Some(count) = self.of(kind).and_then(|limit| limit.take_left_out(now)) {
                warn!("{} lines about {} were left out: there are too many", count, kind.name());
            }
        }
    }
}

impl Subsystem {
    /// Whether a line that a host has caused may be logged now. One that may not is counted, and the count logged later.
    pub fn may_say(&mut self, kind: LineKind, now: Instant) -> bool {
        self.lines.of(kind).is_some_and(|limit| limit.allows(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, HOST, NQN};

    #[test]
    fn a_flood_of_lines_is_cut_off_and_counted() {
        let mut limit = Limit::NEW;
        let at = |second: u64| Instant::from_millis(second * 1000);
        assert_eq!((0..1000).filter(|_| limit.allows(at(1))).count() as u32, BURST);
        assert_eq!(limit.take_left_out(at(1)), Some(1000 - BURST));
        // What comes later is said as well, if not at once.
        assert_eq!((0..1000).filter(|_| limit.allows(at(4))).count(), 6);
        assert_eq!((limit.take_left_out(at(4)), limit.take_left_out(at(11))), (None, Some(994)));
        assert_eq!(limit.take_left_out(at(30)), None);
        assert_eq!((0..1000).filter(|_| limit.allows(at(1000))).count() as u32, BURST);
    }

    #[test]
    fn hosts_that_come_and_go_do_not_fill_the_log() {
        let mut bench = Bench::empty();
        for _ in 0..1000 {
            let handle = bench.connect(NQN, HOST, 0, 0xffff).unwrap().controller;
            bench.subsystem.disconnect_queue(handle, 0);
            bench.connect("nqn.of-nobody", HOST, 0, 0xffff).unwrap_err();
        }
        let [connections, connects, controllers] = &bench.subsystem.lines.limits;
        assert_eq!(connections.left_out, 0, "they have a limit of their own");
        assert_eq!((connects.left_out, controllers.left_out), (1000 - BURST, 2000 - BURST));
        bench.subsystem.tick(bench.now);
        assert!(bench.subsystem.lines.limits.iter().all(|limit| limit.left_out == 0));
    }
}
