//! The whole walk on in-memory packets: time per burst of 32 packets of established NAT connections, by
//! the number of live connections. Ports are replaced by a copy of each frame into a recycled buffer;
//! `source` is that copy alone, the floor to subtract. For a floor with ports, compare `testpmd`'s
//! macswap.
//!
//! What offloading costs the packets that stay in software: `established` is without an engine, `priced`
//! with one whose price no connection has paid, `installed` with all connections in hardware, which
//! misses all of their packets.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::Config;
use dataplane::counters::WorkerCounters;
use dataplane::ids::{PortId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Answer, Ask, Revoke, RuleId};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::packet::{BURST, Burst, PacketBuf};
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use dataplane::time::Tick;
use dataplane::worker::{Env, Sizes, Worker, WorkerSetup};
use std::hint::black_box;
use std::sync::Arc;

/// As in the program.
#[global_allocator]
static ALLOCATOR: dpdk::HugePages = dpdk::HugePages;

const HEADROOM: usize = 128;
const FRAME: usize = 60;
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

const CONFIG: &str = r#"
[limits]
connections = 1_100_000
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24"]
gateway = "10.0.0.254"
[[port]]
name = "back"
device = "net_null1"
addresses = ["10.0.1.1/24"]
[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
mode = "nat"
"#;

/// A buffer that goes round: received, forwarded, received again.
struct Recycled {
    port: PortId,
    bytes: Box<[u8; 256]>,
    start: usize,
    len: usize,
}

impl PacketBuf for Recycled {
    fn port(&self) -> PortId {
        self.port
    }
    fn is_contiguous(&self) -> bool {
        true
    }
    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
    fn grow_front(&mut self, n: usize) -> bool {
        let fits = n <= self.start;
        if fits {
            (self.start, self.len) = (self.start - n, self.len + n);
        }
        fits
    }
    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len;
        if fits {
            (self.start, self.len) = (self.start + n, self.len - n);
        }
        fits
    }
    fn set_len(&mut self, len: usize) -> bool {
        let fits = self.start + len <= self.bytes.len();
        if fits {
            self.len = len;
        }
        fits
    }
}

/// Ports that take everything and give the buffers back.
struct Ports {
    free: Vec<Recycled>,
    asks: Vec<Ask>,
}

impl Ports {
    fn new() -> Ports {
        let buffer = || Recycled { port: PortId(0), bytes: Box::new([0; 256]), start: HEADROOM, len: 0 };
        Ports { free: (0..4 * BURST).map(|_| buffer()).collect(), asks: Vec::with_capacity(BURST) }
    }

    fn receive<'a>(
        &mut self,
        port: PortId,
        frames: impl Iterator<Item = &'a [u8; FRAME]>,
    ) -> Burst<Recycled> {
        let mut burst = Burst::new();
        for frame in frames {
            let mut packet = self.free.pop().expect("a buffer per packet in flight");
            (packet.port, packet.start, packet.len) = (port, HEADROOM, FRAME);
            packet.bytes[HEADROOM..HEADROOM + FRAME].copy_from_slice(frame);
            burst.push(packet);
        }
        burst
    }
}

impl Env for Ports {
    type Buf = Recycled;
    fn alloc(&mut self, _: PortId) -> Option<Recycled> {
        self.free.pop().map(|packet| Recycled { start: HEADROOM, len: 0, ..packet })
    }
    fn send(&mut self, _: PortId, packet: Recycled) {
        self.free.push(packet);
    }
    fn hand_off(&mut self, _: WorkerId, packet: Recycled) -> Result<(), Recycled> {
        Err(packet)
    }
    fn announce(&mut self, _: &NeighbourUpdate) {}
    fn ask(&mut self, ask: &Ask) -> bool {
        self.asks.push(*ask);
        true
    }
    fn revoke(&mut self, _: &Revoke) -> bool {
        false
    }
}

/// A 60-byte TCP segment; checksum differences do not matter here, IPv4's is right.
fn segment(mac: MacAddr, from: (u32, u16), to: (u32, u16), flags: u8) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&mac.0);
    frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    frame[26..30].copy_from_slice(&from.0.to_be_bytes());
    frame[30..34].copy_from_slice(&to.0.to_be_bytes());
    frame[34..36].copy_from_slice(&from.1.to_be_bytes());
    frame[36..38].copy_from_slice(&to.1.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
    frame
}

struct Bench {
    worker: Worker<Recycled>,
    ports: Ports,
    counters: Arc<WorkerCounters>,
    frames: Vec<[u8; FRAME]>,
}

