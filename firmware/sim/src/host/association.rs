//! A host's association: its connections from the first SYN to the last FIN.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::QueueStream;
use hal_api::Instant;
use hal_fakes::FakeFrameQueue;
use net::{ConnectionId, Stack, StreamState};
use nvmeof::initiator::{BringUp, BringUpError, HostQueue, QueueOptions, Slot, Transfer, commands};
use nvmeof::pdu::Digests;

use super::commands::What;
use super::shutdown::Ending;
use super::{Common, Host, State};
use crate::kinds::Kind;

/// Where the card listens.
const CARD: ([u8; 4], u16) = ([10, 0, 0, 1], 4420);
/// Slots of an admin queue; fewer are not allowed.
pub(super) const ADMIN_SLOTS: usize = 31;
/// What a host waits for a connection to come up. A card may hold a Connect until old writes have ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection, which is a queue.
pub(super) struct Connection {
    pub stream: ConnectionId,
    pub queue: HostQueue<Vec<Slot>>,
    /// While the connection comes up.
    bring_up: Option<Box<BringUp>>,
}

/// The connections of one association; the first is the admin queue.
pub(super) struct Association {
    pub connections: Vec<Connection>,
    began: Instant,
    /// When all of it was up.
    ready: bool,
    controller_id: u16,
    wanted_queues: u16,
    pub in_capsule_bytes: u32,
    /// FUSES: fused pairs are taken.
    pub fuses: bool,
    pub namespaces: Vec<u32>,
    keep_alive: Duration,
    next_keep_alive: Instant,
    /// A Keep Alive that was not answered by then was one too many.
    pub answer_by: Instant,
    /// Its host shuts it down.
    pub ending: Option<Ending>,
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues: Vec<usize> =
            self.connections.iter().map(|connection| connection.queue.outstanding()).collect();
        write!(
            f,
            "association of controller {}, ready {}, outstanding {queues:?}",
            self.controller_id, self.ready
        )
    }
}

impl Association {
    pub fn is_ready(&self) -> bool {
        self.ready && self.ending.is_none()
    }

    pub fn next_deadline(&self) -> Instant {
        if let Some(ending) = &self.ending {
            return self.answer_by.min(ending.next_look());
        }
        match (self.ready, self.answer_by) {
            (false, _) => {
                let asked = self.connections.iter().filter_map(|connection| connection.bring_up.as_ref());
                let next =
                    asked.map(|bring_up| bring_up.next_deadline()).filter(|&next| next > Instant::ZERO);
                next.fold(self.began + PATIENCE, Instant::min)
            }
            (true, Instant::FAR_FUTURE) => self.next_keep_alive,
            (true, answer_by) => answer_by,
        }
    }

    /// Ends all connections; whether the card hears of it once what is sent now arrives. A connection that is closed in
    /// order with bytes on their way may bring commands until these have arrived.
    pub fn end(&mut self, stack: &mut Stack<FakeFrameQueue>, reset: bool) -> bool {
        let mut heard = true;
        for connection in &self.connections {
            if let Some(mut stream) = stack.stream(connection.stream) {
                heard &= reset || stream.send_room() == super::SOCKET_BYTES;
                if reset {
                    stream.abort();
                } else {
                    stream.close();
                }
            }
            stack.release(connection.stream);
        }
        heard
    }
}

/// Why an association is over.
#[derive(Debug)]
pub(super) enum Loss {
    Closed,
    Refused(BringUpError),
    Fault(String),
    Silence,
}

