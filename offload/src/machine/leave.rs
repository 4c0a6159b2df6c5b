//! How rules leave, and what completions mean.

use super::fence;
use super::pair::{DIRECTIONS, Ending, LegState, Phase, patterns};
use super::{COMPLETIONS, MS, Machine, Timing};
use crate::counters::removal_index;
use crate::engine::{Completion, EngineError, FlowEngine, LegId};
use dataplane::flow::Direction;
use dataplane::offload::{Declined, Removal, RuleId};

/// Pairs whose removal may begin in one step, with an engine that has queues,
const REMOVALS_PER_STEP: usize = 1024;
/// and with one whose calls block.
const REMOVALS_PER_STEP_BLOCKING: usize = 16;
/// Who is told `Declined` although nothing is wrong with the connection may ask again soon.
const RETRY_SOON_MS: u32 = 100;

impl Machine {
    /// Begins to take a pair out, or remembers to as soon as its rules are there. Nothing happens if it is
    /// already leaving.
    pub(super) fn close(&mut self, now_ns: u64, index: u32, why: Removal, retry_ms: u32) {
        let Some(pair) = self.slab.get(index) else { return };
        let ending = match pair.phase {
            Phase::Installed { told: true, .. } => Ending::Removed { why, retry_ms },
            Phase::Installed { told: false, .. } | Phase::Opening => {
                Ending::Declined { reason: Declined::Path, retry_ms: retry_ms.max(RETRY_SOON_MS) }
            }
            Phase::Free | Phase::Closing { .. } | Phase::Settling { .. } => return,
        };
        self.end(now_ns, index, ending);
    }

