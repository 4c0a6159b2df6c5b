//! The meters of hardware steering, and the rules that decide by their colours: see [`crate::colours`].
//!
//! ```text
//! set ─▶ meter and counter are made ─▶ its red rule, and each port's, on their way ─▶ all in force: set
//! again unset ─▶ the red rule on its way out ─▶ meter and counter are given back
//! ```
//!
//! The ports' rules come with the first meter and stay until a flush. A rule of a connection is taken only
//! where all that its packets come to is in force.

use std::collections::BTreeMap;

use super::template::TemplateEngine;
use super::{Count, EngineError, Meter, spell};
use crate::colours;
use crate::rule::{Item, Rule};
use dpdk::flow::{CounterKey, Done, End, FlowError, MeterKey, MeterRate, RuleKey};

/// Set in the tags of rules that decide; the rest is a meter's number, with [`RED`], or an ethdev's.
pub(super) const DECIDES: u64 = 1 << 62;
const RED: u64 = 1 << 61;

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const ENOTSUP: i32 = 95;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Laid {
    Due,
    UnderWay,
    InForce(RuleKey),
    Leaving(RuleKey),
}

#[derive(Debug)]
struct Mark {
    meter: MeterKey,
    counter: CounterKey,
    /// What the device was told last.
    rate: MeterRate,
    /// It would not have that.
    untold: bool,
    red: Laid,
    /// It is given up.
    unwanted: bool,
}

/// Meters by number, and the rule of each port, by ethdev.
#[derive(Debug)]
pub(super) struct Marks {
    held: BTreeMap<u32, Mark>,
    ports: BTreeMap<u16, Laid>,
}

impl Marks {
    /// None yet, for packets between the ports that these rules lead from.
    pub(super) fn new(base: &[Rule]) -> Marks {
        let ports = base.iter().flat_map(|rule| &rule.items).filter_map(|item| match item {
            Item::RepresentedPort(port) => Some((*port, Laid::Due)),
            _ => None,
        });
        Marks { held: BTreeMap::new(), ports: ports.collect() }
    }

    /// The device was emptied.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.ports.values_mut().for_each(|laid| *laid = Laid::Due);
    }

    /// The meter that a rule names, if all that its packets come to is in force.
    pub(super) fn of(&self, rule: &Rule) -> Option<MeterKey> {
        let mark = self.held.get(&colours::meter_of(rule)?)?;
        let port = self.ports.get(&colours::way_out(rule)?)?;
        let in_force = |laid: Laid| matches!(laid, Laid::InForce(_));
        (in_force(mark.red) && in_force(*port) && !mark.unwanted).then_some(mark.meter)
    }

    fn is_ready(&self, number: u32) -> bool {
        let in_force = |laid: &Laid| matches!(laid, Laid::InForce(_));
        self.ports.values().all(in_force) && self.held.get(&number).is_some_and(|mark| in_force(&mark.red))
    }

    fn laid(&mut self, tag: u64) -> Option<&mut Laid> {
        let number = tag & !(DECIDES | RED);
        if tag & RED == 0 {
            self.ports.get_mut(&u16::try_from(number).ok()?)
        } else {
            self.held.get_mut(&u32::try_from(number).ok()?).map(|mark| &mut mark.red)
        }
    }

    /// The rules that are to be put in force, and their tags.
    fn due(&self, proxy: u16) -> Vec<(u64, Rule)> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let due = |laid: Laid| laid == Laid::Due;
        let ports = self.ports.iter().filter(|(_, laid)| due(**laid));
        let ports = ports.map(|(port, _)| (DECIDES | u64::from(*port), colours::onward(proxy, *port)));
        let reds = self.held.iter().filter(|(_, mark)| due(mark.red) && !mark.unwanted);
        let reds = reds.map(|(meter, _)| (DECIDES | RED | u64::from(*meter), colours::red(proxy, *meter)));
        ports.chain(reds).collect()
    }
}

