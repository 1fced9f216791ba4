//! The watchdog: each core is looked at once a second by an interrupt of its own that stays unmasked (FIQ), and by its
//! neighbour.
//!
//! A core gives signs of life: a count of its turns, and until when it sleeps. Its own look finds it stuck when neither
//! excuses it for `STUCK_LOOKS` looks, and has its registers. A core whose own looks do not come any more (it has FIQ
//! masked, or is lost in the firmware below) is found by its neighbour. Where group 0 of the interrupt controller
//! belongs to a secure world, there are no looks by interrupt: running cores look at each other in their turns.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal_api::Instant;
use hal_crash::{BOOT_LOOKS, BUDDY_LOOKS, Kind, Life, Look, Registers, STUCK_LOOKS, Sample};
use hal_devices::gic::STOP_INTERRUPT;

use crate::boot::shared_if_set;
use crate::crash::{Crash, crash, stop};
use crate::registers::{read_register, write_register};
use crate::{MAX_CORES, core_index, interrupts, micros_or_zero};

/// How long a core that is to stop may take, in microseconds.
const STOP_LIMIT_US: u64 = 100_000;
/// Between two looks without an interrupt, in microseconds.
const SOFT_LOOK_US: u64 = 1_000_000;

/// A core's signs of life. Each is written by its core alone.
#[repr(align(128))]
struct Pulse {
    runs: AtomicBool,
    turns: AtomicU32,
    looks: AtomicU32,
    /// 0 while awake.
    asleep_until_us: AtomicU64,
    /// What its looks at itself have come to.
    own: AtomicU64,
    /// What its looks at its neighbour have come to.
    neighbour: AtomicU64,
    next_soft_look_us: AtomicU64,
    registers_left: AtomicBool,
    registers: UnsafeCell<MaybeUninit<Registers>>,
}

// SAFETY: `registers` is written by its core alone, once, before `registers_left` is set, and only read after that.
unsafe impl Sync for Pulse {}

static PULSES: [Pulse; MAX_CORES] = [const {
    Pulse {
        runs: AtomicBool::new(false),
        turns: AtomicU32::new(0),
        looks: AtomicU32::new(0),
        asleep_until_us: AtomicU64::new(0),
        own: AtomicU64::new(0),
        neighbour: AtomicU64::new(0),
        next_soft_look_us: AtomicU64::new(0),
        registers_left: AtomicBool::new(false),
        registers: UnsafeCell::new(MaybeUninit::uninit()),
    }
}; MAX_CORES];

fn own_pulse() -> Option<&'static Pulse> {
    PULSES.get(core_index())
}

/// One more on a counter that the calling core alone writes.
fn count(counter: &AtomicU32) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Has the calling core watched from now on.
pub(crate) fn start_core(index: usize) {
    let Some(pulse) = PULSES.get(index) else { return };
    pulse.runs.store(true, Ordering::Release);
    if interrupts::watch_available() {
        set_tick();
        // SAFETY: unmasks FIQ; its handler keeps all registers and shares nothing with what it interrupts.
        unsafe { core::arch::asm!("msr DAIFClr, #1", options(nostack, preserves_flags)) };
    }
}

/// A turn of the calling core's loop.
#[inline]
pub fn sign_of_life() {
    let Some(pulse) = own_pulse() else { return };
    count(&pulse.turns);
    if !interrupts::watch_available() {
        look_softly(pulse);
    }
}

/// The calling core goes to sleep.
#[inline]
pub(crate) fn asleep(deadline: Instant) {
    if let Some(pulse) = own_pulse() {
        count(&pulse.turns);
        pulse.asleep_until_us.store(deadline.as_micros().max(1), Ordering::Relaxed);
    }
}

/// It is awake again.
#[inline]
pub(crate) fn awake() {
    if let Some(pulse) = own_pulse() {
        pulse.asleep_until_us.store(0, Ordering::Relaxed);
    }
}

/// The next look comes a second from now, whenever now is: what was missed is not made up for.
fn set_tick() {
    let second = read_register!("cntfrq_el0").clamp(1, i32::MAX as u64);
    // SAFETY: the physical timer is the watchdog's alone.
    unsafe {
        write_register!("cntp_tval_el0", second);
        write_register!("cntp_ctl_el0", 1u64);
        core::arch::asm!("isb", options(nostack, preserves_flags));
    }
}

/// For cores that keep still: something that ends `wfi` a second from now. False where nothing would.
pub(crate) fn set_wait_alarm() -> bool {
    if interrupts::watch_available() {
        set_tick();
    }
    interrupts::watch_available()
}

/// The vectors call this on FIQ.
#[unsafe(no_mangle)]
extern "C" fn watch(registers: &Registers) {
    let Some(interrupt) = interrupts::acknowledge_watch() else { return };
    if interrupt.number == STOP_INTERRUPT {
        interrupts::end_watch(interrupt);
        stop(registers)
    }
    set_tick();
    interrupts::end_watch(interrupt);
    look(registers);
}

