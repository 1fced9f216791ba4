//! The world's drives: their identities, which outlive the card, and their controllers, which do not.

mod hands;
mod knobs;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use hal_api::Instant;
use hal_fakes::{FakeNvme, NvmeAbort, NvmeConfig, NvmeControl, NvmeNamespace};

use crate::card::{Card, Plugged};
use crate::host::Target;
use crate::kinds::Kind;
use crate::media::{Blocks, Temper, Time};
use crate::settings::{DriveSettings, Settings};
use crate::trace::Trace;
use crate::watch::{Over, Watch};

use hands::{Hands, Standing};
use knobs::Knob;

/// How often a drive that does not work is looked at.
const IDLE: Duration = Duration::from_millis(1);
/// An operation that takes longer makes its drive late.
const OVERDUE: Duration = Duration::from_secs(1);
/// ONCS bit 2.
const DATASET_MANAGEMENT: u16 = 1 << 2;

/// A drive.
#[derive(Debug)]
pub struct Drive {
    config: NvmeConfig,
    settings: DriveSettings,
    /// Its blocks.
    pub blocks: Blocks,
    /// Its controller.
    pub control: Option<NvmeControl>,
    /// Pulled, until then.
    pub away_until: Option<Instant>,
    /// The world's names of its namespaces.
    pub namespaces: Vec<u16>,
    /// The slot that it is in, where there are slots.
    standing: Option<Standing>,
    /// Something is wrong with it for a while.
    knob: Option<Knob>,
    /// It has done something since its power came on after which nobody can say what a shutdown is worth.
    odd: bool,
    /// It worked when the card's power button was pressed, and nothing was done to it since, so that the end has to reach
    /// it: how often its blocks had been in trouble by then.
    awaits_end: Option<u32>,
    /// It does not work (CSTS.CFS, a reset): what is due waits, and it is looked at again then.
    idle_until: Instant,
}

impl Drive {
    /// A controller as after power on. The one before must be gone, or pulled.
    fn controller(&mut self) -> (FakeNvme, NvmeControl) {
        let (device, control) = FakeNvme::with_media(self.config.clone(), self.blocks.media());
        control.set_abort(match self.settings.aborts {
            0..=5 => NvmeAbort::Works,
            6..=7 => NvmeAbort::TooLate,
            _ => NvmeAbort::Refused,
        });
        self.control = Some(control.clone());
        (self.odd, self.knob, self.awaits_end) = (false, None, None);
        (device, control)
    }

    /// Where its card finds it.
    #[must_use]
    pub fn address(&self) -> u16 {
        self.config.address
    }

    /// Whether it has a volatile cache.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.settings.volatile
    }

    /// Whether it was told of its shutdown, and nothing has happened that excuses a cache that was not flushed before.
    fn is_shut_down_in_order(&self) -> bool {
        self.is_told() && (self.has_worked_to_the_end() || (!self.odd && self.blocks.troubles() == 0))
    }

    /// Whether CC.SHN is set.
    fn is_told(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.configuration() >> 14 & 0b11 != 0)
    }

    /// Whether it has worked since before the card's power button was pressed.
    fn has_worked_to_the_end(&self) -> bool {
        self.awaits_end == Some(self.blocks.troubles())
    }

    /// The card is off: a drive that worked all the time must have been told, and flushed before, which the oracle judges
    /// by what is read later.
    fn check_end(&self, index: usize, trace: &Trace) {
        if !self.has_worked_to_the_end() {
            return;
        }
        assert!(
            self.is_told(),
            "VIOLATION: the card is off without having told drive {index}, which has worked to the end"
        );
        trace.event(Kind::EndHeard, &[index as u64], format_args!("drive {index}"));
    }

    /// When it has something to do.
    #[must_use]
    pub fn next_work(&self) -> Instant {
        self.blocks.next_end().max(self.idle_until)
    }

    /// Whether it is there, ready, and free of faults; nothing that runs is to end later than `by`.
    #[must_use]
    pub fn behaves(&self, by: Instant) -> bool {
        let there = self.away_until.is_none() && self.control.as_ref().is_some_and(NvmeControl::behaves);
        there && self.blocks.behave(by)
    }

    /// It does what is due.
    pub fn work(&mut self, now: Instant) {
        let Some(control) = &self.control else { return };
        control.work();
        if self.blocks.next_end() <= now {
            self.idle_until = now + IDLE;
        }
    }
}

