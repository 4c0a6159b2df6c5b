//! The worker's side of offloading: what it asks for, what it makes of answers, what it takes back.

use crate::common::frames::{fragment_ipv4, read, tcp, udp, udp_ttl};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use crate::frames::repair_ipv4;
use dataplane::addr::MacAddr;
use dataplane::conntrack::{Count, State};
use dataplane::counters::{Counter, PccCause, WorkerCounters};
use dataplane::ids::{BackendId, PortId};
use dataplane::offload::{
    Answer, Ask, Declined, FlowRef, Leg, OffloadState, Removal, Revocation, Revoke, RuleId, Token,
};

const PORTS: &str = r#"
[limits]
connections = 64
half_open_percent = 50
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24", "fd00:1::1/64"]
gateway = "10.0.0.254"
gateway6 = "fd00:1::fe"
[[port]]
name = "back"
device = "net_null1"
addresses = ["10.0.1.1/24", "fd00:2::1/64"]
"#;

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 1, 254]);
const SERVERS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 2, 11]), MacAddr([2, 0, 0, 0, 2, 12])];
const CLIENT: &str = "198.51.100.7:5555";
const VIP: &str = "192.0.2.80:80";
const RULE: RuleId = RuleId(7);

fn service(more: &str, backends: &[&str]) -> String {
    let backend = |ip: &&str| format!("[[service.backend]]\naddress = \"{ip}:8080\"\n");
    format!(
        "{PORTS}[[service]]\nname = \"web\"\nvip = \"192.0.2.80\"\nprotocol = \"tcp\"\nports = [80]\n{more}\n{}",
        backends.iter().map(backend).collect::<String>()
    )
}

fn web() -> String {
    service("", &["10.0.1.11"])
}

/// A world whose neighbours are known and whose price is 3 packets.
fn world(config: &str) -> World {
    let mut world = World::new(config, 1);
    world.pass_ms(10, 1);
    for (port, ip, mac) in [
        (FRONT, "10.0.0.254", GATEWAY),
        (FRONT, "fd00:1::fe", GATEWAY),
        (FRONT, "10.0.0.11", SERVERS[0]),
        (BACK, "10.0.1.11", SERVERS[0]),
        (BACK, "10.0.1.12", SERVERS[1]),
        (BACK, "fd00:2::11", SERVERS[0]),
    ] {
        world.know(port, ip, mac);
    }
    world.pass_ms(1, 1);
    world.workers[0].set_price(3);
    world
}

fn from_client(world: &mut World, flags: &str) -> Vec<(PortId, Vec<u8>)> {
    world.receive(FRONT, &tcp(PORT_MACS[0], CLIENT, VIP, flags, b""))
}

fn from_server(world: &mut World, flags: &str) -> Vec<(PortId, Vec<u8>)> {
    world.receive(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", CLIENT, flags, b""))
}

/// The handshake of the one connection of most tests here: its third packet makes it worth asking for.
fn shake_hands(world: &mut World) {
    from_client(world, "S");
    from_server(world, "SA");
    from_client(world, "A");
}

#[track_caller]
fn asked(world: &mut World) -> Ask {
    let asks = std::mem::take(&mut world.envs[0].asks);
    let [ask] = asks[..] else { panic!("expected one ask: {asks:?}") };
    ask
}

fn revoked(world: &mut World) -> Vec<Revoke> {
    std::mem::take(&mut world.envs[0].revokes)
}

/// A world with one connection, which hardware has.
fn offloaded(config: &str) -> (World, Ask) {
    let mut world = world(config);
    shake_hands(&mut world);
    let ask = asked(&mut world);
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule: RULE });
    assert_eq!(state(&world), OffloadState::Installed(RULE));
    (world, ask)
}

#[track_caller]
fn state(world: &World) -> OffloadState {
    let rows = world.rows();
    let [row] = &rows[..] else { panic!("expected one connection: {rows:?}") };
    row.offload
}

fn counted(ask: &Ask, packets: [u64; 2]) -> Answer {
    let count = |packets| Count { packets, bytes: packets * 100 };
    Answer::Counted {
        flow: ask.flow,
        rule: Some(RULE),
        backend: ask.backend,
        counts: packets.map(count),
        next_hops: ask.legs.map(|leg| leg.map(|leg| leg.next_hop)),
        below: ask.tunnel.and_then(|around| around.below()),
    }
}

fn removed(ask: &Ask, retry_ms: u32) -> Answer {
    Answer::Removed { flow: ask.flow, rule: RULE, why: Removal::Idle, retry_ms }
}

fn revoke(ask: &Ask, why: Revocation) -> Revoke {
    Revoke { flow: ask.flow, rule: RULE, why }
}

fn count(world: &World, counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
    counter(&world.envs[0].counters).get()
}

fn leg(ingress: PortId, egress: PortId, next_hop: MacAddr) -> Option<Leg> {
    Some(Leg { ingress, egress, next_hop })
}

