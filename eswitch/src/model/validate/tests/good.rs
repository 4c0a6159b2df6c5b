//! Rules that applications do make, and that must be accepted: in SWS as they are, in HWS as templates.

use super::super::{ActionsFacts, PatternFacts, Pools, TableAttr, TemplateAttr};
use super::super::{actions_template, pattern_template, rule, table};
use super::*;
use crate::model::types::Domain;

const ALL: Pools = Pools { counters: true, ages: true, meters: true };
const AGE: Action<'static> = Action::Age { timeout_s: 30, context: 7 };
const UDP4: &[Item<'static>] =
    &[ETH, masked(Layer::Ipv4, &IPV4_SPEC, &ADDRESSES), masked(Layer::Udp, &UDP_SPEC, &UDP_MASK)];
const ADDRESSES: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
const TO_VF: Action<'static> = Action::RepresentedPort(Some(VF_ID));

type Rule = (&'static str, Attr, Vport, Vec<Item<'static>>, Vec<Action<'static>>);

fn transfer() -> Vec<Rule> {
    let ports = |source, items: &[Item<'static>]| [&[from(source)], items].concat();
    let fdb = |name, items: &[Item<'static>], list: &[Action<'static>]| {
        (name, FDB, WIRE, items.to_vec(), list.to_vec())
    };
    let vxlan =
        &[ETH, IPV4, UDP, masked(Layer::Vxlan, &ZERO[..8], &[0, 0, 0, 0, 255, 255, 255, 0]), ETH, IPV4, TCP];
    let encap = Action::VxlanEncap(&HEADERS);
    let (raw_decap, raw_encap) = (Action::RawDecap(&HEADERS), Action::RawEncap(&HEADERS));
    let jump = Action::Jump(Some(1));
    vec![
        fdb("wire to host", &ports(WIRE_ID, &[]), &[TO_HOST]),
        fdb("host to wire", &ports(HOST_ID, &[]), &[TO_WIRE]),
        fdb("host to host", &ports(HOST_ID, &[ETH]), &[Action::Count, TO_VF]),
        fdb("wire to wire, accepted though it drops", &ports(WIRE_ID, &[]), &[TO_WIRE]),
        ("from group 0 on", Attr { group: 0, priority: 3, ..FDB }, WIRE, vec![ETH, IPV4], vec![jump]),
        fdb("drop", &[ETH, IPV4], &[Action::Drop]),
        fdb("drop and count", FIVE_TUPLE4, &[Action::Count, Action::Drop]),
        fdb("drop and age", FIVE_TUPLE4, &[AGE, Action::Drop]),
        fdb("5-tuple", FIVE_TUPLE4, &[Action::Count, AGE, TO_HOST]),
        fdb("5-tuple and port", &ports(WIRE_ID, FIVE_TUPLE4), &[Action::Count, TO_HOST]),
        fdb("UDP", UDP4, &[AGE, TO_HOST]),
        fdb("IPv6 5-tuple", FIVE_TUPLE6, &[Action::Count, AGE, TO_HOST]),
        fdb("tag", &[Item::Tag { index: 1, data: 2, mask: u32::MAX }, ETH, IPV4], &[TO_HOST]),
        fdb("VLAN", &[ETH, masked(Layer::Vlan, &[0, 5, 0, 0], &[0x0f, 255, 0, 0]), IPV4], &[TO_HOST]),
        fdb("pop", &[ETH, VLAN, IPV4], &[Action::PopVlan, TO_HOST]),
        fdb("push", TCP4, &[Action::PushVlan(0x8100), Action::SetVlanVid(5), Action::SetVlanPcp(1), TO_WIRE]),
        fdb("decap", vxlan, &[Action::VxlanDecap, Action::Count, TO_HOST]),
        fdb("raw decap", vxlan, &[raw_decap, TO_HOST]),
        fdb("encap", TCP4, &[Action::Count, encap, TO_WIRE]),
        fdb("raw encap", TCP4, &[raw_encap, TO_WIRE]),
        fdb("ping", &[ETH, IPV4, any(Layer::Icmp)], &[TO_HOST]),
        fdb("ping6", &[ETH, IPV6, any(Layer::Icmp6)], &[TO_HOST]),
        fdb("GRE", &[ETH, IPV4, any(Layer::Gre), any(Layer::GreKey), IPV4], &[TO_HOST]),
    ]
}

fn ingress() -> Vec<Rule> {
    let rx = |name, list: &[Action<'static>]| (name, RX, HOST, TCP4.to_vec(), list.to_vec());
    let queue = Action::Queue(Some(1));
    vec![
        rx("queue", &[queue]),
        rx("rss", &[Action::Rss { queues: &[0, 1, 2, 3] }]),
        rx("mark", &[Action::Mark(Some(7)), queue]),
        rx("count and age", &[Action::Count, AGE, queue]),
        rx("rx drop", &[Action::Drop]),
        rx("rx jump", &[Action::Jump(Some(2))]),
    ]
}

/// What the two engines express in words of their own.
fn edits() -> Vec<(&'static str, Vec<Action<'static>>, Vec<Action<'static>>)> {
    vec![
        (
            "NAT",
            vec![
                Action::SetMacDst([2; 6]),
                Action::SetMacSrc([2; 6]),
                Action::SetIpv4Dst([10, 0, 0, 9]),
                Action::SetTpDst(8080),
                Action::DecTtl,
                Action::Count,
                AGE,
                TO_HOST,
            ],
            vec![
                Action::Count,
                AGE,
                set(Field::MacDst, 48),
                set(Field::MacSrc, 48),
                set(Field::Ipv4Dst, 32),
                set(Field::TcpPortDst, 16),
                set(Field::Ipv4Ttl, 8),
                TO_HOST,
            ],
        ),
        (
            "NAT, then encapsulate",
            vec![Action::SetIpv4Dst([10, 0, 0, 9]), Action::VxlanEncap(&HEADERS), TO_WIRE],
            vec![set(Field::Ipv4Dst, 32), Action::VxlanEncap(&HEADERS), TO_WIRE],
        ),
        (
            "tag and go on",
            vec![Action::SetTag { index: 0, data: 1, mask: 1 }, Action::Jump(Some(2))],
            vec![set(Field::Tag, 32), Action::Jump(Some(2))],
        ),
        (
            "meter",
            vec![Action::Meter(1), TO_HOST],
            vec![Action::MeterMark { profile: 0, colour_aware: false }, TO_HOST],
        ),
        (
            "modify_field",
            vec![set(Field::Ipv4Src, 32), copy(Field::Tag, Field::Ipv4Dst, 32), TO_HOST],
            vec![set(Field::Ipv4Src, 32), copy(Field::Tag, Field::Ipv4Dst, 32), TO_HOST],
        ),
    ]
}

/// The mask that settles what must be settled and leaves the rest to each rule.
pub(super) fn mask_of(action: &Action<'static>) -> Action<'static> {
    match *action {
        Action::ModifyField { op, dst, src, .. } => {
            let full = |place: FieldRef| FieldRef { level: u32::MAX, offset: u32::MAX, ..place };
            let src = src.map(|src| match src {
                FieldSource::Field(source) => FieldSource::Field(full(source)),
                value @ FieldSource::Value(_) => value,
            });
            Action::ModifyField { op, dst: full(dst), src, width: u32::MAX }
        }
        Action::Jump(_) => Action::Jump(Some(u32::MAX)),
        action => action,
    }
}

pub(super) fn pattern_of(
    context: &Context,
    attr: &TemplateAttr,
    items: &[Item<'static>],
) -> Result<PatternFacts, Refusal> {
    pattern_template(context, WIRE, attr, items)
}

pub(super) fn actions_of(
    context: &Context,
    attr: &TemplateAttr,
    list: &[Action<'static>],
) -> Result<ActionsFacts, Refusal> {
    let masks: Vec<_> = list.iter().map(mask_of).collect();
    actions_template(context, WIRE, attr, list, &masks, ALL)
}

/// One table of one pattern and one list of actions.
pub(super) fn table_of(
    context: &Context,
    attr: Attr,
    items: &[Item<'static>],
    list: &[Action<'static>],
) -> Result<Domain, Refusal> {
    let template = TemplateAttr { ingress: attr.ingress, transfer: attr.transfer, ..TemplateAttr::default() };
    let pattern = pattern_of(context, &template, items)?;
    let actions = actions_of(context, &template, list)?;
    table(context, WIRE, &TableAttr { attr, nb_flows: 1024 }, &[&pattern], &[&actions])
}

#[test]
fn software_accepts_them() {
    for (name, attr, port, items, list) in [transfer(), ingress()].concat() {
        let domain = rule(&software(), port, true, &attr, &items, &list).expect(name);
        assert_eq!(domain, if attr.transfer { Domain::Fdb } else { Domain::NicRx(port) }, "{name}");
    }
    for (name, list, _) in edits() {
        rule(&software(), WIRE, true, &FDB, FIVE_TUPLE4, &list).expect(name);
    }
}

#[test]
fn hardware_accepts_them_as_templates() {
    let context = context(Steering::Hardware);
    for (name, attr, _, items, list) in [transfer(), ingress()].concat() {
        let domain = table_of(&context, attr, &items, &list).expect(name);
        assert_eq!(domain, if attr.transfer { Domain::Fdb } else { Domain::NicRx(WIRE) }, "{name}");
    }
    for (name, _, list) in edits() {
        table_of(&context, FDB, FIVE_TUPLE4, &list).expect(name);
    }
}

#[test]
fn bluefield2_accepts_all_but_both_ipv6_addresses() {
    let mut context = context(Steering::Hardware);
    context.limits = super::super::Limits::bluefield2();
    for (name, attr, _, items, list) in [transfer(), ingress()].concat() {
        let answer = table_of(&context, attr, &items, &list);
        if name == "IPv6 5-tuple" {
            assert_eq!(outcome(answer, name), (Errno::Notsup, Cause::Unspecified));
        } else {
            answer.expect(name);
        }
    }
}
