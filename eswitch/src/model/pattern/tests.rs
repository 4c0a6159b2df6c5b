use super::super::key::frames::*;
use super::super::key::{Fragment, Headers, L3, L4, Registers, Stack, TunnelKind, parse};
use super::super::types::{Colour, Role, VportInfo};
use super::*;

mod properties;
mod text;

/// Two uplinks and two functions; vport n is ethdev 10 + n.
fn topology() -> Topology {
    let roles = [Role::Uplink(0), Role::Uplink(1), Role::Host(0), Role::Host(1)];
    Topology::new(roles.into_iter().zip(10..).map(|(role, port_id)| VportInfo { role, port_id }).collect())
}

fn key(frame: &[u8]) -> Key {
    Key::extract(frame, &parse(frame), &Registers::from(Vport(1), false))
}

fn frame(name: &str) -> Vec<u8> {
    all().into_iter().find(|(kind, _)| *kind == name).unwrap().1
}

fn bare(layer: Layer) -> Item<'static> {
    Item::Header(Header::any(layer))
}

fn masked<'a>(layer: Layer, spec: &'a [u8], mask: &'a [u8]) -> Item<'a> {
    Item::Header(Header::masked(layer, spec, mask))
}

fn followed(layer: Layer, spec: &[u8], followed: bool) -> Item<'_> {
    const NOTHING: [u8; 40] = [0; 40];
    let mask = Some(&NOTHING[..layer.bytes()]);
    Item::Header(Header { layer, spec: Some(spec), last: None, mask, followed: Some(followed) })
}

fn rule(items: &[Item<'_>]) -> Match {
    lower(items, &topology(), None).unwrap()
}

/// The kinds of frame that a rule matches.
fn hits(rule: &Match) -> Vec<&'static str> {
    all().into_iter().filter(|(_, frame)| rule.matches(&key(frame))).map(|(name, _)| name).collect()
}

