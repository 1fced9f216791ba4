//! A ring of byte frames between two cores: slots of one size, written in place and read in place.
//!
//! As [`Ring`](crate::Ring): one producer, one consumer, positions that count up for ever, no lock and no waiting. What
//! differs is that frames are not moved through the ring, and that the producer shows several at once
//! ([`FrameProducer::publish`]). Must not depend on a device.

use crate::sync::{AtomicUsize, Ordering, Padded, UnsafeCell};
use crate::{Arena, OutOfMemory};

/// Before the frame in its slot: how long it is, and the note that goes with it. So an IP header behind 14 bytes of
/// Ethernet starts at a multiple of 32, as it does in the buffers of the network driver: copies find both ends alike.
const HEADER_BYTES: usize = 18;
/// Slots begin at lines of their own, so that no two cores write one line.
const SLOT_ALIGN: usize = 128;

/// What both cores reach.
struct Shared {
    /// All positions before it hold a frame or held one. Written by the producer alone.
    tail: Padded<AtomicUsize>,
    /// All positions before it are empty again. Written by the consumer alone.
    head: Padded<AtomicUsize>,
    /// As many as a power of two.
    slots: &'static [UnsafeCell<&'static mut [u8]>],
}

// SAFETY: a slot is touched by one core at a time: positions from `head` to `tail` belong to the consumer, all others to
// the producer, and each side hands over by a release store that the other reads with acquire.
unsafe impl Sync for Shared {}

impl Shared {
    fn slot(&self, position: usize) -> Option<&UnsafeCell<&'static mut [u8]>> {
        self.slots.get(position & self.slots.len().wrapping_sub(1))
    }
}

/// The end that frames are put into.
pub struct FrameProducer {
    shared: &'static Shared,
    /// Behind the last frame that was put in.
    tail: usize,
    /// Behind the last one that the consumer may see.
    published: usize,
    /// The consumer's position when it was last looked at.
    head_seen: usize,
    frame_bytes: usize,
}

/// The end that frames are taken out of.
pub struct FrameConsumer {
    shared: &'static Shared,
    head: usize,
    /// The producer's position when it was last looked at.
    tail_seen: usize,
}

/// Bytes of an [`Arena`] that [`frame_ring`] takes, within a few cache lines.
#[must_use]
pub const fn frame_ring_bytes(frames: usize, frame_bytes: usize) -> usize {
    let descriptor = size_of::<UnsafeCell<&mut [u8]>>();
    frames.next_power_of_two().saturating_mul(slot_bytes(frame_bytes).saturating_add(descriptor))
        + size_of::<Shared>()
        + 4 * SLOT_ALIGN
}

/// A ring of at least `frames` slots for frames of at most `frame_bytes` bytes (and never more than 65,535).
///
/// # Errors
/// [`OutOfMemory`] when the arena is too small; what was taken from it by then is lost.
pub fn frame_ring(
    arena: &mut Arena,
    frames: usize,
    frame_bytes: usize,
) -> Result<(FrameProducer, FrameConsumer), OutOfMemory> {
    let (frames, stride) = (frames.next_power_of_two(), slot_bytes(frame_bytes));
    let memory = arena.slice(frames.saturating_mul(stride), |_| 0u8)?;
    let slots = arena.collect(frames, memory.chunks_exact_mut(stride).map(UnsafeCell::new))?;
    let shared: &'static Shared = arena.value(Shared {
        tail: Padded(AtomicUsize::new(0)),
        head: Padded(AtomicUsize::new(0)),
        slots,
    })?;
    let frame_bytes = frame_bytes.min(usize::from(u16::MAX));
    Ok((
        FrameProducer { shared, tail: 0, published: 0, head_seen: 0, frame_bytes },
        FrameConsumer { shared, head: 0, tail_seen: 0 },
    ))
}

const fn slot_bytes(frame_bytes: usize) -> usize {
    frame_bytes.saturating_add(HEADER_BYTES).next_multiple_of(SLOT_ALIGN)
}

