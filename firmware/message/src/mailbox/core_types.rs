//! What a data core is asked, and what it answers: drives, ports, namespaces, controllers, queues.
//!
//! Each data core tells of what it has; who wants the whole card asks each and adds up. Lists come in pages, in the order of the
//! number that the next page is asked from; an empty one is the end.

use core::net::IpAddr;

use heapless::{String, Vec};
use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use super::Text;
use crate::configuration::{
    ConfigurationChange, HostReadings, NamespaceReadings, SubsystemPlace, SubsystemReadings,
};
use crate::{CoreCounters, MeterPage, MeterPlace, TraceLog, TracePage, TraceSettings};

/// Drives that one answer tells of.
pub const MAX_DRIVES_OF_ANSWER: usize = 3;
/// Ethernet ports.
pub const MAX_PORTS_OF_ANSWER: usize = 2;
/// Controllers that one answer tells of.
pub const MAX_CONTROLLERS_OF_ANSWER: usize = 3;
/// Queues that one answer tells of.
pub const MAX_QUEUES_OF_ANSWER: usize = 16;

/// What a data core is asked.
#[allow(clippy::large_enum_variant, reason = "one exists at a time, and there is no heap to box it in")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum CoreCall {
    /// The drives, from this number on.
    Drives {
        /// The first to be told of.
        first: u8,
    },
    /// Its queues of the Ethernet ports.
    Ports,
    /// The namespaces of drives that the card knows, attached or not, and those that are declared and missing: of the first data
    /// core.
    Namespaces {
        /// The first to be told of, by its number.
        first: u8,
    },
    /// The NVM subsystems: all cores have the same, but each its own controllers.
    Subsystems {
        /// The first to be told of.
        first: SubsystemPlace,
    },
    /// The hosts that a subsystem allows by name.
    AllowedHosts {
        /// Which.
        subsystem: SubsystemPlace,
        /// The first to be told of, by its number.
        first: u8,
    },
    /// The controllers that live on it.
    Controllers {
        /// The first CNTLID to be told of.
        first: u16,
    },
    /// Its connections.
    Queues {
        /// The first to be told of, by its place.
        first: u16,
    },
    /// What it has counted of commands to namespaces.
    Meters {
        /// The first piece to be told of.
        first: MeterPlace,
    },
    /// Commands that it remembers.
    Traces {
        /// In which log.
        log: TraceLog,
        /// The first to be told of, by its sequence number.
        first: u64,
    },
    /// Which commands it remembers.
    TraceSettings {
        /// What it is to be from now on; `None` changes nothing.
        set: Option<TraceSettings>,
    },
    /// What it has counted besides.
    Counters,
    /// Makes a change; from control alone, which sees to it that all cores make it.
    Change(ConfigurationChange),
}

/// What it answers.
#[allow(clippy::large_enum_variant, reason = "one exists at a time, and there is no heap to box it in")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum CoreAnswer {
    /// To [`CoreCall::Drives`].
    Drives(Vec<Drive, MAX_DRIVES_OF_ANSWER>),
    /// To [`CoreCall::Ports`].
    Ports(Vec<Port, MAX_PORTS_OF_ANSWER>),
    /// To [`CoreCall::Namespaces`].
    Namespaces(NamespaceReadings),
    /// To [`CoreCall::Subsystems`].
    Subsystems(SubsystemReadings),
    /// To [`CoreCall::AllowedHosts`].
    AllowedHosts(HostReadings),
    /// To [`CoreCall::Controllers`].
    Controllers(Vec<Controller, MAX_CONTROLLERS_OF_ANSWER>),
    /// To [`CoreCall::Queues`].
    Queues(Vec<Queue, MAX_QUEUES_OF_ANSWER>),
    /// To [`CoreCall::Meters`]; `None` behind the last piece.
    Meters(Option<MeterPage>),
    /// To [`CoreCall::Traces`].
    Traces(TracePage),
    /// To [`CoreCall::TraceSettings`]: how it is now.
    TraceSettings(TraceSettings),
    /// To [`CoreCall::Counters`].
    Counters(CoreCounters),
    /// To [`CoreCall::Change`]: nothing is left on this core of how it was before.
    Changed,
}

/// What a data core has of a drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Drive {
    /// Its number; not that of its slot.
    pub number: u8,
    /// Requests of hosts that it has by this core's queue.
    pub outstanding: u16,
    /// Those of them that the host was told have failed, while the drive may still write to their pages.
    pub quarantined: u16,
    /// What has happened on this core since the start.
    pub counters: DriveCounters,
    /// What its home alone knows; `None` elsewhere.
    pub home: Option<DriveHome>,
}

/// What the home of a drive knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct DriveHome {
    /// PCI address, bus << 8 | device << 3 | function.
    pub address: u16,
    /// SN; empty before the drive was asked.
    pub serial: String<20>,
    /// MN.
    pub model: String<40>,
    /// FR.
    pub firmware: String<8>,
    /// Whether it carries out commands.
    pub state: DriveState,
    /// Why it failed last; empty where it has not.
    pub last_failure: String<56>,
    /// I/O queue pairs.
    pub queues: u8,
    /// Commands that one of them takes at a time.
    pub queue_depth: u16,
    /// From its SMART log; `None` before that was read.
    pub health: Option<DriveHealth>,
}

