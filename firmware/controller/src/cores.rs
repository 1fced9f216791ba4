//! This core among the data cores: the ways to the others, changes that it has begun, and changes that it owes an answer.
//!
//! See docs/design/many-cores.md. What the others say comes to [`Subsystem::heed`]; what concerns connections is left to the transport
//! in a [`Heard`]. A card with one data core has none of this.

mod ana;
mod changes;
mod locks;
mod registrar;

use core::net::IpAddr;

use hal_api::Instant;
use hal_log::{error, warn};
use hal_mem::{Arena, OutOfMemory};
use message::configuration::SubsystemPlace;
use message::{
    Address, Change, Confirmed, CoreMessage, CoreSet, EndReason, LockName, LostList, MAX_CHANGES,
    MAX_DATA_CORES, Mesh, MeshCounters, QueueGrant, Quiesces, Roster,
};
use nvme::Status;

use crate::ana::PortId;
use crate::association::Failure;
use crate::backend::BackendNamespace;
use crate::namespace::Namespace;
use crate::subsystem::Subsystem;
pub use ana::AnaStart;
use changes::MAX_OWN_CHANGES;
pub use locks::LockNews;

/// What data cores say to each other.
pub type Message = CoreMessage<Namespace>;

/// A change that this core has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) change: Change,
    /// For the end of a controller: whose it was.
    pub(crate) host_id: [u8; 16],
    /// For what a Connect waits for, and for the end of a controller: the address that it came from.
    pub(crate) peer: Option<IpAddr>,
    /// For the end of a controller: its subsystem.
    pub(crate) subsystem: SubsystemPlace,
}

impl Begun {
    /// One that is no host's.
    pub(crate) const fn of(change: Change) -> Self {
        Self { change, host_id: [0; 16], peer: None, subsystem: SubsystemPlace::DISCOVERY }
    }
}

/// A change that another core has begun and this one has not confirmed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    from: u8,
    number: u32,
    /// What it is.
    pub change: Change,
    /// What the transport notes for itself.
    pub mark: Mark,
}

impl Owed {
    /// Whether this core has begun it itself.
    #[must_use]
    pub fn is_own(&self, subsystem: &Subsystem) -> bool {
        self.from == subsystem.core()
    }
}

/// How far the transport is with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It does not know of it.
    New,
    /// It has heard of it in this turn.
    Heard(u64),
    /// It has taken it up, when so many connections were lost.
    TakenUp(u32),
}

/// The other data cores.
#[derive(Debug)]
pub struct Cores {
    pub(crate) mesh: Mesh<Message>,
    /// Controllers that live here, and all there are; the subsystem's other places are for delegates.
    pub(crate) roster: Roster,
    changes: Quiesces<Begun, MAX_CHANGES>,
    owed: &'static mut [Option<Owed>],
    owed_count: usize,
    /// Changes that this core takes part in itself, and has made.
    own_confirmations: heapless::Deque<u32, MAX_OWN_CHANGES>,
    /// For each core, Connect requests that it has not answered.
    pub(crate) requests: [u16; MAX_DATA_CORES],
    pub(crate) last_ticket: u32,
    /// Messages that made no sense, or for which there was no room where there should have been.
    pub(crate) faults: u64,
}

/// What a message leaves to the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// A Connect request was granted: adopt the queue, or give it back.
    Granted {
        /// The controller's home.
        home: u8,
        /// What was granted.
        grant: QueueGrant,
    },
    /// A Connect request was refused.
    Refused {
        /// The request.
        ticket: u32,
        /// What to answer.
        failure: Failure,
    },
    /// A core has confirmed a fence, or arrivals: what a Connect waits for.
    Confirmed {
        /// Which.
        number: u32,
        /// Losses that the host has not heard of from that core.
        lost: LostList,
        /// It was the last core.
        complete: bool,
    },
    /// A controller has no queues on other cores any more.
    Ended,
    /// About blocks that fused pairs have for themselves.
    Lock(LockNews),
    /// Look at [`Subsystem::settle`]: there is a change to make.
    Change(Change),
    /// The registrar says: serve this namespace.
    Attach(Namespace),
    /// To the registrar: a drive has this namespace.
    Found(Namespace),
    /// To the registrar: a drive has this namespace no more, or none at all.
    Gone(BackendNamespace),
    /// A port has these addresses now.
    Addresses {
        /// The place of the port.
        port: u8,
        /// The main one, then one of IPv6 besides.
        addresses: [Option<Address>; 2],
    },
    /// The discovery log with these addresses of all ports has this generation.
    Listening {
        /// GENCTR.
        generation: u64,
    },
    /// A drive has come up or failed for the first time, at its home.
    DriveSettled {
        /// Which.
        drive: u8,
    },
    /// The ANA state of a port is changed on all cores, and I/O that it refuses has ended.
    AnaChanged {
        /// Which.
        port: PortId,
        /// The state, as the ANA log page has it.
        state: u8,
    },
    /// A namespace is detached on all cores.
    Detached {
        /// Its key.
        key: u32,
    },
}

