//! Registers of an NVMe controller in its BAR 0 (NVM Express Base 2.0, 3.1.3 and 3.1.4; NVMe over PCIe 1.0, 3.1.2).

/// CAP, Controller Capabilities, 64 bits (3.1.3.1).
pub const CAP: usize = 0x00;
/// VS, Version (3.1.3.2).
pub const VS: usize = 0x08;
/// CC, Controller Configuration (3.1.3.5).
pub const CC: usize = 0x14;
/// CSTS, Controller Status (3.1.3.6).
pub const CSTS: usize = 0x1c;
/// AQA, Admin Queue Attributes: entries less one of the completion queue in the upper half, of the submission
/// queue in the lower (3.1.3.8).
pub const AQA: usize = 0x24;
/// ASQ, Admin Submission Queue Base Address, 64 bits (3.1.3.9).
pub const ASQ: usize = 0x28;
/// ACQ, Admin Completion Queue Base Address, 64 bits (3.1.3.10).
pub const ACQ: usize = 0x30;
/// CRTO, Controller Ready Timeouts (3.1.3.17).
pub const CRTO: usize = 0x68;
/// SQ0TDBL, the first doorbell (NVMe over PCIe 1.0, 3.1.2.1).
pub const DOORBELLS: usize = 0x1000;

/// CAP.MQES: entries that a queue may have, less one.
#[must_use]
pub const fn maximum_queue_entries(capabilities: u64) -> u32 {
    (capabilities & 0xffff) as u32 + 1
}

/// CAP.DSTRD: bytes from one doorbell to the next, 4 to 131072.
#[must_use]
pub const fn doorbell_stride_bytes(capabilities: u64) -> usize {
    4 << (capabilities >> 32 & 0xf)
}
