//! Judging a connection: what a look-up costs with 10, 1,000 and 10,000 rules, beside asking one rule
//! after another, and how long rules take to compile.

use dataplane::addr::{Ip, Prefix};
use dataplane::ids::TenantId;
use dataplane::policy::{
    Action, Defaults, Matches, Policy, PortRange, Source, Standing, Statement, Subject, Way,
};
use std::hint::black_box;
use std::sync::Arc;

/// SplitMix64: the same rules and packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn prefix(random: &mut Random, v6: bool) -> Arc<[Prefix]> {
    let prefix = if v6 {
        let network = 0x2001_0db8_u128 << 96 | u128::from(random.next() as u32) << 64;
        let length = [48, 64, 64, 128][random.below(4) as usize];
        let mask = u128::MAX << (128 - u32::from(length));
        Prefix { address: Ip::v6((network & mask).to_be_bytes()), length }
    } else {
        let length = [16, 20, 24, 24, 28, 32][random.below(6) as usize];
        let mask = u32::MAX << (32 - u32::from(length));
        Prefix { address: Ip::v4((0x0a00_0000 | random.next() as u32 & 0x00ff_ffff) & mask), length }
    };
    Arc::from([prefix])
}

fn ports(random: &mut Random) -> Vec<PortRange> {
    let first = 1 + random.below(60_000) as u16;
    match random.below(4) {
        0 => vec![first..=first + 1000],
        1 => Vec::new(),
        _ => vec![first..=first],
    }
}

/// Rules as people write them: most name a source or a destination, many a port; a few name only a port;
/// one in eight is about IPv6.
fn written(count: u64) -> Vec<Statement> {
    let mut random = Random(count);
    let rule = |line: u64| {
        let v6 = random.below(8) == 0;
        let shape = random.below(16);
        let from = (shape < 10).then(|| prefix(&mut random, v6));
        let to = (shape % 3 != 0).then(|| prefix(&mut random, v6));
        let protocol = [Some(6), Some(6), Some(17), None][random.below(4) as usize];
        let ports = if protocol.is_some() { ports(&mut random) } else { Vec::new() };
        let ports =
            if from.is_none() && to.is_none() { vec![line as u16 + 1..=line as u16 + 1] } else { ports };
        let matches = Matches { from, to, protocol, ports, ..Matches::default() };
        statement(line, Action::ALL[random.below(3) as usize], matches)
    };
    (0..count).map(rule).collect()
}

/// Rules none of which decides, and each field of which many are content with: half of them look at the
/// source and are content with any destination port but one, and so on.
fn adverse(count: u64) -> Vec<Statement> {
    let rule = |line: u64| {
        let all = [Prefix { address: Ip::v4(0x0a00_0000), length: 8 }];
        let none = [Prefix { address: Ip::v4(0xc0a8_0000 + line as u32), length: 32 }];
        let (from, to): (Arc<[Prefix]>, Arc<[Prefix]>) =
            if line % 2 == 0 { (all.into(), none.into()) } else { (none.into(), all.into()) };
        let ports = vec![1..=60_000 + (line % 5000) as u16];
        let matches = Matches { from: Some(from), to: Some(to), ports, ..Matches::default() };
        statement(line, Action::Deny, matches)
    };
    (0..count).map(rule).collect()
}

fn statement(line: u64, action: Action, matches: Matches) -> Statement {
    Statement { name: None, line: line as usize + 1, action, log: false, matches }
}

/// Connections, half of which some rule is about.
fn subjects(rules: &[Statement]) -> Vec<Subject> {
    let mut random = Random(7);
    let address = |random: &mut Random, v6: bool, near: Option<&Arc<[Prefix]>>| {
        let prefix = near.and_then(|prefixes| prefixes.first().copied());
        let random = if v6 { Ip::v6([0x20; 16]) } else { Ip::v4(0x0a00_0000 | random.next() as u32 >> 8) };
        prefix.map_or(random, |prefix| prefix.address)
    };
    let subject = |_| {
        let rule = &rules[random.below(rules.len() as u64) as usize].matches;
        let near = random.below(2) == 0;
        let v6 = [&rule.from, &rule.to].into_iter().flatten().any(|list| !list[0].address.is_v4());
        let src = address(&mut random, v6, rule.from.as_ref().filter(|_| near));
        let dst = address(&mut random, v6, rule.to.as_ref().filter(|_| near));
        let port = 1 + random.below(65_535) as u16;
        Subject {
            tenant: TenantId(0),
            way: Way::Ingress,
            src,
            dst,
            src_port: 1024 + random.below(60_000) as u16,
            dst_port: rule.ports.first().filter(|_| near).map_or(port, |ports| *ports.start()),
            protocol: rule.protocol.filter(|_| near).unwrap_or(6),
            icmp: None,
            state: Standing::New,
        }
    };
    (0..1 << 14).map(subject).collect()
}

/// Best of a few runs, nanoseconds for each subject.
#[allow(clippy::disallowed_methods, reason = "a bench measures time")]
fn nanoseconds(subjects: &[Subject], runs: usize, judge: impl Fn(&Subject) -> bool) -> f64 {
    let run = || {
        let started = std::time::Instant::now();
        let found = subjects.iter().filter(|subject| judge(black_box(subject))).count();
        black_box(found);
        started.elapsed().as_secs_f64() * 1e9 / subjects.len() as f64
    };
    (0..runs).map(|_| run()).min_by(f64::total_cmp).unwrap_or(f64::NAN)
}

#[allow(clippy::disallowed_methods, reason = "a bench measures time")]
fn measure(kind: &str, rules: Vec<Statement>) {
    let (count, subjects) = (rules.len(), subjects(&rules));
    let source = Source { rules, defaults: Defaults::default() };
    let compile = || {
        let started = std::time::Instant::now();
        let policy = Policy::build(black_box(&source), None).expect("policy");
        (started.elapsed().as_secs_f64() * 1e3, policy)
    };
    let mut compiled: Vec<_> = (0..5).map(|_| compile()).collect();
    compiled.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (built, policy) = &compiled[2];
    let compiled = nanoseconds(&subjects, 15, |subject| policy.judge(subject).rule.is_some());
    let linear_at = subjects.len().min(1 << 22 >> count.ilog2());
    let linear = nanoseconds(&subjects[..linear_at], 5, |subject| {
        policy.rules().iter().any(|rule| rule.statement.decides(subject))
    });
    println!(
        "policy {kind:8} {count:6} rules: {compiled:6.1} ns/look-up, one after another {linear:9.1} ns, \
         compiled in {built:6.2} ms"
    );
}

fn main() {
    for count in [10, 1000, 10_000] {
        measure("written", written(count));
    }
    for count in [10, 1000, 10_000] {
        measure("adverse", adverse(count));
    }
}
