//! The walk against a small world: what comes out, byte for byte, and where every packet went.

use crate::common::frames::{
    fix_icmpv6_checksum, fix_ipv4_checksum, fragment_ipv4, ping, read, tcp, too_big, udp, udp_ttl,
};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::ids::PortId;
use proptest::prelude::*;

const PORTS: &str = r#"
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

const WEB: &str = r#"
[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
mode = "nat"
[[service.backend]]
address = "10.0.1.11:8080"

[[service]]
name = "web6"
vip = "2001:db8::80"
protocol = "tcp"
ports = [80]
mode = "nat"
[[service.backend]]
address = "[fd00:2::11]:8080"
"#;

const DSR: &str = r#"
[[service]]
name = "direct"
vip = "192.0.2.81"
protocol = "tcp"
ports = [80]
mode = "dsr"
[[service.backend]]
address = "10.0.0.11"
"#;

const DNS: &str = r#"
[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
mode = "nat"
affinity = "none"
[[service.backend]]
address = "10.0.1.11:53"
weight = 1
[[service.backend]]
address = "10.0.1.12:53"
weight = 3
"#;

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 1, 254]);
const BACKENDS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 2, 11]), MacAddr([2, 0, 0, 0, 2, 12])];

/// A world whose neighbours have all been resolved.
fn world(services: &[&str], workers: usize) -> World {
    let mut world = World::new(&format!("{PORTS}{}", services.concat()), workers);
    world.pass_ms(10, 1);
    for (port, ip, mac) in [
        (FRONT, "10.0.0.254", GATEWAY),
        (FRONT, "fd00:1::fe", GATEWAY),
        (FRONT, "10.0.0.11", BACKENDS[0]),
        (BACK, "10.0.1.11", BACKENDS[0]),
        (BACK, "10.0.1.12", BACKENDS[1]),
        (BACK, "fd00:2::11", BACKENDS[0]),
    ] {
        world.know(port, ip, mac);
    }
    world.pass_ms(1, 1);
    world
}

#[track_caller]
fn assert_out(world: &mut World, port: PortId, frame: &[u8], expected: (PortId, &str)) {
    let (out, frame) = world.exchange(port, frame);
    assert_eq!((out, read(&frame).as_str()), expected);
}

#[test]
fn nat_carries_a_tcp_connection_both_ways_and_forgets_it_after_time_wait() {
    let mut world = world(&[WEB], 1);
    let (m0, m1) = (PORT_MACS[0], PORT_MACS[1]);
    let (client, vip, backend) = ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080");
    let there =
        |flags: &str, text: &str| format!("{} {client} > {backend} ttl 63 tcp {flags} {text:?}", BACKENDS[0]);
    let back = |flags: &str, text: &str| format!("{GATEWAY} {vip} > {client} ttl 63 tcp {flags} {text:?}");

    let steps: [(PortId, Vec<u8>, PortId, String); 7] = [
        (FRONT, tcp(m0, client, vip, "S", b""), BACK, there("S", "")),
        (BACK, tcp(m1, backend, client, "SA", b""), FRONT, back("SA", "")),
        (FRONT, tcp(m0, client, vip, "PA", b"GET /"), BACK, there("PA", "GET /")),
        (BACK, tcp(m1, backend, client, "PA", b"200"), FRONT, back("PA", "200")),
        (BACK, tcp(m1, backend, client, "FA", b""), FRONT, back("FA", "")),
        (FRONT, tcp(m0, client, vip, "FA", b""), BACK, there("FA", "")),
        (BACK, tcp(m1, backend, client, "A", b""), FRONT, back("A", "")),
    ];
    for (port, frame, out, text) in steps {
        assert_out(&mut world, port, &frame, (out, &text));
    }
    assert!(world.report().contains(&"entries=1".to_owned()), "{:?}", world.report());
    world.pass_ms(15_000, 100);
    let report = world.report();
    assert!(
        report.contains(&"expired=1".to_owned()) && !report.iter().any(|r| r.starts_with("entries")),
        "{report:?}"
    );
}

#[test]
fn nat_carries_ipv6() {
    let mut world = world(&[WEB], 1);
    let (client, vip, backend) = ("[2001:db8:1::7]:5555", "[2001:db8::80]:80", "[fd00:2::11]:8080");
    let there = format!("{} {client} > {backend} ttl 63 tcp S \"\"", BACKENDS[0]);
    assert_out(&mut world, FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""), (BACK, &there));
    let back = format!("{GATEWAY} {vip} > {client} ttl 63 tcp SA \"\"");
    assert_out(&mut world, BACK, &tcp(PORT_MACS[1], backend, client, "SA", b""), (FRONT, &back));
}

