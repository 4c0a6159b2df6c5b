//! Rules of services by source partition: they are the configuration's, not connections'.
//!
//! ```text
//! configuration, next hops ─▶ plan: one rule for each partition, port and way in, or why there is none
//!                                │
//! Installing ─▶ In ──(no longer as planned)──▶ Removing ─▶ Out ─(counter at rest)─▶ free
//! ```
//!
//! Where the rule of a partition changes, the old one is taken out before the new one is put in: two
//! with one pattern must not meet, whatever the service is called, nor two of which one has more bits
//! than the other. Between the two, and wherever there is none, the packets miss and go to software,
//! which picks by the same table; a rule for the wrong backend is never in force beside that for the
//! right one. What the policy says is not in these rules: where it has anything to say of
//! a tenant, there are none.

use super::fence::GROUPS;
use super::rounds::{LOST_STREAK, add, ip_count};
use super::{MS, Machine, Outbox, Timing};
use crate::engine::{Completion, EngineError, FlowEngine, LegId};
use crate::lower::ports::overhead;
use crate::lower::{self, Parted};
use crate::rule::Rule;
use dataplane::addr::{Ip, MacAddr};
use dataplane::conntrack::Count;
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, ServiceId, WorkerId};
use dataplane::limits::{DENY_RULES_MAX, PARTITION_RULES_MAX, PARTITION_RULES_PLANNED_MAX};
use dataplane::offload::{Answer, Declined, FlowRef, Leg, Reached, RuleId};
use dataplane::snapshot::{Affinity, Hop, Service};
use std::collections::{BTreeMap, HashMap};

/// Operations begun in one step, with an engine that has queues,
const MOVES_PER_STEP: usize = 512;
/// and with one whose calls block.
const MOVES_PER_STEP_BLOCKING: usize = 16;
/// What found no room is tried again after so long,
const RETRY_NS: u64 = 1_000 * MS;
/// and what the driver refused after so long.
const REFUSED_NS: u64 = 30_000 * MS;

/// Why a partition has no rule, and software forwards its packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Absent {
    /// The policy has something to say of its tenant, which hardware would not hear.
    Policy,
    /// Its packets are limited.
    Metered,
    /// No way in leads to the backend in hardware, or there is no backend.
    Path,
    /// A packet that came in may be too big for the way out.
    Mtu,
    /// The backend's MAC address is not known.
    Neighbour,
    /// There is no room for it.
    Full,
    /// The driver refuses it, or the device did not do as it was told.
    Refused,
}

impl Absent {
    /// All reasons, in declaration order.
    pub const ALL: [Absent; 7] = [
        Absent::Policy,
        Absent::Metered,
        Absent::Path,
        Absent::Mtu,
        Absent::Neighbour,
        Absent::Full,
        Absent::Refused,
    ];

    /// The name used in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Absent::Policy => "declined:policy",
            Absent::Metered => "declined:metered",
            Absent::Path => "declined:path",
            Absent::Mtu => "declined:mtu",
            Absent::Neighbour => "declined:neighbour",
            Absent::Full => "declined:full",
            Absent::Refused => "declined:refused",
        }
    }
}

/// What tells a rule from all others: what it matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Key {
    vip: Ip,
    is_tcp: bool,
    ingress: PortId,
    port: u16,
    partition: u32,
}

impl Key {
    /// The same for all partitions of a port of a service.
    fn door(self) -> Key {
        Key { partition: 0, ..self }
    }
}

/// A rule as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    service: ServiceId,
    /// Of how many bits its partition is.
    bits: u8,
    backend: BackendId,
    rule: Rule,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Installing { since_ns: u64 },
    In { since_ns: u64 },
    Removing { since_ns: u64 },
    Out { until_ns: u64 },
}

#[derive(Debug)]
struct Entry {
    key: Key,
    wanted: Wanted,
    state: State,
    /// It is not, or no longer, what is wanted.
    stale: bool,
    /// Its removal is told of as enforcing the configuration,
    enforced: bool,
    /// and its policy.
    denied: bool,
    seen: Count,
}

