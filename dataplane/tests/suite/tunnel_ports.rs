//! Ports behind tunnels: a packet in a tunnel is treated as one that came by the port's own wire, and what
//! leaves by such a port is inside of another packet.

use crate::common::world::{BACK, FRONT, World};
use crate::frames;
use crate::frames::{Spec, Transport, repair_ipv4};
use dataplane::addr::MacAddr;
use dataplane::ids::PortId;
use dataplane::offload::{Answer, Ask, Leg, Revocation, Revoke, RuleId};
use dataplane::packet::{PacketBuf, TestPacket};
use dataplane::rewrite;
use proptest::prelude::*;

/// Whom the frames inside are for: the address of [`frames::LINK_DST`].
const MAC: MacAddr = MacAddr(frames::LINK_DST);
const REMOTE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
const BACKEND_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 0x11]);
const CLIENT_MAC: MacAddr = MacAddr(frames::LINK_SRC);
const VIPS: [&str; 2] = ["192.0.2.80", "2001:db8::80"];
const CLIENTS: [&str; 2] = ["172.16.0.7", "fd00:16::7"];
const BACKENDS: [&str; 2] = ["10.0.1.11", "fd00:2::11"];

/// One end of a tunnel.
#[derive(Clone, Copy, Debug)]
struct End {
    kind: &'static str,
    vni: u32,
    v6: bool,
}

const BLUE: End = End { kind: "vxlan", vni: 100, v6: false };
const RED: End = End { kind: "geneve", vni: 200, v6: true };

impl End {
    fn addresses(self) -> (&'static str, &'static str) {
        if self.v6 { ("fd00:1::9", "fd00:1::1") } else { ("10.0.0.9", "10.0.0.1") }
    }

    fn port(self) -> u16 {
        if self.kind == "vxlan" { 4789 } else { 6081 }
    }

    fn shim(self) -> [u8; 8] {
        let [_, a, b, c] = self.vni.to_be_bytes();
        if self.kind == "vxlan" { [8, 0, 0, 0, a, b, c, 0] } else { [0, 0, 0x65, 0x58, a, b, c, 0] }
    }

    fn toml(self) -> String {
        let (End { kind, vni, .. }, (remote, _)) = (self, self.addresses());
        format!(
            "parent = \"front\"\ntunnel = {{ kind = \"{kind}\", vni = {vni}, remote = \"{remote}\" }}\nmac = \"{MAC}\"\n"
        )
    }

    /// What its far end sends around `inside`.
    fn packet(self, payload: Vec<u8>) -> Spec {
        let (remote, own) = self.addresses();
        let transport = Transport::Udp { checksum: self.v6 };
        Spec { dst_port: self.port(), src_port: 50_000, payload, transport, ..Spec::udp(remote, own) }
    }

    fn wrap(self, frame: &[u8]) -> Vec<u8> {
        self.packet([&self.shim()[..], frame].concat()).build()
    }

    /// What is inside of a frame that goes to its far end, and the traffic class and source port around it.
    fn open(self, frame: &[u8]) -> (Vec<u8>, u8, u16) {
        assert_eq!((&frame[..6], &frame[6..12]), (&REMOTE_MAC.0[..], &frames::LINK_DST[..]));
        frames::assert_checksums(frame, self.v6);
        let (class, l4) = match frame[12..14] {
            [0x86, 0xdd] => (frame[14] << 4 | frame[15] >> 4, 54),
            _ => (frame[15], 34),
        };
        assert_eq!(l4 == 54, self.v6);
        assert_eq!(frame[l4 + 2..l4 + 4], self.port().to_be_bytes());
        assert_eq!(usize::from(u16::from_be_bytes([frame[l4 + 4], frame[l4 + 5]])), frame.len() - l4);
        assert_eq!(frame[l4 + 8..l4 + 16], self.shim());
        (frame[l4 + 16..].to_vec(), class, u16::from_be_bytes([frame[l4], frame[l4 + 1]]))
    }
}

const FRONT_PORT: &str = "[limits]\nconnections = 4096\n\
    [[port]]\nname = \"front\"\ndevice = \"d0\"\naddresses = [\"10.0.0.1/24\", \"fd00:1::1/64\"]\n";

/// Two tenants with the same addresses and services, each with a way in.
fn config([blue, red]: [String; 2]) -> String {
    let backs = ["device = \"d1\"\n", "parent = \"back-blue\"\nvlan = 20\n"];
    [FRONT_PORT, &tenant("blue", backs[0], &blue), &tenant("red", backs[1], &red)].concat()
}

