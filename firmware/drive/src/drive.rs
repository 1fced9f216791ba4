//! One drive: its controller's state, its admin queue, and this core's queue at it.

mod bring_up;
mod errands;
mod name;
mod power;
mod recovery;
mod removal;
mod shutdown;

use controller::{IoCompletion, IoRequest, Rejected};
use hal_api::{CommandQueue, Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::log_page::SmartLog;
use nvme::registers::ControllerStatus;

use crate::admin::Admin;
use crate::events::{DriveCounters, DriveEvent, DriveIdentity, FailReason};
use crate::io_queue::{Fault, IoQueue};
use crate::limits::{HEALTH_INTERVAL, NAMESPACES_PER_DRIVE, READY_POLL};
use crate::namespaces::Namespaces;
use crate::plan::Limits;
use crate::tables::DriveMemory;

use crate::report::Report;
use bring_up::{Scan, Task};
use errands::{Errand, Event};
use shutdown::FlushRounds;

/// Where a drive's controller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be brought up from whatever it does now.
    Start,
    /// CC.EN is 0, RDY = 0 is awaited.
    Disabling { deadline: Instant },
    /// CC.EN is 1, RDY = 1 is awaited.
    Enabling { deadline: Instant },
    /// An admin command of the bring-up is to be sent, or out.
    Asking(Task),
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

/// One drive with its admin queue and one I/O queue, both polled by the same core.
pub struct Drive<D: NvmeDevice> {
    device: D,
    qid: u16,
    /// `None` where the device has no memory for the queues: the drive stays failed.
    parts: Option<DriveParts<D>>,
    /// The memory of the tables where there are no queues to use it.
    idle_memory: Option<DriveMemory>,
    state: State,
    events: heapless::Deque<DriveEvent, 8>,
    /// Namespaces with lost writes of which the caller was not told.
    lost_writes: heapless::Vec<u32, NAMESPACES_PER_DRIVE>,
    identity: DriveIdentity,
    limits: Limits,
    namespaces: Namespaces,
    scan: Scan,
    smart: Option<SmartLog>,
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
    resets: u64,
    errand: Errand,
    rounds: FlushRounds,
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
    report: Report,
    failures: u64,
    events_told: u64,
}

/// The queues of a drive.
struct DriveParts<D: NvmeDevice> {
    admin: Admin<D::Queue>,
    io: IoQueue<D::Queue>,
}

impl<D: NvmeDevice> Drive<D> {
    /// A drive that will be brought up by [`Self::poll`]. Takes the admin queue and queue `io_queue` (1 for the
    /// first data core) of `device`.
    #[must_use]
    pub fn new(mut device: D, io_queue: u16, memory: DriveMemory) -> Self {
        let (parts, idle_memory) = match (device.take_queue(0), device.take_queue(io_queue)) {
            (Some(admin), Some(io)) => {
                let io = IoQueue::new(io, io_queue, memory);
                (Some(DriveParts { admin: Admin::new(admin), io }), None)
            }
            _ => (None, Some(memory)),
        };
        Self {
            device,
            qid: io_queue,
            parts,
            idle_memory,
            state: State::Start,
            events: heapless::Deque::new(),
            lost_writes: heapless::Vec::new(),
            identity: DriveIdentity::UNKNOWN,
            limits: Limits::UNKNOWN,
            namespaces: Namespaces::new(),
            scan: Scan::START,
            smart: None,
            smart_at: Instant::ZERO,
            health_at: Instant::ZERO,
            ready_since: Instant::ZERO,
            attempts: 0,
            recent_resets: 0,
            lost: false,
            known: false,
            last_failure: None,
            resets: 0,
            errand: Errand::None,
            rounds: FlushRounds::NONE,
            end_by: None,
            ended_well: false,
            entry_latency_us: 0,
            registers_lost: false,
            async_events: 0,
            event: None,
            wants_events: false,
            events_from: Instant::ZERO,
            report: Report::default(),
            failures: 0,
            events_told: 0,
        }
    }

    /// Bring-up, completions, waiting parts, time-outs and resets. Returns how much was done; 0 is idle.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let Some(parts) = &mut self.parts else {
            return self.poll_without_queues(now, pool);
        };
        let (mut work, fault) = parts.io.poll(now, pool);
        if let Some(fault) = fault {
            let reason = match fault {
                Fault::Timeout => FailReason::CommandTimeout,
                Fault::UnknownCompletions => FailReason::UnknownCompletions,
            };
            self.reset(reason, now, pool);
            work += 1;
        }
        work += match self.state {
            State::Ready => self.poll_ready(now, pool),
            State::Closing => self.poll_errands(now, pool),
            _ => self.advance(now, pool),
        };
        work += self.poll_flush(now);
        if self.is_ending() {
            work += self.poll_shutdown(now, pool);
        }
        self.tell_counters(now);
        work
    }

    /// Takes a block request. While the drive is being reset it waits; while the drive is away it is refused.
    ///
    /// # Errors
    /// [`Rejected`] gives it back.
    pub fn submit(&mut self, request: IoRequest, pool: &mut PagePool, now: Instant) -> Result<(), Rejected> {
        match &mut self.parts {
            Some(parts) if self.end_by.is_none() => parts.io.submit(request, pool, now),
            _ => {
                let reason = controller::RejectReason::Failed(crate::status::AWAY);
                Err(Rejected { request, reason })
            }
        }
    }

    /// Collects the end of a request.
    pub fn complete(&mut self) -> Option<IoCompletion> {
        self.parts.as_mut()?.io.complete()
    }

    /// Rings the doorbells for what was submitted and taken since the last call. Once a turn.
    pub fn flush(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        // What was queued before a reset began must not reach the drive after it.
        let works = matches!(self.state, State::Ready | State::Closing);
        if works {
            parts.io.queue.flush();
        }
        if works || matches!(self.state, State::Asking(_)) {
            parts.admin.queue.flush();
        }
    }

    /// The next change that the caller was not told.
    pub fn take_event(&mut self) -> Option<DriveEvent> {
        // Before all others: a namespace may be gone by the next.
        if let Some(event) = self.take_lost_writes().or_else(|| self.events.pop_front()) {
            return Some(event);
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

    /// Asks for interrupts. True when something waits already: then the core must not sleep.
    pub fn arm(&mut self) -> bool {
        let Some(parts) = &mut self.parts else { return self.has_work() };
        let waits = parts.io.queue.arm() | parts.admin.queue.arm();
        waits || self.has_work()
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        if let Some(parts) = &mut self.parts {
            parts.io.queue.disarm();
            parts.admin.queue.disarm();
        }
    }

    /// Whether a call of [`Self::poll`], [`Self::complete`] or [`Self::take_event`] has something to do that no
    /// interrupt and no deadline tells of.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let asks = match (&self.parts, self.state) {
            (Some(parts), State::Asking(_)) => parts.admin.deadline().is_none(),
            (_, State::Start) => true,
            (Some(parts), State::Ready | State::Closing) => self.rounds.are_open() && parts.io.can_flush(),
            _ => false,
        };
        asks || !self.events.is_empty()
            || !self.lost_writes.is_empty()
            || self.parts.as_ref().is_some_and(|parts| parts.io.has_work())
    }

    /// When the drive wants to be polled at the latest.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let Some(parts) = &self.parts else { return Instant::FAR_FUTURE };
        let own = match self.state {
            State::Start => now,
            State::Disabling { .. } | State::Enabling { .. } | State::Asking(_) => now + READY_POLL,
            State::Ready => self.health_at.min(self.smart_at),
            State::Failed { retry_at } => retry_at,
            State::Closing | State::ShuttingDown { .. } => now + READY_POLL,
            State::ShutDown => Instant::FAR_FUTURE,
        };
        let own = match (self.state, parts.admin.deadline()) {
            (State::Ready, Some(deadline)) => self.health_at.min(deadline),
            _ => own,
        };
        own.min(parts.io.earliest_deadline()).min(self.rounds.deadline())
    }

    /// Whether requests are carried out now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether the drive works or is on its way up, perhaps with writes in its cache from before a reset.
    pub(crate) fn is_at_work(&self) -> bool {
        !matches!(self.state, State::Start | State::Failed { .. } | State::ShutDown)
    }

    /// Requests inside, quarantined ones included.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.io.outstanding())
    }

    /// Requests whose host was told while their pages are still out.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.io.quarantined())
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> DriveCounters {
        let Some(parts) = &self.parts else { return DriveCounters::default() };
        let mut counters = parts.io.counters;
        counters.resets = self.resets;
        counters.failures = self.failures;
        counters.events = self.events_told;
        counters.unknown_completions += parts.admin.unknown;
        counters
    }

    pub(crate) fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// SMART / Health data, at most `SMART_INTERVAL` old while the drive works.
    #[must_use]
    pub fn smart(&self) -> Option<&SmartLog> {
        self.smart.as_ref()
    }

    /// Who the drive is; blanks before it was asked.
    #[must_use]
    pub fn identity(&self) -> &DriveIdentity {
        &self.identity
    }

    /// The PCI address, packed as bus << 8 | device << 3 | function.
    #[must_use]
    pub fn address(&self) -> u16 {
        self.device.address()
    }

    fn poll_without_queues(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        if self.state == State::Start {
            self.fail(FailReason::NoQueues, now, pool);
            return 1;
        }
        0
    }

    /// A drive that works: looks at its state from time to time and reads its SMART log.
    fn poll_ready(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        if now >= self.health_at {
            self.health_at = now + HEALTH_INTERVAL;
            let status = self.device.status();
            if status == u32::MAX {
                self.fail(FailReason::Removed, now, pool);
                return 1;
            }
            let status = ControllerStatus::from_bits_retain(status);
            if status.contains(ControllerStatus::FATAL) {
                self.reset(FailReason::Fatal, now, pool);
                return 1;
            }
            if !status.contains(ControllerStatus::READY) {
                self.reset(FailReason::ForgotState, now, pool);
                return 1;
            }
        }
        self.poll_errands(now, pool)
    }
}
