//! A host's commands under way, their data, and the judgement of their ends.

use std::collections::BTreeMap;

use hal_api::Instant;
use nvme::Status;
use nvmeof::initiator::{Completed, Payload};

use super::aborts::Aborts;
use super::pairs;
use super::told::Told;
use super::{Common, Target};
use crate::faults::Faults;
use crate::kinds::Kind;
use crate::oracle::{Moment, NOBODY, Oracle, Range};
use crate::pattern::Version;
use crate::trace::digest;

/// What a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Read,
    Write {
        forced: bool,
    },
    Flush,
    Zeroes {
        forced: bool,
    },
    Deallocate,
    /// The versions that stood there for certain when it was sent, and whether they are what it compares with.
    Compare {
        certain: Option<Vec<(Version, bool)>>,
        same: bool,
    },
    /// The first of a fused pair: what stood there for certain when it was sent, and what it compares with.
    FusedCompare {
        certain: Option<Vec<(Version, bool)>>,
        expected: Vec<(Version, bool)>,
    },
    /// The second.
    FusedWrite {
        forced: bool,
    },
    Copy {
        forced: bool,
    },
    Verify,
    /// Beyond the end of its namespace.
    OutOfRange,
    Admin,
    /// The list of active namespaces.
    Namespaces,
    Event,
    KeepAlive,
    /// Of a command of this queue, by its token.
    Abort {
        queue: u16,
        of: u64,
    },
    /// CC.SHN.
    Shutdown,
    /// CSTS, for SHST.
    ShutdownStatus,
}

/// Where an I/O command goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub target: Target,
    pub range: Range,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub what: What,
    pub place: Option<Place>,
    data: Vec<u8>,
    /// When it was sent, for the oracle and for a reader.
    pub sent: Moment,
    pub sent_at: Instant,
    /// Its connection's place.
    pub queue: u16,
    /// What it may write.
    versions: Vec<(Range, Version)>,
    /// The other command of its pair.
    partner: Option<u64>,
    /// The other has ended so.
    partner_end: Option<Box<(Pending, Status)>>,
}

/// The commands under way, by token.
#[derive(Default)]
pub(super) struct Commands {
    pub pending: BTreeMap<u64, Pending>,
    /// Those that wait for an event or for time to pass, not for work.
    idle: usize,
    last: u64,
    told: Told,
    /// What the controller has told by itself: dword 0 of each event.
    pub events: Vec<u32>,
    /// The namespaces, where a list of them has come.
    pub listed: Option<Vec<u32>>,
    pub aborts: Aborts,
    /// Requests for events that were aborted, to be sent again.
    pub aborted_requests: usize,
    /// The host shuts its controller down.
    pub shuts_down: bool,
    /// Of a shutdown: `None` for the end of CC.SHN, else CSTS.
    pub shutdown_answers: Vec<Option<u32>>,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |(token, pending): (&u64, &Pending)| {
            let range = pending.place.map(|place| place.range);
            format!("{token}: {:?} {range:?} since {} ms", pending.what, pending.sent_at.as_millis())
        };
        f.debug_list().entries(self.pending.iter().map(each)).finish()
    }
}

impl Payload for Commands {
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        pending.data[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]) {
        let Some(pending) = self.pending.get(&token) else { return room.fill(0) };
        room.copy_from_slice(&pending.data[offset as usize..][..room.len()]);
    }
}

impl Commands {
    /// Takes a command in; its token.
    pub fn add(
        &mut self,
        what: What,
        place: Option<Place>,
        data: Vec<u8>,
        sent: Moment,
        now: Instant,
    ) -> u64 {
        self.last += 1;
        let pending = Pending {
            what,
            place,
            data,
            sent,
            sent_at: now,
            queue: 0,
            versions: Vec::new(),
            partner: None,
            partner_end: None,
        };
        self.idle += usize::from(pending.is_idle());
        self.pending.insert(self.last, pending);
        self.last
    }

