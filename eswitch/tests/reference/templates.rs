//! Random template tables of HWS, and rules for them.

use std::sync::Arc;

use eswitch::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use eswitch::model::item::{Item, Layer};
use eswitch::model::pattern::PatternTemplate;
use eswitch::model::program::ActionsTemplate;
use eswitch::model::refusal::Refusal;
use eswitch::model::switch::Table;
use eswitch::model::types::{Attr, Domain, Vport};
use eswitch::model::validate::{self, Pools, TableAttr, TemplateAttr};

use crate::dice::Dice;
use crate::edit::{Act, lend};
use crate::pattern;
use crate::rules::{self, Shape, Thing, items};
use crate::trial::Trial;
use crate::world::{MatcherId, Order};

/// One action of a template.
#[derive(Clone, Debug)]
struct Step {
    act: Act,
    /// The same for all rules.
    constant: bool,
}

/// A table of the device, and what the reference has to know of it.
pub(crate) struct Sheet {
    pub(crate) table: Table,
    attr: TableAttr,
    patterns: Vec<(Vec<Thing>, MatcherId)>,
    actions: Vec<Vec<Step>>,
}

/// A rule to be: what the device is given, and what the reference makes of it.
pub(crate) struct Entry {
    pub(crate) pattern: usize,
    pub(crate) actions: usize,
    pub(crate) things: Vec<Thing>,
    pub(crate) acts: Vec<Act>,
    pub(crate) order: Order,
}

const POOLS: Pools = Pools { counters: true, ages: true, meters: true };

impl Sheet {
    /// A random table on the proxy.
    pub(crate) fn new(trial: &mut Trial) -> Result<Sheet, Refusal> {
        let dice = &mut trial.dice;
        let transfer = dice.percent(85);
        let group = dice.pick(&[0, 0, 0, 1, 1, 2, 3]);
        let priority = dice.below(3) as u32;
        let template = TemplateAttr { transfer, ingress: !transfer, egress: false, relaxed: false };
        let context = trial.device.context().clone();
        let (mut patterns, mut shape) = (Vec::new(), None);
        for _ in 0..1 + dice.below(2) {
            let (things, seen) = headers(dice, transfer, group);
            let facts = validate::pattern_template(&context, Vport(0), &template, &items(&things))?;
            let made = PatternTemplate::new(&items(&things), false, None)?;
            patterns.push((things, Arc::new(made), facts));
            shape.get_or_insert(seen);
        }
        let mut actions = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let steps = steps(dice, transfer, group, &shape.unwrap_or_default());
            let acts: Vec<Act> = steps.iter().map(|step| step.act.clone()).collect();
            let masks: Vec<Act> = steps.iter().map(mask).collect();
            let judged = lend(&acts, |actions| {
                let kinds: Vec<Act> = steps.iter().map(kind_mask).collect();
                let facts = lend(&kinds, |masks| {
                    validate::actions_template(&context, Vport(0), &template, actions, masks, POOLS)
                })?;
                let made = lend(&masks, |masks| ActionsTemplate::new(actions, masks))?;
                Ok((Arc::new(made), facts))
            });
            let (made, facts) = judged?;
            actions.push((steps, made, facts));
        }
        let attr = Attr { group, priority, ingress: !transfer, transfer, egress: false };
        let attr = TableAttr { attr, nb_flows: 64 };
        let of_patterns: Vec<_> =
            patterns.iter().map(|(_, made, facts)| (Arc::clone(made), *facts)).collect();
        let of_actions: Vec<_> = actions.iter().map(|(_, made, facts)| (Arc::clone(made), *facts)).collect();
        let table = trial.device.create_table(Vport(0), &attr, &of_patterns, &of_actions)?;
        let domain = if transfer { Domain::Fdb } else { Domain::NicRx(Vport(0)) };
        let world = &mut trial.world;
        let patterns = patterns.into_iter();
        let patterns =
            patterns.map(|(things, ..)| (things, world.matcher(domain, group, priority))).collect();
        let actions = actions.into_iter().map(|(steps, ..)| steps).collect();
        Ok(Sheet { table, attr, patterns, actions })
    }

    /// A random rule; `like`: with another one's values.
    pub(crate) fn entry(&self, trial: &mut Trial, like: Option<&(usize, Vec<Thing>)>) -> Entry {
        let dice = &mut trial.dice;
        let (pattern, things) = match like {
            Some((pattern, things)) => (*pattern, things.clone()),
            None => {
                let pattern = dice.below(self.patterns.len());
                (pattern, rules::fill(dice, &self.patterns[pattern].0))
            }
        };
        let actions = dice.below(self.actions.len());
        let steps = &self.actions[actions];
        let acts: Vec<Act> = steps.iter().map(|step| redraw(dice, &step.act, self.attr.attr.group)).collect();
        let effective = steps.iter().zip(&acts).map(|(step, act)| effective(step, act)).collect();
        let (template, matcher) = &self.patterns[pattern];
        let Attr { group, priority, transfer, .. } = self.attr.attr;
        let values = items(&things);
        let order = Order {
            port: Vport(0),
            domain: if transfer { Domain::Fdb } else { Domain::NicRx(Vport(0)) },
            group,
            priority,
            pattern: pattern::hardware(&items(template), &values, &trial.world.topology, None),
            acts: effective,
            matcher: Some(*matcher),
        };
        Entry { pattern, actions, things, acts, order }
    }
}

