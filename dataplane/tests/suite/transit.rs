//! What is passed on between others, where the policy has a say in it.

use crate::common::frames::{
    CLIENT_MAC, fix_icmpv6_checksum, fix_ipv4_checksum, fragment_ipv4, ping, read, tcp, too_big, udp,
};
use crate::common::rules::{from, policy, rule};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::ids::PortId;
use dataplane::policy::Action::{self, Allow, Deny, Reject};
use dataplane::policy::{Defaults, Source};
use proptest::prelude::*;

const CONFIG: &str = r#"
[limits]
connections = 512
half_open_percent = 50
[[port]]
name = "wire"
device = "net_null0"
addresses = ["10.0.0.1/24"]
pass_to = "hosts"
faces = "clients"
[[port]]
name = "hosts"
device = "net_null1"
addresses = ["10.0.1.1/24"]
pass_to = "wire"
faces = "backends"
[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.1.11:8080"
"#;

/// The station that each side speaks to.
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 7, 1]);
const HOST: &str = "10.0.1.20:40000";
const STRANGER: &str = "198.51.100.9:443";

/// Hosts may speak to whom they like, and nobody to them.
fn guarded() -> Source {
    Source { rules: Vec::new(), defaults: Defaults { all: [Deny, Allow], tenants: Vec::new() } }
}

fn world(workers: usize) -> World {
    let mut world = World::new(CONFIG, workers);
    world.govern(guarded());
    world.pass_ms(1, 1);
    world
}

fn out(flags: &str) -> Vec<u8> {
    tcp(ROUTER, HOST, STRANGER, flags, b"")
}

fn inward(flags: &str) -> Vec<u8> {
    tcp(ROUTER, STRANGER, HOST, flags, b"")
}

#[track_caller]
fn assert_passes(world: &mut World, port: PortId, frame: &[u8]) {
    let other = if port == FRONT { BACK } else { FRONT };
    assert_eq!(world.receive(port, frame), [(other, frame.to_vec())], "unchanged");
}

#[track_caller]
fn assert_refused(world: &mut World, port: PortId, frame: &[u8]) {
    assert_eq!(world.receive(port, frame), []);
}

#[track_caller]
fn assert_report(world: &World, lines: &[&str]) {
    let report = world.report();
    for line in lines {
        let (name, value) = line.split_once('=').expect("name=value");
        let found = report.iter().find_map(|l| l.strip_prefix(&format!("{name}="))).unwrap_or("0");
        assert_eq!(found, value, "{name}: {report:?}");
    }
}

fn shake_hands(world: &mut World) {
    assert_passes(world, BACK, &out("S"));
    assert_passes(world, FRONT, &inward("SA"));
    assert_passes(world, BACK, &out("A"));
}

#[test]
fn answers_pass_and_strangers_do_not() {
    for workers in [1, 4] {
        let mut world = world(workers);
        assert_refused(&mut world, FRONT, &inward("S"));
        assert_refused(&mut world, FRONT, &inward("SA"));
        shake_hands(&mut world);
        let asked = udp(ROUTER, "10.0.1.20:5353", "198.51.100.53:53", b"?");
        let answer = udp(ROUTER, "198.51.100.53:53", "10.0.1.20:5353", b"!");
        assert_refused(&mut world, FRONT, &answer);
        assert_passes(&mut world, BACK, &asked);
        assert_passes(&mut world, FRONT, &answer);
        assert_report(&world, &["drop.policy_denied=3", "entries=2"]);
        world.pass_ms(200_000, 1_000);
        assert_refused(&mut world, FRONT, &answer);
    }
}

#[test]
fn an_end_makes_room_for_the_next_connection() {
    let mut world = world(1);
    shake_hands(&mut world);
    assert_passes(&mut world, FRONT, &inward("RA"));
    assert_refused(&mut world, FRONT, &inward("S"));
    shake_hands(&mut world);
    assert_report(&world, &["entries=1"]);
}

/// What was let in by one policy is judged by the next, as it was opened; the silent are swept out.
#[test]
fn a_change_ends_what_it_refuses() {
    let mut world = world(1);
    shake_hands(&mut world);
    world.govern(policy([], Deny));
    for (port, frame) in [(BACK, out("A")), (FRONT, inward("A"))] {
        assert_refused(&mut world, port, &frame);
    }
    assert_report(&world, &["entries=0"]);
    world.govern(guarded());
    assert_refused(&mut world, FRONT, &inward("A"));
    assert_passes(&mut world, BACK, &out("A"));
    assert_passes(&mut world, FRONT, &inward("A"));
    world.govern(policy([rule(Deny, from("10.0.1.20/32"))], Allow));
    world.pass_ms(10, 1);
    assert_report(&world, &["entries=0"]);
}

