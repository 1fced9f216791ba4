//! A window of device registers.

use core::ptr::NonNull;

/// A range of device memory with volatile accessors, each checked against the range.
///
/// Out-of-range accesses are programmer errors: they assert in debug builds and otherwise read all ones or
/// write nothing, as a bus does where nobody answers.
#[derive(Debug)]
pub struct MmioRegion {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the region is owned by whoever holds the value; device registers have no thread affinity.
unsafe impl Send for MmioRegion {}

macro_rules! accessors {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads the register at `offset`, which must be aligned to its size.
        #[inline(always)]
        #[must_use]
        pub fn $read(&self, offset: usize) -> $type {
            if !self.covers(offset, size_of::<$type>()) {
                debug_assert!(false, "register read out of range");
                return <$type>::MAX;
            }
            // SAFETY: in range and aligned (checked above); the constructor promised a mapped device range.
            unsafe { self.base.add(offset).cast::<$type>().read_volatile() }
        }

        /// Writes the register at `offset`, which must be aligned to its size.
        #[inline(always)]
        pub fn $write(&self, offset: usize, value: $type) {
            if !self.covers(offset, size_of::<$type>()) {
                debug_assert!(false, "register write out of range");
                return;
            }
            // SAFETY: in range and aligned (checked above); the constructor promised a mapped device range.
            unsafe { self.base.add(offset).cast::<$type>().write_volatile(value) }
        }
    };
}

impl MmioRegion {
    /// # Safety
    /// `base..base + bytes` is mapped as device memory (or, in tests, owned memory) for as long as the value
    /// lives, `base` is aligned to the largest access made, and no one else uses the registers in it in a way that conflicts.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, bytes: usize) -> Self {
        Self { base, bytes }
    }

    /// Length of the window in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the window has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// A smaller window into this one; `None` when it does not fit or is not 4-aligned. The caller keeps the
    /// two from conflicting.
    #[must_use]
    pub fn window(&self, offset: usize, bytes: usize) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        if end > self.bytes || !offset.is_multiple_of(4) {
            return None;
        }
        // SAFETY: in range, so the constructor's promise covers it.
        Some(Self { base: unsafe { self.base.add(offset) }, bytes })
    }

    fn covers(&self, offset: usize, bytes: usize) -> bool {
        offset.is_multiple_of(bytes) && offset.checked_add(bytes).is_some_and(|end| end <= self.bytes)
    }

    accessors!(read8, write8, u8);
    accessors!(read16, write16, u16);
    accessors!(read32, write32, u32);
    accessors!(read64, write64, u64);
}
