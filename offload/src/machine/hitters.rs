//! Rules that drop what the policy denies, for those who do not stop sending it.
//!
//! ```text
//! worker: many of these ─▶ proven ─▶ Installing ─▶ In ─▶ Leaving ─▶ Removing ─▶ Settling ─▶ Free
//!                             │                     └── idle, not denied any more, or another needs the room
//!                             └─ not denied, no room, no way: forgotten; it is told again if they go on
//! ```
//!
//! A rule drops packets that no worker judges any more. So it is there only while it is proven that a worker
//! would drop every one of them (see [`dataplane::snapshot::Snapshot::denies_all`]), under the same policy
//! rule and of the same service as when it came in force. Each new configuration is asked anew, at once, for
//! all of them; what it allows goes first of all, counts as enforcing, and is behind a fence if that takes
//! long, as what it denies does.
//!
//! They are few, and yield: they have what connections leave of the rules, and when these need room, the one
//! that drops least goes first. Of the insertions they have a small part while connections wait.
//!
//! What they count becomes part of what workers count, in [`Machine::denials`]: packets dropped, in all, of
//! the tenant, of the service, and under the policy rule. The last ones are known some time after a rule is
//! out. If the configuration has taken its number from the policy rule meanwhile, or the service is gone,
//! they count as dropped and no more.