    /// The pair will end so. The first reason stays.
    pub(super) fn end(&mut self, now_ns: u64, index: u32, ending: Ending) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        match pair.phase {
            Phase::Opening => {}
            Phase::Installed { .. } => self.counters.pairs.sub(1),
            Phase::Free | Phase::Closing { .. } | Phase::Settling { .. } => {
                return self.settle_if_out(now_ns, index);
            }
        }
        pair.phase = Phase::Closing { ending, since_ns: now_ns };
        let mut unbegun = 0;
        for leg in &mut pair.legs {
            match *leg {
                LegState::Wanted => {
                    *leg = LegState::Nothing;
                    unbegun += 1;
                }
                LegState::In => *leg = LegState::Leaving,
                _ => {}
            }
        }
        for _ in 0..unbegun {
            self.rule_gone(index);
        }
        self.queue_leaving(index);
        self.settle_if_out(now_ns, index);
    }

    /// Puts a pair with rules to be taken out in the queue.
    fn queue_leaving(&mut self, index: u32) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        if !pair.queued && pair.legs.contains(&LegState::Leaving) {
            pair.queued = true;
            let queue = if pair.denied { &mut self.denied } else { &mut self.leaving };
            queue.push_back(index);
        }
    }

    /// Takes one rule of this pair off the books.
    pub(super) fn rule_gone(&mut self, index: u32) {
        let Some(pair) = self.slab.get(index) else { return };
        self.used -= 1;
        if let Some(tenant) = self.tenant_rules.get_mut(pair.ask.key.tenant.index()) {
            *tenant -= 1;
        }
    }

    /// Once every leg of a closing pair has come to an end its worker is told, and its counters settle.
    pub(super) fn settle_if_out(&mut self, now_ns: u64, index: u32) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        let Phase::Closing { ending, since_ns } = pair.phase else { return };
        if !pair.is_out() {
            return;
        }
        let counted = pair.legs.contains(&LegState::Out);
        let settle_ns = if counted { u64::from(self.traits.settle_ms) * MS } else { 0 };
        pair.phase = Phase::Settling { ending, until_ns: now_ns + settle_ns, told: false };
        let enforced = std::mem::take(&mut pair.enforced);
        let denied = std::mem::take(&mut pair.denied).then(|| fence::group_of(&self.topology, &pair.ask));
        for key in patterns(&pair.ask) {
            if self.by_key.get(&key) == Some(&index) {
                self.by_key.remove(&key);
            }
        }
        let fenced_ns = denied.map(|group| self.fence.note_out(now_ns, group)).unwrap_or(now_ns);
        if enforced {
            self.enforcing -= 1;
            let from_ns = self.enforce_from(since_ns);
            if fenced_ns < now_ns {
                self.observe(Timing::Enforce, fenced_ns.saturating_sub(from_ns));
            } else {
                self.time(now_ns, Timing::Enforce, from_ns);
            }
        }
        self.settling.push_back(index);
        self.owe(index);
    }

    /// A configuration's wish is timed from the configuration, if that is what is being enforced; a wish
    /// that comes long after it, from itself.
    pub(super) fn enforce_from(&self, since_ns: u64) -> u64 {
        const RELATED_NS: u64 = 1_000_000_000;
        if since_ns.saturating_sub(self.adopted_ns) < RELATED_NS { self.adopted_ns } else { since_ns }
    }

    /// Whether rules wait to be taken out.
    pub(super) fn is_leaving(&self) -> bool {
        !self.denied.is_empty() || !self.leaving.is_empty()
    }

    /// Tells the engine to take out what waits for it.
    pub(super) fn take_out<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        let most =
            if self.traits.operations_max <= 1 { REMOVALS_PER_STEP_BLOCKING } else { REMOVALS_PER_STEP };
        for _ in 0..most {
            let denied = !self.denied.is_empty();
            let queue = if denied { &self.denied } else { &self.leaving };
            let Some(&index) = queue.front() else { break };
            match self.remove(now_ns, engine, index) {
                Ok(()) => {
                    let queue = if denied { &mut self.denied } else { &mut self.leaving };
                    queue.pop_front();
                }
                Err(EngineError::QueueFull) => {
                    self.blocked(now_ns);
                    break;
                }
                Err(_) => {
                    self.begin_recovery(Declined::Failed);
                    break;
                }
            }
        }
    }

    /// Takes out the rules of one pair. After an error it has to be called again.
    fn remove<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, index: u32) -> Result<(), EngineError> {
        if let Some(at) = self.hitters.at(index) {
            return self.remove_denial(now_ns, engine, at);
        }
        for direction in DIRECTIONS {
            let way = direction as usize;
            let room = self.queue_room(now_ns, engine);
            if self.slab.get(index).is_none_or(|pair| pair.legs[way] != LegState::Leaving) {
                continue;
            }
            if !room {
                return Err(EngineError::QueueFull);
            }
            engine.remove(LegId { rule: RuleId(index), direction })?;
            self.in_flight += 1;
            self.blocked_ns = None;
            self.begun += 1;
            if let Some(pair) = self.slab.get_mut(index) {
                pair.legs[way] = LegState::Removing { since_ns: now_ns };
            }
        }
        if let Some(pair) = self.slab.get_mut(index) {
            pair.queued = false;
        }
        Ok(())
    }

    /// The engine takes nothing. That passes when operations end; if it does not, something is wrong.
    pub(super) fn blocked(&mut self, now_ns: u64) {
        let since_ns = *self.blocked_ns.get_or_insert(now_ns);
        if now_ns - since_ns > u64::from(self.settings.operation_timeout_ms) * MS {
            self.begin_recovery(Declined::Timeout);
        }
    }

    /// Takes completions until there are no more.
    pub(super) fn pull<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        // More operations than can be under way cannot end.
        for _ in 0..=self.traits.operations_max as usize / COMPLETIONS {
            let mut completions = std::mem::take(&mut self.completions);
            completions.clear();
            engine.pull(&mut completions);
            for completion in &completions {
                self.complete(now_ns, completion);
            }
            let full = completions.len() == completions.capacity();
            self.completions = completions;
            if !full {
                break;
            }
        }
    }

    fn complete(&mut self, now_ns: u64, completion: &Completion) {
        let (Completion::Installed(leg)
        | Completion::Failed(leg, _)
        | Completion::Removed(leg)
        | Completion::Stuck(leg, _)) = *completion;
        let (index, direction) = (leg.rule.0, leg.direction);
        if let Some(number) = index.checked_sub(self.first_partition()) {
            return self.complete_partition(now_ns, number, completion);
        }
        if let Some(at) = self.hitters.at(index) {
            return self.complete_denial(now_ns, completion, at);
        }
        let state = self.slab.get(index).map_or(LegState::Absent, |pair| pair.legs[direction as usize]);
        match (*completion, state) {
            (Completion::Installed(_), LegState::Installing { since_ns }) => {
                self.operation_ended(true);
                self.time(now_ns, Timing::Insert, since_ns);
                self.leg_installed(now_ns, index, direction);
            }
            (Completion::Failed(_, error), LegState::Installing { .. }) => {
                self.operation_ended(true);
                self.leg_failed(now_ns, index, direction, error);
            }
            (Completion::Removed(_), LegState::Removing { .. }) => {
                self.operation_ended(false);
                self.leg_removed(now_ns, index, direction);
            }
            (Completion::Stuck(..), LegState::Removing { .. }) => {
                self.operation_ended(false);
                self.begin_recovery(Declined::Failed);
            }
            _ => self.counters.late.add(1),
        }
    }

    pub(super) fn operation_ended(&mut self, insertion: bool) {
        self.in_flight -= 1;
        self.installing -= u32::from(insertion);
        self.ended += 1;
        self.blocked_ns = None;
    }

    fn leg_installed(&mut self, now_ns: u64, index: u32, direction: Direction) {
        self.full_ms = super::enter::FULL_MS;
        self.counters.rules.add(1);
        let Some(pair) = self.slab.get_mut(index) else { return };
        let way = direction as usize;
        if pair.phase != Phase::Opening {
            // Wanted out meanwhile.
            pair.legs[way] = LegState::Leaving;
            self.queue_leaving(index);
            return;
        }
        pair.legs[way] = LegState::In;
        if pair.legs.iter().all(|leg| matches!(leg, LegState::In | LegState::Absent)) {
            pair.phase = Phase::Installed { since_ns: now_ns, told: false };
            (pair.read_ns, pair.used_ns) = (now_ns, now_ns);
            // Until hardware has been asked, it is believed to go on as it was.
            pair.rate = pair.ask.packets as f32 * 1000.0 / pair.ask.age_ms.max(1000) as f32;
            self.refusals.taken(&self.topology, &pair.ask);
            self.counters.pairs.add(1);
            self.owe(index);
        }
    }

    fn leg_removed(&mut self, now_ns: u64, index: u32, direction: Direction) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        pair.legs[direction as usize] = LegState::Out;
        self.counters.rules.sub(1);
        self.full_until_ns = 0;
        self.rule_gone(index);
        self.settle_if_out(now_ns, index);
    }

    /// Counts a pair that has ended.
    pub(super) fn count_ending(&self, ending: Ending) {
        match ending {
            Ending::Removed { why, .. } => {
                self.counters.removals[removal_index(why)].add(1);
                if why == Removal::Lost {
                    self.counters.lost.add(1);
                }
            }
            Ending::Declined { reason, .. } => self.counters.request(reason.into()),
        }
    }
}

/// How an engine's error is told to a worker.
pub(super) fn reason_of(error: EngineError) -> Declined {
    match error {
        EngineError::TableFull | EngineError::NoCounter => Declined::TableFull,
        EngineError::Refused(_) => Declined::Refused,
        EngineError::QueueFull | EngineError::Failed | EngineError::Lost(_) => Declined::Failed,
    }
}