#[test]
fn dsr_changes_the_mac_and_the_ttl_only() {
    let mut world = world(&[DSR], 1);
    let (client, vip) = ("198.51.100.7:5555", "192.0.2.81:80");
    let frame = tcp(PORT_MACS[0], client, vip, "S", b"");
    let expected = format!("{} {client} > {vip} ttl 63 tcp S \"\"", BACKENDS[0]);
    assert_out(&mut world, FRONT, &frame, (FRONT, &expected));
    assert!(world.report().contains(&"half_open=1".to_owned()));
    assert_out(
        &mut world,
        FRONT,
        &tcp(PORT_MACS[0], client, vip, "A", b""),
        (FRONT, &expected.replace(" S ", " A ")),
    );
    assert!(!world.report().iter().any(|r| r.starts_with("half_open")), "{:?}", world.report());
}

#[test]
fn datagrams_without_affinity_follow_the_weights_and_leave_no_state() {
    let mut world = world(&[DNS], 1);
    let (client, vip) = ("198.51.100.7:5353", "192.0.2.53:53");
    let mut to_second = 0;
    for _ in 0..4000 {
        let (port, frame) = world.exchange(FRONT, &udp(PORT_MACS[0], client, vip, b"?"));
        assert_eq!(port, BACK);
        to_second += u32::from(read(&frame).contains("> 10.0.1.12:53"));
    }
    assert!((2850..=3150).contains(&to_second), "{to_second} of 4000 to the backend of weight 3 of 4");
    let reply = format!("{GATEWAY} {vip} > {client} ttl 63 udp \"!\"");
    assert_out(&mut world, BACK, &udp(PORT_MACS[1], "10.0.1.12:53", client, b"!"), (FRONT, &reply));
    assert!(!world.report().iter().any(|r| r.starts_with("entries")));
}

#[test]
fn a_packet_waits_for_its_neighbour_and_leaves_when_it_answers() {
    let mut world = World::new(&format!("{PORTS}{WEB}"), 2);
    let at_start = world.pass_ms(10, 1);
    let asks = |(_, frame): &&(PortId, Vec<u8>)| {
        frame[..6] == [255; 6]
            && frame[12..14] == [8, 6]
            && frame[28..32] == [10, 0, 1, 1]
            && frame[38..42] == [10, 0, 1, 11]
    };
    assert_eq!(at_start.iter().filter(asks).count(), 2, "each worker asks for its backends at once");
    let (client, vip) = ("198.51.100.7:5555", "192.0.2.80:80");
    assert!(world.receive(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b"")).is_empty());
    assert!(world.report().contains(&"held=1".to_owned()), "{:?}", world.report());

    let mut reply = vec![0; 60];
    reply[..6].copy_from_slice(&PORT_MACS[1].0);
    reply[6..12].copy_from_slice(&BACKENDS[0].0);
    reply[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    reply[22..28].copy_from_slice(&BACKENDS[0].0);
    reply[28..32].copy_from_slice(&[10, 0, 1, 11]);
    reply[32..38].copy_from_slice(&PORT_MACS[1].0);
    reply[38..42].copy_from_slice(&[10, 0, 1, 1]);
    // The answer may reach the other worker: it tells the one that waits.
    let sent = world.receive_on(1, BACK, &[reply]);
    let expected = format!("{} {client} > 10.0.1.11:8080 ttl 63 tcp S \"\"", BACKENDS[0]);
    assert_eq!(sent.iter().map(|(_, frame)| read(frame)).collect::<Vec<_>>(), [expected]);
    assert!(!world.report().iter().any(|r| r.starts_with("held")), "{:?}", world.report());
}

/// Kernels answer a question to their own address without saying again where they are.
#[test]
fn a_neighbour_that_was_asked_alone_need_not_say_where_it_is() {
    let mut world = World::new(&format!("{PORTS}{WEB}"), 2);
    world.know(BACK, "fd00:2::11", BACKENDS[0]);
    let asks = |(port, frame): &&(PortId, Vec<u8>)| {
        *port == BACK && frame[12..14] == [0x86, 0xdd] && frame[54] == 135 && frame[77] == 0x11
    };
    let mut answers = 0;
    for _ in 0..600 {
        let sent = world.pass_ms(100, 10);
        for (_, question) in sent.iter().filter(asks) {
            assert_eq!(question[..6], BACKENDS[0].0, "nobody else is asked");
            let mut answer = question[..78].to_vec();
            answer[..6].copy_from_slice(&PORT_MACS[1].0);
            answer[6..12].copy_from_slice(&BACKENDS[0].0);
            // Addresses swapped, no option, solicited.
            answer[18..20].copy_from_slice(&[0, 24]);
            answer[22..38].copy_from_slice(&question[62..78]);
            answer[38..54].copy_from_slice(&question[22..38]);
            answer[54] = 136;
            answer[58] = 0x40;
            fix_icmpv6_checksum(&mut answer);
            world.receive_on(1, BACK, &[answer]);
            answers += 1;
        }
        world.receive(FRONT, &tcp(PORT_MACS[0], "[2001:db8:1::7]:5555", "[2001:db8::80]:80", "S", b""));
    }
    assert!((1..=6).contains(&answers), "asked {answers} times in a minute");
}

