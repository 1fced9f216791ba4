//! `cargo xtask test qemu`: boots the image as each file of `qemu/scenarios` says and judges its log.

use crate::card_log::{CardLog, Line};
use crate::command::{note, tail};
use crate::crowd::Crowd;
use crate::image::{self, Image};
use crate::paths::TemporaryFolder;
use crate::qemu::{self, Drive, Machine, U_BOOT};
use crate::report::Report;
use crate::vm::Vm;
use crate::{paths, setup};
use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One file of `qemu/scenarios`. Unset machine fields are those of the board's machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it proves, one sentence.
    proves: String,
    #[serde(default = "default_board")]
    board: String,
    machine: Option<String>,
    cpu: Option<String>,
    smp: Option<u32>,
    memory: Option<String>,
    /// `kernel` (QEMU loads the image) or `u-boot` (U-Boot does, by `booti`).
    #[serde(default)]
    boot: Boot,
    /// Boot arguments.
    #[serde(default)]
    append: String,
    /// More QEMU arguments; they come before the drives, whose buses they may make.
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    drive: Vec<Drive>,
    /// Value of `-netdev`, without its id; `{port}` stands for a free port of 127.0.0.1.
    #[serde(default = "default_net")]
    net: String,
    /// Regular expressions that lines of the log match, in this order, others between them.
    expect: Vec<String>,
    /// Regular expressions that no line matches.
    #[serde(default)]
    forbid: Vec<String>,
    /// What to type into the serial port, and after which text.
    #[serde(default)]
    answer: Vec<Answer>,
    /// What to tell QEMU, and after which line of the log.
    #[serde(default)]
    order: Vec<Order>,
    /// More TCP connections than the card serves, once the expected lines have come.
    crowd: Option<Crowd>,
    /// How long the card may take to the last expected line.
    #[serde(default = "default_limit")]
    limit_s: u64,
    /// How long to go on watching for what is forbidden.
    #[serde(default)]
    watch_s: u64,
    /// Compare the log, up to the last expected line, with `qemu/expected/NAME.txt`.
    #[serde(default)]
    golden: bool,
    /// Volatile text in the golden log: pattern and what stands for it.
    #[serde(default)]
    normalise: Vec<(String, String)>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Boot {
    #[default]
    Kernel,
    UBoot,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    after: String,
    send: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    after: String,
    /// Commands of QEMU's machine protocol.
    send: Vec<String>,
}

fn default_board() -> String {
    "qemu-aarch64".to_owned()
}

fn default_net() -> String {
    "user,restrict=on".to_owned()
}

fn default_limit() -> u64 {
    60
}

/// Where free ports are looked for: the first of those that nobody is assigned (RFC 6335).
const DYNAMIC_PORTS: u16 = 49152;
/// How long a line may take that the harness waits for after the expected ones.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// Lines that no scenario allows.
const NEVER: [&str; 1] = [r"^\*\*\* (panic|exception)"];

/// Names of all scenarios, sorted.
pub fn names() -> Result<Vec<String>> {
    let folder = paths::root()?.join("qemu/scenarios");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let files = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// Runs the named scenario, or all of the board's.
pub fn run(report: &mut Report, only: Option<&str>, board: &str, bless: bool) -> Result<()> {
    setup::qemu()?;
    let names = names()?;
    if let Some(only) = only.filter(|only| !names.iter().any(|name| name == only)) {
        bail!("there is no scenario `{only}`; there are: {}", names.join(", "));
    }
    let image = image::build(board, false)?;
    for name in names.iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let file = paths::root()?.join(format!("qemu/scenarios/{name}.toml"));
        let scenario: Scenario = toml::from_str(&paths::read(&file)?)
            .with_context(|| format!("{} is not a scenario", file.display()))?;
        if scenario.board == board {
            report.check(&format!("qemu {name}"), || play(name, &scenario, &image, bless));
        }
    }
    Ok(())
}

