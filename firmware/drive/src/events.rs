//! What a drive tells its caller.

use controller::OptimalSizes;
use nvme::identify::IdentifyNamespace;

/// A change at a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveEvent {
    /// A namespace that can be served.
    NamespaceFound(NamespaceInfo),
    /// A namespace that cannot be served.
    NamespaceRefused {
        /// NSID on the drive.
        nsid: u32,
        /// Why.
        reason: RefusalReason,
    },
    /// A namespace that was found or refused before is gone, or is another one now (which follows).
    NamespaceGone {
        /// NSID on the drive.
        nsid: u32,
    },
    /// Writes that were acknowledged and not flushed are gone: the next Flush of each host has to fail.
    WritesLost {
        /// NSID on the drive.
        nsid: u32,
    },
    /// The drive does not work. It is tried again from time to time; only a new reason is told again.
    Failed {
        /// Why.
        reason: FailReason,
    },
    /// A drive that worked is away: its requests are refused until [`DriveEvent::Back`].
    Lost,
    /// A drive that was lost works again.
    Back,
}

/// Who a drive is (Base 5.17.2.1); ASCII, padded with blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveIdentity {
    /// SN.
    pub serial: [u8; 20],
    /// MN.
    pub model: [u8; 40],
    /// FR.
    pub firmware: [u8; 8],
}

impl DriveIdentity {
    /// Before Identify Controller was read.
    pub const UNKNOWN: Self = Self { serial: [b' '; 20], model: [b' '; 40], firmware: [b' '; 8] };
}

/// What Identify Namespace says of sizes that suit the namespace.
#[must_use]
pub(crate) fn optimal_sizes(data: &IdentifyNamespace) -> OptimalSizes {
    let boundary_blocks = data.optimal_boundary_blocks.get();
    if data.features & 1 << 4 == 0 {
        return OptimalSizes { boundary_blocks, ..OptimalSizes::default() };
    }
    OptimalSizes {
        boundary_blocks,
        valid: true,
        write_granularity: data.preferred_write_granularity.get(),
        write_alignment: data.preferred_write_alignment.get(),
        deallocate_granularity: data.preferred_deallocate_granularity.get(),
        deallocate_alignment: data.preferred_deallocate_alignment.get(),
        write_size: data.optimal_write_size.get(),
    }
}

/// A namespace that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// NSID on the drive.
    pub nsid: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Log2 of the block size in bytes: 9 or 12.
    pub block_shift: u8,
    /// NGUID; zero where there is none.
    pub nguid: [u8; 16],
    /// EUI-64; zero where there is none.
    pub eui64: [u8; 8],
    /// UUID; zero where there is none.
    pub uuid: [u8; 16],
    /// The drive has a volatile write cache.
    pub volatile_write_cache: bool,
    /// DLFEAT.
    pub deallocate_features: u8,
    /// The drive has Write Uncorrectable.
    pub write_uncorrectable: bool,
    /// Sizes that suit it.
    pub optimal: OptimalSizes,
    /// Whose it is.
    pub drive: DriveIdentity,
}

/// Why a namespace is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// Its format has metadata.
    Metadata,
    /// Its format has protection information.
    ProtectionInformation,
    /// It belongs to the Zoned Namespace Command Set.
    Zoned,
    /// It belongs to some other I/O command set.
    CommandSet,
    /// Its blocks are neither 512 nor 4096 bytes.
    BlockSize,
    /// Its size in bytes exceeds 64 bits.
    Size,
}

impl RefusalReason {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Metadata => "its format has metadata",
            Self::ProtectionInformation => "its format has protection information",
            Self::Zoned => "it is a zoned namespace",
            Self::CommandSet => "its I/O command set is not NVM",
            Self::BlockSize => "its blocks are neither 512 nor 4096 bytes",
            Self::Size => "its size makes no sense",
        }
    }
}

/// Why a drive does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReason {
    /// Its registers read all ones.
    Removed,
    /// The card has too few pages for it.
    NoPages,
    /// It has no memory or no vector for the queues.
    NoQueues,
    /// Its smallest memory page is larger than 4 KiB.
    PageSize,
    /// It has no NVM command set.
    NoNvmCommandSet,
    /// CSTS.RDY did not become 0.
    StuckReady,
    /// CSTS.RDY did not become 1.
    NotReady,
    /// CSTS.CFS: Controller Fatal Status.
    Fatal,
    /// CSTS.RDY became 0 by itself.
    ForgotState,
    /// An admin command did not end.
    AdminTimeout,
    /// An I/O command did not end.
    CommandTimeout,
    /// Identify Controller failed.
    IdentifyController,
    /// The I/O completion queue could not be created.
    CreateCompletionQueue,
    /// The I/O submission queue could not be created.
    CreateSubmissionQueue,
    /// Too many completions that belong to no command.
    UnknownCompletions,
    /// It had to be reset again and again.
    TooManyResets,
}

impl FailReason {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Removed => "it does not answer (removed?)",
            Self::NoPages => "the card has too few pages for it",
            Self::NoQueues => "there is no memory or vector for its queues",
            Self::PageSize => "its smallest memory page exceeds 4 KiB",
            Self::NoNvmCommandSet => "it has no NVM command set",
            Self::StuckReady => "it does not stop (CSTS.RDY stays 1)",
            Self::NotReady => "it does not start (CSTS.RDY stays 0)",
            Self::Fatal => "it reports a fatal state (CSTS.CFS)",
            Self::ForgotState => "it forgot its state (CSTS.RDY became 0 by itself)",
            Self::AdminTimeout => "an admin command did not end",
            Self::CommandTimeout => "an I/O command did not end",
            Self::IdentifyController => "Identify Controller failed",
            Self::CreateCompletionQueue => "its I/O completion queue could not be created",
            Self::CreateSubmissionQueue => "its I/O submission queue could not be created",
            Self::UnknownCompletions => "it completes commands that it was not given",
            Self::TooManyResets => "it had to be reset too often",
        }
    }
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriveCounters {
    /// I/O commands given to the drive.
    pub commands: u64,
    /// I/O commands that ended with a Media and Data Integrity Error.
    pub media_errors: u64,
    /// I/O commands that ended with another error.
    pub other_errors: u64,
    /// Commands that took longer than `COMMAND_TIMEOUT`.
    pub command_timeouts: u64,
    /// Late commands that an Abort brought home.
    pub aborted: u64,
    /// Requests that took longer than `REQUEST_TIMEOUT`.
    pub request_timeouts: u64,
    /// Controller resets after the drive had worked.
    pub resets: u64,
    /// Completions that belong to no command.
    pub unknown_completions: u64,
    /// Times that acknowledged writes were lost with the drive's power.
    pub lost_caches: u64,
    /// Times that a drive that worked became unusable.
    pub failures: u64,
    /// Asynchronous events of the drive.
    pub events: u64,
    /// Requests that were refused because all places were in use.
    pub busy: u64,
}
