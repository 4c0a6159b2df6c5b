//! A rehearsal on a profile: the walk opens one connection of each service, and the offload machine has a
//! model of the device carry out what the walk asks for.
//!
//! Nothing is computed here that the running program computes otherwise: the walk decides whether hardware is
//! asked, the lowering what for, the machine and the device's model whether it can be.

use crate::engine;
use crate::hairpins;
use crate::trace::{self, Packet};
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::{Attachment, Config, EngineChoice, Faces, Limits};
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Answer, Ask, FlowRef, Reached, Revoke, Token};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::packet::{Burst, TestPacket};
use dataplane::snapshot::{Affinity, Hop, Overrides, Service, Snapshot};
use dataplane::time::Tick;
use dataplane::worker::{Env, Hardware, Note, Sizes, Worker, WorkerSetup};
use eswitch::model::profile::Profile;
use eswitch::model::types::{Role, Steering, VportInfo};
use offload::counters::EngineState;
use offload::engine::sim::{SimEngine, SimSetup};
use offload::engine::template::QUEUE_SIZE;
use offload::engine::{FlowEngine, table_rules};
use offload::lower::{self, PortFacts, Topology};
use offload::machine::{Machine, Outbox, PartitionTally, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rules of a rehearsal's device: a few for each service.
pub(super) const REHEARSAL_RULES: u32 = 32_768;
/// Packets that hardware is asked after, in a rehearsal.
const PRICE: u32 = 4;
/// Packets of a sample connection at most,
const PACKETS: u32 = 24;
/// one in so many milliseconds.
const PACE_MS: u32 = 10;
/// The client's port in it.
const CLIENT_PORT: u16 = 40_000;
/// The offload thread looks this often, nanoseconds.
const TURN_NS: u64 = 50_000;
/// A device that has not answered by then will not, nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Documentation's addresses (RFC 5737, RFC 3849): a client from afar.
const FAR_V4: u32 = 0xc633_6407;
const FAR_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// A configuration on a device.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) topology: Arc<Topology>,
    pub(super) steering: Steering,
    /// Why there would be no engine.
    pub(super) no_engine: Option<String>,
    vports: Vec<VportInfo>,
    rx_queues: u16,
    owners: Owners,
    /// What is taken for granted about the ports.
    pub(super) notes: Vec<String>,
}

/// What a port's device string says.
struct Place {
    /// Which eSwitch it is a port of.
    domain: Option<u16>,
    uplink: bool,
}

impl Scene {
    pub(super) fn new(config: &Config, profile: &Profile) -> Result<Scene, String> {
        let facts = trace::assumed_facts(config);
        let built = Snapshot::build(config, &facts, &Overrides::default(), None, &|_| 0);
        let snapshot = Arc::new(built.map_err(|error| error.to_string())?);
        let mut notes = Vec::new();
        let steering = steering(config, profile, &mut notes);
        let places = places(config, &mut notes);
        if places.iter().all(|place| place.domain.is_none()) {
            return Err("no port has a device of its own; add one".into());
        }
        let numbers: Vec<(u16, Option<u16>)> =
            (0u16..).zip(&places).map(|(number, place)| (number, place.domain)).collect();
        let mut hairpins = match steering {
            Steering::Software => hairpins::foreseen(config, &numbers),
            Steering::Hardware => Vec::new(),
        };
        hairpins.resize(places.len(), Vec::new());
        let first = places.iter().position(|place| place.uplink).unwrap_or_default();
        let port =
            |(index, (configured, port)): (usize, (&dataplane::config::Port, &dataplane::snapshot::Port))| {
                let device = config.device_port(configured).map_or(index, PortId::index);
                let place = places.get(device);
                PortFacts {
                    ethdev: device as u16,
                    proxy: first as u16,
                    domain: place.and_then(|place| place.domain),
                    mac: port.mac,
                    any_mac: configured.pass_to.is_some(),
                    mtu: port.mtu,
                    vlan: port.vlan,
                    tunnel: lower::ports::tunnel_of(&snapshot, PortId(index as u16)),
                    hairpins: match port.tunnel {
                        None => hairpins.get(device).cloned().unwrap_or_default(),
                        Some(_) => Vec::new(),
                    },
                }
            };
        let ports = config.ports.iter().zip(&snapshot.ports).enumerate().map(port).collect();
        Ok(Scene {
            topology: Arc::new(Topology { ports }),
            no_engine: no_engine(config, steering),
            vports: vports(&places),
            owners: Owners::new(&DEFAULT_KEY, 1, 1).map_err(|error| error.to_string())?,
            rx_queues: config.workers.cores.len() as u16,
            snapshot,
            steering,
            notes,
        })
    }

