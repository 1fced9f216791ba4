//! Quiesce: the one way of changes that cross cores.
//!
//! The core that begins a change sends it to the cores that it concerns, under a number. Each applies it between two requests,
//! drains what it has to, and confirms the number. The change is complete at the last confirmation. A confirmation that nobody
//! waits for (an unknown number, a core that has confirmed or was never asked) is a bug somewhere: it changes nothing and is counted.

use heapless::Vec;

use crate::between_cores::CoreSet;

/// A change that some cores have still to confirm.
#[derive(Debug)]
pub struct Quiesce<W> {
    number: u32,
    waiting: CoreSet,
    /// What the change is, for the core that has begun it.
    pub what: W,
}

impl<W> Quiesce<W> {
    /// Who has not confirmed yet.
    #[must_use]
    pub const fn waiting(&self) -> CoreSet {
        self.waiting
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }
}

/// What a confirmation has done.
#[derive(Debug, PartialEq, Eq)]
pub enum Confirmed<W> {
    /// Nothing: nobody waits for it.
    Ignored,
    /// Others are still to confirm this change.
    Waiting(W),
    /// It was the last: the change is complete.
    Complete(W),
}

/// The changes that a core has begun, at most `N`.
#[derive(Debug)]
pub struct Quiesces<W, const N: usize> {
    pending: Vec<Quiesce<W>, N>,
    last_number: u32,
    ignored: u64,
}

impl<W: Copy, const N: usize> Quiesces<W, N> {
    /// None begun.
    #[must_use]
    pub const fn new() -> Self {
        Self { pending: Vec::new(), last_number: 0, ignored: 0 }
    }

    /// Begins a change that `cores` have to confirm, and returns the number to send it under. Not for no cores at all: such a
    /// change is complete at once.
    ///
    /// # Errors
    /// Gives `what` back when all places are taken.
    pub fn begin(&mut self, what: W, cores: CoreSet) -> Result<u32, W> {
        debug_assert!(!cores.is_empty());
        if self.pending.is_full() {
            return Err(what);
        }
        // A number comes back after 2^32 changes, when none of that time is pending.
        self.last_number = self.last_number.wrapping_add(1);
        let number = self.last_number;
        match self.pending.push(Quiesce { number, waiting: cores, what }) {
            Ok(()) => Ok(number),
            Err(quiesce) => Err(quiesce.what),
        }
    }

    /// Core `from` has confirmed `number`.
    pub fn confirm(&mut self, number: u32, from: u8) -> Confirmed<W> {
        let place = self.pending.iter().position(|quiesce| quiesce.number == number);
        let Some((place, quiesce)) = place.and_then(|place| Some((place, self.pending.get_mut(place)?)))
        else {
            self.ignored += 1;
            return Confirmed::Ignored;
        };
        if !quiesce.waiting.remove(from) {
            self.ignored += 1;
            return Confirmed::Ignored;
        }
        if !quiesce.waiting.is_empty() {
            return Confirmed::Waiting(quiesce.what);
        }
        Confirmed::Complete(self.pending.swap_remove(place).what)
    }

    /// Those that are not complete, in no order.
    pub fn pending(&self) -> impl Iterator<Item = &Quiesce<W>> {
        self.pending.iter()
    }

    /// Confirmations that nobody has waited for.
    #[must_use]
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }
}

impl<W: Copy, const N: usize> Default for Quiesces<W, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_complete_at_the_last_confirmation_and_not_before() {
        let mut all = Quiesces::<&str, 4>::new();
        let fence = all.begin("fence", CoreSet::all_but(0, 4)).unwrap();
        let end = all.begin("end", CoreSet::all_but(0, 2)).unwrap();
        assert_ne!(fence, end);
        assert_eq!(all.confirm(fence, 3), Confirmed::Waiting("fence"));
        assert_eq!(all.confirm(fence, 1), Confirmed::Waiting("fence"));
        assert_eq!(all.confirm(end, 1), Confirmed::Complete("end"));
        assert_eq!(
            all.pending().map(|quiesce| quiesce.waiting().iter().sum::<u8>()).collect::<Vec<_, 4>>(),
            [2]
        );
        assert_eq!(all.confirm(fence, 2), Confirmed::Complete("fence"));
        assert_eq!((all.pending().count(), all.ignored()), (0, 0));
    }

    #[test]
    fn repeated_and_foreign_confirmations_change_nothing_and_are_counted() {
        let mut all = Quiesces::<u8, 4>::new();
        let number = all.begin(7, CoreSet::all_but(2, 4)).unwrap();
        assert_eq!(all.confirm(number, 0), Confirmed::Waiting(7));
        for (number, from) in [(number, 0), (number, 2), (number, 99), (number + 1, 1), (0, 1)] {
            assert_eq!(all.confirm(number, from), Confirmed::Ignored);
        }
        assert_eq!(all.ignored(), 5);
        assert_eq!(all.confirm(number, 3), Confirmed::Waiting(7));
        assert_eq!(all.confirm(number, 1), Confirmed::Complete(7));
        assert_eq!(all.confirm(number, 1), Confirmed::Ignored);
    }

    #[test]
    fn without_a_place_nothing_begins() {
        let mut all = Quiesces::<u8, 1>::new();
        let first = all.begin(1, CoreSet::all_but(0, 2)).unwrap();
        assert_eq!(all.begin(2, CoreSet::all_but(0, 2)), Err(2));
        assert_eq!(all.confirm(first, 1), Confirmed::Complete(1));
        let second = all.begin(2, CoreSet::all_but(0, 2)).unwrap();
        assert_eq!(all.confirm(first, 1), Confirmed::Ignored, "a late one does not count for the next");
        assert_eq!(all.confirm(second, 1), Confirmed::Complete(2));
    }
}
