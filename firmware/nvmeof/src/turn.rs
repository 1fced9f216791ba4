//! One turn of one connection: what its code may reach, and what it leaves for the target to do afterwards.

use controller::{Backend, ControllerHandle, LineKind, Subsystem};
use hal_api::Instant;
use hal_mem::{PAGE_BYTES, PagePool, Pages};

use crate::Counters;
use crate::fused::LastCapsule;
use crate::meters::Meters;
use crate::pdu::Fatal;
use crate::queue::{
    ConnectStep, DATA_TIMEOUT, Phase, Queue, SEND_TIMEOUT, Sending, Stage, TERMINATE_TIMEOUT, cid_place,
};
use crate::range_locks::RangeLocks;
use crate::slots::{Fifo, SlotState, Slots};
use crate::stream::Stream;
use crate::target::Share;

/// What a PDU counts in a budget besides its data, in bytes: with that, commands of 4 KiB and of 1 MiB are about as much of the
/// core's time for the same budget (`cargo xtask measure path`, docs/design/slow-hosts.md).
pub(crate) const PDU_COST_BYTES: u32 = 1024;
/// What a look at a slot counts: a turn of 24 KiB has time for two walks over 12,288 slots.
pub(crate) const SLOT_COST_BYTES: u32 = 1;

/// What a target works on: the card's subsystem, this core's pages and drives.
#[derive(Debug)]
pub struct Environment<'a, B: Backend> {
    /// Controllers and namespaces.
    pub subsystem: &'a mut Subsystem,
    /// Data buffers.
    pub pool: &'a mut PagePool,
    /// Drives.
    pub backend: &'a mut B,
}

/// Writes of a lost connection, or one that is being closed, that are still at drives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fence {
    pub host_id: [u8; 16],
    pub writes: u16,
    /// Counts up with each connection that is lost: a fence does not wait for later ones.
    pub serial: u32,
    /// The connection is a queue whose host sends no more than what is not read yet.
    pub peer_closed: bool,
}

/// What a turn leaves to be done with other connections.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Pages or slots came back: those who wait may try again.
    pub freed: bool,
    /// The I/O queues of this controller are to be closed.
    pub reset: Option<ControllerHandle>,
    /// This host begins anew: what it has not been read from connections that it has closed is out of date.
    pub returning: Option<[u8; 16]>,
}

pub(crate) struct Turn<'a, 'e, B: Backend> {
    pub index: u16,
    pub now: Instant,
    pub queue: &'a mut Queue,
    pub slots: &'a mut Slots,
    pub fences: &'a [Fence],
    /// Blocks that fused pairs have for themselves.
    pub locks: &'a mut RangeLocks,
    /// Of each connection.
    pub shares: &'a mut [Share],
    /// Controllers that one address may have.
    pub controllers_per_address: u16,
    pub scratch: &'a mut [u8; PAGE_BYTES],
    pub counters: &'a mut Counters,
    pub meters: &'a mut Meters,
    pub env: &'a mut Environment<'e, B>,
    /// Pages of the general class that a connection may hold.
    pub page_ceiling: u32,
    /// What may still be received or sent in this turn.
    pub budget_bytes: u32,
    pub effects: Effects,
}

impl<B: Backend> Turn<'_, '_, B> {
    /// Whether a line about the connection may be logged: as many as hosts like would fill the log.
    pub(crate) fn may_say(&mut self) -> bool {
        self.env.subsystem.may_say(LineKind::Connections, self.now)
    }

    /// Whether the connection has to end now: its controller is gone, or its host is too slow.
    pub(crate) fn overdue(&mut self) -> bool {
        if let Some(context) = self.queue.context
            && !self.env.subsystem.is_live(context.controller)
        {
            if self.may_say() {
                hal_log::info!("connection {}: its controller is gone", self.index);
            }
            return true;
        }
        if self.now >= self.queue.data_deadline {
            self.queue.data_deadline = self.oldest_transfer_deadline();
        }
        if self.now < self.queue.next_deadline() {
            return false;
        }
        if !matches!(self.queue.phase, Phase::Closing | Phase::Terminating | Phase::Finishing) {
            if self.may_say() {
                hal_log::warn!("connection {}: the host is too slow", self.index);
            }
            self.counters.timed_out += 1;
        }
        true
    }

