//! A host that shuts its controller down before it leaves: CC.SHN, then CSTS.SHST until all is flushed (NVM Express Base 2.0, 3.6.2).

use std::time::Duration;

use drive::limits::HOST_FLUSH_LIMIT;
use hal_api::Instant;
use nvme::registers::{Configuration, ControllerStatus, offset};
use nvmeof::initiator::{Transfer, commands as make};

use super::association::{Association, Loss, PATIENCE};
use super::commands::What;
use super::{Common, Host, State};
use crate::kinds::Kind;
use crate::oracle::{Moment, NOBODY};

/// Between two looks at CSTS.
const LOOK: Duration = Duration::from_millis(5);
/// What the card may take on top of the time that it gives to drives: its core may pause.
const MARGIN: Duration = Duration::from_secs(5);

/// An association that is being shut down.
#[derive(Debug)]
pub(super) struct Ending {
    sent: Moment,
    sent_at: Instant,
    /// When CC.SHN was answered.
    set_at: Option<Instant>,
    /// The next look at CSTS is due; or, where the last one has no answer yet, the host gives up.
    next_look: Instant,
    waits: bool,
    /// When the last one was sent.
    looked_at: Instant,
    over: bool,
}

impl Ending {
    pub fn next_look(&self) -> Instant {
        self.next_look
    }

    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl Host {
    /// It shuts its controller down, and leaves once that is done; one that cannot leaves at once.
    pub fn shut_down(&mut self, common: &mut Common) {
        let Some(mut association) = self.take_association() else { return self.leave(common) };
        if !association.is_ready() {
            self.state = State::Joined(association);
            return self.leave(common);
        }
        let now = common.time.now();
        common.trace.event(Kind::HostShutsDown, &[self.index as u64], format_args!("host {}", self.index));
        let token = self.commands.add(What::Shutdown, None, Vec::new(), 0, now);
        let command = make::property_set(offset::CC, Configuration::ENABLED.with_shutdown().0);
        let taken = association.connections[0].queue.submit(token, &command, Transfer::None).is_ok();
        association.ending = Some(Ending {
            sent: common.oracle.moment(),
            sent_at: now,
            set_at: None,
            next_look: now + PATIENCE,
            waits: true,
            looked_at: now,
            over: false,
        });
        self.state = State::Joined(association);
        if taken {
            self.commands.shuts_down = true;
        } else {
            self.commands.forget(token);
            self.leave(common);
        }
    }

    /// The admin queue lives on until CSTS says that all is over; the card closes the others. There is no Keep Alive in a
    /// controller that is being shut down.
    pub(super) fn go_on_ending(
        &mut self,
        association: &mut Association,
        common: &mut Common,
    ) -> Result<(), Loss> {
        let now = common.time.now();
        for index in 0..association.connections.len() {
            match self.poll_connection(index, association, common) {
                Err(Loss::Closed) if index > 0 => {}
                other => other?,
            }
        }
        let answers = core::mem::take(&mut self.commands.shutdown_answers);
        let Some(ending) = &mut association.ending else { return Ok(()) };
        for answer in answers {
            ending.waits = false;
            let Some(status) = answer else {
                (ending.set_at, ending.next_look) = (Some(now), now);
                continue;
            };
            let status = ControllerStatus::from_bits_retain(status);
            ending.over = status.contains(ControllerStatus::SHUTDOWN_COMPLETE)
                && !status.contains(ControllerStatus::SHUTDOWN_OCCURRING);
            ending.next_look = if ending.over { Instant::FAR_FUTURE } else { now + LOOK };
            let late = ending.set_at.is_some_and(|at| ending.looked_at > at + HOST_FLUSH_LIMIT + MARGIN);
            assert!(ending.over || !late, "VIOLATION: host {}: its shutdown never ends", self.index);
        }
        if now >= ending.next_look {
            if ending.waits {
                return Err(Loss::Silence);
            }
            (ending.next_look, ending.looked_at, ending.waits) = (now + PATIENCE, now, true);
            let token = self.commands.add(What::ShutdownStatus, None, Vec::new(), 0, now);
            let admin = &mut association.connections[0].queue;
            let look = make::property_get(offset::CSTS, 4);
            if admin.submit(token, &look, Transfer::None).is_err() {
                self.commands.forget(token);
                (ending.next_look, ending.waits) = (now + LOOK, false);
            }
        }
        if ending.over {
            self.judge_shutdown(association, common);
            return Ok(());
        }
        self.poll_connection(0, association, common)
    }

    /// What this host was told of is durable at each drive that has had no trouble meanwhile. A shutdown tells nobody of
    /// lost writes.
    fn judge_shutdown(&mut self, association: &Association, common: &mut Common) {
        let Some(ending) = &association.ending else { return };
        let values = [self.index as u64];
        common.trace.event(Kind::ShutdownDone, &values, format_args!("host {}", self.index));
        for target in common.targets.values() {
            if !common.faults.may_have_met(target.drive, ending.sent_at) {
                common.oracle.flushed(target.index, ending.sent, NOBODY);
            }
        }
    }
}
