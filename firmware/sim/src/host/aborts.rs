//! A host's Abort (NVM Express Base 2.0, 5.1). The card ends requests for events by it, and lets I/O commands go on.

use std::collections::BTreeMap;

use fastrand::Rng;
use nvme::Status;
use nvmeof::initiator::{Completed, Transfer, commands as make};

use super::association::Association;
use super::commands::{Commands, Pending, What};
use super::{Common, Host};

/// Of each request for events that an Abort was sent for: whether the Abort says that it was aborted, and whether it was.
#[derive(Debug, Default)]
pub(super) struct Aborts(BTreeMap<u64, (Option<bool>, Option<bool>)>);

impl Aborts {
    pub fn forget(&mut self) {
        self.0.clear();
    }

    fn settle(&mut self, host: usize, event: u64) {
        if let Some(&(Some(said), Some(aborted))) = self.0.get(&event) {
            assert!(
                said == aborted,
                "VIOLATION: host {host}: an Abort says {said}, and its request was aborted: {aborted}"
            );
            self.0.remove(&event);
        }
    }

    /// A request for events has ended.
    pub fn event_ended(&mut self, host: usize, token: u64, status: Status) -> bool {
        let aborted = status.code() == Status::ABORT_REQUESTED;
        match self.0.get_mut(&token) {
            Some(known) => known.1 = Some(aborted),
            None => assert!(!aborted, "VIOLATION: host {host}: a request was aborted that nobody named"),
        }
        self.settle(host, token);
        aborted
    }

    /// An Abort has ended; whether it says that it has aborted a command.
    pub fn ended(&mut self, host: usize, completed: &Completed, (queue, of): (u16, u64)) -> bool {
        let aborted = completed.result & 1 == 0;
        if queue != 0 {
            assert!(!aborted, "VIOLATION: host {host}: an Abort says that it has ended an I/O command");
            return false;
        }
        if let Some(known) = self.0.get_mut(&of) {
            known.0 = Some(aborted);
        }
        self.settle(host, of);
        aborted
    }
}

impl Commands {
    /// A command to abort, by lot: its queue and its token.
    fn to_abort(&self, random: &mut Rng) -> Option<(u16, u64)> {
        let events = random.u32(0..3) == 0;
        let may_be = |(token, pending): (&u64, &Pending)| {
            let fits = if events {
                pending.what == What::Event && !self.aborts.0.contains_key(token)
            } else {
                pending.place.is_some()
            };
            fits.then_some((pending.queue, *token))
        };
        let among: Vec<(u16, u64)> = self.pending.iter().filter_map(may_be).collect();
        (!among.is_empty()).then(|| among[random.usize(0..among.len())])
    }
}

impl Host {
    pub(super) fn start_abort(&mut self, association: &mut Association, common: &Common) {
        let Some((queue, of)) = self.commands.to_abort(&mut self.random) else { return };
        let Some(cid) = association.connections[usize::from(queue)].queue.cid_of(of) else { return };
        let what = What::Abort { queue, of };
        let token = self.commands.add(what, None, Vec::new(), 0, common.time.now());
        let admin = &mut association.connections[0].queue;
        if admin.submit(token, &make::abort(queue, cid), Transfer::None).is_err() {
            self.commands.forget(token);
        } else if queue == 0 {
            self.commands.aborts.0.insert(of, (None, None));
        }
    }
}
