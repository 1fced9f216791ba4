//! A Linux virtual machine from the system's own packages, unpacked into a cache folder.
//!
//! Neither root nor the machine's package database is needed: apt runs on a state of its own.

pub mod addition;

use crate::apt::PrivateApt;
use crate::command::{Step, note};
use crate::cpio::Archive;
use crate::linux::script::GUEST;
use crate::paths;
use anyhow::{Context, Result, anyhow, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, EM_AARCH64, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `qemu/guests/*/guest.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// Debian's name for it, where it is not the machine's own.
    #[serde(default)]
    architecture: Option<String>,
    kernel: Vec<String>,
    packages: Vec<String>,
    programs: Vec<String>,
    libraries: Vec<String>,
    files: Vec<String>,
    modules: Vec<String>,
}

/// A guest that can be started.
pub struct Guest {
    /// The kernel's image.
    pub kernel: PathBuf,
    /// Its first file system; archives that are appended add files.
    pub initramfs: Vec<u8>,
}

/// Why this machine cannot make the guest; none where it can.
pub fn obstacle() -> Option<String> {
    if !crate::apt::present() {
        return Some(
            "the Linux host is made of Debian or Ubuntu packages, and this machine has no apt".to_owned(),
        );
    }
    let other = std::env::consts::ARCH != "x86_64";
    other.then(|| {
        format!("the recipe of the Linux host is for x86_64, this machine is {}", std::env::consts::ARCH)
    })
}

/// Downloads and unpacks what the recipe names, unless it is there, and packs the first file system.
pub fn prepare(name: &str) -> Result<Guest> {
    let (recipe, tree) = unpacked(name)?;
    let init = std::fs::read(folder(name)?.join("init"))?;
    pack(&recipe, &tree, &init)
}

fn folder(name: &str) -> Result<PathBuf> {
    Ok(paths::root()?.join("qemu/guests").join(name))
}

/// A guest's recipe, and the tree of its packages, which is made where it is missing.
fn unpacked(name: &str) -> Result<(Recipe, PathBuf)> {
    let text = paths::read(&folder(name)?.join("guest.toml"))?;
    let recipe: Recipe = toml::from_str(&text).with_context(|| format!("the recipe of {name}"))?;
    let cache = paths::created(paths::cache()?.join(format!("{name}-{:016x}", fingerprint(&text))))?;
    let tree = cache.join("root");
    let complete = cache.join("complete");
    if !complete.is_file() {
        note(&format!(
            "unpacking the packages of {name} into {}; the machine itself stays as it is",
            cache.display()
        ));
        download(&recipe, &cache)?;
        // What has to run here is of this machine's architecture.
        let tools = if recipe.architecture.is_some() { unpacked(GUEST)?.1 } else { tree.clone() };
        unpack(&cache, &tree, &tools)?;
        std::fs::write(&complete, "")?;
    }
    Ok((recipe, tree))
}

/// FNV-1a: tells recipes apart.
fn fingerprint(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn download(recipe: &Recipe, cache: &Path) -> Result<()> {
    let apt = PrivateApt::new(cache, recipe.architecture.as_deref())?;
    apt.update()?;
    let kernel = apt.kernel(&recipe.kernel)?;
    note(&format!("kernel: {}", kernel.join(" ")));
    apt.download_closure(&recipe.packages)?;
    apt.download(&kernel)
}

/// Unpacks all packages of a cache.
fn unpack_packages(cache: &Path, tree: &Path) -> Result<()> {
    let mut script = String::from("set -e\n");
    for package in files_below(&cache.join("packages"))?.iter().filter(|file| has_extension(file, "deb")) {
        script.push_str(&format!("dpkg -x '{}' '{}'\n", package.display(), tree.display()));
    }
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    Step::new("unpacking packages", command, 300).run()
}

/// Unpacks into `tree`; `tools` is the tree with the programs for it.
fn unpack(cache: &Path, tree: &Path, tools: &Path) -> Result<()> {
    unpack_packages(cache, &paths::created(tree.to_path_buf())?)?;
    let modules = tree.join("lib/modules");
    if !modules.exists() && tree.join("usr/lib/modules").exists() {
        paths::created(tree.join("lib"))?;
        std::os::unix::fs::symlink("../usr/lib/modules", &modules)?;
    }
    let version = kernel_version(tree)?;
    let libraries = Libraries::index(tools)?;
    let mut command = Command::new(libraries.file("ld-linux-x86-64.so.2")?);
    let search: Vec<String> = libraries.folders.iter().map(|folder| folder.display().to_string()).collect();
    command.args(["--argv0", "depmod", "--library-path", &search.join(":")]);
    command.arg(program(tools, "kmod")?).arg("-b").arg(tree).arg(&version);
    Step::new("depmod", command, 120).run()
}

fn kernel_version(tree: &Path) -> Result<String> {
    let entries = std::fs::read_dir(tree.join("lib/modules")).context("the kernel package has no modules")?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.max().context("the kernel package has no modules")
}

/// Packs programs, their libraries, modules and `init`.
fn pack(recipe: &Recipe, tree: &Path, init: &[u8]) -> Result<Guest> {
    let version = kernel_version(tree)?;
    let kernel = tree.join(format!("boot/vmlinuz-{version}"));
    if !kernel.is_file() {
        bail!("{} is missing: remove {} and repeat", kernel.display(), tree.display());
    }
    let libraries = Libraries::index(tree)?;
    let mut archive = Archive::new();
    for folder in ["bin", "lib", "lib64", "dev", "etc", "etc/nvme", "test", "usr"] {
        archive.folder(folder);
    }
    archive.link("sbin", "bin");
    archive.link("usr/bin", "../bin");
    archive.link("usr/sbin", "../bin");
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.file("init", init);
    archive
        .file("etc/nvme/hostnqn", b"nqn.2014-08.org.nvmexpress:uuid:6f1a6d0e-3a0c-4d6b-9d53-0a8c5c9b7e11\n");
    archive.file("etc/nvme/hostid", b"6f1a6d0e-3a0c-4d6b-9d53-0a8c5c9b7e11\n");
    archive.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", b"root:x:0:\n");
    let mut needed: VecDeque<String> = recipe.libraries.iter().cloned().collect();
    for name in &recipe.programs {
        let data = std::fs::read(program(tree, name)?)?;
        needed.extend(needed_libraries(&data)?);
        archive.file(&format!("bin/{name}"), &data);
    }
    for tool in ["modprobe", "insmod", "lsmod"] {
        archive.link(&format!("bin/{tool}"), "kmod");
    }
    for name in &recipe.files {
        archive.parents(name);
        archive
            .file(name, &std::fs::read(tree.join(name)).with_context(|| format!("no package has {name}"))?);
    }
    let mut packed = BTreeSet::new();
    while let Some(name) = needed.pop_front() {
        if !packed.insert(name.clone()) {
            continue;
        }
        let data = std::fs::read(libraries.file(&name)?)?;
        needed.extend(needed_libraries(&data)?);
        let folder = if name.starts_with("ld-linux-x86") { "lib64" } else { "lib" };
        archive.file(&format!("{folder}/{name}"), &data);
    }
    pack_modules(&mut archive, recipe, &tree.join("lib/modules").join(&version), &version)?;
    Ok(Guest { kernel, initramfs: archive.finish() })
}

/// Packs the modules, what they depend on, and the tables of modprobe.
fn pack_modules(archive: &mut Archive, recipe: &Recipe, folder: &Path, version: &str) -> Result<()> {
    let table = paths::read(&folder.join("modules.dep"))?;
    let mut paths_by_name = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    for line in table.lines() {
        let Some((path, needs)) = line.split_once(':') else { continue };
        paths_by_name.insert(module_name(path), path);
        dependencies.insert(path, needs.split_whitespace().collect::<Vec<_>>());
    }
    let mut wanted = BTreeSet::new();
    for name in &recipe.modules {
        if let Some(path) = paths_by_name.get(&name.replace('-', "_")) {
            wanted.insert(*path);
            wanted.extend(dependencies.get(path).into_iter().flatten());
        }
    }
    let place = |path: &str| format!("lib/modules/{version}/{path}");
    for path in wanted {
        archive.parents(&place(path));
        archive.file(&place(path), &std::fs::read(folder.join(path))?);
    }
    for file in files_below(folder)?.iter().filter(|file| file.parent() == Some(folder)) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("modules.") {
            archive.file(&place(&name), &std::fs::read(file)?);
        }
    }
    Ok(())
}

/// A module's name as the kernel spells it: without folders and extensions, underscores for hyphens.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn program(tree: &Path, name: &str) -> Result<PathBuf> {
    let folders = ["bin", "sbin", "usr/bin", "usr/sbin"];
    let found = folders.iter().map(|folder| tree.join(folder).join(name)).find(|file| file.is_file());
    found.with_context(|| format!("no package of the recipe has the program {name}"))
}

/// The shared libraries of an unpacked tree.
struct Libraries {
    files: BTreeMap<String, PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Libraries {
    fn index(tree: &Path) -> Result<Self> {
        let (mut files, mut folders) = (BTreeMap::new(), BTreeSet::new());
        for folder in ["lib", "lib64", "usr/lib", "usr/lib64"].map(|folder| tree.join(folder)) {
            if folder.is_symlink() || !folder.is_dir() {
                continue;
            }
            for file in files_below(&folder)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // A link may point to an absolute place, which is not in the tree.
                if name.contains(".so") && std::fs::metadata(&file).is_ok_and(|data| data.is_file()) {
                    folders.extend(file.parent().map(Path::to_path_buf));
                    let inside = file.canonicalize().is_ok_and(|real| real.starts_with(tree));
                    if inside {
                        files.insert(name, file);
                    }
                }
            }
        }
        Ok(Self { files, folders })
    }

    fn file(&self, name: &str) -> Result<&Path> {
        self.files
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("no package has the library {name}"))
    }
}

/// Names of the libraries that an ELF file needs, its interpreter among them by glibc's own entry.
fn needed_libraries(data: &[u8]) -> Result<Vec<String>> {
    let damaged = |error: object::Error| anyhow!("not a readable ELF file: {error}");
    let header = FileHeader64::<Endianness>::parse(data).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    let sections = header.sections(endian, data).map_err(damaged)?;
    let Some((entries, link)) = sections.dynamic(endian, data).map_err(damaged)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, data, link).map_err(damaged)?;
    let mut names = Vec::new();
    for entry in entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED)) {
        names.push(String::from_utf8_lossy(entry.string(endian, strings).map_err(damaged)?).into_owned());
    }
    if !names.is_empty() {
        let arm = header.e_machine(endian) == EM_AARCH64;
        names.push(if arm { "ld-linux-aarch64.so.1" } else { "ld-linux-x86-64.so.2" }.to_owned());
    }
    Ok(names)
}

/// All files below a folder, links not followed into folders, sorted.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_the_kernels() {
        assert_eq!(module_name("kernel/drivers/nvme/host/nvme-tcp.ko.xz"), "nvme_tcp");
        assert_eq!(module_name("kernel/fs/xfs/xfs.ko"), "xfs");
    }
}