fn headers(dice: &mut Dice, transfer: bool, group: u32) -> (Vec<Thing>, Shape) {
    let (mut things, shape) = rules::headers(dice, true);
    if transfer && dice.percent(40) {
        things.insert(0, Thing::Plain(Item::RepresentedPort { port_id: Some(0), mask: u16::MAX }));
    }
    if group > 0 && dice.percent(25) {
        let index = dice.below(2) as u8;
        things.push(Thing::Plain(Item::Tag { index, data: 0, mask: dice.pick(&[u32::MAX, 3]) }));
    }
    (things, shape)
}

/// A list in the order that the chip has.
fn steps(dice: &mut Dice, transfer: bool, group: u32, shape: &Shape) -> Vec<Step> {
    let mut acts = Vec::new();
    if !transfer && dice.percent(30) {
        acts.push(Act::Plain(Action::Mark(Some(dice.below(9) as u32))));
    }
    let decap = matches!(shape.tunnel, Some(Layer::Vxlan | Layer::Gre)) && dice.percent(30);
    if decap {
        match (shape.inner_ip, dice.below(3)) {
            (Some(version), 0) => {
                acts.push(Act::RawDecap(vec![0; 50]));
                acts.push(Act::RawEncap(rules::ethernet_header(dice, version)));
            }
            (_, 1) => acts.push(Act::RawDecap(vec![0; 50])),
            _ => acts.push(Act::Plain(Action::VxlanDecap)),
        }
    }
    if shape.vlan && !decap && dice.percent(40) {
        acts.push(Act::Plain(Action::PopVlan));
    }
    rules::counting(dice, &mut acts);
    let drop = dice.percent(12);
    if drop {
        acts.push(Act::Plain(Action::Drop));
    } else {
        let pushes = dice.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]);
        for _ in 0..pushes {
            acts.push(Act::Plain(Action::PushVlan(dice.pick(&[0x8100, 0x88a8]))));
            acts.push(Act::Plain(Action::SetVlanVid(dice.pick(&[7, 100]))));
            if dice.percent(40) {
                acts.push(Act::Plain(Action::SetVlanPcp(dice.pick(&[1, 7]))));
            }
        }
        for _ in 0..dice.pick(&[0, 0, 1, 1, 2, 4]) {
            acts.push(Act::Plain(modify(dice, shape)));
        }
        if transfer && !decap && dice.percent(12) {
            encap(dice, shape, &mut acts);
        }
        acts.push(rules::fate(dice, transfer, group));
    }
    constants(dice, acts)
}