impl TemplateEngine<'_> {
    pub(super) fn set_mark(&mut self, number: u32, wanted: &Meter) -> Result<(), EngineError> {
        if self.queue.meters_max() == 0 {
            return Err(EngineError::Refused(ENOTSUP));
        }
        if number > colours::METER_MAX {
            return Err(EngineError::Refused(EINVAL));
        }
        let Meter { packets, per_second, burst } = *wanted;
        let rate = MeterRate { per_second, burst, packets };
        if !self.marks.held.contains_key(&number) {
            self.make_mark(number, rate)?;
        }
        self.decide()?;
        self.push_now();
        if !self.marks.is_ready(number) {
            return Err(EngineError::QueueFull);
        }
        match self.marks.held.get_mut(&number) {
            Some(mark) if !mark.unwanted => {
                mark.untold |= mark.rate != rate;
                mark.rate = rate;
            }
            // It has to go first.
            _ => return Err(EngineError::QueueFull),
        }
        self.tell_marks();
        Ok(())
    }

    fn make_mark(&mut self, number: u32, rate: MeterRate) -> Result<(), EngineError> {
        let made = self.queue.port().create_counter(true);
        let counter = made.map_err(|error| self.complained(error, spell::of_counter))?;
        match self.queue.create_meter(&rate) {
            Ok(meter) => {
                let mark = Mark { meter, counter, rate, untold: false, red: Laid::Due, unwanted: false };
                self.marks.held.insert(number, mark);
                Ok(())
            }
            Err(error) => {
                self.give_back(Some(counter));
                Err(self.complained(error, spell::of_creation))
            }
        }
    }

    fn complained(&mut self, error: FlowError, means: fn(&FlowError) -> EngineError) -> EngineError {
        let means = means(&error);
        self.last_error = Some(error);
        means
    }

    /// Enqueues the rules that decide which are due, as long as there is room.
    fn decide(&mut self) -> Result<(), EngineError> {
        for (tag, rule) in self.marks.due(self.queue.number()) {
            let number = u32::try_from(tag & !(DECIDES | RED)).unwrap_or(u32::MAX);
            let mark = self.marks.held.get(&number).filter(|_| tag & RED != 0);
            let counter = mark.map(|mark| mark.counter);
            let objects = spell::Objects { counter, ..spell::Objects::default() };
            match self.enqueue(&rule, objects, tag) {
                Ok(_) => {
                    if let Some(laid) = self.marks.laid(tag) {
                        *laid = Laid::UnderWay;
                    }
                }
                Err((EngineError::QueueFull, _)) => return Ok(()),
                Err((means, error)) => {
                    self.last_error = error.or(self.last_error.take());
                    return Err(means);
                }
            }
        }
        Ok(())
    }

    /// Tells the device rates that it does not know, as long as there is room.
    fn tell_marks(&mut self) {
        while let Some(meter) = self.queue.take_unchanged() {
            self.marks
                .held
                .values_mut()
                .filter(|mark| mark.meter == meter)
                .for_each(|mark| mark.untold = true);
        }
        for mark in self.marks.held.values_mut().filter(|mark| mark.untold && !mark.unwanted) {
            match self.queue.enqueue_meter_change(mark.meter, &mark.rate) {
                Ok(()) => (mark.untold, self.unpushed) = (false, true),
                Err(error) => {
                    if spell::of_existing(&error) != EngineError::QueueFull {
                        self.last_error = Some(error);
                    }
                    return;
                }
            }
        }
    }

    /// What comes of what has ended: changes that failed are tried again, and what is unwanted goes.
    pub(super) fn tend_marks(&mut self) {
        self.tell_marks();
        let unwanted = |(number, mark): (&u32, &Mark)| mark.unwanted.then_some(*number);
        let numbers: Vec<u32> = self.marks.held.iter().filter_map(unwanted).collect();
        for number in numbers {
            if let Err(error) = self.end_mark(number) {
                if spell::of_existing(&error) != EngineError::QueueFull {
                    self.last_error = Some(error);
                }
            }
        }
    }

    /// The next thing to be done for a meter to go.
    fn end_mark(&mut self, number: u32) -> Result<(), FlowError> {
        let Some(mark) = self.marks.held.get_mut(&number) else { return Ok(()) };
        match mark.red {
            Laid::UnderWay | Laid::Leaving(_) => Ok(()),
            Laid::InForce(rule) => {
                self.queue.enqueue_destroy(rule)?;
                (mark.red, self.unpushed) = (Laid::Leaving(rule), true);
                Ok(())
            }
            Laid::Due => {
                let (meter, counter) = (mark.meter, mark.counter);
                self.queue.destroy_meter(meter)?;
                self.marks.held.remove(&number);
                self.give_back(Some(counter));
                Ok(())
            }
        }
    }

    pub(super) fn settle_mark(&mut self, done: Done) {
        let Some(laid) = self.marks.laid(done.tag) else { return };
        match done.end {
            End::Created => *laid = Laid::InForce(done.rule),
            End::CreateFailed => {
                *laid = Laid::Due;
                self.dead.push_back((done.tag, done.rule));
            }
            // Of a failed one that is buried, these say nothing, however late that ends.
            End::Destroyed if *laid == Laid::Leaving(done.rule) => *laid = Laid::Due,
            End::DestroyFailed if *laid == Laid::Leaving(done.rule) => *laid = Laid::InForce(done.rule),
            End::Destroyed | End::DestroyFailed => {}
        }
    }

    pub(super) fn red_count(&mut self, number: u32) -> Result<Count, EngineError> {
        let lost = EngineError::Lost(ENOENT);
        let counter = self.marks.held.get(&number).map(|mark| mark.counter).ok_or(lost)?;
        match self.queue.port().count(counter) {
            Ok(value) => Ok(Count { packets: value.packets, bytes: value.bytes }),
            Err(error) => Err(self.complained(error, spell::of_existing)),
        }
    }

    pub(super) fn unset_mark(&mut self, number: u32) {
        if let Some(mark) = self.marks.held.get_mut(&number) {
            mark.unwanted = true;
        }
        self.tend_marks();
        self.push_now();
    }
}
