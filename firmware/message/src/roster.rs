//! Which controllers there are on the whole card, for those who ask for a list: each data core shows the CNTLIDs of its own.
//!
//! Whoever reads sees each entry as it was at some moment of late; nothing else is decided by it.

use core::sync::atomic::{AtomicU32, Ordering};

use hal_mem::{Arena, OutOfMemory};
use heapless::Vec;

use crate::between_cores::MAX_DATA_CORES;
use crate::configuration::SubsystemPlace;

/// One core's part, and a view of all.
#[derive(Debug)]
pub struct Roster {
    own: &'static [AtomicU32],
    all: &'static [AtomicU32],
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
        let all: &'static [AtomicU32] = arena.slice(cores * places, |_| AtomicU32::new(0))?;
        Ok(all.chunks_exact(places.max(1)).take(MAX_DATA_CORES).map(|own| Self { own, all }).collect())
    }

    /// Controllers that may live on this core.
    #[must_use]
    pub fn places(&self) -> usize {
        self.own.len()
    }

    /// These live here now.
    pub fn show(&self, controllers: impl Iterator<Item = (SubsystemPlace, u16)>) {
        let words = controllers.map(|(subsystem, id)| u32::from(subsystem.0) << 16 | u32::from(id));
        let words = words.chain(core::iter::repeat(0));
        self.own.iter().zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
    }

    /// Those of a subsystem on all cores, in no order.
    pub fn ids(&self, subsystem: SubsystemPlace) -> impl Iterator<Item = u16> {
        let words = self.all.iter().map(|place| place.load(Ordering::Relaxed));
        let of_subsystem = words.filter(move |&word| word != 0 && word >> 16 == u32::from(subsystem.0));
        of_subsystem.map(|word| word as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_shows_its_own_and_sees_all() {
        let mut arena = Arena::leak_for_host(1 << 12);
        let rosters = Roster::split(&mut arena, 3, 3).unwrap();
        let (one, other) = (SubsystemPlace::DEFAULT, SubsystemPlace(1));
        rosters[0].show([(one, 1), (one, 4), (other, 7)].into_iter());
        rosters[2].show([(one, 3)].into_iter());
        assert!(rosters[1].ids(one).eq([1, 4, 3]) && rosters[1].ids(other).eq([7]));
        rosters[0].show([(one, 7)].into_iter());
        assert!(rosters[1].ids(one).eq([7, 3]) && rosters[1].ids(other).eq([]));
    }
}
