//! Meters in the walk: what passes is what the bucket has, whichever worker gets it, and nothing else.

use crate::common;
use crate::common::frames::{fragment_ipv4, read, tcp, too_big, udp};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::conntrack::Count;
use dataplane::counters::{Counter, MeterCounters};
use dataplane::offload::{Answer, Declined, OffloadState, RuleId};

const NET: &str = r#"
[[tenant]]
name = "blue"
TENANT
[[port]]
name = "front"
device = "net_null0"
tenant = "blue"
addresses = ["10.0.0.1/24"]
gateway = "10.0.0.254"
[[port]]
name = "back"
device = "net_null1"
tenant = "blue"
addresses = ["10.0.1.1/24"]
[[service]]
name = "web"
tenant = "blue"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
SERVICE
[[service.backend]]
address = "10.0.1.11:8080"
[[service]]
name = "dns"
tenant = "blue"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
affinity = "none"
[[service.backend]]
address = "10.0.1.11:53"
"#;

const CLIENT: &str = "198.51.100.7:5555";
const WEB: &str = "192.0.2.80:80";

fn config(tenant: &str, service: &str) -> String {
    let limit = |limit: &str| if limit.is_empty() { String::new() } else { format!("limit = {{ {limit} }}") };
    NET.replace("TENANT", &limit(tenant))
        .replace("SERVICE", &limit(service))
        .replace("[[tenant]]", &format!("[workers]\ncores = {:?}\n[[tenant]]", [0, 1]))
}

fn world(tenant: &str, service: &str, workers: usize) -> World {
    let mut world = World::new(&config(tenant, service), workers);
    world.know(FRONT, "10.0.0.254", MacAddr([2, 0, 0, 0, 1, 254]));
    world.know(BACK, "10.0.1.11", MacAddr([2, 0, 0, 0, 2, 11]));
    world.pass_ms(10, 1);
    world
}

fn segment(client: &str, flags: &str, payload: usize) -> Vec<u8> {
    tcp(PORT_MACS[0], client, WEB, flags, &vec![0; payload])
}

/// What a meter has counted of packets by colour, and refused.
fn counted<'a>(world: &'a World, meter: impl Fn(&'a World, usize) -> &'a MeterCounters) -> [u64; 4] {
    let mut sum = [0; 4];
    for worker in 0..world.workers.len() {
        let counters = meter(world, worker);
        let colours = counters.colours.iter().map(|traffic| &traffic.packets);
        for (sum, counter) in sum.iter_mut().zip(colours.chain([&counters.refused])) {
            *sum += Counter::get(counter);
        }
    }
    sum
}

fn web(world: &World) -> [u64; 4] {
    counted(world, |world, worker| &world.envs[worker].counters.service_meters[0])
}

fn blue(world: &World) -> [u64; 4] {
    counted(world, |world, worker| &world.envs[worker].counters.tenant_meters[1])
}

/// Twice the rate for two seconds, of clients of all workers: what passes is a burst and the rate.
#[test]
fn the_rate_and_a_burst_pass_whichever_worker_has_them() {
    for workers in [1, 2] {
        let mut world = world("", "packets_per_second = 2000, burst_ms = 50", workers);
        let mut sent = 0;
        for ms in 0..2_000u32 {
            let client = |n: u32| format!("198.51.100.{}:{}", (ms + n) % 50 + 1, 5_000);
            let frames: Vec<_> = (0..4).map(|n| segment(&client(n), "A", 10)).collect();
            sent += world.receive_on(ms as usize % workers, FRONT, &frames).len();
            sent += world.pass_ms(1, 1).len();
        }
        let due = 100 + 2_000 * 2;
        assert!(sent.abs_diff(due) <= due / 100, "{workers} workers: {sent} of {due}");
        let [green, yellow, red, refused] = web(&world);
        assert_eq!((green as usize, yellow, green + red, refused), (sent, 0, 8_000, 0));
        assert!(world.report().contains(&format!("drop.meter_rate={red}")), "{:?}", world.report());
    }
}

