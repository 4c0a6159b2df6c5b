//! The pure machine between workers and an engine: every wish goes in here, and what becomes of it comes
//! out. It has no clock, no thread and no device of its own; all its memory is allocated when it is made.
//!
//! [`Machine::step`] is its walk, on one page. The rooms behind it:
//!
//! * `pair`: the rules of one connection, their states, and the slab that holds them;
//! * `enter`: from a request to rules in force, and who has to make room;
//! * `leave`: how rules are taken out, and what completions mean;
//! * `partitions`: rules of services by source partition, which are the configuration's;
//! * `meters`: rates that hardware and software share;
//! * `fence`: what keeps packets from denied rules that are not out yet;
//! * `hitters`: rules that drop what the policy denies;
//! * `policy`: what a configuration allows, and a new one is enforced;
//! * `rounds`: counters are read, idle rules found, last counts settled;
//! * `answers`: what workers are owed;
//! * `recover`: what is done when it is no longer certain what hardware holds;
//! * `rows`: what is shown to people.
//!
//! Some words: a *pair* is the rules of one connection, a *leg* is one of them, *used* rules are those that
//! are in force or on their way in or out. What workers are owed is not kept as messages but follows from
//! each pair's state, so a full ring costs no memory and loses nothing.

mod answers;
mod enter;
mod fence;
mod hitters;
mod leave;
mod meters;
mod pair;
mod partitions;
mod policy;
mod recover;
mod rounds;
mod rows;
#[cfg(test)]
mod tests;

use crate::admission::{Budget, PERIOD_NS, Period, Policy, Price};
use crate::counters::{EngineState, OffloadCounters};
use crate::engine::{Completion, FlowEngine, LegId, Traits};
use crate::lower::Topology;
use dataplane::flow::FlowKey;
use dataplane::limits::{DENY_RULES_MAX, PARTITION_RULES_MAX, TENANTS_MAX};
use dataplane::offload::{Answer, Ask, Removal, Revocation, Revoke};
use dataplane::snapshot::Snapshot;
use enter::{Failures, Refusals, Waiting};
use fence::Fence;
use hitters::Hitters;
use meters::Meters;
use pair::Slab;
use partitions::Partitions;
use recover::Health;
use rounds::{Round, Sweep};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub use hitters::DenialRow;
pub use partitions::{Absent, PartitionRow, PartitionTally};
pub use rows::{LegRow, RuleRow};

/// Requests that wait or whose refusal could not be delivered yet, at most.
pub const REQUESTS_MAX: usize = 4096;
/// Completions taken from the engine at a time.
const COMPLETIONS: usize = 512;
/// Aged rules heard of at a time.
const AGED: usize = 256;
/// Time between two steps counts for at most so much: if the thread stood still, that is not the engine's
/// fault, nor that of connections which nobody looked at.
const STEP_MAX_NS: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// How the machine is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Rules there may be, one per direction.
    pub rules_max: u32,
    /// Of these, so many may drop what the policy denies, while connections have no use for them.
    pub deny_rules: u32,
    /// Rules put in force per second; 0: as fast as the engine takes them, for at most half of its time.
    pub insertions_per_second: u32,
    /// The price never falls below so many packets.
    pub price_min: u32,
    /// Rules are taken out when neither direction was used for so long.
    pub idle_ms: u32,
    /// Share of the rules that a tenant may have of which the snapshot does not say another.
    pub tenant_share_percent: u8,
    /// Every counter is read once in so long.
    pub poll_ms: u32,
    /// An operation that takes longer is given up, and the engine with it.
    pub operation_timeout_ms: u32,
    /// How requests are judged.
    pub policy: Policy,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rules_max: 65_536,
            deny_rules: 1024,
            insertions_per_second: 0,
            price_min: 8,
            idle_ms: 30_000,
            tenant_share_percent: 100,
            poll_ms: 500,
            operation_timeout_ms: 3_000,
            policy: Policy::Earned,
        }
    }
}

/// Where answers go.
pub trait Outbox {
    /// Hands an answer to the worker that owns the connection.
    ///
    /// # Errors
    /// Its ring is full: the answer comes back, and is offered again later.
    fn answer(&mut self, answer: Answer) -> Result<(), Answer>;
}

