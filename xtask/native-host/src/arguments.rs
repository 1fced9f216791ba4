//! The command line.

use clap::{Args, Parser, Subcommand};
use nvmeof::pdu::Digests;
use nvmeof_host::Target;
use std::net::SocketAddr;

/// A user-space NVMe/TCP host that checks what a target makes of unusual use. It overwrites data!
#[derive(Parser)]
#[command(max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which target, and how to talk to it.
#[derive(Args, Clone)]
pub struct TargetArguments {
    /// Address and port
    #[arg(long, default_value = "127.0.0.1:4420")]
    pub address: SocketAddr,
    /// NQN of the subsystem
    #[arg(long)]
    pub nqn: String,
    /// NSID [default: the smallest]
    #[arg(long)]
    pub nsid: Option<u32>,
    /// Ask for header and data digests
    #[arg(long)]
    pub digests: bool,
    /// Sleep while there is nothing to do, instead of looking without end
    #[arg(long)]
    pub sleep: bool,
}

impl TargetArguments {
    /// The same, as the host takes it.
    pub fn target(&self) -> Target {
        let digests = Digests { header: self.digests, data: self.digests };
        Target { digests, sleep: self.sleep, ..Target::new(self.address, &self.nqn) }
    }
}

#[derive(Subcommand)]
pub enum Verb {
    /// Write, read back and compare, with commands of many sizes
    Check(Check),
    /// Connect many controllers, break off in the middle of their I/O, and begin anew
    Cycles(Cycles),
    /// Send fused Compare and Write pairs among writes of the same blocks, and judge whether each pair was atomic
    Fused(Fused),
}

/// Which pairs, and among what.
#[derive(Args, Clone)]
pub struct Fused {
    /// Pairs, on all queues together
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Controllers, each of a host of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub controllers: u32,
    /// I/O queues of each; pairs go by every other one
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub queues: u16,
    /// Writes under way on each of the other queues, at most
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub depth: u16,
    /// Commands of all queues that end between two writes of one, at most; a third of them follow at once
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..))]
    pub pause: u64,
    /// Places in each namespace that all of them fight for
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub places: u16,
    /// Blocks of a place, and of each command; a drive need not read or write more than one in one piece
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub blocks: u32,
    /// Seed of what is done when
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// How they come and go.
#[derive(Args, Clone)]
pub struct Cycles {
    /// Controllers at once, each of a host of its own
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub controllers: u32,
    /// How often each of them comes
    #[arg(long, default_value_t = 200)]
    pub cycles: u32,
    /// I/O queues of each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: u16,
    /// Commands under way on each queue when it is gone, at most
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Seed of places, and of when they are gone
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What check.
#[derive(Args, Clone)]
pub struct Check {
    /// Commands of each size
    #[arg(long, default_value_t = 1000)]
    pub commands: u64,
    /// How much of the namespace is used, in MiB, from its start
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    pub area_mib: u64,
    /// I/O queues
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: u16,
    /// Commands under way on each queue
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Seed of places and contents
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}
