//! Tunnels towards backends: what comes out, compared with what scapy makes of the same packets, and taken
//! apart again without the code under test.

use crate::common::world::{BACK, FRONT, World};
use crate::frames;
use crate::frames::{Spec, Transport, assert_checksums, repair_ipv4, transport_checksum};
use dataplane::addr::MacAddr;
use proptest::prelude::*;

const GOLDEN: &str = include_str!("../golden/tunnels.txt");
const KINDS: [&str; 4] = ["ipip", "gue", "vxlan", "geneve"];
const BACKENDS: [&str; 2] = ["10.0.1.11", "fd00:2::11"];
const BACKEND_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 0x11]);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xfe]);
const VIPS: [&str; 2] = ["192.0.2.90", "2001:db8::90"];
const CLIENTS: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];

/// Services of both families and protocols in one mode, with a backend of the first or the second family.
fn config(mode: &str, section: &str, backend: &str, back: &str) -> String {
    let mut text = format!(
        "[[port]]\nname = \"front\"\ndevice = \"d0\"\naddresses = [\"10.0.0.1/24\", \"fd00:1::1/64\"]\n\
         gateway = \"10.0.0.254\"\ngateway6 = \"fd00:1::fe\"\n\
         [[port]]\nname = \"back\"\ndevice = \"d1\"\naddresses = [\"10.0.1.1/24\", \"fd00:2::1/64\"]\n{back}\n"
    );
    for (n, vip) in VIPS.into_iter().enumerate() {
        for protocol in ["tcp", "udp"] {
            text += &format!(
                "[[service]]\nname = \"{protocol}{n}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nports = [80]\n\
                 mode = \"{mode}\"\n[service.tunnel]\n{section}\n[[service.backend]]\naddress = \"{backend}\"\n"
            );
        }
    }
    text
}

fn tunnel(kind: &str, backend: &str, back: &str) -> String {
    config(kind, if has_ethernet(kind) { NETWORK } else { "" }, backend, back)
}

const NETWORK: &str = "vni = 77\ninner_mac = \"02:00:00:00:00:77\"";

fn has_ethernet(kind: &str) -> bool {
    matches!(kind, "vxlan" | "geneve")
}

fn world(config: &str) -> World {
    let mut world = World::new(config, 1);
    for backend in BACKENDS {
        world.know(BACK, backend, BACKEND_MAC);
    }
    for gateway in ["10.0.0.254", "fd00:1::fe"] {
        world.know(FRONT, gateway, GATEWAY_MAC);
    }
    world.pass_ms(1, 1);
    world
}

/// A frame of `spec` with this traffic class.
fn with_class(spec: &Spec, class: u8) -> Vec<u8> {
    classed(spec.build(), class)
}

fn classed(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        frame[15] = class;
        repair_ipv4(&mut frame);
    } else {
        (frame[14], frame[15]) = (0x60 | class >> 4, class << 4);
    }
    frame
}

#[test]
fn tunnels_are_what_scapy_makes_them() {
    for line in GOLDEN.lines() {
        let [kind, outer, inner, class, expected] =
            line.split(' ').collect::<Vec<_>>().try_into().expect("five columns");
        let (outer, inner) = (usize::from(outer == "v6"), usize::from(inner == "v6"));
        let class = u8::from_str_radix(class.trim_start_matches("0x"), 16).expect("a number");
        let mut world = world(&tunnel(kind, BACKENDS[outer], ""));
        let spec = Spec { dst_port: 80, ..Spec::tcp(CLIENTS[inner], VIPS[inner]) };
        // The second takes the shortcut.
        for _ in 0..2 {
            let (port, frame) = world.exchange(FRONT, &with_class(&spec, class));
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((port, hex.as_str()), (BACK, expected), "{line}");
        }
    }
}

/// What was around a packet.
#[derive(Clone, PartialEq, Debug)]
struct Around {
    class: u8,
    /// Source port, and over IPv6 flow label.
    entropy: (Option<u16>, u32),
    len: usize,
}

