//! Get Features and Set Features (Base 5.15, 5.27). No feature is saveable.

use hal_api::Instant;
use heapless::Vec;
use nvme::{Command, NSID_ALL, Status, features as id};

use crate::admit::Transfer;
use crate::association::rounded_keep_alive;
use crate::config::{MAX_NAMESPACES, WARNING_TEMPERATURE_K};
use crate::events::Event;
use crate::slot::{Controller, ControllerHandle};
use crate::subsystem::Subsystem;

/// Bits of Asynchronous Event Configuration that ask for SMART / Health events.
const HEALTH_EVENTS: u32 = 0xff;
/// OAES of an I/O controller.
pub(crate) const IO_NOTICES: u32 =
    Event::NamespaceAttributes.configuration_bits() | Event::AnaState.configuration_bits();
/// TMPSEL: the composite temperature, and (for Set) all sensors.
const COMPOSITE: u32 = 0;
const ALL_SENSORS: u32 = 0xf;
/// Bits of SEL = 3: changeable, specific to a namespace.
const CHANGEABLE: u64 = 1 << 2;
const NAMESPACE_SPECIFIC: u64 = 1 << 1;
/// DULBE of Error Recovery: an error for deallocated blocks, which is not supported.
const DEALLOCATED_ERROR: u32 = 1 << 16;
/// EXHID: the host identifier has 128 bits.
const EXTENDED_HOST_ID: u32 = 1;
const HOST_BEHAVIOR_BYTES: u32 = 512;
/// PS and WH of Power Management: there is one power state, and what a host says of its workload changes nothing.
const POWER_STATE: u32 = 0x1f;
const WORKLOAD_HINT: u32 = 0b111 << 5;
/// IOCSCI: the index of a combination of command sets in Identify CNS 1Ch, of which there is one.
const COMBINATION_INDEX: u32 = 0x1ff;
/// Fields of Host Behavior Support that are kept: ACRE, ETDAS, LBAFEE.
const HOST_BEHAVIOR_KEPT: usize = 3;

/// What hosts have set.
#[derive(Debug)]
pub(crate) struct FeatureValues {
    arbitration: u32,
    power_management: u32,
    error_recovery: ErrorRecovery,
    write_atomicity: u32,
    over_temperature_k: u16,
    under_temperature_k: u16,
    pub(crate) async_events: u32,
    /// The host's time in milliseconds, and when it was set.
    timestamp: Option<(u64, Instant)>,
    host_behavior: [u8; HOST_BEHAVIOR_KEPT],
}

impl FeatureValues {
    /// ACRE: the host takes Command Interrupted, and the delays of Command Retry Delay.
    pub(crate) const fn retries_commands(&self) -> bool {
        self.host_behavior[0] == 1
    }

    pub(crate) const fn new() -> Self {
        Self {
            arbitration: 0,
            power_management: 0,
            error_recovery: ErrorRecovery::new(),
            write_atomicity: 0,
            over_temperature_k: WARNING_TEMPERATURE_K,
            under_temperature_k: 0,
            async_events: 0,
            timestamp: None,
            host_behavior: [0; HOST_BEHAVIOR_KEPT],
        }
    }

    /// Back to the defaults, as at a controller reset.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Whether a composite temperature lies beyond a threshold (Base 5.27.1.3).
    pub(crate) const fn is_beyond_threshold(&self, temperature_k: u16) -> bool {
        temperature_k >= self.over_temperature_k || temperature_k <= self.under_temperature_k
    }
}

/// TLER of each namespace, which changes nothing: a drive's own time limits hold.
#[derive(Debug)]
struct ErrorRecovery {
    of_all: u16,
    /// Those that were set apart.
    apart: Vec<(u32, u16), MAX_NAMESPACES>,
}

impl ErrorRecovery {
    const fn new() -> Self {
        Self { of_all: 0, apart: Vec::new() }
    }

    fn get(&self, nsid: u32) -> u16 {
        let found = self.apart.iter().find(|(other, _)| *other == nsid);
        found.map_or(self.of_all, |(_, value)| *value)
    }

