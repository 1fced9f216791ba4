//! The namespaces of a drive: what is known, what a new scan found, and what the caller has not been told.

use crate::admin::NamespaceRecord;
use crate::events::{DriveEvent, DriveIdentity};
use crate::limits::NAMESPACES_PER_DRIVE;
use crate::plan::Limits;

/// Known namespaces and the scan that may replace them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    known: heapless::Vec<(NamespaceRecord, bool), NAMESPACES_PER_DRIVE>,
    scanned: heapless::Vec<NamespaceRecord, NAMESPACES_PER_DRIVE>,
    gone: heapless::Vec<u32, NAMESPACES_PER_DRIVE>,
}

impl Namespaces {
    pub const fn new() -> Self {
        Self { known: heapless::Vec::new(), scanned: heapless::Vec::new(), gone: heapless::Vec::new() }
    }

    /// A scan begins.
    pub fn begin(&mut self) {
        self.scanned.clear();
    }

    /// The scan found a namespace. False when there are too many.
    pub fn add(&mut self, record: NamespaceRecord) -> bool {
        self.scanned.push(record).is_ok()
    }

    /// The namespace that the scan found last.
    pub fn last_scanned(&mut self) -> Option<&mut NamespaceRecord> {
        self.scanned.last_mut()
    }

    /// The scan is complete: it replaces what was known. `same_drive` is false where another drive took the place.
    pub fn finish(&mut self, same_drive: bool) {
        let old = core::mem::take(&mut self.known);
        for (record, announced) in &old {
            let stays = same_drive && self.scanned.contains(record);
            // More changes than fit before the caller listened cannot be: each needs a scan.
            if *announced && !stays && !self.gone.contains(&record.nsid) {
                let _ = self.gone.push(record.nsid);
            }
        }
        for record in &self.scanned {
            let announced = same_drive && old.iter().any(|(known, told)| *told && known == record);
            let _ = self.known.push((*record, announced));
        }
        self.scanned.clear();
    }

    /// Namespaces that can be served.
    pub fn served(&self) -> impl Iterator<Item = &NamespaceRecord> {
        self.known.iter().map(|(record, _)| record).filter(|record| record.refusal.is_none())
    }

    /// How many were refused.
    pub fn refused(&self) -> usize {
        self.known.iter().filter(|(record, _)| record.refusal.is_some()).count()
    }

    /// What the caller has not been told.
    pub fn take_event(&mut self, drive: DriveIdentity, limits: &Limits) -> Option<DriveEvent> {
        if let Some(nsid) = self.gone.pop() {
            return Some(DriveEvent::NamespaceGone { nsid });
        }
        let (record, announced) = self.known.iter_mut().find(|(_, announced)| !announced)?;
        *announced = true;
        Some(match record.refusal {
            Some(reason) => DriveEvent::NamespaceRefused { nsid: record.nsid, reason },
            None => DriveEvent::NamespaceFound(record.info(drive, limits)),
        })
    }
}