/// A tenant with services, clients that come by one way, and backends by another.
fn tenant(name: &str, back: &str, way: &str) -> String {
    let mut text = format!(
        "[[tenant]]\nname = \"{name}\"\n\
         [[port]]\nname = \"{name}\"\n{way}tenant = \"{name}\"\n\
         addresses = [\"172.16.0.1/24\", \"fd00:16::1/64\"]\n\
         [[port]]\nname = \"back-{name}\"\n{back}tenant = \"{name}\"\n\
         addresses = [\"10.0.1.1/24\", \"fd00:2::1/64\"]\n"
    );
    for (n, (vip, backend)) in VIPS.into_iter().zip(BACKENDS).enumerate() {
        for protocol in ["tcp", "udp"] {
            text += &format!(
                "[[service]]\nname = \"{protocol}{n}-{name}\"\ntenant = \"{name}\"\nvip = \"{vip}\"\n\
                 protocol = \"{protocol}\"\nports = [80]\n[[service.backend]]\naddress = \"{backend}\"\n"
            );
        }
    }
    text
}

const BACK_RED: PortId = PortId(2);
/// Of the ports behind tunnels.
const PORTS: [PortId; 2] = [PortId(3), PortId(4)];

fn world(workers: usize) -> World {
    let mut world = World::new(&config([BLUE.toml(), RED.toml()]), workers);
    know(&mut world);
    for remote in [BLUE, RED] {
        world.know(FRONT, remote.addresses().0, REMOTE_MAC);
    }
    world.pass_ms(1, 1);
    world
}

fn know(world: &mut World) {
    for back in [BACK, BACK_RED] {
        BACKENDS.iter().for_each(|backend| world.know(back, backend, BACKEND_MAC));
    }
    for port in PORTS {
        CLIENTS.iter().for_each(|client| world.know(port, client, CLIENT_MAC));
    }
}

fn request(family: usize) -> Spec {
    let transport = Transport::Tcp { flags: 0x02, seq: 1, ack: 0, options: vec![] };
    Spec { transport, ..Spec::tcp(CLIENTS[family], VIPS[family]) }
}

fn counted(world: &World, reason: &str) -> bool {
    world.report().iter().any(|line| line.starts_with(&format!("drop.{reason}=")))
}

/// A frame of `spec` with this traffic class.
fn classed(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        frame[15] = class;
        repair_ipv4(&mut frame);
    } else {
        (frame[14], frame[15]) = (0x60 | class >> 4, class << 4);
    }
    frame
}

fn class_of(frame: &[u8]) -> u8 {
    if frame[14] >> 4 == 4 { frame[15] } else { frame[14] << 4 | frame[15] >> 4 }
}

