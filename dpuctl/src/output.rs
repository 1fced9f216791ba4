//! How answers look: tables for people, JSON for programs. The names in JSON are those of the mailbox, units last.

use std::fmt::Formatter;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use message::Then;
use message::configuration::{ConfigurationChange as Change, PortAccess};
use message::mailbox::{Core, Kept, Status};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::views::{self, Drive, Host, Namespace, Port, Queue, Subsystem};

pub fn json(value: &impl Serialize) -> String {
    // Names and numbers alone: there is nothing that JSON could not say.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

pub fn table(heads: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(heads.iter().copied());
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Names and values, a line for each; nothing is shown as `-`.
pub fn record(value: &impl Serialize, as_json: bool) -> String {
    if as_json {
        return json(value);
    }
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let fields: Option<Fields> = serde_json::from_str(&json(value)).ok();
    for (name, field) in fields.into_iter().flat_map(|fields| fields.0) {
        let text = match field {
            Value::Null => "-".to_owned(),
            Value::Bool(yes) => if yes { "yes" } else { "no" }.to_owned(),
            Value::String(text) => text,
            Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        };
        table.add_row([name.replace('_', " "), text]);
    }
    table.to_string()
}

/// An object's fields, in their own order.
struct Fields(Vec<(String, Value)>);

impl<'a> Deserialize<'a> for Fields {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Self(Vec::new()))
    }
}

impl<'a> Visitor<'a> for Fields {
    type Value = Self;

