//! Log pages.

use nvme::log_page::{AnaGroup, AnaHeader, ErrorEntry, SmartLog, id};
use nvme::{NSID_ALL, Status};
use nvmeof::initiator::commands;
use nvmeof_host::{Association, Error};
use serde::Serialize;
use zerocopy::FromBytes;

use super::{GetLog, shown};
use crate::client::Failure;
use crate::output;

/// Entries of the error log that are asked for.
const ERRORS: usize = 64;
/// Bytes of the ANA log page at most.
const ANA_BYTES: usize = 64 << 10;

fn page(
    association: &mut Association,
    what: &str,
    page: u8,
    nsid: u32,
    bytes: usize,
) -> Result<Vec<u8>, Error> {
    let mut data = vec![0; bytes];
    association.admin(what, &commands::get_log_page(page, nsid, 0, bytes as u32), &mut data)?;
    Ok(data)
}

#[derive(Serialize)]
struct Smart {
    critical_warning: u8,
    temperature_c: i32,
    spare_percent: u8,
    spare_threshold_percent: u8,
    used_percent: u8,
    bytes_read: u64,
    bytes_written: u64,
    host_reads: u64,
    host_writes: u64,
    busy_minutes: u64,
    power_cycles: u64,
    power_on_hours: u64,
    unsafe_shutdowns: u64,
    media_errors: u64,
    error_entries: u64,
}

/// Data units are of 1000 blocks of 512 bytes.
const UNIT_BYTES: u64 = 512_000;

/// A counter of 128 bits, of which no drive has used more than 64.
fn count(bytes: [u8; 16]) -> u64 {
    u64::try_from(u128::from_le_bytes(bytes)).unwrap_or(u64::MAX)
}

pub fn smart(association: &mut Association, json: bool) -> Result<String, Failure> {
    let data = page(association, "the SMART log", id::SMART, NSID_ALL, size_of::<SmartLog>())?;
    let data = SmartLog::ref_from_bytes(&data).map_err(|_| Error::Malformed("the SMART log"))?;
    let units = |bytes| count(bytes).saturating_mul(UNIT_BYTES);
    let smart = Smart {
        critical_warning: data.critical_warning,
        temperature_c: i32::from(data.temperature_k.get()) - 273,
        spare_percent: data.spare_percent,
        spare_threshold_percent: data.spare_threshold_percent,
        used_percent: data.used_percent,
        bytes_read: units(data.data_units_read),
        bytes_written: units(data.data_units_written),
        host_reads: count(data.host_reads),
        host_writes: count(data.host_writes),
        busy_minutes: count(data.busy_minutes),
        power_cycles: count(data.power_cycles),
        power_on_hours: count(data.power_on_hours),
        unsafe_shutdowns: count(data.unsafe_shutdowns),
        media_errors: count(data.media_errors),
        error_entries: count(data.error_entries),
    };
    Ok(output::record(&smart, json))
}

#[derive(Serialize)]
struct Entry {
    error_count: u64,
    queue: u16,
    cid: u16,
    status: String,
    nsid: u32,
    start_block: u64,
}

pub fn errors(association: &mut Association, json: bool) -> Result<String, Failure> {
    let data = page(association, "the error log", id::ERROR, NSID_ALL, ERRORS * size_of::<ErrorEntry>())?;
    let entries = <[ErrorEntry]>::ref_from_bytes(&data).map_err(|_| Error::Malformed("the error log"))?;
    let entry = |entry: &ErrorEntry| Entry {
        error_count: entry.error_count.get(),
        queue: entry.sq_id.get(),
        cid: entry.cid.get(),
        status: format!("{:?}", Status::from_field(entry.status.get() >> 1)),
        nsid: entry.nsid.get(),
        start_block: entry.start_block.get(),
    };
    let used = entries.iter().filter(|entry| entry.error_count.get() != 0);
    let entries: Vec<Entry> = used.map(entry).collect();
    if json {
        return Ok(output::json(&entries));
    }
    if entries.is_empty() {
        return Ok("no errors".to_owned());
    }
    let mut table = output::table(&["ERROR", "QUEUE", "CID", "NSID", "BLOCK", "STATUS"], 6);
    for entry in entries {
        let numbers =
            [entry.error_count, entry.queue.into(), entry.cid.into(), entry.nsid.into(), entry.start_block];
        table.add_row(numbers.map(|number| number.to_string()).into_iter().chain([entry.status]));
    }
    Ok(table.to_string())
}