/// Time passes, and neighbours answer when they are asked for.
fn pass_answering(world: &mut World, ms: u32) {
    for (port, _) in world.pass_ms(ms, 500) {
        let (ip, mac) = if port == BACK { ("10.0.1.11", SERVERS[0]) } else { ("10.0.0.254", GATEWAY) };
        world.know(port, ip, mac);
    }
}

#[test]
fn a_connection_is_asked_for_once_it_is_established_and_has_paid_the_price() {
    let mut world = world(&web());
    from_client(&mut world, "S");
    from_server(&mut world, "SA");
    world.pass_ms(40, 40);
    assert_eq!(world.envs[0].asks, []);
    from_client(&mut world, "A");
    let ask = asked(&mut world);
    assert_eq!(ask.legs, [leg(FRONT, BACK, SERVERS[0]), leg(BACK, FRONT, GATEWAY)]);
    assert_eq!((ask.packets, ask.age_ms, ask.nat, ask.backend), (3, 40, true, BackendId(0)));
    assert_eq!(ask.key, world.rows()[0].key);
    assert_eq!(ask.backend_end.1, 8080);
    assert_eq!(state(&world), OffloadState::Requested(ask.token));
    // Asked for once.
    from_client(&mut world, "A");
    assert_eq!(world.envs[0].asks, []);
    assert_eq!((count(&world, |c| &c.offload_asked), count(&world, |c| &c.offload_requested)), (1, 1));
}

#[test]
fn never_is_never() {
    let mut world = world(&web());
    world.workers[0].set_price(u32::MAX);
    shake_hands(&mut world);
    (0..40).for_each(|_| drop(from_client(&mut world, "A")));
    assert_eq!(world.envs[0].asks, []);
    world.workers[0].set_price(0);
    from_server(&mut world, "A");
    let ask = asked(&mut world);
    assert_eq!((ask.packets, ask.legs[0].is_some(), ask.legs[1].is_some()), (44, true, true));
}

#[test]
fn ipv6_udp_and_direct_return_are_asked_for_alike() {
    let more = r#"
[[service]]
name = "web6"
vip = "2001:db8::80"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "[fd00:2::11]:8080"
[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
[[service.backend]]
address = "10.0.1.11:53"
[[service]]
name = "direct"
vip = "192.0.2.81"
protocol = "udp"
ports = [80]
mode = "dsr"
[[service.backend]]
address = "10.0.0.11"
"#;
    let mut world = world(&(web() + more));
    let (client6, vip6) = ("[2001:db8:1::7]:5555", "[2001:db8::80]:80");
    world.receive(FRONT, &tcp(PORT_MACS[0], client6, vip6, "S", b""));
    world.receive(BACK, &tcp(PORT_MACS[1], "[fd00:2::11]:8080", client6, "SA", b""));
    world.receive(FRONT, &tcp(PORT_MACS[0], client6, vip6, "A", b""));
    let both = [leg(FRONT, BACK, SERVERS[0]), leg(BACK, FRONT, GATEWAY)];
    let ask = asked(&mut world);
    assert_eq!((ask.legs, ask.nat, ask.key.src.is_v4()), (both, true, false));

    let dns = "192.0.2.53:53";
    world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, dns, b"?"));
    world.receive(BACK, &udp(PORT_MACS[1], "10.0.1.11:53", CLIENT, b"!"));
    world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, dns, b"?"));
    assert_eq!(asked(&mut world).legs, both);

    for _ in 0..3 {
        world.pass_ms(5, 5);
        world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, "192.0.2.81:80", b"?"));
    }
    let ask = asked(&mut world);
    assert_eq!((ask.legs, ask.nat), ([leg(FRONT, FRONT, SERVERS[0]), None], false));
}

#[test]
fn packets_that_hardware_would_not_take_do_not_ask() {
    let dns = "[[service]]\nname = \"dns\"\nvip = \"192.0.2.53\"\nprotocol = \"udp\"\nports = [53]\n\
               [[service.backend]]\naddress = \"10.0.1.11:53\"\n";
    let mut world = world(&(web() + dns));
    world.workers[0].set_price(4);
    let vip = "192.0.2.53:53";
    let from_client = |ttl| udp_ttl(PORT_MACS[0], CLIENT, vip, b"?", ttl);
    world.receive(FRONT, &from_client(64));
    world.receive(BACK, &udp(PORT_MACS[1], "10.0.1.11:53", CLIENT, b"!"));
    world.receive(FRONT, &from_client(64));
    world.receive(FRONT, &from_client(1));
    let (first, second) = fragment_ipv4(&udp(PORT_MACS[0], CLIENT, vip, &[b'?'; 1000]), 504);
    world.receive(FRONT, &first);
    world.receive(FRONT, &second);
    shake_hands(&mut world);
    from_server(&mut world, "SA");
    assert_eq!(world.envs[0].asks, []);
    world.receive(FRONT, &from_client(64));
    assert_eq!(asked(&mut world).key.dst_port, 53);
}