/// How a drive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum DriveState {
    /// On its way up, or through a reset.
    Starting,
    /// It carries out commands.
    Ready,
    /// It does not work, and is tried again.
    Failed,
    /// On its way to its orderly end.
    Ending,
    /// Off the bus.
    Off,
}

impl DriveState {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Ending => "ending",
            Self::Off => "off",
        }
    }
}

/// SMART / Health Information (Base 5.16.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct DriveHealth {
    /// Critical Warning, bit by bit as there; 0 is well.
    pub critical_warning: u8,
    /// In kelvin.
    pub temperature_k: u16,
    /// Available spare, in percent.
    pub spare_percent: u8,
    /// Of its life used, in percent; may exceed 100.
    pub used_percent: u8,
    /// Hours with power.
    pub power_on_hours: u64,
    /// Power losses without notice.
    pub unsafe_shutdowns: u64,
    /// Media and Data Integrity Errors.
    pub media_errors: u64,
    /// Bytes that its hosts have read in its life, to 512,000.
    pub read_bytes: u64,
    /// Bytes that they have written.
    pub written_bytes: u64,
}

/// What has happened to a drive since the card's start, as one core has seen it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct DriveCounters {
    /// I/O commands given to the drive.
    pub commands: u64,
    /// I/O commands that ended with a Media and Data Integrity Error.
    pub media_errors: u64,
    /// I/O commands that ended with another error.
    pub other_errors: u64,
    /// Commands that were late.
    pub command_timeouts: u64,
    /// Late commands that an Abort brought home.
    pub aborted: u64,
    /// Requests of hosts that were given up.
    pub request_timeouts: u64,
    /// Controller resets.
    pub resets: u64,
    /// Completions that belong to no command.
    pub unknown_completions: u64,
    /// Times that acknowledged writes were lost with the drive's power.
    pub lost_caches: u64,
    /// Times that it became unusable.
    pub failures: u64,
    /// Requests refused because all places were in use.
    pub busy: u64,
}

/// What a data core has of an Ethernet port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Port {
    /// Its number, from 1: PORTID of its listeners.
    pub number: u16,
    /// The station address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Whether the link was up when last looked at.
    pub link_is_up: bool,
    /// The device verifies checksums of what it receives.
    pub verifies_checksums: bool,
    /// The device fills in checksums of what it sends.
    pub fills_in_checksums: bool,
    /// The main one, where it has come, then one of IPv6 besides.
    pub addresses: Vec<PortAddress, 2>,
    /// ANA state of its listeners, as the ANA log page has it.
    pub ana_state: u8,
    /// What this core has counted.
    pub counters: PortCounters,
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct PortAddress {
    /// The port's own.
    pub address: IpAddr,
    /// Bits that name the network.
    pub prefix: u8,
    /// Where packets for other networks go.
    pub gateway: Option<IpAddr>,
}

/// What a core has seen of a port since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct PortCounters {
    /// Frames received.
    pub received_frames: u64,
    /// Frames sent.
    pub sent_frames: u64,
    /// Frames received for other cores and passed on.
    pub passed_on_frames: u64,
    /// Those of them that were dropped.
    pub dropped_frames: u64,
    /// Frames sent for other cores.
    pub carried_frames: u64,
    /// TCP connections accepted.
    pub accepted_connections: u64,
    /// Those refused because all sockets were in use.
    pub refused_connections: u64,
    /// Sockets that no connection uses now.
    pub free_sockets: u16,
}

/// A controller: one host's association.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Controller {
    /// CNTLID.
    pub cntlid: u16,
    /// The host's NQN.
    pub host_nqn: Text,
    /// Host Identifier.
    pub host_id: [u8; 16],
    /// The address that its admin queue came from.
    pub address: Option<IpAddr>,
    /// The number of the port that it came by.
    pub port: u16,
    /// Its subsystem, or discovery.
    pub subsystem: SubsystemPlace,
    /// It carries out commands.
    pub is_ready: bool,
    /// Keep Alive Timeout, in milliseconds; 0 is none.
    pub keep_alive_ms: u32,
    /// Time since its host last showed that it is alive, in milliseconds.
    pub idle_ms: u64,
    /// I/O queues that are connected, on whatever core.
    pub io_queues: u16,
    /// I/O queues that it may connect.
    pub granted_io_queues: u16,
}

/// A connection: an NVMe/TCP queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Queue {
    /// Its place among the core's connections.
    pub place: u16,
    /// CNTLID; `None` before Connect.
    pub cntlid: Option<u16>,
    /// Queue number; 0 is the admin queue.
    pub queue_id: u16,
    /// The host's address.
    pub address: Option<IpAddr>,
    /// The number of the port that it came by.
    pub port: u16,
    /// Entries of the queue.
    pub entries: u16,
    /// Commands inside.
    pub outstanding: u16,
    /// Those of them that are at a drive.
    pub at_drives: u16,
    /// Digests of PDU headers are agreed on.
    pub header_digest: bool,
    /// Digests of PDU data are agreed on.
    pub data_digest: bool,
    /// Pages of data that it holds.
    pub pages: u32,
}
