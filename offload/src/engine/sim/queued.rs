//! Hardware steering: templates and tables made as rules need them, and one flow queue.

use super::marks::{Laid, Marks};
use super::spell::Objects;
use super::{SimSetup, refused, spell};
use crate::colours::COLOURS;
use crate::engine::base::Base;
use crate::engine::{Completion, EngineError, LegId, base_table_rules, table_rules};
use crate::lower;
use crate::rule::{Domain, Rule};
use dataplane::limits::{DENY_RULES_MAX, PARTITION_RULES_MAX};
use eswitch::model::action::{Action, Shared};
use eswitch::model::pattern::PatternTemplate;
use eswitch::model::program::ActionsTemplate;
use eswitch::model::queue;
use eswitch::model::refusal::{Cause, Errno, Refusal};
use eswitch::model::switch::{ConfigureAttr, Eswitch, FlowQueue, PROXY, Table};
use eswitch::model::types::{RuleHandle, Tick};
use eswitch::model::validate::{Pools, TableAttr, TemplateAttr, actions_template, pattern_template};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Meters that are set aside, if there are as many.
const METERS_MAX: u32 = 1024;
/// Profiles of meters that a port has in 22.11.
const PROFILES: u32 = 1;

/// Operations of the base rules' and of failed rules' burials, besides the machine's.
const OPERATIONS_SPARE: u32 = 64;

/// What an operation was for, by the user data that comes back with its completion.
enum Purpose {
    Base(usize, RuleHandle),
    BaseOut(usize, RuleHandle),
    Create(LegId),
    Destroy(LegId),
    Decide(Decides, RuleHandle),
    Undecide(Decides, RuleHandle),
}

/// A rule that decides by colour: that of a meter, or of an ethdev.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decides {
    Red(u32),
    Port(u16),
}

/// The driver's side of hardware steering.
pub(super) struct Queued {
    queue: FlowQueue,
    tables: HashMap<Rule, Table>,
    rules_max: u32,
    base_rules_max: u32,
    operations_max: u32,
    meters_max: u32,
    under_way: HashMap<u64, Purpose>,
    next: u64,
    /// Failed rules whose handles are to be destroyed.
    dead: VecDeque<(LegId, RuleHandle)>,
}

impl Queued {
    pub(super) fn new(device: &mut Eswitch, now: Tick, setup: &SimSetup) -> Result<Queued, Refusal> {
        let profile = &setup.profile;
        // Counters and ages of rules that are gone wait for a refresh.
        let objects = setup.rules_max.saturating_mul(2).max(16);
        let meters = METERS_MAX.min(profile.meters_max);
        let attr = ConfigureAttr {
            counters: objects.saturating_add(meters).min(profile.counters_max),
            meters,
            ages: objects.min(profile.ages_max),
            queues: 1,
            size: setup.operations_max.saturating_add(OPERATIONS_SPARE).min(profile.queue_depth_max),
            ..ConfigureAttr::default()
        };
        let queues = device.configure(now, PROXY, &attr, profile, setup.seed)?;
        if meters > 0 {
            device.meters().configure(PROXY, PROFILES);
        }
        let none = Refusal::new(Errno::Inval, Cause::Unspecified, "no flow queue");
        Ok(Queued {
            queue: queues.into_iter().next().ok_or(none)?,
            tables: HashMap::new(),
            rules_max: setup.rules_max,
            base_rules_max: base_table_rules(lower::base_rules(&setup.topology).len()),
            operations_max: setup.operations_max,
            meters_max: meters,
            under_way: HashMap::new(),
            next: 0,
            dead: VecDeque::new(),
        })
    }

    /// Meters that it was given.
    pub(super) fn meters_max(&self) -> u32 {
        self.meters_max
    }

    /// Begins a rule that decides.
    pub(super) fn decide(
        &mut self,
        device: &mut Eswitch,
        now: Tick,
        which: Decides,
        rule: &Rule,
        counter: Option<Shared>,
    ) -> Result<(), EngineError> {
        let objects = Objects { counter, ..Objects::default() };
        let handle = self.enqueue(device, now, rule, objects, self.next, false)?;
        self.expect(Purpose::Decide(which, handle));
        Ok(())
    }

