//! Birds that must not survive: each is one part of the system, broken on purpose. If the checkers do not
//! notice, the checkers are broken.

use crate::scenario::MS;
use dataplane::addr::Ip;
use dataplane::conntrack::Count;
use offload::engine::sim::SimEngine;
use offload::engine::{Completion, EngineError, FlowEngine, LegId, Traits};
use offload::rule::{Action, Item, Rule};
use std::collections::{BTreeMap, BTreeSet};

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Canary {
    /// Revocations are taken and thrown away.
    DropsRevocations,
    /// The rule for replies sets a wrong port.
    WrongReplyPort,
    /// The rule for requests sends to a neighbour of the backend.
    WrongBackend,
    /// The TTL stays as it is.
    KeepsTtl,
    /// A rule takes FIN and RST, too.
    TakesFin,
    /// A failed rule is said to be in force.
    FailedIsInstalled,
    /// A rule is said to be out, and is not.
    LeaksRule,
    /// What was counted last is not reported.
    ForgetsLastCounts,
    /// What was counted is reported twice.
    CountsTwice,
    /// A worker's packet is lost between its transmit queue and the wire.
    LosesPacket,
    /// Answers about a connection are taken for whoever has its slot now.
    IgnoresGeneration,
    /// The policy never reaches those who should keep to it.
    IgnoresPolicy,
    /// Rules go as they should, but a while after they could.
    RemovesLate,
    /// A rule that drops is said to be out, and is not.
    KeepsDrops,
    /// What rules have dropped last is not known.
    ForgetsDrops,
    /// The offload thread stops.
    Stops,
}

/// The engine, perhaps broken.
pub(crate) struct Device {
    pub(crate) engine: SimEngine,
    canary: Option<Canary>,
    leaked: BTreeSet<(u32, u8)>,
    /// Rules that drop, and what was read of them while they were in force.
    drops: BTreeMap<(u32, u8), (bool, Count)>,
    owed: Vec<Completion>,
    pub(crate) now: u64,
    /// Since when a removal is put off.
    putting_off: Option<u64>,
}

/// How late: long before anybody would call a rule an orphan.
const LATE_NS: u64 = 300 * MS;

impl Device {
    pub(crate) fn new(engine: SimEngine, canary: Option<Canary>) -> Device {
        Device {
            engine,
            canary,
            leaked: BTreeSet::new(),
            drops: BTreeMap::new(),
            owed: Vec::new(),
            now: 0,
            putting_off: None,
        }
    }

    pub(crate) fn canary(&self) -> Option<Canary> {
        self.canary
    }

    fn break_rule(&self, leg: LegId, rule: &Rule) -> Rule {
        let mut rule = rule.clone();
        let reply = leg.direction as u8 == 1;
        for action in &mut rule.actions {
            match (self.canary, &mut *action) {
                (Some(Canary::WrongReplyPort), Action::SetPortSrc(port)) if reply => *port ^= 1,
                (Some(Canary::WrongBackend), Action::SetIpDst(ip)) => *ip = neighbour(*ip),
                _ => {}
            }
        }
        if self.canary == Some(Canary::KeepsTtl) {
            rule.actions.retain(|action| *action != Action::DecTtl);
        }
        if self.canary == Some(Canary::TakesFin) {
            for item in &mut rule.items {
                if let Item::Tcp { flags, .. } = item {
                    *flags = None;
                }
            }
        }
        rule
    }
}

/// The address of the host next door.
fn neighbour(ip: Ip) -> Ip {
    let [hi, lo] = ip.words();
    Ip::from_words([hi, lo ^ 7])
}

impl FlowEngine for Device {
    fn traits(&self) -> Traits {
        self.engine.traits()
    }

    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError> {
        if self.leaked.contains(&(leg.rule.0, leg.direction as u8)) {
            return Err(EngineError::TableFull);
        }
        if rule.actions.contains(&Action::Drop) {
            self.drops.insert((leg.rule.0, leg.direction as u8), (true, Count::default()));
        }
        self.engine.install(leg, &self.break_rule(leg, rule))
    }

    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        let name = (leg.rule.0, leg.direction as u8);
        if self.canary == Some(Canary::LeaksRule) && self.leaked.is_empty() {
            self.leaked.insert(name);
            self.owed.push(Completion::Removed(leg));
            return Ok(());
        }
        if let Some((in_force, _)) = self.drops.get_mut(&name) {
            *in_force = false;
            if self.canary == Some(Canary::KeepsDrops) {
                self.leaked.insert(name);
                self.owed.push(Completion::Removed(leg));
                return Ok(());
            }
        }
        if self.canary == Some(Canary::RemovesLate) {
            if self.now - *self.putting_off.get_or_insert(self.now) < LATE_NS {
                return Err(EngineError::QueueFull);
            }
            self.putting_off = None;
        }
        self.engine.remove(leg)
    }

    fn push(&mut self) {
        self.engine.push();
    }

    fn pull(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.owed);
        self.engine.pull(completions);
        if self.canary == Some(Canary::FailedIsInstalled) {
            for completion in completions {
                if let Completion::Failed(leg, _) = *completion {
                    *completion = Completion::Installed(leg);
                }
            }
        }
    }

    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        let count = self.engine.count(leg)?;
        match self.drops.get_mut(&(leg.rule.0, leg.direction as u8)) {
            Some((true, known)) => *known = count,
            Some((false, known)) if self.canary == Some(Canary::ForgetsDrops) => return Ok(*known),
            _ => {}
        }
        Ok(count)
    }

    fn release(&mut self, leg: LegId) {
        if !self.leaked.contains(&(leg.rule.0, leg.direction as u8)) {
            self.engine.release(leg);
        }
    }

    fn aged(&mut self, aged: &mut Vec<LegId>) {
        self.engine.aged(aged);
    }

    fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    fn fence(&mut self, groups: u8) -> bool {
        self.engine.fence(groups)
    }

    fn fenced(&self) -> u8 {
        self.engine.fenced()
    }

    fn take_base_failures(&mut self) -> u32 {
        self.engine.take_base_failures()
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.engine.flush()
    }
}
