//! Linux's own NVMe/TCP target on the card's machine, in the card's place.

use super::card::log_file;
use super::host::TemporaryFile;
use super::wire::Wire;
use crate::guest::Guest;
use crate::paths::TemporaryFolder;
use crate::qemu::{self, Drive, Machine};
use crate::vm::Vm;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// The guest that is it.
pub const GUEST: &str = "linux-target";
/// How long it may take to serve.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// A machine that serves one drive. Ends with the value.
pub struct LinuxTarget {
    _vm: Vm,
    _initramfs: TemporaryFile,
    _drives: TemporaryFolder,
}

impl LinuxTarget {
    /// Starts it with the drive and the Ethernet device that the card would have, and waits until it serves.
    pub fn start(guest: &Guest, drive: &Drive, wire: &Wire) -> Result<Self> {
        let initramfs = TemporaryFile::new("target-initramfs", &[&guest.initramfs])?;
        let drives = TemporaryFolder::for_drives()?;
        let mut command = Machine::of("qemu-aarch64")?.command();
        command.arg("-no-reboot").arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&initramfs.0);
        command.args(["-append", "console=ttyAMA0 quiet loglevel=4 panic=-1 mitigations=off nokaslr"]);
        drive.add(&mut command, drives.path())?;
        qemu::add_port_with(&mut command, 0, &wire.card_netdev(), &wire.card_properties());
        let mut vm = Vm::start(&mut wire.enclose(command), &log_file("linux-target")?)?;
        let (mut said, begun) = (String::new(), Instant::now());
        loop {
            said.push_str(&String::from_utf8_lossy(&vm.read(Duration::from_millis(50))?));
            if said.contains("@@ SERVES") {
                return Ok(Self { _vm: vm, _initramfs: initramfs, _drives: drives });
            }
            if said.contains("@@ FAIL") || begun.elapsed() > BOOT_LIMIT {
                bail!("Linux's target does not serve after {:?}:\n{said}", begun.elapsed());
            }
        }
    }
}
