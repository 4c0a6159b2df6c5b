//! Templates and tables of HWS. As `flow_hw_pattern_validate`, `mlx5_flow_hw_actions_validate` and
//! `flow_hw_table_create`.
//!
//! mlx5 looks at a template's shape when it is made, and learns what the chip makes of it only when a table
//! joins patterns and actions. The templates' answers therefore carry what [`table`] has to know.

use super::budget::Budget;
use super::{Context, MASTER, invalid, rewrite, unsupported};
use crate::model::action::{Action, Field, FieldSource, ModifyOp};
use crate::model::item::{Item, Layer};
use crate::model::refusal::{Cause, Refusal};
use crate::model::types::{Attr, Domain, Steering, Vport};

/// `rte_flow_pattern_template_attr` and `rte_flow_actions_template_attr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TemplateAttr {
    /// NIC receive domain.
    pub ingress: bool,
    /// NIC transmit domain (refused: not modelled).
    pub egress: bool,
    /// FDB.
    pub transfer: bool,
    /// Patterns only: headers named without a mask do not have to be there.
    pub relaxed: bool,
}

/// `rte_flow_template_table_attr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableAttr {
    /// Domain, group and priority of its rules.
    pub attr: Attr,
    /// Rules that it has room for.
    pub nb_flows: u32,
}

/// What `rte_flow_configure` set aside on the port: an action without its pool is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pools {
    /// `nb_counters` is not 0.
    pub counters: bool,
    /// `nb_aging_objects` is not 0.
    pub ages: bool,
    /// `nb_meters` is not 0.
    pub meters: bool,
}

/// What a table has to know of a pattern template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatternFacts {
    attr: TemplateAttr,
    /// Why the chip cannot match this.
    refusal: Option<Refusal>,
}

/// What a table has to know of an actions template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionsFacts {
    steps: [Step; STEPS],
    length: usize,
    /// The groups that it jumps to are checked against the table's domain.
    jump: Option<u32>,
    counts: bool,
    ages: bool,
    indirect: bool,
    fate: bool,
    /// Why the chip cannot do this.
    refusal: Option<Refusal>,
}

/// Room for the longest sequence, `MLX5_HW_MAX_ACTS`.
const STEPS: usize = 16;

/// An action as the chip's steering library knows it (`mlx5dr_action_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Decap,
    Pop,
    Count,
    Meter,
    Tag,
    Push,
    Modify,
    Encap,
    /// Jump and drop.
    Fate,
    Queue,
    Vport,
}

pub(super) const NO_COUNTERS: &str = "rte_flow_configure set no counters aside (nb_counters)";
pub(super) const NO_AGES: &str = "rte_flow_configure set no ages aside (nb_aging_objects)";
pub(super) const NO_METERS: &str = "rte_flow_configure set no meters aside (nb_meters)";

pub(super) fn pool(there: bool, at: usize, message: &'static str) -> Result<(), Refusal> {
    if there { Ok(()) } else { Err(invalid(Cause::Action(at), message)) }
}

fn hardware(context: &Context) -> Result<(), Refusal> {
    if context.steering == Steering::Software {
        return Err(unsupported(Cause::Unspecified, "templates need hardware steering (dv_flow_en=2)"));
    }
    Ok(())
}

/// `rte_flow_configure`: queues are there, all of one size; ages come with counters; the port is stopped.
///
/// # Errors
/// ENOTSUP in SWS, otherwise EINVAL.
pub fn configure(context: &Context, started: bool, queue_sizes: &[u32], pools: Pools) -> Result<(), Refusal> {
    hardware(context)?;
    if started {
        return Err(invalid(Cause::Unspecified, "rte_flow_configure comes before rte_eth_dev_start"));
    }
    let Some((first, others)) = queue_sizes.split_first() else {
        return Err(invalid(Cause::Unspecified, "at least one flow queue"));
    };
    if *first == 0 || others.iter().any(|size| size != first) {
        return Err(invalid(Cause::Unspecified, "all flow queues have the same size, and not 0"));
    }
    if pools.ages && !pools.counters {
        return Err(invalid(Cause::Unspecified, "ages need counters: set nb_counters as well"));
    }
    Ok(())
}

