//! The file that long runs append to: what was run on which commit, and what came of it.

use crate::command::output;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the results are.
pub fn file() -> Result<PathBuf> {
    Ok(paths::cache()?.join("sim-results.txt"))
}

/// The seed after the last one that was run.
pub fn next_seed(file: &Path) -> Result<u64> {
    if !file.exists() {
        return Ok(0);
    }
    let text = paths::read(file)?;
    let mut next = 0;
    for (number, line) in text.lines().enumerate() {
        let Some(end) = end_of(line) else {
            bail!(
                "{}, line {}: expected `FIRST COUNT COMMIT VERDICT`, found `{line}`; mend or remove the line",
                file.display(),
                number + 1
            );
        };
        next = next.max(end);
    }
    Ok(next)
}

fn end_of(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let (first, count): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next()?;
    words.next()?;
    first.checked_add(count)
}

/// Adds a line.
pub fn append(file: &Path, first: u64, count: u64, verdict: &Result<()>) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(paths::root()?);
    let commit = output(&mut git, 20).unwrap_or_default();
    let commit = if commit.trim().is_empty() { "unknown" } else { commit.trim() };
    let words = match verdict {
        Ok(()) => "good".to_owned(),
        Err(error) => error.to_string().lines().next().unwrap_or("failed").to_owned(),
    };
    let mut results = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .with_context(|| format!("{} cannot be written", file.display()))?;
    writeln!(results, "{first} {count} {commit} {words}").with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_the_last_one_ended_and_bad_lines_are_named() {
        let folder = paths::TemporaryFolder::for_sockets().unwrap();
        let file = folder.join("results");
        assert_eq!(next_seed(&file).unwrap(), 0);
        std::fs::write(&file, "0 100 abc good\n100 50 abc seed 149 failed:\n").unwrap();
        assert_eq!(next_seed(&file).unwrap(), 150);
        std::fs::write(&file, "0 100 abc good\n100 many abc good\n").unwrap();
        assert!(next_seed(&file).unwrap_err().to_string().contains("line 2: expected"));
    }
}
