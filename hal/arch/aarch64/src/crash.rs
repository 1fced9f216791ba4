//! The end of a card with a bug: a record that survives the reset, a report on the console, the restart; and what the
//! next start makes of it.
//!
//! It has to work with whatever is broken: no lock, no allocation, nothing that waits without a limit, and a crash in
//! here does not come here again.

use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hal_crash::{
    COUNTERS_BYTES, CoreState, Counters, Kind, LOG_BYTES, Record, Registers, Tag, Writer, lines_of,
};
use hal_devices::device_tree::Machine;

use crate::backtrace::{self, backtrace};
use crate::registers::wait_for_interrupt;
use crate::{MAX_CORES, core_index, image, micros_or_zero, psci, raw_console, raw_println, watchdog};

/// Crashes in a row after which the card takes its time to restart.
const MOST_IN_A_ROW: u32 = 3;
/// How long it waits then.
const WAIT_S: u64 = 60;
/// A card that has served for so long before it crashed is not in a row.
const SERVED_US: u64 = 60_000_000;
/// A stopped core restarts the card by itself when the one that reports has not done so.
const REPORT_LIMIT_US: u64 = (WAIT_S + 30) * 1_000_000;
/// Most bytes of a record's text.
const REASON_BYTES: usize = 512;

/// The core that reports, plus one; others that fail keep still.
static REPORTER: AtomicU64 = AtomicU64::new(0);
/// How often the reporter has come here.
static DEPTH: AtomicU32 = AtomicU32::new(0);
/// Since when the card serves, in microseconds; 0 for not yet.
static SERVING_SINCE: AtomicU64 = AtomicU64::new(0);
/// The boot argument that asks for what is about to happen.
static FAULT_WORD: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static FAULT_WORD_BYTES: AtomicUsize = AtomicUsize::new(0);
/// The log's two ways out; null where there is none.
static LOG: AtomicPtr<LogHooks> = AtomicPtr::new(core::ptr::null_mut());

/// Whether the region may be used: before the device tree is read it is, since it is DRAM behind the image.
static REGION: AtomicU8 = AtomicU8::new(USABLE);
const USABLE: u8 = 0;
const TAKEN: u8 = 1;

/// What a crash asks of the log.
#[derive(Debug)]
pub struct LogHooks {
    /// Hands out unread bytes, one by one: they go to the console ahead of the report.
    pub flush: fn(&mut dyn FnMut(u8)),
    /// Hands out the last bytes of a core's log, at most so many, for the record.
    pub history: fn(usize, usize, &mut dyn FnMut(u8)),
}

/// Says how the log is read in a crash.
pub fn on_crash(hooks: &'static LogHooks) {
    LOG.store(core::ptr::from_ref(hooks).cast_mut(), Ordering::Release);
}

fn log_hooks() -> Option<&'static LogHooks> {
    // SAFETY: null, or what `on_crash` took from a `&'static LogHooks`.
    unsafe { LOG.load(Ordering::Acquire).as_ref() }
}

/// The card serves hosts: from 60 s on, a crash is not in a row with the one before.
pub fn serving() {
    if SERVING_SINCE.load(Ordering::Relaxed) == 0 {
        SERVING_SINCE.store(micros_or_zero().max(1), Ordering::Relaxed);
    }
}

/// Notes that what comes now was asked for by a boot argument.
pub(crate) fn asked_for_by(word: &'static str) {
    FAULT_WORD_BYTES.store(word.len(), Ordering::Relaxed);
    FAULT_WORD.store(word.as_ptr().cast_mut(), Ordering::Release);
}

fn fault_word() -> Option<&'static [u8]> {
    let start = FAULT_WORD.load(Ordering::Acquire);
    // SAFETY: not null, so both are of the `&'static str` that `asked_for_by` got.
    (!start.is_null())
        .then(|| unsafe { core::slice::from_raw_parts(start, FAULT_WORD_BYTES.load(Ordering::Relaxed)) })
}

/// What the region has to say of crashes since the card got power.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CrashCounts {
    /// All of them.
    pub crashes: u32,
    /// Those one after the other, without 60 s of service in between.
    pub in_a_row: u32,
}

/// Crashes since the card got power.
#[must_use]
pub fn crash_counts() -> CrashCounts {
    let counters = region().map_or_else(Counters::default, Counters::read);
    CrashCounts { crashes: counters.crashes, in_a_row: counters.in_a_row }
}

/// Where the region is; `None` where it cannot be used.
pub(crate) fn region_address() -> Option<core::ops::Range<u64>> {
    (REGION.load(Ordering::Relaxed) == USABLE).then(image::crash)
}

/// The region, for reading; not while a crash is being recorded.
fn region() -> Option<&'static [u8]> {
    let range = region_address()?;
    // SAFETY: mapped Normal, and written by `begin_boot` (before others run) and by the reporter of a crash alone.
    Some(unsafe { core::slice::from_raw_parts(range.start as *const u8, (range.end - range.start) as usize) })
}