#[test]
fn who_is_rejected_is_told_by_the_way_it_came() {
    let mut world = world(1);
    world.govern(policy([], Reject));
    let sent = world.receive(FRONT, &inward("S"));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, &sent[0].1[6..12]), (FRONT, &ROUTER.0[..]));
    assert_eq!(read(&sent[0].1), format!("{CLIENT_MAC} {HOST} > {STRANGER} ttl 64 tcp RA \"\""));
    let sent = world.receive(BACK, &udp(ROUTER, "10.0.1.20:5353", "198.51.100.53:53", b"?"));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1[23], &sent[0].1[34..36]), (BACK, 1, &[3, 13][..]));
    assert_eq!(&sent[0].1[26..34], [198, 51, 100, 53, 10, 0, 1, 20]);
}

#[test]
fn errors_pass_with_their_connection_and_pings_by_themselves() {
    for workers in [1, 4] {
        let mut world = world(workers);
        let quoted = out("PA");
        let error = too_big(ROUTER, "203.0.113.1", "10.0.1.20", 1400, &quoted, 40);
        assert_refused(&mut world, FRONT, &error);
        shake_hands(&mut world);
        assert_passes(&mut world, FRONT, &error);
        // One about it for somebody else belongs to nothing, whatever it quotes.
        let stray = too_big(ROUTER, "203.0.113.1", "10.0.1.21", 1400, &quoted, 40);
        assert_refused(&mut world, FRONT, &stray);
        assert_refused(&mut world, FRONT, &ping(ROUTER, "198.51.100.9", "10.0.1.20"));
        assert_passes(&mut world, BACK, &ping(ROUTER, "10.0.1.20", "198.51.100.9"));
        world.govern(policy([rule(Reject, from("10.0.1.20/32"))], Allow));
        assert_refused(&mut world, FRONT, &error);
        assert_report(&world, &["entries=0"]);
    }
}

#[test]
fn other_protocols_are_judged_by_their_addresses_and_what_is_not_ip_passes() {
    let mut world = world(1);
    let gre = |mut frame: Vec<u8>| {
        frame[23] = 47;
        fix_ipv4_checksum(&mut frame);
        frame
    };
    assert_refused(&mut world, FRONT, &gre(inward("S")));
    assert_passes(&mut world, BACK, &gre(out("S")));
    let mut truncated = out("S");
    truncated.truncate(40);
    assert_refused(&mut world, BACK, &truncated);
    let mut lldp = inward("S");
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_passes(&mut world, FRONT, &lldp);
    assert_report(&world, &["entries=0"]);
}

/// What is behind labels and other tags cannot be judged by its ends: where strangers are denied by default,
/// it does not get through by being wrapped.
#[test]
fn what_may_hide_ip_is_left_to_the_default() {
    let wrapped = |frame: Vec<u8>, with: &[u8]| [&frame[..12], with, &frame[12..]].concat();
    let wraps: [&[u8]; 4] = [
        &[0x91, 0, 0, 5],
        &[0x88, 0x47, 0, 1, 1, 64],
        &[0x81, 0, 0, 5, 0x88, 0x64, 0x11, 0, 0, 1],
        &[0, 60, 0xaa, 0xaa, 3, 0, 0, 0],
    ];
    let mut world = world(1);
    for with in wraps {
        assert_refused(&mut world, FRONT, &wrapped(inward("S"), with));
        assert_passes(&mut world, BACK, &wrapped(out("S"), with));
    }
    assert_report(&world, &["drop.policy_denied=4", "entries=0"]);
    // A rule that names ends is not about them.
    world.govern(policy([rule(Deny, from("198.51.100.0/24"))], Allow));
    for with in wraps {
        assert_passes(&mut world, FRONT, &wrapped(inward("S"), with));
    }
}

