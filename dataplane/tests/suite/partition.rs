//! Services by source partition: the walk picks what the table says, and keeps nothing.

use crate::common::frames::{read, tcp, udp};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::{Ip, MacAddr};
use dataplane::maglev::Identity;
use dataplane::partition::{self, Member};
use dataplane::snapshot::Overrides;

const CONFIG: &str = r#"
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24", "fd00:1::1/64"]
gateway = "10.0.0.254"
[[port]]
name = "back"
device = "net_null1"
addresses = ["10.0.1.1/24", "fd00:2::1/64"]
[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
mode = "dsr"
scheduler = "source-partition"
partitions = 8
[[service.backend]]
address = "10.0.1.11"
[[service.backend]]
address = "10.0.1.12"
[[service.backend]]
address = "10.0.1.13"
weight = 2
[[service]]
name = "web6"
vip = "2001:db8::80"
protocol = "tcp"
ports = [80]
mode = "dsr"
scheduler = "source-partition"
partitions = 2
[[service.backend]]
address = "fd00:2::11"
[[service.backend]]
address = "fd00:2::12"
"#;

const CLIENTS: u32 = 32;

fn backend_mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 2, number])
}

fn world() -> World {
    let mut world = World::new(CONFIG, 2);
    world.pass_ms(10, 1);
    for number in 11..=13 {
        world.know(BACK, &format!("10.0.1.{number}"), backend_mac(number));
    }
    for number in 11..=12u8 {
        world.know(BACK, &format!("fd00:2::{number}"), backend_mac(number));
    }
    world.pass_ms(1, 1);
    world
}

/// Who got a datagram of this client, by the last octet.
fn whose(world: &mut World, client: u32) -> u8 {
    let from = format!("198.51.100.{client}:4000");
    let (port, frame) = world.exchange(FRONT, &udp(PORT_MACS[0], &from, "192.0.2.53:53", b"?"));
    assert_eq!(port, BACK);
    assert!(read(&frame).ends_with(&format!("{from} > 192.0.2.53:53 ttl 63 udp \"?\"")), "{}", read(&frame));
    frame[5]
}

/// What the table says, with these shares.
fn table(shares: [u8; 3]) -> Vec<u8> {
    let member = |(number, share_percent): (u8, u8)| Member {
        identity: Identity { address: Ip::v4(0x0a00_0100 + u32::from(number)), port: None },
        weight: if number == 13 { 2 } else { 1 },
        share_percent,
    };
    let members: Vec<Member> = (11..).zip(shares).map(member).collect();
    partition::assign(3, &members).into_iter().map(|at| 11 + at as u8).collect()
}

#[test]
fn the_low_bits_decide_and_nothing_is_kept() {
    let mut world = world();
    let table = table([100; 3]);
    for client in 0..CLIENTS {
        assert_eq!(whose(&mut world, client), table[client as usize % 8], "client {client}");
    }
    assert!(!world.report().iter().any(|line| line.starts_with("entries")), "{:?}", world.report());
}

#[test]
fn who_is_drained_gives_up_its_own_and_gets_them_back() {
    let mut world = world();
    let all = table([100; 3]);
    let mut overrides = Overrides::default();
    overrides.drained.insert(("dns".to_owned(), Ip::v4(0x0a00_010c), None));
    world.reload_with(CONFIG, &overrides);
    let drained = table([100, 0, 100]);
    for client in 0..CLIENTS {
        let (before, now) = (all[client as usize % 8], whose(&mut world, client));
        assert_eq!(now, drained[client as usize % 8]);
        assert!(now == before || before == 12, "client {client} moved from {before} to {now}");
    }
    world.reload(CONFIG);
    for client in 0..CLIENTS {
        assert_eq!(whose(&mut world, client), all[client as usize % 8]);
    }
}

#[test]
fn segments_of_tcp_over_ipv6_need_no_connection_either() {
    let mut world = world();
    let mut seen = [None; 2];
    for (client, flags) in [(2u8, "S"), (2, "A"), (4, "AF"), (3, "A"), (5, "S"), (6, "R")] {
        let from = format!("[2001:db8:7::{client}]:4000");
        let (port, frame) = world.exchange(FRONT, &tcp(PORT_MACS[0], &from, "[2001:db8::80]:80", flags, b""));
        assert_eq!(port, BACK);
        let expected = *seen[usize::from(client % 2)].get_or_insert(frame[5]);
        assert_eq!(frame[5], expected, "client {client}");
    }
    assert_ne!(seen[0], seen[1]);
    assert!(!world.report().iter().any(|line| line.starts_with("entries")));
}
