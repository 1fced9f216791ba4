//! Cores as threads, from the start to the end of the process.

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use app::plan::{Plan, Role};
use app::{ControlRole, CoreLoop, DataCore, LineState, MailboxRole, Then};
use hal_api::{FrameQueue, Instant};
use hal_fakes::FakeNvme;
use hal_hosted::{Doorbell, FlashFile, MailboxSocket, MonotonicClock, Sleeper};

/// Somebody has asked for the end.
static STOP: AtomicBool = AtomicBool::new(false);
/// What ends the cores' sleep.
static BELLS: OnceLock<Vec<Doorbell>> = OnceLock::new();
/// How a process ends that was interrupted: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// The cores of a plan, before they run.
pub struct Cores {
    /// Which core runs what.
    pub plan: &'static Plan,
    /// Where the cores run, in their order; those without a CPU run where the system likes.
    pub cpus: Vec<usize>,
    /// The one clock.
    pub clock: MonotonicClock,
    /// The data core's sleep, which its devices end.
    pub sleeper: Sleeper,
    /// Control's.
    pub control_sleeper: Sleeper,
    /// What control serves.
    pub mailbox: MailboxRole<MailboxSocket, FlashFile>,
}

impl Cores {
    /// Runs until somebody asks for the end.
    pub fn run<F: FrameQueue + 'static>(self, data: &'static mut DataCore<F, FakeNvme>) -> ExitCode
    where
        DataCore<F, FakeNvme>: Send,
    {
        let Self { plan, cpus, clock, sleeper, control_sleeper, mut mailbox } = self;
        let control_core = plan.core_of(Role::Control, 0).unwrap_or(0);
        let data_core = plan.core_of(Role::Net, 0).unwrap_or(0);
        // The log is text that is printed at once: there is nothing to move.
        let mut control = ControlRole::new(|| LineState::Idle);
        let mut bells = vec![sleeper.doorbell()];
        if data_core == control_core {
            stop_on_signals(bells);
            be_core(data_core, &cpus);
            return turn_until_stopped(data, &mut [&mut control, &mut mailbox], clock, sleeper, data_core);
        }
        bells.push(control_sleeper.doorbell());
        stop_on_signals(bells);
        let of_data = cpus.clone();
        let thread = std::thread::Builder::new().name(format!("core {data_core}")).spawn(move || {
            be_core(data_core, &of_data);
            turn_until_stopped(data, &mut [], clock, sleeper, data_core)
        });
        let Ok(thread) = thread else {
            hal_log::error!("core {} of plan {} does not start", data_core, plan.name);
            return ExitCode::FAILURE;
        };
        be_core(control_core, &cpus);
        let mut roles: [&mut dyn app::Role; 2] = [&mut control, &mut mailbox];
        let mut core = CoreLoop::new(&mut roles, clock, control_sleeper, crate::meter(control_core));
        while !STOP.load(Ordering::Acquire) {
            core.turn();
        }
        thread.join().unwrap_or(ExitCode::FAILURE)
    }
}

/// The calling thread is core number `core` from here on.
fn be_core(core: usize, cpus: &[usize]) {
    hal_log::host::set_core(core as u8);
    let Some(&cpu) = cpus.get(core % cpus.len().max(1)) else { return };
    if let Err(error) = hal_hosted::pin(cpu) {
        hal_log::warn!("core {} cannot be kept on CPU {}: {}", core, cpu, error.to_string().as_str());
    }
}

fn turn_until_stopped<F: FrameQueue + 'static>(
    data: &mut DataCore<F, FakeNvme>,
    others: &mut [&mut dyn app::Role],
    clock: MonotonicClock,
    sleeper: Sleeper,
    core: usize,
) -> ExitCode {
    let over = Cell::new(false);
    let mut data = Mortal { data, over: &over };
    let mut roles: Vec<&mut dyn app::Role> = vec![&mut data];
    for role in others {
        roles.push(&mut **role);
    }
    let mut core = CoreLoop::new(&mut roles, clock, sleeper, crate::meter(core));
    while !over.get() {
        core.turn();
    }
    hal_log::info!("the card is off");
    ExitCode::SUCCESS
}

/// A data core that begins its orderly end when somebody has asked for it, and says when that is over.
struct Mortal<'a, F: FrameQueue + 'static> {
    data: &'a mut DataCore<F, FakeNvme>,
    over: &'a Cell<bool>,
}

impl<F: FrameQueue + 'static> app::Role for Mortal<'_, F> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        if STOP.load(Ordering::Acquire) {
            self.data.begin_shutdown(now);
        }
        let work = self.data.poll(now, budget);
        self.over.set(self.data.is_shut_down());
        work
    }

    fn arm(&mut self) -> bool {
        self.data.arm()
    }

    fn disarm(&mut self) {
        self.data.disarm();
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        self.data.next_deadline(now)
    }
}

/// An operator asks for the end. The process cannot start itself anew.
pub fn end(then: Then) -> Option<Then> {
    if then == Then::Restart {
        return None;
    }
    STOP.store(true, Ordering::Release);
    wake();
    Some(then)
}

/// Ends the sleep of all cores: there are two at most, and the one that was not meant looks and sleeps again.
pub fn wake() {
    BELLS.get().into_iter().flatten().for_each(Doorbell::ring);
}

/// The first SIGINT, SIGTERM or SIGHUP asks for the end, the second is the end.
fn stop_on_signals(bells: Vec<Doorbell>) {
    let bells = BELLS.get_or_init(|| bells);
    let asked = ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::AcqRel) {
            std::process::exit(INTERRUPTED);
        }
        hal_log::info!("asked to stop; once more stops at once");
        bells.iter().for_each(Doorbell::ring);
    });
    if asked.is_err() {
        hal_log::warn!("signals cannot be handled: they end the process at once");
    }
}
