//! What is shown to people.

use super::pair::Phase;
use super::{MS, Machine};
use dataplane::offload::{Ask, Leg, RuleId};

/// Slots looked at in one call, most of which may be free: some hundred microseconds.
const SLOTS_PER_CALL: u32 = 32_768;

/// One rule of a connection, for people.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LegRow {
    /// Its way.
    pub leg: Leg,
    /// Where it is: `wanted`, `installing`, `installed`, `leaving`, `removing`, `out`, `none`.
    pub state: &'static str,
    /// Packets it has forwarded.
    pub packets: u64,
    /// Bytes of IP packet it has forwarded.
    pub bytes: u64,
}

/// The rules of one connection, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleRow {
    /// Their number.
    pub rule: RuleId,
    /// The request they came from, with all that [`crate::lower::leg`] needs to print them.
    pub ask: Ask,
    /// Where they are: `opening`, `installed`, `closing`, `settling`.
    pub state: &'static str,
    /// The meter that they name.
    pub meter: Option<u32>,
    /// By direction.
    pub legs: [Option<LegRow>; 2],
    /// How long they have been in force, milliseconds; 0 if they are not.
    pub installed_ms: u64,
    /// Since when neither was seen to be used, milliseconds.
    pub idle_ms: u64,
    /// Packets per second of both directions, lately.
    pub rate: f32,
}

impl Machine {
    /// Connections with rules from number `from` on, `max` at most and as many as a short look finds, and
    /// where to go on if there may be more.
    #[must_use]
    pub fn rows(&self, from: u32, max: usize) -> (Vec<RuleRow>, Option<u32>) {
        let mut rows = Vec::new();
        let end = from.saturating_add(SLOTS_PER_CALL).min(self.slab.slots());
        for index in from..end {
            if rows.len() == max {
                return (rows, Some(index));
            }
            rows.extend(self.row(index));
        }
        (rows, (end < self.slab.slots()).then_some(end))
    }

    fn row(&self, index: u32) -> Option<RuleRow> {
        let pair = self.slab.get(index)?;
        let now_ns = self.clock.now_ns;
        let leg_row = |way: usize| {
            let (leg, state) = (pair.ask.legs[way]?, pair.legs[way].name());
            Some(LegRow { leg, state, packets: pair.seen[way].packets, bytes: pair.seen[way].bytes })
        };
        let installed_ms = match pair.phase {
            Phase::Installed { since_ns, .. } => (now_ns - since_ns) / MS,
            _ => 0,
        };
        Some(RuleRow {
            rule: RuleId(index),
            ask: pair.ask,
            state: pair.phase.name(),
            meter: pair.meter,
            legs: [leg_row(0), leg_row(1)],
            installed_ms,
            idle_ms: now_ns.saturating_sub(pair.used_ns) / MS,
            rate: pair.rate,
        })
    }
}