    /// Begins its end.
    pub(super) fn undecide(&mut self, now: Tick, which: Decides, handle: RuleHandle) -> Result<(), Refusal> {
        self.queue.destroy(now, handle, self.next, false)?;
        self.expect(Purpose::Undecide(which, handle));
        Ok(())
    }

    /// Begins a base rule.
    pub(super) fn lay(
        &mut self,
        device: &mut Eswitch,
        now: Tick,
        index: usize,
        rule: &Rule,
    ) -> Result<(), EngineError> {
        let handle = self.enqueue(device, now, rule, Objects::default(), self.next, false)?;
        self.expect(Purpose::Base(index, handle));
        Ok(())
    }

    /// Begins a base rule's end.
    pub(super) fn take_out(&mut self, now: Tick, index: usize, handle: RuleHandle) -> Result<(), Refusal> {
        self.queue.destroy(now, handle, self.next, false)?;
        self.expect(Purpose::BaseOut(index, handle));
        Ok(())
    }

    /// Begins a connection's rule.
    pub(super) fn create(
        &mut self,
        device: &mut Eswitch,
        now: Tick,
        leg: LegId,
        rule: &Rule,
        objects: Objects,
    ) -> Result<RuleHandle, EngineError> {
        self.check_room()?;
        let handle = self.enqueue(device, now, rule, objects, self.next, true)?;
        self.expect(Purpose::Create(leg));
        Ok(handle)
    }

    /// Begins a rule's end.
    pub(super) fn destroy(
        &mut self,
        now: Tick,
        leg: LegId,
        handle: RuleHandle,
        at_once: bool,
    ) -> Result<(), EngineError> {
        if !at_once {
            self.check_room()?;
        }
        self.queue.destroy(now, handle, self.next, !at_once).map_err(|refusal| match refusal.errno {
            Errno::Nomem => EngineError::QueueFull,
            errno => EngineError::Lost(errno as i32),
        })?;
        self.expect(Purpose::Destroy(leg));
        Ok(())
    }

    /// A failed rule has to be destroyed, too, when there is room.
    pub(super) fn bury(&mut self, leg: LegId, handle: RuleHandle) {
        self.dead.push_back((leg, handle));
    }

    pub(super) fn push(&mut self, now: Tick) {
        self.queue.push(now);
    }

    /// One operation that has ended; base rules that failed are due again.
    pub(super) fn pull(
        &mut self,
        now: Tick,
        base: &mut Base<RuleHandle>,
        marks: &mut Marks,
    ) -> Option<Completion> {
        while let Some((leg, handle)) = self.dead.front().copied() {
            if self.destroy(now, leg, handle, true).is_err() {
                break;
            }
            self.dead.pop_front();
        }
        let mut out = [queue::Completion::default()];
        while self.queue.pull(&mut out) > 0 {
            let [queue::Completion { user_data, ok }] = out;
            match (self.under_way.remove(&user_data), ok) {
                (Some(Purpose::Base(index, handle)), ok) => {
                    base.ended(index, ok.then_some(handle));
                    if !ok {
                        // Nobody waits for that; without room it occupies its place until the next flush.
                        let _ = self.queue.destroy(now, handle, self.next, false);
                        self.next += 1;
                    }
                }
                (Some(Purpose::BaseOut(index, handle)), ok) => base.left(index, handle, ok),
                (Some(Purpose::Decide(which, handle)), true) => marks.laid(which, Laid::InForce(handle)),
                (Some(Purpose::Decide(which, handle)), false) => {
                    let _ = self.queue.destroy(now, handle, self.next, false);
                    self.next += 1;
                    marks.laid(which, Laid::Due);
                }
                (Some(Purpose::Undecide(which, handle)), ok) => {
                    marks.laid(which, if ok { Laid::Due } else { Laid::InForce(handle) });
                }
                (Some(Purpose::Create(leg)), true) => return Some(Completion::Installed(leg)),
                (Some(Purpose::Create(leg)), false) => {
                    return Some(Completion::Failed(leg, EngineError::Failed));
                }
                (Some(Purpose::Destroy(leg)), true) => return Some(Completion::Removed(leg)),
                (Some(Purpose::Destroy(leg)), false) => {
                    return Some(Completion::Stuck(leg, EngineError::Failed));
                }
                (None, _) => {}
            }
        }
        None
    }

