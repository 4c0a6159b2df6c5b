//! Our lookup beside that of `rte_hash`, on the same keys in the same order, by turns.
//!
//! Ours finds connections by client and VIP, and has the keys of their replies in it too, which it is not
//! asked for. Theirs has the former keys alone, 13 bytes in 16; a value of one cache line belongs to each,
//! which is read, as ours reads the connection's. Both are in huge pages if DPDK can have some, or else
//! neither is.

use std::hint::black_box;

use criterion::measurement::{Measurement, WallTime};
use dataplane::flow::FlowKey;
use dataplane::packet::BURST;
use dpdk::Eal;
use dpdk::hash::{Function, Hash, KEY_BYTES};

use super::{Shuffle, Table, full, key, staged};

const SIZES: [(&str, u32); 2] = [("1M", 1_000_000), ("10M", 10_000_000)];
/// Bursts timed at a time: few, so that most are timed without an interruption.
const BURSTS: usize = 32;
const ROUNDS: usize = 2_001;
/// What DPDK's table of 10M needs, and some more.
const EAL_BYTES: usize = 1 << 30;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Value(u64);

struct Theirs<'eal> {
    hash: Hash<'eal>,
    values: Box<[Value]>,
}

fn packed(key: &FlowKey) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..4].copy_from_slice(&key.src.low32().to_be_bytes());
    bytes[4..8].copy_from_slice(&key.dst.low32().to_be_bytes());
    bytes[8..10].copy_from_slice(&key.src_port.to_be_bytes());
    bytes[10..12].copy_from_slice(&key.dst_port.to_be_bytes());
    bytes[12] = key.protocol as u8;
    bytes
}

impl<'eal> Theirs<'eal> {
    fn full(eal: &'eal Eal, size: u32, function: Function) -> Theirs<'eal> {
        let mut hash = Hash::create(eal, "beside", size, function).expect("memory for their table");
        let mut values = vec![Value(0); size as usize + 1].into_boxed_slice();
        for n in 0..size {
            let position = hash.add(&packed(&key(n))).expect("room for all");
            values[position as usize] = Value(u64::from(n));
        }
        Theirs { hash, values }
    }

    fn find(&self, keys: &[[u8; KEY_BYTES]; BURST]) -> u64 {
        let positions = self.hash.find_burst(keys);
        positions.iter().map(|&position| self.values[position as usize].0).sum()
    }
}

/// Nanoseconds per lookup, medians: ours, then theirs.
fn alternate(table: &Table, theirs: &Theirs<'_>, size: u32) -> [f64; 2] {
    let mut shuffle = Shuffle(7);
    let mut times = [const { Vec::new() }; 2];
    let nanoseconds = |time: std::time::Duration| time.as_nanos() as f64 / (BURSTS * BURST) as f64;
    for _ in 0..ROUNDS {
        // Neither sees numbers that the other has just fetched the keys of.
        let ours: [[FlowKey; BURST]; BURSTS] = keys(&mut shuffle, size);
        let packed = keys(&mut shuffle, size).map(|burst| burst.each_ref().map(packed));
        let start = WallTime.start();
        let found: usize = ours.iter().map(|burst| staged(table, burst)).sum();
        times[0].push(nanoseconds(WallTime.end(start)));
        assert_eq!(found, BURSTS * BURST);
        let start = WallTime.start();
        packed.iter().for_each(|burst| _ = black_box(theirs.find(burst)));
        times[1].push(nanoseconds(WallTime.end(start)));
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn keys(shuffle: &mut Shuffle, size: u32) -> [[FlowKey; BURST]; BURSTS] {
    std::array::from_fn(|_| std::array::from_fn(|_| key(shuffle.below(size))))
}

/// Whether there are huge pages for DPDK.
fn huge_pages() -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim_end_matches("kB").trim().parse::<usize>().ok()
    };
    of("HugePages_Free").zip(of("Hugepagesize")).is_some_and(|(free, kib)| free * kib * 1024 >= EAL_BYTES)
}

pub(super) fn run() {
    let huge = huge_pages();
    let size = (EAL_BYTES >> 20).to_string();
    let memory: &[&str] = if huge { &["--in-memory"] } else { &["--no-huge", "--no-shconf", "-m", &size] };
    if !huge {
        dpdk::huge::refuse_to_this_process();
    }
    let rest = ["--no-pci", "--no-telemetry", "-l", "0", "--log-level=*:error"];
    let eal = Eal::init(&[memory, &rest].concat()).expect("DPDK starts");
    println!("\nbeside rte_hash, nanoseconds per lookup in bursts of {BURST}, medians, {} pages", {
        if huge { "huge" } else { "small" }
    });
    for (label, size) in SIZES {
        let table = full(size);
        for function in [Function::Crc, Function::Jenkins] {
            let theirs = Theirs::full(&eal, size, function);
            let [our, their] = alternate(&table, &theirs, size);
            println!(
                "{label:>4}: {our:6.1}   rte_hash ({function:?}) {their:6.1}   ratio {:.2}",
                their / our
            );
        }
    }
}
