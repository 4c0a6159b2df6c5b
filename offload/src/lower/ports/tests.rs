use super::*;
use crate::engine::Kind;
use crate::lower::{
    CONNECTIONS_V4_TCP, CONNECTIONS_V4_UDP, CONNECTIONS_V6_UDP, base_rules, is_led_to, leg, suits,
};
use crate::rule::ITEMS_MAX;
use core::net::IpAddr;
use dataplane::addr::MacAddr;
use dataplane::ids::{BackendId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{FlowRef, Token};
use dataplane::rewrite::{Around, Outer};
use dataplane::snapshot::VlanTags;

const FRONT: PortId = PortId(0);
const BACK: PortId = PortId(1);
const INNER: PortId = PortId(2);
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
const FAR: MacAddr = MacAddr([2, 0, 0, 0, 9, 1]);
const VXLAN: Inside =
    Inside { kind: Tunnel::Vxlan, vni: 77, own: Ip::v4(0x0a00_0001), remote: Ip::v4(0x0a00_0009) };

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("an address").into()
}

fn in_v6() -> Inside {
    Inside { own: ip("fd00::1"), remote: ip("fd00::9"), ..VXLAN }
}

fn port(ethdev: u16) -> PortFacts {
    PortFacts {
        ethdev,
        proxy: 0,
        domain: Some(0),
        mac: MacAddr([2, 0, 0, 0, 0, ethdev as u8]),
        any_mac: false,
        mtu: 1450,
        vlan: VlanTags::default(),
        tunnel: None,
        hairpins: Vec::new(),
    }
}

/// An uplink, a host, and what is behind a tunnel by the former.
fn topology(inside: Option<Inside>) -> Topology {
    let tunnel = Some(TunnelPort { link: FRONT, inside });
    let inner = PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 7]), tunnel, ..port(0) };
    Topology { ports: vec![PortFacts { mtu: 1500, ..port(0) }, port(1), inner] }
}

fn around() -> Around {
    let tunnel =
        dataplane::snapshot::Tunnel { vni: 77, ..dataplane::snapshot::Tunnel::new(Encapsulation::Vxlan) };
    let outer = Outer::of_frames(&tunnel, VXLAN.own, VXLAN.remote);
    outer.around(0x28, 0x123).expect("something that hardware puts on").sent_to(FAR)
}

/// Clients come out of the tunnel.
fn ask() -> Ask {
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: 1, generation: 1 },
        token: Token(1),
        key: FlowKey {
            src: ip("172.16.0.7"),
            dst: ip("192.0.2.80"),
            src_port: 40_000,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        },
        backend_end: (ip("10.1.0.7"), 8080),
        nat: true,
        tunnel: Some(around()),
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [
            Some(Leg { ingress: INNER, egress: BACK, next_hop: NEXT }),
            Some(Leg { ingress: BACK, egress: INNER, next_hop: NEXT }),
        ],
        packets: 10,
        age_ms: 100,
    }
}

fn original(topology: &Topology) -> Result<Rule, Declined> {
    leg(topology, &ask(), Direction::Original, Some(30))
}

#[test]
fn what_comes_out_is_told_by_network_far_end_and_tuple() {
    let rule = original(&topology(Some(VXLAN))).expect("a rule");
    assert_eq!((rule.port, rule.attr.group), (0, CONNECTIONS_V4_TCP + COLOURS));
    let items = [
        Item::RepresentedPort(0),
        Item::Eth { dst: None },
        Item::Ipv4 { src: Some(0x0a00_0009), dst: None, class: None, ttl: None },
        Item::Udp { src: None, dst: None },
        Item::Tunnel(Tunnel::Vxlan, Some(77)),
        Item::Eth { dst: None },
        Item::Ipv4 { src: Some(0xac10_0007), dst: Some(0xc000_0250), class: None, ttl: None },
        Item::Tcp { src: Some(40_000), dst: Some(80), flags: Some(Masked { value: 0, mask: 7 }) },
    ];
    assert_eq!(rule.items[..], items);
    let actions = [
        Action::Decap(Tunnel::Vxlan),
        Action::Count,
        Action::Age { timeout_s: 30 },
        Action::SetMacDst(NEXT),
        Action::SetMacSrc(MacAddr([2, 0, 0, 0, 0, 1])),
        Action::SetIpDst(ip("10.1.0.7")),
        Action::SetPortDst(8080),
        Action::DecTtl,
        Action::ToPort(1),
    ];
    assert_eq!(rule.actions[..], actions);
    assert_eq!(rule.innermost().len(), 3);
    assert_eq!(rule.clone().metered(Some(1)), None, "hardware would meter what is around it, too");
    assert!(!is_led_to(&topology(Some(VXLAN)), &ask()), "no fence stands before it");
}

