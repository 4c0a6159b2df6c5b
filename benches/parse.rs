//! Parsing and translating, per packet: the common frames, and what tags, options and IPv6 cost.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::addr::Ip;
use dataplane::ids::TenantId;
use dataplane::rewrite::{End, decrement_ttl, translate};
use dataplane::wire::{checksum::Sum, parse};
use std::hint::black_box;

/// Frames per iteration: a burst of different clients, so that no branch predictor learns one.
const FRAMES: usize = 32;

fn ipv4(client: u32, protocol: u8, option_words: usize, segment: &[u8]) -> Vec<u8> {
    let len = 20 + option_words * 4;
    let total = ((len + segment.len()) as u16).to_be_bytes();
    let mut header = vec![0x40 | (len / 4) as u8, 0, total[0], total[1], 0, 7, 0x40, 0, 64, protocol, 0, 0];
    header.extend((0x0a00_0001 + client).to_be_bytes());
    header.extend([192, 0, 2, 1]);
    header.extend(vec![1; option_words * 4]);
    let checksum = Sum::default().bytes(&header).finish().to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    [&header, segment].concat()
}

fn ipv6(client: u32, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let len = (segment.len() as u16).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
    header.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.extend((client + 1).to_be_bytes());
    header.extend([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    [&header, segment].concat()
}

fn tcp(client: u32) -> Vec<u8> {
    let [a, b] = (1024 + client as u16).to_be_bytes();
    let mut segment = vec![a, b, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0x12, 0x34, 0, 0];
    segment.extend([0; 6]);
    segment
}

fn udp(client: u32) -> Vec<u8> {
    let [a, b] = (1024 + client as u16).to_be_bytes();
    [&[a, b, 0, 53, 0, 26, 0x12, 0x34][..], &[0; 18]].concat()
}

/// A burst of frames with this link header.
fn burst(link: &[u8], packet: impl Fn(u32) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..FRAMES as u32).map(|client| [&[2; 12], link, &packet(client)].concat()).collect()
}

fn frames() -> [(&'static str, Vec<Vec<u8>>); 6] {
    let (v4, v6) = (&[8, 0][..], &[0x86, 0xdd][..]);
    let mixed = burst(v4, |client| match client * 7 % 3 {
        0 => ipv4(client, 17, 0, &udp(client)),
        _ => ipv4(client, 6, 0, &tcp(client)),
    });
    [
        ("ipv4_tcp", burst(v4, |client| ipv4(client, 6, 0, &tcp(client)))),
        ("ipv4_udp", burst(v4, |client| ipv4(client, 17, 0, &udp(client)))),
        ("ipv4_mixed", mixed),
        ("ipv6_tcp", burst(v6, |client| ipv6(client, 6, &tcp(client)))),
        ("ipv4_options_tcp", burst(v4, |client| ipv4(client, 6, 3, &tcp(client)))),
        ("vlan_ipv4_tcp", burst(&[0x81, 0, 0, 100, 8, 0], |client| ipv4(client, 6, 0, &tcp(client)))),
    ]
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, frames) in frames() {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    let _ = black_box(parse(black_box(frame), TenantId(0)));
                }
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, mut frames) in frames() {
        let parsed: Vec<_> = frames.iter().map(|frame| parse(frame, TenantId(0)).expect("valid")).collect();
        let backend = if name.starts_with("ipv6") { Ip::v6([0x20; 16]) } else { Ip::v4(0x0a01_0203) };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for (frame, parsed) in frames.iter_mut().zip(&parsed) {
                    translate(black_box(frame), black_box(parsed), End::Destination, backend, 8080);
                    decrement_ttl(frame, parsed);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(parsing, benches);
criterion_main!(parsing);
