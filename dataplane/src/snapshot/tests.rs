use super::*;
use core::net::IpAddr;
use proptest::prelude::*;

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("test address").into()
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("test prefix");
    Prefix { address: ip(address), length: length.parse().expect("test prefix length") }
}

fn port(tenant: u16, addresses: &[&str]) -> Port {
    let mac = MacAddr([0x02, 0, 0, 0, 0, tenant as u8]);
    Port {
        name: format!("p{tenant}"),
        mac,
        mtu: 1500,
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        link_local: link_local(mac),
        vlan: VlanTags::default(),
        tenant: TenantId(tenant),
        pass_to: None,
        opens: crate::policy::Way::Ingress,
        parent: None,
        tunnel: None,
    }
}

fn service(id: u16, vip: Ip, protocol: Protocol, ports: Vec<RangeInclusive<u16>>) -> Service {
    Service {
        id: ServiceId(id),
        name: format!("s{id}"),
        tenant: TenantId(0),
        vip,
        protocol,
        ports,
        mode: Mode::Nat,
        affinity: Affinity::Connection,
        strict: false,
        on_remove: OnRemove::Drain,
        offload: true,
        removed: false,
        health: None,
        timeouts: Timeouts::default(),
        lookup: Arc::new([]),
    }
}

fn backend(id: u16, service: u16, address: &str, port: Option<u16>) -> Backend {
    Backend {
        id: BackendId(id),
        service: ServiceId(service),
        address: ip(address),
        port,
        weight: 1,
        share_percent: 100,
        state: BackendState::Active,
        hop: None,
    }
}

fn assemble(
    ports: Vec<Port>,
    services: Vec<Service>,
    backends: Vec<Backend>,
) -> Result<Snapshot, BuildError> {
    Snapshot::assemble(Parts {
        ports,
        services: services.into_iter().map(Some).collect(),
        backends: backends.into_iter().map(Some).collect(),
        ..Parts::default()
    })
}

#[test]
fn longer_prefixes_win_and_tenants_do_not_meet() {
    let ports = vec![port(0, &["192.0.2.1/24", "2001:db8::1/64"]), port(1, &["192.0.2.1/24"])];
    let via = |to: &str, port: u16, gateway: &str| Route {
        to: prefix(to),
        port: PortId(port),
        via: Some(ip(gateway)),
    };
    let routes = vec![
        via("0.0.0.0/0", 0, "192.0.2.254"),
        via("::/0", 0, "2001:db8::fe"),
        via("10.0.0.0/8", 0, "192.0.2.10"),
        via("10.1.0.0/16", 0, "192.0.2.11"),
        via("10.1.0.0/16", 0, "192.0.2.99"),
        via("192.0.2.0/24", 0, "192.0.2.99"),
    ];
    let snapshot = Snapshot::assemble(Parts { ports, routes, ..Parts::default() }).expect("snapshot");
    let hop = |port: u16, next: &str| Some(Hop { port: PortId(port), next_hop: ip(next) });
    let cases = [
        (0, "192.0.2.7", hop(0, "192.0.2.7")),
        (1, "192.0.2.7", hop(1, "192.0.2.7")),
        (0, "10.0.0.1", hop(0, "192.0.2.10")),
        (0, "10.1.255.255", hop(0, "192.0.2.11")),
        (0, "10.2.0.0", hop(0, "192.0.2.10")),
        (0, "255.255.255.255", hop(0, "192.0.2.254")),
        (0, "0.0.0.0", hop(0, "192.0.2.254")),
        (0, "2001:db8::77", hop(0, "2001:db8::77")),
        (0, "::1", hop(0, "2001:db8::fe")),
        (0, "ffff::1", hop(0, "2001:db8::fe")),
        (1, "10.0.0.1", None),
        (1, "2001:db8::77", None),
        (0, "fe80::1", None),
        (2, "192.0.2.7", None),
    ];
    for (tenant, to, expected) in cases {
        assert_eq!(snapshot.route(TenantId(tenant), ip(to)), expected, "tenant {tenant} to {to}");
    }
}

