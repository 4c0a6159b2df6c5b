use super::{News, PERIOD_NS, Seen, Share};
use dataplane::meter::{Bucket, Nanos};

const SECOND: u64 = Nanos::SECOND;
/// How often the bucket hears of hardware.
const STEP_NS: u64 = 1_000_000;

/// How a device's meters are: exact, and their passes are told late, in lumps or not.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Whether it has its whole burst again when it is told a rate.
    refills: bool,
    /// Periods' worth in which its counts come.
    lump: u64,
}

const KINDS: [Kind; 4] = [
    Kind { refills: false, lump: 1 },
    Kind { refills: true, lump: 1 },
    Kind { refills: true, lump: 5 },
    Kind { refills: true, lump: 10 },
];

/// A device's meter.
struct Device {
    rate: u64,
    tokens: f64,
    depth: f64,
    passed: u64,
    dropped: u64,
}

impl Device {
    fn offer(&mut self, ns: u64, packets: f64) -> u64 {
        self.tokens = (self.tokens + self.rate as f64 * ns as f64 / SECOND as f64).min(self.depth);
        let passed = packets.min(self.tokens.floor());
        self.tokens -= passed;
        self.dropped += (packets - passed) as u64;
        self.passed += passed as u64;
        passed as u64
    }

    fn tell(&mut self, news: News, refills: bool) {
        self.rate = news.per_second;
        self.depth = news.burst as f64;
        self.tokens = if refills { self.depth } else { self.tokens.min(self.depth) };
    }
}

/// What passed in a second, in software and in hardware.
#[derive(Clone, Copy, Default, Debug)]
struct Second {
    software: u64,
    hardware: u64,
}

/// Traffic of `offered(second)` packets a second in software and in hardware.
fn run(kind: Kind, rate: u64, burst: u64, seconds: u64, offered: impl Fn(u64) -> (u64, u64)) -> Vec<Second> {
    let bucket = Bucket::new(rate, burst);
    let mut share = Share::new(rate, burst, 1);
    let mut device = Device { rate: 0, tokens: 0.0, depth: 0.0, passed: 0, dropped: 0 };
    let tell = |now, share: &mut Share, device: &mut Device| {
        if let Some(news) = share.news(now, false) {
            device.tell(news, kind.refills || share.last_told().is_none());
            bucket.reserve(news.burst);
            share.told(now, news);
        }
    };
    tell(0, &mut share, &mut device);
    let (mut result, mut short) = (vec![Second::default(); seconds as usize], false);
    let (mut part, mut left, mut drawn) = (0, [0.0f64; 2], bucket.drawn());
    // What it has passed and dropped, as it tells it: at the last moment that counters were read.
    let (mut visible, mut known) = ((0, 0), (0, 0));
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
        result[at].hardware += device.offer(STEP_NS, left[1].floor());
        left = left.map(f64::fract);
        if now % (kind.lump * PERIOD_NS) == 0 {
            visible = (device.passed, device.dropped);
        }
        if now % PERIOD_NS == 0 {
            let seen = Seen {
                elapsed_ns: PERIOD_NS,
                drawn: bucket.drawn() - drawn,
                level: bucket.level(Nanos(now)),
                short: std::mem::take(&mut short),
                passed: visible.0 - known.0,
                dropped: visible.1 > known.1,
            };
            (drawn, known) = (bucket.drawn(), visible);
            share.reconsider(&seen);
            tell(now, &mut share, &mut device);
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
    for (kind, rate) in
        KINDS.into_iter().flat_map(|kind| [1_000, 100_000, 10_000_000].map(|rate| (kind, rate)))
    {
        let mixes = [(0, 200), (200, 0), (5, 200), (60, 60), (200, 200), (200, 30), (30, 200), (300, 5)];
        for (burst, (software, hardware)) in
            [10, 2].into_iter().flat_map(|part| mixes.map(|mix| (rate / part, mix)))
        {
            let offered = |_| (rate * software / 100, rate * hardware / 100);
            let seconds = run(kind, rate, burst, 30, offered);
            let what = format!("{kind:?}, {rate}/s, burst {burst}, {software} % and {hardware} % offered");
            assert_exact(&seconds[20..], rate, &what);
        }
    }
}

/// Traffic that moves between the two halves: never more than the rate and a burst, and the whole rate again
/// within seconds.
#[test]
fn it_follows_traffic_from_one_half_to_the_other() {
    KINDS.into_iter().for_each(follows);
}

fn follows(kind: Kind) {
    let rate = 100_000;
    let offered = |second| match second / 10 {
        0 => (2 * rate, 0),
        1 => (rate / 20, 2 * rate),
        2 => (2 * rate, rate / 20),
        3 => (rate / 2, rate / 4),
        _ => (2 * rate, 2 * rate),
    };
    let seconds = run(kind, rate, rate / 10, 50, offered);
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
    let mut share = Share::new(1, 32, 1);
    let seen = Seen { elapsed_ns: PERIOD_NS, drawn: 10, short: true, dropped: true, ..Seen::default() };
    for _ in 0..1_000 {
        assert_eq!(share.reconsider(&seen), 1);
    }
    let mut share = Share::new(1_000_000, 1_000, 1);
    for _ in 0..1_000 {
        let hardware = share.reconsider(&Seen { dropped: false, drawn: 200_000, ..seen });
        assert!((1_953..=1_000_000).contains(&hardware));
    }
}
