//! What workers are owed: whether their requests were met, and whether rules are gone.

use super::pair::{Ending, Phase};
use super::{Machine, Outbox};
use crate::counters::RequestResult;
use dataplane::offload::{Answer, RuleId};

/// Answers offered in one step, of each kind.
const ANSWERS_PER_STEP: usize = 1024;
/// Answers refused in one step after which no more are offered: the ring is full.
const REFUSED_PER_STEP: usize = 64;

impl Machine {
    /// Notes that the pair's worker is owed an answer.
    pub(super) fn owe(&mut self, index: u32) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        if !pair.owing {
            pair.owing = true;
            self.owing.push_back(index);
        }
    }

    /// Offers answers that are owed. One that a worker has no room for goes behind the others.
    pub(super) fn answer_some(&mut self, outbox: &mut impl Outbox) {
        let mut refused = 0;
        for _ in 0..self.refused.len().min(ANSWERS_PER_STEP) {
            let Some(answer) = self.refused.pop_front() else { break };
            match outbox.answer(answer) {
                Ok(()) => self.count_refusal(&answer),
                Err(answer) => {
                    self.refused.push_back(answer);
                    refused += 1;
                }
            }
            if refused == REFUSED_PER_STEP {
                break;
            }
        }
        for _ in 0..self.owing.len().min(ANSWERS_PER_STEP) {
            if refused == REFUSED_PER_STEP {
                break;
            }
            let Some(index) = self.owing.pop_front() else { break };
            if !self.deliver(outbox, index) {
                self.owing.push_back(index);
                refused += 1;
            }
        }
        if refused > 0 {
            self.counters.answers_delayed.add(refused as u64);
        }
    }

    fn count_refusal(&self, answer: &Answer) {
        if let Answer::Declined { reason, .. } = answer {
            self.counters.request((*reason).into());
        }
    }

    /// Offers what one pair's worker is owed; `false` if it has no room for it.
    fn deliver(&mut self, outbox: &mut impl Outbox, index: u32) -> bool {
        let Some(pair) = self.slab.get_mut(index) else { return true };
        let rule = RuleId(index);
        let (flow, token) = (pair.ask.flow, pair.ask.token);
        let (answer, phase) = match pair.phase {
            Phase::Installed { since_ns, told: false } => {
                (Answer::Installed { flow, token, rule }, Phase::Installed { since_ns, told: true })
            }
            Phase::Settling { ending, until_ns, told: false } => {
                let answer = match ending {
                    Ending::Removed { why, retry_ms } => Answer::Removed { flow, rule, why, retry_ms },
                    Ending::Declined { reason, retry_ms } => {
                        Answer::Declined { flow, token, reason, retry_ms }
                    }
                };
                (answer, Phase::Settling { ending, until_ns, told: true })
            }
            // What was owed was overtaken; it is owed again when the pair is out.
            phase => {
                pair.owing = false;
                debug_assert!(!matches!(phase, Phase::Free));
                return true;
            }
        };
        if outbox.answer(answer).is_err() {
            return false;
        }
        pair.owing = false;
        pair.phase = phase;
        match phase {
            Phase::Settling { ending, .. } => self.count_ending(ending),
            _ => self.counters.request(RequestResult::Ok),
        }
        true
    }
}
