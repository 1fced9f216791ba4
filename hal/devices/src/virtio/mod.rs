//! Virtio 1.2 devices: split virtqueues, the PCI transport, the network and the console device.
//!
//! Only the modern interface (VIRTIO_F_VERSION_1) is driven. A device that does not keep to the
//! specification costs its own service and nothing else. Must not depend on a board or an architecture.

mod console;
mod net;
mod pci_transport;
mod queue;

#[cfg(test)]
mod model;

pub use console::VirtioConsole;
pub use net::{
    DeviceSteering, MAX_QUEUE_PAIRS, NetCounters, NetOptions, NetReceive, NetTransmit, VirtioNetPort,
    VirtioNetQueue, checksum_is_acceptable,
};
pub use pci_transport::PciTransport;
pub use queue::{Access, MAX_QUEUE_ENTRIES, Notifier, QueueAddresses, QueueFault, SplitQueue, Used};

use hal_mem::{DmaRegion, MmioRegion};

/// PCI vendor identifier of virtio devices (section 4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// PCI device identifier of a modern network device.
pub const NET_DEVICE: u16 = 0x1041;
/// PCI device identifier of a network device that also has the legacy interface, which is not used.
pub const NET_DEVICE_TRANSITIONAL: u16 = 0x1000;

/// PCI device identifiers of a console device, as above.
pub const CONSOLE_DEVICE: u16 = 0x1043;
/// With the legacy interface, which is not used.
pub const CONSOLE_DEVICE_TRANSITIONAL: u16 = 0x1003;

/// Why a device cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtioError {
    /// A structure that every modern PCI device has is missing or does not fit into its BAR.
    NoModernInterface,
    /// The device did not come out of reset.
    ResetTimedOut,
    /// The device does not offer VIRTIO_F_VERSION_1.
    NotVersion1,
    /// The device did not accept the features that were chosen among its own.
    FeaturesRefused,
    /// The device has too few queues, or one that is unusable.
    BadQueue,
    /// The device or its bus refused an interrupt vector.
    VectorRefused,
    /// The device's configuration changed each time it was read, or holds impossible values.
    BadConfiguration,
    /// The device states no station address.
    NoStationAddress,
    /// The device did not take a command of its control queue.
    ControlRefused,
    /// The DMA memory handed in is too small.
    OutOfMemory,
}

impl VirtioError {
    /// A short description for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoModernInterface => "no modern virtio interface",
            Self::ResetTimedOut => "device stays in reset",
            Self::NotVersion1 => "device is not virtio 1",
            Self::FeaturesRefused => "device refuses the features it offers",
            Self::BadQueue => "unusable virtqueue",
            Self::VectorRefused => "interrupt vector refused",
            Self::BadConfiguration => "impossible device configuration",
            Self::NoStationAddress => "device has no station address",
            Self::ControlRefused => "command refused",
            Self::OutOfMemory => "too little DMA memory",
        }
    }
}

/// VIRTIO_F_EVENT_IDX: interrupts and notifications at an index instead of on and off.
const FEATURE_EVENT_INDEX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
const FEATURE_VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM: the device uses the addresses that the platform gives it, which are physical here.
const FEATURE_ACCESS_PLATFORM: u64 = 1 << 33;
/// VIRTIO_F_ORDER_PLATFORM: the device needs the barriers of the platform's bus, which `hal_mem`'s are.
const FEATURE_ORDER_PLATFORM: u64 = 1 << 36;

/// Device status bits (section 2.1).
mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// How often a configuration that changes while it is read is read again.
const CONFIGURATION_ATTEMPTS: usize = 16;

