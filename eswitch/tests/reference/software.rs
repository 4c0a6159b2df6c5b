//! SWS: rules come and go by synchronous calls.

use eswitch::model::action::Action;
use eswitch::model::item::{Item, Layer};
use eswitch::model::profile::Profile;
use eswitch::model::refusal::Errno;
use eswitch::model::types::{Attr, Domain, Steering, Tick, Vport};
use eswitch::model::validate::Port;

use crate::edit::Act;
use crate::pattern;
use crate::rules::{self, Shape, Thing, items};
use crate::trial::{Difference, Report, Trial, VPORTS, with};
use crate::world::{Canary, Order};

/// Rules that exist at once at most.
const RULES_MAX: usize = 30;

/// A rule as it was asked for, to be asked for again.
#[derive(Clone)]
struct Wish {
    port: Vport,
    attr: Attr,
    things: Vec<Thing>,
    shape: Shape,
    acts: Vec<Act>,
}

/// One world's life: so many packets, with rules changing between them.
pub(crate) fn run(seed: u64, packets: u64, canary: Canary) -> Result<Report, Difference> {
    let profile = Profile::named("ideal").expect("a built-in profile");
    let mut trial = Trial::new(seed, Steering::Software, &profile, canary);
    let mut wishes: Vec<Wish> = Vec::new();
    while trial.live.len() < RULES_MAX / 2 {
        create(&mut trial, &mut wishes)?;
    }
    while trial.report.packets < packets {
        match trial.dice.below(100) {
            0..20 if trial.live.len() < RULES_MAX => create(&mut trial, &mut wishes)?,
            20..27 if !trial.live.is_empty() => destroy(&mut trial)?,
            27..30 => {
                trial.now += trial.dice.below(2_500_000_000) as u64;
                trial.advance();
            }
            30 if trial.dice.percent(20) => flush(&mut trial)?,
            31 if trial.dice.percent(30) => trial.compare_all()?,
            _ => trial.send()?,
        }
    }
    trial.compare_all()?;
    Ok(trial.report)
}

fn create(trial: &mut Trial, wishes: &mut Vec<Wish>) -> Result<(), Difference> {
    let wish = wish(trial, wishes);
    let Wish { port, attr, things, acts, .. } = &wish;
    let things = items(things);
    let made = with(acts, |actions| {
        let context = trial.device.context().clone();
        let started = trial.world.rx[usize::from(port.0)].0;
        let prepared = context.prepare(&Port::new(*port, started), attr, &things, actions)?;
        trial.device.install(Tick(trial.now), prepared)
    });
    let handle = match made {
        Ok(handle) => Some(handle),
        Err(refusal) if refusal.errno == Errno::Exist => None,
        Err(_) => {
            trial.report.refused += 1;
            return Ok(());
        }
    };
    let domain = if attr.transfer { Domain::Fdb } else { Domain::NicRx(*port) };
    let implicit = (domain == Domain::Fdb && !things.iter().any(is_source)).then_some(*port);
    let order = Order {
        port: *port,
        domain,
        group: attr.group,
        priority: attr.priority * 3 + depth(&things),
        pattern: pattern::software(&things, &trial.world.topology, implicit),
        acts: acts.clone(),
        matcher: None,
    };
    match (trial.world.install(trial.now, order), handle) {
        (Some(number), Some(handle)) => {
            trial.report.accepted += 1;
            trial.live.push((number, handle));
            wishes.push(wish);
            Ok(())
        }
        (None, None) => Ok(()),
        (expected, got) => Err(format!("install of {things:?}: {got:?}, reference {expected:?}")),
    }
}

const fn is_source(item: &Item<'_>) -> bool {
    matches!(item, Item::RepresentedPort { .. } | Item::PortRepresentor { .. } | Item::PortId { .. })
}

