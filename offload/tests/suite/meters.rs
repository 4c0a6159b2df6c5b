//! Meters that hardware and software share, as the machine makes, feeds and ends them.

use crate::support::device;
use crate::support::device::Device;
use crate::support::world;
use crate::support::world::{MS, SECOND, World};
use dataplane::addr::MacAddr;
use dataplane::config::Config;
use dataplane::conntrack::Count;
use dataplane::flow::Direction;
use dataplane::ids::ServiceId;
use dataplane::meter::{Account, Meter, Nanos};
use dataplane::offload::{Answer, Declined, OffloadState, Removal, Revocation};
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use offload::counters::EngineState;
use offload::engine::Metering;
use offload::machine::Settings;
use offload::rule::Action;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The network of `world`, with limits.
const NET: &str = r#"
TENANT
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/8"]
[[port]]
name = "back"
device = "net_null1"
addresses = ["192.168.1.1/24"]
[[service]]
name = "web0"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
LIMIT
[[service.backend]]
address = "192.168.1.16:8080"
[[service.backend]]
address = "192.168.1.17:8080"
[[service.backend]]
address = "192.168.1.18:8080"
[[service.backend]]
address = "192.168.1.19:8080"
"#;

fn snapshot(tenant: &str, limit: &str, previous: Option<&Snapshot>) -> Arc<Snapshot> {
    let table = |limit: &str| match limit {
        "" => String::new(),
        limit => format!("limit = {{ {limit} }}"),
    };
    let tenant = format!("[[tenant]]\nname = \"default\"\n{}", table(tenant));
    let text = NET.replace("TENANT", &tenant).replace("LIMIT", &table(limit));
    let config = Config::parse("test", &text).unwrap_or_else(|faults| panic!("{faults}"));
    let facts: Vec<_> =
        (0..2).map(|port| PortFacts { mac: MacAddr([2, 0, 0, 0, 0, port]), mtu: 1500 }).collect();
    let built = Snapshot::build(&config, &facts, &Overrides::default(), previous, &|_| 0);
    Arc::new(built.expect("a snapshot"))
}

/// A world whose device has meters, and the meter of its service.
fn metered(limit: &str) -> (World, Arc<Meter>) {
    let mut device = Device::new(7, 128, 64);
    device.traits.meters = Some(Metering { meters_max: 8, rules_max: 100, counts_red: false });
    device.meters = Some(BTreeMap::new());
    let mut world = World::new(&Settings::default(), device);
    let snapshot = snapshot("", limit, None);
    let meter = snapshot.metered(ServiceId(0)).and_then(|metered| metered.service.clone());
    world.machine.adopt(world.now_ns, snapshot);
    world.run(10 * MS, MS);
    (world, meter.expect("a meter"))
}

fn fill(world: &mut World, clients: std::ops::Range<u32>) {
    clients.clone().for_each(|client| assert!(world.ask(client, |_| ())));
    world.run(20 * MS, MS);
    for client in clients {
        assert!(matches!(world.workers.state(client), OffloadState::Installed(_)), "{client}");
    }
}

fn meters(world: &World) -> Vec<(u32, u64, u64, bool)> {
    let meters = world.device.meters.iter().flatten();
    meters.map(|(number, (meter, _))| (*number, meter.per_second, meter.burst, meter.packets)).collect()
}

/// The numbers that rules name.
fn named(world: &World) -> Vec<u32> {
    let mut named: Vec<u32> = world
        .device
        .legs
        .values()
        .filter(|held| held.state == device::State::In)
        .map(|held| match held.rule.actions[..2] {
            [Action::Meter(number), Action::Count] => number,
            _ => 0,
        })
        .collect();
    named.sort_unstable();
    named
}