    /// A device of this profile, with room for so many rules of connections, and the machine that drives it.
    ///
    /// # Errors
    /// The profile's sizes cannot be.
    pub(super) fn device(
        &self,
        config: &Config,
        profile: &Profile,
        rules_max: u32,
    ) -> Result<Device, String> {
        let setup = SimSetup {
            profile: scaled(config, profile, rules_max),
            steering: self.steering,
            vports: self.vports.clone(),
            topology: Arc::clone(&self.topology),
            rx_queues: self.rx_queues,
            rules_max,
            operations_max: operations(profile),
            seed: 1,
        };
        let settings = Settings { rules_max, ..engine::settings(&config.offload) };
        let engine = SimEngine::open(0, setup)
            .map_err(|refusal| format!("profile {}: no such device can be: {refusal}", profile.name))?;
        let (topology, snapshot) = (Arc::clone(&self.topology), Arc::clone(&self.snapshot));
        let machine = Machine::new(0, &settings, engine.traits(), topology, snapshot);
        let mut device = Device { engine, machine, now_ns: 0, told: Told::default() };
        while !device.engine.is_ready() && device.now_ns < PATIENCE_NS {
            device.turn();
        }
        Ok(device)
    }

    /// A connection of a service, as far as the walk brings it: what hardware is asked for, or why it is not.
    pub(super) fn rehearse(&self, config: &Config, service: &Service, client: Option<Ip>) -> Rehearsed {
        if !service.offload {
            return Rehearsed::stays("barred", "the service's offload = false keeps it in software");
        }
        if service.affinity == Affinity::None {
            return Rehearsed::stays(
                "barred",
                "without affinity no connections are kept that hardware could have",
            );
        }
        if let Affinity::Partition { .. } = service.affinity {
            return Rehearsed::Parted;
        }
        let Some((client, front)) = self.client(config, service, client) else {
            return Rehearsed::stays("no_route", "no route leads to a client of it");
        };
        let limits = Limits { connections: 64, half_open_percent: 50, ..config.limits.clone() };
        let mut walk = Rehearsal::new(&limits, self, self.counters());
        let hops = self.snapshot.next_hops().iter().copied();
        hops.chain(self.snapshot.route(service.tenant, client)).for_each(|hop| walk.introduce(hop));
        walk.open(&self.snapshot, service, ((client, CLIENT_PORT), front), PACKETS);
        walk.outcome()
    }

    /// Counters for a worker.
    pub(super) fn counters(&self) -> Arc<WorkerCounters> {
        let (services, backends) = (self.snapshot.services.len(), self.snapshot.backends.len());
        let rules = self.snapshot.policy().rules().len();
        Arc::new(WorkerCounters::new(services, backends).with_rules(rules))
    }

