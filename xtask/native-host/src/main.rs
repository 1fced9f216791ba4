//! A user-space NVMe/TCP host: load, latency and verified data against any target.
//!
//! The protocol is `nvmeof::initiator`; this program adds sockets, memory, a clock and the choice of commands.
#![forbid(unsafe_code)]

mod arguments;
mod association;
mod buffers;
mod check;
mod cycles;
mod fused;
mod load;
mod report;
mod socket;

use anyhow::Result;
use arguments::{Arguments, Verb};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::Load(options) => load::run(&arguments.target, options),
        Verb::Check(options) => check::run(&arguments.target, options),
        Verb::Cycles(options) => cycles::run(&arguments.target, options),
        Verb::Fused(options) => fused::run(&arguments.target, options),
    }
}
