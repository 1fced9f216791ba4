//! `cargo xtask test`, `prepush` and `ci`: the parts and their order.

use crate::report::{Report, machines_at_once};
use crate::scenario::More;
use crate::{checks, linux, native, panics, peers, scenario, setup, sim, size, tidy};
use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};

/// What to test; all parts where none is named.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// The long form of the tests of a real Linux host
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Unit and property tests on this machine
    Host,
    /// What cores share, under a model checker that tries every order of their accesses
    Loom,
    /// The card under a virtual clock with seeded faults, 1000 seeds
    Sim,
    /// The tests of the hosted card, of the crates with unsafe code, and the fuzz corpora, under AddressSanitizer
    Asan,
    /// Boot the image as each file of qemu/scenarios says, and judge its log
    Qemu {
        /// Only these scenarios, files of qemu/scenarios without their `.toml`; `*` stands for anything
        #[arg(value_name = "SCENARIO")]
        scenarios: Vec<String>,
        /// The board, a folder of boards/
        #[arg(long, default_value = "qemu-aarch64")]
        board: String,
        /// Take this run's logs as the expected ones from now on
        #[arg(long)]
        bless: bool,
        /// More boot arguments for each of them, such as "plan=many"
        #[arg(long, default_value = "")]
        append: String,
        /// Number of cores of those that do not say
        #[arg(long)]
        smp: Option<u32>,
    },
    /// The card as a Linux process over TAP, against the user-space host: data verified
    Hosted,
    /// `dpuctl bench` against the card in QEMU, Linux's target on the same machine, and the hosted card: data verified, ratios
    Bench(peers::Options),
    /// A real Linux NVMe/TCP host, in a virtual machine of its own, against the card
    Linux(linux::Options),
}

/// Runs the parts; an error when one fails.
pub fn run(options: &Options) -> Result<()> {
    let report = Report::default();
    match &options.part {
        Some(Part::Host) => report.check("host", checks::host_tests),
        Some(Part::Loom) => report.check("loom", checks::loom_tests),
        Some(Part::Sim) => report.check("sim", sim::test),
        Some(Part::Asan) => report.part("asan", checks::asan_tests),
        Some(Part::Qemu { scenarios, board, bless, append, smp }) => {
            let plan = scenario::Plan::new(scenarios, board, *bless, &More { append, smp: *smp })?;
            report.together(machines_at_once(), plan.jobs());
        }
        Some(Part::Hosted) => native::test(&report),
        Some(Part::Bench(options)) => report.together(1, vec![peers::job(options.clone())]),
        Some(Part::Linux(linux)) => {
            let plan = linux::Plan::new(linux.clone())?;
            report.together(machines_at_once(), plan.jobs());
        }
        None => all(&report, options.full),
    }
    report.finish()
}

/// What needs the processors, and beside it what needs virtual machines, which wait more than they work.
fn all(report: &Report, full: bool) {
    report.check("setup", setup::run);
    std::thread::scope(|scope| {
        scope.spawn(|| in_machines(report, full));
        report.check("host", checks::host_tests);
        report.check("loom", checks::loom_tests);
        report.check("sim", sim::test);
        report.part("asan", checks::asan_tests);
        native::test(report);
    });
}

fn in_machines(report: &Report, full: bool) {
    let hosted = ["verify", "tap"].map(linux::Options::hosted);
    let linux = [linux::Options::all(full)].into_iter().chain(hosted).map(linux::Plan::new);
    let scenarios = scenario::Plan::new(&[], "qemu-aarch64", false, &More::default());
    let linux: Vec<_> = linux.collect();
    let mut jobs = vec![peers::job(peers::Options::default())];
    // What stops a whole part (an image that does not build) is that part's failure, not the end of the run.
    for plan in &linux {
        match plan {
            Ok(plan) => jobs.extend(plan.jobs()),
            Err(error) => report.check("linux", || Err(anyhow!("{error:#}"))),
        }
    }
    match &scenarios {
        Ok(plan) => jobs.extend(plan.jobs()),
        Err(error) => report.check("qemu", || Err(anyhow!("{error:#}"))),
    }
    report.together(machines_at_once(), jobs);
}

fn quick(report: &Report) {
    report.check("fmt", || checks::fmt(true));
    report.check("tidy", tidy::run);
    report.check("lint", checks::lint);
}

/// The fast subset.
pub fn prepush() -> Result<()> {
    let report = Report::default();
    quick(&report);
    report.check("host", checks::host_tests);
    report.finish()
}

/// Everything.
pub fn ci(full: bool) -> Result<()> {
    let report = Report::default();
    quick(&report);
    report.check("doc", checks::doc);
    report.check("size", || size::run("qemu-aarch64"));
    report.check("panics", || panics::run(&panics::Options::of("qemu-aarch64")));
    all(&report, full);
    report.finish()
}
