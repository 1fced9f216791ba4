//! Limits, and how many of each thing a card of a given memory has. The one place for both.

use drive::DRIVE_BACKLOG_ENTRIES;
use hal_mem::{Bell, PAGE_BYTES, PagePool};
use message::{BACKLOG_ENTRIES, MESH_RING_ENTRIES};

/// TCP connections of each data core at once: each is an NVMe queue.
pub const MAX_CONNECTIONS: u16 = dataplane::MAX_CONNECTIONS;
/// NVMe controllers at once that live on a data core, discovery controllers among them.
pub const MAX_CONTROLLERS: usize = 48;
/// TCP connections of one address to a data core: 32 controllers with two I/O queues each. A quarter of the core's places
/// is left to others (docs/design/slow-hosts.md says why it is counted for each core).
pub const MAX_CONNECTIONS_PER_ADDRESS: u16 = 96;
/// NVMe controllers of one address that live on a data core.
pub const MAX_CONTROLLERS_PER_ADDRESS: u16 = 32;
/// Namespaces whose commands each data core counts: all that there can be.
pub const MAX_NAMESPACE_METERS: u16 = controller::MAX_NAMESPACES as u16;
/// Commands that each data core remembers as samples, and as many that were slow.
pub const MAX_TRACES: u16 = 64;
/// Ethernet ports.
pub const MAX_PORTS: usize = dataplane::MAX_PORTS;
/// Drives.
pub const MAX_DRIVES: usize = drive::limits::MAX_DRIVES;
/// Command slots of a data core at most: 64 I/O queues of 128 entries with their admin queues, and a quarter besides.
pub const MAX_SLOTS: u16 = 12_288;
/// Data pages at most: 512 MiB.
pub const MAX_PAGES: usize = 131_072;
/// Data pages of the general class that the commands of one connection may hold: two transfers of 1 MiB for
/// each of 16 drives, and never more than a quarter of the pool.
pub const MAX_PAGES_PER_CONNECTION: u32 = 8192;
/// Pages that an entry of a queue is promised for in-capsule data of 8 KiB.
const PAGES_PER_ENTRY: usize = 2;
/// Private memory of a card with the least and with the most memory, in bytes.
const PRIVATE_BYTES: core::ops::RangeInclusive<usize> = 16 << 20..=128 << 20;

/// How a card's free memory is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Private memory: sockets' buffers, slots, tables, links of pages.
    pub private_bytes: usize,
    /// Part of it that sockets' buffers may take.
    pub socket_bytes: usize,
    /// Data pages.
    pub pages: usize,
    /// Command slots.
    pub slots: u16,
    /// Data pages that one connection may hold.
    pub pages_per_connection: u32,
}

/// Bytes of the ways between `cores` data cores, above what they really take.
#[must_use]
pub const fn mesh_bytes(cores: usize) -> usize {
    let ways = cores * cores.saturating_sub(1);
    let messages = (BACKLOG_ENTRIES + MESH_RING_ENTRIES) * MESSAGE_BYTES;
    let of_drives = DRIVE_BACKLOG_ENTRIES + MESH_RING_ENTRIES;
    // A bell of each core in either mesh, and what aligns them.
    let bells = 2 * (cores + 1) * size_of::<Bell>();
    cores * cores * 512 + bells + ways * (messages + of_drives * DRIVE_MESSAGE_BYTES + 2048)
}

impl Sizes {
    /// What each of `cores` data cores has of `free_bytes`, besides the ways between them.
    #[must_use]
    pub fn of_each(free_bytes: usize, cores: usize) -> Self {
        match cores {
            0 | 1 => Self::of(free_bytes),
            _ => Self::of(free_bytes.saturating_sub(mesh_bytes(cores)) / cores),
        }
    }

    /// Divides `free_bytes`.
    #[must_use]
    pub fn of(free_bytes: usize) -> Self {
        let private_bytes = (free_bytes / 4).clamp(*PRIVATE_BYTES.start(), *PRIVATE_BYTES.end());
        let pages = (free_bytes.saturating_sub(private_bytes) / PAGE_BYTES).min(MAX_PAGES);
        // Half of the pages may be promised to in-capsule data, so that the other half always moves.
        let slots = (pages / 2 / PAGES_PER_ENTRY).min(usize::from(MAX_SLOTS)) as u16;
        let fixed =
            pages * PagePool::LINK_BYTES + MAX_DRIVES * DRIVE_TABLE_BYTES + usize::from(slots) * SLOT_BYTES;
        Self {
            private_bytes,
            socket_bytes: private_bytes.saturating_sub(fixed + METER_BYTES + OTHER_BYTES),
            pages,
            slots,
            pages_per_connection: (pages as u32 / 4).min(MAX_PAGES_PER_CONNECTION),
        }
    }
}

/// Estimates, above what is really taken; a wrong one shows as an error at boot that says by how much.
const DRIVE_TABLE_BYTES: usize = 64 << 10;
const SLOT_BYTES: usize = 256;
/// Meters of namespaces and remembered commands.
const METER_BYTES: usize = 144 << 10;
const OTHER_BYTES: usize = 1 << 20;
const MESSAGE_BYTES: usize = 144;
/// With the queue pair of some device in it.
const DRIVE_MESSAGE_BYTES: usize = 384;
const _: () = assert!(size_of::<Option<controller::Message>>() <= MESSAGE_BYTES);
const _: () = assert!(DRIVE_BACKLOG_ENTRIES >= MAX_DRIVES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_card_gets_small_pools_and_a_large_one_no_more_than_the_limits() {
        let small = Sizes::of(200 << 20);
        assert!(small.private_bytes + small.pages * PAGE_BYTES <= 200 << 20);
        assert!(small.pages > 30_000 && small.slots >= 4096, "{small:?}");
        let large = Sizes::of(64 << 30);
        assert_eq!((large.pages, large.slots), (MAX_PAGES, MAX_SLOTS));
        assert!(large.socket_bytes > 40 << 20, "{large:?}");
    }

    #[test]
    fn several_cores_share_what_one_would_have() {
        for cores in 2..=7 {
            let each = Sizes::of_each(1 << 30, cores);
            assert!((each.private_bytes + each.pages * PAGE_BYTES) * cores + mesh_bytes(cores) <= 1 << 30);
            assert!(each.slots >= 4096, "{cores} cores: {each:?}");
        }
        assert_eq!(Sizes::of_each(1 << 30, 1), Sizes::of(1 << 30));
    }

    #[test]
    fn half_of_the_pages_is_never_promised() {
        for mib in [64, 128, 256, 512, 1024, 4096] {
            let sizes = Sizes::of(mib << 20);
            assert!(usize::from(sizes.slots) * PAGES_PER_ENTRY * 2 <= sizes.pages, "{mib} MiB: {sizes:?}");
        }
    }
}
