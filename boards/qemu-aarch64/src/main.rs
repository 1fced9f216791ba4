//! The card as QEMU virt machine.
#![no_std]
#![no_main]
