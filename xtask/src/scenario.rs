//! `cargo xtask test qemu`: boots the image as each file of `qemu/scenarios` says, with or without a Linux host on
//! its wire, does what the file says, and judges the card's log and what the host has seen.

mod bad_input;
mod crowd;
mod device_log;
mod faults;
mod file;
mod golden;
mod judge;
mod play;
mod site;
mod step;

use crate::accelerator;
use crate::guest::{self, Guest};
use crate::hosted::Build;
use crate::image;
use crate::linux::script::GUEST;
use crate::native;
use crate::report::{Job, Verdict};
use crate::setup;
use anyhow::{Result, bail};
use file::Scenario;
use regex::Regex;
use site::Wires;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What all scenarios of a run share.
pub struct Stage {
    image: image::Image,
    bless: bool,
    /// The Linux host's files and how its machine is run; none where no scenario has a host.
    linux: Option<(Guest, &'static str)>,
    /// What scenarios add to it, by name; or why that cannot be had.
    additions: BTreeMap<String, Result<Vec<u8>, String>>,
    /// The user-space host, where a scenario has it.
    native: Option<PathBuf>,
    /// The operator's tool, the same.
    dpuctl: Option<PathBuf>,
}

impl Stage {
    /// The archive of what a scenario adds to the Linux host.
    fn addition(&self, name: &str) -> Result<&[u8]> {
        match self.additions.get(name) {
            Some(Ok(archive)) => Ok(archive),
            Some(Err(why)) => bail!("{name} cannot be had: {why}"),
            None => bail!("{name} was not prepared"),
        }
    }
}

/// What every scenario of a run has beside what its file says.
#[derive(Debug, Default)]
pub struct More<'a> {
    /// Boot arguments that come behind its own.
    pub append: &'a str,
    /// Number of cores where the file has none.
    pub smp: Option<u32>,
}

/// The named scenarios, or all of the board's that run without being asked for, ready to run.
pub struct Plan {
    scenarios: Vec<(String, Scenario)>,
    stage: Stage,
    /// Why there is no Linux host here.
    obstacle: Option<String>,
}

impl Plan {
    /// Reads the scenarios, and builds what they need.
    pub fn new(only: &[String], board: &str, bless: bool, more: &More) -> Result<Self> {
        let names = file::names()?;
        let wanted: Vec<Regex> = only.iter().map(|name| pattern(name)).collect::<Result<_>>()?;
        let of_nobody = |wanted: &Regex| !names.iter().any(|name| wanted.is_match(name));
        if let Some((only, _)) = only.iter().zip(&wanted).find(|(_, wanted)| of_nobody(wanted)) {
            bail!("there is no scenario `{only}`; there are: {}", names.join(", "));
        }
        let mut scenarios: Vec<(String, Scenario)> = Vec::new();
        for name in names {
            let mut scenario = file::read(&name)?;
            let asked_for = wanted.iter().any(|wanted| wanted.is_match(&name));
            if scenario.board == board && (asked_for || only.is_empty() && !scenario.on_request) {
                scenario.append = format!("{} {}", scenario.append, more.append).trim().to_owned();
                scenario.smp = scenario.smp.or(more.smp);
                scenarios.push((name, scenario));
            }
        }
        setup::qemu()?;
        let obstacle = guest::obstacle();
        let image = image::build(board, false)?;
        let linux = if obstacle.is_none() && scenarios.iter().any(|(_, scenario)| scenario.host.is_some()) {
            let guest = guest::prepare(GUEST)?;
            let accelerator = accelerator::choose(&guest.kernel)?;
            Some((guest, accelerator))
        } else {
            None
        };
        let hosts =
            scenarios.iter().filter(|_| linux.is_some()).filter_map(|(_, scenario)| scenario.host.as_ref());
        let names: BTreeSet<&String> = hosts.filter_map(|host| host.adds.as_ref()).collect();
        let prepare =
            |name: &String| (name.clone(), guest::addition::prepare(name).map_err(|why| format!("{why:#}")));
        let additions = names.into_iter().map(prepare).collect();
        let has_native = scenarios.iter().any(|(_, scenario)| scenario.has_native_host());
        let native = if has_native { Some(native::host(Build::Release)?) } else { None };
        let has_dpuctl = scenarios.iter().any(|(_, scenario)| scenario.has_dpuctl());
        let dpuctl = if has_dpuctl { Some(native::dpuctl(Build::Release)?) } else { None };
        Ok(Self { scenarios, stage: Stage { image, bless, linux, additions, native, dpuctl }, obstacle })
    }

    /// One for each scenario.
    pub fn jobs(&self) -> Vec<Job<'_>> {
        let count = self.scenarios.len();
        let scenarios = self.scenarios.iter().enumerate();
        let jobs = scenarios.map(|(number, (name, scenario))| Job {
            name: format!("qemu {name}"),
            about: format!("{name} ({} of {count}): {}", number + 1, scenario.proves),
            work: Box::new(move || match &self.obstacle {
                Some(why) if scenario.host.is_some() => Ok(Verdict::Skipped(why.clone())),
                _ => match scenario.host.as_ref().map(Wires::new) {
                    Some(Err(why)) => Ok(Verdict::Skipped(format!("{why:#}"))),
                    wires => {
                        let wires = wires.and_then(Result::ok);
                        play::play(name, scenario, &self.stage, wires).map(|()| Verdict::Passed)
                    }
                },
            }),
        });
        jobs.collect()
    }
}

/// A name in which `*` stands for anything.
fn pattern(name: &str) -> Result<Regex> {
    Ok(Regex::new(&format!("^{}$", regex::escape(name).replace(r"\*", ".*")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let fits = |text: &str, name: &str| pattern(text).unwrap().is_match(name);
        assert!(fits("many-*", "many-rss") && fits("many", "many") && fits("*", "crash-hang"));
        assert!(
            !fits("many", "many-rss") && !fits("many-*", "too-many-connections") && !fits("m.ny", "many")
        );
    }
}
