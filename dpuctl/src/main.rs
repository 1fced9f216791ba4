//! The operator's tool: asks a card by its mailbox.
//!
//! `client.rs` talks to the card, `commands.rs` is what there is to ask, `survey.rs` puts together what the data cores say one by
//! one, as the types of `views.rs`; `output.rs` shows it: tables for people, JSON for programs. Exit codes: see [`exit`].

mod client;
mod commands;
mod output;
mod survey;
mod views;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use client::{Client, Failure};
use commands::Command;

/// Exit codes.
mod exit {
    /// The card has refused what was asked for; nothing was changed.
    pub const REFUSED: u8 = 1;
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

Exit codes:
  0   done
  1   the card refused; nothing was changed
  2   the command line is wrong
  69  no card answers
  76  what the card says makes no sense";

/// Looks at a Penstock card, and changes it
#[derive(Parser, Debug)]
#[command(name = "dpuctl", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Arguments {
    /// The card's mailbox: a unix socket (hosted --mailbox, or the chardev of QEMU's virtconsole)
    #[arg(long, value_name = "PATH", env = "DPUCTL_CARD", global = true)]
    card: Option<PathBuf>,
    /// How long the card may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, global = true)]
    timeout: Duration,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| "out of range".to_owned())?;
    if duration.is_zero() { Err("more than none".to_owned()) } else { Ok(duration) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "dpuctl", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
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
    let path = arguments.card.as_deref().ok_or(Failure::NoCard)?;
    let mut client = Client::connect(path, arguments.timeout)?;
    commands::run(&arguments.command, &mut client, arguments.json)
}
