//! The card's serial port as lines of text: frames decoded, raw text passed through.

use crate::log_decoder::{self, Decoder, colour_wanted};
use anyhow::Result;
use regex::Regex;
use std::collections::BTreeSet;
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

impl Ready {
    /// Address and port.
    pub fn place(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }
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

/// What some core's pools hold that they did not hold before the first host came; each core speaks for itself.
pub fn kept(lines: &[Line], idle: &Regex) -> Option<String> {
    let cores: BTreeSet<Option<&str>> = lines.iter().map(Line::core).collect();
    let mut has_spoken = false;
    for core in cores {
        let lines = || lines.iter().filter(|line| line.core() == core).map(|line| line.text.as_str());
        let Some(first) = lines().find(|line| idle.is_match(line)) else { continue };
        has_spoken = true;
        // Behind it a host came: then it is not the last word.
        let comes = |line: &str| line.contains(": connected by ") || line.contains(": has queues here");
        let last = lines().rev().take_while(|line| !comes(line)).find(|line| idle.is_match(line));
        let last = last.unwrap_or("a host is connected");
        if first != last {
            let core = core.unwrap_or("-");
            return Some(format!("core {core} at first: {first}\nafterwards:     {last}"));
        }
    }
    (!has_spoken).then(|| "no core has said what its pools hold".to_owned())
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

    #[test]
    fn each_core_keeps_what_it_keeps() {
        let line = |core: u8, text: &str| Line {
            text: text.to_owned(),
            plain: format!("  1.0 {core} INFO  {text}"),
            shown: String::new(),
        };
        let idle = Regex::new("^free: ").unwrap();
        let mut lines = vec![line(1, "free: 8"), line(2, "free: 7")];
        assert_eq!(kept(&lines, &idle), None);
        lines.push(line(2, "controller 3: connected by somebody"));
        assert!(kept(&lines, &idle).unwrap().contains("a host is connected"));
        lines.push(line(2, "free: 7"));
        assert_eq!(kept(&lines, &idle), None);
        // What one core says is no excuse for another.
        lines.extend([line(1, "controller 3: has queues here, its home is data core 1"), line(1, "free: 7")]);
        assert!(kept(&lines, &idle).unwrap().contains("core 1 at first: free: 8"));
        assert!(kept(&lines[..0], &idle).is_some());
    }
}
