//! Rules that drop what the policy denies: that they are there only while it does, that nothing they drop
//! goes uncounted, and that they yield. On a device that misbehaves on purpose and checks how it is used.

use crate::support::device::{Device, Faults, Random, State};
use dataplane::addr::{Ip, MacAddr, Prefix};
use dataplane::counters::Counter;
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{Answer, Ask, Denied, FlowRef, Leg, Revocation, Revoke, Token};
use dataplane::policy::{Action, Matches, Policy, Source, Statement};
use dataplane::snapshot::{
    Affinity, Backend, BackendState, Mode, OnRemove, Parts, Port, Service, Snapshot, Timeouts, VlanTags,
    link_local,
};
use offload::engine::LegId;
use offload::lower::{PortFacts, Topology};
use offload::machine::{Machine, Outbox, Settings};
use offload::rule::{Action as Act, Item};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const VIP: u32 = 0xc000_0250;
const BACKEND: u32 = 0xc0a8_0110;
const FRONT: PortId = PortId(0);
const BACK: PortId = PortId(1);
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
/// How long a device without faults needs at most until what is allowed again is not dropped any more.
const ENFORCED_NS: u64 = 50 * MS;

fn mac(port: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, port as u8])
}

fn topology() -> Arc<Topology> {
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
    Arc::new(Topology { ports: vec![port(0), port(1)] })
}

/// A rule by this name (none: by what it says) that denies these clients.
fn denies(name: Option<&str>, clients: impl IntoIterator<Item = u32>) -> Statement {
    let prefix = |client| Prefix { address: client_ip(client), length: 32 };
    let from: Vec<Prefix> = clients.into_iter().map(prefix).collect();
    Statement {
        name: name.map(str::to_owned),
        line: 1,
        action: Action::Deny,
        log: false,
        matches: Matches { from: Some(from.into()), ..Matches::default() },
    }
}

fn client_ip(client: u32) -> Ip {
    Ip::v4(0x0a01_0000 + client)
}

fn policy(rules: Vec<Statement>, before: Option<&Arc<Policy>>) -> Arc<Policy> {
    Policy::build(&Source { rules, ..Source::default() }, before).expect("a policy")
}

/// Two services at one address: TCP and UDP.
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
    let service = |id: u16, protocol| Service {
        id: ServiceId(id),
        name: format!("s{id}"),
        tenant: TenantId(0),
        vip: Ip::v4(VIP),
        protocol,
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
    let backend = |id: u16| Backend {
        id: BackendId(id),
        service: ServiceId(id),
        address: Ip::v4(BACKEND),
        port: Some(8080),
        weight: 1,
        share_percent: 100,
        state: BackendState::Active,
        hop: None,
    };
    let parts = Parts {
        ports: vec![port(0, 0x0a00_0001, 8), port(1, 0xc0a8_0101, 24)],
        services: vec![Some(service(0, Protocol::Tcp)), Some(service(1, Protocol::Udp))],
        backends: vec![Some(backend(0)), Some(backend(1))],
        policy,
        ..Parts::default()
    };
    Arc::new(Snapshot::assemble(parts).expect("a snapshot"))
}

/// Even clients speak TCP.
fn key(client: u32) -> FlowKey {
    FlowKey {
        src: client_ip(client),
        dst: Ip::v4(VIP),
        src_port: 40_000,
        dst_port: 80,
        tenant: TenantId(0),
        protocol: if client % 2 == 0 { Protocol::Tcp } else { Protocol::Udp },
    }
}

fn denied(client: u32) -> Denied {
    Denied { ingress: FRONT, key: key(client), per_second: 1000 + client }
}

fn ask(client: u32, token: u32) -> Ask {
    let id = (client % 2) as u16;
    let leg = |ingress, egress| Some(Leg { ingress, egress, next_hop: NEXT });
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: client, generation: token },
        token: Token(token),
        key: key(client),
        backend_end: (Ip::v4(BACKEND), 8080),
        nat: true,
        tunnel: None,
        service: ServiceId(id),
        backend: BackendId(id),
        legs: [leg(FRONT, BACK), leg(BACK, FRONT)],
        packets: 10_000,
        age_ms: 1000,
    }
}

/// Whose rule it is, if it is one that comes from a client.
fn client_of(items: &[Item]) -> Option<(u32, bool)> {
    let v4 = |item: &Item| match item {
        Item::Ipv4 { src: Some(src), dst: Some(VIP), .. } => Some(src - 0x0a01_0000),
        _ => None,
    };
    let client = items.iter().find_map(v4)?;
    Some((client, items.iter().any(|item| matches!(item, Item::Tcp { .. }))))
}

