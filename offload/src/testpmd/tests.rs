//! What is printed, reviewed by eye; `tests/test_rules.py` lets testpmd have the very same lines.

use super::*;
use crate::engine::Kind;
use crate::lower::ports::{Inside, TunnelPort};
use crate::lower::{self, Hairpin, PortFacts, Topology};
use crate::rule;
use core::net::IpAddr;
use dataplane::addr::MacAddr;
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{Ask, FlowRef, Leg, Token};
use dataplane::rewrite::{Around, Outer};
use dataplane::snapshot::{Encapsulation, Tunnel, VlanTags};
use std::fmt::Write;

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("an address").into()
}

fn port(ethdev: u16, vlan: Option<u16>) -> PortFacts {
    PortFacts {
        ethdev,
        proxy: 0,
        domain: Some(0),
        mac: MacAddr([2, 0, 0, 0, 0, ethdev as u8 + 1]),
        any_mac: false,
        mtu: 1500,
        vlan: VlanTags { outer: None, inner: vlan },
        tunnel: None,
        hairpins: Vec::new(),
    }
}

/// A connection through both ports: `nat`, IPv4 and TCP, unless changed.
fn ask(v6: bool, protocol: Protocol) -> Ask {
    let leg = |ingress, egress, last| Some(Leg { ingress, egress, next_hop: MacAddr([2, 0, 0, 0, 9, last]) });
    let pick = |v4, six| ip(if v6 { six } else { v4 });
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: 1, generation: 1 },
        token: Token(1),
        key: FlowKey {
            src: pick("198.51.100.7", "2001:db8:1::7"),
            dst: pick("192.0.2.80", "2001:db8::80"),
            src_port: 40_000,
            dst_port: 80,
            tenant: TenantId(0),
            protocol,
        },
        backend_end: (pick("10.1.0.7", "fd00:2::7"), 8080),
        nat: true,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [leg(PortId(0), PortId(1), 1), leg(PortId(1), PortId(0), 2)],
        packets: 10,
        age_ms: 100,
    }
}

/// What is around packets that have traffic class 0x28.
fn around(kind: Encapsulation, v6: bool) -> Around {
    let inner_mac = MacAddr([2, 0, 0, 0, 0, 0x77]);
    let tunnel = Tunnel { vni: 77, inner_mac, udp6_checksum: false, ..Tunnel::new(kind) };
    let [from, to] = if v6 { ["fd00:2::1", "fd00:2::7"] } else { ["10.1.0.1", "10.1.0.7"] };
    let outer = Outer::new(&tunnel, ip(from), ip(to), true, MacAddr([2, 0, 0, 0, 0, 2]));
    outer.around(0x28, 0x123).expect("something that hardware puts on")
}

/// Of two ports, with a third behind a tunnel by the first.
fn behind_tunnel(kind: rule::Tunnel) -> Topology {
    let inside = Some(Inside { kind, vni: 77, own: ip("10.0.0.1"), remote: ip("10.0.0.9") });
    let tunnel = Some(TunnelPort { link: PortId(0), inside });
    let inner = PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 7]), tunnel, ..port(0, None) };
    Topology { ports: vec![port(0, None), port(1, None), inner] }
}

/// The same, of clients behind it.
fn by_tunnel(kind: Encapsulation, ask: Ask) -> Ask {
    let behind = |port| if port == PortId(0) { PortId(2) } else { port };
    let moved =
        |leg: Leg| Leg { ingress: behind(leg.ingress), egress: behind(leg.egress), next_hop: leg.next_hop };
    let tunnel = Tunnel { vni: 77, ..Tunnel::new(kind) };
    let around = Outer::of_frames(&tunnel, ip("10.0.0.1"), ip("10.0.0.9")).around(0x28, 0x123);
    let around = around.map(|around| around.sent_to(MacAddr([2, 0, 0, 0, 9, 9])));
    Ask { tunnel: around, legs: ask.legs.map(|leg| leg.map(moved)), ..ask }
}

