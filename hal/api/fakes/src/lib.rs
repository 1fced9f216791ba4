//! Stand-ins for hardware, stricter than hardware, for tests on the host.

mod frame_queue;

pub use frame_queue::{FakeFrameQueue, FakeReceive, FakeTransmit, frame_queue_pair};

mod nvme_device;

pub use nvme_device::{
    FakeNvme, FakeNvmeQueue, NvmeConfig, NvmeControl, NvmeEffect, NvmeInjection, NvmeNamespace,
};
