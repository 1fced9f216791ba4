//! Debian's package manager: what is installed, which suite has what, and Debian 12's backports.

use crate::command::{Step, note, output, typed};
use crate::paths::{self, find_program};
use anyhow::{Context, Result, bail};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where apt keeps its sources.
const SOURCES: &str = "/etc/apt";

/// Whether this machine has apt.
pub fn present() -> bool {
    find_program("apt-get").is_some() && find_program("dpkg").is_some()
}

/// A version that some suite offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Debian version, epoch included.
    pub version: String,
    /// Name of the suite, such as `bookworm-backports`.
    pub suite: String,
}

/// Versions on offer, the best first.
pub fn offers(package: &str) -> Result<Vec<Offer>> {
    let text = output(Command::new("apt-cache").args(["madison", package]), 60)?;
    Ok(text.lines().filter_map(parse_offer).collect())
}

fn parse_offer(line: &str) -> Option<Offer> {
    let mut columns = line.split('|').map(str::trim);
    let (_package, version, origin) = (columns.next()?, columns.next()?, columns.next()?);
    let suite = origin.split_whitespace().nth(1)?.split('/').next()?;
    (!origin.ends_with("Sources")).then(|| Offer { version: version.to_owned(), suite: suite.to_owned() })
}

/// Major and minor number of a Debian version such as `1:10.0.2+ds-2`.
pub fn upstream(version: &str) -> Option<(u32, u32)> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Fetches the package lists.
pub fn update() -> Result<()> {
    let mut arguments = vec!["apt-get"];
    arguments.extend(["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2", "update"]);
    Step::new("apt-get update", privileged(&arguments)?, 180).run().context(
        "the package lists cannot be fetched: check the network and the entries in /etc/apt/sources.list.d",
    )
}

/// Installs packages, from the named suite where one is given; fetches the package lists where that fails without.
pub fn install(packages: &[&str], suite: Option<&str>) -> Result<()> {
    if !permitted() {
        // Its error says what to run.
        return install_as_listed(packages, suite);
    }
    let Err(error) = install_as_listed(packages, suite) else { return Ok(()) };
    // Lists that are empty, or older than the archive, name files that are not there.
    note(&format!("{error:#}"));
    update()?;
    install_as_listed(packages, suite)
}

/// Installs packages. Says what it does first.
fn install_as_listed(packages: &[&str], suite: Option<&str>) -> Result<()> {
    let mut arguments = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    arguments.extend(["-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends"]);
    if let Some(suite) = suite {
        arguments.extend(["-t", suite]);
    }
    arguments.extend(packages);
    let command = privileged(&arguments)?;
    note(&format!("installing on this machine: {}", typed(&command)));
    Step::new(format!("apt-get install {}", packages.join(" ")), command, 900).run()
}

/// Whether packages can be installed: as root, or by sudo, which may ask for a password once at a terminal.
pub fn permitted() -> bool {
    let Some(sudo) = find_program("sudo") else { return nix::unistd::geteuid().is_root() };
    let quiet = || output(Command::new(&sudo).args(["-n", "true"]), 10).is_ok();
    if nix::unistd::geteuid().is_root() || quiet() {
        return true;
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    note("installing needs root: sudo asks for your password");
    // In our own process group: no other one may read from the terminal.
    Command::new(&sudo).arg("-v").status().is_ok_and(|status| status.success())
}

/// The command as root: as it is, or by sudo without a question; else an error with the exact command.
fn privileged(arguments: &[&str]) -> Result<Command> {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]);
        return Ok(command);
    }
    let sudo = find_program("sudo");
    if let Some(sudo) = sudo.filter(|sudo| output(Command::new(sudo).args(["-n", "true"]), 10).is_ok()) {
        let mut command = Command::new(sudo);
        command.arg("-n").args(arguments);
        return Ok(command);
    }
    bail!(
        "this needs root, and sudo is missing or asks for a password. Run:\n    sudo {}",
        arguments.join(" ")
    )
}

/// Value of a field in /etc/os-release.
fn os_release(field: &str) -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// A new entry of apt's sources, written into a folder of ours and still to be put in its place.
pub struct NewEntry {
    /// The suite that it adds.
    pub suite: String,
    /// Where it is now.
    pub file: PathBuf,
    /// Where apt reads it.
    pub place: String,
}

