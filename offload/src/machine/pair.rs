//! The rules of one connection, and the slab that holds them all.
//!
//! ```text
//!            admitted            all legs in           wanted out            all legs out
//!   Free ───────────▶ Opening ───────────▶ Installed ───────────▶ Closing ───────────▶ Settling ──▶ Free
//!                        └── a leg failed, or wanted out ──────────▶ │       answered, counters at rest
//! ```
//!
//! The worker is told `Installed` once; from then on the pair ends with `Removed`, before that with
//! `Declined`.

use dataplane::conntrack::Count;
use dataplane::flow::{Direction, FlowKey};
use dataplane::offload::{Ask, Declined, Leg, Removal};
use std::collections::VecDeque;

pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Original, Direction::Reply];

/// Where one rule of a pair is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LegState {
    /// This direction has none.
    Absent,
    /// To be given to the engine.
    Wanted,
    /// The engine has been told to put it in force, then.
    Installing { since_ns: u64 },
    /// In force.
    In,
    /// In force, to be taken out.
    Leaving,
    /// The engine has been told to take it out, then.
    Removing { since_ns: u64 },
    /// Out; its counter is held.
    Out,
    /// It failed, or the engine was emptied: nothing of it is left.
    Nothing,
}

impl LegState {
    pub(super) fn name(self) -> &'static str {
        match self {
            LegState::Absent => "software",
            LegState::Wanted => "wanted",
            LegState::Installing { .. } => "installing",
            LegState::In => "installed",
            LegState::Leaving => "leaving",
            LegState::Removing { .. } => "removing",
            LegState::Out => "out",
            LegState::Nothing => "none",
        }
    }

    /// Whether it counts against the rules there may be.
    pub(super) fn holds_rule(self) -> bool {
        match self {
            LegState::Absent | LegState::Out | LegState::Nothing => false,
            LegState::Wanted
            | LegState::Installing { .. }
            | LegState::In
            | LegState::Leaving
            | LegState::Removing { .. } => true,
        }
    }

    /// Whether packets hit it for certain until it is told to go.
    pub(super) fn in_force(self) -> bool {
        matches!(self, LegState::In | LegState::Leaving | LegState::Removing { .. })
    }

    /// Whether the engine answers for its counter.
    pub(super) fn has_counter(self) -> bool {
        self.in_force() || self == LegState::Out
    }

    pub(super) fn begun_ns(self) -> Option<u64> {
        match self {
            LegState::Installing { since_ns } | LegState::Removing { since_ns } => Some(since_ns),
            _ => None,
        }
    }
}

/// How a pair ends, as the worker will be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It knew of the rules.
    Removed { why: Removal, retry_ms: u32 },
    /// It did not.
    Declined { reason: Declined, retry_ms: u32 },
}

/// See the module's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Free,
    Opening,
    Installed { since_ns: u64, told: bool },
    Closing { ending: Ending, since_ns: u64 },
    Settling { ending: Ending, until_ns: u64, told: bool },
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Free => "free",
            Phase::Opening => "opening",
            Phase::Installed { .. } => "installed",
            Phase::Closing { .. } => "closing",
            Phase::Settling { .. } => "settling",
        }
    }
}

/// The rules of one connection.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) phase: Phase,
    pub(super) legs: [LegState; 2],
    /// What the engine's counters said last, whole frames.
    pub(super) seen: [Count; 2],
    /// What the worker has not been told yet, bytes of IP packet.
    pub(super) unreported: [Count; 2],
    /// Packets per second of both legs, lately.
    pub(super) rate: f32,
    /// When `seen` was read.
    pub(super) read_ns: u64,
    /// When it was last seen to grow.
    pub(super) used_ns: u64,
    /// Whether it is in the queue of those whose rules wait to be taken out,
    pub(super) queued: bool,
    /// or of those whose worker is owed an answer.
    pub(super) owing: bool,
    /// Whether the last configuration does not allow it.
    pub(super) enforced: bool,
    /// Whether that is because of its policy.
    pub(super) denied: bool,
    /// Readings in a row to which the device answered that it has lost the rule.
    pub(super) lost: u8,
    /// The meter that its rules name, and what their counters said last of whole frames' bytes.
    pub(super) meter: Option<u32>,
    pub(super) frame_bytes: [u64; 2],
    pub(super) ask: Ask,
}

