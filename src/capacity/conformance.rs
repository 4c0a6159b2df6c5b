//! Conformance: one policy on several profiles. Golden packets go through each device's model, the machine
//! and the walk, and through the walk alone; what leaves is the same, byte for byte. Plans are not: what
//! hardware takes of it, and what comes first, differs.

use super::judge;
use super::stage::{Device, Rehearsal, Scene};
use super::traffic::{Load, Traffic};
use crate::trace::{self, Packet};
use dataplane::addr::Ip;
use dataplane::config::Config;
use dataplane::ids::{PortId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Ask, Revoke};
use dataplane::packet::{Burst, PacketBuf, TestPacket};
use dataplane::snapshot::{Overrides, Snapshot};
use dataplane::worker::Env;
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Fabric, RxMeta};
use eswitch::model::types::Vport;
use std::net::IpAddr;
use std::sync::Arc;

const FRONT: PortId = PortId(0);
const BACK: PortId = PortId(1);
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;
const FIN_ACK: u8 = 0x11;

const CONFIG: &str = r#"
[workers]
cores = [1]
[offload]
rules_max = 4096
[[port]]
name = "front"
device = "net_eswitch0"
addresses = ["10.0.0.1/24", "fd00:1::1/64"]
gateway = "10.0.0.254"
gateway6 = "fd00:1::fe"
faces = "clients"
[[port]]
name = "back"
device = "net_eswitch0_representor_vf65535"
addresses = ["10.0.1.1/24", "fd00:2::1/64"]
faces = "backends"
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
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
[[service.backend]]
address = "10.0.1.12"
[[policy]]
name = "attackers"
action = "deny"
from = ["198.51.100.66/32"LATER]
[[policy]]
name = "offices"
action = "allow"
direction = "ingress"
from = ["198.51.100.0/24", "2001:db8:ffff::/48"]
[[policy_default]]
ingress = "reject"
egress = "deny"
"#;

fn config(later: &str) -> Config {
    Config::parse("conformance", &CONFIG.replace("LATER", later)).unwrap_or_else(|faults| panic!("{faults}"))
}

/// What the worker has around it, and where packets leave the device.
#[derive(Default)]
struct Around {
    sent: Vec<(PortId, Vec<u8>)>,
    missed: bool,
    asks: Vec<Ask>,
    revokes: Vec<Revoke>,
}

impl Env for Around {
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
        self.asks.push(*ask);
        true
    }

    fn revoke(&mut self, revoke: &Revoke) -> bool {
        self.revokes.push(*revoke);
        true
    }
}

impl Fabric<TestPacket> for Around {
    fn transmit(&mut self, to: Vport, packet: TestPacket) {
        self.sent.push((PortId(to.0), packet.data().to_vec()));
    }

    fn receive(&mut self, _: Vport, _: RxMeta, _: TestPacket) {
        self.missed = true;
    }

    fn copy(&mut self, _: &TestPacket) -> Option<TestPacket> {
        None
    }

    fn discard(&mut self, reason: DropReason, _: TestPacket) {
        panic!("dropped by the device: {reason:?}");
    }
}

/// Frames, and the ports that they left by.
type Frames = Vec<(PortId, Vec<u8>)>;

/// A whole Millrace, with a device or without.
struct World {
    walk: Rehearsal,
    device: Option<Device>,
    around: Around,
    snapshot: Arc<Snapshot>,
    /// Packets that the device forwarded, by service.
    by_hardware: Vec<u32>,
    /// What each packet was, and what left for it.
    outcomes: Vec<(&'static str, Frames)>,
}

impl World {
    fn new(config: &Config, profile: Option<&Profile>) -> World {
        let ideal = Profile::named("ideal").expect("a built-in profile");
        let scene = Scene::new(config, profile.unwrap_or(&ideal)).expect("a scene");
        let device = profile.map(|profile| scene.device(config, profile, 4096).expect("a device"));
        let mut walk = Rehearsal::new(&config.limits, &scene, scene.counters());
        walk.worker.set_price(if device.is_some() { 4 } else { u32::MAX });
        scene.snapshot.next_hops().iter().for_each(|hop| walk.introduce(*hop));
        let snapshot = Arc::clone(&scene.snapshot);
        let (by_hardware, outcomes) = (vec![0; config.services.len()], Vec::new());
        World { walk, device, around: Around::default(), snapshot, by_hardware, outcomes }
    }