impl Bench {
    /// A worker with this many established connections, and one data segment of each in random order.
    fn new(flows: u32) -> Bench {
        let backends =
            (11..19).map(|host| format!("[[service.backend]]\naddress = \"10.0.1.{host}:8080\"\n"));
        let text = CONFIG.to_owned() + &backends.collect::<String>();
        let config = Config::parse("bench.toml", &text).unwrap_or_else(|faults| panic!("{faults}"));
        let facts = MACS.map(|mac| PortFacts { mac, mtu: 1500 });
        let snapshot = Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0).expect("builds");
        let counters = Arc::new(WorkerCounters::new(16, 64));
        let setup = WorkerSetup {
            id: WorkerId(0),
            owners: Owners::new(&DEFAULT_KEY, 1, 128).expect("a worker"),
            seed: [1, 2, 3, 4],
            sizes: Sizes::of(&config.limits),
        };
        let mut bench = Bench {
            worker: Worker::new(Tick(1), &setup, Arc::new(snapshot), Arc::clone(&counters)),
            ports: Ports::new(),
            counters,
            frames: Vec::with_capacity(flows as usize),
        };
        for (port, ip) in
            (11..19).map(|host| (PortId(1), 0x0a00_0100 + host)).chain([(PortId(0), 0x0a00_00fe)])
        {
            let mac = MacAddr([2, 0, 0, 0, 2, ip as u8]);
            let update = NeighbourUpdate { port, ip: Ip::v4(ip), mac, solicited: true, overrides: true };
            bench.worker.introduce(Tick(1), &update, &mut bench.ports);
        }
        bench.establish(flows);
        bench
    }

    fn establish(&mut self, flows: u32) {
        let vip = (0xc000_0250, 80);
        for flow in 0..flows {
            let client = (0x6440_0000 + flow / 32_768, 1024 + (flow % 32_768) as u16);
            let backend_of =
                |packet: &Recycled| u32::from_be_bytes([0, 1, 2, 3].map(|i| packet.data()[30 + i]));
            self.forward(PortId(0), &segment(MACS[0], client, vip, 0x02));
            let backend = backend_of(self.ports.free.last().expect("just sent"));
            self.forward(PortId(1), &segment(MACS[1], (backend, 8080), client, 0x12));
            let data = segment(MACS[0], client, vip, 0x10);
            self.forward(PortId(0), &data);
            self.frames.push(data);
        }
        assert_eq!(self.counters.sent.get() + u64::from(flows) * 3, self.counters.received.get());
        assert_eq!(self.counters.entries.get(), u64::from(flows));
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for index in (1..self.frames.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            self.frames.swap(index, (random % (index as u64 + 1)) as usize);
        }
    }

    /// Hardware takes every connection.
    fn install(&mut self) {
        self.worker.set_price(1);
        let mut rule = 0;
        for index in 0..self.frames.len() {
            let frame = self.frames[index];
            self.forward(PortId(0), &frame);
            for Ask { flow, token, .. } in std::mem::take(&mut self.ports.asks) {
                rule += 1;
                let installed = Answer::Installed { flow, token, rule: RuleId(rule) };
                self.worker.on_answer(Tick(1), &installed, &mut self.ports);
            }
        }
        assert_eq!(self.counters.offload_installed.get(), self.frames.len() as u64);
    }

    fn forward(&mut self, port: PortId, frame: &[u8; FRAME]) {
        let mut burst = self.ports.receive(port, std::iter::once(frame));
        let sent = self.ports.free.len() + burst.len();
        self.worker.on_burst(Tick(1), &mut burst, &mut self.ports);
        assert_eq!(self.ports.free.len(), sent, "dropped: {:?}", self.counters.dropped);
    }
}

fn walk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("worker");
    group.throughput(Throughput::Elements(BURST as u64));
    for flows in [64, 10_000, 100_000, 1_000_000] {
        let mut bench = Bench::new(flows);
        let mut at = 0;
        let mut next = move |count: usize| {
            at = if at + 2 * BURST > count { 0 } else { at + BURST };
            at..at + BURST
        };
        group.bench_function(BenchmarkId::new("source", flows), |bencher| {
            bencher.iter(|| {
                let burst = bench.ports.receive(PortId(0), bench.frames[next(bench.frames.len())].iter());
                bench.ports.free.extend(black_box(burst));
            });
        });
        for kind in ["established", "priced", "installed"] {
            match kind {
                "established" => bench.worker.set_price(u32::MAX),
                "priced" => bench.worker.set_price(u32::MAX - 1),
                _ => bench.install(),
            }
            group.bench_function(BenchmarkId::new(kind, flows), |bencher| {
                bencher.iter(|| {
                    let frames = bench.frames[next(bench.frames.len())].iter();
                    let mut burst = bench.ports.receive(PortId(0), frames);
                    bench.worker.on_burst(Tick(2), &mut burst, &mut bench.ports);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, walk);
criterion_main!(benches);
