//! Buckets of tokens that several workers take from at once, in one atomic word each.
//!
//! A bucket of rate `r` has earned `floor(r * t)` tokens by the time `t`, worked out afresh each time, so
//! that nothing is rounded away however often it is asked. All it remembers is how many have been spent,
//! those included that flowed over while it was full. What it holds is the difference, plus its depth.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds since the process started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// In a second.
    pub const SECOND: u64 = 1_000_000_000;
}

/// Tokens that come at a rate, up to a depth. Full at first.
///
/// Workers whose clocks differ may take from it in any order: one that is behind sees fewer tokens.
#[derive(Debug)]
pub struct Bucket {
    per_second: u64,
    depth: u64,
    spent: AtomicU64,
}

/// What a bucket gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drawn {
    /// Tokens taken; 0 if there were too few.
    pub tokens: u64,
    /// Tokens that had flowed over since somebody last looked.
    pub overflow: u64,
}

impl Bucket {
    /// A full bucket. Rates and depths are at most 10^13, so that sums of them stay far from 2^64.
    #[must_use]
    pub fn new(per_second: u64, depth: u64) -> Bucket {
        Bucket { per_second, depth, spent: AtomicU64::new(0) }
    }

    /// Tokens a second.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Tokens it can hold.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Takes `least` tokens, and up to `most` if there are more; none if there are fewer.
    pub fn draw(&self, now: Nanos, least: u64, most: u64) -> Drawn {
        let earned = earned(now, self.per_second);
        let mut spent = self.spent.load(Relaxed);
        loop {
            let full = spent.max(earned);
            let level = (earned + self.depth).saturating_sub(full);
            let drawn =
                Drawn { tokens: if level < least { 0 } else { level.min(most) }, overflow: full - spent };
            if drawn == Drawn::default() {
                return drawn;
            }
            // The word stands for itself alone: nothing else is ordered by it.
            match self.spent.compare_exchange_weak(spent, full + drawn.tokens, Relaxed, Relaxed) {
                Ok(_) => return drawn,
                Err(other) => spent = other,
            }
        }
    }
}

/// Whole tokens that a rate has earned by `now`.
fn earned(now: Nanos, per_second: u64) -> u64 {
    let (seconds, part) = (now.0 / Nanos::SECOND, now.0 % Nanos::SECOND);
    let part = match part.checked_mul(per_second) {
        Some(product) => product / Nanos::SECOND,
        None => (u128::from(part) * u128::from(per_second) / u128::from(Nanos::SECOND)) as u64,
    };
    seconds.wrapping_mul(per_second).wrapping_add(part)
}

/// Tokens that flow over from another bucket, up to a depth. Full at first.
#[derive(Debug)]
pub struct Excess {
    depth: u64,
    level: AtomicU64,
}

impl Excess {
    /// Full.
    #[must_use]
    pub fn new(depth: u64) -> Excess {
        Excess { depth, level: AtomicU64::new(depth) }
    }

    /// Tokens it can hold.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Pours tokens in; what does not fit is lost.
    pub fn pour(&self, tokens: u64) {
        let add = |level: u64| Some(level.saturating_add(tokens).min(self.depth));
        // It always adds, so there is nothing to handle.
        let _ = self.level.fetch_update(Relaxed, Relaxed, add);
    }

    /// As [`Bucket::draw`].
    pub fn draw(&self, least: u64, most: u64) -> u64 {
        let take = |level: u64| (level >= least).then(|| level - level.min(most));
        self.level.fetch_update(Relaxed, Relaxed, take).map_or(0, |level| level.min(most))
    }
}
