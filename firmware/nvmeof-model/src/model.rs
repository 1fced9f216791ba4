//! The state of a target's connections, and what bytes of a host do to it.
//!
//! An *exchange* is: a host sends some bytes ([`Model::send`]), the target does all that it can, its answers are read
//! ([`Model::reply`]), and then nothing is left open but what waits for the host ([`Model::rest`]).

use crate::Card;
use crate::blocks::Blocks;
use crate::command_rules::{self as rules, Effect, Move, Queue, Statuses, Verdict};
use crate::pdu_rules::{self, Fault, Layout, OpenR2t, State};
use crate::wire::{
    CAPSULE, Command, Digests, HOST_DATA, ICREQ, SGL_IN_CAPSULE, SGL_TRANSPORT, crc32c, u16_at, u32_at,
};

/// How a connection goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Open.
    Lives,
    /// A C2HTermReq with one of these is due, and nothing after it (TCP 3.5).
    Terminates(Vec<Fault>),
    /// The controller may close it: an H2CTermReq has begun.
    MayClose,
    /// The controller has to close it.
    Closes,
}

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// ICReq is awaited.
    New,
    /// Connect is awaited.
    Initialized,
    /// A queue of the controller with this index.
    Live {
        /// Index into the model's controllers.
        controller: usize,
        /// QID.
        queue_id: u16,
    },
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// An R2T is due.
    AwaitsR2t,
    /// The host owes data.
    Receives,
    /// A response is due.
    Answer,
    /// A response comes in its own time.
    Lingers,
}

/// Whether a capsule has the CID of another command (Base 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflict {
    None,
    /// The other may have been answered just now.
    Possible,
    Certain,
}

/// A command that its host has had no response to.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub cid: u16,
    pub command: Command,
    pub verdict: Verdict,
    pub step: Step,
    /// SQHD once it was taken, before it wraps.
    pub ordinal: Option<u32>,
    pub r2t: Option<OpenR2t>,
    /// Data from the host.
    pub data: Vec<u8>,
    /// A data digest was wrong.
    pub spoiled: bool,
    /// Data from the controller, and whether that is all.
    pub received: Vec<u8>,
    pub received_all: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub phase: Phase,
    pub digests: Digests,
    pub alignment: u8,
    pub fate: Fate,
    pub terminated: bool,
    pub icresp_due: bool,
    incoming: Vec<u8>,
    /// The header that was accepted last, while its body is awaited.
    layout: Option<Layout>,
    /// Whether the CID of the capsule whose body is awaited was in use when its header came.
    conflict: Conflict,
    /// The first bytes of the PDU that ended it.
    pub wrong: Vec<u8>,
    pub outstanding: Vec<Outstanding>,
    pub entries: u16,
    pub consumed: u32,
    pub flow_control: bool,
}

/// A controller.
#[derive(Debug)]
pub(crate) struct Controller {
    pub cntlid: Option<u16>,
    pub alive: bool,
    pub host_id: Vec<u8>,
    pub host: Vec<u8>,
    pub cc: u32,
    pub ready: Option<bool>,
    /// The highest QID that it has granted.
    pub granted: u16,
    /// QID and connection.
    pub queues: Vec<(u16, usize)>,
}

/// What hosts need to know of a connection to go on with it.
#[derive(Debug, Clone)]
pub struct View {
    /// What it is.
    pub phase: Phase,
    /// How it goes on.
    pub fate: Fate,
    /// Commands without a response.
    pub outstanding: usize,
    /// Entries of its queue.
    pub entries: u16,
    /// Data that it owes.
    pub open: Vec<OpenR2t>,
    /// CIDs in use.
    pub cids: Vec<u16>,
}

/// Everything that hosts and target have agreed on.
#[derive(Debug)]
pub struct Model {
    pub(crate) card: Card,
    pub(crate) connections: Vec<Option<Connection>>,
    pub(crate) controllers: Vec<Controller>,
    pub(crate) blocks: Blocks,
    /// The model cannot tell what has happened: nothing is judged any more.
    pub(crate) unsure: bool,
}

impl Model {
    /// Without connections.
    #[must_use]
    pub fn new(card: Card) -> Self {
        let blocks = Blocks::default();
        Self { card, connections: Vec::new(), controllers: Vec::new(), blocks, unsure: false }
    }

