//! Hardware steering: templates, and one asynchronous flow queue on the transfer proxy.
//!
//! ```text
//! install ─▶ Creating ─▶ Live ─▶ remove ─▶ Removing ─▶ Out ─▶ release
//!                └─▶ Burying ─▶ Failed is told       (a failed rule's handle is destroyed first)
//! ```
//!
//! Rules with a meter are carried out as [`crate::colours`] says; `marks` has the meters.
//!
//! Rules of a port's receive side are refused: flow queues are configured on one port of an eSwitch, and
//! such rules would be another's.

use std::collections::VecDeque;

use super::base::Base;
use super::legs::Legs;
use super::marks::{DECIDES, Marks};
use super::spell::{self, Objects};
use super::tables::Tables;
use super::{Completion, Count, EngineError, FlowEngine, Kind, LegId, Meter, Metering, Traits};
use crate::colours;
use crate::lower;
use crate::machine::numbers_max;
use crate::rule::{Domain, Rule};
use dpdk::flow::{CounterKey, Done, End, FlowError, FlowQueue, MeterKey, RuleKey};

/// Operations that an engine would like to have under way.
pub const QUEUE_SIZE: u32 = 1024;

/// One in so many of the queue's places is kept for base rules and burials.
const SPARE_SHARE: u32 = 16;

/// Completions taken from the queue in one go.
const CHUNK: usize = 64;

/// mlx5 refreshes counters every 500 ms, and takes up to 200 ms for it (`mlx5_hws_cnt.c`, 22.11); and some.
const SETTLE_MS: u32 = 1000;

/// Aged rules asked for in one call.
const AGED_MAX: usize = 256;

/// Set in the tags of base rules; the rest is their number.
const BASE: u64 = 1 << 63;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const ENOTSUP: i32 = 95;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Creating,
    Live,
    Removing,
    Out,
    Burying,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    rule: RuleKey,
    counter: Option<CounterKey>,
    life: Life,
}

/// The template engine.
#[derive(Debug)]
pub struct TemplateEngine<'port> {
    pub(super) queue: FlowQueue<'port>,
    tables: Tables,
    base: Base<RuleKey>,
    pub(super) marks: Marks,
    legs: Legs<Held>,
    /// Rules whose creation failed, to be destroyed when there is room.
    pub(super) dead: VecDeque<(u64, RuleKey)>,
    ended: VecDeque<Completion>,
    done: Vec<Done>,
    rules_max: u32,
    operations_max: u32,
    /// Something has been enqueued since the last push.
    pub(super) unpushed: bool,
    pub(super) last_error: Option<FlowError>,
}

