//! The life of a command between its capsule and its response.
//!
//! Capsule → checked by the controller → pages (or a wait for them) → data by R2T → controller or backend (or a
//! wait for it) → completion → response. No wait ever stops the stream from being read.

use controller::{Backend, BlockWork, IoCompletion, Operation, Outcome, QueueContext, Transfer, Work};
use hal_api::Instant;
use hal_mem::PAGE_BYTES;
use message::Waits;
use nvme::fabrics;
use nvme::{Command, SglKind, Status, opcode};

use crate::connect::CONNECT_BYTES;
use crate::fused::Fused;
use crate::pdu::{Fatal, FatalStatus, Frame};
use crate::queue::{Phase, cid_place};
use crate::slots::{Direction, Doer, NONE, Slot, SlotState};
use crate::turn::{SLOT_COST_BYTES, Turn};

impl<B: Backend> Turn<'_, '_, B> {
    /// CapsuleCmd (3.6.2.6): gives the command a slot and judges it; its data, if any, comes next.
    pub(crate) fn capsule(&mut self, frame: &Frame, command: &Command) -> Result<(), Fatal> {
        if self.queue.phase == Phase::Finishing {
            // Left without an answer: once the connection is closed the host repeats it elsewhere, or later.
            if frame.data_bytes > 0 {
                self.start_body(NONE, frame, 0);
            }
            return Ok(());
        }
        // A host that keeps to its queue's size always finds a slot: each is free before its response goes out.
        let full = self.queue.outstanding >= self.queue.reserved_slots;
        let slot = if full { None } else { self.slots.take(self.index) };
        let slot = slot.ok_or(Fatal::plain(FatalStatus::SequenceError))?;
        self.queue.outstanding += 1;
        self.counters.commands += 1;
        self.queue.sq_head = match self.queue.sq_head.checked_add(1) {
            Some(head) if head < self.queue.entries => head,
            _ => 0,
        };
        let conflict = self.has_outstanding(command.cid.get());
        if let Some(count) = self.queue.cids.get_mut(cid_place(command.cid.get())) {
            *count = count.saturating_add(1);
        }
        let entry = self.slots.at_mut(slot);
        entry.command = *command;
        entry.doer = Doer::Nobody;
        entry.direction = Direction::None;
        entry.changes_blocks = false;
        entry.result = 0;
        entry.status = Status::SUCCESS;
        entry.transfer_bytes = 0;
        entry.arrived_bytes = 0;
        entry.page_count = 0;
        (entry.fused, entry.partner, entry.age) = (Fused::No, NONE, 0);
        (entry.received_at, entry.ready_at) = (self.now, Instant::ZERO);
        (entry.submitted_at, entry.completed_at) = (Instant::ZERO, Instant::ZERO);
        entry.waits = Waits::NONE;
        let verdict = if conflict {
            Err(Status::COMMAND_ID_CONFLICT.do_not_retry())
        } else {
            self.judge(slot, command, frame.data_bytes)
        };
        let verdict = self.pair_up(slot, command, verdict);
        let mut keep = 0;
        match verdict {
            Err(status) => self.slots.at_mut(slot).status = status,
            Ok(Direction::InCapsule) => {
                if self.take_reserved_pages(slot) {
                    keep = self.slots.at(slot).transfer_bytes;
                } else {
                    // Only before Connect, or while buffers are quarantined: there is no promise to draw on.
                    let entry = self.slots.at_mut(slot);
                    let connect = matches!(entry.doer, Doer::Connect);
                    entry.status =
                        if connect { Status::CONNECT_CONTROLLER_BUSY } else { Status::COMMAND_INTERRUPTED };
                }
            }
            Ok(_) => {}
        }
        if frame.data_bytes > 0 {
            self.start_body(slot, frame, keep);
        } else {
            self.begin(slot);
        }
        Ok(())
    }

    fn has_outstanding(&mut self, cid: u16) -> bool {
        if self.queue.cids.get(cid_place(cid)).is_none_or(|&count| count == 0) {
            return false;
        }
        let mut looks = 0;
        // The slot just taken has not got its command yet, and what it held before is of no queue's concern.
        let is_it = |slot: &Slot| {
            slot.queue == self.index && slot.state != SlotState::Arriving && slot.command.cid.get() == cid
        };
        let found =
            self.slots.taken().inspect(|(index, _)| looks = u32::from(*index)).any(|(_, slot)| is_it(slot));
        // All commands of a core may be looked at, and a host can choose its CIDs so: it pays for that itself.
        self.budget_bytes = self.budget_bytes.saturating_sub(looks * SLOT_COST_BYTES);
        found
    }

