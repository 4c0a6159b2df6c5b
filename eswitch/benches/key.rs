//! Parsing, extraction and the lowering of patterns: what each packet, and each new rule, pays.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::key::{Key, Registers, parse};
use eswitch::model::pattern::{PatternTemplate, lower};
use eswitch::model::types::{Role, Topology, Vport, VportInfo};
use std::hint::black_box;

/// Frames or rules per iteration: all different, so that no branch predictor learns one.
const COUNT: u32 = 32;

fn tcp(client: u32) -> Vec<u8> {
    let [a, b] = (1024 + client as u16).to_be_bytes();
    vec![a, b, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0x12, 0x34, 0, 0]
}

fn ipv4(client: u32, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let total = ((20 + rest.len()) as u16).to_be_bytes();
    let start = [0x45, 0, total[0], total[1], 0, 7, 0x40, 0, 64, protocol, 0, 0];
    let addresses = [(0x0a00_0001 + client).to_be_bytes(), [192, 0, 2, 1]].concat();
    [&start, &addresses[..], rest].concat()
}

fn ipv6(client: u32, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    let network = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0];
    let start = [0x60, 0, 0, 0, len[0], len[1], protocol, 64];
    [&start, &network[..], &(client + 2).to_be_bytes(), &network, &[0, 0, 0, 1], rest].concat()
}

fn eth(kind: [u8; 2], rest: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &kind, rest, &[0; 6]].concat()
}

fn vxlan(client: u32) -> Vec<u8> {
    let inner = eth([8, 0], &ipv4(client, 6, &tcp(client)));
    let udp = [&[0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 42, 0], &inner[..]].concat();
    eth([8, 0], &ipv4(client, 17, &udp))
}

/// A kind of frame: its name, and the frame of a client.
type Kind = (&'static str, fn(u32) -> Vec<u8>);

fn packets(criterion: &mut Criterion) {
    let kinds: [Kind; 3] = [
        ("ipv4_tcp", |client| eth([8, 0], &ipv4(client, 6, &tcp(client)))),
        ("ipv6_tcp", |client| eth([0x86, 0xdd], &ipv6(client, 6, &tcp(client)))),
        ("vxlan_ipv4_tcp", vxlan),
    ];
    let registers = Registers::from(Vport(0), false);
    let mut group = criterion.benchmark_group("packet");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    for (name, frame) in kinds {
        let frames: Vec<Vec<u8>> = (0..COUNT).map(frame).collect();
        let headers: Vec<_> = frames.iter().map(|frame| parse(frame)).collect();
        group.bench_function(format!("parse/{name}"), |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    black_box(parse(black_box(frame)));
                }
            });
        });
        group.bench_function(format!("extract/{name}"), |bencher| {
            bencher.iter(|| {
                for (frame, headers) in frames.iter().zip(&headers) {
                    black_box(Key::extract(black_box(frame), headers, &registers));
                }
            });
        });
    }
    group.finish();
}

/// Specs of a connection: IPv4 and TCP headers.
fn connection(client: u32) -> ([u8; 20], [u8; 20]) {
    let (mut ip, mut segment) = ([0; 20], [0; 20]);
    ip[12..16].copy_from_slice(&(0x0a00_0001 + client).to_be_bytes());
    ip[16..20].copy_from_slice(&[192, 0, 2, 1]);
    segment[..2].copy_from_slice(&(1024 + client as u16).to_be_bytes());
    segment[3] = 80;
    (ip, segment)
}

fn patterns(criterion: &mut Criterion) {
    let roles = [Role::Uplink(0), Role::Host(0), Role::Host(1)];
    let ports = roles.into_iter().zip(0..).map(|(role, port_id)| VportInfo { role, port_id });
    let topology = Topology::new(ports.collect());
    let (mut ip_mask, mut tcp_mask) = ([0; 20], [0; 20]);
    ip_mask[12..].fill(0xff);
    tcp_mask[..4].fill(0xff);
    tcp_mask[13] = 7;
    let specs: Vec<_> = (0..COUNT).map(connection).collect();
    let rules: Vec<[Item<'_>; 4]> = specs
        .iter()
        .map(|(ip, segment)| {
            [
                Item::RepresentedPort { port_id: Some(1), mask: u16::MAX },
                Item::Header(Header::any(Layer::Eth)),
                Item::Header(Header::masked(Layer::Ipv4, ip, &ip_mask)),
                Item::Header(Header::masked(Layer::Tcp, segment, &tcp_mask)),
            ]
        })
        .collect();
    let Ok(template) = PatternTemplate::new(&rules[0], false, None) else { return };
    let mut group = criterion.benchmark_group("pattern");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    group.bench_function("template_value", |bencher| {
        bencher.iter(|| {
            for items in &rules {
                let _ = black_box(template.value(black_box(items), &topology));
            }
        });
    });
    group.bench_function("lower", |bencher| {
        bencher.iter(|| {
            for items in &rules {
                let _ = black_box(lower(black_box(items), &topology, None));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, packets, patterns);
criterion_main!(benches);
