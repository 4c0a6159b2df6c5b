//! Whether hardware forwards what it should: looked at once a second, told by the readiness page.
//!
//! The silent failure is the bad one: rules are in force, and packets come to the workers all the same.

use arrayvec::ArrayVec;
use offload::counters::EngineState;

/// Intervals that must all be bad.
const INTERVALS: usize = 3;
/// Misses per second that are nobody's fault: packets that were under way, retransmissions that were
/// reordered, connections about to close.
const MISSES_PER_SECOND: u64 = 100;
/// Of what hardware forwards, one in so many may miss besides.
const MISS_SHARE: u64 = 100;
/// How long the offload thread may be busy with one turn.
const TURN_MAX_MS: u64 = 3000;

/// The figures at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) now_ms: u64,
    /// Turns of the offload thread,
    pub(crate) turns: u64,
    /// and whether it has ended.
    pub(crate) ended: bool,
    pub(crate) state: EngineState,
    /// Packets of connections in hardware that came to workers.
    pub(crate) misses: u64,
    /// Packets that hardware has forwarded.
    pub(crate) packets: u64,
}

/// The last few samples.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Oldest first.
    samples: ArrayVec<Sample, { INTERVALS + 1 }>,
    /// When the thread was first seen at its present turn.
    turned: (u64, u64),
}

impl Watch {
    /// Takes a sample.
    pub(crate) fn look(&mut self, sample: Sample) {
        if self.samples.is_full() {
            self.samples.remove(0);
        }
        if self.samples.is_empty() || self.turned.1 != sample.turns {
            self.turned = (sample.now_ms, sample.turns);
        }
        self.samples.push(sample);
    }

    /// Whether the offload thread hangs or has ended.
    pub(crate) fn is_stuck(&self) -> bool {
        self.samples.last().is_some_and(|last| last.ended || last.now_ms - self.turned.0 >= TURN_MAX_MS)
    }

    /// What is wrong; empty if nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Some(last) = self.samples.last() else { return Vec::new() };
        let mut problems = Vec::new();
        if last.ended {
            problems.push("the offload thread has ended; new connections stay in software".to_owned());
        } else if self.is_stuck() {
            let seconds = (last.now_ms - self.turned.0) / 1000;
            problems.push(format!(
                "the offload thread has been stuck for {seconds} s; new connections stay in software"
            ));
        } else if last.state != EngineState::Running {
            problems.push(format!(
                "the offload engine is {}; connections are forwarded by software",
                last.state.name()
            ));
        }
        if let Some(rate) = self.misses_per_second() {
            problems.push(format!("{rate} packets/s of offloaded connections reach the workers"));
        }
        problems
    }

    /// Misses per second in the last interval, if they were too many in all intervals.
    fn misses_per_second(&self) -> Option<u64> {
        let (first, last) = (self.samples.first()?, self.samples.last()?);
        if !self.samples.is_full() {
            return None;
        }
        let per_second = |n: u64, from: &Sample, to: &Sample| n * 1000 / (to.now_ms - from.now_ms).max(1);
        // Hardware's counters are read less often than we look, so its rate is that of all intervals.
        let forwarded = per_second(last.packets.saturating_sub(first.packets), first, last);
        let limit = MISSES_PER_SECOND.max(forwarded / MISS_SHARE);
        let rates: ArrayVec<u64, INTERVALS> = self
            .samples
            .windows(2)
            .map(|pair| per_second(pair[1].misses.saturating_sub(pair[0].misses), &pair[0], &pair[1]))
            .collect();
        rates.iter().all(|rate| *rate > limit).then(|| rates.last().copied()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, misses: u64, packets: u64) -> Sample {
        let state = EngineState::Running;
        Sample { now_ms: second * 1000, turns: second, ended: false, state, misses, packets }
    }

    fn watch(samples: impl IntoIterator<Item = Sample>) -> Watch {
        let mut watch = Watch::default();
        samples.into_iter().for_each(|sample| watch.look(sample));
        watch
    }

    #[test]
    fn misses_that_last_are_told_and_a_burst_is_not() {
        let steady = watch((0..4).map(|second| sample(second, second * 150, 0)));
        assert_eq!(steady.problems(), ["150 packets/s of offloaded connections reach the workers"]);
        let young = watch((0..3).map(|second| sample(second, second * 150, 0)));
        assert!(young.problems().is_empty());
        let burst = watch((0..4).map(|second| sample(second, if second > 2 { 9000 } else { 0 }, 0)));
        assert!(burst.problems().is_empty());
        let over = watch((0..9).map(|second| sample(second, second.min(6) * 150, 0)));
        assert!(over.problems().is_empty(), "it has ended");
    }

    #[test]
    fn what_may_miss_grows_with_what_hits() {
        // Counted in steps, as hardware's counters are read every other second.
        let hits = |second: u64| second / 2 * 2 * 100_000;
        let few = watch((0..4).map(|second| sample(second, second * 500, hits(second))));
        assert!(few.problems().is_empty());
        let many = watch((0..4).map(|second| sample(second, second * 1500, hits(second))));
        assert_eq!(many.problems(), ["1500 packets/s of offloaded connections reach the workers"]);
    }

    #[test]
    fn a_thread_that_does_not_turn_is_told_after_a_while() {
        let hangs = |seconds: u64| watch((0..=seconds).map(|s| Sample { turns: 7, ..sample(s, 0, 0) }));
        assert!(!hangs(2).is_stuck() && hangs(2).problems().is_empty());
        assert!(hangs(5).is_stuck());
        let problem = "the offload thread has been stuck for 5 s; new connections stay in software";
        assert_eq!(hangs(5).problems(), [problem]);
        let ended = watch([Sample { ended: true, ..sample(0, 0, 0) }]);
        assert!(ended.is_stuck() && ended.problems()[0].contains("has ended"));
    }

    #[test]
    fn an_engine_in_trouble_is_told() {
        let recovers = watch([Sample { state: EngineState::Recovering, ..sample(0, 0, 0) }]);
        let problem = "the offload engine is recovering; connections are forwarded by software";
        assert_eq!(recovers.problems(), [problem]);
        assert!(Watch::default().problems().is_empty());
    }
}
