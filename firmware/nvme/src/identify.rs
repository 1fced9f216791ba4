//! Identify data (Base 5.17, NVM 4.1.5).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Values of CNS, Controller or Namespace Structure.
pub mod cns {
    /// Identify Namespace of the NVM command set.
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespaces with greater NSIDs.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace Identification Descriptors.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// I/O command set specific Identify Namespace.
    pub const COMMAND_SET_NAMESPACE: u8 = 0x05;
    /// I/O command set specific Identify Controller.
    pub const COMMAND_SET_CONTROLLER: u8 = 0x06;
    /// Active namespaces of one I/O command set.
    pub const COMMAND_SET_ACTIVE_NAMESPACES: u8 = 0x07;
    /// I/O command set independent Identify Namespace.
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// Allocated namespaces with greater NSIDs.
    pub const ALLOCATED_NAMESPACES: u8 = 0x10;
    /// Identify Namespace of the NVM command set, of any allocated namespace.
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Controllers that a namespace is attached to.
    pub const ATTACHED_CONTROLLERS: u8 = 0x12;
    /// Controllers of the subsystem.
    pub const CONTROLLERS: u8 = 0x13;
    /// Allocated namespaces of one I/O command set.
    pub const COMMAND_SET_ALLOCATED_NAMESPACES: u8 = 0x1a;
    /// I/O command set specific Identify Namespace, of any allocated namespace.
    pub const COMMAND_SET_ALLOCATED_NAMESPACE: u8 = 0x1b;
    /// I/O Command Set vector.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// Size of every identify structure in bytes.
pub const IDENTIFY_BYTES: usize = 4096;

/// Identify Controller (Base 5.17.2.1).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// VID, PCI vendor.
    pub vendor: U16,
    /// SSVID, PCI subsystem vendor.
    pub subsystem_vendor: U16,
    /// SN, serial number, ASCII, padded with blanks.
    pub serial: [u8; 20],
    /// MN, model number, ASCII, padded with blanks.
    pub model: [u8; 40],
    /// FR, firmware revision, ASCII, padded with blanks.
    pub firmware: [u8; 8],
    /// RAB, recommended arbitration burst.
    pub arbitration_burst: u8,
    /// IEEE OUI.
    pub oui: [u8; 3],
    /// CMIC: bit 0 more ports, bit 1 more controllers, bit 3 ANA.
    pub multipath: u8,
    /// MDTS: maximum data transfer as a power of two of the minimum page; 0 no limit.
    pub mdts: u8,
    /// CNTLID.
    pub controller_id: U16,
    /// VER, as VS.
    pub version: U32,
    /// RTD3R.
    pub resume_latency_us: U32,
    /// RTD3E.
    pub entry_latency_us: U32,
    /// OAES: optional asynchronous events; bit 8 namespace attribute changes, bit 31 discovery changes.
    pub async_events: U32,
    /// CTRATT: bit 0 128-bit host identifier, bit 6 traffic based keep alive.
    pub attributes: U32,
    /// RRLS.
    pub read_recovery_levels: U16,
    reserved_102: [u8; 9],
    /// CNTRLTYPE: 1 I/O, 2 discovery, 3 administrative.
    pub controller_type: u8,
    /// FGUID.
    pub fru_guid: [u8; 16],
    /// CRDT1 to CRDT3: command retry delays in 100 ms.
    pub retry_delays: [U16; 3],
    reserved_134: [u8; 119],
    /// NVMSR.
    pub subsystem_report: u8,
    /// VWCI.
    pub vpd_write_cycles: u8,
    /// MEC.
    pub management_endpoint: u8,
    /// OACS: optional admin commands.
    pub admin_commands: U16,
    /// ACL: abort command limit, zero-based.
    pub abort_limit: u8,
    /// AERL: asynchronous event request limit, zero-based.
    pub async_event_limit: u8,
    /// FRMW: firmware updates; bit 0 slot 1 read only, bits 3:1 slots.
    pub firmware_updates: u8,
    /// LPA: log page attributes; bit 0 SMART by namespace, 1 effects log, 2 extended data, 3 telemetry, 5 supported pages.
    pub log_attributes: u8,
    /// ELPE: error log entries, zero-based.
    pub error_log_entries: u8,
    /// NPSS: power states, zero-based.
    pub power_states: u8,
    /// AVSCC.
    pub admin_vendor_specific: u8,
    /// APSTA.
    pub power_transitions: u8,
    /// WCTEMP in kelvin.
    pub warning_temperature_k: U16,
    /// CCTEMP in kelvin.
    pub critical_temperature_k: U16,
    /// MTFA.
    pub firmware_activation_time: U16,
    /// HMPRE.
    pub host_memory_preferred: U32,
    /// HMMIN.
    pub host_memory_minimum: U32,
    /// TNVMCAP in bytes.
    pub total_capacity_bytes: [u8; 16],
    /// UNVMCAP in bytes.
    pub unallocated_capacity_bytes: [u8; 16],
    /// RPMBS.
    pub rpmb: U32,
    /// EDSTT.
    pub self_test_minutes: U16,
    /// DSTO.
    pub self_test_options: u8,
    /// FWUG.
    pub firmware_granularity: u8,
    /// KAS: keep alive granularity in 100 ms; 0 not supported.
    pub keep_alive_granularity: U16,
    /// HCTMA.
    pub thermal_management: U16,
    /// MNTMT.
    pub min_thermal_temperature: U16,
    /// MXTMT.
    pub max_thermal_temperature: U16,
    /// SANICAP.
    pub sanitize: U32,
    /// HMMINDS.
    pub host_memory_min_entry: U32,
    /// HMMAXD.
    pub host_memory_max_entries: U16,
    /// NSETIDMAX.
    pub max_nvm_set: U16,
    /// ENDGIDMAX.
    pub max_endurance_group: U16,
    /// ANATT in seconds.
    pub ana_transition_s: u8,
    /// ANACAP.
    pub ana_capabilities: u8,
    /// ANAGRPMAX.
    pub max_ana_group: U32,
    /// NANAGRPID.
    pub ana_groups: U32,
    /// PELS.
    pub persistent_log: U32,
    /// DID.
    pub domain: U16,
    reserved_358: [u8; 154],
    /// SQES: required in bits 3:0, maximum in 7:4, as powers of two.
    pub sq_entry_size: u8,
    /// CQES: the same for completions.
    pub cq_entry_size: u8,
    /// MAXCMD: outstanding commands of a queue; required over fabrics.
    pub max_commands: U16,
    /// NN: the largest NSID.
    pub namespaces: U32,
    /// ONCS: optional NVM commands; bit 0 Compare, 1 Write Uncorrectable, 2 Dataset Management, 3 Write Zeroes,
    /// 4 Save/Select, 5 reservations, 6 Timestamp, 7 Verify, 8 Copy.
    pub optional_commands: U16,
    /// FUSES: bit 0 fused Compare and Write.
    pub fused: U16,
    /// FNA.
    pub format_attributes: u8,
    /// VWC: bit 0 a volatile write cache is present, bits 2:1 Flush with NSID FFFFFFFFh (10b no, 11b yes).
    pub volatile_write_cache: u8,
    /// AWUN, blocks, zero-based.
    pub atomic_write: U16,
    /// AWUPF, blocks, zero-based.
    pub atomic_write_power_fail: U16,
    /// ICSVSCC.
    pub io_vendor_specific: u8,
    /// NWPC.
    pub write_protection: u8,
    /// ACWU.
    pub atomic_compare_and_write: U16,
    /// CDFS.
    pub copy_formats: U16,
    /// SGLS: bits 1:0 supported, bit 2 keyed, bit 20 an offset in the address field.
    pub sgl_support: U32,
    /// MNAN: how many namespaces there may be; required with ANA.
    pub max_allowed_namespaces: U32,
    reserved_544: [u8; 224],
    /// SUBNQN, UTF-8, ended by NUL.
    pub subsystem_nqn: [u8; 256],
    reserved_1024: [u8; 768],
    /// IOCCSZ in 16 bytes: largest I/O command capsule (64 bytes and in-capsule data).
    pub io_command_capsule: U32,
    /// IORCSZ in 16 bytes: I/O response capsule.
    pub io_response_capsule: U32,
    /// ICDOFF in 16 bytes.
    pub in_capsule_offset: U16,
    /// FCATT: bit 0 clear: dynamic controllers.
    pub fabrics_attributes: u8,
    /// MSDBD: SGL data block descriptors of a capsule.
    pub max_sgl_descriptors: u8,
    /// OFCS: bit 0 Disconnect.
    pub optional_fabrics: U16,
    reserved_1806: [u8; 242],
    /// PSD 0 to 31.
    pub power_state_descriptors: [[u8; 32]; 32],
    /// Vendor specific.
    pub vendor_specific: [u8; 1024],
}

