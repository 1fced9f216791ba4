//! A drive that loses its power loses what its volatile cache held.
//!
//! Hosts have to hear of it by their next Flush, and only then: a false alarm is an I/O error that nobody can explain,
//! silence is lost data. See docs/design/lost-caches.md.

use hal_api::NvmeDevice;
use hal_mem::PagePool;

use super::{Drive, State};
use crate::events::DriveEvent;
use crate::status::WRITES_LOST;

impl<D: NvmeDevice> Drive<D> {
    /// The drive is gone, or has to go, without a warning: it loses the bus, requests end, what comes is refused, and
    /// what was acknowledged without a Flush counts as lost. The caller collects ends and events, then calls
    /// [`Self::take_apart`].
    pub(crate) fn abandon(&mut self, pool: &mut PagePool) {
        self.let_go(pool);
        self.rounds.give_up();
        self.lose_writes();
        self.state = State::ShutDown;
    }

    /// What the cache held is gone.
    pub(super) fn lose_writes(&mut self) {
        let name = self.name();
        let Some(parts) = &mut self.parts else { return };
        let mut count = 0u32;
        while let Some(nsid) = parts.io.next_unflushed(0) {
            parts.io.forget_unflushed(nsid);
            parts.io.fail_waiting_flushes(nsid, WRITES_LOST);
            // At most one entry for each namespace, and as much room.
            if !self.lost_writes.contains(&nsid) {
                let _ = self.lost_writes.push(nsid);
            }
            count += 1;
        }
        if count > 0 {
            parts.io.counters.lost_caches += 1;
            hal_log::error!(
                "drive {}: lost power with unflushed writes in its cache; the next Flush of {} namespaces fails",
                name.as_str(),
                count
            );
        }
    }

    /// Whether there are losses that the caller was not told.
    pub(crate) fn has_lost_writes(&self) -> bool {
        !self.lost_writes.is_empty()
    }

    /// A loss that the caller was not told.
    pub(super) fn take_lost_writes(&mut self) -> Option<DriveEvent> {
        let nsid = self.lost_writes.pop()?;
        Some(DriveEvent::WritesLost { nsid })
    }
}
