//! From a configuration to a snapshot, on the control thread.
//!
//! Connections name services and backends by their slots, so a slot keeps its meaning for as long as a
//! connection may refer to it:
//!
//! * a service keeps its slot by name, a backend by (service, address, port);
//! * a backend that the configuration drops stays as [`BackendState::Removed`]: for one snapshot in any
//!   case, because a worker that still runs the one before may just now open a connection to it, and
//!   then for as long as it has connections;
//! * a service that the configuration drops stays for as long as it has such backends.
//!
//! So all workers must have taken up `previous` before the next snapshot is built, and `live` must count
//! what they have since.

use super::meters::Meters;
use super::{
    Backend, BackendState, BuildError, OnRemove, Parts, Port, Route, Service, Snapshot, Standings,
    StaticNeighbour, TunnelEnd, link_local, tables,
};
use crate::addr::{Ip, MacAddr, Prefix};
use crate::config::{self, Config};
use crate::ids::{BackendId, PortId, ServiceId};
use crate::limits::{BACKEND_SLOTS_MAX, SERVICES_MAX};
use crate::policy::{Policy, Way};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What the device says about a port, once it is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortFacts {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Largest IP packet it takes, bytes.
    pub mtu: u16,
}

/// What the operator said at run time, beside the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// Backends that take no new connections: service's name, backend's address and port.
    pub drained: BTreeSet<(String, Ip, Option<u16>)>,
    /// How the backends are that are checked.
    pub health: Standings,
}

impl Overrides {
    fn drains(&self, service: &str, address: Ip, port: Option<u16>) -> bool {
        // There are few, and a tuple of borrowed parts cannot be looked up in a set of owned ones.
        self.drained.iter().any(|(name, ip, at)| name == service && (*ip, *at) == (address, port))
    }
}

/// What a backend keeps its slot by.
type BackendKey = (ServiceId, Ip, Option<u16>);

impl Snapshot {
    /// The snapshot of `config` on ports with these `facts`, which follows `previous`. `live` tells how
    /// many connections a backend of `previous` has.
    ///
    /// # Errors
    ///
    /// If slots run out, or the configuration was not validated together with these ports.
    pub fn build(
        config: &Config,
        facts: &[PortFacts],
        overrides: &Overrides,
        previous: Option<&Snapshot>,
        live: &dyn Fn(BackendId) -> u64,
    ) -> Result<Snapshot, BuildError> {
        let ports = ports(config, facts)?;
        let mut slots = Slots::after(previous, config, live);
        for service in &config.services {
            slots.place_service(service)?;
        }
        for service in &config.services {
            slots.place_backends(service, overrides)?;
        }
        let Slots { mut services, backends, .. } = slots;
        tables::fill(&mut services, &backends, config.maglev.table_size, previous)?;
        let meters = Meters::build(config, &services, &backends, previous, live);
        let snapshot = Snapshot::assemble(Parts {
            generation: previous.map_or(0, |previous| previous.generation) + 1,
            ports,
            services,
            backends,
            static_neighbours: static_neighbours(config),
            routes: routes(config),
            offload_draining: config.offload.draining,
            tenants: config.tenants.iter().map(|tenant| tenant.limits).collect(),
            policy: Policy::build(&config.policy, previous.map(|previous| &previous.policy))?,
        })?;
        Ok(Snapshot { meters, ..snapshot })
    }
}

/// Slots of services and backends while they are being given out.
struct Slots {
    services: Vec<Option<Service>>,
    backends: Vec<Option<Backend>>,
    service_ids: HashMap<String, ServiceId>,
    backend_ids: HashMap<BackendKey, BackendId>,
    /// Where to look for a free slot next: all before are taken.
    next_service: usize,
    next_backend: usize,
}

