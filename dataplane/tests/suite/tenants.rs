//! Tenants that share devices, addresses and services: each on VLANs of its own.

use crate::common::frames::{read, tcp, udp};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::drops::DropReason;
use dataplane::ids::PortId;

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 1, 254]);
/// The backend of `blue`, of `red`, and of the tenant without tags.
const BACKENDS: [MacAddr; 3] =
    [MacAddr([2, 0, 0, 0, 2, 10]), MacAddr([2, 0, 0, 0, 2, 20]), MacAddr([2, 0, 0, 0, 2, 30])];

/// Three tenants with the same addresses and services on two devices: `blue` with one tag, `red` with two,
/// and the default one with none. Ports with devices come first in number, wherever they are written.
fn config(more: &str) -> String {
    let tenants = [("default", ""), ("blue", "vlan = 10\n"), ("red", "vlan = 10\nouter_vlan = 20\n")];
    let mut text = "[[tenant]]\nname = \"blue\"\n[[tenant]]\nname = \"red\"\n".to_owned();
    for (tenant, tags) in tenants.iter().rev() {
        for (side, device, own) in [
            ("front", "net_null0", "addresses = [\"10.0.0.1/24\"]\ngateway = \"10.0.0.254\"\n"),
            ("back", "net_null1", "addresses = [\"10.0.1.1/24\"]\n"),
        ] {
            let link = match *tags {
                "" => format!("device = \"{device}\""),
                _ => format!("parent = \"{side}-default\""),
            };
            text +=
                &format!("[[port]]\nname = \"{side}-{tenant}\"\n{link}\ntenant = \"{tenant}\"\n{tags}{own}");
        }
        text += &format!(
            "[[service]]\nname = \"web-{tenant}\"\ntenant = \"{tenant}\"\nvip = \"192.0.2.80\"\n\
             protocol = \"tcp\"\nports = [80]\n[[service.backend]]\naddress = \"10.0.1.11:8080\"\n"
        );
    }
    text + more
}

/// The front and the back port of each tenant: default, blue, red.
const PORTS: [(PortId, PortId); 3] = [(FRONT, BACK), (PortId(4), PortId(5)), (PortId(2), PortId(3))];
const TAGS: [&[u8]; 3] = [&[], &[0x81, 0, 0, 10], &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10]];

/// A frame with a tenant's tags.
fn tagged(tenant: usize, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], TAGS[tenant], &frame[12..]].concat()
}

/// What a tenant's frame says, once its tags have been taken off.
fn untagged(tenant: usize, frame: &[u8]) -> String {
    let tags = TAGS[tenant];
    assert_eq!(&frame[12..12 + tags.len()], tags, "tags of {tenant}");
    read(&[&frame[..12], &frame[12 + tags.len()..]].concat())
}

fn world(more: &str, workers: usize) -> World {
    let mut world = World::new(&config(more), workers);
    world.pass_ms(10, 1);
    for (tenant, (front, back)) in PORTS.into_iter().enumerate() {
        let backend = BACKENDS[[2, 0, 1][tenant]];
        world.know(front, "10.0.0.254", GATEWAY);
        world.know(back, "10.0.1.11", backend);
    }
    world.pass_ms(1, 1);
    world
}

/// The same client address and port, the same VIP: three connections, each with its own tenant's backend,
/// whose answers find their way back to its own tenant's client.
#[test]
fn tenants_with_the_same_addresses_do_not_meet() {
    for workers in [1, 3] {
        let mut world = world("", workers);
        for tenant in [1, 0, 2] {
            let (front, back) = PORTS[tenant];
            let syn = tcp(PORT_MACS[0], "10.0.0.7:5555", "192.0.2.80:80", "S", b"");
            let (port, frame) = world.exchange(FRONT, &tagged(tenant, &syn));
            let backend = BACKENDS[[2, 0, 1][tenant]];
            let expected = format!("{backend} 10.0.0.7:5555 > 10.0.1.11:8080 ttl 63 tcp S \"\"");
            assert_eq!((port, untagged(tenant, &frame)), (back, expected));
            world.know(front, "10.0.0.7", MacAddr([2, 0, 0, 0, 3, tenant as u8]));
        }
        for (tenant, (front, _)) in PORTS.into_iter().enumerate() {
            let answer = tcp(PORT_MACS[1], "10.0.1.11:8080", "10.0.0.7:5555", "SA", b"");
            let (port, frame) = world.exchange(BACK, &tagged(tenant, &answer));
            let client = MacAddr([2, 0, 0, 0, 3, tenant as u8]);
            let expected = format!("{client} 192.0.2.80:80 > 10.0.0.7:5555 ttl 63 tcp SA \"\"");
            assert_eq!((port, untagged(tenant, &frame)), (front, expected));
        }
        assert_eq!(world.envs.iter().map(|env| env.counters.entries.get()).sum::<u64>(), 3);
    }
}

/// Who we are is asked and answered on each VLAN for itself.
#[test]
fn neighbours_are_asked_with_the_tags_of_their_port() {
    let mut world = World::new(&config(""), 1);
    let asked = world.pass_ms(10, 1);
    for (tenant, (front, back)) in PORTS.into_iter().enumerate() {
        for port in [front, back] {
            let requests = asked.iter().filter(|(at, _)| *at == port);
            let arp = |frame: &Vec<u8>| frame[12..].starts_with(&[TAGS[tenant], &[8, 6]].concat());
            assert!(
                requests.clone().count() > 0
                    && requests.into_iter().all(|(_, frame)| {
                        arp(frame) || frame[12..].starts_with(&[TAGS[tenant], &[0x86, 0xdd]].concat())
                    })
            );
        }
    }
}

