//! The byte ring of one core: a single writer that publishes whole frames, a single reader.
//!
//! Bytes are atomics, so that a reader that looks at the wrong moment (only the panic path may) gets wrong
//! bytes and nothing worse; on aarch64 a relaxed byte access is an ordinary one.

use self::sync::{AtomicU8, AtomicU32, Ordering};

/// Positions count up for ever and wrap; `N`, a power of two, divides their range.
#[derive(Debug)]
pub(crate) struct Ring<const N: usize> {
    bytes: [AtomicU8; N],
    /// All before it are whole frames. Written by the writer.
    published: AtomicU32,
    /// All before it have been read. Written by the reader.
    taken: AtomicU32,
    /// Frames that did not fit.
    dropped: AtomicU32,
}

impl<const N: usize> Ring<N> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= 1 << 30) }
        Self {
            bytes: [const { AtomicU8::new(0) }; N],
            published: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
        }
    }

    /// A ring of the model checker, whose parts cannot be made by a constant function.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            bytes: core::array::from_fn(|_| AtomicU8::new(0)),
            published: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
        }
    }

    /// Frames dropped since the start, wrapping.
    pub(crate) fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts a frame that was lost before it was begun.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the oldest unread frame begins.
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The byte at `position`; `None` where nothing is published yet.
    pub(crate) fn byte_at(&self, position: u32) -> Option<u8> {
        // Acquire: pairs with the release in `FrameWriter::end`, so that the bytes are there.
        if position == self.published.load(Ordering::Acquire) {
            return None;
        }
        self.slot(position).map(|byte| byte.load(Ordering::Relaxed))
    }

    /// The last bytes that were published, read or not, at most `most` of them and those that the ring still has; 0 for
    /// what was never written.
    pub(crate) fn last(&self, most: u32) -> impl Iterator<Item = u8> {
        let end = self.published.load(Ordering::Acquire);
        let count = most.min(N as u32);
        let places = (0..count).map(move |at| end.wrapping_sub(count).wrapping_add(at));
        places.filter_map(|position| self.slot(position)).map(|byte| byte.load(Ordering::Relaxed))
    }

    /// Gives everything before `position` back to the writer.
    pub(crate) fn take_until(&self, position: u32) {
        // Release: the reads of those bytes come before the writer's next writes there.
        self.taken.store(position, Ordering::Release);
    }

    fn slot(&self, position: u32) -> Option<&AtomicU8> {
        self.bytes.get(position as usize & (N - 1))
    }
}

/// The writer's place in its ring, with the frame that it is at.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    next: u32,
    room: u32,
    overflow: bool,
}

impl FrameWriter {
    pub(crate) const fn new() -> Self {
        Self { next: 0, room: 0, overflow: false }
    }

    /// Begins a frame behind what is published.
    pub(crate) fn begin<const N: usize>(&mut self, ring: &Ring<N>) {
        self.next = ring.published.load(Ordering::Relaxed);
        // Acquire: pairs with the release in `take_until`.
        self.room = N as u32 - self.next.wrapping_sub(ring.taken.load(Ordering::Acquire));
        self.overflow = false;
    }

    /// Appends to the frame.
    pub(crate) fn push<const N: usize>(&mut self, ring: &Ring<N>, bytes: &[u8]) {
        for byte in bytes {
            if self.room == 0 {
                self.overflow = true;
                return;
            }
            if let Some(slot) = ring.slot(self.next) {
                slot.store(*byte, Ordering::Relaxed);
            }
            self.next = self.next.wrapping_add(1);
            self.room -= 1;
        }
    }

    /// Publishes the frame, or drops and counts it when it did not fit.
    pub(crate) fn end<const N: usize>(&mut self, ring: &Ring<N>) {
        if self.overflow {
            ring.count_dropped();
        } else {
            // Release: the frame's bytes come before its publication.
            ring.published.store(self.next, Ordering::Release);
        }
    }
}

/// The atomics, which the model checker replaces by its own.
#[cfg(not(loom))]
mod sync {
    pub use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
}

#[cfg(loom)]
mod sync {
    pub use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
