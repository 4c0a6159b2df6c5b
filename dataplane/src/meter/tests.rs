use super::bucket::{Bucket, Nanos};
use super::marker::{Beyond, Colour, Marker, Purse, Rate};
use super::{Account, BURST_PACKETS_MIN, Limit, Meter};
use proptest::prelude::*;

const SECOND: u64 = Nanos::SECOND;

/// The meters as RFC 2697 and RFC 2698 have them: the k-th token comes at k / rate seconds, one at a time.
struct Reference {
    committed: Rate,
    beyond: Beyond,
    tokens: [u64; 2],
    /// Tokens that have come so far.
    come: [u128; 2],
}

impl Reference {
    fn new(committed: Rate, beyond: Beyond) -> Reference {
        let second = match beyond {
            Beyond::Red => 0,
            Beyond::Excess(depth) => depth,
            Beyond::Peak(rate) => rate.burst,
        };
        Reference { committed, beyond, tokens: [committed.burst, second], come: [0; 2] }
    }

    /// How many tokens have come since the last time.
    fn come(&mut self, which: usize, rate: u64, now: u64) -> u64 {
        let all = u128::from(now) * u128::from(rate) / u128::from(SECOND);
        let new = all - std::mem::replace(&mut self.come[which], all);
        new as u64
    }

    fn colour(&mut self, now: u64, cost: u64) -> Colour {
        let (committed, beyond) = (self.committed, self.beyond);
        let [mut fill, mut pour] = self.tokens;
        if let Beyond::Peak(rate) = beyond {
            pour = (pour + self.come(1, rate.per_second, now)).min(rate.burst);
            self.tokens[1] = pour;
        }
        let come = self.come(0, committed.per_second, now);
        match beyond {
            Beyond::Excess(depth) => {
                for _ in 0..come.min(committed.burst + depth) {
                    if fill < committed.burst {
                        fill += 1;
                    } else if pour < depth {
                        pour += 1;
                    }
                }
                self.tokens = [fill, pour];
            }
            _ => self.tokens[0] = (self.tokens[0] + come).min(committed.burst),
        }
        let [c, second] = &mut self.tokens;
        match beyond {
            Beyond::Peak(_) if *second < cost => Colour::Red,
            Beyond::Peak(_) => {
                *second -= cost;
                if *c >= cost {
                    *c -= cost;
                    return Colour::Green;
                }
                Colour::Yellow
            }
            _ if *c >= cost => {
                *c -= cost;
                Colour::Green
            }
            Beyond::Excess(_) if *second >= cost => {
                *second -= cost;
                Colour::Yellow
            }
            _ => Colour::Red,
        }
    }
}

fn rates() -> impl Strategy<Value = Rate> {
    let per_second = prop_oneof![1u64..2_000, 1_000u64..20_000_000, 1_000_000u64..60_000_000_000];
    (per_second, 1u64..20_000).prop_map(|(per_second, burst)| Rate { per_second, burst })
}

fn beyonds() -> impl Strategy<Value = Beyond> {
    prop_oneof![Just(Beyond::Red), (1u64..20_000).prop_map(Beyond::Excess), rates().prop_map(Beyond::Peak),]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// One worker that takes what it needs and no more sees the colours of the RFCs, to the token.
    #[test]
    fn colours_are_those_of_the_rfcs(
        committed in rates(),
        beyond in beyonds(),
        start in prop_oneof![0u64..1 << 50, 0u64..u64::MAX >> 1],
        packets in prop::collection::vec((0u64..3_000_000, 1u32..9_000), 1..200),
    ) {
        let marker = Marker::new(committed, beyond, 1, 0);
        let mut reference = Reference::new(committed, beyond);
        let (mut now, mut purse) = (start, Purse::default());
        for (pause, cost) in packets {
            now += pause;
            prop_assert_eq!(
                marker.colour(Nanos(now), &mut purse, cost),
                reference.colour(now, cost.into()),
                "{} ns", now
            );
        }
    }

    /// Whoever takes how much and whosever clock is behind: never more than the rate and the burst.
    #[test]
    fn no_rate_is_exceeded(
        committed in rates(),
        packets in prop::collection::vec((0u64..3_000_000, 0usize..4, 0u64..50_000, 1u32..9_000), 1..200),
    ) {
        let marker = Marker::new(committed, Beyond::Red, 4, 65_536);
        let (mut now, mut purses, mut passed) = (100_000, [Purse::default(); 4], 0);
        for (pause, worker, behind, cost) in packets {
            now += pause;
            let colour = marker.colour(Nanos(now - behind), &mut purses[worker], cost);
            passed += if colour == Colour::Green { u128::from(cost) } else { 0 };
            let most = u128::from(now) * u128::from(committed.per_second) / u128::from(SECOND);
            prop_assert!(passed <= most + u128::from(committed.burst));
        }
    }

    /// What is foretold is what happens, to a worker that holds no tokens; and it changes nothing.
    #[test]
    fn what_is_foretold_happens(
        committed in rates(),
        beyond in beyonds(),
        packets in prop::collection::vec((0u64..3_000_000, 1u32..9_000), 1..100),
    ) {
        let marker = Marker::new(committed, beyond, 1, 0);
        let (mut now, mut purse) = (SECOND, Purse::default());
        for (pause, cost) in packets {
            now += pause;
            let foretold = marker.foretell(Nanos(now), cost);
            prop_assert_eq!(foretold, marker.foretell(Nanos(now), cost));
            let colour = marker.colour(Nanos(now), &mut purse, cost);
            // What flows over into an excess is only poured when somebody draws.
            let poured = matches!(beyond, Beyond::Excess(_)) && foretold == Colour::Red;
            prop_assert!(foretold == colour || poured, "{:?} {:?}", foretold, colour);
        }
    }

    /// What a packet was charged that another meter stops is there for the next one.
    #[test]
    fn refunds_are_whole(committed in rates(), beyond in beyonds(), cost in 1u32..9_000) {
        let marker = Marker::new(committed, beyond, 1, 0);
        let mut purse = Purse::default();
        let colour = marker.colour(Nanos(0), &mut purse, cost);
        for _ in 0..100 {
            marker.refund(&mut purse, cost, colour);
            prop_assert_eq!(marker.colour(Nanos(0), &mut purse, cost), colour);
        }
    }
}

