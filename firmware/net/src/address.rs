//! The port's own addresses and the state of its link.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use hal_api::Instant;
use smoltcp::iface::{Interface, Route, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{IpAddress, IpCidr};

use crate::config::{Addressing, Config};

/// One address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAddress {
    /// The port's own address.
    pub address: IpAddr,
    /// Bits of the address that name the network.
    pub prefix: u8,
    /// Where packets for other networks go.
    pub gateway: Option<IpAddr>,
}

/// The addresses of a port, as its first data core knows them and the others are told. Its link-local one is not among
/// them: it follows from the station address (RFC 4291, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortAddresses {
    /// What hosts are told of; `None` while DHCP has not answered.
    pub main: Option<PortAddress>,
    /// An IPv6 address besides.
    pub ipv6: Option<PortAddress>,
}

impl PortAddresses {
    /// Both that there are, the main one first.
    pub fn iter(&self) -> impl Iterator<Item = PortAddress> + use<> {
        [self.main, self.ipv6].into_iter().flatten()
    }
}

/// Without an answer for so long, the log says so.
const DHCP_PATIENCE: Duration = Duration::from_secs(10);

/// Where the address comes from, and whether it has come.
#[derive(Debug)]
pub(crate) struct AddressState {
    /// The port, in log lines.
    port: u16,
    dhcp: Option<SocketHandle>,
    /// Since when DHCP has been asked without an answer.
    asking_since: Option<Instant>,
    /// The link was away: the address stays while DHCP is asked whether it still holds.
    confirming: bool,
    warned: bool,
    link_up: bool,
    /// Another core looks after the port and tells what it finds out.
    follows: bool,
    addresses: PortAddresses,
    link_local: Ipv6Addr,
}

impl AddressState {
    /// Sets the static addresses, and adds a DHCP socket to the set where one is wanted; there has to be room for it.
    pub(crate) fn new(
        config: &Config<'_>,
        mac: [u8; 6],
        link_up: bool,
        interface: &mut Interface,
        set: &mut SocketSet<'static>,
        now: Instant,
    ) -> Self {
        let port = config.number;
        let mut state = Self {
            port,
            dhcp: None,
            asking_since: None,
            confirming: false,
            warned: false,
            link_up,
            follows: config.addressing == Addressing::Follow,
            addresses: PortAddresses::default(),
            link_local: link_local(mac),
        };
        let mut main = None;
        match config.addressing {
            Addressing::Dhcp => {
                state.dhcp = Some(set.add(dhcpv4::Socket::new()));
                state.asking_since = Some(now);
                hal_log::info!("port {}: asking DHCP for an address", port);
            }
            Addressing::Static { address, prefix, gateway } => {
                main = Some(PortAddress { address, prefix, gateway });
                hal_log::info!("port {}: address {}/{}", port, address, prefix);
            }
            Addressing::Follow => {}
        }
        let ipv6 = config.ipv6.filter(|_| !state.follows);
        if let Some(PortAddress { address, prefix, .. }) = ipv6 {
            hal_log::info!("port {}: address {}/{}", port, address, prefix);
        }
        state.set(interface, PortAddresses { main, ipv6 });
        state
    }

    pub(crate) fn addresses(&self) -> PortAddresses {
        self.addresses
    }

    /// Whether another core looks after the port.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// Which of our addresses speaks to `remote`.
    pub(crate) fn towards(&self, remote: IpAddr) -> Option<IpAddr> {
        if let IpAddr::V6(address) = remote
            && address.is_unicast_link_local()
        {
            return Some(self.link_local.into());
        }
        self.addresses.iter().map(|own| own.address).find(|own| own.is_ipv4() == remote.is_ipv4())
    }

