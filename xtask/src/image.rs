//! Builds a board's ELF file and the flat image that machines boot.

use crate::board;
use crate::command::Step;
use crate::{paths, toolchain};
use anyhow::{Context, Result, anyhow};
use linker::Board;
use std::path::PathBuf;

/// The two files of one build.
pub struct Image {
    /// With symbols, sections and the log strings' table.
    pub elf: PathBuf,
    /// What `-kernel` and U-Boot's `booti` take.
    pub flat: PathBuf,
}

/// Builds the named board.
pub fn build(board: &str, debug: bool) -> Result<Image> {
    let board = board::with_image(board)?;
    let image = compile(&board, debug)?;
    let bytes =
        std::fs::read(&image.elf).with_context(|| format!("{} cannot be read", image.elf.display()))?;
    let flat = linker::flat_image(&bytes)
        .map_err(|error| anyhow!("{} cannot be flattened: {error}", image.elf.display()))?;
    std::fs::write(&image.flat, flat)
        .with_context(|| format!("{} cannot be written", image.flat.display()))?;
    Ok(image)
}

fn compile(board: &Board, debug: bool) -> Result<Image> {
    let toolchain = toolchain::ensure(&board.target)?;
    let mut command = toolchain.cargo("build", &board.target);
    command.current_dir(paths::root()?).args(["--package", &board.name]);
    if !debug {
        command.arg("--release");
    }
    Step::new(format!("building the image of {}", board.name), command, 1800).visible().run()?;
    let folder = paths::target()?.join(&board.target).join(if debug { "debug" } else { "release" });
    Ok(Image { elf: folder.join(&board.name), flat: folder.join(format!("penstock-{}.img", board.name)) })
}
