//! A card, its drives, its hosts and the network between them, under one virtual clock.

mod calm;
mod phases;

use std::time::Duration;

use fastrand::Rng;
use hal_api::Instant;

use crate::card::Card;
use crate::chaos::{Schedule, Strike};
use crate::drives::Drives;
use crate::faults::Faults;
use crate::host::{Common, Host, PROMPT};
use crate::hostile::Hostile;
use crate::kinds::Kind;
use crate::media::Time;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::settings::Settings;
use crate::trace::Trace;

/// So many things at one moment mean that time stands still.
const MOST_AT_ONCE: u32 = 200_000;
/// Turns between two looks at the pools.
const CHECK_EVERY: u64 = 8;
/// In this time the card has ended in order, and drives are not well before.
const END_LIMIT: Duration = Duration::from_secs(50);
/// What drives may add to the time of operations when a host goes.
const FAILOVER_DELAY: Duration = Duration::from_millis(1200);
/// What the card takes from power on until its first turn.
const START_TIME: Duration = Duration::from_millis(300);

/// Who does something next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    Network,
    Drive(usize),
    Core(usize),
    Host(usize),
    Hostile(usize),
    Chaos,
    Return(usize),
    Knob(usize),
    Hands,
    PowerOn,
}

/// Everything.
pub struct World {
    settings: Settings,
    common: Common,
    network: Network,
    drives: Drives,
    /// `None` while it has no power.
    card: Option<Card>,
    power_on: Instant,
    hosts: Vec<Host>,
    hostile: Vec<Hostile>,
    chaos: Schedule,
    random: Rng,
    at_once: u32,
    turns: u64,
    /// When each drive in trouble was unwell last.
    unwell: Vec<Instant>,
    /// As the card has counted them.
    held_connects: u64,
}

impl World {
    /// The world of a seed, with its card just started.
    #[must_use]
    pub fn new(settings: &Settings, seed: u64, trace: &Trace) -> Self {
        let mut random = Rng::with_seed(seed);
        let time = Time::default();
        let mut network = Network::new(settings.latency_us, settings.weather, random.fork(), &time, trace);
        let mut drives = Drives::new(settings, random.fork(), &time, trace);
        let card = Card::start(settings, drives.power_on(), &mut network, random.fork(), &time, trace);
        let common = Common {
            oracle: Oracle::new(&drives.volatile(), drives.over.clone()),
            faults: Faults::new(drives.all.len(), settings.slots),
            targets: drives.targets(),
            hosts: settings.hosts.len() as u64,
            quiet: false,
            over: false,
            forged: settings.weather.forged > 0,
            missed: 0,
            calm: settings.prompt,
            patience: if settings.prompt { PROMPT } else { Duration::MAX },
            time,
            trace: trace.clone(),
        };
        let mut host = |(index, host): (usize, &crate::settings::HostSettings)| {
            Host::new(index, *host, &mut network, random.fork(), &common)
        };
        let hosts = settings.hosts.iter().enumerate().map(&mut host).collect();
        let hostile = (0..settings.hostile as usize)
            .map(|index| Hostile::new(index, &mut network, random.fork(), &common))
            .collect();
        Self {
            settings: settings.clone(),
            network,
            drives,
            card: Some(card),
            power_on: Instant::FAR_FUTURE,
            hosts,
            hostile,
            chaos: Schedule::new(&crate::settings::Chaos::default(), Instant::ZERO, random.fork()),
            random,
            at_once: 0,
            turns: 0,
            unwell: vec![Instant::ZERO; settings.drives.len()],
            held_connects: 0,
            common,
        }
    }

    fn now(&self) -> Instant {
        self.common.time.now()
    }

