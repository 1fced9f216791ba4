//! What has happened in a run: a running hash that two runs of a seed must share, counters that show what a seed has
//! reached, and lines for a reader where somebody wants to read them.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal_api::Instant;

use crate::kinds::Kind;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    Silent,
    /// What hosts, drives, chaos and the card do.
    Events,
    /// Each frame and each turn as well.
    All,
}

struct Inner {
    now: Instant,
    hash: u64,
    events: u64,
    counts: Vec<u64>,
    detail: Detail,
    sink: Option<Box<dyn Write + Send>>,
}

/// A handle on the record of a run.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    /// An empty record; lines go to `sink`.
    #[must_use]
    pub fn new(detail: Detail, sink: Option<Box<dyn Write + Send>>) -> Self {
        let counts = vec![0; Kind::ALL.len()];
        Self(Arc::new(Mutex::new(Inner { now: Instant::ZERO, hash: 0, events: 0, counts, detail, sink })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time goes on.
    pub fn set_now(&self, now: Instant) {
        self.lock().now = now;
    }

    /// Something happened: it is counted, hashed with `values`, and told by `text`.
    pub fn event(&self, kind: Kind, values: &[u64], text: Arguments<'_>) {
        self.record(kind, values, Detail::Events, text);
    }

    /// The same for what happens all the time.
    pub fn detail(&self, kind: Kind, values: &[u64], text: Arguments<'_>) {
        self.record(kind, values, Detail::All, text);
    }

    fn record(&self, kind: Kind, values: &[u64], from: Detail, text: Arguments<'_>) {
        let mut inner = self.lock();
        let now = inner.now.as_micros();
        inner.counts[kind as usize] += 1;
        inner.events += 1;
        let mut hash = mixed(inner.hash, now);
        hash = mixed(hash, kind as u64);
        for &value in values {
            hash = mixed(hash, value);
        }
        inner.hash = hash;
        if inner.detail >= from
            && let Some(sink) = &mut inner.sink
        {
            // A trace that cannot be written is no reason to judge the card otherwise.
            let _ =
                writeln!(sink, "{:>6}.{:06} {:<20} {text}", now / 1_000_000, now % 1_000_000, kind.name());
        }
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// How often each kind happened, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.lock().counts.clone()
    }
}

fn mixed(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A number made of bytes, for hashing contents.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(bytes.len() as u64, mixed)
}
