//! Boot arguments (`/chosen/bootargs` of the device tree): what an operator sets without a tool.
//!
//! `ip=A.B.C.D/N` or `ip=dhcp` (default), `gw=`, `ip6=`, `gw6=`, `vlan=`; `mtu=`, `port=` (default 4420), `nqn=`, `serial=`,
//! `plan=`. The first five are of the first port; with `.2` behind the name (`ip.2=`) of the second.
//! A word that is wrong is reported and its default kept, so that a typing error never keeps a card away
//! from the network where it could be mended. Words that nobody here knows are someone else's (U-Boot and
//! `selftest=` among them) and passed over.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heapless::{String, Vec};
use nvme::fabrics::MAX_NQN_BYTES;

use crate::sizes::MAX_PORTS;

/// Default port of NVMe/TCP (IANA: nvme).
pub const NVME_TCP_PORT: u16 = 4420;
/// Port of the discovery service (IANA: nvme-disc).
pub const DISCOVERY_PORT: u16 = nvme::fabrics::DISCOVERY_TCP_PORT;
/// Smallest MTU that is taken: what IPv4 promises to deliver unfragmented.
pub const MIN_MTU: u16 = 576;
/// Largest MTU that is taken.
pub const MAX_MTU: u16 = 9000;
/// How many wrong words are reported.
pub const MAX_WARNINGS: usize = 8;
/// Longest serial number in bytes (Identify Controller, SN).
pub const MAX_SERIAL_BYTES: usize = 20;

/// How the port comes by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// Asks by DHCP, for as long as it takes.
    Dhcp,
    /// Set by the operator: address and prefix length in bits.
    Static(IpAddr, u8),
}

/// What the boot arguments say of one Ethernet port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortOptions {
    /// `ip=`.
    pub address: AddressSource,
    /// `gw=`: where packets for other networks go.
    pub gateway: Option<IpAddr>,
    /// `ip6=`: an IPv6 address besides, and its prefix length in bits.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// `gw6=`: where IPv6 packets for other networks go.
    pub gateway6: Option<Ipv6Addr>,
    /// `vlan=`: the VLAN that all frames of the port are tagged with.
    pub vlan: Option<u16>,
}

impl PortOptions {
    const DEFAULT: Self =
        Self { address: AddressSource::Dhcp, gateway: None, ipv6: None, gateway6: None, vlan: None };

    /// Takes the word `key`, where it is one of a port's. `None` where it is not.
    fn set(&mut self, key: &str, value: &str) -> Option<Result<(), &'static str>> {
        Some(match key {
            "ip" => address(value)
                .map(|address| self.address = address)
                .ok_or("ip=dhcp or ip=ADDRESS/PREFIX, as in ip=10.0.0.1/24"),
            "gw" => station(value)
                .map(|gateway| self.gateway = Some(gateway))
                .ok_or("gw=ADDRESS, as in gw=10.0.0.254"),
            "ip6" => match address(value) {
                Some(AddressSource::Static(IpAddr::V6(address), prefix)) => {
                    self.ipv6 = Some((address, prefix));
                    Ok(())
                }
                _ => Err("ip6=ADDRESS/PREFIX, as in ip6=fd00::1/64"),
            },
            "gw6" => match station(value) {
                Some(IpAddr::V6(gateway)) => {
                    self.gateway6 = Some(gateway);
                    Ok(())
                }
                _ => Err("gw6=ADDRESS, as in gw6=fd00::fe"),
            },
            "vlan" => {
                let vlan = value.parse().ok().filter(|vlan| (1..=4094).contains(vlan));
                vlan.map(|vlan| self.vlan = Some(vlan)).ok_or("vlan=NUMBER, 1 to 4094")
            }
            _ => return None,
        })
    }
}

/// What the boot arguments say, with defaults for what they do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Of each Ethernet port.
    pub ports: [PortOptions; MAX_PORTS],
    /// `mtu=` in bytes; `None` leaves it to the device.
    pub mtu: Option<u16>,
    /// `port=`: where NVMe/TCP listens.
    pub port: u16,
    /// `nqn=`: the name of the subsystem; `None` derives one from the serial number.
    pub nqn: Option<String<MAX_NQN_BYTES>>,
    /// `serial=`: the card's serial number; `None` derives one from the first port's MAC address.
    pub serial: Option<String<MAX_SERIAL_BYTES>>,
    /// `plan=`: the core plan of `board.toml` to use.
    pub plan: Option<String<32>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: [PortOptions::DEFAULT; MAX_PORTS],
            mtu: None,
            port: NVME_TCP_PORT,
            nqn: None,
            serial: None,
            plan: None,
        }
    }
}

/// A word of the boot arguments that could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warning<'a> {
    /// The word as it stood there.
    pub word: &'a str,
    /// What was expected.
    pub expected: &'static str,
}