/// Answers that came.
#[derive(Default)]
struct Answers(Vec<Answer>);

impl Outbox for Answers {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        self.0.push(answer);
        Ok(())
    }
}

struct World {
    now_ns: u64,
    /// So many rules that drop there may be.
    deny_rules: usize,
    machine: Machine,
    device: Device,
    answers: Answers,
    policy: Arc<Policy>,
    snapshot: Arc<Snapshot>,
    refreshed_ns: u64,
    /// Packets that hit rules that drop, by client,
    hits: BTreeMap<u32, u64>,
    /// and since when each client is allowed what is dropped all the same.
    wrong_ns: HashMap<u32, u64>,
    token: u32,
}

impl World {
    fn new(settings: &Settings, device: Device, rules: Vec<Statement>) -> World {
        let now_ns = 5 * SECOND;
        let policy = policy(rules, None);
        let snapshot = snapshot(Arc::clone(&policy));
        World {
            now_ns,
            deny_rules: settings.deny_rules as usize,
            machine: Machine::new(now_ns, settings, device.traits, topology(), Arc::clone(&snapshot)),
            device,
            answers: Answers::default(),
            policy,
            snapshot,
            refreshed_ns: now_ns,
            hits: BTreeMap::new(),
            wrong_ns: HashMap::new(),
            token: 0,
        }
    }

    fn govern(&mut self, rules: Vec<Statement>) {
        self.policy = policy(rules, Some(&self.policy));
        self.snapshot = snapshot(Arc::clone(&self.policy));
        self.machine.adopt(self.now_ns, Arc::clone(&self.snapshot));
    }

    fn ask(&mut self, client: u32) {
        if self.machine.room() > 0 {
            self.token += 1;
            self.machine.ask(self.now_ns, &ask(client, self.token));
        }
    }

    fn deny(&mut self, client: u32) {
        self.machine.deny(self.now_ns, &denied(client));
    }

    fn step(&mut self) {
        self.device.now_ns = self.now_ns;
        if self.now_ns - self.refreshed_ns >= 20 * MS {
            self.refreshed_ns = self.now_ns;
            self.device.refresh(true);
        }
        self.machine.step(self.now_ns, &mut self.device, &mut self.answers);
    }

    fn run(&mut self, ns: u64, step_ns: u64) {
        let end = self.now_ns + ns;
        while self.now_ns < end {
            self.now_ns += step_ns;
            self.step();
            self.check();
        }
    }

    /// Rules that drop, by client.
    fn drops(&self) -> BTreeMap<u32, (LegId, State)> {
        let drops = self.device.legs.iter().filter(|(_, held)| held.rule.actions.contains(&Act::Drop));
        let of =
            drops.map(|(leg, held)| (client_of(&held.rule.items).expect("a client's"), *leg, held.state));
        of.filter(|(_, _, state)| *state != State::Out)
            .map(|((client, _), leg, state)| (client, (leg, state)))
            .collect()
    }

    /// Packets of a client: those that a rule drops.
    fn flood(&mut self, client: u32, packets: u64) -> bool {
        let Some((leg, _)) = self.drops().get(&client).copied() else { return false };
        let hit = self.device.hit(leg, packets);
        if hit {
            *self.hits.entry(client).or_default() += packets;
        }
        hit
    }

    /// What must hold after every step: no two rules for one tuple, and none that drops what is allowed for
    /// longer than it takes to be out.
    fn check(&mut self) {
        let mut tuples = BTreeSet::new();
        for held in self.device.legs.values().filter(|held| held.state != State::Out) {
            let Some(tuple) = client_of(&held.rule.items) else { continue };
            assert!(tuples.insert(tuple), "two rules for {tuple:?}");
        }
        let drops = self.drops();
        self.wrong_ns.retain(|client, _| drops.contains_key(client));
        for (client, (_, state)) in drops {
            if self.snapshot.denies_all(FRONT, &key(client)).is_some() {
                self.wrong_ns.remove(&client);
                continue;
            }
            let since_ns = *self.wrong_ns.entry(client).or_insert(self.now_ns);
            let faultless = self.device.faults.queue_full + self.device.faults.silent == 0;
            let late = faultless && self.now_ns - since_ns > ENFORCED_NS;
            assert!(
                !late || self.machine.state() != offload::counters::EngineState::Running,
                "{client} {state:?}"
            );
        }
        let counters = self.machine.counters();
        assert!(counters.rules.get() <= counters.capacity.get());
        assert!(counters.denials.get() <= counters.rules.get());
        let there = self.machine.denial_rows().iter().filter(|row| row.state != "out").count();
        assert!(there <= self.deny_rules);
    }

