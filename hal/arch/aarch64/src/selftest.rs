//! Checks that need the card itself, and bugs on purpose: run where the boot arguments say `selftest` or
//! `selftest=NAME`.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use hal_api::{Clock, Instant};
use hal_crash::{Fault, FaultKind};

use crate::{Boot, crash, raw_println};

/// Bytes of each buffer in the checks of `memcpy` and its kin.
const BUFFER_BYTES: usize = 640;

/// A bug that the boot arguments ask for: where and when it is to happen.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    fault: Fault,
    word: &'static str,
}

impl Planned {
    /// The part of core `core`, where core `data` serves; `None` where it is not to fail.
    #[must_use]
    pub fn of_core(self, core: usize, data: usize) -> Option<Self> {
        self.fault.concerns(core, data).then_some(self)
    }

    /// Lets it happen, on the calling core, once it is time.
    pub fn happen(&self, now: Instant) {
        if now.as_millis() >= u64::from(self.fault.after_s) * 1000 {
            crash::asked_for_by(self.word);
            fail(self.fault.kind);
        }
    }
}

/// Runs the checks that the boot arguments ask for: `selftest` or `selftest=memory` compares `memcpy` and its kin
/// with byte loops; `selftest` or `selftest=wake` has a message interrupt wake this core. Returns the bug that they ask
/// for (`hal_crash::Fault`), unless the start before this one ended in it: then the card goes on to serve.
pub fn selftest(boot: &mut Boot) -> Option<Planned> {
    let mut planned = None;
    for word in boot.machine.boot_arguments.split_ascii_whitespace() {
        match word {
            "selftest" => {
                memory_functions();
                wake_by_message(boot);
            }
            "selftest=memory" => memory_functions(),
            "selftest=wake" => wake_by_message(boot),
            _ => planned = Fault::parse(word).map(|fault| Planned { fault, word }).or(planned),
        }
    }
    let done =
        |planned: &Planned| planned.fault.kind != FaultKind::PanicEachBoot && crash::ended_in(planned.word);
    if let Some(done) = planned.filter(done) {
        raw_println!("{}: done", done.word);
        return None;
    }
    planned
}

/// Set where the next exception is to run its stack over.
static OVERRUN: AtomicBool = AtomicBool::new(false);

/// Runs the exception stack over where that was asked for.
pub(crate) fn overrun_if_asked() {
    if OVERRUN.swap(false, Ordering::Relaxed) {
        raw_println!("selftest: exception stack, depth {}", run_over(1));
    }
}

fn fail(kind: FaultKind) {
    match kind {
        FaultKind::Panic | FaultKind::PanicEachBoot => panic!("asked for by the boot arguments"),
        FaultKind::Pointer => bad_pointer(),
        FaultKind::Stack => raw_println!("selftest: stack, depth {}", run_over(1)),
        FaultKind::ExceptionStack => {
            OVERRUN.store(true, Ordering::Relaxed);
            bad_pointer();
        }
        FaultKind::Hang => hang(),
        FaultKind::Mute => {
            // SAFETY: masks all interrupts on a core that does nothing any more.
            unsafe { core::arch::asm!("msr DAIFSet, #0xf", options(nostack, preserves_flags)) };
            hang()
        }
    }
}

#[inline(never)]
fn hang() {
    while core::hint::black_box(true) {
        core::hint::spin_loop();
    }
}

/// Raises a message for this core before it sleeps, and sees that it does not sleep out its time; then sees
/// that it does without a message.
fn wake_by_message(boot: &mut Boot) {
    /// No PCI function has this requester id: the last of the last bus.
    const DEVICE: u32 = 0xffff;
    let Some(msi) = &mut boot.msi else {
        raw_println!("selftest: wake, no message controller");
        return;
    };
    let mut slept_ms = [0; 4];
    for (round, slept) in slept_ms.iter_mut().enumerate() {
        let message = msi.allocate(DEVICE, boot.cpu.index());
        if let (true, Some(message)) = (round % 2 == 0, message) {
            msi.raise(DEVICE, message);
        }
        let start = boot.cpu.now();
        boot.cpu.sleep_until(start + Duration::from_millis(500));
        *slept = boot.cpu.now().since(start).as_millis();
    }
    let [with, without, with_again, without_again] = slept_ms.map(|ms| ms < 400);
    let right = with && !without && with_again && !without_again;
    raw_println!(
        "selftest: wake by {}, {} ({slept_ms:?} ms)",
        msi.name(),
        if right { "right" } else { "WRONG" }
    );
}

