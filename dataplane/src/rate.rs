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
    /// A full bucket. A rate or burst of 0 lets nothing through.
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
