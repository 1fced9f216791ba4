//! Asynchronous events (Base 5.2): parked requests, what is pending, and what is masked until the host has
//! read the log page that tells more.

use hal_api::Instant;
use heapless::Vec;
use nvme::{Status, log_page};

use crate::config::{MAX_ASYNC_EVENT_REQUESTS, MAX_CHANGED_NAMESPACES};
use crate::slot::ControllerHandle;
use crate::subsystem::Subsystem;

/// Event type of all that the card reports: Notice.
const TYPE_NOTICE: u64 = 2;

/// What a controller may tell its host of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Namespaces came or went.
    NamespaceAttributes,
    /// The discovery log page has changed.
    Discovery,
}

impl Notice {
    const ALL: [Self; 2] = [Self::NamespaceAttributes, Self::Discovery];

    /// The bit of Asynchronous Event Configuration, and of OAES, that stands for it.
    pub(crate) const fn configuration_bit(self) -> u32 {
        match self {
            Self::NamespaceAttributes => 1 << 8,
            Self::Discovery => 1 << 31,
        }
    }

    /// The log page whose reading lifts the mask.
    pub(crate) const fn log_page(self) -> u8 {
        match self {
            Self::NamespaceAttributes => log_page::id::CHANGED_NAMESPACES,
            Self::Discovery => log_page::id::DISCOVERY,
        }
    }

    const fn information(self) -> u64 {
        match self {
            Self::NamespaceAttributes => 0x00,
            Self::Discovery => 0xf0,
        }
    }

    const fn flag(self) -> u8 {
        1 << self as u8
    }

    const fn result(self) -> u64 {
        TYPE_NOTICE | self.information() << 8 | (self.log_page() as u64) << 16
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
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self { parked: Vec::new(), pending: 0, masked: 0, changed: Vec::new(), too_many_changed: false }
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
        self.clear_changed();
    }

    fn raise(&mut self, notice: Notice, enabled: u32) {
        if enabled & notice.configuration_bit() != 0 {
            self.pending |= notice.flag();
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
        let notice = Notice::ALL.into_iter().find(|notice| deliverable & notice.flag() != 0)?;
        let parked = self.parked.remove(0);
        self.pending &= !notice.flag();
        self.masked |= notice.flag();
        Some(EndedRequest { token: parked.token, status: Status::SUCCESS, result: notice.result() })
    }

    /// A log page was read with RAE clear: its events are reported again, and what it told is told.
    pub(crate) fn log_page_read(&mut self, page: u8) {
        for notice in Notice::ALL {
            if notice.log_page() == page {
                self.masked &= !notice.flag();
            }
        }
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

    pub(crate) fn raise_namespace_change(&mut self, nsid: u32) {
        for controller in self.controllers_mut().filter(|controller| !controller.discovery) {
            controller.events.note_changed(nsid);
            let enabled = controller.features.async_events;
            controller.events.raise(Notice::NamespaceAttributes, enabled);
        }
    }

    pub(crate) fn raise_discovery_change(&mut self) {
        for controller in self.controllers_mut().filter(|controller| controller.discovery) {
            let enabled = controller.features.async_events;
            controller.events.raise(Notice::Discovery, enabled);
        }
    }
}
