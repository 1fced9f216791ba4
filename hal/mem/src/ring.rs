//! A ring between two cores: one producer, one consumer, values moved in and out, no lock and no waiting.
//!
//! Positions count up for ever and wrap; the slot of a position is its value modulo the capacity. Each half keeps its
//! own position privately and a copy of the other's, which it reads again only when the ring looks full or empty. So
//! in steady traffic the line of a position crosses the cores once for many values. Must not depend on a device.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::sync::{AtomicUsize, Ordering, Padded, UnsafeCell};

/// Room for `N` values on their way from one core to another; `N` is a power of two.
///
/// It lives where both cores see it: in an [`Arena`](crate::Arena) on the card. [`Ring::split`] gives the two ends.
pub struct Ring<T, const N: usize> {
    /// All positions before it hold a value or held one. Written by the producer alone.
    tail: Padded<AtomicUsize>,
    /// All positions before it are empty again. Written by the consumer alone.
    head: Padded<AtomicUsize>,
    slots: [UnsafeCell<MaybeUninit<T>>; N],
}

// SAFETY: a slot is touched by one core at a time: positions from `head` to `tail` belong to the consumer, all others to
// the producer, and each side hands over by a release store that the other reads with acquire. Values cross cores, so
// they must be `Send`; nobody gets a shared reference to one.
unsafe impl<T: Send, const N: usize> Sync for Ring<T, N> {}

impl<T, const N: usize> Ring<T, N> {
    /// An empty ring.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two()) }
        Self {
            tail: Padded(AtomicUsize::new(0)),
            head: Padded(AtomicUsize::new(0)),
            slots: [const { UnsafeCell::new(MaybeUninit::uninit()) }; N],
        }
    }

    /// An empty ring of the model checker, whose parts cannot be made by a constant function.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            tail: Padded(AtomicUsize::new(0)),
            head: Padded(AtomicUsize::new(0)),
            slots: core::array::from_fn(|_| UnsafeCell::new(MaybeUninit::uninit())),
        }
    }

    /// Makes an empty ring in place.
    ///
    /// # Safety
    /// `place` is valid and aligned for a ring, and nobody else's for the rest of the program.
    pub(crate) unsafe fn make_at(place: NonNull<Self>) -> &'static mut Self {
        const { assert!(N.is_power_of_two()) }
        let ring = place.as_ptr();
        // SAFETY: the caller's promise. Slots are uninitialised in an empty ring, so that there is nothing to write there.
        #[cfg(not(loom))]
        unsafe {
            (&raw mut (*ring).tail).write(Padded(AtomicUsize::new(0)));
            (&raw mut (*ring).head).write(Padded(AtomicUsize::new(0)));
        }
        // SAFETY: the caller's promise. The model checker's cells are to be made one by one.
        #[cfg(loom)]
        unsafe {
            ring.write(Self::new());
        }
        // SAFETY: made just now; the caller's promise.
        unsafe { &mut *ring }
    }

    /// The two ends. What was in the ring stays in it.
    #[must_use]
    pub fn split(&mut self) -> (Producer<'_, T, N>, Consumer<'_, T, N>) {
        // Relaxed: the exclusive reference says that nobody else is at the ring.
        let tail = self.tail.0.load(Ordering::Relaxed);
        let head = self.head.0.load(Ordering::Relaxed);
        (Producer { ring: self, tail, head_seen: head }, Consumer { ring: self, head, tail_seen: tail })
    }

    fn slot(&self, position: usize) -> Option<&UnsafeCell<MaybeUninit<T>>> {
        self.slots.get(position & N.wrapping_sub(1))
    }
}

impl<T, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Drop for Ring<T, N> {
    fn drop(&mut self) {
        let (_, mut consumer) = self.split();
        while consumer.pop().is_some() {}
    }
}

impl<T, const N: usize> core::fmt::Debug for Ring<T, N> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Ring").field("capacity", &N).finish_non_exhaustive()
    }
}

/// The end that values are put into.
#[derive(Debug)]
pub struct Producer<'a, T, const N: usize> {
    ring: &'a Ring<T, N>,
    tail: usize,
    /// The consumer's position when it was last looked at.
    head_seen: usize,
}

impl<T, const N: usize> Producer<'_, T, N> {
    /// Puts a value in.
    ///
    /// # Errors
    /// Gives the value back when the ring is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(value);
        }
        let Some(slot) = self.ring.slot(self.tail) else { return Err(value) };
        slot.with_mut(|slot| {
            // SAFETY: the position is not before the consumer's head plus the capacity, and not published: the slot is
            // the producer's, and empty, so that nothing is overwritten that would have to be dropped.
            unsafe { slot.write(MaybeUninit::new(value)) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: the value is in its slot before the consumer sees the position. Pairs with the acquire in `pop`.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether a value can be put in now.
    pub fn has_room(&mut self) -> bool {
        if self.tail.wrapping_sub(self.head_seen) < N {
            return true;
        }
        // Acquire: what the consumer took out of the slot is out before the producer writes there. Pairs with the
        // release in `pop`.
        self.head_seen = self.ring.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_seen) < N
    }
}

/// The end that values are taken out of.
#[derive(Debug)]
pub struct Consumer<'a, T, const N: usize> {
    ring: &'a Ring<T, N>,
    head: usize,
    /// The producer's position when it was last looked at.
    tail_seen: usize,
}

impl<T, const N: usize> Consumer<'_, T, N> {
    /// Takes the oldest value out; `None` when the ring is empty.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            // Acquire: the value is there before it is read. Pairs with the release in `push`.
            self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let slot = self.ring.slot(self.head)?;
        // SAFETY: the position is published and not yet given back: the slot is the consumer's and holds a value,
        // which is moved out once, because the position never comes back.
        let value = slot.with_mut(|slot| unsafe { slot.read().assume_init() });
        self.head = self.head.wrapping_add(1);
        // Release: the value is out before the producer writes there again. Pairs with the acquire in `has_room`.
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether there is nothing to take out now.
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            // Acquire: as in `pop`, which may take the value without looking again.
            self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