/// The same client, port, VIP and backend: two connections, which know nothing of each other.
#[test]
fn tenants_behind_tunnels_do_not_meet() {
    for workers in [1, 3] {
        let mut world = world(workers);
        for (family, end) in [(0, BLUE), (0, RED), (1, BLUE), (1, RED)] {
            let (port, frame) = world.exchange(FRONT, &end.wrap(&request(family).build()));
            let tags = if end.vni == 100 { 0 } else { 4 };
            assert_eq!((port, &frame[..6]), (BACK_OF[usize::from(tags == 4)], &BACKEND_MAC.0[..]));
            let bare = [&frame[..12], &frame[12 + tags..]].concat();
            frames::assert_checksums(&bare, true);
            let answer = Spec {
                src: frames::ip(BACKENDS[family]),
                dst: frames::ip(CLIENTS[family]),
                src_port: 80,
                dst_port: 40_000,
                transport: Transport::Tcp { flags: 0x12, seq: 1, ack: 2, options: vec![] },
                ..request(family)
            };
            let mut answer = answer.build();
            answer[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
            answer[6..12].copy_from_slice(&BACKEND_MAC.0);
            if tags == 4 {
                answer.splice(12..12, [0x81, 0, 0, 20]);
            }
            let (port, frame) = world.exchange(BACK, &answer);
            assert_eq!(port, FRONT);
            let (inner, _, source) = end.open(&frame);
            assert_eq!((&inner[..6], &inner[6..12]), (&CLIENT_MAC.0[..], &MAC.0[..]));
            frames::assert_checksums(&inner, true);
            assert!(source >= 0xc000);
        }
        assert_eq!(world.envs.iter().map(|env| env.counters.entries.get()).sum::<u64>(), 4);
    }
}

const BACK_OF: [PortId; 2] = [BACK, BACK_RED];

/// Every pair of marks, as RFC 6040 has it, in either family.
#[test]
fn marks_are_carried_over() {
    // By the mark inside: what leaves, by the mark outside.
    let leaves = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for (family, end) in [(0, BLUE), (0, RED), (1, BLUE), (1, RED)] {
        let mut world = world(1);
        for (inner, leaves) in (0u8..).zip(leaves) {
            for (outer, leaves) in (0u8..).zip(leaves) {
                let inside = classed(request(family).build(), 0xb8 | inner);
                // Behind a tag that only gives a priority, too.
                let tag: &[u8] = if outer % 2 == inner % 2 { &[0x81, 0, 0x60, 0] } else { &[] };
                let inside = [&inside[..12], tag, &inside[12..]].concat();
                let sent = world.receive(FRONT, &classed(end.wrap(&inside), outer));
                let Some(mark) = leaves else {
                    assert_eq!(sent, []);
                    assert!(counted(&world, "tunnel_ecn"));
                    continue;
                };
                let [(_, frame)] = &sent[..] else { panic!("one frame: {sent:02x?}") };
                let frame = [&frame[..12], &frame[if end.vni == 100 { 12 } else { 16 }..]].concat();
                assert_eq!(class_of(&frame), 0xb8 | mark, "{inner} in {outer}");
                frames::assert_checksums(&frame, true);
            }
        }
    }
}

/// What is wrong with a packet around a frame is counted for what it is.
#[test]
fn faults_have_names() {
    let frame = request(0).build();
    let with = |end: End, shim: &[u8]| end.packet([shim, &frame].concat()).build();
    let bad = |mut frame: Vec<u8>, at: usize| {
        frame[at] ^= 0x10;
        frame
    };
    let checksum = |end: End, l4: usize| {
        let spec = end.packet([&end.shim()[..], &frame].concat());
        bad(Spec { transport: Transport::Udp { checksum: true }, ..spec }.build(), l4 + 60)
    };
    let stranger = Spec { src: frames::ip("10.0.0.8"), ..BLUE.packet([&BLUE.shim()[..], &frame].concat()) };
    let [unflagged, of_ipv4, version, control, critical, long] = [
        [0, 0, 0, 0, 0, 0, 100, 0],
        [0, 0, 8, 0, 0, 0, 200, 0],
        [0x40, 0, 0x65, 0x58, 0, 0, 200, 0],
        [0, 0x80, 0x65, 0x58, 0, 0, 200, 0],
        [0, 0x40, 0x65, 0x58, 0, 0, 200, 0],
        [0x3f, 0, 0x65, 0x58, 0, 0, 200, 0],
    ];
    let cases = [
        ("tunnel_network", End { vni: 101, ..BLUE }.wrap(&frame)),
        ("tunnel_network", End { vni: 200, ..BLUE }.wrap(&frame)),
        ("tunnel_remote", stranger.build()),
        ("tunnel_malformed", with(BLUE, &unflagged)),
        ("tunnel_malformed", BLUE.packet(vec![8, 0, 0]).build()),
        ("tunnel_malformed", with(RED, &of_ipv4)),
        ("tunnel_malformed", with(RED, &version)),
        ("tunnel_malformed", with(RED, &control)),
        ("tunnel_malformed", with(RED, &long)),
        ("tunnel_malformed", BLUE.packet([&BLUE.shim()[..], &frame].concat()).build_fragments(4).0),
        ("tunnel_option", with(RED, &critical)),
        ("tunnel_checksum", checksum(RED, 54)),
        ("tunnel_checksum", checksum(BLUE, 34)),
        ("ethernet_truncated", BLUE.wrap(&frame[..9])),
        ("not_our_mac", BLUE.wrap(&bad(frame.clone(), 5))),
        ("vlan_mismatch", BLUE.wrap(&[&frame[..12], &[0x81, 0, 0, 20], &frame[12..]].concat())),
    ];
    for (reason, packet) in cases {
        let mut world = world(1);
        assert_eq!(world.receive(FRONT, &packet), [], "{reason}");
        assert!(counted(&world, reason), "{reason}: {:?}", world.report());
    }
}

/// Options that need not be understood are passed over, and reserved bits are of no account; no checksum is
/// fine over IPv6 too.
#[test]
fn what_may_be_there_may_be_there() {
    let frame = request(0).build();
    let option = [2, 0, 0x65, 0x58, 0, 0, 200, 0, 1, 2, 3, 1, 0xde, 0xad, 0xbe, 0xef];
    let reserved = [0xff, 1, 2, 3, 0, 0, 100, 9];
    for (end, shim) in [(RED, &option[..]), (BLUE, &reserved)] {
        let spec = end.packet([shim, &frame].concat());
        for checksum in [false, true] {
            let mut world = world(1);
            let spec = Spec { transport: Transport::Udp { checksum }, ..spec.clone() };
            assert_eq!(world.receive(FRONT, &spec.build()).len(), 1);
        }
    }
}

/// Who asks for an address on the inner link is answered there, and who is asked for, is asked there.
#[test]
fn neighbours_are_behind_tunnels() {
    let mut world = World::new(&config([BLUE.toml(), RED.toml()]), 1);
    let asked = world.pass_ms(10, 1);
    assert!(asked.iter().all(|(port, _)| !PORTS.contains(port)));
    // Nobody knows the far ends yet: what is inside waits for those.
    for remote in [BLUE, RED] {
        world.know(FRONT, remote.addresses().0, REMOTE_MAC);
    }
    let announced = world.pass_ms(10, 1);
    let inside = announced.iter().filter(|(port, frame)| *port == FRONT && frame[..6] == REMOTE_MAC.0);
    assert!(inside.count() >= 4, "{announced:02x?}");
    for target in [[172, 16, 0, 1], [192, 0, 2, 80]] {
        let head = [&[255; 6][..], &CLIENT_MAC.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &CLIENT_MAC.0].concat();
        let request = [&head[..], &[172, 16, 0, 7, 0, 0, 0, 0, 0, 0], &target, &[0; 18]].concat();
        let (port, frame) = world.exchange(FRONT, &BLUE.wrap(&request));
        assert_eq!(port, FRONT);
        let (answer, class, _) = BLUE.open(&frame);
        let expected = [&CLIENT_MAC.0[..], &MAC.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &MAC.0, &target].concat();
        assert_eq!((&answer[..32], class, answer.len()), (&expected[..], 0, 42));
    }
}

/// Packets of the backends that do not fit into the tunnel are answered with the size that does.
#[test]
fn senders_learn_what_fits() {
    let mut world = world(1);
    world.exchange(FRONT, &BLUE.wrap(&request(0).build()));
    let answer = |len: usize| {
        let transport = Transport::Tcp { flags: 0x10, seq: 1, ack: 2, options: vec![] };
        let (src, dst) = (frames::ip(BACKENDS[0]), frames::ip(CLIENTS[0]));
        let spec = Spec { src, dst, src_port: 80, dst_port: 40_000, transport, ..request(0) };
        let mut frame = Spec { payload: vec![5; len - 40], ..spec }.build();
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        frame[6..12].copy_from_slice(&BACKEND_MAC.0);
        frame
    };
    assert_eq!(world.exchange(BACK, &answer(1450)).1.len(), 1514);
    let (port, error) = world.exchange(BACK, &answer(1451));
    assert_eq!((port, &error[34..36]), (BACK, &[3, 4][..]));
    assert_eq!(u16::from_be_bytes([error[40], error[41]]), 1450);
}

/// Which end a port has is no matter of its restart: a reload may change it.
#[test]
fn tunnels_change_under_connections() {
    let mut world = world(1);
    world.exchange(FRONT, &BLUE.wrap(&request(0).build()));
    let other = End { vni: 300, ..BLUE };
    world.reload(&config([other.toml(), RED.toml()]));
    assert_eq!(world.receive(FRONT, &BLUE.wrap(&request(0).build())), []);
    assert!(counted(&world, "tunnel_network"));
    assert_eq!(world.exchange(FRONT, &other.wrap(&request(0).build())).0, BACK);
}

/// A packet to one of our services, or from the backend of one.
fn of_service(spec: Spec) -> Spec {
    let family = usize::from(!spec.dst.is_v4());
    Spec { src: frames::ip(CLIENTS[family]), dst: frames::ip(VIPS[family]), dst_port: 80, ..spec }
}

/// Packets of all sorts, most of them for our services.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => frames::plain().prop_map(|spec| of_service(spec).build()),
        2 => frames::spec().prop_map(|spec| of_service(spec).build()),
        1 => frames::spec().prop_map(|spec| spec.build()),
        1 => frames::damaged(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Frames from a tunnel meet what they would meet on a wire of their own: the same leaves by the same
    /// ports, and the same is counted, on the shortcut and off it.
    #[test]
    fn a_tunnel_is_a_wire(sent in prop::collection::vec(frame(), 1..6), v6 in any::<bool>()) {
        let end = End { v6, ..BLUE };
        let back = "device = \"d1\"\n";
        let through = tenant("blue", back, &(end.toml() + "mtu = 1430\n"));
        let mut tunnel = World::new(&[FRONT_PORT, &through].concat(), 1);
        let direct = "[limits]\nconnections = 4096\n".to_owned() + &tenant("blue", back, "device = \"d0\"\nmtu = 1430\n");
        let mut wire = World::new(&direct, 1);
        let (blue_wire, blue_tunnel) = (FRONT, PortId(2));
        for (world, blue) in [(&mut wire, blue_wire), (&mut tunnel, blue_tunnel)] {
            BACKENDS.iter().for_each(|backend| world.know(BACK, backend, BACKEND_MAC));
            CLIENTS.iter().for_each(|client| world.know(blue, client, CLIENT_MAC));
            world.know(FRONT, end.addresses().0, REMOTE_MAC);
            world.pass_ms(1, 1);
        }
        for frame in sent.iter().filter(|frame| frame.len() <= 1430).flat_map(|frame| [frame, frame]) {
            let by_wire = wire.receive(blue_wire, frame);
            let by_tunnel = tunnel.receive(FRONT, &end.wrap(frame));
            let inside = |(port, frame): (PortId, Vec<u8>)| match port {
                FRONT => (blue_wire, end.open(&frame).0),
                port => (port, frame),
            };
            prop_assert_eq!(by_wire, by_tunnel.into_iter().map(inside).collect::<Vec<_>>());
        }
        let report = |world: &World| {
            let about = |line: &String| line.starts_with("drop.") || line.starts_with("entries");
            world.report().into_iter().filter(about).collect::<Vec<_>>()
        };
        prop_assert_eq!(report(&wire), report(&tunnel));
    }

    /// What was put in comes out, but for what filled it up behind its packet.
    #[test]
    fn in_and_out_is_the_identity(spec in frames::spec(), v6 in any::<bool>(), red in any::<bool>()) {
        let end = End { v6, ..if red { RED } else { BLUE } };
        let snapshot = World::new(&config([End { v6, ..BLUE }.toml(), End { v6, ..RED }.toml()]), 1).snapshot;
        let way = snapshot.into_tunnel(PORTS[usize::from(red)]).expect("a way");
        let frame = spec.build();
        let mut packet = TestPacket::new(PortId(0), &frame);
        rewrite::wrap(&mut packet, &way.outer).expect("room");
        packet.data_mut()[..12].copy_from_slice(&[REMOTE_MAC.0, frames::LINK_DST].concat());
        let ether_type: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        packet.data_mut()[12..14].copy_from_slice(&ether_type);
        let (inner, ..) = end.open(packet.data());
        let unpadded = Spec { padding: 0, ..spec }.build();
        prop_assert_eq!(&inner, &unpadded);
        let start = packet.data().len() - inner.len();
        let end = packet.data().len();
        rewrite::decapsulate(&mut packet, 14, (start, end)).expect("the same mark");
        prop_assert_eq!(packet.data(), &unpadded[..]);
    }
}

/// The clients' packets of a connection, and its backend's, from a world whose ways are as wide as tunnels.
fn asked(world: &mut World, flags: [&str; 3]) -> Vec<Ask> {
    for (at, flags) in flags.into_iter().enumerate() {
        let flags = flags.bytes().fold(0, |all, flag| all | if flag == b'S' { 0x02 } else { 0x10 });
        let transport = Transport::Tcp { flags, seq: 1, ack: 1, options: vec![] };
        let spec = Spec { transport, ..request(0) };
        if at % 2 == 0 {
            world.exchange(FRONT, &BLUE.wrap(&spec.build()));
        } else {
            world.exchange(BACK, &from_backend(spec, 0x28));
        }
    }
    std::mem::take(&mut world.envs[0].asks)
}

/// An answer of this traffic class.
fn from_backend(spec: Spec, class: u8) -> Vec<u8> {
    let (src, dst) = (frames::ip(BACKENDS[0]), spec.src);
    let mut answer = Spec { src, dst, src_port: 80, dst_port: 40_000, ..spec }.build();
    answer[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    answer[6..12].copy_from_slice(&BACKEND_MAC.0);
    classed(answer, class)
}

fn wide(mtu: u16) -> World {
    let config = config([BLUE.toml(), RED.toml()]);
    let config = config.replace("device = \"d1\"\n", &format!("device = \"d1\"\nmtu = {mtu}\n"));
    let mut world = World::new(&config, 1);
    know(&mut world);
    world.know(FRONT, BLUE.addresses().0, REMOTE_MAC);
    world.pass_ms(1, 1);
    world.workers[0].set_price(3);
    world
}

#[test]
fn hardware_is_asked_for_what_is_behind_tunnels_too() {
    let mut world = wide(1450);
    assert_eq!(asked(&mut world, ["S", "SA", "A"]), [], "the class of answers is not known yet");
    let [ask] = asked(&mut world, ["A", "A", "A"])[..] else { panic!("it is asked for with an answer") };
    let legs = [(PORTS[0], BACK, BACKEND_MAC), (BACK, PORTS[0], CLIENT_MAC)];
    assert_eq!(ask.legs, legs.map(|(ingress, egress, next_hop)| Some(Leg { ingress, egress, next_hop })));
    let around = ask.tunnel.expect("answers are put into the tunnel");
    assert_eq!((around.below(), around.class()), (Some(REMOTE_MAC), (0x28, 0xff)));
    let spec =
        Spec { transport: Transport::Tcp { flags: 0x10, seq: 1, ack: 1, options: vec![] }, ..request(0) };
    let (_, mut sent) = world.exchange(BACK, &from_backend(spec.clone(), 0x28));
    [16..18, 24..26, 38..40].into_iter().for_each(|unknown| sent[unknown].fill(0));
    assert_eq!(sent[14..14 + around.headers().len()], *around.headers(), "as software does, but for lengths");

    // Whom the outer packets are for may move as well.
    let rule = RuleId(7);
    world.answer(&Answer::Installed { flow: ask.flow, token: ask.token, rule });
    let next_hops = ask.legs.map(|leg| leg.map(|leg| leg.next_hop));
    let (flow, backend, counts) = (ask.flow, ask.backend, Default::default());
    let counted =
        Answer::Counted { flow, rule: Some(rule), backend, counts, next_hops, below: around.below() };
    world.pass_ms(2_000, 100);
    world.answer(&counted);
    let missed = |world: &World| world.envs[0].counters.offload_miss.get();
    for (class, misses) in [(0x2a, 0), (0x29, 0), (0x28, 1)] {
        world.exchange(BACK, &from_backend(spec.clone(), class));
        assert_eq!(missed(&world), misses, "only what bears no mark is put in by hardware");
    }
    for (class, misses) in [(0x01, 1), (0x03, 1), (0x02, 2)] {
        world.exchange(FRONT, &BLUE.wrap(&classed(spec.build(), class)));
        assert_eq!(missed(&world), misses, "only what a mark outside cannot have changed is taken out");
    }
    assert_eq!(world.envs[0].revokes, []);
    world.know(FRONT, BLUE.addresses().0, MacAddr([2, 0, 0, 0, 9, 8]));
    world.answer(&counted);
    assert_eq!(world.envs[0].revokes, [Revoke { flow: ask.flow, rule, why: Revocation::Moved }]);
}

#[test]
fn a_direction_that_is_softwares_leaves_the_other() {
    // Answers need not fit the tunnel.
    let [ask] = asked(&mut wide(1500), ["S", "SA", "A"])[..] else { panic!("it is asked for") };
    assert_eq!((ask.legs[0].is_some(), ask.legs[1], ask.tunnel), (true, None, None));
    // What never answers says nothing of its class.
    let mut world = wide(1450);
    assert_eq!(asked(&mut world, ["S", "SA", "A"]), []);
    let asks = (0..40).flat_map(|_| {
        let transport = Transport::Tcp { flags: 0x10, seq: 1, ack: 1, options: vec![] };
        world.exchange(FRONT, &BLUE.wrap(&classed(Spec { transport, ..request(0) }.build(), 0x50)));
        std::mem::take(&mut world.envs[0].asks)
    });
    let [ask] = asks.collect::<Vec<_>>()[..] else { panic!("it is asked for in the end") };
    assert_eq!(ask.tunnel.map(|around| around.class()), Some((0x50, 0xff)));
}
