//! QEMU's machine protocol (QMP), spoken through a socket.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A conversation with one QEMU.
pub struct Qmp {
    stream: UnixStream,
    answers: Lines<BufReader<UnixStream>>,
}

impl Qmp {
    /// Begins it.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("QEMU's control socket")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let answers = BufReader::new(stream.try_clone()?).lines();
        let mut qmp = Self { stream, answers };
        qmp.command("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Gives a command and returns what QEMU answers.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let command = if arguments.is_null() {
            json!({"execute": name})
        } else {
            json!({"execute": name, "arguments": arguments})
        };
        self.send(&command)
    }

    /// Gives a whole command.
    pub fn send(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.stream, "{command}")?;
        // A greeting and events may come before the answer.
        loop {
            let line = self.answers.next().context("QEMU has closed its control socket")??;
            let mut answer: Value = serde_json::from_str(&line)?;
            if !answer["error"].is_null() {
                bail!("QEMU refuses `{command}`: {}", answer["error"]["desc"]);
            }
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }
}
