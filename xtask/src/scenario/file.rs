//! What a file of `qemu/scenarios` may say. `docs/SCENARIOS.md` tells it to those who write one.

use super::bad_input::BadInput;
use super::crowd::Crowd;
use super::step::{Action, Step, Table};
use crate::paths;
use crate::qemu::Drive;
use anyhow::{Context, Result, anyhow};
use regex::Regex;
use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

/// One file. Unset machine fields are those of the board's machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it proves, one sentence.
    pub proves: String,
    /// The board whose image runs.
    #[serde(default = "default_board")]
    pub board: String,
    /// Value of `-M`.
    pub machine: Option<String>,
    /// Value of `-cpu`.
    pub cpu: Option<String>,
    /// Number of cores.
    pub smp: Option<u32>,
    /// Value of `-m`.
    pub memory: Option<String>,
    /// `kernel` (QEMU loads the image) or `u-boot` (U-Boot does, by `booti`).
    #[serde(default)]
    pub boot: Boot,
    /// It runs only where it is asked for by its name or a pattern.
    #[serde(default)]
    pub on_request: bool,
    /// Boot arguments.
    #[serde(default)]
    pub append: String,
    /// More QEMU arguments; they come before the drives, whose buses they may make.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The drives that are there at the start.
    #[serde(default)]
    pub drive: Vec<Drive>,
    /// The machine's flash has a file, in which the card stores its configuration.
    #[serde(default)]
    pub flash: bool,
    /// Value of `-netdev`, without its id; `{port}` stands for a free port of 127.0.0.1. With a host it is the wire.
    #[serde(default = "default_net")]
    pub net: String,
    /// A Linux host at the other end of the wire.
    pub host: Option<LinuxHost>,
    /// Regular expressions that lines of the card's log match, in this order, others between them.
    #[serde(default)]
    pub expect: Vec<Pattern>,
    /// Regular expressions that no line of the card's log matches.
    #[serde(default)]
    pub forbid: Vec<Pattern>,
    /// The card may break down and start again. Else either ends the scenario.
    #[serde(default)]
    pub restarts: bool,
    /// Regular expressions that lines of what `cargo xtask crash` makes of the log match, in this order.
    #[serde(default)]
    pub crash: Vec<Pattern>,
    /// What to type into the serial port, and after which text.
    #[serde(default)]
    pub answer: Vec<Answer>,
    /// What to tell QEMU, and after which line of the log.
    #[serde(default)]
    pub order: Vec<Order>,
    /// What is done, one after the other, once the card is ready and the host is up.
    #[serde(skip)]
    pub steps: Vec<Step>,
    #[serde(default, rename = "step")]
    tables: Vec<Spanned<Table>>,
    /// More TCP connections than the card serves, once the expected lines have come.
    pub crowd: Option<Crowd>,
    /// Inputs that broke other targets, once the expected lines have come.
    pub bad_input: Option<BadInput>,
    /// How long the card may take to the last expected line.
    #[serde(default = "default_limit")]
    pub limit_s: u64,
    /// How long to go on watching for what is forbidden.
    #[serde(default)]
    pub watch_s: u64,
    /// Compare the log, up to the last expected line, with `qemu/expected/NAME.txt`.
    #[serde(default)]
    pub golden: bool,
    /// Volatile text in the golden log: pattern and what stands for it.
    #[serde(default)]
    pub normalise: Vec<(String, String)>,
}

impl Scenario {
    /// Whether the user-space host has a part.
    pub fn has_native_host(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Native(_)))
    }

    /// Whether the operator's tool has a part, so that the machine has a line for it.
    pub fn has_dpuctl(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Dpuctl(..)))
    }
}

/// `[host]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinuxHost {
    /// Number of processors.
    #[serde(default = "default_processors")]
    pub processors: u32,
    /// Ethernet ports, each on a wire to one of the card's: the n-th is 10.0.(n-1).2, the host's seed is for the first.
    #[serde(default = "default_ports")]
    pub ports: u32,
    /// What the wires are.
    #[serde(default)]
    pub wire: Wire,
    /// Decides which frames the network's weather hits.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// A folder of `qemu/guests` with what the host has besides ([`crate::guest::addition`]).
    pub adds: Option<String>,
    /// What the card still holds at the end is no failure.
    #[serde(default)]
    pub leaves_something: bool,
}

/// What joins the host to the card.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Wire {
    /// A socket through this process, which may disturb it.
    #[default]
    Relay,
    /// A bridge in a network namespace; the card's end has so many queues.
    Taps {
        /// Queue pairs of the card's device.
        #[serde(default = "default_queues")]
        queues: u32,
    },
}

/// Who loads the image.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// QEMU.
    #[default]
    Kernel,
    /// U-Boot.
    UBoot,
}

