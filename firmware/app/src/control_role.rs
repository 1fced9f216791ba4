//! Role `control`, as far as there is one: log bytes move from the cores' rings to the operator's line.

use core::time::Duration;

use dataplane::Role;
use hal_api::Instant;

/// How often the line is looked at while it has more to take than fits into its FIFO.
const LINE_INTERVAL: Duration = Duration::from_millis(1);
/// How often the rings are looked at although no core has signalled.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The control role over the board's way of moving log bytes on.
pub struct ControlRole<P> {
    pump: P,
    busy: bool,
}

impl<P: FnMut() -> LineState> ControlRole<P> {
    /// `pump` moves as many bytes as the line takes now, without waiting.
    pub fn new(pump: P) -> Self {
        Self { pump, busy: false }
    }

    /// Whether the line has taken all that there was at the last look.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.busy
    }
}

/// What a look at the line has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// Nothing is left to move.
    Idle,
    /// The line has taken what it could; more is waiting.
    Full,
}

impl<P: FnMut() -> LineState> Role for ControlRole<P> {
    fn poll(&mut self, _now: Instant, _budget: u32) -> u32 {
        self.busy = (self.pump)() == LineState::Full;
        // A full line is not work: the core sleeps until the line has had time to send.
        0
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn next_deadline(&mut self, now: Instant) -> Instant {
        now + if self.busy { LINE_INTERVAL } else { LOOK_INTERVAL }
    }
}
