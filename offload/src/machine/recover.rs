//! What is done when it is no longer certain what hardware holds: an operation does not end, a rule cannot
//! be taken out, counters are lost.
//!
//! ```text
//! Running ──▶ Salvaging ──▶ Flushing ──▶ Reporting ──▶ Resting ──▶ Running
//!             counters are  everything   each worker   nothing is
//!             read once     is taken     is told       admitted
//!             more          out
//! ```
//!
//! It begins resting, too: the engine runs once its base rules are in force. If they do not come, then what
//! became of one is lost, and it is flushed again.
//!
//! Flushing is repeated until it succeeds; meanwhile counters are read on, so that workers know of rules that
//! may still be in force. An engine that answers again forwards as before, to neighbours that have moved and
//! backends that are gone, until it has been flushed: that is never more than a second away. The rest is
//! longer each time, and short again after a good while without trouble.

use super::enter::jittered;
use super::pair::{Ending, LegState, Phase};
use super::{MS, Machine};
use crate::counters::EngineState;
use crate::engine::FlowEngine;
use dataplane::offload::{Declined, Removal};

/// Slots looked at in one step.
const SLOTS_PER_STEP: u32 = 4096;
const REST_MS: u32 = 1_000;
const REST_MAX_MS: u32 = 60_000;
/// So long without trouble, and the next rest is a short one.
const GOOD_NS: u64 = 60_000 * MS;
const FLUSH_RETRY_MS: u32 = 100;
const FLUSH_RETRY_MAX_MS: u32 = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Running,
    Salvaging { cursor: u32 },
    Flushing { at_ns: u64, retry_ms: u32 },
    Reporting { cursor: u32 },
    Resting { until_ns: u64, ready_by_ns: u64 },
}

/// How the engine is, and how it has been.
#[derive(Debug)]
pub(super) struct Health {
    stage: Stage,
    /// What those are told who were not told anything yet.
    cause: Declined,
    rest_ms: u32,
    /// Since when it runs.
    good_ns: u64,
}

impl Health {
    /// An engine that begins, and whose base rules are in force within `timeout_ms`.
    pub(super) fn new(now_ns: u64, timeout_ms: u32) -> Health {
        let ready_by_ns = now_ns + u64::from(timeout_ms) * MS;
        let stage = Stage::Resting { until_ns: now_ns, ready_by_ns };
        Health { stage, cause: Declined::Timeout, rest_ms: REST_MS, good_ns: now_ns }
    }

    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Whether the engine has been emptied, and answers.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.stage, Stage::Resting { .. })
    }

    /// Whether rules may be in force that cannot be taken out for now.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.stage, Stage::Flushing { .. })
    }

    /// Whether there is something to do about it now: not while a flush that failed waits to be tried again.
    pub(super) fn is_at_work(&self, now_ns: u64) -> bool {
        match self.stage {
            Stage::Salvaging { .. } | Stage::Reporting { .. } => true,
            Stage::Flushing { at_ns, .. } => now_ns >= at_ns,
            Stage::Running | Stage::Resting { .. } => false,
        }
    }

    pub(super) fn state(&self) -> EngineState {
        match self.stage {
            Stage::Running => EngineState::Running,
            Stage::Resting { .. } => EngineState::Resting,
            Stage::Salvaging { .. } | Stage::Flushing { .. } | Stage::Reporting { .. } => {
                EngineState::Recovering
            }
        }
    }

    /// How long it takes until asking makes sense, milliseconds.
    pub(super) fn rest_ms(&self, now_ns: u64) -> u32 {
        match self.stage {
            Stage::Resting { until_ns, .. } => {
                u32::try_from(until_ns.saturating_sub(now_ns) / MS).unwrap_or(u32::MAX).max(1)
            }
            _ => self.rest_ms,
        }
    }
}

impl Machine {
    /// Something is wrong with the engine.
    pub(super) fn begin_recovery(&mut self, cause: Declined) {
        if self.health.is_running() {
            self.counters.recoveries.add(1);
            self.health.cause = cause;
            self.health.stage = Stage::Salvaging { cursor: 0 };
            self.counters.state.set(EngineState::Recovering as u64);
        }
    }