impl Entry {
    fn holds_rule(&self) -> bool {
        !matches!(self.state, State::Out { .. })
    }

    fn group(&self) -> usize {
        (self.wanted.rule.attr.group as usize).min(GROUPS - 1)
    }
}

/// One rule of a partition, for people.
#[derive(Clone, PartialEq, Debug)]
pub struct PartitionRow {
    /// Its number among all rules.
    pub rule_id: RuleId,
    /// Whose it is.
    pub service: ServiceId,
    /// The port they come in by,
    pub ingress: PortId,
    /// the service's port they are for,
    pub port: u16,
    /// and to whom they go.
    pub backend: BackendId,
    /// Which partition.
    pub partition: u32,
    /// `installing`, `installed`, `removing`.
    pub state: &'static str,
    /// The rule.
    pub rule: Rule,
    /// What it has forwarded, bytes of IP packet.
    pub count: Count,
    /// How long it has been in force, milliseconds.
    pub installed_ms: u64,
}

/// How a service's rules stand.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PartitionTally {
    /// Rules that there is a plan for.
    pub planned: u64,
    /// Of these, in force as planned,
    pub installed: u64,
    /// and what could not be put in, by [`Absent`].
    pub put_off: [u64; Absent::ALL.len()],
    /// Rules that there is no plan for, by [`Absent`].
    pub unplanned: [u64; Absent::ALL.len()],
}

impl PartitionTally {
    /// Whether each planned rule is in force or was tried in vain.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.installed + self.put_off.iter().sum::<u64>() >= self.planned
    }
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Partitions {
    /// By number.
    entries: Vec<Option<Entry>>,
    /// Of those that may be in hardware, the number.
    by_key: HashMap<Key, u32>,
    wanted: BTreeMap<Key, Wanted>,
    /// What could not be put in, and until when it is not tried again.
    put_off: HashMap<Key, (u64, Absent)>,
    /// Rules of services that were not planned, and why.
    unplanned: BTreeMap<ServiceId, [u64; Absent::ALL.len()]>,
    /// Rules for which there was a plan, or could have been.
    tried: usize,
    reached: HashMap<Hop, MacAddr>,
    /// What workers have not been told.
    owed: BTreeMap<BackendId, Count>,
    /// There is to be a new plan,
    dirty: bool,
    /// and something may be in hardware otherwise than planned.
    todo: bool,
    read_ns: u64,
}

impl Partitions {
    pub(super) fn new(now_ns: u64) -> Partitions {
        Partitions {
            entries: Vec::new(),
            by_key: HashMap::new(),
            wanted: BTreeMap::new(),
            put_off: HashMap::new(),
            unplanned: BTreeMap::new(),
            tried: 0,
            reached: HashMap::new(),
            owed: BTreeMap::new(),
            dirty: true,
            todo: false,
            read_ns: now_ns,
        }
    }

    /// Something has changed that rules follow from.
    pub(super) fn replan(&mut self) {
        self.dirty = true;
    }

    /// There are to be no such rules.
    fn leave(&mut self, service: ServiceId, absent: Absent, rules: u64) {
        self.unplanned.entry(service).or_default()[absent as usize] += rules;
    }

    /// What could not be put in, and is still wanted.
    fn put_off(&self) -> impl Iterator<Item = (&Key, Absent)> {
        let put_off = self.put_off.iter().filter(|(key, _)| !self.by_key.contains_key(key));
        put_off.map(|(key, (_, why))| (key, *why))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.dirty || self.todo
    }

    /// A number that is free.
    fn free(&mut self) -> Option<u32> {
        let at = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        if at == self.entries.len() {
            if at >= PARTITION_RULES_MAX as usize {
                return None;
            }
            self.entries.push(None);
        }
        Some(at as u32)
    }

