//! Ports behind tunnels: their packets come and go inside of those of the port below.
//!
//! ```text
//! group 0            group 2 or 4: UDP              groups 7 to 10: one rule per connection
//! ┌───────────────┐  ┌──────────────────────────┐  ┌──────────────────────────────────────────────┐
//! │ ours, UDP  ───┼─▶│ tunnel, TTL inside <= 1 ─┼┐ │ port, far end, network, inner 5-tuple        │
//! └───────────────┘  │   ─▶ group 5             ││ │ ─▶ all around the frame off, count, age, as  │
//!                    │ tunnel, ours inside ─────┼┼▶│    ever, out of the other port               │
//!                    └──────────────────────────┘┘ └──────────────────────────────────────────────┘
//! ```
//!
//! They come behind the rules of connections over UDP, so that packets that are in no tunnel find their rule
//! as fast as ever. What is in one and misses anywhere comes to software as it was, headers and all.
//!
//! Hardware finds a tunnel by its assigned UDP port and by nothing else. Of the outer header, these rules
//! compare our end and the mark of congestion; those of connections compare the far end. All that at once
//! would be more than hardware steering can compare where the outer header is IPv6's.
//!
//! What is left to software for good: tunnels at other ports, those without a known far end, decapsulation of
//! what a host's function sends (the steering library has no such state), out of one tunnel into another, and
//! under hardware steering GENEVE, which templates of DPDK 22.11 lack, and IPv6 inside: two such addresses, a
//! far end and a network are more than any chip compares. Nor is a checksum of outer UDP verified, or
//! VXLAN's flag that says that there is a network.

#[cfg(test)]
mod tests;

use super::{
    Actions, Items, PortFacts, Retag, SOFTWARE, TCP_CONTROL, Topology, Way, begin, edits, expiring, headers,
    link,
};
use crate::colours::COLOURS;
use crate::rule::{Action, Attr, Domain, Headers, Item, Masked, Rule, Tunnel};
use arrayvec::ArrayVec;
use dataplane::addr::Ip;
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::PortId;
use dataplane::offload::{Ask, Declined, Leg};
use dataplane::snapshot::{Encapsulation, Snapshot};
use dataplane::wire::{ether, geneve, ipv4, ipv6, udp, vlan, vxlan};

/// What is added to the number of a group of connections for those out of tunnels.
const TUNNELLED: u32 = COLOURS;

/// Of an outer traffic class, what must be clear: set, it is a mark that the inner header needs to be given,
/// for all that the latter does not say (RFC 6040, figure 4). Not-ECT and ECT(0) change nothing.
const UNMARKED: Masked<u8> = Masked { value: 0, mask: 0x01 };

/// The tunnel that a port is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelPort {
    /// The port that the outer packets go by.
    pub link: PortId,
    /// What hardware can take its frames out of; `None` for a tunnel that it would not recognise.
    pub inside: Option<Inside>,
}

/// What hardware tells frames of a tunnel by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inside {
    /// The kind.
    pub kind: Tunnel,
    /// The network's number.
    pub vni: u32,
    /// Our end,
    pub own: Ip,
    /// and the far one.
    pub remote: Ip,
}

/// The tunnel that a port is behind by this configuration, if it is.
#[must_use]
pub fn tunnel_of(snapshot: &Snapshot, port: PortId) -> Option<TunnelPort> {
    let end = snapshot.port(port)?.tunnel?;
    let kind = match (end.encapsulation, end.port) {
        (Encapsulation::Vxlan, vxlan::PORT) => Some(Tunnel::Vxlan),
        (Encapsulation::Geneve, geneve::PORT) => Some(Tunnel::Geneve),
        _ => None,
    };
    let inside = |kind| {
        let (own, remote) = (snapshot.into_tunnel(port)?.from, end.remote?);
        Some(Inside { kind, vni: end.vni, own, remote })
    };
    Some(TunnelPort { link: end.link, inside: kind.and_then(inside) })
}

/// Whether the ports of a connection are behind the tunnels that rules know them behind, if they are behind
/// any: a reload may change that, and rules are made for what was at the start.
pub(crate) fn are_known(topology: &Topology, snapshot: &Snapshot, ask: &Ask) -> bool {
    let ports = ask.legs.iter().flatten().flat_map(|leg| [leg.ingress, leg.egress]);
    let is_known = |port: PortId| {
        let Some(facts) = topology.port(port).filter(|facts| facts.tunnel.is_some()) else {
            return !snapshot.is_behind_tunnel(port);
        };
        facts.tunnel == tunnel_of(snapshot, port)
            && snapshot.port(port).map(|port| port.mac) == Some(facts.mac)
    };
    !snapshot.has_tunnel_ports() || ports.into_iter().all(is_known)
}