/// What a step found to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Whether there is more to do at once: operations are under way or could not begin.
    pub busy: bool,
}

/// Time as the machine counts it.
#[derive(Debug)]
struct Clock {
    last_ns: u64,
    now_ns: u64,
}

impl Clock {
    /// Moves on to `now_ns`, never back, and never by more than [`STEP_MAX_NS`] at once.
    fn at(&mut self, now_ns: u64) -> u64 {
        self.now_ns += now_ns.saturating_sub(self.last_ns).min(STEP_MAX_NS);
        self.last_ns = now_ns;
        self.now_ns
    }
}

/// Two kinds of times that are observed.
#[derive(Clone, Copy, Debug)]
enum Timing {
    Insert,
    Enforce,
}

/// See the module's header.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    traits: Traits,
    topology: Arc<Topology>,
    snapshot: Arc<Snapshot>,
    counters: Arc<OffloadCounters>,
    clock: Clock,
    health: Health,

    slab: Slab,
    /// Pairs that are not out yet, by what their rules match. Two rules with one pattern must not meet in
    /// hardware.
    by_key: HashMap<FlowKey, u32>,
    rules_max: u32,
    used: u32,
    /// Of the rules that are not used, those that victims made room for.
    reserved: u32,
    tenant_rules: Box<[u32]>,

    waiting: VecDeque<Waiting>,
    refused: VecDeque<Answer>,
    /// Pairs with a leg that the engine could not take at once.
    opening: VecDeque<u32>,
    leaving: VecDeque<u32>,
    /// Likewise, of connections that the policy denies: ahead of all others.
    denied: VecDeque<u32>,
    owing: VecDeque<u32>,
    settling: VecDeque<u32>,

    in_flight: u32,
    /// Of these, insertions.
    installing: u32,
    /// Since when the engine takes nothing and ends nothing.
    blocked_ns: Option<u64>,
    /// The engine has no room, whatever its traits say, until then,
    full_until_ns: u64,
    /// and so long the next time.
    full_ms: u32,
    lost_streak: u32,
    failures: Failures,
    refusals: Refusals,

    budget: Budget,
    price: Price,
    period: Period,
    period_ns: u64,
    hand: u32,

    round: Round,
    sweep: Option<Sweep>,
    /// When the last configuration came,
    adopted_ns: u64,
    /// and pairs it does not allow that are not out yet.
    enforcing: u32,
    fence: Fence,
    hitters: Hitters,
    meters: Meters,
    partitions: Partitions,
    aged_ns: u64,

    step_ns: u64,
    /// Operations that began,
    begun: u64,
    /// and ended, in this step.
    ended: u64,
    was_busy: bool,
    /// Whether the engine could not have taken more then.
    was_saturated: bool,
    completions: Vec<Completion>,
    aged: Vec<LegId>,
    /// Times of operations that began and ended in one step: how long they took is known at the next.
    timings: Vec<(Timing, u64)>,
}

impl Machine {
    /// A machine for an engine with these `traits`. `now_ns` is any monotonic time.
    #[must_use]
    pub fn new(
        now_ns: u64,
        settings: &Settings,
        traits: Traits,
        topology: Arc<Topology>,
        snapshot: Arc<Snapshot>,
    ) -> Machine {
        let rules_max = settings.rules_max.min(traits.rules_max);
        let (slots, denials) = (pairs_max(rules_max), settings.deny_rules.min(DENY_RULES_MAX));
        let queue = || VecDeque::with_capacity((slots + denials) as usize + 1);
        let counters = Arc::new(OffloadCounters::default());
        counters.capacity.set(u64::from(rules_max));
        counters.state.set(EngineState::Resting as u64);
        let first_price = settings.policy.first_price(settings.price_min);
        let price = Price::new(first_price, settings.policy == Policy::Earned);
        counters.price.set(u64::from(price.get()));
        Machine {
            settings: *settings,
            traits,
            topology,
            snapshot,
            counters,
            clock: Clock { last_ns: now_ns, now_ns },
            health: Health::new(now_ns, settings.operation_timeout_ms),
            slab: Slab::new(slots),
            // Twice as many as there may be rules, and more: it never grows for those that are gone.
            by_key: HashMap::with_capacity((2 * slots + denials) as usize),
            rules_max,
            used: 0,
            reserved: 0,
            tenant_rules: vec![0; TENANTS_MAX].into(),
            waiting: VecDeque::with_capacity(REQUESTS_MAX + 1),
            refused: VecDeque::with_capacity(REQUESTS_MAX + 1),
            opening: queue(),
            leaving: queue(),
            denied: queue(),
            owing: queue(),
            settling: queue(),
            in_flight: 0,
            installing: 0,
            blocked_ns: None,
            full_until_ns: 0,
            full_ms: enter::FULL_MS,
            lost_streak: 0,
            failures: Failures::new(),
            refusals: Refusals::new(),
            budget: Budget::new(now_ns, settings.insertions_per_second, traits.operations_max),
            price,
            period: Period::default(),
            period_ns: now_ns,
            hand: 0,
            round: Round::new(now_ns),
            sweep: None,
            adopted_ns: now_ns,
            enforcing: 0,
            fence: Fence::new(now_ns),
            hitters: Hitters::new(slots, denials),
            meters: Meters::new(now_ns),
            partitions: Partitions::new(now_ns),
            aged_ns: now_ns,
            step_ns: now_ns,
            begun: 0,
            ended: 0,
            was_busy: false,
            was_saturated: false,
            completions: Vec::with_capacity(COMPLETIONS),
            aged: Vec::with_capacity(AGED),
            timings: Vec::with_capacity(COMPLETIONS),
        }
    }

