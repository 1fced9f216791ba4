//! From a request's plan to commands: parts, PRP entries, ranges, and what the card does itself.

use controller::Operation;
use hal_api::{CommandQueue, Instant};
use hal_mem::{Cursor, PAGE_BYTES, PagePool, Pages};
use nvme::opcode::io;
use nvme::{Command, DatasetRange, Status};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::sharing::cost_bytes;
use super::{DriveQueue, Mode, copy};
use crate::limits::{COMMAND_TIMEOUT, MAX_DATASET_RANGES};
use crate::plan::{Limits, Plan};
use crate::status::INTERRUPTED;
use crate::tables::{Active, CommandPart, Covered, Late, Place};

const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;

/// Where the data of a part is.
#[derive(Debug, Clone, Copy)]
enum Data {
    None,
    /// In the chain from the cursor on.
    Chain(Cursor, u32),
    /// One page, named again and again.
    Repeat(u64, u32),
    /// Ranges, to be written to a page of their own.
    Ranges,
}

impl Data {
    const fn pages(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Chain(_, bytes) | Self::Repeat(_, bytes) => bytes.div_ceil(PAGE_BYTES as u32),
            Self::Ranges => 1,
        }
    }

    const fn needs_page(self) -> bool {
        self.pages() > 2 || matches!(self, Self::Ranges)
    }
}

/// The next part of a request.
#[derive(Debug, Clone, Copy)]
struct Part {
    command: Command,
    blocks: u32,
    data: Data,
    last: bool,
    /// For a Copy: the range, and the blocks of it, where the next part begins.
    copied: Option<(u16, u32)>,
}

/// Where a request stands once a part is out.
#[derive(Debug, Clone, Copy)]
struct Progress {
    cursor: Cursor,
    range: u16,
    issued_blocks: u32,
}

