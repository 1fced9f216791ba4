//! The simulated card: what `app` assembles over the fakes, and its cores, each with its own loop.
//!
//! A core that sleeps is stepped at its deadline, or when a device that it had armed gets something new: nothing else
//! wakes it. Work that waits in a device for long while its core sleeps is a lost wake-up.

mod cores;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use app::options::Options;
use app::sizes::Sizes;
use app::{
    Hardware, HotPlug, HotPlugRole, LineState, Memory, OrderlyEnd, PoolCounts, Power, PowerRole, Role,
    SHUTDOWN_LIMIT, assemble, drive_ends,
};
use fastrand::Rng;
use hal_api::{Instant, PortInfo};
use hal_fakes::{FakeNvme, FakeSlots, NvmeConfig, NvmeControl, frame_queue_pair};
use hal_mem::{Arena, DmaRegion, PAGE_BYTES};

use crate::kinds::Kind;
use crate::media::Time;
use crate::network::Network;
use crate::settings::{CARD_MEMORY_BYTES, Settings};
use crate::trace::Trace;

pub use cores::QUEUE_PAIRS;
use cores::{Core, Devices, SharedData, cores};

/// The card's station address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The subsystem's NQN.
pub const NQN: &str = "nqn.2014-08.org.example:card";
/// Buffers of the card's port in each direction.
const PORT_BUFFERS: usize = 256;
/// Memory for the two rings between control and a data core, above what they take.
const RING_BYTES: usize = 1 << 20;
/// What an interrupt takes at most, in microseconds.
const INTERRUPT_US: u64 = 40;
/// Work that waits so long in a device of a sleeping core was forgotten.
const LOST_WAKE_UP: Duration = Duration::from_millis(3);

/// From the press of the power button to the end of the data core, with the pauses of a core.
const END_LIMIT: Duration = SHUTDOWN_LIMIT.saturating_add(Duration::from_secs(8));

/// The drives that a card starts with, each with its place in the world, and its slots.
pub struct Plugged {
    /// In the order of the bus.
    pub drives: Vec<(usize, FakeNvme, NvmeControl)>,
    /// `None` where drives do not come and go.
    pub slots: Option<FakeSlots>,
    /// How many drives there may ever be.
    pub most: usize,
}

/// The power button and the switch behind it.
#[derive(Clone, Default)]
struct Button {
    pressed: Rc<Cell<bool>>,
    off: Rc<Cell<bool>>,
}

impl Power for Button {
    fn is_pressed(&mut self) -> bool {
        self.pressed.take()
    }

    fn off(&mut self) {
        self.off.set(true);
    }
}

/// A card that runs.
pub struct Card {
    data: SharedData,
    cores: Vec<Core>,
    random: Rng,
    time: Time,
    trace: Trace,
    told: Told,
    devices: Devices,
    /// Has what a drive needs to know of the card's memory.
    reach: NvmeControl,
    button: Button,
    end: &'static OrderlyEnd,
    /// Since when the orderly end is under way.
    ending_since: Option<Instant>,
}

/// What the card has counted, as far as the record has it.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    late: u64,
    aborted: u64,
    resets: u64,
    quarantined: u64,
    found_by_arming: u64,
}

