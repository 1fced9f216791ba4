//! A host that keeps to the rules: associations over real TCP, real NVMe/TCP queues, commands of every kind, and the
//! judgement of each answer.

mod aborts;
mod association;
mod commands;
mod events;
mod pairs;
mod shutdown;
mod told;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use hal_api::{FrameQueue, Instant, PortInfo};
use hal_fakes::{FakeFrameQueue, FarEnd, frame_queue_pair};
use hal_mem::Arena;
use net::{Addressing, Config, Stack};
use nvmeof::initiator::Identity;

use crate::card;
use crate::faults::Faults;
use crate::kinds::Kind;
use crate::media::Time;
use crate::network::Network;
use crate::oracle::{Oracle, Range};
use crate::pattern::Version;
use crate::settings::HostSettings;
use crate::trace::Trace;

use association::Association;
use commands::Commands;

/// Sockets of a host: those of one association, and those of the last one that are not quite closed.
const SOCKETS: usize = 10;
/// Buffer of a socket in each direction.
const SOCKET_BYTES: usize = 32 * 1024;
/// Buffers of a host's port in each direction.
const PORT_BUFFERS: usize = 128;
/// Frames of a turn.
const BUDGET: usize = 64;

/// The end of a connection, or its reset, is heard by the card in this time unless a frame is missed.
const HEARD: Duration = Duration::from_millis(25);

/// A host's commands are answered in this time where nothing goes wrong and little is asked.
pub const PROMPT: Duration = Duration::from_millis(50);

/// A namespace as every host must find it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its place in the world.
    pub index: u16,
    /// Its drive's place in the world.
    pub drive: usize,
    /// Blocks.
    pub blocks: u64,
    /// Log2 of the block size.
    pub block_shift: u8,
    /// Dataset Management does what it says.
    pub deallocates: bool,
}

/// What all hosts share.
pub struct Common {
    /// The truth.
    pub oracle: Oracle,
    /// What each drive may do wrong by now.
    pub faults: Faults,
    /// The namespaces, by NSID.
    pub targets: BTreeMap<u32, Target>,
    /// How many hosts divide the namespaces among them.
    pub hosts: u64,
    /// Faults are over: no new commands.
    pub quiet: bool,
    /// The longest time that a command may take, where nothing excuses more.
    pub patience: Duration,
    /// The run is over: nobody connects any more.
    pub over: bool,
    /// Nothing at all goes wrong in this run.
    pub calm: bool,
    /// The network changes data that only digests protect.
    pub forged: bool,
    /// [`Network::missed`].
    pub missed: u64,
    /// The virtual clock.
    pub time: Time,
    /// The record.
    pub trace: Trace,
}

/// A write of a lost connection.
#[derive(Debug, Clone, Copy)]
struct LostWrite {
    range: Range,
    version: Version,
    /// A Connect that is sent after this is held by the card until the write has ended.
    fenced_after: Instant,
    /// So is one that is sent after this, if no frame was missed meanwhile: how many had been missed by then.
    heard: Option<(Instant, u64)>,
}

/// What a host does.
#[derive(Debug)]
enum State {
    /// Nothing, until then.
    Away(Instant),
    /// It connects, or is connected.
    Joined(Box<Association>),
    /// It has no power, until then.
    Dead(Instant),
}

/// A host.
pub struct Host {
    index: usize,
    port: usize,
    settings: HostSettings,
    identity: Identity,
    stack: Stack<FakeFrameQueue>,
    news: FarEnd,
    random: Rng,
    state: State,
    commands: Commands,
    lost: Vec<LostWrite>,
    /// When the next command may start.
    next_command: Instant,
    /// Does nothing until then.
    stalled: Instant,
}