#[test]
fn gateways_and_backends_are_asked_for_at_once_and_during_a_scan() {
    let mut world = World::new(&format!("[limits]\nneighbours = 16\n{PORTS}{WEB}"), 1);
    let asked = |sent: &[(PortId, Vec<u8>)], target: [u8; 4]| {
        sent.iter().any(|(_, frame)| frame[12..14] == [8, 6] && frame[21] == 1 && frame[38..42] == target)
    };
    let at_start = world.pass_ms(10, 1);
    assert!(asked(&at_start, [10, 0, 0, 254]) && asked(&at_start, [10, 0, 1, 11]));
    // Nobody answers, and both are forgotten. Then somebody on the link claims to be everybody.
    world.pass_ms(60_000, 100);
    for host in 1..100 {
        let from = format!("10.0.0.{}", 100 + host);
        world.receive(FRONT, &udp_ttl(PORT_MACS[0], &format!("{from}:7"), "192.0.2.80:80", b"", 1));
        world.receive(FRONT, &ping(PORT_MACS[0], &from, "192.0.2.80"));
    }
    assert!(world.report().iter().any(|line| line.starts_with("drop.neighbour_table_full")), "a scan");
    let ping = ping(PORT_MACS[0], "198.51.100.7", "192.0.2.80");
    assert!(asked(&world.receive(FRONT, &ping), [10, 0, 0, 254]), "{:?}", world.report());
    let syn = tcp(PORT_MACS[0], "198.51.100.7:5555", "192.0.2.80:80", "S", b"");
    assert!(asked(&world.receive(FRONT, &syn), [10, 0, 1, 11]), "{:?}", world.report());
}

#[test]
fn a_neighbour_that_never_answers_costs_what_waited_for_it() {
    let mut world = World::new(&format!("{PORTS}{WEB}"), 1);
    world.pass_ms(10, 1);
    world.receive(FRONT, &tcp(PORT_MACS[0], "198.51.100.7:5555", "192.0.2.80:80", "S", b""));
    world.pass_ms(10_000, 50);
    let report = world.report();
    assert!(report.contains(&"drop.neighbour_unreachable=1".to_owned()), "{report:?}");
}

/// An ARP request for `target` from a host on the front link.
fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mac = [2, 0, 0, 0, 3, sender[3]];
    let mut frame = [&[255; 6], &mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac[..], &sender[..]].concat();
    frame.extend_from_slice(&[[0; 6].as_slice(), &target].concat());
    frame
}

#[test]
fn addresses_are_announced_as_soon_as_there_are_buffers() {
    let mut world = World::new(&format!("{PORTS}{WEB}"), 1);
    world.envs[0].pool_empty = true;
    assert!(world.pass_ms(10, 1).is_empty());
    world.envs[0].pool_empty = false;
    let sent = world.pass_ms(10, 1);
    let about_the_vip = |(_, frame): &&(PortId, Vec<u8>)| {
        frame[12..14] == [8, 6] && frame[28..32] == [192, 0, 2, 80] && frame[38..42] == frame[28..32]
    };
    assert_eq!(sent.iter().filter(about_the_vip).count(), 2, "once on each port");
}

#[test]
fn arp_is_answered_however_many_pings_there_are() {
    for limit in [0, 10] {
        let limits = format!("[limits]\nicmp_per_second = {limit}\n");
        let mut world = World::new(&format!("{limits}{PORTS}{WEB}"), 1);
        world.pass_ms(10, 1);
        world.know(FRONT, "10.0.0.254", GATEWAY);
        let echo = ping(PORT_MACS[0], "198.51.100.7", "192.0.2.80");
        let answered = world.receive_on(0, FRONT, &vec![echo; 20]).len();
        assert!(answered <= limit, "{answered} of 20 pings");
        let (port, reply) = world.exchange(FRONT, &arp_request([10, 0, 0, 7], [192, 0, 2, 80]));
        assert_eq!((port, &reply[20..32]), (FRONT, &[0, 2, 2, 0, 0, 0, 0, 1, 192, 0, 2, 80][..]));
    }
}

