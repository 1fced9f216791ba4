//! Puts roles, control and a board together.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod options;
