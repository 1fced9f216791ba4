//! What is at the other end of the card's wire: the relay, and a Linux host that does what steps ask for.

use super::Stage;
use super::file::{self, LinuxHost, Scenario};
use super::step::Action;
use crate::card_log::Ready;
use crate::command::say;
use crate::linux::environment_of;
use crate::linux::flood::{Flood, RunningFlood};
use crate::linux::host::{Host, HostPlan};
use crate::linux::relay::Relay;
use crate::linux::script::FOLDER;
use crate::linux::wire::Wire;
use crate::paths::{self, TemporaryFolder};
use crate::qmp::Qmp;
use anyhow::{Context, Result, bail};
use regex::Regex;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// What QEMU's drives call themselves (Identify Controller, MN): with the serial number it makes the NSID.
const DRIVE_MODEL: &str = "QEMU NVMe Ctrl";

/// The wires of a scenario.
pub struct Wires {
    /// One for each port.
    of_ports: Vec<Wire>,
    /// The first of them, where it can be told to disturb what passes.
    relay: Option<Arc<Relay>>,
}

impl Wires {
    /// As the host's table says. The error is the reason why this machine does not give such a wire.
    pub fn new(plan: &LinuxHost) -> Result<Self> {
        if let file::Wire::Taps { queues } = plan.wire {
            return Ok(Self { of_ports: vec![Wire::taps_with_queues(1500, queues)?], relay: None });
        }
        let relay = Arc::new(Relay::new(plan.seed)?);
        let mut of_ports = vec![Wire::Relayed(Arc::clone(&relay))];
        for _ in 1..plan.ports {
            of_ports.push(Wire::Relayed(Arc::new(Relay::new(plan.seed)?)));
        }
        Ok(Self { of_ports, relay: Some(relay) })
    }
}

/// The host's end.
pub struct Site<'a> {
    stage: &'a Stage,
    plan: &'a LinuxHost,
    pieces: Vec<String>,
    drives: Vec<&'a str>,
    sockets: TemporaryFolder,
    wires: Wires,
    log: PathBuf,
    host: Option<Host>,
    starts: u32,
    /// Lines of the consoles of all hosts so far.
    lines: Vec<String>,
    /// Those before it were looked at.
    seen: usize,
    /// Ends of pieces that came and were not asked for yet: number and exit code.
    ends: Vec<(usize, String)>,
    flood: Option<RunningFlood>,
}

impl<'a> Site<'a> {
    /// The wire, and a host that starts.
    pub fn new(
        name: &str,
        scenario: &'a Scenario,
        plan: &'a LinuxHost,
        wires: Wires,
        stage: &'a Stage,
    ) -> Result<Self> {
        let pieces = scenario.steps.iter().map(|step| step.script().unwrap_or_default().to_owned()).collect();
        let plugged = scenario.steps.iter().filter_map(|step| match &step.action {
            Action::Plug(drive) => Some(drive),
            _ => None,
        });
        let drives = scenario.drive.iter().chain(plugged).map(|drive| drive.name.as_str()).collect();
        Ok(Self {
            stage,
            plan,
            pieces,
            drives,
            sockets: TemporaryFolder::for_sockets()?,
            wires,
            log: paths::logs()?.join(format!("qemu-{name}-host.log")),
            host: None,
            starts: 0,
            lines: Vec::new(),
            seen: 0,
            ends: Vec::new(),
            flood: None,
        })
    }

    /// Starts the host's machine.
    pub fn power_on(&mut self) -> Result<()> {
        let (guest, accelerator) = self.stage.linux.as_ref().context("the Linux host was not prepared")?;
        let addition = match &self.plan.adds {
            Some(name) => self.stage.addition(name)?,
            None => &[],
        };
        self.starts += 1;
        let script = paths::read(&paths::root()?.join(FOLDER).join("scenario.sh"))?;
        let log = match self.starts {
            1 => self.log.clone(),
            start => self.log.with_extension(format!("{start}.log")),
        };
        self.host = Some(Host::start(&HostPlan {
            guest,
            addition,
            accelerator,
            processors: self.plan.processors,
            run: &script,
            pieces: &self.pieces,
            environment: "TARGET=card\nLACKS=\n",
            wires: &self.wires.of_ports,
            control: Some(&self.control()),
            log: &log,
        })?);
        Ok(())
    }

