//! Tests' user-space NVMe/TCP host: verified data of many sizes, hosts that come and go, fused pairs, against any target.
//!
//! The host itself is `nvmeof-host`; load and its measures are `dpuctl bench`.
#![forbid(unsafe_code)]

mod arguments;
mod check;
mod cycles;
mod fused;

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
    let target = arguments.target.target();
    match &arguments.verb {
        Verb::Check(options) => check::run(&target, arguments.target.nsid, options),
        Verb::Cycles(options) => cycles::run(&target, options),
        Verb::Fused(options) => fused::run(&target, arguments.target.nsid, options),
    }
}
