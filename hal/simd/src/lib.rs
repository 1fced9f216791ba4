//! Vector kernels behind safe functions.
#![cfg_attr(not(test), no_std)]
