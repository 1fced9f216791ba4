//! How the Linux host's machine is run: by KVM where that works, else by QEMU's translator.

use crate::command::note;
use crate::vm::Vm;
use crate::{interrupt, paths};
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// QEMU's translator, a thread per processor.
const TRANSLATOR: &str = "tcg,thread=multi";

/// Value of `-accel`, found out once. A /dev/kvm that exists may still not work, or only almost: a kernel is started to see.
pub fn choose(kernel: &Path) -> Result<&'static str> {
    static CHOSEN: Mutex<Option<&'static str>> = Mutex::new(None);
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    if chosen.is_none() {
        *chosen = Some(try_out(kernel)?);
    }
    Ok(chosen.unwrap_or(TRANSLATOR))
}

fn try_out(kernel: &Path) -> Result<&'static str> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(TRANSLATOR);
    }
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot", "-serial", "stdio"]);
    command.args(["-M", "q35", "-m", "512M", "-smp", "2", "-accel", "kvm", "-cpu", "max"]);
    // Without a file system the kernel panics, which with these arguments is QEMU's end.
    command.arg("-kernel").arg(kernel).args(["-append", "console=ttyS0 panic=-1"]);
    let log = paths::logs()?.join("kvm.serial");
    let mut vm = Vm::start(&mut command, &log)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut said = Vec::new();
    loop {
        match vm.read(Duration::from_millis(50)) {
            Ok(bytes) => said.extend(bytes),
            Err(_) => break,
        }
        let broken =
            paths::read(&log.with_extension("qemu")).is_ok_and(|text| text.contains("KVM internal error"));
        if broken || Instant::now() > deadline {
            break;
        }
    }
    interrupt::check()?;
    if String::from_utf8_lossy(&said).contains("Kernel panic") {
        return Ok("kvm");
    }
    note("this machine's KVM does not run a Linux kernel: using QEMU's translator");
    Ok(TRANSLATOR)
}
