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

/// Nanoseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn unix_nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64
}

/// Seconds since 1970 as a date and a time of day, UTC (RFC 3339).
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the leap day is the last; 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
    fn seconds_become_dates() {
        let dates = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, date) in dates {
            assert_eq!(utc(seconds), date);
        }
    }

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