/// Whether a pattern template can be made on this port.
///
/// # Errors
/// ENOTSUP in SWS; EINVAL for the wrong port or direction and for items that templates do not have.
pub fn pattern_template(
    context: &Context,
    port: Vport,
    attr: &TemplateAttr,
    items: &[Item<'_>],
) -> Result<PatternFacts, Refusal> {
    hardware(context)?;
    direction(context, port, attr)?;
    let mut tags = 0_u64;
    for (at, item) in items.iter().enumerate() {
        match *item {
            Item::Header(header) if header.layer == Layer::Geneve => {
                return Err(invalid(
                    Cause::Item(at),
                    "geneve cannot be matched by templates before DPDK 24.03",
                ));
            }
            Item::Header(_) | Item::MeterColour { .. } => {}
            Item::Tag { index, .. } => {
                if index >= tag_indices(context) {
                    return Err(invalid(Cause::Item(at), "there is no tag register of this index"));
                }
                let bit = 1_u64.checked_shl(u32::from(index)).unwrap_or(0);
                if tags & bit != 0 {
                    return Err(invalid(Cause::Item(at), "this tag is matched twice"));
                }
                tags |= bit;
            }
            Item::RepresentedPort { .. } if attr.ingress => {
                return Err(invalid(Cause::Item(at), "ingress templates see their own port's packets only"));
            }
            Item::RepresentedPort { .. } => {}
            Item::Meta { .. } if attr.ingress && !(context.options.esw && context.options.xmeta == 4) => {
                return Err(invalid(Cause::Item(at), "META needs dv_xmeta_en=4 in ingress templates"));
            }
            Item::Meta { .. } => {}
            Item::PortRepresentor { .. } => {
                return Err(invalid(
                    Cause::Item(at),
                    "port_representor is no item of templates: a rule without a port matches every source",
                ));
            }
            Item::PortId { .. } => {
                return Err(invalid(
                    Cause::Item(at),
                    "port_id is no item of templates: use represented_port",
                ));
            }
            Item::Mark { .. } | Item::Other(_) => {
                return Err(invalid(Cause::Item(at), "templates do not have this item"));
            }
        }
    }
    Ok(PatternFacts { attr: *attr, refusal: Budget::of(items, attr).check(&context.limits).err() })
}

fn tag_indices(context: &Context) -> u8 {
    context.limits.tags_hardware.saturating_sub(u8::from(context.options.xmeta == 4))
}

fn direction(context: &Context, port: Vport, attr: &TemplateAttr) -> Result<(), Refusal> {
    let directions = u32::from(attr.ingress) + u32::from(attr.egress) + u32::from(attr.transfer);
    if directions == 0 {
        return Err(invalid(Cause::Attr, "give one of ingress and transfer"));
    }
    if attr.transfer && (!context.options.esw || port != MASTER) {
        return Err(invalid(
            Cause::Transfer,
            "transfer templates are made on the proxy only: see rte_flow_pick_transfer_proxy",
        ));
    }
    if directions > 1 {
        return Err(invalid(Cause::Attr, "a template has one direction"));
    }
    if attr.egress {
        return Err(super::attr::egress());
    }
    Ok(())
}

/// Whether an actions template can be made on this port. `masks` has one action for each of `actions`, of
/// the same kind; for an indirect one, of the kind that the handle stands for. An `Indirect(Some(_))` in
/// `actions` means the same handle for all rules.
///
/// # Errors
/// ENOTSUP in SWS and for actions that templates do not have; EINVAL for the wrong port, for an action
/// without its pool or twice, and for masks that leave open what must be settled.
pub fn actions_template(
    context: &Context,
    port: Vport,
    attr: &TemplateAttr,
    actions: &[Action<'_>],
    masks: &[Action<'_>],
    pools: Pools,
) -> Result<ActionsFacts, Refusal> {
    hardware(context)?;
    if attr.transfer && (!context.options.esw || port != MASTER) {
        return Err(invalid(
            Cause::Unspecified,
            "transfer templates are made on the proxy only: see rte_flow_pick_transfer_proxy",
        ));
    }
    if attr.egress {
        return Err(super::attr::egress());
    }
    if actions.len() != masks.len() {
        return Err(invalid(Cause::ActionNum, "one mask for each action"));
    }
    let mut template =
        Template { context, actions, masks, pools, facts: ActionsFacts::default(), state: Seen::default() };
    let mut at = 0;
    while at < actions.len() {
        at += template.action(at)?;
    }
    Ok(template.facts)
}

impl Default for ActionsFacts {
    fn default() -> ActionsFacts {
        ActionsFacts {
            steps: [Step::Fate; STEPS],
            length: 0,
            jump: None,
            counts: false,
            ages: false,
            indirect: false,
            fate: false,
            refusal: None,
        }
    }
}

/// An actions template being looked at.
struct Template<'a, 'b> {
    context: &'a Context,
    actions: &'a [Action<'b>],
    masks: &'a [Action<'b>],
    pools: Pools,
    facts: ActionsFacts,
    state: Seen,
}

/// What has been seen, apart from what a table has to know.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// An indirect counter that is the same for all rules.
    fixed_counter: bool,
    modified: bool,
    /// Place of the decapsulation, which a raw encapsulation turns into another reformat.
    reformat: Option<usize>,
}

