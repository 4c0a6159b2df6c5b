//! Health checks on the data path: probes leave as a backend's packets do, their answers come out of the
//! walk, and what follows from them is in the next snapshot.

use crate::common::frames::{fix_ipv4_checksum, pong, tcp, too_big, udp};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::{Ip, MacAddr};
use dataplane::ids::BackendId;
use dataplane::snapshot::{BackendState, OnRemove, Overrides, Snapshot, Standing};
use dataplane::worker::Sent;

const TWO: &str = r#"
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24"]
gateway = "10.0.0.254"

[[port]]
name = "back"
device = "net_null1"
vlan = 7
addresses = ["10.0.1.1/24"]

[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
mode = "nat"
health = { type = "tcp" }
backend = [{ address = "10.0.1.11:8080" }, { address = "10.0.1.12:8080" }]
"#;

const ONE: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);

/// The IP packet of an untagged frame.
fn packet(frame: &[u8]) -> Vec<u8> {
    frame[14..].to_vec()
}

fn untagged() -> String {
    TWO.replace("vlan = 7\n", "")
}

/// The same frame, from a station that is not us.
fn from_station(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&ONE.0);
    frame
}

/// Millrace some time after its start, when it has made itself known.
fn started(config: &str, workers: usize) -> World {
    let mut world = World::new(config, workers);
    world.pass_ms(20, 1);
    world
}

fn probe(world: &mut World, bytes: &[u8]) -> Sent {
    let (worker, env) = (&mut world.workers[0], &mut world.envs[0]);
    env.prepare();
    let sent = worker.send_probe(world.now, BackendId(0), bytes, env);
    world.settle();
    sent
}

#[test]
fn a_probe_leaves_as_a_backends_packets_do() {
    for (config, link) in [(TWO.to_owned(), 18), (untagged(), 14)] {
        let mut world = started(&config, 1);
        world.know(BACK, "10.0.1.11", ONE);
        let bytes = packet(&tcp(ONE, "10.0.1.1:50000", "10.0.1.11:8080", "S", &[]));
        world.settle();
        world.envs[0].sent.clear();
        assert_eq!(probe(&mut world, &bytes), Sent::Left);
        let (port, sent) = world.envs[0].sent.pop().expect("the probe");
        let frame = dataplane::packet::PacketBuf::data(&sent);
        assert_eq!((port, &frame[..6], &frame[6..12]), (BACK, &ONE.0[..], &PORT_MACS[1].0[..]));
        assert_eq!(frame[link..], bytes, "not a bit of it is changed");
        world.envs[0].pool_empty = true;
        let (worker, env) = (&mut world.workers[0], &mut world.envs[0]);
        assert_eq!(worker.send_probe(world.now, BackendId(0), &bytes, env), Sent::Lost, "no buffer");
        let lost_on_the_way = worker.send_probe(world.now, BackendId(9), &bytes, env);
        assert_eq!(lost_on_the_way, Sent::Left, "no such backend");
        world.assert_conserved();
    }
}

/// The same IP packet, once from a client through the service and once from the checker.
#[test]
fn a_probe_goes_through_the_tunnel_that_a_clients_packet_goes_through() {
    let network = "vni = 77, inner_mac = \"02:00:00:00:00:77\"";
    for (mode, tunnel) in [("ipip", ""), ("gue", ""), ("vxlan", network), ("geneve", network)] {
        let backend = "backend = [{ address = \"10.0.1.11\" }]\n";
        let text = untagged();
        let (head, _) = text.split_once("backend = ").expect("backends");
        let config =
            format!("{head}{backend}tunnel = {{ {tunnel} }}\n").replace("\"nat\"", &format!("\"{mode}\""));
        let mut world = started(&config, 1);
        world.know(BACK, "10.0.1.11", ONE);
        let syn = tcp(PORT_MACS[0], "10.9.0.1:50000", "192.0.2.80:80", "S", &[]);
        let (port, wrapped) = world.exchange(FRONT, &from_station(syn.clone()));
        // The client's has come one hop further.
        let mut further = syn;
        further[14 + 8] -= 1;
        fix_ipv4_checksum(&mut further);
        let inner = packet(&further);
        assert!(wrapped.ends_with(&inner), "{mode}");
        world.envs[0].sent.clear();
        assert_eq!(probe(&mut world, &inner), Sent::Left);
        let (sent_by, sent) = world.envs[0].sent.pop().expect("the probe");
        assert_eq!((sent_by, dataplane::packet::PacketBuf::data(&sent)), (port, &wrapped[..]), "{mode}");
        // The backend answers from the VIP, beside the tunnel.
        let answer = tcp(PORT_MACS[1], "192.0.2.80:80", "10.0.1.1:50000", "SA", &[]);
        world.receive(BACK, &from_station(answer));
        assert_eq!(world.envs[0].asked.take(), Some((50000, Ip::v4(0xc000_0250))), "{mode}");
        world.assert_conserved();
    }
}