const _: () = assert!(size_of::<IdentifyController>() == IDENTIFY_BYTES);
const _: () = assert!(core::mem::offset_of!(IdentifyController, admin_commands) == 256);
const _: () = assert!(core::mem::offset_of!(IdentifyController, keep_alive_granularity) == 320);
const _: () = assert!(core::mem::offset_of!(IdentifyController, sq_entry_size) == 512);
const _: () = assert!(core::mem::offset_of!(IdentifyController, sgl_support) == 536);
const _: () = assert!(core::mem::offset_of!(IdentifyController, subsystem_nqn) == 768);
const _: () = assert!(core::mem::offset_of!(IdentifyController, io_command_capsule) == 1792);
const _: () = assert!(core::mem::offset_of!(IdentifyController, power_state_descriptors) == 2048);

/// An LBA format (NVM figure 98).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct LbaFormat {
    /// MS: metadata bytes of a block.
    pub metadata_bytes: U16,
    /// LBADS: block size as a power of two.
    pub block_shift: u8,
    /// RP: relative performance in bits 1:0.
    pub performance: u8,
}

/// Identify Namespace of the NVM command set (NVM 4.1.5.1).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// NSZE in blocks.
    pub size_blocks: U64,
    /// NCAP in blocks.
    pub capacity_blocks: U64,
    /// NUSE in blocks.
    pub used_blocks: U64,
    /// NSFEAT: bit 0 thin, bit 1 own atomics, bit 2 deallocated error, bit 4 optimal sizes are valid.
    pub features: u8,
    /// NLBAF, zero-based.
    pub formats: u8,
    /// FLBAS: format in bits 3:0 (and 6:5 above 16 formats), bit 4 metadata at the end of the data.
    pub format: u8,
    /// MC.
    pub metadata_capabilities: u8,
    /// DPC.
    pub protection_capabilities: u8,
    /// DPS: bits 2:0 protection type in use.
    pub protection: u8,
    /// NMIC: bit 0 may be attached to two controllers or more.
    pub multipath: u8,
    /// RESCAP.
    pub reservations: u8,
    /// FPI.
    pub format_progress: u8,
    /// DLFEAT: bits 2:0 what deallocated blocks read as (1 zeros), bit 3 Write Zeroes with DEAC.
    pub deallocate_features: u8,
    /// NAWUN.
    pub atomic_write: U16,
    /// NAWUPF.
    pub atomic_write_power_fail: U16,
    /// NACWU.
    pub atomic_compare_and_write: U16,
    /// NABSN.
    pub atomic_boundary_size: U16,
    /// NABO.
    pub atomic_boundary_offset: U16,
    /// NABSPF.
    pub atomic_boundary_size_power_fail: U16,
    /// NOIOB.
    pub optimal_boundary_blocks: U16,
    /// NVMCAP in bytes.
    pub capacity_bytes: [u8; 16],
    /// NPWG.
    pub preferred_write_granularity: U16,
    /// NPWA.
    pub preferred_write_alignment: U16,
    /// NPDG.
    pub preferred_deallocate_granularity: U16,
    /// NPDA.
    pub preferred_deallocate_alignment: U16,
    /// NOWS.
    pub optimal_write_size: U16,
    /// MSSRL.
    pub max_source_range_blocks: U16,
    /// MCL.
    pub max_copy_blocks: U32,
    /// MSRC.
    pub max_source_ranges: u8,
    reserved_81: [u8; 11],
    /// ANAGRPID.
    pub ana_group: U32,
    reserved_96: [u8; 3],
    /// NSATTR: bit 0 write protected.
    pub attributes: u8,
    /// NVMSETID.
    pub nvm_set: U16,
    /// ENDGID.
    pub endurance_group: U16,
    /// NGUID, big-endian, zero where there is none.
    pub nguid: [u8; 16],
    /// EUI64, big-endian, zero where there is none.
    pub eui64: [u8; 8],
    /// LBAF 0 to 63.
    pub lba_formats: [LbaFormat; 64],
    /// Vendor specific.
    pub vendor_specific: [u8; 3712],
}