impl Template<'_, '_> {
    /// The action at `at`; tells how many it has taken.
    fn action(&mut self, at: usize) -> Result<usize, Refusal> {
        let (action, mask) = (&self.actions[at], &self.masks[at]);
        let indirect = matches!(action, Action::Indirect(_));
        if !indirect && std::mem::discriminant(action) != std::mem::discriminant(mask) {
            return Err(unsupported(Cause::Action(at), "the mask is of another kind than its action"));
        }
        match action {
            Action::Indirect(handle) => self.indirect(handle.is_some(), mask, at)?,
            Action::Mark(_) => self.step(Step::Tag)?,
            Action::Drop => self.fate(Step::Fate)?,
            Action::Jump(group) => {
                self.fate(Step::Fate)?;
                if matches!(mask, Action::Jump(Some(mask)) if *mask != 0) {
                    self.facts.jump = *group;
                }
            }
            Action::Queue(_) | Action::Rss { .. } => self.fate(Step::Queue)?,
            Action::RepresentedPort(port_id) => {
                self.port(*port_id, mask, at)?;
                self.fate(Step::Vport)?;
            }
            Action::VxlanEncap(headers) => self.encap(headers, at, false)?,
            Action::RawEncap(headers) => self.encap(headers, at, true)?,
            Action::VxlanDecap | Action::RawDecap(_) => {
                self.state.reformat = Some(self.facts.length);
                self.step(Step::Decap)?;
            }
            Action::MeterMark { .. } => self.meter(at)?,
            Action::ModifyField { .. } => {
                self.modify_field(at)?;
                self.modify()?;
            }
            Action::Age { .. } => self.age(at)?,
            Action::Count => self.count(at)?,
            Action::PopVlan => self.step(Step::Pop)?,
            Action::SetVlanVid(_) => self.modify()?,
            Action::PushVlan(_) => {
                let taken = self.push_vlan(at)?;
                self.step(Step::Push)?;
                return Ok(taken);
            }
            _ => return Err(legacy(action, at)),
        }
        Ok(1)
    }

    fn step(&mut self, step: Step) -> Result<(), Refusal> {
        let most = (self.context.limits.max_template_actions as usize).min(STEPS);
        // mlx5 keeps one place free.
        if self.facts.length + 1 >= most {
            return Err(invalid(Cause::Unspecified, "too many actions in the template: fewer than 16"));
        }
        self.facts.steps[self.facts.length] = step;
        self.facts.length += 1;
        Ok(())
    }

    fn fate(&mut self, step: Step) -> Result<(), Refusal> {
        self.facts.fate = true;
        self.step(step)
    }

