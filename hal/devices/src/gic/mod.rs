//! Arm's generic interrupt controller: versions 2 (IHI 0048) and 3 (IHI 0069), and message-signalled interrupts
//! through a GICv2m frame or a GICv3 interrupt translation service.
//!
//! Interrupts only wake sleeping cores, so they have one priority, one group (1) and no table of handlers. Where group 0
//! is ours, it is the watchdog's: its two interrupts come as FIQ, which stays unmasked. The system registers of version
//! 3 are the business of `hal/arch`.

mod its;
mod v2;
mod v3;

pub use its::{Its, ItsError};
pub use v2::{CpuInterfaceV2, DistributorV2, V2m};
pub use v3::{DistributorV3, LpiTables, Redistributor, find_redistributor};

use crate::pci::MsiMessage;

/// Most cores that an interrupt can be sent to.
pub const MAX_CORES: usize = 8;

/// The software-generated interrupt by which a core wakes another.
pub const WAKE_INTERRUPT: u32 = 1;

/// The software-generated interrupt of group 0 by which a core that has found a bug stops another.
pub const STOP_INTERRUPT: u32 = 2;

/// Interrupts that a core acknowledges at a time. A device that floods the core with messages, or a line that stays
/// raised, then makes it poll; it does not hold it.
pub const MOST_ACKNOWLEDGED: u32 = 1024;

/// The priority of all interrupts; any value that the mask 0xff lets through will do.
const PRIORITY: u32 = 0xa0;

/// The priority of the watchdog's two, ahead of the others.
const WATCH_PRIORITY: u8 = 0x20;

/// The private interrupts of group 0, as bits, where `watch` is the timer's.
const fn watch_bits(watch: Option<u32>) -> u32 {
    match watch {
        Some(watch) => 1 << STOP_INTERRUPT | 1 << (watch & 31),
        None => 0,
    }
}

/// Gives devices messages that wake cores.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one value exists, and there is no heap to box it in")]
pub enum MsiController {
    /// Through a translation service: many, each device with its own range of events.
    Its(Its),
    /// Through a GICv2m frame: as many as the frame has interrupts.
    V2m(V2m),
}

impl MsiController {
    /// A message that wakes `core`, for the device known as `device` (for PCIe: the requester id, mapped by the
    /// tree's `msi-map`). `None` when the controller has no more; then the device has to be polled.
    pub fn allocate(&mut self, device: u32, core: usize) -> Option<MsiMessage> {
        match self {
            Self::Its(its) => its.allocate(device, core),
            Self::V2m(frame) => frame.allocate(core),
        }
    }

    /// Raises the interrupt of a message that was given to `device`, as the device would: to check the way from
    /// here to the core.
    pub fn raise(&mut self, device: u32, message: MsiMessage) {
        match self {
            Self::Its(its) => its.raise(device, message),
            Self::V2m(frame) => frame.raise(message),
        }
    }

    /// What it is, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Its(_) => "ITS",
            Self::V2m(_) => "GICv2m",
        }
    }
}

#[cfg(test)]
mod tests;