    /// Partitions get their rules.
    fn put_partitions_in(&mut self) {
        if let Some(device) = &mut self.device {
            device.put_partitions_in(&self.snapshot);
        }
    }

    /// A packet comes in from a wire. What leaves is written down.
    fn packet(&mut self, what: &'static str, service: usize, at: PortId, packet: &Packet) {
        let frame = packet.frame(self.snapshot.port(at).expect("a port"));
        let burst = || [TestPacket::new(at, &frame)].into_iter().collect::<Burst<TestPacket>>();
        let mut taken = false;
        if let Some(device) = &mut self.device {
            self.around.missed = false;
            device.engine.forward(at.0, false, &mut burst(), &mut self.around);
            taken = !self.around.missed;
            self.by_hardware[service] += u32::from(taken);
        }
        if !taken {
            self.walk.worker.on_burst(self.walk.now, &mut burst(), &mut self.around);
        }
        self.outcomes.push((what, std::mem::take(&mut self.around.sent)));
        self.pass(5);
    }

    /// So many milliseconds pass: the machine has its turns, and the worker hears what became of its wishes.
    fn pass(&mut self, ms: u32) {
        self.walk.now = self.walk.now.after_ms(ms);
        if let Some(device) = &mut self.device {
            self.around.asks.drain(..).for_each(|ask| device.machine.ask(device.now_ns, &ask));
            self.around.revokes.drain(..).for_each(|revoke| device.machine.revoke(device.now_ns, &revoke));
            let until = device.now_ns + u64::from(ms) * 1_000_000;
            while device.now_ns < until {
                device.turn();
            }
            for answer in std::mem::take(&mut device.told.answers) {
                self.walk.worker.on_answer(self.walk.now, &answer, &mut self.around);
            }
        }
        self.walk.worker.on_tick(self.walk.now, &mut self.around);
        self.around.sent.clear();
    }

    /// Another policy comes into force.
    fn adopt(&mut self, config: &Config) {
        let facts = trace::assumed_facts(config);
        let before = &*self.snapshot;
        let next = Snapshot::build(config, &facts, &Overrides::default(), Some(before), &|_| 1);
        self.snapshot = Arc::new(next.expect("a snapshot"));
        if let Some(device) = &mut self.device {
            device.machine.adopt(device.now_ns, Arc::clone(&self.snapshot));
        }
        self.walk.worker.adopt(self.walk.now, Arc::clone(&self.snapshot), &mut self.around);
        (0..40).for_each(|_| self.pass(50));
    }