    /// Says what a command may write.
    pub fn set_versions(&mut self, token: u64, versions: Vec<(Range, Version)>) {
        if let Some(pending) = self.pending.get_mut(&token) {
            pending.versions = versions;
        }
    }

    /// Says on which queue a command goes.
    pub fn set_queue(&mut self, token: u64, queue: usize) {
        if let Some(pending) = self.pending.get_mut(&token) {
            pending.queue = queue as u16;
        }
    }

    /// Two commands are a fused pair.
    pub fn pair_up(&mut self, first: u64, second: u64, queue: usize) {
        for (token, partner) in [(first, second), (second, first)] {
            self.set_queue(token, queue);
            if let Some(pending) = self.pending.get_mut(&token) {
                pending.partner = Some(partner);
            }
        }
    }

    /// A command that was not sent after all.
    pub fn forget(&mut self, token: u64) -> Vec<(Range, Version)> {
        self.remove(token).map(|pending| pending.versions).unwrap_or_default()
    }

    pub fn what(&self, token: u64) -> Option<&What> {
        self.pending.get(&token).map(|pending| &pending.what)
    }

    /// Commands that end by themselves.
    pub fn outstanding(&self) -> usize {
        self.pending.len() - self.idle
    }

    fn remove(&mut self, token: u64) -> Option<Pending> {
        let pending = self.pending.remove(&token)?;
        self.idle -= usize::from(pending.is_idle());
        Some(pending)
    }

    /// All connections are gone: what the commands may have written.
    pub fn lose_all(&mut self) -> Vec<(Range, Version)> {
        self.idle = 0;
        self.events.clear();
        self.listed = None;
        self.told.forget();
        self.aborts.forget();
        self.aborted_requests = 0;
        self.shuts_down = false;
        self.shutdown_answers.clear();
        core::mem::take(&mut self.pending).into_values().flat_map(|pending| pending.versions).collect()
    }

    /// The card is gone, and all that it had taken with it.
    pub fn card_lost_power(&self, oracle: &mut Oracle) {
        for (range, version) in self.pending.values().flat_map(|pending| &pending.versions) {
            oracle.write_ended(*range, *version);
        }
    }

    /// A command has ended: its status and its data are judged.
    pub fn ended(&mut self, host: usize, completed: &Completed, common: &mut Common) {
        let pending = self.remove(completed.token);
        let pending = pending.expect("VIOLATION: a completion for a command that is not under way");
        let values =
            [host as u64, completed.token, completed.status.to_field().into(), digest(&pending.data)];
        let trace = common.trace.clone();
        let line = |kind: Kind| {
            trace.event(
                kind,
                &values,
                format_args!(
                    "host {host} command {} {:?} {:?} {:?}, sent at {} us",
                    completed.token,
                    pending.what,
                    pending.place.map(|place| place.range),
                    completed.status,
                    pending.sent_at.as_micros()
                ),
            );
        };
        let took = common.time.now().since(pending.sent_at);
        let prompt = took <= common.patience || pending.what == What::Event;
        assert!(prompt, "VIOLATION: host {host}: {:?} took {took:?} on a healthy card", pending.what);
        let Some(place) = pending.place else {
            line(self.admin_kind(host, &pending, completed));
            let forged = common.forged && completed.status.code() == Status::TRANSIENT_TRANSPORT_ERROR;
            let fine = completed.status.is_success() || pending.what == What::Event || forged;
            assert!(fine, "VIOLATION: host {host}: {:?} ended with {:?}", pending.what, completed.status);
            match pending.what {
                What::Event if completed.status.is_success() => self.events.push(completed.result as u32),
                What::Namespaces if completed.status.is_success() => {
                    self.listed = Some(namespaces(&pending.data));
                }
                What::Shutdown => self.shutdown_answers.push(None),
                What::ShutdownStatus => self.shutdown_answers.push(Some(completed.result as u32)),
                _ => {}
            }
            return;
        };
        if pending.partner.is_some() {
            if let Some(kind) = self.half_ended(host, pending, completed.status, common) {
                trace.event(
                    kind,
                    &values,
                    format_args!("host {host} command {} {:?}", completed.token, place.range),
                );
            }
        } else if completed.status.is_success() {
            let hears = self.hears_of_loss(host, place);
            line(pending.succeeded(host, hears, place, common));
        } else {
            if pending.what == What::Flush && Faults::tells_of_loss(completed.status) {
                self.hear_of_loss(host, &pending, place, common);
            }
            line(pending.failed(host, place, completed.status, common));
        }
    }