/// Both directions count, and replies are dropped like what they answer.
#[test]
fn replies_are_metered_too() {
    let mut world = world("", "bits_per_second = 8000", 1);
    let reply = tcp(PORT_MACS[1], "10.0.1.11:8080", CLIENT, "A", &[0; 1_360]);
    assert_eq!(world.receive(FRONT, &segment(CLIENT, "S", 0)).len(), 1);
    let sent: usize = (0..100).map(|_| world.receive(BACK, &reply).len()).sum();
    assert_eq!(sent, (65_536 - 40) / 1_400);
    assert_eq!(web(&world)[2] as usize, 100 - sent);
}

/// What the tenant stops has cost the service nothing.
#[test]
fn a_tenant_s_services_share_its_rate() {
    let mut world =
        world("packets_per_second = 100, burst_ms = 1", "packets_per_second = 100, burst_ms = 1000", 1);
    let dns = udp(PORT_MACS[0], CLIENT, "192.0.2.53:53", b"?");
    let asked: usize = (0..20).map(|_| world.receive(FRONT, &dns).len()).sum();
    let segments: usize = (0..50).map(|_| world.receive(FRONT, &segment(CLIENT, "A", 0)).len()).sum();
    assert_eq!((asked, segments), (20, 12), "a burst is 32 packets at least");
    assert_eq!((blue(&world), web(&world)), ([32, 0, 38, 0], [12, 0, 0, 0]));
    world.reload(&config("", "packets_per_second = 100, burst_ms = 1000"));
    let segments: usize = (0..200).map(|_| world.receive(FRONT, &segment(CLIENT, "A", 0)).len()).sum();
    assert_eq!(segments, 100 - 12, "the service's meter went on as it was");
}

#[test]
fn yellow_packets_are_marked_and_nothing_else_is_changed() {
    let plain = world("", "", 1).exchange(FRONT, &segment(CLIENT, "A", 10)).1;
    let limit = "packets_per_second = 1, excess_ms = 1, burst_ms = 1, yellow_dscp = 10";
    let mut world = world("", limit, 1);
    for n in 0..70 {
        let sent = world.receive(FRONT, &segment(CLIENT, "A", 10));
        match n {
            0..32 => assert_eq!(sent, [(BACK, plain.clone())]),
            32..64 => {
                let (_, frame) = &sent[0];
                assert_eq!((frame[15], read(frame)), (10 << 2, read(&plain)));
                assert_eq!((&frame[26..], &frame[16..24]), (&plain[26..], &plain[16..24]));
            }
            _ => assert!(sent.is_empty()),
        }
    }
    assert_eq!(web(&world), [32, 32, 6, 0]);
}

#[test]
fn later_fragments_are_charged_like_the_first() {
    let mut world = world("", "packets_per_second = 1, burst_ms = 1", 1);
    let mut sent = 0;
    for n in 0..30u16 {
        let mut frame = segment(CLIENT, "A", 400);
        frame[18..20].copy_from_slice(&n.to_be_bytes());
        common::frames::fix_ipv4_checksum(&mut frame);
        let (first, later) = fragment_ipv4(&frame, 200);
        sent += world.receive(FRONT, &first).len() + world.receive(FRONT, &later).len();
    }
    assert_eq!(sent, 32);
}

#[test]
fn connections_are_limited_by_rate_and_number() {
    let limit = "new_connections_per_second = 10, connections = 40, burst_ms = 1";
    let mut world = world("", limit, 2);
    let mut port = 1_000;
    let mut open = |world: &mut World, count: usize| {
        let frames: Vec<_> = (0..count)
            .map(|n| {
                port += 1;
                segment(&format!("198.51.100.{}:{port}", n % 200 + 1), "S", 0)
            })
            .collect();
        world.receive_on(0, FRONT, &frames).len()
    };
    assert_eq!(open(&mut world, 50), 32);
    world.pass_ms(700, 10);
    assert_eq!((open(&mut world, 50), open(&mut world, 50)), (7, 0));
    world.pass_ms(3_000, 10);
    assert_eq!((open(&mut world, 50), world.live(0)), (1, 40), "40 at a time");
    // Connections that exist are not concerned.
    assert_eq!(world.receive(FRONT, &segment("198.51.100.1:1001", "A", 0)).len(), 1);
    world.pass_ms(12_000, 100);
    assert_eq!(open(&mut world, 50), 32, "those that never answered are over");
    assert_eq!(web(&world)[3], 18 + 43 + 50 + 49 + 18);
}

