//! Nanoseconds to look at one SWS rule before it is made: a NAT of an IPv4 5-tuple, as a load balancer makes
//! one per connection.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use eswitch::model::action::Action;
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::types::{Attr, Role, Steering, Topology, Vport, VportInfo};
use eswitch::model::validate::{Context, matcher_priority, rule};

const IPV4_MASK: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
const IPV4: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
const TCP_MASK: [u8; 20] = [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0];
const TCP: [u8; 20] = [0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn nat(criterion: &mut Criterion) {
    let vport = |role, port_id| VportInfo { role, port_id };
    let topology = Topology::new(vec![vport(Role::Uplink(0), 0), vport(Role::Host(0), 1)]);
    let context = Context::new(Steering::Software, topology);
    let attr = Attr { group: 1, transfer: true, ..Attr::default() };
    let items = [
        Item::RepresentedPort { port_id: Some(0), mask: u16::MAX },
        Item::Header(Header::any(Layer::Eth)),
        Item::Header(Header::masked(Layer::Ipv4, &IPV4, &IPV4_MASK)),
        Item::Header(Header::masked(Layer::Tcp, &TCP, &TCP_MASK)),
    ];
    let actions = [
        Action::SetMacSrc([2; 6]),
        Action::SetMacDst([2; 6]),
        Action::SetIpv4Dst([10, 0, 0, 9]),
        Action::SetTpDst(8080),
        Action::DecTtl,
        Action::Count,
        Action::Age { timeout_s: 30, context: 1 },
        Action::RepresentedPort(Some(1)),
    ];
    criterion.bench_function("validate/nat", |bencher| {
        bencher.iter(|| {
            let (items, actions) = (black_box(&items), black_box(&actions));
            let domain = rule(&context, Vport(0), true, &attr, items, actions);
            assert!(domain.is_ok());
            matcher_priority(&context, &attr, items)
        });
    });
}

criterion_group!(benches, nat);
criterion_main!(benches);