    /// When the oldest transfer that an R2T asked for has to be complete, or the second command of a pair here. All
    /// slots in use are looked at, once in a [`DATA_TIMEOUT`] at most.
    fn oldest_transfer_deadline(&self) -> Instant {
        let mine = self.slots.of_queue(self.index);
        let receiving = mine.filter(|(_, slot)| slot.state == SlotState::ReceivingData);
        let oldest =
            receiving.map(|(_, slot)| slot.asked_at + DATA_TIMEOUT).min().unwrap_or(Instant::FAR_FUTURE);
        oldest.min(self.second_deadline())
    }

    /// Receives, retries what waits, sends; returns how much of the budget that took, and whether it cut it short.
    pub(crate) fn exchange(&mut self, stream: &mut impl Stream) -> (u32, bool) {
        let budget = self.budget_bytes;
        loop {
            let mut offered = 0;
            let taken = stream.receive(|bytes| {
                offered = bytes.len();
                self.parse(bytes)
            });
            if offered == 0 || taken < offered {
                break;
            }
        }
        let between_pdus = match self.queue.receiver.stage {
            Stage::Header => self.queue.receiver.filled == 0,
            Stage::Body => false,
            Stage::Ignore => true,
        };
        if between_pdus {
            self.queue.pdu_deadline = Instant::FAR_FUTURE;
        }
        if self.queue.phase == Phase::Finishing {
            self.end_lone_first();
        }
        let serves = matches!(self.queue.phase, Phase::AwaitingConnect | Phase::Live | Phase::Finishing);
        if serves && (self.queue.is_waiting() || self.queue.parked_connect.is_some()) {
            self.retry_waiting();
        }
        let received = budget - self.budget_bytes;
        let cut = self.budget_bytes == 0;
        if !self.queue.has_output() {
            return (received, cut);
        }
        // Sending has a budget of its own: a host that sends without pause must still get its answers.
        self.budget_bytes = budget;
        loop {
            let mut offered = 0;
            let sent = stream.send(|room| {
                offered = room.len();
                self.fill_room(room)
            });
            if offered == 0 || sent < offered {
                break;
            }
        }
        if !self.queue.has_output() {
            self.queue.send_deadline = Instant::FAR_FUTURE;
        } else if self.queue.send_deadline == Instant::FAR_FUTURE {
            // From the first PDU on; each that is sent whole begins the time anew.
            self.queue.send_deadline = self.now + SEND_TIMEOUT;
        }
        (received.saturating_add(budget - self.budget_bytes), cut || self.budget_bytes == 0)
    }

    /// The peer is gone: all commands end here but those at drives.
    pub(crate) fn abandon(&mut self) {
        self.queue.phase = Phase::Draining;
        if let Some(share) = self.shares.get_mut(usize::from(self.index)) {
            share.is_admin = false;
        }
        self.queue.receiver.stage = Stage::Ignore;
        self.queue.sender.sending = Sending::Nothing;
        self.queue.to_send = Fifo::EMPTY;
        self.queue.waiting_for_pages = Fifo::EMPTY;
        self.queue.waiting_for_backend = Fifo::EMPTY;
        self.queue.waiting_for_blocks = Fifo::EMPTY;
        self.queue.waiting_pairs = Fifo::EMPTY;
        self.queue.last_capsule = LastCapsule::Other;
        self.queue.parked_connect = None;
        self.queue.connect_step = ConnectStep::First;
        let mut left = self.queue.outstanding.saturating_sub(self.queue.at_backend);
        let (mut from_host, mut to_host) = (0u16, 0u16);
        for slot in 0..self.slots.total() {
            if left == 0 {
                break;
            }
            let entry = self.slots.at(slot);
            if entry.queue == self.index && entry.state != SlotState::AtBackend {
                from_host += u16::from(entry.state == SlotState::ReceivingData);
                to_host += u16::from(entry.state == SlotState::SendData);
                self.note_lost_command(slot);
                self.free_slot(slot);
                left -= 1;
            }
        }
        debug_assert_eq!(self.queue.outstanding, self.queue.at_backend);
        if from_host + to_host > 0 && self.may_say() {
            hal_log::info!(
                "connection {}: lost within data, of {} commands from the host and of {} to it",
                self.index,
                from_host,
                to_host
            );
        }
    }

