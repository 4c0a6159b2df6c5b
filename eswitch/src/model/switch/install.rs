//! Rules come and go: the device's half, after everything that needs no device has been done.

use super::super::action::Action;
use super::super::classifier::MatcherId;
use super::super::key::Match;
use super::super::objects::HitSource;
use super::super::objects::meters::MarkParams;
use super::super::program::{AgeUse, CounterUse, Fate, MeterUse, Mirror, Program};
use super::super::refusal::{Cause, Errno, Refusal};
use super::super::types::{Colour, Domain, MeterId, RuleHandle, RuleId, Tick, Vport};
use super::rules::{
    GroupIndex, Metering, Mirroring, Outcome, Rule, Target, expand, handle_of, parse_handle, squeeze,
};
use super::{Core, Eswitch, REMOVALS, SLOTS};

/// A rule that needs nothing but the device any more.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The port it is made on.
    pub port: Vport,
    /// Its domain.
    pub domain: Domain,
    /// Its group, as the application numbers it.
    pub group: u32,
    /// Its matcher's priority.
    pub priority: u32,
    /// What it matches.
    pub matching: Match,
    /// What it does.
    pub program: Program,
    /// HWS: the matcher of its template table; `None`: the one of its priority and mask.
    pub matcher: Option<MatcherId>,
}

const STALE: Refusal = Refusal::new(Errno::Inval, Cause::Actions, "the indirect action is gone");

const NO_SUCH_RULE: Refusal =
    Refusal::new(Errno::Noent, Cause::Handle, "no such rule: destroyed, flushed, or its port was stopped");

impl Eswitch {
    /// Installs a rule of the synchronous API. The caller has been kept for [`Eswitch::create_cost`].
    ///
    /// # Errors
    /// ENOMEM when the tables are full or a fault refuses (as mlx5: "hardware refuses to create flow"),
    /// EAGAIN without counters, EEXIST for a duplicate where those are not allowed, ETIMEDOUT while the
    /// device hangs.
    pub fn install(&mut self, now: Tick, rule: Prepared) -> Result<RuleHandle, Refusal> {
        self.refresh(now);
        self.answers(now)?;
        if self.faults.refuses() {
            self.core.statistics.refused += 1;
            let why = "hardware refuses to create flow (injected fault)";
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, why));
        }
        let (id, generation) = self.core.install(now, rule, None)?;
        handle_of(id, generation).ok_or(NO_SUCH_RULE)
    }

    /// Destroys a rule of the synchronous API.
    ///
    /// # Errors
    /// ENOENT for a handle that is not, or no more, a rule of this port; ETIMEDOUT while the device hangs.
    pub fn destroy(&mut self, now: Tick, port: Vport, handle: RuleHandle) -> Result<(), Refusal> {
        self.refresh(now);
        self.answers(now)?;
        let id = self.core.resolve_handle(port, handle)?;
        self.core.remove(now, id);
        Ok(())
    }

    /// Removes rules of a port, a slice of them. True: there are more; call again. `from` is where the last
    /// call stopped, 0 at first.
    pub fn flush(&mut self, now: Tick, port: Vport, from: &mut u32) -> bool {
        if *from == 0 {
            // What the queues were doing goes, too; their handles are stale from now on.
            self.invalidate_queues(now, port);
        }
        let end = self.core.rules.end();
        let stop = end.min(from.saturating_add(SLOTS));
        let mut removed = 0;
        while *from < stop && removed < REMOVALS {
            if self.core.rules.get(*from).is_some_and(|rule| rule.port == port) {
                self.core.remove(now, RuleId(*from));
                removed += 1;
            }
            *from += 1;
        }
        *from < end
    }
}

impl Core {
    /// The rule of this port that a handle of the synchronous API names.
    pub(super) fn resolve_handle(&self, port: Vport, handle: RuleHandle) -> Result<RuleId, Refusal> {
        let (id, generation) = parse_handle(handle).ok_or(NO_SUCH_RULE)?;
        let rule = self.rules.get(id.0).ok_or(NO_SUCH_RULE)?;
        let same = rule.generation == generation && rule.port == port;
        if same { Ok(id) } else { Err(NO_SUCH_RULE) }
    }

    /// Puts a rule where packets find it; with `queue`, for the flow queue that it came through.
    pub(super) fn install(
        &mut self,
        now: Tick,
        rule: Prepared,
        queue: Option<u16>,
    ) -> Result<(RuleId, u32), Refusal> {
        let installed = self.try_install(now, rule, queue);
        match installed {
            Ok(_) => self.statistics.installed += 1,
            Err(_) => self.statistics.refused += 1,
        }
        self.statistics.rules = u64::from(self.rules.len());
        installed
    }