/// Hardware is asked for what it can meter; the rest is software's, and comes back when such a limit is set.
#[test]
fn hardware_is_only_asked_for_what_it_can_meter() {
    let mut world = world("", "", 1);
    world.workers[0].set_price(2);
    let established = |world: &mut World| {
        world.exchange(FRONT, &segment(CLIENT, "S", 0));
        world.exchange(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", CLIENT, "SA", b""));
        for _ in 0..40 {
            world.exchange(FRONT, &segment(CLIENT, "A", 10));
        }
    };
    established(&mut world);
    let ask = world.envs[0].asks.pop().expect("asked for");
    let rule = RuleId(1);
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule });
    let both = "packets_per_second = 1000, bits_per_second = 1000000";
    world.reload(&config(both, ""));
    let next_hops = ask.legs.map(|leg| leg.map(|leg| leg.next_hop));
    let (backend, counts) = (ask.backend, [Count::default(); 2]);
    world.answer(&Answer::Counted {
        flow: ask.flow,
        rule: Some(rule),
        backend,
        counts,
        next_hops,
        below: None,
    });
    assert_eq!(world.rows()[0].offload, OffloadState::Removing(rule));

    let one = "bits_per_second = 100_000_000";
    for (tenant, service, asks) in [("", one, 1), (one, "", 1), (one, one, 0), ("", both, 0), (both, "", 0)] {
        let mut metered = self::world(tenant, service, 1);
        metered.workers[0].set_price(2);
        established(&mut metered);
        assert_eq!(metered.envs[0].asks.len(), asks, "{tenant}; {service}");
        let declined = metered.rows()[0].offload == OffloadState::Declined(Declined::Metered);
        assert_eq!(declined, asks == 0);
    }
}

/// What hardware has forwarded its meter has found green: it is counted as such.
#[test]
fn what_hardware_forwards_is_green() {
    let limit = "packets_per_second = 1000";
    let mut world = world(limit, "connections = 9", 1);
    world.workers[0].set_price(2);
    world.exchange(FRONT, &segment(CLIENT, "S", 0));
    world.exchange(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", CLIENT, "SA", b""));
    world.exchange(FRONT, &segment(CLIENT, "A", 10));
    let before = (web(&world)[0], blue(&world)[0]);
    let ask = world.envs[0].asks.pop().expect("asked for");
    let rule = RuleId(1);
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule });
    let next_hops = ask.legs.map(|leg| leg.map(|leg| leg.next_hop));
    let (backend, counts) =
        (ask.backend, [Count { packets: 3, bytes: 300 }, Count { packets: 4, bytes: 99 }]);
    world.answer(&Answer::Counted {
        flow: ask.flow,
        rule: Some(rule),
        backend,
        counts,
        next_hops,
        below: None,
    });
    assert_eq!((web(&world)[0], blue(&world)[0]), (before.0 + 7, before.1 + 7));
    assert_eq!(world.rows()[0].offload, OffloadState::Installed(rule));
}

/// What the policy stops has cost nothing: it is judged first.
#[test]
fn denied_packets_are_not_charged() {
    let limit = "packets_per_second = 1, burst_ms = 1";
    let mut world = world("", limit, 1);
    assert_eq!(world.receive(FRONT, &segment(CLIENT, "S", 0)).len(), 1);
    let deny = "[[policy]]\naction = \"deny\"\nfrom = [\"198.51.100.7/32\"]\n";
    world.reload(&format!("{}{deny}", config("", limit)));
    for _ in 0..20 {
        assert!(world.receive(FRONT, &segment(CLIENT, "A", 0)).is_empty());
    }
    assert_eq!(web(&world), [1, 0, 0, 0]);
    assert!(world.report().contains(&"drop.policy_denied=20".to_owned()), "{:?}", world.report());
    world.reload(&config("", limit));
    let sent: usize = (0..40).map(|_| world.receive(FRONT, &segment(CLIENT, "A", 0)).len()).sum();
    assert_eq!(sent, 31);
}

