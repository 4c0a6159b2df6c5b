//! The policy in the walk: who is let in, who has to go when it changes, and what they are told.

use crate::common::frames::{fragment_ipv4, ping, read, tcp, too_big, udp};
use crate::common::rules::{everything, from, from_port, policy, rule};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::ids::PortId;
use dataplane::offload::{Answer, Ask, OffloadState, Removal, Revocation, RuleId};
use dataplane::packet::{Burst, TestPacket};
use dataplane::policy::Action::{Allow, Deny, Reject};
use dataplane::policy::{Matches, Opening, Source, Standing, Statement};
use proptest::prelude::*;

const CONFIG: &str = r#"
[limits]
connections = 512
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
[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.1.11:8080"
[[service]]
name = "web6"
vip = "2001:db8::80"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "[fd00:2::11]:8080"
[[service]]
name = "quic"
vip = "192.0.2.80"
protocol = "udp"
ports = [443]
[[service.backend]]
address = "10.0.1.11:8443"
[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
affinity = "none"
[[service.backend]]
address = "10.0.1.11:53"
"#;

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 1, 254]);
const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 2, 11]);
const CLIENT: &str = "198.51.100.7:5555";
const OTHER: &str = "198.51.100.8:5555";
const CLIENT6: &str = "[2001:db8:1::7]:5555";
const WEB: &str = "192.0.2.80:80";
const WEB6: &str = "[2001:db8::80]:80";
const QUIC: &str = "192.0.2.80:443";
const DNS: &str = "192.0.2.53:53";
const RULE: RuleId = RuleId(7);

/// A world whose neighbours are known.
/// A service with the backend of another one.
const SECOND: &str = r#"[[service]]
name = "web2"
vip = "192.0.2.81"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.1.11:8080"
[[service]]
name = "web6""#;

fn world(workers: usize) -> World {
    settled(World::new(CONFIG, workers))
}

fn settled(mut world: World) -> World {
    for (port, ip, mac) in [
        (FRONT, "10.0.0.254", GATEWAY),
        (FRONT, "fd00:1::fe", GATEWAY),
        (BACK, "10.0.1.11", SERVER),
        (BACK, "fd00:2::11", SERVER),
    ] {
        world.know(port, ip, mac);
    }
    world.pass_ms(1, 1);
    world
}

fn governed(policy: Source) -> World {
    let mut world = world(1);
    world.govern(policy);
    world
}

fn but(rules: impl Into<Vec<Statement>>) -> Source {
    policy(rules, Allow)
}

fn client() -> Matches {
    from("198.51.100.7/32")
}

fn from_client(world: &mut World, client: &str, flags: &str) -> Vec<(PortId, Vec<u8>)> {
    world.receive(FRONT, &tcp(PORT_MACS[0], client, WEB, flags, b""))
}

fn from_server(world: &mut World, client: &str, flags: &str) -> Vec<(PortId, Vec<u8>)> {
    world.receive(BACK, &tcp(PORT_MACS[1], "10.0.1.11:8080", client, flags, b""))
}

fn shake_hands(world: &mut World, client: &str) {
    assert_eq!(from_client(world, client, "S").len(), 1);
    assert_eq!(from_server(world, client, "SA").len(), 1);
    assert_eq!(from_client(world, client, "A").len(), 1);
}

fn texts(sent: &[(PortId, Vec<u8>)]) -> Vec<String> {
    sent.iter().map(|(port, frame)| format!("{} {}", port.0, read(frame))).collect()
}

fn count(world: &World, counter: fn(&WorkerCounters) -> &Counter) -> u64 {
    world.envs.iter().map(|env| counter(&env.counters).get()).sum()
}

#[track_caller]
fn assert_report(world: &World, lines: &[&str]) {
    let report = world.report();
    let told = |name: &str| report.iter().find(|line| line.split('=').next() == Some(name));
    for line in lines {
        let (name, value) = line.split_once('=').expect("a counter and its value");
        match told(name) {
            Some(found) => assert_eq!(found, line),
            None => assert_eq!(value, "0", "{name}: {report:?}"),
        }
    }
}

