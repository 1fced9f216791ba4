//! Get Log Page (Base 5.16).

mod discovery;
mod effects;
pub(crate) mod health;

use nvme::log_page::{ErrorEntry, FirmwareSlotLog, SmartLog, id};
use nvme::{Command, NSID_ALL, Status};
use zerocopy::IntoBytes;

use crate::admit::Transfer;
use crate::backend::Backend;
use crate::config::ERROR_LOG_ENTRIES;
use crate::slot::Controller;
use crate::subsystem::Subsystem;
use crate::window::Window;

/// OT of dword 14: the offset is an index, which no page here has.
const OFFSET_TYPE: u32 = 1 << 23;

const IO_PAGES: [u8; 9] = [
    id::SUPPORTED,
    id::ERROR,
    id::SMART,
    id::FIRMWARE_SLOT,
    id::CHANGED_NAMESPACES,
    id::COMMAND_EFFECTS,
    id::ANA,
    id::FEATURE_EFFECTS,
    id::MANAGEMENT_EFFECTS,
];
const DISCOVERY_PAGES: [u8; 3] = [id::SUPPORTED, id::ERROR, id::DISCOVERY];

fn pages_of(controller: &Controller) -> &'static [u8] {
    if controller.is_discovery() { &DISCOVERY_PAGES } else { &IO_PAGES }
}

/// CSI: the command set of which the effects log is; no other page has one.
fn command_set(command: &Command) -> u8 {
    (command.cdw14.get() >> 24) as u8
}

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
        if !pages_of(controller).contains(&page) {
            return Err(Status::INVALID_LOG_PAGE.do_not_retry());
        }
        if command.cdw14.get() & OFFSET_TYPE != 0 {
            return Err(invalid_field);
        }
        let nsid = command.nsid.get();
        match (page, nsid) {
            (_, 0 | NSID_ALL) => {}
            (id::SMART, _) if self.namespaces.find(controller.subsystem, nsid).is_some() => {}
            (id::SMART, _) => return Err(Status::INVALID_NAMESPACE.do_not_retry()),
            // All others are of the controller or of the subsystem.
            _ => return Err(invalid_field),
        }
        let offset = page_offset(command);
        if !offset.is_multiple_of(4) || offset > self.page_bytes(controller, page, command) {
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
    fn page_bytes(&self, controller: &Controller, page: u8, command: &Command) -> u64 {
        match page {
            id::SUPPORTED => effects::SUPPORTED_PAGES_BYTES,
            id::ERROR => (ERROR_LOG_ENTRIES * size_of::<ErrorEntry>()) as u64,
            id::SMART => size_of::<SmartLog>() as u64,
            id::FIRMWARE_SLOT => size_of::<FirmwareSlotLog>() as u64,
            id::CHANGED_NAMESPACES => 4096,
            id::COMMAND_EFFECTS => effects::COMMAND_EFFECTS_BYTES,
            id::ANA => self.ana_log_bytes(controller, command),
            id::FEATURE_EFFECTS => effects::FEATURE_EFFECTS_BYTES,
            id::MANAGEMENT_EFFECTS => effects::MANAGEMENT_EFFECTS_BYTES,
            id::DISCOVERY => self.discovery_bytes(controller),
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
        let (page, at) = (command.cdw10.get() as u8, page_offset(command).saturating_add(u64::from(offset)));
        if at >= self.page_bytes(controller, page, command) {
            return;
        }
        let mut window = Window::new(at, into);
        match page {
            id::SUPPORTED => effects::put_supported_pages(&mut window, pages_of(controller)),
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
            id::COMMAND_EFFECTS => self.put_commands(controller, command_set(command), &mut window),
            id::ANA => self.put_ana_log(controller, command, &mut window),
            id::FEATURE_EFFECTS => self.put_features(controller, &mut window),
            id::DISCOVERY => self.put_discovery(controller, &mut window),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
