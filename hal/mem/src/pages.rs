//! Data buffers: chains of 4 KiB pages from a pool of fixed size, one pool for each core.
//!
//! Pages are what NVMe's PRP entries point at, so a chain needs no contiguity. The links stand in private
//! memory next to the pool, never in the pages, where a drive could overwrite them. A [`Pages`] value is a
//! token: whoever holds it may use the pages, and whoever loses it leaks them, which the pool's counts show.

use hal_api::DeviceAddress;

use crate::{CopyCount, DmaRegion};

/// Size of a page in bytes; the memory page size (CC.MPS = 0) used with all drives.
pub const PAGE_BYTES: usize = 4096;

const NONE: u32 = u32::MAX;

/// A chain of pages taken from a [`PagePool`]; give it back with [`PagePool::give_back`].
#[derive(Debug)]
#[must_use = "pages that are dropped are lost to the pool"]
pub struct Pages {
    first: u32,
    last: u32,
    count: u32,
    /// Taken out of a reservation, to which it returns.
    reserved: bool,
}

impl Pages {
    /// No pages. May be dropped.
    pub const NONE: Self = Self { first: NONE, last: NONE, count: 0, reserved: false };

    /// How many pages the chain has.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes fit.
    #[must_use]
    pub const fn capacity_bytes(&self) -> usize {
        self.count as usize * PAGE_BYTES
    }

    /// Whether there is no page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The chain no longer belongs to the reservation that it was taken from, whose owner has been told, and
    /// returns to what anyone may take. For pages that stay away for long: those in quarantine.
    pub const fn detach_from_reservation(&mut self) {
        self.reserved = false;
    }

    /// A place at the start of the chain.
    #[must_use]
    pub const fn start(&self) -> Cursor {
        Cursor { page: self.first, offset: 0, pages_left: self.count }
    }
}

/// A place in a chain of pages. It moves forward only, and never past the chain's end.
///
/// A cursor does not keep its chain alive: using one after its pages were given back reads or writes some
/// other chain's data, so a cursor is stored only beside its [`Pages`].
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    page: u32,
    offset: u32,
    pages_left: u32,
}

impl Cursor {
    /// A place nowhere.
    pub const NONE: Self = Self { page: NONE, offset: 0, pages_left: 0 };

    /// Bytes between here and the end of the chain.
    #[must_use]
    pub const fn left_bytes(&self) -> usize {
        self.pages_left as usize * PAGE_BYTES - self.offset as usize
    }
}

/// Pages of one core, and who may have how many of them.
#[derive(Debug)]
pub struct PagePool {
    region: DmaRegion,
    next: &'static mut [u32],
    pages: u32,
    first_free: u32,
    free: u32,
    /// Promised to reservations and not yet taken out of them; never more than `free`.
    promised: u32,
    /// Fewest pages that anyone could take, so far.
    least_available: u32,
    copied: CopyCount,
}

impl PagePool {
    /// Bytes of private memory that a page needs beside itself: one element of `links`.
    pub const LINK_BYTES: usize = size_of::<u32>();

    /// A pool over the whole pages of `region`, at most as many as `links` has elements.
    #[must_use]
    pub fn new(region: DmaRegion, links: &'static mut [u32]) -> Self {
        debug_assert!(region.device_address().0.is_multiple_of(PAGE_BYTES as u64));
        let pages = (region.len() / PAGE_BYTES).min(links.len()).min(NONE as usize - 1);
        for (index, link) in links.iter_mut().enumerate().take(pages) {
            *link = if index + 1 < pages { index as u32 + 1 } else { NONE };
        }
        let first_free = if pages == 0 { NONE } else { 0 };
        let pages = pages as u32;
        let copied = CopyCount::new();
        Self {
            region,
            next: links,
            pages,
            first_free,
            free: pages,
            promised: 0,
            least_available: pages,
            copied,
        }
    }

    /// Pages that the pool has in all, free or taken.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// Pages that anyone may take now.
    #[must_use]
    pub const fn available(&self) -> u32 {
        self.free - self.promised
    }

    /// Fewest pages that anyone could take at any moment since the start.
    #[must_use]
    pub const fn least_available(&self) -> u32 {
        self.least_available
    }