    /// Gives the interface these addresses and their default routes, and no others.
    pub(crate) fn set(&mut self, interface: &mut Interface, addresses: PortAddresses) {
        let port = self.port;
        let usable = |own: &PortAddress| {
            // smoltcp panics on others.
            let fine = IpAddress::from(own.address).is_unicast();
            if !fine {
                hal_log::error!(
                    "port {}: the address is not one that a port can have; it stays without",
                    port
                );
            }
            fine
        };
        self.addresses =
            PortAddresses { main: addresses.main.filter(usable), ipv6: addresses.ipv6.filter(usable) };
        interface.update_ip_addrs(|list| {
            list.clear();
            let own = self.addresses.iter().map(|own| (own.address, own.prefix));
            for (address, prefix) in own.chain([(self.link_local.into(), 64)]) {
                let longest = if address.is_ipv4() { 32 } else { 128 };
                // The list has room for three.
                let _ = list.push(IpCidr::new(IpAddress::from(address), prefix.min(longest)));
            }
        });
        let gateways = self.addresses.iter().filter_map(|own| own.gateway);
        interface.routes_mut().update(|routes| {
            routes.clear();
            // smoltcp panics on others here, too.
            for gateway in gateways.filter(|gateway| IpAddress::from(*gateway).is_unicast()) {
                // There is room for two; the first of a family counts.
                let _ = routes.push(match gateway {
                    IpAddr::V4(gateway) => Route::new_ipv4_gateway(gateway),
                    IpAddr::V6(gateway) => Route::new_ipv6_gateway(gateway),
                });
            }
        });
    }

    pub(crate) fn link_is_up(&self) -> bool {
        self.link_up
    }

    /// Takes over what DHCP has found out. Returns whether the address changed.
    pub(crate) fn review(
        &mut self,
        interface: &mut Interface,
        set: &mut SocketSet<'static>,
        now: Instant,
    ) -> bool {
        let Some(handle) = self.dhcp else { return false };
        let Some(event) = client(set, handle).poll() else { return false };
        match event {
            dhcpv4::Event::Configured(lease) => {
                let (address, prefix) = (lease.address.address(), lease.address.prefix_len());
                let router = lease.router.filter(|router| is_unicast(*router)).map(IpAddr::from);
                self.asking_since = None;
                self.confirming = false;
                self.warned = false;
                let main = Some(PortAddress { address: address.into(), prefix, gateway: router });
                self.set(interface, PortAddresses { main, ..self.addresses });
                hal_log::info!("port {}: DHCP: address {}/{}", self.port, address, prefix);
            }
            // The client begins by taking away an address that was never there.
            dhcpv4::Event::Deconfigured if self.confirming || self.asking_since.is_some() => return false,
            dhcpv4::Event::Deconfigured => {
                self.asking_since = Some(now);
                self.set(interface, PortAddresses { main: None, ..self.addresses });
                hal_log::warn!("port {}: DHCP: the address is lost; asking again", self.port);
            }
        }
        true
    }

    /// Every 100 ms: what the link does, and how long DHCP has been silent. Returns whether to send.
    pub(crate) fn tick(
        &mut self,
        link_up: bool,
        interface: &mut Interface,
        set: &mut SocketSet<'static>,
        now: Instant,
    ) -> bool {
        let came_up = link_up && !self.link_up;
        if link_up != self.link_up {
            self.link_up = link_up;
            if self.follows {
                // Who looks after the port says so.
            } else if link_up {
                hal_log::info!("port {}: link is up", self.port);
            } else {
                hal_log::warn!("port {}: link is down", self.port);
            }
        }
        if let (true, Some(handle)) = (came_up, self.dhcp) {
            // The network may be another one now. The address, and with it the connections, is kept until
            // that is known.
            client(set, handle).reset();
            self.confirming = self.confirming || self.asking_since.is_none();
            self.asking_since = Some(now);
            self.warned = false;
        }
        let silent = self.asking_since.is_some_and(|since| now.since(since) >= DHCP_PATIENCE);
        if silent && self.link_up && !self.warned {
            self.warned = true;
            hal_log::warn!("port {}: no DHCP answer; still asking", self.port);
            if self.confirming {
                self.confirming = false;
                self.set(interface, PortAddresses { main: None, ..self.addresses });
            }
        }
        came_up
    }
}

/// The DHCP client. In one place of the image, where smoltcp's checks count once.
#[inline(never)]
fn client<'a>(set: &'a mut SocketSet<'static>, handle: SocketHandle) -> &'a mut dhcpv4::Socket<'static> {
    set.get_mut(handle)
}

/// The link-local address that goes with a station address.
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}
