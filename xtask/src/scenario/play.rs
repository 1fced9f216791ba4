//! One run of a scenario: the card, perhaps a host, the steps, the end.

use super::Stage;
use super::bad_input::{self, BadInput};
use super::crowd::visit_all_cores;
use super::device_log::DeviceLog;
use super::faults::Faults;
use super::file::{Boot, Pattern, Scenario};
use super::golden;
use super::judge::Judge;
use super::site::{Site, Wires};
use super::step::{Action, Step, Switch};
use crate::card_log::{CardLog, Line, Ready, kept, ready};
use crate::command::{self, say, tail};
use crate::crash;
use crate::linux::relay::Passed;
use crate::paths::{self, TemporaryFolder};
use crate::qemu::{self, Machine, U_BOOT};
use crate::qmp::Qmp;
use crate::vm::Vm;
use anyhow::{Context, Result, anyhow, bail};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where free ports are looked for: the first of those that nobody is assigned (RFC 6335).
const DYNAMIC_PORTS: u16 = 49152;
/// How long a line may take that the harness waits for after the expected ones.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// How long all of the bad inputs may take.
const CASES_LIMIT: Duration = Duration::from_secs(300);
/// How long card and host may take to be up.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// What the card says of its pools when it is ready, and each time its last host is gone.
const IDLE: &str = r"^no host connected: \d+ of \d+ slots free";

/// Runs a scenario.
pub fn play(name: &str, scenario: &Scenario, stage: &Stage, wires: Option<Wires>) -> Result<()> {
    let site = match scenario.host.as_ref().zip(wires) {
        Some((host, wires)) => Some(Site::new(name, scenario, host, wires, stage)?),
        None => None,
    };
    let log = paths::logs()?.join(format!("qemu-{name}.serial"));
    let mut play = Play::start(scenario, stage, site, &log)?;
    let outcome = play.perform();
    let (lines, host) = play.end();
    let text: Vec<&str> = lines.iter().map(|line| line.plain.as_str()).collect();
    let decoded = log.with_extension("log");
    std::fs::write(&decoded, text.join("\n") + "\n")?;
    let outcome = outcome.and_then(|()| golden::compare(name, scenario, &lines, stage.bless));
    let outcome = outcome.and_then(|()| explained(scenario, stage, &log));
    outcome.map_err(|error| {
        let end = tail(&decoded, 25).unwrap_or_default();
        let host = host.map(|lines| format!("--- the host's console\n{lines}\n")).unwrap_or_default();
        error.context(format!(
            "repeat with `cargo xtask test qemu {name}`\nlog: {}, QEMU: {}\n{end}\n{host}",
            decoded.display(),
            log.with_extension("qemu").display()
        ))
    })
}

/// What `cargo xtask crash` makes of the log has the lines that the scenario says.
fn explained(scenario: &Scenario, stage: &Stage, log: &Path) -> Result<()> {
    if scenario.crash.is_empty() {
        return Ok(());
    }
    let text = crash::explain(&std::fs::read(log)?, &stage.image.elf)?;
    let mut lines = text.lines();
    match scenario.crash.iter().find(|pattern| !lines.any(|line| pattern.0.is_match(line))) {
        Some(pattern) => bail!("`cargo xtask crash` says no line like `{}` (there):\n{text}", pattern.0),
        None => Ok(()),
    }
}

/// A machine that runs, with its log, its judge, and the host.
struct Play<'a> {
    scenario: &'a Scenario,
    stage: &'a Stage,
    vm: Vm,
    log: CardLog,
    devices: DeviceLog,
    judge: Judge<'a>,
    site: Option<Site<'a>>,
    /// Lines of the card's log before it were looked at by a step.
    seen: usize,
    orders_given: usize,
    faults: Faults,
    drives: TemporaryFolder,
    sockets: TemporaryFolder,
    /// Of each port: its `-netdev`, and more properties of its device.
    nets: Vec<(String, String)>,
    port: u16,
}

