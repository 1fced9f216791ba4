//! The inputs that broke other targets, said to the card over its forwarded port. `nvmeof`'s tests say the same to the target alone.

use crate::command::say;
use anyhow::{Result, anyhow, bail};
use nvmeof_model::cases::{Bench, CASES};
use nvmeof_model::wire::whole_pdu;
use serde::Deserialize;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the card may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a connection may take: behind a crowd, QEMU's network leaves newcomers waiting.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// `[bad_input]` of a scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadInput {
    /// The card's NQN, as its boot arguments say.
    nqn: String,
}

impl BadInput {
    /// Runs all cases, one after the other, in a thread of their own.
    pub fn start(&self, port: u16) -> JoinHandle<Result<()>> {
        // For the rest of the process: there is one such scenario.
        let nqn: &'static str = self.nqn.clone().leak();
        std::thread::spawn(move || {
            let mut wires = Wires { port, nqn, open: Vec::new() };
            let mut failed = Vec::new();
            for case in CASES {
                let started = Instant::now();
                let outcome = case.run(&mut wires);
                let took = started.elapsed().as_secs_f64();
                let verdict = if outcome.is_ok() { "ok    " } else { "FAILED" };
                say(&format!("  {verdict}  {took:6.1} s  {}", case.name));
                failed.extend(outcome.err());
            }
            if failed.is_empty() {
                Ok(())
            } else {
                bail!("{} cases failed\n{}", failed.len(), failed.join("\n"))
            }
        })
    }
}

/// What came of the cases.
pub fn outcome(cases: JoinHandle<Result<()>>) -> Result<()> {
    cases.join().map_err(|_| anyhow!("the thread of the cases has panicked"))?
}

/// TCP connections to the card, and what has come that is no whole PDU yet.
struct Wires {
    port: u16,
    nqn: &'static str,
    open: Vec<(Option<TcpStream>, Vec<u8>)>,
}

impl Bench for Wires {
    fn open(&mut self) -> Result<usize, String> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), CONNECT_LIMIT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.set_write_timeout(Some(ANSWER_LIMIT))?;
            std::io::Result::Ok(stream)
        };
        let stream = connect().map_err(|error| error.to_string())?;
        self.open.push((Some(stream), Vec::new()));
        Ok(self.open.len() - 1)
    }

    fn send(&mut self, id: usize, bytes: &[u8]) {
        if let Some((Some(stream), _)) = self.open.get_mut(id) {
            // The card may have ended the connection: the answer tells.
            let _ = stream.write_all(bytes);
        }
    }

    fn next(&mut self, id: usize) -> Result<Option<Vec<u8>>, String> {
        let Some((Some(stream), taken)) = self.open.get_mut(id) else { return Ok(None) };
        let mut piece = vec![0; 1 << 16];
        loop {
            if let Some(length) = whole_pdu(taken) {
                return Ok(Some(taken.drain(..length).collect()));
            }
            match stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(bytes) => taken.extend(piece.iter().take(bytes)),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(format!("no answer: {error}")),
            }
        }
    }

    fn close(&mut self, id: usize) {
        if let Some((stream, _)) = self.open.get_mut(id) {
            *stream = None;
        }
    }

    fn pass(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn nqn(&self) -> &'static str {
        self.nqn
    }
}
