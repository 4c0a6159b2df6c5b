//! Choosing a backend: how long a table takes to build, against the paper's algorithm as written, and
//! what the look-ups of a packet cost.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::Config;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::TenantId;
use dataplane::maglev::{self, Identity};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use std::fmt::Write as _;
use std::hint::black_box;

const BACKENDS: u32 = 1000;

fn set(weight: impl Fn(u32) -> u32) -> Vec<(Identity, u32)> {
    let identity = |n| Identity { address: Ip::v4(0x0a00_0000 + n), port: Some(8080) };
    (0..BACKENDS).map(|n| (identity(n), weight(n))).collect()
}

/// The paper's pseudocode, with the permutations computed as they are needed and one entry a slot.
/// Hashing the backends is not in it: the floor is the filling.
fn paper(size: u64, permutations: &[(u64, u64)]) -> Vec<i32> {
    let mut next = vec![0u64; permutations.len()];
    let mut entry = vec![-1i32; size as usize];
    let mut filled = 0;
    loop {
        for (backend, &(offset, skip)) in permutations.iter().enumerate() {
            let mut slot = ((offset + next[backend] * skip) % size) as usize;
            while entry[slot] >= 0 {
                next[backend] += 1;
                slot = ((offset + next[backend] * skip) % size) as usize;
            }
            entry[slot] = backend as i32;
            next[backend] += 1;
            filled += 1;
            if filled == size {
                return entry;
            }
        }
    }
}

/// Any well-mixed permutations serve: the work does not depend on which.
fn permutations(size: u64) -> Vec<(u64, u64)> {
    let mix = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    (1..=u64::from(BACKENDS)).map(|n| (mix(n) % size, mix(n * 7919) % (size - 1) + 1)).collect()
}

fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("maglev_build_1000_backends");
    group.sample_size(20);
    for size in [65537u32, 655_373] {
        let equal = set(|_| 1);
        group.bench_function(BenchmarkId::new("equal", size), |b| b.iter(|| maglev::build(size, &equal)));
        let weighted = set(|n| 1 + n % 10);
        group.bench_function(BenchmarkId::new("weighted", size), |b| {
            b.iter(|| maglev::build(size, &weighted));
        });
        let skewed = set(|n| if n == 0 { 1_000_000 } else { 1 });
        group.bench_function(BenchmarkId::new("skewed", size), |b| b.iter(|| maglev::build(size, &skewed)));
        let size = u64::from(size);
        let permutations = permutations(size);
        group.bench_function(BenchmarkId::new("paper", size), |b| b.iter(|| paper(size, &permutations)));
    }
    group.finish();
}

/// What the table costs beside the paper's algorithm, run by run.
#[allow(clippy::disallowed_methods, reason = "a bench measures time")]
fn beside_the_paper() {
    const SIZE: u64 = 65537;
    let timed = |work: &dyn Fn()| {
        let started = std::time::Instant::now();
        work();
        started.elapsed().as_secs_f64() * 1e3
    };
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let weighted = set(|n| 1 + n % 10);
    let permutations = permutations(SIZE);
    let (ours, papers) = (0..51)
        .map(|_| {
            let ours = timed(&|| drop(black_box(maglev::build(SIZE as u32, &weighted))));
            (ours, timed(&|| drop(black_box(paper(SIZE, &permutations)))))
        })
        .unzip();
    let (ours, papers) = (median(ours), median(papers));
    println!(
        "maglev {SIZE} x {BACKENDS}: weighted {ours:.2} ms, the paper's algorithm (no weights, no hashing) \
         {papers:.2} ms, ratio {:.2}",
        papers / ours
    );
}

fn config(services: u32, backends: u32) -> Config {
    let mut text = String::from(
        "[[port]]\nname = \"p0\"\ndevice = \"net_null0\"\naddresses = [\"192.0.2.1/24\", \"10.0.0.1/8\"]\n\
         gateway = \"192.0.2.254\"\n",
    );
    for service in 0..services {
        let (high, low) = (service / 250, service % 250);
        write!(
            text,
            "[[service]]\nname = \"s{service}\"\nvip = \"198.51.{high}.{low}\"\nprotocol = \"tcp\"\n\
             ports = [443, \"8000-8100\"]\nmode = \"nat\"\n"
        )
        .expect("writing to a string");
        for backend in 0..backends {
            let (high, low) = (backend / 250, backend % 250 + 1);
            writeln!(text, "[[service.backend]]\naddress = \"10.1.{high}.{low}\"")
                .expect("writing to a string");
        }
    }
    Config::parse("bench.toml", &text).unwrap_or_else(|faults| panic!("{faults}"))
}

const FACTS: [PortFacts; 1] = [PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }];

fn build(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
    Snapshot::build(config, &FACTS, &Overrides::default(), previous, &|_| 0).expect("snapshot")
}

fn reloads(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot_100_services_100_backends");
    group.sample_size(10);
    let before = config(100, 100);
    let snapshot = build(&before, None);
    let mut after = config(100, 100);
    after.services[50].backends[50].weight = 2;
    group.bench_function("nothing_changed", |b| b.iter(|| build(&before, Some(&snapshot))));
    group.bench_function("one_weight_changed", |b| b.iter(|| build(&after, Some(&snapshot))));
    group.finish();
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    let snapshot = build(&config(500, 20), None);
    let keys: Vec<FlowKey> = (0..256u32)
        .map(|n| FlowKey {
            src: Ip::v4(0xcb00_7100 + n * 7),
            dst: Ip::v4(0xc633_0000 + (n % 2) * 256 + n % 250),
            src_port: 1024 + n as u16,
            dst_port: if n % 3 == 0 { 443 } else { 8050 },
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        })
        .collect();
    let v6: Vec<Ip> = (0..256u32).map(|n| Ip::v6([n as u8; 16])).collect();
    let owners = Owners::new(&DEFAULT_KEY, 8, 128).expect("owners");
    let service = snapshot.services[0].as_ref().expect("service");
    // An iteration does all 256; the throughput says what one costs.
    group.throughput(Throughput::Elements(256));
    let of = |key: &FlowKey| snapshot.classify(key.tenant, key.dst, key.protocol, key.dst_port);
    each(&mut group, "classify", &keys, |key| of(key).map(|service| service.id));
    each(&mut group, "route", &keys, |key| snapshot.route(key.tenant, key.src));
    each(&mut group, "flow_hash_and_pick", &keys, |key| service.pick(maglev::flow_hash(key)));
    each(&mut group, "owner_v4", &keys, |key| owners.owner(key.src));
    each(&mut group, "owner_v6", &v6, |&ip| owners.owner(ip));
    group.finish();
}

fn each<T, R>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, inputs: &[T], f: impl Fn(&T) -> R) {
    group.bench_function(name, |b| {
        b.iter(|| inputs.iter().for_each(|input| _ = black_box(f(black_box(input)))));
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    tables(&mut criterion);
    reloads(&mut criterion);
    lookups(&mut criterion);
    if std::env::args().any(|argument| argument == "--bench") {
        beside_the_paper();
    }
    criterion.final_summary();
}