#[derive(Serialize)]
struct Ana {
    change_count: u64,
    groups: Vec<Group>,
}

#[derive(Serialize, Debug, PartialEq)]
struct Group {
    group: u32,
    state: &'static str,
    change_count: u64,
    namespaces: Vec<u32>,
}

/// ANAS (Base 8.1.1).
const fn state(anas: u8) -> &'static str {
    match anas & 0xf {
        0x1 => "optimized",
        0x2 => "non-optimized",
        0x3 => "inaccessible",
        0x4 => "persistent-loss",
        0xf => "change",
        _ => "unknown",
    }
}

pub fn ana(association: &mut Association, json: bool) -> Result<String, Failure> {
    let most = (association.info.max_transfer_bytes as usize).min(ANA_BYTES);
    let data = page(association, "the ANA log", id::ANA, 0, most)?;
    let ana = read_ana(&data).ok_or(Error::Malformed("the ANA log"))?;
    if json {
        return Ok(output::json(&ana));
    }
    let mut table = output::table(&["GROUP", "STATE", "CHANGES", "NAMESPACES"], 4);
    for group in ana.groups {
        let namespaces: Vec<String> = group.namespaces.iter().map(u32::to_string).collect();
        let (number, changes) = (group.group.to_string(), group.change_count.to_string());
        table.add_row([number, group.state.to_owned(), changes, namespaces.join(" ")]);
    }
    Ok(table.to_string())
}

/// Nothing where the page says that it goes on behind its end.
fn read_ana(data: &[u8]) -> Option<Ana> {
    let (header, mut rest) = AnaHeader::read_from_prefix(data).ok()?;
    let mut groups = Vec::new();
    for _ in 0..header.groups.get() {
        let (group, behind) = AnaGroup::read_from_prefix(rest).ok()?;
        let bytes = (group.namespaces.get() as usize).checked_mul(4)?;
        let (nsids, behind) = behind.split_at_checked(bytes)?;
        let nsid = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        groups.push(Group {
            group: group.group.get(),
            state: state(group.state),
            change_count: group.change_count.get(),
            namespaces: nsids.as_chunks().0.iter().map(nsid).collect(),
        });
        rest = behind;
    }
    Some(Ana { change_count: header.change_count.get(), groups })
}

pub fn any(association: &mut Association, options: &GetLog, json: bool) -> Result<String, Failure> {
    let GetLog { page, bytes, offset, nsid, .. } = *options;
    if bytes % 4 != 0 || offset % 4 != 0 {
        return Err(Failure::Usage("--bytes and --offset are multiples of 4".to_owned()));
    }
    let mut data = vec![0; bytes as usize];
    let command = commands::get_log_page(page, nsid, offset, bytes);
    association.admin(&format!("log page {page:#04x}"), &command, &mut data)?;
    shown(&data, options.out.as_ref(), json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_their_namespaces_behind_them() {
        let mut page = vec![0; 16];
        (page[0], page[8]) = (9, 2);
        for (number, state, nsids) in [(1_u8, 1, vec![5_u32, 6]), (2, 3, vec![])] {
            let mut group = [0; 32];
            (group[0], group[4], group[16]) = (number, nsids.len() as u8, state);
            page.extend(group);
            page.extend(nsids.iter().flat_map(|nsid| nsid.to_le_bytes()));
        }
        let ana = read_ana(&page).unwrap();
        assert_eq!(ana.change_count, 9);
        assert_eq!((ana.groups[0].state, &ana.groups[0].namespaces[..]), ("optimized", &[5, 6][..]));
        assert_eq!((ana.groups[1].state, ana.groups[1].group), ("inaccessible", 2));
        // A group that is not all there, and NSIDs that are not.
        assert!(read_ana(&page[..page.len() - 1]).is_none());
        page[20] = 200;
        assert!(read_ana(&page).is_none());
    }
}