/// Looks at the calling core, whose interrupted registers these are, and at its neighbour.
fn look(registers: &Registers) {
    let (core, Some(pulse)) = (core_index(), own_pulse()) else { return };
    count(&pulse.looks);
    let turns = pulse.turns.load(Ordering::Relaxed);
    let now_us = micros_or_zero();
    let asleep_until_us = pulse.asleep_until_us.load(Ordering::Relaxed);
    let still = still(&pulse.own, Sample { count: turns, asleep_until_us, now_us });
    let limit = if turns == 0 { BOOT_LOOKS } else { STUCK_LOOKS };
    if still >= limit {
        let reason = format_args!("core {core} made no progress for {still} looks, a second apart");
        crash(&Crash { kind: Kind::Stuck, core, reason, registers })
    }
    let Some((other, theirs)) = neighbour_of(core) else { return };
    let sample = Sample { count: theirs.looks.load(Ordering::Relaxed), asleep_until_us: 0, now_us };
    lost(&pulse.neighbour, other, sample, registers);
}

/// The same where there is no interrupt for it: the neighbour alone, judged by its turns.
fn look_softly(pulse: &Pulse) {
    let now_us = micros_or_zero();
    if now_us < pulse.next_soft_look_us.load(Ordering::Relaxed) {
        return;
    }
    pulse.next_soft_look_us.store(now_us.saturating_add(SOFT_LOOK_US), Ordering::Relaxed);
    let Some((other, theirs)) = neighbour_of(core_index()) else { return };
    let asleep_until_us = theirs.asleep_until_us.load(Ordering::Relaxed);
    let sample = Sample { count: theirs.turns.load(Ordering::Relaxed), asleep_until_us, now_us };
    lost(&pulse.neighbour, other, sample, &Registers::default());
}

/// One look more at a neighbour, and the end where it was one too many.
fn lost(looks: &AtomicU64, other: usize, sample: Sample, registers: &Registers) {
    let still = still(looks, sample);
    if still >= BUDDY_LOOKS {
        let reason =
            format_args!("core {other} gave no sign of life for {still} looks of core {}", core_index());
        crash(&Crash { kind: Kind::Silent, core: other, reason, registers })
    }
}

fn still(looks: &AtomicU64, sample: Sample) -> u32 {
    let look = Look::unpacked(looks.load(Ordering::Relaxed)).next(sample);
    looks.store(look.packed(), Ordering::Relaxed);
    look.still
}

/// The next core that runs, round the card.
fn neighbour_of(core: usize) -> Option<(usize, &'static Pulse)> {
    let others = (1..MAX_CORES).map(|step| (core + step) % MAX_CORES);
    others.filter_map(|other| Some((other, PULSES.get(other)?))).find(|(_, p)| p.runs.load(Ordering::Acquire))
}

/// Whether core `core` runs, parked or not.
pub(crate) fn runs(core: usize) -> bool {
    PULSES.get(core).is_some_and(|pulse| pulse.runs.load(Ordering::Acquire))
}

/// Whether other cores can be stopped by an interrupt.
pub(crate) fn can_stop() -> bool {
    interrupts::watch_available()
}

/// What can be seen of a core from outside.
pub(crate) fn life_of(core: usize) -> Life {
    PULSES.get(core).map_or_else(Life::default, |pulse| Life {
        turns: u64::from(pulse.turns.load(Ordering::Relaxed)),
        looks: u64::from(pulse.looks.load(Ordering::Relaxed)),
        asleep_until: pulse.asleep_until_us.load(Ordering::Relaxed),
    })
}

/// The calling core's registers, for the one that reports.
pub(crate) fn leave_registers(registers: &Registers) {
    if let Some(pulse) = own_pulse().filter(|pulse| !pulse.registers_left.load(Ordering::Relaxed)) {
        // SAFETY: its core alone writes, and has not announced them yet.
        unsafe { (*pulse.registers.get()).write(*registers) };
        pulse.registers_left.store(true, Ordering::Release);
    }
}

/// What core `core` left.
pub(crate) fn registers_left_by(core: usize) -> Option<&'static Registers> {
    let pulse = PULSES.get(core).filter(|pulse| pulse.registers_left.load(Ordering::Acquire))?;
    // SAFETY: announced, so written, and not written again.
    Some(unsafe { (*pulse.registers.get()).assume_init_ref() })
}

/// Stops all other cores that can be stopped, and waits for their registers, for as long as that may take.
pub(crate) fn stop_others() {
    if !can_stop() || shared_if_set().is_none() {
        return;
    }
    let own = core_index();
    let others = || (0..MAX_CORES).filter(|core| *core != own && runs(*core));
    others().for_each(interrupts::stop);
    let deadline_us = micros_or_zero().saturating_add(STOP_LIMIT_US);
    while micros_or_zero() < deadline_us && others().any(|core| registers_left_by(core).is_none()) {
        core::hint::spin_loop();
    }
}