impl FrameProducer {
    /// Writes a frame of `bytes` bytes into the next slot: `fill` gets the place, and `note` then looks at the finished
    /// frame and gives 32 bits that go with it. The consumer sees it after [`FrameProducer::publish`].
    ///
    /// # Errors
    /// Gives `fill` back, not called, when the ring is full or the frame too long.
    pub fn push<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        bytes: usize,
        fill: F,
        note: impl FnOnce(&mut [u8]) -> u32,
    ) -> Result<R, F> {
        self.push_behind(0, bytes, fill, note)
    }

    /// As [`FrameProducer::push`], with `headroom` bytes of the frame before those that `fill` gets; `note` sees the whole
    /// frame and writes what is missing at its start.
    ///
    /// # Errors
    /// As [`FrameProducer::push`].
    pub fn push_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        note: impl FnOnce(&mut [u8]) -> u32,
    ) -> Result<R, F> {
        let Some(frame_bytes) = headroom.checked_add(bytes) else { return Err(fill) };
        let length = u16::try_from(frame_bytes).ok().filter(|_| frame_bytes <= self.frame_bytes);
        let (Some(length), true) = (length, self.has_room()) else { return Err(fill) };
        let Some(slot) = self.shared.slot(self.tail) else { return Err(fill) };
        let result = slot.with_mut(|slot| {
            // SAFETY: the position is not before the consumer's head plus the number of slots, and not published: the
            // slot is the producer's alone for the time of this call, and the reference ends with it.
            let slot: &mut [u8] = unsafe { &mut *slot };
            let Some((header, frame)) = slot.split_at_mut_checked(HEADER_BYTES) else { return Err(fill) };
            let Some(frame) = frame.get_mut(..frame_bytes) else { return Err(fill) };
            let Some(place) = frame.get_mut(headroom..frame_bytes) else { return Err(fill) };
            let result = fill(place);
            let [a, b, c, d] = note(frame).to_le_bytes();
            let [low, high] = length.to_le_bytes();
            for (place, byte) in header.iter_mut().zip([low, high, a, b, c, d]) {
                *place = byte;
            }
            Ok(result)
        })?;
        self.tail = self.tail.wrapping_add(1);
        Ok(result)
    }

    /// Whether a frame can be put in now.
    pub fn has_room(&mut self) -> bool {
        let frames = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) < frames {
            return true;
        }
        // Acquire: the consumer has done with the slot before the producer writes there. Pairs with the release in `pop`.
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_seen) < frames
    }

    /// Shows the consumer what was put in. True when there is something that it has not been shown before.
    #[must_use = "the consumer does not look before its bell rings"]
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        // Release: the frames are in their slots before the consumer sees the position. Pairs with the acquire in
        // `has_frame`.
        self.shared.tail.0.store(self.tail, Ordering::Release);
        true
    }
}

impl FrameConsumer {
    /// Shows `consume` the oldest frame and its note, and gives the slot back; `None` when the ring is empty.
    pub fn pop<R>(&mut self, consume: impl FnOnce(&[u8], u32) -> R) -> Option<R> {
        if !self.has_frame() {
            return None;
        }
        let slot = self.shared.slot(self.head)?;
        let result = slot.with_mut(|slot| {
            // SAFETY: the position is published and not yet given back: the slot is the consumer's alone for the time
            // of this call, and the reference ends with it.
            let slot: &[u8] = unsafe { &*slot };
            let (header, frame) = slot.split_at_checked(HEADER_BYTES)?;
            let [low, high, a, b, c, d] = *header.first_chunk()?;
            let frame = frame.get(..usize::from(u16::from_le_bytes([low, high])))?;
            Some(consume(frame, u32::from_le_bytes([a, b, c, d])))
        });
        self.head = self.head.wrapping_add(1);
        // Release: the slot has been read before the producer writes there again. Pairs with the acquire in `has_room`.
        self.shared.head.0.store(self.head, Ordering::Release);
        result
    }

    /// Whether [`FrameConsumer::pop`] would give a frame.
    pub fn has_frame(&mut self) -> bool {
        if self.head == self.tail_seen {
            // Acquire: the frames are there before they are read. Pairs with the release in `publish`.
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.head != self.tail_seen
    }
}

impl core::fmt::Debug for FrameProducer {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("FrameProducer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for FrameConsumer {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("FrameConsumer").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
