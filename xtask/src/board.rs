//! Boards are data: each `boards/*/board.toml` names a board and its compilation target.

use crate::paths;
use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What a developer's command must know of a board; the rest of the file is the board's own.
#[derive(Clone, Debug, Deserialize)]
pub struct Board {
    /// The board's name, which is also its crate's.
    pub name: String,
    /// The compiler's name of its processor and environment.
    pub target: String,
}

/// All boards, by name.
pub fn all() -> Result<Vec<Board>> {
    let mut boards = Vec::new();
    let folder = paths::root()?.join("boards");
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let file = entry?.path().join("board.toml");
        if file.is_file() {
            let text = paths::read(&file)?;
            let board = toml::from_str(&text).with_context(|| format!("{} is not a board", file.display()))?;
            boards.push(board);
        }
    }
    boards.sort_by(|a: &Board, b: &Board| a.name.cmp(&b.name));
    Ok(boards)
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