    /// A client that could be one of this service's, and the port that leads to it.
    pub(super) fn client(
        &self,
        config: &Config,
        service: &Service,
        wanted: Option<Ip>,
    ) -> Option<(Ip, PortId)> {
        let v4 = service.vip.is_v4();
        let far = if v4 { Ip::v4(FAR_V4) } else { Ip::v6(FAR_V6) };
        let ports = config.ports.iter().filter(|port| port.tenant == service.tenant);
        let near = |port: &dataplane::config::Port| {
            let own: Vec<_> =
                port.addresses.iter().filter(|own| own.address.is_v4() == v4).copied().collect();
            own.into_iter()
                .filter_map(|own| (1..16).map(|n| beside(own.address, n)).find(|ip| own.contains(*ip)))
        };
        let [facing, others]: [Vec<_>; 2] = [true, false]
            .map(|wanted| ports.clone().filter(|port| (port.faces != Faces::Backends) == wanted).collect());
        let near: Vec<Ip> = facing.into_iter().chain(others).flat_map(near).collect();
        let candidates = match wanted {
            Some(client) => vec![client],
            None => std::iter::once(far).chain(near).collect(),
        };
        let taken = |ip: Ip| {
            self.snapshot.is_vip(service.tenant, ip)
                || self.snapshot.backends.iter().flatten().any(|backend| backend.address == ip)
        };
        let found = candidates.into_iter().filter(|ip| !taken(*ip));
        let found = found.filter_map(|ip| Some((ip, self.snapshot.route(service.tenant, ip)?.port)));
        // Rather one that is not behind the port that leads to backends.
        let backends =
            self.snapshot.backends.iter().flatten().filter(|backend| backend.service == service.id);
        let ways: Vec<PortId> = backends
            .filter_map(|backend| {
                backend.hop.or_else(|| self.snapshot.route(service.tenant, backend.address))
            })
            .map(|hop| hop.port)
            .collect();
        found.min_by_key(|(_, port)| ways.contains(port))
    }
}

/// An address next to another one.
fn beside(ip: Ip, n: u8) -> Ip {
    if ip.is_v4() {
        return Ip::v4(ip.low32() ^ u32::from(n));
    }
    let mut octets = ip.octets();
    octets[15] ^= n;
    Ip::v6(octets)
}

/// The profile for a rehearsal with fewer rules than are configured: a table that would be too large for the
/// device is too large for it there.
fn scaled(config: &Config, profile: &Profile, rules_max: u32) -> Profile {
    let [whole, rehearsed] = [config.offload.rules_max, rules_max].map(table_rules);
    let mut scaled = profile.clone();
    if (rehearsed..whole).contains(&profile.table_rules_max) {
        scaled.table_rules_max = rehearsed - 1;
    }
    scaled
}

/// Operations that the engine has under way at most.
pub(super) fn operations(profile: &Profile) -> u32 {
    QUEUE_SIZE.min(profile.queue_depth_max)
}

/// Which engine the device is driven by: as the first device says, or as the profile is meant.
fn steering(config: &Config, profile: &Profile, notes: &mut Vec<String>) -> Steering {
    let devices = config.ports.iter().filter_map(|port| match &port.attachment {
        Attachment::Device(device) => Some(device),
        _ => None,
    });
    let mut words = devices.chain(&config.dpdk.eal_args).flat_map(|device| device.split(','));
    let said = words.find_map(|word| word.strip_prefix("dv_flow_en="));
    let (taken, number) = match said {
        Some("1") => (Steering::Software, 1),
        Some("2") => (Steering::Hardware, 2),
        _ => {
            let number = if profile.steering == Steering::Hardware { 2 } else { 1 };
            notes.push(format!(
                "no device says dv_flow_en: {number} is taken, which the profile is meant for"
            ));
            return profile.steering;
        }
    };
    if taken != profile.steering {
        notes
            .push(format!("a device says dv_flow_en={number}, which this profile's times are not meant for"));
    }
    taken
}

/// Why no engine would start, if none would.
fn no_engine(config: &Config, steering: Steering) -> Option<String> {
    match (config.offload.engine, steering) {
        (EngineChoice::None, _) => Some("[offload] engine = \"none\"".into()),
        (EngineChoice::Sync, Steering::Hardware) => {
            Some("[offload] engine = \"sync\", and hardware steering takes no rules one by one".into())
        }
        (EngineChoice::Template, Steering::Software) => {
            Some("[offload] engine = \"template\", and software steering has no templates".into())
        }
        _ => None,
    }
}

