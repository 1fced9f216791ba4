//! Tests of the whole target against a host of our own.

mod bad_commands;
mod bad_pdus;
mod card;
mod fairness;
mod fused;
mod fuzz;
mod host;
mod initiator;
mod many_cores;
mod slow;
mod stale_writes;
mod traffic;