/// Takes a frame apart: what is around, and the inner IP packet.
fn open(kind: &str, frame: &[u8]) -> (Around, Vec<u8>) {
    let v4 = frame[12..14] == [8, 0];
    let packet = &frame[14..];
    let (class, label, protocol, l4) = if v4 {
        assert_eq!(frames::checksum(&packet[..20]), 0);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!((packet[0], &packet[4..9]), (0x45, &[0, 0, 0x40, 0, 64][..]));
        (packet[1], 0, packet[9], 20)
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
        assert_eq!(packet[7], 64);
        let label = u32::from_be_bytes([0, packet[1] & 0x0f, packet[2], packet[3]]);
        (packet[0] << 4 | packet[1] >> 4, label, packet[6], 40)
    };
    let mut at = l4;
    let mut source = None;
    if kind == "ipip" {
        assert_eq!(protocol, if packet[l4] >> 4 == 4 { 4 } else { 41 });
    } else {
        assert_eq!(protocol, 17);
        let datagram = &packet[l4..];
        assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), datagram.len());
        if v4 {
            assert_eq!(datagram[6..8], [0, 0]);
        } else {
            let address =
                |at: usize| dataplane::addr::Ip::v6(packet[at..at + 16].try_into().expect("an address"));
            assert_eq!(transport_checksum(address(8), address(24), 17, datagram), 0);
        }
        source = Some(u16::from_be_bytes([datagram[0], datagram[1]]));
        let port = match kind {
            "gue" => 6080,
            "vxlan" => 4789,
            _ => 6081u16,
        };
        assert_eq!(datagram[2..4], port.to_be_bytes());
        let protocol = |at: usize| if datagram[at] >> 4 == 4 { 4 } else { 41 };
        let (shim, len) = match kind {
            "gue" => (vec![0, protocol(12), 0, 0], 4),
            "vxlan" => (vec![8, 0, 0, 0, 0, 0, 77, 0], 8),
            _ => (vec![0, 0, 0x65, 0x58, 0, 0, 77, 0], 8),
        };
        assert_eq!(datagram[8..8 + len], shim[..]);
        at += 8 + len;
        if has_ethernet(kind) {
            assert_eq!(packet[at..at + 12], [2, 0, 0, 0, 0, 0x77, 2, 0, 0, 0, 0, 2]);
            at += 14;
        }
    }
    (Around { class, entropy: (source, label), len: at }, packet[at..].to_vec())
}

/// Whom `spec` is from and to: a service of its family and protocol.
fn to_service(spec: Spec) -> Spec {
    let family = usize::from(!spec.dst.is_v4());
    Spec { src: frames::ip(CLIENTS[family]), dst: frames::ip(VIPS[family]), dst_port: 80, ..spec }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// What is inside is the packet, one hop older; all of it and nothing else. What is around it has the
    /// packet's traffic class, and is the same for all packets of a flow, on the shortcut and off it.
    #[test]
    fn a_tunnel_is_the_identity(
        kind in prop::sample::select(&KINDS[..]),
        backend in prop::sample::select(&BACKENDS[..]),
        spec in frames::plain(),
        class in any::<u8>(),
    ) {
        let mut world = world(&tunnel(kind, backend, ""));
        let spec = Spec { ttl: spec.ttl.max(2), ..to_service(spec) };
        let transport = match spec.transport {
            Transport::Tcp { seq, ack, options, .. } => Transport::Tcp { flags: 0x10, seq, ack, options },
            other => other,
        };
        let spec = Spec { transport, ..spec };
        let first = world.exchange(FRONT, &with_class(&spec, class));
        let (around, inner) = open(kind, &first.1);
        let older = with_class(&Spec { ttl: spec.ttl - 1, padding: 0, ..spec.clone() }, class);
        prop_assert_eq!(&inner, &older[14..]);
        prop_assert_eq!(around.class, class);
        prop_assert!(around.entropy.0.is_none_or(|port| port >= 0xc000));
        assert_checksums(&[&older[..14], &inner].concat(), true);
        prop_assert_eq!(&world.exchange(FRONT, &with_class(&spec, class)), &first);
        let sent = world.exchange(FRONT, &with_class(&Spec { payload: vec![7; 9], ..spec }, !class)).1;
        let (again, _) = open(kind, &sent);
        prop_assert_eq!(again, Around { class: !class, ..around });
    }

    /// Both halves of a packet take the same way through the network.
    #[test]
    fn fragments_stay_together(
        kind in prop::sample::select(&KINDS[..]),
        backend in prop::sample::select(&BACKENDS[..]),
        family in 0usize..2,
        overtaken in any::<bool>(),
    ) {
        let mut world = world(&tunnel(kind, backend, ""));
        let spec = to_service(Spec { payload: vec![1; 64], ..Spec::udp(CLIENTS[family], VIPS[family]) });
        let (first, later) = spec.build_fragments(3);
        let mut halves = [first, later];
        if overtaken {
            halves.reverse();
        }
        let out: Vec<_> = halves.iter().flat_map(|half| world.receive(FRONT, half)).collect();
        prop_assert_eq!(out.len(), 2);
        let [(one, _), (other, _)] = [open(kind, &out[0].1), open(kind, &out[1].1)];
        prop_assert_eq!(one.entropy, other.entropy);
    }

    /// A packet that fits once it is wrapped is sent; a larger one is answered with the size that fits.
    #[test]
    fn senders_learn_what_fits(
        kind in prop::sample::select(&KINDS[..]),
        outer in 0usize..2,
        family in 0usize..2,
    ) {
        let mut world = world(&tunnel(kind, BACKENDS[outer], "mtu = 1400"));
        let overhead = match kind {
            "ipip" => 20,
            "gue" => 32,
            _ => 50,
        } + 20 * outer;
        let headers = [40, 60][family];
        let spec = to_service(Spec::tcp(CLIENTS[family], VIPS[family]));
        let of = |len: usize| Spec { payload: vec![3; len - headers], ..spec.clone() }.build();
        for _ in 0..2 {
            let (port, frame) = world.exchange(FRONT, &of(1400 - overhead));
            prop_assert_eq!((port, frame.len()), (BACK, 1414));
            let (port, error) = world.exchange(FRONT, &of(1401 - overhead));
            prop_assert_eq!(port, FRONT);
            let (at, kind) = if family == 0 { (34, [3, 4]) } else { (54, [2, 0]) };
            prop_assert_eq!(&error[at..at + 2], kind);
            let mtu = u32::from_be_bytes(error[at + 4..at + 8].try_into().expect("four"));
            prop_assert_eq!(mtu as usize, 1400 - overhead);
        }
    }
}

