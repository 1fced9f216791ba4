//! QEMU TCG plugin that counts the guest instructions of each virtual core.
//!
//! `-plugin libinstruction_counter.so,path=FILE` keeps FILE up to date, ten times a second, with a line for each
//! virtual core: its index, a blank, and the instructions it has run since the machine was built. (An argument
//! named `file` would be taken by `-plugin` itself.) Counts are added inline at the entry of each translated
//! block, so that a block left early by an exception counts whole: an error of well below one percent.
//!
//! Interface: `qemu-plugin.h`, version 4 (QEMU 9.1 and later). The one place outside `hal/` and `boards/` with
//! unsafe code: it is C's calling convention and runs inside QEMU, never on a card.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

static COUNTER: std::sync::OnceLock<Counter> = std::sync::OnceLock::new();

extern "C" fn block_translated(_id: PluginId, block: *mut c_void) {
    let Some(counter) = COUNTER.get() else { return };
    // SAFETY: QEMU calls this with a block that is valid during the call.
    unsafe {
        let instructions = qemu_plugin_tb_n_insns(block) as u64;
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, INLINE_ADD_U64, *counter, instructions);
    }
}

fn write_counts(path: &Path, counter: Counter) -> std::io::Result<()> {
    let mut text = String::new();
    // SAFETY: plain queries, allowed from any thread once the plugin is installed.
    let cores = unsafe { qemu_plugin_num_vcpus() };
    for core in 0..u32::try_from(cores).unwrap_or(0) {
        // SAFETY: `core` is below the number of virtual cores.
        let count = unsafe { qemu_plugin_u64_get(counter, core) };
        let _ = writeln!(text, "{core} {count}");
    }
    // A reader sees the old or the new file, never half of one.
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    std::fs::rename(partial, path)
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
    let mut path = None;
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller promised `count` strings.
        let argument = unsafe { CStr::from_ptr(*arguments.add(index)) }.to_string_lossy();
        path = path.or(argument.strip_prefix("path=").map(PathBuf::from));
    }
    let Some(path) = path else {
        eprintln!("instruction-counter: say where to write with path=FILE");
        return -1;
    };
    // SAFETY: called from the install function, where QEMU allows it.
    let counter = Counter { score: unsafe { qemu_plugin_scoreboard_new(size_of::<u64>()) }, offset: 0 };
    if COUNTER.set(counter).is_err() {
        eprintln!("instruction-counter: loaded twice");
        return -1;
    }
    // SAFETY: as above; the callback has the signature that QEMU expects.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated) };
    std::thread::spawn(move || {
        while write_counts(&path, counter).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("instruction-counter: cannot write {}", path.display());
    });
    0
}