#[test]
fn a_busy_connection_is_asked_for_again_as_soon_as_it_may_be() {
    let mut world = world(&web());
    for port in 6000..6020 {
        let client = format!("198.51.100.7:{port}");
        world.receive(FRONT, &tcp(PORT_MACS[0], &client, VIP, "S", b""));
    }
    shake_hands(&mut world);
    let ask = asked(&mut world);
    let Ask { flow, token, .. } = ask;
    world.answer(&Answer::Declined { flow, token, reason: Declined::Budget, retry_ms: 100 });
    world.pass_ms(99, 1);
    (0..40).for_each(|_| drop(from_client(&mut world, "A")));
    assert_eq!(world.envs[0].asks, []);
    // The review of the whole table comes by much later.
    world.pass_ms(1, 1);
    (0..16).for_each(|_| drop(from_client(&mut world, "A")));
    assert_eq!(asked(&mut world).packets, 48);
}

#[test]
fn a_full_ring_leaves_the_connection_where_it_is() {
    let mut world = world(&web());
    world.envs[0].asks_full = true;
    shake_hands(&mut world);
    assert_eq!((state(&world), count(&world, |c| &c.offload_ask_refused)), (OffloadState::Software, 1));
    world.envs[0].asks_full = false;
    from_client(&mut world, "A");
    assert_eq!(asked(&mut world).token, Token(0));
}

#[test]
fn a_burst_asks_for_four_at_most() {
    let mut world = world(&web());
    let clients: Vec<String> = (0..9).map(|n| format!("198.51.100.7:{}", 6000 + n)).collect();
    for client in &clients {
        world.receive(FRONT, &tcp(PORT_MACS[0], client, VIP, "S", b""));
        world.receive(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", client, "SA", b""));
    }
    let acks: Vec<_> = clients.iter().map(|client| tcp(PORT_MACS[0], client, VIP, "A", b"")).collect();
    for expected in [4, 4, 1, 0] {
        world.receive_on(0, FRONT, &acks);
        assert_eq!(std::mem::take(&mut world.envs[0].asks).len(), expected);
    }
    let tokens: std::collections::BTreeSet<String> =
        world.rows().iter().map(|row| format!("{:?}", row.offload)).collect();
    assert_eq!(tokens.len(), 9, "each has a token of its own");
}

#[test]
fn only_what_is_allowed_is_asked_for() {
    let mut refused = world(&service("offload = false", &["10.0.1.11"]));
    shake_hands(&mut refused);
    assert_eq!(refused.envs[0].asks, []);

    let drained = web().replace(":8080\"", ":8080\"\nweight = 0");
    for (draining, asks) in [("software", 0), ("hardware", 1)] {
        let mut world = world(&web());
        world.workers[0].set_price(4);
        shake_hands(&mut world);
        world.reload(&format!("[offload]\ndraining = \"{draining}\"\n{drained}"));
        from_client(&mut world, "A");
        assert_eq!(world.envs[0].asks.len(), asks, "{draining}");
    }
}

#[test]
fn a_smaller_link_keeps_its_direction_in_software() {
    // Towards the backend packets may have to be refused, which only software tells their sender.
    let small_back = web().replace("net_null1\"", "net_null1\"\nmtu = 1400");
    let mut half = world(&small_back);
    shake_hands(&mut half);
    assert_eq!(asked(&mut half).legs, [None, leg(BACK, FRONT, GATEWAY)]);

    let direct = web().replace("ports = [80]", "ports = [80]\nmode = \"dsr\"").replace(":8080", "");
    let mut none = world(&direct.replace("net_null1\"", "net_null1\"\nmtu = 1400"));
    from_client(&mut none, "S");
    from_client(&mut none, "A");
    from_client(&mut none, "A");
    assert_eq!((state(&none), none.envs[0].asks.len()), (OffloadState::Declined(Declined::Mtu), 0));
    none.pass_ms(36_000, 500);
    assert_eq!(state(&none), OffloadState::Software);
}

/// One service behind tunnels, whose port towards backends has room for them.
fn tunnelled(mode: &str, keys: &str, backend: &str) -> String {
    let config = service(&format!("mode = \"{mode}\"\ntunnel = {{ {keys} }}"), &[backend]);
    config.replace(":8080", "").replace("net_null0\"", "net_null0\"\nmtu = 1400")
}

/// An ACK of this traffic class.
fn ack(class: u8) -> Vec<u8> {
    let mut frame = tcp(PORT_MACS[0], CLIENT, VIP, "A", b"");
    frame[15] = class;
    repair_ipv4(&mut frame);
    frame
}

const IN_VXLAN: &str = "vni = 7, inner_mac = \"02:00:00:00:00:77\"";

#[test]
fn what_is_around_packets_is_asked_for_with_one_that_bears_no_mark() {
    let mut world = world(&tunnelled("vxlan", IN_VXLAN, "10.0.1.11"));
    from_client(&mut world, "S");
    for class in [0x29, 0x2a, 0x2b] {
        assert_eq!(world.receive(FRONT, &ack(class)).len(), 1);
    }
    assert_eq!((state(&world), world.envs[0].asks.len()), (OffloadState::Software, 0));
    world.receive(FRONT, &ack(0x28));
    let ask = asked(&mut world);
    assert_eq!(ask.legs, [leg(FRONT, BACK, SERVERS[0]), None]);
    let around = ask.tunnel.expect("it is behind a tunnel");
    assert_eq!(around.class(), (0x28, 0xff));
    assert_eq!(around.inner_link(), Some([MacAddr([2, 0, 0, 0, 0, 0x77]), PORT_MACS[1]]));
    // What hardware puts on is what software does, but for lengths and IPv4's checksum.
    let mut sent = world.receive(FRONT, &ack(0x28)).remove(0).1;
    [16..18, 24..26, 38..40].into_iter().for_each(|unknown| sent[unknown].fill(0));
    assert_eq!(sent[14..14 + around.headers().len()], *around.headers());

    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule: RULE });
    world.pass_ms(2_000, 100);
    world.answer(&counted(&ask, [1, 0]));
    world.receive(FRONT, &ack(0x2a));
    assert_eq!(count(&world, |c| &c.offload_miss), 0, "no rule matches such packets");
    world.receive(FRONT, &ack(0x28));
    assert_eq!(count(&world, |c| &c.offload_miss), 1);
}