fn play(name: &str, scenario: &Scenario, image: &Image, bless: bool) -> Result<()> {
    note(&format!("{name}: {}", scenario.proves));
    let mut machine = Machine::of(&scenario.board)?;
    machine.machine = scenario.machine.clone().unwrap_or(machine.machine);
    machine.cpu = scenario.cpu.clone().unwrap_or(machine.cpu);
    machine.smp = scenario.smp.unwrap_or(machine.smp);
    machine.memory = scenario.memory.clone().unwrap_or(machine.memory);
    let mut command = machine.command();
    // A reset is an end: what comes after it is another boot.
    command.arg("-no-reboot");
    match scenario.boot {
        Boot::Kernel => {
            command.arg("-kernel").arg(&image.flat).args(["-append", &scenario.append]);
        }
        Boot::UBoot => {
            let loader = format!("loader,file={},addr=0x48000000,force-raw=on", qemu::escaped(&image.flat));
            command.args(["-bios", U_BOOT, "-device", &loader]);
        }
    }
    command.args(&scenario.arguments);
    // Each run starts with empty drives.
    let drives = TemporaryFolder::for_drives()?;
    for drive in &scenario.drive {
        drive.add(&mut command, drives.path())?;
    }
    let port = qemu::free_port(DYNAMIC_PORTS)?;
    qemu::add_port(&mut command, 0, &scenario.net.replace("{port}", &port.to_string()));
    let sockets = TemporaryFolder::for_sockets()?;
    let control = sockets.join("control");
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", qemu::escaped(&control))]);
    let log = paths::logs()?.join(format!("qemu-{name}.serial"));
    let mut judge = Judge::new(scenario)?;
    let mut vm = Vm::start(&mut command, &log)?;
    let mut decoder = CardLog::new(&image.elf)?;
    let mut run = Run { vm: &mut vm, log: &mut decoder, judge: &mut judge, control, orders_given: 0 };
    let outcome = run.watch(scenario).and_then(|()| match &scenario.crowd {
        Some(crowd) => crowd.come_and_go(port, &mut |pattern| run.wait_for(pattern)),
        None => Ok(()),
    });
    vm.kill();
    judge.lines.extend(decoder.finish());
    let text: Vec<&str> = judge.lines.iter().map(|line| line.plain.as_str()).collect();
    let decoded = log.with_extension("log");
    std::fs::write(&decoded, text.join("\n") + "\n")?;
    let outcome = outcome.and_then(|()| compare(name, scenario, &judge.lines, bless));
    outcome.map_err(|error| {
        let end = tail(&decoded, 25).unwrap_or_default();
        error.context(format!(
            "repeat with `cargo xtask test qemu {name}`\nlog: {}, QEMU: {}\n{end}\n",
            decoded.display(),
            log.with_extension("qemu").display()
        ))
    })
}

/// Follows a log line by line.
struct Judge {
    expect: Vec<Regex>,
    forbid: Vec<Regex>,
    lines: Vec<Line>,
    met: usize,
    /// Text as it came, for answers to prompts that end without a line's end.
    raw: String,
    answered: usize,
}

impl Judge {
    fn new(scenario: &Scenario) -> Result<Self> {
        let compiled = |patterns: &mut dyn Iterator<Item = &str>| -> Result<Vec<Regex>> {
            patterns
                .map(|pattern| Regex::new(pattern).with_context(|| format!("pattern `{pattern}`")))
                .collect()
        };
        Ok(Self {
            expect: compiled(&mut scenario.expect.iter().map(String::as_str))?,
            forbid: compiled(&mut scenario.forbid.iter().map(String::as_str).chain(NEVER))?,
            lines: Vec::new(),
            met: 0,
            raw: String::new(),
            answered: 0,
        })
    }

    fn missing(&self) -> String {
        match self.expect.get(self.met) {
            Some(pattern) => format!("still waiting for a line like `{pattern}`"),
            None => "after the last expected line".to_owned(),
        }
    }

    fn take(&mut self, line: Line) -> Result<()> {
        let text = line.text.clone();
        self.lines.push(line);
        if let Some(pattern) = self.forbid.iter().find(|pattern| pattern.is_match(&text)) {
            bail!("a line like `{pattern}` must not come: {text}");
        }
        if self.expect.get(self.met).is_some_and(|pattern| pattern.is_match(&text)) {
            self.met += 1;
        }
        Ok(())
    }

    fn answer(&mut self, bytes: &[u8], vm: &mut Vm, scenario: &Scenario) -> Result<()> {
        self.raw.push_str(&String::from_utf8_lossy(bytes));
        while let Some(answer) = scenario.answer.get(self.answered) {
            let Some(place) = self.raw.find(&answer.after) else { break };
            self.raw.drain(..place + answer.after.len());
            vm.write(&answer.send)?;
            self.answered += 1;
        }
        Ok(())
    }
}

/// A machine that runs, with its log and its judge.
struct Run<'a> {
    vm: &'a mut Vm,
    log: &'a mut CardLog,
    judge: &'a mut Judge,
    control: PathBuf,
    orders_given: usize,
}

