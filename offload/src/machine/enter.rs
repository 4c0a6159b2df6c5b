//! From a request to rules in force: judging, making room, and telling the engine.

use super::leave::reason_of;
use super::meters::Found;
use super::pair::{DIRECTIONS, Ending, LegState, Phase, patterns, rules_of};
use super::{MS, Machine, tenant_rules_max};
use crate::admission::{HYSTERESIS, Policy, RESIDENCE_MS, worth, worth_at_rate};
use crate::counters::Eviction;
use crate::engine::{EngineError, FlowEngine, LegId};
use crate::lower;
use crate::rule::Rule;
use dataplane::flow::Direction;
use dataplane::ids::TenantId;
use dataplane::offload::{Answer, Ask, Declined, FlowRef, Leg, Removal, Revocation, RuleId};

/// Requests looked at in one step.
const REQUESTS_PER_STEP: usize = 256;
/// A request waits at most so long for the budget,
const WAIT_MS: u64 = 200;
/// and for a victim's rules to be out.
const WAIT_RESERVED_MS: u64 = 2_000;
/// Slots looked at in search of a victim,
const HAND_SLOTS: u32 = 256;
/// and candidates compared.
const HAND_CANDIDATES: u32 = 12;
/// How long an engine without room is left alone, at first
pub(super) const FULL_MS: u32 = 100;
/// and at last.
const FULL_MAX_MS: u32 = 5_000;

/// After so many refusals in a row rules of one kind are not tried, at first so long,
const REFUSALS: u32 = 16;
const HOLD_MS: u32 = 1_000;
/// and at last.
const HOLD_MAX_MS: u32 = 60_000;

const RETRY_BUDGET_MS: u32 = 500;
const RETRY_FULL_MS: u32 = 2_000;
const RETRY_SHARE_MS: u32 = 2_000;
const RETRY_PATH_MS: u32 = 5_000;
const RETRY_REFUSED_MS: u32 = 60_000;
const RETRY_EVICTED_MS: u32 = 2_000;
const RETRY_FAILED_MS: u32 = 1_000;
const RETRY_FAILED_MAX_MS: u32 = 64_000;

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) ask: Ask,
    since_ns: u64,
    /// Whether it was worth the price when it came.
    worthy: bool,
    /// Whether victims are making room for it.
    reserved: bool,
}

impl Waiting {
    pub(super) fn new(now_ns: u64, ask: &Ask, worthy: bool) -> Waiting {
        Waiting { ask: *ask, since_ns: now_ns, worthy, reserved: false }
    }
}

/// What becomes of a request now.
enum Verdict {
    Admit,
    Wait,
    Decline(Declined, u32),
}

/// What is needed before a request can be admitted.
enum Room {
    Enough,
    Evict(Eviction),
    None(Declined, u32),
}

/// Remembers which connections failed lately, and how often: a small table in which newer ones overwrite
/// older ones.
#[derive(Debug)]
pub(super) struct Failures {
    slots: Box<[Option<(FlowRef, u8)>]>,
}

impl Failures {
    pub(super) fn new() -> Failures {
        Failures { slots: vec![None; 1024].into() }
    }

    /// How long to wait after this failure, milliseconds: doubled each time.
    pub(super) fn note(&mut self, flow: FlowRef) -> u32 {
        let mixed = flow.slot.wrapping_mul(0x9e37_79b1) ^ u32::from(flow.worker.0);
        let place = mixed as usize % self.slots.len();
        let slot = &mut self.slots[place];
        let times = slot.filter(|(known, _)| *known == flow).map_or(0, |(_, times)| times);
        *slot = Some((flow, times.saturating_add(1)));
        (RETRY_FAILED_MS << times.min(6)).min(RETRY_FAILED_MAX_MS)
    }
}

/// Remembers kinds of rules that the driver refuses whatever the connection: there are devices that cannot
/// match IPv6 addresses and ports at once, and to be told so for each connection would cost the budget.
#[derive(Debug)]
pub(super) struct Refusals {
    /// By group and [`kind_of`]: refusals in a row, until when not to try, and for how long the next time,
    /// milliseconds.
    groups: [[(u32, u64, u32); TUNNEL_KINDS]; lower::SOFTWARE as usize],
}

/// What rules of one group differ in besides values: without a tunnel, into one of frames, of packets, by a
/// port behind one; or out of one.
const TUNNEL_KINDS: usize = 5;

