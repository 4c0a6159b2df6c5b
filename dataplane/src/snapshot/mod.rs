//! What a worker forwards by: an immutable value, built on the control thread from a validated
//! [`crate::config::Config`], shared by all workers and replaced as a whole at a burst boundary.
//!
//! This page has the types and the questions a worker asks of them. `vips` and `routes` are the indexes
//! that answer quickly; `build` makes a snapshot out of a configuration.

mod build;
mod denials;
mod lans;
mod meters;
mod queries;
mod routes;
mod standing;
mod tables;
#[cfg(test)]
mod tests;
mod tunnel;
mod tunnel_ports;
mod vips;

use crate::addr::{Ip, MacAddr, Prefix};
use crate::config::Health;
use crate::drops::DropReason;
use crate::flow::Protocol;
use crate::ids::{BackendId, PortId, ServiceId, TenantId};
use crate::maglev::MaglevError;
use crate::policy::{self, Policy, PolicyError};
use crate::rewrite::Outer;
use crate::wire::plain::Link;
use core::ops::RangeInclusive;
pub use denials::Denial;
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use lans::Lans;
use meters::Meters;
use routes::Routes;
use std::sync::Arc;
use tunnel_ports::TunnelPorts;
use vips::{Endpoint, Endpoints};

pub use build::{Overrides, PortFacts};
pub use meters::Metered;
pub use standing::{Standing, Standings};
pub use tunnel::{Encapsulation, Tunnel};
pub use tunnel_ports::{IntoTunnel, TunnelEnd};

/// How a packet gets from us to its backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Direct server return: only the destination MAC changes; the backend has the VIP on its loopback
    /// and answers the client without us.
    Dsr,
    /// Destination NAT: the backend's address and port replace the VIP's, and replies come back
    /// through us.
    Nat,
    /// The packet is put into another one, addressed to the backend, which has the VIP on its end of the
    /// tunnel and answers the client without us.
    Tunnel(Tunnel),
}

/// What keeps going to the same backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Affinity {
    /// A connection (5-tuple).
    Connection,
    /// All connections of a client address.
    Client,
    /// Nothing: each UDP datagram is scheduled on its own and no connection is kept.
    None,
    /// All clients whose addresses have the same low bits, and no connection is kept: see
    /// [`crate::partition`].
    Partition {
        /// How many bits.
        bits: u8,
    },
}

impl Affinity {
    /// Whether packets belong to connections that are kept.
    #[inline]
    #[must_use]
    pub const fn keeps_connections(self) -> bool {
        matches!(self, Affinity::Connection | Affinity::Client)
    }
}

/// What happens to the live connections of a backend that the configuration no longer names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnRemove {
    /// They go on until they end.
    Drain,
    /// They are ended: TCP clients get a RST at the next packet of either end.
    Reset,
}

/// Where the connections of backends that drain are forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Draining {
    /// By software: they leave hardware, so that it can be serviced together with the backend.
    #[default]
    Software,
    /// Wherever they are worth it, like those of other backends.
    Hardware,
}

/// Idle timeouts by state, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timeouts {
    /// TCP, SYN seen but handshake not complete.
    pub tcp_half_open_ms: u32,
    /// TCP, established.
    pub tcp_established_ms: u32,
    /// TCP, one or both sides have sent FIN, not all of it acknowledged.
    pub tcp_closing_ms: u32,
    /// TCP, closed by both sides.
    pub tcp_time_wait_ms: u32,
    /// TCP, after a RST.
    pub tcp_reset_ms: u32,
    /// UDP, only the client has sent, or it has been silent since the first answer.
    pub udp_unreplied_ms: u32,
    /// UDP, the client has sent again after an answer (under `dsr`: again).
    pub udp_replied_ms: u32,
}

impl Default for Timeouts {
    /// Established: 2 h 4 min (RFC 5382 REQ-5). UDP: 2 min (RFC 4787 REQ-5). Others as peers do.
    fn default() -> Timeouts {
        Timeouts {
            tcp_half_open_ms: 10_000,
            tcp_established_ms: 7_440_000,
            tcp_closing_ms: 120_000,
            tcp_time_wait_ms: 10_000,
            tcp_reset_ms: 5_000,
            udp_unreplied_ms: 30_000,
            udp_replied_ms: 120_000,
        }
    }
}