#[test]
fn pings_for_vips_and_port_addresses_are_answered() {
    let mut world = world(&[WEB], 1);
    for (from, to, name) in [
        ("198.51.100.7", "192.0.2.80", "icmp"),
        ("10.0.0.254", "10.0.0.1", "icmp"),
        ("2001:db8:1::7", "2001:db8::80", "icmp6"),
        ("fd00:1::fe", "fd00:1::1", "icmp6"),
    ] {
        let (port, frame) = world.exchange(FRONT, &ping(PORT_MACS[0], from, to));
        let expected = format!("{GATEWAY} {to} > {from} ttl 64 {name} echo reply 7 9 \"millrace\"");
        assert_eq!((port, read(&frame)), (FRONT, expected));
    }
}

#[test]
fn ttl_runs_out_and_its_sender_is_told() {
    let mut world = world(&[DNS], 1);
    let (client, vip) = ("198.51.100.7:5353", "192.0.2.53:53");
    let (port, frame) = world.exchange(FRONT, &udp_ttl(PORT_MACS[0], client, vip, b"?", 1));
    let expected = format!("{GATEWAY} 10.0.0.1 > 198.51.100.7 ttl 64 icmp time exceeded [{client} > {vip}]");
    assert_eq!((port, read(&frame)), (FRONT, expected));
    assert!(world.report().contains(&"drop.ttl_expired=1".to_owned()));
}

#[test]
fn what_does_not_fit_the_next_link_is_answered_with_its_mtu() {
    let small = PORTS.replace("device = \"net_null1\"", "device = \"net_null1\"\nmtu = 1400");
    let mut world = World::new(&format!("{small}{WEB}"), 1);
    world.pass_ms(10, 1);
    world.know(FRONT, "10.0.0.254", GATEWAY);
    world.know(FRONT, "fd00:1::fe", GATEWAY);
    for (client, vip, expected) in [
        ("198.51.100.7:5555", "192.0.2.80:80", "unreachable FragmentationNeeded { next_hop_mtu: 1400 }"),
        ("[2001:db8:1::7]:5555", "[2001:db8::80]:80", "too big 1400"),
    ] {
        let frame = tcp(PORT_MACS[0], client, vip, "PA", &[b'x'; 1400]);
        let (port, frame) = world.exchange(FRONT, &frame);
        let text = read(&frame);
        assert_eq!(port, FRONT);
        assert!(text.contains(expected) && text.contains(&format!("[{client} > {vip}]")), "{text}");
    }
    let mut fragmentable = tcp(PORT_MACS[0], "198.51.100.7:5555", "192.0.2.80:80", "PA", &[b'x'; 1400]);
    clear_dont_fragment(&mut fragmentable);
    let (_, answer) = world.exchange(FRONT, &fragmentable);
    assert!(read(&answer).contains("next_hop_mtu: 1400"), "{}", read(&answer));
    assert!(world.report().contains(&"drop.too_big=3".to_owned()), "{:?}", world.report());
}

fn clear_dont_fragment(frame: &mut [u8]) {
    frame[20] &= !0x40;
    fix_ipv4_checksum(frame);
}

#[test]
fn icmp_errors_reach_the_other_end_of_the_connection_translated() {
    let mut world = world(&[WEB], 1);
    for (client, vip, backend, router) in [
        ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080", "203.0.113.9"),
        ("[2001:db8:1::7]:5555", "[2001:db8::80]:80", "[fd00:2::11]:8080", "2001:db8:9::9"),
    ] {
        let ip = |end: &str| end.parse::<std::net::SocketAddr>().unwrap().ip().to_string();
        let (_, to_backend) = world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""));
        let (_, to_client) = world.exchange(BACK, &tcp(PORT_MACS[1], backend, client, "SA", b""));

        // A router near the client complains about what the VIP sent: the backend must hear it.
        for quote in [28, 200] {
            let quote = if client.starts_with('[') { quote + 20 } else { quote };
            let error = too_big(PORT_MACS[0], router, &ip(vip), 1280, &to_client, quote);
            let (port, frame) = world.exchange(FRONT, &error);
            let text = read(&frame);
            assert_eq!(port, BACK, "{text}");
            let expected = format!("{} {router} > {} ttl 63", BACKENDS[0], ip(backend));
            assert!(
                text.starts_with(&expected) && text.ends_with(&format!("[{backend} > {client}]")),
                "{text}"
            );
        }
        // The backend complains about what the client sent: the client must hear it from the VIP.
        let error = too_big(PORT_MACS[1], &ip(backend), &ip(client), 1280, &to_backend, 200);
        let (port, frame) = world.exchange(BACK, &error);
        let text = read(&frame);
        let expected = format!("{GATEWAY} {} > {} ttl 63", ip(vip), ip(client));
        assert_eq!(port, FRONT);
        assert!(text.starts_with(&expected) && text.ends_with(&format!("[{client} > {vip}]")), "{text}");
    }
}

