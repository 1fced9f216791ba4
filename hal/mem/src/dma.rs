//! A range of memory that devices read and write by themselves.

use core::ptr::NonNull;

use hal_api::DeviceAddress;

/// A range of memory shared with devices, carved at boot and never returned.
#[derive(Debug)]
pub struct DmaRegion {
    base: NonNull<u8>,
    bytes: usize,
    device: DeviceAddress,
}

// SAFETY: the region is owned by whoever holds the value, and plain memory has no thread affinity.
unsafe impl Send for DmaRegion {}

impl DmaRegion {
    /// # Safety
    /// `base..base + bytes` is valid, owned by the value for the rest of the program, mapped Normal
    /// and coherent with devices, which see it at `device`; nobody holds a Rust reference into it.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, bytes: usize, device: DeviceAddress) -> Self {
        Self { base, bytes, device }
    }

    /// Where devices see the first byte.
    #[must_use]
    pub const fn device_address(&self) -> DeviceAddress {
        self.device
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the region has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The first byte, for drivers in `hal` that keep rings in the region and access it by volatile reads and
    /// writes alone.
    #[must_use]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.base
    }

    /// Splits off the first `bytes`, rounded up to `align` (a power of two) at both ends; `None`, and nothing
    /// is lost, when there is not enough.
    #[must_use]
    pub fn split_off(&mut self, bytes: usize, align: usize) -> Option<Self> {
        debug_assert!(align.is_power_of_two());
        let start = (self.device.0 as usize).wrapping_neg() & (align - 1);
        let length = bytes.checked_next_multiple_of(align)?;
        let end = start.checked_add(length)?;
        if end > self.bytes {
            return None;
        }
        // SAFETY: `start` and `end` lie inside the region, whose promise both parts inherit; they do not overlap.
        let part =
            unsafe { Self::new(self.base.add(start), length, DeviceAddress(self.device.0 + start as u64)) };
        // SAFETY: `end` is at most the length.
        self.base = unsafe { self.base.add(end) };
        self.bytes -= end;
        self.device.0 += end as u64;
        Some(part)
    }

    /// Fills `offset..offset + bytes` with zeros; out of range is a programmer error and does nothing.
    pub fn zero(&mut self, offset: usize, bytes: usize) {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            debug_assert!(false, "zero() out of range");
            return;
        }
        // SAFETY: in range, and the constructor promised valid memory without references into it.
        unsafe { self.base.add(offset).write_bytes(0, bytes) }
    }

    /// A region in ordinary memory for tests on the host, which a fake device reaches at its own address. It
    /// is never freed.
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn leak_for_host(bytes: usize) -> Self {
        extern crate std;
        // Aligned by hand: an allocator that is asked for it writes the zeros, and touches memory that no test may ever use.
        const ALIGN: usize = 4096;
        let layout = std::alloc::Layout::from_size_align(bytes + ALIGN, 16).expect("a sane size");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        // Less than ALIGN further on, which the layout has besides; null stays null.
        let base = base.wrapping_add(base.align_offset(ALIGN));
        let base = NonNull::new(base).expect("memory for a test");
        // SAFETY: fresh, zeroed, leaked, and only reached through this value.
        unsafe { Self::new(base, bytes, DeviceAddress(base.as_ptr() as u64)) }
    }
}
