//! The home of a drive: its controller's state, its registers and its admin queue. It meets the queues in messages alone.

mod bring_up;
mod errands;
mod power;
mod recovery;
mod shutdown;
mod steps;
mod telling;

use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use heapless::Vec;
use message::{CoreSet, MAX_DATA_CORES};
use nvme::log_page::SmartLog;
use nvme::registers::ControllerStatus;

use crate::admin::Admin;
use crate::events::{DriveCounters, DriveEvent, DriveIdentity, FailReason};
use crate::limits::{HEALTH_INTERVAL, READY_POLL};
use crate::name::Name;
use crate::namespaces::Namespaces;
use crate::plan::Limits;
use bring_up::{Scan, Task};
use errands::{Errand, Event};
use steps::Steps;

/// Where a drive's controller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be brought up from whatever it does now.
    Start,
    /// All queues are stopping, before what comes then.
    Stopping(Then),
    /// CC.EN is 0, RDY = 0 is awaited.
    Disabling { deadline: Instant },
    /// RDY is 0: the queues take their pages back.
    Draining,
    /// CC.EN is 1, RDY = 1 is awaited.
    Enabling { deadline: Instant },
    /// An admin command of the bring-up is to be sent, or out.
    Asking(Task),
    /// The queues are told what they need to know, and begin.
    Opening,
    /// It works; an admin command may be out beside.
    Ready,
    /// It does not work and is tried again then.
    Failed { retry_at: Instant },
    /// The orderly end: requests end, and the cache is flushed.
    Closing,
    /// CC.SHN is set, CSTS.SHST = 10b is awaited.
    ShuttingDown { deadline: Instant },
    /// It is off the bus for good.
    ShutDown,
}

/// What follows once all queues have stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The controller is reset.
    Reset,
    /// It is told to shut down.
    ShutDown,
}

/// A drive's home.
pub(crate) struct DriveHome<D: NvmeDevice> {
    device: D,
    /// How many data cores there are.
    cores: u8,
    /// QID of the first core's queue pair.
    first_qid: u16,
    /// `None` where the device has no memory for the queues: the drive stays failed.
    admin: Option<Admin<D::Queue>>,
    /// The I/O queue pairs, by core, while they are here.
    pairs: Vec<Option<D::Queue>, MAX_DATA_CORES>,
    /// How many of them there is memory for, and how many exist at the drive.
    pairs_here: u8,
    pairs_up: u8,
    /// Commands that one of them takes at a time.
    depth: u16,
    /// How often the drive has come up.
    generation: u32,
    steps: Steps,
    state: State,
    events: heapless::Deque<DriveEvent, 8>,
    identity: DriveIdentity,
    limits: Limits,
    namespaces: Namespaces,
    scan: Scan,
    smart: Option<SmartLog>,
    /// `smart` has changed since this was last asked.
    has_health_news: bool,
    smart_at: Instant,
    health_at: Instant,
    ready_since: Instant,
    /// Failed bring-ups since the last success.
    attempts: u32,
    /// Resets since the drive was last stable.
    recent_resets: u32,
    /// The caller was told that the drive is away.
    lost: bool,
    /// It was ready once.
    known: bool,
    last_failure: Option<FailReason>,
    errand: Errand,
    /// The core whose command was aborted last.
    aborted_last: u8,
    /// By core, the late command that it wants aborted.
    late: [Option<u16>; MAX_DATA_CORES],
    /// The cores whose Abort is over and that have not been told so.
    abort_over: CoreSet,
    /// The cores that want the drive's orderly end, and those that are done with it.
    end_wanted: CoreSet,
    closed: CoreSet,
    /// The orderly end has begun: until when requests and flushes have to be over.
    end_by: Option<Instant>,
    ended_well: bool,
    /// RTD3E; 0 where the drive does not tell.
    entry_latency_us: u32,
    /// Since it was last ready its registers were not what they should be.
    registers_lost: bool,
    /// OAES.
    async_events: u32,
    /// An event was told of; its log page is to be read.
    event: Option<Event>,
    /// It takes Asynchronous Event Requests, and an interrupt tells of their ends.
    wants_events: bool,
    /// No Asynchronous Event Request goes out before.
    events_from: Instant,
    counters: DriveCounters,
}

