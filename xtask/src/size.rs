//! `cargo xtask size`: text and data of an image against its board's limit, and no allocator inside.

use crate::{board, image};
use anyhow::{Context, Result, bail};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};

/// Symbols that a program with a heap has.
const ALLOCATOR: &str = "__rust_alloc";

/// Builds the board and weighs its image.
pub fn run(name: &str) -> Result<()> {
    let board = board::with_image(name)?;
    let image = image::build(name, false)?;
    let bytes = std::fs::read(&image.elf)?;
    let elf =
        ElfFile64::<object::Endianness>::parse(&*bytes).context("the image's ELF file cannot be read")?;
    let mut total = 0;
    println!("{:24} {:>10}  counted", "section", "bytes");
    for section in elf.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 || section.size() == 0 {
            continue;
        }
        // What is only reserved at run time (bss, stacks) is not part of text and data.
        let counted = section.kind() != SectionKind::UninitializedData;
        total += if counted { section.size() } else { 0 };
        let mark = if counted { "yes" } else { "no" };
        println!("{:24} {:>10}  {mark}", section.name().unwrap_or("?"), section.size());
    }
    let limit = board.image.as_ref().map_or(0, |image| image.limit_bytes);
    println!("{:24} {total:>10}  of {limit}", "text and data");
    if let Some(symbol) =
        elf.symbols().find(|symbol| symbol.name().is_ok_and(|name| name.contains(ALLOCATOR)))
    {
        bail!("the image has an allocator: {}", symbol.name().unwrap_or(ALLOCATOR));
    }
    println!("no {ALLOCATOR}");
    if total > limit {
        bail!("text and data are {} bytes above the limit of {limit}", total - limit);
    }
    Ok(())
}
