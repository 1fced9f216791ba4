//! The admin queue of a drive: one command at a time, and what its answers mean.

use core::time::Duration;

use hal_api::{CommandQueue, Instant};
use hal_mem::{PagePool, Pages};
use nvme::identify::{IdentifyController, IdentifyNamespace, IdentifyNvmController, cns, descriptor};
use nvme::log_page::{self, SmartLog};
use nvme::opcode::admin;
use nvme::{Command, Completion, NSID_ALL, features};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::events::{DriveIdentity, NamespaceInfo, RefusalReason, optimal_sizes};
use crate::limits::{ADMIN_PAGES, COMPLETIONS_PER_POLL};
use crate::plan::Limits;

/// NSIDs of one active namespace list (Base 5.17.2.2).
pub(crate) const LIST_ENTRIES: u32 = 1024;

/// CID of the Asynchronous Event Request; all others are below.
const EVENT_CID: u16 = 0xff00;

/// How an admin command stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Progress {
    /// It is out.
    Waiting,
    /// It ended.
    Ended(Completion),
    /// It took too long.
    TimedOut,
}

/// The admin queue and the pages its answers go to.
#[derive(Debug)]
pub(crate) struct Admin<Q> {
    pub queue: Q,
    page: Pages,
    list: Pages,
    cid: u16,
    deadline: Option<Instant>,
    /// The Asynchronous Event Request that is out.
    event_cid: Option<u16>,
    event: Option<Completion>,
    /// Completions that belong to no command.
    pub unknown: u64,
}

impl<Q: CommandQueue> Admin<Q> {
    pub fn new(queue: Q) -> Self {
        Self {
            queue,
            page: Pages::NONE,
            list: Pages::NONE,
            cid: 0,
            deadline: None,
            event_cid: None,
            event: None,
            unknown: 0,
        }
    }

    /// Takes the two pages, once. False when the pool has too few.
    pub fn take_pages(&mut self, pool: &mut PagePool) -> bool {
        if !self.list.is_empty() {
            return true;
        }
        if pool.available() < ADMIN_PAGES {
            return false;
        }
        let (Some(page), Some(list)) = (pool.take(1), pool.take(1)) else { return false };
        (self.page, self.list) = (page, list);
        true
    }

    /// The queue; the pages go back to the pool. The drive must not be able to reach them.
    pub fn take_apart(self, pool: &mut PagePool) -> Q {
        pool.give_back(self.page);
        pool.give_back(self.list);
        self.queue
    }

    /// Whether a command is out.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Forgets the command that is out: the controller is being reset.
    pub fn forget(&mut self) {
        self.deadline = None;
        (self.event_cid, self.event) = (None, None);
    }

    /// Sends an Asynchronous Event Request (Base 5.2), which may stay out for ever.
    pub fn await_event(&mut self) -> bool {
        let mut command = Command::new_zeroed();
        command.opcode = admin::ASYNC_EVENT_REQUEST;
        command.cid.set(EVENT_CID);
        let bytes: [u8; 64] = zerocopy::transmute!(command);
        if self.queue.submit(&bytes).is_err() {
            return false;
        }
        self.queue.flush();
        self.event_cid = Some(EVENT_CID);
        true
    }

    /// Whether an Asynchronous Event Request is out.
    pub fn awaits_event(&self) -> bool {
        self.event_cid.is_some()
    }

    /// How the Asynchronous Event Request ended, once.
    pub fn take_event(&mut self) -> Option<Completion> {
        self.event.take()
    }

    /// Sends a command whose answer, if any, goes to the page for answers.
    pub fn send(&mut self, mut command: Command, now: Instant, timeout: Duration) -> bool {
        self.cid = if self.cid + 1 >= EVENT_CID { 1 } else { self.cid + 1 };
        command.cid.set(self.cid);
        let bytes: [u8; 64] = zerocopy::transmute!(command);
        if self.queue.submit(&bytes).is_err() {
            return false;
        }
        self.queue.flush();
        self.deadline = Some(now + timeout);
        true
    }

    /// How the command that is out stands.
    pub fn progress(&mut self, now: Instant) -> Progress {
        // A drive that goes on ending what nobody has sent gets the core's time for so many.
        for _ in 0..COMPLETIONS_PER_POLL {
            let Some(entry) = self.queue.complete() else { break };
            let Ok(completion) = Completion::read_from_bytes(&entry) else { continue };
            if self.event_cid == Some(completion.cid.get()) {
                self.event_cid = None;
                self.event = Some(completion);
                continue;
            }
            if self.deadline.is_none() || completion.cid.get() != self.cid {
                self.unknown += 1;
                continue;
            }
            self.deadline = None;
            return Progress::Ended(completion);
        }
        match self.deadline {
            Some(deadline) if deadline <= now => Progress::TimedOut,
            _ => Progress::Waiting,
        }
    }