    fn expecting(&self, to: &mut Formatter<'_>) -> std::fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(field) = map.next_entry()? {
            self.0.push(field);
        }
        Ok(self)
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Days, hours, minutes and seconds, as far as there are any.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

pub fn status(status: &Status, as_json: bool) -> String {
    if as_json {
        return json(status);
    }
    let crashes = match (status.crashes, status.crashes_in_a_row) {
        (0, _) => "none since power-on".to_owned(),
        (all, in_a_row) => {
            format!("{all} since power-on, {in_a_row} in a row: `cargo xtask crash` reads the record")
        }
    };
    let configuration = if status.configuration_is_stored {
        "stored"
    } else {
        "not stored: what is set lasts until the next reset"
    };
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.add_row(["firmware", &format!("penstock {} for {}", status.version, status.board)]);
    table.add_row(["up", &span(Duration::from_micros(status.uptime_us))]);
    let cores = format!("{}, {} of them data cores, plan {}", status.cores, status.data_cores, status.plan);
    table.add_row(["cores", &cores]);
    table.add_row(["crashes", &crashes]);
    table.add_row(["configuration", configuration]);
    table.to_string()
}

pub fn ending(then: Then, as_json: bool) -> String {
    if as_json {
        return json(&serde_json::json!({ "then": then }));
    }
    let then = match then {
        Then::Off => "switches itself off",
        Then::Restart => "starts anew",
    };
    format!(
        "the card finishes what hosts have begun and flushes its drives, then it {then}: its log says how far it is"
    )
}

pub fn cores(cores: &[Core], as_json: bool) -> String {
    if as_json {
        return json(&cores);
    }
    let heads = ["CORE", "ROLES", "PRODUCTIVE TURNS", "EMPTY TURNS", "SLEEPS", "ASLEEP", "LONGEST TURN"];
    let mut table = table(&heads, 2);
    for core in cores {
        let roles: Vec<_> = core.roles.iter().map(|role| role.name()).collect();
        table.add_row([
            core.number.to_string(),
            if roles.is_empty() { "-".to_owned() } else { roles.join(" ") },
            core.productive_turns.to_string(),
            core.empty_turns.to_string(),
            core.sleeps.to_string(),
            format!("{:.1} s", core.asleep_us as f64 / 1e6),
            format!("{} us", core.longest_turn_us),
        ]);
    }
    table.to_string()
}

pub fn drives(drives: &[Drive], as_json: bool) -> String {
    if as_json {
        return json(&drives);
    }
    let heads = [
        "DRIVE",
        "ADDRESS",
        "SERIAL",
        "MODEL",
        "FIRMWARE",
        "STATE",
        "QUEUES",
        "WARNING",
        "TEMPERATURE",
        "SPARE",
        "USED",
        "COMMANDS",
        "INSIDE",
        "ERRORS",
        "LATE",
        "RESETS",
    ];
    let mut table = table(&heads, 6);
    for drive in drives {
        let health = |show: fn(&message::mailbox::DriveHealth) -> String| {
            drive.health.as_ref().map_or_else(|| "-".to_owned(), show)
        };
        table.add_row([
            drive.number.to_string(),
            drive.address.clone().unwrap_or_else(|| "-".to_owned()),
            drive.serial.clone(),
            drive.model.clone(),
            drive.firmware.clone(),
            drive.state.to_owned(),
            format!("{}x{}", drive.queues, drive.queue_depth),
            health(|health| format!("{:#04x}", health.critical_warning)),
            // A drive may say nothing of its temperature.
            health(|health| match health.temperature_k {
                0 => "-".to_owned(),
                kelvin => format!("{} C", i32::from(kelvin) - 273),
            }),
            health(|health| format!("{} %", health.spare_percent)),
            health(|health| format!("{} %", health.used_percent)),
            drive.counters.commands.to_string(),
            drive.outstanding.to_string(),
            drive.errors().to_string(),
            drive.counters.command_timeouts.to_string(),
            drive.counters.resets.to_string(),
        ]);
    }
    let failed = drives.iter().filter(|drive| !drive.last_failure.is_empty());
    let reasons =
        failed.map(|drive| format!("\ndrive {} failed last because {}", drive.number, drive.last_failure));
    table.to_string() + &reasons.collect::<String>()
}

pub fn ports(ports: &[Port], as_json: bool) -> String {
    if as_json {
        return json(&ports);
    }
    let heads = [
        "PORT",
        "MAC",
        "LINK",
        "ADDRESSES",
        "ANA STATE",
        "MTU",
        "RECEIVED",
        "SENT",
        "DROPPED",
        "ACCEPTED",
        "REFUSED",
    ];
    let mut table = table(&heads, 5);
    for port in ports {
        let counters = &port.counters;
        table.add_row([
            port.number.to_string(),
            port.mac.clone(),
            port.link.to_owned(),
            if port.addresses.is_empty() { "none yet".to_owned() } else { port.addresses.join(" ") },
            port.ana_state.to_owned(),
            port.mtu.to_string(),
            counters.received_frames.to_string(),
            counters.sent_frames.to_string(),
            counters.dropped_frames.to_string(),
            counters.accepted_connections.to_string(),
            counters.refused_connections.to_string(),
        ]);
    }
    table.to_string()
}

pub fn subsystems(subsystems: &[Subsystem], as_json: bool) -> String {
    if as_json {
        return json(&subsystems);
    }
    let heads = ["SUBSYSTEM", "SERIAL", "MODEL", "HOSTS", "NAMESPACES", "CONTROLLERS"];
    let mut table = table(&heads, 4);
    for of in subsystems {
        let name = if of.is_default { format!("{} (default)", of.nqn) } else { of.nqn.to_string() };
        let hosts = of.hosts.iter().map(|host| views::printable(host)).collect::<Vec<_>>().join(" ");
        let hosts = match (of.any_host, hosts.is_empty()) {
            (true, true) => "any".to_owned(),
            (true, false) => format!("any, {hosts}"),
            (false, true) => "none".to_owned(),
            (false, false) => hosts,
        };
        let (serial, model) = (of.serial.clone(), of.model.clone());
        table.add_row([name, serial, model, hosts, of.namespaces.to_string(), of.controllers.to_string()]);
    }
    table.to_string()
}

pub fn namespaces(namespaces: &[Namespace], as_json: bool) -> String {
    if as_json {
        return json(&namespaces);
    }
    let heads =
        ["DRIVE", "SERIAL", "ON DRIVE", "IDENTITY", "STATE", "SUBSYSTEM", "UUID", "NSID", "BLOCK", "SIZE"];
    let mut table = table(&heads, 7);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for namespace in namespaces {
        table.add_row([
            or_none(namespace.drive.map(|drive| drive.to_string())),
            or_none(namespace.drive_serial.clone()),
            or_none(namespace.drive_nsid.map(|nsid| nsid.to_string())),
            namespace.identity.clone(),
            namespace.state.to_owned(),
            or_none(namespace.subsystem.clone()),
            // Where it is another than the identity.
            or_none(Some(namespace.uuid.clone()).filter(|uuid| *uuid != namespace.identity)),
            or_none(namespace.nsid.map(|nsid| nsid.to_string())),
            format!("{} B", namespace.block_bytes),
            size(namespace.size_bytes),
        ]);
    }
    table.to_string()
}

/// What has come of one change.
pub fn changed(kept: Kept, as_json: bool) -> String {
    if as_json {
        return json(&serde_json::json!({ "kept": kept_word(kept) }));
    }
    format!("done{}", kept_sentence(kept))
}

/// The changes of a file: those that were made, or with no `kept` those that would be.
pub fn applied(changes: &[Change], kept: Option<Kept>, as_json: bool) -> String {
    if as_json {
        let changes: Vec<String> = changes.iter().map(change).collect();
        return json(
            &serde_json::json!({ "changes": changes, "made": kept.is_some(), "kept": kept.map(kept_word) }),
        );
    }
    if changes.is_empty() {
        return "nothing to change: the card is as declared".to_owned();
    }
    let lines = changes.iter().map(|of| format!("{}\n", change(of))).collect::<String>();
    match kept {
        Some(kept) => format!("{lines}{} changes made{}", changes.len(), kept_sentence(kept)),
        None => format!("{lines}{} changes to make; nothing was changed", changes.len()),
    }
}

const fn kept_word(kept: Kept) -> &'static str {
    match kept {
        Kept::Stored => "stored",
        Kept::UntilReset => "until reset",
        Kept::StoreFailed => "store failed",
    }
}

