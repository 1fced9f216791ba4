//! Stand-ins for hardware, stricter than hardware, for tests on the host.
//!
//! The NVMe controller is also the drive of the hosted board and of the simulator: they bring the storage of its
//! namespaces, a [`Media`], and the firmware's driver talks to it as to any drive.

mod drive_slots;
mod frame_queue;
mod nor_flash;

pub use drive_slots::{FakeSlots, SlotsControl};
pub use frame_queue::{FakeFrameQueue, FakeReceive, FakeTransmit, FarEnd, frame_queue_pair};

pub use nor_flash::{Cut, FakeFlash, FlashControl};

mod nvme_device;

pub use nvme_device::{
    CachedMedia, FakeNvme, FakeNvmeQueue, MEDIA_INTERNAL_ERROR, MEDIA_SUCCESS, MEDIA_UNRECOVERED_READ,
    MEDIA_WRITE_FAULT, Media, MediaEnd, MediaOperation, MediaRequest, NvmeAbort, NvmeConfig, NvmeControl,
    NvmeEffect, NvmeInjection, NvmeNamespace, QueueNews, RamMedia, Segment, gather, scatter, segments_of,
};
