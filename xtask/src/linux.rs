//! `cargo xtask test linux`: a real Linux NVMe/TCP host, in its own virtual machine, against the card.

pub mod card;
pub mod flood;
pub mod host;
pub mod relay;
pub mod script;
pub mod segment;
pub mod target;
pub mod wire;

use crate::accelerator;
use crate::card_log::Ready as CardReady;
use crate::command::tail;
use crate::guest::{self, Guest};
use crate::hosted::{self, Build};
use crate::image::{self, Image};
use crate::paths;
use crate::report::{Job, Verdict};
use crate::setup;
use anyhow::{Result, bail};
use card::{Card, CardPlan};
use clap::{Args, ValueEnum};
use host::{Ending, Host, HostPlan};
use script::{GUEST, Script, scripts};
use std::path::PathBuf;
use std::time::Instant;
use wire::Wire;

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
    /// The card: a board with an image, or `hosted`, a process of this machine
    #[arg(long, default_value = "qemu-aarch64")]
    board: String,
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
        let board = "qemu-aarch64".to_owned();
        Self { only: None, full, against: Against::Card, board, host_smp: 2, set: Vec::new() }
    }

    /// One test against the card as a process of this machine, with little I/O.
    pub fn hosted(test: &str) -> Self {
        let (only, set) = (Some(test.to_owned()), vec!["TOTAL_MB=64".to_owned()]);
        Self { only, board: hosted::BOARD.to_owned(), set, ..Self::all(false) }
    }
}

/// The tests of a Linux host, ready to run.
pub struct Plan {
    options: Options,
    tests: Vec<Script>,
    ready: Result<Ready, String>,
}

/// What the tests share.
struct Ready {
    guest: Guest,
    accelerator: &'static str,
    built: Option<Built>,
}

impl Plan {
    /// Finds the tests, and builds what they need.
    pub fn new(options: Options) -> Result<Self> {
        if let Some(why) = guest::obstacle() {
            return Ok(Self { options, tests: Vec::new(), ready: Err(why) });
        }
        let tests = scripts("tests", options.only.as_deref())?;
        setup::qemu()?;
        let built = match options.against {
            Against::Card if options.board == hosted::BOARD => {
                Some(Built::Process(hosted::build(Build::Checked)?))
            }
            Against::Card => Some(Built::Image(image::build(&options.board, false)?)),
            Against::Nvmet => None,
        };
        let guest = guest::prepare(GUEST)?;
        let accelerator = accelerator::choose(&guest.kernel)?;
        Ok(Self { options, tests, ready: Ok(Ready { guest, accelerator, built }) })
    }

    /// One for each test.
    pub fn jobs(&self) -> Vec<Job<'_>> {
        let ready = match &self.ready {
            Ok(ready) => ready,
            Err(why) => {
                let work = || Ok(Verdict::Skipped(why.clone()));
                return vec![Job {
                    name: "linux".to_owned(),
                    about: "linux".to_owned(),
                    work: Box::new(work),
                }];
            }
        };
        let job = |test| {
            let Ready { guest, accelerator, built } = ready;
            let session = Session { test, options: &self.options, guest, accelerator, built: built.as_ref() };
            let (name, about) = (session.name(" "), test.about());
            Job { name, about, work: Box::new(move || session.run()) }
        };
        self.tests.iter().map(job).collect()
    }
}

/// Shell variables that say where the card is.
pub fn environment_of(card: &CardReady) -> String {
    let CardReady { namespaces, nqn, address, port } = card;
    format!("TARGET=card\nADDRESS={address}\nPORT={port}\nNQN={nqn}\nNAMESPACES={namespaces}\nLACKS=\n")
}

/// A card that was built.
enum Built {
    /// For a machine of its own.
    Image(Image),
    /// A program.
    Process(PathBuf),
}

/// One test: a card, and one host after the other.
struct Session<'a> {
    test: &'a Script,
    options: &'a Options,
    guest: &'a Guest,
    accelerator: &'static str,
    built: Option<&'a Built>,
}

