//! Nanoseconds per packet of the connection table, from a table that fits the first-level cache to one
//! that fits none. Every figure is of one packet (or connection), not of a burst.
//!
//! `beside` and `tail` print tables of their own: the lookup beside that of DPDK's `rte_hash`, and how long
//! bursts take while connections come and go.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

#[path = "table/beside.rs"]
mod beside;
#[path = "table/tail.rs"]
mod tail;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkGroup, Criterion, criterion_group};
use dataplane::addr::Ip;
use dataplane::conntrack::{Candidates, New, Shape, State, Table};
use dataplane::flow::{Direction, FlowHasher, FlowKey, Protocol};
use dataplane::ids::{BackendId, ServiceId, TenantId, WorkerId};
use dataplane::packet::BURST;
use dataplane::time::Tick;
use dataplane::wire::parse::TcpFlags;

/// As in the program.
#[global_allocator]
static ALLOCATOR: dpdk::HugePages = dpdk::HugePages;

const SIZES: [(&str, u32); 3] = [("1k", 1_000), ("1M", 1_000_000), ("10M", 10_000_000)];
const HASHER: FlowHasher = FlowHasher::new([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);

/// The `n`th client's connection to a VIP.
fn key(n: u32) -> FlowKey {
    FlowKey {
        src: Ip::v4(0x0a00_0000 + (n >> 14)),
        dst: Ip::v4(0xc000_0201),
        src_port: 1024 + (n & 0x3fff) as u16,
        dst_port: 80,
        tenant: TenantId(0),
        protocol: Protocol::Tcp,
    }
}

fn new(n: u32) -> New {
    New {
        key: key(n),
        service: ServiceId(0),
        backend: BackendId(0),
        backend_ip: Ip::v4(0xac10_0000 + (n & 0xff)),
        backend_port: 8080,
        nat: true,
        flags: TcpFlags::SYN,
        judged: 0,
    }
}

/// A packet of the `n`th connection, of either direction.
fn packet(n: u32, reply: bool) -> FlowKey {
    if !reply {
        return key(n);
    }
    FlowKey { src: Ip::v4(0xac10_0000 + (n & 0xff)), src_port: 8080, ..key(n).reversed() }
}

fn timeout(_: ServiceId, _: State) -> u32 {
    10_000
}

fn empty(size: u32) -> Table {
    let shape = Shape { connections: size, half_open_max: size, half_open_grace_ms: 0 };
    Table::new(WorkerId(0), shape, HASHER, Tick(0))
}

fn full(size: u32) -> Table {
    let mut table = empty(size);
    assert!((0..size).all(|n| table.insert(Tick(0), &new(n), timeout).is_ok()));
    table
}

/// Numbers below a bound, in no order.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (((self.0 >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Measures `burst`, given 32 random numbers below `bound`, and reports the time of one packet.
fn per_packet(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: String,
    bound: u32,
    mut burst: impl FnMut(&[u32; BURST]),
) {
    let mut shuffle = Shuffle(42);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let start = WallTime.start();
            for _ in 0..iterations {
                burst(&std::array::from_fn(|_| shuffle.below(bound)));
            }
            WallTime.end(start) / BURST as u32
        });
    });
}

fn one_by_one(table: &Table, keys: &[FlowKey; BURST]) -> usize {
    keys.iter().filter(|key| table.find(key, table.hash(key), Candidates::default()).is_some()).count()
}

fn staged(table: &Table, keys: &[FlowKey; BURST]) -> usize {
    let hashes = keys.each_ref().map(|key| table.hash(key));
    hashes.iter().for_each(|hash| table.prefetch_index(*hash));
    let candidates = hashes.map(|hash| table.probe(hash));
    (0..BURST).filter(|&i| table.find(&keys[i], hashes[i], candidates[i]).is_some()).count()
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for (label, size) in SIZES {
        let table = full(size);
        let hits = |numbers: &[u32; BURST]| numbers.map(|n| packet(n, n & 1 == 0));
        let misses = |numbers: &[u32; BURST]| numbers.map(|n| packet(size + n, n & 1 == 0));
        type Find = fn(&Table, &[FlowKey; BURST]) -> usize;
        for (way, find) in [("one_by_one", one_by_one as Find), ("staged", staged)] {
            per_packet(&mut group, format!("hit/{way}/{label}"), size, |numbers| {
                assert_eq!(find(&table, &hits(numbers)), BURST);
            });
            per_packet(&mut group, format!("miss/{way}/{label}"), size, |numbers| {
                assert_eq!(find(&table, &misses(numbers)), 0);
            });
        }
    }
    group.finish();
}

/// The table's whole share of an established packet: lookup, counters, state.
fn forwarding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find_and_account");
    for (label, size) in SIZES {
        let mut table = full(size);
        per_packet(&mut group, format!("staged/{label}"), size, |numbers| {
            let keys = numbers.map(|n| packet(n, n & 1 == 0));
            let hashes = keys.each_ref().map(|key| table.hash(key));
            hashes.iter().for_each(|hash| table.prefetch_index(*hash));
            let candidates = hashes.map(|hash| table.probe(hash));
            for i in 0..BURST {
                let Some((slot, direction)) = table.find(&keys[i], hashes[i], candidates[i]) else {
                    continue;
                };
                let outcome = table.account(slot, direction, Tick(0), 1000, TcpFlags::ACK, |_| 10_000);
                let _ = black_box(outcome);
            }
        });
    }
    group.finish();
}

