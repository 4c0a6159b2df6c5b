//! Nanoseconds per rule or packet of the classifier: IPv4 5-tuples under masks of four words, with one
//! matcher and with three.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use eswitch::model::classifier::{Classifier, Duplicates, MatcherId, Order};
use eswitch::model::key::Key;
use eswitch::model::types::RuleId;

const SIZES: [(&str, u32); 3] = [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)];
const BURST: usize = 32;

/// Addresses in one word, ports in the next, what the headers are in two more. Matchers differ in a bit.
fn mask(matcher: u32) -> Key {
    let mut key = Key::default();
    key.words[0] = 0xffff;
    key.words[4] = u64::MAX;
    key.words[5] = 0xffff_ffff;
    key.words[7] = 0xff | 1 << (8 + matcher);
    key
}

/// A packet of the `n`th connection: many clients of a few services.
fn packet(n: u32) -> Key {
    let mut key = Key::default();
    key.words[0] = 1;
    key.words[4] = 0x0a00_0000_c000_0201 + (u64::from(n >> 14) << 32);
    key.words[5] = 443 << 16 | u64::from(1024 + (n & 0x3fff));
    key.words[7] = 6;
    key
}

fn empty(matchers: u32) -> (Classifier, Vec<MatcherId>) {
    let mut classifier = Classifier::new(7, Order::OldestFirst, Duplicates::NewWins);
    let ids = (0..matchers).map(|n| classifier.hold(n, &mask(n), 0)).collect();
    (classifier, ids)
}

/// Adds the `n`th rule, to the matchers in turn.
fn insert(classifier: &mut Classifier, ids: &[MatcherId], n: u32) {
    let inserted = classifier.insert(ids[n as usize % ids.len()], &packet(n), RuleId(n));
    assert!(inserted.is_ok(), "it replaces or it is new");
}

fn full(size: u32, matchers: u32) -> (Classifier, Vec<MatcherId>) {
    let (mut classifier, ids) = empty(matchers);
    (0..size).for_each(|n| insert(&mut classifier, &ids, n));
    (classifier, ids)
}

/// Numbers below a bound, in no order.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (((self.0 >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Looks up packets with numbers below `size`, plus `beyond`: too many for anything of them to stay cached.
fn look_up<M: Measurement>(
    group: &mut BenchmarkGroup<'_, M>,
    name: String,
    classifier: &Classifier,
    size: u32,
    beyond: u32,
) {
    let mut shuffle = Shuffle(1);
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(name, |bencher| {
        // Keys made just before are where they are in the device: in the first-level cache.
        bencher.iter_batched_ref(
            || -> [Key; BURST] { std::array::from_fn(|_| packet(beyond + shuffle.below(size))) },
            |keys| {
                let keys: [&Key; BURST] = std::array::from_fn(|n| &keys[n]);
                let mut hits = [None; BURST];
                classifier.lookup_burst(black_box(&keys), &mut hits);
                hits
            },
            BatchSize::PerIteration,
        );
    });
}

fn benches(criterion: &mut Criterion) {
    let mut group: BenchmarkGroup<'_, WallTime> = criterion.benchmark_group("classifier");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, size) in SIZES {
        for matchers in [1, 3] {
            group.throughput(Throughput::Elements(size.into()));
            group.bench_function(format!("fill/{name}/{matchers}"), |bencher| {
                bencher.iter_batched_ref(
                    || empty(matchers),
                    |(classifier, ids)| (0..size).for_each(|n| insert(classifier, ids, n)),
                    BatchSize::PerIteration,
                );
            });
            let (mut classifier, ids) = full(size, matchers);
            look_up(&mut group, format!("hit/{name}/{matchers}"), &classifier, size, 0);
            look_up(&mut group, format!("miss/{name}/{matchers}"), &classifier, size, size);
            let mut shuffle = Shuffle(2);
            group.throughput(Throughput::Elements(1));
            group.bench_function(format!("replace/{name}/{matchers}"), |bencher| {
                bencher.iter(|| {
                    let n = shuffle.below(size);
                    assert!(classifier.remove(ids[(n % matchers) as usize], &packet(n), RuleId(n)));
                    insert(&mut classifier, &ids, n);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(classifier, benches);
criterion_main!(classifier);
