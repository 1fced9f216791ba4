//! The card as a process of this machine: building it and the words that start it.

use crate::command::{Step, note, typed};
use crate::linux::wire::Wire;
use crate::{paths, qemu};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The board's name.
pub const BOARD: &str = "hosted";

/// How it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As fast as it gets.
    Release,
    /// Nearly as fast, with debug assertions and overflow checks: for tests.
    Checked,
    /// For a debugger.
    Debug,
}

/// Builds the program.
pub fn build(build: Build) -> Result<PathBuf> {
    build_package(BOARD, build)
}

/// Builds a program of the workspace in the same way.
pub fn build_package(package: &str, build: Build) -> Result<PathBuf> {
    let (profile, folder) = match build {
        Build::Release => ("release", "release"),
        Build::Checked => ("sim", "sim"),
        Build::Debug => ("dev", "debug"),
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()?).args([
        "build",
        "--locked",
        "--package",
        package,
        "--profile",
        profile,
    ]);
    Step::new(format!("building {package}"), command, 1800).visible().run()?;
    Ok(paths::target()?.join(folder).join(package))
}

/// A drive's file, as an argument; it is made where it is missing.
pub fn drive(folder: &Path, name: &str, size: &str, block_bytes: u32) -> Result<String> {
    let file = qemu::sparse_file(folder, &format!("{name}.raw"), qemu::bytes(size)?)?;
    Ok(format!("{},block={block_bytes},serial={name}", file.display()))
}

/// The program's port on a test's wire.
pub fn port(wire: &Wire) -> Result<Vec<String>> {
    Ok(match wire {
        Wire::Stream(folder) => vec!["--wire".to_owned(), folder.join("wire").display().to_string()],
        Wire::Taps(_) => vec!["--tap".to_owned(), "card".to_owned()],
        Wire::Relayed(_) | Wire::Forwarded(_) => bail!("the hosted card is on stream wires and TAPs alone"),
    })
}

/// The program with its log, which it writes to standard error, on standard output.
pub fn logging(program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(program).args(arguments);
    command.env_remove("PENSTOCK_LOG");
    command
}

/// Becomes the program: Ctrl-C is its own then, and ends it in good order.
pub fn become_it(program: &Path, arguments: &[String], debugger: bool) -> Result<()> {
    let mut command = Command::new(if debugger { Path::new("gdb") } else { program });
    if debugger {
        command.args(["-ex", "handle SIGINT nostop pass", "--args"]).arg(program);
    }
    command.args(arguments);
    note(&format!("starting {}", typed(&command)));
    let name = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("`{name}` cannot be started"))
}
