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

/// The card of a test: four drives, one of them with 4096-byte blocks, on a wire to the host.
struct Card {
    vm: Vm,
    log: CardLog,
    lines: Vec<String>,
    copy: std::fs::File,
    ready: Ready,
}

impl Card {
    fn start(image: &Image, wire: &Path, test: &str) -> Result<Self> {
        let mut command = Machine::of("qemu-aarch64")?.command();
        command.arg("-no-reboot").arg("-kernel").arg(&image.flat).args(["-append", "ip=10.0.0.1/24"]);
        let folder = paths::state()?.join("test-drives").join(format!("linux-{test}"));
        // Each test starts with empty drives.
        let _ = std::fs::remove_dir_all(&folder);
        for number in 0..4 {
            let block_size = if number == 3 { 4096 } else { 512 };
            let name = format!("test-drive{number}");
            Drive { name, size: "1G".to_owned(), block_size, ..Drive::default() }
                .add(&mut command, &folder)?;
        }
        qemu::add_port(
            &mut command,
            0,
            &format!("stream,server=on,addr.type=unix,addr.path={}", qemu::escaped(wire)),
        );
        let logs = paths::logs()?;
        let vm = Vm::start(&mut command, &logs.join(format!("linux-{test}-card.serial")))?;
        let copy = std::fs::File::create(logs.join(format!("linux-{test}-card.log")))?;
        let nobody = Ready { namespaces: 0, nqn: String::new(), address: String::new(), port: 0 };
        let mut card = Self { vm, log: CardLog::new(&image.elf)?, lines: Vec::new(), copy, ready: nobody };
        let deadline = Instant::now() + BOOT_LIMIT;
        let mut seen = 0;
        while Instant::now() < deadline {
            card.listen(Duration::from_millis(50))?;
            if let Some(ready) = card.lines[seen..].iter().find_map(|line| ready(line)) {
                card.ready = ready;
                return Ok(card);
            }
            seen = card.lines.len();
        }
        bail!("the card is not ready after {} s", BOOT_LIMIT.as_secs())
    }

    /// Takes what the card says; an error when it ended or panicked.
    fn listen(&mut self, wait: Duration) -> Result<()> {
        let bytes = self.vm.read(wait).context("the card")?;
        for line in self.log.feed(&bytes) {
            writeln!(self.copy, "{}", line.plain)?;
            let bad = line.text.starts_with("*** ");
            self.lines.push(line.text);
            if bad {
                bail!("the card broke down");
            }
        }
        Ok(())
    }