#[test]
fn tunnels_that_only_software_makes() {
    let declined = |config: &str| {
        let mut world = world(config);
        ["S", "A", "A", "A"].into_iter().for_each(|flags| drop(from_client(&mut world, flags)));
        assert_eq!(world.envs[0].asks, []);
        state(&world)
    };
    let in_v6 = tunnelled("gue", "", "fd00:2::11");
    assert_eq!(declined(&in_v6), OffloadState::Declined(Declined::Tunnel), "UDP over IPv6 has a checksum");
    let tight = tunnelled("vxlan", IN_VXLAN, "10.0.1.11").replace("net_null1\"", "net_null1\"\nmtu = 1449");
    assert_eq!(declined(&tight), OffloadState::Declined(Declined::Mtu));
    let mut unsummed = world(&tunnelled("gue", "udp6_checksum = false, dscp = 46", "fd00:2::11"));
    ["S", "A", "A"].into_iter().for_each(|flags| drop(from_client(&mut unsummed, flags)));
    let around = asked(&mut unsummed).tunnel.expect("it is behind a tunnel");
    assert_eq!((around.is_v4(), around.class(), around.inner_link()), (false, (0, 3), None));
}

#[test]
fn an_unknown_next_hop_is_waited_for() {
    let mut world = World::new(&web(), 1);
    world.workers[0].set_price(1);
    world.know(BACK, "10.0.1.11", SERVERS[0]);
    shake_hands(&mut world);
    assert_eq!((world.envs[0].asks.len(), state(&world)), (0, OffloadState::Software));
    world.know(FRONT, "10.0.0.254", GATEWAY);
    from_client(&mut world, "A");
    assert_eq!(asked(&mut world).legs[1], leg(BACK, FRONT, GATEWAY));
}

/// A packet says where its direction comes in; the other one comes in where this one leaves.
#[test]
fn legs_begin_where_packets_come_in() {
    let mut world = world(&web());
    world.workers[0].set_price(4);
    shake_hands(&mut world);
    // The client's packets come by the other port now.
    world.receive(BACK, &tcp(PORT_MACS[1], CLIENT, VIP, "A", b""));
    assert_eq!(asked(&mut world).legs, [leg(BACK, BACK, SERVERS[0]), leg(BACK, FRONT, GATEWAY)]);
}

#[test]
fn only_the_answer_to_the_request_installs() {
    let mut world = world(&web());
    shake_hands(&mut world);
    let ask = asked(&mut world);
    let other = Token(ask.token.0 + 1);
    world.answer(&Answer::Declined { flow: ask.flow, token: other, reason: Declined::Budget, retry_ms: 9 });
    assert_eq!(state(&world), OffloadState::Requested(ask.token));
    world.answer(&Answer::Installed { flow: ask.flow, token: other, rule: RuleId(9) });
    assert_eq!(state(&world), OffloadState::Requested(ask.token));
    assert_eq!(revoked(&mut world), [Revoke { flow: ask.flow, rule: RuleId(9), why: Revocation::Orphan }]);
    let installed = Answer::Installed { flow: ask.flow, token: ask.token, rule: RULE };
    world.answer(&installed);
    world.answer(&installed);
    assert_eq!((state(&world), revoked(&mut world)), (OffloadState::Installed(RULE), vec![]));
    assert_eq!(count(&world, |c| &c.offload_installed), 1);
}

#[test]
fn a_connection_that_closes_meanwhile_is_taken_back_at_once() {
    let mut world = world(&web());
    shake_hands(&mut world);
    let ask = asked(&mut world);
    from_client(&mut world, "FA");
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule: RULE });
    assert_eq!(state(&world), OffloadState::Removing(RULE));
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Closing)]);
}