impl Host {
    /// Begins an association.
    pub(super) fn join(&mut self, common: &mut Common) {
        let now = common.time.now();
        common.trace.event(Kind::HostConnects, &[self.index as u64], format_args!("host {}", self.index));
        let bring_up = BringUp::admin(self.identity, self.settings.keep_alive_ms, self.settings.io_queues);
        let Some(admin) = self.open(ADMIN_SLOTS, bring_up, now) else {
            self.state = State::Away(now + Duration::from_millis(500));
            return;
        };
        self.state = State::Joined(Box::new(Association {
            connections: vec![admin],
            began: now,
            ready: false,
            controller_id: 0,
            wanted_queues: 0,
            in_capsule_bytes: 0,
            fuses: false,
            namespaces: Vec::new(),
            keep_alive: Duration::from_millis(u64::from(self.settings.keep_alive_ms)),
            next_keep_alive: Instant::FAR_FUTURE,
            answer_by: Instant::FAR_FUTURE,
            ending: None,
        }));
    }

    fn open(&mut self, slots: usize, bring_up: BringUp, now: Instant) -> Option<Connection> {
        let stream = self.stack.connect(SocketAddr::from(CARD), now).ok()?;
        let (header, data) = self.settings.digests;
        let options = QueueOptions { digests: Digests { header, data }, alignment: self.settings.alignment };
        let queue = HostQueue::new(vec![Slot::default(); slots], options);
        Some(Connection { stream, queue, bring_up: Some(Box::new(bring_up)) })
    }

    /// Lets all connections go on; ends the association where one is over.
    pub(super) fn serve(&mut self, common: &mut Common) {
        let Some(mut association) = self.take_association() else { return };
        let began = association.began;
        self.settle_lost(common, association.ready.then_some(began));
        match self.go_on(&mut association, common) {
            Ok(()) => {
                let over = association.ending.as_ref().is_some_and(Ending::is_over);
                self.state = State::Joined(association);
                if over {
                    self.leave(common);
                }
            }
            Err(loss) => {
                self.report(&loss, common);
                association.end(&mut self.stack, true);
                self.lose_commands(common, false);
                let pause = self.pause();
                self.state = State::Away(common.time.now() + pause);
            }
        }
    }

