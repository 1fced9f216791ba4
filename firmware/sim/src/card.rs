//! The simulated card: what `app` assembles over the fakes, and its cores, each with its own loop.
//!
//! A core that sleeps is stepped at its deadline, or when a device that it had armed gets something new: nothing else
//! wakes it. Work that waits in a device for long while its core sleeps is a lost wake-up.

mod cores;
mod steered;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use app::options::Options;
use app::sizes::{Sizes, mesh_bytes};
use app::{
    HotPlug, HotPlugRole, LineState, Memory, OrderlyEnd, PoolCounts, Power, PowerRole, Role, SHUTDOWN_LIMIT,
    Steering, assemble_cores, drive_ends, steered_port_bytes, steered_ports,
};
use fastrand::Rng;
use hal_api::{Instant, PortInfo};
use hal_fakes::{FakeFrameQueue, FakeNvme, FakeSlots, NvmeConfig, NvmeControl, frame_queue_pair};
use hal_mem::{Arena, DmaRegion, PAGE_BYTES};

use crate::kinds::Kind;
use crate::media::Time;
use crate::network::Network;
use crate::rss::Rss;
use crate::settings::{CARD_MEMORY_BYTES, Settings};
use crate::trace::Trace;

use cores::{Core, Data, Devices, Plugs, SharedData, cores, take_woken, wake};
use steered::CheckedQueue;

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

    // Nobody asks for it.
    fn restart(&mut self) {
        self.off.set(true);
    }
}

