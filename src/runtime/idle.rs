//! What a worker does when there was nothing to do.

use dataplane::config::Idle;
use std::time::Duration;

/// Empty polls in a row before the first sleep: bursts follow one another faster than that under load.
const PATIENCE: u32 = 256;

/// Rests between empty polls: not at all, or longer and longer up to a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    sleep_max_us: u64,
    empty_polls: u32,
}

impl Rest {
    /// Rests as configured.
    pub(crate) fn new(idle: Idle) -> Rest {
        let sleep_max_us = match idle {
            Idle::Poll => 0,
            Idle::Backoff { sleep_us } => u64::from(sleep_us),
        };
        Rest { sleep_max_us, empty_polls: 0 }
    }

    /// After a poll that found work, or did not.
    #[inline]
    pub(crate) fn after(&mut self, found_work: bool) {
        if found_work {
            self.empty_polls = 0;
            return;
        }
        self.empty_polls = self.empty_polls.saturating_add(1);
        let sleep_us = self.sleep_us();
        if sleep_us == 0 {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(Duration::from_micros(sleep_us));
        }
    }

    /// Doubles with every poll beyond patience.
    fn sleep_us(&self) -> u64 {
        let beyond = self.empty_polls.saturating_sub(PATIENCE);
        if beyond == 0 { 0 } else { (1u64 << (beyond - 1).min(32)).min(self.sleep_max_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_never_sleeps() {
        let mut rest = Rest::new(Idle::Poll);
        (0..10_000).for_each(|_| rest.after(false));
        assert_eq!(rest.sleep_us(), 0);
    }

    #[test]
    fn backing_off_grows_to_its_limit_and_ends_with_work() {
        let mut rest = Rest { sleep_max_us: 100, empty_polls: PATIENCE };
        assert_eq!(rest.sleep_us(), 0);
        let slept: Vec<u64> = (0..9)
            .map(|_| {
                rest.empty_polls += 1;
                rest.sleep_us()
            })
            .collect();
        assert_eq!(slept, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        rest.empty_polls = u32::MAX;
        assert_eq!(rest.sleep_us(), 100);
        rest.after(true);
        assert_eq!(rest.sleep_us(), 0);
    }
}
