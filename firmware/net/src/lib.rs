//! smoltcp adapter: one Ethernet port's stack and TCP streams. No other crate names smoltcp.
//!
//! A [`Stack`] owns one [`hal_api::FrameQueue`] and belongs to one core. A turn of the core loop is
//! [`Stack::poll`] (frames in), [`Stack::accept`] and the work on the streams, then [`Stack::transmit`]
//! (frames out) and [`Stack::flush`]. It sleeps only when [`Stack::next_deadline`] lies ahead and
//! [`Stack::arm`] says that nothing has arrived meanwhile.
//!
//! Where a port serves several data cores, each has a stack over a [`SteeredQueue`]: frames go to the core that
//! [`Steering`] names, the first core looks after the port, and the others [follow](Addressing::Follow) it.
//!
//! It answers ARP and ICMP echo, asks DHCP for an address or has a static one, listens on the
//! configured ports, and [connects](Stack::connect) to others. A connection takes one of a fixed number of sockets and gives it back: closed
//! connections linger for a few seconds at most, half-open ones likewise, so that no peer can keep a socket
//! by silence. TCP is RFC 9293 without Nagle's algorithm and without delayed acknowledgements, with window
//! scaling, keep-alive probes and Reno's congestion control.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod address;
mod config;
mod connections;
mod device;
mod frame;
mod slot;
mod stack;
mod steered_queue;
mod steering;
mod stream;
mod vlan;
mod wanted;

#[cfg(test)]
mod tests;

pub use address::{PortAddress, PortAddresses};
pub use config::{Addressing, Config, MAX_PORTS};
pub use connections::{ConnectError, ConnectionId, PeerInfo};
pub use stack::{Counters, Stack};
pub use steered_queue::{SteeredQueue, SteeringCounters, steered_queues, steered_queues_bytes};
pub use steering::{KEY_BYTES, MAX_CORES_OF_PORT, Steer, Steering, TABLE_ENTRIES};
pub use stream::{Stream, StreamState};
