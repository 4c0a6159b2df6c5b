//! What the offload engine's machine counts: written by the one thread that drives it, read by anyone.

use crate::machine::Absent;
use dataplane::counters::Counter;
use dataplane::offload::{Declined, Removal, Revocation};

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RequestResult {
    /// The connection is in hardware.
    Ok,
    /// No room.
    Full,
    /// The driver refused a rule.
    Rejected,
    /// The engine did not answer in time, or is being recovered.
    Timeout,
    /// The budget of insertions is spent on others.
    Budget,
    /// The tenant has its share.
    TenantShare,
    /// Hardware cannot take this way, or the configuration no longer allows it.
    Path,
    /// The device reported an error.
    Failed,
}

impl RequestResult {
    /// All results, in declaration order.
    pub const ALL: [RequestResult; 8] = [
        RequestResult::Ok,
        RequestResult::Full,
        RequestResult::Rejected,
        RequestResult::Timeout,
        RequestResult::Budget,
        RequestResult::TenantShare,
        RequestResult::Path,
        RequestResult::Failed,
    ];

    /// The name used in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RequestResult::Ok => "ok",
            RequestResult::Full => "full",
            RequestResult::Rejected => "rejected",
            RequestResult::Timeout => "timeout",
            RequestResult::Budget => "budget",
            RequestResult::TenantShare => "tenant_share",
            RequestResult::Path => "path",
            RequestResult::Failed => "failed",
        }
    }
}

impl From<Declined> for RequestResult {
    fn from(reason: Declined) -> RequestResult {
        match reason {
            Declined::Budget => RequestResult::Budget,
            Declined::TableFull => RequestResult::Full,
            Declined::NoEngine | Declined::Refused => RequestResult::Rejected,
            Declined::Failed => RequestResult::Failed,
            Declined::TenantShare => RequestResult::TenantShare,
            // Workers do not ask for metered connections.
            Declined::Path | Declined::Mtu | Declined::Tunnel | Declined::Metered => RequestResult::Path,
            Declined::Timeout => RequestResult::Timeout,
        }
    }
}

/// For what a connection had to make room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Eviction {
    /// The table was full.
    Full,
    /// Its tenant had its share.
    TenantShare,
}

impl Eviction {
    /// All reasons, in declaration order.
    pub const ALL: [Eviction; 2] = [Eviction::Full, Eviction::TenantShare];

    /// The name used in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Eviction::Full => "full",
            Eviction::TenantShare => "tenant_share",
        }
    }
}

/// Labels of [`OffloadCounters::removals`], by [`removal_index`].
pub const REMOVALS: [&str; 9] =
    ["closing", "gone", "policy", "moved", "orphan", "captured", "idle", "evicted", "lost"];

/// The place of a removal in [`OffloadCounters::removals`].
#[must_use]
pub const fn removal_index(why: Removal) -> usize {
    match why {
        Removal::Revoked(Revocation::Closing) => 0,
        Removal::Revoked(Revocation::Gone) => 1,
        Removal::Revoked(Revocation::Policy) => 2,
        Removal::Revoked(Revocation::Moved) => 3,
        Removal::Revoked(Revocation::Orphan) => 4,
        Removal::Revoked(Revocation::Captured) => 5,
        Removal::Idle => 6,
        Removal::Evicted => 7,
        Removal::Lost => 8,
    }
}

/// How the engine is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EngineState {
    /// It works.
    Running,
    /// It is being emptied, as what it holds is no longer certain.
    Recovering,
    /// It has been emptied, and is left alone for a while.
    Resting,
}

impl EngineState {
    /// All states, in declaration order; the gauge [`OffloadCounters::state`] holds the position.
    pub const ALL: [EngineState; 3] = [EngineState::Running, EngineState::Recovering, EngineState::Resting];

    /// The name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EngineState::Running => "running",
            EngineState::Recovering => "recovering",
            EngineState::Resting => "resting",
        }
    }
}

/// Buckets of a [`Histogram`], besides the one for everything above.
pub const BUCKETS: usize = 18;

/// Upper bounds of the buckets, nanoseconds: from what one batched rule takes to what is hopeless.
pub const BOUNDS_NS: [u64; BUCKETS] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
];

/// How long something took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations up to each of [`BOUNDS_NS`] and above the one before, not cumulative; the last is
    /// for those above all bounds.
    pub buckets: [Counter; BUCKETS + 1],
    /// Sum of all observations, nanoseconds.
    pub sum_ns: Counter,
}

