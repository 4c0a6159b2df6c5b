//! What medians hide: how long the slowest bursts of the walk take, what a new configuration costs, and what
//! a second worker adds. Packets are in memory; the copy that stands for receiving is not timed.
//!
//! `churn`: a million established connections send in random order while 100,000 others a second come (a
//! SYN) and go (a RST). A turn is a burst of 32 and the upkeep after it, without allocation, which an
//! allocator that watches proves.
//!
//! `publish`: a new snapshot with 16,000 backends, and the turns after it.
//!
//! `scaling`: workers on two cores with connections of their own against one at a time. It needs both
//! cores to itself.

#[path = "../dataplane/tests/suite/common/alloc.rs"]
mod alloc;
mod bed;

use alloc::{Watched, forbidden};
use bed::{Bed, FRONT, RST, SYN, Traffic, V4};
use core_affinity::CoreId;
use dataplane::config::Config;
use dataplane::packet::BURST;
use dataplane::time::Tick;
use std::fmt::Write as _;
use std::sync::{Arc, Barrier};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Watched<dpdk::HugePages> = Watched(dpdk::HugePages);

/// Connections that come, and go, per second.
const CHURN: u64 = 100_000;
/// Time from one's SYN to its RST.
const LIFE_MS: u64 = 20;

/// How much is done: little in a test run, which measures nothing.
struct Size {
    flows: u32,
    turns: usize,
    services: u32,
    backends: u32,
}

const BENCH: Size = Size { flows: 1_000_000, turns: 1_500_000, services: 16, backends: 1000 };
const TEST: Size = Size { flows: 1000, turns: 1000, services: 2, backends: 10 };

fn main() {
    let bench = std::env::args().any(|argument| argument == "--bench");
    let size = if bench { BENCH } else { TEST };
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));
    let clock = Cycles::new(bench);
    if wanted("churn") {
        churn(&size, &clock);
    }
    if wanted("publish") {
        publish(&size, &clock);
    }
    if wanted("scaling") {
        scaling(&size, &clock);
    }
}

/// The time-stamp counter.
struct Cycles {
    per_second: f64,
}

impl Cycles {
    #[allow(clippy::disallowed_methods, reason = "a bench measures time")]
    fn new(bench: bool) -> Cycles {
        let (started, cycles) = (std::time::Instant::now(), now());
        std::thread::sleep(Duration::from_millis(if bench { 200 } else { 1 }));
        let cycles = now() - cycles;
        Cycles { per_second: cycles as f64 / started.elapsed().as_secs_f64() }
    }

    fn ns(&self, cycles: u64) -> f64 {
        cycles as f64 * 1e9 / self.per_second
    }

    fn ms(&self, cycles: u64) -> u64 {
        (cycles as f64 * 1e3 / self.per_second) as u64
    }
}

fn now() -> u64 {
    dpdk::clock::rdtsc()
}

/// Prints percentiles of turns.
fn report(name: &str, clock: &Cycles, turns: &mut [u64]) {
    turns.sort_unstable();
    let at = |share: f64| clock.ns(turns[((turns.len() - 1) as f64 * share) as usize]) / 1e3;
    let (median, p99) = (at(0.5), at(0.99));
    println!(
        "{name}: {} turns, us: median {median:.2}, p99 {p99:.2} ({:.2} x), p99.9 {:.2}, max {:.1}; {:.1} ns a \
         packet",
        turns.len(),
        p99 / median,
        at(0.999),
        at(1.0),
        median * 1e3 / BURST as f64
    );
}

/// Connections that come and go.
struct Churn {
    started: u64,
    first: u32,
    opened: u64,
    closed: u64,
}

impl Churn {
    /// Puts packets of those that are due in the place of others.
    fn mix(&mut self, clock: &Cycles, bed: &Bed<V4>, frames: &mut [[u8; V4]]) {
        let elapsed_us = (clock.ns(now() - self.started) / 1e3) as u64;
        let mut frames = frames.iter_mut();
        let due = |lag_us: u64| elapsed_us.saturating_sub(lag_us) * CHURN / 1_000_000;
        // Half of a burst at most is of each kind.
        for _ in 0..(due(0) - self.opened).min(BURST as u64 / 2) {
            let Some(frame) = frames.next() else { break };
            *frame = bed.client_frame(self.first + self.opened as u32, SYN);
            self.opened += 1;
        }
        for _ in 0..due(LIFE_MS * 1000).saturating_sub(self.closed).min(BURST as u64 / 2) {
            let Some(frame) = frames.next() else { break };
            *frame = bed.client_frame(self.first + self.closed as u32, RST);
            self.closed += 1;
        }
    }
}

