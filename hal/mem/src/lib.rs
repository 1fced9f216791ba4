//! DMA memory, page pools, rings between cores, fences, MMIO and the counted copies.
//!
//! Everything that a device may touch lives in a [`DmaRegion`]. Nobody holds a Rust reference to such
//! memory: it is reached through copies ([`PagePool::read`], [`PagePool::write`]) and volatile accesses,
//! so that a device writing at the wrong moment can change data but never break the language's rules.
#![cfg_attr(not(test), no_std)]

mod arena;
mod bell;
mod copy;
mod dma;
mod fence;
mod frame_ring;
mod mmio;
mod pages;
mod ring;
mod sync;

pub use arena::{Arena, OutOfMemory};
pub use bell::Bell;
pub use copy::CopyCount;
pub use dma::DmaRegion;
pub use fence::{device_full_fence, device_read_fence, device_write_fence};
pub use frame_ring::{FrameConsumer, FrameProducer, frame_ring, frame_ring_bytes};
pub use mmio::MmioRegion;
pub use pages::{Cursor, PAGE_BYTES, PagePool, Pages};
pub use ring::{Consumer, Producer, Ring};