#[test]
fn who_is_denied_hears_nothing() {
    let mut world = governed(but([rule(Deny, client())]));
    assert!(from_client(&mut world, CLIENT, "S").is_empty());
    assert!(from_client(&mut world, CLIENT, "A").is_empty(), "nor from the middle of a connection");
    assert!(from_client(&mut world, CLIENT, "R").is_empty());
    assert!(from_server(&mut world, CLIENT, "A").is_empty(), "nor picked up from the other side");
    assert!(world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, QUIC, b"?")).is_empty());
    assert!(world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, DNS, b"?")).is_empty());
    assert!(world.receive(BACK, &udp(PORT_MACS[1], "10.0.1.11:53", CLIENT, b"!")).is_empty());
    assert!(world.receive(FRONT, &ping(PORT_MACS[0], "198.51.100.7", "192.0.2.80")).is_empty());
    assert_report(&world, &["drop.policy_denied=8", "entries=0"]);
    shake_hands(&mut world, OTHER);
    assert_eq!(world.receive(FRONT, &ping(PORT_MACS[0], "198.51.100.8", "192.0.2.80")).len(), 1);
    assert_eq!(world.envs[0].counters.policy.rules[0].get(), 8);
    assert_eq!(world.envs[0].counters.policy.defaults[0].get(), 2);
}

#[test]
fn who_is_rejected_is_told() {
    let mut world = governed(policy([], Reject));
    let sent = from_client(&mut world, CLIENT, "S");
    assert_eq!(texts(&sent), [format!("0 {GATEWAY} {WEB} > {CLIENT} ttl 64 tcp RA \"\"")]);
    let sent = from_client(&mut world, CLIENT, "A");
    assert_eq!(texts(&sent), [format!("0 {GATEWAY} {WEB} > {CLIENT} ttl 64 tcp R \"\"")]);
    assert!(from_client(&mut world, CLIENT, "R").is_empty(), "no reset for a reset");
    let sent = from_server(&mut world, CLIENT, "A");
    assert_eq!(texts(&sent), both_ends());
    let sent = world.receive(FRONT, &tcp(PORT_MACS[0], CLIENT6, WEB6, "S", b""));
    assert_eq!(texts(&sent), [format!("0 {GATEWAY} {WEB6} > {CLIENT6} ttl 64 tcp RA \"\"")]);
    let sent = world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, QUIC, b"?"));
    let told = texts(&sent).concat();
    assert!(told.contains("10.0.0.1 > 198.51.100.7 ttl 64 icmp unreachable FilterProhibited"), "{told}");
    let sent = world.receive(FRONT, &udp(PORT_MACS[0], CLIENT, DNS, b"?"));
    assert_eq!(sent.len(), 1);
    let sent = world.receive(FRONT, &ping(PORT_MACS[0], "2001:db8:1::7", "2001:db8::80"));
    let told = texts(&sent).concat();
    assert!(
        told.contains("fd00:1::1 > 2001:db8:1::7 ttl 64 icmp6 DestinationUnreachable(Prohibited)"),
        "{told}"
    );
    assert_report(&world, &["drop.policy_rejected=8", "entries=0"]);
}

#[test]
fn answers_keep_to_the_rate() {
    let mut world = governed(policy([], Reject));
    let sent = (0..1000).map(|_| from_client(&mut world, CLIENT, "S").len()).sum::<usize>();
    assert!((1..=110).contains(&sent), "{sent} resets");
    assert_report(&world, &["drop.policy_rejected=1000"]);
}

/// What a rule about new connections lets in stays, whatever else changes.
#[test]
fn a_connection_goes_on_until_it_is_refused_itself() {
    let opens = Matches { opening: Some(Opening::New), ..everything() };
    let mut world = governed(policy([rule(Allow, opens.clone())], Deny));
    shake_hands(&mut world, CLIENT);
    assert!(from_client(&mut world, OTHER, "A").is_empty(), "not from its middle");
    let other = rule(Deny, from("198.51.100.8/32"));
    world.govern(policy([other.clone(), rule(Allow, opens.clone())], Deny));
    assert_eq!(from_client(&mut world, CLIENT, "PA").len(), 1);
    world.govern(policy([other.clone(), rule(Deny, opens.clone()), rule(Allow, opens)], Deny));
    assert_eq!(from_client(&mut world, CLIENT, "PA").len(), 1, "no new ones, but this one goes on");
    world.govern(policy([other], Deny));
    assert_report(&world, &["entries=0"]);
    assert!(from_client(&mut world, CLIENT, "PA").is_empty());
    assert_eq!(count(&world, |c| &c.policy_ended), 1);
}

