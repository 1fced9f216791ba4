//! From a controller in any state to one that serves: disable, configure, enable, ask (Base 3.5).

use core::time::Duration;

use hal_api::{CommandQueue, Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::Completion;
use nvme::identify::cns;
use nvme::registers::{Capabilities, Configuration, ControllerStatus, ready_timeouts_ms};

use super::errands::Errand;
use super::{Drive, State};
use crate::admin::{
    LIST_ENTRIES, Progress, async_event_configuration, create_completion_queue, create_submission_queue,
    number_of_queues,
};
use crate::events::{DriveEvent, FailReason};
use crate::io_queue::{IoNamespace, Mode};
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
    CompletionQueue,
    SubmissionQueue,
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

impl<D: NvmeDevice> Drive<D> {
    /// One step of the bring-up.
    pub(super) fn advance(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        match self.state {
            State::Start => {
                self.start(now, pool);
                1
            }
            State::Failed { retry_at } if retry_at <= now => {
                self.state = State::Start;
                1
            }
            State::Disabling { deadline } => self.await_disabled(deadline, now, pool),
            State::Enabling { deadline } => self.await_enabled(deadline, now, pool),
            State::Asking(task) => self.ask(task, now, pool),
            State::Ready
            | State::Closing
            | State::ShuttingDown { .. }
            | State::ShutDown
            | State::Failed { .. } => 0,
        }
    }

    fn start(&mut self, now: Instant, pool: &mut PagePool) {
        if self.device.capabilities() == u64::MAX {
            return self.fail(FailReason::Removed, now, pool);
        }
        let Some(parts) = &mut self.parts else { return };
        if !parts.admin.take_pages(pool) || !parts.io.take_pages(pool) {
            return self.fail(FailReason::NoPages, now, pool);
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

    fn await_disabled(&mut self, deadline: Instant, now: Instant, pool: &mut PagePool) -> usize {
        let status = self.device.status();
        if status == u32::MAX {
            self.fail(FailReason::Removed, now, pool);
            return 1;
        }
        if ControllerStatus::from_bits_retain(status).contains(ControllerStatus::READY) {
            if now >= deadline {
                self.fail(FailReason::StuckReady, now, pool);
                return 1;
            }
            return 0;
        }
        let Some(parts) = &mut self.parts else { return 0 };
        // RDY is 0: the controller has forgotten its queues and touches no memory.
        if parts.io.mode() == Mode::Running {
            parts.io.hold();
        }
        parts.io.release(pool);
        parts.admin.forget();
        self.enable(now, pool);
        1
    }

    fn enable(&mut self, now: Instant, pool: &mut PagePool) {
        let capabilities = Capabilities(self.device.capabilities());
        if !capabilities.supports_nvm() && !capabilities.supports_io_command_sets() {
            return self.fail(FailReason::NoNvmCommandSet, now, pool);
        }
        if capabilities.min_page_bytes() > hal_mem::PAGE_BYTES as u64 {
            return self.fail(FailReason::PageSize, now, pool);
        }
        let Some(parts) = &mut self.parts else { return };
        self.device.reset_queue(&mut parts.admin.queue);
        self.device.reset_queue(&mut parts.io.queue);
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

    fn await_enabled(&mut self, deadline: Instant, now: Instant, pool: &mut PagePool) -> usize {
        let status = self.device.status();
        let bits = ControllerStatus::from_bits_retain(status);
        if status == u32::MAX {
            self.fail(FailReason::Removed, now, pool);
        } else if bits.contains(ControllerStatus::FATAL) {
            self.fail(FailReason::Fatal, now, pool);
        } else if bits.contains(ControllerStatus::READY) {
            self.state = State::Asking(Task::Controller);
        } else if now >= deadline {
            self.fail(FailReason::NotReady, now, pool);
        } else {
            return 0;
        }
        1
    }

    fn ask(&mut self, task: Task, now: Instant, pool: &mut PagePool) -> usize {
        let Some(parts) = &mut self.parts else { return 0 };
        if parts.admin.deadline().is_none() {
            return usize::from(self.send(task, now, pool));
        }
        match parts.admin.progress(now) {
            Progress::Waiting => self.check_while_asking(now, pool),
            Progress::TimedOut => {
                self.fail(FailReason::AdminTimeout, now, pool);
                1
            }
            Progress::Ended(completion) => {
                match self.answer(task, &completion, pool) {
                    Ok(Some(next)) => {
                        self.state = State::Asking(next);
                        self.send(next, now, pool);
                    }
                    Ok(None) => self.ready(now),
                    Err(reason) => self.fail(reason, now, pool),
                }
                1
            }
        }
    }

    /// A drive that dies during its bring-up need not be waited for.
    fn check_while_asking(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        if now < self.health_at {
            return 0;
        }
        self.health_at = now + HEALTH_INTERVAL;
        let status = self.device.status();
        if status == u32::MAX {
            self.fail(FailReason::Removed, now, pool);
        } else if ControllerStatus::from_bits_retain(status).contains(ControllerStatus::FATAL) {
            self.fail(FailReason::Fatal, now, pool);
        } else {
            return 0;
        }
        1
    }

    pub(super) fn send(&mut self, task: Task, now: Instant, pool: &mut PagePool) -> bool {
        let location = self.device.queue_location(self.qid);
        let Some(parts) = &mut self.parts else { return false };
        let admin = &mut parts.admin;
        let command = match (task, location) {
            (Task::Controller, _) => admin.identify(pool, 0, cns::CONTROLLER),
            (Task::NvmController, _) => admin.identify(pool, 0, cns::COMMAND_SET_CONTROLLER),
            (Task::Health, _) => admin.get_smart(pool),
            (Task::Events, _) => async_event_configuration(self.async_events),
            (Task::NumberOfQueues, _) => number_of_queues(self.qid),
            (Task::CompletionQueue, Some(location)) => create_completion_queue(self.qid, &location),
            (Task::SubmissionQueue, Some(location)) => create_submission_queue(self.qid, &location),
            (Task::CompletionQueue | Task::SubmissionQueue, None) => {
                self.fail(FailReason::NoQueues, now, pool);
                return true;
            }
            (Task::List { after }, _) => admin.identify(pool, after, cns::ACTIVE_NAMESPACES),
            (Task::Namespace { nsid }, _) => admin.identify(pool, nsid, cns::NAMESPACE),
            (Task::Descriptors { nsid }, _) => admin.identify(pool, nsid, cns::NAMESPACE_DESCRIPTORS),
        };
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
        let Some(parts) = &mut self.parts else { return Err(FailReason::NoQueues) };
        let succeeded = completion.status().is_success();
        match task {
            Task::Controller if !succeeded => Err(FailReason::IdentifyController),
            Task::Controller => {
                let (identity, limits, namespaces) = parts.admin.controller(pool, page_bytes);
                (self.entry_latency_us, self.async_events) = parts.admin.shutdown_and_events(pool);
                self.begin_scan(namespaces);
                // Another drive in the same place has other namespaces, even where they look alike.
                if self.identity.serial != identity.serial || self.identity.model != identity.model {
                    self.another_drive();
                    let Some(parts) = &mut self.parts else { return Err(FailReason::NoQueues) };
                    self.namespaces.finish(false);
                    parts.io.set_namespaces(core::iter::empty());
                }
                (self.identity, self.limits) = (identity, limits);
                Ok(Some(Task::NvmController))
            }
            Task::NvmController => {
                // Older drives do not know this structure; then they have no such limits.
                if succeeded {
                    self.limits = parts.admin.nvm_controller(pool, self.limits, page_bytes);
                }
                Ok(Some(Task::Health))
            }
            Task::Health => {
                let health = succeeded.then(|| parts.admin.smart(pool));
                self.judge_power(health);
                Ok(Some(Task::Events))
            }
            // A drive that refuses has no such events; the others it tells all the same.
            Task::Events => Ok(Some(Task::NumberOfQueues)),
            // A drive that refuses to count its queues has one pair all the same; Create Queue tells.
            Task::NumberOfQueues => Ok(Some(Task::CompletionQueue)),
            Task::CompletionQueue if !succeeded => Err(FailReason::CreateCompletionQueue),
            Task::CompletionQueue => Ok(Some(Task::SubmissionQueue)),
            Task::SubmissionQueue if !succeeded => Err(FailReason::CreateSubmissionQueue),
            Task::SubmissionQueue => Ok(self.first_namespace(pool)),
            Task::List { .. } => {
                self.scan.entry = succeeded.then_some(0);
                Ok(self.next_namespace(pool))
            }
            Task::Namespace { nsid } => Ok(self.namespace_answer(nsid, succeeded, pool)),
            Task::Descriptors { .. } => {
                if succeeded && let Some(record) = self.namespaces.last_scanned() {
                    parts.admin.add_descriptors(pool, record);
                }
                Ok(self.next_namespace(pool))
            }
        }
    }

    fn namespace_answer(&mut self, nsid: u32, succeeded: bool, pool: &PagePool) -> Option<Task> {
        let parts = self.parts.as_ref()?;
        if !succeeded {
            hal_log::warn!("drive {}: Identify Namespace {} failed", self.name().as_str(), nsid);
            return self.next_namespace(pool);
        }
        let Some(record) = parts.admin.namespace(pool, nsid) else {
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
        let nsid = self.parts.as_ref()?.admin.list_entry(pool, entry);
        // The list ascends (Base 5.17.2.2); one that does not would never end.
        if nsid <= scan.last || nsid > nvme::NSID_LAST {
            return None;
        }
        (scan.last, scan.entry) = (nsid, Some(entry + 1));
        Some(Task::Namespace { nsid })
    }

    /// The scan is complete.
    pub(super) fn take_namespaces(&mut self) {
        self.namespaces.finish(true);
        let Some(parts) = &mut self.parts else { return };
        let served = self.namespaces.served();
        parts.io.set_namespaces(served.map(|record| IoNamespace {
            nsid: record.nsid,
            blocks: record.blocks,
            block_shift: record.block_shift,
            zeroes_deallocate: record.deallocate_features & 1 << 3 != 0,
        }));
    }

    fn ready(&mut self, now: Instant) {
        // Without a vector a command that stays out would keep the core awake.
        self.wants_events = self.device.queue_location(0).is_some_and(|admin| admin.vector.is_some());
        (self.errand, self.event) = (Errand::None, None);
        self.take_namespaces();
        let Some(parts) = &mut self.parts else { return };
        parts.io.run(self.limits);
        self.state = State::Ready;
        self.ready_since = now;
        (self.health_at, self.smart_at) = (now + HEALTH_INTERVAL, now + SMART_INTERVAL);
        self.attempts = 0;
        self.last_failure = None;
        let depth = parts.io.queue.depth();
        hal_log::info!(
            "drive {}: ready, {} namespaces served, {} refused, queue depth {}",
            self.name().as_str(),
            self.namespaces.served().count(),
            self.namespaces.refused(),
            depth
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
