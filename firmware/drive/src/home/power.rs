//! A drive that loses its power loses what its volatile cache held; one that goes without having been flushed may.
//!
//! Hosts have to hear of it by their next Flush, and only then: a false alarm is an I/O error that nobody can explain,
//! silence is lost data. See docs/design/lost-caches.md.

use hal_api::NvmeDevice;
use nvme::log_page::SmartLog;
use nvme::registers::Configuration;

use super::DriveHome;
use super::steps::Wanted;

impl<D: NvmeDevice> DriveHome<D> {
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
            self.want(Wanted::CacheLost);
        }
        self.registers_lost = false;
        if let Some(health) = health {
            self.note_health(health);
        }
    }

    /// Another drive has taken the place: what the old one had not flushed is out of reach, and its health too.
    pub(super) fn another_drive(&mut self) {
        self.want(Wanted::CacheLost);
        self.want(Wanted::NoNamespaces);
        self.smart = None;
    }
}
