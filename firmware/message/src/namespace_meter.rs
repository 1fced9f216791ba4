//! What a data core has counted of the commands to a namespace, and how it is told.

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::configuration::SubsystemPlace;
use crate::histogram::{BucketRange, Histogram, RANGES};

/// Commands to a namespace that were answered, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceMeter {
    /// What is not in the histograms.
    pub totals: NamespaceTotals,
    /// Reads, from their capsule to their response.
    pub reads: Histogram,
    /// Writes.
    pub writes: Histogram,
}

/// Sums of a [`NamespaceMeter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Schema)]
pub struct NamespaceTotals {
    /// Commands that are neither Read nor Write: Flush, Compare, Copy and the like.
    pub others: u64,
    /// Of all commands, those that failed.
    pub errors: u64,
    /// Bytes that reads brought to hosts.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
}

/// Where a reader of meters is: begin with the default, go on with [`MeterPage::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, Schema)]
pub struct MeterPlace {
    /// Place of the namespace's meter; not its NSID.
    pub meter: u8,
    /// Range of its histograms.
    pub range: u8,
}

/// A piece of one namespace's meter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct MeterPage {
    /// Whose: a namespace of this subsystem.
    pub subsystem: SubsystemPlace,
    /// NSID in it.
    pub nsid: u32,
    /// In the first piece of each meter.
    pub totals: Option<MeterTotals>,
    /// A range of the histogram of reads.
    pub reads: BucketRange,
    /// The same range of that of writes.
    pub writes: BucketRange,
    /// Where to go on.
    pub next: MeterPlace,
}

/// Sums of one meter, those of its histograms among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct MeterTotals {
    /// What is not in the histograms.
    pub totals: NamespaceTotals,
    /// How long all reads took together, in microseconds.
    pub reads_us: u64,
    /// How long all writes took together, in microseconds.
    pub writes_us: u64,
}

impl NamespaceMeter {
    /// Nothing was counted.
    pub const EMPTY: Self = Self {
        totals: NamespaceTotals { others: 0, errors: 0, read_bytes: 0, written_bytes: 0 },
        reads: Histogram::EMPTY,
        writes: Histogram::EMPTY,
    };

    /// The piece at a place of this meter, which is that of an NSID in a subsystem; `None` behind the last. Ranges in which there is nothing are
    /// left out.
    #[must_use]
    pub fn page(&self, (subsystem, nsid): (SubsystemPlace, u32), place: MeterPlace) -> Option<MeterPage> {
        let MeterPlace { meter, range } = place;
        let totals = (range == 0).then(|| MeterTotals {
            totals: self.totals,
            reads_us: self.reads.sum_us(),
            writes_us: self.writes.sum_us(),
        });
        for number in usize::from(range)..RANGES {
            let (reads, writes) = (self.reads.range(number), self.writes.range(number));
            if totals.is_some() || !reads.counts.is_empty() || !writes.counts.is_empty() {
                let next = MeterPlace { meter, range: number as u8 + 1 };
                return Some(MeterPage { subsystem, nsid, totals, reads, writes, next });
            }
        }
        None
    }

    /// Adds a piece of a meter of the same namespace, on whatever core.
    pub fn add(&mut self, page: &MeterPage) {
        if let Some(MeterTotals { totals, reads_us, writes_us }) = page.totals {
            self.totals.add(&totals);
            self.reads.add_sum(reads_us);
            self.writes.add_sum(writes_us);
        }
        self.reads.add_range(&page.reads);
        self.writes.add_range(&page.writes);
    }

    /// What was counted since `earlier` was read.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        let (now, then) = (&self.totals, &earlier.totals);
        Self {
            totals: NamespaceTotals {
                others: less(now.others, then.others),
                errors: less(now.errors, then.errors),
                read_bytes: less(now.read_bytes, then.read_bytes),
                written_bytes: less(now.written_bytes, then.written_bytes),
            },
            reads: self.reads.since(&earlier.reads),
            writes: self.writes.since(&earlier.writes),
        }
    }
}

impl NamespaceTotals {
    fn add(&mut self, other: &Self) {
        self.others = self.others.wrapping_add(other.others);
        self.errors = self.errors.wrapping_add(other.errors);
        self.read_bytes = self.read_bytes.wrapping_add(other.read_bytes);
        self.written_bytes = self.written_bytes.wrapping_add(other.written_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::MESSAGE_BYTES;

    fn meter() -> NamespaceMeter {
        let mut meter = NamespaceMeter::EMPTY;
        meter.totals = NamespaceTotals { others: 1, errors: 2, read_bytes: 3 << 40, written_bytes: 4 };
        [5, 90, 100_000].iter().for_each(|took_us| meter.reads.note(*took_us));
        meter.writes.note(7_000_000);
        meter
    }

    fn pages(meter: &NamespaceMeter) -> std::vec::Vec<MeterPage> {
        let mut place = MeterPlace::default();
        let next = || {
            let page = meter.page((SubsystemPlace(2), 9), place)?;
            place = page.next;
            Some(page)
        };
        core::iter::from_fn(next).collect()
    }

    #[test]
    fn meters_of_several_cores_arrive_whole_and_added() {
        let meter = meter();
        let pages = pages(&meter);
        assert_eq!(pages.len(), 3);
        let mut all = NamespaceMeter::EMPTY;
        pages.iter().for_each(|page| all.add(page));
        assert_eq!(all, meter);
        pages.iter().for_each(|page| all.add(page));
        assert_eq!((all.reads.count(), all.totals.errors), (6, 4));
        assert_eq!(all.since(&meter), meter);
    }

    #[test]
    fn a_meter_of_nothing_is_one_page() {
        assert_eq!(pages(&NamespaceMeter::EMPTY).len(), 1);
    }

    #[test]
    fn the_longest_page_is_well_within_a_message() {
        let counts = heapless::Vec::from_slice(&[u64::MAX; crate::histogram::BUCKETS_OF_RANGE]).unwrap();
        let range = BucketRange { first: u8::MAX, counts };
        let most = u64::MAX;
        let totals = NamespaceTotals { others: most, errors: most, read_bytes: most, written_bytes: most };
        let page = MeterPage {
            subsystem: SubsystemPlace(u8::MAX),
            nsid: u32::MAX,
            totals: Some(MeterTotals { totals, reads_us: most, writes_us: most }),
            reads: range.clone(),
            writes: range,
            next: MeterPlace { meter: u8::MAX, range: u8::MAX },
        };
        assert!(postcard::to_stdvec(&page).unwrap().len() < MESSAGE_BYTES - 64);
    }
}
