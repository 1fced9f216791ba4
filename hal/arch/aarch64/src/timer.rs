//! The generic timer as a clock and an alarm (Arm ARM D12): the virtual counter and its timer.

use hal_api::{Clock, Instant};
use hal_devices::TickRate;

use crate::registers::{read_register, write_register};

/// Time since the first core started, the same on all cores.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    start_ticks: u64,
    rate: TickRate,
    frequency_hz: u64,
}

impl Timer {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let frequency_hz = read_register!("cntfrq_el0").max(1);
        Self { start_ticks: ticks(), rate: TickRate::of(frequency_hz), frequency_hz }
    }

    /// Ticks of the counter in a second.
    #[must_use]
    pub const fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }

    /// The counter's value when [`Timer::now`] reaches `instant`; all ones where it is out of range.
    fn ticks_at(&self, instant: Instant) -> u64 {
        self.rate.ticks_until(instant.as_micros()).saturating_add(self.start_ticks)
    }

    /// Has the virtual timer's interrupt pending from `deadline` on, at once if it has passed.
    pub(crate) fn set_alarm(&self, deadline: Instant) {
        // SAFETY: the virtual timer belongs to this core's `Cpu`; its interrupt only wakes.
        unsafe {
            write_register!("cntv_cval_el0", self.ticks_at(deadline));
            write_register!("cntv_ctl_el0", 1u64);
        }
    }

    /// Takes the alarm back; the level of the interrupt falls.
    pub(crate) fn clear_alarm(&self) {
        // SAFETY: as in `set_alarm`. The barrier makes the level fall before the interrupt is acknowledged.
        unsafe {
            write_register!("cntv_ctl_el0", 0u64);
            core::arch::asm!("isb", options(nostack, preserves_flags));
        }
    }
}

impl Clock for Timer {
    #[inline]
    fn now(&self) -> Instant {
        Instant::from_micros(self.rate.micros(ticks().wrapping_sub(self.start_ticks)))
    }
}

#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: a barrier, so that the counter is not read ahead of what came before.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
    read_register!("cntvct_el0")
}
