//! `cargo xtask test qemu`: boots the image as each file of `qemu/scenarios` says, with or without a Linux host on
//! its wire, does what the file says, and judges the card's log and what the host has seen.

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
use crate::command::note;
use crate::guest::{self, Guest};
use crate::image;
use crate::linux::script::GUEST;
use crate::report::{Report, Verdict};
use crate::setup;
use anyhow::{Result, bail};
use file::Scenario;

/// What all scenarios of a run share.
pub struct Stage {
    image: image::Image,
    bless: bool,
    /// The Linux host's files and how its machine is run; none where no scenario has a host.
    linux: Option<(Guest, &'static str)>,
}

/// Runs the named scenario, or all of the board's.
pub fn run(report: &mut Report, only: Option<&str>, board: &str, bless: bool) -> Result<()> {
    let names = file::names()?;
    if let Some(only) = only.filter(|only| !names.iter().any(|name| name == only)) {
        bail!("there is no scenario `{only}`; there are: {}", names.join(", "));
    }
    let mut scenarios: Vec<(&str, Scenario)> = Vec::new();
    for name in names.iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let scenario = file::read(name)?;
        if scenario.board == board {
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
    let stage = Stage { image, bless, linux };
    let count = scenarios.len();
    for (number, (name, scenario)) in scenarios.iter().enumerate() {
        report.part(&format!("qemu {name}"), || {
            if scenario.host.is_some()
                && let Some(why) = &obstacle
            {
                return Ok(Verdict::Skipped(why.clone()));
            }
            note(&format!("{name} ({} of {count}): {}", number + 1, scenario.proves));
            play::play(name, scenario, &stage).map(|()| Verdict::Passed)
        });
    }
    Ok(())
}
