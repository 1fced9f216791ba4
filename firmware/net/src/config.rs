//! What a stack is told at boot, and how much memory that takes.

use core::net::IpAddr;

use smoltcp::iface::SocketStorage;

use crate::address::PortAddress;
use crate::slot::Slot;

/// Most ports that a stack listens on.
pub const MAX_PORTS: usize = 4;

/// Smallest buffer of a socket that [`Config::fit`] goes down to, in bytes.
const MIN_BUFFER_BYTES: usize = 16 * 1024;

/// How the port gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addressing {
    /// From a DHCP server (RFC 2131).
    #[default]
    Dhcp,
    /// Fixed.
    Static {
        /// The port's own address.
        address: IpAddr,
        /// Bits of the address that name the network.
        prefix: u8,
        /// Where packets for other networks go.
        gateway: Option<IpAddr>,
    },
    /// From the port's first data core, through [`crate::Stack::follow`]. That core alone answers for the port; this
    /// stack is given TCP segments that belong to it, and what tells neighbours' station addresses.
    Follow,
}

/// Limits and addresses of a [`crate::Stack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config<'a> {
    /// The Ethernet port's number, as log lines call it: counted from 1.
    pub number: u16,
    /// Where the address comes from.
    pub addressing: Addressing,
    /// A fixed IPv6 address besides; followers are told it.
    pub ipv6: Option<PortAddress>,
    /// The VLAN whose tag all frames carry, 1 to 4094; others are not listened to. Costs a copy of each frame received.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes; the port's own limit applies too.
    pub mtu_limit: u16,
    /// How many connections there can be at once.
    pub sockets: usize,
    /// Receive buffer of each connection in bytes; the window that the peer sees.
    pub receive_bytes: usize,
    /// Transmit buffer of each connection in bytes: what is unsent or unacknowledged.
    pub transmit_bytes: usize,
    /// TCP ports that accept connections; those beyond [`MAX_PORTS`] are ignored.
    pub ports: &'a [u16],
}

impl Default for Config<'static> {
    fn default() -> Self {
        Self {
            number: 1,
            addressing: Addressing::Dhcp,
            ipv6: None,
            vlan: None,
            mtu_limit: 9000,
            sockets: 64,
            receive_bytes: 128 * 1024,
            transmit_bytes: 256 * 1024,
            ports: &[4420, 8009],
        }
    }
}

impl Config<'_> {
    /// Bytes that [`crate::Stack::new`] takes from its arena, within a few cache lines.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        let state = size_of::<Slot>() + size_of::<SocketStorage<'static>>() + 512;
        let socket = self.receive_bytes.saturating_add(self.transmit_bytes).saturating_add(state);
        self.sockets.saturating_add(1).saturating_mul(socket).saturating_add(32 * 1024)
    }

    /// Halves the buffers until everything fits in `bytes`; at 16 KiB each it stops, whether it fits or not.
    #[must_use]
    pub fn fit(mut self, bytes: usize) -> Self {
        while self.memory_bytes() > bytes && self.receive_bytes.max(self.transmit_bytes) > MIN_BUFFER_BYTES {
            self.receive_bytes = (self.receive_bytes / 2).max(MIN_BUFFER_BYTES);
            self.transmit_bytes = (self.transmit_bytes / 2).max(MIN_BUFFER_BYTES);
        }
        self
    }
}
