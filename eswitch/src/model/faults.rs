//! Faults on request: refuse, fail, delay, reorder, lose, age early, miss, fill up, stop, forget, hang.
//!
//! Written and read as a list: `refuse=0.01,fail=0.1,delay_us=500,seed=7`. Nothing is on by default, and
//! what is off changes nothing, not even what the others draw.

#[cfg(test)]
mod tests;

use std::fmt;

use super::timing::Rng;

/// How often something happens: parts in a million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Chance = Chance(0);
    /// Every time.
    pub const ALWAYS: Chance = Chance(1_000_000);

    /// So many times in a million; more than a million is always.
    #[must_use]
    pub const fn per_million(parts: u32) -> Chance {
        if parts > 1_000_000 { Chance::ALWAYS } else { Chance(parts) }
    }

    /// In a million.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// A decimal fraction from 0 to 1, of at most six digits.
    fn parse(text: &str) -> Option<Chance> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 6 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let parts: u32 = format!("{fraction:0<6}").parse().ok()?;
        let parts = whole.checked_mul(1_000_000)?.checked_add(parts)?;
        (parts <= 1_000_000).then_some(Chance(parts))
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The faults in force, and the dice they are thrown with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Turn a creation down at once (ENOMEM).
    pub refuse: Chance,
    /// Let an asynchronous creation's completion be an error.
    pub fail: Chance,
    /// Carry out everything so much later, in microseconds.
    pub delay_us: u64,
    /// Let a completion change places with an earlier one that has not been reported yet.
    pub reorder: Chance,
    /// Let a completion never come.
    pub lose_completions: Chance,
    /// Let a counter's refresh be skipped.
    pub lose_counters: Chance,
    /// Let a rule be reported as aged although it is in use, each time it is looked at.
    pub age_early: Chance,
    /// Let a packet from a wire pass all rules by, and miss.
    pub miss: Chance,
    /// Be full at so many rules.
    pub full_at: Option<u64>,
    /// Have no more than so many counters.
    pub counters_at: Option<u32>,
    /// Have no more than so many age contexts.
    pub ages_at: Option<u32>,
    /// Have no more than so many meters.
    pub meters_at: Option<u32>,
    /// Stop this vport, once.
    pub stop_port: Option<u16>,
    /// Forget all rules, counters and ages, once.
    pub reset: bool,
    /// Answer no flow operation for so long, once, in milliseconds.
    pub hang_ms: u64,
    /// What the dice begin with.
    pub seed: u64,
    rng: Rng,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            refuse: Chance::NEVER,
            fail: Chance::NEVER,
            delay_us: 0,
            reorder: Chance::NEVER,
            lose_completions: Chance::NEVER,
            lose_counters: Chance::NEVER,
            age_early: Chance::NEVER,
            miss: Chance::NEVER,
            full_at: None,
            counters_at: None,
            ages_at: None,
            meters_at: None,
            stop_port: None,
            reset: false,
            hang_ms: 0,
            seed: 0,
            rng: Rng::new(0),
        }
    }
}

/// The longest delay, in microseconds: a minute.
const DELAY_MAX_US: u64 = 60_000_000;

/// The longest silence, in milliseconds: a minute.
const HANG_MAX_MS: u64 = 60_000;

/// What is wrong with a list of faults.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{part:?}: {message}")]
pub struct FaultsError {
    /// The part that is wrong.
    pub part: String,
    /// What is expected.
    pub message: &'static str,
}

