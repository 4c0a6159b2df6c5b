//! A token bucket in integers: how often Millrace answers ICMP, ARP and neighbour discovery.

use crate::time::Tick;

/// A credit of 1000 pays for one event, so a rate per second is a credit per millisecond.
const PRICE: u64 = 1000;

/// Lets through at most `per_second` × time + `burst` events over any stretch of time.
///
/// Ticks must not go back. A bucket left alone for longer than the ticks' period (49.7 days) merely finds
/// less credit than it has earned.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_second: u64,
    credit: u64,
    credit_max: u64,
    last: Tick,
}

impl RateLimit {
    /// A full bucket. A rate or burst of 0 lets nothing through; a burst below what the rate brings in a
    /// millisecond, and one more, keeps the rate from being reached.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> RateLimit {
        let credit_max = if per_second == 0 { 0 } else { u64::from(burst) * PRICE };
        RateLimit { per_second: per_second.into(), credit: credit_max, credit_max, last: Tick::default() }
    }

    /// Whether one more event may happen now; if so, it is counted.
    #[inline]
    #[must_use]
    pub fn allow(&mut self, now: Tick) -> bool {
        // Not `Tick::since`: after a pause of more than half the period it would take `now` for the past
        // and the bucket would stay empty.
        let elapsed_ms = now.0.wrapping_sub(self.last.0);
        self.last = now;
        let earned = u64::from(elapsed_ms) * self.per_second;
        self.credit = self.credit.saturating_add(earned).min(self.credit_max);
        let allowed = self.credit >= PRICE;
        if allowed {
            self.credit -= PRICE;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any stretch of time, and in particular over the first: at most rate × time + burst.
        #[test]
        fn never_more_than_rate_times_time_and_a_burst(
            per_second in 0..5_000_u32,
            burst in 0..200_u32,
            start: u32,
            steps in prop::collection::vec((0..500_u32, 0..20_u32), 1..200),
        ) {
            let mut now = Tick(start);
            let mut limit = RateLimit::new(per_second, burst);
            let mut allowed_at = Vec::new();
            let mut ms = 0_u64;
            for (pause_ms, tries) in steps {
                now = now.after_ms(pause_ms);
                ms += u64::from(pause_ms);
                for _ in 0..tries {
                    if limit.allow(now) {
                        allowed_at.push(ms);
                    }
                }
            }
            for (first, from) in allowed_at.iter().enumerate() {
                for (last, to) in allowed_at.iter().enumerate().skip(first) {
                    let most = (to - from) * u64::from(per_second) / 1000 + u64::from(burst);
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }

        /// Somebody who always tries gets the whole rate, however it divides into milliseconds.
        #[test]
        fn the_rate_is_reached(per_second in 1..3_000_u32, start: u32) {
            let mut limit = RateLimit::new(per_second, per_second.div_ceil(1000) + 1);
            let first = Tick(start);
            while limit.allow(first) {}
            let mut allowed = 0;
            for ms in 1..=10_000 {
                while limit.allow(first.after_ms(ms)) {
                    allowed += 1;
                }
            }
            prop_assert!(allowed + 1 >= per_second * 10 && allowed <= per_second * 10 + 1, "{allowed}");
        }
    }

    #[test]
    fn a_long_pause_fills_the_bucket_whatever_half_of_the_period_it_ends_in() {
        for pause_ms in [1_000_000, u32::MAX / 2 + 10, u32::MAX - 10] {
            let mut limit = RateLimit::new(10, 5);
            let start = Tick(77);
            while limit.allow(start) {}
            let now = start.after_ms(pause_ms);
            assert_eq!((0..20).filter(|_| limit.allow(now)).count(), 5, "{pause_ms}");
        }
    }
}
