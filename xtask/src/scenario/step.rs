//! `[[step]]` of a scenario: one thing that is done or waited for.

use super::file::{Command, Pattern};
use crate::linux::flood::Flood;
use crate::linux::relay::{Side, Weather};
use crate::qemu::Drive;
use serde::Deserialize;
use std::time::Duration;

/// How long a step may take where it does not say.
const DEFAULT_LIMIT_S: u64 = 60;

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is shown of it.
    pub name: String,
    /// How long it may take.
    pub limit: Duration,
    /// What it is.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Waits for such a line of the card's log, behind the line that the last such step found.
    Card(Pattern),
    /// Waits until the drives' models have told such a thing, behind what the last such step found.
    Device(Pattern),
    /// Waits for such a line on the host's console, behind the line that the last such step found.
    Console(Pattern),
    /// Runs shell commands in the host; each has to succeed.
    Run(String),
    /// The same in the background, under the step's name.
    Start(String),
    /// Waits until what was started under that name has succeeded.
    Finish(String),
    /// Runs the user-space host with these words against the card's forwarded port.
    Native(String),
    /// Runs the operator's tool with these words on the card's mailbox; its output has such lines, in this order.
    Dpuctl(String, Vec<Pattern>),
    /// Gives the card's QEMU commands.
    Qmp(Vec<Command>),
    /// Gives the host's QEMU commands.
    HostQmp(Vec<Command>),
    /// A drive fails some of its I/O from now on.
    Fail(Fail),
    /// A drive serves so many operations a second from now on.
    Slow(Slow),
    /// A drive takes I/O from now on and does not end it, until it is mended or reset.
    Hang(String),
    /// A drive keeps the next write that comes to it, and only that, until it is let go.
    Hold(String),
    /// A drive carries out the write that it keeps.
    LetGo(String),
    /// A drive is well again.
    Mend(String),
    /// A new drive is plugged in.
    Plug(Drive),
    /// A drive is asked for: its slot's button is pressed, and the step ends when the drive is out.
    Unplug(String),
    /// What happens to frames between host and card from now on.
    Network(Weather),
    /// The connection that is next to carry data towards that side is reset in the middle of the data.
    Reset(Side),
    /// A flood of connection requests begins; 0 a second ends it.
    Flood(Flood),
    /// The link of the card's port of that number, from 1 on, goes up or down.
    Link(usize, Switch),
    /// The host's power is cut, or it is started anew.
    HostPower(Switch),
    /// The card's power button is pressed until it has switched itself off, or it is started anew.
    CardPower(Switch),
    /// Nothing for so many seconds.
    Pause(Duration),
    /// Goes back to an earlier step, so often.
    Again(Again),
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// `fail` of a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// The drive's name.
    pub drive: String,
    /// The kinds of I/O that fail.
    pub on: Vec<Kind>,
    /// How, as Linux numbers errors: 5 is EIO, 28 ENOSPC, 61 ENODATA, 84 EILSEQ.
    pub errno: u32,
    /// Only what touches this sector of 512 bytes.
    pub sector: Option<u64>,
}

/// A kind of I/O, in blkdebug's words.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Zeroes that a drive writes by itself.
    WriteZeroes,
    /// Deallocation.
    Discard,
    /// Flushes.
    Flush,
}

impl Kind {
    /// blkdebug's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteZeroes => "write-zeroes",
            Self::Discard => "discard",
            Self::Flush => "flush",
        }
    }
}

/// `slow` of a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// The drive's name.
    pub drive: String,
    /// Operations a second.
    pub iops: Option<u64>,
    /// Operations of 4 KiB a minute.
    pub per_minute: Option<u64>,
}

/// Steps that are done more than once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// The name of the first of them, which stands before this step; those up to here follow it.
    pub from: String,
    /// How often besides the first time.
    pub times: u32,
}

/// A step as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    name: Option<String>,
    limit_s: Option<u64>,
    card: Option<Pattern>,
    console: Option<Pattern>,
    device: Option<Pattern>,
    run: Option<String>,
    start: Option<String>,
    finish: Option<String>,
    native: Option<String>,
    dpuctl: Option<String>,
    shows: Option<Vec<Pattern>>,
    qmp: Option<Vec<Command>>,
    host_qmp: Option<Vec<Command>>,
    fail: Option<Fail>,
    slow: Option<Slow>,
    hang: Option<String>,
    hold: Option<String>,
    let_go: Option<String>,
    mend: Option<String>,
    plug: Option<Drive>,
    unplug: Option<String>,
    network: Option<Weather>,
    reset: Option<Side>,
    flood: Option<Flood>,
    link: Option<Switch>,
    port: Option<usize>,
    host_power: Option<Switch>,
    card_power: Option<Switch>,
    pause_s: Option<u64>,
    again: Option<Again>,
}

impl TryFrom<Table> for Step {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let name = table.name.clone();
        let limit = Duration::from_secs(table.limit_s.unwrap_or(DEFAULT_LIMIT_S));
        if table.port.is_some() && table.link.is_none() {
            return Err("expected `link` with `port`: it says of which port".to_owned());
        }
        if table.shows.is_some() && table.dpuctl.is_none() {
            return Err("expected `dpuctl` with `shows`: it says what that prints".to_owned());
        }
        let mut actions: Vec<(&str, Action)> = table.actions();
        match (actions.pop(), actions.pop()) {
            (Some((word, action)), None) => {
                if word == "start" && name.is_none() {
                    return Err("expected `name`, by which `finish` calls what is started".to_owned());
                }
                Ok(Self { name: name.unwrap_or_else(|| action.text(word)), limit, action })
            }
            (Some((one, _)), Some((other, _))) => {
                Err(format!("expected one of `{other}` and `{one}`; a step does one thing"))
            }
            _ => Err(
                "expected one of card, device, console, run, start, finish, native, dpuctl, qmp, host_qmp, fail, slow, hang, hold, let_go, mend, plug, \
                      unplug, network, reset, flood, link, host_power, card_power, pause_s, again"
                    .to_owned(),
            ),
        }
    }
}

