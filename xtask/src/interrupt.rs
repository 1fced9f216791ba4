//! Ctrl-C: a flag that every waiting loop looks at, so that guards run and no process is orphaned. A second one
//! waits for no guard: it kills the process groups that are listed here.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Catches Ctrl-C and the termination signals from now on.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            for group in GROUPS.lock().iter().flat_map(|groups| groups.iter()) {
                let _ = killpg(*group, Signal::SIGKILL);
            }
            std::process::exit(130);
        }
    })
    .context("Ctrl-C cannot be caught")
}

/// Lists a process group that must not outlive us.
pub fn guard(group: Pid) {
    if let Ok(mut groups) = GROUPS.lock() {
        groups.push(group);
    }
}

/// Takes a process group off the list: it has ended.
pub fn release(group: Pid) {
    if let Ok(mut groups) = GROUPS.lock() {
        groups.retain(|other| *other != group);
    }
}

/// Whether Ctrl-C came.
pub fn pending() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// An error once Ctrl-C came.
pub fn check() -> Result<()> {
    if pending() {
        bail!("stopped by Ctrl-C");
    }
    Ok(())
}
