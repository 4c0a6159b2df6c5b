//! Nanoseconds per packet of a rule's edits, and per rule of compiling it.
//!
//! A rewrite is done to the same packet over and over: it is in the cache and the branches are known, so
//! that this is the work itself. The packet's new bytes differ from its old ones in the first round only.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::ids::PortId;
use dataplane::packet::{PacketBuf, TestPacket};
use eswitch::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use eswitch::model::key::{Registers, parse};
use eswitch::model::program::{ActionsTemplate, Program};
use eswitch::model::types::{Role, Topology, Vport, VportInfo};

fn topology() -> Topology {
    let uplink = VportInfo { role: Role::Uplink(0), port_id: 0 };
    let host = VportInfo { role: Role::Host(0), port_id: 1 };
    Topology::new(vec![uplink, host])
}

/// TCP between documentation addresses; checksums do not matter.
fn ipv4() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 6, 0x12, 0x34, 192, 0, 2, 1, 198, 51, 100, 1]);
    frame.extend([4, 0, 1, 187, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0x56, 0x78, 0, 0]);
    frame.extend([7; 10]);
    frame
}

fn ipv6() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 30, 6, 64]);
    frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    frame.extend([4, 0, 1, 187, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0x56, 0x78, 0, 0]);
    frame.extend([7; 10]);
    frame
}

const MACS: [Action<'static>; 2] =
    [Action::SetMacDst([2, 0, 0, 0, 0, 9]), Action::SetMacSrc([2, 0, 0, 0, 0, 8])];
const REST: [Action<'static>; 3] = [Action::SetTpSrc(33_000), Action::SetTpDst(8080), Action::DecTtl];

fn nat4() -> Vec<Action<'static>> {
    let addresses = [Action::SetIpv4Src([10, 0, 0, 1]), Action::SetIpv4Dst([10, 0, 0, 2])];
    [&MACS[..], &addresses, &REST].concat()
}

fn nat6() -> Vec<Action<'static>> {
    [&MACS[..], &[Action::SetIpv6Src([3; 16]), Action::SetIpv6Dst([4; 16])], &REST].concat()
}

fn modify(field: Field, width: u32, value: &[u8]) -> Action<'static> {
    let mut wide = [0; 16];
    wide[..value.len()].copy_from_slice(value);
    let dst = FieldRef { field, level: 0, offset: 0 };
    Action::ModifyField { op: ModifyOp::Set, dst, src: Some(FieldSource::Value(wide)), width }
}

/// Of a rewrite that leaves the packet as long as it is.
fn edit(c: &mut Criterion, name: &str, frame: &[u8], actions: &[Action<'_>]) {
    let edits = Program::compile(actions, &topology()).expect("compiles").edits;
    let mut packet = TestPacket::new(PortId(0), frame);
    let mut headers = parse(frame);
    let mut registers = Registers::from(Vport(0), false);
    c.bench_function(&format!("program/apply/{name}"), |b| {
        b.iter(|| black_box(&edits).apply(black_box(&mut packet), &mut headers, &mut registers));
    });
}

/// Of a rewrite and an encapsulation, which is taken off again.
fn tunnel(c: &mut Criterion) {
    let mut bytes = [0; 50];
    bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
    (bytes[22], bytes[23]) = (64, 17);
    bytes[36..38].copy_from_slice(&4789_u16.to_be_bytes());
    bytes[42] = 8;
    let edits = Program::compile(&[&nat4()[..], &[Action::RawEncap(&bytes)]].concat(), &topology());
    let edits = edits.expect("compiles").edits;
    let mut packet = TestPacket::new(PortId(0), &ipv4());
    let headers = parse(packet.data());
    let mut registers = Registers::from(Vport(0), false);
    c.bench_function("program/apply/ipv4 nat and vxlan", |b| {
        b.iter(|| {
            let mut headers = headers;
            let done = black_box(&edits).apply(black_box(&mut packet), &mut headers, &mut registers);
            (done, packet.trim_front(50))
        });
    });
}

fn apply(c: &mut Criterion) {
    edit(c, "ipv4 nat", &ipv4(), &nat4());
    edit(c, "ipv6 nat", &ipv6(), &nat6());
    edit(c, "ttl", &ipv4(), &[Action::DecTtl]);
    let inner = FieldRef { field: Field::Meta, level: 0, offset: 0 };
    let source = FieldSource::Field(FieldRef { field: Field::Tag, level: 0, offset: 0 });
    let copy = Action::ModifyField { op: ModifyOp::Set, dst: inner, src: Some(source), width: 32 };
    edit(c, "ipv4 nat after a copied register", &ipv4(), &[&[copy], &nat4()[..]].concat());
    tunnel(c);
}

fn build(c: &mut Criterion) {
    let topology = topology();
    let actions = [
        modify(Field::MacDst, 48, &[2, 0, 0, 0, 0, 9]),
        modify(Field::Ipv4Src, 32, &[10, 0, 0, 1]),
        modify(Field::Ipv4Dst, 32, &[10, 0, 0, 2]),
        modify(Field::TcpPortDst, 16, &[1, 187]),
        Action::Count,
        Action::Age { timeout_s: 60, context: 5 },
        Action::RepresentedPort(Some(1)),
    ];
    let masks = [
        modify(Field::MacDst, 48, &[]),
        modify(Field::Ipv4Src, 32, &[]),
        modify(Field::Ipv4Dst, 32, &[]),
        modify(Field::TcpPortDst, 16, &[]),
        Action::Count,
        Action::Age { timeout_s: 0, context: 0 },
        Action::RepresentedPort(None),
    ];
    let template = ActionsTemplate::new(&actions, &masks).expect("a template");
    c.bench_function("program/template/ipv4 nat rule", |b| {
        b.iter(|| black_box(&template).program(black_box(&actions), &topology));
    });
    c.bench_function("program/compile/ipv4 nat rule", |b| {
        b.iter(|| Program::compile(black_box(&actions), &topology));
    });
}

criterion_group!(benches, apply, build);
criterion_main!(benches);
