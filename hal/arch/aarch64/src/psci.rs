//! PSCI (Arm DEN 0022): starting cores and restarting the card, by the firmware below or by QEMU.

use core::sync::atomic::{AtomicU8, Ordering};

use hal_devices::device_tree::PsciConduit;

const CPU_ON: u32 = 0xc400_0003;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;

static CONDUIT: AtomicU8 = AtomicU8::new(0);

/// Says how PSCI is reached, once the device tree is known.
pub(crate) fn set_conduit(conduit: Option<PsciConduit>) {
    let value = match conduit {
        None => 0,
        Some(PsciConduit::Hvc) => 1,
        Some(PsciConduit::Smc) => 2,
    };
    CONDUIT.store(value, Ordering::Relaxed);
}

/// Starts the core with affinity `mpidr` at physical address `entry` with `context` in x0.
///
/// # Safety
/// `entry` is code that runs with the MMU off and takes `context`.
pub(crate) unsafe fn cpu_on(mpidr: u64, entry: u64, context: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { call(CPU_ON, mpidr, entry, context) == 0 }
}

/// Restarts the card. Where PSCI does not, the core stops.
pub fn reset() -> ! {
    // SAFETY: does not return; nothing needs to be kept.
    unsafe { call(SYSTEM_RESET, 0, 0, 0) };
    halt()
}

/// Switches the card off (ends QEMU). Returns where PSCI does not.
pub fn power_off() {
    // SAFETY: does not return, or has done nothing.
    unsafe { call(SYSTEM_OFF, 0, 0, 0) };
}

fn halt() -> ! {
    loop {
        crate::registers::wait_for_interrupt();
    }
}

/// # Safety
/// As the function's.
unsafe fn call(function: u32, first: u64, second: u64, third: u64) -> i64 {
    let mut result = u64::from(function);
    macro_rules! conduit {
        ($instruction:literal) => {
            // SAFETY: the calling convention (DEN 0028) keeps all but x0 to x17, which are declared.
            unsafe {
                core::arch::asm!($instruction, inlateout("x0") result, inlateout("x1") first => _,
                    inlateout("x2") second => _, inlateout("x3") third => _, lateout("x4") _, lateout("x5") _,
                    lateout("x6") _, lateout("x7") _, lateout("x8") _, lateout("x9") _, lateout("x10") _,
                    lateout("x11") _, lateout("x12") _, lateout("x13") _, lateout("x14") _, lateout("x15") _,
                    lateout("x16") _, lateout("x17") _, options(nostack))
            }
        };
    }
    match CONDUIT.load(Ordering::Relaxed) {
        1 => conduit!("hvc #0"),
        2 => conduit!("smc #0"),
        _ => return -1,
    }
    result as i64
}
