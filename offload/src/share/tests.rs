use super::{PERIOD_NS, Seen, Share};
use dataplane::meter::{Bucket, Nanos};

const SECOND: u64 = Nanos::SECOND;
/// How often the bucket hears of hardware.
const STEP_NS: u64 = 1_000_000;

/// A device's meter: exact, and its passes are told a second late.
struct Device {
    rate: u64,
    tokens: f64,
    depth: f64,
    passed: Vec<u64>,
    dropped: u64,
}

impl Device {
    fn offer(&mut self, ns: u64, packets: f64) -> u64 {
        self.tokens = (self.tokens + self.rate as f64 * ns as f64 / SECOND as f64).min(self.depth);
        let passed = packets.min(self.tokens.floor());
        self.tokens -= passed;
        self.dropped += (packets - passed) as u64;
        passed as u64
    }
}

/// What passed in a second, in software and in hardware.
#[derive(Clone, Copy, Default, Debug)]
struct Second {
    software: u64,
    hardware: u64,
}

/// Traffic of `offered(second)` packets a second in software and in hardware.
fn run(rate: u64, burst: u64, seconds: u64, offered: impl Fn(u64) -> (u64, u64)) -> Vec<Second> {
    let bucket = Bucket::new(rate, burst);
    let mut share = Share::new(rate, burst);
    let depth = (burst / 2) as f64;
    let mut device = Device { rate: share.hardware(), tokens: depth, depth, passed: vec![0; 10], dropped: 0 };
    bucket.reserve(burst / 2);
    let (mut result, mut of_period, mut short) = (vec![Second::default(); seconds as usize], 0, false);
    let (mut part, mut left, mut drawn, mut dropped) = (0, [0.0f64; 2], bucket.drawn(), 0);
    for step in 1..=seconds * SECOND / STEP_NS {
        let now = step * STEP_NS;
        let at = ((now - 1) / SECOND) as usize;
        let (software, hardware) = offered(at as u64);
        for (left, offered) in left.iter_mut().zip([software, hardware]) {
            *left += offered as f64 * STEP_NS as f64 / SECOND as f64;
        }
        let owed = u128::from(device.rate) * u128::from(STEP_NS) + part;
        part = owed % u128::from(SECOND);
        bucket.reserve((owed / u128::from(SECOND)) as u64);
        let wanted = left[0].floor() as u64;
        let got = bucket.draw(Nanos(now), 0, wanted).tokens;
        short |= got < wanted;
        result[at].software += got;
        let passed = device.offer(STEP_NS, left[1].floor());
        result[at].hardware += passed;
        of_period += passed;
        left = left.map(f64::fract);
        if now % PERIOD_NS == 0 {
            device.passed.push(std::mem::take(&mut of_period));
            let seen = Seen {
                elapsed_ns: PERIOD_NS,
                drawn: bucket.drawn() - drawn,
                level: bucket.level(Nanos(now)),
                short: std::mem::take(&mut short),
                passed: device.passed[device.passed.len() - 11],
                dropped: device.dropped > dropped,
            };
            (drawn, dropped) = (bucket.drawn(), device.dropped);
            device.rate = share.reconsider(&seen);
        }
    }
    result
}

fn assert_exact(of: &[Second], rate: u64, what: &str) {
    let passed: u64 = of.iter().map(|second| second.software + second.hardware).sum();
    let due = rate * of.len() as u64;
    let off = (passed as f64 - due as f64) / due as f64;
    assert!(off.abs() < 0.01, "{what}: {passed} of {due}, {:+.2} %: {of:?}", off * 100.0);
}

/// From 1 kpps to 10 Mpps, wherever the packets are: all of the rate passes, and no more.
#[test]
fn the_whole_rate_passes_wherever_packets_are() {
    for rate in [1_000, 100_000, 10_000_000] {
        let mixes = [(0, 200), (200, 0), (5, 200), (60, 60), (200, 200), (200, 30), (30, 200), (300, 5)];
        for (software, hardware) in mixes {
            let offered = |_| (rate * software / 100, rate * hardware / 100);
            let seconds = run(rate, rate / 10, 14, offered);
            assert_exact(&seconds[8..], rate, &format!("{rate}/s, {software} % and {hardware} % offered"));
        }
    }
}

/// Traffic that moves between the two halves: never more than the rate and a burst, and the whole rate again
/// within seconds.
#[test]
fn it_follows_traffic_from_one_half_to_the_other() {
    let rate = 100_000;
    let offered = |second| match second / 10 {
        0 => (2 * rate, 0),
        1 => (rate / 20, 2 * rate),
        2 => (2 * rate, rate / 20),
        3 => (rate / 2, rate / 4),
        _ => (2 * rate, 2 * rate),
    };
    let seconds = run(rate, rate / 10, 50, offered);
    let total = |of: &[Second]| of.iter().map(|second| second.software + second.hardware).sum::<u64>();
    for end in 1..=seconds.len() {
        assert!(total(&seconds[..end]) <= rate * end as u64 + rate / 10, "after {end} s");
    }
    for (phase, what) in [(0, "software"), (1, "hardware"), (2, "software again"), (4, "both")] {
        assert_exact(&seconds[10 * phase + 5..10 * phase + 10], rate, what);
    }
    // What fits passes whole, whatever came before.
    assert!(total(&seconds[35..40]).abs_diff(5 * rate * 3 / 4) <= rate / 100, "{:?}", &seconds[35..40]);
    // Neither starves the other.
    let both = seconds[49];
    assert!(both.software > rate / 3 && both.hardware > rate / 3, "{both:?}");
}

/// A half without traffic has what it takes to begin some.
#[test]
fn nobody_is_shut_out() {
    let mut share = Share::new(1, 32);
    let seen = Seen { elapsed_ns: PERIOD_NS, drawn: 10, short: true, dropped: true, ..Seen::default() };
    for _ in 0..1_000 {
        assert_eq!(share.reconsider(&seen), 1);
    }
    let mut share = Share::new(1_000_000, 1_000);
    for _ in 0..1_000 {
        let hardware = share.reconsider(&Seen { dropped: false, drawn: 200_000, ..seen });
        assert!((1_953..=1_000_000).contains(&hardware));
    }
}