/// The VLAN tags frames carry on a port: none, one 802.1Q VID, or an 802.1ad outer VID and an inner one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VlanTags {
    /// Outer service tag (TPID 0x88a8). Only with `inner`.
    pub outer: Option<u16>,
    /// Customer tag (TPID 0x8100).
    pub inner: Option<u16>,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Name in the configuration.
    pub name: String,
    /// The port whose device it is on, told apart by `vlan` or `tunnel`; `None` with one of its own.
    pub parent: Option<PortId>,
    /// The tunnel that its frames travel by, if any.
    pub tunnel: Option<TunnelEnd>,
    /// The MAC address we send from and listen to.
    pub mac: MacAddr,
    /// Largest IP packet that fits, bytes.
    pub mtu: u16,
    /// Our addresses on the link, each with its on-link prefix.
    pub addresses: Vec<Prefix>,
    /// Our IPv6 link-local address, formed from `mac`: see [`link_local`].
    pub link_local: Ip,
    /// The tags our frames carry.
    pub vlan: VlanTags,
    /// The tenant of everything received here.
    pub tenant: TenantId,
    /// Where frames go, unchanged, that are none of our business (bump in the wire); dropped otherwise.
    pub pass_to: Option<PortId>,
    /// Which way connections are opened by what is received here and passed on.
    pub opens: policy::Way,
}

/// What a tenant may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tenant {
    /// Connections, over all workers; `None`: as many as there is room for.
    pub connections: Option<u32>,
    /// How many of them may be half-open, percent; `None`: as many as the table allows.
    pub half_open_percent: Option<u8>,
    /// Which share of the rules in hardware it may have, percent; `None`: as large a one as any other.
    pub offload_share_percent: Option<u8>,
}

/// A neighbour that is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticNeighbour {
    /// On this port,
    pub port: PortId,
    /// this address
    pub address: Ip,
    /// is at this MAC.
    pub mac: MacAddr,
}

/// Where a packet leaves, and whom it is handed to on that link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    /// The egress port.
    pub port: PortId,
    /// The neighbour whose MAC is needed: a gateway, or the destination itself.
    pub next_hop: Ip,
}

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destinations.
    pub to: Prefix,
    /// Egress port.
    pub port: PortId,
    /// The gateway; `None` when the destination is on the link.
    pub via: Option<Ip>,
}

/// Whether a backend takes new connections, and what becomes of its old ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BackendState {
    /// In the Maglev table.
    Active,
    /// Weight 0 or drained by the operator: keeps its connections, gets no new ones.
    Draining,
    /// Its health checks fail: it gets no new connections. Its old ones go on, or are treated like those of
    /// a removed one.
    Down(OnRemove),
    /// No longer configured; its connections are treated as the service's [`OnRemove`] said.
    Removed(OnRemove),
}

/// One backend of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Its slot.
    pub id: BackendId,
    /// The service it serves.
    pub service: ServiceId,
    /// Address.
    pub address: Ip,
    /// Port; `None` keeps the VIP's port (always under `dsr`).
    pub port: Option<u16>,
    /// Configured weight.
    pub weight: u32,
    /// Of the new connections that its weight promises, percent: below 100 while it starts slowly.
    pub share_percent: u8,
    /// See [`BackendState`].
    pub state: BackendState,
    /// How to get there; `None` without a route.
    pub hop: Option<Hop>,
}

/// One service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its slot.
    pub id: ServiceId,
    /// Unique name.
    pub name: String,
    /// Whose.
    pub tenant: TenantId,
    /// The virtual address.
    pub vip: Ip,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Ports, disjoint.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Forwarding mode.
    pub mode: Mode,
    /// Affinity.
    pub affinity: Affinity,
    /// Refuse TCP segments without SYN that belong to no connection.
    pub strict: bool,
    /// For backends that go.
    pub on_remove: OnRemove,
    /// Whether its connections may be forwarded by hardware.
    pub offload: bool,
    /// No longer configured: kept while its backends may have connections. It still owns its address,
    /// so that those connections' packets keep arriving, but nothing is classified to it.
    pub removed: bool,
    /// How its backends are checked, if they are.
    pub health: Option<Arc<Health>>,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// The Maglev lookup table: hash modulo its length gives a backend; or, of [`Affinity::Partition`], the
    /// backend of each partition. Empty when no backend takes new connections.
    pub lookup: Arc<[BackendId]>,
}