#[test]
fn tags_that_are_nobodys_are_dropped() {
    let mut world = world("", 1);
    let syn = tcp(PORT_MACS[0], "10.0.0.7:5555", "192.0.2.80:80", "S", b"");
    for tags in [&[0x81, 0, 0, 11][..], &[0x88, 0xa8, 0, 10], &[0x88, 0xa8, 0, 10, 0x81, 0, 0, 20]] {
        let frame = [&syn[..12], tags, &syn[12..]].concat();
        assert_eq!(world.receive(FRONT, &frame), []);
    }
    assert!(world.report().contains(&"drop.vlan_mismatch=3".to_owned()), "{:?}", world.report());
}

/// A datagram too large for the way on is answered on the VLAN that it came by.
#[test]
fn errors_go_back_with_the_tags_that_the_packet_had() {
    let more = "[[service]]\nname = \"dns\"\ntenant = \"blue\"\nvip = \"192.0.2.53\"\nprotocol = \"udp\"\n\
                ports = [53]\n[[service.backend]]\naddress = \"10.0.1.11\"\n";
    let mut world = world(more, 1);
    world.know(PORTS[1].0, "10.0.0.7", MacAddr([2, 0, 0, 0, 3, 1]));
    let large = udp(PORT_MACS[0], "10.0.0.7:5555", "192.0.2.53:53", &[b'x'; 1600]);
    let (port, frame) = world.exchange(FRONT, &tagged(1, &large));
    let said = untagged(1, &frame);
    assert_eq!(port, PORTS[1].0);
    assert!(said.contains("unreachable FragmentationNeeded { next_hop_mtu: 1500 }"), "{said}");
}

/// What waits for a neighbour that never answers is the loss of whose packet it was.
#[test]
fn packets_that_waited_in_vain_are_their_tenants() {
    for (tenant, (front, back)) in PORTS.into_iter().enumerate() {
        let mut world = World::new(&config(""), 1);
        world.pass_ms(10, 1);
        world.know(front, "10.0.0.254", GATEWAY);
        let syn = tcp(PORT_MACS[0], "10.0.0.7:5555", "192.0.2.80:80", "S", b"");
        let sent = world.receive(FRONT, &tagged(tenant, &syn));
        assert!(sent.iter().all(|(port, frame)| *port == back && frame.len() < 64), "only asked for");
        world.pass_ms(10_000, 100);
        let reason = DropReason::NeighbourUnreachable as usize;
        let dropped = |tenant: usize| world.envs[0].counters.tenants[tenant].dropped[reason].get();
        let expected = [0, 1, 2].map(|of| u64::from(of == tenant));
        assert_eq!([0, 1, 2].map(dropped), expected);
    }
}

/// A flood of one tenant's service costs the other nothing: neither where the flood is held to the limits of
/// its tenant, nor where it only competes for the half-open share.
#[test]
fn a_flood_towards_one_tenant_costs_another_nothing() {
    for limits in ["", "connections = 200\nhalf_open_percent = 50\n"] {
        let text = config("[limits]\nconnections = 1000\n");
        let text = text.replace("name = \"red\"\n[[port]]", &format!("name = \"red\"\n{limits}[[port]]"));
        let mut world = World::new(&text, 1);
        world.pass_ms(10, 1);
        for (tenant, (front, back)) in PORTS.into_iter().enumerate() {
            world.know(front, "10.0.0.254", GATEWAY);
            world.know(back, "10.0.1.11", BACKENDS[[2, 0, 1][tenant]]);
        }
        let mut answered = 0;
        for round in 0..40_u16 {
            let flood: Vec<Vec<u8>> = (0..100_u16)
                .map(|n| {
                    let from = format!("10.9.{round}.{n}:{}", 1000 + n);
                    tagged(2, &tcp(PORT_MACS[0], &from, "192.0.2.80:80", "S", b""))
                })
                .collect();
            world.receive_on(0, FRONT, &flood);
            let client = format!("10.0.0.7:{}", 2000 + round);
            let syn = tcp(PORT_MACS[0], &client, "192.0.2.80:80", "S", b"");
            answered +=
                world.receive(FRONT, &tagged(1, &syn)).iter().filter(|(at, _)| *at == PORTS[1].1).count();
            let syn_ack = tcp(PORT_MACS[1], "10.0.1.11:8080", &client, "SA", b"");
            world.know(PORTS[1].0, "10.0.0.7", GATEWAY);
            answered += world.receive(BACK, &tagged(1, &syn_ack)).len();
            let ack = tcp(PORT_MACS[0], &client, "192.0.2.80:80", "A", b"");
            answered += world.receive(FRONT, &tagged(1, &ack)).len();
            world.pass_ms(5, 5);
        }
        assert_eq!(answered, 3 * 40, "{limits:?}: {:?}", world.report());
        let established = world.rows().iter().filter(|row| row.key.tenant.0 == 1 && !row.half_open).count();
        assert_eq!(established, 40);
        // Who was refused what, and who has what.
        let [blue, red] = [1, 2].map(|tenant| &world.envs[0].counters.tenants[tenant]);
        assert_eq!((blue.live.get(), blue.half_open.get()), (40, 0));
        assert!(blue.dropped.iter().all(|reason| reason.get() == 0));
        let refused: u64 = red.dropped.iter().map(|reason| reason.get()).sum();
        let report = world.report();
        assert!(refused > 0 && red.live.get() > 0 && red.live.get() == red.half_open.get(), "{report:?}");
        let all: u64 = world.envs[0].counters.dropped.iter().map(|reason| reason.get()).sum();
        assert_eq!(refused, all, "{report:?}");
    }
}
