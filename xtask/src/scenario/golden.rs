//! Logs that are compared with files of `qemu/expected`.

use super::file::Scenario;
use crate::card_log::Line;
use crate::command::note;
use crate::paths;
use anyhow::{Context, Result, bail};
use regex::Regex;
use std::path::Path;

/// Compares with the golden log, or writes it.
pub fn compare(name: &str, scenario: &Scenario, lines: &[Line], bless: bool) -> Result<()> {
    if !scenario.golden {
        return Ok(());
    }
    let mut actual: String = lines.iter().map(|line| line.text.clone() + "\n").collect();
    for (pattern, replacement) in &scenario.normalise {
        actual = Regex::new(pattern)?.replace_all(&actual, replacement.as_str()).into_owned();
    }
    let folder = paths::created(paths::root()?.join("qemu/expected"))?;
    let file = folder.join(format!("{name}.txt"));
    if bless {
        note(&format!("writing {}", file.display()));
        return std::fs::write(&file, actual).with_context(|| format!("{}", file.display()));
    }
    let expected = paths::read(&file).context("write it with --bless")?;
    if expected == actual {
        return Ok(());
    }
    bail!(
        "the log is not the expected one; if it is right, say `--bless`\n{}",
        difference(&file, &expected, &actual)
    )
}

/// The first lines that differ, with what was expected and what came.
fn difference(file: &Path, expected: &str, actual: &str) -> String {
    let mut text = format!("--- {}\n+++ this run\n", file.display());
    let same = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
    for line in expected.lines().skip(same).take(10) {
        text.push_str(&format!("-{line}\n"));
    }
    for line in actual.lines().skip(same).take(10) {
        text.push_str(&format!("+{line}\n"));
    }
    text
}