impl Card {
    /// Starts a card over drives that are there, on port 0 of `network`.
    #[must_use]
    pub fn start(
        settings: &Settings,
        plugged: Plugged,
        network: &mut Network,
        mut random: Rng,
        time: &Time,
        trace: &Trace,
    ) -> Self {
        let Plugged { drives, slots, most } = plugged;
        trace.event(Kind::Boot, &[drives.len() as u64], format_args!("{} drives", drives.len()));
        let sizes = Sizes::of(CARD_MEMORY_BYTES);
        let pages = DmaRegion::leak_for_host(sizes.pages * PAGE_BYTES);
        let (_, reach) = FakeNvme::new(NvmeConfig { namespaces: Vec::new(), ..NvmeConfig::default() });
        reach.allow_dma(&pages);
        let info = PortInfo {
            mac: MAC,
            mtu: settings.mtu,
            receive_checksums_verified: settings.receive_checksums_verified,
            transmit_checksum_offload: settings.transmit_checksum_offload,
        };
        let (port, far) = frame_queue_pair(info, info, PORT_BUFFERS);
        let port_index = network.plug(far, MAC, settings.receive_checksums_verified);
        assert_eq!(port_index, 0, "the card's port is the first");
        let devices = Devices {
            port: Some(network.watch(0)),
            drives: Rc::new(RefCell::new((0..most).map(|_| None).collect())),
        };
        let mut hardware = Hardware { ports: heapless::Vec::from_iter([port]), drives: heapless::Vec::new() };
        for (place, drive, control) in drives {
            control.reach_as(&reach);
            assert!(hardware.drives.push(drive).is_ok(), "too many drives");
            devices.drives.borrow_mut()[place] = Some(control);
        }
        let memory = Memory { arena: Arena::leak_for_host(sizes.private_bytes), pages };
        let (options, warnings) = Options::parse("ip=10.0.0.1/24 nqn=nqn.2014-08.org.example:card");
        assert!(warnings.is_empty());
        let seed = random.u64(..);
        let data = assemble(hardware, &options, &sizes, memory, seed, time.now()).expect("enough memory");
        let (button, end) = (Button::default(), &*Box::leak(Box::new(OrderlyEnd::new())));
        data.end_when_asked(end);
        let mut control: Vec<Box<dyn Role>> =
            vec![Box::new(PowerRole::new(|| LineState::Idle, Some(button.clone()), end))];
        if let Some(slots) = slots {
            let (ours, theirs) =
                drive_ends(&mut Arena::leak_for_host(RING_BYTES)).expect("room for two rings");
            data.obey(theirs);
            control.push(Box::new(HotPlugRole::new(HotPlug::new(slots, ours))));
        }
        let data = SharedData(Rc::new(RefCell::new(data)));
        let cores = cores(settings.one_core, control, &data, &devices, time);
        Self {
            data,
            cores,
            random,
            time: time.clone(),
            trace: trace.clone(),
            told: Told::default(),
            devices,
            reach,
            button,
            end,
            ending_since: None,
        }
    }

    /// A drive of the world is being plugged in.
    pub fn admit(&self, place: usize, control: &NvmeControl) {
        control.reach_as(&self.reach);
        self.devices.drives.borrow_mut()[place] = Some(control.clone());
    }

    /// Somebody presses the power button; whether it is the first press, which counts.
    pub fn press_power_button(&mut self) -> bool {
        self.button.pressed.set(true);
        let first = self.ending_since.is_none();
        self.ending_since.get_or_insert(self.time.now());
        first
    }

    /// Whether the card has switched itself off. Then its orderly end must be complete.
    #[must_use]
    pub fn is_off(&self) -> bool {
        if let Some(since) = self.ending_since {
            let time = self.time.now().since(since);
            assert!(self.end.is_over() || time < END_LIMIT, "VIOLATION: no orderly end after {time:?}");
        }
        if !self.button.off.get() {
            return false;
        }
        let counts = self.counts();
        let done = self.end.is_over()
            && (counts.connections, counts.draining) == (0, 0)
            && counts.slots_free == counts.slots
            && self.at_drives() == (0, 0);
        assert!(done, "VIOLATION: the card is off with {counts:?} and {:?} at drives", self.at_drives());
        true
    }

