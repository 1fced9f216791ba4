//! The command line: what it takes, and what is wrong with it in one sentence.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use app::options::{AddressSource, Options};
use app::plan::{Plan, choose};
use app::sizes::{MAX_DRIVES, MAX_PORTS};
use clap::{ArgGroup, Parser};
use hal_hosted::WireSide;

/// Least memory with which the card starts.
const MIN_MEMORY_BYTES: u64 = 32 << 20;
/// Smallest drive.
const MIN_DRIVE_BYTES: u64 = 4096;
/// The card's address in a namespace of its own.
const OWN_NETWORK: &str = "10.0.0.1/24";

const EXAMPLES: &str = "\
Examples:
  A drive in a file, a host on this machine, without any rights (the log says how to enter the namespace):
    truncate -s 1G drive0
    hosted --drive drive0 --namespace

  Two drives, one of them in memory with 4096-byte blocks, over a tap of one's own:
    sudo ip tuntap add card0 mode tap user $USER
    sudo ip address add 10.0.0.2/24 dev card0 && sudo ip link set card0 up
    hosted --drive drive0 --drive ram:4G,block=4096 --tap card0 --ip 10.0.0.1/24

  For a QEMU machine with -netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/wire:
    hosted --drive drive0 --wire /tmp/wire --ip 10.0.0.1/24

PENSTOCK_LOG says what is logged: off, error, warn, info (default), debug, trace.";

/// The Penstock card as an ordinary process: an NVMe/TCP target over a TAP interface or a unix socket.
#[derive(Parser, Debug)]
#[command(name = "hosted", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(group(ArgGroup::new("ethernet").args(["taps", "wires", "namespace"]).multiple(true).required(true)))]
pub struct Arguments {
    /// A drive: FILE or ram:SIZE, then ,block=512|4096 and ,serial=TEXT where wanted; up to 16 times
    #[arg(long = "drive", value_name = "FILE|ram:SIZE", value_parser = DriveSpec::parse)]
    pub drives: Vec<DriveSpec>,
    /// The port is the other end of this TAP interface; without --ip the card waits for a DHCP server there.
    /// Twice for two ports: --ip and --gateway are of the first, "ip.2=" in --append of the second
    #[arg(long = "tap", value_name = "NAME")]
    pub taps: Vec<String>,
    /// The port is a unix socket, for QEMU's -netdev stream: we listen at PATH, or connect:PATH; twice for two ports
    #[arg(long = "wire", value_name = "PATH", value_parser = wire, conflicts_with_all = ["taps", "namespace"])]
    pub wires: Vec<WireSide>,
    /// Make a user and network namespace with the TAP interface in it; takes no rights
    #[arg(long, visible_alias = "unshare")]
    pub namespace: bool,
    /// The host's address of the interface in that namespace, within the prefix of --ip [default: a neighbour of the card's]
    #[arg(long, value_name = "ADDRESS", requires = "namespace")]
    pub host_ip: Option<Ipv4Addr>,
    /// ADDRESS/PREFIX, or dhcp, which waits until a server answers [default: dhcp, and 10.0.0.1/24 with --namespace]
    #[arg(long)]
    pub ip: Option<String>,
    /// Where packets for other networks go
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<String>,
    /// Largest IP packet in bytes [default: the interface's; 1500 on a wire]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<String>,
    /// Where NVMe/TCP listens [default: 4420]
    #[arg(long, value_name = "NUMBER")]
    pub port: Option<String>,
    /// The subsystem's name [default: made from the serial number]
    #[arg(long, value_name = "NAME")]
    pub nqn: Option<String>,
    /// The card's serial number [default: made from the station address]
    #[arg(long, value_name = "TEXT")]
    pub serial: Option<String>,
    /// Boot arguments as the card takes them, such as "ip=10.0.0.1/24"; they count over the options
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    pub append: String,
    /// The first port's station address; the second's is one more
    #[arg(long, value_name = "MAC", default_value = "02:ca:4d:00:00:01", value_parser = station_address)]
    pub mac: [u8; 6],
    /// A core plan of board.toml [default: the one for as many CPUs as there are]
    #[arg(long, value_name = "NAME", value_parser = plan)]
    pub plan: Option<&'static Plan>,
    /// The CPUs of the cores in their order, such as 2,3; none leaves the choice to the system [default: the first ones]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// Serve the mailbox, which dpuctl talks to, at this unix socket
    #[arg(long, value_name = "PATH")]
    pub mailbox: Option<PathBuf>,
    /// Keep the configuration in this file, which is made where there is none; without it what is set lasts until the end
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The card's memory, such as 256M
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory)]
    pub memory: u64,
}