#[test]
fn a_probe_waits_for_its_neighbour_like_any_packet() {
    let mut world = started(&untagged(), 1);
    let bytes = packet(&tcp(ONE, "10.0.1.1:50000", "10.0.1.11:8080", "S", &[]));
    assert_eq!(probe(&mut world, &bytes), Sent::Waits);
    assert_eq!(world.envs[0].counters.held.get(), 1);
    let sent = world.pass_ms(10_000, 100);
    assert!(sent.iter().all(|(_, frame)| frame[12..14] == [0x08, 0x06]), "questions only");
    assert!(world.report().contains(&"drop.neighbour_unreachable=1".to_owned()), "{:?}", world.report());
}

#[test]
fn answers_are_delivered_and_everything_else_is_not() {
    let mut world = started(&untagged(), 2);
    let answer = from_station(tcp(PORT_MACS[1], "10.0.1.11:8080", "10.0.1.1:50000", "SA", &[]));
    let refusal = from_station(tcp(PORT_MACS[1], "10.0.1.12:8080", "10.0.1.1:50001", "R", &[]));
    let datagram = from_station(udp(PORT_MACS[1], "10.0.1.11:53", "10.0.1.1:65535", b"hello"));
    let others = [
        from_station(tcp(PORT_MACS[1], "10.0.1.11:8080", "10.0.1.1:49151", "SA", &[])),
        from_station(tcp(PORT_MACS[1], "10.0.1.11:8080", "10.0.1.9:50000", "SA", &[])),
        // Not one of those that are asked.
        from_station(tcp(PORT_MACS[1], "10.0.1.13:8080", "10.0.1.1:50000", "SA", &[])),
        from_station(udp(PORT_MACS[1], "198.51.100.7:53", "10.0.1.1:65535", b"hello")),
    ];
    let expected = [packet(&answer), packet(&refusal), packet(&datagram)];
    for frame in [answer, refusal, datagram].iter().chain(&others) {
        world.receive(BACK, frame);
    }
    let mut delivered: Vec<Vec<u8>> = world.envs.iter_mut().flat_map(|env| env.delivered.drain(..)).collect();
    delivered.sort_by_key(|bytes| expected.iter().position(|one| one == bytes));
    assert_eq!(delivered, expected);
    let report = world.report().join(" ");
    assert!(report.contains("consumed=3") && report.contains("drop.no_connection=2"), "{report}");
    assert!(report.contains("drop.no_service=2"), "{report}");
}

#[test]
fn icmp_is_delivered_if_it_is_about_a_probe() {
    let mut world = started(&untagged(), 1);
    let (us, remote) = (PORT_MACS[1], Ip::v4(0x0a00_010b));
    let probe = tcp(ONE, "10.0.1.1:50000", "10.0.1.11:8080", "S", &[]);
    let elsewhere = tcp(ONE, "10.0.1.1:50000", "10.0.1.13:8080", "S", &[]);
    let about = |quoted: &[u8]| from_station(too_big(us, "10.0.1.99", "10.0.1.1", 1280, quoted, 64));
    for (frame, port) in
        [(from_station(pong(us, "10.0.1.11", "10.0.1.1", 49999)), 49999), (about(&probe), 50000)]
    {
        world.receive(BACK, &frame);
        assert_eq!(world.envs[0].delivered.pop(), Some(packet(&frame)));
        assert_eq!(world.envs[0].asked.take(), Some((port, remote)));
    }
    for frame in [
        from_station(pong(us, "10.0.1.13", "10.0.1.1", 49999)),
        from_station(pong(us, "10.0.1.11", "10.0.1.1", 7)),
        about(&elsewhere),
    ] {
        world.receive(BACK, &frame);
        assert_eq!(world.envs[0].asked, None);
    }
    let report = world.report().join(" ");
    assert!(
        report.contains("drop.icmp_unhandled=2") && report.contains("drop.icmp_no_connection=1"),
        "{report}"
    );
}