    fn set(&mut self, nsid: u32, value: u16) {
        if is_no_namespace(nsid) {
            *self = Self { of_all: value, ..Self::new() };
            return;
        }
        if let Some((_, found)) = self.apart.iter_mut().find(|(other, _)| *other == nsid) {
            *found = value;
            return;
        }
        // Namespaces come and go, and their values with them.
        if self.apart.is_full() {
            self.apart.remove(0);
        }
        let _ = self.apart.push((nsid, value));
    }
}

/// SEL of Get Features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Select {
    Current,
    /// The default, or the saved value, which is the default where nothing is saveable.
    Default,
    Capabilities,
}

impl Select {
    fn of(command: &Command) -> Result<Self, Status> {
        match command.cdw10.get() >> 8 & 0b111 {
            0 => Ok(Self::Current),
            1 | 2 => Ok(Self::Default),
            3 => Ok(Self::Capabilities),
            _ => Err(Status::INVALID_FIELD.do_not_retry()),
        }
    }
}

impl Subsystem {
    /// Whether the controller has this feature.
    pub(crate) fn has_feature(&self, controller: &Controller, feature: u8) -> bool {
        match feature {
            id::ASYNC_EVENT_CONFIGURATION | id::KEEP_ALIVE_TIMER => true,
            _ if controller.is_discovery() => false,
            id::ARBITRATION
            | id::POWER_MANAGEMENT
            | id::TEMPERATURE_THRESHOLD
            | id::ERROR_RECOVERY
            | id::NUMBER_OF_QUEUES
            | id::WRITE_ATOMICITY
            | id::TIMESTAMP
            | id::HOST_BEHAVIOR
            | id::COMMAND_SET_PROFILE
            | id::HOST_IDENTIFIER => true,
            id::VOLATILE_WRITE_CACHE => self.namespaces.any_volatile_cache(controller.subsystem),
            _ => false,
        }
    }

    pub(crate) fn admit_get_features(
        &self,
        controller: &Controller,
        command: &Command,
    ) -> Result<Transfer, Status> {
        let invalid = Status::INVALID_FIELD.do_not_retry();
        let feature = command.cdw10.get() as u8;
        let select = Select::of(command)?;
        if !self.has_feature(controller, feature) {
            return Err(invalid);
        }
        if select == Select::Capabilities {
            return Ok(Transfer::None);
        }
        match feature {
            id::TIMESTAMP => Ok(Transfer::ToHost { bytes: 8 }),
            id::HOST_BEHAVIOR => Ok(Transfer::ToHost { bytes: HOST_BEHAVIOR_BYTES }),
            id::HOST_IDENTIFIER if command.cdw11.get() & EXTENDED_HOST_ID == 0 => {
                Err(Status::HOST_ID_INCONSISTENT.do_not_retry())
            }
            id::HOST_IDENTIFIER => Ok(Transfer::ToHost { bytes: 16 }),
            id::TEMPERATURE_THRESHOLD if temperature_selector(command) != COMPOSITE => Err(invalid),
            id::TEMPERATURE_THRESHOLD if threshold_type(command) > 1 => Err(invalid),
            id::ERROR_RECOVERY => self.check_namespace(controller, command).map(|()| Transfer::None),
            _ => Ok(Transfer::None),
        }
    }

    /// Data of an admitted Get Features.
    pub(crate) fn fill_feature(&self, controller: &Controller, command: &Command, into: &mut [u8]) {
        let default = Select::of(command) == Ok(Select::Default);
        let features = &controller.features;
        let mut put = |data: &[u8]| {
            for (place, byte) in into.iter_mut().zip(data) {
                *place = *byte;
            }
        };
        match command.cdw10.get() as u8 {
            id::HOST_IDENTIFIER => put(&controller.host_id),
            id::HOST_BEHAVIOR if !default => put(&features.host_behavior),
            id::TIMESTAMP if !default => {
                const ORIGIN_SET_FEATURES: u64 = 1 << 1;
                let (base_ms, since, origin) = match features.timestamp {
                    Some((milliseconds, at)) => (milliseconds, at, ORIGIN_SET_FEATURES),
                    None => (0, Instant::ZERO, 0),
                };
                let elapsed_ms = self.now.as_millis().saturating_sub(since.as_millis());
                let milliseconds = base_ms.saturating_add(elapsed_ms) & 0xffff_ffff_ffff;
                put(&(milliseconds | origin << 48).to_le_bytes());
            }
            _ => {}
        }
    }

