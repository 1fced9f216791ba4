//! Which controllers there are on the whole card, for those who ask for a list: each data core shows the CNTLIDs of its own.
//!
//! Whoever reads sees each entry as it was at some moment of late; nothing else is decided by it.

use core::sync::atomic::{AtomicU16, Ordering};

use hal_mem::{Arena, OutOfMemory};
use heapless::Vec;

use crate::between_cores::MAX_DATA_CORES;

/// One core's part, and a view of all.
#[derive(Debug)]
pub struct Roster {
    own: &'static [AtomicU16],
    all: &'static [AtomicU16],
}

impl Roster {
    /// Those of `cores` data cores, in their order, with `places` for controllers that live on each.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small.
    pub fn split(
        arena: &mut Arena,
        cores: usize,
        places: usize,
    ) -> Result<Vec<Self, MAX_DATA_CORES>, OutOfMemory> {
        let all: &'static [AtomicU16] = arena.slice(cores * places, |_| AtomicU16::new(0))?;
        Ok(all.chunks_exact(places.max(1)).take(MAX_DATA_CORES).map(|own| Self { own, all }).collect())
    }

    /// Controllers that may live on this core.
    #[must_use]
    pub fn places(&self) -> usize {
        self.own.len()
    }

    /// These live here now.
    pub fn show(&self, ids: impl Iterator<Item = u16>) {
        let ids = ids.chain(core::iter::repeat(0));
        self.own.iter().zip(ids).for_each(|(place, id)| place.store(id, Ordering::Relaxed));
    }

    /// Those of all cores, in no order.
    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.all.iter().map(|place| place.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_shows_its_own_and_sees_all() {
        let mut arena = Arena::leak_for_host(1 << 12);
        let rosters = Roster::split(&mut arena, 3, 2).unwrap();
        rosters[0].show([1, 4].into_iter());
        rosters[2].show([3].into_iter());
        assert!(rosters[1].ids().eq([1, 4, 3]));
        rosters[0].show([7].into_iter());
        assert!(rosters[1].ids().eq([7, 3]));
    }
}