#[test]
fn a_client_hears_that_nobody_listens_although_nothing_is_remembered() {
    let mut world = world(&[DNS], 1);
    let (client, vip) = ("198.51.100.7:5353", "192.0.2.53:53");
    let (_, query) = world.exchange(FRONT, &udp(PORT_MACS[0], client, vip, b"?"));
    let backend = if read(&query).contains("10.0.1.11") { "10.0.1.11" } else { "10.0.1.12" };
    let (port, frame) =
        world.exchange(BACK, &too_big(PORT_MACS[1], backend, "198.51.100.7", 1280, &query, 60));
    let text = read(&frame);
    assert!(text.starts_with(&format!("{GATEWAY} 192.0.2.53 > 198.51.100.7 ttl 63")), "{text}");
    assert!(port == FRONT && text.ends_with(&format!("[{client} > {vip}]")), "{text}");
}

#[test]
fn a_segment_from_the_middle_is_picked_up_from_either_side_unless_the_service_is_strict() {
    let (client, vip, backend) = ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080");
    let mut picked = world(&[WEB], 1);
    let there = format!("{} {client} > {backend} ttl 63 tcp A \"\"", BACKENDS[0]);
    assert_out(&mut picked, FRONT, &tcp(PORT_MACS[0], client, vip, "A", b""), (BACK, &there));
    assert_eq!(picked.envs[0].counters.services[0].picked_up.get(), 1);

    let mut from_backend = world(&[WEB], 1);
    let back = format!("{GATEWAY} {vip} > {client} ttl 63 tcp PA \"data\"");
    assert_out(&mut from_backend, BACK, &tcp(PORT_MACS[1], backend, client, "PA", b"data"), (FRONT, &back));
    assert_eq!(from_backend.envs[0].counters.services[0].picked_up.get(), 1);

    let strict = WEB.replace("mode = \"nat\"", "mode = \"nat\"\nstrict = true");
    let mut strict = world(&[&strict], 1);
    let reset = strict.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "A", b""));
    assert!(read(&reset.1).contains(&format!("{vip} > {client} ttl 64 tcp R")), "{}", read(&reset.1));
    assert!(strict.report().contains(&"drop.no_connection=1".to_owned()));
    assert!(strict.receive(BACK, &tcp(PORT_MACS[1], backend, client, "PA", b"data")).is_empty());
}

#[test]
fn what_an_earlier_backend_still_sends_is_of_no_connection() {
    let mut world = world(&[WEB], 1);
    let (client, vip) = ("198.51.100.7:5555", "192.0.2.80:80");
    world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""));
    let more = "[[service.backend]]\naddress = \"10.0.1.12:8080\"\n";
    let web = WEB.split("\n[[service]]\nname = \"web6\"").next().unwrap();
    world.reload(&format!("{PORTS}{web}{more}"));
    assert!(world.receive(BACK, &tcp(PORT_MACS[1], "10.0.1.12:8080", client, "PA", b"late")).is_empty());
    let report = world.report();
    assert!(report.contains(&"drop.no_connection=1".to_owned()), "{report:?}");
}

#[test]
fn a_backend_that_goes_keeps_or_loses_its_connections_as_its_service_says() {
    let (client, vip) = ("198.51.100.7:5555", "192.0.2.80:80");
    let moved = WEB.replace("10.0.1.11:8080", "10.0.1.12:8080");
    for (policy, survives) in [("drain", true), ("reset", false)] {
        let with =
            |text: &str| text.replace("mode = \"nat\"", &format!("mode = \"nat\"\non_remove = \"{policy}\""));
        let mut world = world(&[&with(WEB)], 1);
        world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""));
        world.exchange(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", client, "SA", b""));
        world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "A", b""));
        world.reload(&format!("{PORTS}{}", with(&moved)));

        let (port, frame) = world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "PA", b"more"));
        let text = read(&frame);
        if survives {
            assert!(port == BACK && text.contains("> 10.0.1.11:8080"), "{text}");
        } else {
            assert!(port == FRONT && text.contains(&format!("{vip} > {client} ttl 64 tcp R")), "{text}");
        }
        // New connections go to the new backend either way.
        let (_, frame) = world.exchange(FRONT, &tcp(PORT_MACS[0], "198.51.100.8:1", vip, "S", b""));
        assert!(read(&frame).contains("> 10.0.1.12:8080"));
    }
}

