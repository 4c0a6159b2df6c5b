//! A device behind [`FlowEngine`] that misbehaves on purpose and checks how it is used.

use dataplane::conntrack::Count;
use offload::engine::{Completion, EngineError, FlowEngine, Kind, LegId, Meter, Traits};
use offload::rule::{Action, Rule};
use std::collections::{BTreeMap, HashMap};

/// Pseudo-random numbers: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in so many of 1000 cases.
    pub(crate) fn permille(&mut self, chance: u32) -> bool {
        self.below(1000) < u64::from(chance)
    }
}

/// How often what goes wrong, of 1000 cases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) queue_full: u32,
    pub(crate) table_full: u32,
    pub(crate) no_counter: u32,
    pub(crate) refused: u32,
    pub(crate) failed: u32,
    pub(crate) stuck: u32,
    /// A completion that never comes.
    pub(crate) silent: u32,
    /// A completion that nobody waits for.
    pub(crate) unsolicited: u32,
    pub(crate) flush_fails: u32,
    pub(crate) count_lost: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Installing,
    In,
    Removing,
    Out,
}

#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) state: State,
    pub(crate) rule: Rule,
    /// What the rule has counted,
    pub(crate) count: Count,
    /// and what of it can be read.
    visible: Count,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    due_ns: u64,
    completion: Completion,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) traits: Traits,
    pub(crate) faults: Faults,
    pub(crate) random: Random,
    pub(crate) now_ns: u64,
    /// Longest time an operation takes.
    pub(crate) delay_ns: u64,
    pub(crate) legs: HashMap<LegId, Held>,
    operations: Vec<Operation>,
    /// When insertions began.
    pub(crate) insertions: Vec<u64>,
    /// Counted by rules whose counter was released,
    pub(crate) released: Count,
    /// and by rules that a flush took.
    pub(crate) flushed: Count,
    pub(crate) flushes: u32,
    /// Every operation answers `Lost`: the device was reset.
    pub(crate) dead: bool,
    /// What became of a base rule is lost; so it will be after so many flushes less one.
    pub(crate) base_lost: u32,
    /// What was called, in order: `true` for an insertion.
    pub(crate) log: Vec<bool>,
    pub(crate) aged: Vec<LegId>,
    /// By number, with what they have dropped. None may be made if it is `None`.
    pub(crate) meters: Option<BTreeMap<u32, (Meter, Count)>>,
    /// So often a meter is not ready yet.
    pub(crate) meters_slow: u32,
}

impl Device {
    pub(crate) fn new(seed: u64, rules_max: u32, operations_max: u32) -> Device {
        let kind = Kind::Simulated;
        Device {
            traits: Traits { kind, rules_max, operations_max, settle_ms: 50, ages: true, meters: None },
            faults: Faults::default(),
            random: Random(seed),
            now_ns: 0,
            delay_ns: 200_000,
            legs: HashMap::new(),
            operations: Vec::new(),
            insertions: Vec::new(),
            released: Count::default(),
            flushed: Count::default(),
            flushes: 0,
            dead: false,
            base_lost: 0,
            log: Vec::new(),
            aged: Vec::new(),
            meters: None,
            meters_slow: 0,
        }
    }

    /// Rules that packets may hit.
    pub(crate) fn rules(&self) -> usize {
        self.legs.values().filter(|held| held.state != State::Out).count()
    }

    /// Packets of 100 bytes of IP behind an Ethernet header hit a rule, if it is in force.
    pub(crate) fn hit(&mut self, leg: LegId, packets: u64) -> bool {
        let Some(held) = self.legs.get_mut(&leg) else { return false };
        let in_force = matches!(held.state, State::In | State::Removing);
        if in_force {
            held.count.packets += packets;
            held.count.bytes += packets * 114;
        }
        in_force
    }

    /// Counters are refreshed, some of them.
    pub(crate) fn refresh(&mut self, all: bool) {
        for held in self.legs.values_mut() {
            if all || self.random.permille(500) {
                held.visible = held.count;
            }
        }
    }

    fn begin(&mut self, completion: Completion) {
        if self.random.permille(self.faults.silent) {
            return;
        }
        let due_ns = self.now_ns + self.random.below(self.delay_ns + 1);
        // Operations end in any order.
        let place = self.random.below(self.operations.len() as u64 + 1) as usize;
        self.operations.insert(place, Operation { due_ns, completion });
    }

    fn chance(&mut self, fault: fn(&Faults) -> u32, error: EngineError) -> Result<(), EngineError> {
        if self.random.permille(fault(&self.faults)) { Err(error) } else { Ok(()) }
    }

    fn end(&mut self, completion: Completion) {
        match completion {
            Completion::Installed(leg) => {
                if let Some(held) = self.legs.get_mut(&leg) {
                    held.state = State::In;
                }
            }
            Completion::Failed(leg, _) => {
                self.legs.remove(&leg);
            }
            Completion::Removed(leg) => {
                if let Some(held) = self.legs.get_mut(&leg) {
                    held.state = State::Out;
                }
            }
            Completion::Stuck(..) => {}
        }
    }
}

