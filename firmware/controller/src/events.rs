//! Asynchronous events (Base 5.2): parked requests, what is pending, and what is masked until the host has
//! read the log page that tells more.

use hal_api::Instant;
use heapless::Vec;
use message::configuration::SubsystemPlace;
use nvme::{NSID_ALL, Status, log_page};

use crate::ana::PortId;
use crate::backend::Backend;
use crate::config::{MAX_ASYNC_EVENT_REQUESTS, MAX_CHANGED_NAMESPACES};
use crate::log_pages::health::TEMPERATURE_WARNING;
use crate::slot::{Controller, ControllerHandle};
use crate::subsystem::Subsystem;

/// Event types.
const TYPE_HEALTH: u64 = 1;
const TYPE_NOTICE: u64 = 2;
/// Critical warnings of the SMART log, each with a bit of Asynchronous Event Configuration in the same place.
const SPARE_WARNING: u8 = 1 << 0;
const ALL_WARNINGS: u8 = 0xff;

/// What a controller may tell its host of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A drive's critical warning other than the two below.
    Reliability,
    /// A temperature beyond a threshold.
    Temperature,
    /// A drive's spare capacity is nearly used up.
    Spare,
    /// Namespaces came or went.
    NamespaceAttributes,
    /// The port's ANA state has changed.
    AnaState,
    /// The discovery log page has changed.
    Discovery,
}

impl Event {
    const ALL: [Self; 6] = [
        Self::Reliability,
        Self::Temperature,
        Self::Spare,
        Self::NamespaceAttributes,
        Self::AnaState,
        Self::Discovery,
    ];

    /// The bits of Asynchronous Event Configuration that stand for it; those of notices are the same in OAES.
    pub(crate) const fn configuration_bits(self) -> u32 {
        match self {
            Self::Reliability => (ALL_WARNINGS & !SPARE_WARNING & !TEMPERATURE_WARNING) as u32,
            Self::Temperature => TEMPERATURE_WARNING as u32,
            Self::Spare => SPARE_WARNING as u32,
            Self::NamespaceAttributes => 1 << 8,
            Self::AnaState => 1 << 11,
            Self::Discovery => 1 << 31,
        }
    }

    /// The log page whose reading lifts the mask.
    pub(crate) const fn log_page(self) -> u8 {
        match self {
            Self::Reliability | Self::Temperature | Self::Spare => log_page::id::SMART,
            Self::NamespaceAttributes => log_page::id::CHANGED_NAMESPACES,
            Self::AnaState => log_page::id::ANA,
            Self::Discovery => log_page::id::DISCOVERY,
        }
    }

    /// Event type and information (Base figures 146 to 150).
    const fn code(self) -> (u64, u64) {
        match self {
            Self::Reliability => (TYPE_HEALTH, 0x00),
            Self::Temperature => (TYPE_HEALTH, 0x01),
            Self::Spare => (TYPE_HEALTH, 0x02),
            Self::NamespaceAttributes => (TYPE_NOTICE, 0x00),
            Self::AnaState => (TYPE_NOTICE, 0x03),
            Self::Discovery => (TYPE_NOTICE, 0xf0),
        }
    }

    const fn flag(self) -> u8 {
        1 << self as u8
    }

    /// All events that one log page tells of.
    fn flags_of(page: u8) -> u8 {
        let told = Self::ALL.into_iter().filter(|event| event.log_page() == page);
        told.fold(0, |flags, event| flags | event.flag())
    }

    const fn result(self) -> u64 {
        let (kind, information) = self.code();
        kind | information << 8 | (self.log_page() as u64) << 16
    }
}

/// An Asynchronous Event Request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRequest {
    /// The token that it was executed with.
    pub token: u32,
    /// Success with an event, or that it was aborted.
    pub status: Status,
    /// Dword 0 of the completion.
    pub result: u64,
}

#[derive(Debug, Clone, Copy)]
struct Parked {
    token: u32,
    cid: u16,
    /// It ends without an event.
    ended: Option<Status>,
}