#[test]
fn answers_are_edited_and_put_in() {
    let rule = leg(&topology(Some(VXLAN)), &ask(), Direction::Reply, None).expect("a rule");
    assert_eq!(rule.attr.group, CONNECTIONS_V4_TCP);
    let class = Some(Masked { value: 0x28, mask: 0xff });
    let (src, dst) = (Some(0x0a01_0007), Some(0xac10_0007));
    assert_eq!(rule.items[2], Item::Ipv4 { src, dst, class, ttl: None });
    let actions = [
        Action::Count,
        Action::SetMacDst(NEXT),
        Action::SetMacSrc(MacAddr([2, 0, 0, 0, 0, 7])),
        Action::SetIpSrc(ip("192.0.2.80")),
        Action::SetPortSrc(80),
        Action::DecTtl,
        Action::RawEncap,
        Action::ToPort(0),
    ];
    assert_eq!(rule.actions[..], actions);
    assert_eq!(rule.headers[..14], [2, 0, 0, 0, 9, 1, 2, 0, 0, 0, 0, 0, 8, 0], "of the port below");
    assert_eq!(rule.headers[14..], *around().headers());
}

#[test]
fn base_rules_lead_by_way_of_udp() {
    let mut widest = topology(Some(VXLAN));
    widest.ports[0].vlan.inner = Some(9);
    for (inside, from) in [(VXLAN, CONNECTIONS_V4_UDP), (in_v6(), CONNECTIONS_V6_UDP)] {
        let rules = base_rules(&topology(Some(inside)));
        let tunnels: Vec<_> = rules.iter().filter(|rule| rule.attr.group == from).collect();
        assert_eq!(rules.len(), 2 * 6 + tunnels.len());
        let targets: Vec<_> = tunnels.iter().map(|rule| (rule.attr.priority, rule.actions[0])).collect();
        let lead = |group| (2, Action::Jump(group));
        let keep = (1, Action::Jump(SOFTWARE));
        assert_eq!(targets, [keep, keep, lead(7), lead(8), lead(9), lead(10)]);
        for rule in tunnels {
            assert!(
                rule.items.contains(&inside.outer(true))
                    && rule.items.contains(&Item::Eth { dst: Some(port(0).mac) })
            );
        }
    }
    assert!(base_rules(&widest).iter().all(|rule| rule.items.len() <= ITEMS_MAX));
    let plain = Topology { ports: topology(None).ports[..2].to_vec() };
    assert_eq!(base_rules(&topology(None)), base_rules(&plain), "a tunnel that is not recognised");
}

#[test]
fn frames_are_counted_without_what_was_around_them() {
    let mut topology = topology(Some(VXLAN));
    assert_eq!([FRONT, INNER].map(|port| overhead(&topology, port)), [14, 64]);
    topology.ports[0].vlan.inner = Some(9);
    topology.ports[2].tunnel = Some(TunnelPort { link: FRONT, inside: Some(in_v6()) });
    assert_eq!([FRONT, BACK, INNER].map(|port| overhead(&topology, port)), [18, 14, 88]);
}

#[test]
fn tunnels_that_are_softwares() {
    let told = |change: fn(&mut Topology)| {
        let mut topology = topology(Some(VXLAN));
        change(&mut topology);
        original(&topology).map(drop)
    };
    assert_eq!(told(|_| ()), Ok(()));
    let unknown =
        |topology: &mut Topology| topology.ports[2].tunnel = Some(TunnelPort { link: FRONT, inside: None });
    assert_eq!(told(unknown), Err(Declined::Tunnel));
    assert_eq!(told(|topology| topology.ports[1].tunnel = topology.ports[2].tunnel), Err(Declined::Tunnel));
    assert_eq!(told(|topology| topology.ports[1].mtu = 1449), Err(Declined::Mtu));
    assert_eq!(told(|topology| topology.ports[0].mtu = 1501), Err(Declined::Mtu), "larger ones may come");
    let of_a_host = |topology: &mut Topology| {
        topology.ports.iter_mut().for_each(|port| port.proxy = 1);
    };
    assert_eq!(told(of_a_host), Err(Declined::Tunnel), "frames of a host's function stay in");
    assert_eq!(told(|topology| topology.ports[0].vlan.outer = Some(9)), Err(Declined::Path));
    let v6 = |inside| {
        let (src, dst) = (ip("fd00:16::7"), ip("2001:db8::80"));
        let asked =
            Ask { key: FlowKey { src, dst, ..ask().key }, backend_end: (ip("fd00:2::7"), 80), ..ask() };
        leg(&topology(Some(inside)), &asked, Direction::Original, None).expect("a rule")
    };
    let geneve = original(&topology(Some(Inside { kind: Tunnel::Geneve, ..VXLAN }))).expect("a rule");
    let vxlan = original(&topology(Some(in_v6()))).expect("a rule");
    let suits = |rule: &Rule| [Kind::Sync, Kind::Template].map(|kind| suits(kind, rule));
    assert_eq!(
        [suits(&geneve), suits(&v6(VXLAN)), suits(&vxlan)],
        [[true, false], [true, false], [true, true]]
    );
}
