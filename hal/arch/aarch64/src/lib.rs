//! Boot, MMU, exceptions, timer, interrupts, starting cores and `memcpy` for 64-bit Arm.
//!
//! A board names its main function with [`entry!`] and gets a [`Boot`]: what the device tree said, free memory,
//! time, this core, the other cores (parked), message interrupts and the console. Everything runs at EL1 on an
//! identity map, with interrupts masked: they only end [`Cpu::sleep_until`]. The watchdog's (FIQ) are not.
#![no_std]

mod backtrace;
mod boot;
mod console;
mod cores;
mod cpu;
mod crash;
mod entropy;
mod exception;
mod image;
mod interrupts;
mod memory;
mod mmu;
mod psci;
mod registers;
mod selftest;
mod timer;
mod watchdog;

pub use boot::{Boot, micros};
pub use console::{RawConsole, raw_console};
pub use cores::{OtherCores, StartError};
pub use cpu::{Cpu, wake};
pub use crash::{CrashCounts, LogHooks, crash_counts, on_crash, serving};
pub use entropy::entropy;
pub use exception::{core_index, report_panic};
pub use memory::FreeMemory;
pub use psci::{power_off, reset};
pub use selftest::{Planned, selftest};
pub use timer::Timer;
pub use watchdog::sign_of_life;

use boot::micros_or_zero;

/// Most cores that the card can use.
pub const MAX_CORES: usize = hal_devices::device_tree::MAX_CORES;

/// Names the function that runs on the first core: `fn(Boot) -> !`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn card_main(boot: $crate::Boot) -> ! {
            let main: fn($crate::Boot) -> ! = $main;
            main(boot)
        }
    };
}

core::arch::global_asm!(
    ".set MAIR_VALUE, {mair}",
    ".set TCR_VALUE, {tcr}",
    ".set SCTLR_MMU_OFF, {sctlr_off}",
    ".set SCTLR_MMU_ON, {sctlr_on}",
    ".set BLOCK_NORMAL, {block_normal}",
    ".set BLOCK_DEVICE, {block_device}",
    mair = const mmu::MAIR_VALUE,
    tcr = const mmu::TCR_VALUE,
    sctlr_off = const mmu::SCTLR_MMU_OFF,
    sctlr_on = const mmu::SCTLR_MMU_ON,
    block_normal = const mmu::BLOCK_NORMAL,
    block_device = const mmu::BLOCK_DEVICE,
);
core::arch::global_asm!(include_str!("asm/entry.s"), options(raw));
core::arch::global_asm!(include_str!("asm/vectors.s"), options(raw));
core::arch::global_asm!(include_str!("asm/memory.s"), options(raw));
