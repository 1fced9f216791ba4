//! Get Log Page (Base 5.16).

use core::fmt::Write;
use core::net::IpAddr;

use heapless::String;
use nvme::log_page::{DiscoveryEntry, DiscoveryHeader, ErrorEntry, FirmwareSlotLog, SmartLog, effect, id};
use nvme::opcode::{admin, io};
use nvme::{Command, NSID_ALL, Status};
use zerocopy::{FromZeros, IntoBytes};

use crate::admit::Transfer;
use crate::backend::Backend;
use crate::config::{ERROR_LOG_ENTRIES, MIN_ADMIN_ENTRIES};
use crate::slot::Controller;
use crate::subsystem::{Listener, Subsystem};
use crate::window::Window;

/// OT of dword 14: the offset is an index, which no page here has.
const OFFSET_TYPE: u32 = 1 << 23;
/// Bit 0 of an entry of Supported Log Pages: LSUPP.
const LOG_SUPPORTED: u32 = 1;
const EFFECTS_BYTES: u64 = 4096;
const SUPPORTED_PAGES_BYTES: u64 = 1024;
/// Offset of the I/O commands in the Commands Supported and Effects log.
const IO_EFFECTS_AT: u64 = 1024;
/// Spare capacity as the card has it while no drive has told.
const FULL_SPARE_PERCENT: u8 = 100;
/// Critical warning bit 1: temperature.
const TEMPERATURE_WARNING: u8 = 1 << 1;

const IO_PAGES: [u8; 6] =
    [id::SUPPORTED, id::ERROR, id::SMART, id::FIRMWARE_SLOT, id::CHANGED_NAMESPACES, id::COMMAND_EFFECTS];
const DISCOVERY_PAGES: [u8; 3] = [id::SUPPORTED, id::ERROR, id::DISCOVERY];

const ADMIN_COMMANDS: [u8; 7] = [
    admin::GET_LOG_PAGE,
    admin::IDENTIFY,
    admin::ABORT,
    admin::SET_FEATURES,
    admin::GET_FEATURES,
    admin::ASYNC_EVENT_REQUEST,
    admin::KEEP_ALIVE,
];
const READING_COMMANDS: [u8; 4] = [io::FLUSH, io::READ, io::COMPARE, io::VERIFY];
const WRITING_COMMANDS: [u8; 3] = [io::WRITE, io::WRITE_ZEROES, io::DATASET_MANAGEMENT];

/// LPO: where in the page to begin, in bytes.
fn page_offset(command: &Command) -> u64 {
    u64::from(command.cdw13.get()) << 32 | u64::from(command.cdw12.get())
}

impl Subsystem {
    pub(crate) fn admit_log_page(
        &self,
        controller: &Controller,
        command: &Command,
    ) -> Result<Transfer, Status> {
        let invalid_field = Status::INVALID_FIELD.do_not_retry();
        let page = command.cdw10.get() as u8;
        let pages: &[u8] = if controller.discovery { &DISCOVERY_PAGES } else { &IO_PAGES };
        if !pages.contains(&page) {
            return Err(Status::INVALID_LOG_PAGE.do_not_retry());
        }
        if command.cdw14.get() & OFFSET_TYPE != 0 {
            return Err(invalid_field);
        }
        // Only the effects log is one of a command set, and there is only the NVM one.
        if page == id::COMMAND_EFFECTS && command.cdw14.get() >> 24 != 0 {
            return Err(invalid_field);
        }
        let nsid = command.nsid.get();
        let is_of_namespace = !matches!(nsid, 0 | NSID_ALL);
        if is_of_namespace && page == id::SMART && self.namespaces.find(nsid).is_none() {
            return Err(Status::INVALID_NAMESPACE.do_not_retry());
        }
        let offset = page_offset(command);
        if !offset.is_multiple_of(4) || offset > self.page_bytes(page) {
            return Err(invalid_field);
        }
        let dwords = u64::from(command.cdw11.get() & 0xffff) << 16 | u64::from(command.cdw10.get() >> 16);
        let bytes = (dwords + 1) * 4;
        if bytes > u64::from(self.config.max_transfer_bytes()) {
            return Err(invalid_field);
        }
        Ok(Transfer::ToHost { bytes: bytes as u32 })
    }

    /// Size of a page that there is.
    fn page_bytes(&self, page: u8) -> u64 {
        match page {
            id::SUPPORTED => SUPPORTED_PAGES_BYTES,
            id::ERROR => (ERROR_LOG_ENTRIES * size_of::<ErrorEntry>()) as u64,
            id::SMART => size_of::<SmartLog>() as u64,
            id::FIRMWARE_SLOT => size_of::<FirmwareSlotLog>() as u64,
            id::CHANGED_NAMESPACES => 4096,
            id::COMMAND_EFFECTS => EFFECTS_BYTES,
            id::DISCOVERY => {
                (size_of::<DiscoveryHeader>() + self.listeners.len() * size_of::<DiscoveryEntry>()) as u64
            }
            _ => 0,
        }
    }