impl Slots {
    /// What `previous` leaves behind: everything as if `config` had dropped it, except that slots of
    /// what `config` does have stay reserved for it.
    fn after(previous: Option<&Snapshot>, config: &Config, live: &dyn Fn(BackendId) -> u64) -> Slots {
        let policies: HashMap<&str, OnRemove> =
            config.services.iter().map(|service| (service.name.as_str(), service.on_remove)).collect();
        let wanted: HashSet<(&str, Ip, Option<u16>)> = config
            .services
            .iter()
            .flat_map(|service| service.backends.iter().map(|b| (service.name.as_str(), b.address, b.port)))
            .collect();
        let (mut services, mut backends) = previous
            .map(|previous| (previous.services.clone(), previous.backends.clone()))
            .unwrap_or_default();
        for slot in &mut backends {
            let service = slot.as_ref().and_then(|b| services.get(b.service.index())?.as_ref());
            let Some((backend, service)) = slot.as_mut().zip(service) else { continue };
            let name = service.name.as_str();
            let stays = wanted.contains(&(name, backend.address, backend.port));
            let was_removed = matches!(backend.state, BackendState::Removed(_));
            if !stays && was_removed && live(backend.id) == 0 {
                *slot = None;
            } else {
                let policy = policies.get(name).copied().unwrap_or(service.on_remove);
                backend.state = BackendState::Removed(policy);
                backend.weight = 0;
            }
        }
        let used: HashSet<ServiceId> = backends.iter().flatten().map(|backend| backend.service).collect();
        for slot in &mut services {
            let stays = |s: &Service| policies.contains_key(s.name.as_str()) || used.contains(&s.id);
            *slot = slot.take().filter(stays).map(|service| Service {
                removed: true,
                lookup: Arc::new([]),
                ..service
            });
        }
        Slots::new(services, backends)
    }

    fn new(services: Vec<Option<Service>>, backends: Vec<Option<Backend>>) -> Slots {
        let service_ids = services.iter().flatten().map(|s| (s.name.clone(), s.id)).collect();
        let key = |b: &Backend| ((b.service, b.address, b.port), b.id);
        let backend_ids = backends.iter().flatten().map(key).collect();
        Slots { services, backends, service_ids, backend_ids, next_service: 0, next_backend: 0 }
    }

    /// Puts a configured service into its slot, or into a free one.
    fn place_service(&mut self, service: &config::Service) -> Result<(), BuildError> {
        let id = match self.service_ids.get(&service.name) {
            Some(&id) => id,
            None => {
                let index = free_slot(&mut self.services, &mut self.next_service, SERVICES_MAX)
                    .ok_or(BuildError::TooManyServices)?;
                ServiceId(index)
            }
        };
        self.service_ids.insert(service.name.clone(), id);
        self.services[id.index()] = Some(Service {
            id,
            name: service.name.clone(),
            tenant: service.tenant,
            vip: service.vip,
            protocol: service.protocol,
            ports: service.ports.clone(),
            mode: service.mode,
            affinity: service.affinity,
            strict: service.strict,
            on_remove: service.on_remove,
            offload: service.offload,
            removed: false,
            health: service.health.clone().map(Arc::new),
            timeouts: service.timeouts,
            lookup: Arc::new([]),
        });
        Ok(())
    }

    /// Puts a placed service's backends into their slots, or into free ones.
    fn place_backends(&mut self, service: &config::Service, overrides: &Overrides) -> Result<(), BuildError> {
        let Some(&service_id) = self.service_ids.get(&service.name) else { return Ok(()) };
        for &config::Backend { address, port, weight } in &service.backends {
            let key = (service_id, address, port);
            let id = match self.backend_ids.get(&key) {
                Some(&id) => id,
                None => {
                    let index = free_slot(&mut self.backends, &mut self.next_backend, BACKEND_SLOTS_MAX)
                        .ok_or(BuildError::TooManyBackends)?;
                    BackendId(index)
                }
            };
            self.backend_ids.insert(key, id);
            let drained = weight == 0 || overrides.drains(&service.name, address, port);
            let (standing, down) = overrides.health.of(&service.name, service.health.as_ref(), address, port);
            let state = match down {
                Some(down) if down.resets() || !drained => down,
                _ if drained => BackendState::Draining,
                _ => BackendState::Active,
            };
            let share_percent = standing.share_percent;
            let service = service_id;
            self.backends[id.index()] =
                Some(Backend { id, service, address, port, weight, share_percent, state, hop: None });
        }
        Ok(())
    }
}

