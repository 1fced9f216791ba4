//! Who is there: subsystems, the controller, namespaces.

use nvme::identify::{IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, cns, descriptor};
use nvmeof::initiator::commands;
use nvmeof_host::{Association, Error, Subsystem};
use serde::Serialize;
use zerocopy::FromBytes;

use super::text;
use crate::client::Failure;
use crate::output;

#[derive(Serialize)]
struct Entry<'a> {
    nqn: &'a str,
    kind: &'static str,
    transport: &'static str,
    address: &'a str,
    port: &'a str,
    port_id: u16,
    tls: bool,
}

impl<'a> Entry<'a> {
    fn new(subsystem: &'a Subsystem) -> Self {
        Self {
            nqn: &subsystem.nqn,
            kind: match subsystem.kind {
                1 => "referral",
                2 => "nvm",
                3 => "discovery",
                _ => "unknown",
            },
            transport: match subsystem.transport {
                1 => "rdma",
                2 => "fc",
                3 => "tcp",
                _ => "unknown",
            },
            address: &subsystem.address,
            port: &subsystem.service,
            port_id: subsystem.port_id,
            tls: subsystem.security == 2,
        }
    }
}

pub fn subsystems(subsystems: &[Subsystem], json: bool) -> String {
    let entries: Vec<Entry> = subsystems.iter().map(Entry::new).collect();
    if json {
        return output::json(&entries);
    }
    let mut table = output::table(&["NQN", "KIND", "TRANSPORT", "ADDRESS", "PORT", "TLS"], 6);
    for entry in entries {
        let tls = if entry.tls { "yes" } else { "no" };
        table.add_row([entry.nqn, entry.kind, entry.transport, entry.address, entry.port, tls]);
    }
    table.to_string()
}

fn identify(association: &mut Association, what: &str, cns: u8, nsid: u32) -> Result<Vec<u8>, Error> {
    let mut data = vec![0; IDENTIFY_BYTES];
    association.admin(what, &commands::identify(cns, nsid), &mut data)?;
    Ok(data)
}

#[derive(Serialize)]
struct Controller {
    model: String,
    serial: String,
    firmware: String,
    subsystem_nqn: String,
    controller_id: u16,
    version: String,
    max_transfer_bytes: Option<u32>,
    in_capsule_bytes: u32,
    max_queue_entries: u32,
    max_commands: u16,
    async_events: u32,
    keep_alive_granularity_ms: u32,
    namespaces_limit: u32,
    volatile_write_cache: bool,
    fused_compare_and_write: bool,
    optional_commands: Vec<&'static str>,
    ana: bool,
}

/// ONCS, from bit 0 on.
const OPTIONAL_COMMANDS: [&str; 9] = [
    "compare",
    "write-uncorrectable",
    "dataset-management",
    "write-zeroes",
    "save-select",
    "reservations",
    "timestamp",
    "verify",
    "copy",
];

pub fn controller(association: &mut Association, json: bool) -> Result<String, Failure> {
    let data = identify(association, "Identify Controller", cns::CONTROLLER, 0)?;
    let (data, info) = (IdentifyController::ref_from_bytes(&data), &association.info);
    let data = data.map_err(|_| Error::Malformed("Identify Controller"))?;
    let (version, oncs) = (data.version.get(), data.optional_commands.get());
    let supported = |(bit, name): (usize, &&'static str)| (oncs >> bit & 1 != 0).then_some(*name);
    let controller = Controller {
        model: text(&data.model),
        serial: text(&data.serial),
        firmware: text(&data.firmware),
        subsystem_nqn: text(&data.subsystem_nqn),
        controller_id: data.controller_id.get(),
        version: format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff),
        max_transfer_bytes: Some(info.max_transfer_bytes).filter(|bytes| *bytes != u32::MAX),
        in_capsule_bytes: info.in_capsule_bytes,
        max_queue_entries: info.max_queue_entries,
        max_commands: data.max_commands.get(),
        async_events: data.async_events.get(),
        keep_alive_granularity_ms: u32::from(data.keep_alive_granularity.get()) * 100,
        namespaces_limit: data.namespaces.get(),
        volatile_write_cache: info.volatile_write_cache,
        fused_compare_and_write: info.fuses,
        optional_commands: OPTIONAL_COMMANDS.iter().enumerate().filter_map(supported).collect(),
        ana: data.multipath & 1 << 3 != 0,
    };
    Ok(output::record(&controller, json))
}

