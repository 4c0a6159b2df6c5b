//! The machine under everything that can happen to it, in any order.

use crate::support::device::{Device, Faults};
use crate::support::world;
use crate::support::world::{BACKENDS, MS, SECOND, World, ask, of_second, snapshot, two_tenants};
use dataplane::flow::Direction;
use dataplane::ids::{BackendId, ServiceId};
use dataplane::offload::{Answer, Ask, Declined, OffloadState, Removal, Revocation, Revoke, RuleId};
use offload::admission::Policy;
use offload::counters::{EngineState, Eviction, RequestResult};
use offload::engine::LegId;
use offload::machine::Settings;
use proptest::prelude::*;

const CLIENTS: u32 = 40;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask(u32),
    Replace(u32),
    Revoke(u32, usize),
    /// For another connection's rules, or nobody's.
    RevokeWrong(u32, u32),
    Traffic(u32, u64),
    Refresh,
    Aged(u32),
    Time(u64),
    Jump(u64),
    Adopt(u16),
    Dead,
}

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => client.clone().prop_map(Event::Ask),
        2 => client.clone().prop_map(Event::Replace),
        4 => (client.clone(), 0..5usize).prop_map(|(client, why)| Event::Revoke(client, why)),
        1 => (client.clone(), 0..100u32).prop_map(|(client, rule)| Event::RevokeWrong(client, rule)),
        10 => (client, 1..1000u64).prop_map(|(client, packets)| Event::Traffic(client, packets)),
        3 => Just(Event::Refresh),
        1 => (0..100u32).prop_map(Event::Aged),
        12 => (1..2000u64).prop_map(|us| Event::Time(us * 1000)),
        3 => (1..300u64).prop_map(|ms| Event::Time(ms * MS)),
        1 => (0..100u64).prop_map(Event::Jump),
        1 => (0..2 * BACKENDS).prop_map(Event::Adopt),
        1 => Just(Event::Dead),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    let chance = || prop_oneof![3 => Just(0u32), 1 => 1..300u32];
    let rare = || prop_oneof![4 => Just(0u32), 1 => 1..20u32];
    ((chance(), chance(), chance(), chance(), chance()), (rare(), rare(), chance(), chance(), rare()))
        .prop_map(
            |(
                (queue_full, table_full, no_counter, refused, failed),
                (stuck, silent, unsolicited, flush_fails, count_lost),
            )| {
                Faults {
                    queue_full,
                    table_full,
                    no_counter,
                    refused,
                    failed,
                    stuck,
                    silent,
                    unsolicited,
                    flush_fails,
                    count_lost,
                }
            },
        )
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        5 => Just(Policy::Earned),
        1 => Just(Policy::FirstPacket),
        1 => Just(Policy::Threshold(5)),
        2 => Just(Policy::Lru),
    ]
}

fn apply(world: &mut World, event: Event) {
    match event {
        Event::Ask(client) => {
            world.ask(client, |ask| ask.packets = u64::from(client) * 20 + 8);
        }
        Event::Replace(client) => world.replace(client),
        Event::Revoke(client, why) => {
            world.revoke(client, Revocation::ALL[why]);
        }
        Event::RevokeWrong(client, rule) => {
            let flow = ask(client + CLIENTS, 9, 0).flow;
            world
                .machine
                .revoke(world.now_ns, &Revoke { flow, rule: RuleId(rule), why: Revocation::Closing });
        }
        Event::Traffic(client, packets) => {
            world.traffic(client, Direction::Original, packets);
            world.traffic(client, Direction::Reply, packets / 2 + 1);
        }
        Event::Refresh => world.device.refresh(false),
        Event::Aged(rule) => {
            world.device.aged.push(LegId { rule: RuleId(rule), direction: Direction::Reply })
        }
        Event::Time(ns) => {
            world.now_ns += ns;
            world.step();
        }
        Event::Jump(seconds) => {
            world.now_ns += seconds * SECOND;
            world.step();
        }
        Event::Adopt(drained) => {
            world.machine.adopt(world.now_ns, snapshot(&[drained]));
        }
        Event::Dead => world.device.dead = world.device.flushes < 3,
    }
}