    /// All edits are one action, at the place of the first.
    fn modify(&mut self) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.state.modified, true) { Ok(()) } else { self.step(Step::Modify) }
    }

    /// The chip refuses this once a table wants it.
    fn later(&mut self, refusal: Refusal) {
        self.facts.refusal.get_or_insert(refusal);
    }

    fn indirect(&mut self, fixed: bool, mask: &Action<'_>, at: usize) -> Result<(), Refusal> {
        self.facts.indirect = true;
        match mask {
            Action::MeterMark { .. } => self.meter(at),
            Action::Rss { .. } => self.fate(Step::Queue),
            Action::Count => {
                if fixed && self.facts.ages {
                    return Err(age_and_fixed_count(at));
                }
                self.state.fixed_counter |= fixed;
                self.count(at)
            }
            Action::Age { .. } if fixed => {
                Err(unsupported(Cause::Action(at), "an age cannot be the same for all rules of a template"))
            }
            Action::Age { .. } => self.age(at),
            Action::Indirect(_) => Err(invalid(
                Cause::Unspecified,
                "the mask of an indirect action tells what its handle stands for",
            )),
            _ => Err(unsupported(Cause::Unspecified, "an action of this kind cannot be indirect")),
        }
    }

    fn meter(&mut self, at: usize) -> Result<(), Refusal> {
        pool(self.pools.meters, at, NO_METERS)?;
        self.step(Step::Meter)
    }

    fn age(&mut self, at: usize) -> Result<(), Refusal> {
        pool(self.pools.ages, at, NO_AGES)?;
        if self.facts.ages {
            return Err(invalid(Cause::Action(at), "only one age in a template"));
        }
        if self.state.fixed_counter {
            return Err(age_and_fixed_count(at));
        }
        self.facts.ages = true;
        // An age is a counter that is watched: with a count, they are one.
        if self.facts.counts { Ok(()) } else { self.step(Step::Count) }
    }

    fn count(&mut self, at: usize) -> Result<(), Refusal> {
        pool(self.pools.counters, at, NO_COUNTERS)?;
        if self.facts.counts {
            return Err(invalid(Cause::Action(at), "only one count in a template"));
        }
        self.facts.counts = true;
        if self.facts.ages { Ok(()) } else { self.step(Step::Count) }
    }

    fn port(&mut self, port_id: Option<u16>, mask: &Action<'_>, at: usize) -> Result<(), Refusal> {
        if !self.context.options.esw {
            return Err(invalid(
                Cause::Unspecified,
                "without an eSwitch (dv_esw_en=0) there are no ports to name",
            ));
        }
        if !matches!(mask, Action::RepresentedPort(Some(mask)) if *mask != 0) {
            return Ok(());
        }
        let port_id = port_id.ok_or_else(|| invalid(Cause::Action(at), "the mask is set: name a port"))?;
        if self.context.topology.vport_of(port_id).is_none() {
            return Err(invalid(Cause::Action(at), "this port is not one of this eSwitch's"));
        }
        Ok(())
    }

    fn encap(&mut self, headers: &[u8], at: usize, raw: bool) -> Result<(), Refusal> {
        if raw && headers.is_empty() {
            return Err(invalid(
                Cause::Action(at),
                "raw_encap needs its bytes in the template: rules may change them",
            ));
        }
        if headers.len() > self.context.limits.max_encap as usize {
            self.later(invalid(Cause::Action(at), "the headers to add are too long: at most 132 bytes"));
        }
        match self.state.reformat {
            // Layer-3 tunnels: the decapsulation's place, the kind by the size of what is added.
            Some(place) if raw => {
                if headers.len() >= super::actions::SMALL {
                    self.facts.steps[place] = Step::Encap;
                }
                Ok(())
            }
            Some(_) => {
                self.later(invalid(Cause::Action(at), "decapsulation and encapsulation in one template"));
                Ok(())
            }
            None => {
                self.state.reformat = Some(self.facts.length);
                self.step(Step::Encap)
            }
        }
    }

    fn push_vlan(&self, at: usize) -> Result<usize, Refusal> {
        let masked = |mask: &Action<'_>| match *mask {
            Action::PushVlan(bits) | Action::SetVlanVid(bits) => bits != 0,
            Action::SetVlanPcp(bits) => bits != 0,
            _ => false,
        };
        let push = masked(&self.masks[at]);
        let (Some(Action::SetVlanVid(_)), Some(vid @ Action::SetVlanVid(_))) =
            (self.actions.get(at + 1), self.masks.get(at + 1))
        else {
            return Err(invalid(Cause::Action(at), "of_set_vlan_vid comes right after of_push_vlan"));
        };
        if masked(vid) != push {
            return Err(invalid(
                Cause::Action(at),
                "of_push_vlan and of_set_vlan_vid are both masked, or neither",
            ));
        }
        let Some(Action::SetVlanPcp(_)) = self.actions.get(at + 2) else {
            return Ok(2);
        };
        match self.masks.get(at + 2) {
            Some(pcp @ Action::SetVlanPcp(_)) if masked(pcp) == push => Ok(3),
            Some(Action::SetVlanPcp(_)) => Err(invalid(
                Cause::Action(at),
                "of_push_vlan and of_set_vlan_pcp are both masked, or neither",
            )),
            _ => Err(invalid(Cause::Action(at), "of_set_vlan_pcp needs a mask of its kind")),
        }
    }

    fn modify_field(&mut self, at: usize) -> Result<(), Refusal> {
        let (
            &Action::ModifyField { op, dst, src, width },
            &Action::ModifyField { op: op_mask, dst: dst_mask, src: src_mask, width: width_mask },
        ) = (&self.actions[at], &self.masks[at])
        else {
            return Ok(());
        };
        let refuse = |message| Err(invalid(Cause::Action(at), message));
        if op != op_mask {
            return refuse("modify_field's mask repeats the operation");
        }
        if dst.field != dst_mask.field {
            return refuse("modify_field's mask repeats the destination field");
        }
        if (dst_mask.level, dst_mask.offset) != (u32::MAX, u32::MAX) {
            return refuse("mask modify_field's destination level and offset wholly (0xffffffff)");
        }
        match (src, src_mask) {
            (Some(FieldSource::Field(source)), Some(FieldSource::Field(mask))) => {
                if source.field != mask.field {
                    return refuse("modify_field's mask repeats the source field");
                }
                if (mask.level, mask.offset) != (u32::MAX, u32::MAX) {
                    return refuse("mask modify_field's source level and offset wholly (0xffffffff)");
                }
            }
            (Some(FieldSource::Field(_)), _) | (_, Some(FieldSource::Field(_))) => {
                return refuse("modify_field's mask has a source of the same kind");
            }
            _ => {}
        }
        if width_mask != u32::MAX {
            return refuse("mask modify_field's width wholly (0xffffffff)");
        }
        let source = match src {
            Some(FieldSource::Field(source)) => Some(source),
            _ => None,
        };
        for place in [Some(dst), source].into_iter().flatten() {
            if matches!(place.field, Field::Start | Field::VlanType | Field::GeneveVni) {
                return refuse("modify_field cannot touch this field");
            }
            let room = rewrite::field_width(&self.context.options, place.field);
            if room == 0 || (place.level > 1 && place.field != Field::Tag) {
                self.later(unsupported(Cause::Action(at), "modify_field does not reach this field"));
            } else if width == 0 || place.offset.saturating_add(width) > room {
                self.later(invalid(
                    Cause::Action(at),
                    "modify_field goes beyond the field's end, or is of no bits",
                ));
            } else if place.field == Field::Tag && place.level >= u32::from(tag_indices(self.context)) {
                self.later(invalid(Cause::Action(at), "there is no tag register of this index"));
            }
        }
        if op == ModifyOp::Sub {
            self.later(unsupported(Cause::Action(at), "modify_field cannot subtract: add the complement"));
        }
        Ok(())
    }
}

