//! How many packets are due at a rate: no more than the rate allows, and not all at once after a pause.

/// Packets that are late, at most. A device that was slower than they came does not get them all at once when
/// it is faster again.
const LATE_MAX: u64 = 1024;

/// A rate of one queue, from its first burst on.
#[derive(Debug)]
pub struct Pace {
    /// Packets per tick, with 64 bits behind the point.
    scale: u64,
    /// When it began; `None` before the first burst.
    origin: Option<u64>,
    sent: u64,
    /// Packets given up for being late.
    skipped: u64,
    /// Packets after which none is due, given up or not.
    most: u64,
}

impl Pace {
    /// A share, of `queues`, of `rate` packets per second, until `most` were due. `hz`: ticks of time per
    /// second.
    pub fn new(rate: u32, most: u64, queues: u16, hz: u64) -> Pace {
        let scale = (u128::from(rate) << 64) / (u128::from(queues.max(1)) * u128::from(hz.max(1)));
        Pace { scale: u64::try_from(scale).unwrap_or(u64::MAX), origin: None, sent: 0, skipped: 0, most }
    }

    /// How many packets are due, up to `most`.
    #[inline]
    pub fn due(&mut self, now: u64, most: usize) -> usize {
        let elapsed = now.wrapping_sub(*self.origin.get_or_insert(now));
        let due = ((u128::from(elapsed) * u128::from(self.scale) >> 64) as u64).min(self.most);
        let late = due.saturating_sub(self.skipped + self.sent);
        self.skipped += late.saturating_sub(LATE_MAX);
        most.min(late.min(LATE_MAX) as usize)
    }

    /// So many were sent.
    #[inline]
    pub fn sent(&mut self, count: usize) {
        self.sent += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HZ: u64 = 1_000_000_000;

    #[test]
    fn after_a_pause_there_is_no_flood() {
        let mut pace = Pace::new(1_000_000, u64::MAX, 1, HZ);
        assert_eq!(pace.due(7, 32), 0);
        assert_eq!(pace.due(7 + HZ, usize::MAX), LATE_MAX as usize);
        pace.sent(LATE_MAX as usize);
        assert_eq!(pace.due(7 + HZ, 32), 0, "the others are given up");
        assert_eq!(pace.due(7 + HZ + 10_000, 32), 10);
    }

    #[test]
    fn an_end_counts_what_was_given_up() {
        let mut pace = Pace::new(1_000_000, 5000, 1, HZ);
        assert_eq!(pace.due(0, 32), 0);
        assert_eq!(pace.due(HZ, 5000), LATE_MAX as usize);
        pace.sent(LATE_MAX as usize);
        assert_eq!(pace.due(2 * HZ, 5000), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_second_has_as_many_as_the_rate_says(rate in 1..2_000_000_u32, queues in 1..4_u16, step in 1000..9000_u64) {
            let mut sent = 0;
            for _ in 0..queues {
                let mut pace = Pace::new(rate, u64::MAX, queues, HZ);
                for now in (0..=HZ).step_by(step as usize) {
                    let count = pace.due(now, 32);
                    prop_assert!(count <= 32);
                    pace.sent(count);
                    sent += count as u64;
                }
            }
            prop_assert!(sent <= u64::from(rate));
            // Of what falls into the last step, and of each queue's fraction, nothing is due yet.
            let short = u64::from(rate) * step / HZ + u64::from(queues) + 1;
            prop_assert!(sent + short >= u64::from(rate), "{sent} of {rate}");
        }
    }
}