impl<D: NvmeDevice> DriveHome<D> {
    /// The home, on data core `core` of `cores`, of a drive that will be brought up. Takes the admin queue of `device`, and for
    /// each core an I/O queue pair, from `first_qid` on.
    pub fn new(mut device: D, core: u8, cores: u8, first_qid: u16) -> Self {
        let mut pairs = Vec::new();
        for qid in (first_qid..).take(usize::from(cores)) {
            let _ = pairs.push(device.take_queue(qid));
        }
        // Cores share those up to the first that is missing.
        let pairs_here = pairs.iter().take_while(|pair| pair.is_some()).count() as u8;
        let mut admin = device.take_queue(0);
        if pairs_here == 0
            && let Some(queue) = admin.take()
        {
            device.return_queue(0, queue);
        }
        Self {
            device,
            cores,
            first_qid,
            admin: admin.map(Admin::new),
            pairs,
            pairs_here,
            pairs_up: pairs_here,
            depth: 0,
            generation: 0,
            steps: Steps::new(core, cores),
            state: State::Start,
            events: heapless::Deque::new(),
            identity: DriveIdentity::UNKNOWN,
            limits: Limits::UNKNOWN,
            namespaces: Namespaces::new(),
            scan: Scan::START,
            smart: None,
            has_health_news: false,
            smart_at: Instant::ZERO,
            health_at: Instant::ZERO,
            ready_since: Instant::ZERO,
            attempts: 0,
            recent_resets: 0,
            lost: false,
            known: false,
            last_failure: None,
            errand: Errand::None,
            aborted_last: 0,
            late: [None; MAX_DATA_CORES],
            abort_over: CoreSet::NONE,
            end_wanted: CoreSet::NONE,
            closed: CoreSet::NONE,
            end_by: None,
            ended_well: false,
            entry_latency_us: 0,
            registers_lost: false,
            async_events: 0,
            event: None,
            wants_events: false,
            events_from: Instant::ZERO,
            counters: DriveCounters::default(),
        }
    }

