//! The whole walk on in-memory packets: time per burst of 32 packets of established NAT connections, by
//! the number of live connections. `source` is the copy into a recycled buffer alone, the floor to
//! subtract. For a floor with ports, compare `testpmd`'s macswap.
//!
//! What offloading costs the packets that stay in software: `established` is without an engine, `priced`
//! with one whose price no connection has paid, `installed` with all connections in hardware, which
//! misses all of their packets.
//!
//! `open` is the first packet of a connection, `flood` likewise with the half-open share full of young
//! connections, both at a million live ones. Ten million, which take 3 GiB, only if `BENCH_LARGE` is set.
//! Percentiles and two workers: `tail`.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

mod bed;

use bed::{BACK, Bed, FRONT, RST, SYN, Traffic, V4, V6};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::ids::PortId;
use dataplane::packet::BURST;
use dataplane::time::Tick;
use std::hint::black_box;
use std::time::Duration;

/// As in the program.
#[global_allocator]
static ALLOCATOR: dpdk::HugePages = dpdk::HugePages;

/// Bursts between the opening of a connection and its RST: their lines have left the cache by then.
const LIFE: usize = 256;
/// Bursts per millisecond of the worker's time: so few that all connections that were reset within their
/// timeout of a second fit into the table beside the live ones.
const BURSTS_PER_MS: usize = 2;

/// Whether this is a test run, which measures nothing.
fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

fn live() -> u32 {
    if is_test() { 10_000 } else { 1_000_000 }
}

fn established<const N: usize>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    bed: &mut Bed<N>,
    port: PortId,
) {
    group.bench_function(BenchmarkId::new(name, bed.frames.len()), |bencher| {
        bencher.iter(|| {
            let mut burst = bed.receive(port);
            bed.worker.on_burst(Tick(2), &mut burst, &mut bed.ports);
        });
    });
}

fn walk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("worker");
    group.throughput(Throughput::Elements(BURST as u64));
    let large = std::env::var_os("BENCH_LARGE").map(|_| 10_000_000);
    for flows in [64, 10_000, 100_000].into_iter().chain((!is_test()).then_some(1_000_000)).chain(large) {
        let mut bed = Bed::<V4>::new(Traffic::Tcp, flows);
        group.bench_function(BenchmarkId::new("source", flows), |bencher| {
            bencher.iter(|| {
                let burst = bed.receive(FRONT);
                bed.ports.free.extend(black_box(burst));
            });
        });
        bed.worker.set_price(u32::MAX);
        established(&mut group, "established", &mut bed, FRONT);
        established(&mut group, "reply", &mut bed, BACK);
        bed.worker.set_price(u32::MAX - 1);
        established(&mut group, "priced", &mut bed, FRONT);
        if flows <= 1_000_000 {
            bed.install();
            established(&mut group, "installed", &mut bed, FRONT);
        }
    }
    for flows in [64, live()] {
        let mut bed = Bed::<V4>::new(Traffic::Udp, flows);
        established(&mut group, "udp", &mut bed, FRONT);
        let mut bed = Bed::<V6>::new(Traffic::Tcp6, flows);
        established(&mut group, "ipv6", &mut bed, FRONT);
        established(&mut group, "ipv6_reply", &mut bed, BACK);
    }
    group.finish();
}

/// Fresh flows, a burst at a time.
struct Fresh {
    flow: u32,
    bursts: usize,
    /// Cycles of a second.
    hz: f64,
}

impl Fresh {
    fn tick(&self) -> Tick {
        Tick(2 + (self.bursts / BURSTS_PER_MS) as u32)
    }

    /// Walks a burst of first packets; cycles taken.
    fn burst(&mut self, bed: &mut Bed<V4>, flow: u32, flags: u8) -> u64 {
        let frames: [[u8; V4]; BURST] = std::array::from_fn(|n| bed.client_frame(flow + n as u32, flags));
        let now = self.tick();
        let mut burst = bed.ports.receive(FRONT, &frames);
        let started = dpdk::clock::rdtsc();
        bed.worker.on_burst(now, &mut burst, &mut bed.ports);
        dpdk::clock::rdtsc() - started
    }

    fn time(&self, cycles: u64) -> Duration {
        Duration::from_secs_f64(cycles as f64 / self.hz)
    }
}

fn newcomers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new");
    group.throughput(Throughput::Elements(BURST as u64));
    let flows = live();
    let mut bed = Bed::<V4>::new(Traffic::Tcp, flows);
    let flow = flows + (LIFE * BURST) as u32;
    let mut fresh = Fresh { flow, bursts: 0, hz: cycles_per_second() };
    group.bench_function(BenchmarkId::new("open", flows), |bencher| {
        bencher.iter_custom(|bursts| {
            let mut cycles = 0;
            for _ in 0..bursts {
                let flow = fresh.flow;
                cycles += fresh.burst(&mut bed, flow, SYN);
                fresh.burst(&mut bed, flow - (LIFE * BURST) as u32, RST);
                bed.worker.on_tick(fresh.tick(), &mut bed.ports);
                (fresh.flow, fresh.bursts) = (flow + BURST as u32, fresh.bursts + 1);
            }
            fresh.time(cycles)
        });
    });
    // More SYNs in the grace of 100 ms than there is room for half-open connections.
    group.bench_function(BenchmarkId::new("flood", flows), |bencher| {
        for _ in 0..bed.half_open_max as usize / BURST + 1 {
            let flow = fresh.flow;
            fresh.burst(&mut bed, flow, SYN);
            fresh.flow = flow + BURST as u32;
        }
        assert_eq!(bed.counters.half_open.get(), u64::from(bed.half_open_max));
        bencher.iter_custom(|bursts| {
            let mut cycles = 0;
            for _ in 0..bursts {
                let flow = fresh.flow;
                cycles += fresh.burst(&mut bed, flow, SYN);
                fresh.flow = flow + BURST as u32;
            }
            fresh.time(cycles)
        });
    });
    group.finish();
}

/// Of the time-stamp counter, by the system's clock.
#[allow(clippy::disallowed_methods, reason = "a bench measures time")]
fn cycles_per_second() -> f64 {
    let (started, cycles) = (std::time::Instant::now(), dpdk::clock::rdtsc());
    std::thread::sleep(Duration::from_millis(if is_test() { 1 } else { 100 }));
    let cycles = dpdk::clock::rdtsc() - cycles;
    cycles as f64 / started.elapsed().as_secs_f64()
}

criterion_group!(benches, walk, newcomers);
criterion_main!(benches);
