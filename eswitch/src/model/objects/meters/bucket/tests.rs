use proptest::prelude::*;

use super::*;

const COLOURS: [Colour; 3] = [Colour::Green, Colour::Yellow, Colour::Red];

fn profile(algorithm: Algorithm) -> Profile {
    Profile { algorithm, packet_mode: false }
}

fn run(buckets: &mut Buckets, packets: &[(u64, u32, Colour)]) -> Vec<Colour> {
    packets.iter().map(|&(at, bytes, colour)| buckets.colour(Tick(at), bytes, colour)).collect()
}

#[test]
fn layout() {
    assert!(size_of::<Buckets>() <= 72, "{}", size_of::<Buckets>());
}

#[test]
fn single_rate() {
    use Colour::{Green, Red, Yellow};
    let rates = profile(Algorithm::Rfc2697 { cir: 1000, cbs: 1000, ebs: 500 });
    let mut blind = Buckets::new(Tick(0), &rates);
    let packets = [(0, 1000, Green), (0, 300, Green), (0, 300, Green), (0, 200, Green), (0, 1, Green)];
    assert_eq!(run(&mut blind, &packets), [Green, Yellow, Red, Yellow, Red]);
    // A second fills the committed bucket, another half the excess one.
    assert_eq!(run(&mut blind, &[(3 * NS / 2, 500, Yellow), (3 * NS / 2, 1, Yellow)]), [Yellow, Red]);
    assert_eq!(run(&mut blind, &[(3 * NS / 2, 1000, Green), (3 * NS / 2, 1, Green)]), [Green, Red]);
}

#[test]
fn two_rates() {
    use Colour::{Green, Red, Yellow};
    let peak = profile(Algorithm::Rfc2698 { cir: 1000, pir: 2000, cbs: 100, pbs: 150 });
    let mut peak = Buckets::new(Tick(0), &peak);
    let packets = [(0, 100, Green), (0, 50, Green), (0, 1, Green)];
    assert_eq!(run(&mut peak, &packets), [Green, Yellow, Red], "green takes from both");
    let excess = profile(Algorithm::Rfc4115 { cir: 1000, eir: 2000, cbs: 100, ebs: 150 });
    let mut excess = Buckets::new(Tick(0), &excess);
    let packets = [(0, 100, Green), (0, 150, Green), (0, 1, Green)];
    assert_eq!(run(&mut excess, &packets), [Green, Yellow, Red], "green takes from one");
}

#[test]
fn packets_instead_of_bytes() {
    let rates = Algorithm::Rfc2697 { cir: 10, cbs: 2, ebs: 0 };
    let mut buckets = Buckets::new(Tick(0), &Profile { algorithm: rates, packet_mode: true });
    let mut green = 0;
    for at in 0..=100 {
        green += u32::from(buckets.colour(Tick(at * NS / 100), 9000, Colour::Green) == Colour::Green);
    }
    assert_eq!(green, 12);
}

#[test]
fn other_rates_begin_with_a_burst() {
    let old = profile(Algorithm::Rfc2697 { cir: 1000, cbs: 1000, ebs: 100 });
    let mut buckets = Buckets::new(Tick(0), &old);
    assert_eq!(buckets.colour(Tick(0), 900, Colour::Green), Colour::Green);
    buckets.change(Tick(NS / 10), &profile(Algorithm::Rfc4115 { cir: 1, eir: 1, cbs: 5000, ebs: 50 }));
    assert_eq!((buckets.committed.tokens, buckets.other.tokens), (5000, 50));
}

#[test]
fn time_that_stands_still_or_leaps() {
    let rates = profile(Algorithm::Rfc2698 { cir: 1 << 40, pir: 1 << 41, cbs: 1 << 30, pbs: 1 << 31 });
    let mut buckets = Buckets::new(Tick(10 * NS), &rates);
    let colours = [9 * NS, 10 * NS, u64::MAX, u64::MAX, 0]
        .map(|at| buckets.colour(Tick(at), u32::MAX >> 2, Colour::Green));
    use Colour::{Green, Red, Yellow};
    assert_eq!(colours, [Green, Yellow, Green, Yellow, Red], "time does not go back");
}

/// Long runs of traffic at three times the rate: the rate is met within 0.1 %.
#[test]
fn long_runs_keep_the_rate() {
    for (cir, bytes) in [(1_000_000_007u64, 1514u64), (999_999, 64), (12_500_000_000, 9000), (777, 64)] {
        let cbs = bytes * 4;
        for algorithm in [
            Algorithm::Rfc2697 { cir, cbs, ebs: 0 },
            Algorithm::Rfc2698 { cir, pir: cir * 2, cbs, pbs: cbs },
            Algorithm::Rfc4115 { cir, eir: cir / 2, cbs, ebs: cbs },
        ] {
            let mut buckets = Buckets::new(Tick(0), &profile(algorithm));
            let (mut green, mut now, mut number) = (0, 0, 0u64);
            while number < 60_000 {
                number += 1;
                // Uneven steps, so that nothing falls on whole tokens.
                now = (u128::from(number * bytes) * u128::from(NS) / u128::from(3 * cir)) as u64 + number % 7;
                if buckets.colour(Tick(now), bytes as u32, Colour::Green) == Colour::Green {
                    green += bytes;
                }
            }
            let expected = (u128::from(cir) * u128::from(now) / u128::from(NS)) as u64;
            let error = green.saturating_sub(cbs).abs_diff(expected);
            assert!(error * 1000 <= expected, "{algorithm:?}: {green} for {expected}");
        }
    }
}

