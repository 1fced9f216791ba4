//! From a controller in any state to one that serves: disable, configure, enable, ask (Base 3.5).

use core::time::Duration;

use hal_api::{CommandQueue, Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::Completion;
use nvme::identify::cns;
use nvme::registers::{Capabilities, Configuration, ControllerStatus, ready_timeouts_ms};

use super::errands::Errand;
use super::steps::Wanted;
use super::{DriveHome, State};
use crate::admin::{
    LIST_ENTRIES, Progress, async_event_configuration, create_completion_queue, create_submission_queue,
    number_of_queues,
};
use crate::events::{DriveEvent, FailReason};
use crate::limits::{
    ADMIN_TIMEOUT, HEALTH_INTERVAL, NAMESPACE_SCAN_LIMIT, NAMESPACES_PER_DRIVE, READY_MARGIN, SMART_INTERVAL,
    STABLE_AFTER,
};

/// VS from which on a drive has a list of active namespaces.
const VERSION_WITH_LIST: u32 = 0x0001_0100;
/// VS from which on a drive has Namespace Identification Descriptors.
const VERSION_WITH_DESCRIPTORS: u32 = 0x0001_0300;

/// An admin command of the bring-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Controller,
    NvmController,
    Health,
    Events,
    NumberOfQueues,
    /// Of a core.
    CompletionQueue {
        core: u8,
    },
    /// Of a core.
    SubmissionQueue {
        core: u8,
    },
    /// The active namespaces above this one.
    List {
        after: u32,
    },
    Namespace {
        nsid: u32,
    },
    Descriptors {
        nsid: u32,
    },
}

/// How far the scan of namespaces is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    /// The next entry of the list; `None` where NSIDs are tried one by one.
    entry: Option<u32>,
    /// The NSID seen last.
    last: u32,
    /// NN.
    namespaces: u32,
}

impl Scan {
    pub const START: Self = Self { entry: None, last: 0, namespaces: 0 };
}

impl<D: NvmeDevice> DriveHome<D> {
    /// One step of the bring-up.
    pub(super) fn advance(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        match self.state {
            // The queues have not all stopped yet.
            State::Start if self.steps.are_under_way() => 0,
            State::Start => {
                self.start(now, pool);
                1
            }
            State::Failed { retry_at } if retry_at <= now => {
                self.state = State::Start;
                1
            }
            State::Disabling { deadline } => self.await_disabled(deadline, now),
            State::Enabling { deadline } => self.await_enabled(deadline, now),
            State::Asking(task) => self.ask(task, now, pool),
            State::Stopping(_)
            | State::Draining
            | State::Opening
            | State::Ready
            | State::Closing
            | State::ShuttingDown { .. }
            | State::ShutDown
            | State::Failed { .. } => 0,
        }
    }

    fn start(&mut self, now: Instant, pool: &mut PagePool) {
        if self.device.capabilities() == u64::MAX {
            return self.fail(FailReason::Removed, now);
        }
        if !self.admin.as_mut().is_some_and(|admin| admin.take_pages(pool)) {
            return self.fail(FailReason::NoPages, now);
        }
        self.disable(now);
    }

    /// Clears CC.EN.
    pub(super) fn disable(&mut self, now: Instant) {
        let cc = self.device.configuration();
        // A shutdown that someone else began is forgotten together with EN.
        self.device.set_configuration(cc & !(1 | 0b11 << 14));
        self.state = State::Disabling { deadline: now + self.ready_timeout() };
    }

    /// The larger of CAP.TO and, where CAP.CRMS says that it holds, CRTO.CRWMT (Base 3.1.3.1, 3.1.3.19).
    fn ready_timeout(&self) -> Duration {
        let capabilities = Capabilities(self.device.capabilities());
        let mut milliseconds = capabilities.ready_timeout_ms();
        if capabilities.has_ready_timeouts() {
            milliseconds = milliseconds.max(ready_timeouts_ms(self.device.ready_timeouts()).0);
        }
        Duration::from_millis(u64::from(milliseconds)) + READY_MARGIN
    }

