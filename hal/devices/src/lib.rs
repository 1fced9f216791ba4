//! Registers, rings and doorbells, one file or folder per hardware block.
#![cfg_attr(not(test), no_std)]
