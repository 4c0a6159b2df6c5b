//! The lowering: what a connection's packets are to become, as rules.
//!
//! ```text
//! group 0, transfer, per port                 groups 1 to 4: one rule per connection and direction
//! ┌───────────────────────────────────────┐  ┌─────────────────────────────────────────────────┐
//! │ TTL or hop limit <= 1 ─▶ group 5      │  │ port, 5-tuple, TCP: SYN|FIN|RST = 0             │
//! │ ours, IPv4 and TCP    ─▶ group 1 ─────┼─▶│ ─▶ count, age, tags, MACs, address, port, TTL,  │
//! │ ours, IPv4 and UDP    ─▶ group 2      │  │    out of the other port                        │
//! │ ours, IPv6 and TCP    ─▶ group 3      │  └─────────────────────────────────────────────────┘
//! │ ours, IPv6 and UDP    ─▶ group 4      │  group 5 is empty. A miss anywhere goes to software: to the
//! └───────────────────────────────────────┘  receive queues of the port that the packet came in by.
//! ```
//!
//! One mask per group, so that a packet takes two lookups however many connections there are. Rules name
//! the port their packets come from: software steering would take the port they are made on, hardware
//! steering every port. Fragments have no ports to be matched by, and go to software.
//!
//! Hardware drops what leaves by the wire it came from, and ports of different eSwitches do not reach one
//! another; there, a pair of *hairpin* queues joins the receive side of one port to the transmit side of
//! another or the same. Such rules are in the receive domain of their port, in its first group: behind any
//! other group a miss is a drop there, and not the business of software.
//!
//! What is left to software for good: two VLAN tags, a way out whose MTU is smaller than the way in's, and in
//! the receive domain tunnels, and tags put on, or taken off by a representor, which mlx5 refuses.
//!
//! Packets to a backend behind a tunnel get their outer headers from the rule. Hardware fills in lengths, and
//! IPv4's checksum, and copies nothing: so the pattern has the traffic class that the headers are made for,
//! without a mark of congestion (RFC 6040), and other packets miss. Where the tunnel has no inner Ethernet
//! header, the packet's own goes first, tags and all.
//!
//! Behind the connections of a group, with priority 1, are rules that drop what the policy denies: see
//! `denial`.
//!
//! What hardware does otherwise than the worker:
//!
//! * It keeps a tag's priority.
//! * It chooses the outer UDP source port of VXLAN and GENEVE itself, for each connection, and leaves what
//!   pads a short frame where it is.
//! * It does not see that a second customer tag is within the right one (no pattern can say so:
//!   `has_more_vlan` asks for a service tag), and forwards it as a part of the packet.
//! * Where a port is a bump in the wire, it takes a connection's requests whomever their frames are for; the
//!   worker passes those for other stations on. An IPv6 rule with a MAC address is too wide to match.

mod denial;
pub mod ports;
#[cfg(test)]
mod tests;

use crate::engine::Kind;
use crate::rule::{Action, Attr, Domain, Headers, Item, Masked, Rule};
use arrayvec::ArrayVec;
use dataplane::addr::{Ip, MacAddr};
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::PortId;
use dataplane::offload::{Ask, Declined, Leg};
use dataplane::rewrite::Around;
use dataplane::snapshot::VlanTags;
use dataplane::wire::{ether, ipv4};
pub use denial::denial;
use ports::TunnelPort;

mod partition;
pub(crate) use partition::crosses;
pub use partition::{Parted, partition};

/// The group of connections over IPv4 and TCP.
pub const CONNECTIONS_V4_TCP: u32 = 1;
/// IPv4, UDP.
pub const CONNECTIONS_V4_UDP: u32 = 2;
/// IPv6, TCP.
pub const CONNECTIONS_V6_TCP: u32 = 3;
/// IPv6, UDP.
pub const CONNECTIONS_V6_UDP: u32 = 4;
/// The group without rules: what jumps there misses, and so goes to software.
pub const SOFTWARE: u32 = 5;

/// The receive queue of what a receive domain's rules leave to software: the first, whose worker passes on
/// what is another one's.
const SOFTWARE_QUEUE: u16 = 0;