    /// One command of a pair has ended; what both say where it is the later one.
    fn half_ended(
        &mut self,
        host: usize,
        mut pending: Pending,
        status: Status,
        common: &mut Common,
    ) -> Option<Kind> {
        let Some(earlier) = pending.partner_end.take() else {
            let partner = pending.partner.and_then(|partner| self.pending.get_mut(&partner));
            let partner = partner.expect("VIOLATION: half a pair");
            partner.versions.append(&mut pending.versions);
            partner.partner_end = Some(Box::new((pending, status)));
            return None;
        };
        let versions = pending.versions.clone();
        let (compare, write) = match pending.what {
            What::FusedCompare { .. } => ((&pending, status), (&earlier.0, earlier.1)),
            _ => ((&earlier.0, earlier.1), (&pending, status)),
        };
        Some(pairs::judge(host, compare, write, &versions, common))
    }

    /// What the end of an admin command counts as.
    fn admin_kind(&mut self, host: usize, pending: &Pending, completed: &Completed) -> Kind {
        match pending.what {
            What::Event if !self.shuts_down => {
                if !self.aborts.event_ended(host, completed.token, completed.status) {
                    return Kind::AdminDone;
                }
                self.aborted_requests += 1;
                Kind::Aborted
            }
            What::Abort { queue, of } if completed.status.is_success() && !self.shuts_down => {
                let aborted = self.aborts.ended(host, completed, (queue, of));
                if aborted { Kind::AdminDone } else { Kind::AbortInVain }
            }
            _ => Kind::AdminDone,
        }
    }

    /// Whose writes a Flush vouches for that has succeeded: nobody's, of those that are lost, where another Flush of the
    /// host may have been told of the loss and have its answer still on the way.
    fn hears_of_loss(&self, host: usize, place: Place) -> u8 {
        let is_flush = |pending: &Pending| {
            let here = pending.place.is_some_and(|at| at.target.index == place.target.index);
            here && pending.what == What::Flush
        };
        if self.pending.values().any(is_flush) { NOBODY } else { host as u8 }
    }

    /// This is how a host learns that its unflushed writes may be gone.
    fn hear_of_loss(&mut self, host: usize, pending: &Pending, place: Place, common: &mut Common) {
        let namespace = place.target.index;
        common.oracle.loss_is_known(namespace, Some(host as u8));
        common.trace.event(
            Kind::LossTold,
            &[host as u64, namespace.into()],
            format_args!("host {host}, namespace {namespace}"),
        );
        let sent = (pending.sent, pending.sent_at);
        let settled = common.faults.settled(place.target.drive);
        let is_news = self.told.hear(namespace, sent, common.oracle.moment(), settled);
        assert!(
            is_news,
            "VIOLATION: host {host} is told of a loss in namespace {namespace} that it was told of before"
        );
    }
}

impl Pending {
    fn is_idle(&self) -> bool {
        matches!(self.what, What::Event | What::KeepAlive)
    }