    /// Identify (Base 5.17).
    pub fn identify(&self, pool: &PagePool, nsid: u32, cns: u8) -> Command {
        let mut command = Command::new_zeroed();
        command.opcode = admin::IDENTIFY;
        command.nsid.set(nsid);
        command.cdw10.set(u32::from(cns));
        let page = if cns == cns::ACTIVE_NAMESPACES { &self.list } else { &self.page };
        command.set_prp(address(pool, page), 0);
        command
    }

    /// Get Log Page for the SMART log of the controller (Base 5.16.1.3).
    pub fn get_smart(&self, pool: &PagePool) -> Command {
        self.get_log_page(pool, log_page::id::SMART, size_of::<SmartLog>() as u32)
    }

    /// Get Log Page of the `bytes` first bytes of any page of the controller; what is told by it is told again.
    pub fn get_log_page(&self, pool: &PagePool, page: u8, bytes: u32) -> Command {
        let mut command = Command::new_zeroed();
        command.opcode = admin::GET_LOG_PAGE;
        command.nsid.set(NSID_ALL);
        command.cdw10.set((bytes / 4 - 1) << 16 | u32::from(page));
        command.set_prp(address(pool, &self.page), 0);
        command
    }

    fn read<T: FromBytes + IntoBytes>(&self, pool: &PagePool) -> T {
        let mut value = T::new_zeroed();
        pool.read(&mut self.page.start(), value.as_mut_bytes());
        value
    }

    /// Identity and limits from the answer to Identify Controller.
    #[inline(never)]
    pub fn controller(&self, pool: &PagePool, page_bytes: u64) -> (DriveIdentity, Limits, u32) {
        let data: IdentifyController = self.read(pool);
        let identity = DriveIdentity { serial: data.serial, model: data.model, firmware: data.firmware };
        (identity, Limits::of_controller(&data, page_bytes), data.namespaces.get())
    }

    /// RTD3E and OAES from the answer to Identify Controller.
    #[inline(never)]
    pub fn shutdown_and_events(&self, pool: &PagePool) -> (u32, u32) {
        let data = self.read::<IdentifyController>(pool);
        (data.entry_latency_us.get(), data.async_events.get())
    }

    /// More limits from the answer to Identify Controller of the NVM command set.
    pub fn nvm_controller(&self, pool: &PagePool, limits: Limits, page_bytes: u64) -> Limits {
        limits.with_nvm(&self.read::<IdentifyNvmController>(pool), page_bytes)
    }

    /// The SMART log from the answer.
    pub fn smart(&self, pool: &PagePool) -> SmartLog {
        self.read(pool)
    }

    /// An entry of the answer to Identify for active namespaces; 0 behind the last.
    pub fn list_entry(&self, pool: &PagePool, index: u32) -> u32 {
        let mut cursor = self.list.start();
        let mut entry = [0; 4];
        pool.skip(&mut cursor, index as usize * 4);
        pool.read(&mut cursor, &mut entry);
        u32::from_le_bytes(entry)
    }

    /// What Identify Namespace tells; `None` for an inactive namespace.
    #[inline(never)]
    pub fn namespace(&self, pool: &PagePool, nsid: u32) -> Option<NamespaceRecord> {
        let data: IdentifyNamespace = self.read(pool);
        let format = data.current_format();
        let blocks = data.size_blocks.get();
        if blocks == 0 {
            return None;
        }
        // Protection information is metadata too: it is named first, as what stands in the way more.
        let refusal = if data.protection & 0b111 != 0 {
            Some(RefusalReason::ProtectionInformation)
        } else if format.metadata_bytes.get() != 0 {
            Some(RefusalReason::Metadata)
        } else if !matches!(format.block_shift, 9 | 12) {
            Some(RefusalReason::BlockSize)
        } else if blocks > u64::MAX >> format.block_shift {
            Some(RefusalReason::Size)
        } else {
            None
        };
        Some(NamespaceRecord {
            nsid,
            blocks,
            block_shift: format.block_shift,
            deallocate_features: data.deallocate_features,
            nguid: data.nguid,
            eui64: data.eui64,
            uuid: [0; 16],
            optimal: optimal_sizes(&data),
            refusal,
        })
    }

    /// Adds what the Namespace Identification Descriptors tell (Base 5.17.2.3). A list that makes no sense ends it.
    #[inline(never)]
    pub fn add_descriptors(&self, pool: &PagePool, record: &mut NamespaceRecord) {
        let mut data = [0; 4096];
        pool.read(&mut self.page.start(), &mut data);
        let mut rest = data.as_slice();
        while let Some((&[kind, length, _, _], after)) = rest.split_first_chunk::<4>() {
            let Some((value, next)) = after.split_at_checked(usize::from(length)) else { return };
            match (kind, value) {
                (0, _) | (_, []) => return,
                (descriptor::EUI64, value) => copy_exactly(&mut record.eui64, value),
                (descriptor::NGUID, value) => copy_exactly(&mut record.nguid, value),
                (descriptor::UUID, value) => copy_exactly(&mut record.uuid, value),
                (descriptor::COMMAND_SET, [0]) => (),
                (descriptor::COMMAND_SET, [2]) => record.refusal = Some(RefusalReason::Zoned),
                (descriptor::COMMAND_SET, _) => record.refusal = Some(RefusalReason::CommandSet),
                _ => (),
            }
            rest = next;
        }
    }
}