/// The HWS template of these items, with themselves as a rule.
fn template(items: &[Item<'_>], relaxed: bool) -> Match {
    let template = PatternTemplate::new(items, relaxed, None).unwrap();
    Match { mask: *template.mask(), value: template.value(items, &topology()).unwrap() }
}

fn eth_type(ethertype: u16) -> [u8; 14] {
    let mut spec = [0; 14];
    spec[12..].copy_from_slice(&ethertype.to_be_bytes());
    spec
}

#[test]
fn a_header_alone_says_that_the_packet_has_it() {
    let eth = bare(Layer::Eth);
    let tcp = [eth, bare(Layer::Ipv6), bare(Layer::Tcp)];
    assert_eq!(hits(&rule(&tcp)), ["ipv6 tcp"]);
    assert_eq!(hits(&template(&tcp, false)), ["ipv6 tcp"]);
    assert_eq!(hits(&template(&tcp, true)).len(), all().len(), "relaxed");
    assert_eq!(hits(&rule(&[eth, bare(Layer::Ipv4), bare(Layer::Icmp)])), ["ipv4 icmp"]);
    assert_eq!(hits(&rule(&[eth, bare(Layer::Ipv6), bare(Layer::Icmp6)])), ["ipv6 icmp6"]);
    assert_eq!(hits(&rule(&[])).len(), all().len());
}

#[test]
fn transports_do_not_match_fragments_but_protocols_do() {
    let tcp = rule(&[bare(Layer::Eth), bare(Layer::Ipv4), bare(Layer::Tcp)]);
    assert_eq!(hits(&tcp), ["ipv4 tcp", "ipv4 options", "vlan", "qinq"]);
    let (mut spec, mut mask) = ([0; 20], [0; 20]);
    (spec[9], mask[9]) = (6, 0xff);
    let protocol = rule(&[bare(Layer::Eth), masked(Layer::Ipv4, &spec, &mask)]);
    let expected = ["ipv4 tcp", "ipv4 options", "ipv4 first fragment", "ipv4 later fragment", "vlan", "qinq"];
    assert_eq!(hits(&protocol), expected);
}

#[test]
fn fragments_are_asked_for_by_range_or_extension_header() {
    let (mut spec, mut last, mut mask) = ([0; 20], [0; 20], [0; 20]);
    mask[6..8].copy_from_slice(&[0x3f, 0xff]);
    let whole = rule(&[bare(Layer::Eth), masked(Layer::Ipv4, &spec, &mask)]);
    assert!(whole.matches(&key(&frame("ipv4 udp"))), "DF does not make a fragment");
    assert!(!whole.matches(&key(&frame("ipv4 first fragment"))));
    (spec[7], last[6], last[7]) = (1, 0x3f, 0xff);
    let range = Header {
        layer: Layer::Ipv4,
        spec: Some(&spec),
        last: Some(&last),
        mask: Some(&mask),
        followed: None,
    };
    let fragments = rule(&[bare(Layer::Eth), Item::Header(range)]);
    assert_eq!(hits(&fragments), ["ipv4 first fragment", "ipv4 later fragment"]);
    let v6 = [bare(Layer::Eth), followed(Layer::Ipv6, &[0; 40], true)];
    assert_eq!(hits(&rule(&v6)), ["ipv6 later fragment"]);
    assert_eq!(hits(&template(&v6, false)), ["ipv6 later fragment"]);
}

#[test]
fn hws_reads_other_fragment_masks_bit_by_bit() {
    let (mut spec, mut mask) = ([0; 20], [0; 20]);
    (spec[6], mask[6]) = (0x40, 0x40);
    let df = template(&[bare(Layer::Eth), masked(Layer::Ipv4, &spec, &mask)], false);
    assert_eq!(hits(&df), ["ipv4 udp"]);
}

#[test]
fn eth_without_a_type_takes_tagged_packets_and_sws_with_one_does_not() {
    let ip = [bare(Layer::Eth), bare(Layer::Ipv4), bare(Layer::Tcp)];
    assert!(rule(&ip).matches(&key(&frame("vlan"))));
    let (spec, mask) = (eth_type(0x0800), eth_type(0xffff));
    let typed = [masked(Layer::Eth, &spec, &mask), bare(Layer::Ipv4), bare(Layer::Tcp)];
    assert_eq!(hits(&rule(&typed)), ["ipv4 tcp", "ipv4 options"]);
    assert_eq!(hits(&template(&typed, false)), ["ipv4 tcp", "ipv4 options", "vlan", "qinq"]);
    let arp = eth_type(0x0806);
    assert_eq!(hits(&rule(&[masked(Layer::Eth, &arp, &mask)])), ["arp"]);
    assert_eq!(hits(&template(&[masked(Layer::Eth, &arp, &mask)], false)), ["arp"]);
}

#[test]
fn vlan_items_mean_customer_tags_and_more_means_a_service_tag() {
    let mask = eth_type(0xffff);
    for lowered in [rule, |items: &[Item<'_>]| template(items, false)] {
        assert_eq!(hits(&lowered(&[bare(Layer::Eth), bare(Layer::Vlan)])), ["vlan"]);
        assert_eq!(hits(&lowered(&[followed(Layer::Eth, &[0; 14], true)])), ["vlan"]);
        let more = [bare(Layer::Eth), followed(Layer::Vlan, &[0; 4], true)];
        assert_eq!(hits(&lowered(&more)), ["qinq"]);
        let untagged = lowered(&[followed(Layer::Eth, &[0; 14], false)]);
        assert_eq!(hits(&untagged).len(), all().len() - 2);
        assert_eq!(hits(&lowered(&[bare(Layer::Eth), bare(Layer::Vlan), bare(Layer::Vlan)])), ["qinq"]);
        let vid = masked(Layer::Vlan, &[0x01, 0x23, 0, 0], &[0x0f, 0xff, 0, 0]);
        assert_eq!(hits(&lowered(&[bare(Layer::Eth), vid])), ["vlan"]);
        let other = masked(Layer::Vlan, &[0x01, 0x22, 0, 0], &[0x0f, 0xff, 0, 0]);
        assert!(hits(&lowered(&[bare(Layer::Eth), other])).is_empty());
    }
    assert_eq!(hits(&rule(&[masked(Layer::Eth, &eth_type(0x8100), &mask)])), ["vlan"]);
    assert_eq!(hits(&rule(&[masked(Layer::Eth, &eth_type(0x88a8), &mask)])), ["qinq"]);
    let inner_ip = masked(Layer::Vlan, &[0, 0, 8, 0], &[0, 0, 0xff, 0xff]);
    assert_eq!(hits(&rule(&[bare(Layer::Eth), inner_ip])), ["vlan"]);
}

#[test]
fn a_template_takes_only_the_masked_type() {
    // The eth item's type is there, but not masked; the vlan item's is.
    let spec = eth_type(0x8100);
    let vlan = masked(Layer::Vlan, &[0, 0, 8, 0], &[0, 0, 0xff, 0xff]);
    let items = [masked(Layer::Eth, &spec, &[0; 14]), vlan];
    assert_eq!(hits(&template(&items, false)), ["vlan"]);
}

#[test]
fn tunnels_are_named_and_looked_into() {
    let outer = [bare(Layer::Eth), bare(Layer::Ipv4)];
    let with = |rest: &[Item<'static>]| hits(&rule(&[&outer[..], rest].concat()));
    assert_eq!(with(&[bare(Layer::Udp)]), ["ipv4 udp", "vxlan", "geneve", "geneve ip"]);
    assert_eq!(with(&[bare(Layer::Udp), bare(Layer::Vxlan)]), ["vxlan"]);
    let vni = masked(Layer::Vxlan, &[0, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0], Layer::Vxlan.default_mask());
    let inner = [bare(Layer::Udp), vni, bare(Layer::Eth), bare(Layer::Ipv4), bare(Layer::Tcp)];
    assert_eq!(with(&inner), ["vxlan"]);
    assert_eq!(with(&[bare(Layer::Udp), bare(Layer::Geneve), bare(Layer::Ipv6)]), ["geneve ip"]);
    assert_eq!(with(&[bare(Layer::Gre), bare(Layer::Eth)]), ["gre cks eth"]);
    assert_eq!(with(&[bare(Layer::Gre), bare(Layer::GreKey)]), ["gre cks eth"]);
    assert_eq!(with(&[bare(Layer::Gre), bare(Layer::Ipv4)]), ["gre ip", "gre cks eth"]);
    let key = masked(Layer::GreKey, &[0x0a, 0x0b, 0x0c, 0x0e], &[255; 4]);
    assert!(with(&[bare(Layer::Gre), key]).is_empty());
}

#[test]
fn sources_are_vports_or_the_manager() {
    let from = |vport, manager| Key::extract(&[], &parse(&[]), &Registers::from(Vport(vport), manager));
    let port = |port_id| Item::RepresentedPort { port_id, mask: u16::MAX };
    let lowered = |item| lower(&[item], &topology(), Some(Vport(3))).unwrap();
    let implicit = lower(&[], &topology(), Some(Vport(3))).unwrap();
    let id = |port_id| Item::PortId { port_id, mask: u32::MAX };
    let manager = Item::PortRepresentor { port_id: Some(12), mask: u16::MAX };
    for (name, rule, expected) in [
        ("implicit", implicit, [true, false, false]),
        ("named", lowered(port(Some(12))), [false, true, false]),
        ("named id", lowered(id(Some(12))), [false, true, false]),
        ("own id", lowered(id(None)), [true, false, false]),
        ("unspecified", lowered(port(None)), [true, true, true]),
        ("manager", lowered(manager), [false, false, true]),
        ("manager's number", lowered(port(Some(u16::MAX))), [false, false, true]),
        ("manager's id", lowered(id(Some(u32::MAX))), [false, false, true]),
    ] {
        let found = [from(3, false), from(2, false), from(2, true)].map(|key| rule.matches(&key));
        assert_eq!(found, expected, "{name}");
    }
    let foreign = lower(&[port(Some(99))], &topology(), None).unwrap_err();
    assert_eq!((foreign.errno, foreign.cause), (Errno::Inval, Cause::ItemSpec(0)));
}

#[test]
fn a_template_with_a_foreign_port_never_matches() {
    let port = |port_id| [Item::RepresentedPort { port_id: Some(port_id), mask: u16::MAX }];
    let template = PatternTemplate::new(&port(0), false, Some(Vport(3))).unwrap();
    let packet = Key::extract(&[], &parse(&[]), &Registers::from(Vport(2), false));
    let matches = |port_id| {
        let value = template.value(&port(port_id), &topology()).unwrap();
        Match { mask: *template.mask(), value }.matches(&packet)
    };
    assert_eq!([matches(12), matches(13), matches(99)], [true, false, false]);
}

#[test]
fn registers_are_matched_under_their_masks() {
    let mut registers = Registers::from(Vport(0), false);
    (registers.tags[3], registers.meta, registers.mark, registers.colour) =
        (0xab, 0x1234, Some(7), Colour::Yellow);
    let packet = Key::extract(&[], &parse(&[]), &registers);
    let items = [
        Item::Tag { index: 3, data: 0xfb, mask: 0x0f },
        Item::Meta { data: 0x34, mask: 0xff },
        Item::Mark { id: 7, mask: u32::MAX },
        Item::MeterColour { colour: 1, mask: 3 },
    ];
    assert!(rule(&items).matches(&packet));
    assert!(template(&items, false).matches(&packet));
    let wrong = [Item::Tag { index: 3, data: 0xfa, mask: 0x0f }];
    assert!(!rule(&wrong).matches(&packet));
    assert!(!template(&wrong, false).matches(&packet));
}

#[test]
fn what_no_key_has_is_refused() {
    let refused = |items: &[Item<'_>]| {
        let refusal = lower(items, &topology(), None).unwrap_err();
        (refusal.errno, refusal.cause)
    };
    let (spec, mut mask) = ([0; 20], [0; 20]);
    mask[4] = 1;
    let id = masked(Layer::Ipv4, &spec, &mask);
    assert_eq!(refused(&[bare(Layer::Eth), id]), (Errno::Notsup, Cause::ItemMask(1)));
    assert_eq!(refused(&[Item::Other(9)]), (Errno::Notsup, Cause::Item(0)));
    assert_eq!(refused(&[bare(Layer::Eth), bare(Layer::Eth)]), (Errno::Inval, Cause::Item(1)));
    assert_eq!(refused(&[bare(Layer::Ipv4), bare(Layer::Ipv4)]), (Errno::Notsup, Cause::Item(1)));
    assert_eq!(refused(&[bare(Layer::GreKey)]), (Errno::Inval, Cause::Item(0)));
    assert_eq!(refused(&[Item::Tag { index: 8, data: 0, mask: 1 }]), (Errno::Inval, Cause::ItemSpec(0)));
    let short = masked(Layer::Tcp, &[0; 19], &[255, 255]);
    assert_eq!(refused(&[short]), (Errno::Inval, Cause::ItemSpec(0)));
    let range = Header {
        layer: Layer::Udp,
        spec: Some(&[0; 8]),
        last: Some(&[0, 9, 0, 0, 0, 0, 0, 0]),
        mask: None,
        followed: None,
    };
    assert_eq!(refused(&[Item::Header(range)]), (Errno::Notsup, Cause::ItemLast(0)));
    let other = PatternTemplate::new(&[Item::Other(9)], false, None).unwrap_err();
    assert_eq!((other.errno, other.cause), (Errno::Inval, Cause::Item(0)));
}

#[test]
fn a_rule_must_have_its_templates_items() {
    let tcp = [0; 20];
    let items = [bare(Layer::Eth), bare(Layer::Ipv4), masked(Layer::Tcp, &tcp, &[255; 4])];
    let template = PatternTemplate::new(&items, false, None).unwrap();
    let refused = |items: &[Item<'_>]| template.value(items, &topology()).unwrap_err().cause;
    assert_eq!(refused(&items[..2]), Cause::ItemNum);
    assert_eq!(refused(&[items[0], items[1], bare(Layer::Tcp)]), Cause::ItemSpec(2));
    assert_eq!(refused(&[items[0], items[1], masked(Layer::Udp, &[0; 8], &[])]), Cause::Item(2));
    assert_eq!(refused(&[items[0], items[1], masked(Layer::Tcp, &[0; 3], &[])]), Cause::ItemSpec(2));
}