    /// An exchange between a client and a backend of a service, opened and then used.
    fn exchange(&mut self, service: usize, [client, vip, backend]: [(Ip, u16); 3], tcp: bool) {
        let flags = |flags| tcp.then_some(flags);
        let (there, back) =
            (|f| Packet::sample(client, vip, flags(f)), |f| Packet::sample(backend, client, flags(f)));
        self.packet("opens", service, FRONT, &there(SYN));
        self.packet("accepts", service, BACK, &back(SYN_ACK));
        for _ in 0..8 {
            self.packet("data there", service, FRONT, &there(ACK));
            self.packet("data back", service, BACK, &back(ACK));
        }
    }
}

fn end(ip: &str, port: u16) -> (Ip, u16) {
    let ip: IpAddr = ip.parse().expect("an address");
    (ip.into(), port)
}

/// The golden packets.
fn play(world: &mut World) {
    let office = end("198.51.100.7", 40_000);
    let (vip, server) = (end("192.0.2.80", 80), end("10.0.1.11", 8080));
    let v6 = [end("2001:db8:ffff::7", 40_000), end("2001:db8::80", 80), end("fd00:2::11", 8080)];
    let (resolver, name_server) = (end("192.0.2.53", 53), end("10.0.1.12", 53));
    world.exchange(0, [office, vip, server], true);
    world.exchange(1, v6, true);
    world.exchange(2, [office, resolver, name_server], false);
    for (what, client) in [("denied", "198.51.100.66"), ("rejected", "203.0.113.9")] {
        let client = end(client, 40_000);
        world.packet(what, 0, FRONT, &Packet::sample(client, vip, Some(SYN)));
        world.packet(what, 0, FRONT, &Packet::sample(client, vip, Some(ACK)));
        world.packet(what, 2, FRONT, &Packet::sample(client, resolver, None));
    }
    let expiring = Packet::sample(office, vip, Some(ACK)).with_ttl(1);
    world.packet("expires", 0, FRONT, &expiring);
    // The office's client is denied from now on, in the middle of its connections; the other goes on.
    world.adopt(&config(", \"198.51.100.7/32\""));
    for _ in 0..3 {
        world.packet("denied since", 0, FRONT, &Packet::sample(office, vip, Some(ACK)));
        world.packet("denied since", 0, BACK, &Packet::sample(server, office, Some(ACK)));
        world.packet("denied since", 2, FRONT, &Packet::sample(office, resolver, None));
        world.packet("goes on", 1, FRONT, &Packet::sample(v6[0], v6[1], Some(ACK)));
        world.packet("goes on", 1, BACK, &Packet::sample(v6[2], v6[0], Some(ACK)));
    }
    world.packet("closes", 1, FRONT, &Packet::sample(v6[0], v6[1], Some(FIN_ACK)));
    world.packet("closes", 1, BACK, &Packet::sample(v6[2], v6[0], Some(FIN_ACK)));
    world.packet("closes", 1, FRONT, &Packet::sample(v6[0], v6[1], Some(ACK)));
}

fn traffic(config: &Config) -> Traffic {
    let load = |service: &dataplane::config::Service| Load {
        service: service.name.clone(),
        connections: 500.0,
        new_per_second: 100.0,
        packets_per_second: 100.0,
        frame_bytes: 60,
        handshake_ms: 20.0,
        unanswered_per_second: 0.0,
        client: None,
    };
    Traffic { services: config.services.iter().map(load).collect(), said: Vec::new(), entries: false }
}

#[test]
fn one_policy_has_the_same_verdicts_and_different_plans() {
    let config = config("");
    let mut software = World::new(&config, None);
    play(&mut software);
    let sent = |what: &str| {
        let of_kind = software.outcomes.iter().filter(|(kind, _)| *kind == what);
        of_kind.map(|(_, frames)| frames.len()).collect::<Vec<_>>()
    };
    assert_eq!((sent("data there"), sent("goes on")), (vec![1; 24], vec![1; 6]), "the walk alone forwards");
    assert_eq!((sent("denied"), sent("denied since")), (vec![0; 3], vec![0; 9]), "and drops");
    assert!(sent("rejected").iter().all(|frames| *frames == 1), "and answers: {:?}", sent("rejected"));
    let mut plans = Vec::new();
    for profile in profiles() {
        let mut world = World::new(&config, Some(&profile));
        play(&mut world);
        assert_alike(&world, &software, &profile);
        let plan = judge(&config, &profile, &traffic(&config)).unwrap_or_else(|failure| panic!("{failure}"));
        let planned: Vec<bool> = plan.services.iter().map(|row| row.verdict == "hardware").collect();
        let forwarded: Vec<bool> = world.by_hardware.iter().map(|packets| *packets > 0).collect();
        assert_eq!(planned, forwarded, "{}: {:#?}", profile.name, plan.services);
        plans.push(plan);
    }
    for (at, plan) in plans.iter().enumerate() {
        let other = plans[..at]
            .iter()
            .find(|other| (&other.limits, &other.services) == (&plan.limits, &plan.services));
        assert!(other.is_none(), "{} has the plan of {:?}", plan.profile, other.map(|other| &other.profile));
    }
}

/// What left the device and the walk behind it is what leaves the walk alone.
#[track_caller]
fn assert_alike(world: &World, software: &World, profile: &Profile) {
    for (by_device, by_walk) in world.outcomes.iter().zip(&software.outcomes) {
        assert_eq!(by_device, by_walk, "{}", profile.name);
    }
    assert_eq!(world.outcomes.len(), software.outcomes.len());
}

/// Services by source partition, the second backend of each or not, and what else there is.
fn parted(second: bool, more: &str) -> Config {
    let ports = &CONFIG[..CONFIG.find("[[service]]").expect("services")];
    let backend = |address: &str| format!("[[service.backend]]\naddress = \"{address}\"\n");
    let service = |name: &str, vip: &str, [first, other, third]: [&str; 3]| {
        let other = if second { backend(other) } else { String::new() };
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"udp\"\nports = [53]\nmode = \"dsr\"\n\
             scheduler = \"source-partition\"\npartitions = 16\n{}{other}{}",
            backend(first),
            backend(third)
        )
    };
    let v4 = service("dns", "192.0.2.53", ["10.0.1.12", "10.0.1.13", "10.0.1.14"]);
    let v6 = service("dns6", "2001:db8::53", ["fd00:2::12", "fd00:2::13", "fd00:2::14"]);
    Config::parse("conformance", &format!("{ports}{v4}{v6}{more}"))
        .unwrap_or_else(|faults| panic!("{faults}"))
}

