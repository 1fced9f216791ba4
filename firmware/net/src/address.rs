//! The port's own address and the state of its link.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use hal_api::Instant;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{IpAddress, IpCidr};

use crate::config::Addressing;

/// Without an answer for so long, the log says so.
const DHCP_PATIENCE: Duration = Duration::from_secs(10);

/// Where the address comes from, and whether it has come.
#[derive(Debug)]
pub(crate) struct AddressState {
    dhcp: Option<SocketHandle>,
    /// Since when DHCP has been asked without an answer.
    asking_since: Option<Instant>,
    /// The link was away: the address stays while DHCP is asked whether it still holds.
    confirming: bool,
    warned: bool,
    link_up: bool,
}

impl AddressState {
    /// Sets a static address, or adds a DHCP socket to the set, in which there has to be room for it.
    pub(crate) fn new(
        addressing: Addressing,
        link_up: bool,
        interface: &mut Interface,
        set: &mut SocketSet<'static>,
        now: Instant,
    ) -> Self {
        let mut state = Self { dhcp: None, asking_since: None, confirming: false, warned: false, link_up };
        match addressing {
            Addressing::Dhcp => {
                state.dhcp = Some(set.add(dhcpv4::Socket::new()));
                state.asking_since = Some(now);
                hal_log::info!("asking DHCP for an address");
            }
            Addressing::Static { address, prefix, gateway } => {
                let longest = if address.is_ipv4() { 32 } else { 128 };
                set_address(interface, Some((address, prefix.min(longest), gateway)));
                hal_log::info!("address {}/{}", address, prefix);
            }
        }
        state
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
        let Some(event) = set.get_mut::<dhcpv4::Socket<'_>>(handle).poll() else { return false };
        match event {
            dhcpv4::Event::Configured(lease) => {
                let (address, prefix) = (lease.address.address(), lease.address.prefix_len());
                let router = lease.router.filter(|router| is_unicast(*router)).map(IpAddr::from);
                self.asking_since = None;
                self.confirming = false;
                self.warned = false;
                set_address(interface, Some((address.into(), prefix, router)));
                hal_log::info!("DHCP: address {}/{}", address, prefix);
            }
            // The client begins by taking away an address that was never there.
            dhcpv4::Event::Deconfigured if self.confirming || self.asking_since.is_some() => return false,
            dhcpv4::Event::Deconfigured => {
                self.asking_since = Some(now);
                set_address(interface, None);
                hal_log::warn!("DHCP: the address is lost; asking again");
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
            if link_up {
                hal_log::info!("link is up");
            } else {
                hal_log::warn!("link is down");
            }
        }
        if let (true, Some(handle)) = (came_up, self.dhcp) {
            // The network may be another one now. The address, and with it the connections, is kept until
            // that is known.
            set.get_mut::<dhcpv4::Socket<'_>>(handle).reset();
            self.confirming = self.confirming || self.asking_since.is_none();
            self.asking_since = Some(now);
            self.warned = false;
        }
        let silent = self.asking_since.is_some_and(|since| now.since(since) >= DHCP_PATIENCE);
        if silent && self.link_up && !self.warned {
            self.warned = true;
            hal_log::warn!("no DHCP answer; still asking");
            if self.confirming {
                self.confirming = false;
                set_address(interface, None);
            }
        }
        came_up
    }
}

/// Gives the interface one address and default route, or none.
fn set_address(interface: &mut Interface, address: Option<(IpAddr, u8, Option<IpAddr>)>) {
    interface.routes_mut().remove_default_ipv4_route();
    interface.routes_mut().remove_default_ipv6_route();
    let cidr = address
        .map(|(address, prefix, _)| IpCidr::new(IpAddress::from(address), prefix))
        // smoltcp panics on others.
        .filter(|cidr| cidr.address().is_unicast());
    if address.is_some() && cidr.is_none() {
        hal_log::error!("the address is not one that a port can have; the port stays without");
    }
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        if let Some(cidr) = cidr {
            // The list has room for at least one.
            let _ = addresses.push(cidr);
        }
    });
    let added = match address.and_then(|(_, _, gateway)| gateway) {
        Some(IpAddr::V4(gateway)) => interface.routes_mut().add_default_ipv4_route(gateway).is_ok(),
        Some(IpAddr::V6(gateway)) => interface.routes_mut().add_default_ipv6_route(gateway).is_ok(),
        None => true,
    };
    debug_assert!(added, "the route table was just emptied");
}

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}
