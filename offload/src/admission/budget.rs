//! How many rules may be put in force: a token bucket, and a measurement of what an insertion costs.
//!
//! The bucket is kept as one moment: when it will be full again (the generic cell rate algorithm). An
//! insertion moves that moment on by its cost, and is allowed while the moment is less than a burst away.
//! Over any time `t` there are at most `(t + burst) / cost` insertions.
//!
//! With a configured rate the cost is its inverse. Without, it is twice the time that the engine takes for
//! an operation, which is measured while it has something to do: so at most half of its time goes into
//! insertions, and the other half is there for removals. An engine with a queue shows what an operation
//! costs only while the queue is what holds others up; otherwise most of the time is the way there and
//! back, and the operation costs that at most.

/// The smallest burst of a configured rate: so many nanoseconds' worth.
const BURST_NS: u64 = 100_000_000;
/// The same where the rate is the engine's own.
const BURST_MEASURED_NS: u64 = 10_000_000;
/// Rules of one connection.
const PAIR: u64 = 2;
/// Operations after which a measurement is taken over,
const SAMPLE_OPERATIONS: u64 = 32;
/// or nanoseconds.
const SAMPLE_NS: u64 = 10_000_000;
/// An operation is taken to cost at most so much, nanoseconds.
const COST_MAX_NS: u64 = 100_000_000;
/// What an operation is taken to cost before it is known, nanoseconds: of an engine whose calls block
/// (about what a BlueField-2 takes, mlx5-rte-flow §3.2),
const COST_BLOCKING_NS: u64 = 300_000;
/// and of one with queues.
const COST_QUEUED_NS: u64 = 10_000;

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Budget {
    /// When the bucket will be full.
    full_at_ns: u64,
    cost_ns: u64,
    burst_ns: u64,
    measured: bool,
    /// Insertions worth waiting for where the engine works best on many at once.
    batch: u64,
    /// Whether a batch is under way: it goes on until the bucket is empty.
    open: bool,
    busy_ns: u64,
    operations: u64,
    /// Whether these are of a time in which the engine was the bottleneck.
    saturated: bool,
}

impl Budget {
    /// A full bucket for a rate; 0: as fast as the engine takes them. `operations_max`: see
    /// [`crate::engine::Traits`].
    #[must_use]
    pub fn new(now_ns: u64, insertions_per_second: u32, operations_max: u32) -> Budget {
        let mut budget = Budget {
            full_at_ns: now_ns,
            cost_ns: 0,
            burst_ns: 0,
            measured: insertions_per_second == 0,
            batch: 1,
            open: true,
            busy_ns: 0,
            operations: 0,
            saturated: false,
        };
        match 1_000_000_000u64.checked_div(u64::from(insertions_per_second)) {
            // At least one nanosecond: a rate of more than 1e9 is none.
            Some(cost_ns) => budget.set_cost(cost_ns.max(1), BURST_NS),
            None => {
                let blocking = operations_max <= 1;
                budget.batch = u64::from(operations_max / 4).clamp(1, SAMPLE_OPERATIONS);
                let cost_ns = if blocking { COST_BLOCKING_NS } else { COST_QUEUED_NS };
                budget.set_cost(2 * cost_ns, BURST_MEASURED_NS);
            }
        }
        budget
    }

    fn set_cost(&mut self, cost_ns: u64, burst_min_ns: u64) {
        self.cost_ns = cost_ns;
        self.burst_ns = burst_min_ns.max(cost_ns * self.batch.max(PAIR));
    }

    /// Whether so many rules may be put in force now.
    #[must_use]
    pub fn allows(&mut self, now_ns: u64, rules: u64) -> bool {
        let left_ns = (now_ns + self.burst_ns).saturating_sub(self.full_at_ns.max(now_ns));
        let needed = if self.open { rules } else { rules.max(self.batch) };
        self.open = left_ns >= needed * self.cost_ns;
        self.open
    }

    /// Takes tokens for one rule.
    pub fn spend(&mut self, now_ns: u64) {
        self.full_at_ns = self.full_at_ns.max(now_ns) + self.cost_ns;
    }

    /// Whether nothing of it is in use.
    #[must_use]
    pub fn idle(&self, now_ns: u64) -> bool {
        self.full_at_ns <= now_ns
    }

    /// Insertions per second at this cost.
    #[must_use]
    pub fn rate(&self) -> u64 {
        1_000_000_000 / self.cost_ns
    }

    /// What one insertion takes of the time there is, nanoseconds; at least 1.
    #[must_use]
    pub fn cost_ns(&self) -> u64 {
        self.cost_ns
    }

