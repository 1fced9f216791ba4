//! The host's side of the facade: lines of text on standard error.
//!
//! A process that is a card says by [`configure`] and [`set_core`] what time it is and which core a thread is: its lines
//! then look as those of the card's log do when they are decoded.

use std::cell::Cell;
use std::io::Write;
use std::sync::OnceLock;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// See [`crate::error`].
    Error = 1,
    /// See [`crate::warn`].
    Warn,
    /// See [`crate::info`].
    Info,
    /// See [`crate::debug`].
    Debug,
    /// See [`crate::trace`].
    Trace,
}

impl Level {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];

    fn capitals(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(level, _)| *level == self).map_or("", |(_, name)| name)
    }
}

/// What a process that is a card has said.
#[derive(Clone, Copy)]
struct Card {
    limit: Level,
    micros: fn() -> u64,
}

static CARD: OnceLock<Card> = OnceLock::new();

thread_local! {
    static CORE: Cell<u8> = const { Cell::new(0) };
}

/// Lines get a time and a core. `limit` is printed where `PENSTOCK_LOG` says nothing; `micros` is the time since the start.
/// Once, before the first line.
pub fn configure(limit: Level, micros: fn() -> u64) {
    let _ = CARD.set(Card { limit, micros });
}

/// The calling thread is that core.
pub fn set_core(core: u8) {
    CORE.set(core);
}

/// Whether lines of `level` are printed.
#[must_use]
pub fn enabled(level: Level) -> bool {
    static LIMIT: OnceLock<Option<Level>> = OnceLock::new();
    let limit = LIMIT.get_or_init(|| {
        let default = CARD.get().map_or(Level::Warn, |card| card.limit);
        limit_of(std::env::var("PENSTOCK_LOG").ok().as_deref(), default)
    });
    limit.is_some_and(|limit| level <= limit)
}

/// Prints one line. The card goes on where nobody can read it: a pipe without a reader, a terminal that was closed.
pub fn print(level: Level, message: core::fmt::Arguments<'_>) {
    let line = match CARD.get() {
        Some(card) => card_line((card.micros)(), CORE.get(), level, message),
        None => format!("{:5} {message}", level.name()),
    };
    // `eprintln!` would panic on errors.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A line as `xtask` shows those of the card.
fn card_line(micros: u64, core: u8, level: Level, message: core::fmt::Arguments<'_>) -> String {
    let time = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    format!("{time:>12} {core} {:5} {message}", level.capitals())
}

fn limit_of(setting: Option<&str>, default: Level) -> Option<Level> {
    match setting {
        Some("off") => None,
        Some(name) => Level::ALL.iter().find(|(_, n)| *n == name).map(|(level, _)| *level).or(Some(default)),
        None => Some(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_names_the_most_talkative_level_printed() {
        let limit_of = |setting| super::limit_of(setting, Level::Warn);
        assert_eq!(limit_of(None), Some(Level::Warn));
        assert_eq!(limit_of(Some("trace")), Some(Level::Trace));
        assert_eq!(limit_of(Some("nonsense")), Some(Level::Warn));
        assert_eq!(limit_of(Some("off")), None);
        assert_eq!(super::limit_of(None, Level::Info), Some(Level::Info));
        assert!(Level::Error < Level::Trace);
    }

    #[test]
    fn a_cards_line_has_its_time_core_and_level() {
        let line = card_line(1_500_042, 1, Level::Info, format_args!("link is up"));
        assert_eq!(line, "    1.500042 1 INFO  link is up");
    }
}
