//! Connect (Base 6.3) and keep alive (Base 3.9).

use super::{Data, Link, Outcome, PLAIN, Stand};
use crate::wire::Command;

const SEQUENCE_ERROR: u16 = 0x0c;
const SGL_LENGTH: u16 = 0x0f;
const INVALID_PARAMETERS: u16 = 0x182;
const INVALID_HOST: u16 = 0x184;
const INCOMPATIBLE_FORMAT: u16 = 0x180;

/// Status and dword 0 of a Connect that was changed; on a connection of its own, next to a live admin queue.
fn refused(
    stand: &mut Stand<'_>,
    queue_id: u16,
    change: impl Fn(&mut Command, &mut Vec<u8>),
) -> Result<(u16, u64), String> {
    let admin = stand.admin(PLAIN)?;
    let mut link = stand.initialized(PLAIN)?;
    let (mut command, mut data) = stand.connect(queue_id, if queue_id == 0 { 0xffff } else { admin.cntlid });
    change(&mut command, &mut data);
    let command = command.in_capsule(data.len() as u32);
    let answer = stand.execute(&mut link, command, Data::Capsule(&data))?;
    stand.bench.close(link.id);
    stand.bench.close(admin.id);
    Ok((answer.status, answer.result))
}

fn expect(what: &str, got: (u16, u64), statuses: &[u16], parameter: Option<u64>) -> Outcome {
    let is_told = got.0 != INVALID_PARAMETERS || parameter.is_none_or(|parameter| parameter == got.1);
    if statuses.contains(&got.0) && is_told {
        return Ok(());
    }
    Err(format!("{what}: {got:x?} instead of {statuses:x?} with {parameter:x?}"))
}

pub(super) fn connect_data_too_short(stand: &mut Stand<'_>) -> Outcome {
    for bytes in [0, 1, 512, 1023] {
        let got = refused(stand, 0, |_, data| data.truncate(bytes))?;
        expect("short data", got, &[SGL_LENGTH], None)?;
    }
    Ok(())
}

pub(super) fn connect_with_wrong_nqns(stand: &mut Stand<'_>) -> Outcome {
    // IATTR says that the offset is in the data.
    let parameter = |at: usize| Some(at as u64 | 1 << 16);
    for (at, queue_id) in [(256, 0), (512, 0), (256, 1), (512, 1)] {
        let wrong = &[INVALID_PARAMETERS, INVALID_HOST];
        let got = refused(stand, queue_id, |_, data| data[at..at + 256].fill(b'a'))?;
        expect("no NUL", got, wrong, parameter(at))?;
        let got = refused(stand, queue_id, |_, data| data[at..at + 256].fill(0))?;
        expect("empty", got, wrong, parameter(at))?;
        let got = refused(stand, queue_id, |_, data| data[at + 3] = 0xff)?;
        expect("not UTF-8", got, wrong, parameter(at))?;
        let got = refused(stand, queue_id, |_, data| data[at + 20] = 0)?;
        // A shorter host name is a name.
        let statuses: &[u16] = if (at, queue_id) == (512, 0) { &[0] } else { wrong };
        expect("NUL within", got, statuses, parameter(at))?;
    }
    Ok(())
}

/// The Number of Queues feature (Base 5.27.1.5): I/O queues that a controller grants. Asks for so many first, if any.
fn io_queues(stand: &mut Stand<'_>, admin: &mut Link, wanted: Option<u16>) -> Result<u16, String> {
    if let Some(wanted) = wanted {
        let both = u32::from(wanted - 1) * 0x1_0001;
        stand.success(admin, Command::new(0x09).dword(10, 7).dword(11, both), Data::None)?;
    }
    let granted = stand.success(admin, Command::new(0x0a).dword(10, 7), Data::None)?.result;
    Ok(granted as u16 + 1)
}

pub(super) fn connect_with_wrong_queue_ids(stand: &mut Stand<'_>) -> Outcome {
    for wanted in [None, Some(2)] {
        let mut admin = stand.admin(PLAIN)?;
        let limit = io_queues(stand, &mut admin, wanted)?;
        if wanted.is_some_and(|wanted| wanted != limit) {
            return Err(format!("{limit} I/O queues instead of {wanted:?}"));
        }
        for queue_id in [limit + 1, limit + 2, 65, 0x7fff, 0xffff] {
            let mut link = stand.initialized(PLAIN)?;
            let (command, data) = stand.connect(queue_id, admin.cntlid);
            let answer = stand.execute(&mut link, command, Data::Capsule(&data))?;
            expect("QID", (answer.status, answer.result), &[INVALID_PARAMETERS], Some(42))?;
            stand.bench.close(link.id);
        }
        // The last one that there is.
        let mut link = stand.initialized(PLAIN)?;
        let (command, data) = stand.connect(limit, admin.cntlid);
        stand.success(&mut link, command, Data::Capsule(&data))?;
        stand.bench.close(link.id);
        stand.bench.close(admin.id);
    }
    Ok(())
}