    /// Requests that may be handed in before the next step.
    #[must_use]
    pub fn room(&self) -> usize {
        REQUESTS_MAX.saturating_sub(self.waiting.len() + self.refused.len())
    }

    /// Takes a request; it is answered by a later step. Beyond [`Machine::room`] it is dropped and counted.
    pub fn ask(&mut self, now_ns: u64, ask: &Ask) {
        let now_ns = self.clock.at(now_ns);
        if self.room() == 0 {
            self.counters.requests_dropped.add(1);
            return;
        }
        self.waiting.push_back(Waiting::new(now_ns, ask, self.is_worthy(ask)));
    }

    /// Takes a wish to have a connection back. If its rules are on their way in they are taken out as soon
    /// as they are there; if they are somebody else's by now nothing happens.
    pub fn revoke(&mut self, now_ns: u64, revoke: &Revoke) {
        let now_ns = self.clock.at(now_ns);
        if revoke.why == Revocation::Orphan {
            self.counters.orphans.add(1);
        }
        let index = revoke.rule.0;
        match self.slab.get(index) {
            Some(pair) if pair.ask.flow == revoke.flow => {
                if revoke.why == Revocation::Policy {
                    let denied = self.denies(&pair.ask);
                    self.enforce(now_ns, index, denied);
                }
                self.close(now_ns, index, Removal::Revoked(revoke.why), 0);
            }
            _ => self.counters.late.add(1),
        }
    }

