//! What there is to ask a card.

use clap::Subcommand;
use message::Then;
use message::configuration::ConfigurationChange as Change;
use message::mailbox::{Answer, Call};

use crate::client::{Client, Failure};
use crate::configure::{self, Namespace, Port, Subsystem};
use crate::meters::{self, Counters, NamespaceView};
use crate::{apply, output, survey, top, traces};

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
    /// The NVM subsystems: who may connect, and what they have
    Subsystems,
    /// The namespaces of drives: which subsystem they are in, and how hosts know them
    Namespaces,
    /// The hosts that are connected: their controllers
    Hosts,
    /// The connections of hosts: their queues
    Queues,
    /// What the card has counted: commands to each namespace with their latencies, and what happened in each layer
    Counters,
    Trace(traces::Options),
    /// Create and delete subsystems, and say who may connect
    #[command(subcommand)]
    Subsystem(Subsystem),
    /// Attach and detach namespaces of drives
    #[command(subcommand)]
    Namespace(Namespace),
    /// Set how hosts reach the card by a port
    #[command(subcommand)]
    Port(Port),
    /// Print what is declared, as a file that `apply` takes
    Configuration,
    Apply(apply::Options),
    Top(top::Options),
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
        Command::Subsystems => {
            survey::subsystems(client).map(|subsystems| output::subsystems(&subsystems, json))
        }
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
        Command::Top(options) => top::run(options, client),
        Command::Trace(options) => traces::run(options, client, json),
        Command::Subsystem(subsystem) => change(client, subsystem.change()?, json),
        Command::Namespace(namespace) => {
            let wanted = namespace.change(client)?;
            change(client, wanted, json)
        }
        Command::Port(port) => change(client, port.change(), json),
        Command::Configuration => survey::declared(client).map(|declared| apply::file_of(&declared, json)),
        Command::Apply(options) => apply::run(options, client, json),
        Command::Shutdown => end(client, Then::Off).map(|then| output::ending(then, json)),
        Command::Reboot => end(client, Then::Restart).map(|then| output::ending(then, json)),
    }
}

fn change(client: &mut Client, change: Change, json: bool) -> Result<String, Failure> {
    configure::make(client, change).map(|kept| output::changed(kept, json))
}

fn end(client: &mut Client, then: Then) -> Result<Then, Failure> {
    match client.call(Call::End { then })? {
        Answer::Ending { then } => Ok(then),
        _ => Err(Failure::Nonsense),
    }
}
