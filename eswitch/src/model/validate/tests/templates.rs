//! Templates and tables of HWS.

use super::super::{ActionsFacts, Limits, PatternFacts, Pools, TableAttr, TemplateAttr};
use super::super::{actions_template, configure, pattern_template, table};
use super::good::{actions_of, mask_of, pattern_of, table_of};
use super::*;
use crate::model::action::Shared;
use crate::model::types::{AgeId, CounterId};

const ALL: Pools = Pools { counters: true, ages: true, meters: true };
const AGE: Action<'static> = Action::Age { timeout_s: 30, context: 0 };
const FDB_TEMPLATE: TemplateAttr =
    TemplateAttr { ingress: false, egress: false, transfer: true, relaxed: false };
const RX_TEMPLATE: TemplateAttr =
    TemplateAttr { ingress: true, egress: false, transfer: false, relaxed: false };

fn hardware() -> Context {
    context(Steering::Hardware)
}

#[test]
fn flow_queues() {
    let ask = |context: &Context, started, sizes: &[u32], pools| {
        configure(context, started, sizes, pools).map_err(|refusal| (refusal.errno, refusal.cause))
    };
    let inval = Err((Errno::Inval, Cause::Unspecified));
    assert_eq!(ask(&software(), false, &[64], ALL), Err((Errno::Notsup, Cause::Unspecified)));
    assert_eq!(ask(&hardware(), true, &[64], ALL), inval, "started");
    assert_eq!(ask(&hardware(), false, &[], ALL), inval, "no queue");
    assert_eq!(ask(&hardware(), false, &[64, 32], ALL), inval, "two sizes");
    assert_eq!(ask(&hardware(), false, &[0], ALL), inval, "no room");
    assert_eq!(
        ask(&hardware(), false, &[64], Pools { counters: false, ..ALL }),
        inval,
        "ages without counters"
    );
    assert_eq!(ask(&hardware(), false, &[64, 64], ALL), Ok(()));
}

#[test]
fn directions_and_ports() {
    let ask = |context: &Context, port, attr: TemplateAttr| {
        let pattern = pattern_template(context, port, &attr, &[ETH]).map(|_| ());
        let actions = actions_template(context, port, &attr, &[TO_HOST], &[TO_HOST], ALL).map(|_| ());
        (outcome_of(pattern), outcome_of(actions))
    };
    let refused = |errno, cause| Err((errno, cause));
    let (inval, notsup) = (Errno::Inval, Errno::Notsup);
    let both = |answer| (answer, answer);
    assert_eq!(ask(&software(), WIRE, FDB_TEMPLATE), both(refused(notsup, Cause::Unspecified)));
    assert_eq!(
        ask(&hardware(), HOST, FDB_TEMPLATE),
        (refused(inval, Cause::Transfer), refused(inval, Cause::Unspecified)),
        "not the proxy"
    );
    let mut without = hardware();
    without.options.esw = false;
    assert_eq!(ask(&without, WIRE, FDB_TEMPLATE).0, refused(inval, Cause::Transfer));
    assert_eq!(ask(&hardware(), WIRE, TemplateAttr::default()).0, refused(inval, Cause::Attr));
    let two = TemplateAttr { ingress: true, ..FDB_TEMPLATE };
    assert_eq!(ask(&hardware(), WIRE, two).0, refused(inval, Cause::Attr));
    let egress = TemplateAttr { egress: true, ..TemplateAttr::default() };
    assert_eq!(ask(&hardware(), WIRE, egress), both(refused(notsup, Cause::Egress)));
    assert_eq!(ask(&hardware(), HOST, RX_TEMPLATE).0, Ok(()));
}

fn outcome_of(answer: Result<(), Refusal>) -> Result<(), (Errno, Cause)> {
    answer.map_err(|refusal| (refusal.errno, refusal.cause))
}

