//! Software steering: `rte_flow_create`, one blocking call per rule.
//!
//! What the call has done is told by the next pull, so that whoever drives an engine sees one life of a rule
//! under both steerings.

use std::collections::VecDeque;

use super::base::Base;
use super::legs::Legs;
use super::spell;
use super::{Completion, Count, EngineError, FlowEngine, Kind, LegId, Meter, Metering, Traits};
use crate::machine::numbers_max;
use crate::rule::Rule;
use dpdk::flow::{CounterKey, FlowError, Flows, MeterRate, RuleKey};

/// Calls whose outcome waits to be pulled: one, as they have blocked already.
const OPERATIONS_MAX: usize = 1;

/// mlx5 reads each pool of counters about once a second (`mlx5_flow_query_alarm`, 22.11); twice that.
const SETTLE_MS: u32 = 2000;

/// How often a base rule is tried.
const BASE_TRIES: u32 = 16;

/// Aged rules asked for in one call.
const AGED_MAX: usize = 256;

/// A register of 24 bits has to hold the number of a meter and that of a rule that names it (mlx5_flow.c,
/// 22.11, `flow_meter_split_prep`: as many bits as the largest meter's index has, and as many as a rule's
/// number among those of one meter).
const METERS_MAX: u32 = 63;
/// See [`METERS_MAX`].
const RULES_OF_A_METER: u32 = 1 << 18;

/// Errno of an operation on something that is not there, or already is.
const ENODEV: i32 = 19;
const EEXIST: i32 = 17;

#[derive(Clone, Copy, Debug)]
struct Held {
    /// Index of its port.
    port: usize,
    /// `None` once it is out.
    rule: Option<RuleKey>,
    counter: Option<CounterKey>,
}

/// The synchronous engine.
#[derive(Debug)]
pub struct SyncEngine<'port> {
    ports: Vec<Flows<'port>>,
    /// By the index of their port. Of ports that are not here, none is made.
    base: Base<Option<(usize, RuleKey)>>,
    legs: Legs<Held>,
    ended: VecDeque<Completion>,
    rules_max: u32,
    /// Where the next search for aged rules begins.
    aged_from: usize,
    last_error: Option<FlowError>,
}

impl<'port> SyncEngine<'port> {
    /// An engine for rules on these ports, with `base` in force.
    ///
    /// # Errors
    /// The driver refuses one of `base`.
    pub fn new(
        ports: Vec<Flows<'port>>,
        base: Vec<Rule>,
        rules_max: u32,
    ) -> Result<SyncEngine<'port>, FlowError> {
        let mut engine = SyncEngine {
            ports,
            base: Base::new(base),
            legs: Legs::new(numbers_max(rules_max)),
            ended: VecDeque::new(),
            rules_max,
            aged_from: 0,
            last_error: None,
        };
        engine.install_base()?;
        Ok(engine)
    }

    fn install_base(&mut self) -> Result<(), FlowError> {
        while let Some((number, rule)) = self.base.next() {
            let Some(at) = self.ports.iter().position(|flows| flows.number() == rule.port) else {
                self.base.ended(number, Some(None));
                continue;
            };
            let port = &mut self.ports[at];
            let actions = spell::actions(rule, &rule.actions, spell::Objects::default());
            let mut tries = 0;
            // A device that is short of something for a moment must not be without these.
            let made = loop {
                tries += 1;
                match port.create(spell::attr(rule), &spell::pattern(rule), &actions) {
                    Err(error)
                        if tries < BASE_TRIES && spell::of_creation(&error) == EngineError::TableFull => {}
                    made => break made,
                }
            };
            match made {
                Ok(key) => self.base.ended(number, Some(Some((at, key)))),
                Err(error) => {
                    let refused = matches!(spell::of_creation(&error), EngineError::Refused(_));
                    if !(refused && self.base.refused(number)) {
                        self.base.failed();
                        return Err(error);
                    }
                    self.last_error = Some(error);
                }
            }
        }
        Ok(())
    }

    /// Takes out the base rules that a fence wants out, and puts those in that none does any more. What fails
    /// is tried again at the next pull: a rule that may be in force leads packets where none is to come.
    fn keep_base(&mut self) {
        while let Some((number, _, key)) = self.base.next_out() {
            let destroyed = key.map_or(Ok(()), |(port, rule)| self.ports[port].destroy(rule));
            if let Err(error) = destroyed {
                self.last_error = Some(error);
                self.base.failed();
                return;
            }
            self.base.out(number);
        }
        if let Err(error) = self.install_base() {
            self.last_error = Some(error);
        }
    }

    fn try_install(&mut self, leg: LegId, rule: &Rule) -> Result<Held, (EngineError, Option<FlowError>)> {
        let port = self.ports.iter_mut().position(|flows| flows.number() == rule.port);
        let port = port.ok_or((EngineError::Refused(ENODEV), None))?;
        let flows = &mut self.ports[port];
        let attr = spell::attr(rule);
        let counter = if spell::counts(rule) {
            let made = flows.port().create_counter(attr.transfer);
            Some(made.map_err(|error| (spell::of_counter(&error), Some(error)))?)
        } else {
            None
        };
        let objects = spell::Objects { counter, meter: None, context: spell::context(leg) };
        let actions = spell::actions(rule, &rule.actions, objects);
        match flows.create(attr, &spell::pattern(rule), &actions) {
            Ok(rule) => Ok(Held { port, rule: Some(rule), counter }),
            Err(error) => {
                if let Some(counter) = counter {
                    // No rule uses it; a driver that keeps it all the same is made to give it up by a flush.
                    let _ = flows.port().destroy_counter(counter);
                }
                Err((spell::of_creation(&error), Some(error)))
            }
        }
    }

    fn note(&mut self, error: FlowError, means: EngineError) -> EngineError {
        self.last_error = Some(error);
        means
    }
}

