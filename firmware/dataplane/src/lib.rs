//! The core loop of a data core and its roles.
//!
//! Run to completion: a request that arrives on this core's Ethernet queue is parsed, executed on this core's
//! own drive queues and answered on the same Ethernet queue. Nothing here locks, allocates, or is shared with
//! another core; what cores have to say to each other goes by message (`mesh.rs`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod calls;
mod configure;
mod core_loop;
mod data_core;
mod drive_role;
mod mesh;
mod net_role;
mod observe;
mod placements;
mod plug_role;
mod readiness;
mod readings;
mod registrar;
mod report;
mod shutdown;

pub use configure::ChangeTicket;
pub use core_loop::{CoreLoop, Role, TURN_BUDGET};
pub use data_core::{DataCore, MAX_PORTS, Parts, PoolCounts};
pub use mesh::WakeCore;
pub use net_role::{MAX_CONNECTIONS, QueueStream};
pub use shutdown::{DRIVES_LIMIT, HOSTS_LIMIT, SHUTDOWN_LIMIT};