#[test]
fn a_client_that_only_listens_hears_that_its_backend_was_removed() {
    let (client, vip, backend) = ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080");
    let with = |text: &str| text.replace("mode = \"nat\"", "mode = \"nat\"\non_remove = \"reset\"");
    let mut world = world(&[&with(WEB)], 1);
    world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""));
    world.exchange(BACK, &tcp(PORT_MACS[1], backend, client, "SA", b""));
    world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "A", b""));
    world.reload(&format!("{PORTS}{}", with(&WEB.replace("10.0.1.11:8080", "10.0.1.12:8080"))));

    let segment = tcp(PORT_MACS[1], backend, client, "PA", b"more of the download");
    let (port, frame) = world.exchange(BACK, &segment);
    let expected = format!("{GATEWAY} {vip} > {client} ttl 64 tcp RA \"\"");
    assert_eq!((port, read(&frame)), (FRONT, expected));
    assert_eq!(frame[38..46], segment[38..46], "the sequence number the client expects");
    assert!(world.receive(BACK, &segment).is_empty(), "the connection is no more");
}

#[test]
fn both_directions_of_a_connection_meet_at_the_worker_that_owns_the_client() {
    let mut world = world(&[WEB], 4);
    for client in 1..=200u16 {
        let (client, vip) = (format!("198.51.100.{}:{}", client % 250, 1000 + client), "192.0.2.80:80");
        let first = usize::from(client.len() % 2 == 0);
        let sent = world.receive_on(first, FRONT, &[tcp(PORT_MACS[0], &client, vip, "S", b"")]);
        assert_eq!(sent.len(), 1);
        let sent =
            world.receive_on(3 - first, BACK, &[tcp(PORT_MACS[1], "10.0.1.11:8080", &client, "SA", b"")]);
        assert_eq!(sent.len(), 1, "the reply finds its connection");
        assert!(read(&sent[0].1).contains(&format!("{vip} > {client} ttl 63 tcp SA")));
    }
    let per_worker: Vec<u64> = world.envs.iter().map(|env| env.counters.entries.get()).collect();
    assert!(per_worker.iter().all(|n| *n > 20) && per_worker.iter().sum::<u64>() == 200, "{per_worker:?}");

    for env in &mut world.envs {
        env.ring_full = true;
    }
    for worker in 0..4 {
        world.receive_on(worker, FRONT, &[tcp(PORT_MACS[0], "198.51.100.77:1", "192.0.2.80:80", "S", b"")]);
    }
    assert!(world.report().contains(&"drop.hand_off_ring_full=3".to_owned()), "{:?}", world.report());
}

#[test]
fn fragments_follow_the_first_one_and_wait_for_it_briefly() {
    let mut world = world(&[DNS], 1);
    let (client, vip) = ("198.51.100.7:5353", "192.0.2.53:53");
    let whole = udp(PORT_MACS[0], client, vip, &[b'q'; 1000]);
    let (first, second) = fragment_ipv4(&whole, 504);

    let mut sent = world.receive(FRONT, &first);
    sent.extend(world.receive(FRONT, &second));
    let texts: Vec<String> = sent.iter().map(|(_, frame)| read(frame)).collect();
    assert_eq!(texts.len(), 2, "{:?}", world.report());
    let backend = if texts[0].contains("10.0.1.11") { "10.0.1.11" } else { "10.0.1.12" };
    assert!(texts[1].contains(&format!("198.51.100.7 > {backend} ttl 63 fragment")), "{texts:?}");

    let (mut first, mut second) = (first, second);
    for frame in [&mut first, &mut second] {
        frame[19] ^= 1; // another identification
        fix_ipv4_checksum(frame);
    }
    assert!(world.receive(FRONT, &second).is_empty(), "it waits");
    assert_eq!(world.receive(FRONT, &first).len(), 2, "both leave");
}

#[test]
fn what_is_none_of_our_business_is_dropped_or_passed_on() {
    let mut world = world(&[WEB], 1);
    let stranger = tcp(PORT_MACS[0], "198.51.100.7:5555", "203.0.113.1:80", "S", b"");
    assert!(world.receive(FRONT, &stranger).is_empty());
    let elsewhere = tcp(MacAddr([2, 9, 9, 9, 9, 9]), "198.51.100.7:5555", "192.0.2.80:80", "S", b"");
    assert!(world.receive(FRONT, &elsewhere).is_empty());
    let report = world.report();
    for drop in ["drop.no_service=1", "drop.not_our_mac=1"] {
        assert!(report.contains(&drop.to_owned()), "{report:?}");
    }

    let inline = PORTS.replace("device = \"net_null0\"", "device = \"net_null0\"\npass_to = \"back\"");
    let mut inline = World::new(&format!("{inline}{WEB}"), 1);
    inline.pass_ms(10, 1);
    for frame in [&stranger, &elsewhere] {
        assert_eq!(inline.receive(FRONT, frame), [(BACK, frame.clone())], "unchanged");
    }
}