    fn try_install(
        &mut self,
        now: Tick,
        rule: Prepared,
        queue: Option<u16>,
    ) -> Result<(RuleId, u32), Refusal> {
        const FULL: Refusal =
            Refusal::new(Errno::Nomem, Cause::Unspecified, "hardware refuses to create flow: tables full");
        if u64::from(self.rules.len()) >= self.full_at.unwrap_or(u64::MAX).min(self.rules_max) {
            return Err(FULL);
        }
        let Prepared { port, domain, group, priority, matching, program, matcher } = rule;
        let Program { edits, counter, age, meter, mirror, fate } = program;
        let mirror = mirror.map(|mirror| mirroring(*mirror)).transpose()?.map(Box::new);
        let group = self.groups.find_or_add(domain, group);
        self.note_root(domain, self.groups.get(group).number, group);
        self.generation = (self.generation + 1) % (1 << 24);
        let generation = self.generation;
        let target = self.target(fate, domain)?;
        let slot = self.rules.insert(Rule {
            target,
            counter: None,
            age: None,
            metering: Metering::None,
            policy: None,
            edits,
            mirror,
            port,
            group,
            matcher: None,
            generation,
            value: squeeze(&matching),
        });
        let id = RuleId(slot.ok_or(FULL)?);
        let done = self
            .take_objects(now, id, queue, counter, age, meter)
            .and_then(|()| self.link(id, group, matcher, priority, &matching));
        match done {
            Ok(()) => Ok((id, generation)),
            Err(refusal) => {
                self.dismantle(now, id);
                Err(refusal)
            }
        }
    }

    /// Enters a rule into its group's classifier.
    fn link(
        &mut self,
        id: RuleId,
        group: GroupIndex,
        matcher: Option<MatcherId>,
        priority: u32,
        matching: &Match,
    ) -> Result<(), Refusal> {
        let classifier = &mut self.groups.get_mut(group).classifier;
        let matcher = matcher.unwrap_or_else(|| classifier.matcher(priority, &matching.mask));
        classifier.insert(matcher, &matching.value, id)?;
        if let Some(rule) = self.rules.get_mut(id.0) {
            rule.matcher = Some(matcher);
        }
        Ok(())
    }

    /// Takes what a rule refers to. What has been taken when something is lacking goes with the rule.
    fn take_objects(
        &mut self,
        now: Tick,
        slot: RuleId,
        queue: Option<u16>,
        counter: CounterUse,
        age: AgeUse,
        meter: MeterUse,
    ) -> Result<(), Refusal> {
        let Some(rule) = self.rules.get_mut(slot.0) else { return Ok(()) };
        match counter {
            CounterUse::None => {}
            CounterUse::Own => rule.counter = Some(self.counters.alloc(now)?),
            CounterUse::Is(id) if self.counters.retain(id) => rule.counter = Some(id),
            CounterUse::Is(_) => return Err(STALE),
        }
        match age {
            AgeUse::None => {}
            AgeUse::Own { timeout_s, context } => {
                let counted = rule.counter.is_some() || queue.is_some();
                let source = if counted { HitSource::Counter } else { HitSource::Bit };
                let context = match (context, queue) {
                    (0, None) => handle_of(slot, rule.generation).map_or(0, |handle| handle.0.get()),
                    // HWS reports an index of its own, which is of no use to anyone.
                    (0, Some(_)) => u64::from(slot.0),
                    (context, _) => context,
                };
                rule.age = Some(self.ages.alloc(now, timeout_s, context, rule.port, queue, source)?);
            }
            AgeUse::Is(id) if self.ages.retain(id) => rule.age = Some(id),
            AgeUse::Is(_) => return Err(STALE),
        }
        match meter {
            MeterUse::None => {}
            MeterUse::Mtr(id) => {
                let port = rule.port;
                let meter = self.meters.attach(port, id)?;
                let default_policy = self.meters.info(meter).is_none_or(|info| info.default_policy);
                rule.metering = match counter {
                    CounterUse::Is(_) if default_policy => Metering::First(meter),
                    _ => Metering::Policy(meter),
                };
                return self.take_policy(slot);
            }
            MeterUse::Is(id) if self.meters.retain(id) => rule.metering = Metering::Mark(id),
            MeterUse::Is(_) => return Err(STALE),
            MeterUse::Mark { profile, colour_aware } => {
                let params = MarkParams { profile, colour_aware, enabled: true };
                rule.metering = Metering::Mark(self.meters.mark(now, &params)?);
            }
        }
        Ok(())
    }

