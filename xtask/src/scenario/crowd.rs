//! More TCP connections than the card serves, and a real host's first exchange before and after them.

use crate::command::note;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The card's line each time the last connection has ended.
const IDLE: &str = r"^no host connected: \d+ of \d+ slots free";
/// Connections of [`visit_all_cores`]; fewer than one address may have.
const VISITORS: usize = 48;
/// How long the card may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of ICReq and of ICResp (NVMe/TCP Transport 1.x, 3.6.2.2 and 3.6.2.3).
const INITIALIZE_BYTES: usize = 128;

/// `[crowd]` of a scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    /// Number of connections that are opened.
    connections: usize,
    /// How many of them are served at once, at least; others are refused.
    served: usize,
    /// The line by which the card says that they are too many.
    refusal: String,
}

impl Crowd {
    /// Proves that a crowd is refused with a word, disturbs no host that was there before, and leaves nothing behind.
    /// `wait_for` waits for a line of the card's log.
    pub fn come_and_go(&self, port: u16, wait_for: &mut dyn FnMut(&str) -> Result<String>) -> Result<()> {
        let before = visit(port, wait_for)?;
        // One after the other: what is measured is how many there may be, not how fast they may come.
        let mut crowd: Vec<Option<TcpStream>> =
            (0..self.connections).map(|_| initialized(port).ok()).collect();
        let served = crowd.iter().flatten().count();
        if served < self.served || served == self.connections {
            bail!("{served} connections of {} were served at once", self.connections);
        }
        note(&format!("{served} connections of {} were served at once", self.connections));
        wait_for(&self.refusal)?;
        if !is_open(crowd.iter_mut().flatten().next().context("an empty crowd")?)? {
            bail!("the crowd has cost a host its connection");
        }
        drop(crowd);
        let after = wait_for(IDLE)?;
        if before != after {
            bail!("the card keeps something\nbefore: {before}\nafter:  {after}");
        }
        let at_last = visit(port, wait_for)?;
        if before != at_last {
            bail!("the card keeps something\nbefore:  {before}\nat last: {at_last}");
        }
        Ok(())
    }
}

/// One connection, long enough for the card to take note of it, and what the card says once it is gone.
fn visit(port: u16, wait_for: &mut dyn FnMut(&str) -> Result<String>) -> Result<String> {
    let mut stream = initialized(port)?;
    if !is_open(&mut stream)? {
        bail!("the card has closed a connection without a reason");
    }
    drop(stream);
    wait_for(IDLE)
}

/// So many connections at once that hardly any data core has none of them, long enough for each core to take note.
pub(super) fn visit_all_cores(port: u16) -> Result<()> {
    let mut streams = (0..VISITORS).map(|_| initialized(port)).collect::<Result<Vec<_>>>()?;
    // Of the last, the others were there before it.
    if !is_open(streams.last_mut().context("no visitors")?)? {
        bail!("the card has closed a connection without a reason");
    }
    Ok(())
}

/// A connection on which ICReq and ICResp have been exchanged.
fn initialized(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("the forwarded port")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut request = [0; INITIALIZE_BYTES];
    // PDU type ICReq, no flags, HLEN, no PDO, PLEN; all parameters 0: version, alignment, no digests, one R2T.
    request[2] = INITIALIZE_BYTES as u8;
    request[4] = INITIALIZE_BYTES as u8;
    stream.write_all(&request)?;
    let mut response = [0; INITIALIZE_BYTES];
    stream.read_exact(&mut response).context("no ICResp")?;
    let expected = (1, INITIALIZE_BYTES as u8, (INITIALIZE_BYTES as u32).to_le_bytes());
    let [kind, _, header_bytes, _, length @ ..] = std::array::from_fn::<u8, 8, _>(|index| response[index]);
    if (kind, header_bytes, length) != expected {
        bail!("this is no ICResp: {:02x?}", &response[..8]);
    }
    Ok(stream)
}

/// Whether the peer keeps the connection open for a moment; two of the card's ticks.
fn is_open(stream: &mut TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    match stream.read(&mut [0; 1]) {
        Ok(0) => Ok(false),
        Ok(_) => bail!("the card speaks without having been asked"),
        Err(error) => Ok(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
    }
}