impl Inside {
    /// Bytes around a frame of this tunnel, from the outer Ethernet header on, tags apart. VXLAN's and
    /// GENEVE's headers are of one length.
    const fn added(&self) -> usize {
        let network = if self.own.is_v4() { ipv4::LEN } else { ipv6::LEN };
        ether::LEN + network + udp::LEN + vxlan::LEN
    }

    fn outer(&self, ours: bool) -> Item {
        let (src, dst) = if ours { (None, Some(self.own)) } else { (Some(self.remote), None) };
        let class = ours.then_some(UNMARKED);
        if self.own.is_v4() {
            let [src, dst] = [src, dst].map(|ip| ip.map(|ip| ip.low32()));
            Item::Ipv4 { src, dst, class, ttl: None }
        } else {
            Item::Ipv6 { src, dst, class, hop_limit: None }
        }
    }

    /// Up to the tunnel's header, of packets that come from the far end or to ours.
    fn around(&self, link_port: &PortFacts, ours: bool) -> Items {
        let mut items = Items::new();
        items.push(Item::RepresentedPort(link_port.ethdev));
        items.extend(link(link_port, ours.then_some(link_port.mac)));
        items.push(self.outer(ours));
        items.push(Item::Udp { src: None, dst: None });
        items.push(Item::Tunnel(self.kind, Some(self.vni)));
        items
    }
}

/// Whether an engine of software steering, or one of hardware steering, takes such a rule.
pub(super) fn suits(hardware: bool, rule: &Rule) -> bool {
    let inside = rule.innermost();
    let tunnel = rule.items.iter().find_map(|item| match item {
        Item::Tunnel(kind, _) => Some(*kind),
        _ => None,
    });
    let v6 = inside.iter().any(|item| matches!(item, Item::Ipv6 { .. }));
    !(hardware && (tunnel == Some(Tunnel::Geneve) || tunnel.is_some() && v6))
}

/// Bytes of link layer on every frame that comes by a port, as hardware counts them: without FCS. Those of a
/// port behind a tunnel are counted with all that was around them.
pub(crate) fn overhead(topology: &Topology, port: PortId) -> u64 {
    let Some(facts) = topology.port(port) else { return ether::LEN as u64 };
    let link_port = facts.tunnel.and_then(|tunnel| topology.port(tunnel.link));
    let vlan = link_port.unwrap_or(facts).vlan;
    let tags = usize::from(vlan.outer.is_some()) + usize::from(vlan.inner.is_some());
    let around = facts.tunnel.and_then(|tunnel| tunnel.inside).map_or(0, |inside| inside.added());
    (around + ether::LEN + tags * vlan::LEN) as u64
}

/// The group of connections like this one that come out of tunnels.
fn group_of(key: &FlowKey) -> u32 {
    super::group_of(key) + TUNNELLED
}

/// The rules that lead from those of UDP to those of connections behind a tunnel, and keep away what must not
/// be forwarded.
pub(super) fn base(rules: &mut Vec<Rule>, topology: &Topology, port: &PortFacts) {
    let Some(tunnel) = port.tunnel else { return };
    let (Some(inside), Some(link_port)) = (tunnel.inside, topology.port(tunnel.link)) else { return };
    if port.domain.is_none() || !may_decap(link_port) || link_port.vlan.outer.is_some() {
        return;
    }
    let from = if inside.own.is_v4() { super::CONNECTIONS_V4_UDP } else { super::CONNECTIONS_V6_UDP };
    let mut rule = |priority, layers: &[Item], group| {
        let mut items = inside.around(link_port, true);
        items.extend(layers.iter().copied());
        let attr = Attr { domain: Domain::Transfer, group: from, priority };
        let actions = [Action::Jump(group)].into_iter().collect();
        rules.push(Rule { port: link_port.proxy, attr, items, actions, headers: Headers::new() });
    };
    for v4 in [true, false] {
        rule(1, &[Item::Eth { dst: None }, expiring(v4)], SOFTWARE);
    }
    let frame = Item::Eth { dst: (!port.any_mac).then_some(port.mac) };
    let v4 = Item::Ipv4 { src: None, dst: None, class: None, ttl: None };
    let v6 = Item::Ipv6 { src: None, dst: None, class: None, hop_limit: None };
    let tcp = Item::Tcp { src: None, dst: None, flags: None };
    let udp = Item::Udp { src: None, dst: None };
    rule(2, &[frame, v4, tcp], super::CONNECTIONS_V4_TCP + TUNNELLED);
    rule(2, &[frame, v4, udp], super::CONNECTIONS_V4_UDP + TUNNELLED);
    rule(2, &[frame, v6, tcp], super::CONNECTIONS_V6_TCP + TUNNELLED);
    rule(2, &[frame, v6, udp], super::CONNECTIONS_V6_UDP + TUNNELLED);
}