    fn await_disabled(&mut self, deadline: Instant, now: Instant) -> usize {
        let status = self.device.status();
        if status == u32::MAX {
            self.fail(FailReason::Removed, now);
            return 1;
        }
        if ControllerStatus::from_bits_retain(status).contains(ControllerStatus::READY) {
            if now >= deadline {
                self.fail(FailReason::StuckReady, now);
                return 1;
            }
            return 0;
        }
        // RDY is 0: the controller has forgotten its queues and touches no memory.
        if let Some(admin) = &mut self.admin {
            admin.forget();
        }
        self.state = State::Draining;
        self.want(Wanted::Drained);
        1
    }

    pub(super) fn enable(&mut self, now: Instant) {
        let capabilities = Capabilities(self.device.capabilities());
        if !capabilities.supports_nvm() && !capabilities.supports_io_command_sets() {
            return self.fail(FailReason::NoNvmCommandSet, now);
        }
        if capabilities.min_page_bytes() > hal_mem::PAGE_BYTES as u64 {
            return self.fail(FailReason::PageSize, now);
        }
        let Some(admin) = &mut self.admin else { return };
        self.device.reset_queue(&mut admin.queue);
        for pair in self.pairs.iter_mut().flatten() {
            self.device.reset_queue(pair);
        }
        self.device.set_admin_queue();
        self.device.set_bus_master(true);
        // With all command sets selected, zoned namespaces show up and are refused by name.
        let configuration = match capabilities.supports_io_command_sets() {
            true => Configuration::ENABLED.with_all_command_sets(),
            false => Configuration::ENABLED,
        };
        self.device.set_configuration(configuration.0);
        self.state = State::Enabling { deadline: now + self.ready_timeout() };
    }

    fn await_enabled(&mut self, deadline: Instant, now: Instant) -> usize {
        let status = self.device.status();
        let bits = ControllerStatus::from_bits_retain(status);
        if status == u32::MAX {
            self.fail(FailReason::Removed, now);
        } else if bits.contains(ControllerStatus::FATAL) {
            self.fail(FailReason::Fatal, now);
        } else if bits.contains(ControllerStatus::READY) {
            self.state = State::Asking(Task::Controller);
        } else if now >= deadline {
            self.fail(FailReason::NotReady, now);
        } else {
            return 0;
        }
        1
    }

    fn ask(&mut self, task: Task, now: Instant, pool: &mut PagePool) -> usize {
        let Some(admin) = &mut self.admin else { return 0 };
        if admin.deadline().is_none() {
            return usize::from(self.send(task, now, pool));
        }
        match admin.progress(now) {
            Progress::Waiting => self.check_while_asking(now),
            Progress::TimedOut => {
                self.fail(FailReason::AdminTimeout, now);
                1
            }
            Progress::Ended(completion) => {
                match self.answer(task, &completion, pool) {
                    Ok(Some(next)) => {
                        self.state = State::Asking(next);
                        self.send(next, now, pool);
                    }
                    Ok(None) => self.open(),
                    Err(reason) => self.fail(reason, now),
                }
                1
            }
        }
    }

    /// A drive that dies during its bring-up need not be waited for.
    fn check_while_asking(&mut self, now: Instant) -> usize {
        if now < self.health_at {
            return 0;
        }
        self.health_at = now + HEALTH_INTERVAL;
        let status = self.device.status();
        if status == u32::MAX {
            self.fail(FailReason::Removed, now);
        } else if ControllerStatus::from_bits_retain(status).contains(ControllerStatus::FATAL) {
            self.fail(FailReason::Fatal, now);
        } else {
            return 0;
        }
        1
    }

    pub(super) fn send(&mut self, task: Task, now: Instant, pool: &mut PagePool) -> bool {
        let Some(admin) = &mut self.admin else { return false };
        let command = match task {
            Task::Controller => admin.identify(pool, 0, cns::CONTROLLER),
            Task::NvmController => admin.identify(pool, 0, cns::COMMAND_SET_CONTROLLER),
            Task::Health => admin.get_smart(pool),
            Task::Events => async_event_configuration(self.async_events),
            // Those before the first core's are nobody's, and have to be there too.
            Task::NumberOfQueues => number_of_queues(self.first_qid.saturating_sub(1) + self.wanted_pairs()),
            Task::CompletionQueue { core } | Task::SubmissionQueue { core } => {
                let qid = self.qid(core);
                let Some(location) = self.device.queue_location(qid) else {
                    self.fail(FailReason::NoQueues, now);
                    return true;
                };
                match task {
                    Task::CompletionQueue { .. } => create_completion_queue(qid, &location),
                    _ => create_submission_queue(qid, &location),
                }
            }
            Task::List { after } => admin.identify(pool, after, cns::ACTIVE_NAMESPACES),
            Task::Namespace { nsid } => admin.identify(pool, nsid, cns::NAMESPACE),
            Task::Descriptors { nsid } => admin.identify(pool, nsid, cns::NAMESPACE_DESCRIPTORS),
        };
        let Some(admin) = &mut self.admin else { return false };
        admin.send(command, now, ADMIN_TIMEOUT)
    }

