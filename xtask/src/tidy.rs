//! `cargo xtask tidy`: the tree's own rules, which no compiler checks.
//!
//! Who depends on whom (`xtask/dependencies.toml`), no unsafe code in `firmware/`, file lengths, links between
//! documents, left-overs, and words that belong to one machine.

use crate::command::output;
use crate::paths;
use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer without its reason in the table.
const LONGEST: usize = 600;

/// `xtask/dependencies.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    normal: BTreeMap<String, BTreeSet<String>>,
    only: BTreeMap<String, BTreeSet<String>>,
    long: BTreeMap<String, String>,
}

/// Checks all rules; the error lists every breach.
pub fn run() -> Result<()> {
    let root = paths::root()?;
    let file = root.join("xtask/dependencies.toml");
    let table: Table = toml::from_str(&paths::read(&file)?).context("xtask/dependencies.toml")?;
    let mut breaches = dependencies(&table, &metadata(&root)?)?;
    let files = sources(&root)?;
    let rules = Rules::new()?;
    for (name, text) in &files {
        breaches.extend(rules.judge(name, text, &table));
        if name.ends_with(".md") {
            breaches.extend(rules.links(&root, name, text));
        }
    }
    for name in table.long.keys().filter(|name| !files.contains_key(*name)) {
        breaches.push(format!("xtask/dependencies.toml: {name} is allowed to be long and does not exist"));
    }
    if breaches.is_empty() {
        println!("tidy: {} files, {} crates", files.len(), table.normal.len());
        return Ok(());
    }
    bail!("{} breaches of the tree's rules:\n{}", breaches.len(), breaches.join("\n"))
}

fn metadata(root: &Path) -> Result<serde_json::Value> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
    serde_json::from_str(&output(&mut command, 120)?).context("`cargo metadata` is not readable")
}

/// Compares the manifests with the table, both ways.
fn dependencies(table: &Table, metadata: &serde_json::Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("no packages in `cargo metadata`")?;
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let mut breaches = Vec::new();
    for package in packages {
        let crate_name = name(package);
        let Some(allowed) = table.normal.get(&crate_name) else {
            breaches.push(format!("xtask/dependencies.toml: {crate_name} is missing"));
            continue;
        };
        let edges = package["dependencies"].as_array().into_iter().flatten();
        // What only tests or build scripts use does not shape the card.
        let normal: BTreeSet<String> = edges.filter(|edge| edge["kind"].is_null()).map(name).collect();
        for edge in normal.iter().filter(|edge| ours.contains(*edge) && !allowed.contains(*edge)) {
            breaches.push(format!(
                "{crate_name} depends on {edge}, which xtask/dependencies.toml does not allow"
            ));
        }
        for edge in allowed.difference(&normal) {
            breaches
                .push(format!("xtask/dependencies.toml: {crate_name} does not depend on {edge} (any more)"));
        }
        for (outside, users) in table.only.iter().filter(|(_, users)| !users.contains(&crate_name)) {
            if normal.contains(outside) {
                let users: Vec<&str> = users.iter().map(String::as_str).collect();
                breaches.push(format!("{crate_name} names {outside}; only {} may", users.join(", ")));
            }
        }
    }
    for gone in table.normal.keys().filter(|name| !ours.contains(*name)) {
        breaches.push(format!("xtask/dependencies.toml: there is no crate {gone}"));
    }
    Ok(breaches)
}

/// All text files that belong to the tree, by their path in it.
fn sources(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let mut files = BTreeMap::new();
    for name in output(&mut command, 60).context("tidy needs git")?.lines() {
        if let Ok(text) = std::fs::read_to_string(root.join(name)) {
            files.insert(name.to_owned(), text);
        }
    }
    Ok(files)
}

/// Compiled patterns.
struct Rules {
    unsafe_word: Regex,
    left_over: Regex,
    local: Regex,
    link: Regex,
}

impl Rules {
    fn new() -> Result<Self> {
        Ok(Self {
            unsafe_word: Regex::new(r"\bunsafe\s*(\{|fn\b|impl\b|trait\b|extern\b)")?,
            // Spelt so that this file does not match itself.
            left_over: Regex::new(r"\b(todo|unimplemented)!\s*\(|\b[F]IXME\b|\bdbg!\s*\(")?,
            local: Regex::new(r"(?:^|[\s\x22'(=])/(?:home|root|work|Users)/[A-Za-z0-9._-]+")?,
            link: Regex::new(r"\]\(([^)\s]+)\)")?,
        })
    }

