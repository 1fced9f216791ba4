//! System registers and barriers.

/// Reads a system register by name.
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register changes nothing that Rust knows of.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register by name; the caller's `unsafe` block carries the promise.
macro_rules! write_register {
    ($name:literal, $value:expr) => {
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) $value, options(nostack, preserves_flags))
    };
}

pub(crate) use {read_register, write_register};

/// All accesses before this are complete, for all observers, before any instruction after it.
#[inline(always)]
pub(crate) fn dsb_isb() {
    // SAFETY: barriers touch neither registers nor memory.
    unsafe { core::arch::asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// Sleeps until an interrupt is pending, masked or not.
#[inline(always)]
pub(crate) fn wait_for_interrupt() {
    // SAFETY: `wfi` changes no state; the barrier lets earlier stores out before sleeping.
    unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}