/// What is worth seeing: a name and a rule each.
fn rules(hairpins: bool) -> Vec<(String, Rule)> {
    let inline = Topology { ports: vec![port(0, None), port(1, None)] };
    let mut rules = Vec::new();
    for (at, rule) in lower::base_rules(&inline).into_iter().enumerate() {
        rules.push((format!("base {at}"), rule));
    }
    let mut add = |name: &str, topology: &Topology, ask: &Ask, direction| {
        rules.push((name.to_owned(), lower::leg(topology, ask, direction, Some(30)).expect("a rule")));
    };
    for (v6, protocol) in
        [(false, Protocol::Tcp), (false, Protocol::Udp), (true, Protocol::Tcp), (true, Protocol::Udp)]
    {
        let family = if v6 { "ipv6" } else { "ipv4" };
        let ask = ask(v6, protocol);
        let name = format!("nat {family} {}", protocol.name());
        add(&format!("{name}, request"), &inline, &ask, Direction::Original);
        add(&format!("{name}, reply"), &inline, &ask, Direction::Reply);
        add(
            &format!("dsr {family} {}", protocol.name()),
            &inline,
            &Ask { nat: false, ..ask },
            Direction::Original,
        );
    }
    let tcp = ask(false, Protocol::Tcp);
    for (name, from, to) in [
        ("tag on", None, Some(20)),
        ("tag off", Some(10), None),
        ("another tag", Some(10), Some(20)),
        ("the same tag", Some(10), Some(10)),
    ] {
        let tagged = Topology { ports: vec![port(0, from), port(1, to)] };
        add(name, &tagged, &Ask { nat: false, ..tcp }, Direction::Original);
    }
    for (kind, v6, tag) in [
        (Encapsulation::Vxlan, false, None),
        (Encapsulation::Vxlan, true, Some(20)),
        (Encapsulation::Geneve, false, None),
        (Encapsulation::Gue, false, None),
        (Encapsulation::Gue, true, None),
        (Encapsulation::Ipip, true, None),
        (Encapsulation::Ipip, false, Some(20)),
    ] {
        let mut tagged = Topology { ports: vec![port(0, None), port(1, tag)] };
        tagged.ports[1].mtu = 9000;
        let asked = Ask { nat: false, tunnel: Some(around(kind, v6)), ..tcp };
        let name = format!("{} in ipv{}", kind.name(), if v6 { 6 } else { 4 });
        add(&name, &tagged, &asked, Direction::Original);
    }
    let udp = ask(true, Protocol::Udp);
    let mut roomy = inline.clone();
    roomy.ports[1].mtu = 9000;
    let asked = Ask { nat: false, tunnel: Some(around(Encapsulation::Vxlan, false)), ..udp };
    add("ipv6 in vxlan in ipv4", &roomy, &asked, Direction::Original);
    if hairpins {
        rules.extend(of_hairpins(&tcp));
    }
    let drop = |key| lower::denial(&inline, PortId(0), key).expect("hardware can");
    let drops = [("denied ipv4 tcp", drop(&tcp.key)), ("denied ipv6 udp", drop(&udp.key))];
    rules.extend(drops.map(|(name, rule)| (name.to_owned(), rule)));
    rules.extend(of_tunnels(tcp, udp));
    if !hairpins {
        rules.retain(|(_, rule)| lower::suits(Kind::Template, rule));
    }
    rules
}

/// A rule of hairpin queues, and what comes before it.
fn of_hairpins(tcp: &Ask) -> Vec<(String, Rule)> {
    let joined = |ethdev, egress| PortFacts {
        domain: None,
        hairpins: vec![Hairpin { egress, queue: 1 }],
        ..port(ethdev, None)
    };
    let two_arm = Topology { ports: vec![joined(0, PortId(1)), joined(1, PortId(0))] };
    let rule = lower::leg(&two_arm, tcp, Direction::Original, Some(30)).expect("a rule");
    let mut rules = vec![("hairpin".to_owned(), rule)];
    let base = lower::base_rules(&two_arm).into_iter().enumerate();
    rules.extend(base.map(|(at, rule)| (format!("hairpin base {at}"), rule)));
    rules
}

/// Connections of clients behind a tunnel, and the rules that lead to them.
fn of_tunnels(tcp: Ask, udp: Ask) -> Vec<(String, Rule)> {
    let mut rules = Vec::new();
    for (kind, encapsulation) in
        [(rule::Tunnel::Vxlan, Encapsulation::Vxlan), (rule::Tunnel::Geneve, Encapsulation::Geneve)]
    {
        let (outside, name) = (behind_tunnel(kind), encapsulation.name());
        for (direction, way) in [(Direction::Original, "out of"), (Direction::Reply, "into")] {
            for asked in [tcp, udp].map(|ask| by_tunnel(encapsulation, ask)) {
                // As short as testpmd needs its lines to be.
                let asked = Ask { nat: direction == Direction::Reply, ..asked };
                let rule = lower::leg(&outside, &asked, direction, None).expect("a rule");
                let family = if asked.key.dst.is_v4() { "ipv4" } else { "ipv6" };
                rules.push((format!("{family} {way} {name}"), rule));
            }
        }
        let base = lower::base_rules(&outside).into_iter().filter(|rule| rule.attr.group != 0).enumerate();
        rules.extend(base.map(|(at, rule)| (format!("{name} base {at}"), rule)));
    }
    rules
}

#[test]
fn software_steering() {
    let mut text = String::new();
    for (name, rule) in rules(true) {
        writeln!(text, "# {name}\n{}", rule.testpmd(Dialect::Sync)).expect("a string");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn hardware_steering() {
    let mut text = String::new();
    let mut tables = std::collections::HashSet::new();
    for (name, rule) in rules(false) {
        writeln!(text, "# {name}").expect("a string");
        if tables.insert(rule.table_shape()) {
            writeln!(text, "{}", rule.testpmd_table(64)).expect("a string");
        }
        writeln!(text, "{}", rule.testpmd(Dialect::Template)).expect("a string");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn rules_of_one_shape_share_a_table() {
    let shapes: Vec<(u32, Rule)> =
        rules(true).iter().map(|(_, rule)| (rule.table_number(), rule.table_shape())).collect();
    for (number, shape) in &shapes {
        let alike = shapes.iter().all(|(other, that)| (number == other) == (shape == that));
        assert!(alike, "{number} is the number of one shape");
    }
}
