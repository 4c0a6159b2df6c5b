//! HWS: tables of templates, flow queues, and the device as their engines see it.

use std::sync::Arc;

use super::super::action::{Action, Shared};
use super::super::classifier::MatcherId;
use super::super::item::Item;
use super::super::key::Match;
use super::super::objects::meters::MarkUpdate;
use super::super::pattern::PatternTemplate;
use super::super::profile::Profile;
use super::super::program::{ActionsTemplate, AgeUse, CounterUse, Fate, MeterUse, Program};
use super::super::queue::{self, ActionOp, ActionUpdate, Credits, Installer, Needs, Owner, QueueAttr};
use super::super::refusal::{Cause, Errno, Refusal};
use super::super::template::Occupancy;
use super::super::types::{Domain, RuleHandle, RuleId, Tick, Topology, Vport};
use super::super::validate::{self, ActionsFacts, Context, PatternFacts, TableAttr, table};
use super::install::Prepared;
use super::{Core, Eswitch};

/// The application's end of a flow queue.
pub type FlowQueue = queue::FlowQueue<Prepared>;

/// `rte_flow_port_attr` and the queues of `rte_flow_configure`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConfigureAttr {
    /// Counters set aside.
    pub counters: u32,
    /// Age contexts set aside.
    pub ages: u32,
    /// Meters set aside.
    pub meters: u32,
    /// `RTE_FLOW_PORT_FLAG_STRICT_QUEUE`: aged flows are fetched by queue.
    pub strict_queue: bool,
    /// Flow queues.
    pub queues: u16,
    /// Operations that may be outstanding in each.
    pub size: u32,
    /// What a full queue answers; `None`: ENOMEM, as DPDK 22.11.
    pub full_errno: Option<Errno>,
}

/// A template table: where the rules of some pairs of templates live. It does not change once made, and
/// knows how full it is.
#[derive(Debug)]
pub struct Table {
    context: Arc<Context>,
    port: Vport,
    domain: Domain,
    group: u32,
    priority: u32,
    /// Each with the matcher that is this table's own.
    patterns: Vec<(Arc<PatternTemplate>, MatcherId)>,
    actions: Vec<Arc<ActionsTemplate>>,
    occupancy: Arc<Occupancy>,
}

impl Table {
    /// How full it is; a table that is in use cannot be destroyed (EBUSY).
    #[must_use]
    pub fn occupancy(&self) -> &Arc<Occupancy> {
        &self.occupancy
    }

