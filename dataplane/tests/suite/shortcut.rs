//! What the shortcut for plain packets does is what the rest of the walk does. The same happens to two
//! worlds, one of which gets its frames with a tag that says no more than a priority: that counts as none,
//! but no frame that has one is plain. Whatever can be seen of the two is the same.

use crate::common::rules::{everything, from, from_port, policy, rule};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use crate::frames::{Spec, Transport, ip, repair_ipv4};
use dataplane::addr::MacAddr;
use dataplane::conntrack::Count;
use dataplane::ids::PortId;
use dataplane::offload::{Answer, Ask, Declined, Removal, RuleId};
use dataplane::policy::Action::{Allow, Deny, Reject};
use dataplane::policy::{Matches, Opening, Source, Statement};
use dataplane::snapshot::VlanTags;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What services are like: protocol, VIP and port, how it forwards, and its backends.
type Service = (&'static str, &'static str, u16, &'static str, &'static [(&'static str, u16)]);

const SERVICES: [Service; 9] = [
    ("tcp", "192.0.2.80", 80, "mode = \"nat\"", &[("10.0.1.11", 8080), ("10.0.1.12", 8080)]),
    ("tcp", "192.0.2.81", 80, "mode = \"dsr\"", &[("10.0.0.11", 80)]),
    ("tcp", "2001:db8::80", 80, "mode = \"nat\"", &[("fd00:2::11", 8080)]),
    ("udp", "192.0.2.44", 443, "mode = \"nat\"", &[("10.0.1.12", 443), ("10.0.1.13", 443)]),
    ("tcp", "192.0.2.82", 80, "mode = \"nat\"", &[("10.0.0.12", 8080)]), // one arm
    ("udp", "192.0.2.53", 53, "mode = \"nat\"\naffinity = \"none\"", &[("10.0.1.11", 53)]),
    ("udp", "2001:db8::44", 443, "mode = \"nat\"", &[("fd00:2::11", 443)]),
    ("tcp", "192.0.2.90", 80, "mode = \"ipip\"", &[("10.0.1.11", 80), ("10.0.1.12", 80)]),
    ("udp", "2001:db8::90", 443, VXLAN, &[("10.0.1.11", 443)]),
];

const VXLAN: &str = "mode = \"vxlan\"\ntunnel = { vni = 7, inner_mac = \"02:00:00:00:00:77\" }";

/// Behind the gateway, on either link, and where nobody can be.
const CLIENTS: [[&str; 2]; 6] = [
    ["198.51.100.7", "2001:db8:1::7"],
    ["10.0.0.77", "fd00:1::77"],
    ["10.0.1.77", "fd00:2::77"],
    ["224.0.0.9", "ff02::9"],
    ["127.0.0.1", "::1"],
    ["192.0.2.80", "fe80::77"],
];

const NEIGHBOURS: [(PortId, &str); 11] = [
    (FRONT, "10.0.0.254"),
    (FRONT, "fd00:1::fe"),
    (FRONT, "10.0.0.11"),
    (FRONT, "10.0.0.12"),
    (FRONT, "10.0.0.77"),
    (BACK, "10.0.1.11"),
    (BACK, "10.0.1.12"),
    (BACK, "10.0.1.77"),
    (BACK, "fd00:2::11"),
    (GUESTS_FRONT, "10.0.0.254"),
    (GUESTS_BACK, "10.0.1.11"),
];

/// The VLAN of a port that wants it, and the one of a tenant with ports on both devices.
const VID: u16 = 7;
const GUESTS: u16 = 9;
/// The tenant's ports: behind those with devices.
const GUESTS_FRONT: PortId = PortId(2);
const GUESTS_BACK: PortId = PortId(3);

fn config(front: &str, back: &str, of_services: &str, backends: std::ops::Range<usize>) -> String {
    let mut text = format!(
        "[limits]\nconnections = 64\nhalf_open_percent = 10\nneighbours = 32\nneighbour_queue = 2\n\
         [timeouts]\ntcp_established_s = 30\n\
         [[port]]\nname = \"front\"\ndevice = \"d0\"\naddresses = [\"10.0.0.1/24\", \"fd00:1::1/64\"]\n\
         gateway = \"10.0.0.254\"\ngateway6 = \"fd00:1::fe\"\n{front}\n\
         [[port]]\nname = \"back\"\ndevice = \"d1\"\naddresses = [\"10.0.1.1/24\", \"fd00:2::1/64\"]\n{back}\n"
    );
    text += &guests(of_services);
    for (n, (protocol, vip, port, mode, servers)) in SERVICES.into_iter().enumerate() {
        text += &format!(
            "[[service]]\nname = \"s{n}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nports = [{port}]\n\
             {mode}\n{of_services}\n"
        );
        for (address, port) in servers.get(backends.clone()).unwrap_or(&servers[..1]) {
            let address = if address.contains(':') { format!("[{address}]") } else { (*address).to_owned() };
            let port = if mode.contains("nat") { format!(":{port}") } else { String::new() };
            text += &format!("[[service.backend]]\naddress = \"{address}{port}\"\n");
        }
    }
    text
}

/// A tenant with addresses, a service and a backend like those of the others, few connections, and tags.
fn guests(of_services: &str) -> String {
    let mut text = "[[tenant]]\nname = \"guests\"\nconnections = 3\n".to_owned();
    for (side, addresses, gateway) in
        [("front", "10.0.0.1/24", "gateway = \"10.0.0.254\""), ("back", "10.0.1.1/24", "")]
    {
        text += &format!(
            "[[port]]\nname = \"guests-{side}\"\nparent = \"{side}\"\ntenant = \"guests\"\n\
             vlan = {GUESTS}\naddresses = [\"{addresses}\"]\n{gateway}\n"
        );
    }
    text + &format!(
        "[[service]]\nname = \"guests\"\ntenant = \"guests\"\nvip = \"192.0.2.80\"\nprotocol = \"tcp\"\n\
         ports = [80]\n{of_services}\n[[service.backend]]\naddress = \"10.0.1.11:8080\"\n"
    )
}

fn configs() -> [String; 9] {
    [
        config("", "", "", 0..2),
        config("", "", "", 1..2),
        config("", "", "on_remove = \"reset\"", 0..1),
        config("", "", "offload = false", 0..2),
        config("", "pass_to = \"front\"", "", 0..2),
        config("", &format!("vlan = {VID}"), "", 0..2),
        config("", "mtu = 1280", "", 0..2),
        config(
            "",
            "",
            "limit = { packets_per_second = 1, excess_ms = 10, yellow_dscp = 10, connections = 9 }",
            0..2,
        ),
        config(
            "",
            "[[port.neighbour]]\naddress = \"10.0.1.11\"\nmac = \"02:00:00:00:07:07\"\n",
            "on_remove = \"reset\"",
            0..2,
        ),
    ]
}

fn policies() -> [Source; 6] {
    let midstream = Matches { opening: Some(Opening::Midstream), ..everything() };
    let logged = Statement { log: true, ..rule(Reject, from_port(5555)) };
    [
        Source::default(),
        policy([rule(Deny, from("198.51.100.7/32"))], Allow),
        policy([rule(Reject, midstream)], Allow),
        policy([logged], Allow),
        policy([rule(Allow, from_port(5556)), rule(Deny, from("2001:db8:1::/48"))], Reject),
        policy([rule(Allow, from("198.51.100.7/32"))], Allow),
    ]
}

/// A frame of a connection, or nearly so.
#[derive(Clone, Debug)]
struct Said {
    service: usize,
    backend: usize,
    client: usize,
    client_port: u16,
    reply: bool,
    flags: u8,
    len: usize,
    ttl: u8,
    padding: usize,
    twist: Twist,
}

#[derive(Clone, Debug)]
enum Twist {
    None,
    /// UDP without a checksum.
    NoChecksum,
    /// Words of IPv4 options, or an extension header.
    Options,
    Tagged(u16),
    /// In two halves, the later one first or last.
    Fragments(bool),
    /// To another station, from ourselves.
    Stations(bool, bool),
    /// Some bytes changed, and the header's checksum put right.
    Changed(Vec<(usize, u8)>, bool),
    Cut(usize),
}

fn said() -> impl Strategy<Value = Said> {
    let flags = prop_oneof![12 => Just(0x10u8), 3 => Just(0x18), 3 => Just(0x02), 2 => Just(0x12),
        1 => Just(0x11), 1 => Just(0x04), 1 => any::<u8>()];
    let client = prop_oneof![20 => 0usize..2, 3 => 2usize..CLIENTS.len()];
    let len = prop_oneof![10 => 0usize..40, 1 => 1200usize..1260];
    let ttl = prop_oneof![10 => Just(64u8), 1 => 0u8..3];
    let changes = prop::collection::vec((0usize..80, any::<u8>()), 1..3);
    let twist = prop_oneof![
        24 => Just(Twist::None),
        2 => Just(Twist::NoChecksum),
        1 => Just(Twist::Options),
        1 => prop_oneof![Just(VID), Just(0)].prop_map(Twist::Tagged),
        3 => Just(Twist::Tagged(GUESTS)),
        2 => any::<bool>().prop_map(Twist::Fragments),
        1 => any::<(bool, bool)>().prop_map(|(to, from)| Twist::Stations(to, from)),
        3 => (changes, any::<bool>()).prop_map(|(changes, repair)| Twist::Changed(changes, repair)),
        1 => (0usize..80).prop_map(Twist::Cut),
    ];
    (
        (0..SERVICES.len(), 0usize..2, client, 5555u16..5557, any::<bool>()),
        (flags, len, ttl, prop_oneof![0usize..1, 0usize..20], twist),
    )
        .prop_map(
            |((service, backend, client, client_port, reply), (flags, len, ttl, padding, twist))| Said {
                service,
                backend,
                client,
                client_port,
                reply,
                flags,
                len,
                ttl,
                padding,
                twist,
            },
        )
}

impl Said {
    /// The frame (or its fragments), and the port that it comes in by.
    fn frames(&self, tagged_back: bool) -> (PortId, Vec<Vec<u8>>) {
        let (protocol, vip, vip_port, _, backends) = SERVICES[self.service];
        let (backend, backend_port) = backends[self.backend % backends.len()];
        let client = CLIENTS[self.client][usize::from(vip.contains(':'))];
        let port = if self.reply && !backend.starts_with("10.0.0.") { BACK } else { FRONT };
        let (src, src_port, dst, dst_port) = if self.reply {
            (backend, backend_port, client, self.client_port)
        } else {
            (client, self.client_port, vip, vip_port)
        };
        let transport = match protocol {
            "tcp" => Transport::Tcp { flags: self.flags, seq: 1, ack: 2, options: vec![] },
            _ => Transport::Udp { checksum: !matches!(self.twist, Twist::NoChecksum) },
        };
        let inner = match self.twist {
            Twist::Tagged(vid) => Some(vid),
            _ => (port == BACK && tagged_back).then_some(VID),
        };
        let options = matches!(self.twist, Twist::Options);
        let spec = Spec {
            tags: VlanTags { outer: None, inner },
            src_port,
            dst_port,
            ttl: self.ttl,
            option_words: usize::from(options),
            extensions: if options { vec![60] } else { vec![] },
            transport,
            payload: vec![0x61; self.len],
            padding: self.padding,
            ..Spec::tcp(src, dst)
        };
        let mut frames = vec![spec.build()];
        if let (Twist::Fragments(first), true, true) = (&self.twist, ip(dst).is_v4(), self.len >= 24) {
            let (head, tail) = spec.build_fragments(3);
            frames = if *first { vec![head, tail] } else { vec![tail, head] };
        }
        frames.iter_mut().for_each(|frame| self.spoil(frame, PORT_MACS[port.index()]));
        (port, frames)
    }

    fn spoil(&self, frame: &mut Vec<u8>, ours: MacAddr) {
        let other = MacAddr([2, 0, 0, 0, 9, 9]);
        let (to, from) = match self.twist {
            Twist::Stations(to_us, from_us) => {
                (if to_us { ours } else { other }, if from_us { ours } else { other })
            }
            _ => (ours, other),
        };
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&from.0);
        match &self.twist {
            Twist::Changed(changes, repair) => {
                for &(at, value) in changes {
                    let len = frame.len();
                    frame[at % len] = value;
                }
                if *repair && frame[12..14] == [8, 0] {
                    repair_ipv4(frame);
                }
            }
            Twist::Cut(len) => frame.truncate(*len),
            _ => {}
        }
    }
}

/// The same frame off the shortcut: with a tag of VLAN 0, if it has none.
fn tag(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() >= 14 && ![[0x81, 0], [0x88, 0xa8]].contains(&[frame[12], frame[13]]) {
        frame.splice(12..12, [0x81, 0, 0, 0]);
    }
    frame
}

/// What is passed on unchanged still has the tag.
fn untag(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.get(12..16) == Some(&[0x81, 0, 0, 0]) {
        frame.drain(12..16);
    }
    frame
}

#[derive(Clone, Debug)]
enum Event {
    /// Frames arrive in one burst, as far as they come by the same port.
    Burst(usize, Vec<Said>),
    Wait(u32),
    /// The buffer pool runs dry, or fills up again.
    Starve(bool),
    Reload(usize),
    /// Another policy, and a sweep by it or none yet.
    Govern(usize, bool),
    /// Connections are worth asking for from so many packets on, or not at all.
    Price(Option<u32>),
    /// The offload engine says something, by luck.
    Engine(u8),
    /// A neighbour has this address.
    Neighbour(usize, u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => (0usize..3, prop::collection::vec(said(), 1..12)).prop_map(|(at, said)| Event::Burst(at, said)),
        4 => prop_oneof![1u32..100, 100u32..40_000].prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Starve),
        2 => (0..configs().len()).prop_map(Event::Reload),
        3 => (0..policies().len(), any::<bool>()).prop_map(|(number, now)| Event::Govern(number, now)),
        1 => prop::option::of(0u32..6).prop_map(Event::Price),
        4 => any::<u8>().prop_map(Event::Engine),
        3 => (0..NEIGHBOURS.len(), 0u8..3).prop_map(|(who, mac)| Event::Neighbour(who, mac)),
    ]
}

/// Both worlds. The first may take the shortcut.
struct Pair {
    worlds: [World; 2],
    asks: Vec<Ask>,
    tagged_back: bool,
}

impl Pair {
    fn new(workers: usize) -> Pair {
        let world = || {
            let mut world = World::new(&configs()[0], workers);
            for (n, (port, ip)) in NEIGHBOURS.into_iter().enumerate() {
                world.know(port, ip, MacAddr([2, 0, 0, 0, 8, n as u8]));
            }
            world
        };
        Pair { worlds: [world(), world()], asks: Vec::new(), tagged_back: false }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Burst(worker, said) => self.burst(worker, &said),
            Event::Wait(ms) => self.both(|world| world.pass_ms(ms, ms.div_ceil(6))),
            Event::Starve(starve) => {
                self.both(|world| world.envs.iter_mut().for_each(|env| env.pool_empty = starve));
            }
            Event::Reload(number) => {
                self.tagged_back = number == 5;
                self.both(|world| world.reload(&configs()[number]));
            }
            Event::Govern(number, now) => self.both(|world| {
                world.publish(policies()[number].clone());
                // As the manager does: everybody has one before the next one comes.
                for worker in 0..world.workers.len() {
                    world.adopt(worker);
                }
                if now {
                    world.settle();
                }
            }),
            Event::Price(price) => {
                self.both(|world| world.workers[0].set_price(price.unwrap_or(u32::MAX)));
            }
            Event::Engine(luck) => self.engine(luck),
            Event::Neighbour(who, mac) => {
                let (port, ip) = NEIGHBOURS[who];
                self.both(|world| world.know(port, ip, MacAddr([2, 0, 0, 0, 8 + mac, who as u8])));
            }
        }
        self.compare();
    }

    /// Does something to both, and sees to it that it comes to the same.
    #[track_caller]
    fn both<T: PartialEq + std::fmt::Debug>(&mut self, mut act: impl FnMut(&mut World) -> T) {
        let [fast, slow] = self.worlds.each_mut().map(&mut act);
        assert_eq!(fast, slow);
    }

    fn burst(&mut self, worker: usize, said: &[Said]) {
        let frames: Vec<_> = said.iter().map(|said| said.frames(self.tagged_back)).collect();
        for port in [FRONT, BACK] {
            let of_port = frames.iter().filter(|(at, _)| *at == port);
            let plain: Vec<_> = of_port.flat_map(|(_, frames)| frames.clone()).collect();
            let tagged: Vec<_> = plain.iter().map(|frame| tag(frame)).collect();
            let mut of_each = [plain, tagged].into_iter();
            self.both(|world| {
                let worker = worker % world.workers.len();
                let sent = world.receive_on(worker, port, &of_each.next().unwrap_or_default());
                sent.into_iter().map(|(port, frame)| (port, untag(frame))).collect::<Vec<_>>()
            });
        }
    }

    /// The engine takes or refuses what was asked for, or reports about what it has, or gives it back.
    fn engine(&mut self, luck: u8) {
        let taken = self.worlds.each_mut().map(|world| std::mem::take(&mut world.envs[0].asks));
        assert_eq!(taken[0], taken[1]);
        let [asks, _] = taken;
        for ask in asks {
            let (flow, token) = (ask.flow, ask.token);
            let answer = match luck % 4 {
                0 => Answer::Declined { flow, token, reason: Declined::Budget, retry_ms: 100 },
                _ => Answer::Installed { flow, token, rule: RuleId(token.0) },
            };
            self.both(|world| world.answer(&answer));
            self.asks.push(ask);
        }
        let Some(ask) = self.asks.get(usize::from(luck) % self.asks.len().max(1)) else { return };
        let (flow, rule, counts) = (ask.flow, RuleId(ask.token.0), [Count { packets: 1, bytes: 99 }; 2]);
        let next_hops = ask.legs.map(|leg| leg.map(|leg| leg.next_hop));
        let answer = match luck / 16 % 4 {
            0 => Answer::Removed { flow, rule, why: Removal::Idle, retry_ms: 0 },
            _ => Answer::Counted {
                flow,
                rule: Some(rule),
                backend: ask.backend,
                counts,
                next_hops,
                below: None,
            },
        };
        self.both(|world| world.answer(&answer));
    }

    /// Whatever can be seen of the two worlds is the same. Who looks at a packet may differ: only a close
    /// look finds out before it is handed to another worker that it goes nowhere.
    fn compare(&mut self) {
        self.both(|world| {
            let counted = world.report().into_iter().filter(|line| !line.starts_with("handed"));
            let told =
                (std::mem::take(&mut world.envs[0].revokes), std::mem::take(&mut world.envs[0].logged));
            (counted.collect::<Vec<_>>(), connections(world), told)
        });
        self.both(|world| {
            world
                .workers
                .iter()
                .map(|worker| {
                    let mut rows = Vec::with_capacity(64);
                    worker.dump_neighbours(&mut rows);
                    rows
                })
                .collect::<Vec<_>>()
        });
    }

    /// And every single thing that was counted.
    fn compare_counters(&mut self) {
        self.both(|world| {
            let counters = world.envs.iter().map(|env| format!("{:?}", env.counters));
            if world.workers.len() == 1 { counters.collect() } else { Vec::new() }
        });
    }
}