/// A port that is used again makes a new connection, even where the one before could go on.
#[test]
fn a_port_used_again_is_a_newcomer() {
    let mut world = world(1);
    shake_hands(&mut world, CLIENT);
    from_client(&mut world, CLIENT, "R");
    world.govern(but([rule(Deny, Matches { opening: Some(Opening::New), ..everything() })]));
    assert_report(&world, &["entries=1"]);
    assert!(from_client(&mut world, CLIENT, "S").is_empty());
    assert_report(&world, &["drop.policy_denied=1"]);
}

/// The first packet after a change is judged by it, before any sweep.
#[test]
fn a_change_is_met_by_the_next_packet() {
    let mut world = world(1);
    shake_hands(&mut world, CLIENT);
    shake_hands(&mut world, OTHER);
    world.publish(but([rule(Reject, client())]));
    world.adopt(0);
    let burst = [(CLIENT, "PA"), (OTHER, "PA"), (CLIENT, "PA")];
    let frames = burst.map(|(client, flags)| tcp(PORT_MACS[0], client, WEB, flags, b""));
    let sent = world.receive_on(0, FRONT, &frames);
    let out: Vec<_> = texts(&sent);
    assert_eq!(
        out,
        [
            format!("0 {GATEWAY} {WEB} > {CLIENT} ttl 64 tcp R \"\""),
            format!("1 {SERVER} {OTHER} > 10.0.1.11:8080 ttl 63 tcp PA \"\""),
            format!("0 {GATEWAY} {WEB} > {CLIENT} ttl 64 tcp R \"\""),
        ]
    );
    assert_report(&world, &["entries=1", "drop.policy_rejected=2"]);
}

/// Resets for a client that only listens, and for the backend that spoke.
fn both_ends() -> [String; 2] {
    [
        format!("0 {GATEWAY} {WEB} > {CLIENT} ttl 64 tcp RA \"\""),
        format!("1 {SERVER} {CLIENT} > 10.0.1.11:8080 ttl 64 tcp R \"\""),
    ]
}

/// A backend that speaks first after the change, or after the sweep: its client is told, and it is.
#[test]
fn both_ends_are_told() {
    let mut world = world(1);
    shake_hands(&mut world, CLIENT);
    world.publish(but([rule(Reject, client())]));
    world.adopt(0);
    for _ in 0..2 {
        let sent = from_server(&mut world, CLIENT, "PA");
        assert_eq!(texts(&sent), both_ends());
    }
}

#[test]
fn the_silent_are_swept_out_and_the_others_stay() {
    let mut world = world(1);
    for port in 1000..1100 {
        shake_hands(&mut world, &format!("198.51.100.7:{port}"));
    }
    let odd = Matches {
        from_ports: (1000..1100).filter(|port| port % 2 == 1).map(|p| p..=p).collect(),
        ..everything()
    };
    world.govern(but([rule(Deny, odd)]));
    world.pass_ms(40, 1);
    assert_report(&world, &["entries=50", "drop.policy_denied=0"]);
    assert_eq!((count(&world, |c| &c.policy_ended), count(&world, |c| &c.policy_swept)), (50, 1));
    assert_eq!(world.live(0), 50);
}

/// The fuller its bursts, the more of a worker's turn belongs to packets.
#[test]
fn a_sweep_makes_use_of_quiet_turns() {
    let mut world = world(1);
    for number in 0..400 {
        shake_hands(&mut world, &format!("198.51.{}.{}:1000", 101 + number / 200, 1 + number % 200));
    }
    world.publish(but([rule(Deny, everything())]));
    world.adopt(0);
    let mut ended_beside = |packets: usize| {
        let before = count(&world, |c| &c.policy_ended);
        let stray = tcp(PORT_MACS[0], CLIENT, WEB, "RA", b"");
        let mut burst: Burst<TestPacket> = (0..packets).map(|_| TestPacket::new(FRONT, &stray)).collect();
        let (worker, env) = (&mut world.workers[0], &mut world.envs[0]);
        env.prepare();
        worker.on_burst(world.now, &mut burst, env);
        worker.on_tick(world.now, env);
        count(&world, |c| &c.policy_ended) - before
    };
    assert_eq!([32, 32, 1, 0].map(&mut ended_beside), [16, 16, 64, 256]);
    assert!(world.workers[0].is_sweeping());
    world.pass_ms(4, 1);
    assert!(!world.workers[0].is_sweeping());
    assert_eq!(world.live(0), 0);
}