/// Where the devices of ports are, by their strings.
fn places(config: &Config, notes: &mut Vec<String>) -> Vec<Place> {
    let mut domains: BTreeMap<String, u16> = BTreeMap::new();
    let mut strangers = 0;
    let mut places = Vec::new();
    for port in &config.ports {
        let Attachment::Device(device) = &port.attachment else {
            places.push(Place { domain: None, uplink: false });
            continue;
        };
        let (base, represents) = anatomy(device);
        let known = base.starts_with("net_eswitch") || base.contains(':') && base.contains('.');
        let next = domains.len() as u16;
        let domain = *domains.entry(if known { base } else { String::new() }).or_insert(next);
        let uplink = if known { represents.is_none_or(is_uplink) } else { strangers == 0 };
        strangers += u16::from(!known);
        places.push(Place { domain: Some(domain), uplink });
    }
    if strangers > 0 {
        notes.push(
            "devices whose names say nothing of an eSwitch are taken for the uplink and host ports of one"
                .into(),
        );
    }
    if domains.len() > 1 {
        notes.push(format!(
            "{} devices that are not one eSwitch: nothing crosses between them but by hairpin queues; their rules \
             are counted against one device's limits",
            domains.len()
        ));
    }
    places
}

/// The device below a string, and what it represents there.
fn anatomy(device: &str) -> (String, Option<&str>) {
    let mut words = device.split(',');
    let name = words.next().unwrap_or_default();
    let name = ["pci:", "vdev:"].iter().find_map(|bus| name.strip_prefix(bus)).unwrap_or(name);
    let (name, of_name) = match name.split_once("_representor_") {
        Some((base, represents)) => (base, Some(represents)),
        None => (name, None),
    };
    let represents = words.find_map(|word| word.strip_prefix("representor=")).or(of_name);
    (name.strip_prefix("0000:").unwrap_or(name).to_owned(), represents)
}

/// Whether a representor is that of another uplink: of a physical function, and no function of it.
fn is_uplink(represents: &str) -> bool {
    represents.starts_with("pf") && !represents.contains("vf") && !represents.contains("sf")
}

/// The eSwitch's ports, uplinks first; the first is an uplink in any case.
fn vports(places: &[Place]) -> Vec<VportInfo> {
    let devices = places.iter().enumerate().filter(|(_, place)| place.domain.is_some());
    let (mut uplinks, mut hosts): (Vec<_>, Vec<_>) = devices.partition(|(_, place)| place.uplink);
    if uplinks.is_empty() && !hosts.is_empty() {
        uplinks.push(hosts.remove(0));
    }
    let info = |role: fn(u16) -> Role| {
        move |(n, (number, _)): (u16, (usize, &Place))| VportInfo { role: role(n), port_id: number as u16 }
    };
    let uplinks = (0u16..).zip(uplinks).map(info(Role::Uplink));
    uplinks.chain((0u16..).zip(hosts).map(info(Role::Host))).collect()
}

/// How far a sample connection came.
#[derive(Clone, Debug)]
pub(super) enum Rehearsed {
    /// Hardware is asked.
    Asks(Box<Ask>),
    /// It is not: a word for machines, and one for people.
    Stays(&'static str, String),
    /// No connections are kept; hardware has the configuration's own rules for it.
    Parted,
}

impl Rehearsed {
    fn stays(reason: &'static str, text: impl Into<String>) -> Rehearsed {
        Rehearsed::Stays(reason, text.into())
    }
}

/// What a worker has around it.
#[derive(Default)]
pub(super) struct Outside {
    pub(super) ask: Option<Ask>,
    pub(super) notes: Vec<Note>,
}

impl Env for Outside {
    type Buf = TestPacket;

    fn alloc(&mut self, port: PortId) -> Option<TestPacket> {
        Some(TestPacket::new(port, &[]))
    }

    fn send(&mut self, _port: PortId, _packet: TestPacket) {}

    fn hand_off(&mut self, _to: WorkerId, packet: TestPacket) -> Result<(), TestPacket> {
        Err(packet)
    }

    fn announce(&mut self, _update: &NeighbourUpdate) {}

    fn ask(&mut self, ask: &Ask) -> bool {
        self.ask = Some(*ask);
        true
    }

