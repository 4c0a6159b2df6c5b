//! Frames that come out of tunnels, and answers that are put into them.

use dataplane::addr::{Ip, MacAddr};
use dataplane::flow::Direction;
use dataplane::ids::PortId;
use dataplane::rewrite::Outer;
use dataplane::snapshot::{Encapsulation, Tunnel as OutTunnel};
use offload::engine::{Completion, FlowEngine, Kind, LegId};
use offload::lower::ports::{Inside, TunnelPort};
use offload::lower::{self, PortFacts, Topology};
use offload::rule::{Item, Rule, Tunnel};
use offload::{Ask, RuleId};

use crate::bed::{Bed, HOST, Seen, UPLINK, ask, frame, legs};

/// The port behind the tunnel.
const INNER: PortId = PortId(2);
const OWN: Ip = Ip::v4(0x0a00_0001);
const REMOTE: Ip = Ip::v4(0x0a00_0009);
const FAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xf]);
/// Bytes around a frame.
const AROUND: usize = 14 + 20 + 8 + 8;

/// Those of each kind that the engine knows.
pub(crate) fn are_taken_off_and_put_on(bed: &mut Bed<'_>, base: usize) {
    one_kind(bed, base, Tunnel::Vxlan);
    if bed.engine.traits().kind == Kind::Sync {
        one_kind(bed, base, Tunnel::Geneve);
    }
}

fn one_kind(bed: &mut Bed<'_>, base: usize, kind: Tunnel) {
    let topology = behind(&bed.topology, kind);
    let asked = by_tunnel(kind);
    let mut rules = leading(&topology);
    for leg in legs(0) {
        rules.push((leg, lower::leg(&topology, &asked, leg.direction, None).expect("a rule")));
    }
    for (leg, rule) in &rules {
        bed.retried(|engine| engine.install(*leg, rule)).unwrap_or_else(|error| panic!("{error}: {rule:#?}"));
    }
    let ended = bed.finish();
    assert!(ended.iter().all(|ended| matches!(ended, Completion::Installed(_))), "{ended:?}");

    let own_mac = topology.ports[0].mac;
    let inside = frame(0, Direction::Original);
    let taken = around(kind, own_mac, 9, &inside);
    let seen = bed.pass(UPLINK, std::slice::from_ref(&taken));
    let expected = Seen::translated(&bed.topology, 0, Direction::Original);
    assert_eq!((seen[0].len(), Seen::of(&seen[1][0])), (0, expected));
    let mut expiring = inside.clone();
    expiring[22] = 1;
    let mut closing = inside.clone();
    closing[47] |= 1;
    let mut marked = taken.clone();
    marked[15] = 3;
    let others = [
        around(kind, own_mac, 9, &expiring),
        around(kind, own_mac, 9, &closing),
        around(kind, own_mac, 10, &inside),
        around(kind, FAR, 9, &inside),
        marked,
    ];
    for other in others {
        assert_eq!(
            bed.pass(UPLINK, std::slice::from_ref(&other)),
            [vec![other], vec![]],
            "software gets it as it came"
        );
    }
    let count = bed.engine.count(legs(0)[0]).expect("it has a counter");
    assert_eq!((count.packets, count.bytes), (1, taken.len() as u64));

    let seen = bed.pass(HOST, &[frame(0, Direction::Reply)]);
    let out = &seen[0][0];
    assert_eq!((&out[..6], &out[26..34]), (&FAR.0[..], &[10, 0, 0, 1, 10, 0, 0, 9][..]));
    let expected = Seen::translated(&topology, 0, Direction::Reply);
    assert_eq!(Seen::of(&out[AROUND..]), Seen { macs: Seen::of(&out[AROUND..]).macs, ..expected });
    assert_eq!(out[AROUND + 6..][..6], topology.ports[2].mac.0);

    rules.iter().for_each(|(leg, _)| bed.retried(|engine| engine.remove(*leg)).expect("it is in force"));
    bed.finish();
    rules.iter().for_each(|(leg, _)| bed.engine.release(*leg));
    bed.expect_device_rules(base);
}

/// With a port behind a tunnel by the uplink.
fn behind(topology: &Topology, kind: Tunnel) -> Topology {
    let tunnel = TunnelPort { link: UPLINK, inside: Some(Inside { kind, vni: 9, own: OWN, remote: REMOTE }) };
    let mut topology = topology.clone();
    let mac = MacAddr([2, 0, 0, 0, 0, 0x77]);
    topology.ports.push(PortFacts { mac, tunnel: Some(tunnel), ..topology.ports[0].clone() });
    topology
}

/// The first connection, of a client behind it.
fn by_tunnel(kind: Tunnel) -> Ask {
    let mut asked = ask(0);
    let [Some(there), Some(back)] = &mut asked.legs else { panic!("both directions pass") };
    (there.ingress, back.egress) = (INNER, INNER);
    let kind = if kind == Tunnel::Vxlan { Encapsulation::Vxlan } else { Encapsulation::Geneve };
    let outer = Outer::of_frames(&OutTunnel { vni: 9, ..OutTunnel::new(kind) }, OWN, REMOTE);
    asked.tunnel = outer.around(0, 7).map(|around| around.sent_to(FAR));
    asked
}

/// The rules that lead to those of connections over IPv4, named as no connection is.
fn leading(topology: &Topology) -> Vec<(LegId, Rule)> {
    let over_v4 = |rule: &Rule| !rule.innermost().iter().any(|item| matches!(item, Item::Ipv6 { .. }));
    let rules = lower::base_rules(topology).into_iter().filter(|rule| rule.attr.group != 0 && over_v4(rule));
    let named = |(at, rule)| (LegId { rule: RuleId(1500 + at), direction: Direction::Original }, rule);
    (0u32..).zip(rules).map(named).collect()
}

/// What the far end makes of a frame.
fn around(kind: Tunnel, dst: MacAddr, vni: u8, inside: &[u8]) -> Vec<u8> {
    let (port, shim): (u16, _) = match kind {
        Tunnel::Vxlan => (4789, [8, 0, 0, 0, 0, 0, vni, 0]),
        Tunnel::Geneve => (6081, [0, 0, 0x65, 0x58, 0, 0, vni, 0]),
    };
    let udp_len = 8 + 8 + inside.len() as u16;
    let mut packet = [&dst.0[..], &FAR.0[..], &[8, 0, 0x45, 0]].concat();
    packet.extend((20 + udp_len).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1]);
    packet.extend([50_000, port, udp_len, 0].iter().flat_map(|word: &u16| word.to_be_bytes()));
    packet.extend(shim);
    packet.extend(inside);
    packet
}
