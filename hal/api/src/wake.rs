//! How an idle core sleeps.

use crate::Instant;

/// Sleep of the core that calls. Only core loops use it.
pub trait Wake {
    /// Turns without work that cost less than to sleep and be woken: a core takes so many before it sleeps.
    const EMPTY_TURNS: u32;

    /// Sleeps until an interrupt, another core's signal, or `deadline`, whichever is first. It may return early for
    /// no reason. A wake-up that comes before the call is not lost: then the call returns at once.
    fn sleep_until(&mut self, deadline: Instant);
}
