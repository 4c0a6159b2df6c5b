//! What mlx5 of DPDK 22.11 refuses, with its errno and what it blames.
//!
//! Pure and without state: everything here can be asked outside any lock. What depends on the device's
//! state (a full table, a counter that cannot be had, a duplicate) is refused elsewhere.
//!
//! * [`rule`] and [`dry_run`]: SWS, `rte_flow_create` and `rte_flow_validate`. Reading order: `attr`,
//!   `items` and `registers`, `actions` with `rewrite` and `sample`, then `order`: what the PMD lets
//!   through and the steering library then turns down.
//! * [`pattern_template`], [`actions_template`], [`table`] in `hws` and `budget`: HWS.
//!
//! The causes name the item or action at fault even where mlx5 leaves `rte_flow_error.cause` empty. Where
//! mlx5 accepts what this model has no meaning for (IP in IP, flex items), the answer is "not supported".

mod actions;
mod attr;
mod budget;
mod hws;
mod items;
mod layers;
mod order;
mod registers;
mod rewrite;
mod sample;
#[cfg(test)]
mod tests;

use super::action::{Action, Shared};
use super::item::{Item, Layer};
use super::refusal::{Cause, Errno, Refusal};
use super::types::{Attr, Domain, Steering, Topology, Vport};

pub use hws::{
    ActionsFacts, PatternFacts, Pools, TableAttr, TemplateAttr, actions_template, configure, jump,
    pattern_template, table,
};

/// `MLX5_FLOW_LOWEST_PRIO_INDICATOR`: the priority an application gives to mean "below all others".
pub const LOWEST_PRIORITY: u32 = u32::MAX;

/// What validation needs to know of a device. It does not change while the device lives.
#[derive(Clone, Debug)]
pub struct Context {
    /// Which engine is on.
    pub steering: Steering,
    /// Its ports.
    pub topology: Topology,
    /// What the chip and its firmware can do.
    pub limits: Limits,
    /// How the driver was told to behave.
    pub options: Options,
}

impl Context {
    /// A device like BlueField-3 with the driver's default options.
    #[must_use]
    pub fn new(steering: Steering, topology: Topology) -> Context {
        Context { steering, topology, limits: Limits::default(), options: Options::default() }
    }
}

/// What the chip and its firmware can do. The default is like BlueField-3's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Actions of a SWS rule, all header edits counting as one (`MLX5_DV_MAX_NUMBER_OF_ACTIONS`).
    pub max_actions: u32,
    /// Modify commands of a rule (`MLX5_MAX_MODIFY_NUM`).
    pub max_modify: u32,
    /// The same in a root table (`MLX5_ROOT_TBL_MODIFY_NUM`).
    pub max_modify_root: u32,
    /// Actions of an HWS template, as the chip counts them (`MLX5_HW_MAX_ACTS`).
    pub max_template_actions: u32,
    /// The lowest priority outside root tables (`MLX5_NON_ROOT_FLOW_MAX_PRIO` - 1).
    pub max_priority: u32,
    /// The lowest priority in a root table: 3 with 16 firmware priorities, 1 with 8.
    pub max_priority_root: u32,
    /// Bytes that an encapsulation can add (`MLX5_ENCAP_MAX_LEN`).
    pub max_encap: u32,
    /// Usable `tag` indices in SWS, from 0: registers C2 to C7 less the meter's.
    pub tags_software: u8,
    /// Usable `tag` indices in HWS, from 0, before `xmeta` 4 takes one.
    pub tags_hardware: u8,
    /// Dwords of an HWS match, 8 byte selectors counting for two: 11 from BlueField-3 on, 8 before; 0: no
    /// bound.
    pub match_dwords: u32,
    /// Further dwords, for the outer and inner Ethernet, fixed IP and transport fields only: 3 before
    /// BlueField-3.
    pub match_dwords_near: u32,
    /// Whether an HWS pattern can hold both IPv6 addresses.
    pub ipv6_5tuple: bool,
    /// Whether the IPv4 header's length can be matched.
    pub ipv4_ihl: bool,
    /// Longest GENEVE options that can be named, in 4-byte words.
    pub geneve_options: u8,
    /// Pattern templates of an HWS table (`MLX5_HW_TBL_MAX_ITEM_TEMPLATE`); 1 in a root table.
    pub max_patterns: u32,
    /// Actions templates of an HWS table (`MLX5_HW_TBL_MAX_ACTION_TEMPLATE`).
    pub max_action_templates: u32,
    /// Rules of one HWS table; 0: no bound.
    pub max_table_rules: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_actions: 8,
            max_modify: 32,
            max_modify_root: 16,
            max_template_actions: 16,
            max_priority: 21843,
            max_priority_root: 3,
            max_encap: 132,
            tags_software: 5,
            tags_hardware: 5,
            match_dwords: 11,
            match_dwords_near: 0,
            ipv6_5tuple: true,
            ipv4_ihl: true,
            geneve_options: 63,
            max_patterns: 2,
            max_action_templates: 32,
            max_table_rules: 0,
        }
    }
}