    fn judge(&self, name: &str, text: &str, table: &Table) -> Vec<String> {
        let mut breaches = Vec::new();
        let rust = name.ends_with(".rs");
        let generated =
            name == "Cargo.lock" || name.starts_with("qemu/expected/") || name.starts_with("LICENSE");
        let lines = text.lines().count();
        if lines > LONGEST && !generated && !table.long.contains_key(name) {
            breaches.push(format!(
                "{name}: {lines} lines; split it, or give the reason in xtask/dependencies.toml"
            ));
        }
        if rust && name.starts_with("firmware/") {
            let crate_root = name.ends_with("/src/lib.rs") && name.matches('/').count() == 3;
            if crate_root && !text.contains("forbid(unsafe_code)") {
                breaches.push(format!("{name}: `#![forbid(unsafe_code)]` is missing"));
            }
        }
        if rust && !text.trim_start().starts_with("//!") {
            breaches.push(format!("{name}: the first line does not say what the file is for (`//!`)"));
        }
        for (number, line) in text.lines().enumerate().filter(|_| !generated) {
            let mut breach =
                |what: &str| breaches.push(format!("{name}:{}: {what}: {}", number + 1, line.trim()));
            if rust && name.starts_with("firmware/") && self.unsafe_word.is_match(line) {
                breach("unsafe code in firmware/");
            }
            if rust && self.left_over.is_match(line) {
                breach("left over");
            }
            if self.local.is_match(line) {
                breach("a path of one machine");
            }
            if name.ends_with(".toml") && name.contains(".cargo") && line.contains("registry") {
                breach("a registry of one machine");
            }
        }
        breaches
    }

    /// Links to files that do not exist.
    fn links(&self, root: &Path, name: &str, text: &str) -> Vec<String> {
        let folder: PathBuf = root.join(name).parent().map(Path::to_path_buf).unwrap_or_default();
        let mut breaches = Vec::new();
        for found in self.link.captures_iter(text) {
            let target = found[1].split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !folder.join(target).exists() {
                breaches.push(format!("{name}: the link to {target} leads nowhere"));
            }
        }
        breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, text: &str) -> Vec<String> {
        let table = Table { normal: BTreeMap::new(), only: BTreeMap::new(), long: BTreeMap::new() };
        Rules::new().unwrap().judge(name, text, &table)
    }

    #[test]
    fn unsafe_code_in_firmware_is_found_and_words_about_it_are_not() {
        assert_eq!(judged("firmware/x/src/a.rs", "//! A.\nunsafe { f() }\n").len(), 1);
        assert!(judged("firmware/x/src/a.rs", "//! Not unsafe at all.\n").is_empty());
        assert!(judged("hal/x/src/a.rs", "//! A.\nunsafe { f() }\n").is_empty());
        assert_eq!(judged("firmware/x/src/lib.rs", "//! A.\n").len(), 1);
    }

    #[test]
    fn long_files_left_overs_and_local_paths_are_found() {
        assert_eq!(judged("a.rs", &format!("//! A.\n{}", "\n".repeat(LONGEST))).len(), 1);
        assert_eq!(judged("a.rs", concat!("//! A.\nto", "do!()\n")).len(), 1);
        assert_eq!(judged("a.md", concat!("see /ho", "me/me/x\n")).len(), 1);
        assert!(judged("a.md", "see /dev/kvm and /etc/apt\n").is_empty());
    }

    #[test]
    fn an_edge_is_compared_both_ways() {
        let table: Table = toml::from_str("[normal]\na = [\"b\"]\nb = []\n[only]\n[long]\n").unwrap();
        let package = |name: &str, edges: &[&str]| {
            let edges: Vec<_> = edges.iter().map(|e| serde_json::json!({"name": e, "kind": null})).collect();
            serde_json::json!({"name": name, "dependencies": edges})
        };
        let metadata =
            |a: &[&str], b: &[&str]| serde_json::json!({"packages": [package("a", a), package("b", b)]});
        assert!(dependencies(&table, &metadata(&["b"], &[])).unwrap().is_empty());
        assert_eq!(dependencies(&table, &metadata(&[], &[])).unwrap().len(), 1);
        assert_eq!(dependencies(&table, &metadata(&["b"], &["a"])).unwrap().len(), 1);
    }
}