impl Faults {
    /// Reads a list; an empty one is no faults.
    ///
    /// # Errors
    /// The first part that is not understood: an unknown name, a value out of range, a name given twice.
    pub fn parse(text: &str) -> Result<Faults, FaultsError> {
        let mut faults = Faults::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let fault = |message| FaultsError { part: part.to_owned(), message };
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (part, None),
            };
            if seen.contains(&name) {
                return Err(fault("given twice"));
            }
            seen.push(name);
            match (name, value) {
                ("reset", None) => faults.reset = true,
                ("reset", Some(_)) => return Err(fault("reset has no value")),
                (_, None) => return Err(fault("expected name=value")),
                (_, Some(value)) => faults.set(name, value).map_err(fault)?,
            }
        }
        faults.rng = Rng::new(faults.seed);
        Ok(faults)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let chance = || Chance::parse(value).ok_or("expected a fraction from 0 to 1, of at most six digits");
        let number = || value.parse::<u64>().map_err(|_| "expected a whole number");
        let objects = || value.parse::<u32>().map_err(|_| "expected a whole number below 2^32");
        match name {
            "refuse" => self.refuse = chance()?,
            "fail" => self.fail = chance()?,
            "reorder" => self.reorder = chance()?,
            "lose_completions" => self.lose_completions = chance()?,
            "lose_counters" => self.lose_counters = chance()?,
            "age_early" => self.age_early = chance()?,
            "miss" => self.miss = chance()?,
            "delay_us" => self.delay_us = number()?,
            "hang_ms" => self.hang_ms = number()?,
            "full_at" => self.full_at = Some(number()?),
            "counters_at" => self.counters_at = Some(objects()?),
            "ages_at" => self.ages_at = Some(objects()?),
            "meters_at" => self.meters_at = Some(objects()?),
            "stop_port" => self.stop_port = Some(value.parse().map_err(|_| "expected a vport's number")?),
            "seed" => self.seed = number()?,
            _ => return Err(UNKNOWN),
        }
        if self.delay_us > DELAY_MAX_US {
            return Err("at most 60000000, a minute");
        }
        if self.hang_ms > HANG_MAX_MS { Err("at most 60000, a minute") } else { Ok(()) }
    }

    /// No faults any more.
    pub fn clear(&mut self) {
        *self = Faults::default();
    }

    /// Whether any is on.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        let idle = Faults { seed: self.seed, rng: self.rng.clone(), ..Faults::default() };
        *self == idle
    }

    /// Whether to turn this creation down.
    pub fn refuses(&mut self) -> bool {
        self.rng.per_million(self.refuse.0)
    }

    /// Whether to let this creation fail late.
    pub fn fails(&mut self) -> bool {
        self.rng.per_million(self.fail.0)
    }

    /// Whether to let this completion overtake.
    pub fn reorders(&mut self) -> bool {
        self.rng.per_million(self.reorder.0)
    }

    /// Whether to lose this completion.
    pub fn loses_completion(&mut self) -> bool {
        self.rng.per_million(self.lose_completions.0)
    }

    /// Whether to skip this refresh of a counter.
    pub fn loses_counter(&mut self) -> bool {
        self.rng.per_million(self.lose_counters.0)
    }

    /// Whether to report this rule as aged now.
    pub fn ages_early(&mut self) -> bool {
        self.rng.per_million(self.age_early.0)
    }

    /// Whether to let this packet miss.
    #[inline]
    pub fn misses(&mut self) -> bool {
        self.rng.per_million(self.miss.0)
    }

    /// How much later everything is, in nanoseconds.
    #[must_use]
    pub fn delay_ns(&self) -> u64 {
        self.delay_us.saturating_mul(1000)
    }

    /// The vport to stop, once: the next call says `None`.
    pub fn take_stop_port(&mut self) -> Option<u16> {
        self.stop_port.take()
    }

    /// Whether to forget everything, once: the next call says no.
    pub fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    /// How long to answer nothing, once, in nanoseconds: the next call says 0.
    pub fn take_hang_ns(&mut self) -> u64 {
        std::mem::take(&mut self.hang_ms).saturating_mul(1_000_000)
    }

    /// Any number below `bound`, from the same dice.
    pub fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }
}

const UNKNOWN: &str = "unknown; there are refuse, fail, delay_us, reorder, lose_completions, lose_counters, \
                       age_early, miss, full_at, counters_at, ages_at, meters_at, stop_port, reset, \
                       hang_ms, seed";

impl fmt::Display for Faults {
    /// As [`Faults::parse`] reads it; nothing if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chances = [
            ("refuse", self.refuse),
            ("fail", self.fail),
            ("reorder", self.reorder),
            ("lose_completions", self.lose_completions),
            ("lose_counters", self.lose_counters),
            ("age_early", self.age_early),
            ("miss", self.miss),
        ];
        let numbers = [
            ("delay_us", (self.delay_us > 0).then_some(self.delay_us)),
            ("full_at", self.full_at),
            ("counters_at", self.counters_at.map(u64::from)),
            ("ages_at", self.ages_at.map(u64::from)),
            ("meters_at", self.meters_at.map(u64::from)),
            ("stop_port", self.stop_port.map(u64::from)),
            ("hang_ms", (self.hang_ms > 0).then_some(self.hang_ms)),
            ("seed", (self.seed > 0).then_some(self.seed)),
        ];
        let mut separator = "";
        if self.reset {
            f.write_str("reset")?;
            separator = ",";
        }
        for (name, chance) in chances.into_iter().filter(|(_, chance)| *chance != Chance::NEVER) {
            write!(f, "{separator}{name}={chance}")?;
            separator = ",";
        }
        for (name, number) in numbers.into_iter().filter_map(|(name, number)| Some((name, number?))) {
            write!(f, "{separator}{name}={number}")?;
            separator = ",";
        }
        Ok(())
    }
}
