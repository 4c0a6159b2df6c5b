//! When things happen: costs, delays and ceilings, drawn from a profile under a seed.
//!
//! Everything here gives the same on every platform: the generator is integer arithmetic, and the few
//! floating-point steps (when a table is built) use nothing but what IEEE 754 defines exactly.

#[cfg(test)]
mod tests;

use serde::Deserialize;

use super::profile::Profile;
use super::types::Tick;

/// A generator of random numbers (xoshiro256++, Blackman and Vigna 2019), seeded by SplitMix64. Not for
/// secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// A generator; the seed decides all it will ever say.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        let mut state = seed;
        Rng(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    /// The next 64 bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`; 0 if that is 0. Biased by less than one in 2^32 for bounds below 2^32.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// True `parts` times in a million, on average. Nothing is drawn for never and for always, so that a
    /// fault that is off changes nothing.
    #[inline]
    pub fn per_million(&mut self, parts: u32) -> bool {
        match parts {
            0 => false,
            1_000_000.. => true,
            _ => self.below(1_000_000) < u64::from(parts),
        }
    }
}

/// A time that varies: half of its values are below `median`, one in a hundred is above `p99`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The median, in nanoseconds.
    pub median: u64,
    /// The 99th percentile, in nanoseconds.
    pub p99: u64,
}

/// Steps of a [`Sampler`]'s table.
const STEPS: usize = 256;

/// Draws from a [`Spread`]: log-logistic, cut off at both ends.
///
/// The quantile of `u` is `median * (u / (1 - u)) ^ (ln(p99 / median) / ln 99)`. It is tabulated at
/// `u = 0, 1/256, .. 1` (the ends stand for 1/512 and 511/512) and taken to be linear in between, so a value
/// is at most 511 ^ 0.151 = 2.6 times the median where p99 is twice the median. The mean is the mean of the
/// steps, exactly: see [`Sampler::mean`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sampler {
    /// Empty: always `constant`.
    quantiles: Box<[u64]>,
    constant: u64,
}

impl Sampler {
    /// A sampler.
    #[must_use]
    pub fn new(spread: Spread) -> Sampler {
        let Spread { median, p99 } = spread;
        if p99 <= median || median == 0 {
            return Sampler { quantiles: Box::default(), constant: median };
        }
        let exponent = ln(p99 as f64 / median as f64) / ln(99.0);
        let quantiles = (0..=STEPS).map(|step| {
            // In 512ths, so that the ends can be half a step inside.
            let at = (2 * step).clamp(1, 2 * STEPS - 1) as f64;
            let odds = at / ((2 * STEPS) as f64 - at);
            (median as f64 * exp(exponent * ln(odds)) + 0.5) as u64
        });
        Sampler { quantiles: quantiles.collect(), constant: median }
    }

    /// One value.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        if self.quantiles.is_empty() {
            return self.constant;
        }
        let bits = rng.word();
        let step = (bits >> 56) as usize;
        let within = u128::from(bits << 8 >> 32);
        let (low, high) = (self.quantiles[step], self.quantiles[step + 1]);
        low + ((u128::from(high - low) * within) >> 32) as u64
    }

    /// The mean of all values, to within a nanosecond.
    #[must_use]
    pub fn mean(&self) -> u64 {
        if self.quantiles.is_empty() {
            return self.constant;
        }
        let twice: u128 =
            self.quantiles.windows(2).map(|ends| u128::from(ends[0]) + u128::from(ends[1])).sum();
        (twice / (2 * STEPS as u128)) as u64
    }
}

impl Spread {
    /// Always the same time.
    #[must_use]
    pub const fn always(ns: u64) -> Spread {
        Spread { median: ns, p99: ns }
    }

    /// The mean of what is drawn, in nanoseconds: what to expect of a rate, `1e9 / mean` a second.
    #[must_use]
    pub fn mean_ns(self) -> u64 {
        Sampler::new(self).mean()
    }
}

/// The natural logarithm of a positive, normal number: `x = m * 2^e`, and the series of artanh for m.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    // ratio <= 1/3: the first term left out is below 1e-19.
    let series = (0..18).rev().fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * ratio * series
}

/// The exponential function, for arguments of moderate size: `x = n ln 2 + r`, and Taylor's series for r.
fn exp(x: f64) -> f64 {
    let whole = (x / std::f64::consts::LN_2) as i32;
    let rest = x - f64::from(whole) * std::f64::consts::LN_2;
    let series = (1..22).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    let power = f64::from_bits(((whole + 1023).clamp(1, 2046) as u64) << 52);
    series * power
}

/// How one kind of operation is late.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lateness {
    /// Of the queue, or the caller: one after the other.
    pub cost: Sampler,
    /// Until packets notice.
    pub latency: Sampler,
    /// From then until the completion.
    pub completion: Sampler,
}

