//! Taking a drive out of its place, so that another can come.
//!
//! In order: the requests inside end, the drive is told to shut down (CC.SHN), then it loses the bus. A drive that was
//! pulled loses the bus at once. Either way all requests come to an end at their hosts before the drive is taken apart
//! into its device and the memory of its tables.

use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;

use crate::drives::{Occupant, Place};
use crate::limits::{REMOVAL_LIMIT, REQUEST_TIMEOUT};

const _: () = assert!(REQUEST_TIMEOUT.as_secs() <= REMOVAL_LIMIT.as_secs());

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
    /// Requests end.
    Draining { deadline: Instant },
    /// The drive shuts down.
    Ending { deadline: Instant },
    /// It is off the bus; ends of requests are being collected.
    Off { in_order: bool },
}

impl<D: NvmeDevice> Occupant<D> {
    pub fn begin_removal(&mut self, in_order: bool, now: Instant, pool: &mut PagePool) {
        match (self.removal, in_order && self.drive.is_ready()) {
            // Pulled while it was being shut down.
            (Some(Removal::Draining { .. } | Removal::Ending { .. }) | None, false) => {
                self.drive.abandon(pool);
                self.removal = Some(Removal::Off { in_order: false });
            }
            (None, true) => {
                self.removal = Some(Removal::Draining { deadline: now + REMOVAL_LIMIT });
            }
            (Some(_), _) => {}
        }
    }

    /// Goes on with the removal; true when the drive can be taken apart.
    fn is_out(&mut self, now: Instant, pool: &mut PagePool) -> Option<bool> {
        match self.removal? {
            Removal::Draining { deadline } => {
                if self.drive.outstanding() == 0 || !self.drive.is_ready() || now >= deadline {
                    self.drive.shutdown(pool);
                    self.removal = Some(Removal::Ending { deadline });
                }
                None
            }
            Removal::Ending { deadline } => {
                let in_order = self.drive.is_shut_down();
                if in_order || now >= deadline {
                    self.drive.abandon(pool);
                    self.removal = Some(Removal::Off { in_order });
                }
                None
            }
            Removal::Off { in_order } => (self.drive.outstanding() == 0).then_some(in_order),
        }
    }
}

impl<D: NvmeDevice> Place<D> {
    pub(crate) fn take_removed(&mut self, now: Instant, pool: &mut PagePool) -> Option<Removed<D>> {
        let in_order = self.occupant.as_mut()?.is_out(now, pool)?;
        let occupant = self.occupant.take()?;
        let (device, memory) = occupant.drive.take_apart(pool);
        self.memory = memory;
        Some(Removed { device, number: occupant.number, in_order })
    }
}
