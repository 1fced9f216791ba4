//! `cargo xtask run`: the card in QEMU until Ctrl-C.

use crate::card_log::{CardLog, Ready, ready};
use crate::command::{note, typed};
use crate::hosted::{self, Build};
use crate::qemu::{self, Drive, Machine};
use crate::vm::Vm;
use crate::{image, interrupt, paths, setup};
use anyhow::{Result, bail};
use clap::Args;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the card may take before we say that it is late.
const LATE: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Args, Debug)]
pub struct Options {
    /// The board to build and run; `hosted` is a process of this machine, by default in a namespace of its own
    #[arg(long, default_value = "qemu-aarch64")]
    board: String,
    /// Number of emulated NVMe drives
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=16))]
    drives: u32,
    /// Size of each drive; its file is sparse and kept between runs
    #[arg(long, default_value = "1G", value_parser = size)]
    size: String,
    /// Bytes of a drive's logical block
    #[arg(long, default_value_t = 512, value_parser = block_size)]
    block_size: u32,
    /// Number of cores [default: the machine's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
    smp: Option<u32>,
    /// Memory, such as 1G, and at least 32M [default: the machine's]
    #[arg(long, value_parser = memory)]
    memory: Option<String>,
    /// Number of Ethernet ports; the first is connected as --net says, others are unplugged
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    ports: u32,
    /// `user` (forwarded from 127.0.0.1), `tap:NAME` (an interface that exists), or `unix:PATH` (another machine)
    #[arg(long, default_value = "user", value_parser = net)]
    net: String,
    /// Boot arguments, such as "ip=10.0.0.1/24"
    #[arg(long, default_value = "")]
    append: String,
    /// Build without debug assertions (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Build with debug assertions and without optimisation
    #[arg(long)]
    debug: bool,
    /// Wait for a debugger before the first instruction
    #[arg(long)]
    gdb: bool,
    /// Where the card's mailbox listens, for dpuctl [default: .penstock/mailbox in the checkout]
    #[arg(long, value_name = "PATH")]
    mailbox: Option<PathBuf>,
    /// Where the files of the drives and of the flash are [default: .penstock/drives in the checkout]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs the card.
pub fn run(options: &Options) -> Result<()> {
    if options.board == hosted::BOARD {
        return run_hosted(options);
    }
    setup::qemu()?;
    let image = image::build(&options.board, options.debug)?;
    let mut machine = Machine::of(&options.board)?;
    machine.smp = options.smp.unwrap_or(machine.smp);
    machine.memory = options.memory.clone().unwrap_or(machine.memory);
    let mut command = machine.command();
    command.arg("-kernel").arg(&image.flat).args(["-append", &options.append]);
    let folder = drives_folder(options)?;
    for number in 0..options.drives {
        let drive = Drive {
            name: drive_name(options, number),
            size: options.size.clone(),
            block_size: options.block_size,
            ..Drive::default()
        };
        drive.add(&mut command, &folder)?;
    }
    let net = Net::parse(&options.net)?;
    qemu::add_port(&mut command, 0, &net.netdev());
    for number in 1..options.ports as usize {
        qemu::add_port(&mut command, number, &format!("hubport,hubid={number}"));
    }
    // Beside the drives, whose namespaces it tells of.
    qemu::add_flash(&mut command, &folder)?;
    let mailbox = mailbox(options)?;
    qemu::add_mailbox(&mut command, &mailbox);
    note(&format!("mailbox: dpuctl --card {}", mailbox.display()));
    if options.gdb {
        command.args(["-s", "-S"]);
        note(&format!("waiting for: gdb-multiarch {} -ex 'target remote :1234'", image.elf.display()));
    }
    let log = paths::logs()?.join("run.serial");
    note(&format!("starting {}", typed(&command)));
    let mut vm = Vm::start(&mut command, &log)?;
    follow(&mut vm, &mut CardLog::new(&image.elf)?, &net, options.gdb)
}

fn mailbox(options: &Options) -> Result<PathBuf> {
    match &options.mailbox {
        Some(path) => Ok(path.clone()),
        None => Ok(paths::state()?.join("mailbox")),
    }
}

fn drives_folder(options: &Options) -> Result<PathBuf> {
    match &options.dir {
        Some(folder) => Ok(folder.clone()),
        None => Ok(paths::state()?.join("drives")),
    }
}

