//! Slots for drives in the process, and the hands that put drives in and pull them out.
//!
//! Stricter than hardware: a drive that is set up without power, lent twice, or returned while it may use the bus panics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal_api::{DriveSlots, Indicator, NvmeDevice, SlotError, SlotStart, SlotView};

use crate::FakeNvme;

/// What stands in a slot.
#[derive(Debug, Default)]
enum Stand {
    #[default]
    Nothing,
    /// A drive that nobody uses.
    Drive(FakeNvme),
    /// A drive that was lent, and still stands there.
    Lent,
    /// Something without a driver.
    Other,
}

#[derive(Debug, Default)]
struct Slot {
    stand: Stand,
    /// A drive was lent, there or pulled.
    lent: bool,
    /// Drives that were taken out, or came back after they had been pulled.
    out: Vec<FakeNvme>,
    powered: bool,
    power: Option<Indicator>,
    attention: Option<Indicator>,
    changed: bool,
    button: bool,
    fault: bool,
    /// Looks until the link is up after power-on; `None` where it never comes up.
    link_looks: Option<u32>,
    looks: u32,
    /// Attempts that are answered by [`SlotError::NotReady`].
    not_ready: u32,
}

/// The slots as `control` sees them.
#[derive(Debug)]
pub struct FakeSlots {
    slots: Arc<Mutex<Vec<Slot>>>,
    first_place: u8,
}

/// The hands at the slots.
#[derive(Debug, Clone)]
pub struct SlotsControl {
    slots: Arc<Mutex<Vec<Slot>>>,
}

fn lock(slots: &Mutex<Vec<Slot>>) -> MutexGuard<'_, Vec<Slot>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeSlots {
    /// `count` empty slots without power, for drives in the places from `first_place` on.
    #[must_use]
    pub fn new(count: usize, first_place: u8) -> (Self, SlotsControl) {
        let slot = || Slot { link_looks: Some(2), ..Slot::default() };
        let slots = Arc::new(Mutex::new((0..count).map(|_| slot()).collect()));
        (Self { slots: Arc::clone(&slots), first_place }, SlotsControl { slots })
    }
}

impl SlotsControl {
    /// What stood in the slot at boot was lent then.
    pub fn lent_at_boot(&self, slot: usize) {
        let slot = &mut lock(&self.slots)[slot];
        (slot.stand, slot.lent, slot.powered) = (Stand::Lent, true, true);
    }

    /// Puts a drive in.
    pub fn insert(&self, slot: usize, drive: FakeNvme) {
        let slot = &mut lock(&self.slots)[slot];
        assert!(matches!(slot.stand, Stand::Nothing), "the slot is occupied");
        (slot.stand, slot.changed, slot.looks) = (Stand::Drive(drive), true, 0);
    }

    /// Puts something in that is no drive.
    pub fn insert_other(&self, slot: usize) {
        let slot = &mut lock(&self.slots)[slot];
        assert!(matches!(slot.stand, Stand::Nothing), "the slot is occupied");
        (slot.stand, slot.changed) = (Stand::Other, true);
    }

    /// Pulls out what stands in the slot, used or not. A drive in use must also be told, by
    /// [`NvmeControl::set_removed`](crate::NvmeControl::set_removed).
    pub fn pull(&self, slot: usize) {
        let slot = &mut lock(&self.slots)[slot];
        if let Stand::Drive(drive) = core::mem::take(&mut slot.stand) {
            slot.out.push(drive);
        }
        slot.changed = true;
    }

    /// Takes a drive in the hand that was pulled, or stands in a slot without power.
    #[must_use]
    pub fn take_out(&self, slot: usize) -> Option<FakeNvme> {
        let slot = &mut lock(&self.slots)[slot];
        if !slot.powered && matches!(slot.stand, Stand::Drive(_)) {
            slot.changed = true;
            if let Stand::Drive(drive) = core::mem::take(&mut slot.stand) {
                return Some(drive);
            }
        }
        slot.out.pop()
    }

