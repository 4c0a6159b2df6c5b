//! Driving what `plan` speaks of to its limit: the machine on the model of a device, and the walk's tables.
//!
//! What gave way is told from the machine, the device and the worker's counters themselves, and not from
//! anything that `plan` computes: a plan is held against it.

use super::stage::{Device, Rehearsal, Rehearsed, Scene, numbered};
use dataplane::addr::Ip;
use dataplane::config::Config;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::drops::DropReason;
use dataplane::ids::TenantId;
use dataplane::offload::{Answer, Ask, Declined, FlowRef, Revocation, Revoke, RuleId};
use eswitch::model::profile::Profile;
use eswitch::model::timing::Timing;
use eswitch::model::types::Tick;
use offload::machine::{Absent, pairs_max};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
/// How long connections come and go before it counts, and then.
const SETTLE_S: u64 = 10;
const CHURN_S: u64 = 8;
/// Connections after which a limit is out of reach.
const CONNECTIONS_MAX: u32 = 20_000;
/// How often the device's ceiling lets packets pass, how many times, and how many may wait for it.
const POUR_STEP_NS: u64 = 10_000;
const POUR_STEPS: u64 = 50_000;
const WAITING_MAX: usize = 1000;

/// What gave way, and how many connections there were by then.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Gave {
    pub(super) limit: String,
    pub(super) connections: u32,
}

/// The `n`th client's connection.
fn another(ask: &Ask, n: u32) -> Ask {
    let mut other = numbered(ask, n);
    other.key.src_port = 1024 + (n % 60_000) as u16;
    if other.key.src.is_v4() {
        other.key.src = Ip::v4(ask.key.src.low32() ^ (n / 60_000));
    }
    (other.packets, other.age_ms) = (100, 1000);
    other
}

/// What the walk asks hardware for, of each service.
pub(super) fn asks(config: &Config, scene: &Scene) -> Vec<Ask> {
    let ask = |service| match scene.rehearse(config, service, None) {
        Rehearsed::Asks(ask) => *ask,
        Rehearsed::Stays(reason, text) => panic!("{}: {reason}: {text}", service.name),
        Rehearsed::Parted => panic!("{}: it keeps no connections", service.name),
    };
    let services = scene.snapshot.services.iter().flatten();
    services.filter(|service| service.affinity.keeps_connections()).map(ask).collect()
}

/// Adds one port of a service by source partition after the other until some rule of theirs is not in
/// hardware: what gave way, how many rules there were, and of how many ports.
pub(super) fn part(profile: &Profile, config_of: impl Fn(u16) -> Config) -> (Gave, u16) {
    for ports in 1..64 {
        let config = config_of(ports);
        let mut device = with_partitions(&config, profile);
        let tallies = device.machine.partition_tallies();
        let all: u64 =
            tallies.values().map(|tally| tally.planned + tally.unplanned.iter().sum::<u64>()).sum();
        let installed: u64 = tallies.values().map(|tally| tally.installed).sum();
        if installed == all {
            continue;
        }
        let [rules, counters, ..] = device.holds();
        let unplanned = tallies.values().any(|tally| tally.unplanned[Absent::Full as usize] > 0);
        let limit = match () {
            () if unplanned => "partition_rules",
            () if rules == u64::from(config.offload.rules_max) => "rules_max",
            () if counters == u64::from(profile.counters_max) => "counters",
            () if device.engine.device().statistics().rules == profile.rules_max => "device_rules",
            () => panic!("{installed} of {all} rules are in, and nothing is full: {tallies:?}"),
        };
        return (Gave { limit: limit.into(), connections: installed as u32 }, ports);
    }
    panic!("no limit within 64 ports");
}

/// Rules of source partitions that a device takes.
pub(super) fn parted(config: &Config, profile: &Profile) -> u64 {
    let device = with_partitions(config, profile);
    device.machine.partition_tallies().values().map(|tally| tally.installed).sum()
}

fn with_partitions(config: &Config, profile: &Profile) -> Device {
    let scene = Scene::new(config, profile).expect("a scene");
    let mut device = scene.device(config, profile, config.offload.rules_max).expect("a device");
    device.put_partitions_in(&scene.snapshot);
    device
}