    /// Asks who carries the command out, and holds its SGL and its capsule's data against what it moves.
    fn judge(&mut self, slot: u16, command: &Command, data_bytes: u32) -> Result<Direction, Status> {
        let is_connect =
            command.opcode == opcode::FABRICS && fabrics::fabrics_kind(command) == fabrics::kind::CONNECT;
        let (transfer, doer) = match &self.queue.context {
            None if is_connect && command.psdt() == 1 => {
                (Transfer::FromHost { bytes: CONNECT_BYTES }, Doer::Connect)
            }
            None if is_connect => return Err(Status::INVALID_FIELD.do_not_retry()),
            None => return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()),
            Some(_) if is_connect => return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()),
            Some(context) => {
                self.env.subsystem.note_activity(context.controller, self.now);
                let admission = self.env.subsystem.admit(context, command)?;
                let doer = match admission.work {
                    Work::Card => Doer::Card,
                    Work::Block(work) => Doer::Block(work),
                };
                (admission.transfer, doer)
            }
        };
        let (direction, bytes) = direction(command, transfer, data_bytes)?;
        let entry = self.slots.at_mut(slot);
        entry.changes_blocks = matches!(doer, Doer::Block(work) if work.operation.changes_blocks());
        entry.doer = doer;
        entry.direction = direction;
        entry.transfer_bytes = bytes;
        Ok(direction)
    }

    /// The capsule is complete and brought no data: pages, R2T or execution come next.
    fn begin(&mut self, slot: u16) {
        let entry = self.slots.at(slot);
        if !entry.status.is_success() {
            return self.finish(slot, entry.status, 0);
        }
        match entry.direction {
            Direction::None | Direction::InCapsule => self.run(slot),
            Direction::ToHost | Direction::ReadyToTransfer => {
                // Behind those that wait already: small commands must not starve a large one for ever.
                if self.queue.waiting_for_pages.is_empty() && self.take_pages(slot) {
                    self.with_pages(slot);
                } else {
                    let entry = self.slots.at_mut(slot);
                    entry.state = SlotState::WaitingForPages;
                    entry.waits.add(Waits::PAGES);
                    self.slots.push(&mut self.queue.waiting_for_pages, slot);
                }
            }
        }
    }

    pub(crate) fn with_pages(&mut self, slot: u16) {
        let entry = self.slots.at_mut(slot);
        if entry.direction == Direction::ReadyToTransfer {
            entry.state = SlotState::SendReadyToTransfer;
            self.slots.push(&mut self.queue.to_send, slot);
        } else {
            self.run(slot);
        }
    }

    /// All data from the host is here, all pages are there: the command is carried out.
    pub(crate) fn run(&mut self, slot: u16) {
        let entry = self.slots.at_mut(slot);
        entry.ready_at = self.now;
        let status = entry.status;
        if !status.is_success() {
            return self.finish(slot, status, 0);
        }
        let fused = entry.fused;
        match entry.doer {
            Doer::Connect => self.connect(slot),
            Doer::Card => self.execute(slot),
            Doer::Block(work) => {
                if let Err(status) = self.check_ranges(slot, &work) {
                    return self.finish(slot, status, 0);
                }
                if fused != Fused::No {
                    self.run_fused(slot);
                } else {
                    self.submit_in_turn(slot, work);
                }
            }
            Doer::Nobody => {
                debug_assert!(false, "a command without a verdict");
                self.finish(slot, Status::INTERNAL_ERROR, 0);
            }
        }
    }

    fn check_ranges(&mut self, slot: u16, work: &BlockWork) -> Result<(), Status> {
        if !matches!(work.operation, Operation::DatasetManagement { .. } | Operation::Copy { .. }) {
            return Ok(());
        }
        let entry = self.slots.at(slot);
        let bytes = (entry.transfer_bytes as usize).min(PAGE_BYTES);
        let ranges = self.scratch.get_mut(..bytes).unwrap_or_default();
        self.env.pool.read(&mut entry.pages.start(), ranges);
        self.env.subsystem.check_ranges(work, ranges)
    }

    /// A request of this connection came back from the backend.
    pub(crate) fn completed(&mut self, slot: u16, completion: IoCompletion) {
        let entry = self.slots.at_mut(slot);
        let changes = entry.changes_blocks;
        let to_host = entry.direction == Direction::ToHost;
        entry.completed_at = self.now;
        let mut status = completion.status;
        match completion.pages {
            Some(pages) => entry.pages = pages,
            None => {
                if entry.page_count > 0 {
                    self.forget_pages(slot);
                }
                if to_host && status.is_success() {
                    debug_assert!(false, "a read without its pages");
                    status = Status::INTERNAL_ERROR;
                }
            }
        }
        if let Doer::Block(work) = &self.slots.at(slot).doer {
            self.locks.came_home(slot, work);
        }
        // Before its end frees blocks for a pair that would wait for it.
        self.slots.at_mut(slot).state = SlotState::SendResponse;
        self.queue.at_backend = self.queue.at_backend.saturating_sub(1);
        self.queue.writes_at_backend = self.queue.writes_at_backend.saturating_sub(u16::from(changes));
        self.effects.freed = true;
        if self.queue.phase == Phase::Draining {
            self.note_lost_command(slot);
            self.free_slot(slot);
        } else {
            self.finish(slot, status, 0);
        }
    }

    /// The command's fate is known: queues its data and its response.
    pub(crate) fn finish(&mut self, slot: u16, status: Status, result: u64) {
        let entry = self.slots.at_mut(slot);
        entry.status = status;
        entry.result = result;
        if status.is_success() && entry.direction == Direction::ToHost && entry.transfer_bytes > 0 {
            entry.state = SlotState::SendData;
        } else {
            entry.state = SlotState::SendResponse;
            if !status.is_success()
                && let Some(context) = &self.queue.context
            {
                entry.status = self.env.subsystem.record_error(context, &entry.command, status);
            }
            self.give_back_pages(slot);
        }
        self.slots.push(&mut self.queue.to_send, slot);
        self.fused_ended(slot, status.is_success());
    }

    /// A command that the card carries out by itself.
    fn execute(&mut self, slot: u16) {
        let Some(context) = self.queue.context else {
            return self.finish(slot, Status::INTERNAL_ERROR, 0);
        };
        let entry = self.slots.at(slot);
        let command = entry.command;
        let mut from_host = 0;
        if entry.direction == Direction::ToHost {
            self.fill(slot, &context, &command);
        } else if !entry.pages.is_empty() {
            from_host = (entry.transfer_bytes as usize).min(PAGE_BYTES);
            let data = self.scratch.get_mut(..from_host).unwrap_or_default();
            self.env.pool.read(&mut entry.pages.start(), data);
        }
        let data = self.scratch.get(..from_host).unwrap_or_default();
        let token = u32::from(slot);
        match self.env.subsystem.execute(&context, self.now, token, &command, data) {
            Outcome::Done { status, result } => self.finish(slot, status, result),
            Outcome::Parked => {
                self.give_back_pages(slot);
                self.slots.at_mut(slot).state = SlotState::Parked;
                self.queue.parked += 1;
            }
            Outcome::ControllerReset => {
                self.effects.reset = Some(context.controller);
                self.finish(slot, Status::SUCCESS, 0);
            }
            Outcome::QueueDisconnect => {
                self.finish(slot, Status::SUCCESS, 0);
                self.start_closing();
            }
        }
        self.take_events();
    }

    /// Has the controller write a command's data into its pages, a page at a time.
    fn fill(&mut self, slot: u16, context: &QueueContext, command: &Command) {
        let total = self.slots.at(slot).transfer_bytes;
        let mut cursor = self.slots.at(slot).pages.start();
        let mut offset = 0;
        while offset < total {
            let bytes = (total - offset).min(PAGE_BYTES as u32);
            let piece = self.scratch.get_mut(..bytes as usize).unwrap_or_default();
            self.env.subsystem.fill(context, command, offset, piece, &*self.env.backend);
            self.env.pool.write(&mut cursor, piece);
            offset += bytes;
        }
        // The core's time, as data that comes in.
        self.budget_bytes = self.budget_bytes.saturating_sub(total);
    }

    /// Completes the Asynchronous Event Requests that have something to tell, or were aborted.
    pub(crate) fn take_events(&mut self) {
        let Some(context) = self.queue.context else { return };
        while self.queue.parked > 0 {
            let Some(ended) = self.env.subsystem.take_event(context.controller, self.now) else { break };
            let slot = ended.token as u16;
            let ours = self.slots.get(slot);
            if !ours.is_some_and(|slot| slot.state == SlotState::Parked && slot.queue == self.index) {
                debug_assert!(false, "an event for a request that is not parked");
                continue;
            }
            self.queue.parked -= 1;
            self.finish(slot, ended.status, ended.result);
        }
    }
}

