//! Attributes and patterns of SWS rules.

use super::super::{Port, dry_run, matcher_priority, rule};
use super::*;

#[test]
fn attributes() {
    let drop = &[Action::Drop];
    let with = |change: fn(&mut Attr)| {
        let mut attr = FDB;
        change(&mut attr);
        attr
    };
    let refused = |name, attr, errno, cause| case(name, attr, &[ETH], drop, errno, cause);
    expect(
        &software(),
        WIRE,
        &[
            refused("no direction", with(|attr| attr.transfer = false), Errno::Inval, Cause::Attr),
            refused("two directions", with(|attr| attr.ingress = true), Errno::Inval, Cause::Attr),
            refused("egress", Attr { egress: true, transfer: false, ..FDB }, Errno::Notsup, Cause::Egress),
            refused("priority", with(|attr| attr.priority = 21844), Errno::Notsup, Cause::Priority),
            refused("root priority", Attr { group: 0, priority: 4, ..RX }, Errno::Notsup, Cause::Priority),
            refused("highest group", with(|attr| attr.group = u32::MAX), Errno::Inval, Cause::Group),
        ],
    );
    for priority in [21843, super::super::LOWEST_PRIORITY] {
        rule(&software(), WIRE, true, &Attr { priority, group: 0, ..FDB }, &[ETH], drop).unwrap();
    }
}

#[test]
fn modes_and_states() {
    let answer = rule(&context(Steering::Hardware), WIRE, true, &FDB, &[ETH], &[Action::Drop]);
    assert_eq!(outcome(answer, "hardware"), (Errno::Notsup, Cause::Unspecified));
    let answer = rule(&software(), WIRE, false, &FDB, &[ETH], &[Action::Drop]);
    assert_eq!(outcome(answer, "stopped"), (Errno::Nodev, Cause::Unspecified));
    let mut context = software();
    dry_run(&context, &Port::new(WIRE, false), &FDB, &[ETH], &[Action::Drop]).expect("only asked");
    context.options.esw = false;
    let answer = rule(&context, WIRE, true, &FDB, &[ETH], &[Action::Drop]);
    assert_eq!(outcome(answer, "no eSwitch"), (Errno::Notsup, Cause::Unspecified));
}

#[test]
fn group_0_without_the_default_rule_is_a_root_table() {
    let mut context = software();
    context.options.fdb_def_rule = false;
    let attr = Attr { group: 0, priority: 0, ..FDB };
    let edits = [set(Field::Ipv6Src, 128); 5];
    let many = [&edits[..], &[TO_HOST]].concat();
    expect(
        &context,
        WIRE,
        &[
            case(
                "priority",
                Attr { priority: 4, ..attr },
                &[ETH],
                &[Action::Drop],
                Errno::Notsup,
                Cause::Priority,
            ),
            case("17 commands", attr, &[ETH], &many, Errno::Notsup, Cause::Actions),
            case("jump to root", FDB, &[ETH], &[Action::Jump(Some(0))], Errno::Inval, Cause::ActionConf(0)),
        ],
    );
    rule(&context, WIRE, true, &attr, &[ETH], &[Action::Jump(Some(1))]).unwrap();
    rule(&software(), WIRE, true, &attr, &[ETH], &many).expect("not a root table with the default rule");
}