use super::rounds::ip_count;
use super::{MS, Machine, Timing};
use crate::admission::follow;
use crate::engine::{Completion, EngineError, FlowEngine, LegId};
use crate::lower;
use crate::lower::ports::overhead;
use dataplane::conntrack::Count;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::drops::DropReason;
use dataplane::flow::{Direction, FlowKey};
use dataplane::ids::TenantId;
use dataplane::limits::{RULE_NUMBERS_MAX, SERVICES_MAX, TENANTS_MAX};
use dataplane::offload::{Declined, Denied, RuleId};
use dataplane::policy::{Policy, RuleNumber, Way};
use dataplane::snapshot::{Denial, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;

/// Tuples that wait for a rule at most,
const WAITING_MAX: usize = 256;
/// and for so long: whoever goes on is told again.
const WAIT_NS: u64 = 1_000 * MS;
/// One insertion in so many, while connections wait.
const SHARE: u32 = 8;
/// Insertions begun in one step.
const INSERTIONS_PER_STEP: usize = 16;
/// Counters read in one step of a round.
const READ_PER_STEP: usize = 256;
/// Slots looked at for the one that drops least.
const LOOKS: usize = 256;
/// Whoever is to take a rule's place must send so many times as much.
const TIMES: f32 = 2.0;
/// How long rules of a group are not tried after one was refused, at first
const HOLD_MS: u32 = 1_000;
/// and at last.
const HOLD_MAX_MS: u32 = 60_000;
/// Readings in a row that say that the device has lost the rule.
const LOST_READINGS: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The engine has been told to put it in force, then; `wanted`: and nobody has changed their mind.
    Installing { since_ns: u64, wanted: bool },
    /// In force, since then.
    In { since_ns: u64 },
    /// In force, and in the queue of those to be taken out.
    Leaving,
    /// The engine has been told to take it out, then.
    Removing { since_ns: u64 },
    /// Out, and its counter may grow until then.
    Settling { until_ns: u64 },
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Installing { .. } => "installing",
            State::In { .. } => "installed",
            State::Leaving => "leaving",
            State::Removing { .. } => "removing",
            State::Settling { .. } => "out",
        }
    }

    fn in_force(self) -> bool {
        matches!(self, State::In { .. } | State::Leaving | State::Removing { .. })
    }

    /// Whether it counts against the rules there may be.
    fn holds_rule(self) -> bool {
        self.in_force() || matches!(self, State::Installing { .. })
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
struct Hitter {
    state: State,
    denied: Denied,
    /// Why it may drop.
    denial: Denial,
    /// Whether what it drops is still counted under the policy rule, and under the service.
    counts: [bool; 2],
    /// Whether the configuration does not deny it any more, and it is not out.
    enforced: bool,
    /// What its counter said last, whole frames.
    seen: Count,
    /// Packets per second, lately.
    rate: f32,
    read_ns: u64,
    /// When it was last seen to grow.
    used_ns: u64,
    lost: u8,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Hitters {
    /// The number of the first: those below are pairs'.
    first: u32,
    slots: Vec<Option<Hitter>>,
    most: usize,
    free: Vec<usize>,
    waiting: VecDeque<(u64, Denied)>,
    settling: VecDeque<usize>,
    counted: Arc<WorkerCounters>,
    /// The next slot of a round over all counters, and when it began.
    cursor: usize,
    round_ns: u64,
    hand: usize,
    /// By group: until when not to try, and how long the next time, milliseconds.
    hold: [(u64, u32); lower::SOFTWARE as usize],
    /// Insertions in the period that began then.
    period: (u64, u32),
}

/// A rule that drops, for people.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DenialRow {
    /// Its number.
    pub rule: RuleId,
    /// What it drops.
    pub denied: Denied,
    /// Why.
    pub denial: Denial,
    /// `installing`, `installed`, `leaving`, `removing`, or `out`, while its counter may grow.
    pub state: &'static str,
    /// What it has dropped; bytes of IP packet.
    pub dropped: Count,
    /// How long it has been in force, milliseconds; 0 if it is not.
    pub installed_ms: u64,
}

impl Hitters {
    /// Numbered from `first` on, `most` of them.
    pub(super) fn new(first: u32, most: u32) -> Hitters {
        let most = most as usize;
        // Nobody asks for what is never counted.
        let (services, rules, tenants) =
            if most == 0 { (0, 0, 0) } else { (SERVICES_MAX, RULE_NUMBERS_MAX, TENANTS_MAX) };
        let counted = WorkerCounters::new(services, 0).with_rules(rules).with_tenants(tenants);
        Hitters {
            first,
            slots: vec![None; most],
            most,
            free: (0..most).rev().collect(),
            waiting: VecDeque::with_capacity(WAITING_MAX),
            settling: VecDeque::with_capacity(most),
            counted: Arc::new(counted),
            cursor: 0,
            round_ns: 0,
            hand: 0,
            hold: [(0, HOLD_MS); lower::SOFTWARE as usize],
            period: (0, 0),
        }
    }

    fn get(&self, at: usize) -> Option<&Hitter> {
        self.slots.get(at)?.as_ref()
    }

    fn get_mut(&mut self, at: usize) -> Option<&mut Hitter> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// Which one has this number, if it is not a pair's.
    pub(super) fn at(&self, number: u32) -> Option<usize> {
        number.checked_sub(self.first).map(|at| at as usize)
    }

    fn number(&self, at: usize) -> u32 {
        self.first + at as u32
    }

    fn leg(&self, at: usize) -> LegId {
        LegId { rule: RuleId(self.number(at)), direction: Direction::Original }
    }

    fn hold(&mut self, now_ns: u64, key: &FlowKey) {
        let (until_ns, hold_ms) = &mut self.hold[group_of(key)];
        *until_ns = now_ns + u64::from(*hold_ms) * MS;
        *hold_ms = (2 * *hold_ms).min(HOLD_MAX_MS);
    }

    /// One that drops less than this, or as little as any; of this tenant's, if it is one's.
    fn least(&mut self, rate: f32, tenant: Option<TenantId>) -> Option<usize> {
        let mut best: Option<(f32, usize)> = None;
        for _ in 0..self.slots.len().min(LOOKS) {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(hitter) = self.get(at) else { continue };
            let meant = tenant.is_none_or(|tenant| tenant == hitter.denied.key.tenant);
            let there = matches!(hitter.state, State::In { .. });
            if there && meant && hitter.rate < rate && best.is_none_or(|(least, _)| hitter.rate < least) {
                best = Some((hitter.rate, at));
            }
        }
        best.map(|(_, at)| at)
    }
}

/// The group of a tuple's rules: below [`lower::SOFTWARE`].
fn group_of(key: &FlowKey) -> usize {
    lower::group_of(key) as usize % lower::SOFTWARE as usize
}

/// Telling, proving, and putting in.
impl Machine {
    /// Takes word of a tuple of which the policy denies every packet, and of which many come.
    pub fn deny(&mut self, now_ns: u64, denied: &Denied) {
        let now_ns = self.clock.at(now_ns);
        let known = self.by_key.contains_key(&denied.key);
        if self.hitters.most > 0 && !known && self.hitters.waiting.len() < WAITING_MAX {
            self.hitters.waiting.push_back((now_ns, *denied));
        }
    }

    /// What was dropped by rules, as a worker would count what it drops.
    #[must_use]
    pub fn denials(&self) -> &Arc<WorkerCounters> {
        &self.hitters.counted
    }

    /// Puts rules in, as far as there is room, and budget that connections leave.
    pub(super) fn put_denials_in<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        for _ in 0..INSERTIONS_PER_STEP {
            let Some(&(since_ns, denied)) = self.hitters.waiting.front() else { return };
            let lowered = if now_ns - since_ns < WAIT_NS { self.prove(now_ns, &denied) } else { None };
            let Some((denial, rule)) = lowered else {
                self.hitters.waiting.pop_front();
                continue;
            };
            if !self.may_install() || !self.has_share() || !self.budget.allows(now_ns, 1) {
                return;
            }
            if !self.has_room_for(now_ns, &denied) {
                self.hitters.waiting.pop_front();
                self.make_room_for(&denied);
                continue;
            }
            if !self.queue_room(now_ns, engine) {
                return;
            }
            self.hitters.waiting.pop_front();
            self.install_denial(now_ns, engine, &denied, denial, &rule);
        }
    }

    /// Why hardware may drop a tuple, and the rule; `None` if it may not, or cannot.
    fn prove(&self, now_ns: u64, denied: &Denied) -> Option<(Denial, crate::rule::Rule)> {
        let held = now_ns < self.hitters.hold[group_of(&denied.key)].0;
        if held || self.by_key.contains_key(&denied.key) {
            return None;
        }
        let denial = self.snapshot.denies_all(denied.ingress, &denied.key)?;
        let rule = lower::denial(&self.topology, denied.ingress, &denied.key).ok()?;
        Some((denial, rule))
    }

    /// While connections wait, their insertions come first.
    fn has_share(&mut self) -> bool {
        if self.hitters.period.0 != self.period_ns {
            self.hitters.period = (self.period_ns, 0);
        }
        self.waiting.is_empty() || self.hitters.period.1.saturating_mul(SHARE) <= self.period.insertions
    }

    fn has_room_for(&self, now_ns: u64, denied: &Denied) -> bool {
        let tenant = denied.key.tenant;
        let tenants = self.tenant_rules.get(tenant.index()).copied().unwrap_or(u32::MAX);
        let share = self.share(tenant);
        let shared = share >= self.rules_max || tenants < share;
        let there_is = self.used + self.reserved < self.rules_max && now_ns >= self.full_until_ns;
        shared && there_is && !self.hitters.free.is_empty()
    }

    /// Whoever sends much more than another takes its place, once it is told again.
    fn make_room_for(&mut self, denied: &Denied) {
        if self.hitters.free.is_empty() && self.hitters.settling.is_empty() {
            if let Some(at) = self.hitters.least(denied.per_second as f32 / TIMES, None) {
                self.close_denial(at);
            }
        }
    }

    /// Makes one go for connections that find no room; `false` if there is none. Of this tenant's, if it is
    /// its share that is used up.
    pub(super) fn yield_denial(&mut self, tenant: Option<TenantId>) -> bool {
        let Some(at) = self.hitters.least(f32::INFINITY, tenant) else { return false };
        self.close_denial(at);
        true
    }

    fn install_denial<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        denied: &Denied,
        denial: Denial,
        rule: &crate::rule::Rule,
    ) {
        let Some(at) = self.hitters.free.pop() else { return };
        let leg = self.hitters.leg(at);
        if let Err(error) = self.begin_install(now_ns, engine, leg, rule) {
            self.hitters.free.push(at);
            return self.denial_failed(now_ns, &denied.key, error);
        }
        self.hitters.period.1 += 1;
        self.hitters.slots[at] = Some(Hitter {
            state: State::Installing { since_ns: now_ns, wanted: true },
            denied: *denied,
            denial,
            counts: [true; 2],
            enforced: false,
            seen: Count::default(),
            // Until hardware has been asked, it is believed to go on as it was.
            rate: denied.per_second as f32,
            read_ns: now_ns,
            used_ns: now_ns,
            lost: 0,
        });
        self.by_key.insert(denied.key, leg.rule.0);
        self.used += 1;
        if let Some(rules) = self.tenant_rules.get_mut(denied.key.tenant.index()) {
            *rules += 1;
        }
    }

    fn denial_failed(&mut self, now_ns: u64, key: &FlowKey, error: EngineError) {
        match error {
            EngineError::QueueFull => {}
            EngineError::Lost(_) => self.begin_recovery(Declined::Failed),
            EngineError::TableFull
            | EngineError::NoCounter
            | EngineError::Refused(_)
            | EngineError::Failed => {
                self.counters.denials_failed.add(1);
                self.hitters.hold(now_ns, key);
            }
        }
    }
}

