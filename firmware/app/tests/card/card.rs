//! A whole card in the process, under a clock that moves only when it is told to.

use std::cell::Cell;
use std::time::Duration;

use app::options::Options;
use app::sizes::Sizes;
use app::{
    CoreLoop, DataCore, DriveRings, Hardware, HotPlug, HotPlugRole, Memory, PoolCounts, Role, assemble,
};
use hal_api::{Clock, Instant, PortInfo, Wake};
use hal_fakes::{
    FakeFrameQueue, FakeNvme, FakeSlots, NvmeConfig, NvmeControl, SlotsControl, frame_queue_pair,
};
use hal_mem::{Arena, DmaRegion, PAGE_BYTES};

use crate::wire::Wire;

/// Time that a turn takes.
const TURN: Duration = Duration::from_micros(50);
/// Longest step in which time passes while nothing happens.
const STEP: Duration = Duration::from_millis(50);
const BUDGET: u32 = 64;

/// The card, its drives' controls, and the wire to its hosts.
pub struct Card {
    core: &'static mut DataCore<FakeFrameQueue, FakeNvme>,
    pub drives: Vec<NvmeControl>,
    /// Drives on the shelf.
    pub spares: Vec<(FakeNvme, NvmeControl)>,
    hot_plug: Option<HotPlugRole<FakeSlots>>,
    pub wire: Wire,
    pub now: Instant,
}

impl Card {
    /// A card of `memory_bytes` with these drives, whose serial numbers are made different, until they are ready.
    pub fn boot(memory_bytes: usize, drives: impl IntoIterator<Item = NvmeConfig>) -> Self {
        let sizes = Sizes::of(memory_bytes);
        let pages = DmaRegion::leak_for_host(sizes.pages * PAGE_BYTES);
        let info = |last| PortInfo {
            mac: [2, 0, 0, 0, 0, last],
            mtu: 1500,
            receive_checksums_verified: true,
            transmit_checksum_offload: true,
        };
        let (port, far) = frame_queue_pair(info(1), info(2), 1024);
        let mut hardware = Hardware { port: Some(port), drives: heapless::Vec::new() };
        let mut controls = Vec::new();
        for (index, config) in drives.into_iter().enumerate() {
            let (drive, control) = FakeNvme::new(NvmeConfig { serial: format!("DRIVE{index}"), ..config });
            control.allow_dma(&pages);
            assert!(hardware.drives.push(drive).is_ok(), "too many drives");
            controls.push(control);
        }
        let spare = |index| {
            let (drive, control) =
                FakeNvme::new(NvmeConfig { serial: format!("SPARE{index}"), ..NvmeConfig::default() });
            control.allow_dma(&pages);
            (drive, control)
        };
        let spares = (0..2).map(spare).collect();
        let memory = Memory { arena: Arena::leak_for_host(sizes.private_bytes), pages };
        let (options, warnings) = Options::parse("ip=10.0.0.1/24 nqn=nqn.2014-08.org.example:card");
        assert!(warnings.is_empty());
        let core = assemble(hardware, &options, &sizes, memory, 1, Instant::ZERO).expect("enough memory");
        let mut card =
            Self { core, drives: controls, spares, hot_plug: None, wire: Wire::new(far), now: Instant::ZERO };
        card.run_until("all drives are ready", |card| card.core.drives().iter().all(drive::Drive::is_ready));
        card
    }

    /// Gives the card slots: those of its drives, and an empty one.
    pub fn add_slots(&mut self) -> SlotsControl {
        let drives = self.drives.len();
        let (slots, hands) = FakeSlots::new(drives + 1, 0);
        (0..drives).for_each(|slot| hands.lent_at_boot(slot));
        let (control, data_core) = Box::leak(Box::new(DriveRings::new())).split();
        self.core.obey(data_core);
        self.hot_plug = Some(HotPlugRole::new(HotPlug::new(slots, control)));
        hands
    }

    /// One turn of the card and of its hosts.
    pub fn turn(&mut self) -> u32 {
        let mut work = self.core.poll(self.now, BUDGET);
        if let Some(hot_plug) = &mut self.hot_plug {
            work += hot_plug.poll(self.now, BUDGET);
        }
        let moved = self.wire.poll();
        self.now = self.now + TURN;
        work + moved as u32
    }

    /// Turns until `done`; time leaps over what is idle.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = self.now + Duration::from_secs(120);
        let mut idle = 0;
        while !done(self) {
            assert!(self.now < limit, "waited too long until {what}");
            idle = if self.turn() == 0 { idle + 1 } else { 0 };
            if idle > 20 {
                let mut leap = self.core.next_deadline(self.now).min(self.now + STEP);
                if let Some(hot_plug) = &mut self.hot_plug {
                    leap = leap.min(hot_plug.next_deadline(self.now));
                }
                self.now = self.now.max(leap);
            }
        }
    }

    /// Lets time pass in control alone: the data core is busy elsewhere.
    pub fn pass_in_control(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            if let Some(hot_plug) = &mut self.hot_plug {
                hot_plug.poll(self.now, BUDGET);
            }
            self.now = self.now + STEP;
        }
    }

    /// Lets time pass, with turns in it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until("time has passed", |card| card.now >= end);
    }

    pub fn begin_shutdown(&mut self) {
        self.core.begin_shutdown(self.now);
    }

    pub fn is_shut_down(&mut self) -> bool {
        self.core.is_shut_down()
    }

    pub fn counts(&self) -> PoolCounts {
        self.core.pool_counts()
    }

    /// Requests whose pages are quarantined, at any drive.
    pub fn quarantined(&self) -> usize {
        self.core.drives().iter().map(drive::Drive::quarantined).sum()
    }

    pub fn drive(&self, index: u8) -> &drive::Drive<FakeNvme> {
        self.core.drives().get(index).expect("a drive")
    }

    /// Leaves the card to its core loop for so long, with nothing on the wire. Returns its turns.
    pub fn sleep(&mut self, time: Duration) -> u64 {
        let now = Cell::new(self.now);
        let end = self.now + time;
        let mut roles: [&mut dyn Role; 1] = [&mut *self.core];
        let mut core = CoreLoop::new(&mut roles, Time(&now), Time(&now));
        while now.get() < end {
            core.turn();
            now.set(now.get() + TURN);
        }
        let turns = core.turns();
        self.now = now.get();
        turns.productive + turns.empty
    }
}

/// The virtual clock; sleep moves it.
struct Time<'a>(&'a Cell<Instant>);

impl Clock for Time<'_> {
    fn now(&self) -> Instant {
        self.0.get()
    }
}

impl Wake for Time<'_> {
    fn sleep_until(&mut self, deadline: Instant) {
        self.0.set(self.0.get().max(deadline));
    }
}
