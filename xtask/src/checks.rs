//! `fmt`, `lint`, `doc` and the host tests: cargo's own tools over the right crates.

use crate::command::{Step, output, patient};
use crate::report::Verdict;
use crate::{board, paths, toolchain};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A cargo command in the root of the checkout.
fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(paths::root()?);
    Ok(command)
}

/// Has rustup install a component where `cargo TOOL` is missing, as it is in rustup's minimal profile.
fn component(tool: &str, name: &str) -> Result<()> {
    if output(&mut cargo(&[tool, "--version"])?, 60).is_ok() {
        return Ok(());
    }
    let missing = || format!("`cargo {tool}` is missing: install {name} beside your Rust compiler");
    let mut command = Command::new(paths::find_program("rustup").with_context(missing)?);
    command.args(["component", "add", name]);
    Step::new(format!("rustup component add {name}"), command, 120).run().with_context(missing)
}

/// Formats, or checks that all is formatted.
pub fn fmt(check: bool) -> Result<()> {
    component("fmt", "rustfmt")?;
    if check {
        let command = cargo(&["fmt", "--all", "--check", "--", "--color=never"])?;
        return Step::new("checking the format", command, 300)
            .run()
            .context("`cargo xtask fmt` mends the format");
    }
    Step::new("formatting", cargo(&["fmt", "--all"])?, 300).run()
}

/// Clippy over the host crates with their tests, and over each board for its target.
pub fn lint() -> Result<()> {
    component("clippy", "clippy")?;
    let host = cargo(&["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])?;
    Step::new("clippy, host crates", host, 1800).visible().run()?;
    for board in board::images()? {
        let mut command = toolchain::ensure(&board.target)?.cargo("clippy", &board.target);
        command.args(["--locked", "--package", &board.name, "--", "-D", "warnings"]);
        command.current_dir(paths::root()?);
        Step::new(format!("clippy, board {}", board.name), command, 1800).visible().run()?;
    }
    Ok(())
}

/// Documentation of the workspace's own crates.
pub fn doc() -> Result<()> {
    let mut command = cargo(&["doc", "--locked", "--no-deps"])?;
    command.env("RUSTDOCFLAGS", "-D warnings");
    Step::new("documentation", command, 1800).visible().run()
}

/// Unit, property and documentation tests of all crates that build for this machine.
pub fn host_tests() -> Result<()> {
    Step::new("host tests", patient(cargo(&["test", "--locked"])?), 2400).visible().run()
}

/// Crates with unsafe code, and those whose tests and fuzz corpus drive it hardest.
const ASAN_CRATES: [&str; 9] = [
    "app",
    "fuzz-entries",
    "hal-devices",
    "hal-fakes",
    "hal-hosted",
    "hal-log-sink",
    "hal-mem",
    "hal-simd",
    "hosted",
];

/// Their tests under AddressSanitizer, in a build of their own. The compiler's flag is unstable and its runtime an
/// ordinary file of the toolchain: where that is, a stable compiler does it as well.
pub fn asan_tests() -> Result<Verdict> {
    let rustc = |arguments: &[&str]| output(Command::new("rustc").args(arguments), 60);
    let version = rustc(&["-vV"])?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    let library =
        Path::new(rustc(&["--print", "sysroot"])?.trim()).join("lib/rustlib").join(host).join("lib");
    let runtime = |name: &str| name.starts_with("librustc") && name.ends_with("_rt.asan.a");
    let mut files = std::fs::read_dir(&library).into_iter().flatten().flatten();
    if !files.any(|file| runtime(&file.file_name().to_string_lossy())) {
        return Ok(Verdict::Skipped("this Rust toolchain has no AddressSanitizer".to_owned()));
    }
    let mut command = cargo(&["test", "--locked", "--lib", "--tests", "--target", host])?;
    for name in ASAN_CRATES {
        command.args(["--package", name]);
    }
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    // The card's memory lives as long as the card: what tests leak, they leak on purpose. Too much memory is an error that the card tells.
    command.env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1");
    command.env("CARGO_TARGET_DIR", paths::target()?.join("asan"));
    Step::new("tests under AddressSanitizer", patient(command), 1800).visible().run()?;
    Ok(Verdict::Passed)
}

/// Crates with structures that cores share; each has tests called `loom_tests`.
const LOOM_CRATES: [&str; 2] = ["hal-mem", "hal-log-sink"];

/// Those tests, in a build of their own: `cfg(loom)` puts the model checker in the place of the atomics. The
/// simulator's profile is quick to build, and checks more than the release does.
pub fn loom_tests() -> Result<()> {
    let mut command = cargo(&["test", "--locked", "--profile", "sim", "--lib"])?;
    for name in LOOM_CRATES {
        command.args(["--package", name]);
    }
    command.arg("loom_tests");
    command.env("RUSTFLAGS", "--cfg loom").env("LOOM_MAX_PREEMPTIONS", "4");
    command.env("CARGO_TARGET_DIR", paths::target()?.join("loom"));
    Step::new("loom tests", patient(command), 1200).visible().run()
}