fn kind_of(topology: &lower::Topology, ask: &Ask) -> usize {
    let comes_out =
        |leg: &Leg| topology.ports.get(leg.ingress.index()).is_some_and(|port| port.tunnel.is_some());
    match &ask.tunnel {
        _ if ask.legs.iter().flatten().any(comes_out) => 4,
        None => 0,
        Some(around) if around.below().is_some() => 3,
        Some(around) if around.inner_link().is_some() => 1,
        Some(_) => 2,
    }
}

impl Refusals {
    pub(super) fn new() -> Refusals {
        Refusals { groups: [[(0, 0, HOLD_MS); TUNNEL_KINDS]; lower::SOFTWARE as usize] }
    }

    fn of(&mut self, topology: &lower::Topology, ask: &Ask) -> &mut (u32, u64, u32) {
        // Groups are below this, and kinds below that.
        let group = lower::group_of(&ask.key) as usize % lower::SOFTWARE as usize;
        &mut self.groups[group][kind_of(topology, ask) % TUNNEL_KINDS]
    }

    fn holds(&mut self, now_ns: u64, topology: &lower::Topology, ask: &Ask) -> bool {
        now_ns < self.of(topology, ask).1
    }

    fn refused(&mut self, now_ns: u64, topology: &lower::Topology, ask: &Ask) {
        let (times, until_ns, hold_ms) = self.of(topology, ask);
        *times = times.saturating_add(1);
        if *times >= REFUSALS && now_ns >= *until_ns {
            *until_ns = now_ns + u64::from(*hold_ms) * MS;
            *hold_ms = (2 * *hold_ms).min(HOLD_MAX_MS);
        }
    }

    pub(super) fn taken(&mut self, topology: &lower::Topology, ask: &Ask) {
        *self.of(topology, ask) = (0, 0, HOLD_MS);
    }
}

