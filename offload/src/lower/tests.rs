//! The lowering's decisions, one by one; what the rules do to packets is tried in `tests/agreement.rs`.

use super::*;
use core::net::IpAddr;
use dataplane::ids::{BackendId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{FlowRef, Token};
use dataplane::rewrite::Outer;
use dataplane::snapshot::{Encapsulation, Tunnel};

const FRONT: PortId = PortId(0);
const BACK: PortId = PortId(1);
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("an address").into()
}

fn port(ethdev: u16) -> PortFacts {
    PortFacts {
        ethdev,
        proxy: 0,
        domain: Some(3),
        mac: MacAddr([2, 0, 0, 0, 0, ethdev as u8]),
        any_mac: false,
        mtu: 1500,
        vlan: VlanTags::default(),
        tunnel: None,
        hairpins: Vec::new(),
    }
}

fn inline() -> Topology {
    Topology { ports: vec![port(0), port(1)] }
}

fn ask() -> Ask {
    let there = Leg { ingress: FRONT, egress: BACK, next_hop: NEXT };
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: 1, generation: 1 },
        token: Token(1),
        key: FlowKey {
            src: ip("10.0.0.1"),
            dst: ip("192.0.2.80"),
            src_port: 40_000,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        },
        backend_end: (ip("10.1.0.7"), 8080),
        nat: true,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [Some(there), Some(Leg { ingress: BACK, egress: FRONT, next_hop: NEXT })],
        packets: 10,
        age_ms: 100,
    }
}

fn actions(topology: &Topology, ask: &Ask) -> Vec<Action> {
    leg(topology, ask, Direction::Original, None).expect("a rule").actions.to_vec()
}

fn declined(topology: &Topology, ask: &Ask) -> bool {
    leg(topology, ask, Direction::Original, None) == Err(Declined::Path)
}

