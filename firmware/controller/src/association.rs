//! Associations: Connect (Base 6.3), the loss of queues, and keep alive (Base 3.9).

use core::net::IpAddr;
use core::time::Duration;

use hal_api::Instant;
use hal_log::{info, warn};
use heapless::String;
use message::configuration::SubsystemPlace;
use message::{EndReason, MAX_CHANGES};
use nvme::fabrics::{
    ANY_CONTROLLER, ConnectCommand, ConnectData, DISCOVERY_NQN, invalid_parameter, nqn_text,
};
use nvme::registers::{Configuration, ControllerStatus};
use nvme::{Status, opcode};

use crate::ana::PortId;
use crate::config::{IDLE_CONTROLLER_MS, KEEP_ALIVE_GRANULARITY_MS, MAX_CONTROLLER_ID};
use crate::delegate::queue_request;
use crate::errors::ErrorLog;
use crate::events::Events;
use crate::features::FeatureValues;
use crate::lines::LineKind;
use crate::slot::{Controller, ControllerHandle, Part, Shutdown};
use crate::subsystem::Subsystem;

/// Offsets of parameters in Connect, for Connect Invalid Parameters.
pub(crate) mod offset {
    pub(crate) const QUEUE_ID: u16 = 42;
    pub(crate) const SQ_SIZE: u16 = 44;
    pub(crate) const CONTROLLER_ID: u16 = 16;
    pub(crate) const HOST_ID: u16 = 0;
    pub(crate) const SUBSYSTEM_NQN: u16 = 256;
    pub(crate) const HOST_NQN: u16 = 512;
}

/// Where a Connect has come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The port that it came by.
    pub port: PortId,
    /// The host's address, where there is one.
    pub peer: Option<IpAddr>,
}

#[cfg(test)]
impl Origin {
    /// From nowhere in particular.
    pub(crate) const fn by(port: PortId) -> Self {
        Self { port, peer: None }
    }
}

/// A queue was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// The queue's controller.
    pub controller: ControllerHandle,
    /// Its CNTLID: dword 0 of the completion.
    pub cntlid: u16,
    /// Which queue.
    pub queue_id: u16,
    /// Entries of the submission queue (SQSIZE + 1).
    pub entries: u16,
    /// SQ flow control is off, as the host asked.
    pub flow_control_disabled: bool,
    /// The subsystem that it is a controller of, or discovery.
    pub subsystem: SubsystemPlace,
}

/// A Connect failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub status: Status,
    /// Dword 0 of the completion: which parameter was wrong.
    pub result: u64,
}

impl Failure {
    pub(crate) const fn of(status: Status) -> Self {
        Self { status, result: 0 }
    }

    pub(crate) const fn in_command(offset: u16) -> Self {
        let status = Status::CONNECT_INVALID_PARAMETERS.do_not_retry();
        Self { status, result: invalid_parameter(offset, false) }
    }

    pub(crate) const fn in_data(offset: u16) -> Self {
        let status = Status::CONNECT_INVALID_PARAMETERS.do_not_retry();
        Self { status, result: invalid_parameter(offset, true) }
    }
}

/// The texts of Connect data, checked.
pub(crate) struct Names<'a> {
    pub(crate) host: &'a str,
    pub(crate) subsystem: SubsystemPlace,
}

impl Subsystem {
    /// Connects a queue: with QID 0 a new controller, else an I/O queue of an existing one, which has to come by the same port.
    ///
    /// # Errors
    /// [`Failure`] with what to answer; the connection is of no more use then.
    pub fn connect(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &ConnectCommand,
        data: &ConnectData,
    ) -> Result<Connected, Failure> {
        self.now = self.now.max(now);
        let result = self.check_connect(command, data).and_then(|(names, entries)| {
            if command.queue_id.get() == 0 {
                self.connect_admin(now, origin, command, data, &names, entries)
            } else {
                self.connect_io(now, origin.port, command, data, &names, entries)
            }
        });
        if let Err(failure) = &result {
            self.count_refusal(command, failure);
        }
        result
    }

    pub(crate) fn count_refusal(&mut self, command: &ConnectCommand, failure: &Failure) {
        self.counters.refused_connects += 1;
        if self.may_say(LineKind::Connects, self.now) {
            warn!(
                "controller: connect of queue {} refused: {} ({:#x})",
                command.queue_id.get(),
                failure.status.name(),
                failure.result
            );
        }
    }

    /// What is wrong with a Connect whatever the card's state: no core need be asked about it.
    ///
    /// # Errors
    /// [`Failure`], which is counted.
    pub fn judge_connect(&mut self, command: &ConnectCommand, data: &ConnectData) -> Result<(), Failure> {
        self.judged_names(command, data).map(|_| ())
    }

