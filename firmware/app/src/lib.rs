//! Puts roles and a board together.
//!
//! The board finds hardware and memory; [`assemble`] sizes everything from the memory found and makes a data
//! core of it; the board's cores run [`dataplane::CoreLoop`] over it and over the control role.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod assemble;
mod control_role;
mod declared;
mod hot_plug_role;
mod mailbox_role;
pub mod options;
pub mod plan;
mod power_role;
pub mod sizes;
mod steered;
mod watched;

pub use assemble::{Hardware, Memory, Ports, assemble, assemble_cores};
pub use control::limits::MAX_CONFIGURATION_BYTES;
pub use control::{Asking, Configuration, ConfigurationStore, HotPlug};
pub use control_role::{ControlRole, LineState};
pub use dataplane::{ChangeTicket, CoreLoop, DataCore, PoolCounts, Role, SHUTDOWN_LIMIT};
pub use declared::{DECLARED_BYTES, declare, nothing_declared};
pub use hot_plug_role::HotPlugRole;
pub use mailbox_role::{CardFacts, MailboxRole};
pub use message::{
    CallDesk, Calls, ControlEnds, CoreMeter, DataEnds, MAX_DATA_CORES, OrderlyEnd, Then, call_ways,
    drive_ends,
};
pub use net::Steering;
pub use power_role::{Power, PowerRole};
pub use steered::{CoreQueue, steered_port_bytes, steered_ports};
pub use watched::Watched;