    /// Cuts the host's power.
    pub fn power_off(&mut self) {
        if let Some(mut host) = self.host.take() {
            host.kill();
        }
    }

    /// Takes what the host's console says.
    pub fn listen(&mut self) -> Result<()> {
        let Some(host) = &mut self.host else { return Ok(()) };
        for line in host.hear(Duration::ZERO)? {
            if let Some(end) = line.strip_prefix("@@ END ") {
                let (number, code) = end.split_once(' ').unwrap_or((end, ""));
                self.ends.push((number.parse().context("the number of a piece")?, code.to_owned()));
            } else if let Some(figure) = line.strip_prefix("@@ FIGURE ") {
                say(&format!("  figure            {figure}"));
            }
            self.lines.push(line);
        }
        Ok(())
    }

    /// Whether the host waits to be told what to do; it then learns where the card is.
    pub fn is_up(&mut self, card: &Ready) -> Result<bool> {
        if !self.has_said(&Regex::new("^@@ LISTENS")?) {
            return Ok(false);
        }
        for variable in environment_of(card).lines() {
            self.tell(&format!("set {variable}"))?;
        }
        for drive in self.drives.clone() {
            self.introduce(drive)?;
        }
        Ok(true)
    }

    /// The host learns under which namespace identifier a drive is served: `drive NAME` is its device.
    fn introduce(&mut self, drive: &str) -> Result<()> {
        let padded = |text: &str, field: &mut [u8]| {
            field.fill(b' ');
            field.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        };
        let (mut serial, mut model) = ([0; 20], [0; 40]);
        padded(drive, &mut serial);
        padded(DRIVE_MODEL, &mut model);
        let nsid = controller::namespace_identity(&serial, &model, 1, [0; 16], [0; 8]).nsid;
        self.tell(&format!("set NSID_{}={nsid}", drive.replace('-', "_")))
    }

    /// Whether such a line came behind the one that was last found.
    pub fn has_said(&mut self, pattern: &Regex) -> bool {
        let found = self.lines[self.seen..].iter().position(|line| pattern.is_match(line));
        if let Some(place) = found {
            self.seen += place + 1;
        }
        found.is_some()
    }

    /// Types a line.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let host = self.host.as_mut().context("the host's power is off")?;
        host.say(&format!("{line}\n"))
    }

    /// Whether that piece has ended; an error when it has failed.
    pub fn has_ended(&mut self, piece: usize) -> Result<bool> {
        let Some(place) = self.ends.iter().position(|(number, _)| *number == piece) else { return Ok(false) };
        let (_, code) = self.ends.remove(place);
        if code != "0" {
            bail!("it failed in the host (exit code {code})\n{}", self.last_lines());
        }
        Ok(true)
    }

    /// A conversation with the host's QEMU.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::open(&self.control())
    }

    /// The wire that can be disturbed.
    pub fn relay(&self) -> Result<&Arc<Relay>> {
        self.wires.relay.as_ref().context("this wire cannot be disturbed")
    }

    /// Begins a flood, or ends it.
    pub fn flood(&mut self, flood: Flood, card: &Ready) -> Result<()> {
        self.flood = None;
        if flood.syn_per_s > 0 {
            self.flood = Some(RunningFlood::start(flood, self.relay()?, &card.address, card.port)?);
        }
        Ok(())
    }

    /// For each port of the card: value of `-netdev`, without an id, and more properties of its device.
    pub fn card_netdevs(&self) -> Vec<(String, String)> {
        self.wires.of_ports.iter().map(|wire| (wire.card_netdev(), wire.card_properties())).collect()
    }

    /// The command, run where the wires are.
    pub fn enclose(&self, command: Command) -> Command {
        match self.wires.of_ports.first() {
            Some(wire) => wire.enclose(command),
            None => command,
        }
    }

    /// The end of the console.
    pub fn last_lines(&self) -> String {
        self.lines[self.lines.len().saturating_sub(25)..].join("\n")
    }

    fn control(&self) -> PathBuf {
        self.sockets.join("host-control")
    }
}
