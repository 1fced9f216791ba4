//! The slots as a role: `control`'s state machines in the core loop of core 0.

use control::HotPlug;
use dataplane::Role;
use hal_api::{DriveSlots, Instant};

/// Watches the slots in which drives come and go.
pub struct HotPlugRole<S: DriveSlots + 'static> {
    hot_plug: HotPlug<'static, S>,
}

impl<S: DriveSlots> HotPlugRole<S> {
    /// The role over its state machines.
    pub fn new(hot_plug: HotPlug<'static, S>) -> Self {
        Self { hot_plug }
    }
}

impl<S: DriveSlots> Role for HotPlugRole<S> {
    fn poll(&mut self, now: Instant, _budget: u32) -> u32 {
        self.hot_plug.poll(now)
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn next_deadline(&mut self, _now: Instant) -> Instant {
        self.hot_plug.next_deadline()
    }
}