/// In no window of time more insertions than the rate and one burst.
fn check_budget(insertions: &[u64], rate: u32) {
    let burst = (f64::from(rate) / 10.0).max(2.0) + 1.0;
    for (from, &start) in insertions.iter().enumerate() {
        for (to, &end) in insertions.iter().enumerate().skip(from) {
            let most = (end - start) as f64 * f64::from(rate) / 1e9 + burst;
            assert!((to - from) as f64 <= most, "{} insertions in {} ns", to - from + 1, end - start);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens, the machine knows of every rule, keeps to its bounds and its budget, answers each
    /// request once, and comes to rest with as many rules as connections that are installed; what hardware
    /// counted is what workers were told.
    #[test]
    fn nothing_gets_lost(
        seed in any::<u64>(),
        faults in faults(),
        policy in policy(),
        rules_max in 2u32..40,
        operations_max in prop_oneof![Just(1u32), Just(2), Just(8), Just(64)],
        rate in prop_oneof![Just(0u32), 20..2000u32],
        full_permille in prop_oneof![Just(0u32), Just(300), Just(900)],
        events in prop::collection::vec(event(), 1..400),
    ) {
        let mut device = Device::new(seed, rules_max, operations_max);
        device.faults = faults;
        let settings = Settings {
            insertions_per_second: rate,
            idle_ms: 3000,
            policy,
            tenant_share_percent: 90,
            ..Settings::default()
        };
        let mut world = World::new(&settings, device);
        world.workers.full_permille = full_permille;
        for event in events {
            apply(&mut world, event);
            world.check();
        }
        world.device.dead = false;
        world.settle();
        if rate > 0 {
            check_budget(&world.device.insertions, rate);
        }
        take_all_back(&mut world);
        check_counts(&world, faults.count_lost > 0);
        let counters = world.machine.counters();
        let requests: u64 = counters.requests.iter().map(|counter| counter.get()).sum();
        prop_assert_eq!(requests, u64::from(world.token));
        let removals: u64 = counters.removals.iter().map(|counter| counter.get()).sum();
        prop_assert_eq!(removals, u64::from(world.workers.answers[0]));
    }
}

/// Every connection ends: every rule goes, every counter is given back, and nothing is left.
fn take_all_back(world: &mut World) {
    for client in 0..CLIENTS {
        world.revoke(client, Revocation::Gone);
    }
    world.settle();
    assert_eq!((world.installed(), world.device.legs.len()), (0, 0));
    assert_eq!(world.machine.rows(0, 1).0.len(), 0);
    assert_eq!(world.workers.answers[0], world.workers.answers[3], "one removal for each that was installed");
    let due: u32 = world.workers.last_due.values().sum();
    assert_eq!(due, 0, "a last count for each removal");
}

fn check_counts(world: &World, counters_lost: bool) {
    let told = world.workers.backends.iter().map(|count| count.packets).sum::<u64>();
    let bytes = world.workers.backends.iter().map(|count| count.bytes).sum::<u64>();
    let (released, flushed) = (world.device.released, world.device.flushed);
    assert_eq!(released.packets + flushed.packets, world.hit.packets);
    if counters_lost {
        assert!(told <= world.hit.packets && bytes <= world.hit.bytes);
    } else if world.device.flushes == 0 {
        assert_eq!((told, bytes), (world.hit.packets, world.hit.bytes));
    } else {
        assert!(told <= world.hit.packets && told >= released.packets);
        assert!(bytes <= world.hit.bytes && bytes >= released.packets * 100);
    }
    assert_eq!(world.machine.counters().packets.get(), told);
    assert_eq!(world.machine.counters().bytes.get(), bytes);
}

#[test]
fn a_connection_goes_in_is_counted_and_comes_back() {
    let mut world = World::new(&Settings::default(), Device::new(1, 100, 64));
    assert!(world.ask(3, |_| ()));
    world.run(5 * MS, 100_000);
    let OffloadState::Installed(rule) = world.workers.state(3) else {
        panic!("{:?}", world.workers.state(3))
    };
    assert!(world.traffic(3, Direction::Original, 1000) && world.traffic(3, Direction::Reply, 10));
    world.run(600 * MS, MS);
    assert_eq!(world.workers.backends[3].packets, 1010);
    assert_eq!(world.workers.backends[3].bytes, 101_000);
    assert!(world.traffic(3, Direction::Original, 7));
    assert!(world.revoke(3, Revocation::Closing));
    world.run(10 * MS, 100_000);
    assert_eq!(world.workers.state(3), OffloadState::Software);
    world.run(100 * MS, MS);
    assert_eq!(world.workers.backends[3].packets, 1017);
    assert_eq!(world.device.legs.len(), 0);
    assert_eq!(world.machine.rows(rule.0, 10).0, []);
    assert_eq!(world.machine.counters().insert_seconds.count(), 2);
}

/// Puts clients' connections in hardware, each with an age and packets that make it worth what is said.
fn fill(world: &mut World, clients: std::ops::Range<u32>) {
    for client in clients.clone() {
        assert!(world.ask(client, |ask| (ask.packets, ask.age_ms) = (100, 1000)));
    }
    world.run(20 * MS, MS);
    for client in clients {
        assert!(matches!(world.workers.state(client), OffloadState::Installed(_)), "{client}");
    }
}

/// Every client's connection carries so many packets per second, for some time.
fn carry(world: &mut World, clients: std::ops::Range<u32>, rate: u64, seconds: u64) {
    for _ in 0..10 * seconds {
        for client in clients.clone() {
            world.traffic(client, Direction::Original, rate / 10);
        }
        world.run(100 * MS, 10 * MS);
    }
}

fn refusal(world: &World) -> (Declined, u32) {
    match world.workers.declined {
        Some(Answer::Declined { reason, retry_ms, .. }) => (reason, retry_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn removals_come_before_admissions() {
    for operations_max in [1, 4, 64] {
        let mut world = World::new(&Settings::default(), Device::new(2, 100, operations_max));
        fill(&mut world, 0..10);
        for client in 10..20 {
            world.ask(client, |_| ());
        }
        for client in 0..10 {
            world.revoke(client, Revocation::Closing);
        }
        world.device.log.clear();
        world.run(20 * MS, 100_000);
        let first_insertion = world.device.log.iter().position(|&insertion| insertion);
        assert_eq!(first_insertion, Some(20), "all 20 rules are on their way out first");
        world.settle();
        assert_eq!(world.installed(), 10);
    }
}

#[test]
fn a_full_table_takes_whom_it_is_clearly_better_off_with() {
    let mut world = World::new(&Settings::default(), Device::new(3, 8, 64));
    fill(&mut world, 0..4);
    carry(&mut world, 0..4, 1000, 10);
    // Worth as much as those that are in, or a little more.
    for packets in [10_000, 14_000] {
        world.ask(10, |ask| (ask.packets, ask.age_ms) = (packets, 10_000));
        world.run(50 * MS, MS);
        assert_eq!(refusal(&world).0, Declined::TableFull);
        assert_eq!(world.installed(), 4);
    }
    // Worth far more: the one that carries least goes for it.
    for _ in 0..10 {
        world.traffic(2, Direction::Original, 1);
        carry(&mut world, 0..2, 1000, 1);
        carry(&mut world, 3..4, 1000, 1);
    }
    world.ask(11, |ask| (ask.packets, ask.age_ms) = (20_000, 10_000));
    world.run(50 * MS, MS);
    assert!(matches!(world.workers.state(11), OffloadState::Installed(_)));
    assert_eq!(world.workers.state(2), OffloadState::Software);
    assert_eq!(world.workers.removals.get(&Removal::Evicted), Some(&1));
    assert_eq!(world.machine.counters().evictions[Eviction::Full as usize].get(), 1);
    // What was evicted does not push the other out in turn.
    world.ask(2, |ask| (ask.packets, ask.age_ms) = (20_000, 10_000));
    world.run(50 * MS, MS);
    assert_eq!(world.installed(), 4);
    assert_eq!(refusal(&world).0, Declined::TableFull);
}

#[test]
fn other_policies_evict_as_their_names_say() {
    for (policy, evicted) in
        [(Policy::FirstPacket, None), (Policy::Threshold(1), None), (Policy::Lru, Some(0))]
    {
        let settings = Settings { policy, ..Settings::default() };
        let mut world = World::new(&settings, Device::new(3, 8, 64));
        fill(&mut world, 0..4);
        carry(&mut world, 1..4, 100, 3);
        world.ask(10, |_| ());
        world.run(50 * MS, MS);
        let gone: Vec<u32> = (0..4).filter(|&c| world.workers.state(c) == OffloadState::Software).collect();
        assert_eq!(gone, Vec::from_iter(evicted), "{policy:?}");
        assert_eq!(matches!(world.workers.state(10), OffloadState::Installed(_)), evicted.is_some());
    }
}

#[test]
fn a_tenant_has_its_share_and_makes_room_among_its_own() {
    let settings = Settings { tenant_share_percent: 50, ..Settings::default() };
    let mut world = World::new(&settings, Device::new(4, 16, 64));
    fill(&mut world, 0..4);
    carry(&mut world, 0..4, 1000, 5);
    world.ask(10, |_| ());
    world.run(50 * MS, MS);
    assert_eq!(refusal(&world).0, Declined::TenantShare);
    world.ask(11, |ask| (ask.packets, ask.age_ms) = (1_000_000, 10_000));
    world.run(50 * MS, MS);
    assert_eq!(world.installed(), 4);
    assert!(matches!(world.workers.state(11), OffloadState::Installed(_)));
    assert_eq!(world.machine.counters().evictions[Eviction::TenantShare as usize].get(), 1);
}

#[test]
fn idle_connections_go_once_neither_direction_is_used() {
    let settings = Settings { idle_ms: 5_000, ..Settings::default() };
    let mut world = World::new(&settings, Device::new(5, 100, 64));
    fill(&mut world, 0..2);
    for _ in 0..10 {
        world.traffic(0, Direction::Reply, 1);
        world.run(SECOND, 10 * MS);
    }
    assert!(matches!(world.workers.state(0), OffloadState::Installed(_)), "replies are use");
    assert_eq!(world.workers.state(1), OffloadState::Software);
    assert_eq!(world.workers.removals.get(&Removal::Idle), Some(&1));
}

#[test]
fn a_new_configuration_takes_out_what_it_does_not_allow() {
    let mut world = World::new(&Settings::default(), Device::new(6, 100, 64));
    fill(&mut world, 0..20);
    assert!(!world.machine.enforcing());
    let before = world.machine.adopt(world.now_ns, snapshot(&[1]));
    assert!(before.allows_offload(ServiceId(0), BackendId(1)) && world.machine.enforcing());
    world.run(5 * MS, 100_000);
    assert!(!world.machine.enforcing());
    assert_eq!(world.installed(), 15);
    assert_eq!(world.workers.removals.get(&Removal::Revoked(Revocation::Policy)), Some(&5));
    let histogram = &world.machine.counters().time_to_enforce;
    assert_eq!(histogram.count(), 5);
    assert!(histogram.sum_ns.get() <= 5 * 5 * MS && histogram.sum_ns.get() > 0);
    // Nor does it admit them again.
    world.ask(1, |_| ());
    world.run(5 * MS, 100_000);
    assert_eq!(refusal(&world).0, Declined::Path);
}

#[test]
fn a_dead_device_is_emptied_and_left_alone_for_longer_each_time() {
    let mut world = World::new(&Settings::default(), Device::new(7, 100, 64));
    let mut rests = Vec::new();
    for round in 1..=4 {
        fill(&mut world, 0..5);
        world.device.dead = true;
        let died_ns = world.now_ns;
        while world.installed() > 0 {
            world.run(10 * MS, 10 * MS);
        }
        assert!(world.now_ns - died_ns <= SECOND, "traffic goes on in software within a second");
        assert_eq!(world.workers.removals.get(&Removal::Lost), Some(&(5 * round)));
        assert_eq!((world.machine.price(), world.machine.state()), (u32::MAX, EngineState::Resting));
        world.ask(6, |_| ());
        world.run(10 * MS, 10 * MS);
        assert_eq!(refusal(&world).0, Declined::Timeout);
        let rest_ns = world.now_ns;
        while world.machine.price() == u32::MAX {
            world.run(10 * MS, 10 * MS);
        }
        rests.push((world.now_ns - rest_ns).div_ceil(SECOND));
    }
    assert_eq!(rests, [1, 2, 4, 8]);
    assert_eq!(world.machine.counters().recoveries.get(), 4);
}

#[test]
fn an_operation_that_does_not_end_is_given_up() {
    let mut world = World::new(&Settings::default(), Device::new(8, 100, 64));
    fill(&mut world, 0..3);
    world.device.faults = Faults { silent: 1000, flush_fails: 1000, ..Faults::default() };
    world.ask(5, |_| ());
    world.revoke(0, Revocation::Closing);
    world.run(5 * SECOND, 10 * MS);
    assert_eq!((world.machine.price(), world.machine.state()), (u32::MAX, EngineState::Recovering));
    assert!(world.machine.counters().flush_failures.get() > 1);
    assert_eq!(world.installed(), 2, "nobody is told before it is true");
    world.settle();
    assert_eq!((world.installed(), world.device.rules()), (0, 0));
    assert_eq!(refusal(&world).0, Declined::Timeout);
}

#[test]
fn an_engine_without_its_base_rules_is_flushed_until_they_come() {
    let mut device = Device::new(10, 100, 64);
    device.base_lost = 2;
    let mut world = World::new(&Settings::default(), device);
    world.ask(0, |_| ());
    for flushes in [0, 1] {
        world.run(5 * SECOND / 2, 10 * MS);
        assert_eq!((world.machine.price(), world.machine.state()), (u32::MAX, EngineState::Resting));
        assert_eq!((world.device.flushes, world.device.insertions.len()), (flushes, 0));
        world.run(SECOND, 10 * MS);
    }
    assert_eq!(refusal(&world).0, Declined::Timeout);
    assert_eq!((world.device.flushes, world.machine.counters().recoveries.get()), (2, 2));
    world.run(3 * SECOND, 10 * MS);
    assert_eq!(world.machine.state(), EngineState::Running);
    fill(&mut world, 1..4);
    assert_eq!(world.installed(), 3);
}

#[test]
fn a_connection_that_fails_again_and_again_waits_longer_each_time() {
    let mut world = World::new(&Settings::default(), Device::new(9, 100, 64));
    world.device.faults.failed = 1000;
    let mut waits = Vec::new();
    for _ in 0..8 {
        world.ask(1, |_| ());
        world.run(5 * MS, MS);
        let (reason, retry_ms) = refusal(&world);
        assert_eq!(reason, Declined::Failed);
        waits.push(retry_ms / 1000);
    }
    assert_eq!(waits.first(), Some(&1));
    assert!(waits.is_sorted() && waits.last() == Some(&64), "{waits:?}");
}

#[test]
fn the_price_rises_when_more_is_asked_than_the_budget_allows_and_falls_again() {
    let settings = Settings { insertions_per_second: 100, ..Settings::default() };
    let mut world = World::new(&settings, Device::new(10, 10_000, 64));
    let mut client = 0;
    for _ in 0..3000 {
        for _ in 0..2 {
            client += 1;
            world.ask(client, |ask| {
                (ask.packets, ask.age_ms) = (8 + u64::from(client) * 7919 % 1000, 100);
            });
        }
        world.run(MS, MS);
    }
    let insertions = world.machine.counters().insertions.get();
    assert!(world.machine.price() > 8, "{}", world.machine.price());
    assert!((200..=312).contains(&insertions), "{insertions}");
    assert_eq!(refusal(&world).0, Declined::Budget);
    world.run(20 * SECOND, 10 * MS);
    assert_eq!(world.machine.price(), 8);
}

#[test]
fn two_rules_with_one_pattern_never_meet() {
    let mut world = World::new(&Settings::default(), Device::new(11, 100, 64));
    fill(&mut world, 0..1);
    // The revocation gets lost: the machine finds out by itself.
    world.workers.flows.insert(0, (2, OffloadState::Software));
    world.ask(0, |_| ());
    world.run(20 * MS, MS);
    assert!(matches!(world.workers.state(0), OffloadState::Installed(_)));
    assert_eq!(world.machine.counters().orphans.get(), 1);
    assert_eq!(world.device.rules(), 2);
}

#[test]
fn what_is_late_for_a_slot_changes_nothing() {
    let mut world = World::new(&Settings::default(), Device::new(12, 1, 64));
    let one_way = |ask: &mut Ask| ask.legs[1] = None;
    world.ask(1, one_way);
    world.run(5 * MS, MS);
    let OffloadState::Installed(rule) = world.workers.state(1) else { panic!("not installed") };
    let late = Revoke { flow: ask(1, 1, 0).flow, rule, why: Revocation::Closing };
    world.revoke(1, Revocation::Gone);
    world.run(200 * MS, MS);
    // The slab has more slots than this; go round until the first is taken again.
    let mut client = 100;
    while world.machine.rows(rule.0, 1).0.first().is_none_or(|row| row.rule != rule) {
        client += 1;
        world.ask(client, one_way);
        world.run(5 * MS, MS);
        world.revoke(client - 1, Revocation::Gone);
        world.run(100 * MS, MS);
        if world.machine.rows(rule.0, 1).0.first().is_none_or(|row| row.rule != rule) {
            world.revoke(client, Revocation::Gone);
            world.run(100 * MS, MS);
        }
    }
    world.machine.revoke(world.now_ns, &late);
    world.run(100 * MS, MS);
    assert_eq!(world.workers.state(client), OffloadState::Installed(rule));
    assert_eq!((world.device.rules(), world.machine.counters().late.get()), (1, 1));
}

#[test]
fn a_tenant_at_its_share_does_not_make_rules_dear_for_others() {
    let settings = Settings { tenant_share_percent: 10, ..Settings::default() };
    let mut world = World::new(&settings, Device::new(13, 100, 64));
    fill(&mut world, 0..5);
    for _ in 0..100 {
        for client in 5..60 {
            world.ask(client, |_| ());
        }
        world.run(20 * MS, MS);
    }
    assert_eq!(refusal(&world).0, Declined::TenantShare);
    assert_eq!((world.installed(), world.machine.price()), (5, settings.price_min));
}

/// However much the first tenant's connections are worth, and however often they ask: the second one's have
/// their share of the rules, and keep it.
#[test]
fn a_tenant_that_wants_all_rules_has_its_share_and_another_has_its_own() {
    let mut world = World::new(&Settings::default(), Device::new(17, 40, 64));
    world.machine.adopt(world.now_ns, two_tenants([Some(10), None]));
    let flood = |world: &mut World, rounds: u64| {
        for round in 0..rounds {
            for client in 0..60 {
                world.ask(client, |ask| (ask.packets, ask.age_ms) = (10_000_000 * (round + 1), 1000));
            }
            world.run(20 * MS, MS);
        }
    };
    flood(&mut world, 50);
    assert_eq!(world.installed(), 2, "10 % of 40 rules, two each");
    world.machine.adopt(world.now_ns, two_tenants([Some(70), Some(30)]));
    flood(&mut world, 50);
    assert_eq!(world.installed(), 14, "a reload gives it more");
    for client in 100..106 {
        assert!(world.ask(client, |ask| {
            of_second(ask);
            (ask.packets, ask.age_ms) = (100, 1000);
        }));
    }
    flood(&mut world, 100);
    let second =
        (100..106).filter(|&client| matches!(world.workers.state(client), OffloadState::Installed(_)));
    assert_eq!((second.count(), world.installed()), (6, 20));
    assert_eq!(world.machine.counters().evictions[Eviction::Full as usize].get(), 0);
    assert!(world.machine.counters().evictions[Eviction::TenantShare as usize].get() > 0);
    assert_eq!(world.machine.price(), Settings::default().price_min, "and rules are no dearer for it");
}

#[test]
fn replies_that_look_alike_never_meet() {
    let mut world = World::new(&Settings::default(), Device::new(14, 100, 64));
    world.device.delay_ns = 50 * MS;
    world.ask(4, |_| ());
    world.run(200 * MS, MS);
    assert!(matches!(world.workers.state(4), OffloadState::Installed(_)));
    // Its entry is gone; another connection of the same client's port has the same backend behind another
    // port of the VIP, so its replies look like the ones before.
    world.revoke(4, Revocation::Gone);
    world.ask(104, |ask| {
        ask.key.src = dataplane::addr::Ip::v4(0x0a01_0000 + 4);
        ask.key.dst_port = 81;
    });
    world.run(SECOND, MS);
    assert!(matches!(world.workers.state(104), OffloadState::Installed(_)));
    assert_eq!((world.installed(), world.device.rules()), (1, 2));
}

#[test]
fn counters_that_lag_do_not_make_a_connection_idle() {
    let settings = Settings { idle_ms: 1_000, ..Settings::default() };
    let mut device = Device::new(16, 100, 64);
    device.traits.settle_ms = 2_000;
    let mut world = World::new(&settings, device);
    fill(&mut world, 0..1);
    world.refresh_ns = 1_500 * MS;
    carry(&mut world, 0..1, 1000, 10);
    assert!(matches!(world.workers.state(0), OffloadState::Installed(_)));
}

#[test]
fn workers_hear_of_rules_that_cannot_be_taken_out() {
    let mut world = World::new(&Settings::default(), Device::new(17, 100, 64));
    fill(&mut world, 0..3);
    world.device.faults = Faults { silent: 1000, flush_fails: 1000, ..Faults::default() };
    world.revoke(0, Revocation::Closing);
    world.run(5 * SECOND, 10 * MS);
    assert_eq!(world.machine.state(), EngineState::Recovering);
    let (heard, packets) = (world.workers.answers[2], world.workers.backends[1].packets);
    carry(&mut world, 1..2, 1000, 5);
    world.run(SECOND, 10 * MS);
    assert!(world.workers.answers[2] >= heard + 3 * 10, "they are still in force, the first one's too");
    assert_eq!(world.workers.backends[1].packets, packets + 5000);
    world.settle();
    assert_eq!((world.installed(), world.device.rules()), (0, 0));
}

/// However long it did not: until then they forward as they did, even to where nobody is any more.
#[test]
fn rules_leave_within_a_second_of_the_engine_answering_again() {
    for silence in 4..=20 {
        let mut world = World::new(&Settings::default(), Device::new(19, 100, 64));
        fill(&mut world, 0..3);
        world.device.faults = Faults { silent: 1000, flush_fails: 1000, ..Faults::default() };
        world.revoke(0, Revocation::Moved);
        world.run(silence * SECOND, 10 * MS);
        assert_eq!((world.machine.state(), world.device.rules()), (EngineState::Recovering, 6));
        world.device.faults = Faults::default();
        world.run(SECOND + 10 * MS, 10 * MS);
        assert_eq!(world.device.rules(), 0, "after {silence} s");
    }
}

#[test]
fn those_that_were_lost_together_do_not_come_back_together() {
    let mut world = World::new(&Settings::default(), Device::new(18, 100, 64));
    fill(&mut world, 0..20);
    world.device.dead = true;
    world.run(SECOND, 10 * MS);
    assert_eq!(world.workers.removals.get(&Removal::Lost), Some(&20));
    let mut retries = world.workers.retries.clone();
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() >= 15 && retries[0] >= 1000, "{retries:?}");
}

/// Connections of `packets` packets each, and what became of them.
#[derive(Default)]
struct Herd {
    flows: std::collections::HashMap<u32, Beast>,
    answers: Vec<Answer>,
}

struct Beast {
    born_ns: u64,
    gap_ns: u64,
    packets: u64,
    carried: u64,
    state: OffloadState,
    retry_ns: u64,
}

impl offload::machine::Outbox for Herd {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        self.answers.push(answer);
        Ok(())
    }
}

impl Herd {
    fn join(&mut self, number: u32, now_ns: u64, gap_ns: u64, packets: u64) {
        let state = OffloadState::Software;
        let beast = Beast { born_ns: now_ns, gap_ns, packets, carried: 0, state, retry_ns: 0 };
        self.flows.insert(number, beast);
    }

    /// Packets come, connections are asked for and end.
    fn graze(&mut self, now_ns: u64, machine: &mut offload::machine::Machine) {
        let price = u64::from(machine.price());
        self.flows.retain(|&number, beast| {
            if now_ns < beast.born_ns + beast.carried * beast.gap_ns {
                return true;
            }
            beast.carried += 1;
            let free = match beast.state {
                OffloadState::Software => true,
                OffloadState::Declined(_) => now_ns >= beast.retry_ns,
                _ => false,
            };
            let mut wish = ask(number, 1, number);
            wish.key.src_port = (number >> 16) as u16;
            (wish.packets, wish.age_ms) = (beast.carried, ((now_ns - beast.born_ns) / MS) as u32);
            if free && beast.carried >= price && machine.room() > 0 {
                beast.state = OffloadState::Requested(wish.token);
                machine.ask(now_ns, &wish);
            }
            if let (true, OffloadState::Installed(rule)) = (beast.carried == beast.packets, beast.state) {
                machine.revoke(now_ns, &Revoke { flow: wish.flow, rule, why: Revocation::Closing });
            }
            beast.carried < beast.packets
        });
    }

    /// Answers are heard; `home` learns who is in hardware now.
    fn hear(&mut self, now_ns: u64, machine: &mut offload::machine::Machine, mut home: impl FnMut(u32, u64)) {
        for answer in std::mem::take(&mut self.answers) {
            let number = answer.flow().slot;
            match (answer, self.flows.get_mut(&number)) {
                (Answer::Installed { rule, .. }, Some(beast)) => {
                    beast.state = OffloadState::Installed(rule);
                    home(number, now_ns - beast.born_ns);
                }
                (Answer::Installed { flow, rule, .. }, None) => {
                    machine.revoke(now_ns, &Revoke { flow, rule, why: Revocation::Orphan });
                }
                (Answer::Declined { reason, retry_ms, .. }, Some(beast)) => {
                    beast.state = OffloadState::Declined(reason);
                    beast.retry_ns = now_ns + u64::from(retry_ms) * MS;
                }
                (Answer::Removed { retry_ms, .. }, Some(beast)) => {
                    beast.state = OffloadState::Declined(Declined::Budget);
                    beast.retry_ns = now_ns + u64::from(retry_ms) * MS;
                }
                _ => {}
            }
        }
    }
}

/// 10 000 new connections a second of 10 packets each do not keep 100 long ones out of hardware that takes
/// 3000 insertions a second.
#[test]
fn elephants_do_not_wait_for_mice() {
    for mouse_gap_ns in [MS, 100 * MS] {
        let settings = Settings { insertions_per_second: 3000, ..Settings::default() };
        let mut device = Device::new(19, 65_536, 64);
        let topology = world::topology();
        let mut machine =
            offload::machine::Machine::new(0, &settings, device.traits, topology, snapshot(&[]));
        let (mut herd, mut number, mut times) = (Herd::default(), 1000, Vec::new());
        let begin_ms = 3000;
        for ms in 0..begin_ms + 2000 {
            let now_ns = ms * MS;
            for _ in 0..10 {
                number += 1;
                herd.join(number, now_ns, mouse_gap_ns, 10);
            }
            if ms >= begin_ms && ms < begin_ms + 100 {
                herd.join((ms - begin_ms) as u32, now_ns, MS, u64::MAX);
            }
            herd.graze(now_ns, &mut machine);
            device.now_ns = now_ns;
            machine.step(now_ns, &mut device, &mut herd);
            herd.hear(now_ns, &mut machine, |number, ns| {
                if number < 100 {
                    times.push(ns / MS);
                }
            });
        }
        times.sort_unstable();
        assert_eq!(times.len(), 100, "{times:?}");
        assert!(times[99] <= 2000, "{times:?}");
    }
}

#[test]
fn what_the_driver_always_refuses_is_not_tried_for_every_connection() {
    let settings = Settings { insertions_per_second: 1000, ..Settings::default() };
    let mut world = World::new(&settings, Device::new(20, 10_000, 64));
    world.device.faults.refused = 1000;
    for client in 0..2000 {
        world.ask(client, |_| ());
        world.run(5 * MS, MS);
    }
    let tries = world.device.insertions.len();
    assert!((16..40).contains(&tries), "{tries}");
    assert_eq!(refusal(&world).0, Declined::Refused);
    assert_eq!(world.machine.counters().requests[RequestResult::Rejected as usize].get(), 2000);
    // Once the driver takes such rules all is as before.
    world.device.faults.refused = 0;
    for client in 2000..4000 {
        world.ask(client, |_| ());
        world.run(20 * MS, MS);
    }
    assert!(world.installed() > 500, "{}", world.installed());
}

/// However much room there is, a question does not keep the thread from its work.
#[test]
fn who_asks_for_rows_looks_at_a_part_of_the_slots() {
    let settings = Settings { rules_max: 100_000, ..Settings::default() };
    let world = World::new(&settings, Device::new(9, settings.rules_max, 64));
    let mut next = Some(0);
    let mut looks = 0;
    while let Some(from) = next {
        let (rows, more) = world.machine.rows(from, usize::MAX);
        assert!(rows.is_empty() && more.is_none_or(|more| more > from));
        (next, looks) = (more, looks + 1);
    }
    assert!(looks > 1, "all in one go");
}