#[test]
fn a_request_is_matched_by_all_of_its_tuple_and_becomes_the_backends() {
    let rule = leg(&inline(), &ask(), Direction::Original, Some(30)).expect("a rule");
    assert_eq!(rule.port, 0);
    assert_eq!(rule.attr, Attr { domain: Domain::Transfer, group: CONNECTIONS_V4_TCP, priority: 0 });
    let items = [
        Item::RepresentedPort(0),
        Item::Eth { dst: None },
        Item::Ipv4 { src: Some(0x0a00_0001), dst: Some(0xc000_0250), class: None, ttl: None },
        Item::Tcp { src: Some(40_000), dst: Some(80), flags: Some(Masked { value: 0, mask: 7 }) },
    ];
    assert_eq!(rule.items[..], items);
    let actions = [
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
}

#[test]
fn a_reply_becomes_the_vips() {
    let rule = leg(&inline(), &ask(), Direction::Reply, None).expect("a rule");
    assert_eq!(rule.items[0], Item::RepresentedPort(1));
    let ports = Item::Tcp { src: Some(8080), dst: Some(40_000), flags: Some(Masked { value: 0, mask: 7 }) };
    assert_eq!(rule.items[3], ports);
    let actions = [
        Action::Count,
        Action::SetMacDst(NEXT),
        Action::SetMacSrc(MacAddr([2, 0, 0, 0, 0, 0])),
        Action::SetIpSrc(ip("192.0.2.80")),
        Action::SetPortSrc(80),
        Action::DecTtl,
        Action::ToPort(0),
    ];
    assert_eq!(rule.actions[..], actions);
}

#[test]
fn only_what_differs_is_written() {
    let same_port = Ask { backend_end: (ip("10.1.0.7"), 80), ..ask() };
    assert!(!actions(&inline(), &same_port).iter().any(|action| matches!(action, Action::SetPortDst(_))));
    let direct = Ask { nat: false, ..ask() };
    let kept = |action: &Action| {
        matches!(
            action,
            Action::Count | Action::SetMacDst(_) | Action::SetMacSrc(_) | Action::DecTtl | Action::ToPort(1)
        )
    };
    assert!(actions(&inline(), &direct).iter().all(kept));
}

#[test]
fn ages_stay_within_what_a_rule_can_say() {
    for (asked, said) in [(0, 1), (30, 30), (u32::MAX, AGE_MAX_S)] {
        let rule = leg(&inline(), &ask(), Direction::Original, Some(asked)).expect("a rule");
        assert_eq!(rule.actions[1], Action::Age { timeout_s: said });
    }
}

#[test]
fn what_hardware_cannot_do_is_declined() {
    let (topology, asked) = (inline(), ask());
    assert!(!declined(&topology, &asked));
    assert!(declined(&topology, &Ask { legs: [None, asked.legs[1]], ..asked }), "never passes us");
    let out_of = |egress| Ask { legs: [Some(Leg { ingress: FRONT, egress, next_hop: NEXT }), None], ..asked };
    assert!(declined(&topology, &out_of(FRONT)), "the same wire");
    assert!(declined(&topology, &out_of(PortId(7))), "no such port");
    let changed = |change: fn(&mut PortFacts)| {
        let mut topology = inline();
        change(&mut topology.ports[1]);
        topology
    };
    let small = changed(|back| back.mtu = 1400);
    assert_eq!(leg(&small, &asked, Direction::Original, None), Err(Declined::Mtu), "packets need an answer");
    assert!(!declined(&changed(|back| back.mtu = 9000), &asked));
    assert!(declined(&changed(|back| back.domain = Some(4)), &asked), "another eSwitch");
    assert!(declined(&changed(|back| back.domain = None), &asked), "no eSwitch");
    let twice = |back: &mut PortFacts| back.vlan = VlanTags { outer: Some(3), inner: Some(4) };
    assert!(declined(&changed(twice), &asked), "two tags");
    let mixed = Ask { backend_end: (ip("2001:db8::7"), 80), ..asked };
    assert!(declined(&topology, &mixed), "families differ");
}

/// What is around packets to 10.1.0.7 or 2001:db8::7, of traffic class `class`.
fn around(kind: Encapsulation, v6: bool, class: u8) -> Around {
    let tunnel = Tunnel { vni: 7, inner_mac: NEXT, udp6_checksum: false, ..Tunnel::new(kind) };
    let [from, to] = if v6 { ["2001:db8::1", "2001:db8::7"] } else { ["10.1.0.1", "10.1.0.7"] };
    let outer = Outer::new(&tunnel, ip(from), ip(to), true, MacAddr([2, 0, 0, 0, 0, 1]));
    outer.around(class, 0x123).expect("something that hardware puts on")
}

fn roomy() -> Topology {
    let mut topology = inline();
    topology.ports[1].mtu = 1600;
    topology
}

#[test]
fn frames_of_a_tunnel_are_made_and_wrapped() {
    let around = around(Encapsulation::Vxlan, false, 0);
    let asked = Ask { nat: false, tunnel: Some(around), ..ask() };
    let rule = leg(&roomy(), &asked, Direction::Original, Some(30)).expect("a rule");
    let class = Some(Masked { value: 0, mask: 0xff });
    let ipv4 = Item::Ipv4 { src: Some(0x0a00_0001), dst: Some(0xc000_0250), class, ttl: None };
    assert_eq!(rule.items[2], ipv4);
    let actions = [
        Action::Count,
        Action::Age { timeout_s: 30 },
        Action::SetMacDst(NEXT),
        Action::SetMacSrc(MacAddr([2, 0, 0, 0, 0, 1])),
        Action::DecTtl,
        Action::RawEncap,
        Action::ToPort(1),
    ];
    assert_eq!(rule.actions[..], actions);
    assert_eq!(rule.headers.len(), 14 + 20 + 8 + 8);
    assert_eq!(rule.headers[..14], [2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 0, 1, 8, 0]);
    assert_eq!(rule.headers[14..], *around.headers());
}

#[test]
fn packets_of_a_tunnel_lose_their_ethernet_header() {
    let asked = |v6| Ask { nat: false, tunnel: Some(around(Encapsulation::Ipip, v6, 0x28)), ..ask() };
    let mut topology = roomy();
    topology.ports[0].vlan.inner = Some(9);
    let rule = leg(&topology, &asked(true), Direction::Original, None).expect("a rule");
    let actions = [
        Action::PopVlan,
        Action::Count,
        Action::DecTtl,
        Action::RawDecap,
        Action::RawEncap,
        Action::ToPort(1),
    ];
    assert_eq!(rule.actions[..], actions);
    assert_eq!(rule.headers.len(), 14 + 40);
    // The outer class is the packet's, so that packets of another one are not for these headers.
    assert_eq!(rule.headers[14..16], [0x62, 0x80 | rule.headers[15] & 0x0f]);
    assert!(suits(Kind::Sync, &rule));
    let in_ipv4 = leg(&topology, &asked(false), Direction::Original, None).expect("a rule");
    assert_eq!(in_ipv4.headers.len(), 34);
    assert!(suits(Kind::Template, &in_ipv4) && !suits(Kind::Sync, &in_ipv4));
    topology.ports[1].vlan.inner = Some(8);
    let tagged = leg(&topology, &asked(false), Direction::Original, None).expect("a rule");
    assert_eq!((tagged.headers[12..18].to_vec(), tagged.headers.len()), (vec![0x81, 0, 0, 8, 8, 0], 38));
    assert!(suits(Kind::Sync, &tagged));
}

#[test]
fn tunnels_that_are_softwares() {
    let asked = Ask { nat: false, tunnel: Some(around(Encapsulation::Vxlan, false, 0)), ..ask() };
    let with_mtu = |mtu| {
        let mut topology = inline();
        topology.ports[1].mtu = mtu;
        leg(&topology, &asked, Direction::Original, None).map(|_| ())
    };
    assert_eq!((with_mtu(1549), with_mtu(1550)), (Err(Declined::Mtu), Ok(())));
    let mut hairpins = roomy();
    for (port, egress) in hairpins.ports.iter_mut().zip([BACK, FRONT]) {
        (port.domain, port.hairpins) = (None, vec![Hairpin { egress, queue: 1 }]);
    }
    assert_eq!(leg(&hairpins, &asked, Direction::Original, None), Err(Declined::Tunnel));
    let with = |udp6_checksum| {
        let tunnel = Tunnel { udp6_checksum, ..Tunnel::new(Encapsulation::Gue) };
        Outer::new(&tunnel, ip("2001:db8::1"), ip("2001:db8::7"), true, NEXT)
    };
    assert_eq!(with(true).around(0, 1), None, "nobody works out the checksum");
    assert!(with(false).around(0, 1).is_some());
    for class in 1..4 {
        assert_eq!(with(false).around(class, 1), None, "the mark would not come outside");
    }
}

#[test]
fn tags_follow_the_ports() {
    let tagged = |from: Option<u16>, to: Option<u16>| {
        let mut topology = inline();
        topology.ports[0].vlan.inner = from;
        topology.ports[1].vlan.inner = to;
        leg(&topology, &ask(), Direction::Original, None).expect("a rule")
    };
    let tags = |rule: &Rule| -> Vec<Action> {
        let tag =
            |action: &&Action| matches!(action, Action::PopVlan | Action::PushVlan | Action::SetVlanVid(_));
        rule.actions.iter().filter(tag).copied().collect()
    };
    assert_eq!(tags(&tagged(None, None)), []);
    assert_eq!(tags(&tagged(Some(5), Some(5))), []);
    assert_eq!(tags(&tagged(Some(5), Some(6))), [Action::SetVlanVid(6)]);
    assert_eq!(tags(&tagged(Some(5), None)), [Action::PopVlan]);
    let on = tagged(None, Some(6));
    assert_eq!(tags(&on), [Action::PushVlan, Action::SetVlanVid(6)]);
    assert_eq!(tagged(Some(5), None).items[2], Item::Vlan(5));
    let hardware = on.with_tags_first();
    assert_eq!(hardware[..3], [Action::Count, Action::PushVlan, Action::SetVlanVid(6)]);
    assert_eq!(hardware[3..], [&on.actions[1..6], &on.actions[8..]].concat());
    let other = tagged(Some(5), Some(6));
    assert_eq!(other.with_tags_first(), other.actions);
}

#[test]
fn hairpins_serve_where_the_eswitch_does_not() {
    let one_arm = PortFacts { hairpins: vec![Hairpin { egress: FRONT, queue: 4 }], ..port(0) };
    let topology = Topology { ports: vec![one_arm] };
    let leg_back = Leg { ingress: FRONT, egress: FRONT, next_hop: NEXT };
    let asked = Ask { legs: [Some(leg_back); 2], ..ask() };
    let rule = leg(&topology, &asked, Direction::Reply, None).expect("a rule");
    assert_eq!((rule.port, rule.attr.domain, rule.attr.group), (0, Domain::Ingress, 0));
    assert_eq!(rule.items[0], Item::Eth { dst: Some(topology.ports[0].mac) });
    assert_eq!(rule.actions.last(), Some(&Action::Queue(4)));
    let base = base_rules(&topology);
    assert_eq!(base.len(), 2, "only what expires, by family: nothing crosses the eSwitch");
    assert!(base.iter().all(|base| base.attr.priority < rule.attr.priority));

    let two =
        |egress, queue| PortFacts { hairpins: vec![Hairpin { egress, queue }], domain: None, ..port(0) };
    let mut topology = Topology { ports: vec![two(BACK, 2), PortFacts { ethdev: 1, ..two(FRONT, 3) }] };
    assert_eq!(actions(&topology, &ask()).last(), Some(&Action::Queue(2)));
    topology.ports[1].vlan.inner = Some(9);
    assert!(declined(&topology, &ask()), "a tag put on");
    topology.ports[0].vlan.inner = Some(8);
    assert!(!declined(&topology, &ask()), "a tag changed");
}

#[test]
fn base_rules_lead_each_family_and_protocol_to_its_group() {
    let rules = base_rules(&inline());
    let seen: Vec<_> =
        rules.iter().map(|rule| (rule.items[0], rule.attr.priority, rule.actions[0])).collect();
    let expected: Vec<_> = [0, 1]
        .into_iter()
        .flat_map(|port| {
            [(0, SOFTWARE), (0, SOFTWARE), (1, 1), (1, 2), (1, 3), (1, 4)]
                .map(|(priority, group)| (Item::RepresentedPort(port), priority, Action::Jump(group)))
        })
        .collect();
    assert_eq!(seen, expected);
    assert!(rules.iter().all(|rule| rule.port == 0 && rule.attr.group == 0));
    let alone = Topology { ports: vec![port(0)] };
    assert_eq!(base_rules(&alone), [], "nowhere to go");
}

/// Ports of one device are told apart by their tags; a device is reached by whichever of its ports a packet
/// leaves by, and out of itself by its hairpin queues alone.
#[test]
fn ports_of_one_device_have_rules_of_their_own() {
    let lan = |ethdev, vid| PortFacts {
        vlan: VlanTags { outer: None, inner: Some(vid) },
        hairpins: vec![Hairpin { egress: BACK, queue: 1 }],
        ..port(ethdev)
    };
    let topology = Topology { ports: vec![port(0), port(1), lan(0, 10), lan(0, 20), lan(1, 10)] };
    let between = |ingress, egress| {
        let mut ask = ask();
        ask.legs[0] = Some(Leg { ingress: PortId(ingress), egress: PortId(egress), next_hop: NEXT });
        leg(&topology, &ask, Direction::Original, None)
    };
    let across = between(2, 4).expect("across the eSwitch");
    assert_eq!(across.items[..3], [Item::RepresentedPort(0), Item::Eth { dst: None }, Item::Vlan(10)]);
    assert_eq!(across.actions.last(), Some(&Action::ToPort(1)));
    assert_eq!(between(3, 4).expect("with another tag").actions[1], Action::SetVlanVid(10));
    assert_eq!(between(2, 3), Err(Declined::Path), "out of the device that it came by");
    let back = between(4, 4).expect("by the device's hairpin queue");
    assert_eq!((back.port, back.actions.last()), (1, Some(&Action::Queue(1))));
    let base = base_rules(&topology);
    for (at, rule) in base.iter().enumerate() {
        let what = |rule: &Rule| (rule.port, rule.attr, rule.items.clone());
        let same = |other: &&Rule| what(other) == what(rule);
        assert_eq!(base[..at].iter().find(same), None);
    }
}

#[test]
fn what_is_denied_is_dropped_behind_the_connections_of_its_group() {
    let key = ask().key;
    let rule = denial(&inline(), FRONT, &key).expect("a rule");
    assert_eq!(rule.attr, Attr { domain: Domain::Transfer, group: CONNECTIONS_V4_TCP, priority: 1 });
    let items = [
        Item::RepresentedPort(0),
        Item::Eth { dst: None },
        Item::Ipv4 { src: Some(0x0a00_0001), dst: Some(0xc000_0250), class: None, ttl: None },
        // A SYN, too.
        Item::Tcp { src: Some(40_000), dst: Some(80), flags: None },
    ];
    assert_eq!(rule.items[..], items);
    assert_eq!(rule.actions[..], [Action::Count, Action::Drop]);
    let udp = denial(&inline(), FRONT, &FlowKey { protocol: Protocol::Udp, ..key }).expect("a rule");
    assert_eq!(udp.attr.group, CONNECTIONS_V4_UDP);
}

#[test]
fn only_what_is_for_us_is_dropped_where_a_port_is_a_bump_in_the_wire() {
    let mut bump = inline();
    bump.ports[0].any_mac = true;
    let v4 = ask().key;
    let rule = denial(&bump, FRONT, &v4).expect("a rule");
    assert_eq!(rule.items[1], Item::Eth { dst: Some(bump.ports[0].mac) });
    let v6 = FlowKey { src: ip("2001:db8::1"), dst: ip("2001:db8::80"), ..v4 };
    assert_eq!(denial(&bump, FRONT, &v6), Err(Declined::Path), "too wide");
    assert!(denial(&inline(), FRONT, &v6).is_ok());
}

#[test]
fn there_is_no_drop_where_no_base_rule_leads() {
    let key = ask().key;
    assert_eq!(denial(&inline(), PortId(2), &key), Err(Declined::Path), "no such port");
    let mut alone = inline();
    alone.ports[1].domain = None;
    assert_eq!(denial(&alone, FRONT, &key), Err(Declined::Path));
    let mut double = inline();
    double.ports[0].vlan = VlanTags { outer: Some(1), inner: Some(2) };
    assert_eq!(denial(&double, FRONT, &key), Err(Declined::Path));
}
