//! Token buckets: RFC 2697, RFC 2698, RFC 4115, in whole numbers.
//!
//! Tokens are whole, and at a rate of `r` a second the k-th arrives `k / r` seconds after the start (or after
//! the last change of the rates), as the RFCs have it. Nothing is rounded: what is left of a token when a
//! bucket is filled is carried along as a fraction of 10^9, so over any time the rate is exact, to the token.
//! mlx5 rounds rates to an 8-bit mantissa and an exponent, up to 0.2 % off; this does not.

use crate::model::types::{Colour, Tick};

const NS: u64 = Tick::SECOND;

/// Rates per second and bursts, in bytes, or in packets if `packet_mode`: `rte_mtr_meter_profile`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// How packets are coloured.
    pub algorithm: Algorithm,
    /// A packet costs one token instead of its length.
    pub packet_mode: bool,
}

/// The three meters of `rte_mtr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// Single rate, three colours: what does not fit the committed bucket flows into the excess bucket.
    Rfc2697 {
        /// Committed information rate.
        cir: u64,
        /// Committed burst size.
        cbs: u64,
        /// Excess burst size.
        ebs: u64,
    },
    /// Two rates, three colours: a packet must fit the peak bucket, and to be green the committed one, too.
    Rfc2698 {
        /// Committed information rate.
        cir: u64,
        /// Peak information rate.
        pir: u64,
        /// Committed burst size.
        cbs: u64,
        /// Peak burst size.
        pbs: u64,
    },
    /// Two rates, three colours, independent: a packet takes from the committed bucket, else the excess one.
    Rfc4115 {
        /// Committed information rate.
        cir: u64,
        /// Excess information rate.
        eir: u64,
        /// Committed burst size.
        cbs: u64,
        /// Excess burst size.
        ebs: u64,
    },
}

/// One of the two buckets: excess, or peak.
#[derive(Clone, Copy, Debug)]
struct Side {
    tokens: u64,
    rate: u64,
    burst: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    SingleRate,
    Peak,
    Excess,
}

/// The state of one meter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buckets {
    /// Up to when tokens have been added.
    filled: u64,
    committed: Side,
    other: Side,
    /// What the rates have earned towards the next token, in 10^-9 tokens.
    committed_part: u32,
    other_part: u32,
    kind: Kind,
    packet_mode: bool,
}

impl Buckets {
    /// Full.
    pub(super) fn new(now: Tick, profile: &Profile) -> Buckets {
        let (kind, committed, other) = match profile.algorithm {
            Algorithm::Rfc2697 { cir, cbs, ebs } => (Kind::SingleRate, (cir, cbs), (0, ebs)),
            Algorithm::Rfc2698 { cir, pir, cbs, pbs } => (Kind::Peak, (cir, cbs), (pir, pbs)),
            Algorithm::Rfc4115 { cir, eir, cbs, ebs } => (Kind::Excess, (cir, cbs), (eir, ebs)),
        };
        let side = |(rate, burst)| Side { tokens: burst, rate, burst };
        Buckets {
            filled: now.0,
            committed: side(committed),
            other: side(other),
            committed_part: 0,
            other_part: 0,
            kind,
            packet_mode: profile.packet_mode,
        }
    }

    /// Other rates from now on, and full. mlx5 leaves the tokens out of its request, whose mask covers
    /// them, and says that hardware fills them in (mlx5_flow_aso.c, `mlx5_aso_mtr_sq_enqueue_single`): it
    /// has not been tried what that means, and this is the worst for whoever relies on the rate.
    pub(super) fn change(&mut self, now: Tick, profile: &Profile) {
        *self = Buckets::new(now.max(Tick(self.filled)), profile);
    }

    /// The colour of a packet that came with the colour `arrived` (green, if the meter is colour-blind), and
    /// its tokens taken.
    #[inline]
    pub(super) fn colour(&mut self, now: Tick, bytes: u32, arrived: Colour) -> Colour {
        self.fill(now);
        let cost = if self.packet_mode { 1 } else { u64::from(bytes) };
        let committed = arrived == Colour::Green && self.committed.tokens >= cost;
        let other = arrived != Colour::Red && self.other.tokens >= cost;
        match (self.kind, committed, other) {
            (Kind::Peak, true, true) => {
                self.committed.tokens -= cost;
                self.other.tokens -= cost;
                Colour::Green
            }
            (Kind::SingleRate | Kind::Excess, true, _) => {
                self.committed.tokens -= cost;
                Colour::Green
            }
            (_, _, true) => {
                self.other.tokens -= cost;
                Colour::Yellow
            }
            (_, _, false) => Colour::Red,
        }
    }

    #[inline]
    fn fill(&mut self, now: Tick) {
        let elapsed = now.0.saturating_sub(self.filled);
        if elapsed == 0 {
            return;
        }
        self.filled = now.0;
        let tokens = earned(elapsed, self.committed.rate, &mut self.committed_part);
        let overflow = self.committed.add(tokens);
        let tokens = match self.kind {
            Kind::SingleRate => overflow,
            Kind::Peak | Kind::Excess => earned(elapsed, self.other.rate, &mut self.other_part),
        };
        self.other.add(tokens);
    }
}

impl Side {
    /// What does not fit.
    #[inline]
    fn add(&mut self, tokens: u64) -> u64 {
        let fits = tokens.min(self.burst - self.tokens);
        self.tokens += fits;
        tokens - fits
    }
}

/// Whole tokens that `rate` a second earns in `elapsed` ns, with what was left, and what is left.
#[inline]
fn earned(elapsed: u64, rate: u64, part: &mut u32) -> u64 {
    let product = elapsed.checked_mul(rate).and_then(|product| product.checked_add(u64::from(*part)));
    match product {
        Some(product) => {
            *part = (product % NS) as u32;
            product / NS
        }
        None => earned_long(elapsed, rate, part),
    }
}

/// After a long pause the product needs more than 64 bits.
#[cold]
fn earned_long(elapsed: u64, rate: u64, part: &mut u32) -> u64 {
    let product = u128::from(elapsed) * u128::from(rate) + u128::from(*part);
    *part = (product % u128::from(NS)) as u32;
    u64::try_from(product / u128::from(NS)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