/// What a driver needs of the bus that its device sits on.
pub trait Transport {
    /// Resets the device.
    ///
    /// # Errors
    /// [`VirtioError::ResetTimedOut`] when it does not come back.
    fn reset(&mut self) -> Result<(), VirtioError>;
    /// The device status byte; all ones when the device is gone.
    fn status(&self) -> u8;
    /// Writes the device status byte.
    fn set_status(&mut self, status: u8);
    /// The features that the device offers.
    fn device_features(&mut self) -> u64;
    /// Writes the features that the driver uses.
    fn set_driver_features(&mut self, features: u64);
    /// Largest number of entries of queue `index`; 0 when there is no such queue.
    fn queue_entries(&mut self, index: u16) -> u16;
    /// Gives queue `index` its memory, and the interrupt `vector`, and enables it.
    ///
    /// # Errors
    /// [`VirtioError::BadQueue`] when the place of its notification is not inside the device's registers,
    /// [`VirtioError::VectorRefused`] when the device has no resources for the vector.
    fn enable_queue(
        &mut self,
        index: u16,
        queue: &SplitQueue,
        vector: Option<u16>,
    ) -> Result<Notifier, VirtioError>;
    /// Sets the interrupt `vector` of configuration changes.
    ///
    /// # Errors
    /// [`VirtioError::VectorRefused`] when the device has no resources for it.
    fn set_configuration_vector(&mut self, vector: Option<u16>) -> Result<(), VirtioError>;
    /// Changes whenever the device-specific configuration may have changed.
    fn configuration_generation(&self) -> u8;
    /// The device-specific configuration.
    fn configuration(&self) -> &MmioRegion;
}

/// Resets the device and agrees on features up to FEATURES_OK (section 3.1.1): those of `wanted` that are
/// offered, with VERSION_1 and what the platform always supports. `choose` may take some of them back, with
/// the device's configuration at hand.
fn negotiate<T: Transport>(
    transport: &mut T,
    wanted: u64,
    choose: impl FnOnce(&T, u64) -> Result<u64, VirtioError>,
) -> Result<u64, VirtioError> {
    transport.reset()?;
    transport.set_status(status::ACKNOWLEDGE);
    transport.set_status(status::ACKNOWLEDGE | status::DRIVER);
    let offered = transport.device_features();
    if offered & FEATURE_VERSION_1 == 0 {
        return Err(VirtioError::NotVersion1);
    }
    let platform = FEATURE_VERSION_1 | FEATURE_ACCESS_PLATFORM | FEATURE_ORDER_PLATFORM;
    let features = choose(transport, offered & (wanted | platform))?;
    transport.set_driver_features(features);
    let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
    transport.set_status(agreed);
    let accepted = transport.status();
    if accepted & status::FEATURES_OK == 0 || accepted & (status::FAILED | status::NEEDS_RESET) != 0 {
        return Err(VirtioError::FeaturesRefused);
    }
    Ok(features)
}

/// DMA memory that a queue of at most `entries` takes, in bytes.
const fn queue_bytes(entries: u16) -> usize {
    SplitQueue::memory_bytes(entries).next_multiple_of(SplitQueue::MEMORY_ALIGN)
}

/// Makes queue `index` of at most `entries`, with memory from `dma`, and enables it.
fn enable_queue<T: Transport>(
    transport: &mut T,
    dma: &mut DmaRegion,
    entries: u16,
    event_index: bool,
    index: u16,
    vector: Option<u16>,
) -> Result<(SplitQueue, Notifier), VirtioError> {
    let most = transport.queue_entries(index).min(entries).min(MAX_QUEUE_ENTRIES);
    // The largest power of two that all of them allow.
    let entries = most.checked_ilog2().map(|bits| 1u16 << bits).ok_or(VirtioError::BadQueue)?;
    let memory = dma
        .split_off(SplitQueue::memory_bytes(entries), SplitQueue::MEMORY_ALIGN)
        .ok_or(VirtioError::OutOfMemory)?;
    let ring = SplitQueue::new(memory, entries, event_index).ok_or(VirtioError::BadQueue)?;
    let notifier = transport.enable_queue(index, &ring, vector)?;
    Ok((ring, notifier))
}

/// Reads several fields of the configuration as of one moment (section 2.5.1).
fn read_consistently<T: Transport, R>(
    transport: &T,
    read: impl Fn(&MmioRegion) -> R,
) -> Result<R, VirtioError> {
    for _ in 0..CONFIGURATION_ATTEMPTS {
        let before = transport.configuration_generation();
        let value = read(transport.configuration());
        if transport.configuration_generation() == before {
            return Ok(value);
        }
    }
    Err(VirtioError::BadConfiguration)
}
