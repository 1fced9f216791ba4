//! Log pages (Base 5.16).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Log page identifiers.
pub mod id {
    /// Supported Log Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Error Information.
    pub const ERROR: u8 = 0x01;
    /// SMART / Health Information.
    pub const SMART: u8 = 0x02;
    /// Firmware Slot Information.
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// Changed Namespace List.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects.
    pub const COMMAND_EFFECTS: u8 = 0x05;
    /// Asymmetric Namespace Access.
    pub const ANA: u8 = 0x0c;
    /// Feature Identifiers Supported and Effects.
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// NVMe-MI Commands Supported and Effects.
    pub const MANAGEMENT_EFFECTS: u8 = 0x13;
    /// Discovery.
    pub const DISCOVERY: u8 = 0x70;
}

/// An entry of the Error Information log (Base 5.16.1.2).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ErrorEntry {
    /// Error count: unique; 0 an unused entry.
    pub error_count: U64,
    /// SQID.
    pub sq_id: U16,
    /// CID.
    pub cid: U16,
    /// Status field as in the completion, phase tag in bit 0.
    pub status: U16,
    /// Parameter error location: byte in bits 7:0, bit in 10:8; FFFFh not specific.
    pub location: U16,
    /// LBA.
    pub start_block: U64,
    /// NSID.
    pub nsid: U32,
    /// Vendor specific information available.
    pub vendor_page: u8,
    /// TRTYPE: 3 TCP.
    pub transport: u8,
    reserved_30: [u8; 2],
    /// Command specific information.
    pub command_specific: U64,
    /// Transport type specific.
    pub transport_specific: U16,
    reserved_42: [u8; 22],
}

const _: () = assert!(size_of::<ErrorEntry>() == 64);

/// SMART / Health Information (Base 5.16.1.3). 128-bit counters are little-endian bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SmartLog {
    /// Critical warning bits: 0 spare, 1 temperature, 2 reliability, 3 read only, 4 backup, 5 PMR.
    pub critical_warning: u8,
    /// Composite temperature in kelvin.
    pub temperature_k: U16,
    /// Available spare, percent.
    pub spare_percent: u8,
    /// Available spare threshold, percent.
    pub spare_threshold_percent: u8,
    /// Percentage used, may exceed 100.
    pub used_percent: u8,
    /// Endurance group critical warnings.
    pub endurance_warning: u8,
    reserved_7: [u8; 25],
    /// Data units (1000 × 512 bytes) read.
    pub data_units_read: [u8; 16],
    /// Data units written.
    pub data_units_written: [u8; 16],
    /// Host read commands.
    pub host_reads: [u8; 16],
    /// Host write commands.
    pub host_writes: [u8; 16],
    /// Controller busy, minutes.
    pub busy_minutes: [u8; 16],
    /// Power cycles.
    pub power_cycles: [u8; 16],
    /// Power on hours.
    pub power_on_hours: [u8; 16],
    /// Unsafe shutdowns.
    pub unsafe_shutdowns: [u8; 16],
    /// Media and data integrity errors.
    pub media_errors: [u8; 16],
    /// Error log entries over the life of the controller.
    pub error_entries: [u8; 16],
    /// Warning composite temperature time, minutes.
    pub warning_minutes: U32,
    /// Critical composite temperature time, minutes.
    pub critical_minutes: U32,
    /// Temperature sensors in kelvin; 0 not present.
    pub sensors_k: [U16; 8],
    /// Thermal management transitions and times.
    pub thermal: [U32; 4],
    reserved_232: [u8; 280],
}

const _: () = assert!(size_of::<SmartLog>() == 512);

/// Firmware Slot Information (Base 5.16.1.4).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FirmwareSlotLog {
    /// AFI: active slot in bits 2:0, next in 6:4.
    pub active: u8,
    reserved_1: [u8; 7],
    /// FRS 1 to 7: revision in each slot.
    pub revisions: [[u8; 8]; 7],
    reserved_64: [u8; 448],
}

const _: () = assert!(size_of::<FirmwareSlotLog>() == 512);