/// Inline, as on a DPU: the backend's gateway is not Millrace, yet its replies pass through.
#[test]
fn replies_through_a_bump_in_the_wire_are_translated_whatever_their_mac() {
    let inline = PORTS.replace("device = \"net_null1\"", "device = \"net_null1\"\npass_to = \"front\"");
    let mut world = World::new(&format!("{inline}{WEB}{DNS}"), 1);
    world.pass_ms(10, 1);
    world.know(BACK, "10.0.1.11", BACKENDS[0]);
    world.know(FRONT, "10.0.0.254", GATEWAY);
    let (client, vip, backend) = ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080");
    world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""));
    let back = format!("{GATEWAY} {vip} > {client} ttl 63 tcp SA \"\"");
    assert_out(&mut world, BACK, &tcp(GATEWAY, backend, client, "SA", b""), (FRONT, &back));
    let dns = format!("{GATEWAY} 192.0.2.53:53 > {client} ttl 63 udp \"!\"");
    assert_out(&mut world, BACK, &udp(GATEWAY, "10.0.1.12:53", client, b"!"), (FRONT, &dns));
    // What else the backend says goes on unchanged.
    for other in
        [tcp(GATEWAY, "10.0.1.11:4000", client, "S", b""), ping(GATEWAY, "10.0.1.11", "198.51.100.7")]
    {
        assert_eq!(world.receive(BACK, &other), [(FRONT, other.clone())]);
    }
}

#[test]
fn fragments_and_errors_on_the_way_back_through_a_bump_in_the_wire_are_translated_too() {
    let inline = PORTS.replace("device = \"net_null1\"", "device = \"net_null1\"\npass_to = \"front\"");
    let mut world = World::new(&format!("{inline}{WEB}{DNS}"), 4);
    world.pass_ms(10, 1);
    world.know(BACK, "10.0.1.11", BACKENDS[0]);
    world.know(BACK, "10.0.1.12", BACKENDS[1]);
    world.know(FRONT, "10.0.0.254", GATEWAY);
    let (first, second) =
        fragment_ipv4(&udp(GATEWAY, "10.0.1.12:53", "198.51.100.7:5353", &[b'!'; 1000]), 504);
    for (worker, piece) in [first, second.clone()].into_iter().enumerate() {
        let sent = world.receive_on(worker, BACK, &[piece]);
        let text = read(&sent[0].1);
        assert!(text.starts_with(&format!("{GATEWAY} 192.0.2.53")) && text.contains("ttl 63"), "{text}");
    }
    let mut of_another = second;
    of_another[19] ^= 1; // another identification
    fix_ipv4_checksum(&mut of_another);
    assert_eq!(world.receive(BACK, &of_another), [(FRONT, of_another.clone())], "passed on");

    let (client, vip) = ("198.51.100.7:5555", "192.0.2.80:80");
    let (_, to_backend) = world.exchange(FRONT, &tcp(PORT_MACS[0], client, vip, "S", b""));
    let error = too_big(GATEWAY, "10.0.1.11", "198.51.100.7", 1280, &to_backend, 60);
    let text = read(&world.exchange(BACK, &error).1);
    assert!(text.starts_with(&format!("{GATEWAY} 192.0.2.80")), "{text}");
    assert!(text.ends_with(&format!("[{client} > {vip}]")), "{text}");

    // An answer to our own question is ours alone; everybody hears what is said to everybody.
    let mut answer = arp_request([10, 0, 1, 12], [10, 0, 1, 1]);
    answer[..6].copy_from_slice(&PORT_MACS[1].0);
    answer[21] = 2;
    assert!(world.receive(BACK, &answer).is_empty());
    let question = arp_request([10, 0, 1, 12], [10, 0, 1, 77]);
    assert_eq!(world.receive(BACK, &question), [(FRONT, question.clone())]);

    // Another station's frames are not ours to judge.
    let mut broken = tcp(GATEWAY, "10.0.1.11:4000", client, "S", b"");
    broken[24] ^= 1; // the header's checksum
    assert_eq!(world.receive(BACK, &broken), [(FRONT, broken.clone())]);
    let elsewhere = tcp(GATEWAY, client, vip, "A", b"");
    assert_eq!(world.receive(BACK, &elsewhere), [(FRONT, elsewhere.clone())], "for another load balancer");
}

