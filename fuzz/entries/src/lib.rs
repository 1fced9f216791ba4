//! What the fuzz targets of `fuzz/` call: one function over bytes for each part that reads bytes from outside.
//!
//! A function panics where a promise is broken: a panic of the code itself, or something lost at the end. `cargo test`
//! runs all of them over the files of `fuzz/corpus`; `cargo fuzz run NAME` looks for new ones. Host only.

pub mod boot_arguments;
pub mod crash_record;
pub mod device_tree;
pub mod drive;
pub mod ethernet;
pub mod initiator;
mod memory;
pub mod target;
pub mod virtio_queue;
pub mod wire;

/// A function over bytes.
pub type Entry = fn(&[u8]);

/// All entries, by the name of their target and of their folder in the corpus.
pub const ENTRIES: [(&str, Entry); 9] = [
    ("boot_arguments", boot_arguments::run),
    ("crash_record", crash_record::run),
    ("device_tree", device_tree::run),
    ("drive", drive::run),
    ("ethernet", ethernet::run),
    ("initiator", initiator::run),
    ("target", target::run),
    ("virtio_queue", virtio_queue::run),
    ("wire", wire::run),
];
