//! `cargo xtask measure`: figures of the card under QEMU and as a Linux process. What they mean stands in `docs/PERFORMANCE.md`.

mod idle;
mod instructions;
mod native;
mod path;
mod profile;
mod recovery;

use crate::image::{self, Image};
use crate::linux::card::Card;
use crate::linux::environment_of;
use crate::linux::host::{Host, HostPlan};
use crate::linux::script::{GUEST, Script, scripts};
use crate::linux::wire::Wire;
use crate::{accelerator, command, guest, paths, setup};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Subcommand)]
enum Figure {
    /// Host CPU time of a card that has nothing to do, without a host and with one
    Idle(idle::Options),
    /// Guest instructions of all cores per 4 KiB command of a Linux host, with verified data
    Instructions(instructions::Options),
    /// IOPS and latency that a user-space host sees, of the card as a Linux process, in QEMU, or of any target
    Native(native::Options),
    /// Instructions of the card's own code per 4 KiB read and per empty turn, counted on the host: the same in each run
    Path(path::Options),
    /// Time from a panic of the card to its being ready, and to the first I/O of a Linux host that was connected
    Recovery(recovery::Options),
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    match &options.figure {
        Figure::Idle(options) => machines().and_then(|()| idle::run(options)),
        Figure::Instructions(options) => machines().and_then(|()| instructions::run(options)),
        Figure::Native(options) => native::run(options),
        Figure::Path(options) => path::run(options),
        Figure::Recovery(options) => machines().and_then(|()| recovery::run(options)),
    }
}

/// Makes sure that the card's and the Linux host's machines can run here.
fn machines() -> Result<()> {
    if let Some(why) = guest::obstacle() {
        bail!("{why}");
    }
    setup::qemu()
}

/// Builds the image that `cargo xtask image` gives, and says which it is.
fn image() -> Result<Image> {
    let image = image::build("qemu-aarch64", false)?;
    println!("image   {}", image.flat.display());
    println!("sha256  {}", sha256(&image.flat)?);
    Ok(image)
}

/// The file's SHA-256, by the system's own program.
fn sha256(file: &Path) -> Result<String> {
    let text = command::output(Command::new("sha256sum").arg("--").arg(file), 60)?;
    Ok(text.split_whitespace().next().context("`sha256sum` says nothing")?.to_owned())
}

/// Lets a Linux host run a script of `measures/` against the card; `mark` gets what the script marks.
fn play(
    script: &str,
    variables: &str,
    processors: u32,
    card: &mut Card,
    wire: &Wire,
    mark: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let script: Script = scripts("measures", Some(script))?.remove(0);
    println!("{}", script.about());
    let guest = guest::prepare(GUEST)?;
    let environment = environment_of(&card.ready) + variables;
    let mut host = Host::start(&HostPlan {
        guest: &guest,
        addition: &[],
        accelerator: accelerator::choose(&guest.kernel)?,
        processors,
        run: &script.text,
        pieces: &[],
        environment: &environment,
        wires: std::slice::from_ref(wire),
        control: None,
        log: &paths::logs()?.join(format!("measure-{}-host.log", script.name)),
    })?;
    let deadline = Instant::now() + script.limit(false)?;
    host.follow(Some(card), deadline, mark).map(|_| ())
}
