//! Virtio over PCI (Virtio 1.2, section 4.1), the modern interface only.
//!
//! The structures are found through vendor capabilities, each checked against its BAR. Interrupts are MSI-X
//! or none, so the ISR structure is not used.

use hal_mem::MmioRegion;

use super::queue::{Notifier, SplitQueue};
use super::{Transport, VirtioError};
use crate::pci::{Function, MsiMessage};

/// Capability of a vendor's own (PCI 3.0, appendix H).
const CAPABILITY_VENDOR: u8 = 0x09;

/// `cfg_type` of a capability (section 4.1.4).
mod structure {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const DEVICE: u8 = 4;
}

/// Offsets in the common configuration structure (section 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub const DEVICE_FEATURE: usize = 0x04;
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub const DRIVER_FEATURE: usize = 0x0c;
    pub const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub const NUM_QUEUES: usize = 0x12;
    pub const DEVICE_STATUS: usize = 0x14;
    pub const CONFIG_GENERATION: usize = 0x15;
    pub const QUEUE_SELECT: usize = 0x16;
    pub const QUEUE_SIZE: usize = 0x18;
    pub const QUEUE_MSIX_VECTOR: usize = 0x1a;
    pub const QUEUE_ENABLE: usize = 0x1c;
    pub const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub const QUEUE_DESC: usize = 0x20;
    pub const QUEUE_DRIVER: usize = 0x28;
    pub const QUEUE_DEVICE: usize = 0x30;
    /// Length up to here, which all modern devices have.
    pub const BYTES: usize = 0x38;
}

/// VIRTIO_MSI_NO_VECTOR.
const NO_VECTOR: u16 = 0xffff;
/// How often the status is read before a reset counts as failed; each read goes over the bus.
const RESET_READS: u32 = 1_000_000;

/// A modern virtio device on PCI.
#[derive(Debug)]
pub struct PciTransport {
    function: Function,
    common: MmioRegion,
    device: MmioRegion,
    notify: NotifyStructure,
}

/// Where and how far apart the queues' notification registers are.
#[derive(Debug)]
struct NotifyStructure {
    window: MmioRegion,
    /// Start of the structure in the window, which begins at a multiple of 4.
    start: usize,
    bytes: usize,
    multiplier: u32,
}

/// The fields of a virtio capability (section 4.1.4), as the device states them.
#[derive(Debug, Clone, Copy)]
struct Place {
    bar: u8,
    offset: usize,
    bytes: usize,
}

impl PciTransport {
    /// Finds the structures of `function` and lets it decode its BARs. The device is not reset yet.
    ///
    /// # Errors
    /// [`VirtioError::NoModernInterface`] when a structure is missing or lies outside its BAR.
    pub fn new(mut function: Function) -> Result<Self, VirtioError> {
        function.enable_memory();
        let (common, _) =
            find(&function, structure::COMMON, common::BYTES).ok_or(VirtioError::NoModernInterface)?;
        let (device, _) = find(&function, structure::DEVICE, 4).ok_or(VirtioError::NoModernInterface)?;
        let notify = find_notify(&function).ok_or(VirtioError::NoModernInterface)?;
        Ok(Self { function, common, device, notify })
    }

    /// Resets the device, and turns MSI-X on with one vector for each of `messages`, as many as the device has, and
    /// bus mastering. Returns how many vectors there are.
    ///
    /// # Errors
    /// [`VirtioError::VectorRefused`] when the function refuses one that it claims to have,
    /// [`VirtioError::ResetTimedOut`] when it does not come out of reset.
    pub fn enable(&mut self, messages: &[MsiMessage]) -> Result<u16, VirtioError> {
        // While the bus is still closed to it: the rings that a loader gave it lie in memory that is ours now.
        self.reset()?;
        let mut vectors = 0;
        for message in messages.iter().take(usize::from(self.function.msix_vectors())) {
            self.function.set_msix_vector(vectors, *message).map_err(|_| VirtioError::VectorRefused)?;
            vectors += 1;
        }
        if vectors > 0 {
            self.function.enable_msix();
        }
        for vector in 0..vectors {
            self.function.unmask_vector(vector);
        }
        self.function.set_bus_master(true);
        Ok(vectors)
    }

    /// The function's address, for logs: bus << 8 | device << 3 | function.
    #[must_use]
    pub fn address(&self) -> u16 {
        self.function.address()
    }

    /// Takes the bus away from the device: it can touch no memory of the card afterwards.
    pub fn disconnect(&mut self) {
        self.function.set_bus_master(false);
    }

    /// Writes a 64-bit field as two 32-bit ones, which every device supports (section 4.1.3.1).
    fn write64(&mut self, offset: usize, value: u64) {
        self.common.write32(offset, value as u32);
        self.common.write32(offset + 4, (value >> 32) as u32);
    }

    /// The register that queue `index`, which is selected, is notified by.
    fn notifier(&self, index: u16) -> Option<Notifier> {
        let number = u32::from(self.common.read16(common::QUEUE_NOTIFY_OFF));
        let offset = number.checked_mul(self.notify.multiplier)? as usize;
        if offset.checked_add(2)? > self.notify.bytes {
            return None;
        }
        let window = self.notify.window.window(0, self.notify.window.len())?;
        Notifier::new(window, self.notify.start.checked_add(offset)?, index)
    }
}