/// The block size is part of the name: a drive's data would be lost in translation.
fn drive_name(options: &Options, number: u32) -> String {
    let suffix = if options.block_size == 512 { "" } else { "-4k" };
    format!("penstock-drive{number}{suffix}")
}

/// Runs the card as a process of this machine, with the same drives' files.
fn run_hosted(options: &Options) -> Result<()> {
    if options.ports > 1 {
        bail!("--ports: the hosted card has one");
    }
    let kind = if options.debug || options.gdb { Build::Debug } else { Build::Release };
    let program = hosted::build(kind)?;
    let mut arguments: Vec<String> = match Net::parse_kind(&options.net) {
        Some(("tap", name)) => vec!["--tap".to_owned(), name.to_owned()],
        Some((_, path)) => vec!["--wire".to_owned(), path.to_owned()],
        None => vec!["--namespace".to_owned()],
    };
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    for number in 0..options.drives {
        let name = drive_name(options, number);
        add("--drive", hosted::drive(&drives_folder(options)?, &name, &options.size, options.block_size)?);
    }
    add("--config", paths::created(drives_folder(options)?)?.join("configuration").display().to_string());
    let mailbox = mailbox(options)?;
    note(&format!("mailbox: dpuctl --card {}", mailbox.display()));
    add("--mailbox", mailbox.display().to_string());
    if let Some(memory) = &options.memory {
        add("--memory", memory.clone());
    }
    if let Some(cores) = options.smp {
        add("--plan", if cores == 1 { "single" } else { "pair" }.to_owned());
    }
    if !options.append.is_empty() {
        add("--append", options.append.clone());
    }
    hosted::become_it(&program, &arguments, options.gdb)
}

/// Shows the card's log, and what to paste once the card is ready.
fn follow(vm: &mut Vm, log: &mut CardLog, net: &Net, patient: bool) -> Result<()> {
    let mut late = (!patient).then(|| Instant::now() + LATE);
    loop {
        let bytes = match vm.read(Duration::from_millis(200)) {
            Ok(bytes) => bytes,
            Err(_) if interrupt::pending() => {
                vm.kill();
                note("the card is off; its drives keep their data");
                return Ok(());
            }
            Err(error) => {
                for line in log.finish() {
                    println!("{}", line.shown);
                }
                if error.to_string().contains("\"write\" lock") {
                    note(
                        "another card runs with these drives: stop it, or name other drives by --dir FOLDER",
                    );
                }
                return Err(error);
            }
        };
        for line in log.feed(&bytes) {
            println!("{}", line.shown);
            if let Some(ready) = ready(&line.text) {
                late = None;
                announce(&ready, net);
            }
        }
        if late.is_some_and(|late| Instant::now() > late) {
            late = None;
            note(&format!(
                "not ready after {} s; still waiting. Raw log: {}",
                LATE.as_secs(),
                vm.log().display()
            ));
        }
    }
}

fn announce(ready: &Ready, net: &Net) {
    let (address, port, discovery) = match net {
        Net::User { port, discovery } => ("127.0.0.1".to_owned(), *port, *discovery),
        Net::Tap(_) | Net::Unix(_) => (ready.address.clone(), ready.port, 8009),
    };
    println!();
    println!("The card is ready: {} namespaces of {}", ready.namespaces, ready.nqn);
    println!();
    println!("    nvme discover -t tcp -a {address} -s {discovery}");
    println!("    nvme connect -t tcp -a {address} -s {port} -n {}", ready.nqn);
    println!();
    println!("Ctrl-C switches the card off.");
    println!();
}

/// What the first port is connected to.
#[derive(Debug, PartialEq, Eq)]
enum Net {
    /// QEMU's own network, forwarded from these ports of 127.0.0.1.
    User { port: u16, discovery: u16 },
    /// An interface of the machine that exists already.
    Tap(String),
    /// A socket that another QEMU connects to.
    Unix(String),
}

impl Net {
    /// What stands before and after the colon.
    fn parse_kind(text: &str) -> Option<(&str, &str)> {
        text.split_once(':')
    }

    fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "user" => {
                let port = free_port(4420)?;
                Ok(Self::User { port, discovery: free_port(8009)? })
            }
            Some(("tap", name)) if !name.is_empty() => Ok(Self::Tap(name.to_owned())),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.to_owned())),
            _ => bail!("--net {text}: say `user`, `tap:NAME` or `unix:PATH`"),
        }
    }

    fn netdev(&self) -> String {
        match self {
            Self::User { port, discovery } => {
                let forward = |from: u16, to: u16| format!("hostfwd=tcp:127.0.0.1:{from}-:{to}");
                format!("user,{},{}", forward(*port, 4420), forward(*discovery, 8009))
            }
            Self::Tap(name) => format!("tap,ifname={name},script=no,downscript=no,vhost=off"),
            Self::Unix(path) => {
                format!("stream,server=on,addr.type=unix,addr.path={}", qemu::escaped(path.as_ref()))
            }
        }
    }
}

/// A size that QEMU takes as well.
fn size(text: &str) -> Result<String, String> {
    qemu::bytes(text).map(|_| text.to_owned()).map_err(|error| format!("{error:#}"))
}

/// A memory size with which the card starts. QEMU takes a number without a unit for MiB.
fn memory(text: &str) -> Result<String, String> {
    let unit = if text.ends_with(|last: char| last.is_ascii_digit()) { "M" } else { "" };
    let text = size(&format!("{text}{unit}"))?;
    let enough = qemu::bytes(&text).is_ok_and(|bytes| bytes >= 32 << 20);
    if enough { Ok(text) } else { Err("the card needs at least 32M".to_owned()) }
}

/// A value of `--net`, looked at before anything is installed or built. QEMU itself makes a tap that nobody is
/// behind, deletes a file in the socket's place, and crashes where the socket cannot be made.
fn net(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        None if text == "user" => {}
        Some(("tap", name)) if !name.is_empty() => {
            if !Path::new("/sys/class/net").join(name).exists() {
                return Err(format!(
                    "there is no interface {name}; make it: sudo ip tuntap add {name} mode tap user $USER"
                ));
            }
        }
        Some(("unix", path)) if !path.is_empty() => {
            let (path, length) = (Path::new(path), path.len());
            if length > 107 {
                return Err(format!("the path has {length} bytes, and a socket's at most 107"));
            }
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                return Err("the socket's folder does not exist".to_owned());
            }
            if path.metadata().is_ok_and(|metadata| !metadata.file_type().is_socket()) {
                return Err("what is there is not a socket".to_owned());
            }
        }
        _ => return Err("say `user`, `tap:NAME` or `unix:PATH`".to_owned()),
    }
    Ok(text.to_owned())
}

/// The block sizes that the card serves.
fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("512 or 4096".to_owned()),
    }
}

/// The first free port from there on; says so when it is another one.
fn free_port(first: u16) -> Result<u16> {
    let port = qemu::free_port(first)?;
    if port != first {
        note(&format!("port {first} of 127.0.0.1 is in use: taking {port}"));
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_network_option_says_what_it_takes() {
        assert_eq!(Net::parse("tap:t0").unwrap(), Net::Tap("t0".to_owned()));
        assert_eq!(Net::parse("unix:/tmp/s").unwrap(), Net::Unix("/tmp/s".to_owned()));
        assert!(Net::parse("tap:").unwrap_err().to_string().contains("unix:PATH"));
    }

    #[test]
    fn what_qemu_would_stumble_over_is_refused_first() {
        assert_eq!(net("user").unwrap(), "user");
        assert!(net("unix:/tmp/penstock-no-such-socket").is_ok());
        assert!(net(&format!("unix:/tmp/{}", "a".repeat(103))).unwrap_err().contains("107"));
        assert!(net("unix:/nonexistent/socket").unwrap_err().contains("folder"));
        assert!(net("unix:/etc/passwd").unwrap_err().contains("not a socket"));
        assert!(net("tap:penstock-none").unwrap_err().contains("ip tuntap add"));
        assert!(net("bogus").unwrap_err().contains("unix:PATH"));
        assert!(size("1G").is_ok() && size("nonsense").is_err());
        assert_eq!(memory("512").unwrap(), "512M");
        assert!(memory("16M").unwrap_err().contains("32M"));
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let held = holder.local_addr().unwrap().port();
        assert_ne!(free_port(held).unwrap(), held);
    }
}
