//! What is done again and again: counters are read, idle rules found, and the last counts of pairs that are
//! out settled.

use super::pair::{DIRECTIONS, Ending, Phase};
use super::{MS, Machine, Outbox};
use crate::admission::follow;
use crate::engine::{EngineError, FlowEngine, LegId};
use crate::lower::ports::overhead;
use dataplane::conntrack::Count;
use dataplane::flow::Direction;
use dataplane::offload::{Answer, Ask, Declined, Removal, RuleId};
use dataplane::wire::ether;

/// Slots looked at in one step of a round,
const SLOTS_PER_STEP: u32 = 1024;
/// and pairs settled in one step.
const SETTLED_PER_STEP: usize = 512;
/// How often the engine is asked for aged rules, nanoseconds.
const AGED_NS: u64 = 100 * MS;
/// So many counters in a row that the device says it has lost mean that it has lost everything.
pub(super) const LOST_STREAK: u32 = 4;
/// So many times in a row the counters of one pair may be lost.
const LOST_READINGS: u8 = 3;
const RETRY_IDLE_MS: u32 = 1_000;

/// A round over all counters.
#[derive(Debug)]
pub(super) struct Round {
    cursor: u32,
    started_ns: u64,
    /// When the last round began that is complete.
    complete_ns: u64,
}

impl Round {
    pub(super) fn new(now_ns: u64) -> Round {
        Round { cursor: 0, started_ns: now_ns, complete_ns: now_ns }
    }

    /// How old the oldest count is, milliseconds.
    pub(super) fn age_ms(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.complete_ns) / MS
    }
}

/// A walk over all pairs with a new configuration in hand.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The next slot,
    pub(super) cursor: u32,
    /// and how many are to come.
    pub(super) left: u32,
    /// Whether its policy judges differently from the one before.
    pub(super) judges: bool,
}