#[test]
fn layers_out_of_place() {
    const TYPE_IPV6: [u8; 14] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd];
    const TYPE_MASK: [u8; 14] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    const IS_UDP: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const PROTOCOL: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let eth_ipv6 = masked(Layer::Eth, &TYPE_IPV6, &TYPE_MASK);
    let ipv4_udp = masked(Layer::Ipv4, &IS_UDP, &PROTOCOL);
    let (icmp, icmp6) = (any(Layer::Icmp), any(Layer::Icmp6));
    let (gre, key, geneve) = (any(Layer::Gre), any(Layer::GreKey), any(Layer::Geneve));
    let inval = |name, items: &[Item<'static>], at| pattern(name, items, Errno::Inval, Cause::Item(at));
    let notsup = |name, items: &[Item<'static>], at| pattern(name, items, Errno::Notsup, Cause::Item(at));
    expect(
        &software(),
        WIRE,
        &[
            notsup("eth twice", &[ETH, ETH], 1),
            inval("eth after IP", &[IPV4, ETH], 1),
            inval("eth after vlan", &[VLAN, ETH], 1),
            inval("vlan twice", &[ETH, VLAN, VLAN], 2),
            inval("vlan after IP", &[ETH, IPV4, VLAN], 2),
            inval("EtherType of another", &[eth_ipv6, IPV4], 1),
            inval("IPv4 in IPv6's EtherType, v6", &[masked(Layer::Vlan, &[0, 0, 8, 0], &FULL[..4]), IPV6], 1),
            notsup("two networks", &[ETH, IPV4, IPV6], 2),
            inval("transport alone", &[ETH, TCP], 1),
            inval("udp alone", &[UDP], 0),
            inval("two transports", &[ETH, IPV4, TCP, UDP], 3),
            inval("protocol of another", &[ETH, ipv4_udp, TCP], 2),
            inval("icmp over IPv6", &[ETH, IPV6, icmp], 2),
            inval("icmp6 over IPv4", &[ETH, IPV4, icmp6], 2),
            inval("icmp after tcp", &[ETH, IPV4, TCP, icmp], 3),
            inval("vxlan without udp", &[ETH, IPV4, VXLAN], 2),
            inval("vxlan over tcp", &[ETH, IPV4, TCP, VXLAN], 3),
            inval("geneve without udp", &[ETH, IPV4, geneve], 2),
            notsup("vxlan in vxlan", &[ETH, IPV4, UDP, VXLAN, ETH, IPV4, UDP, VXLAN], 7),
            notsup("geneve in gre", &[ETH, IPV4, gre, IPV4, UDP, geneve], 5),
            notsup("gre without IP", &[ETH, gre], 1),
            inval("gre over udp's protocol", &[ETH, ipv4_udp, gre], 2),
            notsup("key without gre", &[ETH, IPV4, key], 2),
            notsup("key twice", &[ETH, IPV4, gre, key, key], 4),
            notsup("key too late", &[ETH, IPV4, gre, IPV4, key], 4),
            inval("inner transport alone", &[ETH, IPV4, UDP, VXLAN, ETH, TCP], 5),
            notsup("inner eth twice", &[ETH, IPV4, UDP, VXLAN, ETH, ETH], 5),
            notsup("unknown", &[ETH, Item::Other(99)], 1),
        ],
    );
}

#[test]
fn what_masks_cannot_cover() {
    const fn one<const N: usize>(at: usize) -> [u8; N] {
        let mut mask = [0; N];
        mask[at] = 0xff;
        mask
    }
    const LENGTH: [u8; 20] = one(2);
    const IDENTIFICATION: [u8; 20] = one(4);
    const HEADER_LENGTH: [u8; 20] = one(0);
    const PAYLOAD: [u8; 40] = one(5);
    const SEQUENCE: [u8; 20] = one(4);
    const OFFSET: [u8; 20] = one(12);
    const CHECKSUM: [u8; 8] = one(6);
    const ICMP_CHECKSUM: [u8; 8] = one(2);
    const FLAGS: [u8; 8] = one(0);
    const HALF: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const FRAGMENT_HEADER: [u8; 40] = {
        let mut spec = [0; 40];
        spec[6] = 44;
        spec
    };
    const NEXT_HEADER: [u8; 40] = one(6);
    let ipv4 = |mask| masked(Layer::Ipv4, &ZERO[..20], mask);
    let notsup = |name, items: &[Item<'static>], at| pattern(name, items, Errno::Notsup, Cause::Item(at));
    let tunnel = |item| [ETH, IPV4, UDP, item];
    expect(
        &software(),
        WIRE,
        &[
            notsup("IPv4 length", &[ipv4(&LENGTH)], 0),
            notsup("IPv4 identification", &[ipv4(&IDENTIFICATION)], 0),
            pattern("half a protocol", &[ipv4(&HALF)], Errno::Inval, Cause::ItemMask(0)),
            notsup("IPv6 payload", &[masked(Layer::Ipv6, &ZERO, &PAYLOAD)], 0),
            pattern(
                "IPv6 extension",
                &[masked(Layer::Ipv6, &FRAGMENT_HEADER, &NEXT_HEADER)],
                Errno::Inval,
                Cause::Item(0),
            ),
            notsup("TCP sequence", &[IPV4, masked(Layer::Tcp, &ZERO[..20], &SEQUENCE)], 1),
            notsup("TCP offset", &[IPV4, masked(Layer::Tcp, &ZERO[..20], &OFFSET)], 1),
            notsup("UDP checksum", &[IPV4, masked(Layer::Udp, &ZERO[..8], &CHECKSUM)], 1),
            notsup("ICMP checksum", &[IPV4, masked(Layer::Icmp, &ZERO[..8], &ICMP_CHECKSUM)], 1),
            notsup("ICMPv6 checksum", &[IPV6, masked(Layer::Icmp6, &ZERO[..4], &FULL[..4])], 1),
            notsup("VXLAN flags", &tunnel(masked(Layer::Vxlan, &ZERO[..8], &FLAGS)), 3),
            notsup("GENEVE version", &tunnel(masked(Layer::Geneve, &ZERO[..8], &FULL[..8])), 3),
            notsup("GENEVE in use", &tunnel(masked(Layer::Geneve, &FULL[..8], &ZERO[..8])), 3),
            notsup("GRE version", &[IPV4, masked(Layer::Gre, &ZERO[..4], &FULL[..4])], 1),
        ],
    );
    let mut unable = software();
    unable.limits.ipv4_ihl = false;
    expect(&unable, WIRE, &[notsup("IPv4 header length", &[ipv4(&HEADER_LENGTH)], 0)]);
    rule(&software(), WIRE, true, &FDB, &[ipv4(&HEADER_LENGTH)], &[Action::Drop]).unwrap();
    let mut short = software();
    short.limits.geneve_options = 14;
    let options = masked(Layer::Geneve, &[15, 0, 0, 0, 0, 0, 0, 0], &[0x3f, 0, 0, 0, 0, 0, 0, 0]);
    expect(&short, WIRE, &[notsup("long options", &tunnel(options), 3)]);
    rule(&software(), WIRE, true, &FDB, &tunnel(options), &[Action::Drop]).unwrap();
    let key = masked(Layer::Gre, &ZERO[..4], &[0x20, 0, 0, 0]);
    let keyed = [IPV4, key, any(Layer::GreKey)];
    expect(&software(), WIRE, &[pattern("no key wanted", &keyed, Errno::Inval, Cause::Item(2))]);
}

#[test]
fn a_root_table_matches_less_of_vxlan() {
    let item = masked(Layer::Vxlan, &ZERO[..8], &[0, 0, 0, 0, 0, 0, 0, 255]);
    let attr = Attr { group: 0, ..RX };
    let queue = &[Action::Queue(Some(0))];
    let items = [ETH, IPV4, UDP, item];
    expect(&software(), WIRE, &[case("reserved byte", attr, &items, queue, Errno::Notsup, Cause::Item(3))]);
    rule(&software(), WIRE, true, &RX, &items, queue).unwrap();
}

#[test]
fn spec_last_and_mask() {
    let header = |spec, last, mask| Item::Header(Header { spec, last, mask, ..Header::any(Layer::Udp) });
    let (low, high): (&[u8], &[u8]) = (&UDP_SPEC, &[0x30, 0x40, 0, 53, 0, 0, 0, 0]);
    let udp = |item| [IPV4, item];
    expect(
        &software(),
        WIRE,
        &[
            pattern("mask alone", &udp(header(None, None, Some(&UDP_MASK))), Errno::Inval, Cause::Item(1)),
            pattern("last alone", &udp(header(None, Some(high), None)), Errno::Inval, Cause::Item(1)),
            pattern(
                "range",
                &udp(header(Some(low), Some(high), Some(&UDP_MASK))),
                Errno::Inval,
                Cause::Item(1),
            ),
            pattern(
                "range, default mask",
                &udp(header(Some(low), Some(high), None)),
                Errno::Inval,
                Cause::Item(1),
            ),
            pattern(
                "short mask",
                &udp(header(Some(low), None, Some(&UDP_MASK[..4]))),
                Errno::Inval,
                Cause::Item(1),
            ),
        ],
    );
    for item in
        [header(Some(low), Some(low), Some(&UDP_MASK)), header(Some(low), Some(high), Some(&ZERO[..8]))]
    {
        rule(&software(), WIRE, true, &FDB, &udp(item), &[Action::Drop]).expect("not a range");
    }
}

#[test]
fn fragments() {
    const fn word(word: u16) -> [u8; 20] {
        let mut header = [0; 20];
        [header[6], header[7]] = word.to_be_bytes();
        header
    }
    fn item(spec: u16, last: Option<u16>, mask: u16) -> Item<'static> {
        let leak = |value| -> &'static [u8] { Box::leak(Box::new(word(value))) };
        Item::Header(Header {
            spec: Some(leak(spec)),
            last: last.map(leak),
            mask: Some(leak(mask)),
            ..Header::any(Layer::Ipv4)
        })
    }
    let refused =
        |name, spec, last, mask, errno, cause| pattern(name, &[ETH, item(spec, last, mask)], errno, cause);
    expect(
        &software(),
        WIRE,
        &[
            refused("half a mask", 0x2000, None, 0x2000, Errno::Inval, Cause::ItemMask(1)),
            refused("first", 0x2000, None, 0x3fff, Errno::Notsup, Cause::Item(1)),
            refused("one offset", 0x0005, None, 0x3fff, Errno::Notsup, Cause::Item(1)),
            refused("later", 0x2001, Some(0x3fff), 0x3fff, Errno::Notsup, Cause::ItemLast(1)),
            refused("last", 0x0001, Some(0x1fff), 0x3fff, Errno::Notsup, Cause::ItemLast(1)),
            refused("some", 0x0002, Some(0x3fff), 0x3fff, Errno::Notsup, Cause::ItemLast(1)),
        ],
    );
    for item in [item(0, None, 0x3fff), item(0, None, 0x2000), item(1, Some(0x3fff), 0x3fff)] {
        rule(&software(), WIRE, true, &FDB, &[ETH, item], &[Action::Drop]).expect("whole, or any fragment");
    }
}

#[test]
fn sources() {
    let port = |port_id, mask| Item::RepresentedPort { port_id, mask };
    let queue = &[Action::Queue(Some(0))];
    let ingress = |name, item| case(name, RX, &[item], queue, Errno::Inval, Cause::Item(0));
    let old = |id, mask| Item::PortId { port_id: Some(id), mask };
    let sent = |id, mask| Item::PortRepresentor { port_id: Some(id), mask };
    expect(
        &software(),
        WIRE,
        &[
            ingress("in ingress", from(WIRE_ID)),
            ingress("port_id in ingress", old(10, u32::MAX)),
            ingress("port_representor in ingress", sent(WIRE_ID, u16::MAX)),
            pattern("twice", &[from(WIRE_ID), from(WIRE_ID)], Errno::Notsup, Cause::Item(1)),
            pattern("half a mask", &[port(Some(WIRE_ID), 0xff)], Errno::Notsup, Cause::ItemMask(0)),
            pattern("half a mask, port_id", &[old(10, 0xff)], Errno::Notsup, Cause::ItemMask(0)),
            pattern("another switch's", &[from(99)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("another switch's, port_id", &[old(70_000, u32::MAX)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("another switch's, sent", &[sent(99, u16::MAX)], Errno::Inval, Cause::ItemSpec(0)),
        ],
    );
    for item in
        [from(HOST_ID), from(u16::MAX), port(None, u16::MAX), sent(HOST_ID, u16::MAX), old(11, u32::MAX)]
    {
        rule(&software(), WIRE, true, &FDB, &[item], &[Action::Drop]).unwrap();
    }
}

#[test]
fn registers() {
    let tag = |index, mask| Item::Tag { index, data: 1, mask };
    let meta = |mask| Item::Meta { data: 1, mask };
    let mark = |id, mask| Item::Mark { id, mask };
    let colour = |colour, mask| Item::MeterColour { colour, mask };
    let queue = &[Action::Queue(Some(0))];
    expect(
        &software(),
        WIRE,
        &[
            pattern("tag index", &[tag(5, 1)], Errno::Inval, Cause::Item(0)),
            pattern("tag twice", &[tag(4, 1), tag(4, 2)], Errno::Inval, Cause::ItemSpec(1)),
            pattern("tag mask", &[tag(0, 0)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("meta", &[meta(1)], Errno::Notsup, Cause::Item(0)),
            case("meta, ingress", RX, &[meta(1)], queue, Errno::Notsup, Cause::Item(0)),
            pattern("mark", &[mark(1, 1)], Errno::Notsup, Cause::Item(0)),
            pattern("colour", &[colour(4, 3)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("colour mask", &[colour(1, 0)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("colour bits", &[colour(1, 7)], Errno::Notsup, Cause::Item(0)),
        ],
    );
    expect(
        &with_xmeta(1),
        WIRE,
        &[
            pattern("meta bits", &[meta(0x1_0000)], Errno::Notsup, Cause::Item(0)),
            pattern("meta mask", &[meta(0)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("mark too large", &[mark(0xff_fff0, 0xff)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("mark mask", &[mark(1, 0)], Errno::Inval, Cause::ItemSpec(0)),
            pattern("mark bits", &[mark(1, 0x100_0000)], Errno::Notsup, Cause::Item(0)),
        ],
    );
    expect(
        &with_xmeta(2),
        WIRE,
        &[pattern("mark bits", &[mark(1, 0x1_0000)], Errno::Notsup, Cause::Item(0))],
    );
    rule(&with_xmeta(2), WIRE, true, &FDB, &[meta(u32::MAX), mark(7, 0xffff)], &[Action::Drop]).unwrap();
}

#[test]
fn deeper_patterns_go_first() {
    let context = software();
    let priority =
        |items: &[Item<'static>], priority| matcher_priority(&context, &Attr { priority, ..FDB }, items);
    assert_eq!(priority(TCP4, 2), 6);
    assert_eq!(priority(&[ETH, IPV4], 2), 7);
    assert_eq!(priority(&[ETH, VLAN], 2), 8);
    assert_eq!(priority(&[from(WIRE_ID)], 2), 6, "no header has a say");
    assert_eq!(priority(&[ETH, IPV4, any(Layer::Icmp)], 0), 0);
    assert_eq!(priority(&[ETH, IPV4, UDP, VXLAN, ETH], 0), 2, "the last header decides");
    assert_eq!(priority(&[ETH, IPV4, any(Layer::Gre), any(Layer::GreKey)], 0), 0);
    assert_eq!(priority(&[ETH], u32::MAX), 21844 * 3 + 2);
    assert_eq!(matcher_priority(&context, &Attr { group: 0, priority: u32::MAX, ..RX }, &[ETH]), 4 * 3 + 2);
}
