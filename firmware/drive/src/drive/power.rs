//! A drive that loses its power loses what its volatile cache held; one that goes without having been flushed may.
//!
//! Hosts have to hear of it by their next Flush, and only then: a false alarm is an I/O error that nobody can explain,
//! silence is lost data. See docs/design/lost-caches.md.

use hal_api::NvmeDevice;
use hal_mem::PagePool;
use nvme::log_page::SmartLog;
use nvme::registers::Configuration;

use super::{Drive, State};
use crate::events::DriveEvent;
use crate::status::INTERRUPTED;

impl<D: NvmeDevice> Drive<D> {
    /// The drive is gone, or has to go, without a warning: it loses the bus, requests end, what comes is refused, and
    /// what was acknowledged without a Flush counts as lost. The caller collects ends and events, then calls
    /// [`Self::take_apart`].
    pub(crate) fn abandon(&mut self, pool: &mut PagePool) {
        self.let_go(pool);
        self.lose_writes();
        self.rounds.end();
        self.state = State::ShutDown;
    }

    /// Looks whether the controller is still enabled, as the card has left it: registers do not outlive its power.
    pub(super) fn check_registers(&mut self) {
        if !Configuration(self.device.configuration()).enabled() {
            self.registers_lost = true;
        }
    }

    /// The drive is back and has told its health, if it could: decides whether it has lost its power meanwhile.
    pub(super) fn judge_power(&mut self, health: Option<SmartLog>) {
        let kept = match (&self.smart, &health) {
            (Some(before), Some(after)) => {
                let same = before.power_cycles == after.power_cycles
                    && before.unsafe_shutdowns == after.unsafe_shutdowns;
                // A drive that counts has been switched on at least once.
                let counts = before.power_cycles != [0; 16];
                same && (counts || !self.registers_lost)
            }
            _ => !self.registers_lost,
        };
        if !kept {
            self.lose_writes();
        }
        self.registers_lost = false;
        if let Some(health) = health {
            self.note_health(health);
        }
    }

    /// Another drive has taken the place: what the old one had not flushed is out of reach, and its health too.
    pub(super) fn another_drive(&mut self) {
        self.lose_writes();
        self.smart = None;
    }

    /// What the cache held is gone.
    pub(super) fn lose_writes(&mut self) {
        let name = self.name();
        let Some(parts) = &mut self.parts else { return };
        let mut count = 0u32;
        while let Some(nsid) = parts.io.next_unflushed(0) {
            if !parts.io.forget_unflushed(nsid) {
                continue;
            }
            // The host repeats it, and that one fails: once for each loss.
            parts.io.fail_waiting_flushes(nsid, INTERRUPTED);
            // At most one entry for each namespace, and as much room.
            if !self.lost_writes.contains(&nsid) {
                let _ = self.lost_writes.push(nsid);
            }
            count += 1;
        }
        if count > 0 {
            parts.io.counters.lost_caches += 1;
            self.rounds.fail();
            hal_log::error!(
                "drive {}: unflushed writes in its cache are lost or may be; the next Flush of {} namespaces fails",
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
