//! `dpuctl apply`: brings the card to the state that a file declares, and says before what that takes.
//!
//! The whole file is judged first: whatever is wrong with it, or with this card for it, is told at once, and nothing is changed then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Args;
use message::configuration::{
    DriveNamespace, LAST_NSID, MAX_ALLOWED_HOSTS, MAX_SUBSYSTEMS, NamespaceSetting, Nqn, PortAccess,
};
use message::mailbox::Kept;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Failure};
use crate::configure::{self, Access, MODEL, bytes_of_16, fitting};
use crate::declared::{Declared, Subsystem};
use crate::views::{self, digits, uuid};
use crate::{output, survey};

/// Bring the card to the state that a file declares
///
/// Subsystems, and namespaces of drives, that the file does not name are declared no more. Of the default subsystem,
/// of ports and of `automatic` nothing is changed where the file says nothing. `dpuctl configuration` prints such a file.
#[derive(Args, Debug)]
pub struct Options {
    /// The file, in TOML
    file: std::path::PathBuf,
    /// Only say what would be changed
    #[arg(long)]
    dry_run: bool,
}

/// What a file says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Namespaces of which nothing is declared are in the default subsystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    automatic: Option<bool>,
    /// Namespaces of drives that are in no subsystem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    detached: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subsystem: Vec<FileSubsystem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    port: Vec<FilePort>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSubsystem {
    nqn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    any_host: Option<bool>,
    /// Hosts that are allowed by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    namespace: Vec<FileNamespace>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNamespace {
    /// Serial number of a drive, with `:NSID` if it has several namespaces; or the identity of its namespace.
    drive: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nsid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nguid: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePort {
    number: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<bool>,
}

/// What of the card a file is judged by.
struct Card {
    default_nqn: Option<Nqn>,
    namespaces: Vec<views::Namespace>,
    ports: BTreeSet<u16>,
}

/// Applies a file.
pub fn run(options: &Options, client: &mut Client, json: bool) -> Result<String, Failure> {
    let file = read(&options.file)?;
    let card = Card {
        default_nqn: survey::subsystems(client)?.into_iter().find(|of| of.is_default).map(|of| of.nqn),
        namespaces: survey::namespaces(client)?,
        ports: survey::ports(client)?.iter().map(|port| port.number).collect(),
    };
    let wanted = judge(&file, &card).map_err(|reasons| {
        let reasons = reasons.iter().map(|reason| format!("\n  - {reason}")).collect::<String>();
        Failure::Unfit(format!(
            "{} cannot be applied, and nothing was changed:{reasons}",
            options.file.display()
        ))
    })?;
    let changes = survey::declared(client)?.changes_to(&wanted);
    if options.dry_run || changes.is_empty() {
        return Ok(output::applied(&changes, None, json));
    }
    let mut kept = Kept::Stored;
    for (made, change) in changes.iter().enumerate() {
        kept = configure::make(client, change.clone()).map_err(|failure| {
            let (all, change) = (changes.len(), output::change(change));
            match made {
                0 => failure,
                _ => Failure::Partly(
                    format!("{made} of {all} changes were made, and the next was not ({change})"),
                    Box::new(failure),
                ),
            }
        })?;
    }
    Ok(output::applied(&changes, Some(kept), json))
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// What the file declares, or all that is wrong with it.
fn judge(file: &File, card: &Card) -> Result<Declared, Vec<String>> {
    let mut judge = Judge { card, wanted: Declared::default(), reasons: Vec::new() };
    judge.wanted.automatic = file.automatic;
    for subsystem in &file.subsystem {
        judge.subsystem(subsystem);
    }
    for name in &file.detached {
        if let Some(namespace) = judge.identity(name) {
            judge.place(namespace, name, None);
        }
    }
    for port in &file.port {
        judge.port(port);
    }
    judge.limits();
    if judge.reasons.is_empty() { Ok(judge.wanted) } else { Err(judge.reasons) }
}

struct Judge<'a> {
    card: &'a Card,
    wanted: Declared,
    reasons: Vec<String>,
}