impl<'a> Play<'a> {
    fn start(
        scenario: &'a Scenario,
        stage: &'a Stage,
        mut site: Option<Site<'a>>,
        log: &Path,
    ) -> Result<Self> {
        // Each run starts with empty drives.
        let drives = TemporaryFolder::for_drives()?;
        let sockets = TemporaryFolder::for_sockets()?;
        let port = qemu::free_port(DYNAMIC_PORTS)?;
        let nets = match &site {
            Some(site) => site.card_netdevs(),
            None => vec![(scenario.net.replace("{port}", &port.to_string()), String::new())],
        };
        let mut command = card(scenario, stage, &drives, &nets, site.as_ref())?;
        add_lines(&mut command, scenario, &sockets);
        let vm = Vm::start(&mut command, log)?;
        if let Some(site) = &mut site {
            site.power_on()?;
        }
        Ok(Self {
            scenario,
            stage,
            vm,
            log: CardLog::new(&stage.image.elf)?,
            devices: DeviceLog::beside(log),
            judge: Judge::new(scenario)?,
            site,
            seen: 0,
            orders_given: 0,
            faults: Faults::default(),
            drives,
            sockets,
            nets,
            port,
        })
    }

    /// Switches all off; the card's lines, and the end of the host's console.
    fn end(mut self) -> (Vec<Line>, Option<String>) {
        self.vm.kill();
        let mut lines = self.judge.lines;
        lines.extend(self.log.finish());
        (lines, self.site.map(|site| site.last_lines()))
    }

    fn perform(&mut self) -> Result<()> {
        if !self.scenario.steps.is_empty() {
            let card = self.boot()?;
            self.perform_steps(&card)?;
        }
        self.watch()?;
        if let Some(crowd) = &self.scenario.crowd {
            crowd.come_and_go(self.port, &mut |pattern| self.wait_for(pattern))?;
        }
        if let Some(bad_input) = &self.scenario.bad_input {
            self.bad_input(bad_input)?;
        }
        self.leaves_nothing()?;
        self.weather_has_hit()
    }

    /// The steps in their order, and those again that are to be done more than once.
    fn perform_steps(&mut self, card: &Ready) -> Result<()> {
        let steps = &self.scenario.steps;
        let (mut number, mut rounds) = (0, 0);
        while let Some(step) = steps.get(number) {
            if let Action::Again(again) = &step.action {
                let first = steps[..number].iter().position(|earlier| earlier.name == again.from);
                let first = first.with_context(|| format!("no step before it is called `{}`", again.from))?;
                rounds += 1;
                (number, rounds) = if rounds <= again.times { (first, rounds) } else { (number + 1, 0) };
                continue;
            }
            let started = Instant::now();
            let outcome = self.step(number, step, card);
            let took = started.elapsed().as_secs_f64();
            let verdict = if outcome.is_ok() { "ok    " } else { "FAILED" };
            if rounds == 0 || outcome.is_err() {
                say(&format!("  {verdict}  {took:6.1} s  {}", step.name));
            }
            let round = if rounds > 0 { format!(", round {}", rounds + 1) } else { String::new() };
            outcome.with_context(|| format!("step {} ({}{round})", number + 1, step.name))?;
            number += 1;
        }
        Ok(())
    }

    /// Says what is wrong in many ways to the card, which has as much afterwards as before.
    fn bad_input(&mut self, bad_input: &BadInput) -> Result<()> {
        self.all_have_spoken()?;
        let port = self.port;
        let cases = bad_input.start(port);
        self.until(CASES_LIMIT, "the cases have not ended", &mut |_| Ok(cases.is_finished()))?;
        bad_input::outcome(cases)?;
        // A core does not tell of a host that comes and goes between two of its ticks; of these it does.
        visit_all_cores(port)?;
        self.nothing_is_kept()
    }

