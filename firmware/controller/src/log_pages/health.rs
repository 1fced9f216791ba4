//! SMART / Health Information (Base 5.16.1.3): one log made of those of all drives.

use message::configuration::SubsystemPlace;
use nvme::NSID_ALL;
use nvme::log_page::SmartLog;
use zerocopy::FromZeros;

use crate::backend::Backend;
use crate::slot::Controller;
use crate::subsystem::Subsystem;

/// Spare capacity as the card has it while no drive has told.
const FULL_SPARE_PERCENT: u8 = 100;
/// Critical warning bit 1: temperature.
pub(crate) const TEMPERATURE_WARNING: u8 = 1 << 1;

impl Subsystem {
    /// Health of the drive behind `nsid`, or for 0 and FFFFFFFFh of all drives, as this controller sees it.
    pub(super) fn smart(&self, controller: &Controller, nsid: u32, backend: &impl Backend) -> SmartLog {
        let mut health = self.merged_health(controller.subsystem, nsid, backend);
        health.critical_warning = controller.warnings(&health);
        health.error_entries = u128::from(controller.errors.count()).to_le_bytes();
        health
    }

    /// Health of the drive behind `nsid`, or for 0 and FFFFFFFFh of all drives that have a namespace in the subsystem: the worst
    /// temperature, spare and wear, the longest times, all warnings, and the sums of the counts.
    pub(crate) fn merged_health(&self, of: SubsystemPlace, nsid: u32, backend: &impl Backend) -> SmartLog {
        let mut merged = SmartLog::new_zeroed();
        merged.spare_percent = FULL_SPARE_PERCENT;
        let mut seen = [0u64; 4];
        for namespace in self.namespaces.of(of) {
            if !matches!(nsid, 0 | NSID_ALL) && namespace.nsid != nsid {
                continue;
            }
            let drive = namespace.backend.drive;
            let Some(word) = seen.get_mut(usize::from(drive / 64)) else { continue };
            let bit = 1 << (drive % 64);
            if *word & bit != 0 {
                continue;
            }
            *word |= bit;
            if let Some(log) = backend.smart(drive) {
                merge(&mut merged, log);
            }
        }
        merged
    }
}

impl Controller {
    /// The drives' critical warnings, and that of a temperature beyond the controller's thresholds.
    pub(crate) fn warnings(&self, health: &SmartLog) -> u8 {
        let temperature_k = health.temperature_k.get();
        let beyond = temperature_k != 0 && self.features.is_beyond_threshold(temperature_k);
        health.critical_warning | if beyond { TEMPERATURE_WARNING } else { 0 }
    }
}

fn merge(into: &mut SmartLog, drive: &SmartLog) {
    into.critical_warning |= drive.critical_warning;
    into.temperature_k.set(into.temperature_k.get().max(drive.temperature_k.get()));
    into.spare_percent = into.spare_percent.min(drive.spare_percent);
    into.spare_threshold_percent = into.spare_threshold_percent.max(drive.spare_threshold_percent);
    into.used_percent = into.used_percent.max(drive.used_percent);
    into.endurance_warning |= drive.endurance_warning;
    into.warning_minutes.set(into.warning_minutes.get().max(drive.warning_minutes.get()));
    into.critical_minutes.set(into.critical_minutes.get().max(drive.critical_minutes.get()));
    add(&mut into.data_units_read, &drive.data_units_read);
    add(&mut into.data_units_written, &drive.data_units_written);
    add(&mut into.host_reads, &drive.host_reads);
    add(&mut into.host_writes, &drive.host_writes);
    add(&mut into.unsafe_shutdowns, &drive.unsafe_shutdowns);
    add(&mut into.media_errors, &drive.media_errors);
    longest(&mut into.busy_minutes, &drive.busy_minutes);
    longest(&mut into.power_cycles, &drive.power_cycles);
    longest(&mut into.power_on_hours, &drive.power_on_hours);
}

fn add(into: &mut [u8; 16], other: &[u8; 16]) {
    *into = u128::from_le_bytes(*into).saturating_add(u128::from_le_bytes(*other)).to_le_bytes();
}

fn longest(into: &mut [u8; 16], other: &[u8; 16]) {
    *into = u128::from_le_bytes(*into).max(u128::from_le_bytes(*other)).to_le_bytes();
}