pub(super) fn connect_of_the_same_queue_twice(stand: &mut Stand<'_>) -> Outcome {
    let (admin, mut io) = stand.pair(PLAIN)?;
    let (command, data) = stand.connect(1, admin.cntlid);
    stand.fails(&mut io, command, Data::Capsule(&data), &[SEQUENCE_ERROR])?;
    let mut other = stand.initialized(PLAIN)?;
    stand.fails(&mut other, command, Data::Capsule(&data), &[SEQUENCE_ERROR, INVALID_PARAMETERS])?;
    stand.success(&mut io, Command::blocks(0, stand.nsid, 0, 1), Data::None).map(drop)
}

pub(super) fn connect_for_anothers_controller(stand: &mut Stand<'_>) -> Outcome {
    let wrong = &[INVALID_PARAMETERS, INVALID_HOST];
    let got = refused(stand, 1, |_, data| data[520] ^= 1)?;
    expect("another host's NQN", got, wrong, None)?;
    let got = refused(stand, 1, |_, data| data[0] ^= 1)?;
    expect("another HOSTID", got, wrong, None)?;
    for cntlid in [0u16, 0x7777, 0xfff0, 0xffff] {
        let got = refused(stand, 1, |_, data| data[16..18].copy_from_slice(&cntlid.to_le_bytes()))?;
        expect("no such controller", got, &[INVALID_PARAMETERS], Some(16 | 1 << 16))?;
    }
    // The controller of a host that is there.
    let others = stand.admin(PLAIN)?;
    stand.host = 2;
    let cntlid = others.cntlid.to_le_bytes();
    let got = refused(stand, 1, |_, data| data[16..18].copy_from_slice(&cntlid))?;
    expect("another's controller", got, wrong, None)
}

pub(super) fn connect_with_wrong_sizes(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    // CAP, of 8 bytes; its first 16 bits are MQES, zero-based as SQSIZE is.
    let capabilities = stand.success(&mut admin, Command::property_get(0).dword(10, 1), Data::None)?;
    let largest = capabilities.result as u16;
    stand.bench.close(admin.id);
    for queue_id in [0, 1] {
        for sq_size in [0, largest + 1, 0x1000, 0xffff] {
            let got = refused(stand, queue_id, |command, _| {
                *command = command.with(44, &sq_size.to_le_bytes());
            })?;
            expect("SQSIZE", got, &[INVALID_PARAMETERS], Some(44))?;
        }
        let got = refused(stand, queue_id, |command, _| {
            *command = command.with(44, &largest.to_le_bytes());
        })?;
        expect("the largest SQSIZE", got, &[0], None)?;
    }
    let got = refused(stand, 0, |command, _| *command = command.with(40, &[1]))?;
    expect("RECFMT", got, &[INCOMPATIBLE_FORMAT], None)
}

pub(super) fn keep_alive_of_any_length(stand: &mut Stand<'_>) -> Outcome {
    for milliseconds in [0u32, 1, u32::MAX] {
        let mut link = stand.initialized(PLAIN)?;
        let (command, data) = stand.connect(0, 0xffff);
        let command = command.dword(12, milliseconds);
        stand.success(&mut link, command, Data::Capsule(&data))?;
        stand.success(&mut link, Command::property_set(0x14, 0x0046_0001), Data::None)?;
        // Changed later: Set Features, then what Get Features says of it.
        for later in [120_000, 0, 5000] {
            let set = Command::new(0x09).dword(10, 0x0f).dword(11, later);
            stand.success(&mut link, set, Data::None)?;
            let get = Command::new(0x0a).dword(10, 0x0f);
            let kept = stand.success(&mut link, get, Data::None)?.result as u32;
            if kept < later {
                return Err(format!("KATO {later} became {kept}"));
            }
        }
        stand.bench.close(link.id);
    }
    Ok(())
}
