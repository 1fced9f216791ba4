//! When drives are well again: from then on nothing explains an error any more.

use std::time::Duration;

use hal_api::Instant;

use super::World;
use crate::card::Card;
use crate::kinds::Kind;

/// A drive that has been well for so long has forgotten what was wrong with it.
const WELL_FOR: Duration = Duration::from_secs(1);

impl World {
    /// Looks at drives in trouble: those that have been well for a while are in trouble no more.
    pub(super) fn note_well_drives(&mut self) {
        let now = self.now();
        let drives = self.drives.all.len();
        // Which slot a drive is in is the card's to know: all of them have to be ready, and none about to leave.
        let ready = self.card.as_ref().is_some_and(|card| card.drives_ready() == drives);
        let ready = ready && self.drives.nobody_leaves();
        for index in 0..drives {
            if !self.common.faults.in_trouble(index) {
                continue;
            }
            let well = ready && self.drives.all[index].behaves(now + WELL_FOR);
            let since = &mut self.unwell[index];
            if !well {
                *since = now.max(*since);
            } else if now > *since + WELL_FOR {
                self.common.faults.is_well(index, now);
                self.common.trace.event(Kind::DriveWell, &[index as u64], format_args!("drive {index}"));
            }
        }
    }

    /// Looks at which drives the card does not take for ready.
    pub(super) fn note_unready_drives(&mut self) {
        let now = self.now();
        // It is asked after each turn, and most of the time all are.
        if self.card.as_ref().is_some_and(|card| card.drives_ready() == self.drives.all.len()) {
            return;
        }
        let ready = self.card.as_ref().map_or_else(Vec::new, Card::ready_drives);
        for index in 0..self.drives.all.len() {
            if !ready.contains(&self.drives.all[index].address()) {
                self.common.faults.is_unready(index, now);
            }
        }
    }

    /// All drives may be in trouble until then at least.
    pub(super) fn disturb_all(&mut self, until: Instant) {
        self.common.faults.disturb_all();
        for since in &mut self.unwell {
            *since = until.max(*since);
        }
    }
}
