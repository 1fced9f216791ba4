//! The command line of a card's QEMU: machine data from `qemu/machines`, drives, Ethernet.

use crate::paths;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// U-Boot for QEMU's 64-bit Arm machine, as Debian packages it.
pub const U_BOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// A machine of `qemu/machines`; scenarios and options override its fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The board whose image it runs.
    pub board: String,
    /// The QEMU program.
    pub program: String,
    /// Value of `-M`.
    pub machine: String,
    /// Value of `-cpu`.
    pub cpu: String,
    /// Number of cores.
    pub smp: u32,
    /// Value of `-m`.
    pub memory: String,
    /// Arguments that come first.
    pub arguments: Vec<String>,
}

impl Machine {
    /// The machine for a board.
    pub fn of(board: &str) -> Result<Self> {
        let folder = paths::root()?.join("qemu/machines");
        for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let file = entry?.path();
            let machine: Self = toml::from_str(&paths::read(&file)?)
                .with_context(|| format!("{} is not a machine", file.display()))?;
            if machine.board == board {
                return Ok(machine);
            }
        }
        bail!("no file in {} says `board = \"{board}\"`", folder.display())
    }

    /// QEMU with the machine's arguments, its first serial port on standard input and output.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["-M", &self.machine, "-cpu", &self.cpu]);
        command.args(["-smp", &self.smp.to_string(), "-m", &self.memory, "-serial", "stdio"]);
        command
    }
}

/// An NVMe drive backed by a sparse file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Its serial number, and the name of its file.
    pub name: String,
    /// Size such as `64M`.
    #[serde(default = "default_size")]
    pub size: String,
    /// Bytes of a logical block.
    #[serde(default = "default_block_size")]
    pub block_size: u32,
    /// The bus it sits on, where not the root.
    #[serde(default)]
    pub bus: Option<String>,
    /// More properties of the controller, such as `max_ioqpairs=1`.
    #[serde(default)]
    pub controller: Option<String>,
    /// More properties of the namespace, such as `ms=8`; the namespace then is a device of its own.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Past the page cache (O_DIRECT), in which a read may see half of a write of the same block.
    #[serde(default)]
    pub direct: bool,
}

impl Default for Drive {
    fn default() -> Self {
        Self {
            name: "penstock-drive0".to_owned(),
            size: default_size(),
            block_size: default_block_size(),
            bus: None,
            controller: None,
            namespace: None,
            direct: false,
        }
    }
}

fn default_size() -> String {
    "64M".to_owned()
}

fn default_block_size() -> u32 {
    512
}

impl Drive {
    /// Its file, which is made where it is missing.
    pub fn file(&self, folder: &Path) -> Result<PathBuf> {
        sparse_file(folder, &format!("{}.raw", self.name), bytes(&self.size)?)
    }

    /// Makes the file where it is missing and adds the drive to the command.
    pub fn add(&self, command: &mut Command, folder: &Path) -> Result<()> {
        let file = self.file(folder)?;
        let (name, block) = (&self.name, self.block_size);
        let cache = if self.direct { "cache.direct=on,file.cache.direct=on," } else { "" };
        let protocol = format!("{cache}file.driver=file,file.discard=unmap,file.filename={}", escaped(&file));
        let backing = format!("driver=raw,node-name={name},discard=unmap,{protocol}");
        let mut controller = format!("nvme,id=nvme-{name},serial={name}");
        for more in
            [self.bus.as_ref().map(|bus| format!("bus={bus}")), self.controller.clone()].into_iter().flatten()
        {
            controller.push_str(&format!(",{more}"));
        }
        let mut namespace = format!("nvme-ns,id={},bus=nvme-{name},drive={name}", namespace_id(name));
        namespace.push_str(&format!(",logical_block_size={block},physical_block_size={block}"));
        if let Some(more) = &self.namespace {
            namespace.push_str(&format!(",{more}"));
        }
        command.args(["-blockdev", &backing, "-device", &controller, "-device", &namespace]);
        Ok(())
    }
}

/// A sparse file of that size; an existing one keeps its data, and is made longer where it is shorter.
pub fn sparse_file(folder: &Path, name: &str, size: u64) -> Result<PathBuf> {
    let path = paths::created(folder.to_path_buf())?.join(name);
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
    if file.metadata()?.len() < size {
        file.set_len(size).with_context(|| format!("{} cannot get {size} bytes", path.display()))?;
    }
    Ok(path)
}

