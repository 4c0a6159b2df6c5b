use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn plan(fault: Fault) -> Plan {
    Plan {
        fault,
        begin_ns: 2 * MS,
        end_ns: 5 * MS,
        until_ns: 7 * MS,
        payload: 64,
        packets_per_second: 10_000_000,
        software_percent: 10,
        connections: 512,
        software: Software { packet_ns: 100, passage_ns: 8_000, room_packets: 4096 },
    }
}

fn suffer(plan: Plan, seed: u64) -> Course {
    let profile = Profile::named("bf3-xenoflow").unwrap();
    Testbed::new(&profile).unwrap().unwrap().suffer(&profile, plan, seed)
}

fn ended(course: &Course) -> u64 {
    course.hits.iter().chain(&course.misses).map(|part| part.latency.total() + part.lost()).sum()
}

fn lost(course: &Course) -> [u64; 3] {
    std::array::from_fn(|stage| course.hits[stage].lost() + course.misses[stage].lost())
}

fn p99(part: &Part) -> u64 {
    part.latency.quantile(990_000).unwrap()
}

fn median(part: &Part) -> u64 {
    part.latency.quantile(500_000).unwrap()
}

#[test]
fn a_link_that_is_down_loses_all_and_leaves_nothing_behind() {
    let course = suffer(plan(Fault::LinkFlap), 1);
    let [before, during, after] = &course.hits;
    assert_eq!((before.lost(), after.lost()), (0, 0));
    assert_eq!((during.latency.total(), during.lost()), (0, during.lost_on_link));
    assert!(during.lost_on_link > 20_000);
    let (first, last) = course.lost_ns.unwrap();
    assert!(first >= 2 * MS && last < 5 * MS);
    assert!(median(after).abs_diff(median(before)) * 50 < median(before));
}

#[test]
fn updates_cost_packets_nothing_but_what_is_asked_for() {
    let storm = |stall_ps| suffer(plan(Fault::RuleStorm { updates_per_second: 100_000, stall_ps }), 1);
    let (free, dear) = (storm(0), storm(5_000_000));
    assert_eq!(lost(&free), [0; 3]);
    // 300 updates of the fault's time, less than a flow queue has time for.
    assert_eq!((free.updates.total(), free.updates_refused), (300, 0));
    let profile = Profile::named("bf3-xenoflow").unwrap();
    let expected = profile.create_latency_ns.median + profile.create_cost_ns.median;
    assert!(free.updates.quantile(500_000).unwrap().abs_diff(expected) < expected / 4);
    assert!(p99(&free.hits[1]) < 2 * median(&free.hits[0]));
    assert!(p99(&dear.hits[1]) > p99(&free.hits[1]) + 2_000);
    assert!(p99(&dear.hits[2]) < 2 * median(&dear.hits[0]), "and it ends");
}

#[test]
fn a_spike_below_the_devices_rate_costs_hits_nothing_and_one_above_it_is_lost() {
    let (below, above) =
        (suffer(plan(Fault::Spike { times: 8 }), 1), suffer(plan(Fault::Spike { times: 12 }), 1));
    let packets =
        |course: &Course, stage: usize| course.hits[stage].latency.total() + course.hits[stage].lost();
    assert!(
        packets(&below, 1).abs_diff(packets(&below, 0) * 12) < packets(&below, 1) / 50,
        "8 times in 3/2 of it"
    );
    assert_eq!(below.hits.iter().map(Part::lost).sum::<u64>(), 0);
    assert!(p99(&below.hits[1]) < 2 * median(&below.hits[0]));
    assert!(above.hits[1].lost_in_queue > packets(&above, 1) / 50);
    // What comes while the queue is still full.
    assert!(above.hits[2].lost() < 100);
}

#[test]
fn software_that_is_asked_for_too_much_loses_and_hardware_does_not() {
    let plan = Plan { software_percent: 20, ..plan(Fault::Spike { times: 7 }) };
    let course = suffer(plan, 1);
    assert!(course.misses[1].lost_in_software > 1_000);
    assert_eq!(course.hits[1].lost(), 0);
    assert!(p99(&course.misses[1]) > 400_000, "a full queue of 4096 packets of 100 ns");
}

#[test]
fn a_backends_death_costs_its_packets_until_it_is_known() {
    let plan = Plan { end_ns: 20 * MS, until_ns: 22 * MS, ..plan(Fault::BackendDeath { detection_ns: MS }) };
    let course = suffer(plan, 1);
    let [before, during, after] = &course.hits;
    assert_eq!((before.lost(), after.lost(), during.lost()), (0, 0, during.lost_to_dead));
    let revoked = course.revoked_ns.unwrap();
    // 256 connections' rules.
    let profile = Profile::named("bf3-xenoflow").unwrap();
    let expected = 256 * 2 * profile.destroy_cost_ns.mean_ns() + profile.destroy_latency_ns.median;
    assert!((revoked - 3 * MS).abs_diff(expected) < expected / 4, "{revoked} {expected}");
    let (first, last) = course.lost_ns.unwrap();
    assert!(first < 2 * MS + MS / 10 && last <= revoked && last > 3 * MS, "{first} {last} {revoked}");
    let reinstalled = course.reinstalled_ns.unwrap();
    assert!(reinstalled > revoked && reinstalled < 20 * MS, "{reinstalled}");
    let share = |part: &Part| part.latency.total() as f64;
    assert!((share(after) / share(before) - 1.0).abs() < 0.05, "all of them are in hardware again");
}

#[test]
fn a_death_is_found_within_what_is_documented() {
    let checks = Checks { interval_ns: 250 * MS, timeout_ns: 200 * MS, fall: 3, batch_ns: 50 * MS };
    for seed in 0..200 {
        assert!((600 * MS..=900 * MS).contains(&checks.detection_ns(seed)));
    }
}

#[test]
fn equal_seeds_equal_courses() {
    let plan = plan(Fault::RuleStorm { updates_per_second: 50_000, stall_ps: 0 });
    assert_eq!(suffer(plan, 5), suffer(plan, 5));
    assert_ne!(suffer(plan, 5).hits, suffer(plan, 6).hits);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Every packet is somewhere, whatever happens.
    #[test]
    fn nothing_vanishes(which in 0..4, rate in 1_000_000_u64..40_000_000, times in 1_u64..12,
                        software_percent in 0_u64..101, connections in 1_u32..2_000, payload in 0_u64..1473,
                        seed in any::<u64>()) {
        let fault = match which {
            0 => Fault::LinkFlap,
            1 => Fault::RuleStorm { updates_per_second: rate / 50, stall_ps: times * 10_000 },
            2 => Fault::Spike { times },
            _ => Fault::BackendDeath { detection_ns: times * MS / 10 },
        };
        let plan = Plan {
            packets_per_second: rate, software_percent, connections, payload,
            begin_ns: MS / 2, end_ns: MS, until_ns: 3 * MS / 2, ..plan(fault)
        };
        let course = suffer(plan, seed);
        prop_assert!(course.offered > 0);
        prop_assert_eq!(course.offered, ended(&course));
    }
}
