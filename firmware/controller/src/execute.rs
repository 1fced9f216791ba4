//! Carrying out what the card does by itself: admin and fabrics commands.

use hal_api::Instant;
use nvme::fabrics::{fabrics_kind, kind};
use nvme::opcode::{self, admin};
use nvme::{Command, Status};

use crate::admit::{Transfer, Work};
use crate::backend::Backend;
use crate::identify;
use crate::slot::QueueContext;
use crate::subsystem::Subsystem;

/// Dword 0 of an Abort that aborted nothing (Base 5.1).
const NOT_ABORTED: u64 = 1;

/// How a command of the card's own went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Complete it.
    Done {
        /// How it went.
        status: Status,
        /// Dwords 0 and 1 of the completion.
        result: u64,
    },
    /// An Asynchronous Event Request: it completes through [`Subsystem::take_event`] with its token.
    Parked,
    /// The controller was reset or shut down: complete the command with success, then close the connections of
    /// the controller's I/O queues. Parked requests come out of [`Subsystem::take_event`] as aborted.
    ControllerReset,
    /// Disconnect of this I/O queue: complete the command with success, then close this connection.
    QueueDisconnect,
}

impl Outcome {
    /// Success.
    #[must_use]
    pub const fn done(result: u64) -> Self {
        Self::Done { status: Status::SUCCESS, result }
    }

    /// An error.
    #[must_use]
    pub const fn failed(status: Status) -> Self {
        Self::Done { status, result: 0 }
    }
}

impl From<Result<u64, Status>> for Outcome {
    fn from(result: Result<u64, Status>) -> Self {
        match result {
            Ok(result) => Self::done(result),
            Err(status) => Self::failed(status),
        }
    }
}

impl Subsystem {
    /// Writes `into`, all of it: the data to the host of an admitted command from byte `offset` on. Pieces come
    /// in order, at offsets that are multiples of 4096, each of 4096 bytes save the last. Called before
    /// [`Subsystem::execute`]. What is no such command's data is zeros.
    pub fn fill(
        &self,
        queue: &QueueContext,
        command: &Command,
        offset: u32,
        into: &mut [u8],
        backend: &impl Backend,
    ) {
        into.fill(0);
        let Some(controller) = self.controller(queue.controller) else { return };
        let admitted = self.admit(queue, command);
        if !admitted.is_ok_and(|admission| admission.work == Work::Card) {
            return;
        }
        match command.opcode {
            admin::IDENTIFY if offset == 0 => identify::fill(self, controller, command, into),
            admin::GET_LOG_PAGE => self.fill_log_page(controller, command, offset, into, backend),
            admin::GET_FEATURES if offset == 0 => self.fill_feature(controller, command, into),
            _ => {}
        }
    }

    /// Carries out an admitted command whose work is [`Work::Card`]. `from_host` is all of its data from the host,
    /// `token` names it should it be parked. It is admitted anew, as the controller may have changed while the
    /// data was on its way.
    pub fn execute(
        &mut self,
        queue: &QueueContext,
        now: Instant,
        token: u32,
        command: &Command,
        from_host: &[u8],
    ) -> Outcome {
        self.now = self.now.max(now);
        match self.admit(queue, command) {
            Err(status) => return Outcome::failed(status),
            Ok(admission) => {
                debug_assert!(admission.work == Work::Card, "block work is the backend's");
                if admission.work != Work::Card {
                    return Outcome::failed(Status::INTERNAL_ERROR);
                }
                if let Transfer::FromHost { bytes } = admission.transfer
                    && from_host.len() < bytes as usize
                {
                    return Outcome::failed(Status::DATA_TRANSFER_ERROR);
                }
            }
        }
        self.note_activity(queue.controller, now);
        match command.opcode {
            opcode::FABRICS => self.execute_fabrics(queue, now, command),
            admin::SET_FEATURES => self.set_features(queue.controller, command, from_host).into(),
            admin::GET_FEATURES => match self.controller(queue.controller) {
                Some(controller) => self.get_features(controller, command).into(),
                None => Outcome::failed(Status::ABORTED_SQ_DELETION),
            },
            _ => self.execute_events(queue, token, command),
        }
    }

    fn execute_fabrics(&mut self, queue: &QueueContext, now: Instant, command: &Command) -> Outcome {
        match fabrics_kind(command) {
            kind::PROPERTY_GET => match self.controller(queue.controller) {
                Some(controller) => self.property_get(controller, command).into(),
                None => Outcome::failed(Status::ABORTED_SQ_DELETION),
            },
            kind::PROPERTY_SET => self.property_set(queue.controller, now, command),
            kind::DISCONNECT => Outcome::QueueDisconnect,
            _ => Outcome::failed(Status::INVALID_OPCODE.do_not_retry()),
        }
    }

    /// Commands that touch parked requests and pending events, and those that do nothing more than succeed.
    fn execute_events(&mut self, queue: &QueueContext, token: u32, command: &Command) -> Outcome {
        let Some(controller) = self.controller_mut(queue.controller) else {
            return Outcome::failed(Status::ABORTED_SQ_DELETION);
        };
        match command.opcode {
            admin::ASYNC_EVENT_REQUEST => match controller.events.park(token, command.cid.get()) {
                Ok(()) => Outcome::Parked,
                Err(status) => Outcome::failed(status),
            },
            admin::ABORT => {
                let (queue_id, cid) = (command.cdw10.get() as u16, (command.cdw10.get() >> 16) as u16);
                let aborted = queue_id == 0 && controller.events.abort(cid);
                Outcome::done(if aborted { 0 } else { NOT_ABORTED })
            }
            admin::GET_LOG_PAGE => {
                let retain_event = command.cdw10.get() & 1 << 15 != 0;
                if !retain_event {
                    controller.events.log_page_read(command.cdw10.get() as u8);
                }
                Outcome::done(0)
            }
            admin::IDENTIFY | admin::KEEP_ALIVE => Outcome::done(0),
            _ => Outcome::failed(Status::INVALID_OPCODE.do_not_retry()),
        }
    }
}

#[cfg(test)]
mod tests;
