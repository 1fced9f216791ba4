//! How long things took: counts by classes of length, few enough to be kept for each namespace and sent in a message.
//!
//! Up to 4 µs each microsecond is a class; from there on each power of two has four, so that a class is a quarter of its lower bound wide
//! at most. The last takes all that is longer, from 28 s on.

use heapless::Vec;
use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// Classes of a [`Histogram`].
pub const BUCKETS: usize = 96;
/// Classes that a [`BucketRange`] has at most.
pub const BUCKETS_OF_RANGE: usize = 32;
/// Ranges of a whole histogram.
pub const RANGES: usize = BUCKETS / BUCKETS_OF_RANGE;
const _: () = assert!(BUCKETS.is_multiple_of(BUCKETS_OF_RANGE));

/// Log2 of the classes of a power of two.
const SUB_BITS: u32 = 2;

/// Counts by classes of length, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Histogram {
    /// Nothing was counted.
    pub const EMPTY: Self = Self { counts: [0; BUCKETS], sum_us: 0 };

    /// Something took so long.
    #[inline]
    pub fn note(&mut self, took_us: u64) {
        if let Some(count) = self.counts.get_mut(bucket(took_us)) {
            *count = count.wrapping_add(1);
        }
        self.sum_us = self.sum_us.wrapping_add(took_us);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// How long all of them took together, in microseconds.
    #[must_use]
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The counts of each class, with its upper bound in microseconds; none for the last one.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bound = |bucket: usize| (bucket + 1 < BUCKETS).then(|| lower_bound_us(bucket + 1));
        self.counts.iter().enumerate().map(move |(bucket, count)| (bound(bucket), *count))
    }

    /// How long those took that are longer than all but so many of a thousand, in microseconds: the upper bound of their class, and the
    /// lower of the last. `None` where nothing was counted.
    #[must_use]
    pub fn percentile(&self, per_mille: u16) -> Option<u64> {
        let count = self.count();
        let rank = (u128::from(count) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut below = 0u128;
        for (bucket, of_bucket) in self.counts.iter().enumerate() {
            below += u128::from(*of_bucket);
            if below >= rank {
                return Some(lower_bound_us((bucket + 1).min(BUCKETS - 1)));
            }
        }
        None
    }

    /// The mean in microseconds, rounded down; `None` where nothing was counted.
    #[must_use]
    pub fn mean_us(&self) -> Option<u64> {
        self.sum_us.checked_div(self.count())
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.wrapping_add(*more);
        }
        self.add_sum(other.sum_us);
    }

    /// What was counted since `earlier` was read.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (count, less) in difference.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*less);
        }
        difference.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        difference
    }

    /// One of its ranges, without the zeros at its ends.
    #[must_use]
    pub fn range(&self, number: usize) -> BucketRange {
        let start = number.saturating_mul(BUCKETS_OF_RANGE);
        let all = self.counts.get(start..).unwrap_or_default();
        let all = all.get(..BUCKETS_OF_RANGE).unwrap_or_default();
        let zeros = all.iter().take_while(|count| **count == 0).count();
        let rest = all.get(zeros..).unwrap_or_default();
        let used = rest.len() - rest.iter().rev().take_while(|count| **count == 0).count();
        // The range has as many places as that.
        let counts = Vec::from_slice(rest.get(..used).unwrap_or_default()).unwrap_or_default();
        BucketRange { first: (start + zeros).min(BUCKETS) as u8, counts }
    }

    /// Adds the counts of a range of another.
    pub fn add_range(&mut self, range: &BucketRange) {
        let counts = self.counts.iter_mut().skip(usize::from(range.first));
        for (count, more) in counts.zip(&range.counts) {
            *count = count.wrapping_add(*more);
        }
    }

    /// Adds to what all took together.
    pub fn add_sum(&mut self, sum_us: u64) {
        self.sum_us = self.sum_us.wrapping_add(sum_us);
    }
}

/// Some neighbouring classes of a [`Histogram`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct BucketRange {
    /// The first of them.
    pub first: u8,
    /// Their counts.
    pub counts: Vec<u64, BUCKETS_OF_RANGE>,
}

/// The class of a length.
#[inline]
fn bucket(took_us: u64) -> usize {
    let power = (took_us | 1 << SUB_BITS).ilog2();
    let shift = power - SUB_BITS;
    // No more than 4 * 61 + 7.
    let place = u64::from(shift << SUB_BITS) + (took_us >> shift);
    (place as usize).min(BUCKETS - 1)
}

/// The shortest length of a class.
const fn lower_bound_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    (bucket - (shift << SUB_BITS)) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_in_the_class_whose_bounds_it_is_between() {
        for bucket in 0..BUCKETS {
            assert_eq!(super::bucket(lower_bound_us(bucket)), bucket);
            assert_eq!(super::bucket(lower_bound_us(bucket + 1) - 1), bucket);
        }
        assert_eq!(super::bucket(u64::MAX), BUCKETS - 1);
        assert_eq!((lower_bound_us(BUCKETS - 1), lower_bound_us(8)), (28 << 20, 8));
    }

    #[test]
    fn percentiles_are_those_of_the_lengths_within_a_quarter() {
        assert_eq!(Histogram::EMPTY.percentile(500), None);
        let mut histogram = Histogram::EMPTY;
        (1..=1000).for_each(|took_us| histogram.note(took_us));
        for (per_mille, exact) in [(1, 1), (500, 500), (900, 900), (999, 999), (1000, 1000)] {
            let found = histogram.percentile(per_mille).unwrap();
            assert!(found > exact && found <= exact + exact / 4 + 1, "{per_mille}: {found} for {exact}");
        }
        assert_eq!((histogram.count(), histogram.mean_us()), (1000, Some(500)));
    }

    #[test]
    fn a_histogram_arrives_whole_by_its_ranges() {
        let mut histogram = Histogram::EMPTY;
        [0, 3, 100, 101, 5000, 3_000_000, u64::MAX].iter().for_each(|took_us| histogram.note(*took_us));
        let mut arrived = Histogram::EMPTY;
        arrived.add_sum(histogram.sum_us());
        for number in 0..RANGES {
            let range = histogram.range(number);
            assert!(range.counts.first() != Some(&0) && range.counts.last() != Some(&0));
            arrived.add_range(&range);
        }
        assert_eq!(arrived, histogram);
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((twice.count(), twice.since(&histogram)), (14, histogram));
    }

    #[test]
    fn a_range_that_makes_no_sense_adds_nothing_outside() {
        let mut histogram = Histogram::EMPTY;
        let counts = Vec::from_slice(&[1; BUCKETS_OF_RANGE]).unwrap();
        histogram.add_range(&BucketRange { first: 90, counts: counts.clone() });
        histogram.add_range(&BucketRange { first: 200, counts });
        assert_eq!(histogram.count(), 6);
    }
}