/// Why a part cannot go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocked {
    /// There is no room at the drive.
    Room,
    /// Its owner has its share there.
    Share,
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// Gives out what waits, in order, until there is no room.
    pub(super) fn issue_pending(&mut self, pool: &mut PagePool, now: Instant) {
        let last = self.requests.last(Place::Pending);
        self.sharing.all_had_theirs = false;
        while let Some(slot) = self.requests.first(Place::Pending) {
            let result = self.issue(slot, pool, now);
            if result == Err(Blocked::Room) {
                return;
            }
            self.requests.pop(Place::Pending);
            match result {
                Ok(()) => self.settle(slot, pool),
                // Others may pass; their order among themselves stays.
                Err(_) => self.requests.push(Place::Pending, slot),
            }
            if last == Some(slot) {
                self.sharing.all_had_theirs = true;
                return;
            }
        }
    }

    /// Gives out parts of a request until there are no more.
    pub(super) fn issue(&mut self, slot: u16, pool: &mut PagePool, now: Instant) -> Result<(), Blocked> {
        while self.issue_part(slot, pool, now)? {}
        Ok(())
    }

    /// The request that owns the scratch pages reads its next part; the next one takes them over when it ends.
    pub(super) fn work_on_scratch(&mut self, pool: &mut PagePool, now: Instant) {
        while self.mode == Mode::Running {
            if self.scratch_owner.is_none() {
                self.scratch_owner = self.requests.pop(Place::Scratch);
            }
            let Some(slot) = self.scratch_owner else { return };
            let Some(active) = self.requests.get(slot) else {
                self.scratch_owner = None;
                continue;
            };
            if active.outstanding > 0 {
                return;
            }
            if active.issuing && self.issue_part(slot, pool, now).is_err() {
                return;
            }
            let Some(active) = self.requests.get(slot) else { continue };
            if active.outstanding == 0 && !active.issuing {
                self.scratch_owner = None;
                self.settle(slot, pool);
            }
        }
    }

    /// What was read into the scratch pages is compared, or forgotten.
    pub(super) fn scratch_part_is_home(&mut self, slot: u16, blocks: u32, pool: &PagePool) {
        let scratch = self.scratch.start();
        let Some(active) = self.requests.get_mut(slot) else { return };
        let bytes = (blocks as usize) << active.request.block_shift;
        if let Plan::Scratch { compare: true, .. } = active.plan
            && active.status.is_success()
            && !active.reported
            && !equal(pool, &mut active.cursor, scratch, bytes)
        {
            active.status = Status::COMPARE_FAILURE;
        }
        let finished = match active.plan {
            Plan::Copy { .. } => copy::is_finished(active),
            _ => active.issued_blocks >= active.request.blocks,
        };
        if !active.status.is_success() || finished {
            active.issuing = false;
        }
        if !active.issuing {
            self.scratch_owner = None;
        }
    }

    /// Gives out one part; `Ok(false)` when it was the last or there is none.
    fn issue_part(&mut self, slot: u16, pool: &mut PagePool, now: Instant) -> Result<bool, Blocked> {
        let (scratch, zeroes) = (self.scratch.start(), self.zero_page(pool));
        let depth = self.pair.as_ref().map_or(0, CommandQueue::depth).min(self.window);
        let covers = self.requests.get(slot).map_or(Covered::NOTHING, |active| match active.plan {
            Plan::Flush => self.flush_covers(active.request.namespace.nsid, now),
            _ => Covered::NOTHING,
        });
        let Some(active) = self.requests.get_mut(slot) else { return Ok(false) };
        if now >= active.start_by && active.status.is_success() {
            active.status = INTERRUPTED;
        }
        if !active.status.is_success() {
            active.issuing = false;
            return Ok(false);
        }
        if !self.commands.has_room() || self.commands.outstanding() >= depth {
            return Err(Blocked::Room);
        }
        let shares = cost_bytes(active, 0).is_some();
        let most = if shares { self.sharing.part_bytes(active.request.owner, now)? } else { u32::MAX };
        let Some(mut part) = next_part(active, pool, scratch, zeroes, most) else {
            debug_assert!(false, "a request without a next part");
            (active.issuing, active.status) = (false, Status::INTERNAL_ERROR);
            return Ok(false);
        };
        let list =
            if part.data.needs_page() { Some(self.list_pages.pop().ok_or(Blocked::Room)?) } else { None };
        let Some(progress) = place_data(pool, active, &self.limits, &mut part, list.as_ref()) else {
            active.issuing = false;
            self.return_list(list, pool);
            return Ok(false);
        };
        let deadline = (now + COMMAND_TIMEOUT).min(active.start_by);
        let blocks = part.blocks;
        let command = CommandPart { slot, blocks, list, sent: now, deadline, late: Late::No };
        let Some(cid) = self.commands.begin(command) else {
            return Err(Blocked::Room);
        };
        part.command.cid.set(cid);
        let bytes: [u8; 64] = zerocopy::transmute!(part.command);
        if self.pair.as_mut().is_none_or(|pair| pair.submit(&bytes).is_err()) {
            let list = self.commands.end(cid).and_then(|part| part.list);
            self.return_list(list, pool);
            return Err(Blocked::Room);
        }
        self.earliest = self.earliest.min(deadline);
        self.counters.commands += 1;
        active.outstanding += 1;
        self.sharing.begin(active, blocks);
        active.flush_covers = covers;
        active.cursor = progress.cursor;
        active.range = progress.range;
        active.issued_blocks = progress.issued_blocks;
        active.issuing = !part.last;
        // Parts of a scratch request go one after another: it stays open until the last one was compared.
        if matches!(active.plan, Plan::Scratch { .. } | Plan::Copy { .. }) {
            active.issuing = true;
        }
        Ok(!part.last)
    }

    fn zero_page(&self, pool: &PagePool) -> u64 {
        first_address(pool, self.zeroes.start())
    }

    pub(super) fn return_list(&mut self, list: Option<Pages>, pool: &mut PagePool) {
        if let Some(list) = list
            && let Err(list) = self.list_pages.push(list)
        {
            pool.give_back(list);
        }
    }
}

