//! What a host does with asynchronous events: it asks for them, reads the log page that each names, and looks at the
//! namespaces again where they have changed (NVM Express Base 2.0, 5.2).

use nvme::opcode;
use nvmeof::initiator::{Transfer, commands as make};

use super::association::Association;
use super::commands::What;
use super::workload::log_page;
use super::{Common, Host};
use crate::kinds::Kind;

/// Asynchronous Event Requests that a host keeps at its controller.
const EVENT_REQUESTS: usize = 2;
/// The feature Asynchronous Event Configuration, and its bit for namespace attributes.
const EVENT_CONFIGURATION: u32 = 0x0b;
const NAMESPACE_ATTRIBUTES: u32 = 1 << 8;
/// Log pages that events name, and what a host reads of each.
const LOG_PAGES: [(u32, u32); 3] = [(1, 64 * 4), (2, 512), (CHANGED_NAMESPACES, 4096)];
const CHANGED_NAMESPACES: u32 = 4;
/// Identify's active namespaces.
const ACTIVE_NAMESPACES: u8 = 2;

impl Host {
    /// Asks for events, then for the namespaces, so that no change falls between the two.
    pub(super) fn begin_events(&mut self, association: &mut Association, common: &Common) {
        for _ in 0..EVENT_REQUESTS {
            self.send_admin(association, common, What::Event, &make::async_event_request(), 0);
        }
        let mut command = make::keep_alive();
        command.opcode = opcode::admin::SET_FEATURES;
        command.cdw10.set(EVENT_CONFIGURATION);
        command.cdw11.set(NAMESPACE_ATTRIBUTES);
        self.send_admin(association, common, What::Admin, &command, 0);
        self.list_namespaces(association, common);
    }

    /// Answers the events that have come, and takes over the namespaces that were listed.
    pub(super) fn hear_events(&mut self, association: &mut Association, common: &Common) {
        for event in core::mem::take(&mut self.commands.events) {
            let values = [self.index as u64, event.into()];
            common.trace.event(Kind::EventHeard, &values, format_args!("host {}: {event:#x}", self.index));
            let page = event >> 16 & 0xff;
            let known = LOG_PAGES.iter().find(|(known, _)| *known == page);
            let &(_, bytes) = known.expect("VIOLATION: an event names a log page that no event belongs to");
            self.send_admin(association, common, What::Admin, &log_page(page, bytes), bytes);
            self.send_admin(association, common, What::Event, &make::async_event_request(), 0);
            if page == CHANGED_NAMESPACES {
                self.list_namespaces(association, common);
            }
        }
        for _ in 0..core::mem::take(&mut self.commands.aborted_requests) {
            self.send_admin(association, common, What::Event, &make::async_event_request(), 0);
        }
        if let Some(listed) = self.commands.listed.take() {
            let known = listed.iter().all(|nsid| common.targets.contains_key(nsid));
            assert!(known, "VIOLATION: namespaces {listed:?} are not all of the drives'");
            association.namespaces = listed;
        }
    }

    fn list_namespaces(&mut self, association: &mut Association, common: &Common) {
        let command = make::identify(ACTIVE_NAMESPACES, 0);
        self.send_admin(association, common, What::Namespaces, &command, 4096);
    }

    fn send_admin(
        &mut self,
        association: &mut Association,
        common: &Common,
        what: What,
        command: &nvme::Command,
        bytes: u32,
    ) {
        let token = self.commands.add(what, None, vec![0; bytes as usize], 0, common.time.now());
        let transfer = if bytes == 0 { Transfer::None } else { Transfer::Receive(bytes) };
        let admin = &mut association.connections[0].queue;
        // A full queue is empty again soon; the next event brings what this one would have.
        if admin.submit(token, command, transfer).is_err() {
            self.commands.forget(token);
        }
    }
}
