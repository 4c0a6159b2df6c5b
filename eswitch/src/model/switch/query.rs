//! Questions about rules, and indirect objects.

use std::sync::Arc;

use super::super::action::{Action, Shared};
use super::super::objects::meters::MarkParams;
use super::super::objects::{AgeValue, AgedCursor, CountValue, HitSource};
use super::super::queue::{Credits, Needs};
use super::super::refusal::{Cause, Errno, Refusal};
use super::super::types::{AgeId, CounterId, RuleHandle, RuleId, Tick, Vport};
use super::{Core, Eswitch};

const NO_COUNT: Refusal = Refusal::new(Errno::Inval, Cause::Action(0), "the rule has no count action");
const NO_AGE: Refusal = Refusal::new(Errno::Inval, Cause::Action(0), "the rule has no age action");

impl Eswitch {
    /// The slot of a rule, whichever API made it.
    pub(super) fn find(&self, port: Vport, handle: RuleHandle) -> Result<RuleId, Refusal> {
        if handle.0.get() >> 56 == 0 {
            return self.core.resolve_handle(port, handle);
        }
        let gone = Refusal::new(Errno::Noent, Cause::Handle, "no such rule, or its creation is not complete");
        self.queues.iter().find_map(|queue| queue.rule(handle)).ok_or(gone)
    }

    /// Counters, age contexts and meters that exist: rules', indirect handles', and `rte_mtr`'s.
    #[must_use]
    pub fn objects_in_use(&self) -> [u32; 3] {
        [self.core.counters.live(), self.core.ages.live(), self.core.meters.live()]
    }

    /// What a rule has counted, as of the last refresh. `reset`: later queries count from here.
    ///
    /// # Errors
    /// ENOENT for a stale handle, EINVAL for a rule that does not count.
    pub fn query_count(
        &mut self,
        now: Tick,
        port: Vport,
        handle: RuleHandle,
        reset: bool,
    ) -> Result<CountValue, Refusal> {
        self.refresh(now);
        let id = self.find(port, handle)?;
        let counter = self.core.rules.get(id.0).and_then(|rule| rule.counter).ok_or(NO_COUNT)?;
        self.core.counters.query(now, counter, reset)
    }

    /// Whether a rule has aged, and how long it has been idle.
    ///
    /// # Errors
    /// ENOENT for a stale handle, EINVAL for a rule that does not age.
    pub fn query_age(&mut self, now: Tick, port: Vport, handle: RuleHandle) -> Result<AgeValue, Refusal> {
        let id = self.find(port, handle)?;
        let age = self.core.rules.get(id.0).and_then(|rule| rule.age).ok_or(NO_AGE)?;
        self.core.ages.query(now, age)
    }

    /// The contexts of a port's aged rules. An empty `out` asks how many there are.
    ///
    /// # Errors
    /// EINVAL where the flow queues are asked separately (`STRICT_QUEUE`) and no queue is named, or the
    /// other way round.
    pub fn aged(&mut self, port: Vport, queue: Option<u16>, out: &mut [u64]) -> Result<usize, Refusal> {
        self.core.ages.aged(port, queue, out)
    }

    /// As [`Eswitch::aged`], a slice at a time; [`Eswitch::aged_answer`] then tells what to answer.
    ///
    /// # Errors
    /// As [`Eswitch::aged`].
    pub fn aged_slice(
        &mut self,
        port: Vport,
        queue: Option<u16>,
        from: &mut AgedCursor,
        out: &mut [u64],
    ) -> Result<usize, Refusal> {
        self.core.ages.aged_slice(port, queue, from, out)
    }

    /// The answer when slices have written so many into so much room.
    pub fn aged_answer(&mut self, port: Vport, room: usize, written: usize) -> usize {
        self.core.ages.aged_answer(port, room, written)
    }

