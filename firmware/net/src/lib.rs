//! smoltcp adapter: one Ethernet port's stack and TCP streams.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