/// A SYN that uses a port again is one packet.
#[test]
fn a_reused_port_is_charged_once() {
    let mut world = world("", "packets_per_second = 1, burst_ms = 1, new_connections_per_second = 1", 1);
    world.exchange(FRONT, &segment(CLIENT, "S", 0));
    world.exchange(FRONT, &segment(CLIENT, "R", 0));
    for again in 0..10 {
        world.pass_ms(2, 1);
        world.exchange(FRONT, &segment(CLIENT, "S", 0));
        world.exchange(FRONT, &segment(CLIENT, "R", 0));
        assert_eq!(web(&world), [4 + 2 * again, 0, 0, 0]);
    }
}

/// Connections that are picked up from their backend's side are new ones, too.
#[test]
fn connections_picked_up_by_replies_are_charged() {
    let mut world = world("", "new_connections_per_second = 1, burst_ms = 1", 1);
    let reply = |n| tcp(PORT_MACS[1], "10.0.1.11:8080", &format!("198.51.100.{n}:5555"), "A", b"more");
    let sent: usize = (1..=50).map(|n| world.receive(BACK, &reply(n)).len()).sum();
    assert_eq!((sent, world.live(0), web(&world)[3]), (32, 32, 18));
}

/// What its tenant refuses has not cost the service one of its openings, nor has what finds no backend.
#[test]
fn openings_that_come_to_nothing_are_given_back() {
    let tenant = "new_connections_per_second = 1, burst_ms = 1";
    let service = "new_connections_per_second = 40, burst_ms = 1000";
    let mut world = world(tenant, service, 1);
    let open = |world: &mut World, count: u16, from: u16| {
        let frames = (0..count).map(|n| segment(&format!("198.51.100.9:{}", from + n), "S", 0));
        frames.map(|frame| world.receive(FRONT, &frame).len()).sum::<usize>()
    };
    assert_eq!(open(&mut world, 100, 1_000), 32);
    assert_eq!((web(&world)[3], blue(&world)[3]), (0, 68));
    world.reload(&config("", service));
    assert_eq!(open(&mut world, 100, 2_000), 40 - 32, "the service's bucket is as it was");
}

/// An ICMP error costs what a packet costs of the connection that it is about.
#[test]
fn errors_about_a_connection_are_charged() {
    let mut world = world("", "packets_per_second = 1, burst_ms = 1", 1);
    world.exchange(FRONT, &segment(CLIENT, "S", 0));
    let reply = tcp(PORT_MACS[1], "10.0.1.11:8080", CLIENT, "SA", b"");
    let (_, answer) = world.exchange(BACK, &reply);
    let error = too_big(PORT_MACS[0], "203.0.113.1", "192.0.2.80", 1_400, &answer, 40);
    let sent: usize = (0..40).map(|_| world.receive(FRONT, &error).len()).sum();
    assert_eq!((sent, web(&world)), (30, [32, 0, 10, 0]));
}

/// What a bump in the wire passes on is its tenant's, whether the policy has a say in it or not; what finds
/// neighbours is free.
#[test]
fn what_is_passed_on_is_the_tenant_s() {
    let text = config("packets_per_second = 10, burst_ms = 1", "")
        .replace("device = \"net_null0\"", "device = \"net_null0\"\npass_to = \"back\"")
        .replace("device = \"net_null1\"", "device = \"net_null1\"\npass_to = \"front\"");
    let host = MacAddr([2, 0, 0, 0, 7, 1]);
    let question = udp(host, "203.0.113.9:53", "203.0.113.10:53", b"?");
    let mut arp = question.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    arp[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    let judged = "[[policy]]\naction = \"deny\"\nfrom = [\"198.51.100.7/32\"]\n";
    for policy in ["", judged] {
        let mut world = World::new(&format!("{text}{policy}"), 2);
        world.pass_ms(10, 1);
        let sent: usize = (0..40).map(|_| world.receive(FRONT, &question).len()).sum();
        assert_eq!((sent, blue(&world)), (32, [32, 0, 8, 0]), "{policy}");
        assert!((0..40).all(|_| world.receive(FRONT, &arp) == [(BACK, arp.clone())]));
        assert!(world.report().contains(&"drop.meter_rate=8".to_owned()), "{:?}", world.report());
    }
}