fn connections(world: &World) -> Vec<dataplane::conntrack::ConnectionRow> {
    let mut rows = Vec::with_capacity(256);
    for worker in &world.workers {
        worker.dump_connections(world.now, &mut Some(0), usize::MAX, &mut rows);
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_shortcut_is_no_other_way(
        events in prop::collection::vec(event(), 1..80),
        workers in prop_oneof![2 => Just(1usize), 1 => Just(3usize)],
    ) {
        let mut pair = Pair::new(workers);
        for event in events {
            pair.happen(event);
        }
        pair.compare_counters();
        pair.both(World::shut_down);
    }
}

/// Packets that come one at a time, each of which a shadow of its worker foretells: what is sent, what is
/// counted, what is noted, and what becomes of its connection. `MILLRACE_FORETOLD` asks for more of them.
#[test]
fn a_shadow_says_what_becomes_of_a_packet() {
    let asked = std::env::var("MILLRACE_FORETOLD").ok().and_then(|text| text.parse().ok());
    let packets: u64 = asked.unwrap_or(3_000);
    let (mut told, mut world) = (0, 0u64);
    while told < packets {
        world += 1;
        println!("world {world}, after {told} packets");
        let seed: Vec<u8> = world.to_le_bytes().into_iter().cycle().take(32).collect();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let mut pair = Pair::new(if world % 3 == 0 { 3 } else { 1 });
        pair.worlds.iter_mut().for_each(|world| world.foretell_every = 1);
        for _ in 0..300 {
            let event = event().new_tree(&mut runner).expect("an event").current();
            match event {
                Event::Burst(worker, said) => {
                    for one in said {
                        pair.happen(Event::Burst(worker, vec![one]));
                    }
                }
                event => pair.happen(event),
            }
        }
        told += pair.worlds.iter().map(|world| world.foretold).sum::<u64>();
    }
}