#[test]
fn late_answers_for_a_recycled_slot_are_recognised() {
    let (mut world, old) = offloaded(&service("on_remove = \"reset\"", &["10.0.1.11"]));
    world.reload(&service("on_remove = \"reset\"", &["10.0.1.12"]));
    world.answer(&removed(&old, 0));
    world.pass_ms(6_000, 100);
    assert_eq!(world.rows(), []);
    from_client(&mut world, "S");
    let row = world.rows()[0];
    assert_eq!((row.flow.slot, row.flow.generation == old.flow.generation), (old.flow.slot, false));

    world.answer(&removed(&old, 100));
    world.answer(&Answer::Declined {
        flow: old.flow,
        token: old.token,
        reason: Declined::Budget,
        retry_ms: 9,
    });
    world.answer(&Answer::Installed { flow: old.flow, token: old.token, rule: RULE });
    world.answer(&counted(&old, [5, 0]));
    assert_eq!(revoked(&mut world), [revoke(&old, Revocation::Orphan); 2]);
    assert_eq!(count(&world, |c| c.pcc(PccCause::StaleRule)), 1);
    let row = world.rows()[0];
    assert_eq!((row.offload, row.totals.original.packets), (OffloadState::Software, 1));
    assert_eq!(count(&world, |c| &c.backend(old.backend).unwrap().hardware[0].packets), 5);
    let elsewhere = FlowRef { slot: u32::MAX, ..old.flow };
    world.answer(&Answer::Installed { flow: elsewhere, token: old.token, rule: RULE });
    assert_eq!(revoked(&mut world).len(), 1);
}

#[test]
fn counts_of_hardware_are_the_connections_and_the_backends() {
    let (mut world, ask) = offloaded(&web());
    world.pass_ms(600, 100);
    world.answer(&counted(&ask, [10, 20]));
    world.answer(&counted(&ask, [0, 1]));
    let last = Answer::Counted {
        flow: ask.flow,
        rule: None,
        backend: ask.backend,
        counts: [Count { packets: 2, bytes: 3 }, Count::default()],
        next_hops: [None; 2],
        below: None,
    };
    world.answer(&removed(&ask, 0));
    world.answer(&last);
    let row = world.rows()[0];
    assert_eq!((row.totals.original.packets, row.totals.reply.packets), (2 + 12, 1 + 21));
    assert_eq!((row.totals.reply.bytes, row.idle_ms), (40 + 2100, 0));
    let backend = world.envs[0].counters.backend(ask.backend).unwrap();
    let hardware = [0, 1].map(|n| (backend.hardware[n].packets.get(), backend.hardware[n].bytes.get()));
    assert_eq!(hardware, [(12, 1003), (21, 2100)]);
    assert_eq!((backend.original.packets.get(), backend.reply.packets.get()), (2, 1));
    assert_eq!((state(&world), revoked(&mut world)), (OffloadState::Software, vec![]));
}

#[test]
fn packets_that_should_not_be_here_are_counted_once_rules_have_settled() {
    let (mut world, ask) = offloaded(&web());
    from_client(&mut world, "A");
    assert_eq!((count(&world, |c| &c.offload_late), count(&world, |c| &c.offload_miss)), (1, 0));
    world.pass_ms(2_000, 100);
    world.answer(&counted(&ask, [1, 0]));
    from_client(&mut world, "A");
    from_server(&mut world, "A");
    from_server(&mut world, "SA");
    assert_eq!((count(&world, |c| &c.offload_late), count(&world, |c| &c.offload_miss)), (1, 2));
    // While they are kept from their rules on purpose, they should.
    world.workers[0].set_fenced(true);
    from_client(&mut world, "A");
    assert_eq!((count(&world, |c| &c.offload_late), count(&world, |c| &c.offload_miss)), (1, 2));
    world.workers[0].set_fenced(false);

    // A direction that is software's cannot miss.
    world.answer(&removed(&ask, 0));
    from_client(&mut world, "A");
    let half = Ask { legs: [None, ask.legs[1]], ..asked(&mut world) };
    world.answer(&Answer::Installed { flow: half.flow, token: half.token, rule: RULE });
    world.pass_ms(2_000, 100);
    world.answer(&counted(&half, [0, 1]));
    from_client(&mut world, "A");
    assert_eq!(count(&world, |c| &c.offload_miss), 2);
    from_server(&mut world, "A");
    assert_eq!((count(&world, |c| &c.offload_late), count(&world, |c| &c.offload_miss)), (1, 3));
}

#[test]
fn the_end_of_a_connection_is_softwares() {
    for flags in ["FA", "R"] {
        let (mut world, ask) = offloaded(&web());
        from_server(&mut world, flags);
        assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Closing)]);
        assert_eq!(state(&world), OffloadState::Removing(RULE));
        world.answer(&counted(&ask, [1, 1]));
        assert_eq!(revoked(&mut world), [], "it is on its way");
        world.pass_ms(2_000, 100);
        world.answer(&counted(&ask, [0, 0]));
        assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Closing)], "said once more");
        world.answer(&removed(&ask, 0));
        assert_eq!(state(&world), OffloadState::Software);
        assert_eq!(count(&world, |c| &c.offload_revoked[Revocation::Closing as usize]), 2);
    }
}