/// Enables Debian 12's backports by a copy of the machine's own entry. False where that is not the system.
pub fn enable_backports() -> Result<bool> {
    let Some(entry) = backports()? else { return Ok(false) };
    note(&format!("Debian 12's own QEMU is too old: adding {} to apt, as {}", entry.suite, entry.place));
    let source = entry.file.to_string_lossy().into_owned();
    let command = privileged(&["install", "-m", "644", &source, &entry.place])?;
    Step::new(format!("add {} to apt", entry.suite), command, 30).run()?;
    Ok(true)
}

/// The entry that enables Debian 12's backports; none on another system.
pub fn backports() -> Result<Option<NewEntry>> {
    let release = os_release("VERSION_CODENAME");
    if os_release("ID") != "debian" || release != "bookworm" {
        return Ok(None);
    }
    let suite = format!("{release}-backports");
    let Some((name, text)) = backports_entry(Path::new(SOURCES), &release)? else {
        bail!("no entry for {release} in {SOURCES}: add one for {suite} and repeat");
    };
    let place = format!("{SOURCES}/sources.list.d/{name}");
    let file = paths::state()?.join(name);
    std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(Some(NewEntry { suite, file, place }))
}

/// File name and text of a new entry: the first existing one for the release, with the suite changed.
fn backports_entry(apt: &Path, release: &str) -> Result<Option<(&'static str, String)>> {
    let mut files: Vec<PathBuf> = vec![apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => {
                if let Some(line) = text.lines().find_map(|line| copied_line(line, release)) {
                    return Ok(Some(("penstock-backports.list", line)));
                }
            }
            Some("sources") => {
                if let Some(stanza) = text.split("\n\n").find_map(|stanza| copied_stanza(stanza, release)) {
                    return Ok(Some(("penstock-backports.sources", stanza)));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A one-line entry `deb [options] URI suite component…` for the release, turned towards its backports.
fn copied_line(line: &str, release: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.first() != Some(&"deb") {
        return None;
    }
    let place = words.iter().position(|word| *word == release)?;
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    words[place] = format!("{release}-backports");
    words.truncate(place + 1);
    words.push("main".to_owned());
    Some(words.join(" ") + "\n")
}

/// Whether a line of a deb822 entry is that field.
fn field(line: &str, name: &str) -> bool {
    line.to_ascii_lowercase().starts_with(&format!("{name}:"))
}

/// Whether a deb822 entry is for packages of the release.
fn has_packages(stanza: &str, release: &str) -> bool {
    let words = |name| stanza.lines().filter(move |line| field(line, name)).flat_map(str::split_whitespace);
    let disabled = stanza.lines().any(|line| field(line, "enabled") && line.trim_end().ends_with("no"));
    !disabled && words("types").any(|word| word == "deb") && words("suites").any(|word| word == release)
}

/// An entry for the sources of what a file of apt's sources has packages of, of the release alone.
fn source_entries(text: &str, release: &str, deb822: bool) -> String {
    if !deb822 {
        let lines = text.lines().filter(|line| copied_line(line, release).is_some());
        return lines.map(|line| line.replacen("deb", "deb-src", 1) + "\n").collect();
    }
    let stanzas = text.split("\n\n").filter(|stanza| has_packages(stanza, release));
    let turned = |line| if field(line, "types") { "Types: deb-src" } else { line };
    stanzas
        .flat_map(|stanza| stanza.lines().map(turned).chain([""]))
        .map(|line| line.to_owned() + "\n")
        .collect()
}

/// A deb822 entry for the release, turned towards its backports.
fn copied_stanza(stanza: &str, release: &str) -> Option<String> {
    if !has_packages(stanza, release) {
        return None;
    }
    let mut copy = String::new();
    for line in stanza.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match line {
            line if field(line, "suites") => copy.push_str(&format!("Suites: {release}-backports")),
            line if field(line, "components") => copy.push_str("Components: main"),
            line if field(line, "types") => copy.push_str("Types: deb"),
            line => copy.push_str(line),
        }
        copy.push('\n');
    }
    Some(copy)
}

/// An apt with lists, packages and sources in a folder of its own: no root, and the machine stays as it is.
pub struct PrivateApt {
    folder: PathBuf,
    /// Debian's name for that of the packages, where it is not the machine's own.
    architecture: Option<String>,
}

impl PrivateApt {
    /// Copies the machine's sources; on Debian 12, whose own kernel is old, adds its backports.
    pub fn new(folder: &Path, architecture: Option<&str>) -> Result<Self> {
        let sources = folder.join("sources.list.d");
        // Left-overs of an attempt that failed.
        let _ = std::fs::remove_dir_all(&sources);
        for sub in ["sources.list.d", "lists/partial", "packages/partial", "cache"] {
            paths::created(folder.join(sub))?;
        }
        std::fs::write(folder.join("status"), "")?;
        let machine = Path::new(SOURCES);
        std::fs::write(
            folder.join("sources.list"),
            std::fs::read(machine.join("sources.list")).unwrap_or_default(),
        )?;
        let mut all = std::fs::read_to_string(machine.join("sources.list")).unwrap_or_default();
        for entry in std::fs::read_dir(machine.join("sources.list.d")).into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            std::fs::write(sources.join(entry.file_name()), &text)?;
            all.push_str(&text);
        }
        let release = os_release("VERSION_CODENAME");
        let lacking =
            release == "bookworm" && os_release("ID") == "debian" && !all.contains("bookworm-backports");
        if lacking && let Some((name, text)) = backports_entry(machine, &release)? {
            std::fs::write(sources.join(name), text)?;
        }
        Ok(Self { folder: folder.to_path_buf(), architecture: architecture.map(str::to_owned) })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let places = [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "sources.list.d"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::State::extended_states", "extended_states"),
            ("Dir::Cache", "cache"),
            ("Dir::Cache::archives", "packages"),
        ];
        for (name, place) in places {
            command.args(["-o", &format!("{name}={}", self.folder.join(place).display())]);
        }
        // Downloads go into the user's own folder, where apt's own user may not write.
        command.args([
            "-o",
            "APT::Sandbox::User=",
            "-o",
            "APT::Install-Recommends=0",
            "-o",
            "Debug::NoLocking=1",
        ]);
        if let Some(architecture) = &self.architecture {
            for name in ["APT::Architecture", "APT::Architectures::"] {
                command.args(["-o", &format!("{name}={architecture}")]);
            }
        }
        command.args(["-o", "Acquire::Retries=2", "-o", "Acquire::Languages=none"]);
        command.args(arguments).current_dir(self.folder.join("packages"));
        command
    }

    /// Adds entries for the sources of packages, which a machine need not have.
    pub fn add_sources(&self) -> Result<()> {
        let release = os_release("VERSION_CODENAME");
        let list = paths::read(&self.folder.join("sources.list")).unwrap_or_default();
        let lists = self.folder.join("sources.list.d");
        let (mut lines, mut stanzas) = (source_entries(&list, &release, false), String::new());
        for entry in std::fs::read_dir(&lists)?.flatten() {
            let text = paths::read(&entry.path())?;
            match entry.path().extension().and_then(|extension| extension.to_str()) {
                Some("list") => lines.push_str(&source_entries(&text, &release, false)),
                Some("sources") => stanzas.push_str(&source_entries(&text, &release, true)),
                _ => {}
            }
        }
        std::fs::write(lists.join("source.list"), lines)?;
        Ok(std::fs::write(lists.join("source.sources"), stanzas)?)
    }

    /// Downloads the source of a package in exactly that version; returns its archive as its authors have made it.
    pub fn download_source(&self, package: &str, version: &str) -> Result<PathBuf> {
        let exact = format!("{package}={version}");
        let command = self.command("apt-get", &["source", "--download-only", &exact]);
        Step::new(format!("downloading the source of {exact}"), command, 300).run()?;
        let archive = std::fs::read_dir(self.folder.join("packages"))?.flatten().find(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_")) && name.contains(".orig.tar.") && !name.ends_with(".asc")
        });
        archive.map(|entry| entry.path()).with_context(|| format!("the source of {exact} has no archive"))
    }

    /// Fetches the package lists into the folder.
    pub fn update(&self) -> Result<()> {
        Step::new("fetching package lists", self.command("apt-get", &["update"]), 180).run()
    }

    /// The packages of the newest kernel that one of the meta packages stands for, modules included.
    pub fn kernel(&self, metas: &[String]) -> Result<Vec<String>> {
        for meta in metas {
            let text = output(&mut self.command("apt-cache", &["madison", meta]), 60).unwrap_or_default();
            let Some(offer) = text.lines().find_map(parse_offer) else { continue };
            let exact = format!("{meta}={}", offer.version);
            let about = output(&mut self.command("apt-cache", &["show", &exact]), 60)?;
            let depends = about.lines().find_map(|line| line.strip_prefix("Depends:")).unwrap_or_default();
            let mut words = depends.split([',', ' ', '|']).map(str::trim);
            let Some(image) = words.find(|word| word.starts_with("linux-image-")) else { continue };
            let version = image.trim_start_matches("linux-image-").trim_start_matches("unsigned-").to_owned();
            let mut packages = vec![image.to_owned()];
            for part in ["linux-modules", "linux-modules-extra"] {
                let name = format!("{part}-{version}");
                let known = output(&mut self.command("apt-cache", &["show", &name]), 60);
                if known.is_ok_and(|text| !text.is_empty()) {
                    packages.push(name);
                }
            }
            return Ok(packages);
        }
        bail!("no kernel among this system's packages: looked for {}", metas.join(", "))
    }

    /// Downloads these packages alone.
    pub fn download(&self, packages: &[String]) -> Result<()> {
        let mut arguments = vec!["download"];
        arguments.extend(packages.iter().map(String::as_str));
        Step::new("downloading the kernel", self.command("apt-get", &arguments), 600).run()
    }

    /// Downloads these packages and all that they depend on.
    pub fn download_closure(&self, packages: &[String]) -> Result<()> {
        let mut arguments = vec!["install", "--download-only", "-y"];
        arguments.extend(packages.iter().map(String::as_str));
        Step::new("downloading packages", self.command("apt-get", &arguments), 600).run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read_from_apt_cache_madison() {
        let line =
            "qemu-system-arm | 1:10.0.2+ds-2 | http://mirror/debian bookworm-backports/main amd64 Packages";
        let offer = parse_offer(line).unwrap();
        assert_eq!(offer.suite, "bookworm-backports");
        assert_eq!(upstream(&offer.version), Some((10, 0)));
        assert_eq!(upstream("1:7.2+dfsg-7"), Some((7, 2)));
        assert_eq!(parse_offer("qemu | 1:7.2 | http://mirror/debian bookworm/main Sources"), None);
    }

    #[test]
    fn a_classic_entry_is_copied_with_its_options() {
        let line = "deb [signed-by=/k.gpg] http://mirror/debian bookworm main contrib";
        let copy = copied_line(line, "bookworm").unwrap();
        assert_eq!(copy, "deb [signed-by=/k.gpg] http://mirror/debian bookworm-backports main\n");
        assert_eq!(copied_line("deb http://mirror/security bookworm-security main", "bookworm"), None);
        assert_eq!(copied_line("# deb http://mirror/debian bookworm main", "bookworm"), None);
    }

    #[test]
    fn entries_for_sources_are_made_of_those_for_packages_of_the_release() {
        let stanza =
            "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        let other = "Types: deb\nURIs: http://other\nSuites: nodistro\nComponents: main\n";
        let entries = source_entries(&format!("{stanza}\n{other}"), "bookworm", true);
        assert_eq!(
            entries,
            stanza.replace("deb\n", "deb-src\n").replace("mirror/deb-src", "mirror/debian") + "\n"
        );
        let lines =
            "deb [signed-by=/k.gpg] http://mirror/debian bookworm main\ndeb http://other nodistro main\n";
        let expected = "deb-src [signed-by=/k.gpg] http://mirror/debian bookworm main\n";
        assert_eq!(source_entries(lines, "bookworm", false), expected);
    }

    #[test]
    fn a_deb822_entry_is_copied_with_its_key() {
        let stanza = "Types: deb deb-src\n# a snapshot\nURIs: http://mirror/debian\n\
                      Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /k.gpg\n";
        let copy = copied_stanza(stanza, "bookworm").unwrap();
        let expected = "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm-backports\n\
                        Components: main\nSigned-By: /k.gpg\n";
        assert_eq!(copy, expected);
        assert_eq!(copied_stanza(&stanza.replace("Suites: bookworm ", "Suites: trixie "), "bookworm"), None);
    }
}