#[test]
fn an_ipv6_default_route_does_not_catch_ipv4() {
    let routes = vec![Route { to: prefix("::/0"), port: PortId(0), via: None }];
    let parts = Parts { ports: vec![port(0, &[])], routes, ..Parts::default() };
    let snapshot = Snapshot::assemble(parts).expect("snapshot");
    assert_eq!(snapshot.route(TenantId(0), ip("192.0.2.1")), None);
    assert!(snapshot.route(TenantId(0), ip("::1")).is_some());
    assert!(snapshot.route(TenantId(0), ip("ffff::1")).is_some());
}

#[test]
fn own_addresses_and_the_source_to_speak_from() {
    let ports = vec![port(0, &["192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64"]), port(1, &[])];
    let snapshot = assemble(ports, vec![], vec![]).expect("snapshot");
    let ours = snapshot.ports[0].link_local;
    assert_eq!(ours, ip("fe80::ff:fe00:0"));
    assert_eq!(link_local(MacAddr([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde])), ip("fe80::3656:78ff:fe9a:bcde"));
    for local in [ip("192.0.2.1"), ip("2001:db8::1"), ours] {
        assert!(snapshot.is_local(PortId(0), local));
        assert!(!snapshot.is_local(PortId(1), local));
        assert!(!snapshot.is_local(PortId(9), local));
    }
    let source = |port: u16, peer: &str| snapshot.source_for(PortId(port), ip(peer));
    assert_eq!(source(0, "198.51.100.9"), Some(ip("198.51.100.1")));
    assert_eq!(source(0, "203.0.113.9"), Some(ip("192.0.2.1")));
    assert_eq!(source(0, "2001:db8::9"), Some(ip("2001:db8::1")));
    assert_eq!(source(0, "2001:db8:1::9"), Some(ip("2001:db8::1")));
    assert_eq!(source(0, "fe80::9"), Some(ours));
    assert_eq!(source(1, "2001:db8::9"), Some(snapshot.ports[1].link_local));
    assert_eq!(source(1, "192.0.2.9"), None);
}

#[test]
fn removed_services_keep_their_address_only() {
    let vip = ip("192.0.2.80");
    let gone = Service { removed: true, ..service(0, vip, Protocol::Tcp, vec![80..=80]) };
    let snapshot = assemble(vec![], vec![gone], vec![]).expect("snapshot");
    assert!(snapshot.is_vip(TenantId(0), vip));
    assert!(!snapshot.is_vip(TenantId(1), vip));
    assert!(snapshot.classify(TenantId(0), vip, Protocol::Tcp, 80).is_none());
}

#[test]
fn replies_without_connections_find_their_service() {
    let stateless = |id, vip: &str, ports: Vec<_>| Service {
        affinity: Affinity::None,
        ..service(id, ip(vip), Protocol::Udp, ports)
    };
    let services = vec![
        stateless(0, "192.0.2.53", vec![53..=53]),
        stateless(1, "192.0.2.54", vec![100..=110, 200..=200]),
        service(2, ip("192.0.2.55"), Protocol::Udp, vec![53..=53]),
    ];
    let backends = vec![
        backend(0, 0, "10.0.0.1", Some(5353)),
        backend(1, 1, "10.0.0.1", None),
        backend(2, 2, "10.0.0.2", None),
    ];
    let snapshot = assemble(vec![], services.clone(), backends.clone()).expect("snapshot");
    let reply = |address: &str, port: u16| {
        let found = snapshot.reply_of(TenantId(0), ip(address), port, Protocol::Udp);
        found.map(|(service, backend, port)| (service.id.0, backend.id.0, port))
    };
    assert_eq!(reply("10.0.0.1", 5353), Some((0, 0, 53)));
    assert_eq!(reply("10.0.0.1", 105), Some((1, 1, 105)));
    assert_eq!(reply("10.0.0.1", 200), Some((1, 1, 200)));
    assert_eq!(reply("10.0.0.1", 53), None);
    assert_eq!(reply("10.0.0.2", 53), Some((2, 2, 53)));
    assert_eq!(reply("10.0.0.2", 54), None);

    let shared =
        [services.clone(), vec![service(3, ip("192.0.2.56"), Protocol::Udp, vec![50..=60])]].concat();
    let both = [backends.clone(), vec![backend(3, 3, "10.0.0.2", None)]].concat();
    let snapshot = assemble(vec![], shared, both).expect("snapshot");
    assert!(snapshot.reply_of(TenantId(0), ip("10.0.0.2"), 53, Protocol::Udp).is_none(), "either's");

    let clash = [backends, vec![backend(3, 0, "10.0.0.1", Some(200))]].concat();
    let error = assemble(vec![], services, clash).expect_err("replies that could be either's");
    assert_eq!(error, BuildError::RepliesOverlap("s1".into(), "s0".into()));
}

