//! Agreement: a device that carries out a lowered rule makes of a packet, byte for byte, what the worker
//! makes of it, and leaves alone what the worker must see.
//!
//! A connection is opened through a worker, which asks for it to be offloaded. What it asks for is lowered
//! and put into a model of a device; then the same packets go to both.

use crate::frames::{Fragment, Frame};
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::Config;
use dataplane::counters::WorkerCounters;
use dataplane::flow::{Direction, Protocol};
use dataplane::ids::{BackendId, PortId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Ask, Declined, Revoke, RuleId};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::packet::{Burst, PacketBuf, TestPacket};
use dataplane::snapshot::{Overrides, PortFacts as SnapshotFacts, Snapshot, VlanTags};
use dataplane::time::Tick;
use dataplane::worker::{Env, Sizes, Worker, WorkerSetup};
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Fabric, RxMeta};
use eswitch::model::types::{Role, Steering, Vport, VportInfo};
use offload::engine::sim::{SimEngine, SimSetup};
use offload::engine::{Completion, EngineError, FlowEngine, LegId};
use offload::lower::ports::{Inside, TunnelPort};
use offload::lower::{self, Hairpin, PortFacts, Topology};
use offload::rule;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

const INNER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
/// The far end of the clients' tunnel.
const FAR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 9, 3]);
const PORT_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// The gateway in front, and the backend behind.
const HOST_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 9, 1]), MacAddr([2, 0, 0, 0, 9, 2])];
const START_NS: u64 = 1_000_000_000;
/// SYN, FIN and RST.
const CONTROL: u8 = 0x07;

/// A connection, its ports, and the device.
#[derive(Clone, Debug)]
struct Scene {
    v6: bool,
    udp: bool,
    nat: bool,
    backend_port: u16,
    tags: [Option<u16>; 2],
    device: (&'static str, Steering),
    hairpin: bool,
    /// The ports are a bump in the wire.
    bump: bool,
    /// The backend is behind one.
    tunnel: Option<Tunnel>,
    /// Clients are, behind a port of their own.
    outside: Option<Inlet>,
}

/// What is around the frames of clients.
#[derive(Clone, Copy, Debug)]
struct Inlet {
    geneve: bool,
    /// Whether the outer header is IPv6.
    v6: bool,
}

impl Inlet {
    /// Our end and the far one.
    fn ends(self) -> [Ip; 2] {
        let ends = if self.v6 { ["fd00:1::1", "fd00:1::9"] } else { ["10.0.0.1", "10.0.0.9"] };
        ends.map(|end| end.parse::<IpAddr>().expect("an address").into())
    }

    fn kind(self) -> (&'static str, rule::Tunnel, u16) {
        if self.geneve {
            ("geneve", rule::Tunnel::Geneve, 6081)
        } else {
            ("vxlan", rule::Tunnel::Vxlan, 4789)
        }
    }

    /// The port's section.
    fn port(self) -> String {
        let ((kind, ..), [_, remote]) = (self.kind(), self.ends());
        format!(
            r#"
            [[port]]
            name = "inner"
            parent = "front"
            mac = "{INNER_MAC}"
            addresses = ["10.9.0.1/24", "fd00:9::1/64"]
            gateway = "10.9.0.254"
            gateway6 = "fd00:9::fe"
            tunnel = {{ kind = "{kind}", vni = 9, remote = "{remote}" }}
            "#
        )
    }

    /// A packet that the far end sends around a frame.
    fn around(self, inside: &Frame, tag: Option<u16>) -> Frame {
        let ([own, remote], (_, _, port)) = (self.ends(), self.kind());
        let shim = if self.geneve { [0, 0, 0x65, 0x58, 0, 0, 9, 0] } else { [8, 0, 0, 0, 0, 0, 9, 0] };
        Frame {
            dst_mac: PORT_MACS[0],
            src_mac: FAR_MAC,
            tags: tag.map(|vid| (0x8100, vid)).into_iter().collect(),
            src: (remote, 50_000),
            dst: (own, port),
            protocol: Protocol::Udp,
            ttl: 64,
            // Its far end does as RFC 6040 says.
            class: inside.class & 3,
            flags: 0,
            options: 0,
            fragment: Fragment::None,
            checksum: Some(0),
            payload: [&shim[..], &inside.bytes()].concat(),
            padding: 0,
        }
    }
}

/// A tunnel to the backend.
#[derive(Clone, Debug)]
struct Tunnel {
    kind: &'static str,
    /// Whether the outer header is IPv6.
    v6: bool,
    /// The outer DSCP; `None`: the packet's.
    dscp: Option<u8>,
}

impl Tunnel {
    fn has_ethernet(&self) -> bool {
        ["vxlan", "geneve"].contains(&self.kind)
    }