impl Machine {
    /// Goes on with pairs whose second rule the engine could not take at once, then admits requests, as far
    /// as budget and queue allow.
    pub(super) fn put_in<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        while self.may_install() {
            let Some(index) = self.opening.pop_front() else { break };
            if !self.install(now_ns, engine, index, None) {
                return;
            }
        }
        for _ in 0..self.waiting.len().min(REQUESTS_PER_STEP) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            let rules = u64::from(rules_of(&waiting.ask));
            match self.judge(now_ns, &waiting) {
                Verdict::Decline(reason, retry_ms) => self.decline(&waiting, reason, retry_ms),
                Verdict::Wait => {}
                Verdict::Admit if self.may_install() && self.budget.allows(now_ns, rules) => {
                    if !self.admit(now_ns, engine, &waiting) {
                        break;
                    }
                }
                Verdict::Admit => {
                    self.waiting.push_front(waiting);
                    break;
                }
            }
        }
    }

    /// Whether an insertion may begin: nothing waits to be taken out, and of the engine's queue at least
    /// half is left for removals.
    pub(super) fn may_install(&self) -> bool {
        let most = (self.traits.operations_max / 2).max(1);
        self.health.is_running() && !self.is_leaving() && self.installing < most
    }

    /// Whether a connection is worth the price, as far as there is one: without want of anything all are.
    pub(super) fn is_worthy(&self, ask: &Ask) -> bool {
        let priced = self.settings.policy == Policy::Earned && self.price.raised();
        !priced || worth(ask.packets, ask.age_ms) >= self.price.get() as f32
    }

    fn judge(&mut self, now_ns: u64, waiting: &Waiting) -> Verdict {
        let ask = &waiting.ask;
        let waited_ms = (now_ns - waiting.since_ns) / MS;
        if self.snapshot_objects(ask).is_some() || rules_of(ask) == 0 {
            return Verdict::Decline(Declined::Path, RETRY_PATH_MS);
        }
        if self.refusals.holds(now_ns, &self.topology, ask) {
            return Verdict::Decline(Declined::Refused, jittered(ask, RETRY_REFUSED_MS));
        }
        if let Some(index) = patterns(ask).find_map(|key| self.by_key.get(&key).copied()) {
            return self.wait_for_namesake(now_ns, waiting, index);
        }
        if !waiting.worthy {
            return Verdict::Decline(Declined::Budget, jittered(ask, RETRY_BUDGET_MS));
        }
        match self.room_for(now_ns, waiting) {
            Room::Enough if waited_ms > WAIT_MS && !waiting.reserved => self.turn_away(ask, Declined::Budget),
            Room::Enough if self.denies(ask) => Verdict::Decline(Declined::Path, RETRY_PATH_MS),
            Room::Enough => Verdict::Admit,
            Room::None(..) if waiting.reserved && waited_ms < WAIT_RESERVED_MS => {
                self.waiting.push_back(*waiting);
                Verdict::Wait
            }
            Room::Evict(reason) if !waiting.reserved => self.make_room(now_ns, waiting, reason),
            Room::Evict(_) if waited_ms < WAIT_RESERVED_MS => {
                self.waiting.push_back(*waiting);
                Verdict::Wait
            }
            Room::Evict(_) => self.turn_away(ask, Declined::TableFull),
            Room::None(reason, retry_ms) => {
                self.note_turned_away(reason);
                Verdict::Decline(reason, retry_ms)
            }
        }
    }

    fn turn_away(&mut self, ask: &Ask, reason: Declined) -> Verdict {
        self.note_turned_away(reason);
        let retry_ms = if reason == Declined::Budget { RETRY_BUDGET_MS } else { RETRY_FULL_MS };
        Verdict::Decline(reason, jittered(ask, retry_ms))
    }

    /// What is turned away raises the price for all; so one tenant's wish for more than its share does not
    /// count.
    fn note_turned_away(&mut self, reason: Declined) {
        if reason != Declined::TenantShare {
            self.period.turned_away += 1;
        }
    }

    /// Rules with the same pattern are still there: of an earlier connection, or of one that its worker no
    /// longer knows, perhaps to another port of the VIP. They have to go first.
    fn wait_for_namesake(&mut self, now_ns: u64, waiting: &Waiting, index: u32) -> Verdict {
        if let Some(at) = self.hitters.at(index) {
            self.close_denial(at);
        } else if self.slab.get(index).is_some_and(|pair| !matches!(pair.phase, Phase::Closing { .. })) {
            self.counters.orphans.add(1);
            self.close(now_ns, index, Removal::Revoked(Revocation::Orphan), 0);
        }
        if (now_ns - waiting.since_ns) / MS >= WAIT_RESERVED_MS {
            return Verdict::Decline(Declined::Timeout, RETRY_FULL_MS);
        }
        self.waiting.push_back(*waiting);
        Verdict::Wait
    }

    fn room_for(&self, now_ns: u64, waiting: &Waiting) -> Room {
        let ask = &waiting.ask;
        let rules = rules_of(ask);
        let Some(&tenants) = self.tenant_rules.get(ask.key.tenant.index()) else {
            return Room::None(Declined::TenantShare, RETRY_SHARE_MS);
        };
        // One that may have all is only limited by what there is.
        let share = self.share(ask.key.tenant);
        if share < self.rules_max && tenants + rules > share {
            return Room::Evict(Eviction::TenantShare);
        }
        // A hole that a victim left is for the one it was evicted for.
        let held = if waiting.reserved { 0 } else { self.reserved };
        if self.used + held + rules > self.rules_max || now_ns < self.full_until_ns {
            return Room::Evict(Eviction::Full);
        }
        if self.slab.live() == self.slab.slots() {
            return Room::None(Declined::TableFull, jittered(ask, RETRY_FULL_MS));
        }
        Room::Enough
    }

    /// Rules that a tenant may have: at least one connection's.
    pub(super) fn share(&self, tenant: TenantId) -> u32 {
        let own = self.snapshot.tenants.get(tenant.index()).and_then(|tenant| tenant.offload_share_percent);
        tenant_rules_max(self.rules_max, own.unwrap_or(self.settings.tenant_share_percent))
    }

    fn make_room(&mut self, now_ns: u64, waiting: &Waiting, reason: Eviction) -> Verdict {
        let ask = &waiting.ask;
        let rules = rules_of(ask);
        let (declined, tenant) = match reason {
            Eviction::Full => (Declined::TableFull, None),
            Eviction::TenantShare => (Declined::TenantShare, Some(ask.key.tenant)),
        };
        if !self.budget.allows(now_ns, u64::from(rules)) {
            // It could not be put in force; nobody has to go for it.
            return self.turn_away(ask, declined);
        }
        let mut freed = 0;
        while freed < rules {
            if self.yield_denial(tenant) {
                freed += 1;
                continue;
            }
            let Some(victim) = self.victim(now_ns, worth(ask.packets, ask.age_ms), tenant) else { break };
            freed += self.slab.get(victim).map_or(0, |pair| pair.rules());
            self.counters.evictions[reason as usize].add(1);
            self.close(now_ns, victim, Removal::Evicted, RETRY_EVICTED_MS);
        }
        if freed == 0 {
            return self.turn_away(ask, declined);
        }
        self.reserved += rules;
        self.waiting.push_back(Waiting { reserved: true, ..*waiting });
        Verdict::Wait
    }

    /// The least useful of a few pairs that a hand going round the slab points at, if a newcomer of this
    /// worth may take its place.
    fn victim(&mut self, now_ns: u64, newcomer: f32, tenant: Option<TenantId>) -> Option<u32> {
        let policy = self.settings.policy;
        let (mut best, mut candidates): (Option<(f32, u32)>, u32) = (None, 0);
        for _ in 0..self.slab.slots().min(HAND_SLOTS) {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.slab.slots();
            let Some(pair) = self.slab.get(index) else { continue };
            let Phase::Installed { since_ns, told: true } = pair.phase else { continue };
            let resident = now_ns.saturating_sub(since_ns) >= u64::from(RESIDENCE_MS) * MS;
            if !resident || tenant.is_some_and(|tenant| tenant != pair.ask.key.tenant) {
                continue;
            }
            let use_of = match policy {
                Policy::Earned => worth_at_rate(pair.rate, pair.age_ms(now_ns)),
                Policy::Lru => -((now_ns - pair.used_ns) as f32),
                Policy::FirstPacket | Policy::Threshold(_) => return None,
            };
            if best.is_none_or(|(least, _)| use_of < least) {
                best = Some((use_of, index));
            }
            candidates += 1;
            if candidates == HAND_CANDIDATES {
                break;
            }
        }
        let (least, index) = best?;
        (policy == Policy::Lru || newcomer > HYSTERESIS * least).then_some(index)
    }

    fn decline(&mut self, waiting: &Waiting, reason: Declined, retry_ms: u32) {
        self.unreserve(waiting);
        let Ask { flow, token, .. } = waiting.ask;
        self.refused.push_back(Answer::Declined { flow, token, reason, retry_ms });
    }

    fn unreserve(&mut self, waiting: &Waiting) {
        if waiting.reserved {
            self.reserved -= rules_of(&waiting.ask);
        }
    }

    /// While the engine is not to be used, nobody waits for it.
    pub(super) fn refuse_all(&mut self, now_ns: u64) {
        let retry_ms = self.health.rest_ms(now_ns);
        for _ in 0..REQUESTS_PER_STEP {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.decline(&waiting, Declined::Timeout, jittered(&waiting.ask, retry_ms));
        }
    }

    /// Gives a request a pair and the engine its rules; `false` if the engine takes no more.
    fn admit<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, waiting: &Waiting) -> bool {
        let ask = &waiting.ask;
        let lowered = self.lower_all(ask);
        let metered = lowered.and_then(|rules| {
            let meter = match self.meter_for(now_ns, engine, ask, &rules)? {
                Some(Found::Ready(number)) => Some(number),
                Some(_) => return Ok(None),
                None => None,
            };
            let metered = rules.map(|rule| rule.map(|rule| rule.metered(meter)));
            if metered.iter().any(|rule| *rule == Some(None)) {
                return Err(Declined::Metered);
            }
            Ok(Some((metered.map(Option::flatten), meter)))
        });
        let (rules, meter) = match metered {
            Ok(Some(metered)) => metered,
            Ok(None) => {
                // It is tried again until its meter is there, or it has waited too long.
                if (now_ns - waiting.since_ns) / MS >= WAIT_RESERVED_MS {
                    self.decline(waiting, Declined::Metered, RETRY_REFUSED_MS);
                } else {
                    self.waiting.push_back(*waiting);
                }
                return true;
            }
            Err(reason) => {
                self.decline(waiting, reason, RETRY_REFUSED_MS);
                return true;
            }
        };
        let Some(index) = self.slab.take(now_ns, ask) else {
            self.decline(waiting, Declined::TableFull, jittered(ask, RETRY_FULL_MS));
            return true;
        };
        if let Some(number) = meter {
            self.meters.retain(number);
        }
        if let Some(pair) = self.slab.get_mut(index) {
            pair.meter = meter;
        }
        self.unreserve(waiting);
        self.by_key.extend(patterns(ask).map(|key| (key, index)));
        let count = rules_of(ask);
        self.used += count;
        if let Some(tenant) = self.tenant_rules.get_mut(ask.key.tenant.index()) {
            *tenant += count;
        }
        self.install(now_ns, engine, index, Some(&rules))
    }

    fn lower_all(&self, ask: &Ask) -> Result<[Option<Rule>; 2], Declined> {
        let mut rules = [None, None];
        for direction in DIRECTIONS {
            if ask.legs[direction as usize].is_some() {
                rules[direction as usize] = Some(self.lower(ask, direction)?);
            }
        }
        Ok(rules)
    }

    fn lower(&self, ask: &Ask, direction: Direction) -> Result<Rule, Declined> {
        let age_s = self.traits.ages.then(|| self.settings.idle_ms.div_ceil(1000).max(1));
        let rule = lower::leg(&self.topology, ask, direction, age_s)?;
        if lower::suits(self.traits.kind, &rule) { Ok(rule) } else { Err(Declined::Tunnel) }
    }

    /// Tells the engine those rules of a pair that it has not been told yet; `false` if it takes no more, and
    /// the pair waits at the head of `opening`. `rules`: what [`Machine::lower_all`] made, if it is at hand.
    fn install<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        index: u32,
        rules: Option<&[Option<Rule>; 2]>,
    ) -> bool {
        for direction in DIRECTIONS {
            let way = direction as usize;
            // First of all: what has ended may have been the other rule of this pair.
            let room = self.queue_room(now_ns, engine);
            let Some(pair) = self.slab.get(index).filter(|pair| pair.legs[way] == LegState::Wanted) else {
                continue;
            };
            let lowered;
            let rule = match rules.and_then(|rules| rules[way].as_ref()) {
                Some(rule) => rule,
                None => {
                    let (ask, meter) = (pair.ask, pair.meter);
                    let lowered_again = self.lower(&ask, direction).ok();
                    let Some(rule) = lowered_again.and_then(|rule| rule.metered(meter)) else {
                        self.leg_failed(now_ns, index, direction, EngineError::Refused(0));
                        continue;
                    };
                    lowered = rule;
                    &lowered
                }
            };
            let leg = LegId { rule: RuleId(index), direction };
            let begun = if room {
                self.begin_install(now_ns, engine, leg, rule)
            } else {
                Err(EngineError::QueueFull)
            };
            match begun {
                Ok(()) => {}
                Err(EngineError::QueueFull) => {
                    self.blocked(now_ns);
                    self.opening.push_front(index);
                    return false;
                }
                Err(error) => self.leg_failed(now_ns, index, direction, error),
            }
        }
        self.health.is_running()
    }

    pub(super) fn begin_install<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        leg: LegId,
        rule: &Rule,
    ) -> Result<(), EngineError> {
        let begun = engine.install(leg, rule);
        if begun == Err(EngineError::QueueFull) {
            return begun;
        }
        self.budget.spend(now_ns);
        self.period.insertions += 1;
        self.counters.insertions.add(1);
        begun?;
        (self.in_flight, self.installing) = (self.in_flight + 1, self.installing + 1);
        self.begun += 1;
        self.blocked_ns = None;
        if let Some(pair) = self.slab.get_mut(leg.rule.0) {
            pair.legs[leg.direction as usize] = LegState::Installing { since_ns: now_ns };
        }
        Ok(())
    }

    /// Whether the engine takes another operation; pulls if its queue is full.
    pub(super) fn queue_room<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) -> bool {
        let most = self.traits.operations_max.max(1);
        if self.in_flight >= most {
            engine.push();
            self.pull(now_ns, engine);
        }
        self.in_flight < most
    }

    /// A rule did not come in force.
    pub(super) fn leg_failed(&mut self, now_ns: u64, index: u32, direction: Direction, error: EngineError) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        pair.legs[direction as usize] = LegState::Nothing;
        let (ask, is_metered) = (pair.ask, pair.meter.is_some());
        self.rule_gone(index);
        let retry_ms = match error {
            EngineError::TableFull | EngineError::NoCounter => {
                self.period.turned_away += 1;
                self.full_until_ns = now_ns + u64::from(self.full_ms) * MS;
                self.full_ms = (2 * self.full_ms).min(FULL_MAX_MS);
                jittered(&ask, RETRY_FULL_MS)
            }
            // It may be for its meter, which is not to cost others their rules.
            EngineError::Refused(_) if is_metered => RETRY_REFUSED_MS,
            EngineError::Refused(_) => {
                self.refusals.refused(now_ns, &self.topology, &ask);
                RETRY_REFUSED_MS
            }
            EngineError::Failed | EngineError::QueueFull | EngineError::Lost(_) => {
                self.failures.note(ask.flow)
            }
        };
        if matches!(error, EngineError::Lost(_)) {
            self.begin_recovery(Declined::Failed);
        }
        self.end(now_ns, index, Ending::Declined { reason: reason_of(error), retry_ms });
    }
}

/// Spreads retries, so that all who were declined together do not come back together.
pub(super) fn jittered(ask: &Ask, retry_ms: u32) -> u32 {
    let mixed = (ask.flow.slot ^ ask.token.0 << 16).wrapping_mul(0x9e37_79b1) >> 16;
    retry_ms + mixed % retry_ms.max(1)
}