impl Transport for PciTransport {
    fn reset(&mut self) -> Result<(), VirtioError> {
        self.common.write8(common::DEVICE_STATUS, 0);
        for _ in 0..RESET_READS {
            if self.common.read8(common::DEVICE_STATUS) == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(VirtioError::ResetTimedOut)
    }

    fn status(&self) -> u8 {
        self.common.read8(common::DEVICE_STATUS)
    }

    fn set_status(&mut self, status: u8) {
        self.common.write8(common::DEVICE_STATUS, status);
    }

    fn device_features(&mut self) -> u64 {
        self.common.write32(common::DEVICE_FEATURE_SELECT, 0);
        let low = self.common.read32(common::DEVICE_FEATURE);
        self.common.write32(common::DEVICE_FEATURE_SELECT, 1);
        let high = self.common.read32(common::DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    fn set_driver_features(&mut self, features: u64) {
        self.common.write32(common::DRIVER_FEATURE_SELECT, 0);
        self.common.write32(common::DRIVER_FEATURE, features as u32);
        self.common.write32(common::DRIVER_FEATURE_SELECT, 1);
        self.common.write32(common::DRIVER_FEATURE, (features >> 32) as u32);
    }

    fn queue_entries(&mut self, index: u16) -> u16 {
        if index >= self.common.read16(common::NUM_QUEUES) {
            return 0;
        }
        self.common.write16(common::QUEUE_SELECT, index);
        self.common.read16(common::QUEUE_SIZE)
    }

    fn enable_queue(
        &mut self,
        index: u16,
        queue: &SplitQueue,
        vector: Option<u16>,
    ) -> Result<Notifier, VirtioError> {
        self.common.write16(common::QUEUE_SELECT, index);
        self.common.write16(common::QUEUE_SIZE, queue.entries());
        if self.common.read16(common::QUEUE_SIZE) != queue.entries() {
            return Err(VirtioError::BadQueue);
        }
        self.common.write16(common::QUEUE_MSIX_VECTOR, vector.unwrap_or(NO_VECTOR));
        if self.common.read16(common::QUEUE_MSIX_VECTOR) != vector.unwrap_or(NO_VECTOR) {
            return Err(VirtioError::VectorRefused);
        }
        let addresses = queue.addresses();
        self.write64(common::QUEUE_DESC, addresses.descriptors.0);
        self.write64(common::QUEUE_DRIVER, addresses.available.0);
        self.write64(common::QUEUE_DEVICE, addresses.used.0);
        let notifier = self.notifier(index).ok_or(VirtioError::BadQueue)?;
        // The ring was zeroed in memory before the device may look at it.
        hal_mem::device_write_fence();
        self.common.write16(common::QUEUE_ENABLE, 1);
        Ok(notifier)
    }

    fn set_configuration_vector(&mut self, vector: Option<u16>) -> Result<(), VirtioError> {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.common.write16(common::CONFIG_MSIX_VECTOR, vector);
        if self.common.read16(common::CONFIG_MSIX_VECTOR) != vector {
            return Err(VirtioError::VectorRefused);
        }
        Ok(())
    }

    fn configuration_generation(&self) -> u8 {
        self.common.read8(common::CONFIG_GENERATION)
    }

    fn configuration(&self) -> &MmioRegion {
        &self.device
    }
}

/// The first usable capability of `kind` whose structure has at least `least_bytes`, with its offset in
/// configuration space.
fn find(function: &Function, kind: u8, least_bytes: usize) -> Option<(MmioRegion, u16)> {
    places(function, kind).find_map(|(place, capability)| {
        let bar = function.bar(usize::from(place.bar))?;
        let window = bar.window(place.offset, place.bytes)?;
        (window.len() >= least_bytes).then_some((window, capability))
    })
}

/// The notification structure: it may start at an odd multiple of 2 (section 4.1.4.4.1), which a window may not.
fn find_notify(function: &Function) -> Option<NotifyStructure> {
    places(function, structure::NOTIFY).find_map(|(place, capability)| {
        let bar = function.bar(usize::from(place.bar))?;
        let start = place.offset % 4;
        let window = bar.window(place.offset - start, place.bytes.checked_add(start)?)?;
        let multiplier = function.read32(capability.checked_add(16)?);
        let usable = function.read8(capability + 2) >= 20 && place.bytes >= 2 && multiplier.is_multiple_of(2);
        usable.then_some(NotifyStructure { window, start, bytes: place.bytes, multiplier })
    })
}

/// What the capabilities of `kind` say, in the device's order of preference.
fn places(function: &Function, kind: u8) -> impl Iterator<Item = (Place, u16)> {
    function.capabilities().filter(|capability| capability.id == CAPABILITY_VENDOR).filter_map(
        move |capability| {
            let at = capability.offset;
            // A capability that ends beyond the first 256 bytes is none; reads out of range give all ones.
            if at > 0xf0 || function.read8(at + 2) < 16 || function.read8(at + 3) != kind {
                return None;
            }
            let bar = function.read8(at + 4);
            let offset = function.read32(at + 8) as usize;
            let bytes = function.read32(at + 12) as usize;
            (bar <= 5).then_some((Place { bar, offset, bytes }, at))
        },
    )
}

#[cfg(test)]
mod tests;