/// # Safety
/// Nobody else uses the region: the first core before others run, or the one that reports a crash.
unsafe fn region_to_write() -> Option<&'static mut [u8]> {
    let range = region_address()?;
    // SAFETY: the caller's promise; mapped Normal.
    Some(unsafe {
        core::slice::from_raw_parts_mut(range.start as *mut u8, (range.end - range.start) as usize)
    })
}

/// Writes the region's lines back to memory, where a reset leaves them.
fn clean_region() {
    /// The smallest line that a core can have.
    const LINE: usize = 16;
    for address in region_address().unwrap_or_default().step_by(LINE) {
        // SAFETY: writes a line back to memory.
        unsafe { core::arch::asm!("dc cvac, {}", in(reg) address, options(nostack, preserves_flags)) };
    }
    crate::registers::dsb_isb();
}

/// Gives the region up where it is not plain DRAM of this machine, or where `taken` lies in it. Before the memory map.
pub(crate) fn check_region(machine: &Machine, taken: &core::ops::Range<u64>) {
    let region = image::crash();
    let inside = machine.memory.iter().any(|range| range.start <= region.start && region.end <= range.end);
    let mut others = machine.reserved.iter().chain([taken]);
    if !inside || others.any(|other| other.start < region.end && region.start < other.end) {
        REGION.store(TAKEN, Ordering::Relaxed);
        raw_println!("the crash record's memory belongs to someone else: none is kept");
    }
}

/// Counts this start, and shows the record of a crash once, in lines for machines and in one for people. On the first
/// core, before others run.
pub(crate) fn begin_boot() {
    // SAFETY: the first core, before others run.
    let Some(region) = (unsafe { region_to_write() }) else { return };
    let mut counters = Counters::read(region);
    counters.boots = counters.boots.saturating_add(1);
    counters.write(region);
    if let Ok(record) = Record::read(region)
        && !record.shown
    {
        for line in lines_of(record.bytes()) {
            raw_println!("{line}");
        }
        let (kind, core) = record.kind().map_or(("an unknown crash", 0), |(kind, core)| (kind.name(), core));
        let uptime = record.number(Tag::Uptime).unwrap_or(0);
        raw_println!(
            "restarted after a crash: {kind} on core {core}, {}.{:06} s after its start: {}",
            uptime / 1_000_000,
            uptime % 1_000_000,
            record.text(Tag::Reason).unwrap_or("no reason was written")
        );
        raw_println!("crashes since power-on: {}, in a row: {}", counters.crashes, counters.in_a_row);
        Record::mark_shown(region);
    }
    clean_region();
}

/// Whether the start before this one ended in the crash that `word` asks for.
pub(crate) fn ended_in(word: &str) -> bool {
    let Some(region) = region() else { return false };
    let Ok(record) = Record::read(region) else { return false };
    let last = u64::from(Counters::read(region).boots).checked_sub(1);
    record.text(Tag::Fault) == Some(word) && last.is_some() && record.number(Tag::Boot) == last
}

/// What ends the card's run.
pub(crate) struct Crash<'a> {
    /// What kind of bug.
    pub(crate) kind: Kind,
    /// The core that failed.
    pub(crate) core: usize,
    /// What happened, for people.
    pub(crate) reason: fmt::Arguments<'a>,
    /// What the calling core was doing.
    pub(crate) registers: &'a Registers,
}

/// Keeps, reports, restarts. With all interrupts masked, on an exception stack.
pub(crate) fn crash(crash: &Crash<'_>) -> ! {
    become_reporter(crash.registers);
    match DEPTH.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        1 => nested(crash),
        _ => psci::reset(),
    }
    let in_a_row = record(crash);
    if let Some(hooks) = log_hooks() {
        let mut console = raw_console();
        (hooks.flush)(&mut |byte| console.write_byte(byte));
    }
    report(crash);
    if in_a_row >= MOST_IN_A_ROW {
        raw_println!("*** {in_a_row} crashes in a row: waiting {WAIT_S} s before the restart");
        wait_until(micros_or_zero().saturating_add(WAIT_S * 1_000_000));
    }
    raw_println!("*** restarting");
    psci::reset()
}

/// A crash while one is being reported: a word of it, and the restart.
fn nested(crash: &Crash<'_>) -> ! {
    // SAFETY: the reporter; what it was writing before is given up.
    if let Some(mut writer) = unsafe { region_to_write() }.and_then(Writer::resume) {
        writer.text(Tag::Nested, crash.core, REASON_BYTES, crash.reason);
        writer.registers(crash.core, crash.registers);
        writer.seal();
    }
    clean_region();
    raw_println!("\n*** a crash while a crash was reported: {}", crash.reason);
    psci::reset()
}

/// Returns on the first core that asks (again and again, if it fails while reporting); others stop.
fn become_reporter(registers: &Registers) {
    let own = core_index() as u64 + 1;
    if let Err(other) = REPORTER.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed)
        && other != own
    {
        stop(registers)
    }
}