#[test]
fn a_checker_without_room_costs_the_answer_and_it_is_counted() {
    let mut world = started(&untagged(), 1);
    world.envs[0].checker_busy = true;
    let answer = from_station(tcp(PORT_MACS[1], "10.0.1.11:8080", "10.0.1.1:50000", "SA", &[]));
    assert!(world.receive(BACK, &answer).is_empty());
    assert!(world.report().contains(&"drop.checker_busy=1".to_owned()), "{:?}", world.report());
}

#[test]
fn nobody_opens_connections_in_our_name() {
    let forged = tcp(PORT_MACS[0], "10.0.1.1:50000", "192.0.2.80:80", "S", &[]);
    let mut world = started(&untagged(), 1);
    world.receive(FRONT, &forged);
    assert!(world.report().contains(&"drop.source_address_invalid=1".to_owned()), "{:?}", world.report());
    let mut unchecked = started(&untagged().replace("health = { type = \"tcp\" }\n", ""), 1);
    unchecked.receive(FRONT, &forged);
    assert!(unchecked.report().contains(&"entries=1".to_owned()), "{:?}", unchecked.report());
}

/// The IPv4 destination of an untagged frame.
fn destination(frame: &[u8]) -> [u8; 4] {
    std::array::from_fn(|index| frame[30 + index])
}

fn with_standing(world: &mut World, config: &str, standings: &[(u8, Standing)]) {
    let mut overrides = Overrides::default();
    let of = |&(host, standing): &(u8, Standing)| ((backend(host), Some(8080)), standing);
    let health = world.snapshot.services[0].as_ref().and_then(|web| web.health.clone()).expect("checks");
    overrides.health.set("web", &health, standings.iter().map(of));
    world.reload_with(config, &overrides);
}

fn backend(host: u8) -> Ip {
    Ip::v4(0x0a00_0100 + u32::from(host))
}

const DOWN: Standing = Standing { up: false, share_percent: 100 };

fn slots(snapshot: &Snapshot) -> [usize; 2] {
    let lookup = &snapshot.services[0].as_ref().expect("web").lookup;
    [0, 1].map(|id| lookup.iter().filter(|backend| backend.0 == id).count())
}

#[test]
fn a_backend_that_is_down_keeps_its_connections_and_gets_no_new_ones() {
    let mut world = started(&untagged(), 1);
    world.know(BACK, "10.0.1.11", ONE);
    world.know(BACK, "10.0.1.12", ONE);
    let open = |world: &mut World, port: u16| {
        let client = format!("10.0.0.9:{port}");
        let (_, frame) = world.exchange(FRONT, &tcp(PORT_MACS[0], &client, "192.0.2.80:80", "S", &[]));
        destination(&frame)
    };
    let before: Vec<_> = (1000..1040).map(|port| open(&mut world, port)).collect();
    with_standing(&mut world, &untagged(), &[(11, DOWN)]);
    assert_eq!(
        world.snapshot.backends[0].as_ref().map(|b| b.state),
        Some(BackendState::Down(OnRemove::Drain))
    );
    assert_eq!(slots(&world.snapshot)[0], 0);
    for (port, to) in (1000..1040).zip(&before) {
        let client = format!("10.0.0.9:{port}");
        let (_, frame) = world.exchange(FRONT, &tcp(PORT_MACS[0], &client, "192.0.2.80:80", "A", b"x"));
        assert_eq!(destination(&frame), *to, "no live connection moves");
    }
    assert!(before.contains(&[10, 0, 1, 11]), "{before:?}");
    assert!((2000..2040).all(|port| open(&mut world, port) == [10, 0, 1, 12]));
    with_standing(&mut world, &untagged(), &[]);
    assert_eq!(world.snapshot.backends[0].as_ref().map(|b| b.state), Some(BackendState::Active));
}

