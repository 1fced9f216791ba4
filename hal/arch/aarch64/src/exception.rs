//! What an exception or a panic leaves behind: registers, a backtrace by address, and a restarted card.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::registers::read_register;
use crate::{image, psci, raw_console, raw_println};

/// What the vectors save, in their order.
#[repr(C)]
struct Frame {
    general: [u64; 31],
    stack_pointer: u64,
    return_address: u64,
    saved_state: u64,
    syndrome: u64,
    fault_address: u64,
}

const _: () = assert!(size_of::<Frame>() == 36 * 8);

/// Deepest backtrace that is printed.
const MOST_FRAMES: usize = 32;

/// The core that reports, plus one; a second core to fail keeps still.
static REPORTER: AtomicU64 = AtomicU64::new(0);

/// What hands out the log's unread bytes; a `fn(&mut dyn FnMut(u8))`, or null.
static LOG_FLUSH: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Says what hands out the log's unread bytes, one by one: they go to the console ahead of the report of a crash.
pub fn on_crash(flush: fn(&mut dyn FnMut(u8))) {
    LOG_FLUSH.store(flush as *mut (), Ordering::Release);
}

/// Prints what is left of the log. Once: a crash in here must not come here again.
fn flush_log() {
    let flush = LOG_FLUSH.swap(core::ptr::null_mut(), Ordering::AcqRel);
    if flush.is_null() {
        return;
    }
    // SAFETY: not null, so it is the function pointer that `on_crash` stored.
    let flush: fn(&mut dyn FnMut(u8)) = unsafe { core::mem::transmute(flush) };
    let mut console = raw_console();
    flush(&mut |byte| console.write_byte(byte));
}

/// Prints `info` and a backtrace to the raw console and restarts the card: the body of a board's
/// `#[panic_handler]`.
pub fn report_panic(info: &PanicInfo) -> ! {
    become_reporter();
    flush_log();
    raw_println!("\n*** panic on core {}: {}", core_index(), info);
    let frame_pointer: u64;
    // SAFETY: copies a register.
    unsafe {
        core::arch::asm!("mov {}, x29", out(reg) frame_pointer, options(nomem, nostack, preserves_flags))
    };
    print_backtrace(frame_pointer);
    restart()
}

#[unsafe(no_mangle)]
extern "C" fn report_fault(vector: u64, frame: &Frame) -> ! {
    become_reporter();
    flush_log();
    let class = frame.syndrome >> 26 & 0x3f;
    raw_println!("\n*** exception on core {}: vector {vector}, {}", core_index(), class_name(vector, class));
    let guard = image::stack_guard_of(frame.fault_address);
    if let (Some(core), true) = (guard, matches!(class, 0x24 | 0x25)) {
        raw_println!("    the stack of core {core} ran over");
    }
    raw_println!("    ESR {:#018x}  FAR {:#018x}", frame.syndrome, frame.fault_address);
    raw_println!("    ELR {:#018x}  SPSR {:#018x}", frame.return_address, frame.saved_state);
    raw_println!("    SP  {:#018x}", frame.stack_pointer);
    for (row, values) in frame.general.chunks(4).enumerate() {
        let at = |index: usize| values.get(index).copied().unwrap_or(0);
        raw_println!("    x{:<2} {:#018x} {:#018x} {:#018x} {:#018x}", row * 4, at(0), at(1), at(2), at(3));
    }
    raw_println!("    backtrace: {:#x}", frame.return_address);
    print_backtrace(frame.general[29]);
    restart()
}

#[unsafe(no_mangle)]
extern "C" fn report_double_fault(return_address: u64, syndrome: u64, fault_address: u64) -> ! {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    if SEEN.fetch_add(1, Ordering::Relaxed) == 0 {
        raw_println!("\n*** exception in an exception handler");
        raw_println!("    ELR {return_address:#x} ESR {syndrome:#x} FAR {fault_address:#x}");
    }
    psci::reset()
}

/// Returns on the first core that asks (again and again, if it fails while reporting); others stop.
fn become_reporter() {
    let own = core_index() as u64 + 1;
    if let Err(other) = REPORTER.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed)
        && other != own
    {
        loop {
            crate::registers::wait_for_interrupt();
        }
    }
}

fn restart() -> ! {
    raw_println!("*** restarting");
    psci::reset()
}

/// Follows the chain of frame records (AAPCS64 6.4.6) as long as they lie in a stack and go upwards.
fn print_backtrace(mut frame_pointer: u64) {
    for _ in 0..MOST_FRAMES {
        if !frame_pointer.is_multiple_of(16) || !image::in_stacks(frame_pointer, 16) {
            return;
        }
        // SAFETY: 16 aligned bytes of a mapped stack (just checked).
        let [next, return_address] = unsafe { (frame_pointer as *const [u64; 2]).read_volatile() };
        if return_address == 0 {
            return;
        }
        raw_println!("               {return_address:#x}");
        if next <= frame_pointer {
            return;
        }
        frame_pointer = next;
    }
}

/// Index of the core that runs.
#[must_use]
pub fn core_index() -> usize {
    read_register!("tpidr_el1") as usize
}

fn class_name(vector: u64, class: u64) -> &'static str {
    match (vector & 3, class) {
        (3, _) => "system error",
        (1 | 2, _) => "unexpected interrupt",
        (_, 0x00) => "undefined instruction",
        (_, 0x07) => "floating point trapped",
        (_, 0x20 | 0x21) => "instruction abort",
        (_, 0x22) => "program counter not aligned",
        (_, 0x24 | 0x25) => "data abort",
        (_, 0x26) => "stack pointer not aligned",
        (_, 0x3c) => "breakpoint instruction",
        _ => "other",
    }
}
