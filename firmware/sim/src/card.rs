//! The simulated card: what `app` assembles over the fakes, and its cores, each with its own loop.
//!
//! A core that sleeps is stepped at its deadline, or when a device that it had armed gets something new: nothing else
//! wakes it. Work that waits in a device for long while its core sleeps is a lost wake-up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use app::options::Options;
use app::sizes::Sizes;
use app::{ControlRole, CoreLoop, DataCore, Hardware, LineState, Memory, PoolCounts, Role, assemble};
use fastrand::Rng;
use hal_api::{Clock, Instant, PortInfo, Wake};
use hal_fakes::{FakeFrameQueue, FakeNvme, FarEnd, NvmeControl, QueueNews, frame_queue_pair};
use hal_mem::{Arena, DmaRegion, PAGE_BYTES};

use crate::kinds::Kind;
use crate::media::Time;
use crate::network::Network;
use crate::settings::{CARD_MEMORY_BYTES, Settings};
use crate::trace::Trace;

/// The card's station address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The subsystem's NQN.
pub const NQN: &str = "nqn.2014-08.org.example:card";
/// Buffers of the card's port in each direction.
const PORT_BUFFERS: usize = 256;
/// Queue pairs of a drive: for administration and for the one data core.
pub const QUEUE_PAIRS: u16 = 2;
/// Queue pairs of all drives together.
const MOST_QUEUES: usize = 16;
/// What an interrupt takes at most, in microseconds.
const INTERRUPT_US: u64 = 40;
/// Work that waits so long in a device of a sleeping core was forgotten.
const LOST_WAKE_UP: Duration = Duration::from_millis(3);

type Data = DataCore<FakeFrameQueue, FakeNvme>;

/// A data core that its loop and the simulator share.
#[derive(Clone)]
struct SharedData(Rc<RefCell<&'static mut Data>>);

impl Role for SharedData {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        self.0.borrow_mut().poll(now, budget)
    }
    fn arm(&mut self) -> bool {
        self.0.borrow_mut().arm()
    }
    fn disarm(&mut self) {
        self.0.borrow_mut().disarm();
    }
    fn next_deadline(&mut self, now: Instant) -> Instant {
        self.0.borrow_mut().next_deadline(now)
    }
}

struct SimClock(Time);

impl Clock for SimClock {
    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// A sleep that has begun.
#[derive(Debug, Clone, Copy)]
struct Sleep {
    deadline: Instant,
    /// Frames that had come to the port by then, if it was armed.
    port: Option<u64>,
    /// Which queues of drives were armed, a bit for each, and what they had posted before.
    armed: u64,
    posted: [u64; MOST_QUEUES],
}

/// Takes note of a sleep; the simulator does the waiting.
struct SimWake {
    asleep: Rc<Cell<Option<Sleep>>>,
    devices: Devices,
}

impl Wake for SimWake {
    fn sleep_until(&mut self, deadline: Instant) {
        let port = self.devices.port.as_ref().filter(|port| port.is_armed()).map(FarEnd::arrivals);
        let (mut armed, mut posted) = (0, [0; MOST_QUEUES]);
        for (index, news) in self.devices.queues().filter(|(_, news)| news.armed) {
            armed |= 1 << index;
            posted[index] = news.posted_before_arming;
        }
        self.asleep.set(Some(Sleep { deadline, port, armed, posted }));
    }
}

/// The devices that wake a core.
#[derive(Clone, Default)]
struct Devices {
    port: Option<FarEnd>,
    drives: Vec<NvmeControl>,
}

impl Devices {
    /// Queue pairs of all drives, and their numbers.
    fn queues(&self) -> impl Iterator<Item = (usize, QueueNews)> {
        let all = self.drives.iter().flat_map(|drive| (0..QUEUE_PAIRS).map(|qid| drive.news(qid)));
        all.enumerate()
    }

    /// Whether a queue that was armed has got something since.
    fn have_raised(&self, sleep: &Sleep) -> bool {
        self.queues().any(|(index, news)| sleep.armed >> index & 1 != 0 && news.posted > sleep.posted[index])
    }

    /// How often a core that was about to sleep found a completion.
    fn found_by_arming(&self) -> u64 {
        self.queues().map(|(_, news)| news.found_by_arming).sum()
    }