impl Limits {
    /// As the default, with BlueField-2's narrower match. That it lacks `ipv4_ihl` is assumed.
    #[must_use]
    pub fn bluefield2() -> Limits {
        Limits {
            match_dwords: 8,
            match_dwords_near: 3,
            ipv6_5tuple: false,
            ipv4_ihl: false,
            ..Limits::default()
        }
    }
}

/// How the driver was told to behave: mlx5's device arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `fdb_def_rule_en`: the root table leads to the user's group 0.
    pub fdb_def_rule: bool,
    /// `allow_duplicate_pattern`.
    pub allow_duplicate_pattern: bool,
    /// `dv_xmeta_en`: 0, 1, 2, or (HWS) 4.
    pub xmeta: u8,
    /// `dv_esw_en`.
    pub esw: bool,
    /// Whether a packet can leave through the wire it came from: no with 22.11. Not asked here: such a
    /// rule is never refused.
    pub wire_to_wire: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fdb_def_rule: true,
            allow_duplicate_pattern: true,
            xmeta: 0,
            esw: true,
            wire_to_wire: false,
        }
    }
}

impl Options {
    /// Bits of META that can be matched or set in a register C (`dv_meta_mask`).
    pub(crate) const fn meta_mask(&self) -> u32 {
        if self.xmeta == 1 { 0xffff } else { u32::MAX }
    }

    /// Bits of MARK (`dv_mark_mask`).
    pub(crate) const fn mark_mask(&self) -> u32 {
        if self.xmeta == 2 { 0xffff } else { 0x00ff_ffff }
    }
}

/// What follows a meter's verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeterPolicy {
    /// Red is dropped, the rest goes on with the rule.
    Default,
    /// The policy has actions of its own: it is the rule's fate.
    Terminating,
}

/// The port a rule is made on, and what is known of it.
#[derive(Clone, Copy)]
pub struct Port<'a> {
    /// Which.
    pub vport: Vport,
    /// Whether `rte_eth_dev_start` has been called.
    pub started: bool,
    /// Its receive queues; `None`: any index will do.
    pub queues: Option<u16>,
    /// Its meters: `None` from the function if there is no such meter. Without the function, every meter
    /// is taken to exist and to have the default policy.
    pub meters: Option<&'a dyn Fn(u32) -> Option<MeterPolicy>>,
}

impl Port<'_> {
    /// A port of which no more is known.
    #[must_use]
    pub fn new(vport: Vport, started: bool) -> Port<'static> {
        Port { vport, started, queues: None, meters: None }
    }
}