/// Packets that pass within a time, from one that follows the burst that a full bucket lets through.
struct Passed {
    packets: u64,
    bytes: u64,
    ns: u64,
}

/// `offered` packets a second for so many workers, each of which takes a random share of the time.
fn run(limit: Limit, offered: u64, workers: usize, bytes: u32, ns: u64) -> Passed {
    let meter = Meter::new(limit, workers);
    let mut accounts = vec![Account::default(); workers];
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let (mut worker, mut left) = (0, 0);
    let (mut passed, mut since) = (Passed { packets: 0, bytes: 0, ns: 0 }, None);
    for n in 0..offered * ns / SECOND {
        if left == 0 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (worker, left) = ((random >> 33) as usize % workers, 1 + (random >> 50) % 64);
        }
        left -= 1;
        let now = n * SECOND / offered;
        let charge = meter.charge(Nanos(now), &mut accounts[worker], bytes);
        match since {
            None if charge.colour() == Colour::Red => since = Some(now),
            Some(since) if charge.colour() != Colour::Red => {
                passed.packets += 1;
                passed.bytes += u64::from(bytes);
                passed.ns = now - since;
            }
            _ => {}
        }
    }
    passed
}

fn assert_within_a_percent(passed: u64, per_second: u64, ns: u64, what: &str) {
    let due = u128::from(per_second) * u128::from(ns) / u128::from(SECOND);
    let off = (u128::from(passed) as f64 - due as f64) / due as f64;
    assert!(off.abs() < 0.01, "{what}: {passed} of {due} due, {:+.3} %", off * 100.0);
}

/// From 1 kpps to 10 Mpps, by one worker or many, overloaded a little or a lot.
#[test]
fn packets_pass_at_the_rate() {
    for (per_second, ms) in
        [(1_000, 4_000), (10_000, 2_000), (100_000, 1_000), (1_000_000, 300), (10_000_000, 100)]
    {
        for workers in [1, 3, 16] {
            for overload in [11, 40] {
                let limit = Limit { packets_per_second: Some(per_second), burst_ms: 5, ..Limit::default() };
                let passed = run(limit, per_second * overload / 10, workers, 64, ms * SECOND / 1000);
                let what = format!("{per_second} packets/s, {workers} workers, {overload}/10 offered");
                assert_within_a_percent(passed.packets, per_second, passed.ns, &what);
            }
        }
    }
}

/// From 10 Mbit/s to 100 Gbit/s, of small and of large packets.
#[test]
fn bits_pass_at_the_rate() {
    let kinds = [(10_000_000, 1_500), (1_000_000_000, 64), (10_000_000_000, 1_500), (100_000_000_000, 9_000)];
    for (bits, bytes) in kinds {
        for workers in [1, 8] {
            let limit = Limit { bits_per_second: Some(bits), burst_ms: 20, ..Limit::default() };
            let offered = bits / 8 / u64::from(bytes) * 3 / 2;
            let passed = run(limit, offered, workers, bytes, SECOND / 2);
            let what = format!("{bits} bit/s of {bytes} bytes, {workers} workers");
            assert_within_a_percent(passed.bytes * 8, bits, passed.ns, &what);
        }
    }
}

