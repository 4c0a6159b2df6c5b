//! Colours: RFC 2697 and RFC 2698, colour-blind, for packets or bytes, drawn on by several workers.
//!
//! A worker holds some tokens of each bucket in a [`Purse`] and goes to the bucket, which all share, only
//! when they are used up. What purses hold has left the buckets, so no rate is ever exceeded; over any time
//! the workers together are late by no more than what is in their purses.

use super::bucket::{Bucket, Excess, Nanos};

/// What a meter says of a packet; a later one is worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Colour {
    /// Within the committed rate.
    #[default]
    Green,
    /// Within the excess burst, or the peak rate.
    Yellow,
    /// Beyond all of it.
    Red,
}

impl Colour {
    /// All colours, in declaration order.
    pub const ALL: [Colour; 3] = [Colour::Green, Colour::Yellow, Colour::Red];

    /// The name used in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Colour::Green => "green",
            Colour::Yellow => "yellow",
            Colour::Red => "red",
        }
    }
}

/// A rate, and how much of it may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: u64,
    /// Tokens at once.
    pub burst: u64,
}

/// What makes packets yellow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beyond {
    /// Nothing: what is not green is red.
    Red,
    /// RFC 2697: what the committed rate left unused, up to so many tokens.
    Excess(u64),
    /// RFC 2698: a higher rate.
    Peak(Rate),
}

/// A meter for one kind of token.
#[derive(Debug)]
pub struct Marker {
    committed: Bucket,
    second: Second,
    /// Tokens that a worker takes at a time.
    lease: u64,
}

#[derive(Debug)]
enum Second {
    None,
    Excess(Excess),
    Peak(Bucket),
}

/// What one worker holds of a [`Marker`]'s tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Purse {
    committed: u32,
    second: u32,
}

/// The purses of all workers together hold at most this fraction of a bucket.
const LEASED: u64 = 16;

impl Marker {
    /// A meter with full buckets, shared by so many workers, which take at most `lease` tokens at a time.
    #[must_use]
    pub fn new(committed: Rate, beyond: Beyond, workers: usize, lease: u32) -> Marker {
        let bucket = |rate: Rate| Bucket::new(rate.per_second, rate.burst);
        let (second, least) = match beyond {
            Beyond::Red => (Second::None, committed.burst),
            Beyond::Excess(depth) => (Second::Excess(Excess::new(depth)), committed.burst.min(depth)),
            Beyond::Peak(rate) => (Second::Peak(bucket(rate)), committed.burst.min(rate.burst)),
        };
        let lease = (least / LEASED / workers.max(1) as u64).min(lease.into());
        Marker { committed: bucket(committed), second, lease }
    }

    /// Its bucket, if it has but one: what is not green is red.
    #[must_use]
    pub fn only_bucket(&self) -> Option<&Bucket> {
        matches!(self.second, Second::None).then_some(&self.committed)
    }

    /// The colour of a packet that costs so many tokens, which are taken.
    #[inline]
    pub fn colour(&self, now: Nanos, purse: &mut Purse, cost: u32) -> Colour {
        match &self.second {
            Second::None => match self.has_committed(now, purse, cost) {
                true => spend(&mut purse.committed, cost, Colour::Green),
                false => Colour::Red,
            },
            Second::Excess(excess) => {
                if self.has_committed(now, purse, cost) {
                    return spend(&mut purse.committed, cost, Colour::Green);
                }
                let draw = |least, most| excess.draw(least, most);
                match fill(&mut purse.second, cost, self.lease, draw) {
                    true => spend(&mut purse.second, cost, Colour::Yellow),
                    false => Colour::Red,
                }
            }
            Second::Peak(peak) => {
                let draw = |least, most| peak.draw(now, least, most).tokens;
                if !fill(&mut purse.second, cost, self.lease, draw) {
                    return Colour::Red;
                }
                let colour = match self.has_committed(now, purse, cost) {
                    true => spend(&mut purse.committed, cost, Colour::Green),
                    false => Colour::Yellow,
                };
                spend(&mut purse.second, cost, colour)
            }
        }
    }

    /// What the buckets have for a packet that costs so many tokens; nothing is taken.
    #[must_use]
    pub fn foretell(&self, now: Nanos, cost: u32) -> Colour {
        let cost = u64::from(cost);
        let committed = self.committed.level(now) >= cost;
        match &self.second {
            _ if committed && !matches!(self.second, Second::Peak(_)) => Colour::Green,
            Second::Peak(peak) if peak.level(now) < cost => Colour::Red,
            Second::Peak(_) if committed => Colour::Green,
            Second::Peak(_) => Colour::Yellow,
            Second::Excess(excess) if excess.level() >= cost => Colour::Yellow,
            Second::Excess(_) | Second::None => Colour::Red,
        }
    }

    /// Takes back what [`Marker::colour`] took, of a packet that goes nowhere after all.
    pub fn refund(&self, purse: &mut Purse, cost: u32, colour: Colour) {
        let (committed, second) = match (&self.second, colour) {
            (_, Colour::Red) => (0, 0),
            (Second::Peak(_), Colour::Green) => (cost, cost),
            (_, Colour::Green) => (cost, 0),
            (_, Colour::Yellow) => (0, cost),
        };
        purse.committed = purse.committed.saturating_add(committed);
        purse.second = purse.second.saturating_add(second);
    }

    #[inline]
    fn has_committed(&self, now: Nanos, purse: &mut Purse, cost: u32) -> bool {
        fill(&mut purse.committed, cost, self.lease, |least, most| {
            let drawn = self.committed.draw(now, least, most);
            if let Second::Excess(excess) = &self.second {
                if drawn.overflow > 0 {
                    excess.pour(drawn.overflow);
                }
            }
            drawn.tokens
        })
    }
}

/// Makes sure that a purse holds so many tokens, if it can.
#[inline]
fn fill(purse: &mut u32, cost: u32, lease: u64, draw: impl FnOnce(u64, u64) -> u64) -> bool {
    let Some(missing) = cost.checked_sub(*purse).filter(|missing| *missing > 0) else { return true };
    let least = u64::from(missing);
    let tokens = draw(least, least.max(lease));
    // At most a lease or a packet more than nothing, both of which fit.
    *purse = purse.saturating_add(u32::try_from(tokens).unwrap_or(u32::MAX));
    tokens > 0
}

#[inline]
fn spend(purse: &mut u32, cost: u32, colour: Colour) -> Colour {
    *purse -= cost.min(*purse);
    colour
}
