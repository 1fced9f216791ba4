//! A way to build for the card: the installed target, rustup's, or Debian's compiler with `core` built here.
//! Debian's comes before rustup where it is already complete: a rustup that hangs would hang at each call.
//!
//! No nightly toolchain is needed and no step waits longer than its limit.

use crate::apt;
use crate::command::{Step, note, output};
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// The oldest compiler that the workspace builds with.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// How the card's image is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The current toolchain has the target's `core`.
    Installed,
    /// Debian's compiler in /usr/bin, with its own library sources.
    Debian,
}

impl Toolchain {
    /// A cargo command for the target: sub-command and target given, packages and profile still to add.
    pub fn cargo(self, verb: &str, target: &str) -> Command {
        let mut command = match self {
            Self::Installed => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env(linker, "ld.lld");
                // Debian's clippy, not rustup's, which would compile with rustup's compiler.
                let mut path = std::ffi::OsString::from("/usr/bin:");
                path.push(std::env::var_os("PATH").unwrap_or_default());
                command.env("PATH", path);
                command
            }
        };
        command.arg(verb).args(["--target", target]);
        if self == Self::Debian {
            command.arg("-Zbuild-std=core");
        }
        command
    }
}

/// Finds a toolchain for the target, installing one where none is.
pub fn ensure(target: &str) -> Result<Toolchain> {
    if has_target(target)? {
        return Ok(Toolchain::Installed);
    }
    if debian_ready() {
        return Ok(Toolchain::Debian);
    }
    if let Some(rustup) = paths::find_program("rustup") {
        let mut command = Command::new(rustup);
        command.args(["target", "add", target]);
        match Step::new(format!("rustup target add {target}"), command, 120).run() {
            Ok(()) if has_target(target)? => return Ok(Toolchain::Installed),
            Ok(()) => note(&format!("rustup has {target} now, and the `rustc` in use does not see it")),
            Err(error) => note(&format!("{error:#}")),
        }
    }
    if !apt::present() {
        bail!(
            "no way to build for {target}: run `rustup target add {target}`, \
             or install a Rust compiler with that target's `core`"
        );
    }
    note(&format!("no {target} from rustup: trying Debian's compiler, which builds `core` itself"));
    let no_way = || format!("no way to build for {target}: `rustup target add {target}` did not work either");
    apt::install(&["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy", "lld"], None)
        .with_context(no_way)?;
    if debian_ready() {
        return Ok(Toolchain::Debian);
    }
    bail!(
        "{}: Debian's compiler in /usr/bin is not Rust {OLDEST} or newer, complete with cargo, clippy, ld.lld \
         and its library's sources",
        no_way()
    )
}

/// Whether the compiler in use has the target's library.
fn has_target(target: &str) -> Result<bool> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]), 60)
        .context("`rustc` does not run: install Rust, see https://rustup.rs")?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib");
    let Ok(entries) = std::fs::read_dir(library) else { return Ok(false) };
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
}

/// Whether Debian's compiler is complete, and new enough for the workspace.
fn debian_ready() -> bool {
    let version = output(Command::new("/usr/bin/rustc").arg("--version"), 60).unwrap_or_default();
    let version = version.split_whitespace().nth(1).and_then(apt::upstream);
    if version.is_none() || version < apt::upstream(OLDEST) {
        return false;
    }
    let programs = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/cargo-clippy", "/usr/bin/ld.lld"];
    let source = output(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]), 60)
        .map(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
        .unwrap_or(false);
    source && programs.iter().all(|program| Path::new(program).is_file())
}