impl FlowEngine for Device {
    fn traits(&self) -> Traits {
        self.traits
    }

    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError> {
        assert!(!self.legs.contains_key(&leg), "{leg:?} is in use");
        if self.dead {
            return Err(EngineError::Lost(19));
        }
        if self.operations.len() >= self.traits.operations_max as usize {
            return Err(EngineError::QueueFull);
        }
        self.chance(|faults| faults.queue_full, EngineError::QueueFull)?;
        self.insertions.push(self.now_ns);
        self.log.push(true);
        self.chance(|faults| faults.table_full, EngineError::TableFull)?;
        self.chance(|faults| faults.no_counter, EngineError::NoCounter)?;
        self.chance(|faults| faults.refused, EngineError::Refused(95))?;
        if self.rules() >= self.traits.rules_max as usize {
            return Err(EngineError::TableFull);
        }
        let twin = self.legs.values().find(|held| held.state != State::Out && held.rule.items == rule.items);
        assert!(twin.is_none(), "two rules with one pattern: {leg:?} and {twin:?}");
        let (count, visible) = (Count::default(), Count::default());
        self.legs.insert(leg, Held { state: State::Installing, rule: rule.clone(), count, visible });
        let fails = self.random.permille(self.faults.failed);
        let failed = Completion::Failed(leg, EngineError::Failed);
        self.begin(if fails { failed } else { Completion::Installed(leg) });
        Ok(())
    }

    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        if self.dead {
            return Err(EngineError::Lost(19));
        }
        if self.operations.len() >= self.traits.operations_max as usize {
            return Err(EngineError::QueueFull);
        }
        self.chance(|faults| faults.queue_full, EngineError::QueueFull)?;
        let held = self.legs.get_mut(&leg).expect("a rule that is in force");
        assert_eq!(held.state, State::In, "{leg:?}");
        held.state = State::Removing;
        self.log.push(false);
        let stuck = self.random.permille(self.faults.stuck);
        let stuck_completion = Completion::Stuck(leg, EngineError::Failed);
        self.begin(if stuck { stuck_completion } else { Completion::Removed(leg) });
        Ok(())
    }

    fn push(&mut self) {}

    fn pull(&mut self, completions: &mut Vec<Completion>) {
        let blocking = self.traits.operations_max == 1;
        let mut place = 0;
        while place < self.operations.len() && completions.len() < completions.capacity() {
            if blocking || self.operations[place].due_ns <= self.now_ns {
                let Operation { completion, .. } = self.operations.remove(place);
                self.end(completion);
                completions.push(completion);
            } else {
                place += 1;
            }
        }
        let unsolicited = self.random.permille(self.faults.unsolicited);
        if unsolicited && completions.len() < completions.capacity() {
            let idle = |leg: &LegId| !self.operations.iter().any(|o| leg_of(o.completion) == *leg);
            // One that is not under way, and will be known not to be.
            let leg = self
                .legs
                .iter()
                .find(|(leg, held)| idle(leg) && matches!(held.state, State::In | State::Out));
            if let Some((&leg, _)) = leg {
                completions.push(Completion::Installed(leg));
            }
        }
    }

    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        if self.dead {
            return Err(EngineError::Lost(19));
        }
        self.chance(|faults| faults.count_lost, EngineError::Lost(5))?;
        let held = self.legs.get(&leg).expect("a rule that has a counter");
        assert_ne!(held.state, State::Installing, "{leg:?}");
        Ok(held.visible)
    }

    fn release(&mut self, leg: LegId) {
        let held = self.legs.remove(&leg).expect("a rule that is out");
        assert_eq!(held.state, State::Out, "{leg:?}");
        self.released.packets += held.count.packets;
        self.released.bytes += held.count.bytes;
    }

    fn aged(&mut self, aged: &mut Vec<LegId>) {
        while aged.len() < aged.capacity() {
            let Some(leg) = self.aged.pop() else { break };
            aged.push(leg);
        }
    }

    fn is_ready(&self) -> bool {
        self.base_lost == 0
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.chance(|faults| faults.flush_fails, EngineError::Lost(5))?;
        self.flushes += 1;
        self.base_lost = self.base_lost.saturating_sub(1);
        self.dead = false;
        for held in self.legs.values() {
            self.flushed.packets += held.count.packets;
            self.flushed.bytes += held.count.bytes;
        }
        self.legs.clear();
        self.operations.clear();
        self.meters.iter_mut().for_each(BTreeMap::clear);
        Ok(())
    }

    fn set_meter(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        assert!(port == 0 && self.traits.meters.is_some(), "no such meters");
        let meters = self.meters.as_mut().ok_or(EngineError::Refused(95))?;
        if self.meters_slow > 0 {
            self.meters_slow -= 1;
            return Err(EngineError::QueueFull);
        }
        meters.entry(number).or_insert((*meter, Count::default())).0 = *meter;
        Ok(())
    }

    fn meter_drops(&mut self, _: u16, number: u32) -> Result<Count, EngineError> {
        let meter = self.meters.as_ref().and_then(|meters| meters.get(&number));
        meter.map(|(_, drops)| *drops).ok_or(EngineError::Lost(2))
    }

    fn unset_meter(&mut self, _: u16, number: u32) {
        let named = |held: &&Held| held.rule.actions.contains(&Action::Meter(number));
        assert!(!self.legs.values().filter(|held| held.state != State::Out).any(|held| named(&held)));
        self.meters.iter_mut().for_each(|meters| {
            meters.remove(&number);
        });
    }
}

fn leg_of(completion: Completion) -> LegId {
    match completion {
        Completion::Installed(leg)
        | Completion::Failed(leg, _)
        | Completion::Removed(leg)
        | Completion::Stuck(leg, _) => leg,
    }
}
