//! Connect (Base 6.3): what makes a connection a queue, and what it may have to wait for.
//!
//! No write of the host's lost connections may land after it has come back, so that a Connect waits for those at this core's drives and,
//! by a fence, for those at the others' (docs/design/many-cores.md). Connections that the host has closed are lost by then, and what is
//! not read of them is dropped. A Connect for an I/O queue of a controller that lives on
//! another core then asks there. All that time the command is parked; should its connection go, what was granted is given back.

use controller::{Backend, Connected, Failure, FenceStart, HomeAnswer, Origin, QueueContext};
use hal_mem::PAGE_BYTES;
use message::{QueueGrant, Waits};
use nvme::Status;
use nvme::fabrics::{ConnectCommand, ConnectData};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::queue::{ConnectStep, Phase, SETUP_TIMEOUT};
use crate::slots::SlotState;
use crate::target::Share;
use crate::turn::Turn;

pub(crate) const CONNECT_BYTES: u32 = size_of::<ConnectData>() as u32;

impl<B: Backend> Turn<'_, '_, B> {
    /// Makes the connection a queue, or says why not, or goes on waiting.
    pub(crate) fn connect(&mut self, slot: u16) {
        let Some((connect, data)) = self.parts_of_connect(slot) else {
            return self.finish(slot, Status::INTERNAL_ERROR, 0);
        };
        if self.queue.context.is_some() {
            // A second Connect was sent before the first was answered.
            return self.finish(slot, Status::COMMAND_SEQUENCE_ERROR.do_not_retry(), 0);
        }
        if self.queue.parked_connect.is_some() {
            return self.finish(slot, Status::CONNECT_CONTROLLER_BUSY, 0);
        }
        match self.queue.connect_step {
            ConnectStep::Passing(_) | ConnectStep::Fencing(_) | ConnectStep::Asking(_) => {
                return self.park_connect(slot);
            }
            ConnectStep::First => {
                if let Err(failure) = self.env.subsystem.judge_connect(&connect, &data) {
                    return self.refuse_connect(slot, failure);
                }
            }
            ConnectStep::Passed | ConnectStep::Fenced => {}
        }
        if !self.is_fenced(data.host_id) {
            return self.park_connect(slot);
        }
        if connect.queue_id.get() == 0 && self.address_has_enough_controllers() {
            if self.may_say() {
                hal_log::warn!("connection {}: refused, its address has enough controllers", self.index);
            }
            return self.refuse_connect(slot, Failure { status: Status::CONNECT_CONTROLLER_BUSY, result: 0 });
        }
        match self.env.subsystem.ask_home(self.queue.port, &connect, &data) {
            HomeAnswer::Here => {
                let origin = Origin { port: self.queue.port, peer: self.queue.peer };
                let connected = self.env.subsystem.connect(self.now, origin, &connect, &data);
                self.connected(slot, data.host_id, connected);
            }
            HomeAnswer::Asked(ticket) => {
                self.queue.connect_step = ConnectStep::Asking(ticket);
                self.park_connect(slot);
                self.queue.deadline = self.now + SETUP_TIMEOUT;
            }
            HomeAnswer::Busy => self.park_connect(slot),
            HomeAnswer::Refused(failure) => self.refuse_connect(slot, failure),
        }
    }

    /// The command and the data of a Connect, which has all of both.
    fn parts_of_connect(&self, slot: u16) -> Option<(ConnectCommand, ConnectData)> {
        let entry = self.slots.at(slot);
        let mut data = ConnectData::new_zeroed();
        self.env.pool.read(&mut entry.pages.start(), data.as_mut_bytes());
        let (connect, _) = ConnectCommand::read_from_prefix(entry.command.as_bytes()).ok()?;
        Some((connect, data))
    }

    /// Whether no write of a lost connection of this host can still land. Begins to find that out on the other cores.
    fn is_fenced(&mut self, host_id: [u8; 16]) -> bool {
        let mut of_host = self.fences.iter().filter(|fence| fence.host_id == host_id);
        if of_host.clone().any(|fence| fence.peer_closed) {
            self.effects.returning = Some(host_id);
            return false;
        }
        let here = of_host.any(|fence| fence.writes > 0);
        if here || self.env.subsystem.has_pending_end(host_id) {
            return false;
        }
        if self.queue.connect_step == ConnectStep::Fenced {
            return true;
        }
        let (start, step): (_, fn(u32) -> ConnectStep) = match self.queue.connect_step {
            ConnectStep::Passed => {
                (self.env.subsystem.begin_fence(host_id, self.queue.peer), ConnectStep::Fencing)
            }
            _ => (self.env.subsystem.begin_arrivals(host_id, self.queue.peer), ConnectStep::Passing),
        };
        match start {
            FenceStart::NotNeeded => true,
            FenceStart::Begun(number) => {
                self.queue.connect_step = step(number);
                false
            }
            FenceStart::Busy => false,
        }
    }

    fn park_connect(&mut self, slot: u16) {
        let entry = self.slots.at_mut(slot);
        self.counters.held_connects += u64::from(entry.state != SlotState::ConnectParked);
        entry.state = SlotState::ConnectParked;
        entry.waits.add(Waits::FENCE);
        self.queue.parked_connect = Some(slot);
        if !matches!(self.queue.connect_step, ConnectStep::Asking(_)) {
            self.queue.deadline = hal_api::Instant::FAR_FUTURE;
        }
    }

