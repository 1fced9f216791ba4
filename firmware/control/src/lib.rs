//! What the control core decides beside all I/O: the slots in which drives come and go, what the operator's mailbox is answered, and
//! where the configuration is stored.
//!
//! It meets the data cores in the types of `message` alone, reads no clock, and never waits.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod asking;
mod configuration;
mod hot_plug;
pub mod limits;
mod mailbox;
mod slot;
mod store;

pub use asking::{Asking, CHANGE_PATIENCE, CORE_PATIENCE};
pub use configuration::{Configuration, Full};
pub use hot_plug::HotPlug;
pub use mailbox::{Card, Mailbox};
pub use store::{ConfigurationStore, Current, StoreError, StoreState};
