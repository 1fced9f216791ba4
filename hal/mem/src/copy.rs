//! The one place of copies: every payload byte that the firmware moves goes through here and is counted.

use core::cell::Cell;
use core::ptr::NonNull;

/// Copies, and counts what it has copied. Whoever copies has one of its own: it cannot be shared between cores, so that counting
/// never moves a cache line from one to another.
#[derive(Debug, Default)]
pub struct CopyCount(Cell<u64>);

impl CopyCount {
    /// Nothing copied yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Cell::new(0))
    }

    /// Bytes copied so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.get()
    }

    #[inline(always)]
    fn count(&self, bytes: usize) {
        self.0.set(self.0.get().wrapping_add(bytes as u64));
    }

    /// Copies between two places of our own, as a frame that goes from one core to another: as much as fits.
    #[inline]
    pub fn copy(&self, from: &[u8], into: &mut [u8]) {
        let bytes = from.len().min(into.len());
        if let (Some(from), Some(into)) = (from.get(..bytes), into.get_mut(..bytes)) {
            self.count(bytes);
            into.copy_from_slice(from);
        }
    }

    /// Copies from memory that a device may write into memory of our own.
    ///
    /// # Safety
    /// `from..from + into.len()` lies within one `DmaRegion`.
    #[inline]
    pub unsafe fn copy_from_device(&self, from: NonNull<u8>, into: &mut [u8]) {
        self.count(into.len());
        // SAFETY: the caller promised a valid source; a `&mut` slice never overlaps device memory, into which no
        // references exist.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) }
    }

    /// Copies memory of our own to where a device may read it.
    ///
    /// # Safety
    /// `to..to + from.len()` lies within one `DmaRegion`.
    #[inline]
    pub unsafe fn copy_to_device(&self, from: &[u8], to: NonNull<u8>) {
        self.count(from.len());
        // SAFETY: as above, the other way round.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) }
    }
}