    fn settle(&mut self) {
        self.device.faults = Faults::default();
        self.run(10 * SECOND, 10 * MS);
    }

    fn dropped(&self) -> u64 {
        self.machine.denials().dropped[DropReason::PolicyDenied as usize].get()
    }

    fn hit(&self) -> u64 {
        self.hits.values().sum()
    }
}

fn settings() -> Settings {
    Settings { deny_rules: 16, idle_ms: 1_000, poll_ms: 50, ..Settings::default() }
}

fn world(rules: Vec<Statement>) -> World {
    let mut world = World::new(&settings(), Device::new(7, 256, 64), rules);
    world.run(20 * MS, MS);
    world
}

#[test]
fn what_is_denied_is_dropped_and_counted_until_nobody_sends_it() {
    for client in [4, 5] {
        let mut world = world(vec![denies(Some("bad"), [4, 5])]);
        world.deny(client);
        world.run(20 * MS, MS);
        let rule = world.device.legs.values().next().expect("a rule").rule.clone();
        assert_eq!(rule.actions[..], [Act::Count, Act::Drop]);
        assert!(
            !rule.items.iter().any(|item| matches!(item, Item::Tcp { flags: Some(_), .. })),
            "SYNs above all"
        );
        for _ in 0..50 {
            assert!(world.flood(client, 100));
            world.run(100 * MS, 5 * MS);
        }
        let rows = world.machine.denial_rows();
        assert_eq!((rows.len(), rows[0].state, rows[0].denied.key), (1, "installed", key(client)));
        world.settle();
        assert!(world.device.legs.is_empty(), "idle");
        assert_eq!((world.hit(), world.dropped()), (5_000, 5_000));
        let denials = world.machine.denials();
        assert_eq!(denials.policy.rules[0].get(), 5_000);
        assert_eq!(denials.services[client as usize % 2].dropped.get(), 5_000);
        assert_eq!(denials.tenants[0].dropped[DropReason::PolicyDenied as usize].get(), 5_000);
        let counters = world.machine.counters();
        assert_eq!(
            (counters.rules.get(), counters.denials.get(), counters.denied_packets.get()),
            (0, 0, 5_000)
        );
        assert_eq!(counters.packets.get(), 0, "nothing was forwarded");
    }
}

#[test]
fn what_is_allowed_again_is_not_dropped_any_more() {
    let mut world = world(vec![denies(None, [2]), denies(None, [3, 4])]);
    [2, 3, 4, 6].into_iter().for_each(|client| world.deny(client));
    world.run(20 * MS, MS);
    assert_eq!(world.drops().keys().copied().collect::<Vec<_>>(), [2, 3, 4], "nobody denies 6");
    [2, 3, 4].into_iter().for_each(|client| assert!(world.flood(client, 10)));
    // 2 is allowed; 3 and 4 are denied by a rule that is another one now.
    world.govern(vec![denies(None, [3, 4, 5])]);
    assert!(world.machine.enforcing());
    world.run(20 * MS, MS);
    assert!(!world.machine.enforcing());
    assert_eq!(world.machine.counters().time_to_enforce.count(), 1, "only that of 2 was to go at once");
    assert!(world.drops().is_empty());
    world.settle();
    assert_eq!((world.hit(), world.dropped()), (30, 30));
    let denials = world.machine.denials();
    let by_rule: u64 = denials.policy.rules.iter().map(Counter::get).sum();
    assert_eq!(by_rule, 0, "the rules had gone when it was known; their numbers may be others' soon");
    assert_eq!(denials.services[0].dropped.get() + denials.services[1].dropped.get(), 30);
}

#[test]
fn what_is_allowed_again_does_not_wait_with_what_leaves_for_less() {
    let settings = Settings { deny_rules: 200, ..settings() };
    let mut world = World::new(&settings, Device::new(7, 1024, 8), vec![denies(Some("bad"), 0..200)]);
    world.run(20 * MS, MS);
    (0..200).for_each(|client| world.deny(client));
    world.run(200 * MS, MS);
    assert_eq!(world.drops().len(), 200);
    // Another rule denies them now: each leaves, to come back and count for that one. Nobody is in a hurry.
    world.govern(vec![denies(Some("other"), 0..200)]);
    world.run(MS, MS);
    let last = *world.drops().iter().rfind(|(_, (_, state))| *state == State::In).expect("one waits").0;
    world.govern(vec![denies(Some("other"), (0..200).filter(|client| *client != last))]);
    world.run(3 * MS, MS);
    let left = world.drops();
    assert!(!matches!(left.get(&last), Some((_, State::In))), "{last} is still dropped");
    assert!(left.len() > 100, "{} others have left", 200 - left.len());
    world.settle();
    assert_eq!(world.dropped(), 0);
}