#[test]
fn what_a_backend_says_to_no_station_opens_no_connection() {
    let mut world = world(&[WEB], 1);
    for nobody in ["224.0.0.9:5555", "127.0.0.1:5555", "255.255.255.255:5555", "0.0.0.0:5555"] {
        assert!(world.receive(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", nobody, "A", b"")).is_empty());
        assert!(world.receive(FRONT, &tcp(PORT_MACS[0], nobody, "192.0.2.80:80", "A", b"")).is_empty());
    }
    assert!(world.rows().is_empty());
}

/// One thing that happens to Millrace.
#[derive(Clone, Debug)]
enum Event {
    /// A frame of the corpus arrives at a worker, some of its bytes changed, cut at an offset.
    Frame { worker: usize, port: u16, frame: usize, changes: Vec<(usize, u8)>, cut: Option<usize> },
    /// Anything at all arrives.
    Noise { worker: usize, port: u16, bytes: Vec<u8> },
    /// Time passes.
    Wait(u32),
    /// Rings to other workers and the buffer pool fill up, or empty again.
    Starve(bool),
    /// The configuration changes to another one.
    Reload(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let changes = prop::collection::vec((0usize..120, any::<u8>()), 0..4);
    let frame = (0usize..3, 0u16..2, 0usize..1000, changes, prop::option::weighted(0.1, 0usize..120))
        .prop_map(|(worker, port, frame, changes, cut)| Event::Frame { worker, port, frame, changes, cut });
    let noise = (0usize..3, 0u16..2, prop::collection::vec(any::<u8>(), 0..100))
        .prop_map(|(worker, port, bytes)| Event::Noise { worker, port, bytes });
    prop_oneof![
        30 => frame,
        3 => noise,
        4 => (1u32..20_000).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Starve),
        1 => (0usize..4).prop_map(Event::Reload),
    ]
}

/// Every kind of frame that means something to the configurations below.
fn corpus() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (client, vip, backend) in [
        ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080"),
        ("198.51.100.8:5555", "192.0.2.81:80", "10.0.0.11:80"),
        ("[2001:db8:1::7]:5555", "[2001:db8::80]:80", "[fd00:2::11]:8080"),
    ] {
        let ip = |end: &str| end.parse::<std::net::SocketAddr>().unwrap().ip().to_string();
        for (mac, from, to) in [(PORT_MACS[0], client, vip), (PORT_MACS[1], backend, client)] {
            for flags in ["S", "SA", "A", "PA", "FA", "R"] {
                frames.push(tcp(mac, from, to, flags, b"data"));
            }
            frames.push(too_big(mac, &ip(from), &ip(to), 1280, &tcp(mac, to, from, "A", b"quoted"), 60));
            frames.push(ping(mac, &ip(from), &ip(to)));
        }
    }
    let query = udp(PORT_MACS[0], "198.51.100.7:5353", "192.0.2.53:53", &[b'q'; 600]);
    let (first, second) = fragment_ipv4(&query, 304);
    frames.extend([query, first, second, udp(PORT_MACS[1], "10.0.1.12:53", "198.51.100.7:5353", b"!")]);
    frames.push(udp_ttl(PORT_MACS[0], "198.51.100.7:5353", "192.0.2.53:53", b"?", 1));
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever happens, nothing panics or allocates, and every packet is accounted for.
    #[test]
    fn every_packet_is_accounted_for(events in prop::collection::vec(event(), 1..120)) {
        let small = "[limits]\nconnections = 64\nneighbours = 16\nneighbour_queue = 2\nfragments = 16\n";
        let moved = WEB.replace("10.0.1.11:8080", "10.0.1.12:8080");
        let reset = WEB.replace("mode = \"nat\"", "mode = \"nat\"\non_remove = \"reset\"");
        let inline = PORTS.replace("device = \"net_null1\"", "device = \"net_null1\"\npass_to = \"front\"");
        let configs = [
            [PORTS, WEB, DSR, DNS].concat(),
            [PORTS, &moved, DNS].concat(),
            [PORTS, &reset, DSR].concat(),
            [&inline, WEB, DNS].concat(),
        ]
        .map(|rest| format!("{small}{rest}"));
        let corpus = corpus();
        let mut world = World::new(&configs[0], 3);
        world.know(BACK, "10.0.1.11", BACKENDS[0]);
        world.know(FRONT, "10.0.0.254", GATEWAY);
        for event in events {
            match event {
                Event::Frame { worker, port, frame, changes, cut } => {
                    let mut frame = corpus[frame % corpus.len()].clone();
                    for (at, value) in changes {
                        let len = frame.len();
                        frame[at % len] = value;
                    }
                    frame.truncate(cut.unwrap_or(usize::MAX));
                    world.receive_on(worker, PortId(port), &[frame]);
                }
                Event::Noise { worker, port, bytes } => {
                    world.receive_on(worker, PortId(port), &[bytes]);
                }
                Event::Wait(ms) => {
                    world.pass_ms(ms, ms.div_ceil(4));
                }
                Event::Starve(starve) => {
                    for env in &mut world.envs {
                        (env.ring_full, env.pool_empty) = (starve, starve);
                    }
                }
                Event::Reload(config) => world.reload(&configs[config]),
            }
        }
        world.shut_down();
        let live: u64 = (0..256).map(|id| world.live(id)).sum();
        let entries: u64 = world.envs.iter().map(|env| env.counters.entries.get()).sum();
        prop_assert_eq!(live, entries, "every connection belongs to a backend");
    }
}
