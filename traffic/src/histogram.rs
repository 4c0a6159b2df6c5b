//! How often which duration was seen: a log-linear histogram, of fixed size, written by one thread and read
//! by any.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps per doubling: a value is known to 1/32.
const STEPS: u64 = 32;
/// Values from here on share the last bucket: 2^40 cycles are some minutes.
const BITS_MAX: u32 = 40;
const BUCKETS: usize = ((BITS_MAX - STEPS.ilog2()) as usize + 1) * STEPS as usize;

/// Counts by value.
#[derive(Debug)]
pub struct Histogram(Box<[AtomicU64; BUCKETS]>);

/// What a histogram, or the sum of several, held at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot(Vec<u64>);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram(Box::new([const { AtomicU64::new(0) }; BUCKETS]))
    }
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot(vec![0; BUCKETS])
    }
}

impl Histogram {
    /// Counts a value. Only one thread may do so: the addition is not atomic.
    #[inline]
    pub fn record(&self, value: u64) {
        let bucket = &self.0[bucket(value)];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (sum, count) in snapshot.0.iter_mut().zip(self.0.iter()) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
}

impl Snapshot {
    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        // Queues that were set up anew in between start from 0.
        Snapshot(
            self.0.iter().zip(&earlier.0).map(|(now, then)| now.checked_sub(*then).unwrap_or(*now)).collect(),
        )
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The value that `thousandths` of all values do not exceed, to 1/32 above; 0 without values. 1000 asks
    /// for the largest.
    pub fn quantile(&self, thousandths: u64) -> u64 {
        let count = self.count();
        let rank = (u128::from(count) * u128::from(thousandths)).div_ceil(1000).max(1) as u64;
        let mut below = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            below += count;
            if below >= rank {
                return highest(bucket);
            }
        }
        0
    }
}

/// Values below [`STEPS`] have a bucket each; above, each doubling has that many.
#[inline]
fn bucket(value: u64) -> usize {
    let shift = (value | 1).ilog2().saturating_sub(STEPS.ilog2());
    let bucket = u64::from(shift) * STEPS + (value >> shift);
    (bucket as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let shift = (bucket as u64 / STEPS).saturating_sub(1);
    let first = (bucket as u64 - shift * STEPS) << shift;
    first + (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(values: &[u64]) -> Snapshot {
        let histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        let mut snapshot = Snapshot::default();
        histogram.add_to(&mut snapshot);
        snapshot
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn quantiles_are_those_of_the_sorted_values(
            mut values in prop::collection::vec((0..39_u32).prop_flat_map(|bits| 0..2_u64 << bits), 1..500),
        ) {
            let snapshot = snapshot(&values);
            values.sort_unstable();
            prop_assert_eq!(snapshot.count(), values.len() as u64);
            for thousandths in [1, 500, 990, 999, 1000] {
                let rank = (values.len() * thousandths).div_ceil(1000);
                let (truth, found) = (values[rank - 1], snapshot.quantile(thousandths as u64));
                prop_assert!((truth..=truth + truth / 32).contains(&found), "{} for {}", found, truth);
            }
        }
    }

    #[test]
    fn what_was_before_a_reset_does_not_count() {
        let before = snapshot(&[5; 10]);
        let after = snapshot(&[5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 9]);
        assert_eq!(after.since(&before).quantile(500), 9);
        assert_eq!(before.since(&before).quantile(500), 0);
    }

    #[test]
    fn the_largest_values_share_a_bucket() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << BITS_MAX) - 1), BUCKETS - 1);
        assert!(bucket((1 << BITS_MAX) - (1 << 36)) < BUCKETS - 1);
    }
}
