//! The only command a developer needs: sets up the machine, builds, runs, tests and checks Penstock.

mod accelerator;
mod apt;
mod board;
mod card_log;
mod checks;
mod command;
mod cpio;
mod crash;
mod guest;
mod hosted;
mod image;
mod interrupt;
mod linux;
mod log_decoder;
mod measure;
mod native;
mod panics;
mod paths;
mod peers;
mod qemu;
mod qmp;
mod report;
mod run;
mod scenario;
mod setup;
mod sim;
mod size;
mod test;
mod tidy;
mod toolchain;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Penstock's developer command: everything from an empty machine to a tested card.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what this machine lacks (compilation target, QEMU), saying what; nothing where nothing is missing
    Setup,
    /// Boot the card in QEMU with emulated NVMe drives and serve them over NVMe/TCP until Ctrl-C
    Run(run::Options),
    /// Build a board's bootable image; the last line of standard output is its path
    Image {
        /// The board, a folder of boards/
        #[arg(long, default_value = "qemu-aarch64")]
        board: String,
        /// Build with debug assertions and without optimisation
        #[arg(long)]
        debug: bool,
    },
    /// Run the tests: all, or one part
    Test(test::Options),
    /// Run the card under a virtual clock with seeded faults
    Sim(sim::Options),
    /// Measure the card; prints figures
    Measure(measure::Options),
    /// Explain the crash records in a serial log: reason, registers, backtraces with symbols, last log lines
    Crash(crash::Options),
    /// Format all code
    Fmt {
        /// Only say what is not formatted
        #[arg(long)]
        check: bool,
    },
    /// Clippy, warnings denied: host crates, and each board for its target
    Lint,
    /// The tree's own rules: dependency table, no unsafe in firmware/, file lengths, links, left-overs
    Tidy,
    /// Text and data of a board's image by section, against the board's limit; no allocator inside
    Size {
        /// The board, a folder of boards/
        #[arg(long, default_value = "qemu-aarch64")]
        board: String,
    },
    /// Every place of a board's release image from which a panic can come, against the checked-in table
    Panics(panics::Options),
    /// Build the documentation of all crates, broken links denied
    Doc,
    /// The fast checks before a push: fmt, lint, tidy, host tests
    Prepush,
    /// Everything: fmt, lint, tidy, doc, size, panics, all tests
    Ci {
        /// The long form of the tests of a real Linux host
        #[arg(long)]
        full: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match interrupt::install().and_then(|()| perform(arguments.verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Causes in one line each; a backtrace helps nobody who has to install a package.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => setup::run(),
        Verb::Run(options) => run::run(&options),
        Verb::Image { board, debug } => {
            println!("{}", image::build(&board, debug)?.flat.display());
            Ok(())
        }
        Verb::Test(options) => test::run(&options),
        Verb::Sim(options) => sim::run(&options),
        Verb::Measure(options) => measure::run(&options),
        Verb::Crash(options) => crash::run(&options),
        Verb::Fmt { check } => checks::fmt(check),
        Verb::Lint => checks::lint(),
        Verb::Tidy => tidy::run(),
        Verb::Size { board } => size::run(&board),
        Verb::Panics(options) => panics::run(&options),
        Verb::Doc => checks::doc(),
        Verb::Prepush => test::prepush(),
        Verb::Ci { full } => test::ci(full),
    }
}
