//! Memory that each run takes anew from the same place: a fuzzer runs for hours, and the card's own pools never free.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::Cell;
use std::ptr::NonNull;

use hal_api::DeviceAddress;
use hal_mem::{Arena, DmaRegion, PAGE_BYTES, PagePool};

/// More than any entry takes.
const BYTES: usize = 8 << 20;

thread_local! {
    /// The place, while no run of this thread has it.
    static PLACE: Cell<Option<NonNull<u8>>> = const { Cell::new(None) };
}

/// The memory of one run. Whatever was made of it has to be dropped before it.
pub(crate) struct Memory {
    base: NonNull<u8>,
    used: usize,
}

impl Memory {
    /// All of it, with zeros where the last run has left something.
    pub(crate) fn take() -> Self {
        let base = PLACE.take().unwrap_or_else(|| {
            let layout = Layout::from_size_align(BYTES, PAGE_BYTES).expect("a sane size");
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory for a run")
        });
        Self { base, used: 0 }
    }

    /// The next `bytes`, with zeros.
    fn part(&mut self, bytes: usize) -> NonNull<u8> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        assert!(self.used + bytes <= BYTES, "an entry takes more memory than there is");
        // SAFETY: within the place, as just checked, and nobody else's.
        let part = unsafe { self.base.add(self.used) };
        // SAFETY: as above.
        unsafe { part.write_bytes(0, bytes) };
        self.used += bytes;
        part
    }

    /// An arena.
    pub(crate) fn arena(&mut self, bytes: usize) -> Arena {
        let part = self.part(bytes);
        // SAFETY: the part is given out once in a run, and what lives in it ends before the run does.
        unsafe { Arena::new(part, bytes) }
    }

    /// Memory for a device, which finds it at its own address.
    pub(crate) fn dma(&mut self, bytes: usize) -> DmaRegion {
        let part = self.part(bytes);
        // SAFETY: as above.
        unsafe { DmaRegion::new(part, bytes, DeviceAddress(part.as_ptr() as u64)) }
    }

    /// A pool of data pages.
    pub(crate) fn pool(&mut self, pages: usize) -> PagePool {
        let links = self.arena(pages * 8).slice(pages, |_| 0).expect("room for the links");
        PagePool::new(self.dma(pages * PAGE_BYTES), links)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        PLACE.set(Some(self.base));
    }
}

/// Bytes of the input, taken from the front.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 after the last.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next 16 bits, little-endian.
    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next bytes, as many as there are.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        now
    }
}
