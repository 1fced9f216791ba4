//! IOPS and latency that a user-space host sees: of the card as a Linux process, of the card in QEMU, or of any target.

use crate::command::{Guarded, note};
use crate::hosted::{self, Build};
use crate::linux::card::{Card, CardPlan};
use crate::linux::wire::Wire;
use crate::native::{self, HostedCard, Obstacle};
use crate::qemu;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How much longer than its runs a load may take.
const SPARE: Duration = Duration::from_secs(60);

/// How to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// `hosted`: a Linux process over TAP, one RAM drive, one data core; `qemu-aarch64`: QEMU, a forwarded port
    #[arg(long, default_value = "hosted")]
    board: String,
    /// A target that runs already, as ADDRESS:PORT,NQN, instead of a card. Its first namespace is overwritten!
    #[arg(long, value_name = "ADDRESS:PORT,NQN", conflicts_with = "board")]
    target: Option<String>,
    /// Runs of each load
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only the loads whose name has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Let the host sleep while it waits, instead of looking without end
    #[arg(long)]
    sleep: bool,
    /// More arguments for the hosted card, such as "--cpus 1,0"
    #[arg(long, default_value = "")]
    card: String,
}

/// A name, and arguments of `dpuctl bench`.
type Load = (&'static str, &'static [&'static str]);

const LOADS: [Load; 8] = [
    ("4 KiB read, depth 32", &["--depth", "32"]),
    ("4 KiB read, depth 1", &["--depth", "1"]),
    ("4 KiB write, depth 32", &["--depth", "32", "--read-percent", "0"]),
    ("4 KiB write, depth 1", &["--depth", "1", "--read-percent", "0"]),
    ("4 KiB 70/30, depth 32, digests", &["--header-digest", "--data-digest", "--mix", "70"]),
    ("4 KiB 70/30, depth 32, verified", &["--mix", "70", "--verify"]),
    ("128 KiB read, depth 8", &["--depth", "8", "--size", "128k", "--sequential"]),
    ("128 KiB write, depth 8", &["--depth", "8", "--size", "128k", "--sequential", "--read-percent", "0"]),
];

/// What the tool prints.
#[derive(Deserialize)]
struct Printed {
    runs: Vec<PrintedRun>,
}

#[derive(Deserialize)]
struct PrintedRun {
    all: Run,
}

/// Of one run.
#[derive(Deserialize, Clone)]
struct Run {
    iops: f64,
    mib_per_s: f64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

/// Starts the target, runs every load, and prints a table.
pub fn run(options: &Options) -> Result<()> {
    if let Some(target) = &options.target {
        let (address, nqn) = target.split_once(',').context("--target takes ADDRESS:PORT,NQN")?;
        let tool = native::dpuctl(Build::Release)?;
        return all(options, &mut || Ok(with_target(Command::new(&tool), address, nqn)));
    }
    match options.board.as_str() {
        "hosted" => {
            let (tool, card) = (native::dpuctl(Build::Release)?, hosted::build(Build::Release)?);
            let words: Vec<&str> = options.card.split_whitespace().collect();
            let mut card = match HostedCard::start(&card, &["ram:1G"], &words) {
                Ok(card) => card,
                Err(Obstacle::Machine(why)) => bail!("{why}"),
                Err(Obstacle::Error(error)) => return Err(error),
            };
            note(&format!("the card is process {}", card.process()));
            let (place, nqn) = (card.ready.place(), card.ready.nqn.clone());
            all(options, &mut || Ok(with_target(card.beside(&tool), &place, &nqn)))
        }
        "qemu-aarch64" => in_qemu(options),
        other => bail!("--board {other}: say `hosted` or `qemu-aarch64`"),
    }
}

fn in_qemu(options: &Options) -> Result<()> {
    super::machines()?;
    let tool = native::dpuctl(Build::Release)?;
    let image = super::image()?;
    let port = qemu::free_port(4420)?;
    let mut card = Card::start(&CardPlan::new(&image, "measure-native-card"), &Wire::forwarded(port))?;
    let (address, nqn) = (format!("127.0.0.1:{port}"), card.ready.nqn.clone());
    all(options, &mut || {
        // What it has said meanwhile: also an error where it broke down.
        card.listen(Duration::ZERO)?;
        Ok(with_target(Command::new(&tool), &address, &nqn))
    })
}

fn with_target(mut command: Command, address: &str, nqn: &str) -> Command {
    command.args(["bench", "--target", address, "--nqn", nqn, "--overwrite", "--json"]);
    command
}

fn all(options: &Options, host: &mut dyn FnMut() -> Result<Command>) -> Result<()> {
    println!(
        "{} runs of {} s each; IOPS, MiB/s and latencies as minimum / median / maximum",
        options.runs, options.seconds
    );
    println!();
    println!("| load | IOPS | MiB/s | mean µs | p50 µs | p99 µs | p99.9 µs |");
    println!("|---|---|---|---|---|---|---|");
    for (name, words) in LOADS {
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let mut command = host()?;
        command.args(words).args((!options.sleep).then_some("--poll"));
        command.args(["--runs", &options.runs.to_string(), "--duration", &options.seconds.to_string()]);
        let runs = runs_of(&mut command, options).with_context(|| name.to_owned())?;
        println!("{}", row(name, &runs));
    }
    Ok(())
}

/// Runs the host: its progress bar shows, its results come back.
fn runs_of(command: &mut Command, options: &Options) -> Result<Vec<Run>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Guarded::spawn(command)?;
    let mut pipe = child.child().stdout.take().context("standard output is not piped")?;
    let limit = SPARE + Duration::from_secs((options.seconds + 1) * u64::from(options.runs));
    // A few hundred bytes for each run: they fit into the pipe.
    let status = child.wait(limit)?;
    let mut text = String::new();
    pipe.read_to_string(&mut text)?;
    if !status.success() {
        bail!("the host failed ({status})");
    }
    let printed: Printed = serde_json::from_str(&text).context("the host's result cannot be read")?;
    Ok(printed.runs.into_iter().map(|run| run.all).collect())
}

fn row(name: &str, runs: &[Run]) -> String {
    let column = |digits: usize, of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.get(values.len() / 2).copied().unwrap_or(0.0);
        let (first, last) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        format!("{first:.digits$} / **{middle:.digits$}** / {last:.digits$}")
    };
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} |",
        column(0, |run| run.iops),
        column(0, |run| run.mib_per_s),
        column(1, |run| run.mean_us),
        column(1, |run| run.p50_us),
        column(1, |run| run.p99_us),
        column(1, |run| run.p999_us),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_minimum_median_and_maximum() {
        let run = |iops| Run { iops, mib_per_s: 1.0, mean_us: 2.0, p50_us: 2.0, p99_us: 3.0, p999_us: 4.0 };
        let row = row("x", &[run(30.0), run(10.0), run(20.0)]);
        assert!(row.starts_with("| x | 10 / **20** / 30 | 1 / **1** / 1 | 2.0 / **2.0** / 2.0 |"), "{row}");
    }
}