#[test]
fn a_connection_that_is_denied_does_not_wait_with_what_leaves_for_less() {
    let mut world = World::new(&settings(), Device::new(7, 1024, 8), vec![]);
    world.run(20 * MS, MS);
    for client in 0..200 {
        world.ask(client);
        world.run(2 * MS, MS);
    }
    world.run(200 * MS, MS);
    let forwards = |world: &World, client: u32| {
        let of_client = world.device.legs.values().filter(|held| client_of(&held.rule.items).is_some());
        let mut of_client = of_client.filter(|held| client_of(&held.rule.items).unwrap().0 == client);
        of_client.any(|held| held.state == State::In)
    };
    let in_hardware = |world: &World| (0..200).filter(|client| forwards(world, *client)).count();
    assert_eq!(in_hardware(&world), 200);
    let installed = std::mem::take(&mut world.answers.0);
    for answer in installed {
        if let Answer::Installed { flow, rule, .. } = answer {
            world.machine.revoke(world.now_ns, &Revoke { flow, rule, why: Revocation::Moved });
        }
    }
    world.run(MS, MS);
    let last = (0..200).rev().find(|client| forwards(&world, *client)).expect("one waits");
    world.govern(vec![denies(Some("no-more"), [last])]);
    world.run(3 * MS, MS);
    assert!(!forwards(&world, last), "{last} is still forwarded");
    assert!(in_hardware(&world) > 50, "of the others {} are left", in_hardware(&world));
    world.settle();
    assert_eq!(in_hardware(&world), 0);
}

#[test]
fn a_rule_that_stays_keeps_its_drops_over_reloads() {
    let bad = || denies(Some("bad"), [2, 3]);
    let mut world = world(vec![bad()]);
    [2, 3].into_iter().for_each(|client| world.deny(client));
    world.run(20 * MS, MS);
    for round in 0..20 {
        // Others come and go, before it and behind it, and take numbers.
        let others = (0..round % 3).map(|n| denies(None, [100 + round * 4 + n]));
        let mut rules: Vec<Statement> = others.collect();
        rules.insert((round as usize % 2).min(rules.len()), bad());
        world.govern(rules);
        [2, 3].into_iter().for_each(|client| assert!(world.flood(client, 7)));
        world.run(60 * MS, 5 * MS);
    }
    world.govern(vec![denies(Some("bad"), [9])]);
    world.settle();
    assert!(world.drops().is_empty());
    assert_eq!(world.machine.denials().policy.rules[0].get(), 280);
    assert_eq!(world.dropped(), 280);
}

#[test]
fn a_connection_and_a_drop_never_meet() {
    let mut world = world(Vec::new());
    world.ask(2);
    world.run(50 * MS, MS);
    assert_eq!(world.machine.counters().pairs.get(), 1);
    // Denied, with the connection's rules still there: the drop waits for its next telling.
    world.govern(vec![denies(None, [2])]);
    world.deny(2);
    world.run(SECOND, MS);
    assert!(world.drops().is_empty(), "there were the connection's rules");
    world.deny(2);
    world.run(20 * MS, MS);
    assert_eq!(world.drops().len(), 1);
    // Allowed again, and asked for at once.
    world.govern(Vec::new());
    world.ask(2);
    world.run(500 * MS, MS);
    assert!(world.drops().is_empty());
    assert_eq!(world.machine.counters().pairs.get(), 1);
}

#[test]
fn drops_yield_to_connections() {
    let mut world = World::new(&settings(), Device::new(7, 8, 64), vec![denies(None, 100..200)]);
    world.run(20 * MS, MS);
    (100..110).for_each(|client| world.deny(client));
    world.run(20 * MS, MS);
    assert_eq!(world.drops().len(), 8, "as many as there may be rules");
    for _ in 0..4 {
        for client in 100..110 {
            world.flood(client, 100);
        }
        world.run(500 * MS, 5 * MS);
    }
    (0..4).for_each(|client| world.ask(client));
    world.run(500 * MS, MS);
    assert_eq!(world.machine.counters().pairs.get(), 4, "all of them");
    assert!(world.drops().is_empty());
    // And there is no room for more.
    (100..110).for_each(|client| world.deny(client));
    world.run(500 * MS, MS);
    assert_eq!((world.machine.counters().pairs.get(), world.drops().len()), (4, 0));
}