    /// Ports of services of which rules are to go, or are going, and how many bits those compare.
    fn leaving(&self) -> HashMap<Key, u8> {
        let leaving = self.entries.iter().flatten().filter(|entry| entry.stale && entry.holds_rule());
        leaving.map(|entry| (entry.key.door(), entry.wanted.bits)).collect()
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(number as usize)?.as_mut()
    }
}

/// The plan.
impl Machine {
    /// Hears who is at a next hop.
    pub fn reached(&mut self, reached: &Reached) {
        let known = self.partitions.reached.insert(reached.hop, reached.mac);
        if known != Some(reached.mac) {
            self.partitions.replan();
        }
    }

    /// Works out which rules there should be, if that may have changed.
    pub(super) fn plan_partitions(&mut self, now_ns: u64) {
        if !std::mem::take(&mut self.partitions.dirty) {
            return;
        }
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let hops: std::collections::HashSet<&Hop> = snapshot.parted_hops().iter().collect();
        self.partitions.reached.retain(|hop, _| hops.contains(hop));
        self.partitions.wanted.clear();
        self.partitions.put_off.clear();
        self.partitions.unplanned.clear();
        self.partitions.tried = 0;
        for service in snapshot.services.iter().flatten().filter(|service| !service.removed) {
            if let Affinity::Partition { bits } = service.affinity {
                self.plan_service(service, bits);
            }
        }
        self.partitions.todo |= !self.partitions.wanted.is_empty();
        for number in 0..self.partitions.entries.len() as u32 {
            self.judge_partition(now_ns, number);
        }
    }

    fn plan_service(&mut self, service: &Service, bits: u8) {
        let all = 1u64 << bits;
        if !service.offload {
            return;
        }
        let policed = self.snapshot.policy().concerns(service.tenant);
        let metered =
            self.snapshot.metered(service.id).is_some_and(|metered| metered.meters().next().is_some());
        let ingresses: Vec<PortId> = self.ingresses(service);
        let absent = match () {
            () if policed => Some(Absent::Policy),
            () if metered => Some(Absent::Metered),
            () if ingresses.is_empty() || service.lookup.is_empty() => Some(Absent::Path),
            () => None,
        };
        if let Some(absent) = absent {
            let ports: u64 = service.ports.iter().map(|ports| ports.len() as u64).sum();
            self.partitions.leave(service.id, absent, all * ports * ingresses.len().max(1) as u64);
            return;
        }
        for ingress in ingresses {
            for port in service.ports.iter().flat_map(Clone::clone) {
                let is_tcp = service.protocol == Protocol::Tcp;
                let key = Key { vip: service.vip, is_tcp, ingress, port, partition: 0 };
                self.plan_door(service, bits, key);
            }
        }
    }

    /// Plans the rules of one port of a service: all of them, or none if they have no numbers.
    fn plan_door(&mut self, service: &Service, bits: u8, door: Key) {
        let all = 1usize << bits;
        if self.partitions.tried + all > PARTITION_RULES_PLANNED_MAX as usize {
            self.partitions.leave(service.id, Absent::Full, all as u64);
            return;
        }
        self.partitions.tried += all;
        for partition in 0..all as u32 {
            let key = Key { partition, ..door };
            match self.plan_rule(service, bits, key) {
                Ok(wanted) => _ = self.partitions.wanted.insert(key, wanted),
                Err(absent) => self.partitions.leave(service.id, absent, 1),
            }
        }
    }

    /// The ways in: ports of the tenant from which hardware forwards at all.
    fn ingresses(&self, service: &Service) -> Vec<PortId> {
        let ports = (0u16..).zip(&self.snapshot.ports);
        let of_tenant = ports.filter(|(_, port)| port.tenant == service.tenant).map(|(id, _)| PortId(id));
        let backends = service.lookup.iter().filter_map(|id| self.snapshot.backend(*id)?.hop);
        let ways: std::collections::BTreeSet<PortId> = backends.map(|hop| hop.port).collect();
        let leads = |port: &PortId| ways.iter().any(|egress| lower::crosses(&self.topology, *port, *egress));
        of_tenant.filter(leads).collect()
    }

