//! Where a piece of machine code was written: the inlined calls that the debug information knows of an address.

use super::location::Memory;
use super::sites::Origin;
use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use anyhow::Result;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Crates whose code acts for its caller: what panics in them is the caller's panic.
const LIBRARIES: [&str; 13] = [
    "core",
    "alloc",
    "std",
    "compiler_builtins",
    "bitflags",
    "byteorder",
    "defmt",
    "hash32",
    "heapless",
    "managed",
    "stable_deref_trait",
    "zerocopy",
    "bit_field",
];

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The crate: a folder of this workspace (`firmware/drive`), or the name of an outside crate.
    pub owner: String,
    /// The file, from the root of the workspace or of the outside crate.
    pub file: String,
    /// The line; 0 where the compiler has joined several.
    pub line: u32,
    /// The function, as written, where it is known.
    pub function: String,
}

/// The debug information of one program.
pub struct Origins<'a> {
    context: Context<Bytes<'a>>,
    memory: Memory<'a>,
    root: PathBuf,
    crates: Vec<String>,
}

impl<'a> Origins<'a> {
    /// Reads the debug information; `crates` are the folders of the workspace's crates.
    pub fn read(elf: &ElfFile64<'a>, root: &Path, crates: Vec<String>) -> Result<Self> {
        let load = |id: SectionId| -> Result<Bytes<'a>> {
            let section = elf.section_by_name(id.name());
            let data = section.map(|section| section.data()).transpose()?.unwrap_or_default();
            Ok(EndianSlice::new(data, LittleEndian))
        };
        let dwarf = Dwarf::load(load)?;
        Ok(Self {
            context: Context::from_dwarf(dwarf)?,
            memory: Memory::of(elf),
            root: root.to_path_buf(),
            crates,
        })
    }

    /// The crate of a source file, and the file inside it.
    fn owner(&self, file: &str) -> (String, String) {
        let inside = Path::new(file).strip_prefix(&self.root).ok().and_then(Path::to_str).unwrap_or(file);
        // The longest folder is the crate: `hal/api/fakes` stands inside `hal/api`.
        let ours = self.crates.iter().filter(|name| inside.starts_with(&format!("{name}/")));
        if let Some(name) = ours.max_by_key(|name| name.len()) {
            return (name.clone(), inside.to_owned());
        }
        let (folder, rest) = match (file.split_once("/library/"), file.split_once("/registry/src/")) {
            (Some((_, rest)), _) => (rest, rest),
            // The registry's own folder comes first.
            (None, Some((_, rest))) => rest.split_once('/').map_or((rest, rest), |(_, rest)| (rest, rest)),
            (None, None) => return ("?".to_owned(), file.to_owned()),
        };
        let name = folder.split('/').next().unwrap_or(folder);
        (without_version(name).to_owned(), rest.to_owned())
    }
}

impl Origin for Origins<'_> {
    fn of(&self, address: u64) -> Result<Option<Place>> {
        let mut frames = self.context.find_frames(address).skip_all_loads()?;
        while let Some(frame) = frames.next()? {
            let function = match &frame.function {
                Some(function) => without_hash(&function.demangle()?),
                None => "?".to_owned(),
            };
            let location = frame.location.as_ref();
            let Some(file) = location.and_then(|location| location.file) else { continue };
            let (owner, file) = self.owner(file);
            if !LIBRARIES.contains(&owner.as_str()) {
                let line = location.and_then(|location| location.line).unwrap_or(0);
                return Ok(Some(Place { owner, file, line, function }));
            }
        }
        Ok(None)
    }

    fn told(&self, run: RangeInclusive<u64>) -> Option<Option<Place>> {
        let (file, line) = self.memory.location(run)?;
        let (owner, file) = self.owner(file);
        let place = Place { owner, file, line, function: String::new() };
        Some(Some(place).filter(|place| !LIBRARIES.contains(&place.owner.as_str())))
    }
}

/// `smoltcp-0.14.0` is smoltcp.
fn without_version(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((crate_name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => crate_name,
        _ => name,
    }
}

/// A demangled name of the old scheme ends with the hash of its crate's build, which says nothing.
fn without_hash(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_hashes_are_left_out() {
        assert_eq!(without_version("smoltcp-0.14.0"), "smoltcp");
        assert_eq!(without_version("byte-slice-2.1.0"), "byte-slice");
        assert_eq!(without_version("core"), "core");
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::h1"), "a::h1");
    }
}
