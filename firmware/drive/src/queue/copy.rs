//! Copy (NVM 3.2.2), which the card carries out itself: all source ranges are read into the scratch pages, then written,
//! so that source and destination may overlap. Drives' own Copy is not used: their limits differ, and few have it.
//!
//! A request's ranges are gone through twice: as numbers `0..n` they are read, as `n..2n` written. Each begins at a page
//! of the scratch pages.

use controller::config::MAX_COPY_RANGES;
use controller::{IoRequest, Operation};
use hal_mem::{Cursor, PAGE_BYTES, PagePool};
use nvme::opcode::io;
use nvme::{CopyRange, Status};
use zerocopy::IntoBytes;

use super::IoNamespace;
use crate::limits::SCRATCH_PAGES;
use crate::tables::Active;

/// A part of a Copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyPart {
    /// Read or Write.
    pub opcode: u8,
    pub start_block: u64,
    pub blocks: u32,
    /// Where in the scratch pages.
    pub scratch: Cursor,
    /// Where the request stands once the part is out: range, blocks of it.
    pub next: (u16, u32),
    pub last: bool,
}

fn count(operation: &Operation) -> u16 {
    match *operation {
        Operation::Copy { ranges } => ranges,
        _ => 0,
    }
}

fn ranges<'a>(request: &IoRequest, pool: &'a PagePool) -> impl Iterator<Item = CopyRange> + use<'a> {
    let mut cursor = request.pages.start();
    (0..count(&request.operation)).map_while(move |_| {
        let mut range = CopyRange::default();
        let bytes = range.as_mut_bytes();
        let wanted = bytes.len();
        (pool.read(&mut cursor, bytes) == wanted).then_some(range)
    })
}

fn bytes_of(range: &CopyRange, request: &IoRequest) -> u64 {
    u64::from(range.block_count()) << request.block_shift
}

/// Source and destination must lie inside the namespace, and the ranges in the scratch pages.
pub(super) fn check(request: &IoRequest, namespace: &IoNamespace, pool: &PagePool) -> Result<(), Status> {
    let is_inside =
        |start: u64, blocks: u64| start.checked_add(blocks).is_some_and(|end| end <= namespace.blocks);
    let (mut found, mut blocks, mut pages) = (0, 0, 0);
    for range in ranges(request, pool) {
        found += 1;
        blocks += u64::from(range.block_count());
        pages += bytes_of(&range, request).div_ceil(PAGE_BYTES as u64);
        if !is_inside(range.start_block.get(), u64::from(range.block_count())) {
            return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
        }
    }
    if !is_inside(request.start_block, blocks) {
        return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
    }
    let ranges = count(&request.operation);
    if found != ranges || !(1..=MAX_COPY_RANGES).contains(&ranges) || pages > u64::from(SCRATCH_PAGES) {
        debug_assert!(false, "a copy beyond its limits");
        return Err(Status::INTERNAL_ERROR);
    }
    Ok(())
}

/// The part that comes next; `None` where there is none, or where the ranges are not what was checked.
pub(super) fn next_part(
    active: &Active,
    pool: &PagePool,
    mut scratch: Cursor,
    part_blocks: u32,
) -> Option<CopyPart> {
    let request = &active.request;
    let all = count(&request.operation);
    let writes = active.range >= all;
    let index = if writes { active.range - all } else { active.range };
    let mut before = 0;
    let mut ranges = ranges(request, pool);
    for _ in 0..index {
        let range = ranges.next()?;
        before += u64::from(range.block_count());
        skip(pool, &mut scratch, bytes_of(&range, request).next_multiple_of(PAGE_BYTES as u64))?;
    }
    let range = ranges.next()?;
    skip(pool, &mut scratch, u64::from(active.issued_blocks) << request.block_shift)?;
    let left = range.block_count().checked_sub(active.issued_blocks)?;
    let blocks = left.min(part_blocks.max(1));
    let start = if writes { request.start_block.checked_add(before)? } else { range.start_block.get() };
    let next =
        if blocks < left { (active.range, active.issued_blocks + blocks) } else { (active.range + 1, 0) };
    Some(CopyPart {
        opcode: if writes { io::WRITE } else { io::READ },
        start_block: start.checked_add(u64::from(active.issued_blocks))?,
        blocks,
        scratch,
        next,
        last: next.0 >= all * 2,
    })
}

/// Whether all parts were given out.
pub(super) fn is_finished(active: &Active) -> bool {
    active.range >= count(&active.request.operation) * 2
}

fn skip(pool: &PagePool, cursor: &mut Cursor, bytes: u64) -> Option<()> {
    let bytes = usize::try_from(bytes).ok()?;
    (pool.skip(cursor, bytes) == bytes).then_some(())
}