    fn plan_rule(&self, service: &Service, bits: u8, key: Key) -> Result<Wanted, Absent> {
        let id = service.lookup.get(key.partition as usize).ok_or(Absent::Path)?;
        let hop = self.snapshot.backend(*id).and_then(|backend| backend.hop).ok_or(Absent::Path)?;
        let next_hop = *self.partitions.reached.get(&hop).ok_or(Absent::Neighbour)?;
        let src = match service.vip.is_v4() {
            true => Ip::v4(key.partition),
            false => Ip::from_words([0, u64::from(key.partition)]),
        };
        let (tenant, protocol) = (service.tenant, service.protocol);
        let flow = FlowKey { src, dst: service.vip, src_port: 0, dst_port: key.port, tenant, protocol };
        let leg = Leg { ingress: key.ingress, egress: hop.port, next_hop };
        let rule = lower::partition(&self.topology, &Parted { key: flow, bits, leg });
        let absent = |declined| if declined == Declined::Mtu { Absent::Mtu } else { Absent::Path };
        Ok(Wanted { service: service.id, bits, backend: *id, rule: rule.map_err(absent)? })
    }

    /// Whether a rule is still as planned; it is to be taken out if it is not.
    fn judge_partition(&mut self, now_ns: u64, number: u32) {
        let Some(entry) = self.partitions.entries.get(number as usize).and_then(Option::as_ref) else {
            return;
        };
        if !entry.holds_rule() {
            return;
        }
        let as_planned = self.partitions.wanted.get(&entry.key) == Some(&entry.wanted);
        let (group, stale) = (entry.group(), entry.stale);
        let service = self.snapshot.service(entry.wanted.service);
        let denied = service.is_some_and(|service| self.snapshot.policy().concerns(service.tenant));
        if as_planned || stale && !denied {
            return;
        }
        self.partitions.todo = true;
        let Some(entry) = self.partitions.entry(number) else { return };
        entry.stale = true;
        if !std::mem::replace(&mut entry.enforced, true) {
            self.enforcing += 1;
        }
        if denied && !std::mem::replace(&mut entry.denied, true) {
            self.fence.note_denied(now_ns, group);
        }
    }
}