const _: () = assert!(size_of::<IdentifyNamespace>() == IDENTIFY_BYTES);
const _: () = assert!(core::mem::offset_of!(IdentifyNamespace, nguid) == 104);
const _: () = assert!(core::mem::offset_of!(IdentifyNamespace, lba_formats) == 128);

impl IdentifyNamespace {
    /// The LBA format in use.
    #[must_use]
    pub fn current_format(&self) -> LbaFormat {
        let index = self.format & 0xf | if self.formats > 15 { self.format >> 1 & 0x30 } else { 0 };
        self.lba_formats.get(usize::from(index)).copied().unwrap_or_default()
    }
}

/// I/O command set specific Identify Controller of the NVM command set (NVM 4.1.5.2), its first bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNvmController {
    /// VSL: Verify size limit as a power of two of the minimum page; 0 no limit.
    pub verify_limit: u8,
    /// WZSL: Write Zeroes size limit, the same.
    pub write_zeroes_limit: u8,
    /// WUSL: Write Uncorrectable size limit, the same.
    pub write_uncorrectable_limit: u8,
    /// DMRL: ranges of a Dataset Management command; 0 not reported.
    pub dataset_ranges: u8,
    /// DMRSL: blocks of one range; 0 not reported.
    pub dataset_range_blocks: U32,
    /// DMSL: blocks of all ranges; 0 not reported.
    pub dataset_blocks: U64,
}

