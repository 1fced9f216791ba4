//! Ctrl-C: a flag that every waiting loop looks at, so that guards run and no process is orphaned.

use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C and the termination signals from now on.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        // A second Ctrl-C does not wait for guards.
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("Ctrl-C cannot be caught")
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