/// Where a drive's blocks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file or block device.
    File(PathBuf),
    /// In memory, so many bytes.
    Ram(u64),
}

/// A drive as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveSpec {
    /// Where its blocks are.
    pub place: Place,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Its serial number, where it is named.
    pub serial: Option<String>,
}

impl DriveSpec {
    /// Reads `FILE[,block=N][,serial=TEXT]` or `ram:SIZE[...]`. A file's name may have commas of its own.
    fn parse(text: &str) -> Result<Self, String> {
        let (mut block_bytes, mut serial) = (512, None);
        let mut rest = text;
        while let Some((before, word)) = rest.rsplit_once(',') {
            if let Some(block) = word.strip_prefix("block=") {
                block_bytes = match block {
                    "512" => 512,
                    "4096" => 4096,
                    _ => return Err(format!("block={block}: blocks have 512 or 4096 bytes")),
                };
            } else if let Some(name) = word.strip_prefix("serial=") {
                let fine = !name.is_empty() && name.len() <= 20 && name.is_ascii();
                serial = Some(fine.then(|| name.to_owned()).ok_or("serial=: 1 to 20 ASCII characters")?);
            } else {
                break;
            }
            rest = before;
        }
        let place = match rest.strip_prefix("ram:") {
            Some(bytes) => {
                let bytes = size(bytes)?;
                if bytes < MIN_DRIVE_BYTES || bytes % u64::from(block_bytes) != 0 {
                    return Err(format!(
                        "{bytes} bytes: at least {MIN_DRIVE_BYTES}, and a multiple of the block size, {block_bytes}"
                    ));
                }
                Place::Ram(bytes)
            }
            None if rest.is_empty() => return Err("a file's name, or ram:SIZE".to_owned()),
            None => Place::File(rest.into()),
        };
        Ok(Self { place, block_bytes, serial })
    }
}

/// `--cpus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

fn cpus(text: &str) -> Result<CpuList, String> {
    if text == "none" {
        return Ok(CpuList(Vec::new()));
    }
    let list = text.split(',').map(|word| word.trim().parse().map_err(|_| "numbers with commas, or none"));
    Ok(CpuList(list.collect::<Result<_, _>>()?))
}

fn wire(text: &str) -> Result<WireSide, String> {
    let side = match text.strip_prefix("connect:") {
        Some(path) => WireSide::Connect(path.into()),
        None => WireSide::Listen(text.into()),
    };
    let (WireSide::Listen(path) | WireSide::Connect(path)) = &side;
    if path.as_os_str().is_empty() { Err("a path, or connect:PATH".to_owned()) } else { Ok(side) }
}

fn station_address(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|word| u8::from_str_radix(word, 16)).collect();
    let mac: Option<[u8; 6]> = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    mac.filter(|mac| *mac != [0; 6] && mac[0] & 1 == 0)
        .ok_or_else(|| "six bytes such as 02:ca:4d:00:00:01, of a single station".to_owned())
}

fn plan(name: &str) -> Result<&'static Plan, String> {
    let names: Vec<_> = crate::board::PLANS.iter().map(|plan| plan.name).collect();
    let found = crate::board::PLANS.iter().find(|plan| plan.name == name);
    found.ok_or_else(|| format!("there is no such core plan; there are: {}", names.join(", ")))
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes >= MIN_MEMORY_BYTES { Ok(bytes) } else { Err("the card needs at least 32M".to_owned()) }
}

