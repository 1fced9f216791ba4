//! The slots behind hot-plug capable root ports, with what each has for a drive: memory for its rings and messages for
//! its vectors, set aside at boot and used again for every drive that comes.

use hal_api::{DriveSlots, Indicator, SlotError, SlotStart, SlotView};
use heapless::Vec;

use crate::inventory::MAX_DRIVES;
use crate::nvme::{self, NvmeController, NvmeError, QUEUE_PAIRS_MAX, RingMemory};
use crate::pci::{MsiMessage, PciError, Slot};

/// Messages of a drive: one for each queue pair.
pub(crate) type Messages = Vec<MsiMessage, { QUEUE_PAIRS_MAX as usize }>;

/// A slot and what it has for a drive.
#[derive(Debug)]
pub struct DriveSlot {
    pub(crate) slot: Slot,
    /// `None` while a drive has it.
    pub(crate) rings: Option<RingMemory>,
    pub(crate) messages: Messages,
    /// Where its drive is in the list of all drives.
    pub(crate) place: u8,
}

/// All slots in which drives can come and go.
#[derive(Debug, Default)]
pub struct PciDriveSlots {
    pub(crate) slots: Vec<DriveSlot, MAX_DRIVES>,
}

impl DriveSlots for PciDriveSlots {
    type Device = NvmeController;

    fn count(&self) -> usize {
        self.slots.len()
    }

    fn address(&self, slot: usize) -> u16 {
        self.slots.get(slot).map_or(0, |slot| slot.slot.address())
    }

    fn start(&self, slot: usize) -> SlotStart {
        let slot = self.slots.get(slot);
        SlotStart {
            place: slot.map_or(0, |slot| slot.place),
            serving: slot.is_some_and(|slot| slot.rings.is_none()),
        }
    }

    fn look(&mut self, slot: usize) -> SlotView {
        self.slots.get_mut(slot).map(|slot| slot.slot.look()).unwrap_or_default()
    }

    fn set_power(&mut self, slot: usize, on: bool) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.slot.set_power(on);
        }
    }

    fn set_indicators(&mut self, slot: usize, power: Indicator, attention: Indicator) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.slot.set_indicators(power, attention);
        }
    }

    fn take_device(&mut self, slot: usize) -> Result<NvmeController, SlotError> {
        let slot = self.slots.get_mut(slot).ok_or(SlotError::NotReady)?;
        let function = match slot.slot.set_up() {
            Ok(function) => function,
            Err(PciError::NotReady) => return Err(SlotError::NotReady),
            Err(PciError::NotAFunction) => return Err(SlotError::NotADrive),
            Err(PciError::NoSpace) => return Err(SlotError::NoSpace),
            Err(_) => return Err(SlotError::Unusable),
        };
        if function.class() != nvme::CLASS {
            return Err(SlotError::NotADrive);
        }
        // Memory that did not come back with a drive is missing for ever.
        let rings = slot.rings.take().ok_or(SlotError::Unusable)?;
        NvmeController::new(function, rings, &slot.messages).map_err(|(error, rings)| {
            slot.rings = Some(rings);
            if error == NvmeError::Gone { SlotError::NotReady } else { SlotError::Unusable }
        })
    }

    fn return_device(&mut self, slot: usize, device: NvmeController) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        slot.rings = device.into_rings();
        if slot.rings.is_none() {
            hal_log::error!("a drive comes back without one of its queues: its slot is of no use any more");
        }
    }
}
