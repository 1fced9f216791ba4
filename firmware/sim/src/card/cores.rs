//! The cores of a simulated card: each with its own loop, its sleep, and the devices that wake it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use app::{CoreLoop, DataCore, Role};
use hal_api::{Clock, Instant, Wake};
use hal_fakes::{FakeFrameQueue, FakeNvme, FarEnd, NvmeControl, QueueNews};

use crate::media::Time;

/// Queue pairs of a drive: for administration and for the one data core.
pub const QUEUE_PAIRS: u16 = 2;
/// Queue pairs of all drives together.
const MOST_QUEUES: usize = 16;

pub(super) type Data = DataCore<FakeFrameQueue, FakeNvme>;

/// A data core that its loop and the simulator share.
#[derive(Clone)]
pub(super) struct SharedData(pub Rc<RefCell<&'static mut Data>>);

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

/// The devices that wake a core. Drives by their place in the world, as far as they are in.
#[derive(Clone, Default)]
pub(super) struct Devices {
    pub port: Option<FarEnd>,
    pub drives: Rc<RefCell<Vec<Option<NvmeControl>>>>,
}

impl Devices {
    /// Looks at the queue pairs of all drives.
    fn each_queue(&self, mut look: impl FnMut(usize, QueueNews)) {
        for (place, drive) in self.drives.borrow().iter().enumerate() {
            let Some(drive) = drive else { continue };
            for qid in 0..QUEUE_PAIRS {
                look(place * usize::from(QUEUE_PAIRS) + usize::from(qid), drive.news(qid));
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
    /// When it takes its next turn; while it sleeps, when it is woken.
    pub next: Instant,
    /// Since when work has waited for it while it sleeps.
    pub waiting_since: Option<Instant>,
}

impl Core {
    fn new(roles: Vec<&'static mut dyn Role>, devices: Devices, time: &Time) -> Self {
        let asleep = Rc::new(Cell::new(None));
        let wake = SimWake { asleep: Rc::clone(&asleep), devices: devices.clone() };
        let turns = CoreLoop::new(Vec::leak(roles), SimClock(time.clone()), wake);
        Self { turns, asleep, devices, next: time.now(), waiting_since: None }
    }
}

/// The cores of the plan: one that does all, or one for control and one for data.
pub(super) fn cores(
    one_core: bool,
    control: Vec<Box<dyn Role>>,
    data: &SharedData,
    devices: &Devices,
    time: &Time,
) -> Vec<Core> {
    let leak = |role: Box<dyn Role>| Box::leak(role) as &'static mut dyn Role;
    let control = control.into_iter().map(leak);
    let data = leak(Box::new(data.clone()));
    if one_core {
        let roles = core::iter::once(data).chain(control).collect();
        return vec![Core::new(roles, devices.clone(), time)];
    }
    vec![Core::new(control.collect(), Devices::default(), time), Core::new(vec![data], devices.clone(), time)]
}
