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

/// A folder that is removed with the value. Runs of one checkout at the same time have folders of their own.
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// For sockets: in the system's temporary folder, since a socket's path has at most 107 bytes.
    pub fn for_sockets() -> Result<Self> {
        Ok(Self(created(std::env::temp_dir().join(own_name("penstock")))?))
    }

    /// For drives and other large files: below the checkout. What killed runs have left there goes.
    pub fn for_drives() -> Result<Self> {
        let parent = created(state()?.join("test-drives"))?;
        for entry in std::fs::read_dir(&parent).with_context(|| format!("{}", parent.display()))?.flatten() {
            if is_left_over(&entry.file_name().to_string_lossy()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self(created(parent.join(own_name("run")))?))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file or socket in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed is left to the next run, or to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A name that no other run on this machine uses: `PREFIX-PROCESS-NUMBER`.
pub fn own_name(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only the number's uniqueness matters.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// Whether a name is one of [`own_name`]'s, by a process that runs no more.
pub fn is_left_over(name: &str) -> bool {
    let mut words = name.rsplit('-').skip(1);
    let process = words.next().and_then(|word| word.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_processes_left_is_left_over() {
        assert!(!is_left_over(&own_name("penstock")));
        assert!(is_left_over("penstock-4294967295-0"));
        assert!(!is_left_over("drives"));
        assert!(!is_left_over("boot-gicv3"));
    }

    #[test]
    fn a_temporary_folder_goes_with_its_value() {
        let folder = TemporaryFolder::for_sockets().unwrap();
        let path = folder.path().to_path_buf();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}
