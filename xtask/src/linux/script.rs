//! Scripts that the Linux host runs, and the `#: name value` lines that say how.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// The guest that plays the host.
pub const GUEST: &str = "linux-host";
/// Its folder in the checkout.
pub const FOLDER: &str = "qemu/guests/linux-host";

/// A script; its `#: name value` lines say how to run it.
pub struct Script {
    /// Its file's name without `.sh`.
    pub name: String,
    /// What the guest's shell runs.
    pub text: String,
}

impl Script {
    /// The value of the first `#: name` line.
    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("#: "));
        lines
            .filter_map(|line| line.split_once(' '))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }

    /// How long it may take, in its long form or in its short one.
    pub fn limit(&self, full: bool) -> Result<Duration> {
        let long = self.field("full_limit_s").filter(|_| full);
        let value = long.or(self.field("limit_s")).context("`#: limit_s` is missing")?;
        Ok(Duration::from_secs(value.parse().context("`#: limit_s` is no number")?))
    }

    /// How many hosts run it, one after the other.
    pub fn stages(&self) -> u32 {
        self.field("stages").and_then(|value| value.parse().ok()).unwrap_or(1)
    }

    /// What the script says about itself before it starts.
    pub fn about(&self) -> String {
        format!("{}: {}", self.name, self.field("proves").unwrap_or_default())
    }
}

/// The scripts of a folder of the guest, sorted: all, or the one of that name.
pub fn scripts(folder: &str, only: Option<&str>) -> Result<Vec<Script>> {
    let folder = paths::root()?.join(FOLDER).join(folder);
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let file = entry?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scripts.push(Script { name, text: paths::read(&file)? });
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<String> = scripts.iter().map(|script| script.name.clone()).collect();
    scripts.retain(|script| only.is_none_or(|only| only == script.name));
    if scripts.is_empty() {
        bail!("there is no such script; there are: {}", names.join(", "));
    }
    Ok(scripts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_proves_and_how_long_it_may_take() {
        for folder in ["tests", "measures"] {
            for script in scripts(folder, None).unwrap() {
                assert!(script.field("proves").is_some(), "{}", script.name);
                assert!(script.limit(true).unwrap() >= script.limit(false).unwrap(), "{}", script.name);
            }
        }
    }
}
