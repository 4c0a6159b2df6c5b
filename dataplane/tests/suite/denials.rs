//! What hardware may drop in place of a worker: that a worker would have dropped it, whatever had been
//! before; and whom workers tell of.

use crate::common::frames::{tcp, udp};
use crate::common::rules::{everything, from, from_port, policy, rule};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::{Ip, MacAddr};
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::{PortId, ServiceId, TenantId};
use dataplane::policy::Action::{Allow, Deny, Reject};
use dataplane::policy::{Action, Matches, Opening, RuleNumber, Source, Statement};
use dataplane::snapshot::Denial;
use proptest::prelude::*;

const CONFIG: &str = r#"
[limits]
connections = 512
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24"]
gateway = "10.0.0.254"
[[port]]
name = "back"
device = "net_null1"
addresses = ["10.0.1.1/24"]
[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.1.11:8080"
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

const CLIENT: &str = "198.51.100.7:5555";
/// VIP and whether it is TCP's, by [`ServiceId`]; and where their backend sends from.
const SERVICES: [(&str, bool, &str); 3] = [
    ("192.0.2.80:80", true, "10.0.1.11:8080"),
    ("192.0.2.80:443", false, "10.0.1.11:8443"),
    ("192.0.2.53:53", false, "10.0.1.11:53"),
];

fn world() -> World {
    let mut world = World::new(CONFIG, 1);
    world.know(FRONT, "10.0.0.254", MacAddr([2, 0, 0, 0, 1, 254]));
    world.know(BACK, "10.0.1.11", MacAddr([2, 0, 0, 0, 2, 11]));
    let now = world.now;
    world.workers[0].expect_denials(now);
    world.pass_ms(1, 1);
    world
}

fn end(text: &str) -> (Ip, u16) {
    let end: std::net::SocketAddr = text.parse().expect("an address and a port");
    (end.ip().into(), end.port())
}

fn key(client: &str, service: usize) -> FlowKey {
    let ((src, src_port), (dst, dst_port)) = (end(client), end(SERVICES[service].0));
    let protocol = if SERVICES[service].1 { Protocol::Tcp } else { Protocol::Udp };
    FlowKey { src, dst, src_port, dst_port, tenant: TenantId(0), protocol }
}

fn frame(client: &str, service: usize, flags: &str) -> Vec<u8> {
    let (vip, is_tcp, _) = SERVICES[service];
    if is_tcp { tcp(PORT_MACS[0], client, vip, flags, b"") } else { udp(PORT_MACS[0], client, vip, b"?") }
}

fn reply(client: &str, service: usize, flags: &str) -> Vec<u8> {
    let (_, is_tcp, backend) = SERVICES[service];
    if is_tcp {
        tcp(PORT_MACS[1], backend, client, flags, b"")
    } else {
        udp(PORT_MACS[1], backend, client, b"!")
    }
}

#[derive(Clone, Debug)]
enum Step {
    Govern(Source),
    /// From the client to a service,
    Ask(usize, &'static str),
    /// or back.
    Answer(usize, &'static str),
    Pass(u32),
}

fn statements() -> impl Strategy<Value = Statement> {
    let action = prop::sample::select(vec![Allow, Deny, Deny, Deny, Reject]);
    let about = prop_oneof![
        3 => Just(everything()),
        3 => Just(from("198.51.100.7/32")),
        1 => Just(from_port(5555)),
        1 => Just(from_port(5556)),
        1 => Just(Matches { ports: vec![80..=80], ..everything() }),
    ];
    let opening = prop::sample::select(vec![None, None, Some(Opening::New), Some(Opening::Midstream)]);
    (action, about, opening, prop::bool::weighted(0.1)).prop_map(|(action, matches, opening, log)| {
        Statement { log, ..rule(action, Matches { opening, ..matches }) }
    })
}

fn sources() -> impl Strategy<Value = Source> {
    let default = prop::sample::select(vec![Allow, Allow, Deny, Reject]);
    (prop::collection::vec(statements(), 0..5), default).prop_map(|(rules, default)| policy(rules, default))
}

fn steps() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec!["S", "A", "PA", "FA", "R", "RA", "SA"]);
    prop_oneof![
        2 => sources().prop_map(Step::Govern),
        6 => (0..3usize, flags.clone()).prop_map(|(service, flags)| Step::Ask(service, flags)),
        3 => (0..3usize, flags).prop_map(|(service, flags)| Step::Answer(service, flags)),
        1 => prop::sample::select(vec![1, 100, 10_000]).prop_map(Step::Pass),
    ]
}

/// What a worker counts of packets that it drops as denied: in all, of the service, under a rule.
fn counted(world: &World, denial: Denial) -> [u64; 3] {
    let counters = &world.envs[0].counters;
    let rule = match denial.rule {
        Some(number) => &counters.policy.rules[number.index()],
        None => &counters.policy.defaults[0],
    };
    let service = counters.service(denial.service).expect("it is there");
    [counters.dropped[DropReason::PolicyDenied as usize].get(), service.dropped.get(), rule.get()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Of what is said to be denied whatever there is, no packet is ever forwarded or answered, though its
    /// connection was let in before; each is counted as dropped by the policy. And those that belong to no
    /// connection are counted under the rule and the service that were named.
    #[test]
    fn what_hardware_may_drop_a_worker_drops(steps in prop::collection::vec(steps(), 1..40)) {
        let mut world = world();
        for step in steps {
            match step {
                Step::Govern(source) => world.govern(source),
                Step::Pass(ms) => drop(world.pass_ms(ms, ms.div_ceil(10))),
                Step::Answer(service, flags) => drop(world.receive(BACK, &reply(CLIENT, service, flags))),
                Step::Ask(service, flags) => {
                    let denial = world.snapshot.denies_all(FRONT, &key(CLIENT, service));
                    let before = denial.map(|denial| counted(&world, denial));
                    let known = world.envs[0].counters.entries.get() > 0;
                    let sent = world.receive(FRONT, &frame(CLIENT, service, flags));
                    let (Some(denial), Some(before)) = (denial, before) else { continue };
                    prop_assert!(sent.is_empty(), "{flags} was sent on: {sent:02x?}");
                    let after = counted(&world, denial);
                    prop_assert_eq!(after[0], before[0] + 1);
                    if !known {
                        prop_assert_eq!(after, before.map(|count| count + 1));
                    }
                }
            }
        }
    }
}

fn but(rules: impl Into<Vec<Statement>>) -> Source {
    policy(rules, Allow)
}

#[test]
fn only_what_is_denied_in_silence_and_for_good_may_be_dropped() {
    let client = || from("198.51.100.7/32");
    let opening = |opening, action| rule(action, Matches { opening: Some(opening), ..client() });
    let denied = |source: Source, service: usize| {
        let mut world = world();
        world.govern(source);
        world.snapshot.denies_all(FRONT, &key(CLIENT, service)).map(|denial| denial.rule)
    };
    let first = Some(Some(RuleNumber(0)));
    for service in 0..3 {
        assert_eq!(denied(but([rule(Deny, client())]), service), first);
        assert_eq!(denied(policy([], Deny), service), Some(None), "by default");
        assert_eq!(denied(but([rule(Reject, client())]), service), None, "somebody is to be told");
        let logged = Statement { log: true, ..rule(Deny, client()) };
        assert_eq!(denied(but([logged]), service), None, "the log is to be told");
        let new = opening(Opening::New, Deny);
        assert_eq!(denied(but([new.clone()]), service), None, "what was let in goes on");
        let both = policy([new], Deny);
        let by = if service == 0 { None } else { first };
        assert_eq!(denied(both, service), by, "segments of unknown connections count under another rule");
        let midstream = policy([opening(Opening::Midstream, Allow)], Deny);
        assert_eq!(denied(midstream, service), None, "what is in the middle passes");
    }
}

#[test]
fn what_backends_send_and_what_is_nobodys_is_left_alone() {
    let mut world = world();
    world.govern(policy([], Deny));
    let may = |world: &World, port: PortId, key: FlowKey| world.snapshot.denies_all(port, &key).is_some();
    assert!(may(&world, FRONT, key(CLIENT, 0)));
    assert!(!may(&world, FRONT, key("10.0.1.11:8080", 0)), "it may be an answer");
    assert!(may(&world, FRONT, key("10.0.1.11:8081", 0)));
    assert!(!may(&world, FRONT, FlowKey { dst_port: 81, ..key(CLIENT, 0) }), "no service");
    assert!(!may(&world, FRONT, FlowKey { tenant: TenantId(1), ..key(CLIENT, 0) }), "another's addresses");
    assert!(!may(&world, PortId(7), key(CLIENT, 0)), "no port");
}

/// So many packets, a few each millisecond; how often the engine was told, and by how many packets a second.
fn flood(world: &mut World, packets: u32, service: usize, flags: &str, client: &str) -> Vec<u32> {
    world.envs[0].denied.clear();
    let frames = vec![frame(client, service, flags); 4];
    for _ in 0..packets / 4 {
        assert!(world.receive_on(0, FRONT, &frames).is_empty());
        world.now = world.now.after_ms(1);
    }
    let told = &world.envs[0].denied;
    assert!(told.iter().all(|it| it.key == key(client, service) && it.ingress == FRONT));
    told.iter().map(|it| it.per_second).collect()
}

#[test]
fn the_engine_is_told_of_floods_that_it_may_drop() {
    for (service, flags) in [(0, "S"), (0, "PA"), (1, ""), (2, "")] {
        let mut world = world();
        world.govern(but([rule(Deny, from("198.51.100.7/32"))]));
        let told = flood(&mut world, 3_600, service, flags, CLIENT);
        assert_eq!(told.len(), 1, "once a second");
        assert!((3_500..=4_500).contains(&told[0]), "{told:?}");
        let counters = &world.envs[0].counters;
        assert_eq!(counters.service(ServiceId(service as u16)).expect("there").dropped.get(), 3_600);
    }
}

#[test]
fn the_engine_is_not_told_of_what_it_may_not_drop() {
    let logged = Statement { log: true, ..rule(Deny, from("198.51.100.7/32")) };
    let mut world = world();
    world.govern(but([logged]));
    assert_eq!(flood(&mut world, 4_000, 1, "", CLIENT), [0u32; 0]);
    // Who backends are is known to every packet.
    world.govern(policy([], Action::Deny));
    assert_eq!(flood(&mut world, 4_000, 0, "S", "10.0.1.11:8080"), [0u32; 0]);
}