/// SYN, FIN and RST in TCP's flags: what opens and closes connections is software's business.
const TCP_CONTROL: u8 = 0x02 | 0x01 | 0x04;

/// All bits of a TTL but the last: where they are 0 it is 0 or 1.
const TTL_EXPIRES: Masked<u8> = Masked { value: 0, mask: 0xfe };

/// The longest age, seconds: 24 bits (mlx5-rte-flow: `rte_flow_action_age`).
const AGE_MAX_S: u32 = (1 << 24) - 1;

/// A pair of hairpin queues, from the side that receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hairpin {
    /// The port that sends what the queue gets.
    pub egress: PortId,
    /// The receive queue.
    pub queue: u16,
}

/// A port, as rules see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortFacts {
    /// Its ethdev.
    pub ethdev: u16,
    /// The ethdev on which transfer rules for it are made: the transfer proxy of its switch domain.
    pub proxy: u16,
    /// Its switch domain: rules can forward between ports of one. `None`: it is behind no eSwitch.
    pub domain: Option<u16>,
    /// The MAC address it sends from.
    pub mac: MacAddr,
    /// Whether frames to other stations may be a connection's: the port is a bump in the wire.
    pub any_mac: bool,
    /// Largest IP packet that fits, bytes.
    pub mtu: u16,
    /// The tags of its frames.
    pub vlan: VlanTags,
    /// The tunnel that it is behind, if it is; its device is the port's below then.
    pub tunnel: Option<TunnelPort>,
    /// Its pairs of hairpin queues.
    pub hairpins: Vec<Hairpin>,
}

/// All ports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// By [`PortId`].
    pub ports: Vec<PortFacts>,
}

/// How packets get from one port to another without software.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Across the eSwitch.
    Eswitch,
    /// Through this hairpin queue of the port they come in by.
    Hairpin(u16),
}

impl Topology {
    fn port(&self, id: PortId) -> Option<&PortFacts> {
        self.ports.get(id.index())
    }

    /// How hardware gets packets from one port to another, if it can.
    fn way(&self, ingress: PortId, egress: PortId) -> Option<Way> {
        let (from, to) = (self.port(ingress)?, self.port(egress)?);
        if from.domain.is_some() && from.domain == to.domain && from.ethdev != to.ethdev {
            return Some(Way::Eswitch);
        }
        // A pair leads to a device, whichever of the ports on it has its number.
        let leads_there =
            |hairpin: &&Hairpin| self.port(hairpin.egress).map(|port| port.ethdev) == Some(to.ethdev);
        let hairpin = from.hairpins.iter().find(leads_there);
        hairpin.map(|hairpin| Way::Hairpin(hairpin.queue))
    }

    /// Whether the eSwitch takes packets of this port anywhere.
    fn crosses(&self, ingress: PortId) -> bool {
        (0..self.ports.len()).any(|egress| self.way(ingress, PortId(egress as u16)) == Some(Way::Eswitch))
    }
}