/// A question from two clients of each partition, of either family.
fn ask_all(world: &mut World, what: &'static str) {
    for host in 1..=32 {
        let clients = [format!("198.51.100.{host}"), format!("2001:db8:ffff::{host:x}")];
        for (service, (client, vip)) in clients.iter().zip(["192.0.2.53", "2001:db8::53"]).enumerate() {
            world.packet(what, service, FRONT, &Packet::sample(end(client, 40_000), end(vip, 53), None));
        }
    }
}

#[test]
fn partitions_have_the_same_backends_in_hardware_and_in_software() {
    let policy = "[[policy]]\naction = \"deny\"\nfrom = [\"198.51.100.7/32\"]\n";
    let begin = parted(true, "");
    let play = |world: &mut World| {
        world.put_partitions_in();
        ask_all(world, "asks");
        let asked = std::mem::replace(&mut world.by_hardware, vec![0; 2]);
        let question = Packet::sample(end("198.51.100.7", 40_000), end("192.0.2.53", 53), None);
        world.packet("expires", 0, FRONT, &question.with_ttl(1));
        assert_eq!(world.by_hardware, [0, 0], "hardware does not answer what expires");
        world.adopt(&parted(false, ""));
        world.put_partitions_in();
        ask_all(world, "asks two");
        let again = std::mem::replace(&mut world.by_hardware, vec![0; 2]);
        world.adopt(&parted(false, policy));
        ask_all(world, "asks under a policy");
        [asked, again, world.by_hardware.clone()]
    };
    let mut software = World::new(&begin, None);
    play(&mut software);
    let reached = |what: &str| {
        let of_kind = software.outcomes.iter().filter(|(kind, _)| *kind == what);
        of_kind
            .flat_map(|(_, frames)| frames.iter().map(|(_, frame)| frame[..6].to_vec()))
            .collect::<Vec<_>>()
    };
    let backends = |what: &str| reached(what).into_iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!((reached("asks").len(), backends("asks")), (64, 6), "of the walk alone");
    assert_eq!((reached("asks two").len(), backends("asks two")), (64, 4));
    assert_eq!(reached("asks under a policy").len(), 63);
    for profile in profiles() {
        let mut world = World::new(&begin, Some(&profile));
        let by_hardware = play(&mut world);
        assert_alike(&world, &software, &profile);
        let plan = judge(&begin, &profile, &traffic(&begin)).unwrap_or_else(|failure| panic!("{failure}"));
        let planned = plan.services.iter().map(|row| if row.verdict == "hardware" { 32 } else { 0 });
        let planned: Vec<u32> = planned.collect();
        assert!(planned.contains(&32), "{}: {:#?}", profile.name, plan.services);
        assert_eq!(by_hardware, [planned.clone(), planned, vec![0, 0]], "{}", profile.name);
    }
}

/// Devices that differ in what they take.
fn profiles() -> [Profile; 4] {
    let older = Profile { name: "older".into(), ipv6_five_tuple: false, ..named("bf3-hws") };
    [named("bf2-sws"), named("bf3-hws"), named("bf3-xenoflow"), older]
}

fn named(name: &str) -> Profile {
    Profile::named(name).expect("a built-in profile")
}
