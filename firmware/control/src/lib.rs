//! What the control core decides beside all I/O: the slots in which drives come and go, what the operator's mailbox is answered, and
//! where the configuration is stored.
//!
//! It meets the data cores in the types of `message` alone, reads no clock, and never waits.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod hot_plug;
pub mod limits;
mod mailbox;
mod slot;
mod store;

pub use hot_plug::HotPlug;
pub use mailbox::{CORE_PATIENCE, Card, Mailbox};
pub use store::{ConfigurationStore, Current, StoreError, StoreState};