impl Table {
    fn actions(self) -> Vec<(&'static str, Action)> {
        let pause = self.pause_s.map(Duration::from_secs);
        let all = [
            ("card", self.card.map(Action::Card)),
            ("console", self.console.map(Action::Console)),
            ("device", self.device.map(Action::Device)),
            ("run", self.run.map(Action::Run)),
            ("start", self.start.map(Action::Start)),
            ("finish", self.finish.map(Action::Finish)),
            ("native", self.native.map(Action::Native)),
            ("dpuctl", self.dpuctl.map(|words| Action::Dpuctl(words, self.shows.unwrap_or_default()))),
            ("qmp", self.qmp.map(Action::Qmp)),
            ("host_qmp", self.host_qmp.map(Action::HostQmp)),
            ("fail", self.fail.map(Action::Fail)),
            ("slow", self.slow.map(Action::Slow)),
            ("hang", self.hang.map(Action::Hang)),
            ("hold", self.hold.map(Action::Hold)),
            ("let_go", self.let_go.map(Action::LetGo)),
            ("mend", self.mend.map(Action::Mend)),
            ("plug", self.plug.map(Action::Plug)),
            ("unplug", self.unplug.map(Action::Unplug)),
            ("network", self.network.map(Action::Network)),
            ("reset", self.reset.map(Action::Reset)),
            ("flood", self.flood.map(Action::Flood)),
            ("link", self.link.map(|switch| Action::Link(self.port.unwrap_or(1), switch))),
            ("host_power", self.host_power.map(Action::HostPower)),
            ("card_power", self.card_power.map(Action::CardPower)),
            ("pause_s", pause.map(Action::Pause)),
            ("again", self.again.map(Action::Again)),
        ];
        all.into_iter().filter_map(|(word, action)| Some((word, action?))).collect()
    }
}

impl Action {
    /// What is shown of a step without a name.
    fn text(&self, word: &str) -> String {
        match self {
            Self::Card(Pattern(pattern)) => format!("the card says `{pattern}`"),
            Self::Device(Pattern(pattern)) => format!("a drive tells `{pattern}`"),
            Self::Console(Pattern(pattern)) => format!("the host says `{pattern}`"),
            Self::Run(text) | Self::Start(text) => text.lines().next().unwrap_or_default().to_owned(),
            Self::Finish(name) => format!("{name}: its end"),
            Self::Native(words) => format!("the user-space host: {words}"),
            Self::Dpuctl(words, _) => format!("dpuctl {words}"),
            Self::Fail(Fail { drive, on, errno, .. }) => {
                let kinds: Vec<&str> = on.iter().map(|kind| kind.name()).collect();
                format!("drive {drive}: each {} fails with error {errno}", kinds.join(" and "))
            }
            Self::Slow(Slow { drive, iops: Some(iops), .. }) => {
                format!("drive {drive} serves {iops} operations a second")
            }
            Self::Slow(Slow { drive, .. }) => format!("drive {drive} serves next to nothing"),
            Self::Hold(drive) => format!("drive {drive} keeps the next write"),
            Self::LetGo(drive) => format!("drive {drive} carries out the write that it keeps"),
            Self::Hang(drive) => format!("drive {drive} takes I/O and does not end it"),
            Self::Mend(drive) => format!("drive {drive} is well again"),
            Self::Plug(drive) => format!("drive {} is plugged in", drive.name),
            Self::Unplug(drive) => format!("drive {drive} is unplugged"),
            Self::Network(weather) => format!("network: {}", weather.text()),
            Self::Reset(Side::Card) => "a connection is reset within its data to the card".to_owned(),
            Self::Reset(Side::Host) => "a connection is reset within its data to the host".to_owned(),
            Self::Flood(flood) => format!("{} connection requests a second", flood.syn_per_s),
            Self::Link(port, Switch::On) => format!("the link of port {port} comes up"),
            Self::Link(port, Switch::Off) => format!("the link of port {port} goes down"),
            Self::HostPower(Switch::On) => "the host is started".to_owned(),
            Self::HostPower(Switch::Off) => "the host's power is cut".to_owned(),
            Self::CardPower(Switch::On) => "the card is started".to_owned(),
            Self::CardPower(Switch::Off) => "the card's power button ends it".to_owned(),
            Self::Again(Again { from, times }) => format!("{times} times more, from \"{from}\" on"),
            Self::Pause(pause) => format!("{} s pass", pause.as_secs()),
            Self::Qmp(_) | Self::HostQmp(_) => word.to_owned(),
        }
    }
}

impl Step {
    /// The commands that the host runs in this step.
    pub fn script(&self) -> Option<&str> {
        match &self.action {
            Action::Run(text) | Action::Start(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it takes a wire that this process can disturb.
    pub fn needs_relay(&self) -> bool {
        matches!(self.action, Action::Flood(_) | Action::Network(_) | Action::Reset(_))
    }

    /// Whether it makes no sense without a host.
    pub fn needs_host(&self) -> bool {
        use Action::{Console, Finish, Flood, HostPower, HostQmp, Network, Reset, Run, Start};
        matches!(
            self.action,
            Console(_)
                | Finish(_)
                | Flood(_)
                | HostPower(_)
                | HostQmp(_)
                | Network(_)
                | Reset(_)
                | Run(_)
                | Start(_)
        )
    }
}
