//! Which drives a turn has to look at: a core with many has something under way at few of them.

use hal_api::Instant;

use crate::limits::MAX_DRIVES;

/// A bit for each place.
type PlaceSet = u64;

const _: () = assert!(MAX_DRIVES <= PlaceSet::BITS as usize);

/// Of the places of a core's drives, of which there are at most [`MAX_DRIVES`].
#[derive(Debug)]
pub(crate) struct Awake {
    places: PlaceSet,
    /// Those that have a drive.
    taken: PlaceSet,
    /// When the first of those that rest may have something to do.
    rest_over: Instant,
}

impl Awake {
    pub const fn new() -> Self {
        Self { places: 0, taken: 0, rest_over: Instant::FAR_FUTURE }
    }

    /// At the beginning of a turn: when the first rest is over, all are looked at.
    pub fn note_time(&mut self, now: Instant) {
        if now >= self.rest_over {
            self.all();
        }
    }

    pub fn all(&mut self) {
        (self.places, self.rest_over) = (self.taken, Instant::FAR_FUTURE);
    }

    pub fn insert(&mut self, place: usize) {
        self.places |= bit(place);
        self.taken |= bit(place);
    }

    /// There is no drive.
    pub fn remove(&mut self, place: usize) {
        self.places &= !bit(place);
        self.taken &= !bit(place);
    }

    /// Nothing can happen at the drive before `until`, unless it is told something.
    pub fn rest(&mut self, place: usize, until: Instant) {
        self.places &= !bit(place);
        self.rest_over = self.rest_over.min(until);
    }

    /// Those of now: whatever changes while they are walked through.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        places(self.places)
    }

    /// The same, beginning behind `place`.
    pub fn iter_after(&self, place: usize) -> impl Iterator<Item = usize> + use<> {
        let up_to = bit(place) | bit(place).wrapping_sub(1);
        places(self.places & !up_to).chain(places(self.places & up_to))
    }
}

fn bit(place: usize) -> PlaceSet {
    u32::try_from(place).ok().and_then(|place| PlaceSet::from(1u8).checked_shl(place)).unwrap_or(0)
}

fn places(mut left: PlaceSet) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let place = left.trailing_zeros() as usize;
        left &= left.checked_sub(1)?;
        Some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_all_are_looked_at_when_the_first_rest_is_over() {
        let mut awake = Awake::new();
        [5, 2, 63, 9].into_iter().for_each(|place| awake.insert(place));
        awake.remove(9);
        assert!(awake.iter_after(0).eq([2, 5, 63]));
        assert!(awake.iter_after(2).eq([5, 63, 2]));
        assert!(awake.iter_after(63).eq([2, 5, 63]));
        awake.rest(5, Instant::from_micros(7));
        awake.rest(2, Instant::from_micros(9));
        awake.note_time(Instant::from_micros(6));
        assert!(awake.iter().eq([63]));
        awake.insert(2);
        assert!(awake.iter().eq([2, 63]));
        awake.note_time(Instant::from_micros(7));
        assert!(awake.iter().eq([2, 5, 63]));
    }
}