/// Commands Supported and Effects (Base 5.16.1.6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandEffectsLog {
    /// ACS: one for each admin opcode.
    pub admin: [U32; 256],
    /// IOCS: one for each I/O opcode.
    pub io: [U32; 256],
    reserved_2048: [u8; 2048],
}

const _: () = assert!(size_of::<CommandEffectsLog>() == 4096);

/// Bits of an entry of [`CommandEffectsLog`], and of Feature Identifiers Supported and Effects (Base 5.16.1.6, 5.16.1.18).
pub mod effect {
    /// CSUPP, FSUPP: the command, or the feature, is supported.
    pub const SUPPORTED: u32 = 1 << 0;
    /// LBCC: may change logical block contents.
    pub const BLOCK_CONTENT: u32 = 1 << 1;
    /// CSP, FSP: it is of one namespace.
    pub const NAMESPACE_SCOPE: u32 = 1 << 20;
    /// CSP, FSP: it is of one controller.
    pub const CONTROLLER_SCOPE: u32 = 1 << 21;
}

/// Bits of EFLAGS of [`DiscoveryEntry`].
pub mod discovery_flag {
    /// DUPRETINFO: the discovery subsystem there tells the same as this one.
    pub const DUPLICATE: u16 = 1 << 0;
    /// EPCSD: a host may stay connected to it, by a keep alive time-out other than 0.
    pub const PERSISTENT: u16 = 1 << 1;
}

/// Header of the Asymmetric Namespace Access log page (Base 5.16.1.13).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaHeader {
    /// CHGCNT: changes with the page.
    pub change_count: U64,
    /// NANAGRPD: how many groups follow.
    pub groups: U16,
    reserved_10: [u8; 6],
}

const _: () = assert!(size_of::<AnaHeader>() == 16);

/// ANA Group Descriptor (Base 5.16.1.13); its NSIDs follow.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaGroup {
    /// ANAGRPID, not 0.
    pub group: U32,
    /// How many NSIDs follow.
    pub namespaces: U32,
    /// CHGCNT of the group.
    pub change_count: U64,
    /// ANAS in bits 3:0.
    pub state: u8,
    reserved_17: [u8; 15],
}

const _: () = assert!(size_of::<AnaGroup>() == 32);

/// Header of the Discovery log page (Base 5.16.1.23).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// GENCTR: changes with each change of the entries.
    pub generation: U64,
    /// NUMREC: how many entries follow.
    pub records: U64,
    /// RECFMT: 0.
    pub format: U16,
    reserved_18: [u8; 1006],
}

const _: () = assert!(size_of::<DiscoveryHeader>() == 1024);

/// An entry of the Discovery log page (Base 5.16.1.23).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryEntry {
    /// TRTYPE: 3 TCP.
    pub transport: u8,
    /// ADRFAM: 1 IPv4, 2 IPv6.
    pub address_family: u8,
    /// SUBTYPE: 1 referral, 2 NVM subsystem, 3 the current discovery subsystem.
    pub subsystem_type: u8,
    /// TREQ: bits 1:0 secure channel (0 not specified, 1 required, 2 not required), bit 2 SQ flow control can be disabled.
    pub requirements: u8,
    /// PORTID.
    pub port_id: U16,
    /// CNTLID: FFFFh for dynamic controllers.
    pub controller_id: U16,
    /// ASQSZ: entries of an admin queue, at least 32.
    pub admin_queue_entries: U16,
    /// EFLAGS: bit 0 duplicate information, bit 1 explicit persistent connections.
    pub flags: U16,
    reserved_12: [u8; 20],
    /// TRSVCID: ASCII, padded with blanks: the port number.
    pub service_id: [u8; 32],
    reserved_64: [u8; 192],
    /// SUBNQN, ended by NUL.
    pub subsystem_nqn: [u8; 256],
    /// TRADDR: ASCII, padded with blanks.
    pub transport_address: [u8; 256],
    /// TSAS: transport specific; byte 0 SECTYPE of TCP (0 none, 2 TLS 1.3).
    pub transport_specific: [u8; 256],
}

const _: () = assert!(size_of::<DiscoveryEntry>() == 1024);