#[test]
fn items() {
    let tag = |index| Item::Tag { index, data: 0, mask: u32::MAX };
    let meta = Item::Meta { data: 0, mask: u32::MAX };
    let mark = Item::Mark { id: 0, mask: 1 };
    let sent = Item::PortRepresentor { port_id: Some(WIRE_ID), mask: u16::MAX };
    let old = Item::PortId { port_id: Some(10), mask: u32::MAX };
    let cases: &[(&str, TemplateAttr, &[Item<'static>], usize)] = &[
        ("geneve", FDB_TEMPLATE, &[ETH, IPV4, UDP, any(Layer::Geneve)], 3),
        ("tag index", FDB_TEMPLATE, &[tag(5)], 0),
        ("tag twice", FDB_TEMPLATE, &[tag(1), tag(1)], 1),
        ("port in ingress", RX_TEMPLATE, &[from(WIRE_ID)], 0),
        ("meta in ingress", RX_TEMPLATE, &[meta], 0),
        ("sent by the CPUs", FDB_TEMPLATE, &[sent], 0),
        ("port_id", FDB_TEMPLATE, &[old], 0),
        ("mark", FDB_TEMPLATE, &[ETH, mark], 1),
        ("unknown", FDB_TEMPLATE, &[Item::Other(99)], 0),
    ];
    for &(name, attr, items, at) in cases {
        let answer = pattern_of(&hardware(), &attr, items);
        assert_eq!(outcome(answer, name), (Errno::Inval, Cause::Item(at)), "{name}");
    }
    let mut crossing = hardware();
    crossing.options.xmeta = 4;
    pattern_of(&crossing, &RX_TEMPLATE, &[meta, tag(3)]).expect("META crosses");
    let answer = pattern_of(&crossing, &FDB_TEMPLATE, &[tag(4)]);
    assert_eq!(outcome(answer, "its register"), (Errno::Inval, Cause::Item(0)));
}

#[test]
fn actions() {
    let refused = |name: &str, list: &[Action<'static>], errno, cause| {
        assert_eq!(outcome(actions_of(&hardware(), &FDB_TEMPLATE, list), name), (errno, cause), "{name}");
    };
    let notsup = [
        Action::SetMacSrc([0; 6]),
        Action::SetIpv4Src([0; 4]),
        Action::SetIpv6Dst([0; 16]),
        Action::SetTpSrc(1),
        Action::SetTtl(1),
        Action::DecTtl,
        Action::SetTag { index: 0, data: 0, mask: 1 },
        Action::SetMeta { data: 0, mask: 1 },
        Action::AddTcpSeq(1),
        Action::Flag,
        Action::PortId(Some(10)),
        Action::PortRepresentor(Some(WIRE_ID)),
        Action::Meter(1),
        Action::Sample { ratio: 1, actions: &[TO_HOST] },
        Action::SetVlanPcp(1),
        Action::Other(77),
    ];
    for action in notsup {
        refused(action.name(), &[action, TO_HOST], Errno::Notsup, Cause::Action(0));
    }
    let inval = |name, list: &[Action<'static>], at| refused(name, list, Errno::Inval, Cause::Action(at));
    let push = Action::PushVlan(0x8100);
    inval("raw encap of nothing", &[Action::RawEncap(&[]), TO_WIRE], 0);
    inval("foreign port", &[Action::RepresentedPort(Some(99))], 0);
    inval("two counts", &[Action::Count, Action::Count, TO_HOST], 1);
    inval("two ages", &[AGE, AGE, TO_HOST], 1);
    inval("push without VID", &[push, TO_HOST], 0);
    inval("start", &[set(Field::Start, 8), TO_HOST], 0);
    inval("VLAN type", &[set(Field::VlanType, 16), TO_HOST], 0);
    inval("GENEVE VNI", &[set(Field::GeneveVni, 24), TO_HOST], 0);
    let many = [Action::PopVlan; 16];
    refused("sixteen", &many, Errno::Inval, Cause::Unspecified);
}

#[test]
fn actions_and_masks() {
    let ask = |list: &[Action<'static>], masks: &[Action<'static>], pools| {
        outcome_of(actions_template(&hardware(), WIRE, &FDB_TEMPLATE, list, masks, pools).map(|_| ()))
    };
    let inval = |at| Err((Errno::Inval, Cause::Action(at)));
    let none = Pools::default();
    let meter = Action::MeterMark { profile: 0, colour_aware: false };
    for action in [Action::Count, AGE, meter] {
        assert_eq!(ask(&[action], &[action], none), inval(0), "{}", action.name());
    }
    assert_eq!(ask(&[TO_HOST], &[], ALL), Err((Errno::Inval, Cause::ActionNum)));
    assert_eq!(ask(&[TO_HOST], &[Action::Drop], ALL), Err((Errno::Notsup, Cause::Action(0))));
    assert_eq!(ask(&[Action::RepresentedPort(None)], &[TO_HOST], ALL), inval(0), "masked, but not named");
    assert_eq!(ask(&[Action::RepresentedPort(None)], &[Action::RepresentedPort(None)], ALL), Ok(()));
    let (counter, age) = (Some(Shared::Counter(CounterId(1))), Some(Shared::Age(AgeId(1))));
    let indirect = Action::Indirect;
    let notsup = |cause| Err((Errno::Notsup, cause));
    assert_eq!(ask(&[indirect(age)], &[AGE], ALL), notsup(Cause::Action(0)));
    assert_eq!(ask(&[indirect(counter), AGE], &[Action::Count, AGE], ALL), inval(1));
    assert_eq!(ask(&[AGE, indirect(counter)], &[AGE, Action::Count], ALL), inval(1));
    assert_eq!(ask(&[indirect(None), AGE], &[Action::Count, AGE], ALL), Ok(()));
    assert_eq!(ask(&[indirect(None)], &[indirect(None)], ALL), Err((Errno::Inval, Cause::Unspecified)));
    assert_eq!(ask(&[indirect(None)], &[Action::Drop], ALL), notsup(Cause::Unspecified));
    let push = [Action::PushVlan(0x8100), Action::SetVlanVid(5), Action::SetVlanPcp(1)];
    assert_eq!(ask(&push, &[push[0], Action::SetVlanVid(0), push[2]], ALL), inval(0));
    assert_eq!(ask(&push, &[push[0], push[1], Action::SetVlanPcp(0)], ALL), inval(0));
    assert_eq!(ask(&push, &[push[0], push[1], TO_HOST], ALL), inval(0));
    assert_eq!(ask(&push, &push, ALL), Ok(()));
}

#[test]
fn modify_field_masks() {
    let edit = copy(Field::Ipv4Dst, Field::Ipv4Src, 32);
    let good = mask_of(&edit);
    let Action::ModifyField { dst, src: Some(FieldSource::Field(src)), width, op } = good else {
        panic!("a copy");
    };
    let with =
        |op, dst, src, width| Action::ModifyField { op, dst, src: Some(FieldSource::Field(src)), width };
    let short = |place: FieldRef| [FieldRef { level: 0, ..place }, FieldRef { offset: 0, ..place }];
    let other = |place: FieldRef| FieldRef { field: Field::Ipv4Ttl, ..place };
    let mut bad = vec![
        with(ModifyOp::Add, dst, src, width),
        with(op, other(dst), src, width),
        with(op, dst, other(src), width),
        with(op, dst, src, 32),
        Action::ModifyField { op, dst, src: Some(FieldSource::Value([0; 16])), width },
    ];
    bad.extend(short(dst).map(|dst| with(op, dst, src, width)));
    bad.extend(short(src).map(|src| with(op, dst, src, width)));
    for mask in bad {
        let answer = actions_template(&hardware(), WIRE, &FDB_TEMPLATE, &[edit], &[mask], ALL);
        assert_eq!(outcome(answer, "a loose mask"), (Errno::Inval, Cause::Action(0)), "{mask:?}");
    }
    actions_template(&hardware(), WIRE, &FDB_TEMPLATE, &[edit], &[good], ALL).unwrap();
}

#[test]
fn what_a_table_finds_in_its_actions() {
    let (push, vid) = (Action::PushVlan(0x8100), Action::SetVlanVid(1));
    let encap = Action::VxlanEncap(&HEADERS);
    let ttl = set(Field::Ipv4Ttl, 8);
    let tagged = |level| Action::ModifyField {
        op: ModifyOp::Set,
        dst: FieldRef { field: Field::Tag, level, offset: 0 },
        src: None,
        width: 32,
    };
    let sub = Action::ModifyField {
        op: ModifyOp::Sub,
        dst: FieldRef { field: Field::Ipv4Ttl, level: 0, offset: 0 },
        src: Some(FieldSource::Value([0; 16])),
        width: 8,
    };
    let order = Cause::Unspecified;
    let cases: &[(&str, Attr, &[Action<'static>], Errno, Cause)] = &[
        ("edit before count", FDB, &[ttl, Action::Count, TO_HOST], Errno::Inval, order),
        ("edit before push", FDB, &[ttl, push, vid, TO_HOST], Errno::Inval, order),
        ("encap before edit", FDB, &[encap, ttl, TO_HOST], Errno::Inval, order),
        ("count before pop", FDB, &[Action::Count, Action::PopVlan, TO_HOST], Errno::Inval, order),
        ("pop before decap", FDB, &[Action::PopVlan, Action::VxlanDecap, TO_HOST], Errno::Inval, order),
        ("port before count", FDB, &[TO_HOST, Action::Count], Errno::Inval, order),
        (
            "three pops",
            FDB,
            &[Action::PopVlan, Action::PopVlan, Action::PopVlan, TO_HOST],
            Errno::Inval,
            order,
        ),
        ("two fates", FDB, &[TO_HOST, Action::Drop], Errno::Inval, order),
        ("queue in transfer", FDB, &[Action::Queue(Some(0))], Errno::Inval, order),
        ("rss in transfer", FDB, &[Action::Rss { queues: &[0] }], Errno::Inval, order),
        ("mark in transfer", FDB, &[Action::Mark(Some(1)), TO_HOST], Errno::Inval, order),
        ("port in ingress", RX, &[TO_HOST], Errno::Inval, order),
        ("no fate", FDB, &[Action::Count], Errno::Inval, Cause::Actions),
        ("highest group", FDB, &[Action::Jump(Some(u32::MAX))], Errno::Inval, Cause::Group),
        ("jump to root", RX, &[Action::Jump(Some(0))], Errno::Inval, order),
        (
            "count in root",
            Attr { group: 0, ..RX },
            &[Action::Count, Action::Drop],
            Errno::Notsup,
            Cause::Actions,
        ),
        ("age in root", Attr { group: 0, ..RX }, &[AGE, Action::Drop], Errno::Notsup, Cause::Actions),
        ("decap and encap", FDB, &[Action::VxlanDecap, encap, TO_HOST], Errno::Inval, Cause::Action(1)),
        ("encap of too much", FDB, &[Action::RawEncap(&[0; 133]), TO_HOST], Errno::Inval, Cause::Action(0)),
        ("inner field", FDB, &[deep(), TO_HOST], Errno::Notsup, Cause::Action(0)),
        ("no bits", FDB, &[set(Field::Ipv4Ttl, 0), TO_HOST], Errno::Inval, Cause::Action(0)),
        ("too many bits", FDB, &[set(Field::Ipv4Ttl, 9), TO_HOST], Errno::Inval, Cause::Action(0)),
        ("unknown field", FDB, &[set(Field::Other(99), 1), TO_HOST], Errno::Notsup, Cause::Action(0)),
        ("tag index", FDB, &[tagged(5), TO_HOST], Errno::Inval, Cause::Action(0)),
        ("subtract", FDB, &[sub, TO_HOST], Errno::Notsup, Cause::Action(0)),
    ];
    for &(name, attr, list, errno, cause) in cases {
        assert_eq!(outcome(table_of(&hardware(), attr, TCP4, list), name), (errno, cause), "{name}");
    }
    let layer3 = [Action::RawDecap(&HEADERS), Action::RawEncap(&[0; 14]), TO_HOST];
    table_of(&hardware(), FDB, TCP4, &layer3).expect("layer-3 decap");
    let layer3 = [Action::RawDecap(&[0; 14]), Action::RawEncap(&HEADERS), TO_HOST];
    table_of(&hardware(), FDB, TCP4, &layer3).expect("layer-3 encap");
    let (decap, encap) = (Action::RawDecap(&[0; 14]), Action::RawEncap(&[0; 34]));
    let in_ip = [Action::PopVlan, Action::Count, ttl, decap, encap, TO_HOST];
    table_of(&hardware(), FDB, TCP4, &in_ip).expect("Ethernet and IPv4 are a tunnel here");
    let late = [Action::Count, decap, encap, ttl, TO_HOST];
    let refused = outcome(table_of(&hardware(), FDB, TCP4, &late), "edits after an encapsulation");
    assert_eq!(refused, (Errno::Inval, order));
}

/// An edit of an inner header.
fn deep() -> Action<'static> {
    Action::ModifyField {
        op: ModifyOp::Set,
        dst: FieldRef { field: Field::Ipv4Ttl, level: 2, offset: 0 },
        src: None,
        width: 8,
    }
}

#[test]
fn indirect_actions_in_a_root_table() {
    let list = [Action::Indirect(None), Action::Drop];
    let masks = [Action::MeterMark { profile: 0, colour_aware: false }, Action::Drop];
    let facts = actions_template(&hardware(), WIRE, &RX_TEMPLATE, &list, &masks, ALL).unwrap();
    let pattern = pattern_of(&hardware(), &RX_TEMPLATE, TCP4).unwrap();
    let ask = |group| {
        let attr = TableAttr { attr: Attr { group, ..RX }, nb_flows: 1 };
        outcome_of(table(&hardware(), WIRE, &attr, &[&pattern], &[&facts]).map(|_| ()))
    };
    assert_eq!(ask(0), Err((Errno::Inval, Cause::Unspecified)));
    assert_eq!(ask(1), Ok(()));
}

#[test]
fn what_a_table_finds_in_its_patterns() {
    const fn one<const N: usize>(at: usize) -> [u8; N] {
        let mut mask = [0; N];
        mask[at] = 0xff;
        mask
    }
    const LENGTH: [u8; 20] = one(2);
    const SEQUENCE: [u8; 20] = one(4);
    const CHECKSUM: [u8; 8] = one(6);
    const RESERVED: [u8; 8] = one(7);
    let range = Item::Header(Header {
        spec: Some(&UDP_SPEC),
        last: Some(&[0x40, 0, 0, 53, 0, 0, 0, 0]),
        mask: Some(&UDP_MASK),
        ..Header::any(Layer::Udp)
    });
    // Both stacks' addresses: more than any chip has room for.
    let wide = [FIVE_TUPLE6[1], UDP, VXLAN, FIVE_TUPLE6[1]];
    let cases: &[(&str, &[Item<'static>], Cause)] = &[
        ("IPv4 length", &[masked(Layer::Ipv4, &ZERO[..20], &LENGTH)], Cause::Unspecified),
        ("TCP sequence", &[IPV4, masked(Layer::Tcp, &ZERO[..20], &SEQUENCE)], Cause::Unspecified),
        ("UDP checksum", &[IPV4, masked(Layer::Udp, &ZERO[..8], &CHECKSUM)], Cause::Unspecified),
        ("VXLAN reserved", &[IPV4, UDP, masked(Layer::Vxlan, &ZERO[..8], &RESERVED)], Cause::Unspecified),
        ("two tunnels", &[IPV4, UDP, VXLAN, IPV4, any(Layer::Gre)], Cause::Unspecified),
        ("range", &[IPV4, range], Cause::ItemLast(1)),
        ("too wide", &wide, Cause::Unspecified),
    ];
    for &(name, items, cause) in cases {
        let answer = table_of(&hardware(), FDB, items, &[TO_HOST]);
        assert_eq!(outcome(answer, name), (Errno::Notsup, cause), "{name}");
    }
}

#[test]
fn both_ipv6_addresses_need_bluefield3() {
    let mut old = hardware();
    old.limits = Limits::bluefield2();
    let mut told = hardware();
    told.limits.ipv6_5tuple = false;
    let mut unbounded = hardware();
    unbounded.limits.match_dwords = 0;
    let with_port = [&[from(WIRE_ID)], FIVE_TUPLE6].concat();
    for context in [&old, &told] {
        let answer = table_of(context, FDB, FIVE_TUPLE6, &[TO_HOST]);
        assert_eq!(outcome(answer, "IPv6 5-tuple"), (Errno::Notsup, Cause::Unspecified));
    }
    for context in [&hardware(), &unbounded] {
        table_of(context, FDB, &with_port, &[TO_HOST]).expect("IPv6 5-tuple, flags and port");
    }
    let source_only: [u8; 40] = std::array::from_fn(|at| if (8..24).contains(&at) { 0xff } else { 0 });
    let source_only: &'static [u8] = Box::leak(Box::new(source_only));
    let one = [from(WIRE_ID), masked(Layer::Ipv6, &ZERO, source_only), FIVE_TUPLE4[2]];
    table_of(&old, FDB, &one, &[TO_HOST]).expect("one address");
    // Even if the profile grants it, an old chip has no room.
    old.limits.ipv6_5tuple = true;
    let answer = table_of(&old, FDB, FIVE_TUPLE6, &[TO_HOST]);
    assert_eq!(outcome(answer, "no room"), (Errno::Notsup, Cause::Unspecified));
}

#[test]
fn tables() {
    let context = hardware();
    let fdb: PatternFacts = pattern_of(&context, &FDB_TEMPLATE, TCP4).unwrap();
    let rx = pattern_of(&context, &RX_TEMPLATE, TCP4).unwrap();
    let drop: ActionsFacts = actions_of(&context, &FDB_TEMPLATE, &[Action::Drop]).unwrap();
    let ask = |attr, nb_flows, patterns: &[&PatternFacts], actions: &[&ActionsFacts]| {
        outcome_of(table(&context, WIRE, &TableAttr { attr, nb_flows }, patterns, actions).map(|_| ()))
    };
    let inval = Err((Errno::Inval, Cause::Unspecified));
    assert_eq!(ask(FDB, 1, &[&fdb; 3], &[&drop]), inval, "three patterns");
    assert_eq!(ask(FDB, 1, &[], &[&drop]), inval, "no pattern");
    assert_eq!(ask(Attr { group: 0, ..RX }, 1, &[&rx; 2], &[&drop]), inval, "two patterns in root");
    assert_eq!(ask(FDB, 1, &[&fdb], &[&drop; 33]), inval, "33 actions templates");
    assert_eq!(ask(FDB, 1, &[&fdb], &[]), inval, "no actions");
    assert_eq!(ask(FDB, 0, &[&fdb], &[&drop]), inval, "no rules");
    assert_eq!(ask(FDB, 1, &[&rx], &[&drop]), inval, "directions differ");
    assert_eq!(ask(RX, 1, &[&fdb], &[&drop]), inval, "directions differ");
    assert_eq!(ask(Attr { group: u32::MAX, ..FDB }, 1, &[&fdb], &[&drop]), Err((Errno::Inval, Cause::Group)));
    assert_eq!(ask(Attr { transfer: false, ..FDB }, 1, &[&fdb], &[&drop]), Err((Errno::Inval, Cause::Attr)));
    let attr = TableAttr { attr: FDB, nb_flows: 1 };
    let elsewhere = outcome_of(table(&context, HOST, &attr, &[&fdb], &[&drop]).map(|_| ()));
    assert_eq!(elsewhere, Err((Errno::Inval, Cause::Transfer)), "not the proxy");
    let software = outcome_of(table(&software(), WIRE, &attr, &[&fdb], &[&drop]).map(|_| ()));
    assert_eq!(software, Err((Errno::Notsup, Cause::Unspecified)));
    assert_eq!(ask(FDB, 1 << 20, &[&fdb; 2], &[&drop; 32]), Ok(()));
    let mut small = hardware();
    small.limits.max_table_rules = 100;
    let attr = TableAttr { attr: FDB, nb_flows: 101 };
    let large = outcome_of(table(&small, WIRE, &attr, &[&fdb], &[&drop]).map(|_| ()));
    assert_eq!(large, Err((Errno::Notsup, Cause::Unspecified)), "too large");
}
