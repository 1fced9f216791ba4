//! The card's drives: the NVMe controller model, over a file or memory.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use app::sizes::MAX_DRIVES;
use hal_fakes::{FakeNvme, Media, NvmeConfig, NvmeNamespace, RamMedia};
use hal_hosted::{DriveFile, FileMedia, Watcher};
use hal_mem::DmaRegion;
use heapless::Vec;

use crate::arguments::{DriveSpec, Place};

/// Compare, Dataset Management, Write Zeroes (ONCS, Base 5.17.2.1).
const OPTIONAL_COMMANDS: u16 = 1 << 0 | 1 << 2 | 1 << 3;
/// Entries of a drive's queues.
const QUEUE_ENTRIES: u32 = 256;
/// MDTS: 1 MiB.
const TRANSFER_LIMIT: u8 = 8;

/// Blocks that are there, and not yet a drive.
pub enum Blocks {
    /// A file, locked.
    File(DriveFile),
    /// Memory.
    Ram(RamMedia),
}

/// Opens and locks the file of a drive, or takes its memory.
///
/// # Errors
/// A sentence.
pub fn open(spec: &DriveSpec) -> Result<Blocks, String> {
    match &spec.place {
        Place::File(path) => {
            let file = DriveFile::open(path, spec.block_bytes);
            Ok(Blocks::File(file.map_err(|error| error.to_string())?))
        }
        Place::Ram(bytes) => {
            let media = usize::try_from(*bytes).ok().and_then(|bytes| RamMedia::try_new(bytes).ok());
            let media = media
                .ok_or_else(|| format!("drive ram: the system has no {bytes} bytes of memory for it"))?;
            Ok(Blocks::Ram(media))
        }
    }
}

/// Hosts and the card tell drives apart by their serial numbers: no two may have the same.
///
/// # Errors
/// A sentence about the first two that have.
pub fn check_serials(specs: &[DriveSpec]) -> Result<(), String> {
    let mut seen = HashMap::new();
    for (index, spec) in specs.iter().enumerate() {
        let serial = serial(spec, index);
        // The field is padded with blanks (SN, Base 5.17.2.1).
        if let Some(first) = seen.insert(serial.trim_end().to_owned(), index) {
            let serial = serial.trim_end();
            return Err(format!("--drive: drives {first} and {index} have the same serial number, {serial}"));
        }
    }
    Ok(())
}

/// Makes drives of what was opened. They reach `pages` alone, and wake the core that `watcher` belongs to.
///
/// # Errors
/// What the system says.
pub fn make(
    specs: &[DriveSpec],
    blocks: std::vec::Vec<Blocks>,
    pages: &DmaRegion,
    watcher: &Watcher,
) -> std::io::Result<Vec<FakeNvme, MAX_DRIVES>> {
    let mut drives = Vec::new();
    for (index, (spec, blocks)) in specs.iter().zip(blocks).enumerate() {
        let (media, model): (Box<dyn Media>, _) = match blocks {
            Blocks::File(file) => {
                let media = FileMedia::new(file);
                media.descriptor().map_or(Ok(()), |descriptor: BorrowedFd| watcher.add(descriptor, false))?;
                (Box::new(media), "Penstock file drive")
            }
            Blocks::Ram(media) => (Box::new(media), "Penstock RAM drive"),
        };
        let shift = spec.block_bytes.trailing_zeros() as u8;
        let namespace = NvmeNamespace {
            // The card derives them from the serial number.
            nguid: [0; 16],
            uuid: [0; 16],
            ..NvmeNamespace::new(1, media.bytes() >> shift, shift)
        };
        let config = NvmeConfig {
            address: (index as u16 + 1) << 3,
            queue_entries: QUEUE_ENTRIES,
            serial: serial(spec, index),
            model: model.to_owned(),
            mdts: TRANSFER_LIMIT,
            optional_commands: OPTIONAL_COMMANDS,
            volatile_write_cache: matches!(spec.place, Place::File(_)),
            namespaces: vec![namespace],
            ready_polls: 0,
            ..NvmeConfig::default()
        };
        let (drive, control) = FakeNvme::with_media(config, vec![media]);
        control.allow_dma(pages);
        assert!(drives.push(drive).is_ok(), "the number of drives was checked");
    }
    Ok(drives)
}

/// A serial number that stays with the file, wherever the process runs and in whatever order drives are named.
fn serial(spec: &DriveSpec, index: usize) -> String {
    match (&spec.serial, &spec.place) {
        (Some(serial), _) => serial.clone(),
        (None, Place::File(path)) => format!("PF{:016X}", hash(path)),
        (None, Place::Ram(_)) => format!("RAM{index}"),
    }
}

/// FNV-1a over the file's full path: short, and the same with every compiler.
fn hash(path: &Path) -> u64 {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    full.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