impl Judge<'_> {
    fn note<T>(&mut self, result: Result<T, impl ToString>) -> Option<T> {
        result.map_err(|why| self.reasons.push(why.to_string())).ok()
    }

    fn subsystem(&mut self, file: &FileSubsystem) {
        let Some(nqn) = self.note(configure::nqn(&file.nqn).map_err(|why| format!("{:?}: {why}", file.nqn)))
        else {
            return;
        };
        let is_default = self.card.default_nqn.as_ref() == Some(&nqn);
        let mut of = Subsystem { any_host: file.any_host, ..Subsystem::default() };
        if is_default {
            if file.serial.is_some() || file.model.is_some() {
                self.reasons.push(format!(
                    "{nqn} is the default subsystem, which has the card's serial number and model"
                ));
            }
        } else {
            let serial = file.serial.clone().unwrap_or_else(|| configure::serial_of(&nqn));
            let serial = self.note(fitting("serial number", &serial));
            let model = self.note(fitting("model", file.model.as_deref().unwrap_or(MODEL)));
            of.names = serial.zip(model);
            of.any_host = Some(file.any_host.unwrap_or(false));
        }
        for host in &file.hosts {
            let host =
                self.note(configure::nqn(host).map_err(|why| format!("host {host:?} of {nqn}: {why}")));
            of.hosts.extend(host);
        }
        if self.wanted.subsystems.insert(nqn.clone(), of).is_some() {
            self.reasons.push(format!("{nqn} is declared twice"));
        }
        let mut nsids = BTreeSet::new();
        for namespace in &file.namespace {
            self.namespace(&nqn, namespace, &mut nsids);
        }
    }

    fn namespace(&mut self, subsystem: &Nqn, file: &FileNamespace, nsids: &mut BTreeSet<u32>) {
        let name = &file.drive;
        let parse = |what: &str, text: &Option<String>| match text {
            Some(text) => {
                bytes_of_16(text).map(Some).map_err(|why| format!("{what} {text:?} of {name}: not {why}"))
            }
            None => Ok(None),
        };
        let uuid = self.note(parse("UUID", &file.uuid)).flatten();
        let nguid = self.note(parse("NGUID", &file.nguid)).flatten();
        if let Some(nsid) = file.nsid.filter(|nsid| !nsids.insert(*nsid)) {
            self.reasons.push(format!("{subsystem} has NSID {nsid} twice"));
        }
        if let Some(nsid) = file.nsid.filter(|nsid| !(1..=LAST_NSID).contains(nsid)) {
            self.reasons.push(format!("NSID {nsid} of {name}: an NSID is from 1 to {LAST_NSID}"));
        }
        if uuid == Some([0; 16]) || nguid == Some([0; 16]) {
            self.reasons.push(format!("{name} is to have a UUID or NGUID of zeros, which stand for none"));
        }
        let Some(namespace) = self.identity(name) else { return };
        let is_anothers = |known: &&views::Namespace| {
            bytes_of_16(&known.identity).is_ok_and(|known| known != namespace && Some(known) == uuid)
        };
        if let Some(other) = self.card.namespaces.iter().find(is_anothers) {
            let drive = other.drive_serial.as_deref().unwrap_or("that is away");
            self.reasons.push(format!("the UUID of {name} is that of a namespace of drive {drive}"));
        }
        let subsystem = subsystem.clone();
        let setting = NamespaceSetting { namespace, subsystem, nsid: file.nsid, uuid, nguid };
        self.place(namespace, name, Some(setting));
    }

    /// The namespace that the file means; one that is away can be named by its identity.
    fn identity(&mut self, name: &str) -> Option<DriveNamespace> {
        if let Ok(identity) = bytes_of_16(name) {
            return Some(identity);
        }
        self.note(configure::find_namespace(name, &self.card.namespaces))
    }

    fn place(&mut self, namespace: DriveNamespace, name: &str, setting: Option<NamespaceSetting>) {
        if self.wanted.namespaces.insert(namespace, setting).is_some() {
            self.reasons.push(format!("the namespace {name} is declared twice: it can be in one place"));
        }
    }

    fn port(&mut self, file: &FilePort) {
        let number = file.number;
        if !self.card.ports.contains(&number) {
            self.reasons.push(format!("the card has no port {number}"));
        }
        if let Some(text) = &file.access {
            let access = <Access as clap::ValueEnum>::from_str(text, false).map_err(|_| {
                format!(
                    "port {number}: {text:?} is not optimized, non-optimized, inaccessible or persistent-loss"
                )
            });
            let access = self.note(access).map(PortAccess::from);
            self.wanted.access.extend(access.map(|access| (number, access)));
        }
        self.wanted.listeners.extend(file.listener.map(|on| (number, on)));
    }

    fn limits(&mut self) {
        // The default subsystem is always there.
        let others = self.wanted.subsystems.keys().filter(|nqn| self.card.default_nqn.as_ref() != Some(nqn));
        let subsystems = 1 + others.count();
        if subsystems > MAX_SUBSYSTEMS {
            self.reasons.push(format!(
                "{subsystems} subsystems with the default one: a card has {MAX_SUBSYSTEMS} at most"
            ));
        }
        let hosts: BTreeSet<&Nqn> = self.wanted.subsystems.values().flat_map(|of| &of.hosts).collect();
        if hosts.len() > MAX_ALLOWED_HOSTS {
            self.reasons
                .push(format!("{} different hosts: a card knows {MAX_ALLOWED_HOSTS} at most", hosts.len()));
        }
        self.taken_nsids();
        let settings = || self.wanted.namespaces.values().flatten();
        let mut names = BTreeMap::new();
        for (kind, bytes) in settings()
            .flat_map(|of| [of.uuid.map(|of| ("UUID", of)), of.nguid.map(|of| ("NGUID", of))])
            .flatten()
        {
            *names.entry((kind, bytes)).or_insert(0) += 1;
        }
        let twice = names.iter().filter(|(_, count)| **count > 1);
        let twice: Vec<_> =
            twice.map(|((kind, bytes), _)| format!("{kind} {} is declared twice", digits(bytes))).collect();
        self.reasons.extend(twice);
    }
}