    /// Bring-up, health, admin commands and the orderly end. Returns how much was done; 0 is idle.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let mut work = match self.state {
            State::Start if self.admin.is_none() => {
                self.fail(FailReason::NoQueues, now);
                1
            }
            State::Failed { .. } if self.admin.is_none() => 0,
            State::Ready => self.poll_ready(now, pool),
            State::Closing => self.poll_errands(now, pool),
            _ => self.advance(now, pool),
        };
        if self.is_ending() {
            work += self.poll_shutdown(now);
        }
        work
    }

    /// Rings the doorbell of the admin queue. Once a turn.
    pub fn flush(&mut self) {
        let asks = matches!(self.state, State::Ready | State::Closing | State::Asking(_));
        if let Some(admin) = self.admin.as_mut().filter(|_| asks) {
            hal_api::CommandQueue::flush(&mut admin.queue);
        }
    }

    /// The next change that the caller was not told.
    pub fn take_event(&mut self) -> Option<DriveEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        // A namespace is there once all queues know it.
        if self.steps.are_under_way() {
            return None;
        }
        let event = self.namespaces.take_event(self.identity, &self.limits)?;
        if let DriveEvent::NamespaceRefused { nsid, reason } = event {
            hal_log::warn!(
                "drive {}: namespace {} is not served: {}",
                self.name().as_str(),
                nsid,
                reason.text()
            );
        }
        Some(event)
    }

    /// Asks for an interrupt of the admin queue. True when something waits already.
    pub fn arm(&mut self) -> bool {
        self.admin.as_mut().is_some_and(|admin| hal_api::CommandQueue::arm(&mut admin.queue))
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        if let Some(admin) = &mut self.admin {
            hal_api::CommandQueue::disarm(&mut admin.queue);
        }
    }

    /// Whether there is something to do that no interrupt, no message and no deadline tells of.
    pub fn has_work(&self) -> bool {
        let asks = match (&self.admin, self.state) {
            (Some(admin), State::Asking(_)) => admin.deadline().is_none(),
            (_, State::Start) => !self.steps.are_under_way(),
            _ => false,
        };
        asks || !self.events.is_empty() || self.has_messages()
    }

    /// When it wants to be polled at the latest.
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let Some(admin) = &self.admin else { return Instant::FAR_FUTURE };
        match (self.state, admin.deadline()) {
            (State::Ready, Some(deadline)) => self.health_at.min(deadline),
            (State::Ready, None) => self.health_at.min(self.smart_at),
            // Messages tell how it goes on.
            (State::Start, _) if self.steps.are_under_way() => Instant::FAR_FUTURE,
            (State::Stopping(_) | State::Draining | State::Opening, _) => Instant::FAR_FUTURE,
            (State::Start, _) => now,
            (State::Failed { retry_at }, _) => retry_at,
            (State::ShutDown, _) => Instant::FAR_FUTURE,
            _ => now + READY_POLL,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether the drive works and is asked nothing: all that may happen is an event of its own.
    pub fn is_at_rest(&self) -> bool {
        let asked = self.admin.as_ref().is_none_or(|admin| admin.deadline().is_some());
        let wanted = self.event.is_some() || self.late.iter().any(Option::is_some);
        let busy = asked || wanted || self.steps.are_under_way() || self.is_ending();
        self.is_ready() && !busy && self.events.is_empty() && !self.has_messages()
    }

    /// Whether the drive works or is on its way up, perhaps with writes in its cache from before a reset.
    pub fn is_at_work(&self) -> bool {
        !matches!(self.state, State::Start | State::Failed { .. } | State::ShutDown)
    }

    /// What was counted here.
    pub fn counters(&self) -> DriveCounters {
        let unknown_completions = self.admin.as_ref().map_or(0, |admin| admin.unknown);
        DriveCounters { unknown_completions, ..self.counters }
    }

    pub fn smart(&self) -> Option<&SmartLog> {
        self.smart.as_ref()
    }

    /// Whether the health has been told anew since the last call.
    pub fn take_health_news(&mut self) -> bool {
        core::mem::take(&mut self.has_health_news)
    }

    /// Whether [`Self::take_health_news`] would say so.
    pub const fn has_health_news(&self) -> bool {
        self.has_health_news
    }

    pub fn identity(&self) -> &DriveIdentity {
        &self.identity
    }

    pub fn address(&self) -> u16 {
        self.device.address()
    }

    /// How logs name the drive.
    pub fn name(&self) -> Name {
        Name::of(self.device.address())
    }

    /// Whether the drive can tell of an event.
    #[cfg(test)]
    pub fn awaits_event(&self) -> bool {
        self.admin.as_ref().is_some_and(Admin::awaits_event)
    }

    /// The device with its queues; the home's own pages go back to the pool. After [`Self::is_shut_down`].
    pub fn take_apart(mut self, pool: &mut PagePool) -> D {
        debug_assert!(self.is_shut_down());
        if let Some(admin) = self.admin {
            self.device.return_queue(0, admin.take_apart(pool));
        }
        for (qid, pair) in (self.first_qid..).zip(self.pairs.iter_mut()) {
            if let Some(pair) = pair.take() {
                self.device.return_queue(qid, pair);
            }
        }
        self.device
    }

    /// A drive that works: looks at its state from time to time and reads its SMART log.
    fn poll_ready(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        if now >= self.health_at {
            self.health_at = now + HEALTH_INTERVAL;
            let status = self.device.status();
            if status == u32::MAX {
                self.fail(FailReason::Removed, now);
                return 1;
            }
            let status = ControllerStatus::from_bits_retain(status);
            if status.contains(ControllerStatus::FATAL) {
                self.reset(FailReason::Fatal, now);
                return 1;
            }
            if !status.contains(ControllerStatus::READY) {
                self.reset(FailReason::ForgotState, now);
                return 1;
            }
        }
        self.poll_errands(now, pool)
    }
}
