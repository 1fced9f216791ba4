//! A drive that several owners of requests want at once: each has so many bytes of data there, and no more before some of
//! them are home. What a drive takes first is its own business, so that fair is what it is given.

use hal_api::{CommandQueue, Instant};

use super::DriveQueue;
use super::issue::Blocked;
use crate::limits::{OWNERS, SHARED_DRIVE_BYTES, UNKNOWN_COST_BYTES};
use crate::plan::Plan;
use crate::shared_lately::SharedLately;
use crate::tables::{Active, Place};

/// What each owner has at the drive, and whose requests came.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Bytes that each owner's parts that are out count.
    at_drive: &'static mut [u32; OWNERS],
    /// Owners that have any.
    owners: u16,
    /// Owners share, whatever they have at the drive.
    lately: SharedLately<u16>,
    /// All that is pending waits for data of its own owner to come home.
    pub all_had_theirs: bool,
}

impl Sharing {
    pub fn new(at_drive: &'static mut [u32; OWNERS]) -> Self {
        Self { at_drive, owners: 0, lately: SharedLately::new(), all_had_theirs: false }
    }

    /// The memory, for another drive. Nothing may be out.
    pub fn into_memory(self) -> &'static mut [u32; OWNERS] {
        debug_assert!(self.owners == 0);
        self.at_drive
    }

    /// An owner has a request.
    pub fn note(&mut self, owner: u16, now: Instant) {
        self.lately.note(owner, now);
    }

    /// A part of so many blocks goes to the drive.
    pub fn begin(&mut self, active: &Active, blocks: u32) {
        if let Some(cost) = cost_bytes(active, blocks) {
            let Some(out) = self.out(active.request.owner) else { return };
            let had = core::mem::replace(out, out.wrapping_add(cost));
            self.owners += u16::from(had == 0);
        }
    }

    /// It has come home.
    pub fn end(&mut self, active: &Active, blocks: u32) {
        if let Some(cost) = cost_bytes(active, blocks) {
            let Some(out) = self.out(active.request.owner) else { return };
            *out = out.wrapping_sub(cost);
            let has_none = *out == 0;
            self.owners = self.owners.saturating_sub(u16::from(has_none));
        }
    }

    /// The most that an owner's next part may count, in bytes.
    ///
    /// # Errors
    /// The owner has its share at the drive.
    pub fn part_bytes(&mut self, owner: u16, now: Instant) -> Result<u32, Blocked> {
        let out = self.out(owner).map_or(0, |out| *out);
        let has_others = self.owners > u16::from(out > 0);
        if !self.lately.is_shared(now) && !has_others {
            return Ok(u32::MAX);
        }
        // A part may go beyond it: else an owner's small requests could keep its large ones waiting.
        if out < SHARED_DRIVE_BYTES { Ok(SHARED_DRIVE_BYTES) } else { Err(Blocked::Share) }
    }

    fn out(&mut self, owner: u16) -> Option<&mut u32> {
        self.at_drive.get_mut(usize::from(owner) % OWNERS)
    }
}

/// What a part of so many blocks counts at the drive; `None` where the share is none of its business: of what uses the
/// scratch pages there is one part at a time for each drive.
pub(super) fn cost_bytes(active: &Active, blocks: u32) -> Option<u32> {
    match active.plan {
        // What moves no data keeps a drive from others as well, in the worst case as long as a write of its blocks.
        Plan::Data { .. } | Plan::NoData { .. } | Plan::WriteZeroPage { .. } => {
            Some(blocks << active.request.block_shift)
        }
        Plan::Flush | Plan::Dataset | Plan::CutDataset => Some(UNKNOWN_COST_BYTES),
        Plan::Nothing | Plan::Scratch { .. } | Plan::Copy { .. } => None,
    }
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// Whether some request is pending that others must not overtake.
    pub(super) fn waits_for_room(&self) -> bool {
        !self.sharing.all_had_theirs && self.requests.first(Place::Pending).is_some()
    }
}