/// The rule for one direction of a connection. `age_s`: seconds without a packet after which the engine is
/// to tell; limited to what a rule can say.
///
/// # Errors
/// [`Declined::Path`]: hardware cannot do it, and will not until ports or addresses change.
pub fn leg(
    topology: &Topology,
    ask: &Ask,
    direction: Direction,
    age_s: Option<u32>,
) -> Result<Rule, Declined> {
    let path = ask.legs[direction as usize].ok_or(Declined::Path)?;
    let way = topology.way(path.ingress, path.egress).ok_or(Declined::Path)?;
    let (Some(from), Some(to)) = (topology.port(path.ingress), topology.port(path.egress)) else {
        return Err(Declined::Path);
    };
    let incoming = ask.incoming(direction);
    let translates = ask.nat && ask.backend_end.0.is_v4() != ask.key.dst.is_v4();
    if incoming.src.is_v4() != incoming.dst.is_v4() || translates {
        return Err(Declined::Path);
    }
    if from.tunnel.is_some() {
        return ports::out_of(topology, ask, direction, &path, [from, to], age_s);
    }
    if to.tunnel.is_some() {
        return ports::into(topology, ask, direction, &path, [from, to], age_s);
    }
    // Of a connection that is translated, frames of the other direction go into one.
    if let Some(around) = ask.tunnel.as_ref().filter(|_| !ask.nat) {
        return tunnelled(&incoming, &path, around, [from, to], way, age_s);
    }
    if to.mtu < from.mtu {
        return Err(Declined::Mtu);
    }
    let tags = Retag::between(from.vlan, to.vlan).ok_or(Declined::Path)?;
    let in_hairpin = match tags {
        Retag::Same | Retag::Other(_) => true,
        Retag::Off => from.domain.is_none() || from.ethdev == from.proxy,
        Retag::On(_) => false,
    };
    if way != Way::Eswitch && !in_hairpin {
        return Err(Declined::Path);
    }
    let (port, attr) = match way {
        Way::Eswitch => {
            (from.proxy, Attr { domain: Domain::Transfer, group: group_of(&incoming), priority: 0 })
        }
        Way::Hairpin(_) => (from.ethdev, Attr { domain: Domain::Ingress, group: 0, priority: 1 }),
    };
    let items = connection(from, way, &incoming, None);
    let mut actions = begin(tags == Retag::Off, age_s);
    if let Retag::Other(vid) = tags {
        actions.push(Action::SetVlanVid(vid));
    }
    edits(&mut actions, ask, direction, &path, to.mac);
    if let Retag::On(vid) = tags {
        actions.extend([Action::PushVlan, Action::SetVlanVid(vid)]);
    }
    actions.push(match way {
        Way::Eswitch => Action::ToPort(to.ethdev),
        Way::Hairpin(queue) => Action::Queue(queue),
    });
    Ok(Rule { port, attr, items, actions, headers: Headers::new() })
}

/// What comes before edits.
fn begin(untag: bool, age_s: Option<u32>) -> Actions {
    let mut actions = Actions::new();
    actions.extend(untag.then_some(Action::PopVlan));
    actions.push(Action::Count);
    actions.extend(age_s.map(|seconds| Action::Age { timeout_s: seconds.clamp(1, AGE_MAX_S) }));
    actions
}

/// As [`leg`], into a backend's tunnel. Hardware copies nothing from one header to another: what of the outer
/// one is the packet's is compared. It compares no lengths: so all that fits the way in must fit the tunnel.
fn tunnelled(
    incoming: &FlowKey,
    path: &Leg,
    around: &Around,
    [from, to]: [&PortFacts; 2],
    way: Way,
    age_s: Option<u32>,
) -> Result<Rule, Declined> {
    let (inner, shim) = (around.inner_link(), around.headers());
    let added = shim.len() + inner.map_or(0, |_| ether::LEN);
    if usize::from(to.mtu) < usize::from(from.mtu) + added {
        return Err(Declined::Mtu);
    }
    if from.vlan.outer.is_some() || to.vlan.outer.is_some() {
        return Err(Declined::Path);
    }
    if way != Way::Eswitch {
        // The receive side takes no encapsulation (mlx5_flow_dv.c, `encap is not supported for ingress`).
        return Err(Declined::Tunnel);
    }
    let (value, mask) = around.class();
    let mut actions = begin(from.vlan.inner.is_some(), age_s);
    if let Some([dst, src]) = inner {
        actions.extend([Action::SetMacDst(dst), Action::SetMacSrc(src)]);
    }
    actions.push(Action::DecTtl);
    actions.extend(inner.is_none().then_some(Action::RawDecap));
    actions.extend([Action::RawEncap, Action::ToPort(to.ethdev)]);
    Ok(Rule {
        port: from.proxy,
        attr: Attr { domain: Domain::Transfer, group: group_of(incoming), priority: 0 },
        items: connection(from, way, incoming, Some(Masked { value, mask })),
        actions,
        headers: headers(to, path.next_hop, around).ok_or(Declined::Tunnel)?,
    })
}

/// Whether an engine of this kind takes such a rule, as far as that is known beforehand: software steering
/// does not believe that an Ethernet and an IPv4 header alone are a tunnel's (mlx5_flow_dv.c,
/// `MLX5_ENCAPSULATION_DECISION_SIZE`: "small raw encap size"); hardware steering does.
pub(crate) fn suits(kind: Kind, rule: &Rule) -> bool {
    let small = (1..=ether::LEN + ipv4::LEN).contains(&rule.headers.len());
    (kind != Kind::Sync || !small) && ports::suits(kind == Kind::Template, rule)
}

