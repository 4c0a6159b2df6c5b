//! How much of a meter's rate hardware gets, and how much software keeps.
//!
//! A pure law, asked again every [`PERIOD_NS`]. What it knows of software is exact: the tokens that workers
//! drew, what the bucket holds, and whether any worker had too few. Of hardware it knows whether packets were
//! dropped there; what has passed is told late, as counters lag.
//!
//! ```text
//!                     hardware has enough                 hardware drops
//! software has    all that software leaves, so that   all that software leaves
//! enough          hardware may have it at once
//! software is     what hardware used lately, and a    both have too little, whichever way: what each has
//! short           little more                         moves slowly towards halves
//! ```
//!
//! What software leaves is the rate less what it draws, more or less what its bucket holds beyond, or below,
//! a half: what nobody used in one period is there in the next. So no more than the meter's rate ever passes,
//! and while anybody is short, all of it does, but for what hardware is given and does not use.

/// How often shares are reconsidered, nanoseconds.
pub const PERIOD_NS: u64 = 100_000_000;
/// Hardware's use is averaged over so many periods: longer than counters lag.
const WINDOW: usize = 25;
/// Hardware gets at least this fraction of the rate.
const LEAST: u64 = 512;
/// What is given away, or taken, while both are short: this fraction of the rate per period.
const STEP: u64 = 128;
/// Hardware that has enough gets more than it used by this fraction of it, and of the rate.
const MARGIN: u64 = 512;

/// What happened in one period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// How long it was, nanoseconds.
    pub elapsed_ns: u64,
    /// Tokens that software drew.
    pub drawn: u64,
    /// Tokens that its bucket holds at the end.
    pub level: u64,
    /// Whether it was short of them.
    pub short: bool,
    /// Tokens' worth of packets that hardware is known to have passed.
    pub passed: u64,
    /// Whether hardware dropped any.
    pub dropped: bool,
}

/// The share that hardware has of a rate.
#[derive(Clone, Debug)]
pub struct Share {
    rate: u64,
    depth: u64,
    hardware: u64,
    passed: [u64; WINDOW],
    at: usize,
    periods: usize,
}

impl Share {
    /// Of a bucket with this rate (tokens a second) and depth. At first, hardware has half.
    #[must_use]
    pub fn new(rate: u64, depth: u64) -> Share {
        Share { rate, depth, hardware: (rate / 2).max(1), passed: [0; WINDOW], at: 0, periods: 0 }
    }

    /// Tokens a second that hardware has.
    #[must_use]
    pub fn hardware(&self) -> u64 {
        self.hardware
    }

    /// Tokens that hardware may have used in so long a time.
    #[must_use]
    pub fn due(&self, elapsed_ns: u64) -> u64 {
        per_second(self.hardware, elapsed_ns)
    }

    /// Reconsiders it: tokens a second that hardware has from now on.
    pub fn reconsider(&mut self, seen: &Seen) -> u64 {
        self.passed[self.at] = seen.passed;
        self.at = (self.at + 1) % WINDOW;
        self.periods = (self.periods + 1).min(WINDOW);
        let (rate, now) = (self.rate, self.hardware);
        let next = match (seen.short, seen.dropped) {
            (false, _) => self.left(seen),
            (true, false) if self.periods < WINDOW => now,
            (true, false) => {
                let used = self.used(seen.elapsed_ns);
                now.min(used + used / MARGIN + rate / MARGIN)
            }
            (true, true) => {
                let (half, step) = (rate / 2, rate.div_ceil(STEP));
                if now < half { (now + step).min(half) } else { now.saturating_sub(step).max(half) }
            }
        };
        self.hardware = next.clamp(rate.div_ceil(LEAST), rate.max(1));
        self.hardware
    }

    /// What software leaves, tokens a second.
    fn left(&self, seen: &Seen) -> u64 {
        let drawn = rate_of(seen.drawn, seen.elapsed_ns);
        // Over two periods, so that what is measured a little late does not swing to and fro.
        let two = 2 * seen.elapsed_ns;
        let half = self.depth / 2;
        let (spare, owed) = (seen.level.saturating_sub(half), half.saturating_sub(seen.level));
        (self.rate.saturating_sub(drawn) + rate_of(spare, two)).saturating_sub(rate_of(owed, two))
    }

    /// What hardware used lately, tokens a second.
    fn used(&self, elapsed_ns: u64) -> u64 {
        rate_of(self.passed.iter().sum(), elapsed_ns * WINDOW as u64)
    }
}

fn rate_of(tokens: u64, elapsed_ns: u64) -> u64 {
    let per_second = u128::from(tokens) * 1_000_000_000 / u128::from(elapsed_ns.max(1));
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

fn per_second(rate: u64, elapsed_ns: u64) -> u64 {
    (u128::from(rate) * u128::from(elapsed_ns) / 1_000_000_000) as u64
}

#[cfg(test)]
mod tests;
