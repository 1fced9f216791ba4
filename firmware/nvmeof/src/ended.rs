//! A command has ended: it is counted, and perhaps remembered.

use controller::{Attached, Backend};
use hal_api::Instant;
use message::{CommandTrace, Stages, TraceEnd, Waits};
use nvme::{Status, opcode};

use crate::meters::Owner;
use crate::slots::{Direction, Doer, Slot};
use crate::turn::Turn;

impl<B: Backend> Turn<'_, '_, B> {
    /// The response of a command has been handed to the stream.
    pub(crate) fn note_answered(&mut self, slot: u16) {
        let entry = self.slots.at(slot);
        let took_us = self.now.as_micros().wrapping_sub(entry.received_at.as_micros());
        match &entry.doer {
            Doer::Block(work) if entry.status.is_success() => {
                match self.meters.at_once(owner(&work.attached)) {
                    Some(meter) => meter.note(work.operation, took_us, entry.transfer_bytes),
                    None => self.note_slowly(slot, took_us),
                }
            }
            _ => self.note_slowly(slot, took_us),
        }
        if self.meters.is_remarkable(took_us) {
            self.remember(slot, |status| TraceEnd::Answered { status: status.code().to_field() });
        }
    }

    /// The same for those that have failed, are for no drive, or whose namespace's meter has to be looked for.
    #[inline(never)]
    fn note_slowly(&mut self, slot: u16, took_us: u64) {
        let entry = self.slots.at(slot);
        let failed = !entry.status.is_success();
        // Those that were refused are of no namespace: hosts name whatever they like.
        let Doer::Block(work) = &entry.doer else { return };
        let all = self.env.subsystem.namespaces();
        let is_there = |owner| all.iter().any(|of| Owner::of(of.subsystem, of.nsid) == owner);
        let Some(meter) = self.meters.add(owner(&work.attached), is_there) else { return };
        meter.note(work.operation, took_us, if failed { 0 } else { entry.transfer_bytes });
        meter.note_error(failed);
    }

    /// A command ends without a response, as its connection is gone.
    pub(crate) fn note_lost_command(&mut self, slot: u16) {
        let took_us = self.now.as_micros().wrapping_sub(self.slots.at(slot).received_at.as_micros());
        if self.meters.is_remarkable(took_us) {
            self.remember(slot, |_| TraceEnd::ConnectionLost);
        }
    }

    #[cold]
    fn remember(&mut self, slot: u16, end: impl FnOnce(Status) -> TraceEnd) {
        let entry = self.slots.at(slot);
        let admin = opcode::admin::ASYNC_EVENT_REQUEST;
        if !self.queue.is_io() && entry.command.opcode == admin {
            // It waits for as long as there is nothing to tell.
            return self.meters.pass();
        }
        let (first_block, blocks) = match &entry.doer {
            Doer::Block(work) => (work.start_block, work.blocks),
            _ => (0, 0),
        };
        self.meters.remember(CommandTrace {
            sequence: 0,
            controller: self.queue.cntlid,
            queue: self.queue.queue_id().unwrap_or(0),
            cid: entry.command.cid.get(),
            opcode: entry.command.opcode,
            nsid: entry.command.nsid.get(),
            first_block,
            blocks,
            end: end(entry.status),
            stages: entry.stages(self.now),
            waits: entry.waits,
        });
    }
}

fn owner(attached: &Attached) -> Owner {
    Owner::of(attached.subsystem, attached.nsid)
}

impl Slot {
    /// When the command was where, once it has ended.
    fn stages(&self, now: Instant) -> Stages {
        let received_us = self.received_at.as_micros();
        let after = |moment: Instant| {
            u32::try_from(moment.as_micros().saturating_sub(received_us)).unwrap_or(u32::MAX)
        };
        let passed = |moment: Instant| (moment >= self.received_at).then(|| after(moment));
        // Of the second command of a pair the moment is that of the wait for the first.
        let was_asked = self.direction == Direction::ReadyToTransfer && self.waits.has(Waits::HOST_DATA);
        Stages {
            received_us,
            asked_us: passed(self.asked_at).filter(|_| was_asked),
            ready_us: passed(self.ready_at),
            submitted_us: passed(self.submitted_at),
            completed_us: passed(self.completed_at),
            ended_us: after(now.max(self.received_at)),
        }
    }
}