    /// Dword 0 of Get Features.
    pub(crate) fn get_features(&self, controller: &Controller, command: &Command) -> Result<u64, Status> {
        let feature = command.cdw10.get() as u8;
        let defaults = FeatureValues::new();
        let (values, is_default) = match Select::of(command)? {
            Select::Capabilities => return Ok(capabilities(feature)),
            Select::Default => (&defaults, true),
            Select::Current => (&controller.features, false),
        };
        let value = match feature {
            id::ARBITRATION => values.arbitration,
            id::POWER_MANAGEMENT => values.power_management,
            id::ERROR_RECOVERY => u32::from(values.error_recovery.get(command.nsid.get())),
            id::WRITE_ATOMICITY => values.write_atomicity,
            id::ASYNC_EVENT_CONFIGURATION => values.async_events,
            id::TEMPERATURE_THRESHOLD if threshold_type(command) == 0 => u32::from(values.over_temperature_k),
            id::TEMPERATURE_THRESHOLD => u32::from(values.under_temperature_k),
            id::VOLATILE_WRITE_CACHE => 1,
            id::NUMBER_OF_QUEUES if is_default => queues_field(self.config.max_io_queues),
            id::NUMBER_OF_QUEUES => queues_field(controller.granted_queues),
            id::KEEP_ALIVE_TIMER if is_default => 0,
            id::KEEP_ALIVE_TIMER => controller.keep_alive_ms,
            _ => 0,
        };
        Ok(u64::from(value))
    }