/// A card that runs.
pub struct Card {
    /// The data cores.
    data: Vec<SharedData>,
    /// All cores; the data cores come last.
    cores: Vec<Core>,
    random: Rng,
    time: Time,
    trace: Trace,
    told: Told,
    drives: Plugs,
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
        let (_, reach) = FakeNvme::new(NvmeConfig { namespaces: Vec::new(), ..NvmeConfig::default() });
        let info = PortInfo {
            mac: MAC,
            mtu: settings.mtu,
            receive_checksums_verified: settings.receive_checksums_verified,
            transmit_checksum_offload: settings.transmit_checksum_offload,
        };
        let pairs = (0..settings.port_queues).map(|_| frame_queue_pair(info, info, PORT_BUFFERS));
        let (ports, far): (Vec<_>, Vec<_>) = pairs.unzip();
        let key = Steering::key_from(random.u64(..));
        // A device that steers by itself, in its own way, is right only now and then.
        let of_device = if settings.port_steers { key } else { Steering::key_from(random.u64(..)) };
        let rss = Rss::new(of_device, settings.port_queues);
        let port_index = network.plug_queues(far, Some(rss), MAC, settings.receive_checksums_verified);
        assert_eq!(port_index, 0, "the card's port is the first");
        let mut devices = heapless::Vec::new();
        let plugs: Plugs = Rc::new(RefCell::new((0..most).map(|_| None).collect()));
        for (place, (index, drive, control)) in drives.into_iter().enumerate() {
            assert!(devices.push(drive).is_ok(), "too many drives");
            plugs.borrow_mut()[index] = Some((place, control));
        }
        let steering = &*Box::leak(Box::new(Steering::new(&key, settings.data_cores)));
        let mut data = data_cores(ports, steering, devices, &reach, random.u64(..), time.now());
        plugs.borrow().iter().flatten().for_each(|(_, control)| control.reach_as(&reach));
        let (button, end) = (Button::default(), &*Box::leak(Box::new(OrderlyEnd::new())));
        end.set_cores(data.len() as u8);
        data.iter_mut().for_each(|data| data.end_when_asked(end));
        let mut control: Vec<Box<dyn Role>> =
            vec![Box::new(PowerRole::new(|| LineState::Idle, Some(button.clone()), end))];
        if let Some(slots) = slots {
            let rings = data.iter_mut().map(|data| {
                let (ours, theirs) =
                    drive_ends(&mut Arena::leak_for_host(RING_BYTES)).expect("room for two rings");
                data.obey(theirs);
                ours
            });
            let rings: Vec<_> = rings.collect();
            control.push(Box::new(HotPlugRole::new(HotPlug::with_cores(slots, rings))));
        }
        let (count, ports) = (data.len(), network.watch_queues(port_index));
        let of_core = |core| Devices {
            port: ports.get(core).cloned(),
            drives: Rc::clone(&plugs),
            data_core: (core, count),
        };
        let devices: Vec<_> = (0..count).map(of_core).collect();
        let data: Vec<_> = data.into_iter().map(|data| SharedData::new(data, random.fork())).collect();
        let cores = cores(settings.one_core, control, &data, &devices, time);
        Self {
            data,
            cores,
            random,
            time: time.clone(),
            trace: trace.clone(),
            told: Told::default(),
            drives: plugs,
            reach,
            button,
            end,
            ending_since: None,
        }
    }

    /// A drive of the world is being plugged into a slot.
    pub fn admit(&self, index: usize, slot: usize, control: &NvmeControl) {
        control.reach_as(&self.reach);
        self.drives.borrow_mut()[index] = Some((slot, control.clone()));
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
        let is_empty = |counts: &PoolCounts| {
            (counts.connections, counts.draining) == (0, 0) && counts.slots_free == counts.slots
        };
        let done = self.end.is_over() && counts.iter().all(is_empty) && self.at_drives() == (0, 0);
        assert!(done, "VIOLATION: the card is off with {counts:?} and {:?} at drives", self.at_drives());
        true
    }

    fn each_core<R>(&self, mut look: impl FnMut(&Data) -> R) -> Vec<R> {
        self.data.iter().map(|data| look(&data.core.borrow())).collect()
    }

    /// What the pools of each data core hold.
    #[must_use]
    pub fn counts(&self) -> Vec<PoolCounts> {
        self.each_core(|data| data.pool_counts())
    }

    /// Whether each data core has everything back: only its part of the drives that are in keeps pages, and nothing is under way.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let whole = self.each_core(|data| {
            let counts = data.pool_counts();
            let of_drive = |drive: &drive::Drive<FakeNvme>| {
                if drive.is_home() { drive::limits::DRIVE_PAGES } else { drive::limits::IO_PAGES }
            };
            let pages_of_drives: u32 = data.drives().iter().map(of_drive).sum();
            let whole = PoolCounts {
                connections: 0,
                draining: 0,
                slots_free: counts.slots,
                pages_free: counts.pages - pages_of_drives,
                pages_promised: 0,
                ..counts
            };
            counts == whole && data.pending_changes() == (0, 0)
        });
        whole.into_iter().all(|whole| whole) && self.at_drives() == (0, 0)
    }

    /// What each data core has still to say and to confirm.
    #[must_use]
    pub fn pending_changes(&self) -> Vec<(usize, usize)> {
        self.each_core(|data| data.pending_changes())
    }

    /// Cores never say to each other what makes no sense.
    pub fn check_mesh(&self) {
        let faults = self.each_core(|data| data.mesh_faults());
        assert!(faults.iter().all(|&faults| faults == 0), "VIOLATION: mesh faults {faults:?}");
    }

    /// A controller's home knows of all its I/O queues at any time: it has granted them, and a reset is not complete, nor a queue's
    /// number free, before the core that has it is done.
    pub fn check_homes(&self) {
        for (core, data) in self.data.iter().enumerate() {
            let data = data.core.borrow();
            for (cntlid, queue_id) in data.io_queues() {
                let home = usize::from(data.home_of(cntlid));
                let knows = home == core || self.data[home].core.borrow().accounts_for(cntlid, queue_id);
                assert!(
                    knows,
                    "VIOLATION: core {core} has queue {queue_id} of controller {cntlid}, of which its home {home} does not know"
                );
            }
        }
    }

    /// Connects that waited for writes of their hosts' lost connections.
    #[must_use]
    pub fn held_connects(&self) -> u64 {
        self.each_core(|data| data.target_counters().held_connects).into_iter().sum()
    }

    /// How many drives carry requests out.
    #[must_use]
    pub fn drives_ready(&self) -> usize {
        self.ready_drives().len()
    }

    /// The addresses of the drives that carry requests out, on all data cores.
    #[must_use]
    pub fn ready_drives(&self) -> Vec<u16> {
        let mut ready: Vec<(u8, u16)> = self
            .each_core(|data| {
                let homes = data.drives().numbered().filter(|(_, drive)| drive.is_home() && drive.is_ready());
                homes.map(|(number, drive)| (number, drive.address())).collect::<Vec<_>>()
            })
            .concat();
        for data in &self.data {
            let data = data.core.borrow();
            ready.retain(|(number, _)| data.drives().get(*number).is_some_and(drive::Drive::is_ready));
        }
        ready.into_iter().map(|(_, address)| address).collect()
    }

    /// Requests in the drives' queues of all data cores, and those whose pages are in quarantine.
    #[must_use]
    pub fn at_drives(&self) -> (usize, usize) {
        let of_core = |data: &Data| {
            let drives = || data.drives().iter();
            (drives().map(drive::Drive::outstanding).sum(), drives().map(drive::Drive::quarantined).sum())
        };
        let each: Vec<(usize, usize)> = self.each_core(of_core);
        (each.iter().map(|(outstanding, _)| outstanding).sum(), each.iter().map(|(_, late)| late).sum())
    }

    /// Puts into the record what the card has counted since the last call.
    pub fn note_counters(&mut self) {
        let mut now = Told {
            quarantined: self.at_drives().1 as u64,
            found_by_arming: self.cores.iter().map(|core| core.devices.found_by_arming()).sum(),
            ..Told::default()
        };
        for data in &self.data {
            for counters in data.core.borrow().drives().iter().map(drive::Drive::counters) {
                now.late += counters.command_timeouts;
                now.aborted += counters.aborted;
                now.resets += counters.resets;
            }
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

    /// Whether the core that has this queue of the port takes turns.
    #[must_use]
    pub fn is_awake(&self, queue: usize) -> bool {
        let mut cores = self.cores.iter().filter(|core| core.devices.port.is_some());
        cores.nth(queue).is_some_and(|core| core.asleep.get().is_none())
    }

    /// A core does nothing for so long.
    pub fn pause(&mut self, core: usize, time: Duration) {
        let now = self.time.now();
        self.trace.event(Kind::Pause, &[core as u64], format_args!("core {core} for {time:?}"));
        let core = &mut self.cores[core];
        core.asleep.set(None);
        core.next = now + time;
        core.paused_until = core.next;
        // Others may have to wait for it with what they hold.
        self.cores.iter_mut().for_each(|core| core.waiting_since = None);
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
        let before = core.turns.reading();
        self.time.set_in_turn(true);
        core.turns.turn();
        self.time.set_in_turn(false);
        let after = core.turns.reading();
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

    /// Devices raise interrupts for what has come since their cores fell asleep, and cores are woken by others. Whoever is awake
    /// hears nothing: it looks before it sleeps.
    pub fn interrupt(&mut self) {
        let now = self.time.now();
        let woken = take_woken();
        let paused = self.cores.iter().any(|core| now < core.paused_until);
        for (index, core) in self.cores.iter_mut().enumerate() {
            let Some(sleep) = core.asleep.get() else { continue };
            if core.next != Instant::FAR_FUTURE {
                continue;
            }
            let is_called = core.data.is_some() && woken >> core.devices.data_core.0 & 1 != 0;
            if is_called || core.devices.have_raised(&sleep) {
                core.next = now + Duration::from_micros(self.random.u64(0..=INTERRUPT_US));
                self.trace.detail(Kind::Interrupt, &[index as u64], format_args!("core {index}"));
            }
            if is_called {
                self.trace.detail(Kind::CoreWoken, &[index as u64], format_args!("core {index}"));
            }
            // While the home of a drive waits for a core that pauses, it holds queues that are other cores'.
            if !paused && core.waiting_since.is_none() && core.has_waiting() {
                core.waiting_since = Some(now);
            }
        }
    }
}

/// What `app` makes of the card's data cores.
fn data_cores(
    ports: Vec<FakeFrameQueue>,
    steering: &'static Steering,
    drives: heapless::Vec<FakeNvme, { app::sizes::MAX_DRIVES }>,
    reach: &NvmeControl,
    seed: u64,
    now: Instant,
) -> Vec<&'static mut Data> {
    let (count, mtu) = (steering.cores(), hal_api::FrameQueue::info(&ports[0]).mtu);
    let sizes = Sizes::of(CARD_MEMORY_BYTES);
    let mut between = Arena::leak_for_host(mesh_bytes(count) + steered_port_bytes(count, ports.len(), mtu));
    let _ = take_woken();
    let rss = Rss::new(*steering.key(), count);
    let queues = steered_ports([ports], steering, &mut between, wake).expect("enough memory");
    let parts: Vec<_> = queues
        .into_iter()
        .enumerate()
        .map(|(core, queues)| {
            let queues = queues.into_iter().map(|queue| CheckedQueue::new(queue, core, rss)).collect();
            let pages = DmaRegion::leak_for_host(sizes.pages * PAGE_BYTES);
            reach.allow_dma(&pages);
            (queues, Memory { arena: Arena::leak_for_host(sizes.private_bytes), pages })
        })
        .collect();
    let (options, warnings) = Options::parse("ip=10.0.0.1/24 nqn=nqn.2014-08.org.example:card");
    assert!(warnings.is_empty());
    let data = assemble_cores(parts.into_iter(), drives, &options, &sizes, &mut between, seed, now);
    let mut data: Vec<_> = data.expect("enough memory").into_iter().collect();
    data.iter_mut().for_each(|data| data.wake_others_by(|core| wake(usize::from(core))));
    data
}
