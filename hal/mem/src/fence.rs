//! Order between memory that a device reads or writes and the accesses that tell of it.
//!
//! The only place outside `hal/arch` and `hal/simd` that names an architecture: on Arm a device on the bus
//! is an observer in the outer shareable domain, which no ordering of `core::sync::atomic` speaks of.

/// All writes to memory before this are visible to devices before any write (a doorbell, an index) after it.
#[inline(always)]
pub fn device_write_fence() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches neither registers nor memory.
    unsafe {
        core::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("fence ow, ow", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// No read of memory after this happens before the read (a phase tag, an index) that came before it.
#[inline(always)]
pub fn device_read_fence() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches neither registers nor memory.
    unsafe {
        core::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("fence ir, ir", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Everything before this, reads and writes, is seen by devices before everything after it: for the moment
/// between asking for an interrupt and looking once more whether it is still needed.
#[inline(always)]
pub fn device_full_fence() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction touches neither registers nor memory.
    unsafe {
        core::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("fence iorw, iorw", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
