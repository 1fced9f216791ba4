//! A whole card in the process, under a clock that moves only when it is told to.

use std::cell::Cell;
use std::time::Duration;

use app::ChangeTicket;
use app::options::Options;
use app::sizes::{Sizes, mesh_bytes};
use app::{
    Calls, CoreLoop, CoreMeter, DataCore, HotPlug, HotPlugRole, Memory, PoolCounts, Role, assemble_cores,
    call_ways, drive_ends,
};
use hal_api::{Clock, Instant, PortInfo, Wake};
use hal_fakes::{
    FakeFrameQueue, FakeNvme, FakeSlots, Media, NvmeConfig, NvmeControl, SlotsControl, frame_queue_pair,
};
use hal_mem::{Arena, DmaRegion, PAGE_BYTES};
use message::configuration::{ChangeError, ConfigurationChange};

use crate::wire::Wires;

/// Time that a turn takes.
const TURN: Duration = Duration::from_micros(50);
/// Longest step in which time passes while nothing happens.
const STEP: Duration = Duration::from_millis(50);
const BUDGET: u32 = 64;
/// Memory for the two rings between control and a data core, above what they take.
const RING_BYTES: usize = 1 << 20;

fn port_info(last: u8) -> PortInfo {
    PortInfo {
        mac: [2, 0, 0, 0, 0, last],
        mtu: 1500,
        receive_checksums_verified: true,
        transmit_checksum_offload: true,
    }
}

/// A drive on the shelf, with queues for all cores.
fn spare(index: usize, cores: usize) -> (FakeNvme, NvmeControl) {
    let (serial, queue_pairs) = (format!("SPARE{index}"), cores as u16 + 1);
    FakeNvme::new(NvmeConfig { serial, queue_pairs, ..NvmeConfig::default() })
}

/// The card, its drives' controls, and the wire to its hosts.
pub struct Card {
    cores: Vec<&'static mut DataCore<FakeFrameQueue, FakeNvme>>,
    /// Says in which order the cores have their turns.
    order: u64,
    /// A core that has no turns.
    pub stuck: Option<usize>,
    pub drives: Vec<NvmeControl>,
    /// Drives on the shelf.
    pub spares: Vec<(FakeNvme, NvmeControl)>,
    hot_plug: Option<HotPlugRole<FakeSlots>>,
    pub wire: Wires,
    pub now: Instant,
}

impl Card {
    /// A card of `memory_bytes` with one data core and these drives, whose serial numbers are made different where none are given, until they are ready.
    pub fn boot(memory_bytes: usize, drives: impl IntoIterator<Item = NvmeConfig>) -> Self {
        Self::boot_cores(memory_bytes, 1, 0, drives)
    }

    /// The same with several data cores, each with a port of its own and a queue of its own at each drive. `order` says in which
    /// order they have their turns.
    pub fn boot_cores(
        memory_bytes: usize,
        cores: usize,
        order: u64,
        drives: impl IntoIterator<Item = NvmeConfig>,
    ) -> Self {
        Self::boot_with(memory_bytes, (cores, 1), order, drives, Vec::new())
    }

    /// A card with one data core and one drive, whose blocks are there.
    pub fn boot_media(memory_bytes: usize, media: Box<dyn Media>) -> Self {
        Self::boot_with(memory_bytes, (1, 1), 0, [NvmeConfig::default()], vec![media])
    }

    /// A card with one data core and two Ethernet ports: wire n leads to port n, the card is 10.0.n.1 there.
    pub fn boot_ports(memory_bytes: usize, drives: impl IntoIterator<Item = NvmeConfig>) -> Self {
        Self::boot_with(memory_bytes, (1, 2), 0, drives, Vec::new())
    }

    /// The same with several data cores, each of which has a queue at both ports.
    pub fn boot_ports_and_cores(
        memory_bytes: usize,
        cores: usize,
        order: u64,
        drives: impl IntoIterator<Item = NvmeConfig>,
    ) -> Self {
        Self::boot_with(memory_bytes, (cores, 2), order, drives, Vec::new())
    }