    /// Where the network was to be bad, it was.
    fn weather_has_hit(&mut self) -> Result<()> {
        if self.scenario.steps.iter().any(|step| matches!(step.action, Action::Network(_))) {
            let Passed { frames, lost, disturbed } = self.site()?.relay()?.passed();
            say(&format!("  of {frames} frames {lost} were lost and {disturbed} disturbed otherwise"));
            anyhow::ensure!(lost + disturbed > 0, "the bad network has hit nothing");
        }
        Ok(())
    }

    /// Waits until the card is ready, and the host too.
    fn boot(&mut self) -> Result<Ready> {
        let card = self.ready()?;
        if self.site.is_some() {
            self.until(BOOT_LIMIT, "the Linux host is not up", &mut |play| play.site()?.is_up(&card))?;
        }
        Ok(card)
    }

    /// Waits until the card says, from now on, that it is ready.
    fn ready(&mut self) -> Result<Ready> {
        let before = self.judge.lines.len();
        let mut found = None;
        self.until(BOOT_LIMIT, "the card is not ready", &mut |play| {
            found = play.judge.lines[before..].iter().find_map(|line| ready(&line.text));
            Ok(found.is_some())
        })?;
        found.context("the card is not ready")
    }

    fn step(&mut self, number: usize, step: &Step, card: &Ready) -> Result<()> {
        match &step.action {
            Action::Card(pattern) => {
                let what = format!("the card has said no line like `{}`", pattern.0);
                self.until(step.limit, &what, &mut |play| Ok(play.card_has_said(&pattern.0)))?;
            }
            Action::Device(pattern) => {
                // Where the card is off nothing more can come.
                if !self.devices.tells(&pattern.0)? {
                    let what = || format!("no drive has told `{}`", pattern.0);
                    let mut tells = |play: &mut Self| play.devices.tells(&pattern.0);
                    self.until(step.limit, "it has not come", &mut tells).with_context(what)?;
                }
            }
            Action::Console(pattern) => {
                let what = format!("the host has said no line like `{}`", pattern.0);
                self.until(step.limit, &what, &mut |play| Ok(play.site()?.has_said(&pattern.0)))?;
            }
            Action::Run(_) => {
                self.site()?.tell(&format!("run {number}"))?;
                self.until(step.limit, "it has not ended", &mut |play| play.site()?.has_ended(number))?;
            }
            Action::Start(_) => self.site()?.tell(&format!("start {number}"))?,
            Action::Finish(name) => {
                let is_start = |step: &Step| matches!(step.action, Action::Start(_)) && step.name == *name;
                let steps = &self.scenario.steps[..number];
                let started = steps.iter().rposition(is_start);
                let started = started.with_context(|| format!("nothing was started as `{name}`"))?;
                self.site()?.tell(&format!("finish {started}"))?;
                self.until(step.limit, "it has not ended", &mut |play| play.site()?.has_ended(started))?;
            }
            Action::Native(words) => self.native_host(words, step.limit, card)?,
            // Done by who goes through the steps.
            Action::Again(_) => {}
            Action::Dpuctl(words, shows) => self.dpuctl(words, shows, step.limit)?,
            Action::Qmp(commands) => {
                let mut qmp = self.qmp()?;
                commands.iter().try_for_each(|command| qmp.send(&command.0).map(drop))?;
            }
            Action::HostQmp(commands) => {
                let mut qmp = self.site()?.qmp()?;
                commands.iter().try_for_each(|command| qmp.send(&command.0).map(drop))?;
            }
            Action::Network(weather) => self.site()?.relay()?.set_weather(*weather),
            Action::Reset(side) => {
                self.site()?.relay()?.reset_towards(*side);
                self.until(step.limit, "no connection carried so much data", &mut |play| {
                    Ok(play.site()?.relay()?.has_reset())
                })?;
            }
            Action::Flood(flood) => self.site()?.flood(*flood, card)?,
            Action::HostPower(Switch::Off) => self.site()?.power_off(),
            Action::HostPower(Switch::On) => {
                self.site()?.power_on()?;
                self.until(BOOT_LIMIT, "the Linux host is not up", &mut |play| play.site()?.is_up(card))?;
            }
            Action::CardPower(Switch::Off) => self.press_power_button(step.limit)?,
            Action::CardPower(Switch::On) => self.start_again()?,
            Action::Pause(pause) => {
                let end = Instant::now() + *pause;
                while Instant::now() < end {
                    self.listen()?;
                }
            }
            _ => self.change_machine(step)?,
        }
        Ok(())
    }

