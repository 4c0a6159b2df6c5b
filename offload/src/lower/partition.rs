//! The rule of a source partition: what the worker does with each of its packets, by a mask.
//!
//! It is in the group of connections of its kind, behind their rules, so that group 0 and a fence hold
//! for it, too. It has no flags of TCP in its pattern, as no connection is kept, and does not age.

use super::{Headers, Retag, Topology, Way, begin, edits_of_dsr, group_of, link};
use crate::rule::{Action, Attr, Domain, Item, Masked, Rule};
use arrayvec::ArrayVec;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::PortId;
use dataplane::offload::{Declined, Leg};

/// Packets of a partition, to one port of the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parted {
    /// Any client of it to the VIP, whose address says no more than the partition.
    pub key: FlowKey,
    /// How many bits of the client's address that takes.
    pub bits: u8,
    /// The way to the backend.
    pub leg: Leg,
}

/// Whether the eSwitch takes packets from one port to the other. A port behind a tunnel has the device of
/// another, whose packets are not its own: those go to software.
pub(crate) fn crosses(topology: &Topology, ingress: PortId, egress: PortId) -> bool {
    let plain = |port| topology.port(port).is_some_and(|facts| facts.tunnel.is_none());
    plain(ingress) && plain(egress) && topology.way(ingress, egress) == Some(Way::Eswitch)
}

/// The rule for a partition.
///
/// # Errors
/// [`Declined::Path`] or [`Declined::Mtu`]: hardware cannot do it.
pub fn partition(topology: &Topology, parted: &Parted) -> Result<Rule, Declined> {
    let Parted { key, bits, leg } = *parted;
    let (Some(from), Some(to)) = (topology.port(leg.ingress), topology.port(leg.egress)) else {
        return Err(Declined::Path);
    };
    if !crosses(topology, leg.ingress, leg.egress) {
        return Err(Declined::Path);
    }
    if to.mtu < from.mtu {
        return Err(Declined::Mtu);
    }
    let tags = Retag::between(from.vlan, to.vlan).ok_or(Declined::Path)?;
    let mask = (1u32 << bits) - 1;
    let src = Masked { value: key.src.low32() & mask, mask };
    let mut items = ArrayVec::new();
    items.push(Item::RepresentedPort(from.ethdev));
    items.extend(link(from, None));
    items.push(if key.dst.is_v4() {
        Item::Ipv4From { src, dst: key.dst.low32() }
    } else {
        Item::Ipv6From { src, dst: key.dst }
    });
    let dst = Some(key.dst_port);
    items.push(match key.protocol {
        Protocol::Tcp => Item::Tcp { src: None, dst, flags: None },
        Protocol::Udp => Item::Udp { src: None, dst },
    });
    let mut actions = begin(tags == Retag::Off, None);
    if let Retag::Other(vid) = tags {
        actions.push(Action::SetVlanVid(vid));
    }
    edits_of_dsr(&mut actions, &leg, to.mac);
    if let Retag::On(vid) = tags {
        actions.extend([Action::PushVlan, Action::SetVlanVid(vid)]);
    }
    actions.push(Action::ToPort(to.ethdev));
    let attr = Attr { domain: Domain::Transfer, group: group_of(&key), priority: 1 };
    Ok(Rule { port: from.proxy, attr, items, actions, headers: Headers::new() })
}