/// A tunnel's headers, from Ethernet on; `None` if there is no room for them.
fn headers(to: &PortFacts, next_hop: MacAddr, around: &Around) -> Option<Headers> {
    let ether_type = if around.is_v4() { ether::IPV4 } else { ether::IPV6 };
    let mut headers: Headers = (0..ether::len(to.vlan)).map(|_| 0).collect();
    ether::emit(&mut headers, next_hop, to.mac, to.vlan, ether_type)?;
    headers.try_extend_from_slice(around.headers()).ok()?;
    Some(headers)
}

/// Whether packets come to a connection's rules by way of base rules of group 0 only: not if one is a
/// hairpin's, or takes them out of a tunnel.
pub(crate) fn is_led_to(topology: &Topology, ask: &Ask) -> bool {
    let behind_tunnel = |leg: &Leg| topology.port(leg.ingress).is_some_and(|port| port.tunnel.is_some());
    let by_base = |leg: &Leg| topology.way(leg.ingress, leg.egress) == Some(Way::Eswitch);
    ask.legs.iter().flatten().all(|leg| by_base(leg) && !behind_tunnel(leg))
}

/// The rules that lead packets to the connections' rules, and keep those away that software must see. They
/// come first, and stay; of a port's, those that keep packets away are in force before those that lead.
#[must_use]
pub fn base_rules(topology: &Topology) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (at, port) in topology.ports.iter().enumerate() {
        if port.tunnel.is_some() {
            ports::base(&mut rules, topology, port);
            continue;
        }
        if port.vlan.outer.is_some() {
            continue;
        }
        if topology.crosses(PortId(at as u16)) {
            transfer_base(&mut rules, port);
        }
        if !port.hairpins.is_empty() {
            for v4 in [true, false] {
                let attr = Attr { domain: Domain::Ingress, group: 0, priority: 0 };
                let mut items = link(port, None);
                items.push(expiring(v4));
                let actions = [Action::Queue(SOFTWARE_QUEUE)].into_iter().collect();
                rules.push(Rule { port: port.ethdev, attr, items, actions, headers: Headers::new() });
            }
        }
    }
    rules
}

/// Group 0's rules for one port.
fn transfer_base(rules: &mut Vec<Rule>, port: &PortFacts) {
    let mut rule = |priority, dst, layers: &[Item], group| {
        let attr = Attr { domain: Domain::Transfer, group: 0, priority };
        let mut items = ArrayVec::new();
        items.push(Item::RepresentedPort(port.ethdev));
        items.extend(link(port, dst));
        items.extend(layers.iter().copied());
        let actions = [Action::Jump(group)].into_iter().collect();
        rules.push(Rule { port: port.proxy, attr, items, actions, headers: Headers::new() });
    };
    for v4 in [true, false] {
        rule(0, None, &[expiring(v4)], SOFTWARE);
    }
    let dst = (!port.any_mac).then_some(port.mac);
    let v4 = Item::Ipv4 { src: None, dst: None, class: None, ttl: None };
    let v6 = Item::Ipv6 { src: None, dst: None, class: None, hop_limit: None };
    let tcp = Item::Tcp { src: None, dst: None, flags: None };
    let udp = Item::Udp { src: None, dst: None };
    rule(1, dst, &[v4, tcp], CONNECTIONS_V4_TCP);
    rule(1, dst, &[v4, udp], CONNECTIONS_V4_UDP);
    rule(1, dst, &[v6, tcp], CONNECTIONS_V6_TCP);
    rule(1, dst, &[v6, udp], CONNECTIONS_V6_UDP);
}

/// An IP header whose packet must not be forwarded.
fn expiring(v4: bool) -> Item {
    if v4 {
        Item::Ipv4 { src: None, dst: None, class: None, ttl: Some(TTL_EXPIRES) }
    } else {
        Item::Ipv6 { src: None, dst: None, class: None, hop_limit: Some(TTL_EXPIRES) }
    }
}

