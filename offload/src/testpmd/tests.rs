//! What is printed, reviewed by eye; `tests/test_rules.py` lets testpmd have the very same lines.

use super::*;
use crate::lower::{self, Hairpin, PortFacts, Topology};
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
        let joined = |ethdev, egress| PortFacts {
            domain: None,
            hairpins: vec![Hairpin { egress, queue: 1 }],
            ..port(ethdev, None)
        };
        let two_arm = Topology { ports: vec![joined(0, PortId(1)), joined(1, PortId(0))] };
        add("hairpin", &two_arm, &tcp, Direction::Original);
        let base = lower::base_rules(&two_arm).into_iter().enumerate();
        rules.extend(base.map(|(at, rule)| (format!("hairpin base {at}"), rule)));
    }
    let drop = |key| lower::denial(&inline, PortId(0), key).expect("hardware can");
    let drops = [("denied ipv4 tcp", drop(&tcp.key)), ("denied ipv6 udp", drop(&udp.key))];
    rules.extend(drops.map(|(name, rule)| (name.to_owned(), rule)));
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
