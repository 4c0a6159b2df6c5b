//! Time for the model, from the CPU's time stamp counter.

use super::ffi;
use crate::model::types::Tick;

/// Counts nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: u64,
    /// Nanoseconds per cycle, with 32 bits behind the point.
    scale: u64,
}

impl Clock {
    /// A clock that shows 0 now. Needs the EAL.
    pub(super) fn start() -> Clock {
        // SAFETY: both read counters; the EAL measured the frequency before it probes drivers.
        let (base, hz) = unsafe { (ffi::eswitch_tsc(), ffi::rte_get_tsc_hz()) };
        Clock { base, scale: scale(hz) }
    }

    /// A clock without the EAL, that counts cycles.
    #[cfg(test)]
    pub(super) const fn counting() -> Clock {
        Clock { base: 0, scale: 1 << 32 }
    }

    /// The time.
    #[inline]
    pub(super) fn now(&self) -> Tick {
        // SAFETY: reads a counter.
        let cycles = unsafe { ffi::eswitch_tsc() }.wrapping_sub(self.base);
        Tick(nanoseconds(cycles, self.scale))
    }

    /// Keeps the caller until then. Long waits leave the core to others: the packet threads may need it.
    pub(super) fn wait(&self, until: Tick) {
        const SPIN_NS: u64 = 5_000;
        loop {
            let left = until.since(self.now());
            if left == 0 {
                return;
            }
            if left > SPIN_NS {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

fn scale(hz: u64) -> u64 {
    ((Tick::SECOND as u128) << 32).checked_div(u128::from(hz)).map_or(1 << 32, |scale| scale as u64)
}

#[inline]
fn nanoseconds(cycles: u64, scale: u64) -> u64 {
    ((u128::from(cycles) * u128::from(scale)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_become_nanoseconds() {
        assert_eq!(nanoseconds(2_000_000_000, scale(2_000_000_000)), 1_000_000_000);
        assert_eq!(nanoseconds(7, scale(1_000_000_000)), 7);
        assert_eq!(scale(0), 1 << 32, "an unknown frequency: a cycle is a nanosecond");
        // A year at 3.3 GHz: less than a millisecond off, no overflow.
        let year = 365 * 86_400_u64;
        let error = nanoseconds(year * 3_300_000_000, scale(3_300_000_000)).abs_diff(year * Tick::SECOND);
        assert!(error < 30_000_000, "{error} ns in a year");
    }
}