/// The tokens of a fast bucket are more than 2^64 within a year; nothing comes of it.
#[test]
fn a_bucket_goes_on_for_centuries() {
    let (per_second, depth) = (1_250_000_000_000, 1_000_000);
    let wraps = u64::MAX / per_second * SECOND;
    for start in [wraps - SECOND / 2, wraps, 2 * wraps - SECOND / 4] {
        let bucket = Bucket::new(per_second, depth);
        bucket.draw(Nanos(start - 100 * SECOND), 0, u64::MAX);
        assert_eq!(bucket.draw(Nanos(start), 0, u64::MAX).tokens, depth, "full after {start} ns of nothing");
        let drawn: u64 =
            (0..20_000u64).map(|n| bucket.draw(Nanos(start + n * 50_000), 1, u64::MAX).tokens).sum();
        let due = per_second / 20_000 * 19_999;
        // It holds no more than its depth, of the 62.5 million that come in each 50 us.
        assert!(drawn <= due && drawn >= 19_999 * depth, "{drawn} from {start} ns on");
        let slow = Bucket::new(per_second, per_second);
        slow.draw(Nanos(start - 1), 0, u64::MAX);
        slow.draw(Nanos(start), 0, u64::MAX);
        let drawn: u64 =
            (0..20_000u64).map(|n| slow.draw(Nanos(start + n * 50_000), 1, u64::MAX).tokens).sum();
        assert_eq!(drawn, due, "from {start} ns on");
        let idle = Nanos(start + 365 * 86_400 * SECOND);
        assert_eq!(slow.draw(idle, 0, u64::MAX).tokens, per_second, "full a year later");
    }
}

/// What is given back is there again, and a clock that is behind sees no more than there is.
#[test]
fn tokens_come_back() {
    let bucket = Bucket::new(1_000, 10);
    assert_eq!(bucket.draw(Nanos(SECOND), 10, 10).tokens, 10);
    assert_eq!(bucket.draw(Nanos(SECOND), 1, 10).tokens, 0);
    bucket.give_back(3);
    assert_eq!(bucket.draw(Nanos(SECOND / 2), 1, 10).tokens, 0, "half a second behind");
    assert_eq!(bucket.draw(Nanos(SECOND), 1, 10).tokens, 3);
}

/// Threads that draw on one bucket at once get no more together than there is, and all of it.
#[test]
fn threads_share_a_bucket() {
    let (bucket, rounds) = (Bucket::new(1_000_000_000, 1_000), 20_000u64);
    let drawn: u64 = std::thread::scope(|scope| {
        let work = |_| {
            let bucket = &bucket;
            scope.spawn(move || (0..rounds).map(|now| bucket.draw(Nanos(now), 1, 7).tokens).sum::<u64>())
        };
        let threads: Vec<_> = (0..4).map(work).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    assert!(drawn <= 1_000 + rounds, "{drawn}");
    let rest = bucket.draw(Nanos(rounds), 0, u64::MAX).tokens;
    assert!(drawn + rest <= 1_000 + rounds && rest <= 1_000, "{drawn} {rest}");
}

#[test]
fn a_worker_does_not_spend_what_it_took_of_another_meter() {
    let limit = Limit { packets_per_second: Some(1_000), burst_ms: 1_000, ..Limit::default() };
    let (first, second) = (Meter::new(limit, 1), Meter::new(limit, 1));
    let mut account = Account::default();
    assert_eq!(first.charge(Nanos(0), &mut account, 64).colour(), Colour::Green);
    let passed = (0..2_000).filter(|_| second.charge(Nanos(0), &mut account, 64).colour() == Colour::Green);
    assert_eq!(passed.count(), 1_000);
}

/// A packet that is red for its bytes has cost no packet.
#[test]
fn red_costs_nothing() {
    let limit =
        Limit { packets_per_second: Some(1), bits_per_second: Some(8), burst_ms: 1, ..Limit::default() };
    let (meter, mut account) = (Meter::new(limit, 1), Account::default());
    assert_eq!(meter.charge(Nanos(0), &mut account, 65_000).colour(), Colour::Green);
    for _ in 0..100 {
        assert_eq!(meter.charge(Nanos(0), &mut account, 65_000).colour(), Colour::Red);
    }
    let small = (0..100).filter(|_| meter.charge(Nanos(0), &mut account, 1).colour() == Colour::Green);
    assert_eq!(small.count() as u64, BURST_PACKETS_MIN - 1);
}

#[test]
fn connections_are_limited_by_rate_and_number() {
    let limit = Limit {
        new_connections_per_second: Some(100),
        connections: Some(40),
        burst_ms: 10,
        ..Limit::default()
    };
    let meter = Meter::new(limit, 1);
    let open = |now| {
        let admitted = meter.admits(Nanos(now));
        if admitted {
            meter.opened();
        }
        admitted
    };
    assert_eq!((0..100).filter(|_| open(0)).count() as u64, BURST_PACKETS_MIN);
    assert_eq!((1..=100).filter(|ms| open(ms * 1_000_000)).count(), 8, "40 at a time");
    meter.closed();
    assert!(open(SECOND) && !open(SECOND) && meter.live() == 40);
    let changed = meter.changed(Limit { connections: Some(41), ..limit }, 1);
    assert!(changed.admits(Nanos(SECOND)) && changed.live() == 40);
}