impl Machine {
    /// Reads the counters whose turn it is: so many that a round takes as long as it should.
    pub(super) fn read_some<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, outbox: &mut impl Outbox) {
        let slots = u64::from(self.slab.slots());
        let poll_ns = u64::from(self.settings.poll_ms.max(1)) * MS;
        if self.round.cursor == self.slab.slots() {
            if now_ns - self.round.started_ns < poll_ns {
                return;
            }
            self.round.cursor = 0;
            self.round.started_ns = now_ns;
        }
        let elapsed_ns = (now_ns - self.round.started_ns).min(poll_ns);
        let due = (u128::from(slots) * u128::from(elapsed_ns)).div_ceil(u128::from(poll_ns)) as u32;
        let end = due.min(self.round.cursor.saturating_add(SLOTS_PER_STEP)).min(self.slab.slots());
        while self.round.cursor < end && (self.health.is_running() || self.health.is_stuck()) {
            let index = self.round.cursor;
            self.round.cursor += 1;
            self.visit(now_ns, engine, outbox, index);
        }
        if self.round.cursor == self.slab.slots() {
            self.round.complete_ns = self.round.started_ns;
        }
    }

    /// One pair's turn in a round.
    fn visit<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, outbox: &mut impl Outbox, index: u32) {
        let Some(pair) = self.slab.get(index) else { return };
        let timeout_ns = u64::from(self.settings.operation_timeout_ms) * MS;
        let overdue = |begun_ns: u64| now_ns.saturating_sub(begun_ns) > timeout_ns;
        let running = self.health.is_running();
        if running && pair.legs.iter().filter_map(|leg| leg.begun_ns()).any(overdue) {
            return self.begin_recovery(Declined::Timeout);
        }
        match pair.phase {
            Phase::Installed { told, .. } => {
                if running {
                    self.read_and_judge(now_ns, engine, index);
                } else {
                    self.read(now_ns, engine, index);
                }
                if told {
                    self.report(outbox, index);
                }
            }
            // Its rules may still be hit, for long if the engine is slow. A worker that hears nothing of
            // them in a minute takes them for gone.
            Phase::Closing { ending, .. } => {
                self.read(now_ns, engine, index);
                if self.health.is_stuck() && matches!(ending, Ending::Removed { .. }) {
                    self.report(outbox, index);
                }
            }
            Phase::Free | Phase::Opening | Phase::Settling { .. } => {}
        }
    }

    /// Reads a pair's counters, and takes it out if it is idle or lost.
    fn read_and_judge<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, index: u32) {
        self.read(now_ns, engine, index);
        let Some(pair) = self.slab.get(index) else { return };
        let Phase::Installed { told: true, .. } = pair.phase else { return };
        if pair.lost >= LOST_READINGS {
            self.close(now_ns, index, Removal::Lost, RETRY_IDLE_MS);
        } else if now_ns - pair.used_ns.max(self.fence.last_ns().unwrap_or(0)) >= self.idle_ns() {
            self.close(now_ns, index, Removal::Idle, RETRY_IDLE_MS);
        }
    }

    /// How long a counter has to stand still to prove that its rule was idle: it may lag.
    pub(super) fn idle_ns(&self) -> u64 {
        (u64::from(self.settings.idle_ms) + u64::from(self.traits.settle_ms)) * MS
    }

    /// Reads the counters of a pair and notes what is new.
    pub(super) fn read<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, index: u32) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        let counts_red = self.traits.meters.is_some_and(|metering| metering.counts_red);
        let (mut packets, mut sum, mut lost) = (0, Count::default(), false);
        for direction in DIRECTIONS {
            let way = direction as usize;
            if !pair.legs[way].has_counter() {
                continue;
            }
            match engine.count(LegId { rule: RuleId(index), direction }) {
                Ok(count) => {
                    self.lost_streak = 0;
                    let port = pair.ask.legs[way].map(|leg| leg.ingress);
                    let total = ip_count(count, port.map_or(0, |port| overhead(&self.topology, port)));
                    let seen = pair.seen[way];
                    // Totals only grow; what was read between packets and bytes is mended next time.
                    let new = Count {
                        packets: total.packets.saturating_sub(seen.packets),
                        bytes: total.bytes.saturating_sub(seen.bytes),
                    };
                    add(&mut pair.seen[way], new);
                    let passed = match pair.meter {
                        Some(number) => {
                            let frames = count.bytes.saturating_sub(pair.frame_bytes[way]);
                            pair.frame_bytes[way] = count.bytes;
                            let around = around(&self.topology, &pair.ask, direction);
                            self.meters.passed(number, new, (frames, around), counts_red)
                        }
                        None => new,
                    };
                    add(&mut pair.unreported[way], passed);
                    packets += new.packets;
                    add(&mut sum, passed);
                }
                Err(EngineError::Lost(_)) => {
                    self.lost_streak += 1;
                    lost = true;
                }
                Err(_) => {}
            }
        }
        pair.lost = if lost { pair.lost.saturating_add(1) } else { 0 };
        pair.rate = follow(pair.rate, packets, now_ns.saturating_sub(pair.read_ns));
        pair.read_ns = now_ns;
        if packets > 0 {
            pair.used_ns = now_ns;
            self.counters.packets.add(sum.packets);
            self.counters.bytes.add(sum.bytes);
        }
        if self.lost_streak >= LOST_STREAK {
            self.begin_recovery(Declined::Failed);
        }
    }

    /// Tells a worker what is new, and asks it without words whether it still knows the connection. If its
    /// ring is full the next round does.
    fn report(&mut self, outbox: &mut impl Outbox, index: u32) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        let answer = counted(pair, Some(RuleId(index)));
        match outbox.answer(answer) {
            Ok(()) => pair.unreported = [Count::default(); 2],
            Err(_) => self.counters.answers_delayed.add(1),
        }
    }

    /// Listens to the engine: it knows of rules that may be idle before their turn comes.
    pub(super) fn hear_aged<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        if !self.traits.ages || now_ns - self.aged_ns < AGED_NS {
            return;
        }
        self.aged_ns = now_ns;
        let mut aged = std::mem::take(&mut self.aged);
        aged.clear();
        engine.aged(&mut aged);
        for leg in &aged {
            if self.slab.get(leg.rule.0).is_some_and(|pair| matches!(pair.phase, Phase::Installed { .. })) {
                self.read_and_judge(now_ns, engine, leg.rule.0);
            }
        }
        self.aged = aged;
    }

    /// Reads the counters of pairs that are out one last time, once they have come to rest, and frees them.
    pub(super) fn settle_some<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        outbox: &mut impl Outbox,
    ) {
        for _ in 0..self.settling.len().min(SETTLED_PER_STEP) {
            let Some(&index) = self.settling.front() else { break };
            let Some(Phase::Settling { until_ns, told, .. }) = self.slab.get(index).map(|pair| pair.phase)
            else {
                self.settling.pop_front();
                continue;
            };
            if until_ns > now_ns {
                break;
            }
            self.settling.pop_front();
            if !told || !self.settle(now_ns, engine, outbox, index) {
                self.settling.push_back(index);
            }
        }
    }

    /// The last report on a pair; `false` if it has to be tried again.
    fn settle<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        outbox: &mut impl Outbox,
        index: u32,
    ) -> bool {
        self.read(now_ns, engine, index);
        let Some(pair) = self.slab.get(index) else { return true };
        let Phase::Settling { ending, .. } = pair.phase else { return true };
        if (1..LOST_READINGS).contains(&pair.lost) {
            // Perhaps the device finds it again.
            return false;
        }
        let silent = matches!(ending, Ending::Declined { .. })
            && pair.unreported.iter().all(|count| *count == Count::default());
        if !silent && outbox.answer(counted(pair, None)).is_err() {
            self.counters.answers_delayed.add(1);
            return false;
        }
        for direction in DIRECTIONS {
            if pair.legs[direction as usize].has_counter() {
                engine.release(LegId { rule: RuleId(index), direction });
            }
        }
        self.release_pair(now_ns, index);
        true
    }
}

