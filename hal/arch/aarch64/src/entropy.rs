//! Randomness for what must differ from start to start and be hard to guess: initial sequence numbers, ports.
//!
//! Not a cryptographic generator: keys need one of their own, seeded from the hardware's.

use crate::boot::shared;
use crate::registers::read_register;

/// How often RNDR is asked before its answer counts as missing: it fails when asked too fast.
const RNDR_TRIES: u32 = 16;

/// 64 bits out of the loader's seed (the device tree), the core's generator where it has one (FEAT_RNG), and the
/// counter; never the same twice. With neither seed nor generator it is only as good as the time of the start.
#[must_use]
pub fn entropy() -> u64 {
    let counter = read_register!("cntvct_el0");
    let mixed = mix(shared().machine.seed ^ mix(counter));
    mix(mixed ^ hardware().unwrap_or(0))
}

/// Reads RNDR (Arm ARM D19.2, RNDR); `None` where the core has none or it gives none.
fn hardware() -> Option<u64> {
    if read_register!("id_aa64isar0_el1") >> 60 == 0 {
        return None;
    }
    (0..RNDR_TRIES).find_map(|_| {
        let (value, failed): (u64, u64);
        // SAFETY: copies a register that the core has (just checked); the flags tell whether it is random.
        unsafe {
            core::arch::asm!("mrs {}, s3_3_c2_c4_0", "cset {}, eq", out(reg) value, out(reg) failed,
                options(nomem, nostack))
        };
        (failed == 0).then_some(value)
    })
}

/// The finalizer of SplitMix64: each bit in changes half of the bits out.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
