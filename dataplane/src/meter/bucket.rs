//! Buckets of tokens that several workers take from at once, in one atomic word each.
//!
//! A bucket of rate `r` has earned `floor(r * t)` tokens by the time `t`, worked out afresh each time, so
//! that nothing is rounded away however often it is asked. All it remembers is how many have been spent,
//! those included that flowed over while it was full. What it holds is the difference, plus its depth.
//!
//! Both numbers are kept modulo 2^64, which at high rates is less than a year's tokens: only how far one is
//! ahead of the other counts. More than [`BEHIND_S`] of spending ahead of the earnings cannot be: then it is
//! the earnings that are ahead.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds since the process started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// In a second.
    pub const SECOND: u64 = 1_000_000_000;
}

/// Clocks of workers differ by less than this, and no more than this is ever owed. Seconds.
const BEHIND_S: u64 = 60;

/// Tokens that come at a rate, up to a depth. Full at first.
///
/// Workers whose clocks differ may take from it in any order: one that is behind sees fewer tokens.
#[derive(Debug)]
pub struct Bucket {
    per_second: u64,
    depth: u64,
    spent: AtomicU64,
    drawn: AtomicU64,
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
    /// A full bucket. Rates and depths are at most 10^13: what a rate brings in a minute is far from 2^64.
    #[must_use]
    pub fn new(per_second: u64, depth: u64) -> Bucket {
        Bucket { per_second, depth, spent: AtomicU64::new(0), drawn: AtomicU64::new(0) }
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
            let Levels { level, full, overflow } = self.levels(earned, spent);
            let drawn = Drawn { tokens: if level < least { 0 } else { level.min(most) }, overflow };
            if drawn == Drawn::default() {
                return drawn;
            }
            // The word stands for itself alone: nothing else is ordered by it.
            let next = full.wrapping_add(drawn.tokens);
            match self.spent.compare_exchange_weak(spent, next, Relaxed, Relaxed) {
                Ok(_) => {
                    if drawn.tokens > 0 {
                        self.drawn.fetch_add(drawn.tokens, Relaxed);
                    }
                    return drawn;
                }
                Err(other) => spent = other,
            }
        }
    }

    /// Takes back tokens that were drawn and not used.
    pub fn give_back(&self, tokens: u64) {
        self.spent.fetch_sub(tokens, Relaxed);
        self.drawn.fetch_sub(tokens, Relaxed);
    }

    /// Takes tokens whether there are any or not, for somebody who has used them already: whoever draws next
    /// has to wait until they have come.
    pub fn reserve(&self, tokens: u64) {
        self.spent.fetch_add(tokens, Relaxed);
    }

    /// Tokens it holds.
    #[must_use]
    pub fn level(&self, now: Nanos) -> u64 {
        self.levels(earned(now, self.per_second), self.spent.load(Relaxed)).level
    }

    /// Tokens that were drawn so far, modulo 2^64; those that were reserved are not among them.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn.load(Relaxed)
    }

    fn levels(&self, earned: u64, spent: u64) -> Levels {
        let behind = spent.wrapping_sub(earned);
        if behind <= self.depth.saturating_add(self.per_second.saturating_mul(BEHIND_S)) {
            Levels { level: self.depth.saturating_sub(behind), full: spent, overflow: 0 }
        } else {
            Levels { level: self.depth, full: earned, overflow: earned.wrapping_sub(spent) }
        }
    }
}

/// How a bucket stands.
struct Levels {
    /// Tokens it holds.
    level: u64,
    /// What has been spent, those included that flowed over.
    full: u64,
    /// Those that flowed over since somebody last looked.
    overflow: u64,
}

/// Whole tokens that a rate has earned by `now`, modulo 2^64.
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

    /// Tokens it holds.
    #[must_use]
    pub fn level(&self) -> u64 {
        self.level.load(Relaxed)
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
