//! What the control core decides beside all I/O: today the slots in which drives come and go.
//!
//! It meets the data cores in the types of `message` alone, reads no clock, and never waits.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod hot_plug;
pub mod limits;
mod slot;

pub use hot_plug::HotPlug;
