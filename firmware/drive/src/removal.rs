//! Taking a drive out of its place, so that another can come.
//!
//! In order: the requests inside end, the drive is flushed and told to shut down (CC.SHN), then it loses the bus, each
//! step within its limit ([`crate::Drive`]); one that is being reset is waited for. A drive that was
//! pulled loses the bus at once. Either way all requests come to an end at their hosts before the drive is taken apart into
//! its device and the memory of its tables.

use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;

use crate::drives::{Occupant, Place};

/// A drive that is out.
#[derive(Debug)]
pub struct Removed<D> {
    /// The device with its queues, off the bus.
    pub device: D,
    /// The number that it had.
    pub number: u8,
    /// It was removed in order, and had shut down in time.
    pub in_order: bool,
}

/// Where the removal of a drive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The drive shuts down.
    Ending,
    /// It is off the bus; ends of requests are being collected.
    Off { in_order: bool },
    /// Its home, which is another core, is about to remove it.
    Elsewhere,
    /// Its home has removed it; ends of requests are being collected.
    Gone,
}

impl<D: NvmeDevice> Occupant<D> {
    pub fn begin_removal(&mut self, in_order: bool, now: Instant, pool: &mut PagePool) {
        match (self.removal, in_order && self.drive.is_at_work()) {
            // Pulled while it was being shut down.
            (Some(Removal::Ending) | None, false) => {
                self.drive.leave(false, now, pool);
                self.removal = Some(Removal::Off { in_order: false });
            }
            (None, true) => {
                self.drive.leave(true, now, pool);
                self.removal = Some(Removal::Ending);
            }
            (Some(_), _) => {}
        }
    }

    /// Goes on with the removal; true when the drive can be taken apart.
    fn is_out(&mut self) -> Option<bool> {
        match self.removal? {
            Removal::Ending => {
                if self.drive.is_shut_down() {
                    self.removal = Some(Removal::Off { in_order: self.drive.has_ended_well() });
                }
                None
            }
            Removal::Off { in_order } => {
                let told = self.drive.is_shut_down()
                    && self.drive.outstanding() == 0
                    && !self.drive.has_lost_writes();
                (told && self.drive.has_left()).then_some(in_order)
            }
            Removal::Elsewhere | Removal::Gone => None,
        }
    }
}

impl<D: NvmeDevice> Place<D> {
    /// Lets go of a drive that its home has removed; true when that is done.
    pub(crate) fn let_go(&mut self, pool: &mut PagePool) -> bool {
        let is_empty = |occupant: &mut Occupant<D>| {
            let (removal, drive) = (occupant.removal, &occupant.drive);
            let told = !drive.has_lost_writes() && !drive.has_messages();
            removal == Some(Removal::Gone) && drive.outstanding() == 0 && told
        };
        let Some(occupant) = self.occupant.take_if(is_empty) else { return false };
        self.memory = Some(occupant.drive.take_apart(pool).1);
        true
    }

    pub(crate) fn take_removed(&mut self, pool: &mut PagePool) -> Option<Removed<D>> {
        let in_order = self.occupant.as_mut()?.is_out()?;
        let occupant = self.occupant.take()?;
        let (device, memory) = occupant.drive.take_apart(pool);
        self.memory = Some(memory);
        Some(Removed { device: device?, number: occupant.number, in_order })
    }
}