impl Session<'_> {
    /// The test's name in reports and of its logs.
    fn name(&self, blank: &str) -> String {
        let hosted = matches!(self.built, Some(Built::Process(_)));
        let words =
            ["linux"].into_iter().chain(hosted.then_some(hosted::BOARD)).chain([self.test.name.as_str()]);
        words.collect::<Vec<_>>().join(blank)
    }

    fn run(&self) -> Result<Verdict> {
        let taps = self.test.field("wire") == Some("taps");
        if self.built.is_none() && (taps || self.test.stages() > 1) {
            return Ok(Verdict::Skipped("the target is in the same machine as its host".to_owned()));
        }
        let wire = if taps {
            match Wire::taps(1500) {
                Ok(wire) => wire,
                Err(why) => return Ok(Verdict::Skipped(format!("{why:#}"))),
            }
        } else {
            Wire::stream()?
        };
        self.play(&wire).map(|()| Verdict::Passed).map_err(|error| error.context(self.logs()))
    }

    /// How to repeat the test, and the ends of its logs.
    fn logs(&self) -> String {
        let test = &self.test.name;
        let mut text = match self.built {
            Some(Built::Process(_)) => {
                format!("repeat with `cargo xtask test linux --board hosted {test}`\n")
            }
            _ => format!("repeat with `cargo xtask test linux {test}`\n"),
        };
        let name = self.name("-");
        let parts = if self.built.is_some() { &["card", "host"][..] } else { &["host"] };
        for log in parts.iter().filter_map(|part| card::log_file(&format!("{name}-{part}")).ok()) {
            let end = tail(&log, 25).unwrap_or_default();
            text.push_str(&format!("--- {}\n{end}\n", log.display()));
        }
        text
    }

    fn play(&self, wire: &Wire) -> Result<()> {
        let name = format!("{}-card", self.name("-"));
        let card = self.built.map(|built| match built {
            Built::Image(image) => Card::start(&CardPlan::new(image, &name), wire),
            Built::Process(program) => Card::start_process(program, &name, wire),
        });
        let mut card = card.transpose()?;
        let served = card.as_ref().map(|card| card.ready.clone());
        let deadline = Instant::now() + self.test.limit(self.options.full)?;
        let log = paths::logs()?.join(format!("{}-host.log", self.name("-")));
        let mut last_host_started = 0;
        for stage in 1..=self.test.stages() {
            last_host_started = card.as_ref().map_or(0, |card| card.lines.len());
            let environment = self.environment(served.as_ref(), stage);
            let mut host = Host::start(&HostPlan {
                guest: self.guest,
                addition: &[],
                accelerator: self.accelerator,
                processors: self.options.host_smp,
                run: &self.test.text,
                pieces: &[],
                environment: &environment,
                wires: if card.is_some() { std::slice::from_ref(wire) } else { &[] },
                control: None,
                log: &log,
            })?;
            let ending = host.follow(card.as_mut(), deadline, &mut |_| Ok(()))?;
            if ending == Ending::Kill && stage == self.test.stages() {
                bail!("the last stage asked to be killed");
            }
        }
        match card {
            Some(mut card) => {
                card.has_said(self.test)?;
                card.afterwards(self.test, last_host_started)
            }
            None => Ok(()),
        }
    }

    /// Shell variables of the tests.
    fn environment(&self, card: Option<&CardReady>, stage: u32) -> String {
        let mut text = format!("FULL={}\nSTAGE={stage}\n", u32::from(self.options.full));
        text += &card.map(environment_of).unwrap_or_else(|| {
            // Linux's target over a RAM disk does not know what it lacks here.
            let place =
                "TARGET=nvmet\nADDRESS=127.0.0.1\nPORT=4420\nNQN=nqn.2014-08.test:nvmet\nNAMESPACES=4\n";
            format!("{place}LACKS=\"compare verify\"\n")
        });
        for variable in &self.options.set {
            text += &format!("{variable}\n");
        }
        text
    }
}
