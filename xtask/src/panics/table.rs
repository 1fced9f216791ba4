//! Panic sites as text: the table that is checked in, and the list by line.

use super::sites::{Site, Sites};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// What must not hold a single site: the data path, and the memory and rings under it.
pub const FREE: [&str; 12] = [
    "firmware/nvme/",
    "firmware/nvmeof/",
    "firmware/controller/",
    "firmware/drive/",
    "firmware/dataplane/",
    "firmware/message/",
    "firmware/net/",
    "hal/mem/",
    "hal/log_sink/",
    "hal/devices/src/nvme/",
    "hal/devices/src/virtio/queue.rs",
    "hal/devices/src/virtio/net/",
];

const HEAD: &str = "\
# Places from which a panic can come, as `cargo xtask panics` counts them in the release image. They may only get fewer;
# `cargo xtask panics --bless` writes this file. \"core loop\": what direct calls reach from the loops after boot.
";

/// Sites of a crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    all: usize,
    in_loop: usize,
}

/// The number of sites of each crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<String, Count>);

impl Table {
    /// Counts sites.
    pub fn of(found: &Sites) -> Self {
        let mut table = Self::default();
        for site in &found.sites {
            let count = table.0.entry(site.place.owner.clone()).or_default();
            count.all += 1;
            count.in_loop += usize::from(site.in_loop);
        }
        table
    }

    /// Reads what [`fmt::Display`] has written.
    pub fn read(text: &str) -> Result<Self> {
        let mut table = Self::default();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let row = row(line).with_context(|| {
                format!("line {}: a crate and two numbers are expected, not `{line}`", number + 1)
            })?;
            table.0.insert(row.0, row.1);
        }
        Ok(table)
    }

    /// The crates that have more sites than `before`, a line for each.
    pub fn above(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, now) in &self.0 {
            let before = before.0.get(name).copied().unwrap_or_default();
            if now.all > before.all || now.in_loop > before.in_loop {
                lines.push(format!(
                    "{name}: {} ({} in the core loop), allowed {} ({})",
                    now.all, now.in_loop, before.all, before.in_loop
                ));
            }
        }
        lines
    }
}

fn row(line: &str) -> Option<(String, Count)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let count = Count { all: words.next()?.parse().ok()?, in_loop: words.next()?.parse().ok()? };
    words.next().is_none().then_some((name, count))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        writeln!(f, "# {:22} {:>6} {:>10}", "crate", "sites", "core loop")?;
        for (name, count) in &self.0 {
            writeln!(f, "{name:24} {:>6} {:>10}", count.all, count.in_loop)?;
        }
        Ok(())
    }
}

/// The sites that must not be there.
pub fn forbidden(sites: &[Site]) -> Vec<Site> {
    let free = |site: &&Site| FREE.iter().any(|start| site.place.file.starts_with(start));
    sites.iter().filter(free).cloned().collect()
}

/// One line for each site: place, function, what panics.
pub fn list(sites: &[Site]) -> String {
    let mut text = String::new();
    for Site { place, kind, in_loop } in sites {
        let mark = if *in_loop { "loop" } else { "boot" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{mark} {}: {}:{} {} -> {kind}",
            place.owner, place.file, place.line, place.function
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::origin::Place;
    use super::*;

    fn site(owner: &str, file: &str, in_loop: bool) -> Site {
        let place = Place { owner: owner.into(), file: file.into(), line: 1, function: "f".into() };
        Site { place, kind: "core::panicking::panic".into(), in_loop }
    }

    #[test]
    fn the_table_reads_what_it_writes_and_may_only_fall() {
        let sites = vec![site("a", "a/src/lib.rs", true), site("a", "a/src/lib.rs", false)];
        let table = Table::of(&Sites { sites, ..Sites::default() });
        let read = Table::read(&table.to_string()).unwrap();
        assert_eq!(read, table);
        assert!(table.above(&read).is_empty());
        let fewer = Table::read("a 2 0\n").unwrap();
        assert_eq!(table.above(&fewer).len(), 1, "one more in the core loop");
        assert_eq!(table.above(&Table::default()).len(), 1, "a crate that had none");
        assert!(Table::default().above(&table).is_empty());
        let error = format!("{:#}", Table::read("a 2\n").unwrap_err());
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn the_data_path_holds_none() {
        let sites = [
            site("firmware/drive", "firmware/drive/src/drive.rs", true),
            site("hal/devices", "hal/devices/src/virtio/queue.rs", true),
            site("hal/devices", "hal/devices/src/pci/scan.rs", false),
        ];
        assert_eq!(forbidden(&sites).len(), 2);
    }
}