    /// Makes an indirect object.
    ///
    /// # Errors
    /// As for a rule with such an action; ENOTSUP for an action that cannot be shared; ETIMEDOUT while the
    /// device hangs.
    pub fn indirect_create(
        &mut self,
        now: Tick,
        port: Vport,
        action: &Action<'_>,
    ) -> Result<Shared, Refusal> {
        self.refresh(now);
        self.answers(now)?;
        let needs = Needs {
            counter: matches!(action, Action::Count),
            age: matches!(action, Action::Age { .. }),
            meter: matches!(action, Action::MeterMark { .. }),
        };
        let credits = self.core.credits.clone();
        credits.iter().try_for_each(|credits| credits.take(needs))?;
        let made = self.core.indirect_create(now, port, action);
        if made.is_err() {
            credits.iter().for_each(|credits| credits.give(needs));
        }
        made
    }

    /// Destroys an indirect object.
    ///
    /// # Errors
    /// EBUSY while rules use it (an age context, a meter and, under HWS, a counter go with their last rule
    /// instead), EINVAL if there is none; ETIMEDOUT while the device hangs.
    pub fn indirect_destroy(&mut self, now: Tick, shared: Shared) -> Result<(), Refusal> {
        self.refresh(now);
        self.answers(now)?;
        self.core.indirect_destroy(now, shared)
    }

    /// What an indirect counter has counted, as of the last refresh. `reset`: later queries count from here.
    ///
    /// # Errors
    /// EINVAL if there is no such counter.
    pub fn indirect_count(&mut self, now: Tick, id: CounterId, reset: bool) -> Result<CountValue, Refusal> {
        self.refresh(now);
        self.core.counters.query(now, id, reset)
    }

    /// Whether an indirect age context has aged.
    ///
    /// # Errors
    /// EINVAL if there is no such context.
    pub fn indirect_age(&mut self, now: Tick, id: AgeId) -> Result<AgeValue, Refusal> {
        self.core.ages.query(now, id)
    }

    /// Gives an indirect `rss` other queues; rules that use it follow.
    ///
    /// # Errors
    /// EINVAL if there is no such action.
    pub fn indirect_rss(&mut self, set: u32, queues: &[u16]) -> Result<(), Refusal> {
        let gone = Refusal::new(Errno::Inval, Cause::Handle, "no such indirect action");
        self.core.rss.change(set, queues).then_some(()).ok_or(gone)
    }
}

impl Core {
    pub(super) fn indirect_create(
        &mut self,
        now: Tick,
        port: Vport,
        action: &Action<'_>,
    ) -> Result<Shared, Refusal> {
        let full = Refusal::new(Errno::Nomem, Cause::Unspecified, "out of sets of queues");
        match *action {
            Action::Count => self.counters.alloc(now).map(Shared::Counter),
            Action::Age { timeout_s, context } => {
                self.ages.alloc(now, timeout_s, context, port, None, HitSource::Counter).map(Shared::Age)
            }
            Action::MeterMark { profile, colour_aware } => {
                let params = MarkParams { profile, colour_aware, enabled: true };
                self.meters.mark(now, &params).map(Shared::Meter)
            }
            Action::Rss { queues } => self.rss.add(queues).map(Shared::Rss).ok_or(full),
            _ => Err(Refusal::new(Errno::Notsup, Cause::Action(0), "this action cannot be indirect")),
        }
    }

    pub(super) fn indirect_destroy(&mut self, now: Tick, shared: Shared) -> Result<(), Refusal> {
        let retire = |credits: &Option<Arc<Credits>>, needs| {
            credits.iter().for_each(|credits| credits.retire(needs));
        };
        match shared {
            Shared::Counter(id) => {
                self.counters.destroy(now, id)?;
                retire(&self.credits, Needs { counter: true, ..Needs::default() });
                Ok(())
            }
            Shared::Age(id) => {
                self.ages.destroy(id)?;
                retire(&self.credits, Needs { age: true, ..Needs::default() });
                Ok(())
            }
            Shared::Meter(id) => {
                self.meters.destroy_mark(id)?;
                retire(&self.credits, Needs { meter: true, ..Needs::default() });
                Ok(())
            }
            Shared::Rss(set) => match self.rss.users(set) {
                None => Err(Refusal::new(Errno::Inval, Cause::Handle, "no such indirect action")),
                Some(1) => {
                    self.rss.release(set);
                    Ok(())
                }
                Some(_) => {
                    Err(Refusal::new(Errno::Busy, Cause::Handle, "rules still use this indirect action"))
                }
            },
        }
    }
}