/// I/O command set independent Identify Namespace (Base 5.17.2.8), its first bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IndependentNamespace {
    /// NSFEAT: bit 4 NVM set and endurance group are valid for this namespace.
    pub features: u8,
    /// NMIC: bit 0 may be attached to two controllers or more.
    pub multipath: u8,
    /// RESCAP.
    pub reservations: u8,
    /// FPI.
    pub format_progress: u8,
    /// ANAGRPID.
    pub ana_group: U32,
    /// NSATTR: bit 0 write protected.
    pub attributes: u8,
    reserved_9: u8,
    /// NVMSETID.
    pub nvm_set: U16,
    /// ENDGID.
    pub endurance_group: U16,
    /// NSTAT: bit 0 ready.
    pub status: u8,
}

const _: () = assert!(core::mem::offset_of!(IndependentNamespace, status) == 14);

/// Controllers that a Controller List names at most (Base 4.4.1).
pub const CONTROLLER_LIST_ENTRIES: usize = 2047;

/// Controller List (Base 4.4.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControllerList {
    /// NUMID: how many identifiers follow.
    pub count: U16,
    /// CNTLIDs, rising; unused ones are 0.
    pub identifiers: [U16; CONTROLLER_LIST_ENTRIES],
}

const _: () = assert!(size_of::<ControllerList>() == IDENTIFY_BYTES);

/// Types of Namespace Identification Descriptors (Base 5.17.2.3).
pub mod descriptor {
    /// EUI-64, 8 bytes.
    pub const EUI64: u8 = 1;
    /// NGUID, 16 bytes.
    pub const NGUID: u8 = 2;
    /// UUID, 16 bytes.
    pub const UUID: u8 = 3;
    /// Command Set Identifier, 1 byte.
    pub const COMMAND_SET: u8 = 4;
}