    /// Writes `into`, data of an admitted Get Log Page from byte `offset` of the transfer on. What lies beyond the
    /// end of the page is zeros.
    pub(crate) fn fill_log_page(
        &self,
        controller: &Controller,
        command: &Command,
        offset: u32,
        into: &mut [u8],
        backend: &impl Backend,
    ) {
        let mut window = Window::new(page_offset(command).saturating_add(u64::from(offset)), into);
        match command.cdw10.get() as u8 {
            id::SUPPORTED => {
                let pages: &[u8] = if controller.discovery { &DISCOVERY_PAGES } else { &IO_PAGES };
                for &page in pages {
                    window.put(u64::from(page) * 4, &LOG_SUPPORTED.to_le_bytes());
                }
            }
            id::ERROR => {
                for (index, entry) in controller.errors.newest_first().enumerate() {
                    window.put((index * size_of::<ErrorEntry>()) as u64, entry.as_bytes());
                }
            }
            id::SMART => {
                let log = self.smart(controller, command.nsid.get(), backend);
                window.put(0, log.as_bytes());
            }
            id::FIRMWARE_SLOT => {
                const SLOT_1_ACTIVE: u8 = 1;
                const SLOT_1_AT: u64 = 8;
                window.put(0, &[SLOT_1_ACTIVE]);
                window.put(SLOT_1_AT, &self.config.firmware);
            }
            id::CHANGED_NAMESPACES => {
                for (index, nsid) in controller.events.changed_list().iter().enumerate() {
                    window.put(index as u64 * 4, &nsid.to_le_bytes());
                }
            }
            id::COMMAND_EFFECTS => put_effects(&mut window),
            id::DISCOVERY => self.put_discovery(&mut window),
            _ => {}
        }
    }

    /// Health of the drive behind `nsid`, or for 0 and FFFFFFFFh of all drives that have a namespace: the worst
    /// temperature, spare and wear, the longest times, all warnings, and the sums of the counts.
    fn smart(&self, controller: &Controller, nsid: u32, backend: &impl Backend) -> SmartLog {
        let mut merged = SmartLog::new_zeroed();
        merged.spare_percent = FULL_SPARE_PERCENT;
        let mut seen = [0u64; 4];
        for namespace in self.namespaces.as_slice() {
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
        let temperature_k = merged.temperature_k.get();
        if temperature_k != 0 && controller.features.is_beyond_threshold(temperature_k) {
            merged.critical_warning |= TEMPERATURE_WARNING;
        }
        merged.error_entries = u128::from(controller.errors.count()).to_le_bytes();
        merged
    }

    fn put_discovery(&self, window: &mut Window<'_>) {
        let mut header = DiscoveryHeader::new_zeroed();
        header.generation.set(self.discovery_generation);
        header.records.set(self.listeners.len() as u64);
        window.put(0, header.as_bytes());
        for (index, listener) in self.listeners.iter().enumerate() {
            let size = size_of::<DiscoveryEntry>() as u64;
            let at = size_of::<DiscoveryHeader>() as u64 + index as u64 * size;
            if window.covers(at, size) {
                window.put(at, self.discovery_entry(index as u16, listener).as_bytes());
            }
        }
    }

    fn discovery_entry(&self, index: u16, listener: &Listener) -> DiscoveryEntry {
        const TCP: u8 = 3;
        const NVM_SUBSYSTEM: u8 = 2;
        /// TREQ: a secure channel is not required, SQ flow control can be disabled.
        const REQUIREMENTS: u8 = 0b110;
        let mut entry = DiscoveryEntry::new_zeroed();
        entry.transport = TCP;
        entry.address_family = match listener.address {
            IpAddr::V4(_) => 1,
            IpAddr::V6(_) => 2,
        };
        entry.subsystem_type = NVM_SUBSYSTEM;
        entry.requirements = REQUIREMENTS;
        entry.port_id.set(index + 1);
        entry.controller_id.set(nvme::fabrics::ANY_CONTROLLER);
        entry.admin_queue_entries.set(MIN_ADMIN_ENTRIES.max(self.config.max_queue_entries));
        // The longest IPv6 address has 39 characters, a port 5: both fit.
        let mut text = String::<64>::new();
        let _ = write!(text, "{}", listener.address);
        put_padded(&mut entry.transport_address, text.as_bytes());
        text.clear();
        let _ = write!(text, "{}", listener.port);
        put_padded(&mut entry.service_id, text.as_bytes());
        for (place, byte) in entry.subsystem_nqn.iter_mut().zip(self.config.nqn.bytes()) {
            *place = byte;
        }
        entry
    }
}

fn put_effects(window: &mut Window<'_>) {
    let reading = effect::SUPPORTED.to_le_bytes();
    let writing = (effect::SUPPORTED | effect::BLOCK_CONTENT).to_le_bytes();
    for opcode in ADMIN_COMMANDS {
        window.put(u64::from(opcode) * 4, &reading);
    }
    for opcode in READING_COMMANDS {
        window.put(IO_EFFECTS_AT + u64::from(opcode) * 4, &reading);
    }
    for opcode in WRITING_COMMANDS {
        window.put(IO_EFFECTS_AT + u64::from(opcode) * 4, &writing);
    }
}

fn put_padded(field: &mut [u8], text: &[u8]) {
    let padded = text.iter().copied().chain(core::iter::repeat(b' '));
    for (place, byte) in field.iter_mut().zip(padded) {
        *place = byte;
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

#[cfg(test)]
mod tests;
