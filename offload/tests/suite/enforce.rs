//! How long it takes until hardware forwards no packet any more of what a new policy denies.
//!
//! Everything is a MODEL's: of the device (`eswitch/profiles`), whose rates are its maker's and whose delays
//! are partly assumed, and of the thread, whose turns take as long as is said here. The clock is virtual. To
//! have the histograms at full size:
//!
//! ```text
//! cargo test --release -p offload --features sim --test suite -- enforce --ignored --nocapture
//! ```

use crate::frames::{Fragment, Frame};
use dataplane::addr::{Ip, MacAddr, Prefix};
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{Answer, Ask, FlowRef, Leg, Token};
use dataplane::packet::{Burst, TestPacket};
use dataplane::policy::{Action, Matches, Policy, Source, Statement};
use dataplane::snapshot::{
    Affinity, Backend, BackendState, Mode, OnRemove, Parts, Port, Service, Snapshot, Timeouts, VlanTags,
    link_local,
};
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Fabric, RxMeta};
use eswitch::model::types::{Role, Vport, VportInfo};
use offload::counters::{BOUNDS_NS, Histogram};
use offload::engine::FlowEngine;
use offload::engine::sim::{SimEngine, SimSetup};
use offload::lower::{PortFacts, Topology};
use offload::machine::{Machine, Outbox, Settings};
use std::sync::Arc;

const US: u64 = 1000;
const MS: u64 = 1000 * US;
const SECOND: u64 = 1000 * MS;
const VIP: u32 = 0xc000_0250;
const BACKEND: u32 = 0xc0a8_0110;
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
/// Connections of which packets keep coming.
const PROBES: u32 = 400;
/// What must hold, from the new policy to the last packet of 99 in 100 that it denies.
const BOUND_NS: u64 = 100 * MS;

/// Whom the new rule denies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Denied {
    /// One connection in a thousand,
    Few,
    Half,
    All,
}

impl Denied {
    fn prefix(self) -> Prefix {
        let (address, length) = match self {
            Denied::Few => (0x0a40_0000, 10),
            Denied::Half => (0x0a80_0000, 9),
            Denied::All => (0x0a00_0000, 8),
        };
        Prefix { address: Ip::v4(address), length }
    }
}

fn client(number: u32) -> Ip {
    let net = match number {
        _ if number % 1000 == 0 => 0x0a40_0000,
        _ if number % 2 == 1 => 0x0a80_0000,
        _ => 0x0a00_0000,
    };
    Ip::v4(net + number)
}

fn mac(port: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, port as u8])
}

/// So many rules that allow something else, and then one that denies, if any.
fn policy(rules: u32, denied: Option<Denied>, before: Option<&Arc<Policy>>) -> Arc<Policy> {
    let statement = |action, from: Prefix, ports| Statement {
        name: None,
        line: 1,
        action,
        log: false,
        matches: Matches { from: Some([from].into()), ports, ..Matches::default() },
    };
    let other = |number: u32| {
        let from = Prefix { address: Ip::v4(0x0b00_0000 + (number << 8)), length: 24 };
        statement(Action::Allow, from, vec![1000 + number as u16 % 500..=2000])
    };
    let deny = denied.map(|denied| statement(Action::Deny, denied.prefix(), Vec::new()));
    let rules = (0..rules).map(other).chain(deny).collect();
    Policy::build(&Source { rules, ..Source::default() }, before).expect("a policy")
}

/// A `nat` service with one backend.
fn snapshot(policy: Arc<Policy>) -> Arc<Snapshot> {
    let port = |id: u16, address: u32, length: u8| Port {
        name: format!("p{id}"),
        mac: mac(id),
        mtu: 1500,
        addresses: vec![Prefix { address: Ip::v4(address), length }],
        link_local: link_local(mac(id)),
        vlan: VlanTags::default(),
        tenant: TenantId(0),
        pass_to: None,
        opens: dataplane::policy::Way::Ingress,
        parent: None,
        tunnel: None,
    };
    let service = Service {
        id: ServiceId(0),
        name: "web".into(),
        tenant: TenantId(0),
        vip: Ip::v4(VIP),
        protocol: Protocol::Tcp,
        ports: vec![80..=80],
        mode: Mode::Nat,
        affinity: Affinity::Connection,
        strict: false,
        on_remove: OnRemove::Drain,
        removed: false,
        offload: true,
        health: None,
        timeouts: Timeouts::default(),
        lookup: Arc::new([]),
    };
    let backend = Backend {
        id: BackendId(0),
        service: ServiceId(0),
        address: Ip::v4(BACKEND),
        port: Some(8080),
        weight: 1,
        share_percent: 100,
        state: BackendState::Active,
        hop: None,
    };
    let parts = Parts {
        ports: vec![port(0, 0x0a00_0001, 8), port(1, 0xc0a8_0101, 24)],
        services: vec![Some(service)],
        backends: vec![Some(backend)],
        policy,
        ..Parts::default()
    };
    Arc::new(Snapshot::assemble(parts).expect("a snapshot"))
}