impl Options {
    /// Reads the boot arguments, words parted by blanks; of a word said twice the last counts.
    #[must_use]
    pub fn parse(arguments: &str) -> (Self, Vec<Warning<'_>, MAX_WARNINGS>) {
        let mut options = Self::default();
        let mut warnings = Vec::new();
        for word in arguments.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else { continue };
            if let Err(expected) = options.set(key, value) {
                let _ = warnings.push(Warning { word, expected });
            }
        }
        (options, warnings)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let (of_port, number) = match key.split_once('.') {
            Some((of_port, number)) => (of_port, number.parse().unwrap_or(0)),
            None => (key, 1_usize),
        };
        let port = number.checked_sub(1).and_then(|index| self.ports.get_mut(index));
        if let Some(result) = port.and_then(|port| port.set(of_port, value)) {
            return result;
        }
        match key {
            "mtu" => {
                let mtu = value.parse().ok().filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu));
                self.mtu = Some(mtu.ok_or("mtu=BYTES, 576 to 9000")?);
            }
            "port" => {
                let port = value.parse().ok().filter(|port| !matches!(*port, 0 | DISCOVERY_PORT));
                self.port = port.ok_or("port=NUMBER, 1 to 65535 but not 8009, which is discovery's")?;
            }
            "nqn" => {
                let nqn = Some(value).filter(|nqn| nqn.starts_with("nqn.") && nqn.len() > "nqn.".len());
                let nqn = nqn.and_then(|nqn| String::try_from(nqn).ok());
                self.nqn = Some(nqn.ok_or("nqn=NAME, beginning with nqn., at most 223 bytes")?);
            }
            "serial" => {
                let serial = Some(value).filter(|serial| !serial.is_empty() && serial.is_ascii());
                let serial = serial.and_then(|serial| String::try_from(serial).ok());
                self.serial = Some(serial.ok_or("serial=TEXT, 1 to 20 ASCII characters")?);
            }
            "plan" => {
                self.plan =
                    Some(String::try_from(value).map_err(|_| "plan=NAME of a core plan in board.toml")?)
            }
            _ => {}
        }
        Ok(())
    }
}

fn address(value: &str) -> Option<AddressSource> {
    if value == "dhcp" {
        return Some(AddressSource::Dhcp);
    }
    let (address, prefix) = value.split_once('/')?;
    let address = station(address)?;
    let bits: u8 = prefix.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (1..=most).contains(&bits).then_some(AddressSource::Static(address, bits))
}

/// An address that a single station can have.
#[inline(never)] // Its panic is there once.
fn station(value: &str) -> Option<IpAddr> {
    let address: IpAddr = value.parse().ok()?;
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    (!address.is_unspecified() && !address.is_multicast() && !broadcast).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_word() {
        let (options, warnings) = Options::parse(
            "console=ttyAMA0 ip=10.0.0.1/24 gw=10.0.0.254 mtu=9000 port=4421 nqn=nqn.2014-08.org.example:a serial=S1 plan=solo quiet",
        );
        assert!(warnings.is_empty());
        let [first, second] = options.ports;
        assert_eq!(first.address, AddressSource::Static("10.0.0.1".parse().unwrap(), 24));
        assert_eq!(first.gateway, Some("10.0.0.254".parse().unwrap()));
        assert_eq!((first.ipv6, first.gateway6, second), (None, None, PortOptions::DEFAULT));
        assert_eq!((options.mtu, options.port), (Some(9000), 4421));
        assert_eq!(options.nqn.as_deref(), Some("nqn.2014-08.org.example:a"));
        assert_eq!((options.serial.as_deref(), options.plan.as_deref()), (Some("S1"), Some("solo")));
    }

    #[test]
    fn a_wrong_word_is_reported_and_its_default_stays() {
        for word in [
            "ip=10.0.0.1",
            "ip=10.0.0.1/33",
            "ip=0.0.0.0/8",
            "ip=224.0.0.1/4",
            "ip=fe80::1/129",
            "ip=",
            "gw=x",
            "gw=224.0.0.1",
            "gw.2=255.255.255.255",
            "ip=255.255.255.255/24",
            "ip6=10.0.0.1/24",
            "ip6.2=fd00::1",
            "gw6=10.0.0.1",
            "vlan=0",
            "vlan.2=4095",
            "mtu=9001",
            "mtu=575",
            "mtu=-1",
            "port=0",
            "port=8009",
            "port=70000",
            "nqn=",
            "nqn=nqn.",
            "nqn=iqn.x",
            "serial=",
            "serial=123456789012345678901",
            "serial=\u{e9}",
        ] {
            let (options, warnings) = Options::parse(word);
            assert_eq!(options, Options::default(), "{word}");
            assert_eq!(warnings.len(), 1, "{word}");
            assert_eq!(warnings[0].word, word);
        }
        let many = "mtu=1 ".repeat(20);
        assert_eq!(Options::parse(&many).1.len(), MAX_WARNINGS);
    }

    #[test]
    fn each_port_has_words_of_its_own() {
        let (options, warnings) = Options::parse(
            "ip6=fd00::1/64 gw6=fd00::fe ip.1=10.0.0.1/24 ip.2=10.0.1.1/24 gw.2=10.0.1.254 ip6.2=fd01::1/48 vlan.2=100 ip.3=x ip.0=x ip.x=y mtu.2=1",
        );
        assert!(warnings.is_empty(), "ports that are not there are someone else's words");
        let [first, second] = options.ports;
        assert_eq!(first.ipv6, Some(("fd00::1".parse().unwrap(), 64)));
        assert_eq!(first.gateway6, Some("fd00::fe".parse().unwrap()));
        assert_eq!(first.address, AddressSource::Static("10.0.0.1".parse().unwrap(), 24));
        assert_eq!(second.address, AddressSource::Static("10.0.1.1".parse().unwrap(), 24));
        assert_eq!(second.gateway, Some("10.0.1.254".parse().unwrap()));
        assert_eq!((second.ipv6, second.vlan), (Some(("fd01::1".parse().unwrap(), 48)), Some(100)));
    }

    #[test]
    fn the_last_of_two_counts() {
        let (options, _) = Options::parse("ip=dhcp ip=fd00::1/64 ip=dhcp port=1 port=2");
        assert_eq!((options.ports[0].address, options.port), (AddressSource::Dhcp, 2));
    }
}