/// A new configuration.
impl Machine {
    /// Asks the present configuration about every rule; `before` is the one that did allow them.
    pub(super) fn prove_denials(&mut self, now_ns: u64, before: &Snapshot) {
        for at in 0..self.hitters.slots.len() {
            let Some(hitter) = self.hitters.get_mut(at) else { continue };
            let Hitter { denied, denial, .. } = *hitter;
            let snapshot = &self.snapshot;
            hitter.counts[0] &= keeps_rule(before.policy(), snapshot.policy(), denial.rule);
            let name = |snapshot: &Snapshot| snapshot.service(denial.service).map(|it| it.name.clone());
            hitter.counts[1] &= name(before) == name(snapshot);
            let holds = hitter.state.holds_rule();
            let now = snapshot.denies_all(denied.ingress, &denied.key);
            let kept = now == Some(denial) && hitter.counts == [true; 2];
            if !holds || kept {
                continue;
            }
            if now.is_none() && !hitter.enforced {
                hitter.enforced = true;
                self.enforcing += 1;
                self.fence.note_denied(now_ns, group_of(&denied.key));
                if hitter.state == State::Leaving {
                    // It waits with those that are idle, and does not any more. Who comes to it there will
                    // find it gone.
                    self.denied.push_back(self.hitters.number(at));
                }
            }
            self.close_denial(at);
        }
    }
}