    /// The controller's home has granted the queue.
    pub(crate) fn connect_granted(&mut self, home: u8, grant: &QueueGrant) {
        let slot = self.queue.parked_connect.take();
        self.queue.connect_step = ConnectStep::First;
        let Some(slot) = slot.filter(|_| self.queue.phase == Phase::AwaitingConnect) else {
            return self.env.subsystem.give_back_queue(home, grant.cntlid, grant.queue_id);
        };
        let Some((connect, data)) = self.parts_of_connect(slot) else {
            self.env.subsystem.give_back_queue(home, grant.cntlid, grant.queue_id);
            return self.finish(slot, Status::INTERNAL_ERROR, 0);
        };
        let connected = self.env.subsystem.adopt(home, grant, self.now, self.queue.port, &connect, &data);
        self.connected(slot, data.host_id, connected);
    }

    /// The controller's home has refused the queue.
    pub(crate) fn connect_refused(&mut self, failure: Failure) {
        self.queue.connect_step = ConnectStep::First;
        if let Some(slot) = self.queue.parked_connect.take() {
            self.refuse_connect(slot, failure);
        }
    }

    fn connected(&mut self, slot: u16, host_id: [u8; 16], connected: Result<Connected, Failure>) {
        let connected = match connected {
            Ok(connected) => connected,
            Err(failure) => return self.refuse_connect(slot, failure),
        };
        if !self.reserve_for(connected.entries) {
            if self.may_say() {
                hal_log::warn!("connection {}: refused, no slots or buffers left", self.index);
            }
            self.env.subsystem.disconnect_queue(connected.controller, connected.queue_id);
            return self.refuse_connect(slot, Failure { status: Status::CONNECT_CONTROLLER_BUSY, result: 0 });
        }
        let queue = &mut *self.queue;
        queue.connect_step = ConnectStep::First;
        queue.context = Some(QueueContext { controller: connected.controller, queue_id: connected.queue_id });
        queue.cntlid = connected.cntlid;
        queue.host_id = host_id;
        queue.subsystem = connected.subsystem;
        queue.entries = connected.entries;
        queue.sq_head = 1 % connected.entries.max(1);
        queue.flow_control = !connected.flow_control_disabled;
        queue.phase = Phase::Live;
        if connected.queue_id == 0 {
            self.env.subsystem.inherit_losses(connected.controller, &queue.inherited, self.now);
            if let Some(share) = self.shares.get_mut(usize::from(self.index)) {
                share.is_admin = true;
            }
        }
        queue.deadline = hal_api::Instant::FAR_FUTURE;
        self.finish(slot, Status::SUCCESS, u64::from(connected.cntlid));
    }

    /// A connection without a controller does not stay for ever, whatever its Connect has waited for.
    fn refuse_connect(&mut self, slot: u16, failure: Failure) {
        self.queue.connect_step = ConnectStep::First;
        self.queue.deadline = self.now + SETUP_TIMEOUT;
        self.finish(slot, failure.status, failure.result);
    }

    /// Whether the host's address has as many controllers as one may have.
    fn address_has_enough_controllers(&self) -> bool {
        let admins = self.shares_of_address().filter(|share| share.is_admin).count();
        admins >= usize::from(self.controllers_per_address)
    }

    /// What the host's address has; nothing where the connection has none.
    fn shares_of_address(&self) -> impl Iterator<Item = &Share> {
        let peer = self.queue.peer;
        self.shares.iter().filter(move |share| peer.is_some() && share.peer == peer)
    }

    /// Whether the host's address may have so many slots more: a quarter is left to others, as of connections.
    fn address_may_have_slots(&self, more: u16) -> bool {
        let has: u32 = self.shares_of_address().map(|share| u32::from(share.slots)).sum();
        self.queue.peer.is_none() || has + u32::from(more) <= u32::from(self.slots.total()) / 4 * 3
    }

    /// Promises the connection slots and in-capsule pages for all entries of its queue.
    fn reserve_for(&mut self, entries: u16) -> bool {
        let more = entries.saturating_sub(self.queue.reserved_slots);
        if !self.address_may_have_slots(more) {
            if self.may_say() {
                hal_log::warn!("connection {}: its address has its share of the command slots", self.index);
            }
            return false;
        }
        if !self.slots.reserve(more) {
            return false;
        }
        let pages = u32::from(entries) * (crate::pdu::IN_CAPSULE_BYTES / PAGE_BYTES as u32);
        // What is left must hold the largest command, or one that waits for pages might wait for ever.
        let largest = self.env.subsystem.config().max_transfer_bytes().div_ceil(PAGE_BYTES as u32);
        let fits = self.env.pool.available() >= pages.saturating_add(largest);
        if !fits || !self.env.pool.reserve(pages) {
            self.slots.unreserve(more);
            return false;
        }
        self.queue.reserved_slots += more;
        if let Some(share) = self.shares.get_mut(usize::from(self.index)) {
            share.slots = self.queue.reserved_slots;
        }
        self.queue.reserved_pages = pages;
        self.queue.reserved_left = pages;
        true
    }
}
