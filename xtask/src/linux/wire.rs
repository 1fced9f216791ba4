//! What joins the card's and the host's machine.

use super::relay::{Relay, Side};
use crate::command::output;
use crate::paths::{self, TemporaryFolder};
use crate::qemu;
use anyhow::{Context, Result, anyhow};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// An Ethernet wire between two virtual machines.
pub enum Wire {
    /// A socket between two QEMUs: no offloads, and the machine's own network stays as it is.
    Stream(TemporaryFolder),
    /// The same through this process, which may disturb it.
    Relayed(Arc<Relay>),
    /// QEMU's own network, with this port of 127.0.0.1 forwarded to the card's 4420; a wire to no second machine.
    Forwarded(u16),
    /// Two TAP interfaces and a bridge in a network namespace of their own: all offloads.
    Taps(NetworkNamespace),
}

impl Wire {
    /// A wire between two QEMUs.
    pub fn stream() -> Result<Self> {
        TemporaryFolder::for_sockets().map(Self::Stream)
    }

    /// The card alone, reached from this machine.
    pub fn forwarded(port: u16) -> Self {
        Self::Forwarded(port)
    }

    /// A wire through the kernel. The error is the reason why this machine does not give one.
    pub fn taps(mtu: u32) -> Result<Self> {
        Self::taps_with_queues(mtu, 1)
    }

    /// As [`Wire::taps`]; the card's interface has so many queues, among which its device spreads by the card's own hash.
    pub fn taps_with_queues(mtu: u32, queues: u32) -> Result<Self> {
        NetworkNamespace::new(mtu, queues).map(Self::Taps)
    }

    /// Value of the card's `-netdev`, without an id.
    pub fn card_netdev(&self) -> String {
        let queues = self.card_queues();
        let queues = if queues > 1 { format!(",queues={queues}") } else { String::new() };
        self.netdev("server=on", "card", Side::Card) + &queues
    }

    /// More properties of the card's device.
    pub fn card_properties(&self) -> String {
        if self.card_queues() > 1 { ",mq=on,rss=on".to_owned() } else { String::new() }
    }

    fn card_queues(&self) -> u32 {
        match self {
            Self::Taps(namespace) => namespace.queues,
            _ => 1,
        }
    }

    /// Value of the host's `-netdev`, without an id.
    pub fn host_netdev(&self) -> String {
        self.netdev("server=off", "host", Side::Host)
    }

    fn netdev(&self, role: &str, interface: &str, side: Side) -> String {
        match self {
            Self::Relayed(relay) => relay.netdev(side),
            Self::Stream(folder) => {
                format!("stream,{role},addr.type=unix,addr.path={}", qemu::escaped(&folder.join("wire")))
            }
            Self::Forwarded(port) => {
                format!("user,net=10.0.0.0/24,host=10.0.0.2,hostfwd=tcp:127.0.0.1:{port}-10.0.0.1:4420")
            }
            Self::Taps(_) => format!("tap,ifname={interface},script=no,downscript=no,vhost=off"),
        }
    }

    /// The command, run where the wire is.
    pub fn enclose(&self, command: Command) -> Command {
        let Self::Taps(namespace) = self else { return command };
        let mut enclosed = Command::new("ip");
        enclosed.args(["netns", "exec", &namespace.name]).arg(command.get_program()).args(command.get_args());
        enclosed
    }
}

/// A network namespace with the interfaces `card` and `host` on one bridge. Ends with the value.
pub struct NetworkNamespace {
    name: String,
    /// Of the interface `card`.
    queues: u32,
}

impl NetworkNamespace {
    fn new(mtu: u32, queues: u32) -> Result<Self> {
        if !Path::new("/dev/net/tun").exists() {
            return Err(anyhow!("this machine has no /dev/net/tun"));
        }
        if paths::find_program("ip").is_none() {
            return Err(anyhow!("this machine has no `ip` (package iproute2)"));
        }
        remove_left_overs();
        let namespace = Self { name: paths::own_name("penstock"), queues };
        let made = output(Command::new("ip").args(["netns", "add", &namespace.name]), 10);
        made.context(
            "a network namespace cannot be made: that takes root, with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        )?;
        namespace.ip("link add name bridge type bridge")?;
        for interface in ["card", "host"] {
            let several = if interface == "card" && queues > 1 { " multi_queue" } else { "" };
            namespace.ip(&format!("tuntap add dev {interface} mode tap{several}"))?;
            namespace.ip(&format!("link set dev {interface} mtu {mtu} master bridge up"))?;
        }
        namespace.ip("link set dev bridge up")?;
        Ok(namespace)
    }

    fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split(' '));
        output(&mut command, 10).with_context(|| format!("`ip {arguments}` in a network namespace"))
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // What cannot be removed is left to the next run.
        let _ = output(Command::new("ip").args(["netns", "del", &self.name]), 10);
    }
}

/// Removes the namespaces of runs that were killed.
fn remove_left_overs() {
    let list = output(Command::new("ip").args(["netns", "list"]), 10).unwrap_or_default();
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        if name.starts_with("penstock-") && paths::is_left_over(name) {
            let _ = output(Command::new("ip").args(["netns", "del", name]), 10);
        }
    }
}