/// What is done about it.
impl Machine {
    /// Takes out what is not as planned, and puts in what is missing.
    pub(super) fn move_partitions<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        if !std::mem::take(&mut self.partitions.todo) {
            return;
        }
        let mut left = if self.traits.operations_max <= 1 { MOVES_PER_STEP_BLOCKING } else { MOVES_PER_STEP };
        let done =
            self.remove_stale(now_ns, engine, &mut left) && self.install_missing(now_ns, engine, &mut left);
        self.partitions.todo |= !done;
        self.count_partitions();
    }

    /// `false`: there is more to do.
    fn remove_stale<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, left: &mut usize) -> bool {
        for number in 0..self.partitions.entries.len() as u32 {
            let leaves = |entry: &Entry| entry.stale && matches!(entry.state, State::In { .. });
            if !self.partitions.entry(number).is_some_and(|entry| leaves(entry)) {
                continue;
            }
            if *left == 0 || !self.queue_room(now_ns, engine) {
                return false;
            }
            *left -= 1;
            match engine.remove(self.partition_leg(number)) {
                Ok(()) => {
                    self.in_flight += 1;
                    self.begun += 1;
                    self.blocked_ns = None;
                    if let Some(entry) = self.partitions.entry(number) {
                        entry.state = State::Removing { since_ns: now_ns };
                    }
                }
                Err(EngineError::QueueFull) => {
                    self.blocked(now_ns);
                    return false;
                }
                Err(_) => {
                    self.begin_recovery(Declined::Failed);
                    return false;
                }
            }
        }
        true
    }

    fn install_missing<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, left: &mut usize) -> bool {
        let leaving = self.partitions.leaving();
        let missing = |(key, wanted): &(&Key, &Wanted)| {
            let waits = self.partitions.put_off.get(key).is_some_and(|(until_ns, _)| *until_ns > now_ns);
            let meets = leaving.get(&key.door()).is_some_and(|bits| *bits != wanted.bits);
            !waits && !meets && !self.partitions.by_key.contains_key(key)
        };
        let missing: Vec<Key> = self.partitions.wanted.iter().filter(missing).map(|(key, _)| *key).collect();
        for key in missing {
            // As many as connections' rules may be, and not at their expense: one bucket is for both.
            if *left == 0 || !self.queue_room(now_ns, engine) || !self.budget.allows(now_ns, 1) {
                return false;
            }
            *left -= 1;
            let Some(wanted) = self.partitions.wanted.get(&key).cloned() else { continue };
            let room = self.used + self.reserved < self.rules_max;
            let Some(number) = self.partitions.free().filter(|_| room) else {
                self.partitions.put_off.insert(key, (now_ns + RETRY_NS, Absent::Full));
                continue;
            };
            let begun = engine.install(self.partition_leg(number), &wanted.rule);
            if begun == Err(EngineError::QueueFull) {
                self.blocked(now_ns);
                return false;
            }
            self.budget.spend(now_ns);
            self.counters.insertions.add(1);
            if let Err(error) = begun {
                self.put_partition_off(now_ns, key, error);
                continue;
            }
            (self.in_flight, self.installing) = (self.in_flight + 1, self.installing + 1);
            (self.begun, self.blocked_ns) = (self.begun + 1, None);
            self.used += 1;
            self.partitions.by_key.insert(key, number);
            let state = State::Installing { since_ns: now_ns };
            let entry = Entry {
                key,
                wanted,
                state,
                stale: false,
                enforced: false,
                denied: false,
                seen: Count::default(),
            };
            self.partitions.entries[number as usize] = Some(entry);
        }
        true
    }

    /// The number of the first of them: behind those of connections, and of rules that drop.
    pub(super) fn first_partition(&self) -> u32 {
        self.slab.slots() + DENY_RULES_MAX
    }

    fn partition_leg(&self, number: u32) -> LegId {
        LegId { rule: RuleId(self.first_partition() + number), direction: Direction::Original }
    }

    fn put_partition_off(&mut self, now_ns: u64, key: Key, error: EngineError) {
        let (wait_ns, absent) = match error {
            EngineError::QueueFull | EngineError::TableFull | EngineError::NoCounter => {
                (RETRY_NS, Absent::Full)
            }
            EngineError::Refused(_) => (REFUSED_NS, Absent::Refused),
            EngineError::Failed | EngineError::Lost(_) => (RETRY_NS, Absent::Refused),
        };
        self.partitions.put_off.insert(key, (now_ns + wait_ns, absent));
    }

    /// An operation on the rule of a partition has ended.
    pub(super) fn complete_partition(&mut self, now_ns: u64, number: u32, completion: &Completion) {
        let Some(entry) = self.partitions.entry(number) else { return self.counters.late.add(1) };
        match (*completion, entry.state) {
            (Completion::Installed(_), State::Installing { since_ns }) => {
                entry.state = State::In { since_ns: now_ns };
                let stale = entry.stale;
                self.partitions.todo |= stale;
                self.operation_ended(true);
                self.counters.rules.add(1);
                self.time(now_ns, Timing::Insert, since_ns);
            }
            (Completion::Failed(_, error), State::Installing { .. }) => {
                let key = entry.key;
                self.operation_ended(true);
                self.partition_out(now_ns, number);
                self.put_partition_off(now_ns, key, error);
                self.partitions.entries[number as usize] = None;
            }
            (Completion::Removed(_), State::Removing { .. }) => {
                entry.state = State::Out { until_ns: now_ns + u64::from(self.traits.settle_ms) * MS };
                self.operation_ended(false);
                self.counters.rules.sub(1);
                self.partition_out(now_ns, number);
                self.partitions.todo = true;
            }
            (Completion::Stuck(..), State::Removing { .. }) => {
                self.operation_ended(false);
                self.begin_recovery(Declined::Failed);
            }
            _ => self.counters.late.add(1),
        }
    }

    /// A rule forwards nothing any more: brings the books in line.
    fn partition_out(&mut self, now_ns: u64, number: u32) {
        let Some(entry) = self.partitions.entry(number) else { return };
        let (key, group) = (entry.key, entry.group());
        let (enforced, denied) = (std::mem::take(&mut entry.enforced), std::mem::take(&mut entry.denied));
        self.partitions.by_key.remove(&key);
        self.used -= 1;
        if denied {
            self.fence.note_out(now_ns, group);
        }
        if enforced {
            self.enforcing -= 1;
            self.time(now_ns, Timing::Enforce, self.enforce_from(self.adopted_ns));
        }
    }

    /// The engine has been emptied.
    pub(super) fn lose_partitions(&mut self, now_ns: u64) {
        for number in 0..self.partitions.entries.len() as u32 {
            let Some(entry) = self.partitions.entry(number) else { continue };
            let (holds, state) = (entry.holds_rule(), entry.state);
            if matches!(state, State::In { .. } | State::Removing { .. }) {
                self.counters.rules.sub(1);
            }
            if holds {
                self.partition_out(now_ns, number);
            }
        }
        self.partitions.entries.clear();
        self.partitions.todo = true;
    }
}

