//! How long bursts take while 100,000 connections a second come and go beside a million that stay.
//!
//! Time is virtual: so many bursts make a millisecond as a worker does that forwards 12.5 million packets
//! a second. Each burst ends with one call of the ageing wheel, as a turn of a worker's loop does.

use criterion::measurement::{Measurement, WallTime};
use dataplane::conntrack::{Candidates, New, Shape, State, Table};
use dataplane::flow::{Direction, FlowKey};
use dataplane::ids::{ServiceId, WorkerId};
use dataplane::packet::BURST;
use dataplane::time::Tick;
use dataplane::wire::parse::TcpFlags;

use super::{HASHER, Shuffle, key, new, packet};

const LIVE: u32 = 1_000_000;
const BURSTS_PER_MS: u32 = 390;
const OPENED_PER_MS: u32 = 100;
/// Until the first to come have gone, and as long again.
const MILLISECONDS: std::ops::Range<u32> = 1_300..1_900;
const COMING_AND_GOING: ServiceId = ServiceId(1);

fn timeout(service: ServiceId, _: State) -> u32 {
    if service == COMING_AND_GOING { 1_000 } else { 1 << 30 }
}

struct Bursts {
    table: Table,
    now: Tick,
    shuffle: Shuffle,
    opened: u32,
    budget: usize,
}

impl Bursts {
    fn new(budget: usize) -> Bursts {
        let shape =
            Shape { connections: LIVE + LIVE / 4, half_open_max: LIVE + LIVE / 4, half_open_grace_ms: 0 };
        let mut table = Table::new(WorkerId(0), shape, HASHER, Tick(0));
        assert!((0..LIVE).all(|n| table.insert(Tick(0), &new(n), timeout).is_ok()));
        Bursts { table, now: Tick(0), shuffle: Shuffle(3), opened: LIVE, budget }
    }

    /// Packets of random connections, and the first ones of new connections.
    fn burst(&mut self, keys: &[FlowKey; BURST], news: &[New]) {
        let hashes = keys.each_ref().map(|key| self.table.hash(key));
        hashes.iter().for_each(|hash| self.table.prefetch_index(*hash));
        let candidates = hashes.map(|hash| self.table.probe(hash));
        for at in 0..BURST {
            if let Some((slot, direction)) = self.table.find(&keys[at], hashes[at], candidates[at]) {
                let ack = TcpFlags::ACK;
                let _ = self.table.account(slot, direction, self.now, 1000, ack, |_| 1 << 30);
            }
        }
        for new in news {
            let hash = self.table.hash(&new.key);
            if self.table.find(&new.key, hash, Candidates::default()).is_none() {
                let prepared = self.table.prepare(new, hash);
                let inserted = self.table.insert_prepared(self.now, new, &prepared, timeout);
                let slot = inserted.expect("room").slot;
                let syn = TcpFlags::SYN;
                let _ = self.table.account(slot, Direction::Original, self.now, 60, syn, |_| 1_000);
            }
        }
        self.table.expire(self.now, self.budget, timeout, |_| (), |_| ());
    }

    /// Nanoseconds of each burst, sorted.
    fn run(&mut self) -> Vec<u64> {
        let mut times = Vec::with_capacity(MILLISECONDS.len() * BURSTS_PER_MS as usize);
        for millisecond in 1..MILLISECONDS.end {
            self.now = Tick(millisecond);
            let mut due = 0;
            for burst in 1..=BURSTS_PER_MS {
                let first = self.opened + due;
                due = OPENED_PER_MS * burst / BURSTS_PER_MS;
                let news: Vec<New> = (first..self.opened + due).map(coming).collect();
                let keys = std::array::from_fn(|_| {
                    let n = self.shuffle.below(LIVE);
                    if n % 2 == 0 { packet(n, true) } else { key(n) }
                });
                let start = WallTime.start();
                self.burst(&keys, &news);
                if MILLISECONDS.contains(&millisecond) {
                    times.push(WallTime.end(start).as_nanos() as u64);
                }
            }
            self.opened += due;
        }
        times.sort_unstable();
        times
    }
}

/// The `n`th that comes: its keys are nobody else's for long enough.
fn coming(n: u32) -> New {
    New { service: COMING_AND_GOING, ..new(n & 0x0fff_ffff) }
}

pub(super) fn run() {
    println!(
        "\nnanoseconds per burst of {BURST} at 1M live, 100k connections/s come and go, by budget of expire"
    );
    for budget in [16, 64, 256] {
        let mut bursts = Bursts::new(budget);
        let times = bursts.run();
        let at = |share: f64| times[(times.len() as f64 * share) as usize];
        let [median, p99, p999] = [0.5, 0.99, 0.999].map(at);
        println!(
            "{budget:>4}: median {median}   p99 {p99} ({:.2}x)   p99.9 {p999} ({:.2}x)",
            p99 as f64 / median as f64,
            p999 as f64 / median as f64,
        );
        assert!(bursts.table.len() as u32 > LIVE, "they come and go");
    }
}
