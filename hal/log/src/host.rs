//! The host's side of the facade: lines of text on standard error.

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

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(level, _)| *level == self).map_or("", |(_, name)| name)
    }
}

/// Whether lines of `level` are printed.
#[must_use]
pub fn enabled(level: Level) -> bool {
    static LIMIT: OnceLock<Option<Level>> = OnceLock::new();
    let limit = LIMIT.get_or_init(|| limit_of(std::env::var("PENSTOCK_LOG").ok().as_deref()));
    limit.is_some_and(|limit| level <= limit)
}

/// Prints one line.
pub fn print(level: Level, message: core::fmt::Arguments<'_>) {
    eprintln!("{:5} {message}", level.name());
}

fn limit_of(setting: Option<&str>) -> Option<Level> {
    match setting {
        Some("off") => None,
        Some(name) => {
            Level::ALL.iter().find(|(_, n)| *n == name).map(|(level, _)| *level).or(Some(Level::Warn))
        }
        None => Some(Level::Warn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_names_the_most_talkative_level_printed() {
        assert_eq!(limit_of(None), Some(Level::Warn));
        assert_eq!(limit_of(Some("trace")), Some(Level::Trace));
        assert_eq!(limit_of(Some("nonsense")), Some(Level::Warn));
        assert_eq!(limit_of(Some("off")), None);
        assert!(Level::Error < Level::Trace);
    }
}