/// All drives.
#[derive(Debug)]
pub struct Drives {
    /// Each of them.
    pub all: Vec<Drive>,
    hands: Option<Hands>,
    /// Drives stand in slots.
    has_slots: bool,
    /// The writes that nothing of may reach a drive any more.
    pub over: Over,
    random: Rng,
    time: Time,
    trace: Trace,
}

impl Drives {
    /// The drives that the settings ask for.
    #[must_use]
    pub fn new(settings: &Settings, mut random: Rng, time: &Time, trace: &Trace) -> Self {
        let (watch, over) = (Watch::default(), Over::default());
        let mut next_name = 0;
        let mut all = Vec::new();
        for (index, drive) in settings.drives.iter().enumerate() {
            let names: Vec<u16> = (0..drive.namespaces.len() as u16).map(|n| next_name + n).collect();
            next_name += drive.namespaces.len() as u16;
            let shapes: Vec<(u16, u64, usize)> = names
                .iter()
                .zip(&drive.namespaces)
                .map(|(&name, namespace)| (name, namespace.blocks, 1 << namespace.block_shift))
                .collect();
            let temper = Temper {
                least_us: drive.latency_us.0,
                most_us: drive.latency_us.1,
                slowness: 1,
                failing: 0,
                hanging: 0,
                even: settings.prompt,
            };
            let watches = (&watch, &over);
            let blocks = Blocks::new(&shapes, drive.volatile, temper, random.fork(), time, trace, watches);
            let config = config(index, drive, random.u64(..));
            all.push(Drive {
                config,
                settings: drive.clone(),
                blocks,
                control: None,
                away_until: drive.absent.then_some(Instant::FAR_FUTURE),
                namespaces: names,
                standing: None,
                knob: None,
                odd: false,
                awaits_end: None,
                idle_until: Instant::ZERO,
            });
        }
        let (time, trace) = (time.clone(), trace.clone());
        Self { all, hands: None, has_slots: settings.slots, over, random, time, trace }
    }

