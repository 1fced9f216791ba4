//! What an operator is told of namespaces and controllers.

use hal_api::Instant;
use heapless::Vec;
use message::mailbox;

use crate::namespace::Namespace;
use crate::slot::{Controller, Part};
use crate::subsystem::Subsystem;

impl Subsystem {
    /// The attached namespaces from `first` on, in the order of their NSIDs, as many as there is room for.
    #[must_use]
    pub fn tell_namespaces<const N: usize>(&self, first: u32) -> Vec<mailbox::Namespace, N> {
        let mut told = Vec::new();
        // They stand by subsystem, and one NSID may be in several.
        let mut from = Some(first);
        while let Some(next) = from.filter(|_| !told.is_full()) {
            let nsids = self.namespaces().iter().map(|namespace| namespace.nsid);
            let Some(nsid) = nsids.filter(|nsid| *nsid >= next).min() else { break };
            from = nsid.checked_add(1);
            let all = self.namespaces().iter().filter(|namespace| namespace.nsid == nsid);
            all.for_each(|namespace| _ = told.push(namespace.tell()));
        }
        told
    }

    /// The controllers that live here from `first` on, in the order of their CNTLIDs, as many as there is room for.
    #[must_use]
    pub fn tell_controllers<const N: usize>(&self, first: u16, now: Instant) -> Vec<mailbox::Controller, N> {
        let mut told = Vec::new();
        // Their places have no order, and there are few answers: one walk for each controller of an answer.
        let mut from = Some(first);
        while let Some(next) = from.filter(|_| !told.is_full()) {
            let here = self.controllers().filter(|controller| !controller.is_delegate());
            let Some(controller) = here.filter(|controller| controller.id >= next).min_by_key(|it| it.id)
            else {
                break;
            };
            from = controller.id.checked_add(1);
            let _ = told.push(controller.tell(now));
        }
        told
    }
}

impl Namespace {
    fn tell(&self) -> mailbox::Namespace {
        mailbox::Namespace {
            nsid: self.nsid,
            uuid: self.uuid,
            nguid: self.nguid,
            eui64: self.eui64,
            blocks: self.blocks,
            block_bytes: 1u32.checked_shl(u32::from(self.block_shift)).unwrap_or(0),
            drive: self.backend.drive,
            drive_nsid: self.backend.nsid,
            has_write_cache: self.volatile_write_cache,
        }
    }
}

impl Controller {
    fn tell(&self, now: Instant) -> mailbox::Controller {
        let elsewhere = match self.part {
            Part::Home { queues_elsewhere, .. } => queues_elsewhere,
            Part::Delegate { .. } => 0,
        };
        // Queue 0 is the admin queue.
        let io_queues = (self.queues | elsewhere) & !1;
        let mut host_nqn = mailbox::Text::new();
        // There is room for the longest NQN.
        let _ = host_nqn.push_str(&self.host_nqn);
        mailbox::Controller {
            cntlid: self.id,
            host_nqn,
            host_id: self.host_id,
            address: self.peer,
            port: self.port.0,
            discovery: self.is_discovery(),
            is_ready: self.is_ready(),
            keep_alive_ms: self.keep_alive_ms,
            idle_ms: now.since(self.last_activity).as_millis() as u64,
            io_queues: io_queues.count_ones() as u16,
            granted_io_queues: self.granted_queues,
        }
    }
}
