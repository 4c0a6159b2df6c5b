//! The whole device on in-memory wires: nanoseconds per packet for rules that count, age, translate (MAC,
//! address, port, TTL) and send to the other wire, under three masks: IPv4 TCP and UDP and IPv6 TCP
//! connections. Packets hit rules in no order, so that caches are of little help. A wire is a copy of the
//! frame into a recycled buffer; `source` is that copy alone, the floor to subtract. `insert` is what a rule
//! costs, from typed items and actions on: validation, lowering, installation.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::ids::PortId;
use dataplane::packet::{BURST, Burst, PacketBuf};
use eswitch::model::action::Action;
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Eswitch, Fabric, RxMeta};
use eswitch::model::types::{Attr, Role, RuleHandle, Steering, Tick, Topology, Vport, VportInfo};
use eswitch::model::validate::Port;

const SIZES: [(&str, u32); 3] = [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)];
const HEADROOM: usize = 128;
const WIRE: Vport = Vport(0);
const HOST: Vport = Vport(1);

/// A buffer that goes round.
struct Recycled {
    bytes: Box<[u8; 512]>,
    start: usize,
    len: usize,
}

impl PacketBuf for Recycled {
    fn port(&self) -> PortId {
        PortId(0)
    }
    fn set_port(&mut self, _: PortId) {}
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
            self.start -= n;
            self.len += n;
        }
        fits
    }
    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len;
        if fits {
            self.start += n;
            self.len -= n;
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

/// The wires: gives buffers back.
#[derive(Default)]
struct Wires {
    free: Vec<Recycled>,
    forwarded: u64,
    others: u64,
}

impl Fabric<Recycled> for Wires {
    fn transmit(&mut self, to: Vport, packet: Recycled) {
        self.forwarded += u64::from(to == HOST);
        self.free.push(packet);
    }
    fn receive(&mut self, _at: Vport, _meta: RxMeta, packet: Recycled) {
        self.others += 1;
        self.free.push(packet);
    }
    fn copy(&mut self, _packet: &Recycled) -> Option<Recycled> {
        None
    }
    fn discard(&mut self, _reason: DropReason, packet: Recycled) {
        self.others += 1;
        self.free.push(packet);
    }
}

/// The `n`th connection's frame: a third each of IPv4 TCP, IPv4 UDP, IPv6 TCP; 74 bytes.
fn frame(n: u32) -> [u8; 74] {
    let mut frame = [0; 74];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    let (ether_type, protocol, l4) = match n % 3 {
        0 => (0x0800_u16, 6, 34),
        1 => (0x0800, 17, 34),
        _ => (0x86dd, 6, 54),
    };
    frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
    let client = (0x0a00_0000 | n >> 14).to_be_bytes();
    if ether_type == 0x0800 {
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&60_u16.to_be_bytes());
        frame[22] = 64;
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&client);
        frame[30..34].copy_from_slice(&[192, 0, 2, 80]);
    } else {
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&20_u16.to_be_bytes());
        frame[20] = protocol;
        frame[21] = 64;
        frame[22] = 0xfd;
        frame[34..38].copy_from_slice(&client);
        frame[38] = 0xfd;
        frame[53] = 80;
    }
    frame[l4..l4 + 2].copy_from_slice(&(1024 + (n & 0x3fff) as u16).to_be_bytes());
    frame[l4 + 2..l4 + 4].copy_from_slice(&80_u16.to_be_bytes());
    if protocol == 6 {
        frame[l4 + 12..l4 + 14].copy_from_slice(&[0x50, 0x10]);
    } else {
        frame[l4 + 5] = 40;
    }
    frame
}

fn device() -> Eswitch {
    let vports =
        [(Role::Uplink(0), 0), (Role::Host(0), 1)].map(|(role, port_id)| VportInfo { role, port_id });
    let profile = Profile::named("ideal").expect("a built-in profile");
    let mut context = profile.context(Topology::new(vports.to_vec()));
    context.steering = Steering::Software;
    Eswitch::new(Arc::new(context), &profile, 1)
}

