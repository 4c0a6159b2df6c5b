//! Ports behind tunnels: which one a frame from a tunnel is for, and what goes around those that leave.

use super::routes::Routes;
use super::{Encapsulation, Hop, Port, Tunnel, tunnel};
use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::ids::PortId;
use crate::rewrite::Outer;
use crate::wire::plain::Link;
use crate::wire::{ether, ipv4, ipv6, udp, vxlan};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

/// The link of a port whose frames travel inside those of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TunnelEnd {
    /// The port that the outer packets go by.
    pub link: PortId,
    /// What is around its frames: [`Encapsulation::Vxlan`] or [`Encapsulation::Geneve`].
    pub encapsulation: Encapsulation,
    /// The UDP port, on both ends.
    pub port: u16,
    /// The number of its network.
    pub vni: u32,
    /// The far end. Without it frames come from anywhere, and none is sent.
    pub remote: Option<Ip>,
}

impl TunnelEnd {
    /// Bytes that a packet grows by.
    #[must_use]
    pub const fn overhead(&self) -> u16 {
        let network = match self.remote {
            Some(remote) if !remote.is_v4() => ipv6::LEN,
            _ => ipv4::LEN,
        };
        (network + udp::LEN + vxlan::LEN + ether::LEN) as u16
    }

    /// The MAC address of the port, if nobody says otherwise: that of the port below, made local and another
    /// one for each network.
    #[must_use]
    pub const fn derived_mac(&self, below: MacAddr) -> MacAddr {
        let [a, b, c, d, e, f] = below.0;
        let [_, x, y, z] = self.vni.to_be_bytes();
        let kind = self.encapsulation as u8;
        MacAddr([(a | 0x02) & !0x01, b, c ^ kind << 4, d ^ x, e ^ y, f ^ z])
    }
}

/// The way out of a port behind a tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IntoTunnel {
    /// What goes around each frame.
    pub outer: Outer,
    /// Where it goes then.
    pub hop: Hop,
    /// The address of ours that it comes from.
    pub from: Ip,
}

/// All ports behind tunnels.
#[derive(Clone, Debug, Default)]
pub(super) struct TunnelPorts {
    /// What comes to a UDP port of a port.
    kinds: HashMap<(PortId, u16), Encapsulation, FixedState>,
    /// The port for a network: from this far end, or from any.
    ports: HashMap<(PortId, u16, u32, Option<Ip>), PortId, FixedState>,
    /// The networks that there are ports for.
    networks: HashSet<(PortId, u16, u32), FixedState>,
    /// By [`PortId`]; empty without any such ports.
    ways: Vec<Option<Box<IntoTunnel>>>,
}

impl TunnelPorts {
    pub(super) fn new(ports: &[Port], routes: &Routes) -> TunnelPorts {
        let mut all = TunnelPorts::default();
        if ports.iter().all(|port| port.tunnel.is_none()) {
            return all;
        }
        for (port, id) in ports.iter().zip(0u16..) {
            all.ways.push(port.tunnel.and_then(|end| way(&end, ports, routes)).map(Box::new));
            let Some(end) = port.tunnel else { continue };
            all.kinds.insert((end.link, end.port), end.encapsulation);
            all.ports.insert((end.link, end.port, end.vni, end.remote), PortId(id));
            all.networks.insert((end.link, end.port, end.vni));
        }
        all
    }

    /// Whether there are any.
    #[inline]
    pub(super) fn are_some(&self) -> bool {
        !self.ways.is_empty()
    }

    /// The kind of tunnel that ends at this UDP port of a port.
    #[inline]
    pub(super) fn kind(&self, link: PortId, port: u16) -> Option<Encapsulation> {
        self.kinds.get(&(link, port)).copied()
    }

    /// The port for a frame of this network from that far end.
    #[inline]
    pub(super) fn find(&self, link: PortId, port: u16, vni: u32, from: Ip) -> Result<PortId, DropReason> {
        let of = |remote| self.ports.get(&(link, port, vni, remote)).copied();
        of(Some(from)).or_else(|| of(None)).ok_or_else(|| {
            let known = self.networks.contains(&(link, port, vni));
            if known { DropReason::TunnelRemote } else { DropReason::TunnelNetwork }
        })
    }

    /// The way out of a port, if it is behind a tunnel and has one.
    #[inline]
    pub(super) fn way(&self, port: PortId) -> Option<&IntoTunnel> {
        self.ways.get(port.index())?.as_deref()
    }

    /// The next hops towards all far ends.
    pub(super) fn hops(&self) -> impl Iterator<Item = Hop> {
        self.ways.iter().flatten().map(|way| way.hop)
    }
}

/// The way to the far end by the port below; none leads through another one.
fn way(end: &TunnelEnd, ports: &[Port], routes: &Routes) -> Option<IntoTunnel> {
    let (remote, link) = (end.remote?, ports.get(end.link.index())?);
    let hop = routes.lookup(link.tenant, remote).filter(|hop| hop.port == end.link)?;
    let from = tunnel::source(link, hop, remote)?;
    let TunnelEnd { encapsulation, port, vni, .. } = *end;
    let tunnel = Tunnel { port, vni, ..Tunnel::new(encapsulation) };
    Some(IntoTunnel { outer: Outer::of_frames(&tunnel, from, remote), hop, from })
}

/// What plain packets need to know of each port.
pub(super) fn links(ports: &[Port]) -> Vec<Link> {
    let below: HashSet<PortId, FixedState> =
        ports.iter().filter_map(|port| Some(port.tunnel?.link)).collect();
    let link = |(port, id): (&Port, u16)| {
        let link = Link::new(port.mac, port.vlan, port.mtu, port.tenant);
        let leads_on = below.contains(&PortId(id));
        let link = if leads_on { link.with_tunnels() } else { link };
        if port.tunnel.is_some() { link.into_tunnel() } else { link }
    };
    ports.iter().zip(0u16..).map(link).collect()
}