    /// Does a bounded part of what there is to do. Removals come before admissions.
    pub fn step<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, outbox: &mut impl Outbox) -> Work {
        let now_ns = self.begin_step(now_ns);
        self.pull(now_ns, engine);
        if self.recover(now_ns, engine) {
            self.plan_partitions(now_ns);
            self.sweep_some(now_ns);
            if self.fence_some(now_ns, engine) {
                self.move_partitions(now_ns, engine);
                self.take_out(now_ns, engine);
                self.put_in(now_ns, engine);
                self.put_denials_in(now_ns, engine);
            }
            if self.begun > 0 {
                engine.push();
                self.pull(now_ns, engine);
            }
            self.read_some(now_ns, engine, outbox);
            self.read_partitions(now_ns, engine, outbox);
            self.hear_aged(now_ns, engine);
            self.tend_denials(now_ns, engine);
            self.reserve_meters(now_ns);
            self.tend_meters(now_ns, engine);
            self.settle_some(now_ns, engine, outbox);
        } else {
            self.refuse_all(now_ns);
            self.reserve_meters(now_ns);
            if self.health.is_stuck() {
                self.read_some(now_ns, engine, outbox);
                self.tend_denials(now_ns, engine);
            }
            if self.health.is_empty() {
                self.settle_some(now_ns, engine, outbox);
            }
        }
        self.answer_some(outbox);
        self.counters.base_failures.add(u64::from(engine.take_base_failures()));
        self.end_step(now_ns)
    }

    fn begin_step(&mut self, now_ns: u64) -> u64 {
        let now_ns = self.clock.at(now_ns);
        if self.was_busy {
            self.budget.measure(now_ns - self.step_ns, self.ended, self.was_saturated);
        }
        (self.begun, self.ended) = (0, 0);
        self.step_ns = now_ns;
        while let Some((timing, since_ns)) = self.timings.pop() {
            self.observe(timing, now_ns - since_ns);
        }
        now_ns
    }

    fn end_step(&mut self, now_ns: u64) -> Work {
        self.was_busy = self.begun > 0 || self.in_flight > 0;
        self.was_saturated =
            self.traits.operations_max <= 1 || 2 * self.in_flight >= self.traits.operations_max;
        if now_ns - self.period_ns >= PERIOD_NS {
            self.end_period(now_ns);
        }
        let counters = &self.counters;
        counters.waiting.set(self.waiting.len() as u64);
        counters.in_flight.set(u64::from(self.in_flight));
        counters.leaving.set((self.denied.len() + self.leaving.len()) as u64);
        counters.owing.set(self.owing.len() as u64);
        counters.settling.set(self.settling.len() as u64);
        counters.price.set(u64::from(self.price()));
        counters.fenced.set(u64::from(self.is_fenced()));
        counters.stats_age_ms.set(self.round.age_ms(now_ns));
        let more = self.is_leaving() || self.partitions.is_busy() || self.sweep.is_some() || self.is_fenced();
        // What waits for an engine that is not running is not done any sooner by asking again.
        let busy =
            if self.health.is_running() { self.was_busy || more } else { self.health.is_at_work(now_ns) };
        Work { busy }
    }

    fn end_period(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns - self.period_ns;
        self.period.insertions_max = u32::try_from(elapsed_ns / self.budget.cost_ns()).unwrap_or(u32::MAX);
        self.period.waiting = self.waiting.len() as u32;
        self.period.idle = self.budget.idle(now_ns);
        self.price.reconsider(&self.period);
        self.counters.insertions_per_second.set(self.budget.rate());
        (self.period, self.period_ns) = (Period::default(), now_ns);
    }

    /// Packets (both directions) that a connection must have carried before it is worth asking for;
    /// `u32::MAX` while nothing is admitted.
    #[must_use]
    pub fn price(&self) -> u32 {
        if self.health.is_running() { self.price.get() } else { u32::MAX }
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<OffloadCounters> {
        &self.counters
    }

    /// Whether rules that the last configuration does not allow may still be in force.
    #[must_use]
    pub fn enforcing(&self) -> bool {
        self.sweep.is_some() || self.enforcing > 0
    }

    /// How the engine is.
    #[must_use]
    pub fn state(&self) -> EngineState {
        self.health.state()
    }

    /// Counts how long something took that began at `since_ns`.
    fn time(&mut self, now_ns: u64, timing: Timing, since_ns: u64) {
        if since_ns == now_ns && self.timings.len() < self.timings.capacity() {
            self.timings.push((timing, since_ns));
        } else {
            self.observe(timing, now_ns - since_ns);
        }
    }

    fn observe(&self, timing: Timing, ns: u64) {
        match timing {
            Timing::Insert => self.counters.insert_seconds.observe(ns),
            Timing::Enforce => self.counters.time_to_enforce.observe(ns),
        }
    }
}

/// Each [`dataplane::offload::RuleId`] is below this, where there may be so many rules: those of rules that
/// drop come behind those of connections, and those of partitions behind both.
#[must_use]
pub const fn numbers_max(rules_max: u32) -> u32 {
    pairs_max(rules_max).saturating_add(DENY_RULES_MAX + PARTITION_RULES_MAX)
}

/// Connections there can be in hardware with so many rules, those included whose rules are out and whose
/// counters may still grow.
#[must_use]
pub const fn pairs_max(rules_max: u32) -> u32 {
    rules_max.saturating_add(rules_max / 4).saturating_add(64)
}

/// Rules that a tenant may have whose share of them is so many percent: at least one connection's.
#[must_use]
pub fn tenant_rules_max(rules_max: u32, percent: u8) -> u32 {
    let share = u64::from(rules_max) * u64::from(percent.min(100)) / 100;
    (share as u32).max(2)
}