    /// Makes a meter's policy part of the rule: what green and yellow packets go through instead of a fate.
    fn take_policy(&mut self, slot: RuleId) -> Result<(), Refusal> {
        const CHAINED: Refusal =
            Refusal::new(Errno::Notsup, Cause::Actions, "meters that lead to meters are not modelled");
        let Some(Rule { metering: Metering::Policy(meter), group, .. }) = self.rules.get(slot.0) else {
            return Ok(());
        };
        let (meter, domain) = (*meter, self.groups.get(*group).domain);
        let Some(info) = self.meters.info(meter).filter(|info| !info.default_policy) else { return Ok(()) };
        if info.next_meter.is_some() {
            return Err(CHAINED);
        }
        let mut policy = Vec::with_capacity(2);
        let mut refused = None;
        for colour in [Colour::Green, Colour::Yellow] {
            match self.outcome(meter, colour, domain) {
                Ok(outcome) => policy.push(outcome),
                Err(refusal) => refused = Some(refusal),
            }
        }
        // Also when one of them is refused, so that what the other holds goes with the rule.
        if let Some(rule) = self.rules.get_mut(slot.0) {
            rule.policy = Some(policy.into());
        }
        refused.map_or(Ok(()), Err)
    }

    fn outcome(&mut self, meter: MeterId, colour: Colour, domain: Domain) -> Result<Outcome, Refusal> {
        let actions: Vec<Action<'_>> = self.meters.actions(meter, colour).collect();
        let Program { edits, fate, .. } = Program::compile(&actions, &self.context.topology)?;
        Ok(Outcome { edits, target: self.target(fate, domain)? })
    }

    /// Resolves a fate. Groups that it names come into being.
    fn target(&mut self, fate: Fate, domain: Domain) -> Result<Target, Refusal> {
        const NOMEM: Refusal = Refusal::new(Errno::Nomem, Cause::Unspecified, "out of sets of queues");
        Ok(match fate {
            Fate::None => Target::Default,
            Fate::Vport(vport) => Target::Vport(vport),
            Fate::Jump(number) => {
                let index = self.groups.find_or_add(domain, number);
                self.note_root(domain, number, index);
                Target::Group(index)
            }
            Fate::Drop => Target::Drop,
            Fate::Queues(queues) => match *queues {
                [queue] => Target::Queue(queue),
                _ => Target::Queues(self.rss.add(&queues).ok_or(NOMEM)?),
            },
            Fate::SharedQueues(set) if self.rss.hold(set) => Target::Queues(set),
            Fate::SharedQueues(_) => return Err(STALE),
        })
    }

    /// Removes a rule and what is its own.
    pub(super) fn remove(&mut self, now: Tick, id: RuleId) {
        self.unlink(id);
        self.dismantle(now, id);
        self.statistics.rules = u64::from(self.rules.len());
    }

    /// Takes a rule where packets do not find it any more. What it refers to stays.
    pub(super) fn unlink(&mut self, id: RuleId) {
        let Some(rule) = self.rules.get_mut(id.0) else { return };
        let Some(matcher) = rule.matcher.take() else { return };
        let classifier = &mut self.groups.get_mut(rule.group).classifier;
        if let Some(mask) = classifier.mask(matcher) {
            let value = expand(mask, &rule.value);
            classifier.remove(matcher, &value, id);
        }
        self.statistics.removed += 1;
    }

    /// Gives back a rule's slot and what it refers to.
    pub(super) fn dismantle(&mut self, now: Tick, id: RuleId) {
        let Some(rule) = self.rules.remove(id.0) else { return };
        if let Some(counter) = rule.counter {
            self.counters.free(now, counter);
        }
        if let Some(age) = rule.age {
            self.ages.free(age);
        }
        match rule.metering {
            Metering::Policy(id) | Metering::First(id) | Metering::Mark(id) => self.meters.detach(id),
            Metering::None => {}
        }
        let outcomes = rule.policy.iter().flatten().map(|outcome| outcome.target);
        for target in outcomes.chain([rule.target]) {
            if let Target::Queues(set) = target {
                self.rss.release(set);
            }
        }
    }
}

fn mirroring(mirror: Mirror) -> Result<Mirroring, Refusal> {
    let Mirror { ratio, program } = mirror;
    match program.fate {
        Fate::Vport(to) => Ok(Mirroring { ratio, seen: 0, edits: program.edits, to }),
        _ => Err(Refusal::new(Errno::Notsup, Cause::Actions, "a mirror's copies can only go to a port")),
    }
}
