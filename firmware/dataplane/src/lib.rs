//! The core loop of a data core and its roles.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