/// Leaves the calling core's registers to the reporter, and keeps still until the card restarts.
pub(crate) fn stop(registers: &Registers) -> ! {
    watchdog::leave_registers(registers);
    wait_until(micros_or_zero().saturating_add(REPORT_LIMIT_US));
    psci::reset()
}

/// Waits, asleep where that can be had, until the clock says `deadline_us`; not at all where there is no clock yet.
fn wait_until(deadline_us: u64) {
    while (1..deadline_us).contains(&micros_or_zero()) {
        if watchdog::set_wait_alarm() {
            wait_for_interrupt();
        }
        core::hint::spin_loop();
    }
}

/// Writes the record; returns how many crashes there were in a row.
fn record(crash: &Crash<'_>) -> u32 {
    // SAFETY: the reporter, and the first time that it comes here.
    let Some(region) = (unsafe { region_to_write() }) else {
        watchdog::stop_others();
        return 0;
    };
    let (now, since) = (micros_or_zero(), SERVING_SINCE.load(Ordering::Relaxed));
    let served = since != 0 && now.saturating_sub(since) >= SERVED_US;
    let counters = Counters::read(region).after_crash(served);
    counters.write(region.get_mut(..COUNTERS_BYTES).unwrap_or_default());
    let mut writer = Writer::begin(region);
    writer.item(Tag::Kind, crash.core, &[crash.kind as u8]);
    writer.text(Tag::Reason, crash.core, REASON_BYTES, crash.reason);
    writer.item(Tag::Uptime, crash.core, &now.to_le_bytes());
    writer.item(Tag::Image, crash.core, image::build_id());
    writer.item(Tag::Boot, crash.core, &counters.boots.to_le_bytes());
    if let Some(word) = fault_word() {
        writer.item(Tag::Fault, crash.core, word);
    }
    let own = core_index();
    let state = if own == crash.core { CoreState::Failed } else { CoreState::Stopped };
    record_core(&mut writer, own, state, Some(crash.registers));
    watchdog::stop_others();
    for core in (0..MAX_CORES).filter(|core| *core != own && watchdog::runs(*core)) {
        let left = watchdog::registers_left_by(core);
        let state = match left {
            Some(_) if core == crash.core => CoreState::Failed,
            Some(_) => CoreState::Stopped,
            None if watchdog::can_stop() => CoreState::Silent,
            None => CoreState::Unknown,
        };
        record_core(&mut writer, core, state, left);
    }
    if let Some(hooks) = log_hooks() {
        for core in 0..MAX_CORES {
            record_log(&mut writer, core, hooks);
        }
    }
    writer.seal();
    clean_region();
    counters.in_a_row
}

fn record_core(writer: &mut Writer<'_>, core: usize, state: CoreState, registers: Option<&Registers>) {
    let life = watchdog::life_of(core);
    writer.item(Tag::State, core, &[state as u8]);
    writer.life(core, life);
    // A parked core has nothing to tell but where it is parked.
    if let Some(registers) = registers.filter(|_| life.asleep_until != u64::MAX) {
        writer.registers(core, registers);
        writer.backtrace(core, backtrace(registers));
    }
}

fn record_log(writer: &mut Writer<'_>, core: usize, hooks: &LogHooks) {
    let mut bytes = [0u8; LOG_BYTES];
    let mut used = 0;
    (hooks.history)(core, LOG_BYTES, &mut |byte| {
        if let Some(place) = bytes.get_mut(used) {
            *place = byte;
            used += 1;
        }
    });
    // What was never written reads as zeros.
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(used);
    if let Some(log) = bytes.get(start.saturating_sub(1)..used).filter(|log| log.len() > 1) {
        writer.item(Tag::Log, core, log);
    }
}

/// Prints what happened for whoever watches the console.
fn report(crash: &Crash<'_>) {
    let registers = crash.registers;
    let class = match crash.kind {
        Kind::Panic => "panic",
        Kind::Exception | Kind::StackOverflow => "exception",
        Kind::Stuck | Kind::Silent => "watchdog",
    };
    raw_println!("\n*** {class} on core {}: {}", crash.core, crash.reason);
    raw_println!("    ESR {:#018x}  FAR {:#018x}", registers.syndrome, registers.fault_address);
    raw_println!("    ELR {:#018x}  SPSR {:#018x}", registers.return_address, registers.saved_state);
    raw_println!("    SP  {:#018x}", registers.stack_pointer);
    for (row, values) in registers.general.chunks(4).enumerate() {
        let at = |index: usize| values.get(index).copied().unwrap_or(0);
        raw_println!("    x{:<2} {:#018x} {:#018x} {:#018x} {:#018x}", row * 4, at(0), at(1), at(2), at(3));
    }
    raw_println!("    backtrace:");
    for address in backtrace(registers).take(backtrace::MOST_FRAMES) {
        raw_println!("               {address:#x}");
    }
}