/// Which service a backend's segment is of is not known without an entry where the backend serves two.
#[test]
fn the_silent_are_told_of_their_rejection_when_they_speak() {
    let twice = CONFIG.replace("[[service]]\nname = \"web6\"", SECOND);
    let mut world = settled(World::new(&twice, 1));
    let others = ["198.51.100.7:1001", "198.51.100.7:1002"];
    [CLIENT].iter().chain(&others).for_each(|client| shake_hands(&mut world, client));
    world.govern(but([rule(Reject, client())]));
    world.pass_ms(40, 1);
    assert_eq!((world.live(0), count(&world, |c| &c.policy_swept)), (3, 1));
    assert_report(&world, &["drop.policy_rejected=0"]);

    assert_eq!(texts(&from_server(&mut world, CLIENT, "PA")), both_ends());
    assert!(from_client(&mut world, others[0], "RA").is_empty());
    assert_eq!(world.live(0), 2);
    world.pass_ms(5_000, 100);
    assert_eq!((world.live(0), count(&world, |c| &c.policy_ended)), (0, 3));
}

/// However often the policy changes: what a worker has judged is not taken for judged 256 changes later.
#[test]
fn generations_that_come_round_again_are_not_mixed_up() {
    let mut world = world(1);
    shake_hands(&mut world, CLIENT);
    for number in 0..600u16 {
        world.govern(but([rule(Deny, from_port(7000 + number % 2))]));
        world.pass_ms(1, 1);
        assert_eq!(count(&world, |c| &c.policy_swept), u64::from(number.wrapping_add(1) as u8));
    }
    world.govern(but([rule(Deny, from_port(5555))]));
    assert!(from_client(&mut world, CLIENT, "PA").is_empty());
}

#[test]
fn errors_share_their_connections_fate() {
    let mut world = world(1);
    let error = || {
        let quoted = tcp(PORT_MACS[0], WEB, CLIENT, "PA", b"12345678");
        too_big(PORT_MACS[0], "198.51.100.1", "192.0.2.80", 1400, &quoted, 40)
    };
    shake_hands(&mut world, CLIENT);
    assert_eq!(world.receive(FRONT, &error()).len(), 1);
    world.publish(but([rule(Reject, client())]));
    world.adopt(0);
    assert!(world.receive(FRONT, &error()).is_empty(), "of a connection whose ends are still to be told");
    assert_report(&world, &["entries=1", "drop.policy_rejected=1"]);
    assert!(texts(&from_client(&mut world, CLIENT, "PA")).concat().contains(" tcp R "));
    assert!(world.receive(FRONT, &error()).is_empty(), "of one that is not known");
    assert_report(&world, &["entries=0", "drop.policy_rejected=3"]);
    world.govern(but([rule(Deny, from_port(1))]));
    assert_eq!(world.receive(FRONT, &error()).len(), 1);
}

/// Fragments follow their first one, unless the policy has changed: then nobody knows what they are.
#[test]
fn fragments_are_not_let_in_by_what_held_before() {
    let mut world = world(1);
    let fragments =
        |n: u8| <[Vec<u8>; 2]>::from(fragment_ipv4(&udp(PORT_MACS[0], CLIENT, QUIC, &[n; 64]), 32));
    let pieces = fragments(1);
    assert_eq!(pieces.iter().map(|piece| world.receive(FRONT, piece).len()).sum::<usize>(), pieces.len());
    let pieces = fragments(2);
    assert_eq!(world.receive(FRONT, &pieces[0]).len(), 1);
    world.govern(but([rule(Deny, client())]));
    assert!(world.receive(FRONT, &pieces[1]).is_empty());
    assert!(fragments(3).iter().all(|piece| world.receive(FRONT, piece).is_empty()));
}

#[test]
fn verdicts_are_logged_within_the_rate() {
    let logged = Statement { log: true, ..rule(Deny, client()) };
    let mut world = governed(but([logged]));
    from_client(&mut world, CLIENT, "S");
    from_client(&mut world, OTHER, "S");
    let events = std::mem::take(&mut world.envs[0].logged);
    let [event] = events[..] else { panic!("{events:?}") };
    assert_eq!((event.verdict.action, event.subject.state), (Deny, Standing::New));
    assert_eq!((event.subject.src_port, event.subject.dst_port, event.subject.protocol), (5555, 80, 6));
    for _ in 0..1000 {
        from_client(&mut world, CLIENT, "S");
    }
    let told = world.envs[0].logged.len() as u64;
    assert!(told < 300);
    assert_eq!(told + count(&world, |c| &c.policy_log_lost), 1000);
}