/// Has hardware take one connection of each service after the other, over and over, until it takes no more.
pub(super) fn fill(config: &Config, profile: &Profile) -> Gave {
    let scene = Scene::new(config, profile).expect("a scene");
    let mut device = scene.device(config, profile, config.offload.rules_max).expect("a device");
    device.put_partitions_in(&scene.snapshot);
    let asks = asks(config, &scene);
    for n in 0..CONNECTIONS_MAX {
        let ask = another(&asks[n as usize % asks.len()], n);
        match device.ask(&ask) {
            Some(Answer::Installed { .. }) => {}
            Some(Answer::Declined { reason, .. }) => {
                let limit = culprit(config, profile, &mut device, &ask, reason);
                return Gave { limit, connections: n };
            }
            other => panic!("connection {n}: {other:?}"),
        }
    }
    panic!("no limit within {CONNECTIONS_MAX} connections");
}

/// What the machine and the device have no more of.
fn culprit(config: &Config, profile: &Profile, device: &mut Device, ask: &Ask, why: Declined) -> String {
    let [rules, counters, ages, meters] = device.holds();
    let all_rules = device.engine.device().statistics().rules;
    let full = |held: u64, most: u32| held == u64::from(most);
    match why {
        Declined::TenantShare => format!("tenant_share:{}", tenant(config, ask.key.tenant)),
        Declined::Metered if full(meters, profile.meters_max) => "meters".into(),
        Declined::TableFull if rules + 2 > u64::from(config.offload.rules_max) => "rules_max".into(),
        Declined::TableFull if full(counters, profile.counters_max) => "counters".into(),
        Declined::TableFull if full(ages, profile.ages_max) => "ages".into(),
        // By templates, the device takes the rule first and reports the failure later.
        Declined::TableFull | Declined::Failed if all_rules == profile.rules_max => "device_rules".into(),
        other => other.name().to_owned(),
    }
}

fn tenant(config: &Config, tenant: TenantId) -> &str {
    &config.tenants[tenant.index()].name
}

/// How many connections were turned away, and why.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Churned {
    /// The budget was spent.
    pub(super) budget: u32,
    /// There was room for rules, and none for connections: those that are over are still being counted.
    pub(super) settling: u32,
}

/// Has connections come and go, evenly, so many a second, each for `life_s`: how many were turned away in
/// [`CHURN_S`] after a while of [`SETTLE_S`]. The machine first measures an engine that has nothing to remove
/// yet.
pub(super) fn churn(config: &Config, profile: &Profile, per_second: f64, life_s: f64) -> Churned {
    let scene = Scene::new(config, profile).expect("a scene");
    let mut device = scene.device(config, profile, config.offload.rules_max).expect("a device");
    let asks = asks(config, &scene);
    let begun = device.now_ns;
    let (mut n, mut churned) = (0, Churned::default());
    let mut rules: HashMap<FlowRef, RuleId> = HashMap::new();
    let mut leaving: VecDeque<(u64, FlowRef)> = VecDeque::new();
    while device.now_ns < begun + (SETTLE_S + CHURN_S) * SECOND {
        let elapsed_s = (device.now_ns - begun) as f64 / SECOND as f64;
        while f64::from(n) < elapsed_s * per_second && device.machine.room() > 0 {
            let ask = another(&asks[n as usize % asks.len()], n);
            device.machine.ask(device.now_ns, &ask);
            leaving.push_back((device.now_ns + (life_s * SECOND as f64) as u64, ask.flow));
            n += 1;
        }
        while leaving.front().is_some_and(|(due, _)| *due <= device.now_ns) {
            let Some((_, flow)) = leaving.pop_front() else { break };
            if let Some(rule) = rules.remove(&flow) {
                device.machine.revoke(device.now_ns, &Revoke { flow, rule, why: Revocation::Closing });
            }
        }
        device.turn();
        for answer in std::mem::take(&mut device.told.answers) {
            match answer {
                Answer::Installed { flow, rule, .. } => drop(rules.insert(flow, rule)),
                Answer::Declined { reason: Declined::Budget, .. } => {
                    churned.budget += u32::from(elapsed_s >= SETTLE_S as f64);
                }
                Answer::Declined { reason: Declined::TableFull, .. } if is_settling(config, &mut device) => {
                    churned.settling += u32::from(elapsed_s >= SETTLE_S as f64);
                }
                Answer::Declined { reason, .. } => panic!("{reason:?} after {n} connections"),
                Answer::Removed { flow, .. } => drop(rules.remove(&flow)),
                Answer::Counted { .. } => {}
            }
        }
    }
    churned
}