/// Events of one controller.
#[derive(Debug)]
pub(crate) struct Events {
    parked: Vec<Parked, MAX_ASYNC_EVENT_REQUESTS>,
    pending: u8,
    masked: u8,
    changed: Vec<u32, MAX_CHANGED_NAMESPACES>,
    too_many_changed: bool,
    /// Critical warnings that are on and that the host was told of.
    warned: u8,
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self {
            parked: Vec::new(),
            pending: 0,
            masked: 0,
            changed: Vec::new(),
            too_many_changed: false,
            warned: 0,
        }
    }

    /// Keeps a request until there is an event.
    pub(crate) fn park(&mut self, token: u32, cid: u16) -> Result<(), Status> {
        self.parked
            .push(Parked { token, cid, ended: None })
            .map_err(|_| Status::ASYNC_EVENT_LIMIT_EXCEEDED.do_not_retry())
    }

    /// Ends the request with this CID; false when there is none.
    pub(crate) fn abort(&mut self, cid: u16) -> bool {
        let found = self.parked.iter_mut().find(|parked| parked.cid == cid && parked.ended.is_none());
        let Some(parked) = found else { return false };
        parked.ended = Some(Status::ABORT_REQUESTED);
        true
    }

    /// A controller reset: all requests end, all events are forgotten.
    pub(crate) fn reset(&mut self) {
        for parked in &mut self.parked {
            parked.ended.get_or_insert(Status::ABORTED_SQ_DELETION);
        }
        self.pending = 0;
        self.masked = 0;
        self.warned = 0;
        self.clear_changed();
    }

    fn raise(&mut self, event: Event, enabled: u32) {
        if enabled & event.configuration_bits() != 0 {
            self.pending |= event.flag();
        }
    }

    /// What warnings are on now: each is told when it comes, and again only after it has gone, or was asked for anew.
    fn warn(&mut self, warnings: u8, enabled: u32) {
        let asked_for = warnings & enabled as u8;
        let new = asked_for & !self.warned;
        self.warned = asked_for;
        for event in [Event::Reliability, Event::Temperature, Event::Spare] {
            self.raise(event, u32::from(new));
        }
    }

    fn take(&mut self) -> Option<EndedRequest> {
        if let Some(index) = self.parked.iter().position(|parked| parked.ended.is_some()) {
            let parked = self.parked.remove(index);
            let status = parked.ended.unwrap_or(Status::ABORT_REQUESTED);
            return Some(EndedRequest { token: parked.token, status, result: 0 });
        }
        if self.parked.is_empty() {
            return None;
        }
        let deliverable = self.pending & !self.masked;
        let event = Event::ALL.into_iter().find(|event| deliverable & event.flag() != 0)?;
        let parked = self.parked.remove(0);
        self.pending &= !event.flag();
        self.masked |= Event::flags_of(event.log_page());
        Some(EndedRequest { token: parked.token, status: Status::SUCCESS, result: event.result() })
    }

    /// A log page was read with RAE clear: its events are reported again, and what it told is told.
    pub(crate) fn log_page_read(&mut self, page: u8) {
        self.masked &= !Event::flags_of(page);
        if page == log_page::id::CHANGED_NAMESPACES {
            self.clear_changed();
        }
    }

    fn note_changed(&mut self, nsid: u32) {
        if let Err(place) = self.changed.binary_search(&nsid)
            && self.changed.insert(place, nsid).is_err()
        {
            self.too_many_changed = true;
        }
    }

    fn clear_changed(&mut self) {
        self.changed.clear();
        self.too_many_changed = false;
    }

    /// Entries of the Changed Namespace List log page (Base 5.16.1.5), in rising order.
    pub(crate) fn changed_list(&self) -> &[u32] {
        const TOO_MANY: [u32; 1] = [nvme::NSID_ALL];
        if self.too_many_changed { &TOO_MANY } else { &self.changed }
    }
}

impl Subsystem {
    /// The next Asynchronous Event Request of this controller that has ended. Call it again until there is none.
    pub fn take_event(&mut self, handle: ControllerHandle, now: Instant) -> Option<EndedRequest> {
        self.now = self.now.max(now);
        self.controller_mut(handle)?.events.take()
    }

    /// Drops the parked requests of a controller without completing them: its admin queue's connection is gone and
    /// with it the slots that the tokens stand for.
    pub fn forget_parked(&mut self, handle: ControllerHandle) {
        if let Some(controller) = self.controller_mut(handle) {
            controller.events.parked.clear();
        }
    }

    pub(crate) fn raise_namespace_change(&mut self, subsystem: SubsystemPlace, nsid: u32) {
        self.ports.namespaces_changed();
        for controller in self.controllers_mut().filter(|controller| controller.subsystem == subsystem) {
            controller.events.note_changed(nsid);
            let enabled = controller.features.async_events;
            controller.events.raise(Event::NamespaceAttributes, enabled);
        }
    }

    pub(crate) fn raise_ana_change(&mut self, port: PortId) {
        let of_port = |controller: &&mut Controller| controller.port == port && !controller.is_discovery();
        for controller in self.controllers_mut().filter(of_port) {
            let enabled = controller.features.async_events;
            controller.events.raise(Event::AnaState, enabled);
        }
    }

    /// Raises the events of critical warnings that the drives report and hosts have asked for. Call it a few times a second.
    pub fn watch_health(&mut self, backend: &impl Backend) {
        let asks = |controller: &Controller| controller.features.async_events & u32::from(ALL_WARNINGS) != 0;
        // One look at the drives for all controllers of a subsystem.
        let mut last = None;
        for index in 0..self.slots.len() {
            let found = self.slots.get(index).and_then(|slot| slot.controller.as_ref());
            let Some(controller) = found.filter(|controller| !controller.is_discovery()) else { continue };
            let of = controller.subsystem;
            if asks(controller) && !matches!(&last, Some((known, _)) if *known == of) {
                last = Some((of, self.merged_health(of, NSID_ALL, backend)));
            }
            let controller = self.slots.get_mut(index).and_then(|slot| slot.controller.as_mut());
            let Some(controller) = controller else { continue };
            let health = last.as_ref().filter(|_| asks(controller));
            let warnings = health.map_or(0, |(_, health)| controller.warnings(health));
            controller.events.warn(warnings, controller.features.async_events);
        }
    }

    pub(crate) fn raise_discovery_change(&mut self) {
        for controller in self.controllers_mut().filter(|controller| controller.is_discovery()) {
            let enabled = controller.features.async_events;
            controller.events.raise(Event::Discovery, enabled);
        }
    }
}
