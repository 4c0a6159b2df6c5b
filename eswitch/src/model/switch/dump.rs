//! The tables as a person wants to read them.

use std::fmt::{self, Write};

use super::super::key::Match;
use super::super::types::{Domain, RuleId, Tick, Vport};
use super::rules::{Group, Metering, Rule, Target, expand};
use super::{Core, Eswitch};

/// What to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DumpOptions {
    /// Rules of each group to print in full, at most.
    pub rules_max: usize,
    /// Rules of each group to leave out first.
    pub skip: usize,
}

impl Default for DumpOptions {
    fn default() -> DumpOptions {
        DumpOptions { rules_max: usize::MAX, skip: 0 }
    }
}

impl Eswitch {
    /// Prints every group with its matchers, and rules in testpmd's syntax with what they have counted.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn dump(&mut self, now: Tick, options: DumpOptions, out: &mut impl Write) -> fmt::Result {
        let core = &mut self.core;
        let steering = core.context.steering;
        writeln!(out, "{} rules, steering {steering:?}, {} vports", core.rules.len(), core.rx.len())?;
        for (vport, info) in core.context.topology.iter() {
            let state = if core.rx[usize::from(vport.0)].started { "started" } else { "stopped" };
            writeln!(out, "  vport {}: {:?}, ethdev {}, {state}", vport.0, info.role, info.port_id)?;
        }
        let names: Vec<_> = core.groups.iter().map(|group| (group.domain, group.number)).collect();
        for (domain, number) in names {
            core.dump_group(now, domain, number, options, out)?;
        }
        Ok(())
    }

    /// Prints one rule.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn dump_rule(&mut self, now: Tick, id: RuleId, out: &mut impl Write) -> fmt::Result {
        self.core.dump_rule(now, id, out)
    }
}

impl Core {
    fn dump_group(
        &mut self,
        now: Tick,
        domain: Domain,
        number: u32,
        options: DumpOptions,
        out: &mut impl Write,
    ) -> fmt::Result {
        let Some(index) = self.groups.find(domain, number) else { return Ok(()) };
        let Group { classifier, .. } = self.groups.get(index);
        let name = match domain {
            Domain::Fdb => "transfer".to_owned(),
            Domain::NicRx(vport) => format!("ingress of port {}", self.port_id(vport)),
        };
        let total = classifier.len();
        writeln!(out, "{name} group {number}: {total} rules")?;
        for matcher in classifier.matchers() {
            let mask = Match { mask: *matcher.mask, value: *matcher.mask };
            writeln!(out, "  priority {}: {} rules, mask {mask}", matcher.priority, matcher.rules)?;
        }
        let wanted: Vec<u32> = (0..self.rules.end())
            .filter(|slot| self.rules.get(*slot).is_some_and(|rule| rule.group == index))
            .skip(options.skip)
            .take(options.rules_max)
            .collect();
        for slot in &wanted {
            write!(out, "  ")?;
            self.dump_rule(now, RuleId(*slot), out)?;
        }
        let left = total.saturating_sub(options.skip + wanted.len());
        if left > 0 {
            writeln!(out, "  ... and {left} more")?;
        }
        Ok(())
    }

    fn dump_rule(&mut self, now: Tick, id: RuleId, out: &mut impl Write) -> fmt::Result {
        let Some(rule) = self.rules.get(id.0) else { return writeln!(out, "#{}: gone", id.0) };
        let group = self.groups.get(rule.group);
        let matching = rule
            .matcher
            .and_then(|matcher| group.classifier.mask(matcher))
            .map(|mask| Match { mask: *mask, value: expand(mask, &rule.value) });
        write!(out, "#{} port {}: ", id.0, self.port_id(rule.port))?;
        match matching {
            Some(matching) => {
                let pattern = matching.with_ports(&self.context.topology);
                write!(out, "pattern {pattern} / end actions ")?;
            }
            None => write!(out, "pattern unlinked / end actions ")?,
        }
        self.write_actions(rule, out)?;
        let (counter, age) = (rule.counter, rule.age);
        if let Some(counter) = counter {
            if let Ok(value) = self.counters.query(now, counter, false) {
                write!(out, "  [{} packets, {} bytes]", value.hits, value.bytes)?;
            }
        }
        if let Some(age) = age {
            match self.ages.query(now, age).map(|value| value.sec_since_last_hit) {
                Ok(Some(idle)) => write!(out, "  [idle {idle} s]")?,
                Ok(None) => write!(out, "  [aged]")?,
                Err(_) => {}
            }
        }
        writeln!(out)
    }

    fn write_actions(&self, rule: &Rule, out: &mut impl Write) -> fmt::Result {
        if rule.counter.is_some() {
            write!(out, "count / ")?;
        }
        if rule.age.is_some() {
            write!(out, "age / ")?;
        }
        match rule.metering {
            Metering::None => {}
            Metering::Policy(id) => write!(out, "meter mtr_id {} / ", id.0)?,
            Metering::Mark(id) => write!(out, "meter_mark {} / ", id.0)?,
        }
        if let Some(mirror) = &rule.mirror {
            write!(out, "sample ratio {} to port {} / ", mirror.ratio, self.port_id(mirror.to))?;
        }
        if !rule.edits.is_empty() {
            write!(out, "{} / ", rule.edits.describe())?;
        }
        match rule.target {
            Target::Vport(to) => write!(out, "represented_port ethdev_port_id {} / ", self.port_id(to))?,
            Target::Group(group) => write!(out, "jump group {} / ", self.groups.get(group).number)?,
            Target::Drop => write!(out, "drop / ")?,
            Target::Queue(queue) => write!(out, "queue index {queue} / ")?,
            Target::Queues(set) => write!(out, "rss queues {:?} / ", self.rss.queues(set))?,
            Target::Default => {}
        }
        write!(out, "end")
    }

    fn port_id(&self, vport: Vport) -> u16 {
        self.context.topology.get(vport).map_or(u16::MAX, |info| info.port_id)
    }
}
