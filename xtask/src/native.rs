//! The card as a Linux process in a namespace of its own, and user-space hosts beside it: the operator's tool (`dpuctl bench`),
//! and the tests' own (`xtask/native-host`).

use crate::card_log::{Ready, ready};
use crate::command::{Guarded, Step, tail, typed};
use crate::hosted::{self, Build};
use crate::report::{Report, Verdict};
use crate::{interrupt, paths};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long the card may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a check may take.
const CHECK_LIMIT_S: u64 = 600;
/// What the board exits with where the system offers no namespace, or no TAP interface in it (boards/hosted/README.md).
const UNAVAILABLE: i32 = 69;

/// Builds the tests' user-space host and returns its place.
pub fn host(build: Build) -> Result<PathBuf> {
    hosted::build_package("native-host", build)
}

/// Builds the operator's tool and returns its place.
pub fn dpuctl(build: Build) -> Result<PathBuf> {
    hosted::build_package("dpuctl", build)
}

/// Why there is no hosted card here.
#[derive(Debug)]
pub enum Obstacle {
    /// This machine does not permit it.
    Machine(String),
    /// Something broke.
    Error(anyhow::Error),
}

impl From<anyhow::Error> for Obstacle {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

/// A hosted card that serves. Ends with the value.
pub struct HostedCard {
    process: Guarded,
    /// What it said when it was ready.
    pub ready: Ready,
    log: PathBuf,
}

impl HostedCard {
    /// Starts the program of the board with these drives and more arguments of its own.
    pub fn start(card: &Path, drives: &[&str], arguments: &[&str]) -> Result<Self, Obstacle> {
        if let Some(why) = missing() {
            return Err(Obstacle::Machine(why));
        }
        let log = paths::logs()?.join("hosted-card.log");
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = Command::new(card);
        command.arg("--namespace").args(arguments);
        for drive in drives {
            command.args(["--drive", drive]);
        }
        command.stdout(file.try_clone().context("the log")?).stderr(file);
        let mut process = Guarded::spawn(&mut command)?;
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            interrupt::check()?;
            let ended = process.child().try_wait().context("the card")?;
            let text = paths::read(&log)?;
            if let Some(status) = ended {
                let said = text.lines().last().unwrap_or_default().to_owned();
                return Err(ended_early(status, said));
            }
            if let Some(ready) = text.lines().find_map(ready) {
                return Ok(Self { process, ready, log });
            }
            if Instant::now() > deadline {
                let end = tail(&log, 5)?;
                return Err(anyhow::anyhow!("the card is not ready after {READY_LIMIT:?}:\n{end}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A program that runs in the card's namespace.
    pub fn beside(&mut self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let process = self.process.child().id().to_string();
        command.args(["--preserve-credentials", "-U", "-n", "-t", &process]).arg(program);
        command
    }

    /// Its number.
    pub fn process(&mut self) -> u32 {
        self.process.child().id()
    }

    /// Ends it in good order.
    pub fn stop(mut self) -> Result<()> {
        self.process.kill();
        let text = paths::read(&self.log)?;
        if let Some(line) = text.lines().find(|line| line.contains("panicked") || line.contains("*** ")) {
            bail!("the card: {line}");
        }
        Ok(())
    }
}

/// What it means that the card ended before it was ready, with its last words.
fn ended_early(status: ExitStatus, said: String) -> Obstacle {
    match status.code() {
        Some(UNAVAILABLE) => Obstacle::Machine(said),
        _ => anyhow::anyhow!("the card ended ({status}): {said}").into(),
    }
}

/// What this machine lacks.
fn missing() -> Option<String> {
    if !Path::new("/dev/net/tun").exists() {
        return Some("this machine has no /dev/net/tun".to_owned());
    }
    if paths::find_program("nsenter").is_none() {
        return Some("this machine has no `nsenter` (package util-linux)".to_owned());
    }
    None
}

/// `cargo xtask test hosted`: data verified over TAP, with digests and without.
pub fn test(report: &Report) {
    report.part("hosted", || {
        let (host, card) = (host(Build::Checked)?, hosted::build(Build::Checked)?);
        let mut card = match HostedCard::start(&card, &["ram:256M", "ram:256M,block=4096"], &[]) {
            Ok(card) => card,
            Err(Obstacle::Machine(why)) => return Ok(Verdict::Skipped(why)),
            Err(Obstacle::Error(error)) => return Err(error),
        };
        for (digests, seed) in [(true, "1"), (false, "2")] {
            let mut command = card.beside(&host);
            command.args(["--address", &card.ready.place(), "--nqn", &card.ready.nqn]);
            command.arg("--sleep").args(digests.then_some("--digests")).args(["check", "--seed", seed]);
            let label = if digests { "data over TAP, with digests" } else { "data over TAP" };
            let line = typed(&command);
            Step::new(label, command, CHECK_LIMIT_S).run().with_context(|| format!("`{line}`"))?;
        }
        card.stop()?;
        Ok(Verdict::Passed)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn only_a_system_without_namespaces_is_an_excuse() {
        let skipped = |raw| {
            let obstacle = ended_early(ExitStatus::from_raw(raw), "said".to_owned());
            matches!(obstacle, Obstacle::Machine(_))
        };
        assert!(skipped(UNAVAILABLE << 8));
        // Done, a panic, bad input, a signal.
        for raw in [0, 101 << 8, 2 << 8, 9] {
            assert!(!skipped(raw), "{raw:#x}");
        }
    }
}
