//! The card's memory, taken from the system.

use std::io;
use std::num::NonZeroUsize;

use hal_api::DeviceAddress;
use hal_mem::DmaRegion;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

/// Memory for `bytes` bytes, zeros, page-aligned; devices reach it at its own address. The system gives each page when
/// it is used first. Never returned.
///
/// # Errors
/// What the system says.
pub fn map_memory(bytes: usize) -> io::Result<DmaRegion> {
    let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a fresh mapping, placed by the system, overlaps nothing of ours.
    let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
    // SAFETY: the range that was just mapped. Large pages are a wish: without them it is only slower.
    let _ = unsafe { madvise(base, bytes, MmapAdvise::MADV_HUGEPAGE) };
    let address = DeviceAddress(base.as_ptr() as u64);
    // SAFETY: mapped for the rest of the program, reached through this value alone.
    Ok(unsafe { DmaRegion::new(base.cast(), bytes, address) })
}
