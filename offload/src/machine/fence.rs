//! A fence before the rules of connections that the policy denies, where taking them out takes too long.
//!
//! ```text
//! low ── denied rules will not be out in time ──▶ told ──▶ raised ── all of them are out ──▶ low
//!                                                  │        the base rules that lead to     those are
//!                                                  │        their groups are taken out:     put in again
//!                       workers hear of it first ◀─┘        packets go to software
//! ```
//!
//! Rules are taken out one by one. Hardware steering does some millions a second; software steering, at some
//! hundred microseconds each, needs half a minute for a hundred thousand connections. All that while packets
//! would be forwarded that the policy denies. The few rules of group 0 that lead to a group of connections
//! are out in a millisecond or two, whichever the steering is, and what misses goes to software, which judges
//! every packet. Why these, and not a rule of higher priority that catches what is denied:
//!
//! * What is denied can be thousands of prefixes and ranges, of which hardware cannot match the latter.
//! * Under hardware steering each further mask or priority is a table that all packets visit, empty or not,
//!   and its first rule has to wait for it to be made. Nothing is made here, and nothing stays.
//! * A duplicate of a base rule would win under hardware steering and lose under software steering.
//!
//! The price: all connections of the group are software's meanwhile, those included that may stay. So there
//! is no fence as long as it can do without, and none before groups without denied connections; and it is
//! low again as soon as what is denied is out. Rules stay in force behind it: none is taken for idle, and
//! workers do not wonder that packets come to them.
//!
//! Rules of hairpins are in their port's first group, to which nothing leads, and connections that come out
//! of tunnels are led to by way of UDP's group: no fence is raised against either.

use super::{MS, Machine};
use crate::engine::FlowEngine;
use crate::lower::{self, SOFTWARE};
use dataplane::offload::{Ask, Declined};

/// Groups of connections are below this; 0 stands for rules that no fence helps against.
pub(super) const GROUPS: usize = SOFTWARE as usize;
/// Fewer connections than this are out before a fence would be.
const PAIRS_MIN: u64 = 64;
/// How long removals are watched before it is judged how long they will take,
const LOOK_NS: u64 = 5 * MS;
/// and how long that may be without a fence.
const REMOVAL_MAX_NS: u64 = 50 * MS;
/// How long packets that a fence has kept from rules may wait in a worker's queue once it is low.
const ECHO_NS: u64 = 2_000 * MS;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Fence {
    /// Connections that the policy denies and that are not out, by group,
    denied: [u32; GROUPS],
    /// since when there are any,
    since_ns: u64,
    /// and those that are out since then.
    out: u64,
    /// Workers know that there may be one.
    told: bool,
    /// What the engine was last told, a bit for each group.
    groups: u8,
    /// Groups to which no packet comes, since when.
    up_ns: [Option<u64>; GROUPS],
    /// Since when the engine is at work on it.
    moving_ns: Option<u64>,
    /// When it was last not low; `None`: it always was.
    last_ns: Option<u64>,
}

impl Fence {
    pub(super) fn new(now_ns: u64) -> Fence {
        Fence {
            denied: [0; GROUPS],
            since_ns: now_ns,
            out: 0,
            told: false,
            groups: 0,
            up_ns: [None; GROUPS],
            moving_ns: None,
            last_ns: None,
        }
    }

    fn left(&self) -> u64 {
        self.denied.iter().map(|denied| u64::from(*denied)).sum()
    }

    /// A connection is denied.
    pub(super) fn note_denied(&mut self, now_ns: u64, group: usize) {
        if self.left() == 0 {
            (self.since_ns, self.out) = (now_ns, 0);
        }
        self.denied[group] += 1;
    }

    /// One that was denied is out; the moment from which on no packet of it was forwarded.
    pub(super) fn note_out(&mut self, now_ns: u64, group: usize) -> u64 {
        self.denied[group] -= 1;
        self.out += 1;
        self.up_ns[group].unwrap_or(now_ns)
    }

