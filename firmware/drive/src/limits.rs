//! Every limit of the crate, by name.

use core::time::Duration;

use hal_mem::PAGE_BYTES;

/// Places for drives.
pub const MAX_DRIVES: usize = 16;
/// Block requests that one drive holds at a time; more are refused as busy.
pub const REQUESTS_PER_DRIVE: usize = 256;
/// Those of them that the scratch pages are for, which take turns; more are refused as busy, and leave the places to others.
pub const SCRATCH_REQUESTS_PER_DRIVE: usize = 16;
/// Commands at one drive at a time. Below 256, so that an index fits a byte and no identifier is FFFFh.
pub const COMMANDS_PER_DRIVE: usize = 255;
/// Commands that a core may have at a time in another core's queue pair at one drive.
pub const LENT_COMMANDS: u16 = 16;
/// Data of one owner at a drive, or blocks that a command names without moving their data, while others have some there as well, in bytes,
/// and with it the largest part of a request.
/// As much as a core moves in the time that a drive takes for it (docs/design/slow-hosts.md).
pub const SHARED_DRIVE_BYTES: u32 = 128 * 1024;
/// What a Flush or a Dataset Management counts of it, which nobody knows before: eight of one owner are at the drive while others have
/// something there.
pub const UNKNOWN_COST_BYTES: u32 = SHARED_DRIVE_BYTES / 8;
/// Owners share a drive, and connections the turns, for so long after two of them had something: longer than a drive and a
/// network take to bring the next command of a host that has one at a time.
pub const SHARED_FOR: Duration = Duration::from_millis(10);
/// Owners whose data at a drive is counted apart. Those whose numbers are the same modulo this share one share.
pub const OWNERS: usize = 128;
/// Namespaces of one drive that are kept.
pub const NAMESPACES_PER_DRIVE: usize = 64;
/// Namespaces of one message from a drive's home to a queue.
pub(crate) const NAMESPACES_PER_STEP: usize = 4;
/// NSIDs that are tried one by one where a drive has no list of active namespaces.
pub const NAMESPACE_SCAN_LIMIT: u32 = 1024;
/// Pages for PRP lists: how many commands of more than two pages may be at the drive.
pub const LIST_PAGES: usize = 32;
/// Pages into which the card reads what it compares or verifies itself.
pub const SCRATCH_PAGES: u32 = 32;
/// Pages of the I/O queue's own: those and one of zeros.
pub const IO_PAGES: u32 = LIST_PAGES as u32 + SCRATCH_PAGES + 1;
/// Pages of the admin queue's own: one for data and one for the list of namespaces.
pub const ADMIN_PAGES: u32 = 2;
/// Pages that a drive takes from the pool when it comes up for the first time, and keeps.
pub const DRIVE_PAGES: u32 = IO_PAGES + ADMIN_PAGES;
/// Largest data of one command: what one page of PRP entries describes.
pub const MAX_PART_BYTES: u32 = (PAGE_BYTES / 8 * PAGE_BYTES) as u32;
/// Largest count of blocks of one command (NLB is zero-based and has 16 bits).
pub const MAX_PART_BLOCKS: u32 = 65536;
/// Ranges of one Dataset Management command.
pub const MAX_DATASET_RANGES: usize = 256;
/// Completions taken in one poll, so that one drive cannot take the others' turn.
pub const COMPLETIONS_PER_POLL: usize = 64;
/// Completions that belong to no command before the drive is reset.
pub const UNKNOWN_COMPLETIONS_LIMIT: u32 = 8;

/// How long a command may be at the drive before it is aborted.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an Abort may take, and the command that it names to come home, before the drive is reset.
pub const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after its arrival a request that changes blocks may still send commands: later there is no time for an
/// Abort before its host is told, and what a host was told of must not happen afterwards.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a request may take, waiting included, before its host is told. Below a Linux host's 30 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(25);
/// How long an admin command may take.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Added to what CAP.TO or CRTO say, which some drives leave at 0.
pub const READY_MARGIN: Duration = Duration::from_secs(1);
/// Between two looks at CSTS while RDY is awaited: no interrupt tells of it.
pub const READY_POLL: Duration = Duration::from_millis(5);
/// A drive with nothing under way is looked at no more often than this by a core that is awake. A request or a message ends its rest.
pub const REST: Duration = Duration::from_millis(10);
/// Between two looks at CSTS of a drive that works.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// Between two reads of the SMART log.
pub const SMART_INTERVAL: Duration = Duration::from_secs(10);
/// Between an event of a drive and the next Asynchronous Event Request: one that ends each at once fills no log.
pub const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// A command that was at the drive for so long halves the number of commands that are given to the drive at once.
pub const SLOW_COMMAND: Duration = Duration::from_secs(2);
/// A command that was home so fast lets the drive have one more.
pub const QUICK_COMMAND: Duration = Duration::from_secs(1);
/// How long a line of counters waits for more that belongs to the same mishap.
pub const COUNTERS_FIRST: Duration = Duration::from_secs(1);
/// Between two lines of counters.
pub const COUNTERS_INTERVAL: Duration = Duration::from_secs(10);
/// In an orderly end: until when requests and flushes have to be over.
pub const CLOSING_LIMIT: Duration = Duration::from_secs(10);
/// How long the flush may take that a host's own shutdown waits for, a reset of the drive included.
pub const HOST_FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// How long a drive may take for its shutdown, where it states less (RTD3E) or nothing.
pub const SHUTDOWN_LEAST: Duration = Duration::from_secs(5);
/// The same where it states more.
pub const SHUTDOWN_MOST: Duration = Duration::from_secs(20);
/// Before a failed drive is tried again, the first time.
pub const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Before a failed drive is tried again, later.
pub const LATER_RETRY: Duration = Duration::from_secs(30);
/// After this long without a failure a drive counts as mended.
pub const STABLE_AFTER: Duration = Duration::from_secs(120);
/// Resets without [`STABLE_AFTER`] between them before the drive is left alone for a while.
pub const RESETS_BEFORE_REST: u32 = 3;

/// The scratch pages hold the source ranges of a Copy, each from the start of a page on.
const _: () = {
    use controller::config::{MAX_COPY_BYTES, MAX_COPY_RANGES};
    assert!(MAX_COPY_BYTES / PAGE_BYTES as u32 + MAX_COPY_RANGES as u32 <= SCRATCH_PAGES);
};
const _: () = assert!(START_TIMEOUT.as_secs() + ABORT_TIMEOUT.as_secs() <= REQUEST_TIMEOUT.as_secs());