    fn begin_scan(&mut self, namespaces: u32) {
        self.scan = Scan { namespaces, ..Scan::START };
        self.namespaces.begin();
    }

    /// Begins to ask for the namespaces again.
    pub(super) fn scan_again(&mut self, pool: &PagePool) -> Option<Task> {
        self.begin_scan(self.scan.namespaces);
        self.first_namespace(pool)
    }

    /// What an answer means and what is asked next; `None` when all was asked.
    pub(super) fn answer(
        &mut self,
        task: Task,
        completion: &Completion,
        pool: &PagePool,
    ) -> Result<Option<Task>, FailReason> {
        let page_bytes = Capabilities(self.device.capabilities()).min_page_bytes();
        let Some(admin) = &mut self.admin else { return Err(FailReason::NoQueues) };
        let succeeded = completion.status().is_success();
        match task {
            Task::Controller if !succeeded => Err(FailReason::IdentifyController),
            Task::Controller => {
                let (identity, limits, namespaces) = admin.controller(pool, page_bytes);
                (self.entry_latency_us, self.async_events) = admin.shutdown_and_events(pool);
                self.begin_scan(namespaces);
                // Another drive in the same place has other namespaces, even where they look alike.
                if self.identity.serial != identity.serial || self.identity.model != identity.model {
                    self.namespaces.finish(false);
                    self.another_drive();
                }
                (self.identity, self.limits) = (identity, limits);
                Ok(Some(Task::NvmController))
            }
            Task::NvmController => {
                // Older drives do not know this structure; then they have no such limits.
                if succeeded {
                    self.limits = admin.nvm_controller(pool, self.limits, page_bytes);
                }
                Ok(Some(Task::Health))
            }
            Task::Health => {
                let health = succeeded.then(|| admin.smart(pool));
                self.judge_power(health);
                Ok(Some(Task::Events))
            }
            // A drive that refuses has no such events; the others it tells all the same.
            Task::Events => Ok(Some(Task::NumberOfQueues)),
            Task::NumberOfQueues => {
                self.note_granted(succeeded, completion.result.get());
                Ok(Some(Task::CompletionQueue { core: 0 }))
            }
            Task::CompletionQueue { core: 0 } if !succeeded => Err(FailReason::CreateCompletionQueue),
            Task::SubmissionQueue { core: 0 } if !succeeded => Err(FailReason::CreateSubmissionQueue),
            // It makes do with those before.
            Task::CompletionQueue { core } | Task::SubmissionQueue { core } if !succeeded => {
                self.pairs_up = core;
                Ok(self.first_namespace(pool))
            }
            Task::CompletionQueue { core } => Ok(Some(Task::SubmissionQueue { core })),
            Task::SubmissionQueue { core } if core + 1 < self.pairs_up => {
                Ok(Some(Task::CompletionQueue { core: core + 1 }))
            }
            Task::SubmissionQueue { .. } => Ok(self.first_namespace(pool)),
            Task::List { .. } => {
                self.scan.entry = succeeded.then_some(0);
                Ok(self.next_namespace(pool))
            }
            Task::Namespace { nsid } => Ok(self.namespace_answer(nsid, succeeded, pool)),
            Task::Descriptors { .. } => {
                if succeeded && let Some(record) = self.namespaces.last_scanned() {
                    admin.add_descriptors(pool, record);
                }
                Ok(self.next_namespace(pool))
            }
        }
    }