#[test]
fn with_on_down_reset_its_connections_end() {
    let config = untagged().replace("type = \"tcp\"", "type = \"tcp\", on_down = \"reset\"");
    let mut world = started(&config, 1);
    let ids = [DOWN, DOWN].into_iter().zip([11, 12]).map(|(down, host)| (host, down));
    world.know(BACK, "10.0.1.11", ONE);
    world.know(BACK, "10.0.1.12", ONE);
    world.know(FRONT, "10.0.0.9", ONE);
    world.exchange(FRONT, &tcp(PORT_MACS[0], "10.0.0.9:1000", "192.0.2.80:80", "S", &[]));
    with_standing(&mut world, &config, &ids.collect::<Vec<_>>());
    let (port, frame) =
        world.exchange(FRONT, &tcp(PORT_MACS[0], "10.0.0.9:1000", "192.0.2.80:80", "A", b"x"));
    assert_eq!((port, frame[14 + 20 + 13] & 0x04), (FRONT, 0x04), "a reset");
    assert_eq!(world.envs[0].counters.entries.get(), 0);
}

#[test]
fn who_counts_as_down_at_first_gets_nothing_before_it_has_answered() {
    let config = untagged().replace("type = \"tcp\"", "type = \"tcp\", initial = \"down\"");
    let mut world = started(&config, 1);
    let states = |world: &World| {
        world.snapshot.backends.iter().flatten().map(|backend| backend.state).collect::<Vec<_>>()
    };
    let (up, down) = (BackendState::Active, BackendState::Down(OnRemove::Drain));
    assert_eq!(states(&world), [down, down], "the checker has not said a word");
    world.receive(FRONT, &tcp(PORT_MACS[0], "10.0.0.9:1000", "192.0.2.80:80", "S", &[]));
    assert!(world.report().contains(&"drop.no_backend=1".to_owned()), "{:?}", world.report());
    with_standing(&mut world, &config, &[(11, Standing::default()), (12, DOWN)]);
    assert_eq!((states(&world), slots(&world.snapshot)), (vec![up, down], [65537, 0]));
    let last = "{ address = \"10.0.1.12:8080\" }";
    let three = config.replace(last, &format!("{last}, {{ address = \"10.0.1.13:8080\" }}"));
    with_standing(&mut world, &three, &[(11, Standing::default()), (12, DOWN)]);
    assert_eq!(states(&world), [up, down, down], "nor of a new one");
}

#[test]
fn who_starts_slowly_has_a_smaller_part_of_the_table() {
    let mut world = started(&untagged(), 1);
    let even = slots(&world.snapshot);
    with_standing(&mut world, &untagged(), &[(12, Standing { up: true, share_percent: 10 })]);
    let [full, slow] = slots(&world.snapshot);
    assert_eq!(full + slow, 65537);
    assert!((5_950..5_970).contains(&slow), "{slow} of 65537 is not one in eleven");
    with_standing(&mut world, &untagged(), &[]);
    assert_eq!(slots(&world.snapshot), even);
}

#[test]
fn what_clients_meet_with_is_counted() {
    let config = format!(
        "{}[service.timeouts]\ntcp_half_open_s = 3\n",
        untagged().replace(":8080\" }, { address = \"10.0.1.12:8080\" }", ":8080\" }")
    );
    let mut world = started(&config, 1);
    world.know(BACK, "10.0.1.11", ONE);
    world.know(FRONT, "10.0.0.254", ONE);
    let say = |world: &mut World, client: u16, flags: &str| {
        let frame = tcp(PORT_MACS[0], &format!("10.9.0.1:{client}"), "192.0.2.80:80", flags, &[]);
        world.receive(FRONT, &from_station(frame));
    };
    let answer = |world: &mut World, client: u16, flags: &str| {
        let frame = tcp(PORT_MACS[1], "10.0.1.11:8080", &format!("10.9.0.1:{client}"), flags, &[]);
        world.receive(BACK, &from_station(frame));
    };
    let counted = |world: &World| {
        let counters = &world.envs[0].counters.backends[0];
        [&counters.refused, &counters.asked_again, &counters.unanswered].map(|counter| counter.get())
    };
    for client in 1..=4 {
        say(&mut world, client, "S");
    }
    answer(&mut world, 1, "SA");
    answer(&mut world, 2, "RA");
    assert_eq!(counted(&world), [1, 0, 0]);
    world.pass_ms(1000, 10);
    say(&mut world, 1, "A");
    answer(&mut world, 1, "R");
    say(&mut world, 3, "S");
    assert_eq!(counted(&world), [1, 1, 0], "of what came before an answer");
    world.pass_ms(10_000, 10);
    assert_eq!(counted(&world), [1, 1, 2]);
    world.assert_conserved();
}