    /// The connection cannot go on: nothing more is read, a TermReq goes out, and the host has to close.
    /// `quote` is the wrong PDU's header as far as it came.
    pub(crate) fn fatal(&mut self, fatal: Fatal, quote: &[u8]) {
        let Fatal { status, information } = fatal;
        if self.may_say() {
            hal_log::warn!(
                "connection {}: terminated, error {} information {:#x} PDU type {:#x}",
                self.index,
                status as u16,
                information,
                quote.first().copied().unwrap_or(0xff)
            );
        }
        self.counters.terminated += 1;
        let receiver = &mut self.queue.receiver;
        receiver.stage = Stage::Ignore;
        // The gathering buffer has no other use from here on.
        let quoted = quote.len().min(receiver.buffer.len());
        if let (Some(to), Some(from)) = (receiver.buffer.get_mut(..quoted), quote.get(..quoted)) {
            to.copy_from_slice(from);
        }
        receiver.filled = quoted as u8;
        self.queue.phase = Phase::Terminating;
        self.queue.deadline = self.now + TERMINATE_TIMEOUT;
        // Nothing comes after a TermReq (TCP 3.5), not even an ICResp that is still to be sent.
        self.queue.sender.initialize = false;
        self.queue.sender.terminate = Some(fatal);
        self.leave_lines();
    }

    /// Nothing more is read; what is queued is sent; then the connection is closed.
    pub(crate) fn start_closing(&mut self) {
        self.queue.start_closing(self.now);
        self.leave_lines();
    }

    /// Takes pages for `bytes` of a command's data, from the general class.
    pub(crate) fn take_pages(&mut self, slot: u16) -> bool {
        let count = self.slots.at(slot).transfer_bytes.div_ceil(PAGE_BYTES as u32);
        // One command may always start, however large, so that a low ceiling delays but never blocks. Beyond it a
        // connection holds no more than it leaves: however many are greedy, a newcomer finds an equal share.
        let held = self.queue.general_pages;
        let left = self.env.pool.available().saturating_sub(count);
        if held > 0 && held.saturating_add(count) > self.page_ceiling.min(left) {
            return false;
        }
        let Some(pages) = self.env.pool.take(count) else { return false };
        self.queue.general_pages += count;
        let slot = self.slots.at_mut(slot);
        slot.cursor = pages.start();
        slot.pages = pages;
        slot.page_count = count;
        slot.reserved_pages = false;
        true
    }

    /// Takes pages for data in a capsule, from the connection's reservation.
    pub(crate) fn take_reserved_pages(&mut self, slot: u16) -> bool {
        let count = self.slots.at(slot).transfer_bytes.div_ceil(PAGE_BYTES as u32);
        if count > self.queue.reserved_left {
            return self.take_pages(slot);
        }
        let Some(pages) = self.env.pool.take_reserved(count) else { return false };
        self.queue.reserved_left -= count;
        let slot = self.slots.at_mut(slot);
        slot.cursor = pages.start();
        slot.pages = pages;
        slot.page_count = count;
        slot.reserved_pages = true;
        true
    }

    /// Gives back what pages a command holds.
    pub(crate) fn give_back_pages(&mut self, slot: u16) {
        let slot = self.slots.at_mut(slot);
        let pages = core::mem::replace(&mut slot.pages, Pages::NONE);
        if pages.is_empty() {
            return;
        }
        let count = core::mem::take(&mut slot.page_count);
        if slot.reserved_pages {
            self.queue.reserved_left += count;
        } else {
            self.queue.general_pages = self.queue.general_pages.saturating_sub(count);
        }
        self.env.pool.give_back(pages);
        self.effects.freed = true;
    }

    /// The backend keeps a command's pages and will return them to the pool by itself.
    pub(crate) fn forget_pages(&mut self, slot: u16) {
        let slot = self.slots.at_mut(slot);
        let count = core::mem::take(&mut slot.page_count);
        if slot.reserved_pages {
            // They left the reservation with the quarantine; others take their place if there are any.
            if self.env.pool.reserve(count) {
                self.queue.reserved_left += count;
            } else {
                self.queue.reserved_pages = self.queue.reserved_pages.saturating_sub(count);
            }
        } else {
            self.queue.general_pages = self.queue.general_pages.saturating_sub(count);
        }
    }

    /// The command is over in every respect.
    pub(crate) fn free_slot(&mut self, slot: u16) {
        self.give_back_pages(slot);
        self.fused_freed(slot);
        let cid = self.slots.at(slot).command.cid.get();
        if let Some(count) = self.queue.cids.get_mut(cid_place(cid)) {
            *count = count.saturating_sub(1);
        }
        debug_assert!(self.queue.outstanding > 0);
        self.queue.outstanding = self.queue.outstanding.saturating_sub(1);
        self.slots.give_back(slot);
    }
}
