//! Boards are data: each `boards/*/board.toml` names a board and its compilation target.

use crate::paths;
use anyhow::{Context, Result, anyhow, bail};
use linker::Board;

/// All boards, by name.
pub fn all() -> Result<Vec<Board>> {
    let mut boards = Vec::new();
    let folder = paths::root()?.join("boards");
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let file = entry?.path().join("board.toml");
        if file.is_file() {
            boards.push(Board::read(&file).map_err(|error| anyhow!("{error}"))?);
        }
    }
    boards.sort_by(|a: &Board, b: &Board| a.name.cmp(&b.name));
    Ok(boards)
}

/// The boards that are images for machines of their own.
pub fn images() -> Result<Vec<Board>> {
    Ok(all()?.into_iter().filter(|board| !board.is_process()).collect())
}

/// The board of that name, which has an image.
pub fn with_image(name: &str) -> Result<Board> {
    let board = named(name)?;
    if board.is_process() {
        bail!(
            "board `{name}` is a process of this machine and has no image: `cargo xtask run --board {name}`"
        );
    }
    Ok(board)
}

/// The board of that name.
pub fn named(name: &str) -> Result<Board> {
    let boards = all()?;
    let names: Vec<String> = boards.iter().map(|board| board.name.clone()).collect();
    match boards.into_iter().find(|board| board.name == name) {
        Some(board) => Ok(board),
        None => bail!("there is no board `{name}`; there are: {}", names.join(", ")),
    }
}