#[inline(never)]
#[allow(unconditional_recursion, reason = "the point of it")]
fn run_over(depth: u64) -> u64 {
    let mut block = [depth; 64];
    core::hint::black_box(&mut block);
    run_over(depth + 1) + block.iter().sum::<u64>()
}

#[inline(never)]
fn bad_pointer() {
    let address = core::hint::black_box(0xdead_0000_usize) as *mut u64;
    // SAFETY: none: nothing is mapped there, and the exception is what is wanted.
    unsafe { address.write_volatile(1) };
}

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8;
    fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32;
}

/// Every size up to 300 at several alignments, overlaps both ways, and the bytes around left alone.
fn memory_functions() {
    let mut faults = 0u32;
    for bytes in 0..300 {
        for offset in [0, 1, 3, 8, 15, 17] {
            faults += u32::from(!copy_is_right(bytes, offset, 64 - offset));
            faults += u32::from(!move_is_right(bytes, 40, 40 + offset));
            faults += u32::from(!move_is_right(bytes, 40 + offset, 40));
            faults += u32::from(!set_is_right(bytes, offset));
        }
        faults += u32::from(!compare_is_right(bytes));
    }
    raw_println!("selftest: memory functions, {} faults", faults);
}

fn pattern(index: usize) -> u8 {
    (index * 31 + 7) as u8 ^ (index >> 3) as u8
}

fn filled() -> [u8; BUFFER_BYTES] {
    let mut buffer = [0; BUFFER_BYTES];
    for (index, byte) in buffer.iter_mut().enumerate() {
        // Volatile, so that the loop does not become one of the functions under test.
        // SAFETY: an exclusive reference.
        unsafe { core::ptr::write_volatile(byte, pattern(index)) };
    }
    buffer
}

/// Whether each byte of `buffer` is what `expected` says for its index.
fn matches(buffer: &[u8; BUFFER_BYTES], expected: impl Fn(usize) -> u8) -> bool {
    buffer.iter().enumerate().all(|(index, byte)| *byte == expected(index))
}

fn copy_is_right(bytes: usize, from: usize, to: usize) -> bool {
    let source = filled();
    let mut target = filled();
    // SAFETY: both ranges end below 300 + 64 bytes, within the buffers.
    let returned = unsafe { memcpy(target.as_mut_ptr().add(to), source.as_ptr().add(from), bytes) };
    returned == target.as_mut_ptr().wrapping_add(to)
        && matches(
            &target,
            |i| if (to..to + bytes).contains(&i) { pattern(i - to + from) } else { pattern(i) },
        )
}

fn move_is_right(bytes: usize, from: usize, to: usize) -> bool {
    let mut buffer = filled();
    let start = buffer.as_mut_ptr();
    // SAFETY: both ranges end below 300 + 64 bytes, within the buffer.
    unsafe { memmove(start.add(to), start.add(from), bytes) };
    matches(&buffer, |i| if (to..to + bytes).contains(&i) { pattern(i - to + from) } else { pattern(i) })
}

fn set_is_right(bytes: usize, at: usize) -> bool {
    let mut buffer = filled();
    // SAFETY: ends below 300 + 64 bytes, within the buffer.
    unsafe { memset(buffer.as_mut_ptr().add(at), 0x1a5, bytes) };
    matches(&buffer, |i| if (at..at + bytes).contains(&i) { 0xa5 } else { pattern(i) })
}

fn compare_is_right(bytes: usize) -> bool {
    let (left, mut right) = (filled(), filled());
    // SAFETY: within both buffers.
    let compare = |right: &[u8; BUFFER_BYTES]| unsafe { memcmp(left.as_ptr(), right.as_ptr(), bytes) };
    let mut fine = compare(&right) == 0;
    for position in [0, bytes / 2, bytes.wrapping_sub(1), bytes] {
        let Some(byte) = right.get_mut(position) else { continue };
        let old = *byte;
        *byte = old.wrapping_add(1);
        let wanted =
            if position < bytes { old.cmp(&old.wrapping_add(1)) } else { core::cmp::Ordering::Equal };
        fine &= compare(&right).cmp(&0) == wanted;
        if let Some(byte) = right.get_mut(position) {
            *byte = old;
        }
    }
    fine
}
