//! The Linux host's machine, what its script reports, and what it is told.

use super::card::Card;
use super::script::FOLDER;
use super::wire::Wire;
use crate::command::say;
use crate::cpio::Archive;
use crate::guest::Guest;
use crate::vm::Vm;
use crate::{paths, qemu};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the host may take to be up.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How late a line of the card's log may be seen while the host is silent.
const LISTEN_INTERVAL: Duration = Duration::from_millis(10);

/// What host to start.
pub struct HostPlan<'a> {
    /// Kernel and first file system.
    pub guest: &'a Guest,
    /// An archive of more files ([`crate::guest::addition`]); may be empty.
    pub addition: &'a [u8],
    /// Value of `-accel`.
    pub accelerator: &'static str,
    /// Number of processors.
    pub processors: u32,
    /// Shell script that it runs.
    pub run: &'a str,
    /// More scripts: `/test/piece-N`, each with the common functions before it.
    pub pieces: &'a [String],
    /// Shell variables of the script, a line each.
    pub environment: &'a str,
    /// The wires to the card's ports; none where the target is in the same machine.
    pub wires: &'a [Wire],
    /// Socket of its QEMU's machine protocol, where wanted.
    pub control: Option<&'a Path>,
    /// Where its console goes.
    pub log: &'a Path,
}

/// How a host ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its script came to its end.
    Done,
    /// It asked for its power to be cut.
    Kill,
}

/// The Linux host's machine.
pub struct Host {
    vm: Vm,
    partial: Vec<u8>,
    step_started: Instant,
    failed: Vec<String>,
    _initramfs: TemporaryFile,
}

impl Host {
    /// Starts it.
    pub fn start(plan: &HostPlan) -> Result<Self> {
        let initramfs = initramfs(plan)?;
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
        command.args(["-M", "q35", "-m", if plan.wires.is_empty() { "4G" } else { "1G" }]);
        command.args(["-smp", &plan.processors.to_string(), "-accel", plan.accelerator, "-cpu", "max"]);
        command.arg("-kernel").arg(&plan.guest.kernel).arg("-initrd").arg(&initramfs.0);
        command.args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr"]);
        for (number, wire) in plan.wires.iter().enumerate() {
            let netdev = format!("{},id=wire{number}", wire.host_netdev());
            let device =
                format!("virtio-net-pci,netdev=wire{number},mac=52:54:00:ca:4d:f{number:x},romfile=");
            command.args(["-netdev", &netdev, "-device", &device]);
        }
        if let Some(wire) = plan.wires.first() {
            command = wire.enclose(command);
        }
        if let Some(control) = plan.control {
            command.args(["-qmp", &qemu::control(control)]);
        }
        let vm = Vm::start(&mut command, plan.log)?;
        let now = Instant::now();
        Ok(Self { vm, partial: Vec::new(), step_started: now, failed: Vec::new(), _initramfs: initramfs })
    }

    /// The next lines of its console.
    pub fn hear(&mut self, wait: Duration) -> Result<Vec<String>> {
        let bytes = self.vm.read(wait).context("the Linux host")?;
        Ok(self.lines(&bytes))
    }

    /// Types into its console.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.vm.write(text).context("the Linux host")
    }

    /// Cuts its power.
    pub fn kill(&mut self) {
        self.vm.kill();
    }

    /// Shows the steps until the script ends or asks to be killed. `mark` gets what the script marks.
    pub fn follow(
        &mut self,
        mut card: Option<&mut Card>,
        deadline: Instant,
        mark: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Ending> {
        let started = Instant::now();
        let mut up = false;
        loop {
            if Instant::now() > deadline {
                bail!("the test took longer than its limit");
            }
            if !up && started.elapsed() > BOOT_LIMIT {
                bail!("the Linux host is not up after {} s", BOOT_LIMIT.as_secs());
            }
            let lines = self.hear(LISTEN_INTERVAL)?;
            if let Some(card) = card.as_deref_mut() {
                card.listen(Duration::ZERO)?;
            }
            for line in lines {
                let Some(word) = line.strip_prefix("@@ ") else { continue };
                if let Some(release) = word.strip_prefix("UP ") {
                    up = true;
                    say(&format!("  Linux {release} up after {:.1} s", started.elapsed().as_secs_f64()));
                } else if let Some(name) = word.strip_prefix("MARK ") {
                    mark(name)?;
                } else if word == "KILL" {
                    self.vm.kill();
                    say("  the host's power is cut");
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
            Some(("OK", name)) => say(&format!("  ok      {took:6.1} s  {name}")),
            Some(("FAIL", name)) => {
                say(&format!("  FAILED  {took:6.1} s  {name}"));
                self.failed.push(name.to_owned());
            }
            Some(("FIGURE", figure)) => say(&format!("  figure            {figure}")),
            _ => say(&format!("  {word}")),
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

/// Writes the guest's first file system, with the script and its variables.
fn initramfs(plan: &HostPlan) -> Result<TemporaryFile> {
    let folder = paths::root()?.join(FOLDER);
    let mut archive = Archive::new();
    archive.file("test/environment", plan.environment.as_bytes());
    archive.file("test/run.sh", plan.run.as_bytes());
    for (number, piece) in plan.pieces.iter().enumerate() {
        archive.file(&format!("test/piece-{number}"), format!(". /test/lib.sh\n{piece}\n").as_bytes());
    }
    for name in ["lib.sh", "nvmet.sh", "raw.sh"] {
        archive.file(&format!("test/{name}"), &std::fs::read(folder.join(name))?);
    }
    TemporaryFile::new("initramfs", &[&plan.guest.initramfs, plan.addition, &archive.finish()])
}

/// A file that is removed with the value.
pub struct TemporaryFile(pub PathBuf);

impl TemporaryFile {
    /// One that holds these parts.
    pub fn new(name: &str, parts: &[&[u8]]) -> Result<Self> {
        let this = Self(paths::state()?.join(paths::own_name(name)));
        let mut file = std::fs::File::create(&this.0)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        Ok(this)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