#[test]
fn a_revocation_that_finds_no_room_is_made_up_for() {
    let (mut world, ask) = offloaded(&web());
    world.envs[0].revokes_full = true;
    from_server(&mut world, "FA");
    world.answer(&counted(&ask, [1, 1]));
    assert_eq!(state(&world), OffloadState::Installed(RULE));
    assert_eq!(count(&world, |c| &c.offload_revoke_refused), 2);
    world.envs[0].revokes_full = false;
    world.answer(&counted(&ask, [0, 0]));
    assert_eq!(state(&world), OffloadState::Removing(RULE));
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Closing)]);
}

#[test]
fn policy_and_next_hops_take_connections_back() {
    let config = service("", &["10.0.1.11"]);
    let drained = config.replace(":8080\"", ":8080\"\nweight = 0");
    let removed = service("", &["10.0.1.12"]);
    let not_offloaded = service("offload = false", &["10.0.1.11"]);
    for other in [&drained, &removed, &not_offloaded] {
        let (mut world, ask) = offloaded(&config);
        world.reload(other);
        world.answer(&counted(&ask, [1, 1]));
        assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Policy)], "{other}");
    }
    for (port, ip) in [(BACK, "10.0.1.11"), (FRONT, "10.0.0.254")] {
        let (mut world, ask) = offloaded(&config);
        world.answer(&counted(&ask, [1, 1]));
        assert_eq!(revoked(&mut world), []);
        world.know(port, ip, MacAddr([2, 0, 0, 0, 9, 9]));
        world.answer(&counted(&ask, [1, 1]));
        assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Moved)], "{ip}");
    }
}

/// Traffic that only hardware sees keeps its neighbours probed.
#[test]
fn reports_keep_neighbours_in_use() {
    let (mut world, ask) = offloaded(&web());
    for _ in 0..200 {
        world.answer(&counted(&ask, [1, 1]));
        pass_answering(&mut world, 500);
    }
    assert_eq!((revoked(&mut world), state(&world)), (vec![], OffloadState::Installed(RULE)));
}

/// A neighbour that is slow to answer has not moved; one that never does is not there any more.
#[test]
fn a_neighbour_must_fail_to_answer_before_rules_go() {
    let (mut world, ask) = offloaded(&web());
    let mut asked_everybody = false;
    for _ in 0..4 * 60 {
        world.answer(&counted(&ask, [1, 1]));
        if revoked(&mut world) == [revoke(&ask, Revocation::Moved)] {
            assert!(asked_everybody, "taken back while it was being asked alone");
            return;
        }
        let sent = world.pass_ms(250, 50);
        let groups = sent.iter().filter(|(port, frame)| *port == BACK && frame[0] & 1 == 1).count();
        if groups > 0 && !asked_everybody {
            asked_everybody = true;
            world.answer(&counted(&ask, [1, 1]));
            assert_eq!(revoked(&mut world), [], "it may answer yet");
        }
    }
    panic!("rules stay for a neighbour that is gone");
}

#[test]
fn refusals_are_forgotten_in_time() {
    let mut world = world(&web());
    shake_hands(&mut world);
    let ask = asked(&mut world);
    let refused = |ask: &Ask, retry_ms| Answer::Declined {
        flow: ask.flow,
        token: ask.token,
        reason: Declined::TenantShare,
        retry_ms,
    };
    world.answer(&refused(&ask, 1_000));
    assert_eq!(state(&world), OffloadState::Declined(Declined::TenantShare));
    assert_eq!((count(&world, |c| &c.offload_declined_now), count(&world, |c| &c.offload_requested)), (1, 0));
    world.pass_ms(999, 1);
    from_client(&mut world, "A");
    assert_eq!(state(&world), OffloadState::Declined(Declined::TenantShare));
    world.pass_ms(70, 1);
    from_client(&mut world, "A");
    let again = asked(&mut world);
    assert_ne!(again.token, ask.token);
    world.answer(&refused(&again, 0));
    assert_eq!(state(&world), OffloadState::Software);
    from_client(&mut world, "A");
    let third = asked(&mut world);
    world.answer(&Answer::Installed { flow: third.flow, token: third.token, rule: RULE });
    world.answer(&removed(&third, 50));
    assert!(matches!(state(&world), OffloadState::Declined(_)));
}

#[test]
fn silence_in_hardware_is_judged_late_and_ends_in_software() {
    let (mut world, ask) = offloaded(&service("timeouts = { tcp_established_s = 10 }", &["10.0.1.11"]));
    world.pass_ms(9_900, 100);
    world.answer(&counted(&ask, [0, 1]));
    world.pass_ms(12_900, 100);
    assert_eq!((state(&world), revoked(&mut world)), (OffloadState::Installed(RULE), vec![]));
    world.pass_ms(800, 100);
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Gone)]);
    assert_eq!(state(&world), OffloadState::Removing(RULE));
    world.answer(&removed(&ask, 0));
    world.pass_ms(3_600, 100);
    assert_eq!((world.rows(), count(&world, |c| &c.expired)), (vec![], 1));
    assert_eq!(revoked(&mut world), []);
}

