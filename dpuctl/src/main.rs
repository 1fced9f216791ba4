//! The operator's tool: asks a card by its mailbox, and any NVMe/TCP target as a host of its own.
//!
//! `client.rs` talks to the card, `commands.rs` is what there is to ask, `survey.rs` puts together what the data cores say one by
//! one, as the types of `views.rs`; `output.rs` shows it: tables for people, JSON for programs. `bench.rs` and `nvme.rs` need no mailbox,
//! only a target's address (`target.rs`). Exit codes: see [`exit`].

mod apply;
mod bench;
mod client;
mod commands;
mod configure;
mod declared;
mod exporter;
mod meters;
mod nvme;
mod output;
mod survey;
mod target;
mod top;
mod traces;
mod views;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use client::{Client, Failure};

/// Exit codes.
mod exit {
    /// The card has refused what was asked for, and nothing was changed; or an NVMe/TCP target has.
    pub const REFUSED: u8 = 1;
    /// The command line asks for what cannot be done; clap's own.
    pub const USAGE: u8 = 2;
    /// `apply` has made some of the changes, and the next was not made.
    pub const PARTLY: u8 = 3;
    /// What was read is not what was written: EX_DATAERR.
    pub const DATA: u8 = 65;
    /// There is no card to ask, or it does not answer: EX_UNAVAILABLE of sysexits(3).
    pub const UNAVAILABLE: u8 = 69;
    /// What the card says makes no sense: EX_PROTOCOL.
    pub const PROTOCOL: u8 = 76;
}

const AFTER_HELP: &str = "\
Examples:
  dpuctl --card /run/penstock.sock status
  export DPUCTL_CARD=/run/penstock.sock
  dpuctl cores --json
  dpuctl subsystem create nqn.2014-08.org.example:fast --any-host
  dpuctl namespace detach SERIAL
  dpuctl namespace attach SERIAL --subsystem nqn.2014-08.org.example:fast --nsid 1
  dpuctl apply card.toml --dry-run
  dpuctl bench --target 10.0.0.1
  dpuctl nvme list-ns --target 10.0.0.1

Exit codes:
  0   done
  1   the card refused, and nothing was changed; or an NVMe/TCP target refused
  2   the command line, or a file that it names, is wrong
  3   `apply`: some changes were made, and the next was not
  65  `bench --verify`: what was read is not what was written
  69  no card, or no target, answers
  76  what the card, or the target, says makes no sense";

/// Looks at a Penstock card, and changes it
#[derive(Parser, Debug)]
#[command(name = "dpuctl", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Arguments {
    /// The card's mailbox: a unix socket (hosted --mailbox, or the chardev of QEMU's virtconsole)
    #[arg(long, value_name = "PATH", env = "DPUCTL_CARD", global = true)]
    card: Option<PathBuf>,
    /// How long the card may take to answer, in seconds [default: 5; of an NVMe/TCP target: 20]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, global = true)]
    timeout: Option<Duration>,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// How long the card may take to answer where nothing else is said.
const CARD_LIMIT: Duration = Duration::from_secs(5);

/// A command.
#[allow(clippy::large_enum_variant, reason = "one exists in a run of the tool")]
#[derive(Subcommand, Debug)]
enum Command {
    #[command(flatten)]
    Card(commands::Command),
    Bench(bench::Options),
    Nvme(nvme::Options),
    Exporter(exporter::Options),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| "out of range".to_owned())?;
    if duration.is_zero() { Err("more than none".to_owned()) } else { Ok(duration) }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        // Nobody may read it any more, as behind `head`.
        Ok(text) => {
            let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(std::io::stderr().lock(), "error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, Failure> {
    let Arguments { card, timeout, json, command } = arguments;
    match command {
        Command::Card(command) => {
            let path = card.as_deref().ok_or(Failure::NoCard)?;
            let mut client = Client::connect(path, timeout.unwrap_or(CARD_LIMIT))?;
            commands::run(command, &mut client, *json)
        }
        Command::Exporter(options) => {
            let path = card.as_deref().ok_or(Failure::NoCard)?;
            exporter::run(options, path, timeout.unwrap_or(CARD_LIMIT))
        }
        Command::Bench(options) => bench::run(options, *timeout, *json),
        Command::Nvme(options) => nvme::run(options, *timeout, *json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "dpuctl", &mut script);
            Ok(String::from_utf8_lossy(&script).into_owned())
        }
    }
}