fn ask(number: u32) -> Ask {
    let leg =
        |ingress, egress| Some(Leg { ingress: PortId(ingress), egress: PortId(egress), next_hop: NEXT });
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: number, generation: 1 },
        token: Token(number),
        key: FlowKey {
            src: client(number),
            dst: Ip::v4(VIP),
            src_port: 40_000,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        },
        backend_end: (Ip::v4(BACKEND), 8080),
        nat: true,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [leg(0, 1), leg(1, 0)],
        packets: 10_000,
        age_ms: 1000,
    }
}

fn frame(number: u32, direction: Direction) -> Vec<u8> {
    let key = ask(number).incoming(direction);
    let port = direction as u16;
    Frame {
        dst_mac: mac(port),
        src_mac: NEXT,
        tags: Vec::new(),
        src: (key.src, key.src_port),
        dst: (key.dst, key.dst_port),
        protocol: Protocol::Tcp,
        ttl: 60,
        class: 0,
        flags: 0x10,
        options: 0,
        fragment: Fragment::None,
        checksum: None,
        payload: vec![0; 10],
        padding: 0,
    }
    .bytes()
}

/// Whether the last packet left by a wire.
#[derive(Default)]
struct Doors {
    forwarded: bool,
}

impl Fabric<TestPacket> for Doors {
    fn transmit(&mut self, _: Vport, _: TestPacket) {
        self.forwarded = true;
    }

    fn receive(&mut self, _: Vport, _: RxMeta, _: TestPacket) {
        self.forwarded = false;
    }

    fn copy(&mut self, _: &TestPacket) -> Option<TestPacket> {
        None
    }

    fn discard(&mut self, reason: DropReason, _: TestPacket) {
        panic!("dropped: {reason:?}");
    }
}

/// What workers hear.
#[derive(Default)]
struct Heard {
    installed: u32,
    removed: u32,
    /// Packets that were counted.
    packets: u64,
    /// Who was told to ask again later.
    declined: Vec<u32>,
}

impl Outbox for Heard {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        match answer {
            Answer::Installed { .. } => self.installed += 1,
            Answer::Removed { .. } => self.removed += 1,
            Answer::Counted { counts, .. } => {
                self.packets += counts.iter().map(|count| count.packets).sum::<u64>();
            }
            Answer::Declined { flow, .. } => self.declined.push(flow.slot),
        }
        Ok(())
    }
}

/// A packet that comes again and again.
struct Probe {
    number: u32,
    direction: Direction,
    /// When it was first not forwarded by hardware, since when it was not.
    missed_ns: Option<u64>,
}

struct Bed {
    engine: SimEngine,
    machine: Machine,
    heard: Heard,
    policy: Arc<Policy>,
    now: u64,
    /// How long a turn of the thread takes, blocking calls apart.
    turn_ns: u64,
    /// How long the last one took.
    took_ns: u64,
    connections: u32,
    probes: Vec<Probe>,
    forwarded: u64,
}

impl Bed {
    fn new(profile: &str, connections: u32, rules: u32, turn_ns: u64) -> Bed {
        let port = |ethdev: u16| PortFacts {
            ethdev,
            proxy: 0,
            domain: Some(0),
            mac: mac(ethdev),
            any_mac: false,
            mtu: 1500,
            vlan: VlanTags::default(),
            tunnel: None,
            hairpins: Vec::new(),
        };
        let topology = Arc::new(Topology { ports: vec![port(0), port(1)] });
        let profile = Profile::named(profile).expect("a built-in profile");
        let vport = |role, port_id| VportInfo { role, port_id };
        let setup = SimSetup {
            steering: profile.steering,
            profile,
            vports: vec![vport(Role::Uplink(0), 0), vport(Role::Host(0), 1)],
            topology: Arc::clone(&topology),
            rx_queues: 1,
            // A table's last places are hard to fill.
            rules_max: 3 * connections,
            operations_max: 960,
            seed: 1,
        };
        let engine = SimEngine::new(0, setup);
        let policy = policy(rules, None, None);
        let settings = Settings {
            rules_max: 3 * connections,
            insertions_per_second: 5_000_000,
            idle_ms: 600_000,
            ..Settings::default()
        };
        let machine = Machine::new(0, &settings, engine.traits(), topology, snapshot(Arc::clone(&policy)));
        let probe = |at: u32| {
            let direction = [Direction::Original, Direction::Reply][at as usize % 2];
            // Both of a pair's are probed. All classes of clients have their share.
            let number = (u64::from(at / 2) * u64::from(connections) / u64::from(PROBES / 2)) as u32;
            Probe { number: number | at / 2 % 2, direction, missed_ns: None }
        };
        let probes = (0..PROBES).map(probe).collect();
        let heard = Heard::default();
        Bed { engine, machine, heard, policy, now: 0, turn_ns, took_ns: 0, connections, probes, forwarded: 0 }
    }