/// How a fence begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceStart {
    /// There are no other cores.
    NotNeeded,
    /// Under this number: wait for [`Heard::Confirmed`].
    Begun(u32),
    /// Try again later: an earlier fence of this host is pending, or there are too many.
    Busy,
}

impl Cores {
    /// The other ends of `mesh`. The subsystem needs places for the controllers that the roster has room for, and one for each
    /// connection besides: all may be queues of controllers that live elsewhere.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small.
    pub fn new(
        mesh: Mesh<Message>,
        roster: Roster,
        arena: &mut Arena,
    ) -> Result<&'static mut Self, OutOfMemory> {
        let others = usize::from(mesh.cores().saturating_sub(1));
        let owed = arena.slice(others * MAX_CHANGES + MAX_OWN_CHANGES, |_| None)?;
        arena.value(Self {
            mesh,
            roster,
            changes: Quiesces::new(),
            owed,
            owed_count: 0,
            own_confirmations: heapless::Deque::new(),
            requests: [0; MAX_DATA_CORES],
            last_ticket: 0,
            faults: 0,
        })
    }

    pub(crate) fn post(&mut self, to: u8, message: Message) -> bool {
        let sent = self.mesh.send(to, message).is_ok();
        if !sent {
            debug_assert!(false, "more messages than can be under way");
            self.faults += 1;
            error!("core {}: a message to core {} found no room", self.mesh.core(), to);
        }
        sent
    }

    /// Sends what can be told late, if it can be told now.
    pub(crate) fn tell(&mut self, to: u8, message: Message) -> bool {
        self.mesh.takes_news(to) && self.mesh.send(to, message).is_ok()
    }

    pub(crate) fn begin(&mut self, begun: Begun, cores: CoreSet) -> Option<u32> {
        let change = begun.change;
        let number = self.changes.begin(begun, cores).ok()?;
        let own = self.mesh.core();
        for core in cores.iter() {
            if core == own {
                self.owe(Owed { from: own, number, change, mark: Mark::New });
            } else {
                self.post(core, Message::Change { number, change });
            }
        }
        Some(number)
    }

    /// All cores, this one too.
    fn all(&self) -> CoreSet {
        let mut all = self.mesh.others();
        all.insert(self.mesh.core());
        all
    }

    pub(crate) fn count(&self, which: impl Fn(&Begun) -> bool) -> usize {
        self.changes.pending().filter(|pending| which(&pending.what)).count()
    }

    fn owe(&mut self, owed: Owed) {
        if let Some(place) = self.owed.iter_mut().find(|place| place.is_none()) {
            *place = Some(owed);
            self.owed_count += 1;
        } else {
            debug_assert!(false, "a core has begun more changes than it may");
            self.faults += 1;
        }
    }
}

impl Subsystem {
    /// From now on this is one of several data cores.
    pub fn join(&mut self, cores: &'static mut Cores) {
        self.cores = Some(cores);
    }

    /// Whether there are other data cores.
    #[must_use]
    pub const fn has_others(&self) -> bool {
        self.cores.is_some()
    }

    /// This core's number among the data cores.
    #[must_use]
    pub fn core(&self) -> u8 {
        self.place().0 as u8
    }

    /// This core's number among the data cores, and how many there are.
    pub(crate) fn place(&self) -> (u16, u16) {
        let place =
            |cores: &&'static mut Cores| (u16::from(cores.mesh.core()), u16::from(cores.mesh.cores()));
        self.cores.as_ref().map_or((0, 1), place)
    }

    /// The core on which a controller lives.
    #[must_use]
    pub fn home_of(&self, cntlid: u16) -> u8 {
        let (_, cores) = self.place();
        cntlid.saturating_sub(1).checked_rem(cores).unwrap_or(0) as u8
    }

    /// The next message from another core, for [`Self::heed`].
    pub fn take_message(&mut self) -> Option<(u8, Message)> {
        let cores = self.cores.as_mut()?;
        // Its losses this core knows.
        let confirm = |number| (cores.mesh.core(), Message::Confirm { number, lost: LostList::default() });
        cores.own_confirmations.pop_front().map(confirm).or_else(|| cores.mesh.receive())
    }

    /// Sends what has waited for room. Returns the cores that have news since the last call.
    pub fn send_messages(&mut self) -> CoreSet {
        let Some(cores) = self.cores.as_mut() else { return CoreSet::NONE };
        cores.mesh.flush();
        cores.mesh.take_news_for()
    }

    /// Whether a message has come, or waits to be sent.
    pub fn has_messages(&mut self) -> bool {
        self.cores.as_mut().is_some_and(|cores| !cores.own_confirmations.is_empty() || cores.mesh.has_work())
    }

    /// What was said and heard; `None` where there are no other cores.
    #[must_use]
    pub fn mesh_counters(&self) -> Option<MeshCounters> {
        self.cores.as_ref().map(|cores| cores.mesh.counters())
    }

    /// Confirmations that nobody has waited for, and messages that made no sense: all of them are bugs.
    #[must_use]
    pub fn mesh_faults(&self) -> u64 {
        self.cores.as_ref().map_or(0, |cores| cores.changes.ignored() + cores.faults)
    }

