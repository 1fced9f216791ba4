//! The core that runs: its index, its sleep, and how it wakes others.

use core::marker::PhantomData;

use hal_api::{Clock, Instant};

use crate::registers::wait_for_interrupt;
use crate::timer::Timer;
use crate::{MAX_CORES, interrupts, watchdog};

/// The core that holds the value. Interrupts stay masked on it, but for the watchdog's; what is pending only ends its
/// sleep.
#[derive(Debug)]
pub struct Cpu {
    index: usize,
    timer: Timer,
    /// Registers of the core itself: the value must not move to another.
    not_send: PhantomData<*const ()>,
}

impl Cpu {
    pub(crate) const fn new(index: usize, timer: Timer) -> Self {
        Self { index, timer, not_send: PhantomData }
    }

    /// Index of the core: 0 for the one that booted, then in the order of the device tree.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The clock; the same on all cores.
    #[must_use]
    pub const fn timer(&self) -> Timer {
        self.timer
    }

    /// Sleeps until an interrupt comes (a device's message, [`wake`], the deadline) or one is pending already.
    /// Returns early at times: the caller looks at its queues in any case. All that was pending is acknowledged.
    pub fn sleep_until(&mut self, deadline: Instant) {
        if !interrupts::available() {
            return;
        }
        self.timer.set_alarm(deadline);
        watchdog::asleep(deadline);
        wait_for_interrupt();
        watchdog::awake();
        self.timer.clear_alarm();
        interrupts::acknowledge_all();
    }
}

impl Clock for Cpu {
    #[inline]
    fn now(&self) -> Instant {
        self.timer.now()
    }
}

/// Wakes core `index` out of [`Cpu::sleep_until`], or keeps it from falling asleep the next time. Stores made
/// before are visible to it. From any core; a core that does not run is left alone.
pub fn wake(index: usize) {
    if index < MAX_CORES {
        interrupts::wake(index);
    }
}
