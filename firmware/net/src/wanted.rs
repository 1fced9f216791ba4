//! Which sockets smoltcp has to be asked about next.
//!
//! Each stands here once at most, and they are taken in the order in which they came, so that none waits for ever.

use hal_mem::{Arena, OutOfMemory};

/// Sockets with something to send, by their index.
#[derive(Debug)]
pub(crate) struct Wanted {
    ring: &'static mut [u16],
    /// For each socket: whether it is in the ring.
    waits: &'static mut [bool],
    first: usize,
    count: usize,
}

impl Wanted {
    /// Room for so many sockets.
    pub(crate) fn new(sockets: usize, arena: &mut Arena) -> Result<Self, OutOfMemory> {
        let ring = arena.slice(sockets, |_| 0)?;
        let waits = arena.slice(sockets, |_| false)?;
        Ok(Self { ring, waits, first: 0, count: 0 })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts a socket behind all others, if it does not wait already.
    pub(crate) fn add(&mut self, index: u16) {
        let Some(waits) = self.waits.get_mut(usize::from(index)) else { return };
        if core::mem::replace(waits, true) {
            return;
        }
        let mut place = self.first + self.count;
        if place >= self.ring.len() {
            place -= self.ring.len();
        }
        if let Some(place) = self.ring.get_mut(place) {
            *place = index;
            self.count += 1;
        }
    }

    /// The one that has waited longest; it does not wait any more.
    pub(crate) fn take(&mut self) -> Option<u16> {
        self.count = self.count.checked_sub(1)?;
        let index = *self.ring.get(self.first)?;
        self.first = if self.first + 1 >= self.ring.len() { 0 } else { self.first + 1 };
        *self.waits.get_mut(usize::from(index))? = false;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_comes_in_turn() {
        let mut wanted = Wanted::new(3, &mut Arena::leak_for_host(4096)).unwrap();
        for round in 0..5 {
            for index in [2, 0, 2, 1, 0, 9] {
                wanted.add(index);
            }
            assert_eq!(wanted.take(), Some(2), "{round}");
            wanted.add(2);
            assert_eq!([(); 4].map(|()| wanted.take()), [Some(0), Some(1), Some(2), None], "{round}");
            wanted.add(1);
            assert!(!wanted.is_empty());
            assert_eq!(wanted.take(), Some(1));
            assert!(wanted.is_empty());
        }
    }
}
