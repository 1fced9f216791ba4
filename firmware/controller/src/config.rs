//! Limits and the subsystem's fixed properties: every number that bounds this crate stands here.

use heapless::String;

/// Namespaces of the subsystem (MNAN): the rings between cores have room to tell of each.
pub use message::MAX_NAMESPACES;
/// Listeners that the discovery log page tells of.
pub const MAX_LISTENERS: usize = 8;
/// I/O queues that any controller may be granted; `SubsystemConfig::max_io_queues` may be less.
pub const MAX_IO_QUEUES: u16 = 64;
/// Fewest entries of an admin queue that a host may count on (Base 5.16.1.23: ASQSZ is at least 32).
pub const MIN_ADMIN_ENTRIES: u16 = 32;
/// Asynchronous Event Requests that may be outstanding (AERL is one less).
pub const MAX_ASYNC_EVENT_REQUESTS: usize = 4;
/// Abort commands that may be outstanding (ACL is one less). Each is carried out at once.
pub const MAX_ABORTS: u8 = 4;
/// Entries of a controller's Error Information log (ELPE is one less).
pub const ERROR_LOG_ENTRIES: usize = 16;
/// Changed namespaces that a controller keeps by NSID; above that the log says "too many" (Base 5.16.1.5).
pub const MAX_CHANGED_NAMESPACES: usize = MAX_NAMESPACES;
/// KAS: granularity of the keep alive timer in units of 100 ms.
pub const KEEP_ALIVE_UNITS: u16 = 10;
/// The same in milliseconds: shorter time-outs are rounded up to it.
pub const KEEP_ALIVE_GRANULARITY_MS: u32 = KEEP_ALIVE_UNITS as u32 * 100;
/// How long an idle discovery controller without a keep alive time-out stays, and one that its host does not
/// enable (Base 3.1.2.3.4, 3.7.2), in milliseconds.
pub const IDLE_CONTROLLER_MS: u32 = 120_000;
/// Hosts without a controller that are remembered, so that they hear of lost writes when they come back.
pub const MAX_DEPARTED_HOSTS: usize = 8;
/// Hosts that another core has told of lost writes and that are remembered until the drive has told this core of them.
pub const MAX_RECENTLY_TOLD: usize = 32;
/// Ranges of one Dataset Management command.
pub const MAX_DATASET_RANGES: u16 = 256;
/// Blocks of a fused Compare and Write (ACWU is one less).
pub const MAX_FUSED_BLOCKS: u32 = 32;
/// Bytes of one Copy command (MCL, and MSSRL, are as many blocks). The card reads all of it before it writes any, so that
/// ranges may overlap.
pub const MAX_COPY_BYTES: u32 = 64 << 10;
/// Source ranges of one Copy command (MSRC is one less).
pub const MAX_COPY_RANGES: u16 = 16;
/// Most bytes that a command carried out by the card itself takes from the host, and the size of the pieces
/// in which its answers are written.
pub const PIECE_BYTES: usize = 4096;
/// Largest CNTLID of a dynamic controller (Base 3.1.2: FFF0h and above are reserved).
pub const MAX_CONTROLLER_ID: u16 = 0xffef;
/// Critical composite temperature (CCTEMP) in kelvin, and the largest a threshold means anything for.
pub const CRITICAL_TEMPERATURE_K: u16 = 358;
/// Warning composite temperature (WCTEMP) and default over-temperature threshold in kelvin.
pub const WARNING_TEMPERATURE_K: u16 = 343;

/// What is fixed about the subsystem.
#[derive(Debug, Clone)]
pub struct SubsystemConfig {
    /// NQN of the NVM subsystem (Base 4.5).
    pub nqn: String<223>,
    /// SN, ASCII, padded with blanks.
    pub serial: [u8; 20],
    /// MN, ASCII, padded with blanks.
    pub model: [u8; 40],
    /// FR, ASCII, padded with blanks.
    pub firmware: [u8; 8],
    /// MDTS: largest transfer as a power of two of 4 KiB; 8 is 1 MiB. Taken as 1 to 15.
    pub max_transfer_shift: u8,
    /// In-capsule data of I/O queues in bytes, a multiple of 16.
    pub in_capsule_bytes: u32,
    /// Entries that a queue may have (MQES + 1), 32 to 4096.
    pub max_queue_entries: u16,
    /// I/O queues of a controller, 1 to [`MAX_IO_QUEUES`].
    pub max_io_queues: u16,
}

impl SubsystemConfig {
    /// Limits as the card has them by default, with `nqn` and `serial` (cut or padded with blanks).
    #[must_use]
    pub fn new(nqn: String<223>, serial: &str) -> Self {
        Self {
            nqn,
            serial: padded(serial),
            model: padded("Penstock NVMe controller"),
            firmware: padded(env!("CARGO_PKG_VERSION")),
            max_transfer_shift: 8,
            in_capsule_bytes: 8192,
            max_queue_entries: 128,
            max_io_queues: 16,
        }
    }

    /// The same with every number inside the range that its description gives.
    #[must_use]
    pub fn clamped(mut self) -> Self {
        self.max_transfer_shift = self.max_transfer_shift.clamp(1, 15);
        self.in_capsule_bytes = self.in_capsule_bytes.min(1 << 20) & !15;
        self.max_queue_entries = self.max_queue_entries.clamp(MIN_ADMIN_ENTRIES, 4096);
        self.max_io_queues = self.max_io_queues.clamp(1, MAX_IO_QUEUES);
        self
    }

    /// MDTS in bytes.
    #[must_use]
    pub fn max_transfer_bytes(&self) -> u32 {
        4096 << self.max_transfer_shift.min(15)
    }
}

/// RTD3E: how long hosts may wait for CSTS.SHST, within which drives are flushed, after a reset where need be. A Linux host
/// takes it for its time limit, of 5 s otherwise.
pub const SHUTDOWN_LATENCY_US: u32 = 12_000_000;

/// `text` as a field of ASCII padded with blanks; what does not fit is cut, what is not printable ASCII
/// becomes a blank.
#[must_use]
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        if (0x20..0x7f).contains(&byte) {
            *place = byte;
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fields_are_padded_and_cut() {
        assert_eq!(&padded::<6>("ab"), b"ab    ");
        assert_eq!(&padded::<3>("abcd"), b"abc");
        assert_eq!(&padded::<3>("a\n\u{e4}"), b"a  ");
    }

    #[test]
    fn limits_out_of_range_are_brought_into_it() {
        let mut config = SubsystemConfig::new(String::new(), "S");
        assert_eq!(config.max_transfer_bytes(), 1 << 20);
        config.max_transfer_shift = 200;
        config.max_queue_entries = 1;
        config.max_io_queues = 0;
        config.in_capsule_bytes = 8199;
        let config = config.clamped();
        assert_eq!(config.max_transfer_bytes(), 1 << 27);
        assert_eq!((config.max_queue_entries, config.max_io_queues, config.in_capsule_bytes), (32, 1, 8192));
    }
}
