//! QEMU TCG plugin that counts the guest instructions of each virtual core.
//!
//! `-plugin libinstruction_counter.so,path=FILE` keeps FILE up to date, ten times a second, with a line for each
//! virtual core: its index, a blank, and the instructions it has run since the machine was built. (An argument
//! named `file` would be taken by `-plugin` itself.) Counts are added inline at the entry of each translated
//! block, so that a block left early by an exception counts whole: an error of well below one percent.
//!
//! `blocks=FILE` in addition says where: a line for each block, with its address, its instructions, and how often each
//! core has entered it, with blanks between.
//!
//! Interface: `qemu-plugin.h`, version 4 (QEMU 9.1 and later). The one place outside `hal/` and `boards/` with
//! unsafe code: it is C's calling convention and runs inside QEMU, never on a card.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Blocks that are counted apart; of further ones only the instructions are.
const MAX_BLOCKS: usize = 1 << 16;

type PluginId = u64;

/// A counter with a place for each virtual core, updated by code that QEMU generates.
#[derive(Clone, Copy)]
#[repr(C)]
struct Counter {
    score: *mut c_void,
    offset: usize,
}

// SAFETY: QEMU keeps the scoreboard alive until the process ends and synchronises its growth itself.
unsafe impl Send for Counter {}
// SAFETY: as above; it is written once, before any thread reads it.
unsafe impl Sync for Counter {}

const INLINE_ADD_U64: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, callback: extern "C" fn(PluginId, *mut c_void));
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const c_void) -> u64;
    fn qemu_plugin_scoreboard_new(element_bytes: usize) -> *mut c_void;
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut c_void,
        operation: c_int,
        counter: Counter,
        immediate: u64,
    );
    fn qemu_plugin_u64_get(counter: Counter, core: u32) -> u64;
    fn qemu_plugin_num_vcpus() -> c_int;
}

/// The version of the interface that this plugin speaks; QEMU looks for the symbol.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// What is counted, and where it is written.
struct Output {
    instructions: Counter,
    counts: PathBuf,
    blocks: Option<Blocks>,
}

/// How often each block was entered.
struct Blocks {
    /// The first block's; the others follow.
    entries: Counter,
    file: PathBuf,
    /// Address and instructions of those that have been translated, in that order. One that is translated again counts on.
    known: Mutex<Vec<(u64, u64)>>,
}

impl Blocks {
    fn counter_at(&self, place: usize) -> Counter {
        Counter { score: self.entries.score, offset: place * size_of::<u64>() }
    }

    /// The place of a block.
    fn counter(&self, block: (u64, u64)) -> Option<Counter> {
        let mut known = self.known.lock().ok()?;
        let place = known.iter().position(|other| *other == block).unwrap_or(known.len());
        if place == known.len() {
            known.push(block);
        }
        (place < MAX_BLOCKS).then(|| self.counter_at(place))
    }

    fn write(&self, cores: u32) -> std::io::Result<()> {
        let mut text = String::new();
        let known = self.known.lock().map(|known| known.clone()).unwrap_or_default();
        for (place, (address, instructions)) in known.iter().enumerate().take(MAX_BLOCKS) {
            let _ = write!(text, "{address:x} {instructions}");
            for core in 0..cores {
                let _ = write!(text, " {}", count(self.counter_at(place), core));
            }
            text.push('\n');
        }
        replace(&self.file, &text)
    }
}

static OUTPUT: OnceLock<Output> = OnceLock::new();

extern "C" fn block_translated(_id: PluginId, block: *mut c_void) {
    let Some(output) = OUTPUT.get() else { return };
    // SAFETY: QEMU calls this with a block that is valid during the call.
    unsafe {
        let instructions = qemu_plugin_tb_n_insns(block) as u64;
        let add = qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu;
        add(block, INLINE_ADD_U64, output.instructions, instructions);
        let here = (qemu_plugin_tb_vaddr(block), instructions);
        if let Some(entered) = output.blocks.as_ref().and_then(|blocks| blocks.counter(here)) {
            add(block, INLINE_ADD_U64, entered, 1);
        }
    }
}

fn count(counter: Counter, core: u32) -> u64 {
    // SAFETY: `core` is below the number of virtual cores.
    unsafe { qemu_plugin_u64_get(counter, core) }
}

impl Output {
    fn write(&self) -> std::io::Result<()> {
        // SAFETY: a plain query, allowed from any thread once the plugin is installed.
        let cores = u32::try_from(unsafe { qemu_plugin_num_vcpus() }).unwrap_or(0);
        if let Some(blocks) = &self.blocks {
            blocks.write(cores)?;
        }
        let mut text = String::new();
        for core in 0..cores {
            let _ = writeln!(text, "{core} {}", count(self.instructions, core));
        }
        replace(&self.counts, &text)
    }
}

/// A reader sees the old or the new file, never half of one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(partial, path)
}

/// A counter, or so many that follow each other, for each core.
fn counters(number: usize) -> Counter {
    // SAFETY: called from the install function, where QEMU allows it.
    Counter { score: unsafe { qemu_plugin_scoreboard_new(number * size_of::<u64>()) }, offset: 0 }
}

/// Entry point: QEMU calls it once, before the machine runs. Returns 0, or -1 where `path=` is missing.
///
/// # Safety
/// `arguments` points at `count` strings that end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let (mut counts, mut blocks) = (None, None);
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller promised `count` strings.
        let argument = unsafe { CStr::from_ptr(*arguments.add(index)) }.to_string_lossy();
        counts = counts.or(argument.strip_prefix("path=").map(PathBuf::from));
        blocks = blocks.or(argument.strip_prefix("blocks=").map(PathBuf::from));
    }
    let Some(counts) = counts else {
        eprintln!("instruction-counter: say where to write with path=FILE");
        return -1;
    };
    let blocks = blocks.map(|file| Blocks { entries: counters(MAX_BLOCKS), file, known: Mutex::default() });
    if OUTPUT.set(Output { instructions: counters(1), counts, blocks }).is_err() {
        eprintln!("instruction-counter: loaded twice");
        return -1;
    }
    // SAFETY: as above; the callback has the signature that QEMU expects.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated) };
    std::thread::spawn(|| {
        let Some(output) = OUTPUT.get() else { return };
        while output.write().is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("instruction-counter: cannot write {}", output.counts.display());
    });
    0
}