/// An edit, mostly of what the pattern names.
fn modify(dice: &mut Dice, shape: &Shape) -> Action<'static> {
    let fields: &[Field] = match (shape.ip, shape.transport) {
        (Some(4), Some(Layer::Tcp)) => &[
            Field::Ipv4Src,
            Field::Ipv4Dst,
            Field::Ipv4Ttl,
            Field::TcpPortSrc,
            Field::TcpPortDst,
            Field::MacDst,
        ],
        (Some(4), Some(Layer::Udp)) => &[
            Field::Ipv4Src,
            Field::Ipv4Dst,
            Field::Ipv4Ttl,
            Field::UdpPortSrc,
            Field::UdpPortDst,
            Field::MacSrc,
        ],
        (Some(4), _) => &[Field::Ipv4Src, Field::Ipv4Dst, Field::Ipv4Ttl, Field::Ipv4Dscp, Field::Tag],
        (Some(_), Some(Layer::Tcp)) => {
            &[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6HopLimit, Field::TcpPortSrc, Field::TcpPortDst]
        }
        (Some(_), Some(Layer::Udp)) => {
            &[Field::Ipv6Src, Field::Ipv6Dst, Field::UdpPortSrc, Field::UdpPortDst]
        }
        (Some(_), _) => &[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6HopLimit, Field::Tag],
        _ => &[Field::MacDst, Field::MacSrc, Field::Tag],
    };
    if dice.percent(30) {
        return rules::modify_field(dice, true);
    }
    let field = dice.pick(fields);
    let level = if field == Field::Tag { dice.below(2) as u32 } else { 0 };
    let ttl = matches!(field, Field::Ipv4Ttl | Field::Ipv6HopLimit);
    let op = if ttl && dice.percent(50) { ModifyOp::Add } else { ModifyOp::Set };
    let src = Some(FieldSource::Value(rules::immediate(dice, field)));
    let width = crate::edit::width_of(field);
    Action::ModifyField { op, dst: FieldRef { field, level, offset: 0 }, src, width }
}

fn encap(dice: &mut Dice, shape: &Shape, acts: &mut Vec<Act>) {
    match dice.below(3) {
        0 => acts.push(Act::VxlanEncap(rules::tunnel_headers(dice))),
        1 => acts.push(Act::RawEncap(rules::tunnel_headers(dice))),
        _ if shape.ip.is_some() => {
            acts.push(Act::RawDecap(vec![0; 14]));
            acts.push(Act::RawEncap(rules::tunnel_headers(dice)));
        }
        _ => {}
    }
}

/// Which actions are the template's alone.
fn constants(dice: &mut Dice, acts: Vec<Act>) -> Vec<Step> {
    let mut vlan = false;
    let one = |act| {
        let constant = match act {
            Act::Plain(Action::PushVlan(_)) => {
                vlan = dice.percent(50);
                vlan
            }
            Act::Plain(Action::SetVlanVid(_) | Action::SetVlanPcp(_)) => vlan,
            Act::Plain(Action::Indirect(_) | Action::Age { .. }) => false,
            Act::Plain(Action::Count | Action::Drop | Action::PopVlan | Action::VxlanDecap)
            | Act::RawDecap(_) => true,
            Act::Plain(Action::ModifyField { src: Some(FieldSource::Field(_)), .. }) => true,
            _ => dice.percent(40),
        };
        Step { act, constant }
    };
    acts.into_iter().map(one).collect()
}

/// The mask that a template is made with.
fn mask(step: &Step) -> Act {
    let ones = step.constant;
    let all = |bytes: &[u8]| if ones { bytes.to_vec() } else { Vec::new() };
    match &step.act {
        Act::VxlanEncap(bytes) => Act::VxlanEncap(all(bytes)),
        Act::RawEncap(bytes) => Act::RawEncap(all(bytes)),
        Act::RawDecap(bytes) => Act::RawDecap(bytes.clone()),
        Act::Rss(queues) => Act::Rss(if ones { queues.clone() } else { Vec::new() }),
        Act::Sample(_) => panic!("templates do not mirror"),
        Act::Plain(action) => Act::Plain(plain_mask(action, ones)),
    }
}