    pub(crate) fn admit_set_features(
        &self,
        controller: &Controller,
        command: &Command,
    ) -> Result<Transfer, Status> {
        let invalid = Status::INVALID_FIELD.do_not_retry();
        let feature = command.cdw10.get() as u8;
        let value = command.cdw11.get();
        if !self.has_feature(controller, feature) {
            return Err(invalid);
        }
        if command.cdw10.get() & 1 << 31 != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE.do_not_retry());
        }
        if is_of_namespace(feature) {
            self.check_namespace(controller, command)?;
        } else if !is_no_namespace(command.nsid.get()) {
            return Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC.do_not_retry());
        }
        let acceptable = match feature {
            id::POWER_MANAGEMENT => value & POWER_STATE == 0,
            id::TEMPERATURE_THRESHOLD => {
                matches!(temperature_selector(command), COMPOSITE | ALL_SENSORS)
                    && threshold_type(command) <= 1
            }
            id::ERROR_RECOVERY => value & DEALLOCATED_ERROR == 0,
            id::ASYNC_EVENT_CONFIGURATION => value & !offered_events(controller) == 0,
            id::NUMBER_OF_QUEUES => value & 0xffff != 0xffff && value >> 16 != 0xffff,
            _ => true,
        };
        if !acceptable {
            return Err(invalid);
        }
        match feature {
            // The drives' caches serve all hosts: one of them does not turn them off for the others.
            id::VOLATILE_WRITE_CACHE if value & 1 == 0 => Err(Status::FEATURE_NOT_CHANGEABLE.do_not_retry()),
            id::HOST_IDENTIFIER => Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()),
            id::COMMAND_SET_PROFILE if value & COMBINATION_INDEX != 0 => {
                Err(Status::COMMAND_SETS_REJECTED.do_not_retry())
            }
            id::NUMBER_OF_QUEUES if controller.queues & !1 != 0 => {
                Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry())
            }
            id::TIMESTAMP => Ok(Transfer::FromHost { bytes: 8 }),
            id::HOST_BEHAVIOR => Ok(Transfer::FromHost { bytes: HOST_BEHAVIOR_BYTES }),
            _ => Ok(Transfer::None),
        }
    }

    /// Applies an admitted Set Features.
    pub(crate) fn set_features(
        &mut self,
        handle: ControllerHandle,
        command: &Command,
        data: &[u8],
    ) -> Result<u64, Status> {
        let (now, max_io_queues) = (self.now, self.config.max_io_queues);
        let controller = self.controller_mut(handle).ok_or(Status::ABORTED_SQ_DELETION)?;
        let value = command.cdw11.get();
        let features = &mut controller.features;
        match command.cdw10.get() as u8 {
            id::ARBITRATION => features.arbitration = value,
            id::POWER_MANAGEMENT => features.power_management = value & WORKLOAD_HINT,
            id::ERROR_RECOVERY => features.error_recovery.set(command.nsid.get(), value as u16),
            id::WRITE_ATOMICITY => features.write_atomicity = value & 1,
            id::ASYNC_EVENT_CONFIGURATION => features.async_events = value,
            id::TEMPERATURE_THRESHOLD if threshold_type(command) == 0 => {
                features.over_temperature_k = value as u16;
            }
            id::TEMPERATURE_THRESHOLD => features.under_temperature_k = value as u16,
            id::KEEP_ALIVE_TIMER => controller.keep_alive_ms = rounded_keep_alive(value),
            id::NUMBER_OF_QUEUES => {
                // Both halves are zero-based and below FFFFh, which admission has checked.
                let asked = (value & 0xffff).min(value >> 16) as u16;
                controller.granted_queues = asked.saturating_add(1).min(max_io_queues);
                return Ok(u64::from(queues_field(controller.granted_queues)));
            }
            id::TIMESTAMP => {
                let bytes = data.first_chunk::<8>().ok_or(Status::DATA_TRANSFER_ERROR)?;
                features.timestamp = Some((u64::from_le_bytes(*bytes) & 0xffff_ffff_ffff, now));
            }
            id::HOST_BEHAVIOR => {
                let kept = data.first_chunk::<HOST_BEHAVIOR_KEPT>().ok_or(Status::DATA_TRANSFER_ERROR)?;
                if kept.iter().any(|&flag| flag > 1) {
                    return Err(Status::INVALID_FIELD.do_not_retry());
                }
                features.host_behavior = *kept;
            }
            _ => {}
        }
        Ok(0)
    }

    fn check_namespace(&self, controller: &Controller, command: &Command) -> Result<(), Status> {
        let nsid = command.nsid.get();
        if is_no_namespace(nsid) || self.namespaces.find(controller.subsystem, nsid).is_some() {
            return Ok(());
        }
        Err(Status::INVALID_NAMESPACE.do_not_retry())
    }
}

/// NSIDs that stand for the controller, or for all of its namespaces.
const fn is_no_namespace(nsid: u32) -> bool {
    matches!(nsid, 0 | NSID_ALL)
}

/// Whether namespaces have values of their own.
pub(crate) const fn is_of_namespace(feature: u8) -> bool {
    feature == id::ERROR_RECOVERY
}

fn offered_events(controller: &Controller) -> u32 {
    if controller.is_discovery() { Event::Discovery.configuration_bits() } else { HEALTH_EVENTS | IO_NOTICES }
}

/// NSQA and NCQA of Number of Queues, zero-based.
fn queues_field(queues: u16) -> u32 {
    let zero_based = u32::from(queues.saturating_sub(1));
    zero_based << 16 | zero_based
}

fn temperature_selector(command: &Command) -> u32 {
    command.cdw11.get() >> 16 & 0xf
}

/// THSEL: 0 over, 1 under.
fn threshold_type(command: &Command) -> u32 {
    command.cdw11.get() >> 20 & 0b11
}

fn capabilities(feature: u8) -> u64 {
    match feature {
        id::VOLATILE_WRITE_CACHE | id::HOST_IDENTIFIER | id::COMMAND_SET_PROFILE => 0,
        _ if is_of_namespace(feature) => CHANGEABLE | NAMESPACE_SPECIFIC,
        _ => CHANGEABLE,
    }
}

#[cfg(test)]
mod tests;
