//! Traits by queue between the firmware and the hardware.
//!
//! A trait stands here only when a device and a fake implement it and the firmware uses it. Everything
//! is polled: no call blocks, none allocates. Must not depend on anything but `core`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod byte_stream;
mod command_queue;
mod drive_slots;
mod frame_queue;
mod nor_flash;
mod time;
mod wake;

pub use byte_stream::ByteStream;
pub use command_queue::{
    COMMAND_BYTES, COMPLETION_BYTES, CommandQueue, NvmeDevice, QueueFull, QueueLocation,
};
pub use drive_slots::{DriveSlots, Indicator, SlotError, SlotStart, SlotView};
pub use frame_queue::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit, Moved, PortInfo};
pub use nor_flash::{FlashError, FlashShape, NorFlash};
pub use time::{Clock, Instant};
pub use wake::Wake;

/// Bus, device and function of a requester ID (bus << 8 | device << 3 | function), as people write them.
#[must_use]
pub const fn bus_device_function(requester: u16) -> (u8, u8, u8) {
    ((requester >> 8) as u8, (requester >> 3 & 0x1f) as u8, (requester & 7) as u8)
}

/// An address as a device on the bus sees it: where it reads or writes memory by itself.
///
/// On every present board this equals the physical address, with no IOMMU between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeviceAddress(pub u64);