    /// Changes that this core has begun and that are not complete, and changes that it owes an answer.
    #[must_use]
    pub fn pending_changes(&self) -> (usize, usize) {
        self.cores.as_ref().map_or((0, 0), |cores| (cores.changes.pending().count(), cores.owed_count))
    }

    /// Takes in what another core says.
    pub fn heed(&mut self, from: u8, message: Message, now: Instant) -> Heard {
        self.now = self.now.max(now);
        match message {
            Message::Connect(request) => self.answer(from, &request, now),
            Message::Granted(grant) => {
                self.count_answer(from);
                return Heard::Granted { home: from, grant };
            }
            Message::Refused { ticket, status, result } => {
                self.count_answer(from);
                let failure = Failure { status: Status::from_field(status), result };
                return Heard::Refused { ticket, failure };
            }
            Message::QueueGone { cntlid, queue_id } => self.queue_gone(cntlid, queue_id),
            Message::Activity { cntlid } => {
                if let Some((handle, _)) = self.home_controller(cntlid) {
                    self.note_activity(handle, now);
                }
            }
            Message::Error(report) => self.enter_report(&report),
            Message::Change { number, change } => {
                if let Some(cores) = self.cores.as_mut() {
                    cores.owe(Owed { from, number, change, mark: Mark::New });
                }
                return Heard::Change(change);
            }
            Message::Confirm { number, lost } => return self.confirmed(from, number, lost),
            Message::Attach(namespace) => return Heard::Attach(namespace),
            Message::Found(namespace) => return Heard::Found(namespace),
            Message::Gone { drive, nsid } => return Heard::Gone(BackendNamespace { drive, nsid }),
            Message::DriveSettled { drive } => return Heard::DriveSettled { drive },
            Message::Addresses { port, addresses } => return Heard::Addresses { port, addresses },
            Message::Listening { generation } => return Heard::Listening { generation },
            Message::Lock { ticket, blocks } => {
                return Heard::Lock(LockNews::Asked(LockName { core: from, ticket }, blocks));
            }
            Message::LockGranted { ticket } => return Heard::Lock(LockNews::Granted { ticket }),
            Message::Unlock { ticket } => {
                return Heard::Lock(LockNews::GivenBack(LockName { core: from, ticket }));
            }
            Message::Unlocked(name) => return Heard::Lock(LockNews::Over(name)),
            Message::LossTold { cntlid, host_id, key, at } => {
                self.losses_were_told(cntlid, host_id, key, at);
            }
        }
        Heard::Nothing
    }

    fn confirmed(&mut self, from: u8, number: u32, lost: LostList) -> Heard {
        let Some(cores) = self.cores.as_mut() else { return Heard::Nothing };
        let (begun, complete) = match cores.changes.confirm(number, from) {
            Confirmed::Ignored => {
                warn!("core {} confirms change {}, which nobody waits for", from, number);
                return Heard::Nothing;
            }
            Confirmed::Waiting(begun) => (begun, false),
            Confirmed::Complete(begun) => (begun, true),
        };
        match begun.change {
            // These tell something with each confirmation.
            Change::Fence { .. } | Change::Arrivals { .. } => Heard::Confirmed { number, lost, complete },
            _ if !complete => Heard::Nothing,
            Change::Detach { key, .. } => Heard::Detached { key },
            Change::Ana { port, state } => Heard::AnaChanged { port: PortId(port), state },
            Change::Lock { name, .. } => Heard::Lock(LockNews::Clear(name)),
            Change::End { cntlid, reason } => {
                if reason == EndReason::Reset
                    && let Some((handle, _)) = self.home_controller(cntlid)
                    && let Some(controller) = self.controller_mut(handle)
                {
                    controller.ended_elsewhere();
                    self.shutdown_asked = true;
                }
                Heard::Ended
            }
        }
    }

    /// Tells all other cores the addresses of a port. False when some could not be told now.
    pub fn tell_addresses(&mut self, port: u8, addresses: [Option<Address>; 2]) -> bool {
        self.tell_others(&Message::Addresses { port, addresses })
    }

    /// Tells them the generation of the discovery log, behind the addresses of all ports. False as there.
    pub fn tell_listening(&mut self) -> bool {
        self.tell_others(&Message::Listening { generation: self.discovery_generation })
    }

    /// Tells all other cores that a drive has come up or failed for the first time.
    pub fn tell_settled(&mut self, drive: u8) {
        self.post_to_others(&Message::DriveSettled { drive });
    }

    pub(crate) fn post_to_others(&mut self, message: &Message) {
        let Some(cores) = self.cores.as_mut() else { return };
        for core in cores.mesh.others().iter() {
            cores.post(core, message.clone());
        }
    }

    /// False when some could not be told now.
    pub(crate) fn tell_others(&mut self, message: &Message) -> bool {
        let Some(cores) = self.cores.as_mut() else { return true };
        let mut all = true;
        for core in cores.mesh.others().iter() {
            all &= cores.tell(core, message.clone());
        }
        all
    }
}

#[cfg(test)]
mod tests;
