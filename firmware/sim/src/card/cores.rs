//! The cores of a simulated card: each with its own loop, its sleep, and the devices that wake it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use app::{CoreLoop, DataCore, Role};
use fastrand::Rng;
use hal_api::{Clock, Instant, Wake};
use hal_fakes::{FakeNvme, FarEnd, NvmeControl, QueueNews};

use crate::media::Time;
use crate::settings::MOST_DATA_CORES;

use super::steered::CheckedQueue;

/// Queue pairs of a drive at most: for administration and for each data core.
const MOST_PAIRS: usize = 1 + MOST_DATA_CORES;
/// Queue pairs of all drives together.
const MOST_QUEUES: usize = 16;

pub(super) type Data = DataCore<CheckedQueue, FakeNvme>;

thread_local! {
    /// Data cores that another core has woken, a bit for each. The card's functions for that can hold nothing.
    static WOKEN: Cell<u32> = const { Cell::new(0) };
}

/// A core wakes the data core of this number.
pub(super) fn wake(number: usize) {
    WOKEN.set(WOKEN.get() | 1 << number);
}

/// The data cores that were woken since this was last asked.
pub(super) fn take_woken() -> u32 {
    WOKEN.take()
}

/// A data core that its loop and the simulator share.
#[derive(Clone)]
pub(super) struct SharedData {
    pub core: Rc<RefCell<&'static mut Data>>,
    /// It has asked for interrupts, and sleeps or has just been woken.
    armed: Rc<Cell<bool>>,
    random: Rc<RefCell<Rng>>,
}

impl SharedData {
    pub fn new(core: &'static mut Data, random: Rng) -> Self {
        let (core, random) = (Rc::new(RefCell::new(core)), Rc::new(RefCell::new(random)));
        Self { core, armed: Rc::default(), random }
    }

    /// What the next turn may take from each source. Now and then little or nothing: turns here follow each other, while those of
    /// real cores overlap, so that one may look at its drives before it sees what another has said by then.
    fn budget(&self, whole: u32) -> u32 {
        let mut random = self.random.borrow_mut();
        if random.u32(0..8) == 0 { random.u32(0..4) } else { whole }
    }
}

/// A data core in its loop. The loop disarms as soon as a sleep is over, which here is when it has only begun: what was armed
/// stays so until the next turn, so that other cores see that this one sleeps.
struct DataRole {
    data: SharedData,
    asleep: Rc<Cell<Option<Sleep>>>,
}

impl Role for DataRole {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        let mut core = self.data.core.borrow_mut();
        if self.data.armed.take() {
            core.disarm();
        }
        core.poll(now, self.data.budget(budget))
    }
    fn arm(&mut self) -> bool {
        self.data.armed.set(true);
        self.data.core.borrow_mut().arm()
    }
    fn disarm(&mut self) {
        if self.asleep.get().is_none() && self.data.armed.take() {
            self.data.core.borrow_mut().disarm();
        }
    }
    fn next_deadline(&mut self, now: Instant) -> Instant {
        self.data.core.borrow_mut().next_deadline(now)
    }
}

pub(super) struct SimClock(Time);

impl Clock for SimClock {
    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// A sleep that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sleep {
    pub deadline: Instant,
    /// Frames that had come to the port by then, if it was armed.
    port: Option<u64>,
    /// Which queues of drives were armed, a bit for each, and what they had posted before.
    armed: u64,
    posted: [u64; MOST_QUEUES],
}

/// Takes note of a sleep; the simulator does the waiting.
pub(super) struct SimWake {
    asleep: Rc<Cell<Option<Sleep>>>,
    devices: Devices,
}

impl Wake for SimWake {
    const EMPTY_TURNS: u32 = 1;

    fn sleep_until(&mut self, deadline: Instant) {
        let port = self.devices.port.as_ref().filter(|port| port.is_armed()).map(FarEnd::arrivals);
        let (mut armed, mut posted) = (0, [0; MOST_QUEUES]);
        self.devices.each_queue(|index, news| {
            if news.armed {
                armed |= 1 << index;
                posted[index] = news.posted_before_arming;
            }
        });
        self.asleep.set(Some(Sleep { deadline, port, armed, posted }));
    }
}

/// The drives by their number in the world, as far as they are in, each with the place in which its card has it.
pub(super) type Plugs = Rc<RefCell<Vec<Option<(usize, NvmeControl)>>>>;