/// A rule may be in force before anybody knows: a new connection of the same client's port would meet it.
#[test]
fn what_was_asked_for_stays_until_the_answer_can_be_expected() {
    let mut world = world(&service("timeouts = { tcp_established_s = 2 }", &["10.0.1.11"]));
    shake_hands(&mut world);
    let ask = asked(&mut world);
    world.pass_ms(7_500, 100);
    assert_eq!(state(&world), OffloadState::Requested(ask.token));
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule: RULE });
    world.pass_ms(1_000, 100);
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Gone)]);
}

/// However long the engine takes, a client that comes back meets its entry, and so its backend.
#[test]
fn an_entry_does_not_expire_while_hardware_may_forward_for_it() {
    let mut requested = world(&web());
    shake_hands(&mut requested);
    let ask = asked(&mut requested);
    close(&mut requested);
    requested.pass_ms(50_000, 100);
    assert_eq!(state(&requested), OffloadState::Requested(ask.token));
    let (flow, token) = (ask.flow, ask.token);
    requested.answer(&Answer::Declined { flow, token, reason: Declined::Failed, retry_ms: 9 });
    requested.pass_ms(4_000, 100);
    assert_eq!(requested.rows(), []);

    let (mut removing, ask) = offloaded(&web());
    close(&mut removing);
    for _ in 0..20 {
        removing.pass_ms(5_000, 100);
        removing.answer(&counted(&ask, [0, 0]));
    }
    assert_eq!(state(&removing), OffloadState::Removing(RULE));
    removing.answer(&removed(&ask, 0));
    removing.pass_ms(4_000, 100);
    assert_eq!(removing.rows(), []);
}

#[test]
fn an_engine_that_never_answers_holds_an_entry_for_a_minute() {
    for revokes_full in [false, true] {
        let (mut world, ask) = offloaded(&service("timeouts = { tcp_established_s = 2 }", &["10.0.1.11"]));
        world.envs[0].revokes_full = revokes_full;
        world.pass_ms(59_000, 100);
        assert_eq!(world.rows().len(), 1);
        world.pass_ms(15_000, 100);
        assert_eq!(world.rows(), []);
        world.envs[0].revokes_full = false;
        world.answer(&counted(&ask, [0, 0]));
        let orphan = revoke(&ask, Revocation::Orphan);
        let expected = if revokes_full { vec![orphan] } else { vec![revoke(&ask, Revocation::Gone), orphan] };
        assert_eq!(revoked(&mut world), expected);
        assert_eq!(count(&world, |c| &c.offload_installed) + count(&world, |c| &c.offload_removing), 0);
    }
}

#[test]
fn what_is_not_confirmed_is_softwares_again() {
    let (mut world, ask) = offloaded(&web());
    for _ in 0..100 {
        pass_answering(&mut world, 1_000);
        world.answer(&counted(&ask, [0, 0]));
    }
    assert_eq!(state(&world), OffloadState::Installed(RULE));
    pass_answering(&mut world, 66_000);
    assert_eq!(state(&world), OffloadState::Software);
    world.know(FRONT, "10.0.0.254", GATEWAY);
    from_client(&mut world, "A");
    asked(&mut world);
    pass_answering(&mut world, 66_000);
    assert_eq!(state(&world), OffloadState::Software);
}

#[test]
fn a_lost_completion_is_made_up_for_by_the_next_report() {
    let mut world = world(&web());
    shake_hands(&mut world);
    let ask = asked(&mut world);
    world.answer(&counted(&ask, [1, 0]));
    assert_eq!((state(&world), revoked(&mut world)), (OffloadState::Installed(RULE), vec![]));
    // But rules of an entry that expects none are not wanted.
    world.answer(&removed(&ask, 0));
    world.answer(&counted(&ask, [1, 0]));
    assert_eq!(
        (state(&world), revoked(&mut world)),
        (OffloadState::Software, vec![revoke(&ask, Revocation::Orphan)])
    );
}

fn close(world: &mut World) {
    from_client(world, "FA");
    from_server(world, "FA");
    from_client(world, "A");
}

#[test]
fn a_port_used_again_stays_with_its_backend_while_rules_are_pending() {
    let (mut world, ask) = offloaded(&web());
    close(&mut world);
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Closing)]);
    // Maglev would choose another one by now.
    world.reload(&(web() + "weight = 1\n[[service.backend]]\naddress = \"10.0.1.12:8080\"\nweight = 1000\n"));
    let sent = from_client(&mut world, "S");
    assert!(read(&sent[0].1).contains("> 10.0.1.11:8080 "), "{}", read(&sent[0].1));
    let row = world.rows()[0];
    assert_eq!((row.flow, row.state, row.half_open), (ask.flow, State::SynSent, true));
    assert_eq!((row.totals.original.packets, row.offload), (1, OffloadState::Removing(RULE)));
    assert_eq!((world.live(0), world.live(1)), (1, 0));
    assert_eq!(count(&world, |c| &c.backend(BackendId(0)).unwrap().connections), 2);
    world.answer(&removed(&ask, 0));
    from_server(&mut world, "SA");
    from_client(&mut world, "A");
    assert_eq!(asked(&mut world).flow, ask.flow);
    assert_eq!(world.envs[0].counters.half_open.get(), 0);
}