/// The RFCs to the letter, with the times of tokens as exact fractions: the k-th of a rate r is due at k / r.
struct Exact {
    algorithm: Algorithm,
    now: u64,
    committed: u64,
    other: u64,
}

impl Exact {
    fn new(algorithm: Algorithm) -> Exact {
        let (committed, other) = match algorithm {
            Algorithm::Rfc2697 { cbs, ebs, .. } | Algorithm::Rfc4115 { cbs, ebs, .. } => (cbs, ebs),
            Algorithm::Rfc2698 { cbs, pbs, .. } => (cbs, pbs),
        };
        Exact { algorithm, now: 0, committed, other }
    }

    /// Tokens due after `self.now`, and not after `to`: those k with `now < k / r <= to`.
    fn due(&self, to: u64, rate: u64) -> u128 {
        let until = |at: u64| u128::from(at) * u128::from(rate) / u128::from(NS);
        until(to) - until(self.now)
    }

    fn fill(&mut self, to: u64) {
        match self.algorithm {
            Algorithm::Rfc2697 { cir, cbs, ebs } => {
                for _ in 0..self.due(to, cir) {
                    if self.committed < cbs {
                        self.committed += 1;
                    } else if self.other < ebs {
                        self.other += 1;
                    } else {
                        break;
                    }
                }
            }
            Algorithm::Rfc2698 { cir, pir: rate, cbs, pbs: burst }
            | Algorithm::Rfc4115 { cir, eir: rate, cbs, ebs: burst } => {
                let (committed, other) = (self.due(to, cir), self.due(to, rate));
                self.committed = (u128::from(self.committed) + committed).min(u128::from(cbs)) as u64;
                self.other = (u128::from(self.other) + other).min(u128::from(burst)) as u64;
            }
        }
        self.now = to;
    }

    fn colour(&mut self, at: u64, bytes: u64, arrived: Colour) -> Colour {
        self.fill(at);
        match self.algorithm {
            Algorithm::Rfc2698 { .. } => {
                if arrived == Colour::Red || self.other < bytes {
                    return Colour::Red;
                }
                self.other -= bytes;
                if arrived == Colour::Yellow || self.committed < bytes {
                    return Colour::Yellow;
                }
                self.committed -= bytes;
                Colour::Green
            }
            Algorithm::Rfc2697 { .. } | Algorithm::Rfc4115 { .. } => {
                if arrived == Colour::Green && self.committed >= bytes {
                    self.committed -= bytes;
                    return Colour::Green;
                }
                if arrived != Colour::Red && self.other >= bytes {
                    self.other -= bytes;
                    return Colour::Yellow;
                }
                Colour::Red
            }
        }
    }
}

fn algorithm(rate_max: u64, burst_max: u64) -> impl Strategy<Value = Algorithm> {
    let values = (1..rate_max, 0..rate_max, 1..burst_max, 0..burst_max);
    (0..3, values).prop_map(|(kind, (cir, rate, cbs, burst))| match kind {
        0 => Algorithm::Rfc2697 { cir, cbs, ebs: burst },
        1 => Algorithm::Rfc2698 { cir, pir: cir + rate, cbs, pbs: cbs + burst },
        _ => Algorithm::Rfc4115 { cir, eir: rate, cbs, ebs: burst },
    })
}

fn packets(gap_max: u64) -> impl Strategy<Value = Vec<(u64, u32, usize)>> {
    prop::collection::vec((prop_oneof![0..gap_max, Just(0), 0..1000u64], 0u32..9000, 0usize..3), 1..200)
}

fn compare(algorithm: Algorithm, packets: &[(u64, u32, usize)]) -> Result<(), TestCaseError> {
    let mut buckets = Buckets::new(Tick(0), &profile(algorithm));
    let mut exact = Exact::new(algorithm);
    let mut now = 0;
    for &(gap, bytes, colour) in packets {
        now += gap;
        let expected = exact.colour(now, u64::from(bytes), COLOURS[colour]);
        prop_assert_eq!(buckets.colour(Tick(now), bytes, COLOURS[colour]), expected);
        prop_assert_eq!((buckets.committed.tokens, buckets.other.tokens), (exact.committed, exact.other));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_the_rfcs(algorithm in algorithm(20_000, 20_000), packets in packets(NS / 2)) {
        compare(algorithm, &packets)?;
    }

    /// Rates and pauses whose product needs more than 64 bits.
    #[test]
    fn agrees_with_the_rfcs_on_a_large_scale(
        algorithm in algorithm(1 << 41, 1 << 20),
        packets in packets(1 << 40),
    ) {
        compare(algorithm, &packets)?;
    }

    /// Over any time, no more than burst and rate allow.
    #[test]
    fn never_too_much(algorithm in algorithm(100_000_000, 100_000), packets in packets(NS / 100)) {
        let (Algorithm::Rfc2697 { cir, cbs, .. }
            | Algorithm::Rfc2698 { cir, cbs, .. }
            | Algorithm::Rfc4115 { cir, cbs, .. }) = algorithm;
        let mut buckets = Buckets::new(Tick(0), &profile(algorithm));
        let (mut now, mut green) = (0, Vec::new());
        for (gap, bytes, _) in packets {
            now += gap;
            if buckets.colour(Tick(now), bytes, Colour::Green) == Colour::Green {
                green.push((now, u128::from(bytes)));
            }
        }
        for (first, &(from, _)) in green.iter().enumerate() {
            let mut sum = 0;
            for &(to, bytes) in &green[first..] {
                sum += bytes;
                // One more: a fraction of a token may have been there before.
                prop_assert!(sum <= u128::from(cbs) + u128::from(cir) * u128::from(to - from) / u128::from(NS) + 1);
            }
        }
    }
}