    fn revoke(&mut self, _revoke: &Revoke) -> bool {
        true
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

/// Who is at a next hop: another at each of them.
fn neighbour(hop: Hop) -> MacAddr {
    let [a, b, c, d] = hop.next_hop.low32().to_be_bytes();
    MacAddr([2, hop.port.0 as u8, a, b, c, d])
}

/// A worker for a few connections.
pub(super) struct Rehearsal {
    pub(super) worker: Worker<TestPacket>,
    pub(super) outside: Outside,
    pub(super) now: Tick,
}

impl Rehearsal {
    /// A worker with tables of these sizes, that has just started.
    pub(super) fn new(limits: &Limits, scene: &Scene, counters: Arc<WorkerCounters>) -> Rehearsal {
        let setup = WorkerSetup {
            id: WorkerId(0),
            owners: scene.owners.clone(),
            seed: [1, 2, 3, 4],
            sizes: Sizes::of(limits),
        };
        let now = Tick(1_000);
        let mut worker = Worker::new(now, &setup, Arc::clone(&scene.snapshot), counters);
        worker.set_price(PRICE);
        Rehearsal { worker, outside: Outside::default(), now }
    }

    /// The next hop is known.
    pub(super) fn introduce(&mut self, hop: Hop) {
        let mac = neighbour(hop);
        let update =
            NeighbourUpdate { port: hop.port, ip: hop.next_hop, mac, solicited: true, overrides: true };
        self.worker.introduce(self.now, &update, &mut self.outside);
    }

    /// A connection opens, and goes on for so many packets or until hardware is asked. `front`: the port that
    /// leads to the client.
    pub(super) fn open(
        &mut self,
        snapshot: &Snapshot,
        service: &Service,
        (client, front): ((Ip, u16), PortId),
        packets: u32,
    ) {
        let vip_port = service.ports.first().map_or(0, |ports| *ports.start());
        let nat = service.mode == dataplane::snapshot::Mode::Nat;
        let tcp = service.protocol == Protocol::Tcp;
        for number in 0..packets {
            let flags = match number {
                _ if !tcp => 0,
                0 => 0x02,
                1 if nat => 0x12,
                _ => 0x10,
            };
            let direction = if number % 2 == 1 && nat { Direction::Reply } else { Direction::Original };
            let backend = self.picked().and_then(|id| snapshot.backend(id));
            let (src, dst, at) = match (direction, backend) {
                (Direction::Reply, Some(backend)) => {
                    let hop = backend.hop.or_else(|| snapshot.route(service.tenant, backend.address));
                    let Some(hop) = hop else { return };
                    ((backend.address, backend.port.unwrap_or(vip_port)), client, hop.port)
                }
                (Direction::Reply, None) => return,
                (Direction::Original, _) => (client, (service.vip, vip_port), front),
            };
            let Some(port) = snapshot.port(at) else { return };
            let frame = Packet::sample(src, dst, tcp.then_some(flags)).frame(port);
            let device = port.parent.filter(|_| port.tunnel.is_none()).unwrap_or(at);
            let mut burst = Burst::new();
            burst.push(TestPacket::new(device, &frame));
            self.worker.on_burst(self.now, &mut burst, &mut self.outside);
            if self.outside.ask.is_some() {
                return;
            }
            self.now = self.now.after_ms(PACE_MS);
        }
    }

    fn picked(&self) -> Option<BackendId> {
        self.outside.notes.iter().find_map(|note| match note {
            Note::Picked { backend, .. } => Some(*backend),
            _ => None,
        })
    }

    fn outcome(self) -> Rehearsed {
        let Outside { ask, notes, .. } = self.outside;
        if let Some(ask) = ask {
            return Rehearsed::Asks(Box::new(ask));
        }
        for note in notes.iter().rev() {
            match note {
                Note::Hardware(Hardware::Barred) => {
                    return Rehearsed::stays("barred", "the configuration keeps it in software");
                }
                Note::Hardware(Hardware::Cannot(why) | Hardware::Waits(why)) => {
                    return Rehearsed::stays(why.name(), declined_text(why.name()));
                }
                Note::Hardware(Hardware::WayUnknown) => {
                    return Rehearsed::stays("no_route", "no route leads to a client or a backend of it");
                }
                Note::Dropped(reason) => {
                    let text = format!("a sample connection is dropped ({})", reason.label());
                    return Rehearsed::stays("dropped", text);
                }
                _ => {}
            }
        }
        Rehearsed::stays("not_asked", "its packets are not of connections that hardware could take")
    }
}

/// What a reason to decline means, for people.
pub(super) fn declined_text(reason: &str) -> &'static str {
    match reason {
        "no_engine" => "there is no offload engine",
        "path" => "hardware does not join the ports that it goes between",
        "mtu" => "the way out's MTU, less what a tunnel adds, is below the way in's",
        "tunnel" => "the tunnel is one that only software handles",
        "metered" => "its packets are metered in a way that is left to software",
        "table_full" => "the device has no room for a rule",
        "refused" => "the device refuses the rule",
        "failed" => "the device fails to put the rule in force",
        _ => "the offload machine declines it",
    }
}

/// The same for another connection: no two clients of different services may look alike to a backend.
pub(super) fn numbered(ask: &Ask, number: u32) -> Ask {
    let key = FlowKey { src_port: CLIENT_PORT.wrapping_add(number as u16), ..ask.key };
    Ask { flow: FlowRef { slot: number, ..ask.flow }, token: Token(number), key, ..*ask }
}

/// Where the machine's answers go.
#[derive(Default)]
pub(super) struct Told {
    pub(super) answers: Vec<Answer>,
}

impl Outbox for Told {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        self.answers.push(answer);
        Ok(())
    }
}

/// A model of the device, and the machine that drives it, in virtual time.
pub(super) struct Device {
    pub(super) engine: SimEngine,
    pub(super) machine: Machine,
    pub(super) now_ns: u64,
    pub(super) told: Told,
}

impl Device {
    /// One turn of the offload thread.
    pub(super) fn turn(&mut self) {
        self.engine.set_now(self.now_ns);
        self.machine.step(self.now_ns, &mut self.engine, &mut self.told);
        self.now_ns += TURN_NS.max(self.engine.take_spent_ns());
    }