/// `[[answer]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Text on the serial port.
    pub after: String,
    /// What is typed then.
    pub send: String,
}

/// `[[order]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// A line of the card's log.
    pub after: Pattern,
    /// Commands of QEMU's machine protocol.
    pub send: Vec<Command>,
}

/// A regular expression; one that is none is an error at its line of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(pub Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Regex::new(&text)
            .map(Self)
            .map_err(|error| format!("expected a regular expression, but `{text}` is none: {error}"))
    }
}

/// A command of QEMU's machine protocol: JSON text.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Command(pub serde_json::Value);

impl TryFrom<String> for Command {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| format!("expected a QMP command in JSON, but `{text}` is none: {error}"))?;
        if value["execute"].is_string() {
            Ok(Self(value))
        } else {
            Err(format!(
                r#"expected a QMP command {{"execute": "NAME", ...}}, but `{text}` has no "execute""#
            ))
        }
    }
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

fn default_processors() -> u32 {
    2
}

fn default_ports() -> u32 {
    1
}

fn default_queues() -> u32 {
    1
}

fn default_seed() -> u64 {
    20_261_122
}

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

/// Reads the file of that name; an error says the line and what was expected there.
pub fn read(name: &str) -> Result<Scenario> {
    let file: PathBuf = paths::root()?.join(format!("qemu/scenarios/{name}.toml"));
    let scenario = parse(&paths::read(&file)?);
    scenario.with_context(|| format!("{} is not a scenario", file.display()))
}

/// Reads the text of a file.
pub fn parse(text: &str) -> Result<Scenario> {
    let mut scenario: Scenario = toml::from_str(text)?;
    for table in std::mem::take(&mut scenario.tables) {
        let line = text[..table.span().start].matches('\n').count() + 1;
        let step = Step::try_from(table.into_inner());
        scenario.steps.push(step.map_err(|error| anyhow!("[[step]] at line {line}: {error}"))?);
    }
    anyhow::ensure!(
        !scenario.expect.is_empty() || scenario.host.is_some(),
        "expected `expect = [...]` or `[host]`: without either nothing would be judged"
    );
    let quiet = |host: &LinuxHost| host.wire != Wire::Relay && host.ports == 1;
    let disturbed = scenario.steps.iter().any(|step| step.needs_relay());
    anyhow::ensure!(
        scenario.host.as_ref().is_none_or(|host| host.wire == Wire::Relay || quiet(host) && !disturbed),
        "expected no `wire`, since it has more than one port, or a step disturbs the network"
    );
    let native = scenario.has_native_host();
    anyhow::ensure!(
        !native || scenario.host.is_none() && scenario.net.contains("{port}"),
        "expected `net` with `{{port}}` and no `[host]`: the user-space host comes by a forwarded port"
    );
    let lonely = scenario.steps.iter().find(|step| step.needs_host() && scenario.host.is_none());
    anyhow::ensure!(lonely.is_none(), "expected `[host]`, since a step is about the host");
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn every_scenario_of_the_tree_can_be_read() {
        for name in names().unwrap() {
            read(&name).expect(&name);
        }
    }

    #[test]
    fn a_scenario_that_does_not_parse_gets_its_line_and_what_was_expected() {
        let broken = error("proves = \"\"\nexpect = [\"(\"]\n");
        assert!(broken.contains("line 2") && broken.contains("expected a regular expression"), "{broken}");
        let broken = error("proves = \"\"\nexpect = [\"a\"]\nlimits = 3\n");
        assert!(broken.contains("line 3") && broken.contains("expected one of"), "{broken}");
        let broken = error("proves = \"\"\nexpect = [\"a\"]\n[[order]]\nafter = \"a\"\nsend = ['{}']\n");
        assert!(broken.contains("line 5") && broken.contains("expected a QMP command"), "{broken}");
        let broken = error("proves = \"\"\n[host]\n[[step]]\nrun = \"true\"\n\n[[step]]\nlimit_s = 3\n");
        assert!(broken.contains("line 6") && broken.contains("expected one of"), "{broken}");
        let broken = error("proves = \"\"\n[host]\n[[step]]\nrun = \"true\"\ncard = \"(\"\n");
        assert!(broken.contains("line 5") && broken.contains("regular"), "{broken}");
        let broken = error("proves = \"\"\n[host]\n[[step]]\nrun = \"true\"\ncard = \"a\"\n");
        assert!(broken.contains("line 3") && broken.contains("one of"), "{broken}");
        assert!(error("proves = \"\"\n").contains("expected `expect"));
        assert!(error("proves = \"\"\nexpect=[\"a\"]\n[[step]]\nrun = \"true\"\n").contains("[host]"));
    }
}
