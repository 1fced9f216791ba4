//! Which target, as which host, and how to talk to it.

use nvmeof::pdu::Digests;
use std::net::SocketAddr;
use std::time::Duration;

/// The NQN of a host that has not been given another.
const DEFAULT_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:70656e73-746f-636b-0000-6e6174697665";
/// How long a connection may take to come up where nothing else is said.
const DEFAULT_LIMIT: Duration = Duration::from_secs(20);

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its NQN.
    pub nqn: String,
    /// HOSTID.
    pub id: [u8; 16],
}

impl Default for Host {
    fn default() -> Self {
        Self::named(DEFAULT_NQN)
    }
}

impl Host {
    /// The host of that NQN. Its identifier is the UUID at the NQN's end, as with other hosts, or a hash of the NQN.
    #[must_use]
    pub fn named(nqn: &str) -> Self {
        let id = nqn.rsplit_once("uuid:").and_then(|(_, text)| uuid(text));
        Self { nqn: nqn.to_owned(), id: id.unwrap_or_else(|| hash(nqn).to_be_bytes()) }
    }

    /// Another host, one for each number; number 0 is this one.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        match number {
            0 => self.clone(),
            _ => Self {
                nqn: format!("{}-{number}", self.nqn),
                id: (u128::from_be_bytes(self.id) ^ u128::from(number)).to_be_bytes(),
            },
        }
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.split('-').collect();
    let plain = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(&digits, 16).ok().filter(|_| plain).map(u128::to_be_bytes)
}

/// FNV-1a of 128 bits.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// Which target, and how to talk to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// NQN of the subsystem.
    pub nqn: String,
    /// Who connects.
    pub host: Host,
    /// What ICReq asks for.
    pub digests: Digests,
    /// Sleep while there is nothing to do, instead of looking without end.
    pub sleep: bool,
    /// How long each connection may take to come up, and each command on the admin queue to end.
    pub limit: Duration,
}

impl Target {
    /// A subsystem, without digests; this host sleeps while it waits.
    #[must_use]
    pub fn new(address: SocketAddr, nqn: &str) -> Self {
        let (host, digests) = (Host::default(), Digests::default());
        Self { address, nqn: nqn.to_owned(), host, digests, sleep: true, limit: DEFAULT_LIMIT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_identifier_of_its_nqn() {
        let host = Host::named("nqn.2014-08.org.nvmexpress:uuid:00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(host.id, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes());
        let ids = ["nqn.2014-08.test:a", "nqn.2014-08.test:b", "nqn.2014-08.test:uuid:0011"].map(Host::named);
        assert!(ids[0].id != ids[1].id && ids[1].id != ids[2].id);
        // Of 128 bits in hexadecimal, and yet no UUID.
        assert_eq!(uuid("+0112233-4455-6677-8899-aabbccddeeff"), None);
    }

    #[test]
    fn numbered_hosts_differ_in_both_names() {
        let host = Host::default();
        assert_eq!(host.numbered(0), host);
        let (one, two) = (host.numbered(1), host.numbered(2));
        assert!(one.nqn != two.nqn && one.id != two.id && one.id != host.id);
    }
}