impl Service {
    /// The backend for a new connection whose [`crate::maglev::flow_hash`] or
    /// [`crate::maglev::client_hash`] is `hash`; `None` when no backend takes new connections.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64) -> Option<BackendId> {
        let slot = hash.checked_rem(self.lookup.len() as u64)?;
        self.lookup.get(slot as usize).copied()
    }

    /// Whether `port` is one of the service's.
    #[inline]
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }
}

/// What goes into a [`Snapshot`], before it is indexed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parts {
    /// One more than the snapshot's before.
    pub generation: u64,
    /// By [`PortId`].
    pub ports: Vec<Port>,
    /// By [`ServiceId`].
    pub services: Vec<Option<Service>>,
    /// By [`BackendId`].
    pub backends: Vec<Option<Backend>>,
    /// Neighbours that are not asked for.
    pub static_neighbours: Vec<StaticNeighbour>,
    /// Routes besides those to the ports' own links. Of several to one prefix the first counts.
    pub routes: Vec<Route>,
    /// Where connections of draining backends are forwarded.
    pub offload_draining: Draining,
    /// What is let through.
    pub policy: Arc<Policy>,
    /// By [`TenantId`].
    pub tenants: Arc<[Tenant]>,
}

/// Why no snapshot could be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    /// Two services claim the same address, protocol and port.
    #[error("services `{0}` and `{1}` overlap: same address, protocol and port")]
    ServicesOverlap(String, String),
    /// Replies of two services without connections cannot be told apart.
    #[error(
        "services `{0}` and `{1}` keep no connections and share a backend address and port: \
         its replies could belong to either"
    )]
    RepliesOverlap(String, String),
    /// Removed services that still have connections hold too many of the slots.
    #[error("no free slot for a service; removed ones hold theirs until their connections end")]
    TooManyServices,
    /// Removed backends that still have connections hold too many of the slots. Half of the change at a
    /// time needs fewer.
    #[error("no free slot for a backend; removed ones hold theirs until their connections end")]
    TooManyBackends,
    /// The ports found are not those of the configuration.
    #[error("{configured} ports are configured, {found} were found")]
    Ports {
        /// In the configuration.
        configured: usize,
        /// On the machine.
        found: usize,
    },
    /// No lookup table for a service.
    #[error("service `{service}`: {error}")]
    Maglev {
        /// Its name.
        service: String,
        /// Why.
        error: MaglevError,
    },
    /// No policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What a worker forwards by.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with each snapshot.
    pub generation: u64,
    /// By [`PortId`].
    pub ports: Vec<Port>,
    /// By [`ServiceId`].
    pub services: Vec<Option<Service>>,
    /// By [`BackendId`].
    pub backends: Vec<Option<Backend>>,
    /// Neighbours that are not asked for.
    pub static_neighbours: Vec<StaticNeighbour>,
    /// Where connections of draining backends are forwarded.
    pub offload_draining: Draining,
    policy: Arc<Policy>,
    /// By [`TenantId`].
    pub tenants: Arc<[Tenant]>,
    meters: Meters,
    vips: HashSet<(TenantId, Ip), FixedState>,
    endpoints: Endpoints<ServiceId>,
    /// Replies of services that keep no connections; they must be told apart.
    stateless: Endpoints<ReplySource>,
    /// Replies of the others, where they can be told apart.
    tracked: Endpoints<ReplySource>,
    routes: Routes,
    next_hops: HashSet<Hop, FixedState>,
    /// The same in a row, so that a worker can take them up some at a time.
    hops: Box<[Hop]>,
    announced: Box<[(PortId, Ip)]>,
    /// The ways to backends of partitions.
    parted_hops: Box<[Hop]>,
    /// The addresses of our ports.
    own: HashSet<(TenantId, Ip), FixedState>,
    /// Whether any backends are checked.
    probes: bool,
    /// Who answers their probes.
    probed: HashSet<(TenantId, Ip), FixedState>,
    resets: bool,
    /// What plain packets need of `ports`, and of `backends`, in few lines: see [`Snapshot::link`].
    links: Vec<Link>,
    lans: Lans,
    tunnel_ports: TunnelPorts,
    ways: Vec<Way>,
    /// By [`BackendId`]: what is put around packets. Empty if no service has a tunnel.
    tunnels: Vec<Option<Box<Outer>>>,
}

