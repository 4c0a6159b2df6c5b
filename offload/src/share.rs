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
//! What software leaves is the rate less what it draws; more if its bucket is about to overflow, less if it
//! is about to run dry. So no more than the meter's rate ever passes, and while anybody is short, all of it
//! does, but for what hardware is given and does not use.
//!
//! Each time a device is told a rate it may begin with a full burst again (see `dpdk::flow::meter`), for
//! which software has to pay. So it is not told often ([`Share::news`]), and a small burst where software
//! cannot spare the whole one.

/// How often shares are reconsidered, nanoseconds.
pub const PERIOD_NS: u64 = 100_000_000;
/// Hardware's use is averaged over so many periods, and over twice and three times as many: counters come in
/// lumps of a second's worth.
const LUMP: usize = 10;
/// So many are remembered.
const WINDOW: usize = 3 * LUMP;
/// So long, in periods, somebody who was short is taken to be.
const SHORT: u32 = LUMP as u32;
/// What software's bucket holds beyond three quarters is given away, and what it lacks of an eighth is made
/// up for, in so many periods.
const HORIZON: u64 = 30;
/// Hardware gets at least this fraction of the rate.
const LEAST: u64 = 512;
/// What is given away, or taken, while both are short: this fraction of the rate per period.
const STEP: u64 = 128;
/// Hardware that has enough gets more than it used by this fraction of it, and of the rate.
const MARGIN: u64 = 512;

/// The device is not told more often than once in so long, nanoseconds,
const TELL_NS: u64 = 1_000_000_000;
/// nor of less than this fraction of the rate,
const COARSE: u64 = 512;
/// or than this one while nobody is short.
const COARSE_CALM: u64 = 16;
/// When nothing was told for so long, nanoseconds, it gets its whole burst, if software can spare it.
const SETTLED_NS: u64 = 5_000_000_000;
/// If not, it has so much of a second's worth.
const SMALL: u64 = 32;

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

/// What the device is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct News {
    /// Tokens a second.
    pub per_second: u64,
    /// Tokens at once, with which it may begin.
    pub burst: u64,
}

/// The share that hardware has of a rate.
#[derive(Clone, Debug)]
pub struct Share {
    rate: u64,
    depth: u64,
    /// Tokens that the smallest burst has.
    least_burst: u64,
    hardware: u64,
    passed: [u64; WINDOW],
    drawn: [u64; LUMP],
    at: usize,
    periods: usize,
    /// Periods for which either is still taken to be short.
    short: u32,
    dropped: u32,
    level: u64,
    /// What the device has been told, and when. `None`: nothing.
    told: Option<(News, u64)>,
}

impl Share {
    /// Of a bucket with this rate (tokens a second) and depth. At first, hardware has half. `least_burst`:
    /// tokens of a few packets.
    #[must_use]
    pub fn new(rate: u64, depth: u64, least_burst: u64) -> Share {
        Share {
            rate,
            depth,
            least_burst,
            hardware: (rate / 2).max(1),
            passed: [0; WINDOW],
            drawn: [0; LUMP],
            at: 0,
            periods: 0,
            short: 0,
            dropped: 0,
            level: depth,
            told: None,
        }
    }

    /// The same part of another rate. The device is to be told at once.
    #[must_use]
    pub fn resized(&self, rate: u64, depth: u64, least_burst: u64) -> Share {
        let part = u128::from(self.hardware) * u128::from(rate) / u128::from(self.rate.max(1));
        let hardware = (part as u64).clamp(rate.div_ceil(LEAST), rate.max(1));
        Share { hardware, ..Share::new(rate, depth, least_burst) }
    }

    /// Tokens a second that hardware is to have.
    #[must_use]
    pub fn hardware(&self) -> u64 {
        self.hardware
    }

    /// What the device is to be told now, if anything. `changed`: there is another reason to tell it.
    #[must_use]
    pub fn news(&self, now_ns: u64, changed: bool) -> Option<News> {
        let (per_second, whole) = (self.hardware, self.whole_burst());
        // With a part left for software's own traffic.
        let can_spare = self.short == 0 && self.level >= whole + self.depth / 4;
        let burst = if can_spare { whole } else { (self.rate / SMALL).max(self.least_burst).min(whole) };
        let Some((told, told_ns)) = self.told else { return Some(News { per_second, burst: whole }) };
        let calm = self.short == 0 && self.dropped == 0 && self.level >= self.depth / 2;
        let coarse = self.rate / if calm { COARSE_CALM } else { COARSE };
        match now_ns.saturating_sub(told_ns) {
            ..TELL_NS => None,
            _ if changed || told.per_second.abs_diff(per_second) > coarse => Some(News { per_second, burst }),
            SETTLED_NS.. if told.burst < whole && can_spare => Some(News { burst: whole, ..told }),
            _ => None,
        }
    }

    /// The device has been told.
    pub fn told(&mut self, now_ns: u64, news: News) {
        self.told = Some((news, now_ns));
    }

    /// What it was told; `None`: nothing, or it has forgotten.
    #[must_use]
    pub fn last_told(&self) -> Option<News> {
        self.told.map(|(news, _)| news)
    }

    /// The device has forgotten what it was told.
    pub fn forget(&mut self) {
        self.told = None;
    }

    /// Half of the meter's burst.
    fn whole_burst(&self) -> u64 {
        (self.depth / 2).max(1)
    }

    /// Reconsiders it: tokens a second that hardware is to have from now on.
    pub fn reconsider(&mut self, seen: &Seen) -> u64 {
        self.passed[self.at] = seen.passed;
        self.drawn[self.at % LUMP] = seen.drawn;
        self.at = (self.at + 1) % WINDOW;
        self.periods = (self.periods + 1).min(WINDOW);
        self.level = seen.level;
        self.short = if seen.short { SHORT } else { self.short.saturating_sub(1) };
        self.dropped = if seen.dropped { SHORT } else { self.dropped.saturating_sub(1) };
        let (rate, now) = (self.rate, self.hardware);
        let next = match (self.short > 0, self.dropped > 0) {
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
        let periods = self.periods.min(LUMP) as u64;
        let average = rate_of(self.drawn.iter().sum(), seen.elapsed_ns * periods);
        // What has just begun is to have its part before the bucket is empty.
        let at_once = if seen.level < self.depth / 2 { rate_of(seen.drawn, seen.elapsed_ns) } else { 0 };
        let drawn = average.max(at_once);
        let horizon = HORIZON * seen.elapsed_ns;
        let (much, little) = (self.depth / 4 * 3, self.depth / 8);
        let (spare, owed) = (seen.level.saturating_sub(much), little.saturating_sub(seen.level));
        (self.rate.saturating_sub(drawn) + rate_of(spare, horizon)).saturating_sub(rate_of(owed, horizon))
    }

    /// What hardware used lately, tokens a second: an average in which as many lumps are as should be, or
    /// more.
    fn used(&self, elapsed_ns: u64) -> u64 {
        let newest = |periods: usize| {
            let passed = (1..=periods).map(|back| self.passed[(self.at + WINDOW - back) % WINDOW]).sum();
            rate_of(passed, elapsed_ns * periods as u64)
        };
        newest(LUMP).max(newest(2 * LUMP)).max(newest(3 * LUMP))
    }
}

fn rate_of(tokens: u64, elapsed_ns: u64) -> u64 {
    let per_second = u128::from(tokens) * 1_000_000_000 / u128::from(elapsed_ns.max(1));
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
