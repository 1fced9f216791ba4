//! What there is to ask a card.

use clap::Subcommand;
use message::Then;
use message::mailbox::{Answer, Call};

use crate::client::{Client, Failure};
use crate::meters::{self, Counters, NamespaceView};
use crate::{output, survey, traces};

/// A command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Who the card is, and how it is
    Status,
    /// The card's cores: what they run, and how their time is spent
    Cores,
    /// The drives: who they are, how they are, and what has happened to them
    Drives,
    /// The Ethernet ports: addresses, link, frames
    Ports,
    /// The namespaces that hosts see, and the drives that have their blocks
    Namespaces,
    /// The hosts that are connected: their controllers
    Hosts,
    /// The connections of hosts: their queues
    Queues,
    /// What the card has counted: commands to each namespace with their latencies, and what happened in each layer
    Counters,
    Trace(traces::Options),
    /// End the card in order, and switch it off: hosts' commands are finished, caches flushed, drives told
    Shutdown,
    /// End the card in order, and start it anew
    Reboot,
}

/// Carries out a command; gives what is to be printed.
pub fn run(command: &Command, client: &mut Client, json: bool) -> Result<String, Failure> {
    match command {
        Command::Status => survey::status(client).map(|status| output::status(&status, json)),
        Command::Cores => survey::cores(client).map(|cores| output::cores(&cores, json)),
        Command::Drives => survey::drives(client).map(|drives| output::drives(&drives, json)),
        Command::Ports => survey::ports(client).map(|ports| output::ports(&ports, json)),
        Command::Namespaces => {
            survey::namespaces(client).map(|namespaces| output::namespaces(&namespaces, json))
        }
        Command::Hosts => survey::hosts(client).map(|hosts| output::hosts(&hosts, json)),
        Command::Queues => survey::queues(client).map(|queues| output::queues(&queues, json)),
        Command::Counters => {
            let meters = meters::meters(client)?;
            let namespaces = meters.iter().map(|(name, meter)| NamespaceView::of(*name, meter)).collect();
            let counters = Counters {
                namespaces,
                data_cores: meters::counters(client)?,
                drives: survey::drives(client)?,
                ports: survey::ports(client)?,
            };
            Ok(meters::show(&counters, json))
        }
        Command::Trace(options) => traces::run(options, client, json),
        Command::Shutdown => end(client, Then::Off).map(|then| output::ending(then, json)),
        Command::Reboot => end(client, Then::Restart).map(|then| output::ending(then, json)),
    }
}

fn end(client: &mut Client, then: Then) -> Result<Then, Failure> {
    match client.call(Call::End { then })? {
        Answer::Ending { then } => Ok(then),
        _ => Err(Failure::Nonsense),
    }
}