/// What the operator says of the outer header is in it; ECN stays the packet's.
#[test]
fn the_outer_header_is_as_configured() {
    let section = "port = 5555\ndscp = 46\nudp6_checksum = false";
    for (backend, l4) in [(BACKENDS[0], 34), (BACKENDS[1], 54)] {
        let mut world = world(&config("gue", section, backend, "vlan = 9"));
        let (_, frame) = world.exchange(FRONT, &with_class(&Spec::tcp(CLIENTS[0], VIPS[0]), 0x29));
        assert_eq!(frame[12..16], [0x81, 0, 0, 9]);
        let frame = &frame[4..];
        let class = if l4 == 34 { frame[15] } else { frame[14] << 4 | frame[15] >> 4 };
        assert_eq!(class, 46 << 2 | 0x01);
        assert_eq!(frame[l4 + 2..l4 + 4], 5555u16.to_be_bytes());
        assert_eq!(frame[l4 + 6..l4 + 8], [0, 0]);
    }
}

/// An error about what the backend sent to the client goes to the backend, in the connection's tunnel.
#[test]
fn errors_follow_their_connection() {
    for known in [true, false] {
        let mut world = world(&tunnel("vxlan", BACKENDS[0], ""));
        let spec = Spec::tcp(CLIENTS[0], VIPS[0]);
        let mut around = None;
        if known {
            around = Some(open("vxlan", &world.exchange(FRONT, &spec.build()).1).0);
        }
        let reply =
            Spec { src: spec.dst, dst: spec.src, src_port: 80, dst_port: spec.src_port, ..spec.clone() };
        let error = frames::error_about(&reply, &reply.build()[14..42]);
        let (of_error, inner) = open("vxlan", &world.exchange(FRONT, &error.build()).1);
        assert_eq!(inner, Spec { ttl: 63, ..error }.build()[14..]);
        let around = around.unwrap_or_else(|| open("vxlan", &world.exchange(FRONT, &spec.build()).1).0);
        assert_eq!(of_error, around);
    }
}

/// A reload may put a service's connections into a tunnel; those whose addresses are translated stay as they
/// are.
#[test]
fn modes_change_under_connections() {
    // The services over IPv4: none but a tunnel leads to the other family.
    let ipip: Vec<_> =
        tunnel("ipip", BACKENDS[0], "").split("[[service]]").take(3).map(str::to_owned).collect();
    let ipip = ipip.join("[[service]]");
    let plain = |mode: &str| ipip.replace("\"ipip\"\n[service.tunnel]", mode);
    let spec = Spec::tcp(CLIENTS[0], VIPS[0]);
    for (mode, wrapped) in [("\"dsr\"", true), ("\"nat\"", false)] {
        let mut world = world(&plain(mode));
        let before = world.exchange(FRONT, &spec.build());
        world.reload(&ipip);
        let after = world.exchange(FRONT, &spec.build());
        if wrapped {
            assert_eq!(open("ipip", &after.1).1, before.1[14..]);
        } else {
            assert_eq!(after, before);
        }
        let newer = Spec { src_port: 41_000, ..spec.clone() };
        open("ipip", &world.exchange(FRONT, &newer.build()).1);
    }
}

/// Packets wait for their neighbour as they will leave.
#[test]
fn tunnels_wait_for_neighbours() {
    let mut world = World::new(&tunnel("geneve", BACKENDS[0], ""), 1);
    world.know(FRONT, "10.0.0.254", GATEWAY_MAC);
    world.pass_ms(2_000, 100);
    let asked = world.receive(FRONT, &Spec::tcp(CLIENTS[0], VIPS[0]).build());
    assert!(asked.iter().all(|(_, frame)| frame[12..14] == [8, 6]), "{asked:02x?}");
    let reply = [
        &[2, 0, 0, 0, 0, 2][..],
        &BACKEND_MAC.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &BACKEND_MAC.0,
        &[10, 0, 1, 11, 2, 0, 0, 0, 0, 2, 10, 0, 1, 1],
    ]
    .concat();
    let sent = world.receive(BACK, &reply);
    let [(port, frame)] = &sent[..] else { panic!("one frame: {sent:02x?}") };
    assert_eq!((*port, &frame[..6]), (BACK, &BACKEND_MAC.0[..]));
    open("geneve", frame);
}