    /// Whether something waits to be taken.
    fn wait(&self) -> bool {
        self.port.as_ref().is_some_and(FarEnd::has_frame) || self.queues().any(|(_, news)| news.waiting)
    }
}

/// A core.
struct Core {
    turns: CoreLoop<'static, 'static, SimClock, SimWake>,
    asleep: Rc<Cell<Option<Sleep>>>,
    devices: Devices,
    /// When it takes its next turn; while it sleeps, when it is woken.
    next: Instant,
    /// Since when work has waited for it while it sleeps.
    waiting_since: Option<Instant>,
}

/// A card that runs.
pub struct Card {
    data: SharedData,
    cores: Vec<Core>,
    random: Rng,
    time: Time,
    trace: Trace,
    told: Told,
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
        drives: Vec<(FakeNvme, NvmeControl)>,
        network: &mut Network,
        mut random: Rng,
        time: &Time,
        trace: &Trace,
    ) -> Self {
        trace.event(Kind::Boot, &[drives.len() as u64], format_args!("{} drives", drives.len()));
        let sizes = Sizes::of(CARD_MEMORY_BYTES);
        let pages = DmaRegion::leak_for_host(sizes.pages * PAGE_BYTES);
        let info = PortInfo {
            mac: MAC,
            mtu: settings.mtu,
            receive_checksums_verified: settings.receive_checksums_verified,
            transmit_checksum_offload: settings.transmit_checksum_offload,
        };
        let (port, far) = frame_queue_pair(info, info, PORT_BUFFERS);
        let port_index = network.plug(far, MAC, settings.receive_checksums_verified);
        assert_eq!(port_index, 0, "the card's port is the first");
        let mut devices = Devices { port: Some(network.watch(0)), drives: Vec::new() };
        let mut hardware = Hardware { port: Some(port), drives: heapless::Vec::new() };
        for (drive, control) in drives {
            control.allow_dma(&pages);
            assert!(hardware.drives.push(drive).is_ok(), "too many drives");
            devices.drives.push(control);
        }
        let memory = Memory { arena: Arena::leak_for_host(sizes.private_bytes), pages };
        let (options, warnings) = Options::parse("ip=10.0.0.1/24 nqn=nqn.2014-08.org.example:card");
        assert!(warnings.is_empty());
        let seed = random.u64(..);
        let data = assemble(hardware, &options, &sizes, memory, seed, time.now()).expect("enough memory");
        let data = SharedData(Rc::new(RefCell::new(data)));
        let cores = cores(settings.one_core, &data, &devices, time);
        Self { data, cores, random, time: time.clone(), trace: trace.clone(), told: Told::default() }
    }

    /// What the pools hold.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        self.data.0.borrow().pool_counts()
    }

    /// Whether all drives carry requests out.
    #[must_use]
    pub fn drives_are_ready(&self) -> bool {
        self.data.0.borrow().drives().iter().all(drive::Drive::is_ready)
    }

    /// Whether a drive carries requests out.
    #[must_use]
    pub fn drive_is_ready(&self, index: usize) -> bool {
        self.data.0.borrow().drives().get(index as u8).is_some_and(drive::Drive::is_ready)
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
            found_by_arming: self.cores.iter().map(|core| core.devices.found_by_arming()).sum(),
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
            let arrived = |before: u64| devices.port.as_ref().is_some_and(|port| port.arrivals() > before);
            let raised = sleep.port.is_some_and(arrived) || devices.have_raised(&sleep);
            if raised {
                core.next = now + Duration::from_micros(self.random.u64(0..=INTERRUPT_US));
                self.trace.detail(Kind::Interrupt, &[index as u64], format_args!("core {index}"));
            }
            if devices.wait() && core.waiting_since.is_none() {
                core.waiting_since = Some(now);
            }
        }
    }
}

/// The cores of the plan: one that does all, or one for control and one for data.
fn cores(one_core: bool, data: &SharedData, devices: &Devices, time: &Time) -> Vec<Core> {
    let control = || Box::leak(Box::new(ControlRole::new(|| LineState::Idle))) as &'static mut dyn Role;
    let data = Box::leak(Box::new(data.clone())) as &'static mut dyn Role;
    let core = |roles: Vec<&'static mut dyn Role>, devices: Devices| {
        let asleep = Rc::new(Cell::new(None));
        let wake = SimWake { asleep: Rc::clone(&asleep), devices: devices.clone() };
        let turns = CoreLoop::new(Vec::leak(roles), SimClock(time.clone()), wake);
        Core { turns, asleep, devices, next: time.now(), waiting_since: None }
    };
    if one_core {
        return vec![core(vec![control(), data], devices.clone())];
    }
    vec![core(vec![control()], Devices::default()), core(vec![data], devices.clone())]
}