impl Host {
    /// Host `index`, plugged into the network.
    #[must_use]
    pub fn new(
        index: usize,
        settings: HostSettings,
        network: &mut Network,
        mut random: Rng,
        common: &Common,
    ) -> Self {
        let identity =
            Identity::new([index as u8 + 1; 16], &format!("nqn.2014-08.org.example:host{index}"), card::NQN);
        let (stack, port, news) = plug(index, network, &mut random, common.time.now());
        Self {
            index,
            port,
            settings,
            identity: identity.expect("names that fit"),
            stack,
            news,
            state: State::Away(common.time.now() + Duration::from_micros(random.u64(0..200_000))),
            random,
            commands: Commands::default(),
            lost: Vec::new(),
            next_command: Instant::ZERO,
            stalled: Instant::ZERO,
        }
    }

    /// Whether it has an association and no command under way but those that wait for events.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_ready() && self.commands.outstanding() == 0
    }

    /// Whether it has an association.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(&self.state, State::Joined(association) if association.is_ready())
    }

    /// Whether it has no association, and begins none.
    #[must_use]
    pub fn is_away(&self) -> bool {
        !matches!(self.state, State::Joined(_))
    }

    /// Whether it knows all namespaces.
    #[must_use]
    pub fn knows_all(&self, common: &Common) -> bool {
        let known = |association: &Association| association.namespaces.len() == common.targets.len();
        matches!(&self.state, State::Joined(association) if known(association))
    }

    /// What it waits for, for a report.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("host {}: {:?}, commands {:?}", self.index, self.state, self.commands)
    }

    /// When it wants to be stepped.
    #[must_use]
    pub fn next_step(&mut self, now: Instant, quiet: bool, over: bool) -> Instant {
        if let State::Dead(until) = self.state {
            return until;
        }
        if now < self.stalled {
            return self.stalled;
        }
        if self.news.has_frame() {
            return now;
        }
        let stack = self.stack.next_deadline(now).unwrap_or(Instant::FAR_FUTURE);
        let own = match &self.state {
            State::Away(_) if over => Instant::FAR_FUTURE,
            State::Away(until) | State::Dead(until) => *until,
            State::Joined(association) => {
                let starts =
                    association.is_ready() && !quiet && self.commands.outstanding() < self.settings.depth;
                let next = if starts { self.next_command } else { Instant::FAR_FUTURE };
                next.min(association.next_deadline())
            }
        };
        // A timer of TCP that is due and cannot fire yet must not stop the clock.
        stack.max(now + Duration::from_micros(10)).min(own)
    }

    /// One step: frames in, answers judged, commands started, frames out.
    pub fn step(&mut self, common: &mut Common, network: &mut Network) {
        let now = common.time.now();
        match self.state {
            State::Dead(until) if now < until => return,
            State::Dead(_) => {
                self.state = State::Away(now + Duration::from_micros(self.random.u64(0..500_000)))
            }
            _ if now < self.stalled => return,
            State::Away(until) if now >= until && !common.over => self.join(common),
            _ => {}
        }
        self.stack.poll(now, BUDGET);
        common.missed = network.missed();
        self.serve(common);
        self.stack.transmit(now, BUDGET);
        self.stack.flush();
        network.collect(self.port);
    }

    /// It leaves in good order, and comes back after a while.
    pub fn leave(&mut self, common: &mut Common) {
        common.trace.event(Kind::HostLeaves, &[self.index as u64], format_args!("host {}", self.index));
        self.part(common, false);
    }

    /// It resets its connections.
    pub fn reset(&mut self, common: &mut Common) {
        common.trace.event(Kind::HostResets, &[self.index as u64], format_args!("host {}", self.index));
        self.part(common, true);
    }

    /// It loses its power for a while.
    pub fn die(&mut self, common: &mut Common, network: &mut Network, away: Duration) {
        common.trace.event(Kind::HostDies, &[self.index as u64], format_args!("host {}", self.index));
        self.lose_commands(common, false);
        let now = common.time.now();
        let (stack, port, news) = plug(self.index, network, &mut self.random, now);
        (self.stack, self.port, self.news) = (stack, port, news);
        self.state = State::Dead(now + away);
    }

    /// It reads and sends nothing for a while.
    pub fn stall(&mut self, common: &Common, time: Duration) {
        common.trace.event(
            Kind::HostStalls,
            &[self.index as u64],
            format_args!("host {} for {time:?}", self.index),
        );
        self.stalled = common.time.now() + time;
    }

    /// The card has lost its power: no write that was on its way can land any more.
    pub fn card_lost_power(&mut self, common: &mut Common) {
        self.commands.card_lost_power(&mut common.oracle);
        for lost in core::mem::take(&mut self.lost) {
            common.oracle.write_ended(lost.range, lost.version);
        }
    }

    fn part(&mut self, common: &mut Common, reset: bool) {
        let pause = self.pause();
        if let State::Joined(association) = &mut self.state {
            let heard = association.end(&mut self.stack, reset);
            self.lose_commands(common, heard);
            self.state = State::Away(common.time.now() + pause);
        }
    }

    /// How long it stays away.
    fn pause(&mut self) -> Duration {
        let quick = self.random.bool();
        Duration::from_millis(self.random.u64(if quick { 30..150 } else { 110..1500 }))
    }

    /// All commands are lost with their connections; the card hears of that unless frames are missed.
    fn lose_commands(&mut self, common: &mut Common, heard: bool) {
        let now = common.time.now();
        // What the card needs to notice by itself that nobody is there: frames on their way, the keep alive time-out in
        // whole seconds, its tick, and a pause of its core.
        let keep_alive = Duration::from_millis(u64::from(self.settings.keep_alive_ms));
        let fenced_after = now + keep_alive + Duration::from_secs(5);
        for (range, version) in self.commands.lose_all() {
            common.trace.event(
                Kind::WriteUnknown,
                &[range.lba, version.into()],
                format_args!("{range:?} {version}"),
            );
            let heard = heard.then_some((now + HEARD, common.missed));
            self.lost.push(LostWrite { range, version, fenced_after, heard });
        }
    }

    /// Writes of lost connections that can no longer land; `fenced`: the association began after that moment.
    fn settle_lost(&mut self, common: &mut Common, joined_at: Option<Instant>) {
        /// A request ends in the card after 25 s at most, and a reset of its drive comes then.
        const REQUEST_LIFE: Duration = Duration::from_secs(40);
        let now = common.time.now();
        self.lost.retain(|lost| {
            let heard = |at| lost.heard.is_some_and(|(by, missed)| at > by && missed == common.missed);
            let fenced = joined_at.is_some_and(|at| at > lost.fenced_after || heard(at));
            let over = fenced || now > lost.fenced_after + REQUEST_LIFE;
            if over {
                common.oracle.write_ended(lost.range, lost.version);
            }
            if fenced && !common.quiet {
                let values = [lost.range.lba, lost.version.into()];
                common.trace.event(
                    Kind::WriteFenced,
                    &values,
                    format_args!("{:?} {}", lost.range, lost.version),
                );
            }
            !over
        });
    }
}