/// Of rules of one priority those that look deeper come first: L4 and tunnels, L3, L2.
fn depth(things: &[Item<'_>]) -> u32 {
    let mut layers =
        things.iter().filter_map(|item| if let Item::Header(it) = item { Some(it.layer) } else { None });
    match layers.rfind(|layer| *layer != Layer::GreKey) {
        Some(Layer::Eth | Layer::Vlan) => 2,
        Some(Layer::Ipv4 | Layer::Ipv6) => 1,
        _ => 0,
    }
}

/// A new rule, or an old one with something else to do, elsewhere, or with an item less.
fn wish(trial: &mut Trial, wishes: &[Wish]) -> Wish {
    let dice = &mut trial.dice;
    if !wishes.is_empty() && dice.percent(45) {
        let mut wish = wishes[wishes.len() - 1 - dice.below(wishes.len().min(12))].clone();
        match dice.below(4) {
            0 => wish.attr.priority = dice.below(3) as u32,
            1 if wish.things.len() > 1 => {
                wish.things.pop();
                wish.shape = Shape::default();
            }
            _ => {}
        }
        wish.acts = rules::software_acts(dice, wish.attr.transfer, wish.attr.group, &wish.shape);
        return wish;
    }
    let transfer = dice.percent(80);
    let group = dice.pick(&[0, 0, 0, 1, 2, 3]);
    let priority = dice.below(3) as u32;
    let attr = Attr { group, priority, ingress: !transfer, transfer, egress: false };
    let port = Vport(dice.below(VPORTS) as u16);
    let (mut things, shape) = rules::headers(dice, false);
    if transfer {
        if let Some(source) = source(dice.below(10), dice.below(3) as u16) {
            things.insert(0, Thing::Plain(source));
        }
    }
    if group > 0 && dice.percent(25) {
        let (index, data) = (dice.below(2) as u8, dice.pick(&[0, 1, 2]));
        things.push(Thing::Plain(Item::Tag { index, data, mask: dice.pick(&[u32::MAX, 3]) }));
    }
    let mut acts = rules::software_acts(dice, transfer, group, &shape);
    if !transfer && dice.percent(30) {
        let mark = if dice.percent(70) { Action::Mark(Some(dice.below(9) as u32)) } else { Action::Flag };
        acts.insert(0, Act::Plain(mark));
    }
    if dice.percent(10) {
        // Where META is not to be had, this is refused.
        acts.insert(0, Act::Plain(Action::SetMeta { data: dice.below(3) as u32, mask: 0xffff }));
    }
    Wish { port, attr, things, shape, acts }
}

fn source(kind: usize, port: u16) -> Option<Item<'static>> {
    match kind {
        0..3 => Some(Item::RepresentedPort { port_id: Some(port), mask: u16::MAX }),
        3 => Some(Item::RepresentedPort { port_id: None, mask: u16::MAX }),
        4 => Some(Item::PortRepresentor { port_id: Some(port), mask: u16::MAX }),
        5 => Some(Item::PortId { port_id: Some(port.into()), mask: u32::MAX }),
        _ => None,
    }
}

fn destroy(trial: &mut Trial) -> Result<(), Difference> {
    let at = trial.dice.below(trial.live.len());
    let (number, handle) = trial.live.swap_remove(at);
    trial.compare_rule(number, handle)?;
    let port = trial.world.rule(number).expect("a live rule").port;
    trial.device.destroy(Tick(trial.now), port, handle).map_err(|e| format!("destroy: {e:?}"))?;
    trial.world.remove(number);
    trial.report.removed += 1;
    Ok(())
}

/// All rules of a port go; perhaps the port stops, or starts again.
fn flush(trial: &mut Trial) -> Result<(), Difference> {
    let port = Vport(trial.dice.below(VPORTS) as u16);
    let (started, config) = trial.world.rx[usize::from(port.0)].clone();
    if !started {
        trial.device.start(port, config).map_err(|e| format!("start: {e:?}"))?;
        trial.world.rx[usize::from(port.0)].0 = true;
        return Ok(());
    }
    if trial.dice.percent(50) {
        trial.device.stop(Tick(trial.now), port).map_err(|e| format!("stop: {e:?}"))?;
        trial.world.rx[usize::from(port.0)].0 = false;
    }
    let mut from = 0;
    while trial.device.flush(Tick(trial.now), port, &mut from) {}
    let gone: Vec<usize> =
        trial.world.rules.iter().filter(|rule| rule.port == port).map(|rule| rule.number).collect();
    for number in gone {
        trial.world.remove(number);
        trial.live.retain(|(live, _)| *live != number);
    }
    Ok(())
}