impl Run<'_> {
    /// Follows the log to the last expected line, and as long after it as the scenario says.
    fn watch(&mut self, scenario: &Scenario) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(scenario.limit_s);
        let mut until = None;
        while until.is_none_or(|until| Instant::now() < until) {
            let met = self.judge.met;
            if until.is_none() && Instant::now() >= deadline {
                bail!("no line like `{}` within {} s", self.judge.expect[met], scenario.limit_s);
            }
            let bytes = self.listen()?;
            self.judge.answer(&bytes, self.vm, scenario)?;
            self.order(scenario)?;
            if until.is_none() && self.judge.met == self.judge.expect.len() {
                until = Some(Instant::now() + Duration::from_secs(scenario.watch_s));
            }
        }
        Ok(())
    }

    /// Takes what the card says, for a moment.
    fn listen(&mut self) -> Result<Vec<u8>> {
        let bytes = self.vm.read(Duration::from_millis(50)).with_context(|| self.judge.missing())?;
        let mut lines = self.log.feed(&bytes).into_iter();
        if let Some(error) = lines.by_ref().find_map(|line| self.judge.take(line).err()) {
            // What follows says more: registers and backtrace.
            self.judge.lines.extend(lines);
            while let Ok(bytes @ [_, ..]) = self.vm.read(Duration::from_millis(300)).as_deref() {
                self.judge.lines.extend(self.log.feed(bytes));
            }
            return Err(error);
        }
        Ok(bytes)
    }

    /// Waits for a line that comes from now on and matches the pattern.
    fn wait_for(&mut self, pattern: &str) -> Result<String> {
        let compiled = Regex::new(pattern)?;
        let mut seen = self.judge.lines.len();
        let deadline = Instant::now() + WAIT_LIMIT;
        while Instant::now() < deadline {
            self.listen()?;
            let mut new = self.judge.lines[seen..].iter();
            if let Some(line) = new.find(|line| compiled.is_match(&line.text)) {
                return Ok(line.text.clone());
            }
            seen = self.judge.lines.len();
        }
        bail!("no line like `{pattern}` within {} s", WAIT_LIMIT.as_secs())
    }

    /// Gives QEMU the next order once its line has come.
    fn order(&mut self, scenario: &Scenario) -> Result<()> {
        let Some(order) = scenario.order.get(self.orders_given) else { return Ok(()) };
        let after = Regex::new(&order.after)?;
        if self.judge.lines.iter().any(|line| after.is_match(&line.text)) {
            self.orders_given += 1;
            qemu::command_by_socket(&self.control, &order.send)?;
        }
        Ok(())
    }
}

/// Compares with the golden log, or writes it.
fn compare(name: &str, scenario: &Scenario, lines: &[Line], bless: bool) -> Result<()> {
    if !scenario.golden {
        return Ok(());
    }
    let mut actual: String = lines.iter().map(|line| line.text.clone() + "\n").collect();
    for (pattern, replacement) in &scenario.normalise {
        actual = Regex::new(pattern)?.replace_all(&actual, replacement.as_str()).into_owned();
    }
    let folder = paths::created(paths::root()?.join("qemu/expected"))?;
    let file = folder.join(format!("{name}.txt"));
    if bless {
        note(&format!("writing {}", file.display()));
        return std::fs::write(&file, actual).with_context(|| format!("{}", file.display()));
    }
    let expected = paths::read(&file).context("write it with --bless")?;
    if expected == actual {
        return Ok(());
    }
    bail!(
        "the log is not the expected one; if it is right, say `--bless`\n{}",
        difference(&file, &expected, &actual)
    )
}

/// The first lines that differ, with what was expected and what came.
fn difference(file: &Path, expected: &str, actual: &str) -> String {
    let mut text = format!("--- {}\n+++ this run\n", file.display());
    let same = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
    for line in expected.lines().skip(same).take(10) {
        text.push_str(&format!("-{line}\n"));
    }
    for line in actual.lines().skip(same).take(10) {
        text.push_str(&format!("+{line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(expect: &str, forbid: &str) -> Judge {
        let text = format!("proves = \"\"\nexpect = [{expect}]\nforbid = [{forbid}]");
        Judge::new(&toml::from_str(&text).unwrap()).unwrap()
    }

    fn line(text: &str) -> Line {
        Line { text: text.to_owned(), plain: text.to_owned(), shown: text.to_owned() }
    }

    #[test]
    fn expected_lines_come_in_order_with_others_between() {
        let mut judge = judge(r#""one", "two""#, "");
        for text in ["two", "one", "other", "two"] {
            judge.take(line(text)).unwrap();
        }
        assert_eq!(judge.met, 2);
    }

    #[test]
    fn a_panic_fails_whatever_the_scenario_says() {
        assert!(judge(r#""ready""#, "").take(line("*** panic on core 1: index out of bounds")).is_err());
        assert!(judge(r#""ready""#, r#""oops""#).take(line("oops")).is_err());
    }

    #[test]
    fn every_scenario_of_the_tree_can_be_read() {
        for name in names().unwrap() {
            let file = paths::root().unwrap().join(format!("qemu/scenarios/{name}.toml"));
            let scenario: Scenario = toml::from_str(&std::fs::read_to_string(&file).unwrap()).expect(&name);
            Judge::new(&scenario).expect(&name);
            assert!(!scenario.expect.is_empty(), "{name} expects nothing");
        }
    }
}