/// Which way the data moves and how much, if SGL and capsule fit what the command needs (Base 4.1.2, TCP 3.4).
fn direction(command: &Command, transfer: Transfer, data_bytes: u32) -> Result<(Direction, u32), Status> {
    let sgl = command.sgl();
    let kind = sgl.kind();
    let result = match transfer {
        Transfer::ToHost { bytes } if bytes > 0 => match kind {
            SglKind::Transport if data_bytes > 0 => Err(Status::INVALID_FIELD),
            SglKind::Transport if sgl.length.get() < bytes => Err(Status::SGL_LENGTH_INVALID),
            SglKind::Transport => Ok((Direction::ToHost, bytes)),
            SglKind::InCapsule | SglKind::Other => Err(Status::SGL_TYPE_INVALID),
        },
        Transfer::FromHost { bytes } if bytes > 0 => match kind {
            SglKind::InCapsule if sgl.address.get() != 0 => Err(Status::SGL_OFFSET_INVALID),
            SglKind::InCapsule if sgl.length.get() != data_bytes || data_bytes < bytes => {
                Err(Status::SGL_LENGTH_INVALID)
            }
            SglKind::InCapsule => Ok((Direction::InCapsule, bytes)),
            SglKind::Transport if data_bytes > 0 => Err(Status::INVALID_FIELD),
            SglKind::Transport if sgl.length.get() < bytes => Err(Status::SGL_LENGTH_INVALID),
            SglKind::Transport => Ok((Direction::ReadyToTransfer, bytes)),
            SglKind::Other => Err(Status::SGL_TYPE_INVALID),
        },
        _ if data_bytes > 0 => Err(Status::INVALID_FIELD),
        _ => Ok((Direction::None, 0)),
    };
    result.map_err(Status::do_not_retry)
}
