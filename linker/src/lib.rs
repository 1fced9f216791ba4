//! Build helper of the boards: reads and checks `board.toml`, lays out the image, and flattens it.
//!
//! A board's `build.rs` calls [`configure`] and does nothing else. `xtask` uses [`flat_image`] and
//! [`Board`]. Host code only.
#![forbid(unsafe_code)]

mod board;
mod flat;
mod generate;
mod plan;

pub use board::{Board, BoardError, Console, Cores, HOST, Image, Stacks};
pub use flat::{FlatError, flat_image};
pub use generate::{PAGE_BYTES, constants, numbers};
pub use plan::{Entry, MAX_DATA_CORES, Plan, Role};

use std::path::{Path, PathBuf};

/// Reads `board.toml` beside the calling build script's `Cargo.toml`, checks it, and tells cargo how to link
/// the board's binary. Writes `board.rs` into `OUT_DIR` for the board to include.
///
/// # Errors
/// A sentence for the person who edits the board: what is wrong in the file, or which file could not be
/// read or written.
pub fn configure() -> Result<(), String> {
    let manifest = environment("CARGO_MANIFEST_DIR")?;
    let out = environment("OUT_DIR")?;
    let file = manifest.join("board.toml");
    println!("cargo:rerun-if-changed={}", file.display());
    let board = Board::read(&file)?;
    write(&out.join("board.rs"), &constants(&board))?;
    // A process is linked as any program.
    let Some(numbers) = numbers(&board) else { return Ok(()) };
    let numbers_file = out.join("numbers.ld");
    write(&numbers_file, &numbers)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("image.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    for argument in [
        format!("-T{}", numbers_file.display()),
        format!("-T{}", script.display()),
        // The log's strings; defmt's own build script puts the file into the search path.
        "-Tdefmt.x".into(),
        "--no-dynamic-linker".into(),
        "--build-id=sha1".into(),
        "-zmax-page-size=4096".into(),
        "--orphan-handling=warn".into(),
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    Ok(())
}

fn environment(name: &str) -> Result<PathBuf, String> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{name} is not set: run from a build script"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
