//! Where things are: the checkout, cargo's output, the state of `run` and `test`, the download cache.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The root of the checkout: the nearest folder, from the package upwards, with a workspace manifest.
pub fn root() -> Result<PathBuf> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => std::env::current_dir().context("the current folder cannot be read")?,
    };
    for folder in start.ancestors() {
        let manifest = folder.join("Cargo.toml");
        if std::fs::read_to_string(&manifest).is_ok_and(|text| text.contains("[workspace]")) {
            return Ok(folder.to_path_buf());
        }
    }
    bail!("no workspace above {}: call `cargo xtask` inside the checkout", start.display())
}

/// Cargo's output folder.
pub fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => Ok(std::path::absolute(directory)?),
        None => Ok(root()?.join("target")),
    }
}

/// What `run` and `test` leave behind: drives and logs. Ignored by git.
pub fn state() -> Result<PathBuf> {
    created(root()?.join(".penstock"))
}

/// Logs of the last run of each step.
pub fn logs() -> Result<PathBuf> {
    created(state()?.join("logs"))
}

/// Downloads, shared by all checkouts: `PENSTOCK_CACHE`, or `penstock` in the user's cache folder.
pub fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = match (variable("PENSTOCK_CACHE"), variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(folder), _, _) => folder,
        (None, Some(cache), _) => cache.join("penstock"),
        (None, None, Some(home)) => home.join(".cache").join("penstock"),
        (None, None, None) => state()?.join("cache"),
    };
    created(folder)
}

/// The folder, after it has been made where it was missing.
pub fn created(folder: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    Ok(folder)
}

/// The file's text, or an error that names the file.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// The program's place in `PATH` (and in the system folders, which a user's `PATH` may lack).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A folder for sockets that is removed with the value; short, since a socket's path has at most 107 bytes.
pub struct SocketFolder(PathBuf);

impl SocketFolder {
    /// Makes a new folder in the system's temporary folder.
    pub fn new() -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the number's uniqueness matters.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("penstock-{}-{number}", std::process::id());
        Ok(Self(created(std::env::temp_dir().join(name))?))
    }

    /// The path of a socket in it.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
