//! Controller properties (Base 3.1.3): MMIO registers of a drive, properties of a fabrics controller.

use bitflags::bitflags;

/// Offsets of the properties.
pub mod offset {
    /// CAP, Controller Capabilities, 8 bytes.
    pub const CAP: u32 = 0x00;
    /// VS, Version.
    pub const VS: u32 = 0x08;
    /// CC, Controller Configuration.
    pub const CC: u32 = 0x14;
    /// CSTS, Controller Status.
    pub const CSTS: u32 = 0x1c;
    /// NSSR, NVM Subsystem Reset.
    pub const NSSR: u32 = 0x20;
    /// CRTO, Controller Ready Timeouts.
    pub const CRTO: u32 = 0x68;
}

/// Version 1.4 as VS shows it.
pub const VERSION_1_4: u32 = 0x0001_0400;
/// Version 2.0 as VS shows it.
pub const VERSION_2_0: u32 = 0x0002_0000;

/// CAP, Controller Capabilities (Base 3.1.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// MQES + 1: entries that a queue may have, 2 to 65536.
    #[must_use]
    pub const fn max_queue_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// TO in milliseconds: how long a change of CSTS.RDY may take.
    #[must_use]
    pub const fn ready_timeout_ms(self) -> u32 {
        (self.0 >> 24 & 0xff) as u32 * 500
    }

    /// DSTRD: bytes between two doorbells.
    #[must_use]
    pub const fn doorbell_stride_bytes(self) -> usize {
        4 << (self.0 >> 32 & 0xf)
    }

    /// CSS bit 0: the NVM command set is supported.
    #[must_use]
    pub const fn supports_nvm(self) -> bool {
        self.0 & 1 << 37 != 0
    }

    /// CSS bit 6: one or more I/O command sets, CC.CSS = 110b selects them all.
    #[must_use]
    pub const fn supports_io_command_sets(self) -> bool {
        self.0 & 1 << 43 != 0
    }

    /// MPSMIN: the smallest memory page in bytes.
    #[must_use]
    pub const fn min_page_bytes(self) -> u64 {
        4096 << (self.0 >> 48 & 0xf)
    }

    /// CRMS: CRTO tells the time-outs (bits 0: CC.CRIME = 0 mode, bit 1: independent of media).
    #[must_use]
    pub const fn has_ready_timeouts(self) -> bool {
        self.0 >> 59 & 0b11 != 0
    }
}

bitflags! {
    /// CSTS, Controller Status (Base 3.1.3.6).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ControllerStatus: u32 {
        /// RDY: takes commands.
        const READY = 1 << 0;
        /// CFS: fatal; only a reset helps.
        const FATAL = 1 << 1;
        /// SHST bit 0: shutdown goes on.
        const SHUTDOWN_OCCURRING = 1 << 2;
        /// SHST bit 1: shutdown is complete.
        const SHUTDOWN_COMPLETE = 1 << 3;
        /// NSSRO.
        const SUBSYSTEM_RESET = 1 << 4;
        /// PP: paused.
        const PAUSED = 1 << 5;
    }
}

/// CC, Controller Configuration (Base 3.1.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Configuration(pub u32);

impl Configuration {
    /// Enabled, 4 KiB pages, 64-byte submission and 16-byte completion entries, NVM command set.
    pub const ENABLED: Self = Self(1 | 6 << 16 | 4 << 20);

    /// EN.
    #[must_use]
    pub const fn enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// SHN: 0 none, 1 normal shutdown, 2 abrupt.
    #[must_use]
    pub const fn shutdown(self) -> u8 {
        (self.0 >> 14 & 0b11) as u8
    }

    /// The same with SHN set to a normal shutdown.
    #[must_use]
    pub const fn with_shutdown(self) -> Self {
        Self(self.0 & !(0b11 << 14) | 1 << 14)
    }

    /// The same with CSS = 110b: all I/O command sets.
    #[must_use]
    pub const fn with_all_command_sets(self) -> Self {
        Self(self.0 | 0b110 << 4)
    }

    /// CSS.
    #[must_use]
    pub const fn command_set(self) -> u8 {
        (self.0 >> 4 & 0b111) as u8
    }
}

/// CRTO, Controller Ready Timeouts (Base 3.1.3.19), in milliseconds: (with media, independent of media).
#[must_use]
pub const fn ready_timeouts_ms(crto: u32) -> (u32, u32) {
    ((crto & 0xffff) * 500, (crto >> 16) * 500)
}
