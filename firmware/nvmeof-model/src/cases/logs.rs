//! Get Log Page (Base 5.16): lengths and offsets that no page has, the discovery log's among them (Base 5.16.1.23).

use super::{DEPTH, Data, HUGE, Link, Outcome, PLAIN, Stand};
use crate::wire::{Command, u64_at};

const INVALID_FIELD: u16 = 0x02;
const INVALID_LOG_PAGE: u16 = 0x109;
/// LID of the discovery log.
const DISCOVERY: u32 = 0x70;
/// LID of the error log.
const ERRORS: u32 = 1;
/// Bytes of the discovery log's header, and of each of its entries.
const ENTRY_BYTES: u64 = 1024;
/// Offset of NUMREC in the header.
const RECORDS_AT: usize = 8;

/// Get Log Page.
fn log_page(page: u32, dwords: u32, offset: u64, bytes: u32) -> Command {
    let zero_based = dwords.wrapping_sub(1);
    Command::new(0x02)
        .nsid(u32::MAX)
        .dword(10, page | zero_based << 16)
        .dword(11, zero_based >> 16)
        .dword(12, offset as u32)
        .dword(13, (offset >> 32) as u32)
        .transport(bytes)
}

/// As many as may be outstanding.
fn queue_of(command: Command) -> Vec<Command> {
    vec![command; DEPTH - 1]
}

/// A queue full of these is answered with so many bytes each.
fn all_answered(stand: &mut Stand<'_>, link: &mut Link, command: Command, bytes: usize) -> Outcome {
    let cids: Vec<u16> =
        queue_of(command).into_iter().map(|command| stand.start(link, command, &[])).collect();
    for cid in cids {
        let answer = stand.end(link, cid, &[])?;
        if (answer.status, answer.data.len()) != (0, bytes) {
            return Err(format!("{:#x} with {} bytes", answer.status, answer.data.len()));
        }
    }
    Ok(())
}

pub(super) fn sgl_of_4_gib_for_a_log_page(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    for page in [1, 2, 3, 5] {
        all_answered(stand, &mut admin, log_page(page, 128, 0, HUGE), 512)?;
    }
    let mut discovery = stand.discovery(PLAIN)?;
    all_answered(stand, &mut discovery, log_page(DISCOVERY, 256, 0, HUGE), 1024)
}

pub(super) fn log_pages_at_wrong_offsets(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    for page in [1, 2, 3, 5, 0x0c] {
        for offset in [1 << 20, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 3] {
            let commands = queue_of(log_page(page, 16, offset, 64));
            stand.all_fail(&mut admin, &commands, &[INVALID_FIELD])?;
        }
        odd_offsets(stand, &mut admin, page, 0)?;
    }
    Ok(())
}

/// LPOL bits 1:0 are to be 0: the controller refuses them, or does as if they were (Base 5.16, dword 12).
fn odd_offsets(stand: &mut Stand<'_>, link: &mut Link, page: u32, near: u64) -> Outcome {
    for offset in [near + 1, near + 2, near + 3, near + 511] {
        let answer = stand.execute(link, log_page(page, 16, offset, 64), Data::None)?;
        let is_right = match answer.status {
            INVALID_FIELD => answer.data.is_empty(),
            0 => {
                let rounded = log_page(page, 16, offset & !3, 64);
                answer.data == stand.success(link, rounded, Data::None)?.data
            }
            _ => false,
        };
        if !is_right {
            return Err(format!("page {page:#x} at {offset:#x}: {:#x}", answer.status));
        }
    }
    Ok(())
}

/// More dwords than MDTS allows (Base 5.16), whatever the SGL says.
fn of_16_gib(stand: &mut Stand<'_>, link: &mut Link, page: u32, with: u16) -> Outcome {
    for bytes in [HUGE, 4096, 0] {
        // NUMD FFFFFFFFh.
        let all = log_page(page, 0, 0, bytes).dword(10, page | 0xffff_0000).dword(11, 0xffff);
        stand.all_fail(link, &queue_of(all), &[with])?;
    }
    Ok(())
}

pub(super) fn log_pages_of_16_gib(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    for page in [1, 2, 3, 5, 0x0c] {
        of_16_gib(stand, &mut admin, page, INVALID_FIELD)?;
    }
    of_16_gib(stand, &mut admin, 0xff, INVALID_LOG_PAGE)
}

pub(super) fn discovery_log_at_wrong_offsets(stand: &mut Stand<'_>) -> Outcome {
    let mut link = stand.discovery(PLAIN)?;
    let header = stand.success(&mut link, log_page(DISCOVERY, 256, 0, 1024), Data::None)?.data;
    let size = (u64_at(&header, RECORDS_AT) + 1) * ENTRY_BYTES;
    // What is asked for may begin at the page's last dword and end beyond it.
    let last = stand.success(&mut link, log_page(DISCOVERY, 16, size - 4, 64), Data::None)?;
    if last.data.len() != 64 {
        return Err(format!("{} bytes at the end of the log", last.data.len()));
    }
    // An offset greater than the page is refused; so is one whose sum with the length wraps.
    let beyond = [size + 4, size + ENTRY_BYTES, size + (1 << 32), 1 << 63, (1 << 63) + 1024, u64::MAX - 3];
    for offset in beyond {
        let commands = queue_of(log_page(DISCOVERY, 256, offset, 1024));
        stand.all_fail(&mut link, &commands, &[INVALID_FIELD])?;
    }
    for near in [0, ENTRY_BYTES - 512, size - 512] {
        odd_offsets(stand, &mut link, DISCOVERY, near)?;
    }
    for offset in [size + 1, size + 1023, (1 << 63) + 1, u64::MAX] {
        let command = log_page(DISCOVERY, 256, offset, 1024);
        stand.fails(&mut link, command, Data::None, &[INVALID_FIELD])?;
    }
    let again = stand.success(&mut link, log_page(DISCOVERY, 256, 0, 1024), Data::None)?.data;
    if again == header { Ok(()) } else { Err("the log's header has changed".into()) }
}

pub(super) fn discovery_log_of_16_gib(stand: &mut Stand<'_>) -> Outcome {
    let mut link = stand.discovery(PLAIN)?;
    for page in [DISCOVERY, ERRORS] {
        of_16_gib(stand, &mut link, page, INVALID_FIELD)?;
    }
    // The same far into the page, where the sum with the offset wraps.
    let all = log_page(DISCOVERY, 0, u64::MAX - 3, HUGE).dword(10, DISCOVERY | 0xffff_0000).dword(11, 0xffff);
    stand.all_fail(&mut link, &queue_of(all), &[INVALID_FIELD])?;
    // A page of NVM subsystems.
    of_16_gib(stand, &mut link, 2, INVALID_LOG_PAGE)
}

pub(super) fn discovery_log_of_an_nvm_controller(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    for offset in [0, 1024, 1 << 63, u64::MAX] {
        let commands = queue_of(log_page(DISCOVERY, 256, offset, 1024));
        stand.all_fail(&mut admin, &commands, &[INVALID_LOG_PAGE])?;
    }
    of_16_gib(stand, &mut admin, DISCOVERY, INVALID_LOG_PAGE)
}