/// What is counted.
impl Machine {
    /// Reads all counters when it is time, tells workers what is new, and looks after what takes too long.
    pub(super) fn read_partitions<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        outbox: &mut impl Outbox,
    ) {
        if now_ns - self.partitions.read_ns < u64::from(self.settings.poll_ms.max(1)) * MS {
            return;
        }
        self.partitions.read_ns = now_ns;
        let timeout_ns = u64::from(self.settings.operation_timeout_ms) * MS;
        for number in 0..self.partitions.entries.len() as u32 {
            let Some(entry) = self.partitions.entry(number) else { continue };
            let state = entry.state;
            self.read_partition(engine, number);
            match state {
                State::Installing { since_ns } | State::Removing { since_ns }
                    if now_ns.saturating_sub(since_ns) > timeout_ns =>
                {
                    self.begin_recovery(Declined::Timeout);
                }
                State::Out { until_ns } if now_ns >= until_ns => {
                    engine.release(self.partition_leg(number));
                    self.partitions.entries[number as usize] = None;
                }
                _ => {}
            }
        }
        let Partitions { put_off, by_key, .. } = &mut self.partitions;
        put_off.retain(|key, _| !by_key.contains_key(key));
        self.partitions.todo |= self.partitions.put_off.values().any(|(until_ns, _)| *until_ns <= now_ns);
        self.tell_partitions(outbox);
        self.count_partitions();
    }

    /// Reads all counters once more before everything is taken out.
    pub(super) fn salvage_partitions<E: FlowEngine>(&mut self, engine: &mut E) {
        for number in 0..self.partitions.entries.len() as u32 {
            self.read_partition(engine, number);
        }
    }

    fn read_partition<E: FlowEngine>(&mut self, engine: &mut E, number: u32) {
        let leg = self.partition_leg(number);
        let Some(entry) = self.partitions.entries.get_mut(number as usize).and_then(Option::as_mut) else {
            return;
        };
        if matches!(entry.state, State::Installing { .. }) {
            return;
        }
        let count = match engine.count(leg) {
            Ok(count) => count,
            Err(EngineError::Lost(_)) => {
                self.lost_streak += 1;
                if self.lost_streak >= LOST_STREAK {
                    self.begin_recovery(Declined::Failed);
                }
                return;
            }
            Err(_) => return,
        };
        self.lost_streak = 0;
        let total = ip_count(count, overhead(&self.topology, entry.key.ingress));
        // Totals only grow; what was read between packets and bytes is mended next time.
        let new = Count {
            packets: total.packets.saturating_sub(entry.seen.packets),
            bytes: total.bytes.saturating_sub(entry.seen.bytes),
        };
        if new == Count::default() {
            return;
        }
        add(&mut entry.seen, new);
        add(self.partitions.owed.entry(entry.wanted.backend).or_default(), new);
        self.counters.packets.add(new.packets);
        self.counters.bytes.add(new.bytes);
    }

    /// A worker adds to its backends' totals what hardware has forwarded, of no connection that it knows.
    fn tell_partitions(&mut self, outbox: &mut impl Outbox) {
        while let Some((backend, count)) = self.partitions.owed.pop_first() {
            let told = outbox.answer(Answer::Counted {
                flow: FlowRef { worker: WorkerId(0), slot: u32::MAX, generation: 0 },
                rule: None,
                backend,
                counts: [count, Count::default()],
                next_hops: [None; 2],
                below: None,
            });
            if told.is_err() {
                self.counters.answers_delayed.add(1);
                add(self.partitions.owed.entry(backend).or_default(), count);
                return;
            }
        }
    }

    fn count_partitions(&self) {
        let entries = self.partitions.entries.iter().flatten();
        let (mut installed, mut moving, mut settling) = (0, 0, 0);
        for entry in entries {
            match entry.state {
                State::In { .. } if !entry.stale => installed += 1,
                State::Out { .. } => settling += 1,
                _ => moving += 1,
            }
        }
        self.counters.partitions.set(installed);
        self.counters.partitions_moving.set(moving);
        self.counters.partitions_settling.set(settling);
        let mut absent = [0; Absent::ALL.len()];
        let unplanned = self.partitions.unplanned.values();
        unplanned.for_each(|of| absent.iter_mut().zip(of).for_each(|(sum, rules)| *sum += rules));
        self.partitions.put_off().for_each(|(_, why)| absent[why as usize] += 1);
        self.counters.partitions_absent.iter().zip(absent).for_each(|(counter, count)| counter.set(count));
    }

    /// How the rules of each service by source partition stand.
    #[must_use]
    pub fn partition_tallies(&self) -> BTreeMap<ServiceId, PartitionTally> {
        let mut tallies: BTreeMap<ServiceId, PartitionTally> = BTreeMap::new();
        for wanted in self.partitions.wanted.values() {
            tallies.entry(wanted.service).or_default().planned += 1;
        }
        for (service, unplanned) in &self.partitions.unplanned {
            tallies.entry(*service).or_default().unplanned = *unplanned;
        }
        let in_force = |entry: &&Entry| !entry.stale && matches!(entry.state, State::In { .. });
        for entry in self.partitions.entries.iter().flatten().filter(in_force) {
            tallies.entry(entry.wanted.service).or_default().installed += 1;
        }
        for (key, why) in self.partitions.put_off() {
            let Some(wanted) = self.partitions.wanted.get(key) else { continue };
            tallies.entry(wanted.service).or_default().put_off[why as usize] += 1;
        }
        tallies
    }

    /// The rules of partitions that are in hardware, or on their way in or out.
    #[must_use]
    pub fn partition_rows(&self) -> Vec<PartitionRow> {
        let now_ns = self.clock.now_ns;
        let entries = (0u32..).zip(&self.partitions.entries);
        let row = |(number, entry): (u32, &Option<Entry>)| {
            let entry = entry.as_ref()?;
            let (state, installed_ms) = match entry.state {
                State::Installing { .. } => ("installing", 0),
                State::In { since_ns } => ("installed", (now_ns - since_ns) / MS),
                State::Removing { .. } => ("removing", 0),
                State::Out { .. } => return None,
            };
            Some(PartitionRow {
                rule_id: self.partition_leg(number).rule,
                service: entry.wanted.service,
                ingress: entry.key.ingress,
                port: entry.key.port,
                backend: entry.wanted.backend,
                partition: entry.key.partition,
                state,
                rule: entry.wanted.rule.clone(),
                count: entry.seen,
                installed_ms,
            })
        };
        entries.filter_map(row).collect()
    }
}