/// A world with one connection, which hardware has.
fn offloaded() -> (World, Ask) {
    let mut world = world(1);
    world.workers[0].set_price(3);
    shake_hands(&mut world, CLIENT);
    let asks = std::mem::take(&mut world.envs[0].asks);
    let [ask] = asks[..] else { panic!("{asks:?}") };
    (world, ask)
}

fn install(world: &mut World, ask: &Ask) {
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule: RULE });
}

#[track_caller]
fn assert_revoked(world: &mut World) {
    let revokes = std::mem::take(&mut world.envs[0].revokes);
    let [revoke] = revokes[..] else { panic!("{revokes:?}") };
    assert_eq!((revoke.rule, revoke.why), (RULE, Revocation::Policy));
}

#[test]
fn hardware_gives_back_what_is_denied_though_no_packet_comes() {
    let (mut world, ask) = offloaded();
    install(&mut world, &ask);
    world.govern(but([rule(Reject, client())]));
    assert_revoked(&mut world);
    let sent = from_client(&mut world, CLIENT, "PA");
    assert!(texts(&sent).concat().contains(" tcp R "), "what comes meanwhile is refused");
    assert_eq!(world.rows()[0].offload, OffloadState::Removing(RULE));
    let why = Removal::Revoked(Revocation::Policy);
    world.answer(&Answer::Removed { flow: ask.flow, rule: RULE, why, retry_ms: 0 });
    assert_eq!(texts(&from_server(&mut world, CLIENT, "PA")), both_ends());
    assert!(world.rows().is_empty());
    assert_eq!(count(&world, |c| &c.policy_ended), 1);
}

#[test]
fn hardware_that_takes_it_too_late_gives_it_back() {
    let (mut world, ask) = offloaded();
    world.govern(but([rule(Deny, client())]));
    assert!(from_client(&mut world, CLIENT, "PA").is_empty());
    assert!(matches!(world.rows()[0].offload, OffloadState::Requested(_)));
    install(&mut world, &ask);
    assert_revoked(&mut world);
}

#[test]
fn a_full_ring_is_tried_again() {
    let (mut world, ask) = offloaded();
    install(&mut world, &ask);
    world.envs[0].revokes_full = true;
    world.govern(but([rule(Deny, client())]));
    world.pass_ms(10, 1);
    assert!(from_client(&mut world, CLIENT, "PA").is_empty());
    world.envs[0].revokes_full = false;
    world.pass_ms(1, 1);
    assert_revoked(&mut world);
}

#[test]
fn what_hardware_has_of_others_stays_there() {
    let (mut world, ask) = offloaded();
    install(&mut world, &ask);
    world.govern(but([rule(Deny, from("198.51.100.8/32"))]));
    world.pass_ms(10, 1);
    assert!(world.envs[0].revokes.is_empty());
    assert_eq!(world.rows()[0].offload, OffloadState::Installed(RULE));
}

/// Clients with even ports, and with odd ones.
fn parity(odd: u16, action: dataplane::policy::Action) -> Source {
    let ports = (5000..5008u16).filter(|port| port % 2 == odd).map(|port| port..=port).collect();
    let only = Matches { from_ports: ports, ..everything() };
    policy([rule(Allow, only)], action)
}