impl Histogram {
    /// Counts an observation.
    pub fn observe(&self, ns: u64) {
        self.buckets[BOUNDS_NS.partition_point(|&bound| bound < ns)].add(1);
        self.sum_ns.add(ns);
    }

    /// Observations so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }
}

/// Everything the machine counts. Gauges say what is now, the rest only grows.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OffloadCounters {
    /// Rules in force, one per direction (gauge).
    pub rules: Counter,
    /// Connections in hardware (gauge).
    pub pairs: Counter,
    /// Rules there may be (gauge).
    pub capacity: Counter,
    /// Rules the engine was told to put in force.
    pub insertions: Counter,
    /// Requests answered, by [`RequestResult`].
    pub requests: [Counter; RequestResult::ALL.len()],
    /// Requests dropped because more came than there was room for: see `Machine::room`.
    pub requests_dropped: Counter,
    /// Connections that had to make room, by [`Eviction`].
    pub evictions: [Counter; Eviction::ALL.len()],
    /// Connections taken out of hardware, by [`REMOVALS`].
    pub removals: [Counter; REMOVALS.len()],
    /// From giving a rule to the engine to its completion.
    pub insert_seconds: Histogram,
    /// From a new configuration, or a worker's wish that follows from it, until rules it does not allow
    /// were out.
    pub time_to_enforce: Histogram,
    /// Of [`OffloadCounters::rules`], those that drop what the policy denies (gauge).
    pub denials: Counter,
    /// Times one of them came in force,
    pub denials_installed: Counter,
    /// or did not.
    pub denials_failed: Counter,
    /// Packets that they have dropped.
    pub denied_packets: Counter,
    /// Times packets were kept from rules, as it would have taken too long to take out those that the policy
    /// denies,
    pub fences: Counter,
    /// and whether they are now (gauge).
    pub fenced: Counter,
    /// Times a rule that leads to those of connections could not be put in, or taken out for a fence; each is
    /// tried again.
    pub base_failures: Counter,
    /// Times everything was taken out because what hardware held was no longer certain.
    pub recoveries: Counter,
    /// Attempts at that which failed.
    pub flush_failures: Counter,
    /// Connections lost by the device.
    pub lost: Counter,
    /// Rules found without a connection that wants them.
    pub orphans: Counter,
    /// Completions of operations that were not under way, and wishes about other connections' rules.
    pub late: Counter,
    /// Answers put off because a worker's ring was full.
    pub answers_delayed: Counter,
    /// Requests waiting (gauge).
    pub waiting: Counter,
    /// Operations under way (gauge).
    pub in_flight: Counter,
    /// Connections whose rules wait to be taken out (gauge).
    pub leaving: Counter,
    /// Connections whose worker is still owed an answer (gauge).
    pub owing: Counter,
    /// Connections whose rules are out and whose counters may still grow (gauge).
    pub settling: Counter,
    /// Packets a connection must have carried to be asked for (gauge).
    pub price: Counter,
    /// Insertions per second that the budget allows now (gauge).
    pub insertions_per_second: Counter,
    /// Age of the oldest count that metrics rest on, milliseconds (gauge).
    pub stats_age_ms: Counter,
    /// Packets forwarded by hardware.
    pub packets: Counter,
    /// Bytes of IP packet forwarded by hardware.
    pub bytes: Counter,
    /// See [`EngineState`] (gauge).
    pub state: Counter,
    /// Rules of source partitions in force,
    pub partitions: Counter,
    /// on their way in or out,
    pub partitions_moving: Counter,
    /// out, with counts that may still come,
    pub partitions_settling: Counter,
    /// and those that are not in hardware, by [`Absent`] (gauges all).
    pub partitions_absent: [Counter; Absent::ALL.len()],
}

impl OffloadCounters {
    /// Counts the answer to a request.
    pub fn request(&self, result: RequestResult) {
        self.requests[result as usize].add(1);
    }

    /// How the engine is.
    #[must_use]
    pub fn engine_state(&self) -> EngineState {
        let index = usize::try_from(self.state.get()).unwrap_or(0);
        EngineState::ALL.get(index).copied().unwrap_or(EngineState::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for ns in [0, 10_000, 10_001, 5_000_000_000, 5_000_000_001] {
            histogram.observe(ns);
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Counter::get).collect();
        assert_eq!((counts[0], counts[1], counts[BUCKETS - 1], counts[BUCKETS]), (2, 1, 1, 1));
        assert_eq!((histogram.count(), histogram.sum_ns.get()), (5, 10_000_020_002));
    }
}
