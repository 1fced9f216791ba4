//! DRAM that nobody uses yet: what the device tree reports, less the image, the tree and what is reserved.

use core::ops::Range;
use core::ptr::NonNull;

use hal_api::DeviceAddress;
use hal_devices::device_tree::Machine;
use hal_mem::{Arena, DmaRegion};
use heapless::Vec;

/// Ranges that the free memory can be split into by what is taken out.
const MAX_FREE: usize = 32;
const PAGE: u64 = 4096;

/// Free DRAM. What is taken never comes back.
#[derive(Debug)]
pub struct FreeMemory {
    ranges: Vec<Range<u64>, MAX_FREE>,
}

impl FreeMemory {
    /// The machine's DRAM without its reserved ranges and without `taken`.
    pub(crate) fn new(machine: &Machine, taken: &[Range<u64>]) -> Self {
        let mut free = Self { ranges: Vec::new() };
        for range in &machine.memory {
            let (start, end) = (range.start.next_multiple_of(PAGE), range.end & !(PAGE - 1));
            if start < end {
                let _ = free.ranges.push(start..end);
            }
        }
        for range in machine.reserved.iter().chain(taken) {
            free.remove(range.start & !(PAGE - 1), range.end.saturating_add(PAGE - 1) & !(PAGE - 1));
        }
        free
    }

    /// What is left, in whole pages.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter()
    }

    /// Bytes left in all.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes of the largest range left: the most that can be taken at once.
    #[must_use]
    pub fn largest_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).max().unwrap_or(0)
    }

    /// Takes `bytes` bytes for devices to use, zeroed, aligned to `align` (a power of two, at least 4096 is used),
    /// rounded up to whole pages. `None`, and nothing is taken, where no range has that much.
    #[must_use]
    pub fn dma(&mut self, bytes: usize, align: usize) -> Option<DmaRegion> {
        let mut region = self.dma_as_found(bytes, align)?;
        let bytes = region.len();
        region.zero(0, bytes);
        Some(region)
    }

    /// As [`FreeMemory::dma`], with the contents that the memory had: for data pages, which are written before they
    /// are read, and of which there is so much that zeroing would be most of the time to boot.
    #[must_use]
    pub fn dma_as_found(&mut self, bytes: usize, align: usize) -> Option<DmaRegion> {
        let (base, bytes) = self.take(bytes, align)?;
        // SAFETY: free DRAM, taken once, mapped Normal at its physical address; no IOMMU is in between.
        Some(unsafe { DmaRegion::new(base, bytes, DeviceAddress(base.as_ptr() as u64)) })
    }

    /// Takes `bytes` bytes for private use. `None`, and nothing is taken, where no range has that much.
    #[must_use]
    pub fn arena(&mut self, bytes: usize) -> Option<Arena> {
        let (base, bytes) = self.take(bytes, PAGE as usize)?;
        // SAFETY: free DRAM, taken once, mapped Normal.
        Some(unsafe { Arena::new(base, bytes) })
    }

    fn take(&mut self, bytes: usize, align: usize) -> Option<(NonNull<u8>, usize)> {
        let align = (align as u64).max(PAGE);
        let bytes = (bytes as u64).max(1).checked_next_multiple_of(PAGE)?;
        let fits = |range: &Range<u64>| {
            let start = range.start.checked_next_multiple_of(align)?;
            start.checked_add(bytes).filter(|end| *end <= range.end).map(|_| start)
        };
        // The smallest range that fits, so that large ones stay whole.
        let candidates = self.ranges.iter().filter_map(|range| Some((range.end - range.start, fits(range)?)));
        let (_, start) = candidates.min()?;
        self.remove(start, start + bytes);
        Some((NonNull::new(start as *mut u8)?, bytes as usize))
    }

    /// Cuts `start..end` out. Where the list is full, the upper part of a split range is lost.
    fn remove(&mut self, start: u64, end: u64) {
        let mut index = 0;
        while let Some(range) = self.ranges.get_mut(index) {
            if range.end <= start || end <= range.start {
                index += 1;
                continue;
            }
            let (lower, upper) = (range.start..start, end..range.end);
            match (lower.start < lower.end, upper.start < upper.end) {
                (true, true) => {
                    *range = lower;
                    let _ = self.ranges.push(upper);
                    index += 1;
                }
                (true, false) => {
                    *range = lower;
                    index += 1;
                }
                (false, true) => {
                    *range = upper;
                    index += 1;
                }
                (false, false) => {
                    self.ranges.swap_remove(index);
                }
            }
        }
    }
}
