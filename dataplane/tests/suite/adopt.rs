//! A new snapshot is taken up in small steps, none of which is left out.

use crate::common::frames::tcp;
use crate::common::world::{FRONT, PORT_MACS, World};

const PORTS: &str = r#"
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
on_remove = "reset"
"#;

fn config(hosts: std::ops::Range<u8>) -> String {
    let backends = hosts.map(|host| format!("[[service.backend]]\naddress = \"10.0.1.{host}:8080\"\n"));
    PORTS.to_owned() + &backends.collect::<String>()
}

fn neighbours(world: &World) -> usize {
    let mut rows = Vec::with_capacity(1000);
    world.workers[0].dump_neighbours(&mut rows);
    rows.len()
}

#[test]
fn all_backends_of_a_new_configuration_are_asked_for() {
    let mut world = World::new(&config(11..12), 1);
    assert_eq!(neighbours(&world), 2, "the gateway and the backend, from the start");
    world.reload(&config(11..251));
    let soon = neighbours(&world);
    assert!(soon < 241, "{soon} at once");
    world.pass_ms(10, 1);
    assert_eq!(neighbours(&world), 241);
}

#[test]
fn all_connections_of_a_removed_backend_are_swept_out() {
    let mut world = World::new(&config(11..12), 1);
    for port in 1..=2000 {
        let client = format!("198.51.100.7:{port}");
        world.receive(FRONT, &tcp(PORT_MACS[0], &client, "192.0.2.80:80", "S", b""));
    }
    assert_eq!(world.rows().len(), 2000);
    world.reload(&config(12..13));
    world.pass_ms(4_990, 499);
    assert_eq!(world.rows().len(), 2000, "they may hear of it by themselves");
    world.pass_ms(10, 10);
    let soon = world.rows().len();
    assert!(0 < soon && soon < 2000, "{soon} left at once");
    // They would live for another five seconds.
    world.pass_ms(100, 1);
    assert_eq!(world.rows().len(), 0);
}

#[test]
fn frequent_changes_do_not_put_the_sweep_off() {
    let mut world = World::new(&config(11..12), 1);
    for port in 1..=100 {
        let client = format!("198.51.100.7:{port}");
        world.receive(FRONT, &tcp(PORT_MACS[0], &client, "192.0.2.80:80", "S", b""));
    }
    for last in [13, 14, 15, 16, 17] {
        world.reload(&config(12..last));
        world.pass_ms(1_600, 100);
    }
    assert_eq!(world.rows().len(), 0);
}
