//! The Discovery log page (Base 5.16.1.23): where the NVM subsystems that the host may connect to, and this discovery service
//! itself, can be reached.

use core::fmt::Write;
use core::net::IpAddr;

use heapless::String;
use nvme::fabrics::{DISCOVERY_NQN, DISCOVERY_TCP_PORT};
use nvme::log_page::{DiscoveryEntry, DiscoveryHeader, discovery_flag};
use zerocopy::{FromZeros, IntoBytes};

use crate::config::MIN_ADMIN_ENTRIES;
use crate::slot::Controller;
use crate::subsystem::{Listener, Subsystem};
use crate::window::Window;

/// What an entry is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject<'a> {
    /// One of this NQN.
    NvmSubsystem(&'a str),
    /// The discovery subsystem that answers.
    ThisDiscovery,
}

impl Subject<'_> {
    /// SUBTYPE.
    const fn code(self) -> u8 {
        match self {
            Self::NvmSubsystem(_) => 2,
            Self::ThisDiscovery => 3,
        }
    }
}

impl Subsystem {
    /// What the host of this controller may know of.
    fn subjects<'a>(&'a self, controller: &'a Controller) -> impl Iterator<Item = Subject<'a>> {
        let directory = &self.directory;
        let open = directory.iter().filter(|(place, _)| directory.lets_in(*place, &controller.host_nqn));
        open.map(|(_, subsystem)| Subject::NvmSubsystem(&subsystem.nqn))
            .chain(core::iter::once(Subject::ThisDiscovery))
    }

    fn discovery_records(&self, controller: &Controller) -> u64 {
        (self.listeners.len() * self.subjects(controller).count()) as u64
    }

    /// Size of the page.
    pub(super) fn discovery_bytes(&self, controller: &Controller) -> u64 {
        let records = self.discovery_records(controller);
        size_of::<DiscoveryHeader>() as u64 + records * size_of::<DiscoveryEntry>() as u64
    }

    pub(super) fn put_discovery(&self, controller: &Controller, window: &mut Window<'_>) {
        let mut header = DiscoveryHeader::new_zeroed();
        header.generation.set(self.discovery_generation);
        header.records.set(self.discovery_records(controller));
        window.put(0, header.as_bytes());
        let size = size_of::<DiscoveryEntry>() as u64;
        let mut at = size_of::<DiscoveryHeader>() as u64;
        for subject in self.subjects(controller) {
            for listener in &self.listeners {
                if window.covers(at, size) {
                    window.put(at, self.discovery_entry(subject, listener).as_bytes());
                }
                at += size;
            }
        }
    }

    fn discovery_entry(&self, subject: Subject<'_>, listener: &Listener) -> DiscoveryEntry {
        const TCP: u8 = 3;
        /// TREQ: SQ flow control can be disabled. Nothing is said of a secure channel: to "not required" nvme-cli's connect-all
        /// asks for TLS all the same, which the card has not.
        const REQUIREMENTS: u8 = 0b100;
        let mut entry = DiscoveryEntry::new_zeroed();
        entry.transport = TCP;
        entry.address_family = match listener.address {
            IpAddr::V4(_) => 1,
            IpAddr::V6(_) => 2,
        };
        entry.subsystem_type = subject.code();
        entry.requirements = REQUIREMENTS;
        entry.port_id.set(listener.port_id.0);
        entry.controller_id.set(nvme::fabrics::ANY_CONTROLLER);
        entry.admin_queue_entries.set(MIN_ADMIN_ENTRIES.max(self.config.max_queue_entries));
        // The longest IPv6 address has 39 characters, a port 5: both fit.
        let mut text = String::<64>::new();
        let _ = write!(text, "{}", listener.address);
        put_padded(&mut entry.transport_address, text.as_bytes());
        text.clear();
        let (nqn, port) = match subject {
            Subject::NvmSubsystem(nqn) => (nqn, listener.port),
            Subject::ThisDiscovery => {
                entry.flags.set(discovery_flag::DUPLICATE | discovery_flag::PERSISTENT);
                // It answers at the listener's port as well; hosts know it by this one.
                (DISCOVERY_NQN, DISCOVERY_TCP_PORT)
            }
        };
        let _ = write!(text, "{port}");
        put_padded(&mut entry.service_id, text.as_bytes());
        for (place, byte) in entry.subsystem_nqn.iter_mut().zip(nqn.bytes()) {
            *place = byte;
        }
        entry
    }
}

fn put_padded(field: &mut [u8], text: &[u8]) {
    let padded = text.iter().copied().chain(core::iter::repeat(b' '));
    for (place, byte) in field.iter_mut().zip(padded) {
        *place = byte;
    }
}
