//! Memory handed out once at boot. There is no heap: what the firmware needs is sized from what the device
//! tree reports, taken here, and kept for ever.

use core::mem::{align_of, size_of};
use core::ptr::NonNull;

use crate::ring::Ring;

/// The board has too little memory for the limits it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// What was asked for, in bytes.
    pub wanted_bytes: usize,
    /// What was left, in bytes.
    pub left_bytes: usize,
}

/// A range of private memory from which slices are taken and never returned.
#[derive(Debug)]
pub struct Arena {
    next: NonNull<u8>,
    left: usize,
}

// SAFETY: the arena owns its range; plain memory has no thread affinity.
unsafe impl Send for Arena {}

impl Arena {
    /// # Safety
    /// `base..base + bytes` is valid memory, owned by the arena for the rest of the program.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, bytes: usize) -> Self {
        Self { next: base, left: bytes }
    }

    /// Bytes not yet handed out.
    #[must_use]
    pub const fn left_bytes(&self) -> usize {
        self.left
    }

    /// Takes a slice of `count` values, each made by `make` from its index.
    ///
    /// # Errors
    /// [`OutOfMemory`] when too little is left; nothing is taken then.
    pub fn slice<T>(
        &mut self,
        count: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<&'static mut [T], OutOfMemory> {
        self.collect(count, (0..count).map(make))
    }

    /// Takes a slice of what `values` gives, at most `count`, for which there is room.
    ///
    /// # Errors
    /// [`OutOfMemory`] when too little is left; nothing is taken then.
    pub fn collect<T>(
        &mut self,
        count: usize,
        values: impl Iterator<Item = T>,
    ) -> Result<&'static mut [T], OutOfMemory> {
        let start = self.room::<T>(count)?;
        let mut written = 0;
        for value in values.take(count) {
            // SAFETY: within the range, aligned, and not yet handed out.
            unsafe { start.add(written).write(value) };
            written += 1;
        }
        // SAFETY: `written` values were just written there, and the range is never handed out again.
        Ok(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), written) })
    }

    /// Takes room for one value.
    ///
    /// # Errors
    /// [`OutOfMemory`] when too little is left.
    pub fn value<T>(&mut self, value: T) -> Result<&'static mut T, OutOfMemory> {
        let start = self.room::<T>(1)?;
        // SAFETY: room for one, aligned, and never handed out again.
        unsafe {
            start.write(value);
            Ok(&mut *start.as_ptr())
        }
    }

    /// Takes room for a ring and makes it there. As a value it would pass through the stack with all its slots.
    ///
    /// # Errors
    /// [`OutOfMemory`] when too little is left.
    pub fn ring<T, const N: usize>(&mut self) -> Result<&'static mut Ring<T, N>, OutOfMemory> {
        let start = self.room::<Ring<T, N>>(1)?;
        // SAFETY: room for one, aligned, and never handed out again.
        Ok(unsafe { Ring::make_at(start) })
    }

    /// Room for so many values, which nobody else has.
    fn room<T>(&mut self, count: usize) -> Result<NonNull<T>, OutOfMemory> {
        // Cache-line alignment keeps what different cores own on different lines.
        let align = align_of::<T>().max(128);
        let padding = (self.next.as_ptr() as usize).wrapping_neg() & (align - 1);
        let failed =
            OutOfMemory { wanted_bytes: size_of::<T>().saturating_mul(count), left_bytes: self.left };
        let bytes = size_of::<T>().checked_mul(count).and_then(|b| b.checked_add(padding)).ok_or(failed)?;
        if bytes > self.left {
            return Err(failed);
        }
        // SAFETY: `padding` and `bytes` are within what is left (just checked).
        let start = unsafe { self.next.add(padding) }.cast::<T>();
        // SAFETY: as above.
        self.next = unsafe { self.next.add(bytes) };
        self.left -= bytes;
        Ok(start)
    }

    /// An arena of leaked memory for tests on the host.
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn leak_for_host(bytes: usize) -> Self {
        let region = crate::DmaRegion::leak_for_host(bytes);
        // SAFETY: fresh, leaked, reached only through the arena.
        unsafe { Self::new(region.as_ptr(), bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_aligned_slices_until_full() {
        let mut arena = Arena::leak_for_host(4096);
        let words = arena.slice(10, |i| i as u64).unwrap();
        assert_eq!(words[9], 9);
        assert!(arena.slice(4096, |_| 0u8).is_err());
        let bytes = arena.slice(100, |_| 7u8).unwrap();
        assert_eq!(bytes.as_ptr() as usize % 128, 0);
        assert_eq!(*arena.value(5u32).unwrap(), 5);
    }
}