    fn turn(&mut self) {
        self.now += self.took_ns;
        self.engine.set_now(self.now);
        self.machine.step(self.now, &mut self.engine, &mut self.heard);
        self.took_ns = self.engine.take_spent_ns().max(self.turn_ns);
    }

    /// Everything gets into hardware.
    fn fill(&mut self) {
        let mut asked = 0;
        let keep = std::mem::replace(&mut self.turn_ns, 200 * US);
        while self.heard.installed < self.connections {
            self.turn();
            for again in std::mem::take(&mut self.heard.declined) {
                self.machine.ask(self.now, &ask(again));
            }
            while asked < self.connections && asked - self.heard.installed < 1000 {
                self.machine.ask(self.now, &ask(asked));
                asked += 1;
            }
            assert!(self.now < 600 * SECOND, "{} are in", self.heard.installed);
        }
        self.turn_ns = keep;
        self.probe();
        assert!(self.probes.iter().all(|probe| probe.missed_ns.is_none()), "all are in hardware");
    }

    /// A packet of each probe. What a blocking call has done the model does when it is called: it counts from
    /// when all of the turn's have returned.
    fn probe(&mut self) {
        for probe in &mut self.probes {
            let bytes = frame(probe.number, probe.direction);
            let port = probe.direction as u16;
            let mut burst: Burst<TestPacket> = [TestPacket::new(PortId(port), &bytes)].into_iter().collect();
            let mut doors = Doors::default();
            self.engine.forward(port, false, &mut burst, &mut doors);
            if doors.forwarded {
                self.forwarded += 1;
                probe.missed_ns = None;
            } else {
                probe.missed_ns.get_or_insert(self.now + self.took_ns);
            }
        }
    }

    fn is_denied(denied: Denied, number: u32) -> bool {
        denied.prefix().contains(client(number))
    }

    /// Takes up a policy that denies some.
    fn enforce(&mut self, rules: u32, denied: Denied) -> Outcome {
        self.policy = policy(rules, Some(denied), Some(&self.policy));
        let next = snapshot(Arc::clone(&self.policy));
        let began = self.now;
        self.machine.adopt(began, next);
        let (mut turns, mut fenced_ns) = (0, 0);
        let mut all_missed = false;
        while self.machine.enforcing() || self.machine.is_fenced() {
            let told = self.machine.diverts();
            self.turn();
            let open = self.engine.is_ready() && self.engine.fenced() == 0;
            assert!(told || open, "workers hear of a fence before it keeps the first packet from its rule");
            fenced_ns += if self.machine.is_fenced() { self.took_ns } else { 0 };
            turns += 1;
            if !all_missed || turns % 256 == 0 {
                self.probe();
                let wanted = |probe: &&Probe| Bed::is_denied(denied, probe.number);
                all_missed = self.probes.iter().filter(wanted).all(|probe| probe.missed_ns.is_some());
            }
            assert!(self.now - began < 600 * SECOND, "it does not end");
        }
        let out_ns = self.now - began;
        self.probe();
        let mut times = Vec::new();
        for probe in &self.probes {
            match probe.missed_ns {
                None => assert!(!Bed::is_denied(denied, probe.number), "{} is forwarded", probe.number),
                Some(at) => {
                    assert!(Bed::is_denied(denied, probe.number), "{} is not forwarded", probe.number);
                    times.push(at - began);
                }
            }
        }
        times.sort_unstable();
        Outcome { times, out_ns, fenced_ns }
    }

