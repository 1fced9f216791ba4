//! Which NVMe/TCP target, on the command line, and how it is found.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use nvmeof::pdu::Digests;
use nvmeof_host::{Host, Subsystem, Target, discover};

use crate::client::Failure;

/// NVMe/TCP's port (IANA: nvme).
const PORT: u16 = 4420;

/// Which target, and how to talk to it.
#[derive(Args, Clone, Debug)]
pub struct TargetArguments {
    /// The target: ADDRESS or ADDRESS:PORT, a name or a number [default port: 4420]
    #[arg(long, value_name = "ADDRESS")]
    target: String,
    /// NQN of the subsystem [default: the only one that the target's discovery tells of]
    #[arg(long)]
    nqn: Option<String>,
    /// NQN of this host, where the target does not let in every one; its HOSTID is the UUID at the NQN's end
    #[arg(long, value_name = "NQN")]
    host_nqn: Option<String>,
    /// Ask for digests of headers
    #[arg(long)]
    header_digest: bool,
    /// Ask for digests of data
    #[arg(long)]
    data_digest: bool,
}

impl TargetArguments {
    /// The target, of which discovery is asked where no NQN was given.
    pub fn find(&self, limit: Option<Duration>) -> Result<Target, Failure> {
        let mut target = self.without_nqn(limit)?;
        target.nqn = match &self.nqn {
            Some(nqn) => nqn.clone(),
            None => only(&discover(&target)?)?,
        };
        Ok(target)
    }

    /// The place alone, as discovery needs it.
    pub fn without_nqn(&self, limit: Option<Duration>) -> Result<Target, Failure> {
        let mut target = Target::new(address(&self.target)?, "");
        target.host = self.host_nqn.as_deref().map(Host::named).unwrap_or_default();
        target.digests = Digests { header: self.header_digest, data: self.data_digest };
        target.limit = limit.unwrap_or(target.limit);
        Ok(target)
    }
}

/// The NQN of the only NVM subsystem.
fn only(subsystems: &[Subsystem]) -> Result<String, Failure> {
    let mut nqns: Vec<&str> = subsystems
        .iter()
        .filter(|subsystem| subsystem.is_nvm())
        .map(|subsystem| subsystem.nqn.as_str())
        .collect();
    nqns.sort_unstable();
    nqns.dedup();
    match nqns.as_slice() {
        [nqn] => Ok((*nqn).to_owned()),
        [] => Err(Failure::Usage(
            "the target tells of no subsystem for this host: name one with --nqn, or another host with --host-nqn"
                .to_owned(),
        )),
        several => {
            Err(Failure::Usage(format!("the target has several subsystems, name one with --nqn: {}", several.join(", "))))
        }
    }
}

/// An address with its port, or without: a number of either IP version, or a name.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Ok(SocketAddr::new(address, PORT));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:{PORT}") };
    let found = with_port.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Failure::Usage(format!("--target {text}: the name has no address"))),
        Err(error) => Err(Failure::Usage(format!("--target {text}: {error}; say ADDRESS or ADDRESS:PORT"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsystem(nqn: &str, kind: u8) -> Subsystem {
        let (address, service) = (String::new(), String::new());
        Subsystem { nqn: nqn.to_owned(), kind, transport: 3, address, service, port_id: 1, security: 0 }
    }

    #[test]
    fn an_address_may_be_without_its_port() {
        let of = |text| address(text).unwrap().to_string();
        assert_eq!([of("10.0.0.1"), of("10.0.0.1:8009")], ["10.0.0.1:4420", "10.0.0.1:8009"]);
        assert_eq!([of("fe80::1"), of("[fe80::1]")], ["[fe80::1]:4420", "[fe80::1]:4420"]);
        assert_eq!(of("[fe80::1]:1"), "[fe80::1]:1");
        assert!(matches!(address("10.0.0.1:port"), Err(Failure::Usage(_))));
    }

    #[test]
    fn the_only_subsystem_is_taken_and_several_are_named() {
        let discovery = subsystem("nqn.2014-08.org.nvmexpress.discovery", 3);
        let [one, again, other] = ["nqn.a", "nqn.a", "nqn.b"].map(|nqn| subsystem(nqn, 2));
        assert_eq!(only(&[discovery.clone(), one.clone(), again]).unwrap(), "nqn.a");
        let several = only(&[one, other]).unwrap_err().to_string();
        assert!(several.contains("nqn.a, nqn.b") && several.contains("--nqn"), "{several}");
        assert!(only(&[discovery]).unwrap_err().to_string().contains("--host-nqn"));
    }
}
