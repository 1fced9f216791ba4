//! What there is and what it changes: log pages (Base 5.16.1.1), commands (5.16.1.6) and features (5.16.1.18). NVMe-MI
//! commands (5.16.1.19) there are none.

use nvme::log_page::effect;
use nvme::opcode::{admin, io};

use crate::identify::NVM_COMMAND_SET;
use crate::slot::Controller;
use crate::subsystem::Subsystem;
use crate::window::Window;

pub(super) const COMMAND_EFFECTS_BYTES: u64 = 4096;
pub(super) const FEATURE_EFFECTS_BYTES: u64 = 1024;
pub(super) const MANAGEMENT_EFFECTS_BYTES: u64 = 4096;
pub(super) const SUPPORTED_PAGES_BYTES: u64 = 1024;
/// Bit 0 of an entry of Supported Log Pages: LSUPP.
const LOG_SUPPORTED: u32 = 1;
/// Offset of the I/O commands in the Commands Supported and Effects log.
const IO_EFFECTS_AT: u64 = 1024;

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
const WRITING_COMMANDS: [u8; 4] = [io::WRITE, io::WRITE_ZEROES, io::DATASET_MANAGEMENT, io::COPY];

pub(super) fn put_supported_pages(window: &mut Window<'_>, pages: &[u8]) {
    for &page in pages {
        window.put(u64::from(page) * 4, &LOG_SUPPORTED.to_le_bytes());
    }
}

impl Subsystem {
    /// Of command sets that there are not, nothing but the admin commands: nvme-cli asks for the zoned one wherever CAP.CSS offers a choice,
    /// and shows none where that is refused.
    pub(super) fn put_commands(&self, controller: &Controller, command_set: u8, window: &mut Window<'_>) {
        let admin = (effect::SUPPORTED | effect::CONTROLLER_SCOPE).to_le_bytes();
        let reading = effect::SUPPORTED | effect::NAMESPACE_SCOPE;
        let writing = (reading | effect::BLOCK_CONTENT).to_le_bytes();
        for opcode in ADMIN_COMMANDS {
            window.put(u64::from(opcode) * 4, &admin);
        }
        if command_set != NVM_COMMAND_SET {
            return;
        }
        for opcode in READING_COMMANDS {
            window.put(IO_EFFECTS_AT + u64::from(opcode) * 4, &reading.to_le_bytes());
        }
        let has_uncorrectable = self.namespaces.any_write_uncorrectable(controller.subsystem);
        let of_drives = has_uncorrectable.then_some(io::WRITE_UNCORRECTABLE);
        for opcode in WRITING_COMMANDS.into_iter().chain(of_drives) {
            window.put(IO_EFFECTS_AT + u64::from(opcode) * 4, &writing);
        }
    }

    pub(super) fn put_features(&self, controller: &Controller, window: &mut Window<'_>) {
        for feature in 0..=u8::MAX {
            if self.has_feature(controller, feature) {
                let scope = if crate::features::is_of_namespace(feature) {
                    effect::NAMESPACE_SCOPE
                } else {
                    effect::CONTROLLER_SCOPE
                };
                window.put(u64::from(feature) * 4, &(effect::SUPPORTED | scope).to_le_bytes());
            }
        }
    }
}
