//! Slots in which drives come and go while the card runs (PCI Express Base 5.0, 6.7).
//!
//! A slot reports and obeys; when to power it and whom to give its drive is the business of `firmware/control`.

use crate::NvmeDevice;

/// What a slot shows, and what has happened since it was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotView {
    /// Something stands in it.
    pub occupied: bool,
    /// Its link is up, or it cannot tell.
    pub link_up: bool,
    /// Something was put in or taken out meanwhile, whatever stands in it now.
    pub changed: bool,
    /// The attention button was pressed: somebody wants to take the drive out, or has thought better of it.
    pub button_pressed: bool,
    /// It has lost its power.
    pub power_fault: bool,
}

/// How a slot stands at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStart {
    /// The place at the data core for what stands in it: the index among the card's drives.
    pub place: u8,
    /// The data core has its drive already.
    pub serving: bool,
}

/// A lamp of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indicator {
    /// Dark.
    Off,
    /// Steady.
    On,
    /// Blinking.
    Blink,
}

/// Why a slot gives no drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotError {
    /// What stands in it does not answer yet: ask again.
    NotReady,
    /// It is no NVMe drive.
    NotADrive,
    /// It needs more addresses than the slot has.
    NoSpace,
    /// Its registers cannot be used.
    Unusable,
}

impl SlotError {
    /// For logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotReady => "it does not answer",
            Self::NotADrive => "it is no NVMe drive",
            Self::NoSpace => "it needs more addresses than the slot has",
            Self::Unusable => "its registers cannot be used",
        }
    }
}

/// All slots of a card. What a drive needs of the card (addresses, memory for queues, interrupts) is set aside for each
/// slot at boot: [`Self::take_device`] lends it, [`Self::return_device`] takes it back.
pub trait DriveSlots {
    /// The devices that stand in them.
    type Device: NvmeDevice;

    /// How many there are; the others are named by an index below this.
    fn count(&self) -> usize;

    /// The slot's own address for logs, packed as [`NvmeDevice::address`] is.
    fn address(&self, slot: usize) -> u16;

    /// How the slot stands at boot.
    fn start(&self, slot: usize) -> SlotStart;

    /// Looks at a slot, and forgets what has happened.
    fn look(&mut self, slot: usize) -> SlotView;

    /// Switches the slot's power, together with the lamps: [`Self::set_indicators`] is called next. A drive that is to leave may leave once it is off.
    fn set_power(&mut self, slot: usize, on: bool);

    /// Sets the two lamps: power, which says whether the drive may be pulled, and attention, which says that something
    /// is wrong.
    fn set_indicators(&mut self, slot: usize, power: Indicator, attention: Indicator);

    /// Sets up the drive in a slot with power whose link is up. Its bus mastering is off.
    ///
    /// # Errors
    /// [`SlotError`]; nothing is lent then.
    fn take_device(&mut self, slot: usize) -> Result<Self::Device, SlotError>;

    /// Takes back what [`Self::take_device`] gave, or what stood in the slot at boot: with all its queues, bus mastering
    /// off, whether the drive is still there or not.
    fn return_device(&mut self, slot: usize, device: Self::Device);
}
