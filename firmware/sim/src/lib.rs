//! The card under a virtual clock, with seeded faults.
//!
//! What `app` assembles runs over the fakes of `hal/api`: its cores take turns in seeded order, its drives are slow, lie,
//! hang and lose their power, its network loses and damages frames, its hosts come and go. At every step nothing may be
//! lent twice; each answer is judged; at the end everything is back. A seed decides all of it, so that a failure is a
//! number. See `docs/design/simulator.md`. Host only.
#![forbid(unsafe_code)]

mod card;
mod chaos;
mod drives;
mod faults;
mod host;
mod hostile;
pub mod kinds;
mod media;
mod network;
mod oracle;
mod pattern;
mod rss;
pub mod settings;
pub mod trace;
mod watch;
mod world;

use settings::Settings;
use trace::Trace;

/// Runs a seed. Whatever is wrong panics with the word VIOLATION, or with an assertion of the card's own or of its
/// fakes.
pub fn run_seed(seed: u64, trace: &Trace) {
    let settings = Settings::of_seed(seed);
    world::World::new(&settings, seed, trace).run();
}

/// Has hosts go and come back so many times in all over the worst network; everything must be back at the end.
pub fn run_cycles(seed: u64, cycles: u64, trace: &Trace) {
    let settings = Settings::worst_network(seed);
    world::World::new(&settings, seed, trace).run_cycles(cycles);
}