    /// `#: same REGEX`: once the last host is gone, the card's log has such a line again, and its match is the first
    /// one's. Where the pattern has two groups, they are equal too (so many free of so many).
    fn afterwards(&mut self, test: &Test, last_host_started: usize) -> Result<()> {
        let Some(pattern) = test.field("same") else { return Ok(()) };
        let pattern = Regex::new(pattern)?;
        let deadline = Instant::now() + IDLE_LIMIT;
        loop {
            self.listen(Duration::from_millis(200))?;
            let first = self.lines.iter().find_map(|line| pattern.captures(line));
            let last = self.lines[last_host_started..].iter().rev().find_map(|line| pattern.captures(line));
            let whole = last.as_ref().is_some_and(|last| match (last.get(1), last.get(2)) {
                (Some(free), Some(all)) => free.as_str() == all.as_str(),
                _ => true,
            });
            let text = |found: &Option<Captures>| {
                found.as_ref().map_or_else(|| "no such line".to_owned(), |found| found[0].to_owned())
            };
            let (first, last) = (text(&first), text(&last));
            if whole && first == last {
                println!("  the card afterwards: {last}");
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the card keeps something\nat first:   {first}\nafterwards: {last}");
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Done,
    Kill,
}

/// The Linux host's machine.
struct Host {
    vm: Vm,
    partial: Vec<u8>,
    step_started: Instant,
    failed: Vec<String>,
    _initramfs: TemporaryFile,
}

impl Host {
    fn start(session: &Session, environment: &str, wire: Option<&Path>, log: &Path) -> Result<Self> {
        let folder = paths::root()?.join("qemu/guests").join(GUEST);
        let mut archive = Archive::new();
        archive.file("test/environment", environment.as_bytes());
        archive.file("test/run.sh", session.test.text.as_bytes());
        for name in ["lib.sh", "nvmet.sh"] {
            archive.file(&format!("test/{name}"), &std::fs::read(folder.join(name))?);
        }
        let initramfs = TemporaryFile(paths::state()?.join(format!("initramfs-{}", std::process::id())));
        let mut file = std::fs::File::create(&initramfs.0)?;
        file.write_all(&session.guest.initramfs)?;
        file.write_all(&archive.finish())?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ]);
        command.args(["-M", "q35", "-m", if wire.is_some() { "1G" } else { "4G" }]);
        command.args(["-smp", &session.options.host_smp.to_string()]);
        command.args(["-accel", session.accelerator, "-cpu", "max"]);
        command.arg("-kernel").arg(&session.guest.kernel).arg("-initrd").arg(&initramfs.0);
        command.args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr"]);
        if let Some(wire) = wire {
            let netdev =
                format!("stream,id=wire,server=off,addr.type=unix,addr.path={}", qemu::escaped(wire));
            let device = "virtio-net-pci,netdev=wire,mac=52:54:00:ca:4d:f0,romfile=";
            command.args(["-netdev", &netdev, "-device", device]);
        }
        let vm = Vm::start(&mut command, log)?;
        let now = Instant::now();
        Ok(Self { vm, partial: Vec::new(), step_started: now, failed: Vec::new(), _initramfs: initramfs })
    }

    /// Shows the steps until the test ends or asks to be killed.
    fn follow(&mut self, mut card: Option<&mut Card>, deadline: Instant) -> Result<Ending> {
        let started = Instant::now();
        let mut up = false;
        loop {
            if Instant::now() > deadline {
                bail!("the test took longer than its limit");
            }
            if !up && started.elapsed() > BOOT_LIMIT {
                bail!("the Linux host is not up after {} s", BOOT_LIMIT.as_secs());
            }
            let bytes = self.vm.read(Duration::from_millis(50)).context("the Linux host")?;
            if let Some(card) = card.as_deref_mut() {
                card.listen(Duration::ZERO)?;
            }
            for line in self.lines(&bytes) {
                let Some(word) = line.strip_prefix("@@ ") else { continue };
                if let Some(release) = word.strip_prefix("UP ") {
                    up = true;
                    println!("  Linux {release} up after {:.1} s", started.elapsed().as_secs_f64());
                } else if word == "KILL" {
                    self.vm.kill();
                    println!("  the host's power is cut");
                    return Ok(Ending::Kill);
                } else if let Some(failures) = word.strip_prefix("DONE ") {
                    return self.judge(failures);
                } else {
                    self.step(word);
                }
            }
        }
    }

    fn lines(&mut self, bytes: &[u8]) -> Vec<String> {
        self.partial.extend_from_slice(bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.partial.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn step(&mut self, word: &str) {
        let took = self.step_started.elapsed().as_secs_f64();
        match word.split_once(' ') {
            Some(("STEP", _)) => self.step_started = Instant::now(),
            Some(("OK", name)) => println!("  ok      {took:6.1} s  {name}"),
            Some(("FAIL", name)) => {
                println!("  FAILED  {took:6.1} s  {name}");
                self.failed.push(name.to_owned());
            }
            Some(("FIGURE", figure)) => println!("  figure            {figure}"),
            _ => println!("  {word}"),
        }
    }

    fn judge(&self, failures: &str) -> Result<Ending> {
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join(", "));
        }
        if failures != "0" {
            bail!("the test's script ended with {failures}");
        }
        Ok(Ending::Done)
    }
}

/// A file that is removed with the value.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
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
