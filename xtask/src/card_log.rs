//! The card's serial port as lines of text: frames decoded, raw text passed through.

use crate::log_decoder::{self, Decoder, colour_wanted};
use anyhow::Result;
use regex::Regex;
use std::path::Path;
use std::sync::LazyLock;

/// One line of the card's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// The text alone, without time, core and level: what scenarios judge.
    pub text: String,
    /// With time, core and level, without colour: for log files.
    pub plain: String,
    /// As shown on standard output.
    pub shown: String,
}

impl Line {
    /// The core that has said it.
    pub fn core(&self) -> Option<&str> {
        self.plain.split_whitespace().nth(1).filter(|word| word.parse::<u8>().is_ok())
    }
}

/// Turns the serial port's bytes into lines.
pub struct CardLog(Decoder);

impl CardLog {
    /// For the image whose ELF file that is.
    pub fn new(elf: &Path) -> Result<Self> {
        Decoder::of_file(elf).map(Self)
    }

    /// For a card that is a process.
    pub fn of_process() -> Self {
        Self(Decoder::of_process())
    }

    /// The lines that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0.feed(bytes, &mut |line| lines.push(converted(&line)));
        lines
    }

    /// What stands unfinished when the card has ended.
    pub fn finish(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        self.0.finish(&mut |line| lines.push(converted(&line)));
        lines
    }
}

fn converted(line: &log_decoder::Line) -> Line {
    Line { text: line.text().to_owned(), plain: line.render(false), shown: line.render(colour_wanted()) }
}

/// What the card says when it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Number of namespaces.
    pub namespaces: u32,
    /// The subsystem's name.
    pub nqn: String,
    /// The card's own address.
    pub address: String,
    /// The port that it listens on.
    pub port: u16,
}

/// Reads the ready line: `ready: 4 namespaces of NQN at ADDRESS:PORT`.
pub fn ready(line: &str) -> Option<Ready> {
    static PATTERN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"ready: (\d+) namespaces of (\S+) at (\S+):(\d+)").ok());
    let found = PATTERN.as_ref()?.captures(line)?;
    Some(Ready {
        namespaces: found[1].parse().ok()?,
        nqn: found[2].to_owned(),
        address: found[3].to_owned(),
        port: found[4].parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read_wherever_it_stands() {
        let found = ready("INFO ready: 4 namespaces of nqn.2026-11.io:a at 10.0.0.1:4420").unwrap();
        assert_eq!((found.namespaces, found.port), (4, 4420));
        assert_eq!((found.nqn.as_str(), found.address.as_str()), ("nqn.2026-11.io:a", "10.0.0.1"));
        assert_eq!(ready("nearly ready: 4 namespaces"), None);
    }
}
