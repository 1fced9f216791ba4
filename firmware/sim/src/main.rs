//! A worker of `cargo xtask sim`: runs seeds one after another and says so on standard output, a line for each. A seed
//! that fails ends the process, so that the one whose end is missing is the one.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use sim::kinds::Kind;
use sim::trace::{Detail, Trace};

const USAGE: &str = "usage: sim batch FIRST COUNT | sim trace SEED [all] | sim cycles SEED COUNT | sim kinds";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match words.as_slice() {
        ["batch", first, count] => match (number(first), number(count)) {
            (Some(first), Some(count)) => batch(first, count),
            _ => usage(),
        },
        ["trace", seed] | ["trace", seed, "all"] => match number(seed) {
            Some(seed) => replay(seed, words.len() == 3),
            None => usage(),
        },
        ["cycles", seed, count] => match (number(seed), number(count)) {
            (Some(seed), Some(count)) => cycles(seed, count),
            _ => usage(),
        },
        ["kinds"] => {
            Kind::ALL.iter().for_each(|kind| println!("{}", kind.name()));
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn batch(first: u64, count: u64) -> ExitCode {
    for seed in first..first.saturating_add(count) {
        println!("start {seed}");
        let trace = Trace::new(Detail::Silent, None);
        sim::run_seed(seed, &trace);
        let counts: Vec<String> = trace.counts().iter().map(u64::to_string).collect();
        println!("done {seed} {:016x} {} {}", trace.hash(), trace.events(), counts.join(" "));
    }
    ExitCode::SUCCESS
}

fn cycles(seed: u64, count: u64) -> ExitCode {
    let trace = Trace::new(Detail::Silent, None);
    sim::run_cycles(seed, count, &trace);
    report(&trace);
    println!("{count} times a host lost its association and came back; all slots and buffers are back");
    ExitCode::SUCCESS
}

fn report(trace: &Trace) {
    let mut out = BufWriter::new(std::io::stdout());
    for (kind, count) in Kind::ALL.iter().zip(trace.counts()) {
        let _ = writeln!(out, "{:>10} {}", count, kind.name());
    }
    let _ = writeln!(out, "hash {:016x} of {} events", trace.hash(), trace.events());
}

fn replay(seed: u64, all: bool) -> ExitCode {
    let detail = if all { Detail::All } else { Detail::Events };
    // A panic ends the process at once, so that each line has to be out before the next.
    let sink = std::io::LineWriter::new(std::io::stdout());
    let trace = Trace::new(detail, Some(Box::new(sink)));
    println!("seed {seed}: {:#?}", sim::settings::Settings::of_seed(seed));
    sim::run_seed(seed, &trace);
    report(&trace);
    ExitCode::SUCCESS
}