/// Frames are taken out on their way in from a wire, not from a host's function: mlx5 makes rules for both on
/// the proxy, which is a wire's port.
fn may_decap(link_port: &PortFacts) -> bool {
    link_port.ethdev == link_port.proxy
}

/// As [`super::leg`], out of a tunnel.
pub(super) fn out_of(
    topology: &Topology,
    ask: &Ask,
    direction: Direction,
    path: &Leg,
    [from, to]: [&PortFacts; 2],
    age_s: Option<u32>,
) -> Result<Rule, Declined> {
    let tunnel = from.tunnel.ok_or(Declined::Tunnel)?;
    let (inside, link_port) = tunnel.inside.zip(topology.port(tunnel.link)).ok_or(Declined::Tunnel)?;
    let crosses = topology.way(path.ingress, path.egress) == Some(Way::Eswitch);
    if !crosses || to.tunnel.is_some() || !may_decap(link_port) {
        return Err(Declined::Tunnel);
    }
    // Nobody holds the far end to what the port was told: its frames are as large as the link lets them be.
    let within = usize::from(to.mtu) + inside.added() >= usize::from(link_port.mtu);
    if !within {
        return Err(Declined::Mtu);
    }
    let tags = Retag::between(from.vlan, to.vlan).ok_or(Declined::Path)?;
    if link_port.vlan.outer.is_some() {
        return Err(Declined::Path);
    }
    let key = ask.incoming(direction);
    let mut items = inside.around(link_port, false);
    items.push(Item::Eth { dst: None });
    items.extend(five_tuple(&key));
    let mut actions = Actions::new();
    actions.push(Action::Decap(inside.kind));
    actions.extend(begin(false, age_s));
    edits(&mut actions, ask, direction, path, to.mac);
    if let Retag::On(vid) = tags {
        actions.extend([Action::PushVlan, Action::SetVlanVid(vid)]);
    }
    actions.push(Action::ToPort(to.ethdev));
    let attr = Attr { domain: Domain::Transfer, group: group_of(&key), priority: 0 };
    Ok(Rule { port: link_port.proxy, attr, items, actions, headers: Headers::new() })
}

/// As [`super::leg`], into a tunnel: what is done to a frame that leaves by the port is done, and then it
/// is put into an outer packet. `items`: the pattern, but for the traffic class that the outer header is
/// made for.
pub(super) fn into(
    topology: &Topology,
    ask: &Ask,
    direction: Direction,
    path: &Leg,
    [from, to]: [&PortFacts; 2],
    age_s: Option<u32>,
) -> Result<Rule, Declined> {
    let link_port = to.tunnel.and_then(|tunnel| topology.port(tunnel.link)).ok_or(Declined::Tunnel)?;
    let around = ask.tunnel.as_ref().ok_or(Declined::Tunnel)?;
    let below = around.below().ok_or(Declined::Tunnel)?;
    if topology.way(path.ingress, path.egress) != Some(Way::Eswitch) {
        return Err(Declined::Tunnel);
    }
    if to.mtu < from.mtu {
        return Err(Declined::Mtu);
    }
    if from.vlan.outer.is_some() || link_port.vlan.outer.is_some() {
        return Err(Declined::Path);
    }
    let key = ask.incoming(direction);
    let (value, mask) = around.class();
    let mut actions = begin(from.vlan.inner.is_some(), age_s);
    edits(&mut actions, ask, direction, path, to.mac);
    actions.extend([Action::RawEncap, Action::ToPort(to.ethdev)]);
    Ok(Rule {
        port: from.proxy,
        attr: Attr { domain: Domain::Transfer, group: super::group_of(&key), priority: 0 },
        items: super::connection(from, Way::Eswitch, &key, Some(Masked { value, mask })),
        actions,
        headers: headers(link_port, below, around).ok_or(Declined::Tunnel)?,
    })
}

/// What connections are told apart by.
fn five_tuple(key: &FlowKey) -> ArrayVec<Item, 2> {
    let (src, dst) = (Some(key.src_port), Some(key.dst_port));
    let network = if key.dst.is_v4() {
        let [src, dst] = [key.src, key.dst].map(|ip| Some(ip.low32()));
        Item::Ipv4 { src, dst, class: None, ttl: None }
    } else {
        Item::Ipv6 { src: Some(key.src), dst: Some(key.dst), class: None, hop_limit: None }
    };
    let transport = match key.protocol {
        Protocol::Tcp => Item::Tcp { src, dst, flags: Some(Masked { value: 0, mask: TCP_CONTROL }) },
        Protocol::Udp => Item::Udp { src, dst },
    };
    ArrayVec::from([network, transport])
}
