//! The simulated device's meters under hardware steering, as the template engine has them: see
//! [`crate::colours`]. Here a change of a rate is done when the call returns.

use super::meters::profile_of;
use super::queued::Decides;
use super::{Count, EngineError, SimEngine, lost, refused};
use crate::colours;
use crate::engine::Meter;
use crate::rule::{Item, Rule};
use eswitch::model::action::{Action, Shared};
use eswitch::model::objects::meters::{MtrRefusal, Profile};
use eswitch::model::queue::ActionUpdate;
use eswitch::model::refusal::Errno;
use eswitch::model::switch::PROXY;
use eswitch::model::types::{CounterId, RuleHandle};
use std::collections::BTreeMap;

/// The only profile.
const PROFILE: u32 = 0;

const GONE: EngineError = EngineError::Lost(Errno::Noent as i32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Laid {
    Due,
    UnderWay,
    InForce(RuleHandle),
    Leaving,
}

struct Mark {
    meter: Shared,
    counter: CounterId,
    rate: Meter,
    red: Laid,
    unwanted: bool,
}

/// Meters by number, and the rule of each port, by ethdev.
#[derive(Default)]
pub(super) struct Marks {
    held: BTreeMap<u32, Mark>,
    ports: BTreeMap<u16, Laid>,
}

impl Marks {
    pub(super) fn new(base: &[Rule]) -> Marks {
        let ports = base.iter().flat_map(|rule| &rule.items).filter_map(|item| match item {
            Item::RepresentedPort(port) => Some((*port, Laid::Due)),
            _ => None,
        });
        Marks { held: BTreeMap::new(), ports: ports.collect() }
    }

    /// The meter that a rule names, if all that its packets come to is in force.
    pub(super) fn of(&self, rule: &Rule) -> Option<Shared> {
        let mark = self.held.get(&colours::meter_of(rule)?)?;
        let port = self.ports.get(&colours::way_out(rule)?)?;
        let in_force = |laid: Laid| matches!(laid, Laid::InForce(_));
        (in_force(mark.red) && in_force(*port) && !mark.unwanted).then_some(mark.meter)
    }

    fn is_ready(&self, number: u32) -> bool {
        let in_force = |laid: &Laid| matches!(laid, Laid::InForce(_));
        self.ports.values().all(in_force) && self.held.get(&number).is_some_and(|mark| in_force(&mark.red))
    }

    /// What has become of a rule.
    pub(super) fn laid(&mut self, which: Decides, now: Laid) {
        let laid = match which {
            Decides::Port(port) => self.ports.get_mut(&port),
            Decides::Red(meter) => self.held.get_mut(&meter).map(|mark| &mut mark.red),
        };
        if let Some(laid) = laid {
            *laid = now;
        }
    }

    fn due(&self, proxy: u16) -> Vec<(Decides, Rule, Option<CounterId>)> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let ports = self.ports.iter().filter(|(_, laid)| **laid == Laid::Due);
        let ports = ports.map(|(port, _)| (Decides::Port(*port), colours::onward(proxy, *port), None));
        let reds = self.held.iter().filter(|(_, mark)| mark.red == Laid::Due && !mark.unwanted);
        let reds =
            reds.map(|(meter, mark)| (Decides::Red(*meter), colours::red(proxy, *meter), Some(mark.counter)));
        ports.chain(reds).collect()
    }
}

fn meaning(refusal: MtrRefusal) -> EngineError {
    EngineError::Refused(refusal.errno as i32)
}

impl SimEngine {
    pub(super) fn set_mark(&mut self, port: u16, number: u32, rate: &Meter) -> Result<(), EngineError> {
        if number > colours::METER_MAX {
            return Err(EngineError::Refused(Errno::Inval as i32));
        }
        let profile = profile_of(rate);
        if !self.marks.held.contains_key(&number) {
            self.make_mark(number, rate, profile)?;
        }
        self.decide(port)?;
        if !self.marks.is_ready(number) {
            return Err(EngineError::QueueFull);
        }
        match self.marks.held.get_mut(&number) {
            Some(mark) if mark.rate == *rate && !mark.unwanted => Ok(()),
            Some(mark) if !mark.unwanted => {
                let change =
                    ActionUpdate::Meter { profile: Some(profile), colour_aware: None, enabled: None };
                self.device.indirect_update(self.now, mark.meter, change).map_err(refused)?;
                mark.rate = *rate;
                Ok(())
            }
            _ => Err(EngineError::QueueFull),
        }
    }