    /// Presses the attention button.
    pub fn press_button(&self, slot: usize) {
        lock(&self.slots)[slot].button = true;
    }

    /// The slot loses its power once.
    pub fn break_power(&self, slot: usize) {
        lock(&self.slots)[slot].fault = true;
    }

    /// After how many looks the link is up from now on; `None` for never.
    pub fn set_link(&self, slot: usize, looks: Option<u32>) {
        lock(&self.slots)[slot].link_looks = looks;
    }

    /// How many attempts to set up a drive are answered by "not ready" from now on.
    pub fn set_not_ready(&self, slot: usize, attempts: u32) {
        lock(&self.slots)[slot].not_ready = attempts;
    }

    /// Whether the slot has power.
    #[must_use]
    pub fn has_power(&self, slot: usize) -> bool {
        lock(&self.slots)[slot].powered
    }

    /// The lamps as last set: power and attention.
    #[must_use]
    pub fn indicators(&self, slot: usize) -> (Option<Indicator>, Option<Indicator>) {
        let slot = &lock(&self.slots)[slot];
        (slot.power, slot.attention)
    }
}

impl DriveSlots for FakeSlots {
    type Device = FakeNvme;

    fn count(&self) -> usize {
        lock(&self.slots).len()
    }

    fn address(&self, slot: usize) -> u16 {
        (slot as u16 + 1) << 3
    }

    fn start(&self, slot: usize) -> SlotStart {
        SlotStart { place: self.first_place + slot as u8, serving: lock(&self.slots)[slot].lent }
    }

    fn look(&mut self, slot: usize) -> SlotView {
        let slot = &mut lock(&self.slots)[slot];
        let occupied = !matches!(slot.stand, Stand::Nothing);
        if slot.powered {
            slot.looks += 1;
        }
        let trained =
            matches!(slot.stand, Stand::Lent) || slot.link_looks.is_some_and(|looks| slot.looks > looks);
        SlotView {
            occupied,
            link_up: occupied && slot.powered && trained,
            changed: core::mem::take(&mut slot.changed),
            button_pressed: core::mem::take(&mut slot.button),
            power_fault: core::mem::take(&mut slot.fault),
        }
    }

    fn set_power(&mut self, slot: usize, on: bool) {
        let slot = &mut lock(&self.slots)[slot];
        assert!(on || !matches!(slot.stand, Stand::Lent), "power goes off under a drive in use");
        (slot.powered, slot.looks) = (on, 0);
    }

    fn set_indicators(&mut self, slot: usize, power: Indicator, attention: Indicator) {
        let slot = &mut lock(&self.slots)[slot];
        (slot.power, slot.attention) = (Some(power), Some(attention));
    }

    fn take_device(&mut self, slot: usize) -> Result<FakeNvme, SlotError> {
        let slot = &mut lock(&self.slots)[slot];
        assert!(slot.powered, "a drive is set up without power");
        assert!(!slot.lent, "what the slot has for a drive is in use");
        if slot.not_ready > 0 {
            slot.not_ready -= 1;
            return Err(SlotError::NotReady);
        }
        match core::mem::take(&mut slot.stand) {
            Stand::Drive(drive) => {
                (slot.stand, slot.lent) = (Stand::Lent, true);
                Ok(drive)
            }
            other => {
                let is_other = matches!(other, Stand::Other);
                slot.stand = other;
                Err(if is_other { SlotError::NotADrive } else { SlotError::NotReady })
            }
        }
    }

    fn return_device(&mut self, slot: usize, mut device: FakeNvme) {
        assert!(!device.may_use_bus(), "a device comes back that may use the bus");
        for qid in 0..device.queue_pairs() {
            let queue = device.take_queue(qid).expect("all queues come back with their device");
            device.return_queue(qid, queue);
        }
        let slot = &mut lock(&self.slots)[slot];
        assert!(core::mem::take(&mut slot.lent), "a device comes back that was not lent");
        match slot.stand {
            Stand::Lent => slot.stand = Stand::Drive(device),
            _ => slot.out.push(device),
        }
    }
}