/// Only messages that their receiver would take: from this link, and in order.
#[test]
fn neighbour_discovery_passes_as_it_should_be() {
    let mut world = world(1);
    let solicitation = |hops: u8, code: u8| {
        let mut frame =
            [&ROUTER.0[..], &[2, 0, 0, 0, 9, 9, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, hops]].concat();
        frame.extend([0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.extend([135, code, 0, 0, 0, 0, 0, 0]);
        frame.extend([0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        fix_icmpv6_checksum(&mut frame);
        frame
    };
    assert_passes(&mut world, FRONT, &solicitation(255, 0));
    assert_refused(&mut world, FRONT, &solicitation(254, 0));
    assert_refused(&mut world, FRONT, &solicitation(255, 1));
    let mut wrong = solicitation(255, 0);
    wrong[56] ^= 1;
    assert_refused(&mut world, FRONT, &wrong);
    let mut router = solicitation(255, 0);
    router[54] = 134;
    fix_icmpv6_checksum(&mut router);
    assert_refused(&mut world, FRONT, &router);
}

#[test]
fn fragments_follow_their_first_one_in_either_order() {
    for (workers, swapped) in [(1, false), (1, true), (4, false), (4, true)] {
        let mut world = world(workers);
        let asked = udp(ROUTER, "10.0.1.20:5353", "198.51.100.53:53", &[b'?'; 1000]);
        let (first, second) = fragment_ipv4(&asked, 504);
        if swapped {
            assert_refused(&mut world, BACK, &second);
            let sent = world.receive(BACK, &first);
            assert_eq!(sent, [(FRONT, first.clone()), (FRONT, second.clone())]);
        } else {
            assert_passes(&mut world, BACK, &first);
            assert_passes(&mut world, BACK, &second);
        }
        let stranger = udp(ROUTER, "198.51.100.99:53", "10.0.1.20:5353", &[b'!'; 1000]);
        let (first, second) = fragment_ipv4(&stranger, 504);
        assert_refused(&mut world, FRONT, &first);
        assert_refused(&mut world, FRONT, &second);
        world.pass_ms(60_000, 500);
    }
}

#[test]
fn where_the_policy_says_nothing_nothing_is_followed() {
    let mut world = World::new(CONFIG, 1);
    world.pass_ms(10, 1);
    for (port, frame) in [(FRONT, inward("S")), (BACK, out("A"))] {
        assert_passes(&mut world, port, &frame);
    }
    assert_report(&world, &["entries=0"]);
}

/// What was none of our business becomes a service's: its connections begin anew there.
#[test]
fn a_service_takes_over_what_was_passed_on() {
    let mut world = world(1);
    world.govern(policy([rule(Deny, from("192.0.2.99/32"))], Allow));
    world.know(BACK, "10.0.1.11", MacAddr([2, 0, 0, 0, 2, 11]));
    let other = "198.51.100.7:5555";
    assert_passes(&mut world, FRONT, &tcp(PORT_MACS[0], other, "192.0.2.81:80", "S", b""));
    assert_report(&world, &["entries=1"]);
    world.reload(&CONFIG.replace("192.0.2.80", "192.0.2.81"));
    world.govern(policy([rule(Deny, from("192.0.2.99/32"))], Allow));
    let (port, frame) = world.exchange(FRONT, &tcp(PORT_MACS[0], other, "192.0.2.81:80", "S", b""));
    assert_eq!((port, read(&frame).contains("> 10.0.1.11:8080 ttl 63")), (BACK, true));
    assert_report(&world, &["entries=1"]);
}

#[derive(Clone, Debug)]
enum Event {
    /// Between a host and a stranger: from the host, or to it.
    Packet {
        host: u8,
        outward: bool,
        udp: bool,
        worker: usize,
    },
    Policy {
        ingress: Action,
        egress: Action,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let packet = (0..4u8, any::<bool>(), any::<bool>(), 0..4usize)
        .prop_map(|(host, outward, udp, worker)| Event::Packet { host, outward, udp, worker });
    let action = || prop_oneof![Just(Allow), Just(Deny)];
    let change = (action(), action()).prop_map(|(ingress, egress)| Event::Policy { ingress, egress });
    prop_oneof![8 => packet, 1 => change]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Each packet passes if and only if the way its connection was opened is allowed now.
    #[test]
    fn packets_pass_as_their_connection_was_opened(
        workers in 1..5usize,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let govern = |world: &mut World, all: [Action; 2]| {
            let defaults = Defaults { all, tenants: Vec::new() };
            world.govern(Source { rules: vec![rule(Deny, from("192.0.2.99/32"))], defaults });
            world.pass_ms(2, 1);
        };
        let mut world = World::new(CONFIG, workers);
        govern(&mut world, [Allow; 2]);
        // By host and protocol: whether its connection was opened outward.
        let mut open = [[None; 2]; 4];
        let mut allowed = [Allow; 2];
        for event in events {
            match event {
                Event::Policy { ingress, egress } => {
                    allowed = [ingress, egress];
                    govern(&mut world, allowed);
                    for opened in open.iter_mut().flatten() {
                        *opened = opened.filter(|outward| allowed[usize::from(*outward)] == Allow);
                    }
                }
                Event::Packet { host, outward, udp: by_udp, worker } => {
                    let ends = [format!("10.0.1.{}:99", 20 + host), "198.51.100.9:99".to_owned()];
                    let (src, dst) = if outward { (&ends[0], &ends[1]) } else { (&ends[1], &ends[0]) };
                    let frame = match by_udp {
                        true => udp(ROUTER, src, dst, b"."),
                        false => tcp(ROUTER, src, dst, "A", b""),
                    };
                    let (port, other) = if outward { (BACK, FRONT) } else { (FRONT, BACK) };
                    let opened = &mut open[usize::from(host)][usize::from(by_udp)];
                    let passes = allowed[usize::from(opened.unwrap_or(outward))] == Allow;
                    if passes && opened.is_none() {
                        *opened = Some(outward);
                    }
                    let sent = world.receive_on(worker % workers, port, std::slice::from_ref(&frame));
                    prop_assert_eq!(sent, if passes { vec![(other, frame)] } else { Vec::new() });
                }
            }
        }
    }
}