/// Makes the rule that the `n`th connection hits.
fn insert(device: &mut Eswitch, n: u32) -> RuleHandle {
    let frame = frame(n);
    let five_tuple_v4 = [&[0; 12][..], &[0xff; 8]].concat();
    let addresses_v6 = [&[0; 8][..], &[0xff; 32]].concat();
    let ports = [0xff_u8; 4];
    let control = [&ports[..], &[0; 9], &[0x07], &[0; 6]].concat();
    let udp = [&ports[..], &[0; 4]].concat();
    let eth = Item::Header(Header::any(Layer::Eth));
    let mut tcp_bytes = [0; 20];
    let (l3, l4, set) = match n % 3 {
        2 => {
            tcp_bytes[..4].copy_from_slice(&frame[54..58]);
            let l3 = Header::masked(Layer::Ipv6, &frame[14..54], &addresses_v6);
            (l3, Header::masked(Layer::Tcp, &tcp_bytes, &control), Action::SetIpv6Dst([0xfd; 16]))
        }
        kind => {
            tcp_bytes[..4].copy_from_slice(&frame[34..38]);
            let l3 = Header::masked(Layer::Ipv4, &frame[14..34], &five_tuple_v4);
            let tcp = Header::masked(Layer::Tcp, &tcp_bytes, &control);
            let udp = Header::masked(Layer::Udp, &tcp_bytes[..8], &udp);
            (l3, if kind == 0 { tcp } else { udp }, Action::SetIpv4Dst([10, 1, 0, 7]))
        }
    };
    let actions = [
        Action::SetMacDst([2, 0, 0, 0, 0, 9]),
        set,
        Action::SetTpDst(8080),
        Action::DecTtl,
        Action::Count,
        Action::Age { timeout_s: 60, context: 1 },
        Action::RepresentedPort(Some(1)),
    ];
    let attr = Attr { group: 0, transfer: true, ..Attr::default() };
    let items = [eth, Item::Header(l3), Item::Header(l4)];
    let prepared = device.context().prepare(&Port::new(WIRE, true), &attr, &items, &actions).expect("legal");
    device.install(Tick(1), prepared).expect("there is room")
}

/// Numbers below a bound, in no order.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 32).wrapping_mul(u64::from(bound)) >> 32) as u32
    }
}

fn fill(burst: &mut Burst<Recycled>, wires: &mut Wires, shuffle: &mut Shuffle, frames: &[[u8; 74]]) {
    for _ in 0..BURST {
        let Some(mut packet) = wires.free.pop() else { return };
        packet.start = HEADROOM;
        packet.len = 74;
        packet.bytes[HEADROOM..HEADROOM + 74]
            .copy_from_slice(&frames[shuffle.below(frames.len() as u32) as usize]);
        burst.push(packet);
    }
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, size) in SIZES {
        let mut device = device();
        let frames: Vec<[u8; 74]> = (0..size).map(frame).collect();
        for n in 0..size {
            insert(&mut device, n);
        }
        let free = (0..64).map(|_| Recycled { bytes: Box::new([0; 512]), start: HEADROOM, len: 0 }).collect();
        let mut wires = Wires { free, ..Wires::default() };
        let mut shuffle = Shuffle(1);
        let mut burst = Burst::new();
        let mut now = 1_u64;
        group.bench_function(BenchmarkId::new("rules", name), |bencher| {
            bencher.iter(|| {
                now += 3_000;
                fill(&mut burst, &mut wires, &mut shuffle, &frames);
                device.forward(Tick(now), WIRE, false, &mut burst, &mut wires);
            });
        });
        assert_eq!(wires.others, 0, "every packet hits");
        group.bench_function(BenchmarkId::new("source", name), |bencher| {
            bencher.iter(|| {
                fill(&mut burst, &mut wires, &mut shuffle, &frames);
                wires.free.extend(black_box(&mut burst).drain(..));
            });
        });
    }
    group.finish();
}

fn insertion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert");
    group.throughput(Throughput::Elements(1_000_000));
    group.sample_size(10);
    group.bench_function("1M", |bencher| {
        bencher.iter_batched(
            device,
            |mut device| {
                for n in 0..1_000_000 {
                    insert(&mut device, n);
                }
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_secs(1));
    targets = forward, insertion
}
criterion_main!(benches);