#[test]
fn there_are_no_more_than_there_may_be_and_who_sends_much_comes_first() {
    let mut world = world(vec![denies(None, 100..300)]);
    (100..130).for_each(|client| world.deny(client));
    world.run(20 * MS, MS);
    assert_eq!(world.drops().len(), 16);
    // Of these, one sends a little, and the rest much.
    for _ in 0..40 {
        for client in 100..116 {
            world.flood(client, if client == 107 { 1 } else { 1000 });
        }
        world.run(100 * MS, 5 * MS);
    }
    world.deny(200);
    world.run(200 * MS, MS);
    world.deny(200);
    world.run(20 * MS, MS);
    let there = world.drops();
    assert!(there.len() == 16 && there.contains_key(&200) && !there.contains_key(&107), "{there:?}");
}

#[test]
fn nothing_is_dropped_where_nothing_is_to_be() {
    let none = Settings { deny_rules: 0, ..settings() };
    let mut world = World::new(&none, Device::new(7, 256, 64), vec![denies(None, [2])]);
    world.run(20 * MS, MS);
    world.deny(2);
    world.run(100 * MS, MS);
    assert!(world.device.legs.is_empty());
}

#[test]
fn a_device_that_forgets_costs_counts_and_nothing_else() {
    let mut world = world(vec![denies(None, 2..10)]);
    (2..10).for_each(|client| world.deny(client));
    world.run(20 * MS, MS);
    (2..10).for_each(|client| assert!(world.flood(client, 10)));
    world.run(100 * MS, 5 * MS);
    world.device.dead = true;
    world.govern(Vec::new());
    world.run(10 * SECOND, 10 * MS);
    assert!(world.drops().is_empty() && !world.machine.enforcing());
    let counters = world.machine.counters();
    assert_eq!((counters.rules.get(), counters.denials.get()), (0, 0));
    assert_eq!(world.dropped(), 80, "known before");
    // It works again.
    world.govern(vec![denies(None, 2..10)]);
    (2..10).for_each(|client| world.deny(client));
    world.run(50 * MS, MS);
    assert_eq!(world.drops().len(), 8);
}

/// Everybody at once, on devices with all kinds of faults: nothing is dropped for longer than may be that is
/// allowed, nothing goes uncounted, and at the end nothing is left.
#[test]
fn a_random_world_comes_to_rest() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let rules_max = [4, 16, 256][random.below(3) as usize];
        let operations_max = [1, 8, 64][random.below(3) as usize];
        let mut device = Device::new(seed, rules_max, operations_max);
        if seed % 2 == 1 {
            let mut often = |most| random.below(most) as u32;
            device.faults = Faults {
                queue_full: often(100),
                table_full: often(100),
                refused: often(60),
                failed: often(100),
                stuck: often(3),
                silent: often(3),
                unsolicited: often(30),
                flush_fails: often(400),
                ..Faults::default()
            };
        }
        let settings = Settings { idle_ms: 300, operation_timeout_ms: 200, ..settings() };
        let mut world = World::new(&settings, device, Vec::new());
        for _ in 0..1500 {
            match random.below(40) {
                0 => {
                    let all: Vec<u32> = (0..24).filter(|_| random.below(3) > 0).collect();
                    let half = all.len() / 2;
                    let named = if random.below(2) == 0 { Some("bad") } else { None };
                    world.govern(vec![
                        denies(named, all[..half].to_vec()),
                        denies(None, all[half..].to_vec()),
                    ]);
                }
                1..=8 => world.deny(random.below(24) as u32),
                9..=12 => {
                    let client = random.below(24) as u32;
                    if world.snapshot.denies_all(FRONT, &key(client)).is_none() {
                        world.ask(client);
                    }
                }
                _ => {
                    world.flood(random.below(24) as u32, 1 + random.below(50));
                }
            }
            world.run(5 * MS, MS);
        }
        let faultless = seed % 2 == 0;
        world.settle();
        assert!(world.drops().is_empty(), "seed {seed}");
        assert_eq!(world.machine.counters().denials.get(), 0, "seed {seed}");
        assert!(!world.machine.enforcing(), "seed {seed}");
        let (hit, dropped) = (world.hit(), world.dropped());
        assert!(dropped <= hit && (!faultless || dropped == hit), "seed {seed}: {dropped} of {hit}");
        let lost = world.machine.counters().recoveries.get() > 0;
        assert!(lost || dropped == hit, "seed {seed}: {dropped} of {hit}");
        assert!(hit > 0 || rules_max == 4, "seed {seed}: nobody was dropped");
    }
}