const fn kept_sentence(kept: Kept) -> &'static str {
    match kept {
        Kept::Stored => ", and stored",
        Kept::UntilReset => "; it lasts until the next reset, because this card has no configuration store",
        Kept::StoreFailed => {
            "; it lasts until the next reset, because the configuration store has failed: see the card's log"
        }
    }
}

/// A change in a line: `+` what comes, `-` what goes, `~` what becomes another.
pub fn change(change: &Change) -> String {
    match change {
        Change::CreateSubsystem(of) => {
            let hosts = if of.any_host { ", any host" } else { "" };
            format!("+ subsystem {}, serial number {}, model {}{hosts}", of.nqn, of.serial, of.model)
        }
        Change::DeleteSubsystem { subsystem } => format!("- subsystem {subsystem}"),
        Change::SetAnyHost { subsystem, any_host: true } => format!("~ subsystem {subsystem}: any host"),
        Change::SetAnyHost { subsystem, .. } => format!("~ subsystem {subsystem}: allowed hosts only"),
        Change::AllowHost { subsystem, host } => format!("+ host {host} of subsystem {subsystem}"),
        Change::DisallowHost { subsystem, host } => format!("- host {host} of subsystem {subsystem}"),
        Change::AttachNamespace(of) => {
            let names = [
                of.nsid.map(|nsid| format!(", NSID {nsid}")),
                of.uuid.map(|uuid| format!(", UUID {}", views::uuid(&uuid))),
                of.nguid.map(|nguid| format!(", NGUID {}", views::digits(&nguid))),
            ];
            let names = names.into_iter().flatten().collect::<String>();
            format!("+ namespace {} in subsystem {}{names}", views::uuid(&of.namespace), of.subsystem)
        }
        Change::DetachNamespace { namespace } => {
            format!("- namespace {}: in no subsystem", views::uuid(namespace))
        }
        Change::ReleaseNamespace { namespace } => {
            format!("~ namespace {}: nothing declared", views::uuid(namespace))
        }
        Change::SetAutomatic { automatic } => {
            let (sign, where_to) =
                if *automatic { ("+", "in the default subsystem") } else { ("-", "in no subsystem") };
            format!("{sign} namespaces of which nothing is declared: {where_to}")
        }
        Change::SetPortAccess { port, access: state } => {
            format!("~ port {port}: ANA state {}", access(*state))
        }
        Change::SetListener { port, enabled } => {
            let (sign, can) = if *enabled { ("+", "can") } else { ("-", "cannot") };
            format!("{sign} port {port}: hosts {can} connect")
        }
    }
}

