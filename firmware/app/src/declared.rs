//! What was declared before the card started: from the store to the data cores, before any of them runs.

use control::limits::MAX_CONFIGURATION_BYTES;
use control::{Asking, Configuration, ConfigurationStore};
use dataplane::DataCore;
use hal_api::{FrameQueue, Instant, NorFlash, NvmeDevice};
use hal_mem::{Arena, OutOfMemory};
use message::Calls;

/// Memory that [`nothing_declared`] takes.
pub const DECLARED_BYTES: usize = 2 * MAX_CONFIGURATION_BYTES + 64;

/// A configuration in which nothing is declared.
///
/// # Errors
/// [`OutOfMemory`] where the arena has less than [`DECLARED_BYTES`].
pub fn nothing_declared(arena: &mut Arena) -> Result<Configuration<'static>, OutOfMemory> {
    let list = arena.slice(MAX_CONFIGURATION_BYTES, |_| 0)?;
    Ok(Configuration::new(list, arena.slice(MAX_CONFIGURATION_BYTES, |_| 0)?))
}

/// Gives the data cores, none of which runs yet, what is stored. So no host meets the card as it was made.
///
/// What a card refuses now, because its boot arguments or its board have changed, is told in the log, and counts no more.
pub fn declare<F: FrameQueue, D: NvmeDevice + 'static, S: NorFlash>(
    store: ConfigurationStore<'static, S>,
    mut configuration: Configuration<'static>,
    calls: Calls,
    cores: &mut [&'static mut DataCore<F, D>],
    now: Instant,
) -> Asking<'static, S> {
    if store.load().is_some_and(|stored| !configuration.load(stored)) {
        hal_log::error!("some of the stored configuration makes no sense: what stands before that counts");
    }
    let mut restored = 0u32;
    for change in configuration.changes() {
        // The registrar last, as when an operator says it.
        let results = cores.iter_mut().rev().map(|core| core.restore(&change, now));
        match results.fold(Ok(()), Result::and) {
            Ok(()) => restored += 1,
            Err(error) => {
                hal_log::error!("stored change {} does not fit this card: {}", restored, error.sentence());
            }
        }
    }
    if restored > 0 {
        hal_log::info!("{} changes of the configuration restored", restored);
    }
    Asking::new(calls, configuration, store)
}