fn churn(size: &Size, clock: &Cycles) {
    // Those that were reset are kept for a second.
    let config = bed::config(size.flows + 3 * CHURN as u32);
    let mut bed = Bed::<V4>::with_config(Traffic::Tcp, size.flows, &config);
    for (name, comes) in [("quiet", false), ("churn", true)] {
        let mut samples = Vec::with_capacity(size.turns);
        let mut churn = Churn { started: now(), first: size.flows + 1, opened: 0, closed: 0 };
        for turn in 0..size.turns {
            let start = turn * BURST % (bed.frames.len() - BURST);
            let mut frames: [[u8; V4]; BURST] = std::array::from_fn(|n| bed.frames[start + n]);
            if comes {
                churn.mix(clock, &bed, &mut frames);
            }
            let mut burst = bed.ports.receive(FRONT, &frames);
            let started = now();
            let tick = Tick(1000 + clock.ms(started - churn.started) as u32);
            forbidden(|| {
                bed.worker.on_burst(tick, &mut burst, &mut bed.ports);
                bed.worker.on_tick(tick, &mut bed.ports);
            });
            samples.push(now() - started);
        }
        report(name, clock, &mut samples);
        if comes {
            let seconds = clock.ns(now() - churn.started) / 1e9;
            let (rate, live) = (churn.opened as f64 / seconds, bed.counters.entries.get());
            println!("  {rate:.0} connections a second came, {live} in the table, no allocation");
        }
    }
}

/// Services of many backends beside those of the bed.
fn many(size: &Size, weight: u32) -> Config {
    let mut text = String::new();
    for service in 0..size.services {
        write!(
            text,
            "[[service]]\nname = \"s{service}\"\nvip = \"198.51.100.{service}\"\nprotocol = \"tcp\"\nports = [443]\n"
        )
        .expect("writing to a string");
        for backend in 0..size.backends {
            let [_, _, c, d] = (service * size.backends + backend).to_be_bytes();
            let weight = if backend == 0 { weight } else { 1 };
            writeln!(text, "[[service.backend]]\naddress = \"10.1.{c}.{d}:8080\"\nweight = {weight}")
                .expect("writing to a string");
        }
    }
    bed::config_with(size.flows + size.flows / 10, &text)
}

/// The cost of taking up a new configuration in which weights have changed.
fn publish(size: &Size, clock: &Cycles) {
    let config = many(size, 1);
    let mut bed = Bed::<V4>::with_config(Traffic::Tcp, size.flows, &config);
    let mut current = bed::snapshot(&config, None);
    let (mut adopting, mut slowest, mut quiet) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..5 {
        let next = bed::snapshot(&many(size, 2 + round), Some(&current));
        current = next.clone();
        for turn in 0..4000 {
            let mut burst = bed.receive(FRONT);
            let tick = Tick(1000 + round * 100 + turn / 300);
            let snapshot = (turn == 2000).then(|| Arc::new(next.clone()));
            let started = now();
            bed.worker.on_burst(tick, &mut burst, &mut bed.ports);
            let old = snapshot.map(|snapshot| {
                let started = now();
                let old = bed.worker.adopt(tick, snapshot, &mut bed.ports);
                adopting.push(now() - started);
                old
            });
            bed.worker.on_tick(tick, &mut bed.ports);
            let taken = now() - started;
            drop(old);
            if turn < 2000 {
                quiet.push(taken);
            } else {
                slowest.push(taken);
            }
        }
    }
    report("publish: before", clock, &mut quiet);
    report("publish: after", clock, &mut slowest);
    adopting.sort_unstable();
    let us: Vec<String> = adopting.iter().map(|&cycles| format!("{:.1}", clock.ns(cycles) / 1e3)).collect();
    println!("publish: adopting takes, us: {}", us.join(" "));
}

/// Packets per second of a worker that has the core to itself while others have theirs.
fn run(bed: &mut Bed<V4>, core: CoreId, turns: usize, start: &Barrier, clock: &Cycles) -> f64 {
    core_affinity::set_for_current(core);
    start.wait();
    let started = now();
    for _ in 0..turns {
        let mut burst = bed.receive(FRONT);
        bed.worker.on_burst(Tick(2), &mut burst, &mut bed.ports);
        bed.worker.on_tick(Tick(2), &mut bed.ports);
    }
    (turns * BURST) as f64 * 1e9 / clock.ns(now() - started)
}

fn scaling(size: &Size, clock: &Cycles) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let &[first, second, ..] = cores.as_slice() else {
        println!("scaling: needs two cores");
        return;
    };
    for flows in [size.flows / 10, size.flows] {
        let mut beds = [first, second].map(|_| Bed::<V4>::new(Traffic::Tcp, flows));
        let [one, two] = &mut beds;
        let turns = size.turns / 5;
        let alone = |bed: &mut Bed<V4>, core| run(bed, core, turns, &Barrier::new(1), clock);
        let mut ratios: Vec<f64> = (0..5)
            .map(|_| {
                let single = (alone(one, first) + alone(two, second)) / 2.0;
                let start = Barrier::new(2);
                let (one, two) = std::thread::scope(|scope| {
                    let other = scope.spawn(|| run(two, second, turns, &start, clock));
                    (run(one, first, turns, &start, clock), other.join().expect("runs"))
                });
                (one + two) / single
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!("scaling: {flows} connections each: two workers are worth {:.2} ({ratios:.2?})", ratios[2]);
    }
}
