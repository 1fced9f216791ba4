//! Controllers whose queues are on several cores: home grants an I/O queue, the core of its connection adopts it.
//!
//! What that core has is a delegate: a [`Controller`] with what I/O commands need, without events or a keep alive timer. What concerns
//! the controller as a whole goes home by message.

use hal_api::Instant;
use hal_log::info;
use heapless::String;
use message::configuration::SubsystemPlace;
use message::{EndReason, ErrorReport, LostList, MAX_CONNECT_REQUESTS, QueueGrant, QueueRequest};
use nvme::Status;
use nvme::fabrics::{ConnectCommand, ConnectData, DISCOVERY_NQN, nqn_text};
use nvme::log_page::ErrorEntry;
use nvme::registers::{Configuration, ControllerStatus};

use crate::ana::PortId;
use crate::association::{Connected, Failure, Names, offset};
use crate::cores::Message;
use crate::errors::{ErrorLog, LOCATION_UNKNOWN, TRANSPORT_TCP};
use crate::events::Events;
use crate::features::FeatureValues;
use crate::lines::LineKind;
use crate::lost_writes::LostWrites;
use crate::slot::{Controller, ControllerHandle, Part, Shutdown};
use crate::subsystem::Subsystem;

/// FNV-1a, 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// What became of a question to a controller's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeAnswer {
    /// The controller lives on this core, as far as its CNTLID says: [`Subsystem::connect`] is the way.
    Here,
    /// It was asked under this ticket: wait for [`crate::Heard::Granted`] or [`crate::Heard::Refused`].
    Asked(u32),
    /// Home has too many questions already: try again later.
    Busy,
    /// It need not be asked.
    Refused(Failure),
}

/// What home has to know of a Connect.
pub(crate) fn queue_request(
    ticket: u32,
    port: PortId,
    command: &ConnectCommand,
    data: &ConnectData,
    names: &Names<'_>,
) -> QueueRequest {
    QueueRequest {
        ticket,
        cntlid: data.controller_id.get(),
        queue_id: command.queue_id.get(),
        host_id: data.host_id,
        names: digest(&[names.host, nqn_text(&data.subsystem_nqn).unwrap_or_default()]),
        subsystem: names.subsystem,
        port: port.0,
    }
}

/// Of names, each of which ends with a zero.
pub(crate) fn digest(names: &[&str]) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

impl Subsystem {
    /// Asks a controller's home for one of its I/O queues, if that is another core.
    pub fn ask_home(&mut self, port: PortId, command: &ConnectCommand, data: &ConnectData) -> HomeAnswer {
        let home = self.home_of(data.controller_id.get());
        if !self.has_others() || command.queue_id.get() == 0 || u16::from(home) == self.place().0 {
            return HomeAnswer::Here;
        }
        let names = match self.judged_names(command, data) {
            Ok(names) => names,
            Err(failure) => return HomeAnswer::Refused(failure),
        };
        let Some(cores) = self.cores.as_mut() else { return HomeAnswer::Here };
        let Some(requests) = cores.requests.get_mut(usize::from(home)) else { return HomeAnswer::Here };
        if usize::from(*requests) >= MAX_CONNECT_REQUESTS {
            return HomeAnswer::Busy;
        }
        *requests += 1;
        cores.last_ticket = cores.last_ticket.wrapping_add(1);
        let ticket = cores.last_ticket;
        cores.post(home, Message::Connect(queue_request(ticket, port, command, data, &names)));
        HomeAnswer::Asked(ticket)
    }

    pub(crate) fn count_answer(&mut self, from: u8) {
        let requests = self.cores.as_mut().and_then(|cores| cores.requests.get_mut(usize::from(from)));
        if let Some(requests) = requests {
            debug_assert!(*requests > 0, "an answer that nobody has asked for");
            *requests = requests.saturating_sub(1);
        }
    }

    /// Home's answer.
    pub(crate) fn answer(&mut self, from: u8, request: &QueueRequest, now: Instant) {
        let (ticket, cntlid, queue_id) = (request.ticket, request.cntlid, request.queue_id);
        let granted = self.reserve_queue(request, now).map(|(handle, lost)| {
            if let Some(controller) = self.controller_mut(handle)
                && let Part::Home { delegates, queues_elsewhere, .. } = &mut controller.part
            {
                delegates.insert(from);
                *queues_elsewhere |= 1 << queue_id;
            }
            lost
        });
        let message = match granted {
            Ok(lost) => Message::Granted(QueueGrant { ticket, cntlid, queue_id, lost }),
            Err(Failure { status, result }) => Message::Refused { ticket, status: status.to_field(), result },
        };
        if let Some(cores) = self.cores.as_mut() {
            cores.post(from, message);
        }
    }