impl<'port> TemplateEngine<'port> {
    /// An engine on the transfer proxy's flow queue; `base` is on its way when it returns.
    ///
    /// # Errors
    /// The driver refuses one of `base`.
    pub fn new(
        queue: FlowQueue<'port>,
        mut base: Vec<Rule>,
        rules_max: u32,
    ) -> Result<TemplateEngine<'port>, FlowError> {
        let size = queue.room();
        base.retain(|rule| is_for(&queue, rule) && lower::suits(Kind::Template, rule));
        let mut engine = TemplateEngine {
            tables: Tables::new(rules_max, base.len()),
            marks: Marks::new(&base),
            base: Base::new(base),
            legs: Legs::new(numbers_max(rules_max)),
            dead: VecDeque::new(),
            ended: VecDeque::new(),
            done: Vec::with_capacity(CHUNK),
            rules_max,
            operations_max: (size - size / SPARE_SHARE).max(1),
            unpushed: false,
            last_error: None,
            queue,
        };
        engine.lay_base()?;
        engine.push();
        Ok(engine)
    }

    pub(super) fn enqueue(
        &mut self,
        rule: &Rule,
        objects: Objects,
        tag: u64,
    ) -> Result<RuleKey, (EngineError, Option<FlowError>)> {
        let (attr, pattern) = (spell::attr(rule), spell::pattern(rule));
        let actions = spell::actions(rule, &rule.with_tags_first(), objects);
        let (table, template) =
            self.tables.find_or_make(&mut self.queue, rule, (attr, &pattern, &actions))?;
        let enqueued = self.queue.enqueue_create(table, &pattern, &actions, template, tag);
        let key = enqueued.map_err(|error| (spell::of_creation(&error), Some(error)))?;
        self.unpushed = true;
        Ok(key)
    }

    /// Enqueues the base rules whose turn it is, as long as there is room.
    fn lay_base(&mut self) -> Result<(), FlowError> {
        while let Some((number, rule)) = self.base.next() {
            let rule = rule.clone();
            match self.enqueue(&rule, Objects::default(), BASE | number as u64) {
                Ok(_) => self.base.begun(number),
                Err((EngineError::Refused(_), Some(error))) if self.base.refused(number) => {
                    self.last_error = Some(error);
                }
                Err((EngineError::Refused(_) | EngineError::Lost(_), Some(error))) => {
                    self.base.failed();
                    return Err(error);
                }
                Err((_, error)) => {
                    // There may be room later.
                    self.last_error = error.or(self.last_error.take());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Enqueues the ends of base rules that a fence wants out.
    fn take_base_out(&mut self) {
        while let Some((number, _, key)) = self.base.next_out() {
            match self.queue.enqueue_destroy(key) {
                Ok(()) => {
                    self.unpushed = true;
                    self.base.leaving(number);
                }
                Err(error) if spell::of_existing(&error) == EngineError::QueueFull => return,
                Err(error) => {
                    // It may be in force: tried again at the next pull.
                    self.last_error = Some(error);
                    self.base.failed();
                    return;
                }
            }
        }
    }

    /// Enqueues the ends of failed rules as long as there is room.
    fn bury(&mut self) {
        while let Some((tag, key)) = self.dead.front().copied() {
            match self.queue.enqueue_destroy(key) {
                Ok(()) => self.unpushed = true,
                Err(error) if spell::of_existing(&error) == EngineError::QueueFull => return,
                Err(error) => {
                    // The device knows nothing of it: so much the better.
                    self.last_error = Some(error);
                    self.buried(tag);
                }
            }
            self.dead.pop_front();
        }
    }

    /// Nothing is left of a failed rule.
    fn buried(&mut self, tag: u64) {
        if let Some(leg) = spell::leg(tag) {
            self.legs_counter_back(leg);
            self.ended.push_back(Completion::Failed(leg, EngineError::Failed));
        }
    }

    /// A rule with a meter as it is carried out, and the meter.
    fn marked(&self, rule: &Rule) -> Result<(Option<MeterKey>, Option<Rule>), EngineError> {
        if colours::meter_of(rule).is_none() {
            return Ok((None, None));
        }
        let meter = self.marks.of(rule).ok_or(EngineError::Refused(ENOENT))?;
        let marked = colours::marked(rule).ok_or(EngineError::Refused(ENOTSUP))?;
        Ok((Some(meter), Some(marked)))
    }

    fn legs_counter_back(&mut self, leg: LegId) {
        let counter = self.legs.take(leg).and_then(|held| held.counter);
        self.give_back(counter);
    }

    pub(super) fn give_back(&mut self, counter: Option<CounterKey>) {
        if let Some(Err(error)) = counter.map(|counter| self.queue.port().destroy_counter(counter)) {
            self.last_error = Some(error);
        }
    }

    fn settle(&mut self, done: Done) {
        if done.tag & BASE != 0 {
            return self.settle_base(done);
        }
        if done.tag & DECIDES != 0 {
            return self.settle_mark(done);
        }
        let Some(leg) = spell::leg(done.tag) else { return };
        let Some(held) = self.legs.get_mut(leg).filter(|held| held.rule == done.rule) else { return };
        match (done.end, held.life) {
            (End::Created, _) => {
                held.life = Life::Live;
                self.ended.push_back(Completion::Installed(leg));
            }
            (End::CreateFailed, _) | (End::DestroyFailed, Life::Burying) => {
                held.life = Life::Burying;
                self.dead.push_back((done.tag, done.rule));
            }
            (End::Destroyed, Life::Burying) => self.buried(done.tag),
            (End::Destroyed, _) => {
                held.life = Life::Out;
                self.ended.push_back(Completion::Removed(leg));
            }
            (End::DestroyFailed, _) => {
                held.life = Life::Live;
                self.ended.push_back(Completion::Stuck(leg, EngineError::Failed));
            }
        }
    }

    fn settle_base(&mut self, done: Done) {
        let number = (done.tag & !BASE) as usize;
        match done.end {
            End::Created => self.base.ended(number, Some(done.rule)),
            End::CreateFailed => {
                self.dead.push_back((done.tag, done.rule));
                self.base.ended(number, None);
            }
            // Of a failed one that is buried, that says nothing.
            End::Destroyed => self.base.left(number, done.rule, true),
            End::DestroyFailed => self.base.left(number, done.rule, false),
        }
    }

    pub(super) fn push_now(&mut self) {
        if self.unpushed {
            let pushed = self.queue.push();
            self.unpushed = self.note(pushed).is_none();
        }
    }

    fn note<T>(&mut self, result: Result<T, FlowError>) -> Option<T> {
        result.map_err(|error| self.last_error = Some(error)).ok()
    }
}

/// Whether a rule is one of the queue's port. Those of other ports cannot be enqueued.
fn is_for(queue: &FlowQueue<'_>, rule: &Rule) -> bool {
    rule.port == queue.number() && rule.attr.domain == Domain::Transfer
}

impl FlowEngine for TemplateEngine<'_> {
    fn complaint(&mut self) -> Option<String> {
        let error = self.last_error.take()?;
        Some(match self.tables.remedy() {
            Some(remedy) => format!("{error}; {remedy}"),
            None => error.to_string(),
        })
    }

    fn traits(&self) -> Traits {
        Traits {
            kind: Kind::Template,
            rules_max: self.rules_max,
            operations_max: self.operations_max,
            settle_ms: SETTLE_MS,
            ages: true,
            meters: Some(self.queue.meters_max()).filter(|max| *max > 0).map(|meters_max| Metering {
                meters_max,
                rules_max: u32::MAX,
                counts_red: true,
            }),
        }
    }

    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError> {
        if rule.attr.domain != Domain::Transfer {
            return Err(EngineError::Refused(ENOTSUP));
        }
        if !is_for(&self.queue, rule) {
            return Err(EngineError::Refused(ENODEV));
        }
        if !self.legs.is_free(leg) {
            return Err(EngineError::Refused(EEXIST));
        }
        if self.queue.under_way() >= self.operations_max {
            return Err(EngineError::QueueFull);
        }
        let (meter, marked) = self.marked(rule)?;
        let rule = marked.as_ref().unwrap_or(rule);
        let counter = match spell::counts(rule).then(|| self.queue.port().create_counter(true)).transpose() {
            Ok(counter) => counter,
            Err(error) => {
                let means = spell::of_counter(&error);
                self.last_error = Some(error);
                return Err(means);
            }
        };
        let context = spell::context(leg);
        match self.enqueue(rule, Objects { counter, meter, context }, context) {
            Ok(rule) => {
                self.legs.put(leg, Held { rule, counter, life: Life::Creating });
                Ok(())
            }
            Err((means, error)) => {
                self.last_error = error.or(self.last_error.take());
                self.give_back(counter);
                Err(means)
            }
        }
    }

    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        if self.queue.under_way() >= self.operations_max {
            return Err(EngineError::QueueFull);
        }
        let held = self.legs.get(leg).ok_or(EngineError::Lost(ENOENT))?;
        match held.life {
            Life::Live => {}
            Life::Creating => return Err(EngineError::QueueFull),
            Life::Removing | Life::Out | Life::Burying => return Err(EngineError::Lost(ENOENT)),
        }
        if let Err(error) = self.queue.enqueue_destroy(held.rule) {
            let means = spell::of_existing(&error);
            self.last_error = Some(error);
            return Err(means);
        }
        self.unpushed = true;
        if let Some(held) = self.legs.get_mut(leg) {
            held.life = Life::Removing;
        }
        Ok(())
    }

    fn push(&mut self) {
        self.push_now();
    }

    fn pull(&mut self, completions: &mut Vec<Completion>) {
        let room = completions.capacity() - completions.len();
        while self.ended.len() < room {
            let mut done = std::mem::take(&mut self.done);
            let pulled = self.queue.pull(&mut done);
            self.note(pulled);
            let full = done.len() == done.capacity();
            for done in done.drain(..) {
                self.settle(done);
            }
            self.done = done;
            if !full {
                break;
            }
        }
        self.bury();
        self.take_base_out();
        let laid = self.lay_base();
        self.note(laid);
        self.tend_marks();
        self.push();
        completions.extend(self.ended.drain(..room.min(self.ended.len())));
    }

    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        let lost = EngineError::Lost(ENOENT);
        let counter = self.legs.get(leg).and_then(|held| held.counter).ok_or(lost)?;
        match self.queue.port().count(counter) {
            Ok(value) => Ok(Count { packets: value.packets, bytes: value.bytes }),
            Err(error) => {
                let means = spell::of_existing(&error);
                self.last_error = Some(error);
                Err(means)
            }
        }
    }

    fn release(&mut self, leg: LegId) {
        if self.legs.get(leg).is_some_and(|held| held.life == Life::Out) {
            self.legs_counter_back(leg);
        }
    }

    fn aged(&mut self, aged: &mut Vec<LegId>) {
        let mut contexts = [0; AGED_MAX];
        let room = (aged.capacity() - aged.len()).min(AGED_MAX);
        let count = self.queue.port().aged(&mut contexts[..room]);
        let count = self.note(count).unwrap_or(0);
        aged.extend(contexts[..count].iter().filter_map(|bits| spell::leg(*bits)));
    }

    fn is_ready(&self) -> bool {
        self.base.is_laid()
    }

    fn fence(&mut self, groups: u8) -> bool {
        self.base.fence(groups);
        self.take_base_out();
        let laid = self.lay_base();
        self.note(laid);
        self.push();
        true
    }

    fn fenced(&self) -> u8 {
        self.base.fenced()
    }

    fn take_base_failures(&mut self) -> u32 {
        self.base.take_failures()
    }

    fn set_meter(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        if port == self.queue.number() {
            self.set_mark(number, meter)
        } else {
            Err(EngineError::Refused(ENODEV))
        }
    }

    fn meter_drops(&mut self, _: u16, number: u32) -> Result<Count, EngineError> {
        self.red_count(number)
    }

    fn unset_meter(&mut self, _: u16, number: u32) {
        self.unset_mark(number);
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.legs.clear();
        self.marks.forget();
        self.ended.clear();
        self.dead.clear();
        self.tables.forgive();
        self.base.forget();
        let flushed = self.queue.flush();
        let done = flushed.and_then(|()| self.lay_base());
        self.push();
        done.map_err(|error| {
            let errno = error.errno.0;
            self.last_error = Some(error);
            EngineError::Lost(errno)
        })
    }
}
