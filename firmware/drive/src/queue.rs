//! A data core's queue at one drive: block requests in, commands out, completions back.
//!
//! It knows nothing of registers, resets and identify data: the drive's home tells it when it may run, when the drive is
//! being reset, and when the drive can no longer touch memory ([`crate::messages`]).

mod cache;
mod copy;
mod failure;
mod flush;
mod issue;
mod lane;
mod sharing;
mod steps;

use controller::{IoCompletion, IoRequest, Operation, RejectReason, Rejected};
use hal_api::{COMPLETION_BYTES, CommandQueue, Instant};
use hal_mem::{PagePool, Pages};
use nvme::{Completion, Status};
use zerocopy::FromBytes;

use crate::events::DriveCounters;
use crate::limits::{
    COMMANDS_PER_DRIVE, COMPLETIONS_PER_POLL, IO_PAGES, LIST_PAGES, NAMESPACES_PER_DRIVE, QUICK_COMMAND,
    READY_POLL, REQUEST_TIMEOUT, SCRATCH_PAGES, SCRATCH_REQUESTS_PER_DRIVE, SLOW_COMMAND, START_TIMEOUT,
    UNKNOWN_COMPLETIONS_LIMIT,
};
use crate::messages::Answer;
use crate::name::Name;
use crate::plan::{Limits, Plan, plan};
use crate::status::{AWAY, host_status, is_media_error};
use crate::tables::{Active, Commands, Covered, DriveMemory, Late, OWN_COMMAND, Place, Requests};
use cache::{OwnFlush, Writes};
use failure::LateCommands;
use flush::{Closing, FlushRounds};
use issue::Blocked;
use lane::{Lane, Lent};
use sharing::Sharing;

pub(crate) use lane::{LaneMessage, Share};

/// What the queue needs to know of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IoNamespace {
    pub nsid: u32,
    pub blocks: u64,
    pub block_shift: u8,
    /// DLFEAT bit 3: Write Zeroes takes DEAC.
    pub zeroes_deallocate: bool,
}

/// Whether commands may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They may.
    Running,
    /// The drive is being reset: requests are taken and wait.
    Held,
    /// The drive is away: requests are refused.
    Away,
}

/// Why the drive has to be reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A command did not end.
    Timeout,
    /// Too many completions that belong to no command.
    UnknownCompletions,
}

/// A data core's queue at one drive.
#[derive(Debug)]
pub(crate) struct DriveQueue<Q> {
    /// While the drive works and the home has given it.
    pair: Option<Lane<Q>>,
    lent: Lent,
    qid: u16,
    name: Name,
    mode: Mode,
    requests: Requests,
    commands: Commands,
    limits: Limits,
    namespaces: heapless::Vec<IoNamespace, NAMESPACES_PER_DRIVE>,
    list_pages: heapless::Vec<Pages, LIST_PAGES>,
    scratch: Pages,
    zeroes: Pages,
    /// The request that uses the scratch pages.
    scratch_owner: Option<u16>,
    sharing: Sharing,
    /// No deadline passes before this.
    earliest: Instant,
    unknown_since_reset: u32,
    /// Commands that the drive is given at once: fewer while it is slow, so that none of them becomes late.
    window: u16,
    late: LateCommands,
    /// The command that came home last: when, and when it was sent.
    last_home: (Instant, Instant),
    writes: heapless::Vec<Writes, NAMESPACES_PER_DRIVE>,
    own_flush: Option<OwnFlush>,
    rounds: FlushRounds,
    closing: Option<Closing>,
    /// The drive is off the bus for good.
    over: bool,
    /// Namespaces that the home is telling, until it has told all.
    incoming: heapless::Vec<IoNamespace, NAMESPACES_PER_DRIVE>,
    /// Namespaces with lost writes of which the caller was not told, and when the loss was found out.
    lost_writes: heapless::Vec<u32, NAMESPACES_PER_DRIVE>,
    lost_at: Instant,
    /// Other cores have queues at the drive.
    has_others: bool,
    /// They may send commands now.
    others_send: bool,
    /// Some of `writes` were acknowledged in this turn.
    has_young_writes: bool,
    /// What the home has to be told.
    confirm: Option<(u32, Answer<Q>)>,
    fault: Option<Fault>,
    fault_told: bool,
    abort: Abort,
    pub counters: DriveCounters,
}

