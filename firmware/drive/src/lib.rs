//! What commands to an NVMe drive mean: bring-up, splits, time-outs, reset and quarantine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
