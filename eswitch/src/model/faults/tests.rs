use proptest::prelude::*;

use super::super::timing::Rng;
use super::*;

#[test]
fn a_list_is_read() {
    let faults = Faults::parse(
        "refuse=0.01, fail=0.1,delay_us=500,reorder=0.2,lose_counters=1,age_early=0.000001,miss=0.25,full_at=0,\
         counters_at=7,ages_at=8,meters_at=9,stop_port=3,reset,hang_ms=20,seed=9",
    );
    let faults = faults.unwrap();
    assert_eq!(faults.refuse, Chance::per_million(10_000));
    assert_eq!(faults.fail, Chance::per_million(100_000));
    assert_eq!((faults.delay_us, faults.delay_ns()), (500, 500_000));
    assert_eq!(faults.reorder, Chance::per_million(200_000));
    assert_eq!(faults.lose_counters, Chance::ALWAYS);
    assert_eq!(faults.age_early, Chance::per_million(1));
    assert_eq!(faults.miss, Chance::per_million(250_000));
    assert_eq!((faults.full_at, faults.stop_port, faults.seed), (Some(0), Some(3), 9));
    assert_eq!((faults.counters_at, faults.ages_at, faults.meters_at), (Some(7), Some(8), Some(9)));
    assert_eq!((faults.reset, faults.hang_ms), (true, 20));
    assert!(!faults.is_clear());
}

#[test]
fn nothing_is_on_by_default() {
    let mut faults = Faults::parse("").unwrap();
    assert_eq!(faults, Faults::default());
    assert_eq!(faults.to_string(), "");
    assert!(faults.is_clear());
    assert!(!faults.refuses() && !faults.fails() && !faults.reorders() && !faults.loses_completion());
    assert!(!faults.loses_counter() && !faults.ages_early() && !faults.misses());
    assert_eq!((faults.delay_ns(), faults.take_stop_port()), (0, None));
    assert_eq!((faults.take_reset(), faults.take_hang_ns()), (false, 0));
    assert_eq!(faults, Faults::default());
}

#[test]
fn what_is_not_understood_is_named() {
    for (text, message) in [
        ("refuse", "expected name=value"),
        ("refuse=1.1", "fraction"),
        ("refuse=-1", "fraction"),
        ("refuse=.5", "fraction"),
        ("refuse=0.0000001", "fraction"),
        ("refuse=1.2.3", "fraction"),
        ("fail=0.1,fail=0.1", "given twice"),
        ("lose=1", "there are refuse"),
        ("delay_us=60000001", "a minute"),
        ("full_at=many", "whole number"),
        ("reset=1", "no value"),
        ("reset,reset", "given twice"),
        ("hang_ms", "expected name=value"),
        ("hang_ms=60001", "a minute"),
        ("stop_port=65536", "vport"),
        ("ages_at=4294967296", "below 2^32"),
    ] {
        let error = Faults::parse(text).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

#[test]
fn a_chance_comes_as_often_as_it_says() {
    let mut faults = Faults::parse("fail=0.1,seed=3").unwrap();
    let failed = (0..100_000).filter(|_| faults.fails()).count();
    assert!((9_700..=10_300).contains(&failed), "{failed}");
    assert_eq!(faults.stop_port, None);
}

#[test]
fn some_happen_once_and_clear_ends_it_all() {
    let mut faults = Faults::parse("stop_port=1,refuse=1").unwrap();
    assert_eq!((faults.take_stop_port(), faults.take_stop_port()), (Some(1), None));
    assert!(faults.refuses());
    let mut once = Faults::parse("reset,hang_ms=7").unwrap();
    assert!(!once.is_clear());
    assert_eq!((once.take_reset(), once.take_hang_ns()), (true, 7_000_000));
    assert_eq!((once.take_reset(), once.take_hang_ns()), (false, 0));
    assert!(once.is_clear());
    faults.clear();
    assert!(!faults.refuses() && faults.is_clear());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        chances in prop::array::uniform7(0u32..=1_000_000),
        delay_us in 0..=DELAY_MAX_US,
        full_at: Option<u64>,
        objects_at: [Option<u32>; 3],
        stop_port: Option<u16>,
        reset: bool,
        hang_ms in 0..=HANG_MAX_MS,
        seed: u64,
    ) {
        let [refuse, fail, reorder, lose_completions, lose_counters, age_early, miss] = chances.map(Chance::per_million);
        let rng = Rng::new(seed);
        let [counters_at, ages_at, meters_at] = objects_at;
        let faults = Faults {
            refuse, fail, delay_us, reorder, lose_completions, lose_counters, age_early, miss, full_at,
            counters_at, ages_at, meters_at, stop_port, reset, hang_ms, seed, rng,
        };
        prop_assert_eq!(Faults::parse(&faults.to_string()), Ok(faults));
    }
}