    /// The association, to be put back; `None` where there is none.
    pub(super) fn take_association(&mut self) -> Option<Box<Association>> {
        match core::mem::replace(&mut self.state, State::Away(Instant::FAR_FUTURE)) {
            State::Joined(association) => Some(association),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn report(&self, loss: &Loss, common: &Common) {
        let values = [self.index as u64];
        assert!(
            !common.calm,
            "VIOLATION: host {}: connection lost, though nothing goes wrong: {loss:?}",
            self.index
        );
        // Only data that was changed together with its checksum makes a card that keeps to NVMe/TCP look wrong.
        let explained = common.forged || !matches!(loss, Loss::Fault(_));
        assert!(explained, "VIOLATION: host {}: the card breaks NVMe/TCP: {loss:?}", self.index);
        match loss {
            Loss::Closed => {
                common.trace.event(
                    Kind::ConnectionLost,
                    &values,
                    format_args!("host {}: closed", self.index),
                );
            }
            Loss::Fault(fault) => {
                common.trace.event(
                    Kind::ConnectionLost,
                    &values,
                    format_args!("host {}: {fault}", self.index),
                );
            }
            Loss::Refused(error) => {
                common.trace.event(
                    Kind::ConnectionLost,
                    &values,
                    format_args!("host {}: {error:?}", self.index),
                );
            }
            Loss::Silence => {
                common.trace.event(Kind::HostGivesUp, &values, format_args!("host {}", self.index));
            }
        }
    }

    fn go_on(&mut self, association: &mut Association, common: &mut Common) -> Result<(), Loss> {
        let now = common.time.now();
        if now >= association.answer_by || (!association.ready && now >= association.began + PATIENCE) {
            return Err(Loss::Silence);
        }
        if association.ending.is_some() {
            return self.go_on_ending(association, common);
        }
        for index in 0..association.connections.len() {
            self.poll_connection(index, association, common)?;
        }
        if association.ready {
            self.keep_alive(association, now);
            self.hear_events(association, common);
            self.start_commands(association, common);
            // What was just started goes out now.
            for index in 0..association.connections.len() {
                self.poll_connection(index, association, common)?;
            }
            return Ok(());
        }
        self.bring_up(association, common)?;
        if association.ready {
            self.begin_events(association, common);
            self.poll_connection(0, association, common)?;
        }
        Ok(())
    }

    pub(super) fn poll_connection(
        &mut self,
        index: usize,
        association: &mut Association,
        common: &mut Common,
    ) -> Result<(), Loss> {
        let connection = &mut association.connections[index];
        let Some(stream) = self.stack.stream(connection.stream) else { return Err(Loss::Closed) };
        let (state, unread) = (stream.state(), stream.received_bytes());
        if state == StreamState::Connecting {
            return Ok(());
        }
        let mut stream = QueueStream(stream);
        let result = match &mut connection.bring_up {
            Some(bring_up) => connection.queue.poll(&mut stream, &mut **bring_up),
            None => connection.queue.poll(&mut stream, &mut self.commands),
        };
        result.map_err(|fault| Loss::Fault(format!("{fault:?}")))?;
        if connection.bring_up.is_none() {
            while let Some(completed) = connection.queue.take_completed() {
                if self.commands.what(completed.token) == Some(&What::KeepAlive) {
                    association.answer_by = Instant::FAR_FUTURE;
                }
                self.commands.ended(self.index, &completed, common);
            }
        }
        let over = state == StreamState::Closed || (state == StreamState::PeerClosed && unread == 0);
        if over { Err(Loss::Closed) } else { Ok(()) }
    }

    fn bring_up(&mut self, association: &mut Association, common: &mut Common) -> Result<(), Loss> {
        let now = common.time.now();
        let connection = association.connections.last_mut().expect("an admin queue");
        let Some(bring_up) = &mut connection.bring_up else { return Ok(()) };
        if !bring_up.advance(&mut connection.queue, now).map_err(Loss::Refused)? {
            return Ok(());
        }
        if association.connections.len() == 1 {
            let connection = &association.connections[0];
            let info =
                connection.bring_up.as_ref().map(|bring_up| bring_up.info().clone()).unwrap_or_default();
            association.controller_id = info.controller_id;
            association.wanted_queues = info.io_queues.min(self.settings.io_queues);
            association.in_capsule_bytes = info.in_capsule_bytes;
            association.fuses = info.fuses;
            for namespace in &info.namespaces {
                let known = common.targets.get(&namespace.nsid);
                let same = known.is_some_and(|known| {
                    known.blocks == namespace.blocks && known.block_shift == namespace.block_shift
                });
                assert!(same, "VIOLATION: namespace {namespace:?} is none of the drives'");
                association.namespaces.push(namespace.nsid);
            }
        }
        let connection = association.connections.last_mut().expect("an admin queue");
        connection.bring_up = None;
        if association.connections.len() <= usize::from(association.wanted_queues) {
            let queue_id = association.connections.len() as u16;
            let bring_up = BringUp::io(self.identity, association.controller_id, queue_id);
            let connection =
                self.open(usize::from(self.settings.slots), bring_up, now).ok_or(Loss::Closed)?;
            association.connections.push(connection);
            return Ok(());
        }
        association.ready = true;
        association.next_keep_alive = now + association.keep_alive / 2;
        self.next_command = now;
        let values =
            [self.index as u64, association.controller_id.into(), association.namespaces.len() as u64];
        common.trace.event(
            Kind::HostReady,
            &values,
            format_args!("host {}, {} namespaces", self.index, association.namespaces.len()),
        );
        Ok(())
    }

    fn keep_alive(&mut self, association: &mut Association, now: Instant) {
        if now < association.next_keep_alive || association.answer_by != Instant::FAR_FUTURE {
            return;
        }
        let token = self.commands.add(What::KeepAlive, None, Vec::new(), 0, now);
        let admin = &mut association.connections[0].queue;
        if admin.submit(token, &commands::keep_alive(), Transfer::None).is_err() {
            self.commands.forget(token);
            return;
        }
        association.next_keep_alive = now + association.keep_alive / 2;
        association.answer_by = now + association.keep_alive;
    }
}