fn plain_mask(action: &Action<'static>, ones: bool) -> Action<'static> {
    let word = if ones { u32::MAX } else { 0 };
    let wholly = |place: FieldRef| FieldRef { level: u32::MAX, offset: u32::MAX, ..place };
    match *action {
        Action::RepresentedPort(_) => Action::RepresentedPort(Some(word as u16)),
        Action::Queue(_) => Action::Queue(Some(word as u16)),
        Action::Jump(_) => Action::Jump(Some(word)),
        Action::Mark(_) => Action::Mark(Some(word)),
        Action::PushVlan(_) => Action::PushVlan(word as u16),
        Action::SetVlanVid(_) => Action::SetVlanVid(word as u16),
        Action::SetVlanPcp(_) => Action::SetVlanPcp(word as u8),
        Action::Indirect(_) => Action::Indirect(None),
        Action::ModifyField { op, dst, src, .. } => {
            let src = src.map(|src| match src {
                FieldSource::Value(_) => FieldSource::Value([word as u8; 16]),
                FieldSource::Field(place) => FieldSource::Field(wholly(place)),
            });
            Action::ModifyField { op, dst: wholly(dst), src, width: u32::MAX }
        }
        other => other,
    }
}

/// As [`mask`], but of an indirect action the kind.
fn kind_mask(step: &Step) -> Act {
    use eswitch::model::action::Shared;
    match step.act {
        Act::Plain(Action::Indirect(Some(Shared::Counter(_)))) => Act::Plain(Action::Count),
        Act::Plain(Action::Indirect(Some(Shared::Age(_)))) => {
            Act::Plain(Action::Age { timeout_s: 0, context: 0 })
        }
        _ => mask(step),
    }
}

/// Another action of the same kind.
fn redraw(dice: &mut Dice, act: &Act, group: u32) -> Act {
    match act {
        Act::Plain(Action::RepresentedPort(_)) => {
            Act::Plain(Action::RepresentedPort(Some(dice.below(3) as u16)))
        }
        Act::Plain(Action::Jump(_)) => Act::Plain(Action::Jump(Some(group + 1 + dice.below(2) as u32))),
        Act::Plain(Action::Queue(_)) => Act::Plain(Action::Queue(Some(dice.below(4) as u16))),
        Act::Plain(Action::Mark(_)) => Act::Plain(Action::Mark(Some(dice.below(9) as u32))),
        Act::Plain(Action::SetVlanVid(_)) => Act::Plain(Action::SetVlanVid(dice.pick(&[1, 7]))),
        Act::Plain(Action::SetVlanPcp(_)) => Act::Plain(Action::SetVlanPcp(dice.pick(&[2, 3]))),
        Act::Plain(Action::Age { .. }) => {
            Act::Plain(Action::Age { timeout_s: 1 + dice.below(4) as u32, context: dice.word() | 1 })
        }
        Act::Plain(Action::ModifyField { op, dst, src: Some(FieldSource::Value(_)), width }) => {
            let src = Some(FieldSource::Value(rules::immediate(dice, dst.field)));
            Act::Plain(Action::ModifyField { op: *op, dst: *dst, src, width: *width })
        }
        Act::VxlanEncap(_) => Act::VxlanEncap(rules::tunnel_headers(dice)),
        Act::RawEncap(bytes) if bytes.len() > 34 => Act::RawEncap(rules::tunnel_headers(dice)),
        other => other.clone(),
    }
}

/// What a rule does: the template's constants, and its own values.
fn effective(step: &Step, act: &Act) -> Act {
    match (step.constant, &step.act) {
        // A constant immediate value is that of the template.
        (true, _) => step.act.clone(),
        (false, _) => act.clone(),
    }
}