    /// Goes on with a recovery, if one is under way. Returns whether the engine runs.
    pub(super) fn recover<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) -> bool {
        match self.health.stage {
            Stage::Running => {
                if now_ns.saturating_sub(self.health.good_ns) > GOOD_NS {
                    self.health.rest_ms = REST_MS;
                }
            }
            Stage::Salvaging { cursor } => self.salvage(now_ns, engine, cursor),
            Stage::Flushing { at_ns, retry_ms } if now_ns >= at_ns => self.flush(now_ns, engine, retry_ms),
            Stage::Flushing { .. } => {}
            Stage::Reporting { cursor } => self.report_lost(now_ns, cursor),
            Stage::Resting { until_ns, .. } if now_ns >= until_ns && engine.is_ready() => {
                self.health.stage = Stage::Running;
                self.health.good_ns = now_ns;
                self.counters.state.set(EngineState::Running as u64);
            }
            Stage::Resting { ready_by_ns, .. } if now_ns >= ready_by_ns => {
                self.counters.recoveries.add(1);
                self.counters.state.set(EngineState::Recovering as u64);
                self.health.stage = Stage::Flushing { at_ns: now_ns, retry_ms: FLUSH_RETRY_MS };
            }
            Stage::Resting { .. } => {}
        }
        self.health.is_running()
    }

    fn salvage<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, cursor: u32) {
        if cursor == 0 {
            self.read_denials(now_ns, engine);
        }
        let end = cursor.saturating_add(SLOTS_PER_STEP).min(self.slab.slots());
        for index in cursor..end {
            self.read(now_ns, engine, index);
        }
        self.health.stage = if end < self.slab.slots() {
            Stage::Salvaging { cursor: end }
        } else {
            Stage::Flushing { at_ns: now_ns, retry_ms: FLUSH_RETRY_MS }
        };
    }

    fn flush<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E, retry_ms: u32) {
        self.meters.count_drops(engine);
        self.salvage_partitions(engine);
        if engine.flush().is_err() {
            self.counters.flush_failures.add(1);
            self.health.stage = Stage::Flushing {
                at_ns: now_ns + u64::from(retry_ms) * MS,
                retry_ms: (2 * retry_ms).min(FLUSH_RETRY_MAX_MS),
            };
            return;
        }
        (self.in_flight, self.installing, self.blocked_ns) = (0, 0, None);
        (self.full_until_ns, self.lost_streak) = (0, 0);
        self.opening.clear();
        self.meters.forget();
        self.lose_denials(now_ns);
        self.fence.fall();
        self.lose_partitions(now_ns);
        self.denied.clear();
        self.leaving.clear();
        self.health.stage = Stage::Reporting { cursor: 0 };
    }

    /// Everything is out: brings the books in line.
    fn report_lost(&mut self, now_ns: u64, cursor: u32) {
        let end = cursor.saturating_add(SLOTS_PER_STEP).min(self.slab.slots());
        for index in cursor..end {
            self.lose(now_ns, index);
        }
        self.health.stage = if end < self.slab.slots() {
            Stage::Reporting { cursor: end }
        } else {
            let until_ns = now_ns + u64::from(self.health.rest_ms) * MS;
            let ready_by_ns = until_ns.max(now_ns + u64::from(self.settings.operation_timeout_ms) * MS);
            self.health.rest_ms = (2 * self.health.rest_ms).min(REST_MAX_MS);
            self.counters.state.set(EngineState::Resting as u64);
            Stage::Resting { until_ns, ready_by_ns }
        };
    }

    fn lose(&mut self, now_ns: u64, index: u32) {
        let cause = self.health.cause;
        let Some(pair) = self.slab.get_mut(index) else { return };
        let rest_ms = jittered(&pair.ask, self.health.rest_ms);
        pair.queued = false;
        pair.lost = 0;
        let mut gone = 0;
        for leg in &mut pair.legs {
            if leg.in_force() {
                self.counters.rules.sub(1);
            }
            gone += u32::from(leg.holds_rule());
            if *leg != LegState::Absent {
                *leg = LegState::Nothing;
            }
        }
        let ending = match pair.phase {
            Phase::Installed { told: true, .. } => {
                Some(Ending::Removed { why: Removal::Lost, retry_ms: rest_ms })
            }
            Phase::Installed { told: false, .. } | Phase::Opening => {
                Some(Ending::Declined { reason: cause, retry_ms: rest_ms })
            }
            Phase::Settling { ending, told, .. } => {
                pair.phase = Phase::Settling { ending, told, until_ns: now_ns };
                None
            }
            Phase::Free | Phase::Closing { .. } => None,
        };
        for _ in 0..gone {
            self.rule_gone(index);
        }
        match ending {
            Some(ending) => self.end(now_ns, index, ending),
            None => self.settle_if_out(now_ns, index),
        }
    }
}
