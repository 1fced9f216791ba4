//! `cargo xtask test linux`: a real Linux NVMe/TCP host, in its own virtual machine, against the card.

use crate::accelerator;
use crate::card_log::{CardLog, Ready, ready};
use crate::command::tail;
use crate::cpio::Archive;
use crate::guest::{self, Guest};
use crate::image::{self, Image};
use crate::paths::{self, SocketFolder};
use crate::qemu::{self, Drive, Machine};
use crate::report::{Report, Verdict};
use crate::setup;
use crate::vm::Vm;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use regex::{Captures, Regex};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The guest that plays the host.
const GUEST: &str = "linux-host";
/// How long the card may take to be ready, and the host to be up.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long the card may take to forget its last host: longer than the keep-alive time-out.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// What the host talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// The card
    Card,
    /// Linux's own target inside the same virtual machine: proves the tests, not the card
    Nvmet,
}

/// How to run the tests of a real Linux host.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only this test, a file of qemu/guests/linux-host/tests without its `.sh`
    #[arg(value_name = "TEST")]
    only: Option<String>,
    /// The long form: 1 GiB of verified I/O, 200 cycles
    #[arg(long)]
    full: bool,
    /// What the host talks to
    #[arg(long, value_enum, default_value_t = Against::Card)]
    against: Against,
    /// Processors of the host
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    host_smp: u32,
    /// A variable for the tests, such as TOTAL_MB=64 or CYCLES=200
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Options {
    /// The short suite, or the long one, against the card.
    pub fn all(full: bool) -> Self {
        Self { only: None, full, against: Against::Card, host_smp: 2, set: Vec::new() }
    }
}

/// A file of `tests/`; its `#: name value` lines say how to run it.
struct Test {
    name: String,
    text: String,
}

impl Test {
    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("#: "));
        lines
            .filter_map(|line| line.split_once(' '))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }

    fn limit(&self, full: bool) -> Result<Duration> {
        let long = self.field("full_limit_s").filter(|_| full);
        let value = long.or(self.field("limit_s")).context("`#: limit_s` is missing")?;
        Ok(Duration::from_secs(value.parse().context("`#: limit_s` is no number")?))
    }

    fn stages(&self) -> u32 {
        self.field("stages").and_then(|value| value.parse().ok()).unwrap_or(1)
    }
}

/// Runs the tests of a Linux host.
pub fn run(report: &mut Report, options: &Options) -> Result<()> {
    if let Some(why) = guest::obstacle() {
        report.part("linux", || Ok(Verdict::Skipped(why)));
        return Ok(());
    }
    let tests = tests(options.only.as_deref())?;
    setup::qemu()?;
    let image = match options.against {
        Against::Card => Some(image::build("qemu-aarch64", false)?),
        Against::Nvmet => None,
    };
    let guest = guest::prepare(GUEST)?;
    let accelerator = accelerator::choose(&guest.kernel)?;
    for test in &tests {
        if options.against == Against::Nvmet && test.stages() > 1 {
            report.part(&format!("linux {}", test.name), || {
                Ok(Verdict::Skipped("the target would die with its host".to_owned()))
            });
            continue;
        }
        let session = Session { test, options, guest: &guest, accelerator, image: image.as_ref() };
        report.check(&format!("linux {}", test.name), || session.run());
    }
    Ok(())
}

fn tests(only: Option<&str>) -> Result<Vec<Test>> {
    let folder = paths::root()?.join("qemu/guests").join(GUEST).join("tests");
    let mut tests = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let file = entry?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        tests.push(Test { name, text: paths::read(&file)? });
    }
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<String> = tests.iter().map(|test| test.name.clone()).collect();
    tests.retain(|test| only.is_none_or(|only| only == test.name));
    if tests.is_empty() {
        bail!("there is no such test; there are: {}", names.join(", "));
    }
    Ok(tests)
}

/// One test: a card, and one host after the other.
struct Session<'a> {
    test: &'a Test,
    options: &'a Options,
    guest: &'a Guest,
    accelerator: &'static str,
    image: Option<&'a Image>,
}

impl Session<'_> {
    fn run(&self) -> Result<()> {
        let name = &self.test.name;
        println!("{name}: {}", self.test.field("proves").unwrap_or_default());
        let outcome = self.play();
        outcome.map_err(|error| {
            let log = |part: &str| paths::logs().map(|logs| logs.join(format!("linux-{name}-{part}.log")));
            let mut text = format!("repeat with `cargo xtask test linux {name}`\n");
            for part in ["card", "host"] {
                if let Some(log) =
                    log(part).ok().filter(|log| log.is_file() && (part == "host" || self.image.is_some()))
                {
                    text.push_str(&format!(
                        "--- {}\n{}\n",
                        log.display(),
                        tail(&log, 25).unwrap_or_default()
                    ));
                }
            }
            error.context(text)
        })
    }

    fn play(&self) -> Result<()> {
        let sockets = SocketFolder::new()?;
        let wire = sockets.socket("wire");
        let mut card = match self.image {
            Some(image) => Some(Card::start(image, &wire, &self.test.name)?),
            None => None,
        };
        let served = card.as_ref().map(|card| card.ready.clone());
        let deadline = Instant::now() + self.test.limit(self.options.full)?;
        let log = paths::logs()?.join(format!("linux-{}-host.log", self.test.name));
        let mut last_host_started = 0;
        for stage in 1..=self.test.stages() {
            last_host_started = card.as_ref().map_or(0, |card| card.lines.len());
            let environment = self.environment(served.as_ref(), stage);
            let mut host = Host::start(self, &environment, served.is_some().then_some(&*wire), &log)?;
            let ending = host.follow(card.as_mut(), deadline)?;
            if ending == Ending::Kill && stage == self.test.stages() {
                bail!("the last stage asked to be killed");
            }
        }
        match card {
            Some(mut card) => card.afterwards(self.test, last_host_started),
            None => Ok(()),
        }
    }

    /// Shell variables of the tests.
    fn environment(&self, card: Option<&Ready>, stage: u32) -> String {
        let mut text = format!("FULL={}\nSTAGE={stage}\n", u32::from(self.options.full));
        match card {
            Some(card) => {
                let Ready { namespaces, nqn, address, port } = card;
                text += &format!(
                    "TARGET=card\nADDRESS={address}\nPORT={port}\nNQN={nqn}\nNAMESPACES={namespaces}\nLACKS=\n"
                );
            }
            None => {
                text +=
                    "TARGET=nvmet\nADDRESS=127.0.0.1\nPORT=4420\nNQN=nqn.2014-08.test:nvmet\nNAMESPACES=4\n";
                // Linux's target over a RAM disk knows neither.
                text += "LACKS=\"compare verify\"\n";
            }
        }
        for variable in &self.options.set {
            text += &format!("{variable}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_says_what_it_proves_and_how_long_it_may_take() {
        for test in tests(None).unwrap() {
            assert!(test.field("proves").is_some(), "{}", test.name);
            assert!(test.limit(true).unwrap() >= test.limit(false).unwrap(), "{}", test.name);
        }
    }
}