    /// A rule of this table, and what it takes from the pools.
    ///
    /// # Errors
    /// EINVAL for templates that the table does not have, items or actions other than the template's, an
    /// action to a port that is not of this eSwitch, or a jump to where there is none.
    pub fn prepare(
        &self,
        topology: &Topology,
        pattern: u8,
        items: &[Item<'_>],
        actions_template: u8,
        actions: &[Action<'_>],
    ) -> Result<(Prepared, Needs), Refusal> {
        const NO_PATTERN: Refusal =
            Refusal::new(Errno::Inval, Cause::ItemNum, "the table has no such pattern template");
        const NO_ACTIONS: Refusal =
            Refusal::new(Errno::Inval, Cause::ActionNum, "the table has no such actions template");
        let (pattern, matcher) = self.patterns.get(usize::from(pattern)).ok_or(NO_PATTERN)?;
        let template = self.actions.get(usize::from(actions_template)).ok_or(NO_ACTIONS)?;
        let matching = Match { mask: *pattern.mask(), value: pattern.value(items, topology)? };
        let mut program = template.program(actions, topology)?;
        if let Fate::Jump(group) = program.fate {
            validate::jump(&self.context, self.domain == Domain::Fdb, group)?;
        }
        // An age is watched through a counter: without one of the rule's, through one of its own
        // (`flow_hw_actions_construct`).
        if matches!(program.age, AgeUse::Own { .. }) && program.counter == CounterUse::None {
            program.counter = CounterUse::Own;
        }
        let needs = needs(&program);
        let (port, domain, group, priority) = (self.port, self.domain, self.group, self.priority);
        let matcher = Some(*matcher);
        Ok((Prepared { port, domain, group, priority, matching, program, matcher }, needs))
    }

    /// Enqueues a rule: [`Table::prepare`], and [`queue::FlowQueue::enqueue`].
    ///
    /// # Errors
    /// Those of both.
    #[allow(clippy::too_many_arguments, reason = "they are rte_flow_async_create's")]
    pub fn enqueue(
        &self,
        now: Tick,
        queue: &mut FlowQueue,
        topology: &Topology,
        pattern: (u8, &[Item<'_>]),
        actions: (u8, &[Action<'_>]),
        user_data: u64,
        postpone: bool,
    ) -> Result<RuleHandle, Refusal> {
        let (rule, needs) = self.prepare(topology, pattern.0, pattern.1, actions.0, actions.1)?;
        queue.enqueue(now, &self.occupancy, needs, rule, user_data, postpone)
    }
}

/// Rules for which a table or a queue has memory from the beginning at most: packets wait while it is made.
const RESERVED_MAX: u32 = 8192;

/// How many aged flows wait to be fetched at most, of a port or of each of its queues: a hundredth of the
/// counters, rounded up to a power of two (`mlx5_hws_aged_out_ring_size_get`). mlx5 makes a list of none for
/// fewer than a hundred counters; here it has room for one.
fn aged_list(counters: u32, strict_queues: Option<u16>) -> u32 {
    let share = counters / 100 / u32::from(strict_queues.unwrap_or(1)).max(1);
    share.max(1).checked_next_power_of_two().unwrap_or(u32::MAX)
}

fn needs(program: &Program) -> Needs {
    Needs {
        counter: matches!(program.counter, CounterUse::Own),
        age: matches!(program.age, AgeUse::Own { .. }),
        meter: matches!(program.meter, MeterUse::Mark { .. }),
    }
}

impl Eswitch {
    /// Makes the flow queues of a port anew; returns the application's ends, by number. The queues of one
    /// eSwitch are configured on one port at a time, the transfer proxy as a rule.
    ///
    /// # Errors
    /// EBUSY while operations of the former queues are outstanding or rules of theirs exist; EINVAL for more
    /// than the profile has. What [`super::super::validate::configure`] judges has been judged.
    pub fn configure(
        &mut self,
        now: Tick,
        port: Vport,
        attr: &ConfigureAttr,
        profile: &Profile,
        seed: u64,
    ) -> Result<Vec<FlowQueue>, Refusal> {
        let core = &mut self.core;
        let mut former = self.queues.iter_mut().filter(|queue| queue.attr().port == port);
        if former.any(|queue| !queue.is_idle(now, core)) {
            let why = "the flow queues have rules, or operations that are outstanding: destroy them and pull";
            return Err(Refusal::new(Errno::Busy, Cause::Unspecified, why));
        }
        let refuse = |why| Err(Refusal::new(Errno::Inval, Cause::Unspecified, why));
        if attr.counters > profile.counters_max {
            return refuse("more counters than the device has (nb_counters)");
        }
        if attr.ages > profile.ages_max {
            return refuse("more age contexts than the device has (nb_aging_objects)");
        }
        if attr.meters > profile.meters_max {
            return refuse("more meters than the device has (nb_meters)");
        }
        let taken = self.queues.iter().filter(|queue| queue.attr().port != port).count();
        if taken > 0 {
            return refuse("flow queues are configured on another port of this eSwitch already");
        }
        let credits = Arc::new(Credits::new(attr.counters, attr.ages, attr.meters));
        let full_errno = attr.full_errno.unwrap_or(Errno::Nomem);
        let (mut ends, mut engines) = (Vec::new(), Vec::new());
        for number in 0..attr.queues {
            let Ok(number) = u8::try_from(number) else {
                return refuse("more flow queues than there are numbers");
            };
            let queue_attr = QueueAttr { port, queue: number, size: attr.size, full_errno };
            let (end, engine) =
                queue::pair(queue_attr, profile, &credits, seed.wrapping_add(u64::from(number)))?;
            ends.push(end);
            engines.push(engine.reserving(core.reserved.min(RESERVED_MAX)));
        }
        self.queues = engines;
        self.next_queue = 0;
        self.core.credits = Some(credits);
        let strict_queues = attr.strict_queue.then_some(attr.queues);
        self.core.ages.configure(port, strict_queues, aged_list(attr.counters, strict_queues));
        Ok(ends)
    }

    /// Makes a template table on a port. Its matchers take their places now, so tables are visited in the
    /// order in which they were made, with or without rules.
    ///
    /// # Errors
    /// See [`table`]; EINVAL for more than 2^31 rules; ENOMEM for more tables than the profile has.
    pub fn create_table(
        &mut self,
        port: Vport,
        attr: &TableAttr,
        patterns: &[(Arc<PatternTemplate>, PatternFacts)],
        actions: &[(Arc<ActionsTemplate>, ActionsFacts)],
    ) -> Result<Table, Refusal> {
        let core = &mut self.core;
        let pattern_facts: Vec<&PatternFacts> = patterns.iter().map(|(_, facts)| facts).collect();
        let actions_facts: Vec<&ActionsFacts> = actions.iter().map(|(_, facts)| facts).collect();
        let domain = table(&core.context, port, attr, &pattern_facts, &actions_facts)?;
        let too_many = Refusal::new(Errno::Inval, Cause::Unspecified, "at most 2^31 rules in a table");
        let occupancy = Arc::new(Occupancy::new(attr.nb_flows).ok_or(too_many)?);
        if self.tables_max != 0 && self.tables >= self.tables_max {
            let why = "the device has no room for more tables (tables_max)";
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, why));
        }
        self.tables += 1;
        let (group, priority) = (attr.attr.group, attr.attr.priority);
        let index = core.groups.find_or_add(domain, group);
        core.note_root(domain, group, index);
        let classifier = &mut core.groups.get_mut(index).classifier;
        let reserved = attr.nb_flows.min(core.reserved).min(RESERVED_MAX);
        let hold = |(template, _): &(Arc<PatternTemplate>, PatternFacts)| {
            (Arc::clone(template), classifier.hold(priority, template.mask(), reserved))
        };
        let patterns = patterns.iter().map(hold).collect();
        let actions = actions.iter().map(|(template, _)| Arc::clone(template)).collect();
        let context = Arc::clone(&core.context);
        Ok(Table { context, port, domain, group, priority, patterns, actions, occupancy })
    }

    /// Destroys a template table.
    ///
    /// # Errors
    /// EBUSY while it has rules, or some whose destruction has not been pulled.
    pub fn destroy_table(&mut self, table: &Table) -> Result<(), Refusal> {
        if table.occupancy.used() > 0 {
            let why = "the table has rules: destroy them and pull, or stop the port";
            return Err(Refusal::new(Errno::Busy, Cause::Handle, why));
        }
        if let Some(index) = self.core.groups.find(table.domain, table.group) {
            let classifier = &mut self.core.groups.get_mut(index).classifier;
            for (_, matcher) in &table.patterns {
                classifier.release(*matcher);
            }
        }
        self.tables -= 1;
        Ok(())
    }

    /// A port stops: its queues forget what they were doing. [`Eswitch::flush`] then frees the rules.
    pub(super) fn invalidate_queues(&mut self, now: Tick, port: Vport) {
        for queue in self.queues.iter_mut().filter(|queue| queue.attr().port == port) {
            queue.invalidate(now);
            queue.stall(self.hangs_until);
        }
    }

    /// Changes an indirect object.
    ///
    /// # Errors
    /// ENOTSUP for an object that cannot be changed so, EINVAL for one that is gone, ETIMEDOUT while the
    /// device hangs.
    pub fn indirect_update(
        &mut self,
        now: Tick,
        shared: Shared,
        update: ActionUpdate,
    ) -> Result<(), Refusal> {
        self.answers(now)?;
        self.core.act(now, ActionOp::Update(shared, update))
    }
}

impl Installer<Prepared> for Core {
    fn install(&mut self, now: Tick, rule: Prepared, owner: Owner) -> Result<RuleId, Refusal> {
        Core::install(self, now, rule, Some(u16::from(owner.queue))).map(|(id, _)| id)
    }

    fn remove(&mut self, _now: Tick, rule: RuleId) {
        self.unlink(rule);
    }

    fn release(&mut self, now: Tick, rule: RuleId) {
        self.dismantle(now, rule);
        self.statistics.rules = u64::from(self.rules.len());
    }

    fn act(&mut self, now: Tick, operation: ActionOp) -> Result<(), Refusal> {
        match operation {
            ActionOp::Destroy(shared) => self.indirect_destroy(now, shared),
            ActionOp::Update(Shared::Age(id), ActionUpdate::Age { timeout_s, touch }) => {
                self.ages.update(now, id, timeout_s, touch)
            }
            ActionOp::Update(Shared::Meter(id), ActionUpdate::Meter { profile, colour_aware, enabled }) => {
                self.meters.mark_update(now, id, &MarkUpdate { profile, colour_aware, enabled })
            }
            ActionOp::Update(..) => Err(Refusal::new(
                Errno::Notsup,
                Cause::Action(0),
                "this indirect action cannot be changed so",
            )),
        }
    }
}