    /// Nothing is under way any more.
    pub(super) fn forget(&mut self) {
        self.queue.notice_restart();
        self.under_way.clear();
        self.dead.clear();
    }

    fn check_room(&self) -> Result<(), EngineError> {
        if self.queue.outstanding() < self.operations_max { Ok(()) } else { Err(EngineError::QueueFull) }
    }

    fn expect(&mut self, purpose: Purpose) {
        self.under_way.insert(self.next, purpose);
        self.next += 1;
    }

    #[allow(clippy::too_many_arguments, reason = "rte_flow_async_create's")]
    fn enqueue(
        &mut self,
        device: &mut Eswitch,
        now: Tick,
        rule: &Rule,
        objects: Objects,
        user_data: u64,
        postpone: bool,
    ) -> Result<RuleHandle, EngineError> {
        if rule.attr.domain != Domain::Transfer {
            return Err(EngineError::Refused(Errno::Notsup as i32));
        }
        let shape = rule.shape();
        if !self.tables.contains_key(&shape) {
            let sizes = [self.rules_max, self.base_rules_max, self.meters_max];
            let table = make_table(device, &shape, sizes).map_err(refused)?;
            self.tables.insert(shape.clone(), table);
        }
        let table = self.tables.get(&shape).ok_or(EngineError::TableFull)?;
        let items = spell::items(rule);
        let items: Vec<_> = items.iter().map(spell::Spelt::item).collect();
        let actions = spell::modify_actions(rule, objects);
        let topology = &device.context().topology;
        let (queue, items, actions) = (&mut self.queue, (0, &items[..]), (0, &actions[..]));
        table.enqueue(now, queue, topology, items, actions, user_data, postpone).map_err(refused)
    }
}

/// A table for rules of this shape.
fn make_table(
    device: &mut Eswitch,
    shape: &Rule,
    [rules_max, base_rules_max, meters_max]: [u32; 3],
) -> Result<Table, Refusal> {
    let pools = Pools { counters: true, ages: true, meters: meters_max > 0 };
    let context = Arc::clone(device.context());
    let attr = TemplateAttr { transfer: true, ..TemplateAttr::default() };
    let items = spell::items(shape);
    let items: Vec<_> = items.iter().map(spell::Spelt::item).collect();
    let pattern_facts = pattern_template(&context, PROXY, &attr, &items)?;
    let pattern = Arc::new(PatternTemplate::new(&items, false, None)?);
    let (actions, mut masks) = spell::template_actions(shape);
    let actions_facts = actions_template(&context, PROXY, &attr, &actions, &masks, pools)?;
    // Judged as what the handle stands for, translated as a handle.
    for (action, mask) in actions.iter().zip(&mut masks) {
        if matches!(action, Action::Indirect(_)) {
            *mask = Action::Indirect(None);
        }
    }
    let actions = Arc::new(ActionsTemplate::new(&actions, &masks)?);
    let does = |wanted: fn(&crate::rule::Action) -> bool| shape.actions.iter().any(wanted);
    let counts = does(|action| matches!(action, crate::rule::Action::Count));
    let leads_on = !counts && does(|action| matches!(action, crate::rule::Action::Jump(_)));
    let drops = does(|action| matches!(action, crate::rule::Action::Drop));
    // As the template engine makes them.
    let nb_flows = match shape.attr.group {
        COLOURS => 2 * meters_max.max(1),
        _ if leads_on => base_rules_max,
        _ if drops => table_rules(DENY_RULES_MAX.min(rules_max)).max(1),
        _ if shape.is_of_partition() => table_rules(PARTITION_RULES_MAX.min(rules_max)).max(1),
        _ => table_rules(rules_max).max(1),
    };
    let attr = TableAttr { attr: spell::attr(shape), nb_flows };
    device.create_table(PROXY, &attr, &[(pattern, pattern_facts)], &[(actions, actions_facts)])
}