    /// What becomes of one connection.
    pub(super) fn ask(&mut self, ask: &Ask) -> Option<Answer> {
        self.told.answers.clear();
        self.machine.ask(self.now_ns, ask);
        let until = self.now_ns + PATIENCE_NS;
        while self.now_ns < until {
            self.turn();
            let answered = |answer: &&Answer| !matches!(answer, Answer::Counted { .. });
            if let Some(answer) = self.told.answers.iter().find(answered) {
                return Some(*answer);
            }
        }
        None
    }

    /// Says who is at the next hops of services by source partition, and waits until their rules are in, or
    /// what is missing was tried in vain.
    pub(super) fn put_partitions_in(&mut self, snapshot: &Snapshot) {
        for hop in snapshot.parted_hops() {
            self.machine.reached(&Reached { hop: *hop, mac: neighbour(*hop) });
        }
        let mut seen = None;
        let mut until_ns = self.now_ns + PATIENCE_NS;
        while self.now_ns < until_ns {
            // Only then there is a plan afterwards.
            let runs = self.machine.state() == EngineState::Running;
            self.turn();
            let counters = self.machine.counters();
            let now = [&counters.rules, &counters.insertions, &counters.in_flight].map(Counter::get);
            if !runs || seen.replace(now) == Some(now) {
                continue;
            }
            if self.machine.partition_tallies().values().all(PartitionTally::is_settled) {
                return;
            }
            until_ns = self.now_ns + PATIENCE_NS;
        }
    }

    /// Rules of connections and partitions, counters, age contexts and meters in the device.
    pub(super) fn holds(&mut self) -> [u64; 4] {
        let rules = self.engine.connection_rules();
        let [counters, ages, meters] = self.engine.device().objects_in_use();
        [rules, u64::from(counters), u64::from(ages), u64::from(meters)]
    }
}