fn counted(pair: &super::pair::Pair, rule: Option<RuleId>) -> Answer {
    Answer::Counted {
        flow: pair.ask.flow,
        rule,
        backend: pair.ask.backend,
        counts: pair.unreported,
        next_hops: pair.ask.legs.map(|leg| leg.map(|leg| leg.next_hop)),
        below: pair.ask.tunnel.and_then(|around| around.below()),
    }
}

/// Bytes around an IP packet of a connection's as it leaves hardware.
fn around(topology: &crate::lower::Topology, ask: &Ask, direction: Direction) -> u64 {
    let Some(leg) = ask.legs[direction as usize] else { return 0 };
    let behind = topology.ports.get(leg.egress.index()).and_then(|port| port.tunnel);
    let to_backend = direction == Direction::Original && !ask.nat;
    let tunnel = ask.tunnel.as_ref().filter(|_| behind.is_some() || to_backend);
    let added = tunnel.map_or(0, |tunnel| {
        let frames = behind.is_some() || tunnel.inner_link().is_some();
        tunnel.headers().len() + if frames { ether::LEN } else { 0 }
    });
    overhead(topology, behind.map_or(leg.egress, |tunnel| tunnel.link)) + added as u64
}

/// A count of whole frames as one of IP packets.
pub(super) fn ip_count(count: Count, overhead: u64) -> Count {
    Count {
        packets: count.packets,
        bytes: count.bytes.saturating_sub(count.packets.saturating_mul(overhead)),
    }
}

pub(super) fn add(sum: &mut Count, new: Count) {
    sum.packets += new.packets;
    sum.bytes += new.bytes;
}
