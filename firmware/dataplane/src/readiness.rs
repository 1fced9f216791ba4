//! When the card is ready to serve, and saying so.

use core::net::IpAddr;
use core::time::Duration;

use controller::{Listener, MAX_LISTENERS, Subsystem};
use hal_api::Instant;
use heapless::Vec;

/// After this long the card is called ready even though a drive has neither come up nor failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn bit(drive: u8) -> u32 {
    1u32.checked_shl(u32::from(drive)).unwrap_or(0)
}

/// Which drives have come up or failed, and what was last said of it.
pub(crate) struct Readiness {
    drives: u32,
    settled: u32,
    said: Vec<Listener, MAX_LISTENERS>,
}

impl Readiness {
    /// Waits for so many drives.
    pub(crate) fn new(drives: usize) -> Self {
        Self { drives: bit(drives.min(31) as u8).wrapping_sub(1), settled: 0, said: Vec::new() }
    }

    /// A drive has come up or failed. True when that is so for the first time.
    pub(crate) fn settled(&mut self, drive: u8) -> bool {
        // One that has come later than those of boot may have a number that is not waited for.
        let is_first = bit(drive) & !self.settled != 0;
        self.settled |= bit(drive);
        is_first
    }

    /// Whether hosts can reach the card, and were told so.
    pub(crate) fn is_ready(&self) -> bool {
        !self.said.is_empty()
    }

    /// Says that the card is ready, once for each address that it comes to have; true when it has just said so.
    /// Of several cores the first says it.
    pub(crate) fn report(&mut self, now: Instant, subsystem: &Subsystem) -> bool {
        let waiting = self.drives & !self.settled != 0 && now < Instant::ZERO + PATIENCE;
        let listeners = subsystem.listeners();
        if waiting || listeners == self.said.as_slice() {
            return false;
        }
        let is_first = subsystem.core() == 0;
        for lost in self.said.iter().filter(|said| is_first && !is_replaced(listeners, said)) {
            hal_log::warn!("not reachable by port {}: it has lost its address", lost.port_id.0);
        }
        let mut has_said = false;
        for listener in listeners.iter().filter(|listener| !self.said.contains(listener)) {
            has_said = true;
            if !is_first {
                continue;
            }
            let (namespaces, nqn) = (subsystem.namespaces().len(), subsystem.config().nqn.as_str());
            let port = listener.port;
            match listener.address {
                IpAddr::V4(address) => {
                    hal_log::info!("ready: {} namespaces of {} at {}:{}", namespaces, nqn, address, port);
                }
                IpAddr::V6(address) => {
                    hal_log::info!("ready: {} namespaces of {} at [{}]:{}", namespaces, nqn, address, port);
                }
            }
        }
        self.said.clear();
        for listener in listeners {
            // It has room for as many.
            let _ = self.said.push(*listener);
        }
        has_said
    }
}

/// Whether its port has an address of the same protocol.
fn is_replaced(listeners: &[Listener], one: &Listener) -> bool {
    let same =
        |other: &Listener| (other.port_id, other.address.is_ipv4()) == (one.port_id, one.address.is_ipv4());
    listeners.iter().any(same)
}
