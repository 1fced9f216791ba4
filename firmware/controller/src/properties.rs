//! Property Get and Property Set (Base 6.5, 6.6) and the controller's states (Base 3.5, 3.6, 3.7).

use hal_api::Instant;
use hal_log::{debug, info, warn};
use message::{CoreSet, EndReason};
use nvme::fabrics::property;
use nvme::registers::{Configuration, ControllerStatus, VERSION_1_4, offset};
use nvme::{Command, Status};

use crate::execute::Outcome;
use crate::lines::LineKind;
use crate::slot::{Controller, ControllerHandle, Part, Shutdown, ShutdownFlush};
use crate::subsystem::Subsystem;

/// What the controllers comply with. Version 2.0 makes pages mandatory (Feature Identifiers Supported and Effects,
/// CAP.CRMS and CRTO among others) that are not offered.
pub(crate) const VERSION: u32 = VERSION_1_4;

/// CAP.CQR: queues are contiguous; mandatory over fabrics.
const CONTIGUOUS_QUEUES: u64 = 1 << 16;
/// CAP.TO: 7.5 s; the card is ready at once.
const READY_TIMEOUT: u64 = 15 << 24;
/// CAP.CSS: the NVM command set, also by way of CC.CSS = 110b, which makes Identify CNS 06h and 1Ch valid.
const COMMAND_SETS: u64 = 1 << 37 | 1 << 43;
/// CC.CSS that selects all command sets.
const ALL_COMMAND_SETS: u8 = 0b110;

impl Subsystem {
    /// CAP (Base 3.1.3.1): queue entries, no doorbells, 4 KiB pages only, no subsystem reset.
    pub(crate) fn capabilities(&self) -> u64 {
        u64::from(self.config.max_queue_entries - 1) | CONTIGUOUS_QUEUES | READY_TIMEOUT | COMMAND_SETS
    }

    pub(crate) fn property_get(&self, controller: &Controller, command: &Command) -> Result<u64, Status> {
        let invalid = Status::INVALID_FIELD.do_not_retry();
        if command.cdw10.get() & 0b111 > 1 {
            return Err(invalid);
        }
        match property(command) {
            (offset::CAP, 8, _) => Ok(self.capabilities()),
            (offset::VS, 4, _) => Ok(u64::from(VERSION)),
            (offset::CC, 4, _) => Ok(u64::from(controller.configuration.0)),
            (offset::CSTS, 4, _) => Ok(u64::from(controller.status.bits())),
            _ => Err(invalid),
        }
    }

    /// Only CC can be set: CAP, VS and CSTS are read-only here, and NSSR is not supported.
    pub(crate) fn property_set(
        &mut self,
        handle: ControllerHandle,
        now: Instant,
        command: &Command,
    ) -> Outcome {
        let Some(controller) = self.controller_mut(handle) else {
            return Outcome::failed(Status::ABORTED_SQ_DELETION);
        };
        if command.cdw10.get() & 0b111 > 1 {
            return Outcome::failed(Status::INVALID_FIELD.do_not_retry());
        }
        let (offset::CC, 4, value) = property(command) else {
            debug!("controller {}: property {:#x} cannot be set", controller.id, command.cdw11.get());
            return Outcome::failed(Status::INVALID_FIELD.do_not_retry());
        };
        let (id, old, new) = (controller.id, controller.configuration, Configuration(value as u32));
        let stops = controller.configure(new);
        controller.last_activity = now;
        let asked = controller.shutdown == Shutdown::Asked;
        self.shutdown_asked |= asked;
        self.tell_of_configuration(id, old, new, now);
        if stops {
            self.counters.resets += 1;
            self.end_elsewhere(handle, EndReason::Reset);
            Outcome::ControllerReset
        } else {
            Outcome::done(0)
        }
    }

    fn tell_of_configuration(&mut self, id: u16, old: Configuration, new: Configuration, now: Instant) {
        let enables = !old.enabled() && new.enabled();
        if enables && !is_acceptable(new) && self.may_say(LineKind::Controllers, now) {
            warn!("controller {}: CC {:#010x} asks for what there is not", id, new.0);
        }
        if old.enabled() && !new.enabled() && self.may_say(LineKind::Controllers, now) {
            info!("controller {}: reset by its host", id);
        }
        if old.shutdown() == 0 && new.shutdown() != 0 && self.may_say(LineKind::Controllers, now) {
            info!("controller {}: shut down by its host", id);
        }
    }
}