impl Judge<'_> {
    /// NSIDs that namespaces have which are in the default subsystem by themselves, and stay there.
    fn taken_nsids(&mut self) {
        let Some(default) = self.card.default_nqn.clone() else { return };
        for known in self.card.namespaces.iter().filter(|known| known.subsystem.as_deref() == Some(&*default))
        {
            let is_named =
                bytes_of_16(&known.identity).is_ok_and(|of| self.wanted.namespaces.contains_key(&of));
            if is_named || self.wanted.automatic == Some(false) {
                continue;
            }
            let mut settings = self.wanted.namespaces.values().flatten();
            if settings.any(|of| of.subsystem == default && of.nsid.is_some() && of.nsid == known.nsid) {
                let (nsid, drive) =
                    (known.nsid.unwrap_or(0), known.drive_serial.as_deref().unwrap_or("that is away"));
                self.reasons
                    .push(format!("NSID {nsid} of {default} is that of a namespace of drive {drive}"));
            }
        }
    }
}

/// What is declared, as a file that [`run`] takes.
pub fn file_of(declared: &Declared, json: bool) -> String {
    let mut file = File { automatic: declared.automatic, ..File::default() };
    for (nqn, of) in &declared.subsystems {
        let mut subsystem = FileSubsystem {
            nqn: nqn.to_string(),
            serial: of.names.as_ref().map(|(serial, _)| serial.to_string()),
            model: of.names.as_ref().map(|(_, model)| model.to_string()),
            any_host: of.any_host,
            hosts: of.hosts.iter().map(ToString::to_string).collect(),
            namespace: Vec::new(),
        };
        let settings = declared.namespaces.values().flatten().filter(|setting| setting.subsystem == *nqn);
        subsystem.namespace.extend(settings.map(|setting| FileNamespace {
            drive: uuid(&setting.namespace),
            nsid: setting.nsid,
            uuid: setting.uuid.as_ref().map(uuid),
            nguid: setting.nguid.as_ref().map(|nguid| digits(nguid)),
        }));
        file.subsystem.push(subsystem);
    }
    let detached = declared.namespaces.iter().filter(|(_, of)| of.is_none());
    file.detached.extend(detached.map(|(namespace, _)| uuid(namespace)));
    let ports: BTreeSet<u16> = declared.access.keys().chain(declared.listeners.keys()).copied().collect();
    file.port.extend(ports.into_iter().map(|number| FilePort {
        number,
        access: declared.access.get(&number).map(|access| output::access(*access).to_owned()),
        listener: declared.listeners.get(&number).copied(),
    }));
    if json {
        return output::json(&file);
    }
    // Names, numbers and lists: there is nothing that TOML could not say.
    let text = toml::to_string(&file).unwrap_or_default();
    if text.is_empty() { "# nothing is declared: the card is as it was made\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
