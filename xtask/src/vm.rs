//! A running virtual machine: its serial port as bytes, its log file, its end.

use crate::command::{Guarded, typed};
use crate::interrupt;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// A QEMU whose first serial port is on standard input and output. Ends with the value.
pub struct Vm {
    process: Guarded,
    keyboard: Option<ChildStdin>,
    bytes: Receiver<Vec<u8>>,
    log: PathBuf,
}

impl Vm {
    /// Starts QEMU. `log` gets the serial port's bytes as they are; what QEMU itself says goes to `log` + `.qemu`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let said = File::create(log.with_extension("qemu"))
            .with_context(|| format!("{} cannot be written", log.display()))?;
        writeln!(&said, "{}", typed(command))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let mut process = Guarded::spawn(command)?;
        let keyboard = process.child().stdin.take();
        let mut serial = process.child().stdout.take().context("the serial port is not piped")?;
        let mut copy = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let (sender, bytes) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = serial.read(&mut buffer) {
                let chunk = &buffer[..count];
                // A full disk must not stop the machine; the run itself still sees the bytes.
                let _ = copy.write_all(chunk);
                if sender.send(chunk.to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, keyboard, bytes, log: log.to_path_buf() })
    }

    /// The next bytes of the serial port; empty when none came in that time; an error once QEMU has ended.
    pub fn read(&mut self, wait: Duration) -> Result<Vec<u8>> {
        if let Some(bytes) = self.read_to_end(wait)? {
            return Ok(bytes);
        }
        let status = self.status()?;
        // Its first line is the command, which may be long and has been shown.
        let said = std::fs::read_to_string(self.log.with_extension("qemu")).unwrap_or_default();
        let said: Vec<&str> = said.lines().skip(1).collect();
        bail!("QEMU ended ({status}):\n{}", said[said.len().saturating_sub(5)..].join("\n"))
    }

    /// The same, but `None` once QEMU has ended.
    pub fn read_to_end(&mut self, wait: Duration) -> Result<Option<Vec<u8>>> {
        interrupt::check()?;
        match self.bytes.recv_timeout(wait) {
            Ok(mut bytes) => {
                while let Ok(more) = self.bytes.try_recv() {
                    bytes.extend(more);
                }
                Ok(Some(bytes))
            }
            Err(RecvTimeoutError::Timeout) => Ok(Some(Vec::new())),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    /// How QEMU has ended.
    pub fn status(&mut self) -> Result<ExitStatus> {
        self.process.wait(Duration::from_secs(5))
    }

    /// Types into the serial port.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let keyboard = self.keyboard.as_mut().context("the serial port takes no input")?;
        keyboard.write_all(text.as_bytes())?;
        keyboard.flush().context("QEMU takes no input any more")
    }

    /// Stops it at once, as when the power is cut.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Number of the QEMU process.
    pub fn process(&mut self) -> u32 {
        self.process.child().id()
    }

    /// The file with the serial port's bytes.
    pub fn log(&self) -> &Path {
        &self.log
    }
}