#[derive(Serialize)]
struct Namespace {
    nsid: u32,
    blocks: u64,
    block_bytes: u64,
    bytes: u64,
    used_blocks: u64,
    metadata_bytes: u16,
    shared: bool,
    write_protected: bool,
    ana_group: u32,
    nguid: Option<String>,
    eui64: Option<String>,
    uuid: Option<String>,
}

fn of_namespace(association: &mut Association, nsid: u32) -> Result<Namespace, Error> {
    let data = identify(association, "Identify Namespace", cns::NAMESPACE, nsid)?;
    let descriptors = identify(association, "Namespace Descriptors", cns::NAMESPACE_DESCRIPTORS, nsid)?;
    let data =
        IdentifyNamespace::ref_from_bytes(&data).map_err(|_| Error::Malformed("Identify Namespace"))?;
    let format = data.current_format();
    let (blocks, block_bytes) = (data.size_blocks.get(), 1_u64.checked_shl(u32::from(format.block_shift)));
    let block_bytes = block_bytes.ok_or(Error::Malformed("the block size"))?;
    Ok(Namespace {
        nsid,
        blocks,
        block_bytes,
        bytes: blocks.saturating_mul(block_bytes),
        used_blocks: data.used_blocks.get(),
        metadata_bytes: format.metadata_bytes.get(),
        shared: data.multipath & 1 != 0,
        write_protected: data.attributes & 1 != 0,
        ana_group: data.ana_group.get(),
        nguid: hex(&data.nguid),
        eui64: hex(&data.eui64),
        uuid: uuid(&descriptors),
    })
}

/// Nothing where all of it is zero.
fn hex(bytes: &[u8]) -> Option<String> {
    let text = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.iter().any(|byte| *byte != 0).then(text)
}

/// The UUID among Namespace Identification Descriptors: type, length, two reserved bytes, then so many.
fn uuid(mut descriptors: &[u8]) -> Option<String> {
    while let [kind, length, _, _, rest @ ..] = descriptors {
        let bytes = rest.get(..usize::from(*length)).filter(|bytes| !bytes.is_empty())?;
        if *kind == descriptor::UUID {
            let digits = hex(bytes).filter(|digits| digits.len() == 32)?;
            let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            return Some(parts.join("-"));
        }
        descriptors = &rest[bytes.len()..];
    }
    None
}

/// All active NSIDs, however many lists they fill.
fn active(association: &mut Association) -> Result<Vec<u32>, Error> {
    let mut nsids: Vec<u32> = Vec::new();
    loop {
        let last = nsids.last().copied().unwrap_or(0);
        let data = identify(association, "the list of namespaces", cns::ACTIVE_NAMESPACES, last)?;
        let list = data.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let list: Vec<u32> = list.take_while(|nsid| *nsid != 0).collect();
        // They rise, or this would not end.
        if !list.iter().zip([last].iter().chain(&list)).all(|(nsid, before)| nsid > before) {
            return Err(Error::Malformed("the list of namespaces"));
        }
        nsids.extend(&list);
        if list.len() < IDENTIFY_BYTES / 4 {
            return Ok(nsids);
        }
    }
}

pub fn namespace(association: &mut Association, nsid: Option<u32>, json: bool) -> Result<String, Failure> {
    let nsid = association.namespace(nsid)?.nsid;
    Ok(output::record(&of_namespace(association, nsid)?, json))
}

pub fn namespaces(association: &mut Association, json: bool) -> Result<String, Failure> {
    let nsids = active(association)?;
    let namespaces: Result<Vec<Namespace>, Error> =
        nsids.into_iter().map(|nsid| of_namespace(association, nsid)).collect();
    let namespaces = namespaces?;
    if json {
        return Ok(output::json(&namespaces));
    }
    let mut table = output::table(&["NSID", "BLOCKS", "BLOCK", "MiB", "ANA GROUP", "UUID"], 0);
    for namespace in namespaces {
        table.add_row([
            namespace.nsid.to_string(),
            namespace.blocks.to_string(),
            namespace.block_bytes.to_string(),
            (namespace.bytes >> 20).to_string(),
            namespace.ana_group.to_string(),
            namespace.uuid.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    Ok(table.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_is_found_behind_other_descriptors() {
        let mut bytes = vec![1, 8, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 3, 16, 0, 0];
        bytes.extend(0x10..0x20);
        assert_eq!(uuid(&bytes).as_deref(), Some("10111213-1415-1617-1819-1a1b1c1d1e1f"));
        // Cut short, of length zero, and none at all.
        assert_eq!(uuid(&bytes[..20]), None);
        assert_eq!(uuid(&[3, 0, 0, 0, 1, 1]), None);
        assert_eq!(uuid(&[0; 4096]), None);
    }
}