/// Whether a SWS rule can be made, as far as that depends on the rule alone; and where it would live.
///
/// # Errors
/// What `rte_flow_create` would say: ENOTSUP in HWS, ENODEV before the port is started, and all of this
/// module's refusals.
pub fn rule(
    context: &Context,
    port: Vport,
    started: bool,
    attr: &Attr,
    items: &[Item<'_>],
    actions: &[Action<'_>],
) -> Result<Domain, Refusal> {
    rule_on(context, &Port::new(port, started), attr, items, actions)
}

/// As [`rule`], knowing the port's queues and meters.
///
/// # Errors
/// As [`rule`], and EINVAL for a queue or meter that there is not.
pub fn rule_on(
    context: &Context,
    port: &Port<'_>,
    attr: &Attr,
    items: &[Item<'_>],
    actions: &[Action<'_>],
) -> Result<Domain, Refusal> {
    if context.steering == Steering::Hardware {
        return Err(HARDWARE);
    }
    if !port.started {
        return Err(Refusal::new(
            Errno::Nodev,
            Cause::Unspecified,
            "the port is not started: call rte_eth_dev_start first",
        ));
    }
    let request = Request { context, port, attr, root: attr::check(context, attr)? };
    let walk = items::check(&request, items)?;
    let sequence = actions::check(&request, &walk, actions)?;
    order::check(&request, &walk, &sequence)?;
    Ok(request.domain())
}

/// `rte_flow_validate`: as [`rule_on`], without what only comes to light when the rule is made: a port that
/// is not started, an order of actions that the steering library refuses.
///
/// # Errors
/// As [`rule_on`], but for these.
pub fn dry_run(
    context: &Context,
    port: &Port<'_>,
    attr: &Attr,
    items: &[Item<'_>],
    actions: &[Action<'_>],
) -> Result<Domain, Refusal> {
    if context.steering == Steering::Hardware {
        return Err(HARDWARE);
    }
    let request = Request { context, port, attr, root: attr::check(context, attr)? };
    let walk = items::check(&request, items)?;
    actions::check(&request, &walk, actions)?;
    Ok(request.domain())
}

const HARDWARE: Refusal = Refusal::new(
    Errno::Notsup,
    Cause::Unspecified,
    "hardware steering has no synchronous rules: use templates and rte_flow_async_create",
);

/// One SWS rule being looked at.
struct Request<'a> {
    context: &'a Context,
    port: &'a Port<'a>,
    attr: &'a Attr,
    /// Whether it goes into a table that the firmware manages.
    root: bool,
}

impl Request<'_> {
    fn domain(&self) -> Domain {
        if self.attr.transfer { Domain::Fdb } else { Domain::NicRx(self.port.vport) }
    }

    /// Whether the port is a representor proper: not the uplink that owns the eSwitch.
    fn is_representor(&self) -> bool {
        self.port.vport != MASTER
    }
}

/// The uplink whose ethdev owns the eSwitch: the transfer proxy.
const MASTER: Vport = Vport(0);

/// The priority of the matcher that a SWS rule joins: three per rule priority, so that rules that look
/// further into the packet win (L4 before L3 before L2). As `mlx5_get_matcher_priority`; the last item that
/// has a say decides.
#[must_use]
pub fn matcher_priority(context: &Context, attr: &Attr, items: &[Item<'_>]) -> u32 {
    let mut layer = 0;
    for item in items {
        if let Item::Header(header) = item {
            layer = match header.layer {
                Layer::Eth | Layer::Vlan => 2,
                Layer::Ipv4 | Layer::Ipv6 => 1,
                Layer::GreKey => layer,
                _ => 0,
            };
        }
    }
    let priority = match attr.priority {
        LOWEST_PRIORITY if attr.group == 0 && !(attr.transfer && context.options.fdb_def_rule) => {
            context.limits.max_priority_root.saturating_add(1)
        }
        LOWEST_PRIORITY => context.limits.max_priority.saturating_add(1),
        priority => priority,
    };
    priority.saturating_mul(3).saturating_add(layer)
}

/// Whether an action can be made an indirect one.
///
/// # Errors
/// ENOTSUP for actions that cannot be shared; EINVAL for an age of 0 s (SWS), and for counters, ages and
/// meters that `rte_flow_configure` asked none of (HWS).
pub fn indirect(context: &Context, action: &Action<'_>, pools: Pools) -> Result<(), Refusal> {
    let hardware = context.steering == Steering::Hardware;
    match action {
        Action::Rss { queues: [] } => Err(actions::no_queues(0)),
        Action::Rss { .. } => Ok(()),
        Action::Count if hardware => hws::pool(pools.counters, 0, hws::NO_COUNTERS),
        Action::Age { .. } if hardware => hws::pool(pools.ages, 0, hws::NO_AGES),
        Action::MeterMark { .. } if hardware => hws::pool(pools.meters, 0, hws::NO_METERS),
        Action::Count => Ok(()),
        Action::Age { timeout_s, .. } => actions::age_timeout(*timeout_s, 0),
        _ => Err(Refusal::new(
            Errno::Notsup,
            Cause::Action(0),
            "this action cannot be shared: count, age and rss can, and meter_mark in hardware steering",
        )),
    }
}

/// What an indirect handle stands for, seen from a SWS rule.
fn shared_is_known(shared: &Shared) -> bool {
    !matches!(shared, Shared::Meter(_))
}

/// Shorthand for the commonest refusals.
fn invalid(cause: Cause, message: &'static str) -> Refusal {
    Refusal::new(Errno::Inval, cause, message)
}

/// The same for what the device cannot do.
fn unsupported(cause: Cause, message: &'static str) -> Refusal {
    Refusal::new(Errno::Notsup, cause, message)
}
