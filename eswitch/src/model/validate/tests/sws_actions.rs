//! Actions of SWS rules.

use super::super::{MeterPolicy, Pools, dry_run, indirect, rule};
use super::*;
use crate::model::action::Shared;
use crate::model::types::{AgeId, CounterId, MeterId};

const AGE: Action<'static> = Action::Age { timeout_s: 30, context: 0 };
const NAT: Action<'static> = Action::SetIpv4Dst([10, 0, 0, 1]);
const ENCAP: Action<'static> = Action::VxlanEncap(&HEADERS);
const DECAP_L2: Action<'static> = Action::RawDecap(&[0; 14]);
const SHORT: Action<'static> = Action::RawEncap(&[0; 14]);
const TAG: Action<'static> = Action::SetTag { index: 0, data: 1, mask: 1 };
const DROP: Action<'static> = Action::Drop;
const QUEUE: Action<'static> = Action::Queue(Some(0));

fn inval(name: &'static str, items: &[Item<'static>], list: &[Action<'static>], at: usize) -> Case {
    actions(name, items, list, Errno::Inval, Cause::Action(at))
}

fn notsup(name: &'static str, items: &[Item<'static>], list: &[Action<'static>], at: usize) -> Case {
    actions(name, items, list, Errno::Notsup, Cause::Action(at))
}

/// What only the whole list shows, blamed on it.
fn whole(name: &'static str, items: &[Item<'static>], list: &[Action<'static>], errno: Errno) -> Case {
    actions(name, items, list, errno, Cause::Actions)
}

fn ingress(name: &'static str, list: &[Action<'static>], errno: Errno, cause: Cause) -> Case {
    case(name, RX, VXLAN4, list, errno, cause)
}

