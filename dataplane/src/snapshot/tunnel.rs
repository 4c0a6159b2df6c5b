//! Tunnels towards backends: what goes around a packet, and from where to where.

use super::{Backend, Hop, Mode, Port, Service};
use crate::addr::{Ip, MacAddr};
use crate::rewrite::Outer;
use crate::wire::{geneve, gue, vxlan};

/// What is put around a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encapsulation {
    /// An IP header alone (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// IP, UDP and a GUE header.
    Gue,
    /// IP, UDP, VXLAN and an Ethernet header (RFC 7348).
    Vxlan,
    /// IP, UDP, GENEVE and an Ethernet header (RFC 8926).
    Geneve,
}

impl Encapsulation {
    /// All of them, in declaration order.
    pub const ALL: [Encapsulation; 4] =
        [Encapsulation::Ipip, Encapsulation::Gue, Encapsulation::Vxlan, Encapsulation::Geneve];

    /// The name used in the configuration and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Encapsulation::Ipip => "ipip",
            Encapsulation::Gue => "gue",
            Encapsulation::Vxlan => "vxlan",
            Encapsulation::Geneve => "geneve",
        }
    }

    /// The UDP port that IANA assigned, where there is UDP.
    #[must_use]
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Encapsulation::Ipip => None,
            Encapsulation::Gue => Some(gue::PORT),
            Encapsulation::Vxlan => Some(vxlan::PORT),
            Encapsulation::Geneve => Some(geneve::PORT),
        }
    }

    /// Whether what is inside is an Ethernet frame of a numbered network, and not a bare IP packet.
    #[must_use]
    pub const fn has_ethernet(self) -> bool {
        matches!(self, Encapsulation::Vxlan | Encapsulation::Geneve)
    }
}

/// How packets are wrapped for the backends of a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tunnel {
    /// In what.
    pub encapsulation: Encapsulation,
    /// Destination port of the outer UDP header, if there is one.
    pub port: u16,
    /// Number of the network, if the encapsulation has one.
    pub vni: u32,
    /// Destination of the inner Ethernet header, if there is one.
    pub inner_mac: MacAddr,
    /// DSCP of the outer header; `None` copies the packet's. ECN is always the packet's (RFC 6040).
    pub dscp: Option<u8>,
    /// Whether the outer UDP header over IPv6 has a checksum. Over IPv4 it has none.
    pub udp6_checksum: bool,
}

impl Tunnel {
    /// With the values that the configuration need not set.
    #[must_use]
    pub const fn new(encapsulation: Encapsulation) -> Tunnel {
        let port = match encapsulation.default_port() {
            Some(port) => port,
            None => 0,
        };
        Tunnel { encapsulation, port, vni: 0, inner_mac: MacAddr([0; 6]), dscp: None, udp6_checksum: true }
    }
}

/// The headers for packets to the backends, by their slots; nothing if no service has a tunnel. A backend
/// that could not be answered for want of an address of ours has no way.
pub(super) fn outers(
    services: &[Option<Service>],
    backends: &mut [Option<Backend>],
    ports: &[Port],
) -> Vec<Option<Box<Outer>>> {
    let tunnelled = |service: &Service| matches!(service.mode, Mode::Tunnel(_));
    if !services.iter().flatten().any(tunnelled) {
        return Vec::new();
    }
    let mut outers = Vec::with_capacity(backends.len());
    for slot in backends {
        let outer = slot.as_mut().and_then(|backend| {
            let service = services.get(backend.service.index())?.as_ref()?;
            let Mode::Tunnel(tunnel) = service.mode else { return None };
            let outer = backend.hop.and_then(|hop| outer(&tunnel, service.vip, backend.address, hop, ports));
            if outer.is_none() {
                backend.hop = None;
            }
            outer.map(Box::new)
        });
        outers.push(outer);
    }
    outers
}

fn outer(tunnel: &Tunnel, vip: Ip, to: Ip, hop: Hop, ports: &[Port]) -> Option<Outer> {
    let port = ports.get(hop.port.index())?;
    Some(Outer::new(tunnel, source(port, hop, to)?, to, vip.is_v4(), port.mac))
}

/// The address of ours that a tunnel begins at: one of the link that it leaves by.
pub(super) fn source(port: &Port, hop: Hop, to: Ip) -> Option<Ip> {
    let same_link = port.addresses.iter().find(|prefix| prefix.contains(hop.next_hop));
    let same_family = |prefix: &&crate::addr::Prefix| prefix.address.is_v4() == to.is_v4();
    let found = same_link.filter(same_family).or_else(|| port.addresses.iter().find(same_family));
    found.map(|prefix| prefix.address)
}