/// The first free slot at or behind `next`, making one at the end if need be; `None` if that would be
/// more than `most`.
fn free_slot<T>(slots: &mut Vec<Option<T>>, next: &mut usize, most: usize) -> Option<u16> {
    while slots.get(*next).is_some_and(Option::is_some) {
        *next += 1;
    }
    if *next >= most {
        return None;
    }
    if *next == slots.len() {
        slots.push(None);
    }
    let index = *next;
    *next += 1;
    u16::try_from(index).ok()
}

fn ports(config: &Config, facts: &[PortFacts]) -> Result<Vec<Port>, BuildError> {
    if facts.len() != config.ports.len() {
        return Err(BuildError::Ports { configured: config.ports.len(), found: facts.len() });
    }
    let port = |(port, own): (&config::Port, &PortFacts)| Port {
        name: port.name.clone(),
        parent: config.device_port(port),
        tunnel: port.tunnel(),
        mac: port.mac(own.mac),
        mtu: port.tunnel().map_or(own.mtu, |end| own.mtu.min(mtu_within(&end, facts))),
        addresses: port.addresses.clone(),
        link_local: link_local(port.mac(own.mac)),
        vlan: port.vlan,
        tenant: port.tenant,
        pass_to: port.pass_to,
        opens: match port.faces {
            config::Faces::Backends => Way::Egress,
            config::Faces::Clients | config::Faces::Both => Way::Ingress,
        },
    };
    Ok(config.ports.iter().zip(facts).map(port).collect())
}

/// The largest packet that fits into a tunnel, given the ports below.
fn mtu_within(end: &TunnelEnd, facts: &[PortFacts]) -> u16 {
    facts.get(end.link.index()).map_or(0, |below| below.mtu.saturating_sub(end.overhead()))
}

fn numbered(config: &Config) -> impl Iterator<Item = (PortId, &config::Port)> {
    config.ports.iter().enumerate().map(|(index, port)| (PortId(index as u16), port))
}

fn static_neighbours(config: &Config) -> Vec<StaticNeighbour> {
    let of = |(id, port): (PortId, &config::Port)| {
        let neighbour =
            move |n: &config::Neighbour| StaticNeighbour { port: id, address: n.address, mac: n.mac };
        port.neighbours.iter().map(neighbour).collect::<Vec<_>>()
    };
    numbered(config).flat_map(of).collect()
}

