//! What an operator is told of a drive by its home.

use hal_api::NvmeDevice;
use heapless::String;
use message::mailbox;
use nvme::log_page::SmartLog;

use super::{DriveHome, State};
use crate::events::DriveCounters;

impl<D: NvmeDevice> DriveHome<D> {
    pub fn told(&self) -> mailbox::DriveHome {
        let identity = &self.identity;
        let state = match self.state {
            State::Ready => mailbox::DriveState::Ready,
            State::Failed { .. } => mailbox::DriveState::Failed,
            State::ShutDown => mailbox::DriveState::Off,
            _ if self.is_ending() => mailbox::DriveState::Ending,
            _ => mailbox::DriveState::Starting,
        };
        mailbox::DriveHome {
            address: self.address(),
            serial: printable(&identity.serial),
            model: printable(&identity.model),
            firmware: printable(&identity.firmware),
            state,
            last_failure: self.last_failure.map_or_else(String::new, |why| printable(why.text().as_bytes())),
            queues: self.pairs_up,
            queue_depth: self.depth,
            health: self.smart.as_ref().map(health),
        }
    }
}

/// A drive's text without the blanks at its end. What it has beside printable ASCII is its own doing, and is not passed on.
fn printable<const N: usize>(bytes: &[u8]) -> String<N> {
    let mut text = String::new();
    for byte in bytes.trim_ascii() {
        let letter = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
        if text.push(letter).is_err() {
            break;
        }
    }
    text
}

fn health(log: &SmartLog) -> mailbox::DriveHealth {
    // 512 bytes, by the thousand (Base 5.16.1.3).
    let bytes = |units: &[u8; 16]| low(units).saturating_mul(512_000);
    mailbox::DriveHealth {
        critical_warning: log.critical_warning,
        temperature_k: log.temperature_k.get(),
        spare_percent: log.spare_percent,
        used_percent: log.used_percent,
        power_on_hours: low(&log.power_on_hours),
        unsafe_shutdowns: low(&log.unsafe_shutdowns),
        media_errors: low(&log.media_errors),
        read_bytes: bytes(&log.data_units_read),
        written_bytes: bytes(&log.data_units_written),
    }
}

/// As much of a counter of 128 bits as a counter of 64 shows.
fn low(counter: &[u8; 16]) -> u64 {
    u64::try_from(u128::from_le_bytes(*counter)).unwrap_or(u64::MAX)
}

impl From<DriveCounters> for mailbox::DriveCounters {
    fn from(counters: DriveCounters) -> Self {
        Self {
            commands: counters.commands,
            media_errors: counters.media_errors,
            other_errors: counters.other_errors,
            command_timeouts: counters.command_timeouts,
            aborted: counters.aborted,
            request_timeouts: counters.request_timeouts,
            resets: counters.resets,
            unknown_completions: counters.unknown_completions,
            lost_caches: counters.lost_caches,
            failures: counters.failures,
            busy: counters.busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn a_drive_that_puts_anything_into_its_name_is_told_in_printable_letters() {
        assert_eq!(printable::<8>(b"QEMU\x1b[2J   ").as_str(), "QEMU?[2J");
        assert_eq!(printable::<20>(b"S 1\xff                ").as_str(), "S 1?");
    }

    #[test]
    fn counters_beyond_64_bits_stay_at_the_top() {
        let mut log = SmartLog::new_zeroed();
        (log.power_on_hours, log.data_units_read) = ([0xff; 16], [0; 16]);
        log.data_units_read[0] = 3;
        let told = health(&log);
        assert_eq!((told.power_on_hours, told.read_bytes), (u64::MAX, 1_536_000));
    }

    #[test]
    fn every_reason_of_failure_is_told_whole() {
        // The longest of them.
        let text = crate::events::FailReason::CreateSubmissionQueue.text();
        assert_eq!(printable::<56>(text.as_bytes()).as_str(), text);
        assert!(crate::events::FailReason::ForgotState.text().len() <= 56);
    }
}
