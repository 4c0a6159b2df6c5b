//! How often what took how long: buckets that are a 64th of their value wide.

/// Buckets for each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts of values; what it says of one is at most 1.6 % too much.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts a value.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// How many values there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value of the bucket in which a part of all values ends, in millionths; `None`: there are
    /// no values.
    #[must_use]
    pub fn quantile(&self, millionths: u64) -> Option<u64> {
        let rank = (u128::from(self.total) * u128::from(millionths)).div_ceil(1_000_000).max(1);
        let mut below = 0_u128;
        let found = self.counts.iter().position(|count| {
            below += u128::from(*count);
            below >= rank
        });
        found.map(largest)
    }

    /// Buckets that are not empty: the largest value, and how many there are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (largest(bucket), *count))
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

fn largest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let first = (STEPS + bucket % STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_quantile_is_little_more_than_the_sorted_value(
            mut values in prop::collection::vec(0_u64..1 << 50, 1..200), millionths in 0_u64..=1_000_000,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let rank = (values.len() as u64 * millionths).div_ceil(1_000_000).max(1) as usize;
            let (exact, said) = (values[rank - 1], histogram.quantile(millionths).unwrap());
            prop_assert!(said >= exact && said - exact <= exact / STEPS, "{said} for {exact}");
            prop_assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), values.len() as u64);
        }
    }

    #[test]
    fn the_ends_have_buckets() {
        for value in [0, 1, 63, 64, 65, 127, 128, u64::MAX / 2, u64::MAX] {
            assert!(largest(bucket(value)) >= value);
            assert!(bucket(value) == 0 || largest(bucket(value) - 1) < value);
        }
        assert_eq!(Histogram::default().quantile(500_000), None);
    }
}