/// What becomes of packets of a backend's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// That takes a closer look: their connections have ended, there is no route, or there is a tunnel.
    NotPlain,
    /// They go on: those for the backend by this hop.
    Open(Hop),
}

/// Where a reply of a `nat` service comes from.
#[derive(Clone, Copy, Debug)]
struct ReplySource {
    backend: BackendId,
    service: ServiceId,
    /// `None` when backends keep the VIP's port.
    vip_port: Option<u16>,
}

impl Way {
    fn of(backend: &Backend, tunnelled: bool) -> Way {
        match backend.hop {
            Some(hop) if !tunnelled && !backend.state.resets() => Way::Open(hop),
            _ => Way::NotPlain,
        }
    }
}

/// By backend, given what is put around packets for each.
fn ways(backends: &[Option<Backend>], tunnels: &[Option<Box<Outer>>]) -> Vec<Way> {
    let tunnelled = |at: usize| tunnels.get(at).is_some_and(Option::is_some);
    let way = |(at, backend): (usize, &Option<Backend>)| {
        backend.as_ref().map_or(Way::NotPlain, |backend| Way::of(backend, tunnelled(at)))
    };
    backends.iter().enumerate().map(way).collect()
}

impl Snapshot {
    /// Indexes `parts`. Each backend's `hop` is set here, from the routes.
    ///
    /// # Errors
    ///
    /// When two services cannot be told apart.
    pub fn assemble(parts: Parts) -> Result<Snapshot, BuildError> {
        let Parts { generation, ports, services, mut backends, static_neighbours, .. } = parts;
        let Parts { routes, offload_draining, policy, tenants, .. } = parts;
        let name = |id: ServiceId| services[id.index()].as_ref().map_or_else(String::new, |s| s.name.clone());
        let endpoints = Endpoints::new(service_endpoints(&services))
            .map_err(|(a, b)| BuildError::ServicesOverlap(name(a), name(b)))?;
        let keeps_some = |service: &Service| service.affinity.keeps_connections();
        let keeps_none = |service: &Service| !keeps_some(service);
        let tracked = Endpoints::unambiguous(reply_endpoints(&services, &backends, keeps_some));
        let stateless = Endpoints::new(reply_endpoints(&services, &backends, keeps_none))
            .map_err(|(a, b)| BuildError::RepliesOverlap(name(a.service), name(b.service)))?;
        let vips = services.iter().flatten().map(|service| (service.tenant, service.vip)).collect();
        let routes = Routes::new(scoped_routes(&ports, &routes));
        for backend in backends.iter_mut().flatten() {
            let service = services.get(backend.service.index()).and_then(Option::as_ref);
            backend.hop = service.and_then(|service| routes.lookup(service.tenant, backend.address));
        }
        let tunnels = tunnel::outers(&services, &mut backends, &ports);
        let tunnel_ports = TunnelPorts::new(&ports, &routes);
        let to_backends = backends.iter().flatten().filter_map(|backend| backend.hop);
        let named = routes.gateways().chain(to_backends).chain(tunnel_ports.hops());
        let next_hops: HashSet<Hop, FixedState> = named.collect();
        let hops = next_hops.iter().copied().collect();
        let parted_hops = queries::parted_hops(&services, &backends);
        let announced = queries::announced(&ports, &services).collect();
        let resets = backends.iter().flatten().any(|backend| backend.state.resets());
        let own = queries::own(&ports).collect();
        let probed = queries::probed(&services, &backends).collect();
        let probes = services.iter().flatten().any(|service| service.health.is_some() && !service.removed);
        let links = tunnel_ports::links(&ports);
        let lans = Lans::new(&ports);
        let ways = ways(&backends, &tunnels);
        Ok(Snapshot {
            generation,
            ports,
            services,
            backends,
            static_neighbours,
            offload_draining,
            policy,
            tenants,
            meters: Meters::default(),
            vips,
            endpoints,
            stateless,
            tracked,
            routes,
            next_hops,
            hops,
            announced,
            parted_hops,
            own,
            probes,
            probed,
            resets,
            links,
            lans,
            tunnel_ports,
            ways,
            tunnels,
        })
    }