    /// Whether there is nothing more to judge: several outcomes were right, and they lead apart.
    #[must_use]
    pub const fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// A TCP connection was accepted.
    pub fn open(&mut self) -> usize {
        self.connections.push(Some(Connection {
            phase: Phase::New,
            digests: Digests::default(),
            alignment: 0,
            fate: Fate::Lives,
            terminated: false,
            icresp_due: false,
            incoming: Vec::new(),
            layout: None,
            conflict: Conflict::None,
            wrong: Vec::new(),
            outstanding: Vec::new(),
            entries: 0,
            consumed: 0,
            flow_control: true,
        }));
        self.connections.len() - 1
    }

    /// What a host knows of a connection, until it is closed.
    #[must_use]
    pub fn view(&self, id: usize) -> Option<View> {
        let connection = self.connections.get(id)?.as_ref()?;
        Some(View {
            phase: connection.phase,
            fate: connection.fate.clone(),
            outstanding: connection.outstanding.len(),
            entries: connection.entries,
            open: connection.outstanding.iter().filter_map(|command| command.r2t).collect(),
            cids: connection.outstanding.iter().map(|command| command.cid).collect(),
        })
    }

    /// CNTLID of a controller.
    #[must_use]
    pub fn cntlid(&self, controller: usize) -> Option<u16> {
        self.controllers.get(controller).filter(|controller| controller.alive)?.cntlid
    }

    /// Whether a controller is known to be ready.
    #[must_use]
    pub fn is_ready(&self, controller: usize) -> bool {
        self.controllers.get(controller).is_some_and(|controller| controller.ready == Some(true))
    }

    /// A new exchange begins: all that was sent before has been done.
    pub fn begin_exchange(&mut self) {
        self.blocks.begin_exchange();
    }

    /// A host sends these bytes.
    pub fn send(&mut self, id: usize, bytes: &[u8]) {
        let Some(mut connection) = self.connections[id].take() else { return };
        connection.incoming.extend(bytes);
        while !self.unsure && self.step(id, &mut connection) {}
        self.connections[id] = Some(connection);
    }

    /// A host's connection is gone, whoever has closed it.
    pub fn close(&mut self, id: usize) {
        let Some(connection) = self.connections[id].take() else { return };
        for command in &connection.outstanding {
            if let Effect::Write(start, count) | Effect::Zero(start, count) = command.verdict.effect
                && command.step == Step::Answer
            {
                self.blocks.forget(start, count);
            }
        }
        let Phase::Live { controller, queue_id } = connection.phase else { return };
        let controller = &mut self.controllers[controller];
        controller.queues.retain(|&(queue, of)| (queue, of) != (queue_id, id));
        if queue_id == 0 {
            controller.alive = false;
            self.close_queues(id, connection.phase);
        }
    }

    /// The I/O queues of a connection's controller end (Base 3.5, 3.6).
    pub(crate) fn close_queues(&mut self, admin: usize, phase: Phase) {
        let Phase::Live { controller, .. } = phase else { return };
        for &(_, of) in &self.controllers[controller].queues {
            if let Some(connection) = self.connections[of].as_mut().filter(|_| of != admin) {
                connection.fate = Fate::Closes;
            }
        }
    }

    /// Takes the next header or the next PDU; false when more bytes are needed.
    fn step(&mut self, id: usize, connection: &mut Connection) -> bool {
        if !matches!(connection.fate, Fate::Lives | Fate::MayClose) || connection.incoming.len() < 8 {
            return false;
        }
        let layout = match connection.layout {
            Some(layout) => layout,
            None => match self.header(connection) {
                Ok(Some(layout)) => layout,
                Ok(None) => return false,
                Err(faults) => {
                    connection.wrong = connection.incoming.iter().take(128).copied().collect();
                    connection.fate = Fate::Terminates(faults);
                    return false;
                }
            },
        };
        connection.layout = Some(layout);
        if connection.incoming.len() < layout.total {
            return false;
        }
        connection.layout = None;
        let pdu: Vec<u8> = connection.incoming.drain(..layout.total).collect();
        self.pdu(id, connection, &pdu, &layout);
        true
    }

