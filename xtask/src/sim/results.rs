//! The file that long runs append to: what was run on which commit, and what came of it.
//!
//! A line names a range of seeds all of which ended well, so that a run that fails or is stopped leaves no seed out.

use crate::command::output;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the results are.
pub fn file() -> Result<PathBuf> {
    Ok(paths::cache()?.join("sim-results.txt"))
}

/// Seeds that ended well, in whatever order they did.
pub struct Progress {
    next: u64,
    beyond: BTreeSet<u64>,
}

impl Progress {
    /// Nothing from `first` on is done.
    pub fn new(first: u64) -> Self {
        Self { next: first, beyond: BTreeSet::new() }
    }

    /// A seed has ended well.
    pub fn done(&mut self, seed: u64) {
        self.beyond.insert(seed);
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
    }

    /// The lowest seed that is not done.
    pub fn next(&self) -> u64 {
        self.next
    }
}

/// What a run appends.
pub struct Record {
    file: PathBuf,
    commit: String,
    /// The seeds below stand in the file.
    recorded: u64,
}

impl Record {
    /// A run that begins with `first`.
    pub fn new(file: PathBuf, first: u64) -> Result<Self> {
        let mut git = Command::new("git");
        git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(paths::root()?);
        let commit = output(&mut git, 20).unwrap_or_default();
        let commit = if commit.trim().is_empty() { "unknown" } else { commit.trim() };
        Ok(Self { file, commit: commit.to_owned(), recorded: first })
    }

    /// Adds a line where at least `least` seeds below `next` are not in the file yet.
    pub fn go_on(&mut self, next: u64, least: u64) -> Result<()> {
        if next - self.recorded < least {
            return Ok(());
        }
        self.append(next, "good")
    }

    /// Adds the last line.
    pub fn end(&mut self, next: u64, verdict: &Result<()>) -> Result<()> {
        match verdict {
            Ok(()) => self.append(next, "good"),
            Err(error) => self.append(next, error.to_string().lines().next().unwrap_or("failed")),
        }
    }

    fn append(&mut self, next: u64, words: &str) -> Result<()> {
        let mut results = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)
            .with_context(|| format!("{} cannot be written", self.file.display()))?;
        let (first, count) = (self.recorded, next - self.recorded);
        // One write, so that a line is there as a whole or not at all.
        let line = format!("{first} {count} {} {words}\n", self.commit);
        results.write_all(line.as_bytes()).with_context(|| self.file.display().to_string())?;
        self.recorded = next;
        Ok(())
    }
}

/// The lowest seed from 0 on that no run has done.
pub fn next_seed(file: &Path) -> Result<u64> {
    if !file.exists() {
        return Ok(0);
    }
    let text = paths::read(file)?;
    let mut ranges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(range) = range_of(line) else {
            bail!(
                "{}, line {}: expected `FIRST COUNT COMMIT VERDICT`, found `{line}`; mend or remove the line",
                file.display(),
                number + 1
            );
        };
        ranges.push(range);
    }
    ranges.sort_unstable();
    let reached = |next: u64, (first, end): (u64, u64)| if first <= next { next.max(end) } else { next };
    Ok(ranges.into_iter().fold(0, reached))
}

/// The first seed of a line and the one after its last.
fn range_of(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (first, count): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next()?;
    words.next()?;
    Some((first, first.checked_add(count)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_the_last_one_ended_and_bad_lines_are_named() {
        let folder = paths::TemporaryFolder::for_sockets().unwrap();
        let file = folder.join("results");
        assert_eq!(next_seed(&file).unwrap(), 0);
        std::fs::write(&file, "0 100 abc good\n100 49 abc seed 149 failed:\n").unwrap();
        assert_eq!(next_seed(&file).unwrap(), 149);
        std::fs::write(&file, "0 100 abc good\n100 many abc good\n").unwrap();
        assert!(next_seed(&file).unwrap_err().to_string().contains("line 2: expected"));
    }

    #[test]
    fn a_run_of_far_seeds_does_not_hide_those_below() {
        let folder = paths::TemporaryFolder::for_sockets().unwrap();
        let file = folder.join("results");
        std::fs::write(&file, "5000 100 abc good\n20 30 abc good\n0 20 abc good\n").unwrap();
        assert_eq!(next_seed(&file).unwrap(), 50);
    }

    #[test]
    fn a_failed_or_stopped_run_leaves_no_seed_out() {
        let folder = paths::TemporaryFolder::for_sockets().unwrap();
        let file = folder.join("results");
        let mut record = Record::new(file.clone(), 0).unwrap();
        let mut progress = Progress::new(0);
        // Two workers; the one with seed 7 died of it.
        [0, 20, 1, 21, 2, 22, 3, 4, 5, 6].into_iter().for_each(|seed| progress.done(seed));
        record.go_on(progress.next(), 10).unwrap();
        assert!(!file.exists());
        record.go_on(progress.next(), 5).unwrap();
        assert_eq!(next_seed(&file).unwrap(), 7);
        (23..40).for_each(|seed| progress.done(seed));
        record.end(progress.next(), &Err(anyhow::anyhow!("seed 7 failed:\nVIOLATION"))).unwrap();
        assert_eq!(next_seed(&file).unwrap(), 7);
        assert!(paths::read(&file).unwrap().ends_with(" seed 7 failed:\n"));
        (7..20).for_each(|seed| progress.done(seed));
        assert_eq!(progress.next(), 40);
    }
}