/// Whether what has this number in one policy has it in the next.
fn keeps_rule(before: &Policy, next: &Policy, number: Option<RuleNumber>) -> bool {
    let Some(number) = number else { return true };
    let (Some(was), Some(is)) = (before.rule(number), next.rule(number)) else { return false };
    let (was, is) = (&was.statement, &is.statement);
    match &was.name {
        Some(name) => is.name.as_ref() == Some(name),
        None => is.name.is_none() && (was.action, &was.matches) == (is.action, &is.matches),
    }
}

/// Leaving.
impl Machine {
    /// Begins to take a rule out, or remembers to as soon as it is there.
    pub(super) fn close_denial(&mut self, at: usize) {
        let number = self.hitters.number(at);
        let Some(hitter) = self.hitters.get_mut(at) else { return };
        match hitter.state {
            State::Installing { since_ns, .. } => {
                hitter.state = State::Installing { since_ns, wanted: false };
            }
            State::In { .. } => {
                hitter.state = State::Leaving;
                // It drops what may have to be forwarded: ahead of what is merely idle, as what forwards what
                // is denied.
                let queue = if hitter.enforced { &mut self.denied } else { &mut self.leaving };
                queue.push_back(number);
            }
            State::Leaving | State::Removing { .. } | State::Settling { .. } => {}
        }
    }

