//! One test per refusal, by errno and cause; and rules that must be accepted.

mod good;
mod properties;
mod sws_actions;
mod sws_items;
mod templates;

use super::{Context, Port, rule_on};
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use crate::model::item::{Header, Item, Layer};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::{Attr, Role, Steering, Topology, Vport, VportInfo};

const WIRE: Vport = Vport(0);
const HOST: Vport = Vport(1);
/// The ethdevs that represent them.
const WIRE_ID: u16 = 10;
const HOST_ID: u16 = 11;
const VF_ID: u16 = 12;

const FDB: Attr = Attr { group: 1, priority: 0, ingress: false, egress: false, transfer: true };
const RX: Attr = Attr { group: 1, priority: 0, ingress: true, egress: false, transfer: false };

const TO_HOST: Action<'static> = Action::RepresentedPort(Some(HOST_ID));
const TO_WIRE: Action<'static> = Action::RepresentedPort(Some(WIRE_ID));

const ZERO: [u8; 40] = [0; 40];
const FULL: [u8; 40] = [0xff; 40];
/// An encapsulation's worth of headers: Ethernet, IPv4, UDP, VXLAN.
const HEADERS: [u8; 50] = [0; 50];

fn context(steering: Steering) -> Context {
    let vport = |role, port_id| VportInfo { role, port_id };
    Context::new(
        steering,
        Topology::new(vec![
            vport(Role::Uplink(0), WIRE_ID),
            vport(Role::Host(0), HOST_ID),
            vport(Role::Host(1), VF_ID),
        ]),
    )
}

fn software() -> Context {
    context(Steering::Software)
}

fn with_xmeta(xmeta: u8) -> Context {
    let mut context = software();
    context.options.xmeta = xmeta;
    context
}

const fn any(layer: Layer) -> Item<'static> {
    Item::Header(Header::any(layer))
}

const fn masked(layer: Layer, spec: &'static [u8], mask: &'static [u8]) -> Item<'static> {
    Item::Header(Header::masked(layer, spec, mask))
}

const fn from(port_id: u16) -> Item<'static> {
    Item::RepresentedPort { port_id: Some(port_id), mask: u16::MAX }
}

const ETH: Item<'static> = any(Layer::Eth);
const VLAN: Item<'static> = any(Layer::Vlan);
const IPV4: Item<'static> = any(Layer::Ipv4);
const IPV6: Item<'static> = any(Layer::Ipv6);
const TCP: Item<'static> = any(Layer::Tcp);
const UDP: Item<'static> = any(Layer::Udp);
const VXLAN: Item<'static> = any(Layer::Vxlan);

const TCP4: &[Item<'static>] = &[ETH, IPV4, TCP];
const TCP6: &[Item<'static>] = &[ETH, IPV6, TCP];
const VXLAN4: &[Item<'static>] = &[ETH, IPV4, UDP, VXLAN, ETH, IPV4, TCP];

/// Full masks over what mlx5 can match.
const IPV4_MASK: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
const IPV4_SPEC: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
const TCP_MASK: [u8; 20] = [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0];
const TCP_SPEC: [u8; 20] = [0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const IPV6_ADDRESSES: [u8; 40] = {
    let mut mask = [0xff; 40];
    let mut at = 0;
    while at < 8 {
        mask[at] = 0;
        at += 1;
    }
    mask
};
const UDP_SPEC: [u8; 8] = [0x30, 0x39, 0, 53, 0, 0, 0, 0];
const UDP_MASK: [u8; 8] = [255, 255, 255, 255, 0, 0, 0, 0];

const FIVE_TUPLE4: &[Item<'static>] =
    &[ETH, masked(Layer::Ipv4, &IPV4_SPEC, &IPV4_MASK), masked(Layer::Tcp, &TCP_SPEC, &TCP_MASK)];
const FIVE_TUPLE6: &[Item<'static>] =
    &[ETH, masked(Layer::Ipv6, &ZERO, &IPV6_ADDRESSES), masked(Layer::Tcp, &TCP_SPEC, &TCP_MASK)];

const fn set(field: Field, width: u32) -> Action<'static> {
    Action::ModifyField {
        op: ModifyOp::Set,
        dst: FieldRef { field, level: 0, offset: 0 },
        src: Some(FieldSource::Value([0; 16])),
        width,
    }
}

const fn copy(to: Field, from: Field, width: u32) -> Action<'static> {
    Action::ModifyField {
        op: ModifyOp::Set,
        dst: FieldRef { field: to, level: 0, offset: 0 },
        src: Some(FieldSource::Field(FieldRef { field: from, level: 0, offset: 0 })),
        width,
    }
}

/// A SWS rule and what comes of it.
struct Case {
    name: &'static str,
    attr: Attr,
    items: Vec<Item<'static>>,
    actions: Vec<Action<'static>>,
    refused: (Errno, Cause),
}

fn case(
    name: &'static str,
    attr: Attr,
    items: &[Item<'static>],
    actions: &[Action<'static>],
    errno: Errno,
    cause: Cause,
) -> Case {
    Case { name, attr, items: items.to_vec(), actions: actions.to_vec(), refused: (errno, cause) }
}

/// A transfer rule whose actions are beyond reproach.
fn pattern(name: &'static str, items: &[Item<'static>], errno: Errno, cause: Cause) -> Case {
    case(name, FDB, items, &[Action::Drop], errno, cause)
}

/// A transfer rule whose pattern is beyond reproach.
fn actions(
    name: &'static str,
    items: &[Item<'static>],
    list: &[Action<'static>],
    errno: Errno,
    cause: Cause,
) -> Case {
    case(name, FDB, items, list, errno, cause)
}

fn outcome(refusal: Result<impl std::fmt::Debug, Refusal>, name: &str) -> (Errno, Cause) {
    let refusal = refusal.expect_err(name);
    assert!(!refusal.message.is_empty(), "{name}: says nothing");
    (refusal.errno, refusal.cause)
}

/// Tries all of them on a port; reports every one that differs.
fn expect(context: &Context, port: Vport, cases: &[Case]) {
    let port = Port { queues: Some(4), ..Port::new(port, true) };
    let mut wrong = Vec::new();
    for case in cases {
        let found = rule_on(context, &port, &case.attr, &case.items, &case.actions);
        let answer = found.map_err(|refusal| (refusal.errno, refusal.cause));
        if answer != Err(case.refused) {
            wrong.push(format!("{}: {found:?}, not {:?}", case.name, case.refused));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