#[derive(Clone, Debug)]
enum Event {
    /// A burst at a worker: who, which service, from which side, TCP flags.
    Burst(usize, Vec<(u16, usize, bool, &'static str)>),
    /// Another policy is published: which half is let in, and what the other half is told.
    Publish(u16, bool),
    /// A worker takes up what was published.
    Adopt(usize),
    Wait(u32),
    Price(Option<u32>),
    /// Hardware answers what was asked for, and what was revoked.
    Engine,
}

fn event() -> impl Strategy<Value = Event> {
    let flags = prop_oneof![Just("S"), Just("A"), Just("PA"), Just("SA"), Just("FA"), Just("R")];
    let packet = (5000u16..5008, 0usize..4, any::<bool>(), flags);
    prop_oneof![
        12 => (0usize..2, prop::collection::vec(packet, 1..24)).prop_map(|(at, said)| Event::Burst(at, said)),
        3 => (0u16..2, any::<bool>()).prop_map(|(odd, reject)| Event::Publish(odd, reject)),
        3 => (0usize..2).prop_map(Event::Adopt),
        2 => (1u32..50).prop_map(Event::Wait),
        1 => prop::option::of(1u32..4).prop_map(Event::Price),
        2 => Just(Event::Engine),
    ]
}

/// Two workers, and which half each of them lets in.
struct Halves {
    world: World,
    published: Option<u16>,
    held: [Option<u16>; 2],
    asks: Vec<Ask>,
}

impl Halves {
    fn happen(&mut self, event: &Event) {
        let world = &mut self.world;
        match event {
            Event::Burst(worker, said) => self.burst(*worker, said),
            Event::Publish(odd, reject) => {
                // As the manager does, who waits for all.
                (0..2).for_each(|worker| world.adopt(worker));
                self.held = [self.published; 2];
                world.publish(parity(*odd, if *reject { Reject } else { Deny }));
                self.published = Some(*odd);
            }
            Event::Adopt(worker) => {
                world.adopt(*worker);
                self.held[*worker] = self.published;
            }
            Event::Wait(ms) => drop(world.pass_ms(*ms, 5)),
            Event::Price(price) => world.workers[0].set_price(price.unwrap_or(u32::MAX)),
            Event::Engine => self.engine(),
        }
    }

    /// Every packet of a client is let in if and only if the worker that has it holds that it is.
    fn burst(&mut self, worker: usize, said: &[(u16, usize, bool, &str)]) {
        for &port in &[FRONT, BACK] {
            let side = said.iter().filter(|(_, _, reply, _)| *reply == (port == BACK));
            let frames: Vec<_> =
                side.map(|&(from, to, reply, flags)| frame(from, to, reply, flags)).collect();
            // Whoever takes it hands it to its client's worker, which may hold something else by then.
            let sent = self.world.receive_on(worker, port, &frames);
            for (_, frame) in &sent {
                let text = read(frame);
                let own = text.contains("icmp") || text.contains("tcp R");
                let client = (5000..5008u16).find(|port| text.contains(&format!("198.51.100.7:{port}")));
                if let (Some(client), false) = (client, own) {
                    let held = self.holders();
                    assert!(
                        held.iter().any(|held| held.is_none_or(|odd| client % 2 == odd)),
                        "{text} under {held:?}"
                    );
                }
            }
        }
    }

    /// What the worker of all clients holds: they have one address, and so one worker.
    fn holders(&self) -> Vec<Option<u16>> {
        let owner = dataplane::owner::Owners::new(&dataplane::owner::DEFAULT_KEY, 2, 128).expect("workers");
        let client: std::net::IpAddr = "198.51.100.7".parse().expect("an address");
        vec![self.held[owner.owner(client.into()).index()]]
    }

    fn engine(&mut self) {
        for at in 0..2 {
            let (worker, env) = (&mut self.world.workers[at], &mut self.world.envs[at]);
            let asks = std::mem::take(&mut env.asks);
            for ask in &asks {
                let rule = RuleId(ask.token.0);
                worker.on_answer(
                    self.world.now,
                    &Answer::Installed { flow: ask.flow, token: ask.token, rule },
                    env,
                );
            }
            self.asks.extend(asks);
            for revoke in std::mem::take(&mut env.revokes) {
                let why = Removal::Revoked(revoke.why);
                let answer = Answer::Removed { flow: revoke.flow, rule: revoke.rule, why, retry_ms: 0 };
                worker.on_answer(self.world.now, &answer, env);
            }
        }
    }
}

fn frame(from: u16, to: usize, reply: bool, flags: &str) -> Vec<u8> {
    let client = format!("198.51.100.7:{from}");
    let (vip, backend, is_tcp) = [
        (WEB, "10.0.1.11:8080", true),
        (QUIC, "10.0.1.11:8443", false),
        (DNS, "10.0.1.11:53", false),
        (WEB, "10.0.1.11:8080", true),
    ][to];
    match (reply, is_tcp) {
        (false, true) => tcp(PORT_MACS[0], &client, vip, flags, b""),
        (true, true) => tcp(PORT_MACS[1], backend, &client, flags, b""),
        (false, false) => udp(PORT_MACS[0], &client, vip, b"?"),
        (true, false) => udp(PORT_MACS[1], backend, &client, b"!"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two policies that agree about nobody, and workers that take them up whenever they like: no packet is
    /// ever judged by another one than its worker holds.
    #[test]
    fn no_packet_is_judged_by_a_mix(events in prop::collection::vec(event(), 1..60)) {
        let mut halves = Halves { world: world(2), published: None, held: [None; 2], asks: Vec::new() };
        for event in &events {
            halves.happen(event);
        }
        halves.world.shut_down();
    }
}
