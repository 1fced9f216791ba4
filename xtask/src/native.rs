//! The card as a Linux process in a namespace of its own, and the user-space host (`xtask/native-host`) beside it.

use crate::card_log::{Ready, ready};
use crate::command::{Guarded, Step, tail, typed};
use crate::hosted::{self, Build};
use crate::report::{Report, Verdict};
use crate::{interrupt, paths};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long the card may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a check may take.
const CHECK_LIMIT_S: u64 = 600;
/// What the board exits with where the system offers no namespace, or no TAP interface in it (boards/hosted/README.md).
const UNAVAILABLE: i32 = 69;

/// The two programs.
pub struct Programs {
    card: PathBuf,
    host: PathBuf,
}

impl Programs {
    /// Builds both.
    pub fn build(build: Build) -> Result<Self> {
        Ok(Self { host: host(build)?, card: hosted::build(build)? })
    }
}

/// Builds the user-space host and returns its place.
pub fn host(build: Build) -> Result<PathBuf> {
    hosted::build_package("native-host", build)
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
    ready: Ready,
    log: PathBuf,
    host: PathBuf,
}

impl HostedCard {
    /// Starts the board with these drives and more arguments of its own.
    pub fn start(programs: &Programs, drives: &[&str], arguments: &[&str]) -> Result<Self, Obstacle> {
        if let Some(why) = missing() {
            return Err(Obstacle::Machine(why));
        }
        let log = paths::logs()?.join("hosted-card.log");
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = Command::new(&programs.card);
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
                return Ok(Self { process, ready, log, host: programs.host.clone() });
            }
            if Instant::now() > deadline {
                let end = tail(&log, 5)?;
                return Err(anyhow::anyhow!("the card is not ready after {READY_LIMIT:?}:\n{end}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The user-space host in the card's namespace, told where the card is.
    pub fn host(&mut self) -> Command {
        let mut command = Command::new("nsenter");
        let process = self.process.child().id().to_string();
        command.args(["--preserve-credentials", "-U", "-n", "-t", &process]).arg(&self.host);
        command.args(["--nqn", &self.ready.nqn]);
        command.args(["--address", &format!("{}:{}", self.ready.address, self.ready.port)]);
        command
    }

    /// Its number.
    pub fn process(&mut self) -> u32 {
        self.process.child().id()
    }

    /// Ends it in good order.
    fn stop(mut self) -> Result<()> {
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
    if !std::path::Path::new("/dev/net/tun").exists() {
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
        let programs = Programs::build(Build::Checked)?;
        let mut card = match HostedCard::start(&programs, &["ram:256M", "ram:256M,block=4096"], &[]) {
            Ok(card) => card,
            Err(Obstacle::Machine(why)) => return Ok(Verdict::Skipped(why)),
            Err(Obstacle::Error(error)) => return Err(error),
        };
        for (digests, seed) in [(true, "1"), (false, "2")] {
            let mut command = card.host();
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