    /// Runs the user-space host to its end, and hears the card meanwhile.
    fn native_host(&mut self, words: &str, limit: Duration, card: &Ready) -> Result<()> {
        let program = self.stage.native.as_ref().context("the user-space host was not built")?;
        let mut command = Command::new(program);
        command.args(["--address", &format!("127.0.0.1:{}", self.port), "--nqn", &card.nqn, "--sleep"]);
        command.args(words.split_whitespace());
        let steps = command::Step::new("the user-space host", command, limit.as_secs()).visible();
        let runs = std::thread::spawn(move || steps.run());
        self.until(limit, "it has not ended", &mut |_| Ok(runs.is_finished()))?;
        runs.join().map_err(|_| anyhow!("its thread panicked"))?
    }

    /// Runs the operator's tool to its end, hears the machines meanwhile, and looks for lines in what it prints.
    fn dpuctl(&mut self, words: &str, shows: &[Pattern], limit: Duration) -> Result<()> {
        let program = self.stage.dpuctl.as_ref().context("the operator's tool was not built")?;
        let mut command = Command::new(program);
        command.arg("--card").arg(mailbox_of(&self.sockets)).args(words.split_whitespace());
        let runs = std::thread::spawn(move || command.output());
        self.until(limit, "it has not ended", &mut |_| Ok(runs.is_finished()))?;
        let output = runs.join().map_err(|_| anyhow!("its thread panicked"))??;
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "it failed ({}): {error}", output.status);
        let mut lines = text.lines();
        match shows.iter().find(|pattern| !lines.any(|line| pattern.0.is_match(line))) {
            Some(pattern) => bail!("it printed no line like `{}` (there):\n{text}", pattern.0),
            None => Ok(()),
        }
    }

    /// Presses the button and follows the card until it has switched itself off.
    fn press_power_button(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        self.devices.forget()?;
        self.qmp()?.command("system_powerdown", Value::Null)?;
        while let Some(bytes) = self.vm.read_to_end(Duration::from_millis(50))? {
            self.log.feed(&bytes).into_iter().try_for_each(|line| self.judge.take(line))?;
            if let Some(site) = &mut self.site {
                site.listen()?;
            }
            if Instant::now() > deadline {
                bail!("the card has not switched itself off after {} s", limit.as_secs());
            }
        }
        self.log.finish().into_iter().try_for_each(|line| self.judge.take(line))?;
        let status = self.vm.status()?;
        anyhow::ensure!(status.success(), "QEMU has ended by itself: {status}");
        Ok(())
    }

    /// Starts the card anew, with the drives that it had at first, as they are now.
    fn start_again(&mut self) -> Result<()> {
        let mut command = card(self.scenario, self.stage, &self.drives, &self.nets, self.site.as_ref())?;
        add_lines(&mut command, self.scenario, &self.sockets);
        let log = self.vm.log().with_extension("again.serial");
        self.vm = Vm::start(&mut command, &log)?;
        self.log = CardLog::new(&self.stage.image.elf)?;
        self.devices = DeviceLog::beside(&log);
        self.ready().map(drop)
    }

    /// Steps about the card's drives and its port.
    fn change_machine(&mut self, step: &Step) -> Result<()> {
        let mut qmp = self.qmp()?;
        match &step.action {
            Action::Fail(fail) => self.faults.fail(&mut qmp, fail).and_then(|()| self.devices.forget()),
            Action::Slow(slow) => self.faults.slow(&mut qmp, slow).and_then(|()| self.devices.forget()),
            Action::Hang(drive) => self.faults.hang(&mut qmp, drive).and_then(|()| self.devices.forget()),
            Action::Hold(drive) => self.faults.hold(&mut qmp, drive).and_then(|()| self.devices.forget()),
            Action::LetGo(drive) => self.faults.let_go(&mut qmp, drive),
            Action::Mend(drive) => self.faults.mend(&mut qmp, drive),
            Action::Plug(drive) => self.faults.plug(&mut qmp, drive, &self.drives),
            Action::Unplug(drive) => {
                self.devices.forget()?;
                self.faults.ask_for(&mut qmp, drive)?;
                drop(qmp);
                self.until(step.limit, "the drive is not out", &mut |play| {
                    let mut qmp = play.qmp()?;
                    play.faults.is_out(&mut qmp, drive)
                })
            }
            Action::Link(port, switch) => {
                let name = format!("net{}", port - 1);
                qmp.command("set_link", json!({"name": name, "up": *switch == Switch::On})).map(drop)
            }
            _ => bail!("this step is not about the machine"),
        }
    }

    /// Follows the log to the last expected line, and as long after it as the scenario says.
    fn watch(&mut self) -> Result<()> {
        let limit = Duration::from_secs(self.scenario.limit_s);
        let what = |play: &Self| {
            let missing = play.judge.missing().map_or("", |pattern| pattern.0.as_str());
            format!("the card has said no line like `{missing}`")
        };
        let deadline = Instant::now() + limit;
        while self.judge.missing().is_some() {
            if Instant::now() >= deadline {
                bail!("{} within {} s", what(self), limit.as_secs());
            }
            self.listen().with_context(|| what(self))?;
        }
        let end = Instant::now() + Duration::from_secs(self.scenario.watch_s);
        while Instant::now() < end {
            self.listen()?;
        }
        Ok(())
    }

    /// After the last host has gone, the pools hold what they held before the first came.
    fn leaves_nothing(&mut self) -> Result<()> {
        let host = self.scenario.host.as_ref();
        let is_judged = host.map_or(self.scenario.has_native_host(), |host| !host.leaves_something);
        if is_judged { self.nothing_is_kept() } else { Ok(()) }
    }

    /// Waits until each data core has said what its pools hold.
    fn all_have_spoken(&mut self) -> Result<()> {
        let pattern = Regex::new(IDLE)?;
        let data_cores = (machine(self.scenario)?.smp as usize).saturating_sub(1).max(1);
        self.until(WAIT_LIMIT, "not every core has said what its pools hold", &mut |play| {
            let lines = play.judge.lines.iter().filter(|line| pattern.is_match(&line.text));
            Ok(lines.map(Line::core).collect::<BTreeSet<_>>().len() >= data_cores)
        })
    }

    /// Waits until each core's pools hold what they held at first.
    fn nothing_is_kept(&mut self) -> Result<()> {
        let pattern = Regex::new(IDLE)?;
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let kept = kept(&self.judge.lines, &pattern);
            if kept.is_none() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the card keeps something\n{}", kept.unwrap_or_default());
            }
            self.listen()?;
        }
    }

    /// Takes what the machines say, for a moment.
    fn listen(&mut self) -> Result<()> {
        let bytes = self.vm.read(Duration::from_millis(50))?;
        let mut lines = self.log.feed(&bytes).into_iter();
        if let Some(error) = lines.by_ref().find_map(|line| self.judge.take(line).err()) {
            // What follows says more: registers and backtrace.
            self.judge.lines.extend(lines);
            while let Ok(bytes @ [_, ..]) = self.vm.read(Duration::from_millis(300)).as_deref() {
                self.judge.lines.extend(self.log.feed(bytes));
            }
            return Err(error);
        }
        self.judge.answer(&bytes, &mut self.vm)?;
        self.order()?;
        match &mut self.site {
            Some(site) => site.listen(),
            None => Ok(()),
        }
    }

    /// Listens until that is so.
    fn until(
        &mut self,
        limit: Duration,
        otherwise: &str,
        is_so: &mut dyn FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            self.listen()?;
            if is_so(self)? {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{otherwise} after {} s", limit.as_secs());
            }
        }
    }

    /// Waits for a line that comes from now on and matches the pattern.
    fn wait_for(&mut self, pattern: &str) -> Result<String> {
        let compiled = Regex::new(pattern)?;
        self.seen = self.judge.lines.len();
        let what = format!("the card has said no line like `{pattern}`");
        self.until(WAIT_LIMIT, &what, &mut |play| Ok(play.card_has_said(&compiled)))?;
        Ok(self.judge.lines[self.seen - 1].text.clone())
    }

    /// Whether such a line came behind the one that was last found.
    fn card_has_said(&mut self, pattern: &Regex) -> bool {
        let found = self.judge.lines[self.seen..].iter().position(|line| pattern.is_match(&line.text));
        if let Some(place) = found {
            self.seen += place + 1;
        }
        found.is_some()
    }

    /// Gives QEMU the next order once its line has come.
    fn order(&mut self) -> Result<()> {
        let Some(order) = self.scenario.order.get(self.orders_given) else { return Ok(()) };
        if self.judge.lines.iter().any(|line| order.after.0.is_match(&line.text)) {
            self.orders_given += 1;
            let mut qmp = self.qmp()?;
            order.send.iter().try_for_each(|command| qmp.send(&command.0).map(drop))?;
        }
        Ok(())
    }

    fn qmp(&self) -> Result<Qmp> {
        Qmp::open(&control_of(&self.sockets))
    }

    fn site(&mut self) -> Result<&mut Site<'a>> {
        self.site.as_mut().context("the scenario has no host")
    }
}