fn address(pool: &PagePool, pages: &Pages) -> u64 {
    pool.addresses(pages).next().map_or(0, |address| address.0)
}

fn copy_exactly(into: &mut [u8], from: &[u8]) {
    if into.len() == from.len() {
        into.copy_from_slice(from);
    }
}

/// Set Features, Asynchronous Event Configuration (Base 5.27.1.8): all health warnings, and of the notices in OAES those
/// of changed namespaces and of firmware activation.
pub(crate) fn async_event_configuration(supported: u32) -> Command {
    const HEALTH: u32 = 0x1f;
    const NOTICES: u32 = 1 << 8 | 1 << 9;
    let mut command = Command::new_zeroed();
    command.opcode = admin::SET_FEATURES;
    command.cdw10.set(u32::from(features::ASYNC_EVENT_CONFIGURATION));
    command.cdw11.set(HEALTH | supported & NOTICES);
    command
}

/// Abort (Base 5.1) of command `cid` of queue `qid`.
pub(crate) fn abort(qid: u16, cid: u16) -> Command {
    let mut command = Command::new_zeroed();
    command.opcode = admin::ABORT;
    command.cdw10.set(u32::from(cid) << 16 | u32::from(qid));
    command
}

/// Set Features, Number of Queues (Base 5.27.1.5): asks for `pairs` I/O queue pairs.
pub(crate) fn number_of_queues(pairs: u16) -> Command {
    let zero_based = u32::from(pairs.saturating_sub(1));
    let mut command = Command::new_zeroed();
    command.opcode = admin::SET_FEATURES;
    command.cdw10.set(u32::from(features::NUMBER_OF_QUEUES));
    command.cdw11.set(zero_based << 16 | zero_based);
    command
}

/// Create I/O Completion Queue (Base 5.4): contiguous, with an interrupt where there is a vector.
pub(crate) fn create_completion_queue(qid: u16, location: &hal_api::QueueLocation) -> Command {
    let mut command = Command::new_zeroed();
    command.opcode = admin::CREATE_COMPLETION_QUEUE;
    command.set_prp(location.completion.0, 0);
    command.cdw10.set(location.entries.saturating_sub(1) << 16 | u32::from(qid));
    command.cdw11.set(location.vector.map_or(0, |vector| u32::from(vector) << 16 | 0b10) | 1);
    command
}

/// Create I/O Submission Queue (Base 5.5): contiguous, completing to the queue of the same number.
pub(crate) fn create_submission_queue(qid: u16, location: &hal_api::QueueLocation) -> Command {
    let mut command = Command::new_zeroed();
    command.opcode = admin::CREATE_SUBMISSION_QUEUE;
    command.set_prp(location.submission.0, 0);
    command.cdw10.set(location.entries.saturating_sub(1) << 16 | u32::from(qid));
    command.cdw11.set(u32::from(qid) << 16 | 1);
    command
}

/// A namespace as the drive describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamespaceRecord {
    pub nsid: u32,
    pub blocks: u64,
    pub block_shift: u8,
    pub deallocate_features: u8,
    pub nguid: [u8; 16],
    pub eui64: [u8; 8],
    pub uuid: [u8; 16],
    pub optimal: controller::OptimalSizes,
    /// Why it is not served.
    pub refusal: Option<RefusalReason>,
}

impl NamespaceRecord {
    pub fn info(&self, drive: DriveIdentity, limits: &Limits) -> NamespaceInfo {
        NamespaceInfo {
            nsid: self.nsid,
            blocks: self.blocks,
            block_shift: self.block_shift,
            nguid: self.nguid,
            eui64: self.eui64,
            uuid: self.uuid,
            volatile_write_cache: limits.volatile_write_cache,
            write_uncorrectable: limits.has_write_uncorrectable(),
            deallocate_features: self.deallocate_features,
            optimal: self.optimal,
            drive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_api::QueueFull;

    /// A queue that ends what nobody has sent, again and again.
    #[derive(Debug, Default)]
    struct Endless {
        taken: usize,
    }

    impl CommandQueue for Endless {
        fn depth(&self) -> u16 {
            31
        }
        fn submit(&mut self, _: &[u8; 64]) -> Result<(), QueueFull> {
            Ok(())
        }
        fn complete(&mut self) -> Option<[u8; 16]> {
            self.taken += 1;
            assert!(self.taken < 1000, "the core does nothing else any more");
            Some([0xff; 16])
        }
        fn flush(&mut self) {}
        fn arm(&mut self) -> bool {
            true
        }
        fn disarm(&mut self) {}
    }

    #[test]
    fn a_drive_that_ends_commands_without_end_has_a_bounded_part_of_a_turn() {
        let mut admin = Admin::new(Endless::default());
        assert!(matches!(admin.progress(Instant::from_millis(1)), Progress::Waiting));
        assert_eq!(admin.queue.taken, COMPLETIONS_PER_POLL);
    }
}
