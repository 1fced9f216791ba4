//! What a target offers: its Discovery log page (Base 5.16.1.23).

use crate::association::Association;
use crate::error::Error;
use crate::target::Target;
use nvme::fabrics::DISCOVERY_NQN;
use nvme::log_page::{DiscoveryEntry, DiscoveryHeader, id};
use nvmeof::initiator::commands;
use zerocopy::{FromZeros, IntoBytes};

/// How often the page may change while it is read.
const TRIES: u32 = 8;
/// More entries than a target has.
const MOST_ENTRIES: u64 = 4096;

/// An entry of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subsystem {
    /// SUBNQN.
    pub nqn: String,
    /// SUBTYPE: 1 referral, 2 NVM subsystem, 3 the current discovery subsystem.
    pub kind: u8,
    /// TRTYPE: 3 TCP.
    pub transport: u8,
    /// TRADDR.
    pub address: String,
    /// TRSVCID: the port of TCP.
    pub service: String,
    /// PORTID.
    pub port_id: u16,
    /// SECTYPE: 2 where TLS 1.3 is wanted.
    pub security: u8,
}

impl Subsystem {
    /// Whether it has namespaces.
    #[must_use]
    pub const fn is_nvm(&self) -> bool {
        self.kind == 2
    }

    fn read(entry: &DiscoveryEntry) -> Self {
        Self {
            nqn: text(&entry.subsystem_nqn),
            kind: entry.subsystem_type,
            transport: entry.transport,
            address: text(&entry.transport_address),
            service: text(&entry.service_id),
            port_id: entry.port_id.get(),
            security: entry.transport_specific[0],
        }
    }
}

/// Text that ends at its NUL or before its blanks.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

/// What the discovery subsystem at the target's address tells this host; the target's NQN does not matter.
///
/// # Errors
/// Also where the page changes all the time.
pub fn discover(target: &Target) -> Result<Vec<Subsystem>, Error> {
    let target = Target { nqn: DISCOVERY_NQN.to_owned(), ..target.clone() };
    let mut association = Association::open(&target, 0)?;
    for _ in 0..TRIES {
        let before = header(&mut association)?;
        let records = before.records.get();
        if before.format.get() != 0 || records > MOST_ENTRIES {
            return Err(Error::Malformed("the discovery log page"));
        }
        let mut entries = vec![DiscoveryEntry::new_zeroed(); records as usize];
        for (number, entry) in entries.iter_mut().enumerate() {
            let offset = (size_of::<DiscoveryHeader>() + number * size_of::<DiscoveryEntry>()) as u64;
            read(&mut association, offset, entry.as_mut_bytes())?;
        }
        if header(&mut association)?.generation == before.generation {
            return Ok(entries.iter().map(Subsystem::read).collect());
        }
    }
    Err(Error::Malformed("the discovery log page, which changes all the time,"))
}

fn header(association: &mut Association) -> Result<DiscoveryHeader, Error> {
    let mut header = DiscoveryHeader::new_zeroed();
    read(association, 0, header.as_mut_bytes())?;
    Ok(header)
}

fn read(association: &mut Association, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
    let command = commands::get_log_page(id::DISCOVERY, 0, offset, bytes.len() as u32);
    association.admin("the discovery log page", &command, bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_their_nul_or_before_their_blanks() {
        let mut entry = DiscoveryEntry::new_zeroed();
        entry.subsystem_nqn[..5].copy_from_slice(b"nqn.x");
        entry.service_id.fill(b' ');
        entry.service_id[..4].copy_from_slice(b"4420");
        entry.subsystem_type = 2;
        let subsystem = Subsystem::read(&entry);
        assert_eq!((subsystem.nqn.as_str(), subsystem.service.as_str()), ("nqn.x", "4420"));
        assert!(subsystem.is_nvm());
    }
}
