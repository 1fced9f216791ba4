//! Instructions of the card's own code per 4 KiB read: a fixed load on the host under callgrind, the same in every run.

use crate::command::{Step, output};
use crate::paths;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The test of `app` that makes the load, and its function that is counted.
const TEST: &str = "cost::reads";
const COUNTED: &str = "*counted_turn*";
/// What stands for hardware: a card has none of it.
const FAKES: &str = "fakes";
const DRIVES: u32 = 4;
const READS: u32 = 1024;
/// Turns of each core where there is nothing to read; as many as in the test.
const IDLE_TURNS: u64 = 1000;

/// How to judge.
#[derive(Args, Debug)]
pub struct Options {
    /// Fail when a read with four data cores takes so many times the instructions that it takes with one
    #[arg(long, value_name = "RATIO")]
    at_most: Option<f64>,
}

/// A load, and what it is divided by.
struct Load {
    name: &'static str,
    cores: u32,
    depth: u32,
    reads: u32,
}

const LOADS: [Load; 5] = [
    Load { name: "an empty turn", cores: 1, depth: 0, reads: 0 },
    Load { name: "an empty turn, 4 cores", cores: 4, depth: 0, reads: 0 },
    Load { name: "a read, depth 1", cores: 1, depth: 1, reads: READS },
    Load { name: "a read, depth 32", cores: 1, depth: 32, reads: READS },
    Load { name: "a read, depth 32, 4 cores", cores: 4, depth: 32, reads: READS },
];

/// Counts all loads and prints a line for each, by crates.
pub fn run(options: &Options) -> Result<()> {
    if paths::find_program("valgrind").is_none() {
        bail!("`valgrind` is not installed: apt-get install valgrind");
    }
    let program = program()?;
    println!("instructions of the card's code, {DRIVES} drives; what stands for hardware is left out");
    let mut totals = Vec::new();
    for load in LOADS {
        let file = paths::logs()?.join("measure-path.callgrind");
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")]);
        command.arg(format!("--callgrind-out-file={}", file.display())).arg(&program);
        command.args(["--ignored", "--exact", TEST, "--nocapture"]);
        command.env("PATH_COST", format!("{},{DRIVES},{},{}", load.cores, load.depth, load.reads));
        output(&mut command, 600)?;
        let by_crate = attribute(&paths::read(&file)?);
        let times = if load.reads == 0 { IDLE_TURNS * u64::from(load.cores) } else { u64::from(load.reads) };
        let total: u64 =
            by_crate.iter().filter(|(name, _)| *name != FAKES).map(|(_, cost)| cost / times).sum();
        let mut parts: Vec<_> = by_crate.iter().filter(|(name, _)| *name != FAKES).collect();
        parts.sort_by_key(|(_, cost)| std::cmp::Reverse(**cost));
        let parts: Vec<String> =
            parts.iter().take(6).map(|(name, cost)| format!("{name} {}", *cost / times)).collect();
        println!("  {:26} {total:7}: {}", load.name, parts.join(", "));
        totals.push(total);
    }
    let [.., one, four] = totals[..] else { bail!("nothing was measured") };
    let ratio = four as f64 / one as f64;
    println!("a read with four cores takes {ratio:.2} times what it takes with one");
    match options.at_most {
        Some(limit) if ratio > limit => bail!("that is more than {limit}"),
        _ => Ok(()),
    }
}

/// Builds the load as the card is built, and says where it is.
fn program() -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--locked", "--release", "--package", "app", "--test", "card", "--no-run"]);
    command.current_dir(paths::root()?);
    let mut visible = Command::new(command.get_program());
    visible.args(command.get_args()).current_dir(paths::root()?);
    Step::new("building the load", visible, 1200).visible().run()?;
    // Built by now: what is left is to say where.
    command.args(["--message-format=json"]);
    let text = output(&mut command, 120)?;
    let found = text.lines().rev().find_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    found
        .map(PathBuf::from)
        .filter(|path| Path::is_file(path))
        .context("cargo does not say what it has built")
}

