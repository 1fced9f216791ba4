//! Where exceptions and panics enter. All of them end in `crash`, with the registers that the vectors have saved.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, Ordering};

use hal_crash::{Kind, Registers};

use crate::crash::{Crash, crash};
use crate::registers::read_register;
use crate::{MAX_CORES, image, selftest};

const _: () = assert!(size_of::<Registers>() == 36 * 8, "the vectors save as much");

/// What each core panics about; the breakpoint that follows finds it here.
static PANICS: [AtomicPtr<PanicInfo<'static>>; MAX_CORES] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CORES];

/// Ends the card's run: the body of a board's `#[panic_handler]`. A breakpoint leads into the exception handler, which
/// has a stack of its own, masks all interrupts, and gets the registers.
pub fn report_panic(info: &PanicInfo) -> ! {
    if let Some(slot) = PANICS.get(core_index()) {
        slot.store(core::ptr::from_ref(info).cast_mut().cast(), Ordering::Release);
    }
    loop {
        // SAFETY: an exception that does not return; `info` lives on the stack that it leaves alone.
        unsafe { core::arch::asm!("brk #0x50", options(nostack)) };
    }
}

fn panic_of(core: usize) -> Option<&'static PanicInfo<'static>> {
    let info = PANICS.get(core)?.swap(core::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: null, or what `report_panic` stored on this core, whose stack stands still since then.
    unsafe { info.as_ref() }
}

#[unsafe(no_mangle)]
extern "C" fn report_fault(vector: u64, registers: &Registers) -> ! {
    selftest::overrun_if_asked();
    end(vector, registers, "")
}

/// An exception in an exception handler; the stack has been started anew, `registers` are those of the second one.
#[unsafe(no_mangle)]
extern "C" fn report_double_fault(registers: &Registers) -> ! {
    end(0, registers, " in an exception handler")
}

fn end(vector: u64, registers: &Registers, place: &str) -> ! {
    let core = core_index();
    let class = registers.syndrome >> 26 & 0x3f;
    if let Some(info) = panic_of(core) {
        let (file, line) = info.location().map_or(("?", 0), |location| (location.file(), location.line()));
        let reason = format_args!("{}{place}, at {file}:{line}", info.message());
        crash(&Crash { kind: Kind::Panic, core, reason, registers })
    }
    let abort = matches!(class, 0x24 | 0x25);
    if let Some((owner, stack)) = image::stack_guard_of(registers.fault_address).filter(|_| abort) {
        let reason = format_args!("the {} of core {owner} ran over{place}", stack.name());
        crash(&Crash { kind: Kind::StackOverflow, core, reason, registers })
    }
    let reason = format_args!(
        "{}{place} at {:#x}, ESR {:#x}, FAR {:#x}",
        class_name(vector, class),
        registers.return_address,
        registers.syndrome,
        registers.fault_address
    );
    crash(&Crash { kind: Kind::Exception, core, reason, registers })
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
        _ => "exception of another class",
    }
}
