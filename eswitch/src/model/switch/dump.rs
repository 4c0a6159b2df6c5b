//! The tables as a person wants to read them.

use std::fmt::{self, Write};

use super::super::key::Match;
use super::super::refusal::{Cause, Errno, Refusal};
use super::super::types::{Domain, RuleHandle, RuleId, Steering, Tick, Vport};
use super::rules::{Group, Metering, Rule, Target, expand};
use super::{Core, Eswitch};

/// Slots that one call looks at, at most.
const SLOTS: u32 = 1024;

impl Eswitch {
    /// Prints the ports and every group with its matchers, each with a rule for an example. What it costs
    /// depends on their number, not on the rules'; for those see [`Eswitch::dump_rules`].
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn dump_tables(&self, out: &mut impl Write) -> fmt::Result {
        let core = &self.core;
        let steering = core.context.steering;
        writeln!(out, "{} rules, steering {steering:?}, {} vports", core.rules.len(), core.rx.len())?;
        for (vport, info) in core.context.topology.iter() {
            let state = if core.rx[usize::from(vport.0)].started { "started" } else { "stopped" };
            writeln!(out, "  vport {}: {:?}, ethdev {}, {state}", vport.0, info.role, info.port_id)?;
        }
        let examples = core.examples();
        core.groups.iter().try_for_each(|group| core.dump_group(group, &examples, out))
    }

    /// Prints some rules in testpmd's syntax, with what they have counted, from slot `from` on, which is then
    /// moved behind them. True: there may be more.
    pub fn dump_rules(&mut self, now: Tick, from: &mut u32, count: usize, out: &mut impl Write) -> bool {
        let end = self.core.rules.end();
        let (mut printed, mut looked_at) = (0, 0);
        while *from < end && printed < count && looked_at < SLOTS {
            if self.core.rules.get(*from).is_some() {
                if self.core.dump_rule(now, RuleId(*from), out).is_err() {
                    return false;
                }
                printed += 1;
            }
            looked_at += 1;
            *from += 1;
        }
        *from < end
    }

    /// Prints the rule that the application calls so.
    ///
    /// # Errors
    /// ENOENT for a stale handle; EIO if `out` fails.
    pub fn dump_handle(
        &mut self,
        now: Tick,
        port: Vport,
        handle: RuleHandle,
        out: &mut impl Write,
    ) -> Result<(), Refusal> {
        let id = self.find(port, handle)?;
        let failed = Refusal::new(Errno::Io, Cause::Unspecified, "cannot write");
        self.core.dump_rule(now, id, out).map_err(|_| failed)
    }
}

impl Core {
    fn dump_group(&self, group: &Group, examples: &[u32], out: &mut impl Write) -> fmt::Result {
        let Group { classifier, domain, number } = group;
        let index = self.groups.find(*domain, *number);
        let name = match *domain {
            Domain::Fdb => "transfer".to_owned(),
            Domain::NicRx(vport) => format!("ingress of port {}", self.port_id(vport)),
        };
        writeln!(out, "{name} group {number}: {} rules", classifier.len())?;
        for matcher in classifier.matchers() {
            let (priority, layer) = self.priority(matcher.priority);
            write!(out, "  priority {priority}{layer}: {} rules", matcher.rules)?;
            let like = examples.iter().filter_map(|slot| self.rules.get(*slot));
            let like =
                like.into_iter().find(|rule| Some(rule.group) == index && rule.matcher == Some(matcher.id));
            let topology = &self.context.topology;
            match like {
                Some(rule) => {
                    let value = expand(matcher.mask, &rule.value);
                    let like = Match { mask: *matcher.mask, value };
                    writeln!(out, " like {}", like.with_ports(topology))?;
                }
                None => writeln!(out)?,
            }
        }
        Ok(())
    }

    fn dump_rule(&mut self, now: Tick, id: RuleId, out: &mut impl Write) -> fmt::Result {
        let Some(rule) = self.rules.get(id.0) else { return writeln!(out, "#{}: gone", id.0) };
        let Group { classifier, domain, number, .. } = self.groups.get(rule.group);
        let matcher = classifier.matchers().find(|matcher| rule.matcher == Some(matcher.id));
        write!(out, "#{}: flow create {} ", id.0, self.port_id(rule.port))?;
        match domain {
            Domain::Fdb => write!(out, "transfer ")?,
            Domain::NicRx(_) => write!(out, "ingress ")?,
        }
        write!(out, "group {number} ")?;
        match matcher {
            Some(matcher) => {
                let value = expand(matcher.mask, &rule.value);
                let matching = Match { mask: *matcher.mask, value };
                let pattern = matching.with_ports(&self.context.topology);
                let (priority, _) = self.priority(matcher.priority);
                write!(out, "priority {priority} pattern {pattern} actions ")?;
            }
            None => write!(out, "pattern gone actions ")?,
        }
        let timeout_s = rule.age.map(|age| self.ages.timeout(age));
        self.write_actions(rule, timeout_s, out)?;
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

    fn write_actions(&self, rule: &Rule, timeout_s: Option<u32>, out: &mut impl Write) -> fmt::Result {
        if rule.counter.is_some() {
            write!(out, "count / ")?;
        }
        if let Some(timeout_s) = timeout_s {
            write!(out, "age timeout {timeout_s} / ")?;
        }
        match rule.metering {
            Metering::None => {}
            Metering::Policy(id) | Metering::First(id) => {
                write!(out, "meter mtr_id {} / ", self.meters.name(id).unwrap_or(u32::MAX))?;
            }
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
            Target::Queues(set) => {
                write!(out, "rss queues")?;
                self.rss.queues(set).iter().try_for_each(|queue| write!(out, " {queue}"))?;
                write!(out, " end / ")?;
            }
            Target::Default => {}
        }
        write!(out, "end")
    }

    /// A matcher's priority as the application gave it, and what software steering adds by layer.
    fn priority(&self, priority: u32) -> (u32, &'static str) {
        match self.context.steering {
            Steering::Hardware => (priority, ""),
            Steering::Software => (priority / 3, [" (L4)", " (L3)", " (L2)"][priority as usize % 3]),
        }
    }

    /// Slots of some rules, among which there is hopefully one of each matcher.
    fn examples(&self) -> Vec<u32> {
        let mut seen = Vec::new();
        let mut slots = Vec::new();
        for slot in 0..self.rules.end().min(SLOTS) {
            let Some(rule) = self.rules.get(slot) else { continue };
            let matcher = (rule.group, rule.matcher);
            if !seen.contains(&matcher) {
                seen.push(matcher);
                slots.push(slot);
            }
        }
        slots
    }

    fn port_id(&self, vport: Vport) -> u16 {
        self.context.topology.get(vport).map_or(u16::MAX, |info| info.port_id)
    }
}