    /// Checks a Connect for an I/O queue against its controller, which lives here, and takes the queue.
    pub(crate) fn reserve_queue(
        &mut self,
        request: &QueueRequest,
        now: Instant,
    ) -> Result<(ControllerHandle, LostList), Failure> {
        let is_ending = self.is_still_ending(request.cntlid);
        let busy = Failure::of(Status::CONNECT_CONTROLLER_BUSY);
        let Some((handle, controller)) = self.home_controller(request.cntlid) else {
            return Err(if is_ending { busy } else { Failure::in_data(offset::CONTROLLER_ID) });
        };
        if controller.port.0 != request.port {
            return Err(Failure::in_data(offset::CONTROLLER_ID));
        }
        if controller.subsystem != request.subsystem {
            return Err(Failure::in_data(offset::SUBSYSTEM_NQN));
        }
        let subsystem = self.nqn_of(controller.subsystem);
        if digest(&[&controller.host_nqn, subsystem]) != request.names {
            return Err(Failure::in_data(offset::HOST_NQN));
        }
        if controller.host_id != request.host_id {
            return Err(Failure::in_data(offset::HOST_ID));
        }
        let queue_id = request.queue_id;
        if queue_id == 0 || queue_id > controller.granted_queues {
            return Err(Failure::in_command(offset::QUEUE_ID));
        }
        // Its place is free when its old connection is gone, whose writes a fence counts from then on: the host may try again.
        let is_closing = controller.is_ready() && controller.closing_queues & 1 << queue_id != 0;
        if is_ending || is_closing {
            return Err(busy);
        }
        if !controller.is_ready() || controller.has_queue(queue_id) {
            return Err(Failure::of(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()));
        }
        let lost = controller.lost_writes.list();
        if let Some(controller) = self.controller_mut(handle) {
            controller.queues |= 1 << queue_id;
            controller.had_io = true;
            controller.last_activity = now;
        }
        Ok((handle, lost))
    }

    /// NQN of the subsystem in this place, or of discovery.
    fn nqn_of(&self, place: SubsystemPlace) -> &str {
        if place.is_discovery() { DISCOVERY_NQN } else { self.directory.nqn_of(place) }
    }

    /// A controller that lives here.
    pub(crate) fn home_controller(&self, cntlid: u16) -> Option<(ControllerHandle, &Controller)> {
        self.find(|controller| controller.id == cntlid && !controller.is_delegate())
    }

    fn delegate(&self, cntlid: u16) -> Option<(ControllerHandle, &Controller)> {
        self.find(|controller| controller.id == cntlid && controller.is_delegate())
    }