fn refusal(world: &mut World, client: u32) -> Declined {
    assert!(world.ask(client, |_| ()));
    world.run(20 * MS, MS);
    match world.workers.declined {
        Some(Answer::Declined { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rules_name_their_meter_which_has_what_software_leaves() {
    let (mut world, meter) = metered("packets_per_second = 10000, burst_ms = 100");
    fill(&mut world, 0..3);
    assert_eq!((meters(&world), named(&world)), (vec![(1, 5_000, 500, true)], vec![1; 6]));
    world.run(2 * SECOND, MS);
    assert_eq!(meters(&world), [(1, 10_000, 500, true)], "software had nothing to do");
    // Software takes three tenths.
    let mut account = Account::default();
    for _ in 0..1_500 {
        world.run(MS, MS);
        (0..3)
            .for_each(|_| assert_eq!(meter.charge(Nanos(world.now_ns), &mut account, 60).colour() as u8, 0));
    }
    let [(1, share, ..)] = meters(&world)[..] else { panic!("{:?}", meters(&world)) };
    assert!(share.abs_diff(7_000) < 700, "{share}");
    assert_eq!(meter.in_hardware().rate(), share);
}

/// It may begin with a burst each time it is told a rate: it is not told often, and each burst is paid for.
#[test]
fn what_a_device_is_told_is_paid_for() {
    let (mut world, meter) = metered("packets_per_second = 10000, burst_ms = 1000");
    fill(&mut world, 0..1);
    let (mut account, mut software, mut told) = (Account::default(), 0u64, meters(&world));
    let mut hardware = told[0].2;
    for ms in 0..20_000u64 {
        world.run(MS, MS);
        // Software takes more or less, so that shares never come to rest; the device always has too much.
        let wanted = if ms / 700 % 2 == 0 { 2 } else { 6 };
        for _ in 0..wanted {
            let colour = meter.charge(Nanos(world.now_ns), &mut account, 60).colour();
            software += u64::from(colour as u8 == 0);
        }
        let now = meters(&world);
        if now != told {
            // Its whole burst again.
            hardware += 1_000 * now[0].2;
            told = now;
        }
        hardware += told[0].1;
        let drops = world.device.meters.iter_mut().flatten().next().expect("a meter");
        drops.1.1.packets += 10;
    }
    let passed = software + hardware / 1_000;
    assert!(passed <= 200_000 + 10_000, "{software} and {}", hardware / 1_000);
    assert!(passed >= 190_000, "{software} and {}", hardware / 1_000);
}

/// Hardware's part is reserved: what software gets is the rest, to the packet.
#[test]
fn both_halves_together_have_the_rate() {
    let (mut world, meter) = metered("packets_per_second = 10000, burst_ms = 100");
    fill(&mut world, 0..1);
    let (mut account, mut software, mut hardware) = (Account::default(), 0u64, 0u64);
    for ms in 0..10_000u64 {
        world.run(MS, MS);
        for _ in 0..20 {
            let colour = meter.charge(Nanos(world.now_ns), &mut account, 60).colour();
            software += u64::from(colour as u8 == 0 && ms >= 4_000);
        }
        // As much as its meter lets through, and twice that is offered.
        let share = meters(&world)[0].1;
        let drops = world.device.meters.iter_mut().flatten().next().expect("a meter");
        drops.1.1.packets += share / 1_000;
        hardware += if ms >= 4_000 { share } else { 0 };
    }
    let passed = software + hardware / 1_000;
    assert!(passed.abs_diff(60_000) <= 600, "{software} and {}", hardware / 1_000);
    assert!(software.abs_diff(30_000) < 1_500, "they share it evenly: {software}");
}

#[test]
fn what_hardware_drops_is_the_meter_s_red() {
    let (mut world, meter) = metered("bits_per_second = 80_000_000, burst_ms = 100");
    fill(&mut world, 0..1);
    assert_eq!(meters(&world), [(1, 5_000_000, 500_000, false)]);
    if let Some((_, drops)) = world.device.meters.as_mut().and_then(|meters| meters.get_mut(&1)) {
        *drops = Count { packets: 10, bytes: 1_140 };
    }
    world.run(200 * MS, MS);
    assert_eq!(meter.in_hardware().red(), (10, 1_000), "bytes of IP packet");
    // Frames of 114 bytes carry 100 of IP packet each: the device counts more.
    for _ in 0..100 {
        world.traffic(0, Direction::Original, 1_000);
        world.run(20 * MS, MS);
    }
    let [(1, share, ..)] = meters(&world)[..] else { panic!("{:?}", meters(&world)) };
    assert!(share.abs_diff(11_400_000) < 100_000, "{share}");
}

#[test]
fn a_reload_that_changes_limits_has_other_meters() {
    let (mut world, _) = metered("packets_per_second = 10000");
    fill(&mut world, 0..4);
    // Nothing has changed.
    let first = snapshot("", "packets_per_second = 10000", None);
    world.machine.adopt(world.now_ns, Arc::clone(&first));
    world.run(50 * MS, MS);
    // These meters are others, as there is no snapshot that they were taken from.
    assert_eq!(world.workers.removals.get(&Removal::Revoked(Revocation::Policy)), Some(&4));
    fill(&mut world, 0..4);
    assert_eq!(named(&world), [2; 8]);
    world.machine.adopt(world.now_ns, snapshot("", "packets_per_second = 10000", Some(&first)));
    world.run(50 * MS, MS);
    assert_eq!((named(&world), world.installed()), (vec![2; 8], 4), "its meter goes on as it was");
    // Another limit: the same meter at another rate, and rules stay where they are.
    world.run(2 * SECOND, MS);
    let second = snapshot("", "packets_per_second = 500, burst_ms = 100", Some(&first));
    world.machine.adopt(world.now_ns, Arc::clone(&second));
    world.run(50 * MS, MS);
    assert_eq!(
        (named(&world), world.installed(), meters(&world)),
        (vec![2; 8], 4, vec![(1, 5_000, 500, true), (2, 500, 25, true)])
    );
    // Of something else: another meter, and so other rules.
    let third = snapshot("", "bits_per_second = 80000, burst_ms = 100", Some(&second));
    world.machine.adopt(world.now_ns, Arc::clone(&third));
    world.run(50 * MS, MS);
    assert_eq!(world.installed(), 0);
    fill(&mut world, 0..4);
    assert_eq!(named(&world), [3; 8]);
    let meter = third.metered(ServiceId(0)).and_then(|metered| metered.service.clone()).expect("a meter");
    world.run(7 * SECOND, 10 * MS);
    assert!(meter.in_hardware().rate() > 0, "the old one's end is not its");
    world.machine.adopt(world.now_ns, snapshot("", "", Some(&third)));
    world.run(50 * MS, MS);
    assert_eq!(world.installed(), 0);
    fill(&mut world, 0..4);
    assert_eq!(named(&world), [0; 8]);
    world.run(10 * SECOND, 10 * MS);
    assert!(meters(&world).is_empty(), "nobody uses them");
    world.settle();
}

/// mlx5 has room for one of the two in a rule: counters tell which are idle.
#[test]
fn rules_with_a_meter_do_not_age_and_idle_ones_are_found() {
    let (mut world, _) = metered("packets_per_second = 1000");
    world.device.traits.ages = true;
    fill(&mut world, 0..3);
    let ages =
        |held: &device::Held| held.rule.actions.iter().any(|action| matches!(action, Action::Age { .. }));
    assert!(!world.device.legs.values().any(ages));
    for _ in 0..40 {
        world.traffic(0, Direction::Original, 1);
        world.run(SECOND, 10 * MS);
    }
    assert_eq!((world.installed(), world.workers.removals.get(&Removal::Idle)), (1, Some(&2)));
}

#[test]
fn a_meter_that_finds_no_room_in_a_rule_is_not_left_out() {
    let (mut world, _) = metered("packets_per_second = 1000");
    fill(&mut world, 0..1);
    let held = world.device.legs.values().next().expect("a rule");
    let mut rule = held.rule.clone();
    rule.actions.retain(|action| !matches!(action, Action::Meter(_)));
    while rule.actions.try_insert(0, Action::PopVlan).is_ok() {}
    assert_eq!((rule.clone().metered(Some(1)), rule.clone().metered(None)), (None, Some(rule)));
}

#[test]
fn what_hardware_cannot_meter_stays_in_software() {
    for limit in [
        "packets_per_second = 1000, bits_per_second = 1000000",
        "packets_per_second = 1000, excess_ms = 100",
        "bits_per_second = 1000000, peak_bits_per_second = 2000000",
    ] {
        let (mut world, _) = metered(limit);
        assert_eq!(refusal(&mut world, 0), Declined::Path, "workers do not ask");
    }
    let (mut world, _) = metered("packets_per_second = 1000");
    world.machine.adopt(world.now_ns, snapshot("bits_per_second = 1000000", "packets_per_second = 9", None));
    assert_eq!(refusal(&mut world, 0), Declined::Path, "under two meters");
    world.machine.adopt(world.now_ns, snapshot("bits_per_second = 1000000", "connections = 9", None));
    fill(&mut world, 1..3);
    assert_eq!(named(&world), [1; 4], "its tenant's");
    // The driver refuses.
    let (mut world, _) = metered("packets_per_second = 1000");
    world.device.meters = None;
    assert_eq!(refusal(&mut world, 0), Declined::Metered);
    let mut world = World::new(&Settings::default(), Device::new(7, 64, 64));
    world.machine.adopt(world.now_ns, snapshot("", "packets_per_second = 1000", None));
    world.run(10 * MS, MS);
    assert_eq!(refusal(&mut world, 0), Declined::Metered, "the engine has none");
}

#[test]
fn a_device_that_was_emptied_gets_its_meters_again() {
    let (mut world, meter) = metered("packets_per_second = 1000");
    fill(&mut world, 0..2);
    world.device.dead = true;
    world.run(3 * SECOND, 10 * MS);
    assert!(meters(&world).is_empty() && meter.in_hardware().rate() == 0);
    fill(&mut world, 0..2);
    assert_eq!((named(&world), meters(&world).len()), (vec![1; 4], 1));
    world.settle();
}

/// A device that cannot be emptied forwards on: what it may have is kept from software, and what it drops
/// is counted.
#[test]
fn a_device_that_cannot_be_emptied_keeps_its_share() {
    let (mut world, meter) = metered("packets_per_second = 10000, burst_ms = 100");
    fill(&mut world, 0..2);
    world.run(2 * SECOND, MS);
    assert_eq!(meter.in_hardware().rate(), 10_000, "all, as software has nothing to do");
    (world.device.dead, world.device.faults.flush_fails) = (true, 1_000);
    // Its counters are lost, which is noticed.
    world.run(5 * SECOND, MS);
    assert_eq!(world.machine.state(), EngineState::Recovering);
    let (mut account, mut passed) = (Account::default(), 0);
    for _ in 0..1_000 {
        world.run(MS, MS);
        let charges = (0..20).map(|_| meter.charge(Nanos(world.now_ns), &mut account, 60).colour());
        passed += charges.filter(|colour| *colour as u8 == 0).count();
    }
    assert!(passed <= 1_100, "a burst is left for software: {passed}");
    if let Some((_, drops)) = world.device.meters.as_mut().and_then(|meters| meters.get_mut(&1)) {
        *drops = Count { packets: 10, bytes: 1_140 };
    }
    world.run(3 * SECOND, MS);
    assert_eq!(meter.in_hardware().red(), (10, 1_000));
    world.device.faults.flush_fails = 0;
    world.run(3 * SECOND, MS);
    assert_eq!(meter.in_hardware().rate(), 0);
    fill(&mut world, 0..2);
    world.settle();
}

/// A device refuses rules for their meters' sake: connections without one go on.
#[test]
fn what_is_refused_with_a_meter_is_tried_without() {
    let (mut world, _) = metered("packets_per_second = 1000");
    world.device.faults.refused = 1_000;
    (0..40).for_each(|client| assert_eq!(refusal(&mut world, client), Declined::Refused));
    world.device.faults.refused = 0;
    world.machine.adopt(world.now_ns, snapshot("", "", None));
    fill(&mut world, 40..42);
}

/// Many may ask in the meantime, and each time would take as long.
#[test]
fn a_meter_that_was_refused_is_asked_for_a_second_later() {
    let (mut world, _) = metered("packets_per_second = 1000");
    let meters = world.device.meters.take();
    assert_eq!(refusal(&mut world, 0), Declined::Metered);
    world.device.meters = meters;
    assert_eq!((refusal(&mut world, 1), world.installed()), (Declined::Metered, 0));
    world.run(SECOND, 10 * MS);
    fill(&mut world, 2..4);
}

/// As under hardware steering: a rule counts what its meter finds red, too. Of what hardware has dropped each
/// connection has its part, and together they have passed what has passed.
#[test]
fn what_is_red_is_not_counted_as_passed() {
    let (mut world, _) = metered("packets_per_second = 100000, burst_ms = 100");
    let mut red = Count::default();
    world.machine = counting_red(&mut world);
    fill(&mut world, 0..3);
    let offered = |client: u32| [300, 100, 20][client as usize];
    for round in 0..200u64 {
        for client in 0..3 {
            assert!(world.traffic(client, Direction::Original, offered(client)));
        }
        // Half of them. What is dropped is told at other times than what is counted, and in lumps.
        red.packets += 210;
        red.bytes += 210 * 114;
        if round % 3 == 0 {
            let told = world.device.meters.as_mut().and_then(|meters| meters.get_mut(&1)).expect("a meter");
            told.1 = red;
        }
        world.run(100 * MS, 5 * MS);
    }
    let passed = |client: u32| world.workers.backends[backend_of(client)];
    let all = (0..3).map(passed).fold((0, 0), |sum, count| (sum.0 + count.packets, sum.1 + count.bytes));
    // What was offered in the last second may not have been told yet.
    assert!(all.0.abs_diff(42_000) <= 2_000, "{all:?} of 84000, {red:?} of them red");
    assert!(all.1.abs_diff(4_200_000) <= 200_000, "{all:?}");
    for client in 0..3 {
        let half = 100 * offered(client);
        assert!(passed(client).packets.abs_diff(half) <= half / 6, "{client}: {:?}", passed(client));
    }
}

fn backend_of(client: u32) -> usize {
    usize::from(world::ask(client, 0, 0).backend.0)
}

/// A machine whose engine's rules do.
fn counting_red(world: &mut World) -> offload::machine::Machine {
    world.device.traits.meters = Some(Metering { meters_max: 8, rules_max: 100, counts_red: true });
    let snapshot = snapshot("", "packets_per_second = 100000, burst_ms = 100", None);
    let traits = world.device.traits;
    offload::machine::Machine::new(world.now_ns, &Settings::default(), traits, world::topology(), snapshot)
}

/// Hardware steering's come with rules of their own: who asks first waits for them.
#[test]
fn a_connection_waits_for_its_meter() {
    let (mut world, _) = metered("packets_per_second = 1000");
    world.device.meters_slow = 5;
    fill(&mut world, 0..3);
    assert_eq!((meters(&world).len(), named(&world)), (1, vec![1; 6]));
    // One that never comes.
    let (mut world, _) = metered("packets_per_second = 1000");
    world.device.meters_slow = u32::MAX;
    assert!(world.ask(0, |_| ()));
    world.run(SECOND, MS);
    assert!(matches!(world.workers.declined, Some(Answer::Declined { .. })), "{:?}", world.workers.declined);
    assert_eq!(world.installed(), 0);
    world.run(10 * SECOND, 10 * MS);
    world.device.meters_slow = 0;
    fill(&mut world, 1..3);
    world.settle();
}

/// A rule of mlx5's has so many bits for its number among those of one meter.
#[test]
fn a_meter_has_so_many_rules() {
    let (mut world, _) = metered("packets_per_second = 1000");
    fill(&mut world, 0..50);
    assert_eq!(refusal(&mut world, 50), Declined::Metered, "a hundred are there");
    assert!(world.revoke(0, Revocation::Gone));
    world.run(SECOND, 10 * MS);
    fill(&mut world, 51..52);
}

/// Software has the new rate, and hardware its part of it, from one step to the next: never both of two.
#[test]
fn a_lower_limit_is_held_at_once() {
    let (mut world, _) = metered("packets_per_second = 100000, burst_ms = 100");
    let first = snapshot("", "packets_per_second = 100000, burst_ms = 100", None);
    world.machine.adopt(world.now_ns, Arc::clone(&first));
    world.run(50 * MS, MS);
    fill(&mut world, 0..2);
    world.run(3 * SECOND, 10 * MS);
    let second = snapshot("", "packets_per_second = 1000, burst_ms = 100", Some(&first));
    let meter = second.metered(ServiceId(0)).and_then(|metered| metered.service.clone()).expect("a meter");
    world.machine.adopt(world.now_ns, second);
    let (mut account, mut software, mut hardware) = (Account::default(), 0u64, 0u64);
    for _ in 0..5_000 {
        world.run(MS, MS);
        let charges = (0..5).map(|_| meter.charge(Nanos(world.now_ns), &mut account, 60).colour());
        software += charges.filter(|colour| *colour as u8 == 0).count() as u64;
        hardware += meters(&world).last().map_or(0, |(_, rate, ..)| *rate);
    }
    let passed = software + hardware / 1_000;
    assert!(passed <= 5_000 + 200, "{software} and {}", hardware / 1_000);
    assert_eq!((world.installed(), named(&world)), (2, vec![1; 4]), "the rules stay");
}