impl Subsystem {
    /// Whether hosts have asked for a shutdown since the last call: what they were told of is to be made durable, as `flush`
    /// says, and [`Self::complete_shutdowns`] is called until then.
    pub fn begin_shutdowns(&mut self, flush: ShutdownFlush) -> bool {
        if !core::mem::take(&mut self.shutdown_asked) {
            return false;
        }
        let mut any = false;
        let due =
            |controller: &&mut Controller| controller.shutdown == Shutdown::Asked && !controller.is_ending();
        for controller in self.controllers_mut().filter(due) {
            controller.shutdown = Shutdown::Flushing(flush);
            any = true;
        }
        any
    }

    /// CSTS.SHST says that a shutdown is complete where `is_over` does. It is asked for each that waits, with the
    /// controller's number. Returns whether some go on waiting.
    pub fn complete_shutdowns(&mut self, mut is_over: impl FnMut(u16, ShutdownFlush) -> bool) -> bool {
        let mut wait = false;
        for controller in self.controllers_mut() {
            let Shutdown::Flushing(flush) = controller.shutdown else { continue };
            if is_over(controller.id, flush) {
                controller.complete_shutdown();
            } else {
                wait = true;
            }
        }
        wait
    }
}

impl Controller {
    fn complete_shutdown(&mut self) {
        self.shutdown = Shutdown::No;
        self.status.remove(ControllerStatus::SHUTDOWN_OCCURRING);
        self.status |= ControllerStatus::SHUTDOWN_COMPLETE;
    }

    fn enable(&mut self) {
        if is_acceptable(self.configuration) {
            self.status = ControllerStatus::READY;
        } else {
            self.status = ControllerStatus::FATAL;
        }
    }

    /// No other core has queues of it any more: what CC has asked for since comes true.
    pub(crate) fn ended_elsewhere(&mut self) {
        let Part::Home { delegates, queues_elsewhere, ending } = &mut self.part else { return };
        self.queues &= !*queues_elsewhere;
        (*delegates, *queues_elsewhere) = (CoreSet::NONE, 0);
        if !core::mem::take(ending) {
            return;
        }
        if !self.configuration.enabled() {
            self.status.remove(ControllerStatus::READY);
        } else if self.shutdown == Shutdown::No {
            self.enable();
        }
    }

    /// Takes a new CC. True when the controller stops: reset or shut down.
    fn configure(&mut self, new: Configuration) -> bool {
        let old = core::mem::replace(&mut self.configuration, new);
        let mut stops = false;
        if !old.enabled() && new.enabled() {
            // One that was asked for while the controller was not enabled ends here, and must not stop it later.
            self.shutdown = Shutdown::No;
            if !self.is_ending() {
                self.enable();
            }
        } else if old.enabled() && !new.enabled() {
            // CSTS.RDY stays until the other cores have ended their queues.
            let kept =
                if self.delegates().is_empty() { ControllerStatus::empty() } else { ControllerStatus::READY };
            self.status &= kept;
            self.shutdown = Shutdown::No;
            self.features.reset();
            self.events.reset();
            stops = true;
        }
        if old.shutdown() == 0 && new.shutdown() != 0 {
            self.status |= ControllerStatus::SHUTDOWN_OCCURRING;
            self.shutdown = Shutdown::Asked;
            if self.is_discovery() {
                self.complete_shutdown();
            }
            self.events.reset();
            stops = true;
        }
        if stops && let Part::Home { queues_elsewhere, .. } = self.part {
            self.closing_queues = self.queues & !queues_elsewhere & !1;
        }
        stops
    }
}