    fn find(&self, is_it: impl Fn(&Controller) -> bool) -> Option<(ControllerHandle, &Controller)> {
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            let controller = slot.controller.as_ref().filter(|controller| is_it(controller))?;
            Some((ControllerHandle { index: index as u16, generation: slot.generation }, controller))
        })
    }

    /// Takes a granted queue up for its connection here. `command` and `data` are those of the Connect that home was asked about.
    ///
    /// # Errors
    /// [`Failure`] where there is no place; home has got the queue back then.
    pub fn adopt(
        &mut self,
        home: u8,
        grant: &QueueGrant,
        now: Instant,
        port: PortId,
        command: &ConnectCommand,
        data: &ConnectData,
    ) -> Result<Connected, Failure> {
        let adopted = self.try_adopt(home, grant, now, port, command, data);
        if adopted.is_err() {
            self.give_back_queue(home, grant.cntlid, grant.queue_id);
        }
        adopted
    }

    fn try_adopt(
        &mut self,
        home: u8,
        grant: &QueueGrant,
        now: Instant,
        port: PortId,
        command: &ConnectCommand,
        data: &ConnectData,
    ) -> Result<Connected, Failure> {
        let (names, entries) = self.check_connect(command, data)?;
        let handle = match self.delegate(grant.cntlid) {
            Some((handle, _)) => handle,
            None => self.new_delegate(home, grant.cntlid, port, data.host_id, &names, now)?,
        };
        let lost = self.losses(&grant.lost, now);
        let busy = Failure::of(Status::CONNECT_CONTROLLER_BUSY);
        let controller = self.controller_mut(handle).ok_or(busy)?;
        if controller.has_queue(grant.queue_id) || !controller.is_ready() {
            debug_assert!(false, "home has granted a queue twice, or of a controller that ends");
            return Err(busy);
        }
        controller.queues |= 1 << grant.queue_id;
        controller.lost_writes.merge(&lost);
        Ok(Connected {
            controller: handle,
            cntlid: grant.cntlid,
            queue_id: grant.queue_id,
            entries,
            flow_control_disabled: command.disables_flow_control(),
            subsystem: names.subsystem,
        })
    }

    fn new_delegate(
        &mut self,
        home: u8,
        cntlid: u16,
        port: PortId,
        host_id: [u8; 16],
        names: &Names<'_>,
        now: Instant,
    ) -> Result<ControllerHandle, Failure> {
        let busy = Failure::of(Status::CONNECT_CONTROLLER_BUSY);
        let host_nqn = String::try_from(names.host).map_err(|_| Failure::in_data(offset::HOST_NQN))?;
        let (index, slot) =
            self.slots.iter_mut().enumerate().find(|(_, slot)| slot.controller.is_none()).ok_or(busy)?;
        slot.controller = Some(Controller {
            id: cntlid,
            subsystem: names.subsystem,
            port,
            peer: None,
            host_nqn,
            host_id,
            configuration: Configuration::ENABLED,
            status: ControllerStatus::READY,
            shutdown: Shutdown::No,
            queues: 0,
            closing_queues: 0,
            had_io: true,
            granted_queues: 0,
            keep_alive_ms: 0,
            last_activity: now,
            features: FeatureValues::new(),
            events: Events::new(),
            errors: ErrorLog::new(),
            lost_writes: LostWrites::new(),
            part: Part::Delegate { home, active: false, untold_errors: 0 },
        });
        let handle = ControllerHandle { index: index as u16, generation: slot.generation };
        if self.may_say(LineKind::Controllers, now) {
            info!("controller {}: has queues here, its home is data core {}", cntlid, home);
        }
        Ok(handle)
    }

    /// Home may grant the queue anew.
    pub fn give_back_queue(&mut self, home: u8, cntlid: u16, queue_id: u16) {
        if let Some(cores) = self.cores.as_mut() {
            cores.post(home, Message::QueueGone { cntlid, queue_id });
        }
    }

    pub(crate) fn queue_gone(&mut self, cntlid: u16, queue_id: u16) {
        let Some((handle, _)) = self.home_controller(cntlid) else { return };
        let Some(controller) = self.controller_mut(handle) else { return };
        let bit = 1u128.checked_shl(u32::from(queue_id)).unwrap_or(0);
        if let Part::Home { queues_elsewhere, .. } = &mut controller.part
            && *queues_elsewhere & bit != 0
        {
            *queues_elsewhere &= !bit;
            controller.queues &= !bit;
        }
    }

    /// Whether I/O queues of this controller are on other cores.
    #[must_use]
    pub fn has_queues_elsewhere(&self, handle: ControllerHandle) -> bool {
        let controller = self.controller(handle);
        controller.is_some_and(|controller| {
            matches!(controller.part, Part::Home { queues_elsewhere, .. } if queues_elsewhere != 0)
        })
    }

    /// Whether this core, the controller's home, knows of one of its I/O queues on another core, or is ending the controller there: else no such
    /// queue may be open.
    #[must_use]
    pub fn accounts_for(&self, cntlid: u16, queue_id: u16) -> bool {
        let bit = 1u128.checked_shl(u32::from(queue_id)).unwrap_or(0);
        let elsewhere = |controller: &Controller| match controller.part {
            Part::Home { queues_elsewhere, .. } => queues_elsewhere & bit != 0,
            Part::Delegate { .. } => false,
        };
        let known = self.home_controller(cntlid).is_some_and(|(_, controller)| elsewhere(controller));
        known || self.is_still_ending(cntlid)
    }

    /// A controller ends, as its home says. For a reset its delegate takes no commands any more and stays until
    /// [`Self::drop_delegate`]; a removed one is gone. Returns what its connections here know it by.
    pub fn end_delegate(&mut self, cntlid: u16, reason: EndReason) -> Option<ControllerHandle> {
        let (handle, _) = self.delegate(cntlid)?;
        match reason {
            EndReason::Reset => {
                if let Some(controller) = self.controller_mut(handle) {
                    controller.configuration = Configuration::default();
                }
            }
            EndReason::Removed => self.remove(handle),
        }
        Some(handle)
    }

    /// The last connection of a controller that was reset is closed.
    pub fn drop_delegate(&mut self, cntlid: u16) {
        if let Some((handle, _)) = self.delegate(cntlid) {
            self.remove(handle);
        }
    }

    /// A delegate whose last queue has gone has nothing more to do once home has heard of its errors.
    pub(crate) fn leave_if_unused(&mut self, handle: ControllerHandle) {
        let Some(controller) = self.controller(handle) else { return };
        let Part::Delegate { untold_errors, .. } = controller.part else { return };
        if controller.queues == 0 && untold_errors == 0 {
            self.remove(handle);
        }
    }

    /// Tells home of an error of a delegate, or counts it until that is possible.
    pub(crate) fn report_error(&mut self, handle: ControllerHandle, is_late: bool) {
        let Some(controller) = self.controller_mut(handle) else { return };
        let Some(newest) = controller.errors.newest_first().next() else { return };
        let Part::Delegate { home, untold_errors, .. } = &mut controller.part else { return };
        *untold_errors = untold_errors.saturating_add(u32::from(!is_late));
        let (home, untold) = (*home, *untold_errors);
        let report = ErrorReport {
            cntlid: controller.id,
            queue_id: newest.sq_id.get(),
            cid: newest.cid.get(),
            status: newest.status.get(),
            nsid: newest.nsid.get(),
            start_block: newest.start_block.get(),
            missed: untold.saturating_sub(1),
        };
        let told = self.cores.as_mut().is_some_and(|cores| cores.tell(home, Message::Error(report)));
        if told
            && let Some(controller) = self.controller_mut(handle)
            && let Part::Delegate { untold_errors, .. } = &mut controller.part
        {
            *untold_errors = 0;
        }
    }

    pub(crate) fn enter_report(&mut self, report: &ErrorReport) {
        let Some((handle, _)) = self.home_controller(report.cntlid) else { return };
        let Some(controller) = self.controller_mut(handle) else { return };
        controller.errors.skip(report.missed);
        let mut entry = ErrorEntry::default();
        entry.sq_id.set(report.queue_id);
        entry.cid.set(report.cid);
        entry.status.set(report.status);
        entry.location.set(LOCATION_UNKNOWN);
        entry.transport = TRANSPORT_TCP;
        entry.nsid.set(report.nsid);
        entry.start_block.set(report.start_block);
        controller.errors.push(entry);
    }

    /// What can be told late, once a tick: that hosts are alive (Base 3.9, TBKAS), and errors that were not told.
    pub(crate) fn tell_homes(&mut self) {
        if !self.has_others() {
            return;
        }
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let handle = ControllerHandle { index: index as u16, generation: slot.generation };
            let Some(controller) = &mut slot.controller else { continue };
            let cntlid = controller.id;
            let Part::Delegate { home, active, untold_errors } = &mut controller.part else { continue };
            if *active && let Some(cores) = self.cores.as_mut() {
                *active = !cores.tell(*home, Message::Activity { cntlid });
            }
            if *untold_errors > 0 {
                self.report_error(handle, true);
            }
            self.leave_if_unused(handle);
        }
    }

    /// What a host that comes back has not heard from other cores of lost writes.
    pub fn inherit_losses(&mut self, handle: ControllerHandle, lost: &LostList, now: Instant) {
        let losses = self.losses(lost, now);
        if let Some(controller) = self.controller_mut(handle) {
            controller.lost_writes.merge(&losses);
        }
    }

    fn losses(&self, list: &LostList, now: Instant) -> LostWrites {
        let mut losses = LostWrites::new();
        list.iter().for_each(|key| losses.note(key, now));
        if list.all {
            self.namespaces.as_slice().iter().for_each(|namespace| losses.note(namespace.key, now));
        }
        losses
    }
}
