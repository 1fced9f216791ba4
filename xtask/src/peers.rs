//! `cargo xtask test bench`: `dpuctl bench`, in the same words, against the card in QEMU, Linux's own target on the same machine in
//! its place, and the hosted card. Each one answers `dpuctl nvme`, and its data is verified. Figures are ratios to Linux's: the machines are emulated.

use crate::command::{note, say, typed};
use crate::hosted::{self, Build};
use crate::image::Image;
use crate::linux::card::{Card, CardPlan};
use crate::linux::target::{GUEST, LinuxTarget};
use crate::linux::wire::Wire;
use crate::native::{self, HostedCard, Obstacle};
use crate::qemu::{self, Drive};
use crate::report::{Job, Verdict};
use crate::{guest, image, setup};
use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Seconds of each of the loads that are measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Runs of each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=50))]
    runs: u64,
    /// MiB that are verified, before and after as many commands of 4 KiB as there are places in them
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    verify_mib: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 3, runs: 1, verify_mib: 4 }
    }
}

/// The part of the test.
pub fn job<'a>(options: Options) -> Job<'a> {
    let about =
        "bench: dpuctl bench against the card in QEMU, Linux's target there, and the hosted card".to_owned();
    Job { name: "bench".to_owned(), about, work: Box::new(move || run(&options)) }
}

/// What the tool prints.
#[derive(Deserialize)]
struct Printed {
    verified: bool,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    all: Figures,
}

#[derive(Deserialize, Clone, Copy)]
struct Figures {
    iops: f64,
    p50_us: f64,
}

/// Name and words of each load that is measured.
const LOADS: [(&str, &[&str]); 3] = [
    ("4 KiB read, depth 32", &["--depth", "32"]),
    ("4 KiB read, depth 1", &["--depth", "1"]),
    ("4 KiB write, depth 32", &["--depth", "32", "--read-percent", "0", "--overwrite"]),
];

/// Words of `dpuctl nvme`, each of which every peer answers.
const ASKED: [&str; 8] =
    ["discover", "id-ctrl", "id-ns", "list-ns", "smart-log", "error-log", "ana-log", "flush"];

/// A peer's best figures of each load.
type Measured = [Figures; LOADS.len()];

fn run(options: &Options) -> Result<Verdict> {
    if let Some(why) = guest::obstacle() {
        return Ok(Verdict::Skipped(why));
    }
    setup::qemu()?;
    let tool = native::dpuctl(Build::Release)?;
    let image = image::build("qemu-aarch64", false)?;
    let linux = linux(&tool, options).context("Linux's target in QEMU")?;
    let card = card(&tool, &image, options).context("the card in QEMU")?;
    let hosted = hosted_card(&tool, options).context("the hosted card")?;
    table("the card in QEMU", &linux, &card);
    match &hosted {
        Ok(hosted) => table("the hosted card", &linux, hosted),
        Err(why) => note(&format!("no hosted card: {why}")),
    }
    Ok(Verdict::Passed)
}

fn table(name: &str, linux: &Measured, peer: &Measured) {
    for (((load, _), linux), peer) in LOADS.iter().zip(linux).zip(peer) {
        say(&format!(
            "  {name:16}  {load:22}  {:6.2} times Linux's IOPS, {:5.2} times its median latency",
            peer.iops / linux.iops.max(1.0),
            peer.p50_us / linux.p50_us.max(1.0)
        ));
    }
}

fn linux(tool: &Path, options: &Options) -> Result<Measured> {
    let guest = guest::prepare(GUEST)?;
    let port = qemu::free_port(4420)?;
    let drive = Drive { name: "test-drive0".to_owned(), size: "1G".to_owned(), ..Drive::default() };
    let _target = LinuxTarget::start(&guest, &drive, &Wire::forwarded(port))?;
    loads(&mut || Command::new(tool), &format!("127.0.0.1:{port}"), options)
}

fn card(tool: &Path, image: &Image, options: &Options) -> Result<Measured> {
    let port = qemu::free_port(4420)?;
    let mut card = Card::start(&CardPlan::new(image, "bench-card"), &Wire::forwarded(port))?;
    let measured = loads(&mut || Command::new(tool), &format!("127.0.0.1:{port}"), options);
    // What it has said meanwhile: also an error where it broke down.
    card.listen(Duration::ZERO)?;
    measured
}

/// The error inside is the reason why this machine has none.
fn hosted_card(tool: &Path, options: &Options) -> Result<Result<Measured, String>> {
    let mut card = match HostedCard::start(&hosted::build(Build::Checked)?, &["ram:1G"], &[]) {
        Ok(card) => card,
        Err(Obstacle::Machine(why)) => return Ok(Err(why)),
        Err(Obstacle::Error(error)) => return Err(error),
    };
    let place = card.ready.place();
    let measured = loads(&mut || card.beside(tool), &place, options)?;
    card.stop()?;
    Ok(Ok(measured))
}

/// Asks what `dpuctl nvme` can ask, verifies data, then measures. The subsystem is whatever discovery tells.
fn loads(tool: &mut dyn FnMut() -> Command, place: &str, options: &Options) -> Result<Measured> {
    let mut print = |verb: &[&str], words: &[&str]| -> Result<Vec<u8>> {
        let mut command = tool();
        command.args(verb).args(["--target", place, "--json"]).args(words).stdin(Stdio::null());
        // It ends by itself where the target answers no more.
        let output = command.output().context("dpuctl")?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`{}`: {error}", typed(&command));
        Ok(output.stdout)
    };
    for verb in ASKED {
        let printed: Value = serde_json::from_slice(&print(&["nvme", verb], &[])?)?;
        anyhow::ensure!(printed.is_object() || printed.is_array(), "nvme {verb} prints {printed}");
    }
    let mut bench = |words: &[&str]| -> Result<Printed> {
        serde_json::from_slice(&print(&["bench"], words)?).context("what dpuctl prints cannot be read")
    };
    let area = format!("{}m", options.verify_mib);
    let count = (options.verify_mib << 8).to_string();
    let verified = bench(&["--verify", "--overwrite", "--mix", "50", "--area", &area, "--count", &count])?;
    anyhow::ensure!(verified.verified, "nothing was verified");
    let (seconds, runs) = (options.seconds.to_string(), options.runs.to_string());
    let mut measured = [Figures { iops: 0.0, p50_us: f64::MAX }; LOADS.len()];
    for ((_, words), best) in LOADS.iter().zip(&mut measured) {
        let printed = bench(&[*words, &["--duration", &seconds, "--runs", &runs]].concat())?;
        for Run { all } in printed.runs {
            anyhow::ensure!(all.iops > 0.0, "nothing was measured");
            *best = Figures { iops: best.iops.max(all.iops), p50_us: best.p50_us.min(all.p50_us) };
        }
    }
    Ok(measured)
}