    /// Its keys in a service.
    fn keys(&self) -> String {
        let mut keys = Vec::new();
        if self.has_ethernet() {
            keys.push("vni = 7, inner_mac = \"02:00:00:00:00:77\"".to_owned());
        }
        if self.kind != "ipip" {
            keys.push("udp6_checksum = false".to_owned());
        }
        keys.extend(self.dscp.map(|dscp| format!("dscp = {dscp}")));
        format!("tunnel = {{ {} }}", keys.join(", "))
    }
}

impl Scene {
    fn end(&self, v4: &str, v6: &str, port: u16) -> (Ip, u16) {
        let ip: IpAddr = if self.v6 { v6 } else { v4 }.parse().expect("an address");
        (ip.into(), port)
    }

    fn client(&self) -> (Ip, u16) {
        self.end("198.51.100.7", "2001:db8:1::7", 40_000)
    }

    fn vip(&self) -> (Ip, u16) {
        self.end("192.0.2.80", "2001:db8::80", 80)
    }

    fn backend(&self) -> (Ip, u16) {
        let v6 = self.tunnel.as_ref().map_or(self.v6, |tunnel| tunnel.v6);
        Scene { v6, ..self.clone() }.end("10.0.1.11", "fd00:2::11", self.backend_port)
    }

    /// By port: what a tunnel adds fits, and nothing larger comes out of one than the way on takes.
    fn mtus(&self) -> [u16; 2] {
        match (&self.tunnel, self.outside) {
            (Some(_), _) => [1500, 1570],
            (None, Some(outside)) => [if outside.v6 { 1570 } else { 1550 }, 1500],
            (None, None) => [1500; 2],
        }
    }