    /// Tells the engine to take a rule out. After an error it has to be called again.
    pub(super) fn remove_denial<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        at: usize,
    ) -> Result<(), EngineError> {
        let room = self.queue_room(now_ns, engine);
        let leg = self.hitters.leg(at);
        let Some(hitter) = self.hitters.get_mut(at).filter(|hitter| hitter.state == State::Leaving) else {
            return Ok(());
        };
        if !room {
            return Err(EngineError::QueueFull);
        }
        engine.remove(leg)?;
        hitter.state = State::Removing { since_ns: now_ns };
        self.in_flight += 1;
        self.blocked_ns = None;
        self.begun += 1;
        Ok(())
    }

    /// An operation has ended.
    pub(super) fn complete_denial(&mut self, now_ns: u64, completion: &Completion, at: usize) {
        let Some(hitter) = self.hitters.get_mut(at) else { return self.counters.late.add(1) };
        let key = hitter.denied.key;
        match (*completion, hitter.state) {
            (Completion::Installed(_), State::Installing { since_ns, wanted }) => {
                hitter.state = State::In { since_ns: now_ns };
                (hitter.read_ns, hitter.used_ns) = (now_ns, now_ns);
                self.operation_ended(true);
                self.time(now_ns, Timing::Insert, since_ns);
                self.counters.rules.add(1);
                self.counters.denials.add(1);
                self.counters.denials_installed.add(1);
                self.hitters.hold[group_of(&key)] = (0, HOLD_MS);
                if !wanted {
                    self.close_denial(at);
                }
            }
            (Completion::Failed(_, error), State::Installing { .. }) => {
                self.operation_ended(true);
                self.denial_gone(now_ns, at);
                self.free_denial(at);
                self.denial_failed(now_ns, &key, error);
            }
            (Completion::Removed(_), State::Removing { .. }) => {
                let until_ns = now_ns + u64::from(self.traits.settle_ms) * MS;
                hitter.state = State::Settling { until_ns };
                self.operation_ended(false);
                self.counters.rules.sub(1);
                self.counters.denials.sub(1);
                self.full_until_ns = 0;
                self.denial_gone(now_ns, at);
                self.hitters.settling.push_back(at);
            }
            (Completion::Stuck(..), State::Removing { .. }) => {
                self.operation_ended(false);
                self.begin_recovery(Declined::Failed);
            }
            _ => self.counters.late.add(1),
        }
    }

    /// Takes a rule off the books: not a packet comes to it any more.
    fn denial_gone(&mut self, now_ns: u64, at: usize) {
        let number = self.hitters.number(at);
        let Some(hitter) = self.hitters.get_mut(at) else { return };
        let key = hitter.denied.key;
        let enforced = std::mem::take(&mut hitter.enforced);
        if self.by_key.get(&key) == Some(&number) {
            self.by_key.remove(&key);
        }
        self.used -= 1;
        if let Some(rules) = self.tenant_rules.get_mut(key.tenant.index()) {
            *rules -= 1;
        }
        if enforced {
            self.enforcing -= 1;
            let fenced_ns = self.fence.note_out(now_ns, group_of(&key));
            if fenced_ns < now_ns {
                self.observe(Timing::Enforce, fenced_ns.saturating_sub(self.adopted_ns));
            } else {
                self.time(now_ns, Timing::Enforce, self.adopted_ns);
            }
        }
    }

    fn free_denial(&mut self, at: usize) {
        if self.hitters.slots[at].take().is_some() {
            self.hitters.free.push(at);
        }
    }

    /// Everything is out: brings the books in line. What the last counters said has been counted.
    pub(super) fn lose_denials(&mut self, now_ns: u64) {
        self.hitters.settling.clear();
        for at in 0..self.hitters.slots.len() {
            let Some(state) = self.hitters.get(at).map(|hitter| hitter.state) else { continue };
            if state.in_force() {
                self.counters.rules.sub(1);
                self.counters.denials.sub(1);
            }
            if state.holds_rule() {
                self.denial_gone(now_ns, at);
            }
            self.free_denial(at);
        }
    }
}

