//! What is shown: what the card says, with names as people write them. Units stand last in names.

use message::configuration::{
    Declared, NamespaceReading, NamespaceState, Nqn, SubsystemPlace, SubsystemReading,
};
use message::mailbox;
use serde::Serialize;

use crate::survey::add_drive;

/// A drive, by what all cores have of it.
#[derive(Debug, Serialize)]
pub struct Drive {
    pub number: u8,
    pub address: Option<String>,
    pub serial: String,
    pub model: String,
    pub firmware: String,
    pub state: &'static str,
    pub last_failure: String,
    pub queues: u8,
    pub queue_depth: u16,
    pub outstanding: u32,
    pub quarantined: u32,
    pub health: Option<mailbox::DriveHealth>,
    pub counters: mailbox::DriveCounters,
}

impl Drive {
    pub fn of(drive: &mailbox::Drive) -> Self {
        let mut view = Self {
            number: drive.number,
            address: None,
            serial: String::new(),
            model: String::new(),
            firmware: String::new(),
            state: "unknown",
            last_failure: String::new(),
            queues: 0,
            queue_depth: 0,
            outstanding: 0,
            quarantined: 0,
            health: None,
            counters: mailbox::DriveCounters::default(),
        };
        view.add(drive);
        view
    }

    /// Adds what another core has.
    pub fn add(&mut self, drive: &mailbox::Drive) {
        self.outstanding += u32::from(drive.outstanding);
        self.quarantined += u32::from(drive.quarantined);
        add_drive(&mut self.counters, &drive.counters);
        let Some(home) = &drive.home else { return };
        self.address = Some(pci_address(home.address));
        self.serial = home.serial.as_str().to_owned();
        self.model = home.model.as_str().to_owned();
        self.firmware = home.firmware.as_str().to_owned();
        self.state = home.state.name();
        self.last_failure = home.last_failure.as_str().to_owned();
        (self.queues, self.queue_depth) = (home.queues, home.queue_depth);
        self.health = home.health;
    }

    /// All that should not have happened.
    pub fn errors(&self) -> u64 {
        let counters = &self.counters;
        counters.media_errors
            + counters.other_errors
            + counters.request_timeouts
            + counters.unknown_completions
    }
}

/// An Ethernet port, by what all cores have of it.
#[derive(Debug, Serialize)]
pub struct Port {
    pub number: u16,
    pub mac: String,
    pub mtu: u16,
    pub link: &'static str,
    pub addresses: Vec<String>,
    pub gateways: Vec<String>,
    pub ana_state: &'static str,
    pub verifies_checksums: bool,
    pub fills_in_checksums: bool,
    pub counters: mailbox::PortCounters,
}

impl Port {
    pub fn of(port: &mailbox::Port) -> Self {
        let gateways = port.addresses.iter().filter_map(|own| own.gateway);
        Self {
            number: port.number,
            mac: port.mac.map(|byte| format!("{byte:02x}")).join(":"),
            mtu: port.mtu,
            link: if port.link_is_up { "up" } else { "down" },
            addresses: port.addresses.iter().map(|own| format!("{}/{}", own.address, own.prefix)).collect(),
            gateways: gateways.map(|gateway| gateway.to_string()).collect(),
            ana_state: ana_state(port.ana_state),
            verifies_checksums: port.verifies_checksums,
            fills_in_checksums: port.fills_in_checksums,
            counters: port.counters,
        }
    }
}

/// ANA states (Base 5.16.1.13), as nvme-cli writes them.
fn ana_state(code: u8) -> &'static str {
    match code {
        0x1 => "optimized",
        0x2 => "non-optimized",
        0x3 => "inaccessible",
        0x4 => "persistent-loss",
        0xf => "change",
        _ => "unknown",
    }
}

/// An NVM subsystem.
#[derive(Debug, Serialize)]
pub struct Subsystem {
    #[serde(skip)]
    pub place: SubsystemPlace,
    pub nqn: Nqn,
    /// It is the one that is always there.
    pub is_default: bool,
    pub serial: String,
    pub model: String,
    pub any_host: bool,
    /// Hosts that are allowed by name.
    pub hosts: Vec<Nqn>,
    pub namespaces: u8,
    pub controllers: u32,
}

impl Subsystem {
    pub fn of(reading: &SubsystemReading) -> Self {
        Self {
            place: reading.place,
            nqn: reading.setting.nqn.clone(),
            is_default: reading.place == SubsystemPlace::DEFAULT,
            serial: reading.setting.serial.as_str().to_owned(),
            model: reading.setting.model.as_str().to_owned(),
            any_host: reading.setting.any_host,
            hosts: Vec::new(),
            namespaces: reading.namespaces,
            controllers: u32::from(reading.controllers),
        }
    }
}

/// The NQN of the subsystem in a place.
fn nqn_of(place: SubsystemPlace, subsystems: &[Subsystem]) -> Option<String> {
    subsystems.iter().find(|of| of.place == place).map(|of| of.nqn.to_string())
}

/// A namespace of a drive.
#[derive(Debug, Serialize)]
pub struct Namespace {
    /// The UUID that the card derives from the drive's identity.
    pub identity: String,
    pub drive: Option<u8>,
    pub drive_serial: Option<String>,
    pub drive_nsid: Option<u32>,
    pub size_bytes: u64,
    pub block_bytes: u32,
    pub state: &'static str,
    /// NQN of the subsystem that it is in.
    pub subsystem: Option<String>,
    pub declared: &'static str,
    pub nsid: Option<u32>,
    pub uuid: String,
    pub nguid: Option<String>,
}