    /// What is let through.
    #[inline]
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The port `id`.
    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())
    }

    /// What a plain packet needs to know of the port `id`.
    #[inline]
    #[must_use]
    pub fn link(&self, id: PortId) -> Option<&Link> {
        self.links.get(id.index())
    }

    /// The port that a frame is for which the device of `port` received, if that is another: one on the same
    /// device whose tags it has.
    #[inline]
    #[must_use]
    pub fn lan(&self, port: PortId, frame: &[u8]) -> Option<PortId> {
        self.lans.find(port, frame)
    }

    /// Whether frames of `port` travel inside other packets.
    #[inline]
    #[must_use]
    pub fn is_behind_tunnel(&self, port: PortId) -> bool {
        self.port(port).is_some_and(|port| port.tunnel.is_some())
    }

    /// Whether any port is behind a tunnel.
    #[inline]
    #[must_use]
    pub fn has_tunnel_ports(&self) -> bool {
        self.tunnel_ports.are_some()
    }

    /// What takes frames that leave by `port` into its tunnel, if it is behind one and the far end is known.
    #[inline]
    #[must_use]
    pub fn into_tunnel(&self, port: PortId) -> Option<&IntoTunnel> {
        self.tunnel_ports.way(port)
    }

    /// The kind of tunnel that ends at this UDP port of `port`, if any does.
    #[inline]
    #[must_use]
    pub fn tunnel_at(&self, port: PortId, udp_port: u16) -> Option<Encapsulation> {
        self.tunnel_ports.kind(port, udp_port)
    }

    /// The port for a frame of network `vni` that came out of such a tunnel, from the far end `from`.
    ///
    /// # Errors
    /// Whether it is the network that no port has, or the far end.
    #[inline]
    pub fn tunnel_port(&self, port: PortId, udp_port: u16, vni: u32, from: Ip) -> Result<PortId, DropReason> {
        self.tunnel_ports.find(port, udp_port, vni, from)
    }

    /// Whether there may be IPv6 connections.
    #[must_use]
    pub fn serves_ipv6(&self) -> bool {
        self.services.iter().flatten().any(|service| !service.vip.is_v4())
    }

    /// The service in slot `id`.
    #[inline]
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.index())?.as_ref()
    }

    /// The backend in slot `id`.
    #[inline]
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(id.index())?.as_ref()
    }

    /// The service that a packet of `tenant` to this address, protocol and port is for.
    #[inline]
    #[must_use]
    pub fn classify(&self, tenant: TenantId, ip: Ip, protocol: Protocol, port: u16) -> Option<&Service> {
        self.service(self.endpoints.get(tenant, ip, protocol, port)?)
    }

    /// Whether `ip` is the virtual address of any service of `tenant`: then we own it, and answer ARP,
    /// neighbour discovery and echo requests for it.
    #[inline]
    #[must_use]
    pub fn is_vip(&self, tenant: TenantId, ip: Ip) -> bool {
        self.vips.contains(&(tenant, ip))
    }

    /// Whether `ip` is our own address on `port`, the link-local one included.
    #[inline]
    #[must_use]
    pub fn is_local(&self, port: PortId, ip: Ip) -> bool {
        self.port(port).is_some_and(|port| {
            port.link_local == ip || port.addresses.iter().any(|prefix| prefix.address == ip)
        })
    }

    /// Whose answer a packet from this address and port is, if its connection is not known: the `nat`
    /// service, the backend, and the VIP's port to answer from. Always found for a service that keeps
    /// no connections; for the others only if no second service has the same backend, address and port.
    #[inline]
    #[must_use]
    pub fn reply_of(
        &self,
        tenant: TenantId,
        src: Ip,
        src_port: u16,
        protocol: Protocol,
    ) -> Option<(&Service, &Backend, u16)> {
        let stateless = self.stateless.get(tenant, src, protocol, src_port);
        let reply = stateless.or_else(|| self.tracked.get(tenant, src, protocol, src_port))?;
        let (service, backend) = (self.service(reply.service)?, self.backend(reply.backend)?);
        Some((service, backend, reply.vip_port.unwrap_or(src_port)))
    }

    /// The way to `ip` for packets of `tenant`, by longest prefix: the links of the tenant's ports, then
    /// configured routes. Link-local addresses are not routed: they mean nothing without a port.
    #[inline]
    #[must_use]
    pub fn route(&self, tenant: TenantId, ip: Ip) -> Option<Hop> {
        if is_link_local(ip) { None } else { self.routes.lookup(tenant, ip) }
    }

    /// The next hops that the configuration names: gateways, and the way to each backend. All others are
    /// chosen by packets.
    pub fn next_hops(&self) -> &[Hop] {
        &self.hops
    }

    /// Whether `hop` is one of [`Snapshot::next_hops`].
    #[must_use]
    pub fn names(&self, hop: Hop) -> bool {
        self.next_hops.contains(&hop)
    }

    /// The address of ours to speak to `peer` from on `port` (ARP, neighbour discovery, ICMP): one of
    /// the same prefix; else any of the same family; for IPv6 at the last the link-local one, which is
    /// also the first choice for a link-local peer.
    #[inline]
    #[must_use]
    pub fn source_for(&self, port: PortId, peer: Ip) -> Option<Ip> {
        let port = self.port(port)?;
        if is_link_local(peer) {
            return Some(port.link_local);
        }
        let same_link = port.addresses.iter().find(|prefix| prefix.contains(peer));
        let same_family = || port.addresses.iter().find(|p| p.address.is_v4() == peer.is_v4());
        let address = same_link.or_else(same_family).map(|prefix| prefix.address);
        address.or_else(|| (!peer.is_v4()).then_some(port.link_local))
    }
}