/// The part that comes next, without PRP entries and CID; a part of what owners share has `most_bytes` at most.
// A part is large to hand over.
#[inline(always)]
fn next_part(
    active: &Active,
    pool: &PagePool,
    scratch: Cursor,
    zeroes: u64,
    most_bytes: u32,
) -> Option<Part> {
    let request = &active.request;
    let mut command = Command::new_zeroed();
    command.nsid.set(request.namespace.nsid);
    let left = request.blocks.saturating_sub(active.issued_blocks);
    let blocks_of = |part_blocks: u32| left.min(part_blocks.max(1));
    let of_share = |part_blocks: u32| blocks_of(part_blocks.min(most_bytes >> request.block_shift));
    let bytes_of = |blocks: u32| blocks << request.block_shift;
    let (opcode, blocks, data, mut flags) = match active.plan {
        Plan::Nothing | Plan::Flush => (io::FLUSH, 0, Data::None, 0),
        Plan::Data { opcode, part_blocks } => {
            let blocks = of_share(part_blocks);
            (opcode, blocks, Data::Chain(active.cursor, bytes_of(blocks)), 0)
        }
        Plan::NoData { opcode, part_blocks, deallocate } => {
            (opcode, of_share(part_blocks), Data::None, if deallocate { DEALLOCATE } else { 0 })
        }
        Plan::WriteZeroPage { part_blocks } => {
            let blocks = of_share(part_blocks);
            (io::WRITE, blocks, Data::Repeat(zeroes, bytes_of(blocks)), 0)
        }
        Plan::Scratch { part_blocks, .. } => {
            let blocks = blocks_of(part_blocks);
            (io::READ, blocks, Data::Chain(scratch, bytes_of(blocks)), 0)
        }
        Plan::Dataset | Plan::CutDataset => {
            let (ranges, attributes) = dataset(&request.operation);
            command.opcode = io::DATASET_MANAGEMENT;
            command.cdw10.set(u32::from(ranges.saturating_sub(1)));
            command.cdw11.set(u32::from(attributes & 0b111));
            let data = match active.plan {
                Plan::Dataset => Data::Chain(active.cursor, u32::from(ranges) * 16),
                _ => Data::Ranges,
            };
            return Some(Part { command, blocks: 0, data, last: true, copied: None });
        }
        Plan::Copy { part_blocks } => {
            let part = copy::next_part(active, pool, scratch, part_blocks)?;
            command.opcode = part.opcode;
            command.set_start_block(part.start_block);
            let is_forced = part.opcode == io::WRITE && request.force_unit_access;
            command.cdw12.set((part.blocks - 1) | if is_forced { FORCE_UNIT_ACCESS } else { 0 });
            let data = Data::Chain(part.scratch, bytes_of(part.blocks));
            return Some(Part {
                command,
                blocks: part.blocks,
                data,
                last: part.last,
                copied: Some(part.next),
            });
        }
    };
    command.opcode = opcode;
    if blocks > 0 {
        if request.force_unit_access {
            flags |= FORCE_UNIT_ACCESS;
        }
        command.set_start_block(request.start_block + u64::from(active.issued_blocks));
        command.cdw12.set((blocks - 1) | flags);
    }
    Some(Part { command, blocks, data, last: blocks >= left, copied: None })
}

/// Writes the part's PRP entries or ranges. `None` when only empty ranges were left: nothing is sent.
fn place_data(
    pool: &mut PagePool,
    active: &Active,
    limits: &Limits,
    part: &mut Part,
    list: Option<&Pages>,
) -> Option<Progress> {
    let issued_blocks = active.issued_blocks + part.blocks;
    let mut progress = Progress { cursor: active.cursor, range: active.range, issued_blocks };
    match part.data {
        Data::None => (),
        Data::Chain(mut from, bytes) => {
            let (prp1, prp2) = chain_entries(pool, &mut from, bytes, list);
            part.command.set_prp(prp1, prp2);
            match part.copied {
                Some((range, blocks)) => (progress.range, progress.issued_blocks) = (range, blocks),
                // In the scratch pages each part starts anew; the cursor is that of the comparison.
                None if matches!(active.plan, Plan::Scratch { .. }) => {}
                None => progress.cursor = from,
            }
        }
        Data::Repeat(address, bytes) => {
            let (prp1, prp2) = repeated_entries(pool, address, bytes, list);
            part.command.set_prp(prp1, prp2);
        }
        Data::Ranges => {
            let page = list.map_or(Cursor::NONE, Pages::start);
            let count = cut_ranges(pool, active, limits, &mut progress, page);
            part.last = finished_ranges(active, progress.range);
            if count == 0 {
                return None;
            }
            part.command.cdw10.set(count - 1);
            part.command.set_prp(first_address(pool, page), 0);
        }
    }
    Some(progress)
}

fn dataset(operation: &Operation) -> (u16, u8) {
    match *operation {
        Operation::DatasetManagement { ranges, attributes } => (ranges, attributes),
        _ => (0, 0),
    }
}