    /// Who can do something next, and when: one of them by lot.
    fn next(&mut self) -> (Instant, Actor) {
        let now = self.now();
        let mut best = Instant::FAR_FUTURE;
        let mut among: Vec<Actor> = Vec::new();
        let mut offer = |at: Instant, actor: Actor| {
            let at = at.max(now);
            if at < best {
                best = at;
                among.clear();
            }
            if at == best {
                among.push(actor);
            }
        };
        offer(self.network.next_arrival(), Actor::Network);
        offer(self.chaos.next(), Actor::Chaos);
        offer(self.power_on, Actor::PowerOn);
        offer(self.drives.next_look(), Actor::Hands);
        for (index, drive) in self.drives.all.iter().enumerate() {
            offer(drive.next_work(), Actor::Drive(index));
            offer(drive.away_until.unwrap_or(Instant::FAR_FUTURE), Actor::Return(index));
            offer(drive.next_turn(), Actor::Knob(index));
        }
        if let Some(card) = &self.card {
            (0..card.core_count()).for_each(|core| offer(card.next_turn(core), Actor::Core(core)));
        }
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let (quiet, over) = (self.common.quiet, self.common.over);
            offer(host.next_step(now, quiet, over), Actor::Host(index));
        }
        let hostile = self.hostile.iter_mut().enumerate().filter(|_| !self.common.over);
        for (index, hostile) in hostile {
            offer(hostile.next_step(now), Actor::Hostile(index));
        }
        (best, among[self.random.usize(0..among.len())])
    }

    /// The next thing happens; time goes on to it.
    fn step(&mut self) {
        let (at, actor) = self.next();
        self.at_once = if at > self.now() { 0 } else { self.at_once + 1 };
        assert!(self.at_once < MOST_AT_ONCE, "VIOLATION: time stands still, {actor:?} goes on and on");
        self.common.time.set(at);
        self.common.trace.set_now(at);
        match actor {
            Actor::Network => {
                let card = self.card.as_ref();
                let is_awake = |queue| card.is_some_and(|card| card.is_awake(queue));
                if self.network.deliver(is_awake) == Some(0) {
                    self.interrupt();
                }
            }
            Actor::Drive(index) => self.work(index),
            Actor::Core(core) => self.turn(core),
            Actor::Host(index) => self.hosts[index].step(&mut self.common, &mut self.network),
            Actor::Hostile(index) => self.hostile[index].step(&self.common, &mut self.network),
            Actor::Chaos => self.strike(),
            Actor::Return(index) => {
                self.drives.bring_back(index, self.card.as_ref(), self.common.quiet);
                self.note_losses();
            }
            Actor::Knob(index) => {
                self.drives.turn_knob(index);
                self.interrupt();
            }
            Actor::Hands => self.drives.see_to_slots(self.common.quiet),
            Actor::PowerOn => self.start_card(),
        }
    }

    fn turn(&mut self, core: usize) {
        let Some(card) = &mut self.card else { return };
        card.turn(core);
        card.check_homes();
        self.network.collect(0);
        if core == 0 {
            self.follow_control();
        }
        // What the turn has given to the drives begins, and what needs no media ends.
        for index in 0..self.drives.all.len() {
            self.work(index);
        }
        self.note_unready_drives();
        self.turns += 1;
        if self.turns.is_multiple_of(CHECK_EVERY) {
            self.check_counts();
            self.note_well_drives();
        }
    }

    fn work(&mut self, index: usize) {
        let now = self.now();
        self.drives.all[index].work(now);
        self.interrupt();
    }

    fn interrupt(&mut self) {
        if let Some(card) = &mut self.card {
            card.interrupt();
        }
    }

    /// Nothing is ever lent twice or returned twice.
    fn check_counts(&mut self) {
        let Some(card) = &mut self.card else { return };
        card.note_counters();
        let held = card.held_connects();
        if held > self.held_connects {
            self.common.trace.event(Kind::ConnectHeld, &[held], format_args!("{held} so far"));
        }
        self.held_connects = held;
        card.check_mesh();
        for counts in card.counts() {
            let sane = counts.slots_free <= counts.slots
                && counts.pages_free <= counts.pages
                && counts.pages_promised <= counts.pages_free;
            assert!(sane, "VIOLATION: {counts:?}");
        }
    }

    fn strike(&mut self) {
        let now = self.now();
        let Some(strike) = self.chaos.take(now) else { return };
        let drive = self.random.usize(0..self.drives.all.len());
        let host = self.random.usize(0..self.hosts.len());
        match strike {
            Strike::Host => self.strike_host(host),
            Strike::Cut => {
                let port = self.random.usize(0..=self.hosts.len());
                let until = now + Duration::from_millis(self.random.u64(20..4000));
                let (towards, from) = [(true, true), (true, false), (false, true)][self.random.usize(0..3)];
                self.network.cut(port, towards, from, until);
            }
            Strike::Removal => {
                self.common.faults.disturb(drive);
                self.drives.pull(drive, now + Duration::from_millis(self.random.u64(1..5000)));
                self.note_losses();
            }
            Strike::Slot => {
                self.common.faults.disturb(drive);
                self.drives.touch(drive);
                self.note_losses();
            }
            Strike::End => self.press_power_button(),
            Strike::Wrong => {
                self.common.faults.disturb(drive);
                self.drives.go_wrong(drive);
                self.note_losses();
            }
            Strike::Fatal => {
                self.common.faults.disturb(drive);
                self.drives.turn_fatal(drive);
            }
            Strike::Lie => {
                self.common.faults.disturb(drive);
                self.common.faults.fail(drive);
                self.drives.lie(drive);
            }
            Strike::Slow => {
                self.common.faults.disturb(drive);
                let slowness = [1, 10, 100][self.random.usize(0..3)];
                self.drives.set_slowness(drive, slowness);
            }
            Strike::Power => self.cut_power(),
            Strike::Pause => {
                let time = Duration::from_millis(self.random.u64(1..2500));
                if let Some(card) = &mut self.card {
                    let core = self.random.usize(0..card.core_count());
                    card.pause(core, time);
                    self.disturb_all(now + time);
                }
            }
        }
    }

    fn strike_host(&mut self, index: usize) {
        let time = Duration::from_millis(self.random.u64(200..3000));
        // Writes of the host that goes are then still at drives when it comes back.
        if self.random.bool() {
            self.drives.all.iter().for_each(|drive| drive.blocks.delay_running(FAILOVER_DELAY));
        }
        let host = &mut self.hosts[index];
        match self.random.u32(0..6) {
            0 => host.leave(&mut self.common),
            1 => host.shut_down(&mut self.common),
            2 | 3 => host.reset(&mut self.common),
            4 => host.die(&mut self.common, &mut self.network, time),
            _ => host.stall(&self.common, time),
        }
    }

    fn press_power_button(&mut self) {
        let Some(card) = &mut self.card else { return };
        if card.press_power_button() {
            let faults = &self.common.faults;
            self.drives.begin_end(&card.ready_drives(), |drive| !faults.in_trouble(drive));
        }
        self.common.trace.event(Kind::PowerButton, &[], format_args!(""));
        self.disturb_all(self.now() + END_LIMIT);
    }

    /// The control core may have switched a slot, or the card.
    fn follow_control(&mut self) {
        self.drives.follow_power();
        self.note_losses();
        if self.card.as_ref().is_some_and(Card::is_off) {
            self.common.trace.event(Kind::OrderlyEnd, &[], format_args!(""));
            self.lose_power(true);
        }
    }

    /// The card and all drives lose their power.
    fn cut_power(&mut self) {
        if self.card.is_some() {
            self.common.trace.event(Kind::PowerCut, &[], format_args!("for {START_TIME:?}"));
            self.disturb_all(self.now());
            self.lose_power(false);
        }
    }

    fn lose_power(&mut self, in_order: bool) {
        self.card = None;
        self.drives.cut_power(in_order);
        for host in &mut self.hosts {
            host.card_lost_power(&mut self.common);
        }
        self.note_losses();
        self.power_on = self.now() + START_TIME;
    }

    fn start_card(&mut self) {
        self.power_on = Instant::FAR_FUTURE;
        let (drives, random) = (self.drives.power_on(), self.random.fork());
        let (time, trace) = (&self.common.time, &self.common.trace);
        self.card = Some(Card::start(&self.settings, drives, &mut self.network, random, time, trace));
    }

    /// Tells the oracle of caches that were lost.
    fn note_losses(&mut self) {
        for (index, drive) in self.drives.all.iter().enumerate() {
            if drive.blocks.take_power_losses() == 0 {
                continue;
            }
            if drive.is_volatile() {
                self.common.faults.lose_cache(index);
            }
            for &namespace in &drive.namespaces {
                self.common.oracle.power_lost(namespace);
            }
        }
        // With the whole card gone, hosts know: also of what went before, and which it had not told them of yet.
        if self.card.is_none() {
            let namespaces = self.drives.all.iter().flat_map(|drive| &drive.namespaces);
            namespaces.for_each(|&namespace| self.common.oracle.loss_is_known(namespace, None));
        }
    }
}