impl Namespace {
    pub fn of(reading: &NamespaceReading, drives: &[Drive], subsystems: &[Subsystem]) -> Self {
        let drive = reading.drive.and_then(|(number, _)| drives.iter().find(|drive| drive.number == number));
        let (state, place) = match reading.state {
            NamespaceState::Missing => ("missing", None),
            NamespaceState::Detached => ("detached", None),
            NamespaceState::Attached(place) => ("attached", Some(place)),
            NamespaceState::Refused => ("refused", None),
        };
        let declared = match reading.declared {
            Declared::Nothing => "nothing",
            Declared::Detached => "detached",
            Declared::Attached(_) => "attached",
        };
        Self {
            identity: uuid(&reading.namespace),
            drive: reading.drive.map(|(number, _)| number),
            drive_serial: drive.map(|drive| drive.serial.clone()),
            drive_nsid: reading.drive.map(|(_, nsid)| nsid),
            size_bytes: reading.blocks.saturating_mul(u64::from(reading.block_bytes)),
            block_bytes: reading.block_bytes,
            state,
            subsystem: place.and_then(|place| nqn_of(place, subsystems)),
            declared,
            nsid: reading.nsid,
            uuid: uuid(&reading.uuid),
            nguid: Some(digits(&reading.nguid)).filter(|_| reading.nguid != [0; 16]),
        }
    }
}

/// A host's controller.
#[derive(Debug, Serialize)]
pub struct Host {
    pub host_nqn: String,
    pub host_id: String,
    pub address: Option<String>,
    pub port: u16,
    pub cntlid: u16,
    /// Data core that it lives on.
    pub data_core: u8,
    /// NQN of its subsystem; none for discovery.
    pub subsystem: Option<String>,
    pub is_ready: bool,
    pub io_queues: u16,
    pub granted_io_queues: u16,
    pub keep_alive_ms: u32,
    pub idle_ms: u64,
}

impl Host {
    pub fn of(controller: &mailbox::Controller, core: u8, subsystems: &[Subsystem]) -> Self {
        Self {
            host_nqn: printable(&controller.host_nqn),
            host_id: uuid(&controller.host_id),
            address: controller.address.map(|address| address.to_string()),
            port: controller.port,
            cntlid: controller.cntlid,
            data_core: core,
            subsystem: nqn_of(controller.subsystem, subsystems),
            is_ready: controller.is_ready,
            io_queues: controller.io_queues,
            granted_io_queues: controller.granted_io_queues,
            keep_alive_ms: controller.keep_alive_ms,
            idle_ms: controller.idle_ms,
        }
    }
}

/// A connection.
#[derive(Debug, Serialize)]
pub struct Queue {
    pub cntlid: Option<u16>,
    pub queue_id: u16,
    /// Data core that has the connection.
    pub data_core: u8,
    pub address: Option<String>,
    pub port: u16,
    pub entries: u16,
    pub outstanding: u16,
    pub at_drives: u16,
    pub pages: u32,
    pub header_digest: bool,
    pub data_digest: bool,
}

impl Queue {
    pub fn of(queue: &mailbox::Queue, core: u8) -> Self {
        Self {
            cntlid: queue.cntlid,
            queue_id: queue.queue_id,
            data_core: core,
            address: queue.address.map(|address| address.to_string()),
            port: queue.port,
            entries: queue.entries,
            outstanding: queue.outstanding,
            at_drives: queue.at_drives,
            pages: queue.pages,
            header_digest: queue.header_digest,
            data_digest: queue.data_digest,
        }
    }
}

/// `BB:DD.F`.
fn pci_address(requester: u16) -> String {
    format!("{:02x}:{:02x}.{}", requester >> 8, requester >> 3 & 0x1f, requester & 7)
}

pub fn uuid(bytes: &[u8; 16]) -> String {
    let text = digits(bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A host chooses its name: what a terminal would act on is not passed on.
pub fn printable(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_people_write_them() {
        let bytes = core::array::from_fn(|place| place as u8 * 0x11);
        assert_eq!(uuid(&bytes), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(pci_address(0xabfd), "ab:1f.5");
        assert_eq!(printable("nqn.\x1b[2Jx"), "nqn.\u{fffd}[2Jx");
    }

    #[test]
    fn a_drive_is_what_all_cores_have_of_it() {
        let counters = mailbox::DriveCounters { commands: 5, media_errors: 1, ..Default::default() };
        let away = mailbox::Drive { number: 3, outstanding: 2, quarantined: 0, counters, home: None };
        let home = mailbox::DriveHome {
            address: 0x18,
            serial: "S1".try_into().unwrap(),
            model: "M".try_into().unwrap(),
            firmware: "1".try_into().unwrap(),
            state: mailbox::DriveState::Ready,
            last_failure: heapless::String::new(),
            queues: 2,
            queue_depth: 64,
            health: None,
        };
        let mut drive = Drive::of(&away);
        assert_eq!((drive.state, drive.serial.as_str()), ("unknown", ""));
        drive.add(&mailbox::Drive { home: Some(home), ..away });
        assert_eq!(
            (drive.state, drive.serial.as_str(), drive.address.as_deref()),
            ("ready", "S1", Some("00:03.0"))
        );
        assert_eq!((drive.outstanding, drive.counters.commands, drive.errors()), (4, 10, 2));
    }
}
