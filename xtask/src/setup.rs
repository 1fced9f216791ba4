//! `cargo xtask setup`: what the machine lacks for building and for QEMU.

use crate::command::{note, output};
use crate::paths::find_program;
use crate::{apt, board, toolchain};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// The oldest QEMU that the machines in `qemu/` are tried with.
const QEMU_OLDEST: (u32, u32) = (8, 2);

/// A file that must be there, and the Debian package that brings it.
struct Need {
    what: &'static str,
    package: &'static str,
    found: fn() -> bool,
}

const NEEDS: [Need; 4] = [
    Need {
        what: "qemu-system-aarch64, the card's machine",
        package: "qemu-system-arm",
        found: || qemu_ready("qemu-system-aarch64"),
    },
    Need {
        what: "qemu-system-x86_64, the machine of the Linux host in tests",
        package: "qemu-system-x86",
        found: || qemu_ready("qemu-system-x86_64"),
    },
    Need {
        what: "the boot ROM of QEMU's Ethernet cards",
        package: "ipxe-qemu",
        found: || {
            ["/usr/share/qemu/efi-virtio.rom", "/usr/lib/ipxe/qemu/efi-virtio.rom"]
                .iter()
                .any(|p| Path::new(p).exists())
        },
    },
    Need {
        what: "U-Boot for QEMU, for the `booti` test",
        package: "u-boot-qemu",
        found: || Path::new(crate::qemu::U_BOOT).is_file(),
    },
];

/// Makes the machine able to build, run and test. Does nothing where nothing is missing.
pub fn run() -> Result<()> {
    for board in board::images()? {
        toolchain::ensure(&board.target)?;
    }
    qemu()?;
    note("nothing is missing");
    Ok(())
}

/// Installs QEMU and its companions where they are missing or too old.
pub fn qemu() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.found)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        note(&format!("missing: {}", need.what));
    }
    if !apt::present() {
        bail!("{}", by_hand());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !apt::permitted() {
        bail!(
            "this needs root, and sudo is missing, refuses, or cannot ask for a password here. \
             Run this, and repeat:\n{}",
            as_root(&packages)?
        );
    }
    let suite = suite_with_qemu()?;
    apt::install(&packages, suite.as_deref())?;
    match missing.iter().find(|need| !(need.found)()) {
        Some(need) => bail!("package {} was installed and {} is still missing", need.package, need.what),
        None => Ok(()),
    }
}

/// The suite to install from; none where apt's own choice is new enough.
fn suite_with_qemu() -> Result<Option<String>> {
    for attempt in 0..3 {
        if let Some(offer) = recent_offer()? {
            return Ok(offer.suite.contains("backports").then_some(offer.suite));
        }
        match attempt {
            0 => apt::update()?,
            1 if apt::enable_backports()? => apt::update()?,
            _ => break,
        }
    }
    bail!(
        "this system's packages have no QEMU {}.{} or newer: install one so that \
         qemu-system-aarch64 and qemu-system-x86_64 are in PATH",
        QEMU_OLDEST.0,
        QEMU_OLDEST.1
    )
}

/// The best QEMU on offer that is new enough.
fn recent_offer() -> Result<Option<apt::Offer>> {
    let recent = |offer: &apt::Offer| apt::upstream(&offer.version).is_some_and(|v| v >= QEMU_OLDEST);
    Ok(apt::offers("qemu-system-arm")?.into_iter().find(recent))
}

/// The whole installation, for someone who may do it: one command a line.
fn as_root(packages: &[&str]) -> Result<String> {
    let mut lines = Vec::new();
    let mut suite = None;
    if let Some(offer) = recent_offer()? {
        suite = offer.suite.contains("backports").then_some(offer.suite);
    } else {
        if let Some(entry) = apt::backports()? {
            if !Path::new(&entry.place).exists() {
                lines.push(format!("install -m 644 {} {}", entry.file.display(), entry.place));
            }
            suite = Some(entry.suite);
        }
        lines.push("apt-get update".to_owned());
    }
    let from = suite.map(|suite| format!("-t {suite} ")).unwrap_or_default();
    lines.push(format!("apt-get install --no-install-recommends {from}{}", packages.join(" ")));
    Ok(lines.iter().map(|line| format!("    sudo {line}")).collect::<Vec<_>>().join("\n"))
}

/// Whether the program is there, runs, and is new enough.
fn qemu_ready(program: &str) -> bool {
    let Some(path) = find_program(program) else { return false };
    let Ok(text) = output(Command::new(path).arg("--version"), 30) else { return false };
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.and_then(apt::upstream).is_some_and(|version| version >= QEMU_OLDEST)
}

fn by_hand() -> String {
    let (major, minor) = QEMU_OLDEST;
    format!(
        "this machine has no apt, so nothing is installed here. Install by hand, and repeat:\n\
         - QEMU {major}.{minor} or newer with qemu-system-aarch64 and qemu-system-x86_64\n\
         \u{20}   Fedora: dnf install qemu-system-aarch64-core qemu-system-x86-core ipxe-roms-qemu\n\
         \u{20}   Arch:   pacman -S qemu-system-aarch64 qemu-system-x86\n\
         \u{20}   SUSE:   zypper install qemu-arm qemu-x86 qemu-ipxe\n\
         - for `test qemu` alone, U-Boot for QEMU at {}",
        crate::qemu::U_BOOT
    )
}