    fn boot_with(
        memory_bytes: usize,
        (cores, ports): (usize, usize),
        order: u64,
        drives: impl IntoIterator<Item = NvmeConfig>,
        mut media: Vec<Box<dyn Media>>,
    ) -> Self {
        let sizes = Sizes::of_each(memory_bytes, cores);
        let configs: Vec<NvmeConfig> = drives.into_iter().collect();
        let (mut parts, mut fars) = (Vec::new(), Vec::new());
        let spares: Vec<_> = (0..2).map(|index| spare(index, cores)).collect();
        let (mut drives, mut controls) = (heapless::Vec::new(), Vec::new());
        for (index, config) in configs.into_iter().enumerate() {
            let queue_pairs = cores as u16 + 1;
            let is_plain = config.serial == NvmeConfig::default().serial;
            let serial = if is_plain { format!("DRIVE{index}") } else { config.serial };
            let config = NvmeConfig { serial, queue_pairs, ..config };
            // Where none is given, blocks are in memory.
            let media = media.pop().into_iter().collect();
            let (drive, control) = FakeNvme::with_media(config, media);
            assert!(drives.push(drive).is_ok(), "too many drives");
            controls.push(control);
        }
        for _ in 0..cores {
            let pages = DmaRegion::leak_for_host(sizes.pages * PAGE_BYTES);
            let mut queues = heapless::Vec::new();
            for net in 0..ports {
                let (port, far) = frame_queue_pair(port_info(1), port_info(2), 1024);
                assert!(queues.push(port).is_ok(), "too many ports");
                fars.push((net as u8, far));
            }
            let all = controls.iter().chain(spares.iter().map(|(_, control)| control));
            all.for_each(|control: &NvmeControl| control.allow_dma(&pages));
            parts.push((queues, Memory { arena: Arena::leak_for_host(sizes.private_bytes), pages }));
        }
        let (options, warnings) =
            Options::parse("ip=10.0.0.1/24 ip.2=10.0.1.1/24 nqn=nqn.2014-08.org.example:card");
        assert!(warnings.is_empty());
        let mut between = Arena::leak_for_host(mesh_bytes(cores));
        let cores =
            assemble_cores(parts.into_iter(), drives, &options, &sizes, &mut between, 1, Instant::ZERO)
                .expect("enough memory");
        let mut card = Self {
            cores: cores.into_iter().collect(),
            order: order.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            stuck: None,
            drives: controls,
            spares,
            hot_plug: None,
            wire: Wires::new(fars),
            now: Instant::ZERO,
        };
        card.run_until("all drives are ready", |card| {
            let ready = |core: &&'static mut DataCore<_, FakeNvme>| {
                core.drives().len() == card.drives.len() && core.drives().iter().all(drive::Drive::is_ready)
            };
            card.cores.iter().all(ready)
        });
        card
    }

    /// Gives the card slots: those of its drives, and an empty one.
    pub fn add_slots(&mut self) -> SlotsControl {
        let drives = self.drives.len();
        let (slots, hands) = FakeSlots::new(drives + 1, 0);
        (0..drives).for_each(|slot| hands.lent_at_boot(slot));
        let ends = self.cores.iter_mut().map(|core| {
            let (control, data_core) =
                drive_ends(&mut Arena::leak_for_host(RING_BYTES)).expect("room for two rings");
            core.obey(data_core);
            control
        });
        let ends: Vec<_> = ends.collect();
        self.hot_plug = Some(HotPlugRole::new(HotPlug::with_cores(slots, ends)));
        hands
    }

    /// Control's ways to ask the data cores.
    pub fn add_calls(&mut self) -> Calls {
        let mut arena = Arena::leak_for_host(RING_BYTES);
        let ways = call_ways(&mut arena, self.cores.len(), |_| {}, || {});
        let (calls, desks) = ways.expect("room for two rings for each core");
        self.cores.iter_mut().zip(desks).for_each(|(core, desk)| core.answer_calls_of(desk));
        calls
    }

    /// One turn of the card and of its hosts.
    pub fn turn(&mut self) -> u32 {
        // Each core has its turns, in any order and not equally often.
        let cores = self.cores.len();
        let mut work = 0;
        for _ in 0..cores {
            self.order ^= self.order << 13;
            self.order ^= self.order >> 7;
            self.order ^= self.order << 17;
            // A core that looks a moment earlier sees less of what is on its way to it, or nothing.
            let budget = if cores > 1 && self.order.is_multiple_of(4) {
                (self.order >> 40) as u32 % 4
            } else {
                BUDGET
            };
            let core = (self.order >> 20) as usize % cores;
            if self.stuck != Some(core) {
                work += self.cores[core].poll(self.now, budget);
            }
        }
        if let Some(hot_plug) = &mut self.hot_plug {
            work += hot_plug.poll(self.now, BUDGET);
        }
        let moved = self.wire.poll();
        self.now = self.now + TURN;
        work + moved as u32
    }

    /// Lets each core have a turn, whatever `turn` makes of it.
    pub fn each_core(&mut self, mut turn: impl FnMut(&mut dyn Role, Instant)) {
        self.cores.iter_mut().for_each(|core| turn(&mut **core, self.now));
    }

    /// Turns until `done`; time leaps over what is idle.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = self.now + Duration::from_secs(120);
        let mut idle = 0;
        while !done(self) {
            assert!(self.now < limit, "waited too long until {what}");
            idle = if self.turn() == 0 { idle + 1 } else { 0 };
            if idle > 20 {
                let now = self.now;
                let deadlines = self.cores.iter_mut().map(|core| core.next_deadline(now));
                let mut leap = deadlines.fold(now + STEP, Instant::min);
                if let Some(hot_plug) = &mut self.hot_plug {
                    leap = leap.min(hot_plug.next_deadline(self.now));
                }
                self.now = self.now.max(leap);
            }
        }
    }

    /// Makes a change as control does: on each data core until it is done there, on the first one last.
    pub fn change(&mut self, change: &ConfigurationChange) -> Result<(), ChangeError> {
        for core in (0..self.cores.len()).rev() {
            let ticket = self.begin_change(core, change)?;
            self.run_until("a change is made", |card| card.cores[core].change_done(ticket));
        }
        Ok(())
    }

    /// Gives a change to one core.
    pub fn begin_change(
        &mut self,
        core: usize,
        change: &ConfigurationChange,
    ) -> Result<ChangeTicket, ChangeError> {
        let now = self.now;
        self.cores[core].change(change, now)
    }

    pub fn change_done(&mut self, core: usize, ticket: ChangeTicket) -> bool {
        self.cores[core].change_done(ticket)
    }

    /// A data core, to ask it what it knows.
    pub fn core(&self, core: usize) -> &DataCore<FakeFrameQueue, FakeNvme> {
        self.cores[core]
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
        let now = self.now;
        self.cores.iter_mut().for_each(|core| core.begin_shutdown(now));
    }

    pub fn is_shut_down(&mut self) -> bool {
        self.cores.iter().all(|core| core.is_shut_down())
    }

    pub fn some_core_is_shut_down(&self) -> bool {
        self.cores.iter().any(|core| core.is_shut_down())
    }

    pub fn counts(&self) -> PoolCounts {
        self.cores[0].pool_counts()
    }

    /// Whether the first core has nothing of any host, which it then says.
    pub fn is_idle(&self) -> bool {
        self.cores[0].is_idle()
    }

    /// What the pools of each core hold.
    pub fn all_counts(&self) -> Vec<PoolCounts> {
        self.cores.iter().map(|core| core.pool_counts()).collect()
    }

    /// Whether the cores have nothing more to say to each other, and never said what made no sense.
    pub fn cores_are_quiet(&self) -> bool {
        self.cores.iter().all(|core| {
            assert_eq!(core.mesh_faults(), 0);
            core.pending_changes() == (0, 0)
        })
    }

    /// Requests whose pages are quarantined, at any drive.
    pub fn quarantined(&self) -> usize {
        let drives = self.cores.iter().flat_map(|core| core.drives().iter());
        drives.map(drive::Drive::quarantined).sum()
    }

    /// How many drives each core has something of.
    pub fn drives_of_cores(&self) -> Vec<usize> {
        self.cores.iter().map(|core| core.drives().len()).collect()
    }

    /// A core, to set it.
    pub fn core_mut(&mut self, number: usize) -> &mut DataCore<FakeFrameQueue, FakeNvme> {
        self.cores[number]
    }

    pub fn drive(&self, index: u8) -> &drive::Drive<FakeNvme> {
        self.cores[0].drives().get(index).expect("a drive")
    }

    /// Leaves the card to its core loop for so long, with nothing on the wire. Returns its turns.
    pub fn sleep(&mut self, time: Duration) -> u64 {
        let now = Cell::new(self.now);
        let end = self.now + time;
        let mut roles: [&mut dyn Role; 1] = [&mut *self.cores[0]];
        let meter = CoreMeter::new();
        let mut core = CoreLoop::new(&mut roles, Time(&now), Time(&now), &meter);
        while now.get() < end {
            core.turn();
            now.set(now.get() + TURN);
        }
        let turns = core.reading();
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
    const EMPTY_TURNS: u32 = 1;

    fn sleep_until(&mut self, deadline: Instant) {
        self.0.set(self.0.get().max(deadline));
    }
}
