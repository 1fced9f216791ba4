//! `cargo xtask panics`: every place of a board's image from which a panic can come, by crate and by line.
//!
//! The image is the judge, not the source: a check that the compiler has proven away is not there. Code that must not
//! panic at all has none; elsewhere the checked-in table may only get shorter. What cannot be seen are calls through
//! registers: the column of the core loop knows only what direct calls reach.

mod code;
mod location;
mod origin;
mod program;
mod sites;
mod table;

use crate::{image, paths};
use anyhow::{Context, Result, bail};
use object::read::elf::ElfFile64;
use origin::Origins;
use program::Program;
use sites::Sites;
use std::fs;
use std::path::Path;
use table::Table;

/// Options of the verb.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The board, a folder of boards/
    #[arg(long, default_value = "qemu-aarch64")]
    board: String,
    /// List every site, not only those that must not be there
    #[arg(long)]
    sites: bool,
    /// Take what is there as the table from now on
    #[arg(long)]
    bless: bool,
}

impl Options {
    /// The checks of `ci`.
    pub fn of(board: &str) -> Self {
        Self { board: board.to_owned(), sites: false, bless: false }
    }
}

/// Builds the image, finds the sites, holds them against the rules and the checked-in table.
pub fn run(options: &Options) -> Result<()> {
    let image = image::build(&options.board, false)?;
    let root = paths::root()?;
    let found = sites_of(&image.elf, &root)?;
    let list = paths::logs()?.join(format!("panics-{}.txt", options.board));
    fs::write(&list, table::list(&found.sites)).context("the list of sites cannot be written")?;
    if options.sites {
        print!("{}", table::list(&found.sites));
    }
    let file = root.join("boards").join(&options.board).join("panics.txt");
    let now = Table::of(&found);
    print!("{now}");
    println!("calls through registers in the core loop, not followed: {}", found.indirect_in_loop);
    println!("every site with its line: {}", list.display());
    let forbidden = table::forbidden(&found.sites);
    if options.bless {
        fs::write(&file, now.to_string()).with_context(|| format!("{} cannot be written", file.display()))?;
    } else {
        let before = Table::read(&paths::read(&file)?)
            .with_context(|| format!("{} cannot be understood", file.display()))?;
        let more = now.above(&before);
        if !more.is_empty() {
            bail!("more panic sites than {} allows:\n{}", file.display(), more.join("\n"));
        }
        if now != before {
            println!("fewer than {} says: `cargo xtask panics --bless` keeps it so", file.display());
        }
    }
    if !forbidden.is_empty() {
        bail!("{} panic sites where none may be:\n{}", forbidden.len(), table::list(&forbidden));
    }
    Ok(())
}

fn sites_of(elf: &Path, root: &Path) -> Result<Sites> {
    let bytes = fs::read(elf).with_context(|| format!("{} cannot be read", elf.display()))?;
    let elf: ElfFile64<'_> = ElfFile64::parse(&*bytes).context("the image's ELF file cannot be read")?;
    let mut program = Program::read(&elf)?;
    let origins = Origins::read(&elf, root, crates(root)?)?;
    let found = sites::find(&mut program, &origins)?;
    // The boot self-test is there to fail loudly: an analysis that does not see its panic sees nothing.
    if !found.sites.iter().any(|site| site.place.file.ends_with("/src/selftest.rs")) {
        bail!(
            "the panic of the boot self-test was not found: the compiler's panics have changed their names"
        );
    }
    Ok(found)
}

/// The folders of the workspace's crates.
fn crates(root: &Path) -> Result<Vec<String>> {
    let manifest: toml::Table =
        toml::from_str(&paths::read(&root.join("Cargo.toml"))?).context("Cargo.toml")?;
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members"));
    let members = members.and_then(toml::Value::as_array).context("Cargo.toml: no members")?;
    Ok(members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect())
}