    /// Groups with denied connections, a bit each; but not those that no fence helps against.
    fn wanted(&self) -> u8 {
        (1..GROUPS).filter(|group| self.denied[*group] > 0).fold(0, |bits, group| bits | 1 << group)
    }

    fn is_low(&self) -> bool {
        self.groups == 0 && self.moving_ns.is_none()
    }

    /// When rules were last kept from their packets, if they ever were.
    pub(super) fn last_ns(&self) -> Option<u64> {
        self.last_ns
    }

    /// The engine was emptied, and its fence with it.
    pub(super) fn fall(&mut self) {
        (self.told, self.groups, self.moving_ns, self.up_ns) = (false, 0, None, [None; GROUPS]);
    }
}

/// The group that the rules of a connection are in; 0 if a fence before it would not do.
pub(super) fn group_of(topology: &lower::Topology, ask: &Ask) -> usize {
    if lower::is_led_to(topology, ask) { lower::group_of(&ask.key) as usize } else { 0 }
}

impl Machine {
    /// Raises or lowers the fence. `false`: the next step raises it, once workers have been told; so nothing
    /// that takes long is to be done in this one.
    pub(super) fn fence_some<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) -> bool {
        if self.fence.is_low() {
            let needed = self.needs_fence(now_ns);
            let told = std::mem::replace(&mut self.fence.told, needed);
            if !told || !self.fence.told {
                return !self.fence.told;
            }
        }
        self.move_fence(now_ns, engine);
        true
    }

    fn move_fence<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        // Until all have been looked at there may be more of a group.
        let keep = if self.sweep.is_some() { self.fence.groups } else { 0 };
        let groups = self.fence.wanted() | keep;
        if groups != self.fence.groups {
            if !engine.fence(groups) {
                return;
            }
            if self.fence.groups == 0 {
                self.counters.fences.add(1);
            }
            self.fence.groups = groups;
            self.fence.moving_ns = Some(now_ns);
        }
        let up = engine.fenced();
        for (group, since_ns) in self.fence.up_ns.iter_mut().enumerate() {
            let is_up = up & 1 << group != 0;
            *since_ns = is_up.then(|| since_ns.unwrap_or(now_ns));
        }
        self.fence.last_ns = Some(now_ns);
        match self.fence.moving_ns {
            Some(_) if engine.is_ready() => self.fence.moving_ns = None,
            // What became of one of the rules is lost.
            Some(since_ns) if now_ns - since_ns > u64::from(self.settings.operation_timeout_ms) * MS => {
                self.begin_recovery(Declined::Timeout);
            }
            _ => {}
        }
    }

    /// Whether denied connections will be in hardware for too long, as removals are going. What the sweep
    /// has not seen is taken to be like what it has.
    fn needs_fence(&self, now_ns: u64) -> bool {
        let left = self.fence.left();
        let elapsed_ns = now_ns.saturating_sub(self.fence.since_ns);
        if left < PAIRS_MIN || elapsed_ns < LOOK_NS || self.fence.wanted() == 0 {
            return false;
        }
        let slots = u64::from(self.slab.slots());
        let seen = slots - self.sweep.as_ref().map_or(0, |sweep| u64::from(sweep.left));
        let all = u128::from(left + self.fence.out) * u128::from(slots) / u128::from(seen.max(1));
        u128::from(elapsed_ns) * all > u128::from(REMOVAL_MAX_NS) * u128::from(self.fence.out.max(1))
    }

    /// Whether packets may be kept from rules that are in force, by a fence.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fence.told || !self.fence.is_low()
    }

    /// Whether workers may meet packets that a fence keeps from rules in force, or has kept a moment ago:
    /// that these come to software is no fault. It says so one step before a fence is raised.
    #[must_use]
    pub fn diverts(&self) -> bool {
        let echo = |last_ns| self.step_ns.saturating_sub(last_ns) < ECHO_NS;
        self.is_fenced() || self.fence.last_ns.is_some_and(echo)
    }
}