    fn succeeded(&self, host: usize, hears: u8, place: Place, common: &mut Common) -> Kind {
        let oracle = &mut common.oracle;
        match &self.what {
            What::Read => {
                self.judge_data(host, place, common);
                Kind::ReadVerified
            }
            What::Write { forced } | What::Zeroes { forced } | What::Copy { forced } => {
                for &(range, version) in &self.versions {
                    oracle.write_done(range, version, *forced, true);
                }
                match self.what {
                    What::Write { .. } => Kind::WriteDone,
                    What::Copy { .. } => Kind::CopyDone,
                    _ => Kind::ZeroesDone,
                }
            }
            What::Deallocate => {
                for &(range, version) in &self.versions {
                    oracle.write_done(range, version, false, place.target.deallocates);
                }
                Kind::DeallocateDone
            }
            What::Flush => {
                oracle.flushed(place.target.index, self.sent, hears);
                Kind::FlushDone
            }
            What::Compare { certain, same } => {
                let differs = certain.is_some() && !same && *certain == self.certain(place, oracle);
                assert!(!differs, "VIOLATION: host {host}: Compare of {place:?} found no difference");
                Kind::CompareSame
            }
            What::Verify => Kind::VerifyDone,
            What::OutOfRange => panic!("VIOLATION: host {host}: {place:?} is beyond the end and succeeded"),
            What::FusedCompare { .. } | What::FusedWrite { .. } => panic!("half a pair is not judged"),
            _ => Kind::AdminDone,
        }
    }

    fn failed(&self, host: usize, place: Place, status: Status, common: &mut Common) -> Kind {
        if common.forged && status.code() == Status::TRANSIENT_TRANSPORT_ERROR {
            // Nothing of such data may ever be read.
            for &(range, version) in &self.versions {
                common.oracle.write_unsent(range, version);
            }
            return Kind::DataForged;
        }
        for &(range, version) in &self.versions {
            common.oracle.write_ended(range, version);
        }
        match &self.what {
            // A namespace that is detached has no end.
            What::OutOfRange if status.code() == Status::LBA_OUT_OF_RANGE => return Kind::OutOfRange,
            What::Compare { certain, same } if status.code() == Status::COMPARE_FAILURE => {
                let equal = certain.is_some() && *same && *certain == self.certain(place, &common.oracle);
                assert!(!equal, "VIOLATION: host {host}: Compare of {place:?} found a difference");
                return Kind::CompareDiffers;
            }
            _ => {}
        }
        assert!(
            common.faults.allow(place.target.drive, status, self.what == What::Flush, self.sent_at),
            "VIOLATION: host {host}: {:?} of {place:?} ended with {status:?}, which nothing explains",
            self.what
        );
        Kind::CommandFailed
    }

    fn judge_data(&self, host: usize, place: Place, common: &mut Common) {
        let bytes = 1usize << place.target.block_shift;
        for (lba, block) in (place.range.lba..).zip(self.data.chunks(bytes)) {
            match common.oracle.judge(place.range, lba, self.sent, block) {
                Ok(true) => {
                    let values = [place.range.namespace.into(), lba];
                    common.trace.detail(Kind::BlockNarrowed, &values, format_args!("block {lba}"));
                }
                Ok(false) => {}
                Err(wrong) => {
                    panic!(
                        "VIOLATION: host {host} read wrong data: namespace {}: {wrong}",
                        place.range.namespace
                    )
                }
            }
        }
    }

    fn certain(&self, place: Place, oracle: &Oracle) -> Option<Vec<(Version, bool)>> {
        certain(place, oracle)
    }
}

/// The NSIDs of an Active Namespace ID list (NVM Express Base 2.0, 5.17.2.2): it ends with a 0.
fn namespaces(list: &[u8]) -> Vec<u32> {
    let nsids = list.chunks_exact(4).map(|nsid| u32::from_le_bytes([nsid[0], nsid[1], nsid[2], nsid[3]]));
    nsids.take_while(|&nsid| nsid != 0).collect()
}

/// What stands in the blocks for certain.
pub(super) fn certain(place: Place, oracle: &Oracle) -> Option<Vec<(Version, bool)>> {
    let range = place.range;
    (range.lba..range.lba + u64::from(range.blocks)).map(|lba| oracle.certain(range.namespace, lba)).collect()
}