/// The times of a device, or of one of its flow queues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timing {
    rng: Rng,
    create: Lateness,
    destroy: Lateness,
    action: Lateness,
    ceiling: Ceiling,
}

impl Timing {
    /// The times of this profile. Equal seeds, equal times.
    #[must_use]
    pub fn new(profile: &Profile, seed: u64) -> Timing {
        let lateness = |cost, latency, completion| Lateness {
            cost: Sampler::new(cost),
            latency: Sampler::new(latency),
            completion: Sampler::new(completion),
        };
        let at_once = Spread::always(0);
        Timing {
            rng: Rng::new(seed),
            create: lateness(profile.create_cost_ns, profile.create_latency_ns, profile.create_completion_ns),
            destroy: lateness(
                profile.destroy_cost_ns,
                profile.destroy_latency_ns,
                profile.destroy_completion_ns,
            ),
            action: lateness(profile.action_cost_ns, at_once, profile.create_completion_ns),
            ceiling: Ceiling::new(profile),
        }
    }

    /// How long a creation occupies its queue, or its caller: nanoseconds.
    pub fn create_cost(&mut self) -> u64 {
        self.create.cost.draw(&mut self.rng)
    }

    /// How long a destruction does.
    pub fn destroy_cost(&mut self) -> u64 {
        self.destroy.cost.draw(&mut self.rng)
    }

    /// How long after a creation took effect its completion can be pulled: nanoseconds.
    pub fn completion_delay(&mut self) -> u64 {
        self.create.completion.draw(&mut self.rng)
    }

    /// Cost, latency and completion of a creation.
    pub fn creation(&mut self) -> [u64; 3] {
        self.create.draw(&mut self.rng)
    }

    /// The same of a destruction.
    pub fn destruction(&mut self) -> [u64; 3] {
        self.destroy.draw(&mut self.rng)
    }

    /// The same of an indirect action's operation.
    pub fn action(&mut self) -> [u64; 3] {
        self.action.draw(&mut self.rng)
    }

    /// How many of `want` packets the device has time for now. The others are to wait. That some were short,
    /// and took less time, is known when they come: see [`Timing::shorten`].
    pub fn admit(&mut self, now: Tick, want: usize) -> usize {
        self.ceiling.admit(now, want)
    }

    /// Gives back the time that admitted packets did not take because they were short; lengths are in bytes
    /// without FCS.
    #[inline]
    pub fn shorten(&mut self, lengths: impl IntoIterator<Item = usize>) {
        self.ceiling.shorten(lengths);
    }
}

impl Lateness {
    #[inline]
    fn draw(&self, rng: &mut Rng) -> [u64; 3] {
        [self.cost.draw(rng), self.latency.draw(rng), self.completion.draw(rng)]
    }
}

const PICOSECONDS: u64 = 1_000_000_000_000;

/// A packet-rate ceiling: a bucket of time, from which each packet takes what it costs.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ceiling {
    /// Picoseconds a packet costs; 0: nothing.
    cost_ps: u64,
    short_cost_ps: u64,
    short_bytes_max: usize,
    credit_ps: u64,
    credit_max_ps: u64,
    last: Option<Tick>,
}

impl Ceiling {
    fn new(profile: &Profile) -> Ceiling {
        let cost = |rate: u64| (PICOSECONDS + rate / 2).checked_div(rate).unwrap_or(0);
        let cost_ps = cost(profile.packets_per_second);
        let short = profile.short_bytes_max > 0;
        let short_cost_ps = if short { cost(profile.short_packets_per_second) } else { cost_ps };
        // A bucket that cannot hold one packet would admit none.
        let credit_max_ps = profile.burst_ns.saturating_mul(1000).max(cost_ps).max(short_cost_ps);
        let short_bytes_max = profile.short_bytes_max as usize;
        Ceiling {
            cost_ps,
            short_cost_ps,
            short_bytes_max,
            credit_ps: credit_max_ps,
            credit_max_ps,
            last: None,
        }
    }

    fn refill(&mut self, now: Tick) {
        let elapsed = self.last.map_or(0, |last| now.since(last));
        self.credit_ps = self.credit_ps.saturating_add(elapsed.saturating_mul(1000)).min(self.credit_max_ps);
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
    }

    fn admit(&mut self, now: Tick, want: usize) -> usize {
        if self.cost_ps == 0 {
            return want;
        }
        self.refill(now);
        let admitted = (want as u64).min(self.credit_ps / self.cost_ps);
        self.credit_ps -= admitted * self.cost_ps;
        admitted as usize
    }

    fn shorten(&mut self, lengths: impl IntoIterator<Item = usize>) {
        if self.short_cost_ps >= self.cost_ps {
            return;
        }
        let short = lengths.into_iter().filter(|length| *length <= self.short_bytes_max).count() as u64;
        let saved = short.saturating_mul(self.cost_ps - self.short_cost_ps);
        self.credit_ps = self.credit_ps.saturating_add(saved).min(self.credit_max_ps);
    }
}