/// Instructions by crate, from callgrind's own format (Callgrind Format Specification, version 1).
///
/// Code that was inlined counts for the crate whose file it stands in; that of the standard library, inlined or called,
/// for the crate that uses it. Allocations are the fakes': the card makes none.
fn attribute(text: &str) -> BTreeMap<String, u64> {
    let mut names: BTreeMap<(bool, &str), &str> = BTreeMap::new();
    let mut by_crate: BTreeMap<String, u64> = BTreeMap::new();
    // Of the function: its file, the file of the lines that follow, and the last crate that was known.
    let (mut file, mut here, mut owner) = ("", "", None);
    let (mut callee, mut callee_file, mut is_call) = ("", None, false);
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['+', '-', '*'])) else {
            let Some(cost) = cost_of(line) else { continue };
            owner = crate_of(here).or(owner);
            let counts = if std::mem::take(&mut is_call) {
                let to = callee_file.take().unwrap_or(here);
                crate_of(to).is_none() && !callee.contains("__rust_")
            } else {
                true
            };
            if counts && let Some(owner) = &owner {
                *by_crate.entry(owner.clone()).or_default() += cost;
            }
            continue;
        };
        let mut name = |is_function| {
            let Some((id, name)) = value.strip_prefix('(').and_then(|value| value.split_once(')')) else {
                return value;
            };
            if !name.is_empty() {
                names.insert((is_function, id), name.trim_start());
            }
            names.get(&(is_function, id)).copied().unwrap_or_default()
        };
        match key {
            "fl" => (file, here) = (name(false), name(false)),
            "fi" | "fe" => here = name(false),
            "fn" => {
                let function = name(true);
                here = file;
                owner = crate_of(file).or_else(|| crate_in(function));
            }
            "cfi" | "cfl" => callee_file = Some(name(false)),
            "cfn" => callee = name(true),
            "calls" => is_call = true,
            _ => {}
        }
    }
    by_crate
}

/// The cost of a line `position cost`.
fn cost_of(line: &str) -> Option<u64> {
    let mut fields = line.split(' ');
    let position = fields.next()?;
    position.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)).then_some(())?;
    fields.next()?.parse().ok()
}

/// The crate that a file of sources belongs to; `None` for the standard library's.
fn crate_of(file: &str) -> Option<String> {
    if let Some((_, path)) = file.split_once("/registry/src/") {
        let folder = path.split('/').nth(1)?;
        return Some(folder.rsplit_once('-').map_or(folder, |(name, _)| name).to_owned());
    }
    let (before, _) = file.rsplit_once("/src/")?;
    let (group, name) = before.rsplit_once('/')?;
    let is_ours = ["/firmware", "/hal", "/hal/api"].iter().any(|ours| group.ends_with(ours));
    is_ours.then(|| name.to_owned())
}

/// The crate in whose name a function of the standard library was made for a type of ours.
fn crate_in(function: &str) -> Option<String> {
    let ours = ["smoltcp", "nvmeof", "drive", "net", "dataplane", "controller"];
    let fakes = function.contains("hal_fakes::").then(|| FAKES.to_owned());
    fakes
        .or_else(|| ours.iter().find(|ours| function.contains(&format!("{ours}::"))).map(|&ours| ours.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
version: 1
fl=(1) /tree/firmware/net/src/stack.rs
fn=(1) net::stack::Stack<F>::egress
10 5
fi=(2) /cargo/registry/src/index-1/smoltcp-0.14.0/src/socket/tcp.rs
+1 7
fi=(3) /rustc/library/core/src/option.rs
* 3
fe=(1)
cfi=(4) /rustc/library/core/src/slice/mod.rs
cfn=(2) memcpy
calls=2 0
12 100
cfi=(2)
cfn=(3) smoltcp::send
calls=1 0
13 1000
cfn=(4) __rustc::__rust_alloc
cfi=(4)
calls=1 0
13 9

fl=(2)
fn=(3)
1 11

fl=(5) /tree/hal/api/fakes/src/frame_queue.rs
fn=(5) hal_fakes::send
1 50
";

    #[test]
    fn inlined_code_and_the_standard_library_count_for_whoever_uses_them() {
        let found = attribute(SAMPLE);
        let expected = [("fakes", 50), ("net", 5 + 100), ("smoltcp", 7 + 3 + 11)];
        assert_eq!(found, expected.map(|(name, cost)| (name.to_owned(), cost)).into());
    }
}
