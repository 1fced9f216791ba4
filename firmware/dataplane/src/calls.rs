//! What an operator asks of this data core, and what it answers.
//!
//! Control passes the questions on by a ring of its own; a turn that is asked nothing pays one look at a bell. One question is
//! answered in a turn: whoever asks must not take the hosts' time.

use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::mailbox::{self, CoreAnswer, CoreCall, Error};
use message::{CallDesk, Reply, Request};

use crate::data_core::DataCore;
use crate::net_role::port_id;

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// From now on this core answers what control asks by these rings.
    pub fn answer_calls_of(&mut self, desk: CallDesk) {
        self.desk = Some(desk);
    }

    /// Answers the next question, if there is one. Returns how many that was.
    pub(crate) fn answer_calls(&mut self, now: Instant) -> u32 {
        if self.owed_change.is_some() {
            return self.answer_change();
        }
        let Some(request) = self.desk.as_mut().and_then(CallDesk::take) else { return 0 };
        if let Some(result) = self.answer_call(&request, now) {
            self.reply(request.ticket, result);
        }
        1
    }

    /// Says that a change is complete here, once it is.
    fn answer_change(&mut self) -> u32 {
        let Some((ticket, change)) = self.owed_change else { return 0 };
        if !self.change_done(change) {
            return 0;
        }
        self.owed_change = None;
        self.reply(ticket, Ok(CoreAnswer::Changed));
        1
    }

    fn reply(&mut self, ticket: u32, result: Result<CoreAnswer, Error>) {
        if let Some(desk) = &mut self.desk {
            desk.reply(Reply { ticket, result });
        }
    }

    /// `None` for what is answered when it is complete.
    // Rare, and with answers of a kilobyte: out of the way of the turns between.
    #[inline(never)]
    fn answer_call(&mut self, request: &Request, now: Instant) -> Option<Result<CoreAnswer, Error>> {
        Some(Ok(match &request.call {
            CoreCall::Drives { first } => CoreAnswer::Drives(self.tell_drives(*first)),
            CoreCall::Ports => CoreAnswer::Ports(self.tell_ports()),
            CoreCall::Subsystems { first } => CoreAnswer::Subsystems(self.subsystems(*first)),
            CoreCall::AllowedHosts { subsystem, first } => {
                CoreAnswer::AllowedHosts(self.allowed_hosts(*subsystem, *first))
            }
            CoreCall::Namespaces { first } => CoreAnswer::Namespaces(self.namespaces(*first)),
            CoreCall::Controllers { first } => {
                CoreAnswer::Controllers(self.subsystem.tell_controllers(*first, now))
            }
            CoreCall::Queues { first } => CoreAnswer::Queues(self.target.tell_queues(*first)),
            CoreCall::Meters { first } => CoreAnswer::Meters(self.namespace_meters(*first)),
            CoreCall::Traces { log, first } => CoreAnswer::Traces(self.traces(*log, *first)),
            CoreCall::TraceSettings { set } => {
                if let Some(settings) = *set {
                    self.set_trace_settings(settings);
                }
                CoreAnswer::TraceSettings(self.trace_settings())
            }
            CoreCall::Counters => CoreAnswer::Counters(self.counters()),
            CoreCall::Change(change) => match self.change(change, now) {
                Ok(change) => {
                    self.owed_change = Some((request.ticket, change));
                    return None;
                }
                Err(error) => return Some(Err(Error::Change(error))),
            },
        }))
    }

    fn tell_drives<const N: usize>(&self, first: u8) -> heapless::Vec<mailbox::Drive, N> {
        let mut told = heapless::Vec::new();
        // They stand in the order of their places, not of their numbers: one walk for each of the few that fit.
        let mut from = Some(first);
        while let Some(next) = from.filter(|_| !told.is_full()) {
            let behind = self.drives.numbered().filter(|(number, _)| *number >= next);
            let Some((number, drive)) = behind.min_by_key(|(number, _)| *number) else { break };
            from = number.checked_add(1);
            let _ = told.push(drive.tell(number));
        }
        told
    }

    fn tell_ports<const N: usize>(&mut self) -> heapless::Vec<mailbox::Port, N> {
        let mut told = heapless::Vec::new();
        for (place, stack) in (0u8..).zip(&mut self.stacks) {
            let port = port_id(place);
            let (info, counters) = (stack.queue().info(), stack.counters());
            let addresses = stack.addresses().iter().map(|own| mailbox::PortAddress {
                address: own.address,
                prefix: own.prefix,
                gateway: own.gateway,
            });
            // As many as there are ports of a card.
            let _ = told.push(mailbox::Port {
                number: port.0,
                mac: info.mac,
                mtu: info.mtu,
                link_is_up: stack.link_is_up(),
                verifies_checksums: info.receive_checksums_verified,
                fills_in_checksums: info.transmit_checksum_offload,
                addresses: addresses.take(2).collect(),
                ana_state: self.subsystem.ana_state(port) as u8,
                counters: mailbox::PortCounters {
                    received_frames: counters.frames_received,
                    sent_frames: counters.frames_sent,
                    passed_on_frames: counters.frames_passed_on,
                    dropped_frames: counters.frames_dropped,
                    carried_frames: counters.frames_carried,
                    accepted_connections: counters.connections_accepted,
                    refused_connections: counters.connections_refused,
                    free_sockets: counters.sockets_free as u16,
                },
            });
        }
        told
    }
}
