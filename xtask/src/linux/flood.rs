//! Connection requests that nobody completes, made frame by frame.

use super::relay::{Relay, Side};
use super::segment::{SYN, Segment};
use crate::qemu;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// `flood` of a step: SYN segments from addresses that do not exist.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flood {
    /// Requests a second.
    pub syn_per_s: u32,
}

/// A flood that runs until the value goes away.
pub struct RunningFlood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RunningFlood {
    /// Floods the card's address and port.
    pub fn start(flood: Flood, relay: &Arc<Relay>, address: &str, port: u16) -> Result<Self> {
        let address: Ipv4Addr = address.parse().context("the card's address is no IPv4 address")?;
        let card = qemu::card_mac(0);
        let (relay, stop) = (Arc::clone(relay), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let pause = Duration::from_secs(1) / flood.syn_per_s.max(1);
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            // Relaxed: nothing else is published by the flag.
            while !stopped.load(Ordering::Relaxed) {
                relay.send(Side::Card, &request(number, &card, address, port));
                number += 1;
                std::thread::sleep(pause);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for RunningFlood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The `number`th request: from one of 100 neighbours that are not there, and a port of its own.
fn request(number: u32, card: &str, address: Ipv4Addr, port: u16) -> Vec<u8> {
    let [a, b, c, _] = address.octets();
    let neighbour = 100 + (number % 100) as u8;
    let mut station = [0; 6];
    let bytes = card.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok());
    station.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    let source = Ipv4Addr::new(a, b, c, neighbour);
    let request = Segment {
        stations: [station, [0x52, 0x54, 0, 0, 0, neighbour]],
        from: SocketAddrV4::new(source, 1024 + (number / 100 % 60_000) as u16),
        to: SocketAddrV4::new(address, port),
        sequence: number.wrapping_mul(2_654_435_761),
        acknowledged: 0,
        flags: SYN,
        data_bytes: 0,
    };
    request.frame()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_place_of_its_own() {
        let target = Ipv4Addr::new(10, 0, 0, 1);
        let frame = request(12_345, "52:54:00:ca:4d:00", target, 4420);
        assert_eq!((frame.len(), &frame[..6]), (60, &[0x52, 0x54, 0, 0xca, 0x4d, 0][..]));
        let ends = |number| request(number, "52:54:00:ca:4d:00", target, 4420)[26..36].to_vec();
        assert_ne!(ends(0), ends(1));
        assert_ne!(ends(0), ends(100));
    }
}
