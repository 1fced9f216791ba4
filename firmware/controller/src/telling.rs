//! What an operator is told of controllers.

use hal_api::Instant;
use heapless::Vec;
use message::mailbox;

use crate::slot::{Controller, Part};
use crate::subsystem::Subsystem;

impl Subsystem {
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
            subsystem: self.subsystem,
            is_ready: self.is_ready(),
            keep_alive_ms: self.keep_alive_ms,
            idle_ms: now.since(self.last_activity).as_millis() as u64,
            io_queues: io_queues.count_ones() as u16,
            granted_io_queues: self.granted_queues,
        }
    }
}