    fn make_mark(&mut self, number: u32, rate: &Meter, profile: Profile) -> Result<(), EngineError> {
        let counter = self.device.indirect_create(self.now, PROXY, &Action::Count).map_err(refused)?;
        let Shared::Counter(counter) = counter else { return Err(EngineError::NoCounter) };
        match self.make_meter(profile) {
            Ok(meter) => {
                let mark = Mark { meter, counter, rate: *rate, red: Laid::Due, unwanted: false };
                self.marks.held.insert(number, mark);
                Ok(())
            }
            Err(error) => {
                // It is nobody's yet.
                let _ = self.device.indirect_destroy(self.now, Shared::Counter(counter));
                Err(error)
            }
        }
    }

    fn make_meter(&mut self, profile: Profile) -> Result<Shared, EngineError> {
        let meters = self.device.meters();
        meters.profile_add(PROXY, PROFILE, profile).map_err(meaning)?;
        let handle = meters.profile_get(PROXY, PROFILE).unwrap_or(0);
        let action = Action::MeterMark { profile: handle, colour_aware: false };
        let made = self.device.indirect_create(self.now, PROXY, &action).map_err(refused);
        // Meters do not hold on to it.
        let _ = self.device.meters().profile_delete(PROXY, PROFILE);
        made
    }

    /// Enqueues the rules that decide which are due.
    fn decide(&mut self, proxy: u16) -> Result<(), EngineError> {
        let Some(queued) = &mut self.queued else { return Ok(()) };
        for (which, rule, counter) in self.marks.due(proxy) {
            let counter = counter.map(Shared::Counter);
            queued.decide(&mut self.device, self.now, which, &rule, counter)?;
            self.marks.laid(which, Laid::UnderWay);
        }
        Ok(())
    }

    pub(super) fn red_count(&mut self, number: u32) -> Result<Count, EngineError> {
        let counter = self.marks.held.get(&number).map(|mark| mark.counter).ok_or(GONE)?;
        let value = self.device.indirect_count(self.now, counter, false).map_err(lost)?;
        Ok(Count { packets: value.hits, bytes: value.bytes })
    }

    pub(super) fn unset_mark(&mut self, number: u32) {
        if let Some(mark) = self.marks.held.get_mut(&number) {
            mark.unwanted = true;
        }
        self.tend_marks();
    }

    /// Goes on with what is unwanted: the rule first.
    pub(super) fn tend_marks(&mut self) {
        let unwanted: Vec<u32> =
            (self.marks.held.iter()).filter_map(|(number, mark)| mark.unwanted.then_some(*number)).collect();
        for number in unwanted {
            let Some(mark) = self.marks.held.get_mut(&number) else { continue };
            match mark.red {
                Laid::InForce(handle) => {
                    let queued = self.queued.as_mut();
                    let begun = queued.map(|queued| queued.undecide(self.now, Decides::Red(number), handle));
                    if begun.is_some_and(|begun| begun.is_ok()) {
                        mark.red = Laid::Leaving;
                    }
                }
                Laid::Due => {
                    let (meter, counter) = (mark.meter, mark.counter);
                    self.marks.held.remove(&number);
                    self.destroy_mark(meter, counter);
                }
                Laid::UnderWay | Laid::Leaving => {}
            }
        }
    }

    /// After a reset they are gone already, which is as good.
    fn destroy_mark(&mut self, meter: Shared, counter: CounterId) {
        let _ = self.device.indirect_destroy(self.now, meter);
        let _ = self.device.indirect_destroy(self.now, Shared::Counter(counter));
    }

    /// Gives up all meters: no rules are left.
    pub(super) fn unset_marks(&mut self) {
        for mark in std::mem::take(&mut self.marks.held).into_values() {
            self.destroy_mark(mark.meter, mark.counter);
        }
        self.marks.ports.values_mut().for_each(|laid| *laid = Laid::Due);
    }
}