#[test]
fn fates() {
    let jump = Action::Jump(Some(2));
    let conf = |name, list: &[Action<'static>], errno, cause| actions(name, TCP4, list, errno, cause);
    expect(
        &software(),
        WIRE,
        &[
            whole("none", TCP4, &[Action::Count], Errno::Inval),
            whole("empty", TCP4, &[], Errno::Inval),
            ingress("none, ingress", &[Action::Count], Errno::Inval, Cause::Actions),
            inval("two ports", TCP4, &[TO_HOST, TO_HOST], 1),
            inval("jump and port", TCP4, &[jump, TO_HOST], 1),
            inval("port and jump", TCP4, &[TO_HOST, jump], 1),
            ingress("two queues", &[QUEUE, QUEUE], Errno::Inval, Cause::Action(1)),
            ingress("queue and jump", &[QUEUE, jump], Errno::Inval, Cause::Action(1)),
            ingress(
                "rss and queue",
                &[Action::Rss { queues: &[0, 1] }, QUEUE],
                Errno::Inval,
                Cause::Action(1),
            ),
            whole("drop and edit", TCP4, &[NAT, DROP], Errno::Inval),
            whole("drop and port", TCP4, &[TO_HOST, DROP], Errno::Inval),
            whole("drop and encap", TCP4, &[ENCAP, DROP], Errno::Inval),
            whole("queue in transfer", TCP4, &[QUEUE], Errno::Notsup),
            whole("rss in transfer", TCP4, &[Action::Rss { queues: &[0] }], Errno::Notsup),
            notsup("port_representor", TCP4, &[Action::PortRepresentor(Some(HOST_ID))], 0),
            ingress("port in ingress", &[TO_HOST], Errno::Notsup, Cause::Unspecified),
            conf("foreign port", &[Action::RepresentedPort(Some(99))], Errno::Inval, Cause::ActionConf(0)),
            conf("foreign port_id", &[Action::PortId(Some(70_000))], Errno::Inval, Cause::ActionConf(0)),
            conf("no port", &[Action::RepresentedPort(None)], Errno::Notsup, Cause::ActionConf(0)),
            conf("no group", &[Action::Jump(None)], Errno::Inval, Cause::ActionConf(0)),
            conf("highest group", &[Action::Jump(Some(u32::MAX))], Errno::Inval, Cause::Group),
            ingress("jump to root", &[Action::Jump(Some(0))], Errno::Inval, Cause::ActionConf(0)),
            ingress("queue 4 of 4", &[Action::Queue(Some(4))], Errno::Inval, Cause::ActionConf(0)),
            ingress("rss on queue 4", &[Action::Rss { queues: &[0, 4] }], Errno::Inval, Cause::ActionConf(0)),
            ingress("rss on none", &[Action::Rss { queues: &[] }], Errno::Inval, Cause::ActionConf(0)),
            notsup("meter_mark", TCP4, &[Action::MeterMark { profile: 0, colour_aware: false }], 0),
            notsup("unknown", TCP4, &[Action::Other(77)], 0),
        ],
    );
}

#[test]
fn marks_and_registers() {
    let mark = |id| Action::Mark(Some(id));
    let meta = |mask| Action::SetMeta { data: 1, mask };
    expect(
        &software(),
        WIRE,
        &[
            ingress("mark and flag", &[mark(1), Action::Flag, QUEUE], Errno::Inval, Cause::Action(1)),
            ingress("flag and mark", &[Action::Flag, mark(1), QUEUE], Errno::Inval, Cause::Action(1)),
            ingress("mark too large", &[mark(0xff_fff0), QUEUE], Errno::Inval, Cause::ActionConf(0)),
            ingress("no mark", &[Action::Mark(None), QUEUE], Errno::Inval, Cause::Action(0)),
            actions("mark in FDB", TCP4, &[mark(1), TO_HOST], Errno::Notsup, Cause::Unspecified),
            actions("flag in FDB", TCP4, &[Action::Flag, TO_HOST], Errno::Notsup, Cause::Unspecified),
            notsup("meta in FDB", TCP4, &[meta(1), TO_HOST], 0),
            ingress("meta mask", &[meta(0), QUEUE], Errno::Inval, Cause::Action(0)),
            inval("tag index", TCP4, &[Action::SetTag { index: 5, data: 1, mask: 1 }, TO_HOST], 0),
            inval("tag mask", TCP4, &[Action::SetTag { index: 0, data: 1, mask: 0 }, TO_HOST], 0),
            ingress("tag after queue", &[QUEUE, TAG], Errno::Inval, Cause::Action(1)),
        ],
    );
    let beyond = [meta(0x1_0000), TO_HOST];
    expect(&with_xmeta(1), WIRE, &[inval("meta bits", TCP4, &beyond, 0)]);
    rule(&with_xmeta(2), WIRE, true, &FDB, TCP4, &[mark(1), meta(u32::MAX), TO_HOST]).unwrap();
    expect(
        &with_xmeta(2),
        WIRE,
        &[actions("mark of 16 bits", TCP4, &[mark(0xfff0), TO_HOST], Errno::Inval, Cause::ActionConf(0))],
    );
}

#[test]
fn counts_and_ages() {
    let count = Action::Indirect(Some(Shared::Counter(CounterId(1))));
    let age = Action::Indirect(Some(Shared::Age(AgeId(1))));
    let meter = Action::Indirect(Some(Shared::Meter(MeterId(1))));
    let never = Action::Age { timeout_s: 0, context: 0 };
    let long = Action::Age { timeout_s: 1 << 24, context: 0 };
    expect(
        &software(),
        WIRE,
        &[
            inval("count twice", TCP4, &[Action::Count, Action::Count, TO_HOST], 1),
            inval("count and handle", TCP4, &[Action::Count, count, TO_HOST], 1),
            inval("age twice", TCP4, &[AGE, AGE, TO_HOST], 1),
            inval("age and handle", TCP4, &[AGE, age, TO_HOST], 1),
            inval("age of 0", TCP4, &[never, TO_HOST], 0),
            inval("age of 25 bits", TCP4, &[long, TO_HOST], 0),
            inval("handle left out", TCP4, &[Action::Indirect(None), TO_HOST], 0),
            inval("handle of a meter", TCP4, &[meter, TO_HOST], 0),
            actions("age after the fate", TCP4, &[TO_HOST, AGE], Errno::Notsup, Cause::Unspecified),
            case(
                "handle in root",
                Attr { group: 0, ..RX },
                TCP4,
                &[age, QUEUE],
                Errno::Notsup,
                Cause::Unspecified,
            ),
        ],
    );
    // The counter takes the age's place, and counters may stand anywhere.
    rule(&software(), WIRE, true, &FDB, TCP4, &[TO_HOST, AGE, Action::Count]).unwrap();
    rule(&software(), WIRE, true, &FDB, TCP4, &[count, age, TO_HOST]).unwrap();
}

#[test]
fn vlans() {
    let tagged = &[ETH, VLAN, IPV4];
    let (push, pop) = (Action::PushVlan(0x8100), Action::PopVlan);
    let (vid, pcp) = (Action::SetVlanVid(5), Action::SetVlanPcp(3));
    let inner = &[ETH, IPV4, UDP, VXLAN, ETH, IPV4];
    let partly = |mask| [ETH, masked(Layer::Vlan, &ZERO[..4], mask), IPV4];
    let loose = |name, items: &[Item<'static>], list: &[Action<'static>]| {
        actions(name, items, list, Errno::Notsup, Cause::Unspecified)
    };
    expect(
        &software(),
        WIRE,
        &[
            loose("pop without vlan", TCP4, &[pop, TO_HOST]),
            loose("pop after decap without inner vlan", inner, &[Action::VxlanDecap, pop, TO_HOST]),
            notsup("pop twice", tagged, &[pop, pop, TO_HOST], 1),
            notsup("pop after push", tagged, &[push, pop, TO_HOST], 1),
            loose("push after pop, from the wire", tagged, &[pop, push, TO_HOST]),
            inval("pop after port", tagged, &[TO_HOST, pop], 1),
            inval("push after port", TCP4, &[TO_HOST, push], 1),
            inval("no tag's EtherType", TCP4, &[Action::PushVlan(0x800), TO_HOST], 0),
            inval("half a PCP", &partly(&[0x20, 0, 0, 0]), &[push, TO_HOST], 0),
            inval("half a VID", &partly(&[0, 0x0f, 0, 0]), &[push, TO_HOST], 0),
            inval("VID 4095", TCP4, &[push, Action::SetVlanVid(0xfff), TO_HOST], 1),
            notsup("VID of nothing", TCP4, &[vid, TO_HOST], 0),
            notsup("VID twice", TCP4, &[push, vid, vid, TO_HOST], 2),
            inval("VID after port", TCP4, &[push, TO_HOST, vid], 2),
            inval("PCP 8", TCP4, &[push, Action::SetVlanPcp(8), TO_HOST], 1),
            notsup("PCP of nothing", tagged, &[pcp, TO_HOST], 0),
            notsup("PCP twice", TCP4, &[push, pcp, pcp, TO_HOST], 2),
            inval("PCP after port", TCP4, &[push, TO_HOST, pcp], 2),
            ingress("push in ingress", &[push, QUEUE], Errno::Notsup, Cause::Ingress),
        ],
    );
    let refused =
        |name, list: &[Action<'static>]| case(name, RX, tagged, list, Errno::Notsup, Cause::Unspecified);
    expect(
        &software(),
        HOST,
        &[refused("representor's pop", &[pop, QUEUE]), refused("representor's push", &[push, QUEUE])],
    );
    rule(&software(), HOST, true, &FDB, tagged, &[pop, push, vid, pcp, TO_WIRE]).expect("from a vport");
    rule(&software(), WIRE, true, &FDB, &partly(&[0x20, 0x0f, 0, 0]), &[push, vid, pcp, TO_HOST]).unwrap();
}

#[test]
fn tunnels() {
    const LONG: Action<'static> = Action::VxlanEncap(&[0; 133]);
    let decap = Action::VxlanDecap;
    let (raw_decap, raw_encap) = (Action::RawDecap(&HEADERS), Action::RawEncap(&HEADERS));
    let loose = |name, items: &[Item<'static>], list: &[Action<'static>]| {
        actions(name, items, list, Errno::Notsup, Cause::Unspecified)
    };
    expect(
        &software(),
        WIRE,
        &[
            inval("two encaps", TCP4, &[ENCAP, ENCAP, TO_WIRE], 1),
            inval("encap and raw encap", TCP4, &[ENCAP, raw_encap, TO_WIRE], 1),
            inval("encap of nothing", TCP4, &[Action::VxlanEncap(&[]), TO_WIRE], 0),
            inval("encap of too much", TCP4, &[LONG, TO_WIRE], 0),
            inval("raw encap of nothing", TCP4, &[Action::RawEncap(&[]), TO_WIRE], 0),
            notsup("raw encap of little", TCP4, &[SHORT, TO_WIRE], 0),
            notsup("raw decap and encap of little", TCP4, &[Action::RawDecap(&[0; 14]), SHORT, TO_WIRE], 1),
            whole("decap and encap", VXLAN4, &[decap, ENCAP, TO_HOST], Errno::Notsup),
            whole("raw decap and encap", VXLAN4, &[raw_decap, raw_encap, TO_HOST], Errno::Notsup),
            notsup("two decaps", VXLAN4, &[decap, raw_decap, TO_HOST], 1),
            notsup("decap after encap", VXLAN4, &[ENCAP, decap, TO_HOST], 1),
            inval("decap after edit", VXLAN4, &[Action::SetTtl(1), decap, TO_HOST], 1),
            loose("decap of no vxlan", TCP4, &[decap, TO_HOST]),
            ingress("encap in ingress", &[ENCAP, QUEUE], Errno::Notsup, Cause::Actions),
        ],
    );
    let from_host = [&[from(HOST_ID)], VXLAN4].concat();
    let sent = [&[Item::PortRepresentor { port_id: None, mask: u16::MAX }], VXLAN4].concat();
    let anywhere = [&[from(u16::MAX)], VXLAN4].concat();
    expect(
        &software(),
        WIRE,
        &[
            loose("decap from a vport", &from_host, &[decap, TO_WIRE]),
            loose("decap from the CPUs", &sent, &[raw_decap, TO_HOST]),
            loose("decap from anywhere", &anywhere, &[decap, TO_HOST]),
        ],
    );
    expect(&software(), HOST, &[loose("decap on a host's port", VXLAN4, &[decap, TO_WIRE])]);
    let nic =
        |name, list: &[Action<'static>]| case(name, RX, VXLAN4, list, Errno::Notsup, Cause::Unspecified);
    expect(
        &software(),
        HOST,
        &[
            nic("representor's encap", &[ENCAP, QUEUE]),
            nic("representor's raw encap", &[raw_encap, QUEUE]),
            nic("representor's decap", &[decap, QUEUE]),
        ],
    );
    rule(&software(), WIRE, true, &RX, VXLAN4, &[decap, QUEUE]).expect("the uplink's own");
    rule(&software(), WIRE, true, &FDB, VXLAN4, &[raw_decap, SHORT, TO_HOST]).expect("layer-3 decap");
    let in_ip =
        |headers: &'static [u8]| [AGE, Action::Count, NAT, DECAP_L2, Action::RawEncap(headers), TO_HOST];
    let refused = rule(&software(), WIRE, true, &FDB, TCP4, &in_ip(&[0; 34])).map_err(|why| why.errno);
    assert_eq!(refused, Err(Errno::Notsup), "Ethernet and IPv4 alone are no tunnel");
    rule(&software(), WIRE, true, &FDB, TCP4, &in_ip(&[0; 35])).expect("a tunnel of packets");
    let in_frames = [AGE, Action::Count, NAT, raw_encap, TO_HOST];
    rule(&software(), WIRE, true, &FDB, TCP4, &in_frames).expect("a tunnel of frames");
    let late = [DECAP_L2, Action::RawEncap(&HEADERS), NAT, TO_HOST];
    let refused = rule(&software(), WIRE, true, &FDB, TCP4, &late).map_err(|why| why.errno);
    assert_eq!(refused, Err(Errno::Inval), "edits after an encapsulation");
    let layer3 = [Action::RawDecap(&[0; 14]), raw_encap, TO_WIRE];
    rule(&software(), HOST, true, &FDB, TCP4, &layer3).expect("layer-3 encap, even from a vport");
}

#[test]
fn edits_need_their_layer() {
    let one = |name, items: &[Item<'static>], edit| inval(name, items, &[edit, TO_HOST], 0);
    let after = |name, edit| inval(name, &VXLAN4[..5], &[Action::VxlanDecap, edit, TO_HOST], 1);
    let bare = &[IPV4][..];
    let icmp6 = &[ETH, IPV6, any(Layer::Icmp6)];
    expect(
        &software(),
        WIRE,
        &[
            one("MAC", bare, Action::SetMacSrc([0; 6])),
            one("MAC", bare, Action::SetMacDst([0; 6])),
            one("IPv4", TCP6, Action::SetIpv4Src([0; 4])),
            one("IPv4", TCP6, NAT),
            one("IPv6", TCP4, Action::SetIpv6Src([0; 16])),
            one("IPv6", TCP4, Action::SetIpv6Dst([0; 16])),
            one("port", bare, Action::SetTpSrc(1)),
            one("port", &[ETH, IPV4, any(Layer::Icmp)], Action::SetTpDst(1)),
            one("TTL", &[ETH], Action::SetTtl(1)),
            one("TTL", &[ETH], Action::DecTtl),
            one("DSCP", TCP6, Action::SetIpv4Dscp(1)),
            one("DSCP", TCP4, Action::SetIpv6Dscp(1)),
            one("sequence", &[ETH, IPV4, UDP], Action::AddTcpSeq(1)),
            one("acknowledgement", bare, Action::AddTcpAck(-1)),
            after("inner IPv4", NAT),
            after("inner port", Action::SetTpSrc(1)),
            after("inner TTL", Action::DecTtl),
            notsup("ICMPv6", icmp6, &[Action::SetIpv6Dst([0; 16]), TO_HOST], 0),
            notsup("ICMPv6", icmp6, &[Action::SetIpv6Src([0; 16]), TO_HOST], 0),
            inval("up and down", TCP4, &[Action::AddTcpSeq(1), Action::AddTcpSeq(-1), TO_HOST], 1),
            inval("down and up", TCP4, &[Action::AddTcpAck(-1), Action::AddTcpAck(1), TO_HOST], 1),
            inval("edit after encap", TCP4, &[ENCAP, NAT, TO_WIRE], 1),
            inval("modify_field after encap", TCP4, &[ENCAP, set(Field::Ipv4Ttl, 8), TO_WIRE], 1),
            actions("edit after port", TCP4, &[TO_HOST, NAT], Errno::Notsup, Cause::Unspecified),
            actions(
                "edit after push",
                TCP4,
                &[Action::PushVlan(0x8100), NAT, TO_HOST],
                Errno::Notsup,
                Cause::Unspecified,
            ),
            actions("encap after port", TCP4, &[TO_HOST, ENCAP], Errno::Notsup, Cause::Unspecified),
        ],
    );
    rule(&software(), WIRE, true, &FDB, VXLAN4, &[Action::VxlanDecap, NAT, Action::SetTpDst(1), TO_HOST])
        .unwrap();
    dry_run(&software(), &Port::new(WIRE, true), &FDB, TCP4, &[TO_HOST, NAT])
        .expect("known at creation only");
}

#[test]
fn modify_field() {
    let at = |field, level, offset| FieldRef { field, level, offset };
    let with = |op, dst, src, width| Action::ModifyField { op, dst, src, width };
    let value = Some(FieldSource::Value([0; 16]));
    let from = |place| Some(FieldSource::Field(place));
    let (src, dst) = (at(Field::Ipv4Src, 0, 0), at(Field::Ipv4Dst, 0, 0));
    let i = |name, edit| inval(name, TCP4, &[edit, TO_HOST], 0);
    let n = |name, edit| notsup(name, TCP4, &[edit, TO_HOST], 0);
    let (set_op, add, sub) = (ModifyOp::Set, ModifyOp::Add, ModifyOp::Sub);
    let no_source = [with(set_op, dst, None, 32), TO_HOST];
    let add_field = [with(add, dst, from(src), 32), TO_HOST];
    expect(
        &software(),
        WIRE,
        &[
            i("no bits", set(Field::Ipv4Dst, 0)),
            i("too many bits", set(Field::Ipv4Dst, 33)),
            i("more than the source has", copy(Field::Ipv4Dst, Field::TcpPortDst, 32)),
            i("beyond the end", with(set_op, at(Field::Ipv4Dst, 0, 8), value, 32)),
            i("beyond the source's end", with(set_op, dst, from(at(Field::Ipv4Src, 0, 8)), 32)),
            n("inner", with(set_op, at(Field::Ipv4Dst, 2, 0), value, 32)),
            n("inner source", with(set_op, dst, from(at(Field::Ipv4Src, 1, 0)), 32)),
            actions("no source", TCP4, &no_source, Errno::Inval, Cause::ActionConf(0)),
            actions("add a field", TCP4, &add_field, Errno::Notsup, Cause::ActionConf(0)),
            i("itself", copy(Field::Ipv4Dst, Field::Ipv4Dst, 32)),
            n("subtract", with(sub, dst, value, 32)),
            i("mark", set(Field::Mark, 24)),
            n("read mark", copy(Field::Tag, Field::Mark, 24)),
            n("meta", set(Field::Meta, 32)),
            n("start", set(Field::Start, 8)),
            n("VLAN type", set(Field::VlanType, 16)),
            n("VNI", set(Field::VxlanVni, 24)),
            n("GENEVE VNI", set(Field::GeneveVni, 24)),
            n("unknown", set(Field::Other(99), 8)),
            i("tag index", with(set_op, at(Field::Tag, 5, 0), value, 32)),
            case(
                "copy in root",
                Attr { group: 0, ..RX },
                TCP4,
                &[copy(Field::Ipv4Dst, Field::Ipv4Src, 32), QUEUE],
                Errno::Notsup,
                Cause::Action(0),
            ),
        ],
    );
    for edit in [
        set(Field::MacDst, 48),
        with(add, at(Field::Ipv4Ttl, 0, 0), value, 8),
        copy(Field::Tag, Field::Ipv4Src, 32),
    ] {
        rule(&software(), WIRE, true, &FDB, TCP4, &[edit, TO_HOST]).unwrap();
    }
}

#[test]
fn numbers() {
    let eight = [
        Action::PushVlan(0x8100),
        Action::Count,
        AGE,
        Action::Sample { ratio: 1, actions: &[TO_HOST] },
        Action::Meter(1),
        NAT,
        ENCAP,
        TO_WIRE,
    ];
    let nine = [&eight[..], &[Action::Flag]].concat();
    // 32 words: 8 addresses of 4.
    let words = |edits: usize, more: &[Action<'static>]| {
        [&vec![Action::SetIpv6Src([0; 16]); edits][..], more, &[TO_HOST]].concat()
    };
    expect(
        &software(),
        WIRE,
        &[
            notsup("nine actions", TCP4, &nine, 8),
            whole("33 words", TCP6, &words(8, &[Action::DecTtl]), Errno::Notsup),
            whole("34 words", TCP6, &words(8, &[Action::SetMacSrc([0; 6])]), Errno::Notsup),
        ],
    );
    rule(&software(), WIRE, true, &FDB, TCP6, &words(8, &[])).expect("32 words, one action");
    rule(&software(), WIRE, true, &FDB, TCP4, &eight).expect("eight actions");
    // Extended metadata takes one.
    expect(&with_xmeta(2), WIRE, &[whole("xmeta", TCP6, &words(8, &[]), Errno::Notsup)]);
}

#[test]
fn meters() {
    let meter = Action::Meter(1);
    let mirror = Action::Sample { ratio: 1, actions: &[TO_HOST] };
    expect(
        &software(),
        WIRE,
        &[
            notsup("two meters", TCP4, &[meter, meter, TO_HOST], 1),
            notsup("after a jump", TCP4, &[Action::Jump(Some(2)), meter], 1),
            whole("with an age", TCP4, &[AGE, meter, TO_HOST], Errno::Notsup),
            inval("before a sample", TCP4, &[meter, mirror, TO_HOST], 1),
            whole("alone", TCP4, &[meter], Errno::Inval),
        ],
    );
    rule(&software(), WIRE, true, &FDB, TCP4, &[AGE, Action::Count, meter, NAT, TO_HOST]).unwrap();
    let meters = |id| (id == 7).then_some(MeterPolicy::Terminating);
    let port = Port { meters: Some(&meters), ..Port::new(WIRE, true) };
    let ask = |attr, list: &[Action<'static>]| {
        rule_on(&software(), &port, &attr, TCP4, list).map_err(|refusal| (refusal.errno, refusal.cause))
    };
    assert_eq!(
        ask(FDB, &[Action::Meter(6), TO_HOST]),
        Err((Errno::Inval, Cause::Action(0))),
        "no such meter"
    );
    assert_eq!(ask(FDB, &[Action::Meter(7), TO_HOST]), Err((Errno::Notsup, Cause::Action(1))), "comes last");
    assert_eq!(ask(RX, &[QUEUE, Action::Meter(7)]), Err((Errno::Notsup, Cause::Actions)), "two fates");
    ask(FDB, &[NAT, Action::Meter(7)]).expect("the policy is the fate");
}

#[test]
fn samples() {
    const fn sample(ratio: u32, actions: &'static [Action<'static>]) -> Action<'static> {
        Action::Sample { ratio, actions }
    }
    const MIRROR: Action<'static> = sample(1, &[TO_HOST]);
    let bad = |name, sample| notsup(name, TCP4, &[sample, TO_WIRE], 0);
    let wrong = |name, sample| inval(name, TCP4, &[sample, TO_WIRE], 0);
    let nic = |name, sample, errno| ingress(name, &[sample, QUEUE], errno, Cause::Action(0));
    expect(
        &software(),
        WIRE,
        &[
            wrong("ratio 0", sample(0, &[TO_HOST])),
            bad("one in two", sample(2, &[TO_HOST])),
            inval("twice", TCP4, &[MIRROR, MIRROR, TO_WIRE], 1),
            inval("after a jump", TCP4, &[Action::Jump(Some(2)), MIRROR], 1),
            wrong("no port", sample(1, &[Action::Count])),
            actions(
                "port of another",
                TCP4,
                &[sample(1, &[Action::RepresentedPort(Some(99))]), TO_WIRE],
                Errno::Inval,
                Cause::ActionConf(0),
            ),
            wrong("two ports", sample(1, &[TO_HOST, TO_HOST])),
            bad("a queue", sample(1, &[QUEUE])),
            bad("an edit", sample(1, &[NAT, TO_HOST])),
            bad("a decap", sample(1, &[Action::VxlanDecap, TO_HOST])),
            bad("a short encap", sample(1, &[SHORT, TO_HOST])),
            wrong("two encaps", sample(1, &[ENCAP, ENCAP, TO_WIRE])),
            inval("count in both", TCP4, &[Action::Count, sample(1, &[Action::Count, TO_HOST]), TO_WIRE], 1),
            inval("count in both", TCP4, &[sample(1, &[Action::Count, TO_HOST]), Action::Count, TO_WIRE], 1),
            whole(
                "encapsulated copies to a host",
                TCP4,
                &[sample(1, &[ENCAP, TO_HOST]), TO_WIRE],
                Errno::Notsup,
            ),
            whole(
                "bare copies to the wire, and a jump",
                TCP4,
                &[sample(1, &[TO_WIRE]), Action::Jump(Some(2))],
                Errno::Notsup,
            ),
            whole("encapsulated to a host", TCP4, &[MIRROR, ENCAP, TO_HOST], Errno::Notsup),
            whole("age after", TCP4, &[MIRROR, AGE, TO_WIRE], Errno::Notsup),
            nic("no queue", sample(2, &[Action::Count]), Errno::Inval),
            nic("empty rss", sample(2, &[Action::Rss { queues: &[] }]), Errno::Inval),
            nic("a port", sample(2, &[TO_HOST]), Errno::Notsup),
        ]
        .map(|mut case| {
            // A port in ingress, and a set without queues, are blamed as outside a sample.
            match case.name {
                "empty rss" => case.refused.1 = Cause::ActionConf(0),
                "a port" => case.refused.1 = Cause::Unspecified,
                _ => {}
            }
            case
        }),
    );
    for list in [
        &[AGE, MIRROR, TO_WIRE][..],
        &[MIRROR, NAT, ENCAP, TO_WIRE],
        &[sample(1, &[ENCAP, TO_WIRE]), Action::Jump(Some(2))],
        &[MIRROR, DROP],
        &[sample(2, &[]), TO_WIRE],
    ] {
        rule(&software(), WIRE, true, &FDB, TCP4, list).unwrap();
    }
    rule(&software(), WIRE, true, &RX, TCP4, &[sample(2, &[Action::Queue(Some(1))]), QUEUE]).unwrap();
}

#[test]
fn handles() {
    let ask = |steering, action, pools| {
        indirect(&context(steering), &action, pools).map_err(|refusal| (refusal.errno, refusal.cause))
    };
    let (software, hardware) = (Steering::Software, Steering::Hardware);
    let none = Pools::default();
    let all = Pools { counters: true, ages: true, meters: true };
    let meter = Action::MeterMark { profile: 0, colour_aware: false };
    let refused = |errno| Err((errno, Cause::Action(0)));
    assert_eq!(ask(software, Action::Age { timeout_s: 0, context: 0 }, none), refused(Errno::Inval));
    assert_eq!(ask(software, Action::Drop, none), refused(Errno::Notsup));
    assert_eq!(ask(software, meter, none), refused(Errno::Notsup));
    assert_eq!(ask(software, Action::Rss { queues: &[] }, none), Err((Errno::Inval, Cause::ActionConf(0))));
    for action in [Action::Count, AGE, meter] {
        assert_eq!(ask(hardware, action, none), refused(Errno::Inval));
        assert_eq!(ask(hardware, action, all), Ok(()));
    }
    assert_eq!(ask(hardware, NAT, all), refused(Errno::Notsup));
    for action in [Action::Count, AGE, Action::Rss { queues: &[0] }] {
        assert_eq!(ask(software, action, none), Ok(()));
    }
}