    fn namespace_answer(&mut self, nsid: u32, succeeded: bool, pool: &PagePool) -> Option<Task> {
        let admin = self.admin.as_ref()?;
        if !succeeded {
            hal_log::warn!("drive {}: Identify Namespace {} failed", self.name().as_str(), nsid);
            return self.next_namespace(pool);
        }
        let Some(record) = admin.namespace(pool, nsid) else {
            return self.next_namespace(pool);
        };
        if !self.namespaces.add(record) {
            hal_log::warn!(
                "drive {}: more than {} namespaces, the others are left out",
                self.name().as_str(),
                NAMESPACES_PER_DRIVE
            );
            return None;
        }
        if self.device.version() < VERSION_WITH_DESCRIPTORS {
            return self.next_namespace(pool);
        }
        Some(Task::Descriptors { nsid })
    }

    /// The first question of a scan.
    pub(super) fn first_namespace(&mut self, pool: &PagePool) -> Option<Task> {
        if self.device.version() < VERSION_WITH_LIST {
            return self.next_namespace(pool);
        }
        Some(Task::List { after: 0 })
    }

    /// The next namespace to ask about, or the next list; `None` at the end.
    fn next_namespace(&mut self, pool: &PagePool) -> Option<Task> {
        let scan = &mut self.scan;
        let Some(entry) = scan.entry else {
            // One by one: inactive ones answer with zeros.
            let last = scan.namespaces.min(NAMESPACE_SCAN_LIMIT);
            if scan.last >= last {
                return None;
            }
            scan.last += 1;
            return Some(Task::Namespace { nsid: scan.last });
        };
        if entry >= LIST_ENTRIES {
            return Some(Task::List { after: scan.last });
        }
        let nsid = self.admin.as_ref()?.list_entry(pool, entry);
        // The list ascends (Base 5.17.2.2); one that does not would never end.
        if nsid <= scan.last || nsid > nvme::NSID_LAST {
            return None;
        }
        (scan.last, scan.entry) = (nsid, Some(entry + 1));
        Some(Task::Namespace { nsid })
    }

    /// The I/O queue pairs that it is asked for: one for each core, as far as there is memory.
    fn wanted_pairs(&self) -> u16 {
        self.pairs_here.into()
    }

    /// The queue pair that a core uses, its own or another core's.
    pub(super) fn qid(&self, core: u8) -> u16 {
        self.first_qid + u16::from(core % self.pairs_up.max(1))
    }

    /// How many queue pairs there are to be made. A drive that refuses to count its queues has one pair all the same; Create
    /// Queue tells.
    fn note_granted(&mut self, succeeded: bool, result: u32) {
        let granted = if succeeded { (result & 0xffff).min(result >> 16) + 1 } else { 1 };
        let ours = granted.saturating_sub(u32::from(self.first_qid.saturating_sub(1)));
        self.pairs_up = ours.min(u32::from(self.pairs_here)).max(1) as u8;
    }

    /// The scan is complete: the queues are told.
    pub(super) fn take_namespaces(&mut self) {
        self.namespaces.finish(true);
        self.want(Wanted::Namespaces { from: 0 });
    }

    /// All was asked: the queues begin.
    fn open(&mut self) {
        self.take_namespaces();
        self.depth = self.pairs.iter().flatten().next().map_or(0, CommandQueue::depth);
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Opening;
        self.want(Wanted::Up);
    }

    /// All queues have begun.
    pub(super) fn ready(&mut self, now: Instant) {
        // Without a vector a command that stays out would keep the core awake.
        self.wants_events = self.device.queue_location(0).is_some_and(|admin| admin.vector.is_some());
        (self.errand, self.event) = (Errand::None, None);
        self.state = State::Ready;
        self.ready_since = now;
        (self.health_at, self.smart_at) = (now + HEALTH_INTERVAL, now + SMART_INTERVAL);
        self.attempts = 0;
        self.last_failure = None;
        hal_log::info!(
            "drive {}: ready, {} namespaces served, {} refused, queue depth {}",
            self.name().as_str(),
            self.namespaces.served().count(),
            self.namespaces.refused(),
            self.depth
        );
        if self.lost {
            self.lost = false;
            let _ = self.events.push_back(DriveEvent::Back);
        }
        self.known = true;
    }

    /// Whether the drive worked long enough for its earlier resets to be forgotten.
    pub(super) fn is_stable(&self, now: Instant) -> bool {
        self.state == State::Ready && now.since(self.ready_since) >= STABLE_AFTER
    }
}
