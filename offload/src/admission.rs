//! Is this connection worth a rule now?
//!
//! Two things are scarce: insertions per second, and rules. A connection earns its rule by what it will
//! save, and what it will save is guessed from what it has carried. Lengths of connections are heavy-
//! tailed: one that has carried `n` packets in `t` seconds may be expected to carry about as many again
//! in about as long (for a Pareto distribution the mean of what remains grows in proportion to what has
//! been). What lies beyond a horizon does not count: a rule that is used rarely is in the way of one that
//! is used often, and is taken out as idle before it pays.
//!
//! So the *worth* of a connection is the packets it should save within the horizon, and there is one
//! *price*, in packets, that rises while more is asked than the budget allows and falls while budget is left
//! over. Workers know the price and do not ask below it. In a full table the newcomer's worth must exceed
//! that of its victim by a margin, so that two alike do not chase each other out.

mod budget;
mod price;

pub use budget::Budget;
pub(crate) use price::PERIOD_NS;
pub use price::{Period, Price};

/// What is expected beyond this does not count, milliseconds.
pub const HORIZON_MS: u32 = 30_000;
/// So many times the worth of the victim a newcomer must have.
pub const HYSTERESIS: f32 = 2.0;
/// A victim has been in hardware for at least so long, milliseconds: before, nothing is known of it.
pub const RESIDENCE_MS: u32 = 1_000;

/// How requests are judged. All but [`Policy::Earned`] are there to be compared with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// By worth and price, as this module's header says.
    Earned,
    /// At the first packet after establishment, as long as there is room.
    FirstPacket,
    /// After so many packets, as long as there is room.
    Threshold(u32),
    /// At the first packet; in a full table in place of the one that was used longest ago.
    Lru,
}

impl Policy {
    /// The price at which this policy begins, `price_min` being the configured one.
    #[must_use]
    pub fn first_price(self, price_min: u32) -> u32 {
        match self {
            Policy::Earned => price_min,
            Policy::FirstPacket | Policy::Lru => 1,
            Policy::Threshold(packets) => packets,
        }
    }
}

/// Packets that a connection should save within the horizon if it has carried `packets` in `age_ms`.
#[must_use]
pub fn worth(packets: u64, age_ms: u32) -> f32 {
    let share = HORIZON_MS as f32 / age_ms.max(1) as f32;
    packets as f32 * share.min(1.0)
}

/// The same of one in hardware that carries `rate` packets per second there and is `age_ms` old.
#[must_use]
pub fn worth_at_rate(rate: f32, age_ms: u64) -> f32 {
    let seconds = age_ms.min(u64::from(HORIZON_MS)) as f32 / 1000.0;
    rate * seconds
}

/// A rate that follows what is seen, packets per second: of the past, half is forgotten in about a second
/// and a half.
#[must_use]
pub fn follow(rate: f32, packets: u64, elapsed_ns: u64) -> f32 {
    const MEMORY_NS: f32 = 2e9;
    let elapsed = elapsed_ns.max(1) as f32;
    let seen = packets as f32 * 1e9 / elapsed;
    rate + (seen - rate) * (elapsed / (elapsed + MEMORY_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worth_grows_with_what_was_carried_and_not_with_age() {
        assert!(worth(100, 1000) > worth(10, 1000));
        assert_eq!(worth(100, 1000), worth(100, 0));
        assert!(worth(100, 2 * HORIZON_MS) < worth(100, 1000));
        assert_eq!(worth(100, 2 * HORIZON_MS), 50.0);
    }

    #[test]
    fn a_newcomer_and_a_resident_alike_are_worth_the_same() {
        for age_ms in [10u32, 1000, 30_000, 90_000] {
            let packets = u64::from(age_ms) * 5;
            let newcomer = worth(packets, age_ms);
            let resident = worth_at_rate(5000.0, u64::from(age_ms));
            assert!((newcomer - resident).abs() <= newcomer / 1000.0, "{newcomer} {resident}");
        }
    }

    #[test]
    fn a_rate_follows_what_is_seen() {
        let mut rate = 0.0;
        for _ in 0..40 {
            rate = follow(rate, 500, 500_000_000);
        }
        assert!((990.0..=1000.0).contains(&rate), "{rate}");
        for _ in 0..40 {
            rate = follow(rate, 0, 500_000_000);
        }
        assert!((0.0..=1.0).contains(&rate), "{rate}");
        assert!(follow(5.0, 0, 0).is_finite());
    }
}
