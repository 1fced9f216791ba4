//! What a scenario adds to the Linux host: programs and folders of packages, a folder of a package's source, and files of
//! `qemu/guests/NAME`. Fetched as the host's own packages are; nothing of it stands in this repository.

use super::{Libraries, files_below, fingerprint, needed_libraries, program, unpack_packages};
use crate::apt::PrivateApt;
use crate::command::{Step, note};
use crate::cpio::Archive;
use crate::paths;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

/// File of an addition that says what it is.
const RECIPE: &str = "addition.toml";

/// `qemu/guests/NAME/addition.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    packages: Vec<String>,
    programs: Vec<String>,
    /// Folders of the packages; a last `*` stands for any rest of the name.
    folders: Vec<String>,
    /// Names of folders and files below them that are left out.
    without: Vec<String>,
    source: Source,
}

/// A folder of the source of one of the packages, in the same version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    package: String,
    folder: String,
}

/// Downloads and unpacks what the addition names, unless it is there, and packs it: an archive that follows the host's. What
/// is not of packages is in the folder `/NAME`.
pub fn prepare(name: &str) -> Result<Vec<u8>> {
    let folder = paths::root()?.join("qemu/guests").join(name);
    let text = paths::read(&folder.join(RECIPE))?;
    let recipe: Recipe = toml::from_str(&text).with_context(|| format!("the recipe of {name}"))?;
    let cache = paths::created(paths::cache()?.join(format!("{name}-{:016x}", fingerprint(&text))))?;
    let complete = cache.join("complete");
    if !complete.is_file() {
        note(&format!("unpacking the packages of {name} into {}", cache.display()));
        fetch(&recipe, &cache)?;
        std::fs::write(&complete, "")?;
    }
    pack(&recipe, &cache, name, &folder)
}

fn fetch(recipe: &Recipe, cache: &Path) -> Result<()> {
    let apt = PrivateApt::new(cache, None)?;
    apt.add_sources()?;
    apt.update()?;
    apt.download_closure(&recipe.packages)?;
    let source = &recipe.source.package;
    let packages = files_below(&cache.join("packages"))?;
    let names = packages.iter().filter_map(|file| file.file_name()?.to_str());
    let version = names.filter_map(|file| version_in(file, source)).next();
    let version = version.with_context(|| format!("{source} is not among the packages"))?;
    let archive = apt.download_source(source, &version)?;
    unpack_packages(cache, &paths::created(cache.join("root"))?)?;
    let into = paths::created(cache.join("source"))?;
    let mut command = Command::new("tar");
    command.arg("-xf").arg(archive).arg("-C").arg(into);
    command.args(["--strip-components=1", "--wildcards", &format!("*/{}/*", recipe.source.folder)]);
    Step::new("unpacking the source", command, 60).run()
}

/// The version of the source that a package's file was built from: `name_VERSION_architecture.deb`.
fn version_in(file: &str, package: &str) -> Option<String> {
    let (version, _) = file.strip_prefix(package)?.strip_prefix('_')?.split_once('_')?;
    let version = version.replace("%3a", ":");
    // What was only built again has the source of what it was built from.
    let built_again =
        version.rsplit_once("+b").filter(|(_, count)| count.chars().all(|c| c.is_ascii_digit()));
    Some(built_again.map_or(version.as_str(), |(source, _)| source).to_owned())
}

fn pack(recipe: &Recipe, cache: &Path, name: &str, own: &Path) -> Result<Vec<u8>> {
    let tree = cache.join("root");
    let libraries = Libraries::index(&tree)?;
    let mut archive = Archive::new();
    let mut needed = VecDeque::new();
    for name in &recipe.programs {
        let data = std::fs::read(program(&tree, name)?)?;
        needed.extend(needed_libraries(&data)?);
        archive.file(&format!("bin/{name}"), &data);
    }
    let mut packed = BTreeSet::new();
    while let Some(name) = needed.pop_front() {
        if packed.insert(name.clone()) {
            let data = std::fs::read(libraries.file(&name)?)?;
            needed.extend(needed_libraries(&data)?);
            let folder = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
            archive.file(&format!("{folder}/{name}"), &data);
        }
    }
    for pattern in &recipe.folders {
        let start = pattern.trim_end_matches('*');
        let matches =
            |place: &str| place.starts_with(start) && (start != pattern || place.len() == start.len());
        let parent = tree.join(Path::new(start).parent().unwrap_or(Path::new("")));
        for entry in std::fs::read_dir(&parent).with_context(|| format!("no package has {pattern}"))? {
            let path = entry?.path();
            let place = path.strip_prefix(&tree)?.to_string_lossy().into_owned();
            if path.is_dir() && matches(&place) {
                pack_folder(&mut archive, &path, &place, &recipe.without)?;
            }
        }
    }
    let source = cache.join("source").join(&recipe.source.folder);
    pack_folder(&mut archive, &source, &format!("{name}/{}", recipe.source.folder), &recipe.without)?;
    pack_folder(&mut archive, own, name, &[RECIPE.to_owned()])?;
    Ok(archive.finish())
}

/// Packs the files below a folder, links left out.
fn pack_folder(archive: &mut Archive, folder: &Path, place: &str, without: &[String]) -> Result<()> {
    let mut above = BTreeSet::new();
    for file in files_below(folder)?.iter().filter(|file| !file.is_symlink()) {
        let inside = file.strip_prefix(folder)?;
        if inside.iter().any(|part| without.iter().any(|name| part == name.as_str())) {
            continue;
        }
        let name = format!("{place}/{}", inside.display());
        if above.insert(inside.parent().map(Path::to_path_buf)) {
            archive.parents(&name);
        }
        archive.file(&name, &std::fs::read(file)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_source_is_in_the_name_of_the_package() {
        let version = |file| version_in(file, "nvme-cli");
        assert_eq!(version("nvme-cli_2.4+really2.3-3_amd64.deb").unwrap(), "2.4+really2.3-3");
        assert_eq!(version("nvme-cli_1%3a2.13-1+b2_amd64.deb").unwrap(), "1:2.13-1");
        assert_eq!(version("nvme-cli-extra_2.13-1_amd64.deb"), None);
        assert_eq!(version("libnvme1_1.3-1_amd64.deb"), None);
    }

    #[test]
    fn the_recipes_of_all_additions_are_read() {
        for entry in std::fs::read_dir(paths::root().unwrap().join("qemu/guests")).unwrap() {
            let recipe = entry.unwrap().path().join(RECIPE);
            if recipe.is_file() {
                let text = paths::read(&recipe).unwrap();
                toml::from_str::<Recipe>(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", recipe.display()));
            }
        }
    }
}
