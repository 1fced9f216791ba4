//! When the card is ready to serve, and saying so.

use core::net::IpAddr;
use core::time::Duration;

use controller::Subsystem;
use hal_api::Instant;

/// After this long the card is called ready even though a drive has neither come up nor failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn bit(drive: u8) -> u32 {
    1u32.checked_shl(u32::from(drive)).unwrap_or(0)
}

/// Which drives have come up or failed, and what was last said of it.
pub(crate) struct Readiness {
    drives: u32,
    settled: u32,
    said: Option<IpAddr>,
}

impl Readiness {
    /// Waits for the drives of these numbers.
    pub(crate) fn new(drives: impl Iterator<Item = u8>) -> Self {
        Self { drives: drives.fold(0, |all, drive| all | bit(drive)), settled: 0, said: None }
    }

    /// A drive has come up or failed for the first time.
    pub(crate) fn settled(&mut self, drive: u8) {
        self.settled |= bit(drive);
    }

    /// Whether hosts can reach the card, and were told so.
    pub(crate) fn is_ready(&self) -> bool {
        self.said.is_some()
    }

    /// Says that the card is ready, once for each address that it comes to have; true when it has just said so.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        subsystem: &Subsystem,
        address: Option<IpAddr>,
        port: u16,
    ) -> bool {
        let waiting = self.drives & !self.settled != 0 && now < Instant::ZERO + PATIENCE;
        if waiting || address == self.said {
            return false;
        }
        self.said = address;
        match address {
            Some(address) => hal_log::info!(
                "ready: {} namespaces of {} at {}:{}",
                subsystem.namespaces().len(),
                subsystem.config().nqn.as_str(),
                address,
                port,
            ),
            None => hal_log::warn!("not reachable: the port has lost its address"),
        }
        address.is_some()
    }
}