fn age_and_fixed_count(at: usize) -> Refusal {
    invalid(Cause::Action(at), "an age does not go with a counter that rules share")
}

fn legacy(action: &Action<'_>, at: usize) -> Refusal {
    let message = match action {
        Action::PortRepresentor(_) => {
            "port_representor is no action before DPDK 23.11: leave packets unmatched to reach the CPUs"
        }
        Action::PortId(_) => "port_id is no action of templates: use represented_port",
        Action::Meter(_) => "meter is no action of templates: use meter_mark",
        Action::Sample { .. } => "templates cannot mirror before DPDK 23.11",
        Action::Other(_) => "this action is not supported",
        _ => "the set_* actions do not exist in templates: use modify_field",
    };
    unsupported(Cause::Action(at), message)
}

/// Whether a table can be made of these templates, and where its rules would live.
///
/// # Errors
/// EINVAL for the wrong number of templates or a direction that is not the table's, and for an order of
/// actions that the chip does not have (decap, pop, count, meter, push, edit, encap, fate); ENOTSUP for a
/// pattern or a table that is too large for the chip.
pub fn table(
    context: &Context,
    port: Vport,
    table: &TableAttr,
    patterns: &[&PatternFacts],
    actions: &[&ActionsFacts],
) -> Result<Domain, Refusal> {
    hardware(context)?;
    let attr = &table.attr;
    direction(
        context,
        port,
        &TemplateAttr { ingress: attr.ingress, egress: attr.egress, transfer: attr.transfer, relaxed: false },
    )?;
    let root = super::attr::is_root(context, attr.transfer, attr.group)?;
    let limits = &context.limits;
    let most = if root { 1 } else { limits.max_patterns as usize };
    if patterns.is_empty() || patterns.len() > most {
        return Err(invalid(Cause::Unspecified, "a table has 1 or 2 pattern templates, in a root table 1"));
    }
    if actions.is_empty() || actions.len() > limits.max_action_templates as usize {
        return Err(invalid(Cause::Unspecified, "a table has 1 to 32 actions templates"));
    }
    if table.nb_flows == 0 {
        return Err(invalid(Cause::Unspecified, "a table of no rules (nb_flows)"));
    }
    if limits.max_table_rules != 0 && table.nb_flows > limits.max_table_rules {
        return Err(unsupported(Cause::Unspecified, "the table is too large for the device (nb_flows)"));
    }
    for facts in patterns {
        if (attr.ingress && !facts.attr.ingress) || (attr.transfer && !facts.attr.transfer) {
            return Err(invalid(
                Cause::Unspecified,
                "the pattern template is of another direction than the table",
            ));
        }
        facts.refusal.map_or(Ok(()), Err)?;
    }
    for facts in actions {
        facts.refusal.map_or(Ok(()), Err)?;
        joined(context, attr, root, facts)?;
    }
    Ok(if attr.transfer { Domain::Fdb } else { Domain::NicRx(port) })
}