    /// Pages on the free list, promised ones included. Counted, not derived, so that a leak shows.
    #[must_use]
    pub const fn free(&self) -> u32 {
        self.free
    }

    /// Pages promised to reservations and not yet taken.
    #[must_use]
    pub const fn promised(&self) -> u32 {
        self.promised
    }

    /// Bytes copied into and out of the pages since the start.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied.bytes()
    }

    /// Takes `count` pages; `None` when fewer are available. Their contents are what was there before: every
    /// byte must be written before it is shown to a host.
    pub fn take(&mut self, count: u32) -> Option<Pages> {
        let left = self.available().checked_sub(count)?;
        self.least_available = self.least_available.min(left);
        Some(self.unlink(count, false))
    }

    /// Promises `count` pages to the caller, who takes them by [`PagePool::take_reserved`]. False when fewer
    /// are available.
    #[must_use]
    pub fn reserve(&mut self, count: u32) -> bool {
        let Some(left) = self.available().checked_sub(count) else { return false };
        self.least_available = self.least_available.min(left);
        self.promised += count;
        true
    }

    /// Takes `count` pages out of what was promised by [`PagePool::reserve`]. `None` is a programmer error:
    /// the caller keeps count of its own promise.
    pub fn take_reserved(&mut self, count: u32) -> Option<Pages> {
        if count > self.promised {
            debug_assert!(false, "more pages taken than reserved");
            return None;
        }
        self.promised -= count;
        Some(self.unlink(count, true))
    }

    /// Ends a promise of `count` pages, all of which have come back.
    pub fn unreserve(&mut self, count: u32) {
        debug_assert!(count <= self.promised, "unreserved more than was promised");
        self.promised = self.promised.saturating_sub(count);
    }

    /// Returns a chain, to its reservation if it came from one.
    pub fn give_back(&mut self, pages: Pages) {
        if pages.is_empty() {
            return;
        }
        if let Some(link) = self.next.get_mut(pages.last as usize) {
            *link = self.first_free;
        }
        self.first_free = pages.first;
        self.free += pages.count;
        if pages.reserved {
            self.promised += pages.count;
        }
    }

    /// Where devices find each page of the chain, in order.
    pub fn addresses(&self, pages: &Pages) -> impl Iterator<Item = DeviceAddress> + '_ {
        self.addresses_from(pages.start())
    }

    /// Where devices find the page at the cursor and those after it; the offset in the first is not added.
    pub fn addresses_from(&self, cursor: Cursor) -> impl Iterator<Item = DeviceAddress> + '_ {
        let mut page = cursor.page;
        let mut left = cursor.pages_left;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            left -= 1;
            let address = DeviceAddress(self.region.device_address().0 + u64::from(page) * PAGE_BYTES as u64);
            page = self.next.get(page as usize).copied().unwrap_or(NONE);
            Some(address)
        })
    }

    /// Copies into the chain at the cursor and moves it; returns how much fitted.
    pub fn write(&mut self, cursor: &mut Cursor, mut bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some((place, room)) = self.place(cursor) {
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            if now.is_empty() {
                break;
            }
            // SAFETY: `place()` gives an address inside the region with `room` bytes after it.
            unsafe { self.copied.copy_to_device(now, place) };
            self.advance(cursor, now.len());
            written += now.len();
            bytes = rest;
        }
        written
    }

    /// Copies out of the chain at the cursor and moves it; returns how much there was.
    pub fn read(&self, cursor: &mut Cursor, bytes: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some((place, room)) = self.place(cursor) {
            let now = (bytes.len() - read).min(room);
            if now == 0 {
                break;
            }
            let Some(part) = bytes.get_mut(read..read + now) else { break };
            // SAFETY: `place()` gives an address inside the region with `room` bytes after it.
            unsafe { self.copied.copy_from_device(place, part) };
            self.advance(cursor, now);
            read += now;
        }
        read
    }

    /// Moves the cursor without copying; returns how far it went.
    pub fn skip(&self, cursor: &mut Cursor, bytes: usize) -> usize {
        let mut skipped = 0;
        while let Some((_, room)) = self.place(cursor) {
            let now = (bytes - skipped).min(room);
            if now == 0 {
                break;
            }
            self.advance(cursor, now);
            skipped += now;
        }
        skipped
    }

    fn unlink(&mut self, count: u32, reserved: bool) -> Pages {
        if count == 0 {
            return Pages::NONE;
        }
        let first = self.first_free;
        let mut last = first;
        for _ in 1..count {
            last = self.next.get(last as usize).copied().unwrap_or(NONE);
        }
        self.first_free = match self.next.get_mut(last as usize) {
            Some(link) => core::mem::replace(link, NONE),
            None => NONE,
        };
        self.free -= count;
        Pages { first, last, count, reserved }
    }

    fn place(&self, cursor: &Cursor) -> Option<(core::ptr::NonNull<u8>, usize)> {
        if cursor.pages_left == 0 {
            return None;
        }
        let offset = cursor.page as usize * PAGE_BYTES + cursor.offset as usize;
        if offset + (PAGE_BYTES - cursor.offset as usize) > self.region.len() {
            debug_assert!(false, "cursor of another pool");
            return None;
        }
        // SAFETY: within the region (just checked).
        Some((unsafe { self.region.as_ptr().add(offset) }, PAGE_BYTES - cursor.offset as usize))
    }

    fn advance(&self, cursor: &mut Cursor, bytes: usize) {
        cursor.offset += bytes as u32;
        if cursor.offset as usize == PAGE_BYTES {
            cursor.offset = 0;
            cursor.page = self.next.get(cursor.page as usize).copied().unwrap_or(NONE);
            cursor.pages_left -= 1;
        }
    }

    /// A pool of `pages` pages in ordinary memory for tests on the host.
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn leak_for_host(pages: usize) -> Self {
        extern crate std;
        let links = std::boxed::Box::leak(std::vec![0u32; pages].into_boxed_slice());
        Self::new(DmaRegion::leak_for_host(pages * PAGE_BYTES), links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_writes_reads_and_returns() {
        let mut pool = PagePool::leak_for_host(8);
        let pages = pool.take(3).unwrap();
        assert_eq!(pool.available(), 5);
        let data: Vec<u8> = (0..3 * PAGE_BYTES).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let mut cursor = pages.start();
        assert_eq!(pool.write(&mut cursor, &data[..5000]), 5000);
        assert_eq!(cursor.left_bytes(), 3 * PAGE_BYTES - 5000);
        assert_eq!(pool.write(&mut cursor, &data[5000..]), data.len() - 5000);
        assert_eq!(pool.write(&mut cursor, &[1]), 0);
        let mut back = vec![0; data.len()];
        let mut cursor = pages.start();
        assert_eq!(pool.skip(&mut cursor, 4096), 4096);
        assert_eq!(pool.read(&mut cursor, &mut back[4096..]), 8192);
        assert_eq!(back[4096..], data[4096..]);
        assert_eq!(pool.copied_bytes(), data.len() as u64 + 8192);
        assert_eq!(pool.addresses(&pages).count(), 3);
        pool.give_back(pages);
        assert_eq!((pool.free(), pool.least_available()), (8, 5));
    }

    #[test]
    fn reservations_are_kept_and_come_back_as_reservations() {
        let mut pool = PagePool::leak_for_host(4);
        assert!(pool.reserve(3));
        assert!(!pool.reserve(2));
        assert!(pool.take(2).is_none());
        assert_eq!(pool.least_available(), 1);
        let general = pool.take(1).unwrap();
        let reserved = pool.take_reserved(2).unwrap();
        assert!(pool.take(1).is_none());
        pool.give_back(reserved);
        assert!(pool.take(1).is_none());
        assert_eq!(pool.promised(), 3);
        pool.give_back(general);
        pool.unreserve(3);
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn every_page_has_an_address_of_its_own() {
        let mut pool = PagePool::leak_for_host(16);
        let a = pool.take(5).unwrap();
        let b = pool.take(11).unwrap();
        let mut all: Vec<_> = pool.addresses(&a).chain(pool.addresses(&b)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 16);
        pool.give_back(b);
        pool.give_back(a);
        let all = pool.take(16).unwrap();
        assert_eq!(pool.addresses(&all).count(), 16);
        pool.give_back(all);
    }
}
