//! The one copy function: every payload byte that the firmware moves goes through here and is counted.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

static COPIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Payload bytes copied since boot, over all cores.
#[must_use]
pub fn copied_bytes() -> u64 {
    COPIED_BYTES.load(Ordering::Relaxed)
}

#[inline(always)]
fn count(bytes: usize) {
    // A plain load and store, not an atomic add: one data core writes it; a lost count on another core only
    // blurs a statistic and costs no bus lock on the fast path.
    COPIED_BYTES.store(COPIED_BYTES.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
}

/// Copies between two places of our own, as a frame that goes from one core to another: as much as fits.
#[inline]
pub fn copy_counted(from: &[u8], into: &mut [u8]) {
    let bytes = from.len().min(into.len());
    if let (Some(from), Some(into)) = (from.get(..bytes), into.get_mut(..bytes)) {
        count(bytes);
        into.copy_from_slice(from);
    }
}

/// Copies from memory that a device may write into memory of our own.
///
/// # Safety
/// `from..from + into.len()` lies within one `DmaRegion`.
#[inline]
pub unsafe fn copy_from_device_memory(from: NonNull<u8>, into: &mut [u8]) {
    count(into.len());
    // SAFETY: the caller promised a valid source; a `&mut` slice never overlaps device memory, into which no
    // references exist.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) }
}

/// Copies memory of our own to where a device may read it.
///
/// # Safety
/// `to..to + from.len()` lies within one `DmaRegion`.
#[inline]
pub unsafe fn copy_to_device_memory(from: &[u8], to: NonNull<u8>) {
    count(from.len());
    // SAFETY: as above, the other way round.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) }
}