    /// The engine had something to do for `busy_ns` and ended so many operations. `saturated`: it could not
    /// have taken more.
    pub fn measure(&mut self, busy_ns: u64, operations: u64, saturated: bool) {
        if !self.measured {
            return;
        }
        if saturated != self.saturated {
            (self.busy_ns, self.operations, self.saturated) = (0, 0, saturated);
        }
        self.busy_ns += busy_ns;
        self.operations += operations;
        let enough = self.operations >= SAMPLE_OPERATIONS || self.busy_ns >= SAMPLE_NS;
        if self.operations == 0 || !enough {
            return;
        }
        let (known_ns, seen_ns) = (self.cost_ns / 2, self.busy_ns / self.operations);
        (self.busy_ns, self.operations) = (0, 0);
        if !saturated && seen_ns >= known_ns {
            return;
        }
        // A thread that was held up saw operations take long that did not: no sample counts for much.
        let seen_ns = seen_ns.clamp(known_ns / 2, 2 * known_ns + 1).clamp(1, COST_MAX_NS);
        self.set_cost(2 * (3 * known_ns + seen_ns).div_ceil(4), BURST_MEASURED_NS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However requests come, no window of time sees more insertions than its rate and one burst.
        #[test]
        fn no_window_exceeds_the_rate(
            rate in 1u32..100_000,
            steps in prop::collection::vec((0u64..30_000_000, 1u64..40), 1..300),
        ) {
            let mut budget = Budget::new(7, rate, 64);
            let (mut now, mut spent) = (7, Vec::new());
            for (wait, wanted) in steps {
                now += wait;
                for _ in 0..wanted {
                    if budget.allows(now, 1) {
                        budget.spend(now);
                        spent.push(now);
                    }
                }
            }
            let burst = (rate / 10).max(2) as usize + 1;
            for (from, &start) in spent.iter().enumerate() {
                for (to, &end) in spent.iter().enumerate().skip(from) {
                    let most = (end - start) as f64 * f64::from(rate) / SECOND as f64;
                    prop_assert!(to - from <= most.ceil() as usize + burst);
                }
            }
        }
    }

    #[test]
    fn half_of_a_blocking_engines_time_goes_into_insertions() {
        let mut budget = Budget::new(0, 0, 1);
        let (mut now, mut insertions) = (0, 0);
        while now < 10 * SECOND {
            if budget.allows(now, 2) {
                for _ in 0..2 {
                    budget.spend(now);
                    insertions += 1;
                }
                now += 2 * 305_000;
                budget.measure(2 * 305_000, 2, true);
            } else {
                now += 50_000;
            }
        }
        let share = f64::from(insertions) * 305_000.0 / (10.0 * SECOND as f64);
        assert!((0.45..=0.51).contains(&share), "{share}");
    }

    #[test]
    fn a_queue_that_is_fast_in_batches_is_found_out() {
        // Every operation takes 100 us to answer, however many are under way.
        let mut budget = Budget::new(0, 0, 1024);
        let (mut now, mut insertions) = (0, 0u64);
        while now < SECOND {
            let mut begun = 0;
            while begun < 512 && budget.allows(now, 1) {
                budget.spend(now);
                begun += 1;
            }
            now += 100_000;
            insertions += begun;
            if begun > 0 {
                budget.measure(100_000, begun, begun == 512);
            }
        }
        assert!(insertions > 100_000, "{insertions}");
    }

    #[test]
    fn few_requests_do_not_make_a_queue_look_slow() {
        // A millisecond there and back, for one operation at a time.
        let mut budget = Budget::new(0, 0, 1024);
        let before = budget.rate();
        for _ in 0..10_000 {
            budget.measure(1_000_000, 1, false);
        }
        assert_eq!(budget.rate(), before);
        // A full queue that is as slow is believed.
        for _ in 0..1000 {
            budget.measure(512_000_000, 512, true);
        }
        assert!((450..=550).contains(&budget.rate()), "{}", budget.rate());
    }

    #[test]
    fn a_thread_that_was_held_up_learns_little_from_it() {
        let mut budget = Budget::new(0, 0, 1);
        for _ in 0..100 {
            budget.measure(32 * 300_000, 32, true);
        }
        let before = budget.rate();
        budget.measure(500_000_000, 1, true);
        assert!(budget.rate() >= before * 3 / 4, "{} {before}", budget.rate());
    }

    #[test]
    fn an_empty_bucket_fills_again() {
        let mut budget = Budget::new(0, 10, 1);
        while budget.allows(0, 1) {
            budget.spend(0);
        }
        assert!(!budget.allows(50_000_000, 1) && !budget.idle(50_000_000));
        assert!(budget.allows(SECOND, 2) && budget.idle(SECOND));
    }
}
