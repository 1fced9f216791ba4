//! What a core looks at to know which of its rings others have put something into: one word instead of a position of each.
//!
//! A ring that carries little between many cores costs its consumer a look in every turn, at a line of another core. With a
//! [`Bell`] the consumer looks at one word that stays in its own cache until somebody rings. Whoever rings has published in
//! the ring before; whoever has taken the word looks into the rings that it names, until they are empty. Must not depend on
//! what the rings carry.

use crate::sync::{AtomicBool, AtomicU32, Ordering, Padded, fence};

/// The bell of one core, which others ring.
#[derive(Default)]
pub struct Bell {
    /// A bit for each ring that something was put into since the core last looked.
    rung: Padded<AtomicU32>,
    /// The core sleeps, or is about to. Written by it alone.
    asleep: Padded<AtomicBool>,
}

impl Bell {
    /// Rings that a bell can tell apart.
    pub const RINGS: usize = u32::BITS as usize;

    /// Says that something is in ring number `ring`, below [`Self::RINGS`], after it was published there. True when the core
    /// sleeps, or is about to, and has to be woken.
    pub fn ring(&self, ring: usize) -> bool {
        // Release: what was published is seen by whoever sees the bit. Pairs with the acquire in `take`.
        self.rung.0.fetch_or(Self::bit(ring), Ordering::Release);
        // The bit is written before the core's state is read. The core does it the other way round, so one of the two sees
        // the other.
        fence(Ordering::SeqCst);
        self.asleep.0.load(Ordering::Relaxed)
    }

    /// The rings that something may be in since this was last called, as bits.
    pub fn take(&self) -> u32 {
        if self.rung.0.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        // Acquire: see `ring`.
        self.rung.0.swap(0, Ordering::Acquire)
    }

    /// Whether [`Self::take`] would name a ring.
    pub fn has_rung(&self) -> bool {
        self.rung.0.load(Ordering::Relaxed) != 0
    }

    /// Asks to be woken when somebody rings. True when somebody has already: then the core must not sleep.
    pub fn arm(&self) -> bool {
        self.asleep.0.store(true, Ordering::Relaxed);
        // See `ring`.
        fence(Ordering::SeqCst);
        self.has_rung()
    }

    /// The core is awake and looks by itself.
    pub fn disarm(&self) {
        self.asleep.0.store(false, Ordering::Relaxed);
    }

    /// The bit of a ring; none for a number that no ring can have.
    #[must_use]
    pub fn bit(ring: usize) -> u32 {
        u32::try_from(ring).ok().and_then(|ring| 1u32.checked_shl(ring)).unwrap_or(0)
    }
}

impl core::fmt::Debug for Bell {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Bell").field("has_rung", &self.has_rung()).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