    /// The same, for who goes on with the names.
    pub(crate) fn judged_names<'a>(
        &mut self,
        command: &ConnectCommand,
        data: &'a ConnectData,
    ) -> Result<Names<'a>, Failure> {
        let checked = self.check_connect(command, data);
        checked.map(|(names, _)| names).inspect_err(|failure| self.count_refusal(command, failure))
    }

    /// Rules for both kinds of queue. Returns the names and the entries asked for.
    pub(crate) fn check_connect<'a>(
        &self,
        command: &ConnectCommand,
        data: &'a ConnectData,
    ) -> Result<(Names<'a>, u16), Failure> {
        if command.opcode != opcode::FABRICS || command.fabrics_kind != nvme::fabrics::kind::CONNECT {
            return Err(Failure::of(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()));
        }
        if command.flags & 0b11 != 0 {
            return Err(Failure::of(Status::INVALID_FIELD.do_not_retry()));
        }
        if command.format.get() != 0 {
            return Err(Failure::of(Status::CONNECT_INCOMPATIBLE_FORMAT.do_not_retry()));
        }
        let sq_size = command.sq_size.get();
        if sq_size == 0 || sq_size >= self.config.max_queue_entries {
            return Err(Failure::in_command(offset::SQ_SIZE));
        }
        let subsystem = nqn_text(&data.subsystem_nqn).ok_or(Failure::in_data(offset::SUBSYSTEM_NQN))?;
        let host = nqn_text(&data.host_nqn).ok_or(Failure::in_data(offset::HOST_NQN))?;
        if subsystem == DISCOVERY_NQN {
            return Ok((Names { host, subsystem: SubsystemPlace::DISCOVERY }, sq_size + 1));
        }
        let place = self.directory.find(subsystem).ok_or(Failure::in_data(offset::SUBSYSTEM_NQN))?;
        if !self.directory.lets_in(place, host) {
            return Err(Failure::of(Status::CONNECT_INVALID_HOST.do_not_retry()));
        }
        Ok((Names { host, subsystem: place }, sq_size + 1))
    }

    fn connect_admin(
        &mut self,
        now: Instant,
        origin: Origin,
        command: &ConnectCommand,
        data: &ConnectData,
        names: &Names<'_>,
        entries: u16,
    ) -> Result<Connected, Failure> {
        if data.controller_id.get() != ANY_CONTROLLER {
            return Err(Failure::in_data(offset::CONTROLLER_ID));
        }
        let busy = Failure::of(Status::CONNECT_CONTROLLER_BUSY);
        if !self.has_home_place(origin.peer) {
            return Err(busy);
        }
        let index = self.slots.iter().position(|slot| slot.controller.is_none()).ok_or(busy)?;
        let id = self.next_id().ok_or(busy)?;
        let host_nqn = String::try_from(names.host).map_err(|_| Failure::in_data(offset::HOST_NQN))?;
        let discovery = names.subsystem.is_discovery();
        let granted_queues = if discovery { 0 } else { self.config.max_io_queues };
        let lost_writes = self.lost_writes_of(data.host_id).with_told_lately(self.now);
        let slot = self.slots.get_mut(index).ok_or(busy)?;
        let handle =
            ControllerHandle { index: u16::try_from(index).map_err(|_| busy)?, generation: slot.generation };
        slot.controller = Some(Controller {
            id,
            subsystem: names.subsystem,
            port: origin.port,
            peer: origin.peer,
            host_nqn,
            host_id: data.host_id,
            configuration: Configuration::default(),
            status: ControllerStatus::empty(),
            shutdown: Shutdown::No,
            queues: 1,
            closing_queues: 0,
            had_io: false,
            granted_queues,
            keep_alive_ms: rounded_keep_alive(command.keep_alive_ms.get()),
            last_activity: now,
            features: FeatureValues::new(),
            events: Events::new(),
            errors: ErrorLog::new(),
            lost_writes,
            part: Part::HERE,
        });
        self.counters.connects += 1;
        self.counters.live += 1;
        self.show_controllers();
        if self.may_say(LineKind::Controllers, now) {
            info!("controller {}: connected by {}, discovery {}", id, names.host, discovery);
        }
        Ok(Connected {
            controller: handle,
            cntlid: id,
            queue_id: 0,
            entries,
            flow_control_disabled: command.disables_flow_control(),
            subsystem: names.subsystem,
        })
    }

    fn connect_io(
        &mut self,
        now: Instant,
        port: PortId,
        command: &ConnectCommand,
        data: &ConnectData,
        names: &Names<'_>,
        entries: u16,
    ) -> Result<Connected, Failure> {
        let request = queue_request(0, port, command, data, names);
        let (handle, _) = self.reserve_queue(&request, now)?;
        Ok(Connected {
            controller: handle,
            cntlid: request.cntlid,
            queue_id: request.queue_id,
            entries,
            flow_control_disabled: command.disables_flow_control(),
            subsystem: names.subsystem,
        })
    }

    /// The CNTLID after the last one that is not in use: an ID comes back as late as possible, so that a host's
    /// late I/O queue does not meet another's controller.
    fn next_id(&mut self) -> Option<u16> {
        let (core, cores) = self.place();
        for _ in 0..=self.slots.len() + MAX_CHANGES {
            let next = self.last_id.checked_add(cores).filter(|&id| id <= MAX_CONTROLLER_ID);
            let id = next.filter(|_| self.last_id != 0).unwrap_or(core + 1);
            self.last_id = id;
            if !self.controllers_mut().any(|controller| controller.id == id) && !self.is_still_ending(id) {
                return Some(id);
            }
        }
        None
    }

    /// The connection of a queue is gone. With the admin queue the controller goes: the transport then closes
    /// the connections of its other queues ([`Subsystem::is_live`] says so).
    pub fn disconnect_queue(&mut self, handle: ControllerHandle, queue_id: u16) {
        let Some(controller) = self.controller_mut(handle) else { return };
        if queue_id == 0 {
            let id = controller.id;
            if self.may_say(LineKind::Controllers, self.now) {
                info!("controller {}: disconnected", id);
            }
            self.remove(handle);
        } else if controller.has_queue(queue_id) {
            controller.queues &= !(1 << queue_id);
            controller.closing_queues &= !(1 << queue_id);
            if let Part::Delegate { home, .. } = controller.part {
                let cntlid = controller.id;
                self.give_back_queue(home, cntlid, queue_id);
                self.leave_if_unused(handle);
            }
        }
    }

    /// The host of this controller is alive: a command, or other traffic of one of its queues, has arrived.
    pub fn note_activity(&mut self, handle: ControllerHandle, now: Instant) {
        if let Some(controller) = self.controller_mut(handle) {
            controller.last_activity = now;
            if let Part::Delegate { active, .. } = &mut controller.part {
                *active = true;
            }
        }
    }

    /// Removes the controllers whose keep alive timer has expired. Call it a few times a second.
    pub fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { continue };
            let Some(controller) = &slot.controller else { continue };
            if controller.is_delegate() || !controller.is_silent(now) {
                continue;
            }
            let handle = ControllerHandle { index: index as u16, generation: slot.generation };
            let (id, silent) = (controller.id, now.since(controller.last_activity));
            if self.may_say(LineKind::Controllers, now) {
                warn!("controller {}: silent for {} ms, removed", id, silent.as_millis() as u64);
            }
            self.counters.keep_alive_expired += 1;
            self.remove(handle);
        }
        self.tell_homes();
        self.lines.tell_left_out(now);
    }

    /// Ends the controllers that live here and that may not stay. Returns how many. The transport then looks at the connections
    /// of those that are gone ([`Subsystem::is_live`] says so).
    pub(crate) fn end_controllers(&mut self, may_stay: impl Fn(&Self, &Controller) -> bool) -> u32 {
        let mut ended = 0;
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { continue };
            let Some(controller) = &slot.controller else { continue };
            if controller.is_delegate() || may_stay(self, controller) {
                continue;
            }
            let handle = ControllerHandle { index: index as u16, generation: slot.generation };
            let id = controller.id;
            if self.may_say(LineKind::Controllers, self.now) {
                info!("controller {}: its host may not be connected any more, removed", id);
            }
            ended += 1;
            self.remove(handle);
        }
        ended
    }

    pub(crate) fn remove(&mut self, handle: ControllerHandle) {
        self.end_elsewhere(handle, EndReason::Removed);
        let Some(slot) = self.slots.get_mut(usize::from(handle.index)) else { return };
        if let Some(controller) = slot.controller.take() {
            slot.generation = slot.generation.wrapping_add(1);
            if controller.is_delegate() {
                return;
            }
            // Others have written nothing, and must not push out those that have.
            if controller.had_io {
                self.departed.add(controller.host_id, controller.lost_writes);
            }
            self.counters.live = self.counters.live.saturating_sub(1);
            self.show_controllers();
        }
    }

    /// Lets the other cores see which I/O controllers live here.
    fn show_controllers(&self) {
        if let Some(cores) = &self.cores {
            cores.roster.show(self.io_controllers_here());
        }
    }

    /// The I/O controllers that live on this core: subsystem and CNTLID. Discovery controllers belong to another subsystem.
    pub(crate) fn io_controllers_here(&self) -> impl Iterator<Item = (SubsystemPlace, u16)> {
        let is_one = |controller: &&Controller| !controller.is_discovery() && !controller.is_delegate();
        self.controllers().filter(is_one).map(|controller| (controller.subsystem, controller.id))
    }
}

impl Controller {
    /// Whether the host has been silent for longer than it may be. The keep alive timer runs only while the
    /// controller is ready; a controller that is not enabled is kept for [`IDLE_CONTROLLER_MS`].
    fn is_silent(&self, now: Instant) -> bool {
        let limit_ms = match (self.is_ready(), self.keep_alive_ms) {
            (true, 0) if !self.is_discovery() => return false,
            (true, 0) | (false, _) => IDLE_CONTROLLER_MS,
            (true, keep_alive_ms) => keep_alive_ms,
        };
        now.since(self.last_activity) > Duration::from_millis(u64::from(limit_ms))
    }
}

/// A keep alive time-out rounded up to the granularity (Base 5.27.1.12); 0 stays off.
pub(crate) fn rounded_keep_alive(milliseconds: u32) -> u32 {
    let units = milliseconds.div_ceil(KEEP_ALIVE_GRANULARITY_MS);
    units.saturating_mul(KEEP_ALIVE_GRANULARITY_MS)
}

#[cfg(test)]
mod tests;