/// The group of a connection's rules.
pub(crate) fn group_of(key: &FlowKey) -> u32 {
    match (key.dst.is_v4(), key.protocol) {
        (true, Protocol::Tcp) => CONNECTIONS_V4_TCP,
        (true, Protocol::Udp) => CONNECTIONS_V4_UDP,
        (false, Protocol::Tcp) => CONNECTIONS_V6_TCP,
        (false, Protocol::Udp) => CONNECTIONS_V6_UDP,
    }
}

type Items = ArrayVec<Item, { crate::rule::ITEMS_MAX }>;
type Actions = ArrayVec<Action, { crate::rule::ACTIONS_MAX }>;

/// The link headers of a port's frames.
fn link(port: &PortFacts, dst: Option<MacAddr>) -> Items {
    let mut items = Items::new();
    items.push(Item::Eth { dst });
    items.extend(port.vlan.inner.map(Item::Vlan));
    items
}

/// The packets of one direction of a connection; of this traffic class, if it matters.
fn connection(from: &PortFacts, way: Way, key: &FlowKey, class: Option<Masked<u8>>) -> Items {
    let mut items = Items::new();
    match way {
        // Whom frames are for was looked at in group 0.
        Way::Eswitch => {
            items.push(Item::RepresentedPort(from.ethdev));
            items.extend(link(from, None));
        }
        Way::Hairpin(_) => items.extend(link(from, (!from.any_mac).then_some(from.mac))),
    }
    items.push(if key.dst.is_v4() {
        Item::Ipv4 { src: Some(key.src.low32()), dst: Some(key.dst.low32()), class, ttl: None }
    } else {
        Item::Ipv6 { src: Some(key.src), dst: Some(key.dst), class, hop_limit: None }
    });
    let (src, dst) = (Some(key.src_port), Some(key.dst_port));
    items.push(match key.protocol {
        Protocol::Tcp => Item::Tcp { src, dst, flags: Some(Masked { value: 0, mask: TCP_CONTROL }) },
        Protocol::Udp => Item::Udp { src, dst },
    });
    items
}

/// What the worker would write into a packet, tags apart.
fn edits(actions: &mut Actions, ask: &Ask, direction: Direction, path: &Leg, mac: MacAddr) {
    actions.push(Action::SetMacDst(path.next_hop));
    actions.push(Action::SetMacSrc(mac));
    if ask.nat {
        let vip = (ask.key.dst, ask.key.dst_port);
        translation(actions, direction, vip, ask.backend_end);
    }
    actions.push(Action::DecTtl);
}

/// As [`edits`], where addresses stay.
fn edits_of_dsr(actions: &mut Actions, path: &Leg, mac: MacAddr) {
    actions.extend([Action::SetMacDst(path.next_hop), Action::SetMacSrc(mac), Action::DecTtl]);
}

/// The VIP becomes the backend in packets towards it, and the other way round in its replies; of address
/// and port only what differs.
fn translation(actions: &mut Actions, direction: Direction, vip: (Ip, u16), backend: (Ip, u16)) {
    let (address, port) = (vip.0 != backend.0, vip.1 != backend.1);
    match direction {
        Direction::Original => {
            actions.extend(address.then_some(Action::SetIpDst(backend.0)));
            actions.extend(port.then_some(Action::SetPortDst(backend.1)));
        }
        Direction::Reply => {
            actions.extend(address.then_some(Action::SetIpSrc(vip.0)));
            actions.extend(port.then_some(Action::SetPortSrc(vip.1)));
        }
    }
}

/// What becomes of the VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Retag {
    /// Nothing.
    Same,
    /// It gets another VID.
    Other(u16),
    /// It goes.
    Off,
    /// There was none.
    On(u16),
}

impl Retag {
    /// From one port's frames to another's; `None` if they have two.
    fn between(from: VlanTags, to: VlanTags) -> Option<Retag> {
        if from.outer.is_some() || to.outer.is_some() {
            return None;
        }
        Some(match (from.inner, to.inner) {
            (None, None) => Retag::Same,
            (Some(old), Some(new)) if old == new => Retag::Same,
            (Some(_), Some(new)) => Retag::Other(new),
            (Some(_), None) => Retag::Off,
            (None, Some(new)) => Retag::On(new),
        })
    }
}
