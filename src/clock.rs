//! The only place that reads a clock.
//!
//! Workers read the time-stamp counter and turn it into a [`Tick`] once per loop; everything else takes
//! the tick as an argument. Wall-clock time is for log lines and metrics only.

use dataplane::time::Tick;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Turns cycles into ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start_cycles: u64,
    /// Milliseconds per cycle as a 64-bit binary fraction: a multiplication instead of a division.
    ms_per_cycle: u64,
    /// Cycles per second.
    hz: u64,
}

impl Clock {
    /// A clock that stands at tick 0 when the counter shows `start_cycles`.
    pub(crate) fn new(start_cycles: u64, hz: u64) -> Clock {
        assert!(hz > 1000, "a time-stamp counter of {hz} Hz");
        Clock { start_cycles, ms_per_cycle: ((1000u128 << 64) / u128::from(hz)) as u64, hz }
    }

    /// The tick at which the counter shows `cycles`.
    #[inline]
    pub(crate) fn tick(&self, cycles: u64) -> Tick {
        Tick(self.milliseconds(cycles) as u32)
    }

    /// Milliseconds since the start, without the wrap of a [`Tick`].
    #[inline]
    pub(crate) fn milliseconds(&self, cycles: u64) -> u64 {
        let elapsed = cycles.wrapping_sub(self.start_cycles);
        ((u128::from(elapsed) * u128::from(self.ms_per_cycle)) >> 64) as u64
    }

    /// Nanoseconds since the start.
    pub(crate) fn nanoseconds(&self, cycles: u64) -> u64 {
        let elapsed = cycles.wrapping_sub(self.start_cycles);
        (u128::from(elapsed) * 1_000_000_000 / u128::from(self.hz)) as u64
    }

    /// Cycles per second.
    pub(crate) fn hz(&self) -> u64 {
        self.hz
    }
}

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Time since some fixed moment, for time limits on the control threads.
#[allow(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_milliseconds_for_every_frequency() {
        for hz in [25_000_000, 999_999_937, 2_100_000_000, 5_800_000_000] {
            let clock = Clock::new(u64::MAX - 5, hz);
            for seconds in [0, 1, 59, 86_400, 40 * 86_400] {
                let tick = clock.tick((u64::MAX - 5).wrapping_add(seconds * hz));
                let error = Tick((seconds * 1000) as u32).since(tick);
                assert!(error <= 1, "{hz} Hz after {seconds} s is off by {error} ms");
                let ns = clock.nanoseconds((u64::MAX - 5).wrapping_add(seconds * hz));
                assert_eq!(ns, seconds * 1_000_000_000, "{hz} Hz");
            }
        }
    }
}