/// The IPv6 link-local address of an interface: `fe80::/64` and the modified EUI-64 of its MAC
/// (RFC 4291 §2.5.6 and appendix A).
#[must_use]
pub const fn link_local(mac: MacAddr) -> Ip {
    let [a, b, c, d, e, f] = mac.0;
    Ip::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether `ip` is in `fe80::/10`.
#[inline]
fn is_link_local(ip: Ip) -> bool {
    ip.words()[0] >> 54 == 0xfe80 >> 6
}

fn service_endpoints(services: &[Option<Service>]) -> Vec<Endpoint<ServiceId>> {
    let configured = services.iter().flatten().filter(|service| !service.removed);
    let of = |service: &Service, ports: &RangeInclusive<u16>| Endpoint {
        tenant: service.tenant,
        ip: service.vip,
        protocol: service.protocol,
        ports: ports.clone(),
        value: service.id,
    };
    configured.flat_map(|service| service.ports.iter().map(move |ports| of(service, ports))).collect()
}

/// Where the replies of `nat` services come from, of those services that are `wanted`.
fn reply_endpoints(
    services: &[Option<Service>],
    backends: &[Option<Backend>],
    wanted: impl Fn(&Service) -> bool,
) -> Vec<Endpoint<ReplySource>> {
    let mut endpoints = Vec::new();
    for backend in backends.iter().flatten() {
        let Some(service) = services.get(backend.service.index()).and_then(Option::as_ref) else { continue };
        // A removed backend's last replies are given up: its endpoint may be another service's already.
        let removed = matches!(backend.state, BackendState::Removed(_));
        if removed || service.mode != Mode::Nat || !wanted(service) {
            continue;
        }
        let one_port = matches!(&service.ports[..], [ports] if ports.start() == ports.end());
        if backend.port.is_some() && !one_port {
            // The backend's port could stand for any of the VIP's.
            continue;
        }
        for ports in &service.ports {
            let vip_port = backend.port.map(|_| *ports.start());
            endpoints.push(Endpoint {
                tenant: service.tenant,
                ip: backend.address,
                protocol: service.protocol,
                ports: backend.port.map_or_else(|| ports.clone(), |port| port..=port),
                value: ReplySource { backend: backend.id, service: service.id, vip_port },
            });
        }
    }
    endpoints
}

/// All routes with the tenant they serve, which is their port's: links first, so that they win over a
/// configured route to the same prefix.
fn scoped_routes(ports: &[Port], routes: &[Route]) -> impl Iterator<Item = (TenantId, Route)> {
    let links = ports.iter().enumerate().flat_map(|(index, port)| {
        let to_link = move |&to: &Prefix| Route { to, port: PortId(index as u16), via: None };
        port.addresses.iter().map(to_link)
    });
    let scoped = |route: Route| Some((ports.get(route.port.index())?.tenant, route));
    links.chain(routes.iter().copied()).filter_map(scoped)
}