    fn config(&self) -> Config {
        let [front, back] = self.tags.map(|tag| tag.map(|vid| format!("vlan = {vid}")).unwrap_or_default());
        let [to_back, to_front] =
            ["back", "front"].map(|to| if self.bump { format!("pass_to = \"{to}\"") } else { String::new() });
        let (vip, (address, port)) = (self.vip().0, self.backend());
        let backend = match (self.nat, self.v6) {
            (false, _) => address.to_string(),
            (true, false) => format!("{address}:{port}"),
            (true, true) => format!("[{address}]:{port}"),
        };
        let mode = match &self.tunnel {
            Some(tunnel) => tunnel.kind,
            None => ["dsr", "nat"][usize::from(self.nat)],
        };
        let tunnel = self.tunnel.as_ref().map(Tunnel::keys).unwrap_or_default();
        let protocol = if self.udp { "udp" } else { "tcp" };
        let inner = self.outside.map(Inlet::port).unwrap_or_default();
        let gateways = "gateway = \"10.0.0.254\"\ngateway6 = \"fd00:1::fe\"";
        let gateways = if self.outside.is_some() { "" } else { gateways };
        let text = format!(
            r#"
            [[port]]
            name = "front"
            device = "net_null0"
            addresses = ["10.0.0.1/24", "fd00:1::1/64"]
            {gateways}
            {front}
            {to_back}
            [[port]]
            name = "back"
            device = "net_null1"
            addresses = ["10.0.1.1/24", "fd00:2::1/64"]
            {back}
            {to_front}
            {inner}
            [[service]]
            name = "service"
            vip = "{vip}"
            protocol = "{protocol}"
            ports = [80]
            mode = "{mode}"
            {tunnel}
            [[service.backend]]
            address = "{backend}"
            "#
        );
        Config::parse("test.toml", &text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn topology(&self) -> Topology {
        let port = |at: usize| PortFacts {
            ethdev: at as u16,
            proxy: 0,
            domain: Some(if self.hairpin { at as u16 } else { 0 }),
            mac: PORT_MACS[at],
            any_mac: self.bump,
            mtu: self.mtus()[at],
            vlan: VlanTags { outer: None, inner: self.tags[at] },
            tunnel: None,
            hairpins: if self.hairpin {
                vec![Hairpin { egress: PortId(1 - at as u16), queue: 1 }]
            } else {
                Vec::new()
            },
        };
        let inner = |outside: Inlet| {
            let [own, remote] = outside.ends();
            let inside = Some(Inside { kind: outside.kind().1, vni: 9, own, remote });
            let tunnel = Some(TunnelPort { link: PortId(0), inside });
            PortFacts { mac: INNER_MAC, mtu: 1500, vlan: VlanTags::default(), tunnel, ..port(0) }
        };
        Topology { ports: [port(0), port(1)].into_iter().chain(self.outside.map(inner)).collect() }
    }

    /// Whether hardware can take this direction.
    fn can(&self, direction: Direction) -> bool {
        let [from, to] = match direction {
            Direction::Original => self.tags,
            Direction::Reply => [self.tags[1], self.tags[0]],
        };
        let seen = self.nat || direction == Direction::Original;
        if let Some(outside) = self.outside {
            // Over IPv6 there is a checksum of UDP.
            return direction == Direction::Original || seen && !outside.v6;
        }
        if self.tunnel.is_some() {
            return seen && !self.hairpin;
        }
        let retagged = match (from.is_some(), to.is_some()) {
            (false, true) => false,
            (true, false) => direction == Direction::Original,
            _ => true,
        };
        seen && (!self.hairpin || retagged)
    }

    /// Whether the device may turn down what is lowered for it. Software steering takes no 34 bytes for a
    /// tunnel's headers; BlueField-3 compares no IPv6 addresses, ports, tag and traffic class together.
    fn may_be_refused(&self, direction: Direction) -> bool {
        if self.outside.is_some() {
            let wide = self.v6 && self.tags[1].is_some() && self.device.0 == "bf3-hws";
            return wide && direction == Direction::Reply;
        }
        let Some(tunnel) = &self.tunnel else { return false };
        let short = tunnel.kind == "ipip" && !tunnel.v6 && self.tags[1].is_none();
        let wide = self.v6 && self.tags[0].is_some() && self.device.0 == "bf3-hws";
        // There is room for one more byte: flags, or what of the traffic class is not ECN.
        let wide = wide && (!self.udp || tunnel.dscp.is_none());
        short && self.device.1 == Steering::Software || wide
    }

    /// Whether the machine spares the device such a rule.
    fn is_spared(&self, direction: Direction) -> bool {
        let unknown = |outside: Inlet| outside.geneve || self.v6;
        let hardware = self.device.1 == Steering::Hardware && direction == Direction::Original;
        hardware && self.outside.is_some_and(unknown)
    }

    /// A packet as it is on the wire.
    fn on_wire(&self, direction: Direction, frame: Frame) -> Frame {
        match self.outside {
            Some(outside) if direction == Direction::Original => outside.around(&frame, self.tags[0]),
            _ => frame,
        }
    }

    /// What left, without what hardware chooses itself: the source port of tunnels that it knows.
    fn comparable(&self, mut sent: Vec<(PortId, Vec<u8>)>) -> Vec<(PortId, Vec<u8>)> {
        if let Some(tunnel) = self.tunnel.as_ref().filter(|tunnel| tunnel.has_ethernet()) {
            let tag = if self.tags[1].is_some() { 4 } else { 0 };
            let at = 14 + tag + if tunnel.v6 { 40 } else { 20 };
            sent.iter_mut().for_each(|(_, frame)| frame[at..at + 2].fill(0));
        }
        if self.outside.is_some() {
            let at = 14 + 4 * usize::from(self.tags[0].is_some()) + 20;
            let front = sent.iter_mut().filter(|(port, _)| *port == PortId(0));
            front.for_each(|(_, frame)| frame[at..at + 2].fill(0));
        }
        sent
    }

    /// What hardware is known to do otherwise: a second customer tag within the right one, which no pattern
    /// tells from one tag; a request for another station, on a bump in the wire.
    fn is_excused(&self, direction: Direction, frame: &Frame) -> bool {
        let first = frame.tags.first().filter(|_| frame.tags.len() > 1);
        let hidden = first.is_some_and(|&(tpid, vid)| tpid == 0x8100 && self.tags.contains(&Some(vid)));
        let passing = direction == Direction::Original && self.bump && !PORT_MACS.contains(&frame.dst_mac);
        hidden || passing
    }

    /// A packet of the connection, as it comes in.
    fn packet(&self, direction: Direction) -> Frame {
        let (at, src, dst) = match direction {
            Direction::Original => (0, self.client(), self.vip()),
            Direction::Reply => (1, self.backend(), self.client()),
        };
        let inside = self.outside.is_some() && direction == Direction::Original;
        let tag = self.tags[at].filter(|_| !inside);
        Frame {
            dst_mac: if inside { INNER_MAC } else { PORT_MACS[at] },
            src_mac: HOST_MACS[at],
            tags: tag.map(|vid| (0x8100, vid)).into_iter().collect(),
            src,
            dst,
            protocol: if self.udp { Protocol::Udp } else { Protocol::Tcp },
            ttl: 64,
            class: 0,
            flags: 0x10,
            options: 0,
            fragment: Fragment::None,
            checksum: None,
            payload: vec![1, 2, 3],
            padding: 0,
        }
    }
}

/// What a worker has around it.
#[derive(Default)]
struct Outside {
    sent: Vec<(PortId, Vec<u8>)>,
    asked: Vec<Ask>,
}

impl Env for Outside {
    type Buf = TestPacket;

    fn alloc(&mut self, port: PortId) -> Option<TestPacket> {
        Some(TestPacket::new(port, &[]))
    }

    fn send(&mut self, port: PortId, packet: TestPacket) {
        self.sent.push((port, packet.data().to_vec()));
    }

    fn hand_off(&mut self, _: WorkerId, packet: TestPacket) -> Result<(), TestPacket> {
        Err(packet)
    }

    fn announce(&mut self, _: &NeighbourUpdate) {}

    fn ask(&mut self, ask: &Ask) -> bool {
        self.asked.push(*ask);
        true
    }

    fn revoke(&mut self, _: &Revoke) -> bool {
        true
    }
}

/// A worker with a connection that it has asked to be offloaded.
struct Software {
    worker: Worker<TestPacket>,
    outside: Outside,
    now: Tick,
}

impl Software {
    fn new(scene: &Scene) -> Software {
        let config = scene.config();
        let [front, back] = scene.mtus();
        let [front_mac, back_mac] = PORT_MACS;
        let mut facts =
            vec![SnapshotFacts { mac: front_mac, mtu: front }, SnapshotFacts { mac: back_mac, mtu: back }];
        facts.extend(scene.outside.map(|_| SnapshotFacts { mac: front_mac, mtu: 1500 }));
        let live = |_: BackendId| 0;
        let snapshot =
            Snapshot::build(&config, &facts, &Overrides::default(), None, &live).expect("it builds");
        let setup = WorkerSetup {
            id: WorkerId(0),
            owners: Owners::new(&DEFAULT_KEY, 1, 128).expect("a worker"),
            seed: [1, 2, 3, 4],
            sizes: Sizes::of(&config.limits),
        };
        let now = Tick(1_000);
        let counters = Arc::new(WorkerCounters::new(64, 256));
        let mut worker = Worker::new(now, &setup, Arc::new(snapshot), counters);
        worker.set_price(1);
        let mut outside = Outside::default();
        let mut stations = vec![(1, scene.backend().0, HOST_MACS[1])];
        if let Some(outside) = scene.outside {
            stations.push((2, scene.end("10.9.0.254", "fd00:9::fe", 0).0, HOST_MACS[0]));
            stations.push((0, outside.ends()[1], FAR_MAC));
        } else {
            stations.push((0, scene.end("10.0.0.254", "fd00:1::fe", 0).0, HOST_MACS[0]));
        }
        for (at, ip, mac) in stations {
            let port = PortId(at);
            let update = NeighbourUpdate { port, ip, mac, solicited: true, overrides: true };
            worker.introduce(now, &update, &mut outside);
        }
        let mut software = Software { worker, outside, now };
        software.open(scene);
        software
    }

    /// The connection opens, and goes on until it is asked for.
    fn open(&mut self, scene: &Scene) {
        let exchange = [
            (Direction::Original, 0x02),
            (Direction::Reply, 0x12),
            (Direction::Original, 0x10),
            (Direction::Reply, 0x10),
            (Direction::Original, 0x10),
        ];
        for (direction, flags) in exchange {
            self.now = self.now.after_ms(100);
            if scene.nat || direction == Direction::Original {
                let frame = Frame { flags, ..scene.packet(direction) };
                self.receive(direction, &scene.on_wire(direction, frame).bytes());
            }
        }
    }

    /// One frame in; what is sent.
    fn receive(&mut self, direction: Direction, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        let packet = TestPacket::new(PortId(direction as u16), frame);
        let mut burst: Burst<TestPacket> = [packet].into_iter().collect();
        self.worker.on_burst(self.now, &mut burst, &mut self.outside);
        std::mem::take(&mut self.outside.sent)
    }
}

/// Where frames leave the device.
#[derive(Default)]
struct Doors {
    wire: Vec<(PortId, Vec<u8>)>,
    missed: Vec<Vec<u8>>,
}

impl Fabric<TestPacket> for Doors {
    fn transmit(&mut self, to: Vport, packet: TestPacket) {
        self.wire.push((PortId(to.0), packet.data().to_vec()));
    }

    fn receive(&mut self, _: Vport, _: RxMeta, packet: TestPacket) {
        self.missed.push(packet.data().to_vec());
    }

    fn copy(&mut self, _: &TestPacket) -> Option<TestPacket> {
        None
    }

    fn discard(&mut self, reason: DropReason, _: TestPacket) {
        panic!("dropped: {reason:?}");
    }
}

/// The device, with the rules of what was asked for.
struct Device {
    engine: SimEngine,
    now: u64,
    /// By direction: whether there is a rule.
    offloaded: [bool; 2],
}

impl Device {
    fn new(scene: &Scene, ask: &Ask) -> Device {
        let topology = Arc::new(scene.topology());
        let setup = SimSetup {
            profile: Profile::named(scene.device.0).expect("a built-in profile"),
            steering: scene.device.1,
            vports: vec![
                VportInfo { role: Role::Uplink(0), port_id: 0 },
                VportInfo { role: Role::Host(0), port_id: 1 },
            ],
            topology: Arc::clone(&topology),
            rx_queues: 1,
            rules_max: 16,
            operations_max: 16,
            seed: 1,
        };
        let engine = SimEngine::new(START_NS, setup);
        let mut device = Device { engine, now: START_NS, offloaded: [false; 2] };
        device.pass();
        assert!(device.engine.is_ready());
        for direction in [Direction::Original, Direction::Reply] {
            let lowered = lower::leg(&topology, ask, direction, Some(30));
            assert_eq!(lowered.is_ok(), scene.can(direction), "{direction:?} of {ask:?}");
            match lowered {
                Ok(_) if scene.is_spared(direction) => {}
                Ok(rule) => device.install(scene, LegId { rule: RuleId(0), direction }, &rule),
                Err(reason) if scene.tunnel.is_some() && direction == Direction::Original => {
                    assert_eq!(reason, Declined::Tunnel);
                }
                Err(reason) => assert_eq!(reason, Declined::Path),
            }
        }
        device
    }

    fn install(&mut self, scene: &Scene, leg: LegId, rule: &offload::rule::Rule) {
        let begun = self.engine.install(leg, rule);
        if scene.may_be_refused(leg.direction) {
            assert!(matches!(begun, Err(EngineError::Refused(_))), "{begun:?}: {rule:#?}");
            return;
        }
        begun.unwrap_or_else(|error| panic!("{error}: {rule:#?}"));
        assert_eq!(self.pass(), [Completion::Installed(leg)]);
        self.offloaded[leg.direction as usize] = true;
    }

    /// A tenth of a second passes; what has completed.
    fn pass(&mut self) -> Vec<Completion> {
        let mut completions = Vec::with_capacity(8);
        for _ in 0..10 {
            self.engine.push();
            self.now += 10_000_000;
            self.engine.set_now(self.now);
            self.engine.pull(&mut completions);
        }
        completions
    }

    fn receive(&mut self, direction: Direction, frame: &[u8]) -> Doors {
        let packet = TestPacket::new(PortId(direction as u16), frame);
        let mut burst: Burst<TestPacket> = [packet].into_iter().collect();
        let mut doors = Doors::default();
        self.engine.forward(direction as u16, false, &mut burst, &mut doors);
        doors
    }
}

fn scenes() -> impl Strategy<Value = Scene> {
    let tag = || prop_oneof![Just(None), Just(Some(10)), Just(Some(20))];
    let device = prop_oneof![
        Just(("bf2-sws", Steering::Software)),
        Just(("bf3-hws", Steering::Hardware)),
        Just(("ideal", Steering::Software)),
        Just(("ideal", Steering::Hardware)),
    ];
    let ways = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let tunnel = prop_oneof![Just(None), tunnels().prop_map(Some)];
    let outside = (any::<bool>(), any::<bool>()).prop_map(|(geneve, v6)| Inlet { geneve, v6 });
    let tunnels = (tunnel, prop::option::of(outside));
    (ways, prop_oneof![Just(80), Just(8080)], [tag(), tag()], device, tunnels).prop_map(
        |((v6, udp, nat, hairpin, bump), backend_port, tags, device, (tunnel, outside))| {
            let hairpin = hairpin && device.1 == Steering::Software;
            let outside = outside.filter(|_| tunnel.is_none());
            let (hairpin, bump) = (hairpin && outside.is_none(), bump && outside.is_none());
            let nat = nat && tunnel.is_none();
            let backend_port = if nat { backend_port } else { 80 };
            Scene { v6, udp, nat, backend_port, tags, device, hairpin, bump, tunnel, outside }
        },
    )
}

fn tunnels() -> impl Strategy<Value = Tunnel> {
    let kind = prop_oneof![Just("ipip"), Just("gue"), Just("vxlan"), Just("geneve")];
    (kind, any::<bool>(), prop::option::of(0..64_u8)).prop_map(|(kind, v6, dscp)| Tunnel { kind, v6, dscp })
}

/// How a packet differs from a plain one of the connection.
#[derive(Clone, Debug)]
enum Twist {
    /// Not at all; hardware must take it.
    Plain,
    /// IPv4 options, or a hop-by-hop header: hardware may take it.
    Options(u8),
    /// A SYN, FIN or RST, whatever else.
    Control(u8),
    Ttl(u8),
    /// A traffic class; of it, only rules of tunnels want to know.
    Class(u8),
    Fragment(Fragment),
    /// Another client's port.
    Port(u16),
    /// Another station's frame.
    Mac,
    /// Tags that the port's frames do not have.
    Tags(Vec<(u16, u16)>),
    /// What is around it is another tunnel's, or none's.
    Shell(Shell),
}

/// How what is around a packet differs from its tunnel's.
#[derive(Clone, Copy, Debug)]
enum Shell {
    Network,
    Remote,
    Own,
    Station,
    Port,
    /// GENEVE with an option; VXLAN has none.
    Options,
}

/// Makes what is around a packet another tunnel's; whether it has changed.
fn shelled(scene: &Scene, mut frame: Frame, shell: Shell) -> (Frame, bool) {
    let other = scene.end("10.0.0.77", "fd00:1::77", 0).0;
    match shell {
        _ if frame.payload.len() < 8 || scene.outside.is_none() => return (frame, false),
        Shell::Network => frame.payload[6] = 10,
        Shell::Remote | Shell::Own if other.is_v4() != frame.src.0.is_v4() => return (frame, false),
        Shell::Remote => frame.src.0 = other,
        Shell::Own => frame.dst.0 = other,
        Shell::Station => frame.dst_mac = MacAddr([2, 0, 0, 0, 7, 7]),
        Shell::Port => frame.dst.1 += 1,
        Shell::Options if scene.outside.is_some_and(|outside| outside.geneve) => {
            frame.payload[0] = 1;
            frame.payload.splice(8..8, [0, 1, 0, 0]);
        }
        Shell::Options => return (frame, false),
    }
    (frame, true)
}

fn twists() -> impl Strategy<Value = Twist> {
    let shells = prop_oneof![
        Just(Shell::Network),
        Just(Shell::Remote),
        Just(Shell::Own),
        Just(Shell::Station),
        Just(Shell::Port),
        Just(Shell::Options)
    ];
    let tags = prop::collection::vec((prop_oneof![Just(0x8100), Just(0x88a8)], 9..22_u16), 0..3);
    prop_oneof![
        6 => Just(Twist::Plain),
        1 => (1..4_u8).prop_map(Twist::Options),
        2 => (1..64_u8).prop_filter("a control flag", |flags| flags & CONTROL != 0).prop_map(Twist::Control),
        1 => (0..4_u8).prop_map(Twist::Ttl),
        2 => any::<u8>().prop_map(Twist::Class),
        1 => prop_oneof![Just(Fragment::First), Just(Fragment::Later)].prop_map(Twist::Fragment),
        1 => (1..=u16::MAX).prop_map(Twist::Port),
        1 => Just(Twist::Mac),
        1 => tags.prop_map(Twist::Tags),
        1 => shells.prop_map(Twist::Shell),
    ]
}

fn twisted(plain: Frame, twist: &Twist) -> Frame {
    match *twist {
        Twist::Plain | Twist::Shell(_) => plain,
        Twist::Options(options) => Frame { options, ..plain },
        Twist::Control(flags) => Frame { flags, ..plain },
        Twist::Ttl(ttl) => Frame { ttl, ..plain },
        Twist::Class(class) => Frame { class, ..plain },
        Twist::Fragment(fragment) => Frame { fragment, ..plain },
        Twist::Port(port) => Frame { src: (plain.src.0, port), ..plain },
        Twist::Mac => Frame { dst_mac: MacAddr([2, 0, 0, 0, 7, 7]), ..plain },
        Twist::Tags(ref tags) => Frame { tags: tags.clone(), ..plain },
    }
}

/// Whether a packet's traffic class is one that a rule's headers are for: without a mark of congestion, and
/// if they bear the packet's own, that of the packet that the connection was asked for with.
fn has_class(scene: &Scene, direction: Direction, class: u8) -> bool {
    if scene.outside.is_some() {
        // Out of a tunnel comes what was not marked there; into one goes what cannot be.
        return if direction == Direction::Original { class & 1 == 0 } else { class == 0 };
    }
    match &scene.tunnel {
        None => true,
        Some(Tunnel { dscp: None, .. }) => class == 0,
        Some(Tunnel { dscp: Some(_), .. }) => class & 3 == 0,
    }
}

/// Whether hardware is to take a packet; `None` if it may.
fn expected(scene: &Scene, offloaded: bool, direction: Direction, frame: &Frame) -> Option<bool> {
    let plain = scene.packet(direction);
    let own = offloaded
        && frame.ttl > 1
        && frame.fragment == Fragment::None
        && has_class(scene, direction, frame.class)
        && (scene.udp || frame.flags & CONTROL == 0)
        && (frame.dst_mac == plain.dst_mac || scene.bump && direction == Direction::Reply)
        && (frame.src, &frame.tags) == (plain.src, &plain.tags);
    if own && frame.options > 0 { None } else { Some(own) }
}

/// A packet of either direction, and its particulars.
type Packet = (bool, Twist, Vec<u8>, Option<u16>, u8, u8);

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    let checksum = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => any::<u16>().prop_map(Some)];
    let packet = (any::<bool>(), twists(), payload, checksum, 0..8_u8, 0x08..64_u8);
    prop::collection::vec(packet, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn hardware_does_as_the_worker_does(scene in scenes(), packets in packets()) {
        let mut software = Software::new(&scene);
        let ask = software.outside.asked.first().copied().expect("the worker asks once it is established");
        let mut device = Device::new(&scene, &ask);
        for (reply, twist, payload, checksum, padding, flags) in packets {
            let direction = if reply && scene.nat { Direction::Reply } else { Direction::Original };
            // What fills a frame up goes into a tunnel of hardware's, but not into one of software's.
            let padding = if scene.tunnel.is_some() || scene.outside.is_some() { 0 } else { padding };
            let plain = Frame { payload, checksum, padding, flags: flags & !CONTROL, ..scene.packet(direction) };
            let frame = twisted(plain, &twist);
            if scene.is_excused(direction, &frame) {
                continue;
            }
            let mut wire = scene.on_wire(direction, frame.clone());
            let mut foreign = false;
            if let (Twist::Shell(shell), Direction::Original) = (&twist, direction) {
                (wire, foreign) = shelled(&scene, wire, *shell);
            }
            let bytes = wire.bytes();
            let doors = device.receive(direction, &bytes);
            let taken = doors.missed.is_empty();
            if !taken {
                prop_assert_eq!(&doors.missed[..], std::slice::from_ref(&bytes), "software gets it as it came");
            }
            let offloaded = device.offloaded[direction as usize] && !foreign;
            if let Some(expected) = expected(&scene, offloaded, direction, &frame) {
                prop_assert_eq!(taken, expected, "{:?} {:?}: {:?}", direction, twist, frame);
            }
            if taken {
                let [by_hardware, by_software] =
                    [doors.wire, software.receive(direction, &bytes)].map(|sent| scene.comparable(sent));
                prop_assert_eq!(by_hardware, by_software, "{:?}", frame);
            }
        }
    }
}