/// Counting.
impl Machine {
    /// Reads the counters whose turn it is, takes idle ones out, and frees those that have come to rest.
    pub(super) fn tend_denials<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        self.settle_denials(now_ns, engine);
        let slots = self.hitters.slots.len();
        if self.hitters.cursor >= slots {
            if now_ns - self.hitters.round_ns < u64::from(self.settings.poll_ms.max(1)) * MS {
                return;
            }
            (self.hitters.cursor, self.hitters.round_ns) = (0, now_ns);
        }
        let end = slots.min(self.hitters.cursor + READ_PER_STEP);
        for at in self.hitters.cursor..end {
            self.visit_denial(now_ns, engine, at);
        }
        self.hitters.cursor = end;
    }

    fn visit_denial<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, at: usize) {
        let Some(state) = self.hitters.get(at).map(|hitter| hitter.state) else { return };
        let timeout_ns = u64::from(self.settings.operation_timeout_ms) * MS;
        match state {
            State::Installing { since_ns, .. } | State::Removing { since_ns }
                if self.health.is_running() && now_ns.saturating_sub(since_ns) > timeout_ns =>
            {
                self.begin_recovery(Declined::Timeout);
            }
            State::In { .. } | State::Leaving | State::Removing { .. } => {
                self.read_denial(now_ns, engine, at);
            }
            State::Installing { .. } | State::Settling { .. } => {}
        }
        let Some(hitter) = self.hitters.get(at) else { return };
        let used_ns = hitter.used_ns.max(self.fence.last_ns().unwrap_or(0));
        let idle = now_ns.saturating_sub(used_ns) >= self.idle_ns();
        if self.health.is_running() && (idle || hitter.lost >= LOST_READINGS) {
            self.close_denial(at);
        }
    }

    /// Reads all of them, while the device still answers.
    pub(super) fn read_denials<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        for at in 0..self.hitters.slots.len() {
            let has_counter = |hitter: &Hitter| !matches!(hitter.state, State::Installing { .. });
            if self.hitters.get(at).is_some_and(has_counter) {
                self.read_denial(now_ns, engine, at);
            }
        }
    }

    /// Reads a counter and counts what is new.
    fn read_denial<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, at: usize) {
        let leg = self.hitters.leg(at);
        let Some(hitter) = self.hitters.get_mut(at) else { return };
        let count = match engine.count(leg) {
            Ok(count) => count,
            Err(EngineError::Lost(_)) => {
                hitter.lost = hitter.lost.saturating_add(1);
                return;
            }
            Err(_) => return,
        };
        // Totals only grow; what was read between packets and bytes is mended next time.
        let packets = count.packets.saturating_sub(hitter.seen.packets);
        hitter.seen.packets += packets;
        hitter.seen.bytes = hitter.seen.bytes.max(count.bytes);
        hitter.rate = follow(hitter.rate, packets, now_ns.saturating_sub(hitter.read_ns));
        (hitter.read_ns, hitter.lost) = (now_ns, 0);
        if packets > 0 {
            hitter.used_ns = now_ns;
            self.counters.denied_packets.add(packets);
            count_drops(&self.hitters.counted, &self.hitters.slots[at], packets);
        }
    }

    /// Reads the counters of rules that are out one last time, once they have come to rest, and frees them.
    fn settle_denials<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        for _ in 0..self.hitters.settling.len().min(READ_PER_STEP) {
            let Some(&at) = self.hitters.settling.front() else { return };
            match self.hitters.get(at).map(|hitter| hitter.state) {
                Some(State::Settling { until_ns }) if now_ns < until_ns => return,
                Some(State::Settling { .. }) => {}
                _ => {
                    self.hitters.settling.pop_front();
                    continue;
                }
            }
            self.hitters.settling.pop_front();
            self.read_denial(now_ns, engine, at);
            let lost = self.hitters.get(at).map_or(0, |hitter| hitter.lost);
            if (1..LOST_READINGS).contains(&lost) {
                // Perhaps the device finds it again.
                self.hitters.settling.push_back(at);
                continue;
            }
            engine.release(self.hitters.leg(at));
            self.free_denial(at);
        }
    }
}

/// Counts what a rule has dropped, as a worker would have.
fn count_drops(counters: &WorkerCounters, hitter: &Option<Hitter>, packets: u64) {
    let Some(hitter) = hitter else { return };
    let add = |counter: Option<&Counter>| counter.into_iter().for_each(|counter| counter.add(packets));
    let reason = DropReason::PolicyDenied as usize;
    add(counters.dropped.get(reason));
    add(counters.tenants.get(hitter.denied.key.tenant.index()).and_then(|it| it.dropped.get(reason)));
    let [rule, service] = hitter.counts;
    if service {
        add(counters.service(hitter.denial.service).map(|it| &it.dropped));
    }
    match hitter.denial.rule {
        Some(number) if rule => add(counters.policy.rules.get(number.index())),
        Some(_) => {}
        None => add(counters.policy.defaults.get(Way::Ingress as usize)),
    }
}

/// What is shown of them.
impl Machine {
    /// All of them.
    #[must_use]
    pub fn denial_rows(&self) -> Vec<DenialRow> {
        let now_ns = self.clock.now_ns;
        let row = |(at, hitter): (usize, &Option<Hitter>)| {
            let hitter = hitter.as_ref()?;
            let installed_ms = match hitter.state {
                State::In { since_ns } => now_ns.saturating_sub(since_ns) / MS,
                _ => 0,
            };
            Some(DenialRow {
                rule: RuleId(self.hitters.number(at)),
                denied: hitter.denied,
                denial: hitter.denial,
                state: hitter.state.name(),
                dropped: ip_count(hitter.seen, overhead(&self.topology, hitter.denied.ingress)),
                installed_ms,
            })
        };
        self.hitters.slots.iter().enumerate().filter_map(row).collect()
    }
}