impl Pair {
    fn free(ask: Ask) -> Pair {
        Pair {
            phase: Phase::Free,
            legs: [LegState::Absent; 2],
            seen: [Count::default(); 2],
            unreported: [Count::default(); 2],
            rate: 0.0,
            read_ns: 0,
            used_ns: 0,
            queued: false,
            owing: false,
            enforced: false,
            denied: false,
            lost: 0,
            meter: None,
            frame_bytes: [0; 2],
            ask,
        }
    }

    /// The pair of a request that has been admitted.
    pub(super) fn open(&mut self, now_ns: u64, ask: &Ask) {
        *self = Pair {
            phase: Phase::Opening,
            legs: ask.legs.map(|leg| leg.map_or(LegState::Absent, |_| LegState::Wanted)),
            read_ns: now_ns,
            used_ns: now_ns,
            ..Pair::free(*ask)
        };
    }

    pub(super) fn close(&mut self) {
        self.phase = Phase::Free;
    }

    pub(super) fn is_free(&self) -> bool {
        self.phase == Phase::Free
    }

    /// Whether every leg has come to an end.
    pub(super) fn is_out(&self) -> bool {
        !self.legs.iter().any(|leg| leg.holds_rule())
    }

    pub(super) fn rules(&self) -> u32 {
        self.legs.iter().filter(|leg| leg.holds_rule()).count() as u32
    }

    /// How old the connection is, milliseconds.
    pub(super) fn age_ms(&self, now_ns: u64) -> u64 {
        let in_hardware_ms = match self.phase {
            Phase::Installed { since_ns, .. } => now_ns.saturating_sub(since_ns) / 1_000_000,
            _ => 0,
        };
        u64::from(self.ask.age_ms) + in_hardware_ms
    }
}

/// Rules that a request needs.
pub(super) fn rules_of(ask: &Ask) -> u32 {
    ask.legs.iter().flatten().count() as u32
}

/// What the packets look like that its rules match.
pub(super) fn patterns(ask: &Ask) -> impl Iterator<Item = FlowKey> {
    let there = |direction: &Direction| ask.legs[*direction as usize].is_some();
    DIRECTIONS.into_iter().filter(there).map(|direction| ask.incoming(direction))
}

/// All pairs, by [`dataplane::offload::RuleId`]. A slot that was given up is taken last, so what is late for
/// it has time to arrive.
#[derive(Debug)]
pub(super) struct Slab {
    pairs: Box<[Pair]>,
    free: VecDeque<u32>,
}

impl Slab {
    pub(super) fn new(slots: u32) -> Slab {
        let nobody = nobody();
        Slab { pairs: vec![Pair::free(nobody); slots as usize].into(), free: (0..slots).collect() }
    }

    pub(super) fn slots(&self) -> u32 {
        self.pairs.len() as u32
    }

    pub(super) fn get(&self, index: u32) -> Option<&Pair> {
        self.pairs.get(index as usize).filter(|pair| !pair.is_free())
    }

    /// The pair in a slot, `None` if it is free or there is no such slot.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Pair> {
        self.pairs.get_mut(index as usize).filter(|pair| !pair.is_free())
    }

    pub(super) fn take(&mut self, now_ns: u64, ask: &Ask) -> Option<u32> {
        let index = self.free.pop_front()?;
        self.pairs[index as usize].open(now_ns, ask);
        Some(index)
    }

    pub(super) fn release(&mut self, index: u32) {
        if let Some(pair) = self.get_mut(index) {
            pair.close();
            self.free.push_back(index);
        }
    }

    pub(super) fn live(&self) -> u32 {
        (self.pairs.len() - self.free.len()) as u32
    }
}

/// What a slot holds that was never taken.
fn nobody() -> Ask {
    use dataplane::addr::Ip;
    use dataplane::flow::Protocol;
    use dataplane::ids::{BackendId, ServiceId, TenantId, WorkerId};
    use dataplane::offload::{FlowRef, Token};
    const LEG: Option<Leg> = None;
    let ip = Ip::v4(0);
    let (tenant, protocol) = (TenantId(0), Protocol::Tcp);
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: 0, generation: 0 },
        token: Token(0),
        key: FlowKey { src: ip, dst: ip, src_port: 0, dst_port: 0, tenant, protocol },
        backend_end: (ip, 0),
        nat: false,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [LEG; 2],
        packets: 0,
        age_ms: 0,
    }
}