/// A new stack on a new port device, in the cable of the host's old one.
fn plug(
    index: usize,
    network: &mut Network,
    random: &mut Rng,
    now: Instant,
) -> (Stack<FakeFrameQueue>, usize, FarEnd) {
    let mac = [2, 0, 0, 0, 1, index as u8];
    let info = PortInfo {
        mac,
        mtu: [1500, 1500, 9000][random.usize(0..3)],
        receive_checksums_verified: false,
        transmit_checksum_offload: false,
    };
    let (queue, far) = frame_queue_pair(info, info, PORT_BUFFERS);
    let config = Config {
        addressing: Addressing::Static {
            address: [10, 0, 0, 10 + index as u8].into(),
            prefix: 24,
            gateway: None,
        },
        mtu_limit: 9000,
        sockets: SOCKETS,
        receive_bytes: SOCKET_BYTES,
        transmit_bytes: SOCKET_BYTES,
        ports: &[],
        ..Config::default()
    };
    let mut arena = Arena::leak_for_host(config.memory_bytes() + (64 << 10));
    debug_assert_eq!(queue.info().mac, mac);
    let stack = Stack::new(queue, &config, &mut arena, random.u64(..), now).expect("enough memory");
    let port = network.plug(far, mac, false);
    (stack, port, network.watch(port))
}