/// The one before it, which counts until then, is no reason to refuse it.
#[test]
fn a_port_used_again_is_not_one_connection_too_many() {
    let limit = "limit = { connections = 1, new_connections_per_second = 1, burst_ms = 1 }";
    let (mut world, ask) = offloaded(&service(limit, &["10.0.1.11"]));
    close(&mut world);
    assert_eq!(from_client(&mut world, "S").len(), 1, "{:?}", world.report());
    assert_eq!((world.rows()[0].state, world.live(0)), (State::SynSent, 1));
    // It counts in its place, for others,
    let other = tcp(PORT_MACS[0], "198.51.100.8:5555", VIP, "S", b"");
    assert_eq!(world.receive(FRONT, &other), []);
    assert!(world.report().contains(&"drop.meter_connections=1".to_owned()), "{:?}", world.report());
    // and once.
    world.answer(&removed(&ask, 0));
    close(&mut world);
    world.pass_ms(200_000, 1_000);
    assert_eq!((world.live(0), world.receive(FRONT, &other).len()), (0, 1));
}

#[test]
fn a_port_used_again_waits_if_its_backend_takes_no_more() {
    let (mut world, ask) = offloaded(&web());
    close(&mut world);
    let drained = web() + "weight = 0\n[[service.backend]]\naddress = \"10.0.1.12:8080\"\n";
    world.reload(&drained);
    assert_eq!(from_client(&mut world, "S"), []);
    assert!(world.report().contains(&"drop.offload_pending=1".to_owned()), "{:?}", world.report());
    world.answer(&removed(&ask, 0));
    let sent = from_client(&mut world, "S");
    assert!(read(&sent[0].1).contains("> 10.0.1.12:8080 "), "{}", read(&sent[0].1));
    assert_eq!((world.live(0), world.live(1)), (0, 1));
}

#[test]
fn a_removed_backends_connection_is_reset_and_stays_until_hardware_lets_go() {
    let (mut world, ask) = offloaded(&service("on_remove = \"reset\"", &["10.0.1.11"]));
    world.reload(&service("on_remove = \"reset\"", &["10.0.1.12"]));
    let sent = from_client(&mut world, "A");
    assert!(read(&sent[0].1).contains("tcp R"), "{}", read(&sent[0].1));
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Policy)]);
    assert_eq!(from_client(&mut world, "S"), []);
    world.answer(&removed(&ask, 0));
    let sent = from_client(&mut world, "S");
    assert!(read(&sent[0].1).contains("> 10.0.1.12:8080 "), "{}", read(&sent[0].1));
    assert_eq!(count(&world, |c| c.pcc(PccCause::BackendGone)), 0);

    // One that stays silent is swept out.
    let (mut world, ask) = offloaded(&service("on_remove = \"reset\"", &["10.0.1.11"]));
    world.reload(&service("on_remove = \"reset\"", &["10.0.1.12"]));
    world.pass_ms(5_500, 100);
    assert_eq!(revoked(&mut world), [revoke(&ask, Revocation::Policy)]);
    assert_eq!(state(&world), OffloadState::Removing(RULE));
    world.answer(&removed(&ask, 0));
    world.pass_ms(1_100, 100);
    assert_eq!(world.rows(), []);
}

/// What hardware was heard of lately stays; what software has not seen for longer goes.
#[test]
fn a_full_table_gives_up_idle_connections_before_those_in_hardware() {
    let config = web().replace("percent = 50", "percent = 5");
    let (mut world, ask) = offloaded(&config);
    let client = |n: u32| format!("198.51.100.8:{}", 6000 + n);
    let open = |world: &mut World, n: u32| {
        let client = client(n);
        world.receive(FRONT, &tcp(PORT_MACS[0], &client, VIP, "S", b""));
        world.receive(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", &client, "SA", b""));
        world.workers[0].set_price(u32::MAX);
        world.receive(FRONT, &tcp(PORT_MACS[0], &client, VIP, "A", b""));
    };
    for n in 0..200 {
        world.pass_ms(20, 20);
        if n % 100 == 99 {
            world.answer(&counted(&ask, [1, 1]));
        }
        open(&mut world, n);
    }
    assert!(count(&world, |c| &c.evicted_idle) > 100);
    let installed =
        |world: &World| world.rows().iter().any(|row| row.offload == OffloadState::Installed(RULE));
    assert!(installed(&world));
    world.pass_ms(9_000, 500);
    (200..210).for_each(|n| open(&mut world, n));
    for n in 210..280 {
        world.pass_ms(100, 100);
        open(&mut world, n);
    }
    assert_eq!((installed(&world), revoked(&mut world)), (false, vec![revoke(&ask, Revocation::Gone)]));
}