/// Whether a rule of an HWS table can jump to this group.
///
/// # Errors
/// EINVAL for a root table and for a group that does not exist.
pub fn jump(context: &Context, transfer: bool, group: u32) -> Result<(), Refusal> {
    if super::attr::is_root(context, transfer, group)? {
        return Err(invalid(Cause::Unspecified, "a jump cannot lead to a root table: use group 1 or above"));
    }
    Ok(())
}

/// What depends on where an actions template is used.
fn joined(context: &Context, attr: &Attr, root: bool, facts: &ActionsFacts) -> Result<(), Refusal> {
    if root && (facts.ages || facts.counts) {
        return Err(unsupported(
            Cause::Actions,
            "count and age do not work in a root table: use group 1 or above",
        ));
    }
    if root && facts.indirect {
        return Err(invalid(Cause::Unspecified, "indirect actions do not work in a root table"));
    }
    if let Some(group) = facts.jump {
        jump(context, attr.transfer, group)?;
    }
    // mlx5 does not ask for one, and what the chip then does is not documented.
    if !facts.fate {
        return Err(invalid(Cause::Actions, "no fate: end with a port, jump or drop (ingress: queue, rss)"));
    }
    let order: &[&[Step]] = if attr.transfer { &FDB_ORDER } else { &NIC_ORDER };
    let mut steps = facts.steps[..facts.length].iter().peekable();
    for place in order {
        // Each place takes one action at most.
        if steps.peek().is_some_and(|step| place.contains(step)) {
            steps.next();
        }
    }
    match steps.next() {
        None => Ok(()),
        Some(Step::Queue) if attr.transfer => Err(invalid(
            Cause::Unspecified,
            "queue and rss do not go with transfer: leave packets unmatched to reach the CPUs",
        )),
        Some(_) => Err(invalid(
            Cause::Unspecified,
            "the order of actions is decap, pop, count and age, meter, push, edits, encap, fate",
        )),
    }
}

/// `action_order_arr` of `hws/mlx5dr_action.c`.
const FDB_ORDER: [&[Step]; 10] = [
    &[Step::Decap],
    &[Step::Pop],
    &[Step::Pop],
    &[Step::Count],
    &[Step::Meter],
    &[Step::Push],
    &[Step::Push],
    &[Step::Modify],
    &[Step::Encap],
    &[Step::Fate, Step::Vport],
];

const NIC_ORDER: [&[Step]; 11] = [
    &[Step::Tag],
    &[Step::Decap],
    &[Step::Pop],
    &[Step::Pop],
    &[Step::Count],
    &[Step::Meter],
    &[Step::Push],
    &[Step::Push],
    &[Step::Modify],
    &[Step::Encap],
    &[Step::Fate, Step::Queue],
];