    /// Judges the header at the front, if it is all there.
    fn header(&mut self, connection: &mut Connection) -> Result<Option<Layout>, Vec<Fault>> {
        let state = if connection.phase == Phase::New { State::New } else { State::Ready };
        let bytes = &connection.incoming;
        let layout = pdu_rules::common_header(&bytes[..8], state, connection.digests, &self.card)?;
        let Some(header) = bytes.get(..layout.header) else { return Ok(None) };
        if layout.header_digest {
            let (covered, digest) = header.split_at(layout.header - 4);
            if crc32c(covered) != u32_at(digest, 0) {
                return Err(vec![(3, Some(u32_at(digest, 0)))]);
            }
        }
        let open: Vec<_> = connection.outstanding.iter().filter_map(|command| command.r2t).collect();
        let faults = match header[0] {
            ICREQ => pdu_rules::icreq(header),
            HOST_DATA => pdu_rules::host_data(header, &layout, &open, &self.card),
            CAPSULE => {
                connection.conflict = conflict(connection, u16_at(header, 10));
                let faults = self.queue_full(connection);
                // SQHD may go on before the data is there.
                connection.consumed += u32::from(faults.is_empty());
                faults
            }
            _ => {
                connection.fate = Fate::MayClose;
                Vec::new()
            }
        };
        if faults.is_empty() { Ok(Some(layout)) } else { Err(faults) }
    }

    /// More commands than entries (Base 3.3.3.1): a host that keeps to SQHD cannot get there.
    fn queue_full(&mut self, connection: &Connection) -> Vec<Fault> {
        let entries = if connection.entries == 0 { 1 } else { usize::from(connection.entries) };
        let stays = |command: &&Outstanding| match command.step {
            Step::AwaitsR2t | Step::Receives => true,
            Step::Lingers => command.verdict.effect == Effect::EventRequest,
            Step::Answer => false,
        };
        let certain = connection.outstanding.iter().filter(stays).count();
        if certain >= entries {
            return vec![pdu_rules::SEQUENCE];
        }
        // Some may have been answered, or not.
        self.unsure |= connection.outstanding.len() >= entries;
        Vec::new()
    }

    /// A whole PDU without a fault.
    fn pdu(&mut self, id: usize, connection: &mut Connection, pdu: &[u8], layout: &Layout) {
        let data = pdu.get(layout.data_at..layout.data_at + layout.data).unwrap_or_default();
        let intact = !layout.data_digest || crc32c(data) == u32_at(pdu, layout.data_at + layout.data);
        match pdu[0] {
            ICREQ => {
                connection.digests = Digests::of(pdu[11]);
                connection.alignment = pdu[10];
                connection.phase = Phase::Initialized;
                connection.icresp_due = true;
            }
            CAPSULE => self.capsule(id, connection, &Command(pdu[8..72].try_into().unwrap()), data, intact),
            HOST_DATA => self.host_data(id, connection, pdu, data, intact),
            _ => {
                connection.fate = Fate::Closes;
                if matches!(connection.phase, Phase::Live { queue_id: 0, .. }) {
                    self.close_queues(id, connection.phase);
                }
            }
        }
    }

    fn queue_of(&self, connection: &Connection) -> Queue {
        match connection.phase {
            Phase::Live { controller, queue_id: 0 } => Queue::Admin(self.controllers[controller].ready),
            Phase::Live { controller, .. } => Queue::Io(self.controllers[controller].ready),
            _ => Queue::None,
        }
    }

    fn capsule(
        &mut self,
        id: usize,
        connection: &mut Connection,
        command: &Command,
        data: &[u8],
        intact: bool,
    ) {
        let queue = self.queue_of(connection);
        let mut verdict = rules::judge(command, data.len() as u32, queue, &self.card);
        let cid = u16_at(&command.0, 2);
        match (connection.conflict, conflict(connection, cid)) {
            (Conflict::None, Conflict::None) => {}
            (Conflict::Certain, Conflict::Certain) => verdict = failing(verdict, rules::ID_CONFLICT),
            _ => {
                // Of three with one CID nobody can tell which answer is whose, nor of two that may both end anyhow.
                let same = || connection.outstanding.iter().filter(|other| other.cid == cid);
                self.unsure |= same().count() > 1
                    || same().any(|other| other.verdict.statuses == Statuses::Any)
                    || matches!(verdict.effect, Effect::Configure(_) | Effect::Disconnect | Effect::Connect);
                verdict = doubtful(verdict);
            }
        }
        if !intact {
            verdict = failing(verdict, rules::TRANSPORT_ERROR);
        }
        if verdict.effect == Effect::EventRequest {
            let parked = connection.outstanding.iter().filter(|other| other.verdict.lingers).count();
            if parked < self.card.max_event_requests {
                verdict.lingers = true;
            } else {
                verdict.statuses = Statuses::OneOf(vec![rules::EVENT_LIMIT]);
            }
        }
        if let Effect::Doubt(start, count) = verdict.effect {
            self.blocks.doubt(start, count.min(self.card.blocks.saturating_sub(start)));
        }
        let brings = matches!(verdict.moves, Move::FromHost(_));
        let step = match verdict.moves {
            Move::FromHost(_) if command.0[39] == SGL_TRANSPORT => Step::AwaitsR2t,
            _ if verdict.lingers => Step::Lingers,
            _ => Step::Answer,
        };
        connection.outstanding.push(Outstanding {
            cid,
            command: *command,
            verdict,
            step,
            ordinal: (connection.entries > 0).then_some(connection.consumed),
            r2t: None,
            data: if brings && command.0[39] == SGL_IN_CAPSULE { data.to_vec() } else { Vec::new() },
            spoiled: false,
            received: Vec::new(),
            received_all: false,
        });
        if step == Step::Answer {
            let last = connection.outstanding.len() - 1;
            self.execute(id, connection, last);
        }
    }

