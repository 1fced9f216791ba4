//! Boot, MMU, traps, timer, starting a core and memcpy for 64-bit Arm.
#![no_std]
