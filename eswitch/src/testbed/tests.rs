use proptest::prelude::*;

use super::*;
use crate::model::timing::Rng;

fn testbed() -> Testbed {
    let profile = Profile::named("bf3-xenoflow").unwrap();
    Testbed::new(&profile).unwrap().unwrap()
}

fn full(payload: u64) -> Load {
    Load { payload, packets_per_second: u64::MAX, first_percent: 50, packets: 30_000, probe_every: 0 }
}

fn within(value: f64, expected: f64, percent: f64) -> bool {
    (value - expected).abs() <= expected * percent / 100.0
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn the_rules_split_by_the_lowest_bit_of_the_source() {
    let testbed = testbed();
    for (source, verdict) in testbed.verdicts.iter().enumerate() {
        assert_eq!(*verdict, Some((source % 2) as u8), "source {source}");
    }
}

/// Pollaczek and Khinchine: a load r of Poisson arrivals waits r / 2(1 - r) services, on average.
#[test]
fn a_station_waits_as_long_as_theory_says() {
    for percent in [30_u64, 50, 80, 90] {
        let (mut rng, mut station) = (Rng::new(percent), Station::new(u64::MAX));
        let (mut at, mut waited, packets) = (0.0_f64, 0_u64, 400_000_u64);
        for _ in 0..packets {
            let uniform = ((rng.word() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            at -= uniform.ln() * 10_000.0 * 100.0 / percent as f64;
            let left = station.pass(at as u64, 10_000).unwrap();
            waited += left - at as u64 - 10_000;
        }
        let load = percent as f64 / 100.0;
        let expected = load / (2.0 * (1.0 - load)) * 10_000.0;
        assert!(within(waited as f64 / packets as f64, expected, 5.0), "{percent} %: {waited}");
    }
}

#[test]
fn figure_4_has_both_rates_and_the_step_at_23_bytes() {
    let testbed = testbed();
    for payload in [0, 2, 18, 22] {
        let rate = testbed.run(full(payload), 1).packets_per_second();
        assert!(within(rate, 96.7e6, 5.0), "{payload} B: {rate}");
    }
    for payload in [23, 24, 48, 64] {
        let rate = testbed.run(full(payload), 1).packets_per_second();
        assert!(within(rate, 92.8e6, 5.0), "{payload} B: {rate}");
    }
    let step = [22, 23].map(|payload| testbed.run(full(payload), 1).packets_per_second());
    assert!(step[0] > step[1] * 1.03, "{step:?}");
}

/// What was not used for fitting: rates of larger datagrams, as read from the chart in the authors'
/// repository (docs/Praktikum/report/img/pps_bandwidth.pdf).
#[test]
fn larger_datagrams_fill_the_wire() {
    let testbed = testbed();
    for (payload, measured) in [(128, 64.0e6), (256, 37.5e6), (512, 21.3e6), (1024, 11.23e6)] {
        let outcome = testbed.run(full(payload), 1);
        let rate = outcome.packets_per_second();
        assert!(within(rate, measured, 15.0), "{payload} B: {rate}");
        assert_eq!(outcome.lost_in_pipeline, 0);
    }
}

#[test]
fn the_balancer_adds_what_was_measured() {
    let testbed = testbed();
    let waits = vec![testbed.lone_wait_ps(18).unwrap(); 4_000];
    let base = median(testbed.baseline_round_trips(4_000, 1)) as f64;
    let through = median(testbed.round_trips(&waits, 1)) as f64;
    let ebpf = median(testbed.ebpf_round_trips(4_000, 1)) as f64;
    assert!(within(through - base, 5_200.0, 5.0), "{}", through - base);
    assert!(within(ebpf - base, 9_300.0, 5.0), "{}", ebpf - base);
}

#[test]
fn latency_is_flat_below_90_million() {
    let testbed = testbed();
    for first_percent in [100, 75, 50, 0] {
        let at = |rate| {
            let load = Load { packets_per_second: rate, probe_every: 101, first_percent, ..full(18) };
            let load = Load { packets: 100_000, ..load };
            median(testbed.round_trips(&testbed.run(load, 1).probe_waits_ps, 1)) as f64
        };
        let (idle, busy) = (at(10_000_000), at(85_000_000));
        assert!(within(busy, idle, 5.0), "{first_percent}: {idle} {busy}");
    }
}

#[test]
fn equal_seeds_equal_results() {
    let testbed = testbed();
    let load = Load { probe_every: 7, packets: 5_000, ..full(10) };
    assert_eq!(testbed.run(load, 3), testbed.run(load, 3));
    assert_ne!(testbed.run(load, 3).delivered, testbed.run(load, 4).delivered);
}

#[test]
fn a_profile_without_a_testbed_has_none() {
    assert!(Testbed::new(&Profile::named("ideal").unwrap()).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every packet is somewhere, and more load loses no smaller a share.
    #[test]
    fn nothing_vanishes_and_loss_grows(payload in 0_u64..1473, rate in 1_000_000_u64..149_000_000,
                                       first_percent in 0_u64..101, seed in any::<u64>()) {
        let testbed = testbed();
        let load = Load { payload, packets_per_second: rate, first_percent, packets: 3_000, probe_every: 9 };
        let outcome = testbed.run(load, seed);
        let ends = outcome.lost_in_pipeline + outcome.lost_before_wire + outcome.unmatched
            + outcome.delivered.iter().sum::<u64>();
        prop_assert_eq!(outcome.offered, ends);
        prop_assert!(outcome.probe_waits_ps.len() as u64 <= load.packets / load.probe_every);
        let more = Load { packets_per_second: rate + rate / 5, ..load };
        prop_assert!(testbed.run(more, seed).loss() + 0.01 >= outcome.loss());
    }
}