    /// All counts are told: as many as packets were forwarded.
    fn settle(&mut self) {
        self.turn_ns = 5 * MS;
        let end = self.now + 4 * SECOND;
        while self.now < end {
            self.turn();
        }
    }
}

struct Outcome {
    /// From the new policy until the packets of a denied probe were not forwarded any more, sorted.
    times: Vec<u64>,
    /// Until the last denied rule was out.
    out_ns: u64,
    /// Of that, behind a fence.
    fenced_ns: u64,
}

impl Outcome {
    fn percentile(&self, percent: usize) -> u64 {
        let at = (self.times.len() * percent).div_ceil(100).max(1) - 1;
        self.times.get(at).copied().unwrap_or(0)
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The bucket's bound below which so many of 100 are.
fn below(histogram: &Histogram, percent: u64) -> String {
    let mut left = (histogram.count() * percent).div_ceil(100);
    for (at, bucket) in histogram.buckets.iter().enumerate() {
        left = left.saturating_sub(bucket.get());
        if left == 0 {
            return BOUNDS_NS.get(at).map_or("more".into(), |bound| format!("{}", ms(*bound)));
        }
    }
    "nothing".into()
}

/// One case; prints it, and checks what must hold.
fn case(profile: &str, connections: u32, rules: u32, denied: Denied, turn_ns: u64) -> Outcome {
    let mut bed = Bed::new(profile, connections, rules, turn_ns);
    bed.fill();
    let outcome = bed.enforce(rules, denied);
    let gone = (0..connections).filter(|number| Bed::is_denied(denied, *number)).count() as u32;
    let counters = Arc::clone(bed.machine.counters());
    let histogram = &counters.time_to_enforce;
    println!(
        "MODEL {profile}, turns of {} us: {gone} of {connections} connections denied, {rules} rules: last \
         packet after p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; time_to_enforce p50 <= {} ms, p99 <= {} ms; \
         rules out after {:.0} ms, fenced for {:.0} ms",
        turn_ns / US,
        ms(outcome.percentile(50)),
        ms(outcome.percentile(99)),
        ms(outcome.percentile(100)),
        below(histogram, 50),
        below(histogram, 99),
        ms(outcome.out_ns),
        ms(outcome.fenced_ns),
    );
    assert!(outcome.percentile(99) < BOUND_NS);
    assert_eq!(histogram.count(), u64::from(gone), "each is timed once");
    bed.settle();
    assert_eq!(bed.heard.packets, bed.forwarded, "each packet is counted once");
    assert_eq!((counters.pairs.get() as u32, bed.heard.removed), (connections - gone, gone));
    assert_eq!(counters.recoveries.get(), 0);
    outcome
}

const ALL: [Denied; 3] = [Denied::Few, Denied::Half, Denied::All];

#[test]
fn hardware_steering_needs_no_fence() {
    for denied in ALL {
        let outcome = case("bf3-hws", 3_000, 100, denied, 100 * US);
        assert_eq!(outcome.fenced_ns, 0, "{denied:?}");
    }
}

#[test]
fn software_steering_is_fenced_while_rules_leave() {
    for denied in ALL {
        let outcome = case("bf2-sws", 3_000, 100, denied, 100 * US);
        assert_eq!(outcome.fenced_ns > 0, denied != Denied::Few, "{denied:?}");
    }
}

#[test]
#[ignore = "the full size, for its histograms: see the head of this file"]
fn a_hundred_thousand_connections() {
    // As long as a turn takes that is full of work, and far longer, as on a core that is shared.
    for turn_us in [100, 1000] {
        for denied in ALL {
            case("bf3-hws", 100_000, 10_000, denied, turn_us * US);
        }
    }
    for denied in ALL {
        case("bf2-sws", 100_000, 10_000, denied, 100 * US);
    }
}

#[test]
fn what_is_asked_for_against_the_policy_is_not_installed() {
    let mut bed = Bed::new("bf3-hws", 10, 10, 100 * US);
    bed.policy = policy(10, Some(Denied::Half), Some(&bed.policy));
    let next = snapshot(Arc::clone(&bed.policy));
    bed.machine.adopt(0, next);
    bed.turn_ns = MS;
    (0..20).for_each(|_| bed.turn());
    for number in [1, 2] {
        bed.machine.ask(bed.now, &ask(number));
    }
    (0..20).for_each(|_| bed.turn());
    assert_eq!((bed.heard.installed, &bed.heard.declined[..]), (1, &[1][..]));
    assert_eq!(bed.machine.counters().insertions.get(), 2);
}