/// QEMU's own line, and the operator's where the scenario has one.
fn add_lines(command: &mut Command, scenario: &Scenario, sockets: &TemporaryFolder) {
    command.args(["-qmp", &qemu::control(&control_of(sockets))]);
    if scenario.has_dpuctl() {
        qemu::add_mailbox(command, &mailbox_of(sockets));
    }
}

fn mailbox_of(sockets: &TemporaryFolder) -> PathBuf {
    sockets.join("mailbox")
}

fn control_of(sockets: &TemporaryFolder) -> PathBuf {
    sockets.join("control")
}

/// The card's QEMU, but for its control socket.
fn card(
    scenario: &Scenario,
    stage: &Stage,
    drives: &TemporaryFolder,
    nets: &[(String, String)],
    site: Option<&Site>,
) -> Result<Command> {
    let mut command = machine(scenario)?.command();
    if !scenario.restarts {
        // A reset is an end: what comes after it is another boot.
        command.arg("-no-reboot");
    }
    match scenario.boot {
        Boot::Kernel => {
            command.arg("-kernel").arg(&stage.image.flat).args(["-append", &scenario.append]);
        }
        Boot::UBoot => {
            let flat = qemu::escaped(&stage.image.flat);
            let loader = format!("loader,file={flat},addr=0x48000000,force-raw=on");
            command.args(["-bios", U_BOOT, "-device", &loader]);
        }
    }
    command.args(&scenario.arguments);
    for drive in &scenario.drive {
        drive.add(&mut command, drives.path())?;
    }
    if scenario.flash {
        qemu::add_flash(&mut command, drives.path())?;
    }
    for (number, (net, properties)) in nets.iter().enumerate() {
        qemu::add_port_with(&mut command, number, net, properties);
    }
    Ok(match site {
        Some(site) => site.enclose(command),
        None => command,
    })
}

fn machine(scenario: &Scenario) -> Result<Machine> {
    let mut machine = Machine::of(&scenario.board)?;
    machine.machine = scenario.machine.clone().unwrap_or(machine.machine);
    machine.cpu = scenario.cpu.clone().unwrap_or(machine.cpu);
    machine.smp = scenario.smp.unwrap_or(machine.smp);
    machine.memory = scenario.memory.clone().unwrap_or(machine.memory);
    Ok(machine)
}