    fn host_data(&mut self, id: usize, connection: &mut Connection, pdu: &[u8], data: &[u8], intact: bool) {
        let tag = u16_at(pdu, 10);
        let of_tag = |command: &Outstanding| command.r2t.is_some_and(|r2t| r2t.tag == tag);
        let Some(at) = connection.outstanding.iter().position(of_tag) else { return };
        let command = &mut connection.outstanding[at];
        command.data.extend(data);
        command.spoiled |= !intact;
        let Some(r2t) = command.r2t.as_mut() else { return };
        r2t.next += data.len() as u32;
        if r2t.next < r2t.end {
            return;
        }
        command.r2t = None;
        if matches!(command.verdict.moves, Move::FromHost(bytes) if (command.data.len() as u32) < bytes) {
            command.step = Step::AwaitsR2t;
            return;
        }
        if command.spoiled {
            command.verdict = failing(command.verdict.clone(), rules::TRANSPORT_ERROR);
        }
        if command.verdict.lingers {
            command.step = Step::Lingers;
            return;
        }
        command.step = Step::Answer;
        self.execute(id, connection, at);
    }

    /// All data of a command from the host is there.
    fn execute(&mut self, id: usize, connection: &mut Connection, at: usize) {
        let command = &connection.outstanding[at];
        match command.verdict.effect {
            Effect::Write(start, count) | Effect::Zero(start, count) => self.blocks.may_write(start, count),
            Effect::Connect => self.connect(id, connection, at),
            Effect::Configure(value) => self.configure(id, connection.phase, value),
            Effect::Disconnect => connection.fate = Fate::Closes,
            _ => {}
        }
    }
}

fn conflict(connection: &Connection, cid: u16) -> Conflict {
    let mut same = connection.outstanding.iter().filter(|other| other.cid == cid).peekable();
    if same.peek().is_none() {
        Conflict::None
    } else if same.any(|other| matches!(other.step, Step::AwaitsR2t | Step::Receives)) {
        Conflict::Certain
    } else {
        Conflict::Possible
    }
}

/// What would have been done fails with `status`, or with what was wrong anyway.
fn failing(verdict: Verdict, status: u16) -> Verdict {
    let mut list = match verdict.statuses {
        Statuses::OneOf(list) => list,
        Statuses::Any | Statuses::AnyError => return Verdict { statuses: Statuses::AnyError, ..nothing() },
    };
    list.retain(|&status| status != 0 && status != rules::COMPARE_FAILURE);
    list.push(status);
    Verdict { statuses: Statuses::OneOf(list), ..nothing() }
}

/// It may be carried out or not.
fn doubtful(verdict: Verdict) -> Verdict {
    let effect = match verdict.effect {
        Effect::Write(start, count) | Effect::Zero(start, count) => Effect::Doubt(start, count),
        Effect::Doubt(..) => verdict.effect,
        _ => Effect::None,
    };
    let lingers = verdict.lingers || verdict.effect == Effect::EventRequest;
    Verdict { statuses: Statuses::Any, moves: Move::Free, effect, lingers }
}

const fn nothing() -> Verdict {
    Verdict { statuses: Statuses::Any, moves: Move::Nothing, effect: Effect::None, lingers: false }
}
