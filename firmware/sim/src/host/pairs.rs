//! Fused Compare and Write of a host, and what its two answers say together (NVM Express Base 2.0, 3.4.2).

use nvme::Status;
use nvmeof::initiator::commands as make;

use super::association::Association;
use super::commands::{Pending, Place, What, certain};
use super::workload::{add_force, contents};
use super::{Common, Host, Target};
use crate::kinds::Kind;
use crate::pattern::{Mark, Version};

/// Blocks of a pair, as ACWU says.
const MOST_BLOCKS: u32 = 32;

impl Host {
    /// Sends a pair that most often expects what stands there, as far as that is known.
    pub(super) fn start_pair(&mut self, association: &mut Association, target: Target, common: &mut Common) {
        let nsid = association.nsid(target, common);
        let mut range = self.range(target, common, true);
        range.blocks = range.blocks.min(MOST_BLOCKS);
        let place = Place { target, range };
        let stands = certain(place, &common.oracle);
        let likely = range.lbas().map(|lba| common.oracle.likely(range.namespace, lba));
        let expected: Vec<(Version, bool)> = match &stands {
            _ if self.random.u32(0..5) == 0 => vec![(Version::MAX, false); range.blocks as usize],
            Some(versions) => versions.clone(),
            None => likely.collect(),
        };
        let version = common.oracle.write_sent(range, false, self.index as u8);
        let forced = self.random.u32(0..5) == 0;
        let compare = make::compare(nsid, range.lba, range.blocks);
        let mut write = make::write(nsid, range.lba, range.blocks);
        add_force(&mut write, forced);
        let old = contents(place, &expected);
        let new = contents(place, &vec![(version, false); range.blocks as usize]);
        let transfers = [self.transfer(association, old.len()), self.transfer(association, new.len())];
        let (sent, now) = (common.oracle.moment(), common.time.now());
        let what = What::FusedCompare { certain: stands, expected };
        let first = self.commands.add(what, Some(place), old, sent, now);
        let second = self.commands.add(What::FusedWrite { forced }, Some(place), new, sent, now);
        self.commands.set_versions(second, vec![(range, version)]);
        let queue = self.random.usize(1..association.connections.len());
        self.commands.pair_up(first, second, queue);
        let pair = ((first, &compare, transfers[0]), (second, &write, transfers[1]));
        if association.connections[queue].queue.submit_fused(pair.0, pair.1).is_err() {
            // There is no room for both: neither was sent.
            self.commands.forget(first);
            self.commands.forget(second);
            common.oracle.write_unsent(range, version);
        }
    }
}

/// Both commands of a pair have ended: what they say together.
pub(super) fn judge(
    host: usize,
    (compare, found): (&Pending, Status),
    (write, written): (&Pending, Status),
    versions: &[(crate::oracle::Range, Version)],
    common: &mut Common,
) -> Kind {
    let (Some(place), &[(range, version)]) = (write.place, versions) else {
        panic!("a pair of something else")
    };
    let (What::FusedCompare { certain: stood, expected }, What::FusedWrite { forced }) =
        (&compare.what, &write.what)
    else {
        panic!("a pair of something else")
    };
    let marks: Vec<Mark> =
        range.lbas().zip(expected).map(|(lba, &(version, zeros))| Mark::of(lba, version, zeros)).collect();
    let said = format!("host {host}: pair of {place:?} ended with {found:?} and {written:?}");
    let faults = &common.faults;
    let allowed = |status: Status| {
        let code = status.code();
        let shuts_down = code == Status::ABORTED_MISSING_FUSED
            && faults.allow(place.target.drive, Status::COMMAND_INTERRUPTED, false, write.sent_at);
        let forged = common.forged && code == Status::TRANSIENT_TRANSPORT_ERROR;
        forged || shuts_down || faults.allow(place.target.drive, status, false, write.sent_at)
    };
    let wrong = |what: String| -> ! { panic!("VIOLATION: {said}: {what}") };
    match (found.code(), written.code()) {
        (Status::SUCCESS, Status::SUCCESS) => {
            let done = common.oracle.pair_done(range, version, *forced, &marks, write.sent);
            done.unwrap_or_else(|impossible| wrong(impossible));
            Kind::FusedDone
        }
        (Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED) => {
            // It has written nothing, and never will.
            common.oracle.write_unsent(range, version);
            let as_expected = stood.as_ref() == Some(expected);
            if as_expected && certain(place, &common.oracle).as_ref() == Some(expected) {
                wrong("there was no difference".into());
            }
            Kind::FusedDiffers
        }
        (Status::ABORTED_FAILED_FUSED, error) | (error, Status::ABORTED_FAILED_FUSED) => {
            let error = if error == found.code() { found } else { written };
            if error.is_success() || !allowed(error) {
                wrong("nothing explains it".into());
            }
            common.oracle.write_unsent(range, version);
            Kind::FusedFailed
        }
        (Status::SUCCESS, _) if allowed(written) => {
            let found = common.oracle.pair_found(range, version, &marks, write.sent);
            found.unwrap_or_else(|impossible| wrong(impossible));
            common.oracle.write_ended(range, version);
            Kind::FusedFailed
        }
        (_, code) if !found.is_success() && !written.is_success() && allowed(found) && allowed(written) => {
            if code == Status::TRANSIENT_TRANSPORT_ERROR {
                common.oracle.write_unsent(range, version);
            } else {
                common.oracle.write_ended(range, version);
            }
            Kind::FusedFailed
        }
        _ => wrong("nothing explains it".into()),
    }
}