#[test]
fn pick_takes_the_hash_modulo_the_table() {
    let mut service = service(0, ip("192.0.2.80"), Protocol::Tcp, vec![]);
    assert_eq!(service.pick(7), None);
    service.lookup = Arc::new([BackendId(4), BackendId(5), BackendId(6)]);
    assert_eq!(service.pick(7), Some(BackendId(5)));
}

/// The model of [`Routes`]: look at every route.
fn linear_route(routes: &[Route], to: Ip) -> Option<Hop> {
    let matching = routes.iter().filter(|route| route.to.contains(to) && !prefix("fe80::/10").contains(to));
    // `max_by_key` takes the last of equals, and the first configured counts.
    let best = matching.rev().max_by_key(|route| route.to.length)?;
    Some(Hop { port: best.port, next_hop: best.via.unwrap_or(to) })
}

/// Addresses that share long prefixes, so that routes nest and look-ups hit.
fn close_address() -> impl Strategy<Value = Ip> {
    let bits = prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>(), (0u32..128).prop_map(|n| 1 << n)];
    (any::<bool>(), bits).prop_map(|(v4, bits)| {
        if v4 { Ip::v4(bits as u32) } else { Ip::v6((0x2001_0db8u128 << 96 ^ bits).to_be_bytes()) }
    })
}

fn any_route() -> impl Strategy<Value = Route> {
    (close_address(), 0u8..=128, 0u16..4).prop_map(|(address, length, port)| {
        let length = if address.is_v4() { length % 33 } else { length };
        Route { to: Prefix { address, length }, port: PortId(port), via: None }
    })
}

proptest! {
    #[test]
    fn routes_agree_with_a_linear_search(
        routes in prop::collection::vec(any_route(), 0..20),
        probes in prop::collection::vec(close_address(), 1..50),
    ) {
        let ports = (0..4).map(|_| port(0, &[])).collect();
        let parts = Parts { ports, routes: routes.clone(), ..Parts::default() };
        let snapshot = Snapshot::assemble(parts).expect("snapshot");
        let edges = routes.iter().map(|route| route.to.address);
        for probe in probes.into_iter().chain(edges) {
            prop_assert_eq!(snapshot.route(TenantId(0), probe), linear_route(&routes, probe), "{}", probe);
        }
    }

    #[test]
    fn classify_agrees_with_a_linear_search(
        wanted in prop::collection::vec((0u32..3, any::<bool>(), 0u16..100, 0u16..20), 0..12),
    ) {
        let mut services: Vec<Service> = Vec::new();
        for (vip, tcp, first, more) in wanted {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            let next = service(services.len() as u16, Ip::v4(vip), protocol, vec![first..=first + more]);
            let clash = |other: &Service| {
                (other.vip, other.protocol) == (next.vip, next.protocol)
                    && (first..=first + more).any(|port| other.has_port(port))
            };
            if services.iter().any(clash) {
                let both = [services.clone(), vec![next]].concat();
                let refused = assemble(vec![], both, vec![]);
                prop_assert!(matches!(refused, Err(BuildError::ServicesOverlap(..))));
            } else {
                services.push(next);
            }
        }
        let snapshot = assemble(vec![], services.clone(), vec![]).expect("snapshot");
        for vip in (0..4).map(Ip::v4) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for port in 0..130 {
                    let same = |s: &&Service| (s.vip, s.protocol) == (vip, protocol) && s.has_port(port);
                    let found = snapshot.classify(TenantId(0), vip, protocol, port);
                    prop_assert_eq!(found, services.iter().find(same));
                    prop_assert!(snapshot.classify(TenantId(1), vip, protocol, port).is_none());
                }
            }
            prop_assert_eq!(snapshot.is_vip(TenantId(0), vip), services.iter().any(|s| s.vip == vip));
        }
    }
}