/// A path inside a comma-separated QEMU option.
pub fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Adds an Ethernet port. `number` gives it a MAC address of its own.
pub fn add_port(command: &mut Command, number: usize, netdev: &str) {
    add_port_with(command, number, netdev, "");
}

/// Adds an Ethernet port with more properties, such as `,host_mtu=9000`.
pub fn add_port_with(command: &mut Command, number: usize, netdev: &str, properties: &str) {
    let device = format!("virtio-net-pci,netdev=net{number},mac={}{properties}", card_mac(number));
    command.args(["-netdev", &format!("{netdev},id=net{number}"), "-device", &device]);
}

/// MAC address of the card's port.
pub fn card_mac(number: usize) -> String {
    format!("52:54:00:ca:4d:{number:02x}")
}

/// The first port of 127.0.0.1 from there on that nobody listens on and that was not given before.
pub fn free_port(first: u16) -> Result<u16> {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    // One that was given away may not be listened on yet.
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = |port: &u16| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..first.saturating_add(100)).find(free).context("no free port on 127.0.0.1")?;
    given.push(port);
    Ok(port)
}

/// Adds the card's mailbox: a console whose line is a socket at `path`, where QEMU listens.
pub fn add_mailbox(command: &mut Command, path: &Path) {
    let socket = format!("socket,id=mailbox,path={},server=on,wait=off", escaped(path));
    command.args(["-chardev", &socket]);
    // One port: `virtconsole` would otherwise be the second, behind one that QEMU keeps for consoles.
    command.args(["-device", "virtio-serial-pci,id=line,max_ports=1"]);
    command.args(["-device", "virtconsole,bus=line.0,chardev=mailbox"]);
}

/// Bytes of a bank of the `virt` machine's flash.
const FLASH_BYTES: u64 = 64 << 20;
/// Bytes of its last blocks, in which the card stores.
const STORE_BYTES: u64 = 2 * (256 << 10);

/// Adds the file behind the flash in which the card stores its configuration. It is made where it is missing: erased
/// where the card stores, because the card takes a flash of zeros for one without a file.
pub fn add_flash(command: &mut Command, folder: &Path) -> Result<()> {
    let path = paths::created(folder.to_path_buf())?.join("flash.raw");
    if !path.exists() {
        // Under another name until it is whole.
        let new = folder.join("flash.new");
        let file = std::fs::File::create(&new).with_context(|| format!("{}", new.display()))?;
        file.set_len(FLASH_BYTES)
            .and_then(|()| file.write_all_at(&vec![0xff; STORE_BYTES as usize], FLASH_BYTES - STORE_BYTES))
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("{} cannot be made", path.display()))?;
    }
    command.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", escaped(&path))]);
    Ok(())
}

/// Value of `-qmp` for a socket of QEMU's machine protocol.
pub fn control(socket: &Path) -> String {
    format!("unix:{},server=on,wait=off", escaped(socket))
}

/// The id of the device that is a drive's namespace.
pub fn namespace_id(drive: &str) -> String {
    format!("ns-{drive}")
}

/// Bytes of a size such as `512`, `64M` or `1G`.
pub fn bytes(size: &str) -> Result<u64> {
    let (digits, shift) =
        match size.to_ascii_uppercase().strip_suffix("B").unwrap_or(&size.to_ascii_uppercase()) {
            text if text.ends_with('K') => (text.trim_end_matches('K').to_owned(), 10),
            text if text.ends_with('M') => (text.trim_end_matches('M').to_owned(), 20),
            text if text.ends_with('G') => (text.trim_end_matches('G').to_owned(), 30),
            text if text.ends_with('T') => (text.trim_end_matches('T').to_owned(), 40),
            text => (text.to_owned(), 0),
        };
    let number: u64 = digits.parse().with_context(|| format!("`{size}` is not a size such as 64M or 1G"))?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .with_context(|| format!("`{size}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("512").unwrap(), 512);
        assert_eq!(bytes("64M").unwrap(), 64 << 20);
        assert_eq!(bytes("1g").unwrap(), 1 << 30);
        assert!(bytes("many").is_err());
        assert!(bytes("0").is_err());
        assert!(bytes("99999999999T").is_err());
    }
}
