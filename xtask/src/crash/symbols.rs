//! Addresses to functions, files and lines, from the debug information of the image's ELF file.

use anyhow::{Context, Result, anyhow};
use object::Object;
use std::path::Path;

/// A function that an address is in; inlined ones come before the one that they are inlined in.
pub struct Frame {
    /// Its name.
    pub function: String,
    /// File and line.
    pub place: Option<String>,
}

/// The debug information of one file.
pub struct Symbols(addr2line::Loader);

impl Symbols {
    /// Reads the file; also its build id, empty where it has none.
    pub fn open(elf: &Path) -> Result<(Vec<u8>, Self)> {
        let bytes = std::fs::read(elf).with_context(|| format!("{} cannot be read", elf.display()))?;
        let file =
            object::File::parse(&*bytes).with_context(|| format!("{} is no ELF file", elf.display()))?;
        let build_id = file.build_id()?.unwrap_or_default().to_vec();
        let loader = addr2line::Loader::new(elf).map_err(|error| anyhow!("{}: {error}", elf.display()))?;
        Ok((build_id, Self(loader)))
    }

    /// The functions at an address, the innermost first.
    pub fn at(&self, address: u64) -> Vec<Frame> {
        let mut found = Vec::new();
        if let Ok(mut frames) = self.0.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|name| Some(name.demangle().ok()?.into_owned()));
                let name = name.or_else(|| self.0.find_symbol(address).map(str::to_owned));
                let place = frame.location.and_then(|place| Some(format!("{}:{}", place.file?, place.line?)));
                found.push(Frame { function: name.unwrap_or_else(|| "?".to_owned()), place });
            }
        }
        if found.is_empty()
            && let Some(name) = self.0.find_symbol(address)
        {
            found.push(Frame { function: name.to_owned(), place: None });
        }
        found
    }
}