/// Whether nearly all places for connections are taken, and there is room for more rules. A few places may
/// have become free since somebody was turned away.
fn is_settling(config: &Config, device: &mut Device) -> bool {
    let (places, places_max) =
        (device.machine.rows(0, usize::MAX).0.len(), pairs_max(config.offload.rules_max));
    let room = u64::from(config.offload.rules_max) - device.holds()[0];
    room > 2 && 100 * places >= 97 * places_max as usize
}

/// Whether hardware takes the first connection of the last service, on this profile.
pub(super) fn takes(config: &Config, profile: &Profile) -> bool {
    let scene = Scene::new(config, profile).expect("a scene");
    let mut device = scene.device(config, profile, config.offload.rules_max).expect("a device");
    let asks = asks(config, &scene);
    matches!(asks.last().and_then(|ask| device.ask(ask)), Some(Answer::Installed { .. }))
}

/// Opens connections of the first service through the walk, `packets` of each, so many a second, until its
/// table gives one up for another or refuses one. `None`: it never did within `seconds`.
pub(super) fn crowd(config: &Config, packets: u32, per_second: u32, seconds: u32) -> Option<Gave> {
    let profile = Profile::named("ideal").expect("a built-in profile");
    let scene = Scene::new(config, &profile).expect("a scene");
    let counters = scene.counters();
    let mut walk = Rehearsal::new(&config.limits, &scene, Arc::clone(&counters));
    walk.worker.set_price(u32::MAX);
    let service = scene.snapshot.services.iter().flatten().next().expect("a service");
    let (client, front) = scene.client(config, service, None).expect("a client");
    let hops = scene.snapshot.next_hops().iter().copied();
    hops.chain(scene.snapshot.route(service.tenant, client)).for_each(|hop| walk.introduce(hop));
    let begun = walk.now;
    for n in 0..per_second * seconds {
        walk.now = begun.after_ms((u64::from(n) * 1000 / u64::from(per_second)) as u32);
        walk.worker.on_tick(walk.now, &mut walk.outside);
        walk.outside.notes.clear();
        let client = (Ip::v4(client.low32() ^ (n / 60_000)), 1024 + (n % 60_000) as u16);
        walk.open(&scene.snapshot, service, (client, front), packets);
        if let Some(limit) = gave_way(config, &counters) {
            return Some(Gave { limit, connections: n });
        }
    }
    None
}

/// What the tables have no more of, if a newcomer had to be refused or another to go for it.
fn gave_way(config: &Config, counters: &WorkerCounters) -> Option<String> {
    let refused = |reason: DropReason| counters.dropped[reason as usize].get() > 0;
    let drops: u64 = counters.dropped.iter().map(Counter::get).sum();
    let (half_open, others) = (counters.evicted_half_open.get(), counters.evicted_idle.get());
    if drops + half_open + others == 0 {
        return None;
    }
    // One goes for another at the tenant's limit, too, while there is room in the table.
    let full = counters.entries.get() + 1 >= u64::from(config.limits.connections);
    let limit = if half_open > 0 || refused(DropReason::HalfOpenLimit) {
        "half_open".to_owned()
    } else if full && others > 0 || refused(DropReason::TableFull) {
        "connections".to_owned()
    } else if others > 0 || refused(DropReason::TenantLimit) {
        format!("tenant_connections:{}", config.tenants.first().map_or("default", |tenant| &tenant.name))
    } else {
        panic!("{drops} packets dropped, and not for want of room");
    };
    Some(limit)
}

/// Packets of these rates and lengths come to the device's ceiling, evenly, for half a second: how many find
/// more than [`WAITING_MAX`] others waiting.
pub(super) fn pour(profile: &Profile, streams: &[(f64, usize)]) -> usize {
    let mut timing = Timing::new(profile, 1);
    let mut waiting: VecDeque<usize> = VecDeque::new();
    let mut came = vec![0.0; streams.len()];
    let mut lost = 0;
    for step in 1..=POUR_STEPS {
        for (came, (per_second, bytes)) in came.iter_mut().zip(streams) {
            let due = (step * POUR_STEP_NS) as f64 / SECOND as f64 * per_second;
            while *came + 1.0 <= due {
                *came += 1.0;
                waiting.push_back(*bytes);
            }
        }
        let admitted = timing.admit(Tick(step * POUR_STEP_NS), waiting.len());
        timing.shorten(waiting.drain(..admitted));
        lost += waiting.len().saturating_sub(WAITING_MAX);
        waiting.truncate(WAITING_MAX);
    }
    lost
}
