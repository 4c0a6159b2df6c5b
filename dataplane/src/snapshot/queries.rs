//! Questions of the walk that combine several parts of a snapshot.

use super::{
    Affinity, Backend, BackendState, Draining, Hop, Mode, OnRemove, Port, Service, Snapshot, Timeouts, Way,
};
use crate::addr::Ip;
use crate::flow::Direction;
use crate::ids::{BackendId, PortId, ServiceId, TenantId};
use crate::rewrite::Outer;

impl Snapshot {
    /// Whether connections of this backend go on: it is configured, or drains.
    #[inline]
    #[must_use]
    pub fn keeps_connections(&self, backend: BackendId) -> bool {
        self.backend(backend).is_some_and(|backend| !backend.state.resets())
    }

    /// Where a packet of one of this backend's connections goes, `to` being its destination; `None` where
    /// that takes a closer look: the connections are to end, there is no route, or there is a tunnel.
    #[inline(always)] // As every packet comes here.
    pub(crate) fn way(
        &self,
        tenant: TenantId,
        backend: BackendId,
        direction: Direction,
        to: Ip,
    ) -> Option<Hop> {
        let Way::Open(hop) = *self.ways.get(backend.index())? else { return None };
        match direction {
            Direction::Original => Some(hop),
            Direction::Reply => self.route(tenant, to),
        }
    }

    /// What is put around packets for this backend, if its service reaches it through a tunnel.
    #[inline]
    #[must_use]
    pub fn tunnel(&self, backend: BackendId) -> Option<&Outer> {
        self.tunnels.get(backend.index())?.as_deref()
    }

    /// Whether hardware may forward connections of this service to this backend.
    #[inline]
    #[must_use]
    pub fn allows_offload(&self, service: ServiceId, backend: BackendId) -> bool {
        let backend = self.backend(backend).is_some_and(|backend| match backend.state {
            BackendState::Active | BackendState::Down(OnRemove::Drain) => true,
            BackendState::Draining | BackendState::Removed(OnRemove::Drain) => {
                self.offload_draining == Draining::Hardware
            }
            BackendState::Removed(OnRemove::Reset) | BackendState::Down(OnRemove::Reset) => false,
        });
        // What hardware forwards no meter of ours sees.
        backend
            && self.service(service).is_some_and(|service| service.offload)
            && self.hardware_meter(service).is_ok()
    }

    /// The idle timeouts of a service's connections; the defaults for a service that is gone.
    #[inline]
    #[must_use]
    pub fn timeouts(&self, service: ServiceId) -> Timeouts {
        self.service(service).map_or_else(Timeouts::default, |service| service.timeouts)
    }

    /// Whether `ip` is on the link of `port`: in a prefix of ours, or link-local.
    #[must_use]
    pub fn is_on_link(&self, port: PortId, ip: Ip) -> bool {
        super::is_link_local(ip)
            || self.port(port).is_some_and(|port| port.addresses.iter().any(|prefix| prefix.contains(ip)))
    }

    /// Every address we answer for, with the port to announce it on: the ports' own addresses, and
    /// their tenant's VIPs.
    #[must_use]
    pub fn announced(&self) -> &[(PortId, Ip)] {
        &self.announced
    }

    /// Whether `ip` is the address of one of the tenant's ports, and probes may come from there.
    #[inline]
    #[must_use]
    pub fn probes_from(&self, tenant: TenantId, ip: Ip) -> bool {
        self.probes && self.own.contains(&(tenant, ip))
    }

    /// Whether a packet with these ends may be an answer to a probe: `to` is ours, and `from` answers for
    /// some backend that is checked.
    #[inline]
    #[must_use]
    pub fn answers_probes(&self, tenant: TenantId, from: Ip, to: Ip) -> bool {
        self.probes_from(tenant, to) && self.probed.contains(&(tenant, from))
    }

    /// Where probes of one of the service's backends come from, which is reached by `hop` and asked at `to`:
    /// an address of ours on that link, else any of ours.
    #[must_use]
    pub fn probe_source(&self, service: &Service, hop: Hop, to: Ip) -> Option<Ip> {
        // A link-local one is of no use beyond the link.
        let fits = |ip: &Ip| ip.is_v4() == to.is_v4() && self.own.contains(&(service.tenant, *ip));
        let near =
            [hop.next_hop, to].into_iter().filter_map(|peer| self.source_for(hop.port, peer)).find(fits);
        near.or_else(|| own(&self.ports).map(|(_, ip)| ip).find(fits))
    }

    /// The ways to backends of services by source partition, each once.
    #[must_use]
    pub fn parted_hops(&self) -> &[Hop] {
        &self.parted_hops
    }

    /// Whether some backend was removed, or is down, and its connections are to be reset.
    #[must_use]
    pub fn resets(&self) -> bool {
        self.resets
    }
}

impl Service {
    /// The address that a probe of one of its backends asks, and that answers: the backend's, unless it
    /// has the VIP.
    #[must_use]
    pub fn probed(&self, backend: &Backend) -> Ip {
        match self.mode {
            Mode::Nat => backend.address,
            Mode::Dsr | Mode::Tunnel(_) => self.vip,
        }
    }
}

/// The addresses of all ports, with their tenants.
pub(super) fn own(ports: &[Port]) -> impl Iterator<Item = (TenantId, Ip)> {
    ports.iter().flat_map(|port| port.addresses.iter().map(|prefix| (port.tenant, prefix.address)))
}

/// See [`Snapshot::parted_hops`].
pub(super) fn parted_hops(services: &[Option<Service>], backends: &[Option<Backend>]) -> Box<[Hop]> {
    let mut seen = std::collections::HashSet::new();
    let parted =
        services.iter().flatten().filter(|service| matches!(service.affinity, Affinity::Partition { .. }));
    let ids = parted.flat_map(|service| service.lookup.iter());
    let hops = ids.filter_map(|id| backends.get(id.index())?.as_ref()?.hop);
    hops.filter(|hop| seen.insert(*hop)).collect()
}

/// Who answers probes: checked backends, by the address that is asked.
pub(super) fn probed(
    services: &[Option<Service>],
    backends: &[Option<Backend>],
) -> impl Iterator<Item = (TenantId, Ip)> {
    backends.iter().flatten().filter_map(|backend| {
        let service = services.get(backend.service.index())?.as_ref()?;
        service.health.as_ref().filter(|_| !service.removed)?;
        Some((service.tenant, service.probed(backend)))
    })
}

/// See [`Snapshot::announced`].
pub(super) fn announced(ports: &[Port], services: &[Option<Service>]) -> impl Iterator<Item = (PortId, Ip)> {
    ports.iter().zip(0u16..).flat_map(|(port, id)| {
        let own = port.addresses.iter().map(|prefix| prefix.address);
        let ours = services.iter().flatten().filter(|service| service.tenant == port.tenant);
        own.chain(ours.map(|service| service.vip)).map(move |ip| (PortId(id), ip))
    })
}