impl FlowEngine for SyncEngine<'_> {
    fn complaint(&mut self) -> Option<String> {
        self.last_error.take().map(|error| error.to_string())
    }

    fn traits(&self) -> Traits {
        Traits {
            kind: Kind::Sync,
            rules_max: self.rules_max,
            operations_max: OPERATIONS_MAX as u32,
            settle_ms: SETTLE_MS,
            ages: true,
            meters: Some(Metering { meters_max: METERS_MAX, rules_max: RULES_OF_A_METER, counts_red: false }),
        }
    }

    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError> {
        if self.ended.len() >= OPERATIONS_MAX {
            return Err(EngineError::QueueFull);
        }
        if !self.legs.is_free(leg) {
            return Err(EngineError::Refused(EEXIST));
        }
        match self.try_install(leg, rule) {
            Ok(held) => {
                self.legs.put(leg, held);
                self.ended.push_back(Completion::Installed(leg));
                Ok(())
            }
            Err((means, error)) => {
                self.last_error = error.or(self.last_error.take());
                Err(means)
            }
        }
    }

    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        if self.ended.len() >= OPERATIONS_MAX {
            return Err(EngineError::QueueFull);
        }
        let held = self.legs.get_mut(leg).ok_or(EngineError::Lost(ENODEV))?;
        let rule = held.rule.ok_or(EngineError::Lost(ENODEV))?;
        let port = held.port;
        if let Err(error) = self.ports[port].destroy(rule) {
            let means = spell::of_existing(&error);
            return Err(self.note(error, means));
        }
        if let Some(held) = self.legs.get_mut(leg) {
            held.rule = None;
        }
        self.ended.push_back(Completion::Removed(leg));
        Ok(())
    }

    fn push(&mut self) {}

    fn pull(&mut self, completions: &mut Vec<Completion>) {
        if !self.base.is_laid() {
            self.keep_base();
        }
        let room = completions.capacity() - completions.len();
        completions.extend(self.ended.drain(..room.min(self.ended.len())));
    }

    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        let lost = EngineError::Lost(ENODEV);
        let held = *self.legs.get(leg).ok_or(lost)?;
        let counter = held.counter.ok_or(lost)?;
        let value = self.ports[held.port].port().count(counter);
        let value = value.map_err(|error| self.note(error.clone(), spell::of_existing(&error)))?;
        Ok(Count { packets: value.packets, bytes: value.bytes })
    }

    fn release(&mut self, leg: LegId) {
        let Some(held) = self.legs.take(leg) else { return };
        if let Some(counter) = held.counter {
            if let Err(error) = self.ports[held.port].port().destroy_counter(counter) {
                self.last_error = Some(error);
            }
        }
    }

    fn aged(&mut self, aged: &mut Vec<LegId>) {
        let mut contexts = [0; AGED_MAX];
        for _ in 0..self.ports.len() {
            let room = (aged.capacity() - aged.len()).min(AGED_MAX);
            if room == 0 {
                return;
            }
            self.aged_from = (self.aged_from + 1) % self.ports.len();
            match self.ports[self.aged_from].port().aged(&mut contexts[..room]) {
                Ok(count) => aged.extend(contexts[..count].iter().filter_map(|bits| spell::leg(*bits))),
                Err(error) => self.last_error = Some(error),
            }
        }
    }

    fn set_meter(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        let flows = self.ports.iter_mut().find(|flows| flows.number() == port);
        let flows = flows.ok_or(EngineError::Refused(ENODEV))?;
        let Meter { packets, per_second, burst } = *meter;
        let set = flows.set_meter(number, &MeterRate { per_second, burst, packets });
        set.map_err(|error| self.note(error.clone(), spell::of_creation(&error)))
    }

    fn meter_drops(&mut self, port: u16, number: u32) -> Result<Count, EngineError> {
        let flows = self.ports.iter().find(|flows| flows.number() == port);
        let drops = flows.ok_or(EngineError::Lost(ENODEV))?.meter_drops(number);
        let drops = drops.map_err(|error| self.note(error.clone(), spell::of_existing(&error)))?;
        Ok(Count { packets: drops.packets, bytes: drops.bytes })
    }

    fn unset_meter(&mut self, port: u16, number: u32) {
        let Some(flows) = self.ports.iter_mut().find(|flows| flows.number() == port) else { return };
        if let Err(error) = flows.destroy_meter(number) {
            self.last_error = Some(error);
        }
    }

    fn is_ready(&self) -> bool {
        self.base.is_laid()
    }

    fn fence(&mut self, groups: u8) -> bool {
        self.base.fence(groups);
        self.keep_base();
        true
    }

    fn fenced(&self) -> u8 {
        self.base.fenced()
    }

    fn take_base_failures(&mut self) -> u32 {
        self.base.take_failures()
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.legs.clear();
        self.ended.clear();
        self.base.forget();
        let mut flushed = Ok(());
        for port in &mut self.ports {
            let done = port.flush();
            flushed = flushed.and(done);
        }
        let done = flushed.and_then(|()| self.install_base());
        done.map_err(|error| {
            let errno = error.errno.0;
            self.note(error, EngineError::Lost(errno))
        })
    }
}