/// Configured routes, then the default gateways: an explicit default route comes first.
fn routes(config: &Config) -> Vec<Route> {
    let mut routes = Vec::new();
    for (port, of) in numbered(config) {
        routes.extend(of.routes.iter().map(|&config::Route { to, via }| Route { to, port, via }));
    }
    for (port, of) in numbered(config) {
        let default = |address| Prefix { address, length: 0 };
        let v4 = of.gateway.map(|via| Route { to: default(Ip::v4(0)), port, via: Some(via) });
        let v6 = of.gateway6.map(|via| Route { to: default(Ip::v6([0; 16])), port, via: Some(via) });
        routes.extend(v4.into_iter().chain(v6));
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use crate::ids::TenantId;
    use crate::maglev::{self, Identity};
    use crate::policy::Source;
    use crate::snapshot::{Affinity, Hop, Mode, Timeouts, VlanTags};
    use proptest::prelude::*;

    const CLIENTS: PortId = PortId(0);
    const BACKENDS: PortId = PortId(1);
    const TABLE: u32 = 251;

    fn backend_ip(number: u8) -> Ip {
        Ip::v4(0x0a00_0000 + u32::from(number))
    }

    fn port(name: &str, address: u32, gateway: Option<u32>) -> config::Port {
        config::Port {
            name: name.to_owned(),
            attachment: config::Attachment::Device(String::new()),
            tenant: TenantId(0),
            addresses: vec![Prefix { address: Ip::v4(address), length: 24 }],
            gateway: gateway.map(Ip::v4),
            gateway6: Some(Ip::v6([0xfe; 16])),
            mtu: None,
            vlan: VlanTags::default(),
            pass_to: None,
            rx_descriptors: 64,
            tx_descriptors: 64,
            promiscuous: false,
            hairpin: None,
            faces: config::Faces::Both,
            neighbours: vec![config::Neighbour { address: Ip::v4(address + 1), mac: MacAddr([2; 6]) }],
            routes: Vec::new(),
        }
    }

    /// A backend: last octet, port, weight.
    type Server = (u8, Option<u16>, u32);

    /// Services by name, each on a VIP of its own.
    type Services = Vec<(String, Vec<Server>)>;

    fn services(list: &[(&str, &[Server])]) -> Services {
        list.iter().map(|&(name, backends)| (name.to_owned(), backends.to_vec())).collect()
    }

    fn service(name: &str, backends: &[Server]) -> config::Service {
        let backend =
            |&(ip, port, weight): &Server| config::Backend { address: backend_ip(ip), port, weight };
        config::Service {
            name: name.to_owned(),
            tenant: TenantId(0),
            vip: Ip::v4(0xc633_6400 + u32::from(name.as_bytes()[0])),
            protocol: Protocol::Udp,
            ports: vec![80..=80],
            mode: Mode::Nat,
            affinity: Affinity::Connection,
            strict: false,
            on_remove: OnRemove::Drain,
            offload: true,
            health: None,
            limit: None,
            timeouts: Timeouts::default(),
            backends: backends.iter().map(backend).collect(),
        }
    }

    fn config(list: &Services) -> Config {
        Config {
            dpdk: config::Dpdk::default(),
            workers: config::Workers::default(),
            log: config::Log::default(),
            metrics: None,
            control: config::Control::default(),
            limits: config::Limits::default(),
            maglev: config::Maglev { table_size: TABLE },
            offload: config::Offload::default(),
            policy: Source::default(),
            tenants: Vec::new(),
            ports: vec![port("clients", 0xc000_0201, Some(0xc000_02fe)), port("backends", 0x0a00_00fa, None)],
            services: list.iter().map(|(name, backends)| service(name, backends)).collect(),
            warnings: config::Faults { file: String::new(), faults: Vec::new() },
        }
    }

    const FACTS: [PortFacts; 2] = [
        PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 },
        PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 2]), mtu: 9000 },
    ];

    fn build(list: &Services, previous: Option<&Snapshot>, live: &dyn Fn(BackendId) -> u64) -> Snapshot {
        Snapshot::build(&config(list), &FACTS, &Overrides::default(), previous, live).expect("snapshot")
    }

    fn states(snapshot: &Snapshot) -> Vec<Option<BackendState>> {
        snapshot.backends.iter().map(|slot| slot.as_ref().map(|backend| backend.state)).collect()
    }

    #[test]
    fn a_first_snapshot_is_what_the_configuration_says() {
        let list = services(&[("a", &[(1, Some(8080), 1), (2, None, 0)]), ("b", &[])]);
        let snapshot = build(&list, None, &|_| 0);
        assert_eq!(snapshot.generation, 1);
        assert_eq!(states(&snapshot), [Some(BackendState::Active), Some(BackendState::Draining)]);
        assert_eq!(snapshot.ports[1].mtu, 9000);
        assert_eq!(snapshot.ports[1].link_local, link_local(FACTS[1].mac));
        assert_eq!(snapshot.static_neighbours[1].port, BACKENDS);
        let [a, b] = &snapshot.services[..] else { panic!("two services") };
        let (a, b) = (a.as_ref().expect("a"), b.as_ref().expect("b"));
        assert!(a.lookup.len() == TABLE as usize && a.lookup.iter().all(|&id| id == BackendId(0)));
        assert_eq!((b.pick(7), b.lookup.len()), (None, 0));
        let hop = |port, next_hop| Some(Hop { port, next_hop });
        assert_eq!(snapshot.backends[0].as_ref().expect("slot").hop, hop(BACKENDS, backend_ip(1)));
        let far = Ip::v4(0x0808_0808);
        assert_eq!(snapshot.route(TenantId(0), far), hop(CLIENTS, Ip::v4(0xc000_02fe)));
        let far = Ip::v6([0x20; 16]);
        assert_eq!(snapshot.route(TenantId(0), far), hop(CLIENTS, Ip::v6([0xfe; 16])));
    }

    #[test]
    fn an_explicit_default_route_beats_the_gateway() {
        let mut config = config(&Vec::new());
        let to = Prefix { address: Ip::v4(0), length: 0 };
        config.ports[1].routes = vec![config::Route { to, via: Some(backend_ip(9)) }];
        let none = Overrides::default();
        let snapshot = Snapshot::build(&config, &FACTS, &none, None, &|_| 0).expect("snapshot");
        let hop = snapshot.route(TenantId(0), Ip::v4(0x0808_0808));
        assert_eq!(hop, Some(Hop { port: BACKENDS, next_hop: backend_ip(9) }));
        let error =
            Snapshot::build(&config, &FACTS[..1], &none, None, &|_| 0).expect_err("a port is missing");
        assert_eq!(error, BuildError::Ports { configured: 2, found: 1 });
    }

    #[test]
    fn the_examples_build() {
        let examples = [
            include_str!("../../../examples/bluefield-inline.toml"),
            include_str!("../../../examples/dns.toml"),
            include_str!("../../../examples/dsr-one-arm.toml"),
            include_str!("../../../examples/ipip.toml"),
            include_str!("../../../examples/source-partition.toml"),
            include_str!("../../../examples/vxlan.toml"),
            include_str!("../../../examples/nat-two-arm.toml"),
        ];
        for example in examples {
            let config = Config::parse("example", example).unwrap_or_else(|faults| panic!("{faults}"));
            let facts = vec![FACTS[0]; config.ports.len()];
            let snapshot = Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0);
            let snapshot = snapshot.expect("snapshot");
            for service in snapshot.services.iter().flatten() {
                let id = service.pick(1).expect("an active backend");
                let backend = snapshot.backend(id).expect("slot");
                assert!(backend.hop.is_some(), "{}: no route to {}", service.name, backend.address);
                let ports = *service.ports[0].start();
                let found = snapshot.classify(service.tenant, service.vip, service.protocol, ports);
                assert_eq!(found.map(|found| found.id), Some(service.id));
            }
        }
    }

    #[test]
    fn operators_drain_and_undrain() {
        let list = services(&[("a", &[(1, None, 1), (2, None, 1)]), ("b", &[(1, None, 1)])]);
        let mut overrides = Overrides::default();
        overrides.drained.insert(("a".to_owned(), backend_ip(1), None));
        let first = build(&list, None, &|_| 0);
        let drained = Snapshot::build(&config(&list), &FACTS, &overrides, Some(&first), &|_| 0);
        let drained = drained.expect("snapshot");
        let (active, draining) = (Some(BackendState::Active), Some(BackendState::Draining));
        assert_eq!(states(&drained), [draining, active, active]);
        let lookup = |snapshot: &Snapshot| snapshot.services[0].as_ref().expect("a").lookup.to_vec();
        assert!(lookup(&drained).iter().all(|&id| id == BackendId(1)));
        let again = build(&list, Some(&drained), &|_| 0);
        assert_eq!(lookup(&again), lookup(&first));
        assert_eq!((states(&again), again.generation), (vec![active; 3], 3));
    }

    /// A slot is not reused while anybody may mean the old backend by it.
    #[test]
    fn removed_backends_hold_their_slot_while_they_are_needed() {
        let one = services(&[("a", &[(1, None, 1)])]);
        let two = services(&[("a", &[(2, None, 1)])]);
        let (active, removed) = (Some(BackendState::Active), Some(BackendState::Removed(OnRemove::Drain)));
        let first = build(&one, None, &|_| 0);
        // A worker still on `first` may just now open a connection to it.
        let second = build(&two, Some(&first), &|_| 0);
        assert_eq!(states(&second), [removed, active]);
        let busy = build(&two, Some(&second), &|id| u64::from(id == BackendId(0)));
        assert_eq!(states(&busy), [removed, active]);
        let idle = build(&two, Some(&busy), &|_| 0);
        assert_eq!(states(&idle), [None, active]);
        let third = build(&services(&[("a", &[(2, None, 1), (3, None, 1)])]), Some(&idle), &|_| 0);
        assert_eq!(states(&third), [active, active]);
        assert_eq!(third.backends[0].as_ref().expect("slot").address, backend_ip(3));
    }

    #[test]
    fn a_removed_service_stays_for_its_connections() {
        let first = build(&services(&[("a", &[(1, None, 1)])]), None, &|_| 0);
        let vip = first.services[0].as_ref().expect("a").vip;
        let second = build(&services(&[("b", &[])]), Some(&first), &|_| 1);
        let third = build(&services(&[("b", &[])]), Some(&second), &|_| 1);
        for snapshot in [&second, &third] {
            let gone = snapshot.services[0].as_ref().expect("a");
            assert!(gone.removed && gone.lookup.is_empty() && gone.name == "a");
            assert!(snapshot.is_vip(TenantId(0), vip));
            assert_eq!(snapshot.classify(TenantId(0), vip, Protocol::Udp, 80), None);
        }
        let back = build(&services(&[("b", &[]), ("a", &[(1, None, 1)])]), Some(&third), &|_| 1);
        let service = back.classify(TenantId(0), vip, Protocol::Udp, 80).expect("a again");
        assert_eq!((service.id, service.pick(0)), (ServiceId(0), Some(BackendId(0))));
        let fourth = build(&services(&[("b", &[])]), Some(&third), &|_| 0);
        assert_eq!((&fourth.services[0], fourth.is_vip(TenantId(0), vip)), (&None, false));
    }

    #[test]
    fn slots_run_out_politely() {
        let all: Vec<_> =
            (0..BACKEND_SLOTS_MAX as u32).map(|n| (n as u8, Some((n >> 8) as u16 + 1), 1)).collect();
        let mut list = vec![("a".to_owned(), all)];
        let mut config = config(&list);
        config.maglev.table_size = 65537;
        let build = |config: &Config, previous| {
            Snapshot::build(config, &FACTS, &Overrides::default(), previous, &|_| 1)
        };
        let full = build(&config, None).expect("as many as there are slots");
        list[0].1[0].1 = Some(9999);
        config.services = vec![service("a", &list[0].1)];
        assert_eq!(build(&config, Some(&full)).expect_err("one too many"), BuildError::TooManyBackends);
    }

    /// A connection as a worker remembers it, with what it means by it.
    #[derive(Clone, PartialEq, Debug)]
    struct Connection {
        backend: BackendId,
        meant: (String, Ip, Option<u16>),
    }

    fn open(snapshot: &Snapshot) -> Vec<Connection> {
        let backends = snapshot.backends.iter().flatten();
        let active = backends.filter(|backend| backend.state == BackendState::Active);
        active.map(|backend| Connection { backend: backend.id, meant: meaning(snapshot, backend) }).collect()
    }

    fn meaning(snapshot: &Snapshot, backend: &Backend) -> (String, Ip, Option<u16>) {
        let service = snapshot.service(backend.service).expect("a backend has a service");
        (service.name.clone(), backend.address, backend.port)
    }

    /// What goes into the lookup table of a service.
    fn takers(snapshot: &Snapshot, name: &str) -> Vec<(BackendId, u32)> {
        let backends = snapshot.backends.iter().flatten();
        let active = backends.filter(|backend| backend.state == BackendState::Active);
        let of_service = active.filter(|backend| meaning(snapshot, backend).0 == name);
        of_service.map(|backend| (backend.id, backend.weight)).collect()
    }

    fn check_lookups(list: &Services, before: Option<&Snapshot>, after: &Snapshot) {
        for (name, backends) in list {
            let named = |s: &&Service| s.name == *name && !s.removed;
            let service = after.services.iter().flatten().find(named).expect("configured service");
            let identity =
                |&(ip, port, weight): &Server| (Identity { address: backend_ip(ip), port }, weight);
            let set: Vec<_> = backends.iter().map(identity).collect();
            let expected: Vec<_> =
                maglev::build(TABLE, &set).expect("table").iter().map(|&i| set[i as usize].0).collect();
            let identity = |&id: &BackendId| after.backend(id).expect("slot");
            let found: Vec<_> = service.lookup.iter().map(identity).collect();
            assert!(found.iter().all(|b| b.service == service.id && b.state == BackendState::Active));
            let found: Vec<_> = found.iter().map(|b| Identity { address: b.address, port: b.port }).collect();
            assert_eq!(found, expected);
            let old = before.and_then(|s| s.services.iter().flatten().find(named));
            let same = before.is_some_and(|before| takers(before, name) == takers(after, name));
            if let Some(old) = old.filter(|old| same && !old.lookup.is_empty()) {
                assert!(Arc::ptr_eq(&old.lookup, &service.lookup), "an unchanged table is built again");
            }
        }
    }

    fn any_services() -> impl Strategy<Value = Services> {
        let backends = prop::collection::btree_map((1u8..6, prop::option::of(Just(8080u16))), 0u32..3, 0..6);
        prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), backends, 0..=3).prop_map(
            |map| {
                let flat = |((ip, port), weight)| (ip, port, weight);
                map.into_iter()
                    .map(|(name, backends)| (name.to_owned(), backends.into_iter().map(flat).collect()))
                    .collect()
            },
        )
    }

    proptest! {
        /// Whatever reloads do, a connection's slot means what it meant when it was opened, also if it
        /// was opened between the count of live connections and the worker's change of snapshot.
        #[test]
        fn slots_keep_their_meaning(
            reloads in prop::collection::vec((any_services(), any::<u64>()), 1..12),
        ) {
            let mut connections: Vec<Connection> = Vec::new();
            let mut current: Option<Snapshot> = None;
            for (list, luck) in &reloads {
                let alive = |index: usize| luck >> (index % 64) & 1 != 0;
                let mut index = 0;
                connections.retain(|_| { index += 1; alive(index) });
                let live = |id| connections.iter().filter(|c| c.backend == id).count() as u64;
                let next = build(list, current.as_ref(), &live);
                connections.extend(current.iter().flat_map(open));
                for connection in &connections {
                    let backend = next.backend(connection.backend).expect("a live slot");
                    prop_assert_eq!(&meaning(&next, backend), &connection.meant);
                }
                let states = next.backends.iter().flatten();
                let configured = states.filter(|b| !matches!(b.state, BackendState::Removed(_))).count();
                prop_assert_eq!(configured, list.iter().map(|(_, backends)| backends.len()).sum::<usize>());
                check_lookups(list, current.as_ref(), &next);
                connections.extend(open(&next));
                current = Some(next);
            }
            let none = Services::new();
            let retired = build(&none, current.as_ref(), &|_| 0);
            let empty = build(&none, Some(&retired), &|_| 0);
            prop_assert!(empty.services.iter().all(Option::is_none) && empty.backends.iter().all(Option::is_none));
        }
    }
}
