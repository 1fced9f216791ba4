//! The card's side of a run with a Linux host.

use super::script::Script;
use super::wire::Wire;
use crate::card_log::{CardLog, Line, Ready, kept, ready};
use crate::command::say;
use crate::hosted;
use crate::image::Image;
use crate::paths::{self, TemporaryFolder};
use crate::qemu::{self, Drive, Machine};
use crate::vm::Vm;
use anyhow::{Context, Result, bail};
use regex::Regex;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the card may take to be ready.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long the card may take to forget its last host: longer than the keep-alive time-out.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// What card to start.
pub struct CardPlan<'a> {
    /// The image.
    pub image: &'a Image,
    /// What the names of its logs start with.
    pub name: &'a str,
    /// Number of cores; the machine's own where none.
    pub cores: Option<u32>,
    /// Largest IP packet in bytes that the port announces; 1500 is not announced.
    pub mtu: u32,
    /// More QEMU arguments.
    pub arguments: Vec<String>,
    /// More boot arguments.
    pub append: String,
    /// The card may break down and start again.
    pub restarts: bool,
}

impl<'a> CardPlan<'a> {
    /// The machine as it is.
    pub fn new(image: &'a Image, name: &'a str) -> Self {
        let (arguments, append) = (Vec::new(), String::new());
        Self { image, name, cores: None, mtu: 1500, arguments, append, restarts: false }
    }
}

/// A card with four drives, one of them with 4096-byte blocks, on a wire to the host.
pub struct Card {
    /// Its machine.
    pub vm: Vm,
    /// What it said when it was ready.
    pub ready: Ready,
    /// The lines of its log so far.
    pub lines: Vec<Line>,
    /// When each of them came.
    pub heard: Vec<Instant>,
    log: CardLog,
    copy: File,
    restarts: bool,
    _drives: TemporaryFolder,
}

impl Card {
    /// Starts it and waits until it is ready.
    pub fn start(plan: &CardPlan, wire: &Wire) -> Result<Self> {
        let mut machine = Machine::of("qemu-aarch64")?;
        machine.smp = plan.cores.unwrap_or(machine.smp);
        let mut command = machine.command();
        if !plan.restarts {
            command.arg("-no-reboot");
        }
        let append = format!("ip=10.0.0.1/24 {}", plan.append);
        command.arg("-kernel").arg(&plan.image.flat).args(["-append", append.trim_end()]);
        command.args(&plan.arguments);
        let drives = TemporaryFolder::for_drives()?;
        for number in 0..4 {
            let block_size = if number == 3 { 4096 } else { 512 };
            let name = format!("test-drive{number}");
            Drive { name, size: "1G".to_owned(), block_size, ..Drive::default() }
                .add(&mut command, drives.path())?;
        }
        let mtu = if plan.mtu == 1500 { String::new() } else { format!(",host_mtu={}", plan.mtu) };
        let properties = wire.card_properties() + &mtu;
        qemu::add_port_with(&mut command, 0, &wire.card_netdev(), &properties);
        let log = CardLog::new(&plan.image.elf)?;
        Self::follow(wire.enclose(command), log, plan.name, drives, plan.restarts)
    }

    /// Starts the card as a process of this machine, with the same drives, and waits until it is ready.
    pub fn start_process(program: &Path, name: &str, wire: &Wire) -> Result<Self> {
        let drives = TemporaryFolder::for_drives()?;
        let mut arguments = hosted::port(wire)?;
        arguments.extend(["--ip", "10.0.0.1/24"].map(str::to_owned));
        for number in 0..4 {
            let block_bytes = if number == 3 { 4096 } else { 512 };
            let drive = hosted::drive(drives.path(), &format!("test-drive{number}"), "1G", block_bytes)?;
            arguments.extend(["--drive".to_owned(), drive]);
        }
        let command = wire.enclose(hosted::logging(program, &arguments));
        Self::follow(command, CardLog::of_process(), name, drives, false)
    }

    fn follow(
        mut command: Command,
        log: CardLog,
        name: &str,
        drives: TemporaryFolder,
        restarts: bool,
    ) -> Result<Self> {
        let vm = Vm::start(&mut command, &paths::logs()?.join(format!("{name}.serial")))?;
        let copy = File::create(log_file(name)?)?;
        let nobody = Ready { namespaces: 0, nqn: String::new(), address: String::new(), port: 0 };
        let mut card = Self {
            vm,
            log,
            lines: Vec::new(),
            heard: Vec::new(),
            copy,
            ready: nobody,
            restarts,
            _drives: drives,
        };
        let deadline = Instant::now() + BOOT_LIMIT;
        let mut seen = 0;
        while Instant::now() < deadline {
            card.listen(Duration::from_millis(50))?;
            if let Some(ready) = card.lines[seen..].iter().find_map(|line| ready(&line.text)) {
                card.ready = ready;
                return Ok(card);
            }
            seen = card.lines.len();
        }
        bail!("the card is not ready after {} s", BOOT_LIMIT.as_secs())
    }

    /// Takes what the card says; an error when it ended or panicked.
    pub fn listen(&mut self, wait: Duration) -> Result<()> {
        let bytes = self.vm.read(wait).context("the card")?;
        for line in self.log.feed(&bytes) {
            writeln!(self.copy, "{}", line.plain)?;
            let bad = line.text.starts_with("*** ") && !self.restarts;
            self.lines.push(line);
            self.heard.push(Instant::now());
            if bad {
                bail!("the card broke down");
            }
        }
        Ok(())
    }

    /// `#: card REGEX`: the card has said such a line.
    pub fn has_said(&self, script: &Script) -> Result<()> {
        let Some(pattern) = script.field("card") else { return Ok(()) };
        let pattern = Regex::new(pattern)?;
        let Some(line) = self.lines.iter().find(|line| pattern.is_match(&line.text)) else {
            bail!("the card has said no line like `{pattern}`");
        };
        say(&format!("  the card: {}", line.text));
        Ok(())
    }

    /// `#: same REGEX`: once the last host is gone, the card's log has such a line again, and each core's last one is its
    /// first one. Where the pattern has two groups, they are equal too (so many free of so many).
    pub fn afterwards(&mut self, script: &Script, last_host_started: usize) -> Result<()> {
        let Some(pattern) = script.field("same") else { return Ok(()) };
        let pattern = Regex::new(pattern)?;
        let deadline = Instant::now() + IDLE_LIMIT;
        loop {
            self.listen(Duration::from_millis(200))?;
            let lines = self.lines[last_host_started..].iter().rev();
            let last = lines.map(|line| line.text.as_str()).find_map(|text| pattern.captures(text));
            let whole = last.as_ref().is_some_and(|last| match (last.get(1), last.get(2)) {
                (Some(free), Some(all)) => free.as_str() == all.as_str(),
                _ => true,
            });
            let kept = kept(&self.lines, &pattern);
            if let (true, None, Some(last)) = (whole, &kept, &last) {
                say(&format!("  the card afterwards: {}", &last[0]));
                return Ok(());
            }
            if Instant::now() > deadline {
                let last =
                    last.as_ref().map_or("no such line", |last| last.get(0).map_or("", |all| all.as_str()));
                bail!("the card keeps something: {}", kept.unwrap_or_else(|| last.to_owned()));
            }
        }
    }
}

/// The decoded log of the card of that name.
pub fn log_file(name: &str) -> Result<PathBuf> {
    Ok(paths::logs()?.join(format!("{name}.log")))
}
