//! What the walk says of packets, step by step.

use crate::common::frames::tcp;
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::drops::DropReason;
use dataplane::ids::PortId;
use dataplane::worker::Note;

const CONFIG: &str = r#"
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
mode = "nat"
[[service.backend]]
address = "10.0.1.11:8080"
"#;

/// The names of the notes that a frame gives rise to.
fn notes(world: &mut World, port: PortId, frame: &[u8]) -> Vec<String> {
    world.receive(port, frame);
    let name = |note: &Note| match note {
        Note::Becomes(state) => format!("Becomes({})", state.name()),
        Note::Dropped(reason) => format!("Dropped({})", reason.label()),
        other => format!("{other:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned(),
    };
    world.envs[0].notes.iter().map(name).collect()
}

#[test]
fn a_connection_s_life() {
    let mut world = World::new(CONFIG, 1);
    world.know(FRONT, "10.0.0.254", MacAddr([2, 0, 0, 0, 8, 1]));
    world.know(BACK, "10.0.1.11", MacAddr([2, 0, 0, 0, 8, 2]));
    let (client, vip, backend) = ("198.51.100.7:5555", "192.0.2.80:80", "10.0.1.11:8080");
    let syn = tcp(PORT_MACS[0], client, vip, "S", b"");
    let told = notes(&mut world, FRONT, &syn);
    let opening = ["Parsed", "Classified", "Picked", "Opened", "Known", "Leaves", "Rewritten", "NextHop"];
    assert_eq!(told, opening);
    let answer = tcp(PORT_MACS[1], backend, client, "SA", b"");
    let told = notes(&mut world, BACK, &answer);
    assert_eq!(told, ["Parsed", "Known", "Becomes(syn_received)", "Leaves", "Rewritten", "NextHop"]);
    let ack = tcp(PORT_MACS[0], client, vip, "A", b"");
    let told = notes(&mut world, FRONT, &ack);
    assert_eq!(told, ["Parsed", "Known", "Becomes(established)", "Leaves", "Rewritten", "NextHop"]);
    let told = notes(&mut world, FRONT, &ack);
    assert_eq!(told, ["Parsed", "Known", "Plain", "Leaves", "NextHop", "Rewritten"]);
}

#[test]
fn what_goes_nowhere_says_why() {
    let mut world = World::new(CONFIG, 1);
    let elsewhere = tcp(PORT_MACS[0], "198.51.100.7:5555", "192.0.2.99:80", "S", b"");
    let told = notes(&mut world, FRONT, &elsewhere);
    assert_eq!(told, ["Parsed", "Dropped(no_service)"]);
    assert_eq!(world.envs[0].notes.last(), Some(&Note::Dropped(DropReason::NoService)));
    let unknown = tcp(PORT_MACS[0], "198.51.100.7:5555", "192.0.2.80:80", "S", b"");
    let told = notes(&mut world, FRONT, &unknown);
    assert_eq!(told[told.len() - 2..], ["NextHop", "Waits"]);
}
