//! What the card is made of where it is an ordinary Linux process.
//!
//! Ethernet is a TAP interface ([`TapQueue`]) or a socket to a virtual machine ([`WireQueue`]); a drive is the NVMe model
//! of `hal-fakes` over a file ([`FileMedia`]) or memory; a core is a thread with a [`Sleeper`]. The firmware above
//! is the card's own. Linux alone, x86-64 and aarch64. Must not depend on `firmware/`.

mod clock;
mod cpus;
mod drive_file;
mod file_media;
mod flash_file;
mod interface;
mod mailbox_socket;
mod memory;
mod namespace;
mod sleep;
mod socket;
mod tap;
#[cfg(test)]
mod testing;
mod wire;

pub use clock::MonotonicClock;
pub use cpus::{allowed_cpus, check_cpu, pin};
pub use drive_file::{DriveFile, DriveFileError};
pub use file_media::FileMedia;
pub use flash_file::{FlashFile, FlashFileError};
pub use interface::{InterfaceError, InterfaceSetup};
pub use mailbox_socket::MailboxSocket;
pub use memory::map_memory;
pub use namespace::enter_own_namespace;
pub use sleep::{Doorbell, Sleeper, Watcher};
pub use socket::SocketError;
pub use tap::{TapError, TapQueue};
pub use wire::{WireQueue, WireSide};