    /// The namespaces as hosts must find them, by NSID.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<u32, Target> {
        let mut targets = BTreeMap::new();
        for (index, drive) in self.all.iter().enumerate() {
            let (serial, model) = (
                controller::config::padded(&drive.config.serial),
                controller::config::padded(&drive.config.model),
            );
            for (namespace, &name) in drive.config.namespaces.iter().zip(&drive.namespaces) {
                let identity = controller::namespace_identity(
                    &serial,
                    &model,
                    namespace.nsid,
                    namespace.nguid,
                    namespace.eui64,
                );
                let target = Target {
                    index: name,
                    drive: index,
                    blocks: namespace.blocks,
                    block_shift: namespace.block_shift,
                    deallocates: drive.config.optional_commands & DATASET_MANAGEMENT != 0,
                };
                targets.insert(identity.nsid, target);
            }
        }
        targets
    }

    /// Which namespaces have a volatile cache before them, in the order of their names.
    #[must_use]
    pub fn volatile(&self) -> Vec<bool> {
        self.all.iter().flat_map(|drive| drive.namespaces.iter().map(|_| drive.settings.volatile)).collect()
    }

    fn now(&self) -> Instant {
        self.time.now()
    }

    /// Controllers for a card that starts, as after power on. The last card must be gone.
    #[must_use]
    pub fn power_on(&mut self) -> Plugged {
        if self.has_slots {
            return self.power_on_in_slots(self.now());
        }
        let power_on = |(index, drive): (usize, &mut Drive)| {
            let (device, control) = drive.controller();
            control.set_removed(drive.away_until.is_some());
            (index, device, control)
        };
        let drives = self.all.iter_mut().enumerate().map(power_on).collect();
        Plugged { drives, slots: None, most: self.all.len() }
    }

    /// The power of the card and of all drives goes. `in_order`: drives that were shut down have lost nothing that anybody
    /// relies on, and the oracle is not told of them.
    pub fn cut_power(&mut self, in_order: bool) {
        self.hands = None;
        for (index, drive) in self.all.iter_mut().enumerate() {
            if in_order {
                drive.check_end(index, &self.trace);
            }
            drive.blocks.cut_power();
            if in_order && drive.is_shut_down_in_order() {
                let _ = drive.blocks.take_power_losses();
            }
            (drive.control, drive.standing) = (None, None);
        }
    }

    /// The card's power button is pressed, while the card takes the drives at these addresses for ready; `is_well` says
    /// of a drive that nothing has been wrong with it of late.
    pub fn begin_end(&mut self, ready: &[u16], is_well: impl Fn(usize) -> bool) {
        let soon = self.now() + OVERDUE;
        for (index, drive) in self.all.iter_mut().enumerate() {
            let works = ready.contains(&drive.address()) && drive.behaves(soon) && is_well(index);
            drive.awaits_end = works.then(|| drive.blocks.troubles());
        }
    }

    /// A drive becomes slow, or quick again.
    pub fn set_slowness(&mut self, index: usize, slowness: u64) {
        let drive = &mut self.all[index];
        drive.awaits_end = None;
        drive.blocks.set_temper(|temper| temper.slowness = slowness);
    }

    /// Media fail and hang from now on as the settings say.
    pub fn begin_faults(&mut self) {
        for drive in &self.all {
            let (failing, hanging) = (drive.settings.failing, drive.settings.hanging);
            drive.blocks.set_temper(|temper| (temper.failing, temper.hanging) = (failing, hanging));
        }
    }

    /// Every drive is there and behaves from now on.
    pub fn mend(&mut self, card: Option<&Card>) {
        for index in 0..self.all.len() {
            self.all[index].blocks.set_temper(|temper| {
                (temper.failing, temper.hanging, temper.slowness) = (0, 0, 1);
            });
            if let Some(control) = &self.all[index].control {
                control.clear_injections();
            }
            self.all[index].end_knob();
            self.bring_back(index, card, true);
        }
    }

    /// Those that were not there at the start come at some time.
    pub fn let_absent_come(&mut self, now: Instant) {
        for drive in self.all.iter_mut().filter(|drive| drive.away_until == Some(Instant::FAR_FUTURE)) {
            drive.away_until = Some(now + Duration::from_millis(self.random.u64(0..2000)));
        }
    }

    /// Whether a drive is there.
    #[must_use]
    pub fn is_there(&self, index: usize) -> bool {
        self.all[index].away_until.is_none()
    }

    /// Whether a drive's media fail, or hang.
    #[must_use]
    pub fn is_faulty(&self, index: usize) -> (bool, bool) {
        let settings = &self.all[index].settings;
        (settings.failing > 0, settings.hanging > 0)
    }

    /// Pulls a drive.
    pub fn pull(&mut self, index: usize, until: Instant) {
        let drive = &mut self.all[index];
        if drive.away_until.is_some() {
            return;
        }
        drive.end_knob();
        drive.awaits_end = None;
        if let Some(control) = &drive.control {
            drive.away_until = Some(until);
            control.set_removed(true);
            self.trace.event(Kind::DriveRemoved, &[index as u64], format_args!("drive {index}"));
            self.leave_slot(index);
        }
    }

    /// Plugs a pulled drive in again.
    pub fn bring_back(&mut self, index: usize, card: Option<&Card>, quiet: bool) {
        let drive = &mut self.all[index];
        let Some(card) = card else {
            // It is there when the card starts.
            drive.away_until = None;
            return;
        };
        if drive.away_until.take().is_none() {
            return;
        }
        if self.has_slots {
            return self.insert(index, card, quiet);
        }
        if let Some(control) = &drive.control {
            control.set_removed(false);
            self.trace.event(Kind::DriveReturned, &[index as u64], format_args!("drive {index}"));
        }
    }
}

fn config(index: usize, settings: &DriveSettings, seed: u64) -> NvmeConfig {
    let namespace = |(place, shape): (usize, &crate::settings::NamespaceSettings)| NvmeNamespace {
        nguid: [0xc0 + index as u8; 16].map(|byte: u8| byte ^ place as u8),
        ..NvmeNamespace::new(place as u32 + 1, shape.blocks, shape.block_shift)
    };
    NvmeConfig {
        address: (index as u16 + 3) << 3,
        queue_entries: 32,
        queue_pairs: 1 + settings.io_queues,
        serial: format!("SIM{index:04}"),
        mdts: settings.mdts,
        optional_commands: settings.optional_commands,
        volatile_write_cache: settings.volatile,
        namespaces: settings.namespaces.iter().enumerate().map(namespace).collect(),
        ready_polls: 1,
        seed,
        ..NvmeConfig::default()
    }
}