/// ANA states, as nvme-cli writes them.
pub const fn access(access: PortAccess) -> &'static str {
    match access {
        PortAccess::Optimized => "optimized",
        PortAccess::NonOptimized => "non-optimized",
        PortAccess::Inaccessible => "inaccessible",
        PortAccess::PersistentLoss => "persistent-loss",
    }
}

pub fn hosts(hosts: &[Host], as_json: bool) -> String {
    if as_json {
        return json(&hosts);
    }
    let heads = [
        "HOST",
        "ADDRESS",
        "SUBSYSTEM",
        "STATE",
        "PORT",
        "CNTLID",
        "DATA CORE",
        "QUEUES",
        "KEEP ALIVE",
        "SILENT",
    ];
    let mut table = table(&heads, 5);
    for host in hosts {
        table.add_row([
            host.host_nqn.clone(),
            host.address.clone().unwrap_or_else(|| "-".to_owned()),
            host.subsystem.clone().unwrap_or_else(|| "discovery".to_owned()),
            if host.is_ready { "ready" } else { "not ready" }.to_owned(),
            host.port.to_string(),
            host.cntlid.to_string(),
            host.data_core.to_string(),
            format!("{} of {}", host.io_queues, host.granted_io_queues),
            if host.keep_alive_ms == 0 { "-".to_owned() } else { seconds(u64::from(host.keep_alive_ms)) },
            seconds(host.idle_ms),
        ]);
    }
    table.to_string()
}

pub fn queues(queues: &[Queue], as_json: bool) -> String {
    if as_json {
        return json(&queues);
    }
    let heads = [
        "CNTLID",
        "QUEUE",
        "ADDRESS",
        "PORT",
        "DIGESTS",
        "DATA CORE",
        "ENTRIES",
        "INSIDE",
        "AT DRIVES",
        "PAGES",
    ];
    let mut table = table(&heads, 5);
    for queue in queues {
        let digests = match (queue.header_digest, queue.data_digest) {
            (false, false) => "-",
            (true, false) => "header",
            (false, true) => "data",
            (true, true) => "both",
        };
        table.add_row([
            queue.cntlid.map_or_else(|| "-".to_owned(), |cntlid| cntlid.to_string()),
            queue.queue_id.to_string(),
            queue.address.clone().unwrap_or_else(|| "-".to_owned()),
            queue.port.to_string(),
            digests.to_owned(),
            queue.data_core.to_string(),
            queue.entries.to_string(),
            queue.outstanding.to_string(),
            queue.at_drives.to_string(),
            queue.pages.to_string(),
        ]);
    }
    table.to_string()
}

fn seconds(millis: u64) -> String {
    format!("{:.1} s", millis as f64 / 1e3)
}

/// In the largest binary unit of which there is one.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(5);
    let whole = bytes >> (10 * unit);
    let rest = bytes - (whole << (10 * unit));
    let unit_name = units[unit as usize];
    if rest == 0 {
        format!("{whole} {unit_name}")
    } else {
        format!("{:.1} {unit_name}", bytes as f64 / f64::powi(1024.0, unit as i32))
    }
}

#[cfg(test)]
mod tests {
    use message::mailbox::{Role, Roles};

    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let of = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([of(0), of(59), of(61)], ["0 s", "59 s", "1 min 1 s"]);
        assert_eq!([of(3600), of(90_000)], ["1 h 0 min", "1 d 1 h"]);
    }

    #[test]
    fn sizes_are_told_in_the_largest_unit() {
        let told = [0, 512, 1024, 1536, 64 << 20, u64::MAX].map(size);
        assert_eq!(told, ["0 B", "512 B", "1 KiB", "1.5 KiB", "64 MiB", "16384.0 PiB"]);
    }

    #[test]
    fn cores_are_lines_and_objects() {
        let core = Core {
            number: 1,
            roles: Roles::from_iter([Role::Net, Role::Drive]),
            productive_turns: 10,
            empty_turns: 20,
            sleeps: 3,
            asleep_us: 2_500_000,
            longest_turn_us: 40,
        };
        let text = cores(std::slice::from_ref(&core), false);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), "1 net drive 10 20 3 2.5 s 40 us");
        let value: serde_json::Value = serde_json::from_str(&cores(&[core], true)).unwrap();
        assert_eq!(value[0]["asleep_us"], 2_500_000);
        assert_eq!(value[0]["roles"][1], "Drive");
    }
}