fn first_address(pool: &PagePool, cursor: Cursor) -> u64 {
    pool.addresses_from(cursor).next().map_or(0, |address| address.0)
}

/// PRP1 and PRP2 for `bytes` bytes from the start of a page in a chain (Base 4.1.1), the cursor moved behind them.
/// Every part starts at a page: all but a request's last are whole pages long.
fn chain_entries(pool: &mut PagePool, from: &mut Cursor, bytes: u32, list: Option<&Pages>) -> (u64, u64) {
    let prp1 = first_address(pool, *from);
    let mut left = bytes as usize;
    left -= pool.skip(from, left.min(PAGE_BYTES));
    let Some(list) = list else {
        let prp2 = if left > 0 { first_address(pool, *from) } else { 0 };
        pool.skip(from, left);
        return (prp1, prp2);
    };
    let mut to = list.start();
    while left > 0 {
        let mut entries = [0; 512];
        let mut filled = 0;
        let pages = left.div_ceil(PAGE_BYTES);
        for (entry, address) in entries.chunks_exact_mut(8).zip(pool.addresses_from(*from).take(pages)) {
            entry.copy_from_slice(&address.0.to_le_bytes());
            filled += 1;
        }
        let covered = (filled * PAGE_BYTES).min(left);
        if filled == 0 || pool.skip(from, covered) < covered {
            debug_assert!(false, "a part beyond its pages");
            break;
        }
        pool.write(&mut to, entries.get(..filled * 8).unwrap_or_default());
        left -= covered;
    }
    (prp1, first_address(pool, list.start()))
}

/// The same with one page named for all of the data.
fn repeated_entries(pool: &mut PagePool, address: u64, bytes: u32, list: Option<&Pages>) -> (u64, u64) {
    let Some(list) = list else {
        return (address, if bytes as usize > PAGE_BYTES { address } else { 0 });
    };
    let mut to = list.start();
    for _ in 1..bytes.div_ceil(PAGE_BYTES as u32) {
        pool.write(&mut to, &address.to_le_bytes());
    }
    (address, first_address(pool, list.start()))
}

/// Fills a page with ranges within DMRL, DMRSL and DMSL (NVM 4.1.5.2), and moves the place in the request's ranges.
/// Returns how many there are.
fn cut_ranges(
    pool: &mut PagePool,
    active: &Active,
    limits: &Limits,
    progress: &mut Progress,
    mut page: Cursor,
) -> u32 {
    let Progress { range, issued_blocks: done, .. } = progress;
    let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
    let most = or_none(u64::from(limits.dataset_ranges)).min(MAX_DATASET_RANGES as u64) as u32;
    let mut total_left = or_none(limits.dataset_blocks);
    let mut count = 0;
    while count < most && total_left > 0 && !finished_ranges(active, *range) {
        let mut cursor = active.cursor;
        pool.skip(&mut cursor, usize::from(*range) * 16);
        let mut source = DatasetRange::default();
        pool.read(&mut cursor, source.as_mut_bytes());
        let left = source.blocks.get().saturating_sub(*done);
        if left == 0 {
            *range += 1;
            *done = 0;
            continue;
        }
        let now = u64::from(left).min(or_none(u64::from(limits.dataset_range_blocks))).min(total_left) as u32;
        let start = source.start_block.get().saturating_add(u64::from(*done));
        let cut = DatasetRange { blocks: U32::new(now), start_block: U64::new(start), ..source };
        pool.write(&mut page, cut.as_bytes());
        *done += now;
        total_left -= u64::from(now);
        count += 1;
    }
    count
}

fn finished_ranges(active: &Active, range: u16) -> bool {
    range >= dataset(&active.request.operation).0
}

/// Compares `bytes` bytes of two chains and moves the first cursor.
fn equal(pool: &PagePool, one: &mut Cursor, mut other: Cursor, bytes: usize) -> bool {
    let mut left = bytes;
    while left > 0 {
        let (mut a, mut b) = ([0; 512], [0; 512]);
        let now = left.min(a.len());
        let (Some(a), Some(b)) = (a.get_mut(..now), b.get_mut(..now)) else { return false };
        if pool.read(one, a) != now || pool.read(&mut other, b) != now || a != b {
            return false;
        }
        left -= now;
    }
    true
}
