//! The machine under everything that can happen to it, in any order.

#[path = "support/device.rs"]
mod device;
#[path = "support/world.rs"]
mod world;

use dataplane::flow::Direction;
use dataplane::offload::{OffloadState, Revocation, Revoke, RuleId};
use device::{Device, Faults};
use offload::admission::Policy;
use offload::engine::LegId;
use offload::machine::Settings;
use proptest::prelude::*;
use world::{BACKENDS, MS, SECOND, World, ask, snapshot};

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
