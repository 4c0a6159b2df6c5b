//! Connections that are captured: hardware gives them back, and is not asked for them for the time.

use crate::common::frames::tcp;
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::{MacAddr, Prefix};
use dataplane::capture::{Choice, End};
use dataplane::offload::{Answer, Ask, OffloadState, Removal, Revocation, RuleId};
use std::sync::Arc;

const CONFIG: &str = r#"
[limits]
connections = 64
half_open_percent = 50
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
"#;

const VIP: &str = "192.0.2.80:80";
const SERVER: &str = "10.0.1.11:8080";
const WATCHED: &str = "198.51.100.7:5555";
const OTHER: &str = "198.51.100.8:5555";

fn world() -> World {
    let mut world = World::new(CONFIG, 1);
    world.pass_ms(10, 1);
    world.know(FRONT, "10.0.0.254", MacAddr([2, 0, 0, 0, 1, 254]));
    world.know(BACK, "10.0.1.11", MacAddr([2, 0, 0, 0, 2, 11]));
    world.workers[0].set_price(3);
    world
}

fn send(world: &mut World, client: &str, flags: &str) {
    assert_eq!(world.receive(FRONT, &tcp(PORT_MACS[0], client, VIP, flags, b"")).len(), 1);
}

/// A connection whose third packet has made it worth asking for.
fn open(world: &mut World, client: &str) -> Option<Ask> {
    send(world, client, "S");
    world.receive(BACK, &tcp(PORT_MACS[1], SERVER, client, "SA", b""));
    send(world, client, "A");
    world.envs[0].asks.pop()
}

fn install(world: &mut World, ask: &Ask, rule: u32) {
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule: RuleId(rule) });
}

fn watched() -> Option<Arc<Choice>> {
    let address = "198.51.100.7".parse::<std::net::IpAddr>().expect("an address").into();
    let end = End { prefix: Prefix { address, length: 32 }, port: Some(5555) };
    Some(Arc::new(Choice { clients: vec![end], ..Choice::default() }))
}

fn revoked(world: &mut World) -> Vec<(u32, Revocation)> {
    std::mem::take(&mut world.envs[0].revokes).iter().map(|revoke| (revoke.rule.0, revoke.why)).collect()
}

fn state(world: &World, ask: &Ask) -> OffloadState {
    world.rows().iter().find(|row| row.flow == ask.flow).expect("alive").offload
}

#[test]
fn hardware_gives_back_what_is_captured_and_may_have_it_again_afterwards() {
    let mut world = world();
    let (ask, other) = (open(&mut world, WATCHED).expect("asked"), open(&mut world, OTHER).expect("asked"));
    install(&mut world, &ask, 1);
    install(&mut world, &other, 2);
    assert_eq!(world.workers[0].set_captured(watched()), None);
    world.pass_ms(1, 1);
    assert_eq!(revoked(&mut world), [(1, Revocation::Captured)]);
    assert_eq!(state(&world, &other), OffloadState::Installed(RuleId(2)));
    let why = Removal::Revoked(Revocation::Captured);
    world.answer(&Answer::Removed { flow: ask.flow, rule: RuleId(1), why, retry_ms: 0 });
    for _ in 0..10 {
        send(&mut world, WATCHED, "A");
        world.pass_ms(1, 1);
    }
    assert_eq!((world.envs[0].asks.len(), revoked(&mut world)), (0, vec![]));
    assert_eq!(world.workers[0].set_captured(None), watched());
    send(&mut world, WATCHED, "A");
    let again = world.envs[0].asks.pop().expect("asked for again");
    assert_eq!(again.flow, ask.flow);
}

#[test]
fn what_hardware_is_about_to_take_is_taken_back_when_it_is_there() {
    let mut world = world();
    let ask = open(&mut world, WATCHED).expect("asked");
    world.workers[0].set_captured(watched());
    world.pass_ms(1, 1);
    assert_eq!(revoked(&mut world), []);
    install(&mut world, &ask, 1);
    assert_eq!(revoked(&mut world), [(1, Revocation::Captured)]);
}

#[test]
fn a_full_ring_delays_what_is_taken_back() {
    let mut world = world();
    let ask = open(&mut world, WATCHED).expect("asked");
    install(&mut world, &ask, 1);
    world.envs[0].revokes_full = true;
    world.workers[0].set_captured(watched());
    world.pass_ms(2, 1);
    assert_eq!(state(&world, &ask), OffloadState::Installed(RuleId(1)));
    world.envs[0].revokes_full = false;
    world.pass_ms(1, 1);
    assert_eq!(revoked(&mut world), [(1, Revocation::Captured)]);
    assert_eq!(state(&world, &ask), OffloadState::Removing(RuleId(1)));
}

#[test]
fn newcomers_that_are_captured_stay_in_software() {
    let mut world = world();
    world.workers[0].set_captured(watched());
    assert_eq!(open(&mut world, WATCHED), None);
    assert!(open(&mut world, OTHER).is_some());
}
