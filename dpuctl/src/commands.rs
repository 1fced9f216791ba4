//! What there is to ask.

use clap::Subcommand;
use clap_complete::Shell;
use message::Then;
use message::mailbox::{Answer, Call, Core, Status};

use crate::client::{Client, Failure};
use crate::output;

/// A command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Who the card is, and how it is
    Status,
    /// The card's cores: what they run, and how their time is spent
    Cores,
    /// End the card in order, and switch it off: hosts' commands are finished, caches flushed, drives told
    Shutdown,
    /// End the card in order, and start it anew
    Reboot,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Carries out a command; gives what is to be printed.
pub fn run(command: &Command, client: &mut Client, json: bool) -> Result<String, Failure> {
    match command {
        Command::Status => status(client).map(|status| output::status(&status, json)),
        Command::Cores => cores(client).map(|cores| output::cores(&cores, json)),
        Command::Shutdown => end(client, Then::Off).map(|then| output::ending(then, json)),
        Command::Reboot => end(client, Then::Restart).map(|then| output::ending(then, json)),
        // Needs no card.
        Command::Completions { .. } => Ok(String::new()),
    }
}

fn status(client: &mut Client) -> Result<Status, Failure> {
    match client.call(Call::Status)? {
        Answer::Status(status) => Ok(status),
        _ => Err(Failure::Nonsense),
    }
}

fn end(client: &mut Client, then: Then) -> Result<Then, Failure> {
    match client.call(Call::End { then })? {
        Answer::Ending { then } => Ok(then),
        _ => Err(Failure::Nonsense),
    }
}

fn cores(client: &mut Client) -> Result<Vec<Core>, Failure> {
    let mut cores: Vec<Core> = Vec::new();
    loop {
        let first = cores.last().map_or(Some(0), |last| last.number.checked_add(1));
        let Some(first) = first else { return Ok(cores) };
        match client.call(Call::Cores { first })? {
            Answer::Cores(more) if more.cores.is_empty() => return Ok(cores),
            // Numbers rise, or this would not end.
            Answer::Cores(more) if more.cores.iter().all(|core| core.number >= first) => {
                cores.extend(more.cores);
            }
            _ => return Err(Failure::Nonsense),
        }
    }
}
