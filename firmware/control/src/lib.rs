//! What the control core decides beside all I/O: the slots in which drives come and go, and what the operator's mailbox is answered.
//!
//! It meets the data cores in the types of `message` alone, reads no clock, and never waits.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod hot_plug;
pub mod limits;
mod mailbox;
mod slot;

pub use hot_plug::HotPlug;
pub use mailbox::{Card, Mailbox};
