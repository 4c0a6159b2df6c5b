//! The device's time as synchronous calls use it: one call after another, each as long as the profile says.

use crate::model::types::Tick;

/// A call that begins so soon after the last one continues it.
const CONTINUED_NS: u64 = 10_000;

/// When the last call ended, and how much later than it should have.
///
/// A call does its own work, waits, and then still has to enter the device, or is not woken in time. What
/// that took too long is taken off the call behind it, so that a stream of calls keeps the rate, as the
/// hardware does.
pub(super) struct Turn {
    ended: Tick,
    overrun_ns: u64,
}

impl Turn {
    /// No call so far.
    pub(super) const NONE: Turn = Turn { ended: Tick(0), overrun_ns: 0 };

    /// When a call that began then is to end.
    pub(super) fn until(&self, begin: Tick, cost_ns: u64) -> Tick {
        let continued = begin.since(self.ended) <= CONTINUED_NS;
        let overrun = if continued { self.overrun_ns.min(cost_ns) } else { 0 };
        begin.max(self.ended).after(cost_ns - overrun)
    }

    /// A call ends that should have ended `until` then.
    pub(super) fn end(&mut self, until: Tick, now: Tick) {
        *self = Turn { ended: now, overrun_ns: now.since(until) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_calls_keeps_the_rate() {
        let (mut turn, mut now) = (Turn::NONE, Tick(1_000_000));
        for _ in 0..100 {
            let until = turn.until(now, 1000);
            now = until.after(300);
            turn.end(until, now);
        }
        assert_eq!(now, Tick(1_000_000 + 100 * 1000 + 300));
    }

    #[test]
    fn no_call_makes_up_for_more_than_it_takes_itself_nor_for_long_ago() {
        let mut turn = Turn::NONE;
        turn.end(Tick(1000), Tick(9000));
        assert_eq!(turn.until(Tick(9000), 500), Tick(9000), "500 of 8000 made up for");
        assert_eq!(turn.until(Tick(5000), 9000), Tick(10_000), "it waited for the call before");
        assert_eq!(turn.until(Tick(20_000), 500), Tick(20_500), "a pause");
    }
}