/// Bytes of a size such as `512`, `64M` or `1G`.
fn size(text: &str) -> Result<u64, String> {
    let capitals = text.to_ascii_uppercase();
    let (digits, shift) = match capitals.char_indices().next_back() {
        Some((at, 'K')) => (&capitals[..at], 10),
        Some((at, 'M')) => (&capitals[..at], 20),
        Some((at, 'G')) => (&capitals[..at], 30),
        Some((at, 'T')) => (&capitals[..at], 40),
        _ => (&capitals[..], 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is not a size such as 64M or 1G"))
}

impl Arguments {
    /// The words among the arguments that are the firmware's own boot arguments.
    ///
    /// # Errors
    /// A sentence about the first that is wrong.
    pub fn options(&self) -> Result<Options, String> {
        let ports = self.taps.len().max(self.wires.len());
        if ports > MAX_PORTS {
            return Err(format!("--tap, --wire: {ports} ports, and the card has {MAX_PORTS}"));
        }
        if self.namespace && self.taps.len() > 1 {
            return Err("--namespace: it has one interface, and --tap says its name".to_owned());
        }
        if self.drives.len() > MAX_DRIVES {
            return Err(format!(
                "--drive: {} drives, and the card has {MAX_DRIVES} places",
                self.drives.len()
            ));
        }
        let bug = self.append.split_ascii_whitespace().find(|word| {
            let name = word.split_once('=').map_or(*word, |(name, _)| name);
            name == "selftest"
        });
        if let Some(word) = bug {
            return Err(format!("{word}: the hosted card has no self-tests and no bugs on purpose"));
        }
        let own = self.namespace.then(|| OWN_NETWORK.to_owned());
        let plan = self.plan.map(|plan| plan.name.to_owned());
        let ip = self.ip.clone().or(own);
        let words = [
            ("ip", &ip),
            ("gw", &self.gateway),
            ("mtu", &self.mtu),
            ("port", &self.port),
            ("nqn", &self.nqn),
            ("serial", &self.serial),
            ("plan", &plan),
        ];
        let mut text = String::new();
        for (name, value) in words {
            let Some(value) = value else { continue };
            if value.contains(|c: char| c.is_ascii_whitespace()) {
                return Err(format!("{name} \"{value}\": no blanks"));
            }
            text.push_str(&format!("{name}={value} "));
        }
        text.push_str(&self.append);
        let (options, warnings) = Options::parse(&text);
        match warnings.first() {
            Some(warning) => Err(format!("{}: expected {}", warning.word, warning.expected)),
            None => Ok(options),
        }
    }

    /// The core plan: the one that is named, else the one for so many CPUs.
    ///
    /// # Errors
    /// A sentence where there is none.
    pub fn core_plan(options: &Options, cpus: usize) -> Result<&'static Plan, String> {
        match options.plan.as_deref() {
            Some(name) => plan(name).map_err(|why| format!("plan={name}: {why}")),
            None => choose(crate::board::PLANS, None, cpus)
                .ok_or_else(|| format!("there is no core plan for {cpus} CPUs")),
        }
    }

    /// The host's address and prefix in a namespace of its own.
    ///
    /// # Errors
    /// A sentence where the card has no address of which there is a neighbour.
    pub fn host_address(&self, options: &Options) -> Result<(Ipv4Addr, u8), String> {
        let AddressSource::Static(IpAddr::V4(card), prefix) = options.ports[0].address else {
            return Err(
                "--namespace: there is nobody else in it: say --ip ADDRESS/PREFIX, an IPv4 address".into()
            );
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let inside = |address: u32| address & mask == u32::from(card) & mask;
        // Networks of two addresses have no address of their own and none for all (RFC 3021).
        let own = |address: u32| prefix >= 31 || address & !mask != 0 && address & !mask != !mask;
        let usable = |address: &u32| inside(*address) && own(*address);
        if let Some(host) = self.host_ip {
            if host == card {
                return Err(format!("--host-ip {host}: that is the card's own address"));
            }
            if !usable(&u32::from(host)) {
                return Err(format!(
                    "--host-ip {host}: no host of {card}/{prefix}, the card's network, has it"
                ));
            }
            return Ok((host, prefix));
        }
        let neighbours = [u32::from(card).wrapping_add(1), u32::from(card).wrapping_sub(1)];
        let host = neighbours.into_iter().find(usable).map(|host| (Ipv4Addr::from(host), prefix));
        host.ok_or_else(|| format!("--ip: {card}/{prefix} leaves no address for the host"))
    }

    /// The station address of the port of that number, from 0 on.
    pub fn mac_of(&self, port: usize) -> [u8; 6] {
        let [a, b, c, d, e, f] = self.mac;
        [a, b, c, d, e, f.wrapping_add(port as u8)]
    }

    /// Whether the card waits for DHCP although nobody asked for that.
    pub fn needs_dhcp_unasked(&self, options: &Options) -> bool {
        let asked = self.ip.is_some() || self.append.split_ascii_whitespace().any(|w| w.starts_with("ip="));
        let port = &options.ports[0];
        !asked && port.address == AddressSource::Dhcp && port.ipv6.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_is_a_file_or_memory_with_properties() {
        let parse = |text| DriveSpec::parse(text);
        let plain = |place, block_bytes| DriveSpec { place, block_bytes, serial: None };
        assert_eq!(parse("ram:64M"), Ok(plain(Place::Ram(64 << 20), 512)));
        assert_eq!(parse("a,b=c.raw,block=4096"), Ok(plain(Place::File("a,b=c.raw".into()), 4096)));
        let named = parse("d,serial=S1,block=512").unwrap();
        assert_eq!(named.serial.as_deref(), Some("S1"));
        for wrong in ["", ",block=512", "d,block=520", "d,serial=", "ram:", "ram:0", "ram:6000,block=4096"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_addresses_and_lists_are_read() {
        assert_eq!((size("1g"), size("512")), (Ok(1 << 30), Ok(512)));
        assert!(size("99999999999T").is_err() && size("M").is_err() && size("é").is_err());
        assert_eq!(station_address("02:ca:4d:00:00:ff"), Ok([2, 0xca, 0x4d, 0, 0, 0xff]));
        assert!(station_address("01:00:00:00:00:00").is_err() && station_address("02:00").is_err());
        assert_eq!(cpus("2,3"), Ok(CpuList(vec![2, 3])));
        assert_eq!(cpus("none"), Ok(CpuList(vec![])));
        assert!(cpus("x").is_err());
        assert!(memory("1M").unwrap_err().contains("32M"));
    }

    #[test]
    fn boot_arguments_choose_the_plan_and_ask_for_no_bugs() {
        let chosen = |words: &[&str], cpus| {
            let all = ["hosted", "--wire", "w"].iter().chain(words);
            let options = Arguments::try_parse_from(all).unwrap().options()?;
            Arguments::core_plan(&options, cpus).map(|plan| plan.name)
        };
        assert_eq!((chosen(&[], 1), chosen(&[], 2)), (Ok("single"), Ok("pair")));
        assert_eq!(chosen(&["--append", "plan=single"], 2), Ok("single"));
        assert_eq!(chosen(&["--plan", "pair"], 1), Ok("pair"));
        assert_eq!(chosen(&["--plan", "pair", "--append", "plan=single"], 2), Ok("single"));
        assert!(chosen(&["--append", "plan=quad"], 2).unwrap_err().contains("there are: single, pair"));
        for word in ["selftest", "selftest=panic@3"] {
            assert!(chosen(&["--append", word], 2).unwrap_err().contains("no bugs on purpose"), "{word}");
        }
    }

    #[test]
    fn the_host_is_the_cards_neighbour() {
        let host = |words: &[&str]| {
            let all = ["hosted", "--namespace"].iter().chain(words);
            let arguments = Arguments::try_parse_from(all).unwrap();
            arguments.host_address(&arguments.options().unwrap()).map(|(host, _)| host.to_string())
        };
        assert_eq!(host(&[]).unwrap(), "10.0.0.2");
        assert_eq!(host(&["--ip", "10.0.0.254/24"]).unwrap(), "10.0.0.253");
        assert_eq!(host(&["--ip", "10.0.0.1/24", "--host-ip", "10.0.0.9"]).unwrap(), "10.0.0.9");
        assert_eq!(host(&["--ip", "10.0.0.2/31"]).unwrap(), "10.0.0.3");
        assert_eq!(host(&["--append", "ip=10.1.0.1/16", "--host-ip", "10.1.9.9"]).unwrap(), "10.1.9.9");
        for elsewhere in ["10.0.1.2", "10.0.0.0", "10.0.0.255"] {
            let refused = host(&["--host-ip", elsewhere]).unwrap_err();
            assert!(refused.contains("no host of 10.0.0.1/24"), "{refused}");
        }
        assert!(host(&["--host-ip", "10.0.0.1"]).unwrap_err().contains("the card's own address"));
        assert!(host(&["--ip", "10.0.0.1/32"]).unwrap_err().contains("no address for the host"));
        assert!(host(&["--ip", "dhcp"]).unwrap_err().contains("--ip ADDRESS/PREFIX"));
        assert!(host(&["--ip", "fd00::1/64"]).is_err());
    }

    #[test]
    fn dhcp_is_warned_of_where_nobody_asked_for_it() {
        let warned = |words: &[&str]| {
            let all = ["hosted"].iter().chain(words);
            let arguments = Arguments::try_parse_from(all).unwrap();
            arguments.needs_dhcp_unasked(&arguments.options().unwrap())
        };
        assert!(warned(&["--tap", "card0"]) && warned(&["--wire", "w"]));
        assert!(!warned(&["--tap", "card0", "--ip", "dhcp"]) && !warned(&["--namespace"]));
        assert!(!warned(&["--tap", "card0", "--append", "ip=10.0.0.1/24"]));
    }
}