/// Opens connections until the table is full, then lets all expire; times one of the two.
fn fill_and_drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turnover");
    group.sample_size(10);
    for (label, size) in &SIZES[..2] {
        let mut table = empty(*size);
        let mut now = Tick(0);
        let mut fresh = 0;
        let mut turn = |table: &mut Table, connections: u32| -> [Duration; 2] {
            let start = WallTime.start();
            for _ in 0..connections {
                fresh = (fresh + 1) & 0x0fff_ffff;
                let hash = table.hash(&key(fresh));
                assert!(table.find(&key(fresh), hash, table.probe(hash)).is_none());
                let prepared = table.prepare(&new(fresh), hash);
                assert!(table.insert_prepared(now, &new(fresh), &prepared, timeout).is_ok());
            }
            let open = WallTime.end(start);
            now = now.after_ms(11_000);
            let start = WallTime.start();
            while table.expire(now, 256, timeout, |gone| _ = black_box(gone), |_| ()) == 256 {}
            [open, WallTime.end(start)]
        };
        for (which, name) in ["open", "expire"].into_iter().enumerate() {
            group.bench_function(format!("{name}/{label}"), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    let mut left = iterations;
                    while left > 0 {
                        // Always a full table, so that what is timed is not its emptiness.
                        total += turn(&mut table, *size)[which] / *size;
                        left -= 1;
                    }
                    total
                });
            });
        }
    }
    group.finish();
}

/// Opens by the burst, as a worker does, beside a million that stay; and what refusing a newcomer costs.
fn opening(criterion: &mut Criterion) {
    const LIVE: u32 = 1_000_000;
    const TURN: u32 = LIVE / 8;
    const PASSING: ServiceId = ServiceId(1);
    let timeout = |service: ServiceId, _: State| if service == PASSING { 1_000 } else { 1 << 30 };
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    let mut table = empty(LIVE + TURN);
    assert!((0..LIVE).all(|n| table.insert(Tick(0), &new(n), timeout).is_ok()));
    let (mut now, mut fresh) = (Tick(0), LIVE);
    group.bench_function("burst/1M", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let start = WallTime.start();
                for _ in 0..TURN / BURST as u32 {
                    let passing = |n: usize| New { service: PASSING, ..new(fresh + n as u32 & 0x0fff_ffff) };
                    open_burst(&mut table, now, &std::array::from_fn(passing), timeout);
                    fresh += BURST as u32;
                }
                total += WallTime.end(start) / (TURN / BURST as u32 * BURST as u32);
                now = now.after_ms(3_000);
                while table.expire(now, 64, timeout, |_| (), |_| ()) == 64 {}
                assert_eq!(table.len(), LIVE as usize);
            }
            total
        });
    });
    drop(table);
    let shape = Shape { connections: LIVE, half_open_max: LIVE / 10, half_open_grace_ms: 1_000 };
    let mut table = Table::new(WorkerId(0), shape, HASHER, Tick(0));
    assert!((0..LIVE / 10).all(|n| table.insert(Tick(0), &new(n), timeout).is_ok()));
    per_packet(&mut group, "refused".to_owned(), LIVE, |numbers| {
        for n in numbers {
            assert!(table.insert(Tick(0), &new(LIVE + n), timeout).is_err());
        }
    });
    group.finish();
}

/// Looks for all, prepares all, opens all.
fn open_burst(table: &mut Table, now: Tick, news: &[New; BURST], timeout: impl Fn(ServiceId, State) -> u32) {
    let hashes = news.each_ref().map(|new| table.hash(&new.key));
    hashes.iter().for_each(|hash| table.prefetch_index(*hash));
    let candidates = hashes.map(|hash| table.probe(hash));
    let prepared: [_; BURST] = std::array::from_fn(|at| {
        assert!(table.find(&news[at].key, hashes[at], candidates[at]).is_none());
        table.prepare(&news[at], hashes[at])
    });
    for (new, prepared) in news.iter().zip(&prepared) {
        assert!(table.insert_prepared(now, new, prepared, &timeout).is_ok());
    }
}

/// One in, one out, in a table that stays full: the way of a table under a flood, and of port reuse.
fn replacement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replace");
    for (label, size) in SIZES {
        let mut table = full(size);
        let mut fresh = size;
        per_packet(&mut group, format!("oldest_half_open/{label}"), size, |_| {
            for _ in 0..BURST {
                fresh = (fresh + 1) & 0x0fff_ffff;
                assert!(table.insert(Tick(0), &new(fresh), timeout).is_ok_and(|i| i.evicted.is_some()));
            }
        });
        let (oldest, youngest) = (fresh + 1 - size, fresh);
        per_packet(&mut group, format!("remove_and_insert/{label}"), size, |numbers| {
            for n in numbers.map(|n| oldest + n) {
                assert!(n <= youngest);
                let hash = table.hash(&key(n));
                let Some((slot, Direction::Original)) = table.find(&key(n), hash, Candidates::default())
                else {
                    continue;
                };
                black_box(table.remove(slot));
                assert!(table.insert(Tick(0), &new(n), timeout).is_ok());
            }
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = lookups, forwarding, fill_and_drain, opening, replacement
}

fn main() {
    benches();
    // As Criterion does: without `--bench` this is a test, and what has no dash in front is a filter.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    let all = filters.peek().is_none();
    let names: Vec<&String> = filters.collect();
    for (name, run) in [("tail", tail::run as fn()), ("beside", beside::run)] {
        if arguments.iter().any(|argument| argument == "--bench") && (all || names.iter().any(|n| *n == name))
        {
            run();
        }
    }
    Criterion::default().configure_from_args().final_summary();
}
