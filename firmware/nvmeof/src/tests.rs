//! Tests of the whole target against a host of our own.

mod bad_commands;
mod bad_pdus;
pub(crate) mod card;
mod cases;
mod fairness;
mod fused;
mod fused_cores;
mod fused_random;
mod fuzz;
mod host;
mod initiator;
mod many_cores;
pub(crate) mod meters;
mod model;
mod random;
mod slow;
mod stale_writes;
mod traffic;
