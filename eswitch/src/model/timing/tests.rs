use super::*;

fn ceiling(change: impl FnOnce(&mut Profile)) -> Timing {
    let mut profile = Profile::named("ideal").unwrap();
    change(&mut profile);
    Timing::new(&profile, 0)
}

/// The reference's first words for the state 1, 2, 3, 4.
#[test]
fn the_generator_is_xoshiro256_plus_plus() {
    let mut rng = Rng([1, 2, 3, 4]);
    let words: Vec<u64> = (0..4).map(|_| rng.word()).collect();
    assert_eq!(words, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
}

/// The reference's first word for the seed 1234567.
#[test]
fn the_seed_goes_through_splitmix64() {
    assert_eq!(Rng::new(1_234_567).0[0], 6_457_827_717_110_365_317);
}

#[test]
fn logarithm_and_exponential_are_right() {
    for x in [1e-6, 0.001_956, 0.5, 0.99, 1.0, 1.5, 2.0, 99.0, 511.0, 1e9] {
        assert!((ln(x) - x.ln()).abs() < 1e-13 * x.ln().abs().max(1.0), "ln {x}: {} {}", ln(x), x.ln());
    }
    for x in [-20.0, -1.5, -0.1, 0.0, 0.3, 1.0, 5.5, 20.0] {
        assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "exp {x}: {} {}", exp(x), x.exp());
    }
}

#[test]
fn a_sampler_has_the_median_the_p99_and_the_mean_it_says() {
    let mut rng = Rng::new(7);
    for spread in [Spread { median: 8100, p99: 17_000 }, Spread { median: 305_000, p99: 350_000 }] {
        let sampler = Sampler::new(spread);
        let mut drawn: Vec<u64> = (0..100_000).map(|_| sampler.draw(&mut rng)).collect();
        let mean = drawn.iter().sum::<u64>() / drawn.len() as u64;
        drawn.sort_unstable();
        let near = |a: u64, b: u64, percent: u64| a.abs_diff(b) * 100 <= b * percent;
        assert!(near(drawn[50_000], spread.median, 1), "{} {spread:?}", drawn[50_000]);
        assert!(near(drawn[99_000], spread.p99, 3), "{} {spread:?}", drawn[99_000]);
        assert!(near(mean, spread.mean_ns(), 1), "{mean} {}", spread.mean_ns());
        assert!(near(mean, spread.median, 8) && spread.mean_ns() > spread.median);
    }
}

/// Anything that moved these numbers would change every simulation's course.
#[test]
fn a_seed_gives_the_same_times_everywhere() {
    let mut timing = Timing::new(&Profile::named("bf2-sws").unwrap(), 42);
    let costs: Vec<u64> = (0..4).map(|_| timing.create_cost()).collect();
    let mut again = Timing::new(&Profile::named("bf2-sws").unwrap(), 42);
    assert_eq!(costs, (0..4).map(|_| again.create_cost()).collect::<Vec<u64>>());
    insta::assert_debug_snapshot!(costs);
}

#[test]
fn what_does_not_vary_draws_nothing() {
    let mut rng = Rng::new(1);
    let before = rng.clone();
    assert_eq!(Sampler::new(Spread::always(5)).draw(&mut rng), 5);
    assert_eq!(Sampler::new(Spread::always(0)).draw(&mut rng), 0);
    assert!(!rng.per_million(0) && rng.per_million(1_000_000));
    assert_eq!(rng, before);
}

#[test]
fn a_ceiling_admits_its_rate() {
    let mut timing = ceiling(|profile| {
        profile.packets_per_second = 1_000_000;
        profile.burst_ns = 10_000;
    });
    // A bucket full at the start: 10 µs' worth.
    assert_eq!(timing.admit(Tick(0), 32), 10);
    assert_eq!(timing.admit(Tick(0), 32), 0);
    assert_eq!(timing.admit(Tick(1500), 32), 1);
    assert_eq!(timing.admit(Tick(2000), 32), 1);
    // A pause earns no more than the bucket holds; time that stands still or goes back earns nothing.
    assert_eq!(timing.admit(Tick(Tick::SECOND), 3), 3);
    assert_eq!(timing.admit(Tick(5), 32), 7);
    let mut admitted = 0;
    for step in 0..1000 {
        admitted += timing.admit(Tick(Tick::SECOND + step * 7_300), 32);
    }
    assert_eq!(admitted, 7292);
}

#[test]
fn short_frames_cost_less() {
    let mut timing = ceiling(|profile| {
        profile.packets_per_second = 1_000_000;
        profile.short_packets_per_second = 2_000_000;
        profile.short_bytes_max = 64;
        profile.burst_ns = 3_000;
    });
    assert_eq!(timing.admit(Tick(0), 6), 3);
    timing.shorten([60, 64, 65]);
    assert_eq!(timing.admit(Tick(0), 6), 1, "two short ones took the time of one");
    timing.shorten([64]);
    assert_eq!(timing.admit(Tick(400), 6), 0);
    assert_eq!(timing.admit(Tick(500), 6), 1);
    let mut passed = 0;
    for step in 2..=4001 {
        let admitted = timing.admit(Tick(step * 500), 6);
        timing.shorten(std::iter::repeat_n(60, admitted));
        passed += admitted;
    }
    assert!((3_990..=4_010).contains(&passed), "two million a second: {passed}");
}

#[test]
fn without_a_ceiling_everything_passes() {
    let mut timing = Timing::new(&Profile::named("ideal").unwrap(), 0);
    assert_eq!(timing.admit(Tick(0), usize::MAX), usize::MAX);
}