/// Whether a host may enable the controller so: 4 KiB pages, round robin, entries of 64 and 16 bytes, and a
/// command set that there is.
fn is_acceptable(cc: Configuration) -> bool {
    let pages_and_arbitration = cc.0 >> 7 & 0x7f;
    let entry_sizes = cc.0 >> 16 & 0xff;
    let wanted = Configuration::ENABLED.0 >> 16 & 0xff;
    pages_and_arbitration == 0 && entry_sizes == wanted && matches!(cc.command_set(), 0 | ALL_COMMAND_SETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, property_get, property_set};
    use crate::{Outcome, QueueContext};
    use nvme::registers::Capabilities;

    fn get(bench: &mut Bench, offset: u32, bytes: u32) -> Result<u64, Status> {
        match bench.execute_admin(&property_get(offset, bytes)) {
            Outcome::Done { status, result } if status.is_success() => Ok(result),
            Outcome::Done { status, .. } => Err(status.code()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn properties_read_back() {
        let mut bench = Bench::connected();
        let cap = Capabilities(get(&mut bench, offset::CAP, 8).unwrap());
        assert_eq!(cap.max_queue_entries(), 128);
        assert!(cap.supports_nvm() && cap.supports_io_command_sets() && cap.0 & CONTIGUOUS_QUEUES != 0);
        assert_eq!((cap.min_page_bytes(), cap.ready_timeout_ms()), (4096, 7500));
        assert_eq!(get(&mut bench, offset::VS, 4), Ok(0x10400));
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(0));
        for (offset, bytes) in [(offset::CAP, 4), (offset::VS, 8), (offset::NSSR, 4), (0x24, 4), (2, 4)] {
            assert_eq!(get(&mut bench, offset, bytes), Err(Status::INVALID_FIELD), "{offset:#x}");
        }
    }

    const FLUSH: ShutdownFlush = ShutdownFlush { ticket: 1, until: Instant::FAR_FUTURE };

    #[test]
    fn enable_reset_and_shutdown_follow_the_state_machine() {
        let mut bench = Bench::connected();
        let enabled = Configuration::ENABLED;
        assert_eq!(bench.execute_admin(&property_set(offset::CC, 4, enabled.0)), Outcome::done(0));
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(1));
        let shutdown = property_set(offset::CC, 4, enabled.with_shutdown().0);
        assert_eq!(bench.execute_admin(&shutdown), Outcome::ControllerReset);
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(0b0101));
        bench.subsystem.complete_shutdowns(|_, _| true);
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(0b0101), "not before caches were flushed");
        assert!(bench.subsystem.begin_shutdowns(FLUSH) && !bench.subsystem.begin_shutdowns(FLUSH));
        bench.subsystem.complete_shutdowns(|_, _| true);
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(0b1001));
        assert_eq!(bench.execute_admin(&property_set(offset::CC, 4, 0)), Outcome::ControllerReset);
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(0));
        assert_eq!(bench.subsystem.counters().resets, 2);
        let all_sets = enabled.with_all_command_sets();
        assert_eq!(bench.execute_admin(&property_set(offset::CC, 4, all_sets.0)), Outcome::done(0));
        assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(1));
    }

    #[test]
    fn a_shutdown_of_a_disabled_controller_does_not_stop_it_once_enabled() {
        for flushing in [false, true] {
            let mut bench = Bench::connected();
            let enabled = Configuration::ENABLED;
            bench.execute_admin(&property_set(offset::CC, 4, enabled.0));
            bench.execute_admin(&property_set(offset::CC, 4, enabled.with_shutdown().0 & !1));
            if flushing {
                assert!(bench.subsystem.begin_shutdowns(FLUSH));
            }
            bench.execute_admin(&property_set(offset::CC, 4, enabled.0));
            assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(1));
            bench.subsystem.begin_shutdowns(FLUSH);
            bench.subsystem.complete_shutdowns(|_, _| true);
            assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(1), "flushing: {flushing}");
        }
    }

    #[test]
    fn enabling_with_wrong_sizes_is_fatal_until_reset() {
        for wrong in
            [1, 1 | 4 << 16 | 6 << 20, Configuration::ENABLED.0 | 1 << 7, Configuration::ENABLED.0 | 1 << 4]
        {
            let mut bench = Bench::connected();
            bench.execute_admin(&property_set(offset::CC, 4, wrong));
            assert_eq!(get(&mut bench, offset::CSTS, 4), Ok(2), "{wrong:#x}");
        }
    }

    #[test]
    fn other_properties_cannot_be_set() {
        let mut bench = Bench::connected();
        for (offset, bytes) in [(offset::CAP, 8), (offset::CSTS, 4), (offset::NSSR, 4), (offset::CC, 8)] {
            let outcome = bench.execute_admin(&property_set(offset, bytes, 1));
            assert_eq!(outcome, Outcome::failed(Status::INVALID_FIELD.do_not_retry()));
        }
        let io = QueueContext { queue_id: 1, ..bench.admin };
        let refused = bench.subsystem.admit(&io, &property_set(offset::CC, 4, 1));
        assert_eq!(refused.unwrap_err().code(), Status::INVALID_QUEUE_TYPE);
    }
}