/// The devices that wake a core.
#[derive(Clone, Default)]
pub(super) struct Devices {
    pub port: Option<FarEnd>,
    pub drives: Plugs,
    /// The data core's number, and how many there are; none for a core that has nothing to do with drives.
    pub data_core: (usize, usize),
}

impl Devices {
    /// Looks at the core's queue pairs of all drives: those for I/O go by the cores' numbers, that for administration is at
    /// the home of the drive's place.
    fn each_queue(&self, mut look: impl FnMut(usize, QueueNews)) {
        let (core, cores) = self.data_core;
        for (index, drive) in self.drives.borrow().iter().enumerate() {
            let Some((place, drive)) = drive else { continue };
            if place.checked_rem(cores) == Some(core) {
                look(index * MOST_PAIRS, drive.news(0));
            }
            if cores > 0 {
                look(index * MOST_PAIRS + 1 + core, drive.news(1 + core as u16));
            }
        }
    }

    /// Whether something that was armed has got something since.
    pub fn have_raised(&self, sleep: &Sleep) -> bool {
        let arrived = |before: u64| self.port.as_ref().is_some_and(|port| port.arrivals() > before);
        let mut raised = sleep.port.is_some_and(arrived);
        self.each_queue(|index, news| {
            raised |= sleep.armed >> index & 1 != 0 && news.posted > sleep.posted[index];
        });
        raised
    }

    /// How often a core that was about to sleep found a completion.
    pub fn found_by_arming(&self) -> u64 {
        let mut found = 0;
        self.each_queue(|_, news| found += news.found_by_arming);
        found
    }

    /// Whether something waits to be taken.
    pub fn wait(&self) -> bool {
        let mut waits = self.port.as_ref().is_some_and(FarEnd::has_frame);
        self.each_queue(|_, news| waits |= news.waiting);
        waits
    }
}

/// A core.
pub(super) struct Core {
    pub turns: CoreLoop<'static, 'static, SimClock, SimWake>,
    pub asleep: Rc<Cell<Option<Sleep>>>,
    pub devices: Devices,
    /// The data core that runs here.
    pub data: Option<SharedData>,
    /// When it takes its next turn; while it sleeps, when it is woken.
    pub next: Instant,
    /// Since when work has waited for it while it sleeps.
    pub waiting_since: Option<Instant>,
    /// It does nothing until then.
    pub paused_until: Instant,
}

impl Core {
    fn new(
        control: Vec<&'static mut dyn Role>,
        data: Option<SharedData>,
        devices: Devices,
        time: &Time,
    ) -> Self {
        let asleep = Rc::new(Cell::new(None));
        let wake = SimWake { asleep: Rc::clone(&asleep), devices: devices.clone() };
        let role = data.clone().map(|data| DataRole { data, asleep: Rc::clone(&asleep) });
        let role = role.map(|role| Box::leak(Box::new(role)) as &'static mut dyn Role);
        let roles: Vec<_> = role.into_iter().chain(control).collect();
        let turns = CoreLoop::new(Vec::leak(roles), SimClock(time.clone()), wake, Box::leak(Box::default()));
        let (next, paused_until) = (time.now(), Instant::ZERO);
        Self { turns, asleep, devices, data, next, waiting_since: None, paused_until }
    }

    /// Whether work waits for it in its devices, or in the rings from other cores.
    pub fn has_waiting(&self) -> bool {
        self.devices.wait() || self.data.as_ref().is_some_and(|data| data.core.borrow_mut().has_waiting())
    }
}

/// The cores of the plan: one that does all, or one for control and the others for data.
pub(super) fn cores(
    one_core: bool,
    control: Vec<Box<dyn Role>>,
    data: &[SharedData],
    devices: &[Devices],
    time: &Time,
) -> Vec<Core> {
    let leak = |role: Box<dyn Role>| Box::leak(role) as &'static mut dyn Role;
    let mut control: Vec<_> = control.into_iter().map(leak).collect();
    let mut cores = Vec::new();
    if !one_core {
        cores.push(Core::new(core::mem::take(&mut control), None, Devices::default(), time));
    }
    for (data, devices) in data.iter().zip(devices) {
        let control = core::mem::take(&mut control);
        cores.push(Core::new(control, Some(data.clone()), devices.clone(), time));
    }
    cores
}