    /// What the pools hold.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        self.data.0.borrow().pool_counts()
    }

    /// Connects that waited for writes of their hosts' lost connections.
    #[must_use]
    pub fn held_connects(&self) -> u64 {
        self.data.0.borrow().target_counters().held_connects
    }

    /// How many drives carry requests out.
    #[must_use]
    pub fn drives_ready(&self) -> usize {
        self.data.0.borrow().drives().iter().filter(|drive| drive.is_ready()).count()
    }

    /// The addresses of the drives that carry requests out.
    #[must_use]
    pub fn ready_drives(&self) -> Vec<u16> {
        let data = self.data.0.borrow();
        data.drives().iter().filter(|drive| drive.is_ready()).map(drive::Drive::address).collect()
    }

    /// Requests in the drives' queues, and those whose pages are in quarantine.
    #[must_use]
    pub fn at_drives(&self) -> (usize, usize) {
        let data = self.data.0.borrow();
        let drives = || data.drives().iter();
        (drives().map(drive::Drive::outstanding).sum(), drives().map(drive::Drive::quarantined).sum())
    }

    /// Puts into the record what the card has counted since the last call.
    pub fn note_counters(&mut self) {
        let mut now = Told {
            quarantined: self.at_drives().1 as u64,
            found_by_arming: self.devices.found_by_arming(),
            ..Told::default()
        };
        for counters in self.data.0.borrow().drives().iter().map(drive::Drive::counters) {
            now.late += counters.command_timeouts;
            now.aborted += counters.aborted;
            now.resets += counters.resets;
        }
        let before = std::mem::replace(&mut self.told, now);
        for (kind, before, now) in [
            (Kind::CommandLate, before.late, now.late),
            (Kind::AbortHelps, before.aborted, now.aborted),
            (Kind::DriveReset, before.resets, now.resets),
            (Kind::Quarantine, before.quarantined, now.quarantined),
            (Kind::FoundByArming, before.found_by_arming, now.found_by_arming),
        ] {
            if now > before {
                self.trace.event(kind, &[now], format_args!("{before} -> {now}"));
            }
        }
    }

    /// How many cores there are.
    #[must_use]
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// When a core takes its next turn.
    #[must_use]
    pub fn next_turn(&self, core: usize) -> Instant {
        let core = &self.cores[core];
        core.asleep.get().map_or(core.next, |sleep| core.next.min(sleep.deadline))
    }

    /// Whether the core that has the port takes turns.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.cores.last().is_some_and(|core| core.asleep.get().is_none())
    }

    /// A core does nothing for so long.
    pub fn pause(&mut self, core: usize, time: Duration) {
        let now = self.time.now();
        self.trace.event(Kind::Pause, &[core as u64], format_args!("core {core} for {time:?}"));
        let core = &mut self.cores[core];
        core.asleep.set(None);
        core.waiting_since = None;
        core.next = now + time;
    }

    /// One turn of a core.
    pub fn turn(&mut self, index: usize) {
        let now = self.time.now();
        let core = &mut self.cores[index];
        if let Some(since) = core.waiting_since.take()
            && core.asleep.get().is_some()
        {
            let waited = now.since(since);
            assert!(
                waited < LOST_WAKE_UP,
                "VIOLATION: lost wake-up: work waited {waited:?} for sleeping core {index}"
            );
        }
        core.asleep.set(None);
        let before = core.turns.turns();
        self.time.set_in_turn(true);
        core.turns.turn();
        self.time.set_in_turn(false);
        let after = core.turns.turns();
        if let Some(sleep) = core.asleep.get() {
            let values = [index as u64, sleep.deadline.as_micros()];
            self.trace.detail(
                Kind::Sleep,
                &values,
                format_args!("core {index} until {}", sleep.deadline.as_micros()),
            );
            core.next = Instant::FAR_FUTURE;
            return;
        }
        let worked = after.productive > before.productive;
        let micros = if worked { self.random.u64(2..=40) } else { self.random.u64(1..=3) };
        core.next = now + Duration::from_micros(micros);
    }

    /// Devices raise interrupts for what has come since their cores fell asleep.
    pub fn interrupt(&mut self) {
        let now = self.time.now();
        for (index, core) in self.cores.iter_mut().enumerate() {
            let Some(sleep) = core.asleep.get() else { continue };
            if core.next != Instant::FAR_FUTURE {
                continue;
            }
            let devices = &core.devices;
            if devices.have_raised(&sleep) {
                core.next = now + Duration::from_micros(self.random.u64(0..=INTERRUPT_US));
                self.trace.detail(Kind::Interrupt, &[index as u64], format_args!("core {index}"));
            }
            if devices.wait() && core.waiting_since.is_none() {
                core.waiting_since = Some(now);
            }
        }
    }
}