/// How an Abort for a late command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abort {
    /// None is wanted.
    None,
    /// The home is to be asked for it.
    Wanted(u16),
    /// The home was asked, and has not said that it is over.
    Asked,
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// A queue at the drive that has this name; its queue pair will be `qid`. `has_others`: other cores have queues there too.
    pub fn new(name: Name, qid: u16, has_others: bool, memory: DriveMemory) -> Self {
        Self {
            pair: None,
            lent: Lent::default(),
            qid,
            name,
            mode: Mode::Away,
            requests: Requests::new(memory.requests),
            commands: Commands::new(memory.commands),
            limits: Limits::UNKNOWN,
            namespaces: heapless::Vec::new(),
            list_pages: heapless::Vec::new(),
            scratch: Pages::NONE,
            zeroes: Pages::NONE,
            scratch_owner: None,
            sharing: Sharing::new(memory.at_drive),
            earliest: Instant::FAR_FUTURE,
            unknown_since_reset: 0,
            window: COMMANDS_PER_DRIVE as u16,
            late: LateCommands::default(),
            last_home: (Instant::ZERO, Instant::ZERO),
            writes: heapless::Vec::new(),
            own_flush: None,
            rounds: FlushRounds::NONE,
            closing: None,
            over: false,
            incoming: heapless::Vec::new(),
            lost_writes: heapless::Vec::new(),
            lost_at: Instant::ZERO,
            has_others,
            others_send: false,
            has_young_writes: false,
            confirm: None,
            fault: None,
            fault_told: false,
            abort: Abort::None,
            counters: DriveCounters::default(),
        }
    }

    /// Takes the queue's own pages, once. False when the pool has too few.
    fn take_pages(&mut self, pool: &mut PagePool) -> bool {
        if !self.zeroes.is_empty() {
            return true;
        }
        if pool.available() < IO_PAGES {
            return false;
        }
        while !self.list_pages.is_full() {
            let Some(page) = pool.take(1) else { return false };
            if let Err(page) = self.list_pages.push(page) {
                pool.give_back(page);
                return false;
            }
        }
        let (Some(scratch), Some(zeroes)) = (pool.take(SCRATCH_PAGES), pool.take(1)) else { return false };
        let mut cursor = zeroes.start();
        while pool.write(&mut cursor, &[0; 512]) > 0 {}
        self.scratch = scratch;
        self.zeroes = zeroes;
        true
    }

    /// The memory of its tables; its own pages go back to the pool. Nothing may be outstanding, and the pair is at the home.
    pub fn take_apart(mut self, pool: &mut PagePool) -> DriveMemory {
        debug_assert!(self.pair.is_none());
        while let Some(page) = self.list_pages.pop() {
            pool.give_back(page);
        }
        pool.give_back(self.scratch);
        pool.give_back(self.zeroes);
        let (requests, commands) = (self.requests.into_slots(), self.commands.into_slots());
        DriveMemory { requests, commands, at_drive: self.sharing.into_memory() }
    }

    pub fn is_running(&self) -> bool {
        self.mode == Mode::Running
    }

    /// The drive works: commands may go out.
    fn run(&mut self, pair: Lane<Q>, share: &Share, limits: Limits) {
        self.pair = Some(pair);
        self.lent = Lent::default();
        self.qid = share.qid;
        self.commands.use_range(share.first, share.count);
        self.limits = limits;
        self.unknown_since_reset = 0;
        (self.fault, self.fault_told) = (None, false);
        self.others_send = self.has_others;
        self.sharing.all_had_theirs = false;
        self.mode = Mode::Running;
    }

    /// Replaces what is known of the namespaces. Requests to those that are gone, or have another block size and with it
    /// need other room, end.
    fn set_namespaces(&mut self, namespaces: heapless::Vec<IoNamespace, NAMESPACES_PER_DRIVE>) {
        let old = core::mem::replace(&mut self.namespaces, namespaces);
        self.keep_writes_of_namespaces();
        for namespace in &old {
            let same = |other: &IoNamespace| {
                (other.nsid, other.block_shift) == (namespace.nsid, namespace.block_shift)
            };
            if !self.namespaces.iter().any(same) {
                self.end_requests_of(namespace.nsid);
            }
        }
    }

    /// Requests in the queue, quarantined ones included.
    pub fn outstanding(&self) -> usize {
        self.requests.used()
    }

    /// Requests whose host was told while the drive may still touch their pages.
    pub fn quarantined(&self) -> usize {
        let requests = &self.requests;
        requests.slots().filter(|&slot| requests.get(slot).is_some_and(|active| active.reported)).count()
    }

    /// Whether a poll or a look for completions would find something without the drive's help.
    pub fn has_work(&self) -> bool {
        let waits = self.requests.first(Place::Pending).is_some() && self.commands.outstanding() == 0;
        let works = waits || (self.rounds.are_open() && self.can_flush());
        self.requests.first(Place::Done).is_some()
            || !self.lost_writes.is_empty()
            || (works && self.mode == Mode::Running)
    }

    /// When it wants to be polled at the latest.
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let closing = if self.is_closing() { now + READY_POLL } else { Instant::FAR_FUTURE };
        self.earliest.min(self.rounds.deadline()).min(closing)
    }

    /// Rings the doorbells for what was submitted and taken since the last call. Once a turn.
    pub fn flush(&mut self) {
        if let Some(pair) = &mut self.pair {
            pair.flush();
        }
    }

    /// Asks for an interrupt. True when something waits already.
    pub fn arm(&mut self) -> bool {
        self.pair.as_mut().is_some_and(CommandQueue::arm)
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        if let Some(pair) = &mut self.pair {
            pair.disarm();
        }
    }

    /// Takes a request.
    pub fn submit(&mut self, request: IoRequest, pool: &mut PagePool, now: Instant) -> Result<(), Rejected> {
        if self.mode == Mode::Away || self.closing.is_some() {
            return Err(Rejected { request, reason: RejectReason::Failed(AWAY) });
        }
        let namespace = match self.check(&request, pool) {
            Ok(namespace) => namespace,
            Err(status) => return Err(Rejected { request, reason: RejectReason::Failed(status) }),
        };
        let plan = plan(&request, &self.limits, namespace.zeroes_deallocate);
        let scratch_is_full = self.requests.using_scratch() >= SCRATCH_REQUESTS_PER_DRIVE;
        if self.requests.is_full() || (plan.needs_scratch() && scratch_is_full) {
            self.counters.busy += 1;
            return Err(Rejected { request, reason: RejectReason::Busy });
        }
        let deadline = now + REQUEST_TIMEOUT;
        self.earliest = self.earliest.min(deadline);
        self.sharing.note(request.owner, now);
        let start_by = if request.operation.changes_blocks() { now + START_TIMEOUT } else { deadline };
        let active = Active {
            cursor: request.pages.start(),
            request,
            plan,
            issued_blocks: 0,
            range: 0,
            issuing: plan != Plan::Nothing,
            outstanding: 0,
            status: Status::SUCCESS,
            deadline,
            start_by,
            flush_covers: Covered::NOTHING,
            place: Place::Out,
            reported: false,
        };
        let Some(slot) = self.requests.insert(active) else {
            debug_assert!(false, "no place although not full");
            return Ok(());
        };
        match plan {
            Plan::Nothing => self.requests.push(Place::Done, slot),
            Plan::Scratch { .. } | Plan::Copy { .. } => {
                self.requests.push(Place::Scratch, slot);
                self.work_on_scratch(pool, now);
            }
            // Those that wait already go first, but for those that have had their share.
            _ if self.mode != Mode::Running || self.waits_for_room() => {
                self.requests.push(Place::Pending, slot);
            }
            _ => match self.issue(slot, pool, now) {
                Ok(()) => self.settle(slot, pool),
                Err(blocked) => {
                    self.sharing.all_had_theirs = blocked == Blocked::Share;
                    self.requests.push(Place::Pending, slot);
                }
            },
        }
        Ok(())
    }

    /// Collects the end of a request.
    pub fn complete(&mut self) -> Option<IoCompletion> {
        let slot = self.requests.pop(Place::Done)?;
        let active = self.requests.get_mut(slot)?;
        let (token, status) = (active.request.token, active.status);
        if active.outstanding > 0 {
            active.reported = true;
            // The caller is told, and replaces them in its reservation if it can.
            active.request.pages.detach_from_reservation();
            return Some(IoCompletion { token, status, pages: None });
        }
        let active = self.requests.remove(slot)?;
        Some(IoCompletion { token, status, pages: Some(active.request.pages) })
    }

    /// Takes completions, gives out parts that waited, watches deadlines. Returns completions taken, at least 1 where
    /// some request has ended.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        let mut taken = 0;
        if self.mode == Mode::Running {
            self.submit_lent();
            while taken < COMPLETIONS_PER_POLL
                && !self.lent.is_full()
                && let Some(entry) = self.pair.as_mut().and_then(CommandQueue::complete)
            {
                taken += 1;
                self.take_completion(&entry, now, pool);
            }
            if self.unknown_since_reset >= UNKNOWN_COMPLETIONS_LIMIT {
                self.fault = Some(Fault::UnknownCompletions);
            }
            if taken > 0 || self.waits_for_room() {
                self.issue_pending(pool, now);
            }
            self.work_on_scratch(pool, now);
        }
        // After a long pause of the card, what ended in time may still wait to be taken.
        if now >= self.earliest && taken < COMPLETIONS_PER_POLL && self.expire(now) {
            self.fault = Some(Fault::Timeout);
        }
        self.care_for_late_commands();
        // What ended without a completion is work for whoever collects it.
        taken + usize::from(taken == 0 && self.requests.first(Place::Done).is_some())
    }

    /// What the request asks must lie inside its namespace, and its data inside its pages: what a command names,
    /// the drive writes.
    fn check(&self, request: &IoRequest, pool: &PagePool) -> Result<IoNamespace, Status> {
        let found = self.namespaces.iter().find(|namespace| namespace.nsid == request.namespace.nsid);
        let namespace = *found.ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
        if namespace.block_shift != request.block_shift {
            debug_assert!(false, "request with another block size than its namespace's");
            return Err(Status::INTERNAL_ERROR);
        }
        let room = request.pages.capacity_bytes() as u64;
        let (blocks, bytes) = match request.operation {
            Operation::Flush => (0, 0),
            Operation::DatasetManagement { ranges, .. } => (0, u64::from(ranges) * 16),
            Operation::Read | Operation::Write | Operation::Compare => {
                (request.blocks, u64::from(request.blocks) << request.block_shift)
            }
            Operation::WriteUncorrectable if !self.limits.has_write_uncorrectable() => {
                return Err(Status::INVALID_OPCODE.do_not_retry());
            }
            Operation::WriteZeroes { .. } | Operation::Verify | Operation::WriteUncorrectable => {
                (request.blocks, 0)
            }
            Operation::Copy { .. } => return copy::check(request, &namespace, pool).map(|()| namespace),
        };
        let end = request.start_block.checked_add(u64::from(blocks));
        if end.is_none_or(|end| end > namespace.blocks) {
            return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
        }
        let has_blocks = !matches!(request.operation, Operation::Flush | Operation::DatasetManagement { .. });
        let ranges = match request.operation {
            Operation::DatasetManagement { ranges, .. } => (1..=256).contains(&ranges),
            _ => true,
        };
        if bytes > room || !ranges || (has_blocks && !(1..=65536).contains(&blocks)) {
            debug_assert!(false, "request without room for its data, or without blocks");
            return Err(Status::INTERNAL_ERROR);
        }
        Ok(namespace)
    }

    fn take_completion(&mut self, entry: &[u8; COMPLETION_BYTES], now: Instant, pool: &mut PagePool) {
        let Ok(completion) = Completion::read_from_bytes(entry) else { return };
        let (cid, is_its) = (completion.cid.get(), completion.sq_id.get() == self.qid);
        if is_its && self.has_others && self.pass_on(cid, entry).is_some() {
            return;
        }
        let part = if is_its { self.commands.end(cid) } else { None };
        let Some(part) = part else {
            self.counters.unknown_completions += 1;
            self.unknown_since_reset += 1;
            return;
        };
        let status = completion.status();
        self.adapt_window(now.since(part.sent));
        self.last_home = (now, part.sent);
        if part.late != Late::No {
            self.late_command_is_home(status);
        }
        if !status.is_success() {
            self.count_error(status);
        }
        self.return_list(part.list, pool);
        if part.slot == OWN_COMMAND {
            return self.own_flush_is_home(status);
        }
        self.note_command_home(part.slot);
        let Some(active) = self.requests.get_mut(part.slot) else { return };
        active.outstanding = active.outstanding.saturating_sub(1);
        self.sharing.end(active, part.blocks);
        if !status.is_success() && active.status.is_success() {
            active.status = host_status(status);
        }
        if self.scratch_owner == Some(part.slot) {
            self.scratch_part_is_home(part.slot, part.blocks, pool);
        }
        self.settle(part.slot, pool);
    }

    /// A drive that has become slow is not a dead one: it gets only as many commands as it ends in time.
    fn adapt_window(&mut self, age: core::time::Duration) {
        if age >= SLOW_COMMAND {
            self.window = self.window.min(self.commands.outstanding() + 1).div_ceil(2);
        } else if age <= QUICK_COMMAND && self.window < COMMANDS_PER_DRIVE as u16 {
            self.window += 1;
        }
    }

    fn count_error(&mut self, status: Status) {
        let media = is_media_error(status);
        let counter = if media { &mut self.counters.media_errors } else { &mut self.counters.other_errors };
        *counter += 1;
    }

    /// Ends the request when all its parts were given out and are home.
    fn settle(&mut self, slot: u16, pool: &mut PagePool) {
        let Some(active) = self.requests.get(slot) else { return };
        if active.outstanding > 0 || active.issuing || active.place != Place::Out {
            return;
        }
        if !active.reported {
            if active.status.is_success() {
                self.note_success(slot);
            }
            self.requests.push(Place::Done, slot);
        } else if let Some(active) = self.requests.remove(slot) {
            pool.give_back(active.request.pages);
        }
    }
}
